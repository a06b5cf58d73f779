// Package route decides what becomes of mail for an address: which account takes it, or why nobody does.
//
// The order of the questions:
//
//  1. "postmaster" without a domain (RFC 5321 §4.1.1.3) is Options.Postmaster.
//  2. The domain: not in the directory: Foreign. Suspended: Suspended. Closed: Unknown.
//  3. The whole address is an address of an account, or else of an alias: that one.
//  4. The address without its detail (user+detail, RFC 5233) is: that one, and Detail says the detail.
//  5. "postmaster" of a domain of ours without such an account or alias is Options.Postmaster (RFC 5321 §4.5.1 demands
//     that the mailbox exists).
//  6. The domain has a catch-all: the account or alias of that address.
//  7. Otherwise Unknown.
//
// A suspended account gets its mail: it is its login that is suspended. A closed one gives Unknown. An alias, and an account whose mail is sent on, gives
// Expanded with the addresses that stand for it; they are not looked at here: Resolve does that. An error means that it
// cannot be said now: the answer to the other side is "try again later", never a refusal for good.
//
// Left out on purpose: lists, and routes to other hosts.
package route

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/prometheus/client_golang/prometheus"

	"shoal/daemons/internal/dirclient"
	"shoal/daemons/internal/mailaddr"
)

// Outcome is the kind of a decision.
type Outcome int

// The outcomes.
const (
	Unknown   Outcome = iota // the domain is ours and has no such mailbox: 550 5.1.1
	Local                    // Decision.Account takes it
	Foreign                  // not a domain of ours
	Suspended                // the domain takes no mail for now: 450 4.2.1
	Expanded                 // Decision.Targets get it, and with Keep Decision.Account as well
)

func (o Outcome) String() string {
	switch o {
	case Unknown:
		return "unknown"
	case Local:
		return "local"
	case Foreign:
		return "foreign"
	case Suspended:
		return "suspended"
	case Expanded:
		return "expanded"
	}
	return fmt.Sprintf("outcome %d", int(o))
}

// How the account of a Local decision, or the alias, was found.
const (
	ViaAddress    = "address"
	ViaSubaddress = "subaddress"
	ViaPostmaster = "postmaster"
	ViaCatchAll   = "catch-all"
)

// Decision is what becomes of mail for one address.
type Decision struct {
	Outcome Outcome
	Account *dirclient.Account // who takes it (Local), or whose status is why not; nil: no account was found
	Detail  string             // what followed the separator, when the address was found without it
	Via     string             // Local, Expanded: how it was found
	Targets []string           // Expanded: the addresses that get the mail, as they were written
	Keep    bool               // Expanded: the account gets it as well
}

// Recipient is the address under which a box knows the account of a Local decision.
func (d Decision) Recipient() string {
	if d.Account == nil {
		return ""
	}
	return d.Account.Address
}

// Directory answers about accounts and domains (*dirclient.Client does).
type Directory interface {
	Account(ctx context.Context, address string) (*dirclient.Account, error)
	Alias(ctx context.Context, address string) (*dirclient.Alias, error)
	Domain(ctx context.Context, name string) (*dirclient.Domain, error)
}

// Settings of routing.
type Settings struct {
	// Separators are the characters that may separate a user from a detail in an address; empty: none.
	Separators string `hcl:"separators,optional" default:"+"`
	// Postmaster is the address that takes mail for postmaster where no account of that name exists;
	// empty: it is refused there.
	Postmaster string `hcl:"postmaster,optional" default:""`
}

// Options of New. Directory is required.
type Options struct {
	Directory Directory
	Settings  Settings
	Metrics   prometheus.Registerer
}

// Router decides. Its methods may run at once.
type Router struct {
	o         Options
	decisions *prometheus.CounterVec
}

// New builds a Router. It refuses a postmaster that is no address.
func New(o Options) (*Router, error) {
	if o.Directory == nil {
		return nil, errors.New("route: no directory")
	}
	if p := o.Settings.Postmaster; p != "" {
		a, err := mailaddr.Parse(p)
		if err != nil {
			return nil, fmt.Errorf("route: postmaster: %w", err)
		}
		if a.Domain == "" {
			return nil, fmt.Errorf("route: postmaster %q: write a whole address, such as admin@example.com", p)
		}
	}
	r := &Router{o: o, decisions: prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "shoal_route_decisions_total",
		Help: "Decisions about recipients, by outcome (local, expanded, unknown, foreign, suspended, error).",
	}, []string{"outcome"})}
	if o.Metrics != nil {
		if err := o.Metrics.Register(r.decisions); err != nil {
			return nil, fmt.Errorf("route: metrics: %w", err)
		}
	}
	return r, nil
}

