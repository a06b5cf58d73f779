package smtpguard

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"io"
	"math/big"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/emersion/go-sasl"
	"github.com/emersion/go-smtp"

	"shoal/tests/dialogue"
)

// sink is a Backend that keeps what it accepts. The recipient's local part chooses what happens:
// nobody is refused at RCPT, early at DATA before the message is read, panic panics there.
type sink struct {
	mu       sync.Mutex
	messages []message
}

type message struct {
	from  string
	rcpts []string
	text  string
}

func (k *sink) NewSession(c *Conn) (smtp.Session, error) {
	s := &sinkSession{sink: k, c: c}
	if c.g.o.LMTP {
		return &lmtpSinkSession{s}, nil
	}
	return s, nil
}

func (k *sink) accepted() []message {
	k.mu.Lock()
	defer k.mu.Unlock()
	return append([]message(nil), k.messages...)
}

type sinkSession struct {
	sink *sink
	c    *Conn
	mu   sync.Mutex
	m    message
}

func (s *sinkSession) Reset() {
	s.mu.Lock()
	s.m = message{}
	s.mu.Unlock()
}

func (s *sinkSession) Logout() error { return nil }

func (s *sinkSession) Mail(from string, _ *smtp.MailOptions) error {
	s.mu.Lock()
	s.m = message{from: from}
	s.mu.Unlock()
	return nil
}

func (s *sinkSession) Rcpt(to string, _ *smtp.RcptOptions) error {
	if strings.HasPrefix(to, "nobody@") {
		return &smtp.SMTPError{Code: 550, EnhancedCode: smtp.EnhancedCode{5, 1, 1}, Message: "No such mailbox"}
	}
	s.mu.Lock()
	s.m.rcpts = append(s.m.rcpts, to)
	s.mu.Unlock()
	return nil
}

func (s *sinkSession) Data(r io.Reader) error {
	s.mu.Lock()
	m := s.m
	s.mu.Unlock()
	switch local, _, _ := strings.Cut(m.rcpts[0], "@"); local {
	case "early":
		return &smtp.SMTPError{Code: 451, EnhancedCode: smtp.EnhancedCode{4, 3, 0}, Message: "Not now"}
	case "panic":
		panic("as the test wants it")
	}
	text, err := io.ReadAll(r)
	if err != nil {
		return err
	}
	m.text = string(text)
	s.sink.mu.Lock()
	s.sink.messages = append(s.sink.messages, m)
	s.sink.mu.Unlock()
	return nil
}

func (s *sinkSession) AuthMechanisms() []string { return []string{"PLAIN"} }

func (s *sinkSession) Auth(mech string) (sasl.Server, error) {
	if mech != "PLAIN" {
		return nil, smtp.ErrAuthUnknownMechanism
	}
	return sasl.NewPlainServer(func(_, user, password string) error {
		if user != "alice" || password != "secret" {
			return smtp.ErrAuthFailed
		}
		return nil
	}), nil
}

type lmtpSinkSession struct{ *sinkSession }

func (s *lmtpSinkSession) LMTPData(r io.Reader, status smtp.StatusCollector) error {
	s.mu.Lock()
	rcpts := s.m.rcpts
	s.mu.Unlock()
	err := s.Data(r)
	for _, rcpt := range rcpts {
		if strings.HasPrefix(rcpt, "full@") && err == nil {
			status.SetStatus(rcpt, &smtp.SMTPError{Code: 452, EnhancedCode: smtp.EnhancedCode{4, 2, 2}, Message: "Mailbox full"})
			continue
		}
		status.SetStatus(rcpt, err)
	}
	return nil
}

// testTLS makes a throw-away certificate.
func testTLS(t testing.TB) *tls.Config {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "mx.example.test"},
		DNSNames: []string{"mx.example.test"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	return &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}
}

// serve starts a Guard on a loopback port.
func serve(t testing.TB, o Options) (*Guard, string, *sink) {
	t.Helper()
	k := &sink{}
	o.Backend = k
	if o.Hostname == "" {
		o.Hostname = "mx.example.test"
	}
	if o.MaxMessageBytes == 0 {
		o.MaxMessageBytes = 1 << 20
	}
	g, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- g.Serve(l) }()
	t.Cleanup(func() {
		g.Close()
		if err := <-done; err != nil {
			t.Errorf("Serve: %v", err)
		}
	})
	return g, l.Addr().String(), k
}

