package vaultd

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/go-ldap/ldap/v3"

	"shoal/daemons/internal/kit"
	"shoal/daemons/internal/pki"
	"shoal/tests/ports"
)

// The tests run real daemons: this test program starts itself anew, and is then vaultd.
func TestMain(m *testing.M) {
	if os.Getenv("VAULTD_TEST_DAEMON") != "" {
		os.Exit(kit.Main(Spec()))
	}
	os.Exit(m.Run())
}

// daemon is a vaultd in a folder of its own.
type daemon struct {
	t      testing.TB
	dir    string
	cmd    *exec.Cmd
	out    *output
	ldap   string // addresses
	ldaps  string
	manage string
	exited chan error
	ca     *pki.CA
}

// output collects what a daemon writes, and lets a test wait for it.
type output struct {
	mu   sync.Mutex
	b    bytes.Buffer
	more chan struct{}
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.b.Write(p)
	select {
	case o.more <- struct{}{}:
	default:
	}
	return len(p), nil
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.String()
}

func newDaemon(t testing.TB, extra string) *daemon {
	t.Helper()
	d := &daemon{t: t, dir: t.TempDir(), ldap: ports.One(t), ldaps: ports.One(t), manage: ports.One(t)}
	ca, err := pki.NewCA(pki.CAOptions{})
	if err != nil {
		t.Fatal(err)
	}
	d.ca = ca
	k, err := ca.Issue(pki.Request{Role: pki.RoleVault, Name: "vault1", Hosts: []string{"127.0.0.1", "localhost"}})
	if err != nil {
		t.Fatal(err)
	}
	d.write("ca.crt", string(ca.CertPEM()))
	d.write("vault1.crt", string(k.Cert))
	d.write("vault1.key", string(k.Key))
	d.write("root.secret", "rootpass\n")
	d.write("vaultd.hcl", fmt.Sprintf(`
server { name = "vault1" }
identity {
  cert_file = "vault1.crt"
  key_file  = "vault1.key"
  ca_file   = "ca.crt"
}
management { address = %q }
root { password_file = "root.secret" }
database { path = "db" }
password {
  memory = "64 KiB"
  passes = 1
  state_interval = "100ms"
}
listener "ldap" { address = %q }
listener "ldaps" {
  address = %q
  tls     = true
}
%s`, d.manage, d.ldap, d.ldaps, extra))
	return d
}

func (d *daemon) write(name, content string) {
	d.t.Helper()
	if err := os.WriteFile(filepath.Join(d.dir, name), []byte(content), 0o600); err != nil {
		d.t.Fatal(err)
	}
}

func (d *daemon) command(args ...string) *exec.Cmd {
	cmd := exec.Command(os.Args[0], args...)
	cmd.Dir = d.dir
	cmd.Env = append(os.Environ(), "VAULTD_TEST_DAEMON=1")
	return cmd
}

// start starts the daemon and waits until it serves.
func (d *daemon) start() {
	d.t.Helper()
	d.launch()
	d.waitFor("ready to serve")
}

// launch starts the daemon.
func (d *daemon) launch() {
	d.t.Helper()
	d.out = &output{more: make(chan struct{}, 1)}
	d.cmd = d.command("-config", "vaultd.hcl")
	d.cmd.Stdout, d.cmd.Stderr = d.out, d.out
	if err := d.cmd.Start(); err != nil {
		d.t.Fatal(err)
	}
	d.exited = make(chan error, 1)
	go func(c *exec.Cmd, exited chan error) { exited <- c.Wait() }(d.cmd, d.exited)
	d.t.Cleanup(d.kill)
}

func (d *daemon) waitFor(text string) {
	d.t.Helper()
	limit := time.After(20 * time.Second)
	for !strings.Contains(d.out.String(), text) {
		select {
		case <-d.out.more:
		case err := <-d.exited:
			d.exited <- err
			d.t.Fatalf("vaultd ended: %v\n%s", err, d.out)
		case <-limit:
			d.t.Fatalf("no %q in\n%s", text, d.out)
		}
	}
}

