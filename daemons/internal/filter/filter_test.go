package filter

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/mail"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/emersion/go-smtp"

	"shoal/daemons/internal/clock"
	"shoal/daemons/internal/conf"
	"shoal/daemons/internal/deliver"
	"shoal/daemons/internal/dirclient"
	"shoal/daemons/internal/mailaddr"
	"shoal/daemons/internal/mailstore"
	"shoal/daemons/internal/vfs"
	"shoal/tests/ports"
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// domains is a directory with one domain.
type domains struct {
	before, after string
	provider      dirclient.Domain
}

func (d domains) Provider(context.Context) (*dirclient.Domain, error) { return &d.provider, nil }

func (d domains) Domain(context.Context, string) (*dirclient.Domain, error) {
	return &dirclient.Domain{Name: "d.test", SieveBefore: d.before, SieveAfter: d.after}, nil
}

// relay is the switch: it takes messages over LMTP.
type relay struct {
	mu     sync.Mutex
	got    []string // "from>to" and the message
	refuse error
}

func (r *relay) NewSession(*smtp.Conn) (smtp.Session, error) { return &relaySession{r: r}, nil }

type relaySession struct {
	r    *relay
	from string
	to   []string
}

func (s *relaySession) Reset()        { s.to = nil }
func (s *relaySession) Logout() error { return nil }
func (s *relaySession) Mail(from string, _ *smtp.MailOptions) error {
	s.from = from
	return nil
}
func (s *relaySession) Rcpt(to string, _ *smtp.RcptOptions) error {
	s.r.mu.Lock()
	defer s.r.mu.Unlock()
	s.to = append(s.to, to)
	return s.r.refuse
}
func (s *relaySession) Data(io.Reader) error { return errors.New("LMTP only") }
func (s *relaySession) LMTPData(r io.Reader, status smtp.StatusCollector) error {
	text, err := io.ReadAll(r)
	if err != nil {
		return err
	}
	s.r.mu.Lock()
	s.r.got = append(s.r.got, s.from+">"+strings.Join(s.to, ",")+"\n"+string(text))
	s.r.mu.Unlock()
	for _, to := range s.to {
		status.SetStatus(to, nil)
	}
	return nil
}

func (r *relay) take() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	got := r.got
	r.got = nil
	return got
}

// rig is a filter with an account on a store in memory.
type rig struct {
	t      *testing.T
	f      *Filter
	store  *mailstore.Store
	handle *mailstore.Account
	relay  *relay
	clk    *clock.Fake
	mem    *vfs.Mem
}

const volumeID = "0d6f3c6e-6d2c-4c0c-9b0e-2f4f6b1f9a51"

func newRig(t *testing.T, change func(*Options)) *rig {
	t.Helper()
	r := &rig{t: t, relay: &relay{}, clk: clock.NewFake(time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC))}
	r.mem = vfs.NewMem(r.clk.Now)
	var err error
	r.store, err = mailstore.New(mailstore.Options{Server: "box1", FS: r.mem, Clock: r.clk, Log: slog.New(slog.DiscardHandler)})
	must(t, err)
	t.Cleanup(func() { r.store.Close() })
	must(t, mailstore.InitVolume(r.mem, "/", volumeID))
	must(t, r.store.AddVolume("vol01", "/", volumeID))
	r.handle, err = r.store.Account(t.Context(), "vol01", "account-1")
	must(t, err)

	srv := smtp.NewServer(r.relay)
	srv.LMTP, srv.Domain = true, "switch1"
	l, err := net.Listen("tcp", ports.One(t))
	must(t, err)
	go srv.Serve(l)
	t.Cleanup(func() { srv.Close() })
	settings := deliver.DefaultSettings()
	settings.Addresses = []string{l.Addr().String()}
	out, err := deliver.New(deliver.Options{Settings: settings, Name: "box1"})
	must(t, err)
	t.Cleanup(func() { out.Close() })

	o := Options{Store: r.store, Domains: domains{}, Outbox: out, Hostname: "box1.test", Log: slog.New(slog.DiscardHandler), Clock: r.clk}
	conf.SetDefaults(&o.Settings)
	o.Settings.Age = 0
	if change != nil {
		change(&o)
	}
	r.f, err = New(o)
	must(t, err)
	return r
}

func (r *rig) script(text string) {
	r.t.Helper()
	must(r.t, r.handle.PutScript(r.t.Context(), "main", []byte(text)))
	must(r.t, r.handle.ActivateScript(r.t.Context(), "main"))
}

const sample = "Return-Path: <ann@far.test>\r\nDelivered-To: bob@d.test\r\nFrom: ann@far.test\r\nTo: bob@d.test\r\nSubject: Grüße\r\nMessage-ID: <1@far.test>\r\n\r\nbody\r\n"

