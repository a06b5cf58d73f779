package message

import (
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io"
	"strings"
)

// Summary is what can be said about a message without reading it again: its envelope, the header fields that
// mail programs ask for, its structure with the offsets of all parts, and the beginning of its text. It is
// derived data, made for caches. Its packed form is read through a View, which refuses what is not exactly as
// it was written; then it is made anew from the message.
//
//	packed    = %x53 version sections size [fields] [envelope] [structure] [preview] checksum
//	version   = %x01               other versions are refused: what is derived can be made again
//	sections  = bits: 1 fields, 2 structure, 4 preview, 8 envelope are there; 16 what is missing is left out for its size
//	size      = number             of the message, in bytes
//	fields    = length count *(field-number length) *octet      the octets as they stand in the message
//	envelope  = length envelope-data
//	structure = length part        of the message, without its envelope
//	preview   = length *octet
//	part      = bits [type subtype params] [encoding] begin header-size body-size lines
//	            [id] [description] [md5] [location] [disposition] [languages] [envelope-data] children [part]
//	envelope-data = bits date subject from [sender] [reply-to] to cc bcc in-reply-to message-id references
//	number    = unsigned varint
//	string    = number, twice the length, then octets; or one more and the place of the octets in the fields
//	nstring   = %x00 / string with a number that is one higher
//	list      = number of elements, then each
//	checksum  = CRC-32C of all before it, 4 bytes, little-endian
//
// A length counts the octets of its section that follow. The optional things are there when their bit is set.
// begin counts from where the header of the enclosing entity begins.
type Summary struct {
	Size     int64
	Envelope *Envelope // nil: not known
	Root     *Part     // nil: the structure is not known
	Preview  string    // if HasPreview
	// HasPreview says that Preview is known. Omitted says that something was left out for its size: asking
	// again brings no more.
	HasPreview, Omitted bool

	raw       string // the kept fields
	index     []keptLines
	hasFields bool
}

// Sections are the parts of a summary that may be missing.
type Sections uint8

// The sections of a summary.
const (
	SectionFields Sections = 1 << iota
	SectionStructure
	SectionPreview
	SectionEnvelope
	omitted
)

// ErrBadSummary says that bytes are no packed summary of this version, or not as they were written.
var ErrBadSummary = errors.New("not a packed summary")

