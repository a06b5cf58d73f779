package cluster

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// Two users at two boxes: mailboxes of one are used by the other by access list, directory group (one in another) and annotation; public mailboxes are made by the
// operator, found by all, and take mail; foreign programs work with both.
func TestSharedMailboxes(t *testing.T) {
	s := shared(t)
	owner, member := s.newAccount(t), s.newAccount(t)
	local := func(u user) string { return strings.TrimSuffix(u.Address, "@example.test") }
	group, board := "crew-"+local(owner), "board-"+local(owner)
	ldif := put(t, filepath.Join(t.TempDir(), "group.ldif"), 0o600,
		"dn: cn=in-%s,associatedDomain=example.test,ou=domains,o=shoal\nobjectClass: groupOfNames\ncn: in-%[1]s\nmember: uid=%[2]s,associatedDomain=example.test,ou=domains,o=shoal\n\n"+
			"dn: cn=%[1]s,associatedDomain=example.test,ou=domains,o=shoal\nobjectClass: groupOfNames\ncn: %[1]s\nmember: cn=in-%[1]s,associatedDomain=example.test,ou=domains,o=shoal\n", group, local(member))
	s.shoalctl(t, "directory", "apply", "--yes", ldif)
	if out := s.shoalctl(t, "mailbox", "public", "create", board+"@example.test", "News/2026"); !strings.Contains(out, "News/2026") {
		t.Errorf("public create: %s", out)
	}
	s.spread(t, board+"@example.test")
	if out := s.shoalctl(t, "mailbox", "public", "list", "example.test"); !strings.Contains(out, board) || strings.Contains(out, "\n"+owner.Address) {
		t.Errorf("public list: %s", out)
	}

	var ports []int
	for _, box := range []string{"box1", "box2"} {
		n, _ := strconv.Atoi(portOf(s.address("imaps", box)))
		ports = append(ports, n)
	}
	who := func(u user) map[string]string {
		return map[string]string{"address": u.Address, "password": u.Password}
	}
	job, err := json.Marshal(map[string]any{"host": "localhost", "ports": ports, "ca": s.CAFile, "owner": who(owner), "member": who(member),
		"group": group, "public": []string{board, board + "/News/2026"}})
	if err != nil {
		t.Fatal(err)
	}
	if out, err := tryCommand(t, string(job), "python3", filepath.Join("testdata", "python", "acl_client.py")); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}

	// curl puts a message into the other's mailbox, and reads it
	text := "Subject: by curl\r\n\r\nhello\r\n"
	file := put(t, filepath.Join(t.TempDir(), "message"), 0o600, "%s", text)
	url := fmt.Sprintf("imaps://localhost:%s/Other%%20Users/%s/Team", ports2(ports, 1), local(owner))
	command(t, "", "curl", "-sS", "--cacert", s.CAFile, "--user", member.Address+":"+member.Password, "-T", file, url)
	if got := command(t, "", "curl", "-sS", "--cacert", s.CAFile, "--user", member.Address+":"+member.Password, url+";MAILINDEX=2"); got != text {
		t.Errorf("curl reads %q", got)
	}
	// mail for the public address is read by everybody
	s.swaks(t, board+"@example.test", "for the board")
	wait(t, 20*time.Second, func() bool {
		return len(fetchAll(t, s.imap(t, member, "box2", nil), "Public Folders/"+board)) == 1
	}, func() string { return "the mail for the public address is not there" })
	s.shoalctl(t, "mailbox", "acl", "set", board+"@example.test", "INBOX", "anyone", "lr")
	if out, err := tryCommand(t, "", "swaks", "--server", s.address("smtp"), "--from", "x@example.org", "--to", board+"@example.test", "--silent", "3"); err == nil {
		t.Errorf("mail is taken without the right p: %s", out)
	}

	// mbsync pulls what others share
	s.mbsyncShared(t, member, "box2", map[string]int{"Other Users/" + local(owner) + "/Team": 2, "Public Folders/" + board: 1})
	s.muttShared(t, member, "Other Users/"+local(owner)+"/Team")

	// the operator's view, and his word
	if out := s.shoalctl(t, "mailbox", "acl", "show", owner.Address, "Team"); !strings.Contains(out, member.Address) {
		t.Errorf("acl show: %s", out)
	}
	s.shoalctl(t, "mailbox", "acl", "delete", owner.Address, "Team", member.Address)
	out, err := tryCommand(t, "", "curl", "-sS", "--cacert", s.CAFile, "--user", member.Address+":"+member.Password, url+";MAILINDEX=2")
	if err == nil {
		t.Errorf("read without rights: %s", out)
	}
	s.shoalctl(t, "mailbox", "acl", "set", owner.Address, "Team", member.Address, "lrs")
	command(t, "", "curl", "-sS", "--cacert", s.CAFile, "--user", member.Address+":"+member.Password, url+";MAILINDEX=2")
	// an owner who may not log in shares nothing
	s.shoalctl(t, "account", "suspend", owner.Address)
	wait(t, 20*time.Second, func() bool {
		_, err := tryCommand(t, "", "curl", "-sS", "--cacert", s.CAFile, "--user", member.Address+":"+member.Password, url+";MAILINDEX=2")
		return err != nil
	}, func() string { return "the mailbox of a suspended account is still read" })
}

