// Package terraform tests the provider as operators use it: terraform itself, with the provider from a mirror, against the built
// programs on loopback (package appliance): agents with HAProxy and exportfs, the directory, the authority.
package terraform

import (
	"bytes"
	"context"
	"crypto/ecdh"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/go-ldap/ldap/v3"

	"shoal/tests/appliance"
	"shoal/tests/ports"
)

// tool is terraform or tofu, and cli its configuration with the mirror; made once.
var tool, cli string

func TestMain(m *testing.M) {
	if err := prepare(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	code := m.Run()
	appliance.Clean()
	os.Exit(code)
}

func prepare() error {
	root, err := filepath.Abs("../..")
	if err != nil {
		return err
	}
	for _, what := range []string{"tool", "mirror"} {
		cmd := exec.Command(filepath.Join(root, "scripts/terraform"), what)
		var out, errs bytes.Buffer
		cmd.Stdout, cmd.Stderr = &out, &errs
		if err := cmd.Run(); err != nil {
			return fmt.Errorf("scripts/terraform %s: %w\n%s", what, err, errs.String())
		}
		if what == "tool" {
			tool = strings.TrimSpace(out.String())
		}
	}
	cli = filepath.Join(root, "dist/terraform/cli.tfrc")
	return nil
}

// stack is a folder with a configuration.
type stack struct {
	t    *testing.T
	dir  string
	head string
}

func newStack(t *testing.T, r *appliance.Rig) *stack {
	t.Helper()
	s := &stack{t: t, dir: t.TempDir(), head: fmt.Sprintf(`
terraform {
  required_providers {
    shoal = { source = "shoal/shoal" }
  }
}
provider "shoal" {
  operator = {
    cert_file = %q
    key_file  = %q
    ca_file   = %q
  }
  directory = {
    uris          = ["ldap://%s"]
    password_file = %q
  }
}
`, r.Path("alice/alice.crt"), r.Path("alice/alice.key"), r.Path("alice/ca.crt"), r.LDAP, r.Path("root.secret"))}
	s.write("")
	s.run(0, "init", "-input=false")
	return s
}

func (s *stack) write(body string) {
	s.t.Helper()
	if err := os.WriteFile(filepath.Join(s.dir, "main.tf"), []byte(s.head+body), 0o600); err != nil {
		s.t.Fatal(err)
	}
}

// run runs a command, whose exit code must be code, and gives all that it says.
func (s *stack) run(code int, args ...string) string {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, tool, args...)
	cmd.Dir = s.dir
	cmd.Env = append(os.Environ(), "TF_CLI_CONFIG_FILE="+cli, "TF_IN_AUTOMATION=1", "CHECKPOINT_DISABLE=1", "TF_CLI_ARGS=-no-color")
	out, _ := cmd.CombinedOutput()
	if got := cmd.ProcessState.ExitCode(); got != code {
		s.t.Fatalf("%s: exit code %d, wanted %d\n%s", strings.Join(args, " "), got, code, out)
	}
	return strings.Join(strings.Fields(string(out)), " ") // without line breaks: they depend on lengths
}

func (s *stack) apply(body string) string {
	s.t.Helper()
	s.write(body)
	out := s.run(0, "apply", "-auto-approve", "-input=false")
	s.clean()
	return out
}

// clean: a second plan changes nothing.
func (s *stack) clean() {
	s.t.Helper()
	s.run(0, "plan", "-detailed-exitcode", "-input=false")
}

// refused: the plan is refused with these words, whatever their line breaks.
func (s *stack) refused(body string, want ...string) {
	s.t.Helper()
	s.write(body)
	out := strings.ReplaceAll(s.run(1, "plan", "-input=false"), "│ ", "")
	for _, w := range want {
		if !strings.Contains(out, w) {
			s.t.Errorf("no %q in %s", w, out)
		}
	}
}

// state is the state as Terraform keeps it.
func (s *stack) state() string {
	s.t.Helper()
	b, err := os.ReadFile(filepath.Join(s.dir, "terraform.tfstate"))
	if err != nil {
		s.t.Fatal(err)
	}
	return string(b)
}

