package cluster

import (
	"bufio"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"shoal/tests/dialogue"
)

// targets are the services at the balancer, by name ("imaps" and "submissions" with TLS from the first byte), and
// each server's own port, where a PROXY header is demanded ("imap-own", "smtp-own").
func (s *service) targets(t *testing.T) map[string]dialogue.Dial {
	t.Helper()
	all := map[string]dialogue.Dial{}
	config := s.tls(t)
	for name, address := range s.Services {
		all[name] = func() (net.Conn, error) { return net.DialTimeout("tcp", address, 10*time.Second) }
	}
	for _, name := range []string{"imaps", "pop3s", "submissions", "ldaps"} {
		address := s.address(name)
		all[name] = func() (net.Conn, error) { return tls.Dial("tcp", address, config) }
	}
	for name, own := range map[string]string{"imap-own": s.behindBalancer("imap", "box1"), "smtp-own": s.behindBalancer("smtp", "switch1")} {
		all[name] = func() (net.Conn, error) { return net.DialTimeout("tcp", own, 10*time.Second) }
		// From an address that is no balancer's.
		all["stranger-"+name] = func() (net.Conn, error) {
			d := net.Dialer{Timeout: 10 * time.Second, LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 2)}}
			return d.Dial("tcp", own)
		}
	}
	return all
}

// behindBalancer is the port on which a server demands the PROXY header: the next one after the port of that
// server at the balancer.
func (s *service) behindBalancer(service, server string) string {
	host, port, _ := net.SplitHostPort(s.address(service, server))
	var n int
	fmt.Sscan(port, &n)
	return net.JoinHostPort(host, fmt.Sprint(n+1))
}

// clientTLS has the certificate of a server of the service.
func (s *service) clientTLS(t *testing.T, name string) *tls.Config {
	t.Helper()
	pair, err := tls.LoadX509KeyPair(filepath.Join(s.data, "pki", name+".crt"), filepath.Join(s.data, "pki", name+".key"))
	if err != nil {
		t.Fatal(err)
	}
	ca, err := os.ReadFile(s.CAFile)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(ca)
	return &tls.Config{Certificates: []tls.Certificate{pair}, RootCAs: roots, ServerName: "localhost"}
}

// TestBadInput plays the scripts of testdata, one protocol after the other. Afterwards no process has ended and
// the service works.
func TestBadInput(t *testing.T) {
	s := shared(t)
	u := s.newAccount(t)
	s.curlSend(t, u.Address, message("first", 600))
	before := s.pids()
	vars := dialogue.Vars(map[string]string{"user": u.Address, "password": u.Password})
	for _, protocol := range []string{"smtp", "submission", "imap", "pop3", "lmtp", "ldap", "proxy"} {
		t.Run(protocol, func(t *testing.T) {
			config := s.tls(t)
			if protocol == "lmtp" {
				config = s.clientTLS(t, "switch1")
			}
			dialogue.RunFiles(t, filepath.Join("testdata", protocol+"-*.txt"), s.targets(t), vars,
				dialogue.TLS(config), dialogue.Timeout(30*time.Second))
		})
	}
	s.stillWorks(t, before)
}

// stillWorks demands that no server has ended since, and that a mail goes through.
func (s *service) stillWorks(t *testing.T, before map[string]int) {
	t.Helper()
	for name, pid := range s.pids() {
		if pid != before[name] {
			t.Errorf("%s was process %d and is now %d", name, before[name], pid)
		}
	}
	if v := s.status(t); !v.Healthy {
		t.Errorf("not everything is well: %+v", v)
	}
	u := s.newAccount(t)
	s.curlSend(t, u.Address, message("afterwards", 600))
	for _, box := range []string{"box1", "box2"} {
		if mail := s.curlRead(t, u, box, "1"); !strings.Contains(mail, "afterwards") {
			t.Errorf("%s: %q", box, mail)
		}
	}
}

