package cluster

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
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
