// Package filter runs an account's Sieve scripts over a message that is being delivered, and does what they decide.
//
//	scripts   the provider's before, the domain's before, the account's active one, the domain's after, the provider's after; each next
//	          one only if the message is still kept (package sieve)
//	order     1. what goes elsewhere (redirect): accepted by a switch, or the delivery fails for now and nothing is stored
//	          2. the mailboxes: every copy is stable
//	          3. the sender's answer (vacation), notifications, marks for duplicate: their failure is logged and nothing else
//
// Promises:
//
//   - A script that does not compile or fails loses no mail: the message goes to the INBOX, and the owner finds a
//     message there that says what is wrong, once a day for each script.
//   - A mailbox that does not exist and is not to be made is the INBOX. Where nothing can be sent, what should have
//     been sent is kept.
//   - Vacation answers an address once in its interval, whichever server the mail comes through: the mark that is made
//     first, exclusively, decides (mailstore.Account.Claim).
//   - Of two messages of one id that come at the same time, through whichever servers, duplicate finds one at most new: who tests first
//     claims the id until its delivery has ended, and the other delivery fails for now.
//   - What is sent has the null sender, but redirects, which keep the sender of the message. A redirected message carries a
//     Delivered-To of the account, so that loops end.
//
// A script is known for Age before the account's log is looked at again: a new one takes effect that much later on other servers.
//
// Left out on purpose: rewriting senders of redirects (SRS), which is the switch's.
package filter

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"shoal/daemons/internal/clock"
	"shoal/daemons/internal/deliver"
	"shoal/daemons/internal/dirclient"
	"shoal/daemons/internal/mailaddr"
	"shoal/daemons/internal/mailstore"
	"shoal/daemons/internal/sieve"
)

// Store is the message store: *mailstore.Store.
type Store interface {
	Stage(ctx context.Context, volume string, r io.Reader, max int64) (*mailstore.Staged, error)
	Deliver(ctx context.Context, m *mailstore.Staged, targets []mailstore.Target) []mailstore.Result
}

// Domains gives the scripts of domains, and those for all domains: *dirclient.Client.
type Domains interface {
	Domain(ctx context.Context, name string) (*dirclient.Domain, error)
	Provider(ctx context.Context) (*dirclient.Domain, error)
}

// Outbox carries what scripts send to a switch: *deliver.Transport.
type Outbox interface {
	Begin(ctx context.Context, e deliver.Envelope) (*deliver.Transaction, error)
}

// Settings are the attributes of the block sieve in a box's configuration, with their defaults.
type Settings struct {
	// Enabled runs scripts at all.
	Enabled bool `hcl:"enabled,optional" default:"true"`
	// Age is how long a script is believed to be the active one before the account is looked at again.
	Age time.Duration `hcl:"age,optional" default:"30s" min:"0s" max:"1h"`
	// Separators may stand between the user and the detail of a subaddress.
	Separators string `hcl:"separators,optional" default:"+"`
	// Actions, Redirects and Steps bound one run.
	Actions   int `hcl:"actions,optional" default:"32" min:"1" max:"1000"`
	Redirects int `hcl:"redirects,optional" default:"4" min:"0" max:"100"`
	Steps     int `hcl:"steps,optional" default:"100000" min:"1000" max:"10000000"`
	// MinVacation is the shortest interval of vacation replies to one address.
	MinVacation time.Duration `hcl:"min_vacation,optional" default:"1h" min:"1m" max:"8760h"`
	// SpamHeader is the header field in which the switches' filter writes how likely spam a message is: a number, or
	// "[number / limit]" among other words, as rspamd's X-Spamd-Result. Empty: spamtest says "not tested".
	SpamHeader string `hcl:"spam_header,optional" default:"X-Spamd-Result"`
	// SpamFull is the number that means certain spam, where the field names no limit.
	SpamFull int `hcl:"spam_full,optional" default:"15" min:"1" max:"1000000"`
	// VirusHeader is the field with the name of a virus, or "clean". Empty: virustest says "not tested".
	VirusHeader string `hcl:"virus_header,optional" default:"X-Virus"`
}