// kill is kill -9.
func (d *daemon) kill() {
	if d.cmd != nil {
		_ = d.cmd.Process.Kill() // it may have ended already
		<-d.exited
		d.exited <- nil
	}
}

func (d *daemon) dial() (*ldap.Conn, error) {
	c, err := ldap.DialURL("ldap://" + d.ldap)
	if err != nil {
		return nil, err
	}
	cfg, err := d.clientTLS()
	if err == nil {
		err = c.StartTLS(cfg)
	}
	if err == nil {
		err = c.Bind("cn=admin,o=shoal", "rootpass")
	}
	if err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}

// tool runs one of Debian's ldap-utils against the daemon, as the root DN over StartTLS.
func (d *daemon) tool(stdin, name string, args ...string) (string, int) {
	d.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, name, append([]string{"-x", "-ZZ", "-H", "ldap://" + d.ldap, "-D", "cn=admin,o=shoal", "-w", "rootpass"}, args...)...)
	return d.run(cmd, stdin)
}

func (d *daemon) run(cmd *exec.Cmd, stdin string) (string, int) {
	d.t.Helper()
	cmd.Env = append(os.Environ(), "LDAPTLS_CACERT="+filepath.Join(d.dir, "ca.crt"))
	cmd.Stdin = strings.NewReader(stdin)
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		d.t.Fatalf("%s: %v", cmd.Path, err)
	}
	return string(out), cmd.ProcessState.ExitCode()
}

const people = `dn: associatedDomain=example.test,ou=domains,o=shoal
objectClass: shoalDomain
objectClass: domainRelatedObject

dn: uid=alice,associatedDomain=example.test,ou=domains,o=shoal
objectClass: inetOrgPerson
objectClass: inetLocalMailRecipient
objectClass: shoalAccount
cn: Alice Liddell
sn: Liddell
mail: alice@example.test
mailLocalAddress: alice@example.test
mailLocalAddress: al@example.test
shoalAccountId: abcdefgh01
userPassword: wonderland
jpegPhoto:: /9j/4AAQ
description:: SMOkdHRlciB1bmQgTcO2aHJl

`

