package message

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/emersion/go-imap/v2"
)

// FuzzParse: whatever the bytes are, the tree keeps its promises, every section that it names can be read
// and lies where it says, and the wire forms and the packed form do not fall over it.
func FuzzParse(f *testing.F) {
	for name, b := range fixtures(f) {
		if name != "long-headers" {
			f.Add(b)
		}
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		root, err := Parse(bytes.NewReader(b), int64(len(b)), Limits{Depth: 8, Parts: 50, FieldBytes: 2000, HeaderBytes: 10000})
		if err != nil {
			t.Fatal(err)
		}
		check(t, root, b)
		r := bytes.NewReader(b)
		sections(root, func(path []int) {
			p := root.Find(path)
			s, err := root.Section(r, &imap.FetchItemBodySection{Part: path})
			if err != nil {
				t.Fatalf("section %v: %v", path, err)
			}
			want := b[p.BodyOffset:p.End]
			if len(path) == 0 {
				want = b
			}
			if got, err := io.ReadAll(s); err != nil || !bytes.Equal(got, want) {
				t.Fatalf("section %v: %q, %v; want %q", path, got, err, want)
			}
			if _, err := root.BinarySize(r, path); err != nil && !errors.Is(err, ErrUnknownEncoding) {
				t.Fatalf("binary %v: %v", path, err)
			}
			header := imap.FetchItemBodySection{Part: path, Specifier: imap.PartSpecifierMIME, HeaderFieldsNot: []string{"no such field"}}
			if len(path) == 0 {
				header.Specifier = imap.PartSpecifierHeader
			}
			if s, err = root.Section(r, &header); err != nil {
				t.Fatalf("header of %v: %v", path, err)
			}
			if got, err := io.ReadAll(s); err != nil || !bytes.Equal(got, b[p.HeaderOffset:p.BodyOffset]) {
				t.Fatalf("header of %v without nothing: %q, %v; want %q", path, got, err, b[p.HeaderOffset:p.BodyOffset])
			}
		})
		wire := AppendStructure(AppendEnvelope(nil, root.Envelope, true), root, true, true)
		if bytes.IndexByte(wire, 0) >= 0 {
			t.Fatalf("NUL in %q", wire)
		}
		search := &Search{}
		search.Header("subject", "x")
		search.Text("no such text in any seed")
		if _, err := search.Match(r, root); err != nil {
			t.Fatal(err)
		}
		if text, err := Preview(r, root, 100); err != nil || utf8.RuneCountInString(text) > 100 || !utf8.ValidString(text) {
			t.Fatalf("preview %q, %v", text, err)
		}
	})
}

// FuzzFields: the readers of single values take anything.
func FuzzFields(f *testing.F) {
	for _, s := range []string{
		`"A, B" <a@b.test>, G: c@d.test;, <@r:x@y> (c)`, "=?utf-8?q?J=C3=BC?= =?iso-2022-jp?b?GyRCJDMbKEI=?=", "Mon, 23 Nov 2026 13:40:04 +0100",
		"Re: [x] [Fwd: hello] (fwd)", "<a@b> <\"c d\"@e>", "text/plain; f*0*=utf-8''%20; f*1=\"x\"; g=(y) z", "gr\xfc\xdfe \x00",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		for _, a := range ParseAddresses(s) {
			if (a.Mailbox == "") && (a.Host != "" || a.Name != "" || a.Route != "") {
				t.Fatalf("%q: %+v", s, a)
			}
		}
		if when, ok := ParseDate(s); ok && (when.Year() < 0 || when.Year() > 10000) {
			t.Fatalf("%q: %v", s, when)
		}
		if d, usual := usualDate(s); usual { // the short way gives what the long one does
			a, okA := d.time()
			if b, okB := anyDate(s); okA != okB || okA && (!a.Equal(b) || a.String() != b.String()) {
				t.Fatalf("%q: %v %v, %v %v", s, a, okA, b, okB)
			}
		}
		base, _ := BaseSubject(s)
		if again, _ := BaseSubject(base); utf8.ValidString(s) && len(again) > len(base) {
			t.Fatalf("%q: %q, then %q", s, base, again)
		}
		if d := DecodeHeader(s); !utf8.ValidString(d) {
			t.Fatalf("%q: %q", s, d)
		}
		MessageIDs(s)
		parseMediaType(s)
		parseDisposition(s)
		parseLanguages(s)
		if m := Casemap(s); !utf8.ValidString(m) && utf8.ValidString(s) || Casemap(strings.ToUpper(s)) == "" && s != "" {
			t.Fatalf("%q: %q", s, m)
		}
	})
}
