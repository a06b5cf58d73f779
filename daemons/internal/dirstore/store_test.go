package dirstore

import (
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"

	"github.com/go-ldap/ldap/v3"

	"shoal/daemons/internal/clock"
	"shoal/daemons/internal/dirschema"
	"shoal/daemons/internal/ldapwire"
)

func schema(t testing.TB) *dirschema.Schema {
	t.Helper()
	s, err := dirschema.Default()
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func open(t testing.TB, change ...func(*Options)) *Store {
	t.Helper()
	opt := Options{Path: t.TempDir(), Suffix: "o=shoal", Schema: schema(t), Clock: clock.System(),
		Log: slog.New(slog.DiscardHandler), Unsynced: true}
	for _, c := range change {
		c(&opt)
	}
	s, err := Open(opt)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if s.Check() == nil {
			verify(t, s)
		}
		s.Close()
	})
	return s
}

// attrs makes a list of attributes of "type", "value" pairs.
func attrs(pairs ...string) []ldapwire.Attribute {
	var out []ldapwire.Attribute
	for i := 0; i < len(pairs); i += 2 {
		j := slices.IndexFunc(out, func(a ldapwire.Attribute) bool { return string(a.Type) == pairs[i] })
		if j < 0 {
			j = len(out)
			out = append(out, ldapwire.Attribute{Type: []byte(pairs[i])})
		}
		out[j].Values = append(out[j].Values, []byte(pairs[i+1]))
	}
	return out
}

func (s *Store) mustAdd(t testing.TB, dn string, pairs ...string) {
	t.Helper()
	if err := s.Do("cn=admin,o=shoal", &Add{DN: []byte(dn), Attributes: attrs(pairs...)}); err != nil {
		t.Fatalf("add %s: %v", dn, err)
	}
}

func (s *Store) mustFill(t testing.TB) {
	t.Helper()
	s.mustAdd(t, "o=shoal", "objectClass", "organization")
	s.mustAdd(t, "ou=domains,o=shoal", "objectClass", "organizationalUnit")
	s.mustAdd(t, "ou=config,o=shoal", "objectClass", "organizationalUnit")
	s.mustAdd(t, "ou=servers,ou=config,o=shoal", "objectClass", "organizationalUnit")
	for _, d := range []string{"a.test", "b.test"} {
		s.mustAdd(t, "associatedDomain="+d+",ou=domains,o=shoal", "objectClass", "shoalDomain", "objectClass", "domainRelatedObject")
		for _, u := range []string{"alice", "bob", "carol"} {
			s.mustAdd(t, "uid="+u+",associatedDomain="+d+",ou=domains,o=shoal",
				"objectClass", "inetOrgPerson", "objectClass", "inetLocalMailRecipient", "objectClass", "shoalAccount",
				"cn", strings.ToUpper(u[:1])+u[1:]+" of "+d, "sn", u, "mail", u+"@"+d, "mailLocalAddress", u+"@"+d,
				"shoalAccountId", u+"-"+d[:1]+"-00000", "shoalQuotaStorage", fmt.Sprint(len(u)*100),
				"userPassword", "{SSHA}x", "cn;lang-de", "Frau "+u)
		}
	}
}

func code(err error) ldapwire.Code {
	var e *ldapwire.Error
	if err == nil {
		return ldapwire.Success
	}
	if errors.As(err, &e) {
		return e.Code
	}
	return -1
}

func (s *Store) compile(t testing.TB, filter string) *Filter {
	t.Helper()
	p, err := ldap.CompileFilter(filter)
	if err != nil {
		t.Fatalf("%s: %v", filter, err)
	}
	var f ldapwire.Filter
	if err := f.Parse(p.Bytes(), ldapwire.Limits{}); err != nil {
		t.Fatalf("%s: %v", filter, err)
	}
	return s.Compile(&f, nil)
}

