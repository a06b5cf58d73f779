package dirstore

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/google/uuid"

	"shoal/daemons/internal/dirschema"
	"shoal/daemons/internal/ldapwire"
)

// Operations of a replica. They take what another server says as it is: no schema check, no new
// operational attributes, the CSNs that were given.

// Replicate makes an entry what the provider says it is, known by its entryUUID: it adds it, changes
// it, gives it another name, or finds that nothing differs.
//
// An entry with another UUID that has the name already is one that the provider has renamed or removed
// since, and of which we shall be told later: it is moved aside, with what is under it, to the name
// entryUUID=<uuid> beside. The suffix entry has no other place: it takes the new UUID.
type Replicate struct {
	UUID       [16]byte
	DN         []byte
	Attributes []ldapwire.Attribute // operational ones too; computed ones are left out
	After      *Context             // made in the same transaction; may be nil

	// ID is the id of the entry and Skipped the attributes that the schema does not know, once the
	// operation is done.
	ID      uint64
	Skipped []string
}

func (op *Replicate) apply(w *writing) error {
	if err := op.After.check(); err != nil {
		return err
	}
	s := w.store
	name, norm, e, err := op.entry(s)
	if err != nil {
		return err
	}
	w.csn = e.one("entryCSN")
	w.clock.seen(w.csn)

	rdn := name[0].Append(nil)
	var parent, id uint64
	if bytes.Equal(norm, s.suffix) {
		rdn = []byte(name.String())
		id = w.child(0, norm)
	} else {
		_, up := splitNorm(norm)
		if parent, err = w.Resolve(up); err != nil {
			return err
		}
		id = w.ByUUID(op.UUID)
	}
	key, err := w.treeKey(parent, name)
	if err != nil {
		return refuse(err)
	}
	if id == 0 {
		err = op.add(w, key, parent, rdn, e)
	} else {
		err = op.change(w, id, key, parent, rdn, e)
	}
	if err != nil {
		return err
	}
	return op.After.with(w)
}

// attributes resolves those that the schema knows.
func (op *Replicate) attributes(s *Store) ([]Attribute, error) {
	known := make([]ldapwire.Attribute, 0, len(op.Attributes))
	op.Skipped = nil
	for _, a := range op.Attributes {
		if len(a.Values) == 0 {
			continue
		}
		if s.attrs.ref(a.Type) == nil {
			op.Skipped = append(op.Skipped, string(a.Type))
			continue
		}
		known = append(known, a)
	}
	return s.attributesOf(known, false)
}

func (op *Replicate) add(w *writing, key []byte, parent uint64, rdn []byte, e *Entry) error {
	if other := w.child(parent, key[8:]); other != 0 {
		if err := w.moveAside(other); err != nil {
			return err
		}
	}
	id, err := w.entryB.NextSequence()
	if err != nil {
		return err
	}
	op.ID = id
	if err := w.put(id, parent, rdn, nil, e.Attributes); err != nil {
		return err
	}
	if err := w.treeB.Put(key, binary.BigEndian.AppendUint64(nil, id)); err != nil {
		return err
	}
	w.entries++
	return w.log(Added, id, op.UUID[:], w.csn)
}

func (op *Replicate) change(w *writing, id uint64, key []byte, parent uint64, rdn []byte, e *Entry) error {
	op.ID = id
	f, ok, err := w.Get(id)
	if err != nil {
		return err
	}
	if !ok {
		return fmt.Errorf("entry %d: %w: missing", id, errRecord)
	}
	oldKey, err := w.keyOf(&f)
	if err != nil {
		return err
	}
	moved := !bytes.Equal(oldKey, key)
	raw, err := encodeRecord(&w.store.attrs, parent, rdn, e.Attributes)
	if err != nil {
		return err
	}
	if !moved && bytes.Equal(raw, f.rec.raw) {
		return nil
	}
	old, err := decodeAttributes(w.table, &f.rec)
	if err != nil {
		return err
	}
	kind := Modified
	if moved {
		kind = Renamed
		if under, err := w.isUnder(parent, id); err != nil {
			return err
		} else if under {
			return ldapwire.Errorf(ldapwire.UnwillingToPerform, "%q lies under itself", op.DN)
		}
		if other := w.child(parent, key[8:]); other != 0 {
			if err := w.moveAside(other); err != nil {
				return err
			}
		}
	}
	if err := w.place(id, oldKey, key, parent, rdn, old, e.Attributes); err != nil {
		return err
	}
	return w.log(kind, id, op.UUID[:], w.csn)
}

