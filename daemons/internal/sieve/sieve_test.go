package sieve

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"shoal/daemons/internal/mailaddr"
)

// host is an account with a few mailboxes.
type host struct{ seen map[string]bool }

var mailboxes = map[string]string{"INBOX": "", "Junk": `\Junk`, "Archive": `\Archive`, "work": ""} // special use by name

func (host) MailboxExists(_ context.Context, name string) (bool, error) {
	_, ok := mailboxes[name]
	return ok, nil
}

func (host) MailboxIDExists(_ context.Context, id string) (bool, error) { return id == "F1", nil }

func (host) SpecialUse(_ context.Context, name string, uses []string) (bool, error) {
	for _, use := range uses {
		ok := false
		for n, u := range mailboxes {
			ok = ok || strings.EqualFold(u, use) && (name == "" || name == n)
		}
		if !ok {
			return false, nil
		}
	}
	return true, nil
}

func (h host) Claim(_ context.Context, key string) (bool, error) { return h.seen[key], nil }

const plainMail = `Received: from a.test by b.test; Mon, 16 Nov 2026 23:30:00 -0500
From: "Ann Lee" <ann+news@example.com>
To: Bob <bob@shoal.test>, carol@shoal.test
Cc: dave@other.test
Subject: =?utf-8?q?Gr=C3=BC=C3=9Fe?= from the  sea
Date: Tue, 17 Nov 2026 12:05:09 +0100
Message-ID: <m1@example.com>
X-Count: 12
X-Tag: one
X-Tag: two
Content-Type: multipart/mixed; boundary="xx"

prologue
--xx
Content-Type: text/plain; charset=utf-8
Content-Transfer-Encoding: quoted-printable

Hello s=C3=B6a.
--xx
Content-Type: application/pdf; name="fish.pdf"
Content-Disposition: attachment; filename="fish.pdf"
Content-Transfer-Encoding: base64

JVBERi0xLjQK
--xx
Content-Type: message/rfc822

Subject: inner
Content-Type: text/html

<p>Inner text</p>
--xx--
`

func crlf(s string) string { return strings.ReplaceAll(s, "\n", "\r\n") }

func address(t testing.TB, v string) mailaddr.Address {
	t.Helper()
	if v == "" {
		return mailaddr.Address{}
	}
	a, err := mailaddr.Parse(v)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func env(t testing.TB, mail string) *Env {
	mail = crlf(mail)
	return &Env{
		Message: strings.NewReader(mail), Size: int64(len(mail)),
		From: address(t, "ann+news@example.com"), To: address(t, "bob+lists@shoal.test"),
		Owner: address(t, "bob@shoal.test"), Separators: "+", Spam: -1,
		Now:         time.Date(2026, 11, 17, 22, 4, 5, 0, time.UTC),
		Host:        host{map[string]bool{}},
		Environment: map[string]string{"host": "box1", "domain": "shoal.test", "version": "1", "remote-ip": "192.0.2.1", "remote-host": "mx.example.org"},
	}
}

// describe writes an Outcome as the cases have it.
func describe(o *Outcome) string {
	var out []string
	edited := func(e *Edited) string {
		if e == nil {
			return ""
		}
		return " edited"
	}
	place := func(p Place) string {
		s := p.Mailbox
		if s == "" {
			s = "INBOX"
		}
		if p.SpecialUse != "" {
			s += " use " + p.SpecialUse
		}
		if p.MailboxID != "" {
			s += " id " + p.MailboxID
		}
		if p.Create {
			s += " create"
		}
		return s
	}
	for _, a := range o.Actions {
		switch a := a.(type) {
		case *FileInto:
			s := "store " + place(a.Place) + edited(a.Edited)
			if len(a.Flags) > 0 {
				s += " " + fmt.Sprint(a.Flags)
			}
			out = append(out, s)
		case *Redirect:
			out = append(out, "redirect "+a.To.String()+edited(a.Edited))
		case *Reject:
			out = append(out, fmt.Sprintf("reject %v %q", a.Protocol, a.Reason))
		case *Vacation:
			s := fmt.Sprintf("vacation %s %q %q %v", a.To, a.Subject, a.Reason, a.Interval)
			if a.FCC != nil {
				s += " fcc " + place(a.FCC.Place)
			}
			out = append(out, s)
		case *Notify:
			out = append(out, fmt.Sprintf("notify %v %d %q %v", a.To, a.Importance, a.Message, a.Fields))
		}
	}
	return strings.Join(out, "; ")
}

func compile(t testing.TB, src string) *Script {
	t.Helper()
	s, err := Compile([]byte(src), Options{})
	if err != nil {
		t.Fatalf("%v\n%s", err, src)
	}
	return s
}

func TestScripts(t *testing.T) {
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			mail := c.mail
			if mail == "" {
				mail = plainMail
			}
			o, err := Run(t.Context(), env(t, mail), compile(t, c.script))
			if c.fails != "" {
				if err == nil || !strings.Contains(err.Error(), c.fails) {
					t.Errorf("error %v, want %q", err, c.fails)
				}
			} else if err != nil {
				t.Error(err)
			}
			if got := describe(o); got != c.want {
				t.Errorf("got  %s\nwant %s", got, c.want)
			}
		})
	}
}

