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
	"fmt"
	"io"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/emersion/go-imap/v2"
	"github.com/emersion/go-imap/v2/imapclient"

	"shoal/tests/ports"
)

// oldServer is Debian's Dovecot with all its daemons, TLS and passwords.
type oldServer struct {
	address string // imaps
	plain   string // imap, with STARTTLS
	ca      string
	end     func()
}

// startOldServer starts it with users (name: password) and a master user "master".
func startOldServer(t *testing.T, users map[string]string) *oldServer {
	t.Helper()
	folder, err := os.MkdirTemp("", "shoal-dovecot-")
	check(t, err)
	t.Cleanup(func() { os.RemoveAll(folder) })
	check(t, os.Chmod(folder, 0o755))
	at := ports.Take(t, 2)
	o := &oldServer{address: "localhost:" + portOf(at[0]), plain: "localhost:" + portOf(at[1]), ca: filepath.Join(folder, "ca.crt")}
	selfSigned(t, o.ca, filepath.Join(folder, "old.key"))
	var list strings.Builder
	for name, password := range users {
		fmt.Fprintf(&list, "%s:{PLAIN}%s\n", name, password)
	}
	put(t, filepath.Join(folder, "users"), 0o644, "%s", list.String())
	put(t, filepath.Join(folder, "masters"), 0o644, "master:{PLAIN}master key\n")
	home := filepath.Join(folder, "home")
	check(t, os.Mkdir(home, 0o777))
	owner, group, who := os.Geteuid(), os.Getegid(), ""
	if owner == 0 {
		owner, group = nobody, nobody
		check(t, os.Chown(home, nobody, nobody))
	} else {
		who = fmt.Sprintf("default_internal_user = %d\ndefault_login_user = %[1]d\ndefault_internal_group = %d\n", owner, group)
	}
	put(t, filepath.Join(folder, "dovecot.conf"), 0o644, `base_dir = %[1]s/base
log_path = %[1]s/log
protocols = imap
ssl = required
ssl_cert = <%[1]s/ca.crt
ssl_key = <%[1]s/old.key
first_valid_uid = 1
auth_mechanisms = plain
mail_location = maildir:~/Maildir
%[5]spassdb {
  driver = passwd-file
  args = %[1]s/masters
  master = yes
}
passdb {
  driver = passwd-file
  args = %[1]s/users
}
userdb {
  driver = static
  args = uid=%[3]d gid=%[4]d home=%[1]s/home/%%u
}
service imap-login {
  chroot =
  inet_listener imap {
    address = 127.0.0.1
    port = %[6]s
  }
  inet_listener imaps {
    address = 127.0.0.1
    port = %[2]s
    ssl = yes
  }
}
service anvil {
  chroot =
}
service stats {
  chroot =
}
namespace inbox {
  inbox = yes
  mailbox "Gesendete Post" {
    special_use = \Sent
  }
}
`, folder, portOf(at[0]), owner, group, who, portOf(at[1]))
	cmd := exec.Command("/usr/sbin/dovecot", "-F", "-c", filepath.Join(folder, "dovecot.conf"))
	var out output
	cmd.Stdout, cmd.Stderr = &out, &out
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM} // a test that is cut off ends it, and it its processes
	check(t, cmd.Start())
	ended := make(chan struct{})
	go func() { _ = cmd.Wait(); close(ended) }()
	done := false
	o.end = func() {
		if !done {
			done = true
			_ = cmd.Process.Signal(os.Interrupt)
			<-ended
		}
	}
	t.Cleanup(func() {
		o.end()
		if t.Failed() {
			log, _ := os.ReadFile(filepath.Join(folder, "log"))
			t.Logf("Dovecot: %s\n%s", out.String(), log)
		}
	})
	wait(t, 20*time.Second, func() bool {
		c, err := net.Dial("tcp", at[0])
		if err == nil {
			c.Close()
		}
		return err == nil
	}, func() string { return "Dovecot does not start: " + out.String() })
	return o
}

