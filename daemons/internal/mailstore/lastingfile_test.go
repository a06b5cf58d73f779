package mailstore

import (
	"bytes"
	"context"
	"strings"
	"syscall"
	"testing"
	"time"

	"shoal/daemons/internal/vfs"
)

// A long message whose handle goes stale while it is read is read on by its name; when that is gone too, the reader is told.
func TestStaleMessageFile(t *testing.T) {
	ctx := context.Background()
	mem := vfs.NewMem(time.Now)
	mem.SetNetwork(true)
	fault := vfs.NewFault(mem)
	s := testStore(t, fault, "/", "box1")
	m := testInbox(t, s, "account-1")
	text := strings.Repeat("0123456789abcde\n", 2*inMemory/16)
	uid := appendOne(t, m, text, 0)
	f, err := m.OpenMessage(ctx, uid)
	check(t, err)
	defer f.Close()
	stale := 0 // how many reads and opens fail from now on
	fault.Hook(func(c vfs.Call) vfs.Action {
		if stale > 0 && (c.Op == vfs.OpRead || c.Op == vfs.OpOpen) {
			stale--
			return vfs.Action{Err: syscall.ESTALE}
		}
		return vfs.Action{}
	})
	buf := make([]byte, 4096)
	for _, off := range []int64{0, inMemory, f.Size() - 4096} {
		stale = 1
		n, err := f.ReadAt(buf, off)
		if err != nil || n != len(buf) || !bytes.Equal(buf, []byte(text[off:off+4096])) {
			t.Fatalf("at %d: %d bytes, %v", off, n, err)
		}
		if stale != 0 {
			t.Fatal("nothing was read: nothing was put to the test")
		}
	}
	stale = 2
	if _, err := f.ReadAt(buf, 0); err == nil || !strings.Contains(err.Error(), "stale") {
		t.Errorf("neither by handle nor by name: %v", err)
	}
}
