package dirschema

import (
	"bytes"
	"strings"
	"testing"
)

func load(t testing.TB) *Schema {
	t.Helper()
	s, err := Default()
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestDefaultLoadsAndPublishesItself(t *testing.T) {
	s := load(t)
	// What is published must read back as the same schema.
	again := New()
	for _, d := range s.AttributeTypeDescriptions() {
		if err := again.AddAttributeType(d); err != nil {
			t.Fatalf("%s: %v", d, err)
		}
	}
	for _, d := range s.ObjectClassDescriptions() {
		if err := again.AddObjectClass(d); err != nil {
			t.Fatalf("%s: %v", d, err)
		}
	}
	if a, b := strings.Join(s.AttributeTypeDescriptions(), "\n"), strings.Join(again.AttributeTypeDescriptions(), "\n"); a != b {
		t.Errorf("published attribute types differ from what they were read as")
	}
	if a, b := strings.Join(s.ObjectClassDescriptions(), "\n"), strings.Join(again.ObjectClassDescriptions(), "\n"); a != b {
		t.Errorf("published object classes differ from what they were read as")
	}
	for _, want := range []string{"shoalServer", "shoalVolume", "shoalDomain", "shoalAccount", "inetOrgPerson",
		"inetLocalMailRecipient", "domainRelatedObject", "groupOfNames", "pkiUser"} {
		if s.Class([]byte(want)) == nil {
			t.Errorf("no class %s", want)
		}
	}
	if got := s.Attribute([]byte("SHOALROLE")).OID; got != "2.25.24322987064403074951861717892443018913.1.1" {
		t.Errorf("OID of shoalRole is %s", got)
	}
	cn, name := s.Attribute([]byte("commonName")), s.Attribute([]byte("2.5.4.41"))
	if !cn.Is(name) || name.Is(cn) || cn.Equality.Name != "caseIgnoreMatch" || cn.Bound != 32768 {
		t.Errorf("cn does not inherit from name: %+v", cn)
	}
	for _, u := range s.MatchingRuleUseDescriptions() {
		if _, err := s.describe(u); err != nil {
			t.Errorf("%s: %v", u, err)
		}
	}
	if len(s.SyntaxDescriptions()) == 0 || len(s.MatchingRuleDescriptions()) == 0 {
		t.Error("no syntaxes or rules published")
	}
}

func TestSchemaFileErrors(t *testing.T) {
	for _, c := range []struct{ text, want string }{
		{"attributetype ( 1.2.3 NAME 'x' )", "neither SYNTAX nor SUP"},
		{"attributetype ( 1.2.3 NAME 'cn' SUP name )", "defined already"},
		{"attributetype ( 2.5.4.3 NAME 'x' SUP name )", "defined already"},
		{"attributetype ( 1.2.3 NAME 'x' SUP nothing )", "not defined"},
		{"attributetype ( 1.2.3 NAME 'x' EQUALITY oddMatch SUP name )", "not known"},
		{"attributetype ( 1.2.3 NAME 'x' SYNTAX 1.2.3.4 )", "syntax"},
		{"attributetype ( 1.2.3 NAME 'x SUP name )", "quote without end"},
		{"attributetype ( 1..3 NAME 'x' SUP name )", "not an object identifier"},
		{"attributetype 1.2.3", "not in parentheses"},
		{"attributetype ( 1.2.3 NAME ( 'x' SUP name )", "without end"},
		{"objectclass ( 1.2.3 NAME 'x' SUP person AUXILIARY )", "cannot be its superclass"},
		{"objectclass ( 1.2.3 NAME 'x' MUST oddity )", "not defined"},
		{"nonsense ( 1.2.3 )", "unknown directive"},
	} {
		err := load(t).Add("file", []byte("# comment\n\n"+c.text+"\n"))
		if err == nil || !strings.Contains(err.Error(), c.want) || !strings.HasPrefix(err.Error(), "schema file:3: ") {
			t.Errorf("%s: %v, want %q at line 3", c.text, err, c.want)
		}
	}
}

func TestNormalForms(t *testing.T) {
	s := load(t)
	for _, c := range []struct {
		rule, a, b string
		equal      bool
	}{
		{"caseIgnoreMatch", "  Foo   BAR ", "foo bar", true},
		{"caseIgnoreMatch", "foobar", "foo bar", false},
		{"caseIgnoreMatch", "STRASSE", "straße", true},
		{"caseIgnoreMatch", "\u212bngström", "ångstr\u006f\u0308m", true},
		{"caseIgnoreMatch", "a\u00adb\u200d", "AB", true},
		{"caseIgnoreMatch", "a\u00a0b", "A B", true},
		{"caseIgnoreMatch", "ΣΑΣ", "σας", true},
		{"caseExactMatch", "Foo", "foo", false},
		{"caseExactMatch", " Foo ", "Foo", true},
		{"caseIgnoreIA5Match", "Alice@Example.TEST", "alice@example.test", true},
		{"numericStringMatch", "12 34", "1234", true},
		{"telephoneNumberMatch", "+44 20-7946 0000", "+442079460000", true},
		{"integerMatch", "007", "7", true},
		{"integerMatch", "-0", "0", true},
		{"integerMatch", "-7", "7", false},
		{"booleanMatch", "true", "TRUE", true},
		{"generalizedTimeMatch", "20260102030405Z", "20260102050405+0200", true},
		{"generalizedTimeMatch", "20260102030405.500Z", "20260102030405.5Z", true},
		{"generalizedTimeMatch", "2026010203Z", "20260102030000Z", true},
		{"generalizedTimeMatch", "2026010203.5Z", "20260102033000Z", true},
		{"objectIdentifierMatch", "inetOrgPerson", "2.16.840.1.113730.3.2.2", true},
		{"distinguishedNameMatch", "CN=Foo  Bar, O=Shoal", "cn=foo bar,o=shoal", true},
		{"distinguishedNameMatch", "cn=a+sn=b,o=x", "SN=B + CN=A,O=X", true},
		{"distinguishedNameMatch", `cn=a\2cb,o=x`, `cn=a\,b,o=x`, true},
		{"distinguishedNameMatch", `cn=a\,o\=x`, `cn=a,o=x`, false},
		{"distinguishedNameMatch", `cn=#0403414243,o=x`, `cn=abc,o=x`, true},
		{"uniqueMemberMatch", "cn=A,o=x#'01'B", "CN=a,o=x#'01'B", true},
		{"uniqueMemberMatch", "cn=A,o=x#'01'B", "CN=a,o=x", false},
		{"UUIDMatch", "0D6F3C6E-6D2C-4C0C-9B0E-2F4F6B1F9A51", "0d6f3c6e-6d2c-4c0c-9b0e-2f4f6b1f9a51", true},
		{"CSNMatch", "20261123112421.918344Z#00000A#000#000000", "20261123112421.918344Z#00000a#000#000000", true},
		{"caseIgnoreListMatch", "1 Main St$ Town ", "1 MAIN st$town", true},
		{"objectIdentifierFirstComponentMatch", "( 2.5.4.3 NAME 'cn' )", "cn", true},
	} {
		r := s.Rule([]byte(c.rule))
		a, err1 := r.Normalize(nil, []byte(c.a))
		b, err2 := r.Normalize(nil, []byte(c.b))
		if err1 != nil || err2 != nil || bytes.Equal(a, b) != c.equal {
			t.Errorf("%s: %q -> %q (%v), %q -> %q (%v), want equal %v", c.rule, c.a, a, err1, c.b, b, err2, c.equal)
		}
	}
}

func TestOrderOfNormalForms(t *testing.T) {
	s := load(t)
	for rule, list := range map[string][]string{
		"integerOrderingMatch":         {"-1000", "-999", "-10", "-9", "-1", "0", "1", "9", "10", "123456789012345678901234567890"},
		"generalizedTimeOrderingMatch": {"19991231235959Z", "20260102030405Z", "20260102030405.1Z", "20260102030405.25Z", "20260102030406Z"},
		"caseIgnoreOrderingMatch":      {"A", "a b", "aa", "B", "ß", "ä"},
		"CSNOrderingMatch":             {"20261123112421.918344Z#000000#000#000000", "20261123112421.918344Z#000001#000#000000", "20261123112422.000000Z#000000#000#000000"},
	} {
		r := s.Rule([]byte(rule))
		var last []byte
		for _, v := range list {
			n, err := r.Normalize(nil, []byte(v))
			if err != nil {
				t.Fatalf("%s %q: %v", rule, v, err)
			}
			if v != "ß" && bytes.Compare(last, n) >= 0 { // ß folds to ss, which is no order worth pinning
				t.Errorf("%s: %q does not sort above its predecessor", rule, v)
			}
			last = n
		}
	}
}

func TestSyntaxes(t *testing.T) {
	s := load(t)
	for _, c := range []struct {
		attr, value string
		ok          bool
	}{
		{"cn", "x", true}, {"cn", "", false}, {"cn", "\xff", false},
		{"mail", "a@b", true}, {"mail", "ä@b", false},
		{"uidNumber", "12", true}, {"uidNumber", "012", false}, {"uidNumber", "-0", false}, {"uidNumber", "", false}, {"uidNumber", "-5", true},
		{"c", "DE", true}, {"c", "DEU", false},
		{"member", "cn=a,o=b", true}, {"member", "nonsense", false}, {"member", `cn=a\`, false}, {"member", "", true},
		{"hasSubordinates", "TRUE", true}, {"hasSubordinates", "yes", false},
		{"createTimestamp", "20260230000000Z", false}, {"createTimestamp", "20260228000000Z", true},
		{"createTimestamp", "20260228000000", false}, {"createTimestamp", "20261231235960Z", true},
		{"telephoneNumber", "+49 (0)30 1", true}, {"telephoneNumber", "a_b", false},
		{"x500UniqueIdentifier", "'0101'B", true}, {"x500UniqueIdentifier", "0101", false},
		{"userCertificate", "\x30\x03\x02\x01\x05", true}, {"userCertificate", "\x30\x04\x02\x01\x05", false},
		{"objectClass", "9x", false}, {"entryUUID", "nope", false},
		{"uniqueMember", "cn=a#'1'B", true}, {"x121Address", "12 3", true}, {"x121Address", "a", false},
	} {
		err := s.Check(s.Attribute([]byte(c.attr)), []byte(c.value))
		if (err == nil) != c.ok {
			t.Errorf("%s: %q: %v, want ok %v", c.attr, c.value, err, c.ok)
		}
	}
}

func TestNames(t *testing.T) {
	s := load(t)
	for in, want := range map[string]string{
		"":                                       "",
		"CN=Steve Kille,O=Isode Limited,C=GB":    "cn=Steve Kille,o=Isode Limited,c=GB",
		"commonName = a + sn = b , o = c":        "cn=a+sn=b,o=c",
		`cn=\ lead,o=\#x`:                        `cn=\ lead,o=\#x`,
		`cn=trail\ ,o=x`:                         `cn=trail\ ,o=x`,
		`cn=Lu\C4\8Di\C4\87`:                     "cn=Lučić",
		`cn=James \"Jim\" Smith\, III,dc=x`:      `cn=James \"Jim\" Smith\, III,dc=x`,
		`cn=a\0db`:                               `cn=a\0Db`,
		`1.3.6.1.4.1.1466.0=#04024869`:           "1.3.6.1.4.1.1466.0=Hi",
		`uid=alice,associatedDomain=EX.test,o=s`: `uid=alice,associatedDomain=EX.test,o=s`,
		"cn=":                                    "cn=",
	} {
		dn, err := s.ParseDN([]byte(in))
		if err != nil || dn.String() != want {
			t.Errorf("%q: %q, %v; want %q", in, dn.String(), err, want)
			continue
		}
		a, err1 := dn.AppendNormal(nil)
		b, err2 := s.NormalizeDN(nil, []byte(dn.String()))
		if err1 != nil || err2 != nil || !bytes.Equal(a, b) {
			t.Errorf("%q: normal form %q (%v) is not kept by String: %q (%v)", in, a, err1, b, err2)
		}
	}
	for _, bad := range []string{"x", "=a", "cn=a,", ",", "cn=a,,o=b", "cn=a+", `cn=a\`, `cn=a\4`, `cn=a\zz`, `cn=a"b`, "cn=a;o=b",
		"cn=a<b", "cn=#zz", "cn=#30", "1.=a", "-a=b", "cn=" + strings.Repeat("x", 9000), strings.Repeat("cn=a,", 200) + "o=b"} {
		if _, err := s.ParseDN([]byte(bad)); err == nil {
			t.Errorf("%.40q: no error", bad)
		}
	}
}

func TestClasses(t *testing.T) {
	s := load(t)
	set := func(names ...string) [][]byte {
		var v [][]byte
		for _, n := range names {
			v = append(v, []byte(n))
		}
		return v
	}
	types := func(names ...string) ([]*AttributeType, func(*AttributeType) bool) {
		var v []*AttributeType
		for _, n := range names {
			v = append(v, s.Attribute([]byte(n)))
		}
		return v, func(a *AttributeType) bool {
			for _, b := range v {
				if a == b {
					return true
				}
			}
			return false
		}
	}
	cs, err := s.CheckClasses(set("inetOrgPerson", "shoalAccount"))
	if err != nil || cs.Structural.Name() != "inetOrgPerson" || len(cs.Implied) != 3 {
		t.Fatalf("classes %+v, %v", cs, err)
	}
	if err := cs.Check(types("objectClass", "cn", "sn", "shoalAccountId", "entryUUID", "mail")); err != nil {
		t.Error(err)
	}
	for _, c := range []struct {
		attrs []string
		want  string
	}{
		{[]string{"objectClass", "cn", "shoalAccountId"}, "requires attribute sn"},
		{[]string{"objectClass", "cn", "sn", "shoalAccountId", "member"}, "member is not allowed"},
	} {
		if err := cs.Check(types(c.attrs...)); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%v: %v, want %q", c.attrs, err, c.want)
		}
	}
	for _, c := range []struct {
		classes []string
		want    string
	}{
		{nil, "no objectClass"},
		{[]string{"top"}, "no structural"},
		{[]string{"shoalAccount"}, "no structural"},
		{[]string{"person", "organization"}, "do not go together"},
		{[]string{"oddity"}, "not in the schema"},
	} {
		if _, err := s.CheckClasses(set(c.classes...)); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%v: %v, want %q", c.classes, err, c.want)
		}
	}
	cs, err = s.CheckClasses(set("organization", "extensibleObject"))
	if err != nil {
		t.Fatal(err)
	}
	if err := cs.Check(types("objectClass", "o", "mail")); err != nil {
		t.Errorf("extensibleObject: %v", err)
	}
}

