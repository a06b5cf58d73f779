package mailstore

import (
	"fmt"
	"slices"
	"sort"
	"strings"
)

// Limits of what a state remembers of the past. They bound memory only: what goes first is the oldest,
// and VanishedSince knows where the memory begins.
const (
	maxTombRanges = 8192
	maxDead       = 200000
)

// mailFold folds the records of a mailbox into states. It drives one history: the states it publishes
// share arrays that grow, so a fold whose records turn out to be void is thrown away with the fold.
type mailFold struct {
	s         *State            // the state being built; private until publish
	shared    bool              // s has been published: copy it before the next change
	owned     []bool            // owned[i]: chunks[i] is private
	originIdx map[string]uint32 // of s.origins; nil while there are few
	kwIdx     map[string]uint32 // of s.keywords, joined; nil while there are few
	sources   map[string]uint32 // source -> live UID; nil until somebody needs it
	tombLen   int
	effect    *mailEffect // where the op being folded reports, or nil
}

// mailEffect is what an op did, for the one who committed it.
type mailEffect struct {
	resolved  bool // the fields below are meant
	uids      []uint32
	changed   UIDSet
	failed    UIDSet
	exhausted bool
	closed    bool // the mailbox was closed already: nothing was done
}

// noKeywords begins every table of keyword sets; its capacity is used up, so that an append copies it.
var noKeywords = [][]string{nil}

// fewIndexed is the length up to which a table is searched without a map: a mailbox has few origins and few
// sets of keywords, and most of what an idle mailbox costs would be the maps.
const fewIndexed = 16

func newMailFold() *mailFold {
	return &mailFold{s: &State{uidNext: 1, keywords: noKeywords}}
}

// edit makes the state writable.
func (f *mailFold) edit() *State {
	if f.shared {
		s := *f.s
		f.s, f.shared = &s, false
		f.owned = f.owned[:0]
	}
	return f.s
}

// publish returns the state as of now; the fold goes on with a copy.
func (f *mailFold) publish() *State {
	f.shared = true
	return f.s
}

// chunkAt returns chunk i, private, with its own array of records.
func (f *mailFold) chunkAt(i int) *chunk {
	s := f.s
	f.ownList()
	for len(f.owned) < len(s.chunks) {
		f.owned = append(f.owned, false)
	}
	c := s.chunks[i]
	if !f.owned[i] {
		c = &chunk{recs: append(make([]msgRec, 0, cap(c.recs)), c.recs...), ext: c.ext[:len(c.ext):len(c.ext)], maxMod: c.maxMod}
		s.chunks[i] = c
		f.owned[i] = true
	}
	return c
}

// ownList makes the list of chunks private. owned[0] of length > 0 says that it is.
func (f *mailFold) ownList() {
	if len(f.owned) == 0 {
		f.s.chunks = append(make([]*chunk, 0, len(f.s.chunks)+4), f.s.chunks...)
		f.owned = append(f.owned, false)[:1]
	}
}

// apply folds record n, whose ops are in body. effects, when given, has one element per op.
func (f *mailFold) apply(n uint64, origin, body string, effects []*mailEffect) error {
	s := f.edit()
	s.n = n
	i := 0
	err := eachOp(body, func(text string) error {
		f.effect = nil
		if i < len(effects) && effects[i] != nil {
			*effects[i] = mailEffect{resolved: true, closed: s.closed}
			f.effect = effects[i]
		}
		i++
		op, skip, err := parseMailOp(text, origin)
		if err != nil {
			return err
		}
		if s.closed {
			return nil
		}
		if skip {
			s.kept = append(s.kept[:len(s.kept):len(s.kept)], keptOp{n, text})
			return nil
		}
		f.applyOp(&op, n)
		return nil
	})
	if err == nil && s.uidValidity == 0 {
		err = fmt.Errorf("no UIDVALIDITY in the first record: %w", ErrCorrupt)
	}
	return err
}

func (f *mailFold) applyOp(op *mailOp, n uint64) {
	s := f.s
	switch op.kind {
	case opOptions:
		if n == 1 {
			s.base, s.account, s.id = op.options.base, op.options.account, op.options.id
			s.tombFloor = s.base
		}
		if s.uidValidity == 0 {
			s.uidValidity = op.options.uidValidity
		}
	case opDeliver:
		f.deliver(op, s.base+n)
	case opFlags:
		f.changeFlags(op, s.base+n)
	case opExpunge:
		f.expunge(op.uids, true, n)
	case opRemove:
		f.expunge(op.uids, false, n)
	case opRenumber:
		f.renumber(op.validity, s.base+n)
	case opGone:
		i := sort.Search(len(s.dead), func(i int) bool { return s.dead[i].n > op.gone })
		s.dead = append([]deadMsg(nil), s.dead[i:]...)
	case opTerminal:
		s.closed = true
	}
}

