package imapsession

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"log/slog"
	"math/big"
	"net"
	"os"
	"strings"
	"sync"
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

// users is an Auth of accounts <name>@example.test with the password "secret". Those whose names begin
// with "quota" may keep 10 KiB and 4 messages.
type users struct {
	mu      sync.Mutex
	logins  []string
	watched map[string]func(string)
}

func (u *users) Password(_ context.Context, from authn.From, user, password string) (*authn.Grant, error) {
	account, err := u.login(user, password, from.Remote)
	if err != nil {
		return nil, err
	}
	return &authn.Grant{From: from, Account: account}, nil
}

// Bearer takes the token "token-of-<name>".
func (u *users) Bearer(ctx context.Context, from authn.From, user, token string) (*authn.Grant, error) {
	name, ok := strings.CutPrefix(token, "token-of-")
	if !ok || user != "" && !strings.HasPrefix(user, name+"@") {
		return nil, authn.ErrBadCredentials
	}
	return u.Password(ctx, from, name, "secret")
}

// Watch keeps what ends the sessions of an account, for revoke.
func (u *users) Watch(g *authn.Grant, end func(string)) func() {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.watched == nil {
		u.watched = map[string]func(string){}
	}
	u.watched[g.Account.Address] = end
	return func() {}
}

// revoke ends the last session of an account.
func (u *users) revoke(address string) {
	u.mu.Lock()
	end := u.watched[address]
	u.mu.Unlock()
	end("test")
}

func (u *users) login(user, password, remote string) (*dirclient.Account, error) {
	u.mu.Lock()
	u.logins = append(u.logins, user+" from "+remote)
	u.mu.Unlock()
	name, _, _ := strings.Cut(user, "@")
	switch {
	case name == "suspended" && password == "secret":
		return nil, fmt.Errorf("account %s: %w", user, authn.ErrSuspended)
	case name == "busy":
		return nil, fmt.Errorf("directory: %w", authn.ErrUnavailable)
	case name == "throttled":
		return nil, authn.ErrThrottled
	case password != "secret":
		return nil, authn.ErrBadCredentials
	}
	domain := "example.test"
	if strings.HasSuffix(user, "@other.test") {
		domain = "other.test"
	}
	return account(name, domain), nil
}

// rig is a server on a real store.
type rig struct {
	t       testing.TB
	store   *mailstore.Store
	srv     *Server
	auth    *users
	people  *people
	addr    string // plain
	tlsAddr string // TLS from the first byte
	metrics *prometheus.Registry
}

const volumeID = "0d6f3c6e-6d2c-4c0c-9b0e-2f4f6b1f9a51"

func newStore(t testing.TB, server string, fs vfs.FS, dir string) *mailstore.Store {
	t.Helper()
	store, err := mailstore.New(mailstore.Options{Server: server, FS: fs, Clock: clock.System(), Log: quiet()})
	if err != nil {
		t.Fatal(err)
	}
	if err := mailstore.InitVolume(fs, dir, volumeID); err != nil {
		t.Fatal(err)
	}
	if err := store.AddVolume("vol01", dir, volumeID); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { store.Close() })
	return store
}

func quiet() *slog.Logger {
	if os.Getenv("IMAP_TEST_LOG") != "" {
		return slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug}))
	}
	return slog.New(slog.DiscardHandler)
}

// newRig starts a server on a store in memory. change may alter its options.
func newRig(t testing.TB, change func(*Options)) *rig {
	t.Helper()
	mem := vfs.NewMem(time.Now)
	if err := mem.Mkdir("/vol"); err != nil {
		t.Fatal(err)
	}
	return newRigOn(t, newStore(t, "box1", mem, "/vol"), change)
}

