package relay

import (
	"bytes"
	"context"
	"sort"
	"strings"
	"time"

	"shoal/daemons/internal/dsn"
	"shoal/daemons/internal/queue"
)

// finish gives up what is too old, reports to the sender and records the outcomes.
func (a *attempt) finish() {
	r := a.r
	a.now = r.o.Clock.Now()
	expired := !a.now.Before(time.Unix(a.env.Expires, 0))
	brokenOff := r.ctx.Err() != nil
	late := r.s.WarnAfter > 0 && !a.l.Warned && !a.now.Before(time.Unix(a.env.Accepted, 0).Add(r.s.WarnAfter))
	order := make([]int, 0, len(a.results))
	for i := range a.results {
		order = append(order, i)
	}
	sort.Ints(order)

	tried := false
	due := time.Time{}
	var outcomes []queue.Outcome
	for _, i := range order {
		res := a.results[i]
		if res.state == queue.Deferred && expired && !brokenOff {
			res.state = queue.Failed
			res.reason = strings.TrimSpace("The message was tried for too long without success. " + res.reason)
			if res.status == "" {
				res.status = "4.4.7"
			}
		}
		if res.state != queue.Deferred {
			tried = true
			continue
		}
		at := a.now.Add(r.retry(a.l.Attempts + 1))
		if res.soon {
			at = a.now.Add(r.retry(1))
		}
		if res.postponed != nil {
			at = res.postponed.until
		} else {
			tried = true
		}
		if due.IsZero() || at.Before(due) {
			due = at
		}
	}
	if brokenOff && due.After(a.now) {
		due = a.now
	}
	due = minTime(due, maxTime(time.Unix(a.env.Expires, 0), a.now.Add(time.Second)))

	warned := false
	if report := a.report(order, late && !brokenOff); report != nil {
		if err := a.send(report); err != nil {
			r.o.Log.Error("a report to the sender could not be queued; the message is looked at again later", "event", "report_failed",
				"trace", a.env.Trace, "entry", a.l.ID, "error", err)
			a.keep(order)
			due = a.now.Add(jitter(5 * time.Minute))
		} else {
			for _, rc := range report.Recipients {
				warned = warned || rc.Action == dsn.Delayed
			}
		}
	}
	warned = warned || late && !brokenOff // also when nobody wants to be told: once is enough to look

	for _, i := range order {
		res := a.results[i]
		if res.state == queue.Deferred && (res.postponed != nil || brokenOff) {
			continue
		}
		a.event(i, res)
		r.m.recipients.WithLabelValues(string(res.state)).Inc()
		if res.state == queue.Delivered || res.state == queue.Relayed {
			r.m.delay.Observe(a.now.Sub(time.Unix(a.env.Accepted, 0)).Seconds())
		}
		text := res.text
		if text == "" {
			text = res.reason
		}
		outcomes = append(outcomes, queue.Outcome{Index: i, State: res.state, Code: res.status, Text: text})
	}
	if (!tried || brokenOff && len(outcomes) == 0) && !warned {
		a.l.Release(due)
		return
	}
	if err := a.l.Finish(outcomes, due, warned); err != nil {
		r.o.Log.Error("the outcome of an attempt could not be recorded: the message may be sent again", "event", "queue_record",
			"trace", a.env.Trace, "entry", a.l.ID, "error", err)
	}
}

// keep turns failures into deferrals, because they could not be reported.
func (a *attempt) keep(order []int) {
	for _, i := range order {
		if res := a.results[i]; res.state == queue.Failed {
			res.state = queue.Deferred
			res.postponed = nil
		}
	}
}

// wants tells whether a recipient's NOTIFY asks for a report (RFC 3461 §4.1). Without NOTIFY failures and delays are reported.
func wants(notify, what string) bool {
	if notify == "" {
		return what != "SUCCESS"
	}
	for _, n := range strings.Split(notify, ",") {
		if strings.EqualFold(n, what) {
			return true
		}
	}
	return false
}

// report gathers what the sender is to be told; nil when that is nothing.
func (a *attempt) report(order []int, late bool) *dsn.Report {
	var list []dsn.Recipient
	for _, i := range order {
		res, rc := a.results[i], &a.env.Recipients[i]
		d := dsn.Recipient{Address: rc.Address, Original: rc.ORcpt, Status: res.status, Reason: res.reason, Answer: res.text, RemoteMTA: res.host}
		if res.tried {
			d.Tried = a.now
		}
		switch {
		case res.state == queue.Failed:
			d.Action = dsn.Failed
			if a.env.From == "" {
				a.r.m.doubles.Inc()
				a.r.o.Log.Warn("a report could not be delivered and is dropped", "event", "double_bounce", "trace", a.env.Trace, "entry", a.l.ID,
					"rcpt", rc.Address, "answer", res.text, "reason", res.reason)
			}
			if !wants(rc.Notify, "FAILURE") {
				continue
			}
		case res.state == queue.Deferred && late && wants(rc.Notify, "DELAY"):
			d.Action, d.Until = dsn.Delayed, time.Unix(a.env.Expires, 0)
		case res.state == queue.Delivered && wants(rc.Notify, "SUCCESS"):
			d.Action, d.Reason = dsn.Delivered, ""
		case res.state == queue.Relayed && !res.notified && wants(rc.Notify, "SUCCESS"):
			d.Action, d.Reason = dsn.Relayed, ""
		case res.state == queue.Expanded && res.leaves > 1 && wants(rc.Notify, "SUCCESS"):
			d.Action, d.Reason = dsn.Expanded, ""
		default:
			continue
		}
		list = append(list, d)
	}
	if len(list) == 0 || a.env.From == "" {
		return nil
	}
	return &dsn.Report{ID: a.r.o.NewID(), Host: a.r.o.Hostname, Sender: a.from.String(), EnvID: a.env.EnvID, Trace: a.env.Trace,
		Accepted: time.Unix(a.env.Accepted, 0), Now: a.now, UTF8: a.env.UTF8, Recipients: list,
		Original: a.content, Size: a.content.Size(), Return: a.env.Return, MaxFull: int64(a.r.s.MaxReturn)}
}

// send queues a report.
func (a *attempt) send(report *dsn.Report) error {
	r := a.r
	m, err := dsn.Write(report)
	if err != nil {
		return err
	}
	e := queue.Envelope{Recipients: []queue.Recipient{{Address: a.from.String(), Notify: "NEVER"}}, UTF8: m.UTF8, Trace: report.ID,
		Accepted: a.now.Unix(), Expires: a.now.Add(r.s.ExpireAfter).Unix()}
	if m.EightBit {
		e.Body = "8BITMIME"
	}
	ids, err := r.o.Queue.Enqueue(context.Background(), bytes.NewReader(m.Data), a.now, e)
	if err != nil {
		return err
	}
	kind := "success"
	for _, rc := range report.Recipients {
		if rc.Action == dsn.Failed || rc.Action == dsn.Delayed && kind != string(dsn.Failed) {
			kind = string(rc.Action)
		}
	}
	r.m.notifications.WithLabelValues(kind).Inc()
	r.o.Log.Info("report to the sender queued", "event", "report", "kind", kind, "trace", report.ID, "about", a.env.Trace, "entry", ids[0], "rcpt", a.from.String())
	return nil
}
