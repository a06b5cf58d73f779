package mailstore

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"

	"shoal/daemons/internal/vfs"
)

// moveLog copies one log, an account's or a mailbox's with its message files, and follows it.
type moveLog struct {
	m        *Move
	kind     *logKind
	old, dir string // where it lies, where the copy is made
	src      *journal

	state any    // as of tip, open
	ended bool   // the old log has its terminal record
	tip   uint64 // the last record that counts
	last  uint64 // the last record in the copy; 0: there is none yet
	files map[string]bool
}

func (m *Move) newLog(kind *logKind, old, dir string) *moveLog {
	return &moveLog{m: m, kind: kind, old: old, dir: dir, src: newJournal(m.s, m.from, kind, old, Ref{}), files: map[string]bool{}}
}

// sync brings the copy up to what the log holds at the time.
func (l *moveLog) sync(ctx context.Context) error {
	if err := l.advance(); err != nil {
		return err
	}
	if err := l.prepare(); err != nil {
		return err
	}
	if s, ok := l.state.(*State); ok {
		if err := l.messages(ctx, s); err != nil {
			return err
		}
	} else {
		for _, part := range []string{dirScripts, dirSeen} {
			if err := l.tree(part); err != nil {
				return err
			}
		}
	}
	for try := 0; ; try++ {
		err := l.records()
		if !errors.Is(err, errCompacted) {
			return err
		}
		if try == 3 {
			return fmt.Errorf("%w: %w", ErrUnavailable, err)
		}
		// The records between the copy and the newest are compacted: begin anew at the newest snapshot.
		if err := l.drop(); err != nil {
			return err
		}
		l.src.forget()
		if err := l.advance(); err != nil {
			return err
		}
	}
}

// errCompacted: records that the copy lacks are gone from the log.
var errCompacted = errors.New("records were compacted while they were copied")

// advance reads the log, and finds the state that the copy is to have: without the terminal record.
func (l *moveLog) advance() error {
	if err := l.src.advance(); err != nil {
		return err
	}
	l.tip, l.ended = l.src.known, false
	switch st := l.src.fold.state().(type) {
	case *State:
		s := *st
		if s.closed && movedTo(s.kept) == "" {
			return ErrMailboxClosed
		}
		if s.closed {
			n, err := l.terminal()
			if err != nil {
				return err
			}
			l.tip, l.ended = n-1, true
			s.closed, s.n, s.kept = false, n-1, keptUntil(s.kept, n-1)
		}
		l.state = &s
	case *acctState:
		s := *st
		if s.closed {
			n, err := l.terminal()
			if err != nil {
				return err
			}
			l.tip, l.ended = n-1, true
			s.closed, s.n, s.kept = false, n-1, keptUntil(s.kept, n-1)
		}
		l.state = &s
	}
	return nil
}

func keptUntil(kept []keptOp, n uint64) []keptOp {
	return slices.DeleteFunc(slices.Clone(kept), func(k keptOp) bool { return k.n > n })
}

// terminal finds the record that closed the log: the last one, unless somebody wrote behind it.
func (l *moveLog) terminal() (uint64, error) {
	found := uint64(0)
	for n := l.src.known; n > 0 && n+8 > l.src.known; n-- {
		_, body, err := l.read(n)
		if err != nil {
			return 0, err
		}
		if body == string(opTerminal) || strings.HasSuffix(body, "|"+string(opTerminal)) {
			found = n
		}
	}
	if found < 2 {
		return 0, fmt.Errorf("%s: closed, but its last records do not say so: %w", l.old, ErrCorrupt)
	}
	return found, nil
}

// read reads a record of the old log: its target, and its ops.
func (l *moveLog) read(n uint64) (target, body string, err error) {
	var buf [maxRecord + 24]byte
	path := l.src.recordPath(n)
	size, err := l.src.vol.fs.Readlink(path, buf[:])
	if isNotExist(err) {
		return "", "", fmt.Errorf("%s: %w", path, errCompacted)
	}
	if err != nil {
		return "", "", ioErr("readlink", path, err)
	}
	target = string(buf[:size])
	r, err := parseRecord(target)
	if err != nil {
		return "", "", fmt.Errorf("%s: %w", path, err)
	}
	if r.spill {
		if r.body, err = l.src.readSpill(n, &r); isNotExist(err) {
			return "", "", fmt.Errorf("%s: %w", path, errCompacted)
		}
	}
	return target, r.body, err
}

