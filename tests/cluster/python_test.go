package cluster

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	cryptorand "crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"math/big"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/emersion/go-imap/v2"
)

// letters are messages with what troubles mail programs. All of them could come by SMTP; the first one is plain.
func letters() []string {
	r := rand.New(rand.NewPCG(3, 4)) // the same at each run
	raw := make([]byte, 200_000)
	for i := range raw {
		raw[i] = byte(r.Uint32())
	}
	attachment := base64.StdEncoding.EncodeToString(raw)
	var lines strings.Builder
	for ; len(attachment) > 76; attachment = attachment[76:] {
		lines.WriteString(attachment[:76] + "\r\n")
	}
	lines.WriteString(attachment + "\r\n")
	head := func(n int, more string) string {
		return fmt.Sprintf("From: Sender <sender@example.org>\r\nTo: you@example.test\r\nSubject: letter-%d\r\nMessage-ID: <letter-%[1]d@example.org>\r\nDate: Mon, 23 Nov 2026 12:00:00 +0000\r\n%s\r\n", n, more)
	}
	return []string{
		head(0, "") + "Hello.\r\n",
		head(1, "") + ".\r\n..\r\n.dot\r\nFrom the beginning of a line\r\n>From quoted\r\n>>From twice\r\nblanks   \r\n\ttab\t\r\n\r\n\r\n.\r\n",
		strings.Replace(head(2, "MIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n"),
			"letter-2", "Grüße aus Köln", 1) + "Grüße, 山田, €\r\n",
		head(3, "MIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=\"=_b\"\r\n") +
			"preamble\r\n--=_b\r\nContent-Type: text/plain\r\n\r\nSee below.\r\n--=_b\r\nContent-Type: application/octet-stream; name=\"raw.bin\"\r\nContent-Transfer-Encoding: base64\r\n\r\n" +
			lines.String() + "--=_b--\r\nepilogue\r\n",
		head(4, "X-Folded: one\r\n two\r\n\tthree\r\nX-Empty:\r\n") + strings.Repeat("long ", 197) + "\r\n",
		head(5, "") + "\r\n",
		head(6, "Content-Type: text/plain; charset=iso-8859-1\r\n") + "latin-1 \xe9\xe8, and what is valid nowhere \xc0\xaf\xff\r\n",
	}
}

// headersInASCII gives the same letters as a POP3 client gets them that does not say UTF8 (RFC 6856 §2).
func headersInASCII(letters []string) []string {
	var out []string
	for _, l := range letters {
		out = append(out, strings.Replace(l, "Subject: Grüße aus Köln\r\n", "Subject: =?utf-8?B?R3LDvMOfZSBhdXMgS8O2bG4=?=\r\n", 1))
	}
	return out
}

// deposit appends messages to a mailbox, which is made if it is not there.
func (s *service) deposit(t *testing.T, u user, mailbox string, messages []string) {
	t.Helper()
	c := s.imap(t, u, "", nil)
	if mailbox != "INBOX" {
		_ = c.Create(mailbox, nil).Wait() // there already, or APPEND will say
	}
	for i, m := range messages {
		a := c.Append(mailbox, int64(len(m)), &imap.AppendOptions{Time: time.Unix(1600000000+int64(i), 0)})
		if _, err := a.Write([]byte(m)); err != nil {
			t.Fatal(err)
		}
		if err := a.Close(); err != nil {
			t.Fatal(err)
		}
		if _, err := a.Wait(); err != nil {
			t.Fatalf("append to %s: %v", mailbox, err)
		}
	}
}

// holds demands that a mailbox holds exactly these messages, in any order, seen from each box.
func (s *service) holds(t *testing.T, u user, mailbox string, want []string) {
	t.Helper()
	want = slices.Sorted(slices.Values(want))
	for _, box := range []string{"box1", "box2"} {
		var got []string
		for _, m := range fetchAll(t, s.imap(t, u, box, nil), mailbox) {
			got = append(got, string(m))
		}
		slices.Sort(got)
		if len(got) != len(want) {
			t.Errorf("%s: %s holds %d messages, want %d", box, mailbox, len(got), len(want))
			continue
		}
		for i := range got {
			if got[i] != want[i] {
				t.Errorf("%s: %s: a message differs: %s", box, mailbox, difference([]byte(got[i]), []byte(want[i])))
			}
		}
	}
}

// python runs a script of testdata/python as the user, with the messages that it may use.
func (s *service) python(t *testing.T, script string, u user, ca string, messages []string) (string, error) {
	t.Helper()
	job := map[string]any{"host": "localhost", "ca": ca, "user": u.Address, "password": u.Password}
	for _, name := range []string{"imap", "imaps", "pop3", "pop3s"} {
		job[name], _ = strconv.Atoi(portOf(s.address(name)))
	}
	var texts []string
	for _, m := range messages { // each byte one character
		text := make([]rune, len(m))
		for i := range len(m) {
			text[i] = rune(m[i])
		}
		texts = append(texts, string(text))
	}
	job["messages"] = texts
	stdin, err := json.Marshal(job)
	if err != nil {
		t.Fatal(err)
	}
	return tryCommand(t, string(stdin), "python3", filepath.Join("testdata", "python", script))
}

// Python's imaplib through the balancer: TLS, mailboxes, append, fetch, store, search, copy, expunge, idle.
func TestPythonImaplib(t *testing.T) {
	s := shared(t)
	u := s.newAccount(t)
	all := letters()
	if out, err := s.python(t, "imap_client.py", u, s.CAFile, all); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	s.holds(t, u, "Py/Kept", append(slices.Clone(all), all[2:]...))
	s.holds(t, u, "Py/Work", all[1:2])
	s.holds(t, u, "INBOX", all[:1])
}

// Python's poplib through the balancer: STLS, TLS, UIDL, TOP, UTF8, RETR byte for byte, DELE.
func TestPythonPoplib(t *testing.T) {
	s := shared(t)
	u := s.newAccount(t)
	all := letters()
	s.deposit(t, u, "INBOX", all)
	if out, err := s.python(t, "pop_client.py", u, s.CAFile, all); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	s.holds(t, u, "INBOX", all[1:])
	// The scripts do look at the certificate and at the bytes.
	out, err := s.python(t, "pop_client.py", u, strangeCA(t), all[1:])
	if err == nil || !strings.Contains(out, "CERTIFICATE_VERIFY_FAILED") {
		t.Errorf("with the certificate of another authority: %v\n%s", err, out)
	}
	wrong := slices.Clone(all[1:])
	wrong[2] = strings.Replace(wrong[2], "preamble", "Preamble", 1)
	if out, err := s.python(t, "pop_client.py", u, s.CAFile, wrong); err == nil || !strings.Contains(out, "AssertionError: 3") {
		t.Errorf("with another text for message 3: %v\n%s", err, out)
	}
}

// strangeCA is the certificate of an authority that the service does not know.
func strangeCA(t *testing.T) string {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), cryptorand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "Somebody else"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), KeyUsage: x509.KeyUsageCertSign}
	der, err := x509.CreateCertificate(cryptorand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}