func dial(addr string) dialogue.Dial {
	return func() (net.Conn, error) { return net.Dial("tcp", addr) }
}

func TestScripts(t *testing.T) {
	tlsConfig := testTLS(t)
	targets := map[string]dialogue.Dial{}
	add := func(name string, o Options) {
		_, addr, _ := serve(t, o)
		targets[name] = dial(addr)
	}
	add("smtp", Options{})
	add("lmtp", Options{LMTP: true, DSN: true})
	_, addr, kept := serve(t, Options{LMTP: true, Binary: true, MaxErrors: 100})
	targets["binary"] = dial(addr)
	add("tls", Options{TLS: tlsConfig, Auth: true})
	add("strict", Options{TLS: tlsConfig, Auth: true, RequireTLS: true})
	add("small", Options{MaxMessageBytes: 1000, MaxTextLine: 100, MaxRecipients: 2, MaxErrors: 5})
	dialogue.RunFiles(t, "testdata/*.txt", targets)
	var texts []string
	for _, m := range kept.accepted() {
		texts = append(texts, m.text)
	}
	if want := []string{"\x00\n\r.\r\n.\r\n", "\x00", "x\r\n", "x"}; !slices.Equal(texts, want) {
		t.Errorf("the messages of binarymime.txt are %q, want %q", texts, want)
	}
}

func TestNewRefuses(t *testing.T) {
	k := &sink{}
	for _, o := range []Options{
		{Backend: k, MaxMessageBytes: 1},
		{Hostname: "h", MaxMessageBytes: 1},
		{Hostname: "h", Backend: k},
		{Hostname: "h", Backend: k, MaxMessageBytes: 1<<32 + 1},
		{Hostname: "h", Backend: k, MaxMessageBytes: 1, ImplicitTLS: true},
	} {
		if _, err := New(o); err == nil {
			t.Errorf("New(%+v) gave no error", o)
		}
	}
}

func TestConnectionLimits(t *testing.T) {
	_, addr, _ := serve(t, Options{MaxConnections: 3, MaxConnectionsPerAddress: 2})
	dialogue.Run(t, `
open 1 smtp
S1: 220 {{.*}}
open 2 smtp
S2: 220 {{.*}}
open 3 smtp
S3: 421 4.7.0 Too many connections from your address, try again later
eof 3
C1: QUIT
S1: 221 {{.*}}
eof 1
C2: EHLO me
S2~: 250 {{.*}}
`, map[string]dialogue.Dial{"smtp": dial(addr)})

	_, addr, _ = serve(t, Options{MaxConnections: 1})
	dialogue.Run(t, `
open 1 smtp
S1: 220 {{.*}}
open 2 smtp
S2: 421 4.3.2 {{.*}}
eof 2
`, map[string]dialogue.Dial{"smtp": dial(addr)})
}

func TestEarlyTalker(t *testing.T) {
	_, addr, _ := serve(t, Options{GreetDelay: 100 * time.Millisecond})
	dialogue.Run(t, `
open 1 smtp
C1: EHLO me
S1: 554 5.5.0 You must wait for the greeting
eof 1
open 2 smtp
S2: 220 {{.*}}
C2: EHLO me
S2~: 250 {{.*}}
`, map[string]dialogue.Dial{"smtp": dial(addr)})
}

// A client that is too slow is closed out; what it sends afterwards is nobody's command.
func TestSlowClient(t *testing.T) {
	_, addr, k := serve(t, Options{ReadTimeout: 100 * time.Millisecond})
	for _, script := range []string{`
open 1 smtp
S1: 220 {{.*}}
S1: 421 4.4.2 {{.*}}
eof 1
`, `
open 1 smtp
S1: 220 {{.*}}
C1: EHLO me
S1~: 250 {{.*}}
C1: MAIL FROM:<a@b.test>
S1: 250 {{.*}}
C1: RCPT TO:<c@d.test>
S1: 250 {{.*}}
C1: DATA
S1: 354 {{.*}}
C1: Subject: slow
S1: 421 4.4.2 {{.*}}
eof 1
`, `
open 1 smtp
S1: 220 {{.*}}
C1: EHLO me
S1~: 250 {{.*}}
C1: MAIL FROM:<a@b.test>
S1: 250 {{.*}}
C1: RCPT TO:<c@d.test>
S1: 250 {{.*}}
C1: BDAT 1000 LAST
C1: Subject: slow
S1: 421 4.4.2 {{.*}}
eof 1
`} {
		dialogue.Run(t, script, map[string]dialogue.Dial{"smtp": dial(addr)})
	}
	if m := k.accepted(); len(m) != 0 {
		t.Errorf("accepted %q", m)
	}
}

