package imapwire

import (
	"bytes"
	"errors"
	"io"
	"regexp"
	"strings"
	"testing"
	"unicode/utf8"
)

var seeds = []string{
	"a1 NOOP\r\n",
	"a FETCH 1:*,5 (FLAGS BODY.PEEK[HEADER.FIELDS (From To)]<0.100> BINARY[1.2])\r\n",
	"a SEARCH RETURN (MIN MAX) CHARSET UTF-8 OR (FROM {3+}\r\nabc) NOT SINCE 1-Feb-2026 MODSEQ \"/flags/\\\\seen\" all 5\r\n",
	"a SORT RETURN (COUNT ALL) (REVERSE DATE SUBJECT DISPLAYFROM) UTF-8 SUBJECT {2+}\r\n\xc3\xa9 1:5\r\n",
	"a THREAD REFERENCES US-ASCII NOT DELETED\r\nb THREAD ORDEREDSUBJECT UTF-8 ALL\r\n",
	"a STORE 2,4:7 (UNCHANGEDSINCE 12) +FLAGS.SILENT (\\Deleted $Foo)\r\nb NOOP\r\n",
	"a APPEND \"Sent Items\" (\\Seen) \" 1-Feb-2026 13:05:09 +0130\" {5}\r\nabcde\r\n",
	"a APPEND x ~{4+}\r\na\x00b\r\r\nb LIST (SUBSCRIBED) \"\" (% a/*) RETURN (STATUS (MESSAGES))\r\n",
	"a LOGIN {4+}\r\nuser {6+}\r\nsecret\r\n",
	"a SELECT &U,BTFw-\r\n",
	"a X ((((((((((((((((((((((((((((((((((((((((((\r\nb Y {999999999+}\r\n",
	"a\rb\nc NO\x00OP\r\n",
	"+ \r\n* x\r\n",
	"a NOTIFY SET STATUS (selected (MessageNew (UID BODY.PEEK[HEADER.FIELDS (From)]) MessageExpunge)) (subtree (a {1+}\r\nb) (MailboxName))\r\nb NOTIFY NONE\r\n",
	"a ENABLE CONDSTORE\r\na SELECT INBOX (QRESYNC (1 2 3:5 (1,2 3,4)))\r\n",
}

// FuzzDecoder parses whatever comes as each kind of argument. It must never panic, never read past
// the bounds, and after each refused command find the next one or say that it is lost.
func FuzzDecoder(f *testing.F) {
	for i, s := range seeds {
		f.Add([]byte(s), uint8(i), uint8(i*37))
	}
	f.Fuzz(func(t *testing.T, in []byte, kind, step uint8) {
		lim := Limits{Line: 300, Literal: 100, Command: 1000, Discard: 2000, Nesting: 8, SetRanges: 50, SearchKeys: 20, FetchItems: 20, Flags: 10}
		d := NewDecoder(&steps{in: in, step: int(step%32) + 1}, lim, func() error { return nil })
		d.SetUTF8(kind&16 != 0)
		for range 50 {
			_, name, err := d.Begin()
			if err == nil {
				err = parseAny(t, d, name, kind)
			}
			if err != nil {
				var lost *Fatal
				if errors.As(err, &lost) {
					return
				}
				if err := d.Discard(); err != nil {
					if !errors.As(err, &lost) {
						t.Fatalf("Discard failed with %T: %v", err, err)
					}
					return
				}
			}
			d.Release()
			if d.Buffered() == 0 && d.in != nil {
				t.Fatal("an empty buffer is held")
			}
		}
	})
}

func parseAny(t *testing.T, d *Decoder, name string, kind uint8) error {
	if err := d.SP(); err != nil {
		return err
	}
	var err error
	switch {
	case name == "FETCH" || kind&15 == 1:
		if _, err = d.Set(); err == nil {
			if err = d.SP(); err == nil {
				_, err = d.FetchItems()
			}
		}
	case name == "SEARCH" || kind&15 == 2:
		_, err = d.Search()
	case name == "SORT" || kind&15 == 8:
		_, err = d.Sort()
	case name == "THREAD" || kind&15 == 9:
		_, err = d.Thread()
	case name == "NOTIFY" || kind&15 == 10:
		_, err = d.Notify()
	case name == "STORE" || kind&15 == 3:
		var set Set
		if set, err = d.Set(); err == nil {
			checkRanges(t, set.Resolve(77))
			if err = d.SP(); err == nil {
				_, err = d.StoreFlags()
			}
		}
	case name == "APPEND" || kind&15 == 4:
		if _, err = d.Mailbox(); err == nil {
			if err = d.SP(); err == nil {
				if _, _, err = d.OpenLiteral(500, nil); err == nil {
					if _, err = io.Copy(io.Discard, d.LiteralReader()); err == nil {
						err = d.CloseLiteral()
					}
				}
			}
		}
	case name == "LIST" || kind&15 == 5:
		var p string
		if p, err = d.ListPattern(); err == nil {
			MatchPattern(p, "INBOX/a/b", '/')
		}
	case kind&15 == 6:
		_, err = d.DateTime()
	case kind&15 == 7:
		_, err = d.FlagList()
	default:
		for err == nil && !d.AtEnd() {
			if err = d.SkipValue(); err == nil && !d.AtEnd() {
				err = d.SP()
			}
		}
	}
	if err == nil {
		err = d.End()
	}
	return err
}

