package dirstore

import (
	"bytes"
	"encoding/binary"
	"math"
	"net/url"
	"strings"

	"go.etcd.io/bbolt"

	"shoal/daemons/internal/dirschema"
	"shoal/daemons/internal/ldapwire"
)

// Three kinds of entries are not returned like others: aliases (RFC 4512 §2.6), referral objects
// (RFC 3296) and subentries (RFC 3672). A directory that has none of a kind pays nothing for it: the
// store remembers of which kinds there may be some.

// Special is a set of kinds of such entries.
type Special uint32

// Kinds.
const (
	HasAliases Special = 1 << iota
	HasReferrals
	HasSubentries
)

var specialClasses = []struct {
	kind Special
	oid  string
}{{HasAliases, "2.5.6.1"}, {HasReferrals, "2.16.840.1.113730.3.2.6"}, {HasSubentries, "2.5.17.0"}}

// Special tells of which kinds there may be entries; of the others there are none.
func (s *Store) Special() Special { return Special(s.special.Load()) }

// noteSpecial looks at an entry that is written.
func (s *Store) noteSpecial(attrs []Attribute) {
	for i := range attrs {
		if attrs[i].Desc.Type != s.objectClass {
			continue
		}
		for _, v := range attrs[i].Values {
			c := s.schema.Class(v)
			for _, k := range specialClasses {
				if c != nil && isClass(c, k.oid) {
					s.special.Or(uint32(k.kind))
				}
			}
		}
	}
}

func isClass(c *dirschema.ObjectClass, oid string) bool {
	if c.OID == oid {
		return true
	}
	for _, up := range c.Superclasses() {
		if up.OID == oid {
			return true
		}
	}
	return false
}

// lookForSpecial looks at the index of a database. While that is not built, there may be any.
func (s *Store) lookForSpecial(db *bbolt.DB) error {
	x := (*s.usable.Load())[s.objectClass]
	if x == nil {
		s.special.Store(uint32(HasAliases | HasReferrals | HasSubentries))
		return nil
	}
	return db.View(func(tx *bbolt.Tx) error {
		c := tx.Bucket(bucketIndex).Cursor()
		for _, k := range specialClasses {
			key := indexKey(nil, x.id, kindEquality, []byte(k.oid))
			if found, _ := c.Seek(key); bytes.HasPrefix(found, key) {
				s.special.Or(uint32(k.kind))
			}
		}
		return nil
	})
}

// ofClass are the entries of a class; without the index, all have to be read.
func (r *Reader) ofClass(oid string) (set idset) {
	if x := r.indexes[r.store.objectClass]; x != nil {
		set, _ = r.postings(indexKey(nil, x.id, kindEquality, []byte(oid)), math.MaxInt)
		return set
	}
	c := r.entries()
	for k, v := c.First(); k != nil; k, v = c.Next() {
		f := Found{ID: binary.BigEndian.Uint64(k)}
		var err error
		if f.rec, err = parseRecord(v); err == nil && r.hasClass(&f, oid) {
			set = set.add(f.ID)
		}
	}
	return set
}

func (r *Reader) hasClass(f *Found, oid string) (is bool) {
	r.Values(f, "objectClass", func(v []byte) bool {
		if c := r.store.schema.Class(v); c != nil {
			is = isClass(c, oid)
		}
		return !is
	})
	return is
}

// upwards gives the names above a name in normal form that are in the store, the suffix first, and
// the name itself last.
func (s *Store) upwards(norm []byte) [][]byte {
	var out [][]byte
	for s.Holds(norm) {
		out = append([][]byte{norm}, out...)
		if len(norm) == len(s.suffix) {
			break
		}
		_, norm = splitNorm(norm)
	}
	return out
}

// maxHops bounds how many aliases one name leads through.
const maxHops = 16

// Dereference replaces aliases in a name, in normal form, and with itself those of the entry that it
// names (RFC 4511 §4.5.1.3). A name of nothing is returned as far as it was followed.
func (r *Reader) Dereference(norm []byte) ([]byte, error) {
	for range maxHops {
		next, err := r.hop(norm)
		if err != nil || next == nil {
			return norm, err
		}
		norm = next
	}
	return nil, ldapwire.Errorf(ldapwire.AliasProblem, "aliases lead through more than %d others", maxHops)
}

