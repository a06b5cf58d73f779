package outbound

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/emersion/go-sasl"
	"github.com/emersion/go-smtp"

	"shoal/daemons/internal/clock"
	"shoal/daemons/internal/mailaddr"
)

// world is a DNS and a network made up for a test.
type world struct {
	mx    map[string][]*net.MX
	ip    map[string][]string
	fails map[string]error // by name

	mu    sync.Mutex
	at    map[string]string // "ip:port" -> where the listener really is
	dials []string
}

func newWorld() *world {
	return &world{mx: map[string][]*net.MX{}, ip: map[string][]string{}, fails: map[string]error{}, at: map[string]string{}}
}

var errNotFound = &net.DNSError{Err: "no such host", IsNotFound: true}

func (w *world) LookupMX(_ context.Context, name string) ([]*net.MX, error) {
	name = strings.TrimSuffix(name, ".")
	if err := w.fails[name]; err != nil {
		return nil, err
	}
	if l, ok := w.mx[name]; ok {
		return l, nil
	}
	return nil, errNotFound
}

func (w *world) LookupNetIP(_ context.Context, _, name string) ([]netip.Addr, error) {
	name = strings.TrimSuffix(name, ".")
	if err := w.fails[name]; err != nil {
		return nil, err
	}
	var out []netip.Addr
	for _, s := range w.ip[name] {
		out = append(out, netip.MustParseAddr(s))
	}
	if out == nil {
		return nil, errNotFound
	}
	return out, nil
}

func (w *world) dial(ctx context.Context, network, address string) (net.Conn, error) {
	w.mu.Lock()
	w.dials = append(w.dials, address)
	to, ok := w.at[address]
	w.mu.Unlock()
	if !ok {
		return nil, fmt.Errorf("dial %s: connection refused", address)
	}
	return new(net.Dialer).DialContext(ctx, network, to)
}

func (w *world) dialed() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return append([]string(nil), w.dials...)
}

// exchanger names a host, with its address, as the exchanger of a domain.
func (w *world) exchanger(domain string, pref uint16, host, ip, listener string) {
	w.mx[domain] = append(w.mx[domain], &net.MX{Host: host + ".", Pref: pref})
	w.ip[host] = append(w.ip[host], ip)
	if listener != "" {
		w.at[net.JoinHostPort(ip, "25")] = listener
	}
}

