package authn

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"shoal/daemons/internal/clock"
	"shoal/daemons/internal/dirclient"
)

// fake is a directory with passwords; bind may be replaced.
type fake struct {
	mu        sync.Mutex
	accounts  map[string]*dirclient.Account
	passwords map[string]string // by DN
	domains   map[string]*dirclient.Domain
	away      bool
	binds     []string // the DNs
	gate      func()   // called in each bind

	apps       map[string]*dirclient.AppPassword // by DN
	keys       map[string][]string
	lastLogins map[string]time.Time

	verifiers    map[string]*dirclient.Verifiers // by DN
	scramKey     string
	incomplete   map[string]bool // domains, "" for all
	certificates map[string][][]byte
}

func (f *fake) Verifiers(_ context.Context, dn string) (*dirclient.Verifiers, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.away {
		return nil, dirclient.ErrUnavailable
	}
	if v := f.verifiers[dn]; v != nil {
		w := *v
		return &w, nil
	}
	return &dirclient.Verifiers{}, nil
}

func (f *fake) ScramKey(context.Context) (string, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.away {
		return "", dirclient.ErrUnavailable
	}
	return f.scramKey, nil
}

func (f *fake) ScramComplete(_ context.Context, domain string) (bool, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.away {
		return false, dirclient.ErrUnavailable
	}
	return !f.incomplete[domain], nil
}

func (f *fake) Certificates(_ context.Context, dn string) ([][]byte, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.certificates[dn], nil
}

func newFake() *fake {
	f := &fake{
		apps: map[string]*dirclient.AppPassword{}, accounts: map[string]*dirclient.Account{}, passwords: map[string]string{},
		domains: map[string]*dirclient.Domain{"example.test": {Name: "example.test", Status: dirclient.StatusActive}},
	}
	f.add("alice", "wonderland")
	f.add("bob", "builder")
	f.accounts["a.smith@example.test"] = f.accounts["alice@example.test"]
	return f
}

func (f *fake) add(local, password string) *dirclient.Account {
	a := &dirclient.Account{
		DN: dirclient.AccountDN("o=shoal", local, "example.test"), Address: local + "@example.test", Domain: "example.test",
		ID: "id-of-" + local, Status: dirclient.StatusActive, CredentialVersion: 1,
	}
	f.accounts[a.Address], f.passwords[a.DN] = a, password
	return a
}

func (f *fake) Account(_ context.Context, address string) (*dirclient.Account, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.away {
		return nil, dirclient.ErrUnavailable
	}
	if a := f.accounts[address]; a != nil {
		b := *a
		return &b, nil
	}
	return nil, fmt.Errorf("%w: %s", dirclient.ErrNoSuchAccount, address)
}

func (f *fake) Domain(_ context.Context, name string) (*dirclient.Domain, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if d := f.domains[name]; d != nil {
		return d, nil
	}
	return nil, dirclient.ErrNoSuchDomain
}

func (f *fake) Bind(_ context.Context, dn, password string) error {
	f.mu.Lock()
	f.binds = append(f.binds, dn)
	gate, want, away := f.gate, f.passwords[dn], f.away
	f.mu.Unlock()
	if gate != nil {
		gate()
	}
	switch {
	case away:
		return dirclient.ErrUnavailable
	case want == "" || want != password:
		return dirclient.ErrInvalidCredentials
	}
	return nil
}

func (f *fake) AccountByID(_ context.Context, id string) (*dirclient.Account, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, a := range f.accounts {
		if a.ID == id {
			b := *a
			return &b, nil
		}
	}
	return nil, dirclient.ErrNoSuchAccount
}

func (f *fake) AppPassword(_ context.Context, accountDN, id string) (*dirclient.AppPassword, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if p := f.apps[dirclient.AppPasswordDN(accountDN, id)]; p != nil {
		q := *p
		return &q, nil
	}
	return nil, dirclient.ErrNoSuchAppPassword
}

func (f *fake) TokenKeys(context.Context) (map[string][]string, error) { return f.keys, nil }

func (f *fake) SetLastLogins(_ context.Context, logins map[string]time.Time) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.lastLogins == nil {
		f.lastLogins = map[string]time.Time{}
	}
	for dn, at := range logins {
		f.lastLogins[dn] = at
	}
	return len(logins), nil
}

func (f *fake) bound() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.binds)
}

