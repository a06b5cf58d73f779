package mailstore

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"shoal/daemons/internal/clock"
)

// A file system that does not answer blocks a thread per call, without end and beyond the reach of signals; a process has
// 10,000 threads. So the calls in progress are bounded per volume, whoever waits for one waits for a bounded time, and
// a volume with several calls that are overdue is left alone until they have come back: they are the probe. The other volumes
// notice nothing.

// maxOverdue is the number of overdue calls from which on nobody is let in any more.
const maxOverdue = 4

// acquire waits for the right to start file operations.
func (v *volume) acquire(ctx context.Context) error {
	if v.closed.Load() {
		return fmt.Errorf("volume %s: %w: the directory says that it is closed", v.name, ErrUnavailable)
	}
	if n := v.overdue.Load(); n >= maxOverdue {
		return fmt.Errorf("volume %s: %w: %d file operations have not come back for more than %v", v.name, ErrUnavailable, n, v.timeout)
	}
	select {
	case v.slots <- struct{}{}:
		return nil
	default:
	}
	t := v.clk.NewTimer(v.timeout)
	defer t.Stop()
	select {
	case v.slots <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C():
		v.stalls.Add(1)
		return fmt.Errorf("volume %s: %w: %d file operations have not come back", v.name, ErrUnavailable, cap(v.slots))
	}
}

func (v *volume) release() { <-v.slots }

// What became of a call.
const (
	callRunning = iota
	callDone
	callOverdue
)

// A call is one run of fn. Calls that ended in time are used again, with the goroutine's stack and the timer.
type call struct {
	fn    func() error
	state atomic.Int32
	done  chan error // holds one
	timer clock.Timer
}

// maxIdleWorkers bounds the goroutines that wait for the next call, per volume.
const maxIdleWorkers = 16

// workers are the goroutines of a volume that do its calls. A new one begins with a small stack, which the path down
// to the file system outgrows each time; one that stays has it already.
type workers struct {
	mu   sync.Mutex
	idle []chan *call // last in, first out
	keep bool         // while the volume is in use
}

// start hands c to a goroutine.
func (v *volume) start(c *call) {
	w := &v.workers
	w.mu.Lock()
	n := len(w.idle) - 1
	if n < 0 {
		w.mu.Unlock()
		go v.work(c)
		return
	}
	next := w.idle[n]
	w.idle = w.idle[:n]
	w.mu.Unlock()
	next <- c
}

func (v *volume) work(c *call) {
	w := &v.workers
	next := make(chan *call, 1)
	for c != nil {
		err := c.fn()
		if !c.state.CompareAndSwap(callRunning, callDone) {
			v.answered()
		}
		v.release()
		w.mu.Lock()
		stay := w.keep && len(w.idle) < maxIdleWorkers
		if stay {
			w.idle = append(w.idle, next)
		}
		w.mu.Unlock()
		c.done <- err
		if !stay {
			return
		}
		c = <-next
	}
}

// keepWorkers lets the goroutines stay for the next call, or end: those that are at a call when it is done.
func (v *volume) keepWorkers(keep bool) {
	w := &v.workers
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.keep = keep; keep {
		return
	}
	for _, next := range w.idle {
		close(next)
	}
	w.idle = nil
}

// settleFor bounds how long Close waits for calls whose callers have gone: a volume that hangs does not hold it up.
const settleFor = 2 * time.Second

// settle waits for the calls that go on by themselves, so that nothing is written after Close on a volume that answers.
func (v *volume) settle() {
	for begin := time.Now(); len(v.slots) > 0 && time.Since(begin) < settleFor; {
		time.Sleep(time.Millisecond)
	}
}

// run executes fn, which does file operations, in a slot got by acquire. The caller waits no longer than the time limit and
// its context allow; fn then goes on by itself, so it must own what it touches.
func (v *volume) run(ctx context.Context, fn func() error) error {
	c, _ := v.calls.Get().(*call)
	if c == nil {
		c = &call{done: make(chan error, 1), timer: v.clk.NewTimer(v.timeout)}
	} else {
		c.state.Store(callRunning)
		c.timer.Reset(v.timeout)
	}
	c.fn = fn
	v.start(c)
	select {
	case err := <-c.done:
		c.timer.Stop()
		c.fn = nil
		v.calls.Put(c)
		return err
	case <-ctx.Done():
		// The call is watched on: what its caller has no patience for may be a volume that hangs.
		go func() {
			defer c.timer.Stop()
			select {
			case <-c.done:
			case <-c.timer.C():
				v.late(&c.state)
			}
		}()
		return ctx.Err()
	case <-c.timer.C():
		if !v.late(&c.state) {
			return <-c.done
		}
		v.stalls.Add(1)
		return fmt.Errorf("volume %s: %w: no answer for %v", v.name, ErrUnavailable, v.timeout)
	}
}

// late notes that a call is overdue, unless it has just come back.
func (v *volume) late(state *atomic.Int32) bool {
	if !state.CompareAndSwap(callRunning, callOverdue) {
		return false
	}
	n := v.overdue.Add(1)
	v.store.metrics.overdue.WithLabelValues(v.name).Set(float64(n))
	if n == maxOverdue {
		v.store.log.Error("volume does not answer: its accounts are refused until it does", "volume", v.name, "path", v.root, "waited", v.timeout)
	}
	return true
}

// answered notes that an overdue call has come back.
func (v *volume) answered() {
	n := v.overdue.Add(-1)
	v.store.metrics.overdue.WithLabelValues(v.name).Set(float64(n))
	if n == maxOverdue-1 {
		v.store.log.Info("volume answers again", "volume", v.name, "path", v.root)
	}
}

// do is acquire and run.
func (v *volume) do(ctx context.Context, fn func() error) error {
	if err := v.acquire(ctx); err != nil {
		return err
	}
	return v.run(ctx, fn)
}

// tidyUp does what nobody waits for and what may as well stay undone: the collector finds it.
func (v *volume) tidyUp(fn func()) {
	ctx, cancel := context.WithTimeout(context.Background(), min(v.timeout, 10*time.Second))
	defer cancel()
	_ = v.do(ctx, func() error { fn(); return nil })
}

// SetVolumeClosed refuses all that needs the volume, or allows it again. Volumes that are not there are passed over.
func (s *Store) SetVolumeClosed(name string, closed bool) {
	if v, err := s.volume(name); err == nil && v.closed.Swap(closed) != closed {
		s.log.Info("volume", "volume", name, "closed", closed)
	}
}
