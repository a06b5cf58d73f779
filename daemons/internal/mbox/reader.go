package mbox

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strconv"
	"time"
)

// Format says how lines that begin with "From " are quoted in a file.
type Format int

// The formats. Detect decides by the first line.
const (
	Detect Format = iota
	MboxRD
	MboxO
	Git
)

// String is the name of the format as a user writes it.
func (f Format) String() string {
	switch f {
	case MboxRD:
		return "mboxrd"
	case MboxO:
		return "mboxo"
	case Git:
		return "git"
	}
	return "detect"
}

// Options of a Reader. The zero value detects the format.
type Options struct {
	Format Format
	// Lenient lets a from-line begin a message without a blank line before it, too.
	Lenient bool
	// ContentLength trusts Content-Length fields, each only if it leads exactly to a from-line or to the
	// end of the file. To see this the input must be an io.ReaderAt, too; otherwise it has no effect.
	ContentLength bool
	// Offset is what the first byte of the input is counted as.
	Offset int64
}

// ErrNotMbox says that the input does not begin with a from-line.
var ErrNotMbox = errors.New("not an mbox file: it does not begin with \"From \"")

const readSize = 64 << 10

// Reader reads an mbox file message by message. Memory is bounded by one fixed buffer, whatever the size
// of messages and lines.
type Reader struct {
	src io.Reader
	at  io.ReaderAt // for Content-Length
	o   Options

	buf        []byte
	start, end int
	off        int64 // of buf[start] in the file
	err        error // of src

	message *Message
	bol     bool
	held    []byte // a blank line that separates, if a from-line or the end follows; in room
	room    [2]byte
	out     []byte // content not yet read, inside buf or held
}

// NewReader makes a reader of r, which must stand at the start of the file or at a Message.Offset.
func NewReader(r io.Reader, o Options) *Reader {
	d := &Reader{src: r, o: o, buf: make([]byte, readSize), off: o.Offset}
	if o.ContentLength {
		d.at, _ = r.(io.ReaderAt)
	}
	return d
}

// Format is the format that is read, after detection by the first call of Next.
func (r *Reader) Format() Format { return r.o.Format }

// Offset is how far the file has been read: behind what Read has given.
func (r *Reader) Offset() int64 { return r.off }

// Message is one message of an mbox file. It is valid until the next call of Next.
type Message struct {
	Offset int64     // where its from-line begins
	Sender string    // from the from-line; the commit's name for git
	Date   time.Time // from the from-line, in UTC where it names no zone; zero where it cannot be read

	r     *Reader
	ended bool
	head  contentLength
	left  int64 // bytes that are content whatever they look like, by Content-Length
	exact bool  // they are all that there is
}

// Next goes on to the next message, leaving out what is unread of the present one. io.EOF at the
// end; ErrNotMbox where the input does not begin with a from-line.
func (r *Reader) Next() (*Message, error) {
	if r.message != nil {
		for !r.message.ended {
			if _, err := r.content(); err != nil && err != io.EOF {
				return nil, err
			}
		}
	} else if r.off == r.o.Offset {
		r.skipEmpty()
	}
	line := r.line()
	if len(line) == 0 || line[len(line)-1] != '\n' {
		if r.err != nil && r.err != io.EOF {
			return nil, fmt.Errorf("read mbox at %d: %w", r.off, r.err)
		}
	}
	if len(line) == 0 {
		return nil, io.EOF
	}
	f, ok := parseFromLine(line)
	if !ok {
		return nil, fmt.Errorf("at byte %d: %w", r.off, ErrNotMbox)
	}
	if r.o.Format == Detect {
		if r.o.Format = MboxRD; f.git {
			r.o.Format = Git
		}
	}
	m := &Message{Offset: r.off, Sender: f.sender, Date: f.date, r: r}
	m.head.wanted = r.at != nil
	r.message = m
	for r.consume(line); !r.bol; r.consume(line) { // the rest of an endless from-line
		if line = r.line(); len(line) == 0 {
			break
		}
	}
	return m, nil
}

// skipEmpty leaves out blank lines.
func (r *Reader) skipEmpty() {
	for line := r.line(); isBlank(line); line = r.line() {
		r.consume(line)
	}
}

// Read reads the content.
func (m *Message) Read(b []byte) (int, error) {
	if m.r.message != m {
		return 0, errors.New("mbox: read of a message after the next one")
	}
	for len(m.r.out) == 0 {
		if m.ended {
			return 0, io.EOF
		}
		var err error
		if m.r.out, err = m.r.content(); err != nil {
			return 0, err
		}
	}
	n := copy(b, m.r.out)
	m.r.out = m.r.out[n:]
	return n, nil
}

