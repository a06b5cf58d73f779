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
	if err := a.Add(t.Context(), e); !errors.Is(err, ErrReferral) {
		t.Errorf("at a shadow: %v", err)
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
