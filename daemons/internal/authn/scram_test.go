package authn

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"math/big"
	"strings"
	"testing"
	"time"

	"shoal/daemons/internal/dirclient"
	"shoal/daemons/internal/scram"
)

// withVerifiers gives alice verifiers, and the directory the key of the salts.
func withVerifiers() *fake {
	f := newFake()
	f.scramKey, f.incomplete = scram.FakeKey([]byte("0123456789abcdef"), 4096), map[string]bool{}
	f.verifiers = map[string]*dirclient.Verifiers{}
	f.setVerifier("alice", "wonderland", 1)
	return f
}

func (f *fake) setVerifier(local, password string, version int64) *dirclient.Verifiers {
	f.mu.Lock()
	defer f.mu.Unlock()
	v := &dirclient.Verifiers{Texts: [][]byte{[]byte(scram.New(scram.SHA256, password, 4096).String())}, Version: version}
	f.verifiers[dirclient.AccountDN("o=shoal", local, "example.test")] = v
	return v
}

// byScram is a login by SCRAM-SHA-256; meanwhile runs between its two steps.
func byScram(ctx context.Context, a *Authenticator, user, password, remote string, meanwhile func()) (*Grant, error) {
	from := From{Service: ServiceIMAP, Remote: remote, Mechanism: "SCRAM-SHA-256", TLS: true}
	client, err := scram.NewClient("SCRAM-SHA-256", user, password, "", nil, "")
	if err != nil {
		return nil, err
	}
	var v *ScramVerifier
	server, err := scram.NewServer("SCRAM-SHA-256", nil, func(name, _ string) (_ scram.Verifier, err error) {
		if v, err = a.ScramVerifier(ctx, from, name, scram.SHA256); err != nil {
			return scram.Verifier{}, err
		}
		return v.Verifier, nil
	})
	if err != nil {
		return nil, err
	}
	challenge, _, err := server.Next(client.First())
	if err != nil {
		return nil, err
	}
	final, _, err := client.Next(challenge)
	if err != nil {
		return nil, err
	}
	if meanwhile != nil {
		meanwhile()
	}
	return a.Scram(ctx, from, user, v, func() error { _, _, err := server.Next(final); return err })
}

// A proof opens the account as a password does: with the states of the account, the policy's lock, guesses counted, and the audit trail.
func TestScram(t *testing.T) {
	f := withVerifiers()
	a, _ := newAuthn(t, f, func(s *Settings) { s.FreeFailures = 100 })
	expect := func(user, password string, want error, reason string) {
		t.Helper()
		g, err := byScram(t.Context(), a, user, password, "192.0.2.1", nil)
		if !errors.Is(err, want) || (g != nil) != (want == nil) {
			t.Errorf("%s: %v, %v; wanted %v", user, g, err, want)
		}
		e := a.Logins(1, nil)[0]
		if e.Mechanism != "SCRAM-SHA-256" || e.User != user || e.Remote != "192.0.2.1" || !strings.Contains(e.Reason, reason) {
			t.Errorf("audit trail: %+v, wanted the reason %q", e, reason)
		}
	}
	expect("alice@example.test", "wonderland", nil, "")
	expect("A.Smith@example.test", "wonderland", nil, "")
	expect("alice@example.test", "wonder", ErrBadCredentials, "wrong password")
	expect("bob@example.test", "builder", ErrBadCredentials, "no verifier")
	expect("nobody@example.test", "wonderland", ErrBadCredentials, "no such account")
	if n := a.users.level(mustKey(t, "id-of-alice"), a.clock.Boot()); n != 1 {
		t.Errorf("%v failures are counted for alice", n)
	}
	f.accounts["alice@example.test"].Status = dirclient.StatusSuspended
	expect("alice@example.test", "wonderland", ErrSuspended, "suspended")
	expect("alice@example.test", "wonder", ErrBadCredentials, "wrong password")
	f.accounts["alice@example.test"].Status = dirclient.StatusActive
	f.setVerifier("alice", "wonderland", 1).Locked = true
	expect("alice@example.test", "wonderland", ErrBadCredentials, "policy")
	f.away = true
	if _, err := byScram(t.Context(), a, "alice@example.test", "wonderland", "192.0.2.1", nil); !errors.Is(err, ErrUnavailable) {
		t.Errorf("while the directory is away: %v", err)
	}
	if f.bound() != 0 {
		t.Error("a password was sent to the directory")
	}
}

