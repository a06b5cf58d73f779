package mailstore

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"shoal/daemons/internal/vfs"
)

// contents lists all messages of an account, by mailbox name.
func contents(t testing.TB, s *Store, account string) map[string][]string {
	t.Helper()
	ctx := context.Background()
	a, err := s.Account(ctx, "vol01", account)
	if err != nil {
		t.Fatal(err)
	}
	list, err := a.Mailboxes(ctx)
	if err != nil {
		t.Fatal(err)
	}
	out := map[string][]string{}
	for _, i := range list {
		m, err := a.OpenID(ctx, i.ID)
		if err != nil {
			t.Fatal(err)
		}
		out[i.Name] = []string{}
		for _, msg := range mustState(t, m).All() {
			out[i.Name] = append(out[i.Name], content(t, m, msg.UID))
		}
	}
	return out
}

// Whatever is damaged: afterwards everything can be read and verifies, nothing that had a file is lost, and a second
// repair finds nothing to do. A dry run changes nothing.
func TestRepair(t *testing.T) {
	ctx := context.Background()
	all := []string{"message 0", "message 1", "message 2", "message 3"}
	for _, c := range []struct {
		name   string
		damage func(mem *vfs.Mem, m *Mailbox) error
		want   map[string][]string
		action string
	}{
		{"the file of a message is missing", func(mem *vfs.Mem, m *Mailbox) error { return mem.Unlink(file(m, 2)) },
			map[string][]string{Inbox: {"message 0", "message 2", "message 3"}}, "expunge"},
		{"the file of a message is damaged", func(mem *vfs.Mem, m *Mailbox) error {
			path := file(m, 2)
			if err := mem.Unlink(path); err != nil {
				return err
			}
			spoil(t, mem, path, "rest")
			return nil
		}, map[string][]string{Inbox: {"message 0", "message 2", "message 3", "rest"}}, "refile"},
		{"a file that no record names", func(mem *vfs.Mem, m *Mailbox) error {
			spoil(t, mem, m.j.messagePath(0, msgID{nonce{"box9.abc", 1}, 6, checksum([]byte("orphan"))}), "orphan")
			spoil(t, mem, m.j.messagePath(0, msgID{nonce{"box9.abc", 2}, 9, checksum([]byte("message 1"))}), "message 1")
			spoil(t, mem, m.j.messagePath(0, msgID{nonce{"box9.abc", 3}, 6, 1}), "broken")
			return nil
		}, map[string][]string{Inbox: all, RecoveredName: {"orphan"}}, "recover"},
		{"a record of a mailbox cannot be read", func(mem *vfs.Mem, m *Mailbox) error {
			if err := mem.Unlink(m.j.recordPath(3)); err != nil { // message 1
				return err
			}
			return mem.Symlink("nonsense", m.j.recordPath(3))
		}, map[string][]string{Inbox: {"message 0", "message 2", "message 3"}, RecoveredName: {"message 1"}}, "rebuild"},
		{"a record of a mailbox is missing", func(mem *vfs.Mem, m *Mailbox) error { return mem.Unlink(m.j.recordPath(3)) },
			map[string][]string{Inbox: {"message 0", "message 2", "message 3"}, RecoveredName: {"message 1"}}, "rebuild"},
		{"nothing of a mailbox's log can be read", func(mem *vfs.Mem, m *Mailbox) error {
			if err := mem.Unlink(m.j.recordPath(1)); err != nil {
				return err
			}
			return mem.Symlink("nonsense", m.j.recordPath(1))
		}, map[string][]string{Inbox: all}, "rebuild"},
		{"a mailbox that is listed is closed", func(mem *vfs.Mem, m *Mailbox) error {
			return m.j.submit(ctx, &request{op: func(b []byte, _ *opContext) []byte { return append(b, opTerminal) }})
		}, map[string][]string{Inbox: all}, "rebuild"},
		{"a record of the account is missing", func(mem *vfs.Mem, m *Mailbox) error {
			if _, err := m.a.Create(ctx, "One", CreateOptions{}); err != nil {
				return err
			}
			if _, err := m.a.Create(ctx, "Two", CreateOptions{}); err != nil {
				return err
			}
			return mem.Unlink(m.a.j.recordPath(m.a.j.known - 1))
		}, map[string][]string{Inbox: all, "Recovered/*": {}, "Two": {}}, "fill"},
		{"a record of the account cannot be read", func(mem *vfs.Mem, m *Mailbox) error {
			if _, err := m.a.Create(ctx, "One", CreateOptions{}); err != nil {
				return err
			}
			n := m.a.j.known
			if err := mem.Unlink(m.a.j.recordPath(n)); err != nil {
				return err
			}
			return mem.Symlink("box1.abc.1 D nonsense", m.a.j.recordPath(n))
		}, map[string][]string{Inbox: all, "Recovered/*": {}}, "checkpoint"},
	} {
		now := time.Now()
		mem := vfs.NewMem(func() time.Time { return now })
		box := testInbox(t, testStore(t, mem, "/", "box1"), "account-1")
		for i := range 4 {
			appendOne(t, box, fmt.Sprint("message ", i), FlagSeen)
		}
		if err := c.damage(mem, box); err != nil {
			t.Fatal(err)
		}
		now = now.Add(collectAfter + time.Hour)
		repair := func(apply bool) []RepairAction {
			t.Helper()
			s := testStore(t, mem, "/", "shoalctl")
			report, err := s.Verify(ctx, "vol01", VerifyOptions{Content: true})
			if err != nil {
				t.Fatal(err)
			}
			actions, err := s.Repair(ctx, "vol01", "account-1", report, apply)
			if err != nil {
				t.Fatalf("%s: %v", c.name, err)
			}
			return actions
		}
		if plan := repair(false); len(plan) == 0 || plan[0].Action != c.action {
			t.Errorf("%s: the plan is %+v", c.name, plan)
		}
		again := repair(false)
		done := repair(true)
		if len(done) < len(again) || done[0].Action != c.action {
			t.Errorf("%s: planned %+v, done %+v", c.name, again, done)
		}
		got := contents(t, testStore(t, mem, "/", "reader"), "account-1")
		for name := range got {
			if strings.HasPrefix(name, RecoveredName+"/") && name != "Recovered/*" {
				got["Recovered/*"] = got[name]
				delete(got, name)
			}
		}
		for name := range got {
			slices.Sort(got[name])
		}
		if fmt.Sprint(got) != fmt.Sprint(c.want) {
			t.Errorf("%s: got %v, want %v", c.name, got, c.want)
		}
		verify(t, mem, "/")
		for _, x := range repair(true) {
			t.Errorf("%s: once more: %+v", c.name, x)
		}
	}
}

