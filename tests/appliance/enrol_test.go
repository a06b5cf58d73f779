package appliance

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-ldap/ldap/v3"
)

func TestMain(m *testing.M) {
	code := m.Run()
	Clean()
	os.Exit(code)
}

func (r *Rig) token(t *testing.T, server string, args ...string) string {
	t.Helper()
	return strings.TrimSpace(r.Shoalctl(append([]string{"token", "create", server}, args...)...))
}

// enrol runs shoalctl enrol, the token on its standard input.
func (r *Rig) enrol(url, sum, name, role, token, folder string, args ...string) (string, int) {
	r.T.Helper()
	out, errOut, code := r.TryShoalctl(token+"\n", append([]string{"enrol", "--url", url, "--ca-sha256", sum,
		"--name", name, "--role", role, "--out", r.Path(folder)}, args...)...)
	return out + errOut, code
}

func leaf(t *testing.T, r *Rig, folder string) *x509.Certificate {
	t.Helper()
	pair, err := tls.LoadX509KeyPair(r.Path(folder, "server.crt"), r.Path(folder, "server.key"))
	if err != nil {
		t.Fatal(err)
	}
	return pair.Leaf
}

// A server enrols with a token, once; it can log in, announce itself and renew, and change nothing else.
func TestEnrolment(t *testing.T) {
	r := New(t)
	url, sum := r.Authority("")
	for name, role := range map[string]string{"box1": "box", "box2": "box", "switch1": "switch"} {
		r.AddServer(name, role)
	}
	token := r.token(t, "box1", "--host", "box1.example.test", "--host", "192.0.2.1")

	entry := func() *ldap.Entry {
		t.Helper()
		res, err := r.Admin().Search(ldap.NewSearchRequest(ServerDN("box1"), ldap.ScopeBaseObject, 0, 0, 0, false, "(objectClass=*)", nil, nil))
		if err != nil {
			t.Fatal(err)
		}
		return res.Entries[0]
	}
	if stored := entry().GetAttributeValues("shoalEnrolToken"); len(stored) != 1 || strings.Contains(stored[0], token) {
		t.Fatalf("in the directory: %q", stored)
	}
	for _, c := range []struct{ what, url, sum, name, role, token, want string }{
		{"another server's name", url, sum, "box2", "box", token, "not good for this server"},
		{"another role", url, sum, "box1", "vault", token, "not good for this server"},
		{"a server that is not there", url, sum, "box9", "box", token, "not good for this server"},
		{"a wrong token", url, sum, "box1", "box", strings.Repeat("a", 0) + "shoal1-" + strings.Repeat("a", 52), "not good for this server"},
		{"no token", url, sum, "box1", "box", "hello", "is no token"},
		{"an operator", url, sum, "box1", "operator", token, "do not enrol"},
		{"another CA", url, strings.Repeat("0", 64), "box1", "box", token, "the token was not sent"},
		{"no fingerprint", url, "", "box1", "box", token, "64 hexadecimal digits"},
		{"plain HTTP", "http://127.0.0.1:1", sum, "box1", "box", token, "not the address of an authority"},
	} {
		out, code := r.enrol(c.url, c.sum, c.name, c.role, c.token, "no")
		if code == 0 || code == 4 || !strings.Contains(out, c.want) {
			t.Errorf("%s: exit code %d, no %q in %s", c.what, code, c.want, out)
		}
		if _, err := os.Stat(r.Path("no", "server.crt")); err == nil {
			t.Errorf("%s: a certificate was written", c.what)
		}
	}
	if out, code := r.enrol("https://127.0.0.1:1", sum, "box1", "box", token, "no"); code != 4 {
		t.Errorf("nobody answers: exit code %d: %s", code, out)
	}

	// Two machines with the same token at the same moment: one of them enrols.
	var wg sync.WaitGroup
	codes := make([]int, 2)
	for i, folder := range []string{"one", "two"} {
		wg.Go(func() { _, codes[i] = r.enrol(url, sum, "box1", "box", token, folder) })
	}
	wg.Wait()
	folder := "one"
	if codes[1] == 0 {
		folder = "two"
	}
	if slices.Sort(codes); codes[0] != 0 || codes[1] == 0 {
		t.Fatalf("exit codes of two with one token: %v", codes)
	}
	if out, code := r.enrol(url, sum, "box1", "box", token, "three"); code != 1 || !strings.Contains(out, "was used") {
		t.Errorf("the token again: exit code %d: %s", code, out)
	}
	if out, code := r.enrol(url, sum, "box1", "box", "", folder); code != 0 || !strings.Contains(out, "is enrolled already") {
		t.Errorf("enrolled already: exit code %d: %s", code, out)
	}
	c := leaf(t, r, folder)
	if len(c.URIs) != 1 || c.URIs[0].String() != "shoal://box/box1" || !slices.Equal(c.DNSNames, []string{"box1.example.test"}) || len(c.IPAddresses) != 1 {
		t.Errorf("the certificate is of %v, %v, %v", c.URIs, c.DNSNames, c.IPAddresses)
	}
	for _, f := range []string{"server.key", "directory.secret"} {
		if st, err := os.Stat(r.Path(folder, f)); err != nil || st.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v %v", f, st, err)
		}
	}
	if left, _ := filepath.Glob(r.Path(folder, "*.new")); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}

	// It writes the run-time part of its own entry, and nothing else.
	r.Shoalctl("enrol", "announce", "--out", r.Path(folder), "--address", "imap=192.0.2.1:143")
	e := entry()
	if e.GetAttributeValue("shoalVersion") == "" || e.GetAttributeValue("shoalAddress") != "imap 192.0.2.1:143" {
		t.Errorf("after announcing: %v", e.Attributes)
	}
	if got := e.GetAttributeValues("shoalEnrolToken"); len(got) != 0 {
		t.Errorf("the token is still there: %q", got)
	}
	own, err := r.Directory(ServerDN("box1"), strings.TrimSpace(r.Read(folder+"/directory.secret")))
	if err != nil {
		t.Fatal(err)
	}
	refused := func(what string, err error) {
		t.Helper()
		if !ldap.IsErrorWithCode(err, ldap.LDAPResultInsufficientAccessRights) {
			t.Errorf("%s: %v", what, err)
		}
	}
	modify := func(c *ldap.Conn, dn, attr string, values ...string) error {
		m := ldap.NewModifyRequest(dn, nil)
		m.Replace(attr, values)
		return c.Modify(m)
	}
	refused("its own role", modify(own, ServerDN("box1"), "shoalRole", "vault"))
	refused("its own password", modify(own, ServerDN("box1"), "userPassword", "another password"))
	refused("a token for itself", modify(own, ServerDN("box1"), "shoalEnrolToken", "1 x"))
	refused("another's version", modify(own, ServerDN("box2"), "shoalVersion", "1"))
	refused("a domain", own.Add(&ldap.AddRequest{DN: "associatedDomain=x.test,ou=domains,o=shoal", Attributes: []ldap.Attribute{
		{Type: "objectClass", Vals: []string{"shoalDomain", "domainRelatedObject"}}, {Type: "associatedDomain", Vals: []string{"x.test"}}}}))
	refused("deleting", own.Del(ldap.NewDelRequest(ServerDN("box2"), nil)))
	mixed := ldap.NewModifyRequest(ServerDN("box1"), nil)
	mixed.Replace("shoalVersion", []string{"2"})
	mixed.Replace("shoalRole", []string{"vault"})
	refused("a version and a role at once", own.Modify(mixed))
	// The authority's own identity: passwords of servers, tokens away; nothing else.
	auth, err := r.Directory(ServerDN("enrol"), strings.TrimSpace(r.Read("authority/directory.secret")))
	if err != nil {
		t.Fatal(err)
	}
	refused("the authority makes a token", modify(auth, ServerDN("box2"), "shoalEnrolToken", "1 x"))
	refused("the authority gives a role", modify(auth, ServerDN("box2"), "shoalRole", "vault"))
	refused("the authority sets the administrator's password", modify(auth, "cn=admin,o=shoal", "userPassword", "another password"))
	refused("the authority adds a server", auth.Add(&ldap.AddRequest{DN: ServerDN("evil"), Attributes: []ldap.Attribute{
		{Type: "objectClass", Vals: []string{"shoalServer"}}, {Type: "cn", Vals: []string{"evil"}}, {Type: "shoalRole", Vals: []string{"vault"}}}}))

	// Renewal: not yet; then by force, for a new key, with the same names.
	if out := r.Shoalctl("enrol", "renew", "--out", r.Path(folder)); !strings.Contains(out, "good for long enough") {
		t.Errorf("renew: %s", out)
	}
	r.Shoalctl("enrol", "renew", "--force", "--out", r.Path(folder))
	n := leaf(t, r, folder)
	if n.SerialNumber.Cmp(c.SerialNumber) == 0 || string(n.RawSubjectPublicKeyInfo) == string(c.RawSubjectPublicKeyInfo) {
		t.Error("the certificate or its key is the old one")
	}
	if n.URIs[0].String() != c.URIs[0].String() || !slices.Equal(n.DNSNames, c.DNSNames) || len(n.IPAddresses) != 1 {
		t.Errorf("the new certificate is of %v, %v, %v", n.URIs, n.DNSNames, n.IPAddresses)
	}
	// Without a certificate, with an operator's, and for a server that was taken out.
	for what, config := range map[string]*tls.Config{"nobody": r.anyTLS(), "an operator": r.TLS("alice", "alice")} {
		client := &http.Client{Transport: &http.Transport{TLSClientConfig: config}}
		res, err := client.Post(url+"/v1/renew", "application/json", strings.NewReader(`{"csr": "x"}`))
		if err == nil {
			res.Body.Close()
			if res.StatusCode != http.StatusForbidden {
				t.Errorf("%s renews: %s", what, res.Status)
			}
		}
		if err != nil && what == "nobody" {
			t.Error(err)
		}
		client.CloseIdleConnections()
	}
	if err := r.Admin().Del(ldap.NewDelRequest(ServerDN("box1"), nil)); err != nil {
		t.Fatal(err)
	}
	if _, errOut, code := r.TryShoalctl("", "enrol", "renew", "--force", "--out", r.Path(folder)); code != 1 || !strings.Contains(errOut, "no server box1") {
		t.Errorf("renewal of a server that was taken out: exit code %d: %s", code, errOut)
	}
	if log := r.Read("authority.log"); strings.Contains(log, token) || strings.Contains(log, strings.TrimSpace(r.Read(folder+"/directory.secret"))) {
		t.Error("a secret is in the log")
	}
}

