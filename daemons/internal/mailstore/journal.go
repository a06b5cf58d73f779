package mailstore

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// journal drives one log: a mailbox's or an account's list. It holds the newest fold that this server
// knows, reads on by the Read rule, and commits for everybody on this server (commit.go).
//
// Whoever reads or commits holds drive; everything below it in the struct belongs to the holder. What
// others may see is published whole through pub.
type journal struct {
	store *Store
	vol   *volume
	kind  *logKind
	ref   Ref
	dir   string
	log   *slog.Logger

	pub     atomic.Pointer[published]
	tickets atomic.Uint64
	waiting sync.Mutex // guards queue
	queue   []*request
	watch   watchSet
	hinted  atomic.Bool  // a read because of a hint is on its way
	current atomic.Int64 // when what is published was known to be the newest (clock.Boot)

	drive     chan struct{}
	began     uint64 // a read that began after this ticket was drawn has been completed
	fold      logFold
	loaded    bool
	known     uint64 // the last record folded in
	marks     marks
	other     []string     // unknown lines of the snapshot
	chain     []link       // the snapshots that fold rests on: a complete one, then those that continue it
	tail      []tailRecord // the records since, unless tailLost
	tailBytes int
	tailCost  uint64        // what reading the tail costs a cold reader, in records
	fresh     bool          // loaded just now: the rest of the tail is not in this machine's caches
	tailLost  bool          // they were too long to keep
	looked    bool          // w/ has been listed after known+1 was seen absent
	lookedAt  time.Duration // when that was
	unsynced  bool          // records of others were folded that may not be durable yet (local volumes)
	segMade   uint64        // segment whose directory is known to be durable, plus one
	floor     int64         // the highest floor seen
	names     []string      // buffer for listings
	pending   nonce         // the commit in flight
	pendReqs  []*request
	addrs     map[string]string // addresses by interest entry: names are never reused
}

type published struct {
	state    any
	n        uint64
	complete uint64 // the newest complete snapshot then
}

// logKind is what the two kinds of logs do differently.
type logKind struct {
	name  string
	lines string
	fresh func() logFold
	load  func(*snapshot) (logFold, error)
	check func(op []byte) error // would it parse?
}

// logFold is the fold of one kind of log.
type logFold interface {
	applyRecord(r *tailRecord, reqs []*request) error
	state() any // publishes
	isClosed() bool
	messages() int
}

var mailboxKind = &logKind{
	name: kindMailbox, lines: mailLines,
	fresh: func() logFold { return newMailFold() },
	load:  func(s *snapshot) (logFold, error) { return loadMailSnapshot(s) },
	check: func(op []byte) error { _, _, err := parseMailOp(string(op), "-.0"); return err },
}

var accountKind = &logKind{
	name: kindAccount, lines: acctLines,
	fresh: func() logFold { return newAcctFold() },
	load:  func(s *snapshot) (logFold, error) { return loadAcctSnapshot(s) },
	check: func(ops []byte) error {
		return eachOp(string(ops), func(op string) error { _, _, err := parseAcctOp(op); return err })
	},
}

func (f *mailFold) applyRecord(r *tailRecord, reqs []*request) error {
	var effects []*mailEffect
	for _, q := range reqs {
		effects = append(effects, &q.mail)
	}
	return f.apply(r.n, r.nonce.origin, r.body, effects)
}

func (f *mailFold) state() any     { return f.publish() }
func (f *mailFold) isClosed() bool { return f.s.closed }
func (f *mailFold) messages() int  { return f.s.count }

func (f *acctFold) applyRecord(r *tailRecord, reqs []*request) error {
	var effects []*acctEffect
	for _, q := range reqs {
		effects = append(append(effects, &q.acct), make([]*acctEffect, q.extra)...)
	}
	return f.apply(r.n, r.body, effects)
}

func (f *acctFold) state() any     { return f.publish() }
func (f *acctFold) isClosed() bool { return f.s.closed }
func (f *acctFold) messages() int  { return len(f.s.boxes) }

// errGone: w/, snap/ or log/ is missing: the mailbox has left its place.
var errGone = errors.New("log is gone")

func newJournal(s *Store, v *volume, kind *logKind, dir string, ref Ref) *journal {
	return &journal{
		store: s, vol: v, kind: kind, dir: dir, ref: ref, log: s.log,
		drive: make(chan struct{}, 1), floor: -1,
	}
}

// segment is the number of the directory that record n lies in.
func (j *journal) segment(n uint64) uint64 { return (n - 1) / j.store.knobs.segmentLen }

func (j *journal) segmentPath(k uint64) string {
	b := make([]byte, 0, len(j.dir)+32)
	b = append(append(b, j.dir...), "/"+dirLog+"/"...)
	return string(appendDec(b, k))
}

func (j *journal) recordPath(n uint64) string {
	b := make([]byte, 0, len(j.dir)+48)
	b = append(append(b, j.dir...), "/"+dirLog+"/"...)
	b = append(appendDec(b, j.segment(n)), '/')
	return string(appendDec(b, n))
}

