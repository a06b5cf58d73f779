package dirstore

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/maphash"
	"os"
	"path/filepath"
	"strings"

	"github.com/google/uuid"
	"go.etcd.io/bbolt"

	"shoal/daemons/internal/dirschema"
	"shoal/daemons/internal/ldapwire"
)

// Load makes a whole new content beside the one in use, and puts it in its place in one step. It is
// for the total refresh of a replica: entries come one after the other, their index keys and names are
// sorted outside of memory, and everything is written in the order of its keys into a new file, which is
// flushed once and then renamed. Until then everybody reads the old content, and a crash leaves it;
// afterwards the new one is there, with its contextCSN and cookie. What a load leaves in its folder
// when the process dies is removed by the next Open.
//
// Memory: Options.loadMemory for keys, as much for names, a batch of what is written, 8 MiB to tell
// which entries came before, and about 48 octets an entry for the ids of superiors.
//
// What cannot be written in one go is done afterwards to the new content, before anybody sees it, by
// the ordinary way: entries that come a second time (they changed while the provider sent them), whose
// name is taken, or whose superior was not there yet. Their number is bounded.
//
// Ids go on from those of the old content. The change log of the new one is empty, with a gap in its
// sequence: who followed the old one is told to begin a refresh.
//
// A Load belongs to one goroutine. It ends with Replace or Abort.
type Load struct {
	s        *Store
	folder   string
	db       *bbolt.DB
	tx       *bbolt.Tx
	pending  int // octets in tx
	firstID  uint64
	nextID   uint64
	sequence uint64 // end of the change log when it began

	seen   [filterWords]uint64 // which entryUUIDs came, a Bloom filter
	seed   maphash.Seed
	names  map[[16]byte]uint64 // id by the beginning of the SHA-256 of the normal form of the name
	keys   postings
	index  sorter
	tree   sorter
	newest csn // of all entries
	top    [16]byte

	later       []*Replicate
	laterOctets int
	inner       *Store // the new content, once it is built
	ended       bool
}

const (
	loadFolder  = "load.tmp" // in the folder of the database
	loadMemory  = 32 << 20
	loadBatch   = 2 << 20 // octets of one transaction
	loadFill    = 0.95
	filterWords = 1 << 20 // 64 Mi bits: one of 100,000 taken for another at 1,000,000 entries
	maxLater    = 1 << 16
	laterOctets = 64 << 20
	maxNames    = 1 << 24
)

// ErrLoadTooIrregular is returned by a Load that would have to keep too much for later, or has more
// entries than it can take: use Replicate.
var ErrLoadTooIrregular = errors.New("too many entries that a bulk load cannot take")

// ErrLoading is returned by Load while another one is under way.
var ErrLoading = errors.New("a bulk load is under way already")

// Load begins one.
func (s *Store) Load() (l *Load, err error) {
	if !s.loading.CompareAndSwap(false, true) {
		return nil, ErrLoading
	}
	folder := filepath.Join(s.opt.Path, loadFolder)
	l = &Load{s: s, folder: folder, seed: maphash.MakeSeed(), names: map[[16]byte]uint64{}, sequence: s.logSequence.Load()}
	l.top = nameHash(s.suffix)
	memory := s.opt.loadMemory
	if memory == 0 {
		memory = loadMemory
	}
	l.index = sorter{folder: folder, name: "index", limit: memory, fault: s.fault}
	l.keys.list = make([]posting, 0, memory/postingOctets)
	l.tree = sorter{folder: folder, name: "tree", limit: memory, fault: s.fault}
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("bulk load: %w", err), l.Abort())
		}
	}()
	if err := os.RemoveAll(folder); err != nil {
		return nil, err
	}
	if err := os.Mkdir(folder, 0o700); err != nil {
		return nil, err
	}
	if err := s.bolt().View(func(tx *bbolt.Tx) error {
		l.firstID = tx.Bucket(bucketEntry).Sequence() + 1
		return nil
	}); err != nil {
		return nil, err
	}
	l.nextID = l.firstID
	o := s.opt
	o.Unsynced = true // until the end
	if l.db, err = o.open(filepath.Join(folder, fileName)); err != nil {
		return nil, err
	}
	if err := l.db.Update(s.create); err != nil {
		return nil, err
	}
	return l, s.fault("begin")
}

// fault is where tests make a load fail or die.
func (s *Store) fault(step string) error {
	if s.opt.fault == nil {
		return nil
	}
	return s.opt.fault(step)
}

