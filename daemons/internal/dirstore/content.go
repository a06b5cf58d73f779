package dirstore

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"

	"github.com/go-ldap/ldap/v3"

	"shoal/daemons/internal/dirschema"
	"shoal/daemons/internal/ldapwire"
)

// Agreement says which part of a directory a shadow gets. It stands in the shadow's server entry:
//
//	shoalShadowSubtree     names of entries: they, what is under them and what is above them; none: everything
//	shoalShadowFilter      of those, the entries that match, and what is under them (RFC 4515)
//	shoalShadowAttribute   the attributes that their entries have there; none: all
//	shoalShadowWithout     attributes that no entry has there
//
// Whatever the agreement, a shadow gets ou=config, without which it could not be a vault; from it, only Without takes
// something away. Names, object classes and operational attributes are always there. An entry whose superior is
// not in the content is not in it either. Entries that only give the tree its form (containers) match every filter.
type Agreement struct {
	Subtrees   []string `json:"subtrees,omitempty"`
	Filter     string   `json:"filter,omitempty"`
	Attributes []string `json:"attributes,omitempty"`
	Without    []string `json:"without,omitempty"`
}

// AgreementAttributes are those of a server entry that hold an agreement.
var AgreementAttributes = []string{"shoalShadowSubtree", "shoalShadowFilter", "shoalShadowAttribute", "shoalShadowWithout"}

// Whole reports whether it is the whole directory.
func (a *Agreement) Whole() bool { return !a.LacksEntries() && !a.LacksAttributes() }

// LacksEntries reports whether some entries may be missing.
func (a *Agreement) LacksEntries() bool { return len(a.Subtrees) > 0 || a.Filter != "" }

// LacksAttributes reports whether some attributes may be missing.
func (a *Agreement) LacksAttributes() bool { return len(a.Attributes)+len(a.Without) > 0 }

// String is its one written form (JSON), "" for the whole directory.
func (a Agreement) String() string {
	if a.Whole() {
		return ""
	}
	for _, list := range []*[]string{&a.Subtrees, &a.Attributes, &a.Without} {
		*list = slices.Sorted(slices.Values(*list))
	}
	text, err := json.Marshal(a)
	if err != nil {
		panic(err) // strings are marshalled always
	}
	return string(text)
}

// And is what somebody has whose provider has a itself, and who agreed on b with it. It may be said more widely than it
// is: what neither lacks is there, and what one of them lacks may be missing.
func (a Agreement) And(b Agreement) Agreement {
	switch {
	case a.Whole():
		return b
	case b.Whole():
		return a
	}
	out := Agreement{Subtrees: a.Subtrees, Filter: a.Filter, Attributes: a.Attributes, Without: slices.Concat(a.Without, b.Without)}
	if len(b.Subtrees) > 0 {
		out.Subtrees = b.Subtrees
		if len(a.Subtrees) > 0 && !slices.Equal(slices.Sorted(slices.Values(a.Subtrees)), slices.Sorted(slices.Values(b.Subtrees))) {
			// What is in both is not worked out: it must only be another text than either, and say that entries are missing.
			out.Filter = "(&(objectClass=*)" + a.Filter + ")"
		}
	}
	switch {
	case b.Filter == "":
	case out.Filter == "":
		out.Filter = b.Filter
	default:
		out.Filter = "(&" + out.Filter + b.Filter + ")"
	}
	if len(b.Attributes) > 0 {
		out.Attributes = slices.DeleteFunc(slices.Clone(b.Attributes), func(name string) bool {
			return len(a.Attributes) > 0 && !slices.Contains(a.Attributes, name)
		})
		if len(out.Attributes) == 0 {
			out.Attributes = []string{"objectClass"}
		}
	}
	return out
}

// ParseAgreement reads what String wrote.
func ParseAgreement(text string) (a Agreement, err error) {
	if text == "" {
		return a, nil
	}
	if err := json.Unmarshal([]byte(text), &a); err != nil {
		return a, fmt.Errorf("agreement %.200q: %w", text, err)
	}
	return a, nil
}