// The whole transaction has a bound of its own, however busy the client keeps the connection.
func TestTransactionTimeout(t *testing.T) {
	_, addr, k := serve(t, Options{TransactionTimeout: 150 * time.Millisecond})
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(20 * time.Second))
	r := newLines(conn)
	r.expect(t, "220")
	for _, s := range []string{"EHLO me", "MAIL FROM:<a@b.test>", "RCPT TO:<c@d.test>"} {
		io.WriteString(conn, s+"\r\n")
		r.expect(t, "250")
	}
	io.WriteString(conn, "DATA\r\n")
	r.expect(t, "354")
	done := make(chan struct{})
	go func() { // a line now and then, for ever
		defer close(done)
		tick := time.NewTicker(10 * time.Millisecond)
		defer tick.Stop()
		for range tick.C {
			if _, err := io.WriteString(conn, "drip\r\n"); err != nil {
				return
			}
		}
	}()
	r.expect(t, "421")
	<-done
	if m := k.accepted(); len(m) != 0 {
		t.Errorf("accepted %q", m)
	}
}

func TestErrorDelay(t *testing.T) {
	_, addr, _ := serve(t, Options{MaxErrors: 4, ErrorDelay: 50 * time.Millisecond})
	start := time.Now()
	dialogue.Run(t, `
open 1 smtp
S1: 220 {{.*}}
repeat 4
C1: NONSENSE
S1: 500 5.5.2 {{.*}}
end
S1: 421 4.7.0 Too many errors, closing the connection
eof 1
`, map[string]dialogue.Dial{"smtp": dial(addr)})
	if d := time.Since(start); d < 50*time.Millisecond {
		t.Errorf("four errors took %v: no delay", d)
	}
}

// Shutdown says 421 to who is idle, and lets a transaction come to its end first.
func TestShutdown(t *testing.T) {
	g, addr, k := serve(t, Options{})
	open := func(lines ...string) (net.Conn, *lines) {
		conn, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		conn.SetDeadline(time.Now().Add(20 * time.Second))
		r := newLines(conn)
		r.expect(t, "220")
		for _, l := range lines {
			io.WriteString(conn, l+"\r\n")
			r.expect(t, "250")
		}
		return conn, r
	}
	_, idle := open("EHLO me")
	busy, busyLines := open("EHLO me", "MAIL FROM:<a@b.test>", "RCPT TO:<c@d.test>")
	done := make(chan error, 1)
	go func() {
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		defer cancel()
		done <- g.Shutdown(ctx)
	}()
	idle.expect(t, "421")
	idle.eof(t)
	io.WriteString(busy, "DATA\r\n")
	busyLines.expect(t, "354")
	io.WriteString(busy, "Subject: x\r\n\r\ny\r\n.\r\n")
	busyLines.expect(t, "250")
	busyLines.expect(t, "421")
	busyLines.eof(t)
	if err := <-done; err != nil {
		t.Errorf("Shutdown: %v", err)
	}
	if m := k.accepted(); len(m) != 1 {
		t.Errorf("accepted %q", m)
	}
	if conn, err := net.Dial("tcp", addr); err == nil {
		conn.Close()
		t.Error("still accepting")
	}
}

func TestShutdownCutsWhatStays(t *testing.T) {
	g, addr, k := serve(t, Options{})
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(20 * time.Second))
	r := newLines(conn)
	r.expect(t, "220")
	for _, s := range []string{"EHLO me", "MAIL FROM:<a@b.test>", "RCPT TO:<c@d.test>"} {
		io.WriteString(conn, s+"\r\n")
		r.expect(t, "250")
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := g.Shutdown(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("Shutdown: %v", err)
	}
	r.eof(t)
	if m := k.accepted(); len(m) != 0 {
		t.Errorf("accepted %q", m)
	}
}

