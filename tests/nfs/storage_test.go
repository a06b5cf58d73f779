package nfs

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"shoal/daemons/nfsguest/proto"
)

var shoalctl = filepath.Join(program, "shoalctl")

// The verdicts of a storage check.
const pass, warn, fail = "pass", "warn", "fail"

// storageReport is what `shoalctl storage check --json` prints.
type storageReport struct {
	Hosts    []string
	Verdict  string
	Findings []struct{ Host, Check, Verdict, What, Means, Do string }

	Latencies []struct {
		Host, Operation string
		Median          int `json:"median_us"`
		P99             int `json:"p99_us"`
	}
}

// storage reads what `shoalctl storage check --json` printed.
func storage(t *testing.T, out []byte) *storageReport {
	t.Helper()
	var r storageReport
	if err := json.Unmarshal(out, &r); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return &r
}

func verdictOf(r *storageReport, host, check string) (worst string, text string) {
	worst = "none"
	for _, f := range r.Findings {
		if f.Host != host || f.Check != check {
			continue
		}
		text += f.What + "; " + f.Means + "; " + f.Do + "\n"
		if worst == "none" || worst == pass || f.Verdict == fail {
			worst = f.Verdict
		}
	}
	return worst, text
}

func wantVerdict(t *testing.T, r *storageReport, host, check string, want string, words ...string) {
	t.Helper()
	got, text := verdictOf(r, host, check)
	if got != want {
		t.Errorf("%s %s: %s, want %s\n%s", host, check, got, want, text)
	}
	for _, w := range words {
		if !strings.Contains(text, w) {
			t.Errorf("%s %s does not say %q:\n%s", host, check, w, text)
		}
	}
}

// TestStorageCheckOnNFS: with the right mount options two kernels find nothing wrong; with the options that clients have by
// default the check fails, names the option, and has seen for itself what comes of it.
func TestStorageCheckOnNFS(t *testing.T) {
	r := boot(t, "xfs", 2)
	if err := buildProgram(shoalctl, "shoalctl"); err != nil {
		t.Fatal(err)
	}
	mountAt := func(k *kernel, point, options string) {
		call[[]byte](k, "Run", []string{"mkdir", point})
		call[[]byte](k, "Run", []string{"mount", "-i", "-t", "nfs4", "-o", options + ",addr=" + network + "1,clientaddr=" + k.addr(), network + "1:/", point})
	}
	check := func(k *kernel, point, flags string, code int) []byte {
		out := call[[]byte](k, "Run", []string{"sh", "-c", fmt.Sprintf("%s storage check %s %s --name %s --json 2>/run/check.err; c=$?; [ $c = %d ] || { cat /run/check.err; echo exit code $c, not %d; exit 1; }", shoalctl, point, flags, k.name, code, code)})
		return out
	}
	both := func(point string, code0, code1 int) *storageReport {
		t.Helper()
		joined := make(chan []byte, 1)
		go func() { joined <- check(r.clients[1], point, "--join", code1) }()
		out := storage(t, check(r.clients[0], point, "--hosts 2", code0))
		if own := storage(t, <-joined); len(own.Latencies) == 0 {
			t.Errorf("the host that joined reports nothing of its own: %+v", own)
		}
		return out
	}
	code := func(v string) int { return slices.Index([]string{"pass", "warn", "fail"}, v) }

	// The rig's disk is memory, and its file server shares the processor with the clients: times may be remarked upon.
	right := storage(t, call[[]byte](r.clients[0], "Run", []string{"sh", "-c", fmt.Sprintf("%s storage check %s --json --name box1 2>/dev/null || true", shoalctl, proto.Export)}))
	wantVerdict(t, right, "box1", "hosts", warn, "--join")
	if code(right.Verdict) == 2 {
		t.Errorf("alone, with the right options: %+v", right.Findings)
	}
	done := make(chan []byte, 1)
	go func() {
		done <- call[[]byte](r.clients[1], "Run", []string{"sh", "-c", fmt.Sprintf("%s storage check %s --join --json --name box2 2>/dev/null || true", shoalctl, proto.Export)})
	}()
	right = storage(t, call[[]byte](r.clients[0], "Run", []string{"sh", "-c", fmt.Sprintf("%s storage check %s --hosts 2 --json --name box1 2>/dev/null || true", shoalctl, proto.Export)}))
	<-done
	wantVerdict(t, right, "box1", "freshness", pass)
	wantVerdict(t, right, "box1", "exclusivity", pass)
	wantVerdict(t, right, "box1", "hosts", pass, "2 machines")
	for _, host := range []string{"box1", "box2"} {
		for _, c := range []string{"mount", "symlinks", "hard links", "rename", "files", "names"} {
			wantVerdict(t, right, host, c, pass)
		}
		wantVerdict(t, right, host, "leases", pass, "no delegations", "lease time 10 s")
	}
	if right.Verdict == fail {
		t.Errorf("with the right options: %+v", right.Findings)
	}
	t.Logf("with %s: %s\n%s", options, right.Verdict, latencies(right))

	for _, k := range r.clients {
		mountAt(k, "/mnt/default", "vers=4.2")
		mountAt(k, "/mnt/soft", "vers=4.1,soft,lookupcache=positive")
	}
	wrong := both("/mnt/default", 2, 2)
	wantVerdict(t, wrong, "box1", "mount", fail, "lookupcache=positive is missing", "write "+options)
	wantVerdict(t, wrong, "box2", "mount", fail, "lookupcache=positive is missing")
	wantVerdict(t, wrong, "box1", "freshness", fail, "did not see what others had written")
	_, text := verdictOf(wrong, "box1", "freshness")
	t.Logf("with the default options: %s\n%s", wrong.Verdict, text)

	soft := storage(t, check(r.clients[0], "/mnt/soft", "", 2))
	wantVerdict(t, soft, "box1", "mount", fail, "hard is missing", "vers=4.1")

	left := call[[]byte](r.clients[0], "Run", []string{"ls", "-A", proto.Export})
	if strings.Contains(string(left), "shoal-check") {
		t.Errorf("left behind: %s", left)
	}
}