func (w *world) client(t *testing.T, change func(*Options)) *Client {
	t.Helper()
	o := Options{Settings: DefaultSettings(), Hostname: "mx.shoal.test", Resolver: w, Dial: w.dial, Clock: clock.System(),
		Own: []netip.Addr{netip.MustParseAddr("127.0.0.1")}}
	o.Settings.CommandTimeout = 5 * time.Second
	if change != nil {
		change(&o)
	}
	c, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// got is a message that a test's server took.
type got struct {
	from string
	mail smtp.MailOptions
	to   []string
	rcpt []smtp.RcptOptions
	data string
	tls  bool
	user string
}

// mailbox is a real SMTP server.
type mailbox struct {
	t    *testing.T
	addr string
	srv  *smtp.Server

	mu       sync.Mutex
	messages []got
	sessions int
	refuse   map[string]error // by recipient
	password string
}

func (m *mailbox) all() []got {
	m.mu.Lock()
	defer m.mu.Unlock()
	return append([]got(nil), m.messages...)
}

func serveSMTP(t *testing.T, change func(*mailbox)) *mailbox {
	t.Helper()
	m := &mailbox{t: t, refuse: map[string]error{}}
	m.srv = smtp.NewServer(smtp.BackendFunc(func(c *smtp.Conn) (smtp.Session, error) {
		m.mu.Lock()
		m.sessions++
		m.mu.Unlock()
		return &boxSession{m: m, c: c}, nil
	}))
	m.srv.Domain = "mx.far.test"
	if change != nil {
		change(m)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	m.addr = l.Addr().String()
	go m.srv.Serve(l)
	t.Cleanup(func() { m.srv.Close() })
	return m
}

type boxSession struct {
	m    *mailbox
	c    *smtp.Conn
	g    got
	user string
}

func (s *boxSession) AuthMechanisms() []string {
	if s.m.password == "" {
		return nil
	}
	return []string{sasl.Plain}
}

func (s *boxSession) Auth(string) (sasl.Server, error) {
	return sasl.NewPlainServer(func(_, user, password string) error {
		if password != s.m.password {
			return errors.New("wrong password")
		}
		s.user = user
		return nil
	}), nil
}

func (s *boxSession) Mail(from string, o *smtp.MailOptions) error {
	_, secure := s.c.TLSConnectionState()
	s.g = got{from: from, mail: *o, tls: secure, user: s.user}
	return nil
}

func (s *boxSession) Rcpt(to string, o *smtp.RcptOptions) error {
	if err := s.m.refuse[to]; err != nil {
		return err
	}
	s.g.to, s.g.rcpt = append(s.g.to, to), append(s.g.rcpt, *o)
	return nil
}

func (s *boxSession) Data(r io.Reader) error {
	b, err := io.ReadAll(r)
	if err != nil {
		return err
	}
	s.g.data = string(b)
	s.m.mu.Lock()
	s.m.messages = append(s.m.messages, s.g)
	s.m.mu.Unlock()
	return nil
}

func (s *boxSession) Reset()        {}
func (s *boxSession) Logout() error { return nil }

// script is a server that answers each line by a function: "" closes the connection. lines is what it was told.
type script struct {
	addr string

	mu    sync.Mutex
	lines []string
	conns int
}

func (s *script) told() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]string(nil), s.lines...)
}

func (s *script) opened() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.conns
}

func serveScript(t *testing.T, greeting string, answer func(conn int, line string) string) *script {
	t.Helper()
	s := &script{}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s.addr = l.Addr().String()
	var all sync.WaitGroup
	t.Cleanup(func() { l.Close(); all.Wait() })
	all.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			s.mu.Lock()
			s.conns++
			n := s.conns
			s.mu.Unlock()
			all.Go(func() { s.serve(c, n, greeting, answer) })
		}
	})
	return s
}

func (s *script) serve(c net.Conn, n int, greeting string, answer func(int, string) string) {
	defer c.Close()
	c.SetDeadline(time.Now().Add(20 * time.Second))
	fmt.Fprintf(c, "%s\r\n", greeting)
	r := bufio.NewReader(c)
	for {
		line, err := r.ReadString('\n')
		if err != nil {
			return
		}
		line = strings.TrimSuffix(line, "\r\n")
		s.mu.Lock()
		s.lines = append(s.lines, line)
		s.mu.Unlock()
		a := answer(n, line)
		if a == "" {
			return
		}
		if a == "-" { // no answer
			continue
		}
		fmt.Fprintf(c, "%s\r\n", a)
	}
}

func verb(line string) string {
	v, _, _ := strings.Cut(line, " ")
	return strings.ToUpper(v)
}

func addr(t *testing.T, s string) mailaddr.Address {
	t.Helper()
	a, err := mailaddr.Parse(s)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// mailOf makes a message from alice to the given recipients.
func mailOf(t *testing.T, text string, to ...string) (*Message, []Rcpt) {
	t.Helper()
	m := &Message{From: addr(t, "alice@shoal.test"), Size: int64(len(text)), Open: func() io.Reader { return strings.NewReader(text) }}
	var rcpts []Rcpt
	for _, a := range to {
		rcpts = append(rcpts, Rcpt{Address: addr(t, a)})
	}
	return m, rcpts
}

func certificate(t *testing.T, name string) (tls.Certificate, *x509.CertPool) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, DNSNames: []string{name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(leaf)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, pool
}