func (f *mailFold) deliver(op *mailOp, modSeq uint64) {
	s := f.s
	next := uint64(s.uidNext)
	for i := range op.entries {
		next = max(next, uint64(op.entries[i].uid)) + 1
	}
	if next > MaxUID {
		if f.effect != nil {
			f.effect.exhausted = true
		}
		return
	}
	for i := range op.entries {
		e := &op.entries[i]
		if e.source != "" {
			if uid, ok := f.liveSource(e.source); ok {
				f.report(uid)
				continue
			}
		}
		uid := s.uidNext
		if e.uid > uid {
			uid = e.uid
		}
		rec, ext := f.record(e, uid, op.date, modSeq)
		f.push(rec, ext)
		s.uidNext = uid + 1
		f.report(uid)
		if e.source != "" && f.sources != nil {
			f.sources[e.source] = uid
		}
	}
}

func (f *mailFold) report(uid uint32) {
	if f.effect != nil {
		f.effect.uids = append(f.effect.uids, uid)
	}
}

// record makes the stored form of an entry.
func (f *mailFold) record(e *entry, uid uint32, opDate int64, modSeq uint64) (msgRec, *msgExt) {
	r := msgRec{
		modSeq: modSeq, ctr: e.id.ctr, uid: uid, size: uint32(e.id.size), crc: e.id.crc,
		origin: f.origin(e.id.origin), keywords: f.keywordSet(e.keywords), flags: e.flags,
	}
	date, save := opDate, opDate
	if e.hasDate {
		date = e.date
	}
	if e.hasSave {
		save = e.save
	}
	x := msgExt{uid: uid, email: e.email, thread: e.thread, source: e.source, uidl: e.uidl, extra: e.extra}
	need := e.email != "" || e.thread != "" || e.extra != "" || e.uidl != ""
	if e.wire != 0 {
		x.file, r.size = r.size, e.wire
		r.ext |= extFile
	}
	if date < 0 || date > 1<<32-1 || save < 0 || save > 1<<32-1 {
		x.date, x.save = date, save
		r.ext |= extDate
	} else {
		r.date, r.save = uint32(date), uint32(save)
	}
	if e.hasDir && e.dir != uid/messageDirLen {
		x.dir = e.dir
		r.ext |= extDir
	}
	if e.source != "" {
		r.ext |= extSource
	}
	if !need && r.ext == 0 {
		return r, nil
	}
	r.ext |= hasExt
	return r, &x
}

func (f *mailFold) origin(o string) uint32 {
	if f.originIdx == nil {
		for i, have := range f.s.origins {
			if have == o {
				return uint32(i)
			}
		}
	} else if i, ok := f.originIdx[o]; ok {
		return i
	}
	o = strings.Clone(o)
	i := uint32(len(f.s.origins))
	f.s.origins = append(f.s.origins, o)
	switch {
	case f.originIdx != nil:
		f.originIdx[o] = i
	case len(f.s.origins) > fewIndexed:
		f.originIdx = make(map[string]uint32, 2*fewIndexed)
		for i, have := range f.s.origins {
			f.originIdx[have] = uint32(i)
		}
	}
	return i
}

func (f *mailFold) keywordSet(k []string) uint32 {
	if len(k) == 0 {
		return 0
	}
	if f.kwIdx == nil {
		for i, have := range f.s.keywords {
			if slices.Equal(have, k) {
				return uint32(i)
			}
		}
	} else if i, ok := f.kwIdx[joinKeywords(k)]; ok {
		return i
	}
	i := uint32(len(f.s.keywords))
	set := make([]string, len(k))
	for j := range k {
		set[j] = strings.Clone(k[j])
	}
	f.s.keywords = append(f.s.keywords, set)
	switch {
	case f.kwIdx != nil:
		f.kwIdx[joinKeywords(set)] = i
	case len(f.s.keywords) > fewIndexed:
		f.kwIdx = make(map[string]uint32, 2*fewIndexed)
		for i, have := range f.s.keywords {
			f.kwIdx[joinKeywords(have)] = uint32(i)
		}
	}
	return i
}

func joinKeywords(k []string) string { return strings.Join(k, "\x00") }

