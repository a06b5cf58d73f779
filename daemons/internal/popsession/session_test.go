package popsession

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"shoal/daemons/internal/mailstore"
)

// mails are the messages that testdata/mail.txt counts on.
var mails = []string{
	"Subject: one\r\n\r\nfirst\r\n.dot\r\n...\r\n\r\nlast\r\n",
	"Subject: two\n\nbare\nline ends\n.\nno end",
	"Subject: three, no body\r\n\r\n",
}

func script(t *testing.T, name string) string {
	t.Helper()
	b, err := os.ReadFile("testdata/" + name)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestLogin(t *testing.T) {
	newRig(t, nil).run(script(t, "login.txt"))
}

func TestMail(t *testing.T) {
	r := newRig(t, nil)
	r.deliver("alice", mails...)
	r.run(script(t, "mail.txt"))
	// Message 3 was deleted, 1 and 2 were retrieved.
	if got := r.state("alice"); got != "1s 2s" {
		t.Errorf("the INBOX has %q", got)
	}
	if r.value("shoal_pop_removed_messages_total") != 1 || r.value("shoal_pop_retrieved_messages_total") != 2 {
		t.Error("removed or retrieved messages are not counted")
	}
}

const in = `
open 1 pops
S1: +OK {{.*}}
C1!: USER alice\r\nPASS secret word\r\n
S1: +OK {{.*}}
S1: +OK {{.*}}
`

// A session that does not end with QUIT changes nothing.
func TestOnlyQuitDeletes(t *testing.T) {
	for name, end := range map[string]string{
		"closed": "close 1",
		"half":   "halfclose 1\neof 1",
		"bad":    "repeat 10\nC1: nonsense\nS1: -ERR Unknown command\nend\nS1: -ERR Too many bad commands\neof 1",
	} {
		r := newRig(t, nil)
		r.deliver("alice", mails...)
		r.run(in + "C1: RETR 1\nS1~: .\nC1: DELE 1\nS1: +OK {{.*}}\n" + end)
		r.srv.Close()
		if got := r.state("alice"); got != "1 2 3" {
			t.Errorf("%s: the INBOX has %q", name, got)
		}
	}
}

// The session's view stays while others expunge and deliver, and its own deletion at QUIT is right after that.
func TestSnapshot(t *testing.T) {
	r := newRig(t, nil)
	r.deliver("alice", mails...)
	conn, err := r.dialTLS()
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	say := func(command, want string) string {
		t.Helper()
		if _, err := io.WriteString(conn, command); err != nil {
			t.Fatal(err)
		}
		var got strings.Builder
		for b := make([]byte, 1); !strings.HasSuffix(got.String(), want); {
			if err := conn.SetReadDeadline(time.Now().Add(5 * time.Second)); err != nil {
				t.Fatal(err)
			}
			if _, err := conn.Read(b); err != nil {
				t.Fatalf("%q: %q, then %v; want %q", command, got.String(), err, want)
			}
			got.Write(b)
		}
		return got.String()
	}
	say("", "ready\r\n")
	say("USER alice\r\nPASS secret word\r\n", "3 messages (106 octets)\r\n")
	if _, err := r.inbox("alice").Expunge(context.Background(), mailstore.NewUIDSet(1), false); err != nil {
		t.Fatal(err)
	}
	r.deliver("alice", mails[0])
	if got := r.state("alice"); got != "2 3 4" {
		t.Fatalf("the INBOX has %q", got)
	}
	say("STAT\r\n", "+OK 3 106\r\n")
	say("RETR 1\r\n", "last\r\n.\r\n") // expunged, and still there
	say("DELE 1\r\nDELE 2\r\n", "Message 2 will be deleted\r\n")
	say("QUIT\r\n", "Bye\r\n")
	if got := r.state("alice"); got != "3 4" {
		t.Errorf("the INBOX has %q", got)
	}
}

func TestLimits(t *testing.T) {
	r := newRig(t, func(o *Options) {
		o.Limits.AllowPlain = true
		o.Limits.LoginFailures = 2
		o.Limits.PreLoginCommands = 5
		o.Limits.MaxPerUser = 1
	})
	r.run(`
# too long a line, and NUL and bare CR in one; then the connection goes on
open 1 pop
S1: +OK {{.*}}
C1: ${x*1025}
S1: -ERR The line is longer than 1024 bytes
C1: USER ${x*2000}
S1: -ERR The line is longer than 1024 bytes
C1!: NO\x00OP\r\n
S1: -ERR The line has a NUL or a bare CR in it
C1!: NO\rOP\r\n
S1: -ERR The line has a NUL or a bare CR in it
C1: QUIT
S1: +OK Bye
eof 1
# a line without an end
open 2 pop
S2: +OK {{.*}}
C2!: ${x*400000}
S2: -ERR Line too long
# failed logins
open 3 pop
S3: +OK {{.*}}
repeat 2
C3: AUTH PLAIN AGFsaWNlAHdyb25n
S3: -ERR [AUTH] {{.*}}
end
S3: -ERR [AUTH] Too many failed logins
eof 3
# commands before a login
open 4 pop
S4: +OK {{.*}}
repeat 5
C4: AUTH NONE
S4: -ERR {{.*}}
end
S4: -ERR Too many commands before a login
eof 4
# connections of one user
open 5 pop
S5: +OK {{.*}}
C5!: USER alice\r\nPASS secret word\r\n
S5: +OK {{.*}}
S5: +OK {{.*}}
open 6 pop
S6: +OK {{.*}}
C6!: USER alice\r\nPASS secret word\r\n
S6: +OK {{.*}}
S6: -ERR [SYS/TEMP] Too many connections of this user{{.*}}
C5: QUIT
S5: +OK Bye
eof 5
`)
}

func TestMaxPerAddress(t *testing.T) {
	r := newRig(t, func(o *Options) { o.Limits.MaxPerAddress = 1 })
	r.run(`
open 1 pop
S1: +OK {{.*}}
open 2 pop
S2: -ERR [SYS/TEMP] Too many connections{{.*}}
eof 2
C1: QUIT
S1: +OK Bye
`)
}

func TestTimeouts(t *testing.T) {
	r := newRig(t, func(o *Options) {
		o.Limits.LoginTimeout = 50 * time.Millisecond
	})
	r.run("open 1 pop\nS1: +OK {{.*}}\neof 1\nopen 2 pop\nS2: +OK {{.*}}\nC2!: USE\neof 2\n")
	r.srv.Close()
	if n := r.value("shoal_pop_timeouts_total"); n != 2 {
		t.Errorf("%v time-outs are counted, want 2", n)
	}
}

// A shutdown ends the sessions that wait for their client at once, and deletes nothing.
func TestShutdown(t *testing.T) {
	r := newRig(t, nil)
	r.deliver("alice", mails...)
	conn, err := r.dialTLS()
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := io.WriteString(conn, "USER alice\r\nPASS secret word\r\nDELE 1\r\n"); err != nil {
		t.Fatal(err)
	}
	answers := make([]byte, 0, 1000)
	for b := make([]byte, 100); strings.Count(string(answers), "\r\n") < 4; {
		n, err := conn.Read(b)
		if err != nil {
			t.Fatal(err)
		}
		answers = append(answers, b[:n]...)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	if err := r.srv.Shutdown(ctx); err != nil {
		t.Fatal(err)
	}
	if n, err := conn.Read(make([]byte, 1)); n > 0 || err == nil {
		t.Errorf("%d bytes, %v after the shutdown", n, err)
	}
	if _, err := net.Dial("tcp", r.addr); err == nil {
		t.Error("connections are accepted after the shutdown")
	}
	if got := r.state("alice"); got != "1 2 3" {
		t.Errorf("the INBOX has %q", got)
	}
}

// A message whose file is gone: a clear error, and the session goes on.
func TestDamagedMessage(t *testing.T) {
	r := newRig(t, nil)
	r.deliver("alice", mails...)
	removed := 0
	if err := filepath.WalkDir(r.volume, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() && strings.Contains(path, "/m/") {
			if st, err := d.Info(); err == nil && st.Size() == int64(len(mails[1])) {
				removed++
				return os.Remove(path)
			}
		}
		return err
	}); err != nil || removed != 1 {
		t.Fatal(removed, err)
	}
	r.run(in + "C1: RETR 2\nS1: -ERR [SYS/PERM] The message is damaged\nC1: RETR 3\nS1: +OK {{.*}}\nS1~: .\nC1: QUIT\nS1: +OK Bye\neof 1")
}

func TestStuffer(t *testing.T) {
	for _, c := range []struct {
		in   string
		left int
		want string
	}{
		{"", -1, ".\r\n"},
		{".", -1, "..\r\n.\r\n"},
		{"a\r\n\r\n.\r\n", -1, "a\r\n\r\n..\r\n.\r\n"},
		{"a\n\nb\r\nc", -1, "a\r\n\r\nb\r\nc\r\n.\r\n"},
		{"a\r", -1, "a\r\n.\r\n"},
		{"a\rb\r\r\n", -1, "a\rb\r\r\n.\r\n"},
		{"a\r\n\r\n1\r\n2\r\n", 1, "a\r\n\r\n1\r\n.\r\n"},
		{"a\r\n\r\n1\r\n2\r\n", 0, "a\r\n\r\n.\r\n"},
		{"a\n\n1\n2\n", 5, "a\r\n\r\n1\r\n2\r\n.\r\n"},
		{"\r\nbody\r\n", 0, "\r\n.\r\n"},
	} {
		for size := 1; size <= len(c.in)+1; size++ {
			var out strings.Builder
			s := stuffer{w: newWriter(&out), left: c.left}
			if err := s.copy(&pieces{c.in, size}); err != nil {
				t.Fatal(err)
			}
			if err := s.w.Flush(); err != nil {
				t.Fatal(err)
			}
			if out.String() != c.want {
				t.Errorf("%q, %d lines, in pieces of %d: %q, want %q", c.in, c.left, size, out.String(), c.want)
			}
		}
	}
}

// A foreign client fetches and deletes everything, byte for byte.
func TestFetchmail(t *testing.T) {
	fetchmail, err := exec.LookPath("fetchmail")
	if err != nil {
		t.Fatal("fetchmail is needed for the tests: ", err)
	}
	r := newRig(t, func(o *Options) { o.Limits.AllowPlain = true })
	var want []string
	for i := range 30 {
		want = append(want, fmt.Sprintf("From: a@example.test\r\nSubject: %d\r\n\r\n.%s\r\n", i, strings.Repeat("line\r\n..\r\n", i*20)))
	}
	r.deliver("alice", want...)
	dir := t.TempDir()
	_, port, err := net.SplitHostPort(r.addr)
	if err != nil {
		t.Fatal(err)
	}
	rc := fmt.Sprintf("poll 127.0.0.1 proto POP3 port %s auth password user alice password \"secret word\" sslproto \"\" no rewrite nokeep fetchall mda \"sh -c 'cat >> %s/mail; echo END >> %s/mail'\"\n", port, dir, dir)
	if err := os.WriteFile(dir+"/rc", []byte(rc), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(fetchmail, "-f", dir+"/rc", "--invisible", "-i", dir+"/ids", "--pidfile", dir+"/pid")
	cmd.Env = append(os.Environ(), "HOME="+dir, "FETCHMAILHOME="+dir)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("fetchmail: %v\n%s", err, out)
	}
	got, err := os.ReadFile(dir + "/mail")
	if err != nil {
		t.Fatal(err)
	}
	all := strings.ReplaceAll(strings.Join(want, "END\n")+"END\n", "\r\n", "\n")
	if string(got) != all {
		t.Errorf("fetched %d bytes, want %d: %.300q", len(got), len(all), got)
	}
	if got := r.state("alice"); got != "" {
		t.Errorf("the INBOX still has %q", got)
	}
}

func TestNewNeedsItsParts(t *testing.T) {
	if _, err := New(Options{}); err == nil {
		t.Error("a server without store, auth and log")
	}
	s, err := New(Options{Store: newRig(t, nil).store, Auth: users{}, Log: newRig(t, nil).srv.log})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.ServeTLS(nil); err == nil {
		t.Error("ServeTLS without a certificate")
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Serve(l); err != nil {
		t.Errorf("Serve after Close: %v", err)
	}
	if _, err := l.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("the listener is open after Serve: %v", err)
	}
}
