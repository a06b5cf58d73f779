package mailstore

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"shoal/daemons/internal/clock"
)

// A request is one op that somebody wants in the log. The requests of this server that wait on the
// same log go into one record: whoever gets to drive the log takes them all with it.
type request struct {
	// op appends the op as it must read on top of the fold; it is called for each attempt.
	op func(b []byte, c *opContext) []byte
	// confirm, when set, is called after the commit and before anybody is told: what it returns is the
	// outcome.
	confirm func() error

	extra int // how many ops it has beyond the first; of an account's log only

	mail mailEffect // what it did, when the log is a mailbox's
	acct acctEffect

	stores bool // a message: not worth the reserve

	done    chan struct{}
	n       uint64 // the record it is in
	state   any    // as of that record
	err     error
	unknown bool // with err: it may have happened all the same
}

// opContext is what an op may depend on.
type opContext struct {
	origin string
	fold   logFold
	// The next UID lies between uidLow and uidHigh: a message may take its place in m/ for granted only
	// if both agree on it.
	uidLow, uidHigh uint64
}

// spillBatch bounds the ops that are put into one spilled record, beyond the first.
const spillBatch = 1 << 20

// submit commits q and waits for the outcome. An error with q.unknown false means that nothing happened.
func (j *journal) submit(ctx context.Context, q *request) error {
	if err := j.check(q); err != nil {
		return err
	}
	return j.enqueue(ctx, q)
}

// check refuses an op that does not parse: it would close the log to everybody, so better one too many.
func (j *journal) check(q *request) error {
	if err := j.kind.check(q.op(nil, &opContext{origin: j.store.origin})); err != nil {
		return fmt.Errorf("%s: not written: %w", j.dir, err)
	}
	return nil
}

// Who decides about a request whose caller may give up before it is in the queue.
const (
	requestOpen = iota
	requestQueued
	requestGivenUp
)

// submitAfter is submit with file operations before it, which are done in the same turn at the volume where nobody else is at
// the log. Its error is certain when prepare fails. prepare is not told when the caller has given up: what it made stays.
func (j *journal) submitAfter(ctx context.Context, q *request, prepare func() error) error {
	if err := j.check(q); err != nil {
		return err
	}
	q.done = make(chan struct{})
	var state atomic.Int32
	err := j.vol.do(ctx, func() error {
		if err := prepare(); err != nil {
			return err
		}
		select {
		case j.drive <- struct{}{}:
			defer j.unlock()
		default:
			return nil
		}
		if !state.CompareAndSwap(requestOpen, requestQueued) {
			return nil
		}
		j.waiting.Lock()
		j.queue = append(j.queue, q)
		j.waiting.Unlock()
		j.drain(q)
		return nil
	})
	switch {
	case state.CompareAndSwap(requestOpen, requestGivenUp): // not in the queue, and never will be by prepare's turn
		if err != nil {
			return err
		}
		return j.enqueue(ctx, q)
	case err != nil:
		return j.withdraw(q, err)
	}
	j.store.touch(j)
	return q.err
}

// drain commits what is in the queue until q is done. The caller holds drive.
func (j *journal) drain(q *request) {
	for !q.isDone() {
		j.commit(j.takeQueue())
	}
}

// enqueue is submit for a request that was checked.
func (j *journal) enqueue(ctx context.Context, q *request) error {
	q.done = make(chan struct{})
	j.waiting.Lock()
	j.queue = append(j.queue, q)
	j.waiting.Unlock()
	select {
	case j.drive <- struct{}{}:
	default:
		t := j.vol.clk.NewTimer(j.vol.timeout)
		defer t.Stop()
		select {
		case j.drive <- struct{}{}:
		case <-q.done:
			return q.err
		case <-ctx.Done():
			return j.withdraw(q, ctx.Err())
		case <-t.C():
			j.vol.stalls.Add(1)
			return j.withdraw(q, fmt.Errorf("%s: %w: busy for %v", j.dir, ErrUnavailable, j.vol.timeout))
		}
	}
	if err := j.vol.acquire(ctx); err != nil {
		j.unlock()
		return j.withdraw(q, err)
	}
	err := j.vol.run(ctx, func() error {
		defer j.unlock()
		j.drain(q)
		return nil
	})
	if err != nil {
		return j.withdraw(q, err)
	}
	j.store.touch(j)
	return q.err
}

func (q *request) isDone() bool {
	select {
	case <-q.done:
		return true
	default:
		return false
	}
}

