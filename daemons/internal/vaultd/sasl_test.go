package vaultd

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"shoal/daemons/internal/pki"
)

const servers = `dn: cn=box1,ou=servers,ou=config,o=shoal
objectClass: shoalServer
shoalRole: box
userPassword: box1pass1

dn: cn=sw1,ou=servers,ou=config,o=shoal
objectClass: shoalServer
shoalRole: switch
userPassword: sw1pass12

dn: cn=filter1,ou=servers,ou=config,o=shoal
objectClass: shoalServer
shoalRole: filter
userPassword: filter1pass

`

// issue writes the certificate of a role.
func (d *daemon) issue(role, name string) {
	d.t.Helper()
	k, err := d.ca.Issue(pki.Request{Role: role, Name: name, Hosts: []string{"127.0.0.1"}})
	if err != nil {
		d.t.Fatal(err)
	}
	d.write(name+".crt", string(k.Cert))
	d.write(name+".key", string(k.Key))
}

// issueUsers makes a CA of users, and certificates with these addresses, by name.
func (d *daemon) issueUsers(file string, addresses map[string]string) {
	d.t.Helper()
	fail := func(err error) {
		if err != nil {
			d.t.Fatal(err)
		}
	}
	caKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	fail(err)
	root := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "Users of " + file}, NotBefore: time.Now().Add(-time.Hour),
		NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	der, err := x509.CreateCertificate(rand.Reader, root, root, &caKey.PublicKey, caKey)
	fail(err)
	d.write(file, string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})))
	for name, address := range addresses {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		fail(err)
		leaf := &x509.Certificate{SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: name}, NotBefore: time.Now().Add(-time.Hour),
			NotAfter: time.Now().Add(time.Hour), EmailAddresses: []string{address}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}
		der, err := x509.CreateCertificate(rand.Reader, leaf, root, &key.PublicKey, caKey)
		fail(err)
		d.write(name+".crt", string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})))
		raw, err := x509.MarshalPKCS8PrivateKey(key)
		fail(err)
		d.write(name+".key", string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: raw})))
	}
}

