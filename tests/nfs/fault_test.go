package nfs

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"shoal/daemons/nfsguest/proto"
)

// squashed is the export of the fault tests: everything belongs to one user, for whom there are quotas. The super-user has none.
const squashed = "rw,sync,all_squash,anonuid=1000,anongid=1000,fsid=0,no_subtree_check,insecure"

// trial is a history in which single writers do everything in turn, while something is wrong with the volume.
type trial struct {
	*history
	w []*writer // one at each client
	n int
}

func newTrial(r *rig, account string) *trial {
	r.t.Helper()
	x := &trial{history: newHistory(r, account, 2)}
	for i := range r.clients {
		x.w = append(x.w, x.writer(i, i, seed))
	}
	return x
}

// everything does each kind of operation once, in turn, through one client; before each it calls between, if there is one.
func (x *trial) everything(w *writer, between func()) {
	if between == nil {
		between = func() {}
	}
	a, b := x.fixed[0], x.fixed[1]
	w.read(a)
	for _, size := range []int{300, 9000, large} {
		between()
		x.n++
		w.put(a, fmt.Sprintf("trial.%d", x.n), 0, size)
	}
	if s := w.seen[a]; s != nil && len(s.msgs) > 0 {
		between()
		w.flags(a, s)
		between()
		w.copyTo(a, b, s, false)
		between()
		w.copyTo(a, b, s, true)
		between()
		w.remove(a, s)
	}
	x.n++
	name := fmt.Sprintf("trial%d", x.n)
	between()
	w.create(name, false)
	between()
	c := w.ask(w.k, w.name, w.id, proto.Do{Kind: "rename", Box: name, To: name + "r"})
	c.note(listed, operation{kind: opRename, name: name, to: name + "r"}, c.inList())
	between()
	w.delete(name+"r", "")
	w.list()
	between()
	w.ask(w.k, w.name, w.id, proto.Do{Kind: "maintain"})
}

// works sees to it that everything is possible again through every client.
func (x *trial) works() {
	x.r.t.Helper()
	for _, w := range x.w {
		before := x.troubles()
		for deadline := time.Now().Add(callTime); ; {
			x.everything(w, nil)
			now := x.troubles()
			if now == before {
				break
			}
			if before = now; time.Now().After(deadline) {
				x.r.t.Fatalf("%s does not recover: refused %v, without an answer %v", w.k.name, x.refused, x.unknown)
			}
		}
	}
}

// troubles counts the operations that did not succeed.
func (x *trial) troubles() (n int) {
	x.mu.Lock()
	defer x.mu.Unlock()
	for _, m := range []map[string]int{x.refused, x.unknown} {
		for _, k := range m {
			n += k
		}
	}
	return n
}

// during does something to the rig, then f, and reports what was acknowledged before and after, and what was not, and why.
func (x *trial) during(what string, f func()) {
	x.r.t.Helper()
	x.mu.Lock()
	before := x.told
	x.refused, x.unknown = map[string]int{}, map[string]int{}
	x.mu.Unlock()
	f()
	x.mu.Lock()
	defer x.mu.Unlock()
	x.r.t.Logf("%s: %d operations acknowledged before, %d by now; refused: %v; without an answer: %v", what, before, x.told, x.refused, x.unknown)
}

// expect demands that operations of these kinds were refused for a reason.
func (x *trial) expect(reason string, kinds ...string) {
	x.r.t.Helper()
	x.mu.Lock()
	defer x.mu.Unlock()
	for _, k := range kinds {
		if x.refused[k+": "+reason] == 0 {
			x.r.t.Errorf("no %s was refused with %q: %v", k, reason, x.refused)
		}
	}
}

