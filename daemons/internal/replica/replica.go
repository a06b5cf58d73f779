// Package replica keeps a directory store equal to that of another server, the provider, by content
// synchronization (RFC 4533, refreshAndPersist). The provider may be a vaultd or OpenLDAP's slapd with
// syncprov: cookies have its form (ldapwire.SyncCookie).
//
// Invariants:
//
//   - What is applied is what the provider sent: names, values, entryUUID, entryCSN and every other
//     operational attribute that is stored. An entry is known by its entryUUID, so a rename is one.
//   - The cookie is stored in the transaction that holds what it stands for. After a crash the
//     replica goes on where it was.
//   - A total refresh makes a new database, which takes the place of the old one in one step when the
//     provider has said that it is complete (dirstore.Load). If that fails, the next attempt goes into
//     the database in use.
//   - Any other refresh is applied as it comes, with bounded memory: of each entry one bit is kept. What the
//     provider did not name is removed only after it said that the refresh is done, and only if it named
//     the suffix entry: a present phase that lost its list of UUIDs removes nothing.
//   - Nobody reads half a change. During a refresh that is applied as it comes readers see some entries as
//     they are at the provider already and others as they were; contextCSN moves at its end.
//
// What cannot be reconciled (an entry whose superior is missing, a UUID that should be here and is not)
// ends in a whole refresh, without a cookie.
//
// A connection is asked for the provider's contextCSN now and then (Options.Probe): an answer is the
// sign of life that a persist search does not give, and shows whether everything has arrived.
//
// A replica may have a part of the directory only: by an agreement in its server entry, to which the provider keeps
// (dirstore.Agreement), or because the provider itself has no more. What it has by is stored with the cookie. When it
// is another one than at the last time, everything is fetched anew.
//
// Left out on purpose: delta-syncrepl, several providers at once (they are tried in order), SASL.
package replica

import (
	"context"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"shoal/daemons/internal/clock"
	"shoal/daemons/internal/dirstore"
	"shoal/daemons/internal/ldapwire"
)

// Options of a Replica. All but Metrics are required.
type Options struct {
	Store     *dirstore.Store
	Providers []string // ldap://host:port (StartTLS is demanded) or ldaps://host:port, tried in order
	TLS       *tls.Config
	BindDN    string
	Password  func() (string, error) // asked for each connection
	Timeout   time.Duration          // of connecting, TLS and bind together, and of one write
	Probe     time.Duration          // how often the provider is asked for its contextCSN
	Retry     time.Duration          // longest pause between two attempts
	Clock     clock.Clock
	Log       *slog.Logger
	Metrics   prometheus.Registerer // may be nil

	// More, if set, gives further providers: first are tried before Providers, last after them.
	More func() (first, last []string)
	// Accept, if set, is asked about a provider before it is followed. An error refuses it; whole fetches everything.
	Accept func(p *Provider) (whole bool, err error)
	// Lease, if set, gives the value of the next renewal of the provider's lease, and says when to send it; ok is false
	// if there is nothing to renew. stamp is from the provider's last answer on this connection, "" at first.
	Lease func(stamp string) (value string, ok bool)
	// Renew is how often; needed with Lease.
	Renew time.Duration
}

// Provider is what a server says of itself, by its root DSE and its suffix entry.
type Provider struct {
	URI     string
	Named   bool   // one of Options.Providers, not of More
	Vault   bool   // it knows of epochs: a vaultd
	Mode    string // "master", "shadow", "candidate"
	Epoch   uint64
	Master  string // of that epoch
	Context []string
	// Content is the provider's own agreement in its written form, "" for the whole directory; Agreement that of this
	// replica, as its entry there says.
	Content   string
	Agreement dirstore.Agreement
	agrees    bool // it keeps to agreements
}

// content is what a replica of this provider gets.
func (p *Provider) content() (string, error) {
	theirs, err := dirstore.ParseAgreement(p.Content)
	if err != nil {
		return "", err
	}
	return theirs.And(p.Agreement).String(), nil
}

// State is what a replica is doing.
type State string

// States.
const (
	Connecting State = "connecting"
	Refreshing State = "refreshing" // gets what it missed, or everything
	Following  State = "following"  // gets changes as they are made
	Stopped    State = "stopped"
)

