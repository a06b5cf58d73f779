package mailstore

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"shoal/daemons/internal/vfs"
)

// spoil overwrites a file in place.
func spoil(t *testing.T, fs vfs.FS, path, content string) {
	t.Helper()
	f, err := fs.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.Write([]byte(content)); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
}

// TestCorruptSnapshot: one that does not read back costs time, no mail, as long as there is another way; then it goes.
func TestCorruptSnapshot(t *testing.T) {
	ctx := context.Background()
	shift := time.Duration(0)
	mem := vfs.NewMem(func() time.Time { return time.Now().Add(shift) })
	s := testStore(t, mem, "/", "box1")
	box := testInbox(t, s, "account-1")
	for i := range 300 {
		appendOne(t, box, fmt.Sprint(i), 0)
		if i%100 == 99 {
			if err := box.j.checkpoint(ctx, true); err != nil {
				t.Fatal(err)
			}
		}
	}
	if got := fmt.Sprint(files(t, mem, box.j.dir+"/snap")); got != "[101 201 301]" {
		t.Fatal(got)
	}
	spoil(t, mem, box.j.snapPath(301), "shoal-snapshot 1.0 mailbox\nn 301\nv 9 9 0 - -\n")
	look := func() *State {
		t.Helper()
		st, err := testInbox(t, testStore(t, mem, "/", "box2"), "account-1").State(ctx)
		if err != nil {
			t.Fatal(err)
		}
		return st
	}
	if st := look(); st.Len() != 300 {
		t.Errorf("%d messages", st.Len())
	}
	shift = 25 * time.Hour
	fresh := testInbox(t, testStore(t, mem, "/", "box3"), "account-1")
	if err := fresh.j.compact(ctx); err != nil {
		t.Fatal(err)
	}
	if got := fmt.Sprint(files(t, mem, box.j.dir+"/snap"), files(t, mem, box.j.dir+"/w"), files(t, mem, box.j.dir+"/log")); got != "[101 201] [floor.0] [1 2]" {
		t.Errorf("%s: a floor may rest on snapshot 201 only", got)
	}
	if st := look(); st.Len() != 300 {
		t.Errorf("%d messages", st.Len())
	}
	verify(t, mem, "/")

	// When the last one goes, the mailbox does not turn up empty.
	for _, n := range []uint64{101, 201} {
		spoil(t, mem, box.j.snapPath(n), "x")
	}
	if _, err := testInbox(t, testStore(t, mem, "/", "box4"), "account-1").State(ctx); !errors.Is(err, ErrCorrupt) {
		t.Error(err)
	}
}

// TestVerifyFinds: every kind of damage is found and named.
func TestVerifyFinds(t *testing.T) {
	ctx := context.Background()
	for _, c := range []struct {
		says   string
		want   error // of reading the mailbox
		damage func(mem *vfs.Mem, m *Mailbox) error
	}{
		{"is missing", nil, func(mem *vfs.Mem, m *Mailbox) error { return mem.Unlink(file(m, 2)) }},
		{"checksum is", nil, func(mem *vfs.Mem, m *Mailbox) error { spoil(t, mem, file(m, 2), "M"); return nil }},
		{"bytes, its name says", nil, func(mem *vfs.Mem, m *Mailbox) error { spoil(t, mem, file(m, 2), "longer than it was"); return nil }},
		{"missing: the log goes on", nil, func(mem *vfs.Mem, m *Mailbox) error {
			if err := m.j.checkpoint(ctx, true); err != nil {
				return err
			}
			return mem.Unlink(m.j.recordPath(3))
		}},
		{"op \"Q\"", ErrNewerFormat, func(mem *vfs.Mem, m *Mailbox) error { return mem.Symlink("box1.abc.1 Q", m.j.recordPath(m.j.known+1)) }},
		{"bad nonce", ErrCorrupt, func(mem *vfs.Mem, m *Mailbox) error { return mem.Symlink("nonsense here", m.j.recordPath(m.j.known+1)) }},
		{"its file is missing", ErrCorrupt, func(mem *vfs.Mem, m *Mailbox) error {
			return mem.Symlink("box1.abc.1 @10.5", m.j.recordPath(m.j.known+1))
		}},
		{"checksum", ErrCorrupt, func(mem *vfs.Mem, m *Mailbox) error {
			n := m.j.known + 1
			spoil(t, mem, m.j.spillPath(n, nonce{"box1.abc", 1}), "Z")
			return mem.Symlink("box1.abc.1 @1.5", m.j.recordPath(n))
		}},
		{"not a record", ErrCorrupt, func(mem *vfs.Mem, m *Mailbox) error { return mem.Mkdir(m.j.recordPath(m.j.known + 1)) }},
		{"the nonce of record", nil, func(mem *vfs.Mem, m *Mailbox) error {
			var buf [1000]byte
			n, err := mem.Readlink(m.j.recordPath(3), buf[:])
			if err != nil {
				return err
			}
			return mem.Symlink(string(buf[:n]), m.j.recordPath(m.j.known+1))
		}},
		{"another state", nil, func(mem *vfs.Mem, m *Mailbox) error {
			if err := m.j.checkpoint(ctx, true); err != nil {
				return err
			}
			if err := mem.Unlink(m.j.recordPath(3)); err != nil {
				return err
			}
			return mem.Symlink("box1.abc.1 F +D 1", m.j.recordPath(3))
		}},
		{"w: mailbox was deleted", ErrMailboxClosed, func(mem *vfs.Mem, m *Mailbox) error { return mem.Rmdir(m.j.dir + "/w") }},
		{"listed but closed", ErrMailboxClosed, func(mem *vfs.Mem, m *Mailbox) error {
			return m.Account().bury(ctx, m.ID(), "INBOX")
		}},
	} {
		mem := vfs.NewMem(time.Now)
		box := testInbox(t, testStore(t, mem, "/", "box1"), "account-1")
		for i := range 4 {
			appendOne(t, box, fmt.Sprint("message ", i), 0)
		}
		verify(t, mem, "/")
		if err := c.damage(mem, box); err != nil {
			t.Fatal(err)
		}
		r, err := testStore(t, mem, "/", "verifier").Verify(ctx, "vol01", VerifyOptions{Content: true})
		if err != nil {
			t.Errorf("%s: %v", c.says, err)
			continue
		}
		found := fmt.Sprint(r.Problems)
		if !strings.Contains(found, c.says) || !strings.Contains(found, box.j.dir) {
			t.Errorf("want a problem that says %q, found %s", c.says, found)
		}
		m := testInbox(t, testStore(t, mem, "/", "reader"), "account-1")
		if _, err := m.State(ctx); !errors.Is(err, c.want) || c.want == nil && err != nil {
			t.Errorf("%s: reading: %v, want %v", c.says, err, c.want)
		}
	}
}

func file(m *Mailbox, uid uint32) string {
	msg, _ := m.Cached().ByUID(uid)
	return m.j.messagePath(msg.dir(), msg.msgID())
}
