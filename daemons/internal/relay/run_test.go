package relay

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/emersion/go-smtp"

	"github.com/prometheus/client_golang/prometheus"

	"shoal/daemons/internal/clock"
	"shoal/daemons/internal/deliver"
	"shoal/daemons/internal/outbound"
	"shoal/daemons/internal/queue"
	"shoal/daemons/internal/vfs"
)

// run works the queue in the background until the test ends.
func (g *rig) run() (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- g.r.Run(ctx) }()
	var once sync.Once
	stop = func() {
		once.Do(func() {
			cancel()
			if err := <-done; err != nil {
				g.t.Error(err)
			}
			over, end := context.WithCancel(context.Background())
			end()
			_ = g.r.Close(over)
		})
	}
	g.t.Cleanup(stop)
	return stop
}

// A slow destination gets no more than its share, and keeps nobody else waiting.
func TestSlowDestination(t *testing.T) {
	reg := prometheus.NewRegistry()
	g := newRig(t, func(o *Options, _ *queue.Options) {
		o.Metrics = reg
		o.Settings.FirstConcurrency, o.Settings.PerDestination, o.Settings.MaxActive = 2, 3, 50
	})
	slow := make(chan struct{})
	g.remote.hold["slow.test"] = slow
	g.remote.began = make(chan string, 1000)
	for range 40 {
		g.put("alice@here.test", "bob@slow.test")
	}
	stop := g.run()
	if d := <-g.remote.began; d != "slow.test" {
		t.Fatal(d)
	}
	if d := <-g.remote.began; d != "slow.test" {
		t.Fatal(d)
	}
	for i := range 20 {
		g.put("alice@here.test", fmt.Sprintf("u%d@fast.test", i))
		if d := <-g.remote.began; d != "fast.test" {
			t.Fatalf("message %d for a fast destination waits for a slow one (%s)", i, d)
		}
	}
	close(slow)
	// The rest comes back by the clock, which the test moves.
	for left := 38; left > 0; {
		select {
		case <-g.remote.began:
			left--
		default:
			g.clk.Advance(time.Second)
		}
	}
	stop()
	if most := g.remote.most["slow.test"]; most > 3 {
		t.Errorf("%d attempts at once at the slow destination", most)
	}
	if counter(t, reg, "shoal_relay_postponed_total") == 0 {
		t.Error("no attempt was postponed: the test shows nothing")
	}
}

// An attempt that the end of the process breaks off is no attempt: it is due at once for whoever comes next.
func TestBrokenOff(t *testing.T) {
	g := newRig(t, nil)
	g.remote.hold["far.test"] = make(chan struct{})
	g.remote.began = make(chan string, 10)
	id := g.put("alice@here.test", "bob@far.test", "bob@here.test")
	stop := g.run()
	<-g.remote.began
	stop()
	list, err := g.q.List(0, 10)
	if err != nil || len(list) != 1 {
		t.Fatalf("%+v %v", list, err)
	}
	i := list[0]
	if i.ID != id || i.Due.After(start) || len(i.Recipients) != 1 || i.Recipients[0].Address != "bob@far.test" || len(g.reports()) != 0 {
		t.Errorf("%+v", i)
	}
}

// A switch with queued mail dies for good: another one, on the same folder, delivers it, and nothing of it twice.
func TestOtherSwitchDelivers(t *testing.T) {
	// The first switch's clock stands still: it gives no signs of life and does nothing more, as if it were dead.
	first := newRig(t, nil)
	first.remote.answer["far.test"] = refused(451, "4.2.0", "later")
	for i := range 20 {
		first.put("alice@here.test", fmt.Sprintf("u%d@far.test", i), "bob@here.test")
	}
	first.work()
	if n := len(first.local.sent); n != 20 || first.q.Len() != 20 {
		t.Fatalf("%d delivered, %d queued", n, first.q.Len())
	}
	clk := clock.NewFake(start.Add(2 * time.Minute))
	second := rigOn(t, clk, later{first.fs, clk}, "sw2", nil)
	clk.WaitTimers(1) // its first look at the others is over
	if n := second.q.Len(); n != 20 {
		t.Fatalf("the second switch has %d entries", n)
	}
	second.pass(10 * time.Minute)
	second.empty()
	seen := map[string]int{}
	for _, s := range second.remote.sent {
		for _, a := range s.to {
			seen[a]++
		}
	}
	if len(seen) != 20 || len(second.remote.sent) != 20 || len(second.local.sent) != 0 {
		t.Errorf("%d addresses in %d messages; %d to the boxes, which had them", len(seen), len(second.remote.sent), len(second.local.sent))
	}
	// The first one wakes up: nothing of it is its own any more.
	first.clk.Advance(time.Hour)
	first.remote.sent = nil
	first.work()
	if len(first.remote.sent) != 0 {
		t.Errorf("the first switch sent %d messages again", len(first.remote.sent))
	}
}

// The boxes are told when somebody may have tried a message before: this switch, one that it takes over from, or the
// one that queued it because of that.
func TestTriedAgain(t *testing.T) {
	first := newRig(t, nil)
	first.local.err["alice@here.test"] = deliver.ErrUnknown
	first.put("x@far.test", "alice@here.test")
	first.work()
	first.pass(2 * time.Minute)
	e := queue.Envelope{From: "x@far.test", Recipients: []queue.Recipient{{Address: "bob@here.test"}}, Trace: "trace2", Again: true,
		Accepted: first.clk.Now().Unix(), Expires: first.clk.Now().Add(time.Hour).Unix()}
	first.enqueue("Subject: x\r\n\r\n", e)
	first.work()
	var again []bool
	for _, s := range first.local.sent {
		again = append(again, s.again)
	}
	if !slices.Equal(again, []bool{false, true, true}) {
		t.Errorf("marks of the attempts: %v", again)
	}
	first.put("x@far.test", "bob@here.test") // this one it never came to
	clk := clock.NewFake(first.clk.Now().Add(2 * time.Minute))
	second := rigOn(t, clk, later{first.fs, clk}, "sw2", nil)
	clk.WaitTimers(1)
	second.pass(10 * time.Minute)
	if len(second.local.sent) < 2 {
		t.Fatalf("the other switch tried %d times", len(second.local.sent))
	}
	for _, s := range second.local.sent {
		if !s.again {
			t.Errorf("an entry taken over from another switch came to %v without the mark", s.to)
		}
	}
}