func newAuthn(t *testing.T, f *fake, change func(*Settings)) (*Authenticator, *clock.Fake) {
	t.Helper()
	clk := clock.NewFake(time.Unix(1e9, 0))
	s := DefaultSettings()
	if change != nil {
		change(&s)
	}
	a, err := New(Options{Directory: f, Suffix: "o=shoal", Settings: &s, Clock: clk, Metrics: prometheus.NewRegistry()})
	if err != nil {
		t.Fatal(err)
	}
	return a, clk
}

func expect(t *testing.T, a *Authenticator, user, password, remote string, want error) {
	t.Helper()
	acc, err := login(t.Context(), a, user, password, remote)
	if !errors.Is(err, want) {
		t.Errorf("login of %q from %s: %v, wanted %v", user, remote, err, want)
	}
	if (acc != nil) != (want == nil) {
		t.Errorf("login of %q: account %v with error %v", user, acc, err)
	}
}

// login is an IMAP login by password.
func login(ctx context.Context, a *Authenticator, user, password, remote string) (*dirclient.Account, error) {
	g, err := a.Password(ctx, From{Service: ServiceIMAP, Remote: remote, Mechanism: "PLAIN", TLS: true}, user, password)
	if err != nil {
		return nil, err
	}
	return g.Account, nil
}

// waiting reads the gauge of logins under way.
func waiting(t *testing.T, a *Authenticator) (n float64) {
	t.Helper()
	reg := prometheus.NewRegistry()
	if err := reg.Register(a.metrics.waiting); err != nil {
		t.Fatal(err)
	}
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	return families[0].GetMetric()[0].GetGauge().GetValue()
}

func TestLogin(t *testing.T) {
	f := newFake()
	a, _ := newAuthn(t, f, func(s *Settings) { s.DefaultDomain, s.FreeFailures = "example.test", 1000 })
	const here = "192.0.2.1:4711"
	expect(t, a, "alice@example.test", "wonderland", here, nil)
	expect(t, a, " Alice@EXAMPLE.test", "wonderland", here, nil)
	expect(t, a, "a.smith@example.test", "wonderland", here, nil)
	expect(t, a, "alice", "wonderland", here, nil)
	expect(t, a, "bob", "wonderland", here, ErrBadCredentials)
	for _, user := range []string{"carol", "carol@example.test", "alice@example.org", "", "@", "a b c", "*", "alice@example.test\x00", strings.Repeat("x", 1000)} {
		expect(t, a, user, "wonderland", here, ErrBadCredentials)
	}
	for _, password := range []string{"", "Wonderland", "wonderland ", "wonderland\x00", strings.Repeat("x", 2000)} {
		expect(t, a, "alice", password, here, ErrBadCredentials)
	}
	b, _ := newAuthn(t, f, nil)
	expect(t, b, "alice", "wonderland", here, ErrBadCredentials) // no default domain
}

func TestUnknownUsersCostABindToo(t *testing.T) {
	f := newFake()
	a, _ := newAuthn(t, f, nil)
	expect(t, a, "alice@example.test", "wrong", "192.0.2.1", ErrBadCredentials)
	if n := f.bound(); n != 1 {
		t.Fatalf("%d binds for a wrong password", n)
	}
	expect(t, a, "nobody@example.test", "wrong", "192.0.2.2", ErrBadCredentials)
	expect(t, a, "no address", "wrong", "192.0.2.3", ErrBadCredentials)
	if n := f.bound(); n != 3 {
		t.Errorf("%d binds: unknown users are answered without one", n)
	}
}

func TestSuspendedIsToldToTheOwnerOnly(t *testing.T) {
	f := newFake()
	a, _ := newAuthn(t, f, nil)
	f.accounts["alice@example.test"].Status = dirclient.StatusSuspended
	expect(t, a, "alice@example.test", "wrong", "192.0.2.1", ErrBadCredentials)
	expect(t, a, "alice@example.test", "wonderland", "192.0.2.1", ErrSuspended)
	f.accounts["alice@example.test"].Status = dirclient.StatusClosed
	expect(t, a, "alice@example.test", "wonderland", "192.0.2.1", ErrSuspended) // although it is remembered
	f.domains["example.test"].Status = dirclient.StatusSuspended
	expect(t, a, "bob@example.test", "builder", "192.0.2.1", ErrSuspended)
	delete(f.domains, "example.test")
	expect(t, a, "bob@example.test", "builder", "192.0.2.1", ErrSuspended)
}

