package pki

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// watch is a clock that a test sets.
type watch struct{ at atomic.Int64 }

func newWatch() *watch {
	w := &watch{}
	w.at.Store(time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC).Unix())
	return w
}

func (w *watch) now() time.Time          { return time.Unix(w.at.Load(), 0) }
func (w *watch) advance(d time.Duration) { w.at.Add(int64(d / time.Second)) }

// site is a CA with a folder for files.
type site struct {
	t     *testing.T
	dir   string
	clock *watch
	ca    *CA
}

func newSite(t *testing.T) *site {
	t.Helper()
	s := &site{t: t, dir: t.TempDir(), clock: newWatch()}
	var err error
	if s.ca, err = NewCA(CAOptions{Now: s.clock.now}); err != nil {
		t.Fatal(err)
	}
	if err := s.ca.Save(s.path("ca.crt"), s.path("ca.key")); err != nil {
		t.Fatal(err)
	}
	return s
}

func (s *site) path(name string) string { return filepath.Join(s.dir, name) }

func (s *site) files(name string) Files {
	return Files{Cert: s.path(name + ".crt"), Key: s.path(name + ".key"), CA: s.path("ca.crt")}
}

// issue writes a certificate to name.crt and name.key.
func (s *site) issue(file string, r Request) Files {
	s.t.Helper()
	pair, err := s.ca.Issue(r)
	if err != nil {
		s.t.Fatal(err)
	}
	f := s.files(file)
	if err := pair.Save(f.Cert, f.Key); err != nil {
		s.t.Fatal(err)
	}
	return f
}

func (s *site) load(f Files, opts ...Option) *Credentials {
	s.t.Helper()
	c, err := Load(f, append(opts, WithClock(s.clock.now))...)
	if err != nil {
		s.t.Fatal(err)
	}
	return c
}

// creds issues and loads.
func (s *site) creds(role, name string) *Credentials {
	s.t.Helper()
	return s.load(s.issue(role+"-"+name, Request{Role: role, Name: name}))
}

// outcome is what the two ends of a handshake saw.
type outcome struct {
	client, server    error
	clientSt, server2 tls.ConnectionState
}

// shake makes one connection over a socket and exchanges a byte each way, so that errors which TLS 1.3
// delivers after the client's handshake are seen too.
func shake(t *testing.T, server, client *tls.Config) outcome {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	var o outcome
	done := make(chan struct{})
	go func() {
		defer close(done)
		raw, err := l.Accept()
		if err != nil {
			o.server = err
			return
		}
		c := tls.Server(raw, server)
		defer c.Close()
		if o.server = c.Handshake(); o.server != nil {
			return
		}
		o.server2 = c.ConnectionState()
		b := make([]byte, 1)
		if _, o.server = c.Read(b); o.server == nil {
			_, o.server = c.Write(b)
		}
	}()
	raw, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	c := tls.Client(raw, client)
	if o.client = c.Handshake(); o.client == nil {
		o.clientSt = c.ConnectionState()
		b := []byte{'x'}
		if _, o.client = c.Write(b); o.client == nil {
			_, o.client = io.ReadFull(c, b)
		}
	}
	c.Close()
	<-done
	return o
}

