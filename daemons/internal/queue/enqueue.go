package queue

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"syscall"
	"time"

	"shoal/daemons/internal/vfs"
)

// ErrFull: the switch keeps as many entries as it may. Nothing was accepted; try again later.
var ErrFull = errors.New("queue is full")

// A write is one message with its entries that waits for the batch writer.
type write struct {
	entries []indexEntry
	data    []byte
	due     int64
	ids     []string
	done    chan error
}

// inMemory is the size up to which a message waits in memory for the batch writer; a larger one is streamed into a
// batch of its own.
const inMemory = 512 << 10

// Enqueue takes a message for each of the envelopes (they share the content) and returns their ids once it is on
// stable storage. The entries are due at the given time. ErrNoSpace, ErrFull, ErrClosed; an error of content is returned as it is.
func (q *Queue) Enqueue(ctx context.Context, content io.Reader, due time.Time, envelopes ...Envelope) ([]string, error) {
	if len(envelopes) == 0 {
		return nil, fmt.Errorf("queue: a message without envelope")
	}
	for i := range envelopes {
		if len(envelopes[i].Recipients) == 0 {
			return nil, fmt.Errorf("queue: an envelope without recipients")
		}
	}
	q.mu.Lock()
	full, closed := len(q.entries)+len(envelopes) > q.o.MaxEntries, q.closed
	q.mu.Unlock()
	if closed {
		return nil, ErrClosed
	}
	if full {
		return nil, fmt.Errorf("%w: %d entries", ErrFull, q.o.MaxEntries)
	}
	w := &write{due: due.Unix(), done: make(chan error, 1)}
	for _, e := range envelopes {
		w.entries = append(w.entries, indexEntry{Envelope: e})
	}
	var buf bytes.Buffer
	if _, err := io.CopyN(&buf, content, inMemory+1); err != nil && err != io.EOF {
		return nil, err
	}
	if buf.Len() > inMemory {
		return w.ids, q.writeLarge(w, io.MultiReader(&buf, content))
	}
	w.data = buf.Bytes()
	select {
	case q.writes <- w:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	// From here on the message may be on disk: the answer is worth waiting for.
	var err error
	select {
	case err = <-w.done:
	case <-q.written:
		select {
		case err = <-w.done:
		default:
			err = ErrClosed
		}
	}
	if err != nil {
		return nil, err
	}
	return w.ids, nil
}

// writer is the one that writes batches: while one is synced, the next ones gather.
func (q *Queue) writer(ctx context.Context) {
	for {
		select {
		case w := <-q.writes:
			q.writeBatch(q.gather(w))
		case <-ctx.Done():
			return
		}
	}
}

func (q *Queue) gather(w *write) []*write {
	all, size := []*write{w}, len(w.data)
	for size < q.o.BatchBytes {
		select {
		case w := <-q.writes:
			all = append(all, w)
			size += len(w.data)
		default:
			return all
		}
	}
	return all
}

func (q *Queue) writeBatch(all []*write) {
	size := len(batchMagic)
	for _, w := range all {
		size += len(w.data) + 512*len(w.entries)
	}
	b := append(make([]byte, 0, size), batchMagic...)
	var index []indexEntry
	for _, w := range all {
		crc := crc32.Checksum(w.data, castagnoli)
		for i := range w.entries {
			e := &w.entries[i]
			e.Offset, e.Length, e.Checksum = int64(len(b)), int64(len(w.data)), crc
			index = append(index, *e)
		}
		b = append(b, w.data...)
	}
	b, err := appendIndex(b, int64(len(b)), index)
	var key batchKey
	if err == nil {
		key, err = q.createBatch(func(f vfs.File) error {
			_, err := f.Write(b)
			return err
		})
	}
	if err == nil {
		q.register(key, index, all)
	}
	for _, w := range all {
		w.done <- err
	}
}

// writeLarge streams one message into a batch of its own.
func (q *Queue) writeLarge(w *write, content io.Reader) error {
	var index []indexEntry
	key, err := q.createBatch(func(f vfs.File) error {
		if _, err := f.Write([]byte(batchMagic)); err != nil {
			return err
		}
		sum := crc32.New(castagnoli)
		n, err := io.Copy(io.MultiWriter(fileWriter{f}, sum), content)
		if err != nil {
			return err
		}
		for _, e := range w.entries {
			e.Offset, e.Length, e.Checksum = int64(len(batchMagic)), n, sum.Sum32()
			index = append(index, e)
		}
		tail, err := appendIndex(nil, int64(len(batchMagic))+n, index)
		if err != nil {
			return err
		}
		_, err = f.Write(tail)
		return err
	})
	if err != nil {
		return err
	}
	q.register(key, index, []*write{w})
	return nil
}

type fileWriter struct{ vfs.File }

func (f fileWriter) Write(p []byte) (int, error) { return f.File.Write(p) }

// createBatch writes, syncs and closes a new batch. On an error nothing of it counts: without its trailer it is no
// batch, and with it the sender was never told.
func (q *Queue) createBatch(fill func(vfs.File) error) (batchKey, error) {
	q.mu.Lock()
	q.lastSeq++
	key := batchKey{q.Origin(), q.lastSeq}
	q.mu.Unlock()
	path := q.batchPath(key)
	f, err := q.o.FS.Create(path)
	if err != nil {
		if errors.Is(err, syscall.ENOENT) {
			err = fmt.Errorf("the directory of this run was taken away: %w", err)
		}
		return key, q.ioErr("create", path, err)
	}
	if err = fill(f); err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		_ = q.o.FS.Unlink(path)
		return key, q.ioErr("write", path, err)
	}
	return key, nil
}

// register makes the entries of a stable batch known and fills in their ids.
func (q *Queue) register(key batchKey, index []indexEntry, all []*write) {
	q.metrics.batches.Inc()
	q.metrics.accepted.Add(float64(len(index)))
	q.mu.Lock()
	defer q.mu.Unlock()
	i := 0
	for _, w := range all {
		for range w.entries {
			e := newEntry(entryKey{key, i}, &index[i])
			e.due = w.due
			env := index[i]
			e.fresh = &env
			w.ids = append(w.ids, e.key.id())
			q.add(e, len(index))
			i++
		}
	}
}

func newEntry(key entryKey, x *indexEntry) *entry {
	return &entry{key: key, due: x.Accepted, accepted: x.Accepted, expires: x.Expires, size: x.Length, heap: -1}
}