const (
	summaryMagic   = 'S'
	summaryVersion = 1
	maxUnpackDepth = 200
	// MaxSummary is the length of the longest packed summary. What is longer loses its structure, and then its
	// envelope: such messages are read each time.
	MaxSummary = 32 << 10
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// What is there in a packed part.
const (
	hasType = 1 << iota // it is not text/plain; charset=us-ascii by default
	hasEncoding
	hasNames // one of id, description, md5, location
	hasDisposition
	hasLanguage
	hasEnvelope
	hasMessage
	isTruncated
)

// What is there in a packed envelope.
const (
	ownSender = 1 << iota
	ownReplyTo
)

// Summarize makes the summary of a message that was parsed: root is what Parse gave, or what ParseHeader gave
// if structure is false. The preview is for the caller to add.
func Summarize(r io.ReaderAt, size int64, root *Part, structure bool) (*Summary, error) {
	s := &Summary{Size: size, Envelope: root.Envelope}
	if structure {
		s.Root = root
	}
	var err error
	s.raw, s.index, err = keepFields(r, root)
	switch {
	case err == nil:
		s.hasFields = true
	case errors.Is(err, errKeptTooLong):
		s.Omitted = true
	default:
		return nil, err
	}
	return s, nil
}

// Pack appends the packed form of s to dst, at most MaxSummary bytes.
func (s *Summary) Pack(dst []byte) []byte {
	at := len(dst)
	if dst = s.pack(dst); len(dst)-at <= MaxSummary {
		return dst
	}
	cut := *s
	cut.Omitted, cut.Root = true, nil
	if dst = cut.pack(dst[:at]); len(dst)-at <= MaxSummary {
		return dst
	}
	none := Summary{Size: s.Size, Omitted: true}
	return none.pack(dst[:at])
}

func (s *Summary) pack(dst []byte) []byte {
	start := len(dst)
	var have Sections
	set := func(cond bool, bit Sections) {
		if cond {
			have |= bit
		}
	}
	set(s.hasFields, SectionFields)
	set(s.Root != nil, SectionStructure)
	set(s.HasPreview, SectionPreview)
	set(s.Envelope != nil, SectionEnvelope)
	set(s.Omitted, omitted)
	w := packer{b: append(dst, summaryMagic, summaryVersion, byte(have)), pool: s.raw}
	w.number(s.Size)
	if s.hasFields {
		w.section(func() {
			w.number(int64(len(s.index)))
			for _, f := range s.index {
				w.b = append(w.b, f.number)
				w.number(int64(f.size))
			}
			w.b = append(w.b, s.raw...)
		})
	}
	if s.Envelope != nil {
		w.section(func() { w.envelope(s.Envelope) })
	}
	if s.Root != nil {
		w.section(func() { w.part(s.Root, 0, true) })
	}
	if s.HasPreview {
		w.number(int64(len(s.Preview)))
		w.b = append(w.b, s.Preview...)
	}
	return binary.LittleEndian.AppendUint32(w.b, crc32.Checksum(w.b[start:], castagnoli))
}

type packer struct {
	b    []byte
	pool string // the kept fields
	last int    // where the last string was found there
}

// section writes what f writes, with its length before it.
func (w *packer) section(f func()) {
	at := len(w.b)
	f()
	n := len(w.b) - at
	var length [binary.MaxVarintLen64]byte
	l := binary.PutUvarint(length[:], uint64(n))
	w.b = append(w.b, length[:l]...)
	copy(w.b[at+l:], w.b[at:at+n])
	copy(w.b[at:], length[:l])
}

func (w *packer) number(n int64) { w.b = binary.AppendUvarint(w.b, uint64(n)) }

func (w *packer) str(s string) { w.text(s, 0) }

// leastShared is the length from which on a string is looked for among the kept fields, searchWindow how far.
const (
	leastShared  = 4
	searchWindow = 2 << 10
)

func (w *packer) text(s string, plus int64) {
	if len(s) >= leastShared {
		at := strings.Index(w.pool[w.last:min(len(w.pool), w.last+searchWindow)], s)
		if at >= 0 {
			at += w.last
		} else {
			at = strings.Index(w.pool[:min(len(w.pool), searchWindow)], s)
		}
		if at >= 0 {
			w.last = at
			w.number(int64(len(s))*2 + 1 + plus)
			w.number(int64(at))
			return
		}
	}
	w.number(int64(len(s))*2 + plus)
	w.b = append(w.b, s...)
}

func (w *packer) nstr(s NString) {
	if !s.Valid {
		w.number(0)
		return
	}
	w.text(s.Value, 1)
}

func (w *packer) params(list []Param) {
	w.number(int64(len(list)))
	for _, p := range list {
		w.str(p.Name)
		w.str(p.Value)
	}
}

func (w *packer) part(p *Part, base int64, outermost bool) {
	var bits byte
	set := func(cond bool, bit byte) {
		if cond {
			bits |= bit
		}
	}
	plain := p.Type == "text" && p.Subtype == "plain" && len(p.Params) == 1 && p.Params[0] == defaultParams[0]
	set(!plain, hasType)
	set(p.Encoding != "7bit", hasEncoding)
	set(p.ID.Valid || p.Description.Valid || p.MD5.Valid || p.Location.Valid, hasNames)
	set(p.Disposition != nil, hasDisposition)
	set(len(p.Language) > 0, hasLanguage)
	set(p.Envelope != nil && !outermost, hasEnvelope)
	set(p.Message != nil, hasMessage)
	set(p.Truncated, isTruncated)
	w.b = append(w.b, bits)
	if !plain {
		w.str(p.Type)
		w.str(p.Subtype)
		w.params(p.Params)
	}
	if p.Encoding != "7bit" {
		w.str(p.Encoding)
	}
	for _, n := range [...]int64{p.HeaderOffset - base, p.HeaderSize(), p.BodySize(), p.Lines} {
		w.number(n)
	}
	if bits&hasNames != 0 {
		for _, s := range [...]NString{p.ID, p.Description, p.MD5, p.Location} {
			w.nstr(s)
		}
	}
	if d := p.Disposition; d != nil {
		w.str(d.Value)
		w.params(d.Params)
	}
	if len(p.Language) > 0 {
		w.number(int64(len(p.Language)))
		for _, tag := range p.Language {
			w.str(tag)
		}
	}
	if bits&hasEnvelope != 0 {
		w.envelope(p.Envelope)
	}
	w.number(int64(len(p.Children)))
	for _, c := range p.Children {
		w.part(c, p.HeaderOffset, false)
	}
	if p.Message != nil {
		w.part(p.Message, p.HeaderOffset, false)
	}
}

func (w *packer) envelope(e *Envelope) {
	var bits byte
	if !sameAddresses(e.Sender, e.From) {
		bits |= ownSender
	}
	if !sameAddresses(e.ReplyTo, e.From) {
		bits |= ownReplyTo
	}
	w.b = append(w.b, bits)
	w.nstr(e.Date)
	w.nstr(e.Subject)
	w.addresses(e.From)
	if bits&ownSender != 0 {
		w.addresses(e.Sender)
	}
	if bits&ownReplyTo != 0 {
		w.addresses(e.ReplyTo)
	}
	w.addresses(e.To)
	w.addresses(e.Cc)
	w.addresses(e.Bcc)
	w.nstr(e.InReplyTo)
	w.nstr(e.MessageID)
	w.nstr(e.References)
}

func (w *packer) addresses(list []Address) {
	w.number(int64(len(list)))
	for i := range list {
		a := &list[i]
		w.str(a.Name)
		w.str(a.Route)
		w.str(a.Mailbox)
		w.str(a.Host)
	}
}

func sameAddresses(a, b []Address) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if a[i] != b[i] {
			return false
		}
	}
	return true
}
