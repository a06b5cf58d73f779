package cluster

import (
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// The scripts that the provider and a domain keep in the directory run around an account's own, and may be included by it; a box that
// knew the domain before hears of them.
func TestSieveScriptsOfTheProvider(t *testing.T) {
	s := shared(t)
	u, sender := s.newAccount(t), s.newAccount(t)
	_, domain, _ := strings.Cut(u.Address, "@")
	only := `if not header :contains "x-provider" "` + u.Address + `" { stop; }` + "\n" // other tests run meanwhile
	dir := t.TempDir()
	file := func(name, text string) string { return put(t, filepath.Join(dir, name), 0o600, "%s", text) }
	before := `require ["imap4flags","editheader"];` + "\n" + only + `addheader "X-Before" "provider"; addflag "first";` + "\n"

	bad := file("bad.sieve", "keep;\n  filinto \"x\";\n")
	for _, args := range [][]string{{"sieve", "check", bad}, {"sieve", "put", "before", bad}} {
		if out, err := s.tryShoalctl(t, args...); err == nil || !strings.Contains(out, "bad.sieve: line 2, column 3: ") {
			t.Errorf("%v of a script with a mistake: %v\n%s", args, err, out)
		}
	}
	defer func() { // the directory is that of all tests
		s.shoalctl(t, "sieve", "delete", "before")
		s.shoalctl(t, "sieve", "delete", "junk")
		s.shoalctl(t, "sieve", "delete", "after", "--domain", domain)
	}()
	s.shoalctl(t, "sieve", "put", "before", file("before.sieve", before))
	s.shoalctl(t, "sieve", "put", "junk", file("junk.sieve", `require ["fileinto","mailbox"]; if header :contains "subject" "junk" { fileinto :create "Junk by provider"; }`))
	s.shoalctl(t, "sieve", "put", "after", file("after.sieve", `require ["editheader","fileinto","mailbox"];`+"\n"+only+`addheader "X-After" "domain"; fileinto :create "Sorted";`), "--domain", domain)
	if out := s.shoalctl(t, "sieve", "get", "before"); out != before {
		t.Errorf("put %q, got %q", before, out)
	}
	if out := s.shoalctl(t, "sieve", "list"); !strings.Contains(out, "before") || !strings.Contains(out, "junk") || strings.Contains(out, "after") {
		t.Errorf("the provider's scripts:\n%s", out)
	}
	if out := s.shoalctl(t, "sieve", "list", "--domain", domain); !strings.Contains(out, "after") || strings.Contains(out, "before") {
		t.Errorf("the domain's scripts:\n%s", out)
	}
	s.script(t, u, "box1", `require "include"; include :global "junk";`)

	mailTo := func(subject, mailbox string) string {
		t.Helper()
		s.swaks(t, u.Address, subject, "--from", sender.Address, "--header", "X-Provider: "+u.Address)
		var found string
		wait(t, 30*time.Second, func() bool {
			for _, m := range s.mailIn(t, u, "", mailbox) {
				if strings.Contains(string(m), "Subject: "+subject) {
					found = string(m)
				}
			}
			return found != ""
		}, func() string { return "no " + subject + " in " + mailbox })
		return found
	}
	if m := mailTo("plain", "Sorted"); !strings.Contains(m, "X-Before: provider\r\n") || !strings.Contains(m, "X-After: domain\r\n") {
		t.Errorf("%s", m)
	}
	if m := mailTo("junk", "Junk by provider"); !strings.Contains(m, "X-Before: provider\r\n") || strings.Contains(m, "X-After") {
		t.Errorf("%s", m)
	}
	if out, err := s.tryShoalctl(t, "sieve", "delete", "none"); err == nil || !strings.Contains(out, "no such script") {
		t.Errorf("delete of none: %v\n%s", err, out)
	}
}
