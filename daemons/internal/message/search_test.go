package message

import (
	"bytes"
	"strings"
	"testing"
)

func TestSearch(t *testing.T) {
	all := fixtures(t)
	const (
		header = iota
		body
		text
	)
	for _, c := range []struct {
		message string
		kind    int
		field   string
		value   string
		want    bool
	}{
		{"plain", header, "Subject", "PLAIN mess", true},
		{"plain", header, "subject", "", true},
		{"plain", header, "x-none", "", false},
		{"plain", header, "Subject", "Carol", false},
		{"plain", header, "To", "carol, c.", true},
		{"plain", body, "", "hello", true},
		{"plain", body, "", "A plain message", false},
		{"plain", body, "", "", true},
		{"plain", text, "", "A plain message", true},
		{"plain", text, "", "subject: a PLAIN", true},
		{"plain", text, "", "hello bob", true},
		{"plain", text, "", "not there", false},
		{"alternative", header, "From", "jürgen müller", true},
		{"alternative", header, "From", "JÜRGEN", true},
		{"alternative", header, "Subject", "Grüße aus München", true},
		{"alternative", header, "References", "<root@example.test> <parent", true},
		{"alternative", header, "Received", "example.test with esmtp", true}, // folded by a tab
		{"alternative", header, "Content-ID", "text@", false},                // of a part
		{"alternative", text, "", "text@example.test", true},
		{"alternative", body, "", "text@example.test", false},
		{"alternative", body, "", "umgebrochen wird.", true}, // over a soft line break
		{"alternative", body, "", "schöne <b>", true},
		{"alternative", body, "", "SCHÖNE GRÜSSE", false}, // ß has no title case of its own
		{"alternative", body, "", "SCHÖNE", true},
		{"alternative", body, "", "iVBORw0K", false}, // an image is no text
		{"alternative", body, "", "multi-part message", false},
		{"forward", body, "", "needle in the", true},
		{"forward", body, "", "innermost", false}, // a header
		{"forward", text, "", "innermost", true},
		{"forward", header, "Subject", "innermost", false},
		{"report", body, "", "nobody@example", true},
		{"report", text, "", "grüße", true},
		{"charsets", header, "Subject", "привет мир", true},
		{"charsets", body, "", "ПРИВЕТ МИР", true},
		{"charsets", body, "", "こんにちは", true},
		{"charsets", body, "", "世界", true},
		{"charsets", body, "", "繁體", true},
		{"eight-bit", header, "To", "müller", true},
		{"eight-bit", header, "From", "jürgen", true},
		{"eight-bit", body, "", "GRÜ", true},
		{"nul", body, "", "in the BODY", true},
		{"bad-type", body, "", "BEGIN 644", true},
		{"empty", text, "", "x", false},
	} {
		s := &Search{}
		s.Text("never found, so that all is read")
		var i int
		switch c.kind {
		case header:
			i = s.Header(c.field, c.value)
		case body:
			i = s.Body(c.value)
		case text:
			i = s.Text(c.value)
		}
		b := all[c.message]
		got, err := s.Match(bytes.NewReader(b), mustParse(t, b))
		if err != nil || got[i] != c.want || got[0] {
			t.Errorf("%+v: %v, %v", c, got, err)
		}
	}
}

// A needle that lies anywhere across the pieces that a body is read in, and several keys at once.
func TestSearchAcrossPieces(t *testing.T) {
	const needle = "Ünder the Ĝarden"
	s := &Search{}
	found, other, missing := s.Body(needle), s.Body("the end"), s.Body("nowhere")
	for at := 2*chunkSize - 40; at < 2*chunkSize+10; at++ {
		b := []byte("Content-Type: text/plain; charset=utf-8\r\n\r\n" + strings.Repeat("é", at/2) + strings.Repeat("x", at%2) + strings.ToLower(needle) + strings.Repeat("y", 3*chunkSize) + "The End")
		got, err := s.Match(bytes.NewReader(b), mustParse(t, b))
		if err != nil || !got[found] || !got[other] || got[missing] {
			t.Fatalf("at %d: %v, %v", at, got, err)
		}
	}
}

func TestHeaderOnly(t *testing.T) {
	s := &Search{}
	i := s.Header("subject", "plain")
	if !s.HeaderOnly() {
		t.Error("a header key needs the body")
	}
	b := fixtures(t)["plain"]
	p, err := ParseHeader(bytes.NewReader(b), int64(len(b)), Limits{})
	if err != nil {
		t.Fatal(err)
	}
	if got, err := s.Match(bytes.NewReader(b), p); err != nil || !got[i] {
		t.Errorf("%v, %v", got, err)
	}
	s.Body("x")
	if s.HeaderOnly() || s.Len() != 2 {
		t.Error("a body key does not need the body")
	}
}

func TestPreview(t *testing.T) {
	all := fixtures(t)
	for name, want := range map[string]string{
		"plain":       "Hello Bob, this is plain.",
		"alternative": "Schöne Grüße, eine sehr lange Zeile, die umgebrochen wird.",
		"forward":     "See below.",
		"charsets":    "Größe café",
		"empty":       "",
	} {
		if got, err := Preview(bytes.NewReader(all[name]), mustParse(t, all[name]), 200); err != nil || got != want {
			t.Errorf("%s: %q, %v; want %q", name, got, err, want)
		}
	}
	for in, want := range map[string]string{
		"text/html\r\n\r\n<!DOCTYPE html><html><head><title>T</title><style>p {}</style></head><body><!-- c > d --><p>Hel<b>lo</b> &amp;<br>you</p><script>x<y</script> there": "Hello & you there",
		"text/html\r\n\r\n<p>unclosed <a href=":          "unclosed",
		"text/plain\r\n\r\n> quoted\r\nown\r\n> more":    "own",
		"text/plain\r\n\r\n> only\r\n> quoted":           "> only > quoted",
		"text/plain\r\n\r\n\u200b a \x01\t b \u00a0 c ":  "a b c",
		"text/plain\r\n\r\n" + strings.Repeat("ü ", 300): strings.TrimSpace(strings.Repeat("ü ", 100)),
		"image/png\r\n\r\nx":                             "",
	} {
		b := []byte("Content-Type: " + in)
		if got, err := Preview(bytes.NewReader(b), mustParse(t, b), 200); err != nil || got != want {
			t.Errorf("%q: %q, %v; want %q", in, got, err, want)
		}
	}
}
