package message

import (
	"bytes"
	"encoding/base64"
	"io"
	"strings"
	"testing"

	"github.com/emersion/go-imap/v2"
)

// view gives Textual's view of a message as a whole.
func view(t testing.TB, b string, headerOnly bool) (got string, viewed bool) {
	t.Helper()
	r := strings.NewReader(b)
	v, size, err := Textual(r, int64(len(b)), headerOnly)
	if err != nil {
		t.Fatal(err)
	}
	out, err := io.ReadAll(io.NewSectionReader(v, 0, size+1))
	if err != nil || int64(len(out)) != size {
		t.Fatalf("%d bytes of %d: %v", len(out), size, err)
	}
	return string(out), v != io.ReaderAt(r)
}

func encoded(s string) string {
	var b strings.Builder
	for len(s) > 0 {
		n := min(base64Line, len(s))
		b.WriteString(base64.StdEncoding.EncodeToString([]byte(s[:n])) + "\r\n")
		s = s[n:]
	}
	return b.String()
}

func TestTextual(t *testing.T) {
	blob := strings.Repeat("\x00\x01\r\n.\r\xff--x\n", 40)
	for name, c := range map[string]struct{ in, want string }{
		"text":                  {"Subject: x\r\n\r\nbody\nbare\r\n", ""},
		"says binary, is text":  {"Content-Transfer-Encoding: binary\r\n\r\nbody\r\n", "Content-Transfer-Encoding: 8bit\r\n\r\nbody\r\n"},
		"bare LF in binary":     {"A: b\r\nCONTENT-transfer-encoding :\r\n\tBinary\r\nC: d\r\n\r\nbody\nx", "A: b\r\nContent-Transfer-Encoding: base64\r\nC: d\r\n\r\n" + encoded("body\nx")},
		"CR at the end":         {"Content-Transfer-Encoding: binary\r\n\r\nbody\r", "Content-Transfer-Encoding: base64\r\n\r\n" + encoded("body\r")},
		"NUL, no field":         {"A: b\r\n\r\n" + blob, "A: b\r\nContent-Transfer-Encoding: base64\r\n\r\n" + encoded(blob)},
		"NUL, no header":        {"\r\n\x00", "Content-Transfer-Encoding: base64\r\n\r\n" + encoded("\x00")},
		"NUL in a header":       {"A: \x00\r\n\r\nx", "A: ?\r\n\r\nx"},
		"NUL in base64":         {"Content-Transfer-Encoding: base64\r\n\r\nAA\x00A=\r\n", "Content-Transfer-Encoding: base64\r\n\r\nAA?A=\r\n"},
		"the field twice":       {"Content-Transfer-Encoding: 8bit\r\nContent-Transfer-Encoding: 7bit\r\n\r\n\x00", "Content-Transfer-Encoding: base64\r\n\r\n" + encoded("\x00")},
		"the end in the header": {"A: \x00", "A: ?"},
		"nested": {
			"Content-Type: multipart/mixed; boundary=x\r\nContent-Transfer-Encoding: binary\r\n\r\npre\x00\r\n--x\r\n\r\nplain\r\n" +
				"--x\r\nContent-Type: image/png\r\nContent-Transfer-Encoding: binary\r\n\r\n" + strings.ReplaceAll(blob, "--x", "") + "\r\n" +
				"--x\r\nContent-Type: message/rfc822\r\nContent-Transfer-Encoding: binary\r\n\r\nSubject: in\r\n\r\n\x00in\r\n--x--\r\nepi\x00\r\n",
			"Content-Type: multipart/mixed; boundary=x\r\nContent-Transfer-Encoding: 8bit\r\n\r\npre?\r\n--x\r\n\r\nplain\r\n" +
				"--x\r\nContent-Type: image/png\r\nContent-Transfer-Encoding: base64\r\n\r\n" + encoded(strings.ReplaceAll(blob, "--x", "")) + "\r\n" +
				"--x\r\nContent-Type: message/rfc822\r\nContent-Transfer-Encoding: 8bit\r\n\r\nSubject: in\r\nContent-Transfer-Encoding: base64\r\n\r\n" + encoded("\x00in") + "\r\n--x--\r\nepi?\r\n",
		},
	} {
		t.Run(name, func(t *testing.T) {
			got, viewed := view(t, c.in, false)
			if viewed != (c.want != "") {
				t.Errorf("viewed: %v", viewed)
			}
			if c.want == "" {
				c.want = c.in
			}
			if got != c.want {
				t.Errorf("got  %q\nwant %q", got, c.want)
			}
		})
	}
	if _, viewed := view(t, "A: b\r\n\r\n"+strings.Repeat("x", bufferSize)+"\x00", true); viewed {
		t.Error("more than the header was looked at")
	}
}

