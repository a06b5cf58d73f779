package deliver

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"sync"
	"time"
)

const (
	chunkSize  = 64 << 10
	headroom   = 32 // for "BDAT 65536 LAST" CRLF, in front of the octets that it announces
	chunkAhead = 2  // chunks sent before the reply to the first of them is read
)

var chunkPool = sync.Pool{New: func() any { return new([headroom + chunkSize]byte) }}

// Data sends the message, which r gives with CRLF as line ends and no dots added, and returns the outcome
// for each accepted recipient in their order. It ends the transaction. r is read as it comes; an error of r
// other than io.EOF gives the transaction up.
//
// The error is for the message as a whole, and means that nobody got it: *Error (the server refused it),
// ErrAborted with r's error, ErrUnavailable, ErrBareLine. What is not certain is not an error here but
// ErrUnknown in the results.
func (x *Transaction) Data(r io.Reader) ([]RcptResult, error) {
	if x.ended || len(x.rcpts) == 0 {
		x.Close()
		return nil, errors.New("deliver: Data without a recipient")
	}
	m := &content{r: r, buf: chunkPool.Get().(*[headroom + chunkSize]byte)}
	defer chunkPool.Put(m.buf)
	if err := m.next(); err != nil {
		x.Close()
		return x.failed(err)
	}
	for {
		if err := x.offer(nil); err != nil {
			x.finish(false)
			return x.failed(err)
		}
		if x.live() == 0 { // a server that had to step in refused all of them
			x.Close()
			return x.done()
		}
		send := x.sendDots
		if x.c.chunking {
			send = x.sendChunks
		}
		sent, err := send(m)
		if err == nil {
			return x.outcomes()
		}
		var refused *Error
		again := false
		switch {
		case sent: // the last octet may have arrived
			x.unknown(err)
			x.finish(false)
			return x.done()
		case errors.Is(err, ErrAborted), errors.Is(err, ErrBareLine):
		case errors.As(err, &refused) && refused.Code != 421:
			err = refused
		default:
			x.t.failed(x.c.address, err)
			x.tried = append(x.tried, x.c.address)
			again = m.first && m.last && x.ctx.Err() == nil
			err = fmt.Errorf("%w: %s: %w", ErrUnavailable, x.c.address, err)
		}
		if !again {
			x.finish(false)
			return x.failed(err)
		}
		x.drop(false)
	}
}

// live counts the recipients that the server at hand has accepted.
func (x *Transaction) live() (n int) {
	for _, r := range x.rcpts {
		if r.Err == nil {
			n++
		}
	}
	return n
}

// outcomes reads one reply for each recipient (RFC 2033 §4.2).
func (x *Transaction) outcomes() ([]RcptResult, error) {
	wait := x.t.s.FinalTimeout
	for i := range x.rcpts {
		r := &x.rcpts[i]
		if r.Err != nil {
			continue
		}
		x.deadline(wait)
		code, lines, err := x.c.reply()
		if err != nil {
			x.unknown(fmt.Errorf("%s: %w", x.c.address, err))
			x.finish(false)
			return x.done()
		}
		if r.Err = accepted(code, lines); r.Err == nil {
			r.Text = clean(strings.Join(lines, " "))
			r.delivered = true
		} else {
			// A server that refuses the message may say so once instead of once for each.
			wait = min(wait, x.t.s.CommandTimeout)
		}
	}
	x.finish(true)
	return x.done()
}

// unknown marks the recipients whose reply did not arrive.
func (x *Transaction) unknown(err error) {
	for i := range x.rcpts {
		if r := &x.rcpts[i]; r.Err == nil && !r.delivered {
			r.Err = fmt.Errorf("%w: %w", ErrUnknown, err)
		}
	}
}

func (x *Transaction) done() ([]RcptResult, error) {
	for _, r := range x.rcpts {
		x.t.m.delivered.WithLabelValues(outcome(r.Err)).Inc()
	}
	if !x.begun.IsZero() {
		x.t.m.duration.Observe(time.Since(x.begun).Seconds())
	}
	return x.rcpts, nil
}

func (x *Transaction) failed(err error) ([]RcptResult, error) {
	x.t.m.delivered.WithLabelValues(outcome(err)).Add(float64(len(x.rcpts)))
	return nil, err
}

