package nfs

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"

	"shoal/daemons/nfsguest/proto"
)

// shoalctl runs the operator's tool in a client, as on any box; it must succeed.
func (s *site) shoalctl(k *kernel, args ...string) string {
	s.t.Helper()
	return k.run(append([]string{shoalctl, "--config", s.path("shoalctl.hcl")}, args...)...)
}

// operator prepares what shoalctl needs.
func (s *site) operator() {
	s.t.Helper()
	s.must(buildProgram(shoalctl, "shoalctl"))
	s.must(os.WriteFile(s.path("shoalctl.hcl"), []byte(fmt.Sprintf(`identity {
  cert_file = "operator.crt"
  key_file  = "operator.key"
  ca_file   = "ca.crt"
}
directory {
  uris          = ["ldaps://%s:636"]
  bind_dn       = "cn=admin,o=shoal"
  password_file = "root"
}
`, host)), 0o600))
}

// TestOperatorTools does with the volumes what operators do, from one client, while both serve: a second volume, an account
// that moves there and back while mail comes in, what was deleted and comes back, damage that is found and repaired, and a real
// Dovecot's Maildir that becomes an account.
func TestOperatorTools(t *testing.T) {
	s := boot(t, "xfs", 2).serve()
	a, b := s.clients[0], s.clients[1]
	s.operator()
	boxConfig := "--box-config=" + s.path(a.name+".hcl")

	// Two volumes, and an account that moves under load.
	second := proto.Export + "/" + moreVolumes + "/vol02"
	a.run("mkdir", "-p", second)
	s.shoalctl(a, "volume", "add", "vol02", "--path", second)
	for i := range 5 {
		s.swaks(b, fmt.Sprint("before.", i))
	}
	before := s.mailbox(b)
	l := s.load("moving")
	acked := map[string]bool{}
	more := func(n int) {
		for range n {
			token, ok := <-l.acked
			if !ok {
				t.Fatal("no mail is taken any more")
			}
			acked[token] = true
		}
	}
	more(10)
	for _, to := range []string{"vol02", "vol01"} {
		said := s.shoalctl(a, "account", "move", user, "--to", to, boxConfig)
		t.Log(strings.TrimSpace(said))
		more(10)
	}
	l.stop()
	for token := range l.acked {
		acked[token] = true
	}
	after := s.mailbox(b)
	if own := s.mailbox(a); !maps.Equal(own, after) {
		t.Errorf("after the moves the boxes show different mailboxes: %d and %d messages", len(own), len(after))
	}
	for uid, token := range before {
		if after[uid] != token {
			t.Errorf("UID %s was %q before the moves, is %q", uid, token, after[uid])
		}
	}
	there := map[string]bool{}
	for _, token := range after {
		there[token] = true
	}
	for token := range acked {
		if !there[token] {
			t.Errorf("%s was acknowledged during the moves and is lost", token)
		}
	}
	t.Logf("%d messages acknowledged while the account moved twice, none lost of these and the %d before", len(acked), len(before))

	// What was deleted comes back.
	uids := slices.SortedFunc(maps.Keys(after), func(x, y string) int { return len(x)*10 - len(y)*10 + strings.Compare(x, y) })
	gone := uids[len(uids)-1]
	s.curl(b, "UID STORE "+gone+` +FLAGS (\Deleted)`)
	s.curl(b, "UID EXPUNGE "+gone)
	if n := len(s.mailbox(a)); n != len(after)-1 {
		t.Fatalf("%d messages after an expunge, there were %d", n, len(after))
	}
	s.shoalctl(a, "mailbox", "restore", user, "INBOX", "--expunged", "--uid", gone, boxConfig)
	back := s.mailbox(b)
	if len(back) != len(after) || back[gone] != "" || !slices.Contains(slices.Collect(maps.Values(back)), after[gone]) {
		t.Errorf("the expunged message is not back under a new UID: %d messages, there were %d", len(back), len(after))
	}

	// Damage at the file server is found, and repaired without loss of anything else.
	verify := func() []any {
		text := a.run("sh", "-c", fmt.Sprintf("%s --config %s store verify %s --json %s 2>/dev/null || true", shoalctl, s.path("shoalctl.hcl"), user, boxConfig))
		var volumes []struct {
			Messages int
			Problems []any
		}
		if err := json.Unmarshal([]byte(text), &volumes); err != nil || len(volumes) != 1 || volumes[0].Messages == 0 {
			t.Fatalf("store verify: %v: %s", err, text)
		}
		return volumes[0].Problems
	}
	if v := verify(); len(v) != 0 {
		t.Errorf("before any damage: %v", v)
	}
	victim := strings.TrimSpace(s.server.run("sh", "-c", "find "+proto.Disk+"/export/a -path '*/m/*' -type f | sort | head -n 1"))
	s.server.run("sh", "-c", "printf damaged >"+victim)
	if v := verify(); len(v) != 1 {
		t.Errorf("one file is damaged (%s), found: %v", victim, v)
	}
	t.Log(strings.TrimSpace(s.shoalctl(a, "store", "repair", user, "--apply", boxConfig)))
	if v := verify(); len(v) != 0 {
		t.Errorf("after the repair: %v", v)
	}
	if n := len(s.mailbox(b)); n < len(back)-1 {
		t.Errorf("%d messages after the repair of one, there were %d", n, len(back))
	}

	s.adopted(a, b)
}

