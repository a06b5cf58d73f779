package ldapsession

import (
	"slices"
	"strings"
	"testing"

	"shoal/daemons/internal/dirstore"
)

func (f *fixture) add(t *testing.T, dn string, pairs ...string) {
	t.Helper()
	if err := f.store.Do("", &dirstore.Add{DN: []byte(dn), Attributes: attributes(pairs...)}); err != nil {
		t.Fatalf("%s: %v", dn, err)
	}
}

// shown are the entries that ldapsearch printed, sorted.
func shown(out string) string {
	list := strings.Fields(printed(out))
	slices.Sort(list)
	return strings.Join(list, " ")
}

func TestAliases(t *testing.T) {
	f := start(t)
	f.add(t, "ou=other,o=shoal", "objectClass", "organizationalUnit")
	f.add(t, "ou=deep,ou=other,o=shoal", "objectClass", "organizationalUnit")
	f.add(t, "cn=friend,ou=other,o=shoal", "objectClass", "alias", "objectClass", "extensibleObject", "aliasedObjectName", "uid=alice,ou=people,o=shoal")
	f.add(t, "cn=all,ou=other,o=shoal", "objectClass", "alias", "objectClass", "extensibleObject", "aliasedObjectName", "ou=people,o=shoal")
	f.add(t, "cn=again,ou=deep,ou=other,o=shoal", "objectClass", "alias", "objectClass", "extensibleObject", "aliasedObjectName", "cn=friend,ou=other,o=shoal")
	for _, c := range []struct{ deref, base, scope, filter, want string }{
		{"never", "ou=other,o=shoal", "sub", "(objectClass=*)", "cn=again cn=all cn=friend ou=deep ou=other"},
		{"never", "cn=friend,ou=other,o=shoal", "base", "(objectClass=*)", "cn=friend"},
		{"find", "cn=friend,ou=other,o=shoal", "base", "(objectClass=*)", "uid=alice"},
		{"always", "CN=All , ou=other,o=shoal", "one", "(objectClass=*)", "uid=alice uid=bob"},
		{"find", "uid=bob,cn=all,ou=other,o=shoal", "base", "(objectClass=*)", "uid=bob"},
		{"find", "cn=again,ou=deep,ou=other,o=shoal", "base", "(objectClass=*)", "uid=alice"},
		{"search", "cn=friend,ou=other,o=shoal", "base", "(objectClass=*)", "cn=friend"},
		{"search", "ou=other,o=shoal", "one", "(objectClass=*)", "ou=deep ou=people uid=alice"},
		{"search", "ou=other,o=shoal", "sub", "(objectClass=*)", "ou=deep ou=other ou=people uid=alice uid=bob"},
		{"always", "ou=other,o=shoal", "sub", "(uid=*)", "uid=alice uid=bob"},
		{"always", "ou=deep,ou=other,o=shoal", "sub", "(uid=*)", "uid=alice"},
		{"find", "ou=other,o=shoal", "sub", "(objectClass=alias)", "cn=again cn=all cn=friend"},
		{"always", "o=shoal", "sub", "(uid=alice)", "uid=alice"},
	} {
		out := f.openldap(t, "", "ldapsearch", "-LLL", "-a", c.deref, "-b", c.base, "-s", c.scope, c.filter, "1.1")
		if got := shown(out); got != c.want {
			t.Errorf("%s %s %s %s: %s, want %s\n%s", c.deref, c.scope, c.base, c.filter, got, c.want, out)
		}
	}
	// Loops, and aliases of nothing.
	f.add(t, "cn=a,ou=other,o=shoal", "objectClass", "alias", "objectClass", "extensibleObject", "aliasedObjectName", "cn=b,ou=other,o=shoal")
	f.add(t, "cn=b,ou=other,o=shoal", "objectClass", "alias", "objectClass", "extensibleObject", "aliasedObjectName", "cn=a,ou=other,o=shoal")
	for _, args := range [][]string{{"-a", "find", "-b", "cn=a,ou=other,o=shoal"}, {"-a", "search", "-b", "ou=other,o=shoal"}} {
		if out := f.openldap(t, "", "ldapsearch", args...); !strings.Contains(out, "result: 33") {
			t.Errorf("%v: %s", args, out)
		}
	}
	f.add(t, "cn=c,ou=deep,ou=other,o=shoal", "objectClass", "alias", "objectClass", "extensibleObject", "aliasedObjectName", "cn=nothing,o=shoal")
	if out := f.openldap(t, "", "ldapsearch", "-a", "always", "-b", "cn=c,ou=deep,ou=other,o=shoal"); !strings.Contains(out, "result: 33") {
		t.Error(out)
	}
}

