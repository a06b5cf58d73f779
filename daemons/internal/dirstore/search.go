package dirstore

import (
	"bytes"
	"encoding/binary"
	"math"

	"shoal/daemons/internal/ldapwire"
)

// Search is a search under way. It outlives the Reader it was started with: a long one is carried on
// with fresh Readers, so that it keeps no old state of the database alive. Entries come in the order
// of their ids; what is added or removed in between may be seen or not.
type Search struct {
	base     uint64
	baseNorm []byte // nil: everything is in scope
	scope    ldapwire.Scope
	filter   *Filter
	all      bool // every entry is a candidate
	set      idset
	hidden   idset // never found
	within   bool  // set is the scope already
	seeing   Seeing
	next     uint64
	// Examined counts the entries that were read.
	Examined int
}

// Start plans a search. baseNorm is the normal form of the base; the search keeps filter. The error
// is an *ldapwire.Error if the base does not exist.
func (r *Reader) Start(s *Search, baseNorm []byte, scope ldapwire.Scope, filter *Filter) error {
	base, err := r.Resolve(baseNorm)
	if err != nil {
		return err
	}
	*s = Search{base: base, baseNorm: append(s.baseNorm[:0], baseNorm...), scope: scope, filter: filter, set: s.set[:0]}
	if scope == ldapwire.BaseObject {
		s.set = s.set.add(base)
		return nil
	}
	set, all := idset(nil), true
	if len(filter.terms) > 0 {
		set, all = r.candidates(filter, 0)
	}
	whole := scope == ldapwire.WholeSubtree && bytes.Equal(baseNorm, r.store.suffix)
	switch {
	case whole:
		s.baseNorm = nil
	case all:
		set, _ = r.scopeSet(base, scope, math.MaxInt)
		all = false
	default:
		// Many candidates, perhaps few entries in scope: the smaller side wins.
		if n := set.count(); n > 1024 {
			if in, complete := r.scopeSet(base, scope, n); complete {
				set = in.and(set)
			}
		}
	}
	s.all, s.set = all, set
	return nil
}

// Small reports whether the search has at most n candidates.
func (s *Search) Small(n int) bool {
	return !s.all && len(s.set) <= n && s.set.count() <= n
}

// Restrict leaves nothing but one entry to find, for somebody who may see no other.
func (s *Search) Restrict(id uint64) {
	s.all = false
	s.set = idset(nil).add(id)
}

// Skip continues after the entry with this id, of which a caller remembers that it was returned.
func (s *Search) Skip(id uint64) { s.next = max(s.next, id+1) }

// Next finds the next entry. ok is false at the end, or when limit entries were read without finding
// one: more then tells that the search is not at its end.
func (r *Reader) Next(s *Search, limit int) (f Found, ok, more bool, err error) {
	for n := 0; ; n++ {
		if n >= limit {
			return f, false, true, nil
		}
		if s.all {
			r.key = idKey(r.key[:0], s.next)
			k, v := r.entries().Seek(r.key)
			if k == nil {
				return f, false, false, nil
			}
			f.ID = binary.BigEndian.Uint64(k)
			if f.rec, err = parseRecord(v); err != nil {
				return f, false, false, err
			}
		} else {
			id, found := s.set.from(s.next)
			if !found {
				return f, false, false, nil
			}
			f.ID = id
			if f.rec, found, err = r.record(id); err != nil {
				return f, false, false, err
			}
			if !found {
				s.next = id + 1
				continue
			}
		}
		s.next = f.ID + 1
		s.Examined++
		if s.hidden != nil && !s.allows(f.ID) {
			continue
		}
		in, err := r.inScope(s, &f)
		if err != nil {
			return f, false, false, err
		}
		if in && r.See(&f, s.seeing) && s.filter.matches(r, &f) {
			return f, true, true, nil
		}
	}
}

func (r *Reader) inScope(s *Search, f *Found) (bool, error) {
	if s.within {
		return true, nil
	}
	switch s.scope {
	case ldapwire.BaseObject:
		return f.ID == s.base, nil
	case ldapwire.SingleLevel:
		return f.rec.parent == s.base, nil
	case ldapwire.Subordinates:
		if f.ID == s.base {
			return false, nil
		}
	}
	if s.baseNorm == nil || f.ID == s.base {
		return true, nil
	}
	if f.rec.parent == 0 {
		return false, nil
	}
	up, err := r.node(f.rec.parent)
	if err != nil {
		return false, err
	}
	n := len(up.norm) - len(s.baseNorm)
	return n >= 0 && bytes.HasSuffix(up.norm, s.baseNorm) && (n == 0 || up.norm[n-1] == ','), nil
}

// scopeSet collects the ids in scope, unless they are more than limit.
func (r *Reader) scopeSet(base uint64, scope ldapwire.Scope, limit int) (set idset, complete bool) {
	n := 0
	add := func(id uint64) bool {
		set = set.add(id)
		n++
		return n <= limit
	}
	if scope == ldapwire.WholeSubtree {
		add(base)
	}
	if scope == ldapwire.SingleLevel {
		complete = r.children(base, add)
	} else {
		w := r.Walk(base)
		for {
			id, ok := w.next(r)
			if !ok {
				return set, true
			}
			if id != base && !add(id) {
				return set, false
			}
		}
	}
	return set, complete
}

