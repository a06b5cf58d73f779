package switchd

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"shoal/daemons/internal/conf"
	"shoal/daemons/internal/dirclient"
	"shoal/daemons/internal/pki"
)

func lmtp(addresses ...string) string {
	return fmt.Sprintf("lmtp { addresses = [\"%s\"] }\nsmtp { error_delay = \"0s\" }\nsubmission { error_delay = \"0s\" }\n", strings.Join(addresses, `", "`))
}

const sendToAlice = `
open 1 smtp
S1: 220 mx1.example.test ESMTP {{.*}}
C1: EHLO client.test
S1~: 250 {{.*}}
C1!: MAIL FROM:<you@example.org>\r\nRCPT TO:<alice.alias@example.test>\r\nDATA\r\n
S1: 250 {{.*}}
S1: 250 {{.*}}
S1: 354 {{.*}}
C1!: Subject: hello\r\n\r\nhello\r\n.\r\n
S1: 250 2.0.0 Delivered, id {{.*}}
C1: QUIT
S1: 221 {{.*}}
eof 1
`

// Foreign clients through the real switch into the real store.
func TestForeignClients(t *testing.T) {
	s := newSite(t)
	s.startVault()
	a := s.fill()
	s.startBox("1")
	w := s.startSwitch("hostname = \"mx1.example.test\"\n" + lmtp(s.ports["lmtp1"]))
	run := func(name string, args ...string) {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		defer cancel()
		out, err := exec.CommandContext(ctx, name, args...).CombinedOutput()
		if err != nil {
			t.Fatalf("%s: %v\n%s", name, err, out)
		}
	}
	message := s.path("message")
	must(t, os.WriteFile(message, []byte("From: alice@example.test\r\nTo: bob@example.test\r\nSubject: by curl\r\n\r\nHi.\r\n.\r\n..\r\n"), 0o600))
	port := func(name string) string { _, p, _ := net.SplitHostPort(s.ports[name]); return p }

	run("swaks", "--server", s.ports["smtp"], "--from", "you@example.org", "--to", "alice@example.test,bob@example.test", "--header", "Subject: by swaks")
	run("swaks", "--server", s.ports["smtp"], "-tls", "--from", "you@example.org", "--to", "alice@example.test", "--header", "Subject: by swaks with TLS")
	run("swaks", "--server", s.ports["submission"], "-tls", "--auth", "LOGIN", "-au", "alice@example.test", "-ap", "password of alice",
		"--from", "alice.alias@example.test", "--to", "bob@example.test", "--header", "Subject: submitted by swaks")
	run("swaks", "--server", s.ports["submissions"], "-tlsc", "--auth", "PLAIN", "-au", "alice@example.test", "-ap", "password of alice",
		"--from", "alice@example.test", "--to", "bob@example.test", "--header", "Subject: submitted by swaks over TLS")
	for _, url := range []string{"smtp://localhost:" + port("submission"), "smtps://localhost:" + port("submissions")} {
		run("curl", "-sS", "--ssl-reqd", "--cacert", s.path("ca.crt"), "--user", "alice@example.test:password of alice",
			"--mail-from", "alice@example.test", "--mail-rcpt", "bob@example.test", "-T", message, url)
	}

	alice, bob := s.inbox(a, "alice@example.test"), s.inbox(a, "bob@example.test")
	if len(alice) != 2 || len(bob) != 5 {
		t.Fatalf("alice has %d messages, bob %d", len(alice), len(bob))
	}
	contains(t, alice[0], "Return-Path: <you@example.org>\r\nReceived: from ", "by mx1.example.test with ESMTP id ", "Subject: by swaks\r\n")
	contains(t, alice[1], "Delivered-To: alice@example.test\r\n", "with ESMTPS id ", "(using TLS1.3 with cipher")
	contains(t, bob[1], "with ESMTPSA id ", "Return-Path: <alice.alias@example.test>")
	for _, text := range bob[3:] {
		contains(t, text, "\r\nMessage-ID: <", "@mx1.example.test>\r\n", "\r\nDate: ")
		if !strings.HasSuffix(text, "\r\n\r\nHi.\r\n.\r\n..\r\n") {
			t.Errorf("the text changed: %q", text)
		}
	}
	// One trace id through both daemons' logs.
	_, trace, _ := strings.Cut(alice[0], " with ESMTP id ")
	trace, _, _ = strings.Cut(trace, ";")
	if n := strings.Count(s.log.String(), "trace="+trace); n < 3 {
		t.Errorf("trace %s is %d times in the logs", trace, n)
	}
	status := w.Status(t.Context())
	if status["directory"] != "ok" || status["boxes"] != "ok" || status["messages"].(map[string]float64)["accepted"] != 6 {
		t.Errorf("status %v", status)
	}
}

