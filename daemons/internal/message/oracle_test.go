package message

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"mime"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/emersion/go-imap/v2"
	"github.com/emersion/go-imap/v2/imapserver"
	_ "github.com/emersion/go-message/charset"
	"github.com/emersion/go-message/textproto"
)

// go-imap's extraction functions read the same messages. Where they are known to be wrong, or to leave
// things out on purpose, the fixture is listed with the reason and not compared.
var oracleDisagrees = map[string]string{
	"addresses":      "leaves groups, routes and addresses without a domain out",
	"bad-type":       "gives the type text/ with no subtype",
	"bare-lf":        "writes headers anew with CRLF",
	"digest":         "gives the parts of a digest the default type text/plain in the structure",
	"empty":          "no header at all: cannot be read",
	"empty-parts":    "gives up at a part without a blank line",
	"junk-header":    "gives up at a line that is no field",
	"no-boundary":    "gives a multipart without parts, which IMAP has no form for",
	"nul":            "keeps NUL bytes",
	"only-header":    "a header without its blank line cannot be read",
	"unterminated":   "loses the parts behind an unterminated multipart",
	"wrong-boundary": "gives a multipart without parts, which IMAP has no form for",
	"rfc2231":        "joins no continuations of the boundary",
	"eight-bit":      "gives a Latin 1 name as it is and the date in another form",
}

func TestAgainstGoIMAP(t *testing.T) {
	for name, b := range fixtures(t) {
		t.Run(name, func(t *testing.T) {
			differences := compareWithGoIMAP(t, b)
			reason := oracleDisagrees[name]
			switch {
			case reason == "" && len(differences) > 0:
				t.Error(strings.Join(differences, "\n"))
			case reason != "" && len(differences) == 0:
				t.Errorf("go-imap agrees, although it is said that it %s", reason)
			}
		})
	}
}

// compareWithGoIMAP tells where go-imap says something else about a message.
func compareWithGoIMAP(t *testing.T, b []byte) (differences []string) {
	differ := func(what string, got, want any) {
		differences = append(differences, fmt.Sprintf("%s:\n%+v\n%+v", what, got, want))
	}
	root := mustParse(t, b)
	header, err := textproto.ReadHeader(bufio.NewReader(bytes.NewReader(b)))
	if err != nil {
		differ("header", nil, err)
	}
	if got, want := oracleEnvelope(root.Envelope), imapserver.ExtractEnvelope(header); !sameEnvelope(got, want) {
		differ("envelope", got, want)
	}
	got, want := oracleStructure(root), normal(imapserver.ExtractBodyStructure(bytes.NewReader(b)))
	if !reflect.DeepEqual(got, want) {
		differ("structure", got, want)
	}
	sections(root, func(path []int) {
		compareSections(t, root, b, path, differ)
	})
	return differences
}

// sections calls f for each part number of a message.
func sections(root *Part, f func(path []int)) {
	f(nil)
	var walk func(p *Part, path []int)
	walk = func(p *Part, path []int) {
		for n := 1; root.Find(append(path, n)) != nil && len(path) < 6; n++ {
			child := append(slices.Clone(path), n)
			f(child)
			if c := root.Find(child); c.IsMultipart() || c.Message != nil {
				walk(c, child)
			}
		}
	}
	walk(root, nil)
}

func compareSections(t *testing.T, root *Part, b []byte, path []int, differ func(string, any, any)) {
	r := bytes.NewReader(b)
	for _, item := range []imap.FetchItemBodySection{
		{},
		{Specifier: imap.PartSpecifierHeader},
		{Specifier: imap.PartSpecifierText},
		{Specifier: imap.PartSpecifierMIME},
		{Specifier: imap.PartSpecifierHeader, HeaderFields: []string{"subject", "CONTENT-TYPE", "x-none"}},
		{Specifier: imap.PartSpecifierHeader, HeaderFieldsNot: []string{"Subject", "To"}},
		{Partial: &imap.SectionPartial{Offset: 3, Size: 7}},
		{Partial: &imap.SectionPartial{Offset: 100000, Size: 7}},
	} {
		item.Part = path
		s, err := root.Section(r, &item)
		if err != nil {
			continue // the oracle answers where the grammar has no section: a MIME header of the whole, TEXT of a part
		}
		got, err := io.ReadAll(s)
		if err != nil {
			t.Fatal(err)
		}
		if want := imapserver.ExtractBodySection(bytes.NewReader(b), &item); string(got) != string(want) {
			differ(fmt.Sprintf("section %v %s %v %v", path, item.Specifier, item.HeaderFields, item.Partial), string(got), string(want))
		}
	}
	binary := imap.FetchItemBinarySection{Part: path}
	if len(path) == 0 || root.Find(path).IsMultipart() {
		return
	}
	content, err := root.Binary(r, &binary)
	if err != nil {
		differ(fmt.Sprintf("binary %v", path), err, nil)
		return
	}
	got, err := io.ReadAll(content)
	if err != nil {
		t.Fatal(err)
	}
	// The oracle converts the character set, too, which BINARY does not ask for.
	if cs := root.Find(path).Param("charset"); cs != "" && cs != "us-ascii" && cs != "utf-8" {
		return
	}
	if want := imapserver.ExtractBinarySection(bytes.NewReader(b), &binary); string(got) != string(want) {
		differ(fmt.Sprintf("binary %v", path), string(got), string(want))
	}
	if size, err := root.BinarySize(r, path); err != nil || size != int64(len(got)) {
		t.Errorf("binary size %v: %d, %v; content has %d", path, size, err, len(got))
	}
}

