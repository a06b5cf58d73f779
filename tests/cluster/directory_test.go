package cluster

import (
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/go-ldap/ldap/v3"
)

// asRoot runs one of the LDAP tools as the directory's administrator at one vault.
func (s *service) asRoot(t *testing.T, vault, stdin, tool string, args ...string) (string, error) {
	t.Helper()
	t.Setenv("LDAPTLS_CACERT", s.CAFile)
	return tryCommand(t, stdin, tool, append([]string{"-x", "-ZZ", "-H", "ldap://localhost:" + portOf(s.address("ldap", vault)),
		"-D", "cn=admin,o=shoal", "-y", filepath.Join(s.data, "secrets", "root")}, args...)...)
}

// has asks one vault for an account.
func (s *service) has(t *testing.T, vault, address string) (bool, error) {
	t.Helper()
	root, err := os.ReadFile(filepath.Join(s.data, "secrets", "root"))
	if err != nil {
		t.Fatal(err)
	}
	c, err := ldap.DialURL("ldap://"+s.address("ldap", vault), ldap.DialWithDialer(&net.Dialer{Timeout: 5 * time.Second}))
	if err != nil {
		return false, err
	}
	defer c.Close()
	c.SetTimeout(5 * time.Second)
	if err := c.StartTLS(s.tls(t)); err != nil {
		return false, err
	}
	if err := c.Bind("cn=admin,o=shoal", strings.TrimSpace(string(root))); err != nil {
		return false, err
	}
	found, err := c.Search(ldap.NewSearchRequest("o=shoal", ldap.ScopeWholeSubtree, ldap.NeverDerefAliases, 0, 0, false,
		"(mail="+ldap.EscapeFilter(address)+")", []string{"mail"}, nil))
	return err == nil && len(found.Entries) == 1, err
}

// knows waits until a vault has an account.
func (s *service) knows(t *testing.T, vault, address string) time.Duration {
	t.Helper()
	begin := time.Now()
	var err error
	wait(t, 30*time.Second, func() bool {
		var found bool
		found, err = s.has(t, vault, address)
		return found
	}, func() string { return fmt.Sprintf("%s knows %s: %v", vault, address, err) })
	return time.Since(begin)
}

// spread waits until every vault that runs has an account: a shadow may be asked for it before it has heard of it.
func (s *service) spread(t *testing.T, address string) {
	t.Helper()
	for name := range s.Servers {
		if !strings.HasPrefix(name, "vault") {
			continue
		}
		wait(t, 30*time.Second, func() bool {
			found, _ := s.has(t, name, address)
			return found || s.pid(name) == 0
		}, func() string { return name + " knows " + address })
	}
}

// inStep waits until shoalctl status finds that no vault lacks a change of another.
func (s *service) inStep(t *testing.T) {
	t.Helper()
	var out string
	wait(t, 30*time.Second, func() bool {
		out, _ = s.tryShoalctl(t, "status", "--json") // fails while something is not well
		var v struct {
			Healthy bool
			Servers []struct {
				Role        string
				Replication *struct {
					InStep bool `json:"in_step"`
				}
			}
		}
		if err := json.NewDecoder(strings.NewReader(out)).Decode(&v); err != nil {
			t.Fatalf("shoalctl status: %v: %s", err, out)
		}
		n := 0
		for _, server := range v.Servers {
			if server.Role == "vault" && server.Replication != nil && server.Replication.InStep {
				n++
			}
		}
		return v.Healthy && n == 3
	}, func() string { return "all vaults in step: " + out })
}

