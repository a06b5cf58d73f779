package message

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/emersion/go-imap/v2"
)

// check tests what Parse promises for any bytes.
func check(t *testing.T, root *Part, b []byte) {
	t.Helper()
	if root.HeaderOffset != 0 || root.End != int64(len(b)) {
		t.Fatalf("the message spans %d to %d, not 0 to %d", root.HeaderOffset, root.End, len(b))
	}
	checkPart(t, root, b, 0)
}

func checkPart(t *testing.T, p *Part, b []byte, from int64) {
	t.Helper()
	if p.HeaderOffset < from || p.BodyOffset < p.HeaderOffset || p.End < p.BodyOffset {
		t.Fatalf("part at %d..%d..%d, may not begin before %d", p.HeaderOffset, p.BodyOffset, p.End, from)
	}
	if n := int64(bytes.Count(b[p.BodyOffset:p.End], []byte{'\n'})); n != p.Lines {
		t.Fatalf("part at %d has %d lines, not %d: %q", p.BodyOffset, n, p.Lines, b[p.BodyOffset:p.End])
	}
	if p.Type == "" || p.Subtype == "" || p.Encoding == "" {
		t.Fatalf("part at %d has no type or encoding: %+v", p.HeaderOffset, p)
	}
	if (p.Type == "multipart") != p.IsMultipart() {
		t.Fatalf("%s at %d has %d children", p.MediaType(), p.HeaderOffset, len(p.Children))
	}
	if isMessageType(p.Type, p.Subtype) != (p.Message != nil) {
		t.Fatalf("%s at %d has the message %v", p.MediaType(), p.HeaderOffset, p.Message)
	}
	at := p.BodyOffset
	for _, c := range p.Children {
		checkPart(t, c, b, at)
		if at = c.End; at > p.End {
			t.Fatalf("part at %d ends at %d, behind its multipart, which ends at %d", c.HeaderOffset, at, p.End)
		}
	}
	if m := p.Message; m != nil {
		checkPart(t, m, b, p.BodyOffset)
		if m.End != p.End || m.Envelope == nil {
			t.Fatalf("message at %d ends at %d, not at %d, or has no envelope", m.HeaderOffset, m.End, p.End)
		}
	}
}

func TestParseInvariants(t *testing.T) {
	for name, b := range fixtures(t) {
		for cut := 0; cut <= len(b); cut += 1 + len(b)/400 {
			root := mustParse(t, b[:cut])
			check(t, root, b[:cut])
			if t.Failed() {
				t.Fatalf("%s cut at %d", name, cut)
			}
		}
	}
}

// A message whose parts are longer than the buffer, in lines of all lengths, so that lines, line
// breaks and boundaries fall on every place of a buffer's end.
func TestParseAcrossBuffers(t *testing.T) {
	rnd := rand.New(rand.NewPCG(5, 6))
	for range 60 {
		eol := []string{"\r\n", "\n"}[rnd.IntN(2)]
		var parts []string
		var b strings.Builder
		b.WriteString("Content-Type: multipart/mixed; boundary=BOUND" + eol + eol + "preamble" + eol)
		for range 1 + rnd.IntN(4) {
			var body strings.Builder
			for want := rnd.IntN(3 * bufferSize); body.Len() < want; {
				body.WriteString(strings.Repeat("-", rnd.IntN(4)) + strings.Repeat("x", rnd.IntN(200)) +
					[]string{eol, "\n", "\r", "\r\r\n", "--BOUN", "BOUND", ""}[rnd.IntN(7)])
			}
			part := strings.ReplaceAll(body.String(), "\n--BOUND", "\n--B0UND")
			if strings.HasPrefix(part, "--BOUND") {
				part = "x" + part
			}
			parts = append(parts, part)
			b.WriteString("--BOUND" + eol + eol + part + eol)
		}
		b.WriteString("--BOUND--" + eol + "epilogue")
		msg := []byte(b.String())
		root := mustParse(t, msg)
		check(t, root, msg)
		if len(root.Children) != len(parts) {
			t.Fatalf("%d parts, want %d", len(root.Children), len(parts))
		}
		for i, c := range root.Children {
			got := string(msg[c.BodyOffset:c.End])
			// A part that ends in CR before a bare LF hands its CR to the line break of the boundary.
			if eol == "\n" {
				got, parts[i] = strings.TrimSuffix(got, "\r"), strings.TrimSuffix(parts[i], "\r")
			}
			if got != parts[i] {
				t.Fatalf("part %d: %d bytes, want %d", i, len(got), len(parts[i]))
			}
		}
	}
}