// content is the message, a chunk of it at a time.
type content struct {
	r     io.Reader
	buf   *[headroom + chunkSize]byte
	n     int  // octets of the chunk at hand, behind the headroom
	first bool // it is the first
	last  bool // it is the last
	begun bool
}

func (m *content) chunk() []byte { return m.buf[headroom : headroom+m.n] }

// next reads the next chunk. io.ReadFull would not do: it tells a message that was cut off
// (io.ErrUnexpectedEOF from r) and one that is short by the same error.
func (m *content) next() error {
	m.first, m.begun, m.n = !m.begun, true, 0
	for empty := 0; m.n < chunkSize; {
		n, err := m.r.Read(m.buf[headroom+m.n:])
		m.n += n
		switch {
		case err == io.EOF:
			m.last = true
			return nil
		case err != nil:
			return fmt.Errorf("%w: %w", ErrAborted, err)
		case n > 0:
			empty = 0
		default:
			if empty++; empty > 100 {
				return fmt.Errorf("%w: %w", ErrAborted, io.ErrNoProgress)
			}
		}
	}
	return nil
}

// sendChunks sends the message by BDAT (RFC 3030 §2). Sent says that its last octet was given to the network.
// A write that failed left octets behind, so the server cannot have the whole.
func (x *Transaction) sendChunks(m *content) (sent bool, err error) {
	c, due := x.c, 0
	for {
		header := "BDAT " + strconv.Itoa(m.n)
		if m.last {
			header += " LAST"
		}
		header += "\r\n"
		at := headroom - len(header)
		copy(m.buf[at:], header)
		x.deadline(x.t.s.DataTimeout)
		if _, err := c.Write(m.buf[at : headroom+m.n]); err != nil {
			return false, err
		}
		if m.last {
			break
		}
		if due++; due == chunkAhead {
			if err := c.expect(250); err != nil {
				return false, err
			}
			due--
		}
		if err := m.next(); err != nil {
			return false, err
		}
	}
	for ; due > 0; due-- {
		x.deadline(x.t.s.CommandTimeout)
		if err := c.expect(250); err != nil {
			var refused *Error
			return !errors.As(err, &refused), err
		}
	}
	return true, nil
}

// sendDots sends the message by DATA (RFC 5321 §4.1.1.4). A CR or LF that stands alone is not sent: another
// server might take it for a line end, and what follows for a command.
func (x *Transaction) sendDots(m *content) (sent bool, err error) {
	c := x.c
	x.deadline(x.t.s.CommandTimeout)
	if err := c.command("DATA", 354); err != nil {
		return false, err
	}
	s := stuffer{bol: true}
	for {
		text, err := s.stuff(m.chunk(), m.last)
		if err != nil {
			return false, err
		}
		x.deadline(x.t.s.DataTimeout)
		if _, err := c.Write(text); err != nil {
			return false, err
		}
		if m.last {
			return true, nil
		}
		if err := m.next(); err != nil {
			return false, err
		}
	}
}

// stuffer writes the grammar of smtpguard's body: a dot before a line that begins with one, CRLF "." CRLF at
// the end.
type stuffer struct {
	out     []byte
	bol, cr bool
}

func (s *stuffer) stuff(p []byte, last bool) ([]byte, error) {
	s.out = s.out[:0]
	for len(p) > 0 {
		if s.bol && p[0] == '.' {
			s.out = append(s.out, '.')
		}
		i := bytes.IndexByte(p, '\n')
		line := p
		if i >= 0 {
			line = p[:i+1]
		}
		body := bytes.TrimSuffix(line, []byte("\n"))
		ends := s.cr && len(body) == 0 || bytes.HasSuffix(body, []byte("\r"))
		if s.cr && len(body) > 0 || i >= 0 && !ends || bytes.IndexByte(bytes.TrimSuffix(body, []byte("\r")), '\r') >= 0 {
			return nil, ErrBareLine
		}
		s.out = append(s.out, line...)
		s.bol, s.cr = i >= 0, i < 0 && bytes.HasSuffix(line, []byte("\r"))
		p = p[len(line):]
	}
	if last {
		if s.cr {
			return nil, ErrBareLine
		}
		if !s.bol {
			s.out = append(s.out, "\r\n"...)
		}
		s.out = append(s.out, ".\r\n"...)
	}
	return s.out, nil
}
