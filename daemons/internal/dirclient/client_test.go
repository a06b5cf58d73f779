package dirclient

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"shoal/daemons/internal/pki"
)

func TestLookups(t *testing.T) {
	w := newWorld(t)
	alice := sampleAccount(t, NewAccount{
		Address: "Alice@Example.TEST", Aliases: []string{"a.smith@example.test", "grün@exämple.test"}, DisplayName: "Alice Smith",
		Password: "wonderland", QuotaStorage: 1 << 30, QuotaMessages: 1000,
	})
	server, err := NewServer{Name: "box1", Role: "box", Addresses: map[string][]string{
		ServiceIMAP: {"10.0.0.1:143", "[2001:db8::1]:143"}, ServiceHint: {"10.0.0.1:7001"},
	}}.Entry("o=shoal")
	must(t, err)
	sw, err := NewServer{Name: "sw1", Role: "switch"}.Entry("o=shoal")
	must(t, err)
	vol, err := NewVolume{Name: "vol01", ID: "0d6f3c6e-6d2c-4c0c-9b0e-2f4f6b1f9a51"}.Entry("o=shoal")
	must(t, err)
	f := w.start(t, "127.0.0.1:0", alice, sampleDomain(t, "example.test"), server, sw, vol)
	c, _ := w.client(t, nil, f)
	ctx := t.Context()

	for _, address := range []string{"alice@example.test", "ALICE@EXAMPLE.TEST", "a.smith@example.test", "GRÜN@Exämple.test"} {
		a, err := c.Account(ctx, address)
		must(t, err)
		if a.Address != "alice@example.test" || a.Domain != "example.test" || a.DisplayName != "Alice Smith" || a.Volume != "vol01" ||
			a.Status != StatusActive || a.QuotaStorage != 1<<30 || a.QuotaMessages != 1000 || a.CredentialVersion != 1e12 || len(a.Addresses) != 3 {
			t.Errorf("%s: %+v", address, a)
		}
		byID, err := c.AccountByID(ctx, a.ID)
		must(t, err)
		if byID.DN != a.DN {
			t.Errorf("by id: %+v", byID)
		}
	}
	if _, err := c.Account(ctx, "bob@example.test"); !errors.Is(err, ErrNoSuchAccount) {
		t.Errorf("unknown account: %v", err)
	}
	if _, err := c.Account(ctx, "*@example.test"); !errors.Is(err, ErrNoSuchAccount) {
		t.Errorf("a filter's wildcard was not escaped: %v", err)
	}
	if _, err := c.Account(ctx, "x)(objectClass=*"); !errors.Is(err, ErrNoSuchAccount) {
		t.Errorf("a filter's parenthesis was not escaped: %v", err)
	}
	d, err := c.Domain(ctx, "EXAMPLE.test")
	must(t, err)
	if d.Name != "example.test" || d.Status != StatusActive || d.DefaultVolume != "vol01" {
		t.Errorf("domain: %+v", d)
	}
	if _, err := c.Domain(ctx, "example.org"); !errors.Is(err, ErrNoSuchDomain) {
		t.Errorf("unknown domain: %v", err)
	}
	boxes, err := c.Servers(ctx, "box")
	must(t, err)
	if len(boxes) != 1 || boxes[0].Name != "box1" || len(boxes[0].Addresses[ServiceIMAP]) != 2 || boxes[0].Addresses[ServiceHint][0] != "10.0.0.1:7001" {
		t.Errorf("boxes: %+v", boxes)
	}
	all, err := c.Servers(ctx, "")
	must(t, err)
	if len(all) != 2 || all[1].Name != "sw1" {
		t.Errorf("all servers: %+v", all)
	}
	vols, err := c.Volumes(ctx)
	must(t, err)
	if len(vols) != 1 || vols[0] != (Volume{DN: vol.DN, Name: "vol01", ID: "0d6f3c6e-6d2c-4c0c-9b0e-2f4f6b1f9a51", State: VolumeActive}) {
		t.Errorf("volumes: %+v", vols)
	}
	for _, r := range f.log("search") {
		if !strings.HasSuffix(r, "("+serviceDN+")") {
			t.Errorf("searched as somebody else: %s", r)
		}
	}
}