// Tokens are listed, revoked and expire; only what is asked for is taken.
func TestTokens(t *testing.T) {
	r := New(t)
	url, sum := r.Authority(`validity = "1m"`)
	r.AddServer("box1", "box")
	r.AddServer("op", "operator")
	first, second := r.token(t, "box1"), r.token(t, "box1")
	var list []struct{ ID, Server, Token, Role string }
	if err := json.Unmarshal([]byte(r.Shoalctl("token", "list", "--json")), &list); err != nil || len(list) != 2 || list[0].Token != "" {
		t.Fatalf("list: %v %v", list, err)
	}
	r.Shoalctl("token", "revoke", "box1")
	for _, token := range []string{first, second} {
		if out, code := r.enrol(url, sum, "box1", "box", token, "no"); code != 1 || !strings.Contains(out, "was revoked") {
			t.Errorf("a revoked token: exit code %d: %s", code, out)
		}
	}
	// One that has expired: written as a token of yesterday.
	token := r.token(t, "box1")
	res, err := r.Admin().Search(ldap.NewSearchRequest(ServerDN("box1"), 0, 0, 0, 0, false, "(objectClass=*)", []string{"shoalEnrolToken"}, nil))
	if err != nil {
		t.Fatal(err)
	}
	f := strings.Fields(res.Entries[0].GetAttributeValue("shoalEnrolToken"))
	f[2] = time.Now().Add(-24 * time.Hour).UTC().Format(time.RFC3339)
	m := ldap.NewModifyRequest(ServerDN("box1"), nil)
	m.Replace("shoalEnrolToken", []string{strings.Join(f, " ")})
	if err := r.Admin().Modify(m); err != nil {
		t.Fatal(err)
	}
	if out, code := r.enrol(url, sum, "box1", "box", token, "no"); code != 1 || !strings.Contains(out, "has expired") {
		t.Errorf("an expired token: exit code %d: %s", code, out)
	}
	for _, c := range []struct {
		args []string
		code int
		want string
	}{
		{[]string{"token", "create", "box9"}, 3, "box9"},
		{[]string{"token", "create", "op"}, 1, "do not enrol"},
		{[]string{"token", "create", "box1", "--life", "1s"}, 2, "--life"},
		{[]string{"token", "create", "box1", "--host", "*.example.test"}, 1, "neither an IP address nor a DNS name"},
		{[]string{"token", "revoke", "box1", "0123456789"}, 3, "no such token"},
	} {
		if out, errOut, code := r.TryShoalctl("", c.args...); code != c.code || !strings.Contains(errOut, c.want) {
			t.Errorf("%v: exit code %d: %s%s", c.args, code, out, errOut)
		}
	}
	// A certificate of one minute, of which less than a third is left at once because it begins ten minutes ago: it is renewed.
	r.token(t, "box1")
	if out, code := r.enrol(url, sum, "box1", "box", r.token(t, "box1"), "box1"); code != 0 {
		t.Fatalf("enrol: %s", out)
	}
	if out := r.Shoalctl("enrol", "renew", "--out", r.Path("box1")); !strings.Contains(out, "has a new certificate") {
		t.Errorf("renew: %s", out)
	}
}
