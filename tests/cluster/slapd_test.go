package cluster

import (
	"encoding/json"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/emersion/go-imap/v2/imapclient"
)

// The whole service with Debian's slapd as its directory, one that takes the updates and two copies of it: accounts are made and
// passwords changed by shoalctl, mail is delivered, submitted and read, what is nobody's to see is not seen, and a change reaches the servers'
// caches by the persist search.
func TestServiceOnOpenLDAP(t *testing.T) {
	s := own(t, underSlapd)
	t.Setenv("LDAPTLS_CACERT", s.CAFile)
	if out, err := s.asRoot(t, "vault1", "", "ldapsearch", "-LLL", "-s", "base", "-b", "", "+"); err != nil || !strings.Contains(out, "structuralObjectClass: OpenLDAProotDSE") {
		t.Fatalf("the directory is not OpenLDAP: %v %s", err, out)
	}
	u, to := s.newAccount(t), s.newAccount(t) // newAccount waits for the copies

	// Mail.
	s.swaks(t, u.Address, "under slapd")
	command(t, message("submitted", 500), "curl", "-sS", "--ssl-reqd", "--cacert", s.CAFile, "smtp://localhost:"+portOf(s.address("submission"))+"/client.example.org",
		"--user", u.Address+":"+u.Password, "--mail-from", u.Address, "--mail-rcpt", to.Address, "-T", "-")
	for _, box := range []string{"box1", "box2"} {
		if first := s.curlRead(t, u, box, "1"); !strings.Contains(first, "Hello from swaks: under slapd") {
			t.Errorf("%s: %q", box, first)
		}
		if got := s.curlRead(t, to, box, "1"); !strings.HasSuffix(got, message("submitted", 500)) {
			t.Errorf("%s: %q", box, got)
		}
	}
	if err := unknownRecipient(s); err != nil {
		t.Error(err)
	}

	// A password that shoalctl changes is in force, and the old one is not, although both boxes remember that it was right.
	var made struct{ Password string }
	answer := s.shoalctl(t, "account", "password", u.Address, "--generate", "--json")
	if err := json.Unmarshal([]byte(answer), &made); err != nil || made.Password == "" {
		t.Fatalf("%v: %s", err, answer)
	}
	for _, box := range []string{"box1", "box2"} {
		login := func(password string) error {
			c, err := imapclient.DialTLS(s.address("imaps", box), &imapclient.Options{TLSConfig: s.tls(t)})
			if err != nil {
				return err
			}
			defer c.Close()
			return c.Login(u.Address, password).Wait()
		}
		wait(t, 30*time.Second, func() bool { return login(made.Password) == nil }, func() string { return box + " takes the new password" })
		wait(t, 30*time.Second, func() bool { return login(u.Password) != nil }, func() string { return box + " refuses the old password" })
	}

	// Who sees what.
	stored, err := s.asRoot(t, "vault2", "", "ldapsearch", "-LLL", "-o", "ldif-wrap=no", "-b", "o=shoal", "(mail="+u.Address+")", "userPassword")
	if err != nil || !strings.Contains(stored, "userPassword:: e0FSR09OMn0") { // {ARGON2}
		t.Errorf("stored at the copy: %v %s", err, stored)
	}
	box := func(vault string, args ...string) (string, error) {
		return tryCommand(t, "", "ldapsearch", append([]string{"-x", "-ZZ", "-LLL", "-H", "ldap://localhost:" + portOf(s.address("ldap", vault)),
			"-D", "cn=box1,ou=servers,ou=config,o=shoal", "-y", filepath.Join(s.data, "secrets", "box1"), "-b", "o=shoal"}, args...)...)
	}
	for _, vault := range []string{"vault1", "vault2", "vault3"} {
		if out, err := box(vault, "(mail="+u.Address+")"); err != nil || !strings.Contains(out, "shoalVolumeName: ") || strings.Contains(out, "userPassword") {
			t.Errorf("what a box sees at %s: %v %s", vault, err, out)
		}
	}
	as := func(password string, filter string) string {
		out, _ := tryCommand(t, "", "ldapsearch", "-x", "-ZZ", "-LLL", "-H", "ldap://localhost:"+portOf(s.address("ldap", "vault1")),
			"-D", fmt.Sprintf("uid=%s,associatedDomain=example.test,ou=domains,o=shoal", strings.TrimSuffix(u.Address, "@example.test")), "-w", password, "-b",
			fmt.Sprintf("uid=%s,associatedDomain=example.test,ou=domains,o=shoal", strings.TrimSuffix(filter, "@example.test")))
		return out
	}
	if out := as(made.Password, u.Address); !strings.Contains(out, "mail: "+u.Address) || strings.Contains(out, "userPassword") {
		t.Errorf("an account of itself: %s", out)
	}
	if out := as(made.Password, to.Address); strings.Contains(out, "mail:") {
		t.Errorf("an account of another: %s", out)
	}
	if out, err := tryCommand(t, "", "ldapsearch", "-x", "-H", "ldap://localhost:"+portOf(s.address("ldap", "vault1")),
		"-D", "cn=admin,o=shoal", "-y", filepath.Join(s.data, "secrets", "root"), "-b", "o=shoal", "-s", "base"); err == nil {
		t.Errorf("a password was taken without TLS: %s", out)
	}

	// An account that is deleted is unknown to the switches as soon as they hear of it.
	s.shoalctl(t, "account", "delete", to.Address)
	wait(t, 30*time.Second, func() bool {
		c, err := dialSMTP(s.address("smtp"))
		if err != nil {
			return false
		}
		defer c.Close()
		return c.begin("sender@example.org", to.Address) != nil
	}, func() string { return "the switches know that " + to.Address + " is gone" })
}

func unknownRecipient(s *service) error {
	c, err := dialSMTP(s.address("smtp"))
	if err != nil {
		return err
	}
	defer c.Close()
	if c.begin("sender@example.org", "nobody-at-all@example.test") == nil {
		return fmt.Errorf("mail to nobody is taken")
	}
	return nil
}
