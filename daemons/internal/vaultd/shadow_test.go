package vaultd

import (
	"fmt"
	"io"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/go-ldap/ldap/v3"
)

// ready asks the management address: the answer's code and text.
func (d *daemon) ready() (int, string) {
	d.t.Helper()
	res, err := http.Get("http://" + d.manage + "/readyz")
	if err != nil {
		d.t.Fatal(err)
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		d.t.Fatal(err)
	}
	return res.StatusCode, string(text)
}

// until asks again and again: what a daemon does is announced to nobody.
func until(t *testing.T, what string, f func() bool) {
	t.Helper()
	tick, limit := time.NewTicker(20*time.Millisecond), time.After(20*time.Second)
	defer tick.Stop()
	for !f() {
		select {
		case <-tick.C:
		case <-limit:
			t.Fatalf("not within 20 s: %s", what)
		}
	}
}

const vault2 = `dn: cn=vault2,ou=servers,ou=config,o=shoal
objectClass: shoalServer
shoalRole: vault
userPassword: vault2pass

`

// A shadow answers nothing before it has everything once; then it answers whatever becomes of its master.
func TestShadowDaemon(t *testing.T) {
	master := newDaemon(t, "")
	shadow := newDaemon(t, fmt.Sprintf(`
shadow {
  provider      = ["ldap://%s"]
  bind_dn       = "cn=vault2,ou=servers,ou=config,o=shoal"
  password_file = "vault2.secret"
  ca_file       = %q
  referral      = ["ldap://master.example.net"]
  retry         = "100ms"
}
`, master.ldap, filepath.Join(master.dir, "ca.crt")))
	shadow.write("vault2.secret", "vault2pass\n")
	shadow.launch()
	until(t, "an answer", func() bool {
		c, err := ldap.DialURL("ldap://" + shadow.ldap)
		if err != nil {
			return false
		}
		defer c.Close()
		err = c.UnauthenticatedBind("")
		if !ldap.IsErrorWithCode(err, ldap.LDAPResultUnavailable) {
			t.Fatalf("a bind before the first refresh: %v", err)
		}
		_, err = c.Search(ldap.NewSearchRequest("o=shoal", ldap.ScopeBaseObject, ldap.NeverDerefAliases, 0, 0, false, "(objectClass=*)", nil, nil))
		if !ldap.IsErrorWithCode(err, ldap.LDAPResultUnavailable) {
			t.Fatalf("a search before the first refresh: %v", err)
		}
		return true
	})
	if code, text := shadow.ready(); code != http.StatusServiceUnavailable || !strings.Contains(text, "not yet copied") {
		t.Errorf("before the first refresh: %d %s", code, text)
	}

	master.start()
	if out, code := master.tool(vault2+people, "ldapadd"); code != 0 {
		t.Fatal(out)
	}
	isReady := func() bool { code, _ := shadow.ready(); return code == http.StatusOK }
	until(t, "ready after the first refresh", isReady)
	knows := func(mail string) func() bool {
		return func() bool {
			out, code := shadow.tool("", "ldapsearch", "-LLL", "-b", "o=shoal", "(mail="+mail+")", "mail")
			return code == 0 && strings.Contains(out, "mail: "+mail)
		}
	}
	until(t, "the accounts", knows("alice@example.test"))
	alice := "uid=alice,associatedDomain=example.test,ou=domains,o=shoal"
	change := func(mail string) string {
		return "dn: " + alice + "\nchangetype: modify\nreplace: mail\nmail: " + mail + "\n"
	}
	if out, code := shadow.tool(change("x@example.test"), "ldapmodify"); code != 10 || !strings.Contains(out, "ldap://master.example.net") {
		t.Errorf("an update at a shadow: %d %s", code, out)
	}
	if out, code := master.tool(change("alicia@example.test"), "ldapmodify"); code != 0 {
		t.Fatal(out)
	}
	until(t, "the change", knows("alicia@example.test"))

	// Without its master it goes on, logins too, and starts again.
	master.kill()
	shadow.kill()
	shadow.start()
	if !isReady() || !knows("alicia@example.test")() {
		t.Error("a shadow with data does not start without its master")
	}
	c, err := shadow.dial()
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.Bind(alice, "wonderland"); err != nil {
		t.Errorf("a login at the shadow: %v", err)
	}
	master.start()
	if out, code := master.tool(change("again@example.test"), "ldapmodify"); code != 0 {
		t.Fatal(out)
	}
	until(t, "what was missed", knows("again@example.test"))
}

func TestShadowConfig(t *testing.T) {
	d := newDaemon(t, `
shadow {
  provider      = ["http://master"]
  password_file = "none"
}
`)
	out, err := d.command("-check", "-config", "vaultd.hcl").CombinedOutput()
	if err == nil || !strings.Contains(string(out), "ldap") {
		t.Errorf("%v: %s", err, out)
	}
}
