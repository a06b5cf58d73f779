package kit

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"reflect"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"shoal/daemons/internal/pki"
)

const echoListener = `listener "echo" { address = "127.0.0.1:0" }` + "\n"

func TestFlags(t *testing.T) {
	for _, c := range []struct {
		args   []string
		code   int
		stdout string
		stderr string
	}{
		{[]string{"-version"}, 0, "echod dev (commit ", ""},
		{[]string{"-help"}, 0, "", "echod: says hello"},
		{[]string{"-nonsense"}, 2, "", "flag provided but not defined"},
		{[]string{"extra"}, 2, "", `unexpected argument "extra"`},
		{[]string{"-check"}, 0, "is good", ""},
		{[]string{"-config", "/nonexistent/x.hcl"}, 1, "", "name the configuration file with -config"},
	} {
		d := prepare(t, echoListener).launch(c.args, nil)
		d.exit(c.code)
		if !strings.Contains(d.stdout.String(), c.stdout) {
			t.Errorf("%v: stdout %q", c.args, d.stdout.String())
		}
		if c.stderr != "" && !d.said(c.stderr) {
			t.Errorf("%v: stderr %v", c.args, d.lines)
		}
	}
}

// -check sees what a start would stumble over, and touches no socket.
func TestCheck(t *testing.T) {
	busy, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer busy.Close()
	good := identityBlock + fmt.Sprintf("listener \"echo\" { address = %q }\n", busy.Addr())
	d := prepare(t, good).launch([]string{"-check"}, nil)
	d.exit(0)
	for name, c := range map[string]struct {
		config string
		want   string
	}{
		"syntax":      {"listener {", "echod.hcl:2:10: unclosed configuration block"},
		"role's file": {identityBlock + `bad_file = "x"`, "the file x is bad"},
		"identity":    {strings.Replace(identityBlock, "echo1.key", "ca.key", 1), "does not belong to certificate file"},
		"public":      {"public_tls {\n cert_file = \"echo1.crt\"\n key_file = \"none.key\"\n}", "none.key does not exist"},
	} {
		d := prepare(t, c.config).launch([]string{"-check"}, nil)
		d.exit(1)
		if !d.said(c.want) {
			t.Errorf("%s: %v does not say %q", name, d.lines, c.want)
		}
	}
}

func TestExpiredCertificateRefused(t *testing.T) {
	d := prepare(t, identityBlock+echoListener)
	past, err := pki.NewCA(pki.CAOptions{Now: func() time.Time { return time.Now().Add(-1000 * time.Hour) }})
	if err != nil {
		t.Fatal(err)
	}
	d.ca = past
	if err := past.Save(d.path("ca.crt"), d.path("ca.key")); err != nil {
		t.Fatal(err)
	}
	d.issue("echo1", pki.Request{Role: pki.RoleBox, Name: "echo1", Validity: 10 * time.Hour})
	d.launch(nil, nil).exit(1)
	l := d.wait("stopped")
	for _, want := range []string{"echo1.crt", "shoal://box/echo1", "expired on", "41 days ago"} {
		if !strings.Contains(l["error"].(string), want) {
			t.Errorf("%v does not say %q", l["error"], want)
		}
	}
}

func TestServes(t *testing.T) {
	m := newManager(t)
	d := start(t, echoListener+identityBlock+`management { address = "127.0.0.1:0" }`, "NOTIFY_SOCKET="+m.path)
	if n := m.next(); n["READY"] != "1" {
		t.Errorf("first notice %v", n)
	}
	if _, _, line := d.connect("echo"); !strings.HasPrefix(line, "hello ") {
		t.Errorf("greeting %q", line)
	}
	for path, want := range map[string]string{
		"/healthz": "ok", "/readyz": "ready", "/debug/pprof/": "goroutine",
		"/metrics": `shoal_listener_accepted_connections_total{listener="echo"} 1`,
	} {
		if status, body := d.get(path); status != 200 || !strings.Contains(body, want) {
			t.Errorf("%s: %d %q, wanted %q", path, status, body, want)
		}
	}
	_, body := d.get("/metrics")
	for _, want := range []string{
		"go_goroutines ", "process_open_fds ", `shoal_build_info{commit=`, "shoal_process_certificate_expiry_timestamp_seconds ",
		"shoal_process_config_loaded_timestamp_seconds ", `shoal_listener_open_connections{listener="echo"} 1`,
		`shoal_process_reloads_total{result="applied"} 0`,
	} {
		if !strings.Contains(body, want) {
			t.Errorf("/metrics lacks %q", want)
		}
	}
	if l := d.wait("starting"); l["daemon"] != "echod" || l["server"] != "echo1" {
		t.Errorf("log line %v", l)
	}
}

