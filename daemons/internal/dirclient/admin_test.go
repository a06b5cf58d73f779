package dirclient

import (
	"errors"
	"strings"
	"testing"

	"shoal/daemons/internal/pki"
)

func (w *world) admin(t *testing.T, uris ...string) (*Admin, error) {
	t.Helper()
	a, err := Connect(t.Context(), AdminOptions{
		URIs: uris, TLS: w.box.ClientTLS(pki.RoleVault), DN: serviceDN, Password: "service secret",
	})
	if err == nil {
		t.Cleanup(func() { must(t, a.Close()) })
	}
	return a, err
}

func TestConnect(t *testing.T) {
	w := newWorld(t)
	dead, good := w.start(t, "127.0.0.1:0"), w.start(t, "127.0.0.1:0")
	dead.stop()
	a, err := w.admin(t, dead.uri(), good.uri())
	must(t, err)
	if a.URI() != good.uri() {
		t.Errorf("connected to %s", a.URI())
	}
	if _, err := w.admin(t, dead.uri()); !errors.Is(err, ErrUnavailable) || !strings.Contains(err.Error(), dead.uri()) {
		t.Errorf("nobody there: %v", err)
	}
	_, err = Connect(t.Context(), AdminOptions{
		URIs: []string{good.uri()}, TLS: w.box.ClientTLS(pki.RoleVault), DN: serviceDN, Password: "wrong",
	})
	if !errors.Is(err, ErrInvalidCredentials) {
		t.Errorf("wrong password: %v", err)
	}
}

func TestAdminErrors(t *testing.T) {
	w := newWorld(t)
	f := w.start(t, "127.0.0.1:0")
	e, err := NewServer{Name: "box2", Role: "box"}.Entry("o=shoal")
	must(t, err)
	a, err := w.admin(t, f.uri())
	must(t, err)
	f.always(referral)
	if err := a.Add(t.Context(), e); !errors.Is(err, ErrUnavailable) || !strings.Contains(err.Error(), f.master) {
		t.Errorf("at a shadow whose master is away: %v", err)
	}
	// The connection breaks after the write was sent: it is sent once, and nobody claims to know.
	f.always(cut)
	before := len(f.log("add"))
	if err := a.Add(t.Context(), e); !errors.Is(err, ErrOutcomeUnknown) {
		t.Errorf("cut: %v", err)
	}
	if n := len(f.log("add")) - before; n != 1 {
		t.Errorf("the add was sent %d times", n)
	}
	if err := a.Add(t.Context(), e); !errors.Is(err, ErrUnavailable) {
		t.Errorf("after the cut: %v", err)
	}
}

// A connection that was closed between two requests is made anew, at the next server if need be.
func TestAdminConnectsAgain(t *testing.T) {
	w := newWorld(t)
	first, second := w.start(t, "127.0.0.1:0"), w.start(t, "127.0.0.1:0")
	e, err := NewServer{Name: "box2", Role: "box"}.Entry("o=shoal")
	must(t, err)
	a, err := w.admin(t, first.uri(), second.uri())
	must(t, err)
	first.stop()
	eventually(t, func() error {
		if !a.c.dead() {
			return errors.New("the end of the connection is not seen")
		}
		return nil
	})
	must(t, a.Add(t.Context(), e))
	if a.URI() != second.uri() || len(second.log("add")) != 1 || len(first.log("add")) != 0 {
		t.Errorf("added at %s: the first got %q, the second %q", a.URI(), first.log("add"), second.log("add"))
	}
}

func TestAdminFollowsReferrals(t *testing.T) {
	w := newWorld(t)
	master, shadow := w.start(t, "127.0.0.1:0"), w.start(t, "127.0.0.1:0")
	onAdd := func(op, _ string) act {
		if op == "add" {
			return referral
		}
		return answer
	}
	shadow.script, shadow.master = onAdd, master.uri()+"/cn=box2,o=shoal??base"
	e, err := NewServer{Name: "box2", Role: "box"}.Entry("o=shoal")
	must(t, err)
	a, err := w.admin(t, shadow.uri())
	must(t, err)
	must(t, a.Add(t.Context(), e))
	if got := master.log("add"); len(got) != 1 || !strings.Contains(got[0], serviceDN) {
		t.Errorf("the master got %q", got)
	}
	must(t, a.Add(t.Context(), e))
	if a.URI() != master.uri() || len(shadow.log("add")) != 1 {
		t.Errorf("it went back to %s; the shadow got %q", a.URI(), shadow.log("add"))
	}

	a, err = w.admin(t, shadow.uri())
	must(t, err)
	master.mu.Lock()
	master.script, master.master = onAdd, shadow.uri()
	master.mu.Unlock()
	if err := a.Add(t.Context(), e); !errors.Is(err, ErrReferral) {
		t.Errorf("two that refer to each other: %v", err)
	}

	// A server that the certificate does not vouch for gets no password.
	other := newWorld(t).start(t, "127.0.0.1:0")
	a, err = w.admin(t, shadow.uri())
	must(t, err)
	shadow.mu.Lock()
	shadow.master = other.uri()
	shadow.mu.Unlock()
	if err := a.Add(t.Context(), e); !errors.Is(err, ErrUnavailable) || len(other.log("bind")) != 0 {
		t.Errorf("a foreign master: %v, and it got %q", err, other.log("bind"))
	}
}
