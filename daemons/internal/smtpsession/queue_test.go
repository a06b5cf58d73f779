package smtpsession

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"shoal/daemons/internal/deliver"
	"shoal/daemons/internal/mailaddr"
	"shoal/daemons/internal/queue"
	"shoal/daemons/internal/route"
	"shoal/tests/ports"
)

// queued is one entry that a test's queue took.
type queued struct {
	queue.Envelope
	text string
}

// queueFake takes everything, or fails.
type queueFake struct {
	mu  sync.Mutex
	err error
	got []queued
}

func (q *queueFake) Enqueue(_ context.Context, content io.Reader, _ time.Time, envelopes ...queue.Envelope) ([]string, error) {
	b, err := io.ReadAll(content)
	if err != nil {
		return nil, err
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.err != nil {
		return nil, q.err
	}
	var ids []string
	for _, e := range envelopes {
		q.got = append(q.got, queued{e, string(b)})
		ids = append(ids, fmt.Sprint(len(q.got)))
	}
	return ids, nil
}

func (q *queueFake) take() []queued {
	q.mu.Lock()
	defer q.mu.Unlock()
	got := q.got
	q.got = nil
	return got
}

// forwards is router with an alias team@d.test.
type forwards struct {
	router
	away bool // the mail of alice is sent on
}

func (f forwards) Route(ctx context.Context, a mailaddr.Address) (route.Decision, error) {
	switch a.Key() {
	case "team@d.test":
		return route.Decision{Outcome: route.Expanded, Targets: []string{"alice@d.test"}}, nil
	case "alice@d.test":
		d, err := f.router.Route(ctx, a)
		if f.away {
			d.Outcome, d.Targets = route.Expanded, []string{"alice@far.test"}
		}
		return d, err
	}
	return f.router.Route(ctx, a)
}

func queueRig(t *testing.T, change ...func(*Options)) (*rig, *queueFake) {
	q := &queueFake{}
	r := newRig(t, append([]func(*Options){func(o *Options) {
		o.Queue, o.Router, o.Life = q, forwards{}, time.Hour
		o.Destination = func(domain string) string { return mailaddr.DomainKey(domain) }
	}}, change...)...)
	return r, q
}

// entries writes what was queued: "from>to,to" each.
func entries(got []queued) string {
	var out []string
	for _, e := range got {
		var to []string
		for _, rc := range e.Recipients {
			to = append(to, strings.TrimSuffix(rc.Address+" "+rc.Notify+" "+rc.ORcpt, "  "))
		}
		out = append(out, e.From+">"+strings.Join(to, ","))
	}
	return strings.Join(out, " ")
}

const loggedIn = `
open 1 submissions
S1: 220 {{.*}}
C1: EHLO client.test
S1~: 250 {{.*}}
C1: AUTH PLAIN AGFsaWNlQGQudGVzdABzZWNyZXQ=
S1: 235 {{.*}}
`

const message = `C1: DATA
S1: 354 {{.*}}
C1!: Subject: x\r\n\r\nbody\r\n.\r\n
`

// What goes into the queue, what to the box, and what is answered.
func TestQueued(t *testing.T) {
	for _, c := range []struct {
		name, script string
		queued       string // entries
		stored       string // recipients that the box has
	}{
		{"a user to another system", loggedIn + `
C1: MAIL FROM:<alice@d.test>
S1: 250 {{.*}}
C1: RCPT TO:<carol@far.test>
S1: 250 {{.*}}
` + message + `S1: 250 2.0.0 Queued, id {{.*}}
`, "alice@d.test>carol@far.test", ""},
		{"a user to several systems", loggedIn + `
C1!: MAIL FROM:<alice@d.test>\r\nRCPT TO:<carol@far.test>\r\nRCPT TO:<bob@d.test>\r\nRCPT TO:<dan@FAR.test>\r\nRCPT TO:<eve@other.test>\r\n
S1~: 250 {{.*}}
S1~: 250 {{.*}}
S1~: 250 {{.*}}
S1~: 250 {{.*}}
S1~: 250 {{.*}}
` + message + `S1: 250 2.0.0 Queued, id {{.*}}
`, "alice@d.test>carol@far.test,dan@FAR.test alice@d.test>bob@d.test alice@d.test>eve@other.test", ""},
		{"a user to a mailbox here", loggedIn + `
C1!: MAIL FROM:<alice@d.test>\r\nRCPT TO:<bob@d.test>\r\n
S1~: 250 {{.*}}
S1~: 250 {{.*}}
` + message + `S1: 250 2.0.0 Delivered, id {{.*}}
`, "", "bob@d.test"},
		{"a user to a full mailbox", loggedIn + `
C1!: MAIL FROM:<alice@d.test>\r\nRCPT TO:<later@d.test>\r\nRCPT TO:<no@d.test>\r\n
S1~: 250 {{.*}}
S1~: 250 {{.*}}
S1: 550 5.1.1 {{.*}}
` + message + `S1: 250 2.0.0 Queued, id {{.*}}
`, "alice@d.test>later@d.test", ""},
		{"a user, the mailbox is full after the message", loggedIn + `
C1!: MAIL FROM:<alice@d.test>\r\nRCPT TO:<full@d.test>\r\n
S1~: 250 {{.*}}
S1~: 250 {{.*}}
` + message + `S1: 250 2.0.0 Queued, id {{.*}}
`, "alice@d.test>full@d.test", ""},
		{"another server to another system", hello + `
C1: MAIL FROM:<x@far.test>
S1: 250 {{.*}}
C1: RCPT TO:<y@other.test>
S1: 550 5.7.1 Relaying denied
`, "", ""},
		{"another server to an alias", hello + `
C1!: MAIL FROM:<x@far.test> RET=HDRS ENVID=a+2Bb\r\nRCPT TO:<team@d.test> NOTIFY=FAILURE,DELAY ORCPT=rfc822;o+2Bx@y.test\r\n
S1~: 250 {{.*}}
S1~: 250 {{.*}}
` + message + `S1: 250 2.0.0 Queued, id {{.*}}
`, "x@far.test>team@d.test FAILURE,DELAY rfc822;o+2Bx@y.test", ""},
		{"another server that wants to know of the success", hello + `
C1!: MAIL FROM:<x@far.test>\r\nRCPT TO:<bob@d.test> NOTIFY=SUCCESS\r\n
S1~: 250 {{.*}}
S1~: 250 {{.*}}
` + message + `S1: 250 2.0.0 Queued, id {{.*}}
`, "x@far.test>bob@d.test SUCCESS ", ""},
		{"another server to a full mailbox", hello + `
C1!: MAIL FROM:<x@far.test>\r\nRCPT TO:<later@d.test>\r\n
S1~: 250 {{.*}}
S1: 452 4.2.2 {{.*}}
`, "", ""},
		{"another server, full after the message", hello + `
C1!: MAIL FROM:<x@far.test>\r\nRCPT TO:<full@d.test>\r\n
S1~: 250 {{.*}}
S1~: 250 {{.*}}
` + message + `S1: 452 4.2.2 {{.*}}
`, "", ""},
		{"another server, one has it and one is full", hello + `
C1!: MAIL FROM:<x@far.test>\r\nRCPT TO:<full@d.test>\r\nRCPT TO:<bob@d.test>\r\n
S1~: 250 {{.*}}
S1~: 250 {{.*}}
S1~: 250 {{.*}}
` + message + `S1: 250 2.0.0 Queued, id {{.*}}
`, "x@far.test>full@d.test", "bob@d.test"},
		{"another server, one has it and one is refused", hello + `
C1!: MAIL FROM:<x@far.test>\r\nRCPT TO:<gone+tag@d.test>\r\nRCPT TO:<bob@d.test>\r\n
S1~: 250 {{.*}}
S1~: 250 {{.*}}
S1~: 250 {{.*}}
` + message + `S1: 250 2.0.0 Queued, id {{.*}}
`, "x@far.test>gone+tag@d.test", "bob@d.test"},
		{"another server, all are refused", hello + `
C1!: MAIL FROM:<x@far.test>\r\nRCPT TO:<gone@d.test>\r\n
S1~: 250 {{.*}}
S1~: 250 {{.*}}
` + message + `S1: 550 5.2.1 {{.*}}
`, "", ""},
		{"the connection breaks before the replies", hello + `
C1!: MAIL FROM:<x@far.test>\r\nRCPT TO:<drop@d.test>\r\n
S1~: 250 {{.*}}
S1~: 250 {{.*}}
` + message + `S1: 250 2.0.0 Queued, id {{.*}}
`, "x@far.test>drop@d.test", "drop@d.test"},
		{"the box does not want us", hello + `
C1!: MAIL FROM:<x@far.test>\r\nRCPT TO:<strange@d.test>\r\nRCPT TO:<bob@d.test>\r\n
S1~: 250 {{.*}}
S1~: 250 {{.*}}
S1~: 250 {{.*}}
` + message + `S1: 250 2.0.0 Queued, id {{.*}}
`, "x@far.test>strange@d.test,bob@d.test", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			r, q := queueRig(t)
			r.play(c.script)
			got := q.take()
			if s := entries(got); s != c.queued {
				t.Errorf("queued %q, want %q", s, c.queued)
			}
			var stored []string
			for _, s := range r.box.stored() {
				stored = append(stored, s.rcpt)
			}
			if s := strings.Join(stored, " "); s != c.stored {
				t.Errorf("the box has %q, want %q", s, c.stored)
			}
			for _, e := range got {
				if !strings.HasPrefix(e.text, "Received: from client.test") || !strings.HasSuffix(e.text, "Subject: x\r\n\r\nbody\r\n") ||
					e.Expires-e.Accepted != 3600 || e.Trace == "" {
					t.Errorf("%+v", e)
				}
			}
			for _, e := range got {
				if e.Again != (c.stored == "drop@d.test") { // the box is told that it may have it
					t.Errorf("again is %v for %q", e.Again, c.queued)
				}
			}
			if c.name == "another server to an alias" && (got[0].Return != "HDRS" || got[0].EnvID != "a+2Bb") {
				t.Errorf("%+v", got[0])
			}
		})
	}
}

