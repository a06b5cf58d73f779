package queue

import (
	"container/heap"
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"syscall"
	"time"

	"shoal/daemons/internal/vfs"
)

// Lease is an entry in the hands of the caller for one attempt. It ends with Finish or Release.
type Lease struct {
	ID       string
	Envelope Envelope
	Pending  []int // indices of the recipients that have no final state
	Attempts int   // finished before this one
	Warned   bool  // the sender has been told of the delay

	q    *Queue
	e    *entry
	x    indexEntry
	from time.Duration
}

// Again tells whether somebody may have tried this entry before without its outcome having been recorded, or with none.
func (l *Lease) Again() bool {
	return l.Attempts > 0 || l.Envelope.Again || l.e != nil && l.e.generation > 0
}

// Next waits for an entry that is due and owned by this run. ErrClosed, or the error of ctx.
func (q *Queue) Next(ctx context.Context) (*Lease, error) {
	for {
		q.mu.Lock()
		if q.closed {
			q.mu.Unlock()
			return nil, ErrClosed
		}
		wait := time.Hour
		if len(q.due) > 0 {
			wait = time.Unix(q.due[0].due, 0).Sub(q.o.Clock.Now())
			if wait <= 0 {
				e := heap.Pop(&q.due).(*entry)
				e.leased = true
				more := len(q.due) > 0
				q.mu.Unlock()
				if more {
					q.signal() // for the others who wait
				}
				if l := q.lease(e); l != nil {
					return l, nil
				}
				continue
			}
		}
		q.mu.Unlock()
		t := q.o.Clock.NewTimer(wait)
		select {
		case <-t.C():
		case <-q.wake:
		case <-ctx.Done():
			t.Stop()
			return nil, ctx.Err()
		}
		t.Stop()
	}
}

func (q *Queue) signal() {
	select {
	case q.wake <- struct{}{}:
	default:
	}
}

// lease looks whether e is still ours and reads its envelope; nil when there is nothing to attempt.
func (q *Queue) lease(e *entry) *Lease {
	l := &Lease{ID: e.key.id(), Attempts: e.attempts, Warned: e.warned, q: q, e: e, from: q.o.Clock.Boot()}
	taken, err := q.taken(e)
	if err == nil && taken {
		q.lost(e)
		return nil
	}
	if err == nil {
		if e.fresh != nil {
			l.x = *e.fresh
		} else {
			var index []indexEntry
			if index, err = q.readIndex(e.key.batchKey); err == nil {
				if e.key.index >= len(index) {
					err = fmt.Errorf("%s: %w", e.key.id(), ErrCorrupt)
				} else {
					l.x = index[e.key.index]
				}
			}
		}
	}
	if errors.Is(err, syscall.ENOENT) {
		// The batch is gone: everything in it is final, somebody else saw to that.
		q.lost(e)
		return nil
	}
	if err != nil {
		q.o.Log.Error("queue entry cannot be read", "entry", l.ID, "error", err)
		q.mu.Lock()
		e.leased = false
		e.due = q.o.Clock.Now().Add(time.Minute).Unix()
		q.put(e)
		q.mu.Unlock()
		return nil
	}
	l.Envelope = l.x.Envelope
	for i := range l.Envelope.Recipients {
		if !e.final[i] {
			l.Pending = append(l.Pending, i)
		}
	}
	return l
}

// taken tells whether another switch has claimed e after us.
func (q *Queue) taken(e *entry) (bool, error) {
	path := q.claimPath(e.key, e.generation+1)
	switch _, err := q.o.FS.Lstat(path); {
	case err == nil:
		return true, nil
	case errors.Is(err, syscall.ENOENT):
		return false, nil
	default:
		return false, q.ioErr("stat", path, err)
	}
}

func (q *Queue) lost(e *entry) {
	q.o.Log.Info("queue entry belongs to another switch now", "entry", e.key.id())
	q.mu.Lock()
	q.drop(e, false)
	q.mu.Unlock()
}

// Content opens the message. Its checksum is verified while a reader made by Reader runs to the end.
func (l *Lease) Content() (*Content, error) {
	path := l.q.batchPath(l.e.key.batchKey)
	f, err := l.q.o.FS.Open(path)
	if err != nil {
		return nil, l.q.ioErr("open", path, err)
	}
	return &Content{f: f, x: l.x}, nil
}

// Content is the message of an entry.
type Content struct {
	f vfs.File
	x indexEntry
}

// Size in bytes.
func (c *Content) Size() int64 { return c.x.Length }

// ReadAt implements io.ReaderAt.
func (c *Content) ReadAt(p []byte, off int64) (int, error) {
	return io.NewSectionReader(c.f, c.x.Offset, c.x.Length).ReadAt(p, off)
}

