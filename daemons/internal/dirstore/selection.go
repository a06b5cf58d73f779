package dirstore

import (
	"sync"
	"sync/atomic"

	"shoal/daemons/internal/dirschema"
	"shoal/daemons/internal/ldapwire"
)

// virtualAttributes are those in their encoded form that do not depend on the entry's name.
type virtualAttributes struct {
	subschema, yes, no []byte
}

func (s *Store) initVirtual() {
	s.virtualBytes.subschema = ldapwire.AppendAttribute(nil, "subschemaSubentry", [][]byte{[]byte(SubschemaDN)})
	s.virtualBytes.yes = ldapwire.AppendAttribute(nil, "hasSubordinates", [][]byte{[]byte("TRUE")})
	s.virtualBytes.no = ldapwire.AppendAttribute(nil, "hasSubordinates", [][]byte{[]byte("FALSE")})
}

// Selection says which attributes of an entry are returned (RFC 4511 §4.5.1.8, RFC 3673, RFC 4529).
// It is immutable and may be kept as long as the store.
type Selection struct {
	user, operational bool
	verifiers         bool // verifiers are named
	refs              []*attrRef
	virtual           virtual
	leave             func(*attrInfo) bool // of what is selected, what is left out all the same; nil: nothing
	bits              atomic.Pointer[selectionBits]
}

type selectionBits struct {
	table *attrTable
	set   []uint64
}

type selectionCache struct {
	mu sync.RWMutex
	m  map[string]*Selection
}

const maxSelections = 4096

// Select makes a selection of the attribute list of a search. raw is the list in its encoded form:
// selections of equal lists are shared. Names that the schema does not know select nothing.
func (s *Store) Select(raw []byte, list [][]byte) *Selection {
	s.selections.mu.RLock()
	sel := s.selections.m[string(raw)]
	s.selections.mu.RUnlock()
	if sel != nil {
		return sel
	}
	sel = &Selection{user: len(list) == 0}
	for _, name := range list {
		switch {
		case string(name) == "*":
			sel.user = true
		case string(name) == "+":
			sel.operational = true
			sel.virtual |= virtualAll
		case string(name) == "1.1": // RFC 4511 §4.5.1.8: no attributes
		case len(name) > 1 && name[0] == '@':
			if c := s.schema.Class(name[1:]); c != nil {
				sel.class(s, c)
			}
		default:
			sel.name(s, name)
		}
	}
	if len(raw) <= 1024 {
		s.selections.mu.Lock()
		if s.selections.m == nil || len(s.selections.m) >= maxSelections {
			s.selections.m = map[string]*Selection{}
		}
		s.selections.m[string(raw)] = sel
		s.selections.mu.Unlock()
	}
	return sel
}

func (sel *Selection) name(s *Store, name []byte) {
	ref := s.attrs.ref(name)
	switch {
	case ref == nil:
	case ref.virtual != 0:
		sel.virtual |= ref.virtual
	default:
		sel.verifiers = sel.verifiers || secrets[ref.desc.Type.OID]
		sel.refs = append(sel.refs, ref)
	}
}

// class adds the attributes of an object class (RFC 4529); those of extensibleObject are all.
func (sel *Selection) class(s *Store, c *dirschema.ObjectClass) {
	if c.Name() == "extensibleObject" {
		sel.user = true
	}
	for _, list := range [][]*dirschema.AttributeType{c.Must, c.May} {
		for _, a := range list {
			sel.name(s, []byte(a.Name()))
		}
	}
}