// withdraw takes q back if nobody has begun with it; otherwise its outcome stays unknown.
func (j *journal) withdraw(q *request, err error) error {
	j.waiting.Lock()
	for i, p := range j.queue {
		if p == q {
			j.queue = append(j.queue[:i:i], j.queue[i+1:]...)
			j.waiting.Unlock()
			return err
		}
	}
	j.waiting.Unlock()
	if q.isDone() {
		return q.err
	}
	return &unknownError{err}
}

// unknownError wraps an error after which a change may have happened or not.
type unknownError struct{ err error }

func (e *unknownError) Error() string { return e.err.Error() + " (outcome unknown)" }
func (e *unknownError) Unwrap() error { return e.err }

func isUnknown(err error) bool {
	var u *unknownError
	return errors.As(err, &u)
}

func (j *journal) takeQueue() []*request {
	j.waiting.Lock()
	defer j.waiting.Unlock()
	q := j.queue
	j.queue = nil
	return q
}

// putBack returns requests that did not fit to the head of the queue.
func (j *journal) putBack(reqs []*request) {
	j.waiting.Lock()
	defer j.waiting.Unlock()
	j.queue = append(append([]*request(nil), reqs...), j.queue...)
}

func (j *journal) finish(reqs []*request, n uint64, err error) {
	var state any
	if err == nil {
		state = j.publish()
	}
	for _, q := range reqs {
		q.n, q.state, q.err = n, state, err
		if err == nil && (q.mail.closed || q.acct.closed) {
			q.err = fmt.Errorf("%s: %w", j.dir, j.closedError())
		}
		if q.err == nil && q.confirm != nil {
			q.err = q.confirm()
		}
		q.unknown = isUnknown(q.err)
		close(q.done)
	}
}

// batch chooses how many of the requests go into one record: all if they fit; else those that fit if few
// are left over, and otherwise as many as make one file of sensible size.
func (j *journal) batch(nc nonce, reqs []*request) int {
	if len(reqs) == 1 {
		return 1
	}
	room := maxRecord - len(nc.origin) - 15
	c := j.opContext(nc)
	var b []byte
	fit := 0
	for i, q := range reqs {
		b = append(q.op(b, c), '|')
		if len(b) <= room {
			fit = i + 1
		}
		if len(b) > spillBatch {
			return max(i, 1)
		}
	}
	if fit*4 > len(reqs)*3 {
		return fit
	}
	return len(reqs)
}

// build makes the body of a record.
func (j *journal) build(nc nonce, reqs []*request) string {
	c := j.opContext(nc)
	b := make([]byte, 0, 128)
	for i, q := range reqs {
		if i > 0 {
			b = append(b, '|')
		}
		b = q.op(b, c)
	}
	return string(b)
}

func (j *journal) opContext(nc nonce) *opContext {
	c := &opContext{origin: nc.origin, fold: j.fold}
	if f, ok := j.fold.(*mailFold); ok {
		c.uidLow, c.uidHigh = uint64(f.s.uidNext), uint64(f.s.uidNext)
	}
	return c
}

// commit puts the ops of reqs into the log, in one record or several. The caller holds drive.
func (j *journal) commit(reqs []*request) {
	if len(reqs) == 0 {
		return
	}
	if !j.loaded {
		if err := j.advance(); err != nil {
			j.finish(reqs, 0, err)
			return
		}
	}
	nc := j.store.nextNonce()
	if take := j.batch(nc, reqs); take < len(reqs) {
		j.putBack(reqs[take:])
		reqs = reqs[:take]
	}
	j.pending, j.pendReqs = nc, reqs
	n, err := j.place(nc, reqs)
	for errors.Is(err, ErrNoSpace) && !isUnknown(err) && makesRoom(reqs) && j.vol.giveWay() {
		n, err = j.place(nc, reqs)
	}
	j.pending, j.pendReqs = nonce{}, nil
	if err != nil && !isUnknown(err) {
		for _, q := range reqs {
			q.mail.resolved, q.acct.resolved = false, false
		}
	}
	j.finish(reqs, n, err)
	if err == nil {
		j.store.metrics.commits.Inc()
		j.store.metrics.committedOps.Add(float64(len(reqs)))
		j.tell()
		j.store.afterCommit(j)
	}
}