// Abort gives the load up and leaves the store as it is. After Replace it does nothing.
func (l *Load) Abort() error {
	if l.ended {
		return nil
	}
	l.ended = true
	defer l.s.loading.Store(false)
	var errs []error
	if l.tx != nil {
		errs = append(errs, l.tx.Rollback())
	}
	errs = append(errs, l.index.close(), l.tree.close())
	if l.inner != nil {
		l.inner.stopBuild()
		l.inner.stopWriter()
		l.db = l.inner.bolt()
	}
	if l.db != nil {
		errs = append(errs, l.db.Close())
	}
	return errors.Join(append(errs, os.RemoveAll(l.folder))...)
}

func nameHash(norm []byte) (h [16]byte) {
	sum := sha256.Sum256(norm)
	copy(h[:], sum[:])
	return h
}

// came notes an entryUUID and reports whether it may have come before.
func (l *Load) came(id *[16]byte) bool {
	h := maphash.Bytes(l.seed, id[:])
	before := true
	for range 4 {
		bit := h % (filterWords * 64)
		before = before && l.seen[bit/64]&(1<<(bit%64)) != 0
		l.seen[bit/64] |= 1 << (bit % 64)
		h = h>>19 | h<<45
	}
	return before
}

// Add takes an entry. An *ldapwire.Error refuses it, and the load goes on; any other error ends the load:
// call Abort. The operation is kept when it must be done later.
func (l *Load) Add(op *Replicate) error {
	name, norm, e, err := op.entry(l.s)
	if err != nil {
		return err
	}
	return l.place(op, name, norm, e)
}

// place is Add for an operation that was taken apart.
func (l *Load) place(op *Replicate, name dirschema.DN, norm []byte, e *Entry) error {
	s := l.s
	hash := nameHash(norm)
	rdnNorm, up := splitNorm(norm)
	var parent uint64
	rdn := name[0].Append(nil)
	known := true
	if hash == l.top {
		rdn, rdnNorm = []byte(name.String()), norm
	} else {
		parent, known = l.names[nameHash(up)]
	}
	_, taken := l.names[hash]
	if l.came(&op.UUID) || taken || !known {
		return l.postpone(op)
	}
	raw, err := encodeRecord(&s.attrs, parent, rdn, e.Attributes)
	if err != nil {
		return err
	}
	id := l.nextID
	if id&255 == 0 && l.keys.octets > l.index.limit {
		if err := l.keys.spill(&l.index); err != nil {
			return fmt.Errorf("bulk load: %w", err)
		}
	}
	if len(l.names) >= maxNames {
		return ErrLoadTooIrregular
	}
	l.nextID++
	op.ID = id
	l.names[hash] = id
	l.newest = max(l.newest, e.one("entryCSN"))
	if err := l.put(bucketEntry, idKey(nil, id), raw); err != nil {
		return err
	}
	s.eachKey(e.Attributes, func(key []byte) { l.keys.add(key, id) })
	if err := l.tree.add(append(idKey(nil, parent), rdnNorm...), idKey(nil, id)); err != nil {
		return fmt.Errorf("bulk load: %w", err)
	}
	return nil
}

func (l *Load) postpone(op *Replicate) error {
	l.laterOctets += len(op.DN)
	for _, a := range op.Attributes {
		for _, v := range a.Values {
			l.laterOctets += len(v) + 48
		}
	}
	l.later = append(l.later, op)
	if len(l.later) > maxLater || l.laterOctets > laterOctets {
		return ErrLoadTooIrregular
	}
	return nil
}

// put writes into the new file; keys of a bucket ascend.
func (l *Load) put(bucket, key, value []byte) (err error) {
	if l.pending > loadBatch {
		if err := l.commit(); err != nil {
			return err
		}
	}
	if l.tx == nil {
		if l.tx, err = l.db.Begin(true); err != nil {
			return fmt.Errorf("bulk load: %w", err)
		}
	}
	b := l.tx.Bucket(bucket)
	b.FillPercent = loadFill
	l.pending += len(key) + len(value) + 32
	if err := b.Put(key, value); err != nil {
		return fmt.Errorf("bulk load: %w", err)
	}
	return nil
}

func (l *Load) commit() error {
	err := l.s.fault("batch")
	if err != nil || l.tx == nil {
		return err
	}
	tx := l.tx
	l.tx, l.pending = nil, 0
	if err := tx.Commit(); err != nil {
		return fmt.Errorf("bulk load: %w", errors.Join(err, ignoreClosed(tx.Rollback())))
	}
	return nil
}

func ignoreClosed(err error) error {
	if err != nil && strings.Contains(err.Error(), "closed") {
		return nil
	}
	return err
}

// Refused is an entry that was not taken.
type Refused struct {
	DN  string
	Err error // an *ldapwire.Error
}