func TestMalformedEntries(t *testing.T) {
	w := newWorld(t)
	good := sampleAccount(t, NewAccount{Address: "alice@example.test"})
	with := func(name string, values ...string) Entry {
		e := Entry{DN: good.DN}
		for _, a := range good.Attributes {
			if a.Name != name {
				e.Attributes = append(e.Attributes, a)
			}
		}
		e.set(name, values...)
		return e
	}
	f := w.start(t, "127.0.0.1:0")
	c, _ := w.client(t, nil, f)
	for name, entries := range map[string][]Entry{
		"no id":          {with(attrAccountID)},
		"id with path":   {with(attrAccountID, "../../../etc")},
		"no volume":      {with(attrVolumeName)},
		"no status":      {with(attrAccountStatus)},
		"unknown status": {with(attrAccountStatus, "happy")},
		"bad quota":      {with(attrQuotaStorage, "much")},
		"two accounts":   {good, {DN: "uid=other,o=shoal,ou=domains,o=shoal", Attributes: good.Attributes}},
	} {
		f.set(entries...)
		c.Flush()
		_, err := c.Account(t.Context(), "alice@example.test")
		if !errors.Is(err, ErrMalformed) || errors.Is(err, ErrNoSuchAccount) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// An empty or foreign directory must never make mail bounce.
func TestMissingTreeIsTemporary(t *testing.T) {
	w := newWorld(t)
	f := w.start(t, "127.0.0.1:0")
	f.setScript(func(op, _ string) act {
		if op == "search" {
			return noSuchDN
		}
		return answer
	})
	c, _ := w.client(t, nil, f)
	_, err := c.Account(t.Context(), "alice@example.test")
	if !errors.Is(err, ErrUnavailable) || errors.Is(err, ErrNoSuchAccount) {
		t.Errorf("account: %v", err)
	}
	if _, err := c.Domain(t.Context(), "example.test"); !errors.Is(err, ErrUnavailable) || errors.Is(err, ErrNoSuchDomain) {
		t.Errorf("domain: %v", err)
	}
}

func TestBindIsSeparate(t *testing.T) {
	w := newWorld(t)
	alice := sampleAccount(t, NewAccount{Address: "alice@example.test", Password: "wonderland"})
	f := w.start(t, "127.0.0.1:0", alice)
	c, _ := w.client(t, nil, f)
	ctx := t.Context()
	for range 5 {
		must(t, c.Bind(ctx, alice.DN, "wonderland"))
		if err := c.Bind(ctx, alice.DN, "looking glass"); !errors.Is(err, ErrInvalidCredentials) {
			t.Errorf("wrong password: %v", err)
		}
		c.Flush()
		_, err := c.Account(ctx, "alice@example.test")
		must(t, err)
	}
	if err := c.Bind(ctx, alice.DN, ""); !errors.Is(err, ErrInvalidCredentials) {
		t.Errorf("empty password: %v", err)
	}
	if err := c.Bind(ctx, "", "x"); !errors.Is(err, ErrInvalidCredentials) {
		t.Errorf("empty name: %v", err)
	}
	if err := c.Bind(ctx, "uid=nobody,o=shoal", "x"); !errors.Is(err, ErrInvalidCredentials) {
		t.Errorf("unknown name: %v", err)
	}
	for _, r := range f.log("search") {
		if !strings.HasSuffix(r, "("+serviceDN+")") {
			t.Errorf("a search on a user's connection: %s", r)
		}
	}
	for _, r := range f.log("bind " + alice.DN) {
		if strings.Contains(r, "("+serviceDN+")") {
			t.Errorf("a user's bind on a search connection: %s", r)
		}
	}
}

func TestStartTLS(t *testing.T) {
	w := newWorld(t)
	f := w.start(t, "127.0.0.1:0", sampleAccount(t, NewAccount{Address: "alice@example.test"}))
	f.mu.Lock()
	f.ldap = true
	f.mu.Unlock()
	c, _ := w.client(t, nil, f)
	_, err := c.Account(t.Context(), "alice@example.test")
	must(t, err)
	if n := len(f.log("extended")); n != 1 {
		t.Errorf("%d StartTLS requests", n)
	}
}

func TestServerOfWrongRoleIsRefused(t *testing.T) {
	w := newWorld(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	f := &fake{t: t, l: l, tls: w.box.ServerTLS(pki.RoleBox), conns: map[net.Conn]bool{}}
	f.done.Add(1)
	go f.accept()
	t.Cleanup(f.stop)
	c, _ := w.client(t, nil, f)
	_, err = c.Account(t.Context(), "alice@example.test")
	if !errors.Is(err, ErrUnavailable) || !errors.Is(err, pki.ErrWrongRole) {
		t.Errorf("a box posing as directory: %v", err)
	}
	if len(f.log("bind")) != 0 {
		t.Error("it was sent the service password")
	}
}

// A wrong service password is a wrong setting, never a wrong password of a user.
func TestWrongServicePassword(t *testing.T) {
	w := newWorld(t)
	must(t, pki.WriteFile(w.pw, []byte("stale\n"), 0o600))
	f := w.start(t, "127.0.0.1:0")
	c, _ := w.client(t, nil, f)
	_, err := c.Account(t.Context(), "alice@example.test")
	if !errors.Is(err, ErrUnavailable) || errors.Is(err, ErrInvalidCredentials) || !strings.Contains(err.Error(), w.pw) {
		t.Errorf("got %v", err)
	}
	// The password file is read again: mending it is enough.
	must(t, pki.WriteFile(w.pw, []byte("service secret\n"), 0o600))
	eventually(t, func() error {
		_, err := c.Account(t.Context(), "alice@example.test")
		if errors.Is(err, ErrNoSuchAccount) {
			return nil
		}
		return fmt.Errorf("after mending: %w", err)
	})
}

// eventually calls f until it returns nil. What it waits for is paced by the code under test.
func eventually(t *testing.T, f func() error) {
	t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for {
		err := f()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
		<-tick.C
	}
}

func TestFailover(t *testing.T) {
	w := newWorld(t)
	var entries []Entry
	for i := range 50 {
		entries = append(entries, sampleAccount(t, NewAccount{Address: fmt.Sprintf("u%d@example.test", i)}))
	}
	a, b := w.start(t, "127.0.0.1:0", entries...), w.start(t, "127.0.0.1:0", entries...)
	c, _ := w.client(t, func(o *Options) { o.CacheTTL = -1 }, a, b)
	ask := func(i int) time.Duration {
		t.Helper()
		start := time.Now()
		_, err := c.Account(t.Context(), fmt.Sprintf("u%d@example.test", i%50))
		must(t, err)
		return time.Since(start)
	}
	for i := range 20 {
		ask(i)
	}
	if len(a.log("search")) == 0 || len(b.log("search")) == 0 {
		t.Errorf("not both servers are used: %d and %d searches", len(a.log("search")), len(b.log("search")))
	}
	addr := a.l.Addr().String()
	a.stop()
	var worst time.Duration
	for i := range 50 {
		worst = max(worst, ask(i))
	}
	t.Logf("slowest lookup after one of two servers died: %v", worst)
	if worst > time.Second {
		t.Errorf("failover took %v", worst)
	}
	if up := metric(t, c, "server_up_state", a.uri()); up != 0 {
		t.Errorf("the dead server counts as up")
	}
	// It comes back at the same address and is used again.
	a2 := w.start(t, addr, entries...)
	eventually(t, func() error {
		ask(1)
		if len(a2.log("search")) == 0 {
			return errors.New("the server that is back is not used")
		}
		return nil
	})
	// And the other one dies under many lookups at once: nobody sees an error.
	var all sync.WaitGroup
	for g := range 8 {
		all.Go(func() {
			for i := range 40 {
				if g == 0 && i == 10 {
					b.stop()
				}
				if _, err := c.Account(t.Context(), fmt.Sprintf("u%d@example.test", (g*7+i)%50)); err != nil {
					t.Errorf("lookup while a server dies: %v", err)
				}
			}
		})
	}
	all.Wait()
}

func TestIdleConnectionsThatWereCut(t *testing.T) {
	w := newWorld(t)
	f := w.start(t, "127.0.0.1:0", sampleAccount(t, NewAccount{Address: "alice@example.test"}))
	c, _ := w.client(t, func(o *Options) { o.CacheTTL = -1 }, f)
	for range 20 {
		_, err := c.Account(t.Context(), "alice@example.test")
		must(t, err)
		f.cutIdle()
	}
	if up := metric(t, c, "server_up_state", f.uri()); up != 1 {
		t.Error("a server that closes idle connections was taken for dead")
	}
}

func TestServersInTrouble(t *testing.T) {
	for name, a := range map[string]act{"hang": hang, "cut": cut, "busy": busy, "garbage": garbage, "flood": flood} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			alice := sampleAccount(t, NewAccount{Address: "alice@example.test"})
			bad, good := w.start(t, "127.0.0.1:0", alice), w.start(t, "127.0.0.1:0", alice)
			bad.setScript(func(op, _ string) act {
				if op == "search" {
					return a
				}
				return answer
			})
			c, _ := w.client(t, func(o *Options) { o.CacheTTL = -1 }, bad, good)
			for range 10 {
				_, err := c.Account(t.Context(), "alice@example.test")
				must(t, err)
			}
			good.stop()
			start := time.Now()
			c2, _ := w.client(t, func(o *Options) { o.Timeout = 300 * time.Millisecond }, bad)
			_, err := c2.Account(t.Context(), "alice@example.test")
			if !errors.Is(err, ErrUnavailable) || errors.Is(err, ErrNoSuchAccount) {
				t.Errorf("alone: %v", err)
			}
			if d := time.Since(start); d > 5*time.Second {
				t.Errorf("alone: took %v", d)
			}
		})
	}
}

