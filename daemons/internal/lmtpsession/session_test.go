package lmtpsession

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
	"strings"
	"sync"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"shoal/daemons/internal/clock"
	"shoal/daemons/internal/deliver"
	"shoal/daemons/internal/dirclient"
	"shoal/daemons/internal/mailaddr"
	"shoal/daemons/internal/mailstore"
	"shoal/daemons/internal/pki"
	"shoal/daemons/internal/vfs"
	"shoal/tests/dialogue"
)

const (
	volume1 = "11111111-2222-3333-4444-555555555551"
	volume2 = "11111111-2222-3333-4444-555555555552"
)

// directory is the fake directory of the tests.
type directory map[string]*dirclient.Account

func (d directory) Account(_ context.Context, address string) (*dirclient.Account, error) {
	if address == "down@d.test" {
		return nil, dirclient.ErrUnavailable
	}
	if a := d[address]; a != nil {
		return a, nil
	}
	return nil, fmt.Errorf("%w: %s", dirclient.ErrNoSuchAccount, address)
}

func account(id, volume, status string) *dirclient.Account {
	return &dirclient.Account{ID: id, Volume: volume, Status: status, Address: id + "@d.test"}
}

var people = directory{
	"alice@d.test":           account("alice-0001", "vol01", dirclient.StatusActive),
	"alias@d.test":           account("alice-0001", "vol01", dirclient.StatusActive),
	"bob@d.test":             account("bob-000001", "vol01", dirclient.StatusActive),
	"carol@d.test":           account("carol-0001", "vol02", dirclient.StatusActive),
	"broken@d.test":          account("broken-001", "vol01", dirclient.StatusActive),
	"jürgen@xn--d-eha.test":  account("juergen-01", "vol01", dirclient.StatusActive),
	"suspended@d.test":       account("suspended1", "vol01", dirclient.StatusSuspended),
	"closed@d.test":          account("closed0001", "vol01", dirclient.StatusClosed),
	"elsewhere@d.test":       account("elsewhere1", "vol99", dirclient.StatusActive),
	"\"odd name\"@d.test":    account("odd-name01", "vol01", dirclient.StatusActive),
	"postmaster@box1.test":   account("alice-0001", "vol01", dirclient.StatusActive),
	"many-0000000001@d.test": account("many-00001", "vol01", dirclient.StatusActive),
	"\"quoted@at\"@d.test":   account("quoted-at1", "vol01", dirclient.StatusActive),
}

// faulty is a Store whose faults are set by the test.
type faulty struct {
	*mailstore.Store
	mu      sync.Mutex
	account func(id string) error
	stage   func(volume string) error
	deliver func(target int) error
}

func (f *faulty) set(set func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.account, f.stage, f.deliver = nil, nil, nil
	set()
}

func (f *faulty) Account(ctx context.Context, volume, id string) (*mailstore.Account, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.account != nil {
		if err := f.account(id); err != nil {
			return nil, err
		}
	}
	return f.Store.Account(ctx, volume, id)
}

func (f *faulty) Stage(ctx context.Context, volume string, r io.Reader, max int64) (*mailstore.Staged, error) {
	f.mu.Lock()
	stage := f.stage
	f.mu.Unlock()
	if stage != nil {
		if err := stage(volume); err != nil {
			return nil, err
		}
	}
	return f.Store.Stage(ctx, volume, r, max)
}

func (f *faulty) Deliver(ctx context.Context, m *mailstore.Staged, targets []mailstore.Target) []mailstore.Result {
	f.mu.Lock()
	deliver := f.deliver
	f.mu.Unlock()
	out := f.Store.Deliver(ctx, m, targets)
	if deliver != nil {
		for i := range out {
			if err := deliver(i); err != nil {
				out[i] = mailstore.Result{Err: err}
			}
		}
	}
	return out
}

type rig struct {
	t     testing.TB
	store *faulty
	addr  string
	srv   *Server
	log   *bytes.Buffer
}