// imported: every resource is forgotten and imported by its id. What is imported needs no change then, but for those settings that
// are Terraform's own; changed names the resources that have such.
func (s *stack) imported(ids map[string]string, changed ...string) {
	s.t.Helper()
	for address, id := range ids {
		s.run(0, "state", "rm", address)
		s.run(0, "import", "-input=false", address, id)
	}
	code := 0
	if len(changed) > 0 {
		code = 2
	}
	out := s.run(code, "plan", "-detailed-exitcode", "-input=false")
	for _, address := range changed {
		if !strings.Contains(out, "# "+address+" will be updated in-place") {
			s.t.Errorf("after import, no change of %s: %s", address, out)
		}
	}
	if code == 0 {
		return
	}
	if !strings.Contains(out, fmt.Sprintf("0 to add, %d to change, 0 to destroy", len(changed))) {
		s.t.Errorf("after import: %s", out)
	}
	s.run(0, "apply", "-auto-approve", "-input=false")
	s.clean()
}

// operator asks an agent as another operator's tool does.
func operator(t *testing.T, r *appliance.Rig, method, agent, path, body string) {
	t.Helper()
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: r.TLS("alice", "alice")}}
	defer client.CloseIdleConnections()
	req, err := http.NewRequest(method, "https://"+agent+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	res, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	if res.StatusCode/100 != 2 {
		t.Fatalf("%s %s: %s", method, path, res.Status)
	}
}

// Pools and members: made, changed, found again after somebody else's change, imported, removed with their sessions drained.
func TestBalancer(t *testing.T) {
	r := appliance.New(t)
	agent := r.Balancer()
	at := ports.Take(t, 5)
	s := newStack(t, r)
	config := func(members string) string {
		return fmt.Sprintf(`
locals { members = { %s } }
resource "shoal_lb_pool" "imap" {
  agent = %q
  name  = "imap"
  bind  = [%q]
}
resource "shoal_lb_member" "imap" {
  for_each = local.members
  agent    = shoal_lb_pool.imap.agent
  pool     = shoal_lb_pool.imap.name
  name     = each.key
  address  = each.value
}
data "shoal_lb_pool" "imap" {
  agent      = shoal_lb_pool.imap.agent
  name       = shoal_lb_pool.imap.name
  depends_on = [shoal_lb_member.imap]
}
output "members" { value = keys(data.shoal_lb_pool.imap.members) }
`, members, agent, at[0])
	}
	two := fmt.Sprintf("box1 = %q, box2 = %q", at[1], at[2])
	three := two + fmt.Sprintf(", box3 = %q", at[3])
	s.apply(config(two))
	pid := haproxyPID(t, r)
	if out := s.apply(config(three)); !strings.Contains(out, "1 added, 0 changed, 0 destroyed") {
		t.Errorf("a third member: %s", out)
	}
	if haproxyPID(t, r) != pid {
		t.Error("a member made HAProxy reload")
	}
	if out := s.run(0, "output", "-json", "members"); out != `["box1","box2","box3"]` {
		t.Errorf("members: %s", out)
	}
	// Somebody changes a member in HAProxy itself, and deletes another over the API.
	r.HAProxy("set server be_imap/box1 state drain")
	if out := s.run(2, "plan", "-detailed-exitcode"); !strings.Contains(out, "drifted: haproxy has it in state drain") {
		t.Errorf("drift: %s", out)
	}
	s.apply(config(three))
	operator(t, r, "PUT", agent, "/v1/lb/pools/imap", fmt.Sprintf(`{"bind": [%q], "idle_seconds": 60}`, at[0]))
	operator(t, r, "DELETE", agent, "/v1/lb/pools/imap/members/box2", "")
	if out := s.run(2, "plan", "-detailed-exitcode"); !strings.Contains(out, "idle_seconds = 60 -> 2100") || !strings.Contains(out, "1 to add, 1 to change, 0 to destroy") {
		t.Errorf("drift: %s", out)
	}
	s.apply(config(three))
	s.imported(map[string]string{
		"shoal_lb_pool.imap":           agent + "/imap",
		`shoal_lb_member.imap["box1"]`: agent + "/imap/box1",
		`shoal_lb_member.imap["box2"]`: agent + "/imap/box2",
	})
	if out := s.apply(config(two)); !strings.Contains(out, "0 added, 0 changed, 1 destroyed") {
		t.Errorf("without the third: %s", out)
	}
	if file := r.Read("lb1/pools.cfg"); strings.Contains(file, "box3") || !strings.Contains(file, "server box2 "+at[2]) {
		t.Errorf("the file:\n%s", file)
	}
	s.refused(config(`box1 = "box1.example.test:143"`), "write an address and a port")
	s.refused(config(`"box 1" = "192.0.2.1:143"`), "must be 1 to 31 of a-z")
	s.write(config(two))
	s.run(0, "destroy", "-auto-approve")
	if file := r.Read("lb1/pools.cfg"); strings.Contains(file, "imap") {
		t.Errorf("destroyed, and the file is\n%s", file)
	}
	// An agent that is not there: one sentence.
	s.write(strings.ReplaceAll(config(two), agent, at[4]))
	if out := s.run(1, "apply", "-auto-approve"); !strings.Contains(out, "cannot be reached") {
		t.Errorf("no agent: %s", out)
	}
}