// The box is away: whoever sends, the mail is taken, and the session does not wait for each recipient.
func TestQueuedWhileTheBoxIsAway(t *testing.T) {
	r, q := queueRig(t, func(o *Options) { o.Transport = nowhere(t) })
	r.play(hello + `
C1!: MAIL FROM:<x@far.test>\r\nRCPT TO:<bob@d.test>\r\nRCPT TO:<carol@d.test>\r\nRCPT TO:<nobody@d.test>\r\n
S1~: 250 {{.*}}
S1~: 250 {{.*}}
S1~: 250 {{.*}}
S1: 550 5.1.1 {{.*}}
` + message + `S1: 250 2.0.0 Queued, id {{.*}}
`)
	if s := entries(q.take()); s != "x@far.test>bob@d.test,carol@d.test" {
		t.Errorf("queued %q", s)
	}
}

// A queue that fails: nothing is said to be taken.
func TestQueueFails(t *testing.T) {
	for _, c := range []struct {
		err  error
		want string
	}{{queue.ErrNoSpace, "452 4.3.1"}, {queue.ErrFull, "452 4.3.1"}, {errors.New("input/output error"), "451 4.3.0"}} {
		r, q := queueRig(t)
		q.err = fmt.Errorf("batch: %w", c.err)
		r.play(loggedIn + `
C1!: MAIL FROM:<alice@d.test>\r\nRCPT TO:<carol@far.test>\r\n
S1~: 250 {{.*}}
S1~: 250 {{.*}}
` + message + `S1: ` + c.want + ` {{.*}}
`)
	}
}

