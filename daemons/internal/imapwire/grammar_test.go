package imapwire

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
)

func TestFetchItems(t *testing.T) {
	for _, c := range []struct{ in, want, err string }{
		{"FLAGS", "1", ""},
		{"all", "1 3 4 5", ""},
		{"FAST", "1 3 4", ""},
		{"full", "1 3 4 5 6", ""},
		{"(UID FLAGS uid)", "2 1", ""},
		{"BODY", "6", ""},
		{"(BODY BODYSTRUCTURE)", "6 7", ""},
		{"BODY[]", "8 BODY[]", ""},
		{"body.peek[]", "8 BODY[] peek", ""},
		{"BODY[HEADER]", "8 BODY[HEADER]", ""},
		{"BODY[1.2.MIME]", "8 BODY[1.2.MIME]", ""},
		{"BODY[4.TEXT]<10.20>", "8 BODY[4.TEXT]<10> 10+20", ""},
		{"BODY[]<0.4294967296>", "8 BODY[]<0> 0+4294967296", ""},
		{`BODY.PEEK[HEADER.FIELDS (Subject "From")]`, "8 BODY[HEADER.FIELDS (SUBJECT FROM)] peek", ""},
		{"BODY[1.HEADER.FIELDS.NOT ({4+}\r\nX-Ab)]", "8 BODY[1.HEADER.FIELDS.NOT (X-AB)]", ""},
		{"(BODY[] BODY.PEEK[] BODY[]<0.1> BODY[]<0.2>)", "8 BODY[] 8 BODY[] peek 8 BODY[]<0> 0+1 8 BODY[]<0> 0+2", ""},
		{"BINARY[1]", "13 BINARY[1]", ""},
		{"BINARY.PEEK[1.2]<0.5>", "13 BINARY[1.2]<0> peek 0+5", ""},
		{"BINARY.SIZE[1]", "14 BINARY.SIZE[1] peek", ""},
		{"(RFC822 RFC822.HEADER RFC822.TEXT RFC822.SIZE)", "9 10 11 4", ""},
		{"(MODSEQ EMAILID THREADID SAVEDATE)", "12 15 16 17", ""},
		{"(PREVIEW PREVIEW (LAZY))", "18", ""},
		{"PREVIEW (LAZY)", "18 lazy", ""},
		{"()", "", "empty list"},
		{"(ALL)", "", "unknown item"},
		{"BOGUS", "", "unknown item"},
		{"BODY[", "", "a section expected"},
		{"BODY[0]", "", "a section expected|unknown section"},
		{"BODY[1.]", "", "ends in '.'"},
		{"BODY[MIME]", "", "needs a part number"},
		{"BODY[1.FOO]", "", "unknown section"},
		{"BODY[]<5>", "", "'.' expected"},
		{"BODY[]<5.0>", "", "must not be 0"},
		{"BODY[HEADER.FIELDS ()]", "", "empty list of header fields"},
		{`BODY[HEADER.FIELDS ("a b")]`, "", "not the name"},
		{`BODY[HEADER.FIELDS ("a:")]`, "", "not the name"},
		{"BODY[" + strings.Repeat("1.", 150) + "1]", "", "levels deep"},
		{"BINARY[HEADER]", "", "part number"},
		{"BINARY.SIZE[1]<0.1>", "", "unexpected text"},
	} {
		d, _ := decode(t, "a FETCH "+c.in+"\r\n", Limits{})
		d.SP()
		items, err := d.FetchItems()
		if err == nil {
			err = d.End()
		}
		var got []string
		for _, it := range items {
			s := fmt.Sprint(it.Kind)
			if it.SectionTag != "" {
				s += " " + it.SectionTag
			}
			if it.Peek {
				s += " peek"
			}
			if it.Lazy {
				s += " lazy"
			}
			if it.Partial {
				s += fmt.Sprintf(" %d+%d", it.Offset, it.Length)
			}
			got = append(got, s)
		}
		ok := c.err == ""
		for _, text := range strings.Split(c.err, "|") {
			ok = ok || text != "" && says(err, text)
		}
		if !ok || c.err == "" && (err != nil || strings.Join(got, " ") != c.want) {
			t.Errorf("%s: %s, error %v", c.in, strings.Join(got, " "), err)
		}
	}
}

// show writes a tree of search keys.
func show(k *SearchKey) string {
	var kids []string
	for i := range k.Kids {
		kids = append(kids, show(&k.Kids[i]))
	}
	switch k.Op {
	case SearchAnd:
		return "(" + strings.Join(kids, " ") + ")"
	case SearchOr:
		return "(" + strings.Join(kids, "|") + ")"
	case SearchNot:
		return "!" + kids[0]
	case SearchAll:
		return "all"
	case SearchRecent:
		return "recent"
	case SearchSeq, SearchUID:
		if k.Set.Saved {
			return fmt.Sprintf("%d:$", k.Op)
		}
		return fmt.Sprintf("%d:%s", k.Op, AppendSet(nil, k.Set.Resolve(1000)))
	case SearchHeader:
		return fmt.Sprintf("%s~%q", k.Field, k.Str)
	}
	s := fmt.Sprint(k.Op)
	if k.Str != "" {
		s += k.Str
	}
	if k.Num > 0 {
		s += fmt.Sprint("#", k.Num)
	}
	if !k.Date.IsZero() {
		s += k.Date.Format("@20060102")
	}
	return s
}

