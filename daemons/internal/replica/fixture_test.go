package replica_test

import (
	"bytes"
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"shoal/daemons/internal/clock"
	"shoal/daemons/internal/dirschema"
	"shoal/daemons/internal/dirstore"
	"shoal/daemons/internal/ldapsession"
	"shoal/daemons/internal/ldapwire"
	"shoal/daemons/internal/pki"
	"shoal/daemons/internal/replica"
	"shoal/tests/ports"
)

const (
	root   = "cn=admin,o=shoal"
	secret = "secret"
)

var cheap = ldapsession.PasswordParameters{Memory: 64, Passes: 1, Threads: 1}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// logTo sends a daemon's log to the test's.
type logTo struct {
	t    testing.TB
	mu   sync.Mutex
	done bool
	text bytes.Buffer
}

func (l *logTo) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.text.Write(p)
	if !l.done {
		l.t.Log(strings.TrimSpace(string(p)))
	}
	return len(p), nil
}

func logger(t testing.TB, who string) *slog.Logger {
	w := &logTo{t: t}
	t.Cleanup(func() {
		w.mu.Lock()
		w.done = true
		w.mu.Unlock()
	})
	return slog.New(slog.NewTextHandler(w, &slog.HandlerOptions{Level: slog.LevelInfo,
		ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
			if a.Key == slog.TimeKey {
				return slog.Attr{}
			}
			return a
		}})).With("who", who)
}

// authority makes certificates for the servers of a test.
type authority struct {
	server *tls.Config // of a vault at 127.0.0.1
	client *tls.Config
	ca     *pki.CA
}

func newAuthority(t testing.TB) *authority {
	t.Helper()
	ca, err := pki.NewCA(pki.CAOptions{})
	check(t, err)
	pair, err := ca.Issue(pki.Request{Role: pki.RoleVault, Name: "vault1", Hosts: []string{"127.0.0.1", "localhost"}})
	check(t, err)
	cert, err := tls.X509KeyPair(pair.Cert, pair.Key)
	check(t, err)
	return &authority{ca: ca, server: &tls.Config{Certificates: []tls.Certificate{cert}}, client: &tls.Config{RootCAs: poolOf(ca)}}
}

func openStore(t testing.TB, dir string, change ...func(*dirstore.Options)) *dirstore.Store {
	t.Helper()
	schema, err := dirschema.Default()
	check(t, err)
	o := dirstore.Options{Path: dir, Suffix: "o=shoal", Schema: schema, Clock: clock.System(), Log: slog.New(slog.DiscardHandler), Unsynced: true}
	for _, c := range change {
		c(&o)
	}
	s, err := dirstore.Open(o)
	check(t, err)
	return s
}

// master is a directory server on loopback.
type master struct {
	t       testing.TB
	auth    *authority
	store   *dirstore.Store
	address string
	server  *ldapsession.Server
	served  chan error
	options []func(*ldapsession.Options)
}

func newMaster(t testing.TB, change ...func(*dirstore.Options)) *master {
	t.Helper()
	m := &master{t: t, auth: newAuthority(t), store: openStore(t, t.TempDir(), change...), address: ports.One(t)}
	t.Cleanup(func() { m.store.Close() })
	m.add("o=shoal", "objectClass", "organization")
	m.add("ou=people,o=shoal", "objectClass", "organizationalUnit")
	m.add("cn=vault2,o=shoal", "objectClass", "shoalServer", "shoalRole", "vault", "userPassword", ldapsession.HashPassword(cheap, []byte("vaultpass")))
	m.start()
	t.Cleanup(m.stop)
	return m
}

