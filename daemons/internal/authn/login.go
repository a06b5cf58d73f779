package authn

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"time"

	"shoal/daemons/internal/clock"
	"shoal/daemons/internal/conf"
	"shoal/daemons/internal/dirclient"
	"shoal/daemons/internal/mailaddr"
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
	turns     map[string]*turn
	flights   map[digest]*flight
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
	a.addresses = table{
		free: s.FreeFailures, atOnce: s.AttemptsPerAddress, first: s.FailureDelay, most: s.MaxAddressDelay,
		life: s.FailureLife, spaced: true, counters: newLRU[string, counter](s.Remembered), attempts: map[string]int{},
	}
	a.users = table{
		free: s.FreeFailures, atOnce: s.AttemptsPerUser, first: s.FailureDelay, most: s.MaxUserDelay,
		life: s.FailureLife, counters: newLRU[string, counter](s.Remembered), attempts: map[string]int{},
	}
	a.turns, a.flights = map[string]*turn{}, map[digest]*flight{}
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
}

func (a *authenticator) login(ctx context.Context, user, password, remote string) (*dirclient.Account, error) {
	acc, cached, err := a.check(ctx, user, password, remote)
	a.metrics.count(cached, err)
	if err != nil {
		return nil, err
	}
	return acc, nil
}

func (a *authenticator) check(ctx context.Context, user, password, remote string) (acc *dirclient.Account, cached bool, err error) {
	if password == "" || len(password) > maxPassword || len(user) > maxUser || strings.ContainsRune(password, 0) {
		// What no account can have needs no bind; whoever sends it learns nothing by its haste.
		a.failed(user[:min(len(user), maxUser)], remote)
		return nil, false, ErrBadCredentials
	}
	address, dn := a.name(user)
	if address != "" {
		acc, err = a.dir.Account(ctx, address)
		switch {
		case err == nil:
			dn = acc.DN
		case errors.Is(err, dirclient.ErrNoSuchAccount):
			acc = nil
		default:
			return nil, false, fmt.Errorf("%w: %w", ErrUnavailable, err)
		}
	}
	var proof digest
	if acc != nil {
		proof = a.digest("credentials", acc.ID, fmt.Sprint(acc.CredentialVersion), password)
		if a.isVerified(proof) {
			cached = true
		}
	}
	if !cached {
		who := address
		if acc != nil {
			who = acc.ID // all addresses of an account are one user
		}
		if err := a.verify(ctx, attempt{user: who, address: remote, dn: dn, password: password, real: acc != nil, proof: proof}); err != nil {
			return nil, false, err
		}
	}
	if acc.Provisional { // the login has made it
		if acc, err = a.dir.Account(ctx, address); err != nil {
			return nil, cached, fmt.Errorf("%w: %w", ErrUnavailable, err)
		}
	}
	return acc, cached, a.status(ctx, acc)
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
	user     string // what failures are counted under
	address  string // of the client
	dn       string
	password string
	real     bool // there is such an account
	proof    digest
}

// verify checks an attempt: it joins the same one from the same address, or makes it.
func (a *authenticator) verify(ctx context.Context, at attempt) error {
	addr, _ := addressKey(at.address, a.trusted)
	key := a.digest("flight", at.user, addr, at.password)
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
	pairKey := at.user + "\x00" + addr

	a.mu.Lock()
	now := a.clock.Boot()
	since, friend := a.known.get(pairKey)
	friend = friend && now-since < 24*time.Hour
	waitUser, ok := a.users.enter(at.user, now, friend)
	if !ok {
		a.mu.Unlock()
		return fmt.Errorf("%w on %s", ErrThrottled, at.user)
	}
	waitAddr, ok := a.addresses.enter(addr, now, !counted)
	if !ok {
		a.users.leave(at.user)
		a.mu.Unlock()
		return fmt.Errorf("%w from %s", ErrThrottled, addr)
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
	t.busy <- struct{}{} // a bind ends within the directory client's time-out
	defer func() { <-t.busy }()
	if at.real && a.isVerified(at.proof) {
		return nil // the one before us had the same credentials
	}
	err := a.dir.Bind(ctx, at.dn, at.password)
	switch {
	case err == nil && at.real:
		a.mu.Lock()
		now := a.clock.Boot()
		a.verified.put(at.proof, now+a.set.CacheLife)
		a.known.put(pairKey, now)
		a.users.counters.remove(at.user)
		a.mu.Unlock()
		return nil
	case err == nil || errors.Is(err, dirclient.ErrInvalidCredentials):
		// A bind that succeeds for an account which the lookup did not find opens nothing either.
		a.failed(at.user, at.address)
		return ErrBadCredentials
	}
	return fmt.Errorf("%w: %w", ErrUnavailable, err)
}

// failed counts a failure of a user name and of a client address.
func (a *authenticator) failed(user, remote string) {
	addr, counted := addressKey(remote, a.trusted)
	a.mu.Lock()
	defer a.mu.Unlock()
	now := a.clock.Boot()
	a.users.fail(user, now)
	if counted {
		a.addresses.fail(addr, now)
	}
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