func TestSearch(t *testing.T) {
	for _, c := range []struct{ in, want, err string }{
		{"ALL", "(all)", ""},
		{"1:3,7 unseen", `(5:1:3,7 !7\Seen)`, ""},
		{"UID 5:* DELETED", `(6:5:1000 7\Deleted)`, ""},
		{"$", "(5:$)", ""},
		{"UID $", "(6:$)", ""},
		{"OR SEEN NOT (FLAGGED DRAFT)", `((7\Seen|!(7\Flagged 7\Draft)))`, ""},
		{"NEW OLD", `((recent !7\Seen) !recent)`, ""},
		{"FROM alice SUBJECT \"two words\"", `(FROM~"alice" SUBJECT~"two words")`, ""},
		{"SUBJECT \"\" BODY \"\"", "(all all)", ""},
		{"HEADER X-Foo \"\"", `(X-Foo~"")`, ""},
		{"BODY {3+}\r\nabc TEXT x", "(10abc 11x)", ""},
		{"SINCE 1-Feb-2026 SENTON \"2-Mar-2025\"", "(14@20260201 16@20250302)", ""},
		{"LARGER 10 SMALLER 20 OLDER 5 YOUNGER 6", "(18#10 19#20 21#5 22#6)", ""},
		{"KEYWORD $Junk UNKEYWORD foo", "(7$Junk !7foo)", ""},
		{`KEYWORD \Seen`, `(7\Seen)`, ""},
		{"MODSEQ 17", "(20#17)", ""},
		{`MODSEQ "/flags/\\draft" all 620162338`, "(20#620162338)", ""},
		{"CHARSET UTF-8 TEXT gr\\", "", "unexpected text|a space"},
		{"charset us-ascii ALL", "(all)", ""},
		{"CHARSET KOI8-R ALL", "", "not supported"},
		{"RETURN () ALL", "(all)", ""},
		{"RETURN (MIN MAX COUNT SAVE) 1", "(5:1)", ""},
		{"RETURN (FOO) ALL", "", "unknown search result option"},
		{"EMAILID M1 THREADID T1", "(23M1 24T1)", ""},
		{"SAVEDBEFORE 1-Jan-2026 SAVEDATESUPPORTED", "(25@20260101 28)", ""},
		{"", "", "a search key expected"},
		{"()", "", "empty list"},
		{"(SEEN", "", "a space or ')' expected"},
		{"BOGUS", "", "unknown search key"},
		{"BOGUS arg", "", "unknown search key"},
		{"FROM", "", "a space and an argument"},
		{"OLDER 0", "", "above 0"},
		{"OR SEEN", "", "a space"},
		{"SINCE yesterday", "", "not a date"},
		{"NOT", "", "a space"},
	} {
		d, _ := decode(t, "a SEARCH "+c.in+"\r\n", Limits{})
		d.SP()
		s, err := d.Search()
		if err == nil {
			err = d.End()
		}
		ok := c.err == ""
		for _, text := range strings.Split(c.err, "|") {
			ok = ok || text != "" && says(err, text)
		}
		if !ok || c.err == "" && (err != nil || show(&s.Key) != c.want) {
			got := ""
			if s != nil {
				got = show(&s.Key)
			}
			t.Errorf("%s: %s, error %v", c.in, got, err)
		}
	}
}

func TestMailboxNames(t *testing.T) {
	for _, c := range []struct{ wire, name string }{
		{"INBOX", "INBOX"},
		{"inbox", "INBOX"},
		{"Inbox/Sub", "INBOX/Sub"},
		{"Inboxes", "Inboxes"},
		{`"a b"`, "a b"},
		{"&-", "&"},
		{"a&-b", "a&b"},
		{"Entw&APw-rfe", "Entw\u00fcrfe"},
		{`"~peter/mail/&U,BTFw-/&ZeVnLIqe-"`, "~peter/mail/\u53f0\u5317/\u65e5\u672c\u8a9e"},
		{"&2D3eAA-", "\U0001f600"},
	} {
		d, _ := decode(t, "a X "+c.wire+"\r\n", Limits{})
		d.SP()
		name, err := d.Mailbox()
		if err != nil || name != c.name {
			t.Errorf("%s: %q, %v", c.wire, name, err)
		}
		coded := string(AppendUTF7(nil, c.name))
		if back, err := DecodeUTF7(coded); err != nil || back != c.name {
			t.Errorf("%q: coded %q, back %q, %v", c.name, coded, back, err)
		}
	}
	for _, bad := range []string{"&", "&Jjo", "&AAA", "&Jjo!-", "a&AGE-", "&2D0-", "&3gA-", "&APw-&APw-", "\"\u00fc\"", "&AP=-", "&A-"} {
		d, _ := decode(t, "a X "+bad+"\r\n", Limits{})
		d.SP()
		if name, err := d.Mailbox(); err == nil {
			t.Errorf("%s was taken as %q", bad, name)
		}
	}
	d, _ := decode(t, "a X \"Entw\u00fcrfe & mehr\"\r\n", Limits{})
	d.SetUTF8(true)
	d.SP()
	if name, err := d.Mailbox(); err != nil || name != "Entw\u00fcrfe & mehr" {
		t.Errorf("UTF-8 name: %q, %v", name, err)
	}
}

