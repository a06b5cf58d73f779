package mailstore

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
)

// dirPacks is the directory of packs in a mailbox. It is made when the first pack is written.
const dirPacks = "c"

// piece is a run of blocks as it was read.
type piece struct {
	first, last int
	data        string
}

// packFile is a pack as it was read, or a part of it.
type packFile struct {
	name   string
	size   int64
	spans  []span
	pieces []piece
}

// load does what find asks for. It reports whether it is worth looking again.
func (d *Derived) load(ctx context.Context, todo *toRead) bool {
	b := d.box
	select {
	case b.io <- struct{}{}:
	case <-ctx.Done():
		return false
	}
	defer func() { <-b.io }()
	d.c.mu.Lock()
	done := b.gone || todo.pack == nil && b.listed && b.vol.clk.Boot()-b.listedAt <= relistAfter ||
		todo.pack != nil && (todo.pack.loaded[todo.span] != nil || !slices.Contains(b.packs, todo.pack))
	d.c.mu.Unlock()
	if done {
		return true // somebody else has
	}
	var err error
	if todo.pack == nil {
		err = d.c.list(ctx, d.m.j.store, b, d.want)
	} else {
		err = d.c.loadSpans(ctx, d.m.j.store, b, todo, d.want)
	}
	if err == nil {
		return true
	}
	d.c.trouble(ctx, d.m.j.store, b, err)
	return false
}

// trouble lets a mailbox's packs rest after an error.
func (c *packCache) trouble(ctx context.Context, s *Store, b *packBox, err error) {
	if ctx.Err() != nil {
		return
	}
	s.log.Debug("packs of derived records left alone for a while", "mailbox", b.dir, "err", err)
	s.metrics.packs.failed.Inc()
	c.mu.Lock()
	defer c.mu.Unlock()
	b.quiet = b.vol.clk.Boot() + quietAfter
}

