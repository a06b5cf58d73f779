package cluster

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"shoal/tests/ports"
)

// lmtpArgs lets swaks speak LMTP to a box as switch1.
func (s *service) lmtpArgs(box string) []string {
	pki := filepath.Join(s.data, "pki")
	return []string{"--protocol", "LMTP", "--tls", "--server", s.address("lmtp", box), "--helo", "switch1", "--from", "sender@example.org",
		"--tls-cert", filepath.Join(pki, "switch1.crt"), "--tls-key", filepath.Join(pki, "switch1.key")}
}

// One file for all recipients on a volume; each gets a reply of its own; who is unknown is refused.
func TestLMTPBySwaks(t *testing.T) {
	s := shared(t)
	a, b := s.newAccount(t), s.newAccount(t)
	args := append(s.lmtpArgs("box1"), "--to", a.Address+","+b.Address, "--header", "Subject: to two", "--body", "a body that is nowhere else "+a.Address)
	if out := command(t, "", "swaks", args...); strings.Count(out, "> Delivered, ") != 2 {
		t.Errorf("two recipients:\n%s", out)
	}
	one := append(s.lmtpArgs("box2"), "--to", a.Address, "--header", "Subject: to one")
	command(t, "", "swaks", one...)
	none := append(s.lmtpArgs("box2"), "--to", "nobody-"+a.Address)
	if out, err := tryCommand(t, "", "swaks", none...); err == nil || !strings.Contains(out, "550 5.1.1") {
		t.Errorf("unknown recipient: %v\n%s", err, out)
	}
	for _, u := range []user{a, b} {
		got := s.mailIn(t, u, "box1", "INBOX")
		if len(got) == 0 || header(got[0], "Return-Path") != "<sender@example.org>" || header(got[0], "Delivered-To") != "" {
			t.Errorf("%s has %q", u.Address, got)
		}
	}
	if got := s.mailIn(t, a, "box1", "INBOX"); len(got) != 2 || header(got[1], "Delivered-To") != a.Address {
		t.Errorf("%q", got)
	}
	links := uint64(0)
	check(t, filepath.WalkDir(filepath.Join(s.data, "volumes", "vol01", "a"), func(path string, d os.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return nil // files come and go
		}
		text, err := os.ReadFile(path)
		if err == nil && strings.Contains(string(text), "a body that is nowhere else "+a.Address) {
			if i, err := os.Stat(path); err == nil {
				links = max(links, uint64(i.Sys().(*syscall.Stat_t).Nlink))
			}
		}
		return nil
	}))
	if links < 2 {
		t.Errorf("the message for two has %d names", links)
	}
}

// Postfix' smtp-source delivers over LMTP on several connections. It knows no TLS: a tunnel of the test has the switch's certificate.
func TestLMTPBySmtpSource(t *testing.T) {
	s := shared(t)
	u := s.newAccount(t)
	l, err := net.Listen("tcp", ports.One(t))
	check(t, err)
	t.Cleanup(func() { l.Close() })
	config := s.clientTLS(t, "switch1")
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				raw, err := net.Dial("tcp", s.address("lmtp", "box1"))
				if err != nil {
					return
				}
				defer raw.Close()
				r := bufio.NewReader(raw)
				greeting, _ := r.ReadString('\n')
				for _, command := range []string{"LHLO switch1\r\n", "STARTTLS\r\n"} {
					_, _ = io.WriteString(raw, command)
					for line := "250-"; strings.HasPrefix(line, "250-"); {
						if line, err = r.ReadString('\n'); err != nil {
							t.Errorf("tunnel: %v", err)
							return
						}
					}
				}
				secure := tls.Client(raw, config)
				_, _ = io.WriteString(c, greeting)
				go func() { _, _ = io.Copy(secure, c); _ = secure.CloseWrite() }()
				_, _ = io.Copy(c, secure)
			}()
		}
	}()
	program := "smtp-source"
	if _, err := os.Stat("/usr/sbin/smtp-source"); err == nil {
		program = "/usr/sbin/smtp-source"
	}
	command(t, "", program, "-L", "-s", "4", "-m", "40", "-l", "4096", "-f", "sender@example.org", "-t", u.Address, l.Addr().String())
	if got := s.mailIn(t, u, "box2", "INBOX"); len(got) != 40 {
		t.Errorf("%d messages, 40 were delivered", len(got))
	}
}

