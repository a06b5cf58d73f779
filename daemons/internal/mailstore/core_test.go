package mailstore

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"shoal/daemons/internal/clock"
	"shoal/daemons/internal/vfs"
)

const testVolume = "11111111-2222-3333-4444-555555555555"

// testStore opens a store on the volume at root, which is made if need be.
func testStore(t testing.TB, fs vfs.FS, root, server string, change ...func(*Options)) *Store {
	t.Helper()
	o := Options{Server: server, FS: fs, Clock: clock.System(), Log: slog.New(slog.DiscardHandler)}
	for _, f := range change {
		f(&o)
	}
	if err := InitVolume(fs, root, testVolume); err != nil {
		t.Fatal(err)
	}
	s, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	if err := s.AddVolume("vol01", root, testVolume); err != nil {
		t.Fatal(err)
	}
	return s
}

func testInbox(t testing.TB, s *Store, account string) *Mailbox {
	t.Helper()
	a, err := s.Account(context.Background(), "vol01", account)
	if err != nil {
		t.Fatal(err)
	}
	m, err := a.Open(context.Background(), Inbox)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func stage(t testing.TB, s *Store, content string) *Staged {
	t.Helper()
	m, err := s.Stage(context.Background(), "vol01", strings.NewReader(content), 0)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func appendOne(t testing.TB, m *Mailbox, content string, flags Flags, keywords ...string) uint32 {
	t.Helper()
	st := stage(t, m.j.store, content)
	defer st.Close()
	r, err := m.Append(context.Background(), []AppendMessage{{Message: st, Flags: flags, Keywords: keywords}})
	if err != nil {
		t.Fatal(err)
	}
	return r.Messages[0].UID
}

// verify checks the whole volume and fails the test on any problem.
func verify(t testing.TB, fs vfs.FS, root string) *Report {
	t.Helper()
	s := testStore(t, fs, root, "verifier")
	r, err := s.Verify(context.Background(), "vol01", VerifyOptions{Content: true})
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range r.Problems {
		t.Error(p)
	}
	return r
}

// describe writes a state as one line per message, for comparing.
func describe(s *State) string {
	var b strings.Builder
	for i, m := range s.All() {
		fmt.Fprintf(&b, "%d: uid %d %05b %v size %d\n", i, m.UID, m.Flags, m.Keywords, m.Size)
	}
	return b.String()
}

func content(t testing.TB, m *Mailbox, uid uint32) string {
	t.Helper()
	f, err := m.OpenMessage(context.Background(), uid)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	b := make([]byte, f.Size())
	if n, err := f.ReadAt(b, 0); int64(n) != f.Size() {
		t.Fatal(n, err)
	}
	return string(b)
}

func TestCore(t *testing.T) {
	ctx := context.Background()
	root := t.TempDir()
	s1 := testStore(t, vfs.OS(), root, "box1")
	s2 := testStore(t, vfs.OS(), root, "box2")
	a := testInbox(t, s1, "account-1")
	b := testInbox(t, s2, "account-1")
	if a.ID() != b.ID() {
		t.Fatalf("two servers see different mailboxes: %s and %s", a.ID(), b.ID())
	}
	for i := range 300 {
		m := a
		if i%3 == 1 {
			m = b
		}
		if uid := appendOne(t, m, fmt.Sprintf("message %d\r\n", i+1), 0); uid != uint32(i+1) {
			t.Fatalf("message %d got UID %d", i+1, uid)
		}
	}
	r, err := b.ChangeFlags(ctx, FlagChange{UIDs: UIDSet{{10, 290}}, Op: FlagsAdd, Flags: FlagSeen | FlagDeleted, Keywords: []string{"$Junk", "a b"}})
	if err != nil || r.Changed.String() != "10:290" {
		t.Fatal(r.Changed, err)
	}
	if _, err := a.ChangeFlags(ctx, FlagChange{UIDs: UIDSet{{20, 30}, {280, 280}}, Op: FlagsRemove, Flags: FlagDeleted, Keywords: []string{"a b"}}); err != nil {
		t.Fatal(err)
	}
	x, err := b.Expunge(ctx, nil, true)
	if err != nil || x.UIDs.String() != "10:19,31:279,281:290" {
		t.Fatal(x.UIDs, err)
	}
	g, err := a.ChangeFlags(ctx, FlagChange{UIDs: UIDSet{{1, 25}}, Op: FlagsReplace, Flags: FlagFlagged, Conditional: true, UnchangedSince: 302})
	if err != nil || g.Changed.String() != "1:9" || g.Failed.String() != "20:25" {
		t.Fatalf("changed %v failed %v err %v", g.Changed, g.Failed, err)
	}
	sa, err := a.State(ctx)
	if err != nil {
		t.Fatal(err)
	}
	sb, err := b.State(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if describe(sa) != describe(sb) || sa.Len() != 9+11+1+10 || sa.ModSeq() != sb.ModSeq() {
		t.Fatalf("box1:\n%sbox2:\n%s", describe(sa), describe(sb))
	}
	if sa.Unseen() != 9+10 || sa.Deleted() != 0 {
		t.Fatalf("unseen %d deleted %d", sa.Unseen(), sa.Deleted())
	}
	if v, ok := sa.VanishedSince(302); !ok || v.String() != "10:19,31:279,281:290" {
		t.Fatal(v, ok)
	}
	if got := content(t, a, 300); got != "message 300\r\n" {
		t.Fatalf("content %q", got)
	}

	// Another mailbox: copy, move, rename, delete.
	if _, err := a.Account().Create(ctx, "Archive/2026", CreateOptions{SpecialUse: []string{`\Archive`}}); err != nil {
		t.Fatal(err)
	}
	dst, err := b.Account().Open(ctx, "Archive/2026")
	if err != nil {
		t.Fatal(err)
	}
	c, err := a.CopyTo(ctx, UIDSet{{1, 3}}, dst)
	if err != nil || fmt.Sprint(c.Source, c.Dest) != "[1 2 3] [1 2 3]" {
		t.Fatal(c, err)
	}
	c, err = b.MoveTo(ctx, UIDSet{{299, MaxUID}}, dst)
	if err != nil || fmt.Sprint(c.Source, c.Dest) != "[299 300] [4 5]" || c.State.Len() != 29 {
		t.Fatal(c, err)
	}
	if err := b.Account().Rename(ctx, "Archive", "Old"); err != nil {
		t.Fatal(err)
	}
	list, err := a.Account().Mailboxes(ctx)
	if err != nil || len(list) != 2 || list[1].Name != "Old/2026" || fmt.Sprint(list[1].SpecialUse) != "[Archive]" {
		t.Fatal(list, err)
	}
	if got := content(t, dst, 5); got != "message 300\r\n" {
		t.Fatalf("content %q", got)
	}
	if err := a.Account().Delete(ctx, "Old/2026"); err != nil {
		t.Fatal(err)
	}
	if _, err := dst.State(ctx); !errors.Is(err, ErrMailboxClosed) {
		t.Fatal("a deleted mailbox still answers:", err)
	}
	if r := verify(t, vfs.OS(), root); r.Messages != 29 || r.Mailboxes != 1 {
		t.Fatalf("%+v", r)
	}
}

func TestDeliver(t *testing.T) {
	ctx := context.Background()
	s := testStore(t, vfs.OS(), t.TempDir(), "box1")
	for _, size := range []int{1000, 700 << 10} {
		m := stage(t, s, strings.Repeat("x", size))
		var targets []Target
		for i := range 20 {
			a, err := s.Account(ctx, "vol01", fmt.Sprintf("account-%d", i))
			if err != nil {
				t.Fatal(err)
			}
			targets = append(targets, Target{Account: a})
		}
		targets = append(targets, Target{Account: targets[0].Account, Mailbox: "nowhere"})
		res := s.Deliver(ctx, m, targets)
		for i, r := range res[:20] {
			if r.Err != nil || r.UID == 0 {
				t.Fatal(i, r)
			}
		}
		if res[20].Err == nil {
			t.Fatal("delivered to a mailbox that does not exist")
		}
		m.Close()
		box := testInbox(t, s, "account-7")
		f, err := box.OpenMessage(ctx, res[7].UID)
		if err != nil {
			t.Fatal(err)
		}
		b := make([]byte, size)
		if n, _ := f.ReadAt(b, 0); n != size || !bytes.Equal(b, bytes.Repeat([]byte("x"), size)) {
			t.Fatal("content differs")
		}
		f.Close()
		info, err := s.fs.Lstat(f.path)
		if err != nil || info.Nlink != 20 {
			t.Fatalf("links: %d, want 20 (%v)", info.Nlink, err)
		}
	}
}
