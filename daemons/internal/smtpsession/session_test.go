package smtpsession

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/emersion/go-smtp"
	"github.com/prometheus/client_golang/prometheus"

	"shoal/daemons/internal/authn"
	"shoal/daemons/internal/clock"
	"shoal/daemons/internal/deliver"
	"shoal/daemons/internal/dirclient"
	"shoal/daemons/internal/mailaddr"
	"shoal/daemons/internal/pki"
	"shoal/daemons/internal/route"
	"shoal/daemons/internal/smtpguard"
	"shoal/tests/dialogue"
)

// box is the LMTP sink behind the switch: go-smtp behind the guard, as in the real box. The recipient's local part
// chooses what happens: no, closed and later are refused at RCPT, full and gone after the message; drop cuts the connection
// before the replies.
type box struct {
	addr  string
	mu    sync.Mutex
	got   []stored
	envs  []string
	conns []net.Conn
}

// boxListener remembers the connections, so that a test can cut them.
type boxListener struct {
	net.Listener
	b *box
}

func (l boxListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err == nil {
		l.b.mu.Lock()
		l.b.conns = append(l.b.conns, c)
		l.b.mu.Unlock()
	}
	return c, err
}

func (b *box) cut() {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, c := range b.conns {
		c.Close()
	}
	b.conns = nil
}

type stored struct{ from, rcpt, text string }

func newBox(t testing.TB) *box {
	b := &box{}
	g, err := smtpguard.New(smtpguard.Options{Hostname: "box1.test", LMTP: true, DSN: true, Backend: b, MaxMessageBytes: 8 << 20})
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	b.addr = l.Addr().String()
	done := make(chan error, 1)
	go func() { done <- g.Serve(boxListener{l, b}) }()
	t.Cleanup(func() { g.Close(); <-done })
	return b
}

func (b *box) stored() []stored {
	b.mu.Lock()
	defer b.mu.Unlock()
	return append([]stored(nil), b.got...)
}

func (b *box) NewSession(*smtpguard.Conn) (smtp.Session, error) {
	return &boxSession{b: b}, nil
}

type boxSession struct {
	b     *box
	mu    sync.Mutex
	from  string
	rcpts []string
}

func (s *boxSession) Reset() {
	s.mu.Lock()
	s.rcpts = nil
	s.mu.Unlock()
}
func (s *boxSession) Logout() error        { return nil }
func (s *boxSession) Data(io.Reader) error { return errors.New("LMTP only") }

func (s *boxSession) Mail(from string, o *smtp.MailOptions) error {
	s.mu.Lock()
	s.from, s.rcpts = from, nil
	s.mu.Unlock()
	s.b.mu.Lock()
	s.b.envs = append(s.b.envs, o.EnvelopeID)
	s.b.mu.Unlock()
	return nil
}

func (s *boxSession) Rcpt(to string, _ *smtp.RcptOptions) error {
	switch local, _, _ := strings.Cut(to, "@"); local {
	case "no":
		return reply(550, 5, 1, 1, "No such mailbox here")
	case "later":
		return reply(452, 4, 2, 2, "Over quota")
	case "strange":
		return reply(530, 5, 7, 0, "Who are you")
	}
	s.mu.Lock()
	s.rcpts = append(s.rcpts, to)
	s.mu.Unlock()
	return nil
}

func (s *boxSession) LMTPData(r io.Reader, status smtp.StatusCollector) error {
	s.mu.Lock()
	from, rcpts := s.from, s.rcpts
	s.mu.Unlock()
	text, err := io.ReadAll(r)
	if err != nil {
		return err
	}
	for _, rcpt := range rcpts {
		switch local, _, _ := strings.Cut(rcpt, "@"); local {
		case "full":
			status.SetStatus(rcpt, reply(452, 4, 2, 2, "Mailbox full"))
			continue
		case "gone":
			status.SetStatus(rcpt, reply(550, 5, 2, 1, "Mailbox closed"))
			continue
		case "drop":
			s.b.cut()
		}
		s.b.mu.Lock()
		s.b.got = append(s.b.got, stored{from, rcpt, string(text)})
		s.b.mu.Unlock()
		status.SetStatus(rcpt, nil)
	}
	return nil
}