func TestDescriptions(t *testing.T) {
	s := load(t)
	d := func(x string) Description {
		v, err := s.Describe([]byte(x))
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
	if got := d("COMMONNAME;X-a;Lang-de").String(); got != "cn;lang-de;x-a" {
		t.Errorf("description %s", got)
	}
	for _, c := range []struct {
		ask, have string
		want      bool
	}{
		{"name", "cn", true}, {"cn", "name", false}, {"cn", "cn;lang-de", true}, {"cn;lang-de", "cn", false},
		{"cn;lang-de", "cn;lang-de;x-a", true}, {"userCertificate", "userCertificate;binary", true},
		{"userCertificate;binary", "userCertificate", true}, {"cn;lang-en-", "cn;lang-en-us", true}, {"cn;lang-en-", "cn;lang-en", true},
		{"cn;lang-", "cn;lang-de", true}, {"cn;lang-", "cn", false}, {"cn;lang-en-", "cn;lang-enx", false}, {"name;lang-de-;x-a", "cn;lang-de-at;x-a", true},
	} {
		if got := d(c.ask).Covers(d(c.have)); got != c.want {
			t.Errorf("%s covers %s: %v", c.ask, c.have, got)
		}
	}
	for _, bad := range []string{"oddity", "cn;", "cn;a b", "", "cn;" + strings.Repeat("x", 300)} {
		if _, err := s.Describe([]byte(bad)); err == nil {
			t.Errorf("%.20q: no error", bad)
		}
	}
}

func TestSubstrings(t *testing.T) {
	s := load(t)
	type p struct {
		place uint8
		v     string
	}
	for _, c := range []struct {
		rule, value string
		pieces      []p
		want        bool
	}{
		{"caseIgnoreSubstringsMatch", "Foo Bar Baz", []p{{Initial, "foo"}}, true},
		{"caseIgnoreSubstringsMatch", "Foo Bar Baz", []p{{Initial, "bar"}}, false},
		{"caseIgnoreSubstringsMatch", "Foo  Bar Baz", []p{{Any, "O B"}}, true},
		{"caseIgnoreSubstringsMatch", "FooBar", []p{{Any, "o b"}}, false},
		{"caseIgnoreSubstringsMatch", "Foo Bar", []p{{Any, " bar"}}, true},
		{"caseIgnoreSubstringsMatch", "FooBar", []p{{Any, " bar"}}, false},
		{"caseIgnoreSubstringsMatch", "abc", []p{{Initial, "ab"}, {Final, "bc"}}, false},
		{"caseIgnoreSubstringsMatch", "abxbc", []p{{Initial, "AB"}, {Final, "BC"}}, true},
		{"caseIgnoreSubstringsMatch", "aXbXc", []p{{Any, "x"}, {Any, "x"}, {Final, "c"}}, true},
		{"caseIgnoreSubstringsMatch", "aXbc", []p{{Any, "x"}, {Any, "x"}}, false},
		{"telephoneNumberSubstringsMatch", "+44 20 7946", []p{{Any, "4420"}}, true},
		{"caseExactSubstringsMatch", "Foo", []p{{Any, "foo"}}, false},
	} {
		r := s.Rule([]byte(c.rule))
		v, _ := r.Normalize(nil, []byte(c.value))
		var norm [][]byte
		for _, x := range c.pieces {
			n, err := r.NormalizePiece(nil, []byte(x.v), x.place)
			if err != nil {
				t.Fatal(err)
			}
			norm = append(norm, n)
		}
		if got := r.MatchSubstrings(v, len(norm), func(i int) (uint8, []byte) { return c.pieces[i].place, norm[i] }, nil); got != c.want {
			t.Errorf("%s %q %v: %v", c.rule, c.value, c.pieces, got)
		}
	}
}

func FuzzParseDN(f *testing.F) {
	s := load(f)
	for _, seed := range []string{"", "cn=a,o=b", `cn=a\,b+sn=c,o=d`, `cn=\ä\20`, "cn=#040161", "cn=a\\", "=,=", "  ,"} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		dn, err := s.ParseDN(b)
		if err != nil {
			return
		}
		n, err := dn.AppendNormal(nil)
		if err != nil {
			return
		}
		again, err := s.NormalizeDN(nil, []byte(dn.String()))
		if err != nil || !bytes.Equal(n, again) {
			t.Fatalf("%q: normal form %q, of its own string %q: %q %v", b, n, dn.String(), again, err)
		}
	})
}

