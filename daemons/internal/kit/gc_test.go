package kit

import (
	"testing"
	"time"
)

func TestGCPercent(t *testing.T) {
	g := Garbage{Percent: 33, Quiet: 3 << 20, Busy: 24 << 20}
	for _, c := range []struct {
		live uint64
		busy bool
		want int
	}{
		{0, false, 300}, {1 << 20, false, 300}, {3 << 20, false, 100}, {8 << 20, false, 37}, {9 << 20, false, 33}, {1 << 40, false, 33},
		{0, true, 2400}, {8 << 20, true, 300}, {72 << 20, true, 33}, {1 << 40, true, 33},
	} {
		if got := g.percent(c.live, c.busy); got != c.want {
			t.Errorf("%d bytes, busy %v: %d %%, want %d", c.live, c.busy, got, c.want)
		}
	}
}

// Collections that follow each other at once make a daemon busy; those with a second between them do not.
func TestBusyDaemon(t *testing.T) {
	p := &pacer{garbage: Garbage{Percent: 33, Quiet: 3 << 20, Busy: 24 << 20}, set: 33}
	now := time.Now()
	for range 3 {
		now = now.Add(time.Second)
		p.collected(2<<20, now)
	}
	if p.busy {
		t.Error("a collection a second makes a daemon busy")
	}
	p.collected(2<<20, now.Add(busyEvery/2))
	if !p.busy || p.set != 1200 {
		t.Errorf("busy %v, %d %%", p.busy, p.set)
	}
	p.last = now.Add(-time.Hour)
	p.rest()
	if p.busy || p.set != 150 {
		t.Errorf("after a rest: busy %v, %d %%", p.busy, p.set)
	}
}