// hop replaces the topmost alias in a name; nil if there is none.
func (r *Reader) hop(norm []byte) ([]byte, error) {
	for _, part := range r.store.upwards(norm) {
		id, err := r.Resolve(part)
		if err != nil {
			return nil, nil // the search will say what is missing
		}
		f, ok, err := r.Get(id)
		if err != nil || !ok {
			return nil, err
		}
		if !r.hasClass(&f, specialClasses[0].oid) {
			continue
		}
		to, err := r.store.CheckDN([]byte(r.Value(&f, "aliasedObjectName")))
		if err != nil {
			return nil, ldapwire.Errorf(ldapwire.AliasDereferencingProblem, "an alias has no name to lead to")
		}
		if _, err := r.Resolve(to); err != nil {
			return nil, ldapwire.Errorf(ldapwire.AliasProblem, "the alias %s leads to an entry that is not there", r.Value(&f, "entryDN"))
		}
		return append(bytes.Clone(norm[:len(norm)-len(part)]), to...), nil
	}
	return nil, nil
}

// Reference is what a search result says instead of an entry that is elsewhere.
type Reference []string

// Visible says which special entries a search returns.
type Visible struct {
	Manage     bool // referral objects are ordinary entries
	Aliases    bool // aliases are followed: what they lead to stands in their place
	Subentries bool // subentries and nothing else
	All        bool // subentries as well
}

// maxAliases bounds how many aliases one search follows.
const maxAliases = 10_000

// Restrain restricts a search that was started to what is to be visible, and gives the references that
// it returns. The error is an *ldapwire.Error.
func (r *Reader) Restrain(s *Search, v Visible) ([]Reference, error) {
	special := r.store.Special()
	if special&HasAliases != 0 && v.Aliases && s.scope != ldapwire.BaseObject {
		if err := r.follow(s); err != nil {
			return nil, err
		}
	}
	if special&HasSubentries != 0 || v.Subentries {
		switch all := r.ofClass(specialClasses[2].oid); {
		case v.Subentries:
			s.keepOnly(all)
		case s.scope != ldapwire.BaseObject && !v.All: // RFC 3672 §3: reading one by its name is always possible
			s.hidden = s.hidden.or(all)
		}
	}
	if special&HasReferrals != 0 && !v.Manage {
		return r.references(s)
	}
	return nil, nil
}

// keepOnly makes a set all that the search may find.
func (s *Search) keepOnly(set idset) {
	if s.all {
		s.all, s.set = false, set
		return
	}
	s.set = s.set.and(set)
}

// allows reports whether an entry is not hidden.
func (s *Search) allows(id uint64) bool {
	found, ok := s.hidden.from(id)
	return !ok || found != id
}

// follow replaces the scope of a search by the entries in it and those that aliases in it lead to.
func (r *Reader) follow(s *Search) error {
	aliases := r.ofClass(specialClasses[0].oid)
	within, _ := r.scopeSet(s.base, s.scope, math.MaxInt)
	var done idset
	for n := 0; ; {
		todo := aliases.and(within).without(done)
		id, ok := todo.from(0)
		if !ok {
			break
		}
		for ; ok; id, ok = todo.from(id + 1) {
			if n++; n > maxAliases {
				return ldapwire.Errorf(ldapwire.AdminLimitExceeded, "more than %d aliases in one search", maxAliases)
			}
			done = done.add(id)
			if id == s.base { // what names the base is decided before
				continue
			}
			f, found, err := r.Get(id)
			if err != nil || !found {
				return err
			}
			to, err := r.aim(&f)
			if err != nil {
				return err
			}
			if s.scope == ldapwire.SingleLevel {
				within = within.add(to)
				continue
			}
			part, _ := r.scopeSet(to, ldapwire.WholeSubtree, math.MaxInt)
			within = within.or(part)
		}
	}
	s.within = true
	within = within.without(done)
	set, all := idset(nil), true
	if len(s.filter.terms) > 0 {
		set, all = r.candidates(s.filter, 0)
	}
	if !all {
		within = within.and(set)
	}
	s.all, s.set = false, within
	return nil
}

