package popsession

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"log/slog"
	"math/big"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"shoal/daemons/internal/authn"
	"shoal/daemons/internal/clock"
	"shoal/daemons/internal/dirclient"
	"shoal/daemons/internal/mailstore"
	"shoal/daemons/internal/vfs"
	"shoal/tests/dialogue"
)

// users is an Auth of accounts <name>@example.test with the password "secret word".
type users struct{}

func (u users) Password(ctx context.Context, from authn.From, user, password string) (*authn.Grant, error) {
	account, err := u.login(ctx, user, password)
	if err != nil {
		return nil, err
	}
	return &authn.Grant{From: from, Account: account}, nil
}

// Bearer takes the token "token-of-<name>".
func (u users) Bearer(ctx context.Context, from authn.From, user, token string) (*authn.Grant, error) {
	name, ok := strings.CutPrefix(token, "token-of-")
	if !ok || user != "" && !strings.HasPrefix(user, name+"@") {
		return nil, authn.ErrBadCredentials
	}
	return u.Password(ctx, from, name, "secret word")
}

func (users) Watch(*authn.Grant, func(string)) func() { return func() {} }

func (users) login(_ context.Context, user, password string) (*dirclient.Account, error) {
	name, _, _ := strings.Cut(user, "@")
	switch {
	case name == "suspended":
		return nil, fmt.Errorf("account %s: %w", user, authn.ErrSuspended)
	case name == "busy":
		return nil, fmt.Errorf("directory: %w", authn.ErrUnavailable)
	case name == "throttled":
		return nil, authn.ErrThrottled
	case password != "secret word":
		return nil, authn.ErrBadCredentials
	}
	account := &dirclient.Account{Address: name + "@example.test", ID: "account-" + name, Volume: "vol01"}
	if name == "homeless" {
		account.Volume = "vol99"
	}
	return account, nil
}

// rig is a server on a real store in a temporary folder.
type rig struct {
	t       testing.TB
	store   *mailstore.Store
	volume  string // its folder
	srv     *Server
	addr    string // plain
	tlsAddr string // TLS from the first byte
	metrics *prometheus.Registry
}

func newRig(t testing.TB, change func(*Options)) *rig {
	t.Helper()
	const id = "0d6f3c6e-6d2c-4c0c-9b0e-2f4f6b1f9a51"
	r := &rig{t: t, metrics: prometheus.NewRegistry(), volume: t.TempDir()}
	var err error
	if r.store, err = mailstore.New(mailstore.Options{Server: "box1", FS: vfs.OS(), Clock: clock.System(), Log: slog.New(slog.DiscardHandler)}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.store.Close() })
	if err := mailstore.InitVolume(vfs.OS(), r.volume, id); err != nil {
		t.Fatal(err)
	}
	if err := r.store.AddVolume("vol01", r.volume, id); err != nil {
		t.Fatal(err)
	}
	o := Options{Store: r.store, Auth: users{}, TLS: serverTLS(t), Server: "box1", Log: slog.New(slog.DiscardHandler),
		Metrics: r.metrics, Limits: DefaultLimits()}
	if change != nil {
		change(&o)
	}
	if r.srv, err = New(o); err != nil {
		t.Fatal(err)
	}
	listen := func(serve func(net.Listener) error) string {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		go serve(l)
		return l.Addr().String()
	}
	r.addr, r.tlsAddr = listen(r.srv.Serve), listen(r.srv.ServeTLS)
	t.Cleanup(func() {
		r.srv.Close()
		for _, name := range []string{"shoal_pop_panics_total", "shoal_pop_connections"} {
			if n := r.value(name); n != 0 {
				t.Errorf("%s is %v at the end", name, n)
			}
		}
	})
	return r
}

// value is the value of a metric, summed over its labels.
func (r *rig) value(name string) (sum float64) {
	families, err := r.metrics.Gather()
	if err != nil {
		r.t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == name {
			for _, m := range f.GetMetric() {
				sum += m.GetGauge().GetValue() + m.GetCounter().GetValue()
			}
		}
	}
	return sum
}

func (r *rig) dial() (net.Conn, error) { return net.Dial("tcp", r.addr) }

func (r *rig) dialTLS() (net.Conn, error) {
	return tls.Dial("tcp", r.tlsAddr, &tls.Config{InsecureSkipVerify: true})
}

func (r *rig) run(script string) {
	r.t.Helper()
	dialogue.Run(r.t, script, map[string]dialogue.Dial{"pop": r.dial, "pops": r.dialTLS}, dialogue.Timeout(5*time.Second))
}

// inbox opens the INBOX of a user.
func (r *rig) inbox(user string) *mailstore.Mailbox {
	r.t.Helper()
	acc, err := r.store.Account(context.Background(), "vol01", "account-"+user)
	if err != nil {
		r.t.Fatal(err)
	}
	box, err := acc.Open(context.Background(), mailstore.Inbox)
	if err != nil {
		r.t.Fatal(err)
	}
	return box
}

func (r *rig) deliver(user string, texts ...string) {
	r.t.Helper()
	box := r.inbox(user)
	for _, text := range texts {
		m, err := r.store.Stage(context.Background(), "vol01", strings.NewReader(text), 0)
		if err != nil {
			r.t.Fatal(err)
		}
		_, err = box.Append(context.Background(), []mailstore.AppendMessage{{Message: m}})
		m.Close()
		if err != nil {
			r.t.Fatal(err)
		}
	}
}

// state describes the INBOX of a user: UID and flags of each message.
func (r *rig) state(user string) string {
	r.t.Helper()
	st, err := r.inbox(user).State(context.Background())
	if err != nil {
		r.t.Fatal(err)
	}
	var b strings.Builder
	for _, m := range st.All() {
		fmt.Fprintf(&b, "%d", m.UID)
		if m.Flags&mailstore.FlagSeen != 0 {
			b.WriteString("s")
		}
		b.WriteString(" ")
	}
	return strings.TrimSpace(b.String())
}

func serverTLS(t testing.TB) *tls.Config {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), DNSNames: []string{"localhost"}}
	cert, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{cert}, PrivateKey: key}}}
}
