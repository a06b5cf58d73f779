package dirstore

import (
	"bytes"
	"sync/atomic"

	"shoal/daemons/internal/dirschema"
	"shoal/daemons/internal/ldapwire"
)

// Sight says what of an entry somebody may see. Who has none sees everything but secrets. It is immutable, and shared by
// all entries of which the same is to be seen.
type Sight struct {
	// Hidden: for him the entry is not there.
	Hidden                bool
	search, read, compare typeSet
	comparing             *Sight // filters ask it of what may be compared
	verifiers             bool   // secrets are among what he may read, if he names them
	virtual               virtual
	all                   bool // every attribute but secrets may be read
	bits                  atomic.Pointer[selectionBits]
}

// typeSet is a set of attribute types by their serial numbers.
type typeSet []uint64

func (t typeSet) has(a *dirschema.AttributeType) bool {
	return a.Serial>>6 < len(t) && t[a.Serial>>6]&(1<<(a.Serial&63)) != 0
}

// NewSight makes the sight of an entry of which these types may be searched, read and compared.
func (s *Store) NewSight(hidden bool, search, read, compare func(*dirschema.AttributeType) bool) *Sight {
	list := s.schema.Attributes()
	n := &Sight{Hidden: hidden, all: true}
	for _, a := range list {
		for _, f := range []struct {
			may func(*dirschema.AttributeType) bool
			set *typeSet
		}{{search, &n.search}, {read, &n.read}, {compare, &n.compare}} {
			for len(*f.set) <= a.Serial>>6 {
				*f.set = append(*f.set, 0)
			}
			if f.may(a) {
				(*f.set)[a.Serial>>6] |= 1 << (a.Serial & 63)
			}
		}
		may := n.read.has(a)
		switch {
		case classOf(a) == secretAttr:
			n.verifiers = n.verifiers || may
		case !may:
			n.all = false
		}
		if may {
			n.virtual |= virtualOf[a.Name()]
		}
	}
	n.comparing = &Sight{Hidden: hidden, search: n.compare, read: n.read}
	return n
}

// MaySearch, MayRead and MayCompare report whether a type may be matched by a filter, returned, and compared; nil stands for
// everything but secrets.
func (n *Sight) MaySearch(a *dirschema.AttributeType) bool {
	if n == nil {
		return classOf(a) != secretAttr
	}
	return n.search.has(a) && classOf(a) != secretAttr
}

// MayRead is told at MaySearch.
func (n *Sight) MayRead(a *dirschema.AttributeType) bool {
	if n == nil {
		return classOf(a) != secretAttr
	}
	return n.read.has(a)
}

// MayCompare is told at MaySearch.
func (n *Sight) MayCompare(a *dirschema.AttributeType) bool {
	if n == nil {
		return classOf(a) != secretAttr
	}
	return n.compare.has(a) && classOf(a) != secretAttr
}

// ids are the attribute ids that may be read, as a bit set.
func (n *Sight) ids(t *attrTable) []uint64 {
	if b := n.bits.Load(); b != nil && b.table == t {
		return b.set
	}
	b := &selectionBits{table: t, set: make([]uint64, (len(t.list)+63)/64)}
	for id, a := range t.list {
		if n.read.has(a.desc.Type) {
			b.set[id>>6] |= 1 << (id & 63)
		}
	}
	n.bits.Store(b)
	return b.set
}

// seen is what of a selection may be read.
func (r *Reader) seen(n *Sight, wanted []uint64) []uint64 {
	if n == nil || n.all && !n.verifiers {
		return wanted
	}
	may := n.ids(r.table)
	r.mask = r.mask[:0]
	for i, w := range wanted {
		m := uint64(0)
		if i < len(may) {
			m = may[i]
		}
		r.mask = append(r.mask, w&m)
	}
	return r.mask
}

// virtuals are the computed attributes of a selection that may be read.
func (n *Sight) virtuals(v virtual) virtual {
	if n == nil {
		return v
	}
	return v & n.virtual
}

// Seeing is how somebody sees each entry. The Reader is that of the entry. nil: with Sight nil.
type Seeing func(r *Reader, f *Found) *Sight

