package hint

import (
	"log/slog"
	"strings"
	"testing"
	"time"

	"shoal/daemons/internal/clock"
	"shoal/daemons/internal/mailstore"
	"shoal/daemons/internal/pki"
	"shoal/daemons/internal/vfs"
	"shoal/tests/ports"
)

// end is one box as far as hints are concerned: a store, a sender and a server.
type end struct {
	store  *mailstore.Store
	sender *Sender
	server *Server
}

func newEnd(t *testing.T, id *pki.Credentials, dir *directory, volume string) *end {
	t.Helper()
	addr := ports.One(t)
	e := &end{sender: sender(t, id, dir, nil, nil)}
	var err error
	e.store, err = mailstore.New(mailstore.Options{
		Server: id.Name(), FS: vfs.OS(), Clock: clock.System(), Log: slog.New(slog.DiscardHandler),
		HintAddress: addr, Notify: e.sender.Notify, ReCheck: time.Hour,
	})
	must(t, err)
	t.Cleanup(func() { must(t, e.store.Close()) })
	must(t, e.store.AddVolume("vol01", volume, "0d6f3c6e-6d2c-4c0c-9b0e-2f4f6b1f9a51"))
	e.server, _ = serve(t, id, addr, e.store, nil)
	dir.boxes[id.Name()] = addr
	return e
}

func (e *end) inbox(t *testing.T) *mailstore.Mailbox {
	t.Helper()
	a, err := e.store.Account(t.Context(), "vol01", "account1")
	must(t, err)
	m, err := a.Open(t.Context(), "INBOX")
	must(t, err)
	return m
}

func deliverOne(t *testing.T, e *end) {
	t.Helper()
	a, err := e.store.Account(t.Context(), "vol01", "account1")
	must(t, err)
	st, err := e.store.Stage(t.Context(), "vol01", strings.NewReader("Subject: x\r\n\r\nx\r\n"), 0)
	must(t, err)
	for _, r := range e.store.Deliver(t.Context(), st, []mailstore.Target{{Account: a}}) {
		must(t, r.Err)
	}
	must(t, st.Close())
}

// Two stores on one volume: what one commits wakes who watches at the other, by a hint and nothing else (the slow
// re-check is an hour away). With nobody there no hint is sent.
func TestTwoStores(t *testing.T) {
	c := newCreds(t)
	volume := t.TempDir()
	must(t, mailstore.InitVolume(vfs.OS(), volume, "0d6f3c6e-6d2c-4c0c-9b0e-2f4f6b1f9a51"))
	dir := &directory{boxes: map[string]string{}}
	one := newEnd(t, c.of("box", "box1"), dir, volume)
	two := newEnd(t, c.of("box", "box2"), dir, volume)

	for range 20 {
		deliverOne(t, one)
	}
	m := one.inbox(t)
	_, err := m.ChangeFlags(t.Context(), mailstore.FlagChange{UIDs: mailstore.NewUIDSet(1), Op: mailstore.FlagsAdd, Flags: mailstore.FlagSeen})
	must(t, err)
	for _, e := range []*end{one, two} {
		if n := metric(t, e.sender.o.Metrics, "sent_total"); n != 0 {
			t.Errorf("%v hints were sent although nobody watched", n)
		}
	}

	far := two.inbox(t)
	w, err := far.Watch(t.Context())
	must(t, err)
	st, err := far.State(t.Context())
	must(t, err)
	for step, change := range []func(){
		func() { deliverOne(t, one) },
		func() {
			_, err := m.ChangeFlags(t.Context(), mailstore.FlagChange{UIDs: mailstore.NewUIDSet(2), Op: mailstore.FlagsAdd, Flags: mailstore.FlagDeleted})
			must(t, err)
		},
		func() {
			_, err := m.Expunge(t.Context(), mailstore.NewUIDSet(2), true)
			must(t, err)
		},
	} {
		before := st.ModSeq()
		start := time.Now()
		change()
		for st.ModSeq() == before {
			select {
			case <-w.C:
			case <-time.After(20 * time.Second):
				t.Fatalf("step %d: the other box was not woken", step)
			}
			st = far.Cached()
		}
		t.Logf("step %d: known at the other box after %v", step, time.Since(start))
	}
	if st.Len() != 20 {
		t.Errorf("%d messages", st.Len())
	}
	sent := metric(t, one.sender.o.Metrics, "sent_total")
	if sent == 0 || metric(t, two.sender.o.Metrics, "sent_total") != 0 {
		t.Errorf("%v and %v hints sent", sent, metric(t, two.sender.o.Metrics, "sent_total"))
	}
	// The watcher goes, and with it the hints.
	w.Close()
	must(t, two.store.Close())
	sent = metric(t, one.sender.o.Metrics, "sent_total")
	deliverOne(t, one)
	if n := metric(t, one.sender.o.Metrics, "sent_total"); n != sent {
		t.Errorf("%v hints were sent to nobody", n-sent)
	}
}
