package dirstore

import (
	"bytes"
	"math"

	"shoal/daemons/internal/ldapwire"
)

// virtual attributes are computed when an entry is read and never stored:
//
//	hasSubordinates    X.501 §14.4: whether something lies under the entry
//	subschemaSubentry  RFC 4512 §4.2
//	entryDN            RFC 5020
//	contextCSN         of the suffix entry: how far the directory has come
//	memberOf           the groups that have the entry as a member, found by the index of member: there
//	                   is nothing to keep in step, neither here nor on a shadow
type virtual uint8

const (
	virtualHasSubordinates virtual = 1 << iota
	virtualSubschema
	virtualEntryDN
	virtualContextCSN // of the suffix entry only
	virtualMemberOf

	virtualAll = virtualHasSubordinates | virtualSubschema | virtualEntryDN | virtualContextCSN | virtualMemberOf
)

var virtualOf = map[string]virtual{"hasSubordinates": virtualHasSubordinates, "subschemaSubentry": virtualSubschema,
	"entryDN": virtualEntryDN, "contextCSN": virtualContextCSN, "memberOf": virtualMemberOf}

// maxGroups bounds how many groups memberOf names.
const maxGroups = 10_000

func (r *Reader) appendVirtual(f *Found, wanted virtual, up *node) []byte {
	var b []byte
	if wanted&virtualEntryDN != 0 {
		b = ldapwire.AppendAttribute(b, "entryDN", [][]byte{appendDN(nil, f, up)})
	}
	if wanted&virtualSubschema != 0 {
		b = append(b, r.store.virtualBytes.subschema...)
	}
	if wanted&virtualContextCSN != 0 && r.hasVirtual(f, virtualContextCSN) {
		b = ldapwire.AppendAttribute(b, "contextCSN", r.virtualValues(f, virtualContextCSN))
	}
	if wanted&virtualMemberOf != 0 {
		if groups := r.virtualValues(f, virtualMemberOf); len(groups) > 0 {
			b = ldapwire.AppendAttribute(b, "memberOf", groups)
		}
	}
	if wanted&virtualHasSubordinates != 0 && f.ID != 0 {
		if r.hasSubordinates(f.ID) {
			b = append(b, r.store.virtualBytes.yes...)
		} else {
			b = append(b, r.store.virtualBytes.no...)
		}
	}
	return b
}

// virtualValues are the values of one computed attribute.
func (r *Reader) virtualValues(f *Found, v virtual) (out [][]byte) {
	switch v {
	case virtualHasSubordinates:
		switch {
		case f.ID == 0:
		case r.hasSubordinates(f.ID):
			out = append(out, []byte("TRUE"))
		default:
			out = append(out, []byte("FALSE"))
		}
	case virtualSubschema:
		out = append(out, []byte(SubschemaDN))
	case virtualEntryDN:
		if dn, err := r.DN(nil, f); err == nil {
			out = append(out, dn)
		}
	case virtualContextCSN:
		if f.ID != 0 && f.rec.parent == 0 {
			for _, c := range r.contextCSNs() {
				out = append(out, []byte(c))
			}
		}
	case virtualMemberOf:
		groups := r.groupsOf(f)
		for id, ok := groups.from(0); ok && len(out) < maxGroups; id, ok = groups.from(id + 1) {
			g, found, err := r.Get(id)
			if err != nil || !found {
				continue
			}
			if dn, err := r.DN(nil, &g); err == nil {
				out = append(out, dn)
			}
		}
	}
	return out
}

// groupsOf are the entries that name this one as a member.
func (r *Reader) groupsOf(f *Found) idset {
	x := r.indexes[r.store.member]
	if f.ID == 0 || x == nil {
		return nil
	}
	dn, err := r.DN(nil, f)
	if err != nil {
		return nil
	}
	norm, err := r.store.CheckDN(dn)
	if err != nil {
		return nil
	}
	set, _ := r.postings(indexKey(nil, x.id, kindEquality, norm), math.MaxInt)
	return set
}

// membersOf are the entries that a group of this name has as members.
func (r *Reader) membersOf(norm []byte) (set idset) {
	id, err := r.Resolve(norm)
	if err != nil {
		return nil
	}
	f, ok, err := r.Get(id)
	if err != nil || !ok {
		return nil
	}
	r.Values(&f, "member", func(v []byte) bool {
		if n, err := r.store.CheckDN(v); err == nil {
			if m, err := r.Resolve(n); err == nil {
				set = set.add(m)
			}
		}
		return true
	})
	return set
}

// hasVirtual reports whether an entry has a computed attribute.
func (r *Reader) hasVirtual(f *Found, v virtual) bool {
	switch v {
	case virtualContextCSN:
		return f.ID != 0 && f.rec.parent == 0 && len(r.contextCSNs()) > 0
	case virtualHasSubordinates:
		return f.ID != 0
	case virtualMemberOf:
		return len(r.groupsOf(f)) > 0
	}
	return true
}

// appendMatched is AppendEntry with a filter of values (RFC 3876 §2): an attribute of which no value is
// left is returned without values.
func (r *Reader) appendMatched(dst []byte, id int32, f *Found, sel *Selection, up *node, n int, values *Filter, extra, controls []byte) ([]byte, error) {
	wanted := r.seen(f.sight, sel.wants(r.table))
	var list []byte
	keep := func(name string, vals []byte) {
		var kept [][]byte
		ref := r.store.attrs.ref([]byte(name))
		for {
			v, rest, ok := ldapwire.NextValue(vals)
			if !ok {
				break
			}
			if ref != nil && values.keeps(r, f.sight, ref, v) {
				kept = append(kept, v)
			}
			vals = rest
		}
		list = ldapwire.AppendAttribute(list, name, kept)
	}
	for i := range n {
		if a := f.rec.id(i); int(a>>6) < len(wanted) && wanted[a>>6]&(1<<(a&63)) != 0 {
			keep(r.table.list[a].name, f.rec.values(i))
		}
	}
	for len(extra) > 0 {
		name, vals, rest, err := ldapwire.SplitAttribute(extra)
		if err != nil {
			return dst, err
		}
		keep(string(bytes.Clone(name)), vals)
		extra = rest
	}
	dn := appendDN(nil, f, up)
	dst = ldapwire.AppendEntryStart(dst, id, len(dn), len(list), len(controls))
	dst = append(dst, dn...)
	dst = ldapwire.AppendEntryAttributes(dst, len(list))
	dst = append(dst, list...)
	return ldapwire.AppendEntryEnd(dst, controls), nil
}

// keeps reports whether a term of a filter of values matches this value of the attribute.
func (f *Filter) keeps(r *Reader, sight *Sight, attr *attrRef, v []byte) bool {
	if sight != nil && !sight.search.has(attr.desc.Type) {
		return false
	}
	for i := range f.terms {
		t := &f.terms[i]
		switch {
		case t.undefined:
		case t.ref != nil && !t.ref.desc.Covers(attr.desc):
		case t.ref == nil && !t.appliesTo(attr.desc.Type):
		case t.op == ldapwire.Present, f.value(r, t, v):
			return true
		}
	}
	return false
}
