package message

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
)

// Summary is what can be said about a message without reading it again: its structure with the offsets
// of all parts, the envelopes, and the beginning of its text. It is derived data, made for caches: its
// packed form is refused, and made anew from the message, whenever it is not exactly as it was written.
//
//	packed   = %x53 version size preview part checksum
//	version  = %x01               other versions are refused: what is derived can be made again
//	size     = number             of the message, in bytes
//	part     = bits [type subtype params] [encoding] begin header-size body-size lines
//	           [id] [description] [md5] [location] [disposition] [languages] [envelope] children [part]
//	envelope = bits date subject from [sender] [reply-to] to cc bcc in-reply-to message-id references
//	number   = unsigned varint    string = number bytes    nstring = 0 / (length + 1) bytes
//	list     = number of elements, then each
//	checksum = CRC-32C of all before it, 4 bytes, little-endian
//
// The optional things are there when their bit is set. begin counts from where the header of the
// enclosing entity begins.
type Summary struct {
	Size    int64
	Root    *Part
	Preview string
}

// ErrBadSummary says that bytes are no packed summary of this version, or not as they were written.
var ErrBadSummary = errors.New("not a packed summary")

const (
	summaryMagic   = 'S'
	summaryVersion = 1
	maxUnpackDepth = 1000
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

// Pack appends the packed form of s to dst.
func (s *Summary) Pack(dst []byte) []byte {
	start := len(dst)
	w := packer{append(dst, summaryMagic, summaryVersion)}
	w.number(s.Size)
	w.str(s.Preview)
	w.part(s.Root, 0)
	return binary.LittleEndian.AppendUint32(w.b, crc32.Checksum(w.b[start:], castagnoli))
}

type packer struct{ b []byte }

func (w *packer) number(n int64) { w.b = binary.AppendUvarint(w.b, uint64(n)) }

func (w *packer) str(s string) {
	w.number(int64(len(s)))
	w.b = append(w.b, s...)
}

func (w *packer) nstr(s NString) {
	if !s.Valid {
		w.number(0)
		return
	}
	w.number(int64(len(s.Value)) + 1)
	w.b = append(w.b, s.Value...)
}

func (w *packer) params(list []Param) {
	w.number(int64(len(list)))
	for _, p := range list {
		w.str(p.Name)
		w.str(p.Value)
	}
}

func (w *packer) part(p *Part, base int64) {
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
	set(p.Envelope != nil, hasEnvelope)
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
	if p.Envelope != nil {
		w.envelope(p.Envelope)
	}
	w.number(int64(len(p.Children)))
	for _, c := range p.Children {
		w.part(c, p.HeaderOffset)
	}
	if p.Message != nil {
		w.part(p.Message, p.HeaderOffset)
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

// UnpackSummary reads what Pack wrote. The result does not refer to b. ErrBadSummary where it is
// something else.
func UnpackSummary(b []byte) (*Summary, error) {
	n := len(b) - 4
	if n < 2 || b[0] != summaryMagic {
		return nil, ErrBadSummary
	}
	if b[1] != summaryVersion {
		return nil, fmt.Errorf("%w: version %d", ErrBadSummary, b[1])
	}
	if crc32.Checksum(b[:n], castagnoli) != binary.LittleEndian.Uint32(b[n:]) {
		return nil, fmt.Errorf("%w: checksum", ErrBadSummary)
	}
	r := unpacker{rest: string(b[2:n])}
	s := &Summary{Size: r.number(), Preview: r.str()}
	s.Root = r.part(0, 0)
	if r.bad || r.rest != "" || s.Root.Envelope == nil || s.Root.HeaderOffset != 0 || s.Root.End > s.Size {
		return nil, ErrBadSummary
	}
	return s, nil
}

// unpacker reads off the front of rest. All strings that it gives share the memory of it. Once bad is set
// everything that it gives is zero.
type unpacker struct {
	rest string
	bad  bool
}

func (r *unpacker) fail() {
	r.bad, r.rest = true, ""
}

func (r *unpacker) byte() byte {
	if r.rest == "" {
		r.fail()
		return 0
	}
	c := r.rest[0]
	r.rest = r.rest[1:]
	return c
}

// number reads a number below 2^56.
func (r *unpacker) number() (n int64) {
	for shift := 0; shift < 56; shift += 7 {
		c := r.byte()
		n |= int64(c&0x7f) << shift
		if c < 0x80 {
			return n
		}
	}
	r.fail()
	return 0
}

func (r *unpacker) take(n int64) string {
	if n > int64(len(r.rest)) {
		r.fail()
		return ""
	}
	s := r.rest[:n]
	r.rest = r.rest[n:]
	return s
}

func (r *unpacker) str() string { return r.take(r.number()) }

func (r *unpacker) nstr() NString {
	n := r.number()
	if n == 0 {
		return NString{}
	}
	return NString{r.take(n - 1), !r.bad}
}

// count reads the number of elements of a list, each of which takes at least size bytes.
func (r *unpacker) count(size int) int {
	n := r.number()
	if n > int64(len(r.rest)/size) {
		r.fail()
		return 0
	}
	return int(n)
}

func (r *unpacker) params() []Param {
	n := r.count(2)
	if n == 0 {
		return nil
	}
	list := make([]Param, n)
	for i := range list {
		list[i] = Param{Name: r.str(), Value: r.str()}
	}
	return list
}

func (r *unpacker) part(base int64, depth int) *Part {
	p := &Part{}
	if depth > maxUnpackDepth {
		r.fail()
		return p
	}
	bits := r.byte()
	p.Type, p.Subtype, p.Params, p.Encoding = "text", "plain", defaultParams, "7bit"
	if bits&hasType != 0 {
		p.Type, p.Subtype, p.Params = r.str(), r.str(), r.params()
	}
	if bits&hasEncoding != 0 {
		p.Encoding = r.str()
	}
	p.HeaderOffset = base + r.number()
	p.BodyOffset = p.HeaderOffset + r.number()
	p.End = p.BodyOffset + r.number()
	p.Lines = r.number()
	if bits&hasNames != 0 {
		p.ID, p.Description, p.MD5, p.Location = r.nstr(), r.nstr(), r.nstr(), r.nstr()
	}
	if bits&hasDisposition != 0 {
		p.Disposition = &Disposition{Value: r.str(), Params: r.params()}
	}
	if bits&hasLanguage != 0 {
		p.Language = make([]string, r.count(1))
		for i := range p.Language {
			p.Language[i] = r.str()
		}
	}
	if bits&hasEnvelope != 0 {
		p.Envelope = r.envelope()
	}
	p.Truncated = bits&isTruncated != 0
	if n := r.count(6); n > 0 {
		p.Children = make([]*Part, n)
		for i := range p.Children {
			p.Children[i] = r.part(p.HeaderOffset, depth+1)
		}
	}
	if bits&hasMessage != 0 {
		if p.Message = r.part(p.HeaderOffset, depth+1); p.Message.Envelope == nil {
			r.fail()
		}
	}
	return p
}

func (r *unpacker) envelope() *Envelope {
	bits := r.byte()
	e := &Envelope{Date: r.nstr(), Subject: r.nstr(), From: r.addresses()}
	e.Sender, e.ReplyTo = e.From, e.From
	if bits&ownSender != 0 {
		e.Sender = r.addresses()
	}
	if bits&ownReplyTo != 0 {
		e.ReplyTo = r.addresses()
	}
	e.To, e.Cc, e.Bcc = r.addresses(), r.addresses(), r.addresses()
	e.InReplyTo, e.MessageID, e.References = r.nstr(), r.nstr(), r.nstr()
	return e
}

func (r *unpacker) addresses() []Address {
	n := r.count(4)
	if n == 0 {
		return nil
	}
	list := make([]Address, n)
	for i := range list {
		list[i] = Address{Name: r.str(), Route: r.str(), Mailbox: r.str(), Host: r.str()}
	}
	return list
}
