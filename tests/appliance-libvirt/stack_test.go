package libvirt

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// patience bounds one run of Terraform: seven machines start under emulation on two processors.
const patience = 60 * time.Minute

// stack is the example of the repository, with the settings of the test.
type stack struct {
	t         *testing.T
	dir       string
	operator  string
	variables map[string]any
}

// override is laid over the example: what a test wants otherwise than an operator.
const override = `
module "service" {
  deletion_protection = false
  drain_seconds       = 60
  ready_seconds       = 3000 # emulation takes its time
  keep_data           = false
  domains             = { "example.test" = { default_volume = "vol01" } }
  authorized_keys     = [trimspace(file("${var.operator}/ssh.pub"))]
}
`

// newStack makes the CA, the operator, and the secrets of the directory's master, as docs/terraform.md says.
func newStack(t *testing.T) *stack {
	t.Helper()
	s := &stack{t: t, dir: filepath.Join(dir, "terraform/examples/libvirt"), operator: filepath.Join(dir, "operator")}
	ca := filepath.Join(dir, "ca")
	s.ctl("ca", "create", ca)
	s.ctl("ca", "issue", "operator", "alice", "--ca", ca, "--out", s.operator)
	s.ctl("ca", "issue", "vault", "vault1", "--ca", ca, "--out", filepath.Join(dir, "vault1"), "--host", master)
	sum := s.ctl("ca", "fingerprint", filepath.Join(ca, "ca.crt"))
	run(t, "ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", filepath.Join(s.operator, "ssh"))
	put(t, filepath.Join(s.operator, "root.secret"), rootPassword+"\n")
	read := func(parts ...string) string {
		b, err := os.ReadFile(filepath.Join(append([]string{dir}, parts...)...))
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	secret, err := json.Marshal(map[string]any{"shoal": map[string]any{
		"credentials": map[string]string{"ca": read("ca", "ca.crt"), "cert": read("vault1", "vault1.crt"), "key": read("vault1", "vault1.key"), "directory_password": masterPassword},
		"vault":       map[string]any{"root_password": rootPassword, "authority": map[string]string{"ca_key": read("ca", "ca.key")}},
	}})
	if err != nil {
		t.Fatal(err)
	}
	put(t, filepath.Join(s.operator, "shoalctl.hcl"), `
identity {
  cert_file = "alice.crt"
  key_file  = "alice.key"
  ca_file   = "ca.crt"
}
directory {
  uris          = ["ldaps://`+master+`:636"]
  bind_dn       = "cn=admin,o=shoal"
  password_file = "root.secret"
}
`)
	for _, what := range []string{"modules", "examples"} {
		if err := os.CopyFS(filepath.Join(dir, "terraform", what), os.DirFS(filepath.Join(root, "terraform", what))); err != nil {
			t.Fatal(err)
		}
	}
	put(t, filepath.Join(s.dir, "override.tf"), override)
	s.variables = map[string]any{
		"images": s.images(), "domain_type": "qemu", "box_count": 2, "operator": s.operator, "libvirt": "qemu:///system?socket=/run/libvirt/libvirt-sock",
		"authority": map[string]string{"url": "https://" + master + ":7443", "ca_sha256": sum}, "master_secret": string(secret),
	}
	s.write()
	s.run("init", "-input=false")
	return s
}

// images are the roles' images by the manifest of the build.
func (s *stack) images() map[string]any {
	s.t.Helper()
	b, err := os.ReadFile(filepath.Join(images, "MANIFEST.json"))
	if err != nil {
		s.t.Fatal(err)
	}
	var m struct {
		Artifacts []struct {
			File, SHA256, Role, Format string
			Size                       int64
		}
	}
	if err := json.Unmarshal(b, &m); err != nil {
		s.t.Fatal(err)
	}
	all := map[string]any{}
	for _, a := range m.Artifacts {
		if a.Format == "qcow2" {
			all[a.Role] = map[string]string{"file": filepath.Join(images, a.File), "sha256": a.SHA256}
			s.t.Logf("image %s: %.1f MB", a.Role, float64(a.Size)/1e6)
		}
	}
	return all
}

func (s *stack) write() {
	s.t.Helper()
	b, err := json.Marshal(s.variables)
	if err != nil {
		s.t.Fatal(err)
	}
	put(s.t, filepath.Join(s.dir, "terraform.tfvars.json"), string(b))
}

// try runs Terraform and gives its exit code and what it says.
func (s *stack) try(args ...string) (int, string) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, tool, args...)
	cmd.Dir = s.dir
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = time.Minute
	cmd.Env = append(os.Environ(), "TF_CLI_CONFIG_FILE="+cli, "TF_IN_AUTOMATION=1", "CHECKPOINT_DISABLE=1", "TF_CLI_ARGS=-no-color")
	log, err := os.Create(filepath.Join(dir, "terraform-"+args[0]+".log")) // for whoever wants to look on
	if err != nil {
		s.t.Fatal(err)
	}
	defer log.Close()
	var out bytes.Buffer
	cmd.Stdout = io.MultiWriter(&out, log)
	cmd.Stderr = cmd.Stdout
	_ = cmd.Run() // its exit code tells
	return cmd.ProcessState.ExitCode(), out.String()
}

func (s *stack) run(args ...string) string {
	s.t.Helper()
	code, out := s.try(args...)
	if code != 0 {
		s.t.Fatalf("terraform %s: exit code %d\n%s", strings.Join(args, " "), code, tail([]byte(out), 6000))
	}
	return out
}

// apply applies and reports the time.
func (s *stack) apply(what string) string {
	s.t.Helper()
	begin := time.Now()
	out := s.run("apply", "-auto-approve", "-input=false")
	s.t.Logf("%s: %.0f s", what, time.Since(begin).Seconds())
	return out
}

// clean: a further plan changes nothing.
func (s *stack) clean(when string) {
	s.t.Helper()
	if code, out := s.try("plan", "-detailed-exitcode", "-input=false"); code != 0 {
		s.t.Errorf("%s, a further plan has exit code %d\n%s", when, code, tail([]byte(out), 6000))
	}
}

// ctl runs shoalctl as the operator.
func (s *stack) ctl(args ...string) string {
	s.t.Helper()
	cmd := exec.Command(filepath.Join(bin, "shoalctl"), append([]string{"--config", filepath.Join(s.operator, "shoalctl.hcl")}, args...)...)
	if cmd.Dir = s.operator; args[0] == "ca" {
		cmd.Dir = dir
	}
	out, err := cmd.CombinedOutput()
	if err != nil {
		s.t.Fatalf("shoalctl %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return strings.TrimSpace(string(out))
}

// ssh runs a command on a machine, as the operator.
func (s *stack) ssh(address, command string) (string, error) {
	out, err := exec.Command("ssh", "-q", "-i", filepath.Join(s.operator, "ssh"), "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null",
		"-o", "ConnectTimeout=60", "root@"+address, command).CombinedOutput()
	return string(out), err
}
