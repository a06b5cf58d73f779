package vaultd

import (
	"fmt"
	"io"
	"net/http"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"shoal/daemons/internal/pki"
)

const lockPolicy = `dn: ou=policies,ou=config,o=shoal
objectClass: organizationalUnit

dn: cn=default,ou=policies,ou=config,o=shoal
objectClass: applicationProcess
objectClass: pwdPolicy
pwdAttribute: userPassword
pwdLockout: TRUE
pwdMaxFailure: 3
pwdMustChange: TRUE
pwdMaxAge: 1

`

const aliceDN = "uid=alice,associatedDomain=example.test,ou=domains,o=shoal"

// whoami binds as dn and tells what the tool printed.
func (d *daemon) whoami(dn, password string) (string, int) {
	d.t.Helper()
	return d.run(exec.Command("ldapwhoami", "-x", "-e", "ppolicy", "-H", "ldaps://"+d.ldaps, "-D", dn, "-w", password), "")
}

// writes is how many modifications the store has made.
func (d *daemon) writes() int {
	d.t.Helper()
	res, err := http.Get("http://" + d.manage + "/metrics")
	if err != nil {
		d.t.Fatal(err)
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		d.t.Fatal(err)
	}
	m := regexp.MustCompile(`shoal_vault_writes_total\{operation="modify",result="ok"\} (\d+)`).FindSubmatch(text)
	if m == nil {
		return 0
	}
	n, err := strconv.Atoi(string(m[1]))
	if err != nil {
		d.t.Fatal(err)
	}
	return n
}

// As it is installed, no number of failures locks anybody out, and none is written down; users choose passwords of eight
// characters or more.
func TestDefaultPolicy(t *testing.T) {
	d := newDaemon(t, "")
	d.start()
	if out, code := d.tool(people+servers, "ldapadd"); code != 0 {
		t.Fatal(out)
	}
	before := d.writes()
	names := map[string]string{aliceDN: "wonderland", "cn=box1,ou=servers,ou=config,o=shoal": "box1pass1",
		"cn=sw1,ou=servers,ou=config,o=shoal": "sw1pass12", "cn=admin,o=shoal": "rootpass"}
	for dn, password := range names {
		for range 25 {
			if out, code := d.whoami(dn, "wrong"); code != 49 || strings.Contains(out, "locked") {
				t.Fatalf("%s: a wrong password: %d\n%s", dn, code, out)
			}
		}
		if out, code := d.whoami(dn, password); code != 0 || strings.Contains(out, "xpire") {
			t.Errorf("%s after 25 failures: %d\n%s", dn, code, out)
		}
	}
	change := func(fresh string) string {
		out, _ := d.run(exec.Command("ldappasswd", "-x", "-e", "ppolicy", "-H", "ldaps://"+d.ldaps, "-D", aliceDN, "-w", "wonderland", "-a", "wonderland", "-s", fresh), "")
		return out
	}
	if out := change("seven77"); !strings.Contains(out, "Password is too short for policy") {
		t.Errorf("seven characters:\n%s", out)
	}
	if n := d.writes() - before; n != 0 {
		t.Errorf("failures and refused passwords made %d writes", n)
	}
	if out := change("eight888"); out != "" {
		t.Errorf("eight characters:\n%s", out)
	}
	if out, code := d.whoami(aliceDN, "eight888"); code != 0 {
		t.Errorf("the new password: %d\n%s", code, out)
	}
}

// A policy for everybody that locks accounts rules neither servers nor app passwords nor the root DN: whoever could lock a
// box out by guessing at its name would take the service down.
func TestPolicySparesServers(t *testing.T) {
	d := newDaemon(t, "operator_dn = \"cn=admin,o=shoal\"")
	d.issue(pki.RoleBox, "box1")
	d.start()
	if out, code := d.tool(lockPolicy+people+servers+"dn: cn=phone,"+aliceDN+"\nobjectClass: shoalAppPassword\nshoalScope: mail\nuserPassword: app password one\n\n", "ldapadd"); code != 0 {
		t.Fatal(out)
	}
	for dn, password := range map[string]string{"cn=box1,ou=servers,ou=config,o=shoal": "box1pass1", "cn=sw1,ou=servers,ou=config,o=shoal": "sw1pass12",
		"cn=phone," + aliceDN: "app password one", "cn=admin,o=shoal": "rootpass"} {
		for range 10 {
			if out, code := d.whoami(dn, "wrong"); code != 49 || strings.Contains(out, "locked") {
				t.Fatalf("%s: a wrong password: %d\n%s", dn, code, out)
			}
		}
		if out, code := d.whoami(dn, password); code != 0 || strings.Contains(out, "changed") || strings.Contains(out, "xpire") {
			t.Errorf("%s after 10 failures: %d\n%s", dn, code, out)
		}
	}
	// The policy is in force: by simple binds, PLAIN and SCRAM alike.
	for _, args := range [][]string{{"-x", "-D", aliceDN}, {"-Q", "-Y", "PLAIN", "-U", "alice@example.test"}, {"-Q", "-Y", "SCRAM-SHA-256", "-U", "alice@example.test"}} {
		cmd := exec.Command("ldapwhoami", append(args, "-e", "ppolicy", "-H", "ldaps://"+d.ldaps, "-w", "wrong")...)
		if out, code := d.run(cmd, ""); code != 49 {
			t.Errorf("%v: %d\n%s", args, code, out)
		}
	}
	for _, args := range [][]string{{"-x", "-D", aliceDN}, {"-Q", "-Y", "PLAIN", "-U", "alice@example.test"}, {"-Q", "-Y", "SCRAM-SHA-256", "-U", "alice@example.test"}} {
		cmd := exec.Command("ldapwhoami", append(args, "-e", "ppolicy", "-H", "ldaps://"+d.ldaps, "-w", "wonderland")...)
		if out, code := d.run(cmd, ""); code != 49 {
			t.Errorf("%v, locked: %d\n%s", args, code, out)
		}
	}
	if out, _ := d.whoami(aliceDN, "wonderland"); !strings.Contains(out, "Account locked") {
		t.Errorf("not locked:\n%s", out)
	}
}

