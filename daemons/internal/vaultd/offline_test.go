package vaultd

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"shoal/daemons/internal/pki"
	"shoal/tests/ports"
)

// manyPeople is LDIF as slapadd takes it, and as somebody may have written it.
func manyPeople(n int) string {
	var b strings.Builder
	b.WriteString("dn: o=shoal\nobjectClass: organization\no: shoal\n\ndn: ou=people,o=shoal\nobjectClass: organizationalUnit\nou: people\n")
	for i := range n {
		fmt.Fprintf(&b, "\ndn: uid=p%[1]d,ou=people,o=shoal\nobjectClass: inetOrgPerson\nuid: p%[1]d\ncn: Person %[1]d\nsn: %[1]d\nmail: p%[1]d@example.test\n", i)
	}
	return b.String()
}

// The tasks on a database that is not in use: what was imported is exported again, backed up, checked, restored; the vault serves it.
func TestTasks(t *testing.T) {
	d := newDaemon(t, "")
	do := func(want int, args ...string) string {
		t.Helper()
		cmd := d.command(append([]string{"-config", "vaultd.hcl"}, args...)...)
		out, err := cmd.CombinedOutput()
		if code := cmd.ProcessState.ExitCode(); code != want {
			t.Fatalf("%v: exit code %d, %v\n%s", args, code, err, out)
		}
		return string(out)
	}
	for _, task := range []string{"-verify", "-backup=x", "-export=x"} {
		if out := do(1, task); !strings.Contains(out, "there is no database") {
			t.Errorf("%s without a database: %s", task, out)
		}
	}
	d.write("people.ldif", manyPeople(200))
	if out := do(0, "-import", "people.ldif"); !strings.Contains(out, "202 entries") {
		t.Errorf("import: %s", out)
	}
	d.write("bad.ldif", manyPeople(2)+"oddity: 1\n")
	if out := do(1, "-import", "bad.ldif"); !strings.Contains(out, "line 16: uid=p1,ou=people,o=shoal: attribute oddity is not in the schema") {
		t.Errorf("import of a file with a mistake: %s", out)
	}
	do(0, "-export", "first.ldif")
	do(0, "-backup", "vault.backup")
	if out := do(1, "-backup", "vault.backup"); !strings.Contains(out, "exists") {
		t.Errorf("a backup over another one: %s", out)
	}
	if out := do(0, "-verify"); !strings.Contains(out, `"damage": 0`) {
		t.Errorf("verify: %s", out)
	}
	d.start()
	if out := do(1, "-restore", "vault.backup"); !strings.Contains(out, "in use by another process") {
		t.Errorf("restore under a running vault: %s", out)
	}
	if out, code := d.tool("", "ldapdelete", "uid=p7,ou=people,o=shoal"); code != 0 {
		t.Fatal(out)
	}
	d.kill()
	do(0, "-restore", "vault.backup")
	do(0, "-export", "second.ldif")
	first, err := os.ReadFile(filepath.Join(d.dir, "first.ldif"))
	if err != nil {
		t.Fatal(err)
	}
	second, err := os.ReadFile(filepath.Join(d.dir, "second.ldif"))
	if err != nil {
		t.Fatal(err)
	}
	if _, a, _ := bytes.Cut(first, []byte("\n\ndn")); !bytes.HasSuffix(second, a) || len(a) < 1000 {
		t.Error("the export after the restore is another one")
	}
	d.start()
	if out, code := d.tool("", "ldapsearch", "-LLL", "-b", "o=shoal", "(mail=p7@example.test)", "uid"); code != 0 || !strings.Contains(out, "uid: p7") {
		t.Errorf("search: %d %s", code, out)
	}
}