func TestParseLimits(t *testing.T) {
	var deep strings.Builder
	for i := range 300 {
		fmt.Fprintf(&deep, "Content-Type: multipart/mixed; boundary=b%d\r\n\r\n--b%d\r\n", i, i)
	}
	root := mustParse(t, []byte(deep.String()))
	depth := 0
	for p := root; p.IsMultipart(); p = p.Children[0] {
		depth++
	}
	if depth != DefaultLimits().Depth {
		t.Errorf("depth %d, want %d", depth, DefaultLimits().Depth)
	}

	many := "Content-Type: multipart/mixed; boundary=b\r\n\r\n" + strings.Repeat("--b\r\n\r\nx\r\n", 100) + "--b--\r\n"
	root, err := Parse(strings.NewReader(many), int64(len(many)), Limits{Parts: 11})
	if err != nil || len(root.Children) != 10 || !root.Truncated {
		t.Errorf("%d parts, truncated %v, %v; want 10, true", len(root.Children), root.Truncated, err)
	}
	last := root.Children[9]
	if got := many[last.BodyOffset:last.End]; !strings.HasSuffix(got, "--b\r\n\r\nx") {
		t.Errorf("the last part has not got the rest: %q", got)
	}

	long := "Subject: " + strings.Repeat("s", 5000) + "\r\nTo: " + strings.Repeat("a@b.test, ", 500) + "\r\nFrom: a@b.test\r\n\r\n"
	root, err = Parse(strings.NewReader(long), int64(len(long)), Limits{FieldBytes: 100, HeaderBytes: 150})
	if err != nil || !root.Truncated || len(root.Envelope.Subject.Value) > 100 || len(root.Envelope.To) > 6 || root.Envelope.From != nil {
		t.Errorf("limits of header bytes: %+v, %v", root.Envelope, err)
	}

	huge := "Content-Type: multipart/mixed; boundary=" + strings.Repeat("b", maxBoundary+1) + "\r\n\r\n--" + strings.Repeat("b", maxBoundary+1) + "\r\n\r\nx"
	if root = mustParse(t, []byte(huge)); len(root.Children) != 1 || root.Children[0].HeaderSize() != 0 {
		t.Errorf("a boundary of %d bytes is used", maxBoundary+1)
	}
}

// failingReader fails at and behind an offset.
type failingReader struct {
	io.ReaderAt
	from int64
}

var errDisk = errors.New("disk on fire")

func (f failingReader) ReadAt(b []byte, off int64) (int, error) {
	if off+int64(len(b)) <= f.from {
		return f.ReaderAt.ReadAt(b, off)
	}
	n, _ := f.ReaderAt.ReadAt(b[:max(0, f.from-off)], off)
	return n, errDisk
}

func TestReadErrors(t *testing.T) {
	b := fixtures(t)["forward"]
	root := mustParse(t, b)
	for from := range int64(len(b)) {
		r := failingReader{bytes.NewReader(b), from}
		if _, err := Parse(r, int64(len(b)), Limits{}); !errors.Is(err, errDisk) {
			t.Fatalf("failing at %d: %v", from, err)
		}
	}
	r := failingReader{bytes.NewReader(b), 10}
	search := &Search{}
	search.Text("not there")
	if _, err := search.Match(r, root); !errors.Is(err, errDisk) {
		t.Errorf("search: %v", err)
	}
	if _, err := root.Section(r, &imap.FetchItemBodySection{HeaderFields: []string{"to"}, Specifier: imap.PartSpecifierHeader}); !errors.Is(err, errDisk) {
		t.Errorf("header subset: %v", err)
	}
	if _, err := Preview(r, root, 100); !errors.Is(err, errDisk) {
		t.Errorf("preview: %v", err)
	}
	if _, err := root.BinarySize(r, []int{3}); !errors.Is(err, errDisk) {
		t.Errorf("binary size: %v", err)
	}
	if _, err := Parse(bytes.NewReader(b), int64(len(b))+1, Limits{}); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("a file shorter than it should be: %v", err)
	}
}

func TestParseHeaderReadsNoMore(t *testing.T) {
	b := fixtures(t)["alternative"]
	full := mustParse(t, b)
	p, err := ParseHeader(bytes.NewReader(b), int64(len(b)), Limits{})
	if err != nil {
		t.Fatal(err)
	}
	if got, want := string(AppendEnvelope(nil, p.Envelope, false)), string(AppendEnvelope(nil, full.Envelope, false)); got != want {
		t.Errorf("envelope %s, want %s", got, want)
	}
	if p.BodyOffset != full.BodyOffset || p.End != full.End || p.Children != nil {
		t.Errorf("%d %d %v", p.BodyOffset, p.End, p.Children)
	}
	big := append(bytes.Clone(b), bytes.Repeat([]byte("x"), 1<<20)...)
	if _, err := ParseHeader(failingReader{bytes.NewReader(big), bufferSize}, int64(len(big)), Limits{}); err != nil {
		t.Errorf("it read the body: %v", err)
	}
}