func oracleEnvelope(e *Envelope) *imap.Envelope {
	date, _ := ParseDate(e.Date.Value)
	list := func(in []Address) (out []imap.Address) {
		for _, a := range in {
			if a.Host != "" && a.Host != MissingDomain {
				out = append(out, imap.Address{Name: DecodeHeader(a.Name), Mailbox: a.Mailbox, Host: a.Host})
			}
		}
		return out
	}
	out := &imap.Envelope{
		Date: date, Subject: DecodeHeader(e.Subject.Value),
		From: list(e.From), To: list(e.To), Cc: list(e.Cc), Bcc: list(e.Bcc),
		InReplyTo: MessageIDs(e.InReplyTo.Value),
	}
	if ids := MessageIDs(e.MessageID.Value); len(ids) > 0 {
		out.MessageID = ids[0]
	}
	if !reflect.DeepEqual(e.Sender, e.From) {
		out.Sender = list(e.Sender)
	}
	if !reflect.DeepEqual(e.ReplyTo, e.From) {
		out.ReplyTo = list(e.ReplyTo)
	}
	return out
}

func sameEnvelope(a, b *imap.Envelope) bool {
	same := a.Date.Equal(b.Date)
	x, y := *a, *b
	x.Date, y.Date = a.Date, a.Date
	return same && reflect.DeepEqual(x, y)
}

// oracleStructure is the structure in the form that go-imap gives, which decodes parameters.
func oracleStructure(p *Part) imap.BodyStructure {
	params := func(list []Param) map[string]string {
		m := map[string]string{}
		for _, p := range list {
			m[strings.TrimSuffix(p.Name, "*")], _ = decodedParam(list, strings.TrimSuffix(p.Name, "*"))
		}
		return m
	}
	var disposition *imap.BodyStructureDisposition
	if d := p.Disposition; d != nil {
		disposition = &imap.BodyStructureDisposition{Value: d.Value, Params: params(d.Params)}
	}
	if p.IsMultipart() {
		m := &imap.BodyStructureMultiPart{Subtype: p.Subtype, Extended: &imap.BodyStructureMultiPartExt{
			Params: params(p.Params), Disposition: disposition, Language: p.Language, Location: p.Location.Value,
		}}
		for _, c := range p.Children {
			m.Children = append(m.Children, oracleStructure(c))
		}
		return m
	}
	s := &imap.BodyStructureSinglePart{
		Type: p.Type, Subtype: p.Subtype, Params: params(p.Params), ID: p.ID.Value, Description: p.Description.Value,
		Encoding: p.Encoding, Size: uint32(p.BodySize()),
		Extended: &imap.BodyStructureSinglePartExt{Disposition: disposition, Language: p.Language, Location: p.Location.Value},
	}
	if p.IsText() {
		s.Text = &imap.BodyStructureText{NumLines: p.Lines}
	}
	if p.Message != nil {
		s.MessageRFC822 = &imap.BodyStructureMessageRFC822{
			Envelope: oracleEnvelope(p.Message.Envelope), BodyStructure: oracleStructure(p.Message), NumLines: p.Lines,
		}
	}
	return s
}

// normal fills in the defaults that go-imap leaves out and takes the zones out of dates.
func normal(bs imap.BodyStructure) imap.BodyStructure {
	switch bs := bs.(type) {
	case *imap.BodyStructureMultiPart:
		for i := range bs.Children {
			bs.Children[i] = normal(bs.Children[i])
		}
		if bs.Extended.Params == nil {
			bs.Extended.Params = map[string]string{}
		}
	case *imap.BodyStructureSinglePart:
		if bs.Encoding == "" {
			bs.Encoding = "7bit"
		}
		if bs.Params == nil {
			bs.Params = map[string]string{}
			if bs.Type == "text" {
				bs.Params["charset"] = "us-ascii"
			}
		}
		if m := bs.MessageRFC822; m != nil {
			m.BodyStructure = normal(m.BodyStructure)
		}
	}
	return bs
}

// The standard library reads encoded words, too, and joins neighbours as we do.
func TestDecodeHeaderAgainstMIME(t *testing.T) {
	for _, s := range []string{
		"=?utf-8?Q?J=C3=BCrgen?= <j@example.test>", "=?iso-8859-1?q?a_b?= =?iso-8859-1?q?_c?=", "plain", "a =?utf-8?b?w6Q=?= b",
		"=?utf-8?q?=C3=BC?==?utf-8?q?=C3=A4?=", "=?utf-8?x?abc?= d", "=?utf-8?q?unclosed", "=? ?=",
	} {
		want, err := (&mime.WordDecoder{}).DecodeHeader(s)
		if err != nil {
			t.Fatal(err)
		}
		if got := DecodeHeader(s); got != want {
			t.Errorf("%q: %q, want %q", s, got, want)
		}
	}
}