func TestRememberedCredentials(t *testing.T) {
	f := newFake()
	a, clk := newAuthn(t, f, nil)
	login := func(want error) { t.Helper(); expect(t, a, "alice@example.test", "wonderland", "192.0.2.1", want) }
	binds := func(want int) {
		t.Helper()
		if n := f.bound(); n != want {
			t.Errorf("%d binds, wanted %d", n, want)
		}
	}
	login(nil)
	login(nil)
	expect(t, a, "a.smith@example.test", "wonderland", "192.0.2.9", nil)
	binds(1)
	expect(t, a, "alice@example.test", "other", "192.0.2.1", ErrBadCredentials)
	expect(t, a, "alice@example.test", "other", "192.0.2.1", ErrBadCredentials)
	binds(3) // failures are not remembered
	clk.Advance(5 * time.Minute)
	login(nil)
	binds(4)

	// The password changes: the old one is worth nothing as soon as the new entry is seen.
	f.mu.Lock()
	f.accounts["alice@example.test"].CredentialVersion = 2
	f.passwords[f.accounts["alice@example.test"].DN] = "looking glass"
	f.mu.Unlock()
	login(ErrBadCredentials)
	expect(t, a, "alice@example.test", "looking glass", "192.0.2.1", nil)

	// The account is deleted and made again under the same name: nothing is left of the old one.
	f.mu.Lock()
	f.accounts["alice@example.test"].ID = "id-of-another"
	f.passwords[f.accounts["alice@example.test"].DN] = "third one"
	f.mu.Unlock()
	expect(t, a, "alice@example.test", "looking glass", "192.0.2.1", ErrBadCredentials)

	a.Forget()
	before := f.bound()
	expect(t, a, "alice@example.test", "third one", "192.0.2.1", nil)
	binds(before + 1)
}

func TestDirectoryAway(t *testing.T) {
	f := newFake()
	a, _ := newAuthn(t, f, nil)
	expect(t, a, "alice@example.test", "wonderland", "192.0.2.1", nil)
	f.away = true
	for range 20 {
		expect(t, a, "bob@example.test", "builder", "192.0.2.1", ErrUnavailable)
	}
	f.away = false
	// That was nobody's fault: no waits are left of it (a wait would hang here, the clock stands still).
	expect(t, a, "bob@example.test", "builder", "192.0.2.1", nil)
}

func TestOneFlightPerUserAndPassword(t *testing.T) {
	f := newFake()
	arrived, release := make(chan string, 100), make(chan struct{})
	f.gate = func() { arrived <- ""; <-release }
	a, _ := newAuthn(t, f, func(s *Settings) { s.AttemptsPerUser = 100 })
	var all sync.WaitGroup
	for range 20 {
		all.Go(func() { expect(t, a, "alice@example.test", "wonderland", "192.0.2.1", nil) })
	}
	for range 5 {
		all.Go(func() { expect(t, a, "alice@example.test", "wrong", "192.0.2.1", ErrBadCredentials) })
	}
	all.Go(func() { expect(t, a, "alice@example.test", "wonderland", "192.0.2.2", nil) })
	<-arrived
	// One bind for alice is on its way; nothing of hers joins it, but bob does.
	all.Go(func() { expect(t, a, "bob@example.test", "builder", "192.0.2.1", nil) })
	<-arrived
	for waiting(t, a) < 27 {
		runtime.Gosched()
	}
	if n := f.bound(); n != 2 {
		t.Errorf("%d binds at once", n)
	}
	close(release)
	all.Wait()
	// Her right password from the other place needs none when it comes after the first one.
	if n := f.bound(); n != 3 && n != 4 {
		t.Errorf("%d binds for three different attempts on alice and one on bob", n)
	}
}

// A client that gives up does not take the result from the one that waits for the same.
func TestFirstClientGoes(t *testing.T) {
	f := newFake()
	arrived, release := make(chan struct{}, 10), make(chan struct{})
	f.gate = func() { arrived <- struct{}{}; <-release }
	a, _ := newAuthn(t, f, nil)
	ctx, cancel := context.WithCancel(t.Context())
	first, second := make(chan error), make(chan error)
	go func() {
		_, err := login(ctx, a, "alice@example.test", "wonderland", "192.0.2.1")
		first <- err
	}()
	<-arrived
	go func() {
		_, err := login(t.Context(), a, "alice@example.test", "wonderland", "192.0.2.1")
		second <- err
	}()
	cancel()
	if err := <-first; !errors.Is(err, ErrUnavailable) {
		t.Errorf("first: %v", err)
	}
	close(release)
	if err := <-second; err != nil {
		t.Errorf("second: %v", err)
	}
}

