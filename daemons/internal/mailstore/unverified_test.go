package mailstore

import (
	"context"
	"fmt"
	"syscall"
	"testing"
	"time"

	"shoal/daemons/internal/vfs"
)

// behindAFloor lets a server that is behind read a record that a stale writer has put into a segment under deletion, and fail before
// it can verify it. It returns what that server then shows and writes into a snapshot, and what is true.
func behindAFloor(t *testing.T, unverified bool) (shown, inSnapshot, truth string) {
	ctx := context.Background()
	shift := time.Duration(0)
	mem := vfs.NewMem(func() time.Time { return time.Now().Add(shift) })
	open := func(fs vfs.FS, server string) *Mailbox {
		s := testStore(t, fs, "/", server, func(o *Options) { o.Retention = time.Nanosecond })
		smallKnobs(s)
		s.knobs.unverified = unverified
		return testInbox(t, s, "account-1")
	}
	f := vfs.NewFault(mem)
	writer, behind := open(mem, "box1"), open(f, "box2")
	for i := range 6 { // records 2 to 7: the last in segment 1 is 8
		appendOne(t, writer, fmt.Sprint("message ", i+1), 0)
	}
	if _, err := behind.State(ctx); err != nil {
		t.Fatal(err)
	}
	for i := range 2 { // 8 and 9
		appendOne(t, writer, fmt.Sprint("later ", i), 0)
	}
	if err := writer.j.checkpoint(ctx, true); err != nil {
		t.Fatal(err)
	}
	shift = time.Hour
	for i := range 3 { // 10 to 12
		appendOne(t, writer, fmt.Sprint("latest ", i), 0)
	}
	if err := writer.j.compact(ctx); err != nil {
		t.Fatal(err)
	}
	if writer.j.floor != -1 {
		t.Fatal("the writer has seen the floor: the test tests nothing")
	}
	names, err := mem.ReadDir(writer.j.dir+"/"+dirLog, nil)
	if err != nil || fmt.Sprint(numbers(names)) != "[2]" {
		t.Fatalf("segments %v are left, want 2 (%v)", names, err)
	}
	// A stale writer, which does not know of the floor yet, expunges the first message as record 8.
	if err := mem.Mkdir(writer.j.segmentPath(1)); err != nil {
		t.Fatal(err)
	}
	if err := mem.Symlink("box3.1.1 X 1", writer.j.recordPath(8)); err != nil {
		t.Fatal(err)
	}
	failed := false
	f.Hook(func(c vfs.Call) vfs.Action {
		if c.Op == vfs.OpReadDir && c.Path == behind.j.dir+"/"+dirInterest && !failed {
			failed = true
			return vfs.Action{Err: syscall.EIO}
		}
		return vfs.Action{}
	})
	if _, err := behind.State(ctx); err == nil || !failed {
		t.Fatalf("the listing did not fail (%v)", err)
	}
	f.Hook(nil)
	st, err := behind.State(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if err := behind.j.checkpoint(ctx, true); err != nil {
		t.Fatal(err)
	}
	fresh, err := open(mem, "box4").State(ctx)
	if err != nil {
		t.Fatal(err)
	}
	now, err := writer.State(ctx)
	if err != nil {
		t.Fatal(err)
	}
	return describe(st), describe(fresh), describe(now)
}

// TestSnapshotOfAnUnverifiedFold: what was read and could not be verified is neither shown nor written into a snapshot.
func TestSnapshotOfAnUnverifiedFold(t *testing.T) {
	shown, inSnapshot, truth := behindAFloor(t, false)
	if shown != truth || inSnapshot != truth {
		t.Errorf("shown\n%s\nin the snapshot\n%s\nwant\n%s", shown, inSnapshot, truth)
	}
}

// TestSnapshotOfAnUnverifiedFoldIsCaught shows that the test above can fail.
func TestSnapshotOfAnUnverifiedFoldIsCaught(t *testing.T) {
	shown, inSnapshot, truth := behindAFloor(t, true)
	if shown == truth || inSnapshot == truth {
		t.Errorf("an unverified fold was kept, and nobody noticed:\n%s", shown)
	}
}
