package boxd

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
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

	"shoal/daemons/internal/kit"
	"shoal/daemons/internal/mailstore"
	"shoal/daemons/internal/pki"
	"shoal/daemons/internal/vfs"
	"shoal/tests/ports"
)

// The tests run real daemons: this test program starts itself anew, and is then boxd.
func TestMain(m *testing.M) {
	if os.Getenv("BOXD_TEST_DAEMON") != "" {
		os.Exit(kit.Main(Spec()))
	}
	os.Exit(m.Run())
}

const volumeID = "0d6f3c6e-6d2c-4c0c-9b0e-2f4f6b1f9a51"

// site is a folder with what a box needs to start.
type site struct {
	t         *testing.T
	dir       string
	ca        *pki.CA
	text      string // of the configuration
	imap      string
	imaps     string
	lmtp      string
	hint      string
	manage    string
	directory string // host:port
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func newSite(t *testing.T) *site {
	t.Helper()
	ca, err := pki.NewCA(pki.CAOptions{})
	must(t, err)
	at := ports.Take(t, 6)
	s := &site{
		t: t, dir: t.TempDir(), ca: ca,
		imap: at[0], imaps: at[1], lmtp: at[2], hint: at[3], manage: at[4], directory: at[5],
	}
	must(t, ca.Save(s.path("ca.crt"), s.path("ca.key")))
	s.issue(ca, "box1", pki.Request{Role: pki.RoleBox, Name: "box1"})
	s.issue(ca, "public", pki.Request{Hosts: []string{"localhost", "127.0.0.1"}})
	must(t, pki.WriteFile(s.path("secret"), []byte("service secret\n"), 0o600))
	must(t, os.Mkdir(s.path("vol01"), 0o700))
	must(t, mailstore.InitVolume(vfs.OS(), s.path("vol01"), volumeID))
	s.text = fmt.Sprintf(`server {
  name = "box1"
}
identity {
  cert_file = "box1.crt"
  key_file  = "box1.key"
  ca_file   = "ca.crt"
}
public_tls {
  cert_file = "public.crt"
  key_file  = "public.key"
}
directory {
  uris            = ["ldaps://%s"]
  bind_dn         = "cn=box1,ou=servers,ou=config,o=shoal"
  password_file   = "secret"
  connect_timeout = "2s"
}
volume "vol01" {
  path = "vol01"
  id   = "%s"
}
listener "imap" {
  address = "%s"
}
listener "imaps" {
  address = "%s"
  tls     = true
}
listener "lmtp" {
  address = "%s"
}
listener "hint" {
  address = "%s"
}
management {
  address = "%s"
}
log {
  format = "text"
}
drain {
  timeout = "5s"
}
`, s.directory, volumeID, s.imap, s.imaps, s.lmtp, s.hint, s.manage)
	return s
}

func (s *site) path(parts ...string) string {
	return filepath.Join(append([]string{s.dir}, parts...)...)
}

func (s *site) issue(ca *pki.CA, file string, r pki.Request) {
	s.t.Helper()
	pair, err := ca.Issue(r)
	must(s.t, err)
	must(s.t, pair.Save(s.path(file+".crt"), s.path(file+".key")))
}

// replace changes the configuration; what is replaced must be there.
func (s *site) replace(old, by string) {
	s.t.Helper()
	if !strings.Contains(s.text, old) {
		s.t.Fatalf("the configuration does not contain %q", old)
	}
	s.text = strings.Replace(s.text, old, by, 1)
}

// daemon is a running boxd.
type daemon struct {
	t    *testing.T
	cmd  *exec.Cmd
	mu   sync.Mutex
	out  bytes.Buffer
	done chan struct{}
	code int
}

func (d *daemon) Write(p []byte) (int, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.out.Write(p)
}

func (d *daemon) output() string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.out.String()
}

// start runs boxd on the site's configuration.
func (s *site) start(args ...string) *daemon {
	s.t.Helper()
	must(s.t, os.WriteFile(s.path("boxd.hcl"), []byte(s.text), 0o600))
	d := &daemon{t: s.t, done: make(chan struct{})}
	d.cmd = exec.Command(os.Args[0], append([]string{"-config", s.path("boxd.hcl")}, args...)...)
	d.cmd.Env = append(os.Environ(), "BOXD_TEST_DAEMON=1")
	d.cmd.Stdout, d.cmd.Stderr = d, d
	must(s.t, d.cmd.Start())
	go func() {
		_ = d.cmd.Wait() // the exit code says it
		d.code = d.cmd.ProcessState.ExitCode()
		close(d.done)
	}()
	s.t.Cleanup(func() {
		_ = d.cmd.Process.Kill()
		<-d.done
	})
	return d
}

// ended waits for the end of the daemon and returns its exit code.
func (d *daemon) ended() int {
	d.t.Helper()
	select {
	case <-d.done:
		return d.code
	case <-time.After(30 * time.Second):
		d.t.Fatalf("boxd did not end:\n%s", d.output())
		return -1
	}
}