// Reader reads the message from its beginning; instead of io.EOF it returns ErrCorrupt when the checksum is wrong.
func (c *Content) Reader() io.Reader {
	return &checkedReader{r: io.NewSectionReader(c.f, c.x.Offset, c.x.Length), want: c.x.Checksum}
}

// Close releases the file.
func (c *Content) Close() error { return c.f.Close() }

type checkedReader struct {
	r         io.Reader
	sum, want uint32
}

func (c *checkedReader) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.sum = crc32.Update(c.sum, castagnoli, p[:n])
	if err == io.EOF && c.sum != c.want {
		return n, fmt.Errorf("content of a queue entry: checksum: %w", ErrCorrupt)
	}
	return n, err
}

// Release gives the entry back without an attempt; it is due again at the given time.
func (l *Lease) Release(due time.Time) {
	l.q.mu.Lock()
	defer l.q.mu.Unlock()
	l.e.leased = false
	if _, ok := l.q.entries[l.e.key]; ok {
		l.e.due = due.Unix()
		l.q.put(l.e)
	}
}

// Finish records what became of the recipients. Those without an outcome, or with Deferred, are due again at the given time. After an error
// the outcomes count for this run, but a later one may not see them and try again.
func (l *Lease) Finish(outcomes []Outcome, due time.Time, warned bool) error {
	q, e := l.q, l.e
	q.metrics.attempts.Inc()
	if q.sinceBeat(l.from) > q.o.DeadAfter/2 {
		if taken, err := q.taken(e); err == nil && taken {
			q.metrics.double.Inc()
			q.o.Log.Warn("queue entry was taken over during an attempt: it may be sent twice", "entry", l.ID)
		}
	}
	final := map[int]bool{}
	for i := range e.final {
		final[i] = true
	}
	for _, o := range outcomes {
		if o.State.Final() {
			final[o.Index] = true
		}
	}
	done := len(final) == len(l.Envelope.Recipients)
	last := false
	if done {
		q.mu.Lock()
		if b := q.batches[e.key.batchKey]; b != nil {
			last = b.gone+1 == b.all
		}
		q.mu.Unlock()
	}
	var err error
	if !last {
		// The last entry of a batch needs no line: the batch goes.
		p := &progress{Entry: name{e.key.seq, e.key.index}.String(), Attempts: e.attempts + 1, Outcomes: outcomes, Warned: warned}
		if !done {
			p.Due = due.Unix()
		}
		err = q.logFor(e.key.origin).append(p)
		if err != nil {
			err = q.ioErr("log", e.key.id(), err)
		}
	}
	q.mu.Lock()
	e.leased, e.fresh = false, nil
	e.attempts++
	e.warned = e.warned || warned
	for _, o := range outcomes {
		if o.State == Deferred {
			e.reason = o.Text
		}
	}
	var batchDone bool
	if done {
		batchDone = q.drop(e, true)
	} else if _, ok := q.entries[e.key]; ok {
		e.due = due.Unix()
		if len(final) > 0 {
			e.final = final
		}
		q.put(e)
	}
	q.mu.Unlock()
	if batchDone {
		if rerr := q.removeBatch(e.key.batchKey); rerr != nil && err == nil {
			err = rerr
		}
	}
	return err
}

// sinceBeat is how long ago the last sign of life was given, seen from now and from an earlier moment: whichever is longer.
func (q *Queue) sinceBeat(from time.Duration) time.Duration {
	q.mu.Lock()
	beat := q.beatAt
	q.mu.Unlock()
	now := q.o.Clock.Boot()
	return max(now-beat, min(now-from, now))
}

func (q *Queue) logFor(origin string) *progressLog {
	q.mu.Lock()
	defer q.mu.Unlock()
	l := q.logs[origin]
	if l == nil {
		l = newProgressLog(q.o.FS, q.dir(origin)+"/log."+q.Origin())
		q.logs[origin] = l
	}
	return l
}

// removeBatch unlinks a batch whose entries are all final, after its claims.
func (q *Queue) removeBatch(key batchKey) error {
	if key.origin != q.Origin() {
		claims, err := q.claims(key.origin)
		if err != nil {
			return err
		}
		for n, c := range claims {
			if n.seq == key.seq {
				for g := 1; g <= c; g++ {
					if err := q.o.FS.Unlink(q.claimPath(entryKey{key, n.index}, g)); err != nil && !errors.Is(err, syscall.ENOENT) {
						return q.ioErr("unlink", q.claimPath(entryKey{key, n.index}, g), err)
					}
				}
			}
		}
	}
	if err := q.o.FS.Unlink(q.batchPath(key)); err != nil && !errors.Is(err, syscall.ENOENT) {
		return q.ioErr("unlink", q.batchPath(key), err)
	}
	return nil
}
