// Package cluster tests the built service as its users meet it: `shoalctl up` starts the real daemons and
// HAProxy on loopback ports and a folder of the test, and foreign clients (swaks, curl, mbsync, mutt, offlineimap,
// fetchmail, mpop, Python, git) use it.
//
// Most tests share one service, started by the first that needs it; tests that break something for good start
// their own. The programs are those in SHOAL_BIN; where it is not set, they are built first.
package cluster

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// bin is the folder of the programs, absolute.
var bin string

func TestMain(m *testing.M) {
	code, err := testMain(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

func testMain(m *testing.M) (int, error) {
	for _, tool := range []string{"haproxy", "swaks", "curl", "mbsync", "git", "ldapsearch", "mutt", "script", "offlineimap", "fetchmail", "mpop", "gsasl", "msmtp", "python3", "strace", "dovecot", "slapd"} {
		if _, err := exec.LookPath(tool); err != nil {
			if _, err := os.Stat("/usr/sbin/" + tool); err != nil {
				return 1, fmt.Errorf("%s is not installed, and the tests need it: run make install-deps", tool)
			}
		}
	}
	bin = os.Getenv("SHOAL_BIN")
	if bin == "" {
		folder, err := os.MkdirTemp("", "shoal-bin-")
		if err != nil {
			return 1, err
		}
		defer os.RemoveAll(folder)
		build := exec.Command("go", "build", "-o", folder, "../../daemons/...")
		if out, err := build.CombinedOutput(); err != nil {
			return 1, fmt.Errorf("go build: %w\n%s", err, out)
		}
		bin = folder
	}
	var err error
	if bin, err = filepath.Abs(bin); err != nil {
		return 1, err
	}
	defer endShared()
	return m.Run(), nil
}

// info is what shoalctl up --json says: how to connect.
type info struct {
	Data     string
	CAFile   string            `json:"ca_file"`
	Services map[string]string // at the balancer, by service
	Servers  map[string]map[string]string
	Users    []user
}

type user struct{ Address, Password string }

// status is what shoalctl status --json says.
type status struct {
	Healthy  bool
	Servers  []struct{ Name, Role, State, Problem string }
	Backends []struct{ Backend, Name, Status, Check string }
}

// service is one running `shoalctl up`.
type service struct {
	info
	data   string
	cmd    *exec.Cmd
	out    *output
	ended  chan struct{} // the process has ended, with waitErr
	waited error
}

// output collects what a program prints.
type output struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (o *output) Write(b []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.Write(b)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.String()
}

// errStart is why a service did not start.
type errStart struct{ out string }

func (e errStart) Error() string { return "shoalctl up ended:\n" + e.out }

// underSlapd among the words in front of the command stands for a service whose directory is OpenLDAP's slapd.
const underSlapd = "--under-slapd"

// launch starts a service on a data folder and a port base, and waits until it is ready. wrap, if any, is a
// command in front of shoalctl.
func launch(data string, base int, wrap ...string) (*service, error) {
	args := append(wrap, filepath.Join(bin, "shoalctl"), "up", "--json", "--quiet",
		"--data", data, "--port-base", strconv.Itoa(base))
	if i := slices.Index(wrap, underSlapd); i >= 0 {
		args = append(slices.Delete(args, i, i+1), "--directory", "slapd")
	}
	s := &service{data: data, cmd: exec.Command(args[0], args[1:]...), out: &output{}, ended: make(chan struct{})}
	s.cmd.Stdout, s.cmd.Stderr = s.out, s.out
	// Ends with the test program, however that ends.
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
	started := make(chan error)
	go func() {
		lockThread()
		if err := s.cmd.Start(); err != nil {
			started <- err
			return
		}
		started <- nil
		s.waited = s.cmd.Wait()
		close(s.ended)
	}()
	if err := <-started; err != nil {
		return nil, err
	}
	ready := filepath.Join(data, "run", "ready")
	deadline := time.Now().Add(2 * time.Minute)
	for {
		select {
		case <-s.ended:
			return nil, errStart{s.out.String()}
		case <-time.After(20 * time.Millisecond):
		}
		if _, err := os.Stat(ready); err == nil {
			for line := range strings.Lines(s.out.String()) { // it is written a moment after the file
				if strings.HasPrefix(line, "{") && strings.HasSuffix(line, "\n") {
					return s, json.Unmarshal([]byte(line), &s.info)
				}
			}
		}
		if time.Now().After(deadline) {
			s.kill()
			return nil, errStart{"not ready in time, or it does not say how to connect\n" + s.out.String()}
		}
	}
}

// launchAnywhere tries port bases until one is free.
func launchAnywhere(data string, wrap ...string) (*service, error) {
	var err error
	for range 20 {
		base := 2000 + 100*rand.IntN(250) // up to the ports of tests/ports
		var s *service
		s, err = launch(data, base, wrap...)
		if err == nil {
			return s, nil
		}
		if !strings.Contains(err.Error(), "ports are in use") {
			return nil, err
		}
	}
	return nil, err
}

// end stops the service as Ctrl-C does and waits for its end.
func (s *service) end() error {
	_ = s.cmd.Process.Signal(syscall.SIGINT)
	select {
	case <-s.ended:
		return s.waited
	case <-time.After(90 * time.Second):
		s.kill()
		return errors.New("shoalctl up did not end 90 s after SIGINT")
	}
}

func (s *service) kill() {
	_ = s.cmd.Process.Kill()
	<-s.ended
}

// own starts a service for one test.
func own(t *testing.T, wrap ...string) *service {
	t.Helper()
	s, err := launchAnywhere(filepath.Join(t.TempDir(), "data"), wrap...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			s.showLogs(t)
		}
		if err := s.end(); err != nil {
			t.Errorf("the end of the service: %v\n%s", err, s.out)
		}
	})
	return s
}

