package cluster

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// Shells complete what is in the directory.
func TestCompletionAsksTheDirectory(t *testing.T) {
	s := shared(t)
	u := s.newAccount(t)
	for _, c := range []struct{ args, want string }{
		{"account show " + u.Address[:4], u.Address},
		{"export " + u.Address[:len(u.Address)-3], u.Address},
		{"domain show exa", "example.test"},
		{"account list e", "example.test"},
		{"domain add --volume v", "vol01"},
	} {
		out := s.shoalctl(t, append([]string{"__complete"}, strings.Fields(c.args)...)...)
		if !strings.Contains("\n"+out, "\n"+c.want+"\n") {
			t.Errorf("%s: got %q, want %s in it", c.args, out, c.want)
		}
	}
	if out := s.shoalctl(t, "__complete", "account", "show", "*)(objectClass="); out != ":4\n" {
		t.Errorf("a filter in what is typed: got %q", out)
	}
}

// What is imported comes out again, through the balancer and whichever boxes it chooses.
func TestExportGivesBackWhatWasImported(t *testing.T) {
	t.Setenv("XDG_STATE_HOME", t.TempDir())
	s := shared(t)
	u := s.newAccount(t)
	password := filepath.Join(t.TempDir(), "password")
	if err := os.WriteFile(password, []byte(u.Password+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	var file strings.Builder
	for i := range 200 {
		fmt.Fprintf(&file, "From someone@far.test Mon Nov 23 12:%02d:00 2026\nReturn-Path: <someone@far.test>\nSubject: %d\n\n>From here\n%s\n\n", i%60, i, strings.Repeat("x", i*7))
	}
	before := filepath.Join(t.TempDir(), "before.mbox")
	if err := os.WriteFile(before, []byte(file.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	s.shoalctl(t, "import", u.Address, before, "--mailbox", "Old/Größe", "--format", "mboxrd", "--password-file", password)
	after := filepath.Join(t.TempDir(), "after.mbox")
	s.shoalctl(t, "export", u.Address, after, "--mailbox", "Old/Größe", "--format", "mbox", "--password-file", password)
	text, err := os.ReadFile(after)
	if err != nil || string(text) != file.String() {
		t.Errorf("%v, %d bytes went in, %d came out", err, file.Len(), len(text))
	}
}

// A service that make up has started is well, and says so.
func TestDoctorFindsNothing(t *testing.T) {
	s := shared(t)
	out, err := s.tryShoalctl(t, "doctor", "--json")
	var answer struct {
		Findings []struct{ Check, State, What string }
	}
	if jsonErr := json.Unmarshal([]byte(out), &answer); jsonErr != nil {
		t.Fatalf("%v, %v: %s", err, jsonErr, out)
	}
	for _, f := range answer.Findings {
		// the disk and the limits of the machine that tests run on are its own
		if f.State != "ok" && !strings.Contains(f.What, "are free") && f.Check != "limits" {
			t.Errorf("%s: %s: %s", f.State, f.Check, f.What)
		}
	}
	if len(answer.Findings) < 10 {
		t.Errorf("only %d checks", len(answer.Findings))
	}
}

// While no box answers both switches queue; the operator sees all of it, drops one, and has the rest tried at once
// when the boxes are back.
func TestOperatorWorksTheQueueOfAllSwitches(t *testing.T) {
	s := own(t)
	u := s.Users[0]
	for _, box := range []string{"box1", "box2"} {
		if err := syscall.Kill(s.pid(box), syscall.SIGSTOP); err != nil {
			t.Fatal(err)
		}
	}
	resume := func() {
		for _, box := range []string{"box1", "box2"} {
			if pid := s.pid(box); pid != 0 {
				_ = syscall.Kill(pid, syscall.SIGCONT)
			}
		}
	}
	defer resume()
	type list struct {
		Total   int
		Entries []struct{ ID, Server, From, Reason string }
	}
	entries := func(args ...string) (l list) {
		t.Helper()
		out := s.shoalctl(t, append([]string{"queue", "list", "--json"}, args...)...)
		if err := json.Unmarshal([]byte(out), &l); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		return l
	}
	until := func(what string, f func() bool) {
		t.Helper()
		wait(t, time.Minute, f, func() string { return what + "\n" + s.shoalctl(t, "queue", "list", "--wide") })
	}
	until("HAProxy sees that the boxes do not answer", func() bool {
		out, _ := s.tryShoalctl(t, "status", "--json")
		var st status
		if err := json.Unmarshal([]byte(out[:strings.LastIndexByte(out, '}')+1]), &st); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		down := 0
		for _, b := range st.Backends {
			if b.Backend == "be_lmtp" && strings.HasPrefix(b.Status, "DOWN") {
				down++
			}
		}
		return down == 2
	})
	for i := range 4 {
		c, err := dialSMTP(s.address("smtp", fmt.Sprintf("switch%d", 1+i%2)))
		if err != nil {
			t.Fatal(err)
		}
		if err := c.begin(fmt.Sprintf("sender%d@far.test", i), u.Address); err != nil {
			t.Fatal(err)
		}
		if err := c.ask(250, "Subject: queued %d\r\n\r\nx\r\n.", i); err != nil {
			t.Fatal(err)
		}
	}
	all := entries()
	by := map[string]int{}
	for _, e := range all.Entries {
		by[e.Server]++
	}
	if all.Total != 4 || by["switch1"] != 2 || by["switch2"] != 2 {
		t.Fatalf("the queue: %+v", all)
	}
	one := entries("--from", "sender3@far.test")
	if len(one.Entries) != 1 {
		t.Fatalf("sender3's: %+v", one)
	}
	id := one.Entries[0].ID
	if out := s.shoalctl(t, "queue", "show", id); !strings.Contains(out, "Subject: queued 3") || !strings.Contains(out, u.Address) {
		t.Errorf("queue show: %s", out)
	}
	if out, _ := s.tryShoalctl(t, "status"); !strings.Contains(out, "queue 2, oldest") { // it fails: boxes are not well
		t.Errorf("status does not tell of the queue: %s", out)
	}
	until("the entry is not being tried at this moment", func() bool {
		_, err := s.tryShoalctl(t, "queue", "delete", id)
		return err == nil
	})
	if out, err := s.tryShoalctl(t, "queue", "show", id); err == nil {
		t.Errorf("a deleted entry is shown: %s", out)
	}
	resume()
	until("the rest is delivered", func() bool {
		s.shoalctl(t, "queue", "retry", "--all")
		return entries().Total == 0
	})
	c := s.imap(t, u, "", nil)
	got := fetchAll(t, c, "INBOX")
	if len(got) != 3 {
		t.Errorf("%d messages were delivered, want 3", len(got))
	}
}