// list lists c/ and reads the heads of packs that are new, with as many blocks as want allows. The caller holds io.
func (c *packCache) list(ctx context.Context, s *Store, b *packBox, want int64) error {
	c.mu.Lock()
	known := make(map[string]bool, len(b.packs))
	for _, p := range b.packs {
		known[p.name] = true
	}
	c.mu.Unlock()
	type result struct {
		names []string
		files []*packFile
	}
	r := new(result)
	err := b.vol.do(ctx, func() error {
		names, err := packNames(b.vol, b.dir)
		if err != nil {
			return err
		}
		r.names = names
		left := want
		for _, name := range names {
			if known[name] {
				continue
			}
			f, err := readPack(b.vol, b.dir, name, max(left, leastRead))
			switch {
			case err == nil:
				r.files = append(r.files, f)
				for _, p := range f.pieces {
					left -= int64(len(p.data))
				}
			case errors.Is(err, errBadPack):
				s.rejectPack(b.vol, b.dir, name, err)
			case isNotExist(err): // merged by another server
			default:
				return err
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if b.gone {
		return nil
	}
	b.listed, b.listedAt = true, b.vol.clk.Boot()
	b.packs = slices.DeleteFunc(b.packs, func(p *pack) bool {
		if slices.Contains(r.names, p.name) {
			return false
		}
		c.dropPack(p)
		return true
	})
	for _, f := range r.files {
		s.metrics.packs.read.Inc()
		c.add(s, b, f)
	}
	return nil
}

// add takes in a pack. The caller holds mu.
func (c *packCache) add(s *Store, b *packBox, f *packFile) {
	p := &pack{name: f.name, size: f.size, spans: f.spans, loaded: make([]*extent, len(f.spans))}
	for i := range p.spans {
		p.records += int(p.spans[i].records)
	}
	b.packs = append(b.packs, p)
	slices.SortFunc(b.packs, func(x, y *pack) int { return strings.Compare(y.name, x.name) })
	c.grow(s, p.cost())
	c.addPieces(s, b, p, f.pieces)
}

func (c *packCache) addPieces(s *Store, b *packBox, p *pack, pieces []piece) {
	for _, q := range pieces {
		if slices.ContainsFunc(p.loaded[q.first:q.last+1], func(x *extent) bool { return x != nil }) {
			continue
		}
		x := &extent{box: b, pack: p, first: q.first, last: q.last, data: q.data}
		x.elem = c.recent.PushFront(x)
		for i := q.first; i <= q.last; i++ {
			p.loaded[i] = x
		}
		c.recent.MoveToFront(b.elem)
		c.grow(s, int64(len(x.data)))
		if b.gone {
			return
		}
	}
}

// loadSpans reads blocks of a pack. The caller holds io.
func (c *packCache) loadSpans(ctx context.Context, s *Store, b *packBox, todo *toRead, want int64) error {
	c.mu.Lock()
	p := todo.pack
	last := todo.span
	for last+1 < len(p.spans) && p.loaded[last+1] == nil && int64(p.spans[last+1].place+p.spans[last+1].length-p.spans[todo.span].place) <= want {
		last++
	}
	c.mu.Unlock()
	type result struct{ pieces []piece }
	r := new(result)
	path := b.dir + "/" + dirPacks + "/" + p.name
	err := b.vol.do(ctx, func() error {
		f, err := b.vol.fs.Open(path)
		if err != nil {
			if isNotExist(err) {
				return err
			}
			return ioErr("open", path, err)
		}
		r.pieces, err = readBlocks(f.ReadAt, path, p.spans, todo.span, last)
		if e := f.Close(); err == nil && e != nil {
			err = ioErr("close", path, e)
		}
		if errors.Is(err, errBadPack) {
			s.rejectPack(b.vol, b.dir, p.name, err)
		}
		return err
	})
	c.mu.Lock()
	defer c.mu.Unlock()
	switch i := slices.Index(b.packs, p); {
	case b.gone || i < 0:
		return nil
	case err == nil:
		c.addPieces(s, b, p, r.pieces)
		return nil
	case isNotExist(err), errors.Is(err, errBadPack):
		// Merged by another server, or spoilt: what it held is found elsewhere, or made again.
		c.dropPack(p)
		b.packs = slices.Delete(b.packs, i, i+1)
		b.listed = b.listed && !isNotExist(err)
		return nil
	}
	return err
}

// packNames lists the packs of a mailbox, at most maxPacks of them.
func packNames(v *volume, dir string) ([]string, error) {
	path := dir + "/" + dirPacks
	names, err := v.fs.ReadDir(path, nil)
	if err != nil {
		if isNotExist(err) {
			return nil, nil
		}
		return nil, ioErr("list", path, err)
	}
	names = slices.DeleteFunc(names, func(n string) bool { return !packName(n) })
	slices.Sort(names)
	slices.Reverse(names)
	return names[:min(len(names), maxPacks)], nil
}

// readPack reads the head of a pack and as many of its blocks as want bytes hold, in reads of up to
// extentTarget. What was read stays with the caller. errBadPack; an error of isNotExist.
func readPack(v *volume, dir, name string, want int64) (*packFile, error) {
	path := dir + "/" + dirPacks + "/" + name
	f, err := v.fs.Open(path)
	if err != nil {
		if isNotExist(err) {
			return nil, err
		}
		return nil, ioErr("open", path, err)
	}
	p, err := readOpenPack(f.ReadAt, path, want)
	if e := f.Close(); err == nil && e != nil {
		err = ioErr("close", path, e)
	}
	if err != nil {
		return nil, err
	}
	p.name = name
	return p, nil
}

type readAt func(p []byte, off int64) (int, error)

// some reads up to n bytes; fewer at the end of the file.
func (r readAt) some(path string, off int64, n int) ([]byte, error) {
	b := make([]byte, n)
	got, err := r(b, off)
	if err != nil && err != io.EOF {
		if isNotExist(err) {
			return nil, err
		}
		return nil, ioErr("read", path, err)
	}
	return b[:got], nil
}

func readOpenPack(r readAt, path string, want int64) (*packFile, error) {
	b, err := r.some(path, 0, int(min(want, extentTarget)))
	if err != nil {
		return nil, err
	}
	n, err := headLength(b)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	if n > len(b) {
		more, err := r.some(path, int64(len(b)), n-len(b))
		if err != nil {
			return nil, err
		}
		b = append(b, more...)
	}
	p := new(packFile)
	if p.spans, p.size, err = parseHead(b); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	if p.size < int64(len(b)) {
		return nil, fmt.Errorf("%s: %w: longer than it says", path, errBadPack)
	}
	// The blocks that came with the head.
	i := 0
	for i < len(p.spans) && int(p.spans[i].place+p.spans[i].length) <= len(b) {
		if err := checkBlock(b[p.spans[i].place:p.spans[i].place+p.spans[i].length], &p.spans[i]); err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		i++
	}
	if i > 0 {
		end := p.spans[i-1].place + p.spans[i-1].length
		p.pieces = append(p.pieces, piece{0, i - 1, string(b[p.spans[0].place:end])})
	}
	last := i - 1
	for last+1 < len(p.spans) && int64(p.spans[last+1].place+p.spans[last+1].length) <= want {
		last++
	}
	if i <= last {
		more, err := readBlocks(r, path, p.spans, i, last)
		if err != nil {
			return nil, err
		}
		p.pieces = append(p.pieces, more...)
	}
	return p, nil
}

// readBlocks reads the blocks of spans first to last.
func readBlocks(r readAt, path string, spans []span, first, last int) (pieces []piece, err error) {
	for first <= last {
		from, to := spans[first].place, first
		for to < last && spans[to+1].place+spans[to+1].length-from <= extentTarget {
			to++
		}
		b, err := r.some(path, int64(from), int(spans[to].place+spans[to].length-from))
		if err != nil {
			return nil, err
		}
		for i := first; i <= to; i++ {
			s := &spans[i]
			if int(s.place-from+s.length) > len(b) {
				return nil, fmt.Errorf("%s: %w: cut short", path, errBadPack)
			}
			if err := checkBlock(b[s.place-from:s.place-from+s.length], s); err != nil {
				return nil, fmt.Errorf("%s: %w", path, err)
			}
		}
		pieces = append(pieces, piece{first, to, string(b)})
		first = to + 1
	}
	return pieces, nil
}

// rejectPack removes a pack that is not as it was written: torn by a power cut, or damaged. Its records are made
// again.
func (s *Store) rejectPack(v *volume, dir, name string, err error) {
	s.log.Warn("pack of derived records is damaged; it is removed and made again", "mailbox", dir, "err", err)
	s.metrics.packs.rejected.Inc()
	_ = v.fs.Unlink(dir + "/" + dirPacks + "/" + name)
}
