package mailstore

import (
	"fmt"
	"strings"
)

// The lines of a mailbox's snapshot, in this order (c only when closed):
//
//	v <uidvalidity> <uidnext> <base> <account id> <mailbox id>
//	c 1                           the mailbox is closed
//	f <modseq>                    t lines are complete above this mod-sequence
//	t <modseq> <uids>             expunged UIDs
//	g <origin>                    origins of message ids: the first is number 0
//	w <flags>                     keyword sets, as in records: the first is number 1
//	m <message>                   a message, in ascending order of UID
//	x <N> <message>               a message expunged by record N whose file may still exist
//
//	message = uid SP modseq SP ( 1*letter / "-" ) [ "," set ] SP date [ "/" save ] SP
//	          origin-number "." ctr "." size "." crc *( ";" key "=" value )
//
// The fields are those of an entry without f, t, s and u. A stranger who only wants the mailbox reads
// v, g, w and m.
const mailLines = "vcftgwmx"

func (s *State) appendSnapshot(b []byte, m marks, other []string) []byte {
	b = appendSnapshotHead(b, kindMailbox, s.n)
	acct, id := s.account, s.id
	if acct == "" {
		acct = "-"
	}
	if id == "" {
		id = "-"
	}
	b = fmt.Appendf(b, "v %d %d %d %s %s\n", s.uidValidity, s.uidNext, s.base, acct, id)
	if s.closed {
		b = append(b, "c 1\n"...)
	}
	b = appendCommon(b, m, s.kept, other)
	b = fmt.Appendf(b, "f %d\n", s.tombFloor)
	for _, t := range s.tombs {
		b = appendDec(append(b, "t "...), t.modSeq)
		b = t.uids.append(append(b, ' '))
		b = append(b, '\n')
	}
	for _, o := range s.origins {
		b = append(append(b, "g "...), o...)
		b = append(b, '\n')
	}
	for _, k := range s.keywords[1:] {
		b = appendFlags(append(b, "w "...), 0, k)
		b = append(b, '\n')
	}
	for _, c := range s.chunks {
		x := c.ext
		for i := range c.recs {
			r := &c.recs[i]
			b = append(b, "m "...)
			var ext *msgExt
			if r.ext&hasExt != 0 {
				for x[0].uid != r.uid {
					x = x[1:]
				}
				ext = &x[0]
			}
			b = appendMessage(b, r, ext)
			b = append(b, '\n')
		}
	}
	for i := range s.dead {
		d := &s.dead[i]
		b = appendDec(append(b, "x "...), d.n)
		b = append(b, ' ')
		b = appendMessage(b, &d.rec, d.ext)
		b = append(b, '\n')
	}
	return appendSnapshotEnd(b)
}

func appendMessage(b []byte, r *msgRec, x *msgExt) []byte {
	b = appendDec(b, uint64(r.uid))
	b = appendDec(append(b, ' '), r.modSeq)
	b = append(b, ' ')
	if r.flags == 0 {
		b = append(b, '-')
	} else {
		b = appendFlags(b, r.flags, nil)
	}
	if r.keywords != 0 {
		b = appendDec(append(b, ','), uint64(r.keywords))
	}
	date, save := int64(r.date), int64(r.save)
	if r.ext&extDate != 0 {
		date, save = x.date, x.save
	}
	b = append36signed(append(b, ' '), date)
	if save != date {
		b = append36signed(append(b, '/'), save)
	}
	b = appendDec(append(b, ' '), uint64(r.origin))
	b = msgID{nonce{"", r.ctr}, recFile(r, x), r.crc}.appendShort(b)
	if x != nil {
		e := entry{email: x.email, thread: x.thread, source: x.source, uidl: x.uidl, extra: x.extra, dir: x.dir, hasDir: r.ext&extDir != 0}
		if r.ext&extFile != 0 {
			e.wire = r.size
		}
		b = e.appendFields(b, false)
	}
	return b
}

