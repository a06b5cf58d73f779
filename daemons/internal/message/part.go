package message

import (
	"strings"
)

// Limits bounds what Parse keeps and follows. A field that is zero stands for its default.
type Limits struct {
	Depth       int // nesting of multiparts and embedded messages; what lies deeper is opaque data
	Parts       int // entities of one message; what follows belongs to the body of the last one
	FieldBytes  int // bytes kept of one header field; the rest is not looked at
	HeaderBytes int // bytes kept of all header fields of one message together
}

// DefaultLimits are the limits used where none are given.
func DefaultLimits() Limits {
	return Limits{Depth: 64, Parts: 5000, FieldBytes: 256 << 10, HeaderBytes: 2 << 20}
}

func (l Limits) withDefaults() Limits {
	d := DefaultLimits()
	if l.Depth <= 0 {
		l.Depth = d.Depth
	}
	if l.Parts <= 0 {
		l.Parts = d.Parts
	}
	if l.FieldBytes <= 0 {
		l.FieldBytes = d.FieldBytes
	}
	if l.HeaderBytes <= 0 {
		l.HeaderBytes = d.HeaderBytes
	}
	return l
}

// NString is a string that may be absent: IMAP's nstring. An absent field is NIL on the wire, a
// field that is there and empty is "" (RFC 9051 §7.5.2).
type NString struct {
	Value string
	Valid bool
}

// Param is one parameter of a Content-Type or Content-Disposition field. The name is in lower
// case, quoting is removed and continuations are joined (RFC 2231 §3). A value in the extended
// syntax of RFC 2231 §4 stays encoded and its name keeps the final asterisk, as IMAP wants it;
// see Part.Filename for the decoded form.
type Param struct {
	Name, Value string
}

// Disposition is a Content-Disposition field (RFC 2183). Value is in lower case.
type Disposition struct {
	Value  string
	Params []Param
}

// Part is one entity: the message itself, a body part, or a message inside a message.
type Part struct {
	HeaderOffset int64 // where the header begins, in bytes from the start of the message
	BodyOffset   int64 // where the body begins: behind the blank line
	End          int64 // where the body ends; the line break before a boundary is not part of it
	Lines        int64 // lines (LF bytes) of the body

	Type, Subtype string  // media type in lower case; the default where the field is missing or unusable
	Params        []Param // of Content-Type
	Encoding      string  // Content-Transfer-Encoding in lower case; "7bit" where there is none

	ID, Description, MD5, Location NString
	Disposition                    *Disposition
	Language                       []string

	// Envelope is there for messages: the outermost one and each embedded one.
	Envelope *Envelope
	// Children are the parts of a multipart. A multipart always has at least one: where no
	// boundary is found, one text/plain part that is the whole body.
	Children []*Part
	// Message is the message inside a message/rfc822 or message/global part.
	Message *Part

	// Truncated says that a limit kept Parse from looking at all of this entity.
	Truncated bool
}

// HeaderSize is the size of the header in bytes, its closing blank line included.
func (p *Part) HeaderSize() int64 { return p.BodyOffset - p.HeaderOffset }

// BodySize is the size of the body in bytes, in its transfer encoding.
func (p *Part) BodySize() int64 { return p.End - p.BodyOffset }

// MediaType is the type and subtype in lower case, joined by a slash.
func (p *Part) MediaType() string { return p.Type + "/" + p.Subtype }

// IsMultipart says whether the part has Children.
func (p *Part) IsMultipart() bool { return len(p.Children) > 0 }

// IsText says whether the part is of type text, so that its size in lines is part of its
// body structure.
func (p *Part) IsText() bool { return p.Type == "text" }

// Param returns the value of a parameter of Content-Type, decoded if it is in the extended syntax of RFC
// 2231; the empty string where there is none. name is in lower case.
func (p *Part) Param(name string) string {
	for i := range p.Params {
		if p.Params[i].Name == name {
			return p.Params[i].Value
		}
	}
	for i := range p.Params {
		if n := p.Params[i].Name; len(n) == len(name)+1 && n[len(name)] == '*' && n[:len(name)] == name {
			return decodeExtended(p.Params[i].Value)
		}
	}
	return ""
}

// Find returns the part with the given IMAP part number (RFC 9051 §6.4.5.1), p being the
// message: nil where there is no such part, p itself for the empty path.
//
//	message that is no multipart:    its part 1 is its own body
//	multipart:                       its part n is its n-th child
//	part that is a message/rfc822:   numbers below it count in the message inside
func (p *Part) Find(path []int) *Part {
	cur, msg := p, p
	for _, n := range path {
		if msg == nil { // cur is a leaf or a nested multipart
			msg = cur
			if !cur.IsMultipart() {
				if cur.Message == nil {
					return nil
				}
				msg = cur.Message
			}
		}
		switch {
		case msg.IsMultipart():
			if n < 1 || n > len(msg.Children) {
				return nil
			}
			cur = msg.Children[n-1]
		case n == 1:
			cur = msg
		default:
			return nil
		}
		msg = nil
	}
	return cur
}

// Walk calls f for p and for every entity below it in the order of the file, with its IMAP part
// number; the message inside a message/rfc822 part is visited with the number of that part. The
// path is valid only during the call. f returns false to leave out what lies below.
func (p *Part) Walk(f func(path []int, p *Part) bool) {
	p.walk(make([]int, 0, 8), f)
}

func (p *Part) walk(path []int, f func([]int, *Part) bool) {
	if !f(path, p) {
		return
	}
	for i, c := range p.Children {
		c.walk(append(path, i+1), f)
	}
	if p.Message != nil {
		if len(path) == 0 {
			path = append(path, 1)
		}
		p.Message.walk(path, f)
	}
}

// Filename is the decoded name that the sender gave to the part: the filename parameter of
// Content-Disposition or the name parameter of Content-Type (RFC 2231 and, against the letter of
// the standard but as it is widely done, RFC 2047). The empty string where there is none.
func (p *Part) Filename() string {
	if p.Disposition != nil {
		if v, ok := decodedParam(p.Disposition.Params, "filename"); ok {
			return v
		}
	}
	v, _ := decodedParam(p.Params, "name")
	return v
}

func decodedParam(params []Param, name string) (string, bool) {
	for i := range params {
		if params[i].Name == name+"*" {
			return decodeExtended(params[i].Value), true
		}
	}
	for i := range params {
		if params[i].Name == name {
			return DecodeHeader(params[i].Value), true
		}
	}
	return "", false
}

// isMessageType says whether entities of this type carry a message with a header of its own.
func isMessageType(typ, subtype string) bool {
	return typ == "message" && (subtype == "rfc822" || subtype == "global")
}

// lower is strings.ToLower without an allocation for the names that occur in nearly every
// message, however they are written.
func lower(s string) string {
	for _, known := range [...]string{"text", "plain", "multipart", "mixed", "alternative", "html",
		"7bit", "8bit", "base64", "quoted-printable", "charset", "boundary", "us-ascii", "utf-8", "application", "image"} {
		if len(s) == len(known) && strings.EqualFold(s, known) {
			return known
		}
	}
	return strings.ToLower(s)
}
