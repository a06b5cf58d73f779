package cluster

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/emersion/go-imap/v2"
	"github.com/emersion/go-imap/v2/imapclient"
)

// home is a new home folder, so that a program finds no configuration but ours.
func home(t *testing.T) string {
	t.Helper()
	folder := t.TempDir()
	t.Setenv("HOME", folder)
	t.Setenv("FETCHMAILHOME", folder)
	t.Setenv("TERM", "xterm")
	t.Setenv("LC_ALL", "C.UTF-8")
	return folder
}

// put writes a file of a test.
func put(t *testing.T, path string, mode os.FileMode, format string, args ...any) string {
	t.Helper()
	if err := os.WriteFile(path, fmt.Appendf(nil, format, args...), mode); err != nil {
		t.Fatal(err)
	}
	return path
}

// files reads a folder's files.
func files(t *testing.T, folder string) []string {
	t.Helper()
	paths, err := filepath.Glob(filepath.Join(folder, "*"))
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, path := range paths {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, string(text))
	}
	return all
}

// inFiles are messages as programs of this system keep them in files: with LF.
func inFiles(messages []string) []string {
	var all []string
	for _, m := range messages {
		all = append(all, onDisk([]byte(m)))
	}
	return all
}

// flags of each message of INBOX, by subject.
func (s *service) flags(t *testing.T, u user) map[string][]imap.Flag {
	t.Helper()
	c := s.imap(t, u, "", nil)
	selected, err := c.Select("INBOX", &imap.SelectOptions{ReadOnly: true}).Wait()
	if err != nil {
		t.Fatal(err)
	}
	all := map[string][]imap.Flag{}
	if selected.NumMessages == 0 {
		return all
	}
	messages, err := c.Fetch(imap.SeqSet{imap.SeqRange{Start: 1, Stop: 0}}, &imap.FetchOptions{Flags: true, Envelope: true}).Collect()
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range messages {
		all[m.Envelope.Subject] = m.Flags
	}
	return all
}

// change does something with the one message of INBOX that has this subject.
func (s *service) change(t *testing.T, u user, subject string, do func(c *imapclient.Client, uids imap.UIDSet) error) {
	t.Helper()
	c := s.imap(t, u, "", nil)
	if _, err := c.Select("INBOX", nil).Wait(); err != nil {
		t.Fatal(err)
	}
	found, err := c.UIDSearch(&imap.SearchCriteria{Header: []imap.SearchCriteriaHeaderField{{Key: "Subject", Value: subject}}}, nil).Wait()
	if err != nil || len(found.AllUIDs()) != 1 {
		t.Fatalf("search for %s: %v, %v", subject, found, err)
	}
	if err := do(c, imap.UIDSetNum(found.AllUIDs()...)); err != nil {
		t.Fatal(err)
	}
}

func addFlag(f imap.Flag) func(*imapclient.Client, imap.UIDSet) error {
	return func(c *imapclient.Client, uids imap.UIDSet) error {
		return c.Store(uids, &imap.StoreFlags{Op: imap.StoreFlagsAdd, Silent: true, Flags: []imap.Flag{f}}, nil).Close()
	}
}