// router knows the domain d.test: nobody, suspended and broken are what they say, alias is alice, catch-all@d.test takes
// the local parts that begin with any, everybody else is an account.
type router struct{}

func (router) Route(_ context.Context, a mailaddr.Address) (route.Decision, error) {
	if a.IsPostmaster() && a.Domain == "" {
		a = mailaddr.Address{Local: "postmaster", Domain: "d.test"}
	}
	local, domain, _ := strings.Cut(a.Key(), "@")
	if domain != "d.test" {
		return route.Decision{Outcome: route.Foreign}, nil
	}
	base, detail, _ := strings.Cut(local, "+")
	local = base
	via := route.ViaAddress
	if detail != "" {
		via = route.ViaSubaddress
	}
	switch {
	case local == "nobody":
		return route.Decision{Outcome: route.Unknown}, nil
	case local == "suspended":
		return route.Decision{Outcome: route.Suspended}, nil
	case local == "directory-down":
		return route.Decision{}, dirclient.ErrUnavailable
	case local == "broken":
		return route.Decision{Outcome: route.Local, Account: &dirclient.Account{Address: "not an address"}}, nil
	case local == "alias":
		local = "alice"
	case strings.HasPrefix(local, "any"):
		local, via = "alice", route.ViaCatchAll
	}
	account := &dirclient.Account{ID: local + "-0001", Address: local + "@d.test", Addresses: []string{local + "@d.test"}}
	return route.Decision{Outcome: route.Local, Account: account, Via: via}, nil
}

type logins struct{}

func (l logins) Password(_ context.Context, from authn.From, user, password string) (*authn.Grant, error) {
	account, err := l.login(user, password, from.Remote)
	if err != nil {
		return nil, err
	}
	return &authn.Grant{From: from, Account: account}, nil
}

// Bearer takes the token "token-of-alice".
func (l logins) Bearer(ctx context.Context, from authn.From, user, token string) (*authn.Grant, error) {
	if token != "token-of-alice" || user != "" && user != "alice@d.test" {
		return nil, authn.ErrBadCredentials
	}
	return l.Password(ctx, from, "alice@d.test", "secret")
}

func (logins) Watch(*authn.Grant, func(string)) func() { return func() {} }

func (logins) login(user, password, remote string) (*dirclient.Account, error) {
	switch {
	case remote != "127.0.0.1":
		return nil, fmt.Errorf("remote is %q", remote)
	case user == "suspended@d.test" && password == "secret":
		return nil, authn.ErrSuspended
	case user == "down@d.test":
		return nil, authn.ErrUnavailable
	case user == "alice@d.test" && password == "secret":
		return &dirclient.Account{ID: "alice-0001", Address: "alice@d.test"}, nil
	}
	return nil, authn.ErrBadCredentials
}

func testLimits() Limits {
	l := DefaultLimits()
	l.MaxMessage, l.MaxHeader, l.MaxHops, l.MaxOwnHops, l.MaxRecipients, l.MaxErrors, l.ErrorDelay = 1<<20, 64<<10, 5, 2, 100, 50, 0
	return l
}