// place writes a changed entry, at another place of the tree if the keys differ.
func (w *writing) place(id uint64, oldKey, key []byte, parent uint64, rdn []byte, old, is []Attribute) error {
	if err := w.put(id, parent, rdn, old, is); err != nil {
		return err
	}
	if !bytes.Equal(oldKey, key) || w.nameShown(id, rdn) {
		w.nodes = w.nodes || w.hasSubordinates(id)
		w.forget(id)
	}
	if bytes.Equal(oldKey, key) {
		return nil
	}
	if err := w.treeB.Delete(oldKey); err != nil {
		return err
	}
	return w.treeB.Put(key, binary.BigEndian.AppendUint64(nil, id))
}

// nameShown reports whether a cached name would be shown that is written otherwise now.
func (w *writing) nameShown(id uint64, rdn []byte) bool {
	c := w.store.base.nodes.Load()
	c.mu.RLock()
	n := c.byID[id]
	c.mu.RUnlock()
	return n != nil && !bytes.HasPrefix(n.dn, rdn)
}

// moveAside frees the name of an entry.
func (w *writing) moveAside(id uint64) error {
	f, ok, err := w.Get(id)
	if err != nil || !ok {
		return errors.Join(err, fmt.Errorf("entry %d: %w: missing", id, errRecord))
	}
	key, err := w.keyOf(&f)
	if err != nil {
		return err
	}
	attrs, err := decodeAttributes(w.table, &f.rec)
	if err != nil {
		return err
	}
	e := &Entry{Attributes: attrs}
	rdn, err := w.store.schema.ParseRDN([]byte("entryUUID=" + e.one("entryUUID")))
	if err != nil {
		return refuse(err)
	}
	parent := f.rec.parent
	aside, err := w.treeKey(parent, dirschema.DN{rdn})
	if err != nil {
		return refuse(err)
	}
	if w.child(parent, aside[8:]) != 0 {
		return fmt.Errorf("entry %d: %w: moved aside twice", id, errRecord)
	}
	if err := w.place(id, key, aside, parent, rdn.Append(nil), attrs, attrs); err != nil {
		return err
	}
	return w.log(Renamed, id, e.uuid(w.store), e.one("entryCSN"))
}

// keyOf is the key of an entry in the tree bucket.
func (w *writing) keyOf(f *Found) ([]byte, error) {
	if f.rec.parent == 0 {
		return w.treeKey(0, nil)
	}
	rdn, err := w.store.schema.ParseRDN(f.rec.rdn)
	if err != nil {
		return nil, fmt.Errorf("entry %d: name %q: %w", f.ID, f.rec.rdn, err)
	}
	return w.treeKey(f.rec.parent, dirschema.DN{rdn})
}

// Remove removes the entry with this UUID as the provider did; if there is none, nothing. An entry with
// subordinates is refused: the provider must have said otherwise before.
type Remove struct {
	UUID  [16]byte
	CSN   string   // of the deletion
	After *Context // made in the same transaction; may be nil

	// Gone tells, once the operation is done, that there was such an entry.
	Gone bool
}

func (op *Remove) apply(w *writing) error {
	if err := op.After.check(); err != nil {
		return err
	}
	op.Gone = false
	w.csn = op.CSN
	w.clock.seen(op.CSN)
	if id := w.ByUUID(op.UUID); id != 0 {
		f, ok, err := w.Get(id)
		if err != nil || !ok {
			return errors.Join(err, fmt.Errorf("entry %d: %w: missing", id, errRecord))
		}
		key, err := w.keyOf(&f)
		if err != nil {
			return err
		}
		if err := w.remove(&f, key); err != nil {
			return err
		}
		op.Gone = true
	}
	return op.After.with(w)
}

// Context says how far a replica has come.
type Context struct {
	// CSNs raise contextCSN; at the end of a refresh they become it.
	CSNs []string
	// Cookie is kept, for Store.Cookie; nil leaves what is there.
	Cookie []byte
	// Refresh says whether a refresh begins or ends here: in between, changes come in another order
	// than they were made in, and the log is of no use for those who were away (LogCovers).
	Refresh RefreshStep

	replaced csn // of Load.Replace: the newest CSN of the content that goes
}