func TestAllServersDown(t *testing.T) {
	w := newWorld(t)
	f := w.start(t, "127.0.0.1:0")
	f.stop()
	c, _ := w.client(t, nil, f)
	err := c.Ping(t.Context())
	if !errors.Is(err, ErrUnavailable) || !strings.Contains(err.Error(), f.uri()) {
		t.Errorf("the error does not name the server: %v", err)
	}
	start := time.Now()
	for range 100 {
		if _, err := c.Account(t.Context(), "alice@example.test"); !errors.Is(err, ErrUnavailable) {
			t.Fatalf("got %v", err)
		}
	}
	if d := time.Since(start); d > 2*time.Second {
		t.Errorf("100 lookups took %v: they wait for servers that are known to be down", d)
	}
}

func TestBoundedConnections(t *testing.T) {
	w := newWorld(t)
	f := w.start(t, "127.0.0.1:0")
	f.setScript(func(op, what string) act {
		if op == "bind" && what != serviceDN {
			return hang
		}
		return answer
	})
	c, _ := w.client(t, func(o *Options) { o.MaxConnections, o.BindTimeout = 3, 300*time.Millisecond }, f)
	var all sync.WaitGroup
	for range 12 {
		all.Go(func() {
			if err := c.Bind(t.Context(), "uid=x,o=shoal", "y"); !errors.Is(err, ErrUnavailable) {
				t.Errorf("got %v", err)
			}
		})
	}
	// Searches have connections of their own and are not held up.
	if _, err := c.Account(t.Context(), "alice@example.test"); !errors.Is(err, ErrNoSuchAccount) {
		t.Errorf("got %v", err)
	}
	all.Wait()
	if n := len(f.log("bind uid=x")); n > 3 {
		t.Errorf("%d binds were on their way at once", n)
	}
}