// find gives the names that a search finds, in their order.
func (s *Store) find(t testing.TB, base string, scope ldapwire.Scope, filter string) []string {
	t.Helper()
	r, err := s.Read()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	norm, err := s.CheckDN([]byte(base))
	if err != nil {
		t.Fatal(err)
	}
	var search Search
	if err := r.Start(&search, norm, scope, s.compile(t, filter)); err != nil {
		t.Fatalf("search %s: %v", base, err)
	}
	var out []string
	for {
		f, ok, more, err := r.Next(&search, 3)
		if err != nil {
			t.Fatal(err)
		}
		if ok {
			dn, err := r.DN(nil, &f)
			if err != nil {
				t.Fatal(err)
			}
			out = append(out, string(dn))
		} else if !more {
			return out
		}
	}
}

func TestSearchScopes(t *testing.T) {
	s := open(t)
	s.mustFill(t)
	a := "associatedDomain=a.test,ou=domains,o=shoal"
	for _, c := range []struct {
		base   string
		scope  ldapwire.Scope
		filter string
		want   int
	}{
		{"o=shoal", ldapwire.BaseObject, "(objectClass=*)", 1},
		{"O=Shoal", ldapwire.WholeSubtree, "(objectClass=*)", 12},
		{"o=shoal", ldapwire.Subordinates, "(objectClass=*)", 11},
		{"o=shoal", ldapwire.SingleLevel, "(objectClass=*)", 2},
		{a, ldapwire.SingleLevel, "(objectClass=*)", 3},
		{a, ldapwire.WholeSubtree, "(objectClass=*)", 4},
		{a, ldapwire.Subordinates, "(objectClass=*)", 3},
		{a, ldapwire.WholeSubtree, "(objectClass=person)", 3},
		{"ou=config,o=shoal", ldapwire.WholeSubtree, "(objectClass=person)", 0},
		{"uid=alice," + a, ldapwire.WholeSubtree, "(uid=ALICE)", 1},
		{"uid=alice," + a, ldapwire.SingleLevel, "(uid=alice)", 0},
		{"ou=domains,o=shoal", ldapwire.SingleLevel, "(objectClass=shoalDomain)", 2},
	} {
		if got := s.find(t, c.base, c.scope, c.filter); len(got) != c.want {
			t.Errorf("%s scope %d %s: %v, want %d", c.base, c.scope, c.filter, got, c.want)
		}
	}
	r, err := s.Read()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	_, err = r.Resolve([]byte("uid=x,associateddomain=none.test,ou=domains,o=shoal"))
	var e *ldapwire.Error
	if !errors.As(err, &e) || e.Code != ldapwire.NoSuchObject || e.Matched != "ou=domains,o=shoal" {
		t.Errorf("missing entry: %+v", err)
	}
	if _, err := r.Resolve([]byte("o=other")); code(err) != ldapwire.NoSuchObject {
		t.Errorf("other suffix: %v", err)
	}
}

