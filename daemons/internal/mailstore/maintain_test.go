package mailstore

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"shoal/daemons/internal/vfs"
)

// files lists a directory, sorted.
func files(t *testing.T, fs vfs.FS, dir string) []string {
	t.Helper()
	names, err := fs.ReadDir(dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(names)
	return names
}

// TestRetention follows what is deleted through its ages by the file server's clock.
func TestRetention(t *testing.T) {
	ctx := context.Background()
	shift := time.Duration(0)
	mem := vfs.NewMem(func() time.Time { return time.Now().Add(shift) })
	// The clock of the servers is wrong by years, which must not matter.
	maintain := func(age time.Duration) {
		t.Helper()
		shift = age
		s := testStore(t, mem, "/", "tidy")
		a, err := s.Account(ctx, "vol01", "account-1")
		if err == nil {
			err = errors.Join(a.Maintain(ctx), s.Purge(ctx, "vol01"))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	s := testStore(t, mem, "/", "box1")
	box := testInbox(t, s, "account-1")
	for i := range 300 {
		appendOne(t, box, fmt.Sprint("message ", i), 0)
	}
	if _, err := box.Expunge(ctx, UIDSet{{1, 100}}, false); err != nil {
		t.Fatal(err)
	}
	if _, err := box.Account().Create(ctx, "Gone", CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	gone, err := box.Account().Open(ctx, "Gone")
	if err != nil {
		t.Fatal(err)
	}
	appendOne(t, gone, "in a deleted mailbox", 0)
	if err := box.Account().Delete(ctx, "Gone"); err != nil {
		t.Fatal(err)
	}

	maintain(0) // snapshots are written
	segments := func() int { return len(files(t, mem, box.j.dir+"/log")) }
	messages := func() int { return len(files(t, mem, box.j.dir+"/m/0")) }
	if segments() != 3 || messages() != 300 || len(files(t, mem, box.j.dir+"/snap")) == 0 {
		t.Errorf("at once: %d segments, %d files", segments(), messages())
	}
	maintain(23 * time.Hour)
	if segments() != 3 || messages() != 300 {
		t.Errorf("after 23 hours: %d segments, %d files", segments(), messages())
	}
	maintain(25 * time.Hour)
	if segments() != 1 || messages() != 200 {
		t.Errorf("after 25 hours: %d segments, %d files", segments(), messages())
	}
	if got := strings.Join(files(t, mem, box.j.dir+"/w"), " "); got != "floor.1" {
		t.Errorf("w/ holds %s", got)
	}
	trash := files(t, mem, "/trash")
	if len(trash) != 1 || trash[0] != "account-1."+gone.ID() {
		t.Errorf("trash: %v", trash)
	}
	maintain(47 * time.Hour)
	if len(files(t, mem, "/trash")) != 1 {
		t.Error("purged after 47 hours")
	}
	maintain(49 * time.Hour)
	if left := files(t, mem, "/trash"); len(left) != 0 {
		t.Errorf("not purged after 49 hours: %v", left)
	}

	// The server that has been asleep all the time goes on where it was.
	if uid := appendOne(t, box, "after all that", 0); uid != 301 {
		t.Errorf("UID %d, want 301", uid)
	}
	st, err := box.State(ctx)
	if err != nil || st.Len() != 201 || st.dead != nil {
		t.Errorf("%d messages, %d dead (%v)", st.Len(), len(st.dead), err)
	}
	verify(t, mem, "/")
}

// TestDeathInDelete: a server dies between deleting a mailbox from the list and closing it; another ends what it began.
func TestDeathInDelete(t *testing.T) {
	ctx := context.Background()
	shift := time.Duration(0)
	mem := vfs.NewMem(func() time.Time { return time.Now().Add(shift) })
	f := vfs.NewFault(mem)
	box := testInbox(t, testStore(t, f, "/", "box1"), "account-1")
	a := box.Account()
	if _, err := a.Create(ctx, "Gone", CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	other := testStore(t, mem, "/", "box2")
	b, err := other.Account(ctx, "vol01", "account-1")
	if err != nil {
		t.Fatal(err)
	}
	held, err := b.Open(ctx, "Gone")
	if err != nil {
		t.Fatal(err)
	}
	appendOne(t, held, "x", 0)
	f.Hook(func(c vfs.Call) vfs.Action {
		return vfs.Action{Crash: strings.Contains(c.Path, "/b/"+held.ID()), Err: nil}
	})
	if err := a.Delete(ctx, "Gone"); err == nil {
		t.Fatal("the server did not die")
	}
	if _, err := b.Open(ctx, "Gone"); !errors.Is(err, ErrNoMailbox) {
		t.Error(err)
	}
	if err := b.Maintain(ctx); err != nil {
		t.Fatal(err)
	}
	if _, err := held.State(ctx); !errors.Is(err, ErrMailboxClosed) {
		t.Error("still open:", err)
	}
	shift = 25 * time.Hour
	c, err := testStore(t, mem, "/", "box3").Account(ctx, "vol01", "account-1")
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Maintain(ctx); err != nil {
		t.Fatal(err)
	}
	if len(files(t, mem, "/trash")) != 1 {
		t.Error("not in the trash")
	}
}

// TestHalfMade: a mailbox that a server began to make and never listed is left alone at first, and goes in the end.
func TestHalfMade(t *testing.T) {
	ctx := context.Background()
	shift := time.Duration(0)
	mem := vfs.NewMem(func() time.Time { return time.Now().Add(shift) })
	s := testStore(t, mem, "/", "box1")
	box := testInbox(t, s, "account-1")
	for _, stop := range []string{"/m", "/w", "/log/0/1", "nowhere"} {
		f := vfs.NewFault(mem)
		dying, err := testStore(t, f, "/", "box2").Account(ctx, "vol01", "account-1")
		if err != nil {
			t.Fatal(err)
		}
		list := dying.dir + "/log/"
		f.Hook(func(c vfs.Call) vfs.Action {
			return vfs.Action{Crash: strings.HasSuffix(c.Path, stop) || c.Op == vfs.OpSymlink && strings.HasPrefix(c.Path, list)}
		})
		if _, err := dying.Create(ctx, "Half", CreateOptions{}); err == nil {
			t.Fatal("the server did not die")
		}
	}
	boxes := func() int { return len(files(t, mem, box.Account().dir+"/b")) }
	if boxes() != 5 {
		t.Fatalf("%d directories", boxes())
	}
	for _, age := range []time.Duration{6 * 24 * time.Hour, 8 * 24 * time.Hour, 10 * 24 * time.Hour, 13 * 24 * time.Hour} {
		shift = age
		fresh := testStore(t, mem, "/", "box3")
		a, err := fresh.Account(ctx, "vol01", "account-1")
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(a.Maintain(ctx), fresh.Purge(ctx, "vol01")); err != nil {
			t.Fatal(err)
		}
		if age < 7*24*time.Hour && boxes() != 5 {
			t.Error("removed while it might still be in the making")
		}
	}
	if boxes() != 1 || len(files(t, mem, "/trash")) != 0 {
		t.Errorf("%d directories, trash %v", boxes(), files(t, mem, "/trash"))
	}
	verify(t, mem, "/")
}

// TestBackground: a running store writes snapshots by itself, and walks its volumes.
func TestBackground(t *testing.T) {
	ctx := context.Background()
	mem := vfs.NewMem(time.Now)
	s := testStore(t, mem, "/", "box1", func(o *Options) { o.Maintain = true })
	box := testInbox(t, s, "account-1")
	for range 40 {
		appendOne(t, box, "x", 0)
	}
	eventually(t, "a snapshot is written", func() bool { return len(files(t, mem, box.j.dir+"/snap")) > 0 })
	var slice int
	dir := strings.Split(box.Account().dir, "/")
	fmt.Sscanf(dir[len(dir)-2], "%x", &slice)
	orphan := box.j.dir + "/tmp/leftover"
	if err := writeFile(mem, orphan, nil); err != nil {
		t.Fatal(err)
	}
	v := mustVolume(s)
	for range 2 {
		if err := s.walkSlice(ctx, v, slice); err != nil {
			t.Fatal(err)
		}
	}
	if got := files(t, mem, "/maint"); len(got) != 1 || got[0] != dir[len(dir)-2] {
		t.Errorf("stamps: %v", got)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Account(ctx, "vol01", "account-1"); !errors.Is(err, ErrClosed) {
		t.Error(err)
	}
	verify(t, mem, "/")
}