// Route decides about a. The error is temporary.
func (r *Router) Route(ctx context.Context, a mailaddr.Address) (Decision, error) {
	d, err := r.route(ctx, a)
	if err != nil {
		r.decisions.WithLabelValues("error").Inc()
		return Decision{}, fmt.Errorf("route %s: %w", a, err)
	}
	r.decisions.WithLabelValues(d.Outcome.String()).Inc()
	return d, nil
}

func (r *Router) route(ctx context.Context, a mailaddr.Address) (Decision, error) {
	if a.Domain == "" {
		if !a.IsPostmaster() {
			return Decision{Outcome: Unknown}, nil
		}
		return r.postmaster(ctx)
	}
	if strings.HasPrefix(a.Domain, "[") {
		// An address literal is a host, never a domain of ours.
		return Decision{Outcome: Foreign}, nil
	}
	domain, err := r.o.Directory.Domain(ctx, mailaddr.DomainKey(a.Domain))
	switch {
	case errors.Is(err, dirclient.ErrNoSuchDomain):
		return Decision{Outcome: Foreign}, nil
	case err != nil:
		return Decision{}, err
	case domain.Status == dirclient.StatusSuspended:
		return Decision{Outcome: Suspended}, nil
	case domain.Status != dirclient.StatusActive:
		return Decision{Outcome: Unknown}, nil
	}
	d, err := r.account(ctx, a, ViaAddress)
	if err != nil || d.found() {
		return d, err
	}
	if base, detail := a.Subaddress(r.o.Settings.Separators); base.Local != a.Local {
		d, err := r.account(ctx, base, ViaSubaddress)
		if err != nil {
			return d, err
		}
		if d.found() {
			d.Detail = detail
			return d, nil
		}
	}
	if a.IsPostmaster() {
		d, err := r.postmaster(ctx)
		if err != nil || d.found() {
			return d, err
		}
	}
	if domain.CatchAll != "" {
		to, err := mailaddr.Parse(domain.CatchAll)
		if err != nil {
			return Decision{}, fmt.Errorf("catch-all of %s: %w", domain.DN, err)
		}
		return r.account(ctx, to, ViaCatchAll)
	}
	return Decision{Outcome: Unknown}, nil
}

func (r *Router) postmaster(ctx context.Context) (Decision, error) {
	if r.o.Settings.Postmaster == "" {
		return Decision{Outcome: Unknown}, nil
	}
	to, err := mailaddr.Parse(r.o.Settings.Postmaster)
	if err != nil {
		return Decision{}, err
	}
	return r.account(ctx, to, ViaPostmaster)
}

// found tells whether somebody has the address, so that no later rule may take its mail: also when it is closed.
func (d Decision) found() bool { return d.Account != nil || d.Outcome == Expanded }

// account decides by the account or alias that has the address.
func (r *Router) account(ctx context.Context, a mailaddr.Address, via string) (Decision, error) {
	acc, err := r.o.Directory.Account(ctx, a.Key())
	switch {
	case errors.Is(err, dirclient.ErrNoSuchAccount):
		alias, err := r.o.Directory.Alias(ctx, a.Key())
		switch {
		case errors.Is(err, dirclient.ErrNoSuchAlias):
			return Decision{Outcome: Unknown}, nil
		case err != nil:
			return Decision{}, err
		}
		return Decision{Outcome: Expanded, Via: via, Targets: alias.Targets}, nil
	case err != nil:
		return Decision{}, err
	case acc.Status != dirclient.StatusClosed && len(acc.Forward) > 0:
		return Decision{Outcome: Expanded, Account: acc, Via: via, Targets: acc.Forward, Keep: acc.ForwardKeep}, nil
	case acc.Status != dirclient.StatusClosed:
		return Decision{Outcome: Local, Account: acc, Via: via}, nil
	}
	return Decision{Outcome: Unknown, Account: acc}, nil
}
