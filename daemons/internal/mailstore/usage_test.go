package mailstore

import (
	"context"
	"testing"
	"time"

	"shoal/daemons/internal/clock"
	"shoal/daemons/internal/vfs"
)

func TestUsage(t *testing.T) {
	ctx := context.Background()
	clk := clock.NewFake(time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC))
	fs := vfs.NewMem(clk.Now)
	if err := fs.Mkdir("/vol"); err != nil {
		t.Fatal(err)
	}
	fake := func(o *Options) { o.Clock = clk }
	one, two := testStore(t, fs, "/vol", "box1", fake), testStore(t, fs, "/vol", "box2", fake)
	put := func(s *Store, text string) {
		t.Helper()
		m := stage(t, s, text)
		defer m.Close()
		if _, err := testInbox(t, s, "account-1").Append(ctx, []AppendMessage{{Message: m}}); err != nil {
			t.Fatal(err)
		}
	}
	usage := func(s *Store, maxAge time.Duration) Usage {
		t.Helper()
		a, err := s.Account(ctx, "vol01", "account-1")
		if err != nil {
			t.Fatal(err)
		}
		u, err := a.Usage(ctx, maxAge)
		if err != nil {
			t.Fatal(err)
		}
		return u
	}
	put(one, "12345")
	put(one, "123")
	if u := usage(one, time.Minute); u != (Usage{8, 2}) {
		t.Fatalf("usage %+v", u)
	}
	if u := usage(two, time.Minute); u != (Usage{8, 2}) {
		t.Fatalf("usage at the other server %+v", u)
	}
	put(two, "1")
	if u := usage(one, time.Minute); u != (Usage{8, 2}) {
		t.Fatalf("usage within the minute %+v: read although it need not be", u)
	}
	clk.Advance(2 * time.Minute)
	if u := usage(one, time.Minute); u != (Usage{9, 3}) {
		t.Fatalf("usage after the minute %+v", u)
	}
	a, err := one.Account(ctx, "vol01", "account-1")
	if err != nil {
		t.Fatal(err)
	}
	m, err := a.Open(ctx, Inbox)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := m.Expunge(ctx, nil, false); err != nil {
		t.Fatal(err)
	}
	if u := usage(one, time.Minute); u != (Usage{}) {
		t.Fatalf("usage after the expunge %+v", u)
	}
}