func TestThrottlePerAddress(t *testing.T) {
	f := newFake()
	a, clk := newAuthn(t, f, nil)
	guess := func(i int, remote string) error {
		_, err := login(t.Context(), a, fmt.Sprintf("user%d@example.test", i), "guess", remote)
		return err
	}
	for i := range 5 {
		if err := guess(i, "2001:db8::1"); !errors.Is(err, ErrBadCredentials) {
			t.Fatalf("free failure %d: %v", i, err)
		}
	}
	// The sixth has no wait yet, but makes one for what follows; another address of the same /64 is the same client.
	if err := guess(6, "2001:db8::2"); !errors.Is(err, ErrBadCredentials) {
		t.Fatal(err)
	}
	wait := func(n int, want time.Duration) {
		t.Helper()
		done := make(chan error, 1)
		before := f.bound()
		go func() { done <- guess(n, "2001:db8::3") }()
		clk.WaitTimers(1)
		clk.Advance(want - time.Millisecond)
		select {
		case err := <-done:
			t.Fatalf("answered before %v: %v", want, err)
		default:
		}
		if f.bound() != before {
			t.Errorf("the bind was made before the wait of %v", want)
		}
		clk.Advance(time.Millisecond)
		if err := <-done; !errors.Is(err, ErrBadCredentials) {
			t.Fatal(err)
		}
	}
	wait(7, 500*time.Millisecond)
	wait(8, time.Second)
	wait(9, 2*time.Second)
	// Others are not concerned.
	expect(t, a, "bob@example.test", "builder", "2001:db8:1::1", nil)
	expect(t, a, "alice@example.test", "wonderland", "192.0.2.1", nil)
	// Nor are remembered credentials from the guesser's own address.
	expect(t, a, "alice@example.test", "wonderland", "2001:db8::1", nil)
	// Time heals: one failure a minute is forgotten.
	clk.Advance(20 * time.Minute)
	for i := range 5 {
		if err := guess(i, "2001:db8::1"); !errors.Is(err, ErrBadCredentials) {
			t.Fatalf("free failure %d after a pause: %v", i, err)
		}
	}
}

func TestThrottledAttemptsAreSpacedAndBounded(t *testing.T) {
	f := newFake()
	a, clk := newAuthn(t, f, func(s *Settings) {
		s.FreeFailures, s.FailureDelay, s.MaxAddressDelay = 0, 4*time.Second, 10*time.Second
	})
	expect(t, a, "u0@example.test", "guess", "192.0.2.1", ErrBadCredentials)
	// From now on one attempt in 4 s (or slower): of ten at once, those that would wait over 10 s are refused.
	results := make(chan error, 10)
	for i := range 10 {
		go func() {
			_, err := login(t.Context(), a, fmt.Sprintf("u%d@example.test", i+1), "guess", "192.0.2.1")
			results <- err
		}()
	}
	for range 8 {
		if err := <-results; !errors.Is(err, ErrThrottled) || !errors.Is(err, ErrUnavailable) {
			t.Fatalf("got %v", err)
		}
	}
	clk.WaitTimers(2)
	clk.Advance(10 * time.Second)
	for range 2 {
		if err := <-results; !errors.Is(err, ErrBadCredentials) {
			t.Fatalf("got %v", err)
		}
	}
}

func TestThrottlePerUser(t *testing.T) {
	f := newFake()
	a, clk := newAuthn(t, f, nil)
	expect(t, a, "alice@example.test", "wonderland", "198.51.100.1", nil) // alice's own place
	clk.Advance(6 * time.Minute)                                          // forgotten as credentials, not as her place
	for i := range 20 {
		remote := fmt.Sprintf("192.0.2.%d", i)
		done := make(chan error, 1)
		go func() {
			_, err := login(t.Context(), a, "alice@example.test", "guess", remote)
			done <- err
		}()
		if i > 5 {
			clk.WaitTimers(1)
			clk.Advance(4 * time.Second)
		}
		if err := <-done; !errors.Is(err, ErrBadCredentials) {
			t.Fatalf("guess %d: %v", i, err)
		}
	}
	// Elsewhere her login now waits, but never longer than the bound, and succeeds.
	done := make(chan error, 1)
	go func() {
		_, err := login(t.Context(), a, "alice@example.test", "wonderland", "203.0.113.1")
		done <- err
	}()
	clk.WaitTimers(1)
	clk.Advance(4 * time.Second)
	if err := <-done; err != nil {
		t.Errorf("the owner elsewhere: %v", err)
	}
}

