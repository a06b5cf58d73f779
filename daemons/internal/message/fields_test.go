package message

import (
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"
)

func TestParseAddresses(t *testing.T) {
	for _, c := range []struct {
		in   string
		want string // name|route|mailbox|host, joined by spaces around ";"
	}{
		{"", ""},
		{"  ", ""},
		{"a@b.test", "||a|b.test"},
		{"A B <a@b.test>", "A B||a|b.test"},
		{"A  \t B <a@b.test>", "A B||a|b.test"},
		{`"A, B" <a@b.test>`, "A, B||a|b.test"},
		{`"A \"B\" \\C" <a@b.test>`, `A "B" \C||a|b.test`},
		{`"A"B <a@b.test>`, "AB||a|b.test"},
		{"A. B. <a@b.test>", "A. B.||a|b.test"},
		{"a@b.test (A (nested) B)", "A (nested) B||a|b.test"},
		{`a@b.test (A \) B)`, "A ) B||a|b.test"},
		{"(x) A (y) B (z) <a@b.test> (w)", "A B||a|b.test"},
		{`"a b"@c.test`, "||a b|c.test"},
		{`"a"."b"@c.test`, "||a.b|c.test"},
		{"a . b @ c . test", "||a.b|c.test"},
		{"a@[192.0.2.1]", "||a|[192.0.2.1]"},
		{"<a@b.test>", "||a|b.test"},
		{"<a@b.test", "||a|b.test"},
		{"<@r1.test, @r2.test:a@b.test>", "|@r1.test,@r2.test|a|b.test"},
		{"<>", ""},
		{"a@b.test, c@d.test", "||a|b.test ; ||c|d.test"},
		{"a@b.test; c@d.test;", "||a|b.test ; ||c|d.test"},
		{"<a@b.test> <c@d.test>", "||a|b.test ; ||c|d.test"},
		{"G: a@b.test, C <c@d.test>;, e@f.test", "||G| ; ||a|b.test ; C||c|d.test ; ||| ; ||e|f.test"},
		{"G:;", "||G| ; |||"},
		{"G: a@b.test", "||G| ; ||a|b.test ; |||"},
		{": a@b.test;", "||MISSING_MAILBOX| ; ||a|b.test ; |||"},
		{"root", "||root|MISSING_DOMAIN"},
		{"root (Charlie)", "Charlie||root|MISSING_DOMAIN"},
		{"two words", "two words||MISSING_MAILBOX|MISSING_DOMAIN"},
		{"@b.test", "||MISSING_MAILBOX|b.test"},
		{"a@", "||a|MISSING_DOMAIN"},
		{"A B a@b.test", "A B||a|b.test"},
		{"=?utf-8?q?J=C3=BC?= <a@b.test>", "=?utf-8?q?J=C3=BC?=||a|b.test"},
		{"Jürgen <jürgen@müller.test>", "Jürgen||jürgen|müller.test"},
		{`"unclosed <a@b.test>`, "||unclosed <a@b.test>|MISSING_DOMAIN"},
		{"(unclosed a@b.test", ""},
		{",,;,", ""},
	} {
		var got []string
		for _, a := range ParseAddresses(c.in) {
			got = append(got, a.Name+"|"+a.Route+"|"+a.Mailbox+"|"+a.Host)
		}
		if s := strings.Join(got, " ; "); s != c.want {
			t.Errorf("%q:\n got %s\nwant %s", c.in, s, c.want)
		}
	}
}

func TestParseAddressesIsBounded(t *testing.T) {
	if n := len(ParseAddresses(strings.Repeat("a,", 5*maxAddresses))); n != maxAddresses {
		t.Errorf("%d addresses, want %d", n, maxAddresses)
	}
}

