package mailstore

import (
	"container/list"
	"context"
	"sort"
	"sync"
	"sync/atomic"
	"time"
)

// The cache of what was derived from messages: small records, made by whoever has parsed a message, found again by
// UID and msgid. A message never changes, so a record never gets old.
//
// On the volume they lie in packs (cachepack.go), in the directory c/ of the mailbox. Any server writes packs, at any
// time and without asking the others: names are unique, packs are never changed, and a merged one is removed
// after the one that takes its place was renamed into its own. Two servers that do the same leave each
// record twice, until the next merge. Nothing rests on a pack: what is missing, or damaged, is derived again.
//
// In memory a server keeps what it has read of packs, in pieces of up to a megabyte (extents), and records that are in
// no pack yet (fresh), in one bound for all mailboxes. What was not used for longest goes first.
//
// A delivery does nothing here. Fresh records are written by a reader's Close, in the background, when there are
// enough of them, not often, and not where the volume is nearly full.

const (
	// extentTarget is the length of one read of a pack, and of what is kept and let go together.
	extentTarget = 1 << 20
	// leastRead is what is read of a pack for a few messages, mostRead the most for many, in one go.
	leastRead = 128 << 10
	mostRead  = 8 << 20
	// expectedRecord is what a record is taken to be long, before it is known.
	expectedRecord = 1 << 10
	// maxFresh bounds the fresh records of one mailbox, in bytes; flushFresh is where they are written at once.
	maxFresh, flushFresh = 12 << 20, 4 << 20
	// relistAfter is how old a listing of c/ must be to be made again because of a record that is not there.
	relistAfter = time.Minute
	// quietAfter is how long c/ is left alone after an error of the volume.
	quietAfter = 30 * time.Second
	// noWriteAfter is how long no pack is written after one could not be, for want of space perhaps.
	noWriteAfter = 10 * time.Minute
	// maxPacks bounds the packs of a mailbox that are looked at.
	maxPacks = 64
)

type packCache struct {
	max int64

	mu     sync.Mutex
	total  int64
	boxes  map[string]*packBox // by the directory of the mailbox
	recent *list.List          // of *packBox and *extent, most recently used first

	writer packWriter
}

// packBox is what the cache knows of one mailbox. All but dir, io and freshCount is guarded by packCache.mu.
type packBox struct {
	dir  string
	vol  *volume
	io   chan struct{} // one token: held while c/ is read
	elem *list.Element
	gone bool // no longer in packCache.boxes

	packs    []*pack // newest first, as far as names tell
	listed   bool
	listedAt time.Duration
	quiet    time.Duration // no I/O before
	noWrite  time.Duration // no pack is written before

	fresh      map[uint32]packRecord // by UID
	freshCount atomic.Int32
	freshBytes int64

	flushing  bool
	again     bool // when that is done
	flushedAt time.Duration
	flushed   bool
}

// pack is a pack on the volume of which the head is known.
type pack struct {
	name    string
	size    int64
	records int
	spans   []span
	loaded  []*extent // by span
}

// extent is a run of blocks in memory.
type extent struct {
	box         *packBox
	pack        *pack
	first, last int // spans
	data        string
	elem        *list.Element
}

// What the cache takes a thing to cost besides its bytes.
const (
	boxCost   = 512
	spanCost  = 40
	freshCost = 128
)

func (p *pack) cost() int64 { return int64(len(p.spans))*spanCost + 160 }

// Derived gives and takes records about the messages of one mailbox, for one command: records are opaque here,
// of up to 64 KiB; see package message. It is used by one goroutine at a time, and closed in the end.
type Derived struct {
	m    *Mailbox
	c    *packCache
	box  *packBox
	want int64 // bytes to read at once
	few  bool  // messages: c/ is not worth reading for them

	block    string // the one that the last record was in
	span     span
	hint     int
	relisted bool
	long     bool // so many records that writing them began before the end
	hits     int
	misses   int
}

