package mailstore

import (
	"context"
	"strings"
	"testing"
	"time"

	"shoal/daemons/internal/clock"
	"shoal/daemons/internal/vfs"
)

// TestOvertakenByCompaction: a server that was stopped between its commit and its look at w/ finds its record swallowed by a
// snapshot. It knows that the record stands, and no more what it did: it must not say that it did nothing.
func TestOvertakenByCompaction(t *testing.T) {
	ctx := context.Background()
	tiny := func(o *Options) { o.Retention = 1 }
	type change func(m *Mailbox) (told UIDSet, err error)
	for what, do := range map[string]change{
		"expunge": func(m *Mailbox) (UIDSet, error) {
			r, err := m.Expunge(ctx, NewUIDSet(2, 3), false)
			return r.UIDs, err
		},
		"flags": func(m *Mailbox) (UIDSet, error) {
			r, err := m.ChangeFlags(ctx, FlagChange{UIDs: NewUIDSet(2, 3), Op: FlagsAdd, Flags: FlagSeen})
			return r.Changed, err
		},
		"flags of what has changed since": func(m *Mailbox) (UIDSet, error) {
			r, err := m.ChangeFlags(ctx, FlagChange{UIDs: NewUIDSet(2, 3), Op: FlagsAdd, Flags: FlagSeen, Conditional: true, UnchangedSince: 1})
			return r.Failed, err
		},
	} {
		mem := vfs.NewMem(time.Now)
		mem.SetNetwork(true)
		fault := vfs.NewFault(mem)
		var boxes []*Mailbox
		for i, fs := range []vfs.FS{fault, mem} {
			s := testStore(t, fs, "/", "box"+string(rune('1'+i)), tiny)
			s.knobs = knobs{segmentLen: 4, completeEvery: 4, deltaEvery: 2}
			boxes = append(boxes, testInbox(t, s, "account-1"))
		}
		stopped, other := boxes[0], boxes[1]
		for range 4 {
			appendOne(t, stopped, "x", 0)
		}
		reached, goOn := make(chan struct{}), make(chan struct{})
		committed := false
		fault.Hook(func(c vfs.Call) (a vfs.Action) {
			switch {
			case c.Op == vfs.OpSymlink && strings.Contains(c.Path+c.To, "/log/"):
				committed = true
			case committed && c.Op == vfs.OpReadDir && strings.HasSuffix(c.Path, "/w") && reached != nil:
				close(reached)
				reached, a.Wait = nil, goOn
			}
			return a
		})
		type answer struct {
			told UIDSet
			err  error
		}
		done := make(chan answer, 1)
		waiting := reached
		go func() {
			told, err := do(stopped)
			done <- answer{told, err}
		}()
		<-waiting
		for range 12 {
			appendOne(t, other, "y", 0)
		}
		if err := other.j.checkpoint(ctx, true); err != nil {
			t.Fatal(err)
		}
		for range 2 { // the first makes the snapshot that has stood long enough for the second
			if err := other.j.compact(ctx); err != nil {
				t.Fatal(err)
			}
		}
		close(goOn)
		got := <-done
		if n := count(t, stopped.j.store.metrics.fenced); n != 1 {
			t.Fatalf("%s: the fence caught %d commits: nothing was put to the test", what, n)
		}
		if got.err == nil && got.told.Len() != 2 {
			t.Errorf("%s: told %v of 2 and 3, and no error", what, got.told)
		}
	}
}

// A look at the next record that is held up for longer than the retention, while others commit and compact, is not taken for
// "nothing new".
func TestHeldUpLookIsNotUnchanged(t *testing.T) {
	ctx := context.Background()
	clk := clock.NewFake(time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC))
	mem := vfs.NewMem(clk.Now)
	mem.SetNetwork(true)
	fault := vfs.NewFault(mem)
	tiny := knobs{segmentLen: 4, completeEvery: 4, deltaEvery: 2}
	slow := testStore(t, fault, "/", "box1", func(o *Options) { o.Clock, o.Retention, o.CallTimeout = clk, time.Hour, 1000*time.Hour })
	fast := testStore(t, mem, "/", "box2", func(o *Options) { o.Retention = 1 })
	slow.knobs, fast.knobs = tiny, tiny
	here, there := testInbox(t, slow, "account-1"), testInbox(t, fast, "account-1")
	for range 4 {
		appendOne(t, here, "x", 0)
	}
	held := 0
	fault.Hook(func(c vfs.Call) vfs.Action {
		if c.Op != vfs.OpReadlink || !strings.Contains(c.Path, "/b/") || held > 0 {
			return vfs.Action{}
		}
		held++
		for range 12 {
			appendOne(t, there, "y", 0)
		}
		check(t, there.j.checkpoint(ctx, true))
		for range 2 { // the first makes the snapshot that has stood long enough for the second
			clk.Advance(2 * time.Hour)
			check(t, there.j.compact(ctx))
		}
		return vfs.Action{}
	})
	st, err := here.State(ctx)
	check(t, err)
	if held == 0 {
		t.Fatal("no look was held up: nothing was put to the test")
	}
	if st.Len() != 16 {
		t.Errorf("%d messages, 16 were acknowledged", st.Len())
	}
}
