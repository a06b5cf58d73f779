package outbound

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/emersion/go-smtp"

	"shoal/tests/ports"
)

const text = "Subject: hello\r\n\r\nfirst line\r\n.dot\r\n..two\r\nlast\r\n"

func send(t *testing.T, c *Client, domain string, m *Message, rcpts []Rcpt) Result {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	r := c.Send(ctx, domain, m, rcpts)
	if len(r.Outcomes) != len(rcpts) {
		t.Fatalf("%d outcomes for %d recipients", len(r.Outcomes), len(rcpts))
	}
	return r
}

func status(o Outcome) string {
	if o.Err == nil {
		return "taken"
	}
	return fmt.Sprintf("%d %s", o.Err.Code, o.Err.Status)
}

func TestSend(t *testing.T) {
	box := serveSMTP(t, func(m *mailbox) {
		m.srv.EnableDSN, m.srv.EnableSMTPUTF8 = true, true
		m.refuse["nobody@far.test"] = &smtp.SMTPError{Code: 550, EnhancedCode: smtp.EnhancedCode{5, 1, 1}, Message: "no such user"}
		m.refuse["full@far.test"] = &smtp.SMTPError{Code: 452, EnhancedCode: smtp.EnhancedCode{4, 2, 2}, Message: "full"}
	})
	w := newWorld()
	w.exchanger("far.test", 10, "mx.far.test", "192.0.2.1", box.addr)
	c := w.client(t, nil)
	m, rcpts := mailOf(t, text, "bob@far.test", "nobody@far.test", "full@far.test", "carol@far.test")
	m.EnvID, m.Return = "id+2B1", "HDRS"
	rcpts[0].Notify, rcpts[0].ORcpt = "SUCCESS,FAILURE", "rfc822;team@shoal.test"
	r := send(t, c, "FAR.test", m, rcpts)
	var states []string
	for _, o := range r.Outcomes {
		states = append(states, status(o))
		if o.Host != "mx.far.test" {
			t.Errorf("host %q", o.Host)
		}
	}
	if want := []string{"taken", "550 5.1.1", "452 4.2.2", "taken"}; !slices.Equal(states, want) || r.Away {
		t.Fatalf("%q away=%v, want %q", states, r.Away, want)
	}
	if !r.Outcomes[0].DSN {
		t.Error("the server offers DSN, and the outcome does not say so")
	}
	all := box.all()
	if len(all) != 1 || all[0].data != text || !slices.Equal(all[0].to, []string{"bob@far.test", "carol@far.test"}) || all[0].from != "alice@shoal.test" {
		t.Fatalf("arrived: %+v", all)
	}
	g := all[0]
	if g.mail.EnvelopeID != "id+1" || g.mail.Return != smtp.DSNReturnHeaders || g.mail.Size != int64(len(text)) || g.mail.Body != smtp.Body8BitMIME {
		t.Errorf("MAIL options %+v", g.mail)
	}
	if o := g.rcpt[0]; len(o.Notify) != 2 || o.OriginalRecipient != "team@shoal.test" {
		t.Errorf("RCPT options %+v", o)
	}
}

// RFC 5321 §5.1: by preference, and the next one when one is away or closes the door.
func TestExchangersByPreference(t *testing.T) {
	box := serveSMTP(t, nil)
	busy := serveScript(t, "421 4.3.2 too busy", func(int, string) string { return "" })
	closed := serveScript(t, "554 5.3.2 not for you", func(int, string) string { return "" })
	dies := serveScript(t, "220 x", func(_ int, line string) string {
		if verb(line) == "RCPT" {
			return ""
		}
		return "250 ok"
	})
	w := newWorld()
	w.exchanger("far.test", 50, "mx5.far.test", "192.0.2.5", box.addr)
	w.exchanger("far.test", 10, "mx1.far.test", "192.0.2.1", "")
	w.exchanger("far.test", 20, "mx2.far.test", "192.0.2.2", busy.addr)
	w.exchanger("far.test", 30, "mx3.far.test", "192.0.2.3", closed.addr)
	w.exchanger("far.test", 40, "mx4.far.test", "192.0.2.4", dies.addr)
	c := w.client(t, nil)
	m, rcpts := mailOf(t, text, "bob@far.test")
	r := send(t, c, "far.test", m, rcpts)
	if r.Outcomes[0].Err != nil || r.Outcomes[0].Host != "mx5.far.test" {
		t.Fatalf("%+v", r.Outcomes[0])
	}
	want := []string{"192.0.2.1:25", "192.0.2.2:25", "192.0.2.3:25", "192.0.2.4:25", "192.0.2.5:25"}
	if got := w.dialed(); !slices.Equal(got, want) {
		t.Errorf("tried %q, want %q", got, want)
	}
}