// RefreshStep is where in a refresh of a replica an operation stands.
type RefreshStep uint8

// Steps of a refresh.
const (
	NoStep RefreshStep = iota
	RefreshBegins
	RefreshEnds
)

// unordered is the floor of a log whose CSNs do not ascend: above every CSN.
const unordered = "~"

// check refuses before anything is changed.
func (op *Context) check() error {
	if op == nil {
		return nil
	}
	for _, c := range op.CSNs {
		if !IsCSN(c) {
			return ldapwire.Errorf(ldapwire.InvalidAttributeSyntax, "%q is not a CSN", c)
		}
	}
	return nil
}

func (op *Context) apply(w *writing) error {
	if err := op.check(); err != nil {
		return err
	}
	if op.Refresh == RefreshEnds {
		w.context = nil
	}
	for _, c := range op.CSNs {
		w.clock.seen(c)
		w.noteContext(c)
	}
	switch op.Refresh {
	case RefreshBegins:
		w.floor = unordered
	case RefreshEnds:
		w.floor = ""
		for _, c := range w.context {
			w.floor = max(w.floor, c)
		}
	}
	w.changed = true
	if op.replaced != "" {
		if err := w.meta.Put(keyReplaced, []byte(op.replaced)); err != nil {
			return err
		}
	}
	if op.Cookie == nil {
		return nil
	}
	w.cookie = string(op.Cookie)
	return w.meta.Put(keyCookie, op.Cookie)
}

// with makes the operation after another one, if there is one.
func (op *Context) with(w *writing) error {
	if op == nil {
		return nil
	}
	return op.apply(w)
}

// Fence, while it is on, lets only the operations of a replica change the store: what clients' updates were on their way
// is refused. Once an operation that was submitted after Fence is done, no update of a client is made any more.
func (s *Store) Fence(on bool) { s.fenced.Store(on) }

// fence refuses an operation while the store is fenced.
func (w *writing) fence(op Operation) error {
	switch op.(type) {
	case *Add, *Modify, *Delete, *Rename, *Batch:
		if w.store.fenced.Load() {
			return ldapwire.Errorf(ldapwire.Unavailable, "this server has ceased to take updates")
		}
	}
	return nil
}

// Cookie is what Context kept: how far the replica has come, in the provider's words. It is "" until a
// first refresh has been completed.
func (s *Store) Cookie() string { return *s.cookie.Load() }

// ByUUID finds the id of an entry by its entryUUID; 0 if there is none.
func (r *Reader) ByUUID(id [16]byte) uint64 {
	x := r.indexes[r.store.entryUUID]
	set, _ := r.postings(indexKey(nil, x.id, kindEquality, id[:]), 1)
	if n, ok := set.from(0); ok {
		return n
	}
	return 0
}

// UUID is the entryUUID of an entry, zero if it has none.
func (r *Reader) UUID(f *Found) (id [16]byte) {
	r.Values(f, "entryUUID", func(v []byte) bool {
		if u, err := uuid.ParseBytes(v); err == nil {
			id = u
		}
		return false
	})
	return id
}

// Parent is the id of the entry above, 0 for the suffix entry.
func (f *Found) Parent() uint64 { return f.rec.parent }

// HasSubordinates reports whether any entry lies directly below.
func (r *Reader) HasSubordinates(f *Found) bool { return r.hasSubordinates(f.ID) }

// Below reports whether an entry is in the scope of a search whose base has the id base.
func (r *Reader) Below(base uint64, scope ldapwire.Scope, f *Found) (bool, error) {
	switch scope {
	case ldapwire.BaseObject:
		return f.ID == base, nil
	case ldapwire.SingleLevel:
		return f.rec.parent == base, nil
	case ldapwire.Subordinates:
		if f.ID == base {
			return false, nil
		}
	}
	for id, up := f.ID, f.rec.parent; ; {
		if id == base {
			return true, nil
		}
		if up == 0 {
			return false, nil
		}
		rec, ok, err := r.record(up)
		if err != nil || !ok {
			return false, err
		}
		id, up = up, rec.parent
	}
}
