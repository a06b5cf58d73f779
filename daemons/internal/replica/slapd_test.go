package replica_test

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/go-ldap/ldap/v3"

	"shoal/daemons/internal/dirstore"
	"shoal/daemons/internal/pki"
	"shoal/tests/ports"
)

// slapd is OpenLDAP's server on loopback, with our schema.
type slapd struct {
	t       testing.TB
	dir     string
	auth    *authority
	address string
	cmd     *exec.Cmd
	log     *os.File
}

const slapdRoot = "cn=manager,o=shoal"

// newSlapd prepares one; extra is what its database section gets.
func newSlapd(t testing.TB, auth *authority, extra string) *slapd {
	t.Helper()
	program := "/usr/sbin/slapd"
	if _, err := os.Stat(program); err != nil {
		t.Fatalf("OpenLDAP's slapd is needed: scripts/install-deps slapd: %v", err)
	}
	s := &slapd{t: t, dir: t.TempDir(), auth: auth, address: ports.One(t)}
	pair, err := auth.ca.Issue(pki.Request{Role: pki.RoleVault, Name: "slapd", Hosts: []string{"127.0.0.1", "localhost"}})
	check(t, err)
	for name, text := range map[string][]byte{"ca.crt": auth.ca.CertPEM(), "slapd.crt": pair.Cert, "slapd.key": pair.Key} {
		check(t, os.WriteFile(filepath.Join(s.dir, name), text, 0o600))
	}
	check(t, os.Mkdir(filepath.Join(s.dir, "db"), 0o700))
	schema, err := filepath.Abs("../dirschema/schema")
	check(t, err)
	conf := fmt.Sprintf(`
include /etc/ldap/schema/core.schema
include /etc/ldap/schema/cosine.schema
include /etc/ldap/schema/inetorgperson.schema
include /etc/ldap/schema/misc.schema
include %[2]s/shoal.schema
modulepath /usr/lib/ldap
moduleload back_mdb
moduleload syncprov
pidfile %[1]s/slapd.pid
argsfile %[1]s/slapd.args
TLSCACertificateFile %[1]s/ca.crt
TLSCertificateFile %[1]s/slapd.crt
TLSCertificateKeyFile %[1]s/slapd.key
sizelimit unlimited
database mdb
maxsize 1073741824
suffix "o=shoal"
rootdn "%[3]s"
rootpw secret
directory %[1]s/db
index objectClass,entryUUID,entryCSN eq
%[4]s
`, s.dir, schema, slapdRoot, extra)
	check(t, os.WriteFile(filepath.Join(s.dir, "slapd.conf"), []byte(conf), 0o600))
	s.log, err = os.Create(filepath.Join(s.dir, "log"))
	check(t, err)
	t.Cleanup(func() {
		s.stop()
		if t.Failed() {
			text, _ := os.ReadFile(s.log.Name())
			t.Logf("slapd:\n%s", text[max(0, len(text)-6000):])
		}
		s.log.Close()
	})
	return s
}

func (s *slapd) start() {
	s.t.Helper()
	s.cmd = exec.Command("/usr/sbin/slapd", "-h", "ldap://"+s.address, "-f", filepath.Join(s.dir, "slapd.conf"), "-d", "sync")
	s.cmd.Stdout, s.cmd.Stderr = s.log, s.log
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	check(s.t, s.cmd.Start())
	s.wait("an answer", func() bool {
		c, err := net.Dial("tcp", s.address)
		if err == nil {
			c.Close()
		}
		return err == nil
	})
}

func (s *slapd) stop() {
	if s.cmd == nil {
		return
	}
	_ = s.cmd.Process.Signal(syscall.SIGTERM) // it may have ended
	_ = s.cmd.Wait()
	s.cmd = nil
}

// wait waits for something that nothing announces.
func (s *slapd) wait(what string, f func() bool) {
	s.t.Helper()
	tick := time.NewTicker(30 * time.Millisecond)
	defer tick.Stop()
	limit := time.After(30 * time.Second)
	for !f() {
		select {
		case <-tick.C:
		case <-limit:
			s.t.Fatalf("slapd: not within 30 s: %s", what)
		}
	}
}

func (s *slapd) bound() *ldap.Conn {
	s.t.Helper()
	c, err := ldap.DialURL("ldap://" + s.address)
	check(s.t, err)
	c.SetTimeout(20 * time.Second)
	s.t.Cleanup(func() { c.Close() })
	check(s.t, c.Bind(slapdRoot, "secret"))
	return c
}

// compared are the attributes that must be equal on both sides.
var compared = []string{"*", "entryUUID", "entryCSN", "createTimestamp", "modifyTimestamp", "creatorsName", "modifiersName", "structuralObjectClass"}