// TestSASL: Debian's ldapwhoami binds by EXTERNAL, PLAIN and SCRAM.
func TestSASL(t *testing.T) {
	d := newDaemon(t, `
client_ca_file = "users.crt"
operator_dn    = "cn=admin,o=shoal"
ldapi { path = "ldapi" }
`)
	d.issueUsers("users.crt", map[string]string{"alice": "al@example.test", "stranger": "nobody@example.test"})
	d.issueUsers("others.crt", map[string]string{"forged": "al@example.test"})
	d.issue(pki.RoleBox, "box1")
	d.issue(pki.RoleBox, "box9")
	d.issue(pki.RoleOperator, "olga")
	d.start()
	if out, code := d.tool(people+servers, "ldapadd"); code != 0 {
		t.Fatalf("ldapadd: %d\n%s", code, out)
	}
	alice := "dn:uid=alice,associatedDomain=example.test,ou=domains,o=shoal"
	tls, plain, local := []string{"-H", "ldaps://" + d.ldaps}, []string{"-H", "ldap://" + d.ldap},
		[]string{"-H", "ldapi://" + strings.ReplaceAll(filepath.Join(d.dir, "ldapi"), "/", "%2F")}
	for _, c := range []struct {
		name, cert string
		at         []string
		args       []string
		want       string // who it is; empty: refused
		code       int
	}{
		{"PLAIN by address", "", tls, []string{"-Y", "PLAIN", "-U", "alice@example.test", "-w", "wonderland"}, alice, 0},
		{"PLAIN as oneself", "", tls, []string{"-Y", "PLAIN", "-U", "al@example.test", "-X", "u:alice@example.test", "-w", "wonderland"}, alice, 0},
		{"PLAIN as another", "", tls, []string{"-Y", "PLAIN", "-U", "alice@example.test", "-X", "dn:cn=admin,o=shoal", "-w", "wonderland"}, "", 49},
		{"PLAIN, wrong", "", tls, []string{"-Y", "PLAIN", "-U", "alice@example.test", "-w", "wrong"}, "", 49},
		{"PLAIN, nobody", "", tls, []string{"-Y", "PLAIN", "-U", "none@example.test", "-w", "wrong"}, "", 49},
		{"PLAIN by the name of a server", "", tls, []string{"-Y", "PLAIN", "-U", "box1", "-w", "box1pass1"}, "dn:cn=box1,ou=servers,ou=config,o=shoal", 0},
		{"PLAIN by name of the root DN", "", tls, []string{"-Y", "PLAIN", "-U", "admin", "-w", "rootpass"}, "dn:cn=admin,o=shoal", 0},
		{"PLAIN without TLS", "", plain, []string{"-Y", "PLAIN", "-U", "alice@example.test", "-w", "wonderland"}, "", 250}, // the tool looks at the offer first
		{"SCRAM-SHA-256", "", tls, []string{"-Y", "SCRAM-SHA-256", "-U", "alice@example.test", "-w", "wonderland"}, alice, 0},
		{"SCRAM-SHA-256 without TLS", "", plain, []string{"-Y", "SCRAM-SHA-256", "-U", "alice@example.test", "-w", "wonderland"}, alice, 0},
		{"SCRAM-SHA-1", "", tls, []string{"-Y", "SCRAM-SHA-1", "-U", "alice@example.test", "-w", "wonderland"}, alice, 0},
		{"SCRAM-SHA-256 of the root DN", "", tls, []string{"-Y", "SCRAM-SHA-256", "-U", "admin", "-w", "rootpass"}, "dn:cn=admin,o=shoal", 0},
		{"SCRAM-SHA-256, wrong", "", tls, []string{"-Y", "SCRAM-SHA-256", "-U", "alice@example.test", "-w", "wrong"}, "", 49},
		{"SCRAM-SHA-256, nobody", "", tls, []string{"-Y", "SCRAM-SHA-256", "-U", "none@example.test", "-w", "wrong"}, "", 49},
		{"EXTERNAL, a server", "box1", tls, []string{"-Y", "EXTERNAL"}, "dn:cn=box1,ou=servers,ou=config,o=shoal", 0},
		{"EXTERNAL, a server without an entry", "box9", tls, []string{"-Y", "EXTERNAL"}, "", 49},
		{"EXTERNAL, an operator", "olga", tls, []string{"-Y", "EXTERNAL"}, "dn:cn=admin,o=shoal", 0},
		{"EXTERNAL, a user", "alice", tls, []string{"-Y", "EXTERNAL"}, alice, 0},
		{"EXTERNAL, a user without an account", "stranger", tls, []string{"-Y", "EXTERNAL"}, "", 49},
		{"EXTERNAL, another CA", "forged", tls, []string{"-Y", "EXTERNAL"}, "", 49},
		{"EXTERNAL, no certificate", "", tls, []string{"-Y", "EXTERNAL"}, "", 250},
		{"EXTERNAL on the socket", "", local, []string{"-Y", "EXTERNAL"}, "dn:cn=admin,o=shoal", 0},
		{"EXTERNAL on the socket as another", "", local, []string{"-Y", "EXTERNAL", "-X", "u:box1"}, "", 49},
	} {
		cmd := exec.Command("ldapwhoami", append(append([]string{"-Q"}, c.at...), c.args...)...)
		env := []string{"LDAPTLS_CACERT=" + filepath.Join(d.dir, "ca.crt")}
		if c.cert != "" {
			env = append(env, "LDAPTLS_CERT="+filepath.Join(d.dir, c.cert+".crt"), "LDAPTLS_KEY="+filepath.Join(d.dir, c.cert+".key"))
		}
		cmd.Args = append([]string{"env"}, append(env, cmd.Args...)...)
		cmd.Path = "/usr/bin/env"
		out, code := d.run(cmd, "")
		if strings.TrimSpace(out) != c.want && c.want != "" || code != c.code {
			t.Errorf("%s: exit code %d, want %d and %q:\n%s", c.name, code, c.code, c.want, out)
		}
	}
	// What is offered depends on the connection.
	for _, c := range []struct {
		at          []string
		want, never []string
	}{
		{tls, []string{"SCRAM-SHA-256-PLUS", "SCRAM-SHA-256", "SCRAM-SHA-1", "PLAIN"}, []string{"EXTERNAL"}},
		{plain, []string{"SCRAM-SHA-256"}, []string{"PLAIN", "EXTERNAL", "SCRAM-SHA-256-PLUS"}},
		{local, []string{"EXTERNAL", "PLAIN"}, []string{"SCRAM-SHA-256-PLUS"}},
	} {
		out, code := d.run(exec.Command("ldapsearch", append([]string{"-x", "-LLL", "-b", "", "-s", "base", "supportedSASLMechanisms"}, c.at...)...), "")
		for _, m := range c.want {
			if code != 0 || !strings.Contains(out, "supportedSASLMechanisms: "+m+"\n") {
				t.Errorf("%v: %s is not offered: %d\n%s", c.at, m, code, out)
			}
		}
		for _, m := range c.never {
			if strings.Contains(out, "supportedSASLMechanisms: "+m+"\n") {
				t.Errorf("%v: %s is offered:\n%s", c.at, m, out)
			}
		}
	}
}

