package message

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"reflect"
	"strings"
	"testing"

	"github.com/emersion/go-imap/v2"
)

func packed(t testing.TB, b []byte) (*Summary, []byte) {
	t.Helper()
	root := mustParse(t, b)
	s, err := Summarize(bytes.NewReader(b), int64(len(b)), root, true)
	if err != nil {
		t.Fatal(err)
	}
	if s.Preview, err = Preview(bytes.NewReader(b), root, 200); err != nil {
		t.Fatal(err)
	}
	s.HasPreview = true
	return s, s.Pack(nil)
}

func TestSummary(t *testing.T) {
	var v View
	for name, b := range fixtures(t) {
		want, p := packed(t, b)
		if err := v.Open(string(p), int64(len(b))); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		got, err := v.Summary()
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if v.Omitted() {
			if name != "long-headers" {
				t.Errorf("%s: something is left out", name)
			}
			continue
		}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("%s:\n%s\n%s", name, describe(got.Root, b), describe(want.Root, b))
		}
		if again := got.Pack(nil); !bytes.Equal(again, p) {
			t.Errorf("%s: packed again it is something else", name)
		}
		// Once more with the memory that is used again.
		root, err := v.Structure()
		if err != nil || !reflect.DeepEqual(root, want.Root) {
			t.Errorf("%s: %v\n%s", name, err, describe(root, b))
		}
		if d, err := v.Date(); err != nil || d != want.Envelope.Date {
			t.Errorf("%s: date %v, %v", name, d, err)
		}
	}
}

// The kept fields are what BODY[HEADER.FIELDS (...)] gives when it is read from the message.
func TestSummaryFields(t *testing.T) {
	sets := [][]string{{"DATE"}, {"from", "To", "CC", "Subject"}, {"Content-Type", "X-Priority", "List-Post"}, keptNames[1:]}
	for name, b := range fixtures(t) {
		s, p := packed(t, b)
		var v View
		if err := v.Open(string(p), int64(len(b))); err != nil {
			t.Fatal(name, err)
		}
		if !v.Has(SectionFields) {
			continue
		}
		for _, names := range sets {
			set, ok := KeptFields(names)
			if !ok {
				t.Fatal(names)
			}
			section, err := s.Root.Section(bytes.NewReader(b), &imap.FetchItemBodySection{Specifier: imap.PartSpecifierHeader, HeaderFields: names})
			if err != nil {
				t.Fatal(name, err)
			}
			want := make([]byte, section.Size())
			section.ReadAt(want, 0)
			if got := v.AppendFields(nil, set); !bytes.Equal(got, want) {
				t.Errorf("%s %v:\n%q\n%q", name, names, got, want)
			}
		}
	}
	if _, ok := KeptFields([]string{"From", "Received"}); ok {
		t.Error("Received is kept")
	}
	if _, ok := KeptFields([]string{strings.Repeat("x", 300)}); ok {
		t.Error("a long name is kept")
	}
}

// What is too long is left out, from the structure on, and the view says so.
func TestSummaryBounds(t *testing.T) {
	part := "--b\r\nContent-Type: application/x; name=\"" + strings.Repeat("n", 100) + "\"\r\n\r\nx\r\n"
	for _, c := range []struct {
		what, message string
		have          Sections
	}{
		{"many parts", "From: a@b\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n" + strings.Repeat(part, 1000) + "--b--\r\n", SectionFields | SectionEnvelope},
		{"a long field", "From: a@b\r\nTo: " + strings.Repeat("recipient@example.test, ", 1000) + "c@d\r\n\r\nx", SectionEnvelope | SectionStructure},
		{"a longer field", "From: a@b\r\nTo: " + strings.Repeat("recipient@example.test, ", 3000) + "c@d\r\n\r\nx", 0},
	} {
		_, p := packed(t, []byte(c.message))
		var v View
		if err := v.Open(string(p), int64(len(c.message))); err != nil {
			t.Fatal(c.what, err)
		}
		if len(p) > MaxSummary || !v.Omitted() || v.have&^(SectionPreview|omitted) != c.have {
			t.Errorf("%s: %d bytes, sections %05b", c.what, len(p), v.have)
		}
	}
}