// push adds a message with the highest UID.
func (f *mailFold) push(r msgRec, x *msgExt) {
	s := f.s
	last := len(s.chunks) - 1
	if last < 0 || len(s.chunks[last].recs) >= chunkLen {
		// A first chunk starts small: most mailboxes are.
		n := 8
		if last >= 0 {
			n = chunkLen
		}
		f.ownList()
		s.chunks = append(s.chunks, &chunk{recs: make([]msgRec, 0, n)})
		for len(f.owned) < len(s.chunks) {
			f.owned = append(f.owned, false)
		}
		f.owned[len(s.chunks)-1] = true
		s.starts = append(s.starts, int32(s.count))
		last++
	}
	c := s.chunks[last]
	if len(f.owned) <= last || !f.owned[last] {
		// Write behind the end that others see: a new chunk header over the same array.
		f.ownList()
		c = &chunk{recs: c.recs, ext: c.ext, maxMod: c.maxMod}
		s.chunks[last] = c
	}
	c.recs = append(c.recs, r)
	if x != nil {
		c.ext = append(c.ext, *x)
	}
	c.maxMod = max(c.maxMod, r.modSeq)
	s.count++
	f.tally(&r, 1)
}

// tally adds a message to the counts, or takes it off.
func (f *mailFold) tally(r *msgRec, sign int) {
	f.s.bytes += int64(sign) * int64(r.size)
	if r.flags&FlagSeen == 0 {
		f.s.unseen += sign
	}
	if r.flags&FlagDeleted != 0 {
		f.s.deleted += sign
	}
}

// eachIndex calls fn for the position of every message of the set.
func (f *mailFold) eachIndex(set UIDSet, fn func(c, k int)) {
	s := f.s
	for _, r := range set {
		c := sort.Search(len(s.chunks), func(c int) bool { return s.chunks[c].recs[0].uid > r.Start }) - 1
		c = max(c, 0)
		for ; c < len(s.chunks); c++ {
			recs := s.chunks[c].recs
			if recs[0].uid > r.Stop {
				break
			}
			k := sort.Search(len(recs), func(k int) bool { return recs[k].uid >= r.Start })
			for ; k < len(recs) && recs[k].uid <= r.Stop; k++ {
				fn(c, k)
			}
		}
	}
}

func (f *mailFold) changeFlags(op *mailOp, modSeq uint64) {
	s := f.s
	// The set a message gets depends on the set it had: remember the last answer.
	var fromSet, toSet uint32
	known := false
	f.eachIndex(op.uids, func(c, k int) {
		r := s.chunks[c].recs[k]
		if op.guarded && r.modSeq > op.guard {
			if f.effect != nil {
				f.effect.failed.Add(r.uid)
			}
			return
		}
		flags, set := r.flags, r.keywords
		switch op.sign {
		case '+':
			flags |= op.flags
		case '-':
			flags &^= op.flags
		case '=':
			flags = op.flags
		}
		if op.sign == '=' || len(op.keywords) > 0 {
			if !known || fromSet != r.keywords {
				fromSet, known = r.keywords, true
				toSet = f.keywordSet(changeKeywords(s.keywords[r.keywords], op.sign, op.keywords))
			}
			set = toSet
		}
		if flags == r.flags && set == r.keywords {
			return
		}
		ch := f.chunkAt(c)
		p := &ch.recs[k]
		f.tally(p, -1)
		p.flags, p.keywords, p.modSeq = flags, set, modSeq
		f.tally(p, 1)
		ch.maxMod = modSeq
		if f.effect != nil {
			f.effect.changed.Add(r.uid)
		}
	})
}

// changeKeywords returns the sorted result of adding, removing or replacing.
func changeKeywords(have []string, sign byte, k []string) []string {
	switch sign {
	case '=':
		return k
	case '+':
		return normalKeywords(append(append([]string(nil), have...), k...))
	}
	var out []string
	for _, h := range have {
		i := sort.SearchStrings(k, h)
		if i == len(k) || k[i] != h {
			out = append(out, h)
		}
	}
	return out
}

