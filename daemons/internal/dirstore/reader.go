package dirstore

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"sync"

	"go.etcd.io/bbolt"

	"shoal/daemons/internal/ldapwire"
)

// node is what is remembered of an entry that has subordinates.
type node struct {
	id   uint64
	dn   []byte // string form
	norm []byte // normal form
}

// nodeCache remembers nodes. It tells the truth to transactions from since on: a rename or a delete
// of a node puts an empty cache in its place, with the id of its own transaction.
type nodeCache struct {
	since  uint64
	mu     sync.RWMutex
	byNorm map[string]*node
	byID   map[uint64]*node
}

const maxNodes = 65536

func newNodeCache(since uint64) *nodeCache {
	return &nodeCache{since: since, byNorm: map[string]*node{}, byID: map[uint64]*node{}}
}

func (c *nodeCache) put(n *node) {
	c.mu.Lock()
	if len(c.byID) >= maxNodes {
		clear(c.byID)
		clear(c.byNorm)
	}
	c.byID[n.id] = n
	c.byNorm[string(n.norm)] = n
	c.mu.Unlock()
}

// Reader is a read transaction: one consistent state of the directory, with cursors that are used
// again. A Reader belongs to one goroutine and must be closed soon: while it is open, the database
// cannot use the space of what was replaced since.
type Reader struct {
	store   *Store
	tx      *bbolt.Tx
	table   *attrTable
	indexes indexSet   // that this transaction may use
	nodes   *nodeCache // nil: this transaction is too old for it
	entry   *bbolt.Cursor
	tree    *bbolt.Cursor
	index   *bbolt.Cursor
	key     []byte // scratch
	scratch []byte // scratch of filter evaluation
	spaced  []byte
	mask    []uint64
	watched uint64
}

// Read begins a read transaction.
func (s *Store) Read() (*Reader, error) {
	watched := s.watched.Load()
	s.swap.RLock()
	base, indexes := s.base, *s.usable.Load() // loaded before Begin: an index in it is complete in the transaction
	tx, err := base.bolt.Begin(false)
	s.swap.RUnlock()
	if err != nil {
		return nil, fmt.Errorf("read transaction: %w", err)
	}
	r := s.readers.Get().(*Reader)
	r.indexes, r.watched = indexes, watched
	r.open(tx, base.nodes.Load()) // loaded after Begin: a cache may be too new for a transaction, never too old
	return r, nil
}

func (r *Reader) open(tx *bbolt.Tx, nodes *nodeCache) {
	r.tx, r.nodes = tx, nodes
	if nodes != nil && uint64(tx.ID()) < nodes.since {
		r.nodes = nil
	}
	r.table = r.store.attrs.table.Load()
	r.entry, r.tree, r.index = nil, nil, nil
}

// Close ends the transaction. Everything got from the Reader is invalid afterwards.
func (r *Reader) Close() {
	_ = r.tx.Rollback() // a read transaction has nothing to lose
	r.tx, r.entry, r.tree, r.index, r.nodes, r.indexes = nil, nil, nil, nil, nil, nil
	r.store.readers.Put(r)
}

func (r *Reader) entries() *bbolt.Cursor {
	if r.entry == nil {
		r.entry = r.tx.Bucket(bucketEntry).Cursor()
	}
	return r.entry
}

func (r *Reader) trees() *bbolt.Cursor {
	if r.tree == nil {
		r.tree = r.tx.Bucket(bucketTree).Cursor()
	}
	return r.tree
}

func (r *Reader) indexCursor() *bbolt.Cursor {
	if r.index == nil {
		r.index = r.tx.Bucket(bucketIndex).Cursor()
	}
	return r.index
}

func idKey(dst []byte, id uint64) []byte { return binary.BigEndian.AppendUint64(dst, id) }

// record reads the record of an id; ok is false if there is none.
func (r *Reader) record(id uint64) (rec record, ok bool, err error) {
	r.key = idKey(r.key[:0], id)
	k, v := r.entries().Seek(r.key)
	if !bytes.Equal(k, r.key) {
		return rec, false, nil
	}
	rec, err = parseRecord(v)
	if err != nil {
		err = fmt.Errorf("entry %d: %w", id, err)
	}
	return rec, err == nil, err
}

// child finds the subordinate of parent that has the RDN with this normal form; 0 if there is none.
func (r *Reader) child(parent uint64, rdn []byte) uint64 {
	r.key = append(idKey(r.key[:0], parent), rdn...)
	k, v := r.trees().Seek(r.key)
	if !bytes.Equal(k, r.key) || len(v) != 8 {
		return 0
	}
	return binary.BigEndian.Uint64(v)
}

// hasSubordinates reports whether any entry lies directly below id.
func (r *Reader) hasSubordinates(id uint64) bool {
	r.key = idKey(r.key[:0], id)
	k, _ := r.trees().Seek(r.key)
	return bytes.HasPrefix(k, r.key)
}

// splitNorm cuts the first RDN off a name in its normal form, where every ',' separates.
func splitNorm(norm []byte) (rdn, parent []byte) {
	if i := bytes.IndexByte(norm, ','); i >= 0 {
		return norm[:i], norm[i+1:]
	}
	return norm, nil
}

