package dirschema

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestOpenLDAPLoadsTheSchema: slaptest takes every file but what OpenLDAP has in its program; and shoal.schema on
// OpenLDAP's own files.
func TestOpenLDAPLoadsTheSchema(t *testing.T) {
	for _, c := range []struct {
		what, folder string
		files        []string
	}{
		{"all of ours", "schema", order[1:]},
		{"shoal.schema on OpenLDAP's", "/etc/ldap/schema", []string{"core.schema", "cosine.schema", "inetorgperson.schema", "misc.schema", "nis.schema"}},
	} {
		dir := t.TempDir()
		var conf strings.Builder
		for _, f := range c.files {
			path, err := filepath.Abs(filepath.Join(c.folder, f))
			if err != nil {
				t.Fatal(err)
			}
			fmt.Fprintf(&conf, "include %s\n", path)
		}
		if c.folder != "schema" {
			path, err := filepath.Abs("schema/shoal.schema")
			if err != nil {
				t.Fatal(err)
			}
			fmt.Fprintf(&conf, "include %s\n", path)
		}
		conf.WriteString("modulepath /usr/lib/ldap\nmoduleload back_null\ndatabase null\nsuffix o=shoal\n")
		file := filepath.Join(dir, "slapd.conf")
		if err := os.WriteFile(file, []byte(conf.String()), 0o600); err != nil {
			t.Fatal(err)
		}
		out, err := exec.Command("/usr/sbin/slaptest", "-u", "-f", file).CombinedOutput()
		if err != nil || !strings.Contains(string(out), "succeeded") {
			t.Errorf("%s: %v\n%s", c.what, err, out)
		}
	}
}

// TestExtraSchema: files that others wrote are taken, and what is wrong with one is told with its line.
func TestExtraSchema(t *testing.T) {
	const samba = `# a class of somebody else
objectidentifier other 1.3.6.1.4.1.99999
attributetype ( other:1 NAME 'otherColour'
	DESC 'a colour' EQUALITY caseIgnoreMatch
	SYNTAX 1.3.6.1.4.1.1466.115.121.1.15{32} SINGLE-VALUE X-ORIGIN 'somebody' )
objectclass ( other:2 NAME 'otherThing' SUP top AUXILIARY MAY ( otherColour $ homeDirectory ) )
`
	for _, c := range []struct{ second, want string }{
		{"attributetype ( other:3 NAME 'otherShade' SUP otherColour )\n", ""},
		{"\n\nattributetype ( other:3 NAME 'otherShade' SUP noSuch )\n", `20-more.schema:3: otherShade: supertype "noSuch" is not defined`},
		{"objectclass ( other:3 NAME 'person' MAY cn )\n", `20-more.schema:1: 1.3.6.1.4.1.99999.3: "person" is defined already`},
		{"attributetype ( other:3 NAME 'x' EQUALITY noSuchMatch SYNTAX 1.3.6.1.4.1.1466.115.121.1.15 )\n", `matching rule "noSuchMatch" is not known`},
		{"olcAttributeTypes: ( 1.2.3 )\n", `unknown directive "olcAttributeTypes:"`},
	} {
		dir := t.TempDir()
		for name, text := range map[string]string{"10-other.schema": samba, "20-more.schema": c.second, "README": "( nothing"} {
			if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		s := load(t)
		err := s.AddFolder(dir)
		switch {
		case c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)):
			t.Errorf("%q: %v, want %q", c.second, err, c.want)
		case c.want == "" && err != nil:
			t.Error(err)
		case c.want == "" && (s.Class([]byte("OTHERthing")) == nil || s.Attribute([]byte("otherShade")).Equality.Name != "caseIgnoreMatch"):
			t.Error("what was loaded is not there")
		}
	}
	if err := load(t).AddFolder(filepath.Join(t.TempDir(), "none")); err == nil {
		t.Error("a folder that is not there")
	}
}

func TestCertificateMatch(t *testing.T) {
	s := load(t)
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	serial, _ := new(big.Int).SetString("123456789012345678901234567890", 10)
	tmpl := &x509.Certificate{SerialNumber: serial, Subject: pkix.Name{CommonName: `CA, "one"`, Organization: []string{"Shoal"}, Country: []string{"DE"}}}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	rule := s.Rule([]byte("certificateExactMatch"))
	value, err := rule.Normalize(nil, der)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		assertion string
		want      bool
	}{
		{`{ serialNumber 123456789012345678901234567890, issuer rdnSequence:"cn=ca\2C \22ONE\22, O=shoal,C=de" }`, true},
		{`{ issuer rdnSequence:"CN=CA\, \""one\"",O=Shoal,C=DE", serialNumber 123456789012345678901234567890 }`, true},
		{`123456789012345678901234567890$CN=CA\, \"one\",O=Shoal,C=DE`, true},
		{string(der), true},
		{`123456789012345678901234567891$CN=CA\, \"one\",O=Shoal,C=DE`, false},
		{`123456789012345678901234567890$CN=CA,O=Shoal,C=DE`, false},
	} {
		a, err := rule.NormalizeAssertion(nil, []byte(c.assertion))
		if got := err == nil && rule.Match(a, value); got != c.want {
			t.Errorf("%.80q: %v %v (%q and %q)", c.assertion, got, err, a, value)
		}
	}
	for _, bad := range []string{"", "{", "{ }", "{ serialNumber 1 }", "{ serialNumber x, issuer rdnSequence:\"\" }", `{ serialNumber 1, issuer rdnSequence:"cn=x }`, "1$", "x$cn=y", "0\x82\x01"} {
		if a, err := rule.NormalizeAssertion(nil, []byte(bad)); err == nil && bad != "1$" {
			t.Errorf("%q is an assertion: %q", bad, a)
		}
	}
}

