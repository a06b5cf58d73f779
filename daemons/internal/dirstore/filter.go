package dirstore

import (
	"bytes"

	"shoal/daemons/internal/dirschema"
	"shoal/daemons/internal/ldapwire"
)

// tri is a truth value of RFC 4511 §4.5.1.7.
type tri int8

const (
	no tri = iota
	yes
	unknown
)

// term is one term of a compiled filter, in the order of ldapwire.Filter.Nodes.
type term struct {
	op        ldapwire.FilterOp
	undefined bool // never true or false, whatever the entry
	pieces    bool // extensible by a substrings rule
	dn        bool // extensible: the attributes of the name count, too
	end       int
	ref       *attrRef                // nil for an extensible term without a type
	rule      *dirschema.MatchingRule // by which values are compared
	value     []byte                  // normal form of the assertion value
	piece     int                     // substrings: Filter.pieces[piece:pieceEnd]
	pieceEnd  int
	class     *dirschema.ObjectClass // equality on objectClass
}

type piece struct {
	place uint8
	value []byte
	raw   []byte // normal form as in the index: without the spaces of RFC 4518 at the ends
}

// Filter is a filter compiled for a store. It does not refer to what it was compiled from, and may be
// used by one search at a time.
type Filter struct {
	store  *Store
	terms  []term
	pieces []piece
	arena  []byte
}

// Compile makes a filter, using the memory of into if that is not nil. It does not fail: what the
// schema does not know is Undefined (RFC 4511 §4.5.1.7).
func (s *Store) Compile(f *ldapwire.Filter, into *Filter) *Filter {
	if into == nil {
		into = &Filter{}
	}
	into.store = s
	into.terms, into.pieces, into.arena = into.terms[:0], into.pieces[:0], into.arena[:0]
	for i := range f.Nodes {
		n := &f.Nodes[i]
		into.terms = append(into.terms, term{op: n.Op, end: n.End})
		t := &into.terms[i]
		switch n.Op {
		case ldapwire.And, ldapwire.Or, ldapwire.Not:
		case ldapwire.Extensible:
			into.extensible(t, n)
		default:
			t.ref = s.attrs.ref(n.Attr)
			if t.ref == nil || t.ref.secret {
				t.undefined = true
				continue
			}
			into.assertion(t, n, f.Subs)
		}
	}
	return into
}

func (f *Filter) assertion(t *term, n *ldapwire.Node, subs []ldapwire.Substring) {
	typ := t.ref.desc.Type
	switch n.Op {
	case ldapwire.Present:
		return
	case ldapwire.Approx:
		if t.rule = typ.Equality; t.rule != nil && t.rule.Approximates() {
			break
		}
		fallthrough
	case ldapwire.Equality:
		t.op, t.rule = ldapwire.Equality, typ.Equality
		if typ == f.store.objectClass {
			t.class = f.store.schema.Class(n.Value)
		}
	case ldapwire.GreaterOrEqual, ldapwire.LessOrEqual:
		t.rule = typ.Ordering
	case ldapwire.Substrings:
		t.rule = typ.Substr
	}
	if t.rule == nil {
		t.undefined = true
		return
	}
	if n.Op != ldapwire.Substrings {
		f.normalize(t, n.Value)
		return
	}
	f.substrings(t, subs[n.Sub:n.SubEnd])
}

func (f *Filter) substrings(t *term, subs []ldapwire.Substring) {
	t.piece = len(f.pieces)
	for _, s := range subs {
		p := piece{place: s.Place}
		var err error
		start := len(f.arena)
		if f.arena, err = t.rule.NormalizePiece(f.arena, s.Value, s.Place); err != nil {
			t.undefined = true
			break
		}
		p.value = f.arena[start:len(f.arena):len(f.arena)]
		start = len(f.arena)
		if f.arena, err = t.rule.Normalize(f.arena, s.Value); err != nil {
			t.undefined = true
			break
		}
		p.raw = f.arena[start:len(f.arena):len(f.arena)]
		f.pieces = append(f.pieces, p)
	}
	t.pieceEnd = len(f.pieces)
}

