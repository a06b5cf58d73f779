package dirstore

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"go.etcd.io/bbolt"
	"golang.org/x/sys/unix"
)

// The redo log makes a commit durable with one flush of some kilobytes, where bbolt needs two of all pages that it
// wrote. A commit is first appended to the log, as the keys and values that it changes, and flushed there; then it is made in the
// database without a flush. Now and then comes a checkpoint: the database is flushed, and the log begins anew. After a crash
// the database is put back to its last checkpoint, and what the log has is done again (recover.go).
//
// For that the pages of the checkpoint must stay: a read transaction as old as the checkpoint (the anchor) keeps
// bbolt from using them again, and the log has a copy of the page by which bbolt finds that state (its meta page), of which
// bbolt itself keeps two only.
//
// # Format
//
// <folder>/directory.redo, there while the database is in use, or was not closed. Integers are big-endian. Two headers, at 0
// and 4096, are written in turn; the one that is whole and has the higher generation holds:
//
//	offset  0 16  "shoal-redo 1.0\n" and a NUL; another major version is refused
//	       16  8  generation, one more with each checkpoint
//	       24 16  id of the database's log: "log" in its meta bucket
//	       40 16  salt of the records of this generation
//	       56  4  size of the database's pages
//	       60 80  beginning of bbolt's meta page at the checkpoint
//	              page size and meta page are zero in the header of a log that was closed: the database needs it no more
//	      140 32  SHA-256 of what is before
//
// Records from 8192 on, without gaps:
//
//	offset  0  4  length of the changes
//	        4  8  number in the generation, from 0
//	       12 16  beginning of the SHA-256 of salt, number (8), changes
//	       28     changes
//
// The first record that is not whole ends the log. A change is: what (1): 'p' put, 'd' delete, 's' sequence of the bucket;
// bucket (1): index in redoBuckets; length of the key (uvarint), key; and for 'p' length of the value (uvarint), value. The key
// of 's' is the sequence (8).
//
// # Invariants
//
// What can be read in the database is on the disk: a commit is made only after its record was flushed. While there
// is a log, the format of the database is redoFormat, which versions without a log refuse: they would take the database without the log for
// whole. Closing it puts the older marker back.
//
// A commit that is too long for a record is made without one and followed by a checkpoint before it is acknowledged.
const (
	redoName    = "directory.redo"
	redoMagic   = "shoal-redo 1.0\n\x00"
	redoFormat  = "shoal-directory 2.0"
	redoSlot    = 4096 // between the headers
	redoStart   = 2 * redoSlot
	redoHeader  = 172
	redoRecord  = 28        // what is before the changes
	redoLongest = 4 << 20   // octets of a record's changes
	redoLimit   = 16 << 20  // after so many a checkpoint is made
	redoMost    = 256 << 20 // so many are kept if no checkpoint can be made
	redoStep    = 1 << 20   // the file is made longer by so many, written with zeros
	metaPage    = 80        // octets of a bbolt page's header and of its meta
)

// redoBuckets are what changes name by number: a part of the format.
var redoBuckets = [][]byte{bucketMeta, bucketAttr, bucketEntry, bucketTree, bucketIndex, bucketLog}

// keyRedo, in the meta bucket, is the id of the log that belongs to the database.
var keyRedo = []byte("log")

// changes are those of a transaction as they go to the log. A nil one notes nothing.
type changes struct {
	b    []byte // with room for what is before the changes
	long bool   // too long for a record
}

func (r *changes) note(what, bucket byte, key, value []byte) {
	if r == nil || r.long {
		return
	}
	if len(r.b)+len(key)+len(value) > redoLongest {
		r.b, r.long = nil, true
		return
	}
	r.b = append(r.b, what, bucket)
	r.b = append(binary.AppendUvarint(r.b, uint64(len(key))), key...)
	if what == 'p' {
		r.b = append(binary.AppendUvarint(r.b, uint64(len(value))), value...)
	}
}

// writeTx is a write transaction that notes its changes.
type writeTx struct {
	*bbolt.Tx
	redo *changes
}

// bucket is a bucket of it.
type bucket struct {
	*bbolt.Bucket
	redo *changes
	n    byte
}

// Bucket gives one of redoBuckets.
func (t *writeTx) Bucket(name []byte) *bucket {
	b := &bucket{Bucket: t.Tx.Bucket(name), redo: t.redo}
	for i, have := range redoBuckets {
		if string(have) == string(name) {
			b.n = byte(i)
		}
	}
	return b
}

// Put is bbolt's.
func (b *bucket) Put(key, value []byte) error {
	b.redo.note('p', b.n, key, value)
	return b.Bucket.Put(key, value)
}

// Delete is bbolt's.
func (b *bucket) Delete(key []byte) error {
	b.redo.note('d', b.n, key, nil)
	return b.Bucket.Delete(key)
}

