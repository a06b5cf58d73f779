package mailaddr

import (
	"errors"
	"strings"
	"testing"
	"unicode"
)

func TestParse(t *testing.T) {
	tests := []struct {
		in, text, key string // text "" means refused
	}{
		{"alice@example.test", "alice@example.test", "alice@example.test"},
		{"Alice@Example.TEST", "Alice@Example.TEST", "alice@example.test"},
		{"a.b+c@x-y.example", "a.b+c@x-y.example", "a.b+c@x-y.example"},
		{`"alice"@example.test`, "alice@example.test", "alice@example.test"},
		{`"a b"@example.test`, `"a b"@example.test`, `"a b"@example.test`},
		{`"a\"b\\c"@example.test`, `"a\"b\\c"@example.test`, `"a\"b\\c"@example.test`},
		{`"a@b"@example.test`, `"a@b"@example.test`, `"a@b"@example.test`},
		{"a..b@example.test", `"a..b"@example.test`, `"a..b"@example.test`},
		{"a.@example.test", `"a."@example.test`, `"a."@example.test`},
		{"x@[127.0.0.1]", "x@[127.0.0.1]", "x@[127.0.0.1]"},
		{"x@[IPv6:2001:db8::1]", "x@[IPv6:2001:db8::1]", "x@[ipv6:2001:db8::1]"},
		{"x@[tag:content]", "x@[tag:content]", "x@[tag:content]"},
		{"x@host_1.example", "x@host_1.example", "x@host_1.example"},
		{"x@localhost", "x@localhost", "x@localhost"},
		{"postmaster", "postmaster", "postmaster"},
		{"PostMaster", "PostMaster", "postmaster"},
		{"jürgen@bücher.example", "jürgen@bücher.example", "jürgen@xn--bcher-kva.example"},
		{"JÜRGEN@BÜCHER.example", "JÜRGEN@BÜCHER.example", "jürgen@xn--bcher-kva.example"},
		{"ju\u0308rgen@xn--bcher-kva.example", "ju\u0308rgen@xn--bcher-kva.example", "jürgen@xn--bcher-kva.example"},
		{strings.Repeat("a", 64) + "@example.test", strings.Repeat("a", 64) + "@example.test", strings.Repeat("a", 64) + "@example.test"},

		{"", "", ""},
		{"alice", "", ""},
		{"@example.test", "", ""},
		{"alice@", "", ""},
		{"a@b@c", "", ""},
		{"a b@example.test", "", ""},
		{`"ab@example.test`, "", ""},
		{`""@example.test`, "", ""},
		{`"a` + "\x00" + `b"@example.test`, "", ""},
		{`"a` + "\r\n" + `b"@example.test`, "", ""},
		{`"a\` + "\x01" + `"@example.test`, "", ""},
		{"a\x7f@example.test", "", ""},
		{"a\u0085b@example.test", "", ""},
		{"a\u2028b@example.test", "", ""},
		{"a\xff@example.test", "", ""},
		{"a@exa\xffmple.test", "", ""},
		{"a@example..test", "", ""},
		{"a@.example.test", "", ""},
		{"a@example.test.", "", ""},
		{"a@-example.test", "", ""},
		{"a@exam ple.test", "", ""},
		{"a@example.test>", "", ""},
		{"a@example.test\r\n", "", ""},
		{"a@exa(mple.test", "", ""},
		{"a@[127.0.0.256]", "", ""},
		{"a@[IPv6:fe80::1%eth0]", "", ""},
		{"a@[tag:con]tent]", "", ""},
		{"a@[tag:a b]", "", ""},
		{"a@[", "", ""},
		{strings.Repeat("a", 65) + "@example.test", "", ""},
		{"a@" + strings.Repeat("a", 64) + ".test", "", ""},
		{"a@" + strings.Repeat("a.", 126) + "ab", "", ""},
		{"a@" + strings.Repeat("ü.", 2000) + "example", "", ""},
	}
	for _, tt := range tests {
		a, err := Parse(tt.in)
		if tt.text == "" {
			var se *SyntaxError
			if !errors.As(err, &se) {
				t.Errorf("Parse(%q) = %q, %v; want a SyntaxError", tt.in, a, err)
			}
			continue
		}
		if err != nil || a.String() != tt.text || a.Key() != tt.key {
			t.Errorf("Parse(%q) = %q, key %q, %v; want %q, key %q", tt.in, a, a.Key(), err, tt.text, tt.key)
		}
	}
}

func TestPaths(t *testing.T) {
	tests := []struct {
		in      string
		reverse bool
		path    string // "" means refused
		rest    string
	}{
		{"<>", true, "<>", ""},
		{"<> SIZE=3", true, "<>", " SIZE=3"},
		{"<>", false, "", ""},
		{"<a@b.test> BODY=8BITMIME", true, "<a@b.test>", " BODY=8BITMIME"},
		{"a@b.test", true, "<a@b.test>", ""},
		{"a@b.test SIZE=1", true, "<a@b.test>", " SIZE=1"},
		{"<@x.test,@y.test:a@b.test>", false, "<a@b.test>", ""},
		{"<@x.test:postmaster>", false, "<postmaster>", ""},
		{"<postmaster>", false, "<postmaster>", ""},
		{"<Postmaster> NOTIFY=NEVER", false, "<Postmaster>", " NOTIFY=NEVER"},
		{`<"a>b"@b.test>`, false, `<"a>b"@b.test>`, ""},
		{"<a@b.test", false, "", ""},
		{"<a@b.test>x", false, "", ""},
		{"<>x", true, "", ""},
		{"<@x.test,y.test:a@b.test>", false, "", ""},
		{"<@:a@b.test>", false, "", ""},
		{"<a@b.test>>", false, "", ""},
		{"<<a@b.test>>", false, "", ""},
		{"<alice>", false, "", ""},
		{"< a@b.test>", false, "", ""},
		{"<a@b.test >", false, "", ""},
	}
	for _, tt := range tests {
		parse := ParseForwardPath
		if tt.reverse {
			parse = ParseReversePath
		}
		a, rest, err := parse(tt.in)
		if tt.path == "" {
			if err == nil {
				t.Errorf("path %q = %q, %q; want it refused", tt.in, a.Path(), rest)
			}
			continue
		}
		if err != nil || a.Path() != tt.path || rest != tt.rest {
			t.Errorf("path %q = %q, %q, %v; want %q, %q", tt.in, a.Path(), rest, err, tt.path, tt.rest)
		}
	}
}

func TestSubaddress(t *testing.T) {
	tests := []struct{ in, seps, base, detail string }{
		{"alice+lists@b.test", "+", "alice@b.test", "lists"},
		{"alice-x+lists@b.test", "+-", "alice@b.test", "x+lists"},
		{"alice@b.test", "+", "alice@b.test", ""},
		{"alice+@b.test", "+", "alice@b.test", ""},
		{"+alice@b.test", "+", "+alice@b.test", ""},
		{"alice+x@b.test", "", "alice+x@b.test", ""},
	}
	for _, tt := range tests {
		a, err := Parse(tt.in)
		if err != nil {
			t.Fatal(err)
		}
		if base, detail := a.Subaddress(tt.seps); base.String() != tt.base || detail != tt.detail {
			t.Errorf("%q by %q = %q, %q; want %q, %q", tt.in, tt.seps, base, detail, tt.base, tt.detail)
		}
	}
}

func TestKinds(t *testing.T) {
	if !(Address{}).IsNull() || (Address{}).Path() != "<>" || (Address{}).Key() != "" {
		t.Error("the zero address is not the null reverse-path")
	}
	if a, err := New("postmaster", ""); err != nil || !a.IsPostmaster() {
		t.Errorf("postmaster without a domain: %v, %v", a, err)
	}
	if _, err := New("alice", ""); err == nil {
		t.Error("another mailbox without a domain was accepted")
	}
	if a, _ := Parse("ü@example.test"); a.IsASCII() {
		t.Error("a local part with ü counts as ASCII")
	}
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{
		"a@b.test", `"a\"b"@c.test`, "a..b@c.test", "postmaster", "jürgen@bücher.example", "x@[IPv6:::1]",
		"<@a.test,@b.test:c@d.test> SIZE=1", "<>", "İ@example.test", "a@ß.example", "\"\x00\"@a", "a@\u3002b",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if a, rest, err := ParseReversePath(s); err == nil {
			again, none, err := ParseReversePath(a.Path())
			if err != nil || again != a || none != "" {
				t.Fatalf("%q: path %q reads as %v, %q, %v", s, a.Path(), again, none, err)
			}
			if !strings.HasSuffix(s, rest) {
				t.Fatalf("%q: %q is not its end", s, rest)
			}
		}
		a, err := Parse(s)
		if err != nil {
			return
		}
		if b, err := Parse(a.String()); err != nil || b != a {
			t.Fatalf("%q: its text %q reads as %v, %v", s, a.String(), b, err)
		}
		for _, r := range a.String() {
			if unicode.IsControl(r) {
				t.Fatalf("%q: control character accepted", s)
			}
		}
		if b, err := Parse(a.Key()); err == nil && b.Key() != a.Key() {
			t.Fatalf("%q: key %q has the key %q", s, a.Key(), b.Key())
		}
		if !isASCII(DomainKey(a.Domain)) {
			t.Fatalf("%q: domain key %q is not ASCII", s, DomainKey(a.Domain))
		}
	})
}
