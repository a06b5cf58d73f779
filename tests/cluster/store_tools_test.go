package cluster

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/emersion/go-imap/v2"
	"github.com/emersion/go-imap/v2/imapclient"
)

// writer appends messages through one box and flags them, whatever happens, and keeps what it was told.
type writer struct {
	mu       sync.Mutex
	uids     map[imap.UID]string // subject, by the UID that was told
	flagged  map[imap.UID]bool   // a STORE was answered OK
	validity map[uint32]bool
	refused  int
}

// write works until stop. Errors mean: connect again.
func (w *writer) write(s *service, u user, box string, options func() *imapclient.Options, stop <-chan struct{}) {
	var c *imapclient.Client
	defer func() {
		if c != nil {
			c.Close()
		}
	}()
	for i := 0; ; i++ {
		select {
		case <-stop:
			return
		default:
		}
		err := func() (err error) {
			if c == nil {
				if c, err = imapclient.DialTLS(s.address("imaps", box), options()); err != nil {
					c = nil
					return err
				}
				if err = c.Login(u.Address, u.Password).Wait(); err != nil {
					return err
				}
				if _, err = c.Select("INBOX", nil).Wait(); err != nil {
					return err
				}
			}
			subject := fmt.Sprintf("write-%s-%d", box, i)
			text := message(subject, 300)
			a := c.Append("INBOX", int64(len(text)), nil)
			if _, err := a.Write([]byte(text)); err != nil {
				return err
			}
			if err := a.Close(); err != nil {
				return err
			}
			told, err := a.Wait()
			if err != nil {
				return err
			}
			w.mu.Lock()
			if have := w.uids[told.UID]; have != "" {
				w.uids[told.UID] = have + " and " + subject
			} else {
				w.uids[told.UID] = subject
			}
			w.validity[told.UIDValidity] = true
			w.mu.Unlock()
			if err := c.Noop().Wait(); err != nil {
				return err
			}
			store := c.Store(imap.UIDSetNum(told.UID), &imap.StoreFlags{Op: imap.StoreFlagsAdd, Silent: true, Flags: []imap.Flag{imap.FlagFlagged}}, nil)
			if err := store.Close(); err != nil {
				return err
			}
			w.mu.Lock()
			w.flagged[told.UID] = true
			w.mu.Unlock()
			return nil
		}()
		if err != nil {
			w.mu.Lock()
			w.refused++
			w.mu.Unlock()
			if c != nil {
				c.Close()
				c = nil
			}
		}
	}
}

