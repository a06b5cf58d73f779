package cluster

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/emersion/go-smtp"
)

// elsewhere is another mail system, which takes mail only while it is open.
type elsewhere struct {
	address string

	mu      sync.Mutex
	open    bool
	refused int
	got     map[string]int // by subject
}

func newElsewhere(t *testing.T) *elsewhere {
	t.Helper()
	e := &elsewhere{got: map[string]int{}}
	srv := smtp.NewServer(smtp.BackendFunc(func(*smtp.Conn) (smtp.Session, error) { return e, nil }))
	srv.Domain = "mx.elsewhere.example"
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	e.address = l.Addr().String()
	go srv.Serve(l)
	t.Cleanup(func() { srv.Close() })
	return e
}

func (e *elsewhere) setOpen(open bool) {
	e.mu.Lock()
	e.open = open
	e.mu.Unlock()
}

// arrived gives how often each message came.
func (e *elsewhere) arrived() map[string]int {
	e.mu.Lock()
	defer e.mu.Unlock()
	all := map[string]int{}
	for k, v := range e.got {
		all[k] = v
	}
	return all
}

func (e *elsewhere) Mail(string, *smtp.MailOptions) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if !e.open {
		e.refused++
		return &smtp.SMTPError{Code: 450, EnhancedCode: smtp.EnhancedCode{4, 3, 2}, Message: "come back later"}
	}
	return nil
}

func (e *elsewhere) Rcpt(to string, _ *smtp.RcptOptions) error {
	if strings.HasPrefix(to, "nobody@") {
		return &smtp.SMTPError{Code: 550, EnhancedCode: smtp.EnhancedCode{5, 1, 1}, Message: "no such user"}
	}
	return nil
}

func (e *elsewhere) Data(r io.Reader) error {
	b, err := io.ReadAll(r)
	if err != nil {
		return err
	}
	e.mu.Lock()
	e.got[header(b, "Subject")]++
	e.mu.Unlock()
	return nil
}

func (e *elsewhere) Reset()        {}
func (e *elsewhere) Logout() error { return nil }

// submit sends a message of u's over one switch.
func (s *service) submit(t *testing.T, u user, server, to, text string) {
	t.Helper()
	command(t, text, "curl", "-sS", "--ssl-reqd", "--cacert", s.CAFile, "smtp://localhost:"+portOf(s.address("submission", server))+"/client.example.org",
		"--user", u.Address+":"+u.Password, "--mail-from", u.Address, "--mail-rcpt", to, "-T", "-")
}

// queued is how many entries the switches that answer have.
func (s *service) queued(t *testing.T) (total int, out string) {
	t.Helper()
	out, err := s.tryShoalctl(t, "queue", "list", "--json")
	var v struct{ Total int }
	if json.NewDecoder(strings.NewReader(out)).Decode(&v) != nil {
		t.Fatalf("shoalctl queue list: %v\n%s", err, out)
	}
	return v.Total, out
}

// eventually repeats f until it returns nil.
func eventually(t *testing.T, within time.Duration, f func() error) {
	t.Helper()
	tick := time.NewTicker(250 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(within)
	for {
		err := f()
		if err == nil {
			return
		}
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatal(err)
		}
	}
}

// A switch with queued mail dies for good, and the other one delivers it. A refusal comes back to the sender as a report.
func TestQueueOfADeadSwitch(t *testing.T) {
	e := newElsewhere(t)
	t.Setenv("SHOAL_SMART_HOST", e.address)
	s := own(t)
	u := s.Users[0]
	const each = 10
	for i := range each {
		for _, server := range []string{"switch1", "switch2"} {
			s.submit(t, u, server, "you@elsewhere.example", message(fmt.Sprintf("%s-%d", server, i), 2000))
		}
	}
	s.submit(t, u, "switch1", "nobody@elsewhere.example", message("to-nobody", 500))
	if n, out := s.queued(t); n != 2*each+1 {
		t.Fatalf("%d entries are queued:\n%s", n, out)
	}
	eventually(t, 30*time.Second, func() error { // all were tried: none is half sent when the switch dies
		e.mu.Lock()
		defer e.mu.Unlock()
		if e.refused < 2*each+1 {
			return fmt.Errorf("only %d attempts", e.refused)
		}
		return nil
	})

	// switch1 is killed and cannot come back: its configuration is gone.
	config := filepath.Join(s.data, "conf", "switch1.hcl")
	if err := os.Rename(config, config+".away"); err != nil {
		t.Fatal(err)
	}
	defer os.Rename(config+".away", config)
	if err := syscall.Kill(s.pid("switch1"), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	e.setOpen(true)
	eventually(t, 90*time.Second, func() error {
		_, _ = s.tryShoalctl(t, "queue", "retry", "--all") // it names switch1 as the one that does not answer
		if got := e.arrived(); len(got) < 2*each {
			return fmt.Errorf("%d of %d messages arrived", len(got), 2*each)
		}
		return nil
	})
	for id, n := range e.arrived() {
		if n != 1 {
			t.Errorf("%s arrived %d times", id, n)
		}
	}
	eventually(t, 60*time.Second, func() error {
		_, _ = s.tryShoalctl(t, "queue", "retry", "--all")
		for _, m := range fetchAll(t, s.imap(t, u, "box1", nil), "INBOX") {
			if text := string(m); strings.Contains(text, "Final-Recipient: rfc822; nobody@elsewhere.example") && strings.Contains(text, "550 5.1.1 no such user") {
				return nil
			}
		}
		return fmt.Errorf("no report about the refused recipient")
	})
	eventually(t, 30*time.Second, func() error {
		if n, out := s.queued(t); n != 0 {
			return fmt.Errorf("%d entries are left:\n%s", n, out)
		}
		return nil
	})
}
