package mailstore

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"shoal/daemons/internal/vfs"
)

// TestCosts pins the file operations of the common operations, on a network volume, where each is a call
// to the file server, and on a local one, where there are flushes besides.
func TestCosts(t *testing.T) {
	ctx := context.Background()
	for _, network := range []bool{true, false} {
		t.Run(map[bool]string{true: "network", false: "local"}[network], func(t *testing.T) {
			mem := vfs.NewMem(time.Now)
			mem.SetNetwork(network)
			f := vfs.NewFault(mem)
			s := testStore(t, f, "/", "box1")
			box := testInbox(t, s, "account-1")
			a := box.Account()
			if _, err := a.Create(ctx, "Archive", CreateOptions{}); err != nil {
				t.Fatal(err)
			}
			archive, err := a.Open(ctx, "Archive")
			if err != nil {
				t.Fatal(err)
			}
			for range 1000 {
				appendOne(t, box, "x", 0)
			}
			if err := box.j.checkpoint(ctx, true); err != nil {
				t.Fatal(err)
			}
			if _, err := archive.State(ctx); err != nil {
				t.Fatal(err)
			}
			m := stage(t, s, strings.Repeat("x", 4096))
			ok := func(err error) {
				t.Helper()
				if err != nil {
					t.Fatal(err)
				}
			}
			var w *Watcher
			for _, c := range []struct {
				what           string
				network, local string
				do             func()
			}{
				{"deliver 4 KB", "readdir:1 symlink:1 create:1 write:1 sync:1 close:1", "syncdir:1", func() {
					ok(s.Deliver(ctx, m, []Target{{Account: a}})[0].Err)
				}},
				{"flag change of 1", "readdir:1 symlink:1", "syncdir:1", func() {
					_, err := box.ChangeFlags(ctx, FlagChange{UIDs: UIDSet{{5, 5}}, Op: FlagsAdd, Flags: FlagSeen})
					ok(err)
				}},
				{"flag change of 1000", "readdir:1 symlink:1", "syncdir:1", func() {
					_, err := box.ChangeFlags(ctx, FlagChange{UIDs: UIDSet{{1, 1000}}, Op: FlagsAdd, Flags: FlagSeen})
					ok(err)
				}},
				{"poll", "readlink:1", "", func() { _, err := box.State(ctx); ok(err) }},
				{"expunge", "readdir:1 symlink:1", "syncdir:1", func() {
					_, err := box.Expunge(ctx, UIDSet{{1, 1}}, false)
					ok(err)
				}},
				{"read a message", "open:1 read:1 close:1", "", func() {
					x, err := box.OpenMessage(ctx, 7)
					ok(err)
					ok(x.Close())
				}},
				{"open by name", "readlink:1", "", func() { _, err := a.Open(ctx, "Archive"); ok(err) }},
				{"copy 100", "readlink:1 link:100 readdir:1 symlink:1 create:1 write:1 sync:1 close:1", "syncdir:2", func() {
					_, err := box.CopyTo(ctx, UIDSet{{101, 200}}, archive)
					ok(err)
				}},
				{"watch", "readdir:1 symlink:1", "", func() {
					var err error
					w, err = box.Watch(ctx)
					ok(err)
				}},
				{"commit while only this server watches", "readdir:1 symlink:1", "syncdir:1", func() {
					_, err := box.ChangeFlags(ctx, FlagChange{UIDs: UIDSet{{5, 5}}, Op: FlagsAdd, Flags: FlagFlagged})
					ok(err)
				}},
				{"cold open of 1000 messages, 4 records behind", "readlink:6 readdir:3 open:1 read:1 close:1", "lstat:1 syncdir:1 readdir:-1", func() {
					box.j.evict()
					_, err := box.State(ctx)
					ok(err)
				}},
			} {
				s.o.HintAddress = "127.0.0.1:1"
				f.Reset()
				c.do()
				want := parseCounts(c.network + " " + c.local)
				if network {
					want = parseCounts(c.network)
				}
				if got := parseCounts(f.Counts().String()); fmt.Sprint(got) != fmt.Sprint(want) {
					t.Errorf("%s: %v, want %v", c.what, f.Counts(), want)
				}
			}
			w.Close()
			m.Close()
		})
	}
}

func parseCounts(s string) map[string]int {
	out := map[string]int{}
	for _, f := range strings.Fields(s) {
		k, v, _ := strings.Cut(f, ":")
		var n int
		fmt.Sscan(v, &n)
		out[k] += n
	}
	return out
}

// TestOrder pins the order of what makes a delivery durable on a local volume: the message before its record,
// the record before the answer.
func TestOrder(t *testing.T) {
	f := vfs.NewFault(vfs.NewMem(time.Now))
	s := testStore(t, f, "/", "box1")
	box := testInbox(t, s, "account-1")
	appendOne(t, box, "first", 0)
	f.Reset()
	f.Record(true)
	appendOne(t, box, "second", 0)
	var got []string
	for _, c := range f.Trace() {
		path := strings.TrimPrefix(c.Path, box.j.dir)
		if i := strings.Index(path, "/m/0/"); i >= 0 {
			path = "/m/0/*"
		}
		got = append(got, c.Op.String()+" "+path)
	}
	want := "create /m/0/*, write /m/0/*, sync /m/0/*, close /m/0/*, symlink /log/0/3, syncdir /log/0, readdir /w"
	if g := strings.Join(got, ", "); g != want {
		t.Errorf("\n%s\nwant\n%s", g, want)
	}
}

// TestRecordLength: the record of a delivery stays within what ext4 and XFS keep in the inode of a link (59 bytes),
// also after the ten millionth name of a run, for servers with names of up to 8 letters.
func TestRecordLength(t *testing.T) {
	mem := vfs.NewMem(time.Now)
	s := testStore(t, mem, "/", "server-8")
	box := testInbox(t, s, "account-1")
	s.ctr.Store(10_000_000)
	appendOne(t, box, strings.Repeat("x", 1<<20), FlagSeen)
	var buf [1000]byte
	n, err := mem.Readlink(box.j.recordPath(2), buf[:])
	if err != nil || n > 59 {
		t.Errorf("%d bytes: %s (%v)", n, buf[:n], err)
	}
}
