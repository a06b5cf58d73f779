package relay

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	dto "github.com/prometheus/client_model/go"

	"github.com/prometheus/client_golang/prometheus"

	"shoal/daemons/internal/deliver"
	"shoal/daemons/internal/outbound"
	"shoal/daemons/internal/queue"
)

func TestEachKindOfRecipient(t *testing.T) {
	g := newRig(t, nil)
	g.remote.answer["no@far.test"] = refused(550, "5.1.1", "no such user")
	g.routes["a.smith@here.test"] = "local: alice@here.test"
	g.put("alice@here.test", "bob@here.test", "carol@far.test", "no@far.test", "dave@other.test", "nobody@here.test", "a.smith@here.test", "alice@here.test")
	g.work()
	g.empty()
	reports := g.reports()
	if len(reports) != 1 {
		t.Fatalf("%d reports", len(reports))
	}
	contains(t, reports[0], "Final-Recipient: rfc822; no@far.test", "Final-Recipient: rfc822; nobody@here.test", "Diagnostic-Code: smtp; 550 5.1.1 no such user",
		"Remote-MTA: dns; mx.far.test", "To: <alice@here.test>", "Subject: hello", "There is no such mailbox")
	if strings.Contains(reports[0], "carol@") || strings.Contains(reports[0], "Action: delivered") {
		t.Errorf("the report tells of successes that nobody asked for:\n%s", reports[0])
	}
	// One copy for two addresses of one account.
	if len(g.local.sent) != 1 || !slices.Equal(g.local.sent[0].to, []string{"bob@here.test", "alice@here.test"}) || g.local.sent[0].text != text {
		t.Errorf("the boxes got %+v", g.local.sent)
	}
	var to []string
	for _, s := range g.remote.sent {
		to = append(to, strings.Join(s.to, " "))
	}
	slices.Sort(to)
	if want := []string{"carol@far.test no@far.test", "dave@other.test"}; !slices.Equal(to, want) {
		t.Errorf("others got %q, want %q", to, want)
	}
}

// The schedule: when a recipient is tried, warned about and given up.
func TestScheduleWarningExpiry(t *testing.T) {
	g := newRig(t, nil)
	g.remote.answer["far.test"] = refused(451, "4.2.0", "come back later")
	g.put("alice@here.test", "bob@far.test")
	g.pass(6 * 24 * time.Hour)
	g.empty()
	var waits []time.Duration
	for i, s := range g.remote.sent[1:] {
		waits = append(waits, s.at.Sub(g.remote.sent[i].at))
	}
	want := []time.Duration{time.Minute, 5 * time.Minute, 15 * time.Minute, 30 * time.Minute, time.Hour, 2 * time.Hour, 4 * time.Hour, 4 * time.Hour}
	if len(waits) < 25 || len(waits) > 40 {
		t.Fatalf("%d tries in five days: %v", len(waits)+1, waits)
	}
	for i, w := range want {
		if waits[i] < w*4/5-time.Second || waits[i] > w*6/5+time.Minute+time.Second {
			t.Errorf("wait %d is %v, not about %v", i+1, waits[i], w)
		}
	}
	reports := g.reports()
	if len(reports) != 2 {
		t.Fatalf("%d reports", len(reports))
	}
	contains(t, reports[0], "Action: delayed", "Will-Retry-Until: Sat, 28 Nov 2026 ", "Your message is delayed", "come back later")
	contains(t, reports[1], "Action: failed", "Status: 4.2.0", "tried for too long", "come back later")
	if last := g.remote.sent[len(g.remote.sent)-1].at.Sub(start); last < 120*time.Hour || last > 120*time.Hour+2*time.Minute {
		t.Errorf("the last try was after %v", last)
	}
}

// A destination that is away is left alone, and others are not.
func TestAwayDestination(t *testing.T) {
	g := newRig(t, nil)
	g.remote.away["dead.test"] = true
	for range 50 {
		g.put("alice@here.test", "bob@dead.test")
	}
	g.put("alice@here.test", "carol@far.test")
	g.work()
	if n := len(g.remote.sent); n != 2 {
		t.Fatalf("%d attempts, want one for each destination", n)
	}
	if g.q.Len() != 50 {
		t.Fatalf("%d entries wait", g.q.Len())
	}
	// The first hour of absence costs few attempts, however many entries wait.
	g.pass(time.Hour)
	if n := len(g.remote.sent) - 2; n < 4 || n > 8 {
		t.Errorf("%d attempts in an hour", n)
	}
	// When it is back, all goes out, once.
	g.remote.mu.Lock()
	g.remote.away["dead.test"], g.remote.sent = false, nil
	g.remote.mu.Unlock()
	g.pass(time.Hour)
	g.empty()
	if len(g.remote.sent) != 50 || len(g.reports()) != 0 {
		t.Errorf("%d attempts after it was back", len(g.remote.sent))
	}
}

