package mailstore

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"syscall"
	"time"
)

const (
	// flushCount is how many fresh records make a pack, flushFew how many do if they are half of the mailbox.
	flushCount, flushFew = 32, 8
	// flushPause is the least time between two packs of a mailbox, unless there are flushMany records.
	flushPause = time.Minute
	flushMany  = 1000
	// A pack is merged into the next if that is not much shorter: packs of a mailbox have lengths that differ by
	// mergeFactor, so they are few, and a record is written few times.
	mergeFactor = 4
	// packReserve is the part of a volume that packs leave free: a 20th.
	packReserve = 20
)

// packWriter writes packs, one at a time.
type packWriter struct {
	jobs    []*packJob // guarded by packCache.mu
	running bool
}

type packJob struct {
	m   *Mailbox
	box *packBox
}

// due tells whether fresh records should be written. live is the number of messages. The caller holds mu.
func (b *packBox) due(live int) bool {
	n, now := len(b.fresh), b.vol.clk.Boot()
	switch {
	case b.gone || b.flushing || now < b.noWrite:
		return false
	case b.flushed && now-b.flushedAt < flushPause && n < flushMany:
		return false
	}
	return n >= flushCount || n >= flushFew && 2*n >= live
}

// flushSoon asks for the fresh records to be written. The caller holds mu.
func (d *Derived) flushSoon() {
	c, b := d.c, d.box
	if b.gone || b.flushing || b.vol.clk.Boot() < b.noWrite {
		return
	}
	b.flushing = true
	w := &c.writer
	w.jobs = append(w.jobs, &packJob{d.m, b})
	if w.running {
		return
	}
	w.running = true
	s := d.m.j.store
	s.work.background(func(ctx context.Context) {
		for {
			c.mu.Lock()
			if len(w.jobs) == 0 || ctx.Err() != nil {
				w.running = false
				c.mu.Unlock()
				return
			}
			j := w.jobs[0]
			w.jobs = w.jobs[1:]
			c.mu.Unlock()
			err := c.flush(ctx, j.m, j.box, false)
			if err != nil && ctx.Err() == nil && !errors.Is(err, ErrMailboxClosed) {
				s.log.Debug("pack of derived records not written", "mailbox", j.box.dir, "err", err)
				s.metrics.packs.failed.Inc()
			}
			c.mu.Lock()
			b := j.box
			if err != nil {
				b.noWrite = b.vol.clk.Boot() + noWriteAfter
			}
			b.flushing, b.flushed, b.flushedAt = false, true, b.vol.clk.Boot()
			if b.again && len(b.fresh) >= flushCount && !b.gone && err == nil {
				b.flushing = true
				w.jobs = append(w.jobs, j)
			}
			b.again = false
			c.mu.Unlock()
		}
	})
}

