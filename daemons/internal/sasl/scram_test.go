package sasl

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"math/big"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"shoal/daemons/internal/authn"
	"shoal/daemons/internal/dirclient"
	"shoal/daemons/internal/scram"
)

// directory is one of alice only.
type directory struct {
	authn.Directory
	verifiers [][]byte
}

func (d *directory) Account(_ context.Context, address string) (*dirclient.Account, error) {
	if address != "alice@example.test" {
		return nil, dirclient.ErrNoSuchAccount
	}
	return &dirclient.Account{DN: "uid=alice", Address: address, Domain: "example.test", ID: "id-of-alice", Status: dirclient.StatusActive}, nil
}

func (d *directory) Domain(context.Context, string) (*dirclient.Domain, error) {
	return &dirclient.Domain{Name: "example.test", Status: dirclient.StatusActive}, nil
}

func (d *directory) Verifiers(_ context.Context, dn string) (*dirclient.Verifiers, error) {
	if dn != "uid=alice" {
		return &dirclient.Verifiers{}, nil
	}
	return &dirclient.Verifiers{Texts: d.verifiers}, nil
}

func (d *directory) ScramKey(context.Context) (string, error) {
	return scram.FakeKey([]byte("0123456789abcdef"), 4096), nil
}

func (d *directory) ScramComplete(context.Context, string) (bool, error) { return true, nil }

// newServer is a server of alice, whose password is "wonderland", and what its clients are shown.
func newServer(t *testing.T) (*Server, *authn.Authenticator, tls.Certificate) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), DNSNames: []string{"localhost"}, NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	d := &directory{}
	for _, h := range []*scram.Hash{scram.SHA1, scram.SHA256} {
		d.verifiers = append(d.verifiers, []byte(scram.New(h, "wonderland", 4096).String()))
	}
	set := authn.DefaultSettings()
	set.FreeFailures = 100
	auth, err := authn.New(authn.Options{Directory: d, Suffix: "o=shoal", Settings: &set, Certificate: func() []byte { return der }})
	if err != nil {
		t.Fatal(err)
	}
	return New(auth), auth, tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// handshake makes a TLS connection and gives both sides' states.
func handshake(t *testing.T, cert tls.Certificate, version uint16) (server, client tls.ConnectionState) {
	t.Helper()
	a, b := net.Pipe()
	defer a.Close()
	defer b.Close()
	s := tls.Server(a, &tls.Config{Certificates: []tls.Certificate{cert}, MaxVersion: version})
	c := tls.Client(b, &tls.Config{InsecureSkipVerify: true, MaxVersion: version, ServerName: "localhost"}) //nolint:gosec // the test's own certificate
	done := make(chan error, 1)
	go func() { done <- s.Handshake() }()
	if err := errors.Join(c.Handshake(), <-done); err != nil {
		t.Fatal(err)
	}
	return s.ConnectionState(), c.ConnectionState()
}

// wire is the client's side of an exchange.
type wire struct {
	c    *scram.Client
	last bool
}

func (w *wire) Ask(challenge []byte) ([]byte, error) {
	if challenge == nil {
		return w.c.First(), nil
	}
	answer, done, err := w.c.Next(challenge)
	w.last = done
	return answer, err
}

// Every mechanism with every binding of TLS 1.2 and 1.3 opens the account, and the server proves that it knows the password; a wrong
// password and a wrong binding do not.
func TestScramOverTLS(t *testing.T) {
	s, _, cert := newServer(t)
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		here, there := handshake(t, cert, version)
		bindings := scram.ClientBinding(&there)
		want := []string{scram.TLSExporter, scram.TLSServerEndPoint}
		if version == tls.VersionTLS12 {
			want = append(want, scram.TLSUnique)
		}
		for _, b := range want {
			if bindings[b] == nil {
				t.Fatalf("TLS %x has no %s", version, b)
			}
		}
		conn := func() *Conn { return &Conn{Service: authn.ServiceIMAP, Remote: "192.0.2.1", TLS: &here} }
		names := s.Names(conn())
		if !slices.Equal(names[:4], []string{"SCRAM-SHA-256-PLUS", "SCRAM-SHA-1-PLUS", "SCRAM-SHA-256", "SCRAM-SHA-1"}) || slices.Contains(names, "EXTERNAL") {
			t.Errorf("offered: %v", names)
		}
		for _, name := range names[:4] {
			by := []string{""}
			if strings.HasSuffix(name, scram.Plus) {
				by = want
			}
			for _, b := range by {
				t.Run(fmt.Sprintf("%x %s %s", version, name, b), func(t *testing.T) {
					c, err := scram.NewClient(name, "alice@example.test", "wonderland", "", bindings, b)
					if err != nil {
						t.Fatal(err)
					}
					w := &wire{c: c}
					if g, err := s.Run(t.Context(), name, conn(), nil, w); err != nil || g.Account.ID != "id-of-alice" || g.Mechanism != name || !w.last {
						t.Errorf("%v, %v, the server's proof was seen: %v", g, err, w.last)
					}
					for what, bad := range map[string]*scram.Client{
						"a wrong password":            must(scram.NewClient(name, "alice@example.test", "wonder", "", bindings, b)),
						"an unknown user":             must(scram.NewClient(name, "nobody@example.test", "wonderland", "", bindings, b)),
						"the binding of another":      must(scram.NewClient(name, "alice@example.test", "wonderland", "", scram.Binding{b: []byte("another")}, b)),
						"the name of someone to be":   must(scram.NewClient(name, "alice@example.test", "wonderland", "bob@example.test", bindings, b)),
						"a binding that nobody knows": must(scram.NewClient(name, "alice@example.test", "wonderland", "", scram.Binding{"tls-new": []byte("x"), "": nil}, map[bool]string{true: "tls-new"}[b != ""])),
					} {
						if b == "" && strings.Contains(what, "binding") {
							continue
						}
						if g, err := s.Run(t.Context(), name, conn(), nil, &wire{c: bad}); g != nil || !errors.Is(err, authn.ErrBadCredentials) && !errors.Is(err, ErrAuthorization) {
							t.Errorf("%s: %v, %v", what, g, err)
						}
					}
				})
			}
		}
	}
}

