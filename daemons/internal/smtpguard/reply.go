package smtpguard

import (
	"bytes"
	"fmt"
	"strconv"
)

// reply puts a reply of the guard's own, one line without CRLF, behind what is due.
func (c *Conn) reply(line string) {
	c.out = append(append(c.out, line...), "\r\n"...)
	code, _ := strconv.Atoi(line[:3])
	c.replied(code)
}

// replied notes the code of a complete reply.
func (c *Conn) replied(code int) {
	c.last = code
	c.g.o.Metrics.replies.WithLabelValues(c.g.o.Listener, class(code)).Inc()
	switch {
	case code == 421: // RFC 5321 §3.8: closing the channel
		c.closing = true
	case code == 535: // a wrong password weighs as much as a fifth of what is tolerated
		c.errors += max(1, c.g.o.MaxErrors/5)
	case code >= 500:
		c.errors++
	}
}

// takeReply takes octets of go-smtp's replies. A reply may come in pieces.
//
//	reply = *( code "-" text CRLF ) code SP text CRLF
func (c *Conn) takeReply(p []byte) {
	for len(p) > 0 {
		i := bytes.IndexByte(p, '\n')
		if i < 0 {
			c.part = append(c.part, p...)
			return
		}
		line := p[:i+1]
		if len(c.part) > 0 {
			c.part = append(c.part, line...)
			line = c.part
		}
		c.replyLine(bytes.TrimRight(line, "\r\n"))
		c.part = c.part[:0]
		p = p[i+1:]
	}
}

func (c *Conn) replyLine(line []byte) {
	if len(line) < 4 {
		return
	}
	final := line[3] != '-'
	if c.swallow {
		if final {
			c.swallow = false
		}
		return
	}
	code, err := strconv.Atoi(string(line[:3]))
	if err != nil {
		return
	}
	if code == 250 {
		switch c.command {
		case verbHELO:
			line = fmt.Appendf(nil, "250 %s", c.g.o.Hostname)
		case verbEHLO, verbLHLO:
			if line = c.helloLine(line, final); line == nil {
				return
			}
		}
	}
	if code == 354 && c.command == verbBDAT {
		c.mode, c.last = modeChunks, code // go-smtp was told DATA; the client does not wait for this
		return
	}
	if c.quota == 0 {
		c.last = code
		return
	}
	if final && c.quota > 0 {
		c.quota--
	}
	for _, b := range line {
		if b < 0x20 || b == 0x7f {
			b = '?'
		}
		c.out = append(c.out, b)
	}
	c.out = append(c.out, "\r\n"...)
	if !final {
		return
	}
	switch {
	case code == 334 && c.command == verbAUTH:
		c.mode = modeAuth
	case code == 354 && c.command == verbDATA:
		c.mode = modeData
	}
	c.replied(code)
}

// helloLine completes the answer to EHLO (RFC 5321 §4.1.1.1): the server's own name first, and STARTTLS
// (RFC 3207 §4) and BINARYMIME (RFC 3030 §3), which only the guard can offer. It leaves DSN out unless it is to be announced.
func (c *Conn) helloLine(line []byte, final bool) []byte {
	switch {
	case bytes.HasPrefix(line[4:], []byte("Hello ")):
		return fmt.Appendf(nil, "250%c%s greets %s", line[3], c.g.o.Hostname, c.helo)
	case !final && !c.g.o.DSN && string(line) == "250-DSN":
		return nil
	case final:
		if c.g.o.Binary {
			c.out = append(c.out, "250-BINARYMIME\r\n"...)
		}
		if c.g.o.TLS != nil && c.tls == nil {
			c.out = append(c.out, "250-STARTTLS\r\n"...)
		}
	}
	return line
}