// selfSigned writes a certificate for localhost that vouches for itself, and its key.
func selfSigned(t *testing.T, cert, key string) {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	check(t, err)
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "localhost"}, DNSNames: []string{"localhost"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}
	der, err := x509.CreateCertificate(rand.Reader, template, template, k.Public(), k)
	check(t, err)
	secret, err := x509.MarshalPKCS8PrivateKey(k)
	check(t, err)
	put(t, cert, 0o644, "%s", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
	put(t, key, 0o600, "%s", pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: secret}))
}

// imap logs in at the old server.
func (o *oldServer) imap(t *testing.T, user, password string) *imapclient.Client {
	t.Helper()
	conn, err := tls.Dial("tcp", o.address, &tls.Config{InsecureSkipVerify: true})
	check(t, err)
	c := imapclient.New(conn, nil)
	t.Cleanup(func() { c.Close() })
	check(t, c.Login(user, password).Wait())
	return c
}

// store lines for mbsync.
func mbsyncStore(address, user, password, ca string) string {
	_, port, _ := net.SplitHostPort(address)
	return fmt.Sprintf("Host localhost\nPort %s\nUser %s\nPass %q\nSSLType IMAPS\nCertificateFile %s", port, user, password, ca)
}

func (s *service) migrationState(t *testing.T, domain string) (v struct {
	State     string
	Accounts  int
	Passwords int `json:"passwords_to_come"`
	Mail      int `json:"mail_to_come"`
	Details   []struct {
		Address  string
		Progress struct {
			Phase, By, Error string
			Rounds           int
			Copied, Of       int64
		}
	}
}) {
	t.Helper()
	check(t, json.Unmarshal([]byte(s.shoalctl(t, "migration", "show", domain, "--json")), &v))
	return v
}