// The directory's master is gone: mail and logins go on from the shadows, also for accounts that nobody has asked
// for yet, and a shadow that dies meanwhile comes back without it. Updates fail with an error that names the cause. When
// the master is back, updates work, and the shadows catch up.
func TestDirectoryMasterDown(t *testing.T) {
	s := shared(t)
	u := s.newAccount(t) // known to no switch and no box yet
	for _, shadow := range []string{"vault2", "vault3"} {
		s.knows(t, shadow, u.Address)
	}
	s.inStep(t)
	master := portOf(s.address("ldap", "vault1"))
	back := s.downed(t, "vault1", kill9)
	s.becomes(t, "vault1", "DOWN")

	mailGoesOn := func(t *testing.T, id string) {
		t.Helper()
		s.curlSend(t, u.Address, message(id, 1000))
		for _, box := range []string{"box1", "box2"} {
			mails := fetchAll(t, s.imap(t, u, box, nil), "INBOX")
			if len(mails) == 0 || header(mails[len(mails)-1], "Subject") != id {
				t.Errorf("%s: %d messages, the last is not %s", box, len(mails), id)
			}
		}
	}
	t.Run("mail and logins go on", func(t *testing.T) { mailGoesOn(t, "without-master") })
	t.Run("updates fail", func(t *testing.T) {
		for _, args := range [][]string{
			{"account", "add", "late@example.test", "--generate"},
			{"account", "password", u.Address, "--generate"},
			{"domain", "add", "late.example"},
		} {
			out, err := s.tryShoalctl(t, args...)
			if exitCode(err) != 4 || !strings.Contains(out, master) || strings.Count(out, "\n") > 3 {
				t.Errorf("%v: got %v, want exit code 4 and one clear error with the master's address (port %s): %s", args, err, master, out)
			}
		}
		// Any other LDAP client is told by the shadow where the master is.
		out, err := s.asRoot(t, "vault2", "dn: associatedDomain=late.example,ou=domains,o=shoal\nobjectClass: shoalDomain\n", "ldapadd")
		if exitCode(err) != 10 || !strings.Contains(out, "ldap://127.0.0.1:"+master) {
			t.Errorf("ldapadd at a shadow: %v, want exit code 10 (referral) to the master\n%s", err, out)
		}
	})
	t.Run("status", func(t *testing.T) {
		out, err := s.tryShoalctl(t, "status")
		if err == nil || !strings.Contains(out, "vault1") {
			t.Errorf("got %v: %s", err, out)
		}
	})
	t.Run("a shadow starts without its master", func(t *testing.T) {
		again := s.downed(t, "vault2", kill9)
		s.becomes(t, "vault2", "DOWN")
		again()
		s.becomes(t, "vault2", "UP")
		s.knows(t, "vault2", u.Address)
		mailGoesOn(t, "restarted-shadow")
	})

	back()
	s.waitUp(t)
	later := s.unspread(t)
	for _, shadow := range []string{"vault2", "vault3"} {
		t.Logf("%s has caught up %v after the first new account", shadow, s.knows(t, shadow, later.Address).Round(time.Millisecond))
	}
	s.inStep(t)
	for _, vault := range []string{"vault1", "vault2", "vault3"} {
		if out, err := s.asRoot(t, vault, "", "ldapsearch", "-LLL", "-b", "o=shoal", "(|(mail=late@example.test)(associatedDomain=late.example))", "1.1"); err != nil || strings.Contains(out, "dn:") {
			t.Errorf("%s has what was refused: %v\n%s", vault, err, out)
		}
	}

	// What changed while a shadow was away, it learns when it is back.
	again := s.downed(t, "vault3", kill9)
	s.becomes(t, "vault3", "DOWN")
	missed := s.unspread(t)
	s.shoalctl(t, "account", "delete", later.Address)
	again()
	s.becomes(t, "vault3", "UP")
	s.knows(t, "vault3", missed.Address)
	var out string
	wait(t, 30*time.Second, func() bool {
		var err error
		out, err = s.asRoot(t, "vault3", "", "ldapsearch", "-LLL", "-b", "o=shoal", "(mail="+later.Address+")", "1.1")
		return err == nil && !strings.Contains(out, "dn:")
	}, func() string { return fmt.Sprintf("vault3 has no more %s: %s", later.Address, out) })
	s.inStep(t)
}