// flush writes the fresh records of a mailbox into a pack, together with those of packs that are due to be merged, and
// removes these. Records of messages that are gone are left out. With tidy it looks at all packs for such.
func (c *packCache) flush(ctx context.Context, m *Mailbox, b *packBox, tidy bool) error {
	s := m.j.store
	select {
	case b.io <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	err := c.list(ctx, s, b, leastRead)
	<-b.io
	if err != nil {
		return err
	}
	// Read after the packs: what it does not have is gone.
	st, err := m.State(ctx)
	if err != nil {
		return err
	}
	c.mu.Lock()
	fresh := make([]packRecord, 0, len(b.fresh))
	size := int64(packHead + packSpan)
	for _, r := range b.fresh {
		fresh = append(fresh, r)
		size += packEntry + int64(len(r.data))
	}
	merge := chooseMerge(b.packs, size, tidy, st)
	c.mu.Unlock()
	if len(fresh) == 0 && len(merge) == 0 {
		return nil
	}
	lists := [][]packRecord{fresh}
	var bad []string
	for _, p := range merge {
		records, err := c.wholePack(ctx, s, b, p.name)
		switch {
		case err == nil:
			lists = append(lists, records)
		case errors.Is(err, errBadPack), isNotExist(err):
			bad = append(bad, p.name)
		default:
			return err
		}
	}
	records := mergeRecords(func(k *packKey) bool {
		msg, ok := st.ByUID(k.uid)
		return ok && keyOf(&msg) == *k
	}, lists...)
	var file *packFile
	if len(records) > 0 {
		if file, err = c.writePack(ctx, s, b, records); err != nil {
			return err
		}
	}
	c.replace(s, b, fresh, merge, file)
	return b.vol.do(ctx, func() error {
		for _, p := range merge {
			if slices.Contains(bad, p.name) {
				continue
			}
			path := b.dir + "/" + dirPacks + "/" + p.name
			if err := b.vol.fs.Unlink(path); err != nil && !isNotExist(err) {
				return ioErr("unlink", path, err)
			}
		}
		return nil
	})
}

// chooseMerge picks the packs that size bytes of fresh records are merged with: from the shortest on, as long as they
// are not much longer than what there is already. With tidy also those of which half the messages are gone, and
// all where records are there twice.
func chooseMerge(packs []*pack, size int64, tidy bool, st *State) []*pack {
	order := slices.SortedFunc(slices.Values(packs), func(x, y *pack) int { return cmp.Compare(x.size, y.size) })
	total := 0
	for _, p := range packs {
		total += p.records
	}
	doubled := tidy && total > 2*st.Len()
	var merge []*pack
	for i, p := range order {
		wanted := size >= p.size/mergeFactor && (!tidy || len(order) > 1) || len(order)-i > maxPacks/2
		if tidy && (doubled || p.records > 2*p.live(st)) {
			wanted = true
		}
		if wanted && size+p.size <= maxPack {
			merge = append(merge, p)
			size += p.size
		}
	}
	if tidy && len(merge) == 1 && !doubled && merge[0].records <= 2*merge[0].live(st) {
		return nil // nothing to merge it with, and nothing to leave out
	}
	return merge
}

// live is how many records of a pack are about messages that are still there, at most.
func (p *pack) live(st *State) int {
	n := 0
	for i := range p.spans {
		s := &p.spans[i]
		from, _ := st.Find(s.first)
		to, found := st.Find(s.last)
		if found {
			to++
		}
		n += min(to-from, int(s.records))
	}
	return n
}

// wholePack reads all records of a pack.
func (c *packCache) wholePack(ctx context.Context, s *Store, b *packBox, name string) ([]packRecord, error) {
	type result struct{ records []packRecord }
	r := new(result)
	err := b.vol.do(ctx, func() error {
		f, err := readPack(b.vol, b.dir, name, maxPack)
		if errors.Is(err, errBadPack) {
			s.rejectPack(b.vol, b.dir, name, err)
		}
		if err != nil {
			return err
		}
		s.metrics.packs.read.Inc()
		for _, p := range f.pieces {
			for i := p.first; i <= p.last; i++ {
				at := f.spans[i].place - f.spans[p.first].place
				block := p.data[at : at+f.spans[i].length]
				for k := range int(f.spans[i].records) {
					key, data := recordAt(block, k)
					r.records = append(r.records, packRecord{key, data})
				}
			}
		}
		return nil
	})
	return r.records, err
}

// errPackReserve says that the volume has no room for what can be made again.
var errPackReserve = errors.New("no room for derived records: the volume is nearly full")

// writePack makes a pack. It is not synced: one that a power cut tears is noticed by its checksums.
func (c *packCache) writePack(ctx context.Context, s *Store, b *packBox, records []packRecord) (*packFile, error) {
	f := &packFile{name: packPrefix + s.nextNonce().String()}
	err := b.vol.do(ctx, func() error {
		st, err := b.vol.fs.Statfs(b.vol.root)
		if err != nil {
			return ioErr("statfs", b.vol.root, err)
		}
		if st.Total > 0 && st.Free < st.Total/packReserve {
			return fmt.Errorf("%s: %w", b.vol.root, errPackReserve)
		}
		content, spans := buildPack(records)
		tmp := b.dir + "/" + dirTmp + "/" + strings.TrimPrefix(f.name, packPrefix)
		if err := createFile(b.vol.fs, tmp, content, syncNothing); err != nil {
			return ioErr("write", tmp, err)
		}
		dir := b.dir + "/" + dirPacks
		err = b.vol.fs.Rename(tmp, dir+"/"+f.name)
		if isNotExist(err) {
			if err = b.vol.fs.Mkdir(dir); err == nil || errors.Is(err, syscall.EEXIST) {
				err = b.vol.fs.Rename(tmp, dir+"/"+f.name)
			}
		}
		if err != nil {
			_ = b.vol.fs.Unlink(tmp) // what stays is collected
			return ioErr("rename", tmp, err)
		}
		f.spans, f.size = spans, int64(len(content))
		f.pieces, err = readBlocks(func(p []byte, off int64) (int, error) { return copy(p, content[off:]), nil }, f.name, spans, 0, len(spans)-1)
		return err
	})
	if err != nil {
		return nil, err
	}
	s.metrics.packs.written.Inc()
	s.metrics.packs.writtenBytes.Add(float64(f.size))
	return f, nil
}

// replace puts a new pack into the place of the fresh records and the packs that it was made of.
func (c *packCache) replace(s *Store, b *packBox, fresh []packRecord, merged []*pack, file *packFile) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if b.gone {
		return
	}
	for i := range fresh {
		if r, ok := b.fresh[fresh[i].key.uid]; ok && r == fresh[i] {
			delete(b.fresh, r.key.uid)
			b.freshCount.Add(-1)
			n := int64(len(r.data)) + freshCost
			b.freshBytes -= n
			c.total -= n
		}
	}
	b.packs = slices.DeleteFunc(b.packs, func(p *pack) bool {
		if !slices.Contains(merged, p) {
			return false
		}
		c.dropPack(p)
		return true
	})
	if file != nil {
		c.add(s, b, file)
	}
	s.metrics.packs.bytes.Set(float64(c.total))
}