// children calls fn for each entry directly below id until it returns false.
func (r *Reader) children(id uint64, fn func(uint64) bool) bool {
	prefix := idKey(nil, id)
	c := r.trees()
	for k, v := c.Seek(prefix); bytes.HasPrefix(k, prefix); k, v = c.Next() {
		if len(v) == 8 && !fn(binary.BigEndian.Uint64(v)) {
			return false
		}
	}
	return true
}

// Walk goes through a subtree, superiors before subordinates. Like a Search it outlives its Reader.
type Walk struct {
	first uint64 // the base, before it was returned
	stack []walkLevel
}

type walkLevel struct {
	parent uint64
	key    []byte // last key seen
}

// Walk begins a walk of the subtree whose top is the entry base.
func (r *Reader) Walk(base uint64) *Walk { return &Walk{first: base} }

func (w *Walk) next(r *Reader) (uint64, bool) {
	if id := w.first; id != 0 {
		w.first = 0
		w.stack = append(w.stack, walkLevel{parent: id, key: idKey(nil, id)})
		return id, true
	}
	for len(w.stack) > 0 {
		l := &w.stack[len(w.stack)-1]
		prefix := l.key[:8]
		c := r.trees()
		k, v := c.Seek(l.key)
		if bytes.Equal(k, l.key) {
			k, v = c.Next()
		}
		if !bytes.HasPrefix(k, prefix) || len(v) != 8 {
			w.stack = w.stack[:len(w.stack)-1]
			continue
		}
		l.key = append(l.key[:0], k...)
		id := binary.BigEndian.Uint64(v)
		if r.hasSubordinates(id) {
			w.stack = append(w.stack, walkLevel{parent: id, key: idKey(nil, id)})
		}
		return id, true
	}
	return 0, false
}

// NextOf goes on with a walk. ok is false at its end.
func (r *Reader) NextOf(w *Walk) (f Found, ok bool, err error) {
	for {
		id, more := w.next(r)
		if !more {
			return f, false, nil
		}
		f.ID = id
		if f.rec, ok, err = r.record(id); ok || err != nil {
			return f, ok, err
		}
	}
}

// Matches reports whether the entry satisfies a filter.
func (r *Reader) Matches(f *Found, filter *Filter) bool { return filter.matches(r, f) }

// Evaluate is Matches for one comparison: the filter's single term, with its three truth values told
// apart: yes, no, or undefined.
func (r *Reader) Evaluate(f *Found, filter *Filter) (match, defined bool) {
	t := filter.eval(r, f, 0)
	return t == yes, t != unknown
}

// few is how many chunks of candidates an and reads of each term before it looks at the others.
const few = 8

// candidates gives a superset of the entries that satisfy the term, as the indexes know it.
func (r *Reader) candidates(f *Filter, i int) (set idset, all bool) {
	t := &f.terms[i]
	switch t.op {
	case ldapwire.And:
		return r.andCandidates(f, i)
	case ldapwire.Or:
		for j := i + 1; j < t.end; j = f.terms[j].end {
			part, every := r.candidates(f, j)
			if every {
				return nil, true
			}
			set = set.or(part)
		}
		return set, false
	case ldapwire.Not:
		return nil, true
	}
	set, all, _ = r.termCandidates(f, t, math.MaxInt)
	return set, all
}

// andCandidates stops at the first term that has few candidates, and otherwise intersects.
func (r *Reader) andCandidates(f *Filter, i int) (set idset, all bool) {
	all = true
	end := f.terms[i].end
	for j := i + 1; j < end; j = f.terms[j].end {
		if t := &f.terms[j]; t.op == ldapwire.Equality || t.op == ldapwire.Substrings || t.op == ldapwire.Present {
			if part, every, complete := r.termCandidates(f, t, few); !every && complete {
				if all {
					set, all = part, false
				} else {
					set = set.and(part)
				}
				if set.count() <= 4*few {
					return set, false
				}
			}
		}
	}
	for j := i + 1; j < end; j = f.terms[j].end {
		part, every := r.candidates(f, j)
		if every {
			continue
		}
		if all {
			set, all = part, false
		} else {
			set = set.and(part)
		}
		if set.count() <= 4*few {
			return set, false
		}
	}
	return set, all
}

// termCandidates reads the index for a single term, of equality terms at most limit chunks.
func (r *Reader) termCandidates(f *Filter, t *term, limit int) (set idset, all, complete bool) {
	if t.undefined {
		return nil, false, true // such a term is never true, and Not is not looked into
	}
	if t.ref == nil || t.dn {
		return nil, true, true
	}
	if t.ref.virtual != 0 {
		if t.ref.virtual == virtualEntryDN && t.op == ldapwire.Equality {
			if id, err := r.Resolve(t.value); err == nil {
				set = set.add(id)
			}
			return set, false, true
		}
		if t.ref.virtual == virtualMemberOf && t.op == ldapwire.Equality {
			return r.membersOf(t.value), false, true
		}
		return nil, true, true
	}
	switch t.op {
	case ldapwire.Present:
		if t.ref.desc.Type == r.store.objectClass {
			return nil, true, true
		}
		return r.presenceSet(t, limit)
	case ldapwire.Equality, ldapwire.Extensible:
		return r.equalitySet(t, limit)
	case ldapwire.Substrings:
		return r.substringSet(f, t, limit)
	case ldapwire.GreaterOrEqual, ldapwire.LessOrEqual:
		return r.orderingSet(t)
	}
	return nil, true, true
}
