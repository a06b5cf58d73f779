package authn

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"shoal/daemons/internal/clock"
	"shoal/daemons/internal/conf"
	"shoal/daemons/internal/dirclient"
	"shoal/daemons/internal/mailaddr"
	"shoal/daemons/internal/token"
)

func setDefaults(s *Settings) { conf.SetDefaults(s) }

type digest [sha256.Size]byte

type authenticator struct {
	dir     Directory
	suffix  string
	set     Settings
	trusted []netip.Prefix
	clock   clock.Clock
	metrics *metrics
	key     []byte // of the HMACs; made at start, kept nowhere else

	mu        sync.Mutex
	verified  *lru[digest, time.Duration] // until when
	known     *lru[string, time.Duration] // user + address: since when they belong together
	addresses table
	users     table
	pairs     *lru[string, time.Duration] // user + address: where failures came from lately
	peers     Peers                       // nil: there are none
	turns     map[string]*turn
	flights   map[digest]*flight

	log       *slog.Logger
	server    string
	providers []*token.Provider
	watching  sync.Mutex
	watches   map[string]*watched // by account id; guarded by watching
	recent    trail
	proofs    atomic.Uint64
	complete  completeness
	noted     sync.Mutex
	noting    map[string]time.Time // last logins to be written, by DN; guarded by noted

	certificate func() []byte                                // Options.Certificate
	clients     func(*tls.ConnectionState) ([]string, error) // Options.Clients
}

// turn lets the binds of one user happen one after the other.
type turn struct {
	busy chan struct{} // holds one token while a bind is on its way
	n    int           // who has it or waits for it
}

// flight is one check on its way.
type flight struct {
	done chan struct{}
	err  error
}

func (a *authenticator) init(o Options) error {
	if o.Directory == nil {
		return errors.New("no directory")
	}
	if o.Settings == nil {
		s := DefaultSettings()
		o.Settings = &s
	}
	if o.Clock == nil {
		o.Clock = clock.System()
	}
	s := *o.Settings
	if s.DefaultDomain != "" {
		if _, err := mailaddr.New("x", s.DefaultDomain); err != nil {
			return fmt.Errorf("default domain: %w", err)
		}
	}
	for _, n := range s.Trusted {
		p, err := conf.ParseNetwork(n)
		if err != nil {
			return fmt.Errorf("trusted: %w", err)
		}
		a.trusted = append(a.trusted, p)
	}
	a.dir, a.suffix, a.set, a.clock = o.Directory, o.Suffix, s, o.Clock
	a.key = make([]byte, 32)
	_, _ = rand.Read(a.key) // never fails: it ends the process instead (crypto/rand)
	a.verified = newLRU[digest, time.Duration](s.CacheEntries)
	a.known = newLRU[string, time.Duration](s.Remembered)
	a.pairs = newLRU[string, time.Duration](s.Remembered)
	a.peers = o.Peers
	a.addresses = table{
		free: s.FreeFailures, atOnce: s.AttemptsPerAddress, first: s.FailureDelay, most: s.MaxAddressDelay,
		life: s.FailureLife, spaced: true, counters: newLRU[string, counter](s.Remembered), attempts: map[string]int{},
	}
	a.users = table{
		free: s.FreeFailures, atOnce: s.AttemptsPerUser, first: s.FailureDelay, most: s.MaxUserDelay,
		life: s.FailureLife, counters: newLRU[string, counter](s.Remembered), attempts: map[string]int{},
	}
	a.turns, a.flights = map[string]*turn{}, map[digest]*flight{}
	a.log, a.server, a.providers = o.Log, o.Server, nil
	if a.log == nil {
		a.log = slog.New(slog.DiscardHandler)
	}
	for _, ps := range s.Providers {
		p, err := token.NewProvider(ps, o.Clock)
		if err != nil {
			return err
		}
		a.providers = append(a.providers, p)
	}
	a.certificate, a.clients = o.Certificate, o.Clients
	if err := a.complete.init(&s); err != nil {
		return err
	}
	a.watches = map[string]*watched{}
	a.noting = map[string]time.Time{}
	a.metrics = newMetrics()
	return a.metrics.register(o.Metrics, a.size)
}

