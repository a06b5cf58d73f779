package message

import (
	"strconv"
	"unicode/utf8"
)

// The wire form of ENVELOPE, BODY and BODYSTRUCTURE, RFC 9051 §9:
//
//	envelope  = "(" date SP subject SP from SP sender SP reply-to SP to SP cc SP bcc SP in-reply-to SP message-id ")"
//	address   = "(" name SP adl SP mailbox SP host ")"
//	body      = "(" (body-type-1part / body-type-mpart) ")"
//	1part     = type SP subtype SP params SP id SP description SP encoding SP octets
//	            [SP envelope SP body SP lines / SP lines] [SP md5 SP dsp SP lang SP loc]
//	mpart     = 1*body SP subtype [SP params SP dsp SP lang SP loc]

// maxQuoted is the longest string that is written in quotes; longer ones are literals.
const maxQuoted = 1000

// AppendEnvelope appends the parenthesised ENVELOPE of IMAP to dst. Strings that cannot be quoted
// are written as literals. utf8 says that the client accepts UTF-8 in quoted strings
// (IMAP4rev2 or UTF8=ACCEPT).
func AppendEnvelope(dst []byte, e *Envelope, utf8 bool) []byte {
	w := wire{dst, utf8}
	w.envelope(e)
	return w.b
}

// AppendStructure appends the parenthesised BODY (extended false) or BODYSTRUCTURE (true) of p. A
// message/global part is written as a message where utf8 is set, and else, as RFC 3501 has no form for
// it, as a part of any other type.
func AppendStructure(dst []byte, p *Part, extended, utf8 bool) []byte {
	w := wire{dst, utf8}
	w.structure(p, extended)
	return w.b
}

type wire struct {
	b    []byte
	utf8 bool
}

func (w *wire) space() { w.b = append(w.b, ' ') }

func (w *wire) nilValue() { w.b = append(w.b, "NIL"...) }

func (w *wire) number(n int64) { w.b = strconv.AppendInt(w.b, n, 10) }

func (w *wire) str(s string) {
	if !w.quotable(s) {
		w.b = append(w.b, '{')
		w.b = strconv.AppendInt(w.b, int64(len(s)), 10)
		w.b = append(w.b, "}\r\n"...)
		w.b = append(w.b, s...)
		return
	}
	w.b = append(w.b, '"')
	from := 0
	for i := 0; i < len(s); i++ {
		if s[i] == '"' || s[i] == '\\' {
			w.b = append(w.b, s[from:i]...)
			w.b = append(w.b, '\\')
			from = i
		}
	}
	w.b = append(w.b, s[from:]...)
	w.b = append(w.b, '"')
}

func (w *wire) quotable(s string) bool {
	if len(s) > maxQuoted {
		return false
	}
	ascii := true
	for i := 0; i < len(s); i++ {
		if c := s[i]; c >= utf8.RuneSelf {
			ascii = false
		} else if c == '\r' || c == '\n' || c == 0 {
			return false
		}
	}
	return ascii || w.utf8 && utf8.ValidString(s)
}

func (w *wire) nstring(s NString) {
	if !s.Valid {
		w.nilValue()
		return
	}
	w.str(s.Value)
}

// orNil writes a string for which the empty one means that there is none.
func (w *wire) orNil(s string) { w.nstring(NString{s, s != ""}) }

func (w *wire) envelope(e *Envelope) {
	w.b = append(w.b, '(')
	w.nstring(e.Date)
	w.space()
	w.nstring(e.Subject)
	for _, list := range [...][]Address{e.From, e.Sender, e.ReplyTo, e.To, e.Cc, e.Bcc} {
		w.space()
		w.addresses(list)
	}
	w.space()
	w.nstring(e.InReplyTo)
	w.space()
	w.nstring(e.MessageID)
	w.b = append(w.b, ')')
}

func (w *wire) addresses(list []Address) {
	if len(list) == 0 {
		w.nilValue()
		return
	}
	w.b = append(w.b, '(')
	for i := range list {
		a := &list[i]
		w.b = append(w.b, '(')
		w.orNil(a.Name)
		w.space()
		w.orNil(a.Route)
		w.space()
		w.orNil(a.Mailbox)
		w.space()
		w.orNil(a.Host)
		w.b = append(w.b, ')')
	}
	w.b = append(w.b, ')')
}

func (w *wire) structure(p *Part, extended bool) {
	w.b = append(w.b, '(')
	if p.IsMultipart() {
		w.multipart(p, extended)
	} else {
		w.single(p, extended)
	}
	w.b = append(w.b, ')')
}

func (w *wire) multipart(p *Part, extended bool) {
	for _, c := range p.Children {
		w.structure(c, extended)
	}
	w.space()
	w.str(p.Subtype)
	if extended {
		w.space()
		w.params(p.Params)
		w.extension(p)
	}
}

func (w *wire) single(p *Part, extended bool) {
	w.str(p.Type)
	w.space()
	w.str(p.Subtype)
	w.space()
	w.params(p.Params)
	w.space()
	w.nstring(p.ID)
	w.space()
	w.nstring(p.Description)
	w.space()
	w.str(p.Encoding)
	w.space()
	w.number(p.BodySize())
	switch {
	case p.Message != nil && (w.utf8 || p.Subtype == "rfc822"):
		w.space()
		w.envelope(p.Message.Envelope)
		w.space()
		w.structure(p.Message, extended)
		w.space()
		w.number(p.Lines)
	case p.IsText():
		w.space()
		w.number(p.Lines)
	}
	if extended {
		w.space()
		w.nstring(p.MD5)
		w.extension(p)
	}
}

func (w *wire) params(list []Param) {
	if len(list) == 0 {
		w.nilValue()
		return
	}
	w.b = append(w.b, '(')
	for i := range list {
		if i > 0 {
			w.space()
		}
		w.str(list[i].Name)
		w.space()
		w.str(list[i].Value)
	}
	w.b = append(w.b, ')')
}

// extension writes what single parts and multiparts have in common at their end.
func (w *wire) extension(p *Part) {
	w.space()
	if d := p.Disposition; d == nil {
		w.nilValue()
	} else {
		w.b = append(w.b, '(')
		w.str(d.Value)
		w.space()
		w.params(d.Params)
		w.b = append(w.b, ')')
	}
	w.space()
	switch len(p.Language) {
	case 0:
		w.nilValue()
	case 1:
		w.str(p.Language[0])
	default:
		w.b = append(w.b, '(')
		for i, tag := range p.Language {
			if i > 0 {
				w.space()
			}
			w.str(tag)
		}
		w.b = append(w.b, ')')
	}
	w.space()
	w.nstring(p.Location)
}