func TestOwnPlaceDoesNotWait(t *testing.T) {
	f := newFake()
	a, clk := newAuthn(t, f, func(s *Settings) { s.AttemptsPerUser = 3 })
	expect(t, a, "alice@example.test", "wonderland", "198.51.100.1", nil)
	clk.Advance(6 * time.Minute)
	for i := range 6 {
		expect(t, a, "alice@example.test", "guess", fmt.Sprintf("192.0.2.%d", i), ErrBadCredentials)
	}
	// Three guesses wait now, which is all that may; a fourth is refused.
	results := make(chan error, 3)
	for i := range 3 {
		go func() {
			_, err := login(t.Context(), a, "alice@example.test", fmt.Sprint(i), fmt.Sprintf("192.0.2.%d", 10+i))
			results <- err
		}()
	}
	clk.WaitTimers(3)
	expect(t, a, "alice@example.test", "guess", "192.0.2.99", ErrThrottled)
	// The owner at home is not held up by any of that.
	expect(t, a, "alice@example.test", "wonderland", "198.51.100.1", nil)
	clk.Advance(time.Minute)
	for range 3 {
		if err := <-results; !errors.Is(err, ErrBadCredentials) {
			t.Error(err)
		}
	}
}

func TestTrustedHostsAreNotCounted(t *testing.T) {
	f := newFake()
	a, _ := newAuthn(t, f, func(s *Settings) { s.Trusted = []string{"10.0.0.0/8"} })
	for i := range 50 {
		expect(t, a, fmt.Sprintf("u%d@example.test", i), "guess", "10.1.2.3", ErrBadCredentials)
	}
	expect(t, a, "bob@example.test", "builder", "10.1.2.3", nil)
}

func TestTablesAreBounded(t *testing.T) {
	f := newFake()
	a, _ := newAuthn(t, f, func(s *Settings) { s.Remembered, s.CacheEntries = 100, 10 })
	for i := range 500 {
		expect(t, a, fmt.Sprintf("u%d@example.test", i), "guess", fmt.Sprintf("2001:db8:0:%x::1", i), ErrBadCredentials)
	}
	for i := range 50 {
		acc := f.add(fmt.Sprintf("real%d", i), "password")
		expect(t, a, acc.Address, "password", "192.0.2.1", nil)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	sizes := []int{a.users.counters.len(), a.addresses.counters.len(), a.verified.len(), len(a.flights), len(a.turns), len(a.users.attempts), len(a.addresses.attempts)}
	if !slices.Equal(sizes, []int{100, 100, 10, 0, 0, 0, 0}) {
		t.Errorf("sizes %v", sizes)
	}
}

func TestAddressKey(t *testing.T) {
	for remote, want := range map[string]string{
		"192.0.2.1":             "192.0.2.1",
		"192.0.2.1:25":          "192.0.2.1",
		"::ffff:192.0.2.1":      "192.0.2.1",
		"2001:db8::1":           "2001:db8::/64",
		"[2001:db8::2%eth0]:25": "2001:db8::/64",
		"Pipe":                  "pipe",
	} {
		if got, counted := addressKey(remote, nil); got != want || !counted {
			t.Errorf("%s: %q", remote, got)
		}
	}
}

func TestNewRefuses(t *testing.T) {
	if _, err := New(Options{}); err == nil {
		t.Error("no directory: accepted")
	}
	for name, change := range map[string]func(*Settings){
		"domain":  func(s *Settings) { s.DefaultDomain = "not a domain" },
		"network": func(s *Settings) { s.Trusted = []string{"10.0.0.0/99"} },
	} {
		s := DefaultSettings()
		change(&s)
		if _, err := New(Options{Directory: newFake(), Settings: &s}); err == nil {
			t.Errorf("bad %s: accepted", name)
		}
	}
}