// Equal preference: each comes first now and then.
func TestEqualExchangersShare(t *testing.T) {
	w := newWorld()
	w.exchanger("far.test", 10, "a.far.test", "192.0.2.1", "")
	w.exchanger("far.test", 10, "b.far.test", "192.0.2.2", "")
	c := w.client(t, nil)
	first := map[string]bool{}
	for range 64 { // the chance that one never comes first is 2^-63
		hosts, err := c.hosts(context.Background(), "far.test")
		if err != nil || len(hosts) != 2 {
			t.Fatalf("%v %v", hosts, err)
		}
		first[hosts[0].name] = true
	}
	if len(first) != 2 {
		t.Errorf("first was only %v", first)
	}
}

func TestWhereMailGoesNot(t *testing.T) {
	w := newWorld()
	w.mx["null.test"] = []*net.MX{{Host: ".", Pref: 0}}
	w.exchanger("self.test", 10, "mx.shoal.test", "192.0.2.77", "")
	w.exchanger("self2.test", 10, "other.name.test", "198.51.100.9", "")
	w.exchanger("backup.test", 10, "first.backup.test", "192.0.2.10", "")
	w.exchanger("backup.test", 20, "MX.shoal.test", "192.0.2.11", "")
	w.exchanger("backup.test", 30, "third.backup.test", "192.0.2.12", "")
	w.exchanger("loop.test", 10, "loop.test", "127.0.0.1", "")
	w.exchanger("zero.test", 10, "zero.test", "0.0.0.0", "")
	w.exchanger("nohost.test", 10, "gone.nohost.test", "192.0.2.1", "")
	delete(w.ip, "gone.nohost.test")
	w.fails["broken.test"] = &net.DNSError{Err: "server misbehaving", IsTemporary: true}
	w.exchanger("broken2.test", 10, "mx.broken2.test", "192.0.2.1", "")
	w.fails["mx.broken2.test"] = &net.DNSError{Err: "timeout", IsTimeout: true}
	w.ip["implicit.test"] = []string{"2001:db8::1", "192.0.2.20", "::ffff:192.0.2.21"}
	c := w.client(t, func(o *Options) { o.Settings.OwnAddresses = []string{"198.51.100.9"} })
	for _, x := range []struct {
		domain, want string
		away         bool
		dials        []string
	}{
		{"null.test", "556 5.1.10", false, nil},
		{"self.test", "554 5.4.6", false, nil},
		{"self2.test", "554 5.4.6", false, nil},
		{"backup.test", "451 4.4.1", true, []string{"192.0.2.10:25"}},
		{"loop.test", "554 5.4.6", false, nil},
		{"zero.test", "554 5.4.4", false, nil},
		{"nohost.test", "550 5.1.2", false, nil},
		{"nxdomain.test", "550 5.1.2", false, nil},
		{"broken.test", "451 4.4.3", true, nil},
		{"broken2.test", "451 4.4.3", true, nil},
		{"implicit.test", "451 4.4.1", true, []string{"192.0.2.20:25", "192.0.2.21:25", "[2001:db8::1]:25"}},
		{"[192.0.2.30]", "451 4.4.1", true, []string{"192.0.2.30:25"}},
		{"[IPv6:2001:db8::30]", "451 4.4.1", true, []string{"[2001:db8::30]:25"}},
		{"[127.0.0.1]", "554 5.4.6", false, nil},
		{"[x-tag:what]", "550 5.1.2", false, nil},
	} {
		w.dials = nil
		m, rcpts := mailOf(t, text, "bob@far.test")
		r := send(t, c, x.domain, m, rcpts)
		dials := w.dialed()
		slices.Sort(dials)
		if got := status(r.Outcomes[0]); got != x.want || r.Away != x.away || !slices.Equal(dials, x.dials) {
			t.Errorf("%s: %s away=%v %q (%v), want %s away=%v %q", x.domain, got, r.Away, dials, r.Outcomes[0].Err, x.want, x.away, x.dials)
		}
	}
}

