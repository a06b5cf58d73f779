package imapwire

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math"
	"strings"
	"testing"
	"testing/iotest"
)

// decode returns a decoder that stands behind the name of the command in input, and what it asked for.
func decode(t *testing.T, input string, lim Limits) (*Decoder, *int) {
	t.Helper()
	asked := new(int)
	d := NewDecoder(strings.NewReader(input), lim, func() error { *asked++; return nil })
	if _, _, err := d.Begin(); err != nil {
		t.Fatalf("Begin of %q: %v", input, err)
	}
	return d, asked
}

func TestBegin(t *testing.T) {
	long := strings.Repeat("x", 200)
	for _, c := range []struct {
		in, tag, name, err string
	}{
		{"a1 NOOP\r\n", "a1", "NOOP", ""},
		{"A.2 noop\r\n", "A.2", "NOOP", ""},
		{"a] fetch 1 ALL\r\n", "a]", "FETCH", ""},
		{"\r\n", "", "", "does not begin with a tag"},
		{"a1\r\n", "a1", "", "no command after the tag"},
		{"a1 \r\n", "a1", "", "no command after the tag"},
		{"+ NOOP\r\n", "", "", "does not begin with a tag"},
		{"a+b NOOP\r\n", "", "", "does not begin with a tag"},
		{"\"a\" NOOP\r\n", "", "", "does not begin with a tag"},
		{"a1 NOOP\n", "a1", "", "bare LF"},
		{"a1 NO\rOP\r\n", "a1", "", "bare CR"},
		{"a1 NO\x00OP\r\n", "a1", "", "NUL"},
		{"a1 (\r\n", "a1", "", "no command after the tag"},
		{"a1 " + strings.Repeat("N", 40) + "\r\n", "a1", "", "unknown command"},
		{long + " NOOP\r\n", "", "", "does not begin with a tag"},
	} {
		d := NewDecoder(strings.NewReader(c.in), Limits{}, nil)
		tag, name, err := d.Begin()
		if tag != c.tag || name != c.name || !says(err, c.err) {
			t.Errorf("Begin of %q: tag %q, name %q, error %v", c.in, tag, name, err)
		}
	}
}

func says(err error, text string) bool {
	if text == "" {
		return err == nil
	}
	return err != nil && strings.Contains(err.Error(), text)
}