// prepare makes the directories, and finds out what an earlier try has copied.
func (l *moveLog) prepare() error {
	if l.last > 0 {
		return nil
	}
	fs := l.m.to.fs
	parts := []string{"", "/" + dirLog, "/" + dirSnap, "/" + dirInterest, "/" + dirTmp}
	if l.kind == mailboxKind {
		parts = append(parts, "/"+dirMessages, "/"+dirMessages+"/0")
	}
	for _, p := range parts {
		if err := fs.Mkdir(l.dir + p); err != nil && !errors.Is(err, syscall.EEXIST) {
			return ioErr("mkdir", l.dir+p, err)
		}
	}
	names, err := fs.ReadDir(l.dir+"/"+dirSnap, nil)
	if err != nil {
		return ioErr("list", l.dir+"/"+dirSnap, err)
	}
	if len(numbers(names)) > 0 {
		j := newJournal(l.m.s, l.m.to, l.kind, l.dir, Ref{})
		err := j.advance()
		if err == nil && j.known <= l.tip && !j.fold.isClosed() {
			l.last = j.known
			return nil
		}
		if err != nil && !errors.Is(err, ErrCorrupt) && !errors.Is(err, ErrMailboxClosed) {
			return err
		}
	}
	return l.drop()
}

// drop removes the copied log, not the message files.
func (l *moveLog) drop() error {
	l.last = 0
	for _, p := range []string{dirSnap, dirLog, dirInterest} {
		path := l.dir + "/" + p
		if err := l.m.to.removeAll(path); err != nil {
			return err
		}
		if err := l.m.to.fs.Mkdir(path); err != nil && !errors.Is(err, syscall.EEXIST) {
			return ioErr("mkdir", path, err)
		}
	}
	return nil
}

// records copies the records that the copy lacks; with the first ones comes a snapshot, which makes the copy a log.
func (l *moveLog) records() error {
	first := l.last + 1
	fresh := l.last == 0
	if fresh {
		// All records that the log has. A server that knows the old place may take the absence of a record for "nothing new" for
		// as long as R/2, so none may be missing that was not compacted.
		first = uint64(l.src.floor+1)*l.m.s.knobs.segmentLen + 1
	}
	for n := first; n <= l.tip; n++ {
		if err := l.record(n); err != nil {
			return err
		}
	}
	// What was read from a segment under deletion may have been garbage.
	if err := l.src.look(); err != nil {
		return err
	}
	if first <= l.tip && l.src.covered(first) {
		return errCompacted
	}
	if fresh {
		if err := l.snapshot(); err != nil {
			return err
		}
	}
	if copied := int64(l.tip) - int64(l.last); copied > 0 {
		l.m.tell(func(p *MoveProgress) { p.Records += copied })
	}
	l.last = l.tip
	return nil
}

func (l *moveLog) record(n uint64) error {
	target, body, err := l.read(n)
	if err != nil {
		return err
	}
	to := newJournal(l.m.s, l.m.to, l.kind, l.dir, Ref{})
	fs := l.m.to.fs
	segment := to.segmentPath(to.segment(n))
	if err := fs.Mkdir(segment); err != nil && !errors.Is(err, syscall.EEXIST) {
		return ioErr("mkdir", segment, err)
	}
	r, err := parseRecord(target)
	if err != nil {
		return err
	}
	if r.spill {
		if err := l.place(to.spillPath(n, r.nonce), []byte(body)); err != nil {
			return err
		}
	}
	path := to.recordPath(n)
	if err := fs.Symlink(target, path); err != nil {
		var buf [maxRecord + 24]byte
		if size, e := fs.Readlink(path, buf[:]); e == nil && string(buf[:size]) == target {
			return nil // copied before
		}
		return ioErr("symlink", path, err)
	}
	return nil
}

// snapshot writes the state of tip, under the floor of the original.
func (l *moveLog) snapshot() error {
	to := newJournal(l.m.s, l.m.to, l.kind, l.dir, Ref{})
	k := to.segment(l.tip + 1)
	if err := l.m.to.fs.Mkdir(to.segmentPath(k)); err != nil && !errors.Is(err, syscall.EEXIST) {
		return ioErr("mkdir", to.segmentPath(k), err)
	}
	if l.src.floor >= 0 {
		floor := l.dir + "/" + dirInterest + "/" + floorPrefix + string(appendDec(nil, uint64(l.src.floor)))
		if err := l.m.to.fs.Symlink("-", floor); err != nil && !errors.Is(err, syscall.EEXIST) {
			return ioErr("symlink", floor, err)
		}
	}
	m := slices.DeleteFunc(slices.Clone(l.src.marks), func(k mark) bool { return k.n > l.tip })
	m.trim()
	return l.place(to.snapPath(l.tip), l.state.(snapshotter).appendSnapshot(nil, m, l.src.other))
}

// place writes a file that is never seen half written.
func (l *moveLog) place(path string, content []byte) error {
	tmp := l.dir + "/" + dirTmp + "/" + l.m.s.nextNonce().String()
	if err := writeFile(l.m.to.fs, tmp, content); err != nil {
		return ioErr("write", tmp, err)
	}
	return ioErr("rename", tmp, l.m.to.fs.Rename(tmp, path))
}

