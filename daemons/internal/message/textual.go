package message

import (
	"bytes"
	"encoding/base64"
	"io"
	"sort"
	"strings"
)

// What cannot be sent as text is shown as text: IMAP's literals and POP3's lines have no place for NUL (RFC 9051 §4.3.1, RFC 1939 §3),
// and a server that hands a message from BODY=BINARYMIME to who has not asked for it has to encode it (RFC 3030 §3). The message stays
// stored as it came. Textual is a view of it in which
//
//   - a body part without a transfer encoding that holds NUL, or a CR or LF that stands alone in a part that says "binary", is base64, and
//     its header says so;
//   - a multipart and an embedded message that say "binary" say "8bit";
//   - NUL in any other place (a header, a preamble, a part that claims to be base64) is "?".
//
// Decoding a part of the view gives the bytes of the stored part, so BINARY and searches need no other view.

const (
	base64Line   = 57                                      // bytes on a line of base64: 76 characters
	base64Size   = 78                                      // of such a line with its CRLF
	mostHeader   = 1 << 20                                 // of a header whose field is changed; a larger one stays as it is
	encodedField = "Content-Transfer-Encoding: base64\r\n" //
	eightField   = "Content-Transfer-Encoding: 8bit\r\n"   //
	encodingName = "content-transfer-encoding"             //
)

// text is the view: pieces one behind the other.
type text struct {
	src    io.ReaderAt
	pieces []piece
	size   int64
}

// piece stands at an offset of the view: in place of the source's from..to.
type piece struct {
	at       int64
	from, to int64
	literal  string
	form     form
}

// form is how a piece is shown.
type form uint8

const (
	asStored form = iota // NUL as "?"
	asBase64
	asLiteral // which may be nothing
)

func (p *piece) length() int64 {
	switch {
	case p.form == asLiteral:
		return int64(len(p.literal))
	case p.form == asBase64:
		return encodedSize(p.to - p.from)
	}
	return p.to - p.from
}

// encodedSize is the size of n bytes as lines of base64, each with its CRLF.
func encodedSize(n int64) int64 {
	size := n / base64Line * base64Size
	if rest := n % base64Line; rest > 0 {
		size += (rest+2)/3*4 + 2
	}
	return size
}

// Textual gives the view of the size bytes behind r; r itself and its size where it is text already, which is so of nearly all messages.
// It reads the whole of the message, unless headerOnly: then only a message whose own header says "binary" is looked at further.
// Errors are those of r.
func Textual(r io.ReaderAt, size int64, headerOnly bool) (io.ReaderAt, int64, error) {
	binary, err := needsView(r, size, headerOnly)
	if err != nil || !binary {
		return r, size, err
	}
	root, err := Parse(r, size, Limits{})
	if err != nil {
		return nil, 0, err
	}
	b := viewBuilder{r: r}
	root.Walk(func(_ []int, p *Part) bool {
		b.part(p)
		return b.err == nil
	})
	if b.err != nil {
		return nil, 0, b.err
	}
	t := b.view(size)
	return t, t.size, nil
}

// view is the message of the given size with what was collected.
func (b *viewBuilder) view(size int64) *text {
	t := &text{src: b.r}
	at := int64(0)
	for _, e := range b.edits {
		if e.from < at { // Walk goes front to back; parts do not overlap
			continue
		}
		t.add(piece{from: at, to: e.from})
		t.add(e)
		at = e.to
	}
	t.add(piece{from: at, to: size})
	return t
}

func (t *text) add(p piece) {
	n := p.length()
	if n == 0 {
		return
	}
	p.at = t.size
	t.pieces = append(t.pieces, p)
	t.size += n
}

// needsView says whether the message has a NUL, or says in its header that it is binary.
func needsView(r io.ReaderAt, size int64, headerOnly bool) (bool, error) {
	if m, ok := r.(interface{ Bytes() []byte }); ok && m.Bytes() != nil {
		return bytes.IndexByte(m.Bytes(), 0) >= 0 || saysBinary(m.Bytes()), nil
	}
	buf := scanBuffers.Get().(*[]byte)
	defer scanBuffers.Put(buf)
	for at := int64(0); at < size; {
		b := (*buf)[:min(int64(len(*buf)), size-at)]
		n, err := r.ReadAt(b, at)
		if n < len(b) && err != nil {
			return false, unexpected(err)
		}
		if bytes.IndexByte(b, 0) >= 0 || at == 0 && saysBinary(b) {
			return true, nil
		}
		if headerOnly {
			break
		}
		at += int64(n)
	}
	return false, nil
}

// unexpected is the error of a file that is shorter than it should be.
func unexpected(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}

// saysBinary looks for a transfer encoding of "binary" in the header that b begins with. It looks at the field's line only, and says yes
// rather than no.
func saysBinary(b []byte) bool {
	for len(b) > 0 {
		line, rest, _ := bytes.Cut(b, []byte{'\n'})
		if len(line) == 0 || len(line) == 1 && line[0] == '\r' {
			return false
		}
		if c := line[0]; (c == 'C' || c == 'c') && len(line) > len(encodingName) && strings.EqualFold(string(line[:len(encodingName)]), encodingName) {
			return bytes.Contains(bytes.ToLower(line), []byte("binary")) || bytes.HasPrefix(rest, []byte{' '}) || bytes.HasPrefix(rest, []byte{'\t'})
		}
		b = rest
	}
	return false
}