// content returns the next piece of the message's content; io.EOF at its end. The piece is valid until
// the next call.
func (r *Reader) content() ([]byte, error) {
	m := r.message
	r.out = nil
	if m.left > 0 {
		return r.counted()
	}
	if m.exact {
		r.skipEmpty()
		m.ended = true
		return nil, io.EOF
	}
	line := r.line()
	if len(line) == 0 {
		if held := r.held; held != nil && r.o.Format == Git {
			r.held = nil
			return held, nil
		}
		m.ended = true
		if r.err != nil && r.err != io.EOF {
			return nil, fmt.Errorf("read mbox at %d: %w", r.off, r.err)
		}
		return nil, io.EOF
	}
	if r.bol {
		if (r.held != nil || r.o.Lenient) && r.isSeparator(line) {
			r.held, m.ended = nil, true
			return nil, io.EOF
		}
		if held := r.held; held != nil {
			r.held = nil
			return held, nil
		}
		if isBlank(line) {
			if m.head.end() {
				r.consume(line)
				m.left = r.verified(m.head.n)
				m.exact = m.left > 0
				return line, nil
			}
			r.held = append(r.room[:0], line...)
			r.consume(line)
			return nil, nil
		}
		m.head.line(line)
		if r.o.Format == MboxRD && isQuoted(line) {
			r.consume(line)
			return line[1:], nil
		}
	}
	r.consume(line)
	return line, nil
}

// counted returns content that Content-Length covers.
func (r *Reader) counted() ([]byte, error) {
	if r.start == r.end && !r.fill() {
		r.message.left = 0
		return nil, nil
	}
	n := int(min(int64(r.end-r.start), r.message.left))
	piece := r.buf[r.start : r.start+n]
	r.consume(piece)
	r.message.left -= int64(n)
	return piece, nil
}

// isSeparator says whether a line begins the next message.
func (r *Reader) isSeparator(line []byte) bool {
	if !bytes.HasPrefix(line, fromPrefix) {
		return false
	}
	f, ok := parseFromLine(line)
	return ok && !f.date.IsZero() && (f.git || r.o.Format != Git)
}

// verified returns n if a from-line or the end of the file stands n bytes from here; else 0.
func (r *Reader) verified(n int64) int64 {
	if n <= 0 {
		return 0
	}
	peek := make([]byte, 512)
	got, err := r.at.ReadAt(peek, r.off+n)
	if err != nil && err != io.EOF {
		return 0
	}
	rest := peek[:got]
	for isBlank(lineOf(rest)) {
		rest = rest[len(lineOf(rest)):]
	}
	if len(rest) == 0 && err == io.EOF || len(rest) > 0 && r.isSeparator(lineOf(rest)) {
		return n
	}
	return 0
}

func lineOf(b []byte) []byte {
	if i := bytes.IndexByte(b, '\n'); i >= 0 {
		return b[:i+1]
	}
	return b
}

// line returns the next line with its line break without consuming it: as much of it as fits in the buffer.
func (r *Reader) line() []byte {
	from := 0
	for {
		w := r.buf[r.start:r.end]
		if i := bytes.IndexByte(w[from:], '\n'); i >= 0 {
			return w[:from+i+1]
		}
		from = len(w)
		if !r.fill() {
			return r.buf[r.start:r.end]
		}
	}
}

// fill reads more, moving what is in the buffer to its front. It reports whether there was any.
func (r *Reader) fill() bool {
	if r.err != nil {
		return false
	}
	if r.start > 0 {
		r.end = copy(r.buf, r.buf[r.start:r.end])
		r.start = 0
	}
	for r.end < len(r.buf) && r.err == nil {
		n, err := r.src.Read(r.buf[r.end:])
		r.end += n
		r.err = err
		if n > 0 {
			return true
		}
	}
	return false
}

func (r *Reader) consume(line []byte) {
	r.start += len(line)
	r.off += int64(len(line))
	if n := len(line); n > 0 {
		r.bol = line[n-1] == '\n'
	}
}

func isBlank(line []byte) bool {
	return len(line) == 1 && line[0] == '\n' || len(line) == 2 && line[0] == '\r' && line[1] == '\n'
}

// isQuoted says whether a line is 1*">" "From " and more, as mboxrd writes it.
func isQuoted(line []byte) bool {
	rest := bytes.TrimLeft(line, ">")
	return len(rest) < len(line) && bytes.HasPrefix(rest, fromPrefix)
}

// contentLength looks for the field in the header, if it is wanted.
type contentLength struct {
	wanted, done bool
	n            int64
}

func (c *contentLength) line(line []byte) {
	const name = "content-length:"
	if !c.wanted || c.done || len(line) < len(name) || !bytes.EqualFold(line[:len(name)], []byte(name)) {
		return
	}
	if n, err := strconv.ParseInt(string(bytes.TrimSpace(line[len(name):])), 10, 62); err == nil {
		c.n = n
	}
}

// end says, once, that the header ends here and that a length was found in it.
func (c *contentLength) end() bool {
	if !c.wanted || c.done {
		return false
	}
	c.done = true
	return c.n > 0
}
