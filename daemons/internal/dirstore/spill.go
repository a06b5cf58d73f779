package dirstore

import (
	"bufio"
	"bytes"
	"container/heap"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
)

// A sorter puts keys with their values into order with bounded memory: what does not fit is sorted by
// itself and written to a file, a run; in the end the runs are merged. A run is a sequence of
//
//	length of the key (2), length of the value (2), key, value
//
// The files belong to one process and one load: they carry no version and are gone when it ends.
type sorter struct {
	folder string
	name   string // of its files
	limit  int    // octets in memory
	buf    []byte
	at     []uint32 // where the pairs begin in buf
	runs   []*os.File
	fault  func(string) error
}

const (
	pairHeader  = 4
	maxPairPart = 1<<16 - 1
	runBuffer   = 64 << 10 // of reading or writing one run
)

func appendPair(dst, key, value []byte) []byte {
	dst = binary.BigEndian.AppendUint16(dst, uint16(len(key)))
	dst = binary.BigEndian.AppendUint16(dst, uint16(len(value)))
	return append(append(dst, key...), value...)
}

func pairKey(p []byte) []byte { return p[pairHeader : pairHeader+int(binary.BigEndian.Uint16(p))] }

// add takes a pair; it copies both.
func (s *sorter) add(key, value []byte) error {
	if len(key) > maxPairPart || len(value) > maxPairPart {
		return fmt.Errorf("%s: a key of %d octets", s.name, len(key))
	}
	s.at = append(s.at, uint32(len(s.buf)))
	s.buf = appendPair(s.buf, key, value)
	if len(s.buf)+4*len(s.at) < s.limit {
		return nil
	}
	return s.spill()
}

// spill writes what is in memory as a run.
func (s *sorter) spill() error {
	slices.SortFunc(s.at, func(a, b uint32) int { return bytes.Compare(pairKey(s.buf[a:]), pairKey(s.buf[b:])) })
	err := s.run(func(put func(key, value []byte) error) error {
		for _, at := range s.at {
			p := s.buf[at:]
			k := pairKey(p)
			n := pairHeader + len(k)
			if err := put(k, p[n:n+int(binary.BigEndian.Uint16(p[2:]))]); err != nil {
				return err
			}
		}
		return nil
	})
	s.buf, s.at = s.buf[:0], s.at[:0]
	return err
}

