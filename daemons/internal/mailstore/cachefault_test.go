package mailstore

import (
	"bytes"
	"context"
	"errors"
	"math/rand/v2"
	"syscall"
	"testing"
	"time"

	"shoal/daemons/internal/vfs"
)

// Whatever has become of a pack: no wrong record comes out of it, it goes, and a right one takes its place.
func TestDamagedPacks(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 3))
	whole := func(b []byte) []byte { return bytes.Clone(b) }
	other, _ := buildPack(someRecords(500))
	for what, damage := range map[string]func(b []byte) []byte{
		"empty":         func([]byte) []byte { return nil },
		"zeroed":        func(b []byte) []byte { return make([]byte, len(b)) },
		"torn head":     func(b []byte) []byte { return whole(b)[:20] },
		"torn":          func(b []byte) []byte { return whole(b)[:len(b)*2/3] },
		"zeroed behind": func(b []byte) []byte { b = whole(b); clear(b[100<<10:]); return b },
		"flipped bits": func(b []byte) []byte {
			b = whole(b)
			for range 50 {
				b[r.IntN(len(b))] ^= 1 << r.IntN(8)
			}
			return b
		},
		"longer":            func(b []byte) []byte { return append(whole(b), 1) },
		"text":              func([]byte) []byte { return []byte("no pack at all") },
		"another mailbox's": func([]byte) []byte { return other },
	} {
		mem := vfs.NewMem(time.Now)
		s := testStore(t, mem, "/", "box1")
		box := testInbox(t, s, "account-1")
		fillWith(t, box, 300)
		putAll(t, box, every)
		flushNow(t, box)
		name := packFiles(t, mem, box)
		path := box.j.dir + "/c/" + name[0]
		b, err := readFile(mem, path, maxPack)
		if err != nil || len(name) != 1 {
			t.Fatal(name, err)
		}
		if err := mem.Unlink(path); err != nil {
			t.Fatal(err)
		}
		spoil(t, mem, path, string(damage(b)))
		fresh := testInbox(t, testStore(t, mem, "/", "box2"), "account-1")
		if n := putAll(t, fresh, every); n == 0 {
			t.Errorf("%s: not noticed", what)
		}
		flushNow(t, fresh)
		now := packFiles(t, mem, box)
		if what != "another mailbox's" && (len(now) != 1 || now[0] == name[0]) {
			t.Errorf("%s: packs %v, was %v", what, now, name)
		}
		if n := putAll(t, testInbox(t, testStore(t, mem, "/", "box3"), "account-1"), every); n != 0 {
			t.Errorf("%s: %d records were not written again", what, n)
		}
		// The first server still has its own in memory; when it needs the volume, what is there now is found.
		s.packs.mu.Lock()
		s.packs.dropBox(s.packs.boxes[box.j.dir])
		s.packs.mu.Unlock()
		if n := putAll(t, box, every); n != 0 {
			t.Errorf("%s: %d records not found", what, n)
		}
	}
}

// A pack that goes away while a reader knows it costs the reader a listing.
func TestPackGoesAway(t *testing.T) {
	mem := vfs.NewMem(time.Now)
	box := testInbox(t, testStore(t, mem, "/", "box1"), "account-1")
	fillWith(t, box, 2000)
	putAll(t, box, every)
	flushNow(t, box)
	reader := testInbox(t, testStore(t, mem, "/", "box2"), "account-1")
	if n := putAll(t, reader, func(uid uint32) bool { return uid < 3 }); n != 0 {
		t.Fatal(n)
	}
	c := reader.j.store.packs
	c.mu.Lock() // as if there were little memory
	for _, x := range c.boxes[reader.j.dir].packs[0].loaded {
		if x != nil && x.pack.loaded[x.first] == x {
			c.drop(x)
		}
	}
	c.mu.Unlock()
	old := packFiles(t, mem, box)[0]
	if err := mem.Rename(box.j.dir+"/c/"+old, box.j.dir+"/c/s1.box9.abc.1"); err != nil {
		t.Fatal(err)
	}
	if n := putAll(t, reader, every); n != 0 {
		t.Errorf("%d missing", n)
	}
	c.account(t)
}