// Options of New. Store, Domains, Log and Settings are required.
type Options struct {
	Store    Store
	Domains  Domains
	Outbox   Outbox // nil: nothing can be sent
	Hostname string // in message ids
	Version  string // of the service, for scripts
	Settings Settings
	Log      *slog.Logger
	Metrics  prometheus.Registerer
	Clock    clock.Clock
}

// Filter runs scripts. It may be used by any number of goroutines.
type Filter struct {
	o Options
	m *metrics

	mu      sync.Mutex
	scripts map[string]*compiled // by file or by text
	told    map[string]time.Time // mistakes in scripts of operators, and when they were last logged as such
}

// New makes a Filter.
func New(o Options) (*Filter, error) {
	if o.Store == nil || o.Domains == nil || o.Log == nil {
		return nil, errors.New("filter: Options.Store, Domains and Log are required")
	}
	if o.Clock == nil {
		o.Clock = clock.System()
	}
	m, err := newMetrics(o.Metrics)
	if err != nil {
		return nil, fmt.Errorf("filter: metrics: %w", err)
	}
	return &Filter{o: o, m: m, scripts: map[string]*compiled{}}, nil
}

// Delivery is a message for one account.
type Delivery struct {
	Account *dirclient.Account
	Handle  *mailstore.Account
	From    mailaddr.Address
	To      mailaddr.Address // as the switch gave it
	Trace   string
	Message *mailstore.Staged // with Return-Path and, perhaps, Delivered-To in front
	Once    *mailstore.Once
}

// Result is what became of it. With Err nil and Rejected empty the message is delivered, discarded or sent on.
type Result struct {
	Rejected string // what to tell the sender: the script refuses the message
	Stored   []mailstore.Result
	Did      []string // for the log
}

// Deliver runs the scripts of an account over a message. filtered is false when there are none: the message is to be
// delivered as always. An error is temporary: nothing was acknowledged.
func (f *Filter) Deliver(ctx context.Context, d *Delivery) (r Result, filtered bool, err error) {
	if !f.o.Settings.Enabled {
		return r, false, nil
	}
	list, broken, err := f.load(ctx, d)
	if err != nil || len(list) == 0 && broken == nil {
		return r, false, err
	}
	started := time.Now()
	file, err := d.Message.Open(ctx)
	if err != nil {
		return r, true, fmt.Errorf("read the message for the account's scripts: %w", err)
	}
	defer file.Close()
	x := &execution{f: f, d: d, file: file}
	defer x.giveBack(ctx)
	var out *sieve.Outcome
	if broken == nil {
		out, broken = sieve.Run(ctx, x.env(ctx), list...)
		if ctx.Err() != nil {
			return r, true, ctx.Err()
		}
		if x.hostErr != nil { // not the script's fault: try again later
			return r, true, x.hostErr
		}
	} else {
		out = &sieve.Outcome{Actions: []sieve.Action{&sieve.FileInto{}}}
	}
	result := "ok"
	if broken != nil {
		result = "failed"
	}
	f.m.runs.WithLabelValues(result).Inc()
	r, err = x.do(ctx, out)
	f.m.duration.Observe(time.Since(started).Seconds())
	if err == nil && broken != nil {
		if ofOperator(broken) {
			x.tellOperator(ctx, broken)
		} else {
			x.tellOwner(ctx, broken)
		}
	}
	attrs := []slog.Attr{slog.String("event", "filtered"), slog.String("trace", d.Trace), slog.String("account", d.Account.ID),
		slog.String("did", strings.Join(r.Did, ", "))}
	if len(out.Notes) > 0 {
		attrs = append(attrs, slog.Any("notes", out.Notes))
	}
	if broken != nil {
		attrs = append(attrs, slog.String("script_error", broken.Error()))
	}
	if err != nil {
		attrs = append(attrs, slog.Any("error", err))
	}
	f.o.Log.LogAttrs(ctx, slog.LevelInfo, "scripts have run", attrs...)
	return r, true, err
}

// limits of a run.
func (f *Filter) limits() sieve.Limits {
	s := f.o.Settings
	return sieve.Limits{Actions: s.Actions, Redirects: s.Redirects, Steps: s.Steps, MinVacation: s.MinVacation}
}