// The profiles show memory: they are for this machine only.
func TestNoProfilesFromOutside(t *testing.T) {
	d := start(t, `management { address = ":0" }`)
	_, port, err := net.SplitHostPort(d.address("management"))
	if err != nil {
		t.Fatal(err)
	}
	client := &http.Client{Timeout: patience}
	if status, _ := ask(t, client, http.MethodGet, "http://127.0.0.1:"+port+"/healthz"); status != 200 {
		t.Errorf("healthz: %d", status)
	}
	if status, _ := ask(t, client, http.MethodGet, "http://127.0.0.1:"+port+"/debug/pprof/"); status != 404 {
		t.Errorf("pprof: %d", status)
	}
}

func TestNotReady(t *testing.T) {
	d := start(t, `greeting = "not ready"`+"\n"+`management { address = "127.0.0.1:0" }`)
	if status, body := d.get("/readyz"); status != 503 || !strings.Contains(body, "the directory does not answer") {
		t.Errorf("%d %q", status, body)
	}
	if status, _ := d.get("/healthz"); status != 200 {
		t.Errorf("healthz %d: not ready is not dead", status)
	}
}

func TestControlAPI(t *testing.T) {
	d := start(t, identityBlock+echoListener+`control { address = "127.0.0.1:0" }`)
	url := "https://" + d.address("control")
	status, body := ask(t, d.operator(pki.RoleOperator), http.MethodGet, url+"/v1/status")
	var s Status
	if err := json.Unmarshal([]byte(body), &s); err != nil || status != 200 {
		t.Fatalf("%d %q: %v", status, body, err)
	}
	if s.Daemon != "echod" || s.Server != "echo1" || !s.Ready || s.Draining || s.Service["listeners"] != 1.0 || s.Certificate == nil || s.Boot == "" {
		t.Errorf("status %+v", s)
	}
	// A command of the role; it is told who asks, and the log too.
	if status, body := ask(t, d.operator(pki.RoleOperator), http.MethodPost, url+"/v1/die"); status != 200 || !strings.Contains(body, `"ada"`) {
		t.Errorf("%d %q", status, body)
	}
	if l := d.wait("operator's command"); l["operator"] != "ada" || l["path"] != "/v1/die" {
		t.Errorf("log line %v", l)
	}
	// Other roles and strangers do not get in.
	if _, body, err := try(d.operator(pki.RoleSwitch), http.MethodGet, url+"/v1/status"); err == nil {
		t.Errorf("a switch got %q", body)
	}
	none := d.operator(pki.RoleOperator).Transport.(*http.Transport).TLSClientConfig.Clone()
	none.GetClientCertificate = nil
	if _, body, err := try(d.client(none), http.MethodGet, url+"/v1/status"); err == nil {
		t.Errorf("a client without certificate got %q", body)
	}
	if status, body := ask(t, d.operator(pki.RoleOperator), http.MethodGet, url+"/v1/nothing"); status != 404 {
		t.Errorf("%d %q", status, body)
	}
}

func TestControlNeedsIdentity(t *testing.T) {
	d := prepare(t, `control { address = "127.0.0.1:0" }`).launch(nil, nil)
	d.exit(1)
	if l := d.wait("stopped"); !strings.Contains(l["error"].(string), "needs an identity block") {
		t.Errorf("%v", l)
	}
}

func monotonic(t *testing.T) int64 {
	t.Helper()
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts); err != nil {
		t.Fatal(err)
	}
	return ts.Nano() / 1000
}

