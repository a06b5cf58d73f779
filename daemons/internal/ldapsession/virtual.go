package ldapsession

import (
	"bytes"
	"runtime/debug"
	"slices"

	"shoal/daemons/internal/dirstore"
	"shoal/daemons/internal/ldapwire"
)

// The two entries that are not in the store, and that everybody may read: the root DSE (RFC 4512 §5.1)
// and the subschema subentry (RFC 4512 §4.2).

// attributeContent says by which agreement a server has a part of the directory only.
const attributeContent = "shoalDirectoryContent"

func (s *Server) makeVirtualEntries() (err error) {
	extensions := slices.Clone(supportedExtensions)
	for oid := range s.opt.Extensions {
		extensions = append(extensions, oid)
	}
	slices.Sort(extensions)
	if s.opt.TLS != nil {
		extensions = append(extensions, ldapwire.OIDStartTLS)
	}
	one := func(typ string, values ...string) ldapwire.Attribute {
		a := ldapwire.Attribute{Type: []byte(typ)}
		for _, v := range values {
			a.Values = append(a.Values, []byte(v))
		}
		return a
	}
	list := []ldapwire.Attribute{
		one("objectClass", "top", "OpenLDAProotDSE"),
		one("namingContexts", s.opt.Store.Suffix()),
		one("supportedControl", supportedControls()...),
		one("supportedExtension", extensions...),
		one("supportedFeatures", ldapwire.OIDAllOpAttrs, ldapwire.OIDTrueFalseFilters, ldapwire.OIDIncrement, ldapwire.OIDObjectClassAttrs,
			ldapwire.OIDLanguageTags, ldapwire.OIDLanguageRanges, ldapwire.OIDAgreements),
		one("supportedLDAPVersion", "3"),
		one("supportedSASLMechanisms", "EXTERNAL"), // each connection sees its own (rootDSE)
		one("vendorName", "Shoal"),
	}
	if s.opt.Vendor != "" {
		list = append(list, one("vendorVersion", s.opt.Vendor))
	}
	s.rootBase = list
	if err := s.SetRootDSE(nil); err != nil {
		return err
	}
	// The attribute is known to the store before a search that shows it begins (rootDSE).
	if _, err := s.opt.Store.Detached("", []ldapwire.Attribute{one(attributeContent, "{}")}); err != nil && s.opt.Lacks != nil {
		return err
	}
	sch := s.opt.Store.Schema()
	s.subschema, err = s.opt.Store.Detached(dirstore.SubschemaDN, []ldapwire.Attribute{
		one("objectClass", "top", "subentry", "subschema", "extensibleObject"),
		one("cn", "subschema"),
		one("ldapSyntaxes", sch.SyntaxDescriptions()...),
		one("matchingRules", sch.MatchingRuleDescriptions()...),
		one("matchingRuleUse", sch.MatchingRuleUseDescriptions()...),
		one("attributeTypes", sch.AttributeTypeDescriptions()...),
		one("objectClasses", sch.ObjectClassDescriptions()...),
	})
	return err
}

// SetRootDSE replaces what the root DSE has beside what this package puts there.
func (s *Server) SetRootDSE(more []ldapwire.Attribute) error {
	list := append(slices.Clone(s.rootBase), more...)
	if uris := s.refer(); len(uris) > 0 {
		a := ldapwire.Attribute{Type: []byte("altServer")}
		for _, uri := range uris {
			a.Values = append(a.Values, []byte(uri))
		}
		list = append(list, a)
	}
	e, err := s.opt.Store.Detached("", list)
	if err != nil {
		return err
	}
	s.rootEntry.Store(e)
	return nil
}

// rootDSE is the root DSE as this connection sees it: with the SASL mechanisms that it is offered.
func (x *session) rootDSE(r *dirstore.Reader) (*dirstore.Found, error) {
	e, err := r.Entry(x.s.rootEntry.Load())
	if err != nil {
		return nil, err
	}
	list := make([]ldapwire.Attribute, 0, len(e.Attributes)+1)
	for _, a := range e.Attributes {
		if a.Desc.String() == "supportedSASLMechanisms" {
			continue
		}
		list = append(list, ldapwire.Attribute{Type: []byte(a.Desc.String()), Values: a.Values})
	}
	names := ldapwire.Attribute{Type: []byte("supportedSASLMechanisms")}
	for _, m := range x.mechanisms() {
		names.Values = append(names.Values, []byte(m))
	}
	list = append(list, names)
	if a, _ := x.s.lacks(); a != nil && x.follows() {
		list = append(list, ldapwire.Attribute{Type: []byte(attributeContent), Values: [][]byte{[]byte(a.String())}})
	}
	return x.s.opt.Store.Detached("", list)
}

// virtualEntry gives the root DSE or the subschema subentry if the search is for it; else nil.
func (s *Server) virtualEntry(q *ldapwire.Search) *dirstore.Found {
	if len(q.Base) == 0 && q.Scope == ldapwire.BaseObject {
		return s.rootEntry.Load()
	}
	if len(q.Base) > 0 && q.Base[0]|0x20 == 'c' && (q.Scope == ldapwire.BaseObject || q.Scope == ldapwire.WholeSubtree) {
		if norm, err := s.opt.Store.CheckDN(q.Base); err == nil && bytes.Equal(norm, []byte(dirstore.SubschemaDN)) {
			return s.subschema
		}
	}
	return nil
}

func stack() string { return string(debug.Stack()) }
