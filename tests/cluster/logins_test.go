package cluster

import (
	"encoding/json"
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// curlLogin logs in at a server with curl and gives its error. more are arguments of curl: a password or a token.
func (s *service) curlLogin(t *testing.T, service, server, address string, more ...string) error {
	t.Helper()
	url := service + "://localhost:" + portOf(s.address(service, server))
	args := append([]string{"-sS", "--cacert", s.CAFile, "--max-time", "60", url + "/"}, more...)
	if service == "smtp" {
		args = append([]string{"-sS", "--ssl-reqd", "--cacert", s.CAFile, "--max-time", "60", "smtp://localhost:" + portOf(s.address("submission", server)) + "/client.example.org",
			"--mail-from", address, "--mail-rcpt", address, "-T", "-"}, more...)
	}
	out, err := tryCommand(t, "Subject: x\r\n\r\nx\r\n", "curl", args...)
	if err != nil {
		return fmt.Errorf("%w: %s", err, out)
	}
	return nil
}

// An app password opens the services of its scope with curl, and no others; it stops when it is removed. The audit trail names it.
func TestAppPasswordWithCurl(t *testing.T) {
	s := shared(t)
	u := s.newAccount(t)
	var app struct{ ID, Password string }
	if err := json.Unmarshal([]byte(s.shoalctl(t, "app-password", "add", u.Address, "--scope", "imap", "--name", "old phone", "--json")), &app); err != nil {
		t.Fatal(err)
	}
	with := []string{"--user", u.Address + ":" + app.Password, "--login-options", "AUTH=PLAIN"}
	wait(t, 10*time.Second, func() bool { return s.curlLogin(t, "imaps", "box1", u.Address, with...) == nil }, func() string { return "the app password opens nothing" })
	if err := s.curlLogin(t, "imaps", "box2", u.Address, with...); err != nil {
		t.Errorf("at the other box: %v", err)
	}
	if err := s.curlLogin(t, "smtp", "switch1", u.Address, with...); err == nil {
		t.Error("it opens submission, which is not in its scope")
	}
	if out := s.shoalctl(t, "logins", u.Address); !strings.Contains(out, "old phone") || !strings.Contains(out, "scope") {
		t.Errorf("shoalctl logins says:\n%s", out)
	}
	s.shoalctl(t, "app-password", "remove", u.Address, app.ID)
	wait(t, 10*time.Second, func() bool { return s.curlLogin(t, "imaps", "box1", u.Address, with...) != nil }, func() string { return "it opens the account after its removal" })
}

// A suspended account gets its mail, and nobody logs in; a session that was open ends. Then it is as before. A closed one gets none.
func TestSuspendedAndClosedAccounts(t *testing.T) {
	s := shared(t)
	u := s.newAccount(t)
	c := s.imap(t, u, "box1", nil)
	defer c.Close()
	s.shoalctl(t, "account", "suspend", u.Address)
	select {
	case <-c.Closed():
	case <-time.After(10 * time.Second):
		t.Error("the session of a suspended account goes on")
	}
	password := []string{"--user", u.Address + ":" + u.Password, "--login-options", "AUTH=PLAIN"}
	for _, at := range [][2]string{{"imaps", "box1"}, {"imaps", "box2"}, {"pop3s", "box2"}, {"smtp", "switch2"}} {
		if err := s.curlLogin(t, at[0], at[1], u.Address, password...); err == nil {
			t.Errorf("a suspended account logs in at %s of %s", at[0], at[1])
		}
	}
	s.curlSend(t, u.Address, message("while suspended", 600))
	s.shoalctl(t, "account", "resume", u.Address)
	wait(t, 10*time.Second, func() bool { return s.curlLogin(t, "imaps", "box2", u.Address, password...) == nil }, func() string { return "no login after the account was resumed" })
	if mail := s.curlRead(t, u, "box1", "1"); !strings.Contains(mail, "while suspended") {
		t.Errorf("the mail that came meanwhile: %q", mail)
	}
	s.shoalctl(t, "account", "close", u.Address)
	wait(t, 10*time.Second, func() bool {
		_, err := tryCommand(t, message("too late", 600), "curl", "-sS", "smtp://"+s.address("smtp")+"/client.example.org", "--mail-from", "sender@example.org", "--mail-rcpt", u.Address, "-T", "-")
		return err != nil
	}, func() string { return "a closed account gets mail" })
}

// A session token signed with a webmail server's key opens IMAP, POP3 and submission with curl, as OAUTHBEARER, until all sessions are ended.
func TestSessionTokenWithCurl(t *testing.T) {
	s := shared(t)
	u := s.newAccount(t)
	key := filepath.Join(t.TempDir(), "key")
	name := "wm" + strings.TrimSuffix(strings.TrimPrefix(u.Address, "user"), "@example.test")
	if i := strings.IndexByte(name, '@'); i > 0 || len(name) > 15 {
		name = "wmtest"
	}
	s.shoalctl(t, "server", "add", name, "--role", "webmail")
	defer s.shoalctl(t, "server", "delete", name) // or shoalctl doctor misses it
	s.shoalctl(t, "token-key", "add", name, "--file", key)
	sign := func() []string {
		token := strings.TrimSpace(s.shoalctl(t, "token-key", "sign", name, u.Address, "--file", key, "--scope", "imap,pop,smtp"))
		return []string{"--user", u.Address, "--oauth2-bearer", token, "--login-options", "AUTH=OAUTHBEARER"}
	}
	token := sign()
	wait(t, 10*time.Second, func() bool { return s.curlLogin(t, "imaps", "box1", u.Address, token...) == nil }, func() string {
		return fmt.Sprint("the token opens nothing: ", s.curlLogin(t, "imaps", "box1", u.Address, token...))
	})
	for _, at := range [][2]string{{"imaps", "box2"}, {"pop3s", "box1"}, {"smtp", "switch1"}} {
		if err := s.curlLogin(t, at[0], at[1], u.Address, token...); err != nil {
			t.Errorf("%s of %s: %v", at[0], at[1], err)
		}
	}
	s.shoalctl(t, "account", "logout", u.Address)
	wait(t, 10*time.Second, func() bool { return s.curlLogin(t, "imaps", "box1", u.Address, token...) != nil }, func() string { return "a token from before the end of all sessions" })
	fresh := sign()
	wait(t, 10*time.Second, func() bool { return s.curlLogin(t, "imaps", "box1", u.Address, fresh...) == nil }, func() string { return "no login with a new token" })
}

// Guesses at one user through both boxes at once: the boxes tell each other, so that both together answer about as many as one would; the
// owner's login from elsewhere waits a bounded time at most.
func TestGuessingThroughBothBoxes(t *testing.T) {
	s := own(t) // the address that guesses is everybody's here
	u := s.newAccount(t)
	const each = 8
	var all sync.WaitGroup
	for _, box := range []string{"box1", "box2"} {
		for i := range each {
			all.Go(func() {
				_ = s.curlLogin(t, "imaps", box, u.Address, "--max-time", "5", "--user", fmt.Sprintf("%s:guess %s %d", u.Address, box, i), "--login-options", "AUTH=PLAIN")
			})
		}
	}
	all.Wait()
	var v struct {
		Events []struct{ Result, Server string }
	}
	if err := json.Unmarshal([]byte(s.shoalctl(t, "logins", u.Address, "--limit", "100", "--json")), &v); err != nil {
		t.Fatal(err)
	}
	checked := map[string]int{}
	for _, e := range v.Events {
		if e.Result == "bad" {
			checked[e.Server]++
		}
	}
	t.Logf("guesses answered: %v of %d each", checked, each)
	if n := checked["box1"] + checked["box2"]; n == 0 || n > 12 {
		t.Errorf("%d of %d guesses were checked: %v", n, 2*each, checked)
	}
}
