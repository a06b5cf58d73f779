package cluster

import (
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/go-ldap/ldap/v3"
)

// writers add entries to the directory one after the other, at whichever vault takes them, and remember what was
// acknowledged.
type writers struct {
	mu    sync.Mutex
	acked []string
	last  time.Time
	stop  chan struct{}
	done  sync.WaitGroup
}

func (w *writers) count() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.acked)
}

// asAdmin connects to one vault as the directory's administrator.
func (s *service) asAdmin(t *testing.T, vault string) (*ldap.Conn, error) {
	root, err := os.ReadFile(filepath.Join(s.data, "secrets", "root"))
	if err != nil {
		return nil, err
	}
	c, err := ldap.DialURL("ldap://"+s.address("ldap", vault), ldap.DialWithDialer(&net.Dialer{Timeout: time.Second}))
	if err != nil {
		return nil, err
	}
	c.SetTimeout(8 * time.Second)
	if err = c.StartTLS(s.tls(t)); err == nil {
		err = c.Bind("cn=admin,o=shoal", strings.TrimSpace(string(root)))
	}
	if err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}

var vaultNames = []string{"vault1", "vault2", "vault3"}

const loadDN = "ou=load,o=shoal"

// addTo adds one entry at one vault.
func (s *service) addTo(t *testing.T, vault, name string) error {
	c, err := s.asAdmin(t, vault)
	if err != nil {
		return err
	}
	defer c.Close()
	return addRole(c, name)
}

func addRole(c *ldap.Conn, name string) error {
	req := ldap.NewAddRequest("cn="+name+","+loadDN, nil)
	req.Attribute("objectClass", []string{"organizationalRole"})
	return c.Add(req)
}

func (s *service) write(t *testing.T, n int) *writers {
	t.Helper()
	c, err := s.asAdmin(t, "vault1")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	req := ldap.NewAddRequest(loadDN, nil)
	req.Attribute("objectClass", []string{"organizationalUnit"})
	if err := c.Add(req); err != nil && !ldap.IsErrorWithCode(err, ldap.LDAPResultEntryAlreadyExists) {
		t.Fatal(err)
	}
	w := &writers{stop: make(chan struct{})}
	for i := range n {
		w.done.Go(func() {
			vault, k := 0, 0
			var c *ldap.Conn
			var err error
			for {
				select {
				case <-w.stop:
					if c != nil {
						c.Close()
					}
					return
				default:
				}
				if c == nil {
					if c, err = s.asAdmin(t, vaultNames[vault]); err != nil {
						vault = (vault + 1) % len(vaultNames)
						continue
					}
				}
				k++
				name := fmt.Sprintf("w%d-%d", i, k)
				if err := addRole(c, name); err != nil {
					c.Close()
					c, vault = nil, (vault+1)%len(vaultNames)
					continue
				}
				w.mu.Lock()
				w.acked = append(w.acked, name)
				w.last = time.Now()
				w.mu.Unlock()
			}
		})
	}
	t.Cleanup(func() { w.end() })
	return w
}

func (w *writers) end() {
	select {
	case <-w.stop:
	default:
		close(w.stop)
	}
	w.done.Wait()
}

// loaded lists what a vault has of the load.
func (s *service) loaded(t *testing.T, vault string) map[string]bool {
	t.Helper()
	c, err := s.asAdmin(t, vault)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	res, err := c.SearchWithPaging(ldap.NewSearchRequest(loadDN, ldap.ScopeSingleLevel, ldap.NeverDerefAliases, 0, 0, false, "(objectClass=*)", []string{"cn"}, nil), 500)
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]bool{}
	for _, e := range res.Entries {
		all[e.GetAttributeValue("cn")] = true
	}
	return all
}

type vaultView struct {
	Name, State, Mode, Master, Replication, Provider string
	Epoch                                            int
	InStep                                           bool  `json:"in_step"`
	LeaseHeld                                        *bool `json:"lease_held"`
	Voter                                            bool
}

func (s *service) replicas(t *testing.T) map[string]vaultView {
	t.Helper()
	out, _ := s.tryShoalctl(t, "directory", "replicas", "--json") // fails while something is not well
	var all []vaultView
	if err := json.NewDecoder(strings.NewReader(out)).Decode(&all); err != nil {
		t.Fatalf("directory replicas: %v: %s", err, out)
	}
	views := map[string]vaultView{}
	for _, v := range all {
		views[v.Name] = v
	}
	return views
}

