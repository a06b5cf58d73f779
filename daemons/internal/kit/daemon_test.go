package kit

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/json"
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

	"shoal/daemons/internal/conf"
	"shoal/daemons/internal/pki"
)

// The tests run real daemons: this test program starts itself anew, and is then a daemon of the kit with
// the role below.
func TestMain(m *testing.M) {
	if os.Getenv("KIT_TEST_DAEMON") != "" {
		os.Exit(Main(Spec{Name: "echod", Summary: "says hello", NewConfig: func() Config { return &echoConfig{} }, TimerSlack: testSlack, Build: buildEcho}))
	}
	os.Exit(m.Run())
}

// echoConfig is the configuration of a role that can be told to misbehave.
type echoConfig struct {
	Server     conf.Server      `hcl:"server,block"`
	Identity   *conf.Identity   `hcl:"identity,block"`
	Management *conf.Management `hcl:"management,block"`
	Control    *conf.Control    `hcl:"control,block"`
	Log        conf.Log         `hcl:"log,block"`
	Drain      conf.Drain       `hcl:"drain,block"`
	Listeners  []conf.Listener  `hcl:"listener,block"`
	PublicTLS  *conf.PublicTLS  `hcl:"public_tls,block"`

	Greeting   string `hcl:"greeting,optional" conf:"live" default:"hello"`
	BadFile    string `hcl:"bad_file,optional" conf:"live"`
	FailBuild  string `hcl:"fail_build,optional"`
	HangBuild  bool   `hcl:"hang_build,optional"`
	HangDrain  bool   `hcl:"hang_drain,optional"`
	HangClose  bool   `hcl:"hang_close,optional"`
	FailRun    string `hcl:"fail_run,optional"`
	FailReload string `hcl:"fail_reload,optional" conf:"live"`
	WaitReload string `hcl:"wait_reload,optional" conf:"path"` // a FIFO that Reload reads to its end
}

func (c *echoConfig) Common() Common {
	return Common{Server: &c.Server, Identity: c.Identity, Management: c.Management, Control: c.Control, Log: &c.Log, Drain: &c.Drain}
}
func (c *echoConfig) Validate() error { return nil }

func (c *echoConfig) Check(context.Context) error {
	if c.BadFile != "" {
		return fmt.Errorf("the file %s is bad", c.BadFile)
	}
	return nil
}

// echo greets each connection with greeting, user id and remote address, and then repeats lines until
// "quit". It drains when its connections have ended.
type echo struct {
	env       *Env
	listeners []net.Listener
	conns     sync.WaitGroup
	first     *echoConfig // of the start

	mu       sync.Mutex
	draining bool
	config   *echoConfig
	dead     bool
}

func buildEcho(ctx context.Context, env *Env, c Config) (Service, error) {
	e := &echo{env: env, first: c.(*echoConfig), config: c.(*echoConfig)}
	env.OnClose("first", func() error { env.Log.Info("first closed"); return nil })
	env.OnClose("second", func() error { env.Log.Info("second closed"); return nil })
	if e.first.HangBuild {
		env.Log.Info("building")
		<-ctx.Done()
		return nil, ctx.Err()
	}
	for _, lc := range e.first.Listeners {
		l, err := env.Listen(lc)
		if err != nil {
			return nil, err
		}
		e.listeners = append(e.listeners, l)
	}
	if e.first.FailBuild != "" {
		return nil, errors.New(e.first.FailBuild)
	}
	env.Control.HandleFunc("POST /v1/die", func(w http.ResponseWriter, r *http.Request) {
		e.mu.Lock()
		e.dead = true
		e.mu.Unlock()
		WriteJSON(w, http.StatusOK, map[string]string{"operator": Operator(r.Context())})
	})
	return e, nil
}

func (e *echo) Run(ctx context.Context) error {
	if e.first.FailRun != "" {
		return errors.New(e.first.FailRun)
	}
	for _, l := range e.listeners {
		go func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				e.mu.Lock()
				if e.draining {
					c.Close()
				} else {
					e.conns.Add(1)
					go e.talk(c)
				}
				e.mu.Unlock()
			}
		}()
	}
	<-ctx.Done()
	return nil
}

func (e *echo) talk(c net.Conn) {
	defer e.conns.Done()
	defer c.Close()
	e.mu.Lock()
	greeting := e.config.Greeting
	e.mu.Unlock()
	fmt.Fprintf(c, "%s %d %s\n", greeting, os.Getuid(), c.RemoteAddr())
	for s := bufio.NewScanner(c); s.Scan() && s.Text() != "quit"; {
		fmt.Fprintln(c, s.Text())
	}
}

func (e *echo) Drain(context.Context) error {
	e.mu.Lock()
	e.draining = true
	e.mu.Unlock()
	for _, l := range e.listeners {
		l.Close()
	}
	e.conns.Wait()
	if e.first.HangDrain {
		select {}
	}
	return nil
}

func (e *echo) Close() error {
	if e.first.HangClose {
		select {}
	}
	e.env.Log.Info("service closed")
	return nil
}

