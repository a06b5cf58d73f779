package vaultd

import (
	"errors"
	"fmt"
	"strings"

	"shoal/daemons/internal/dirstore"
	"shoal/daemons/internal/ldapwire"
)

func serversDN(suffix string) string { return "ou=servers,ou=config," + suffix }

// bootstrap makes the entries that the service builds on, where they are missing:
//
//	<suffix>                                  by its naming attribute: organization, unit or domain
//	ou=config,<suffix>                        ou=servers and ou=volumes below it
//	ou=domains,<suffix>
//	cn=admin,<suffix>                         the root DN, if it lies directly under the suffix
//
// The root DN's entry has no password: that is in a file.
func bootstrap(s *dirstore.Store, root string) error {
	suffix := s.Suffix()
	classes, err := suffixClasses(s, suffix)
	if err != nil {
		return err
	}
	type entry struct {
		dn    string
		pairs []string
	}
	list := []entry{
		{suffix, classes},
		{"ou=config," + suffix, []string{"objectClass", "organizationalUnit", "description", "Servers and volumes of the service"}},
		{serversDN(suffix), []string{"objectClass", "organizationalUnit"}},
		{"ou=volumes,ou=config," + suffix, []string{"objectClass", "organizationalUnit"}},
		{"ou=domains," + suffix, []string{"objectClass", "organizationalUnit", "description", "Mail domains and their accounts"}},
	}
	if rdn, below := strings.CutSuffix(root, ","+suffix); below && strings.HasPrefix(rdn, "cn=") && !strings.Contains(rdn, ",") {
		list = append(list, entry{root, []string{"objectClass", "organizationalRole", "description", "Administrator of the directory"}})
	}
	var writes []*dirstore.Write
	for _, e := range list {
		add := &dirstore.Add{DN: []byte(e.dn)}
		for i := 0; i < len(e.pairs); i += 2 {
			typ, v := e.pairs[i], []byte(e.pairs[i+1])
			if n := len(add.Attributes); n > 0 && string(add.Attributes[n-1].Type) == typ {
				add.Attributes[n-1].Values = append(add.Attributes[n-1].Values, v)
			} else {
				add.Attributes = append(add.Attributes, ldapwire.Attribute{Type: []byte(typ), Values: [][]byte{v}})
			}
		}
		w := &dirstore.Write{By: root, Op: add}
		s.Submit(w)
		writes = append(writes, w)
	}
	for i, w := range writes {
		var e *ldapwire.Error
		if err := w.Wait(); err != nil && (!errors.As(err, &e) || e.Code != ldapwire.EntryAlreadyExists) {
			return fmt.Errorf("make entry %s: %w", list[i].dn, err)
		}
	}
	return nil
}

// suffixClasses chooses the object classes of the top entry by the attribute that names it.
func suffixClasses(s *dirstore.Store, suffix string) ([]string, error) {
	dn, err := s.Schema().ParseDN([]byte(suffix))
	if err != nil {
		return nil, err
	}
	switch name := dn[0][0].Type.Name(); name {
	case "o":
		return []string{"objectClass", "organization"}, nil
	case "ou":
		return []string{"objectClass", "organizationalUnit"}, nil
	case "dc":
		return []string{"objectClass", "dcObject", "objectClass", "organization", "o", string(dn[0][0].Value)}, nil
	default:
		return nil, fmt.Errorf("suffix %q: there is no class for a top entry named by %s: use o=, ou= or dc=", suffix, name)
	}
}