func TestStrings(t *testing.T) {
	for _, c := range []struct {
		in, want, err string
		asked         int
	}{
		{"atom", "atom", "", 0},
		{"a]b", "a]b", "", 0},
		{`"quoted \"x\" \\"`, `quoted "x" \`, "", 0},
		{`""`, "", "", 0},
		{"\"gr\u00fcn\"", "gr\u00fcn", "", 0},
		{"{5}\r\nab\r\nc", "ab\r\nc", "", 1},
		{"{0}\r\n", "", "", 1},
		{"{3+}\r\nabc", "abc", "", 0},
		{"~{3+}\r\na\x00c", "a\x00c", "", 0},
		{"{3+}\r\na\x00c", "", "NUL in a literal", 0},
		{`"open`, "", "without its end", 0},
		{`"bad \n escape"`, "", "may be escaped", 0},
		{"\"\xff\"", "", "not UTF-8", 0},
		{"{5", "", "malformed literal", 0},
		{"{}\r\n", "", "malformed literal", 0},
		{"{1x}\r\n", "", "malformed literal", 0},
		{"{+}\r\n", "", "malformed literal", 0},
		{"{99999999999999999999}\r\n", "", "malformed literal", 0},
		{"{9223372036854775808}\r\n", "", "malformed literal", 0},
		{"(", "", "an atom or a string expected", 0},
		{"", "", "at the end of the line", 0},
		{"%", "", "an atom or a string expected", 0},
	} {
		d, asked := decode(t, "a X "+c.in+"\r\n", Limits{})
		if err := d.SP(); err != nil {
			t.Fatalf("%q: %v", c.in, err)
		}
		got, err := d.AString()
		if err == nil {
			err = d.End()
		}
		if !says(err, c.err) || c.err == "" && got != c.want || *asked != c.asked {
			t.Errorf("%q: got %q, error %v, asked %d times", c.in, got, err, *asked)
		}
	}
}

// Tokens of earlier lines stay what they were while later lines and literals are read, whatever the
// size of the reads.
func TestTokensStayValid(t *testing.T) {
	var in strings.Builder
	var want []string
	in.WriteString("a X")
	for i := range 60 {
		s := strings.Repeat(string(rune('a'+i%26)), 100+i)
		want = append(want, s)
		fmt.Fprintf(&in, " {%d+}\r\n%s \"q%s\"", len(s), s, s)
	}
	in.WriteString("\r\n")
	for name, r := range map[string]io.Reader{
		"whole": strings.NewReader(in.String()), "bytes": iotest.OneByteReader(strings.NewReader(in.String())),
	} {
		d := NewDecoder(r, Limits{}, nil)
		if _, _, err := d.Begin(); err != nil {
			t.Fatal(err)
		}
		var got [][]byte
		for range want {
			for range 2 {
				if err := d.SP(); err != nil {
					t.Fatal(err)
				}
				b, err := d.astringBytes()
				if err != nil {
					t.Fatal(err)
				}
				got = append(got, b)
			}
		}
		for i, w := range want {
			if string(got[2*i]) != w || string(got[2*i+1]) != "q"+w {
				t.Fatalf("%s: token %d changed after it was read", name, i)
			}
		}
	}
}

// After each kind of error the next command is found.
func TestDiscard(t *testing.T) {
	lim := Limits{Line: 1000, Literal: 100, Command: 3000, Discard: 5000}
	for name, in := range map[string]string{
		"syntax":                   "a X (((\r\n",
		"literal not waited for":   "a X ( {10+}\r\n0123456789 {3+}\r\nabc rest\r\n",
		"literal waited for":       "a X ( {10}\r\n",
		"literal too big":          "a X {1000+}\r\n" + strings.Repeat("x", 1000) + " rest {2+}\r\nab\r\n",
		"literal too big, waits":   "a X {1000}\r\n",
		"line too long":            "a X " + strings.Repeat("y", 5000) + "\r\n",
		"line too long, literal":   "a X " + strings.Repeat("y", 4500) + " {4+}\r\nb X\r\r\n",
		"many lines, too long":     "a X" + strings.Repeat(" {90+}\r\n"+strings.Repeat("z", 90), 60) + "\r\n",
		"line behind literal long": "a X {3+}\r\nabc" + strings.Repeat("y", 3000) + "\r\n",
		"bare LF":                  "a X\n",
	} {
		d := NewDecoder(iotest.HalfReader(strings.NewReader(in+"b NOOP\r\n")), lim, func() error { return nil })
		_, _, err := d.Begin()
		for err == nil {
			if err = d.SP(); err == nil {
				_, err = d.AString()
			}
		}
		var lost *Fatal
		if errors.As(err, &lost) {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if err := d.Discard(); err != nil {
			t.Errorf("%s: Discard: %v", name, err)
			continue
		}
		d.Release()
		tag, cmd, err := d.Begin()
		if tag != "b" || cmd != "NOOP" || err != nil {
			t.Errorf("%s: next command is %q %q, error %v", name, tag, cmd, err)
		}
	}
}

func TestDiscardGivesUp(t *testing.T) {
	lim := Limits{Line: 1000, Literal: 100, Discard: 5000}
	for name, in := range map[string]string{
		"endless line":  "a X " + strings.Repeat("y", 20000),
		"huge literal":  "a X {6000+}\r\n" + strings.Repeat("y", 6000) + "\r\n",
		"ends too soon": "a X {60+}\r\nabc",
	} {
		d := NewDecoder(strings.NewReader(in), lim, nil)
		_, _, err := d.Begin()
		if err == nil {
			if err = d.SP(); err == nil {
				_, err = d.AString()
			}
		}
		if err == nil {
			t.Errorf("%s: no error", name)
			continue
		}
		var lost *Fatal
		if !errors.As(err, &lost) && !errors.As(d.Discard(), &lost) {
			t.Errorf("%s: the place in the stream is lost, and nobody says so: %v", name, err)
		}
	}
}

func TestLimits(t *testing.T) {
	lim := Limits{Nesting: 3, SetRanges: 3, FetchItems: 3, Flags: 3, SearchKeys: 5, Literal: 10, Command: 60}
	for _, c := range []struct {
		in    string
		parse func(d *Decoder) error
		err   string
	}{
		{"(((a)))", func(d *Decoder) error { return d.SkipValue() }, ""},
		{"((((a))))", func(d *Decoder) error { return d.SkipValue() }, "nested"},
		{"1,2,3", func(d *Decoder) error { _, err := d.Set(); return err }, ""},
		{"1,2,3,4", func(d *Decoder) error { _, err := d.Set(); return err }, "ranges"},
		{"(a b c)", func(d *Decoder) error { _, err := d.FlagList(); return err }, ""},
		{"(a b c d)", func(d *Decoder) error { _, err := d.FlagList(); return err }, "flags"},
		{"a b c d", func(d *Decoder) error { _, err := d.StoreFlags(); return err }, "flags"},
		{"(UID FLAGS MODSEQ)", func(d *Decoder) error { _, err := d.FetchItems(); return err }, ""},
		{"(UID FLAGS MODSEQ RFC822)", func(d *Decoder) error { _, err := d.FetchItems(); return err }, "items"},
		{"ALL ALL ALL ALL ALL", func(d *Decoder) error { _, err := d.Search(); return err }, ""},
		{"ALL ALL ALL ALL ALL ALL", func(d *Decoder) error { _, err := d.Search(); return err }, "search keys"},
		{"NOT NOT NOT NOT ALL", func(d *Decoder) error { _, err := d.Search(); return err }, "nested"},
		{"{10+}\r\n0123456789", func(d *Decoder) error { _, err := d.AString(); return err }, ""},
		{"{11+}\r\n01234567890", func(d *Decoder) error { _, err := d.AString(); return err }, "larger than the allowed 10"},
		{strings.Repeat("x", 60), func(d *Decoder) error { _, err := d.AString(); return err }, "larger than 60"},
	} {
		d := NewDecoder(strings.NewReader("a X "+c.in+"\r\n"), lim, nil)
		_, _, err := d.Begin()
		if err == nil {
			d.SP()
			err = c.parse(d)
		}
		if !says(err, c.err) {
			t.Errorf("%.40q: %v", c.in, err)
		}
	}
}

func TestStreamedLiteral(t *testing.T) {
	body := strings.Repeat("0123456789", 2000)
	in := fmt.Sprintf("a APPEND INBOX {%d}\r\n%s ) end\r\nb NOOP\r\n", len(body), body)
	d, asked := decode(t, in, Limits{})
	d.SP()
	d.AString()
	d.SP()
	size, binary, err := d.OpenLiteral(1<<20, nil)
	if err != nil || binary || size != int64(len(body)) || *asked != 1 {
		t.Fatalf("OpenLiteral: %d %v %v, asked %d", size, binary, err, *asked)
	}
	got, err := io.ReadAll(d.LiteralReader())
	if err != nil || string(got) != body {
		t.Fatalf("literal: %d bytes, %v", len(got), err)
	}
	if err := d.CloseLiteral(); err != nil {
		t.Fatal(err)
	}
	if d.Rest() != " ) end" {
		t.Errorf("behind the literal: %q", d.Rest())
	}

	// A literal that is given up half-way is skipped.
	d, _ = decode(t, in, Limits{})
	d.SP()
	d.AString()
	d.SP()
	if _, _, err := d.OpenLiteral(1<<20, nil); err != nil {
		t.Fatal(err)
	}
	io.ReadFull(d.LiteralReader(), make([]byte, 777))
	if err := d.Discard(); err != nil {
		t.Fatal(err)
	}
	d.Release()
	if tag, name, err := d.Begin(); tag != "b" || name != "NOOP" || err != nil {
		t.Errorf("after Discard: %q %q %v", tag, name, err)
	}

	// One that is refused is never asked for.
	d, asked = decode(t, in, Limits{})
	d.SP()
	d.AString()
	d.SP()
	var tooBig *TooBigError
	if _, _, err := d.OpenLiteral(100, nil); !errors.As(err, &tooBig) || *asked != 0 {
		t.Errorf("literal over the bound: %v, asked %d", err, *asked)
	}
}

// An idle decoder holds no buffer.
func TestReleaseHoldsNothing(t *testing.T) {
	d := NewDecoder(strings.NewReader("a NOOP\r\nb NOOP\r\n"), Limits{}, nil)
	for range 2 {
		if _, _, err := d.Begin(); err != nil {
			t.Fatal(err)
		}
		d.Release()
	}
	if d.in != nil || d.pooled != nil || d.line != nil {
		t.Error("a buffer is held after Release")
	}
	var out bytes.Buffer
	e := NewEncoder(&out)
	e.Raw("* OK\r\n")
	if err := e.Release(); err != nil || e.buf != nil || e.pooled != nil || out.String() != "* OK\r\n" {
		t.Errorf("Release of the encoder: %v, wrote %q", err, out.String())
	}
}

func TestSet(t *testing.T) {
	for _, c := range []struct {
		in      string
		largest uint32
		want    string
		err     string
	}{
		{"1", 10, "1", ""},
		{"1:3,5", 10, "1:3,5", ""},
		{"5:1", 10, "1:5", ""},
		{"*", 10, "10", ""},
		{"3:*", 10, "3:10", ""},
		{"*:3", 10, "3:10", ""},
		{"20:*", 10, "10:20", ""},
		{"*", 0, "", ""},
		{"1:*", 0, "1", ""},
		{"5,3,4,1:2", 10, "1:5", ""},
		{"4294967295,1:4294967295", 10, "1:4294967295", ""},
		{"7,7,7", 10, "7", ""},
		{"0", 10, "", "malformed"},
		{"1:", 10, "", "malformed"},
		{",1", 10, "", "malformed"},
		{"1,,2", 10, "", "malformed"},
		{"4294967296", 10, "", "malformed"},
		{"-1", 10, "", "malformed"},
		{"1:2:3", 10, "", "unexpected text"},
	} {
		d, _ := decode(t, "a X "+c.in+"\r\n", Limits{})
		d.SP()
		set, err := d.Set()
		if err == nil {
			err = d.End()
		}
		got := string(AppendSet(nil, set.Resolve(c.largest)))
		if !says(err, c.err) || c.err == "" && got != c.want {
			t.Errorf("%s of %d: %s, error %v", c.in, c.largest, got, err)
		}
	}
	ranges := Set{Ranges: []Range{{5, 9}, {100, 100}, {200, math.MaxUint32}}}.Resolve(1)
	for n, want := range map[uint32]bool{1: false, 4: false, 5: true, 9: true, 10: false, 99: false, 100: true, 101: false, 200: true, math.MaxUint32: true} {
		if Contains(ranges, n) != want {
			t.Errorf("Contains(%d) is %v", n, !want)
		}
	}
	if Count(ranges) != 5+1+math.MaxUint32-199 {
		t.Errorf("Count is %d", Count(ranges))
	}
}

func TestDates(t *testing.T) {
	for _, c := range []struct{ in, want string }{
		{`" 1-Feb-2026 13:05:09 +0130"`, `" 1-Feb-2026 13:05:09 +0130"`},
		{`"01-feb-2026 00:00:00 -0000"`, `" 1-Feb-2026 00:00:00 +0000"`},
		{`"29-Feb-2024 23:59:60 -1200"`, `" 1-Mar-2024 00:00:00 -1200"`},
		{`"29-Feb-2025 00:00:00 +0000"`, ""},
		{`"1-Feb-2026 13:05:09 +0130"`, ""},
		{`"00-Feb-2026 13:05:09 +0130"`, ""},
		{`" 1-Feb-2026 24:05:09 +0130"`, ""},
		{`" 1-Feb-2026 13:05:09 0130 "`, ""},
		{`" 1-Foo-2026 13:05:09 +0130"`, ""},
	} {
		d, _ := decode(t, "a X "+c.in+"\r\n", Limits{})
		d.SP()
		got, err := d.DateTime()
		if c.want == "" && err == nil || c.want != "" && (err != nil || string(AppendDateTime(nil, got)) != c.want) {
			t.Errorf("%s: %s, %v", c.in, AppendDateTime(nil, got), err)
		}
	}
	for in, want := range map[string]string{
		"1-Feb-2026": "2026-02-01", `"31-Dec-1999"`: "1999-12-31", "01-JAN-2000": "2000-01-01",
		"32-Jan-2000": "", "30-Feb-2000": "", "1-Jan-99": "", "Jan-1-2000": "", "1-1-2000": "",
	} {
		d, _ := decode(t, "a X "+in+"\r\n", Limits{})
		d.SP()
		got, err := d.Date()
		if want == "" && err == nil || want != "" && (err != nil || got.Format("2006-01-02") != want) {
			t.Errorf("%s: %v, %v", in, got, err)
		}
	}
}