// viewBuilder collects what is shown otherwise, in the order of the message.
type viewBuilder struct {
	r     io.ReaderAt
	edits []piece
	err   error
}

func (b *viewBuilder) part(p *Part) {
	if len(p.Children) > 0 || p.Message != nil {
		if p.Encoding == "binary" {
			b.field(p, eightField)
		}
		return
	}
	if decodingOf(p.Encoding) != identity || p.HeaderSize() == 0 || p.HeaderSize() > mostHeader {
		return
	}
	faulty, err := hasFault(b.r, p.BodyOffset, p.End, p.Encoding == "binary")
	if err != nil {
		b.err = err
		return
	}
	if faulty {
		if b.field(p, encodedField) {
			b.edits = append(b.edits, piece{from: p.BodyOffset, to: p.End, form: asBase64})
		}
	} else if p.Encoding == "binary" {
		b.field(p, eightField)
	}
}

// field replaces the transfer encoding in the header of p, or puts it at the header's end.
func (b *viewBuilder) field(p *Part, with string) bool {
	if p.HeaderSize() > mostHeader {
		return false
	}
	h := make([]byte, p.HeaderSize())
	if n, err := b.r.ReadAt(h, p.HeaderOffset); n < len(h) {
		b.err = unexpected(err)
		return false
	}
	found, end := false, len(h) // end: of the fields
	for at := 0; at < len(h); {
		n := len(h) - at
		if i := bytes.IndexByte(h[at:], '\n'); i >= 0 {
			n = i + 1
		}
		line := h[at : at+n]
		if blank := bytes.TrimRight(line, "\r\n"); len(blank) == 0 && n > 0 {
			end = at
			break
		}
		if name, _, ok := bytes.Cut(line, []byte{':'}); ok && strings.EqualFold(string(bytes.TrimRight(name, " \t")), encodingName) {
			for at+n < len(h) && (h[at+n] == ' ' || h[at+n] == '\t') { // the field goes on
				i := bytes.IndexByte(h[at+n:], '\n')
				if i < 0 {
					n = len(h) - at
					break
				}
				n += i + 1
			}
			e := piece{from: p.HeaderOffset + int64(at), to: p.HeaderOffset + int64(at+n), form: asLiteral}
			if !found { // a second one goes
				e.literal, found = with, true
			}
			b.edits = append(b.edits, e)
		}
		at += n
	}
	if !found {
		at := p.HeaderOffset + int64(end)
		if end == len(h) && end > 0 && h[end-1] != '\n' { // the message ends within its header
			return false
		}
		b.edits = append(b.edits, piece{from: at, to: at, literal: with, form: asLiteral})
	}
	return true
}

// hasFault says whether the bytes hold NUL, or, where they say that they are binary, a CR or LF that stands alone.
func hasFault(r io.ReaderAt, from, to int64, binary bool) (bool, error) {
	buf := scanBuffers.Get().(*[]byte)
	defer scanBuffers.Put(buf)
	cr := false
	for at := from; at < to; {
		b := (*buf)[:min(int64(len(*buf)), to-at)]
		if n, err := r.ReadAt(b, at); n < len(b) {
			return false, unexpected(err)
		}
		at += int64(len(b))
		if bytes.IndexByte(b, 0) >= 0 {
			return true, nil
		}
		if !binary {
			continue
		}
		for _, c := range b {
			if cr != (c == '\n') {
				return true, nil
			}
			cr = c == '\r'
		}
	}
	return cr, nil
}

// ReadAt implements io.ReaderAt.
func (t *text) ReadAt(p []byte, off int64) (n int, err error) {
	i := sort.Search(len(t.pieces), func(i int) bool { return t.pieces[i].at+t.pieces[i].length() > off })
	for ; i < len(t.pieces) && n < len(p); i++ {
		m, err := t.pieces[i].read(t.src, p[n:], off+int64(n)-t.pieces[i].at)
		if n += m; err != nil {
			return n, err
		}
	}
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

// read reads from the offset off of the piece on, up to its end.
func (p *piece) read(src io.ReaderAt, b []byte, off int64) (int, error) {
	b = b[:min(int64(len(b)), p.length()-off)]
	switch {
	case p.form == asLiteral:
		return copy(b, p.literal[off:]), nil
	case p.form == asStored:
		n, err := src.ReadAt(b, p.from+off)
		for i := range b[:n] {
			if b[i] == 0 {
				b[i] = '?'
			}
		}
		if n == len(b) {
			return n, nil
		}
		return n, unexpected(err)
	}
	var in [base64Line * 64]byte
	var out [base64Size * 64]byte
	n := 0
	for n < len(b) {
		line := (off + int64(n)) / base64Size
		from := p.from + line*base64Line
		lines := (int64(len(b)-n)+base64Size-1)/base64Size + 1 // the first and the last in part
		raw := in[:min(int64(len(in)), p.to-from, lines*base64Line)]
		if m, err := src.ReadAt(raw, from); m < len(raw) {
			return n, unexpected(err)
		}
		o := out[:0]
		for len(raw) > 0 {
			k := min(base64Line, len(raw))
			o = base64.StdEncoding.AppendEncode(o, raw[:k])
			o = append(o, '\r', '\n')
			raw = raw[k:]
		}
		n += copy(b[n:], o[off+int64(n)-line*base64Size:])
	}
	return n, nil
}