// TestVerifiersAreForBoxesAndSwitches: nobody else gets them, by whatever search.
func TestVerifiersAreForBoxesAndSwitches(t *testing.T) {
	d := newDaemon(t, "")
	d.start()
	if out, code := d.tool(people+servers, "ldapadd"); code != 0 {
		t.Fatalf("ldapadd: %d\n%s", code, out)
	}
	alice := "uid=alice,associatedDomain=example.test,ou=domains,o=shoal"
	as := func(dn, password string, args ...string) (string, int) {
		return d.run(exec.Command("ldapsearch", append([]string{"-x", "-LLL", "-o", "ldif-wrap=no", "-H", "ldaps://" + d.ldaps, "-D", dn, "-w", password}, args...)...), "")
	}
	server := func(name string) string { return "cn=" + name + ",ou=servers,ou=config,o=shoal" }
	for _, c := range []struct {
		dn, password string
		gets         bool
		own          bool
	}{
		{server("box1"), "box1pass1", true, false},
		{server("sw1"), "sw1pass12", true, false},
		{server("filter1"), "filter1pass", false, false},
		{"cn=admin,o=shoal", "rootpass", false, false},
		{alice, "wonderland", false, true},
	} {
		for _, attrs := range [][]string{{"authPassword"}, {"*", "+", "authPassword", "userPassword", "pwdHistory"}, {"@shoalAccount"}, {"*"}, {}} {
			named := len(attrs) > 0 && attrs[0] != "*" || len(attrs) > 2
			out, code := as(c.dn, c.password, append([]string{"-b", alice, "-s", "base"}, attrs...)...)
			if code != 0 || !strings.Contains(out, "dn: "+alice) {
				t.Fatalf("%s asks for %v: %d\n%s", c.dn, attrs, code, out)
			}
			if got := strings.Contains(out, "authPassword:"); got != (c.gets && named) {
				t.Errorf("%s asks for %v: verifiers %v\n%s", c.dn, attrs, got, out)
			}
			if strings.Contains(out, "userPassword") || strings.Contains(out, "pwdHistory") {
				t.Errorf("%s asks for %v and gets hashes\n%s", c.dn, attrs, out)
			}
		}
		if out, _ := as(c.dn, c.password, "-b", "o=shoal", "(authPassword=*)", "1.1"); strings.Contains(out, "dn:") {
			t.Errorf("%s: a filter finds verifiers:\n%s", c.dn, out)
		}
	}
	until(t, "the key of the salts", func() bool {
		out, _ := as(server("box1"), "box1pass1", "-b", "cn=scram,ou=config,o=shoal", "-s", "base", "shoalScramKey")
		return strings.Contains(out, "shoalScramKey: 10000:") || strings.Contains(out, "shoalScramKey::")
	})
	if out, _ := as("cn=admin,o=shoal", "rootpass", "-b", "cn=scram,ou=config,o=shoal", "-s", "base", "*", "shoalScramKey"); strings.Contains(out, "shoalScramKey") {
		t.Errorf("the root DN gets the key:\n%s", out)
	}
}

