package cluster

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// sieveConnect runs sieve-connect as a user, through the balancer or at one box.
func (s *service) sieveConnect(t *testing.T, u user, box string, args ...string) string {
	t.Helper()
	var server []string
	if box != "" {
		server = []string{box}
	}
	password := put(t, filepath.Join(t.TempDir(), "password"), 0o600, "%s\n", u.Password)
	line := `exec sieve-connect --server localhost --port "$1" --user "$2" --authmech PLAIN --passwordfd 3 --tlscafile "$3" "${@:5}" 3<"$4"`
	return command(t, "", "bash", append([]string{"-c", line, "bash", portOf(s.address("managesieve", server...)), u.Address, s.CAFile, password}, args...)...)
}

// script stores a script with a client that we did not write, and activates it, at one box: another one that knows the account
// already would learn of it within sieve { age }.
func (s *service) script(t *testing.T, u user, box, text string) {
	t.Helper()
	file := put(t, filepath.Join(t.TempDir(), "rules.sieve"), 0o600, "%s", text)
	s.sieveConnect(t, u, box, "--localsieve", file, "--remotesieve", "rules", "--upload")
	s.sieveConnect(t, u, box, "--remotesieve", "rules", "--activate")
}

// mailIn reads a mailbox over a connection of its own.
func (s *service) mailIn(t *testing.T, u user, box, mailbox string) [][]byte {
	t.Helper()
	c := s.imap(t, u, box, nil)
	defer c.Close()
	return fetchAll(t, c, mailbox)
}

// Rules stored through one box sort the mail that comes in through either.
func TestSieveSortsMail(t *testing.T) {
	s := shared(t)
	u, other, sender := s.newAccount(t), s.newAccount(t), s.newAccount(t)
	s.script(t, u, "box1", `require ["fileinto","mailbox","imap4flags","copy","envelope","subaddress","reject"];
if header :contains "subject" "junk" { discard; stop; }
if header :contains "subject" "refuse" { reject "Not wanted here"; stop; }
if header :contains "subject" "pass" { redirect :copy "`+other.Address+`"; }
if envelope :detail "to" "lists" { fileinto :create :flags "\\Seen" "Lists"; }
`)
	if out := s.sieveConnect(t, u, "box2", "--list"); !strings.Contains(out, `"rules" ACTIVE`) {
		t.Errorf("the other box lists %q", out)
	}
	send := func(to, subject string) (string, error) {
		return tryCommand(t, "", "swaks", "--server", s.address("smtp"), "--helo", "client.example.org", "--from", sender.Address, "--to", to,
			"--header", "Subject: "+subject, "--body", subject)
	}
	for _, c := range []struct{ to, subject string }{
		{u.Address, "plain"}, {u.Address, "junk"}, {u.Address, "pass on"}, {strings.Replace(u.Address, "@", "+lists@", 1), "a list"},
	} {
		if out, err := send(c.to, c.subject); err != nil {
			t.Errorf("%s: %v\n%s", c.subject, err, out)
		}
	}
	if out, err := send(u.Address, "refuse me"); err == nil || !strings.Contains(out, "550 5.7.1 Not wanted here") {
		t.Errorf("a message that is rejected: %v\n%s", err, out)
	}
	subjects := func(u user, box, mailbox string) string {
		t.Helper()
		var out []string
		for _, m := range s.mailIn(t, u, box, mailbox) {
			for line := range strings.Lines(string(m)) {
				if v, ok := strings.CutPrefix(line, "Subject: "); ok {
					out = append(out, strings.TrimSpace(v))
				}
			}
		}
		return strings.Join(out, ", ")
	}
	for _, box := range []string{"box1", "box2"} {
		if got := subjects(u, box, "INBOX"); got != "plain, pass on" {
			t.Errorf("%s: the INBOX has %q", box, got)
		}
		if got := subjects(u, box, "Lists"); got != "a list" {
			t.Errorf("%s: Lists has %q", box, got)
		}
	}
	wait(t, 30*time.Second, func() bool { return subjects(other, "", "INBOX") == "pass on" }, func() string {
		return "the redirected message has not come: " + subjects(other, "", "INBOX")
	})
}

// A sender is answered once, whichever box the mail comes in through; what fails is kept and the owner told.
func TestVacationAndBrokenScript(t *testing.T) {
	s := shared(t)
	u, sender := s.newAccount(t), s.newAccount(t)
	s.script(t, u, "box1", `require ["vacation","variables"];
if header :matches "subject" "fail*" { redirect "${1}"; }
vacation :subject "Away" "I am away.";
`)
	send := func(subject string) {
		t.Helper()
		s.swaks(t, u.Address, subject, "--from", sender.Address)
	}
	for range 6 { // both boxes take some of them
		send("hello")
	}
	send("fail to redirect")
	replies := func() (n int) {
		for _, m := range s.mailIn(t, sender, "", "INBOX") {
			if strings.Contains(string(m), "Auto-Submitted: auto-replied") && strings.Contains(string(m), "I am away.") {
				n++
			}
		}
		return n
	}
	wait(t, 30*time.Second, func() bool { return replies() > 0 }, func() string { return "no vacation reply has come" })
	// A reply to somebody else comes after those that should not be there.
	marker := s.newAccount(t)
	s.swaks(t, u.Address, "marker", "--from", marker.Address)
	wait(t, 30*time.Second, func() bool { return len(s.mailIn(t, marker, "", "INBOX")) == 1 }, func() string {
		return fmt.Sprintf("the other sender has %q", s.mailIn(t, marker, "", "INBOX"))
	})
	if n := replies(); n != 1 {
		t.Errorf("%d replies to one sender", n)
	}
	all := s.mailIn(t, u, "", "INBOX")
	told := 0
	for _, m := range all {
		if strings.Contains(string(m), "Subject: Your mail filter does not work") {
			told++
		}
	}
	if len(all) != 9 || told != 1 {
		t.Errorf("%d messages in the INBOX, %d of them about the script", len(all), told)
	}
}
