package filter

import (
	"errors"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/emersion/go-smtp"

	"shoal/daemons/internal/mailstore"
	"shoal/daemons/internal/sieve"
)

// second is another server's filter on the volume of r.
func (r *rig) second() *rig {
	r.t.Helper()
	o := *r
	var err error
	o.store, err = mailstore.New(mailstore.Options{Server: "box2", FS: r.mem, Clock: r.clk, Log: slog.New(slog.DiscardHandler)})
	must(r.t, err)
	r.t.Cleanup(func() { o.store.Close() })
	must(r.t, o.store.AddVolume("vol01", "/", volumeID))
	o.handle, err = o.store.Account(r.t.Context(), "vol01", "account-1")
	must(r.t, err)
	opt := r.f.o
	opt.Store, opt.Metrics = o.store, nil
	o.f, err = New(opt)
	must(r.t, err)
	return &o
}

// together delivers the message n times through both servers at the same time, and gives the errors.
func (r *rig) together(other *rig, n int, text string) []error {
	errs := make([]error, 2*n)
	var wg sync.WaitGroup
	for i := range errs {
		wg.Go(func() {
			_, _, errs[i] = []*rig{r, other}[i%2].deliver(text)
		})
	}
	done := make(chan struct{})
	go func() { wg.Wait(); close(done) }()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for { // the stores wait a moment after a collision, by the fake clock
		select {
		case <-done:
			return errs
		case <-tick.C:
			r.clk.Advance(10 * time.Millisecond)
		}
	}
}

// Of the same message through two servers at the same time one is delivered; the others are duplicates, or are tried again and are it then.
func TestDuplicatesAtTheSameTime(t *testing.T) {
	r := newRig(t, nil)
	r.script(`require "duplicate"; if duplicate { discard; }`)
	other := r.second()
	for round := range 5 {
		text := strings.Replace(sample, "<1@far.test>", "<"+strings.Repeat("x", round+1)+"@far.test>", 1)
		delivered := 0
		for _, err := range r.together(other, 4, text) {
			if err == nil {
				delivered++
			} else if !errors.Is(err, errUndecided) {
				t.Error(err)
			}
		}
		if delivered == 0 {
			t.Error("nothing was delivered")
		}
		for _, box := range []*rig{r, other} {
			if _, _, err := box.deliver(text); err != nil {
				t.Error(err)
			}
		}
		if n := strings.Count(r.boxes(), "INBOX"); n != round+1 {
			t.Fatalf("%d messages after %d were sent several times", n, round+1)
		}
	}
}

// A delivery that fails leaves no mark and no claim; one whose server died is waited for no longer than its lease.
func TestDuplicateOfAFailedDelivery(t *testing.T) {
	r := newRig(t, nil)
	r.script(`require "duplicate"; if duplicate { discard; } else { redirect "carl@y.test"; }`)
	other := r.second()
	r.relay.refuse = &smtp.SMTPError{Code: 451, Message: "later"}
	if _, _, err := r.deliver(sample); err == nil {
		t.Error("a refused redirect is a delivery")
	}
	r.relay.refuse = nil
	if _, _, err := other.deliver(sample); err != nil {
		t.Error(err)
	}
	if n := len(r.relay.take()); n != 1 {
		t.Errorf("%d messages sent", n)
	}

	r.script(`require "duplicate"; if duplicate :uniqueid "x" { discard; }`)
	r.clk.Advance(time.Second) // for the other server to look for the active script again
	dead := &execution{f: r.f, d: &Delivery{Handle: r.handle}}
	script, err := sieve.Compile([]byte(`require "duplicate"; if duplicate :uniqueid "x" {}`), sieve.Options{})
	must(t, err)
	env := &sieve.Env{Message: strings.NewReader(sample), Size: int64(len(sample)), Now: r.clk.Now(), Host: dead}
	_, err = sieve.Run(t.Context(), env, script)
	must(t, err)
	if _, _, err := other.deliver(sample); !errors.Is(err, errUndecided) {
		t.Errorf("beside a claim: %v", err)
	}
	r.clk.Advance(lease + time.Second)
	if _, _, err := other.deliver(sample); err != nil {
		t.Error(err)
	}
	if got := r.boxes(); got != "INBOX: Grüße" {
		t.Error(got)
	}
}

// The interval of :last begins anew with each message.
func TestDuplicateLast(t *testing.T) {
	r := newRig(t, nil)
	r.script(`require "duplicate"; if duplicate :seconds 3600 :last { discard; }`)
	for range 3 {
		_, _, err := r.deliver(sample)
		must(t, err)
		r.clk.Advance(50 * time.Minute)
	}
	if got := r.boxes(); got != "INBOX: Grüße" {
		t.Error(got)
	}
	r.clk.Advance(11 * time.Minute)
	_, _, err := r.deliver(sample)
	must(t, err)
	if got := r.boxes(); got != "INBOX: Grüße; INBOX: Grüße" {
		t.Error(got)
	}
}

// Whichever of two servers the mail of one sender comes through at the same time, it is answered once.
func TestVacationAtTheSameTime(t *testing.T) {
	r := newRig(t, nil)
	r.script(`require "vacation"; vacation :days 1 "away";`)
	other := r.second()
	for range 3 {
		for _, err := range r.together(other, 4, sample) {
			must(t, err)
		}
		if n := len(r.relay.take()); n != 1 {
			t.Fatalf("%d answers", n)
		}
		r.clk.Advance(25 * time.Hour)
	}
}

// An answer that no switch took is sent with the next message.
func TestVacationThatFails(t *testing.T) {
	r := newRig(t, nil)
	r.script(`require "vacation"; vacation :days 1 "away";`)
	r.relay.refuse = &smtp.SMTPError{Code: 451, Message: "later"}
	_, _, err := r.deliver(sample)
	must(t, err)
	r.relay.refuse = nil
	for range 2 {
		_, _, err = r.second().deliver(sample)
		must(t, err)
	}
	if n := len(r.relay.take()); n != 1 {
		t.Errorf("%d answers", n)
	}
}