// Debian's own LDAP tools find, add, change, compare, rename and delete entries.
func TestTools(t *testing.T) {
	d := newDaemon(t, "")
	d.start()
	alice := "uid=alice,associatedDomain=example.test,ou=domains,o=shoal"
	for _, c := range []struct {
		name  string
		stdin string
		cmd   []string
		code  int
		want  []string
		never string
	}{
		{"add", people, []string{"ldapadd"}, 0, []string{"adding new entry"}, ""},
		{"add again", people, []string{"ldapadd"}, 68, []string{"Already exists"}, ""},
		{"search", "", []string{"ldapsearch", "-LLL", "-b", "o=shoal", "(mailLocalAddress=AL@example.test)"}, 0,
			[]string{"dn: " + alice, "shoalCredentialVersion: 1", "jpegPhoto:: /9j/4AAQ", "description:: SMOkdHRlciB1bmQgTcO2aHJl"}, "userPassword"},
		{"operational attributes", "", []string{"ldapsearch", "-LLL", "-b", alice, "-s", "base", "+"}, 0,
			[]string{"entryUUID: ", "entryCSN: ", "hasSubordinates: FALSE", "structuralObjectClass: inetOrgPerson", "subschemaSubentry: cn=subschema", "creatorsName: cn=admin,o=shoal"}, "sn:"},
		{"types only", "", []string{"ldapsearch", "-LLL", "-A", "-b", alice, "-s", "base", "mail"}, 0, []string{"mail:\n"}, "alice@"},
		{"no attributes", "", []string{"ldapsearch", "-LLL", "-b", alice, "-s", "base", "1.1"}, 0, []string{"dn: " + alice}, "objectClass"},
		{"pages", "", []string{"ldapsearch", "-LLL", "-E", "pr=2/noprompt", "-b", "o=shoal", "1.1"}, 0, []string{"dn: ou=volumes", "dn: " + alice}, ""},
		{"size limit", "", []string{"ldapsearch", "-LLL", "-z", "3", "-b", "o=shoal", "1.1"}, 4, []string{"Size limit exceeded"}, ""},
		{"children", "", []string{"ldapsearch", "-LLL", "-s", "children", "-b", "ou=domains,o=shoal", "1.1"}, 0, []string{alice}, "dn: ou=domains,o=shoal\n"},
		{"missing", "", []string{"ldapsearch", "-LLL", "-b", "ou=none,o=shoal"}, 32, []string{"No such object", "Matched DN: o=shoal"}, ""},
		{"compare", "", []string{"ldapcompare", alice, "mail:ALICE@example.test"}, 6, []string{"TRUE"}, ""},
		{"compare not", "", []string{"ldapcompare", alice, "mail:bob@example.test"}, 5, []string{"FALSE"}, ""},
		{"modify", "dn: " + alice + "\nchangetype: modify\nadd: title\ntitle: Dr\n-\ndelete: mailLocalAddress\nmailLocalAddress: al@example.test\n-\nreplace: sn\nsn: Hargreaves\n-\nreplace: userPassword\nuserPassword: looking-glass\n",
			[]string{"ldapmodify"}, 0, nil, ""},
		{"modified", "", []string{"ldapsearch", "-LLL", "-b", "o=shoal", "(&(uid=alice)(sn=hargreaves))"}, 0, []string{"title: Dr", "shoalCredentialVersion: 2"}, "al@example"},
		{"increment", "dn: " + alice + "\nchangetype: modify\nincrement: shoalCredentialVersion\nshoalCredentialVersion: 5\n", []string{"ldapmodify"}, 0, nil, ""},
		{"bad modify", "dn: " + alice + "\nchangetype: modify\ndelete: sn\n", []string{"ldapmodify"}, 65, []string{"Object class violation", "requires attribute sn"}, ""},
		{"bad type", "dn: " + alice + "\nchangetype: modify\nadd: oddity\noddity: x\n", []string{"ldapmodify"}, 17, []string{"Undefined attribute type"}, ""},
		{"who", "", []string{"ldapwhoami"}, 0, []string{"dn:cn=admin,o=shoal"}, ""},
		{"rename", "", []string{"ldapmodrdn", "-r", alice, "uid=alicia"}, 0, nil, ""},
		{"renamed", "", []string{"ldapsearch", "-LLL", "-b", "o=shoal", "(uid=alicia)", "shoalCredentialVersion"}, 0, []string{"dn: uid=alicia,", "shoalCredentialVersion: 7"}, ""},
		{"delete of a superior", "", []string{"ldapdelete", "associatedDomain=example.test,ou=domains,o=shoal"}, 66, []string{"not allowed on non-leaf"}, ""},
		{"delete", "", []string{"ldapdelete", "uid=alicia,associatedDomain=example.test,ou=domains,o=shoal"}, 0, nil, ""},
		{"delete again", "", []string{"ldapdelete", "uid=alicia,associatedDomain=example.test,ou=domains,o=shoal"}, 32, []string{"No such object"}, ""},
	} {
		out, code := d.tool(c.stdin, c.cmd[0], c.cmd[1:]...)
		if code != c.code {
			t.Errorf("%s: exit code %d, want %d\n%s", c.name, code, c.code, out)
		}
		for _, w := range c.want {
			if !strings.Contains(out, w) {
				t.Errorf("%s: no %q in\n%s", c.name, w, out)
			}
		}
		if c.never != "" && strings.Contains(out, c.never) {
			t.Errorf("%s: %q in\n%s", c.name, c.never, out)
		}
	}
	// Over ldaps, and without TLS.
	out, code := d.run(exec.Command("ldapwhoami", "-x", "-H", "ldaps://"+d.ldaps, "-D", "cn=admin,o=shoal", "-w", "rootpass"), "")
	if code != 0 || !strings.Contains(out, "cn=admin") {
		t.Errorf("ldaps: %d %s", code, out)
	}
	out, code = d.run(exec.Command("ldapwhoami", "-x", "-H", "ldap://"+d.ldap, "-D", "cn=admin,o=shoal", "-w", "rootpass"), "")
	if code != 13 || !strings.Contains(out, "Confidentiality required") {
		t.Errorf("a password without TLS: %d %s", code, out)
	}
	out, code = d.run(exec.Command("ldapwhoami", "-x", "-H", "ldap://"+d.ldap), "")
	if code != 0 || !strings.Contains(out, "anonymous") {
		t.Errorf("anonymous: %d %s", code, out)
	}
}

