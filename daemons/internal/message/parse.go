package message

import (
	"io"
	"sync"
)

// Parse reads the structure of the size bytes behind r. It fails only when r does, or when r
// ends before size.
func Parse(r io.ReaderAt, size int64, limits Limits) (*Part, error) {
	return parse(r, size, limits, false)
}

// ParseHeader reads the header of the message only: enough for its envelope and its header
// fields. The part that it returns has no children, and its Lines are 0.
func ParseHeader(r io.ReaderAt, size int64, limits Limits) (*Part, error) {
	return parse(r, size, limits, true)
}

// parser builds the tree of parts over a scanner.
type parser struct {
	scanner
	header headerReader
	lim    Limits
	parts  int
}

var parsers = sync.Pool{New: func() any { return new(parser) }}

func parse(r io.ReaderAt, size int64, limits Limits, headerOnly bool) (*Part, error) {
	p := parsers.Get().(*parser)
	buf := scanBuffers.Get().(*[]byte)
	defer func() {
		scanBuffers.Put(buf)
		*p = parser{
			scanner: scanner{bounds: p.bounds[:0]},
			header:  headerReader{arena: p.header.arena[:0], fields: p.header.fields[:0]},
		}
		if cap(p.header.arena) <= bufferSize {
			parsers.Put(p)
		}
	}()
	p.scanner = scanner{r: r, size: size, buf: *buf, bol: true, bounds: p.bounds[:0]}
	p.lim = limits.withDefaults()
	root := &Part{}
	if headerOnly {
		p.readHeader(root, true, false, false)
		root.End = size
	} else {
		p.entity(root, 0, true, false, false)
	}
	if p.err != nil {
		return nil, p.err
	}
	return root, nil
}

// entity reads one entity from its header on, up to the delimiter that ends it, and returns that.
func (p *parser) entity(e *Part, depth int, isMessage, isPart, inDigest bool) delimiter {
	p.parts++
	p.full = p.parts >= p.lim.Parts
	lines := p.lines
	d, ended := p.readHeader(e, isMessage, isPart, inDigest)
	if !ended {
		lines = p.lines
		d = p.body(e, depth)
	}
	p.finish(e, d, lines)
	return d
}

// body reads the body of e as its type asks for.
func (p *parser) body(e *Part, depth int) delimiter {
	multipart, embedded := e.Type == "multipart", isMessageType(e.Type, e.Subtype)
	if (multipart || embedded) && depth >= p.lim.Depth {
		e.Type, e.Subtype, e.Params, e.Truncated = "application", "octet-stream", nil, true
		return p.skipBody()
	}
	switch {
	case multipart:
		return p.multipart(e, depth)
	case embedded:
		e.Message = &Part{}
		return p.entity(e.Message, depth+1, true, false, false)
	}
	return p.skipBody()
}

func (p *parser) multipart(e *Part, depth int) delimiter {
	boundary := e.Param("boundary")
	if boundary == "" || len(boundary) > maxBoundary {
		return p.skipBody()
	}
	level := len(p.bounds)
	p.push(boundary)
	d := p.skipBody()
	for d.level == level && !d.closing {
		p.skipLine()
		c := &Part{}
		e.Children = append(e.Children, c)
		d = p.entity(c, depth+1, false, true, e.Subtype == "digest")
	}
	p.pop()
	if d.level == level { // closed: what follows, up to the next delimiter outside, is the epilogue
		p.skipLine()
		d = p.skipBody()
	}
	e.Truncated = e.Truncated || p.ignored
	return d
}