// A message that is larger than what is kept goes straight into the queue if it has several recipients, whose answers may differ. With
// one recipient it is answered as without a queue.
func TestQueuedLarge(t *testing.T) {
	big := strings.Repeat(strings.Repeat("x", 998)+"\r\n", 700)
	for _, c := range []struct{ to, want, queued string }{
		{"team@d.test", "250 2.0.0 Queued", "x@far.test>team@d.test"},
		{"full@d.test>\\r\\nRCPT TO:<bob@d.test", "250 2.0.0 Queued", "x@far.test>full@d.test,bob@d.test"},
		{"drop@d.test", "451 4.3.0", ""},
		{"bob@d.test", "250 2.0.0 Delivered", ""},
	} {
		r, q := queueRig(t)
		dial := r.targets["smtp"]
		r.targets["smtp"] = func() (net.Conn, error) {
			conn, err := dial()
			return &inflate{conn, big}, err
		}
		script := hello + `C1!: MAIL FROM:<x@far.test>\r\nRCPT TO:<` + c.to + ">\\r\\nDATA\\r\\n\nS1~: 354 {{.*}}\nC1!: Subject: big\\r\\n\\r\\nBIG.\\r\\n\nS1: " + c.want + "{{.*}}\n"
		if strings.Count(c.to, "@") > 1 {
			script = strings.Replace(script, "S1~: 354", "S1~: 250 {{.*}}\nS1~: 250 {{.*}}\nS1~: 250 {{.*}}\nS1: 354", 1)
		}
		r.play(script)
		got := q.take()
		if s := entries(got); s != c.queued {
			t.Errorf("%s: queued %q", c.to, s)
		}
		for _, e := range got {
			if !strings.HasSuffix(e.text, big) {
				t.Errorf("%s: %d bytes queued", c.to, len(e.text))
			}
		}
	}
}