func TestMatchPattern(t *testing.T) {
	for _, c := range []struct {
		pattern, name string
		want          bool
	}{
		{"*", "a/b/c", true}, {"%", "a/b", false}, {"%", "a", true}, {"", "", true}, {"", "a", false},
		{"a/%", "a/b", true}, {"a/%", "a/b/c", false}, {"a/%", "a", false}, {"a*", "a/b/c", true},
		{"%/%", "a/b", true}, {"*c", "a/b/c", true}, {"a%c", "abc", true}, {"a%c", "a/c", false},
		{"inbox", "INBOX", true}, {"InBox/*", "INBOX/x", true}, {"inbo%", "INBOX", false},
		{"**a**", "a", true}, {"%%%%%%%%%%%%%%%%%%%%%%%%%%%%b", strings.Repeat("a", 500), false},
	} {
		if got := MatchPattern(c.pattern, c.name, '/'); got != c.want {
			t.Errorf("%q matches %q: %v", c.pattern, c.name, got)
		}
	}
}

func TestEncoder(t *testing.T) {
	for _, c := range []struct {
		write func(e *Encoder)
		utf8  bool
		want  string
	}{
		{func(e *Encoder) { e.String(`a"b\c`) }, false, `"a\"b\\c"`},
		{func(e *Encoder) { e.String("a\r\nb") }, false, "{4}\r\na\r\nb"},
		{func(e *Encoder) { e.String("gr\u00fcn") }, false, "{5}\r\ngr\u00fcn"},
		{func(e *Encoder) { e.String("gr\u00fcn") }, true, "\"gr\u00fcn\""},
		{func(e *Encoder) { e.String("gr\xfcn") }, true, "{4}\r\ngr\xfcn"},
		{func(e *Encoder) { e.NString("", false) }, false, "NIL"},
		{func(e *Encoder) { e.NString("", true) }, false, `""`},
		{func(e *Encoder) { e.AString("NIL") }, false, `"NIL"`},
		{func(e *Encoder) { e.AString("a.b") }, false, "a.b"},
		{func(e *Encoder) { e.Mailbox("Entw\u00fcrfe & x") }, false, `"Entw&APw-rfe &- x"`},
		{func(e *Encoder) { e.Mailbox("Entw\u00fcrfe & x") }, true, "\"Entw\u00fcrfe & x\""},
		{func(e *Encoder) { e.LiteralHeader(3, true).Raw("abc") }, false, "~{3}\r\nabc"},
		{func(e *Encoder) { e.Set([]Range{{1, 1}, {3, 9}}) }, false, "1,3:9"},
	} {
		var out bytes.Buffer
		e := NewEncoder(&out)
		e.SetUTF8(c.utf8)
		c.write(e)
		if err := e.Flush(); err != nil || out.String() != c.want {
			t.Errorf("wrote %q, want %q (%v)", out.String(), c.want, err)
		}
	}
}

func TestStream(t *testing.T) {
	text := strings.Repeat("0123456789abcdef", 10000)
	var out bytes.Buffer
	e := NewEncoder(&out)
	e.Raw("* 1 FETCH (BODY[] ").LiteralHeader(int64(len(text)), false).Stream(strings.NewReader(text), int64(len(text))).Raw(")\r\n")
	if err := e.Release(); err != nil {
		t.Fatal(err)
	}
	if want := fmt.Sprintf("* 1 FETCH (BODY[] {%d}\r\n%s)\r\n", len(text), text); out.String() != want {
		t.Error("streamed text is not what was given")
	}

	e = NewEncoder(io.Discard)
	e.Stream(strings.NewReader("short"), 10)
	var lost *Fatal
	if err := e.Flush(); !errors.As(err, &lost) {
		t.Errorf("a text that ends early gives %v", err)
	}

	// A large set is written in pieces and stays one set.
	var ranges []Range
	for i := uint32(0); i < 5000; i++ {
		ranges = append(ranges, Range{4000000000 + 3*i, 4000000001 + 3*i})
	}
	out.Reset()
	e = NewEncoder(&out)
	e.Set(ranges).Flush()
	if out.String() != string(AppendSet(nil, ranges)) {
		t.Error("a large set is not written whole")
	}
}
