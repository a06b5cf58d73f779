package sieve

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"

	"shoal/daemons/internal/mailaddr"
	"shoal/daemons/internal/message"
)

// field is one header field as it stands in the message.
type field struct {
	name string // as written
	raw  string // the whole field, with its line ends

	// What was asked for before.
	text string             // decoded
	list []mailaddr.Address // addresses
	done struct{ text, list bool }
}

// value is what stands behind the colon, unfolded but not decoded.
func (f *field) value() string {
	_, v, _ := strings.Cut(f.raw, ":")
	v = strings.ReplaceAll(strings.ReplaceAll(v, "\r\n", "\n"), "\n", "")
	return strings.Trim(v, " \t\r")
}

// decoded is the value for comparing: RFC 2047 words decoded (RFC 5228 §2.7.2).
func (f *field) decoded() string {
	if !f.done.text {
		f.text, f.done.text = strings.TrimSpace(message.DecodeHeader(f.value())), true
	}
	return f.text
}

// addresses are the mailboxes of an address list.
func (f *field) addresses() []mailaddr.Address {
	if !f.done.list {
		f.list, f.done.list = addresses(f.value()), true
	}
	return f.list
}

// splitHeader reads the fields of a header. Lines that belong to none are kept with the field before them, so that
// nothing is lost when the header is written again.
func splitHeader(text []byte) []field {
	list := make([]field, 0, 16)
	for len(text) > 0 {
		n := bytes.IndexByte(text, '\n') + 1
		if n == 0 {
			n = len(text)
		}
		line := string(text[:n])
		text = text[n:]
		if strings.Trim(line, "\r\n") == "" {
			break
		}
		name, _, ok := strings.Cut(line, ":")
		name = strings.TrimRight(name, " \t")
		if ok && fieldName(name) {
			list = append(list, field{name: name, raw: line})
		} else if len(list) > 0 {
			list[len(list)-1].raw += line
		}
	}
	return list
}

// fieldName: RFC 5322 §3.6.8.
func fieldName(name string) bool {
	for i := range len(name) {
		if name[i] <= ' ' || name[i] >= 0x7f || name[i] == ':' {
			return false
		}
	}
	return name != ""
}

// fields are the header fields of the message, as edited so far.
func (r *run) fields() ([]field, error) {
	if r.header != nil {
		return r.header, nil
	}
	text, err := r.headerText()
	if err != nil {
		return nil, err
	}
	r.header = splitHeader(text)
	return r.header, r.spend(1 + len(text)/1024)
}

// headerText reads the header of the message, blank line included, and notes where the body begins.
func (r *run) headerText() ([]byte, error) {
	var text []byte
	for int64(len(text)) < min(r.env.Size, r.lim.HeaderBytes) {
		old := len(text)
		text = append(text, make([]byte, min(max(4096, int64(old)), min(r.env.Size, r.lim.HeaderBytes)-int64(old)))...)
		if _, err := r.env.Message.ReadAt(text[old:], int64(old)); err != nil && !errors.Is(err, io.EOF) {
			return nil, fmt.Errorf("read the message: %w", err)
		}
		if n := blankLine(text, max(0, old-3)); n > 0 {
			r.bodyAt = int64(n)
			return text[:n], nil
		}
	}
	if int64(len(text)) == r.env.Size {
		r.bodyAt = r.env.Size
		return text, nil
	}
	p, err := message.ParseHeader(r.env.Message, r.env.Size, message.Limits{})
	if err != nil {
		return nil, fmt.Errorf("read the message: %w", err)
	}
	r.bodyAt = p.BodyOffset
	return text, nil
}

// blankLine is where the first blank line ends that ends behind from; 0: there is none.
func blankLine(text []byte, from int) int {
	if from == 0 {
		if bytes.HasPrefix(text, []byte("\r\n")) {
			return 2
		}
		if bytes.HasPrefix(text, []byte("\n")) {
			return 1
		}
	}
	for {
		i := bytes.IndexByte(text[from:], '\n')
		if i < 0 {
			return 0
		}
		from += i + 1
		if bytes.HasPrefix(text[from:], []byte("\n")) {
			return from + 1
		}
		if bytes.HasPrefix(text[from:], []byte("\r\n")) {
			return from + 2
		}
	}
}

// readHeader reads the header of the message or a part.
func (r *run) readHeader(p *message.Part) ([]field, error) {
	text := make([]byte, min(p.BodyOffset-p.HeaderOffset, r.lim.HeaderBytes))
	if _, err := r.env.Message.ReadAt(text, p.HeaderOffset); err != nil && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("read the message: %w", err)
	}
	return splitHeader(text), r.spend(1 + len(text)/1024)
}