// mutt, as a person uses it: reads INBOX, copies all to one mailbox, saves a message to another, flags one, sends a
// mail through submission and files a copy of it.
func TestMutt(t *testing.T) {
	s := shared(t)
	u, to := s.newAccount(t), s.newAccount(t)
	all := letters()
	s.deposit(t, u, "INBOX", all)
	folder := home(t)
	const settings = `set folder="imaps://localhost:%[1]s/" spoolfile="imaps://localhost:%[1]s/INBOX"
set imap_user="%[2]s" imap_pass="%[3]s"
set smtp_url="smtps://%[2]s@localhost:%[4]s/" smtp_pass="%[3]s"
set certificate_file="%[5]s" ssl_verify_host=yes
set charset=utf-8 send_charset=utf-8 from="%[2]s" use_from=yes record="=Sent" hostname="client.example.org"
set confirmcreate=no confirmappend=no delete=yes move=no quit=yes sort=mailbox-order pipe_split=yes pipe_sep="" wait_key=no
`
	rc := func(name, ca string) string {
		return put(t, filepath.Join(folder, name), 0o600, settings, portOf(s.address("imaps")), u.Address, u.Password, portOf(s.address("submissions")), ca)
	}
	good := rc("muttrc", s.CAFile)
	if err := os.Mkdir(filepath.Join(folder, "read"), 0o700); err != nil {
		t.Fatal(err)
	}
	keep := put(t, filepath.Join(folder, "keep"), 0o700, "#!/bin/sh\nexec cat >\"$(mktemp %s/read/XXXXXX)\"\n", folder)
	keys := "<tag-pattern>~A<enter><tag-prefix><pipe-message>" + keep + "<enter><tag-prefix><copy-message>=Kept<enter>" +
		"<tag-prefix><tag-message><first-entry><save-message>=Saved<enter><next-entry><flag-message><quit>"
	command(t, "", "script", "-qec", "mutt -n -F "+good+` -f ! -e 'push "`+keys+`"'`, "/dev/null")
	compareSets(t, files(t, filepath.Join(folder, "read")), inFiles(all))
	s.holds(t, u, "Kept", all)
	s.holds(t, u, "Saved", all[:1])
	s.holds(t, u, "INBOX", all[1:])
	flagged := 0
	for _, flags := range s.flags(t, u) {
		if slices.Contains(flags, imap.FlagFlagged) {
			flagged++
		}
	}
	if flagged != 1 {
		t.Errorf("%d messages are flagged, want 1", flagged)
	}

	send := func(rc, subject string) (string, error) {
		return tryCommand(t, ".\n..\nGrüße from mutt\n", "mutt", "-n", "-F", rc, "-s", subject, "--", to.Address)
	}
	if out, err := send(good, "by mutt"); err != nil {
		t.Fatalf("sending: %v\n%s", err, out)
	}
	if out, err := send(rc("wrongrc", strangeCA(t)), "must not come"); err == nil {
		t.Errorf("mutt takes the certificate of any authority: %s", out)
	}
	copies, arrived := fetchAll(t, s.imap(t, u, "", nil), "Sent"), fetchAll(t, s.imap(t, to, "", nil), "INBOX")
	if len(copies) != 1 || len(arrived) != 1 {
		t.Fatalf("%d copies in Sent and %d mails arrived, want one each", len(copies), len(arrived))
	}
	for _, m := range []string{string(copies[0]), string(arrived[0])} {
		if header([]byte(m), "Subject") != "by mutt" || !strings.HasSuffix(m, "\r\n\r\n.\r\n..\r\nGrüße from mutt\r\n") {
			t.Errorf("got %q", m)
		}
	}
}

// mailTree lists a Maildir with its flags.
func mailTree(t *testing.T, folder string) map[string]time.Time {
	t.Helper()
	all := map[string]time.Time{}
	for _, sub := range []string{"new", "cur", "tmp"} {
		entries, err := os.ReadDir(filepath.Join(folder, sub))
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			info, err := e.Info()
			if err != nil {
				t.Fatal(err)
			}
			all[sub+"/"+e.Name()] = info.ModTime()
		}
	}
	return all
}