// until calls f until it returns nil or the daemon has ended.
func (d *daemon) until(f func() error) {
	d.t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(30 * time.Second)
	for {
		err := f()
		if err == nil {
			return
		}
		select {
		case <-d.done:
			d.t.Fatalf("%v; boxd ended with %d:\n%s", err, d.code, d.output())
		case <-deadline:
			d.t.Fatalf("%v\n%s", err, d.output())
		case <-tick.C:
		}
	}
}

func (d *daemon) says(words ...string) {
	d.t.Helper()
	d.until(func() error {
		for _, w := range words {
			if !strings.Contains(d.output(), w) {
				return fmt.Errorf("boxd does not say %q", w)
			}
		}
		return nil
	})
}

func TestRefusedStarts(t *testing.T) {
	past := func() time.Time { return time.Now().Add(-100 * 24 * time.Hour) }
	for _, c := range []struct {
		name   string
		change func(*site)
		says   []string
	}{
		{"misspelt attribute", func(s *site) { s.replace("bind_dn ", "bind_dm ") },
			[]string{"boxd.hcl:15", "bind_dm", "bind_dn"}},
		{"number in quotes", func(s *site) { s.replace("drain {", "drain {\n  delay = 5") },
			[]string{"boxd.hcl:43", "delay", "in quotes"}},
		{"no volume", func(s *site) {
			s.replace(s.text[strings.Index(s.text, "volume"):strings.Index(s.text, "listener")], "")
		},
			[]string{"boxd.hcl", "no volume block", `volume "vol01"`}},
		{"no identity", func(s *site) {
			s.replace(s.text[strings.Index(s.text, "identity"):strings.Index(s.text, "public_tls")], "")
		},
			[]string{"boxd.hcl", "no identity block", "cert_file"}},
		{"no hint listener", func(s *site) { s.replace(`listener "hint"`, `listener "lmtp-other"`) },
			[]string{`no listener "hint"`}},
		{"hint listener everywhere", func(s *site) { s.replace(s.hint, "0.0.0.0:7001") },
			[]string{"bound to every address", "hints { address"}},
		{"unknown listener", func(s *site) { s.replace(`listener "lmtp"`, `listener "pop4"`) },
			[]string{`"pop4"`, "imap, imaps, pop3, pop3s, managesieve, lmtp, hint"}},
		{"imaps without tls", func(s *site) { s.replace("  tls     = true\n", "") },
			[]string{`"imaps"`, "tls = true"}},
		{"unmounted volume", func(s *site) {
			must(s.t, os.RemoveAll(s.path("vol01")))
			must(s.t, os.Mkdir(s.path("vol01"), 0o700))
		}, []string{"vol01", "shoal-volume", "mounted?", "mount volume vol01 at"}},
		{"no such folder", func(s *site) { must(s.t, os.RemoveAll(s.path("vol01"))) },
			[]string{"vol01", "mount volume vol01 at"}},
		{"wrong volume id", func(s *site) { s.replace(volumeID, "11111111-2222-3333-4444-555555555555") },
			[]string{"volume vol01", volumeID, "11111111-2222-3333-4444-555555555555", "mount the right volume"}},
		{"volume of a newer version", func(s *site) {
			must(s.t, os.WriteFile(s.path("vol01", "shoal-volume"), []byte("shoal-volume 2.0\nid "+volumeID+"\n"), 0o600))
		}, []string{"vol01", "newer", "upgrade"}},
		{"expired certificate", func(s *site) {
			old, err := pki.NewCA(pki.CAOptions{Now: past, Validity: 1000 * 24 * time.Hour})
			must(s.t, err)
			must(s.t, old.Save(s.path("ca.crt"), s.path("ca.key")))
			s.issue(old, "box1", pki.Request{Role: pki.RoleBox, Name: "box1", Validity: 24 * time.Hour})
		}, []string{"box1.crt", "expired", past().Add(24 * time.Hour).UTC().Format("2006-01-02")}},
		{"expired public certificate", func(s *site) {
			old, err := pki.NewCA(pki.CAOptions{Now: past, Validity: 1000 * 24 * time.Hour})
			must(s.t, err)
			s.issue(old, "public", pki.Request{Hosts: []string{"localhost"}, Validity: 24 * time.Hour})
		}, []string{"public.crt", "expired"}},
		{"certificate of another CA", func(s *site) {
			other, err := pki.NewCA(pki.CAOptions{})
			must(s.t, err)
			s.issue(other, "box1", pki.Request{Role: pki.RoleBox, Name: "box1"})
		}, []string{"box1.crt", "ca.crt", "not signed"}},
		{"certificate of another server", func(s *site) { s.issue(s.ca, "box1", pki.Request{Role: pki.RoleBox, Name: "box2"}) },
			[]string{"shoal://box/box2", "shoal://box/box1"}},
		{"certificate of a switch", func(s *site) { s.issue(s.ca, "box1", pki.Request{Role: pki.RoleSwitch, Name: "box1"}) },
			[]string{"shoal://switch/box1", "shoal://box/box1"}},
		{"port in use", func(s *site) {
			l, err := net.Listen("tcp", s.lmtp)
			must(s.t, err)
			s.t.Cleanup(func() { must(s.t, l.Close()) })
		}, []string{"lmtp", "in use", "another address"}},
		{"no password file", func(s *site) { must(s.t, os.Remove(s.path("secret"))) },
			[]string{"secret", "does not exist"}},
		{"open password file", func(s *site) { must(s.t, os.Chmod(s.path("secret"), 0o644)) },
			[]string{"secret", "chmod 600"}},
		{"no bind_dn", func(s *site) {
			s.replace("  bind_dn         = \"cn=box1,ou=servers,ou=config,o=shoal\"\n  password_file   = \"secret\"\n", "")
		},
			[]string{"bind_dn", "cn=box1,ou=servers,ou=config,o=shoal"}},
		{"no default domain", func(s *site) { s.text += "login {\n  default_domain = \"not a domain\"\n}\n" },
			[]string{"default domain", "not a domain"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newSite(t)
			c.change(s)
			d := s.start()
			if code := d.ended(); code != 1 {
				t.Errorf("exit code %d", code)
			}
			out := d.output()
			for _, w := range c.says {
				if !strings.Contains(out, w) {
					t.Errorf("%q is not in the message:\n%s", w, out)
				}
			}
			if strings.Contains(out, "panic") || strings.Contains(out, "goroutine") {
				t.Errorf("a crash:\n%s", out)
			}
			entries, err := os.ReadDir(s.path("vol01"))
			if c.name == "unmounted volume" && (err != nil || len(entries) != 0) {
				t.Errorf("something was written into the empty mount point: %v %v", entries, err)
			}
		})
	}
}