// An account moves between volumes again and again, with the tool killed at any moment, while mail arrives and clients
// write through both boxes. Nothing that was acknowledged is lost, no UID means two messages, UIDVALIDITY stays, and
// what is on the volumes verifies.
func TestAccountMovesWhileInUse(t *testing.T) {
	s := own(t)
	u, loaded := s.newAccount(t), s.newAccount(t)
	s.shoalctl(t, "volume", "add", "vol02")
	l := s.load(t, loaded)
	w := &writer{uids: map[imap.UID]string{}, flagged: map[imap.UID]bool{}, validity: map[uint32]bool{}}
	stop := make(chan struct{})
	var writers sync.WaitGroup
	for _, box := range []string{"box1", "box2"} {
		writers.Go(func() {
			w.write(s, u, box, func() *imapclient.Options { return &imapclient.Options{TLSConfig: l.tls} }, stop)
		})
	}
	kills, moves := 0, 0
	for n := range 4 {
		to := []string{"vol02", "vol01"}[n%2]
		l.goesOn(t, 20)
		for _, account := range []user{u, loaded} {
			kills += s.moveWithKills(t, account, to)
			moves++
		}
	}
	l.goesOn(t, 20)
	close(stop)
	writers.Wait()
	l.end()
	for _, x := range l.wrong {
		t.Error(x)
	}
	s.drainQueue(t)
	s.nothingLost(t, loaded, l.sent)
	all := map[string]*sent{}
	for _, subject := range w.uids {
		all[subject] = &sent{acknowledged: true, unsure: true}
	}
	for i := range len(w.uids) + w.refused + 1 { // appends whose answer was lost
		for _, box := range []string{"box1", "box2"} {
			id := fmt.Sprintf("write-%s-%d", box, i)
			if all[id] == nil {
				all[id] = &sent{unsure: true}
			}
		}
	}
	s.nothingLost(t, u, all)
	if len(w.validity) != 1 {
		t.Errorf("UIDVALIDITYs were told: %v", w.validity)
	}
	for _, box := range []string{"box1", "box2"} {
		c := s.imap(t, u, box, nil)
		selected, err := c.Select("INBOX", &imap.SelectOptions{ReadOnly: true}).Wait()
		if err != nil {
			t.Fatal(err)
		}
		if !w.validity[selected.UIDValidity] {
			t.Errorf("UIDVALIDITY is %d, told was %v", selected.UIDValidity, w.validity)
		}
		messages, err := c.Fetch(imap.SeqSet{imap.SeqRange{Start: 1, Stop: 0}}, &imap.FetchOptions{UID: true, Envelope: true, Flags: true}).Collect()
		if err != nil {
			t.Fatal(err)
		}
		is := map[imap.UID]*imapclient.FetchMessageBuffer{}
		for _, m := range messages {
			is[m.UID] = m
		}
		for uid, subject := range w.uids {
			m := is[uid]
			if m == nil || m.Envelope.Subject != subject {
				t.Errorf("%s: UID %d was told for %s, is %+v", box, uid, subject, m)
				continue
			}
			if w.flagged[uid] && !slices.Contains(m.Flags, imap.FlagFlagged) {
				t.Errorf("%s: UID %d has lost its flag", box, uid)
			}
		}
	}
	s.shoalctl(t, "store", "verify", "--all")
	t.Logf("%d moves, the tool killed %d times; %d appends told, %d connections lost; %s", moves, kills, len(w.uids), w.refused, l.take())
	if len(w.uids) < 50 || kills < 4 || w.refused == 0 {
		t.Errorf("too little happened")
	}
}

// moveWithKills moves an account, and kills the tool four times on the way.
func (s *service) moveWithKills(t *testing.T, u user, to string) (kills int) {
	t.Helper()
	for try := 0; ; try++ {
		ctx, cancel := t.Context(), context.CancelFunc(func() {})
		if try < 4 {
			ctx, cancel = context.WithTimeout(ctx, time.Duration(20+rand.IntN(400))*time.Millisecond)
		}
		cmd := exec.CommandContext(ctx, filepath.Join(bin, "shoalctl"), "--data", s.data, "account", "move", u.Address, "--to", to) // killed with SIGKILL
		out, err := cmd.CombinedOutput()
		cancel()
		if err == nil {
			break
		}
		if try >= 4 {
			t.Fatalf("move of %s to %s: %v\n%s", u.Address, to, err, out)
		}
		kills++
	}
	if out := s.shoalctl(t, "account", "show", u.Address); !strings.Contains(out, "volume    "+to) {
		t.Errorf("after the move to %s: %s", to, out)
	}
	return kills
}

