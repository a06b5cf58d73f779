package message

import (
	"bytes"
	"strings"
)

// field is a header field that Parse keeps.
type field uint8

const (
	fieldNone field = iota
	fieldDate
	fieldSubject
	fieldFrom
	fieldSender
	fieldReplyTo
	fieldTo
	fieldCc
	fieldBcc
	fieldInReplyTo
	fieldMessageID
	fieldReferences
	fieldContentType
	fieldContentEncoding
	fieldContentID
	fieldContentDescription
	fieldContentDisposition
	fieldContentMD5
	fieldContentLanguage
	fieldContentLocation
	fieldCount
)

var fieldNames = [fieldCount]string{
	fieldDate: "date", fieldSubject: "subject", fieldFrom: "from", fieldSender: "sender",
	fieldReplyTo: "reply-to", fieldTo: "to", fieldCc: "cc", fieldBcc: "bcc",
	fieldInReplyTo: "in-reply-to", fieldMessageID: "message-id", fieldReferences: "references",
	fieldContentType: "content-type", fieldContentEncoding: "content-transfer-encoding",
	fieldContentID: "content-id", fieldContentDescription: "content-description",
	fieldContentDisposition: "content-disposition", fieldContentMD5: "content-md5",
	fieldContentLanguage: "content-language", fieldContentLocation: "content-location",
}

// fieldOf tells which of the kept fields a name is.
func fieldOf(name []byte) field {
	is := func(f field) field {
		if equalFold(name, fieldNames[f]) {
			return f
		}
		return fieldNone
	}
	either := func(a, b field) field {
		if f := is(a); f != fieldNone {
			return f
		}
		return is(b)
	}
	switch len(name) {
	case 2:
		return either(fieldTo, fieldCc)
	case 3:
		return is(fieldBcc)
	case 4:
		return either(fieldFrom, fieldDate)
	case 6:
		return is(fieldSender)
	case 7:
		return is(fieldSubject)
	case 8:
		return is(fieldReplyTo)
	case 10:
		if f := either(fieldMessageID, fieldReferences); f != fieldNone {
			return f
		}
		return is(fieldContentID)
	case 11:
		return either(fieldInReplyTo, fieldContentMD5)
	case 12:
		return is(fieldContentType)
	case 16:
		return either(fieldContentLanguage, fieldContentLocation)
	case 19:
		return either(fieldContentDisposition, fieldContentDescription)
	case 25:
		return is(fieldContentEncoding)
	}
	return fieldNone
}

// equalFold compares a field name with one in lower case, in ASCII.
func equalFold(name []byte, lower string) bool {
	if len(name) != len(lower) {
		return false
	}
	for i, c := range name {
		if 'A' <= c && c <= 'Z' {
			c += 'a' - 'A'
		}
		if c != lower[i] {
			return false
		}
	}
	return true
}

// fieldName is the name at the beginning of a header line and the length of what stands before the
// value; ok is false where the line is no field. Blanks before the colon are obsolete and allowed.
//
//	field = 1*(%d33-57 / %d59-126 / UTF-8) *WSP ":" value      RFC 5322 §2.2, RFC 6532 §3
func fieldName(line []byte) (name []byte, skip int, ok bool) {
	i := bytes.IndexByte(line, ':')
	if i <= 0 {
		return nil, 0, false
	}
	name = bytes.TrimRight(line[:i], " \t")
	if len(name) == 0 {
		return nil, 0, false
	}
	for _, c := range name {
		if c <= ' ' || c == 0x7f {
			return nil, 0, false
		}
	}
	return name, i + 1, true
}

// isBlank says whether a line is the one that ends a header.
func isBlank(line []byte) bool {
	return len(line) == 1 && line[0] == '\n' || len(line) == 2 && line[0] == '\r' && line[1] == '\n'
}

type keptField struct {
	id         field
	start, end int // in the arena
}

// headerReader collects the kept fields of one header in an arena of bytes that is made a string at
// the end, so that all values of a header cost one allocation.
type headerReader struct {
	arena  []byte
	fields []keptField
	total  int // bytes kept of all headers of the message
	cut    bool
}

// read consumes the header at the scanner. first says that the entity is a body part: its header may
// be missing altogether. It returns the delimiter where one ended the header.
func (h *headerReader) read(s *scanner, lim Limits, isMessage, isPart bool) (d delimiter, delimited bool) {
	h.arena, h.fields, h.cut = h.arena[:0], h.fields[:0], false
	keeping := false
	for first := true; ; first = false {
		line := s.line()
		if len(line) == 0 {
			return delimiter{level: noLevel}, true
		}
		if s.bol {
			if isBlank(line) {
				s.consume(line)
				return delimiter{}, false
			}
			if line[0] == '-' {
				if d, ok := s.atDelimiter(); ok {
					return d, true
				}
			}
		}
		switch {
		case !s.bol, line[0] == ' ' || line[0] == '\t':
			if keeping {
				h.keep(line, lim)
			}
		default:
			keeping = false
			name, skip, ok := fieldName(line)
			if !ok {
				if first && isPart {
					return delimiter{}, false
				}
				break
			}
			id := fieldOf(name)
			if id >= fieldContentType || id != fieldNone && isMessage {
				keeping = true
				h.fields = append(h.fields, keptField{id: id, start: len(h.arena), end: len(h.arena)})
				h.keep(line[skip:], lim)
			}
		}
		s.consume(line)
	}
}

// keep appends a line to the last field: without its line break, which unfolds it.
func (h *headerReader) keep(line []byte, lim Limits) {
	if n := len(line); n > 0 && line[n-1] == '\n' {
		line = line[:n-1]
		if n > 1 && line[n-2] == '\r' {
			line = line[:n-2]
		}
	}
	f := &h.fields[len(h.fields)-1]
	if room := min(lim.FieldBytes-(f.end-f.start), lim.HeaderBytes-h.total); len(line) > room {
		line = line[:max(room, 0)]
		h.cut = true
	}
	h.arena = append(h.arena, line...)
	h.total += len(line)
	added := h.arena[f.end:]
	f.end = len(h.arena)
	clean(added)
}

// clean replaces the bytes that no IMAP string can carry.
func clean(b []byte) {
	if bytes.IndexByte(b, 0) < 0 && bytes.IndexByte(b, '\r') < 0 {
		return
	}
	for i, c := range b {
		switch c {
		case 0:
			b[i] = '?'
		case '\r':
			b[i] = ' '
		}
	}
}

// values hands out the fields: the first occurrence of each; destination fields are joined.
func (h *headerReader) values() (v [fieldCount]NString) {
	all := string(h.arena)
	for _, f := range h.fields {
		s := strings.Trim(all[f.start:f.end], " \t")
		switch {
		case !v[f.id].Valid:
			v[f.id] = NString{s, true}
		case (f.id == fieldTo || f.id == fieldCc || f.id == fieldBcc) && s != "":
			v[f.id].Value += ", " + s
		}
	}
	return v
}