// offlineimap3: an account and a Maildir are the same after each run, whichever side has changed; a run with nothing
// to do changes nothing.
func TestOfflineIMAP(t *testing.T) {
	s := shared(t)
	u := s.newAccount(t)
	all := letters()
	s.deposit(t, u, "INBOX", all)
	s.deposit(t, u, "Archive/2026", all[:2])
	folder := home(t)
	rc := func(name, ca string) string {
		return put(t, filepath.Join(folder, name), 0o600, `[general]
metadata = %[1]s/%[2]s-state
accounts = a
[Account a]
localrepository = here
remoterepository = there
[Repository here]
type = Maildir
localfolders = %[1]s/mail
[Repository there]
type = IMAP
remotehost = localhost
remoteport = %[3]s
remoteuser = %[4]s
remotepass = %[5]s
ssl = yes
sslcacertfile = %[6]s
`, folder, name, portOf(s.address("imaps")), u.Address, u.Password, ca)
	}
	good := rc("offlineimaprc", s.CAFile)
	sync := func() { t.Helper(); command(t, "", "offlineimap", "-o", "-c", good, "-u", "basic") }
	inbox := filepath.Join(folder, "mail", "INBOX")
	modSeq := func() uint64 {
		t.Helper()
		data, err := s.imap(t, u, "", nil).Status("INBOX", &imap.StatusOptions{HighestModSeq: true}).Wait()
		if err != nil || data.HighestModSeq == 0 {
			t.Fatalf("status: %+v, %v", data, err)
		}
		return data.HighestModSeq
	}
	idle := func() { // a run that changes nothing on either side
		t.Helper()
		tree, n := mailTree(t, inbox), modSeq()
		sync()
		if now := mailTree(t, inbox); !maps.Equal(tree, now) {
			t.Errorf("a run with nothing to do has changed the Maildir from\n%v\nto\n%v", tree, now)
		}
		if now := modSeq(); now != n {
			t.Errorf("a run with nothing to do has changed INBOX: HIGHESTMODSEQ was %d and is %d", n, now)
		}
	}

	if out, err := tryCommand(t, "", "offlineimap", "-o", "-c", rc("wrongrc", strangeCA(t)), "-u", "basic"); err == nil || !strings.Contains(out, "CERTIFICATE_VERIFY_FAILED") {
		t.Errorf("with the certificate of another authority: %v\n%s", err, out)
	}
	// It parses what it fetches, and writes an empty field with a blank.
	written := func(messages []string) []string {
		all := inFiles(messages)
		for i, m := range all {
			all[i] = strings.Replace(m, "X-Empty:\n", "X-Empty: \n", 1)
		}
		return all
	}
	sync()
	compareSets(t, maildir(t, inbox), written(all))
	compareSets(t, maildir(t, filepath.Join(folder, "mail", "Archive.2026")), inFiles(all[:2]))
	idle()

	// Changes here: a flag, a message gone, a new one. Changes there: a flag, a message gone, a new one.
	find := func(subject string) string {
		t.Helper()
		for name := range mailTree(t, inbox) {
			text, err := os.ReadFile(filepath.Join(inbox, name))
			if err != nil {
				t.Fatal(err)
			}
			if header(text, "Subject") == subject {
				return filepath.Join(inbox, name)
			}
		}
		return ""
	}
	flagged := find("letter-0")
	name, _, _ := strings.Cut(filepath.Base(flagged), ":2,")
	if err := os.Rename(flagged, filepath.Join(inbox, "cur", name+":2,FS")); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(find("letter-1")); err != nil {
		t.Fatal(err)
	}
	fromHere := message("made-here", 2000)
	put(t, filepath.Join(inbox, "new", "1700000000.M1P1.here"), 0o600, "%s", onDisk([]byte(fromHere)))
	s.change(t, u, "letter-3", addFlag(imap.FlagAnswered))
	s.change(t, u, "letter-4", func(c *imapclient.Client, uids imap.UIDSet) error {
		if err := addFlag(imap.FlagDeleted)(c, uids); err != nil {
			return err
		}
		return c.UIDExpunge(uids).Close()
	})
	fromThere := message("made-there", 3000)
	s.deposit(t, u, "INBOX", []string{fromThere})
	sync()
	want := slices.Concat(all[:1], all[2:4], all[5:], []string{fromHere, fromThere})
	s.holds(t, u, "INBOX", want)
	compareSets(t, maildir(t, inbox), written(want))
	if flags := s.flags(t, u)["letter-0"]; !slices.Contains(flags, imap.FlagFlagged) || !slices.Contains(flags, imap.FlagSeen) {
		t.Errorf("flags set here are not there: %v", flags)
	}
	if path := find("letter-3"); !strings.HasSuffix(path, ":2,R") {
		t.Errorf("a flag set there is not here: %s", path)
	}
	idle()
}