// A volume is added while everything runs, another is drained and closed, and the clients notice nothing but a new
// connection.
func TestVolumesComeAndGo(t *testing.T) {
	s := own(t)
	users := []user{s.newAccount(t), s.newAccount(t), s.newAccount(t)}
	for _, u := range users {
		command(t, "", "swaks", "-s", s.address("smtp"), "-f", "a@far.test", "-t", u.Address, "--h-Subject", "before", "--silent", "2")
	}
	if out, err := s.tryShoalctl(t, "volume", "close", "vol01"); err == nil || !strings.Contains(out, "accounts lie on") {
		t.Errorf("a volume with accounts was closed: %s", out)
	}
	var added struct{ Missing []string }
	if err := json.Unmarshal([]byte(s.shoalctl(t, "volume", "add", "vol02", "--json")), &added); err != nil || len(added.Missing) > 0 {
		t.Errorf("%v, not served by %v", err, added.Missing)
	}
	s.shoalctl(t, "volume", "add", "vol02") // once more changes nothing
	s.shoalctl(t, "volume", "drain", "vol01", "--parallel", "2")
	s.shoalctl(t, "volume", "drain", "vol01")
	s.shoalctl(t, "volume", "close", "vol01")
	var list []struct {
		Name, State string
		Accounts    int
		Bytes       uint64
		Boxes       []string
	}
	if err := json.Unmarshal([]byte(s.shoalctl(t, "volume", "list", "--json")), &list); err != nil {
		t.Fatal(err)
	}
	if len(list) != 2 || list[0].State != "closed" || list[0].Accounts != 0 || list[1].Accounts < 3 || list[1].Bytes == 0 || len(list[1].Boxes) != 2 {
		t.Errorf("%+v", list)
	}
	for _, u := range users {
		s.spread(t, u.Address)
		command(t, "", "swaks", "-s", s.address("smtp"), "-f", "a@far.test", "-t", u.Address, "--h-Subject", "after", "--silent", "2")
		s.drainQueue(t)
		if got := fetchAll(t, s.imap(t, u, "", nil), "INBOX"); len(got) != 2 {
			t.Errorf("%s has %d messages", u.Address, len(got))
		}
	}
	s.shoalctl(t, "store", "verify", "--all")
}

// messageFiles lists the message files of the only account with messages on a volume.
func messageFiles(t *testing.T, s *service, subject string) string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(s.data, "volumes", "*", "a", "*", "*", "b", "*", "m", "*", "*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		if text, err := os.ReadFile(f); err == nil && strings.Contains(string(text), "Subject: "+subject+"\r\n") {
			return f
		}
	}
	t.Fatalf("no file holds %q", subject)
	return ""
}

// Damage on the disk is found, said, and repaired beside the running service; what was deleted comes back.
func TestVerifyRepairRestore(t *testing.T) {
	s := own(t)
	u := s.newAccount(t)
	for _, subject := range []string{"one", "two", "three"} {
		command(t, "", "swaks", "-s", s.address("smtp"), "-f", "a@far.test", "-t", u.Address, "--h-Subject", subject, "--silent", "2")
	}
	s.drainQueue(t)
	s.shoalctl(t, "store", "verify", u.Address)
	if err := os.Remove(messageFiles(t, s, "two")); err != nil {
		t.Fatal(err)
	}
	out, err := s.tryShoalctl(t, "store", "verify", u.Address, "--json")
	if exitCode(err) != 1 || !strings.Contains(out, `"kind": "file"`) || !strings.Contains(out, `"uid": 2`) {
		t.Errorf("%v: %s", err, out)
	}
	if out := s.shoalctl(t, "store", "repair", u.Address); !strings.Contains(out, "expunge") || !strings.Contains(out, "nothing was changed") {
		t.Error(out)
	}
	if _, err := s.tryShoalctl(t, "store", "verify", u.Address); exitCode(err) != 1 {
		t.Errorf("a plan changed something: %v", err)
	}
	s.shoalctl(t, "store", "repair", u.Address, "--apply")
	s.shoalctl(t, "store", "verify", u.Address)
	if out := s.shoalctl(t, "store", "repair", u.Address); !strings.Contains(out, "nothing to repair") {
		t.Error(out)
	}
	state := filepath.Join(t.TempDir(), "check")
	s.shoalctl(t, "store", "verify", "--all", "--rate", "100MiB", "--resume", state)

	c := s.imap(t, u, "box1", nil)
	if err := c.Create("Projects/Old", nil).Wait(); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Select("INBOX", nil).Wait(); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Copy(imap.SeqSetNum(1, 2), "Projects/Old").Wait(); err != nil {
		t.Fatal(err)
	}
	if err := c.Delete("Projects/Old").Wait(); err != nil {
		t.Fatal(err)
	}
	if err := c.Store(imap.SeqSetNum(1), &imap.StoreFlags{Op: imap.StoreFlagsAdd, Flags: []imap.Flag{imap.FlagDeleted, imap.FlagSeen}}, nil).Close(); err != nil {
		t.Fatal(err)
	}
	if err := c.Expunge().Close(); err != nil {
		t.Fatal(err)
	}
	if out := s.shoalctl(t, "mailbox", "restore", u.Address, "--deleted", "--list"); !strings.Contains(out, "Projects/Old") {
		t.Error(out)
	}
	s.shoalctl(t, "mailbox", "restore", u.Address, "Projects/Old", "--deleted")
	if _, err := s.tryShoalctl(t, "mailbox", "restore", u.Address, "Projects/Old", "--deleted"); exitCode(err) != 3 {
		t.Errorf("restored over a mailbox: %v", err)
	}
	s.shoalctl(t, "mailbox", "restore", u.Address, "INBOX", "--expunged", "--since", "1h", "--uid", "1")
	other := s.imap(t, u, "box2", nil)
	if got := fetchAll(t, other, "Projects/Old"); len(got) != 2 || header(got[0], "Subject") != "one" {
		t.Errorf("%d messages are back", len(got))
	}
	got := fetchAll(t, other, "INBOX")
	if len(got) != 2 || header(got[1], "Subject") != "one" {
		t.Errorf("%q", got)
	}
	var boxes []struct {
		Name              string
		Messages, Records int
	}
	if err := json.Unmarshal([]byte(s.shoalctl(t, "mailbox", "list", u.Address, "--json")), &boxes); err != nil || len(boxes) != 2 || boxes[0].Messages != 2 {
		t.Errorf("%v %+v", err, boxes)
	}
	if out := s.shoalctl(t, "mailbox", "show", u.Address, "INBOX"); !strings.Contains(out, "watched by    box1 ") || !strings.Contains(out, ", box2 ") {
		t.Error(out)
	}
}