func (r *rig) deliver(text string) (Result, bool, error) {
	r.t.Helper()
	m, err := r.store.Stage(r.t.Context(), "vol01", strings.NewReader(text), 0)
	must(r.t, err)
	defer m.Close()
	from, _ := mailaddr.Parse("ann@far.test")
	to, _ := mailaddr.Parse("bob@d.test")
	return r.f.Deliver(r.t.Context(), &Delivery{
		Account: &dirclient.Account{ID: "account-1", Volume: "vol01", Domain: "d.test", Address: "bob@d.test", Addresses: []string{"bob@d.test"}},
		Handle:  r.handle, From: from, To: to, Trace: "trace1", Message: m,
	})
}

// boxes describes what lies where: "name: subject[flags]".
func (r *rig) boxes() string {
	r.t.Helper()
	list, err := r.handle.Mailboxes(r.t.Context())
	must(r.t, err)
	var out []string
	for _, i := range list {
		box, err := r.handle.Open(r.t.Context(), i.Name)
		must(r.t, err)
		st, err := box.State(r.t.Context())
		must(r.t, err)
		for _, m := range st.All() {
			f, err := box.OpenMessage(r.t.Context(), m.UID)
			must(r.t, err)
			msg, err := mail.ReadMessage(io.NewSectionReader(f, 0, f.Size()))
			must(r.t, err)
			s := i.Name + ": " + msg.Header.Get("Subject")
			if m.Flags != 0 || len(m.Keywords) > 0 {
				s += fmt.Sprintf("[%d %v]", m.Flags, m.Keywords)
			}
			if v := msg.Header.Get("X-New"); v != "" {
				s += " " + v
			}
			out = append(out, s)
			f.Close()
		}
	}
	return strings.Join(out, "; ")
}

func TestDelivery(t *testing.T) {
	for name, c := range map[string]struct {
		script   string
		boxes    string
		sent     string // the first line of each message sent
		rejected string
	}{
		"keep":              {`keep;`, "INBOX: Grüße", "", ""},
		"discard":           {`discard;`, "", "", ""},
		"a mailbox":         {`require ["fileinto","imap4flags","mailbox"]; fileinto :create :flags ["\\Seen","work"] "Lists/x";`, "Lists/x: Grüße[1 [work]]", "", ""},
		"no such mailbox":   {`require "fileinto"; fileinto "none";`, "INBOX: Grüße", "", ""},
		"two mailboxes":     {`require ["fileinto","mailbox"]; fileinto :create "a"; fileinto :create "b"; keep;`, "INBOX: Grüße; a: Grüße; b: Grüße", "", ""},
		"special use":       {`require ["fileinto","mailbox","special-use"]; fileinto :create :specialuse "\\Junk" "Spam"; fileinto :specialuse "\\Junk" "other";`, "Spam: Grüße", "", ""},
		"inbox by its name": {`require "fileinto"; fileinto "inbox";`, "INBOX: Grüße", "", ""},
		"edited":            {`require ["editheader","fileinto","mailbox"]; addheader "X-New" "yes"; fileinto :create "a"; deleteheader "X-New"; keep;`, "INBOX: Grüße; a: Grüße yes", "", ""},
		"redirect":          {`redirect "carl@y.test";`, "", "ann@far.test>carl@y.test", ""},
		"redirect and copy": {`require "copy"; redirect :copy "carl@y.test";`, "INBOX: Grüße", "ann@far.test>carl@y.test", ""},
		"reject":            {"require \"reject\"; reject text:\nNo, nö.\nNever.\n.\n;", "", ">ann@far.test", ""},
		"ereject":           {"require \"ereject\"; ereject text:\nNo, nö.\nNever.\n.\n;", "", "", "No, n?. Never."},
		"reject in ASCII":   {`require ["reject","enotify"]; reject "Never."; notify "mailto:pager@y.test";`, "", ">pager@y.test", "Never."},
		"notify":            {`require "enotify"; notify :message "mail!" "mailto:pager@y.test";`, "INBOX: Grüße", ">pager@y.test", ""},
		"broken at runtime": {`require ["fileinto","mailbox"]; fileinto :create "a"; fileinto "` + strings.Repeat("x", 900) + `\"${a"; redirect "${x}";`, "INBOX: Grüße; INBOX: Your mail filter does not work", "", ""},
		"does not compile":  {`nonsense;`, "INBOX: Grüße; INBOX: Your mail filter does not work", "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, nil)
			r.script(c.script)
			res, filtered, err := r.deliver(sample)
			if err != nil || !filtered || res.Rejected != c.rejected {
				t.Errorf("%+v %v %v", res, filtered, err)
			}
			if got := r.boxes(); got != c.boxes {
				t.Errorf("%s, want %s", got, c.boxes)
			}
			var sent []string
			for _, m := range r.relay.take() {
				first, _, _ := strings.Cut(m, "\n")
				sent = append(sent, first)
			}
			if got := strings.Join(sent, " "); got != c.sent {
				t.Errorf("sent %s, want %s", got, c.sent)
			}
		})
	}
}