const adopter = "bob@example.test"

// adopted has a real Dovecot in a client make a Maildir on the mount, and makes it an account.
func (s *site) adopted(a, b *kernel) {
	s.t.Helper()
	const letters = 12
	for i := range letters {
		call[proto.OpReply](a, "Dovecot", proto.DovecotArgs{Kind: "deliver", Message: fmt.Appendf(nil, "From: x@example.org\nX-Token: old.%d\n\nhello\n", i)})
	}
	call[proto.OpReply](a, "Dovecot", proto.DovecotArgs{Kind: "session"})
	call[proto.OpReply](a, "Dovecot", proto.DovecotArgs{Kind: "imap", Commands: []string{
		"SELECT INBOX", `UID STORE 2 +FLAGS (\Flagged later)`, `UID STORE 3 +FLAGS (\Deleted)`, "EXPUNGE", "CREATE Old", "UID COPY 4:5 Old",
	}})
	call[proto.OpReply](a, "Dovecot", proto.DovecotArgs{Kind: "end"})

	s.must(os.WriteFile(s.path("bob"), []byte(password), 0o600))
	s.shoalctl(a, "account", "add", adopter, "--password-file", s.path("bob"))
	tree := proto.DovecotHome + "/Maildir"
	for _, more := range []string{"", "--final"} {
		args := []string{"adopt", "run", adopter, tree, "--volume-path", proto.Export}
		if more != "" {
			args = append(args, more)
		}
		s.t.Log(strings.TrimSpace(s.shoalctl(a, args...)))
	}
	s.shoalctl(a, "adopt", "finish", adopter, "--volume-path", proto.Export)
	inbox := s.curlAs(b, adopter, "INBOX", "UID FETCH 1:* (FLAGS)")
	if n := strings.Count(inbox, "FETCH"); n != letters-1 || strings.Contains(inbox, "UID 3 ") || !strings.Contains(inbox, "later") {
		s.t.Errorf("the adopted INBOX has %d messages:\n%s", n, inbox)
	}
	if old := s.curlAs(b, adopter, "Old", "UID FETCH 1:* (FLAGS)"); strings.Count(old, "FETCH") != 2 {
		s.t.Errorf("the adopted folder:\n%s", old)
	}
	single := s.server.run("sh", "-c", "find "+proto.Disk+"/export/dovecot/Maildir/cur -type f -links 1 | wc -l")
	if strings.TrimSpace(single) != "0" {
		s.t.Errorf("%s files were copied, not linked", strings.TrimSpace(single))
	}
}