func newRigOn(t testing.TB, store *mailstore.Store, change func(*Options)) *rig {
	t.Helper()
	r := &rig{t: t, store: store, auth: new(users), people: newPeople(), metrics: prometheus.NewRegistry()}
	opt := Options{Store: store, Auth: r.auth, Directory: r.people, TLS: testTLS(t), Server: "box1", Version: "test", Log: quiet(),
		Metrics: r.metrics, Limits: DefaultLimits()}
	opt.Limits.AllowPlain = true
	if change != nil {
		change(&opt)
	}
	var err error
	if r.srv, err = New(opt); err != nil {
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
		r.noPanics()
	})
	return r
}

// noPanics fails the test when a session was ended by a bug.
func (r *rig) noPanics() {
	if n := r.value("shoal_imap_panics_total"); n != 0 {
		r.t.Errorf("%v sessions were ended by a bug", n)
	}
	if n := r.value("shoal_imap_connections"); n != 0 {
		r.t.Errorf("%v connections are counted after the end", n)
	}
	if n := r.value("shoal_imap_idling_connections"); n != 0 {
		r.t.Errorf("%v idling connections are counted after the end", n)
	}
}

// value is the value of a metric, summed over its labels.
func (r *rig) value(name string) (sum float64) {
	families, err := r.metrics.Gather()
	if err != nil {
		r.t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() != name {
			continue
		}
		for _, m := range f.GetMetric() {
			sum += m.GetGauge().GetValue() + m.GetCounter().GetValue()
		}
	}
	return sum
}

func (r *rig) dial() (net.Conn, error) { return net.Dial("tcp", r.addr) }

func (r *rig) dialTLS() (net.Conn, error) {
	return tls.Dial("tcp", r.tlsAddr, &tls.Config{InsecureSkipVerify: true})
}

func (r *rig) targets() map[string]dialogue.Dial {
	return map[string]dialogue.Dial{"imap": r.dial, "imaps": r.dialTLS}
}

// run plays a script that is written into the test.
func (r *rig) run(script string) {
	r.t.Helper()
	dialogue.Run(r.t, script, r.targets(), dialogue.Timeout(5*time.Second))
}

// deliver puts messages into a mailbox as LMTP does.
func (r *rig) deliver(user, mailbox string, texts ...string) {
	r.t.Helper()
	ctx := context.Background()
	acc, err := r.store.Account(ctx, "vol01", "account-"+user)
	if err != nil {
		r.t.Fatal(err)
	}
	for _, text := range texts {
		m, err := r.store.Stage(ctx, "vol01", strings.NewReader(text), 0)
		if err != nil {
			r.t.Fatal(err)
		}
		res := r.store.Deliver(ctx, m, []mailstore.Target{{Account: acc, Mailbox: mailbox}})
		m.Close()
		if res[0].Err != nil {
			r.t.Fatal(res[0].Err)
		}
	}
}

var testTLS = func() func(testing.TB) *tls.Config {
	var once sync.Once
	var config *tls.Config
	return func(t testing.TB) *tls.Config {
		once.Do(func() {
			key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
			if err != nil {
				t.Fatal(err)
			}
			template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "localhost"},
				NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), DNSNames: []string{"localhost"}}
			der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
			if err != nil {
				t.Fatal(err)
			}
			config = &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}
		})
		return config
	}
}()

// scripts are the names of testdata/*.txt.
func scripts(t *testing.T) (names []string) {
	t.Helper()
	entries, err := os.ReadDir("testdata")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if name, ok := strings.CutSuffix(e.Name(), ".txt"); ok {
			names = append(names, name)
		}
	}
	if len(names) == 0 {
		t.Fatal("no scripts in testdata")
	}
	return names
}

func script(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile("testdata/" + name + ".txt")
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// writeCertificate writes the test certificate and its key as cert.pem and key.pem.
func writeCertificate(t testing.TB, dir string) {
	t.Helper()
	c := testTLS(t).Certificates[0]
	key, err := x509.MarshalPKCS8PrivateKey(c.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	for name, block := range map[string]*pem.Block{
		"cert.pem": {Type: "CERTIFICATE", Bytes: c.Certificate[0]}, "key.pem": {Type: "PRIVATE KEY", Bytes: key}} {
		if err := os.WriteFile(dir+"/"+name, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}