// Sections that do not exist, and those where go-imap cannot be asked.
func TestSections(t *testing.T) {
	b := fixtures(t)["forward"]
	root := mustParse(t, b)
	for _, c := range []struct {
		item imap.FetchItemBodySection
		want string // "-": no such section
	}{
		{imap.FetchItemBodySection{Part: []int{4}}, "-"},
		{imap.FetchItemBodySection{Part: []int{0}}, "-"},
		{imap.FetchItemBodySection{Part: []int{1, 1}}, "-"},
		{imap.FetchItemBodySection{Part: []int{2, 3}}, "-"},
		{imap.FetchItemBodySection{Specifier: imap.PartSpecifierMIME}, "-"},
		{imap.FetchItemBodySection{Part: []int{1}, Specifier: imap.PartSpecifierText}, "-"},
		{imap.FetchItemBodySection{Part: []int{1}, Specifier: imap.PartSpecifierHeader}, "-"},
		{imap.FetchItemBodySection{Part: []int{1}}, "See below.\r\n"},
		{imap.FetchItemBodySection{Part: []int{1}, Specifier: imap.PartSpecifierMIME}, "Content-Type: text/plain\r\n\r\n"},
		{imap.FetchItemBodySection{Part: []int{2, 1}}, "inner text"},
		{imap.FetchItemBodySection{Part: []int{2, 2, 1}}, "needle in the haystack"},
		{imap.FetchItemBodySection{Part: []int{2, 2}, Specifier: imap.PartSpecifierText}, "needle in the haystack"},
		{imap.FetchItemBodySection{Part: []int{2, 2}, Specifier: imap.PartSpecifierHeader}, "Subject: innermost\r\nFrom: dave@example.test\r\n\r\n"},
		{imap.FetchItemBodySection{Part: []int{2, 2}, Specifier: imap.PartSpecifierHeader, HeaderFields: []string{"FROM"}}, "From: dave@example.test\r\n\r\n"},
		{imap.FetchItemBodySection{Part: []int{2, 2}, Specifier: imap.PartSpecifierHeader, HeaderFieldsNot: []string{"From"}}, "Subject: innermost\r\n\r\n"},
		{imap.FetchItemBodySection{Part: []int{2, 2}, Specifier: imap.PartSpecifierHeader, HeaderFields: []string{"x"}, Partial: &imap.SectionPartial{Offset: 1, Size: 10}}, "\n"},
		{imap.FetchItemBodySection{Part: []int{1}, Partial: &imap.SectionPartial{Offset: 4, Size: 5}}, "below"},
		{imap.FetchItemBodySection{Part: []int{1}, Partial: &imap.SectionPartial{Offset: 12, Size: 5}}, ""},
		{imap.FetchItemBodySection{Part: []int{1}, Partial: &imap.SectionPartial{Offset: 1 << 62, Size: 1 << 62}}, ""},
	} {
		s, err := root.Section(bytes.NewReader(b), &c.item)
		if errors.Is(err, ErrNoSection) && c.want == "-" {
			continue
		}
		if err != nil {
			t.Errorf("%+v: %v", c.item, err)
			continue
		}
		if got, err := io.ReadAll(s); err != nil || string(got) != c.want {
			t.Errorf("%+v: %q, %v; want %q", c.item, got, err, c.want)
		}
	}
	for _, c := range []struct {
		partial *imap.SectionPartial
		want    string
	}{{nil, "\x00\x01\x02\x03\x04\x05"}, {&imap.SectionPartial{Offset: 2, Size: 3}, "\x02\x03\x04"}, {&imap.SectionPartial{Offset: 9, Size: 3}, ""}} {
		r, err := root.Binary(bytes.NewReader(b), &imap.FetchItemBinarySection{Part: []int{3}, Partial: c.partial})
		if err != nil {
			t.Fatal(err)
		}
		if got, err := io.ReadAll(r); err != nil || string(got) != c.want {
			t.Errorf("binary %v: %q, %v; want %q", c.partial, got, err, c.want)
		}
	}
}

// A large attachment goes through the fixed buffer.
func TestParseOfLargeMessageIsSmall(t *testing.T) {
	head := "Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\nContent-Type: image/png\r\nContent-Transfer-Encoding: base64\r\n\r\n"
	r := repeated{head: head, line: strings.Repeat("A", 76) + "\r\n", tail: "--b--\r\n", size: 50 << 20}
	result := testing.Benchmark(func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			root, err := Parse(r, r.size, Limits{})
			if err != nil || len(root.Children) != 1 || root.Children[0].BodySize() < 49<<20 {
				b.Fatalf("%+v, %v", root, err)
			}
		}
	})
	if n := result.AllocedBytesPerOp(); n > 200<<10 {
		t.Errorf("%d bytes allocated for a message of 50 MB", n)
	}
}

// repeated is a message that is made up as it is read.
type repeated struct {
	head, line, tail string
	size             int64
}

func (r repeated) ReadAt(b []byte, off int64) (int, error) {
	for i := range b {
		at := off + int64(i)
		switch tail := r.size - int64(len(r.tail)); {
		case at >= r.size:
			return i, io.EOF
		case at >= tail:
			b[i] = r.tail[at-tail]
		case at == tail-1:
			b[i] = '\n'
		case at < int64(len(r.head)):
			b[i] = r.head[at]
		default:
			b[i] = r.line[(at-int64(len(r.head)))%int64(len(r.line))]
		}
	}
	return len(b), nil
}