// Resolve finds the id of a name in its normal form. The error is an *ldapwire.Error (noSuchObject)
// with the nearest superior that exists.
func (r *Reader) Resolve(norm []byte) (uint64, error) {
	if bytes.Equal(norm, r.store.suffix) {
		if id := r.child(0, norm); id != 0 {
			return id, nil
		}
		return 0, &ldapwire.Error{Code: ldapwire.NoSuchObject, Message: "the directory is empty"}
	}
	if !r.store.Holds(norm) {
		return 0, &ldapwire.Error{Code: ldapwire.NoSuchObject, Message: "not under " + r.store.suffixText}
	}
	rdn, up := splitNorm(norm)
	parent, err := r.nodeByName(up)
	if err != nil {
		return 0, err
	}
	if id := r.child(parent.id, rdn); id != 0 {
		return id, nil
	}
	return 0, &ldapwire.Error{Code: ldapwire.NoSuchObject, Matched: string(parent.dn)}
}

// Holds reports whether a name in its normal form is the suffix or lies under it.
func (s *Store) Holds(norm []byte) bool {
	return bytes.HasSuffix(norm, s.suffix) && (len(norm) == len(s.suffix) || norm[len(norm)-len(s.suffix)-1] == ',')
}

func (r *Reader) nodeByName(norm []byte) (*node, error) {
	if r.nodes != nil {
		r.nodes.mu.RLock()
		n := r.nodes.byNorm[string(norm)]
		r.nodes.mu.RUnlock()
		if n != nil {
			return n, nil
		}
	}
	id, err := r.Resolve(norm)
	if err != nil {
		return nil, err
	}
	return r.node(id)
}

// node gives the name of an entry that has, or may have, subordinates.
func (r *Reader) node(id uint64) (*node, error) { return r.nodeAt(id, 0) }

// maxDepth is above the depth of every tree: names have at most 128 parts.
const maxDepth = 1024

func (r *Reader) nodeAt(id uint64, depth int) (*node, error) {
	if depth > maxDepth {
		return nil, fmt.Errorf("entry %d: %w: it lies under itself", id, errRecord)
	}
	if r.nodes != nil {
		r.nodes.mu.RLock()
		n := r.nodes.byID[id]
		r.nodes.mu.RUnlock()
		if n != nil {
			return n, nil
		}
	}
	rec, ok, err := r.record(id)
	if err != nil {
		return nil, err
	}
	if !ok {
		return nil, fmt.Errorf("entry %d: %w: missing", id, errRecord)
	}
	n := &node{id: id, dn: bytes.Clone(rec.rdn)}
	if rec.parent != 0 {
		up, err := r.nodeAt(rec.parent, depth+1)
		if err != nil {
			return nil, err
		}
		n.dn = append(append(n.dn, ','), up.dn...)
	}
	if n.norm, err = r.store.schema.NormalizeDN(nil, n.dn); err != nil {
		return nil, fmt.Errorf("entry %d: name %q: %w", id, n.dn, err)
	}
	if r.nodes != nil && r.hasSubordinates(id) {
		r.nodes.put(n)
	}
	return n, nil
}

// Found is an entry that was found. It is valid until its Reader is closed.
type Found struct {
	ID    uint64
	rec   record
	sight *Sight // nil: everything but secrets
}

// Get finds an entry by its id. ok is false if there is none.
func (r *Reader) Get(id uint64) (f Found, ok bool, err error) {
	f.ID = id
	f.rec, ok, err = r.record(id)
	return f, ok, err
}

// DN is the name of the entry in its string form; it is appended to dst.
func (r *Reader) DN(dst []byte, f *Found) ([]byte, error) {
	dst = append(dst, f.rec.rdn...)
	if f.rec.parent == 0 {
		return dst, nil
	}
	up, err := r.node(f.rec.parent)
	if err != nil {
		return dst, err
	}
	return append(append(dst, ','), up.dn...), nil
}

// Values calls fn for each value of the attributes that the description covers. The values are valid
// until the Reader is closed. Secret attributes are included: the caller decides what to do with them.
func (r *Reader) Values(f *Found, desc string, fn func(v []byte) bool) {
	ref := r.store.attrs.ref([]byte(desc))
	if ref == nil {
		return
	}
	ids := ref.resolve(r.table).ids
	for i := range f.rec.all {
		if !contains(ids, f.rec.id(i)) {
			continue
		}
		for vals := f.rec.values(i); ; {
			v, rest, ok := ldapwire.NextValue(vals)
			if !ok {
				break
			}
			if !fn(v) {
				return
			}
			vals = rest
		}
	}
}

// Value is the first value of an attribute as a string, "" if there is none.
func (r *Reader) Value(f *Found, desc string) string {
	var out string
	r.Values(f, desc, func(v []byte) bool {
		out = string(v)
		return false
	})
	return out
}

// Entry takes an entry apart. Everything in it is a copy.
func (r *Reader) Entry(f *Found) (*Entry, error) {
	attrs, err := decodeAttributes(r.table, &f.rec)
	if err != nil {
		return nil, fmt.Errorf("entry %d: %w", f.ID, err)
	}
	dn, err := r.DN(nil, f)
	if err != nil {
		return nil, err
	}
	return &Entry{ID: f.ID, DN: string(dn), Attributes: attrs}, nil
}

func contains(ids []uint16, id uint16) bool {
	for _, x := range ids {
		if x == id {
			return true
		}
	}
	return false
}