// finish sets the end of e, now that the delimiter behind it is known. lines is the number of lines
// before its body.
//
// The line break before a delimiter belongs to the delimiter. Where the body is empty it is the one
// of the header's last line that does: RFC 2046 §5.1.1, body-part without its optional part.
func (p *parser) finish(e *Part, d delimiter, lines int64) {
	e.End = p.off
	e.Lines = p.lines - lines
	if d.level != noLevel {
		e.End = max(e.HeaderOffset, p.off-int64(p.brk))
		if e.Lines > 0 {
			e.Lines--
		}
	}
	e.BodyOffset = min(e.BodyOffset, e.End)
	if e.BodyOffset == e.End {
		e.Lines = 0
	}
	if n := len(e.Children); n > 0 {
		e.Children[n-1].clamp(e.End)
	}
	if e.Message != nil {
		e.Message.clamp(e.End)
	}
	if e.Type == "multipart" && len(e.Children) == 0 {
		e.Children = []*Part{{
			HeaderOffset: e.BodyOffset, BodyOffset: e.BodyOffset, End: e.End, Lines: e.Lines,
			Type: "text", Subtype: "plain", Params: defaultParams, Encoding: "7bit",
		}}
	}
	if isMessageType(e.Type, e.Subtype) && e.Message == nil {
		e.Message = emptyMessage(e.BodyOffset)
	}
}

// clamp keeps an entity within what it is part of: an empty one may begin where the delimiter behind it
// does, and so behind the line break that belongs to that delimiter.
func (p *Part) clamp(end int64) {
	if p.End <= end {
		return
	}
	p.End = end
	p.BodyOffset, p.HeaderOffset = min(p.BodyOffset, end), min(p.HeaderOffset, end)
	for _, c := range p.Children {
		c.clamp(end)
	}
	if p.Message != nil {
		p.Message.clamp(end)
	}
}

// emptyMessage is what a message/rfc822 part without any bytes holds.
func emptyMessage(at int64) *Part {
	return &Part{
		HeaderOffset: at, BodyOffset: at, End: at,
		Type: "text", Subtype: "plain", Params: defaultParams, Encoding: "7bit",
		Envelope: &Envelope{},
	}
}

var defaultParams = []Param{{"charset", "us-ascii"}}

// readHeader reads the header of e and what follows from it. ended says that the entity ends with
// its header, at d.
func (p *parser) readHeader(e *Part, isMessage, isPart, inDigest bool) (d delimiter, ended bool) {
	e.HeaderOffset = p.off
	d, ended = p.header.read(&p.scanner, p.lim, isMessage, isPart)
	e.BodyOffset = p.off
	e.Truncated = p.header.cut

	v := p.header.values()
	e.Type, e.Subtype, e.Params = parseMediaType(v[fieldContentType].Value)
	if e.Type == "" {
		e.Type, e.Subtype, e.Params = "text", "plain", defaultParams
		if inDigest {
			e.Type, e.Subtype, e.Params = "message", "rfc822", nil
		}
	}
	e.Encoding = parseEncoding(v[fieldContentEncoding].Value)
	e.ID = v[fieldContentID]
	e.Description = v[fieldContentDescription]
	e.MD5 = v[fieldContentMD5]
	e.Location = v[fieldContentLocation]
	if v[fieldContentDisposition].Valid {
		e.Disposition = parseDisposition(v[fieldContentDisposition].Value)
	}
	if v[fieldContentLanguage].Valid {
		e.Language = parseLanguages(v[fieldContentLanguage].Value)
	}
	if isMessage {
		e.Envelope = newEnvelope(&v)
	}
	return d, ended
}

func newEnvelope(v *[fieldCount]NString) *Envelope {
	e := &Envelope{
		Date: v[fieldDate], Subject: v[fieldSubject],
		InReplyTo: v[fieldInReplyTo], MessageID: v[fieldMessageID], References: v[fieldReferences],
		From: ParseAddresses(v[fieldFrom].Value),
		To:   ParseAddresses(v[fieldTo].Value), Cc: ParseAddresses(v[fieldCc].Value), Bcc: ParseAddresses(v[fieldBcc].Value),
	}
	if e.Sender = ParseAddresses(v[fieldSender].Value); e.Sender == nil {
		e.Sender = e.From
	}
	if e.ReplyTo = ParseAddresses(v[fieldReplyTo].Value); e.ReplyTo == nil {
		e.ReplyTo = e.From
	}
	return e
}