// aim is the entry that an alias leads to in the end.
func (r *Reader) aim(f *Found) (uint64, error) {
	dn, err := r.DN(nil, f)
	if err != nil {
		return 0, err
	}
	norm, err := r.store.CheckDN(dn)
	if err == nil {
		norm, err = r.Dereference(norm)
	}
	if err != nil {
		return 0, err
	}
	return r.Resolve(norm)
}

// references takes the referral objects in scope, with what is under them, out of a search.
func (r *Reader) references(s *Search) (out []Reference, err error) {
	refs := r.ofClass(specialClasses[1].oid)
	for id, ok := refs.from(0); ok; id, ok = refs.from(id + 1) {
		f, found, err := r.Get(id)
		if err != nil {
			return nil, err
		}
		if !found {
			continue
		}
		below, _ := r.scopeSet(id, ldapwire.WholeSubtree, math.MaxInt)
		s.hidden = s.hidden.or(below)
		in, err := r.inScope(s, &f)
		if err != nil {
			return nil, err
		}
		if !in || id == s.base || !r.See(&f, s.seeing) {
			continue
		}
		scope := ldapwire.WholeSubtree
		if s.scope == ldapwire.SingleLevel {
			scope = ldapwire.BaseObject
		}
		if uris := r.uris(&f, "", scope, true); len(uris) > 0 {
			out = append(out, uris)
		}
	}
	return out, nil
}

// Referral is the answer to an operation on a name, in normal form and as given, that is a referral
// object or lies under one: an *ldapwire.Error with its URIs. Of a search the scope belongs to it.
func (r *Reader) Referral(norm, dn []byte, scope ldapwire.Scope) error {
	if r.store.Special()&HasReferrals == 0 {
		return nil
	}
	return r.referral(norm, dn, scope, true)
}

func (r *Reader) referral(norm, dn []byte, scope ldapwire.Scope, search bool) error {
	names := r.store.upwards(norm)
	for i, part := range names {
		id, err := r.Resolve(part)
		if err != nil {
			return nil // nothing further down is here
		}
		f, ok, err := r.Get(id)
		if err != nil || !ok {
			return err
		}
		if !r.hasClass(&f, specialClasses[1].oid) {
			continue
		}
		rest := ""
		if name, err := r.store.schema.ParseDN(dn); err == nil && len(name) >= len(names)-1-i {
			rest = name[:len(names)-1-i].String()
		}
		matched, err := r.DN(nil, &f)
		if err != nil {
			return err
		}
		return &ldapwire.Error{Code: ldapwire.Referral, Matched: string(matched), Referrals: r.uris(&f, rest, scope, search)}
	}
	return nil
}

// uris are the values of ref, with the name of what is asked for in the place of the object's own
// (RFC 3296 §5.2), and the scope that is left to search there.
func (r *Reader) uris(f *Found, rest string, scope ldapwire.Scope, search bool) (out []string) {
	r.Values(f, "ref", func(v []byte) bool {
		uri, _, _ := strings.Cut(string(v), " ") // RFC 3296 §2.2: a label may follow
		u, err := url.Parse(uri)
		if err != nil || u.Scheme != "ldap" && u.Scheme != "ldaps" {
			out = append(out, uri)
			return true
		}
		dn := strings.TrimPrefix(u.Path, "/")
		if dn == "" {
			if own, err := r.DN(nil, f); err == nil {
				dn = string(own)
			}
		}
		if rest != "" {
			dn = rest + "," + dn
		}
		uri = u.Scheme + "://" + u.Host + "/" + url.PathEscape(dn)
		if search {
			uri += "??" + [...]string{"base", "one", "sub", "subordinate"}[scope]
		}
		out = append(out, uri)
		return true
	})
	return out
}