func latencies(r *storageReport) string {
	var b strings.Builder
	for _, l := range r.Latencies {
		fmt.Fprintf(&b, "%s %s: median %d µs, 99 %% %d µs\n", l.Host, l.Operation, l.Median, l.P99)
	}
	return b.String()
}

// TestStorageCheckOnLocalDisks: ext4 and XFS on images pass, memory does not; a check that is killed leaves nothing for long.
func TestStorageCheckOnLocalDisks(t *testing.T) {
	if err := buildProgram(shoalctl, "shoalctl"); err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp(shm, "storage")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	check := func(point string) (*storageReport, int) {
		t.Helper()
		ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
		defer cancel()
		out, err := exec.CommandContext(ctx, shoalctl, "storage", "check", point, "--name", "here", "--json").Output()
		var exit *exec.ExitError
		if err != nil && !errors.As(err, &exit) {
			t.Fatal(err)
		}
		code := 0
		if exit != nil {
			code = exit.ExitCode()
		}
		return storage(t, out), code
	}
	for _, fs := range []string{"ext4", "xfs", "tmpfs"} {
		t.Run(fs, func(t *testing.T) {
			point := filepath.Join(dir, fs)
			if err := os.Mkdir(point, 0o755); err != nil {
				t.Fatal(err)
			}
			args := []string{"-t", "tmpfs", "tmpfs", point}
			if fs != "tmpfs" {
				image := point + ".img"
				if err := errors.Join(os.WriteFile(image, nil, 0o600), os.Truncate(image, 3<<30)); err != nil {
					t.Fatal(err)
				}
				if out, err := exec.Command("mkfs."+fs, "-q", image).CombinedOutput(); err != nil {
					t.Fatalf("mkfs.%s: %v: %s", fs, err, out)
				}
				args = []string{"-o", "loop", image, point}
			}
			if out, err := exec.Command("mount", args...).CombinedOutput(); err != nil {
				t.Fatalf("mount %s: %v: %s", strings.Join(args, " "), err, out)
			}
			t.Cleanup(func() { _ = exec.Command("umount", "-l", point).Run() })
			r, code := check(point)
			for _, c := range []string{"symlinks", "hard links", "rename", "files", "names", "clocks"} {
				wantVerdict(t, r, "here", c, pass)
			}
			if fs == "tmpfs" {
				wantVerdict(t, r, "here", "mount", fail, "memory")
				if code != 2 {
					t.Errorf("exit code %d", code)
				}
				return
			}
			wantVerdict(t, r, "here", "mount", pass, fs)
			if code > 1 || r.Verdict == fail { // the image lies in memory: its times may be too good
				t.Errorf("exit code %d: %+v", code, r.Findings)
			}
			killed(t, point, os.Kill)
			for _, d := range left(t, point) { // as after a while
				old := time.Now().Add(-time.Hour)
				for _, p := range []string{d, d + "/bus", d + "/fresh"} {
					if err := os.Chtimes(p, old, old); err != nil {
						t.Fatal(err)
					}
				}
			}
			r, _ = check(point)
			wantVerdict(t, r, "here", "leftovers", pass)
			if l := left(t, point); len(l) > 0 {
				t.Errorf("left after kill -9 and another check: %q", l)
			}
			killed(t, point, os.Interrupt)
			if l := left(t, point); len(l) > 0 {
				t.Errorf("left after an interrupt: %q", l)
			}
		})
	}
	if out, err := exec.Command(shoalctl, "storage", "check", filepath.Join(dir, "missing")).CombinedOutput(); err == nil || !strings.Contains(string(out), "missing") {
		t.Errorf("a folder that is not there: %v: %s", err, out)
	}
}

// killed starts a check that waits for another host, and ends it by a signal when its folder is there.
func killed(t *testing.T, point string, signal os.Signal) {
	t.Helper()
	c := exec.Command(shoalctl, "storage", "check", point, "--hosts", "2", "--name", "here")
	errs, err := c.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Process.Kill() }()
	lines := bufio.NewScanner(errs)
	for !strings.Contains(lines.Text(), "waiting for 1 more") {
		if !lines.Scan() {
			t.Fatalf("the check does not wait for others: %v", lines.Err())
		}
	}
	if err := c.Process.Signal(signal); err != nil {
		t.Fatal(err)
	}
	_ = c.Wait()
}

func left(t *testing.T, point string) []string {
	t.Helper()
	all, err := filepath.Glob(point + "/.shoal-check.*")
	if err != nil {
		t.Fatal(err)
	}
	return all
}