// Loopback addresses that are not this machine's own are nobody's either.
func TestLoopbackIsNobody(t *testing.T) {
	w := newWorld()
	w.exchanger("odd.test", 10, "mx.odd.test", "127.9.9.9", "")
	c := w.client(t, nil)
	m, rcpts := mailOf(t, text, "bob@odd.test")
	r := send(t, c, "odd.test", m, rcpts)
	if got := status(r.Outcomes[0]); got != "554 5.4.4" || len(w.dialed()) != 0 {
		t.Errorf("%s %v", got, w.dialed())
	}
}

func TestHELOFallbackAndOldServers(t *testing.T) {
	old := serveScript(t, "220 old", func(_ int, line string) string {
		switch verb(line) {
		case "EHLO":
			return "502 what?"
		case "DATA":
			return "354 go on"
		case "HELO", "MAIL", "RCPT", ".", "RSET", "QUIT":
			return "250 ok"
		}
		return "-" // a line of the message
	})
	w := newWorld()
	w.exchanger("old.test", 10, "mx.old.test", "192.0.2.1", old.addr)
	c := w.client(t, nil)
	m, rcpts := mailOf(t, "Subject: x\r\n\r\nbody\r\n", "bob@old.test")
	m.EnvID, m.Return, rcpts[0].Notify = "x", "FULL", "NEVER"
	if r := send(t, c, "old.test", m, rcpts); r.Outcomes[0].Err != nil || r.Outcomes[0].DSN {
		t.Fatalf("%+v", r.Outcomes[0])
	}
	want := []string{"EHLO mx.shoal.test", "HELO mx.shoal.test", "MAIL FROM:<alice@shoal.test>", "RCPT TO:<bob@old.test>", "DATA", "Subject: x", "", "body", "."}
	if got := old.told(); !slices.Equal(got[:min(len(got), len(want))], want) {
		t.Errorf("said %q, want %q", got, want)
	}
}

// plainServer takes everything with the given EHLO lines.
func plainServer(t *testing.T, ehlo string, change func(conn int, line string) string) *script {
	var inData [16]bool // by connection, each of which has a goroutine
	return serveScript(t, "220 x", func(n int, line string) string {
		if inData[n] {
			if line != "." {
				return "-"
			}
			inData[n] = false
			if a := change(n, "."); a != "" {
				return a
			}
			return "250 2.0.0 taken"
		}
		a := ""
		if change != nil {
			a = change(n, line)
		}
		switch {
		case a == "close":
			return ""
		case a != "":
		case verb(line) == "EHLO":
			a = ehlo
		case verb(line) == "DATA":
			a = "354 go on"
		default:
			a = "250 ok"
		}
		if strings.HasPrefix(a, "354") {
			inData[n] = true
		}
		return a
	})
}

func TestWhatAServerCannotTake(t *testing.T) {
	never := func(int, string) string { return "" }
	bare := plainServer(t, "250-x\r\n250 SIZE 60", never)
	w := newWorld()
	w.exchanger("bare.test", 10, "mx.bare.test", "192.0.2.1", bare.addr)
	c := w.client(t, nil)
	for _, x := range []struct {
		name, text, from, to string
		utf8                 bool
		want                 string
	}{
		{"plain", "Subject: x\r\n\r\nbody\r\n", "alice@shoal.test", "bob@bare.test", false, "taken"},
		{"SMTPUTF8 that is not needed", "Subject: x\r\n\r\nbody\r\n", "alice@shoal.test", "bob@bare.test", true, "taken"},
		{"large", strings.Repeat("x\r\n", 30), "alice@shoal.test", "bob@bare.test", false, "552 5.3.4"},
		{"8-bit", "Subject: x\r\n\r\nböse\r\n", "alice@shoal.test", "bob@bare.test", false, "554 5.6.3"},
		{"UTF-8 header", "Subject: ü\r\n\r\nx\r\n", "alice@shoal.test", "bob@bare.test", true, "550 5.6.7"},
		{"sender", "Subject: x\r\n\r\nx\r\n", "älice@shoal.test", "bob@bare.test", true, "553 5.6.7"},
		{"recipient", "Subject: x\r\n\r\nx\r\n", "alice@shoal.test", "bøb@bare.test", true, "553 5.6.7"},
		{"domain alone", "Subject: x\r\n\r\nx\r\n", "alice@shöal.test", "bob@bare.test", true, "taken"},
	} {
		m, rcpts := mailOf(t, x.text, x.to, "carol@bare.test")
		m.From, m.UTF8 = addr(t, x.from), x.utf8
		r := send(t, c, "bare.test", m, rcpts)
		if got := status(r.Outcomes[0]); got != x.want {
			t.Errorf("%s: %s (%v), want %s", x.name, got, r.Outcomes[0].Err, x.want)
		}
		if x.name == "recipient" && r.Outcomes[1].Err != nil {
			t.Errorf("the other recipient: %v", r.Outcomes[1].Err)
		}
	}
	if told := strings.Join(bare.told(), "\n"); !strings.Contains(told, "MAIL FROM:<alice@xn--shal-6qa.test>") {
		t.Errorf("no A-labels in:\n%s", told)
	}
}