func mustKey(t *testing.T, user string) string {
	t.Helper()
	key, _ := Keys(user, "")
	return key
}

// Guesses by SCRAM wait as guesses by PLAIN do, and both together.
func TestGuessesByScramWait(t *testing.T) {
	f := withVerifiers()
	a, clk := newAuthn(t, f, func(s *Settings) { s.FreeFailures = 2 })
	for range 2 {
		if _, err := byScram(t.Context(), a, "alice@example.test", "no", "192.0.2.1", nil); !errors.Is(err, ErrBadCredentials) {
			t.Fatal(err)
		}
	}
	expect(t, a, "alice@example.test", "no", "192.0.2.1", ErrBadCredentials)
	done := make(chan error, 1)
	go func() {
		_, err := byScram(t.Context(), a, "alice@example.test", "no", "192.0.2.1", nil)
		done <- err
	}()
	clk.WaitTimers(1)
	select {
	case err := <-done:
		t.Fatalf("the fourth guess did not wait: %v", err)
	default:
	}
	clk.Advance(time.Minute)
	if err := <-done; !errors.Is(err, ErrBadCredentials) {
		t.Error(err)
	}
}

// A session stands on the password that was proved: one that was changed between the two steps ends it.
func TestScramStandsOnItsPassword(t *testing.T) {
	f := withVerifiers()
	a, _ := newAuthn(t, f, nil)
	g, err := byScram(t.Context(), a, "alice@example.test", "wonderland", "192.0.2.1", func() {
		f.mu.Lock()
		f.accounts["alice@example.test"].CredentialVersion = 2
		f.mu.Unlock()
	})
	if err != nil || g.Account.CredentialVersion != 1 {
		t.Fatalf("%v, %v", g, err)
	}
	ended := make(chan string, 1)
	defer a.Watch(g, func(reason string) { ended <- reason })()
	a.Changed(map[string]bool{strings.ToLower(g.Account.DN): true})
	if reason := <-ended; reason != "password changed" {
		t.Errorf("it ended: %s", reason)
	}
	if a.dir.(*fake).accounts["alice@example.test"].CredentialVersion != 2 {
		t.Error("the account that others see was changed")
	}
}

// Who has no verifier gets the salt that every server gives for that name, however it is written.
func TestFakeSalts(t *testing.T) {
	f := withVerifiers()
	salts := map[string]bool{}
	for range 2 {
		a, _ := newAuthn(t, f, func(s *Settings) { s.DefaultDomain = "example.test" })
		for _, name := range []string{"nobody@example.test", "Nobody@EXAMPLE.test", "nobody"} {
			v, err := a.ScramVerifier(t.Context(), from(ServiceIMAP), name, scram.SHA256)
			if err != nil || v.Iterations != 4096 {
				t.Fatalf("%v, %v", v, err)
			}
			salts[string(v.Salt)] = true
		}
	}
	if len(salts) != 1 {
		t.Errorf("%d salts", len(salts))
	}
}

// SCRAM is offered once all accounts that could come have verifiers.
func TestScramOffered(t *testing.T) {
	f := withVerifiers()
	f.incomplete[""], f.incomplete["other.test"] = true, true
	a, clk := newAuthn(t, f, func(s *Settings) {
		s.ScramHosts = []ScramHost{{Host: "imap.example.test", Domains: []string{"Example.test"}}, {Host: "mail.example.test", Domains: []string{"example.test", "other.test"}}}
	})
	expect := func(host string, want bool) {
		t.Helper()
		if got := a.ScramOffered(scram.SHA256, host); got != want {
			t.Errorf("host %q: %v", host, got)
		}
	}
	expect("", false)
	expect("IMAP.example.test.", true)
	expect("mail.example.test", false)
	expect("elsewhere.test", false)
	f.mu.Lock()
	f.incomplete = nil
	f.mu.Unlock()
	clk.Advance(scramFresh)
	for a.ScramOffered(scram.SHA256, "") == false { // the question is on its way: what was known is given meanwhile
		a.complete.mu.Lock()
		asking := a.complete.domains[""].asking
		a.complete.mu.Unlock()
		if asking != nil {
			<-asking
		}
	}
	f.mu.Lock()
	f.away = true
	f.mu.Unlock()
	clk.Advance(scramFresh)
	expect("", true) // as long as nobody says otherwise

	for _, set := range []struct {
		scram string
		sha1  bool
		h     *scram.Hash
		want  bool
	}{{ScramOff, true, scram.SHA256, false}, {ScramOn, true, scram.SHA1, true}, {ScramOn, false, scram.SHA1, false}, {ScramOn, false, scram.SHA256, true}} {
		a, _ := newAuthn(t, f, func(s *Settings) { s.Scram, s.ScramSHA1 = set.scram, set.sha1 })
		if got := a.ScramOffered(set.h, ""); got != set.want {
			t.Errorf("%+v: %v", set, got)
		}
	}
	g := withVerifiers()
	g.scramKey = "" // the directory has not looked through its accounts yet
	b, _ := newAuthn(t, g, nil)
	if b.ScramOffered(scram.SHA256, "") {
		t.Error("offered while nothing is known")
	}
}

