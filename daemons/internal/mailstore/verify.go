package mailstore

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"shoal/daemons/internal/clock"
	"shoal/daemons/internal/vfs"
)

// VerifyOptions for Verify.
type VerifyOptions struct {
	// Content reads every message file and compares its checksum; at most Rate bytes a second, 0: as fast as it goes.
	Content bool
	Rate    int64
	// Account limits the check to one account.
	Account string
	// After is where to go on: the cursor that Done was told last.
	After string
	// Done, when set, is called after each account with a cursor for After and the report so far.
	Done func(cursor string, r *Report)
	// Progress, when set, is told of the report so far, now and then within an account.
	Progress func(r *Report)
}

// Verify checks a volume against itself: every record and snapshot parses; the log has no holes; folding
// on from each snapshot, and from the first record while it is there, gives the same state; UIDs and
// mod-sequences ascend; each message has its file, of the right size and, if asked, checksum. It reads
// everything anew and changes nothing; it may run while the volume is in use: what looks wrong is looked at twice.
func (s *Store) Verify(ctx context.Context, volume string, o VerifyOptions) (*Report, error) {
	v, err := s.volume(volume)
	if err != nil {
		return nil, err
	}
	now, err := v.serverNow(ctx)
	if err != nil {
		return nil, err
	}
	c := &checker{s: s, v: v, o: o, now: now, ctx: ctx, r: &Report{Orphans: []Orphan{}, Problems: []Problem{}}}
	c.began = s.clk.Boot()
	if o.Account != "" {
		dir := accountPath(v.root, o.Account)
		if !validAccountID(o.Account) {
			return nil, fmt.Errorf("account id %q: %w", o.Account, ErrNoAccount)
		}
		if _, err := v.fs.Lstat(dir); err != nil {
			if isNotExist(err) {
				return nil, fmt.Errorf("account %s: nothing on volume %s: %w", o.Account, v.name, ErrNoAccount)
			}
			return nil, ioErr("lstat", dir, err)
		}
		return c.r, c.twice(dir, o.Account)
	}
	after, afterID, _ := strings.Cut(o.After, "/")
	for slice := range 256 {
		hh := fmt.Sprintf("%02x", slice)
		if hh < after {
			continue
		}
		dir := v.root + "/a/" + hh
		ids, err := v.fs.ReadDir(dir, nil)
		if isNotExist(err) {
			continue
		}
		if err != nil {
			return c.r, ioErr("list", dir, err)
		}
		slices.Sort(ids)
		for _, id := range ids {
			if hh == after && id <= afterID {
				continue
			}
			if ctx.Err() != nil {
				return c.r, ctx.Err()
			}
			if err := c.twice(dir+"/"+id, id); err != nil {
				return c.r, err
			}
			if o.Done != nil {
				o.Done(hh+"/"+id, c.r)
			}
		}
	}
	names, err := v.fs.ReadDir(v.root+"/trash", nil)
	if err != nil && !isNotExist(err) {
		return c.r, ioErr("list", v.root+"/trash", err)
	}
	c.r.Trash = len(names)
	return c.r, v.present()
}

type checker struct {
	s     *Store
	v     *volume
	o     VerifyOptions
	r     *Report
	now   time.Time
	ctx   context.Context
	began time.Duration

	account, mailbox string // being looked at
	uid              uint32
}

func (c *checker) problem(kind ProblemKind, path, format string, args ...any) {
	c.r.Problems = append(c.r.Problems, Problem{Kind: kind, Path: path, What: fmt.Sprintf(format, args...), Account: c.account, Mailbox: c.mailbox, UID: c.uid})
}

// twice checks an account, and once more if something looks wrong: the service goes on meanwhile, and what was read in
// the middle of a change looks different the second time.
func (c *checker) twice(dir, id string) error {
	before := *c.r
	if err := c.accountAt(dir, id); err != nil {
		return err
	}
	found := c.r.Problems[len(before.Problems):]
	if len(found) == 0 {
		return nil
	}
	first := map[Problem]bool{}
	place := func(p Problem) Problem { // what is said of it may differ: an NFS client learns of a file's content before its size
		p.What = ""
		return p
	}
	for _, p := range found {
		first[place(p)] = true
	}
	read := c.r.Read
	*c.r = before
	c.r.Read = read
	if err := c.accountAt(dir, id); err != nil {
		return err
	}
	kept := slices.DeleteFunc(slices.Clone(c.r.Problems[len(before.Problems):]), func(p Problem) bool { return !first[place(p)] })
	c.r.Problems = append(before.Problems[:len(before.Problems):len(before.Problems)], kept...)
	return nil
}