func (m *master) start() {
	m.t.Helper()
	o := ldapsession.Options{Store: m.store, Passwords: ldapsession.NewPasswords(cheap, 2, 100), RootDN: root, RootPassword: secret,
		Rights: func(r *dirstore.Reader, entry *dirstore.Found, norm []byte) ldapsession.Rights {
			rights := ldapsession.Rights{ReadSelf: true, ReadAll: true, Write: string(norm) == root, Secrets: bytes.HasPrefix(norm, []byte("cn=vault"))}
			if rights.Secrets {
				rights.Content, rights.ContentError = m.store.Content(r.Agreement(entry))
			}
			return rights
		},
		TLS: m.auth.server, Limits: ldapsession.DefaultLimits, Clock: clock.System(), Log: logger(m.t, "master")}
	for _, c := range m.options {
		c(&o)
	}
	var err error
	m.server, err = ldapsession.New(o)
	check(m.t, err)
	l, err := net.Listen("tcp", m.address)
	check(m.t, err)
	m.address = l.Addr().String()
	m.served = make(chan error, 1)
	go func(s *ldapsession.Server, done chan error) {
		done <- s.Serve(l, ldapsession.Listening{Name: "ldap"})
	}(m.server, m.served)
}

// stop cuts everything off, as if the server had died.
func (m *master) stop() {
	if m.server == nil {
		return
	}
	if err := m.server.Close(); err != nil {
		m.t.Error(err)
	}
	if err := <-m.served; !errors.Is(err, ldapsession.ErrServerClosed) {
		m.t.Error(err)
	}
	m.server = nil
}

func (m *master) do(op dirstore.Operation) {
	m.t.Helper()
	check(m.t, m.store.Do(root, op))
}

func attributes(pairs ...string) []ldapwire.Attribute {
	var list []ldapwire.Attribute
	for i := 0; i < len(pairs); i += 2 {
		j := slices.IndexFunc(list, func(a ldapwire.Attribute) bool { return string(a.Type) == pairs[i] })
		if j < 0 {
			j = len(list)
			list = append(list, ldapwire.Attribute{Type: []byte(pairs[i])})
		}
		list[j].Values = append(list[j].Values, []byte(pairs[i+1]))
	}
	return list
}

func (m *master) add(dn string, pairs ...string) {
	m.t.Helper()
	m.do(&dirstore.Add{DN: []byte(dn), Attributes: attributes(pairs...)})
}

func (m *master) person(uid, under string) {
	m.t.Helper()
	m.add("uid="+uid+","+under, "objectClass", "inetOrgPerson", "cn", "Name of "+uid, "sn", uid, "mail", uid+"@a.test",
		"userPassword", "{SSHA}secret-of-"+uid)
}

func (m *master) set(dn, name string, values ...string) {
	m.t.Helper()
	c := ldapwire.Change{Op: ldapwire.ChangeReplace, Attribute: ldapwire.Attribute{Type: []byte(name)}}
	for _, v := range values {
		c.Values = append(c.Values, []byte(v))
	}
	m.do(&dirstore.Modify{DN: []byte(dn), Changes: []ldapwire.Change{c}})
}

func (m *master) remove(dn string) { m.t.Helper(); m.do(&dirstore.Delete{DN: []byte(dn)}) }

func (m *master) rename(dn, rdn, superior string) {
	m.t.Helper()
	op := &dirstore.Rename{DN: []byte(dn), NewRDN: []byte(rdn), DeleteOldRDN: true}
	if superior != "" {
		op.HasNewSuperior, op.NewSuperior = true, []byte(superior)
	}
	m.do(op)
}

// shadow is a store that follows a master.
type shadow struct {
	t       testing.TB
	m       *master
	dir     string
	store   *dirstore.Store
	replica *replica.Replica
	metrics *prometheus.Registry
	cancel  context.CancelFunc
	done    chan struct{}
	dn      string // whom it binds as
	pass    string
	scheme  string
	synced  bool // everything is flushed, as in service
}

func newShadow(t testing.TB, m *master) *shadow {
	t.Helper()
	return newShadowOf(t, m, "cn=vault2,o=shoal", "vaultpass")
}

func newShadowOf(t testing.TB, m *master, dn, password string) *shadow {
	t.Helper()
	s := &shadow{t: t, m: m, dir: t.TempDir(), dn: dn, pass: password}
	s.start()
	t.Cleanup(s.stop)
	return s
}

// content is the shadow's content as a client sees it.
func (s *shadow) content() map[string]string {
	s.t.Helper()
	m := &master{t: s.t, auth: s.m.auth, store: s.store, address: ports.One(s.t)}
	m.start()
	defer m.stop()
	return content(s.t, m.bound(s.t))
}