func haproxyPID(t *testing.T, r *appliance.Rig) string {
	t.Helper()
	for _, l := range strings.Split(r.HAProxy("show info"), "\n") {
		if strings.HasPrefix(l, "Pid:") {
			return l
		}
	}
	t.Fatal("HAProxy does not tell its process id")
	return ""
}

// Volumes, policies and rules: made, changed, imported; what would open the store to the world, and what would delete it, is refused
// while it is a plan.
func TestStorage(t *testing.T) {
	r := appliance.New(t)
	agent := r.Storage()
	s := newStack(t, r)
	config := func(clients, volume string) string {
		return fmt.Sprintf(`
resource "shoal_nfs_export_policy" "boxes" {
  agent = %q
  name  = "boxes"
}
resource "shoal_nfs_export_rule" "boxes" {
  agent   = shoal_nfs_export_policy.boxes.agent
  policy  = shoal_nfs_export_policy.boxes.name
  index   = 10
  clients = [%s]
}
resource "shoal_nfs_volume" "vol01" {
  agent  = shoal_nfs_export_policy.boxes.agent
  name   = "vol01"
  policy = shoal_nfs_export_policy.boxes.name
  %s
}
output "path" { value = shoal_nfs_volume.vol01.path }
`, agent, clients, volume)
	}
	boxes := `"10.1.2.0/24", "2001:db8::7"`
	s.apply(config(boxes, ""))
	if etab := r.Read("storage1/nfs/etab"); !strings.Contains(etab, "10.1.2.0/24(rw") || !strings.Contains(etab, "2001:db8::7/128(rw") {
		t.Errorf("in force:\n%s", etab)
	}
	if out := s.run(0, "output", "-raw", "path"); out != r.Path("storage1/volumes/vol01") {
		t.Errorf("path: %s", out)
	}
	s.imported(map[string]string{
		"shoal_nfs_export_policy.boxes": agent + "/boxes",
		"shoal_nfs_export_rule.boxes":   agent + "/boxes/10",
		"shoal_nfs_volume.vol01":        agent + "/vol01",
	})
	// Somebody opens a volume to the world with exportfs itself, changes a rule, and takes a policy's description away.
	r.InStorage("exportfs", "-i", "-o", "rw,no_root_squash,fsid=7", "*:"+r.Path("storage1/volumes/vol01"))
	if out := s.run(2, "plan", "-detailed-exitcode"); !strings.Contains(out, "drifted: exported to * rw no_root_squash") {
		t.Errorf("drift: %s", out)
	}
	s.apply(config(boxes, ""))
	if force := r.InStorage("exportfs", "-s"); strings.Contains(force, "no_root_squash") {
		t.Errorf("still open: %s", force)
	}
	operator(t, r, "PUT", agent, "/v1/nfs/policies/boxes/rules/10", `{"clients": ["10.1.2.0/24"], "access": "ro"}`)
	operator(t, r, "PUT", agent, "/v1/nfs/policies/boxes", `{"description": "somebody was here"}`)
	if out := s.run(2, "plan", "-detailed-exitcode"); !strings.Contains(out, `access = "ro" -> "rw"`) || !strings.Contains(out, "somebody was here") || !strings.Contains(out, "0 to add, 2 to change") {
		t.Errorf("drift: %s", out)
	}
	s.apply(config(boxes, ""))
	// The volume's file system is not mounted: it is not made anew in its place.
	if err := os.Rename(r.Path("storage1/volumes/vol01"), r.Path("storage1/away")); err != nil {
		t.Fatal(err)
	}
	if out := s.run(1, "apply", "-auto-approve", "-input=false"); !strings.Contains(out, "is its file system mounted?") {
		t.Errorf("a volume that is gone: %s", out)
	}
	if err := os.Rename(r.Path("storage1/away"), r.Path("storage1/volumes/vol01")); err != nil {
		t.Fatal(err)
	}
	s.clean()
	for _, world := range []string{`"0.0.0.0/0"`, `"::/0"`, `"10.0.0.0/8"`} {
		s.refused(config(world, ""), "would open the volume to the world")
	}
	s.refused(config(`"*"`, ""), "names and wildcards are not taken")
	s.refused(config(`"10.1.2.3/24"`, ""), "write 10.1.2.0/24")
	s.refused(strings.ReplaceAll(config(boxes, ""), "index   = 10", "index   = 10\n  squash  = \"none\""), "squash")
	s.write(config(boxes, ""))
	if out := s.run(1, "plan", "-destroy"); !strings.Contains(out, "is protected against deletion") {
		t.Errorf("destroy: %s", out)
	}
	s.refused(config(boxes, "")[:strings.Index(config(boxes, ""), `resource "shoal_nfs_volume"`)], "is protected against deletion")
	s.apply(config(boxes, "deletion_protection = false"))
	if err := os.WriteFile(r.Path("storage1/volumes/vol01/mail"), []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	if out := s.run(1, "destroy", "-auto-approve"); !strings.Contains(out, "holds data") {
		t.Errorf("destroy of a volume with data: %s", out)
	}
	s.apply(config(boxes, "deletion_protection = false\n  on_delete = \"keep\""))
	s.run(0, "destroy", "-auto-approve")
	if r.Read("storage1/volumes/vol01/mail") != "x" {
		t.Error("the data is gone")
	}
	if etab := r.Read("storage1/nfs/etab"); strings.Contains(etab, "vol01") {
		t.Errorf("destroyed, and still in force:\n%s", etab)
	}
}

// Servers, domains, DKIM keys and shadows in the directory; no secret is in the state.
func TestDirectory(t *testing.T) {
	r := appliance.New(t)
	url, sum := r.Authority("")
	s := newStack(t, r)
	seal, err := ecdh.X25519().GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	config := func(status, version string) string {
		return fmt.Sprintf(`
variable "shadow_password" {
  type      = string
  ephemeral = true
}
resource "shoal_server" "box1" {
  name = "box1"
  role = "box"
}
resource "shoal_server" "lb1" {
  name      = "lb1"
  role      = "lb"
  addresses = { control = ["192.0.2.10:9145", "[2001:db8::10]:9145"] }
}
resource "shoal_server" "vault1" {
  name = "vault1"
  role = "vault"

  password_wo         = "${var.shadow_password} and vault1"
  password_wo_version = %[1]s
}
resource "shoal_directory_shadow" "vault2" {
  name                = "vault2"
  master              = ["ldaps://192.0.2.1:636"]
  password_wo         = var.shadow_password
  password_wo_version = %[1]s
}
resource "shoal_domain" "example" {
  name   = "example.test"
  status = %[2]q
}
resource "shoal_dkim_key" "example" {
  domain    = shoal_domain.example.name
  selector  = "s1"
  algorithm = "ed25519"
  seal_to   = %[3]q
}
data "shoal_servers" "boxes" {
  role       = "box"
  depends_on = [shoal_server.box1]
}
output "record" { value = "${shoal_dkim_key.example.record_name} ${shoal_dkim_key.example.record_value}" }
output "boxes" { value = [for s in data.shoal_servers.boxes.servers : s.name] }
`, version, status, base64.StdEncoding.EncodeToString(seal.PublicKey().Bytes()))
	}
	t.Setenv("TF_VAR_shadow_password", "first password of vault2")
	s.apply(config("active", "1"))
	if out := s.run(0, "output", "-raw", "record"); !strings.HasPrefix(out, "s1._domainkey.example.test v=DKIM1; k=ed25519; p=") {
		t.Errorf("record: %s", out)
	}
	if out := s.run(0, "output", "-json", "boxes"); out != `["box1"]` {
		t.Errorf("boxes: %s", out)
	}
	if _, err := r.Directory(appliance.ServerDN("vault2"), "first password of vault2"); err != nil {
		t.Errorf("the shadow cannot bind: %v", err)
	}
	if _, err := r.Directory(appliance.ServerDN("vault1"), "first password of vault2 and vault1"); err != nil {
		t.Errorf("the master, which is another one's shadow one day, cannot bind: %v", err)
	}
	t.Setenv("TF_VAR_shadow_password", "second password of vault2")
	s.apply(config("suspended", "1"))
	if _, err := r.Directory(appliance.ServerDN("vault2"), "first password of vault2"); err != nil {
		t.Errorf("the password changed without another version: %v", err)
	}
	s.apply(config("active", "2"))
	if _, err := r.Directory(appliance.ServerDN("vault2"), "second password of vault2"); err != nil {
		t.Errorf("the password did not change: %v", err)
	}
	sealed, err := r.Admin().Search(ldap.NewSearchRequest("cn=s1,associatedDomain=example.test,ou=domains,o=shoal", 0, 0, 0, 0, false, "(objectClass=*)", []string{"shoalDkimSealedKey"}, nil))
	if err != nil || len(sealed.Entries) != 1 || !strings.HasPrefix(sealed.Entries[0].GetAttributeValue("shoalDkimSealedKey"), "1 ") {
		t.Errorf("the sealed key: %v %v", sealed, err)
	}

	// The server enrols with a token of the operator and announces itself: nothing of that is a change for Terraform.
	token := strings.TrimSpace(r.Shoalctl("token", "create", "box1"))
	if out, errOut, code := r.TryShoalctl(token, "enrol", "--url", url, "--ca-sha256", sum, "--name", "box1", "--role", "box", "--out", r.Path("box1")); code != 0 {
		t.Fatalf("enrol: %s%s", out, errOut)
	}
	r.Shoalctl("enrol", "announce", "--out", r.Path("box1"), "--address", "imap=192.0.2.13:143")
	s.clean()
	s.run(0, "apply", "-auto-approve")
	for what, secret := range map[string]string{"password": "password of vault2", "token": token, "sealed key": strings.TrimPrefix(sealed.Entries[0].GetAttributeValue("shoalDkimSealedKey"), "1 "), "prefix of tokens": "shoal1-"} {
		if strings.Contains(s.state(), secret) {
			t.Errorf("the %s is in the state", what)
		}
	}
	var state struct{ Resources []struct{ Type string } }
	if err := json.Unmarshal([]byte(s.state()), &state); err != nil || len(state.Resources) < 6 {
		t.Fatalf("state: %v %+v", err, state)
	}

	s.imported(map[string]string{
		"shoal_server.box1":             "box1",
		"shoal_server.lb1":              "lb1",
		"shoal_server.vault1":           "vault1",
		"shoal_directory_shadow.vault2": "vault2",
		"shoal_domain.example":          "example.test",
		"shoal_dkim_key.example":        "example.test/s1",
	}, "shoal_directory_shadow.vault2", "shoal_server.vault1") // which of their passwords is written is not to be read
	// Somebody else changes and deletes entries.
	m := ldap.NewModifyRequest("associatedDomain=example.test,ou=domains,o=shoal", nil)
	m.Replace("shoalDomainStatus", []string{"closed"})
	if err := r.Admin().Modify(m); err != nil {
		t.Fatal(err)
	}
	if err := r.Admin().Del(ldap.NewDelRequest(appliance.ServerDN("lb1"), nil)); err != nil {
		t.Fatal(err)
	}
	m = ldap.NewModifyRequest(appliance.ServerDN("vault2"), nil)
	m.Replace("description", []string{"shadow of ldaps://192.0.2.66:636"})
	if err := r.Admin().Modify(m); err != nil {
		t.Fatal(err)
	}
	if err := r.Admin().Del(ldap.NewDelRequest("cn=s1,associatedDomain=example.test,ou=domains,o=shoal", nil)); err != nil {
		t.Fatal(err)
	}
	if out := s.run(2, "plan", "-detailed-exitcode"); !strings.Contains(out, `"closed" -> "active"`) || !strings.Contains(out, "192.0.2.66") || !strings.Contains(out, "2 to add, 2 to change, 0 to destroy") {
		t.Errorf("drift: %s", out)
	}
	s.apply(config("active", "2"))

	s.refused(strings.Replace(config("active", "2"), `name = "box1"`, `name = "box-number-one-of-many"`, 1), "must be 1 to 15 of a-z")
	s.refused(strings.Replace(config("active", "2"), `role = "box"`, `role = "operator"`, 1), "role")
	part := func(filter string) string {
		return strings.Replace(config("active", "2"), `master              = `, fmt.Sprintf("filter = %q\n  master              = ", filter), 1)
	}
	s.refused(part("(ou=people"), "a filter (RFC 4515)")
	for _, filter := range []string{"(associatedDomain=example.test)", ""} { // what it copies, and everything again
		if filter == "" {
			s.apply(config("active", "2"))
		} else {
			s.apply(part(filter))
		}
		found, err := r.Admin().Search(ldap.NewSearchRequest(appliance.ServerDN("vault2"), ldap.ScopeBaseObject, 0, 0, 0, false, "(objectClass=*)", []string{"shoalShadowFilter"}, nil))
		if err != nil || found.Entries[0].GetAttributeValue("shoalShadowFilter") != filter {
			t.Errorf("with the filter %q: %v %v", filter, err, found)
		}
	}
	s.refused(strings.Replace(config("active", "2"), base64.StdEncoding.EncodeToString(seal.PublicKey().Bytes()), "short", 1), "32 bytes in base64")
	s.write(config("active", "2"))
	if out := s.run(1, "plan", "-destroy"); !strings.Contains(out, "cn=vault1") || !strings.Contains(out, "protected") {
		t.Errorf("destroy of the master: %s", out)
	}
	unprotected := strings.Replace(config("active", "2"), `role = "vault"`, `role = "vault"
  deletion_protection = false`, 1)
	s.apply(unprotected)
	// A directory that is not there: one sentence, and the state stays as it was.
	before := s.state()
	s.head = strings.Replace(s.head, r.LDAP, ports.Take(t, 1)[0], 1)
	s.write(unprotected)
	if out := s.run(1, "plan", "-input=false"); !strings.Contains(out, "the directory cannot be reached") {
		t.Errorf("no directory: %s", out)
	}
	if s.state() != before {
		t.Error("the state changed")
	}
	s.head = strings.Replace(s.head, "ldap://", "ldap://"+r.LDAP+"\", \"ldap://", 1)
	s.write(unprotected)
	s.run(0, "destroy", "-auto-approve")
}
