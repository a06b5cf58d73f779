package cluster

import (
	"encoding/json"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/emersion/go-imap/v2"
	"github.com/emersion/go-imap/v2/imapclient"
)

// subjects gives the subjects of a mailbox, in the order of UIDs.
func subjects(t *testing.T, c *imapclient.Client, mailbox string) (out []string) {
	t.Helper()
	st, err := c.Select(mailbox, nil).Wait()
	check(t, err)
	if st.NumMessages == 0 {
		return nil
	}
	all, err := c.Fetch(imap.SeqSet{{Start: 1}}, &imap.FetchOptions{UID: true, Envelope: true}).Collect()
	check(t, err)
	last := imap.UID(0)
	for _, m := range all {
		if m.UID <= last {
			t.Errorf("%s: UID %d after %d", mailbox, m.UID, last)
		}
		last = m.UID
		out = append(out, m.Envelope.Subject)
	}
	return out
}

// Whoever comes by submission first has account and password from then on, at each server; mail comes with the first login at a box.
func TestFirstLoginBySubmission(t *testing.T) {
	old := startOldServer(t, map[string]string{"dora@old.test": "doras old password", "emil@old.test": "emils old password"})
	c := old.imap(t, "dora@old.test", "doras old password")
	for i := range 3 {
		appendTo(t, c, "INBOX", letter(i, "text\r\n"), time.Unix(1_700_000_000, 0))
	}
	s := own(t, "env", "SSL_CERT_FILE="+old.ca)
	s.shoalctl(t, "domain", "add", "old.test")
	s.shoalctl(t, "migration", "add", "emil@old.test")
	s.shoalctl(t, "migration", "start", "old.test", "--server", old.address, "--create")
	dora, emil := user{Address: "dora@old.test", Password: "doras old password"}, user{Address: "emil@old.test", Password: "emils old password"}
	send := func(u user, server, subject string) (string, error) {
		return tryCommand(t, "Subject: "+subject+"\r\n\r\ntext\r\n", "curl", "-sS", "--ssl-reqd", "--cacert", s.CAFile,
			"smtp://localhost:"+portOf(s.address("submission", server))+"/client.example.org", "--user", u.Address+":"+u.Password,
			"--mail-from", u.Address, "--mail-rcpt", emil.Address, "-T", "-")
	}
	for _, u := range []user{{Address: "dora@old.test", Password: "wrong"}, {Address: "nobody@old.test", Password: "wrong"}} {
		if out, err := send(u, "switch1", "wrong"); err == nil {
			t.Errorf("%s sends with a wrong password: %s", u.Address, out)
		}
	}
	for i, server := range []string{"switch1", "switch2"} {
		for _, u := range []user{dora, emil} {
			if out, err := send(u, server, fmt.Sprintf("%d of %s", i, u.Address)); err != nil {
				t.Errorf("%s at %s: %v: %s", u.Address, server, err, out)
			}
		}
	}
	if v := s.migrationState(t, "old.test"); v.Accounts != 2 || v.Passwords != 0 || v.Mail != 2 {
		t.Errorf("after the first logins: %+v", v)
	}
	if got := subjects(t, s.oldClient(t, dora, "box1"), "INBOX"); !slices.Equal(got, []string{"letter 0", "letter 1", "letter 2"}) {
		t.Errorf("dora has %q", got)
	}
	var got []string
	n := s.oldClient(t, emil, "box2")
	wait(t, 30*time.Second, func() bool { got = subjects(t, n, "INBOX"); return len(got) == 4 }, func() string { return fmt.Sprintf("emil has %q", got) })
	old.end()
	if out, err := send(dora, "switch2", "without the old server"); err != nil {
		t.Errorf("without the old server: %v: %s", err, out)
	}
}