// copyVolume copies a volume in use as docs/operations.md says: logs and snapshots first, then messages.
func copyVolume(t *testing.T, from, to string) {
	t.Helper()
	script := `cd "$1"
tar --exclude='./tmp/*' --exclude='./runs/*' --exclude='./move/*' --exclude='*/tmp/*' --exclude='*/m/*' -cf - . | tar -C "$2" -xpf -
find a -type d -name m -prune -print0 | tar --null -T - -cf - | tar -C "$2" -xpf -`
	if out, err := tryCommand(t, "", "sh", "-c", script, "sh", from, to); err != nil && !strings.Contains(out, "removed before we read it") {
		t.Fatalf("%v\n%s", err, out)
	}
}

// A copy that is made while mail flows holds all that was acknowledged before, verifies, and is put back: as single
// mailboxes beside the running service, and as a whole volume.
func TestBackupWhileMailFlows(t *testing.T) {
	s := own(t)
	u := s.newAccount(t)
	l := s.load(t, u)
	ended := false
	defer func() {
		if !ended {
			l.end()
		}
	}()
	l.goesOn(t, 40)
	s.drainQueue(t)
	before := map[string]bool{}
	for _, m := range fetchAll(t, s.imap(t, u, "", nil), "INBOX") {
		before[header(m, "Subject")] = true
	}
	backup := filepath.Join(t.TempDir(), "backup")
	if err := os.Mkdir(backup, 0o700); err != nil {
		t.Fatal(err)
	}
	copyVolume(t, filepath.Join(s.data, "volumes", "vol01"), backup)
	l.goesOn(t, 20)
	l.end()
	ended = true
	s.drainQueue(t)

	// A mailbox out of the copy, beside the service.
	s.shoalctl(t, "mailbox", "restore", u.Address, "INBOX", "--from", backup, "--as", "Before")
	holds := func(what string, got [][]byte) {
		t.Helper()
		have := map[string]bool{}
		for _, m := range got {
			have[header(m, "Subject")] = true
		}
		for subject := range before {
			if !have[subject] {
				t.Errorf("%s: %s is missing", what, subject)
			}
		}
	}
	holds("the restored mailbox", fetchAll(t, s.imap(t, u, "box1", nil), "Before"))

	// The whole volume, on a disk that was empty.
	volume := filepath.Join(s.data, "volumes", "vol01")
	data := s.data
	if err := s.end(); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(volume, volume+".lost"); err != nil {
		t.Fatal(err)
	}
	command(t, "", "cp", "-a", backup, volume)
	again, err := launchAnywhere(data)
	if err != nil {
		t.Fatal(err)
	}
	*s = *again
	out, err := s.tryShoalctl(t, "store", "verify", "--volume", "vol01", "--json")
	if err != nil { // a log that was copied while it grew: the rest of it is in files that nobody names
		if !strings.Contains(out, `"kind": "hole"`) {
			t.Fatalf("%v\n%s", err, out)
		}
		s.shoalctl(t, "store", "repair", "--volume", "vol01", "--apply")
		s.shoalctl(t, "store", "verify", "--volume", "vol01")
	}
	s.shoalctl(t, "store", "renumber", "--volume", "vol01", "--yes")
	s.shoalctl(t, "store", "verify", "--volume", "vol01")
	holds("the restored volume", fetchAll(t, s.imap(t, u, "box2", nil), "INBOX"))
	if len(before) < 10 {
		t.Errorf("only %d messages before the copy", len(before))
	}
}

