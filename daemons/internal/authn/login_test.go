package authn

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"shoal/daemons/internal/clock"
	"shoal/daemons/internal/dirclient"
	"shoal/daemons/internal/token"
)

// addApp gives alice an app password and returns it as it is shown.
func (f *fake) addApp(scopes ...string) (*dirclient.AppPassword, string) {
	id, secret, shown := NewAppPassword()
	dn := dirclient.AppPasswordDN(f.accounts["alice@example.test"].DN, id)
	app := &dirclient.AppPassword{DN: dn, ID: id, Name: "phone", Scopes: scopes, Created: time.Unix(1e9, 0)}
	f.apps[dn], f.passwords[dn] = app, secret
	return app, shown
}

func from(service string) From {
	return From{Service: service, Remote: "192.0.2.1", Mechanism: "PLAIN", TLS: true}
}

func TestAppPasswords(t *testing.T) {
	f := newFake()
	a, clk := newAuthn(t, f, func(s *Settings) { s.FreeFailures = 1000 })
	app, shown := f.addApp(ServiceIMAP)
	g, err := a.Password(t.Context(), from(ServiceIMAP), "alice@example.test", shown)
	if err != nil || g.Credential != CredentialAppPassword || g.Name != "phone" {
		t.Fatalf("%+v, %v", g, err)
	}
	if _, err := a.Password(t.Context(), from(ServiceSMTP), "alice@example.test", shown); !errors.Is(err, ErrScope) || !errors.Is(err, ErrBadCredentials) {
		t.Errorf("out of scope: %v", err)
	}
	// It is not the account's password, and one with the right id and the wrong secret is nothing.
	wrong := []byte(shown)
	wrong[len(wrong)-1] ^= 3
	for _, password := range []string{string(wrong), shown[:len(shown)-1]} {
		if _, err := a.Password(t.Context(), from(ServiceIMAP), "alice@example.test", password); !errors.Is(err, ErrBadCredentials) {
			t.Errorf("%q: %v", password, err)
		}
	}
	if _, err := a.Password(t.Context(), from(ServiceIMAP), "bob@example.test", shown); !errors.Is(err, ErrBadCredentials) {
		t.Errorf("another account: %v", err)
	}
	// The account's own password is what it was, also when it looks like an app password.
	expect(t, a, "alice@example.test", "wonderland", "192.0.2.1", nil)
	f.mu.Lock()
	f.passwords[f.accounts["bob@example.test"].DN] = "aaaabbbbccccddddeeeeffff"
	f.mu.Unlock()
	expect(t, a, "bob@example.test", "aaaabbbbccccddddeeeeffff", "192.0.2.1", nil)
	// It ends with its time, and with its entry, although it is remembered.
	f.apps[app.DN].Expires = clk.Now().Add(time.Minute)
	if _, err := a.Password(t.Context(), from(ServiceIMAP), "alice@example.test", shown); err != nil {
		t.Error(err)
	}
	clk.Advance(time.Minute)
	if _, err := a.Password(t.Context(), from(ServiceIMAP), "alice@example.test", shown); !errors.Is(err, ErrBadCredentials) {
		t.Errorf("expired: %v", err)
	}
	delete(f.apps, app.DN)
	delete(f.passwords, app.DN)
	if _, err := a.Password(t.Context(), from(ServiceIMAP), "alice@example.test", shown); !errors.Is(err, ErrBadCredentials) {
		t.Errorf("removed: %v", err)
	}
	if e := a.Logins(1, nil)[0]; e.Result != "bad" || e.Account != "alice@example.test" || e.Service != ServiceIMAP {
		t.Errorf("the audit trail says %+v", e)
	}
}

func FuzzParseAppPassword(f *testing.F) {
	_, _, shown := NewAppPassword()
	for _, s := range []string{shown, "", "aaaa bbbb cccc dddd eeee ffff", "AAAABBBBCCCCDDDDEEEEFFFF", "aaaa-bbbb-cccc-dddd-eeee-fff1"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		id, secret, ok := parseAppPassword(s)
		if !ok {
			return
		}
		again, same, ok := parseAppPassword(secret)
		if !ok || again != id || same != secret || len(secret) != appLength {
			t.Errorf("%q: %q, %q", s, id, secret)
		}
	})
}

