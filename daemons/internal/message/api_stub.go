package message

import (
	"errors"
	"io"
	"time"

	"github.com/emersion/go-imap/v2"
)

// Parse reads the structure of the size bytes behind r. It fails only when r does.
func Parse(r io.ReaderAt, size int64, limits Limits) (*Part, error) { return &Part{End: size}, nil }

// ParseHeader reads the header of the message only: enough for its envelope and its header
// fields. The part that it returns has no children, and its Lines are 0.
func ParseHeader(r io.ReaderAt, size int64, limits Limits) (*Part, error) {
	return &Part{End: size}, nil
}

// ErrNoSection says that the message has no such part or section.
var ErrNoSection = errors.New("no such section")

// ErrUnknownEncoding says that a part has a transfer encoding that cannot be decoded: the
// UNKNOWN-CTE of RFC 3516.
var ErrUnknownEncoding = errors.New("unknown content transfer encoding")

// Section gives the bytes of a BODY[...] fetch item of message p, whose bytes are r. The partial
// range of the item is applied. ErrNoSection where the part or its section does not exist.
func (p *Part) Section(r io.ReaderAt, item *imap.FetchItemBodySection) (*io.SectionReader, error) {
	return nil, ErrNoSection
}

// Binary gives the decoded content of a part (BINARY[...], RFC 9051 §6.4.5.2) as a stream. Errors:
// ErrNoSection, ErrUnknownEncoding.
func (p *Part) Binary(r io.ReaderAt, path []int) (io.Reader, error) { return nil, ErrNoSection }

// BinarySize is the number of octets that Binary gives (BINARY.SIZE[...]). It reads the part.
func (p *Part) BinarySize(r io.ReaderAt, path []int) (int64, error) { return 0, ErrNoSection }

// Text gives the content of a text part decoded from its transfer encoding and its charset to
// UTF-8, as a stream. It never fails on the content; it fails when r does.
func (p *Part) Text(r io.ReaderAt) io.Reader { return nil }

// AppendEnvelope appends the parenthesised ENVELOPE of IMAP to dst. Strings that cannot be quoted
// are written as literals. utf8 says that the client accepts UTF-8 in quoted strings
// (IMAP4rev2 or UTF8=ACCEPT).
func AppendEnvelope(dst []byte, e *Envelope, utf8 bool) []byte { return dst }

// AppendStructure appends the parenthesised BODY (extended false) or BODYSTRUCTURE (true) of p.
func AppendStructure(dst []byte, p *Part, extended, utf8 bool) []byte { return dst }

// DecodeHeader turns the value of a header field into UTF-8: unfolds it, decodes RFC 2047
// words, and takes bare 8-bit text for UTF-8 or else for Windows-1252.
func DecodeHeader(value string) string { return value }

// ParseAddresses reads an address list (RFC 5322 §3.4 and §4.4), tolerantly.
func ParseAddresses(value string) []Address { return nil }

// ParseDate reads the value of a Date field in the forms that occur, obsolete ones included. The
// result has the zone that the field names, so that its date is the date as it is written.
func ParseDate(value string) (t time.Time, ok bool) { return }

// BaseSubject is the base subject of RFC 5256 §2.1 of an undecoded Subject value; reply says
// whether something was removed that marks a reply or a forward.
func BaseSubject(value string) (base string, reply bool) { return value, false }

// MessageIDs are the message identifiers in a References, In-Reply-To or Message-ID value,
// without their angle brackets and quoting.
func MessageIDs(value string) []string { return nil }

// Casemap is the comparison form of i;unicode-casemap (RFC 5051) of a UTF-8 string: what SEARCH,
// SORT and THREAD compare (I18NLEVEL=1).
func Casemap(s string) string { return s }

// Search looks for strings in messages, as the HEADER, BODY and TEXT keys of SEARCH do: decoded
// and without regard to case. All keys are answered in one pass over a message. A Search is made
// once for a command; it may be used by one goroutine at a time.
type Search struct{}

// Header adds a key: the field contains the value; an empty value asks whether the field is there.
// It returns the index of the key's answer.
func (s *Search) Header(field, value string) int { return 0 }

// Body adds a key: a text part contains the value.
func (s *Search) Body(value string) int { return 0 }

// Text adds a key: a header (the MIME headers of parts included) or a text part contains the value.
func (s *Search) Text(value string) int { return 0 }

// Match answers every key for one message: root as Parse gave it, r its bytes. The result is valid
// until the next call.
func (s *Search) Match(r io.ReaderAt, root *Part) ([]bool, error) { return nil, nil }

// HeaderOnly says that all keys are header keys, so that a part from ParseHeader suffices.
func (s *Search) HeaderOnly() bool { return true }

// Preview is the beginning of the message's text (RFC 8970), at most max characters.
func Preview(r io.ReaderAt, root *Part, max int) (string, error) { return "", nil }

func decodeExtended(s string) string { return s }