func (f *Filter) normalize(t *term, v []byte) {
	start := len(f.arena)
	var err error
	f.arena, err = t.rule.NormalizeAssertion(f.arena, v)
	if err == nil && t.op == ldapwire.Approx {
		sound := dirschema.AppendSound(nil, f.arena[start:])
		f.arena = append(f.arena[:start], sound...)
	}
	if err != nil {
		f.arena, t.undefined = f.arena[:start], true
		return
	}
	t.value = f.arena[start:len(f.arena):len(f.arena)]
}

// extensible: RFC 4511 §4.5.1.7.7. By an ordering rule a value must be less than the assertion, by a
// substrings rule the assertion is a SubstringAssertion (RFC 4517 §3.3.30).
func (f *Filter) extensible(t *term, n *ldapwire.Node) {
	t.dn = n.DNAttrs
	if n.Attr != nil {
		t.ref = f.store.attrs.ref(n.Attr)
		if t.ref == nil || t.ref.secret {
			t.undefined = true
			return
		}
		t.rule = t.ref.desc.Type.Equality
	}
	if n.Rule != nil {
		t.rule = f.store.schema.Rule(n.Rule)
	}
	if t.rule == nil {
		t.undefined = true
		return
	}
	if t.rule.Kind == dirschema.SubstringRule {
		subs, ok := substringAssertion(n.Value)
		if t.undefined = !ok; ok {
			t.pieces = true
			f.substrings(t, subs)
		}
		return
	}
	f.normalize(t, n.Value)
}

