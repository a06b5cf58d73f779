package cluster

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/emersion/go-imap/v2/imapclient"
)

// twoVolumes is a boxd with a second volume, on an ext4 whose disk can be made to hang.
type twoVolumes struct {
	s       *service
	hold    *exec.Cmd
	out     *output
	mount   string // of the second volume, in a mount namespace of its own
	imap    string // address
	ready   string // URL
	metrics string // URL
}

const hungVolumeID = "22222222-2222-4222-8222-222222222222"

func startTwoVolumes(t *testing.T, s *service) *twoVolumes {
	t.Helper()
	folder := t.TempDir()
	holder := filepath.Join(folder, "hold")
	command(t, "", "go", "build", "-o", holder, "shoal/tests/disk/hold")
	mount := filepath.Join(folder, "vol02")
	if err := os.Mkdir(mount, 0o700); err != nil {
		t.Fatal(err)
	}
	path := s.variant(t, "box1", false)
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	text := strings.ReplaceAll(string(raw), `  proxy_from = ["127.0.0.1"]`+"\n", "") + fmt.Sprintf(`
volume "vol02" {
  path = %q
  id   = %q
}
`, mount, hungVolumeID)
	text = strings.Replace(text, "\nstore {\n", "\nstore {\n  call_timeout = \"1s\"\n  volume_calls = 24\n", 1)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	find := func(block string) string {
		m := regexp.MustCompile(`(?s)\n` + block + ` \{.*?address\s*= "([^"]+)"`).FindStringSubmatch(text)
		if m == nil {
			t.Fatalf("no address of %s in\n%s", block, text)
		}
		return m[1]
	}
	v := &twoVolumes{s: s, mount: mount, out: &output{}, imap: find(`listener "imaps"`)}
	v.ready, v.metrics = "http://"+find("management")+"/readyz", "http://"+find("management")+"/metrics"
	script := fmt.Sprintf(`cd %[1]s && mkdir -p a trash tmp maint runs && (cd a && seq 0 255 | xargs printf '%%02x\n' | xargs mkdir) &&
		printf 'shoal-volume 1.0\nid %[2]s\n' >shoal-volume && exec %[3]s -config %[4]s`, mount, hungVolumeID, filepath.Join(bin, "boxd"), path)
	v.hold = exec.Command("unshare", "--mount", "--propagation", "private", holder, "ext4", mount, "sh", "-c", script)
	v.hold.Stdout, v.hold.Stderr = v.out, v.out
	v.hold.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := v.hold.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = v.hold.Process.Signal(syscall.SIGTERM)
		_ = v.hold.Wait()
		if t.Failed() {
			t.Logf("boxd with two volumes:\n%s", v.out)
		}
	})
	wait(t, 30*time.Second, v.isReady, func() string { return "boxd with two volumes is ready: " + v.out.String() })
	return v
}

func (v *twoVolumes) isReady() bool {
	r, err := (&http.Client{Timeout: 5 * time.Second}).Get(v.ready)
	if err != nil {
		return false
	}
	r.Body.Close()
	return r.StatusCode == http.StatusOK
}

// threads is the number of threads of boxd.
func (v *twoVolumes) threads(t *testing.T) int {
	t.Helper()
	children, err := filepath.Glob("/proc/[0-9]*/task/" + "*")
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, task := range children {
		pid := strings.Split(task, "/")[2]
		stat, err := os.ReadFile("/proc/" + pid + "/stat")
		if err != nil {
			continue
		}
		f := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
		if len(f) > 1 && f[1] == fmt.Sprint(v.hold.Process.Pid) {
			n++
		}
	}
	return n
}

func (v *twoVolumes) login(t *testing.T, u user) (*imapclient.Client, error) {
	c, err := imapclient.DialTLS(v.imap, &imapclient.Options{TLSConfig: v.s.tls(t)})
	if err != nil {
		return nil, err
	}
	if err := c.Login(u.Address, u.Password).Wait(); err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}

