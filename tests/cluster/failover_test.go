package cluster

import (
	"bufio"
	"crypto/tls"
	"encoding/csv"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/textproto"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/emersion/go-imap/v2"
	"github.com/emersion/go-imap/v2/imapclient"
	"github.com/go-ldap/ldap/v3"
)

// Under the load, each client begins something every pace; so many messages are to have gone through while a
// server is down, and again after it is back.
const (
	pace       = 50 * time.Millisecond
	whileDown  = 60
	afterwards = 60
)

// downed keeps a server down: without its configuration it does not start again. It returns what brings it back.
func (s *service) downed(t *testing.T, server string, kill func(pid int)) (back func()) {
	t.Helper()
	conf := filepath.Join(s.data, "conf", server+".hcl")
	if err := os.Rename(conf, conf+".away"); err != nil {
		t.Fatal(err)
	}
	pid := s.pid(server)
	if pid == 0 {
		t.Fatalf("%s does not run", server)
	}
	kill(pid)
	var once sync.Once
	back = func() {
		once.Do(func() {
			if err := os.Rename(conf+".away", conf); err != nil {
				t.Error(err)
			}
		})
	}
	t.Cleanup(back)
	return back
}

func kill9(pid int) { _ = syscall.Kill(pid, syscall.SIGKILL) }

// atBalancer gives the states of a server's places at the balancer, as its runtime socket shows them: "be_imap" to "UP".
func (s *service) atBalancer(t *testing.T, server string) map[string]string {
	t.Helper()
	c, err := net.Dial("unix", filepath.Join(s.data, "run", "haproxy.sock"))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := io.WriteString(c, "show stat -1 4 -1\n"); err != nil {
		t.Fatal(err)
	}
	rows, err := csv.NewReader(c).ReadAll()
	if err != nil || len(rows) == 0 {
		t.Fatalf("the balancer's statistics: %v", err)
	}
	name, state := slices.Index(rows[0], "svname"), slices.Index(rows[0], "status")
	all := map[string]string{}
	for _, row := range rows[1:] {
		if row[name] == server && strings.HasPrefix(row[0], "be_") {
			all[row[0]], _, _ = strings.Cut(row[state], " ") // "UP 1/2" is on the way down
		}
	}
	return all
}

// becomes waits until the balancer shows a server in one state everywhere.
func (s *service) becomes(t *testing.T, server, state string) time.Duration {
	t.Helper()
	begin := time.Now()
	var now map[string]string
	wait(t, time.Minute, func() bool {
		now = s.atBalancer(t, server)
		for _, is := range now {
			if is != state {
				return false
			}
		}
		return len(now) > 0
	}, func() string { return fmt.Sprintf("%s %s at the balancer: %v", server, state, now) })
	return time.Since(begin)
}

// drainQueue has everything that is queued tried now, until nothing is left.
func (s *service) drainQueue(t *testing.T) {
	t.Helper()
	var list struct{ Total int }
	wait(t, 90*time.Second, func() bool {
		out := s.shoalctl(t, "queue", "list", "--json")
		if err := json.Unmarshal([]byte(out), &list); err != nil {
			t.Fatalf("shoalctl queue list: %v: %s", err, out)
		}
		if list.Total > 0 {
			s.shoalctl(t, "queue", "retry", "--all")
		}
		return list.Total == 0
	}, func() string { return fmt.Sprintf("an empty queue: %d entries", list.Total) })
}

// load is a steady number of clients of each protocol. Each uses one connection for as long as it works, and
// a new one at once when it does not.
type load struct {
	s        *service
	u        user
	stop     chan struct{}
	clients  sync.WaitGroup
	tls      *tls.Config
	rootPass string

	mu      sync.Mutex
	sent    map[string]*sent
	outages map[string]time.Duration // the longest time without an answer, by protocol, since it was last taken
	faults  map[string]int           // failed attempts, likewise
	wrong   []string

	acknowledged atomic.Int64
	seen         atomic.Int64 // the most messages that any reader has seen
	done         map[string]*atomic.Int64
}

// client runs one client until the load stops. use makes one request, on a new connection if there is none; a
// failure closes it.
func (l *load) client(protocol string, use func() error) {
	done := l.done[protocol]
	l.clients.Go(func() {
		last := time.Now()
		for {
			begin := time.Now()
			err := use()
			l.mu.Lock()
			if err != nil {
				l.faults[protocol]++
			} else {
				l.outages[protocol] = max(l.outages[protocol], time.Since(last)-pace)
				last = time.Now()
				done.Add(1)
			}
			l.mu.Unlock()
			next := pace - time.Since(begin)
			if err != nil {
				next = 5 * time.Millisecond // at once, and yet not a loop
			}
			select {
			case <-l.stop:
				return
			case <-time.After(max(0, next)):
			}
		}
	})
}