// leastExpected is the number of messages from which on packs are read for them. For fewer it costs less to read the
// messages, unless these are long.
const leastExpected = 4

// Derived returns the access to the records of the mailbox; nil where the store keeps none. expect is how many messages
// will be asked for: so much is read at once where records have to be read. For few messages only what is in memory is
// looked at, except for those so long that a record spares more than it costs.
func (m *Mailbox) Derived(expect int) *Derived {
	c := m.j.store.packs
	if c == nil {
		return nil
	}
	d := &Derived{m: m, c: c, want: min(max(int64(expect)*expectedRecord, leastRead), mostRead, c.max/2), few: expect < leastExpected}
	d.box = c.use(m.j)
	return d
}

// use returns the box of a mailbox and notes the use.
func (c *packCache) use(j *journal) *packBox {
	c.mu.Lock()
	defer c.mu.Unlock()
	b := c.boxes[j.dir]
	if b == nil {
		b = &packBox{dir: j.dir, vol: j.vol, io: make(chan struct{}, 1), fresh: map[uint32]packRecord{}}
		c.boxes[j.dir] = b
		b.elem = c.recent.PushFront(b)
		c.grow(j.store, boxCost)
	}
	c.recent.MoveToFront(b.elem)
	return b
}

// Get returns the record about a message. The second result is false when there is none, or none can be had
// now.
func (d *Derived) Get(ctx context.Context, m *Message) (string, bool) {
	if d == nil {
		return "", false
	}
	k := keyOf(m)
	if d.block != "" && d.box.freshCount.Load() == 0 && k.uid >= d.span.first && k.uid <= d.span.last {
		if data, ok := findRecord(d.block, int(d.span.records), &k, &d.hint); ok {
			d.hits++
			return data, true
		}
	}
	for range maxPacks + 2 {
		data, todo := d.find(&k)
		switch {
		case data != "":
			d.hits++
			return data, true
		case todo == nil || d.few && m.Size <= inMemory || !d.load(ctx, todo):
			d.misses++
			return "", false
		}
	}
	d.misses++
	return "", false
}

// toRead is what has to be read before it is known whether there is a record: a listing of c/ and the heads of packs
// (pack is nil), or blocks of a pack from span on.
type toRead struct {
	pack *pack
	span int
}

// find looks for a record in memory. Without one it tells what to read, nil: nothing.
func (d *Derived) find(k *packKey) (string, *toRead) {
	c, b := d.c, d.box
	c.mu.Lock()
	defer c.mu.Unlock()
	if r, ok := b.fresh[k.uid]; ok && r.key == *k {
		return r.data, nil
	}
	var todo *toRead
	for _, p := range b.packs {
		i := p.spanOf(k.uid)
		if i < 0 {
			continue
		}
		x := p.loaded[i]
		if x == nil {
			if todo == nil {
				todo = &toRead{p, i}
			}
			continue
		}
		s, base := p.spans[i], p.spans[x.first].place
		block := x.data[s.place-base : s.place-base+s.length]
		hint := -1
		if data, ok := findRecord(block, int(s.records), k, &hint); ok {
			c.recent.MoveToFront(b.elem)
			c.recent.MoveToFront(x.elem)
			d.block, d.span, d.hint = block, s, hint
			return data, nil
		}
	}
	now := b.vol.clk.Boot()
	switch {
	case now < b.quiet || b.gone:
		return "", nil
	case todo != nil:
		return "", todo
	case !b.listed, !d.relisted && now-b.listedAt > relistAfter:
		d.relisted = true
		return "", &toRead{}
	}
	return "", nil
}

// spanOf is the span that would hold a UID, -1: none.
func (p *pack) spanOf(uid uint32) int {
	i := sort.Search(len(p.spans), func(i int) bool { return p.spans[i].last >= uid })
	if i < len(p.spans) && p.spans[i].first <= uid {
		return i
	}
	return -1
}

// Put keeps a record about a message. What is kept already about it is replaced.
func (d *Derived) Put(m *Message, record []byte) {
	if d == nil || len(record) == 0 || len(record) > maxRecordLen {
		return
	}
	d.put(packRecord{keyOf(m), string(record)})
}