// Variation 2: an assigned box, named in the directory, with another as its fallback.
func TestAssignedBox(t *testing.T) {
	s := newSite(t)
	s.startVault()
	a := s.fill()
	box1, _ := s.startBox("1"), s.startBox("2")
	s.startSwitch("hostname = \"mx1.example.test\"\n" + lmtp("box:box1", s.ports["lmtp2"]))
	s.play(sendToAlice)
	box1.stop()
	s.play(sendToAlice) // box2 steps in
	s.startBox("1")
	s.play(sendToAlice)
	if n := len(s.inbox(a, "alice@example.test")); n != 3 {
		t.Errorf("%d messages", n)
	}
}

// Whatever is away, the client is told to come again, and nothing is accepted.
func TestAway(t *testing.T) {
	s := newSite(t)
	w := s.startSwitch(lmtp(s.ports["lmtp1"]))
	away := `
open 1 smtp
S1: 220 {{.*}}
C1: EHLO client.test
S1~: 250 {{.*}}
C1: MAIL FROM:<you@example.org>
S1: 250 {{.*}}
C1: RCPT TO:<alice@example.test>
S1: 451 4.3.0 {{.*}}
C1: DATA
S1: 503 {{.*}}
C1: QUIT
S1: 221 {{.*}}
eof 1
`
	s.play(away)
	s.play(`
open 1 submissions
S1: 220 {{.*}}
C1: EHLO client.test
S1~: 250 {{.*}}
C1: AUTH PLAIN AGFsaWNlQGV4YW1wbGUudGVzdABwYXNzd29yZCBvZiBhbGljZQ==
timeout 30s
S1: 454 4.7.0 {{.*}}
`)
	if err := w.Ready(t.Context()); err == nil {
		t.Error("ready without having reached the directory")
	}
	vault := s.startVault()
	s.fill()
	s.play(away) // the box is away
	s.startBox("1")
	until(t, func() error { return w.Ready(t.Context()) })
	until(t, func() error { return s.try(strings.ReplaceAll(sendToAlice, "mx1.example.test", "switch1")) })
	vault.stop()
	s.play(away)
}

// Drain: who is idle gets 421, a transaction comes to its end.
func TestDrain(t *testing.T) {
	s := newSite(t)
	s.startVault()
	a := s.fill()
	s.startBox("1")
	w := s.startSwitch("hostname = \"mx1.example.test\"\n" + lmtp(s.ports["lmtp1"]))
	open := func() (net.Conn, *bufio.Reader) {
		c, err := net.Dial("tcp", s.ports["smtp"])
		must(t, err)
		t.Cleanup(func() { c.Close() })
		must(t, c.SetDeadline(time.Now().Add(30*time.Second)))
		return c, bufio.NewReader(c)
	}
	expect := func(r *bufio.Reader, code string) {
		t.Helper()
		for {
			line, err := r.ReadString('\n')
			if err != nil || !strings.HasPrefix(line, code) {
				t.Fatalf("%q, %v; want %s", line, err, code)
			}
			if line[3] == ' ' {
				return
			}
		}
	}
	_, idle := open()
	expect(idle, "220")
	c, busy := open()
	expect(busy, "220")
	for _, line := range []string{"EHLO client.test", "MAIL FROM:<you@example.org>", "RCPT TO:<alice@example.test>"} {
		fmt.Fprintf(c, "%s\r\n", line)
		expect(busy, "250")
	}
	fmt.Fprintf(c, "DATA\r\n")
	expect(busy, "354")
	drained := make(chan error, 1)
	go func() {
		ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
		defer cancel()
		drained <- w.Drain(ctx)
	}()
	expect(idle, "421")
	fmt.Fprintf(c, "Subject: hello\r\n\r\nhello\r\n.\r\n")
	expect(busy, "250")
	expect(busy, "421")
	if err := <-drained; err != nil {
		t.Errorf("drain: %v", err)
	}
	if n := len(s.inbox(a, "alice@example.test")); n != 1 {
		t.Errorf("%d messages", n)
	}
}