func TestFilters(t *testing.T) {
	s := open(t)
	s.mustFill(t)
	for filter, want := range map[string]int{
		"(mail=ALICE@a.test)":  1,
		"(mail=nobody@a.test)": 0,
		"(mail=*)":             6,
		"(!(mail=*))":          6,
		"(&(objectClass=shoalAccount)(mail=bob@b.test))":               1,
		"(|(mail=bob@b.test)(mailLocalAddress=alice@a.test)(uid=zoe))": 2,
		"(uid~=alice)":              2,
		"(mail=a*)":                 2,
		"(mail=*@a.test)":           3,
		"(mail=*b*o*b*)":            2,
		"(cn=alice  of*)":           2,
		"(cn=* of *)":               6,
		"(cn=frau*)":                6,
		"(cn;lang-de=Frau Alice)":   2,
		"(cn;lang-fr=*)":            0,
		"(name=Frau bob)":           2,
		"(name=*)":                  10,
		"(shoalQuotaStorage>=500)":  4,
		"(shoalQuotaStorage<=300)":  2,
		"(cn>=a)":                   0, // no ordering rule: undefined
		"(!(cn>=a))":                0,
		"(oddity=x)":                0,
		"(!(oddity=x))":             0,
		"(|(oddity=x)(uid=bob))":    2,
		"(&(!(oddity=x))(uid=bob))": 0,
		"(userPassword=*)":          0,
		"(!(userPassword=*))":       0,
		"(objectClass=person)":      6,
		"(objectClass=2.5.6.6)":     6,
		"(objectClass=top)":         12,
		"(hasSubordinates=TRUE)":    5,
		"(entryDN=uid=bob,associatedDomain=a.test,ou=domains,o=shoal)": 1,
		"(subschemaSubentry=cn=subschema)":                             12,
		"(cn:caseExactMatch:=Alice of a.test)":                         1,
		"(cn:caseExactMatch:=alice of a.test)":                         0,
		"(:caseIgnoreMatch:=alice)":                                    2,
		"(associatedDomain:dn:=a.test)":                                4,
		"(uid:dn:=alice)":                                              2,
		"(&)":                                                          12,
		"(|)":                                                          0,
		"(createTimestamp>=20200101000000Z)":                           12,
		"(creatorsName=CN=Admin, o=shoal)":                             12,
		"(shoalQuotaStorage=abc)":                                      0,
		"(!(shoalQuotaStorage=abc))":                                   0,
		"(structuralObjectClass=inetOrgPerson)":                        6,
		"(&(mail=*)(uid=bob)(cn=*b.test))":                             1,
		"(entryUUID=not-a-uuid)":                                       0,
		"(mail=*" + strings.Repeat("x", 300) + ")":                     0,
	} {
		if got := s.find(t, "o=shoal", ldapwire.WholeSubtree, filter); len(got) != want {
			t.Errorf("%s: %d %v, want %d", filter, len(got), got, want)
		}
	}
}

func TestAddRules(t *testing.T) {
	s := open(t)
	if err := s.Do("", &Add{DN: []byte("ou=x,o=shoal"), Attributes: attrs("objectClass", "organizationalUnit")}); code(err) != ldapwire.NoSuchObject {
		t.Errorf("add to an empty store: %v", err)
	}
	s.mustFill(t)
	for _, c := range []struct {
		dn    string
		pairs []string
		want  ldapwire.Code
	}{
		{"o=shoal", []string{"objectClass", "organization"}, ldapwire.EntryAlreadyExists},
		{"OU=Domains,o=shoal", []string{"objectClass", "organizationalUnit"}, ldapwire.EntryAlreadyExists},
		{"ou=a,ou=b,o=shoal", []string{"objectClass", "organizationalUnit"}, ldapwire.NoSuchObject},
		{"ou=a,o=other", []string{"objectClass", "organizationalUnit"}, ldapwire.NoSuchObject},
		{"nonsense", []string{"objectClass", "organizationalUnit"}, ldapwire.InvalidDNSyntax},
		{"ou=a,o=shoal", []string{"ou", "a"}, ldapwire.ObjectClassViolation},
		{"ou=a,o=shoal", []string{"objectClass", "oddity"}, ldapwire.ObjectClassViolation},
		{"ou=a,o=shoal", []string{"objectClass", "organizationalUnit", "mail", "x@y"}, ldapwire.ObjectClassViolation},
		{"ou=a,o=shoal", []string{"objectClass", "organizationalUnit", "oddity", "x"}, ldapwire.UndefinedAttributeType},
		{"ou=a,o=shoal", []string{"objectClass", "organizationalUnit", "entryUUID", "x"}, ldapwire.ConstraintViolation},
		{"ou=a,o=shoal", []string{"objectClass", "organizationalUnit", "seeAlso", "x"}, ldapwire.InvalidAttributeSyntax},
		{"ou=a,o=shoal", []string{"objectClass", "organizationalUnit", "l", "X", "l", "x"}, ldapwire.AttributeOrValueExists},
		{"ou=a,o=shoal", []string{"objectClass", "organizationalUnit", "l", "x", "localityName", "y"}, ldapwire.AttributeOrValueExists},
		{"oddity=a,o=shoal", []string{"objectClass", "organizationalUnit", "ou", "a"}, ldapwire.UndefinedAttributeType},
		{"cn=v,ou=config,o=shoal", []string{"objectClass", "shoalVolume", "shoalVolumeId", "0d6f3c6e-6d2c-4c0c-9b0e-2f4f6b1f9a51",
			"shoalVolumeState", "active", "shoalVolumeState", "closed"}, ldapwire.ConstraintViolation},
		{"cn=a+sn=b,o=shoal", []string{"objectClass", "person"}, ldapwire.Success},
	} {
		err := s.Do("cn=admin,o=shoal", &Add{DN: []byte(c.dn), Attributes: attrs(c.pairs...)})
		if code(err) != c.want {
			t.Errorf("add %s %v: %v, want %s", c.dn, c.pairs, err, c.want)
		}
	}
	// The values of the name and the superclasses are filled in; the operational attributes are there.
	e := s.entry(t, "SN=B+CN=A,o=shoal")
	if string(e.Get("cn")[0]) != "a" || string(e.Get("sn")[0]) != "b" || len(e.Get("objectClass")) != 2 {
		t.Errorf("entry %v", e)
	}
	for _, name := range []string{"entryUUID", "entryCSN", "creatorsName", "createTimestamp", "modifiersName", "modifyTimestamp", "structuralObjectClass"} {
		if len(e.Get(name)) != 1 {
			t.Errorf("no %s", name)
		}
	}
}

