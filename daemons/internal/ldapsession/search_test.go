package ldapsession

import (
	"fmt"
	"slices"
	"testing"

	"github.com/go-ldap/ldap/v3"

	"shoal/daemons/internal/dirstore"
	"shoal/daemons/internal/ldapwire"
)

func TestRootDSE(t *testing.T) {
	server, _ := certificate(t)
	f := start(t, func(o *Options, _ *Listening) { o.TLS = server; o.Vendor = "1.2.3" })
	c := f.dial(t)
	r, err := search(c, "", 0, "(objectClass=*)", "*", "+")
	if err != nil || len(r.Entries) != 1 {
		t.Fatalf("%v %v", r, err)
	}
	e := r.Entries[0]
	for name, want := range map[string]string{
		"namingContexts": "o=shoal", "supportedLDAPVersion": "3", "subschemaSubentry": "cn=subschema", "vendorVersion": "1.2.3",
		"supportedControl":   ldapwire.OIDPagedResults,
		"supportedExtension": ldapwire.OIDStartTLS,
		"supportedFeatures":  ldapwire.OIDAllOpAttrs,
	} {
		if !slices.Contains(e.GetAttributeValues(name), want) {
			t.Errorf("%s is %v, lacks %s", name, e.GetAttributeValues(name), want)
		}
	}
	r, err = search(c, "", 0, "(objectClass=*)")
	if err != nil || len(r.Entries) != 1 || len(r.Entries[0].GetAttributeValues("supportedControl")) != 0 {
		t.Errorf("operational attributes without being asked for: %v %v", r, err)
	}
	r, err = search(c, "cn=subschema", 0, "(objectClass=subschema)", "attributeTypes", "objectClasses", "matchingRules", "ldapSyntaxes")
	if err != nil || len(r.Entries) != 1 {
		t.Fatalf("%v %v", r, err)
	}
	for _, name := range []string{"attributeTypes", "objectClasses", "matchingRules", "ldapSyntaxes"} {
		if len(r.Entries[0].GetAttributeValues(name)) < 20 {
			t.Errorf("%s: %v", name, r.Entries[0].GetAttributeValues(name))
		}
	}
	for _, base := range []string{"", "cn=subschema"} {
		if err := f.root(t).Del(ldap.NewDelRequest(base, nil)); codeOf(err) != 53 {
			t.Errorf("delete of %q: %v", base, err)
		}
	}
	if _, err := search(f.root(t), "", 2, "(objectClass=*)"); codeOf(err) != 32 {
		t.Errorf("subtree of the empty name: %v", err)
	}
}

func TestLimitsOfSearches(t *testing.T) {
	f := start(t, func(o *Options, _ *Listening) { o.Limits.Entries = 20 })
	for i := range 150 {
		if err := f.store.Do("", &dirstore.Add{DN: fmt.Appendf(nil, "ou=u%03d,ou=people,o=shoal", i),
			Attributes: []ldapwire.Attribute{{Type: []byte("objectClass"), Values: [][]byte{[]byte("organizationalUnit")}}}}); err != nil {
			t.Fatal(err)
		}
	}
	box, root := f.bound(t, "cn=box1,o=shoal", "boxpass"), f.root(t)
	size := func(c *ldap.Conn, n int, controls ...ldap.Control) (*ldap.SearchResult, error) {
		return c.Search(ldap.NewSearchRequest("ou=people,o=shoal", 2, 0, n, 0, false, "(ou=*)", []string{"ou"}, controls))
	}
	for _, c := range []struct {
		name string
		conn *ldap.Conn
		n    int
		want int
		code int
	}{
		{"server", box, 0, 20, 4}, {"server", box, 10, 10, 4}, {"server", box, 500, 20, 4},
		{"root", root, 0, 151, 0}, {"root", root, 30, 30, 4}, {"root", root, 151, 151, 0}, {"root", root, 150, 150, 4},
	} {
		r, err := size(c.conn, c.n)
		if r == nil || len(r.Entries) != c.want || codeOf(err) != c.code {
			t.Errorf("%s with limit %d: %v, want %d entries and %d", c.name, c.n, err, c.want, c.code)
		}
	}
	// Pages bring all of it to somebody whose single search is limited.
	seen := map[string]bool{}
	paging := ldap.NewControlPaging(7)
	for pages := 1; ; pages++ {
		r, err := size(box, 0, paging)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range r.Entries {
			if seen[e.DN] {
				t.Errorf("%s comes twice", e.DN)
			}
			seen[e.DN] = true
		}
		next := ldap.FindControl(r.Controls, ldap.ControlTypePaging).(*ldap.ControlPaging)
		if len(next.Cookie) == 0 {
			if len(seen) != 151 || pages != 22 {
				t.Errorf("%d entries in %d pages", len(seen), pages)
			}
			break
		}
		paging.SetCookie(next.Cookie)
	}
	// A page that ends the result exactly says so.
	r, err := size(root, 0, ldap.NewControlPaging(151))
	if err != nil || len(ldap.FindControl(r.Controls, ldap.ControlTypePaging).(*ldap.ControlPaging).Cookie) != 0 {
		t.Errorf("last page: %v", err)
	}
	bad := ldap.NewControlPaging(5)
	bad.SetCookie([]byte("0123456789abcdef"))
	if _, err := size(root, 0, bad); codeOf(err) != 53 {
		t.Errorf("foreign cookie: %v", err)
	}
	zero := ldap.NewControlPaging(5)
	r, err = size(root, 0, zero)
	if err != nil {
		t.Fatal(err)
	}
	zero.SetCookie(ldap.FindControl(r.Controls, ldap.ControlTypePaging).(*ldap.ControlPaging).Cookie)
	zero.PagingSize = 0
	if r, err := size(root, 0, zero); err != nil || len(r.Entries) != 0 {
		t.Errorf("giving up a paged search: %v", err)
	}
}

func TestControlsAndExtensions(t *testing.T) {
	f := start(t)
	c := f.root(t)
	unknown := ldap.NewControlString("1.2.3.4.5", true, "x")
	req := ldap.NewSearchRequest("o=shoal", 0, 0, 0, 0, false, "(objectClass=*)", nil, []ldap.Control{unknown})
	if _, err := c.Search(req); codeOf(err) != 12 {
		t.Errorf("unknown critical control: %v", err)
	}
	unknown.Criticality = false
	if _, err := c.Search(req); err != nil {
		t.Errorf("unknown control: %v", err)
	}
	req.Controls = []ldap.Control{ldap.NewControlManageDsaIT(true)}
	if _, err := c.Search(req); err != nil {
		t.Errorf("ManageDsaIT: %v", err)
	}
	d := ldap.NewDelRequest("uid=bob,ou=people,o=shoal", []ldap.Control{ldap.NewControlString(ldapwire.OIDPagedResults, true, "")})
	if err := c.Del(d); codeOf(err) != 12 {
		t.Errorf("a control on the wrong operation: %v", err)
	}
	if _, err := c.Extended(ldap.NewExtendedRequest("1.2.3.4", nil)); codeOf(err) != 2 {
		t.Errorf("unknown extended operation: %v", err)
	}
}
