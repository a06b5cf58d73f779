package mailstore

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"shoal/daemons/internal/vfs"
)

func onceTarget(m *Mailbox, o *Once) []Target {
	return []Target{{Account: m.Account(), Once: o}}
}

// A second attempt at a delivery finds the first wherever a client has put it since, and only that.
func TestDeliveredOnce(t *testing.T) {
	ctx := context.Background()
	mem := vfs.NewMem(time.Now)
	one := testStore(t, mem, "/", "box1")
	box := testInbox(t, one, "account-1")
	if _, err := box.Account().Create(ctx, "Archive", CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	archive, err := box.Account().Open(ctx, "Archive")
	if err != nil {
		t.Fatal(err)
	}
	hour := time.Now().Add(-time.Hour)
	deliver := func(s *Store, m *Mailbox, text string, o *Once) Result {
		t.Helper()
		msg := stage(t, s, text)
		defer msg.Close()
		r := s.Deliver(ctx, msg, onceTarget(m, o))[0]
		if r.Err != nil {
			t.Fatal(r.Err)
		}
		return r
	}
	live := deliver(one, box, "stays", &Once{Since: hour})
	gone := deliver(one, box, "is expunged", &Once{Since: hour})
	moved := deliver(one, box, "is moved", &Once{Since: hour})
	if _, err := box.Expunge(ctx, NewUIDSet(gone.UID), false); err != nil {
		t.Fatal(err)
	}
	if _, err := box.MoveTo(ctx, NewUIDSet(moved.UID), archive); err != nil {
		t.Fatal(err)
	}
	for i := range 3 * 128 { // the log is compacted behind them, as far as it may be
		appendOne(t, box, fmt.Sprintf("other %d", i), 0)
	}
	two := testStore(t, mem, "/", "box2")
	other := testInbox(t, two, "account-1")
	st, err := other.State(ctx)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		text string
		once *Once
		want uint32
	}{
		{"stays", &Once{Since: hour, Again: true}, live.UID},
		{"is expunged", &Once{Since: hour, Again: true}, gone.UID},
		{"is moved", &Once{Since: hour, Again: true}, moved.UID},
		{"in another form", &Once{Since: hour, Again: true, Also: []ContentID{{Size: 5, CRC: checksum([]byte("stays"))}}}, live.UID},
	} {
		msg := stage(t, two, c.text)
		r, found, err := two.Delivered(ctx, msg, &onceTarget(other, c.once)[0])
		if err != nil || !found || r.UID != c.want || !r.Duplicate || r.UIDValidity != st.UIDValidity() {
			t.Errorf("%s: %+v %v %v, want UID %d", c.text, r, found, err, c.want)
		}
		msg.Close()
		if r := deliver(two, other, c.text, c.once); !r.Duplicate || r.UID != c.want {
			t.Errorf("%s delivered again: %+v", c.text, r)
		}
	}
	now, err := other.State(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if now.Len() != st.Len() || now.UIDNext() != st.UIDNext() {
		t.Errorf("%d messages and UIDNEXT %d have become %d and %d", st.Len(), st.UIDNext(), now.Len(), now.UIDNext())
	}
	// Not marked, too old, without the wish, or only as long: delivered.
	for _, c := range []struct {
		text string
		once *Once
	}{
		{"stays", &Once{Since: hour}},
		{"stays", &Once{Since: time.Now().Add(time.Hour), Again: true}},
		{"stays", nil},
		{"stay5", &Once{Since: hour, Again: true}},
	} {
		if r := deliver(two, other, c.text, c.once); r.Duplicate {
			t.Errorf("%q with %+v was taken for delivered", c.text, c.once)
		}
		if _, err := other.Expunge(ctx, NewUIDSet(mustState(t, other).UIDNext()-1), false); err != nil {
			t.Fatal(err)
		}
	}
	verify(t, mem, "/")
}

func mustState(t testing.TB, m *Mailbox) *State {
	t.Helper()
	st, err := m.State(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	return st
}

// The first attempt is held up before its commit, the second overtakes it on another server: whoever comes second in
// the log finds the other.
func TestFirstAttemptIsLate(t *testing.T) {
	ctx := context.Background()
	for _, op := range []vfs.Op{vfs.OpCreate, vfs.OpSymlink} {
		mem := vfs.NewMem(time.Now)
		slow := vfs.NewFault(mem)
		one, two := testStore(t, slow, "/", "box1"), testStore(t, mem, "/", "box2")
		first, second := testInbox(t, one, "account-1"), testInbox(t, two, "account-1")
		appendOne(t, first, "before", 0)
		stopped, goOn := make(chan struct{}), make(chan struct{})
		held := false
		slow.Hook(func(c vfs.Call) (a vfs.Action) {
			if c.Op == op && !held {
				held = true
				close(stopped)
				a.Wait = goOn
			}
			return a
		})
		done := make(chan Result)
		go func() {
			msg, err := one.Stage(ctx, "vol01", strings.NewReader("the message"), 0)
			if err != nil {
				done <- Result{Err: err}
				return
			}
			defer msg.Close()
			done <- one.Deliver(ctx, msg, onceTarget(first, &Once{Since: time.Now().Add(-time.Minute)}))[0]
		}()
		<-stopped
		msg := stage(t, two, "the message")
		again := two.Deliver(ctx, msg, onceTarget(second, &Once{Since: time.Now().Add(-time.Hour), Again: true}))[0]
		msg.Close()
		if again.Err != nil || again.Duplicate {
			t.Fatalf("held at %v: the second attempt: %+v", op, again)
		}
		close(goOn)
		late := <-done
		if late.Err != nil || !late.Duplicate || late.UID != again.UID {
			t.Errorf("held at %v: the late first attempt: %+v, the second was UID %d", op, late, again.UID)
		}
		if st := mustState(t, second); st.Len() != 2 {
			t.Errorf("held at %v: %d messages", op, st.Len())
		}
		if r := verify(t, mem, "/"); r.Unreferenced != 0 {
			t.Errorf("held at %v: %d files are left over", op, r.Unreferenced)
		}
	}
}