func must(c *scram.Client, err error) *scram.Client {
	if err != nil {
		panic(err)
	}
	return c
}

// said is a client that says what it is told to.
type said []string

func (s *said) Ask([]byte) ([]byte, error) {
	if len(*s) == 0 {
		return nil, ErrCancelled
	}
	line := (*s)[0]
	*s = (*s)[1:]
	return []byte(line), nil
}

// A client that says that the server offers no binding, where it does, has been lied to on its way: it is refused, and the audit trail has it.
func TestDowngradeIsRefused(t *testing.T) {
	s, auth, cert := newServer(t)
	here, _ := handshake(t, cert, tls.VersionTLS13)
	run := func(c *Conn, first string) error {
		_, err := s.Run(t.Context(), "SCRAM-SHA-256", c, []byte(first), &said{})
		return err
	}
	bound := &Conn{Service: authn.ServiceIMAP, Remote: "192.0.2.1", TLS: &here}
	if err := run(bound, "y,,n=alice@example.test,r=abc"); !errors.Is(err, authn.ErrBadCredentials) {
		t.Errorf("y: %v", err)
	}
	if e := auth.Logins(1, nil)[0]; e.Result != "bad" || e.User != "alice@example.test" || !strings.Contains(e.Reason, "did not see") {
		t.Errorf("audit trail: %+v", e)
	}
	if err := run(bound, "n,,n=alice@example.test,r=abc"); !errors.Is(err, ErrCancelled) {
		t.Errorf("n, of a client that knows no bindings: %v", err)
	}
	unbound := &Conn{Service: authn.ServiceIMAP, Remote: "192.0.2.1", Plain: true}
	if err := run(unbound, "y,,n=alice@example.test,r=abc"); !errors.Is(err, ErrCancelled) {
		t.Errorf("y, where none is offered: %v", err)
	}
	if names := s.Names(unbound); slices.Contains(names, "SCRAM-SHA-256-PLUS") || !slices.Contains(names, "SCRAM-SHA-256") {
		t.Errorf("offered without TLS: %v", names)
	}
	quiet := *bound
	quiet.Unbound = true
	if names := s.Names(&quiet); slices.Contains(names, "SCRAM-SHA-256-PLUS") || !slices.Contains(names, "SCRAM-SHA-256") {
		t.Errorf("announced without channel binding: %v", names)
	}
	if err := run(&quiet, "y,,n=alice@example.test,r=abc"); !errors.Is(err, ErrCancelled) {
		t.Errorf("y, where it is not announced: %v", err)
	}
	if _, _, err := s.Begin("SCRAM-SHA-256-PLUS", &quiet); err != nil {
		t.Errorf("not announced, and asked for: %v", err)
	}
	if err := run(&Conn{}, "n,,n=alice@example.test,r=abc"); !errors.Is(err, ErrNeedTLS) {
		t.Errorf("without TLS: %v", err)
	}
	for _, first := range []string{"", "n,,n=,r=abc", "x,,n=a,r=b", "n,,m=1,n=a,r=b"} {
		if err := run(bound, first); !errors.Is(err, ErrMalformed) {
			t.Errorf("%q: %v", first, err)
		}
	}
	lines := said{"c=biws,r=wrong,p=AAAA"}
	if _, err := s.Run(t.Context(), "SCRAM-SHA-256", bound, []byte("n,,n=alice@example.test,r=abc"), &lines); !errors.Is(err, ErrMalformed) {
		t.Errorf("a malformed proof: %v", err)
	}
	if _, err := s.Run(t.Context(), "EXTERNAL", bound, []byte{}, &said{}); !errors.Is(err, ErrMechanism) {
		t.Errorf("EXTERNAL without a certificate: %v", err)
	}
}
