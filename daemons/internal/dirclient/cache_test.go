package dirclient

import (
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"
)

func TestCacheLife(t *testing.T) {
	w := newWorld(t)
	alice := sampleAccount(t, NewAccount{Address: "alice@example.test"})
	f := w.start(t, "127.0.0.1:0", alice)
	c, clk := w.client(t, nil, f)
	searches := func() int { return len(f.log("search")) }
	ask := func(address string, want error) {
		t.Helper()
		if _, err := c.Account(t.Context(), address); !errors.Is(err, want) {
			t.Errorf("%s: %v, wanted %v", address, err, want)
		}
	}
	ask("alice@example.test", nil)
	ask("bob@example.test", ErrNoSuchAccount)
	if n := searches(); n != 2 {
		t.Fatalf("%d searches", n)
	}
	clk.Advance(4 * time.Second)
	ask("ALICE@example.test", nil)
	ask("bob@example.test", ErrNoSuchAccount)
	if n := searches(); n != 2 {
		t.Errorf("%d searches: answers were not cached", n)
	}
	clk.Advance(2 * time.Second) // "no such" lives 5 s
	f.set(alice, sampleAccount(t, NewAccount{Address: "bob@example.test"}))
	ask("bob@example.test", nil)
	ask("alice@example.test", nil)
	if n := searches(); n != 3 {
		t.Errorf("%d searches", n)
	}
	clk.Advance(25 * time.Second) // alice's answer is 31 s old
	ask("alice@example.test", nil)
	if n := searches(); n != 4 {
		t.Errorf("%d searches: an answer outlived its time", n)
	}
	c.Flush()
	ask("alice@example.test", nil)
	if n := searches(); n != 5 {
		t.Errorf("%d searches: Flush did not forget", n)
	}
}

func TestStaleAnswers(t *testing.T) {
	w := newWorld(t)
	f := w.start(t, "127.0.0.1:0", sampleAccount(t, NewAccount{Address: "alice@example.test"}), sampleDomain(t, "example.test"))
	c, clk := w.client(t, nil, f)
	ctx := t.Context()
	_, err := c.Account(ctx, "alice@example.test")
	must(t, err)
	_, err = c.Domain(ctx, "example.test")
	must(t, err)
	_, err = c.Account(ctx, "bob@example.test")
	if !errors.Is(err, ErrNoSuchAccount) {
		t.Fatal(err)
	}
	f.stop()
	clk.Advance(59 * time.Minute)
	if a, err := c.Account(ctx, "alice@example.test"); err != nil || a.Address != "alice@example.test" {
		t.Errorf("an hour without directory: %v", err)
	}
	_, err = c.Domain(ctx, "example.test")
	must(t, err)
	if _, err := c.Account(ctx, "bob@example.test"); !errors.Is(err, ErrUnavailable) || errors.Is(err, ErrNoSuchAccount) {
		t.Errorf("an old \"no such account\" was given: %v", err)
	}
	if n := metric(t, c, "cache_lookups_total", "account", "stale"); n != 1 {
		t.Errorf("%v stale answers counted", n)
	}
	clk.Advance(2 * time.Minute)
	if _, err := c.Account(ctx, "alice@example.test"); !errors.Is(err, ErrUnavailable) {
		t.Errorf("a stale answer beyond its bound: %v", err)
	}
}

// What a change has made doubtful is asked for again, and still given while nobody can be asked.
func TestEndedAnswerIsStillStale(t *testing.T) {
	w := newWorld(t)
	f := w.start(t, "127.0.0.1:0", sampleAccount(t, NewAccount{Address: "alice@example.test"}), sampleDomain(t, "example.test"))
	c, _ := w.client(t, nil, f)
	ctx := t.Context()
	a, err := c.Account(ctx, "alice@example.test")
	must(t, err)
	c.forget(map[string]bool{lower(a.DN): true})
	_, err = c.Account(ctx, "alice@example.test")
	must(t, err)
	if n := metric(t, c, "cache_lookups_total", "account", "miss"); n != 2 {
		t.Errorf("%v questions after a change, want 2", n)
	}
	c.forget(map[string]bool{lower(a.DN): true})
	c.Flush()
	f.stop()
	if _, err := c.Account(ctx, "alice@example.test"); err != nil {
		t.Errorf("after a change, and without directory: %v", err)
	}
}

func TestOneFlightPerKey(t *testing.T) {
	w := newWorld(t)
	f := w.start(t, "127.0.0.1:0", sampleAccount(t, NewAccount{Address: "alice@example.test"}))
	arrived, release := make(chan struct{}), make(chan struct{})
	var once sync.Once
	f.setScript(func(op, _ string) act {
		if op == "search" {
			once.Do(func() { close(arrived) })
			<-release
		}
		return answer
	})
	c, _ := w.client(t, nil, f)
	var all sync.WaitGroup
	ask := func() {
		if _, err := c.Account(t.Context(), "alice@example.test"); err != nil {
			t.Error(err)
		}
	}
	all.Go(ask)
	<-arrived
	for range 50 {
		all.Go(ask)
	}
	eventually(t, func() error {
		if n := metric(t, c, "cache_lookups_total", "account", "joined"); n != 50 {
			return fmt.Errorf("%v joined", n)
		}
		return nil
	})
	close(release)
	all.Wait()
	if n := len(f.log("search")); n != 1 {
		t.Errorf("%d searches", n)
	}
}

func TestCacheIsBounded(t *testing.T) {
	w := newWorld(t)
	f := w.start(t, "127.0.0.1:0")
	c, _ := w.client(t, func(o *Options) { o.CacheSize = 10 }, f)
	for i := range 200 {
		if _, err := c.Account(t.Context(), fmt.Sprintf("u%d@example.test", i)); !errors.Is(err, ErrNoSuchAccount) {
			t.Fatal(err)
		}
	}
	if n := c.cacheEntries(); n != 10 {
		t.Errorf("%v entries in a cache of 10", n)
	}
	before := len(f.log("search"))
	_, err := c.Account(t.Context(), "u199@example.test")
	if n := len(f.log("search")); n != before || !errors.Is(err, ErrNoSuchAccount) {
		t.Errorf("the newest answer was dropped")
	}
}