// A domain moves from Debian's Dovecot: users log in here with the passwords that only Dovecot knows; accounts are made; mail comes with UIDs,
// flags, keywords, dates, subscriptions and special uses; an mbsync that knows it from Dovecot downloads nothing again; what happens at the
// old server until the end is brought as well. Then Dovecot is gone, and the passwords are ours.
func TestMigrationAtLogin(t *testing.T) {
	old := startOldServer(t, map[string]string{"ann@old.test": "anns old password", "bob@old.test": "bobs old password"})
	s := own(t, "env", "SSL_CERT_FILE="+old.ca)
	day := time.Date(2024, 1, 1, 10, 0, 0, 0, time.UTC)
	c := old.imap(t, "ann@old.test", "anns old password")
	for _, name := range []string{"Gesendete Post", "Lists.Go", "Grüße aus Köln", "leer"} {
		check(t, c.Create(name, nil).Wait())
	}
	for _, name := range []string{"INBOX", "Gesendete Post", "Lists.Go"} {
		check(t, c.Subscribe(name).Wait())
	}
	for i := range 250 {
		flags := [][]imap.Flag{{}, {imap.FlagSeen}, {imap.FlagSeen, imap.FlagAnswered, "$Label1"}, {imap.FlagFlagged, "work", "$Forwarded"}}[i%4]
		appendTo(t, c, "INBOX", letter(i, strings.Repeat(fmt.Sprintf("line of letter %d\r\n", i), i%50*3)), day.Add(time.Duration(i)*time.Hour), flags...)
	}
	for i, name := range []string{"Gesendete Post", "Lists.Go", "Grüße aus Köln"} {
		appendTo(t, c, name, letter(300+i, "text\r\n"), day, imap.FlagSeen, imap.Flag("key"+fmt.Sprint(i)))
	}
	_, err := c.Select("INBOX", nil).Wait()
	check(t, err)
	check(t, c.Store(imap.UIDSetNum(3, 40, 250), &imap.StoreFlags{Op: imap.StoreFlagsAdd, Flags: []imap.Flag{imap.FlagDeleted}}, nil).Close())
	check(t, c.Expunge().Close())
	ann := user{Address: "ann@old.test", Password: "anns old password"}
	client := &syncer{folder: t.TempDir()}
	check(t, os.Mkdir(filepath.Join(client.folder, "mail"), 0o700))
	if did := client.run(t, mbsyncStore(old.address, ann.Address, ann.Password, old.ca)); did != "250 came, 0 changed, 0 went" {
		t.Fatalf("the first sync with Dovecot did %s", did)
	}
	want := snapshot(t, c)

	s.shoalctl(t, "domain", "add", "old.test")
	s.shoalctl(t, "migration", "start", "old.test", "--server", old.address, "--create")
	refused := func(address, password string) {
		t.Helper()
		conn, err := tls.Dial("tcp", s.address("imaps", "box1"), s.tls(t))
		check(t, err)
		x := imapclient.New(conn, nil)
		defer x.Close()
		if err := x.Login(address, password).Wait(); err == nil {
			t.Errorf("%s logs in with %q", address, password)
		}
	}
	refused("ann@old.test", "a wrong password")
	refused("nobody@old.test", "anns old password")
	n := s.oldClient(t, ann, "box1")
	sameMail(t, "after the first login", snapshot(t, n), want)
	if did := client.run(t, mbsyncStore(s.address("imaps", "box2"), ann.Address, ann.Password, s.CAFile)); did != "0 came, 0 changed, 0 went" {
		t.Errorf("the first sync here did %s", did)
	}
	refused("ann@old.test", "a wrong password")
	if v := s.migrationState(t, "old.test"); v.Accounts != 1 || v.Passwords != 0 || v.Mail != 1 || v.Details[0].Progress.Rounds < 1 || v.Details[0].Progress.Copied != 250 || v.Details[0].Progress.Of != 250 {
		t.Errorf("progress: %+v", v)
	}

	// Until the end the old server is used as well.
	check(t, c.Store(imap.UIDSetNum(1, 2), &imap.StoreFlags{Op: imap.StoreFlagsAdd, Flags: []imap.Flag{imap.FlagFlagged, "later"}}, nil).Close())
	check(t, c.Store(imap.UIDSetNum(4), &imap.StoreFlags{Op: imap.StoreFlagsSet, Flags: nil}, nil).Close())
	check(t, c.Store(imap.UIDSetNum(5, 6), &imap.StoreFlags{Op: imap.StoreFlagsAdd, Flags: []imap.Flag{imap.FlagDeleted}}, nil).Close())
	check(t, c.Expunge().Close())
	appendTo(t, c, "INBOX", letter(400, "late\r\n"), day)
	check(t, c.Create("neu", nil).Wait())
	appendTo(t, c, "neu", letter(401, "in a new folder\r\n"), day)
	want = snapshot(t, c)
	// bob has never come: the end waits for him, until he is given up.
	s.shoalctl(t, "migration", "add", "bob@old.test")
	if out, err := s.tryShoalctl(t, "migration", "finish", "old.test", "--within", "20s"); err == nil || !strings.Contains(out, "bob@old.test (password, mail)") {
		t.Errorf("the end without bob: %v %s", err, out)
	}
	bob := user{Address: "bob@old.test", Password: "bobs old password"}
	b := s.oldClient(t, bob, "box2")
	if got := snapshot(t, b); len(got["INBOX"]) == 0 {
		t.Errorf("bob has %q", got)
	}
	s.shoalctl(t, "migration", "finish", "old.test", "--within", "60s")
	sameMail(t, "after the end", snapshot(t, s.oldClient(t, ann, "box2")), want)
	old.end()
	sameMail(t, "without the old server", snapshot(t, s.oldClient(t, ann, "box1")), want)
	_ = s.oldClient(t, bob, "box1")
	if did := client.run(t, mbsyncStore(s.address("imaps", "box2"), ann.Address, ann.Password, s.CAFile)); did != "2 came, 3 changed, 2 went" {
		t.Errorf("the sync after the end did %s", did)
	}
	if out, err := s.tryShoalctl(t, "migration", "show", "old.test"); err == nil {
		t.Errorf("a finished migration is shown: %s", out)
	}
}