// A connection that ends in the middle leaves no message, by DATA or by BDAT, in SMTP or LMTP.
func TestCutOff(t *testing.T) {
	for _, lmtp := range []bool{false, true} {
		_, addr, k := serve(t, Options{LMTP: lmtp})
		hello := "EHLO me"
		if lmtp {
			hello = "LHLO me"
		}
		for _, end := range []string{"DATA\r\n|Subject: x\r\n\r\nhalf", "DATA\r\n|Subject: x\r\n.", "DATA\r\n|Subject: x\r\n.\r",
			"BDAT 100 LAST\r\nSubject: x\r\n", "BDAT 3\r\nabcBDAT 100 LAST\r\nhalf", "BDAT 3\r\nabc"} {
			conn, err := net.Dial("tcp", addr)
			if err != nil {
				t.Fatal(err)
			}
			conn.SetDeadline(time.Now().Add(20 * time.Second))
			r := newLines(conn)
			r.expect(t, "220")
			for _, s := range []string{hello, "MAIL FROM:<a@b.test>", "RCPT TO:<c@d.test>"} {
				io.WriteString(conn, s+"\r\n")
				r.expect(t, "250")
			}
			first, rest, data := strings.Cut(end, "|")
			io.WriteString(conn, first)
			if data {
				r.expect(t, "354")
				io.WriteString(conn, rest)
			}
			conn.(*net.TCPConn).CloseWrite()
			io.Copy(io.Discard, r.r) // until the server has closed
			conn.Close()
		}
		if m := k.accepted(); len(m) != 0 {
			t.Errorf("lmtp %v: accepted %q", lmtp, m)
		}
	}
}

func TestImplicitTLS(t *testing.T) {
	_, addr, k := serve(t, Options{TLS: testTLS(t), ImplicitTLS: true, Auth: true, HandshakeTimeout: 200 * time.Millisecond})
	targets := map[string]dialogue.Dial{
		"plain": dial(addr),
		"tls":   func() (net.Conn, error) { return tls.Dial("tcp", addr, &tls.Config{InsecureSkipVerify: true}) },
	}
	dialogue.Run(t, `
open 1 tls
S1: 220 {{.*}}
C1: EHLO me
S1!: {{.*}}STARTTLS
S1~: 250-AUTH PLAIN
S1~: 250 {{.*}}
C1: STARTTLS
S1: 503 {{.*}}
C1: MAIL FROM:<a@b.test>
S1: 250 {{.*}}
C1: RCPT TO:<c@d.test>
S1: 250 {{.*}}
C1: DATA
S1: 354 {{.*}}
C1: x
C1: .
S1: 250 {{.*}}
C1: QUIT
S1: 221 {{.*}}
eof 1
# nobody waits for a client that never begins the handshake
open 2 plain
eof 2
`, targets)
	if m := k.accepted(); len(m) != 1 || m[0].text != "x\r\n" {
		t.Errorf("accepted %q", m)
	}
}

// A session that panics costs its own connection only, and nothing of the message becomes a command.
func TestPanic(t *testing.T) {
	for _, lmtp := range []bool{false, true} {
		_, addr, k := serve(t, Options{LMTP: lmtp})
		hello := "EHLO"
		if lmtp {
			hello = "LHLO"
		}
		dialogue.Run(t, `
open 1 smtp
S1: 220 {{.*}}
C1: ${hello} me
S1~: 250 {{.*}}
C1: MAIL FROM:<a@b.test>
S1: 250 {{.*}}
C1: RCPT TO:<panic@d.test>
S1: 250 {{.*}}
C1: DATA
S1: 354 {{.*}}
C1!: RSET\r\nMAIL FROM:<evil@b.test>\r\nRCPT TO:<c@d.test>\r\nDATA\r\n
S1!: 250 {{.*}}
S1: 421 {{.*}}
eof 1
`, map[string]dialogue.Dial{"smtp": dial(addr)}, dialogue.Vars(map[string]string{"hello": hello}))
		if m := k.accepted(); len(m) != 0 {
			t.Errorf("accepted %q", m)
		}
	}
}