// TestFullVolume: a limit that leaves room for 0, 1, 2 ... files or blocks fails each operation in its first step, in its second,
// and so on. Nothing that was refused has happened, nothing that was acknowledged is lost, and all goes on when there is room.
// Limits of a user answer EDQUOT, those of a project ENOSPC; so does the disk itself when it is full.
func TestFullVolume(t *testing.T) {
	r := plan{fs: "xfs", clients: 2, disk: "uquota,pquota", export: squashed, size: 400 << 20}.boot(t)
	r.server.run("xfs_quota", "-x", "-c", "project -s -p "+proto.Disk+"/export 7", proto.Disk)
	r.tiny(false)
	x := newTrial(r, "full-account")
	x.works()
	for _, c := range []struct {
		what, reason string
		limit        proto.Limit
		files        bool
	}{
		{"quota of a user, files", "disk quota exceeded", proto.Limit{ID: 1000}, true},
		{"quota of a user, blocks", "disk quota exceeded", proto.Limit{ID: 1000}, false},
		{"limit of a project, files", "no space left on device", proto.Limit{ID: 7, Project: true}, true},
		{"limit of a project, blocks", "no space left on device", proto.Limit{ID: 7, Project: true}, false},
	} {
		x.during(c.what, func() {
			for room := range 12 {
				c.limit.Files, c.limit.KiB = room, -1
				if !c.files {
					c.limit.Files, c.limit.KiB = -1, 32*room // a change of a directory reserves a lot
				}
				x.everything(x.w[room%2], func() { call[proto.None](r.server, "Limit", c.limit) })
			}
			c.limit.Files, c.limit.KiB = -1, -1
			call[proto.None](r.server, "Limit", c.limit)
		})
		kinds := []string{"append"}
		if c.files {
			kinds = append(kinds, "create") // the others may get what the reserve gives back
		}
		x.expect(c.reason, kinds...)
		x.works()
	}
	x.during("the disk is full", func() {
		_, err := try[[]byte](r.server, "Run", []string{"dd", "if=/dev/zero", "of=" + proto.Disk + "/fill", "bs=256k"})
		if err == nil || errors.Is(err, errDied) {
			t.Fatal("dd did not fill the disk: ", err)
		}
		for _, w := range x.w {
			x.everything(w, nil)
			box := x.fixed[0]
			w.read(box) // what there is no room for is made room for
			s := w.seen[box]
			if s == nil || len(s.msgs) == 0 {
				t.Fatal("nothing is left that could be expunged")
			}
			uid := s.msgs[0].uid
			a := w.ask(w.k, w.name, w.id, proto.Do{Kind: "expunge", Box: box, UIDs: []uint32{uid}})
			a.note(box, operation{kind: opRemove, uids: []uint32{uid}}, a.outcome())
			if a.Err != "" || len(a.UIDs) != 1 {
				t.Errorf("%s: expunge on a full disk: %q %v", w.k.name, a.Err, a.UIDs)
			}
		}
		r.server.run("rm", proto.Disk+"/fill")
	})
	x.expect("no space left on device", "append")
	x.works()
	x.finish()
}

