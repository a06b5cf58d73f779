package ldapsession

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-ldap/ldap/v3"
	"github.com/prometheus/client_golang/prometheus"

	"shoal/daemons/internal/clock"
	"shoal/daemons/internal/dirschema"
	"shoal/daemons/internal/dirstore"
	"shoal/daemons/internal/ldapwire"
)

// cheap makes tests quick; what it costs in earnest is measured elsewhere.
var cheap = PasswordParameters{Memory: 64, Passes: 1, Threads: 1}

type fixture struct {
	server  *Server
	store   *dirstore.Store
	address string
	metrics *prometheus.Registry
}

func start(t testing.TB, change ...func(*Options, *Listening)) *fixture {
	t.Helper()
	schema, err := dirschema.Default()
	if err != nil {
		t.Fatal(err)
	}
	log := slog.New(slog.DiscardHandler)
	store, err := dirstore.Open(dirstore.Options{Path: t.TempDir(), Suffix: "o=shoal", Schema: schema, Clock: clock.System(), Log: log, Unsynced: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { store.Close() })
	fill(t, store)
	f := &fixture{store: store, metrics: prometheus.NewRegistry()}
	opt := Options{Store: store, Passwords: NewPasswords(cheap, 2, 100), RootDN: "cn=admin,o=shoal", RootPassword: "secret",
		Rights: func(_ *dirstore.Reader, e *dirstore.Found, norm []byte) Rights {
			switch {
			case e == nil:
				return Rights{ReadSelf: true, ReadAll: true, Write: true, NoLimits: true, Proxy: true}
			case bytes.HasPrefix(norm, []byte("cn=")):
				return Rights{ReadSelf: true, ReadAll: true}
			}
			return Rights{ReadSelf: true}
		},
		Limits: DefaultLimits, Clock: clock.System(), Log: log, Metrics: f.metrics}
	how := Listening{Name: "ldap", AllowPlain: true}
	for _, c := range change {
		c(&opt, &how)
	}
	if f.server, err = New(opt); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	f.address = l.Addr().String()
	served := make(chan error, 1)
	go func() { served <- f.server.Serve(l, how) }()
	t.Cleanup(func() {
		if err := f.server.Close(); err != nil {
			t.Error(err)
		}
		if err := <-served; !errors.Is(err, ErrServerClosed) {
			t.Errorf("serve: %v", err)
		}
	})
	return f
}

func fill(t testing.TB, s *dirstore.Store) {
	t.Helper()
	add := func(dn string, pairs ...string) {
		var list []ldapwire.Attribute
		for i := 0; i < len(pairs); i += 2 {
			j := slices.IndexFunc(list, func(a ldapwire.Attribute) bool { return string(a.Type) == pairs[i] })
			if j < 0 {
				j = len(list)
				list = append(list, ldapwire.Attribute{Type: []byte(pairs[i])})
			}
			list[j].Values = append(list[j].Values, []byte(pairs[i+1]))
		}
		if err := s.Do("cn=admin,o=shoal", &dirstore.Add{DN: []byte(dn), Attributes: list}); err != nil {
			t.Fatalf("add %s: %v", dn, err)
		}
	}
	add("o=shoal", "objectClass", "organization")
	add("ou=people,o=shoal", "objectClass", "organizationalUnit")
	add("cn=box1,o=shoal", "objectClass", "shoalServer", "shoalRole", "box", "userPassword", HashPassword(cheap, []byte("boxpass")))
	for _, u := range []string{"alice", "bob"} {
		add("uid="+u+",ou=people,o=shoal", "objectClass", "inetOrgPerson", "cn", u, "sn", u, "mail", u+"@a.test",
			"userPassword", HashPassword(cheap, []byte(u+"pass")))
	}
}

func (f *fixture) dial(t testing.TB) *ldap.Conn {
	t.Helper()
	c, err := ldap.DialURL("ldap://" + f.address)
	if err != nil {
		t.Fatal(err)
	}
	c.SetTimeout(20 * time.Second)
	t.Cleanup(func() { c.Close() })
	return c
}

func (f *fixture) bound(t testing.TB, dn, password string) *ldap.Conn {
	t.Helper()
	c := f.dial(t)
	if err := c.Bind(dn, password); err != nil {
		t.Fatalf("bind %s: %v", dn, err)
	}
	return c
}

func (f *fixture) root(t testing.TB) *ldap.Conn { return f.bound(t, "cn=admin,o=shoal", "secret") }

func codeOf(err error) int {
	var e *ldap.Error
	if errors.As(err, &e) {
		return int(e.ResultCode)
	}
	if err != nil {
		return -1
	}
	return 0
}

func search(c *ldap.Conn, base string, scope int, filter string, attrs ...string) (*ldap.SearchResult, error) {
	return c.Search(ldap.NewSearchRequest(base, scope, ldap.NeverDerefAliases, 0, 0, false, filter, attrs, nil))
}

func names(r *ldap.SearchResult) string {
	var out []string
	for _, e := range r.Entries {
		out = append(out, e.DN)
	}
	return strings.Join(out, " ")
}

func TestBind(t *testing.T) {
	f := start(t)
	alice := "uid=alice,ou=people,o=shoal"
	for _, c := range []struct {
		dn, password string
		want         int
	}{
		{"cn=admin,o=shoal", "secret", 0},
		{"CN=Admin, O=Shoal", "secret", 0},
		{"cn=admin,o=shoal", "wrong", 49},
		{alice, "alicepass", 0},
		{alice, "bobpass", 49},
		{"uid=nobody,ou=people,o=shoal", "alicepass", 49},
		{"ou=people,o=shoal", "alicepass", 49},
		{"uid=nobody,o=elsewhere", "alicepass", 49},
		{"nonsense", "x", 34},
		{"", "x", 49},
		{alice, strings.Repeat("x", 2000), 49},
	} {
		conn := f.dial(t)
		if got := codeOf(conn.Bind(c.dn, c.password)); got != c.want {
			t.Errorf("bind %s %q: %d, want %d", c.dn, c.password, got, c.want)
		}
	}
	c := f.dial(t)
	if err := c.UnauthenticatedBind(""); err != nil {
		t.Errorf("anonymous bind: %v", err)
	}
	if got := codeOf(c.UnauthenticatedBind(alice)); got != 53 {
		t.Errorf("bind without password: %d", got)
	}
	if got := codeOf(c.ExternalBind()); got != 7 {
		t.Errorf("SASL bind: %d", got)
	}
	// A bind that fails takes away what an earlier one gave.
	c = f.root(t)
	if who, err := c.WhoAmI(nil); err != nil || who.AuthzID != "dn:cn=admin,o=shoal" {
		t.Errorf("who am I: %+v %v", who, err)
	}
	if codeOf(c.Bind("cn=admin,o=shoal", "wrong")) != 49 {
		t.Error("wrong password accepted")
	}
	if who, err := c.WhoAmI(nil); err != nil || who.AuthzID != "" {
		t.Errorf("who am I after a failed bind: %+v %v", who, err)
	}
	if _, err := search(c, "o=shoal", 2, "(objectClass=*)"); codeOf(err) != 50 {
		t.Errorf("search after a failed bind: %v", err)
	}
}

func TestBindOfEachScheme(t *testing.T) {
	f := start(t)
	c := f.root(t)
	dn := "uid=alice,ou=people,o=shoal"
	for name, stored := range map[string]string{
		"ARGON2":  HashPassword(cheap, []byte("pa55")),
		"SSHA":    "{SSHA}D7DhthZTClfwAycFKXVJrp67Qqp11MYL", // made by slappasswd
		"SSHA256": ssha256("pa55", "saltsalt"),
		"SSHA512": ssha512("pa55", "saltsalt"),
		// made by openssl passwd -6 and -1
		"SHA512": "{CRYPT}$6$saltstring$DvgDBqyfSzANS9UTMqLOJLDg6aiian7szQzS/36gucLWT2wwm7K4Z/IAoxXKVACFPsn2o6RiNWVBh4WgmfU98.",
		"MD5":    "{crypt}$1$saltstri$XhlROZBfD03ADonrZVxBf0",
	} {
		m := ldap.NewModifyRequest(dn, nil)
		m.Replace("userPassword", []string{stored})
		if err := c.Modify(m); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		u := f.dial(t)
		if err := u.Bind(dn, "pa55"); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if codeOf(u.Bind(dn, "pa56")) != 49 {
			t.Errorf("%s: a wrong password is right", name)
		}
	}
}

func TestPasswordIsHashedOnWriteAndNeverShown(t *testing.T) {
	f := start(t)
	c := f.root(t)
	dn := "uid=carol,ou=people,o=shoal"
	a := ldap.NewAddRequest(dn, nil)
	a.Attribute("objectClass", []string{"inetOrgPerson"})
	a.Attribute("cn", []string{"c"})
	a.Attribute("sn", []string{"c"})
	a.Attribute("userPassword", []string{"first"})
	if err := c.Add(a); err != nil {
		t.Fatal(err)
	}
	if err := f.dial(t).Bind(dn, "first"); err != nil {
		t.Error(err)
	}
	m := ldap.NewModifyRequest(dn, nil)
	m.Replace("userPassword", []string{"{NOSCHEME}second"})
	if err := c.Modify(m); err != nil {
		t.Fatal(err)
	}
	if err := f.dial(t).Bind(dn, "{NOSCHEME}second"); err != nil {
		t.Error(err)
	}
	r, err := f.store.Read()
	if err != nil {
		t.Fatal(err)
	}
	id, err := r.Resolve([]byte("uid=carol,ou=people,o=shoal"))
	if err != nil {
		t.Fatal(err)
	}
	e, _, _ := r.Get(id)
	if v := r.Value(&e, "userPassword"); !strings.HasPrefix(v, "{ARGON2}$argon2id$") {
		t.Errorf("stored %q", v)
	}
	r.Close()
	for _, attrs := range [][]string{nil, {"*", "+"}, {"userPassword"}, {"@inetOrgPerson"}, {"userPassword;x-a"}} {
		res, err := search(c, dn, 0, "(objectClass=*)", attrs...)
		if err != nil || len(res.Entries) != 1 || res.Entries[0].GetAttributeValue("userPassword") != "" {
			t.Errorf("%v: %v %v", attrs, res, err)
		}
	}
	if res, err := search(c, "o=shoal", 2, "(userPassword=*)"); err != nil || len(res.Entries) != 0 {
		t.Errorf("filter on passwords: %v %v", res, err)
	}
	if _, err := c.Compare(dn, "userPassword", "x"); codeOf(err) != 50 {
		t.Errorf("compare of passwords: %v", err)
	}
	m = ldap.NewModifyRequest(dn, nil)
	m.Replace("userPassword", []string{strings.Repeat("x", 2000)})
	if err := c.Modify(m); codeOf(err) != 19 {
		t.Errorf("password of 2000 octets: %v", err)
	}
}

func TestAccess(t *testing.T) {
	f := start(t)
	alice := "uid=alice,ou=people,o=shoal"
	anon, box, user := f.dial(t), f.bound(t, "cn=box1,o=shoal", "boxpass"), f.bound(t, alice, "alicepass")
	for _, c := range []struct {
		who  string
		conn *ldap.Conn
		base string
		want string // names found, or the code
	}{
		{"anonymous", anon, "", ""},
		{"anonymous", anon, "cn=Subschema", "cn=subschema"},
		{"anonymous", anon, "o=shoal", "50"},
		{"anonymous", anon, alice, "50"},
		{"server", box, "ou=people,o=shoal", "ou=people,o=shoal uid=alice,ou=people,o=shoal uid=bob,ou=people,o=shoal"},
		{"account", user, "o=shoal", alice},
		{"account", user, alice, alice},
		{"account", user, "uid=bob,ou=people,o=shoal", "32"},
		{"account", user, "uid=nobody,ou=people,o=shoal", "32"},
	} {
		scope := 2
		if c.base == "" {
			scope = 0
		}
		r, err := search(c.conn, c.base, scope, "(objectClass=*)", "1.1")
		got := ""
		if err != nil {
			got = fmt.Sprint(codeOf(err))
		} else {
			got = names(r)
		}
		if got != c.want {
			t.Errorf("%s searches %q: %s, want %s", c.who, c.base, got, c.want)
		}
	}
	if r, err := search(user, "o=shoal", 2, "(uid=bob)"); err != nil || len(r.Entries) != 0 {
		t.Errorf("an account finds another: %v %v", r, err)
	}
	for who, conn := range map[string]*ldap.Conn{"anonymous": anon, "server": box, "account": user} {
		m := ldap.NewModifyRequest(alice, nil)
		m.Replace("title", []string{"x"})
		if err := conn.Modify(m); codeOf(err) != 50 {
			t.Errorf("%s modifies: %v", who, err)
		}
		if err := conn.Del(ldap.NewDelRequest(alice, nil)); codeOf(err) != 50 {
			t.Errorf("%s deletes: %v", who, err)
		}
		_, err := conn.Compare("uid=bob,ou=people,o=shoal", "mail", "bob@a.test")
		if want := map[string]int{"server": 0}[who]; who != "server" && codeOf(err) != 50 || who == "server" && codeOf(err) != want {
			t.Errorf("%s compares: %v", who, err)
		}
	}
	if ok, err := user.Compare(alice, "mail", "ALICE@a.test"); !ok || err != nil {
		t.Errorf("account compares itself: %v %v", ok, err)
	}
}

func TestPlainPasswordsNeedPermission(t *testing.T) {
	f := start(t, func(_ *Options, l *Listening) { l.AllowPlain = false })
	c := f.dial(t)
	if got := codeOf(c.Bind("cn=admin,o=shoal", "secret")); got != 13 {
		t.Errorf("bind without TLS: %d", got)
	}
	if got := codeOf(c.StartTLS(&tls.Config{InsecureSkipVerify: true})); got != 2 {
		t.Errorf("StartTLS without a certificate: %d", got)
	}
}

func TestTLS(t *testing.T) {
	server, client := certificate(t)
	f := start(t, func(o *Options, l *Listening) { o.TLS = server; l.AllowPlain = false })
	c := f.dial(t)
	if err := c.StartTLS(client); err != nil {
		t.Fatal(err)
	}
	if err := c.Bind("cn=admin,o=shoal", "secret"); err != nil {
		t.Fatal(err)
	}
	if r, err := search(c, "o=shoal", 2, "(uid=alice)"); err != nil || len(r.Entries) != 1 {
		t.Errorf("search over TLS: %v", err)
	}
	// A request that is sent together with StartTLS, before TLS, ends the connection.
	raw, err := net.Dial("tcp", f.address)
	if err != nil {
		t.Fatal(err)
	}
	defer raw.Close()
	startTLS := "\x30\x1d\x02\x01\x01\x77\x18\x80\x16" + ldapwire.OIDStartTLS
	if _, err := io.WriteString(raw, startTLS+"\x30\x0c\x02\x01\x02\x60\x07\x02\x01\x03\x04\x00\x80\x00"); err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(raw)
	if err != nil || !bytes.Contains(b, []byte(ldapwire.OIDNoticeOfDisconnection)) {
		t.Errorf("octets before TLS: %q %v", b, err)
	}

	f = start(t, func(o *Options, l *Listening) { o.TLS = server; l.TLS = true; l.AllowPlain = false })
	c, err = ldap.DialURL("ldaps://"+f.address, ldap.DialWithTLSConfig(client))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.Bind("cn=admin,o=shoal", "secret"); err != nil {
		t.Fatal(err)
	}
	if codeOf(c.StartTLS(client)) == 0 {
		t.Error("StartTLS over TLS")
	}
}

func TestUpdates(t *testing.T) {
	f := start(t)
	c := f.root(t)
	dn := "uid=alice,ou=people,o=shoal"
	m := ldap.NewModifyRequest(dn, nil)
	m.Add("title", []string{"Dr"})
	m.Delete("mail", []string{"alice@a.test"})
	m.Replace("description", []string{"x"})
	m.Add("employeeNumber", []string{"5"})
	if err := c.Modify(m); err != nil {
		t.Fatal(err)
	}
	if err := c.ModifyDN(ldap.NewModifyDNRequest(dn, "uid=alicia", true, "o=shoal")); err != nil {
		t.Fatal(err)
	}
	r, err := search(c, "o=shoal", 2, "(uid=alicia)", "*", "modifiersName")
	if err != nil || len(r.Entries) != 1 || r.Entries[0].DN != "uid=alicia,o=shoal" || r.Entries[0].GetAttributeValue("title") != "Dr" ||
		r.Entries[0].GetAttributeValue("mail") != "" || r.Entries[0].GetAttributeValue("modifiersName") != "cn=admin,o=shoal" {
		t.Errorf("%v %v", r, err)
	}
	if ok, err := c.Compare("uid=alicia,o=shoal", "uid", "alice"); ok || err != nil {
		t.Errorf("compare: %v %v", ok, err)
	}
	for attr, want := range map[string]int{"oddity": 17, "mail": 16, "seeAlso": 16} {
		if _, err := c.Compare("uid=alicia,o=shoal", attr, "x"); codeOf(err) != want {
			t.Errorf("compare %s: %v", attr, err)
		}
	}
	if _, err := c.Compare("uid=none,o=shoal", "uid", "x"); codeOf(err) != 32 {
		t.Errorf("compare of nothing: %v", err)
	}
	if err := c.Del(ldap.NewDelRequest("uid=alicia,o=shoal", nil)); err != nil {
		t.Fatal(err)
	}
	if err := c.Del(ldap.NewDelRequest("uid=alicia,o=shoal", nil)); codeOf(err) != 32 {
		t.Errorf("second delete: %v", err)
	}

	f = start(t, func(o *Options, _ *Listening) { o.Refer = func() []string { return []string{"ldap://master.test"} } })
	err = f.root(t).Del(ldap.NewDelRequest(dn, nil))
	if codeOf(err) != 10 {
		t.Errorf("update of a shadow: %v", err)
	}
}

// Drain: an operation under way is answered, then the client hears a notice of disconnection.
func TestShutdown(t *testing.T) {
	f := start(t)
	c := newRaw(t, f.address)
	c.bind("cn=admin,o=shoal", "secret")
	idle := newRaw(t, f.address)
	idle.whoAmI(1)
	idle.expect(1, ldapwire.OpExtendedResponse)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := f.server.Shutdown(ctx); err != nil {
			t.Error(err)
		}
	})
	for _, x := range []*raw{c, idle} {
		x.expectNotice(ldapwire.Unavailable)
		x.expectEnd()
	}
	wg.Wait()
	if _, err := net.Dial("tcp", f.address); err == nil {
		t.Error("still accepting")
	}
}
