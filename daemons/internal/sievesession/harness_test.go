package sievesession

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"log/slog"
	"math/big"
	"net"
	"os"
	"path/filepath"
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
	"shoal/tests/ports"
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
	srv     *Server
	addr    string // plain
	caFile  string
	metrics *prometheus.Registry
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func newRig(t testing.TB, change func(*Options)) *rig {
	t.Helper()
	const id = "0d6f3c6e-6d2c-4c0c-9b0e-2f4f6b1f9a51"
	r := &rig{t: t, metrics: prometheus.NewRegistry(), caFile: filepath.Join(t.TempDir(), "ca.pem")}
	var err error
	r.store, err = mailstore.New(mailstore.Options{Server: "box1", FS: vfs.OS(), Clock: clock.System(), Log: slog.New(slog.DiscardHandler)})
	must(t, err)
	t.Cleanup(func() { r.store.Close() })
	volume := t.TempDir()
	must(t, mailstore.InitVolume(vfs.OS(), volume, id))
	must(t, r.store.AddVolume("vol01", volume, id))
	o := Options{Store: r.store, Auth: users{}, TLS: serverTLS(t, r.caFile), Server: "box1", Log: slog.New(slog.DiscardHandler),
		Metrics: r.metrics, Limits: DefaultLimits(), Redirects: 7}
	if change != nil {
		change(&o)
	}
	r.srv, err = New(o)
	must(t, err)
	r.addr = ports.One(t)
	l, err := net.Listen("tcp", r.addr)
	must(t, err)
	go r.srv.Serve(l)
	t.Cleanup(func() {
		r.srv.Close()
		for _, name := range []string{"shoal_managesieve_panics_total", "shoal_managesieve_connections"} {
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
	must(r.t, err)
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

func (r *rig) run(script string) {
	r.t.Helper()
	dialogue.Run(r.t, script, map[string]dialogue.Dial{"sieve": r.dial}, dialogue.Timeout(5*time.Second))
}

func serverTLS(t testing.TB, caFile string) *tls.Config {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), DNSNames: []string{"localhost"},
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true}
	cert, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key)
	must(t, err)
	must(t, os.WriteFile(caFile, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert}), 0o600))
	return &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{cert}, PrivateKey: key}}}
}