// wants is a bit set of attribute ids.
func (sel *Selection) wants(t *attrTable) []uint64 {
	if b := sel.bits.Load(); b != nil && b.table == t {
		return b.set
	}
	b := &selectionBits{table: t, set: make([]uint64, (len(t.list)+63)/64)}
	for _, ref := range sel.refs {
		for _, id := range ref.resolve(t).ids {
			b.set[id>>6] |= 1 << (id & 63)
		}
	}
	for id, a := range t.list {
		if a.class == userAttr && sel.user || a.class == operationalAttr && sel.operational || a.class == secretAttr && sel.user {
			b.set[id>>6] |= 1 << (id & 63)
		}
	}
	if sel.leave != nil {
		for id := range t.list {
			if sel.leave(&t.list[id]) {
				b.set[id>>6] &^= 1 << (id & 63)
			}
		}
	}
	sel.bits.Store(b)
	return b.set
}

// View says how an entry is returned.
type View struct {
	TypesOnly bool
	// Secrets includes the secret attributes that the selection covers: for replicas only.
	Secrets bool
	// Verifiers includes verifiers (authPassword) that the selection names: for servers that log users in.
	Verifiers bool
	// Stored leaves out the computed attributes: for replicas, which compute them themselves.
	Stored bool
	// Values, if set, leaves only values that one of its terms matches (RFC 3876).
	Values *Filter
}

// AppendEntry appends the entry as a SearchResultEntry message. controls are encoded response
// controls, nil for none.
func (r *Reader) AppendEntry(dst []byte, id int32, f *Found, sel *Selection, view View, controls []byte) ([]byte, error) {
	var up *node
	dnLen := len(f.rec.rdn)
	if f.rec.parent != 0 {
		var err error
		if up, err = r.node(f.rec.parent); err != nil {
			return dst, err
		}
		dnLen += 1 + len(up.dn)
	}
	n := f.rec.op
	if view.Secrets {
		n = f.rec.all
	} else if (view.Verifiers || f.sight != nil && f.sight.verifiers) && sel.verifiers {
		return r.appendWithVerifiers(dst, id, f, sel, view, up, dnLen, controls)
	}
	if view.TypesOnly {
		return r.appendTypes(dst, id, f, sel, up, dnLen, n, controls)
	}
	var extra []byte
	if v := f.sight.virtuals(sel.virtual); v != 0 && !view.Stored {
		extra = r.appendVirtual(f, v, up)
	}
	if view.Values != nil {
		return r.appendMatched(dst, id, f, sel, up, n, view.Values, extra, controls)
	}
	if sel.user && !sel.operational && len(sel.refs) == 0 && !view.Secrets && sel.leave == nil && (f.sight == nil || f.sight.all) {
		end := f.rec.end(f.rec.user - 1)
		dst = ldapwire.AppendEntryStart(dst, id, dnLen, end+len(extra), len(controls))
		dst = appendDN(dst, f, up)
		dst = ldapwire.AppendEntryAttributes(dst, end+len(extra))
		dst = append(append(dst, f.rec.blob[:end]...), extra...)
		return ldapwire.AppendEntryEnd(dst, controls), nil
	}
	wanted, size := r.seen(f.sight, sel.wants(r.table)), len(extra)
	for i, start := 0, 0; i < n; i++ {
		a, end := f.rec.id(i), f.rec.end(i)
		if int(a>>6) < len(wanted) && wanted[a>>6]&(1<<(a&63)) != 0 {
			size += end - start
		}
		start = end
	}
	dst = ldapwire.AppendEntryStart(dst, id, dnLen, size, len(controls))
	dst = appendDN(dst, f, up)
	dst = ldapwire.AppendEntryAttributes(dst, size)
	for i, start := 0, 0; i < n; i++ {
		a, end := f.rec.id(i), f.rec.end(i)
		if int(a>>6) < len(wanted) && wanted[a>>6]&(1<<(a&63)) != 0 {
			dst = append(dst, f.rec.blob[start:end]...)
		}
		start = end
	}
	dst = append(dst, extra...)
	return ldapwire.AppendEntryEnd(dst, controls), nil
}

