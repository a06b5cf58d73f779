package message

import (
	"bytes"
	"io"
	"strings"
	"unicode/utf8"

	"golang.org/x/text/transform"
)

// Search looks for strings in messages, as the HEADER, BODY and TEXT keys of SEARCH do
// (RFC 9051 §6.4.4): in decoded text, compared by i;unicode-casemap. All keys are answered in one pass
// over a message, which ends as soon as each has been found. A Search is made once for a command; it may
// be used by one goroutine at a time.
//
// Text is found in parts of type text and in message parts that hold no message (delivery reports).
// BODY looks at those only; TEXT looks at every header besides, those of parts and of embedded messages
// included.
type Search struct {
	keys   []searchKey
	result []bool
	left   int // keys not yet found

	// Buffers, made when first needed.
	header, field, value, folded []byte
	chunk, utf8                  []byte
	base64                       *base64Reader
	quoted                       *quotedReader
}

type keyKind int

const (
	headerKey keyKind = iota
	bodyKey
	textKey
)

type searchKey struct {
	kind   keyKind
	field  string // of a header key, in lower case
	needle []byte // in comparison form
}

// Header adds a key: the field contains the value; an empty value asks whether the field is there.
// It returns the index of the key's answer.
func (s *Search) Header(field, value string) int {
	return s.add(searchKey{kind: headerKey, field: strings.ToLower(strings.TrimSpace(field)), needle: foldHeader(nil, []byte(value))})
}

// Body adds a key: a text part contains the value.
func (s *Search) Body(value string) int {
	return s.add(searchKey{kind: bodyKey, needle: []byte(Casemap(value))})
}

// Text adds a key: a header (the MIME headers of parts included) or a text part contains the value.
func (s *Search) Text(value string) int {
	return s.add(searchKey{kind: textKey, needle: []byte(Casemap(value))})
}

func (s *Search) add(k searchKey) int {
	s.keys = append(s.keys, k)
	return len(s.keys) - 1
}

// Len is the number of keys.
func (s *Search) Len() int { return len(s.keys) }

// HeaderOnly says that all keys are header keys, so that a part from ParseHeader suffices.
func (s *Search) HeaderOnly() bool {
	for i := range s.keys {
		if s.keys[i].kind != headerKey {
			return false
		}
	}
	return true
}

// Match answers every key for one message: root as Parse gave it, r its bytes. The result is valid
// until the next call.
func (s *Search) Match(r io.ReaderAt, root *Part) ([]bool, error) {
	s.result = append(s.result[:0], make([]bool, len(s.keys))...)
	s.left = len(s.keys)
	for i := range s.keys {
		if s.keys[i].kind != headerKey && len(s.keys[i].needle) == 0 {
			s.found(i)
		}
	}
	return s.result, s.part(r, root, true)
}

func (s *Search) found(i int) {
	if !s.result[i] {
		s.result[i] = true
		s.left--
	}
}

// open says whether a key of one of the kinds is not yet found.
func (s *Search) open(kinds ...keyKind) bool {
	for i := range s.keys {
		for _, k := range kinds {
			if s.keys[i].kind == k && !s.result[i] {
				return true
			}
		}
	}
	return false
}

// part looks at p and at what lies below it.
func (s *Search) part(r io.ReaderAt, p *Part, outermost bool) error {
	if s.left == 0 {
		return nil
	}
	if s.open(textKey) || outermost && s.open(headerKey) {
		if err := s.headers(r, p, outermost); err != nil {
			return err
		}
	}
	for _, c := range p.Children {
		if err := s.part(r, c, false); err != nil {
			return err
		}
	}
	switch {
	case p.Message != nil:
		return s.part(r, p.Message, false)
	case !p.IsMultipart() && (p.IsText() || p.Type == "message") && s.open(bodyKey, textKey):
		return s.body(r, p)
	}
	return nil
}

// headers looks at the header of p; header keys count in the outermost one only.
func (s *Search) headers(r io.ReaderAt, p *Part, outermost bool) error {
	header, err := readHeaderBytes(r, s.header, p.HeaderOffset, p.BodyOffset)
	if err != nil {
		return err
	}
	s.header = header
	s.fields(header, outermost)
	return nil
}

// KeptOnly says that all keys are header keys of fields that summaries keep, so that MatchFields can answer them.
func (s *Search) KeptOnly() bool {
	for i := range s.keys {
		if s.keys[i].kind != headerKey || keptNumber(s.keys[i].field) == 0 {
			return false
		}
	}
	return true
}

// MatchFields answers every key for one message, if KeptOnly, from the fields that its summary keeps. The result is
// valid until the next call.
func (s *Search) MatchFields(fields string) []bool {
	s.result = append(s.result[:0], make([]bool, len(s.keys))...)
	s.left = len(s.keys)
	s.header = append(s.header[:0], fields...)
	s.fields(s.header, true)
	return s.result
}

