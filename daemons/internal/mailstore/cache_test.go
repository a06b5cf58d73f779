package mailstore

import (
	"context"
	"fmt"
	"math/rand/v2"
	"runtime"
	"sort"
	"strings"
	"sync"
	"testing"
	"time"

	"shoal/daemons/internal/vfs"
)

// summaryOf is the record that these tests keep about a message: 900 bytes that only this message has.
func summaryOf(m *Message) []byte {
	return []byte(strings.Repeat(m.ID()+" ", 1+900/len(m.ID()))[:900])
}

// fillWith appends n messages in few commits.
func fillWith(t testing.TB, box *Mailbox, n int) {
	t.Helper()
	m := stage(t, box.j.store, "x")
	defer m.Close()
	for n > 0 {
		batch := make([]AppendMessage, min(n, 1000))
		for i := range batch {
			batch[i].Message = m
		}
		if _, err := box.Append(context.Background(), batch); err != nil {
			t.Fatal(err)
		}
		n -= len(batch)
	}
}

func stateOf(t testing.TB, box *Mailbox) *State {
	t.Helper()
	st, err := box.State(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	return st
}

// putAll derives what is not derived yet of the messages that pick picks.
func putAll(t testing.TB, box *Mailbox, pick func(uid uint32) bool) (made int) {
	t.Helper()
	st := stateOf(t, box)
	d := box.Derived(st.Len())
	defer d.Close()
	for _, m := range st.All() {
		if !pick(m.UID) {
			continue
		}
		got, ok := d.Get(context.Background(), &m)
		switch {
		case !ok:
			d.Put(&m, summaryOf(&m))
			made++
		case got != string(summaryOf(&m)):
			t.Fatalf("UID %d: the record of another message: %q", m.UID, got)
		}
	}
	return made
}

func every(uint32) bool { return true }

// flushNow writes the fresh records without waiting until there are enough.
func flushNow(t testing.TB, box *Mailbox) {
	t.Helper()
	idle(t, box.j.store)
	c := box.j.store.packs
	if err := c.flush(context.Background(), box, c.use(box.j), false); err != nil {
		t.Fatal(err)
	}
}

// idle waits until the records that a Close asked for are written.
func idle(t testing.TB, s *Store) {
	t.Helper()
	for limit := time.Now().Add(20 * time.Second); ; runtime.Gosched() {
		s.packs.mu.Lock()
		running := s.packs.writer.running
		s.packs.mu.Unlock()
		if !running {
			return
		}
		if time.Now().After(limit) {
			t.Fatal("packs are not written")
		}
	}
}

func packFiles(t testing.TB, fs vfs.FS, box *Mailbox) []string {
	t.Helper()
	names, err := fs.ReadDir(box.j.dir+"/c", nil)
	if err != nil && !isNotExist(err) {
		t.Fatal(err)
	}
	sort.Strings(names)
	return names
}

// account checks that the memory that the cache believes to take is that of what it holds.
func (c *packCache) account(t testing.TB) {
	t.Helper()
	c.mu.Lock()
	defer c.mu.Unlock()
	total := int64(0)
	for e := c.recent.Front(); e != nil; e = e.Next() {
		switch x := e.Value.(type) {
		case *extent:
			total += int64(len(x.data))
			for i := x.first; i <= x.last; i++ {
				if x.pack.loaded[i] != x {
					t.Errorf("an extent that nobody finds")
				}
			}
		case *packBox:
			fresh := int64(0)
			for _, r := range x.fresh {
				fresh += int64(len(r.data)) + freshCost
			}
			if fresh != x.freshBytes || len(x.fresh) != int(x.freshCount.Load()) {
				t.Errorf("fresh: %d bytes, counted %d", fresh, x.freshBytes)
			}
			total += boxCost + fresh
			for _, p := range x.packs {
				total += p.cost()
			}
		}
	}
	if total != c.total || c.total > c.max {
		t.Errorf("%d bytes held, %d counted, %d allowed", total, c.total, c.max)
	}
}

// TestDerivedCosts pins the file operations: nothing for a delivery, few for a server that has never seen the
// mailbox, those of a pack for writing one.
func TestDerivedCosts(t *testing.T) {
	ctx := context.Background()
	mem := vfs.NewMem(time.Now)
	mem.SetNetwork(true)
	f := vfs.NewFault(mem)
	s := testStore(t, f, "/", "box1")
	box := testInbox(t, s, "account-1")
	fillWith(t, box, 10000)
	stateOf(t, box)
	expect := func(what, want string, do func()) {
		t.Helper()
		f.Reset()
		do()
		if got := f.Counts(); fmt.Sprint(parseCounts(got.String())) != fmt.Sprint(parseCounts(want)) {
			t.Errorf("%s: %v, want %v", what, got, want)
		}
	}
	// State looks once (readlink); c/ is not there.
	expect("first look at 10,000", "readlink:1 readdir:1", func() {
		st := stateOf(t, box)
		d := box.Derived(st.Len())
		d.box.flushing = true // nothing in the background
		for _, m := range st.All() {
			if _, ok := d.Get(ctx, &m); ok {
				t.Fatal("a record out of nothing")
			}
			d.Put(&m, summaryOf(&m))
		}
		d.Close()
		d.box.flushing = false
	})
	expect("write them", "readlink:1 readdir:1 statfs:1 create:1 write:1 close:1 rename:2 mkdir:1", func() { flushNow(t, box) })
	expect("ask again", "readlink:1", func() {
		if n := putAll(t, box, every); n != 0 {
			t.Error(n, "missing")
		}
	})
	m := stage(t, s, strings.Repeat("x", 4096))
	defer m.Close()
	expect("deliver", "readdir:1 symlink:1 create:1 write:1 sync:1 close:1", func() {
		if r := s.Deliver(ctx, m, []Target{{Account: box.Account()}}); r[0].Err != nil {
			t.Fatal(r[0].Err)
		}
	})
	cold := testInbox(t, testStore(t, f, "/", "box2"), "account-1")
	stateOf(t, cold)
	// Two opens, because at most 8 MiB are read in one go; nine reads for 9.3 MB.
	expect("a cold server asks for all", "readlink:1 readdir:1 open:2 read:9 close:2", func() {
		if n := putAll(t, cold, func(uid uint32) bool { return uid <= 10000 }); n != 0 {
			t.Error(n, "missing")
		}
	})
	other := testInbox(t, testStore(t, f, "/", "box3"), "account-1")
	stateOf(t, other)
	expect("a cold server asks for the last 20", "readlink:1 readdir:1 open:2 read:2 close:2", func() {
		st := stateOf(t, other)
		d := other.Derived(20)
		for _, m := range st.Range(9980, 10000) {
			if _, ok := d.Get(ctx, &m); !ok {
				t.Error("missing")
			}
		}
		d.Close()
	})
	for _, b := range []*Mailbox{box, cold, other} {
		b.j.store.packs.account(t)
	}
}

// Packs of a mailbox that grows by little stay few, and each record is written few times.
func TestPacksAreMerged(t *testing.T) {
	mem := vfs.NewMem(time.Now)
	s := testStore(t, mem, "/", "box1")
	box := testInbox(t, s, "account-1")
	most := 0
	for range 100 {
		fillWith(t, box, 40)
		if n := putAll(t, box, every); n != 40 {
			t.Fatal(n, "derived again")
		}
		flushNow(t, box)
		most = max(most, len(packFiles(t, mem, box)))
	}
	if most > 6 {
		t.Errorf("%d packs", most)
	}
	cold := testInbox(t, testStore(t, mem, "/", "box2"), "account-1")
	if n := putAll(t, cold, every); n != 0 {
		t.Error(n, "missing")
	}
	s.packs.account(t)
}

// Two servers write at the same time, the same records and others: all are found, and the doubles go.
func TestTwoServersWritePacks(t *testing.T) {
	ctx := context.Background()
	mem := vfs.NewMem(time.Now)
	var boxes []*Mailbox
	for _, name := range []string{"box1", "box2"} {
		boxes = append(boxes, testInbox(t, testStore(t, mem, "/", name), "account-1"))
	}
	fillWith(t, boxes[0], 2000)
	var wg sync.WaitGroup
	for i, box := range boxes {
		wg.Go(func() {
			r := rand.New(rand.NewPCG(7, uint64(i)))
			for range 12 {
				from := r.Uint32N(2000)
				putAll(t, box, func(uid uint32) bool { return uid >= from && uid < from+400 })
				c := box.j.store.packs
				if err := c.flush(ctx, box, c.use(box.j), r.IntN(3) == 0); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	for _, box := range boxes {
		putAll(t, box, every)
		flushNow(t, box)
		box.j.store.packs.account(t)
	}
	reader := testInbox(t, testStore(t, mem, "/", "box3"), "account-1")
	if n := putAll(t, reader, every); n != 0 {
		t.Error(n, "missing")
	}
	records := func() (n int) {
		for _, name := range packFiles(t, mem, reader) {
			p, err := readPack(reader.j.vol, reader.j.dir, name, maxPack)
			if err != nil {
				t.Fatal(err)
			}
			for _, s := range p.spans {
				n += int(s.records)
			}
		}
		return n
	}
	for range 2 {
		if err := reader.tidyPacks(ctx); err != nil {
			t.Fatal(err)
		}
	}
	if n := records(); n < 2000 || n > 4000 {
		t.Errorf("%d records of 2000 messages after tidying up", n)
	}
	if n := putAll(t, testInbox(t, testStore(t, mem, "/", "box4"), "account-1"), every); n != 0 {
		t.Error(n, "missing after tidying up")
	}
}

// The memory stays within its bound, whatever is asked for.
func TestDerivedMemoryIsBounded(t *testing.T) {
	mem := vfs.NewMem(time.Now)
	s := testStore(t, mem, "/", "box1", func(o *Options) { o.SummaryBytes = 1 << 20 })
	var boxes []*Mailbox
	for i := range 30 {
		box := testInbox(t, s, fmt.Sprintf("account-%d", i))
		fillWith(t, box, 200)
		boxes = append(boxes, box)
	}
	big := testInbox(t, s, "account-big")
	fillWith(t, big, 5000)
	boxes = append(boxes, big)
	for range 3 {
		for _, box := range boxes {
			putAll(t, box, every)
			s.packs.account(t)
			flushNow(t, box)
			s.packs.account(t)
		}
	}
	for i, box := range boxes[:30] {
		if n := putAll(t, box, every); n != 0 {
			t.Errorf("mailbox %d: %d missing", i, n)
		}
	}
}

// Records go along with copies and moves; those of messages that are gone, or have another UID now, are dropped.
func TestDerivedFollowsTheMailbox(t *testing.T) {
	ctx := context.Background()
	mem := vfs.NewMem(time.Now)
	s := testStore(t, mem, "/", "box1")
	box := testInbox(t, s, "account-1")
	a := box.Account()
	if _, err := a.Create(ctx, "Archive", CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	archive, err := a.Open(ctx, "Archive")
	if err != nil {
		t.Fatal(err)
	}
	fillWith(t, box, 400)
	putAll(t, box, every)
	flushNow(t, box)
	if _, err := box.CopyTo(ctx, UIDSet{{101, 150}}, archive); err != nil {
		t.Fatal(err)
	}
	if _, err := box.MoveTo(ctx, UIDSet{{201, 250}}, archive); err != nil {
		t.Fatal(err)
	}
	d := archive.Derived(100)
	for i, m := range stateOf(t, archive).All() {
		src, _ := stateOf(t, box).ByUID(uint32(101 + i))
		got, ok := d.Get(ctx, &m)
		if !ok || i < 50 && got != string(summaryOf(&src)) {
			t.Fatalf("copy %d: %v %q", i, ok, got)
		}
	}
	d.Close()
	if _, err := box.Expunge(ctx, UIDSet{{1, 200}, {251, 390}}, false); err != nil {
		t.Fatal(err)
	}
	for range 2 { // the second time there is nothing to do
		if err := box.tidyPacks(ctx); err != nil {
			t.Fatal(err)
		}
	}
	p, err := readPack(box.j.vol, box.j.dir, packFiles(t, mem, box)[0], maxPack)
	if err != nil || len(p.spans) != 1 || p.spans[0].records != 10 {
		t.Fatalf("%+v %v", p, err)
	}
	idle(t, s)
	// New UIDs for the same messages.
	if again, err := box.renumber(ctx, stateOf(t, box), nil); err != nil || !again {
		t.Fatal(again, err)
	}
	if n := putAll(t, box, every); n != 10 {
		t.Errorf("%d derived again after renumbering, want 10", n)
	}
	if _, err := box.Expunge(ctx, nil, false); err != nil {
		t.Fatal(err)
	}
	idle(t, s)
	s.packs.mu.Lock()
	s.packs.dropBox(s.packs.boxes[box.j.dir])
	s.packs.mu.Unlock()
	if err := box.tidyPacks(ctx); err != nil {
		t.Fatal(err)
	}
	if left := packFiles(t, mem, box); len(left) != 0 {
		t.Errorf("%v is left of an empty mailbox", left)
	}
}

// Packs of other versions are passed over, and removed when they are old; what is no pack at all stays as long.
func TestForeignPacks(t *testing.T) {
	ctx := context.Background()
	shift := time.Duration(0)
	mem := vfs.NewMem(func() time.Time { return time.Now().Add(shift) })
	box := testInbox(t, testStore(t, mem, "/", "box1"), "account-1")
	fillWith(t, box, 100)
	putAll(t, box, every)
	flushNow(t, box)
	own := packFiles(t, mem, box)[0]
	for _, n := range []string{"s2.box1.abc.1", "s1.nonsense"} {
		spoil(t, mem, box.j.dir+"/c/"+n, "from the future")
	}
	check := func(want string) {
		t.Helper()
		m := testInbox(t, testStore(t, mem, "/", "box2"), "account-1")
		if n := putAll(t, m, every); n != 0 {
			t.Error(n, "missing")
		}
		if err := m.tidyPacks(ctx); err != nil {
			t.Error(err)
		}
		if got := fmt.Sprint(packFiles(t, mem, box)); got != want {
			t.Errorf("%s, want %s", got, want)
		}
	}
	check(fmt.Sprintf("[%s s1.nonsense s2.box1.abc.1]", own))
	shift = otherPackAge + time.Hour
	check(fmt.Sprintf("[%s]", own))
	verify(t, mem, "/")
}

// A deleted mailbox takes its packs with it.
func TestPacksOfADeletedMailbox(t *testing.T) {
	ctx := context.Background()
	shift := time.Duration(0)
	mem := vfs.NewMem(func() time.Time { return time.Now().Add(shift) })
	s := testStore(t, mem, "/", "box1")
	a := testInbox(t, s, "account-1").Account()
	if _, err := a.Create(ctx, "Old", CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	box, err := a.Open(ctx, "Old")
	if err != nil {
		t.Fatal(err)
	}
	fillWith(t, box, 100)
	putAll(t, box, every)
	flushNow(t, box)
	if err := a.Delete(ctx, "Old"); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		shift += 30 * time.Hour
		again := testStore(t, mem, "/", fmt.Sprint("box", int(shift.Hours())))
		if err := testInbox(t, again, "account-1").Account().Maintain(ctx); err != nil {
			t.Fatal(err)
		}
		if err := again.Purge(ctx, "vol01"); err != nil {
			t.Fatal(err)
		}
	}
	for _, dir := range []string{"/trash", a.dir + "/b"} {
		names, err := mem.ReadDir(dir, nil)
		if err != nil || len(names) != strings.Count(dir, "/b") {
			t.Errorf("%s: %v %v", dir, names, err)
		}
	}
}

// Without a bound of memory there is no cache, and all works without.
func TestNoDerived(t *testing.T) {
	mem := vfs.NewMem(time.Now)
	box := testInbox(t, testStore(t, mem, "/", "box1", func(o *Options) { o.SummaryBytes = -1 }), "account-1")
	fillWith(t, box, 100)
	if n := putAll(t, box, every) + putAll(t, box, every); n != 200 {
		t.Error(n)
	}
	if err := box.Account().Maintain(context.Background()); err != nil {
		t.Error(err)
	}
}

// BenchmarkDerivedGet is a warm look for a record.
func BenchmarkDerivedGet(b *testing.B) {
	ctx := context.Background()
	mem := vfs.NewMem(time.Now)
	box := testInbox(b, testStore(b, mem, "/", "box1"), "account-1")
	fillWith(b, box, 10000)
	putAll(b, box, every)
	flushNow(b, box)
	st := stateOf(b, box)
	d := box.Derived(st.Len())
	defer d.Close()
	b.ReportAllocs()
	for b.Loop() {
		for _, m := range st.All() {
			if _, ok := d.Get(ctx, &m); !ok {
				b.Fatal("missing")
			}
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(st.Len()), "ns/message")
}