func TestSessionTokens(t *testing.T) {
	f := newFake()
	a, clk := newAuthn(t, f, func(s *Settings) { s.FreeFailures = 1000 })
	key, err := token.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	f.keys = map[string][]string{"webmail1": {"2 of-a-newer-version", key.Public(time.Time{})}}
	alice := f.accounts["alice@example.test"]
	sign := func(change func(*token.Session)) string {
		t.Helper()
		s := token.Session{Server: "webmail1", AccountID: alice.ID, Scopes: []string{ServiceIMAP}, CredentialVersion: alice.CredentialVersion,
			Epoch: alice.SessionEpoch, Issued: clk.Now(), Expires: clk.Now().Add(5 * time.Minute)}
		if change != nil {
			change(&s)
		}
		raw, err := key.Sign(s)
		if err != nil {
			t.Fatal(err)
		}
		return raw
	}
	check := func(what, user, raw, service string, want error) {
		t.Helper()
		g, err := a.Bearer(t.Context(), from(service), user, raw)
		if !errors.Is(err, want) || want == nil && (g.Account.ID != alice.ID || g.Credential != CredentialToken || g.Name != "webmail1") {
			t.Errorf("%s: %+v, %v", what, g, err)
		}
	}
	good := sign(nil)
	check("good", "", good, ServiceIMAP, nil)
	check("with the user", "Alice@example.test", good, ServiceIMAP, nil)
	check("with another address of the user", "a.smith@example.test", good, ServiceIMAP, ErrBadCredentials) // the fake lists no addresses
	check("of another user", "bob@example.test", good, ServiceIMAP, ErrBadCredentials)
	check("out of scope", "", good, ServiceSMTP, ErrScope)
	check("of another server", "", sign(func(s *token.Session) { s.Server = "webmail2" }), ServiceIMAP, ErrBadCredentials)
	check("of an account that is gone", "", sign(func(s *token.Session) { s.AccountID = "id-of-nobody" }), ServiceIMAP, ErrBadCredentials)
	check("damaged", "", good[:len(good)-4]+"AAAA", ServiceIMAP, ErrBadCredentials)
	check("nonsense", "", "nonsense", ServiceIMAP, ErrBadCredentials)
	alice.SessionEpoch++
	check("after the end of all sessions", "", good, ServiceIMAP, ErrBadCredentials)
	good = sign(nil)
	check("a new one", "", good, ServiceIMAP, nil)
	alice.CredentialVersion++
	check("after a change of the password", "", good, ServiceIMAP, ErrBadCredentials)
	good = sign(nil)
	alice.Status = dirclient.StatusSuspended
	check("suspended", "", good, ServiceIMAP, ErrSuspended)
	alice.Status = dirclient.StatusActive
	clk.Advance(5*time.Minute + 2*token.Leeway)
	check("expired", "", good, ServiceIMAP, ErrBadCredentials)
	good = sign(nil)
	f.keys = nil
	check("without its key", "", good, ServiceIMAP, ErrBadCredentials)
}

