package cluster

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"math/big"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// event is a login in the audit trail.
type event struct {
	Result, Service, Mechanism, Credential, Name, Reason, Account string
}

// logins reads the audit trail of an account, the newest first.
func (s *service) logins(t *testing.T, address string) []event {
	t.Helper()
	var v struct{ Events []event }
	if err := json.Unmarshal([]byte(s.shoalctl(t, "logins", address, "--limit", "200", "--json")), &v); err != nil {
		t.Fatal(err)
	}
	return v.Events
}

// userCertificate makes a certificate for client authentication that stands for addresses, by the CA of the service, and gives its files.
func (s *service) userCertificate(t *testing.T, serial int64, addresses ...string) (cert, key string) {
	t.Helper()
	ca, err := tls.LoadX509KeyPair(s.CAFile, filepath.Join(s.data, "pki", "ca.key"))
	if err != nil {
		t.Fatal(err)
	}
	issuer, err := x509.ParseCertificate(ca.Certificate[0])
	if err != nil {
		t.Fatal(err)
	}
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber: big.NewInt(serial), Subject: pkix.Name{CommonName: "a user"}, EmailAddresses: addresses,
		NotBefore: time.Now().Add(-time.Minute), NotAfter: time.Now().Add(time.Hour), ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}, issuer, &private.PublicKey, ca.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	secret, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	folder := t.TempDir()
	return put(t, filepath.Join(folder, "user.crt"), 0o600, "%s", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})),
		put(t, filepath.Join(folder, "user.key"), 0o600, "%s", pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: secret}))
}