// run writes a run; fill puts its pairs in the order of their keys.
func (s *sorter) run(fill func(put func(key, value []byte) error) error) error {
	if err := s.fault("spill"); err != nil {
		return err
	}
	f, err := os.OpenFile(filepath.Join(s.folder, fmt.Sprintf("%s.%d", s.name, len(s.runs))), os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	s.runs = append(s.runs, f)
	w := bufio.NewWriterSize(f, runBuffer)
	var scratch []byte
	if err := fill(func(key, value []byte) error {
		scratch = appendPair(scratch[:0], key, value)
		_, err := w.Write(scratch)
		return err
	}); err != nil {
		return err
	}
	return w.Flush()
}

// close gives up the files.
func (s *sorter) close() error {
	var errs []error
	for _, f := range s.runs {
		errs = append(errs, f.Close(), os.Remove(f.Name()))
	}
	s.runs, s.buf, s.at = nil, nil, nil
	return errors.Join(errs...)
}

// runReader is a run that is being merged, at its current pair.
type runReader struct {
	r    *bufio.Reader
	pair []byte
}

// next reads the next pair; ok is false at the end.
func (r *runReader) next() (ok bool, err error) {
	head, err := r.r.Peek(pairHeader)
	if err == io.EOF && len(head) == 0 {
		return false, nil
	} else if err != nil {
		return false, err
	}
	n := pairHeader + int(binary.BigEndian.Uint16(head)) + int(binary.BigEndian.Uint16(head[2:]))
	r.pair = slices.Grow(r.pair[:0], n)[:n]
	_, err = io.ReadFull(r.r, r.pair)
	return err == nil, err
}

type runHeap []*runReader

func (h runHeap) Len() int { return len(h) }
func (h runHeap) Less(i, j int) bool {
	return bytes.Compare(pairKey(h[i].pair), pairKey(h[j].pair)) < 0
}
func (h runHeap) Swap(i, j int) { h[i], h[j] = h[j], h[i] }
func (h *runHeap) Push(x any)   { *h = append(*h, x.(*runReader)) }
func (h *runHeap) Pop() any {
	old := *h
	last := old[len(old)-1]
	*h = old[:len(old)-1]
	return last
}

// merge calls fn for every pair in the order of the keys. They are valid during the call.
func (s *sorter) merge(fn func(key, value []byte) error) error {
	if len(s.at) > 0 {
		if err := s.spill(); err != nil {
			return err
		}
	}
	s.buf, s.at = nil, nil
	var h runHeap
	for _, f := range s.runs {
		if _, err := f.Seek(0, io.SeekStart); err != nil {
			return err
		}
		r := &runReader{r: bufio.NewReaderSize(f, runBuffer)}
		if ok, err := r.next(); err != nil {
			return fmt.Errorf("%s: %w", f.Name(), err)
		} else if ok {
			h = append(h, r)
		}
	}
	heap.Init(&h)
	for len(h) > 0 {
		r := h[0]
		k := pairKey(r.pair)
		if err := fn(k, r.pair[pairHeader+len(k):]); err != nil {
			return err
		}
		if ok, err := r.next(); err != nil {
			return fmt.Errorf("%s: %w", s.name, err)
		} else if ok {
			heap.Fix(&h, 0)
		} else {
			heap.Pop(&h)
		}
	}
	return nil
}

// postings collects the index keys of entries whose ids ascend, and writes them as runs of what will
// stand in the index bucket.
type postings struct {
	by     map[string]uint32
	list   []posting
	octets int // about what it takes
}

type posting struct {
	key  string
	open chunk  // of the newest id
	done []byte // those before it: number (7), length (1), value
}

const postingOctets = 160 // of one key, beside the key itself

func (p *postings) add(key []byte, id uint64) {
	n, ok := p.by[string(key)]
	if !ok {
		if p.by == nil {
			p.by = map[string]uint32{}
		}
		n = uint32(len(p.list))
		k := string(key)
		p.list = append(p.list, posting{key: k, open: chunk{hi: id >> 8}})
		p.by[k] = n
		p.octets += postingOctets + len(key)
	}
	x := &p.list[n]
	if x.open.hi != id>>8 {
		had := len(x.done)
		x.close()
		p.octets += len(x.done) - had
		x.open = chunk{hi: id >> 8}
	}
	x.open.set(byte(id))
}

func (x *posting) close() {
	x.done = appendChunkNumber(x.done, x.open.hi)
	at := len(x.done)
	x.done = x.open.append(append(x.done, 0))
	x.done[at] = byte(len(x.done) - at - 1)
}

// spill writes all of it as a run. Afterwards an id of another chunk must come: a key of the bucket is
// in one run only.
func (p *postings) spill(to *sorter) error {
	order := make([]uint32, len(p.list))
	for i := range order {
		order[i] = uint32(i)
	}
	slices.SortFunc(order, func(a, b uint32) int {
		if p.list[a].key < p.list[b].key {
			return -1
		}
		return 1
	})
	err := to.run(func(put func(key, value []byte) error) error {
		var key []byte
		for _, n := range order {
			x := &p.list[n]
			x.close()
			for d := x.done; len(d) > 0; {
				key = append(append(key[:0], x.key...), d[:indexTail]...)
				end := indexTail + 1 + int(d[indexTail])
				if err := put(key, d[indexTail+1:end]); err != nil {
					return err
				}
				d = d[end:]
			}
		}
		return nil
	})
	clear(p.by)
	clear(p.list) // lets the keys go
	p.list, p.octets = p.list[:0], 0
	return err
}