type lockedWriter struct {
	mu sync.Mutex
	b  *bytes.Buffer
}

func (w *lockedWriter) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.b.Write(p)
}

func newRig(t testing.TB, change ...func(*Options)) *rig {
	t.Helper()
	st, err := mailstore.New(mailstore.Options{Server: "box1", FS: vfs.OS(), Clock: clock.System(), Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { st.Close() })
	for name, id := range map[string]string{"vol01": volume1, "vol02": volume2} {
		root := t.TempDir()
		if err := mailstore.InitVolume(vfs.OS(), root, id); err != nil {
			t.Fatal(err)
		}
		if err := st.AddVolume(name, root, id); err != nil {
			t.Fatal(err)
		}
	}
	r := &rig{t: t, store: &faulty{Store: st}, log: &bytes.Buffer{}}
	o := Options{Hostname: "box1.test", Store: r.store, Accounts: people, Plaintext: true, MaxMessageBytes: 1 << 20,
		Log: slog.New(slog.NewTextHandler(&lockedWriter{b: r.log}, nil)), Metrics: prometheus.NewRegistry()}
	for _, f := range change {
		f(&o)
	}
	if r.srv, err = New(o); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r.addr = l.Addr().String()
	done := make(chan error, 1)
	go func() { done <- r.srv.Serve(l) }()
	t.Cleanup(func() {
		r.srv.Close()
		if err := <-done; err != nil {
			t.Errorf("Serve: %v", err)
		}
	})
	return r
}

func (r *rig) play(script string) {
	r.t.Helper()
	dialogue.Run(r.t, script, map[string]dialogue.Dial{"lmtp": func() (net.Conn, error) { return net.Dial("tcp", r.addr) }})
}

// inbox gives the messages of an account's INBOX.
func (r *rig) inbox(address string) (texts []string) {
	r.t.Helper()
	ctx := context.WithoutCancel(r.t.Context())
	p := people[address]
	a, err := r.store.Store.Account(ctx, p.Volume, p.ID)
	if err != nil {
		r.t.Fatal(err)
	}
	m, err := a.Open(ctx, "INBOX")
	if err != nil {
		r.t.Fatal(err)
	}
	st, err := m.State(ctx)
	if err != nil {
		r.t.Fatal(err)
	}
	for _, msg := range st.All() {
		f, err := m.OpenMessage(ctx, msg.UID)
		if err != nil {
			r.t.Fatal(err)
		}
		b, err := io.ReadAll(io.NewSectionReader(f, 0, f.Size()))
		if err != nil {
			r.t.Fatal(err)
		}
		f.Close()
		texts = append(texts, string(b))
	}
	return texts
}

func (r *rig) expect(address string, texts ...string) {
	r.t.Helper()
	got := r.inbox(address)
	if len(got) != len(texts) {
		r.t.Fatalf("%s has %q, want %q", address, got, texts)
	}
	for i := range got {
		if got[i] != texts[i] {
			r.t.Errorf("%s message %d is %q, want %q", address, i, got[i], texts[i])
		}
	}
}

const hello = `
open 1 lmtp
S1: 220 box1.test LMTP {{.*}}
C1: LHLO switch1
S1~: 250 {{.*}}
`

func TestOneRecipient(t *testing.T) {
	r := newRig(t)
	r.play(hello + `
C1: MAIL FROM:<a@b.test> ENVID=trace-1 BODY=8BITMIME
S1: 250 {{.*}}
C1: RCPT TO:<Alice@D.test>
S1: 250 {{.*}}
C1: DATA
S1: 354 {{.*}}
C1: Subject: one
C1:
C1: ..text
C1: .
S1: 250 2.0.0 <Alice@D.test> Delivered, {{.*}}
C1!: MAIL FROM:<>\r\nRCPT TO:<"odd name"@d.test>\r\nRCPT TO:<"quoted@at"@d.test>\r\nBDAT 6 LAST\r\nmore\r\nQUIT\r\n
S1: 250 {{.*}}
S1: 250 {{.*}}
S1: 250 {{.*}}
S1: 250 2.0.0 {{.*}}
S1: 250 2.0.0 {{.*}}
S1: 221 {{.*}}
eof 1
`)
	r.expect("alice@d.test", "Return-Path: <a@b.test>\r\nDelivered-To: Alice@D.test\r\nSubject: one\r\n\r\n.text\r\n")
	r.expect("\"odd name\"@d.test", "Return-Path: <>\r\nmore\r\n")
	r.expect("\"quoted@at\"@d.test", "Return-Path: <>\r\nmore\r\n")
	if log := r.log.String(); !strings.Contains(log, "event=delivered") || !strings.Contains(log, "trace=trace-1") {
		t.Errorf("log: %s", log)
	}
}

func TestRefusedRecipients(t *testing.T) {
	r := newRig(t)
	r.play(hello + `
C1: MAIL FROM:<a@b.test>
S1: 250 {{.*}}
C1: RCPT TO:<nobody@d.test>
S1: 550 5.1.1 {{.*}}
C1: RCPT TO:<down@d.test>
S1: 451 4.3.0 {{.*}}
C1: RCPT TO:<closed@d.test>
S1: 550 5.2.1 {{.*}}
C1: RCPT TO:<elsewhere@d.test>
S1: 451 4.3.0 {{.*}}
C1: RCPT TO:<postmaster>
S1: 250 {{.*}}
C1: DATA
S1: 354 {{.*}}
C1: x
C1: .
S1: 250 {{.*}}
C1: NOOP
S1: 250 {{.*}}
`)
	r.expect("alice@d.test", "Return-Path: <a@b.test>\r\nDelivered-To: postmaster@box1.test\r\nx\r\n")
}

// It is the login of a suspended account that is suspended: its mail arrives.
func TestSuspendedAccountGetsMail(t *testing.T) {
	r := newRig(t)
	r.play(hello + `
C1: MAIL FROM:<a@b.test>
S1: 250 {{.*}}
C1: RCPT TO:<suspended@d.test>
S1: 250 {{.*}}
C1: DATA
S1: 354 {{.*}}
C1: x
C1: .
S1: 250 {{.*}}
`)
	r.expect("suspended@d.test", "Return-Path: <a@b.test>\r\nDelivered-To: suspended@d.test\r\nx\r\n")
}

// One account under several addresses gets one copy, and each RCPT its reply; several accounts on several
// volumes get one each.
func TestManyRecipients(t *testing.T) {
	r := newRig(t)
	for range 2 { // the second over BDAT
		r.play(hello + `
C1!: MAIL FROM:<a@b.test>\r\nRCPT TO:<alice@d.test>\r\nRCPT TO:<carol@d.test>\r\nRCPT TO:<alias@d.test>\r\nRCPT TO:<bob@d.test>\r\nRCPT TO:<alice@d.test>\r\nDATA\r\n
repeat 6
S1: 250 {{.*}}
end
S1: 354 {{.*}}
C1!: x\r\n.\r\n
S1: 250 2.0.0 <alice@d.test> {{.*}}
S1: 250 2.0.0 <carol@d.test> {{.*}}
S1: 250 2.0.0 <alias@d.test> {{.*}}
S1: 250 2.0.0 <bob@d.test> {{.*}}
S1: 250 2.0.0 <alice@d.test> {{.*}}
`)
	}
	text := "Return-Path: <a@b.test>\r\nx\r\n"
	for _, a := range []string{"alice@d.test", "bob@d.test", "carol@d.test"} {
		r.expect(a, text, text)
	}
}

// What the store cannot do now is 4yz, for exactly the recipients it is about.
func TestStoreFaults(t *testing.T) {
	r := newRig(t)
	rcpts := `
C1!: MAIL FROM:<a@b.test>\r\nRCPT TO:<alice@d.test>\r\nRCPT TO:<bob@d.test>\r\nRCPT TO:<carol@d.test>\r\n
repeat 4
S1: 250 {{.*}}
end
`
	data := "C1: DATA\nS1: 354 {{.*}}\nC1: x\nC1: .\n"
	bdat := "C1!: BDAT 70000\\r\\n${A*70000}BDAT 3 LAST\\r\\nx\\r\\n\nS1: 250 {{.*}}\n"
	for _, send := range []string{data, bdat} {
		for _, tt := range []struct {
			err  error
			code string
		}{
			{mailstore.ErrUnavailable, "451 4.3.0"}, {mailstore.ErrNoSpace, "452 4.3.1"}, {mailstore.ErrTooLarge, "552 5.3.4"},
			{mailstore.ErrMailboxClosed, "451 4.3.0"}, {errors.New("other"), "451 4.3.0"}, {context.DeadlineExceeded, "451 4.3.0"},
		} {
			fail := func(int) error { return tt.err }
			r.store.set(func() { r.store.deliver = fail })
			answers := func(codes ...string) string {
				s := ""
				for i, rcpt := range []string{"alice", "bob", "carol"} {
					s += "S1: " + codes[i] + " <" + rcpt + "@d.test> {{.*}}\n"
				}
				return s
			}
			r.play(hello + rcpts + send + answers(tt.code, tt.code, tt.code) + "C1: NOOP\nS1: 250 {{.*}}\n")
			// one of two on a volume
			r.store.set(func() {
				r.store.deliver = func(i int) error {
					if i == 1 {
						return tt.err
					}
					return nil
				}
			})
			r.play(hello + rcpts + send + answers("250 2.0.0", tt.code, "250 2.0.0"))
			// one of two volumes cannot stage
			r.store.set(func() {
				r.store.stage = func(v string) error {
					if v == "vol01" {
						return tt.err
					}
					return nil
				}
			})
			r.play(hello + rcpts + send + answers(tt.code, tt.code, "250 2.0.0"))
			// the only volume cannot stage, over one more transaction on the same connection
			one := "C1!: MAIL FROM:<a@b.test>\\r\\nRCPT TO:<bob@d.test>\\r\\nRCPT TO:<alice@d.test>\\r\\n\nS1: 250 {{.*}}\nS1: 250 {{.*}}\nS1: 250 {{.*}}\n"
			if send == bdat { // refused at the first chunk already, once
				r.play(hello + one + strings.Replace(bdat, "S1: 250 {{.*}}\n", "", 1) + "S1: " + tt.code + " <bob@d.test> {{.*}}\nS1: 503 {{.*}}\nC1: NOOP\nS1: 250 {{.*}}\n")
			} else {
				r.play(hello + one + send + "S1: " + tt.code + " <bob@d.test> {{.*}}\nS1: " + tt.code + " <alice@d.test> {{.*}}\nC1: NOOP\nS1: 250 {{.*}}\n")
			}
			r.store.set(func() { r.store.account = func(string) error { return tt.err } })
			r.play(hello + "C1: MAIL FROM:<a@b.test>\nS1: 250 {{.*}}\nC1: RCPT TO:<bob@d.test>\nS1: {{[45]..}} {{.*}}\n")
			r.store.set(func() {})
		}
	}
}

// A message that does not come to its end leaves nothing, whatever the recipients' volumes.
func TestCutOff(t *testing.T) {
	r := newRig(t)
	for _, rcpts := range []string{`RCPT TO:<alice@d.test>\r\n`, `RCPT TO:<alice@d.test>\r\nRCPT TO:<carol@d.test>\r\n`} {
		for _, end := range []string{
			`DATA\r\n|Subject: x\r\n\r\nhalf`,
			`DATA\r\n|bare\nline\r\n.\r\n`,
			`BDAT 100 LAST\r\nhalf`,
			`BDAT 4\r\nhalfRSET\r\n`,
			`BDAT 4\r\nhalfMAIL FROM:<x@y.test>\r\n`,
			`BDAT 4\r\nhalf`,
		} {
			first, rest, _ := strings.Cut(end, "|")
			script := hello + "C1!: MAIL FROM:<a@b.test>\\r\\n" + rcpts + first + "\n"
			if rest != "" {
				script += "S1~: 354 {{.*}}\nC1!: " + rest + "\n"
			}
			r.play(script + "halfclose 1\n")
		}
	}
	if err := r.srv.Shutdown(t.Context()); err != nil {
		t.Fatal(err)
	}
	r.expect("alice@d.test")
	r.expect("carol@d.test")
}

func TestNewChecks(t *testing.T) {
	for _, o := range []Options{{}, {Hostname: "h", Store: &faulty{}, Accounts: people}} {
		if _, err := New(o); err == nil {
			t.Errorf("New(%+v)", o)
		}
	}
}

// With the internal CA: only a switch or an operator gets in, and the delivery client does.
func TestMutualTLS(t *testing.T) {
	dir := t.TempDir()
	ca, err := pki.NewCA(pki.CAOptions{})
	if err != nil {
		t.Fatal(err)
	}
	box := credentials(t, ca, dir, "box", "box1")
	r := newRig(t, func(o *Options) {
		o.Plaintext = false
		o.TLS = box.ServerTLS("switch", "operator")
	})
	send := func(config *tls.Config) error {
		tr, err := deliver.New(deliver.Options{Settings: to([]string{r.addr}), TLS: config})
		if err != nil {
			t.Fatal(err)
		}
		defer tr.Close()
		x, err := tr.Begin(t.Context(), deliver.Envelope{From: mailaddr.Address{Local: "a", Domain: "b.test"}, EnvID: "t1"})
		if err != nil {
			t.Fatal(err)
		}
		defer x.Close()
		for _, local := range []string{"alice", "bob"} {
			if err := x.Rcpt(mailaddr.Address{Local: local, Domain: "d.test"}); err != nil {
				return err
			}
		}
		res, err := x.Data(strings.NewReader("Subject: tls\r\n\r\nx\r\n"))
		if err != nil {
			return err
		}
		return errors.Join(res[0].Err, res[1].Err)
	}
	if err := send(credentials(t, ca, dir, "switch", "switch1").ClientTLS("box")); err != nil {
		t.Errorf("a switch: %v", err)
	}
	if err := send(credentials(t, ca, dir, "box", "box2").ClientTLS("box")); err == nil {
		t.Error("another box got in")
	}
	if err := send(&tls.Config{InsecureSkipVerify: true}); err == nil {
		t.Error("a client without a certificate got in")
	}
	if err := send(nil); err == nil {
		t.Error("a client without TLS got in")
	}
	r.play(hello + "C1: MAIL FROM:<a@b.test>\nS1: 530 5.7.0 {{.*}}\n")
	r.expect("alice@d.test", "Return-Path: <a@b.test>\r\nSubject: tls\r\n\r\nx\r\n")
}

func credentials(t testing.TB, ca *pki.CA, dir, role, name string) *pki.Credentials {
	t.Helper()
	caFile := filepath.Join(dir, "ca.crt")
	if err := os.WriteFile(caFile, ca.CertPEM(), 0o644); err != nil {
		t.Fatal(err)
	}
	pair, err := ca.Issue(pki.Request{Role: role, Name: name, Hosts: []string{"127.0.0.1"}})
	if err != nil {
		t.Fatal(err)
	}
	cert, key := filepath.Join(dir, name+".crt"), filepath.Join(dir, name+".key")
	for name, content := range map[string][]byte{cert: pair.Cert, key: pair.Key} {
		if err := os.WriteFile(name, content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	c, err := pki.Load(pki.Files{Cert: cert, Key: key, CA: caFile})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func to(addresses []string) deliver.Settings {
	s := deliver.DefaultSettings()
	s.Addresses = addresses
	return s
}