// content gives every entry that a server has, by name.
func content(t testing.TB, c *ldap.Conn) map[string]string {
	t.Helper()
	res, err := c.Search(ldap.NewSearchRequest("o=shoal", ldap.ScopeWholeSubtree, ldap.NeverDerefAliases, 0, 0, false, "(objectClass=*)", compared, nil))
	if ldap.IsErrorWithCode(err, ldap.LDAPResultNoSuchObject) {
		return nil
	}
	check(t, err)
	all := map[string]string{}
	for _, e := range res.Entries {
		var lines []string
		for _, a := range e.Attributes {
			values := slices.Clone(a.Values)
			slices.Sort(values)
			lines = append(lines, strings.ToLower(a.Name)+": "+fmt.Sprintf("%.100q", values))
		}
		slices.Sort(lines)
		all[strings.ToLower(e.DN)] = strings.Join(lines, "\n")
	}
	return all
}

func (m *master) bound(t testing.TB) *ldap.Conn {
	t.Helper()
	c, err := ldap.DialURL("ldap://" + m.address)
	check(t, err)
	c.SetTimeout(20 * time.Second)
	t.Cleanup(func() { c.Close() })
	tls := m.auth.client.Clone()
	tls.ServerName = "127.0.0.1"
	check(t, c.StartTLS(tls))
	check(t, c.Bind(root, secret))
	return c
}

func equal(t testing.TB, want, got map[string]string) {
	t.Helper()
	for dn, e := range want {
		g := got[dn]
		// Ours shows no passwords to its root DN, OpenLDAP does.
		g = withoutPassword(g)
		if withoutPassword(e) != g {
			t.Errorf("%s is\n%s\ninstead of\n%s", dn, g, e)
		}
	}
	for dn := range got {
		if _, ok := want[dn]; !ok {
			t.Errorf("%s should not be there", dn)
		}
	}
}

func withoutPassword(e string) string {
	var keep []string
	for _, l := range strings.Split(e, "\n") {
		if !strings.HasPrefix(l, "userpassword:") {
			keep = append(keep, l)
		}
	}
	return strings.Join(keep, "\n")
}

func contextOf(c *ldap.Conn) []string {
	res, err := c.Search(ldap.NewSearchRequest("o=shoal", ldap.ScopeBaseObject, ldap.NeverDerefAliases, 0, 0, false, "(objectClass=*)", []string{"contextCSN"}, nil))
	if err != nil || len(res.Entries) == 0 {
		return nil
	}
	list := res.Entries[0].GetAttributeValues("contextCSN")
	slices.Sort(list)
	return list
}

// OpenLDAP follows us: it takes everything, through changes made while it was away and while we were.
func TestOpenLDAPFollows(t *testing.T) {
	t.Run("log", func(t *testing.T) { openLDAPFollows(t, time.Hour) })
	t.Run("log too short", func(t *testing.T) { openLDAPFollows(t, time.Nanosecond) })
}

func openLDAPFollows(t *testing.T, log time.Duration) {
	m := newMaster(t, func(o *dirstore.Options) { o.ChangeLog = log })
	for i := range 40 {
		m.person(fmt.Sprintf("u%02d", i), "ou=people,o=shoal")
	}
	s := newSlapd(t, m.auth, fmt.Sprintf(`
syncrepl rid=001 provider=ldap://%s type=refreshAndPersist retry="1 +" searchbase="o=shoal"
  bindmethod=simple binddn="cn=vault2,o=shoal" credentials=vaultpass starttls=critical tls_reqcert=demand tls_cacert=CA
updateref ldap://%s
`, m.address, m.address))
	conf := filepath.Join(s.dir, "slapd.conf")
	text, err := os.ReadFile(conf)
	check(t, err)
	check(t, os.WriteFile(conf, []byte(strings.ReplaceAll(string(text), "tls_cacert=CA", "tls_cacert="+filepath.Join(s.dir, "ca.crt"))), 0o600))
	s.start()
	same := func(what string) {
		t.Helper()
		c := s.bound()
		s.wait(what, func() bool { return slices.Equal(contextOf(c), m.store.ContextCSN()) })
		equal(t, content(t, m.bound(t)), content(t, c))
	}
	same("the first refresh")
	if c := s.bound(); c.Bind("uid=u01,ou=people,o=shoal", "x") == nil {
		t.Error("a wrong password is taken")
	}

	m.person("live", "ou=people,o=shoal")
	m.set("uid=u01,ou=people,o=shoal", "title", "Dr.")
	m.rename("uid=u02,ou=people,o=shoal", "uid=renamed", "")
	same("changes as they are made")
	m.remove("uid=u03,ou=people,o=shoal")
	same("a deletion as it is made")
	m.add("ou=staff,o=shoal", "objectClass", "organizationalUnit")
	m.rename("ou=people,o=shoal", "ou=folk", "ou=staff,o=shoal")
	same("a subtree that moved")

	s.stop()
	for i := 10; i < 20; i++ {
		m.remove(fmt.Sprintf("uid=u%02d,ou=folk,ou=staff,o=shoal", i))
	}
	m.person("while-away", "ou=folk,ou=staff,o=shoal")
	m.rename("uid=u04,ou=folk,ou=staff,o=shoal", "uid=u04-renamed", "")
	s.start()
	same("what was missed")

	m.stop()
	m.remove("uid=u05,ou=folk,ou=staff,o=shoal")
	m.start()
	same("what was missed while we were away")

	// Another master goes on with this directory: its CSNs are of another server.
	m.store.SetSID(1)
	m.set("uid=u01,ou=folk,ou=staff,o=shoal", "title", "by the second master")
	m.remove("uid=u06,ou=folk,ou=staff,o=shoal")
	same("changes of another master")
	s.stop()
	m.remove("uid=u07,ou=folk,ou=staff,o=shoal")
	m.person("of-the-second", "ou=folk,ou=staff,o=shoal")
	s.start()
	same("what was missed of another master")
	m.remove("uid=u08,ou=folk,ou=staff,o=shoal")
	same("a deletion of another master as it is made")
}

