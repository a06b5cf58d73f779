package outbound

import (
	"bytes"
	"io"
)

// body makes the octets between 354 and the reply (RFC 5321 §4.5.2):
//
//	body = *( [ "." ] line CRLF ) "." CRLF      ; the "." before a line that begins with one
//
// Whatever the message has for line ends (CRLF, CR, LF), each becomes CRLF.
type body struct {
	out []byte
	bol bool // at the begin of a line
	cr  bool // the last octet was a CR, which has been written as CRLF already
}

// add appends p.
func (b *body) add(p []byte) {
	for len(p) > 0 {
		if b.cr {
			b.cr = false
			if p[0] == '\n' {
				p = p[1:]
				continue
			}
		}
		if p[0] == '.' && b.bol {
			b.out = append(b.out, '.')
		}
		i := bytes.IndexAny(p, "\r\n")
		if i < 0 {
			b.out = append(b.out, p...)
			b.bol = false
			return
		}
		b.out = append(append(b.out, p[:i]...), '\r', '\n')
		b.bol, b.cr = true, p[i] == '\r'
		p = p[i+1:]
	}
}

// end appends the end of data.
func (b *body) end() {
	if !b.bol {
		b.out = append(b.out, "\r\n"...)
	}
	b.out = append(b.out, ".\r\n"...)
}

// has8bit tells whether a message, or only its header section, holds octets above 127.
func has8bit(r io.Reader, headerOnly bool) (bool, error) {
	buf := make([]byte, 32<<10)
	blank := 1 // line ends in a row
	for {
		n, err := r.Read(buf)
		for _, c := range buf[:n] {
			switch {
			case c >= 0x80:
				return true, nil
			case c == '\n':
				if blank++; blank == 2 && headerOnly {
					return false, nil
				}
			case c != '\r':
				blank = 0
			}
		}
		if err == io.EOF {
			return false, nil
		}
		if err != nil {
			return false, err
		}
	}
}