// What was acknowledged is there after kill -9, at any moment.
func TestKill(t *testing.T) {
	d := newDaemon(t, "")
	acknowledged := map[string]bool{}
	var mu sync.Mutex
	rnd := rand.New(rand.NewPCG(uint64(time.Now().UnixNano()), 1))
	for round := range 6 {
		d.start()
		c, err := d.dial()
		if err != nil {
			t.Fatal(err)
		}
		for name := range acknowledged {
			r, err := c.Search(ldap.NewSearchRequest("ou="+name+",o=shoal", 0, 0, 0, 0, false, "(ou="+name+")", []string{"1.1"}, nil))
			if err != nil || len(r.Entries) != 1 {
				t.Fatalf("round %d: %s was acknowledged and is lost: %v", round, name, err)
			}
		}
		all, err := c.Search(ldap.NewSearchRequest("o=shoal", 1, 0, 0, 0, false, "(ou=k*)", []string{"ou"}, nil))
		if err != nil || len(all.Entries) < len(acknowledged) {
			t.Fatalf("round %d: %d entries, %d acknowledged: %v", round, len(all.Entries), len(acknowledged), err)
		}
		c.Close()
		if round == 5 {
			break
		}
		var wg sync.WaitGroup
		var count sync.WaitGroup
		target := 20 + rnd.IntN(200)
		count.Add(target)
		left := target
		for w := range 6 {
			c, err := d.dial()
			if err != nil {
				t.Fatal(err)
			}
			wg.Go(func() {
				defer c.Close()
				for i := 0; ; i++ {
					name := fmt.Sprintf("k%d-%d-%d", round, w, i)
					a := ldap.NewAddRequest("ou="+name+",o=shoal", nil)
					a.Attribute("objectClass", []string{"organizationalUnit"})
					if err := c.Add(a); err != nil {
						return
					}
					mu.Lock()
					acknowledged[name] = true
					if left--; left >= 0 {
						count.Done()
					}
					mu.Unlock()
				}
			})
		}
		count.Wait()
		d.kill()
		wg.Wait()
	}
	t.Logf("%d entries acknowledged in 5 rounds, none lost", len(acknowledged))
}

