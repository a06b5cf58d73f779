package imapwire

import (
	"strings"
)

// FetchKind names a data item of FETCH.
type FetchKind uint8

// The data items.
const (
	FetchFlags FetchKind = iota + 1
	FetchUID
	FetchInternalDate
	FetchSize         // RFC822.SIZE
	FetchEnvelope     //
	FetchBody         // BODY: the structure without its extension data
	FetchStructure    // BODYSTRUCTURE
	FetchSection      // BODY[...], BODY.PEEK[...]
	FetchRFC822       // RFC822, answered under that name
	FetchRFC822Header // RFC822.HEADER
	FetchRFC822Text   // RFC822.TEXT
	FetchModSeq       // MODSEQ (RFC 7162)
	FetchBinary       // BINARY[...], BINARY.PEEK[...] (RFC 3516)
	FetchBinarySize   // BINARY.SIZE[...]
	FetchEmailID      // EMAILID (RFC 8474)
	FetchThreadID     // THREADID (RFC 8474)
	FetchSaveDate     // SAVEDATE (RFC 8514)
	FetchPreview      // PREVIEW (RFC 8970)
)

// SectionText names what of a part a section means.
type SectionText uint8

// The section texts.
const (
	SectionWhole SectionText = iota
	SectionHeader
	SectionHeaderFields
	SectionHeaderFieldsNot
	SectionBodyText
	SectionMIME
)

// FetchItem is one data item with its arguments.
//
//	BODY ["." "PEEK"] section ["<" number "." nz-number ">"]
//	section      = "[" [section-spec] "]"
//	section-spec = section-msgtext / (section-part ["." section-text])
//	section-part = nz-number *("." nz-number)
type FetchItem struct {
	Kind       FetchKind
	Peek       bool // \Seen is not set
	Text       SectionText
	Partial    bool // Offset and Length bound the answer
	Lazy       bool // PREVIEW (LAZY)
	Part       []int
	Fields     []string // HEADER.FIELDS and HEADER.FIELDS.NOT
	Offset     uint64
	Length     uint64
	SectionTag string // the item as it is named in the answer, "BODY[1.2.HEADER]<0>" for instance
}

// maxPartDepth bounds section-part. Message structures are cut off at a smaller depth.
const maxPartDepth = 100

// FetchItems takes the second argument of FETCH: one item, a macro, or a list of items. Macros are
// expanded; an item that is asked for twice is given once.
//
//	ALL  = (FLAGS INTERNALDATE RFC822.SIZE ENVELOPE)
//	FAST = (FLAGS INTERNALDATE RFC822.SIZE)
//	FULL = (FLAGS INTERNALDATE RFC822.SIZE ENVELOPE BODY)
func (d *Decoder) FetchItems() ([]FetchItem, error) {
	if d.Peek() == '(' {
		var items []FetchItem
		err := d.List(func() error {
			item, err := d.fetchItem()
			if err != nil {
				return err
			}
			if len(items) == d.lim.FetchItems {
				return syntaxf("more than %d items to fetch", d.lim.FetchItems)
			}
			items = addItem(items, item)
			return nil
		})
		if err == nil && len(items) == 0 {
			err = syntaxf("empty list of items to fetch")
		}
		return items, err
	}
	var kinds []FetchKind
	switch {
	case d.AcceptWord("ALL"):
		kinds = []FetchKind{FetchFlags, FetchInternalDate, FetchSize, FetchEnvelope}
	case d.AcceptWord("FAST"):
		kinds = []FetchKind{FetchFlags, FetchInternalDate, FetchSize}
	case d.AcceptWord("FULL"):
		kinds = []FetchKind{FetchFlags, FetchInternalDate, FetchSize, FetchEnvelope, FetchBody}
	default:
		item, err := d.fetchItem()
		return []FetchItem{item}, err
	}
	items := make([]FetchItem, len(kinds))
	for i, k := range kinds {
		items[i].Kind = k
	}
	return items, nil
}