func (f *mailFold) expunge(set UIDSet, onlyDeleted bool, n uint64) {
	s := f.s
	var gone UIDSet
	f.eachIndex(set, func(c, k int) {
		r := &s.chunks[c].recs[k]
		if onlyDeleted && r.flags&FlagDeleted == 0 {
			return
		}
		gone.Add(r.uid)
	})
	if f.effect != nil {
		f.effect.changed = gone
	}
	if len(gone) == 0 {
		return
	}
	chunks := make([]*chunk, 0, len(s.chunks))
	first := gone[0].Start
	last := gone[len(gone)-1].Stop
	for _, c := range s.chunks {
		if c.recs[0].uid > last || c.recs[len(c.recs)-1].uid < first {
			chunks = append(chunks, c)
			continue
		}
		keep := &chunk{recs: make([]msgRec, 0, len(c.recs)), maxMod: c.maxMod}
		for k := range c.recs {
			r := &c.recs[k]
			var x *msgExt
			if r.ext&hasExt != 0 {
				x = c.extOf(r.uid)
			}
			if !gone.Contains(r.uid) {
				keep.recs = append(keep.recs, *r)
				if x != nil {
					keep.ext = append(keep.ext, *x)
				}
				continue
			}
			f.tally(r, -1)
			s.count--
			s.dead = append(s.dead, deadMsg{n, *r, x})
			if f.sources != nil && x != nil && x.source != "" {
				delete(f.sources, x.source)
			}
		}
		if len(keep.recs) == 0 {
			continue
		}
		// Join with the neighbour when both are nearly empty.
		if p := len(chunks) - 1; p >= 0 && len(chunks[p].recs)+len(keep.recs) <= chunkLen/2 {
			a := chunks[p]
			keep = &chunk{
				recs:   append(append(make([]msgRec, 0, chunkLen), a.recs...), keep.recs...),
				ext:    append(a.ext[:len(a.ext):len(a.ext)], keep.ext...),
				maxMod: max(a.maxMod, keep.maxMod),
			}
			chunks[p] = keep
			continue
		}
		chunks = append(chunks, keep)
	}
	s.chunks = chunks
	f.owned = append(f.owned[:0], make([]bool, len(chunks)+1)...)
	f.restart()
	f.addTomb(tomb{s.base + n, gone})
	if len(s.dead) > maxDead {
		// Their files are left to the collector of unreferenced files.
		s.dead = append([]deadMsg(nil), s.dead[len(s.dead)-maxDead/2:]...)
	}
}

// restart computes the starts of the chunks anew.
func (f *mailFold) restart() {
	s := f.s
	s.starts = make([]int32, len(s.chunks), len(s.chunks)+4)
	n := 0
	for i, c := range s.chunks {
		s.starts[i] = int32(n)
		n += len(c.recs)
	}
	s.count = n
}

func (f *mailFold) addTomb(t tomb) {
	s := f.s
	s.tombs = append(s.tombs, t)
	f.tombLen += len(t.uids)
	if f.tombLen <= maxTombRanges {
		return
	}
	drop := 0
	for drop < len(s.tombs) && f.tombLen > maxTombRanges/2 {
		f.tombLen -= len(s.tombs[drop].uids)
		s.tombFloor = s.tombs[drop].modSeq
		drop++
	}
	s.tombs = append([]tomb(nil), s.tombs[drop:]...)
}

// liveSource looks for a live message that was moved here from that source.
func (f *mailFold) liveSource(source string) (uint32, bool) {
	if f.sources == nil {
		f.sources = map[string]uint32{}
		for _, c := range f.s.chunks {
			for i := range c.ext {
				if x := &c.ext[i]; x.source != "" {
					f.sources[x.source] = x.uid
				}
			}
		}
	}
	uid, ok := f.sources[source]
	return uid, ok
}

// renumber gives all messages new UIDs from 1 under a new UIDVALIDITY. Their files stay where they are.
func (f *mailFold) renumber(validity uint32, modSeq uint64) {
	s := f.s
	if validity == s.uidValidity {
		return
	}
	old := s.chunks
	s.chunks, s.starts, s.count, s.unseen, s.deleted, s.bytes = nil, nil, 0, 0, 0, 0
	f.owned = f.owned[:0]
	f.sources = nil
	uid := uint32(1)
	for _, c := range old {
		for k := range c.recs {
			r := c.recs[k]
			x := msgExt{}
			if p := c.extOf(r.uid); r.ext&hasExt != 0 && p != nil {
				x = *p
			}
			dir := recDir(&r, &x)
			r.ext &^= extDir
			if x.uid = uid; dir != uid/messageDirLen {
				x.dir = dir
				r.ext |= extDir | hasExt
			}
			r.uid, r.modSeq = uid, modSeq
			if r.ext&hasExt != 0 {
				f.push(r, &x)
			} else {
				f.push(r, nil)
			}
			uid++
		}
	}
	s.uidValidity, s.uidNext = validity, uid
	s.tombs, s.tombFloor, f.tombLen = nil, modSeq, 0
}
