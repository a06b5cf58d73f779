package cluster

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"shoal/tests/ports"
)

// variant writes the configuration of a server of the running service with changes: old text, new text. Unless
// the ports are kept, every address becomes a free one.
func (s *service) variant(t *testing.T, server string, keepPorts bool, changes ...string) string {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join(s.data, "conf", server+".hcl"))
	if err != nil {
		t.Fatal(err)
	}
	text := string(raw)
	if !keepPorts {
		text = regexp.MustCompile(`(?m)(^  address\s*= )"127.0.0.1:\d+"`).ReplaceAllStringFunc(text, func(line string) string {
			return line[:strings.IndexByte(line, '"')] + `"` + ports.One(t) + `"`
		})
	}
	for i := 0; i < len(changes); i += 2 {
		if !strings.Contains(text, changes[i]) {
			t.Fatalf("%s.hcl has no %q:\n%s", server, changes[i], text)
		}
		text = strings.Replace(text, changes[i], changes[i+1], 1)
	}
	path := filepath.Join(t.TempDir(), server+".hcl")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// refuses runs a daemon that must end by itself soon, not with 0, and say all of the words.
func refuses(t *testing.T, daemon string, args []string, words ...string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, filepath.Join(bin, daemon), args...)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	err := cmd.Run()
	if ctx.Err() != nil {
		t.Fatalf("%s %s did not refuse to start within 20 s:\n%s", daemon, strings.Join(args, " "), &out)
	}
	if err == nil {
		t.Errorf("%s %s ended with 0:\n%s", daemon, strings.Join(args, " "), &out)
	}
	for _, word := range words {
		if !strings.Contains(out.String(), word) {
			t.Errorf("%s does not say %q; it says:\n%s", daemon, word, &out)
		}
	}
	if n := strings.Count(out.String(), "\n"); n > 15 || strings.Contains(out.String(), "goroutine ") {
		t.Errorf("%s says too much for a clear error:\n%s", daemon, &out)
	}
}

func TestWrongConfiguration(t *testing.T) {
	s := shared(t)
	for _, c := range []struct {
		name, server, old, new string
		words                  []string
	}{
		{"unknown attribute", "box1", "management {\n  address", "management {\n  adress", []string{"box1.hcl:", "adress", "address"}},
		{"wrong type", "switch1", `timeout = "10s"`, `timeout = 10`, []string{"switch1.hcl:", "timeout", `"30s"`}},
		{"missing attribute", "box1", "  id   = ", "  # ", []string{"box1.hcl:", "id"}},
		{"syntax", "vault1", "server {", "server ", []string{"vault1.hcl:"}},
		{"unknown block", "switch1", "lmtp {", "lmpt {", []string{"switch1.hcl:", "lmpt", "lmtp"}},
		{"secret that is not there", "switch1", "secrets/switch1", "secrets/nobody", []string{"switch1.hcl:", "secrets/nobody", "0600"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			path := s.variant(t, c.server, false, c.old, c.new)
			daemon := strings.TrimRight(c.server, "12") + "d"
			refuses(t, daemon, []string{"-check", "-config", path}, c.words...)
			refuses(t, daemon, []string{"-config", path}, c.words...)
		})
	}
	t.Run("good", func(t *testing.T) {
		for _, server := range []string{"vault1", "box1", "switch1"} {
			command(t, "", filepath.Join(bin, strings.TrimRight(server, "12")+"d"), "-check", "-config", s.variant(t, server, false))
		}
	})
	t.Run("no such file", func(t *testing.T) {
		refuses(t, "boxd", []string{"-config", "/nonexistent/boxd.hcl"}, "/nonexistent/boxd.hcl")
	})
}

func TestVolumeThatIsNotTheRightOne(t *testing.T) {
	s := shared(t)
	volume := filepath.Join(s.data, "volumes", "vol01")
	t.Run("not mounted", func(t *testing.T) {
		empty := t.TempDir()
		path := s.variant(t, "box1", false, `"`+volume+`"`, `"`+empty+`"`)
		refuses(t, "boxd", []string{"-config", path}, "vol01", empty, "mount")
		if entries, _ := os.ReadDir(empty); len(entries) != 0 {
			t.Errorf("something was written into the empty folder: %v", entries)
		}
	})
	t.Run("no folder", func(t *testing.T) {
		path := s.variant(t, "box1", false, `"`+volume+`"`, `"/nonexistent/volume"`)
		refuses(t, "boxd", []string{"-config", path}, "vol01", "/nonexistent/volume")
	})
	t.Run("wrong id", func(t *testing.T) {
		id, err := os.ReadFile(volume + ".id")
		if err != nil {
			t.Fatal(err)
		}
		right := strings.TrimSpace(string(id))
		wrong := "00000000-0000-4000-8000-000000000000"
		path := s.variant(t, "box1", false, right, wrong)
		refuses(t, "boxd", []string{"-config", path}, "vol01", right, wrong)
	})
}