// One changed bit, a missing byte, another version, another message's size: refused.
func TestSummaryIsExact(t *testing.T) {
	b := fixtures(t)["forward"]
	_, p := packed(t, b)
	var v View
	refused := func(what string, p []byte, size int) {
		t.Helper()
		if err := v.Open(string(p), int64(size)); !errors.Is(err, ErrBadSummary) || v.have != 0 {
			t.Fatalf("%s: %v", what, err)
		}
	}
	for i := range p {
		bad := bytes.Clone(p)
		bad[i] ^= 1 << (i % 8)
		refused(fmt.Sprint("changed at ", i), bad, len(b))
		refused(fmt.Sprint("cut at ", i), p[:i], len(b))
	}
	refused("a byte too many", append(bytes.Clone(p), 0), len(b))
	refused("another size", p, len(b)+1)
	refused("a newer version", sealed([]byte{summaryMagic, summaryVersion + 1, 0, 5}), 5)
}

// sealed adds the checksum that b should have.
func sealed(b []byte) []byte {
	return binary.LittleEndian.AppendUint32(bytes.Clone(b), crc32.Checksum(b, castagnoli))
}

// inside fails the test where a part lies outside what it is part of.
func inside(t *testing.T, p *Part, from, to int64) {
	if p.HeaderOffset < from || p.BodyOffset < p.HeaderOffset || p.End < p.BodyOffset || p.End > to {
		t.Fatalf("part %d-%d-%d in %d-%d", p.HeaderOffset, p.BodyOffset, p.End, from, to)
	}
	for _, c := range p.Children {
		inside(t, c, p.HeaderOffset, p.End)
	}
	if p.Message != nil {
		inside(t, p.Message, p.HeaderOffset, p.End)
	}
}

// FuzzSummary gives the checksum of its own to any bytes, so that what is behind it is reached.
func FuzzSummary(f *testing.F) {
	for _, name := range []string{"plain", "forward", "alternative", "addresses", "rfc2231"} {
		b := fixtures(f)[name]
		_, p := packed(f, b)
		f.Add(p[:len(p)-4], int64(len(b)))
	}
	f.Fuzz(func(t *testing.T, b []byte, size int64) {
		var v View
		if err := v.Open(string(sealed(b)), size); err != nil {
			if !errors.Is(err, ErrBadSummary) {
				t.Fatal(err)
			}
			return
		}
		if v.Has(SectionFields) {
			v.AppendFields(nil, ^FieldSet(0))
			var s Search
			s.Header("subject", "x")
			s.MatchFields(v.Fields())
		}
		s, err := v.Summary()
		if err != nil {
			if !errors.Is(err, ErrBadSummary) {
				t.Fatal(err)
			}
			return
		}
		if s.Root != nil {
			inside(t, s.Root, 0, size)
			AppendStructure(nil, s.Root, true, true)
		}
		if s.Envelope != nil {
			AppendEnvelope(nil, s.Envelope, true)
		}
		var again View
		if err := again.Open(string(s.Pack(nil)), size); err != nil {
			t.Fatal(err)
		}
		if got, err := again.Summary(); err != nil || !again.Omitted() && !reflect.DeepEqual(got, s) {
			t.Fatalf("%+v packed and unpacked is %+v, %v", s, got, err)
		}
	})
}

func BenchmarkPack(b *testing.B) {
	s, p := packed(b, benchMessage())
	b.ReportAllocs()
	for b.Loop() {
		p = s.Pack(p[:0])
	}
	b.ReportMetric(float64(len(p)), "packed-bytes")
}

func BenchmarkSummarize(b *testing.B) {
	msg := benchMessage()
	root := mustParse(b, msg)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Summarize(bytes.NewReader(msg), int64(len(msg)), root, true); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkPreview(b *testing.B) {
	msg := benchMessage()
	root := mustParse(b, msg)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Preview(bytes.NewReader(msg), root, 200); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkView is what a FETCH needs of a packed summary.
func BenchmarkView(b *testing.B) {
	msg := benchMessage()
	_, p := packed(b, msg)
	packed := string(p)
	var v View
	var out []byte
	set, _ := KeptFields([]string{"date", "from", "to", "cc", "subject", "message-id", "references", "in-reply-to", "content-type"})
	for name, f := range map[string]func() error{
		"envelope": func() error {
			e, err := v.Envelope()
			if err == nil {
				out = AppendEnvelope(out[:0], e, false)
			}
			return err
		},
		"structure": func() error {
			p, err := v.Structure()
			if err == nil {
				out = AppendStructure(out[:0], p, true, false)
			}
			return err
		},
		"fields": func() error { out = v.AppendFields(out[:0], set); return nil },
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if err := errors.Join(v.Open(packed, int64(len(msg))), f()); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
