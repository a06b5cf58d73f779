package mailstore

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"

	"shoal/daemons/internal/vfs"
)

// TestReserve: on a full volume messages are refused, and what makes room goes on at the cost of the reserve; when there is
// room again the reserve is made whole and messages are taken.
func TestReserve(t *testing.T) {
	ctx := context.Background()
	for _, errno := range []syscall.Errno{syscall.ENOSPC, syscall.EDQUOT} {
		t.Run(errno.Error(), func(t *testing.T) {
			f := vfs.NewFault(vfs.NewMem(time.Now))
			s := testStore(t, f, "/", "box1")
			v := mustVolume(s)
			if err := v.refill(); err != nil {
				t.Fatal(err)
			}
			box := testInbox(t, s, "account-1")
			for i := range 40 {
				appendOne(t, box, fmt.Sprint("message ", i), 0)
			}
			parts := func() int {
				names, err := f.ReadDir(v.reserveDir(), nil)
				if err != nil {
					t.Fatal(err)
				}
				return len(names)
			}
			if n := parts(); n != reserveFiles {
				t.Fatalf("the reserve has %d files, want %d", n, reserveFiles)
			}
			// Full: what is new needs something that was removed.
			full, room := true, 0
			f.Hook(func(c vfs.Call) vfs.Action {
				switch c.Op {
				case vfs.OpUnlink:
					room++
				case vfs.OpCreate, vfs.OpSymlink, vfs.OpMkdir, vfs.OpLink:
					if !full {
						break
					}
					if room == 0 {
						return vfs.Action{Err: errno}
					}
					room--
				}
				return vfs.Action{}
			})
			m := stage(t, s, "one too many")
			defer m.Close()
			deliver := func() error {
				return s.Deliver(ctx, m, []Target{{Account: box.Account()}})[0].Err
			}
			if err := deliver(); !errors.Is(err, ErrNoSpace) || parts() != reserveFiles {
				t.Errorf("a delivery to a full volume: %v; %d files of the reserve are left", err, parts())
			}
			room = 0
			for uid := uint32(1); uid <= 10; uid++ {
				if _, err := box.ChangeFlags(ctx, FlagChange{UIDs: UIDSet{{uid, uid}}, Op: FlagsAdd, Flags: FlagDeleted}); err != nil {
					t.Fatalf("flag on a full volume: %v", err)
				}
				if _, err := box.Expunge(ctx, nil, true); err != nil {
					t.Fatalf("expunge on a full volume: %v", err)
				}
			}
			if err := box.j.checkpoint(ctx, true); err != nil {
				t.Errorf("snapshot on a full volume: %v", err)
			}
			if n := parts(); n > reserveFiles-20 {
				t.Errorf("%d files of the reserve are left: what was the expunge paid with?", n)
			}
			// Some room does not let messages in before the reserve is whole.
			room = 3
			if err := deliver(); !errors.Is(err, ErrNoSpace) || !strings.Contains(err.Error(), "kept for expunges") {
				t.Errorf("a delivery while the reserve is in use: %v", err)
			}
			if err := v.refill(); err != nil || !v.low.Load() {
				t.Errorf("still full: %v, messages are taken: %v", err, !v.low.Load())
			}
			full = false
			if err := v.refill(); err != nil || parts() != reserveFiles {
				t.Errorf("room again: %v, the reserve has %d files", err, parts())
			}
			if err := deliver(); err != nil {
				t.Error(err)
			}
			f.Hook(nil)
			verify(t, f, "/")
		})
	}
}

// TestReserveUsedUp: without a reserve the refusal is passed on, and nothing has happened.
func TestReserveUsedUp(t *testing.T) {
	ctx := context.Background()
	f := vfs.NewFault(vfs.NewMem(time.Now))
	s := testStore(t, f, "/", "box1")
	box := testInbox(t, s, "account-1")
	appendOne(t, box, "message", 0)
	f.Hook(func(c vfs.Call) vfs.Action {
		if c.Op == vfs.OpSymlink {
			return vfs.Action{Err: syscall.ENOSPC}
		}
		return vfs.Action{}
	})
	if _, err := box.Expunge(ctx, UIDSet{{1, 1}}, false); !errors.Is(err, ErrNoSpace) {
		t.Error(err)
	}
	f.Hook(nil)
	if st, err := box.State(ctx); err != nil || st.Len() != 1 {
		t.Error(st.Len(), err)
	}
}

// Close waits for what goes on by itself: no call is under way on a volume afterwards.
func TestNothingIsUnderWayAfterClose(t *testing.T) {
	for range 20 {
		s := testStore(t, vfs.OS(), t.TempDir(), "box1")
		v := mustVolume(s)
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		if n := len(v.slots); n > 0 {
			t.Fatalf("%d calls are under way after Close", n)
		}
	}
}