// spillPath is the file of a spilled record.
func (j *journal) spillPath(n uint64, nc nonce) string {
	b := append([]byte(j.segmentPath(j.segment(n))), "/s"...)
	b = append(appendDec(b, n), '.')
	return string(nc.append(b))
}

func (j *journal) snapPath(n uint64) string {
	return string(appendDec([]byte(j.dir+"/"+dirSnap+"/"), n))
}

// lock takes drive.
func (j *journal) lock(ctx context.Context) error {
	select {
	case j.drive <- struct{}{}:
		return nil
	default:
	}
	t := j.vol.clk.NewTimer(j.vol.timeout)
	defer t.Stop()
	select {
	case j.drive <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C():
		j.vol.stalls.Add(1)
		return fmt.Errorf("%s: %w: busy for %v", j.dir, ErrUnavailable, j.vol.timeout)
	}
}

func (j *journal) unlock() { <-j.drive }

// drives runs fn with drive and a slot of the volume.
func (j *journal) drives(ctx context.Context, fn func() error) error {
	if err := j.lock(ctx); err != nil {
		return err
	}
	if err := j.vol.acquire(ctx); err != nil {
		j.unlock()
		return err
	}
	return j.vol.run(ctx, func() error {
		defer j.unlock()
		return fn()
	})
}

// read returns a state that includes everything acknowledged anywhere before the call.
func (j *journal) read(ctx context.Context) (any, error) {
	ticket := j.tickets.Add(1)
	var state any
	err := j.drives(ctx, func() error {
		if j.began < ticket || !j.loaded {
			began, at := j.tickets.Load(), j.vol.clk.Boot()
			if err := j.advance(); err != nil {
				return err
			}
			if err := j.settle(); err != nil {
				return err
			}
			j.began = began
			j.current.Store(int64(at))
		}
		state = j.publish()
		return nil
	})
	if err != nil {
		return nil, err
	}
	j.store.touch(j)
	return state, nil
}

// publish makes the fold visible. Only a verified fold is published.
func (j *journal) publish() any {
	if p := j.pub.Load(); p != nil && p.n == j.known {
		return p.state
	}
	s := j.fold.state()
	j.pub.Store(&published{s, j.known, j.complete()})
	j.watch.wake()
	return s
}

// settledAfter is the age at which a record on a local volume is durable: its writer syncs it at once,
// and the journal would have by itself.
const settledAfter = 10 * time.Minute

// settle makes what was read from others durable before anybody is told about it. On a local volume
// another process may have shown its record before it could sync it.
func (j *journal) settle() error {
	if !j.unsynced || j.vol.network {
		return nil
	}
	if i, err := j.vol.fs.Lstat(j.recordPath(j.known)); err == nil {
		if age := j.vol.clk.Now().Sub(i.ModTime); age > settledAfter {
			j.unsynced = false
			return nil
		}
	}
	path := j.segmentPath(j.segment(j.known))
	if err := j.vol.syncDir(path); err != nil && !isNotExist(err) {
		return ioErr("sync", path, err)
	}
	j.unsynced = false
	return nil
}

// forget drops the fold: the next read starts from a snapshot.
func (j *journal) forget() {
	j.fold, j.loaded, j.known, j.looked = nil, false, 0, false
	j.marks, j.other, j.chain = nil, nil, nil
	j.tail, j.tailBytes, j.tailCost, j.tailLost = nil, 0, 0, false
	j.unsynced = false
}

// advance brings the fold to the newest record, by the Read rule:
//
// Fold while there is a next record. Then list w/; if a floor covers the segment of the first record
// read, what was read may have been garbage in a segment under deletion: discard all and begin at the
// newest snapshot. An absent next record means "nothing new" only while a listing of w/, made after that very
// record was seen absent, is younger than R/2: a compacted record looks exactly like one to come.
func (j *journal) advance() error {
	if !j.loaded {
		if err := j.reload(); err != nil {
			return err
		}
	}
	for tries := 0; ; tries++ {
		start := j.known
		var foldErr error
		at := j.vol.clk.Boot()
		for i := 0; ; i++ {
			if i == listAfter && j.fresh {
				j.warm()
			}
			more, err := j.readNext()
			if err != nil {
				foldErr = err
				break
			}
			if !more {
				break
			}
			at = j.vol.clk.Boot()
		}
		j.fresh = false
		if foldErr != nil && !errors.Is(foldErr, ErrCorrupt) && !errors.Is(foldErr, ErrNewerFormat) {
			j.forget()
			return foldErr
		}
		// The age of the last listing is taken behind the call that found nothing: the call may have been held up for as long as
		// it takes to compact what it asked for.
		if start == j.known && foldErr == nil && j.looked && j.vol.clk.Boot()-j.lookedAt < j.store.o.Retention/2 {
			return j.vol.mounted()
		}
		if err := j.look(); err != nil {
			if !j.store.knobs.unverified {
				j.forget()
			}
			return err
		}
		if j.covered(start + 1) {
			if tries > 100 {
				j.forget()
				return fmt.Errorf("%s: the log is compacted faster than it can be read: %w", j.dir, ErrUnavailable)
			}
			if err := j.reload(); err != nil {
				return err
			}
			continue
		}
		if foldErr != nil {
			j.forget()
			return fmt.Errorf("%s: %w", j.dir, foldErr)
		}
		j.looked, j.lookedAt = true, at
		if start != j.known {
			j.unsynced = true
		}
		return nil
	}
}