// Clients that do nothing, or a byte now and then, hold nobody up.
func TestSlowClientsHoldNobodyUp(t *testing.T) {
	s := shared(t)
	before := s.pids()
	var conns []net.Conn
	defer func() {
		for _, c := range conns {
			c.Close()
		}
	}()
	for range 100 {
		for _, service := range []string{"smtp", "imap", "imaps", "submission", "lmtp", "ldap"} {
			c, err := net.Dial("tcp", s.address(service))
			if err != nil {
				t.Fatal(err)
			}
			conns = append(conns, c)
			switch len(conns) % 3 { // silent; half a line; half a message or a TLS record that never ends
			case 1:
				_, err = io.WriteString(c, "a")
			case 2:
				_, err = io.WriteString(c, "\x16\x03\x01\x02\x00\x01")
			}
			if err != nil {
				t.Fatal(err)
			}
		}
	}
	begin := time.Now()
	s.stillWorks(t, before)
	if d := time.Since(begin); d > 15*time.Second {
		t.Errorf("with %d slow clients an account, a mail and two reads took %v", len(conns), d)
	}
}

// A hundred thousand recipients, unknown or known: the surplus is refused in the session, and what was accepted
// is delivered.
func TestHundredThousandRecipients(t *testing.T) {
	s := shared(t)
	before := s.pids()
	t.Run("unknown", func(t *testing.T) {
		u := s.newAccount(t)
		c, codes := s.manyRecipients(t, u.Address, 100_000, func(i int) string { return fmt.Sprintf("nobody%d@example.test", i) })
		if codes[250] != 1 || codes[550] == 0 {
			t.Errorf("replies %v: only the known recipient is to be accepted", codes)
		}
		s.finishMany(t, c, u, codes)
	})
	t.Run("known", func(t *testing.T) {
		u := s.newAccount(t)
		c, codes := s.manyRecipients(t, u.Address, 100_000, func(int) string { return u.Address })
		if codes[250] > 10_000 || codes[452] == 0 {
			t.Errorf("replies %v: the surplus is to be refused with 452", codes)
		}
		s.finishMany(t, c, u, codes)
	})
	t.Run("some more than fit", func(t *testing.T) {
		u := s.newAccount(t)
		c, codes := s.manyRecipients(t, u.Address, 1200, func(int) string { return u.Address })
		if c == nil || codes[452] == 0 {
			t.Fatalf("replies %v, hung up: %v", codes, c == nil)
		}
		s.finishMany(t, c, u, codes)
	})
	s.stillWorks(t, before)
}

// manyRecipients gives one recipient and then many more, pipelined. The server may hang up: then there is
// no session in the answer.
func (s *service) manyRecipients(t *testing.T, first string, many int, rcpt func(int) string) (*smtpSession, map[int]int) {
	t.Helper()
	c, err := dialSMTP(s.address("smtp"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	if err := c.conn.SetDeadline(time.Now().Add(2 * time.Minute)); err != nil {
		t.Fatal(err)
	}
	if err := c.ask(250, "MAIL FROM:<sender@example.org>"); err != nil {
		t.Fatal(err)
	}
	if err := c.ask(250, "RCPT TO:<%s>", first); err != nil {
		t.Fatal(err)
	}
	go func() {
		w := bufio.NewWriter(c.conn)
		for i := range many {
			if _, err := fmt.Fprintf(w, "RCPT TO:<%s>\r\n", rcpt(i)); err != nil {
				return
			}
		}
		_ = w.Flush() // the answers tell
	}()
	codes := map[int]int{250: 1}
	for range many {
		code, _, err := c.ReadResponse(0)
		if code == 0 && err != nil {
			return nil, codes
		}
		codes[code]++
		if code == 421 {
			return nil, codes
		}
	}
	return c, codes
}

// finishMany sends the message, unless the server has hung up, and looks that it came.
func (s *service) finishMany(t *testing.T, c *smtpSession, u user, codes map[int]int) {
	t.Helper()
	t.Logf("replies: %v, hung up: %v", codes, c == nil)
	want := 0
	if c != nil {
		want = 1
		if err := c.ask(354, "DATA"); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(c.conn, message("many", 500)+".\r\n"); err != nil {
			t.Fatal(err)
		}
		if _, _, err := c.ReadResponse(250); err != nil {
			t.Fatal(err)
		}
	}
	got := fetchAll(t, s.imap(t, u, "", nil), "INBOX")
	if len(got) < want || want == 0 && len(got) > 0 {
		t.Errorf("%d messages arrived, want %d", len(got), want)
	}
}