// substringAssertion = [ initial ] any [ final ], any = "*" *( substring "*" ); in a substring "*" is "\2A" and
// "\" is "\5C".
func substringAssertion(v []byte) (out []ldapwire.Substring, ok bool) {
	parts := bytes.Split(v, []byte("*"))
	if len(parts) < 2 || len(parts) > 64 {
		return nil, false
	}
	for i, p := range parts {
		if len(p) == 0 {
			continue
		}
		p = bytes.ReplaceAll(p, []byte(`\2A`), []byte("*"))
		p = bytes.ReplaceAll(p, []byte(`\2a`), []byte("*"))
		p = bytes.ReplaceAll(bytes.ReplaceAll(p, []byte(`\5C`), []byte(`\`)), []byte(`\5c`), []byte(`\`))
		place := ldapwire.Any
		if i == 0 {
			place = ldapwire.Initial
		} else if i == len(parts)-1 {
			place = ldapwire.Final
		}
		out = append(out, ldapwire.Substring{Place: place, Value: p})
	}
	return out, len(out) > 0
}

// matches evaluates the whole filter for one entry.
func (f *Filter) matches(r *Reader, e *Found) bool {
	return len(f.terms) == 0 || f.eval(r, e, 0) == yes
}

func (f *Filter) eval(r *Reader, e *Found, i int) tri {
	t := &f.terms[i]
	switch t.op {
	case ldapwire.And:
		result := yes
		for j := i + 1; j < t.end; j = f.terms[j].end {
			switch f.eval(r, e, j) {
			case no:
				return no
			case unknown:
				result = unknown
			}
		}
		return result
	case ldapwire.Or:
		result := no
		for j := i + 1; j < t.end; j = f.terms[j].end {
			switch f.eval(r, e, j) {
			case yes:
				return yes
			case unknown:
				result = unknown
			}
		}
		return result
	case ldapwire.Not:
		switch f.eval(r, e, i+1) {
		case yes:
			return no
		case no:
			return yes
		}
		return unknown
	}
	if t.undefined {
		return unknown
	}
	if t.ref != nil && e.sight != nil && !e.sight.search.has(t.ref.desc.Type) {
		return unknown
	}
	if t.ref == nil || t.dn {
		return f.evalAny(r, e, t)
	}
	if t.ref.virtual != 0 {
		return f.evalVirtual(r, e, t)
	}
	ids := t.ref.resolve(r.table).ids
	for k := range e.rec.all {
		if !contains(ids, e.rec.id(k)) || e.sight != nil && !e.sight.search.has(r.table.list[e.rec.id(k)].desc.Type) {
			continue // a subtype that is not seen is not there
		}
		if t.op == ldapwire.Present {
			return yes
		}
		if f.anyValue(r, t, e.rec.values(k)) {
			return yes
		}
	}
	return no
}

// anyValue reports whether one of the encoded values satisfies the term.
func (f *Filter) anyValue(r *Reader, t *term, vals []byte) bool {
	for {
		v, rest, ok := ldapwire.NextValue(vals)
		if !ok {
			return false
		}
		if f.value(r, t, v) {
			return true
		}
		vals = rest
	}
}

func (f *Filter) value(r *Reader, t *term, v []byte) bool {
	if t.class != nil {
		c := r.store.schema.Class(v)
		return c != nil && c.Is(t.class)
	}
	var err error
	if r.scratch, err = t.rule.Normalize(r.scratch[:0], v); err != nil {
		return false
	}
	switch {
	case t.op == ldapwire.GreaterOrEqual:
		return bytes.Compare(r.scratch, t.value) >= 0
	case t.op == ldapwire.LessOrEqual:
		return bytes.Compare(r.scratch, t.value) <= 0
	case t.op == ldapwire.Extensible && !t.pieces:
		return t.rule.Match(t.value, r.scratch)
	case t.op == ldapwire.Approx:
		return dirschema.SoundsLike(t.value, r.scratch)
	case t.op == ldapwire.Substrings || t.pieces:
		if cap(r.spaced) < 2*len(r.scratch)+2 {
			r.spaced = make([]byte, 0, 4*len(r.scratch)+64)
		}
		p := f.pieces[t.piece:t.pieceEnd]
		return t.rule.MatchSubstrings(r.scratch, len(p), func(i int) (uint8, []byte) { return p[i].place, p[i].value }, r.spaced)
	}
	return bytes.Equal(r.scratch, t.value)
}

// evalVirtual compares computed attributes.
func (f *Filter) evalVirtual(r *Reader, e *Found, t *term) tri {
	if !r.hasVirtual(e, t.ref.virtual) {
		return no
	}
	if t.op == ldapwire.Present {
		return yes
	}
	for _, v := range r.virtualValues(e, t.ref.virtual) {
		if f.value(r, t, v) {
			return yes
		}
	}
	return no
}

// evalAny evaluates an extensible term over all attributes whose values the rule compares, and over
// the name of the entry where that is asked for.
func (f *Filter) evalAny(r *Reader, e *Found, t *term) tri {
	applies := func(a *dirschema.AttributeType) bool {
		return t.appliesTo(a) && (e.sight == nil || e.sight.search.has(a))
	}
	for k := range e.rec.all {
		if a := r.table.list[e.rec.id(k)]; applies(a.desc.Type) && f.anyValue(r, t, e.rec.values(k)) {
			return yes
		}
	}
	if t.dn {
		dn, err := r.DN(nil, e)
		if err != nil {
			return unknown
		}
		name, err := r.store.schema.ParseDN(dn)
		if err != nil {
			return unknown
		}
		for _, rdn := range name {
			for _, a := range rdn {
				if a.Type != nil && applies(a.Type) && f.value(r, t, a.Value) {
					return yes
				}
			}
		}
	}
	return no
}

// appliesTo reports whether an extensible term looks at values of this type.
func (t *term) appliesTo(a *dirschema.AttributeType) bool {
	if classOf(a) == secretAttr {
		return false
	}
	if t.ref != nil {
		return a.Is(t.ref.desc.Type)
	}
	return t.rule.AppliesTo(a) || a.Syntax.OID == t.rule.Syntax
}