// makesRoom tells whether one of the requests is worth the reserve.
func makesRoom(reqs []*request) bool {
	for _, q := range reqs {
		if !q.stores {
			return true
		}
	}
	return false
}

// maxAttempts bounds the attempts of one commit: each lost one is somebody else's success.
const maxAttempts = 10000

// place finds the N at which the record stands and returns it. The steps are those of docs/store.md:
//
//  1. (the files that the record names are stable before place is called)
//  2. create the record as known+1
//  3. list w/ with a fresh open: a floor over the segment means that the name may have been free only because
//     it was compacted; then the commit counts only if the verified history has this nonce at N
//  4. the name is taken: fold on by the Read rule; the nonce may be there, after a lost reply
//  5. the segment is missing: compacted, or not made yet; the same question before the next attempt
func (j *journal) place(nc nonce, reqs []*request) (uint64, error) {
	fs := j.vol.fs
	ambiguous := false // an attempt at this very N may have succeeded
	faults := 0
	for attempt := 0; attempt < maxAttempts; attempt++ {
		if j.fold.isClosed() {
			return 0, fmt.Errorf("%s: %w", j.dir, j.closedError())
		}
		n := j.known + 1
		body := j.build(nc, reqs)
		at := j.vol.clk.Boot()
		began := j.tickets.Load()
		err := j.put(n, nc, body)
		took := j.vol.clk.Boot() - at
		var synced *syncError
		switch {
		case err == nil:
			if err := j.look(); err != nil {
				return 0, &unknownError{err}
			}
			if j.covered(n) {
				j.store.metrics.fenced.Inc()
				stands, err := j.relook(nc, n)
				if err != nil {
					return 0, &unknownError{err}
				}
				if stands {
					return n, nil
				}
				ambiguous = false
				continue
			}
			if err := j.foldRecord(&tailRecord{n, nc, body}); err != nil {
				j.forget()
				return 0, &unknownError{fmt.Errorf("%s: own record: %w", j.dir, err)}
			}
			// N was the first free name when it was created, so N+1 was absent then, and w/ has been listed since.
			j.looked, j.lookedAt, j.unsynced = true, at, false
			j.current.Store(int64(at))
			j.began = max(j.began, began)
			return n, nil

		case errors.As(err, &synced):
			return 0, &unknownError{err}

		case errors.Is(err, syscall.EEXIST):
			if err := j.advance(); err != nil {
				return 0, &unknownError{err}
			}
			if j.marks.has(nc, n) {
				return n, j.makeStable(n)
			}
			ambiguous = false
			j.dropSpill(n, nc, body)
			j.store.metrics.races.Inc()
			j.backOff(attempt, took)

		case isNotExist(err):
			if err := j.look(); err != nil {
				return 0, maybe(err, ambiguous)
			}
			if j.covered(n) {
				stands, err := j.relook(nc, n)
				if err != nil {
					return 0, maybe(err, ambiguous)
				}
				if stands {
					return n, nil
				}
				ambiguous = false
				continue
			}
			dir := j.segmentPath(j.segment(n))
			if err := fs.Mkdir(dir); err != nil && !errors.Is(err, syscall.EEXIST) {
				if isNotExist(err) {
					return 0, maybe(j.gone(dir), ambiguous)
				}
				return 0, maybe(ioErr("mkdir", dir, err), ambiguous)
			}
			if faults++; faults > 50 {
				return 0, maybe(ioErr("symlink", j.recordPath(n), err), ambiguous)
			}

		default:
			err = ioErr("symlink", j.recordPath(n), err)
			if certain(err) && !ambiguous {
				return 0, err
			}
			// The reply may have been lost: the next try at the same name tells.
			ambiguous = true
			if faults++; faults > 2 {
				return 0, &unknownError{err}
			}
		}
	}
	return 0, maybe(fmt.Errorf("%s: %w: lost %d races", j.dir, ErrUnavailable, maxAttempts), ambiguous)
}

func maybe(err error, unknown bool) error {
	if unknown {
		return &unknownError{err}
	}
	return err
}

// syncError: a record was created but could not be made durable.
type syncError struct{ err error }

func (e *syncError) Error() string { return e.err.Error() }
func (e *syncError) Unwrap() error { return e.err }