// Each file operation fails in turn, and is lost in turn: no error comes up, nothing wrong is found, and when the
// volume is well again the records are written.
func TestDerivedFaults(t *testing.T) {
	for _, fault := range []vfs.Action{{Err: syscall.EIO}, {Err: syscall.ENOSPC}, {Err: syscall.EIO, Lost: true}, {Err: syscall.ESTALE}} {
		for i := 0; ; i++ {
			mem := vfs.NewMem(time.Now)
			f := vfs.NewFault(mem)
			boxes := []*Mailbox{}
			for _, name := range []string{"box1", "box2"} {
				boxes = append(boxes, testInbox(t, testStore(t, f, "/", name), "account-1"))
			}
			fillWith(t, boxes[0], 100)
			half := func(uid uint32) bool { return uid <= 50 }
			putAll(t, boxes[0], half)
			flushNow(t, boxes[0])
			states := []*State{stateOf(t, boxes[0]), stateOf(t, boxes[1])}
			f.Reset()
			f.Hook(func(c vfs.Call) vfs.Action {
				if c.I == i {
					return fault
				}
				return vfs.Action{}
			})
			for n, box := range boxes {
				idle(t, box.j.store)
				d := box.Derived(1000)
				for _, m := range states[n].All() {
					if got, ok := d.Get(context.Background(), &m); !ok {
						d.Put(&m, summaryOf(&m))
					} else if got != string(summaryOf(&m)) {
						t.Fatalf("operation %d: %q", i, got)
					}
				}
				c := box.j.store.packs
				_ = c.flush(context.Background(), box, d.box, n == 1)
			}
			total := f.Counts().Total()
			f.Hook(nil)
			for _, box := range boxes {
				c := box.j.store.packs
				c.mu.Lock()
				c.boxes[box.j.dir].quiet = 0
				c.mu.Unlock()
				idle(t, box.j.store)
				putAll(t, box, every)
				flushNow(t, box)
				c.account(t)
			}
			if n := putAll(t, testInbox(t, testStore(t, f, "/", "box3"), "account-1"), every); n != 0 {
				t.Fatalf("operation %d, %v: %d records lost for good", i, fault.Err, n)
			}
			if i >= total {
				break
			}
		}
	}
}

// After an error the volume is left alone for a while.
func TestDerivedIsQuietAfterErrors(t *testing.T) {
	mem := vfs.NewMem(time.Now)
	f := vfs.NewFault(mem)
	box := testInbox(t, testStore(t, f, "/", "box1"), "account-1")
	fillWith(t, box, 100)
	st := stateOf(t, box)
	f.Reset()
	f.Hook(func(c vfs.Call) vfs.Action { return vfs.Action{Err: syscall.EIO} })
	d := box.Derived(100)
	for _, m := range st.All() {
		if _, ok := d.Get(context.Background(), &m); ok {
			t.Fatal("found")
		}
	}
	d.Close()
	if n := f.Counts().Total(); n != 1 {
		t.Errorf("%d operations on a volume that does not work", n)
	}
}

// A volume that is nearly full gets no packs.
func TestNoPacksOnAFullVolume(t *testing.T) {
	full := &fullFS{FS: vfs.NewMem(time.Now)}
	box := testInbox(t, testStore(t, full, "/", "box1"), "account-1")
	fillWith(t, box, 100)
	putAll(t, box, every)
	full.full = true
	c := box.j.store.packs
	if err := c.flush(context.Background(), box, c.use(box.j), false); !errors.Is(err, errPackReserve) {
		t.Error(err)
	}
	if p := packFiles(t, full, box); len(p) != 0 {
		t.Error(p)
	}
	if n := putAll(t, box, every); n != 0 {
		t.Error(n, "forgotten")
	}
}

// Where packs can not be written, those that are there are still read, and writing is not tried all the time.
func TestPacksOfAFullVolumeAreRead(t *testing.T) {
	mem := &fullFS{FS: vfs.NewMem(time.Now)}
	f := vfs.NewFault(mem)
	box := testInbox(t, testStore(t, f, "/", "box1"), "account-1")
	fillWith(t, box, 200)
	first := func(uid uint32) bool { return uid <= 100 }
	putAll(t, box, first)
	flushNow(t, box)
	mem.full = true
	cold := testInbox(t, testStore(t, f, "/", "box2"), "account-1")
	if n := putAll(t, cold, every); n != 100 {
		t.Error(n, "derived, want 100")
	}
	idle(t, cold.j.store)
	f.Reset()
	for range 5 {
		d := cold.Derived(200)
		d.put(packRecord{packKey{uid: 300}, "more"})
		d.Close()
		idle(t, cold.j.store)
	}
	if n := f.Counts(); n.Total() != 0 {
		t.Errorf("%v on a full volume", n)
	}
	c := cold.j.store.packs
	c.mu.Lock()
	c.dropBox(c.boxes[cold.j.dir])
	c.mu.Unlock()
	if n := putAll(t, cold, first); n != 0 {
		t.Error(n, "not read")
	}
}

type fullFS struct {
	vfs.FS
	full bool
}

func (f *fullFS) Statfs(path string) (vfs.StatFS, error) {
	st, err := f.FS.Statfs(path)
	if f.full {
		st.Total, st.Free = 1000, 49
	}
	return st, err
}
