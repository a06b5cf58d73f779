package message

import (
	"bytes"
	"io"
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

	header, folded []byte
}

type keyKind int

const (
	headerKey keyKind = iota
	bodyKey
	textKey
)

type searchKey struct {
	kind   keyKind
	field  string // of a header key, in upper case
	needle []byte // in comparison form
}

// Header adds a key: the field contains the value; an empty value asks whether the field is there.
// It returns the index of the key's answer.
func (s *Search) Header(field, value string) int {
	return s.add(searchKey{kind: headerKey, field: upperField(field), needle: foldHeader(value)})
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
		return s.body(p.Text(r))
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
	for len(header) > 0 && s.left > 0 {
		var name, whole []byte
		name, whole, header = nextField(header)
		if name == nil {
			continue
		}
		var field, value []byte // in comparison form, made when first needed
		for i := range s.keys {
			k := &s.keys[i]
			switch {
			case s.result[i]:
			case k.kind == textKey:
				if field == nil {
					field = foldHeader(DecodeHeader(string(whole)))
				}
				if bytes.Contains(field, k.needle) {
					s.found(i)
				}
			case k.kind == headerKey && outermost && len(k.field) == len(name) && bytes.EqualFold(name, []byte(k.field)):
				if value == nil {
					_, skip, _ := fieldName(whole)
					value = foldHeader(DecodeHeader(string(whole[skip:])))
				}
				if bytes.Contains(value, k.needle) {
					s.found(i)
				}
			}
		}
	}
	return nil
}

// foldHeader is the comparison form of header text, in which a tab counts as a space.
func foldHeader(s string) []byte {
	b := []byte(Casemap(s))
	for i, c := range b {
		if c == '\t' {
			b[i] = ' '
		}
	}
	return b
}

// body looks at a text, piece by piece. The end of each piece is kept, as long as the longest needle,
// so that what lies across two pieces is found.
func (s *Search) body(text io.Reader) error {
	overlap := 0
	for i := range s.keys {
		if s.keys[i].kind != headerKey {
			overlap = max(overlap, len(s.keys[i].needle)-1)
		}
	}
	var chunk [chunkSize]byte
	kept, n := s.folded[:0], 0
	for {
		got, err := io.ReadFull(text, chunk[n:])
		n += got
		last := err != nil
		if last && err != io.EOF && err != io.ErrUnexpectedEOF {
			return err
		}
		var rest []byte
		kept, rest = appendCasemap(kept, chunk[:n], last)
		n = copy(chunk[:], rest)
		for i := range s.keys {
			if k := &s.keys[i]; k.kind != headerKey && !s.result[i] && bytes.Contains(kept, k.needle) {
				s.found(i)
			}
		}
		if last || !s.open(bodyKey, textKey) {
			s.folded = kept[:0]
			return nil
		}
		if len(kept) > overlap {
			kept = kept[:copy(kept, kept[len(kept)-overlap:])]
		}
	}
}