func TestReferralObjects(t *testing.T) {
	f := start(t)
	f.add(t, "ou=far,o=shoal", "objectClass", "referral", "objectClass", "extensibleObject",
		"ref", "ldap://a.test/ou=far,o=elsewhere", "ref", "ldaps://b.test:1636 another one")
	for _, c := range []struct {
		base, scope string
		args        []string
		want        string // entries and references
		in          string // what is printed
	}{
		{"o=shoal", "one", nil, "->a.test/ou=far,o=elsewhere??base cn=box1 ou=people", "ref: ldaps://b.test:1636/ou=far,o=shoal??base"},
		{"o=shoal", "sub", nil, "->a.test/ou=far,o=elsewhere??sub cn=box1 o=shoal ou=people uid=alice uid=bob", "ref: ldaps://b.test:1636/ou=far,o=shoal??sub"},
		{"o=shoal", "sub", []string{"-e", "!manageDSAit"}, "cn=box1 o=shoal ou=far ou=people uid=alice uid=bob", ""},
		{"o=shoal", "sub", []string{"-E", "pr=2/noprompt"}, "->a.test/ou=far,o=elsewhere??sub cn=box1 o=shoal ou=people uid=alice uid=bob", ""},
		{"o=shoal", "sub", []string{"-E", "!sss=entryDN"}, "->a.test/ou=far,o=elsewhere??sub cn=box1 o=shoal ou=people uid=alice uid=bob", ""},
		{"ou=far,o=shoal", "base", nil, "->a.test/ou=far,o=elsewhere??base", "ldap://a.test/ou=far,o=elsewhere??base"},
		{"uid=x,ou=y,ou=far,o=shoal", "sub", nil, "->a.test/uid=x,ou=y,ou=far,o=elsewhere??sub", "ldap://a.test/uid=x,ou=y,ou=far,o=elsewhere??sub"},
		{"uid=x,ou=y,ou=far,o=shoal", "sub", []string{"-M"}, "", "result: 32"},
		{"ou=far,o=shoal", "base", []string{"-M"}, "ou=far", "ref: ldap://a.test/ou=far,o=elsewhere"},
	} {
		out := f.openldap(t, "", "ldapsearch", append(append([]string{"-o", "ldif_wrap=no", "-b", c.base, "-s", c.scope}, c.args...), "(objectClass=*)", "ref")...)
		list := strings.Fields(printed(out))
		for line := range strings.Lines(out) {
			if uri, is := strings.CutPrefix(line, "ref: ldap://"); is && strings.Contains(uri, "??") {
				list = append(list, "->"+strings.TrimSpace(uri))
			}
		}
		slices.Sort(list)
		out = strings.ReplaceAll(out, "%2C", ",")
		got := strings.ReplaceAll(strings.Join(list, " "), "%2C", ",")
		if got != c.want || !strings.Contains(out, c.in) {
			t.Errorf("%s %s %v: %s, want %s and %q\n%s", c.scope, c.base, c.args, got, c.want, c.in, out)
		}
	}
	for _, c := range []struct{ program, stdin, arg, want string }{
		{"ldapdelete", "", "ou=far,o=shoal", "Referral (10)"},
		{"ldapdelete", "", "uid=x,ou=far,o=shoal", "Referral (10)"},
		{"ldapmodify", "dn: uid=x,ou=far,o=shoal\nchangetype: add\nobjectClass: account\n", "-v", "ldap://a.test/uid=x,ou=far,o=elsewhere"},
		{"ldapcompare", "", "ou=far,o=shoal", ""},
	} {
		args := []string{c.arg}
		if c.program == "ldapcompare" {
			args, c.want = append(args, "ou:far"), "Referral (10)"
		}
		if out := strings.ReplaceAll(f.openldap(t, c.stdin, c.program, args...), "%2C", ","); !strings.Contains(out, c.want) {
			t.Errorf("%s %s: %s", c.program, c.arg, out)
		}
	}
	if out := f.openldap(t, "", "ldapdelete", "-M", "ou=far,o=shoal"); strings.Contains(out, "Delete Result") {
		t.Error(out)
	}
}