// put creates record n. On a local volume it also makes it durable, together with everything the log
// needs to reach it.
func (j *journal) put(n uint64, nc nonce, body string) error {
	k := j.segment(n)
	if !j.vol.network && !j.vol.journal {
		if k > 0 && j.segMade != k+1 {
			// The first record that this server puts into the segment: its directory may be new, and the
			// last records of the one before may be another process's. Segment 0 was stable before the
			// log could be found.
			if err := j.vol.fs.SyncDir(j.dir + "/" + dirLog); err != nil {
				return err
			}
			if j.segment(n-1) != k && j.unsynced {
				if err := j.vol.fs.SyncDir(j.segmentPath(k - 1)); err != nil && !isNotExist(err) {
					return err
				}
			}
		}
	}
	target, err := j.target(n, nc, body)
	if err != nil {
		return err
	}
	if err := j.vol.fs.Symlink(target, j.recordPath(n)); err != nil {
		return err
	}
	if err := j.makeStable(n); err != nil {
		return err
	}
	return nil
}

// makeStable makes record n durable on a local volume.
func (j *journal) makeStable(n uint64) error {
	if j.vol.network || j.store.knobs.noSync {
		return nil
	}
	path := j.segmentPath(j.segment(n))
	if err := j.vol.syncDir(path); err != nil && !isNotExist(err) {
		return &unknownError{&syncError{ioErr("sync", path, err)}}
	}
	j.segMade, j.unsynced = j.segment(n)+1, false
	return nil
}

// spills tells whether a record with a body of n bytes is too long for a link.
func spills(nc nonce, n int) bool {
	var buf [64]byte
	return len(nc.append(buf[:0]))+1+n > maxRecord
}

// target returns the text of record n; a long one is written to a file of its own first.
func (j *journal) target(n uint64, nc nonce, body string) (string, error) {
	b := make([]byte, 0, len(nc.origin)+20+len(body))
	b = append(nc.append(b), ' ')
	if !spills(nc, len(body)) {
		return string(append(b, body...)), nil
	}
	if len(body) > maxSpill {
		return "", fmt.Errorf("record of %d bytes: %w", len(body), ErrTooLarge)
	}
	if err := j.vol.writeFile(j.spillPath(n, nc), []byte(body)); err != nil {
		return "", err
	}
	b = append36(append(b, '@'), uint64(len(body)))
	b = append36(append(b, '.'), uint64(checksum([]byte(body))))
	return string(b), nil
}

// dropSpill removes the file of a record that did not come to stand at n.
func (j *journal) dropSpill(n uint64, nc nonce, body string) {
	if spills(nc, len(body)) {
		// Left behind, it goes with its segment.
		_ = j.vol.fs.Unlink(j.spillPath(n, nc))
	}
}

// relook starts again from a snapshot and tells whether the verified history has the nonce at n.
func (j *journal) relook(nc nonce, n uint64) (bool, error) {
	if err := j.reload(); err != nil {
		return false, err
	}
	if err := j.advance(); err != nil {
		return false, err
	}
	if !j.marks.has(nc, n) {
		return false, nil
	}
	return true, j.makeStable(n)
}

// backOff waits for a random time after a lost race, longer with each: without it the one who is a little
// slower than the others loses for ever.
func (j *journal) backOff(losses int, took time.Duration) {
	d := min(max(took, 50*time.Microsecond), 5*time.Millisecond) * time.Duration(min(losses+1, 10))
	_ = clock.Sleep(context.Background(), j.vol.clk, time.Duration(rand.Int64N(int64(d))))
}

// tell sends a hint to every other server that has an interest in the log. It uses the listing that
// the commit made anyway.
func (j *journal) tell() {
	if j.store.o.Notify == nil {
		return
	}
	var told map[string]bool
	for _, name := range j.names {
		if strings.HasPrefix(name, floorPrefix) || strings.HasPrefix(name, j.store.origin) && name[len(j.store.origin)] == '.' {
			continue
		}
		addr, ok := j.addrs[name]
		if !ok {
			var buf [256]byte
			l, err := j.vol.fs.Readlink(j.dir+"/"+dirInterest+"/"+name, buf[:])
			if err != nil {
				continue // gone again: nobody to tell
			}
			addr = string(buf[:l])
			if len(j.addrs) > 4096 {
				clear(j.addrs)
			}
			if j.addrs == nil {
				j.addrs = map[string]string{}
			}
			j.addrs[name] = addr
		}
		if told[addr] {
			continue
		}
		if told == nil {
			told = map[string]bool{}
		}
		told[addr] = true
		j.store.metrics.hintsSent.Inc()
		j.store.o.Notify(addr, j.ref)
	}
}