// What is kept is bounded for all together, and given back.
func TestKeeper(t *testing.T) {
	var total atomic.Int64
	k := &keeper{r: strings.NewReader("hello"), total: &total}
	if b, err := io.ReadAll(k); err != nil || string(b) != "hello" || total.Load() != 5 {
		t.Fatalf("%q %v %d", b, err, total.Load())
	}
	if b, err := io.ReadAll(k.again()); err != nil || string(b) != "hello" {
		t.Errorf("again: %q %v", b, err)
	}
	k.free()
	total.Add(keepAll)
	k = &keeper{r: strings.NewReader("hello"), total: &total}
	if b, err := io.ReadAll(k); err != nil || string(b) != "hello" || k.again() != nil {
		t.Errorf("%q %v: kept beyond the bound", b, err)
	}
	k.free()
	if n := total.Load(); n != keepAll {
		t.Errorf("%d octets are counted", n)
	}
}

// inflate replaces the word BIG in what is written.
type inflate struct {
	net.Conn
	big string
}

func (c *inflate) Write(p []byte) (int, error) {
	if _, err := c.Conn.Write([]byte(strings.Replace(string(p), "BIG", c.big, 1))); err != nil {
		return 0, err
	}
	return len(p), nil
}

// A user whose mail is sent on may still send as herself.
func TestSenderWithForward(t *testing.T) {
	r, q := queueRig(t, func(o *Options) { o.Router = forwards{router{}, true} })
	r.play(loggedIn + `
C1!: MAIL FROM:<alice@d.test>\r\nRCPT TO:<carol@far.test>\r\n
S1~: 250 {{.*}}
S1~: 250 {{.*}}
` + message + `S1: 250 2.0.0 Queued, id {{.*}}
C1: MAIL FROM:<team@d.test>
S1: 553 5.7.1 {{.*}}
`)
	if s := entries(q.take()); s != "alice@d.test>carol@far.test" {
		t.Errorf("queued %q", s)
	}
}

// nowhere is a transport to an address where nobody listens.
func nowhere(t *testing.T) *deliver.Transport {
	t.Helper()
	out, err := deliver.New(deliver.Options{Settings: to([]string{ports.One(t)})})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { out.Close() })
	return out
}