func TestIssuedCertificate(t *testing.T) {
	s := newSite(t)
	pair, err := s.ca.Issue(Request{Role: RoleBox, Name: "box1", Hosts: []string{"box1.example.test", "192.0.2.1", "::1"}, Validity: 24 * time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(pair.Cert)
	c, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	if len(c.URIs) != 1 || c.URIs[0].String() != "shoal://box/box1" {
		t.Errorf("URIs %v", c.URIs)
	}
	if len(c.DNSNames) != 1 || c.DNSNames[0] != "box1.example.test" || len(c.IPAddresses) != 2 {
		t.Errorf("names %v, addresses %v", c.DNSNames, c.IPAddresses)
	}
	if c.PublicKeyAlgorithm != x509.ECDSA || c.IsCA {
		t.Errorf("algorithm %v, CA %v", c.PublicKeyAlgorithm, c.IsCA)
	}
	if want := s.clock.now().Add(24 * time.Hour); !c.NotAfter.Equal(want) {
		t.Errorf("expires %v, wanted %v", c.NotAfter, want)
	}
	if !c.NotBefore.Before(s.clock.now()) {
		t.Errorf("begins %v, not before now", c.NotBefore)
	}
}

func TestRequestsRefused(t *testing.T) {
	s := newSite(t)
	for name, r := range map[string]Request{
		"nothing": {}, "unknown role": {Role: "king", Name: "a"}, "no name": {Role: RoleBox}, "no role": {Name: "box1"},
		"slash": {Role: RoleBox, Name: "a/b"}, "capital": {Role: RoleBox, Name: "Box"}, "long": {Role: RoleBox, Name: strings.Repeat("a", 65)},
		"bad host": {Role: RoleBox, Name: "a", Hosts: []string{"a b"}}, "empty host": {Role: RoleBox, Name: "a", Hosts: []string{""}},
	} {
		if _, err := s.ca.Issue(r); err == nil {
			t.Errorf("%s: issued", name)
		}
	}
}

func TestCertificateDoesNotOutliveItsCA(t *testing.T) {
	s := newSite(t)
	f := s.issue("box1", Request{Role: RoleBox, Name: "box1", Validity: 100 * 365 * 24 * time.Hour})
	if got := s.load(f).NotAfter(); got.After(s.ca.NotAfter()) {
		t.Errorf("expires %v, after the CA at %v", got, s.ca.NotAfter())
	}
}

func TestFileModes(t *testing.T) {
	s := newSite(t)
	f := s.issue("box1", Request{Role: RoleBox, Name: "box1"})
	for path, want := range map[string]fs.FileMode{f.Key: 0o600, s.path("ca.key"): 0o600, f.Cert: 0o644, f.CA: 0o644} {
		st, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		if st.Mode().Perm() != want {
			t.Errorf("%s: mode %04o, wanted %04o", path, st.Mode().Perm(), want)
		}
	}
	left, err := filepath.Glob(s.path(".*"))
	if err != nil || len(left) != 0 {
		t.Errorf("temporary files left: %v, %v", left, err)
	}
}

func TestWriteFileReplacesWhole(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "f")
	if err := WriteFile(path, []byte("one"), 0o644); err != nil {
		t.Fatal(err)
	}
	open, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer open.Close()
	if err := WriteFile(path, []byte("two"), 0o600); err != nil {
		t.Fatal(err)
	}
	old := make([]byte, 8)
	n, _ := open.Read(old)
	if string(old[:n]) != "one" {
		t.Errorf("the old file was written over: %q", old[:n])
	}
	if b, err := os.ReadFile(path); err != nil || string(b) != "two" {
		t.Errorf("%q, %v", b, err)
	}
	if err := WriteFile(filepath.Join(dir, "none", "f"), nil, 0o600); err == nil || !strings.Contains(err.Error(), "none/f") {
		t.Errorf("no folder: %v", err)
	}
}

func TestSavedCAIssuesOn(t *testing.T) {
	s := newSite(t)
	ca, err := LoadCA(s.path("ca.crt"), s.path("ca.key"), WithClock(s.clock.now))
	if err != nil {
		t.Fatal(err)
	}
	s.ca = ca
	if c := s.creds(RoleSwitch, "sw1"); c.Role() != RoleSwitch || c.Name() != "sw1" {
		t.Errorf("identity %s %s", c.Role(), c.Name())
	}
	f := s.issue("box1", Request{Role: RoleBox, Name: "box1"})
	if _, err := LoadCA(f.Cert, f.Key, WithClock(s.clock.now)); err == nil || !strings.Contains(err.Error(), "not of a CA") {
		t.Errorf("a server's certificate as CA: %v", err)
	}
}

// Every fault of the files has an error that names the file and the cause.
func TestLoadErrors(t *testing.T) {
	write := func(path, text string, mode fs.FileMode) {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
	}
	for name, c := range map[string]struct {
		spoil func(s *site, f *Files)
		is    error
		want  []string
	}{
		"no certificate": {func(_ *site, f *Files) { os.Remove(f.Cert) }, fs.ErrNotExist, []string{"box1.crt", "does not exist"}},
		"no key":         {func(_ *site, f *Files) { os.Remove(f.Key) }, fs.ErrNotExist, []string{"key file", "box1.key", "does not exist"}},
		"no CA":          {func(_ *site, f *Files) { os.Remove(f.CA) }, fs.ErrNotExist, []string{"ca.crt", "does not exist"}},
		"open key":       {func(_ *site, f *Files) { os.Chmod(f.Key, 0o644) }, nil, []string{"box1.key", "0644", "chmod 600"}},
		"not PEM":        {func(_ *site, f *Files) { write(f.Cert, "hello", 0o644) }, nil, []string{"box1.crt", "no certificate in PEM form"}},
		"key not PEM":    {func(_ *site, f *Files) { write(f.Key, "hello", 0o600) }, nil, []string{"box1.key", "no key in PEM form"}},
		"damaged": {func(_ *site, f *Files) {
			write(f.Cert, string(encodeCert([]byte("junk"))), 0o644)
		}, nil, []string{"box1.crt", "certificate 1 is damaged"}},
		"damaged key": {func(_ *site, f *Files) {
			write(f.Key, string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: []byte("junk")})), 0o600)
		}, nil, []string{"box1.key", "key is damaged"}},
		"key with passphrase": {func(_ *site, f *Files) {
			write(f.Key, string(pem.EncodeToMemory(&pem.Block{Type: "ENCRYPTED PRIVATE KEY"})), 0o600)
		}, nil, []string{"box1.key", "passphrase"}},
		"too large": {func(_ *site, f *Files) { write(f.Cert, strings.Repeat("a", maxPEM+1), 0o644) }, nil, []string{"box1.crt", "larger than"}},
		"wrong key": {func(s *site, f *Files) { f.Key = s.issue("other", Request{Role: RoleBox, Name: "box2"}).Key }, ErrMismatch,
			[]string{"other.key", "box1.crt", "does not belong"}},
		"expired": {func(s *site, _ *Files) { s.clock.advance(400 * 24 * time.Hour) }, ErrExpired,
			[]string{"box1.crt", "shoal://box/box1", "expired on 2027-05-01 12:00 UTC", "35 days ago", "new one issued"}},
		"not yet valid": {func(s *site, _ *Files) { s.clock.advance(-time.Hour) }, ErrNotYetValid,
			[]string{"box1.crt", "valid from 2026-05-01 11:50 UTC", "clock, which says 2026-05-01 11:00 UTC"}},
		"other CA":   {func(_ *site, f *Files) { f.CA = newSite(t).path("ca.crt") }, ErrWrongCA, []string{"box1.crt", "was not signed by the CA in"}},
		"CA is none": {func(_ *site, f *Files) { f.CA = f.Cert }, nil, []string{"box1.crt", "is not of a CA"}},
		"no identity": {func(s *site, f *Files) { *f = s.issue("box1", Request{Hosts: []string{"mail.example.test"}}) }, ErrNoIdentity,
			[]string{"box1.crt", "0 URI names"}},
		"not named": {func(_ *site, f *Files) { f.Cert = "" }, nil, []string{"no certificate file is named"}},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSite(t)
			f := s.issue("box1", Request{Role: RoleBox, Name: "box1"})
			c.spoil(s, &f)
			_, err := Load(f, WithClock(s.clock.now))
			if err == nil {
				t.Fatal("loaded")
			}
			if c.is != nil && !errors.Is(err, c.is) {
				t.Errorf("%v is not %v", err, c.is)
			}
			for _, w := range c.want {
				if !strings.Contains(err.Error(), w) {
					t.Errorf("%q does not say %q", err, w)
				}
			}
		})
	}
}