func (a *authenticator) size() float64 {
	a.mu.Lock()
	defer a.mu.Unlock()
	return float64(a.verified.len())
}

func (a *authenticator) forget() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.verified.clear()
	a.known.clear()
	a.addresses.counters.clear()
	a.users.counters.clear()
	a.pairs.clear()
}

// account looks up who a user name is: nil for nobody, with the name under which nobody lies.
func (a *authenticator) account(ctx context.Context, user string) (acc *dirclient.Account, who, dn string, err error) {
	address, dn := a.name(user)
	if address == "" {
		return nil, "", dn, nil
	}
	acc, err = a.dir.Account(ctx, address)
	switch {
	case err == nil:
		return acc, acc.ID, acc.DN, nil // all addresses of an account are one user
	case errors.Is(err, dirclient.ErrNoSuchAccount):
		return nil, address, dn, nil
	}
	return nil, address, dn, fmt.Errorf("%w: %w", ErrUnavailable, err)
}

// password checks a password: an app password if it has the form of one and the account has it, else the account's own.
func (a *authenticator) password(ctx context.Context, from From, user, password string) (g *Grant, cached bool, err error) {
	if password == "" || len(password) > maxPassword || len(user) > maxUser || strings.ContainsRune(password, 0) {
		// What no account can have needs no bind; whoever sends it learns nothing by its haste.
		a.failed(user[:min(len(user), maxUser)], from.Remote)
		return nil, false, ErrBadCredentials
	}
	acc, who, dn, err := a.account(ctx, user)
	if err != nil {
		return nil, false, err
	}
	g = &Grant{From: from, Account: acc, Credential: CredentialPassword}
	secret, version := password, ""
	if acc != nil {
		version = fmt.Sprint(acc.CredentialVersion)
		app, plain, err := a.appPassword(ctx, acc, password)
		if err != nil {
			return nil, false, err
		}
		if app != nil {
			g.Credential, g.Name, g.app = CredentialAppPassword, app.Name, app
			dn, secret, version = app.DN, plain, "app "+app.DN+" "+app.Created.String()
		}
	}
	var proof digest
	if acc != nil {
		proof = a.digest("credentials", acc.ID, version, secret)
		cached = a.isVerified(proof)
	}
	if !cached {
		err := a.verify(ctx, attempt{
			user: who, address: from.Remote, real: acc != nil, proof: proof, secret: secret,
			try: func(ctx context.Context) error { return a.dir.Bind(ctx, dn, secret) },
		})
		if acc == nil && errors.Is(err, ErrBadCredentials) {
			err = errNobody
		}
		if err != nil {
			return g, false, err
		}
	}
	if g.app != nil {
		if err := a.usable(g.app, from.Service); err != nil {
			return g, cached, err
		}
	}
	if acc.Provisional || !cached && acc.Migrates(dirclient.MigratePassword) { // the login has made it, or given it its password
		if acc, _, _, err = a.account(ctx, user); err != nil {
			return g, cached, err
		}
		if g.Account = acc; acc == nil {
			return g, cached, fmt.Errorf("%w: the new account is not to be seen yet", ErrUnavailable)
		}
	}
	return g, cached, a.status(ctx, acc)
}

// name gives the address of a user name and where its entry would lie. A name that is no address has neither,
// but still a DN that costs a bind.
func (a *authenticator) name(user string) (address, dn string) {
	user = strings.TrimSpace(user)
	if !strings.Contains(user, "@") && user != "" && a.set.DefaultDomain != "" {
		user += "@" + a.set.DefaultDomain
	}
	addr, err := mailaddr.Parse(user)
	if err != nil || addr.Domain == "" {
		return "", dirclient.AccountDN(a.suffix, "nobody", "invalid")
	}
	key := addr.Key()
	local, domain := key, ""
	if i := strings.LastIndexByte(key, '@'); i >= 0 {
		local, domain = key[:i], key[i+1:]
	}
	return key, dirclient.AccountDN(a.suffix, local, domain)
}