// RFC 5321 §4.1.1.4 and every way to hide an end of data in a message: only the last line of what is sent is a dot.
func TestNothingIsSmuggled(t *testing.T) {
	box := serveSMTP(t, nil)
	w := newWorld()
	w.exchanger("far.test", 10, "mx.far.test", "192.0.2.1", box.addr)
	c := w.client(t, nil)
	inner := "MAIL FROM:<evil@far.test>\r\nRCPT TO:<bob@far.test>\r\nDATA\r\nSubject: smuggled\r\n\r\nx\r\n"
	ends := []string{"\n.\n", "\n.\r\n", "\r.\r", "\r.\r\n", "\r\n.\n", "\r\n.\r", "\n.\r", "\r\r\n.\r\n", "\r\n.\r\r\n", "\n\r.\n\r", "\r\n.\x00\r\n", "\r\n.\r\n"}
	for i, end := range ends {
		m, rcpts := mailOf(t, "Subject: s\r\n\r\nbody"+end+inner, "bob@far.test")
		if r := send(t, c, "far.test", m, rcpts); r.Outcomes[0].Err != nil {
			t.Fatalf("%q: %v", end, r.Outcomes[0].Err)
		}
		all := box.all()
		if len(all) != i+1 {
			t.Fatalf("%q: %d messages arrived in place of one", end, len(all)-i)
		}
		d := all[i].data
		if !strings.Contains(d, "Subject: smuggled") || strings.Contains(strings.ReplaceAll(d, "\r\n", ""), "\n") || strings.Contains(strings.ReplaceAll(d, "\r\n", ""), "\r") {
			t.Errorf("%q: arrived as %q", end, d)
		}
	}
}

// However the reads of a message are cut, its lines come out the same.
func TestBodyAcrossReads(t *testing.T) {
	in := "a\r\n.b\rc\nd\r\r\n.\r\n..\n\n.e"
	want := "a\r\n..b\r\nc\r\nd\r\n\r\n..\r\n...\r\n\r\n..e\r\n.\r\n"
	for size := 1; size <= len(in); size++ {
		b := body{bol: true}
		for at := 0; at < len(in); at += size {
			b.add([]byte(in[at:min(at+size, len(in))]))
		}
		b.end()
		if string(b.out) != want {
			t.Errorf("pieces of %d: %q, want %q", size, b.out, want)
		}
	}
}

func FuzzBody(f *testing.F) {
	f.Add([]byte("a\r\n.\r\nb"), 3)
	f.Add([]byte(".\r\r\n\n."), 1)
	f.Add([]byte{}, 2)
	f.Fuzz(func(t *testing.T, in []byte, size int) {
		if size <= 0 || size > 1<<16 {
			size = 7
		}
		b := body{bol: true}
		for at := 0; at < len(in); at += size {
			b.add(in[at:min(at+size, len(in))])
		}
		b.end()
		out := string(b.out)
		if strings.Count("\r\n"+out, "\r\n.\r\n") != 1 || !strings.HasSuffix("\r\n"+out, "\r\n.\r\n") {
			t.Fatalf("%q became %q: the end is not the one end", in, out)
		}
		if rest := strings.ReplaceAll(out, "\r\n", ""); strings.ContainsAny(rest, "\r\n") {
			t.Fatalf("%q became %q: a CR or LF stands alone", in, out)
		}
	})
}