// What cannot be tried for five days is given up all the same, and its sender warned before.
func TestAwayUntilTheEnd(t *testing.T) {
	g := newRig(t, nil)
	g.remote.away["dead.test"] = true
	for i := range 3 {
		g.put("alice@here.test", fmt.Sprintf("bob%d@dead.test", i))
	}
	g.pass(121 * time.Hour)
	g.empty()
	var delayed, failed int
	for _, r := range g.reports() {
		if strings.Contains(r, "Action: delayed") {
			delayed++
		} else {
			failed++
			contains(t, r, "Action: failed", "Status: 4.4.1", "nobody answers")
		}
	}
	if delayed != 3 || failed != 3 {
		t.Errorf("%d warnings, %d failures for 3 messages", delayed, failed)
	}
}

// The boxes come back sooner than others, and a full mailbox is not the boxes' absence.
func TestBoxesAway(t *testing.T) {
	g := newRig(t, nil)
	g.local.err[""] = fmt.Errorf("%w: connection refused", deliver.ErrUnavailable)
	g.put("alice@here.test", "bob@here.test")
	g.put("alice@here.test", "alice@here.test")
	g.work()
	if len(g.local.sent) != 1 || g.q.Len() != 2 {
		t.Fatalf("%d attempts, %d entries", len(g.local.sent), g.q.Len())
	}
	g.local.mu.Lock()
	g.local.err = map[string]error{"bob@here.test": &deliver.Error{Code: 452, Enhanced: [3]int{4, 2, 2}, Text: "over quota"}}
	g.local.mu.Unlock()
	g.pass(2 * time.Minute)
	if g.q.Len() != 1 {
		t.Errorf("%d entries wait two minutes after the boxes came back", g.q.Len())
	}
	list, err := g.q.List(0, 1)
	if err != nil || len(list) != 1 || !strings.Contains(list[0].Reason, "over quota") {
		t.Errorf("%+v %v", list, err)
	}
	g.local.mu.Lock()
	g.local.err["bob@here.test"] = &deliver.Error{Code: 552, Enhanced: [3]int{5, 2, 2}, Text: "over quota for good"}
	g.local.mu.Unlock()
	g.pass(time.Hour)
	g.empty()
	if reports := g.reports(); len(reports) != 1 {
		t.Errorf("%d reports", len(reports))
	} else {
		contains(t, reports[0], "Status: 5.2.2", "552 5.2.2 over quota for good")
	}
}

// A box that does not want this switch is our trouble: nothing bounces.
func TestLocalResults(t *testing.T) {
	for _, c := range []struct {
		err    error
		state  queue.State
		status string
	}{
		{nil, queue.Delivered, "2.1.5"},
		{&deliver.Error{Code: 550, Enhanced: [3]int{5, 1, 1}}, queue.Failed, "5.1.1"},
		{&deliver.Error{Code: 550}, queue.Failed, "5.0.0"},
		{&deliver.Error{Code: 530, Enhanced: [3]int{5, 7, 0}}, queue.Deferred, "4.3.0"},
		{&deliver.Error{Code: 452, Enhanced: [3]int{4, 2, 2}}, queue.Deferred, "4.2.2"},
		{deliver.ErrUnavailable, queue.Deferred, "4.4.1"},
		{fmt.Errorf("%w: %w", deliver.ErrUnavailable, &deliver.Error{Code: 550}), queue.Deferred, "4.4.1"},
		{deliver.ErrUnknown, queue.Deferred, "4.4.2"},
		{fmt.Errorf("%w: checksum", deliver.ErrAborted), queue.Deferred, "4.3.0"},
		{deliver.ErrBareLine, queue.Failed, "5.6.11"},
		{deliver.ErrNeedsUTF8, queue.Failed, "5.6.7"},
		{errors.New("anything"), queue.Deferred, "4.4.2"},
	} {
		if r := localResult(LocalResult{Err: c.err}); r.state != c.state || r.status != c.status {
			t.Errorf("%v: %s %s, want %s %s", c.err, r.state, r.status, c.state, c.status)
		}
	}
}

// RFC 5321 §4.5.5: no report is answered by a report.
func TestDoubleBounce(t *testing.T) {
	reg := prometheus.NewRegistry()
	g := newRig(t, func(o *Options, _ *queue.Options) { o.Metrics = reg })
	g.remote.answer["far.test"] = refused(550, "5.1.1", "no")
	g.put("stranger@far.test", "nobody@here.test") // its report is refused
	g.put("", "nobody@here.test")                  // a report from elsewhere
	g.work()
	g.empty()
	if len(g.remote.sent) != 1 || g.remote.sent[0].from != "" || g.remote.sent[0].to[0] != "stranger@far.test" || g.remote.sent[0].notify[0] != "NEVER" {
		t.Errorf("sent %+v", g.remote.sent)
	}
	if n := counter(t, reg, "shoal_relay_double_bounces_total"); n != 2 {
		t.Errorf("%v double bounces counted", n)
	}
}

