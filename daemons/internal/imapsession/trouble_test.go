package imapsession

import (
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"shoal/daemons/internal/vfs"
)

// Troubles of the store become answers that say what kind they are, nothing half-done is left, and the
// session goes on.
func TestStoreTroubles(t *testing.T) {
	t.Parallel()
	fault := vfs.NewFault(vfs.OS())
	r := newRigOn(t, newStore(t, "box1", fault, t.TempDir()), nil)
	r.deliver("alice", "INBOX", sample, sample, sample)
	c := r.connect("alice")
	c.ok("SELECT INBOX")
	fails := func(op vfs.Op, err error, command, answer string) {
		t.Helper()
		fault.Hook(func(call vfs.Call) vfs.Action {
			if call.Op == op {
				return vfs.Action{Err: err}
			}
			return vfs.Action{}
		})
		_, tagged := c.do(command)
		fault.Hook(nil)
		if !strings.HasPrefix(tagged, answer) {
			t.Errorf("%s with %v: %s", command, err, tagged)
		}
	}
	big := "APPEND INBOX {500000+}\r\n" + strings.Repeat("x", 500000)
	fails(vfs.OpWrite, syscall.ENOSPC, "APPEND INBOX {6+}\r\na: b\r\n", "NO [OVERQUOTA]")
	fails(vfs.OpWrite, syscall.EDQUOT, big, "NO [OVERQUOTA]")
	fails(vfs.OpSymlink, syscall.ENOSPC, `STORE 1 +FLAGS (\Seen)`, "NO [OVERQUOTA]")
	fails(vfs.OpSymlink, syscall.EROFS, `STORE 1 +FLAGS (\Seen)`, "NO [UNAVAILABLE]")
	fails(vfs.OpOpen, syscall.EIO, "FETCH 1 (FLAGS BODY.PEEK[])", "NO [")
	fails(vfs.OpOpen, syscall.EIO, "SEARCH BODY hello", "NO [")
	// Nothing of it has happened.
	if got := c.ok("FETCH 1:* (FLAGS)"); strings.Join(got, " ") != `* 1 FETCH (FLAGS ()) * 2 FETCH (FLAGS ()) * 3 FETCH (FLAGS ())` {
		t.Errorf("after the troubles: %q", got)
	}
	c.ok("APPEND INBOX {6+}\r\na: b\r\n")
}

// A volume that hangs holds up who uses it, for a bounded time, and nobody else.
func TestHungVolume(t *testing.T) {
	t.Parallel()
	mem := vfs.NewMem(time.Now)
	mem.SetNetwork(true)
	if err := mem.Mkdir("/vol"); err != nil {
		t.Fatal(err)
	}
	fault := vfs.NewFault(mem)
	r := newRigOn(t, newStore(t, "box1", fault, "/vol"), func(o *Options) { o.Limits.CommandTimeout = 100 * time.Millisecond })
	r.deliver("alice", "INBOX", sample)
	c := r.connect("alice")
	c.ok("SELECT INBOX")
	release := make(chan struct{})
	var hung atomic.Int32
	fault.Hook(func(call vfs.Call) vfs.Action {
		hung.Add(1)
		return vfs.Action{Wait: release}
	})
	if _, tagged := c.do(`STORE 1 +FLAGS (\Seen)`); !strings.HasPrefix(tagged, "NO [UNAVAILABLE]") {
		t.Errorf("STORE on a volume that hangs: %s", tagged)
	}
	if hung.Load() == 0 {
		t.Error("nothing hung")
	}
	conn, err := r.dial()
	other := newClient(t, conn, err)
	other.expect("* OK")
	other.ok("NOOP")
	fault.Hook(nil)
	close(release)
	c.ok("NOOP")
}
