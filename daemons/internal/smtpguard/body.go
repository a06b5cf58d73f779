package smtpguard

import (
	"bytes"
	"errors"
	"io"
	"strconv"
	"time"

	"github.com/emersion/go-smtp"
)

// Refusals of a message as a whole. After errBareText the connection is closed as well.
var (
	errBareText = &smtp.SMTPError{Code: 550, EnhancedCode: smtp.EnhancedCode{5, 6, 11},
		Message: "The message holds a CR or LF that stands alone; closing the connection"}
	errTextLine = &smtp.SMTPError{Code: 550, EnhancedCode: smtp.EnhancedCode{5, 6, 0}, Message: "The message holds a line that is too long"}
)

// skipTime is how long the rest of a refused message is waited for at each read.
const skipTime = 10 * time.Second

// body is the message of DATA as the session reads it: dots removed, CRLF as line ends and nothing
// else, io.EOF at the end of data. The grammar (RFC 5321 §4.5.2):
//
//	data = *( [ "." ] text CRLF ) "." CRLF
//	text = any octets but CR and LF             ; "." before a text that begins with a dot
//
// Read scans line by line with bytes.IndexByte and copies once. The message is whole only when Read
// has returned io.EOF; any other error means that nothing of it may be kept.
type body struct {
	c       *Conn
	saved   []byte // the connection's own buffer, while the large one is used
	bol     bool   // the octets before were CRLF, or there were none
	afterCR bool   // the octet before was CR
	line    int    // octets of the line so far
	size    int64
	ended   bool  // "." CRLF was read, or the connection is gone
	err     error // what Read returns from now on
}

func (c *Conn) openBody() *body {
	b := &body{c: c, bol: true, saved: c.in}
	large := bodyPool.Get().(*[bodyBuffer]byte)
	c.w = copy(large[:], c.in[c.r:c.w])
	c.r, c.in = 0, large[:]
	return b
}

// finish reads what is left of the message, hands the connection back to the commands and lets go-smtp
// read an empty message. It returns nil when the message was whole.
func (b *body) finish() error {
	c := b.c
	if b.saved == nil {
		return b.whole()
	}
	if !b.ended {
		b.skip()
	}
	if rest := c.in[c.r:c.w]; len(rest) <= len(b.saved) {
		large := (*[bodyBuffer]byte)(c.in)
		c.w = copy(b.saved, rest)
		c.r, c.in = 0, b.saved
		bodyPool.Put(large)
	} else {
		// More is waiting than the small buffer holds: the large one stays for the connection's life.
		large := (*[bodyBuffer]byte)(c.in)
		small := c.release
		c.release = func() { small(); bodyPool.Put(large) }
	}
	b.saved = nil
	c.mode = modeCommand
	c.feed = append(c.line[:0], ".\r\n"...)
	return b.whole()
}

func (b *body) whole() error {
	if b.err == io.EOF {
		return nil
	}
	if b.err == nil {
		b.err = io.ErrUnexpectedEOF
	}
	return b.err
}

func (b *body) Read(p []byte) (n int, err error) {
	c := b.c
	for n < len(p) {
		if b.err != nil {
			break
		}
		w := c.in[c.r:c.w]
		if len(w) == 0 {
			if n > 0 {
				return n, nil
			}
			b.fill()
			continue
		}
		if b.bol && w[0] == '.' {
			b.dot(w)
			continue
		}
		if room := len(p) - n; len(w) > room {
			w = w[:room]
		}
		m := b.text(w)
		n += copy(p[n:], w[:m])
		c.r += m
	}
	if n > 0 {
		return n, nil
	}
	return 0, b.err
}

// dot handles a line that begins with a dot: the end of data, or a dot that was stuffed. w begins with it.
func (b *body) dot(w []byte) {
	c := b.c
	switch {
	case len(w) >= 3 && w[1] == '\r' && w[2] == '\n':
		c.r += 3
		b.ended = true
		if b.err == nil {
			b.err = io.EOF
		}
	case len(w) == 1 || len(w) == 2 && w[1] == '\r':
		b.fill() // not enough to tell
	default:
		c.r++
		b.bol, b.line = false, 1
	}
}