type rig struct {
	t       testing.TB
	box     *box
	targets map[string]dialogue.Dial
	servers map[string]*Server
	log     *lockedBuffer
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func publicTLS(t testing.TB) *tls.Config {
	t.Helper()
	ca, err := pki.NewCA(pki.CAOptions{})
	if err != nil {
		t.Fatal(err)
	}
	pair, err := ca.Issue(pki.Request{Hosts: []string{"mx.d.test"}})
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	cert, key := filepath.Join(dir, "crt"), filepath.Join(dir, "key")
	for name, content := range map[string][]byte{cert: pair.Cert, key: pair.Key} {
		if err := os.WriteFile(name, content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	config, err := pki.LoadPublic(cert, key)
	if err != nil {
		t.Fatal(err)
	}
	return config
}

func newRig(t testing.TB, change ...func(*Options)) *rig {
	t.Helper()
	r := &rig{t: t, box: newBox(t), targets: map[string]dialogue.Dial{}, servers: map[string]*Server{}, log: &lockedBuffer{}}
	out, err := deliver.New(deliver.Options{Settings: to([]string{r.box.addr}), Name: "mx.d.test"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { out.Close() })
	public := publicTLS(t)
	metrics := NewMetrics(prometheus.NewRegistry())
	traces := NewTraces("switch1", clock.System())
	for _, kind := range []Options{{Listener: "smtp"}, {Listener: "submission", Submission: true},
		{Listener: "submissions", Submission: true, ImplicitTLS: true}} {
		o := kind
		o.Hostname, o.Router, o.Transport, o.Auth, o.Traces, o.TLS = "mx.d.test", router{}, out, logins{}, traces, public
		o.Limits, o.Metrics, o.Log = testLimits(), metrics, slog.New(slog.NewTextHandler(r.log, nil))
		o.Clock = clock.NewFake(time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC))
		for _, f := range change {
			f(&o)
		}
		srv, err := New(o)
		if err != nil {
			t.Fatal(err)
		}
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		addr, done := l.Addr().String(), make(chan error, 1)
		go func() { done <- srv.Serve(l) }()
		t.Cleanup(func() {
			srv.Close()
			if err := <-done; err != nil {
				t.Errorf("Serve: %v", err)
			}
		})
		r.servers[o.Listener] = srv
		r.targets[o.Listener] = func() (net.Conn, error) {
			if kind.ImplicitTLS {
				return tls.Dial("tcp", addr, &tls.Config{InsecureSkipVerify: true})
			}
			return net.Dial("tcp", addr)
		}
	}
	return r
}

func (r *rig) play(script string) {
	r.t.Helper()
	dialogue.Run(r.t, script, r.targets)
}

const hello = `
open 1 smtp
S1: 220 mx.d.test ESMTP {{.*}}
C1: EHLO client.test
S1~: 250 {{.*}}
`

func TestScripts(t *testing.T) {
	r := newRig(t)
	dialogue.RunFiles(t, "testdata/*.txt", r.targets)
}

var traceRE = regexp.MustCompile(`id [0-9a-v]{21}`)

func TestReceived(t *testing.T) {
	r := newRig(t)
	r.play(hello + `
C1: MAIL FROM:<a@b.test> SIZE=100
S1: 250 {{.*}}
C1: RCPT TO:<Alias+x@d.test>
S1: 250 {{.*}}
C1: DATA
S1: 354 {{.*}}
C1: Subject: x
C1:
C1: ..dot
C1: .
S1: 250 2.0.0 Delivered, id {{trace=.*}}
C1: HELO client.test
S1: 250 mx.d.test
C1!: MAIL FROM:<>\r\nRCPT TO:<bob@d.test>\r\nRCPT TO:<carol@d.test>\r\nDATA\r\n
S1~: 354 {{.*}}
C1!: no header at all\r\n.\r\n
S1: 250 2.0.0 {{.*}}
C1: STARTTLS
S1: 220 {{.*}}
starttls 1
C1: EHLO [127.0.0.1]
S1~: 250 {{.*}}
C1!: MAIL FROM:<ü@b.test> SMTPUTF8\r\nRCPT TO:<ö@d.test>\r\nBDAT 14\r\nSubject: y\r\n\r\nBDAT 2 LAST\r\n\r\n
repeat 4
S1: 250 {{.*}}
end
`)
	got := r.box.stored()
	if len(got) != 4 {
		t.Fatalf("%d deliveries", len(got))
	}
	for i, want := range []stored{
		{"a@b.test", "alice@d.test", "Received: from client.test ([127.0.0.1])\r\n\tby mx.d.test with ESMTP id #\r\n\tfor <Alias+x@d.test>; " +
			"Mon, 23 Nov 2026 12:00:00 +0000\r\nSubject: x\r\n\r\n.dot\r\n"},
		{"", "bob@d.test", "Received: from client.test ([127.0.0.1])\r\n\tby mx.d.test with SMTP id #; Mon, 23 Nov 2026 12:00:00 +0000\r\n" +
			"\r\nno header at all\r\n"},
	} {
		got[i].text = traceRE.ReplaceAllString(got[i].text, "id #")
		if got[i] != want {
			t.Errorf("got  %+v\nwant %+v", got[i], want)
		}
	}
	last := got[len(got)-1]
	if last.rcpt != "ö@d.test" || !strings.Contains(last.text, "from [127.0.0.1] ([127.0.0.1])\r\n\t(using TLS1.3 with cipher TLS_") ||
		!strings.Contains(last.text, "with UTF8SMTPS id ") || !strings.HasSuffix(last.text, "Subject: y\r\n\r\n\r\n") {
		t.Errorf("over TLS: %+v", last)
	}
	if trace := r.box.envs[0]; !strings.Contains(r.log.String(), "trace="+trace) || len(trace) > 26 {
		t.Errorf("trace %q of the envelope is not in the log", trace)
	}
}

// One message, several recipients, one reply.
func TestCombined(t *testing.T) {
	r := newRig(t)
	for _, tt := range []struct{ rcpts, reply string }{
		{"bob carol", "250 2.0.0 "},
		{"bob bob alias alice", "250 2.0.0 "},
		{"full", "452 4.2.2 Mailbox full"},
		{"gone", "550 5.2.1 Mailbox closed"},
		{"gone gone", "550 5.2.1 Mailbox closed"},
		{"full gone", "451 4.3.0 "},
		{"bob full", "451 4.3.0 "},
		{"bob gone", "451 4.3.0 "},
		{"drop", "451 4.3.0 "},
		{"bob drop", "451 4.3.0 "},
	} {
		for _, bdat := range []bool{false, true} {
			script := hello + "C1: MAIL FROM:<a@b.test>\nS1: 250 {{.*}}\n"
			for rcpt := range strings.FieldsSeq(tt.rcpts) {
				script += "C1: RCPT TO:<" + rcpt + "@d.test>\nS1: 250 {{.*}}\n"
			}
			if bdat {
				script += "C1!: BDAT 14 LAST\\r\\nSubject: x\\r\\n\\r\\n\n"
			} else {
				script += "C1: DATA\nS1: 354 {{.*}}\nC1: Subject: x\nC1:\nC1: .\n"
			}
			r.play(script + "S1: " + tt.reply + "{{.*}}\nC1: NOOP\nS1: 250 {{.*}}\n")
		}
	}
	n := 0
	for _, s := range r.box.stored() {
		if s.rcpt == "alice@d.test" {
			n++
		}
	}
	if n != 2 {
		t.Errorf("alice, under two addresses, has %d copies of two messages", n)
	}
}

func TestLoops(t *testing.T) {
	r := newRig(t)
	send := func(header, reply string) {
		t.Helper()
		r.play(hello + "C1: MAIL FROM:<a@b.test>\nS1: 250 {{.*}}\nC1: RCPT TO:<Bob@d.test>\nS1: 250 {{.*}}\nC1: DATA\nS1: 354 {{.*}}\nC1!: " +
			header + "Subject: x\\r\\n\\r\\nReceived: not a field\\r\\nDelivered-To: bob@d.test\\r\\n.\\r\\n\nS1: " + reply + "{{.*}}\n")
	}
	send("", "250 ")
	send(strings.Repeat(`Received: from x by y.test;\r\n`, 5), "250 ")
	send(strings.Repeat(`received : from x\r\n by y.test;\r\n`, 6), "554 5.4.6 ")
	send(strings.Repeat(`Received: from x\r\n\tby MX.d.test with SMTP\r\n`, 2), "250 ")
	send(strings.Repeat(`Received: from x\r\n\tby MX.d.test with SMTP\r\n`, 3), "554 5.4.6 ")
	send(`Delivered-To: carol@d.test\r\n`, "250 ")
	send(`Delivered-To: BOB@d.test\r\n`, "554 5.4.6 ")
	send(`Delivered-To: not an address\r\n`, "250 ")
	send(`X: ${A*65000}\r\nY: ${A*1000}\r\n`, "552 5.3.4 ")
	send(`From alice Mon Nov 23 12:00:00 2026\r\nDelivered-To: bob@d.test\r\n`, "554 5.4.6 ")
	if n := len(r.box.stored()); n != 5 {
		t.Errorf("%d messages got through", n)
	}
}

// A client that goes away in the middle leaves nothing at the box.
func TestCutOff(t *testing.T) {
	r := newRig(t)
	for _, end := range []string{`DATA\r\n|Subject: x\r\n\r\nhalf`, `DATA\r\n|Subj`, `DATA\r\n|Subject: x\r\n\r\n${A*200000}`, `DATA\r\n|bare\n.\r\n`,
		`BDAT 100 LAST\r\nSubject: x\r\n\r\nhalf`, `BDAT 14\r\nSubject: x\r\n\r\nRSET\r\n`, `BDAT 14\r\nSubject: x\r\n\r\n`,
		`BDAT 200000\r\n${A*200000}`, `QUIT\r\n`} {
		first, rest, _ := strings.Cut(end, "|")
		script := hello + "C1!: MAIL FROM:<a@b.test>\\r\\nRCPT TO:<bob@d.test>\\r\\n" + first + "\n"
		if rest != "" {
			script += "S1~: 354 {{.*}}\nC1!: " + rest + "\n"
		}
		r.play(script + "halfclose 1\n")
	}
	if err := r.servers["smtp"].Shutdown(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := r.box.stored(); len(got) != 0 {
		t.Errorf("delivered %q", got)
	}
}

// A client that goes on to something else between two chunks: the message is given up, and the next one is answered
// with its own outcome.
func TestLeftBetweenChunks(t *testing.T) {
	r := newRig(t)
	for range 20 {
		r.play(hello + `
C1!: MAIL FROM:<a@b.test>\r\nRCPT TO:<bob@d.test>\r\nBDAT 14\r\nSubject: x\r\n\r\n
S1: 250 {{.*}}
S1: 250 {{.*}}
S1: 250 {{.*}}
C1: EHLO another.name.test
S1~: 250 {{.*}}
C1!: MAIL FROM:<>\r\nRCPT TO:<carol@d.test>\r\nBDAT 0 LAST\r\n
S1: 250 {{.*}}
S1: 250 {{.*}}
S1: 250 {{.*}}
`)
	}
	for _, m := range r.box.stored() {
		if m.rcpt != "carol@d.test" || !strings.Contains(m.text, "from another.name.test ") {
			t.Errorf("%+v", m)
		}
	}
	if n := len(r.box.stored()); n != 20 {
		t.Errorf("%d messages", n)
	}
}

// No box: 451 at RCPT.
func TestNoBox(t *testing.T) {
	r := newRig(t, func(o *Options) {
		out, err := deliver.New(deliver.Options{Settings: to([]string{"127.0.0.1:1"})})
		if err != nil {
			t.Fatal(err)
		}
		o.Transport = out
	})
	r.play(hello + "C1: MAIL FROM:<a@b.test>\nS1: 250 {{.*}}\nC1: RCPT TO:<bob@d.test>\nS1: 451 4.3.0 {{.*}}\nC1: RCPT TO:<nobody@d.test>\nS1: 550 5.1.1 {{.*}}\n")
}

func TestBigMessage(t *testing.T) {
	r := newRig(t)
	r.play(hello + `
C1!: MAIL FROM:<a@b.test>\r\nRCPT TO:<bob@d.test>\r\nDATA\r\n
S1~: 354 {{.*}}
C1!: Subject: big\r\n\r\n
repeat 500
C1!: ${ABCDEFG*200}\r\n
end
C1: .
S1: 250 {{.*}}
`)
	got := r.box.stored()
	if len(got) != 1 || !strings.HasSuffix(got[0].text, "\r\n\r\n"+strings.Repeat(strings.Repeat("ABCDEFG", 200)+"\r\n", 500)) {
		t.Fatalf("%d messages", len(got))
	}
}