// We follow OpenLDAP.
func TestFollowsOpenLDAP(t *testing.T) {
	auth := newAuthority(t)
	for _, sessionLog := range []string{"", "syncprov-sessionlog 1000"} {
		t.Run(sessionLog, func(t *testing.T) {
			p := newSlapd(t, auth, "overlay syncprov\nsyncprov-checkpoint 1 1\n"+sessionLog)
			p.start()
			c := p.bound()
			add := func(dn string, pairs ...string) {
				t.Helper()
				r := ldap.NewAddRequest(dn, nil)
				for _, a := range attributes(pairs...) {
					var values []string
					for _, v := range a.Values {
						values = append(values, string(v))
					}
					r.Attribute(string(a.Type), values)
				}
				check(t, c.Add(r))
			}
			person := func(uid string) {
				t.Helper()
				add("uid="+uid+",ou=people,o=shoal", "objectClass", "inetOrgPerson", "cn", uid, "sn", uid, "mail", uid+"@a.test", "userPassword", "{SSHA}secret")
			}
			remove := func(dn string) { t.Helper(); check(t, c.Del(ldap.NewDelRequest(dn, nil))) }
			add("o=shoal", "objectClass", "organization")
			add("ou=people,o=shoal", "objectClass", "organizationalUnit")
			for i := range 300 {
				person(fmt.Sprintf("u%03d", i))
			}
			m := &master{t: t, auth: auth, address: p.address} // whom the shadow calls
			s := newShadowOf(t, m, slapdRoot, secret)
			same := func(what string) {
				t.Helper()
				want := contextOf(c)
				until(t, s.store, what, func() bool { return slices.Equal(s.store.ContextCSN(), want) && s.replica.Lag() == 0 })
				equal(t, content(t, c), s.content())
			}
			same("the first refresh")
			person("live")
			check(t, c.ModifyDN(ldap.NewModifyDNRequest("uid=u001,ou=people,o=shoal", "uid=renamed", true, "")))
			remove("uid=u002,ou=people,o=shoal")
			same("changes as they are made")
			add("ou=staff,o=shoal", "objectClass", "organizationalUnit")
			check(t, c.ModifyDN(ldap.NewModifyDNRequest("ou=people,o=shoal", "ou=folk", true, "ou=staff,o=shoal")))
			same("a subtree that moved")
			check(t, c.ModifyDN(ldap.NewModifyDNRequest("ou=folk,ou=staff,o=shoal", "ou=people", true, "o=shoal")))
			same("a subtree that moved back")

			s.stop()
			for i := 100; i < 150; i++ {
				remove(fmt.Sprintf("uid=u%03d,ou=people,o=shoal", i))
			}
			person("while-away")
			check(t, c.ModifyDN(ldap.NewModifyDNRequest("uid=u003,ou=people,o=shoal", "uid=u003-renamed", true, "")))
			s.start()
			same("what was missed")

			c.Close()
			p.stop()
			p.start()
			c = p.bound()
			remove("uid=u200,ou=people,o=shoal")
			person("after")
			same("after the provider was away")
			if s.refreshes("whole") != 0 {
				t.Errorf("%d whole refreshes since the restart", s.refreshes("whole"))
			}
		})
	}
}