func (s *shadow) start() {
	s.t.Helper()
	s.store = openStore(s.t, s.dir, func(o *dirstore.Options) { o.Unsynced = !s.synced })
	s.metrics = prometheus.NewRegistry()
	var err error
	s.replica, err = replica.New(replica.Options{Store: s.store, Providers: []string{cmp.Or(s.scheme, "ldap://") + s.m.address}, TLS: s.m.auth.client,
		BindDN: s.dn, Password: func() (string, error) { return s.pass, nil },
		Timeout: 10 * time.Second, Probe: 5 * time.Second, Retry: 100 * time.Millisecond,
		Clock: clock.System(), Log: logger(s.t, "shadow"), Metrics: s.metrics})
	check(s.t, err)
	ctx, cancel := context.WithCancel(context.Background())
	s.cancel, s.done = cancel, make(chan struct{})
	go func(r *replica.Replica, done chan struct{}) {
		defer close(done)
		if err := r.Run(ctx); err != nil {
			s.t.Error(err)
		}
	}(s.replica, s.done)
}

func (s *shadow) stop() {
	if s.store == nil {
		return
	}
	s.cancel()
	<-s.done
	check(s.t, s.store.Close())
	s.store = nil
}

// until waits for a condition that depends on a store.
func until(t testing.TB, store *dirstore.Store, what string, f func() bool) {
	t.Helper()
	limit := time.After(20 * time.Second)
	for {
		changed := store.Changed()
		if f() {
			return
		}
		again := time.After(20 * time.Millisecond) // what is waited for may not be in the store
		select {
		case <-changed:
		case <-again:
		case <-limit:
			t.Fatalf("not within 20 s: %s", what)
		}
	}
}

// same waits until the shadow has what the master has, and compares everything.
func (s *shadow) same() {
	s.t.Helper()
	want := s.m.store.ContextCSN()
	until(s.t, s.store, "the master's contextCSN "+want[0], func() bool {
		return slices.Equal(s.store.ContextCSN(), want) && s.replica.Status().State == replica.Following
	})
	a, b := dump(s.t, s.m.store), dump(s.t, s.store)
	for dn, entry := range a {
		if b[dn] != entry {
			s.t.Errorf("%s is\n%s\ninstead of\n%s", dn, b[dn], entry)
		}
	}
	for dn := range b {
		if _, ok := a[dn]; !ok {
			s.t.Errorf("%s should not be there", dn)
		}
	}
	if s.store.Entries() != s.m.store.Entries() {
		s.t.Errorf("%d entries instead of %d", s.store.Entries(), s.m.store.Entries())
	}
}

func (s *shadow) refreshes(kind string) int {
	families, err := s.metrics.Gather()
	check(s.t, err)
	for _, f := range families {
		if f.GetName() != "shoal_replica_refreshes_total" {
			continue
		}
		for _, m := range f.GetMetric() {
			if m.GetLabel()[0].GetValue() == kind {
				return int(m.GetCounter().GetValue())
			}
		}
	}
	return 0
}

// dump gives every entry by its name: stored attributes in a fixed order.
func dump(t testing.TB, s *dirstore.Store) map[string]string {
	t.Helper()
	r, err := s.Read()
	check(t, err)
	defer r.Close()
	suffix, err := s.CheckDN([]byte("o=shoal"))
	check(t, err)
	top, err := r.Resolve(suffix)
	check(t, err)
	all := map[string]string{}
	for w := r.Walk(top); ; {
		f, ok, err := r.NextOf(w)
		check(t, err)
		if !ok {
			return all
		}
		e, err := r.Entry(&f)
		check(t, err)
		var lines []string
		for _, a := range e.Attributes {
			values := slices.Clone(a.Values)
			slices.SortFunc(values, bytes.Compare)
			lines = append(lines, fmt.Sprintf("%s: %.100q (%d)", a.Desc, values, len(bytes.Join(values, nil))))
		}
		slices.Sort(lines)
		all[e.DN] = strings.Join(lines, "\n")
	}
}
