// Package clock is the program's view of time, so that tests decide what time it is.
//
// Two notions are kept apart. Now is the wall clock: it may jump, and is good only for dates that
// people read. Boot counts since the machine started, never jumps, and goes on while the machine is
// suspended (CLOCK_BOOTTIME): it is what every bounded wait and every "less than R/2 ago" rests on.
//
// Left out on purpose: time zones and formatting, which are the caller's.
package clock

import (
	"context"
	"time"

	"golang.org/x/sys/unix"
)

// Clock tells the time and makes timers. Its methods may be called from any goroutine.
type Clock interface {
	// Now is the wall clock.
	Now() time.Time
	// Boot is the time since the machine started, time suspended included. It never runs backwards.
	Boot() time.Duration
	// NewTimer returns a timer that fires once after d.
	NewTimer(d time.Duration) Timer
	// AfterFunc calls f in a goroutine of its own after d; C of the returned timer is nil.
	AfterFunc(d time.Duration, f func()) Timer
}

// Timer is one pending alarm, with the meaning of time.Timer of Go 1.23 and later: after Stop or
// Reset no old tick is received.
type Timer interface {
	C() <-chan time.Time
	Reset(d time.Duration) bool
	Stop() bool
}

// System returns the machine's clock.
func System() Clock { return system{} }

type system struct{}

func (system) Now() time.Time { return time.Now() }

func (system) Boot() time.Duration {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts); err != nil {
		panic("clock: CLOCK_BOOTTIME: " + err.Error()) // every Linux since 2.6.39 has it
	}
	return time.Duration(ts.Nano())
}

func (system) NewTimer(d time.Duration) Timer { return systemTimer{time.NewTimer(d)} }

func (system) AfterFunc(d time.Duration, f func()) Timer { return systemTimer{time.AfterFunc(d, f)} }

type systemTimer struct{ t *time.Timer }

func (t systemTimer) C() <-chan time.Time        { return t.t.C }
func (t systemTimer) Reset(d time.Duration) bool { return t.t.Reset(d) }
func (t systemTimer) Stop() bool                 { return t.t.Stop() }

// Sleep waits for d, or until ctx is done and then returns its error.
func Sleep(ctx context.Context, c Clock, d time.Duration) error {
	if d <= 0 {
		return ctx.Err()
	}
	t := c.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C():
		return nil
	}
}
