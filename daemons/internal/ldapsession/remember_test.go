package ldapsession

import (
	"context"
	"fmt"
	"testing"
	"time"

	"shoal/daemons/internal/clock"
)

func (p *Passwords) is(t *testing.T, stored, password string) bool {
	t.Helper()
	ok, err := p.Verify(context.Background(), [][]byte{[]byte(stored)}, []byte(password))
	if err != nil {
		t.Fatal(err)
	}
	return ok
}

// A password that was right is known again for its time, and only as what was stored then; a wrong one never is.
func TestPasswordsKnownAgain(t *testing.T) {
	c := clock.NewFake(time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC))
	p := NewPasswords(cheap, 1, 10)
	p.Remember(time.Minute, 8, c)
	stored := HashPassword(cheap, []byte("secret"))
	for n, want := range []uint64{0, 1, 2} {
		if !p.is(t, stored, "secret") || p.Known() != want {
			t.Fatalf("time %d: known %d, want %d", n, p.Known(), want)
		}
		if p.is(t, stored, "wrong") || p.is(t, stored, "") || p.Known() != want {
			t.Fatalf("time %d: wrong ones: known %d", n, p.Known())
		}
	}
	again := HashPassword(cheap, []byte("secret")) // changed to the same one
	other := HashPassword(cheap, []byte("other"))
	if p.is(t, other, "secret") || !p.is(t, again, "secret") || p.Known() != 2 {
		t.Errorf("after a change: known %d", p.Known())
	}
	if i, err := p.Find(context.Background(), [][]byte{[]byte(other), []byte(stored)}, []byte("secret")); i != 1 || err != nil || p.Known() != 3 {
		t.Errorf("among others: %d, %v, known %d", i, err, p.Known())
	}
	c.Advance(61 * time.Second)
	if !p.is(t, stored, "secret") || p.Known() != 3 {
		t.Errorf("after its time: known %d", p.Known())
	}
	for n := range 100 {
		if !p.is(t, HashPassword(cheap, fmt.Appendf(nil, "p%d", n)), fmt.Sprintf("p%d", n)) {
			t.Fatal("not verified")
		}
	}
	if n := len(p.known.fresh) + len(p.known.old); n > 8 {
		t.Errorf("%d are kept", n)
	}
	p.Remember(0, 8, c)
	p.is(t, stored, "secret")
	if p.is(t, stored, "secret"); p.Known() != 3 {
		t.Errorf("switched off: known %d", p.Known())
	}
}