func TestMutualTLS(t *testing.T) {
	s := newSite(t)
	box, sw := s.creds(RoleBox, "box1"), s.creds(RoleSwitch, "sw1")
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		client := sw.ClientTLS(RoleBox)
		client.MaxVersion = version
		o := shake(t, box.ServerTLS(RoleSwitch, RoleOperator), client)
		if o.client != nil || o.server != nil {
			t.Fatalf("version %x: client %v, server %v", version, o.client, o.server)
		}
		if role, name, err := PeerIdentity(o.server2); err != nil || role != RoleSwitch || name != "sw1" {
			t.Errorf("the server sees %s %s, %v", role, name, err)
		}
		if role, name, err := PeerIdentity(o.clientSt); err != nil || role != RoleBox || name != "box1" {
			t.Errorf("the client sees %s %s, %v", role, name, err)
		}
		if o.server2.Version != version {
			t.Errorf("version %x, wanted %x", o.server2.Version, version)
		}
	}
	o := shake(t, box.ServerTLS(RoleSwitch), sw.ClientTLS(RoleBox))
	if o.server2.Version != tls.VersionTLS13 {
		t.Errorf("left alone they speak %x", o.server2.Version)
	}
	old := sw.ClientTLS(RoleBox)
	old.MinVersion, old.MaxVersion = tls.VersionTLS10, tls.VersionTLS11
	if o := shake(t, box.ServerTLS(RoleSwitch), old); o.server == nil {
		t.Error("TLS 1.1 accepted")
	}
	if _, _, err := PeerIdentity(tls.ConnectionState{}); !errors.Is(err, ErrNoIdentity) {
		t.Errorf("no certificate: %v", err)
	}
}