// A good new configuration is taken up; anything wrong with one leaves everything as it was.
func TestReload(t *testing.T) {
	m := newManager(t)
	base := echoListener + identityBlock + `management { address = "127.0.0.1:0" }` + "\n"
	d := start(t, base, "NOTIFY_SOCKET="+m.path)
	m.next()
	greeting := func(want string) {
		t.Helper()
		if _, _, line := d.connect("echo"); !strings.HasPrefix(line, want+" ") {
			t.Errorf("greeting %q, wanted %q", line, want)
		}
	}
	before := monotonic(t)
	d.configure(base + `greeting = "good day"` + "\n" + `log { level = "debug" }`)
	d.signal(syscall.SIGHUP)
	n := m.next()
	at, err := strconv.ParseInt(n["MONOTONIC_USEC"], 10, 64)
	if n["RELOADING"] != "1" || err != nil || at < before || at > monotonic(t) {
		t.Errorf("notice %v, began after %d", n, before)
	}
	if n := m.next(); n["READY"] != "1" {
		t.Errorf("notice %v", n)
	}
	l := d.wait("configuration reloaded")
	if got := fmt.Sprint(l["changed"]); !strings.Contains(got, "greeting: hello -> good day") || !strings.Contains(got, "log.level: info -> debug") {
		t.Errorf("changes %v", got)
	}
	greeting("good day")

	refused := 0
	for _, c := range []struct{ config, want string }{
		{base + `greting = "x"`, `Did you mean \"greeting\"?`},
		{base + `greeting = "x"` + "\n" + `fail_run = "x"`, "take effect by a restart only: fail_run:  -> x"},
		{base + `greeting = "x"` + "\n" + `fail_reload = "no, thank you"`, "no, thank you"},
		{base + `greeting = "x"` + "\n" + `bad_file = "f"`, "the file f is bad"},
		{strings.Replace(base, "echo1.key", "ca.key", 1) + `greeting = "x"`, "by a restart only: identity.key_file"},
		{strings.Replace(base, `"echo" {`, `"other" {`, 1), "listener.echo: present -> absent; listener.other: absent -> present"},
	} {
		d.configure(c.config)
		d.signal(syscall.SIGHUP)
		refused++
		l := d.wait("reload refused", refused)
		if got, _ := l["error"].(string); !strings.Contains(got, strings.ReplaceAll(c.want, `\"`, `"`)) {
			t.Errorf("error %q, wanted %q", got, c.want)
		}
		m.next()
		if n := m.next(); n["READY"] != "1" {
			t.Errorf("after a refused reload: notice %v", n)
		}
		greeting("good day")
	}
	// A certificate that went bad on disk refuses a reload too.
	d.configure(base + `greeting = "x"`)
	if err := pki.WriteFile(d.path("echo1.key"), []byte("junk"), 0o600); err != nil {
		t.Fatal(err)
	}
	d.signal(syscall.SIGHUP)
	refused++
	d.wait("reload refused", refused)
	greeting("good day")

	_, body := d.get("/metrics")
	for _, want := range []string{`shoal_process_reloads_total{result="applied"} 1`, fmt.Sprintf(`shoal_process_reloads_total{result="refused"} %d`, refused)} {
		if !strings.Contains(body, want) {
			t.Errorf("/metrics lacks %q", want)
		}
	}
}

// Reloads never overlap; however many are asked for meanwhile, one follows.
func TestReloadsDoNotOverlap(t *testing.T) {
	d := prepare(t, `wait_reload = "fifo"`)
	if err := unix.Mkfifo(d.path("fifo"), 0o600); err != nil {
		t.Fatal(err)
	}
	release := func() {
		t.Helper()
		f, err := os.OpenFile(d.path("fifo"), os.O_WRONLY, 0)
		if err != nil {
			t.Fatal(err)
		}
		f.Close()
	}
	d.launch(nil, nil).wait("ready to serve")
	d.signal(syscall.SIGHUP)
	d.wait("waiting in reload")
	for n := range 2 {
		d.signal(syscall.SIGHUP)
		d.wait("another follows", n+1)
	}
	release()
	d.wait("waiting in reload", 2)
	release()
	d.wait("configuration reloaded", 2)
	d.signal(syscall.SIGTERM)
	d.exit(0)
	n := 0
	for _, l := range d.lines {
		if l["msg"] == "waiting in reload" {
			n++
		}
	}
	if n != 2 {
		t.Errorf("%d reloads, wanted 2", n)
	}
}

// SIGTERM: not ready, nothing new accepted, sessions end by themselves, then the process does.
func TestDrain(t *testing.T) {
	m := newManager(t)
	d := start(t, echoListener+`management { address = "127.0.0.1:0" }`+"\n"+`drain { timeout = "60s" }`, "NOTIFY_SOCKET="+m.path)
	m.next()
	c, r, _ := d.connect("echo")
	address := d.address("echo")
	d.signal(syscall.SIGTERM)
	if n := m.next(); n["STOPPING"] != "1" || n["EXTEND_TIMEOUT_USEC"] != "70000000" {
		t.Errorf("notice %v", n)
	}
	d.wait("draining")
	if status, body := d.get("/readyz"); status != 503 || !strings.Contains(body, "draining") {
		t.Errorf("readyz %d %q", status, body)
	}
	// The open session goes on.
	send(t, c, "still here\n")
	if line, err := r.ReadString('\n'); err != nil || line != "still here\n" {
		t.Errorf("%q, %v", line, err)
	}
	for end := time.Now().Add(patience); ; { // Drain closes the listener a moment after the log line
		n, err := net.DialTimeout("tcp", address, patience)
		if errors.Is(err, syscall.ECONNREFUSED) {
			break
		}
		if err == nil {
			n.Close()
		}
		if time.Now().After(end) {
			t.Fatal("still accepting")
		}
	}
	send(t, c, "quit\n")
	d.exit(0)
	d.wait("drained")
	d.wait("stopped")
	var order []string
	for _, l := range d.lines {
		if s := l["msg"].(string); strings.HasSuffix(s, " closed") {
			order = append(order, s)
		}
	}
	if want := []string{"service closed", "second closed", "first closed"}; !reflect.DeepEqual(order, want) {
		t.Errorf("closed in order %v", order)
	}
}