func TestRulesBeyondEquality(t *testing.T) {
	s := load(t)
	for _, c := range []struct {
		rule, assertion, value string
		want                   bool
	}{
		{"wordMatch", "Blue", "The Deep-BLUE sea", true}, {"wordMatch", "lue", "The Deep-BLUE sea", false}, {"keywordMatch", "grün", "Rot,GRÜN", true},
		{"integerBitAndMatch", "6", "14", true}, {"integerBitAndMatch", "6", "12", false}, {"integerBitOrMatch", "6", "12", true}, {"integerBitOrMatch", "6", "9", false},
		{"integerOrderingMatch", "10", "9", true}, {"integerOrderingMatch", "10", "10", false}, {"integerOrderingMatch", "-5", "-10", true},
		{"caseIgnoreOrderingMatch", "b", "A", true}, {"caseIgnoreOrderingMatch", "a", "B", false},
		{"generalizedTimeOrderingMatch", "20260101000000Z", "20251231235959+0000", true}, {"generalizedTimeOrderingMatch", "20260101000000Z", "202601010100+0100", false},
		{"dnSubtreeMatch", "O=shoal", "ou=a, o=Shoal", true}, {"dnSubtreeMatch", "o=shoal", "o=shoal", true}, {"dnSubtreeMatch", "o=oal", "o=shoal", false},
		{"dnOneLevelMatch", "o=shoal", "ou=a,o=shoal", true}, {"dnOneLevelMatch", "o=shoal", "cn=b,ou=a,o=shoal", false},
		{"dnSubordinateMatch", "o=shoal", "o=shoal", false}, {"dnSuperiorMatch", "cn=b,ou=a,o=shoal", "ou=a,o=shoal", true},
		{"telephoneNumberMatch", "+49 30-123", "+4930123", true}, {"objectIdentifierMatch", "commonName", "2.5.4.3", true},
		{"octetStringMatch", "a", "A", false}, {"uniqueMemberMatch", "cn=a,o=b#'01'B", "CN=A,O=B#'01'B", true}, {"booleanMatch", "TRUE", "TRUE", true},
		{"caseExactMatch", "a  b ", "a b", true}, {"caseIgnoreMatch", "STRASSE", "Straße", true}, {"numericStringMatch", "1 2", "12", true},
		{"bitStringMatch", "'01'B", "'010'B", false}, {"caseIgnoreListMatch", "A$b c", "a$B  C", true},
	} {
		r := s.Rule([]byte(c.rule))
		a, err := r.NormalizeAssertion(nil, []byte(c.assertion))
		if err != nil {
			t.Fatalf("%s %q: %v", c.rule, c.assertion, err)
		}
		v, err := r.Normalize(nil, []byte(c.value))
		if err != nil {
			t.Fatalf("%s %q: %v", c.rule, c.value, err)
		}
		if got := r.Match(a, v); got != c.want {
			t.Errorf("%s: %q of %q: %v", c.rule, c.assertion, c.value, got)
		}
	}
	if bitField, err := s.Rule([]byte("integerBitAndMatch")).Normalize(nil, []byte("99999999999999999999")); err == nil {
		t.Errorf("a number of more than 64 bits: %x", bitField)
	}
}

func TestSounds(t *testing.T) {
	for _, c := range []struct {
		assertion, value string
		want             bool
	}{
		{"jon smyth", "John Smith", true}, {"john smith", "J. W. Smith", true}, {"j smith", "John Smith", true}, {"smith john", "John Smith", false},
		{"meier", "Maier", true}, {"müller", "Mueller", true}, {"muller", "Müller", true}, {"robert", "Rupert", true}, {"rubin", "Robert", false},
		{"42", "Platz 42", true}, {"43", "Platz 42", false}, {"иван", "Иван Петров", true}, {"иван", "Пётр", false}, {"", "x", true}, {"x", "", false},
	} {
		f := func(v string) []byte {
			n, err := caseIgnore(nil, []byte(v))
			if err != nil {
				t.Fatal(err)
			}
			return n
		}
		if got := SoundsLike(AppendSound(nil, f(c.assertion)), f(c.value)); got != c.want {
			t.Errorf("%q ~= %q: %v", c.value, c.assertion, got)
		}
	}
}

// FuzzAssertion: whatever an assertion is, nothing breaks, and what is understood of a certificate's stays the same.
func FuzzAssertion(f *testing.F) {
	f.Add(`{ serialNumber 1, issuer rdnSequence:"cn=a" }`)
	f.Add("1$cn=a")
	f.Add("0\x03\x02\x01\x01")
	f.Add("jon smyth")
	s, err := Default()
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, v string) {
		for _, r := range s.ruleList {
			a, err := r.NormalizeAssertion(nil, []byte(v))
			if err != nil || r.Kind == SubstringRule {
				continue
			}
			if n, err := r.Normalize(nil, []byte(v)); err == nil {
				r.Match(a, n)
			}
			SoundsLike(AppendSound(nil, a), a)
		}
	})
}