// Who is refused by a server that wants switches, and with which error.
func TestServerRefuses(t *testing.T) {
	s, other := newSite(t), newSite(t)
	box := s.creds(RoleBox, "box1")
	public, err := LoadPublic(s.issue("p", Request{Hosts: []string{"a.test"}}).Cert, s.files("p").Key, WithClock(s.clock.now))
	if err != nil {
		t.Fatal(err)
	}
	forged := other.creds(RoleSwitch, "sw1").ClientTLS(RoleBox)
	forged.VerifyConnection = nil // the liar does not mind who we are
	none := s.creds(RoleSwitch, "sw2").ClientTLS(RoleBox)
	none.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &tls.Certificate{}, nil }
	anonymous := s.creds(RoleSwitch, "sw3").ClientTLS(RoleBox)
	anonymous.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return public.GetCertificate(nil) }
	short := s.load(s.issue("sw4", Request{Role: RoleSwitch, Name: "sw4", Validity: time.Hour})).ClientTLS(RoleBox)
	for name, c := range map[string]struct {
		client *tls.Config
		is     error
	}{
		"wrong role": {s.creds(RoleVault, "vault1").ClientTLS(RoleBox), ErrWrongRole}, "other CA": {forged, ErrWrongCA},
		"no certificate": {none, nil}, "no identity": {anonymous, ErrWrongCA}, "expired": {short, ErrExpired},
	} {
		t.Run(name, func(t *testing.T) {
			if name == "expired" {
				s.clock.advance(2 * time.Hour)
				defer s.clock.advance(-2 * time.Hour)
			}
			o := shake(t, box.ServerTLS(RoleSwitch), c.client)
			if o.server == nil || o.client == nil {
				t.Fatalf("accepted: client %v, server %v", o.client, o.server)
			}
			if c.is != nil && !errors.Is(o.server, c.is) {
				t.Errorf("server: %v, wanted %v", o.server, c.is)
			}
		})
	}
}

// Whom a client that wants a box does not talk to. An operator's certificate cannot serve.
func TestClientRefuses(t *testing.T) {
	s, other := newSite(t), newSite(t)
	sw := s.creds(RoleSwitch, "sw1")
	public, err := LoadPublic(s.issue("p", Request{Hosts: []string{"a.test"}}).Cert, s.files("p").Key, WithClock(s.clock.now))
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		server *tls.Config
		want   []string
		is     error
	}{
		"wrong role": {s.creds(RoleVault, "v1").ServerTLS(RoleSwitch), []string{RoleBox}, ErrWrongRole},
		"other CA":   {other.creds(RoleBox, "box1").ServerTLS(RoleSwitch), []string{RoleBox}, ErrWrongCA},
		"public":     {public, []string{RoleBox}, ErrNoIdentity},
		"operator":   {s.creds(RoleOperator, "op").ServerTLS(RoleSwitch), []string{RoleOperator}, ErrWrongCA},
	} {
		o := shake(t, c.server, sw.ClientTLS(c.want...))
		if !errors.Is(o.client, c.is) {
			t.Errorf("%s: %v, wanted %v", name, o.client, c.is)
		}
	}
}

// A session that was made while a role was accepted must not be resumed where it is not: neither after
// the list of roles changed, nor after the CA was replaced, nor after the certificate expired.
func TestResumptionChecksAgain(t *testing.T) {
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		s := newSite(t)
		box := s.creds(RoleBox, "box1")
		short := s.load(s.issue("sw1", Request{Role: RoleSwitch, Name: "sw1", Validity: time.Hour}))
		server := box.ServerTLS(RoleSwitch)
		client := short.ClientTLS(RoleBox)
		client.ServerName, client.MaxVersion = "box1", version
		client.ClientSessionCache = tls.NewLRUClientSessionCache(4)
		if o := shake(t, server, client); o.client != nil || o.server != nil {
			t.Fatalf("version %x: client %v, server %v", version, o.client, o.server)
		}
		o := shake(t, server, client)
		if o.server != nil || !o.server2.DidResume {
			t.Fatalf("version %x: not resumed, the test shows nothing: %v", version, o.server)
		}
		// The same ticket keys, another list of roles.
		vaults := server.Clone()
		vaults.VerifyConnection = box.ServerTLS(RoleVault).VerifyConnection
		if o := shake(t, vaults, client); !errors.Is(o.server, ErrWrongRole) {
			t.Errorf("version %x: role on resumption: %v", version, o.server)
		}
		s.clock.advance(2 * time.Hour)
		if o := shake(t, server, client); o.server == nil {
			t.Errorf("version %x: an expired certificate was resumed", version)
		}
		s.clock.advance(-2 * time.Hour)
		// A new CA, and the box's certificate of it, in the same files.
		fresh, err := NewCA(CAOptions{Now: s.clock.now})
		if err != nil {
			t.Fatal(err)
		}
		s.ca = fresh
		if err := fresh.Save(s.path("ca.crt"), s.path("ca.key")); err != nil {
			t.Fatal(err)
		}
		s.issue(RoleBox+"-box1", Request{Role: RoleBox, Name: "box1"})
		if err := box.Reload(); err != nil {
			t.Fatal(err)
		}
		client.VerifyConnection = nil
		if o := shake(t, server, client); !errors.Is(o.server, ErrWrongCA) {
			t.Errorf("version %x: the old CA's session was resumed: %v", version, o.server)
		}
	}
}