// A session ends when what it logged in with is worth nothing any more, and only then.
func TestWatch(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(f *fake, app *dirclient.AppPassword)
		ends   string // which sessions: p(assword), a(pp password)
	}{
		{"nothing", func(*fake, *dirclient.AppPassword) {}, ""},
		{"last login", func(f *fake, _ *dirclient.AppPassword) {
			f.accounts["alice@example.test"].LastLogin = time.Unix(2e9, 0)
		}, ""},
		{"suspended", func(f *fake, _ *dirclient.AppPassword) {
			f.accounts["alice@example.test"].Status = dirclient.StatusSuspended
		}, "pa"},
		{"closed", func(f *fake, _ *dirclient.AppPassword) {
			f.accounts["alice@example.test"].Status = dirclient.StatusClosed
		}, "pa"},
		{"domain suspended", func(f *fake, _ *dirclient.AppPassword) { f.domains["example.test"].Status = dirclient.StatusSuspended }, "pa"},
		{"deleted", func(f *fake, _ *dirclient.AppPassword) { clear(f.accounts) }, "pa"},
		{"password", func(f *fake, _ *dirclient.AppPassword) { f.accounts["alice@example.test"].CredentialVersion++ }, "p"},
		{"epoch", func(f *fake, _ *dirclient.AppPassword) { f.accounts["alice@example.test"].SessionEpoch++ }, "pa"},
		{"app password removed", func(f *fake, app *dirclient.AppPassword) { delete(f.apps, app.DN) }, "a"},
		{"app password of another scope", func(f *fake, app *dirclient.AppPassword) { f.apps[app.DN].Scopes = []string{ServiceSMTP} }, "a"},
		{"directory away", func(f *fake, _ *dirclient.AppPassword) { f.away = true; clear(f.domains) }, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := newFake()
			a, _ := newAuthn(t, f, nil)
			app, shown := f.addApp(ServiceIMAP)
			ended := make(chan string, 2)
			for letter, password := range map[string]string{"p": "wonderland", "a": shown} {
				g, err := a.Password(t.Context(), from(ServiceIMAP), "alice@example.test", password)
				if err != nil {
					t.Fatal(err)
				}
				stop := a.Watch(g, func(string) { ended <- letter })
				defer stop()
				a.Watch(g, func(string) { t.Error("a session that has ended was ended") })()
			}
			f.mu.Lock()
			c.change(f, app)
			f.mu.Unlock()
			a.recheck(t.Context(), []string{"id-of-alice"})
			got := map[string]bool{}
			for range c.ends {
				got[<-ended] = true
			}
			a.recheck(t.Context(), []string{"id-of-alice"})
			select {
			case letter := <-ended:
				t.Errorf("session %s was ended", letter)
			default:
			}
			for _, letter := range c.ends {
				if !got[string(letter)] {
					t.Errorf("session %c was not ended", letter)
				}
			}
		})
	}
}

// A change that the directory tells of is looked at at once.
func TestChangedEndsSessions(t *testing.T) {
	f := newFake()
	a, _ := newAuthn(t, f, nil)
	g, err := a.Password(t.Context(), from(ServiceIMAP), "alice@example.test", "wonderland")
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan string, 1)
	a.Watch(g, func(reason string) { ended <- reason })
	f.mu.Lock()
	f.accounts["alice@example.test"].CredentialVersion++
	f.mu.Unlock()
	a.Changed(map[string]bool{"cn=abcd,uid=bob,associateddomain=example.test,ou=domains,o=shoal": true})
	a.Changed(map[string]bool{"uid=alice,associateddomain=example.test,ou=domains,o=shoal": true})
	if reason := <-ended; reason != "password changed" {
		t.Errorf("ended: %s", reason)
	}
	if e := a.Logins(1, nil)[0]; e.Result != "revoked" || e.Reason != "password changed" {
		t.Errorf("the audit trail says %+v", e)
	}
}

// Dates are gathered and written once; what is young enough is not written again.
func TestLastLogin(t *testing.T) {
	f := newFake()
	a, clk := newAuthn(t, f, nil)
	_, shown := f.addApp(ServiceIMAP)
	for range 3 {
		expect(t, a, "alice@example.test", "wonderland", "192.0.2.1", nil)
		expect(t, a, "alice@example.test", shown, "192.0.2.1", nil)
	}
	f.accounts["bob@example.test"].LastLogin = clk.Now().Add(-12 * time.Hour)
	expect(t, a, "bob@example.test", "builder", "192.0.2.1", nil)
	for a.writeSome(t.Context()) {
	}
	if len(f.lastLogins) != 2 { // alice and her app password
		t.Errorf("written: %v", f.lastLogins)
	}
	f.accounts["bob@example.test"].LastLogin = clk.Now().Add(-25 * time.Hour)
	expect(t, a, "bob@example.test", "builder", "192.0.2.1", nil)
	for a.writeSome(t.Context()) {
	}
	if len(f.lastLogins) != 3 {
		t.Errorf("written: %v", f.lastLogins)
	}
}

