package imapwire

import (
	"io"
	"strconv"
	"sync"
	"time"
	"unicode/utf8"
)

// outputBuffer is the size of the buffer in which responses are gathered, and of the pieces in
// which message text is streamed.
const outputBuffer = 16 << 10

var outputPool = sync.Pool{New: func() any { b := make([]byte, 0, outputBuffer); return &b }}

// Encoder writes responses. The first error stays: later calls do nothing, and Flush returns it.
// It is used by one goroutine at a time.
type Encoder struct {
	w      io.Writer
	buf    []byte
	pooled *[]byte
	err    error
	utf8   bool
}

// NewEncoder returns an encoder that writes to w.
func NewEncoder(w io.Writer) *Encoder { return &Encoder{w: w} }

// SetUTF8 says whether quoted strings and mailbox names may be UTF-8.
func (e *Encoder) SetUTF8(on bool) { e.utf8 = on }

// UTF8 reports whether quoted strings may be UTF-8.
func (e *Encoder) UTF8() bool { return e.utf8 }

// Err returns the first error of writing.
func (e *Encoder) Err() error { return e.err }

// Buffered reports how many bytes wait to be written.
func (e *Encoder) Buffered() int { return len(e.buf) }

// Flush writes what has been gathered.
func (e *Encoder) Flush() error {
	if len(e.buf) > 0 && e.err == nil {
		_, e.err = e.w.Write(e.buf)
	}
	e.buf = e.buf[:0]
	return e.err
}

// Release flushes and gives the buffer back.
func (e *Encoder) Release() error {
	err := e.Flush()
	if e.pooled != nil {
		if cap(e.buf) == outputBuffer {
			*e.pooled = e.buf[:0]
			outputPool.Put(e.pooled)
		}
		e.buf, e.pooled = nil, nil
	}
	return err
}

// room returns the buffer after making sure that there is one and writing it out when it is
// nearly full.
func (e *Encoder) room(n int) {
	if e.pooled == nil {
		e.pooled = outputPool.Get().(*[]byte)
		e.buf = (*e.pooled)[:0]
	}
	if len(e.buf) > 0 && len(e.buf)+n > outputBuffer {
		e.Flush()
	}
}

// Raw writes s as it is.
func (e *Encoder) Raw(s string) *Encoder {
	e.room(len(s))
	e.buf = append(e.buf, s...)
	return e
}

// RawBytes writes b as it is.
func (e *Encoder) RawBytes(b []byte) *Encoder {
	e.room(len(b))
	e.buf = append(e.buf, b...)
	return e
}

// Byte writes one byte.
func (e *Encoder) Byte(c byte) *Encoder {
	e.room(1)
	e.buf = append(e.buf, c)
	return e
}

// SP writes a space.
func (e *Encoder) SP() *Encoder { return e.Byte(' ') }

// CRLF ends a response.
func (e *Encoder) CRLF() *Encoder { return e.Raw("\r\n") }

// Number writes n.
func (e *Encoder) Number(n uint64) *Encoder {
	e.room(20)
	e.buf = strconv.AppendUint(e.buf, n, 10)
	return e
}

// Append hands the buffer to f, which appends to it: for formatters that work on byte slices.
func (e *Encoder) Append(f func([]byte) []byte) *Encoder {
	e.room(outputBuffer / 4)
	e.buf = f(e.buf)
	return e
}

// Set writes a set of numbers.
func (e *Encoder) Set(ranges []Range) *Encoder {
	for len(ranges) > 200 {
		e.room(200 * 22)
		e.buf = AppendSet(e.buf, ranges[:200])
		e.buf = append(e.buf, ',')
		ranges = ranges[200:]
	}
	e.room(len(ranges) * 22)
	e.buf = AppendSet(e.buf, ranges)
	return e
}

// DateTime writes an INTERNALDATE with its quotes.
func (e *Encoder) DateTime(t time.Time) *Encoder {
	e.room(28)
	e.buf = AppendDateTime(e.buf, t)
	return e
}

