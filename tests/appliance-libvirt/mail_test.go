package libvirt

import (
	"bufio"
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// Addresses follow from role and number (module network).
const (
	balancer = "10.20.1.1"
	master   = "10.20.4.1"
	box3     = "10.20.3.3"
)

const (
	rootPassword   = "rootpassword-of-the-test"
	masterPassword = "password-of-the-master-itself"
	user           = "alice@example.test"
	password       = "correct-horse-battery-staple"
)

// send sends a mail with swaks through a balancer's port 25.
func send(subject string) error {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	out, err := exec.CommandContext(ctx, "swaks", "--server", balancer, "--from", "bob@elsewhere.test", "--to", user, "--header", "Subject: "+subject,
		"--timeout", "100", "--silent", "1", "--helo", "client.elsewhere.test").CombinedOutput()
	if err != nil {
		return fmt.Errorf("swaks: %w: %s", err, out)
	}
	return nil
}

// curl asks an IMAP server over TLS; its certificate is the machine's own, so that the name is not looked at.
func curl(ca, host, path string, more ...string) (string, error) {
	args := append([]string{"-sS", "--max-time", "100", "--cacert", ca, "--insecure", "-u", user + ":" + password}, more...)
	out, err := exec.Command("curl", append(args, "imaps://"+host+"/"+path)...).CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("curl: %w: %s", err, out)
	}
	return string(out), nil
}

// found says whether a mail with a subject is in the INBOX, as a server tells.
func found(ca, host, subject string) error {
	out, err := curl(ca, host, "INBOX", "-X", fmt.Sprintf("SEARCH SUBJECT %q", subject))
	if err == nil && len(strings.Fields(strings.TrimPrefix(strings.TrimSpace(out), "* SEARCH"))) == 0 {
		err = fmt.Errorf("no mail %q: %s", subject, out)
	}
	return err
}

// idler is a client that stays connected: it idles, and is told of new mail.
type idler struct {
	mu     sync.Mutex
	exists int // the last number of messages that it was told
	err    error
	done   chan struct{}
	c      net.Conn
}

// idle logs in, selects INBOX and idles. The connection is over TLS, through the balancer.
func idle(t *testing.T) *idler {
	t.Helper()
	c, err := tls.DialWithDialer(&net.Dialer{Timeout: time.Minute}, "tcp", balancer+":993", &tls.Config{InsecureSkipVerify: true}) //nolint:gosec // the machine's own certificate has another name
	if err != nil {
		t.Fatal(err)
	}
	i := &idler{c: c, done: make(chan struct{})}
	r := bufio.NewReader(c)
	line := func(command, want string) {
		t.Helper()
		if err := c.SetDeadline(time.Now().Add(2 * time.Minute)); err != nil {
			t.Fatal(err)
		}
		if command != "" {
			if _, err := fmt.Fprintf(c, "%s\r\n", command); err != nil {
				t.Fatal(err)
			}
		}
		for {
			s, err := r.ReadString('\n')
			if err != nil {
				t.Fatalf("%s: %v", strings.Fields(command + " greeting")[0], err)
			}
			if strings.HasPrefix(s, want) {
				return
			}
			if strings.HasPrefix(s, "a NO") || strings.HasPrefix(s, "a BAD") {
				t.Fatalf("%s: %s", command, s)
			}
		}
	}
	line("", "* OK")
	line("a LOGIN "+user+" "+password, "a OK")
	line("a SELECT INBOX", "a OK")
	line("a IDLE", "+")
	if err := c.SetDeadline(time.Time{}); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(i.done)
		for {
			s, err := r.ReadString('\n')
			i.mu.Lock()
			if err != nil || strings.HasPrefix(s, "* BYE") {
				i.err = fmt.Errorf("the connection ended: %s %v", strings.TrimSpace(s), err)
				i.mu.Unlock()
				return
			}
			var n int
			if _, err := fmt.Sscanf(s, "* %d EXISTS", &n); err == nil {
				i.exists = n
			}
			i.mu.Unlock()
		}
	}()
	return i
}

// state is how many messages it knows of, and whether it is still connected.
func (i *idler) state() (int, error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.exists, i.err
}

func (i *idler) close() {
	i.c.Close()
	<-i.done
}

// flow sends mails one after the other until it is ended, and gives what was sent and what went wrong.
func flow() (end func() (sent []string, wrong []error)) {
	stop, done := make(chan struct{}), make(chan struct{})
	var sent []string
	var wrong []error
	go func() {
		defer close(done)
		for n := 1; ; n++ {
			select {
			case <-stop:
				return
			case <-time.After(2 * time.Second): // a steady load, not all that the machines can
			}
			subject := fmt.Sprintf("flow-%d-end", n)
			if err := send(subject); err != nil {
				wrong = append(wrong, fmt.Errorf("%s: %w", subject, err))
			} else {
				sent = append(sent, subject)
			}
		}
	}()
	return func() ([]string, []error) {
		close(stop)
		<-done
		return sent, wrong
	}
}

func (s *stack) ca() string { return filepath.Join(s.operator, "ca.crt") }