// otherPackAge is how old packs of other versions of this program get before they are removed.
const otherPackAge = 7 * 24 * time.Hour

// tidyPacks removes packs that nobody needs: whose messages are gone, whose records are in others, that are damaged, or
// that no version in use reads.
func (m *Mailbox) tidyPacks(ctx context.Context) error {
	c := m.j.store.packs
	if c == nil {
		return nil
	}
	type result struct{ own, other []string }
	r := new(result)
	path := m.j.dir + "/" + dirPacks
	err := m.j.vol.do(ctx, func() error {
		names, err := m.j.vol.fs.ReadDir(path, nil)
		if isNotExist(err) {
			return nil
		}
		if err != nil {
			return ioErr("list", path, err)
		}
		for _, n := range names {
			if packName(n) {
				r.own = append(r.own, n)
			} else {
				r.other = append(r.other, n)
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	if len(r.other) > 0 {
		now, err := m.j.vol.serverNow(ctx)
		if err != nil {
			return err
		}
		err = m.j.vol.do(ctx, func() error {
			for _, n := range r.other {
				if err := m.j.vol.removeOld(path+"/"+n, now.Add(-otherPackAge)); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	if len(r.own) == 0 {
		return nil
	}
	b := c.use(m.j)
	c.mu.Lock()
	busy := b.flushing
	b.flushing = true
	c.mu.Unlock()
	if busy {
		return nil
	}
	err = c.flush(ctx, m, b, true)
	c.mu.Lock()
	b.flushing = false
	c.mu.Unlock()
	if errors.Is(err, errPackReserve) {
		return nil
	}
	return err
}