func checkRanges(t *testing.T, ranges []Range) {
	for i, r := range ranges {
		if r.Lo > r.Hi || r.Lo == 0 || i > 0 && r.Lo <= ranges[i-1].Hi+1 {
			t.Fatalf("ranges are not normal: %v", ranges)
		}
	}
}

// steps hands out its bytes in pieces.
type steps struct {
	in   []byte
	step int
}

func (s *steps) Read(p []byte) (int, error) {
	if len(s.in) == 0 {
		return 0, io.EOF
	}
	n := copy(p[:min(len(p), s.step)], s.in)
	s.in = s.in[n:]
	return n, nil
}

// FuzzMailboxName: what decodes is valid UTF-8 and has one encoding only.
// FuzzCriteria takes whatever is stored as search keys.
func FuzzCriteria(f *testing.F) {
	for _, s := range []string{"OR SMALLER 5000 FROM \"boss@example.com\"", "FILTER x NOT (1:* UID 5)", "SUBJECT {3}", "OR SMALLER", "SUBJECT \"gr\u00fcn\"", ""} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		s, keys, err := ParseCriteria(text, Limits{SearchKeys: 20, Nesting: 8, SetRanges: 50})
		var syntax *SyntaxError
		if err != nil && !errors.As(err, &syntax) {
			t.Fatalf("%q: %T %v", text, err, err)
		}
		if err == nil && (len(s.Key.Kids) == 0 || keys == 0 || keys > 20) {
			t.Fatalf("%q: %d keys", text, keys)
		}
	})
}

func FuzzMailboxName(f *testing.F) {
	for _, s := range []string{"INBOX", "&-", "a&-b", "Entw&APw-rfe", "&U,BTFw-", "&2D3eAA-", "&", "&AAA-", "x&&-"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		name, err := DecodeUTF7(s)
		if err == nil {
			if !utf8.ValidString(name) {
				t.Fatalf("%q decodes to %q", s, name)
			}
			if back := string(AppendUTF7(nil, name)); back != s {
				t.Fatalf("%q decodes to %q, which encodes to %q", s, name, back)
			}
		}
		if utf8.ValidString(s) {
			coded := string(AppendUTF7(nil, s))
			if back, err := DecodeUTF7(coded); err != nil || back != s {
				t.Fatalf("%q encodes to %q, which decodes to %q (%v)", s, coded, back, err)
			}
		}
	})
}

// FuzzMatchPattern compares with a regular expression.
func FuzzMatchPattern(f *testing.F) {
	f.Add("*", "a/b")
	f.Add("%/x*", "a/xyz")
	f.Add("a%%*b", "acc/b")
	f.Fuzz(func(t *testing.T, pattern, name string) {
		if len(pattern) > 30 || len(name) > 60 || strings.ContainsAny(pattern+name, "\n") || !utf8.ValidString(pattern) || !utf8.ValidString(name) {
			return
		}
		if len(pattern) >= 5 && strings.EqualFold(pattern[:5], "inbox") {
			return // compared without regard to case
		}
		expr := regexp.QuoteMeta(pattern)
		expr = strings.ReplaceAll(strings.ReplaceAll(expr, `\*`, ".*"), "%", "[^/]*")
		want := regexp.MustCompile("^(?s:" + expr + ")$").MatchString(name)
		if got := MatchPattern(pattern, name, '/'); got != want {
			t.Fatalf("%q matches %q: %v, want %v", pattern, name, got, want)
		}
	})
}

// FuzzString: what the encoder writes, the decoder reads back.
func FuzzString(f *testing.F) {
	f.Add("plain", true)
	f.Add("a\"b\\c\r\n", false)
	f.Add("gr\u00fcn\xff", true)
	f.Fuzz(func(t *testing.T, s string, utf8ok bool) {
		if len(s) > 1<<15 || strings.IndexByte(s, 0) >= 0 {
			return
		}
		var out bytes.Buffer
		e := NewEncoder(&out)
		e.SetUTF8(utf8ok)
		e.Raw("a X ").String(s).SP().AString(s).CRLF()
		if err := e.Release(); err != nil {
			t.Fatal(err)
		}
		d := NewDecoder(&out, Limits{}, func() error { return nil })
		if _, _, err := d.Begin(); err != nil {
			t.Fatal(err)
		}
		d.SP()
		got, err := d.String()
		if err != nil || got != s {
			t.Fatalf("%q came back as %q (%v)", s, got, err)
		}
		d.SP()
		got, err = d.AString()
		if err == nil {
			err = d.End()
		}
		if err != nil || got != s {
			t.Fatalf("%q came back as %q (%v)", s, got, err)
		}
	})
}