func (e *echo) Reload(_ context.Context, c Config) error {
	next := c.(*echoConfig)
	if next.WaitReload != "" {
		e.env.Log.Info("waiting in reload")
		if _, err := os.ReadFile(next.WaitReload); err != nil {
			return err
		}
	}
	if next.FailReload != "" {
		return errors.New(next.FailReload)
	}
	e.mu.Lock()
	e.config = next
	e.mu.Unlock()
	e.env.Log.Debug("debug is on")
	return nil
}

func (e *echo) Ready(context.Context) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.config.Greeting == "not ready" {
		return errors.New("the directory does not answer")
	}
	return nil
}

func (e *echo) Status(context.Context) map[string]any {
	return map[string]any{"listeners": len(e.listeners)}
}

func (e *echo) Alive(context.Context) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.dead {
		return errors.New("dead")
	}
	return nil
}

// child is a running echod.
type child struct {
	t      *testing.T
	dir    string
	cmd    *exec.Cmd
	stdout strings.Builder
	exited chan struct{} // closed when the process has ended and its log is read
	ca     *pki.CA

	mu      sync.Mutex
	lines   []map[string]any
	changed chan struct{} // closed and replaced at each new line
}

// prepare makes a folder with a CA, certificates for the daemon, and the configuration.
func prepare(t *testing.T, config string) *child {
	t.Helper()
	d := &child{t: t, dir: t.TempDir(), exited: make(chan struct{}), changed: make(chan struct{})}
	var err error
	if d.ca, err = pki.NewCA(pki.CAOptions{}); err != nil {
		t.Fatal(err)
	}
	if err := d.ca.Save(d.path("ca.crt"), d.path("ca.key")); err != nil {
		t.Fatal(err)
	}
	d.issue("echo1", pki.Request{Role: pki.RoleBox, Name: "echo1"})
	d.configure(config)
	return d
}

func (d *child) path(name string) string { return filepath.Join(d.dir, name) }

func (d *child) issue(file string, r pki.Request) {
	d.t.Helper()
	pair, err := d.ca.Issue(r)
	if err != nil {
		d.t.Fatal(err)
	}
	if err := pair.Save(d.path(file+".crt"), d.path(file+".key")); err != nil {
		d.t.Fatal(err)
	}
}

func (d *child) configure(config string) {
	d.t.Helper()
	if !strings.Contains(config, "server {") {
		config = "server { name = \"echo1\" }\n" + config
	}
	if err := pki.WriteFile(d.path("echod.hcl"), []byte(config), 0o644); err != nil {
		d.t.Fatal(err)
	}
}

const identityBlock = `
identity {
  cert_file = "echo1.crt"
  key_file  = "echo1.key"
  ca_file   = "ca.crt"
}
`

// launch starts the process; args come after -config, env before its own.
func (d *child) launch(args []string, env []string, files ...*os.File) *child {
	d.t.Helper()
	exe, err := os.Executable()
	if err != nil {
		d.t.Fatal(err)
	}
	// The shell is there for LISTEN_PID, which must be the daemon's own.
	d.cmd = exec.Command("sh", append([]string{"-c", `LISTEN_PID=$$ WATCHDOG_PID=$$ exec "$0" "$@"`, exe, "-config", d.path("echod.hcl")}, args...)...)
	d.cmd.Env = append(append(os.Environ(), "KIT_TEST_DAEMON=1", "NOTIFY_SOCKET=", "JOURNAL_STREAM="), env...)
	d.cmd.ExtraFiles = files
	d.cmd.Stdout = &d.stdout
	log, err := d.cmd.StderrPipe()
	if err != nil {
		d.t.Fatal(err)
	}
	if err := d.cmd.Start(); err != nil {
		d.t.Fatal(err)
	}
	go func() {
		for s := bufio.NewScanner(log); s.Scan(); {
			line := map[string]any{}
			if json.Unmarshal(s.Bytes(), &line) != nil {
				line = map[string]any{"msg": s.Text(), "plain": true}
			}
			d.mu.Lock()
			d.lines = append(d.lines, line)
			close(d.changed)
			d.changed = make(chan struct{})
			d.mu.Unlock()
		}
		_ = d.cmd.Wait() // ProcessState has it
		close(d.exited)
	}()
	d.t.Cleanup(func() {
		_ = d.cmd.Process.Kill() // it has ended, as a rule
		<-d.exited
		if d.t.Failed() {
			for _, l := range d.lines {
				d.t.Logf("log: %v", l)
			}
		}
	})
	return d
}

// start prepares and launches a daemon and waits until it serves.
func start(t *testing.T, config string, env ...string) *child {
	t.Helper()
	d := prepare(t, config).launch(nil, env)
	d.wait("ready to serve")
	return d
}