// TestVolumeGoesAway: the volume becomes read-only, at the file server and at a client; it is unmounted under a running store, and
// put back; the file server gets a new tree with the same content, so that all handles are stale; a mailbox is removed under
// the store.
func TestVolumeGoesAway(t *testing.T) {
	r := plan{fs: "xfs", clients: 2}.boot(t)
	r.tiny(false)
	x := newTrial(r, "away-account")
	x.works()
	a, k := x.w[0], r.clients[0]
	x.during("read-only at the file server", func() {
		r.server.insist("mount", "-o", "remount,ro", proto.Disk)
		x.everything(a, nil)
		r.server.run("mount", "-o", "remount,rw", proto.Disk)
	})
	x.expect("read-only file system", "append", "flags", "copy", "move", "expunge", "create")
	x.works()
	x.during("read-only at a client", func() {
		k.insist("mount", "-i", "-o", "remount,ro", proto.Export)
		x.everything(a, nil)
		k.run("mount", "-i", "-o", "remount,rw", proto.Export)
	})
	x.expect("read-only file system", "append", "flags", "copy", "move", "expunge", "create")
	x.works()
	for _, how := range []string{"-l", "-fl"} {
		x.during("umount "+how+" under a running store", func() {
			k.run("umount", how, proto.Export)
			x.everything(a, nil)
			if found := k.run("find", proto.Export, "-mindepth", "1"); found != "" {
				t.Errorf("written into the empty mount point:\n%s", found)
			}
			call[proto.None](k, "Mount", proto.None{})
		})
		x.works()
	}
	x.during("all handles are stale", func() {
		r.replaceTree()
		for _, w := range x.w {
			x.everything(w, nil)
		}
	})
	x.works()
	x.staleMessage()
	x.works()
	x.finish()

	gone := newTrial(r, "gone-account")
	gone.during("a mailbox is removed at the file server", func() {
		for _, w := range gone.w {
			gone.everything(w, nil)
		}
		box := gone.fixed[0]
		r.server.run("sh", "-c", "rm -rf "+proto.Disk+"/export/a/*/gone-account/b/"+box)
		for _, w := range gone.w {
			for _, d := range []proto.Do{{Kind: "append", Token: "x", Size: 300}, {Kind: "flags", UIDs: []uint32{1}, Sign: "+", Mask: 1}, {Kind: "expunge", UIDs: []uint32{1}}} {
				d.Box = box
				if got := w.ask(w.k, w.name, w.id, d); got.Err == "" {
					t.Errorf("%s: %s in a mailbox that is gone was acknowledged", w.k.name, d.Kind)
				}
			}
			w.read(gone.fixed[1])
			w.put(gone.fixed[1], "still "+w.name, 0, 300)
		}
	})
	gone.refused, gone.unknown = map[string]int{}, map[string]int{}
	for _, w := range gone.w {
		w.read(gone.fixed[1])
		w.put(gone.fixed[1], "after "+w.name, 0, 300)
	}
	if n := gone.troubles(); n > 0 {
		t.Errorf("another mailbox is in trouble: %v %v", gone.refused, gone.unknown)
	}
}

// replaceTree puts a copy of the exported tree in its place: no handle stands for anything any more.
func (r *rig) replaceTree() {
	dir := proto.Disk + "/export"
	r.server.run("cp", "-a", dir, dir+".new")
	r.server.run("mv", dir, dir+".old")
	r.server.run("mv", dir+".new", dir)
	r.server.run("exportfs", "-f")
	r.server.run("rm", "-rf", dir+".old")
	r.server.run("sync")
}

// staleMessage reads a long message while the tree is replaced and the file server started anew, so that the open file cannot be
// had back: by the handle there is ESTALE, by its name the message.
func (x *trial) staleMessage() {
	const token, size = "long", 3 << 20
	r, k, box := x.r, x.r.clients[1], x.fixed[1] // another client than the one that wrote it, and so has it in memory
	w := x.w[0]
	a := w.put(box, token, 0, size)
	do := func(kind string) proto.Done {
		return call[proto.Done](k, "Do", proto.Do{Kind: kind, Account: x.account, Box: box, UIDs: a.UIDs, Token: token, Size: size})
	}
	if d := do("hold"); d.Err != "" {
		r.t.Fatal(d.Err)
	}
	r.replaceTree()
	r.server.restart()
	d := do("rest")
	if d.Err != "" {
		r.t.Errorf("a message that was being read: %s", d.Err)
	}
	r.t.Logf("a program that held the file and knows no better: %s", d.Token)
	if !strings.Contains(d.Token, "stale") {
		r.t.Error("its handle was not stale: nothing was put to the test")
	}
}

// insist runs a command until it succeeds: it may be busy for a while.
func (k *kernel) insist(args ...string) {
	k.t.Helper()
	for deadline := time.Now().Add(callTime); ; {
		_, err := try[[]byte](k, "Run", args)
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			k.t.Fatal(err)
		}
		<-time.After(100 * time.Millisecond)
	}
}