func TestPortInUse(t *testing.T) {
	s := shared(t)
	for _, c := range []struct{ server, address string }{
		{"box1", s.behindBalancer("imap", "box1")},
		{"switch1", s.behindBalancer("smtp", "switch1")},
		{"vault1", s.address("ldap", "vault1")},
	} {
		t.Run(c.server, func(t *testing.T) {
			changes := []string{}
			if c.server == "vault1" { // its database is locked as well, which may be noticed first
				changes = []string{filepath.Join(s.data, "vault1"), t.TempDir()}
			}
			path := s.variant(t, c.server, true, changes...)
			refuses(t, strings.TrimRight(c.server, "12")+"d", []string{"-config", path}, c.address, "in use")
		})
	}
}

func TestExpiredCertificate(t *testing.T) {
	s := shared(t)
	folder := t.TempDir()
	cert, key := filepath.Join(folder, "box1.crt"), filepath.Join(folder, "box1.key")
	expired := s.issueExpired(t, "shoal://box/box1", cert, key)
	path := s.variant(t, "box1", false,
		filepath.Join(s.data, "pki", "box1.crt"), cert, filepath.Join(s.data, "pki", "box1.key"), key)
	refuses(t, "boxd", []string{"-config", path}, cert, "expired", expired.Format("2006-01-02"))
}