func TestMistakes(t *testing.T) {
	for script, want := range map[string]string{
		`keep`:                                   "line 1, column 5: expected \";\" behind the command keep, found the end",
		"keep;\nfilinto \"x\";":                  "line 2, column 1: unknown command \"filinto\": did you mean fileinto?",
		`fileinto "x";`:                          `fileinto needs: require "fileinto"`,
		`require "fileinto"; fileinto;`:          "fileinto lacks an argument: a string is expected",
		`require "fileinto"; fileinto "a" "b";`:  "line 1, column 34: fileinto has an argument too many",
		`require "fileinto"; fileinto ["a"];`:    "the argument of fileinto must be a string, not a string or a list",
		`require "nope";`:                        `line 1, column 9: the extension "nope" is not supported here`,
		`keep; require "copy";`:                  "require must stand before",
		`if true keep;`:                          "if needs a block",
		`if true { keep; } else keep;`:           "else needs a block",
		`else { keep; }`:                         "else must follow",
		`if not true, false {}`:                  "expected \";\" behind the command if",
		`if anyof true {}`:                       "anyof takes a list of tests",
		`if (true) {}`:                           "if takes exactly one test",
		`true;`:                                  "true is a test",
		`if keep {}`:                             "keep is a command, not a test",
		`if header :is :contains "a" "b" {}`:     ":contains cannot stand together with :is",
		`if header :comparator "i;x" "a" "b" {}`: `there is no comparator "i;x"`,
		`if header :comparator "i;ascii-numeric" "a" "b" {}`:                                                  `needs: require "comparator-i;ascii-numeric"`,
		`if header :count "gt" "a" "1" {}`:                                                                    `:count needs: require "relational"`,
		`require "relational"; if header :count "xx" "a" "1" {}`:                                              "must be one of gt, ge",
		`if header :comparator "i;ascii-casemap" :comparator "i;octet" "a" "b" {}`:                            "given twice",
		`require ["comparator-i;ascii-numeric"]; if header :comparator "i;ascii-numeric" :matches "a" "b" {}`: "knows no parts",
		`if size 10 {}`:                         "argument too many",
		`if size {}`:                            "size needs :over or :under",
		`if size :over {}`:                      ":over must be followed by a number",
		`if size :over 99999999999999999999 {}`: "too large",
		`if size :over 10x {}`:                  "K, M or G",
		`redirect "nobody";`:                    "is not one mail address",
		`keep "x`:                               "has no end",
		"keep text:\nabc\n":                     "has no end",
		`/* keep;`:                              "the comment has no end",
		"keep \x01;":                            "cannot stand here",
		"keep \"\xff\";":                        "not valid UTF-8",
		"keep \"\x00\";":                        "NUL",
		`require "encoded-character"; redirect "${unicode:D800}";`:                                       "no character U+D800",
		`require ["variables"]; set "a.b" "";`:                                                           "no namespace",
		`require ["variables"]; set "1" "";`:                                                             "no name of a variable",
		`require ["variables"]; set :lower :upper "a" "";`:                                               "cannot stand together",
		`require "envelope"; if envelope "sender" "x" {}`:                                                `no "sender"`,
		`require "date"; if currentdate "yeer" "2026" {}`:                                                "did you mean year",
		`require "date"; if currentdate :zone "CET" "year" "2026" {}`:                                    "such as \"+0100\"",
		`require "index"; if header :last "a" "b" {}`:                                                    "needs it",
		`require "index"; if header :index 0 "a" "b" {}`:                                                 "count from 1",
		`require "foreverypart"; break;`:                                                                 "break stands in no foreverypart",
		`require ["foreverypart","extracttext"]; foreverypart { extracttext "a"; }`:                      "extracttext needs",
		`require "enotify"; notify "xmpp:a@b";`:                                                          "only mailto: is supported",
		`require "enotify"; notify "mailto:%zz";`:                                                        "hex digits",
		`require "enotify"; notify :importance "5" "mailto:a@b.test";`:                                   "the importance is",
		`require "vacation"; vacation :seconds 5 "x";`:                                                   `:seconds needs: require "vacation-seconds"`,
		`require ["vacation","mailbox"]; vacation :create "x";`:                                          ":create needs :fcc here",
		`require ["include","variables"]; set "a" ""; global "a";`:                                       "is a variable of this script already",
		`require ["include","variables"]; if header :matches "a" "*" { set "B" ""; } global ["a", "b"];`: `"b" is a variable`,
		`require "imap4flags"; addflag "v" "x";`:                                                         `needs: require "variables"`,
		`require "fileinto"; fileinto "";`:                                                               "1 to 1000 bytes",
		`require ["fileinto","fileinto"]; stop "x";`:                                                     "none is expected",
		strings.Repeat("if true {", 40) + strings.Repeat("}", 40):                                        "too deeply nested",
		`if ` + strings.Repeat("not ", 100) + `true {}`:                                                  "too deeply nested",
		`keep; ]`: "cannot stand here",
		`require ["include","variables"]; include "${x}";`: "cannot hold variables",
		`if true {} elsif {}`:                              "elsif takes exactly one test",
		`keep {}`:                                          "keep takes no block",
		`keep true;`:                                       "keep takes no test",
		`keep :foo;`:                                       "keep has no tag :foo",
		`keep [];`:                                         "expected a string in the list",
		`keep ["a" "b"];`:                                  "between the strings",
		`keep :;`:                                          "a tag must have a name",
		`if header "a" ["b", 3] {}`:                        "expected a string in the list",
		`require "ihave"; if ihave "nope" { nonsense; } else { nonsense; }`: "column 55: unknown command",
	} {
		_, err := Compile([]byte(script), Options{})
		var list Errors
		if !errors.As(err, &list) || !strings.Contains(list.Error(), want) {
			t.Errorf("%s\n  got  %v\n  want %s", script, err, want)
		}
	}
	_, err := Compile([]byte("keep;\nfoo;\r\n bar; discard \"é\"; x;"), Options{Name: "main"})
	var list Errors
	if !errors.As(err, &list) || len(list) != 4 || list[1].Line != 3 || list[1].Column != 2 || list[3].Column != 20 || !strings.HasPrefix(list[3].Error(), "main: line 3") {
		t.Errorf("%v", []*Error(list))
	}
	compile(t, `require ["include","variables"]; global "a"; set "a" ""; global "a";`)
	if _, err := Compile(make([]byte, 100), Options{MaxBytes: 99}); err == nil {
		t.Error("a large script compiles")
	}
	if _, err := Compile([]byte(`require "vacation";`), Options{Without: []string{"vacation"}}); err == nil {
		t.Error("an extension that is switched off can be required")
	}
}

