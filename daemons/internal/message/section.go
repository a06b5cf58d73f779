package message

import (
	"bytes"
	"errors"
	"fmt"
	"io"

	"github.com/emersion/go-imap/v2"
)

// ErrNoSection says that the message has no such part or section.
var ErrNoSection = errors.New("no such section")

// ErrUnknownEncoding says that a part has a transfer encoding that cannot be decoded: the
// UNKNOWN-CTE of RFC 3516.
var ErrUnknownEncoding = errors.New("unknown content transfer encoding")

// maxHeader is how much of one header is looked at for subsets of its fields and by Search.
const maxHeader = 4 << 20

// Section gives the bytes of a BODY[...] fetch item of message p, whose bytes are r. The partial
// range of the item is applied. ErrNoSection where the part or its section does not exist.
//
// RFC 9051 §6.4.5.1: HEADER, HEADER.FIELDS and TEXT below a part number need a message/rfc822
// part and mean the message in it; MIME needs a part number. The part 1 of a message that is
// no multipart is its body, and the MIME header of it the header of the message.
func (p *Part) Section(r io.ReaderAt, item *imap.FetchItemBodySection) (*io.SectionReader, error) {
	from, to, err := p.sectionRange(item)
	if err != nil {
		return nil, err
	}
	if len(item.HeaderFields) == 0 && len(item.HeaderFieldsNot) == 0 {
		return partial(r, from, to-from, item.Partial), nil
	}
	subset, err := headerSubset(r, from, to, item)
	if err != nil {
		return nil, err
	}
	return partial(bytes.NewReader(subset), 0, int64(len(subset)), item.Partial), nil
}

func (p *Part) sectionRange(item *imap.FetchItemBodySection) (from, to int64, err error) {
	part := p.Find(item.Part)
	if part == nil {
		return 0, 0, ErrNoSection
	}
	top := len(item.Part) == 0
	switch item.Specifier {
	case imap.PartSpecifierNone:
		if top {
			return part.HeaderOffset, part.End, nil
		}
		return part.BodyOffset, part.End, nil
	case imap.PartSpecifierMIME:
		if top {
			return 0, 0, ErrNoSection
		}
		return part.HeaderOffset, part.BodyOffset, nil
	case imap.PartSpecifierHeader, imap.PartSpecifierText:
		if !top {
			if part = part.Message; part == nil {
				return 0, 0, ErrNoSection
			}
		}
		if item.Specifier == imap.PartSpecifierText {
			return part.BodyOffset, part.End, nil
		}
		return part.HeaderOffset, part.BodyOffset, nil
	}
	return 0, 0, ErrNoSection
}

// partial is the range <offset.size> of the n bytes from off on; empty where it begins behind them.
func partial(r io.ReaderAt, off, n int64, part *imap.SectionPartial) *io.SectionReader {
	if part != nil {
		skip := min(max(part.Offset, 0), n)
		off, n = off+skip, n-skip
		n = min(n, max(part.Size, 0))
	}
	return io.NewSectionReader(r, off, n)
}

// readHeaderBytes reads the header that lies in [from, to).
func readHeaderBytes(r io.ReaderAt, buf []byte, from, to int64) ([]byte, error) {
	n := int(min(to-from, maxHeader))
	if cap(buf) < n {
		buf = make([]byte, n)
	}
	buf = buf[:n]
	if got, err := r.ReadAt(buf, from); got < n {
		if err == nil || err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		return nil, fmt.Errorf("read message header at %d: %w", from, err)
	}
	return buf, nil
}

// headerSubset is the header without the fields that item leaves out. The blank line at its end
// stays (RFC 9051 §6.4.5.1: subsetting does not exclude it), and so do all bytes of a field.
func headerSubset(r io.ReaderAt, from, to int64, item *imap.FetchItemBodySection) ([]byte, error) {
	header, err := readHeaderBytes(r, nil, from, to)
	if err != nil {
		return nil, err
	}
	out := header[:0] // what is kept moves to the front
	for rest := header; len(rest) > 0; {
		var f, name []byte
		name, f, rest = nextField(rest)
		keep := isBlank(f)
		switch {
		case keep:
		case len(item.HeaderFields) > 0:
			keep = name != nil && listed(item.HeaderFields, name)
		default:
			keep = true
		}
		if keep && name != nil && listed(item.HeaderFieldsNot, name) {
			keep = false
		}
		if keep {
			out = append(out, f...)
		}
	}
	return out, nil
}

// nextField cuts the first field with its continuation lines off a header. The name is nil where it is
// no field: the blank line, or a line that does not belong there.
func nextField(header []byte) (name, whole, rest []byte) {
	end := lineEnd(header, 0)
	name, _, ok := fieldName(header[:end])
	if !ok {
		name = nil
	}
	if !isBlank(header[:end]) {
		for end < len(header) && (header[end] == ' ' || header[end] == '\t') {
			end = lineEnd(header, end)
		}
	}
	return name, header[:end], header[end:]
}

func lineEnd(b []byte, from int) int {
	if i := bytes.IndexByte(b[from:], '\n'); i >= 0 {
		return from + i + 1
	}
	return len(b)
}

func listed(fields []string, name []byte) bool {
	for _, f := range fields {
		if len(f) == len(name) && bytes.EqualFold(name, []byte(f)) {
			return true
		}
	}
	return false
}

// Binary gives the decoded content of a BINARY[...] fetch item (RFC 9051 §6.4.5.2) as a stream:
// without the transfer encoding of the part; multiparts and the whole message (no part number) have
// none. The partial range counts decoded octets. Errors: ErrNoSection, ErrUnknownEncoding.
func (p *Part) Binary(r io.ReaderAt, item *imap.FetchItemBinarySection) (io.Reader, error) {
	part := p.Find(item.Part)
	if part == nil {
		return nil, ErrNoSection
	}
	if len(item.Part) == 0 {
		return partial(r, part.HeaderOffset, part.End-part.HeaderOffset, item.Partial), nil
	}
	d := part.decoding()
	switch d {
	case unknownEncoding:
		return nil, ErrUnknownEncoding
	case identity:
		return partial(r, part.BodyOffset, part.BodySize(), item.Partial), nil
	}
	content := decoded(io.NewSectionReader(r, part.BodyOffset, part.BodySize()), d)
	if item.Partial == nil {
		return content, nil
	}
	if _, err := io.CopyN(io.Discard, content, max(item.Partial.Offset, 0)); err != nil && err != io.EOF {
		return nil, err
	}
	return io.LimitReader(content, max(item.Partial.Size, 0)), nil
}

// BinarySize is the number of octets that Binary gives for a part (BINARY.SIZE[...]). It reads the
// part where that is encoded.
func (p *Part) BinarySize(r io.ReaderAt, path []int) (int64, error) {
	content, err := p.Binary(r, &imap.FetchItemBinarySection{Part: path})
	if err != nil {
		return 0, err
	}
	if s, ok := content.(*io.SectionReader); ok {
		return s.Size(), nil
	}
	return io.Copy(io.Discard, content)
}

// decoding is the transfer encoding of the body. A multipart has none, whatever it says (RFC 2045
// §6.4).
func (p *Part) decoding() decoding {
	if p.IsMultipart() {
		return identity
	}
	return decodingOf(p.Encoding)
}