// electorate waits until both shadows have a vote, which they get soon after they first follow.
func (s *service) electorate(t *testing.T) {
	t.Helper()
	var all map[string]vaultView
	wait(t, 40*time.Second, func() bool {
		all = s.replicas(t)
		return all["vault2"].Voter && all["vault3"].Voter
	}, func() string { return fmt.Sprintf("the shadows have no votes: %+v", all) })
}

// masterIs waits until every vault is in step under a master.
func (s *service) masterIs(t *testing.T, master string) map[string]vaultView {
	t.Helper()
	var all map[string]vaultView
	wait(t, 40*time.Second, func() bool {
		all = s.replicas(t)
		for _, name := range vaultNames {
			v := all[name]
			mode := "shadow"
			if name == master {
				mode = "master"
			}
			if v.Mode != mode || v.Master != master || v.State != "ready" || !v.InStep {
				return false
			}
		}
		return true
	}, func() string { return fmt.Sprintf("everybody follows %s: %+v", master, all) })
	return all
}

// The master dies while updates go on. Without it there are none; the command makes a shadow the master, and they go on
// there. The old master comes back, is followed by nobody, and becomes a shadow. No acknowledged update is missing then
// that the shadow had; what it had not, the old master has written to a file.
func TestPromotionUnderLoad(t *testing.T) {
	s := own(t)
	s.inStep(t)
	s.electorate(t)
	w := s.write(t, 4)
	wait(t, 30*time.Second, func() bool { return w.count() > 200 }, func() string { return "200 updates" })

	back := s.downed(t, "vault1", kill9)
	t.Log(s.shoalctl(t, "directory", "promote", s.newest(t), "--yes"))
	var master string
	for name, v := range s.replicas(t) {
		if v.Mode == "master" {
			master = name
		}
	}
	promoted := w.count()
	wait(t, 30*time.Second, func() bool { return w.count() > promoted+200 }, func() string { return fmt.Sprintf("updates at %s: %d after %d", master, w.count(), promoted) })

	back()
	s.masterIs(t, master)
	u := s.newAccount(t) // shoalctl finds the master, and every vault gets what it writes
	s.curlSend(t, u.Address, message("after-promotion", 100))
	wait(t, 30*time.Second, func() bool { return len(fetchAll(t, s.imap(t, u, "box1", nil), "INBOX")) == 1 }, func() string { return "the mail" })
	w.end()
	s.masterIs(t, master)
	kept := s.accounted(t, w)
	t.Logf("%d updates acknowledged, %d of them in the file of the old master", w.count(), w.count()-kept)

	// The way back is without a loss, while updates go on.
	w = s.write2(t, 4)
	wait(t, 30*time.Second, func() bool { return w.count() > 100 }, func() string { return "100 updates" })
	begin := time.Now()
	t.Log(s.shoalctl(t, "directory", "promote", "vault1", "--yes"))
	t.Logf("a planned promotion took %v", time.Since(begin).Round(time.Millisecond))
	n := w.count()
	wait(t, 30*time.Second, func() bool { return w.count() > n+100 }, func() string { return "updates at vault1" })
	w.end()
	s.masterIs(t, "vault1")
	for _, vault := range vaultNames {
		have := s.loaded(t, vault)
		for _, name := range w.acked {
			if !have[name] {
				t.Errorf("%s lacks %s, which was acknowledged around a planned promotion", vault, name)
			}
		}
	}
}

// write2 is a second load under other names.
func (s *service) write2(t *testing.T, n int) *writers {
	t.Helper()
	c, err := s.asAdmin(t, "vault1")
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
	w := &writers{stop: make(chan struct{})}
	for i := range n {
		w.done.Go(func() {
			for k, vault := 0, 0; ; k++ {
				select {
				case <-w.stop:
					return
				default:
				}
				name := fmt.Sprintf("x%d-%d", i, k)
				if err := s.addTo(t, vaultNames[vault], name); err != nil {
					vault = (vault + 1) % len(vaultNames)
					continue
				}
				w.mu.Lock()
				w.acked = append(w.acked, name)
				w.mu.Unlock()
			}
		})
	}
	t.Cleanup(func() { w.end() })
	return w
}