func FuzzSchemaFile(f *testing.F) {
	f.Add([]byte("attributetype ( 1.2.3 NAME ( 'a' 'b' ) SUP name X-ORIGIN 'x' )\n"))
	f.Add([]byte("objectidentifier m 1.2\nobjectclass ( m:3 NAME 'x'\n\tMUST ( cn $ sn ) )\n"))
	f.Add([]byte("attributetype ( ((( ''' )"))
	f.Fuzz(func(t *testing.T, b []byte) {
		s := load(t)
		if s.Add("fuzz", b) != nil {
			return
		}
		for _, d := range s.AttributeTypeDescriptions() {
			if _, err := s.describe(d); err != nil {
				t.Fatalf("published %q: %v", d, err)
			}
		}
	})
}

func FuzzNormalize(f *testing.F) {
	s := load(f)
	f.Add([]byte("Foo  bar"))
	f.Add([]byte("stra\xc3\x9fe \xe2\x84\xab"))
	f.Add([]byte("A\x10\u0304"))
	f.Add([]byte("-00012"))
	f.Add([]byte("20260102030405.5+0130"))
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, name := range []string{"caseIgnoreMatch", "caseExactMatch"} {
			r := s.Rule([]byte(name))
			n, err := r.Normalize(nil, b)
			if err != nil {
				continue
			}
			again, err := r.Normalize(nil, n)
			if err != nil || !bytes.Equal(n, again) {
				t.Fatalf("%s: %q -> %q -> %q %v", name, b, n, again, err)
			}
		}
		for _, r := range s.ruleList {
			_, _ = r.Normalize(nil, b)
			_, _ = r.NormalizePiece(nil, b, Any)
		}
	})
}
