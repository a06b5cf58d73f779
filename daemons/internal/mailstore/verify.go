package mailstore

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
)

// Problem is something that Verify found wrong.
type Problem struct {
	Path string
	What string
}

func (p Problem) String() string { return p.Path + ": " + p.What }

// Report is what Verify found.
type Report struct {
	Accounts, Mailboxes, Messages, Records, Snapshots int
	Bytes                                             int64
	// Unreferenced message files are no problem: they may be deliveries in progress, or belong to
	// expunged messages; the collector deals with them.
	Unreferenced int
	// Torn snapshots are no problem either: a power cut does that to those that nothing rests on yet.
	Torn     int
	Problems []Problem
}

// VerifyOptions for Verify.
type VerifyOptions struct {
	// Content reads every message file and compares its checksum.
	Content bool
	// Account limits the check to one account.
	Account string
}

// Verify checks a volume against itself: every record and snapshot parses; the log has no holes; folding
// on from each snapshot, and from the first record while it is there, gives the same state; UIDs and
// mod-sequences ascend; each message has its file, of the right size and, if asked, checksum. It reads
// everything anew and changes nothing; it may run while the volume is in use.
func (s *Store) Verify(ctx context.Context, volume string, o VerifyOptions) (*Report, error) {
	v, err := s.volume(volume)
	if err != nil {
		return nil, err
	}
	c := &checker{s: s, v: v, o: o, r: &Report{}}
	if o.Account != "" {
		err = v.do(ctx, func() error { return c.account(accountPath(v.root, o.Account), o.Account) })
		return c.r, err
	}
	for slice := range 256 {
		dir := fmt.Sprintf("%s/a/%02x", v.root, slice)
		ids, err := v.fs.ReadDir(dir, nil)
		if isNotExist(err) {
			continue
		}
		if err != nil {
			return c.r, ioErr("list", dir, err)
		}
		for _, id := range ids {
			if ctx.Err() != nil {
				return c.r, ctx.Err()
			}
			if err := v.do(ctx, func() error { return c.account(dir+"/"+id, id) }); err != nil {
				return c.r, err
			}
		}
	}
	return c.r, nil
}

type checker struct {
	s *Store
	v *volume
	o VerifyOptions
	r *Report
}

func (c *checker) problem(path, format string, args ...any) {
	c.r.Problems = append(c.r.Problems, Problem{path, fmt.Sprintf(format, args...)})
}

func (c *checker) account(dir, id string) error {
	c.r.Accounts++
	st, err := c.log(accountKind, dir)
	if err != nil || st == nil {
		return err
	}
	boxes := st.(*acctState).boxes
	for _, id := range sortedIDs(boxes) {
		b := boxes[id]
		path := dir + "/" + dirBoxes + "/" + id
		c.r.Mailboxes++
		st, err := c.log(mailboxKind, path)
		if err != nil {
			return err
		}
		if st == nil {
			continue
		}
		s := st.(*State)
		if s.closed {
			c.problem(path, "mailbox %q is listed but closed", b.name)
		}
		if s.id != "" && s.id != id {
			c.problem(path, "says that it is mailbox %s", s.id)
		}
		if err := c.messages(path, s); err != nil {
			return err
		}
	}
	return nil
}

func sortedIDs(m map[string]*acctBox) []string {
	out := make([]string, 0, len(m))
	for id := range m {
		out = append(out, id)
	}
	slices.Sort(out)
	return out
}