// take returns what was measured since the last time.
func (l *load) take() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	var parts []string
	for _, protocol := range []string{"SMTP", "IMAP", "POP3", "LDAP"} {
		parts = append(parts, fmt.Sprintf("%s %v (%d failed attempts)", protocol, l.outages[protocol].Round(time.Millisecond), l.faults[protocol]))
	}
	clear(l.outages)
	clear(l.faults)
	return strings.Join(parts, ", ")
}

func (l *load) complain(format string, args ...any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.wrong = append(l.wrong, fmt.Sprintf(format, args...))
}

func (s *service) load(t *testing.T, u user) *load {
	t.Helper()
	root, err := os.ReadFile(filepath.Join(s.data, "secrets", "root"))
	if err != nil {
		t.Fatal(err)
	}
	l := &load{s: s, u: u, stop: make(chan struct{}), tls: s.tls(t), rootPass: strings.TrimSpace(string(root)),
		sent: map[string]*sent{}, outages: map[string]time.Duration{}, faults: map[string]int{},
		done: map[string]*atomic.Int64{"SMTP": {}, "IMAP": {}, "POP3": {}, "LDAP": {}}}
	for n := range 3 {
		l.sender(n)
		l.reader()
	}
	l.poll()
	l.search()
	return l
}

// sender sends one message after the other on one connection, and one that got no 250 again.
func (l *load) sender(n int) {
	var c *smtpSession
	i, id, state := 0, "", (*sent)(nil)
	l.client("SMTP", func() (err error) {
		defer func() {
			if err != nil && c != nil {
				c.Close()
				c = nil
			}
		}()
		if c == nil {
			if c, err = dialSMTP(l.s.address("smtp")); err != nil {
				c = nil
				return err
			}
		}
		if state == nil || state.acknowledged {
			i++
			id, state = fmt.Sprintf("load-%d-%d", n, i), &sent{}
			l.mu.Lock()
			l.sent[id] = state
			l.mu.Unlock()
		}
		_ = c.conn.SetDeadline(time.Now().Add(time.Minute)) // the next read says
		if err := c.begin("sender@example.org", l.u.Address); err != nil {
			return err
		}
		if err := c.finish(message(id, 500+rand.IntN(8000)), state); err != nil {
			return err
		}
		l.acknowledged.Add(1)
		return nil
	})
}

// reader looks at INBOX again and again. It never holds less than any reader has seen before, whichever box it is.
func (l *load) reader() {
	var c *imapclient.Client
	l.client("IMAP", func() (err error) {
		defer func() {
			if err != nil && c != nil {
				c.Close()
				c = nil
			}
		}()
		if c == nil {
			conn, err := tls.DialWithDialer(&net.Dialer{Timeout: 10 * time.Second}, "tcp", l.s.address("imaps"), l.tls)
			if err != nil {
				return err
			}
			c = imapclient.New(conn, nil)
			if err := c.Login(l.u.Address, l.u.Password).Wait(); err != nil {
				return err
			}
		}
		before := l.seen.Load()
		selected, err := c.Select("INBOX", &imap.SelectOptions{ReadOnly: true}).Wait()
		if err != nil {
			return err
		}
		n := int64(selected.NumMessages)
		if n < before {
			l.complain("INBOX holds %d messages; %d were there before", n, before)
		}
		for was := l.seen.Load(); n > was && !l.seen.CompareAndSwap(was, n); was = l.seen.Load() {
		}
		if n == 0 {
			return nil
		}
		whole := &imap.FetchItemBodySection{Peek: true}
		got, err := c.Fetch(imap.SeqSetNum(selected.NumMessages), &imap.FetchOptions{BodySection: []*imap.FetchItemBodySection{whole}}).Collect()
		if err != nil {
			return err
		}
		if len(got) != 1 || !strings.HasPrefix(header(got[0].FindBodySection(whole), "Subject"), "load-") {
			l.complain("message %d of INBOX: %+v", n, got)
		}
		return nil
	})
}

// poll is a POP3 client that logs in each time, as they do.
func (l *load) poll() {
	l.client("POP3", func() error {
		conn, err := tls.DialWithDialer(&net.Dialer{Timeout: 10 * time.Second}, "tcp", l.s.address("pop3s"), l.tls)
		if err != nil {
			return err
		}
		defer conn.Close()
		_ = conn.SetDeadline(time.Now().Add(30 * time.Second)) // the next read says
		c := textproto.NewReader(bufio.NewReader(conn))
		for _, line := range []string{"", "USER " + l.u.Address, "PASS " + l.u.Password, "STAT", "QUIT"} {
			if line != "" {
				if _, err := io.WriteString(conn, line+"\r\n"); err != nil {
					return err
				}
			}
			answer, err := c.ReadLine()
			if err != nil {
				return err
			}
			if !strings.HasPrefix(answer, "+OK") {
				return fmt.Errorf("%s: %s", line, answer)
			}
		}
		return nil
	})
}