// text checks the octets of w up to the first CRLF, or all when there is none, and returns how many are
// good. On a violation it sets err and returns 0.
func (b *body) text(w []byte) int {
	i := bytes.IndexByte(w, '\n')
	t := w // without its CRLF
	switch {
	case i == 0 && b.afterCR:
		t = nil
	case i > 0 && w[i-1] == '\r':
		t = w[:i-1]
	case i >= 0:
		return b.violate("bare_lf_data")
	case w[len(w)-1] == '\r':
		t = w[:len(w)-1]
	}
	if bytes.IndexByte(t, '\r') >= 0 || b.afterCR && i != 0 {
		return b.violate("bare_cr_data")
	}
	if b.line += len(t); b.line+2 > b.c.g.o.MaxTextLine {
		b.c.violation("text_line_too_long")
		b.err = errTextLine
		return 0
	}
	n := len(w)
	if i >= 0 {
		n = i + 1
	}
	if b.size+int64(n) > b.c.g.o.MaxMessageBytes {
		b.err = tooLarge(b.c.g.o.MaxMessageBytes)
		return 0
	}
	b.size += int64(n)
	b.bol, b.afterCR = i >= 0, i < 0 && len(t) < n
	if b.bol {
		b.line = 0
	}
	return n
}

func tooLarge(limit int64) error {
	return &smtp.SMTPError{Code: 552, EnhancedCode: smtp.EnhancedCode{5, 3, 4},
		Message: "The message is larger than " + strconv.FormatInt(limit, 10) + " bytes"}
}

func (b *body) violate(kind string) int {
	b.c.violation(kind)
	b.err = errBareText
	return 0
}

func (b *body) fill() {
	if err := b.c.fill(); err != nil {
		b.lost()
	}
}

func (b *body) lost() {
	b.ended = true
	if b.err == nil {
		b.err = io.ErrUnexpectedEOF
	}
}

// skip reads to the end of data and throws it away. After a CR or LF that stood alone the search is for a
// strict CRLF . CRLF all the same, for the sake of a clean reply; but since others may see the end of the
// data elsewhere, nothing that follows is interpreted: the connection closes. It closes also when the
// client sends much more than the limit, or is slow to come to the end.
func (b *body) skip() {
	c := b.c
	limit := c.g.o.MaxMessageBytes + discardable
	for !b.ended {
		w := c.in[c.r:c.w]
		if errors.Is(b.err, errBareText) {
			c.closing = true
		}
		switch {
		case b.size > limit:
			c.closing = true
			return
		case len(w) == 0:
			if !b.fillSkipping() {
				return
			}
		case b.bol && w[0] == '.':
			if len(w) < 3 && (len(w) == 1 || w[1] == '\r') {
				if !b.fillSkipping() {
					return
				}
				continue
			}
			b.dot(w)
		default:
			b.skipLine(w)
		}
	}
}

// skipLine passes over one line or a part of one.
func (b *body) skipLine(w []byte) {
	c := b.c
	i := bytes.IndexByte(w, '\n')
	n := i + 1
	switch {
	case i < 0:
		n = len(w)
		b.bareCR(w[:n-1])
		b.bol, b.afterCR = false, w[n-1] == '\r'
	case i == 0 && b.afterCR:
		b.bol, b.afterCR = true, false
	case i > 0 && w[i-1] == '\r':
		b.bareCR(w[:i-1])
		b.bol, b.afterCR = true, false
	default:
		b.bol, b.afterCR = false, false
		if !errors.Is(b.err, errBareText) {
			b.violate("bare_lf_data")
		}
	}
	c.r += n
	b.size += int64(n)
}

func (b *body) bareCR(t []byte) {
	if (b.afterCR || bytes.IndexByte(t, '\r') >= 0) && !errors.Is(b.err, errBareText) {
		b.violate("bare_cr_data")
	}
}

// fillSkipping reads more of a message that is refused already. After a CR or LF that stood alone a client
// that waits for the reply has to get it soon: it may have sent an end of data of its own kind.
func (b *body) fillSkipping() bool {
	c := b.c
	if !errors.Is(b.err, errBareText) {
		b.fill()
		return !b.ended
	}
	wait := time.Now().Add(min(skipTime, c.g.o.ReadTimeout))
	if c.tx.end.Before(wait) {
		wait = c.tx.end
	}
	if c.r > 0 {
		c.w = copy(c.in, c.in[c.r:c.w])
		c.r = 0
	}
	c.raw.SetReadDeadline(wait)
	n, err := c.stream.Read(c.in[c.w:])
	c.w += n
	if n == 0 && err != nil {
		b.ended = true
		if !isTimeout(err) {
			c.dead = true
		}
		return false
	}
	return true
}