// mesh carries reports between the authenticators of a test, at once.
type mesh struct {
	mu  sync.Mutex
	all []*Authenticator
}

type meshPeer struct {
	m    *mesh
	self *atomic.Pointer[Authenticator]
}

func (p meshPeer) Tell(user, address string, known bool) {
	p.m.mu.Lock()
	defer p.m.mu.Unlock()
	for _, a := range p.m.all {
		if a != p.self.Load() {
			a.Heard(user, address, known)
		}
	}
}

// fleet makes n authenticators on one directory and one clock.
func fleet(t *testing.T, f *fake, n int, told bool) (*mesh, *clock.Fake) {
	t.Helper()
	clk := clock.NewFake(time.Unix(1e9, 0))
	m := &mesh{}
	for range n {
		var self atomic.Pointer[Authenticator]
		o := Options{Directory: f, Suffix: "o=shoal", Clock: clk}
		if told {
			o.Peers = meshPeer{m, &self}
		}
		a, err := New(o)
		if err != nil {
			t.Fatal(err)
		}
		self.Store(a)
		m.all = append(m.all, a)
	}
	return m, clk
}

// guessed is how many guesses at alice from one address are answered by a real check within span, when every server gets as many at once
// as it takes.
func guessed(t *testing.T, n int, told bool, span time.Duration) int {
	f := newFake()
	m, clk := fleet(t, f, n, told)
	ctx, cancel := context.WithCancel(t.Context())
	var all sync.WaitGroup
	var asked atomic.Int64
	for _, a := range m.all {
		for range 4 {
			all.Go(func() {
				for ctx.Err() == nil {
					_, err := a.Password(ctx, From{Service: ServiceIMAP, Remote: "192.0.2.66", Mechanism: "PLAIN"}, "alice@example.test", fmt.Sprint("guess ", asked.Add(1)))
					if errors.Is(err, ErrThrottled) {
						_ = clock.Sleep(ctx, clk, 500*time.Millisecond+rand.N(500*time.Millisecond))
					}
				}
			})
		}
	}
	for elapsed := time.Duration(0); elapsed < span; elapsed += 50 * time.Millisecond {
		clk.WaitTimers(4 * n) // every guesser waits for something
		clk.Advance(50 * time.Millisecond)
	}
	count := f.bound()
	cancel()
	all.Wait()
	return count
}

// Guessing at one user through four servers at once yields little more than through one; without reports it would be four times as much.
func TestGuessingThroughSeveralServers(t *testing.T) {
	const span = 10 * time.Minute
	one, four, alone := guessed(t, 1, true, span), guessed(t, 4, true, span), guessed(t, 4, false, span)
	t.Logf("guesses checked in %v: one server %d, four servers %d, four that do not tell each other %d", span, one, four, alone)
	if four > one+one/2+4 {
		t.Errorf("four servers check %d guesses where one checks %d", four, one)
	}
	if alone < 2*one {
		t.Errorf("four servers that count alone check only %d, one %d: the test shows nothing", alone, one)
	}
}

// While somebody guesses at alice through another server, she logs in here from a place of her own: it waits for a bounded time, and once she
// is in, no server makes her wait.
func TestOwnerIsNotLockedOut(t *testing.T) {
	f := newFake()
	m, clk := fleet(t, f, 2, true)
	for i := range 30 {
		user, address := Keys("id-of-alice", fmt.Sprintf("192.0.2.%d", i))
		m.all[0].Heard(user, address, false)
		m.all[1].Heard(user, address, false)
	}
	done := make(chan error, 1)
	go func() {
		_, err := login(t.Context(), m.all[0], "alice@example.test", "wonderland", "203.0.113.1")
		done <- err
	}()
	clk.WaitTimers(1)
	clk.Advance(4 * time.Second)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	// The other server knows her now: no wait (the clock stands still).
	expect(t, m.all[1], "alice@example.test", "wonderland", "203.0.113.1", nil)
}
