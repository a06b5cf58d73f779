package cluster

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// Whoever sends to the balancer's port is served by one switch and one box; the other box shows the mail as
// well. Reading from both boxes covers "the other one", whichever took it.
func TestSentMailIsReadFromBothBoxes(t *testing.T) {
	s := shared(t)
	u := s.newAccount(t)
	s.swaks(t, u.Address, "from swaks")
	s.curlSend(t, u.Address, message("from-curl", 3000))
	for _, box := range []string{"box1", "box2"} {
		t.Run("curl from "+box, func(t *testing.T) {
			first := s.curlRead(t, u, box, "1")
			if !strings.Contains(first, "Hello from swaks: from swaks\r\n") {
				t.Errorf("message 1: %q", first)
			}
			second := s.curlRead(t, u, box, "2")
			if !strings.HasSuffix(second, message("from-curl", 3000)) {
				t.Errorf("message 2 does not end with what was sent: %q", second)
			}
			received := strings.TrimSuffix(second, message("from-curl", 3000))
			if !strings.Contains(received, "Received: from client.example.org") || !strings.Contains(received, "Return-Path: <sender@example.org>") {
				t.Errorf("the trace fields are %q", received)
			}
		})
		t.Run("mbsync from "+box, func(t *testing.T) {
			mail := maildir(t, filepath.Join(s.mbsync(t, u, box), "INBOX"))
			if len(mail) != 2 {
				t.Fatalf("%d messages, want 2", len(mail))
			}
			if !slices.ContainsFunc(mail, func(m string) bool { return strings.Contains(m, "Hello from swaks: from swaks\n") }) {
				t.Errorf("the message of swaks is not among %q", mail)
			}
		})
	}
}

// A read over the switches' submission port, as a mail program sends.
func TestSubmissionNeedsTLSAndLogin(t *testing.T) {
	s := shared(t)
	u, to := s.newAccount(t), s.newAccount(t)
	text := message("submitted", 500)
	for _, c := range []struct{ name, url string }{
		{"STARTTLS", "smtp://localhost:" + portOf(s.address("submission"))},
		{"TLS", "smtps://localhost:" + portOf(s.address("submissions"))},
	} {
		t.Run(c.name, func(t *testing.T) {
			command(t, text, "curl", "-sS", "--ssl-reqd", "--cacert", s.CAFile, c.url+"/client.example.org",
				"--user", u.Address+":"+u.Password, "--mail-from", u.Address, "--mail-rcpt", to.Address, "-T", "-")
		})
	}
	if got := fetchAll(t, s.imap(t, to, "", nil), "INBOX"); len(got) != 2 {
		t.Errorf("%d messages arrived, want 2", len(got))
	}
	out, err := tryCommand(t, text, "curl", "-sS", "--ssl-reqd", "--cacert", s.CAFile,
		"smtp://localhost:"+portOf(s.address("submission")), "--user", u.Address+":wrong", "--mail-from", u.Address, "--mail-rcpt", to.Address, "-T", "-")
	if err == nil || !strings.Contains(out, "535") && !strings.Contains(out, "denied") {
		t.Errorf("a wrong password: got %v, %s", err, out)
	}
}

func TestUnknownRecipientIsRefusedAtRCPT(t *testing.T) {
	s := shared(t)
	for _, address := range []string{"nobody@example.test", "alice@elsewhere.example"} {
		out, err := tryCommand(t, "", "swaks", "--server", s.address("smtp"), "--from", "a@example.org", "--to", address, "--helo", "client.example.org")
		if err == nil || !strings.Contains(out, "550") {
			t.Errorf("%s: got %v, want a 550\n%s", address, err, out)
		}
	}
}

// The account's whole life, by shoalctl and by clients.
func TestAccountsAndDomains(t *testing.T) {
	s := shared(t)
	s.shoalctl(t, "domain", "add", "life.example")
	answer := s.shoalctl(t, "domain", "list")
	if !strings.Contains(answer, "life.example") || !strings.Contains(answer, "example.test") {
		t.Errorf("domain list: %s", answer)
	}
	if out, err := s.tryShoalctl(t, "domain", "add", "life.example"); exitCode(err) != 3 {
		t.Errorf("the same domain again: got %v, want exit code 3: %s", err, out)
	}
	s.shoalctl(t, "account", "add", "carol@life.example", "--name", "Carol Example", "--alias", "sales@life.example", "--generate")
	s.spread(t, "carol@life.example")
	answer = s.shoalctl(t, "account", "show", "carol@life.example")
	for _, want := range []string{"Carol Example", "sales@life.example", "active", "vol01"} {
		if !strings.Contains(answer, want) {
			t.Errorf("account show lacks %q: %s", want, answer)
		}
	}
	if out, err := s.tryShoalctl(t, "account", "add", "sales@life.example", "--generate"); exitCode(err) != 3 {
		t.Errorf("an address that is taken: got %v, want exit code 3: %s", err, out)
	}
	if out, err := s.tryShoalctl(t, "domain", "delete", "life.example"); err == nil {
		t.Errorf("a domain with accounts was deleted: %s", out)
	}

	secret := "a long and new password"
	command(t, secret+"\n", filepath.Join(bin, "shoalctl"), "--data", s.data, "account", "password", "carol@life.example", "--password-stdin")
	s.swaks(t, "sales@life.example", "to the alias")
	var mail string
	wait(t, 10*time.Second, func() bool { // a shadow may know the old password for a moment
		mail, _ = tryCommand(t, "", "curl", "-sS", "--cacert", s.CAFile, "--user", "carol@life.example:"+secret,
			"imaps://localhost:"+portOf(s.address("imaps", "box1"))+"/INBOX;MAILINDEX=1")
		return strings.Contains(mail, "to the alias")
	}, func() string { return "carol reads " + mail })

	s.shoalctl(t, "account", "delete", "carol@life.example")
	if out, err := s.tryShoalctl(t, "account", "show", "carol@life.example"); exitCode(err) != 3 {
		t.Errorf("a deleted account: got %v, want exit code 3: %s", err, out)
	}
	s.shoalctl(t, "domain", "delete", "life.example")
	var out string
	wait(t, 40*time.Second, func() bool { // the daemons may remember it for a short time
		var err error
		out, err = tryCommand(t, "", "swaks", "--server", s.address("smtp"), "--from", "a@example.org", "--to", "carol@life.example", "--quit-after", "RCPT")
		return err != nil && strings.Contains(out, "550")
	}, func() string { return fmt.Sprintf("mail for the deleted account is refused: %s", out) })
}