// Replaced files are taken up by the next handshake; broken ones are not, and are reported.
func TestReplacedFilesAreTakenUp(t *testing.T) {
	s := newSite(t)
	var log bytes.Buffer
	f := s.issue("box1", Request{Role: RoleBox, Name: "box1", Validity: time.Hour})
	box := s.load(f, WithLog(slog.New(slog.NewTextHandler(&log, nil))))
	sw := s.creds(RoleSwitch, "sw1")
	server := box.ServerTLS(RoleSwitch)
	first := box.NotAfter()

	s.issue("box1", Request{Role: RoleBox, Name: "box1", Validity: 48 * time.Hour})
	s.clock.advance(checkEvery)
	o := shake(t, server, sw.ClientTLS(RoleBox))
	if o.client != nil {
		t.Fatal(o.client)
	}
	if got := o.clientSt.PeerCertificates[0].NotAfter; !got.After(first) || !box.NotAfter().Equal(got) {
		t.Errorf("the old certificate was shown: %v", got)
	}
	if !strings.Contains(log.String(), "certificate replaced") {
		t.Errorf("not reported: %s", log.String())
	}

	good := box.NotAfter()
	if err := WriteFile(f.Key, []byte("junk"), 0o600); err != nil {
		t.Fatal(err)
	}
	s.clock.advance(checkEvery)
	if o := shake(t, server, sw.ClientTLS(RoleBox)); o.client != nil || !box.NotAfter().Equal(good) {
		t.Errorf("a broken key displaced a good one: %v", o.client)
	}
	if n := strings.Count(log.String(), "refused"); n != 1 {
		t.Errorf("reported %d times: %s", n, log.String())
	}
	s.clock.advance(checkEvery)
	shake(t, server, sw.ClientTLS(RoleBox))
	if n := strings.Count(log.String(), "refused"); n != 1 {
		t.Errorf("the same fault was reported %d times", n)
	}
	if err := box.Reload(); err == nil {
		t.Error("Reload accepts a broken key")
	}
	s.issue("box1", Request{Role: RoleBox, Name: "box2"})
	if err := box.Reload(); err == nil || !strings.Contains(err.Error(), "restart to change identity") {
		t.Errorf("another identity: %v", err)
	}
}

func TestPublic(t *testing.T) {
	s := newSite(t)
	f := s.issue("public", Request{Hosts: []string{"mail.example.test"}, Validity: time.Hour})
	p, err := OpenPublic(f.Cert, f.Key, WithClock(s.clock.now))
	if err != nil {
		t.Fatal(err)
	}
	server := p.TLS()
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(s.ca.CertPEM())
	client := &tls.Config{RootCAs: roots, ServerName: "mail.example.test", Time: s.clock.now}
	if o := shake(t, server, client); o.client != nil || o.server != nil {
		t.Fatalf("client %v, server %v", o.client, o.server)
	}
	s.issue("public", Request{Hosts: []string{"mail.example.test"}, Validity: 24 * time.Hour})
	s.clock.advance(2 * time.Hour)
	if o := shake(t, server, client); o.client != nil {
		t.Errorf("the renewed certificate was not taken up: %v", o.client)
	}
	if _, err := LoadPublic(f.Cert, s.path("none.key"), WithClock(s.clock.now)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no key: %v", err)
	}
	s.clock.advance(48 * time.Hour)
	if _, err := LoadPublic(f.Cert, f.Key, WithClock(s.clock.now)); !errors.Is(err, ErrExpired) {
		t.Errorf("expired: %v", err)
	}
	if err := p.Reload(); !errors.Is(err, ErrExpired) {
		t.Errorf("reload of an expired one: %v", err)
	}
}