// A domain that sends user+detail to folders: the detail goes with the message from the switch to the box.
func TestSubaddressToFolder(t *testing.T) {
	s := shared(t)
	s.shoalctl(t, "domain", "add", "sub.test")
	s.shoalctl(t, "domain", "set", "sub.test", "--subaddress", "create")
	u := user{Address: "sue@sub.test", Password: "sues own password"}
	s.shoalctl(t, "account", "add", u.Address, "--password-file", put(t, filepath.Join(t.TempDir(), "p"), 0o600, "%s\n", u.Password))
	s.spread(t, u.Address)
	s.swaks(t, "sue+lists@sub.test", "by detail")
	wait(t, 30*time.Second, func() bool { return len(s.mailIn(t, u, "box2", "INBOX")) == 0 && len(s.list(t, u, "lists")) == 1 }, func() string { return "no mail in lists" })
}

// list is mailIn for a mailbox that may not be there.
func (s *service) list(t *testing.T, u user, mailbox string) [][]byte {
	t.Helper()
	c := s.imap(t, u, "box2", nil)
	defer c.Close()
	if _, err := c.Select(mailbox, nil).Wait(); err != nil {
		return nil
	}
	return fetchAll(t, c, mailbox)
}

// getmail fetches over POP3 with TLS into a Maildir, leaves what it is told to leave, and does not fetch it again.
func TestGetmail(t *testing.T) {
	s := shared(t)
	u := s.newAccount(t)
	for _, subject := range []string{"one", "two", "three"} {
		s.swaks(t, u.Address, subject)
	}
	wait(t, 30*time.Second, func() bool { return len(s.mailIn(t, u, "box1", "INBOX")) == 3 }, func() string { return "the mail does not come" })
	folder, err := os.MkdirTemp("", "shoal-getmail-")
	check(t, err)
	t.Cleanup(func() { os.RemoveAll(folder) })
	for _, sub := range []string{"cur", "new", "tmp"} {
		check(t, os.MkdirAll(filepath.Join(folder, "mail", sub), 0o700))
	}
	ca, err := os.ReadFile(s.CAFile)
	check(t, err)
	put(t, filepath.Join(folder, "ca.pem"), 0o644, "%s", ca)
	rc := put(t, filepath.Join(folder, "getmailrc"), 0o600, `[retriever]
type = SimplePOP3SSLRetriever
server = localhost
port = %s
username = %s
password = %s
ca_certs = %s

[destination]
type = Maildir
path = %s/mail/

[options]
read_all = false
delete = false
delivered_to = false
received = false
`, portOf(s.address("pop3s")), u.Address, u.Password, filepath.Join(folder, "ca.pem"), folder)
	argv := []string{"getmail", "--getmaildir", folder, "--rcfile", rc}
	if os.Geteuid() == 0 { // which it does not deliver mail as
		check(t, filepath.WalkDir(folder, func(path string, _ os.DirEntry, err error) error {
			if err != nil {
				return err
			}
			return os.Chown(path, nobody, nobody)
		}))
		argv = append([]string{"setpriv", fmt.Sprintf("--reuid=%d", nobody), fmt.Sprintf("--regid=%d", nobody), "--clear-groups"}, argv...)
	}
	for range 2 {
		command(t, "", argv[0], argv[1:]...)
		if got := maildir(t, filepath.Join(folder, "mail")); len(got) != 3 {
			t.Errorf("%d messages fetched, want 3", len(got))
		}
	}
	if got := s.mailIn(t, u, "box1", "INBOX"); len(got) != 3 {
		t.Errorf("%d messages are left, want 3", len(got))
	}
}