func (c *checker) accountAt(dir, id string) error {
	c.account, c.mailbox, c.uid = id, "", 0
	c.r.Accounts++
	st, err := c.log(accountKind, dir)
	if err != nil || st == nil {
		return err
	}
	s := st.(*acctState)
	if s.closed {
		if movedTo(s.kept) != "" {
			c.r.Moved++
		}
		return nil
	}
	boxes := s.boxes
	names, err := c.v.fs.ReadDir(dir+"/"+dirBoxes, nil)
	if err != nil && !isNotExist(err) {
		return ioErr("list", dir+"/"+dirBoxes, err)
	}
	for _, id := range names {
		if boxes[id] == nil {
			c.r.Unlisted++
		}
	}
	for _, id := range sortedIDs(boxes) {
		if err := c.ctx.Err(); err != nil {
			return err
		}
		b := boxes[id]
		path := dir + "/" + dirBoxes + "/" + id
		c.mailbox = id
		c.r.Mailboxes++
		st, err := c.log(mailboxKind, path)
		if err != nil {
			return err
		}
		if st == nil {
			continue
		}
		s := st.(*State)
		if s.closed && movedTo(s.kept) == "" {
			c.problem(KindState, path, "mailbox %q is listed but closed", b.name)
		}
		if s.id != "" && s.id != id {
			c.problem(KindState, path, "says that it is mailbox %s", s.id)
		}
		if err := c.messages(path, s); err != nil {
			return err
		}
		if err := c.interest(path); err != nil {
			return err
		}
		if c.o.Progress != nil {
			c.o.Progress(c.r)
		}
	}
	c.mailbox = ""
	return c.interest(dir)
}

// interest counts the servers that want to be told, and those that are dead.
func (c *checker) interest(dir string) error {
	names, err := c.v.fs.ReadDir(dir+"/"+dirInterest, nil)
	if err != nil && !isNotExist(err) {
		return ioErr("list", dir+"/"+dirInterest, err)
	}
	for _, name := range names {
		if _, ok := parseNonce(name); !ok {
			continue
		}
		c.r.Interest++
		if i, err := c.v.fs.Lstat(dir + "/" + dirInterest + "/" + name); err == nil && c.now.Sub(i.ModTime) > interestLife {
			c.r.StaleInterest++
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
			c.problem(KindLog, dir, "%v", err)
			return nil, nil
		}
		return nil, err
	}
	tip := j.known
	state := j.fold.state()
	want := canonical(state)
	if s, ok := state.(*State); ok {
		if err := s.check(); err != nil {
			c.problem(KindState, dir, "%v", err)
		}
	}
	if err := c.records(j, tip); err != nil {
		return nil, err
	}
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
					c.problem(KindSnapshot, x.snapPath(n), "%v", err)
				}
				continue
			}
		}
		x.start(from)
		var broken error
		for x.known < tip {
			more, err := x.readNext()
			if err != nil {
				broken = err
				break
			}
			if !more {
				break
			}
		}
		if x.known < tip {
			switch {
			case broken == nil && x.known+1 <= uint64(j.floor+1)*c.s.knobs.segmentLen: // compacted
			case broken != nil && x.known < j.complete(): // nobody has to read it
				c.r.Shadowed++
			case broken != nil:
				c.problem(KindRecord, x.recordPath(x.known+1), "%v", broken)
			default:
				c.problem(KindRecord, x.recordPath(x.known+1), "missing: the log goes on to %d", tip)
			}
			continue
		}
		if got := canonical(x.fold.state()); got != want {
			c.problem(KindSnapshot, dir, "folding from snapshot %d to %d gives another state than from the newest:\n%s", n, tip, firstDifference(got, want))
		}
	}
	return state, nil
}

