package dirstore

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"os"
	"path/filepath"
	"time"

	"go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"
	"golang.org/x/sys/unix"
)

// recovery is a log that a process left which did not close its database.
type recovery struct {
	redoHead
	file *os.File
	path string
}

// errRedo is in the error for a log that cannot be used.
var errRedo = errors.New("the redo log cannot be used")

// leftLog looks for a log and puts the database back to the log's last checkpoint; nil if there is no log.
func (o *Options) leftLog(database string) (_ *recovery, err error) {
	path := filepath.Join(o.Path, redoName)
	if err := os.Remove(path + ".tmp"); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	f, err := os.Open(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	r := &recovery{file: f, path: path}
	defer func() {
		if err != nil {
			_ = f.Close() // read only
		}
	}()
	if err := r.readHeader(); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	if r.pageSize == 0 {
		return nil, errors.Join(f.Close(), os.Remove(path))
	}
	db, err := os.OpenFile(database, os.O_RDWR, 0)
	if errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("%s: %w: its database is missing: put that one back, or remove the log, to begin with an empty directory", path, errRedo)
	}
	if err != nil {
		return nil, err
	}
	defer db.Close()
	if err := lockFile(db, time.Second); err != nil {
		return nil, err
	}
	if id, err := storedLog(db, &r.redoHead); err != nil || !bytes.Equal(id, r.id[:]) {
		return nil, fmt.Errorf("%s: %w: it does not belong to the database beside it: if that one was put there by hand and is whole, remove the log (%v)", path, errRedo, err)
	}
	for page := range uint64(2) {
		meta := r.meta
		binary.NativeEndian.PutUint64(meta[:], page)
		if _, err := db.WriteAt(meta[:], int64(page)*int64(r.pageSize)); err != nil {
			return nil, err
		}
	}
	return r, db.Sync()
}