func TestCheck(t *testing.T) {
	s := newSite(t)
	d := s.start("-check")
	if code := d.ended(); code != 0 || !strings.Contains(d.output(), "is good") {
		t.Errorf("exit code %d:\n%s", code, d.output())
	}
	must(t, os.Remove(s.path("vol01", "shoal-volume")))
	d = s.start("-check")
	if code := d.ended(); code != 1 || !strings.Contains(d.output(), "mount volume vol01") {
		t.Errorf("exit code %d:\n%s", code, d.output())
	}
}

// get asks the management address.
func (s *site) get(path string) (int, string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+s.manage+path, nil)
	if err != nil {
		return 0, "", err
	}
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		return 0, "", err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	return resp.StatusCode, string(b), err
}

func TestDirectoryDownAtStart(t *testing.T) {
	s := newSite(t)
	d := s.start()
	// It says so once, with the server and what to look at, and goes on.
	d.says("directory cannot be reached", "ldaps://"+s.directory, "refused", "check directory { uris }")
	d.until(func() error {
		code, body, err := s.get("/readyz")
		switch {
		case err != nil:
			return err
		case code != http.StatusServiceUnavailable || !strings.Contains(body, s.directory):
			return fmt.Errorf("/readyz: %d %s", code, body)
		}
		return nil
	})
	// Clients are told to come again, not that their password is wrong.
	var c *tls.Conn
	d.until(func() (err error) {
		c, err = tls.Dial("tcp", s.imaps, &tls.Config{InsecureSkipVerify: true})
		return err
	})
	defer c.Close()
	must(t, c.SetDeadline(time.Now().Add(20*time.Second)))
	_, err := c.Write([]byte("a LOGIN alice@example.test secret\r\n"))
	must(t, err)
	var got bytes.Buffer
	for !strings.Contains(got.String(), "a NO") {
		b := make([]byte, 4096)
		n, err := c.Read(b)
		got.Write(b[:n])
		if err != nil {
			t.Fatalf("%v after %q", err, got.String())
		}
	}
	if !strings.Contains(got.String(), "a NO [UNAVAILABLE]") {
		t.Errorf("LOGIN without a directory: %q", got.String())
	}
	// The directory comes: nothing has to be restarted.
	s.startVault(t, map[string]string{"box1": s.hint})
	d.until(func() error {
		if code, body, err := s.get("/readyz"); err != nil || code != http.StatusOK {
			return fmt.Errorf("/readyz: %d %s %w", code, body, err)
		}
		return nil
	})
	dialIMAP(t, s.imaps)
	must(t, d.cmd.Process.Signal(syscall.SIGTERM))
	if code := d.ended(); code != 0 {
		t.Errorf("exit code %d:\n%s", code, d.output())
	}
	rest, err := io.ReadAll(c)
	if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) || !strings.HasPrefix(string(rest), "* BYE") {
		t.Errorf("at the end the client was told %q (%v)", rest, err)
	}
	if n := strings.Count(d.output(), "directory cannot be reached"); n != 1 {
		t.Errorf("said %d times:\n%s", n, d.output())
	}
}
