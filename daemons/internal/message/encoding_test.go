package message

import (
	"bytes"
	"encoding/base64"
	"errors"
	"io"
	"math/rand/v2"
	"mime/quotedprintable"
	"strings"
	"testing"
	"testing/iotest"
)

// Every transfer-encoded stream decodes alike, however it is cut into reads.
func eachCut(t *testing.T, in string, d decoding, want string) {
	t.Helper()
	for name, r := range map[string]io.Reader{
		"whole": strings.NewReader(in), "bytes": iotest.OneByteReader(strings.NewReader(in)),
		"halves": iotest.HalfReader(strings.NewReader(in)), "data with error": iotest.DataErrReader(strings.NewReader(in)),
	} {
		got, err := io.ReadAll(decoded(r, d))
		if err != nil || string(got) != want {
			t.Errorf("%s of %.40q: %.80q (%d), %v; want %.80q (%d)", name, in, got, len(got), err, want, len(want))
		}
	}
}

func TestBase64(t *testing.T) {
	for in, want := range map[string]string{
		"":                      "",
		"aGVsbG8=":              "hello",
		"aGVsbG8":               "hello",
		"aGVs\r\nbG8=\r\n":      "hello",
		"a G!V*s\x00bG8=":       "hello",
		"aGVsbG8=aGVsbG8=":      "hellohello", // encoded in two pieces
		"aGVsbG8=\r\naGVsbG8=":  "hellohello",
		"a":                     "",
		"=":                     "",
		"aGVsbG8======aGVsbG8=": "hellohello",
	} {
		eachCut(t, in, base64Encoding, want)
	}
	rnd := rand.New(rand.NewPCG(1, 2))
	for range 20 {
		b := make([]byte, rnd.IntN(40000))
		for i := range b {
			b[i] = byte(rnd.Uint32())
		}
		enc := base64.StdEncoding.EncodeToString(b)
		var lines strings.Builder
		for len(enc) > 76 {
			lines.WriteString(enc[:76] + "\r\n")
			enc = enc[76:]
		}
		eachCut(t, lines.String()+enc, base64Encoding, string(b))
	}
}

func TestQuotedPrintable(t *testing.T) {
	for in, want := range map[string]string{
		"":                         "",
		"plain":                    "plain",
		"a=3Db=3db":                "a=b=b",
		"soft=\r\nbreak":           "softbreak",
		"soft= \t \r\nbreak":       "softbreak",
		"soft=\nbreak":             "softbreak",
		"blanks  \t\r\nend":        "blanks\r\nend",
		"blanks \t\nend":           "blanks\nend",
		"kept  inside":             "kept  inside",
		"at end  ":                 "at end  ",
		"=":                        "",
		"a=":                       "a",
		"=4":                       "=4",
		"=zz=":                     "=zz",
		"= x":                      "= x",
		"a \rb":                    "a \rb",
		"=C3=A9":                   "é",
		"line=\r\n":                "line",
		strings.Repeat(" ", 20000): strings.Repeat(" ", 20000),
	} {
		eachCut(t, in, quotedPrintable, want)
	}
	rnd := rand.New(rand.NewPCG(3, 4))
	for range 20 {
		b := make([]byte, rnd.IntN(30000))
		for i := range b {
			b[i] = " \tab=é\xff\r\n-"[rnd.IntN(11)]
		}
		var enc bytes.Buffer
		w := quotedprintable.NewWriter(&enc)
		w.Binary = true
		if _, err := w.Write(b); err != nil {
			t.Fatal(err)
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		eachCut(t, enc.String(), quotedPrintable, string(b))
	}
}

func TestTextDecodesCharsets(t *testing.T) {
	want := []string{"Größe café", "Größe 漢字", "こんにちは世界", "Привет мир", "你好，世界", "日本語", "Привет", "繁體中文", "안녕하세요"}
	b := fixtures(t)["charsets"]
	root := mustParse(t, b)
	if len(root.Children) != len(want) {
		t.Fatalf("%d parts, want %d", len(root.Children), len(want))
	}
	for i, p := range root.Children {
		got, err := io.ReadAll(p.Text(bytes.NewReader(b)))
		if err != nil || string(got) != want[i] {
			t.Errorf("%s: %q, %v; want %q", p.Param("charset"), got, err, want[i])
		}
	}
	if got := DecodeHeader(root.Envelope.Subject.Value); got != strings.Join(want, "") {
		t.Errorf("subject: %q", got)
	}
}

// Charset names that nobody knows, and those of text that lies about its charset.
func TestTextIsLenient(t *testing.T) {
	for _, c := range []struct{ charset, in, want string }{
		{"x-no-such", "Gr\xfc\xdfe", "Grüße"},
		{"us-ascii", "Gr\xc3\xbc\xdfe", "Grüße"},
		{"utf-8", "a\xffb", "aÿb"},
		{"utf-8", "cut \xe2\x82", "cut â‚"},
		{"utf-16le", "h\x00i\x00", "hi"},
		{"cp1251", "\xcf", "П"},
		{"iso-8859-1", "\x93x\x94", "“x”"},
	} {
		b := "Content-Type: text/plain; charset=" + c.charset + "\r\n\r\n" + c.in
		p := mustParse(t, []byte(b))
		for _, r := range []io.Reader{p.Text(strings.NewReader(b)), iotest.OneByteReader(p.Text(strings.NewReader(b)))} {
			if got, err := io.ReadAll(r); err != nil || string(got) != c.want {
				t.Errorf("%s %q: %q, %v; want %q", c.charset, c.in, got, err, c.want)
			}
		}
	}
}

// Boundaries and charsets in the extended syntax are unusual, and allowed.
func TestExtendedParamsAreUsed(t *testing.T) {
	b := []byte("Content-Type: multipart/mixed; boundary*0*=us-ascii''b%20; boundary*1=c\r\n\r\n--b c\r\nContent-Type: text/plain; charset*=us-ascii'en'koi8-r\r\n\r\n\xcd\r\n--b c--\r\n")
	root := mustParse(t, b)
	if len(root.Children) != 1 || root.Children[0].HeaderSize() == 0 {
		t.Fatalf("the boundary is not used: %+v", root)
	}
	if got, err := io.ReadAll(root.Children[0].Text(bytes.NewReader(b))); err != nil || string(got) != "м" {
		t.Errorf("%q, %v", got, err)
	}
}

func TestUnknownEncoding(t *testing.T) {
	b := fixtures(t)["bad-type"]
	root := mustParse(t, b)
	if _, err := root.BinarySize(bytes.NewReader(b), []int{1}); !errors.Is(err, ErrUnknownEncoding) {
		t.Errorf("x-uuencode: %v", err)
	}
	if _, err := root.BinarySize(bytes.NewReader(b), []int{2}); !errors.Is(err, ErrNoSection) {
		t.Errorf("no such part: %v", err)
	}
}
