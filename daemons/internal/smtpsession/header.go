package smtpsession

import (
	"bytes"
	"io"

	"shoal/daemons/internal/mailaddr"
)

// header is what is looked at in a message's header section before the message goes on.
type header struct {
	hops    int  // Received fields
	own     int  // Received fields with our name behind "by"
	looped  bool // a Delivered-To names one of the recipients
	hasDate bool
	hasID   bool
}

const headerRead = 4 << 10

// readHeader reads r up to the empty line that ends the header section (RFC 5322 §2.1), or the first line that is
// no field, and returns all that it has read and where the section ends. A section of more than limit octets is not
// ok. Lines may end in a bare LF: BDAT brings such messages.
//
//	section = [ [">"] "From " text CRLF ] *( name ":" text *( CRLF WSP text ) CRLF )
func readHeader(r io.Reader, limit int) (raw []byte, end int, ok bool, err error) {
	buf := make([]byte, 0, headerRead)
	scanned := 0 // begin of the line that has no end yet
	for {
		for {
			i := bytes.IndexByte(buf[scanned:], '\n')
			if i < 0 {
				break
			}
			line := buf[scanned : scanned+i+1]
			if !belongs(line, scanned == 0) {
				return buf, scanned, scanned <= limit, nil
			}
			scanned += i + 1
		}
		if len(buf) > limit {
			return buf, scanned, false, nil
		}
		if len(buf) == cap(buf) {
			buf = append(buf, 0)[:len(buf)]
		}
		n, err := r.Read(buf[len(buf):cap(buf)])
		buf = buf[:len(buf)+n]
		if err == io.EOF {
			// A last line without an end counts when it is a field.
			if line := buf[scanned:]; len(line) > 0 && belongs(line, scanned == 0) {
				scanned = len(buf)
			}
			return buf, scanned, scanned <= limit, nil
		}
		if err != nil {
			return buf, scanned, false, err
		}
	}
}

// belongs reports whether a line belongs to the header section: a field, the continuation of one, or the "From "
// line of a mailbox file that some senders leave at the top.
func belongs(line []byte, first bool) bool {
	if len(bytes.TrimRight(line, "\r\n")) == 0 {
		return false
	}
	if first {
		return isField(line) || bytes.HasPrefix(line, []byte("From ")) || bytes.HasPrefix(line, []byte(">From "))
	}
	return isField(line) || line[0] == ' ' || line[0] == '\t'
}

// isField reports whether a line begins with a field name and a colon (RFC 5322 §2.2, §4.5.8: white space
// before the colon is obsolete and exists).
func isField(line []byte) bool {
	i := bytes.IndexByte(line, ':')
	name := bytes.TrimRight(line[:max(i, 0)], " \t")
	if len(name) == 0 {
		return false
	}
	for _, c := range name {
		if c <= ' ' || c >= 0x7f {
			return false
		}
	}
	return true
}

// scan reads the fields of a header section.
func (h *header) scan(section []byte, hostname string, rcpts []recipient) {
	for len(section) > 0 {
		field := section
		for end := 0; ; {
			i := bytes.IndexByte(section[end:], '\n')
			if i < 0 {
				break
			}
			if end += i + 1; end == len(section) || section[end] != ' ' && section[end] != '\t' {
				field = section[:end]
				break
			}
		}
		section = section[len(field):]
		h.field(field, hostname, rcpts)
	}
}

func (h *header) field(field []byte, hostname string, rcpts []recipient) {
	name, value, _ := bytes.Cut(field, []byte(":"))
	switch string(bytes.ToLower(bytes.TrimRight(name, " \t"))) {
	case "received":
		h.hops++
		words := bytes.Fields(value)
		for i := range words {
			if bytes.EqualFold(words[i], []byte("by")) && i+1 < len(words) && bytes.EqualFold(bytes.TrimRight(words[i+1], ";"), []byte(hostname)) {
				h.own++
				break
			}
		}
	case "delivered-to":
		a, err := mailaddr.Parse(string(bytes.TrimSpace(value)))
		if err != nil {
			return
		}
		for _, r := range rcpts {
			if key := a.Key(); key == r.as.Key() || key == r.box {
				h.looped = true
			}
		}
	case "date":
		h.hasDate = true
	case "message-id":
		h.hasID = true
	}
}