// While the delay runs, the daemon says "not ready" and still accepts.
func TestDrainDelay(t *testing.T) {
	d := start(t, echoListener+`management { address = "127.0.0.1:0" }`+"\n"+`drain { delay = "10m" }`)
	d.signal(syscall.SIGTERM)
	d.wait("draining")
	if status, _ := d.get("/readyz"); status != 503 {
		t.Errorf("readyz %d", status)
	}
	d.connect("echo")
	d.signal(syscall.SIGTERM)
	d.exit(1)
}

// A role that hangs in Drain, or sessions that never end, do not hold the process up.
func TestDrainIsBounded(t *testing.T) {
	for name, config := range map[string]string{
		"sessions": "", "hanging role": "hang_drain = true\n", "hanging close": "hang_drain = true\nhang_close = true\n",
	} {
		t.Run(name, func(t *testing.T) {
			d := start(t, echoListener+config+`drain { timeout = "100ms" }`)
			if name == "sessions" {
				d.connect("echo")
			}
			d.signal(syscall.SIGINT)
			code := 0
			if name == "hanging close" {
				code = 1
			}
			d.exit(code)
			d.wait("drain took longer than its timeout")
		})
	}
}

func TestSecondSignalEndsAtOnce(t *testing.T) {
	d := start(t, echoListener+`hang_drain = true`+"\n"+`drain { timeout = "1h" }`)
	d.signal(syscall.SIGTERM)
	d.wait("draining")
	d.signal(syscall.SIGTERM)
	d.exit(1)
	d.wait("second signal")
}

func TestDrainByControlAPI(t *testing.T) {
	d := start(t, identityBlock+echoListener+`control { address = "127.0.0.1:0" }`)
	c, _, _ := d.connect("echo")
	op := d.operator(pki.RoleOperator)
	url := "https://" + d.address("control") + "/v1/drain"
	for range 2 { // asking twice is no second signal
		if status, body := ask(t, op, http.MethodPost, url); status != 202 || !strings.Contains(body, `"timeout": "30s"`) {
			t.Errorf("%d %q", status, body)
		}
	}
	d.wait("draining")
	if status, body := ask(t, op, http.MethodGet, strings.Replace(url, "drain", "status", 1)); status != 200 || !strings.Contains(body, `"draining": true`) {
		t.Errorf("%d %q", status, body)
	}
	if status, _ := ask(t, op, http.MethodGet, url); status != 405 {
		t.Errorf("GET /v1/drain: %d", status)
	}
	send(t, c, "quit\n")
	d.exit(0)
}

func TestBuildFails(t *testing.T) {
	d := prepare(t, echoListener+`fail_build = "no such volume"`).launch(nil, nil)
	d.exit(1)
	if l := d.wait("stopped"); l["error"] != "no such volume" {
		t.Errorf("%v", l)
	}
	d.wait("first closed") // what was built is undone
	if d.said("ready to serve") {
		t.Error("it served")
	}
}

func TestRunFails(t *testing.T) {
	d := prepare(t, `fail_run = "lost the store"`).launch(nil, nil)
	d.exit(1)
	d.wait("service closed")
	if l := d.wait("stopped"); l["error"] != "lost the store" {
		t.Errorf("%v", l)
	}
}

func TestStoppedWhileBuilding(t *testing.T) {
	d := prepare(t, `hang_build = true`).launch(nil, nil)
	d.wait("building")
	d.signal(syscall.SIGTERM)
	d.exit(1)
	d.wait("told to stop during the start")
	d.wait("first closed")
}