// log checks one log and returns its state.
func (c *checker) log(kind *logKind, dir string) (any, error) {
	j := newJournal(c.s, c.v, kind, dir, Ref{})
	if err := j.advance(); err != nil {
		if errors.Is(err, ErrCorrupt) || errors.Is(err, ErrNewerFormat) || errors.Is(err, ErrMailboxClosed) {
			c.problem(dir, "%v", err)
			return nil, nil
		}
		return nil, err
	}
	tip := j.known
	state := j.fold.state()
	want := canonical(state)
	if s, ok := state.(*State); ok {
		if err := s.check(); err != nil {
			c.problem(dir, "%v", err)
		}
	}
	c.records(j, tip)
	names, err := c.v.fs.ReadDir(dir+"/"+dirSnap, nil)
	if err != nil {
		return nil, ioErr("list", dir+"/"+dirSnap, err)
	}
	for _, n := range append([]uint64{0}, numbers(names)...) {
		if n > tip {
			continue
		}
		x := newJournal(c.s, c.v, kind, dir, Ref{})
		from := &loaded{fold: kind.fresh(), marks: marks{}}
		if n > 0 {
			c.r.Snapshots++
			if from, err = x.loadSnapshot(n); err != nil {
				switch {
				case errors.Is(err, ErrCorrupt):
					c.r.Torn++
				case !isNotExist(err) && !errors.Is(err, errChain):
					c.problem(x.snapPath(n), "%v", err)
				}
				continue
			}
		}
		x.start(from)
		for x.known < tip {
			more, err := x.readNext()
			if err != nil {
				c.problem(x.recordPath(x.known+1), "%v", err)
				break
			}
			if !more {
				break
			}
		}
		if x.known < tip {
			if x.known+1 > uint64(j.floor+1)*c.s.knobs.segmentLen {
				c.problem(x.recordPath(x.known+1), "missing: the log goes on to %d", tip)
			}
			continue // compacted
		}
		if got := canonical(x.fold.state()); got != want {
			c.problem(dir, "folding from snapshot %d to %d gives another state than from the newest:\n%s", n, tip, firstDifference(got, want))
		}
	}
	return state, nil
}

// records checks the names in the log, and that no nonce stands twice.
func (c *checker) records(j *journal, tip uint64) {
	seen := map[string]uint64{}
	for n := uint64(j.floor+1)*c.s.knobs.segmentLen + 1; n <= tip; n++ {
		var buf [maxRecord + 24]byte
		l, err := c.v.fs.Readlink(j.recordPath(n), buf[:])
		if err != nil {
			continue // reported, if it matters, by the fold
		}
		c.r.Records++
		head, _, _ := strings.Cut(string(buf[:l]), " ")
		if m := seen[head]; m != 0 {
			c.problem(j.recordPath(n), "the nonce of record %d again", m)
		}
		seen[head] = n
	}
}

func (c *checker) messages(dir string, s *State) error {
	j := newJournal(c.s, c.v, mailboxKind, dir, Ref{})
	inUse := map[string]bool{}
	for i := range s.dead {
		inUse[s.deadID(&s.dead[i]).String()] = true
	}
	for _, m := range s.All() {
		c.r.Messages++
		c.r.Bytes += m.Size
		inUse[m.ID()] = true
		path := j.messagePath(m.dir(), m.msgID())
		i, err := c.v.fs.Lstat(path)
		switch {
		case isNotExist(err):
			c.problem(path, "the file of UID %d is missing", m.UID)
			continue
		case err != nil:
			return ioErr("lstat", path, err)
		case i.Size != m.FileSize():
			c.problem(path, "has %d bytes, its name says %d", i.Size, m.FileSize())
			continue
		}
		if !c.o.Content {
			continue
		}
		sum, bare, err := c.sum(path)
		switch {
		case err != nil:
			c.problem(path, "%v", err)
		case sum != m.rec.crc:
			c.problem(path, "checksum is %08x, its name says %08x", sum, m.rec.crc)
		case m.rec.ext&extFile != 0 && i.Size+bare != m.Size:
			c.problem(path, "is %d bytes with CRLF line ends, the log says %d", i.Size+bare, m.Size)
		}
	}
	dirs, err := c.v.fs.ReadDir(dir+"/"+dirMessages, nil)
	if err != nil {
		return ioErr("list", dir+"/"+dirMessages, err)
	}
	for _, d := range dirs {
		names, err := c.v.fs.ReadDir(dir+"/"+dirMessages+"/"+d, nil)
		if err != nil {
			return ioErr("list", dir+"/"+dirMessages+"/"+d, err)
		}
		for _, n := range names {
			if !inUse[n] {
				c.r.Unreferenced++
			}
		}
	}
	return nil
}

// sum reads a file: its checksum, and how many LF have no CR before them.
func (c *checker) sum(path string) (sum uint32, bare int64, err error) {
	f, err := c.v.fs.Open(path)
	if err != nil {
		return 0, 0, err
	}
	defer f.Close()
	var ends crlfCounter
	buf := make([]byte, 128<<10)
	for off := int64(0); ; {
		n, err := f.ReadAt(buf, off)
		sum = updateChecksum(sum, buf[:n])
		ends.count(buf[:n])
		off += int64(n)
		if err == io.EOF {
			return sum, ends.bare, nil
		}
		if err != nil {
			return 0, 0, err
		}
	}
}

