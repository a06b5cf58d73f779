package mailstore

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"
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

// run executes fn, which does file operations, in a slot got by acquire. The caller waits no longer than the time limit and
// its context allow; fn then goes on by itself, so it must own what it touches.
func (v *volume) run(ctx context.Context, fn func() error) error {
	var state atomic.Int32
	done := make(chan error, 1)
	go func() {
		err := fn()
		if !state.CompareAndSwap(callRunning, callDone) {
			v.answered()
		}
		v.release()
		done <- err
	}()
	t := v.clk.NewTimer(v.timeout)
	select {
	case err := <-done:
		t.Stop()
		return err
	case <-ctx.Done():
		// The call is watched on: what its caller has no patience for may be a volume that hangs.
		go func() {
			defer t.Stop()
			select {
			case <-done:
			case <-t.C():
				v.late(&state)
			}
		}()
		return ctx.Err()
	case <-t.C():
		if !v.late(&state) {
			return <-done
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
