package mailstore

import (
	"context"
	"errors"
	"strings"
	"sync"
	"syscall"
	"time"
)

// Watcher is a registration made by Watch.
type Watcher struct {
	// C holds at most one signal; signals that come together are one.
	C    <-chan struct{}
	c    chan struct{}
	f    func() // of WatchFunc, instead of C
	j    *journal
	once sync.Once
}

// watchSet holds the watchers of one log on this server, and the name of the entry in w/ that speaks for
// them all: w/<server>.<boot>.<n>, a symlink to the address where this server takes hints. A name is
// never used twice.
type watchSet struct {
	mu    sync.Mutex
	set   map[*Watcher]struct{}
	entry string        // guarded by drive
	since time.Duration // boot time when entry was made; guarded by drive
}

func (w *watchSet) wake() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for x := range w.set {
		if x.f != nil {
			x.f()
			continue
		}
		select {
		case x.c <- struct{}{}:
		default:
		}
	}
}

func (w *watchSet) active() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.set) > 0
}

// interestRenewal is how old an entry gets before a living server makes a new one; anybody may remove
// an entry older than interestLife.
const (
	interestRenewal = 12 * time.Hour
	interestLife    = 48 * time.Hour
)

// addWatcher registers a watcher that is woken by a call of f, or through its C when f is nil.
func (j *journal) addWatcher(ctx context.Context, f func()) (*Watcher, error) {
	w := &Watcher{f: f, j: j}
	if f == nil {
		w.c = make(chan struct{}, 1)
		w.C = w.c
	}
	j.watch.mu.Lock()
	if j.watch.set == nil {
		j.watch.set = map[*Watcher]struct{}{}
	}
	j.watch.set[w] = struct{}{}
	j.watch.mu.Unlock()
	if j.store.o.HintAddress == "" {
		return w, nil
	}
	if err := j.drives(ctx, j.register); err != nil {
		w.Close()
		return nil, err
	}
	j.store.work.watching(j)
	return w, nil
}

// Close ends the registration.
func (w *Watcher) Close() {
	w.once.Do(func() {
		s := &w.j.watch
		s.mu.Lock()
		delete(s.set, w)
		left := len(s.set)
		s.mu.Unlock()
		if left > 0 || w.j.store.o.HintAddress == "" {
			return
		}
		w.j.store.work.background(func(ctx context.Context) {
			if err := w.j.dropInterest(ctx); err != nil {
				w.j.log.Warn("interest not removed", "mailbox", w.j.dir, "err", err)
			}
		})
	})
}

// register makes an entry in w/ unless there is one. The caller holds drive.
func (j *journal) register() error {
	if j.watch.entry != "" {
		return nil
	}
	name := j.store.nextNonce().String()
	path := j.dir + "/" + dirInterest + "/" + name
	err := j.vol.essential(func() error { return ioErr("symlink", path, j.vol.fs.Symlink(j.store.o.HintAddress, path)) })
	switch {
	case err == nil, errors.Is(err, syscall.EEXIST):
	case isNotExist(err):
		return j.gone(path)
	case errors.Is(err, ErrNoSpace):
		return nil // a full volume: the slow re-check has to do
	default:
		return err
	}
	j.watch.entry, j.watch.since = name, j.vol.clk.Boot()
	// Entries of earlier runs of this server speak for nobody.
	if err := j.look(); err != nil {
		return err
	}
	for _, n := range j.names {
		if j.formerRun(n) {
			_ = j.vol.fs.Unlink(j.dir + "/" + dirInterest + "/" + n)
		}
	}
	return nil
}

// formerRun tells whether an entry was made by an earlier run of this server.
func (j *journal) formerRun(entry string) bool {
	nc, ok := parseNonce(entry)
	if !ok || nc.origin == j.store.origin || originServer(nc.origin) != j.store.o.Server {
		return false
	}
	_, a, _ := strings.Cut(nc.origin, ".")
	_, b, _ := strings.Cut(j.store.origin, ".")
	theirs, _ := parse36(a)
	mine, _ := parse36(b)
	return theirs < mine
}

// dropInterest removes the entry when nobody watches any more.
func (j *journal) dropInterest(ctx context.Context) error {
	return j.drives(ctx, func() error {
		j.store.mu.Lock()
		closing := j.store.closed
		j.store.mu.Unlock()
		if j.watch.entry == "" || j.watch.active() && !closing {
			return nil
		}
		path := j.dir + "/" + dirInterest + "/" + j.watch.entry
		j.watch.entry = ""
		if err := j.vol.fs.Unlink(path); err != nil && !isNotExist(err) {
			return ioErr("unlink", path, err)
		}
		return nil
	})
}

// renew makes a new entry before the old one is old enough to be removed by others.
func (j *journal) renew(ctx context.Context) error {
	return j.drives(ctx, func() error {
		old := j.watch.entry
		if old == "" || j.vol.clk.Boot()-j.watch.since < interestRenewal {
			return nil
		}
		j.watch.entry = ""
		if err := j.register(); err != nil {
			return err
		}
		path := j.dir + "/" + dirInterest + "/" + old
		if err := j.vol.fs.Unlink(path); err != nil && !isNotExist(err) {
			return ioErr("unlink", path, err)
		}
		return nil
	})
}

// Hint reports that somebody committed to the mailbox: it is read again soon if anybody here watches it.
// It never blocks, and a hint for an unknown mailbox costs nothing.
func (s *Store) Hint(ref Ref) {
	s.metrics.hintsTaken.Inc()
	v, err := s.volume(ref.Volume)
	if err != nil {
		return
	}
	dir := accountPath(v.root, ref.Account)
	if ref.Mailbox != "" {
		dir += "/" + dirBoxes + "/" + ref.Mailbox
	}
	j := s.cache.lookup(dir)
	if j == nil || !j.watch.active() || !j.hinted.CompareAndSwap(false, true) {
		return
	}
	s.work.background(func(ctx context.Context) {
		j.hinted.Store(false)
		if _, err := j.read(ctx); err != nil {
			// The watchers find out for themselves.
			j.watch.wake()
		}
	})
}