func addItem(items []FetchItem, item FetchItem) []FetchItem {
	for i := range items {
		if items[i].Kind == item.Kind && items[i].SectionTag == item.SectionTag &&
			items[i].Length == item.Length && items[i].Peek == item.Peek {
			return items
		}
	}
	return append(items, item)
}

var plainItems = map[string]FetchKind{
	"FLAGS": FetchFlags, "UID": FetchUID, "INTERNALDATE": FetchInternalDate, "ENVELOPE": FetchEnvelope,
	"BODYSTRUCTURE": FetchStructure, "RFC822": FetchRFC822, "RFC822.SIZE": FetchSize,
	"RFC822.HEADER": FetchRFC822Header, "RFC822.TEXT": FetchRFC822Text, "MODSEQ": FetchModSeq,
	"EMAILID": FetchEmailID, "THREADID": FetchThreadID, "SAVEDATE": FetchSaveDate,
}

func (d *Decoder) fetchItem() (FetchItem, error) {
	start := d.pos
	for d.pos < len(d.line) && isAtomChar(d.line[d.pos]) && d.line[d.pos] != '[' {
		d.pos++
	}
	name := upper(d.line[start:d.pos])
	if kind, ok := plainItems[name]; ok {
		return FetchItem{Kind: kind}, nil
	}
	item := FetchItem{Kind: FetchSection}
	switch name {
	case "BODY":
		if d.Peek() != '[' {
			return FetchItem{Kind: FetchBody}, nil
		}
	case "BODY.PEEK":
		item.Peek = true
	case "BINARY":
		item.Kind = FetchBinary
	case "BINARY.PEEK":
		item.Kind, item.Peek = FetchBinary, true
	case "BINARY.SIZE":
		item.Kind, item.Peek = FetchBinarySize, true
	case "PREVIEW":
		return d.previewItem()
	default:
		d.pos = start
		return FetchItem{}, syntaxf("unknown item to fetch: %s", d.Rest())
	}
	if err := d.section(&item); err != nil {
		return FetchItem{}, err
	}
	if item.Kind != FetchBinarySize && d.Accept('<') {
		if err := d.partial(&item); err != nil {
			return FetchItem{}, err
		}
	}
	item.SectionTag = string(item.appendTag(nil))
	return item, nil
}

// previewItem takes the modifiers of PREVIEW: "(LAZY)".
func (d *Decoder) previewItem() (FetchItem, error) {
	item := FetchItem{Kind: FetchPreview}
	if d.pos+1 < len(d.line) && d.line[d.pos] == ' ' && d.line[d.pos+1] == '(' {
		d.pos++
		err := d.List(func() error {
			if !d.AcceptWord("LAZY") {
				return syntaxf("unknown modifier of PREVIEW: %s", d.Rest())
			}
			item.Lazy = true
			return nil
		})
		if err != nil {
			return item, err
		}
	}
	return item, nil
}

// section takes "[" ... "]".
func (d *Decoder) section(item *FetchItem) error {
	if err := d.Expect('['); err != nil {
		return err
	}
	for c := d.Peek(); '1' <= c && c <= '9'; c = d.Peek() {
		n, err := d.NonZero32()
		if err != nil {
			return err
		}
		if len(item.Part) == maxPartDepth {
			return syntaxf("part number is more than %d levels deep", maxPartDepth)
		}
		item.Part = append(item.Part, int(n))
		if d.Accept(']') {
			return nil
		}
		if err := d.Expect('.'); err != nil {
			return err
		}
	}
	if d.Accept(']') {
		if len(item.Part) > 0 {
			return syntaxf("part number ends in '.'")
		}
		return nil
	}
	if item.Kind != FetchSection {
		return syntaxf("a binary section is a part number, not: %s", d.Rest())
	}
	word, err := d.sectionWord()
	if err != nil {
		return err
	}
	switch word {
	case "HEADER":
		item.Text = SectionHeader
	case "TEXT":
		item.Text = SectionBodyText
	case "MIME":
		if len(item.Part) == 0 {
			return syntaxf("MIME needs a part number")
		}
		item.Text = SectionMIME
	case "HEADER.FIELDS", "HEADER.FIELDS.NOT":
		item.Text = SectionHeaderFields
		if word != "HEADER.FIELDS" {
			item.Text = SectionHeaderFieldsNot
		}
		if err := d.SP(); err != nil {
			return err
		}
		if err := d.headerFields(item); err != nil {
			return err
		}
	default:
		return syntaxf("unknown section %s", word)
	}
	return d.Expect(']')
}

