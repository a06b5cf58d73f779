package relay

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"sync"
	"time"

	"shoal/daemons/internal/deliver"
	"shoal/daemons/internal/mailaddr"
	"shoal/daemons/internal/outbound"
	"shoal/daemons/internal/queue"
	"shoal/daemons/internal/route"
)

// attempt is one entry in our hands.
type attempt struct {
	r       *Runner
	l       *queue.Lease
	env     *queue.Envelope
	from    mailaddr.Address
	content *queue.Content
	now     time.Time
	header  *header // scanned when it is needed

	mu      sync.Mutex
	results map[int]*result
}

// result is what came of one recipient.
type result struct {
	state queue.State
	failure
	tried     bool       // somebody was asked
	notified  bool       // the system that took it makes the notifications
	postponed *postponed // nothing was tried
	soon      bool       // it is trouble of this service, which passes: tried again every minute
	leaves    int        // expanded into how many
}

// target is a recipient on its way to a destination.
type target struct {
	index   int
	address mailaddr.Address // as the other side is told it
}

// group is the recipients of one destination.
type group struct {
	key     string
	domain  string
	targets []target
}

// try is one attempt at an entry.
func (r *Runner) try(l *queue.Lease) {
	a := &attempt{r: r, l: l, env: &l.Envelope, now: r.o.Clock.Now(), results: map[int]*result{}}
	var err error
	if a.env.From != "" {
		if a.from, err = mailaddr.Parse(a.env.From); err != nil {
			r.o.Log.Error("queue entry has an unusable sender, reports about it are dropped", "event", "queue_unusable", "entry", l.ID, "error", err)
			a.env.From = ""
		}
	}
	if a.content, err = l.Content(); err != nil {
		r.o.Log.Error("queue entry cannot be read", "event", "queue_unreadable", "entry", l.ID, "trace", a.env.Trace, "error", err)
		l.Release(a.now.Add(jitter(5 * time.Minute)))
		return
	}
	defer a.content.Close()
	groups, expand := a.sort(r.ctx)
	for _, x := range expand {
		a.expand(r.ctx, x.index, x.address, x.decision)
	}
	var all sync.WaitGroup
	for i, g := range groups {
		if i == len(groups)-1 {
			a.run(r.ctx, g)
			break
		}
		all.Go(func() { a.run(r.ctx, g) })
	}
	all.Wait()
	a.finish()
}

type expansion struct {
	index    int
	address  mailaddr.Address
	decision route.Decision
}

// sort decides about each recipient.
func (a *attempt) sort(ctx context.Context) (groups []*group, expand []expansion) {
	byKey := map[string]*group{}
	add := func(key, domain string, t target) {
		g := byKey[key]
		if g == nil {
			g = &group{key: key, domain: domain}
			byKey[key] = g
			groups = append(groups, g)
		}
		g.targets = append(g.targets, t)
	}
	for _, i := range a.l.Pending {
		rc := &a.env.Recipients[i]
		addr, err := mailaddr.Parse(rc.Address)
		if err != nil {
			a.fail(i, "5.1.3", "The address is malformed.")
			continue
		}
		d, err := a.r.o.Router.Route(ctx, addr)
		if err != nil {
			a.r.o.Log.Warn("recipient not looked up", "event", "directory", "trace", a.env.Trace, "rcpt", rc.Address, "error", err)
			a.set(i, &result{state: queue.Deferred, soon: true, failure: failure{status: "4.3.0", reason: "The recipient cannot be looked up in the directory now."}})
			continue
		}
		if d.Outcome == route.Expanded && d.Keep && rc.From != "" {
			d.Outcome = route.Local // its copies went out when it was expanded
		}
		switch d.Outcome {
		case route.Local:
			box, err := mailaddr.Parse(d.Recipient())
			if err != nil {
				a.set(i, &result{state: queue.Deferred, failure: failure{status: "4.3.5", reason: "The recipient's entry in the directory is unusable."}})
				continue
			}
			add(localKey, "", target{i, box})
		case route.Expanded:
			expand = append(expand, expansion{i, addr, d})
		case route.Foreign:
			if a.hops() > a.r.s.MaxHops {
				a.fail(i, "5.4.6", "The message has gone through too many servers: it seems to go in circles.")
				continue
			}
			add(a.r.o.Remote.Destination(addr.Domain), addr.Domain, target{i, addr})
		case route.Suspended:
			a.set(i, &result{state: queue.Deferred, failure: failure{status: "4.2.1", reason: "The mailbox takes no mail for now."}})
		default:
			a.fail(i, "5.1.1", "There is no such mailbox.")
		}
	}
	return groups, expand
}