// Status is shown to operators.
type Status struct {
	State       State
	Provider    string // URI of the last one reached
	Error       string // why the last connection ended; "" while there is one
	LastContact time.Time
	Lag         time.Duration // see Replica.Lag
	Received    int           // entries got in the refresh under way
}

// Replica follows a provider.
type Replica struct {
	opt       Options
	endpoints []endpoint
	metrics   *metrics

	mu        sync.Mutex
	status    Status
	theirs    []string      // contextCSN of the provider as last heard
	inSync    time.Duration // when it was last known that nothing is missing, since boot
	wasInSync bool
	whole     bool // the next refresh is done without a cookie
	inPlace   bool // a whole refresh goes into the database in use: a load was tried in vain
}

// New checks the options. It connects to nobody: that is Run's.
func New(o Options) (*Replica, error) {
	r := &Replica{opt: o, status: Status{State: Stopped}, inSync: o.Clock.Boot()}
	for _, uri := range o.Providers {
		e, err := parseURI(uri)
		if err != nil {
			return nil, err
		}
		e.named = true
		r.endpoints = append(r.endpoints, e)
	}
	if len(r.endpoints) == 0 && o.More == nil {
		return nil, errors.New("replica: no provider")
	}
	if o.TLS == nil {
		return nil, errors.New("replica: no TLS configuration: a provider is spoken to over TLS only")
	}
	// A store that was in step when it was closed is behind by as much as its newest change is old, at most.
	r.metrics = newMetrics(r)
	return r, nil
}

// Pauses between attempts: from retryFirst, doubled, to Options.Retry.
const retryFirst = 100 * time.Millisecond

// Run follows the provider until ctx ends, and then returns nil. The store must stay open until then.
func (r *Replica) Run(ctx context.Context) error {
	defer r.set(func(s *Status) { s.State = Stopped })
	wait := retryFirst
	for ctx.Err() == nil {
		refreshed := false
		for _, e := range r.candidates() {
			var err error
			refreshed, err = r.follow(ctx, e)
			if ctx.Err() != nil {
				return nil
			}
			r.set(func(s *Status) { s.State, s.Error = Connecting, err.Error() })
			r.opt.Log.Warn("directory provider is not followed", "event", "replica-disconnected", "provider", e.uri, "error", err)
			if refreshed {
				break // it works in principle: try this one again first
			}
		}
		if refreshed {
			wait = retryFirst
		}
		t := r.opt.Clock.NewTimer(wait/2 + rand.N(wait/2+1))
		select {
		case <-ctx.Done():
		case <-t.C():
		}
		t.Stop()
		wait = min(2*wait, r.opt.Retry)
	}
	return nil
}

// candidates are the providers in the order in which they are tried.
func (r *Replica) candidates() []endpoint {
	if r.opt.More == nil {
		return r.endpoints
	}
	first, last := r.opt.More()
	var list []endpoint
	add := func(uris []string) {
		for _, uri := range uris {
			e, err := parseURI(uri)
			if err != nil || slices.ContainsFunc(list, func(o endpoint) bool { return o.address == e.address }) {
				continue // it is in the directory: somebody else's mistake
			}
			e.named = slices.ContainsFunc(r.endpoints, func(o endpoint) bool { return o.address == e.address })
			list = append(list, e)
		}
	}
	add(first)
	for _, e := range r.endpoints {
		if !slices.ContainsFunc(list, func(o endpoint) bool { return o.address == e.address }) {
			list = append(list, e)
		}
	}
	add(last)
	return list
}