// After the last octet an answer that does not come leaves it open whether the message was taken; no other
// server gets it in the same attempt.
func TestNoAnswerAfterTheMessage(t *testing.T) {
	second := serveSMTP(t, nil)
	s := plainServer(t, "250 x", func(_ int, line string) string {
		if line == "." {
			return "999 nonsense"
		}
		return ""
	})
	w := newWorld()
	w.exchanger("far.test", 10, "mx1.far.test", "192.0.2.1", s.addr)
	w.exchanger("far.test", 20, "mx2.far.test", "192.0.2.2", second.addr)
	c := w.client(t, nil)
	m, rcpts := mailOf(t, text, "bob@far.test")
	r := send(t, c, "far.test", m, rcpts)
	if got := status(r.Outcomes[0]); got != "451 4.4.2" || r.Away || len(second.all()) != 0 {
		t.Errorf("%s away=%v, %d messages at the second server", got, r.Away, len(second.all()))
	}
}

// A message that cannot be read to its end is never ended with a dot.
func TestUnreadableMessageIsNotSent(t *testing.T) {
	box := serveSMTP(t, nil)
	w := newWorld()
	w.exchanger("far.test", 10, "mx.far.test", "192.0.2.1", box.addr)
	c := w.client(t, nil)
	m, rcpts := mailOf(t, text, "bob@far.test")
	m.Open = func() io.Reader {
		return io.MultiReader(strings.NewReader(strings.Repeat(text, 5000)), failing{})
	}
	r := send(t, c, "far.test", m, rcpts)
	if got := status(r.Outcomes[0]); got != "451 4.3.0" || r.Away {
		t.Errorf("%s away=%v", got, r.Away)
	}
	if len(box.all()) != 0 {
		t.Error("half a message was taken")
	}
}

type failing struct{}

func (failing) Read([]byte) (int, error) { return 0, errors.New("checksum") }

// RFC 5321 §4.5.3.1.8: many recipients go in transactions of 100.
func TestManyRecipients(t *testing.T) {
	box := serveSMTP(t, nil)
	w := newWorld()
	w.exchanger("far.test", 10, "mx.far.test", "192.0.2.1", box.addr)
	c := w.client(t, nil)
	var to []string
	for i := range 250 {
		to = append(to, fmt.Sprintf("u%d@far.test", i))
	}
	m, rcpts := mailOf(t, text, to...)
	for i, o := range send(t, c, "far.test", m, rcpts).Outcomes {
		if o.Err != nil {
			t.Fatalf("recipient %d: %v", i, o.Err)
		}
	}
	var arrived []string
	all := box.all()
	for _, g := range all {
		arrived = append(arrived, g.to...)
	}
	if len(all) != 3 || !slices.Equal(arrived, to) || len(w.dialed()) != 1 {
		t.Errorf("%d messages for %d recipients over %d connections", len(all), len(arrived), len(w.dialed()))
	}
}

// A parameter from outside cannot become a command.
func TestParametersAreSafe(t *testing.T) {
	s := plainServer(t, "250-x\r\n250 DSN", func(int, string) string { return "" })
	w := newWorld()
	w.exchanger("far.test", 10, "mx.far.test", "192.0.2.1", s.addr)
	c := w.client(t, nil)
	m, rcpts := mailOf(t, text, "bob@far.test")
	m.EnvID, m.Return, rcpts[0].ORcpt, rcpts[0].Notify = "x\r\nRSET", "FULL RET=HDRS", "rfc822;a\r\nRSET", strings.Repeat("N", 1000)
	if r := send(t, c, "far.test", m, rcpts); r.Outcomes[0].Err != nil {
		t.Fatal(r.Outcomes[0].Err)
	}
	for _, l := range s.told() {
		if l == "RSET" || strings.HasPrefix(l, "MAIL") && l != "MAIL FROM:<alice@shoal.test>" || strings.HasPrefix(l, "RCPT") && l != "RCPT TO:<bob@far.test>" {
			t.Errorf("said %q", l)
		}
	}
}

// A server that answers without end, or not at all, is given up.
func TestRepliesAreBounded(t *testing.T) {
	w := newWorld()
	for i, greeting := range []string{strings.Repeat("220-x\r\n", 1000), "220 " + strings.Repeat("x", 100000), "2x0 what", "220-a\r\n250 b"} {
		s := serveScript(t, greeting, func(int, string) string { return "" })
		domain := fmt.Sprintf("d%d.test", i)
		w.exchanger(domain, 10, "mx."+domain, fmt.Sprintf("192.0.2.%d", i+1), s.addr)
		c := w.client(t, nil)
		m, rcpts := mailOf(t, text, "bob@"+domain)
		if r := send(t, c, domain, m, rcpts); status(r.Outcomes[0]) != "451 4.4.2" || !r.Away {
			t.Errorf("%.20q: %v away=%v", greeting, r.Outcomes[0].Err, r.Away)
		}
	}
	silent := serveScript(t, "220 x", func(int, string) string { return "-" })
	w.exchanger("silent.test", 10, "mx.silent.test", "192.0.2.99", silent.addr)
	c := w.client(t, func(o *Options) { o.Settings.CommandTimeout = 50 * time.Millisecond })
	m, rcpts := mailOf(t, text, "bob@silent.test")
	if r := send(t, c, "silent.test", m, rcpts); status(r.Outcomes[0]) != "451 4.4.2" || !r.Away {
		t.Errorf("silent: %v away=%v", r.Outcomes[0].Err, r.Away)
	}
}