// Aliases, forwards and servers come and go; an address belongs to one.
func TestAliasesForwardsServers(t *testing.T) {
	s := shared(t)
	u, other := s.newAccount(t), s.newAccount(t)
	alias := "team-" + u.Address
	s.shoalctl(t, "alias", "add", alias, u.Address, other.Address)
	command(t, "", "swaks", "-s", s.address("smtp"), "-f", "a@far.test", "-t", alias, "--h-Subject", "to the team", "--silent", "2")
	s.drainQueue(t)
	for _, x := range []user{u, other} {
		if got := fetchAll(t, s.imap(t, x, "", nil), "INBOX"); len(got) != 1 {
			t.Errorf("%s got %d messages", x.Address, len(got))
		}
	}
	for _, args := range [][]string{
		{"alias", "add", alias, u.Address}, {"alias", "add", u.Address, other.Address}, {"account", "add", alias, "--generate"},
	} {
		if out, err := s.tryShoalctl(t, args...); exitCode(err) != 3 || !strings.Contains(out, "is an address of") {
			t.Errorf("%v: %v: %s", args, err, out)
		}
	}
	if out := s.shoalctl(t, "alias", "list"); !strings.Contains(out, alias) {
		t.Error(out)
	}
	s.shoalctl(t, "alias", "delete", alias)
	if _, err := s.tryShoalctl(t, "alias", "delete", alias); exitCode(err) != 3 {
		t.Errorf("deleted twice: %v", err)
	}
	s.shoalctl(t, "forward", "add", u.Address, other.Address, "--keep")
	if out := s.shoalctl(t, "forward", "list", "--json"); !strings.Contains(out, other.Address) || !strings.Contains(out, `"keep": true`) {
		t.Error(out)
	}
	s.shoalctl(t, "forward", "delete", u.Address)
	if out := s.shoalctl(t, "forward", "list", "--json"); strings.Contains(out, other.Address) {
		t.Error(out)
	}
	s.shoalctl(t, "server", "add", "box9", "--role", "box", "--address", "hint 127.0.0.1:1")
	if out := s.shoalctl(t, "server", "show", "box9"); !strings.Contains(out, "hint     127.0.0.1:1") {
		t.Error(out)
	}
	if _, err := s.tryShoalctl(t, "server", "add", "box9", "--role", "box"); exitCode(err) != 3 {
		t.Errorf("added twice: %v", err)
	}
	s.shoalctl(t, "server", "delete", "box9")
	if out := s.shoalctl(t, "server", "list"); strings.Contains(out, "box9") || !strings.Contains(out, "box1") {
		t.Error(out)
	}
}
