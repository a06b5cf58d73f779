package cluster

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"net/textproto"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/emersion/go-imap/v2"
	"github.com/emersion/go-imap/v2/imapclient"
)

// swaks sends one message and returns its transcript.
func (s *service) swaks(t *testing.T, to, subject string, more ...string) string {
	t.Helper()
	args := append([]string{
		"--server", s.address("smtp"), "--from", "sender@example.org", "--to", to,
		"--header", "Subject: " + subject, "--body", "Hello from swaks: " + subject, "--helo", "client.example.org",
	}, more...)
	return command(t, "", "swaks", args...)
}

// curlSend sends a message from curl.
func (s *service) curlSend(t *testing.T, to, message string) {
	t.Helper()
	command(t, message, "curl", "-sS", "smtp://"+s.address("smtp")+"/client.example.org",
		"--mail-from", "sender@example.org", "--mail-rcpt", to, "-T", "-")
}

// curlRead gives one message, by number, from one box.
func (s *service) curlRead(t *testing.T, u user, box string, number string) string {
	t.Helper()
	return command(t, "", "curl", "-sS", "--cacert", s.CAFile, "--user", u.Address+":"+u.Password,
		"imaps://localhost:"+portOf(s.address("imaps", box))+"/INBOX;MAILINDEX="+number)
}

// mbsync copies an account from one box into a new Maildir tree and returns its folder.
func (s *service) mbsync(t *testing.T, u user, box string) string {
	t.Helper()
	folder := t.TempDir()
	rc := filepath.Join(folder, "rc")
	config := fmt.Sprintf(`FSync no

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
Patterns *
Create Near
Sync Pull
SyncState *
`, portOf(s.address("imaps", box)), u.Address, u.Password, s.CAFile, folder)
	if err := os.WriteFile(rc, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(folder, "mail"), 0o700); err != nil {
		t.Fatal(err)
	}
	command(t, "", "mbsync", "-c", rc, "all")
	return filepath.Join(folder, "mail")
}

// maildir reads the messages of a Maildir folder.
func maildir(t *testing.T, folder string) []string {
	t.Helper()
	var all []string
	for _, sub := range []string{"new", "cur"} {
		paths, err := filepath.Glob(filepath.Join(folder, sub, "*"))
		if err != nil {
			t.Fatal(err)
		}
		for _, path := range paths {
			text, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, string(text))
		}
	}
	return all
}

// imap logs in at one box ("": wherever the balancer sends us).
func (s *service) imap(t testing.TB, u user, box string, options *imapclient.Options) *imapclient.Client {
	t.Helper()
	address := s.address("imaps")
	if box != "" {
		address = s.address("imaps", box)
	}
	if options == nil {
		options = &imapclient.Options{}
	}
	options.TLSConfig = s.tls(t)
	c, err := imapclient.DialTLS(address, options)
	if err != nil {
		t.Fatalf("IMAP at %s: %v", box, err)
	}
	t.Cleanup(func() { c.Close() })
	if err := c.Login(u.Address, u.Password).Wait(); err != nil {
		t.Fatalf("login of %s at %s: %v", u.Address, box, err)
	}
	return c
}

// fetchAll reads every message of a mailbox, byte for byte, in the order of the mailbox.
func fetchAll(t testing.TB, c *imapclient.Client, mailbox string) [][]byte {
	t.Helper()
	selected, err := c.Select(mailbox, &imap.SelectOptions{ReadOnly: true}).Wait()
	if err != nil {
		t.Fatalf("select %s: %v", mailbox, err)
	}
	if selected.NumMessages == 0 {
		return nil
	}
	all := make([][]byte, 0, selected.NumMessages)
	whole := &imap.FetchItemBodySection{Peek: true}
	fetch := c.Fetch(imap.SeqSet{imap.SeqRange{Start: 1, Stop: 0}}, &imap.FetchOptions{BodySection: []*imap.FetchItemBodySection{whole}})
	for m := fetch.Next(); m != nil; m = fetch.Next() {
		for item := m.Next(); item != nil; item = m.Next() {
			if body, ok := item.(imapclient.FetchItemDataBodySection); ok && body.Literal != nil {
				text, err := io.ReadAll(body.Literal)
				if err != nil {
					t.Fatalf("fetch %s: %v", mailbox, err)
				}
				all = append(all, text)
			}
		}
	}
	if err := fetch.Close(); err != nil {
		t.Fatalf("fetch %s: %v", mailbox, err)
	}
	return all
}

// header of a message, the first of this name.
func header(message []byte, name string) string {
	h, err := textproto.NewReader(bufio.NewReader(bytes.NewReader(message))).ReadMIMEHeader()
	if err != nil && h == nil {
		return ""
	}
	return h.Get(name)
}

// smtpSession is a client that sees every reply, and does nothing by itself.
type smtpSession struct {
	conn net.Conn
	*textproto.Conn
}

// smtp connects and says EHLO.
func dialSMTP(address string) (*smtpSession, error) {
	conn, err := net.DialTimeout("tcp", address, 10*time.Second)
	if err != nil {
		return nil, err
	}
	if err := conn.SetDeadline(time.Now().Add(60 * time.Second)); err != nil {
		return nil, err
	}
	c := &smtpSession{conn, textproto.NewConn(conn)}
	if _, _, err := c.ReadResponse(220); err != nil {
		c.Close()
		return nil, err
	}
	if err := c.ask(250, "EHLO client.example.org"); err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}

// ask sends a command and wants one reply code.
func (c *smtpSession) ask(code int, format string, args ...any) error {
	if err := c.PrintfLine(format, args...); err != nil {
		return err
	}
	_, _, err := c.ReadResponse(code)
	return err
}

// begin goes as far as DATA's 354.
func (c *smtpSession) begin(from string, to ...string) error {
	if err := c.ask(250, "MAIL FROM:<%s>", from); err != nil {
		return err
	}
	for _, rcpt := range to {
		if err := c.ask(250, "RCPT TO:<%s>", rcpt); err != nil {
			return err
		}
	}
	return c.ask(354, "DATA")
}

// message with a subject, an id, and a body of about size bytes.
func message(id string, size int) string {
	var b strings.Builder
	fmt.Fprintf(&b, "From: Sender <sender@example.org>\r\nTo: you@example.test\r\nSubject: %s\r\nMessage-ID: <%s@example.org>\r\nDate: Mon, 23 Nov 2026 12:00:00 +0000\r\n\r\n", id, id)
	for b.Len() < size {
		b.WriteString("All work and no play makes a dull message body.\r\n")
	}
	return b.String()
}