// lockFile takes the lock that bbolt takes.
func lockFile(f *os.File, most time.Duration) error {
	for waited := time.Duration(0); ; waited += 50 * time.Millisecond {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		switch {
		case err == nil:
			return nil
		case !errors.Is(err, unix.EWOULDBLOCK) && !errors.Is(err, unix.EINTR):
			return err
		case waited >= most:
			return bolterrors.ErrTimeout
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// readHeader finds the newest whole header.
func (r *recovery) readHeader() error {
	var b [redoHeader]byte
	for slot := range int64(2) {
		if _, err := r.file.ReadAt(b[:], slot*redoSlot); err != nil {
			return fmt.Errorf("%w: %w", errRedo, err)
		}
		if sum := sha256.Sum256(b[:redoHeader-32]); !bytes.Equal(sum[:], b[redoHeader-32:]) {
			continue
		}
		if magic := b[:16]; string(magic) != redoMagic {
			return fmt.Errorf("%w: its format is %q, this program reads 1.x: start the program of the version that wrote it", errRedo, bytes.TrimRight(magic, "\n\x00"))
		}
		if n := binary.BigEndian.Uint64(b[16:]); n > r.generation {
			r.generation = n
			copy(r.id[:], b[24:])
			copy(r.salt[:], b[40:])
			r.pageSize = binary.BigEndian.Uint32(b[56:])
			copy(r.meta[:], b[60:])
		}
	}
	switch {
	case r.generation == 0:
		return fmt.Errorf("%w: both headers are damaged: take the database of a shadow, or a backup", errRedo)
	case r.pageSize == 0:
		return nil // closed
	case r.pageSize < 1024 || r.pageSize > 1<<16:
		return fmt.Errorf("%w: page size %d", errRedo, r.pageSize)
	}
	return checkMeta(r.meta[:], binary.NativeEndian.Uint64(r.meta[64:]))
}

// replay does the log's changes again, in one transaction, which leaves the pages of the checkpoint alone; then the log goes.
func (r *recovery) replay(db *bbolt.DB) (records int, err error) {
	defer func() { err = errors.Join(err, r.file.Close()) }()
	synced := db.NoSync
	db.NoSync = false
	defer func() { db.NoSync = synced }()
	err = db.Update(func(tx *bbolt.Tx) error {
		in := io.NewSectionReader(r.file, redoStart, 1<<40)
		for ; ; records++ {
			changes, err := r.next(in, uint64(records))
			if err != nil || changes == nil {
				return err
			}
			if err := redo(tx, changes); err != nil {
				return fmt.Errorf("%s: record %d: %w", r.path, records, err)
			}
		}
	})
	if err != nil {
		return records, err
	}
	if err := os.Remove(r.path); err != nil {
		return records, err
	}
	return records, syncFolder(filepath.Dir(r.path))
}

// next reads a record; nil if there is none any more.
func (r *recovery) next(in io.Reader, number uint64) ([]byte, error) {
	var head [redoRecord]byte
	ended := func(err error) error {
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			return nil
		}
		return err
	}
	if _, err := io.ReadFull(in, head[:]); err != nil {
		return nil, ended(err)
	}
	n := binary.BigEndian.Uint32(head[:])
	if n == 0 || n > redoLongest || binary.BigEndian.Uint64(head[4:]) != number {
		return nil, nil
	}
	changes := make([]byte, n)
	if _, err := io.ReadFull(in, changes); err != nil {
		return nil, ended(err)
	}
	if sum := r.sum(number, changes); !bytes.Equal(sum[:16], head[12:]) {
		return nil, nil
	}
	return changes, nil
}

var errChange = errors.New("damaged change")

// redo makes the changes of a record.
func redo(tx *bbolt.Tx, b []byte) error {
	part := func() ([]byte, bool) {
		n, used := binary.Uvarint(b)
		if used <= 0 || n > uint64(len(b)-used) {
			return nil, false
		}
		v := b[used : used+int(n)]
		b = b[used+int(n):]
		return v, true
	}
	for len(b) > 0 {
		if len(b) < 2 || int(b[1]) >= len(redoBuckets) {
			return errChange
		}
		what, bucket := b[0], tx.Bucket(redoBuckets[b[1]])
		b = b[2:]
		key, ok := part()
		if !ok || bucket == nil {
			return errChange
		}
		var err error
		switch what {
		case 'p':
			value, ok := part()
			if !ok {
				return errChange
			}
			err = bucket.Put(key, value)
		case 'd':
			err = bucket.Delete(key)
		case 's':
			if len(key) != 8 {
				return errChange
			}
			err = bucket.SetSequence(binary.BigEndian.Uint64(key))
		default:
			return errChange
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// What is known here of bbolt's file format (version 2): a page begins with its number (8), flags (2), number of elements (2), and how many
// pages more it takes (4). A meta page goes on with magic (4), version (4), page size (4), flags (4), root bucket (page 8,
// sequence 8), free list (8), high water mark (8), transaction (8) and the FNV-1a sum of these 56 octets (8). Elements of a leaf
// are flags (4), position of the key from the element (4), lengths of key and value (4, 4); of a branch position (4), length of the key
// (4), page (8). A value with flag 1 is a bucket: its root page (8), a sequence (8), and a page if the former is 0.
const (
	boltMagic  = 0xED0CDAED
	boltBranch = 1
	boltLeaf   = 2
)

// checkMeta looks whether a meta page is whole, and of this transaction.
func checkMeta(page []byte, tx uint64) error {
	m := page[16:metaPage]
	h := fnv.New64a()
	h.Write(m[:56])
	if binary.NativeEndian.Uint32(m) != boltMagic || binary.NativeEndian.Uint64(m[48:]) != tx || binary.NativeEndian.Uint64(m[56:]) != h.Sum64() {
		return fmt.Errorf("%w: no meta page of transaction %d", errRedo, tx)
	}
	return nil
}

// storedLog reads keyRedo of the state that a header names, without trusting the file.
func storedLog(db io.ReaderAt, h *redoHead) ([]byte, error) {
	w := boltFile{db, int64(h.pageSize)}
	root, err := w.page(binary.NativeEndian.Uint64(h.meta[32:]))
	if err != nil {
		return nil, err
	}
	b, err := w.find(root, bucketMeta, 1)
	if err != nil {
		return nil, err
	}
	if len(b) < 16 {
		return nil, errChange
	}
	page := b[16:]
	if n := binary.NativeEndian.Uint64(b); n != 0 {
		if page, err = w.page(n); err != nil {
			return nil, err
		}
	}
	return w.find(page, keyRedo, 0)
}

type boltFile struct {
	io.ReaderAt
	pageSize int64
}

func (w boltFile) page(n uint64) ([]byte, error) {
	if n > 1<<40 {
		return nil, errChange
	}
	head := make([]byte, 16)
	if _, err := w.ReadAt(head, int64(n)*w.pageSize); err != nil {
		return nil, err
	}
	more := binary.NativeEndian.Uint32(head[12:])
	if binary.NativeEndian.Uint64(head) != n || more > 1<<12 {
		return nil, fmt.Errorf("page %d is another one", n)
	}
	b := make([]byte, int64(more+1)*w.pageSize)
	_, err := w.ReadAt(b, int64(n)*w.pageSize)
	if errors.Is(err, io.EOF) {
		err = nil // the last page may be short
	}
	return b, err
}

// find gives the value of a key below a page; flags are the element's.
func (w boltFile) find(page, key []byte, flags uint32) ([]byte, error) {
	for range 16 {
		if len(page) < 16 {
			return nil, errChange
		}
		kind, n := binary.NativeEndian.Uint16(page[8:]), int(binary.NativeEndian.Uint16(page[10:]))
		if len(page) < 16+16*n {
			return nil, errChange
		}
		var next uint64
		for i := range n {
			e := page[16+16*i:]
			at, klen, vlen := binary.NativeEndian.Uint32(e), binary.NativeEndian.Uint32(e[4:]), uint32(0)
			if kind&boltLeaf != 0 {
				at, klen, vlen = klen, binary.NativeEndian.Uint32(e[8:]), binary.NativeEndian.Uint32(e[12:])
			}
			if uint64(at)+uint64(klen)+uint64(vlen) > uint64(len(e)) {
				return nil, errChange
			}
			have := e[at : at+klen]
			switch {
			case kind&boltLeaf != 0 && bytes.Equal(have, key) && binary.NativeEndian.Uint32(e) == flags:
				return e[at+klen : at+klen+vlen], nil
			case kind&boltBranch != 0 && (i == 0 || bytes.Compare(have, key) <= 0):
				next = binary.NativeEndian.Uint64(e[8:])
			}
		}
		if kind&boltBranch == 0 {
			return nil, fmt.Errorf("no key %q", key)
		}
		var err error
		if page, err = w.page(next); err != nil {
			return nil, err
		}
	}
	return nil, errChange
}
