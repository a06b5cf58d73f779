package mailstore

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"shoal/daemons/internal/vfs"
)

func journalMem() *vfs.Mem {
	m := vfs.NewMem(time.Now)
	m.SetJournal()
	return m
}

// TestOrderOnAJournal pins the order of a delivery where the journal keeps the order: the data before the record, and one flush.
func TestOrderOnAJournal(t *testing.T) {
	f := vfs.NewFault(journalMem())
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
	want := "create /m/0/*, write /m/0/*, syncdata /m/0/*, close /m/0/*, symlink /log/0/3, syncdir /log/0, readdir /w"
	if g := strings.Join(got, ", "); g != want {
		t.Errorf("\n%s\nwant\n%s", g, want)
	}
}

// TestGroupedFlush: deliveries that wait for the journal at the same time share a flush, and all of them survive a power cut that
// comes right after their acknowledgement.
func TestGroupedFlush(t *testing.T) {
	const boxes = 9
	mem := journalMem()
	f := vfs.NewFault(mem)
	s := testStore(t, f, "/", "box1")
	var all []*Mailbox
	for i := range boxes {
		box := testInbox(t, s, fmt.Sprintf("account-%d", i))
		appendOne(t, box, "old", 0)
		all = append(all, box)
	}
	f.Reset()
	f.Record(true)
	// The first flush is held up until the records of all the others are made.
	made := 0
	held := make(chan struct{})
	f.Hook(func(c vfs.Call) vfs.Action {
		switch c.Op {
		case vfs.OpSymlink:
			if made++; made == boxes {
				close(held)
			}
		case vfs.OpSyncDir:
			return vfs.Action{Wait: held}
		}
		return vfs.Action{}
	})
	var wg sync.WaitGroup
	for _, box := range all {
		wg.Go(func() { appendOne(t, box, "new", 0) })
	}
	wg.Wait()
	f.Hook(nil)
	var flushes []string
	for _, c := range f.Trace() {
		if c.Op == vfs.OpSyncDir || c.Op == vfs.OpSyncJournal {
			flushes = append(flushes, c.Op.String())
		}
	}
	// The first goes alone and the others as one; who made the last record may join them too late.
	if len(flushes) > 3 || !slices.Contains(flushes, "syncjournal") {
		t.Errorf("flushes: %v", flushes)
	}
	s2 := testStore(t, mem.Crash(nil), "/", "looker")
	for i := range boxes {
		st, err := testInbox(t, s2, fmt.Sprintf("account-%d", i)).State(context.Background())
		if err != nil {
			t.Fatal(err)
		}
		if st.Len() != 2 {
			t.Errorf("account-%d has %d messages after a power cut, want 2", i, st.Len())
		}
	}
}

// TestFlushFails: everybody of the group is told.
func TestFlushFails(t *testing.T) {
	f := vfs.NewFault(journalMem())
	s := testStore(t, f, "/", "box1")
	v := mustVolume(s)
	first, second := make(chan struct{}), make(chan struct{})
	f.Hook(func(c vfs.Call) vfs.Action {
		if c.Op == vfs.OpSyncDir {
			close(first)
			return vfs.Action{Wait: second}
		}
		if c.Op == vfs.OpSyncJournal {
			return vfs.Action{Err: errLost}
		}
		return vfs.Action{}
	})
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := v.flush("/a"); err != nil {
			t.Error(err)
		}
	})
	<-first
	var errs [3]error
	for i := range errs {
		wg.Go(func() { errs[i] = v.flush("/a") })
	}
	for n := 0; n < len(errs); {
		v.flusher.mu.Lock()
		if v.flusher.next != nil {
			n = v.flusher.next.members
		}
		v.flusher.mu.Unlock()
	}
	close(second)
	wg.Wait()
	for i, err := range errs {
		if err != errLost {
			t.Errorf("member %d of the group: %v", i, err)
		}
	}
}
