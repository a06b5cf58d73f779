package mailstore

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"shoal/daemons/internal/clock"
	"shoal/daemons/internal/vfs"
)

func names(t *testing.T, a *Account) string {
	t.Helper()
	list, err := a.Mailboxes(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, m := range list {
		out = append(out, m.Name)
	}
	return strings.Join(out, " ")
}

func TestMailboxes(t *testing.T) {
	ctx := context.Background()
	s := testStore(t, vfs.NewMem(time.Now), "/", "box1")
	a := testInbox(t, s, "account-1").Account()
	is := func(err, want error) {
		t.Helper()
		if !errors.Is(err, want) || want == nil && err != nil {
			t.Errorf("got %v, want %v", err, want)
		}
	}
	create := func(name string) error {
		_, err := a.Create(ctx, name, CreateOptions{})
		return err
	}
	for _, name := range []string{"a", "a/b", "a/b/c", "ab", "Entwürfe & Größe 100%", strings.Repeat("x", 1024)} {
		is(create(name), nil)
		is(create(name), ErrMailboxExists)
	}
	for _, name := range []string{"", "/", "a/", "/a", "a//b", "a\nb", "a\x00b", "a\x7fb", "\xff", strings.Repeat("x", 1025)} {
		is(create(name), ErrMailboxName)
	}
	is(create("inbox"), ErrMailboxExists)
	is(create("iNbOx/sub"), nil)
	is(a.Delete(ctx, strings.Repeat("x", 1024)), nil)
	is(a.Delete(ctx, "Entwürfe & Größe 100%"), nil)
	is(a.Delete(ctx, "INBOX"), ErrInbox)
	is(a.Delete(ctx, "nothing"), ErrNoMailbox)
	is(a.Rename(ctx, "nothing", "x"), ErrNoMailbox)
	is(a.Rename(ctx, "a", "ab"), ErrMailboxExists)
	is(a.Rename(ctx, "a", "a"), ErrMailboxExists)
	is(a.Rename(ctx, "a", "a/b/d"), ErrMailboxName)
	is(a.Rename(ctx, "a", "z//"), ErrMailboxName)
	is(a.Rename(ctx, "a", "new/a"), nil)
	if got := names(t, a); got != "INBOX INBOX/sub ab new/a new/a/b new/a/b/c" {
		t.Error(got)
	}
	is(a.Rename(ctx, "new", "old"), nil) // no mailbox itself, but some below it
	is(a.Delete(ctx, "old/a"), nil)
	is(a.Rename(ctx, "old/a", "b"), nil)
	if got := names(t, a); got != "INBOX INBOX/sub ab b/b b/b/c" {
		t.Error(got)
	}
	box, err := a.Open(ctx, "inbox")
	is(err, nil)
	appendOne(t, box, "one", FlagSeen)
	is(a.Rename(ctx, "INBOX", "Kept"), nil)
	st, err := box.State(ctx)
	is(err, nil)
	kept, err := a.Open(ctx, "Kept")
	is(err, nil)
	st2, err := kept.State(ctx)
	is(err, nil)
	if st.Len() != 0 || st2.Len() != 1 || content(t, kept, 1) != "one" {
		t.Errorf("INBOX has %d, its new name %d", st.Len(), st2.Len())
	}
	is(a.Subscribe(ctx, "Kept", true), nil)
	is(a.Subscribe(ctx, "nowhere", true), nil)
	is(a.Subscribe(ctx, "INBOX", false), nil)
	subs, err := a.Subscriptions(ctx)
	if fmt.Sprint(subs) != "[Kept nowhere]" {
		t.Error(subs, err)
	}
	is(a.SetSpecialUse(ctx, "Kept", []string{`\Sent`, "Archive"}), nil)
	is(a.SetSpecialUse(ctx, "missing", nil), ErrNoMailbox)
	is(a.SetSpecialUse(ctx, "Kept", []string{"a b"}), ErrMailboxName)
	list, _ := a.Mailboxes(ctx)
	if got := fmt.Sprint(list[2].Name, list[2].SpecialUse, list[2].Subscribed); got != "Kept[Archive Sent] true" {
		t.Error(got)
	}
	is(a.SetSpecialUse(ctx, "Kept", nil), nil)

	// A name that is used again gets a higher UIDVALIDITY, even within a second.
	was, err := a.Create(ctx, "again", CreateOptions{})
	is(err, nil)
	is(a.Delete(ctx, "again"), nil)
	now, err := a.Create(ctx, "again", CreateOptions{})
	is(err, nil)
	if now.UIDValidity <= was.UIDValidity || now.ID == was.ID {
		t.Errorf("%+v after %+v", now, was)
	}
	given, err := a.Create(ctx, "given", CreateOptions{UIDValidity: 17, ModSeqBase: 1000})
	is(err, nil)
	m, err := a.OpenID(ctx, given.ID)
	is(err, nil)
	uid := appendOne(t, m, "x", 0)
	st, err = m.State(ctx)
	is(err, nil)
	if msg, _ := st.ByUID(uid); st.UIDValidity() != 17 || st.ModSeq() != 1002 || msg.ModSeq != 1002 {
		t.Errorf("UIDVALIDITY %d, mod-sequence %d, of the message %d", st.UIDValidity(), st.ModSeq(), msg.ModSeq)
	}
	if v, ok := st.VanishedSince(500); len(v) != 0 || !ok && v != nil {
		t.Error(v, ok)
	}
	_, err = a.OpenID(ctx, was.ID)
	is(err, ErrNoMailbox)
	verify(t, s.fs, "/")
}

// TestAccountRace: servers that open a new account at the same time agree on it, and of those that create the same
// mailbox one succeeds.
func TestAccountRace(t *testing.T) {
	ctx := context.Background()
	root := t.TempDir()
	var stores []*Store
	for i := range 4 {
		stores = append(stores, testStore(t, vfs.OS(), root, fmt.Sprintf("box%d", i)))
	}
	var mu sync.Mutex
	for round := range 10 {
		ids, made := map[string]int{}, 0
		var wg sync.WaitGroup
		for _, s := range stores {
			wg.Add(1)
			go func() {
				defer wg.Done()
				a, err := s.Account(ctx, "vol01", fmt.Sprintf("account-%d", round))
				if err != nil {
					t.Error(err)
					return
				}
				box, err := a.Open(ctx, Inbox)
				if err != nil {
					t.Error(err)
					return
				}
				_, err = a.Create(ctx, "Shared", CreateOptions{})
				if err != nil && !errors.Is(err, ErrMailboxExists) {
					t.Error(err)
				}
				mu.Lock()
				defer mu.Unlock()
				ids[box.ID()]++
				if err == nil {
					made++
				}
			}()
		}
		wg.Wait()
		if len(ids) != 1 || made != 1 {
			t.Fatalf("%d INBOXes, %d created the same mailbox", len(ids), made)
		}
	}
	if r := verify(t, vfs.OS(), root); r.Mailboxes != 20 {
		t.Errorf("%+v", r)
	}
	if left, _ := vfs.OS().ReadDir(root+"/tmp", nil); len(left) != 0 {
		t.Errorf("left in tmp: %v", left)
	}
}

// TestGivenUIDs: what adoption and restore need.
func TestGivenUIDs(t *testing.T) {
	ctx := context.Background()
	s := testStore(t, vfs.NewMem(time.Now), "/", "box1")
	box := testInbox(t, s, "account-1")
	m := stage(t, s, "x")
	defer m.Close()
	r, err := box.Append(ctx, []AppendMessage{
		{Message: m, UID: 70000, InternalDate: time.Unix(-100, 0), SaveDate: time.Unix(5, 0), EmailID: "M1", ThreadID: "T 1"},
		{Message: m, UID: 5}, {Message: m, UID: 70009},
	})
	if err != nil {
		t.Fatal(err)
	}
	var uids []uint32
	for _, x := range r.Messages {
		uids = append(uids, x.UID)
	}
	if fmt.Sprint(uids) != "[70000 70001 70009]" {
		t.Error(uids)
	}
	msg, _ := r.State.ByUID(70000)
	if msg.InternalDate().Unix() != -100 || msg.SaveDate().Unix() != 5 || msg.EmailID() != "M1" || msg.ThreadID() != "T 1" {
		t.Errorf("%v %v %v %v", msg.InternalDate(), msg.SaveDate(), msg.EmailID(), msg.ThreadID())
	}
	if content(t, box, 70009) != "x" {
		t.Error("content")
	}

	// The last UIDs are given out; then the messages are numbered anew.
	before := r.UIDValidity
	if r, err = box.Append(ctx, []AppendMessage{{Message: m, UID: MaxUID - 1}}); err != nil || r.Messages[0].UID != MaxUID-1 {
		t.Fatal(r, err)
	}
	if r, err = box.Append(ctx, []AppendMessage{{Message: m}, {Message: m}}); err != nil {
		t.Fatal(err)
	}
	if r.UIDValidity <= before || r.Messages[0].UID != 5 || r.State.UIDNext() != 7 {
		t.Errorf("UIDVALIDITY %d after %d, UIDs %v", r.UIDValidity, before, r.Messages)
	}
	for _, msg := range r.State.All() {
		if content(t, box, msg.UID) != "x" {
			t.Errorf("UID %d", msg.UID)
		}
	}
	if _, err := box.Append(ctx, []AppendMessage{{Message: m, UID: MaxUID}}); !errors.Is(err, ErrUIDsExhausted) {
		t.Error(err)
	}
	// What would not parse is not written.
	if _, err := box.ChangeFlags(ctx, FlagChange{UIDs: UIDSet{{5, 5}}, Op: FlagsAdd, Keywords: []string{""}}); err == nil {
		t.Error("an empty keyword was written")
	}
	if r, err := box.ChangeFlags(ctx, FlagChange{UIDs: UIDSet{{5, 5}, {3, 1}, {0, 0}}, Op: FlagsAdd, Flags: FlagSeen}); err != nil || r.Changed.String() != "1:3,5" {
		t.Error(r.Changed, err)
	}
	verify(t, s.fs, "/")
}

// TestMoveAgain: a move that was cut short is ended by doing it again, without a second copy.
func TestMoveAgain(t *testing.T) {
	ctx := context.Background()
	mem := vfs.NewMem(time.Now)
	s := testStore(t, mem, "/", "box1")
	box := testInbox(t, s, "account-1")
	dst := testInbox(t, s, "account-2")
	for i := range 3 {
		appendOne(t, box, fmt.Sprint("message ", i+1), FlagFlagged, "k")
	}
	if _, err := box.copyTo(ctx, UIDSet{{1, 2}}, dst, CopyOptions{Move: true}); err != nil { // the first half of a move
		t.Fatal(err)
	}
	r, err := testInbox(t, testStore(t, mem, "/", "box2"), "account-1").MoveTo(ctx, UIDSet{{1, 3}}, dst)
	if err != nil || fmt.Sprint(r.Source, r.Dest) != "[1 2 3] [1 2 3]" {
		t.Fatal(r, err)
	}
	st, err := dst.State(ctx)
	if err != nil || st.Len() != 3 || r.State.Len() != 0 {
		t.Fatalf("%d in the target, %d in the source (%v)", st.Len(), r.State.Len(), err)
	}
	for _, m := range st.All() {
		if m.Flags != FlagFlagged || fmt.Sprint(m.Keywords) != "[k]" || content(t, dst, m.UID) != fmt.Sprint("message ", m.UID) {
			t.Errorf("%+v", m)
		}
	}
	if rep := verify(t, mem, "/"); rep.Unreferenced != 0 {
		t.Errorf("%d files of the second try are left", rep.Unreferenced)
	}
}

// TestCollectAgainstSlowWriter: a writer stops for a week between its message file and its commit, and the collector
// takes the file for abandoned; or the commit comes just while the collector has the file in its hands.
func TestCollectAgainstSlowWriter(t *testing.T) {
	ctx := context.Background()
	for _, during := range []bool{false, true} {
		shift := time.Duration(0)
		mem := vfs.NewMem(func() time.Time { return time.Now().Add(shift) })
		fake := clock.NewFake(time.Now())
		slow, tidy := vfs.NewFault(mem), vfs.NewFault(mem)
		w := testInbox(t, testStore(t, slow, "/", "box1", func(o *Options) { o.Clock, o.CallTimeout = fake, 365*24*time.Hour }), "account-1")
		c := testInbox(t, testStore(t, tidy, "/", "box2"), "account-1")
		appendOne(t, w, "first", 0)
		stopped, goOn, done := make(chan struct{}), make(chan struct{}), make(chan uint32)
		once := false
		slow.Hook(func(call vfs.Call) vfs.Action {
			if call.Op != vfs.OpSymlink || once {
				return vfs.Action{}
			}
			once = true
			close(stopped)
			return vfs.Action{Wait: goOn}
		})
		go func() { done <- appendOne(t, w, "slow", 0) }()
		<-stopped
		shift = 8 * 24 * time.Hour
		fake.Advance(shift)
		var uid uint32
		claimed := 0
		tidy.Hook(func(call vfs.Call) vfs.Action {
			switch {
			case call.Op == vfs.OpRename && strings.Contains(call.To, "/tmp/c."):
				claimed++
			case claimed == 1 && during: // right after the claim
				claimed++
				close(goOn)
				uid = <-done
			}
			return vfs.Action{}
		})
		if err := c.j.collect(ctx); err != nil {
			t.Fatal(err)
		}
		if !during {
			close(goOn)
			uid = <-done
		}
		if claimed == 0 {
			t.Fatal("the file was never claimed")
		}
		if got := content(t, c, uid); got != "slow" {
			t.Errorf("content %q", got)
		}
		if r := verify(t, mem, "/"); r.Messages != 2 || r.Unreferenced != 0 {
			t.Errorf("%+v", r)
		}
	}
}
