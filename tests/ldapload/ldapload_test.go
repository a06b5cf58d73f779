// Package ldapload runs OpenLDAP's own load clients against vaultd: searches, adds and deletes, renames, binds,
// reads and modifications of several connections at once, on OpenLDAP's test data and its test schema. They
// are built by scripts/ldap-load-clients, which runs this (make test-ldap-load).
package ldapload

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"shoal/tests/ports"
)

const (
	suffix   = "dc=example,dc=com"
	manager  = "cn=Manager," + suffix
	password = "secret"
)

// vaultd starts one with the schema of OpenLDAP's tests, and gives its address.
func vaultd(t *testing.T, source string) string {
	t.Helper()
	dir, address := t.TempDir(), ports.One(t)
	write := func(name string, text []byte) {
		if err := os.WriteFile(filepath.Join(dir, name), text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(filepath.Join(dir, "schema"), 0o700); err != nil {
		t.Fatal(err)
	}
	for name, path := range map[string]string{"10-openldap.schema": "servers/slapd/schema/openldap.schema", "20-test.schema": "tests/data/test.schema"} {
		text, err := os.ReadFile(filepath.Join(source, path))
		if err != nil {
			t.Fatal(err)
		}
		write("schema/"+name, text)
	}
	write("root.secret", []byte(password))
	write("vaultd.hcl", fmt.Appendf(nil, `
server { name = "vault1" }
suffix = %q
root {
  dn            = %q
  password_file = "%[3]s/root.secret"
}
database { path = "%[3]s/db" }
schema_folder = "%[3]s/schema"
allow_plain   = ["ldap"]
listener "ldap" { address = %[4]q }
password { memory = "64 KiB" }
`, suffix, manager, dir, address))
	var log bytes.Buffer
	cmd := exec.Command(filepath.Join(os.Getenv("SHOAL_BIN"), "vaultd"), "-config", filepath.Join(dir, "vaultd.hcl"))
	cmd.Stdout, cmd.Stderr = &log, &log
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatalf("vaultd: %v (run make test-ldap-load)", err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM) // it may have ended
		if err := cmd.Wait(); err != nil || t.Failed() {
			t.Logf("vaultd: %v\n%s", err, log.Bytes()[max(0, log.Len()-4000):])
		}
	})
	limit, tick := time.After(30*time.Second), time.NewTicker(30*time.Millisecond)
	defer tick.Stop()
	for {
		if c, err := net.Dial("tcp", address); err == nil {
			c.Close()
			return address
		}
		select {
		case <-tick.C:
		case <-limit:
			t.Fatal("vaultd does not listen within 30 s")
		}
	}
}

func TestLoadClients(t *testing.T) {
	source := os.Getenv("SHOAL_OPENLDAP")
	if source == "" {
		t.Fatal("OpenLDAP's clients are needed: run make test-ldap-load")
	}
	address := vaultd(t, source)
	login := []string{"-x", "-H", "ldap://" + address, "-D", manager, "-w", password}
	data := filepath.Join(source, "tests/data")
	// The suffix entry is there already: -c goes on after it, and nothing else may fail.
	out, _ := exec.Command("ldapadd", append(login, "-c", "-f", filepath.Join(data, "test-ordered.ldif"))...).CombinedOutput()
	if n := strings.Count(string(out), "ldap_add:"); n > 2 || n != strings.Count(string(out), "Already exists (68)") {
		t.Fatalf("OpenLDAP's test data:\n%s", out)
	}
	babs := "cn=Barbara Jensen,ou=Information Technology Division,ou=People," + suffix
	ctx, stop := context.WithTimeout(context.Background(), 4*time.Minute)
	defer stop()
	var all sync.WaitGroup
	for _, c := range [][]string{
		{"slapd-search", "-l", "20", "-b", suffix, "-s", "sub", "-f", "(cn=James*)"},
		{"slapd-search", "-l", "20", "-b", "ou=people," + suffix, "-s", "one", "-f", "(|(sn~=jensen)(mail=*example*))", "-a", "cn"},
		{"slapd-addel", "-l", "5", "-f", filepath.Join(data, "do_add.1")},
		{"slapd-addel", "-l", "5", "-f", filepath.Join(data, "do_add.2")},
		{"slapd-modrdn", "-l", "5", "-e", "cn=James A Jones 2,ou=Information Technology Division,ou=People," + suffix},
		{"slapd-bind", "-l", "5"},
		{"slapd-bind", "-l", "5", "-b", "ou=People," + suffix, "-f", "(uid=bjensen)", "-a", "cn"},
		{"slapd-read", "-l", "20", "-e", suffix, "-f", "(objectClass=*)"},
		{"slapd-read", "-l", "20", "-e", babs},
		{"slapd-modify", "-l", "10", "-e", babs, "-a", "mail: bj@mailgw.example.com"},
		{"slapd-mtread", "-l", "10", "-e", suffix, "-m", "4", "-c", "2"},
	} {
		all.Go(func() {
			cmd := exec.CommandContext(ctx, filepath.Join(source, "tests/progs", c[0]), append(login, c[1:]...)...)
			if out, err := cmd.CombinedOutput(); err != nil || strings.Contains(strings.ToLower(string(out)), "error") {
				t.Errorf("%v: %v\n%s", c, err, out)
			}
		})
	}
	all.Wait()
	// slapd-watcher asks for contextCSN once a second, for ever.
	ctx, stop = context.WithTimeout(context.Background(), 5*time.Second)
	defer stop()
	cmd := exec.CommandContext(ctx, "stdbuf", "-oL", filepath.Join(source, "tests/progs/slapd-watcher"), "-x", "-D", manager, "-w", password, "-i", "1", "-b", suffix, "ldap://"+address)
	out, _ = cmd.CombinedOutput()
	if !strings.Contains(string(out), "contextCSN") {
		t.Errorf("slapd-watcher shows no contextCSN:\n%s", out)
	}
}