func (s *Store) entry(t testing.TB, dn string) *Entry {
	t.Helper()
	r, err := s.Read()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	norm, err := s.CheckDN([]byte(dn))
	if err != nil {
		t.Fatal(err)
	}
	id, err := r.Resolve(norm)
	if err != nil {
		t.Fatalf("%s: %v", dn, err)
	}
	f, ok, err := r.Get(id)
	if !ok || err != nil {
		t.Fatalf("%s: %v %v", dn, ok, err)
	}
	e, err := r.Entry(&f)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func TestModifyRules(t *testing.T) {
	s := open(t)
	s.mustFill(t)
	dn := "uid=alice,associatedDomain=a.test,ou=domains,o=shoal"
	ch := func(op ldapwire.ChangeOp, typ string, values ...string) ldapwire.Change {
		c := ldapwire.Change{Op: op, Attribute: ldapwire.Attribute{Type: []byte(typ)}}
		for _, v := range values {
			c.Values = append(c.Values, []byte(v))
		}
		return c
	}
	const add, del, rep, inc = ldapwire.ChangeAdd, ldapwire.ChangeDelete, ldapwire.ChangeReplace, ldapwire.ChangeIncrement
	before := s.entry(t, dn)
	for _, c := range []struct {
		changes []ldapwire.Change
		want    ldapwire.Code
	}{
		{[]ldapwire.Change{ch(add, "mail", "ALICE@A.test")}, ldapwire.AttributeOrValueExists},
		{[]ldapwire.Change{ch(add, "mail")}, ldapwire.ProtocolError},
		{[]ldapwire.Change{ch(del, "mail", "x@y")}, ldapwire.NoSuchAttribute},
		{[]ldapwire.Change{ch(del, "title")}, ldapwire.NoSuchAttribute},
		{[]ldapwire.Change{ch(del, "sn")}, ldapwire.ObjectClassViolation},
		{[]ldapwire.Change{ch(del, "uid", "alice")}, ldapwire.NotAllowedOnRDN},
		{[]ldapwire.Change{ch(rep, "uid", "x")}, ldapwire.NotAllowedOnRDN},
		{[]ldapwire.Change{ch(rep, "entryCSN", "x")}, ldapwire.ConstraintViolation},
		{[]ldapwire.Change{ch(rep, "hasSubordinates", "TRUE")}, ldapwire.ConstraintViolation},
		{[]ldapwire.Change{ch(rep, "shoalAccountId", "a", "b")}, ldapwire.ConstraintViolation},
		{[]ldapwire.Change{ch(rep, "shoalQuotaStorage", "lots")}, ldapwire.InvalidAttributeSyntax},
		{[]ldapwire.Change{ch(rep, "objectClass", "organization", "shoalAccount")}, ldapwire.ObjectClassViolation},
		{[]ldapwire.Change{ch(add, "oddity", "x")}, ldapwire.UndefinedAttributeType},
		{[]ldapwire.Change{ch(inc, "shoalQuotaMessages", "1")}, ldapwire.NoSuchAttribute},
		{[]ldapwire.Change{ch(inc, "sn", "1")}, ldapwire.ConstraintViolation},
		{[]ldapwire.Change{ch(add, "title", "x"), ch(del, "sn")}, ldapwire.ObjectClassViolation},
	} {
		if err := s.Do("cn=admin,o=shoal", &Modify{DN: []byte(dn), Changes: c.changes}); code(err) != c.want {
			t.Errorf("modify %v: %v, want %s", c.changes, err, c.want)
		}
	}
	if after := s.entry(t, dn); fmt.Sprint(after) != fmt.Sprint(before) {
		t.Errorf("refused changes left something behind:\n%v\n%v", before, after)
	}
	if err := s.Do("cn=other,o=shoal", &Modify{DN: []byte(dn), Changes: []ldapwire.Change{
		ch(add, "mail", "al@a.test"), ch(del, "mail", "alice@A.TEST"), ch(rep, "title", "Dr"), ch(rep, "displayName"),
		ch(inc, "shoalQuotaStorage", "25"), ch(add, "telephoneNumber", "+1 2"),
	}}); err != nil {
		t.Fatal(err)
	}
	e := s.entry(t, dn)
	if string(e.Get("shoalQuotaStorage")[0]) != "525" || len(e.Get("mail")) != 1 || string(e.Get("modifiersName")[0]) != "cn=other,o=shoal" {
		t.Errorf("entry %v", e)
	}
	if string(e.Get("entryCSN")[0]) <= string(before.Get("entryCSN")[0]) || string(e.Get("entryUUID")[0]) != string(before.Get("entryUUID")[0]) {
		t.Error("entryCSN did not grow, or entryUUID changed")
	}
	if got := s.find(t, "o=shoal", ldapwire.WholeSubtree, "(mail=al@a.test)"); len(got) != 1 {
		t.Errorf("index has not the new value: %v", got)
	}
	if got := s.find(t, "o=shoal", ldapwire.WholeSubtree, "(mail=alice@a.test)"); len(got) != 0 {
		t.Errorf("index has the old value: %v", got)
	}
	if err := s.Do("", &Modify{DN: []byte("uid=x,o=shoal")}); code(err) != ldapwire.NoSuchObject {
		t.Errorf("modify of nothing: %v", err)
	}
	if err := s.Do("", &Modify{DN: []byte("ou=config,o=shoal"), Changes: []ldapwire.Change{
		ch(rep, "objectClass", "organization"), ch(add, "o", "x")}}); code(err) != ldapwire.ObjectClassViolation && code(err) != ldapwire.ObjectClassModsProhibited {
		t.Errorf("change of the structural class: %v", err)
	}
}

func TestDelete(t *testing.T) {
	s := open(t)
	s.mustFill(t)
	a := "associatedDomain=a.test,ou=domains,o=shoal"
	if err := s.Do("", &Delete{DN: []byte(a)}); code(err) != ldapwire.NotAllowedOnNonLeaf {
		t.Errorf("delete of a superior: %v", err)
	}
	for _, u := range []string{"alice", "bob", "carol"} {
		if err := s.Do("", &Delete{DN: []byte("uid=" + u + "," + a)}); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Do("", &Delete{DN: []byte(a)}); err != nil {
		t.Fatal(err)
	}
	if err := s.Do("", &Delete{DN: []byte(a)}); code(err) != ldapwire.NoSuchObject {
		t.Errorf("second delete: %v", err)
	}
	if n := s.Entries(); n != 8 {
		t.Errorf("%d entries", n)
	}
	if got := s.find(t, "o=shoal", ldapwire.WholeSubtree, "(mail=*)"); len(got) != 3 {
		t.Errorf("found %v", got)
	}
	// The name may be used again, and the cache of names does not remember the old entry.
	s.mustAdd(t, a, "objectClass", "shoalDomain")
	if got := s.find(t, a, ldapwire.WholeSubtree, "(objectClass=*)"); len(got) != 1 {
		t.Errorf("found %v", got)
	}
}

func TestRename(t *testing.T) {
	s := open(t)
	s.mustFill(t)
	a, b := "associatedDomain=a.test,ou=domains,o=shoal", "associatedDomain=b.test,ou=domains,o=shoal"
	for _, c := range []struct {
		op   Rename
		want ldapwire.Code
	}{
		{Rename{DN: []byte("o=shoal"), NewRDN: []byte("o=x")}, ldapwire.UnwillingToPerform},
		{Rename{DN: []byte("uid=alice," + a), NewRDN: []byte("uid=bob")}, ldapwire.EntryAlreadyExists},
		{Rename{DN: []byte("uid=none," + a), NewRDN: []byte("uid=bob")}, ldapwire.NoSuchObject},
		{Rename{DN: []byte("uid=alice," + a), NewRDN: []byte("uid=bob"), HasNewSuperior: true, NewSuperior: []byte(b)}, ldapwire.EntryAlreadyExists},
		{Rename{DN: []byte("uid=alice," + a), NewRDN: []byte("uid=x"), HasNewSuperior: true, NewSuperior: []byte("ou=none,o=shoal")}, ldapwire.NoSuchObject},
		{Rename{DN: []byte("ou=domains,o=shoal"), NewRDN: []byte("ou=x"), HasNewSuperior: true, NewSuperior: []byte(a)}, ldapwire.UnwillingToPerform},
		{Rename{DN: []byte("uid=alice," + a), NewRDN: []byte("uid=x,o=y")}, ldapwire.InvalidDNSyntax},
		{Rename{DN: []byte("uid=alice," + a), NewRDN: []byte("oddity=x")}, ldapwire.UndefinedAttributeType},
		{Rename{DN: []byte("uid=alice," + a), NewRDN: []byte("member=x")}, ldapwire.InvalidAttributeSyntax},
		{Rename{DN: []byte("uid=alice," + a), NewRDN: []byte(`member=cn\=x`)}, ldapwire.ObjectClassViolation},
		{Rename{DN: []byte("uid=alice," + a), NewRDN: []byte("UID=Alice"), DeleteOldRDN: true}, ldapwire.Success},
		{Rename{DN: []byte("uid=alice," + a), NewRDN: []byte("uid=zoe"), DeleteOldRDN: true}, ldapwire.Success},
		{Rename{DN: []byte("uid=zoe," + a), NewRDN: []byte("uid=zora")}, ldapwire.Success},
		{Rename{DN: []byte("uid=zora," + a), NewRDN: []byte("uid=zora"), HasNewSuperior: true, NewSuperior: []byte(b)}, ldapwire.Success},
	} {
		if err := s.Do("", &c.op); code(err) != c.want {
			t.Errorf("rename %s to %s under %s: %v, want %s", c.op.DN, c.op.NewRDN, c.op.NewSuperior, err, c.want)
		}
	}
	e := s.entry(t, "uid=zora,"+b)
	if got := fmt.Sprintf("%s", e.Get("uid")); got != "[zoe zora]" {
		t.Errorf("uid %s", got)
	}
	if got := s.find(t, "o=shoal", ldapwire.WholeSubtree, "(uid=alice)"); len(got) != 1 {
		t.Errorf("index after rename: %v", got)
	}
	// A whole subtree moves, twice, with searches between that fill the cache of names.
	s.find(t, a, ldapwire.WholeSubtree, "(objectClass=*)")
	move := &Rename{DN: []byte("ou=domains,o=shoal"), NewRDN: []byte("ou=places"), DeleteOldRDN: true, HasNewSuperior: true, NewSuperior: []byte("ou=config,o=shoal")}
	if err := s.Do("", move); err != nil {
		t.Fatal(err)
	}
	got := s.find(t, "ou=config,o=shoal", ldapwire.WholeSubtree, "(uid=bob)")
	if len(got) != 2 || got[0] != "uid=bob,associatedDomain=a.test,ou=places,ou=config,o=shoal" {
		t.Errorf("after the move: %v", got)
	}
	r, err := s.Read()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if _, err := r.Resolve([]byte("uid=bob,associateddomain=a.test,ou=domains,o=shoal")); code(err) != ldapwire.NoSuchObject {
		t.Errorf("the old name is still there: %v", err)
	}
}