// records checks the names in the log, that no nonce stands twice, and that nothing stands behind the end.
func (c *checker) records(j *journal, tip uint64) error {
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
			c.problem(KindRecord, j.recordPath(n), "the nonce of record %d again", m)
		}
		seen[head] = n
	}
	behind, err := j.behind(tip)
	if err != nil || behind == 0 {
		return err
	}
	if _, err := c.v.fs.Lstat(j.recordPath(tip + 1)); isNotExist(err) {
		c.problem(KindHole, j.dir, "record %d is missing, but there is a record %d: this is a copy of a log that was in use, or records were lost", tip+1, behind)
	}
	return nil
}

// behind looks for the first record after tip that is not the next one; 0: there is none.
func (j *journal) behind(tip uint64) (uint64, error) {
	log := j.dir + "/" + dirLog
	segments, err := j.vol.fs.ReadDir(log, nil)
	if err != nil {
		return 0, ioErr("list", log, err)
	}
	first := uint64(0)
	for _, k := range numbersAndZero(segments) {
		if k < j.segment(tip+1) {
			continue
		}
		names, err := j.vol.fs.ReadDir(j.segmentPath(k), nil)
		if err != nil && !isNotExist(err) {
			return 0, ioErr("list", j.segmentPath(k), err)
		}
		for _, n := range numbers(names) {
			if n > tip+1 && (first == 0 || n < first) {
				first = n
			}
		}
	}
	return first, nil
}

func (c *checker) messages(dir string, s *State) error {
	j := newJournal(c.s, c.v, mailboxKind, dir, Ref{})
	inUse := map[string]bool{}
	defer func() { c.uid = 0 }()
	for i := range s.dead {
		inUse[s.deadID(&s.dead[i]).String()] = true
	}
	for _, m := range s.All() {
		c.r.Messages++
		c.r.Bytes += m.Size
		c.uid = m.UID
		if c.o.Progress != nil && c.r.Messages%1024 == 0 {
			c.o.Progress(c.r)
		}
		inUse[m.ID()] = true
		path := j.messagePath(m.dir(), m.msgID())
		i, err := c.v.fs.Lstat(path)
		switch {
		case isNotExist(err):
			c.problem(KindFile, path, "the file of UID %d is missing", m.UID)
			continue
		case err != nil:
			return ioErr("lstat", path, err)
		case i.Size != m.FileSize():
			c.problem(KindContent, path, "has %d bytes, its name says %d", i.Size, m.FileSize())
			continue
		}
		if !c.o.Content {
			continue
		}
		sum, bare, err := c.sum(path)
		switch {
		case err != nil:
			c.problem(KindContent, path, "%v", err)
		case sum != m.rec.crc:
			c.problem(KindContent, path, "checksum is %08x, its name says %08x", sum, m.rec.crc)
		case m.rec.ext&extFile != 0 && i.Size+bare != m.Size:
			c.problem(KindContent, path, "is %d bytes with CRLF line ends, the log says %d", i.Size+bare, m.Size)
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
			if inUse[n] {
				continue
			}
			c.r.Unreferenced++
			path := dir + "/" + dirMessages + "/" + d + "/" + n
			if i, err := c.v.fs.Lstat(path); err == nil && c.now.Sub(i.ModTime) > collectAfter {
				o := Orphan{Account: c.account, Mailbox: c.mailbox, Path: path, Size: i.Size}
				if id, ok := parseMsgID(n, ""); ok && int64(id.size) == i.Size {
					sum, _, err := c.sum(path)
					o.Valid = err == nil && sum == id.crc
				}
				c.r.Orphans = append(c.r.Orphans, o)
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
	// What counts is what is on the disk, not what this machine remembers of it; and the boxes need their memory for other things.
	vfs.Forget(f)
	defer vfs.Forget(f)
	var ends crlfCounter
	buf := make([]byte, 128<<10)
	for off := int64(0); ; {
		n, err := f.ReadAt(buf, off)
		sum = updateChecksum(sum, buf[:n])
		ends.count(buf[:n])
		off += int64(n)
		c.r.Read += int64(n)
		if c.o.Rate > 0 {
			// The time that so much may take, less the time it took.
			ahead := time.Duration(float64(c.r.Read)/float64(c.o.Rate)*float64(time.Second)) - (c.s.clk.Boot() - c.began)
			if ahead > 0 {
				if err := clock.Sleep(c.ctx, c.s.clk, ahead); err != nil {
					return 0, 0, err
				}
			}
		}
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