// follow connects to a provider and follows it until that fails. refreshed tells that it got so far as
// to finish a refresh.
func (r *Replica) follow(ctx context.Context, e endpoint) (refreshed bool, err error) {
	r.set(func(s *Status) { s.State, s.Provider = Connecting, e.uri })
	c, err := r.connect(ctx, e)
	if err != nil {
		r.metrics.connects.WithLabelValues("failed").Inc()
		return false, err
	}
	r.metrics.connects.WithLabelValues("ok").Inc()
	stop := context.AfterFunc(ctx, c.close)
	defer stop()
	defer c.close()
	whole := false
	p, err := c.introduce(r.opt.Store, r.opt.BindDN)
	if err != nil {
		return false, err
	}
	p.URI, p.Named = e.uri, e.named
	if r.opt.Accept != nil {
		if whole, err = r.opt.Accept(p); err != nil {
			return false, err
		}
	}
	content, err := p.content()
	if err != nil {
		return false, err
	}
	cookie := r.opt.Store.Cookie()
	if is := CookieContent(cookie); cookie != "" && is != content {
		r.opt.Log.Info("the agreement about what this shadow has is another one: everything is fetched anew", "event", "replica-agreement", "was", is, "is", content)
		whole = true
	}
	r.mu.Lock()
	whole = whole || r.whole || cookie == ""
	r.mu.Unlock()
	s := newSession(r, c, cookie, whole)
	s.content = content
	err = s.run()
	var again *inconsistent
	var refused *ldapwire.Error
	// A provider that says so after the refresh has lost track of us, not we of it: our cookie is good.
	if errors.As(err, &again) || errors.As(err, &refused) && refused.Code == ldapwire.SyncRefreshRequired && !s.refreshed {
		r.mu.Lock()
		r.whole = true
		r.mu.Unlock()
		err = fmt.Errorf("%w: everything is fetched anew", err)
	}
	return s.refreshed, err
}

// inconsistent tells that what came does not fit what is here: only a whole refresh helps.
type inconsistent struct{ why string }

func (e *inconsistent) Error() string { return "the directory differs from the provider's: " + e.why }

func (r *Replica) set(f func(*Status)) {
	r.mu.Lock()
	f(&r.status)
	r.mu.Unlock()
}

// heard notes a sign of life, and the provider's contextCSN if csns is not empty.
func (r *Replica) heard(csns []string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.status.LastContact = r.opt.Clock.Now()
	if len(csns) > 0 {
		r.theirs = csns
	}
	r.checkSync()
}

// checkSync notes whether nothing is missing. r.mu is held.
func (r *Replica) checkSync() bool {
	if r.status.State != Following {
		return false
	}
	ours := r.opt.Store.ContextCSN()
	for _, c := range r.theirs {
		at := ""
		for _, o := range ours {
			if dirstore.CSNServer(o) == dirstore.CSNServer(c) {
				at = o
			}
		}
		if at < c {
			return false
		}
	}
	r.inSync, r.wasInSync = r.opt.Clock.Boot(), true
	return true
}

// Lag is for how long it has not been known that everything of the provider is here: 0 while it is.
// It says how old what is read here may be, give or take Options.Probe if the provider died unheard.
func (r *Replica) Lag() time.Duration {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.checkSync() {
		return 0
	}
	if !r.wasInSync {
		// Since the start nothing is known: as old as the newest change, at most.
		for _, c := range r.opt.Store.ContextCSN() {
			return max(dirstore.Age(c, r.opt.Clock.Now()), 0)
		}
	}
	return r.opt.Clock.Boot() - r.inSync
}

// Ready returns nil when the store holds a whole state of the provider's directory, however old.
func (r *Replica) Ready() error {
	if r.opt.Store.Cookie() != "" {
		return nil
	}
	s := r.Status()
	why := s.Error
	if why == "" {
		why = fmt.Sprintf("%d entries so far", s.Received)
	}
	return fmt.Errorf("the directory was not yet copied from %s: %s: %s", strings.Join(r.opt.Providers, ", "), s.State, why)
}

// Content is the agreement by which the store holds a part of the directory only, in its written form; "" for all of
// it.
func (r *Replica) Content() string { return CookieContent(r.opt.Store.Cookie()) }

// The cookie that is stored has one field more than those on the wire: "content", an agreement in base64.
const contentField = ",content="

// storedCookie makes it.
func storedCookie(csns []string, content string) []byte {
	b := (&ldapwire.SyncCookie{RID: rid, CSNs: csns}).Append(nil)
	if content == "" {
		return b
	}
	return base64.RawURLEncoding.AppendEncode(append(b, contentField...), []byte(content))
}

// CookieContent is the agreement in a stored cookie.
func CookieContent(cookie string) string {
	_, text, _ := strings.Cut(cookie, contentField)
	content, err := base64.RawURLEncoding.DecodeString(text)
	if err != nil {
		return "damaged" // no agreement: everything is fetched anew
	}
	return string(content)
}

// Status tells how it stands.
func (r *Replica) Status() Status {
	lag := r.Lag()
	r.mu.Lock()
	defer r.mu.Unlock()
	s := r.status
	s.Lag = lag
	return s
}
