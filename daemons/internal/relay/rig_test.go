package relay

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"shoal/daemons/internal/clock"
	"shoal/daemons/internal/deliver"
	"shoal/daemons/internal/dirclient"
	"shoal/daemons/internal/mailaddr"
	"shoal/daemons/internal/outbound"
	"shoal/daemons/internal/queue"
	"shoal/daemons/internal/route"
	"shoal/daemons/internal/vfs"
)

const queueID = "6f0c1f0e-90b4-4a0e-8c7e-0d0a5d2f8a11"

var start = time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)

const text = "Received: from x by y; Mon, 23 Nov 2026 12:00:00 +0000\r\nFrom: alice@here.test\r\nSubject: hello\r\nMessage-ID: <m1@here.test>\r\n\r\nbody\r\n"

// rig is a queue and its runner, with made-up routes, boxes and a made-up outside. Tests take entries by step, on a clock
// that stands still between.
type rig struct {
	t      *testing.T
	clk    *clock.Fake
	fs     vfs.FS
	q      *queue.Queue
	r      *Runner
	routes routes
	local  *localFake
	remote *remoteFake
	ids    int
}

// routes is a directory: "local", "suspended", "unsure", or "alias: a b", "forward: a b", "keep: a b"; without an entry "@here.test" is
// unknown and everything else foreign.
type routes map[string]string

func (m routes) Route(_ context.Context, a mailaddr.Address) (route.Decision, error) {
	acc := &dirclient.Account{Address: a.Key()}
	kind, rest, _ := strings.Cut(m[a.Key()], ": ")
	switch kind {
	case "local":
		if rest != "" {
			acc.Address = rest
		}
		return route.Decision{Outcome: route.Local, Account: acc}, nil
	case "suspended":
		return route.Decision{Outcome: route.Suspended, Account: acc}, nil
	case "alias":
		return route.Decision{Outcome: route.Expanded, Targets: strings.Fields(rest)}, nil
	case "forward", "keep":
		return route.Decision{Outcome: route.Expanded, Account: acc, Targets: strings.Fields(rest), Keep: kind == "keep"}, nil
	case "unsure":
		return route.Decision{}, dirclient.ErrUnavailable
	}
	if strings.HasSuffix(a.Key(), "@here.test") {
		return route.Decision{Outcome: route.Unknown}, nil
	}
	return route.Decision{Outcome: route.Foreign}, nil
}

// sent is one message that a fake took or refused.
type sent struct {
	to, notify, orcpt []string
	from, text        string
	at                time.Time
	again             bool
}

type localFake struct {
	clk *clock.Fake

	mu   sync.Mutex
	err  map[string]error // by recipient; "" for all
	sent []sent
}