func TestManagementAndEnd(t *testing.T) {
	d := newDaemon(t, "")
	d.start()
	get := func(path string) (int, string) {
		r, err := http.Get("http://" + d.manage + path)
		if err != nil {
			t.Fatal(err)
		}
		defer r.Body.Close()
		b, err := io.ReadAll(r.Body)
		if err != nil {
			t.Fatal(err)
		}
		return r.StatusCode, string(b)
	}
	if code, body := get("/readyz"); code != 200 {
		t.Errorf("readyz: %d %s", code, body)
	}
	_, metrics := get("/metrics")
	for deadline := time.Now().Add(time.Minute); !strings.Contains(metrics, "shoal_vault_entries 8") && time.Now().Before(deadline); { // cn=scram comes behind
		_, metrics = get("/metrics")
	}
	for _, m := range []string{"shoal_vault_entries 8", "shoal_vault_database_bytes", "shoal_vault_connections 0", "shoal_vault_commit_seconds_count", "shoal_vault_passwords_waiting 0", `shoal_vault_writes_total{operation="add",result="ok"} 8`} {
		if !strings.Contains(metrics, m) {
			t.Errorf("no %s in the metrics", m)
		}
	}
	c, err := d.dial()
	if err != nil {
		t.Fatal(err)
	}
	// Reload: another root password.
	d.write("root.secret", "newpass")
	if err := d.cmd.Process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	d.waitFor("reloaded")
	if err := c.Bind("cn=admin,o=shoal", "newpass"); err != nil {
		t.Errorf("bind with the new password: %v\n%s", err, d.out)
	}
	if err := d.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	err = <-d.exited
	d.exited <- nil
	if err != nil {
		t.Errorf("after SIGTERM: %v\n%s", err, d.out)
	}
	d.start() // again, with what is there
	d.kill()
}

// Each mistake is told with what to do about it.
func TestMistakes(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(d *daemon)
		extra  string
		want   string
	}{
		{"two processes", func(d *daemon) {
			d.start()
			c := newDaemon(d.t, "")
			b, err := os.ReadFile(filepath.Join(c.dir, "vaultd.hcl"))
			if err != nil {
				d.t.Fatal(err)
			}
			d.write("vaultd.hcl", strings.Replace(string(b), `"db"`, `"`+filepath.Join(d.dir, "db")+`"`, 1))
		}, "", "in use by another process"},
		{"port in use", func(d *daemon) {
			l, err := net.Listen("tcp", d.ldap)
			if err != nil {
				d.t.Fatal(err)
			}
			d.t.Cleanup(func() { l.Close() })
		}, "", "in use"},
		{"plain on a public address", nil, `allow_plain = ["public"]` + "\n" + `listener "public" { address = "0.0.0.0:1389" }`, "for loopback addresses only"},
		{"plain on no listener", nil, `allow_plain = ["ldapp"]`, `no listener "ldapp"`},
		{"no root secret", func(d *daemon) {
			if err := os.Remove(filepath.Join(d.dir, "root.secret")); err != nil {
				d.t.Fatal(err)
			}
		}, "", "root.secret: file does not exist"},
		{"root secret open to all", func(d *daemon) {
			if err := os.Chmod(filepath.Join(d.dir, "root.secret"), 0o644); err != nil {
				d.t.Fatal(err)
			}
		}, "", "open to everybody"},
		{"suffix", nil, `suffix = "shoal"`, "is not a distinguished name"},
		{"suffix of an odd class", nil, `suffix = "mail=x"`, "use o=, ou= or dc="},
		{"unknown setting", nil, `sufix = "o=shoal"`, `suffix`},
	} {
		d := newDaemon(t, c.extra)
		if c.change != nil {
			c.change(d)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		cmd := exec.CommandContext(ctx, os.Args[0], "-config", "vaultd.hcl")
		cmd.Dir, cmd.Env = d.dir, append(os.Environ(), "VAULTD_TEST_DAEMON=1")
		out, err := cmd.CombinedOutput()
		cancel()
		if err == nil || !strings.Contains(string(out), c.want) {
			t.Errorf("%s: %v, no %q in\n%s", c.name, err, c.want, out)
		}
	}
	d := newDaemon(t, "")
	out, err := d.command("-config", "vaultd.hcl", "-check").CombinedOutput()
	if err != nil {
		t.Errorf("check: %v\n%s", err, out)
	}
}

// clientTLS trusts the daemon's CA.
func (d *daemon) clientTLS() (*tls.Config, error) {
	b, err := os.ReadFile(filepath.Join(d.dir, "ca.crt"))
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(b)
	return &tls.Config{RootCAs: roots, ServerName: "127.0.0.1"}, nil
}
