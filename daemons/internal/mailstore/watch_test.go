package mailstore

import (
	"context"
	"errors"
	"runtime"
	"sync"
	"testing"
	"time"

	"shoal/daemons/internal/clock"
	"shoal/daemons/internal/vfs"
)

// post carries hints between the stores of a test.
type post struct {
	mu     sync.Mutex
	stores map[string]*Store
	sent   int
	lose   bool
}

func (p *post) notify(addr string, ref Ref) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.sent++
	if s := p.stores[addr]; s != nil && !p.lose {
		s.Hint(ref)
	}
}

func (p *post) count() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.sent
}

// signal waits for a watcher, with a limit only so that a failing test ends.
func signal(t *testing.T, w *Watcher, what string) {
	t.Helper()
	select {
	case <-w.C:
	case <-time.After(20 * time.Second):
		t.Fatal("no signal: ", what)
	}
}

// eventually waits for something that is done in the background.
func eventually(t *testing.T, what string, done func() bool) {
	t.Helper()
	for limit := time.Now().Add(20 * time.Second); !done(); runtime.Gosched() {
		if time.Now().After(limit) {
			t.Fatal("does not happen: ", what)
		}
	}
}

func TestWatch(t *testing.T) {
	ctx := context.Background()
	mem := vfs.NewMem(time.Now)
	mem.SetNetwork(true)
	fake := clock.NewFake(time.Now())
	p := &post{stores: map[string]*Store{}}
	open := func(name string, c clock.Clock) *Mailbox {
		s := testStore(t, mem, "/", name, func(o *Options) { o.HintAddress, o.Notify, o.Clock = name+":1", p.notify, c })
		p.stores[name+":1"] = s
		return testInbox(t, s, "account-1")
	}
	a, b := open("box1", clock.System()), open("box2", fake)

	appendOne(t, a, "nobody watches", 0)
	if n := p.count(); n != 0 {
		t.Fatalf("%d hints sent, but nobody watches", n)
	}
	w, err := b.Watch(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if st, err := b.State(ctx); err != nil || st.Len() != 1 {
		t.Fatal(st.Len(), err)
	}
	<-w.C
	appendOne(t, a, "box2 watches", 0)
	signal(t, w, "after a hint")
	if st := b.Cached(); st.Len() != 2 {
		t.Fatalf("%d messages in the state that the signal is about", st.Len())
	}
	if n := p.count(); n != 1 {
		t.Fatalf("%d hints sent, want 1", n)
	}
	appendOne(t, b, "its own", 0)
	signal(t, w, "a commit of this server")
	if n := p.count(); n != 1 {
		t.Fatalf("%d hints sent, want 1: a server need not tell itself", n)
	}

	// A hint that gets lost is made up for by the slow check.
	p.mu.Lock()
	p.lose = true
	p.mu.Unlock()
	appendOne(t, a, "lost hint", 0)
	eventually(t, "the slow check", func() bool {
		fake.Advance(6 * time.Minute)
		select {
		case <-w.C:
			return true
		default:
			return false
		}
	})

	// An entry is renewed under a new name before it is old.
	entry := func() string {
		names, err := mem.ReadDir(b.j.dir+"/w", nil)
		if err != nil || len(names) != 1 {
			t.Fatal(names, err)
		}
		return names[0]
	}
	was := entry()
	eventually(t, "the interest is renewed", func() bool {
		fake.Advance(13 * time.Hour)
		names, err := mem.ReadDir(b.j.dir+"/w", nil)
		return err == nil && len(names) == 1 && names[0] != was
	})

	// Two watchers have one entry; the last one takes it away.
	w2, err := b.Watch(ctx)
	if err != nil {
		t.Fatal(err)
	}
	w.Close()
	entry()
	w2.Close()
	if err := b.j.store.Close(); err != nil {
		t.Fatal(err)
	}
	if names, _ := mem.ReadDir(b.j.dir+"/w", nil); len(names) != 0 {
		t.Errorf("entries left: %v", names)
	}

	// A server that starts again removes what its former run left.
	if err := mem.Symlink("box1:1", a.j.dir+"/w/box1.1.5"); err != nil {
		t.Fatal(err)
	}
	if err := mem.Symlink("box3:1", a.j.dir+"/w/box3.1.5"); err != nil {
		t.Fatal(err)
	}
	if w, err = a.Watch(ctx); err != nil {
		t.Fatal(err)
	}
	names, _ := mem.ReadDir(a.j.dir+"/w", nil)
	if len(names) != 2 {
		t.Errorf("want box3's entry and a new one: %v", names)
	}
	w.Close()
}

// TestDeletedWhileWatched: a watcher elsewhere learns that its mailbox is gone.
func TestDeletedWhileWatched(t *testing.T) {
	ctx := context.Background()
	mem := vfs.NewMem(time.Now)
	p := &post{stores: map[string]*Store{}}
	var boxes []*Mailbox
	for _, name := range []string{"box1", "box2"} {
		s := testStore(t, mem, "/", name, func(o *Options) { o.HintAddress, o.Notify = name+":1", p.notify })
		p.stores[name+":1"] = s
		inbox := testInbox(t, s, "account-1")
		if name == "box1" {
			if _, err := inbox.Account().Create(ctx, "Work", CreateOptions{}); err != nil {
				t.Fatal(err)
			}
		}
		m, err := inbox.Account().Open(ctx, "Work")
		if err != nil {
			t.Fatal(err)
		}
		boxes = append(boxes, m)
	}
	w, err := boxes[1].Watch(ctx)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	if _, err := boxes[1].State(ctx); err != nil {
		t.Fatal(err)
	}
	<-w.C
	if err := boxes[0].Account().Delete(ctx, "Work"); err != nil {
		t.Fatal(err)
	}
	signal(t, w, "mailbox deleted")
	if _, err := boxes[1].State(ctx); !errors.Is(err, ErrMailboxClosed) {
		t.Fatal(err)
	}
	m := stage(t, boxes[1].j.store, "too late")
	defer m.Close()
	if _, err := boxes[1].Append(ctx, []AppendMessage{{Message: m}}); !errors.Is(err, ErrMailboxClosed) {
		t.Fatal(err)
	}
	if _, err := boxes[1].Account().Open(ctx, "Work"); !errors.Is(err, ErrNoMailbox) {
		t.Fatal(err)
	}
}
