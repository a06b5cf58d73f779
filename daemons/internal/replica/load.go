package replica

import (
	"errors"
	"strings"

	"shoal/daemons/internal/dirstore"
	"shoal/daemons/internal/ldapwire"
)

// loading is a total refresh that makes a new database (dirstore.Load). The entries go to a goroutine
// of their own: the next are read meanwhile.
type loading struct {
	s     *session
	load  *dirstore.Load
	queue chan loaded
	done  chan struct{}
	err   error // why the load is given up; after done is closed
}

type loaded struct {
	op   *dirstore.Replicate
	size int64
}

func newLoading(s *session) (*loading, error) {
	load, err := s.r.opt.Store.Load()
	if err != nil {
		return nil, err
	}
	l := &loading{s: s, load: load, queue: make(chan loaded, window), done: make(chan struct{})}
	go l.work()
	return l, nil
}

func (l *loading) work() {
	defer close(l.done)
	for e := range l.queue {
		err := l.load.Add(e.op)
		l.s.room.Release(e.size)
		var refused *ldapwire.Error
		switch {
		case errors.As(err, &refused):
			l.s.refused(string(e.op.DN), err)
			continue
		case err != nil:
			l.err = err
			l.s.cancel(l.s.notLoaded(err))
			l.s.c.close()
			return
		}
		l.s.r.metrics.changes.WithLabelValues("entry").Inc()
		l.s.skipped(string(e.op.DN), e.op)
		l.s.refresh.count()
	}
}

// add hands an entry over; it blocks while too much waits.
func (l *loading) add(op *dirstore.Replicate, size int) error {
	n := min(int64(size), windowOctets)
	if err := l.s.room.Acquire(l.s.ctx, n); err != nil {
		return l.s.cause()
	}
	select {
	case l.queue <- loaded{op, n}:
		return nil
	case <-l.done:
		return l.s.cause()
	}
}

// wait ends the goroutine.
func (l *loading) wait() error {
	close(l.queue)
	<-l.done
	l.queue = nil
	return l.err
}

// abort gives up what is not complete.
func (l *loading) abort() {
	if l.queue != nil {
		_ = l.wait() // its error ended the session
	}
	if err := l.load.Abort(); err != nil {
		l.s.r.opt.Log.Warn("what is left of a directory refresh is removed at the next start", "error", err)
	}
}

// finish puts the new database in the place of the old one, with the cookie.
func (l *loading) finish(f *refresh) error {
	s := l.s
	if len(s.csns) == 0 {
		return &inconsistent{"the provider gave no CSN in its cookie"}
	}
	if err := l.wait(); err != nil {
		return s.notLoaded(err)
	}
	store, refused, err := l.load.Build()
	if err != nil {
		return s.notLoaded(err)
	}
	for _, r := range refused {
		s.refused(r.DN, r.Err)
	}
	gone, err := f.victims(store)
	if err != nil {
		return s.notLoaded(err)
	}
	for _, id := range gone {
		if err := store.Do("", &dirstore.Remove{UUID: id, CSN: s.newest()}); err != nil {
			return s.notLoaded(err)
		}
	}
	return l.load.Replace(f.context())
}

// notLoaded makes the next attempt an ordinary one, entry by entry.
func (s *session) notLoaded(err error) error {
	s.r.mu.Lock()
	s.r.inPlace = true
	s.r.mu.Unlock()
	if errors.Is(err, dirstore.ErrLoadTooIrregular) {
		return &inconsistent{err.Error()}
	}
	return err
}

func (s *session) refused(name string, err error) {
	s.r.metrics.refused.Inc()
	s.r.opt.Log.Error("an entry of the provider is not taken", "event", "replica-refused", "entry", name, "error", err)
}

func (s *session) skipped(name string, op *dirstore.Replicate) {
	if len(op.Skipped) > 0 {
		s.r.opt.Log.Warn("attributes of the provider that the schema does not know are left out", "entry", name, "attributes", strings.Join(op.Skipped, " "))
	}
}