// Without scripts nothing is read, and the delivery is the usual one.
func TestNoScript(t *testing.T) {
	r := newRig(t, nil)
	if _, filtered, err := r.deliver(sample); filtered || err != nil {
		t.Errorf("%v %v", filtered, err)
	}
	off := newRig(t, func(o *Options) { o.Settings.Enabled = false })
	off.script(`discard;`)
	if _, filtered, err := off.deliver(sample); filtered || err != nil {
		t.Errorf("%v %v", filtered, err)
	}
}

func TestScriptsOfTheDomain(t *testing.T) {
	r := newRig(t, func(o *Options) {
		o.Domains = domains{before: `if header :contains "subject" "virus" { discard; }`, after: `require ["fileinto","mailbox"]; fileinto :create "after";`}
	})
	for range 2 {
		if _, _, err := r.deliver(strings.Replace(sample, "Grüße", "virus", 1)); err != nil {
			t.Error(err)
		}
	}
	if _, _, err := r.deliver(sample); err != nil {
		t.Error(err)
	}
	r.script(`require "imap4flags"; if header "subject" "own" { discard; } addflag "mine";`)
	for _, subject := range []string{"own", "other"} {
		if _, _, err := r.deliver(strings.Replace(sample, "Grüße", subject, 1)); err != nil {
			t.Error(err)
		}
	}
	if got := r.boxes(); got != "after: Grüße; after: other[0 [mine]]" {
		t.Error(got)
	}
}

// The provider's scripts stand around those of the domain, and what one of them may include is theirs together.
func TestScriptsOfTheProvider(t *testing.T) {
	tag := func(name string) string {
		return `require ["imap4flags","variables","include"]; global "all"; set "all" "${all}` + name + `"; setflag "${all}";`
	}
	r := newRig(t, func(o *Options) {
		o.Domains = domains{before: tag("2"), after: tag("4"), provider: dirclient.Domain{SieveBefore: tag("1"), SieveAfter: tag("5"), SieveGlobal: []string{"three\n" + tag("3")}}}
	})
	r.script(`require "include"; include :global "three"; include :global :optional "four";`)
	_, _, err := r.deliver(sample)
	must(t, err)
	if got := r.boxes(); got != "INBOX: Grüße[0 [12345]]" {
		t.Error(got)
	}
	r.script(`discard;`)
	_, _, err = r.deliver(sample)
	must(t, err)
	if got := r.boxes(); got != "INBOX: Grüße[0 [12345]]" {
		t.Error(got)
	}
}

// A mistake in a script of the provider's is the operator's to hear of: mail is kept, and no account is told.
func TestBrokenScriptOfTheProvider(t *testing.T) {
	for name, o := range map[string]domains{
		"does not compile": {provider: dirclient.Domain{SieveBefore: "nonsense;"}},
		"at run time":      {after: `require ["variables","fileinto"]; set "a" "` + strings.Repeat("x", 900) + `"; fileinto "${a}\"${a}";`},
		"included":         {provider: dirclient.Domain{SieveGlobal: []string{"all\nnonsense;"}}, before: `require "include"; include :global "all";`},
	} {
		var log strings.Builder
		r := newRig(t, func(to *Options) {
			to.Domains, to.Log = o, slog.New(slog.NewTextHandler(&log, nil))
		})
		for range 2 {
			if _, _, err := r.deliver(sample); err != nil {
				t.Fatal(err)
			}
		}
		if got := r.boxes(); got != "INBOX: Grüße; INBOX: Grüße" {
			t.Errorf("%s: %s", name, got)
		}
		if n := strings.Count(log.String(), "event=sieve-broken"); n != 1 {
			t.Errorf("%s: logged %d times: %s", name, n, log.String())
		}
	}
}

// A redirected message has lost the Return-Path of this delivery and has its account in Delivered-To.
func TestRedirectedMessage(t *testing.T) {
	r := newRig(t, nil)
	r.script(`redirect "carl@y.test";`)
	_, _, err := r.deliver(sample)
	must(t, err)
	got := r.relay.take()
	if len(got) != 1 || got[0] != "ann@far.test>carl@y.test\nDelivered-To: bob@d.test\r\n"+strings.SplitAfterN(sample, "\r\n", 2)[1] {
		t.Errorf("%q", got)
	}
}