func TestConfigMistakes(t *testing.T) {
	s := newSite(t)
	s.credentials(pki.RoleSwitch, "switch1")
	good := s.head(pki.RoleSwitch, "switch1") + "listener \"smtp\" { address = \"127.0.0.1:2525\" }\n" + lmtp("127.0.0.1:24", "box:box1")
	load := func(text string) (*Config, error) {
		file := s.path("switch1.hcl")
		must(t, os.WriteFile(file, []byte(text), 0o600))
		c := &Config{}
		return c, conf.Load(file, c)
	}
	c, err := load(good)
	must(t, err)
	if c.hostname() != "switch1" || c.SMTP.MaxRecipients == 0 || c.Submission.ErrorDelay != 0 || c.LMTP.MaxOpen == 0 {
		t.Errorf("loaded %+v", c)
	}
	must(t, c.Check(t.Context()))
	for _, tt := range []struct{ old, by, says string }{
		{"identity {", "management { address = \"127.0.0.1:1\" }\nidentity {", ""},
		{s.head(pki.RoleSwitch, "switch1"), "server { name = \"switch1\" }\n" + s.head(pki.RoleSwitch, "switch1")[strings.Index(s.head(pki.RoleSwitch, "switch1"), "public_tls"):], "no identity block"},
		{"  bind_dn       = \"cn=switch1,ou=servers,ou=config,o=shoal\"\n  password_file = \"secret\"\n", "", "bind_dn = \\\"cn=switch1,ou=servers,ou=config,o=shoal\\\""},
		{"listener \"smtp\" { address = \"127.0.0.1:2525\" }\n", "", "no listener block"},
		{"listener \"smtp\"", "listener \"imap\"", "switchd serves smtp, submission, submissions, relay and hint"},
		{"listener \"smtp\"", "listener \"submissions\"", "tls = true"},
		{"{ address = \"127.0.0.1:2525\" }", "{\n address = \"127.0.0.1:2525\"\n tls = true\n}", "STARTTLS"},
		{"public_tls {\n  cert_file = \"public.crt\"\n  key_file  = \"public.key\"\n}\ndirectory", "directory", ""},
		{"lmtp {", "hostname = \"[127.0.0.1]\"\nlmtp {", "no host name"},
		{"lmtp {", "hostname = \"a b\"\nlmtp {", "no host name"},
		{"\"127.0.0.1:24\"", "\"127.0.0.1\"", "neither host:port nor box:name"},
		{"\"127.0.0.1:24\"", "\"box:\"", "neither host:port nor box:name"},
		{"addresses = [\"127.0.0.1:24\", \"box:box1\"]", "addresses = []", "at least one server"},
		{"error_delay = \"0s\"", "error_dely = \"0s\"", "error_delay"},
	} {
		if !strings.Contains(good, tt.old) {
			t.Fatalf("%q is not in the configuration", tt.old)
		}
		_, err := load(strings.Replace(good, tt.old, tt.by, 1))
		if tt.says == "" && err != nil || tt.says != "" && (err == nil || !strings.Contains(err.Error(), strings.ReplaceAll(tt.says, `\"`, `"`))) {
			t.Errorf("%q for %q: %v; it should say %q", tt.by, tt.old, err, tt.says)
		}
	}
	// Somebody else's certificate, and a submission listener without one for its clients.
	s.issue("switch1", pki.Request{Role: pki.RoleBox, Name: "switch1"})
	c, err = load(good)
	must(t, err)
	if err := c.Check(t.Context()); err == nil || !strings.Contains(err.Error(), "shoal://box/switch1") {
		t.Errorf("certificate of a box: %v", err)
	}
	if _, err := load(strings.Replace(strings.Replace(good, "public_tls {\n  cert_file = \"public.crt\"\n  key_file  = \"public.key\"\n}\n", "", 1),
		"listener \"smtp\"", "listener \"submission\"", 1)); err == nil || !strings.Contains(err.Error(), "public_tls") {
		t.Errorf("submission without a certificate: %v", err)
	}
}

// A suspended account gets its mail, a closed one never again.
func TestStatuses(t *testing.T) {
	s := newSite(t)
	s.startVault()
	a := s.fill()
	s.startBox("1")
	s.startSwitch(lmtp(s.ports["lmtp1"]))
	expect := func(reply string) {
		t.Helper()
		until(t, func() error { // what the switch remembers of the account is soon out of date
			return s.try("open 1 smtp\nS1: 220 {{.*}}\nC1: EHLO client.test\nS1~: 250 {{.*}}\nC1: MAIL FROM:<you@example.org>\nS1: 250 {{.*}}\nC1: RCPT TO:<bob@example.test>\nS1: " + reply + " {{.*}}\n")
		})
	}
	expect("250")
	must(t, a.SetAccountStatus(t.Context(), "bob@example.test", dirclient.StatusSuspended))
	expect("250")
	must(t, a.SetAccountStatus(t.Context(), "bob@example.test", dirclient.StatusClosed))
	expect("550")
}