// newest is the shadow that has most.
func (s *service) newest(t *testing.T) string {
	t.Helper()
	out, _ := s.tryShoalctl(t, "directory", "replicas", "--json")
	var all []struct {
		Name       string
		ContextCSN []string `json:"context_csn"`
	}
	if err := json.NewDecoder(strings.NewReader(out)).Decode(&all); err != nil {
		t.Fatalf("directory replicas: %v: %s", err, out)
	}
	best, csn := "", ""
	for _, v := range all {
		if len(v.ContextCSN) > 0 && slices.Max(v.ContextCSN) > csn {
			best, csn = v.Name, slices.Max(v.ContextCSN)
		}
	}
	return best
}

// accounted checks that what was acknowledged is in the directory or in the file of the old master, and says how much is
// in the directory.
func (s *service) accounted(t *testing.T, w *writers) (kept int) {
	t.Helper()
	lost := ""
	files, err := filepath.Glob(filepath.Join(s.data, "vault*", "lost-*.ldif"))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		text, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		lost += string(text)
	}
	for i, vault := range vaultNames {
		have := s.loaded(t, vault)
		for _, name := range w.acked {
			switch {
			case have[name]:
				if i == 0 {
					kept++
				}
			case !strings.Contains(lost, "dn: cn="+name+","+loadDN+"\n"):
				t.Errorf("%s was acknowledged, and is neither at %s nor in %v", name, vault, files)
			}
		}
	}
	return kept
}

// A master that hangs, and comes to itself after another one was promoted, takes no update. One that cannot reach enough
// shadows takes none either, and a promotion without enough votes is refused until the operator says that the old
// master is off.
func TestOldMasterWritesNoMore(t *testing.T) {
	s := own(t)
	s.inStep(t)
	s.electorate(t)
	s.write(t, 0) // makes the place
	pid := s.pid("vault1")
	if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = syscall.Kill(pid, syscall.SIGCONT) })
	begin := time.Now()
	t.Log(s.shoalctl(t, "directory", "promote", "vault2", "--yes"))
	t.Logf("promoted after %v", time.Since(begin).Round(time.Millisecond))
	if err := s.addTo(t, "vault2", "at-the-new-master"); err != nil {
		t.Error(err)
	}
	if err := syscall.Kill(pid, syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	if err := s.addTo(t, "vault1", "at-the-old-master"); err == nil {
		t.Error("the old master took an update after another one was promoted")
	} else {
		t.Logf("the old master: %v", err)
	}
	s.masterIs(t, "vault2")
	for _, vault := range vaultNames {
		if have := s.loaded(t, vault); !have["at-the-new-master"] || have["at-the-old-master"] {
			t.Errorf("%s has %v", vault, have)
		}
	}

	// Both shadows are gone: the lease lapses.
	backs := []func(){s.downed(t, "vault1", kill9), s.downed(t, "vault3", kill9)}
	wait(t, 30*time.Second, func() bool {
		v := s.replicas(t)["vault2"]
		return v.LeaseHeld != nil && !*v.LeaseHeld
	}, func() string { return "the lease of vault2 lapses" })
	if err := s.addTo(t, "vault2", "without-a-lease"); !ldap.IsErrorWithCode(err, ldap.LDAPResultUnavailable) {
		t.Errorf("an update without a lease: %v", err)
	}
	backs[1]()
	s.becomes(t, "vault3", "UP")
	if err := s.addTo(t, "vault2", "with-one-shadow"); err != nil {
		t.Errorf("with one of two shadows: %v", err)
	}
	wait(t, 30*time.Second, func() bool { return s.loaded(t, "vault3")["with-one-shadow"] }, func() string { return "the update at vault3" })

	// One shadow alone cannot know that the master is off.
	again := s.downed(t, "vault2", kill9)
	out, err := s.tryShoalctl(t, "directory", "promote", "vault3", "--yes")
	if exitCode(err) != 1 || !strings.Contains(out, "--old-master-is-off") {
		t.Errorf("a promotion by one shadow of two: %v: %s", err, out)
	}
	t.Log(s.shoalctl(t, "directory", "promote", "vault3", "--yes", "--old-master-is-off"))
	backs[0]()
	again()
	s.masterIs(t, "vault3")
	if err := s.addTo(t, "vault3", "at-the-third"); err != nil {
		t.Error(err)
	}
	for _, vault := range vaultNames {
		wait(t, 20*time.Second, func() bool { return s.loaded(t, vault)["at-the-third"] }, func() string { return "at-the-third at " + vault })
	}
}