func (d *Decoder) sectionWord() (string, error) {
	start := d.pos
	for d.pos < len(d.line) && isAtomChar(d.line[d.pos]) {
		d.pos++
	}
	if d.pos == start {
		return "", d.wanted("a section")
	}
	return upper(d.line[start:d.pos]), nil
}

func (d *Decoder) headerFields(item *FetchItem) error {
	err := d.List(func() error {
		name, err := d.AString()
		if err != nil {
			return err
		}
		if !isFieldName(name) {
			return syntaxf("%q is not the name of a header field", excerpt([]byte(name)))
		}
		if len(item.Fields) == d.lim.FetchItems {
			return syntaxf("more than %d header fields", d.lim.FetchItems)
		}
		item.Fields = append(item.Fields, name)
		return nil
	})
	if err == nil && len(item.Fields) == 0 {
		err = syntaxf("empty list of header fields")
	}
	return err
}

// isFieldName: RFC 5322 §3.6.8, printable ASCII without the colon.
func isFieldName(s string) bool {
	for i := 0; i < len(s); i++ {
		if s[i] <= ' ' || s[i] >= 0x7f || s[i] == ':' {
			return false
		}
	}
	return s != ""
}

// partial takes "<" number "." nz-number ">" behind its first character.
func (d *Decoder) partial(item *FetchItem) (err error) {
	item.Partial = true
	if item.Offset, err = d.Number(); err != nil {
		return err
	}
	if err = d.Expect('.'); err != nil {
		return err
	}
	if item.Length, err = d.Number(); err != nil {
		return err
	}
	if item.Length == 0 {
		return syntaxf("the length of a partial fetch must not be 0")
	}
	return d.Expect('>')
}

// appendTag appends the name under which the item is answered: PEEK left out, and of the partial
// range the offset only.
func (item *FetchItem) appendTag(b []byte) []byte {
	switch item.Kind {
	case FetchBinary:
		b = append(b, "BINARY["...)
	case FetchBinarySize:
		b = append(b, "BINARY.SIZE["...)
	default:
		b = append(b, "BODY["...)
	}
	for i, n := range item.Part {
		if i > 0 {
			b = append(b, '.')
		}
		b = appendUint(b, uint64(n))
	}
	if len(item.Part) > 0 && item.Text != SectionWhole {
		b = append(b, '.')
	}
	switch item.Text {
	case SectionHeader:
		b = append(b, "HEADER"...)
	case SectionBodyText:
		b = append(b, "TEXT"...)
	case SectionMIME:
		b = append(b, "MIME"...)
	case SectionHeaderFields, SectionHeaderFieldsNot:
		b = append(b, "HEADER.FIELDS"...)
		if item.Text == SectionHeaderFieldsNot {
			b = append(b, ".NOT"...)
		}
		b = append(b, " ("...)
		for i, f := range item.Fields {
			if i > 0 {
				b = append(b, ' ')
			}
			b = appendAString(b, strings.ToUpper(f))
		}
		b = append(b, ')')
	}
	b = append(b, ']')
	if item.Partial {
		b = append(b, '<')
		b = appendUint(b, item.Offset)
		b = append(b, '>')
	}
	return b
}
