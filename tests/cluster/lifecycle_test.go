package cluster

import (
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// The newcomer's path: up, a mail, Ctrl-C, up again with the same mail; make down; make clean-data.
func TestUpDownAndUpAgain(t *testing.T) {
	data := filepath.Join(t.TempDir(), "data")
	s, err := launchAnywhere(data)
	if err != nil {
		t.Fatal(err)
	}
	alice := s.Users[0]
	s.swaks(t, alice.Address, "before the end")
	base, _ := strconv.Atoi(portOf(s.address("smtp")))

	t.Run("a second one is refused", func(t *testing.T) {
		out, err := s.tryShoalctl(t, "up", "--quiet")
		if err == nil || !strings.Contains(out, "running on this data folder already") || !strings.Contains(out, "make down") {
			t.Errorf("got %v: %s", err, out)
		}
	})
	t.Run("its ports are taken", func(t *testing.T) {
		_, err := launch(filepath.Join(t.TempDir(), "data"), base-25)
		if err == nil || !strings.Contains(err.Error(), "127.0.0.1:"+strconv.Itoa(base)) || !strings.Contains(err.Error(), "SHOAL_PORT_BASE=") ||
			!strings.Contains(err.Error(), "is held by process") {
			t.Errorf("the error does not name the port, its holder and the way out: %v", err)
		}
	})
	if err := s.end(); err != nil {
		t.Fatalf("Ctrl-C: %v\n%s", err, s.out)
	}
	if !strings.Contains(s.out.String(), "stopped") || strings.Contains(s.out.String(), "killed") {
		t.Errorf("the end does not look like a drain: %s", s.out)
	}

	again, err := launchAnywhere(data) // on other ports, most likely
	if err != nil {
		t.Fatal(err)
	}
	if again.Users[0] != alice {
		t.Errorf("the account is now %+v, it was %+v", again.Users[0], alice)
	}
	again.swaks(t, alice.Address, "after the start")
	if mail := fetchAll(t, again.imap(t, alice, "box2", nil), "INBOX"); len(mail) != 2 || header(mail[0], "Subject") != "before the end" {
		t.Errorf("%d messages after the second start", len(mail))
	}

	t.Run("down", func(t *testing.T) {
		out := again.shoalctl(t, "down")
		if !strings.Contains(out, "stopped") {
			t.Errorf("down says %q", out)
		}
		<-again.ended
		for _, name := range again.servers() {
			if pid := again.pid(name); pid != 0 && syscall.Kill(pid, 0) == nil {
				t.Errorf("%s (process %d) is still there", name, pid)
			}
		}
		if out := again.shoalctl(t, "down"); !strings.Contains(out, "nothing is running") {
			t.Errorf("down twice says %q", out)
		}
	})
	t.Run("clean-data", func(t *testing.T) {
		script, err := filepath.Abs("../../scripts/clean-data")
		if err != nil {
			t.Fatal(err)
		}
		foreign := t.TempDir()
		t.Setenv("SHOAL_DATA", foreign)
		if out, err := tryCommand(t, "", script); err == nil {
			t.Errorf("a folder without the mark was removed: %s", out)
		}
		t.Setenv("SHOAL_DATA", data)
		command(t, "", script)
		if _, err := os.Stat(data); err == nil {
			t.Error("the data folder is still there")
		}
	})
}

// The text that a newcomer reads, and its commands, copied as they stand.
func TestPrintedCommandsWork(t *testing.T) {
	data := filepath.Join(t.TempDir(), "data")
	t.Setenv("SHOAL_DATA", data)
	var out string
	for base := 11000; ; base += 300 { // until free ports are found
		t.Setenv("SHOAL_PORT_BASE", strconv.Itoa(base))
		var err error
		out, err = tryCommand(t, "", filepath.Join(bin, "shoalctl"), "up", "--detach")
		if err == nil {
			break
		}
		if !strings.Contains(out, "ports are in use") || base > 20000 {
			t.Fatalf("shoalctl up --detach: %v\n%s", err, out)
		}
	}
	t.Cleanup(func() {
		if out, err := exec.Command(filepath.Join(bin, "shoalctl"), "down").CombinedOutput(); err != nil {
			t.Errorf("shoalctl down: %v\n%s", err, out)
		}
	})
	ran := 0
	for line := range strings.Lines(out) {
		line, _, _ = strings.Cut(strings.TrimSpace(line), "   # ")
		for _, program := range []string{"swaks ", "printf ", "curl ", "mbsync "} {
			if !strings.HasPrefix(line, program) {
				continue
			}
			ran++
			got := command(t, "", "sh", "-c", line)
			if program == "curl " && (!strings.Contains(got, "hello")) {
				t.Errorf("%s\nprints no mail: %q", line, got)
			}
		}
	}
	if ran < 5 {
		t.Errorf("only %d commands were found in:\n%s", ran, out)
	}
	if mail := maildir(t, filepath.Join(data, "maildir", "alice", "INBOX")); len(mail) == 0 {
		t.Error("mbsync left no mail")
	}
}

// A killed supervisor leaves nothing running, and the next start goes on.
func TestNothingOutlivesTheSupervisor(t *testing.T) {
	data := filepath.Join(t.TempDir(), "data")
	s, err := launchAnywhere(data)
	if err != nil {
		t.Fatal(err)
	}
	pids := s.pids()
	s.kill()
	wait(t, 30*time.Second, func() bool {
		for _, pid := range pids {
			if alive(pid) {
				return false
			}
		}
		return true
	}, func() string { return "the daemons end after their supervisor" })
	again, err := launchAnywhere(data)
	if err != nil {
		t.Fatal(err)
	}
	if err := again.end(); err != nil {
		t.Error(err)
	}
}

// alive says whether a process runs; one that has ended and was not waited for does not.
func alive(pid int) bool {
	text, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return false
	}
	_, after, _ := strings.Cut(string(text), ") ")
	return !strings.HasPrefix(after, "Z")
}