func TestStatusShowsEveryServer(t *testing.T) {
	s := shared(t)
	text := s.shoalctl(t, "status")
	for _, server := range []string{"vault1", "vault2", "vault3", "box1", "box2", "switch1", "switch2", "be_imap", "be_ldap"} {
		if !strings.Contains(text, server) {
			t.Errorf("status lacks %s:\n%s", server, text)
		}
	}
	if v := s.status(t); !v.Healthy || len(v.Servers) != 7 {
		t.Errorf("got %+v", v)
	}
}

// POP3, by curl, from each box.
func TestMailIsReadByPOP3(t *testing.T) {
	s := shared(t)
	u := s.newAccount(t)
	s.curlSend(t, u.Address, message("by-pop3", 2000))
	for _, box := range []string{"box1", "box2"} {
		for _, url := range []string{
			"pop3s://localhost:" + portOf(s.address("pop3s", box)),
			"pop3://localhost:" + portOf(s.address("pop3", box)),
		} {
			mail := command(t, "", "curl", "-sS", "--ssl-reqd", "--cacert", s.CAFile, "--user", u.Address+":"+u.Password, url+"/1")
			if !strings.HasSuffix(mail, message("by-pop3", 2000)) {
				t.Errorf("%s: %q", url, mail)
			}
		}
	}
}

// The directory, by ldapsearch: the administrator sees everything but passwords, an account sees itself, and who
// does not log in sees what the server can do.
func TestDirectoryByLdapsearch(t *testing.T) {
	s := shared(t)
	u, other := s.newAccount(t), s.newAccount(t)
	t.Setenv("LDAPTLS_CACERT", s.CAFile)
	local, domain, _ := strings.Cut(u.Address, "@")
	dn := "uid=" + local + ",associatedDomain=" + domain + ",ou=domains,o=shoal"
	search := func(args ...string) (string, error) {
		return tryCommand(t, "", "ldapsearch", append([]string{"-x", "-LLL", "-o", "ldif-wrap=no", "-ZZ", "-H", "ldap://" + s.address("ldap")}, args...)...)
	}
	out, err := search("-D", "cn=admin,o=shoal", "-y", filepath.Join(s.data, "secrets", "root"), "-b", "o=shoal", "(|(mail="+u.Address+")(cn=box1))")
	if err != nil || !strings.Contains(out, "dn: "+dn) || !strings.Contains(out, "shoalRole: box") || strings.Contains(out, "userPassword") {
		t.Errorf("the administrator: %v\n%s", err, out)
	}
	out, err = search("-D", dn, "-w", u.Password, "-b", "o=shoal", "(mail=*)", "mail")
	if err != nil || !strings.Contains(out, "mail: "+u.Address) || strings.Contains(out, other.Address) {
		t.Errorf("an account: %v\n%s", err, out)
	}
	if out, err = search("-b", "o=shoal"); strings.Contains(out, "dn: ") {
		t.Errorf("nobody in particular: %v\n%s", err, out)
	}
	out, err = search("-b", "", "-s", "base", "+")
	if err != nil || !strings.Contains(out, "supportedLDAPVersion: 3") || !strings.Contains(out, "namingContexts: o=shoal") {
		t.Errorf("the root DSE: %v\n%s", err, out)
	}
	if out, err = search("-D", dn, "-w", "wrong password", "-b", dn); exitCode(err) != 49 {
		t.Errorf("a wrong password: %v, want exit code 49 (invalid credentials)\n%s", err, out)
	}
	out, err = tryCommand(t, "", "ldapsearch", "-x", "-LLL", "-H", "ldaps://localhost:"+portOf(s.address("ldaps")), "-D", dn, "-w", u.Password, "-b", dn, "mail")
	if err != nil || !strings.Contains(out, "mail: "+u.Address) {
		t.Errorf("over ldaps: %v\n%s", err, out)
	}
}