// covered tells whether a floor covers the segment of record n.
func (j *journal) covered(n uint64) bool {
	return !j.store.knobs.noFence && j.floor >= int64(j.segment(n))
}

// readNext folds record known+1, if it is there.
func (j *journal) readNext() (bool, error) {
	n := j.known + 1
	var buf [maxRecord + 24]byte
	path := j.recordPath(n)
	l, err := j.vol.fs.Readlink(path, buf[:])
	switch {
	case err == nil:
	case isNotExist(err):
		return false, nil
	case errors.Is(err, syscall.ENAMETOOLONG), errors.Is(err, syscall.EINVAL):
		return false, fmt.Errorf("%s: not a record: %w", path, ErrCorrupt)
	default:
		return false, ioErr("readlink", path, err)
	}
	rec, err := parseRecord(string(buf[:l]))
	if err != nil {
		return false, fmt.Errorf("%s: %w", path, err)
	}
	if rec.spill {
		rec.body, err = j.readSpill(n, &rec)
		if isNotExist(err) {
			// Being deleted with its segment: whether that explains it, the floor will tell.
			return false, fmt.Errorf("%s: its file is missing: %w", path, ErrCorrupt)
		}
		if err != nil {
			return false, err
		}
	}
	return true, j.foldRecord(&tailRecord{n, rec.nonce, rec.body})
}

func (j *journal) readSpill(n uint64, r *record) (string, error) {
	path := j.spillPath(n, r.nonce)
	b, err := readFile(j.vol.fs, path, int64(r.size))
	switch {
	case isNotExist(err):
		return "", err
	case errors.Is(err, syscall.EFBIG):
		return "", fmt.Errorf("%s: longer than its record says: %w", path, ErrCorrupt)
	case err != nil:
		return "", ioErr("read", path, err)
	}
	if uint64(len(b)) != r.size || checksum(b) != r.crc {
		return "", fmt.Errorf("%s: checksum: %w", path, ErrCorrupt)
	}
	return string(b), nil
}

// foldRecord adds the next record to the fold.
func (j *journal) foldRecord(r *tailRecord) error {
	if err := j.fold.applyRecord(r, j.requestsOf(r.nonce)); err != nil {
		return fmt.Errorf("record %d: %w", r.n, err)
	}
	j.known = r.n
	j.looked = false
	j.marks.add(r.nonce, r.n)
	j.tailCost += j.cost(r)
	if j.tailBytes += len(r.body) + 40; j.tailBytes > maxTail {
		j.tail, j.tailLost = nil, true
	}
	if !j.tailLost {
		j.tail = append(j.tail, *r)
	}
	return nil
}

// spillCost is what a record in a file of its own costs a cold reader, in records: it is opened, read and closed.
const spillCost = 4

func (j *journal) cost(r *tailRecord) uint64 {
	if spills(r.nonce, len(r.body)) {
		return spillCost
	}
	return 1
}

// listAfter is how many records a cold reader reads before it lists the directory of the rest.
const listAfter = 2

// warm lists the directory of the next record. On NFS that brings the names in it into the client's cache, so that reading each
// of many records takes one call and not two. Nothing is concluded from the listing.
func (j *journal) warm() {
	j.fresh = false
	if j.vol.network {
		j.names, _ = j.vol.fs.ReadDir(j.segmentPath(j.segment(j.known+1)), j.names[:0])
	}
}

// maxTail bounds the records kept for a snapshot that continues another.
const maxTail = 256 << 10

// look lists w/ with a fresh open: the floors, and whom to tell.
func (j *journal) look() error {
	path := j.dir + "/" + dirInterest
	names, err := j.vol.fs.ReadDir(path, j.names[:0])
	if errors.Is(err, syscall.ESTALE) {
		names, err = j.vol.fs.ReadDir(path, j.names[:0]) // a handle that went bad, perhaps
	}
	j.names = names
	if isNotExist(err) {
		return j.gone(path)
	}
	if err != nil {
		return ioErr("list", path, err)
	}
	for _, name := range names {
		f, ok := strings.CutPrefix(name, floorPrefix)
		if !ok {
			continue
		}
		if f == floorMax {
			return j.gone(path)
		}
		if k, ok := parseDec(f); ok {
			j.floor = max(j.floor, int64(k))
		}
	}
	return nil
}

// gone says that the mailbox has left its place, unless the whole volume has.
func (j *journal) gone(path string) error {
	if err := j.vol.present(); err != nil {
		return err
	}
	return fmt.Errorf("%s: %w: %w", path, ErrMailboxClosed, errGone)
}

// requestsOf returns the requests in flight under a nonce.
func (j *journal) requestsOf(nc nonce) []*request {
	if j.pendReqs != nil && nc == j.pending {
		return j.pendReqs
	}
	return nil
}