// issueExpired makes a certificate of the service's CA that expired a week ago.
func (s *service) issueExpired(t *testing.T, uri, certFile, keyFile string) time.Time {
	t.Helper()
	pair, err := tls.LoadX509KeyPair(s.CAFile, filepath.Join(s.data, "pki", "ca.key"))
	if err != nil {
		t.Fatal(err)
	}
	ca, err := x509.ParseCertificate(pair.Certificate[0])
	if err != nil {
		t.Fatal(err)
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	name, err := url.Parse(uri)
	if err != nil {
		t.Fatal(err)
	}
	end := time.Now().Add(-7 * 24 * time.Hour)
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber: big.NewInt(99), Subject: pkix.Name{CommonName: "expired"}, URIs: []*url.URL{name},
		NotBefore: end.Add(-24 * time.Hour), NotAfter: end, KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}, ca, &key.PublicKey, pair.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	for path, block := range map[string]*pem.Block{certFile: {Type: "CERTIFICATE", Bytes: der}, keyFile: {Type: "PRIVATE KEY", Bytes: keyDER}} {
		if err := os.WriteFile(path, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return end.UTC()
}

// With the master and all shadows of the directory away, senders are told to come back, logins are refused as "not now", and the tool says
// what it cannot reach. When it is back, everything goes on by itself.
func TestDirectoryDown(t *testing.T) {
	s := own(t)
	alice := s.Users[0]
	carol := s.newAccount(t)
	var stopped []int
	resume := func() {
		for _, pid := range stopped {
			if err := syscall.Kill(pid, syscall.SIGCONT); err != nil {
				t.Error(err)
			}
		}
		stopped = nil
	}
	defer resume()
	for _, vault := range []string{"vault1", "vault2", "vault3"} {
		pid := s.pid(vault)
		if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil { // hangs: worse than gone
			t.Fatal(err)
		}
		stopped = append(stopped, pid)
	}

	t.Run("mail for an address not seen before is put off", func(t *testing.T) {
		out, err := tryCommand(t, "", "swaks", "--server", s.address("smtp"), "--from", "a@example.org", "--to", carol.Address, "--helo", "client.example.org", "--timeout", "60")
		if err == nil || !strings.Contains(out, "451") {
			t.Errorf("got %v, want a 451:\n%s", err, out)
		}
	})
	t.Run("login", func(t *testing.T) {
		out, err := tryCommand(t, "", "curl", "-vsS", "--cacert", s.CAFile, "--user", alice.Address+":"+alice.Password, "--max-time", "60",
			"imaps://localhost:"+portOf(s.address("imaps"))+"/")
		if err == nil || !strings.Contains(out, "[UNAVAILABLE]") {
			t.Errorf("got %v, want NO [UNAVAILABLE]:\n%s", err, out)
		}
	})
	t.Run("shoalctl", func(t *testing.T) {
		out, err := s.tryShoalctl(t, "account", "list")
		if exitCode(err) != 4 || !strings.Contains(out, portOf(s.address("ldap"))) {
			t.Errorf("got %v, want exit code 4 and the directory's address: %s", err, out)
		}
	})
	t.Run("status", func(t *testing.T) {
		out, err := s.tryShoalctl(t, "status")
		if err == nil || !strings.Contains(out, "be_ldap") {
			t.Errorf("got %v: %s", err, out)
		}
	})
	resume()
	s.waitUp(t)
	begin := time.Now()
	var out string
	// Who found the directory away just before may say "later" for another moment.
	wait(t, 15*time.Second, func() bool {
		var err error
		out, err = tryCommand(t, message("after-the-outage", 500), "curl", "-vsS", "smtp://"+s.address("smtp")+"/client.example.org",
			"--mail-from", "sender@example.org", "--mail-rcpt", carol.Address, "-T", "-")
		if err != nil && !regexp.MustCompile(`(?m)^< 4\d\d`).MatchString(out) {
			t.Fatalf("%v\n%s", err, out)
		}
		return err == nil
	}, func() string { return "mail goes through: " + out })
	for _, box := range []string{"box1", "box2"} {
		wait(t, 15*time.Second, func() bool {
			out, _ = tryCommand(t, "", "curl", "-vsS", "--cacert", s.CAFile, "--user", carol.Address+":"+carol.Password,
				"imaps://localhost:"+portOf(s.address("imaps", box))+"/INBOX;MAILINDEX=1")
			if strings.Contains(out, "AUTHENTICATIONFAILED") {
				t.Fatalf("%s takes the right password for a wrong one:\n%s", box, out)
			}
			return strings.Contains(out, "after-the-outage")
		}, func() string { return box + " lets carol in: " + out })
	}
	t.Logf("everything works %v after the servers were found up", time.Since(begin).Round(time.Millisecond))
}

// On a full volume mail is refused for now, with the reason; nothing acknowledged is lost; when there is room
// again it goes on.
func TestFullDisk(t *testing.T) {
	folder := t.TempDir()
	data := filepath.Join(folder, "data")
	volumes := filepath.Join(data, "volumes")
	// A file system of its own, in a mount namespace that ends with the service.
	script := fmt.Sprintf(`mkdir -p %[1]s && printf 'shoal-data 1\n' > %[2]s/shoal-data && mount -t tmpfs -o size=24m,mode=700 tmpfs %[1]s && head -c 12M /dev/zero >%[1]s/ballast && exec "$@"`, volumes, data)
	wrap := []string{"unshare", "--mount", "--propagation", "private"}
	if os.Getuid() != 0 {
		wrap = append(wrap, "--user", "--map-root-user")
	}
	s, err := launchAnywhere(data, append(wrap, "sh", "-c", script, "sh")...)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if t.Failed() {
			s.showLogs(t)
		}
		if err := s.end(); err != nil {
			t.Errorf("the end of the service: %v", err)
		}
	}()
	before := s.pids()
	alice := s.Users[0]
	acknowledged := 0
	refused := ""
	for i := range 40 {
		out, err := tryCommand(t, message(fmt.Sprint("full-", i), 500_000), "curl", "-vsS", "smtp://"+s.address("smtp")+"/client.example.org",
			"--mail-from", "sender@example.org", "--mail-rcpt", alice.Address, "-T", "-")
		if err != nil {
			refused = out
			break
		}
		acknowledged++
	}
	replies := regexp.MustCompile(`(?m)^< 4\d\d.*`).FindString(refused)
	if replies == "" || !strings.Contains(replies, "4.") {
		t.Errorf("want a refusal for now, with its reason, got %q of\n%s", replies, refused)
	}
	t.Logf("%d messages, then %q", acknowledged, replies)
	if acknowledged < 5 {
		t.Errorf("only %d messages fitted", acknowledged)
	}
	check := func(want int) {
		t.Helper()
		for _, box := range []string{"box1", "box2"} {
			if got := len(fetchAll(t, s.imap(t, alice, box, nil), "INBOX")); got != want {
				t.Errorf("%s: %d messages, want the %d that were acknowledged", box, got, want)
			}
		}
	}
	check(acknowledged)
	for name, pid := range s.pids() {
		if pid != before[name] {
			t.Errorf("%s was process %d and is now %d", name, before[name], pid)
		}
	}
	// Room again: the mount is seen through the root of a process that is inside.
	if err := os.Remove(filepath.Join("/proc", fmt.Sprint(s.pid("box1")), "root", volumes, "ballast")); err != nil {
		t.Fatal(err)
	}
	s.curlSend(t, alice.Address, message("room again", 500_000))
	check(acknowledged + 1)
}