// The same by the control API, while the vault serves.
func TestControlOfDirectory(t *testing.T) {
	address := ports.One(t)
	d := newDaemon(t, fmt.Sprintf("control { address = %q }\n", address))
	ca, err := pki.NewCA(pki.CAOptions{})
	if err != nil {
		t.Fatal(err)
	}
	issue := func(role, name string) *tls.Certificate {
		k, err := ca.Issue(pki.Request{Role: role, Name: name, Hosts: []string{"127.0.0.1"}})
		if err != nil {
			t.Fatal(err)
		}
		if role == pki.RoleVault {
			d.write("ca.crt", string(ca.CertPEM()))
			d.write("vault1.crt", string(k.Cert))
			d.write("vault1.key", string(k.Key))
		}
		pair, err := tls.X509KeyPair(k.Cert, k.Key)
		if err != nil {
			t.Fatal(err)
		}
		return &pair
	}
	issue(pki.RoleVault, "vault1")
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(ca.CertPEM())
	as := func(pair *tls.Certificate) *http.Client {
		return &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots, Certificates: []tls.Certificate{*pair}}}}
	}
	operator := as(issue(pki.RoleOperator, "tester"))
	d.start()
	ask := func(method, path string, body []byte) (int, string) {
		t.Helper()
		r, err := http.NewRequestWithContext(t.Context(), method, "https://"+address+path, bytes.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		res, err := operator.Do(r)
		if err != nil {
			t.Fatalf("%s %s: %v", method, path, err)
		}
		defer res.Body.Close()
		text, err := io.ReadAll(res.Body)
		if err != nil {
			t.Fatalf("%s %s: %v", method, path, err)
		}
		return res.StatusCode, string(text)
	}
	entries := func() int {
		out, code := d.tool("", "ldapsearch", "-LLL", "-b", "o=shoal", "(uid=*)", "dn")
		if code != 0 {
			t.Fatal(out)
		}
		return strings.Count(out, "dn: ")
	}
	// More than the bound of other commands, and without the entries that the service builds on: they are made.
	if code, out := ask("PUT", "/v1/directory/import", []byte(manyPeople(9000))); code != 200 || !strings.Contains(out, `"entries":9002,"done":true`) {
		t.Fatalf("import: %d %s", code, out)
	}
	if out, code := d.tool("", "ldapsearch", "-LLL", "-s", "base", "-b", "ou=servers,ou=config,o=shoal", "dn"); code != 0 {
		t.Error(out)
	}
	code, backup := ask("GET", "/v1/directory/backup", nil)
	if code != 200 {
		t.Fatalf("backup: %d", code)
	}
	if code, out := ask("PUT", "/v1/directory/import", []byte(manyPeople(3))); code != 200 || entries() != 3 {
		t.Fatalf("import: %d %s", code, out)
	}
	if code, out := ask("PUT", "/v1/directory/import", []byte(manyPeople(5)+"oddity: 1\n")); code != 200 || !strings.Contains(out, `"error":"import: line 37: uid=p4,`) || entries() != 3 {
		t.Errorf("import of a file with a mistake: %d %s", code, out)
	}
	if code, out := ask("PUT", "/v1/directory/restore", []byte(backup[:len(backup)/2])); code != 200 || !strings.Contains(out, "not whole") || entries() != 3 {
		t.Errorf("restore of half a backup: %d %s", code, out)
	}
	if code, out := ask("PUT", "/v1/directory/restore", []byte(backup)); code != 200 || !strings.Contains(out, `"done":true`) {
		t.Fatalf("restore: %d %s", code, out)
	}
	code, text := ask("GET", "/v1/directory/export", nil)
	if code != 200 || strings.Count(text, "\nuid: p") != 9000 {
		t.Errorf("export: %d, %d octets", code, len(text))
	}
	if code, out := ask("GET", "/v1/directory/verify", nil); code != 200 || !strings.Contains(out, `"damage":0`) || !strings.Contains(out, `"done":true`) {
		t.Errorf("verify: %d %s", code, out)
	}
	if left, err := os.ReadDir(filepath.Join(d.dir, "db")); err != nil || len(left) != 3 { // the database, its log and the reign
		t.Errorf("in the folder: %v, %v", left, err)
	}
	if code, out := ask("POST", "/v1/directory/vote", append([]byte(`{"epoch": 1, "master": "`), bytes.Repeat([]byte("x"), 2<<20)...)); code != 400 || !strings.Contains(out, "too large") {
		t.Errorf("a vote of two megabytes: %d %s", code, out)
	}
	stranger := as(issue(pki.RoleBox, "box1"))
	if res, err := stranger.Get("https://" + address + "/v1/directory/export"); err == nil {
		res.Body.Close()
		if res.StatusCode == 200 {
			t.Error("a box may export the directory")
		}
	}
}
