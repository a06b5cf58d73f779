package clock

import (
	"sort"
	"sync"
	"time"
)

// Fake is a clock that stands still until it is told to move.
type Fake struct {
	mu     sync.Mutex
	cond   *sync.Cond
	now    time.Time
	boot   time.Duration
	timers map[*fakeTimer]bool
}

// NewFake returns a clock that shows start and has been up for an hour.
func NewFake(start time.Time) *Fake {
	f := &Fake{now: start, boot: time.Hour, timers: map[*fakeTimer]bool{}}
	f.cond = sync.NewCond(&f.mu)
	return f
}

func (f *Fake) Now() time.Time {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.now
}

func (f *Fake) Boot() time.Duration {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.boot
}

// Jump sets the wall clock without any time passing, as an operator or NTP does.
func (f *Fake) Jump(to time.Time) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.now = to
}

// Advance lets d pass and fires the timers that fall due, in order.
func (f *Fake) Advance(d time.Duration) {
	f.mu.Lock()
	f.now = f.now.Add(d)
	f.boot += d
	var due []*fakeTimer
	for t := range f.timers {
		if t.at <= f.boot {
			due = append(due, t)
			delete(f.timers, t)
		}
	}
	now := f.now
	f.mu.Unlock()
	sort.Slice(due, func(i, j int) bool { return due[i].at < due[j].at })
	for _, t := range due {
		t.fire(now)
	}
}

// WaitTimers blocks until at least n timers are pending: the way for a test to know that somebody
// waits, without sleeping.
func (f *Fake) WaitTimers(n int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for len(f.timers) < n {
		f.cond.Wait()
	}
}

func (f *Fake) NewTimer(d time.Duration) Timer {
	t := &fakeTimer{f: f, c: make(chan time.Time, 1)}
	t.Reset(d)
	return t
}

func (f *Fake) AfterFunc(d time.Duration, fn func()) Timer {
	t := &fakeTimer{f: f, fn: fn}
	t.Reset(d)
	return t
}

type fakeTimer struct {
	f  *Fake
	at time.Duration
	c  chan time.Time
	fn func()
}

func (t *fakeTimer) fire(now time.Time) {
	if t.fn != nil {
		go t.fn()
		return
	}
	select {
	case t.c <- now:
	default:
	}
}

func (t *fakeTimer) C() <-chan time.Time { return t.c }

func (t *fakeTimer) Reset(d time.Duration) bool {
	t.f.mu.Lock()
	was := t.f.timers[t]
	t.drain()
	if d <= 0 {
		delete(t.f.timers, t)
		now := t.f.now
		t.f.mu.Unlock()
		t.fire(now)
		return was
	}
	t.at = t.f.boot + d
	t.f.timers[t] = true
	t.f.cond.Broadcast()
	t.f.mu.Unlock()
	return was
}

func (t *fakeTimer) Stop() bool {
	t.f.mu.Lock()
	defer t.f.mu.Unlock()
	was := t.f.timers[t]
	delete(t.f.timers, t)
	t.drain()
	return was
}

func (t *fakeTimer) drain() {
	if t.c == nil {
		return
	}
	select {
	case <-t.c:
	default:
	}
}
