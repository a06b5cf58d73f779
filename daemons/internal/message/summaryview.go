package message

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
)

// View reads packed summaries, one after the other, with memory that it uses again: what its methods return is
// valid until the next Open. It is used by one goroutine at a time.
type View struct {
	have      Sections
	size      int64
	fields    string // raw
	index     string // of the fields
	envelope  string
	structure string
	preview   string
	buf       []byte

	parts     arena[Part]
	params    arena[Param]
	envelopes arena[Envelope]
	addresses arena[Address]
	names     arena[string]
	pointers  arena[*Part]
	dispos    arena[Disposition]
}

// Open checks that packed is a summary of a message of size bytes, as Pack wrote it. ErrBadSummary where it is
// something else; the View is empty then. What lies inside its sections is checked when they are read.
func (v *View) Open(packed string, size int64) error {
	v.Reset()
	n := len(packed) - 4
	if n < 3 || packed[0] != summaryMagic {
		return ErrBadSummary
	}
	if packed[1] != summaryVersion {
		return fmt.Errorf("%w: version %d", ErrBadSummary, packed[1])
	}
	if !v.sameChecksum(packed, n) {
		return fmt.Errorf("%w: checksum", ErrBadSummary)
	}
	have := Sections(packed[2])
	r := unpacker{rest: packed[3:n], v: v}
	if r.number() != size {
		return fmt.Errorf("%w: of another size", ErrBadSummary)
	}
	if have&SectionFields != 0 {
		v.openFields(&r)
	}
	if have&SectionEnvelope != 0 {
		v.envelope = r.take(r.number())
	}
	if have&SectionStructure != 0 {
		v.structure = r.take(r.number())
	}
	if have&SectionPreview != 0 {
		v.preview = r.take(r.number())
	}
	if r.bad || r.rest != "" || have&(SectionEnvelope|SectionStructure) == SectionStructure {
		v.Reset()
		return ErrBadSummary
	}
	v.size, v.have = size, have
	return nil
}

// sameChecksum reads the string through a buffer that is used again: a conversion would be an allocation.
func (v *View) sameChecksum(packed string, n int) bool {
	v.buf = append(v.buf[:0], packed...)
	return crc32.Checksum(v.buf[:n], castagnoli) == binary.LittleEndian.Uint32(v.buf[n:])
}

// openFields divides the section of the fields, and checks that the sizes of its index add up.
func (v *View) openFields(r *unpacker) {
	f := unpacker{rest: r.take(r.number())}
	total, index := int64(0), f.rest
	for n := f.count(2); n > 0; n-- {
		if int(f.byte()) >= len(keptNames) {
			f.fail()
		}
		total += f.number()
	}
	if f.bad || total != int64(len(f.rest)) {
		r.fail()
		return
	}
	v.fields, v.index = f.rest, index
}

// Reset makes the View empty.
func (v *View) Reset() {
	v.have, v.size = 0, 0
	v.fields, v.index, v.envelope, v.structure, v.preview = "", "", "", "", ""
	v.parts.reset()
	v.params.reset()
	v.envelopes.reset()
	v.addresses.reset()
	v.names.reset()
	v.pointers.reset()
	v.dispos.reset()
}

// Has says whether all of the sections are there.
func (v *View) Has(s Sections) bool { return v.have&s == s }

// Omitted says that what is missing was left out for its size.
func (v *View) Omitted() bool { return v.have&omitted != 0 }

// Preview is the text of the preview.
func (v *View) Preview() string { return v.preview }

// Fields are the kept header fields, and the blank line behind the header, as they stand in the message.
func (v *View) Fields() string { return v.fields }

// AppendFields appends those fields that are in the set, and the blank line behind the header: what BODY[HEADER.FIELDS
// (...)] is (RFC 9051 §6.4.5.1).
func (v *View) AppendFields(dst []byte, set FieldSet) []byte {
	set |= 1
	r, rest := unpacker{rest: v.index}, v.fields
	for n := r.number(); n > 0; n-- {
		number := r.byte()
		size := r.number()
		if set&(1<<number) != 0 {
			dst = append(dst, rest[:size]...)
		}
		rest = rest[size:]
	}
	return dst
}

// Envelope unpacks the envelope. ErrBadSummary where it is none.
func (v *View) Envelope() (*Envelope, error) {
	r := unpacker{rest: v.envelope, pool: v.fields, v: v}
	e := r.envelope()
	if r.bad || r.rest != "" {
		return nil, ErrBadSummary
	}
	return e, nil
}

// Date is the date of the envelope.
func (v *View) Date() (NString, error) {
	r := unpacker{rest: v.envelope, pool: v.fields, v: v}
	r.byte()
	d := r.nstr()
	if r.bad {
		return NString{}, ErrBadSummary
	}
	return d, nil
}

// Structure unpacks the structure, with the envelope in it. Whatever was packed, the parts lie within
// the message. ErrBadSummary where it is none.
func (v *View) Structure() (*Part, error) {
	e, err := v.Envelope()
	if err != nil {
		return nil, err
	}
	r := unpacker{rest: v.structure, pool: v.fields, v: v}
	root := r.part(0, v.size, 0)
	if r.bad || r.rest != "" || root.Envelope != nil || root.HeaderOffset != 0 {
		return nil, ErrBadSummary
	}
	root.Envelope = e
	return root, nil
}