// NextSequence is bbolt's.
func (b *bucket) NextSequence() (uint64, error) {
	n, err := b.Bucket.NextSequence()
	b.redo.note('s', b.n, idKey(nil, n), nil)
	return n, err
}

// logFile is the file of a redoLog.
type logFile interface {
	io.WriterAt
	Sync() error
	Close() error
}

// dataFile is a file whose Sync leaves out times.
type dataFile struct{ *os.File }

func (f dataFile) Sync() error {
	for {
		if err := unix.Fdatasync(int(f.Fd())); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

// redoLog is the log of a database in use. It belongs to the writer.
type redoLog struct {
	opt    *Options
	db     *bbolt.DB
	file   logFile
	pages  *os.File // the database, to read its meta page
	anchor *bbolt.Tx
	record changes // of the transaction under way

	header redoHead
	next   uint64 // number of the next record
	end    int64  // where it goes
	filled int64  // up to where the file has blocks

	must  bool  // nothing is appended before a checkpoint was made
	stuck error // a flush of the database failed: what was not flushed may be lost, and no checkpoint can be made any more
}

// redoHead is a header.
type redoHead struct {
	generation uint64
	id, salt   [16]byte
	pageSize   uint32
	meta       [metaPage]byte
}

func (h *redoHead) encode() []byte {
	b := append(make([]byte, 0, redoHeader), redoMagic...)
	b = binary.BigEndian.AppendUint64(b, h.generation)
	b = append(append(b, h.id[:]...), h.salt[:]...)
	b = append(binary.BigEndian.AppendUint32(b, h.pageSize), h.meta[:]...)
	sum := sha256.Sum256(b)
	return append(b, sum[:]...)
}

// beginLog makes a log for a database that is flushed and in nobody else's use.
func (o *Options) beginLog(db *bbolt.DB) (_ *redoLog, err error) {
	l := &redoLog{opt: o, db: db, end: redoStart, filled: redoStart}
	_, _ = rand.Read(l.header.id[:]) // never fails
	defer func() {
		if err != nil {
			l.release()
			err = fmt.Errorf("redo log: %w", err)
		}
	}()
	if l.pages, err = os.Open(filepath.Join(o.Path, fileName)); err != nil {
		return nil, err
	}
	db.NoSync, db.NoGrowSync = false, false
	if err := db.Update(func(tx *bbolt.Tx) error {
		meta := tx.Bucket(bucketMeta)
		return errors.Join(meta.Put(keyFormat, []byte(redoFormat)), meta.Put(keyRedo, l.header.id[:]))
	}); err != nil {
		return nil, err
	}
	name := filepath.Join(o.Path, redoName)
	f, err := os.OpenFile(name+".tmp", os.O_CREATE|os.O_TRUNC|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	l.file = dataFile{f}
	if o.logFile != nil {
		l.file = o.logFile(l.file)
	}
	if _, err := l.file.WriteAt(make([]byte, redoStart), 0); err != nil {
		return nil, err
	}
	if err := l.checkpoint(); err != nil {
		return nil, err
	}
	if err := os.Rename(name+".tmp", name); err != nil {
		return nil, err
	}
	if err := syncFolder(o.Path); err != nil {
		return nil, errors.Join(err, os.Remove(name))
	}
	db.NoSync, db.NoGrowSync = true, true
	return l, nil
}

// release gives up what it holds.
func (l *redoLog) release() {
	if l.anchor != nil {
		_ = l.anchor.Rollback() // a read transaction has nothing to lose
	}
	if l.file != nil {
		_ = l.file.Close() // what counts was flushed
	}
	if l.pages != nil {
		_ = l.pages.Close() // read only
	}
}

// checkpoint flushes the database and begins a new generation.
func (l *redoLog) checkpoint() error {
	if l.stuck != nil {
		return fmt.Errorf("an earlier flush of the database failed: restart the server: %w", l.stuck)
	}
	if l.opt.flushing != nil {
		l.opt.flushing()
	}
	if err := l.db.Sync(); err != nil {
		l.stuck = err
		return err
	}
	anchor, err := l.db.Begin(false)
	if err != nil {
		return err
	}
	h := redoHead{generation: l.header.generation + 1, id: l.header.id, pageSize: uint32(l.db.Info().PageSize)}
	_, _ = rand.Read(h.salt[:]) // never fails
	if _, err = l.pages.ReadAt(h.meta[:], int64(anchor.ID()%2)*int64(h.pageSize)); err == nil {
		err = checkMeta(h.meta[:], uint64(anchor.ID()))
	}
	if err == nil {
		l.must = true // until it is known which of the two headers the disk has
		if _, err = l.file.WriteAt(h.encode(), int64(h.generation%2)*redoSlot); err == nil {
			err = l.file.Sync()
		}
	}
	if err != nil {
		return errors.Join(err, anchor.Rollback())
	}
	old := l.anchor
	l.header, l.anchor, l.must, l.next, l.end = h, anchor, false, 0, redoStart
	if old != nil {
		return old.Rollback()
	}
	return nil
}

// begin gives the record of a transaction that begins.
func (l *redoLog) begin() (*changes, error) {
	if l.must {
		if err := l.checkpoint(); err != nil {
			return nil, fmt.Errorf("checkpoint: %w", err)
		}
	}
	if size := l.size(); size > mapSize/8*7 {
		return nil, fmt.Errorf("the database has %d octets: it may have %d", size, mapSize/8*7)
	}
	if l.end > redoMost {
		return nil, fmt.Errorf("redo log: it is full, because no checkpoint can be made: %w", l.stuck)
	}
	l.record = changes{b: l.record.b[:0]}
	if l.record.b == nil {
		l.record.b = make([]byte, 0, 64<<10)
	}
	l.record.b = append(l.record.b, make([]byte, redoRecord)...)
	return &l.record, nil
}

// size is that of the database.
func (l *redoLog) size() int64 {
	if st, err := l.pages.Stat(); err == nil {
		return st.Size()
	}
	return 0
}

// harden writes the record of the transaction to the disk: the transaction may be committed then. After an error nobody
// knows whether it is there; the next record takes its place.
func (l *redoLog) harden() error {
	if l.record.long {
		l.must = true
		return nil
	}
	b := l.record.b
	changes := b[redoRecord:]
	binary.BigEndian.PutUint32(b, uint32(len(changes)))
	binary.BigEndian.PutUint64(b[4:], l.next)
	sum := l.header.sum(l.next, changes)
	copy(b[12:], sum[:16])
	for l.filled < l.end+int64(len(b)) {
		if _, err := l.file.WriteAt(make([]byte, redoStep), l.filled); err != nil {
			return fmt.Errorf("redo log: %w", err)
		}
		l.filled += redoStep
	}
	if _, err := l.file.WriteAt(b, l.end); err != nil {
		return fmt.Errorf("redo log: %w", err)
	}
	if err := l.file.Sync(); err != nil {
		return fmt.Errorf("redo log: %w", err)
	}
	return nil
}

func (h *redoHead) sum(number uint64, changes []byte) [32]byte {
	d := sha256.New()
	d.Write(h.salt[:])
	var n [8]byte
	binary.BigEndian.PutUint64(n[:], number)
	d.Write(n[:])
	d.Write(changes)
	return [32]byte(d.Sum(nil))
}

// committed is called when the transaction is in the database. An error of a transaction without a record means that
// nobody knows whether it stays.
func (l *redoLog) committed() error {
	if l.record.long {
		if err := l.checkpoint(); err != nil {
			return fmt.Errorf("checkpoint: %w", err)
		}
		return nil
	}
	l.next++
	l.end += int64(len(l.record.b))
	if cap(l.record.b) > 1<<20 {
		l.record.b = nil
	}
	return nil
}

// tidy makes a checkpoint if it is time for one. It may fail: the log goes on.
func (l *redoLog) tidy() error {
	if l.end < l.opt.redoLimit() || l.stuck != nil {
		return nil
	}
	return l.checkpoint()
}

func (o *Options) redoLimit() int64 {
	if o.checkpointAt != 0 {
		return o.checkpointAt
	}
	return redoLimit
}

// finish flushes the database and ends the log: the database is whole without it. After an error the log goes on.
func (l *redoLog) finish() error {
	if l.stuck != nil {
		return fmt.Errorf("redo log: the next start makes of it what is missing in the database: %w", l.stuck)
	}
	if l.opt.flushing != nil {
		l.opt.flushing()
	}
	if err := l.db.Sync(); err != nil {
		l.stuck = err
		return fmt.Errorf("redo log: %w", err)
	}
	closed := redoHead{generation: l.header.generation + 1, id: l.header.id}
	l.must = true
	_, err := l.file.WriteAt(closed.encode(), int64(closed.generation%2)*redoSlot)
	if err == nil {
		err = l.file.Sync()
	}
	if err != nil {
		return fmt.Errorf("redo log: %w", err)
	}
	l.release()
	l.db.NoSync, l.db.NoGrowSync = false, false
	if err := os.Remove(filepath.Join(l.opt.Path, redoName)); err != nil {
		return nil // it says that it is closed
	}
	_ = syncFolder(l.opt.Path) // or the name comes back, of a closed log
	return nil
}

// older puts the marker of versions without a log back. The log must be gone.
func older(db *bbolt.DB) error {
	return db.Update(func(tx *bbolt.Tx) error {
		meta := tx.Bucket(bucketMeta)
		return errors.Join(meta.Put(keyFormat, []byte(formatName+" "+formatMajor+"."+formatMinor)), meta.Delete(keyRedo))
	})
}