// structure is the tree of the message's parts.
func (r *run) structure() (*message.Part, error) {
	if r.root == nil {
		root, err := message.Parse(r.env.Message, r.env.Size, message.Limits{})
		if err != nil {
			return nil, fmt.Errorf("read the message: %w", err)
		}
		r.root = root
		if err := r.spend(1 + int(r.env.Size>>20)); err != nil {
			return nil, err
		}
	}
	return r.root, nil
}

// named picks the fields of a name, in their order.
func named(list []field, name string) (out []*field) {
	for i := range list {
		if strings.EqualFold(list[i].name, name) {
			out = append(out, &list[i])
		}
	}
	return out
}

// one is the first value of a field of the message; "" where there is none.
func (r *run) one(name string) (string, error) {
	list, err := r.fields()
	if err != nil {
		return "", err
	}
	if f := named(list, name); len(f) > 0 {
		return f[0].value(), nil
	}
	return "", nil
}

// source says where header, address, exists and date look: the message, or parts of it (RFC 5703 §4), and which
// occurrence of the field (RFC 5260 §6).
type source struct {
	mime, anyChild bool
	index          int // 0: all
	last           bool
}

var indexTags = tagSet{
	"index": {needs: "index", takes: argNumber},
	"last":  {needs: "index"},
}

var mimeTags = tagSet{
	"mime":     {needs: "mime"},
	"anychild": {needs: "mime"},
}

func (c *compiler) source(b *bound) source {
	s := source{mime: b.tag("mime"), anyChild: b.tag("anychild"), last: b.tag("last")}
	if a := b.tags["index"]; a != nil {
		if a.num < 1 || a.num > 1<<20 {
			c.fail(a.pos, "fields count from 1")
		}
		s.index = int(min(a.num, 1<<20))
	} else if s.last && b.name != "addheader" {
		c.fail(b.pos, ":last says from which end :index counts, and needs it")
	}
	if s.anyChild && !s.mime {
		c.fail(b.pos, ":anychild needs :mime")
	}
	return s
}

// lists gives the headers that a test looks at.
func (r *run) lists(s source) ([][]field, error) {
	if !s.mime {
		list, err := r.fields()
		return [][]field{list}, err
	}
	p, err := r.part()
	if err != nil {
		return nil, err
	}
	var parts []*message.Part
	if s.anyChild {
		parts = descendants(p)
	} else {
		parts = []*message.Part{p}
	}
	var out [][]field
	for _, p := range parts {
		list, err := r.partFields(p)
		if err != nil {
			return nil, err
		}
		out = append(out, list)
	}
	return out, nil
}

// part is the part that the innermost foreverypart is at, or the message.
func (r *run) part() (*message.Part, error) {
	if n := len(r.loop); n > 0 {
		return r.loop[n-1], nil
	}
	return r.structure()
}

func (r *run) partFields(p *message.Part) ([]field, error) {
	if p == r.root {
		return r.fields()
	}
	return r.readHeader(p)
}

// descendants are a part and all parts below it, those of embedded messages included, in the order of the message.
func descendants(p *message.Part) (list []*message.Part) {
	list = append(list, p)
	for _, c := range p.Children {
		list = append(list, descendants(c)...)
	}
	if p.Message != nil {
		list = append(list, descendants(p.Message)...)
	}
	return list
}

// pick gives the fields of the names in each header, or the one that :index asks for.
func (r *run) pick(s source, names []string) (out []*field, err error) {
	lists, err := r.lists(s)
	if err != nil {
		return nil, err
	}
	for _, list := range lists {
		for _, name := range names {
			if err := r.spend(1 + len(list)/16); err != nil {
				return nil, err
			}
			found := named(list, name)
			if s.index > 0 {
				i := s.index - 1
				if s.last {
					i = len(found) - s.index
				}
				if i < 0 || i >= len(found) {
					continue
				}
				found = found[i : i+1]
			}
			out = append(out, found...)
		}
	}
	return out, nil
}

// edited is the message with its header as it is now; nil when nothing was changed.
func (r *run) edited() *Edited {
	if r.edits == 0 {
		return nil
	}
	if r.version == nil {
		var b bytes.Buffer
		for _, f := range r.header {
			b.WriteString(f.raw)
			if !strings.HasSuffix(f.raw, "\n") {
				b.WriteString("\r\n")
			}
		}
		b.WriteString("\r\n")
		r.version = &Edited{b.Bytes(), r.bodyAt}
	}
	return r.version
}