// What cannot be sent is not lost: for now it is tried again, for good it is kept.
func TestRedirectThatFails(t *testing.T) {
	r := newRig(t, nil)
	r.script(`redirect "carl@y.test"; redirect "dora@y.test";`)
	r.relay.refuse = &smtp.SMTPError{Code: 451, Message: "later"}
	if _, _, err := r.deliver(sample); err == nil {
		t.Error("a refused redirect is a delivery")
	}
	if got := r.boxes(); got != "" {
		t.Error(got)
	}
	r.relay.refuse = &smtp.SMTPError{Code: 550, Message: "never"}
	if _, _, err := r.deliver(sample); err != nil {
		t.Error(err)
	}
	if got := r.boxes(); got != "INBOX: Grüße" {
		t.Error(got)
	}
	alone := newRig(t, func(o *Options) { o.Outbox = nil })
	alone.script(`redirect "carl@y.test";`)
	if _, _, err := alone.deliver(sample); err != nil {
		t.Error(err)
	}
	if got := alone.boxes(); got != "INBOX: Grüße" {
		t.Error(got)
	}
}

// A sender is answered once in the interval; the reply is one that no program answers.
func TestVacation(t *testing.T) {
	r := newRig(t, nil)
	r.script(`require ["vacation","fcc","mailbox"]; vacation :days 7 :subject "Fort über die Tage" :fcc "Sent" :create "Ich bin fort.` + "\n" + `Bis bald: ä";`)
	for range 3 {
		_, _, err := r.deliver(sample)
		must(t, err)
	}
	got := r.relay.take()
	if len(got) != 1 {
		t.Fatalf("%d replies", len(got))
	}
	envelope, text, _ := strings.Cut(got[0], "\n")
	m, err := mail.ReadMessage(strings.NewReader(text))
	must(t, err)
	if envelope != ">ann@far.test" || m.Header.Get("To") != "ann@far.test" || m.Header.Get("From") != "bob@d.test" ||
		m.Header.Get("Subject") != "=?utf-8?q?Fort_=C3=BCber_die_Tage?=" || m.Header.Get("Auto-Submitted") != "auto-replied (vacation)" ||
		m.Header.Get("In-Reply-To") != "<1@far.test>" || m.Header.Get("References") != "<1@far.test>" {
		t.Errorf("%s\n%s", envelope, text)
	}
	if !strings.HasSuffix(text, "\r\n\r\nIch bin fort.\r\nBis bald: =C3=A4\r\n") {
		t.Errorf("%q", text)
	}
	if got := r.boxes(); !strings.HasPrefix(got, "INBOX: Grüße; INBOX: Grüße; INBOX: Grüße; Sent: =?utf-8?q?Fort") {
		t.Error(got)
	}
	r.clk.Advance(7*24*time.Hour + time.Second)
	_, _, err = r.deliver(sample)
	must(t, err)
	if n := len(r.relay.take()); n != 1 {
		t.Errorf("%d replies after the interval", n)
	}
}

// duplicate finds a message again once it was delivered.
func TestDuplicates(t *testing.T) {
	r := newRig(t, nil)
	r.script(`require "duplicate"; if duplicate { discard; }`)
	for range 3 {
		_, _, err := r.deliver(sample)
		must(t, err)
	}
	if got := r.boxes(); got != "INBOX: Grüße" {
		t.Error(got)
	}
}

// The header fields of what is sent cannot be broken out of.
func TestNoInjection(t *testing.T) {
	r := newRig(t, nil)
	r.script("require [\"vacation\",\"variables\",\"enotify\"]; if header :matches \"subject\" \"*\" { vacation :subject \"Re: ${1}\r\nBcc: evil@y.test\" :from \"\\\"x\r\nBcc: evil@y.test\\\" <bob@d.test>\" \"away\"; }\n" +
		`notify "mailto:pager@y.test?subject=a&x-y=b&bcc=carl@y.test&from=evil@y.test";`)
	_, _, err := r.deliver(sample)
	must(t, err)
	got := r.relay.take()
	if len(got) != 2 {
		t.Fatalf("%q", got)
	}
	for _, m := range got {
		_, text, _ := strings.Cut(m, "\n")
		msg, err := mail.ReadMessage(strings.NewReader(text))
		must(t, err)
		if msg.Header.Get("Bcc") != "" || !strings.Contains(msg.Header.Get("From"), "bob@d.test") {
			t.Errorf("%q", text)
		}
	}
	if !strings.HasPrefix(got[1], ">pager@y.test,carl@y.test\n") {
		t.Errorf("%q", got[1])
	}
}