// Build writes what was collected. The store that it returns is the new content: it may be read and
// changed until Replace or Abort, and must not be closed.
func (l *Load) Build() (_ *Store, refused []Refused, err error) {
	if _, ok := l.names[l.top]; !ok {
		return nil, nil, fmt.Errorf("bulk load: %s itself did not come", l.s.suffixText)
	}
	l.names = nil
	if len(l.keys.list) > 0 {
		if err := l.keys.spill(&l.index); err != nil {
			return nil, nil, fmt.Errorf("bulk load: %w", err)
		}
	}
	l.keys = postings{}
	if err := l.s.fault("merge"); err != nil {
		return nil, nil, err
	}
	for bucket, from := range map[string]*sorter{string(bucketTree): &l.tree, string(bucketIndex): &l.index} {
		var last []byte
		if err := from.merge(func(key, value []byte) error {
			if bytes.Equal(key, last) {
				return fmt.Errorf("bulk load: %s: key %x stands twice", bucket, key)
			}
			last = append(last[:0], key...)
			return l.put([]byte(bucket), key, bytes.Clone(value))
		}); err != nil {
			return nil, nil, err
		}
		if err := from.close(); err != nil {
			return nil, nil, fmt.Errorf("bulk load: %w", err)
		}
	}
	if err := l.putMeta(); err != nil {
		return nil, nil, err
	}
	if err := l.commit(); err != nil {
		return nil, nil, err
	}
	if err := l.db.Close(); err != nil {
		return nil, nil, fmt.Errorf("bulk load: %w", err)
	}
	o := l.s.opt
	o.Path, o.Unsynced, o.Metrics = l.folder, true, nil
	l.db = nil
	if l.inner, err = Open(o); err != nil {
		return nil, nil, fmt.Errorf("bulk load: %w", err)
	}
	refused, err = l.doLater()
	return l.inner, refused, err
}

// putMeta writes what is not of one entry: the contextCSN comes with Replace.
func (l *Load) putMeta() error {
	s := l.s
	indexes := []byte(listOf(*s.kept.Load()))
	for id, a := range s.attrs.table.Load().list {
		if err := l.put(bucketAttr, binary.BigEndian.AppendUint16(nil, uint16(id)), []byte(a.name)); err != nil {
			return err
		}
	}
	gap := LoggedChange{Sequence: l.sequence + 2, Kind: Modified, ID: l.firstID, CSN: l.newest}
	if err := l.put(bucketLog, idKey(nil, gap.Sequence), gap.encode()); err != nil {
		return err
	}
	for _, p := range []struct{ key, value []byte }{
		{keyIndexes, indexes}, {keyEntries, idKey(nil, l.nextID-l.firstID)}, {keyLogFloor, []byte(unordered)},
	} {
		if err := l.put(bucketMeta, p.key, p.value); err != nil {
			return err
		}
	}
	return l.tx.Bucket(bucketEntry).SetSequence(l.nextID - 1)
}

// doLater does what was put off, again and again as long as superiors turn up.
func (l *Load) doLater() (refused []Refused, err error) {
	for rest := l.later; len(rest) > 0; {
		var again []*Replicate
		refused = refused[:0]
		for _, op := range rest {
			err := l.inner.Do("", op)
			var no *ldapwire.Error
			switch {
			case err == nil:
			case errors.As(err, &no) && no.Code != ldapwire.Unavailable:
				again = append(again, op)
				refused = append(refused, Refused{string(op.DN), err})
			default:
				return nil, fmt.Errorf("bulk load: entry %q: %w", op.DN, err)
			}
		}
		if len(again) == len(rest) {
			break
		}
		rest = again
	}
	l.later = nil
	return refused, nil
}

// entry makes of the operation the entry that is stored.
func (op *Replicate) entry(s *Store) (name dirschema.DN, norm []byte, e *Entry, err error) {
	if name, norm, err = s.parseName(op.DN); err != nil {
		return nil, nil, nil, err
	}
	if len(name) == 0 || !s.Holds(norm) {
		return nil, nil, nil, ldapwire.Errorf(ldapwire.NoSuchObject, "%q is not under %s", op.DN, s.suffixText)
	}
	for _, ava := range name[0] {
		if ava.Type == nil {
			return nil, nil, nil, ldapwire.Errorf(ldapwire.UndefinedAttributeType, "%q: attribute type %q is not in the schema", op.DN, ava.Name)
		}
	}
	attrs, err := op.attributes(s)
	if err != nil {
		return nil, nil, nil, err
	}
	e = &Entry{DN: name.String(), Attributes: attrs}
	e.set(s, "entryUUID", []byte(uuid.UUID(op.UUID).String()))
	return name, norm, e, nil
}