var sharedService struct {
	once   sync.Once
	s      *service
	err    error
	folder string
}

// shared gives the service that most tests use.
func shared(t *testing.T) *service {
	t.Helper()
	sh := &sharedService
	sh.once.Do(func() {
		if sh.folder, sh.err = os.MkdirTemp("", "shoal-cluster-"); sh.err != nil {
			return
		}
		sh.s, sh.err = launchAnywhere(filepath.Join(sh.folder, "data"))
	})
	if sh.err != nil {
		t.Fatal(sh.err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			sh.s.showLogs(t)
		}
	})
	return sh.s
}

func endShared() {
	sh := &sharedService
	if sh.s != nil {
		if err := sh.s.end(); err != nil {
			fmt.Fprintf(os.Stderr, "the end of the shared service: %v\n%s", err, sh.s.out)
		}
	}
	if sh.folder != "" {
		os.RemoveAll(sh.folder)
	}
}

// showLogs prints the end of each server's log after a failure.
func (s *service) showLogs(t *testing.T) {
	t.Helper()
	logs, _ := filepath.Glob(filepath.Join(s.data, "log", "*.log"))
	for _, path := range logs {
		text, err := os.ReadFile(path)
		if err != nil {
			continue
		}
		lines := strings.Split(strings.TrimRight(string(text), "\n"), "\n")
		t.Logf("the end of %s:\n%s", filepath.Base(path), strings.Join(lines[max(0, len(lines)-12):], "\n"))
	}
}

// shoalctl runs a command line against the service.
func (s *service) shoalctl(t *testing.T, args ...string) string {
	t.Helper()
	out, err := s.tryShoalctl(t, args...)
	if err != nil {
		t.Fatalf("shoalctl %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return out
}

// tryShoalctl returns what it printed, on both outputs if it failed.
func (s *service) tryShoalctl(t *testing.T, args ...string) (string, error) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), filepath.Join(bin, "shoalctl"), append([]string{"--data", s.data}, args...)...)
	var out, errOut bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errOut
	err := cmd.Run()
	if err != nil {
		return out.String() + errOut.String(), err
	}
	return out.String(), nil
}