// Set takes a value of an attribute of the agreement; others are passed over.
func (a *Agreement) Set(s *dirschema.Schema, name, value string) {
	t := s.Attribute([]byte(name))
	if t == nil {
		return
	}
	switch t.Name() {
	case "shoalShadowSubtree":
		a.Subtrees = append(a.Subtrees, value)
	case "shoalShadowFilter":
		if value != "(objectClass=*)" {
			a.Filter = value
		}
	case "shoalShadowAttribute":
		a.Attributes = append(a.Attributes, value)
	case "shoalShadowWithout":
		a.Without = append(a.Without, value)
	}
}

// Agreement reads the agreement of a server entry.
func (r *Reader) Agreement(f *Found) (a Agreement) {
	for _, name := range AgreementAttributes {
		r.Values(f, name, func(v []byte) bool {
			a.Set(r.store.schema, name, string(v))
			return true
		})
	}
	return a
}

// containers are the structural classes of entries that give the tree its form.
var containers = []string{"organization", "organizationalUnit", "domain", "country", "locality", "shoalDomain"}

// Content is an agreement as it applies to a store. It is immutable.
type Content struct {
	Agreement Agreement

	store    *Store
	subtrees [][]byte // normal names
	config   []byte
	filter   *Filter // nil: all
	only     map[*dirschema.AttributeType]bool
	without  map[*dirschema.AttributeType]bool
}

// Content prepares an agreement; nil for the whole directory. An agreement that cannot be understood is an
// *ldapwire.Error: its shadow must get nothing.
func (s *Store) Content(a Agreement) (*Content, error) {
	if a.Whole() {
		return nil, nil
	}
	c := &Content{Agreement: a, store: s}
	var err error
	for _, dn := range a.Subtrees {
		norm, err := s.CheckDN([]byte(dn))
		if err != nil || !s.Holds(norm) {
			return nil, ldapwire.Errorf(ldapwire.UnwillingToPerform, "agreement: subtree %q is no name of this directory", dn)
		}
		c.subtrees = append(c.subtrees, norm)
	}
	if c.config, err = s.CheckDN([]byte("ou=config," + s.Suffix())); err != nil {
		return nil, err
	}
	if a.Filter != "" {
		if c.filter, err = s.ParseFilter(a.Filter); err != nil {
			return nil, ldapwire.Errorf(ldapwire.UnwillingToPerform, "agreement: %v", err)
		}
	}
	if c.only, err = s.types(a.Attributes); err == nil {
		c.without, err = s.types(a.Without)
	}
	return c, err
}

// Content is that of the agreement in a server entry.
func (r *Reader) Content(f *Found) (*Content, error) { return r.store.Content(r.Agreement(f)) }

// ParseFilter compiles a filter in its string form (RFC 4515).
func (s *Store) ParseFilter(text string) (*Filter, error) {
	p, err := ldap.CompileFilter(text)
	if err != nil {
		return nil, fmt.Errorf("filter %.200q: %w", text, err)
	}
	var f ldapwire.Filter
	if err := f.Parse(p.Bytes(), ldapwire.DefaultLimits); err != nil {
		return nil, fmt.Errorf("filter %.200q: %w", text, err)
	}
	return s.Compile(&f, nil), nil
}

func (s *Store) types(names []string) (map[*dirschema.AttributeType]bool, error) {
	if len(names) == 0 {
		return nil, nil
	}
	set := map[*dirschema.AttributeType]bool{}
	for _, name := range names {
		t := s.schema.Attribute([]byte(name))
		if t == nil {
			return nil, ldapwire.Errorf(ldapwire.UnwillingToPerform, "agreement: attribute type %q is not in the schema", name)
		}
		set[t] = true
	}
	return set, nil
}

// Narrow gives selections that leave out what the agreement does: for entries of ou=config, and for all others.
func (c *Content) Narrow(sel *Selection) (config, others *Selection) {
	objectClass := c.store.schema.Attribute([]byte("objectClass"))
	narrow := func(only map[*dirschema.AttributeType]bool) *Selection {
		return &Selection{user: sel.user, operational: sel.operational, verifiers: sel.verifiers, refs: sel.refs, virtual: sel.virtual,
			leave: func(a *attrInfo) bool {
				switch t := a.desc.Type; {
				case t == objectClass, a.class == operationalAttr && !c.without[t]:
					return false
				case only != nil && !only[t]:
					return true
				default:
					return c.without[t]
				}
			}}
	}
	return narrow(nil), narrow(c.only)
}