func TestParseDate(t *testing.T) {
	const day = "2026-11-23T"
	for in, want := range map[string]string{
		"Mon, 23 Nov 2026 13:40:04 +0100":             day + "13:40:04+01:00",
		"Mon, 23 Nov 2026 13:40:04 +0100 (CET)":       day + "13:40:04+01:00",
		"23 Nov 2026 13:40 -0330":                     day + "13:40:00-03:30",
		"Mon,23 Nov 2026 13:40:04 GMT":                day + "13:40:04Z",
		"Monday, 23-Nov-26 13:40:04 EST":              day + "13:40:04-05:00",
		"Mon, (a comment) 23 Nov 126 13:40:04 PDT":    day + "13:40:04-07:00",
		"23 Nov 26 13:40:04 Z":                        day + "13:40:04Z",
		"Mon, 1 Jan 96 00:00:00 +0000":                "1996-01-01T00:00:00Z",
		"Mon Nov 23 13:40:04 2026":                    day + "13:40:04Z",
		"Mon Nov 23 13:40:04 CET 2026":                day + "13:40:04+01:00",
		"Mon Nov 23 13:40:04 2026 +0100":              day + "13:40:04+01:00",
		"Mon, 23 Nov 2026 13.40.04 +0100":             day + "13:40:04+01:00",
		"Mon, 23 Nov 2026 13:40:04.250 +0100":         day + "13:40:04.25+01:00",
		"Mon, 23 November 2026 13:40:04 \"GMT\"":      day + "13:40:04Z",
		"2026-11-23 13:40:04 +0100":                   day + "13:40:04+01:00",
		"2026-11-23T13:40:04Z":                        day + "13:40:04Z",
		"2026-11-23T13:40:04+01:00":                   day + "13:40:04+01:00",
		"Mon, 23 Nov 2026 23:59:60 +0000":             day + "23:59:59Z",
		"Mon, 23 Nov 2026":                            day + "00:00:00Z",
		"Mon, 23 Nov 2026 13:40:04 -0000":             day + "13:40:04Z",
		"Mon, 23 Nov 2026 13:40:04 +9999":             day + "13:40:04Z",
		"Mon, 23 Nov 2026 13:40:04 +0100 +0200 bogus": day + "13:40:04+01:00",
		"":                                "",
		"nonsense":                        "",
		"Mon, 31 Feb 2026 10:00:00 +0000": "",
		"Mon, 23 2026 13:40:04 +0000":     "",
		"Mon, 23 Nov 2026 25:00:00 +0000": "",
		"0 Nov 2026":                      "",
		"12":                              "",
		"99999999999999999999 Nov 2026":   "",
	} {
		got, ok := ParseDate(in)
		if !ok && want == "" {
			continue
		}
		if s := got.Format(time.RFC3339Nano); !ok || s != want {
			t.Errorf("%q: %s, want %s", in, s, want)
		}
	}
}

func TestBaseSubject(t *testing.T) {
	for _, c := range []struct {
		in, want string
		reply    bool
	}{
		{"", "", false},
		{"hello", "hello", false},
		{"  hello \t world ", "hello world", false},
		{"Re: hello", "hello", true},
		{"RE : hello", "hello", true},
		{"re[2]: hello", "hello", true},
		{"Fwd: Re: FW: hello", "hello", true},
		{"[list] Re: hello", "hello", true},
		{"[list] hello", "hello", false},
		{"Re: [list] hello (fwd) (FWD)", "hello", true},
		{"[Fwd: hello]", "hello", true},
		{"[fwd: Re: [x] hello]", "hello", true},
		{"[list]", "[list]", false},
		{"[list] [more]", "[more]", false},
		{"Re:", "", true},
		{"Regarding: hello", "Regarding: hello", false},
		{"[unclosed Re: hello", "[unclosed Re: hello", false},
		{"=?utf-8?q?Re:_Gr=C3=BC=C3=9Fe?=", "Grüße", true},
		{"hello (fwd", "hello (fwd", false},
	} {
		if got, reply := BaseSubject(c.in); got != c.want || reply != c.reply {
			t.Errorf("%q: %q %v, want %q %v", c.in, got, reply, c.want, c.reply)
		}
	}
}