// status tells who knows the password whether the account may be used.
func (a *authenticator) status(ctx context.Context, acc *dirclient.Account) error {
	if !acc.Active() {
		return fmt.Errorf("%w: %s is %s", ErrSuspended, acc.Address, acc.Status)
	}
	d, err := a.dir.Domain(ctx, acc.Domain)
	switch {
	case errors.Is(err, dirclient.ErrNoSuchDomain):
		return fmt.Errorf("%w: domain %s is gone", ErrSuspended, acc.Domain)
	case err != nil:
		return fmt.Errorf("%w: %w", ErrUnavailable, err)
	case d.Status != dirclient.StatusActive:
		return fmt.Errorf("%w: domain %s is %s", ErrSuspended, d.Name, d.Status)
	}
	return nil
}

// attempt is one login that the cache could not answer.
type attempt struct {
	user    string // what failures are counted under
	address string // of the client
	secret  string // tells attempts apart that are the same
	real    bool   // there is such an account
	proof   digest // what is remembered when it is right; zero: nothing
	// try checks it: nil, dirclient.ErrInvalidCredentials, or an error that is nobody's fault.
	try func(context.Context) error
}

// verify checks an attempt: it joins the same one from the same address, or makes it.
func (a *authenticator) verify(ctx context.Context, at attempt) error {
	addr, _ := addressKey(at.address, a.trusted)
	key := a.digest("flight", at.user, addr, at.secret)
	a.mu.Lock()
	a.metrics.waiting.Inc()
	defer a.metrics.waiting.Dec()
	f := a.flights[key]
	if f == nil {
		f = &flight{done: make(chan struct{})}
		a.flights[key] = f
		// On a goroutine of its own: the client that began it may go while another one waits for it.
		go func() {
			err := a.fly(context.WithoutCancel(ctx), at)
			a.mu.Lock()
			delete(a.flights, key)
			a.mu.Unlock()
			f.err = err
			close(f.done)
		}()
	}
	a.mu.Unlock()
	select {
	case <-f.done:
		return f.err
	case <-ctx.Done():
		return fmt.Errorf("%w: %w", ErrUnavailable, ctx.Err())
	}
}

func (a *authenticator) fly(ctx context.Context, at attempt) error {
	addr, counted := addressKey(at.address, a.trusted)
	at.user, addr = Keys(at.user, addr)
	pair := pairKey(at.user, addr)

	a.mu.Lock()
	now := a.clock.Boot()
	since, friend := a.known.get(pair)
	friend = friend && now-since < 24*time.Hour
	waitUser, ok := a.users.enter(at.user, now, friend)
	if !ok {
		a.mu.Unlock()
		return fmt.Errorf("%w on one user", ErrThrottled)
	}
	waitAddr, ok := a.addresses.enter(addr, now, !counted)
	if !ok {
		a.users.leave(at.user)
		a.mu.Unlock()
		return fmt.Errorf("%w from %s", ErrThrottled, at.address)
	}
	t := a.turns[at.user]
	if t == nil {
		t = &turn{busy: make(chan struct{}, 1)}
		a.turns[at.user] = t
	}
	t.n++
	a.mu.Unlock()
	defer func() {
		a.mu.Lock()
		a.users.leave(at.user)
		a.addresses.leave(addr)
		if t.n--; t.n == 0 {
			delete(a.turns, at.user)
		}
		a.mu.Unlock()
	}()

	if wait := max(waitUser, waitAddr); wait > 0 {
		a.metrics.delay.Observe(wait.Seconds())
		if err := clock.Sleep(ctx, a.clock, wait); err != nil {
			return fmt.Errorf("%w: %w", ErrUnavailable, err)
		}
	}
	if err := a.takeTurn(ctx, t, at.user, addr, pair, friend, counted); err != nil {
		return err
	}
	defer func() { <-t.busy }()
	if at.real && at.proof != (digest{}) && a.isVerified(at.proof) {
		return nil // the one before us had the same credentials
	}
	err := at.try(ctx)
	switch {
	case err == nil && at.real:
		a.mu.Lock()
		now := a.clock.Boot()
		if at.proof != (digest{}) {
			a.verified.put(at.proof, now+a.set.CacheLife)
		}
		attacked := a.users.level(at.user, now) > 0
		a.known.put(pair, now)
		a.users.counters.remove(at.user)
		a.pairs.remove(pair)
		a.mu.Unlock()
		if attacked && counted {
			a.tell(at.user, addr, true)
		}
		return nil
	case err == nil || errors.Is(err, dirclient.ErrInvalidCredentials):
		// A bind that succeeds for an account which the lookup did not find opens nothing either.
		a.failedKeys(at.user, addr, counted)
		return ErrBadCredentials
	}
	return fmt.Errorf("%w: %w", ErrUnavailable, err)
}