// Summary unpacks all, into memory of its own. ErrBadSummary.
func (v *View) Summary() (*Summary, error) {
	own := *v
	own.forget() // the copy shares no memory that is used again
	s := &Summary{
		Size: v.size, Preview: v.preview, HasPreview: v.have&SectionPreview != 0, Omitted: v.Omitted(),
		raw: v.fields, hasFields: v.have&SectionFields != 0,
	}
	r := unpacker{rest: v.index}
	if v.index != "" {
		for n := r.number(); n > 0; n-- {
			s.index = append(s.index, keptLines{r.byte(), int(r.number())})
		}
	}
	var err error
	switch {
	case v.have&SectionStructure != 0:
		if s.Root, err = own.Structure(); err == nil {
			s.Envelope = s.Root.Envelope
		}
	case v.have&SectionEnvelope != 0:
		s.Envelope, err = own.Envelope()
	}
	if err != nil {
		return nil, err
	}
	return s, nil
}

// forget lets go of the memory that is used again.
func (v *View) forget() {
	v.buf, v.parts, v.params, v.envelopes = nil, arena[Part]{}, arena[Param]{}, arena[Envelope]{}
	v.addresses, v.names, v.pointers, v.dispos = arena[Address]{}, arena[string]{}, arena[*Part]{}, arena[Disposition]{}
}

// arena hands out zeroed slices of a chunk that is used again after a reset.
type arena[T any] struct {
	chunk []T
	used  int
}

func (a *arena[T]) reset() { a.used = 0 }

func (a *arena[T]) take(n int) []T {
	if len(a.chunk)-a.used < n {
		a.chunk, a.used = make([]T, max(2*len(a.chunk), n, 8)), 0 // what was handed out of the old one stays valid
	}
	s := a.chunk[a.used : a.used+n : a.used+n]
	a.used += n
	clear(s)
	return s
}

// unpacker reads off the front of rest. All strings that it gives share the memory of it, or of pool. Once bad is
// set everything that it gives is zero.
type unpacker struct {
	rest string
	pool string
	v    *View
	bad  bool
}

func (r *unpacker) fail() { r.bad, r.rest = true, "" }

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

// text reads a string whose number is n.
func (r *unpacker) text(n int64) string {
	if n&1 == 0 {
		return r.take(n >> 1)
	}
	n >>= 1
	at := r.number()
	if at > int64(len(r.pool)) || n > int64(len(r.pool))-at {
		r.fail()
		return ""
	}
	return r.pool[at : at+n]
}

func (r *unpacker) str() string { return r.text(r.number()) }

func (r *unpacker) nstr() NString {
	n := r.number()
	if n == 0 {
		return NString{}
	}
	s := r.text(n - 1)
	return NString{s, !r.bad}
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

func (r *unpacker) paramList() []Param {
	n := r.count(2)
	if n == 0 {
		return nil
	}
	list := r.v.params.take(n)
	for i := range list {
		list[i] = Param{Name: r.str(), Value: r.str()}
	}
	return list
}

// part reads a part of an entity whose header begins at base, and that ends at end.
func (r *unpacker) part(base, end int64, depth int) *Part {
	p := &r.v.parts.take(1)[0]
	if depth > maxUnpackDepth {
		r.fail()
		return p
	}
	bits := r.byte()
	p.Type, p.Subtype, p.Params, p.Encoding = "text", "plain", defaultParams, "7bit"
	if bits&hasType != 0 {
		p.Type, p.Subtype, p.Params = r.str(), r.str(), r.paramList()
	}
	if bits&hasEncoding != 0 {
		p.Encoding = r.str()
	}
	p.HeaderOffset = base + r.number()
	p.BodyOffset = p.HeaderOffset + r.number()
	p.End = p.BodyOffset + r.number()
	p.Lines = r.number()
	if p.End > end {
		r.fail()
	}
	if bits&hasNames != 0 {
		p.ID, p.Description, p.MD5, p.Location = r.nstr(), r.nstr(), r.nstr(), r.nstr()
	}
	if bits&hasDisposition != 0 {
		p.Disposition = &r.v.dispos.take(1)[0]
		p.Disposition.Value, p.Disposition.Params = r.str(), r.paramList()
	}
	if bits&hasLanguage != 0 {
		n := r.count(1)
		if n == 0 {
			r.fail()
		}
		p.Language = r.v.names.take(n)
		for i := range p.Language {
			p.Language[i] = r.str()
		}
	}
	if bits&hasEnvelope != 0 {
		p.Envelope = r.envelope()
	}
	p.Truncated = bits&isTruncated != 0
	if n := r.count(6); n > 0 {
		p.Children = r.v.pointers.take(n)
		for i := range p.Children {
			p.Children[i] = r.part(p.HeaderOffset, p.End, depth+1)
		}
	}
	if bits&hasMessage != 0 {
		if p.Message = r.part(p.HeaderOffset, p.End, depth+1); p.Message.Envelope == nil {
			r.fail()
		}
	}
	return p
}

func (r *unpacker) envelope() *Envelope {
	bits := r.byte()
	e := &r.v.envelopes.take(1)[0]
	e.Date, e.Subject, e.From = r.nstr(), r.nstr(), r.addressList()
	e.Sender, e.ReplyTo = e.From, e.From
	if bits&ownSender != 0 {
		e.Sender = r.addressList()
	}
	if bits&ownReplyTo != 0 {
		e.ReplyTo = r.addressList()
	}
	e.To, e.Cc, e.Bcc = r.addressList(), r.addressList(), r.addressList()
	e.InReplyTo, e.MessageID, e.References = r.nstr(), r.nstr(), r.nstr()
	return e
}

func (r *unpacker) addressList() []Address {
	n := r.count(4)
	if n == 0 {
		return nil
	}
	list := r.v.addresses.take(n)
	for i := range list {
		list[i] = Address{Name: r.str(), Route: r.str(), Mailbox: r.str(), Host: r.str()}
	}
	return list
}
