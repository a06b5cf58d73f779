package vaultd

import (
	"fmt"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/go-ldap/ldap/v3"
)

// A shadow without passwords and without one of the domains answers what it has, and refers for what it has not: names, searches
// from further up, logins. It says what it is. When its entry says so, it gets everything.
func TestPartialShadowDaemon(t *testing.T) {
	master := newDaemon(t, "")
	master.start()
	agreement := "shoalShadowSubtree: associatedDomain=example.test,ou=domains,o=shoal\nshoalShadowWithout: userPassword\nshoalShadowWithout: authPassword\n"
	other := "dn: associatedDomain=other.test,ou=domains,o=shoal\nobjectClass: shoalDomain\nobjectClass: domainRelatedObject\n\n" +
		"dn: ou=team,associatedDomain=other.test,ou=domains,o=shoal\nobjectClass: organizationalUnit\n\n"
	if out, code := master.tool(strings.TrimSuffix(vault2, "\n")+agreement+"\n"+people+"\n\n"+other, "ldapadd"); code != 0 {
		t.Fatal(out)
	}
	shadow := newDaemon(t, fmt.Sprintf("shadow {\n  provider = [\"ldap://%s\"]\n  bind_dn = \"cn=vault2,ou=servers,ou=config,o=shoal\"\n"+
		"  password_file = \"vault2.secret\"\n  ca_file = %q\n  referral = [\"ldap://master.example.net\"]\n  retry = \"100ms\"\n}\n", master.ldap, filepath.Join(master.dir, "ca.crt")))
	shadow.write("vault2.secret", "vault2pass\n")
	shadow.start()
	until(t, "ready", func() bool { code, _ := shadow.ready(); return code == http.StatusOK })

	search := func(base string, more ...string) (string, int) {
		return shadow.tool("", "ldapsearch", append([]string{"-LLL", "-o", "ldif-wrap=no", "-b", base}, more...)...)
	}
	if out, code := search("associatedDomain=example.test,ou=domains,o=shoal", "(mail=alice@example.test)", "mail"); code != 0 || !strings.Contains(out, "mail: alice@example.test") || strings.Contains(out, "# ref") {
		t.Errorf("what it has: %d %s", code, out)
	}
	if out, code := search("ou=team,associatedDomain=other.test,ou=domains,o=shoal"); code != 10 || !strings.Contains(out, "ldap://master.example.net/ou=team") {
		t.Errorf("what it has not: %d %s", code, out)
	}
	if out, code := search("o=shoal", "(associatedDomain=*)", "1.1"); code != 0 || !strings.Contains(out, "dn: associatedDomain=example.test") || strings.Contains(out, "dn: associatedDomain=other.test") ||
		!strings.Contains(out, "# refldap://master.example.net/o=shoal??sub") {
		t.Errorf("a search from further up: %d %s", code, out)
	}
	if out, code := search("", "-s", "base", "shoalDirectoryContent"); code != 0 || !strings.Contains(out, "shoalDirectoryContent: {") {
		t.Errorf("the root DSE: %d %s", code, out)
	}
	c, err := shadow.dial()
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.Bind("uid=alice,associatedDomain=example.test,ou=domains,o=shoal", "wonderland"); !ldap.IsErrorWithCode(err, ldap.LDAPResultReferral) {
		t.Errorf("a login without a password here: %v", err)
	}

	if out, code := master.tool("dn: cn=vault2,ou=servers,ou=config,o=shoal\nchangetype: modify\ndelete: shoalShadowSubtree\n-\ndelete: shoalShadowWithout\n", "ldapmodify"); code != 0 {
		t.Fatal(out)
	}
	until(t, "everything, after the agreement has ended", func() bool {
		out, code := search("o=shoal", "(associatedDomain=other.test)", "1.1")
		return code == 0 && strings.Contains(out, "dn: associatedDomain=other.test") && !strings.Contains(out, "# ref")
	})
	if err := c.Bind("uid=alice,associatedDomain=example.test,ou=domains,o=shoal", "wonderland"); err != nil {
		t.Errorf("a login with everything: %v", err)
	}
}

// A vault with a part of the directory votes, and is never the master.
func TestPartialShadowIsNotPromoted(t *testing.T) {
	s := &simulation{t: t, rnd: newRand(1), vaults: make([]*simVault, 0, 3)}
	v := s.open(nil, "vault2", t.TempDir(), false)
	defer v.store.Close()
	csns := v.store.ContextCSN()
	fatal(t, v.store.Do(v.rootDN, contextWith(csns, `{"filter":"(objectClass=person)"}`)))
	if _, err := v.vote(VoteRequest{Epoch: 4, Master: "vault2"}); err == nil || !strings.Contains(err.Error(), "a part of the directory") {
		t.Errorf("a vote for itself: %v", err)
	}
	v.clock.Advance(time.Minute)
	if a, err := v.vote(VoteRequest{Epoch: 4, Master: "vault3"}); err != nil || a.Wait != 0 {
		t.Errorf("a vote for another: %+v %v", a, err)
	}
}