// appendWithVerifiers appends an entry with those of its secret attributes that are verifiers and named.
func (r *Reader) appendWithVerifiers(dst []byte, id int32, f *Found, sel *Selection, view View, up *node, dnLen int, controls []byte) ([]byte, error) {
	named := map[uint16]bool{}
	for _, ref := range sel.refs {
		if secrets[ref.desc.Type.OID] {
			for _, id := range ref.resolve(r.table).ids {
				named[id] = true
			}
		}
	}
	wanted := r.seen(f.sight, sel.wants(r.table))
	var attrs []byte
	for i := range f.rec.all {
		a := f.rec.id(i)
		if i < f.rec.op && (int(a>>6) >= len(wanted) || wanted[a>>6]&(1<<(a&63)) == 0) || i >= f.rec.op && (!named[a] || !view.Verifiers && !f.sight.read.has(r.table.list[a].desc.Type)) {
			continue
		}
		if view.TypesOnly {
			attrs = ldapwire.AppendAttribute(attrs, r.table.list[a].name, nil)
		} else {
			attrs = append(attrs, f.rec.attribute(i)...)
		}
	}
	if v := f.sight.virtuals(sel.virtual); v != 0 && !view.TypesOnly {
		attrs = append(attrs, r.appendVirtual(f, v, up)...)
	}
	dst = ldapwire.AppendEntryStart(dst, id, dnLen, len(attrs), len(controls))
	dst = appendDN(dst, f, up)
	dst = ldapwire.AppendEntryAttributes(dst, len(attrs))
	dst = append(dst, attrs...)
	return ldapwire.AppendEntryEnd(dst, controls), nil
}

func appendDN(dst []byte, f *Found, up *node) []byte {
	dst = append(dst, f.rec.rdn...)
	if up != nil {
		dst = append(append(dst, ','), up.dn...)
	}
	return dst
}

func (r *Reader) appendTypes(dst []byte, id int32, f *Found, sel *Selection, up *node, dnLen, n int, controls []byte) ([]byte, error) {
	wanted := r.seen(f.sight, sel.wants(r.table))
	var types []byte
	for i := range n {
		if a := f.rec.id(i); int(a>>6) < len(wanted) && wanted[a>>6]&(1<<(a&63)) != 0 {
			types = ldapwire.AppendAttribute(types, r.table.list[a].name, nil)
		}
	}
	for name, v := range virtualOf {
		if f.sight.virtuals(sel.virtual)&v != 0 && r.hasVirtual(f, v) {
			types = ldapwire.AppendAttribute(types, name, nil)
		}
	}
	dst = ldapwire.AppendEntryStart(dst, id, dnLen, len(types), len(controls))
	dst = appendDN(dst, f, up)
	dst = ldapwire.AppendEntryAttributes(dst, len(types))
	dst = append(dst, types...)
	return ldapwire.AppendEntryEnd(dst, controls), nil
}

// contextCSNs are those of the Reader's state of the directory.
func (r *Reader) contextCSNs() []csn {
	return splitCSNs(string(r.tx.Bucket(bucketMeta).Get(keyContextCSN)))
}

// ContextCSN are the CSNs of the newest change that this Reader sees.
func (r *Reader) ContextCSN() []string { return r.contextCSNs() }

// Replaced is the newest CSN that the directory had when its content was last replaced as a whole, "" if it never was. Who knows a
// state up to it may know entries that are gone, and later versions of those that are there.
func (r *Reader) Replaced() string { return string(r.tx.Bucket(bucketMeta).Get(keyReplaced)) }

// Detached makes an entry that is not in the database, to be searched and returned like one: the root
// DSE and the subschema subentry. dn is its name in string form.
func (s *Store) Detached(dn string, list []ldapwire.Attribute) (*Found, error) {
	attrs, err := s.attributesOf(list, false)
	if err != nil {
		return nil, err
	}
	raw, err := encodeRecord(&s.attrs, 0, []byte(dn), attrs)
	if err != nil {
		return nil, err
	}
	f := &Found{}
	f.rec, err = parseRecord(raw)
	return f, err
}