// A shadow counts failures and locks by itself, tells its master in few writes, and takes what others saw.
func TestPolicyOnAShadow(t *testing.T) {
	master := newDaemon(t, "")
	shadow := newDaemon(t, fmt.Sprintf(`
shadow {
  provider      = ["ldap://%s"]
  bind_dn       = "cn=vault2,ou=servers,ou=config,o=shoal"
  password_file = "vault2.secret"
  ca_file       = %q
  retry         = "100ms"
}
`, master.ldap, filepath.Join(master.dir, "ca.crt")))
	shadow.write("vault2.secret", "vault2pass\n")
	master.start()
	policy := strings.Replace(lockPolicy, "pwdMustChange: TRUE\npwdMaxAge: 1\n", "", 1)
	if out, code := master.tool(policy+vault2+people, "ldapadd"); code != 0 {
		t.Fatal(out)
	}
	shadow.start()
	state := func(d *daemon) string {
		out, _ := d.tool("", "ldapsearch", "-LLL", "-b", aliceDN, "-s", "base", "pwdFailureTime", "pwdAccountLockedTime", "pwdChangedTime")
		return out
	}
	until(t, "the account", func() bool { return strings.Contains(state(shadow), "pwdChangedTime") })
	before := master.writes()
	// Failures that do not lock, and a good login.
	for range 2 {
		if out, code := shadow.whoami(aliceDN, "wrong"); code != 49 {
			t.Fatalf("a wrong password: %d\n%s", code, out)
		}
	}
	until(t, "the failures at the master", func() bool { return strings.Count(state(master), "pwdFailureTime") == 2 })
	if out, code := shadow.whoami(aliceDN, "wonderland"); code != 0 {
		t.Fatalf("the password: %d\n%s", code, out)
	}
	until(t, "the failures forgotten", func() bool {
		return !strings.Contains(state(master), "pwdFailureTime") && !strings.Contains(state(shadow), "pwdFailureTime")
	})
	// Failures that lock, at once here, and then everywhere.
	for range 3 {
		shadow.whoami(aliceDN, "wrong")
	}
	if out, code := shadow.whoami(aliceDN, "wonderland"); code != 49 || !strings.Contains(out, "Account locked") {
		t.Errorf("not locked at the shadow: %d\n%s", code, out)
	}
	until(t, "the lock at the master", func() bool { return strings.Contains(state(master), "pwdAccountLockedTime") })
	if out, code := master.whoami(aliceDN, "wonderland"); code != 49 || !strings.Contains(out, "Account locked") {
		t.Errorf("not locked at the master: %d\n%s", code, out)
	}
	until(t, "the failures at the master", func() bool { return strings.Count(state(master), "pwdFailureTime") == 3 })
	for range 20 {
		shadow.whoami(aliceDN, "wrong") // costs nothing
	}
	if n := master.writes() - before; n < 3 || n > 8 {
		t.Errorf("26 failures and a good login made %d writes at the master, want at most 8", n)
	}
	// The administrator unlocks at the master, by a new password.
	if out, code := master.tool("", "ldappasswd", "-s", "another password", aliceDN); code != 0 {
		t.Fatal(out)
	}
	until(t, "the shadow to let in", func() bool { _, code := shadow.whoami(aliceDN, "another password"); return code == 0 })
	quiet := master.writes()
	for range 20 {
		if out, code := shadow.whoami(aliceDN, "another password"); code != 0 {
			t.Fatalf("%d\n%s", code, out)
		}
	}
	if n := master.writes() - quiet; n > 1 {
		t.Errorf("20 good logins made %d writes at the master", n)
	}
}