func ports2(ports []int, i int) string { return strconv.Itoa(ports[i]) }

// mbsyncShared pulls mailboxes of others and counts their messages.
func (s *service) mbsyncShared(t *testing.T, u user, box string, want map[string]int) {
	t.Helper()
	folder := t.TempDir()
	if err := os.Mkdir(filepath.Join(folder, "mail"), 0o700); err != nil {
		t.Fatal(err)
	}
	patterns := ""
	for name := range want {
		patterns += fmt.Sprintf(" %q", name)
	}
	rc := put(t, filepath.Join(folder, "rc"), 0o600, `FSync no

IMAPStore there
Host localhost
Port %s
User %s
Pass %s
SSLType IMAPS
CertificateFile %s

MaildirStore here
Path %[5]s/mail/
Inbox %[5]s/mail/INBOX
SubFolders Verbatim

Channel all
Far :there:
Near :here:
Patterns%s
Create Near
Sync Pull
SyncState *
`, portOf(s.address("imaps", box)), u.Address, u.Password, s.CAFile, folder, patterns)
	command(t, "", "mbsync", "-c", rc, "all")
	for name, n := range want {
		if got := len(maildir(t, filepath.Join(folder, "mail", name))); got != n {
			t.Errorf("mbsync has %d messages of %s, want %d", got, name, n)
		}
	}
}

// muttShared opens a mailbox of somebody else with mutt and copies its messages into one of the user's own.
func (s *service) muttShared(t *testing.T, u user, mailbox string) {
	t.Helper()
	folder := home(t)
	rc := put(t, filepath.Join(folder, "muttrc"), 0o600, `set folder="imaps://localhost:%[1]s/" spoolfile="imaps://localhost:%[1]s/INBOX"
set imap_user="%[2]s" imap_pass="%[3]s" certificate_file="%[4]s" ssl_verify_host=yes charset=utf-8
set confirmcreate=no confirmappend=no delete=yes move=no quit=yes sort=mailbox-order wait_key=no
`, portOf(s.address("imaps")), u.Address, u.Password, s.CAFile)
	keys := "<tag-pattern>~A<enter><tag-prefix><copy-message>=FromOthers<enter><quit>"
	command(t, "", "script", "-qec", "mutt -n -F "+rc+` -f "imaps://localhost:`+portOf(s.address("imaps"))+"/"+mailbox+`" -e 'push "`+keys+`"'`, "/dev/null")
	if n := len(fetchAll(t, s.imap(t, u, "", nil), "FromOthers")); n != 2 {
		t.Errorf("mutt has copied %d messages, want 2", n)
	}
}