// fields looks at the fields of a header.
func (s *Search) fields(header []byte, outermost bool) {
	for len(header) > 0 && s.left > 0 {
		var name, whole []byte
		name, whole, header = nextField(header)
		if name == nil {
			continue
		}
		haveField, haveValue := false, false // in comparison form, made when first needed
		for i := range s.keys {
			k := &s.keys[i]
			switch {
			case s.result[i]:
			case k.kind == textKey:
				if !haveField {
					s.field, haveField = foldHeader(s.field[:0], whole), true
				}
				if bytes.Contains(s.field, k.needle) {
					s.found(i)
				}
			case k.kind == headerKey && outermost && equalFold(name, k.field):
				if !haveValue {
					_, skip, _ := fieldName(whole)
					s.value, haveValue = foldHeader(s.value[:0], whole[skip:]), true
				}
				if bytes.Contains(s.value, k.needle) {
					s.found(i)
				}
			}
		}
	}
}

// foldHeader appends the comparison form of header text: unfolded, decoded, with a space for a tab.
func foldHeader(dst, text []byte) []byte {
	from := len(dst)
	if isASCII(text) && !bytes.Contains(text, []byte("=?")) {
		for i, c := range text {
			switch {
			case c == '\n' || c == '\r' && i+1 < len(text) && text[i+1] == '\n':
			case c == '\r' || c == '\t':
				dst = append(dst, ' ')
			default:
				dst = append(dst, c)
			}
		}
		upperASCII(dst[from:])
		return dst
	}
	dst = appendCasemap(dst, []byte(DecodeHeader(string(text))))
	for i, c := range dst[from:] {
		if c == '\t' {
			dst[from+i] = ' '
		}
	}
	return dst
}

func isASCII(b []byte) bool {
	for _, c := range b {
		if c >= utf8.RuneSelf {
			return false
		}
	}
	return true
}

// decoded is the content of p without its transfer encoding, through readers that are used again.
func (s *Search) decoded(r io.ReaderAt, p *Part) io.Reader {
	content := io.NewSectionReader(r, p.BodyOffset, p.BodySize())
	switch p.decoding() {
	case base64Encoding:
		if s.base64 == nil {
			s.base64 = &base64Reader{}
		}
		s.base64.reset(content)
		return s.base64
	case quotedPrintable:
		if s.quoted == nil {
			s.quoted = &quotedReader{}
		}
		s.quoted.reset(content)
		return s.quoted
	}
	return content
}

// body looks at the text of a part, piece by piece. The end of each piece is kept, as long as the longest
// needle, so that what lies across two pieces is found.
func (s *Search) body(r io.ReaderAt, p *Part) error {
	overlap := 0
	for i := range s.keys {
		if s.keys[i].kind != headerKey {
			overlap = max(overlap, len(s.keys[i].needle)-1)
		}
	}
	if s.chunk == nil {
		s.chunk, s.utf8 = make([]byte, chunkSize), make([]byte, 2*chunkSize)
	}
	text, charset := s.decoded(r, p), charsetDecoder(p.Param("charset"))
	_, lenient := charset.(*lenientUTF8)
	s.folded = s.folded[:0]
	for n, last := 0, false; !last && s.open(bodyKey, textKey); {
		got, err := text.Read(s.chunk[n:])
		if err != nil && err != io.EOF {
			return err
		}
		n += got
		last = err == io.EOF
		used := 0
		if lenient && isASCII(s.chunk[:n]) { // nearly all text, and nothing to convert
			at := len(s.folded)
			s.folded = append(s.folded, s.chunk[:n]...)
			upperASCII(s.folded[at:])
			used = n
		} else if used, err = s.convert(charset, s.chunk[:n], last); err != nil || used == 0 && n == len(s.chunk) {
			last = true // what a decoder cannot go on with is the end of the text
		}
		n = copy(s.chunk, s.chunk[used:n])
		for i := range s.keys {
			if k := &s.keys[i]; k.kind != headerKey && !s.result[i] && bytes.Contains(s.folded, k.needle) {
				s.found(i)
			}
		}
		if len(s.folded) > overlap {
			s.folded = s.folded[:copy(s.folded, s.folded[len(s.folded)-overlap:])]
		}
	}
	return nil
}

// convert appends the comparison form of a piece of text to folded. used is how much of it could be
// converted without what follows.
func (s *Search) convert(charset transform.Transformer, piece []byte, last bool) (used int, err error) {
	for {
		nDst, nSrc, err := charset.Transform(s.utf8, piece[used:], last)
		s.folded = appendCasemap(s.folded, s.utf8[:nDst])
		used += nSrc
		switch {
		case err == transform.ErrShortDst && nDst > 0:
		case err == transform.ErrShortSrc:
			return used, nil
		default:
			return used, err
		}
	}
}