// See decides how the entry is seen from now on: by filters that it is matched with, and where it is returned. It
// reports whether it is seen at all.
func (r *Reader) See(f *Found, as Seeing) bool {
	if as == nil {
		return true
	}
	f.sight = as(r, f)
	return f.sight == nil || !f.sight.Hidden
}

// Sight is how the entry is seen.
func (f *Found) Sight() *Sight { return f.sight }

// Seeing is how they are shown.
func (s *Search) Seeing() Seeing { return s.seeing }

// Guard shows the search's entries as somebody sees them. It belongs after Start.
func (s *Search) Guard(as Seeing) { s.seeing = as }

// Permit decides, in the transaction of a write, whether it is allowed. Its errors should be *ldapwire.Error. Entries that
// do not exist yet have the ID 0, and their whole name is their own.
type Permit interface {
	// See is how the one who writes sees an entry: for assertions, and for what he is told of it.
	See(r *Reader, f *Found) *Sight
	// Add is asked about a new entry; given is what the client gave of it.
	Add(r *Reader, f *Found, given []ldapwire.Attribute, entry *Entry) error
	// Modify is asked about changes of an entry, which make it what entry is.
	Modify(r *Reader, f *Found, changes []ldapwire.Change, entry *Entry) error
	// Delete is asked about each entry that goes.
	Delete(r *Reader, f *Found) error
	// Rename is asked about an entry that gets another name: renamed is what it will be.
	Rename(r *Reader, f, renamed *Found, op *Rename) error
}

// permit is that of the write under way; nil: everything is allowed.
func (w *writing) permit() Permit {
	if w.write == nil {
		return nil
	}
	return w.write.Permit
}

// detached makes an entry that is to be.
func (w *writing) detached(e *Entry, dn string) (f Found, err error) {
	raw, err := encodeRecord(&w.store.attrs, 0, []byte(dn), e.Attributes)
	if err != nil {
		return f, err
	}
	w.table = w.store.attrs.table.Load()
	f.rec, err = parseRecord(raw)
	return f, err
}

// Watched counts the commits that changed one of Options.Watch. What was learned of those attributes before it last changed
// may be outdated.
func (s *Store) Watched() uint64 { return s.watched.Load() }

// Watched is the store's from before this Reader was made: what it sees of what is watched is not older.
func (r *Reader) Watched() uint64 { return r.watched }

// watches makes the set of types to watch.
func (s *Store) watches(names []string) {
	for _, name := range names {
		if a := s.schema.Attribute([]byte(name)); a != nil {
			for len(s.watching) <= a.Serial>>6 {
				s.watching = append(s.watching, 0)
			}
			s.watching[a.Serial>>6] |= 1 << (a.Serial & 63)
		}
	}
}

// watch notes whether what is watched differs between two states of an entry.
func (w *writing) watch(was, is []Attribute) {
	if w.touched || len(w.store.watching) == 0 {
		return
	}
	for _, lists := range [2][2][]Attribute{{was, is}, {is, was}} {
		for i := range lists[0] {
			a := &lists[0][i]
			if !w.store.watching.has(a.Desc.Type) {
				continue
			}
			other := (&Entry{Attributes: lists[1]}).Find(a.Desc)
			if other == nil || len(other.Values) != len(a.Values) {
				w.touched = true
				return
			}
			for j := range a.Values {
				if !bytes.Equal(a.Values[j], other.Values[j]) {
					w.touched = true
					return
				}
			}
		}
	}
}

// ParentName is the normal form of the name above an entry; nil for the suffix entry and for entries that are not in the
// store. It is valid until the Reader is closed.
func (r *Reader) ParentName(f *Found) ([]byte, error) {
	if f.rec.parent == 0 {
		return nil, nil
	}
	up, err := r.node(f.rec.parent)
	if err != nil {
		return nil, err
	}
	return up.norm, nil
}

// Comparing is the entry for a compare: filters match what may be compared.
func (f *Found) Comparing() Found {
	c := f.Unseen()
	if f.sight != nil {
		c.sight = f.sight.comparing
	}
	return c
}

// Unseen is the entry as it is, whoever sees it.
func (f *Found) Unseen() Found { return Found{ID: f.ID, rec: f.rec} }