// A server that has a mailbox in memory, while it is rebuilt, acknowledges nothing to the old one.
func TestRebuildClosesTheOldMailbox(t *testing.T) {
	ctx := context.Background()
	mem := vfs.NewMem(time.Now)
	box := testInbox(t, testStore(t, mem, "/", "box1"), "account-1")
	for i := range 4 {
		appendOne(t, box, fmt.Sprint("message ", i), 0)
	}
	if err := mem.Unlink(box.j.recordPath(3)); err != nil {
		t.Fatal(err)
	}
	s := testStore(t, mem, "/", "shoalctl")
	report, err := s.Verify(ctx, "vol01", VerifyOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Repair(ctx, "vol01", "account-1", report, true); err != nil {
		t.Fatal(err)
	}
	st := stage(t, box.j.store, "new")
	defer st.Close()
	if _, err := box.Append(ctx, []AppendMessage{{Message: st}}); err == nil {
		t.Error("the old mailbox takes mail")
	}
	r := box.j.store.Deliver(ctx, st, []Target{{Account: box.Account()}})
	if r[0].Err != nil || r[0].MailboxID == box.ID() {
		t.Errorf("delivery: %+v", r[0])
	}
}

// What was deleted comes back: messages, mailboxes, and both from a copy of the volume; with new UIDs, and only once.
func TestRestore(t *testing.T) {
	ctx := context.Background()
	mem := vfs.NewMem(time.Now)
	box := testInbox(t, testStore(t, mem, "/", "box1"), "account-1")
	a := box.Account()
	for i := range 4 {
		appendOne(t, box, fmt.Sprint("message ", i), FlagSeen|FlagDeleted, "$work")
	}
	if _, err := box.Expunge(ctx, UIDSet{{2, 3}}, false); err != nil {
		t.Fatal(err)
	}
	dead, err := box.Expunged(ctx)
	if err != nil || len(dead) != 2 || dead[0].UID != 2 || dead[0].At.IsZero() {
		t.Fatal(dead, err)
	}
	r, err := box.Undelete(ctx, NewUIDSet(3), time.Time{})
	if err != nil || len(r.UIDs) != 1 || r.UIDs[0] != 5 {
		t.Fatal(r, err)
	}
	r, err = box.Undelete(ctx, nil, time.Time{})
	if err != nil || len(r.UIDs) != 1 || r.Back != 1 {
		t.Fatal(r, err)
	}
	if r, err = box.Undelete(ctx, nil, time.Time{}); err != nil || len(r.UIDs) != 0 || r.Back != 2 {
		t.Fatal(r, err)
	}
	msg, _ := mustState(t, box).ByUID(5)
	if content(t, box, 5) != "message 2" || msg.Flags != FlagSeen || fmt.Sprint(msg.Keywords) != "[$work]" {
		t.Errorf("%q %v %v", content(t, box, 5), msg.Flags, msg.Keywords)
	}
	if _, err := a.Create(ctx, "Old", CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	old, err := a.Open(ctx, "Old")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := box.CopyTo(ctx, nil, old); err != nil {
		t.Fatal(err)
	}
	if _, err := box.CopyTo(ctx, UIDSet{{1, MaxUID}}, old); err != nil {
		t.Fatal(err)
	}
	before := mustState(t, old)
	if err := a.Delete(ctx, "Old"); err != nil {
		t.Fatal(err)
	}
	list, err := a.Deleted(ctx)
	if err != nil || len(list) != 1 || list[0].Name != "Old" || list[0].Messages != 4 {
		t.Fatal(list, err)
	}
	if r, err = a.RestoreDeleted(ctx, "Old", "", nil); err != nil || len(r.UIDs) != 4 || r.UIDValidity <= before.uidValidity {
		t.Fatal(r, err)
	}
	if _, err = a.RestoreDeleted(ctx, "Old", "", nil); err == nil {
		t.Error("a mailbox of that name was replaced")
	}
	s := box.j.store
	x, err := s.OpenArchive("/")
	if err != nil {
		t.Fatal(err)
	}
	if r, err = a.RestoreFrom(ctx, x, "Old", "From the copy", nil); err != nil || len(r.UIDs) != 4 {
		t.Fatal(r, err)
	}
	got := contents(t, s, "account-1")
	if fmt.Sprint(got["Old"]) != fmt.Sprint(got["From the copy"]) || len(got["Old"]) != 4 {
		t.Errorf("%v", got)
	}
	d, err := a.Detail(ctx, "Old")
	if err != nil || d.Messages != 4 || d.Records < 2 || d.Files != 4 {
		t.Errorf("%+v, %v", d, err)
	}
	verify(t, mem, "/")
}