func counter(t *testing.T, reg *prometheus.Registry, name string) (sum float64) {
	t.Helper()
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == name {
			for _, m := range f.GetMetric() {
				sum += value(m)
			}
		}
	}
	return sum
}

func value(m *dto.Metric) float64 { return m.GetCounter().GetValue() + m.GetGauge().GetValue() }

// RFC 3461 §4.1: who is told what.
func TestNotify(t *testing.T) {
	for _, c := range []struct {
		name, to, want string // want: actions in the report, or nothing
		dsn            bool
	}{
		{"nothing asked, success", "bob@here.test", "", false},
		{"success", "bob@here.test SUCCESS", "delivered", false},
		{"success elsewhere", "carol@far.test SUCCESS,FAILURE", "relayed", false},
		{"success elsewhere, passed on", "carol@far.test SUCCESS", "", true},
		{"failure", "no@far.test FAILURE", "failed", false},
		{"failure, but only success asked", "no@far.test SUCCESS", "", false},
		{"failure, never", "no@far.test NEVER", "", false},
		{"alias for several", "team@here.test SUCCESS", "expanded", false},
		{"alias for one", "one@here.test SUCCESS", "delivered", false},
		{"alias for several, failing", "team2@here.test", "failed", false},
		{"alias for several, failing, success asked", "team2@here.test SUCCESS", "expanded", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			g := newRig(t, nil)
			g.routes["team@here.test"] = "alias: bob@here.test carol@far.test"
			g.routes["team2@here.test"] = "alias: bob@here.test no@far.test"
			g.routes["one@here.test"] = "alias: bob@here.test"
			g.remote.answer["no@far.test"] = refused(550, "5.1.1", "no")
			g.remote.answer["carol@far.test"] = outbound.Outcome{DSN: c.dsn, Text: "250 ok"}
			g.put("alice@here.test", c.to)
			g.work()
			g.empty()
			var actions []string
			for _, r := range g.reports() {
				for _, l := range strings.Split(r, "\r\n") {
					if a, ok := strings.CutPrefix(l, "Action: "); ok {
						actions = append(actions, a)
					}
				}
			}
			if got := strings.Join(actions, " "); got != c.want {
				t.Errorf("reported %q, want %q", got, c.want)
			}
		})
	}
	// A delay is not told to those who asked for other things only.
	g := newRig(t, nil)
	g.remote.answer["far.test"] = refused(451, "4.2.0", "later")
	g.put("alice@here.test", "bob@far.test FAILURE")
	g.put("alice@here.test", "bob@far.test DELAY")
	g.pass(10 * time.Hour)
	if r := g.reports(); len(r) != 1 {
		t.Errorf("%d warnings", len(r))
	}
}

// A failure that cannot be reported is not recorded.
func TestReportThatCannotBeQueued(t *testing.T) {
	g := newRig(t, func(_ *Options, q *queue.Options) { q.MaxEntries = 2 })
	g.put("alice@here.test", "nobody@here.test")
	full := g.put("alice@here.test", "later@far.test")
	g.remote.answer["far.test"] = refused(451, "4.2.0", "later")
	g.work()
	if g.q.Len() != 2 || len(g.reports()) != 0 {
		t.Fatalf("%d entries", g.q.Len())
	}
	if err := g.q.Delete(full); err != nil {
		t.Fatal(err)
	}
	g.pass(10 * time.Minute)
	g.empty()
	if len(g.reports()) != 1 {
		t.Error("the sender was never told")
	}
}

func TestDirectoryAway(t *testing.T) {
	g := newRig(t, nil)
	g.routes["bob@here.test"] = "unsure"
	g.routes["ill@here.test"] = "suspended"
	g.put("alice@here.test", "bob@here.test")
	g.put("alice@here.test", "ill@here.test")
	g.pass(10 * time.Minute)
	if g.q.Len() != 2 || len(g.local.sent) != 0 {
		t.Fatalf("%d entries, delivered %+v", g.q.Len(), g.local.sent)
	}
	g.routes["bob@here.test"] = "local"
	g.pass(2 * time.Minute)
	if g.q.Len() != 1 || len(g.local.sent) != 1 {
		t.Errorf("%d entries, delivered %+v", g.q.Len(), g.local.sent)
	}
}
