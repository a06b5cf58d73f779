package sieve

import (
	"fmt"
	"io"
	"mime"
	"strings"

	"shoal/daemons/internal/message"
)

// mimeOptionTags choose what of a structured MIME field the header test compares (RFC 5703 §4.1).
var mimeOptionTags = tagSet{
	"type":        {needs: "mime", group: "MIME option"},
	"subtype":     {needs: "mime", group: "MIME option"},
	"contenttype": {needs: "mime", group: "MIME option"},
	"param":       {needs: "mime", group: "MIME option", takes: argStrings},
}

// mimeOption turns fields into the values that are compared.
func (c *compiler) mimeOption(b *bound) func(*run, []*field) ([]string, error) {
	var pick func(*field) []string
	var params []*text
	switch {
	case b.tag("type"):
		pick = func(f *field) []string { t, _, _ := strings.Cut(mediaType(f), "/"); return []string{t} }
	case b.tag("subtype"):
		pick = func(f *field) []string { _, t, _ := strings.Cut(mediaType(f), "/"); return []string{t} }
	case b.tag("contenttype"):
		pick = func(f *field) []string { return []string{mediaType(f)} }
	case b.tag("param"):
		params = c.texts(b.tags["param"])
	default:
		return func(_ *run, list []*field) (values []string, err error) {
			for _, f := range list {
				values = append(values, f.decoded())
			}
			return values, nil
		}
	}
	if !b.tag("mime") {
		c.fail(b.pos, "the tags for parts of MIME fields need :mime")
	}
	return func(r *run, list []*field) (values []string, err error) {
		names, err := r.expandAll(params)
		if err != nil {
			return nil, err
		}
		for _, f := range list {
			if params == nil {
				values = append(values, pick(f)...)
				continue
			}
			_, all, _ := mime.ParseMediaType(f.value())
			for _, name := range names {
				if v, ok := all[strings.ToLower(name)]; ok {
					values = append(values, message.DecodeHeader(v))
				}
			}
		}
		return values, nil
	}
}

// mediaType is a field's value without its parameters.
func mediaType(f *field) string {
	v, _, _ := strings.Cut(f.value(), ";")
	return strings.ToLower(strings.TrimSpace(v))
}

// bodyTags choose what of the body is compared (RFC 5173 §5).
var bodyTags = tagSet{
	"raw":     {group: "body transform"},
	"text":    {group: "body transform"},
	"content": {group: "body transform", takes: argStrings},
}

func buildBody(c *compiler, b *bound) cond {
	m := c.matcher(b, &b.args[0])
	var types []*text
	if a := b.tags["content"]; a != nil {
		types = c.texts(a)
	}
	raw := b.tag("raw")
	if m.kind == matchMatches { // RFC 5173 §6: no match variables
		return func(r *run) (bool, error) {
			before := r.matches
			yes, err := r.body(m, types, raw)
			r.matches = before
			return yes, err
		}
	}
	return func(r *run) (bool, error) { return r.body(m, types, raw) }
}

// body compares the body: as it is (raw), or the decoded content of the parts whose type begins with one of types;
// no types: text.
func (r *run) body(m *matcher, types []*text, raw bool) (bool, error) {
	root, err := r.structure()
	if err != nil {
		return false, err
	}
	left := r.lim.BodyBytes
	if raw {
		v, err := r.read(io.NewSectionReader(r.env.Message, root.BodyOffset, root.End-root.BodyOffset), &left)
		if err != nil {
			return false, err
		}
		return r.any(m, []string{v})
	}
	want := []string{"text"}
	if types == nil && r.texts != nil { // read for a test before
		work := 1
		for _, v := range r.texts {
			work += len(v) / 1024
		}
		if err := r.spend(work); err != nil {
			return false, err
		}
		return r.any(m, r.texts)
	}
	if types != nil {
		if want, err = r.expandAll(types); err != nil {
			return false, err
		}
	}
	var values []string
	for _, p := range descendants(root) {
		if !wanted(p, want) {
			continue
		}
		var content io.Reader
		switch {
		case p.IsMultipart(): // RFC 5173 §5.2: the text before and behind the parts is left out
			continue
		case p.Message != nil:
			content = io.NewSectionReader(r.env.Message, p.Message.HeaderOffset, p.Message.BodyOffset-p.Message.HeaderOffset)
		default: // the transfer encoding is undone for every type
			content = p.Text(r.env.Message)
		}
		v, err := r.read(content, &left)
		if err != nil {
			return false, err
		}
		values = append(values, v)
	}
	if types == nil {
		r.texts = values
	}
	return r.any(m, values)
}

// wanted: RFC 5173 §5.2, "" any part, "text" a type, "text/html" a type and subtype.
func wanted(p *message.Part, types []string) bool {
	for _, t := range types {
		t = strings.ToLower(t)
		switch {
		case strings.Count(t, "/") > 1 || strings.HasPrefix(t, "/") || strings.HasSuffix(t, "/"):
		case t == "", t == p.Type, t == p.MediaType():
			return true
		}
	}
	return false
}

// read gives what is left of the bound of a content.
func (r *run) read(content io.Reader, left *int64) (string, error) {
	text, err := io.ReadAll(io.LimitReader(content, *left))
	if err != nil {
		return "", fmt.Errorf("read the message: %w", err)
	}
	*left -= int64(len(text))
	return string(text), r.spend(1 + len(text)/1024)
}