// Logins without a password on the wire, by the clients of others at the daemons as they are built: SCRAM with and without channel binding
// with GNU SASL, msmtp, Cyrus SASL (mbsync) and Python; EXTERNAL with curl, msmtp and Python; bearer tokens with curl and msmtp. What
// must be refused is, and each login is in the audit trail as what it was.
func TestLoginsWithoutPasswordOnTheWire(t *testing.T) {
	s := own(t) // all accounts of it have verifiers: SCRAM is offered
	u := s.newAccount(t)
	home(t)
	box, pop, sieve, submission := portOf(s.address("imaps", "box1")), portOf(s.address("pop3s", "box2")), portOf(s.address("managesieve", "box2")), portOf(s.address("submission", "switch1"))
	wait(t, 60*time.Second, func() bool {
		return strings.Contains(s.capabilities(t), "AUTH=SCRAM-SHA-256-PLUS")
	}, func() string { return "SCRAM is not offered: " + s.capabilities(t) })

	gsasl := func(kind, port, mechanism, password string, more ...string) func() (string, error) {
		args := append([]string{"--" + kind, "--connect=localhost:" + port, "-m", mechanism, "-a", u.Address, "-p", password, "--x509-ca-file=" + s.CAFile, "--quiet"}, more...)
		return func() (string, error) { return tryCommand(t, "", "gsasl", args...) }
	}
	python := func(args ...string) func() (string, error) {
		return func() (string, error) {
			return tryCommand(t, "", "python3", append([]string{filepath.Join("testdata", "python", "scram_client.py")}, args...)...)
		}
	}
	curl := func(service, server string, more ...string) func() (string, error) {
		return func() (string, error) { return "", s.curlLogin(t, service, server, u.Address, more...) }
	}
	msmtp := func(password string, more ...string) func() (string, error) {
		return func() (string, error) {
			return tryCommand(t, "Subject: by msmtp\n\nhello\n", "msmtp", append([]string{"--host=localhost", "--port=" + submission, "--from=" + u.Address, "--user=" + u.Address,
				"--tls=on", "--tls-trust-file=" + s.CAFile, "--passwordeval=echo " + password}, append(more, u.Address)...)...)
		}
	}
	mbsync := func() (string, error) {
		folder := t.TempDir()
		rc := put(t, filepath.Join(folder, "rc"), 0o600, `FSync no
IMAPStore there
Host localhost
Port %s
User %s
Pass %s
SSLType IMAPS
CertificateFile %s
AuthMechs SCRAM-SHA-256

MaildirStore here
Inbox %s/INBOX

Channel all
Far :there:
Near :here:
Sync Pull
SyncState *
`, box, u.Address, u.Password, s.CAFile, folder)
		return tryCommand(t, "", "mbsync", "-c", rc, "all")
	}
	cert, key := s.userCertificate(t, 0x5ca1ab1e, u.Address)
	nobody, nobodyKey := s.userCertificate(t, 0xbad, "nobody@example.test")
	none, noneKey := s.userCertificate(t, 0xbad2)
	wm := filepath.Join(t.TempDir(), "key")
	s.shoalctl(t, "server", "add", "wm9", "--role", "webmail")
	s.shoalctl(t, "token-key", "add", "wm9", "--file", wm)
	token := strings.TrimSpace(s.shoalctl(t, "token-key", "sign", "wm9", u.Address, "--file", wm, "--scope", "imap,pop,smtp"))
	bearer := []string{"--user", u.Address, "--oauth2-bearer", token}
	wait(t, 20*time.Second, func() bool { _, err := curl("imaps", "box1", bearer...)(); return err == nil }, func() string { return "the token opens nothing" })
	password := func(mechanism string) []string {
		return []string{"--user", u.Address + ":" + u.Password, "--login-options", "AUTH=" + mechanism}
	}
	shown := func(cert, key string) []string {
		return []string{"--user", u.Address + ":", "--cert", cert, "--key", key, "--login-options", "AUTH=EXTERNAL"}
	}

	runs := []struct {
		name    string
		run     func() (string, error)
		refused bool
		want    event // in the audit trail, where it is there
	}{
		{"gsasl, bound to TLS 1.3", gsasl("smtp", submission, "SCRAM-SHA-256-PLUS", u.Password), false, event{Result: "ok", Service: "smtp", Mechanism: "SCRAM-SHA-256-PLUS"}},
		{"gsasl, bound, SHA-1", gsasl("imap", portOf(s.address("imap", "box1")), "SCRAM-SHA-1-PLUS", u.Password), false, event{Result: "ok", Service: "imap", Mechanism: "SCRAM-SHA-1-PLUS"}},
		{"gsasl, that can be bound and was told not to be", gsasl("imap", portOf(s.address("imap", "box2")), "SCRAM-SHA-256", u.Password), true, event{}},
		{"Python, that was not shown the binding", python("imap", box, s.CAFile, "SCRAM-SHA-256?", u.Address, u.Password), true, event{Result: "bad", Service: "imap", Mechanism: "SCRAM-SHA-256"}},
		{"gsasl, that cannot be bound", gsasl("imap", portOf(s.address("imap", "box2")), "SCRAM-SHA-256", u.Password, "--no-cb"), false, event{Result: "ok", Service: "imap", Mechanism: "SCRAM-SHA-256"}},
		{"gsasl, a wrong password", gsasl("smtp", submission, "SCRAM-SHA-256-PLUS", "wrong"), true, event{Result: "bad", Service: "smtp", Mechanism: "SCRAM-SHA-256-PLUS"}},
		{"msmtp", msmtp(u.Password, "--auth=scram-sha-256"), false, event{Result: "ok", Service: "smtp", Mechanism: "SCRAM-SHA-256"}},
		{"msmtp, a wrong password", msmtp("wrong", "--auth=scram-sha-256"), true, event{Result: "bad", Service: "smtp", Mechanism: "SCRAM-SHA-256"}},
		{"mbsync with Cyrus SASL", mbsync, false, event{Result: "ok", Service: "imap", Mechanism: "SCRAM-SHA-256"}},
		{"Python, IMAP, tls-unique", python("imap", box, s.CAFile, "SCRAM-SHA-256-PLUS", u.Address, u.Password), false, event{Result: "ok", Service: "imap", Mechanism: "SCRAM-SHA-256-PLUS"}},
		{"Python, POP3, tls-unique", python("pop", pop, s.CAFile, "SCRAM-SHA-256-PLUS", u.Address, u.Password), false, event{Result: "ok", Service: "pop", Mechanism: "SCRAM-SHA-256-PLUS"}},
		{"Python, ManageSieve, tls-unique", python("sieve", sieve, s.CAFile, "SCRAM-SHA-256-PLUS", u.Address, u.Password), false, event{Result: "ok", Service: "sieve", Mechanism: "SCRAM-SHA-256-PLUS"}},
		{"Python, a wrong password", python("sieve", sieve, s.CAFile, "SCRAM-SHA-256", u.Address, "wrong"), true, event{Result: "bad", Service: "sieve", Mechanism: "SCRAM-SHA-256"}},
		{"a certificate, IMAP with curl", curl("imaps", "box1", shown(cert, key)...), false, event{Result: "ok", Service: "imap", Mechanism: "EXTERNAL", Credential: "certificate", Name: "5ca1ab1e"}},
		{"a certificate, POP3 with Python", python("pop", pop, s.CAFile, "EXTERNAL", u.Address, "", cert, key), false, event{Result: "ok", Service: "pop", Mechanism: "EXTERNAL"}},
		{"a certificate, ManageSieve with Python", python("sieve", sieve, s.CAFile, "EXTERNAL", "", "", cert, key), false, event{Result: "ok", Service: "sieve", Mechanism: "EXTERNAL"}},
		{"a certificate, submission with msmtp", msmtp("-", "--auth=external", "--tls-cert-file="+cert, "--tls-key-file="+key), false, event{Result: "ok", Service: "smtp", Mechanism: "EXTERNAL"}},
		{"a certificate of another address", curl("imaps", "box1", shown(nobody, nobodyKey)...), true, event{Result: "bad", Service: "imap", Mechanism: "EXTERNAL", Name: "bad"}},
		{"a certificate of no address", curl("imaps", "box1", shown(none, noneKey)...), true, event{}},
		{"no certificate", curl("imaps", "box1", "--user", u.Address+":", "--login-options", "AUTH=EXTERNAL"), true, event{}},
		{"a certificate beside a password", curl("imaps", "box1", append(password("PLAIN"), "--cert", none, "--key", noneKey)...), false, event{Result: "ok", Service: "imap", Mechanism: "PLAIN"}},
		{"a token, with curl", curl("imaps", "box1", bearer...), false, event{Result: "ok", Service: "imap", Mechanism: "OAUTHBEARER", Credential: "token", Name: "wm9"}},
		{"a token, OAUTHBEARER with msmtp", msmtp(token, "--auth=oauthbearer"), false, event{Result: "ok", Service: "smtp", Mechanism: "OAUTHBEARER", Credential: "token"}},
		{"a token, XOAUTH2 with msmtp", msmtp(token, "--auth=xoauth2"), false, event{Result: "ok", Service: "smtp", Mechanism: "XOAUTH2", Credential: "token"}},
	}
	for _, r := range runs {
		out, err := r.run()
		if (err != nil) != r.refused {
			t.Errorf("%s: %v\n%s", r.name, err, out)
		}
	}
	trail := s.logins(t, u.Address)
	for _, r := range runs {
		if w := r.want; w.Result != "" && !slices.ContainsFunc(trail, func(e event) bool {
			return e.Result == w.Result && e.Service == w.Service && e.Mechanism == w.Mechanism && (w.Credential == "" || e.Credential == w.Credential) &&
				(w.Name == "" || e.Name == w.Name) && (w.Result == "ok" || e.Reason != "")
		}) {
			t.Errorf("%s: not in the audit trail as %+v", r.name, w)
		}
	}
	if t.Failed() {
		t.Logf("%+v", trail)
	}
}

// capabilities are those of a box before the login.
func (s *service) capabilities(t *testing.T) string {
	t.Helper()
	c, err := tls.Dial("tcp", s.address("imaps", "box1"), s.tls(t))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	line := make([]byte, 2000)
	n, err := c.Read(line)
	if err != nil {
		t.Fatal(err)
	}
	return string(line[:n])
}