// use appends a message and counts what is there.
func (v *twoVolumes) use(t *testing.T, u user, subject string) (int, error) {
	c, err := v.login(t, u)
	if err != nil {
		return 0, err
	}
	defer c.Close()
	text := message(subject, 2000)
	a := c.Append("INBOX", int64(len(text)), nil)
	if _, err := a.Write([]byte(text)); err != nil {
		return 0, err
	}
	if err := a.Close(); err != nil {
		return 0, err
	}
	if _, err := a.Wait(); err != nil {
		return 0, err
	}
	st, err := c.Select("INBOX", nil).Wait()
	if err != nil {
		return 0, err
	}
	return int(st.NumMessages), nil
}

// onTwoVolumes starts the boxd with two volumes, and makes an account on each.
func onTwoVolumes(t *testing.T, s *service) (one, two user, v *twoVolumes) {
	t.Helper()
	entry := fmt.Sprintf("dn: cn=vol02,ou=volumes,ou=config,o=shoal\nobjectClass: shoalVolume\ncn: vol02\nshoalVolumeId: %s\nshoalVolumeState: active\n", hungVolumeID)
	if out, err := s.asRoot(t, "vault1", entry, "ldapadd"); err != nil {
		t.Fatal(out)
	}
	one = s.newAccount(t) // on vol01
	var made struct{ Address, Password string }
	if err := json.Unmarshal([]byte(s.shoalctl(t, "account", "add", "carol-on-two@example.test", "--volume", "vol02", "--generate", "--json")), &made); err != nil {
		t.Fatal(err)
	}
	two = user{Address: made.Address, Password: made.Password}
	s.spread(t, two.Address)
	return one, two, startTwoVolumes(t, s)
}

// A volume that hangs, with threads blocked in the kernel beyond the reach of any signal, takes down its own accounts only.
func TestHungVolume(t *testing.T) {
	s := own(t)
	alice, carol, v := onTwoVolumes(t, s)
	for i := range 3 {
		for _, u := range []user{alice, carol} {
			if n, err := v.use(t, u, "before"); err != nil || n != i+1 {
				t.Fatalf("%s has %d messages: %v", u.Address, n, err)
			}
		}
	}
	base := v.threads(t)
	signal := func(sig syscall.Signal, says string) {
		t.Helper()
		if err := v.hold.Process.Signal(sig); err != nil {
			t.Fatal(err)
		}
		wait(t, 10*time.Second, func() bool { return strings.Contains(v.out.String(), says) }, func() string { return says })
	}
	signal(syscall.SIGUSR1, "the disk does not answer")
	// Many want something of the volume that hangs; each is told so, and no more threads are blocked than may be.
	var wg sync.WaitGroup
	var mu sync.Mutex
	told := map[string]int{}
	for range 60 {
		wg.Go(func() {
			_, err := v.use(t, carol, "while it hangs")
			if err == nil {
				t.Error("a message was stored on a disk that does not answer")
				return
			}
			mu.Lock()
			told[err.Error()]++
			mu.Unlock()
		})
	}
	for i := range 5 {
		begin := time.Now()
		if n, err := v.use(t, alice, "other volume"); err != nil || n != 4+i {
			t.Errorf("%s on the other volume has %d messages: %v", alice.Address, n, err)
		}
		t.Logf("the other volume answers within %v", time.Since(begin).Round(time.Millisecond))
	}
	if !v.isReady() {
		t.Error("boxd is not ready, although one of its volumes works")
	}
	wg.Wait()
	for text, n := range told {
		t.Logf("%d were told: %s", n, text)
		if !strings.Contains(text, "UNAVAILABLE") {
			t.Errorf("the answer does not say that the mailbox is unavailable: %s", text)
		}
	}
	if n := v.threads(t); n > base+24+16 {
		t.Errorf("%d threads, %d before: more than 24 calls are blocked", n, base)
	} else {
		t.Logf("%d threads, %d before", n, base)
	}
	if !strings.Contains(v.out.String(), "volume does not answer") {
		t.Error("the log does not say that the volume does not answer")
	}
	signal(syscall.SIGUSR2, "the disk answers")
	count := 0
	var err error
	wait(t, 30*time.Second, func() bool { count, err = v.use(t, carol, "after"); return err == nil },
		func() string { return fmt.Sprintf("the volume is usable again: %v", err) })
	// What was answered with an error may have been stored all the same; what was acknowledged is there.
	if count < 4 {
		t.Errorf("%d messages, want the 3 of before and the one of after", count)
	}
	t.Logf("%d messages after the hang: 4 acknowledged, the rest of unknown outcome", count)
}