func TestSubentries(t *testing.T) {
	f := start(t)
	f.add(t, "cn=policy,ou=people,o=shoal", "objectClass", "subentry", "objectClass", "extensibleObject", "subtreeSpecification", "{}")
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"-b", "ou=people,o=shoal"}, "ou=people uid=alice uid=bob"},
		{[]string{"-b", "ou=people,o=shoal", "-s", "one"}, "uid=alice uid=bob"},
		{[]string{"-b", "cn=policy,ou=people,o=shoal", "-s", "base"}, "cn=policy"},
		{[]string{"-b", "ou=people,o=shoal", "-E", "!subentries=true"}, "cn=policy"},
		{[]string{"-b", "ou=people,o=shoal", "-E", "!subentries=false"}, "ou=people uid=alice uid=bob"},
		{[]string{"-b", "uid=bob,ou=people,o=shoal", "-E", "!subentries=true"}, ""},
	} {
		if out := f.openldap(t, "", "ldapsearch", append([]string{"-LLL"}, c.args...)...); shown(out) != c.want {
			t.Errorf("%v: %s, want %s", c.args, out, c.want)
		}
	}
}

func TestMemberOf(t *testing.T) {
	f := start(t)
	f.add(t, "cn=all,o=shoal", "objectClass", "groupOfNames", "member", "uid=alice,ou=people,o=shoal", "member", "UID=Bob, ou=people, o=shoal", "member", "uid=gone,o=shoal")
	f.add(t, "cn=some,o=shoal", "objectClass", "groupOfNames", "member", "uid=alice,ou=people,o=shoal")
	for _, c := range []struct{ filter, want string }{
		{"(memberOf=CN=All,o=shoal)", "uid=alice uid=bob"},
		{"(memberOf=cn=some,o=shoal)", "uid=alice"},
		{"(&(memberOf=cn=all,o=shoal)(!(memberOf=cn=some,o=shoal)))", "uid=bob"},
		{"(memberOf=*)", "uid=alice uid=bob"},
		{"(memberOf=cn=none,o=shoal)", ""},
	} {
		if out := f.openldap(t, "", "ldapsearch", "-LLL", "-b", "o=shoal", c.filter, "1.1"); shown(out) != c.want {
			t.Errorf("%s: %s, want %s", c.filter, out, c.want)
		}
	}
	out := f.openldap(t, "", "ldapsearch", "-LLL", "-b", "uid=alice,ou=people,o=shoal", "+")
	for _, want := range []string{"memberOf: cn=all,o=shoal\n", "memberOf: cn=some,o=shoal\n", "hasSubordinates: FALSE", "structuralObjectClass: inetOrgPerson",
		"entryUUID: ", "entryCSN: ", "creatorsName: ", "createTimestamp: ", "modifiersName: ", "modifyTimestamp: ", "subschemaSubentry: cn=subschema", "entryDN: uid=alice"} {
		if !strings.Contains(out, want) {
			t.Errorf("%q is missing in %s", want, out)
		}
	}
	if out := f.openldap(t, "", "ldapsearch", "-LLL", "-b", "uid=alice,ou=people,o=shoal"); strings.Contains(out, "memberOf") {
		t.Errorf("an operational attribute that nobody asked for: %s", out)
	}
	if out := f.openldap(t, "", "ldapdelete", "cn=some,o=shoal"); out != "" {
		t.Error(out)
	}
	if out := f.openldap(t, "", "ldapsearch", "-LLL", "-b", "uid=alice,ou=people,o=shoal", "memberOf"); strings.Count(out, "memberOf: ") != 1 {
		t.Error(out)
	}
	m := "dn: uid=alice,ou=people,o=shoal\nchangetype: modify\nadd: memberOf\nmemberOf: cn=all,o=shoal\n"
	if out := f.openldap(t, m, "ldapmodify"); !strings.Contains(out, "no user modification") {
		t.Error(out)
	}
}

func TestMatchedValues(t *testing.T) {
	f := start(t)
	f.add(t, "cn=g,o=shoal", "objectClass", "groupOfNames", "objectClass", "extensibleObject", "member", "uid=alice,ou=people,o=shoal", "member", "uid=bob,ou=people,o=shoal",
		"mail", "one@a.test", "mail", "two@b.test", "telephoneNumber", "+1 23")
	out := f.openldap(t, "", "ldapsearch", "-LLL", "-b", "cn=g,o=shoal", "-E", "!mv=((mail=*@b.test)(telephoneNumber=*)(member=uid=BOB,ou=people,o=shoal))", "mail", "telephoneNumber", "member", "cn", "entryUUID")
	for _, want := range []string{"mail: two@b.test", "telephoneNumber: +1 23", "member: uid=bob,"} {
		if !strings.Contains(out, want) {
			t.Errorf("%q is missing in %s", want, out)
		}
	}
	for _, not := range []string{"mail: one", "member: uid=alice", "cn: g", "entryUUID: "} {
		if strings.Contains(out, not) {
			t.Errorf("%q is in %s", not, out)
		}
	}
}