// search looks the account up in the directory, on one connection.
func (l *load) search() {
	var c *ldap.Conn
	l.client("LDAP", func() (err error) {
		defer func() {
			if err != nil && c != nil {
				c.Close()
				c = nil
			}
		}()
		if c == nil {
			c, err = ldap.DialURL("ldaps://"+l.s.address("ldaps"), ldap.DialWithTLSConfig(l.tls), ldap.DialWithDialer(&net.Dialer{Timeout: 10 * time.Second}))
			if err != nil {
				c = nil
				return err
			}
			c.SetTimeout(10 * time.Second)
			if err := c.Bind("cn=admin,o=shoal", l.rootPass); err != nil {
				return err
			}
		}
		found, err := c.Search(ldap.NewSearchRequest("o=shoal", ldap.ScopeWholeSubtree, ldap.NeverDerefAliases, 0, 0, false,
			"(mail="+ldap.EscapeFilter(l.u.Address)+")", []string{"mail"}, nil))
		if err != nil {
			return err
		}
		if len(found.Entries) != 1 {
			l.complain("the directory has %d entries for %s", len(found.Entries), l.u.Address)
		}
		return nil
	})
}

// goesOn waits until so many more messages were acknowledged, and each other protocol was answered too.
func (l *load) goesOn(t *testing.T, messages int64) {
	t.Helper()
	want := map[string]int64{}
	for protocol, done := range l.done {
		want[protocol] = done.Load() + messages/4
	}
	want["SMTP"] += messages - messages/4
	wait(t, time.Minute, func() bool {
		for protocol, done := range l.done {
			if done.Load() < want[protocol] {
				return false
			}
		}
		return true
	}, func() string { return "the load goes on: " + l.take() })
}

// end stops the load. A message whose sender was interrupted is only unsure.
func (l *load) end() {
	close(l.stop)
	l.clients.Wait()
}

// Under a steady load of sends and reads one server of each kind is killed and stays down for a while: clients that
// connect again are served at once by those that are left, the balancer takes the server out and, when it is back, in
// again; nothing acknowledged is lost, and twice comes only what got no 250.
func TestServersDieUnderLoad(t *testing.T) {
	s := shared(t)
	u := s.newAccount(t)
	l := s.load(t, u)
	ended := false
	defer func() {
		if !ended {
			l.end()
		}
	}()
	l.goesOn(t, afterwards)
	t.Logf("longest time without an answer: with all servers: %s", l.take())
	for _, victim := range []string{"switch1", "box1", "vault2", "vault1", "switch2", "box2"} {
		back := s.downed(t, victim, kill9)
		down := s.becomes(t, victim, "DOWN")
		l.goesOn(t, whileDown)
		t.Logf("%s killed: %s; out of the balancer after %v", victim, l.take(), down.Round(time.Millisecond))
		back()
		up := s.becomes(t, victim, "UP")
		s.waitUp(t)
		l.goesOn(t, afterwards)
		t.Logf("%s back: %s; in the balancer after %v", victim, l.take(), up.Round(time.Millisecond))
	}
	l.end()
	ended = true
	for _, w := range l.wrong {
		t.Error(w)
	}
	s.waitUp(t)
	s.drainQueue(t)
	s.nothingLost(t, u, l.sent)
	for protocol, done := range l.done {
		t.Logf("%s: %d requests answered", protocol, done.Load())
	}
}

// nothingLost compares what is there, seen from either box, with what the senders know.
func (s *service) nothingLost(t *testing.T, u user, all map[string]*sent) (acknowledged int) {
	t.Helper()
	var unsure, queued, twice int
	for _, box := range []string{"box1", "box2"} {
		found := map[string]int{}
		for _, m := range fetchAll(t, s.imap(t, u, box, nil), "INBOX") {
			found[header(m, "Subject")]++
		}
		acknowledged, unsure, queued, twice = 0, 0, 0, 0
		for id, state := range all {
			if state.acknowledged {
				acknowledged++
			}
			if state.unsure {
				unsure++
			}
			if state.queued {
				queued++
			}
			n := found[id]
			if n > 1 {
				twice++
			}
			switch {
			case state.acknowledged && n == 0:
				t.Errorf("%s: message %s was acknowledged and is lost", box, id)
			case n > 1 && !state.unsure:
				t.Errorf("%s: message %s is there %d times although every attempt got its answer", box, id, n)
			}
			delete(found, id)
		}
		for id := range found {
			t.Errorf("%s: a message that nobody sent: %q", box, id)
		}
	}
	t.Logf("%d messages acknowledged, %d of them by way of the queue; %d without an answer at first; %d came more than once", acknowledged, queued, unsure, twice)
	return acknowledged
}
