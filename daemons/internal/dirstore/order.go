package dirstore

import (
	"bytes"
	"strings"

	"shoal/daemons/internal/dirschema"
	"shoal/daemons/internal/ldapwire"
)

// Order is a compiled list of sort keys (RFC 2891). It may be used from any goroutine.
type Order struct {
	keys []orderKey
}

type orderKey struct {
	ref     *attrRef
	rule    *dirschema.MatchingRule
	reverse bool
}

// maxSortValue is how many octets of a value's normal form count.
const maxSortValue = 256

// Order compiles sort keys. The error is an *ldapwire.Error with a code of RFC 2891 §1.2; which then
// tells the attribute that is to blame.
//
// An attribute without an ordering rule is sorted by the one that goes with its equality rule: those of
// the standard schema are mostly without.
func (s *Store) Order(keys []ldapwire.SortKey) (o *Order, which []byte, err error) {
	o = &Order{}
	for _, k := range keys {
		ref := s.attrs.ref(k.Attribute)
		if ref == nil || ref.secret {
			return nil, k.Attribute, ldapwire.Errorf(ldapwire.NoSuchAttribute, "sort key %.64q is no attribute that is shown", k.Attribute)
		}
		rule := ref.desc.Type.Ordering
		if rule == nil && ref.desc.Type.Equality != nil {
			rule = s.schema.Rule([]byte(orderingOf(ref.desc.Type.Equality.Name)))
		}
		if k.Rule != nil {
			rule = s.schema.Rule(k.Rule)
		}
		if rule == nil || rule.Kind == dirschema.SubstringRule {
			return nil, k.Attribute, ldapwire.Errorf(ldapwire.InappropriateMatching, "%s cannot be sorted by that rule", ref.desc)
		}
		o.keys = append(o.keys, orderKey{ref, rule, k.Reverse})
	}
	return o, nil, nil
}

// orderingOf names the ordering rule that goes with an equality rule.
func orderingOf(equality string) string {
	switch equality {
	case "caseIgnoreIA5Match", "caseExactIA5Match", "distinguishedNameMatch", "booleanMatch", "telephoneNumberMatch", "objectIdentifierMatch":
		return equality // their normal forms have an order, if no name for it
	}
	return strings.TrimSuffix(equality, "Match") + "OrderingMatch"
}

// A position is one sort key after the other, such that positions compare as octets in the order of
// the search; the octets of a reversed key are complemented:
//
//	position = *( %x01 value %x00 %x00 / %xFF )     ; FF: the entry has no value, it comes last (RFC 2891 §2.2)
//
// where a 00 in value is followed by FF. Of several values the least counts.

// Position appends the position of an entry.
func (o *Order) Position(dst []byte, r *Reader, f *Found) []byte {
	for i := range o.keys {
		k := &o.keys[i]
		var least []byte
		has := false
		take := func(v []byte) {
			n, err := k.rule.Normalize(nil, v)
			if err == nil && (!has || bytes.Compare(n, least) < 0) {
				least, has = n, true
			}
		}
		switch {
		case f.sight != nil && !f.sight.search.has(k.ref.desc.Type):
		case k.ref.virtual != 0:
			for _, v := range r.virtualValues(f, k.ref.virtual) {
				take(v)
			}
		default:
			ids := k.ref.resolve(r.table).ids
			for j := range f.rec.op {
				if !contains(ids, f.rec.id(j)) || f.sight != nil && !f.sight.search.has(r.table.list[f.rec.id(j)].desc.Type) {
					continue
				}
				for vals := f.rec.values(j); ; {
					v, rest, ok := ldapwire.NextValue(vals)
					if !ok {
						break
					}
					take(v)
					vals = rest
				}
			}
		}
		dst = appendPosition(dst, least, has, k.reverse)
	}
	return dst
}

func appendPosition(dst, v []byte, has, reverse bool) []byte {
	start := len(dst)
	if !has {
		dst = append(dst, 0xff)
	} else {
		dst = append(dst, 1)
		for _, c := range v[:min(len(v), maxSortValue)] {
			if dst = append(dst, c); c == 0 {
				dst = append(dst, 0xff)
			}
		}
		dst = append(dst, 0, 0)
	}
	if reverse {
		for i := start; i < len(dst); i++ {
			dst[i] = ^dst[i]
		}
	}
	return dst
}

// Target is the position of a value of the first key: entries before it have an earlier position. The
// error is an *ldapwire.Error.
func (o *Order) Target(value []byte) ([]byte, error) {
	k := &o.keys[0]
	n, err := k.rule.Normalize(nil, value)
	if err != nil {
		return nil, ldapwire.Errorf(ldapwire.InvalidAttributeSyntax, "%s: the value has not the syntax of its rule", k.ref.desc)
	}
	return appendPosition(nil, n, true, k.reverse), nil
}