func (f *localFake) Deliver(_ context.Context, e deliver.Envelope, rcpts []LocalRcpt, open func() io.Reader) []LocalResult {
	b, err := io.ReadAll(open())
	if err != nil {
		panic(err)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	s := sent{from: e.From.String(), text: string(b), at: f.clk.Now(), again: e.Again}
	var out []LocalResult
	for _, rcpt := range rcpts {
		a := rcpt.Address
		s.to = append(s.to, a.String())
		s.orcpt = append(s.orcpt, rcpt.Original.String())
		err := f.err[a.String()]
		if err == nil {
			err = f.err[""]
		}
		out = append(out, LocalResult{Err: err, Text: "2.1.5 stored"})
	}
	f.sent = append(f.sent, s)
	return out
}

type remoteFake struct {
	clk *clock.Fake

	mu     sync.Mutex
	answer map[string]outbound.Outcome // by recipient or domain
	away   map[string]bool             // by domain
	hold   map[string]chan struct{}    // by domain: an attempt waits for it
	sent   []sent
	active map[string]int
	most   map[string]int
	began  chan string // domain of each attempt, when it is set
}

func (f *remoteFake) Destination(domain string) string { return domain }

func (f *remoteFake) Send(ctx context.Context, domain string, m *outbound.Message, rcpts []outbound.Rcpt) outbound.Result {
	b, err := io.ReadAll(m.Open())
	if err != nil {
		panic(err)
	}
	f.mu.Lock()
	f.active[domain]++
	f.most[domain] = max(f.most[domain], f.active[domain])
	s := sent{from: m.From.String(), text: string(b), at: f.clk.Now()}
	r := outbound.Result{Away: f.away[domain]}
	for _, rc := range rcpts {
		s.to, s.notify, s.orcpt = append(s.to, rc.Address.String()), append(s.notify, rc.Notify), append(s.orcpt, rc.ORcpt)
		o, ok := f.answer[rc.Address.String()]
		if !ok {
			o = f.answer[domain]
		}
		if r.Away {
			o.Err = &outbound.Error{Code: 451, Status: "4.4.1", Text: "nobody answers", Own: true}
		}
		o.Host = "mx." + domain
		r.Outcomes = append(r.Outcomes, o)
	}
	f.sent = append(f.sent, s)
	hold, began := f.hold[domain], f.began
	f.mu.Unlock()
	if began != nil {
		began <- domain
	}
	if hold != nil {
		select {
		case <-hold:
		case <-ctx.Done():
			for i := range r.Outcomes {
				r.Outcomes[i].Err = &outbound.Error{Code: 451, Status: "4.3.2", Text: "broken off", Own: true}
			}
		}
	}
	f.mu.Lock()
	f.active[domain]--
	f.mu.Unlock()
	return r
}

func refused(code int, status, text string) outbound.Outcome {
	return outbound.Outcome{Err: &outbound.Error{Code: code, Status: status, Text: text}}
}

func newRig(t *testing.T, change func(*Options, *queue.Options)) *rig {
	t.Helper()
	clk := clock.NewFake(start)
	fs := vfs.NewMem(clk.Now)
	if err := fs.Mkdir("/q"); err != nil {
		t.Fatal(err)
	}
	if err := queue.Init(fs, "/q", queueID); err != nil {
		t.Fatal(err)
	}
	return rigOn(t, clk, fs, "sw1", change)
}

// rigOn is a switch on a queue that is there already.
func rigOn(t *testing.T, clk *clock.Fake, fs vfs.FS, server string, change func(*Options, *queue.Options)) *rig {
	t.Helper()
	g := &rig{t: t, clk: clk, fs: fs, routes: routes{"alice@here.test": "local", "bob@here.test": "local"},
		local: &localFake{clk: clk, err: map[string]error{}}, remote: &remoteFake{clk: clk, answer: map[string]outbound.Outcome{},
			away: map[string]bool{}, hold: map[string]chan struct{}{}, active: map[string]int{}, most: map[string]int{}}}
	qo := queue.Options{Server: server, Path: "/q", ID: queueID, FS: fs, Clock: clk, Log: slog.New(slog.DiscardHandler)}
	o := Options{Router: g.routes, Local: g.local, Remote: g.remote, Settings: DefaultSettings(), Hostname: "mx.here.test", Clock: clk,
		NewID: func() string { g.ids++; return fmt.Sprintf("report%d", g.ids) }}
	if change != nil {
		change(&o, &qo)
	}
	var err error
	if g.q, err = queue.Open(qo); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { g.q.Close() })
	o.Queue = g.q
	if g.r, err = New(o); err != nil {
		t.Fatal(err)
	}
	return g
}

// put queues a message; a recipient may be followed by NOTIFY, and that by ORCPT: "bob@far.test SUCCESS rfc822;x@y".
func (g *rig) put(from string, to ...string) string {
	g.t.Helper()
	e := queue.Envelope{From: from, Accepted: g.clk.Now().Unix(), Expires: g.clk.Now().Add(g.r.s.ExpireAfter).Unix(), Trace: "trace1"}
	for _, s := range to {
		f := append(strings.Fields(s), "", "")
		e.Recipients = append(e.Recipients, queue.Recipient{Address: f[0], Notify: f[1], ORcpt: f[2]})
	}
	return g.enqueue(text, e)
}

func (g *rig) enqueue(text string, e queue.Envelope) string {
	g.t.Helper()
	ids, err := g.q.Enqueue(context.Background(), strings.NewReader(text), g.clk.Now(), e)
	if err != nil {
		g.t.Fatal(err)
	}
	return ids[0]
}

// step tries one entry that is due now.
func (g *rig) step() bool {
	g.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	l, err := g.q.Next(ctx)
	if errors.Is(err, context.Canceled) {
		return false
	}
	if err != nil {
		g.t.Fatal(err)
	}
	g.r.try(l)
	return true
}

// work tries all that is due now, and what comes of it.
func (g *rig) work() {
	g.t.Helper()
	for n := 0; g.step(); n++ {
		if n > 1000 {
			g.t.Fatal("there is no end to it")
		}
	}
}

// pass lets time go by, a minute at a time, working all the while.
func (g *rig) pass(d time.Duration) {
	g.t.Helper()
	for end := g.clk.Now().Add(d); g.clk.Now().Before(end); {
		g.work()
		g.clk.Advance(time.Minute)
	}
	g.work()
}

// reports takes the reports to alice out of what the boxes got.
func (g *rig) reports() []string {
	g.local.mu.Lock()
	defer g.local.mu.Unlock()
	var out []string
	g.local.sent = slices.DeleteFunc(g.local.sent, func(s sent) bool {
		if s.from == "" && strings.Contains(s.text, "multipart/report") {
			out = append(out, s.text)
			return true
		}
		return false
	})
	return out
}

func (g *rig) empty() {
	g.t.Helper()
	if n := g.q.Len(); n != 0 {
		list, _ := g.q.List(0, 10)
		g.t.Errorf("%d entries are left in the queue: %+v", n, list)
	}
}

// contains checks that a text has all the parts.
func contains(t *testing.T, text string, parts ...string) {
	t.Helper()
	for _, p := range parts {
		if !strings.Contains(text, p) {
			t.Errorf("%q is not in:\n%s", p, text)
		}
	}
}