func (d *Derived) put(r packRecord) {
	c, b := d.c, d.box
	c.mu.Lock()
	defer c.mu.Unlock()
	if b.gone || b.freshBytes+int64(len(r.data))+freshCost > min(maxFresh, c.max/2) {
		return
	}
	size := int64(0)
	if old, ok := b.fresh[r.key.uid]; ok {
		size = -int64(len(old.data)) - freshCost
		b.freshCount.Add(-1)
	}
	b.fresh[r.key.uid] = r
	b.freshCount.Add(1)
	size += int64(len(r.data)) + freshCost
	b.freshBytes += size
	c.grow(d.m.j.store, size)
	if b.freshBytes >= min(flushFresh, c.max/4) {
		d.long = true
		d.flushSoon()
	}
}

// Close ends the use. When there are enough records that are in no pack yet, they will be written.
func (d *Derived) Close() {
	if d == nil {
		return
	}
	met := d.m.j.store.metrics.packs
	met.hits.Add(float64(d.hits))
	met.misses.Add(float64(d.misses))
	d.hits, d.misses = 0, 0
	if d.box.freshCount.Load() == 0 {
		return
	}
	live := 0
	if st := d.m.Cached(); st != nil {
		live = st.Len()
	}
	d.c.mu.Lock()
	defer d.c.mu.Unlock()
	switch {
	case d.long && d.box.flushing:
		d.box.again = true
	case d.long && len(d.box.fresh) >= flushCount || d.box.due(live):
		d.flushSoon()
	}
}

// grow accounts for more memory and lets go of what was not used for longest. The caller holds mu.
func (c *packCache) grow(s *Store, n int64) {
	c.total += n
	for c.total > c.max && c.recent.Len() > 1 {
		switch x := c.recent.Back().Value.(type) {
		case *extent:
			c.drop(x)
		case *packBox:
			c.dropBox(x)
		}
	}
	s.metrics.packs.bytes.Set(float64(c.total))
}

// drop lets go of an extent. The caller holds mu.
func (c *packCache) drop(x *extent) {
	c.recent.Remove(x.elem)
	c.total -= int64(len(x.data))
	for i := x.first; i <= x.last; i++ {
		x.pack.loaded[i] = nil
	}
}

// dropPack forgets a pack. The caller holds mu.
func (c *packCache) dropPack(p *pack) {
	for _, x := range p.loaded {
		if x != nil && x.pack.loaded[x.first] == x {
			c.drop(x)
		}
	}
	c.total -= p.cost()
}

// dropBox forgets a mailbox. The caller holds mu.
func (c *packCache) dropBox(b *packBox) {
	for _, p := range b.packs {
		c.dropPack(p)
	}
	c.recent.Remove(b.elem)
	delete(c.boxes, b.dir)
	c.total -= boxCost + b.freshBytes
	b.gone = true
	b.packs, b.fresh, b.freshBytes = nil, nil, 0
	b.freshCount.Store(0)
}

// copyDerived gives the copies of messages the records of these, as far as they are in memory.
func (m *Mailbox) copyDerived(msgs []Message, dst *Mailbox, entries []entry, uids []uint32) {
	c := m.j.store.packs
	if c == nil || len(uids) != len(msgs) {
		return
	}
	c.mu.Lock()
	b := c.boxes[m.j.dir]
	c.mu.Unlock()
	if b == nil {
		return
	}
	from := &Derived{m: m, c: c, box: b}
	var to *Derived
	for i := range msgs {
		k := keyOf(&msgs[i])
		data, _ := from.find(&k)
		if data == "" || uids[i] == 0 {
			continue
		}
		if to == nil {
			to = dst.Derived(0)
			defer to.Close()
		}
		id := entries[i].id
		to.put(packRecord{packKey{uids[i], hashOrigin(id.origin), id.ctr, uint32(id.size), id.crc}, data})
	}
}
