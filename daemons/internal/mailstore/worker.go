package mailstore

import (
	"context"
	"errors"
	"sync"

	"shoal/daemons/internal/clock"
)

// worker does what nobody waits for: it reads hinted mailboxes, checks watched ones now and then, renews
// interest, writes snapshots and tidies up (maintain.go).
type worker struct {
	s      *Store
	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup
	slots  chan struct{}

	mu      sync.Mutex
	ended   bool
	watched map[*journal]struct{}
	due     map[*journal]struct{} // logs that want a snapshot
	wake    chan struct{}
}

// backgroundJobs bounds the jobs that run at once.
const backgroundJobs = 16

func (w *worker) start(s *Store) {
	w.s = s
	w.ctx, w.cancel = context.WithCancel(context.Background())
	w.slots = make(chan struct{}, backgroundJobs)
	w.watched, w.due = map[*journal]struct{}{}, map[*journal]struct{}{}
	w.wake = make(chan struct{}, 1)
	w.wg.Add(1)
	go func() {
		defer w.wg.Done()
		w.recheck()
	}()
	if s.o.Maintain {
		w.wg.Add(1)
		go func() {
			defer w.wg.Done()
			s.maintain(w.ctx)
		}()
	}
}

func (w *worker) stop() {
	w.mu.Lock()
	w.ended = true
	w.mu.Unlock()
	w.cancel()
	w.wg.Wait()
}

// background runs f soon, in a goroutine of its own.
func (w *worker) background(f func(ctx context.Context)) {
	w.mu.Lock()
	if w.ended {
		w.mu.Unlock()
		return
	}
	w.wg.Add(1)
	w.mu.Unlock()
	go func() {
		defer w.wg.Done()
		select {
		case w.slots <- struct{}{}:
			defer func() { <-w.slots }()
			f(w.ctx)
		case <-w.ctx.Done():
		}
	}()
}

func (w *worker) watching(j *journal) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.watched[j] = struct{}{}
}

// recheck reads every watched log once per ReCheck: it covers hints that were lost, also those of a server
// that died between its commit and its hint.
func (w *worker) recheck() {
	for clock.Sleep(w.ctx, w.s.clk, w.s.o.ReCheck) == nil {
		w.mu.Lock()
		all := make([]*journal, 0, len(w.watched))
		for j := range w.watched {
			if !j.watch.active() {
				delete(w.watched, j)
				continue
			}
			all = append(all, j)
		}
		w.mu.Unlock()
		for _, j := range all {
			if w.ctx.Err() != nil {
				return
			}
			if err := j.renew(w.ctx); err != nil && !errors.Is(err, context.Canceled) {
				j.log.Warn("interest not renewed", "mailbox", j.dir, "err", err)
			}
			if _, err := j.read(w.ctx); err != nil {
				j.watch.wake()
			}
		}
	}
}

// afterCommit asks for a snapshot when the log has grown enough. The caller holds drive.
func (s *Store) afterCommit(j *journal) {
	if !s.o.Maintain || !j.wantsSnapshot() {
		return
	}
	w := &s.work
	w.mu.Lock()
	w.due[j] = struct{}{}
	w.mu.Unlock()
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

func (w *worker) takeDue() []*journal {
	w.mu.Lock()
	defer w.mu.Unlock()
	out := make([]*journal, 0, len(w.due))
	for j := range w.due {
		out = append(out, j)
		delete(w.due, j)
	}
	return out
}