// An attempt that is broken off is over at once, and says nothing about the destination.
func TestCancel(t *testing.T) {
	reached := make(chan struct{}, 10)
	s := serveScript(t, "220 x", func(int, string) string { reached <- struct{}{}; return "-" })
	w := newWorld()
	w.exchanger("far.test", 10, "mx.far.test", "192.0.2.1", s.addr)
	c := w.client(t, nil)
	m, rcpts := mailOf(t, text, "bob@far.test")
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan Result)
	go func() { done <- c.Send(ctx, "far.test", m, rcpts) }()
	<-reached
	cancel()
	if r := <-done; r.Away || r.Outcomes[0].Err == nil || r.Outcomes[0].Err.Permanent() {
		t.Errorf("%+v", r)
	}
}

func TestSettings(t *testing.T) {
	for _, change := range []func(*Settings){
		func(s *Settings) { s.SmartHost = "nowhere" },
		func(s *Settings) { s.User, s.PasswordFile = "x", "/y" },
		func(s *Settings) { s.TLS = "verify" },
		func(s *Settings) { s.SmartHost, s.User = "a:25", "x" },
		func(s *Settings) { s.SmartHost, s.User, s.PasswordFile, s.TLS = "a:25", "x", "/y", "off" },
		func(s *Settings) { s.SmartHost, s.ImplicitTLS, s.TLS = "a:465", true, "off" },
		func(s *Settings) { s.ImplicitTLS = true },
		func(s *Settings) { s.OwnAddresses = []string{"mx.test"} },
	} {
		s := DefaultSettings()
		change(&s)
		if s.Validate() == nil {
			t.Errorf("%+v is taken", s)
		}
	}
	s := DefaultSettings()
	if err := s.Validate(); err != nil {
		t.Error(err)
	}
}

// Postfix's own test server takes what is sent (Debian's postfix package holds it).
func TestPostfixSink(t *testing.T) {
	path, err := exec.LookPath("smtp-sink")
	if err != nil {
		path = "/usr/sbin/smtp-sink"
	}
	if _, err := os.Stat(path); err != nil {
		t.Fatalf("smtp-sink of the package postfix is needed: %v", err)
	}
	address := ports.One(t)
	dir := t.TempDir()
	for _, d := range []string{dir, filepath.Dir(dir)} { // the sink runs as another user
		if err := os.Chmod(d, 0o777); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.Command(path, "-u", "nobody", "-D", filepath.Join(dir, "m."), address, "10")
	if os.Getuid() != 0 {
		cmd.Args = slices.Delete(cmd.Args, 1, 3)
	}
	cmd.Dir = dir
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	w := newWorld()
	w.exchanger("sink.test", 10, "mx.sink.test", "192.0.2.1", address)
	c := w.client(t, func(o *Options) {
		dial := o.Dial
		o.Dial = func(ctx context.Context, network, address string) (net.Conn, error) {
			for { // until it listens, or the test's time is over
				conn, err := dial(ctx, network, address)
				if err == nil || ctx.Err() != nil {
					return conn, err
				}
			}
		}
	})
	m, rcpts := mailOf(t, text, "bob@sink.test", "carol@sink.test")
	for _, o := range send(t, c, "sink.test", m, rcpts).Outcomes {
		if o.Err != nil {
			t.Fatal(o.Err)
		}
	}
	files, err := filepath.Glob(filepath.Join(dir, "m.*"))
	if err != nil || len(files) != 1 {
		t.Fatalf("%v %v", files, err)
	}
	b, err := os.ReadFile(files[0])
	if err != nil {
		t.Fatal(err)
	}
	if got := string(b); !strings.Contains(got, strings.ReplaceAll(text, "\r\n", "\n")) {
		t.Errorf("the sink took %q", got)
	}
}
