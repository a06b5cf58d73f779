package deliver

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"shoal/daemons/internal/clock"
	"shoal/daemons/internal/mailaddr"
)

var sender = mailaddr.Address{Local: "a", Domain: "b.test"}

func rcpt(local string) mailaddr.Address { return mailaddr.Address{Local: local, Domain: "d.test"} }

func to(addresses []string) Settings {
	s := DefaultSettings()
	s.Addresses = addresses
	return s
}

func newTransport(t testing.TB, o Options) *Transport {
	t.Helper()
	o.Metrics = prometheus.NewRegistry()
	tr, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { tr.Close() })
	return tr
}

func begin(t testing.TB, tr *Transport) *Transaction {
	t.Helper()
	x, err := tr.Begin(t.Context(), Envelope{From: sender, EnvID: "trace1"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(x.Close)
	return x
}

// send runs a whole transaction to the recipients and fails when one is refused.
func send(t testing.TB, tr *Transport, text string, to ...string) ([]RcptResult, error) {
	t.Helper()
	x := begin(t, tr)
	for _, a := range to {
		if err := x.Rcpt(rcpt(a)); err != nil {
			t.Fatalf("RCPT %s: %v", a, err)
		}
	}
	return x.Data(strings.NewReader(text))
}

func TestDeliver(t *testing.T) {
	big := strings.Repeat("0123456789abcdef\r\n.dots\r\n..\r\n", 20000) // 600 KB: many chunks
	exact := strings.Repeat("x", chunkSize-2) + "\r\n"
	for _, s := range []*server{{}, {dots: true}, {plain: true}} {
		newServer(t, s)
		tr := newTransport(t, Options{Settings: to([]string{s.addr})})
		for _, text := range []string{"Subject: x\r\n\r\n.\r\n..\r\n.a\r\nend\r\n", "", big, exact, exact + exact, exact + "."} {
			res, err := send(t, tr, text, "one", "two")
			if err != nil || len(res) != 2 || res[0].Err != nil || res[1].Err != nil {
				t.Fatalf("%+v, %v", res, err)
			}
			got := s.deliveries()[len(s.deliveries())-2:]
			want := text
			if (s.dots || s.plain) && want != "" && !strings.HasSuffix(want, "\r\n") {
				want += "\r\n"
			}
			if got[0] != (delivery{"one@d.test", want}) || got[1] != (delivery{"two@d.test", want}) {
				t.Fatalf("%d octets arrived as %d", len(want), len(got[0].text))
			}
		}
		if n := s.connections(); n != 1 {
			t.Errorf("%d connections, not one that is used again", n)
		}
	}
}

func TestEnvelope(t *testing.T) {
	s := newServer(t, &server{})
	tr := newTransport(t, Options{Settings: to([]string{s.addr})})
	for _, e := range []struct {
		env  Envelope
		mail string
	}{
		{Envelope{From: sender, EnvID: "t=1+", Size: 10, EightBit: true}, "FROM:<a@b.test> BODY=8BITMIME SIZE=10 ENVID=t+3D1+2B"},
		{Envelope{From: sender, EnvID: "t1", Again: true}, "FROM:<a@b.test> ENVID=t1/again"},
		{Envelope{}, "FROM:<>"},
		{Envelope{From: mailaddr.Address{Local: "ü", Domain: "b.test"}}, "FROM:<ü@b.test> SMTPUTF8 BODY=8BITMIME"},
		{Envelope{From: sender, UTF8: true}, "FROM:<a@b.test> SMTPUTF8 BODY=8BITMIME"},
		{Envelope{From: mailaddr.Address{Local: "a b", Domain: "b.test"}}, `FROM:<"a b"@b.test>`},
	} {
		x, err := tr.Begin(t.Context(), e.env)
		if err != nil {
			t.Fatal(err)
		}
		if err := x.Rcpt(rcpt("one")); err != nil {
			t.Fatal(err)
		}
		x.Close()
		s.mu.Lock()
		got := s.mails[len(s.mails)-1]
		s.mu.Unlock()
		if got != e.mail {
			t.Errorf("MAIL %s, want %s", got, e.mail)
		}
	}
	plain := newServer(t, &server{plain: true})
	tr = newTransport(t, Options{Settings: to([]string{plain.addr})})
	x, _ := tr.Begin(t.Context(), Envelope{From: sender, UTF8: true})
	if err := x.Rcpt(rcpt("one")); !errors.Is(err, ErrNeedsUTF8) {
		t.Errorf("UTF-8 to a server without SMTPUTF8: %v", err)
	}
	x.Close()
}

func TestRefusals(t *testing.T) {
	s := newServer(t, &server{reply: func(event string) string {
		switch event {
		case "RCPT no@d.test":
			return "550-5.1.1 No such\r\n550 5.1.1 mailbox"
		case "RCPT later@d.test":
			return "451 4.3.0 Later"
		case "END full@d.test":
			return "452 4.2.2 Mailbox full"
		}
		return ""
	}})
	tr := newTransport(t, Options{Settings: to([]string{s.addr})})
	x := begin(t, tr)
	var e *Error
	if err := x.Rcpt(rcpt("no")); !errors.As(err, &e) || e.Code != 550 || e.Enhanced != [3]int{5, 1, 1} || e.Text != "No such mailbox" || e.Temporary() {
		t.Errorf("%#v", err)
	}
	if err := x.Rcpt(rcpt("later")); !errors.As(err, &e) || e.Code != 451 || !e.Temporary() {
		t.Errorf("%#v", err)
	}
	for _, a := range []string{"one", "full", "two"} {
		if err := x.Rcpt(rcpt(a)); err != nil {
			t.Fatal(err)
		}
	}
	res, err := x.Data(strings.NewReader("text\r\n"))
	if err != nil || res[0].Err != nil || !errors.As(res[1].Err, &e) || e.Code != 452 || res[2].Err != nil {
		t.Fatalf("%+v, %v", res, err)
	}
	if _, err := send(t, tr, "again\r\n", "one"); err != nil || s.connections() != 1 {
		t.Errorf("after refusals: %v, %d connections", err, s.connections())
	}
}

// A server that fails before the message is sent is replaced, and the recipients are offered again.
func TestFailover(t *testing.T) {
	for _, event := range []string{"connect", "LHLO", "MAIL", "RCPT one@d.test", "RCPT two@d.test"} {
		for _, fault := range []string{"!", "421 4.3.2 Shutting down!"} {
			bad := newServer(t, &server{reply: func(e string) string {
				if e == event {
					return fault
				}
				return ""
			}})
			good := newServer(t, &server{})
			tr := newTransport(t, Options{Settings: to([]string{bad.addr, good.addr})})
			res, err := send(t, tr, "text\r\n", "one", "two")
			if err != nil || len(res) != 2 || res[0].Err != nil || res[1].Err != nil {
				t.Fatalf("%s %q: %+v, %v", event, fault, res, err)
			}
			if n := len(good.deliveries()); n != 2 || len(bad.deliveries()) != 0 {
				t.Errorf("%s %q: %d deliveries", event, fault, n)
			}
			// The one that failed is passed over for a while.
			before := bad.connections()
			if _, err := send(t, tr, "text\r\n", "one"); err != nil || bad.connections() != before {
				t.Errorf("%s %q: %v, asked again", event, fault, err)
			}
		}
	}
}

// The server that steps in may refuse a recipient that the first had accepted: that is its outcome.
func TestFailoverRefuses(t *testing.T) {
	bad := newServer(t, &server{reply: func(e string) string {
		if e == "RCPT two@d.test" {
			return "!"
		}
		return ""
	}})
	good := newServer(t, &server{reply: func(e string) string {
		if e == "RCPT one@d.test" {
			return "550 5.1.1 Not here"
		}
		return ""
	}})
	tr := newTransport(t, Options{Settings: to([]string{bad.addr, good.addr})})
	res, err := send(t, tr, "text\r\n", "one", "two")
	var e *Error
	if err != nil || !errors.As(res[0].Err, &e) || e.Code != 550 || res[1].Err != nil || len(good.deliveries()) != 1 {
		t.Fatalf("%+v, %v", res, err)
	}
}

// All servers down: unavailable, at RCPT.
func TestUnavailable(t *testing.T) {
	s := newServer(t, &server{})
	s.l.Close()
	tr := newTransport(t, Options{Settings: to([]string{s.addr, s.addr})})
	if err := begin(t, tr).Rcpt(rcpt("one")); !errors.Is(err, ErrUnavailable) {
		t.Errorf("%v", err)
	}
	if err := tr.Ping(t.Context()); !errors.Is(err, ErrUnavailable) {
		t.Errorf("Ping: %v", err)
	}
}

// A box that is named is looked up at each transaction; with none found the next address serves.
func TestNamedBox(t *testing.T) {
	s := newServer(t, &server{})
	var answer []string
	var fail error
	o := Options{Settings: to([]string{"box:box1"}), Box: func(_ context.Context, name string) ([]string, error) {
		if name != "box1" {
			t.Errorf("looked up %q", name)
		}
		return answer, fail
	}}
	tr := newTransport(t, o)
	answer = []string{s.addr}
	if res, err := send(t, tr, "text\r\n", "one"); err != nil || res[0].Err != nil {
		t.Errorf("%+v, %v", res, err)
	}
	answer, fail = nil, errors.New("directory is down")
	if err := begin(t, tr).Rcpt(rcpt("one")); !errors.Is(err, ErrUnavailable) || !errors.Is(err, fail) {
		t.Errorf("%v", err)
	}
	o.Settings = to([]string{"box:box1", s.addr})
	tr = newTransport(t, o)
	if res, err := send(t, tr, "text\r\n", "one"); err != nil || res[0].Err != nil {
		t.Errorf("%+v, %v", res, err)
	}
}

// A reply that did not arrive is never a success: for every recipient after the break the outcome is unknown.
func TestLostReplies(t *testing.T) {
	for _, dots := range []bool{false, true} {
		for i, event := range []string{"END one@d.test", "END two@d.test", "END three@d.test"} {
			s := newServer(t, &server{dots: dots, reply: func(e string) string {
				if e == event {
					return "!"
				}
				return ""
			}})
			other := newServer(t, &server{dots: dots})
			tr := newTransport(t, Options{Settings: to([]string{s.addr, other.addr})})
			res, err := send(t, tr, "text\r\n", "one", "two", "three")
			if err != nil {
				t.Fatal(err)
			}
			for j, r := range res {
				if (j < i) != (r.Err == nil) || j >= i && !errors.Is(r.Err, ErrUnknown) {
					t.Errorf("%s: recipient %d: %v", event, j, r.Err)
				}
			}
			if len(other.deliveries()) != 0 {
				t.Errorf("%s: sent again", event)
			}
		}
	}
}

// A box that dies in the middle of the message: nobody has it, and it is not sent again when it is no longer
// whole in memory.
func TestDiesInTheMiddle(t *testing.T) {
	s := newServer(t, &server{reply: func(e string) string {
		if e == "BDAT" {
			return "!"
		}
		return ""
	}})
	tr := newTransport(t, Options{Settings: to([]string{s.addr})})
	res, err := send(t, tr, strings.Repeat("x\r\n", 500000), "one")
	if !errors.Is(err, ErrUnavailable) || res != nil {
		t.Errorf("%+v, %v", res, err)
	}
	if n := len(s.deliveries()); n != 0 {
		t.Errorf("%d deliveries", n)
	}
}

// A chunk that is refused is the answer for all.
func TestChunkRefused(t *testing.T) {
	for _, chunks := range []int{1, 2, 5} {
		n := 0
		s := newServer(t, &server{reply: func(e string) string {
			if e == "BDAT" {
				if n++; n == chunks {
					return "452 4.3.1 No space"
				}
			}
			return ""
		}})
		tr := newTransport(t, Options{Settings: to([]string{s.addr})})
		_, err := send(t, tr, strings.Repeat("x", 6*chunkSize), "one", "two")
		var e *Error
		if !errors.As(err, &e) || e.Code != 452 {
			t.Errorf("chunk %d: %v", chunks, err)
		}
	}
}

// When the message cannot be read to its end, nothing is delivered, wherever it broke off.
func TestReaderFails(t *testing.T) {
	broken := errors.New("client has gone")
	for _, dots := range []bool{false, true} {
		s := newServer(t, &server{dots: dots})
		tr := newTransport(t, Options{Settings: to([]string{s.addr})})
		for _, n := range []int{0, 10, chunkSize, chunkSize + 1, 5 * chunkSize} {
			for _, e := range []error{broken, io.ErrUnexpectedEOF} {
				x := begin(t, tr)
				if err := x.Rcpt(rcpt("one")); err != nil {
					t.Fatal(err)
				}
				r := io.MultiReader(strings.NewReader(strings.Repeat("x", n)), iotest.ErrReader(e))
				if res, err := x.Data(r); !errors.Is(err, ErrAborted) || !errors.Is(err, e) || res != nil {
					t.Errorf("%d octets: %+v, %v", n, res, err)
				}
			}
		}
		if got := s.deliveries(); len(got) != 0 {
			t.Errorf("%d deliveries", len(got))
		}
	}
}

// Without CHUNKING, a bare CR or LF is not sent, wherever a chunk ends.
func TestBareLines(t *testing.T) {
	s := newServer(t, &server{dots: true})
	tr := newTransport(t, Options{Settings: to([]string{s.addr})})
	for _, form := range []string{"\n", "\r", "\r\r\n", "\n\r\n", "\n.\r\n", "\r.\r\n", "\r\n.\r", "\r\n.\n"} {
		for _, pad := range []int{0, 1, chunkSize - 3, chunkSize - 2, chunkSize - 1, chunkSize} {
			if _, err := send(t, tr, strings.Repeat("x", pad)+form+"x", "one"); !errors.Is(err, ErrBareLine) {
				t.Errorf("%q after %d octets: %v", form, pad, err)
			}
		}
	}
	if got := s.deliveries(); len(got) != 0 {
		t.Errorf("%d deliveries", len(got))
	}
}

func TestStuffer(t *testing.T) {
	text := []byte(strings.Repeat(".\r\n..\r\nab\r\n\r\n.x\r\n", 50))
	want := strings.ReplaceAll("\r\n"+string(text), "\r\n.", "\r\n..")[2:] + ".\r\n"
	for range 200 {
		s, rest := stuffer{bol: true}, text
		var out bytes.Buffer
		for len(rest) > 0 {
			n := min(1+rand.IntN(20), len(rest))
			p, err := s.stuff(rest[:n], n == len(rest))
			if err != nil {
				t.Fatal(err)
			}
			out.Write(p)
			rest = rest[n:]
		}
		if out.String() != want {
			t.Fatalf("got %q", out.String())
		}
	}
}

// A connection that the server closed while it was waiting costs nobody a message.
func TestStaleConnection(t *testing.T) {
	kill := false
	s := newServer(t, &server{reply: func(e string) string {
		if kill && e == "MAIL" {
			kill = false
			return "421 4.4.2 Too long idle!"
		}
		return ""
	}})
	tr := newTransport(t, Options{Settings: to([]string{s.addr})})
	for range 3 {
		if _, err := send(t, tr, "text\r\n", "one"); err != nil {
			t.Fatal(err)
		}
		s.mu.Lock()
		kill = true
		s.mu.Unlock()
	}
	if n := s.connections(); n != 3 {
		t.Errorf("%d connections", n)
	}
	if err := tr.Ping(t.Context()); err != nil {
		t.Errorf("Ping: %v", err)
	}
}

// After Close without a message the connection goes on, and the recipients do not leak into the next.
func TestAbandon(t *testing.T) {
	s := newServer(t, &server{})
	tr := newTransport(t, Options{Settings: to([]string{s.addr})})
	x := begin(t, tr)
	if err := x.Rcpt(rcpt("left")); err != nil {
		t.Fatal(err)
	}
	x.Close()
	x.Close()
	if err := x.Rcpt(rcpt("one")); err == nil {
		t.Error("Rcpt after Close")
	}
	if res, err := send(t, tr, "text\r\n", "one"); err != nil || len(res) != 1 || res[0].Err != nil {
		t.Fatalf("%+v, %v", res, err)
	}
	if got := s.deliveries(); len(got) != 1 || got[0].rcpt != "one@d.test" || s.connections() != 1 {
		t.Errorf("%v over %d connections", got, s.connections())
	}
}

func TestPoolBounds(t *testing.T) {
	s := newServer(t, &server{})
	fake := clock.NewFake(time.Unix(1e9, 0))
	settings := to([]string{s.addr})
	settings.MaxOpen, settings.MaxIdle = 2, 1
	tr := newTransport(t, Options{Settings: settings, Clock: fake})
	one, two := begin(t, tr), begin(t, tr)
	for _, x := range []*Transaction{one, two} {
		if err := x.Rcpt(rcpt("one")); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	third, _ := tr.Begin(ctx, Envelope{From: sender})
	cancel()
	if err := third.Rcpt(rcpt("one")); !errors.Is(err, ErrBusy) {
		t.Errorf("a third connection: %v", err)
	}
	third.Close()
	one.Close()
	two.Close()
	if n := len(tr.idle[s.addr]); n != 1 {
		t.Errorf("%d connections wait", n)
	}
	fake.Advance(2 * settings.IdleTimeout)
	tr.reap()
	if n := len(tr.idle[s.addr]); n != 0 {
		t.Errorf("%d connections wait after the idle time", n)
	}
	if len(tr.slots) != 0 {
		t.Errorf("%d places are taken", len(tr.slots))
	}
}

// The end of the context ends a transaction that waits for the server.
func TestContextEnds(t *testing.T) {
	hang := make(chan struct{})
	s := &server{}
	s.reply = func(e string) string {
		if e == "END one@d.test" {
			s.mu.Unlock()
			<-hang
			s.mu.Lock()
		}
		return ""
	}
	newServer(t, s)
	tr := newTransport(t, Options{Settings: to([]string{s.addr})})
	ctx, cancel := context.WithCancel(t.Context())
	x, _ := tr.Begin(ctx, Envelope{From: sender})
	if err := x.Rcpt(rcpt("one")); err != nil {
		t.Fatal(err)
	}
	time.AfterFunc(20*time.Millisecond, cancel)
	res, err := x.Data(strings.NewReader("text\r\n"))
	close(hang)
	if err != nil || !errors.Is(res[0].Err, ErrUnknown) {
		t.Errorf("%+v, %v", res, err)
	}
}

// Time-outs: a server that says nothing at a step is given up.
func TestSilentServer(t *testing.T) {
	for _, event := range []string{"connect", "MAIL", "RCPT one@d.test", "END one@d.test"} {
		hang := make(chan struct{})
		s := &server{}
		s.reply = func(e string) string {
			if e == event {
				s.mu.Unlock()
				<-hang
				s.mu.Lock()
			}
			return ""
		}
		newServer(t, s)
		settings := to([]string{s.addr})
		settings.ConnectTimeout, settings.CommandTimeout, settings.FinalTimeout = 50*time.Millisecond, 50*time.Millisecond, 50*time.Millisecond
		tr := newTransport(t, Options{Settings: settings})
		x := begin(t, tr)
		err := x.Rcpt(rcpt("one"))
		if err == nil {
			var res []RcptResult
			if res, err = x.Data(strings.NewReader("text\r\n")); err == nil {
				err = res[0].Err
			}
		}
		if want := map[bool]error{true: ErrUnknown, false: ErrUnavailable}[event == "END one@d.test"]; !errors.Is(err, want) {
			t.Errorf("%s: %v, want %v", event, err, want)
		}
		close(hang)
	}
}

// What a server says is bounded and made fit to pass on.
func TestBadReplies(t *testing.T) {
	for _, line := range []string{"hello", "99 x", "2500 x", "250-a\r\n251 b", strings.Repeat("x", 5000), strings.Repeat("250-x\r\n", 200) + "250 x"} {
		s := newServer(t, &server{reply: func(e string) string {
			if e == "RCPT one@d.test" {
				return line
			}
			return ""
		}})
		tr := newTransport(t, Options{Settings: to([]string{s.addr})})
		if err := begin(t, tr).Rcpt(rcpt("one")); !errors.Is(err, ErrUnavailable) {
			t.Errorf("%.20q: %v", line, err)
		}
	}
	if e := refusal(550, []string{"5.1.1 a\x1b[2Jb", "5.1.1 " + strings.Repeat("ü", 500)}); len(e.Text) > 400 || strings.ContainsAny(e.Text, "\x1b\r\n") {
		t.Errorf("%q", e.Text)
	}
}

func TestNewChecks(t *testing.T) {
	for _, o := range []Options{{}, {Settings: to(nil)}, {Settings: to([]string{"nohost"})}, {Settings: to([]string{":25"})}, {Settings: to([]string{"box:"})},
		{Settings: to([]string{"box:box1"})}, {Settings: Settings{Addresses: []string{"a:1"}}}} {
		if _, err := New(o); err == nil {
			t.Errorf("New(%+v)", o)
		}
	}
	tr := newTransport(t, Options{Settings: to([]string{"127.0.0.1:1"})})
	tr.Close()
	if _, err := tr.Begin(t.Context(), Envelope{}); !errors.Is(err, ErrClosed) {
		t.Errorf("Begin after Close: %v", err)
	}
}

func BenchmarkDeliver(b *testing.B) {
	s := newServer(b, &server{})
	tr := newTransport(b, Options{Settings: to([]string{s.addr})})
	text := "Subject: x\r\n\r\n" + strings.Repeat(fmt.Sprintf("%076d\r\n", 1), 52)
	for b.Loop() {
		if res, err := send(b, tr, text, "one"); err != nil || res[0].Err != nil {
			b.Fatal(err)
		}
	}
}