func TestPortInUse(t *testing.T) {
	first := start(t, echoListener)
	d := prepare(t, fmt.Sprintf("listener \"echo\" { address = %q }", first.address("echo"))).launch(nil, nil)
	d.exit(1)
	l := d.wait("stopped")
	for _, want := range []string{`listener "echo"`, first.address("echo"), "taken by", fmt.Sprintf("process %d", first.cmd.Process.Pid), "write another address"} {
		if !strings.Contains(l["error"].(string), want) {
			t.Errorf("%v does not say %q", l["error"], want)
		}
	}
}

// Sockets of systemd are found by name, two of one name are one listener, and the address in the
// configuration is not bound.
func TestSocketActivation(t *testing.T) {
	var files []*os.File
	var addresses []string
	for range 2 {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		f, err := l.(*net.TCPListener).File()
		if err != nil {
			t.Fatal(err)
		}
		addresses = append(addresses, l.Addr().String())
		l.Close()
		defer f.Close()
		files = append(files, f)
	}
	d := prepare(t, `listener "echo" { address = "192.0.2.1:1" }`).
		launch(nil, []string{"LISTEN_FDS=2", "LISTEN_FDNAMES=echo:echo"}, files...)
	if l := d.wait("listening"); l["from"] != "systemd" {
		t.Errorf("%v", l)
	}
	d.wait("ready to serve")
	for _, a := range addresses {
		c, err := net.DialTimeout("tcp", a, patience)
		if err != nil {
			t.Fatal(err)
		}
		if got := read(t, c, 6); got != "hello " {
			t.Errorf("%s: %q", a, got)
		}
		c.Close()
	}
	d.signal(syscall.SIGTERM)
	d.exit(0)

	d = prepare(t, echoListener).launch(nil, []string{"LISTEN_FDS=1", "LISTEN_FDNAMES=ekho"}, files[:1]...)
	d.exit(1)
	if l := d.wait("stopped"); !strings.Contains(l["error"].(string), `a socket named "ekho"`) {
		t.Errorf("%v", l)
	}
}

// The watchdog is fed while the role is alive, and no longer.
func TestWatchdog(t *testing.T) {
	m := newManager(t)
	d := start(t, identityBlock+`control { address = "127.0.0.1:0" }`, "NOTIFY_SOCKET="+m.path, "WATCHDOG_USEC=200000")
	m.next()
	for range 2 {
		if n := m.next(); n["WATCHDOG"] != "1" {
			t.Errorf("notice %v", n)
		}
	}
	ask(t, d.operator(pki.RoleOperator), http.MethodPost, "https://"+d.address("control")+"/v1/die")
	d.wait("not alive")
	m.waiting()
	d.wait("not alive", 3)
	if late := m.waiting(); len(late) != 0 {
		t.Errorf("fed while dead: %q", late)
	}
}

// A daemon started as root changes to its user once its sockets are bound; started as somebody else it
// says what is wrong.
func TestUser(t *testing.T) {
	config := "server {\n  name = \"echo1\"\n  user = \"nobody:nogroup\"\n}\n" + echoListener
	if os.Getuid() != 0 {
		d := prepare(t, config).launch(nil, nil)
		d.exit(1)
		if l := d.wait("stopped"); !strings.Contains(l["error"].(string), "start as root or as that user") {
			t.Errorf("%v", l)
		}
		return
	}
	d := start(t, config)
	if _, _, line := d.connect("echo"); !strings.HasPrefix(line, "hello 65534 ") {
		t.Errorf("greeting %q: not nobody's user id", line)
	}
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", d.cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"Uid:\t65534\t65534\t65534\t65534", "Gid:\t65534\t65534\t65534\t65534", "Groups:\t65534 \n", "CapEff:\t0000000000000000", "CapPrm:\t0000000000000000"} {
		if !strings.Contains(string(status), want) {
			t.Errorf("process status lacks %q:\n%s", want, status)
		}
	}
	if d.said("running as root") {
		t.Error("warned of root")
	}
	d = start(t, echoListener)
	d.wait("running as root")
	d = prepare(t, strings.Replace(config, "nobody", "no-such-user", 1)).launch(nil, nil)
	d.exit(1)
	if l := d.wait("stopped"); !strings.Contains(l["error"].(string), "no-such-user") {
		t.Errorf("%v", l)
	}
}

func TestFileLimit(t *testing.T) {
	d := start(t, echoListener)
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/limits", d.cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range strings.Split(string(b), "\n") {
		if f := strings.Fields(line); strings.HasPrefix(line, "Max open files") && f[3] != f[4] {
			t.Errorf("not raised: %s", line)
		}
	}
}