// place is where an entry stands to an agreement.
type place uint8

const (
	outside  place = iota // not in the content, and it was never
	above                 // of a subtree
	config                // ou=config and what is under it
	inside                // a subtree
	filtered              // in a subtree, and not in the content
)

// Membership is an entry's relation to a content.
type Membership struct {
	place place
	fresh bool // an entry above it was changed since the CSNs that were asked about
}

// In: it is in the content.
func (m Membership) In() bool { return m.place == above || m.place == config || m.place == inside }

// Never: it is outside whatever it says, as long as it stays where it is.
func (m Membership) Never() bool { return m.place == outside }

// Config: it is of ou=config.
func (m Membership) Config() bool { return m.place == config }

// Fresh: an entry above it was changed since the CSNs that were asked about, so that it may be new in the content.
func (m Membership) Fresh() bool { return m.fresh }

// maxMembers bounds the superiors of which a Members knows what they are.
const maxMembers = 4096

// Members tells of the entries that one Reader sees whether they are in a content.
type Members struct {
	c      *Content
	r      *Reader
	since  func(csn string) bool // whether an entry with this entryCSN was changed since
	config uint64
	roots  map[uint64]bool // of the subtrees
	paths  map[uint64]bool // above them
	known  map[uint64]Membership
}

// Members begins to ask a Reader.
func (c *Content) Members(r *Reader, since func(csn string) bool) (*Members, error) {
	m := &Members{c: c, r: r, since: since, roots: map[uint64]bool{}, paths: map[uint64]bool{}, known: map[uint64]Membership{}}
	m.config, _ = r.Resolve(c.config) // 0: there is none
	for _, norm := range c.subtrees {
		for part, top := norm, true; ; top = false {
			if id, err := r.Resolve(part); err == nil {
				if top {
					m.roots[id] = true
				} else {
					m.paths[id] = true
				}
			}
			if bytes.Equal(part, c.store.suffix) {
				break
			}
			_, part = splitNorm(part)
		}
	}
	return m, nil
}

// Of tells about an entry.
func (m *Members) Of(f *Found) (is Membership, err error) {
	up := Membership{place: above}
	if f.rec.parent == 0 && len(m.c.subtrees) == 0 {
		up.place = inside
	}
	if f.rec.parent != 0 {
		if up, err = m.superior(f.rec.parent); err != nil {
			return is, err
		}
	}
	is = Membership{place: up.place, fresh: up.fresh}
	switch {
	case !up.In() || up.place == config || f.rec.parent == 0 && up.place == inside:
	case f.ID == m.config:
		is.place = config
	case m.roots[f.ID]:
		is.place = inside
	case up.place == above && (m.paths[f.ID] || f.rec.parent == 0):
		is.place = above
	case up.place == above:
		is.place = outside
	case m.c.filter != nil && !m.IsContainer(f) && !m.r.Matches(f, m.c.filter):
		is.place = filtered
	}
	return is, nil
}

// superior is Of for an entry above others, with what its own change means for them.
func (m *Members) superior(id uint64) (Membership, error) {
	if is, ok := m.known[id]; ok {
		return is, nil
	}
	f, ok, err := m.r.Get(id)
	if err != nil {
		return Membership{}, err
	}
	if !ok {
		return Membership{}, fmt.Errorf("entry %d: %w: missing", id, errRecord)
	}
	is, err := m.Of(&f)
	if err != nil {
		return is, err
	}
	is.fresh = is.fresh || m.since != nil && m.since(m.r.Value(&f, "entryCSN"))
	if len(m.known) >= maxMembers {
		clear(m.known)
	}
	m.known[id] = is
	return is, nil
}

// IsContainer reports whether an entry gives the tree its form only.
func (m *Members) IsContainer(f *Found) bool {
	return slices.Contains(containers, m.r.Value(f, "structuralObjectClass"))
}

// Filtered reports whether what entries say decides about what is under them.
func (m *Members) Filtered() bool { return m.c.filter != nil }