// takeTurn waits until nothing else is being checked for the user, and for what other servers have said meanwhile: those of their
// failures that came from the same address, and, for an attempt from where this user has failed before, all of this user's. The caller
// gives the turn back.
func (a *authenticator) takeTurn(ctx context.Context, t *turn, user, addr, pair string, friend, counted bool) error {
	var waited time.Duration
	for {
		t.busy <- struct{}{} // a check ends within the directory client's time-out
		a.mu.Lock()
		now := a.clock.Boot()
		var wait time.Duration
		if counted {
			wait = a.addresses.held(addr, now)
		}
		if at, failed := a.pairs.get(pair); failed && now-at < pairLife && !friend {
			wait = max(wait, a.users.held(user, now))
			if wait == 0 && a.peers != nil {
				a.users.pace(user, now)
			}
		}
		a.mu.Unlock()
		if wait == 0 {
			return nil
		}
		<-t.busy
		if waited += wait; waited > 2*max(a.set.MaxAddressDelay, a.set.MaxUserDelay) {
			return fmt.Errorf("%w on one user from one address", ErrThrottled)
		}
		a.metrics.delay.Observe(wait.Seconds())
		if err := clock.Sleep(ctx, a.clock, wait); err != nil {
			return fmt.Errorf("%w: %w", ErrUnavailable, err)
		}
	}
}

func pairKey(user, addr string) string { return user + "\x00" + addr }

// failed counts a failure of a user name and of a client address, and tells the other servers.
func (a *authenticator) failed(user, remote string) {
	addr, counted := addressKey(remote, a.trusted)
	user, addr = Keys(user, addr)
	a.failedKeys(user, addr, counted)
}

func (a *authenticator) failedKeys(user, addr string, counted bool) {
	a.mu.Lock()
	now := a.clock.Boot()
	if user != "-" {
		a.users.fail(user, now)
	}
	if counted {
		a.addresses.fail(addr, now)
		a.pairs.put(pairKey(user, addr), now)
	}
	a.mu.Unlock()
	if !counted {
		addr = "-"
	}
	a.tell(user, addr, false)
}

func (a *authenticator) isVerified(proof digest) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	until, ok := a.verified.get(proof)
	if !ok {
		return false
	}
	if a.clock.Boot() >= until {
		a.verified.remove(proof)
		return false
	}
	return true
}

// digest is the HMAC over a purpose and parts, each with its length before it.
func (a *authenticator) digest(purpose string, parts ...string) (d digest) {
	h := hmac.New(sha256.New, a.key)
	for _, p := range append([]string{purpose}, parts...) {
		var n [4]byte
		binary.BigEndian.PutUint32(n[:], uint32(len(p)))
		_, _ = h.Write(n[:])
		_, _ = h.Write([]byte(p))
	}
	h.Sum(d[:0])
	return d
}