// check verifies what must hold in every state.
func (s *State) check() error {
	var uid uint32
	count, unseen, deleted := 0, 0, 0
	var bytes int64
	if len(s.starts) != len(s.chunks) {
		return fmt.Errorf("%d chunks, %d starts", len(s.chunks), len(s.starts))
	}
	for c, ch := range s.chunks {
		if int(s.starts[c]) != count || len(ch.recs) == 0 {
			return fmt.Errorf("chunk %d of %d begins at %d, want %d", c, len(ch.recs), s.starts[c], count)
		}
		exts := 0
		for i := range ch.recs {
			r := &ch.recs[i]
			switch {
			case r.uid <= uid:
				return fmt.Errorf("UID %d after %d", r.uid, uid)
			case r.uid >= s.uidNext:
				return fmt.Errorf("UID %d, but UIDNEXT %d", r.uid, s.uidNext)
			case r.modSeq > s.ModSeq() || r.modSeq > ch.maxMod:
				return fmt.Errorf("UID %d has mod-sequence %d, the state %d, its chunk %d", r.uid, r.modSeq, s.ModSeq(), ch.maxMod)
			case int(r.origin) >= len(s.origins) || int(r.keywords) >= len(s.keywords):
				return fmt.Errorf("UID %d: no such origin or keywords", r.uid)
			}
			if r.ext&hasExt != 0 {
				if x := ch.extOf(r.uid); x == nil {
					return fmt.Errorf("UID %d: its extension is missing", r.uid)
				}
				exts++
			}
			uid = r.uid
			count++
			bytes += int64(r.size)
			if r.flags&FlagSeen == 0 {
				unseen++
			}
			if r.flags&FlagDeleted != 0 {
				deleted++
			}
		}
		if exts != len(ch.ext) {
			return fmt.Errorf("chunk %d has %d extensions for %d messages", c, len(ch.ext), exts)
		}
	}
	if count != s.count || unseen != s.unseen || deleted != s.deleted || bytes != s.bytes {
		return fmt.Errorf("counts %d %d %d %d, recounted %d %d %d %d", s.count, s.unseen, s.deleted, s.bytes, count, unseen, deleted, bytes)
	}
	for i := 1; i < len(s.tombs); i++ {
		if s.tombs[i].modSeq < s.tombs[i-1].modSeq {
			return fmt.Errorf("tombstones out of order at mod-sequence %d", s.tombs[i].modSeq)
		}
	}
	return nil
}

// canonical writes a state so that two states that mean the same are written alike.
func canonical(state any) string {
	if a, ok := state.(*acctState); ok {
		return string(a.appendSnapshot(nil, marks{}, nil))
	}
	s := state.(*State)
	var b strings.Builder
	fmt.Fprintf(&b, "n %d validity %d next %d base %d id %s closed %v kept %v\n", s.n, s.uidValidity, s.uidNext, s.base, s.id, s.closed, s.kept)
	for _, m := range s.All() {
		fmt.Fprintf(&b, "%d %d %v %q %d %d %s %s %s dir %d", m.UID, m.ModSeq, m.Flags, m.Keywords, m.InternalDate().Unix(), m.SaveDate().Unix(), m.ID(), m.EmailID(), m.ThreadID(), m.dir())
		if m.ext != nil {
			fmt.Fprintf(&b, " source %q extra %q", m.ext.source, m.ext.extra)
			if m.ext.file != 0 || m.ext.uidl != "" {
				fmt.Fprintf(&b, " file %d uidl %q", m.ext.file, m.ext.uidl)
			}
		}
		b.WriteByte('\n')
	}
	for i := range s.dead {
		fmt.Fprintf(&b, "dead %d %d %s\n", s.dead[i].n, s.dead[i].rec.uid, s.deadID(&s.dead[i]))
	}
	for _, t := range s.tombs {
		if t.modSeq > s.tombFloor {
			fmt.Fprintf(&b, "gone %d %s\n", t.modSeq, t.uids)
		}
	}
	return b.String()
}

func firstDifference(got, want string) string {
	g, w := strings.Split(got, "\n"), strings.Split(want, "\n")
	for i := range min(len(g), len(w)) {
		if g[i] != w[i] {
			return fmt.Sprintf("line %d:\n  %s\n  %s", i+1, g[i], w[i])
		}
	}
	return fmt.Sprintf("%d and %d lines", len(g), len(w))
}