func TestCallerGivesUp(t *testing.T) {
	w := newWorld(t)
	f := w.start(t, "127.0.0.1:0")
	f.setScript(func(op, what string) act {
		if op == "bind" && what != serviceDN {
			return hang
		}
		return answer
	})
	c, _ := w.client(t, nil, f)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- c.Bind(ctx, "uid=x,o=shoal", "y") }()
	eventually(t, func() error {
		if len(f.log("bind uid=x")) == 0 {
			return errors.New("the bind never arrived")
		}
		return nil
	})
	cancel()
	if err := <-done; !errors.Is(err, ErrUnavailable) {
		t.Errorf("got %v", err)
	}
	if up := metric(t, c, "server_up_state", f.uri()); up != 1 {
		t.Error("a caller that gave up made the server count as down")
	}
}

func TestNewRefuses(t *testing.T) {
	w := newWorld(t)
	good := Options{URIs: []string{"ldaps://127.0.0.1:1"}, BindDN: serviceDN, PasswordFile: w.pw, TLS: w.box.ClientTLS(pki.RoleVault)}
	for name, change := range map[string]func(*Options){
		"no URI":          func(o *Options) { o.URIs = nil },
		"no TLS":          func(o *Options) { o.TLS = nil },
		"no bind DN":      func(o *Options) { o.BindDN = "" },
		"bad bind DN":     func(o *Options) { o.BindDN = "box1" },
		"bad suffix":      func(o *Options) { o.Suffix = "shoal" },
		"twice":           func(o *Options) { o.URIs = append(o.URIs, o.URIs[0]) },
		"foreign scheme":  func(o *Options) { o.URIs = []string{"http://127.0.0.1"} },
		"path in the URI": func(o *Options) { o.URIs = []string{"ldap://127.0.0.1/o=shoal"} },
		"no host":         func(o *Options) { o.URIs = []string{"ldap://:389"} },
	} {
		o := good
		o.URIs = append([]string(nil), good.URIs...)
		change(&o)
		if c, err := New(o); err == nil {
			t.Errorf("%s: accepted", name)
			_ = c.Close()
		}
	}
}