// fetchmail over POP3 with STLS: byte for byte but for headers in UTF-8, which it does not ask for, first kept, then fetched away.
func TestFetchmail(t *testing.T) {
	s := shared(t)
	u := s.newAccount(t)
	all := letters()
	s.deposit(t, u, "INBOX", all)
	folder := home(t)
	fetch := func(name, ca, keep string) (string, error) {
		got := filepath.Join(folder, name)
		if err := os.Mkdir(got, 0o700); err != nil {
			t.Fatal(err)
		}
		mda := put(t, filepath.Join(folder, name+".mda"), 0o700, "#!/bin/sh\nexec cat >\"$(mktemp %s/XXXXXX)\"\n", got)
		rc := put(t, filepath.Join(folder, name+".rc"), 0o600, `set invisible
set no bouncemail
poll localhost protocol POP3 service %s
  user "%s" password "%s"
  sslproto "TLS1.2+" sslcertck sslcertfile "%s"
  mda "%s" fetchall %s no rewrite pass8bits
`, portOf(s.address("pop3")), u.Address, u.Password, ca, mda, keep)
		return tryCommand(t, "", "fetchmail", "-v", "--nosyslog", "-f", rc)
	}
	if out, err := fetch("wrong", strangeCA(t), "no keep"); err == nil || len(files(t, filepath.Join(folder, "wrong"))) != 0 {
		t.Errorf("with the certificate of another authority: %v\n%s", err, out)
	}
	for _, run := range []struct{ name, keep string }{{"kept", "keep"}, {"away", "no keep"}} {
		out, err := fetch(run.name, s.CAFile, run.keep)
		if err != nil || !strings.Contains(out, "upgrade to TLS succeeded") {
			t.Fatalf("%s: %v\n%s", run.name, err, out)
		}
		compareSets(t, files(t, filepath.Join(folder, run.name)), inFiles(headersInASCII(all)))
	}
	s.holds(t, u, "INBOX", nil)
}

// mpop over POP3 with STLS: byte for byte; what it has, known by UIDL, is not fetched again; then fetched away.
func TestMpop(t *testing.T) {
	s := shared(t)
	u := s.newAccount(t)
	all := letters()
	s.deposit(t, u, "INBOX", all)
	folder := home(t)
	rc := func(name, ca, keep string) string {
		for _, sub := range []string{"new", "cur", "tmp"} {
			if err := os.MkdirAll(filepath.Join(folder, "mail", sub), 0o700); err != nil {
				t.Fatal(err)
			}
		}
		return put(t, filepath.Join(folder, name), 0o600, `account a
host localhost
port %s
user %s
password %s
tls on
tls_starttls on
tls_trust_file %s
delivery maildir %s/mail
received_header off
uidls_file %[5]s/uidls
keep %s
`, portOf(s.address("pop3")), u.Address, u.Password, ca, folder, keep)
	}
	fetch := func(rc string) (string, error) { return tryCommand(t, "", "mpop", "-C", rc, "a") }
	if out, err := fetch(rc("wrong", strangeCA(t), "off")); err == nil || !strings.Contains(out, "certificate") {
		t.Errorf("with the certificate of another authority: %v\n%s", err, out)
	}
	for _, run := range []string{"kept", "kept again"} {
		if out, err := fetch(rc("kept", s.CAFile, "on")); err != nil {
			t.Fatalf("%s: %v\n%s", run, err, out)
		}
		compareSets(t, maildir(t, filepath.Join(folder, "mail")), inFiles(headersInASCII(all)))
	}
	more := message("one-more", 1000)
	s.deposit(t, u, "INBOX", []string{more})
	if out, err := fetch(rc("away", s.CAFile, "off")); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	compareSets(t, maildir(t, filepath.Join(folder, "mail")), inFiles(headersInASCII(append(all, more))))
	s.holds(t, u, "INBOX", nil)
}