// TestOlderHashes: a password of another server is verified, and stored in today's form with its first good bind; the
// domain is complete when all are.
func TestOlderHashes(t *testing.T) {
	d := newDaemon(t, "")
	d.start()
	hashes := map[string]string{ // each of "wonderland"
		"sha": "{SHA}", "ssha": "{SSHA}", "md5": "{MD5}", "smd5": "{SMD5}", "crypt6": "{CRYPT}",
	}
	ldif := strings.SplitN(people, "\n\n", 2)[0] + "\n\n"
	for name := range hashes {
		var stored string
		switch name {
		case "crypt6":
			out, err := exec.Command("openssl", "passwd", "-6", "-salt", "abcdefgh", "wonderland").Output()
			if err != nil {
				t.Fatal(err)
			}
			stored = "{CRYPT}" + strings.TrimSpace(string(out))
		default:
			out, err := exec.Command("/usr/sbin/slappasswd", "-h", hashes[name], "-s", "wonderland").Output()
			if err != nil {
				t.Fatal(err)
			}
			stored = strings.TrimSpace(string(out))
		}
		ldif += "dn: uid=" + name + ",associatedDomain=example.test,ou=domains,o=shoal\nobjectClass: inetOrgPerson\nobjectClass: inetLocalMailRecipient\n" +
			"objectClass: shoalAccount\ncn: x\nsn: x\nmail: " + name + "@example.test\nmailLocalAddress: " + name + "@example.test\nshoalAccountId: older-" + name + "\nuserPassword: " + stored + "\n\n"
	}
	if out, code := d.tool(ldif+servers, "ldapadd"); code != 0 {
		t.Fatalf("ldapadd: %d\n%s", code, out)
	}
	search := func(filter string, attrs ...string) string {
		out, code := d.run(exec.Command("ldapsearch", append([]string{"-x", "-LLL", "-H", "ldaps://" + d.ldaps, "-D", "cn=box1,ou=servers,ou=config,o=shoal",
			"-w", "box1pass1", "-b", "ou=domains,o=shoal", filter}, attrs...)...), "")
		if code != 0 {
			t.Fatalf("ldapsearch: %d\n%s", code, out)
		}
		return out
	}
	if n := strings.Count(search("(shoalScramMissing=example.test)", "1.1"), "dn:"); n != len(hashes) {
		t.Fatalf("%d accounts are marked, want %d", n, len(hashes))
	}
	left := len(hashes)
	for name := range hashes {
		dn := "uid=" + name + ",associatedDomain=example.test,ou=domains,o=shoal"
		bind := func(password string) int {
			_, code := d.run(exec.Command("ldapwhoami", "-x", "-H", "ldaps://"+d.ldaps, "-D", dn, "-w", password), "")
			return code
		}
		if code := bind("wrong"); code != 49 {
			t.Errorf("%s: a wrong password: %d", name, code)
		}
		if code := bind("wonderland"); code != 0 {
			t.Errorf("%s: the password: %d", name, code)
			continue
		}
		left--
		until(t, name+" to be stored anew", func() bool {
			return strings.Count(search("(shoalScramMissing=*)", "1.1"), "dn:") == left
		})
		if out := search("(uid="+name+")", "authPassword", "shoalCredentialVersion"); strings.Count(out, "authPassword:") != 2 || !strings.Contains(out, "shoalCredentialVersion: 1\n") {
			t.Errorf("%s: not two verifiers, or the credential version moved:\n%s", name, out)
		}
		if code := bind("wonderland"); code != 0 {
			t.Errorf("%s: the password afterwards: %d", name, code)
		}
	}
	// A password given as a hash takes the verifiers of the one before away: they would open the account still.
	if out, code := d.tool("dn: uid=sha,associatedDomain=example.test,ou=domains,o=shoal\nchangetype: modify\nreplace: userPassword\nuserPassword: {SHA}"+
		"ZZZZZZZZZZZZZZZZZZZZZZZZZZY=\n", "ldapmodify"); code != 0 {
		t.Fatalf("ldapmodify: %d\n%s", code, out)
	}
	if out := search("(uid=sha)", "authPassword"); strings.Contains(out, "authPassword") {
		t.Errorf("verifiers of the old password are left:\n%s", out)
	}
}