// loadMailSnapshot makes a fold of a complete snapshot.
func loadMailSnapshot(snap *snapshot) (*mailFold, error) {
	f := newMailFold()
	s := f.s
	s.n, s.kept = snap.n, snap.kept
	var chunk *chunk
	for _, line := range snap.lines {
		bad := func() error { return fmt.Errorf("line %.80q: %w", line, ErrCorrupt) }
		arg := line[2:]
		switch line[0] {
		case 'v':
			p := strings.Split(arg, " ")
			if len(p) < 5 || s.uidValidity != 0 {
				return nil, bad()
			}
			v, ok1 := parseDec(p[0])
			next, ok2 := parseDec(p[1])
			base, ok3 := parseDec(p[2])
			if !ok1 || !ok2 || !ok3 || v == 0 || v > 1<<32-1 || next == 0 || next > 1<<32-1 {
				return nil, bad()
			}
			s.uidValidity, s.uidNext, s.base = uint32(v), uint32(next), base
			if p[3] != "-" {
				s.account = strings.Clone(p[3])
			}
			if p[4] != "-" {
				s.id = strings.Clone(p[4])
			}
		case 'c':
			s.closed = true
		case 'f':
			n, ok := parseDec(arg)
			if !ok {
				return nil, bad()
			}
			s.tombFloor = n
		case 't':
			a, u, _ := strings.Cut(arg, " ")
			mod, ok1 := parseDec(a)
			uids, ok2 := parseUIDs(u)
			if !ok1 || !ok2 || len(s.tombs) > 0 && s.tombs[len(s.tombs)-1].modSeq > mod {
				return nil, bad()
			}
			s.tombs = append(s.tombs, tomb{mod, uids})
			f.tombLen += len(uids)
		case 'g':
			if !validOrigin(arg) {
				return nil, bad()
			}
			if n := len(s.origins); f.origin(arg) != uint32(n) {
				return nil, bad()
			}
		case 'w':
			_, k, ok := parseFlags(arg)
			n := len(s.keywords)
			if !ok || len(k) == 0 || f.keywordSet(k) != uint32(n) {
				return nil, bad()
			}
		case 'm':
			r, x, ok := s.parseMessage(arg)
			if !ok {
				return nil, bad()
			}
			if chunk != nil && chunk.recs[len(chunk.recs)-1].uid >= r.uid || r.uid >= s.uidNext || r.modSeq > s.base+s.n {
				return nil, bad()
			}
			if chunk == nil || len(chunk.recs) == chunkLen {
				chunk = newChunk(len(snap.lines))
				s.starts = append(s.starts, int32(s.count))
				s.chunks = append(s.chunks, chunk)
			}
			chunk.recs = append(chunk.recs, r)
			if r.ext&hasExt != 0 {
				chunk.ext = append(chunk.ext, x)
			}
			chunk.maxMod = max(chunk.maxMod, r.modSeq)
			s.count++
			f.tally(&r, 1)
		case 'x':
			a, rest, _ := strings.Cut(arg, " ")
			n, ok1 := parseDec(a)
			r, x, ok2 := s.parseMessage(rest)
			if !ok1 || !ok2 {
				return nil, bad()
			}
			d := deadMsg{n: n, rec: r}
			if r.ext&hasExt != 0 {
				d.ext = &x
			}
			s.dead = append(s.dead, d)
		}
	}
	if s.uidValidity == 0 {
		return nil, fmt.Errorf("no v line: %w", ErrCorrupt)
	}
	f.owned = append(f.owned, make([]bool, len(s.chunks))...)
	return f, nil
}

func newChunk(hint int) *chunk { return &chunk{recs: make([]msgRec, 0, max(8, min(hint, chunkLen)))} }

// cutDec reads a decimal number up to the separator.
func cutDec(s string, sep byte) (n uint64, rest string, ok bool) {
	i := 0
	for ; i < len(s) && s[i] != sep; i++ {
		c := s[i]
		if c < '0' || c > '9' || i > 18 {
			return 0, "", false
		}
		n = n*10 + uint64(c-'0')
	}
	if i == 0 || i == len(s) || i > 1 && s[0] == '0' {
		return 0, "", false
	}
	return n, s[i+1:], true
}

func (s *State) parseMessage(t string) (r msgRec, x msgExt, ok bool) {
	uid, t, ok := cutDec(t, ' ')
	if !ok || uid == 0 || uid >= MaxUID {
		return r, x, false
	}
	if r.modSeq, t, ok = cutDec(t, ' '); !ok {
		return r, x, false
	}
	r.uid = uint32(uid)
	flags, t, ok := strings.Cut(t, " ")
	if !ok {
		return r, x, false
	}
	if letters, set, has := strings.Cut(flags, ","); has {
		n, ok := parseDec(set)
		if !ok || n == 0 || n >= uint64(len(s.keywords)) {
			return r, x, false
		}
		r.keywords = uint32(n)
		flags = letters
	}
	if flags != "-" {
		if r.flags, _, ok = parseFlags(flags); !ok || flags == "" {
			return r, x, false
		}
	}
	dates, t, ok := strings.Cut(t, " ")
	if !ok {
		return r, x, false
	}
	d, sv, has := strings.Cut(dates, "/")
	date, ok := parse36signed(d)
	save := date
	if has && ok {
		save, ok = parse36signed(sv)
	}
	if !ok {
		return r, x, false
	}
	if date < 0 || date > 1<<32-1 || save < 0 || save > 1<<32-1 {
		x.date, x.save = date, save
		r.ext |= extDate | hasExt
	} else {
		r.date, r.save = uint32(date), uint32(save)
	}
	id, fields, more := strings.Cut(t, ";")
	origin, id, ok := cutDec(id, '.')
	if !ok || origin >= uint64(len(s.origins)) {
		return r, x, false
	}
	r.origin = uint32(origin)
	a, id, ok1 := strings.Cut(id, ".")
	b, c, ok2 := strings.Cut(id, ".")
	ctr, ok3 := parse36(a)
	size, ok4 := parse36(b)
	crc, ok5 := parse36(c)
	if !ok1 || !ok2 || !ok3 || !ok4 || !ok5 || size > 1<<32-1 || crc > 1<<32-1 {
		return r, x, false
	}
	r.ctr, r.size, r.crc = ctr, uint32(size), uint32(crc)
	if more {
		e := entry{id: msgID{size: size}}
		if err := e.parseFields(fields, more); err != nil || e.uid != 0 || e.hasDate || e.hasSave || e.flags != 0 {
			return r, x, false
		}
		x.email, x.thread, x.source, x.extra = strings.Clone(e.email), strings.Clone(e.thread), strings.Clone(e.source), strings.Clone(e.extra)
		x.uidl = strings.Clone(e.uidl)
		if e.wire != 0 {
			x.file, r.size = r.size, e.wire
			r.ext |= extFile
		}
		if e.hasDir {
			x.dir = e.dir
			r.ext |= extDir
		}
		if e.source != "" {
			r.ext |= extSource
		}
		r.ext |= hasExt
	}
	x.uid = r.uid
	return r, x, true
}