// Mail that is delivered while the copy runs is kept, beside every message of the old server, each once; a paused migration copies nothing
// and still takes passwords; rounds bring what came to the old server until the end.
func TestMailComesWhileItIsCopied(t *testing.T) {
	old := startOldServer(t, map[string]string{"carl@old.test": "carls old password", "gina@old.test": "ginas old password"})
	c, g := old.imap(t, "carl@old.test", "carls old password"), old.imap(t, "gina@old.test", "ginas old password")
	const count = 300
	var want []string
	for i := range count {
		appendTo(t, c, "INBOX", letter(i, strings.Repeat("x", i%2000)+"\r\n"), time.Unix(1_700_000_000+int64(i), 0))
		want = append(want, fmt.Sprintf("letter %d", i))
	}
	appendTo(t, g, "INBOX", letter(1000, "text\r\n"), time.Unix(1_700_000_000, 0))
	s := own(t, "env", "SSL_CERT_FILE="+old.ca)
	s.shoalctl(t, "domain", "add", "old.test")
	secret := put(t, filepath.Join(t.TempDir(), "secret"), 0o600, "master key\n")
	s.shoalctl(t, "migration", "add", "carl@old.test")
	s.swaks(t, "carl@old.test", "before the copy")
	line := holdAfter(t, old.address, 60<<10)
	s.shoalctl(t, "migration", "start", "old.test", "--server", "localhost:"+portOf(line.address), "--master", "master", "--master-password-file", secret)
	select {
	case <-line.held:
	case <-time.After(time.Minute):
		t.Fatal("nothing is copied: ", s.migrationState(t, "old.test"))
	}
	for i := range 4 { // the balancer gives them to both boxes
		s.swaks(t, "carl@old.test", fmt.Sprintf("during the copy %d", i))
	}
	line.release()
	phase := func(address string) (string, int) {
		for _, d := range s.migrationState(t, "old.test").Details {
			if d.Address == address {
				return d.Progress.Phase, d.Progress.Rounds
			}
		}
		return "", 0
	}
	round := func(address string, n int) {
		t.Helper()
		wait(t, 2*time.Minute, func() bool { p, r := phase(address); return p == "waiting" && r >= n }, func() string {
			return fmt.Sprint("no round: ", s.migrationState(t, "old.test"))
		})
	}
	round("carl@old.test", 1)
	s.swaks(t, "carl@old.test", "after the copy")

	var list []struct {
		Domain, Server, State, Master string
		Accounts                      int
		Mail                          int `json:"mail_to_come"`
	}
	check(t, json.Unmarshal([]byte(s.shoalctl(t, "migration", "list", "--json")), &list))
	if len(list) != 1 || list[0].Domain != "old.test" || list[0].State != "active" || list[0].Master != "master" || list[0].Accounts != 1 || list[0].Mail != 1 {
		t.Errorf("the list: %+v", list)
	}
	s.shoalctl(t, "migration", "pause", "old.test")
	if out := s.shoalctl(t, "migration", "list"); !strings.Contains(out, "old.test") || !strings.Contains(out, "paused") {
		t.Errorf("the list of what is paused:\n%s", out)
	}
	s.shoalctl(t, "migration", "add", "gina@old.test")
	gina := user{Address: "gina@old.test", Password: "ginas old password"}
	n := s.oldClient(t, gina, "box1")
	if got := subjects(t, n, "INBOX"); len(got) != 0 {
		t.Errorf("a paused migration copies %q", got)
	}
	if v := s.migrationState(t, "old.test"); v.State != "paused" || v.Passwords != 1 { // carl's is still to come, hers has
		t.Errorf("in the pause: %+v", v)
	}
	appendTo(t, c, "INBOX", letter(count, "late\r\n"), time.Unix(1_700_001_000, 0))
	s.shoalctl(t, "migration", "start", "old.test") // with what it knew, the master's password as well
	round("gina@old.test", 1)
	if got := subjects(t, n, "INBOX"); !slices.Equal(got, []string{"letter 1000"}) {
		t.Errorf("after the pause she has %q", got)
	}
	carl := user{Address: "carl@old.test", Password: "carls old password"}
	_ = s.oldClient(t, carl, "box2") // his password comes
	s.shoalctl(t, "migration", "finish", "old.test", "--within", "60s")
	want = append(want, fmt.Sprintf("letter %d", count), "before the copy", "after the copy")
	for i := range 4 {
		want = append(want, fmt.Sprintf("during the copy %d", i))
	}
	old.end()
	slices.Sort(want)
	for _, box := range []string{"box1", "box2"} {
		got := subjects(t, s.oldClient(t, carl, box), "INBOX")
		slices.Sort(got)
		if !slices.Equal(got, want) {
			t.Errorf("%s: %d messages, want %d: %q", box, len(got), len(want), got)
		}
	}
	if out := s.shoalctl(t, "migration", "list", "--json"); strings.TrimSpace(out) != "[]" {
		t.Errorf("the list after the end: %s", out)
	}
}