// wait returns the n-th (from 1; default the first) log line whose message contains msg.
func (d *child) wait(msg string, nth ...int) map[string]any {
	d.t.Helper()
	n := 1
	if len(nth) > 0 {
		n = nth[0]
	}
	timeout := time.After(patience)
	for {
		d.mu.Lock()
		seen := 0
		for _, l := range d.lines {
			if s, _ := l["msg"].(string); strings.Contains(s, msg) {
				if seen++; seen == n {
					d.mu.Unlock()
					return l
				}
			}
		}
		changed := d.changed
		d.mu.Unlock()
		select {
		case <-changed:
		case <-d.exited:
			select {
			case <-changed:
				continue
			default:
			}
			d.t.Fatalf("the daemon ended and never said %q (%d)", msg, n)
		case <-timeout:
			d.t.Fatalf("the daemon does not say %q (%d)", msg, n)
		}
	}
}

func (d *child) said(msg string) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, l := range d.lines {
		if s, _ := l["msg"].(string); strings.Contains(s, msg) {
			return true
		}
	}
	return false
}

// address is where a listener is bound.
func (d *child) address(listener string) string {
	d.t.Helper()
	d.wait("ready to serve")
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, l := range d.lines {
		if l["msg"] == "listening" && l["listener"] == listener {
			return l["address"].(string)
		}
	}
	d.t.Fatalf("no listener %q", listener)
	return ""
}

func (d *child) signal(s syscall.Signal) {
	d.t.Helper()
	if err := d.cmd.Process.Signal(s); err != nil {
		d.t.Fatal(err)
	}
}

// exit waits for the end and checks the exit code.
func (d *child) exit(code int) {
	d.t.Helper()
	select {
	case <-d.exited:
	case <-time.After(patience):
		d.t.Fatal("the daemon does not end")
	}
	if got := d.cmd.ProcessState.ExitCode(); got != code {
		d.t.Errorf("exit code %d (%s), wanted %d", got, d.cmd.ProcessState, code)
	}
}

// connect opens a connection to a listener and reads its greeting.
func (d *child) connect(listener string) (net.Conn, *bufio.Reader, string) {
	d.t.Helper()
	c, err := net.DialTimeout("tcp", d.address(listener), patience)
	if err != nil {
		d.t.Fatal(err)
	}
	d.t.Cleanup(func() { c.Close() })
	if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
		d.t.Fatal(err)
	}
	r := bufio.NewReader(c)
	line, err := r.ReadString('\n')
	if err != nil {
		d.t.Fatalf("no greeting: %v", err)
	}
	return c, r, strings.TrimSpace(line)
}

// get asks the management address.
func (d *child) get(path string) (int, string) {
	d.t.Helper()
	return ask(d.t, &http.Client{Timeout: patience}, http.MethodGet, "http://"+d.address("management")+path)
}

func ask(t *testing.T, client *http.Client, method, url string) (int, string) {
	t.Helper()
	status, body, err := try(client, method, url)
	if err != nil {
		t.Fatal(err)
	}
	return status, body
}

func try(client *http.Client, method, url string) (int, string, error) {
	req, err := http.NewRequest(method, url, nil)
	if err != nil {
		return 0, "", err
	}
	resp, err := client.Do(req)
	if err != nil {
		return 0, "", err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	return resp.StatusCode, string(b), err
}

// operator is a client of the control API with a certificate of the role.
func (d *child) operator(role string) *http.Client {
	d.t.Helper()
	d.issue(role+"-client", pki.Request{Role: role, Name: "ada"})
	creds, err := pki.Load(pki.Files{Cert: d.path(role + "-client.crt"), Key: d.path(role + "-client.key"), CA: d.path("ca.crt")})
	if err != nil {
		d.t.Fatal(err)
	}
	return d.client(creds.ClientTLS(pki.RoleBox))
}

func (d *child) client(config *tls.Config) *http.Client {
	tr := &http.Transport{TLSClientConfig: config}
	d.t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr, Timeout: patience}
}

// manager is a socket that stands for systemd.
type manager struct {
	t    *testing.T
	conn *net.UnixConn
	path string
}

func newManager(t *testing.T) *manager {
	t.Helper()
	m := &manager{t: t, path: filepath.Join(t.TempDir(), "notify")}
	var err error
	if m.conn, err = net.ListenUnixgram("unixgram", &net.UnixAddr{Name: m.path, Net: "unixgram"}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.conn.Close() })
	return m
}

// next is the next notice, as a map.
func (m *manager) next() map[string]string {
	m.t.Helper()
	if err := m.conn.SetReadDeadline(time.Now().Add(patience)); err != nil {
		m.t.Fatal(err)
	}
	b := make([]byte, 4096)
	n, err := m.conn.Read(b)
	if err != nil {
		m.t.Fatalf("no notice: %v", err)
	}
	notice := map[string]string{}
	for _, line := range strings.Split(string(b[:n]), "\n") {
		k, v, _ := strings.Cut(line, "=")
		notice[k] = v
	}
	return notice
}

// waiting returns the notices that have arrived already.
func (m *manager) waiting() []string {
	m.t.Helper()
	var all []string
	for b := make([]byte, 4096); ; {
		if err := m.conn.SetReadDeadline(time.Now().Add(time.Millisecond)); err != nil {
			m.t.Fatal(err)
		}
		n, err := m.conn.Read(b)
		if err != nil {
			return all
		}
		all = append(all, string(b[:n]))
	}
}
