package sieve

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// The actions as Dovecot's sieve-test prints them.
var (
	theirStore    = regexp.MustCompile(`^ \* store message in folder: (.*)$`)
	theirFlags    = regexp.MustCompile(`^        \+ add IMAP flags: (.*)$`)
	theirRedirect = regexp.MustCompile(`^ \* redirect message to: <(.*)>$`)
	theirReject   = regexp.MustCompile(`^ \* reject message`)
	theirVacation = regexp.MustCompile(`^ \* send vacation message`)
)

// Dovecot's interpreter does the same with the same scripts and the same message.
func TestSameAsPigeonhole(t *testing.T) {
	tool, err := exec.LookPath("sieve-test")
	if err != nil {
		t.Fatalf("sieve-test of the package dovecot-sieve is needed: make install-deps: %v", err)
	}
	dir := t.TempDir()
	for d := dir; d != os.TempDir() && d != "/"; d = filepath.Dir(d) { // it runs as another user
		if err := os.Chmod(d, 0o777); err != nil {
			t.Fatal(err)
		}
	}
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o666); err != nil {
			t.Fatal(err)
		}
		return path
	}
	user := ""
	if os.Getuid() == 0 {
		user = "mail_uid = nobody\nmail_gid = nogroup\nfirst_valid_uid = 1\n"
	}
	config := write("dovecot.conf", fmt.Sprintf(`%smail_location = maildir:%s/mail
mail_home = %s
protocols =
ssl = no
plugin {
  sieve_extensions = +editheader +spamtest +spamtestplus +virustest +vacation-seconds
}
`, user, dir, dir))
	compared := 0
	for _, c := range cases {
		if c.alone {
			continue
		}
		mail := c.mail
		if mail == "" {
			mail = plainMail
		}
		cmd := exec.Command(tool, "-c", config, "-C", "-f", "ann+news@example.com", "-r", "bob@shoal.test", "-a", "bob+lists@shoal.test",
			write("script.sieve", c.script), write("mail.eml", crlf(mail)))
		cmd.Env = append(os.Environ(), "TZ=UTC", "HOME="+dir)
		out, err := cmd.CombinedOutput()
		if (err == nil) != (c.fails == "") {
			t.Errorf("%s: %v\n%s\n%s", c.name, err, c.script, out)
			continue
		}
		theirs := []string{}
		var flags []string
		for line := range strings.Lines(string(out)) {
			line = strings.TrimSuffix(line, "\n")
			if m := theirStore.FindStringSubmatch(line); m != nil {
				theirs = append(theirs, "store "+m[1])
			} else if m := theirRedirect.FindStringSubmatch(line); m != nil {
				theirs = append(theirs, "redirect "+m[1])
			} else if theirReject.MatchString(line) {
				theirs = append(theirs, "reject")
			} else if theirVacation.MatchString(line) {
				theirs = append(theirs, "vacation")
			} else if m := theirFlags.FindStringSubmatch(line); m != nil {
				flags = append(flags, strings.Fields(strings.ToLower(m[1]))...)
			} else if strings.HasSuffix(line, "resolved with successful implicit keep") {
				theirs = append(theirs, "store INBOX")
			}
		}
		o, _ := Run(t.Context(), env(t, mail), compile(t, c.script))
		ours := []string{}
		var ourFlags []string
		for _, a := range o.Actions {
			switch a := a.(type) {
			case *FileInto:
				name := a.Mailbox
				if name == "" {
					name = "INBOX"
				}
				ours = append(ours, "store "+name)
				ourFlags = append(ourFlags, strings.Fields(strings.ToLower(strings.Join(a.Flags, " ")))...)
			case *Redirect:
				ours = append(ours, "redirect "+a.To.String())
			case *Reject:
				ours = append(ours, "reject")
			case *Vacation:
				ours = append(ours, "vacation")
			}
		}
		for _, l := range [][]string{theirs, ours, flags, ourFlags} {
			slices.Sort(l)
		}
		if !slices.Equal(theirs, ours) || !slices.Equal(flags, ourFlags) {
			t.Errorf("%s: %s\nDovecot: %q %q\nwe:      %q %q\n%s", c.name, c.script, theirs, flags, ours, ourFlags, out)
		}
		compared++
	}
	if compared < 100 {
		t.Errorf("only %d scripts were compared", compared)
	}
}