// Patterns take time in proportion to what they are charged for.
func TestGlob(t *testing.T) {
	for _, c := range []struct {
		pattern, value string
		want           []string
	}{
		{"*", "", []string{"", ""}},
		{"", "", []string{""}},
		{"", "a", nil},
		{"a*b", "axxb", []string{"axxb", "xx"}},
		{"*-*", "a-b-c", []string{"a-b-c", "a", "b-c"}},
		{"*.?", "x.y.z", []string{"x.y.z", "x.y", "z"}},
		{"?é*", "aéü", []string{"aéü", "a", "ü"}},
		{`\*\?\\`, `*?\`, []string{`*?\`}},
		{`\*`, "x", nil},
		{"A*", "abc", []string{"abc", "bc"}},
		{"**a", "ba", []string{"ba", "", "b"}},
		{"a?", "a", nil},
		{"*ab", "aab", []string{"aab", "a"}},
		{`a\`, `a\`, []string{`a\`}},
	} {
		got, ok := glob(c.pattern, c.value, true)
		if ok != (c.want != nil) || !slices.Equal(got, c.want) {
			t.Errorf("%q on %q: %q %v", c.pattern, c.value, got, ok)
		}
	}
	if _, ok := glob("A*", "abc", false); ok {
		t.Error("letters of another case match octets")
	}
}

// Scripts run one after the other as long as the message is kept; flags, edits and global variables go on.
func TestChain(t *testing.T) {
	before := `require ["imap4flags","editheader","variables","include"]; global "x"; set "x" "from before"; addflag "\\Seen"; addheader "X-Before" "1";`
	for _, c := range []struct{ personal, after, want string }{
		{`keep;`, `keep;`, `store INBOX edited [\Seen]`},
		{`discard;`, `redirect "x@y.test";`, ``},
		{`require "fileinto"; fileinto "work";`, `keep;`, `store work edited`},
		{`require ["fileinto","copy"]; fileinto :copy "work";`, `discard;`, `store work edited`},
		{`require ["variables","include"]; global "x"; if string "${x}" "from before" { discard; }`, `keep;`, ``},
		{`if exists "X-Before" { discard; }`, `keep;`, ``},
	} {
		o, err := Run(t.Context(), env(t, plainMail), compile(t, before), compile(t, c.personal), compile(t, c.after))
		if err != nil {
			t.Error(err)
		}
		got := strings.ReplaceAll(describe(o), " [\\Seen]", "")
		if want := strings.ReplaceAll(c.want, " [\\Seen]", ""); got != want {
			t.Errorf("%s %s: got %s", c.personal, c.after, describe(o))
		}
	}
	if o, err := Run(t.Context(), env(t, plainMail)); err != nil || describe(o) != "store INBOX" {
		t.Errorf("no script: %s %v", describe(o), err)
	}
}

func TestInclude(t *testing.T) {
	scripts := map[string]string{
		"p flags": `require ["imap4flags","include","variables"]; global "who"; addflag "\\Flagged"; set "who" "flags"; return; discard;`,
		"p stop":  `stop;`,
		"g spam":  `require ["fileinto","variables"]; set "own" "x"; fileinto "Junk"; stop;`,
		"p bad":   `require "fileinto"; redirect "a@b.test"; nonsense;`,
		"p a":     `require "include"; include "b";`,
		"p b":     `require "include"; include "a";`,
	}
	for _, c := range []struct{ script, want, fails string }{
		{`include "flags"; fileinto "${global.who}";`, `store flags [\Flagged]`, ""},
		{`include :once "flags"; removeflag "\\Flagged"; include :once "flags";`, `store INBOX`, ""},
		{`include :global "spam"; keep;`, `store Junk`, ""},
		{`include "spam";`, `store INBOX`, "no such script"},
		{`include :optional "spam"; fileinto "work";`, `store work`, ""},
		{`include "bad"; discard;`, `store INBOX`, "unknown command"},
		{`include "a";`, `store INBOX`, "includes itself"},
	} {
		e := env(t, plainMail)
		e.Load = func(_ context.Context, name string, global bool) (*Script, error) {
			src, ok := scripts[map[bool]string{true: "g ", false: "p "}[global]+name]
			if !ok {
				return nil, fmt.Errorf("%q: %w", name, ErrNoScript)
			}
			return Compile([]byte(src), Options{Name: name})
		}
		o, err := Run(t.Context(), e, compile(t, `require ["include","fileinto","variables","imap4flags"]; `+c.script))
		if describe(o) != c.want || (err == nil) != (c.fails == "") || err != nil && !strings.Contains(err.Error(), c.fails) {
			t.Errorf("%s: %s, %v", c.script, describe(o), err)
		}
	}
}

// What was seen counts only when it has been recorded after the actions.
func TestDuplicate(t *testing.T) {
	s := compile(t, `require "duplicate"; if duplicate :handle "x" :seconds 60 { discard; }`)
	e := env(t, plainMail)
	h := host{map[string]bool{}}
	e.Host = h
	o, err := Run(t.Context(), e, s)
	if err != nil || describe(o) != "store INBOX" || len(o.Marks) != 1 || o.Marks[0].Lifetime != time.Minute {
		t.Fatalf("%s %v %v", describe(o), o.Marks, err)
	}
	h.seen[o.Marks[0].Key] = true
	o, err = Run(t.Context(), e, s)
	if err != nil || len(o.Actions) != 0 || len(o.Marks) != 0 {
		t.Errorf("%s %v %v", describe(o), o.Marks, err)
	}
	last := compile(t, `require "duplicate"; if duplicate :last :handle "x" { discard; }`)
	if o, err = Run(t.Context(), e, last); err != nil || len(o.Marks) != 1 {
		t.Errorf("%v %v", o.Marks, err)
	}
	other := compile(t, `require "duplicate"; if duplicate :header "X-Nothing" { discard; } if duplicate :uniqueid "<m1@example.com>" { discard; }`)
	if o, err = Run(t.Context(), e, other); err != nil || describe(o) != "store INBOX" || len(o.Marks) != 1 {
		t.Errorf("%s %v %v", describe(o), o.Marks, err)
	}
}

// Each action takes the header as it was when the script asked for it.
func TestEditedHeaders(t *testing.T) {
	s := compile(t, `require ["editheader","fileinto","copy"];
fileinto :copy "plain"; addheader "X-One" "first and a long value that has to be folded somewhere because it is longer than a line";
fileinto :copy "one"; addheader :last "X-Last" "grün"; deleteheader "Received"; deleteheader :index 2 "X-Tag"; deleteheader :contains "subject" "SEA";`)
	o, err := Run(t.Context(), env(t, plainMail), s)
	if err != nil {
		t.Fatal(err)
	}
	if got := describe(o); got != "store plain; store one edited; store INBOX edited" {
		t.Fatal(got)
	}
	one := string(o.Actions[1].(*FileInto).Edited.Header)
	if !strings.HasPrefix(one, "X-One: first and a long value that has to be folded somewhere because it is\r\n longer than a line\r\nReceived: ") || strings.Contains(one, "X-Last") {
		t.Errorf("%q", one)
	}
	e := o.Actions[2].(*FileInto).Edited
	last := string(e.Header)
	if !strings.HasSuffix(last, "\r\nX-Last: =?utf-8?q?gr=C3=BCn?=\r\n\r\n") || !strings.Contains(last, "\r\nReceived: ") ||
		!strings.Contains(last, "X-Tag: one\r\nContent-Type") || strings.Contains(last, "Subject:") {
		t.Errorf("%q", last)
	}
	if mail := crlf(plainMail); !strings.HasPrefix(mail[e.BodyOffset:], "prologue") {
		t.Errorf("the body begins with %q", mail[e.BodyOffset:][:10])
	}
	if o.Notes[0] != "deleteheader: the field Received stays" {
		t.Errorf("%q", o.Notes)
	}
}

func TestVacationIsRefused(t *testing.T) {
	s := compile(t, `require "vacation"; vacation :addresses "old@shoal.test" "away";`)
	ok := "From: x@y.test\nTo: bob@shoal.test\n"
	for mail, want := range map[string]string{
		ok:                                         "",
		"To: OLD@shoal.test\n":                     "",
		"To: bob+any@shoal.test\n":                 "",
		"Resent-To: Bob <bob@shoal.test>\n":        "",
		"To: other@shoal.test\n":                   "not addressed",
		ok + "List-Id: <x>\n":                      "a list",
		ok + "Auto-Submitted: auto-replied\n":      "a program",
		ok + "Auto-Submitted: no\n":                "",
		ok + "Precedence: Bulk\n":                  "bulk mail",
		ok + "X-Auto-Response-Suppress: OOF, DR\n": "no automatic",
	} {
		o, err := Run(t.Context(), env(t, mail+"\nx\n"), s)
		if err != nil {
			t.Error(err)
		}
		switch _, sent := o.Actions[0].(*Vacation); {
		case want == "" && !sent:
			t.Errorf("%q: not answered: %q", mail, o.Notes)
		case want != "" && (sent || !strings.Contains(o.Notes[0], want)):
			t.Errorf("%q: %v %q", mail, sent, o.Notes)
		}
	}
	for _, from := range []string{"", "MAILER-DAEMON@y.test", "owner-x@y.test", "x-request@y.test", "bob@shoal.test", "old@shoal.test"} {
		e := env(t, ok+"\nx\n")
		e.From = address(t, from)
		if o, err := Run(t.Context(), e, s); err != nil || describe(o) != "store INBOX" {
			t.Errorf("%q: %s %v", from, describe(o), err)
		}
	}
}

// The run goes on until its context ends.
func TestRunEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	o, err := Run(ctx, env(t, plainMail), compile(t, "discard;"))
	if !errors.Is(err, context.Canceled) || describe(o) != "store INBOX" {
		t.Errorf("%s %v", describe(o), err)
	}
}

func FuzzCompile(f *testing.F) {
	for _, c := range cases {
		f.Add([]byte(c.script), []byte(plainMail))
	}
	f.Fuzz(func(t *testing.T, src, mail []byte) {
		s, err := Compile(src, Options{MaxBytes: 16 << 10})
		if err != nil {
			var list Errors
			if !errors.As(err, &list) || len(list) == 0 || list[0].Line < 1 || list[0].Column < 1 {
				t.Fatalf("%v", err)
			}
			return
		}
		e := env(t, string(mail))
		e.Load = func(context.Context, string, bool) (*Script, error) { return s, nil }
		o, err := Run(t.Context(), e, s)
		if o == nil || err != nil && describe(o) != "store INBOX" {
			t.Fatalf("%v: %v", err, o)
		}
	})
}

func BenchmarkTwentyRules(b *testing.B) {
	src := `require ["fileinto","imap4flags","copy"];` + "\n"
	for i := range 19 {
		src += fmt.Sprintf("if allof (header :contains \"Subject\" \"list%d\", address :domain \"From\" \"d%d.test\") { fileinto \"f%d\"; stop; }\n", i, i, i)
	}
	src += `if header :matches "Subject" "*sea*" { addflag "\\Seen"; fileinto "work"; }`
	s, e := compile(b, src), env(b, plainMail)
	e.Message = strings.NewReader(crlf(plainMail + strings.Repeat("x", 3000)))
	b.ReportAllocs()
	for b.Loop() {
		if o, err := Run(b.Context(), e, s); err != nil || len(o.Actions) != 1 {
			b.Fatal(err)
		}
	}
}