// later is a file system whose server has the time of a clock of ours: what is touched through it is that new.
type later struct {
	vfs.FS
	clk clock.Clock
}

func (l later) Lstat(path string) (vfs.Info, error) {
	i, err := l.FS.Lstat(path)
	if err == nil && strings.Contains(path, "/sw2.") && strings.HasSuffix(path, "/alive") {
		i.ModTime = l.clk.Now()
	}
	return i, err
}

// The whole of it on real sockets and a real folder: SMTP to another system, LMTP to a box.
func TestOnTheWire(t *testing.T) {
	arrived := make(chan string, 10)
	far := serve(t, false, arrived)
	box := serve(t, true, arrived)
	dir := t.TempDir()
	if err := os.Mkdir(dir+"/q", 0o700); err != nil {
		t.Fatal(err)
	}
	if err := queue.Init(vfs.OS(), dir+"/q", queueID); err != nil {
		t.Fatal(err)
	}
	log := slog.New(slog.DiscardHandler)
	q, err := queue.Open(queue.Options{Server: "sw1", Path: dir + "/q", ID: queueID, FS: vfs.OS(), Clock: clock.System(), Log: log})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { q.Close() })
	settings := deliver.DefaultSettings()
	settings.Addresses = []string{box}
	boxes, err := deliver.New(deliver.Options{Settings: settings})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { boxes.Close() })
	remote, err := outbound.New(outbound.Options{Settings: outbound.DefaultSettings(), Hostname: "mx.here.test", Resolver: dns{}, Own: []netip.Addr{},
		Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, network, far)
		}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { remote.Close() })
	r, err := New(Options{Queue: q, Router: routes{"alice@here.test": "local", "team@here.test": "alias: alice@here.test carol@far.test"},
		Local: LMTP{boxes}, Remote: remote, Settings: DefaultSettings(), Hostname: "mx.here.test"})
	if err != nil {
		t.Fatal(err)
	}
	(&rig{t: t, r: r}).run()
	now := time.Now()
	e := queue.Envelope{From: "alice@here.test", Recipients: []queue.Recipient{{Address: "team@here.test"}, {Address: "refused@far.test"}, {Address: "bob@far.test"}},
		Accepted: now.Unix(), Expires: now.Add(time.Hour).Unix()}
	if _, err := q.Enqueue(t.Context(), strings.NewReader(text), now, e); err != nil {
		t.Fatal(err)
	}
	want := map[string]string{
		"smtp alice@here.test bob@far.test":    text,
		"smtp alice@here.test carol@far.test":  "Delivered-To: team@here.test\r\n" + text,
		"lmtp alice@here.test alice@here.test": "Delivered-To: team@here.test\r\n" + text,
		"lmtp  alice@here.test":                "",
	}
	for len(want) > 0 {
		got := <-arrived
		key, data, _ := strings.Cut(got, "\n")
		w, ok := want[key]
		if !ok || w != "" && w != data || w == "" && !strings.Contains(data, "550 5.1.1 not here") {
			t.Fatalf("arrived %q", got)
		}
		delete(want, key)
	}
}

type dns struct{}

func (dns) LookupMX(context.Context, string) ([]*net.MX, error) {
	return []*net.MX{{Host: "mx.far.test.", Pref: 10}}, nil
}

func (dns) LookupNetIP(context.Context, string, string) ([]netip.Addr, error) {
	return []netip.Addr{netip.MustParseAddr("192.0.2.1")}, nil
}

// serve is a real server that tells of each message: protocol, sender, recipients, and the text on the next lines.
func serve(t *testing.T, lmtp bool, arrived chan<- string) string {
	t.Helper()
	s := smtp.NewServer(smtp.BackendFunc(func(*smtp.Conn) (smtp.Session, error) { return &session{lmtp: lmtp, arrived: arrived}, nil }))
	s.LMTP, s.Domain = lmtp, "server.test"
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go s.Serve(l)
	t.Cleanup(func() { s.Close() })
	return l.Addr().String()
}

type session struct {
	lmtp    bool
	arrived chan<- string
	from    string
	to      []string
}

func (s *session) Mail(from string, _ *smtp.MailOptions) error {
	s.from, s.to = from, nil
	return nil
}

func (s *session) Rcpt(to string, _ *smtp.RcptOptions) error {
	if strings.HasPrefix(to, "refused@") {
		return &smtp.SMTPError{Code: 550, EnhancedCode: smtp.EnhancedCode{5, 1, 1}, Message: "not here"}
	}
	s.to = append(s.to, to)
	return nil
}

func (s *session) Data(r io.Reader) error {
	b, err := io.ReadAll(r)
	if err != nil {
		return err
	}
	kind := "smtp"
	if s.lmtp {
		kind = "lmtp"
	}
	s.arrived <- kind + " " + s.from + " " + strings.Join(s.to, " ") + "\n" + string(b)
	return nil
}

func (s *session) LMTPData(r io.Reader, status smtp.StatusCollector) error { return s.Data(r) }

func (s *session) Reset()        {}
func (s *session) Logout() error { return nil }