// tree copies the files and links below a directory of the account, which are made once and never change.
func (l *moveLog) tree(part string) error {
	names, err := l.m.from.fs.ReadDir(l.old+"/"+part, nil)
	if isNotExist(err) {
		return nil
	}
	if err != nil {
		return ioErr("list", l.old+"/"+part, err)
	}
	fs, dir := l.m.to.fs, l.dir+"/"+part
	if err := fs.Mkdir(dir); err != nil && !errors.Is(err, syscall.EEXIST) {
		return ioErr("mkdir", dir, err)
	}
	for _, name := range names {
		from, to := l.old+"/"+part+"/"+name, dir+"/"+name
		i, err := l.m.from.fs.Lstat(from)
		if isNotExist(err) {
			continue
		}
		if err != nil {
			return ioErr("lstat", from, err)
		}
		if _, err := fs.Lstat(to); err == nil && i.Kind != vfs.KindDir {
			continue // copied before
		}
		switch i.Kind {
		case vfs.KindDir:
			err = l.tree(part + "/" + name)
		case vfs.KindSymlink:
			var buf [maxRecord + 24]byte
			var n int
			if n, err = l.m.from.fs.Readlink(from, buf[:]); err == nil {
				err = fs.Symlink(string(buf[:n]), to)
			}
		case vfs.KindFile:
			var b []byte
			if b, err = readFile(l.m.from.fs, from, maxMessage); err == nil {
				err = l.place(to, b)
			}
		}
		if err != nil && !isNotExist(err) {
			return ioErr("copy", from, err)
		}
	}
	return nil
}

// copiesAtOnce bounds the message files that are copied at the same time.
const copiesAtOnce = 8

// messages copies the files that the state names, those of expunged messages too as long as they are there.
func (l *moveLog) messages(ctx context.Context, s *State) error {
	type job struct {
		dir  uint32
		id   msgID
		dead bool
	}
	jobs := make(chan job)
	var wg sync.WaitGroup
	var failed atomic.Pointer[error]
	made := map[uint32]bool{}
	for range copiesAtOnce {
		wg.Go(func() {
			for x := range jobs {
				if failed.Load() != nil {
					continue
				}
				if err := l.message(x.dir, x.id, x.dead); err != nil {
					failed.CompareAndSwap(nil, &err)
				}
			}
		})
	}
	send := func(dir uint32, id msgID, dead bool) error {
		name := id.String()
		if l.files[name] {
			return nil
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		if e := failed.Load(); e != nil {
			return *e
		}
		if !made[dir] {
			path := string(appendDec([]byte(l.dir+"/"+dirMessages+"/"), uint64(dir)))
			if err := l.m.to.fs.Mkdir(path); err != nil && !errors.Is(err, syscall.EEXIST) {
				return ioErr("mkdir", path, err)
			}
			made[dir] = true
		}
		l.files[name] = true
		jobs <- job{dir, id, dead}
		return nil
	}
	err := func() error {
		for _, m := range s.All() {
			if err := send(m.dir(), m.msgID(), false); err != nil {
				return err
			}
		}
		for i := range s.dead {
			d := &s.dead[i]
			if err := send(recDir(&d.rec, d.ext), s.deadID(d), true); err != nil {
				return err
			}
		}
		return nil
	}()
	close(jobs)
	wg.Wait()
	if e := failed.Load(); e != nil {
		err = *e
	}
	if err != nil {
		clear(l.files) // what was sent may not have been copied
	}
	return err
}

func (l *moveLog) message(dir uint32, id msgID, dead bool) error {
	from := l.src.messagePath(dir, id)
	to := newJournal(l.m.s, l.m.to, l.kind, l.dir, Ref{}).messagePath(dir, id)
	if _, err := l.m.to.fs.Lstat(to); err == nil {
		l.m.tell(func(p *MoveProgress) { p.Messages++ })
		return nil // copied before: it has its name only when it is whole
	} else if !isNotExist(err) {
		return ioErr("lstat", to, err)
	}
	b, err := readFile(l.m.from.fs, from, maxMessage)
	switch {
	case isNotExist(err):
		if !dead {
			l.m.damage(from, "missing")
		}
		return nil
	case err != nil:
		return ioErr("read", from, err)
	case uint64(len(b)) != id.size || checksum(b) != id.crc:
		l.m.damage(from, "its content is not what its name says")
	}
	if err := l.place(to, b); err != nil {
		return err
	}
	l.m.tell(func(p *MoveProgress) { p.Messages++; p.Copied++; p.Bytes += int64(len(b)) })
	return nil
}

// compare reads the copy as any server would, and holds it against the original.
func (l *moveLog) compare() error {
	j := newJournal(l.m.s, l.m.to, l.kind, l.dir, Ref{})
	if err := j.advance(); err != nil {
		return fmt.Errorf("the copy: %w", err)
	}
	got, want := canonical(j.fold.state()), canonical(l.state)
	if got != want {
		return fmt.Errorf("%s: the copy differs: %w\n%s", l.dir, ErrCorrupt, firstDifference(got, want))
	}
	return nil
}