// A client certificate opens the account of the address in it, one of several by name, and none other's.
func TestCertificates(t *testing.T) {
	f := newFake()
	cs := &tls.ConnectionState{PeerCertificates: []*x509.Certificate{{Raw: []byte("the certificate"), SerialNumber: big.NewInt(0xbeef)}}}
	build := func(match string, addresses ...string) *Authenticator {
		s := DefaultSettings()
		s.ClientCertificates, s.FreeFailures = match, 100
		a, err := New(Options{Directory: f, Suffix: "o=shoal", Settings: &s, Clients: func(*tls.ConnectionState) ([]string, error) {
			if addresses == nil {
				return nil, errors.New("not by our CA")
			}
			return addresses, nil
		}})
		if err != nil {
			t.Fatal(err)
		}
		return a
	}
	from := From{Service: ServiceIMAP, Remote: "192.0.2.1", Mechanism: "EXTERNAL", TLS: true}
	expect := func(a *Authenticator, user string, want error, reason string) *Grant {
		t.Helper()
		g, err := a.Certificate(t.Context(), from, cs, user)
		if !errors.Is(err, want) || (g != nil) != (want == nil) {
			t.Errorf("as %q: %v, %v", user, g, err)
		}
		if e := a.Logins(1, nil)[0]; e.Credential != CredentialCertificate || e.Name != "beef" || !strings.Contains(e.Reason, reason) {
			t.Errorf("audit trail: %+v", e)
		}
		return g
	}
	one := build(CertificatesByAddress, "Alice@example.test")
	expect(one, "", nil, "")
	expect(one, "alice@example.test", nil, "")
	expect(one, "a.smith@example.test", nil, "")
	expect(one, "bob@example.test", ErrBadCredentials, "another account")
	expect(one, "nobody@example.test", ErrBadCredentials, "another account")
	two := build(CertificatesByAddress, "alice@example.test", "bob@example.test")
	expect(two, "", ErrBadCredentials, "which")
	if g := expect(two, "bob@example.test", nil, ""); g != nil && g.Account.ID != "id-of-bob" {
		t.Errorf("opened %+v", g.Account)
	}
	expect(build(CertificatesByAddress, "nobody@example.test"), "", ErrBadCredentials, "of none")
	bad := build(CertificatesByAddress)
	expect(bad, "", ErrBadCredentials, "not by our CA")
	if bad.CertificateOffered(cs) || !one.CertificateOffered(cs) || one.CertificateOffered(&tls.ConnectionState{}) || one.CertificateOffered(nil) {
		t.Error("EXTERNAL is offered to others than those who can use it")
	}

	listed := build(CertificatesInDirectory, "alice@example.test")
	expect(listed, "", ErrBadCredentials, "not in the account's entry")
	dn := f.accounts["alice@example.test"].DN
	f.certificates = map[string][][]byte{dn: {[]byte("another"), []byte("the certificate")}}
	g := expect(listed, "", nil, "")
	ended := make(chan string, 1)
	defer listed.Watch(g, func(reason string) { ended <- reason })()
	f.mu.Lock()
	f.certificates[dn] = nil
	f.mu.Unlock()
	listed.Changed(map[string]bool{strings.ToLower(dn): true})
	if reason := <-ended; reason != "certificate removed" {
		t.Errorf("the session ended: %s", reason)
	}
	f.accounts["alice@example.test"].Status = dirclient.StatusSuspended
	expect(one, "", ErrSuspended, "suspended")
}