// FuzzTextual: the view is without NUL, the same however it is read, and its parts decode to what is stored.
func FuzzTextual(f *testing.F) {
	for _, s := range []string{
		"\x00", "a: b\n\n\x00\n", "Content-Transfer-Encoding: binary\r\n\r\na\nb", "Content-Type: message/rfc822\n\nContent-Transfer-Encoding:\n\n\x00",
		"Content-Type: multipart/mixed; boundary=x\n\n--x\nContent-Transfer-Encoding: binary\n\n\x00\n--x\n\x00\n\n--x--\n", "Content-Type: multipart/digest; boundary=\"\"\n\n\x00",
	} {
		f.Add([]byte(s), uint16(7))
	}
	f.Fuzz(func(t *testing.T, b []byte, step uint16) {
		whole, viewed := view(t, string(b), false)
		if strings.IndexByte(whole, 0) >= 0 {
			t.Fatal("NUL")
		}
		if !viewed {
			if whole != string(b) {
				t.Fatal("changed without a view")
			}
			return
		}
		v, size, err := Textual(bytes.NewReader(b), int64(len(b)), false)
		if err != nil {
			t.Fatal(err)
		}
		piece := make([]byte, int(step)%300+1)
		for off := int64(0); off < size; off += int64(len(piece)) {
			n, err := v.ReadAt(piece, off)
			if err != nil && (err != io.EOF || off+int64(n) != size) || whole[off:off+int64(n)] != string(piece[:n]) {
				t.Fatalf("at %d: %d bytes, %v", off, n, err)
			}
		}
		root, err := Parse(v, size, Limits{})
		if err != nil {
			t.Fatal(err)
		}
		check(t, root, []byte(whole))
		if root.IsMultipart() || root.Message != nil || root.Encoding != "base64" || !bytes.Contains(b, []byte("\r\n\r\n\x00")) {
			return
		}
		stored, err := Parse(bytes.NewReader(b), int64(len(b)), Limits{})
		if err != nil || decodingOf(stored.Encoding) != identity {
			return
		}
		r, err := root.Binary(v, &imap.FetchItemBinarySection{Part: []int{1}})
		if err != nil {
			t.Fatal(err)
		}
		if got, err := io.ReadAll(r); err != nil || !bytes.Equal(got, b[stored.BodyOffset:stored.End]) {
			t.Fatalf("part 1 is %q, %v", got, err)
		}
	})
}

func TestDowngraded(t *testing.T) {
	for name, c := range map[string]struct{ in, want string }{
		"ascii":          {"Subject: x\r\n\r\nbody\r\n", ""},
		"body":           {"Subject: x\r\n\r\nGrüße\r\n", ""},
		"no UTF-8":       {"Subject: Gr\xfc\xdfe\r\n\r\nx\r\n", ""},
		"unstructured":   {"Subject: Grüße\r\n und mehr\r\nX: y\r\n\r\nü", "Subject: =?utf-8?B?R3LDvMOfZSB1bmQgbWVocg==?=\r\nX: y\r\n\r\nü"},
		"long":           {"Subject: " + strings.Repeat("ü", 40) + "\n\n", "Subject: =?utf-8?B?" + base64.StdEncoding.EncodeToString([]byte(strings.Repeat("ü", 22))) + "?=\r\n =?utf-8?B?" + base64.StdEncoding.EncodeToString([]byte(strings.Repeat("ü", 18))) + "?=\r\n\n"},
		"structured":     {"Message-ID: <ü@x>\r\n\r\n", "Message-ID: <?@x>\r\n\r\n"},
		"addresses":      {"To: ü <a@b>, \"o d\"@x, ü@y, N <z@ü>\r\nCc: ü: a@b;\r\n\r\n", "To: =?utf-8?B?w7w=?= <a@b>,\r\n <\"o d\"@x>,\r\n =?utf-8?B?w7xAeQ==?= <invalid@internationalized.invalid>,\r\n =?utf-8?B?Tg==?= <invalid@internationalized.invalid>\r\nCc: <a@b>\r\n\r\n"},
		"an empty group": {"To: ü:;\r\n\r\n", "To: undisclosed-recipients:;\r\n\r\n"},
		"in a part": {"Content-Type: multipart/mixed; boundary=x\r\n\r\n--x\r\nContent-Type: text/plain; name=\"ü.txt\"\r\n\r\nü\r\n--x--\r\n",
			"Content-Type: multipart/mixed; boundary=x\r\n\r\n--x\r\nContent-Type: text/plain; name=\"?.txt\"\r\n\r\nü\r\n--x--\r\n"},
		"no field": {"ünline\r\nSubject: x\r\n\r\n", "?nline\r\nSubject: x\r\n\r\n"},
	} {
		t.Run(name, func(t *testing.T) {
			v, size, err := Downgraded(strings.NewReader(c.in), int64(len(c.in)))
			if err != nil {
				t.Fatal(err)
			}
			if c.want == "" {
				c.want = c.in
			}
			if got, err := io.ReadAll(io.NewSectionReader(v, 0, size)); err != nil || string(got) != c.want {
				t.Errorf("got  %q, %v\nwant %q", got, err, c.want)
			}
		})
	}
}

// FuzzDowngraded: the header of the view has no UTF-8, and its body is the same.
func FuzzDowngraded(f *testing.F) {
	for _, s := range []string{"Subject: ü\n\nü", "From: ü: ü@ü, \"\xc3\xbc\"@x;\r\n\r\n", "ü: ü\n ü\n\n", "Content-Type: message/rfc822; x=ü\n\nTo: ü\n\n", "\xff: ü\n\n"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		v, size, err := Downgraded(bytes.NewReader(b), int64(len(b)))
		if err != nil {
			t.Fatal(err)
		}
		out, err := io.ReadAll(io.NewSectionReader(v, 0, size))
		if err != nil || int64(len(out)) != size {
			t.Fatalf("%d bytes of %d: %v", len(out), size, err)
		}
		root, err := Parse(bytes.NewReader(out), size, Limits{})
		if err != nil {
			t.Fatal(err)
		}
		stored, err := Parse(bytes.NewReader(b), int64(len(b)), Limits{})
		if err != nil {
			t.Fatal(err)
		}
		if root.IsMultipart() || root.Message != nil || stored.IsMultipart() || stored.Message != nil {
			return
		}
		if !bytes.Equal(out[root.BodyOffset:], b[stored.BodyOffset:]) {
			t.Fatalf("the body is %q, was %q", out[root.BodyOffset:], b[stored.BodyOffset:])
		}
	})
}