func (a *attempt) set(i int, res *result) {
	a.mu.Lock()
	a.results[i] = res
	a.mu.Unlock()
}

func (a *attempt) fail(i int, status, reason string) {
	a.set(i, &result{state: queue.Failed, failure: failure{status: status, reason: reason}})
}

// hops counts the Received fields.
func (a *attempt) hops() int {
	if a.header == nil {
		a.header = scan(a.content, a.content.Size())
	}
	return a.header.hops
}

// run tries one group.
func (a *attempt) run(ctx context.Context, g *group) {
	d, later := a.r.enter(ctx, g.key)
	if later != nil {
		a.r.m.postponed.WithLabelValues(later.reason).Inc()
		for _, t := range g.targets {
			a.set(t.index, &result{state: queue.Deferred, failure: later.why, postponed: later})
		}
		return
	}
	begun := a.r.o.Clock.Boot()
	var away bool
	var why failure
	if g.key == localKey {
		away, why = a.local(ctx, g)
	} else {
		away, why = a.remote(ctx, g)
	}
	a.r.leave(d, away && ctx.Err() == nil, why, a.r.o.Clock.Boot()-begun)
}

func (a *attempt) local(ctx context.Context, g *group) (away bool, why failure) {
	// Several addresses of one account get one copy.
	var boxes []LocalRcpt
	place := map[string]int{}
	for _, t := range g.targets {
		if _, ok := place[t.address.Key()]; !ok {
			place[t.address.Key()] = len(boxes)
			original, _ := mailaddr.Parse(a.env.Recipients[t.index].Address) // null where it is none: the same as the address
			boxes = append(boxes, LocalRcpt{t.address, original})
		}
	}
	e := deliver.Envelope{From: a.from, EnvID: a.env.Trace, Again: a.l.Again(), Size: a.content.Size(), EightBit: true, UTF8: a.env.UTF8}
	results := a.r.o.Local.Deliver(ctx, e, boxes, a.content.Reader)
	for _, t := range g.targets {
		res := localResult(results[place[t.address.Key()]])
		a.set(t.index, res)
		if err := results[place[t.address.Key()]].Err; errors.Is(err, deliver.ErrUnavailable) {
			away, why = true, res.failure
		}
	}
	return away, why
}