// String writes s as a quoted string where that can carry it, else as a literal.
func (e *Encoder) String(s string) *Encoder {
	if quotable(s, e.utf8) {
		e.room(2*len(s) + 2)
		e.buf = appendQuoted(e.buf, s)
		return e
	}
	e.LiteralHeader(int64(len(s)), false)
	return e.Raw(s)
}

// NString writes s, or NIL when ok is false.
func (e *Encoder) NString(s string, ok bool) *Encoder {
	if !ok {
		return e.Raw("NIL")
	}
	return e.String(s)
}

// AString writes s as an atom where it is one, else as a string.
func (e *Encoder) AString(s string) *Encoder {
	if isAString(s) {
		return e.Raw(s)
	}
	return e.String(s)
}

// Mailbox writes a mailbox name that is given in UTF-8.
func (e *Encoder) Mailbox(name string) *Encoder {
	if !e.utf8 {
		plain := true
		for i := 0; i < len(name); i++ {
			if name[i] >= 0x7f || name[i] < 0x20 || name[i] == '&' {
				plain = false
				break
			}
		}
		if !plain {
			name = string(AppendUTF7(nil, name))
		}
	}
	return e.AString(name)
}

// LiteralHeader announces a literal of n bytes; binary makes it a literal8.
func (e *Encoder) LiteralHeader(n int64, binary bool) *Encoder {
	if binary {
		e.Byte('~')
	}
	return e.Byte('{').Number(uint64(n)).Raw("}\r\n")
}

// Stream writes exactly n bytes of r in pieces. When r ends early or fails the answer cannot be
// completed: the error stays in the encoder, and the connection must be closed.
func (e *Encoder) Stream(r io.Reader, n int64) *Encoder {
	for n > 0 && e.err == nil {
		e.room(1)
		if cap(e.buf)-len(e.buf) < 1<<10 {
			e.Flush()
		}
		free := e.buf[len(e.buf):cap(e.buf)]
		free = free[:min(int64(len(free)), n)]
		k, err := r.Read(free)
		e.buf = e.buf[:len(e.buf)+k]
		n -= int64(k)
		if err != nil && n > 0 {
			if err == io.EOF {
				err = io.ErrUnexpectedEOF
			}
			e.Flush()
			if e.err == nil {
				e.err = &Fatal{Text: "message text ended early", Err: err}
			}
		}
	}
	return e
}

func appendUint(b []byte, n uint64) []byte { return strconv.AppendUint(b, n, 10) }

// quotable reports whether s can be a quoted string: no CR, LF or NUL, 8-bit text only as UTF-8
// and only when the client takes it, and not so long that a literal is the better choice.
func quotable(s string, utf8ok bool) bool {
	if len(s) > 1000 {
		return false
	}
	ascii := true
	for i := 0; i < len(s); i++ {
		c := s[i]
		if c == '\r' || c == '\n' || c == 0 {
			return false
		}
		if c >= 0x80 {
			ascii = false
		}
	}
	return ascii || utf8ok && utf8.ValidString(s)
}

func appendQuoted(b []byte, s string) []byte {
	b = append(b, '"')
	for i := 0; i < len(s); i++ {
		if s[i] == '"' || s[i] == '\\' {
			b = append(b, '\\')
		}
		b = append(b, s[i])
	}
	return append(b, '"')
}

// isAString reports whether s can be written without quotes. NIL is quoted, so that no client takes
// it for an absent string.
func isAString(s string) bool {
	if s == "" || len(s) > 200 || len(s) == 3 && upper([]byte(s)) == "NIL" {
		return false
	}
	for i := 0; i < len(s); i++ {
		if !isAStringChar(s[i]) {
			return false
		}
	}
	return true
}

// appendAString is AString for ASCII text.
func appendAString(b []byte, s string) []byte {
	if isAString(s) {
		return append(b, s...)
	}
	return appendQuoted(b, s)
}

// Holds reports whether a buffer is held.
func (e *Encoder) Holds() bool { return e.buf != nil }