// heldLine is a way to a server on which nothing comes back any more after so many bytes, until it is released.
type heldLine struct {
	address string
	held    chan struct{}
	free    chan struct{}
	left    atomic.Int64
}

func holdAfter(t *testing.T, target string, bytes int64) *heldLine {
	t.Helper()
	h := &heldLine{held: make(chan struct{}), free: make(chan struct{})}
	h.left.Store(bytes)
	h.address = ports.Take(t, 1)[0]
	l, err := net.Listen("tcp", h.address)
	check(t, err)
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			o, err := net.Dial("tcp", target)
			if err != nil {
				c.Close()
				continue
			}
			go func() { _, _ = io.Copy(o, c); o.Close() }()
			go func() { _, _ = io.Copy(c, io.TeeReader(o, h)); c.Close(); o.Close() }()
		}
	}()
	return h
}

// Write counts what goes by, and holds it.
func (h *heldLine) Write(b []byte) (int, error) {
	if left := h.left.Add(-int64(len(b))); left < 0 {
		if left+int64(len(b)) >= 0 {
			close(h.held)
		}
		<-h.free
	}
	return len(b), nil
}

func (h *heldLine) release() { close(h.free) }

// With a master user mail is copied before anybody logs in. The box that copies is killed in the middle; another goes on, or itself when it is
// back; in the end each message is there once.
func TestMigrationOutlivesItsBoxes(t *testing.T) {
	old := startOldServer(t, map[string]string{"carl": "carls old password"})
	c := old.imap(t, "carl", "carls old password")
	const count = 600
	check(t, c.Subscribe("INBOX").Wait())
	for i := range count {
		appendTo(t, c, "INBOX", letter(i, strings.Repeat("x", i%3000)+"\r\n"), time.Unix(1_700_000_000+int64(i), 0))
	}
	s := own(t, "env", "SSL_CERT_FILE="+old.ca)
	s.shoalctl(t, "domain", "add", "old.test")
	secret := put(t, filepath.Join(t.TempDir(), "secret"), 0o600, "master key\n")
	s.shoalctl(t, "migration", "add", "carl@old.test")
	line := holdAfter(t, old.plain, 80<<10)
	s.shoalctl(t, "migration", "start", "old.test", "--server", "localhost:"+portOf(line.address), "--starttls", "--local-part", "--master", "master", "--master-password-file", secret)
	select {
	case <-line.held:
	case <-time.After(time.Minute):
		t.Fatal("nothing is copied: ", s.migrationState(t, "old.test"))
	}
	var by string
	wait(t, 60*time.Second, func() bool {
		if v := s.migrationState(t, "old.test"); len(v.Details) > 0 {
			by = v.Details[0].Progress.By
		}
		return s.pid(by) > 0
	}, func() string { return fmt.Sprint("nobody copies: ", s.migrationState(t, "old.test")) })
	process, err := os.FindProcess(s.pid(by))
	check(t, err)
	check(t, process.Kill())
	t.Logf("%s was killed while it copied", by)
	line.release()
	s.waitUp(t)
	s.shoalctl(t, "migration", "finish", "old.test", "--within", "5m", "--force")
	s.shoalctl(t, "account", "password", "carl@old.test", "--password-file", put(t, filepath.Join(t.TempDir(), "p"), 0o600, "carls new password\n"))
	n := s.oldClient(t, user{Address: "carl@old.test", Password: "carls new password"}, "box1")
	sameMail(t, "in the end", snapshot(t, n), snapshot(t, c))
}