// localResult words what a box said. Its 550 to 554 are about the recipient or the message. Every other 5yz is about our right to talk
// to it: that is our trouble.
func localResult(l LocalResult) *result {
	var e *deliver.Error
	switch {
	case l.Err == nil:
		return &result{state: queue.Delivered, tried: true, failure: failure{status: "2.1.5", text: l.Text}}
	case errors.Is(l.Err, deliver.ErrBareLine):
		return &result{state: queue.Failed, tried: true, failure: failure{status: "5.6.11", reason: "The message holds a CR or LF that stands alone."}}
	case errors.Is(l.Err, deliver.ErrNeedsUTF8):
		return &result{state: queue.Failed, tried: true, failure: failure{status: "5.6.7", reason: "The mailbox does not take internationalized addresses."}}
	case errors.Is(l.Err, deliver.ErrAborted):
		return &result{state: queue.Deferred, tried: true, failure: failure{status: "4.3.0", reason: "The queued message cannot be read."}}
	case errors.Is(l.Err, deliver.ErrUnavailable):
		return &result{state: queue.Deferred, tried: true, soon: true, failure: failure{status: "4.4.1", reason: "The mail store cannot be reached now."}}
	case errors.As(l.Err, &e):
		status := fmt.Sprintf("%d.%d.%d", e.Enhanced[0], e.Enhanced[1], e.Enhanced[2])
		if e.Enhanced[0] != e.Code/100 {
			status = fmt.Sprintf("%d.0.0", e.Code/100)
		}
		f := failure{status: status, text: fmt.Sprintf("%d %s %s", e.Code, status, e.Text)}
		switch {
		case e.Code >= 550 && e.Code <= 554:
			f.reason = "The mailbox refused the message."
			return &result{state: queue.Failed, tried: true, failure: f}
		case e.Code/100 == 4:
			f.reason = "The mailbox cannot take the message now."
		default:
			f.status, f.reason = "4.3.0", "The mail store does not take mail from this server."
		}
		return &result{state: queue.Deferred, tried: true, failure: f}
	}
	return &result{state: queue.Deferred, tried: true, failure: failure{status: "4.4.2", reason: "It is not certain that the mailbox has the message."}}
}

func (a *attempt) remote(ctx context.Context, g *group) (away bool, why failure) {
	m := &outbound.Message{From: a.from, EnvID: a.env.EnvID, Return: a.env.Return, UTF8: a.env.UTF8, Body: a.env.Body, Size: a.content.Size(),
		Trace: a.env.Trace, Open: func() io.Reader { return a.content.Reader() }}
	// Behind a smart host several domains share a destination, and a transaction.
	rcpts := make([]outbound.Rcpt, len(g.targets))
	for k, t := range g.targets {
		rc := &a.env.Recipients[t.index]
		rcpts[k] = outbound.Rcpt{Address: t.address, Notify: rc.Notify, ORcpt: rc.ORcpt}
	}
	r := a.r.o.Remote.Send(ctx, g.domain, m, rcpts)
	for k, t := range g.targets {
		o := &r.Outcomes[k]
		res := &result{state: queue.Relayed, tried: true, notified: o.DSN, failure: failure{status: "2.0.0", text: o.Text, host: o.Host}}
		if o.Err != nil {
			res.status = o.Err.Status
			res.state = queue.Deferred
			if o.Err.Permanent() {
				res.state = queue.Failed
			}
			if o.Err.Own {
				res.text, res.reason = "", o.Err.Text
			} else {
				res.text = fmt.Sprintf("%d %s %s", o.Err.Code, o.Err.Status, o.Err.Text)
				res.reason = "The recipient's mail system refused the message."
				if res.state == queue.Deferred {
					res.reason = "The recipient's mail system does not take the message now."
				}
			}
			why = res.failure
		}
		a.set(t.index, res)
	}
	return r.Away, why
}

// event logs what came of one recipient.
func (a *attempt) event(i int, res *result) {
	level, text := slog.LevelInfo, "recipient done"
	if res.state == queue.Deferred {
		text = "recipient deferred"
	}
	rc := &a.env.Recipients[i]
	attrs := []slog.Attr{slog.String("event", eventOf(res.state)), slog.String("trace", a.env.Trace), slog.String("entry", a.l.ID), slog.String("from", a.env.From),
		slog.String("rcpt", rc.Address), slog.String("status", res.status), slog.Int("try", a.l.Attempts+1), slog.Duration("delay", a.now.Sub(time.Unix(a.env.Accepted, 0)))}
	for _, x := range []struct{ name, value string }{{"expanded_from", rc.From}, {"host", res.host}, {"answer", res.text}, {"reason", res.reason}} {
		if x.value != "" {
			attrs = append(attrs, slog.String(x.name, x.value))
		}
	}
	a.r.o.Log.LogAttrs(context.Background(), level, text, attrs...)
}

func eventOf(s queue.State) string {
	if s == queue.Failed {
		return "bounced"
	}
	return strings.ToLower(string(s))
}