func TestMessageIDs(t *testing.T) {
	for in, want := range map[string][]string{
		"":                           nil,
		"<a@b>":                      {"a@b"},
		"<a@b><c@d>\t <e@f>":         {"a@b", "c@d", "e@f"},
		"Your mail of <a@b> (x) <c>": {"a@b"}, // what has no "@" is no identifier
		`<"a b"@c> < a @ b >`:        {"a b@c", "a@b"},
		`<"a"@b>`:                    {"a@b"},
		"<a@b":                       nil,
		"<<a@b>>":                    {"a@b"},
		"<>":                         nil,
	} {
		if got := MessageIDs(in); !reflect.DeepEqual(got, want) {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
}

func TestDecodeHeader(t *testing.T) {
	for in, want := range map[string]string{
		"a\r\n b":                                 "a b",
		"=?utf-8?q?a?=\r\n =?utf-8?q?b?=":         "ab",
		"=?UTF-8*en?Q?a?= x =?utf-8?q?b?=":        "a x b",
		"=?utf-8?B?w?= =?utf-8?B?6Q=?=":           "é", // cut within a character and within a group
		"=?utf-8?q?=C3?= =?utf-8?q?=A9?=":         "é",
		"=?iso-8859-1?q?=E9?= =?utf-8?q?=C3=A9?=": "éé",
		"=?no-such-charset?q?abc?=":               "abc",
		"Gr\xfc\xdfe":                             "Grüße",
		"Grüße":                                   "Grüße",
		`"=?utf-8?q?in_quotes?="`:                 `"in quotes"`,
		"a=?utf-8?q?b?=c":                         "abc",
		"=?utf-8?q?a b?=":                         "a b",
		"=?":                                      "=?",
		"=?=?utf-8?q?a?=":                         "=?a",
		"=?iso-2022-jp?B?GyRCJDMbKEI=?= =?iso-2022-jp?B?GyRCJHMbKEI=?=": "こん",
	} {
		if got := DecodeHeader(in); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
}

func TestParams(t *testing.T) {
	for in, want := range map[string]string{
		"text/plain":                                          "text plain []",
		"TEXT/Plain; Charset=UTF-8":                           "text plain [{charset UTF-8}]",
		"text/plain charset=utf-8":                            "text plain [{charset utf-8}]",
		"text/plain; charset=":                                "text plain [{charset }]",
		"text/plain;;; ; a=b;":                                "text plain [{a b}]",
		"text/plain; junk; a=b":                               "text plain [{a b}]",
		"(c) text (d) / (e) plain (f); (g) a (h) = (i) b (j)": "text plain [{a b}]",
		`a/b; x="a;b"; y="c\"d"`:                              `a b [{x a;b} {y c"d}]`,
		"a/b; f*0=1; f*1=2; f*3=4":                            "a b [{f 12}]",
		"a/b; f*1=2; f*0=1; g=3":                              "a b [{f 12} {g 3}]",
		"a/b; f*0=x y; f*1*=%20z":                             "a b [{f* ''x%20y%20z}]",
		"a/b; f*=utf-8''%20":                                  "a b [{f* utf-8''%20}]",
		"a/b; f*2=x":                                          "a b []",
		"text":                                                "  []",
		"/plain":                                              "  []",
		"":                                                    "  []",
		"text/":                                               "  []",
	} {
		typ, subtype, params := parseMediaType(in)
		if got := fmt.Sprintf("%s %s %v", typ, subtype, params); got != want {
			t.Errorf("%q: %s, want %s", in, got, want)
		}
	}
	if _, _, params := parseMediaType("a/b" + strings.Repeat(";x=y", 1000)); len(params) != maxParams {
		t.Errorf("%d parameters, want %d", len(params), maxParams)
	}
}

// Casemap examples: RFC 5051 §2 names title case and decomposition.
func TestCasemap(t *testing.T) {
	for in, want := range map[string]string{
		"hello WORLD 1": "HELLO WORLD 1",
		"ALREADY":       "ALREADY",
		"é":             "E\u0301",
		"ǆ":             "Dz\u030c", // U+01C6 has the title case U+01C5
		"ﬁ":             "fi",
		"가":             "\u1100\u1161",
		"привет":        "ПРИВЕТ",
		"\xff":          "\ufffd",
	} {
		if got := Casemap(in); got != want {
			t.Errorf("%q: %+q, want %+q", in, got, want)
		}
	}
}
