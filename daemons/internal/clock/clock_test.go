package clock

import (
	"context"
	"errors"
	"testing"
	"time"
)

func TestSystem(t *testing.T) {
	c := System()
	a := c.Boot()
	<-c.NewTimer(time.Millisecond).C()
	if b := c.Boot(); b-a < time.Millisecond || b-a > time.Minute {
		t.Errorf("from %v to %v", a, b)
	}
	done := make(chan struct{})
	c.AfterFunc(0, func() { close(done) })
	<-done
	if d := time.Since(c.Now()); d < 0 || d > time.Minute {
		t.Error(d)
	}
}

func TestFake(t *testing.T) {
	start := time.Date(2026, 5, 4, 3, 2, 1, 0, time.UTC)
	f := NewFake(start)
	boot := f.Boot()
	late, early := f.NewTimer(2*time.Minute), f.NewTimer(time.Minute)
	called := make(chan struct{})
	f.AfterFunc(90*time.Second, func() { close(called) })
	f.Jump(start.Add(time.Hour)) // no time passes
	select {
	case <-early.C():
		t.Fatal("a jump of the wall clock fired a timer")
	default:
	}
	f.Advance(time.Minute)
	<-early.C()
	if f.Now() != start.Add(61*time.Minute) || f.Boot() != boot+time.Minute {
		t.Error(f.Now(), f.Boot())
	}
	select {
	case <-late.C():
		t.Fatal("too early")
	default:
	}
	f.Advance(30 * time.Second)
	<-called
	if !late.Stop() || late.Stop() {
		t.Error("Stop tells wrongly whether the timer was pending")
	}
	f.Advance(time.Hour)
	select {
	case <-late.C():
		t.Fatal("fired after Stop")
	default:
	}
	early.Reset(0)
	<-early.C()
	early.Reset(time.Second)
	f.Advance(time.Second)
	early.Reset(time.Second) // the old tick is not received any more
	select {
	case <-early.C():
		t.Fatal("an old tick after Reset")
	default:
	}
}

func TestSleep(t *testing.T) {
	f := NewFake(time.Now())
	done := make(chan error)
	go func() { done <- Sleep(context.Background(), f, time.Minute) }()
	f.WaitTimers(1)
	f.Advance(time.Minute)
	if err := <-done; err != nil {
		t.Error(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	go func() { done <- Sleep(ctx, f, time.Minute) }()
	f.WaitTimers(1)
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if err := Sleep(ctx, f, 0); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}