// account makes an account and returns it with its password.
func (s *service) account(t *testing.T, local string) user {
	t.Helper()
	var made struct{ Address, Password string }
	answer := s.shoalctl(t, "account", "add", local+"@example.test", "--generate", "--json")
	if err := json.Unmarshal([]byte(answer), &made); err != nil {
		t.Fatalf("shoalctl account add: %v: %s", err, answer)
	}
	return user{Address: made.Address, Password: made.Password}
}

var accountNumber struct {
	sync.Mutex
	n int
}

// newAccount makes an account that no other test uses, and that the whole directory knows.
func (s *service) newAccount(t *testing.T) user {
	t.Helper()
	u := s.unspread(t)
	s.spread(t, u.Address)
	return u
}

// unspread makes an account that the directory's master knows.
func (s *service) unspread(t *testing.T) user {
	t.Helper()
	accountNumber.Lock()
	accountNumber.n++
	n := accountNumber.n
	accountNumber.Unlock()
	return s.account(t, fmt.Sprintf("user%d", n))
}

// pid of a server, 0 while it is down.
func (s *service) pid(server string) int {
	text, err := os.ReadFile(filepath.Join(s.data, "run", server+".pid"))
	if err != nil {
		return 0
	}
	pid, _ := strconv.Atoi(strings.TrimSpace(string(text)))
	return pid
}

// servers are the names of all servers, the balancer's too.
func (s *service) servers() []string {
	names := []string{"lb1"}
	for name := range s.Servers {
		names = append(names, name)
	}
	return names
}

// pids of all servers.
func (s *service) pids() map[string]int {
	all := map[string]int{}
	for _, name := range s.servers() {
		all[name] = s.pid(name)
	}
	return all
}

// status asks shoalctl how everything is.
func (s *service) status(t *testing.T) status {
	t.Helper()
	out, _ := s.tryShoalctl(t, "status", "--json") // fails when something is down
	var v status
	if err := json.NewDecoder(strings.NewReader(out)).Decode(&v); err != nil {
		t.Fatalf("shoalctl status: %v: %s", err, out)
	}
	return v
}

// waitUp waits until every server is ready and the balancer finds it up.
func (s *service) waitUp(t *testing.T) {
	t.Helper()
	var last status
	wait(t, 60*time.Second, func() bool {
		last = s.status(t)
		return last.Healthy
	}, func() string { return fmt.Sprintf("everything up again: %+v", last) })
}

// wait polls until f says true.
func wait(t *testing.T, within time.Duration, f func() bool, what func() string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), within)
	defer cancel()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for !f() {
		select {
		case <-ctx.Done():
			t.Fatalf("not within %v: %s", within, what())
		case <-tick.C:
		}
	}
}

// tls is what a client of the service trusts.
func (s *service) tls(t testing.TB) *tls.Config {
	t.Helper()
	text, err := os.ReadFile(s.CAFile)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(text) {
		t.Fatalf("%s holds no certificate", s.CAFile)
	}
	return &tls.Config{RootCAs: roots, ServerName: "localhost"}
}

// port of a service at the balancer ("imap"), or of one server alone ("imap", "box1").
func (s *service) address(service string, server ...string) string {
	if len(server) > 0 {
		return s.Servers[server[0]][service]
	}
	return s.Services[service]
}

func portOf(address string) string {
	_, port, _ := net.SplitHostPort(address)
	return port
}

// command runs a program and fails the test if it fails.
func command(t *testing.T, stdin string, name string, args ...string) string {
	t.Helper()
	out, err := tryCommand(t, stdin, name, args...)
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return out
}

// tryCommand returns what a program printed, on both outputs if it failed.
func tryCommand(t *testing.T, stdin string, name string, args ...string) (string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Stdin = strings.NewReader(stdin)
	var out, errOut bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errOut
	err := cmd.Run()
	if err != nil {
		return out.String() + errOut.String(), err
	}
	return out.String(), nil
}

// exitCode of a program that ended, -1 for any other error, 0 for none.
func exitCode(err error) int {
	var exit *exec.ExitError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &exit):
		return exit.ExitCode()
	}
	return -1
}
