package vaultd

import (
	"slices"
	"testing"
	"time"

	"shoal/daemons/internal/clock"
	"shoal/daemons/internal/replica"
)

// The grants that a master needs and the votes that a promotion needs have a voter in common, also when one of the two
// sides does not know of the newest voter yet.
func TestMajoritiesMeet(t *testing.T) {
	for n := 2; n <= 12; n++ {
		if g, v := grantsNeeded(n), votesNeeded(n); g+v <= n {
			t.Errorf("%d voters: %d grants and %d votes need not meet", n, g, v)
		}
		if g, v := grantsNeeded(n+1), votesNeeded(n); g+v <= n+1 {
			t.Errorf("a master with %d voters and a promotion that knows %d: %d grants and %d votes need not meet", n+1, n, g, v)
		}
	}
	if grantsNeeded(0) != 0 || grantsNeeded(1) != 0 || grantsNeeded(2) != 1 || grantsNeeded(3) != 2 {
		t.Error("the table in lease.go is another one")
	}
}

// A lease is counted from the stamp that a request gives back, not from when it arrives; grants of strangers, of another
// process and without a stamp count for nothing.
func TestLease(t *testing.T) {
	c := clock.NewFake(time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC))
	l := newLeases(c)
	held := func() bool { ok, _, _ := l.held(); return ok }
	if held() {
		t.Error("a master writes before it has looked for a later one")
	}
	l.look()
	if !held() {
		t.Error("without a voter the master must write")
	}
	l.electorate([]string{"a"})
	if !held() {
		t.Error("with one voter the master must write")
	}
	l.electorate([]string{"a", "b", "c"})
	if held() {
		t.Error("held without a grant")
	}
	first := l.stamp()
	c.Advance(4 * time.Second)
	grant := func(who, stamp string) {
		l.granted(who, replica.LeaseRequest{Epoch: 1, For: 10 * time.Second, Stamp: stamp})
	}
	grant("a", first)
	grant("x", first)
	grant("b", "")
	grant("b", newLeases(c).stamp())
	if held() {
		t.Error("held with one grant of three voters")
	}
	grant("b", first)
	if ok, left, _ := l.held(); !ok || left != 6*time.Second {
		t.Errorf("held %v for %v, want 6s", ok, left)
	}
	grant("c", l.stamp())
	if ok, left, _ := l.held(); !ok || left != 6*time.Second {
		t.Errorf("held %v for %v: two of three are needed, and the second ends in 6s", ok, left)
	}
	c.Advance(6 * time.Second)
	if held() {
		t.Error("held after its end")
	}
	grant("a", l.stamp())
	if !held() {
		t.Error("not held after a renewal")
	}
	l.reset()
	if held() {
		t.Error("grants of another reign count")
	}
}

func TestReignFile(t *testing.T) {
	dir := t.TempDir()
	if _, ok, err := loadReign(dir); ok || err != nil {
		t.Fatal(ok, err)
	}
	want := reign{Epoch: 4097, Master: "vault2", Mode: replica.ModeShadow}
	if err := want.save(dir); err != nil {
		t.Fatal(err)
	}
	if got, ok, err := loadReign(dir); !ok || err != nil || got != want {
		t.Errorf("got %v %v %v", got, ok, err)
	}
	if want.sid() != 1 {
		t.Errorf("server id %d", want.sid())
	}
}

func TestBeyond(t *testing.T) {
	a, b, c := "20261123112421.918344Z#000000#000#000000", "20261123112422.918344Z#000000#000#000000", "20261123112423.918344Z#000000#001#000000"
	if got := beyond([]string{b, c}, []string{a, c}); !slices.Equal(got, []string{b}) {
		t.Errorf("got %v", got)
	}
	if got := beyond([]string{a}, []string{b, c}); len(got) > 0 {
		t.Errorf("got %v", got)
	}
	if got := beyond([]string{a, c}, []string{b}); !slices.Equal(got, []string{c}) {
		t.Errorf("got %v", got)
	}
}
