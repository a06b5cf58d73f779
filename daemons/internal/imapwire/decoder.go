package imapwire

import (
	"bytes"
	"errors"
	"io"
	"sync"
)

// firstBuffer is the size of the input buffer that a command starts with. Nearly every command
// fits; a longer line gets a larger buffer that is not pooled.
const firstBuffer = 4 << 10

var inputPool = sync.Pool{New: func() any { b := make([]byte, firstBuffer); return &b }}

// Decoder takes commands from a stream. It is used by one goroutine at a time.
//
// The order of calls for one command is Begin, the token methods, then either End (which demands
// that nothing is left over) or Discard, and Release.
type Decoder struct {
	r    io.Reader
	lim  *Limits
	cont func() error // asks the client for an announced literal

	in     []byte  // input buffer; unread bytes are in[rd:wr]
	pooled *[]byte // what in was taken from, nil when it has grown
	rd, wr int
	live   bool // tokens point into in: it must not be moved

	line  []byte // current line without its CRLF
	pos   int    // what has been parsed of line
	spent int64  // bytes of this command so far
	lit   literal
	depth int
	utf8  bool
}

// literal is a literal that is being streamed.
type literal struct {
	open bool
	left int64
}

// NewDecoder returns a decoder that reads from r. cont is called before a synchronizing literal is
// read; it must send the continuation request ("+ ...") and flush.
func NewDecoder(r io.Reader, lim Limits, cont func() error) *Decoder {
	lim = lim.WithDefaults()
	return &Decoder{r: r, lim: &lim, cont: cont}
}

// SetLimits changes the bounds, from the next command on. The limits may be shared by decoders; a
// zero field stands for itself.
func (d *Decoder) SetLimits(lim *Limits) { d.lim = lim }

// SetReader changes the stream, after STARTTLS or COMPRESS. Bytes that were read from the old one
// are dropped: RFC 9051 §6.2.1 forbids commands pipelined behind STARTTLS to be taken as sent
// under protection.
func (d *Decoder) SetReader(r io.Reader) {
	d.r = r
	d.rd, d.wr = 0, 0
	d.Release()
}

// SetUTF8 says whether mailbox names on the wire are UTF-8 (after ENABLE IMAP4rev2 or
// UTF8=ACCEPT) or modified UTF-7 (RFC 3501 §5.1.3).
func (d *Decoder) SetUTF8(on bool) { d.utf8 = on }

// Buffered reports how many bytes were read from the stream and not used yet.
func (d *Decoder) Buffered() int { return d.wr - d.rd }

// HasLine reports whether a whole line waits in the buffer.
func (d *Decoder) HasLine() bool { return bytes.IndexByte(d.in[d.rd:d.wr], '\n') >= 0 }

// Unread puts bytes that were read from the stream elsewhere before the unused input.
func (d *Decoder) Unread(p []byte) {
	if len(p) == 0 {
		return
	}
	rest := append(append(make([]byte, 0, max(firstBuffer, len(p)+d.Buffered())), p...), d.in[d.rd:d.wr]...)
	d.Release()
	d.in, d.pooled, d.rd, d.wr = rest[:cap(rest)], nil, 0, len(rest)
}

// Fill makes one call of read with the free part of the buffer. It serves a session that wants to
// look, without waiting, whether there is more input.
func (d *Decoder) Fill(read func([]byte) (int, error)) (int, error) {
	if err := d.room(); err != nil {
		return 0, err
	}
	n, err := read(d.in[d.wr:])
	if n > 0 {
		d.wr += n
	}
	return n, err
}

// Release gives the buffer back when it holds no unread input. Tokens of the last command are
// invalid afterwards.
func (d *Decoder) Release() {
	d.line, d.pos, d.live, d.spent, d.depth = nil, 0, false, 0, 0
	d.lit = literal{}
	if d.rd < d.wr {
		return
	}
	if d.pooled != nil {
		inputPool.Put(d.pooled)
	}
	d.in, d.pooled, d.rd, d.wr = nil, nil, 0, 0
}

// room makes sure that at least one byte can be read into the buffer.
func (d *Decoder) room() error {
	if d.in == nil {
		d.pooled = inputPool.Get().(*[]byte)
		d.in, d.rd, d.wr = *d.pooled, 0, 0
		return nil
	}
	if !d.live && d.rd > 0 {
		copy(d.in, d.in[d.rd:d.wr])
		d.wr -= d.rd
		d.rd = 0
	}
	if d.wr < len(d.in) {
		return nil
	}
	unread := d.wr - d.rd
	if unread > d.lim.Line {
		return ErrLineTooLong
	}
	// Tokens may point into the old buffer: it is left to them and to the garbage collector.
	grown := make([]byte, max(firstBuffer, 2*unread))
	copy(grown, d.in[d.rd:d.wr])
	if !d.live && d.pooled != nil {
		inputPool.Put(d.pooled)
	}
	d.in, d.pooled, d.rd, d.wr = grown, nil, 0, unread
	return nil
}

// ErrLineTooLong is what Fill returns when the buffer holds more than a line may have: the next Begin
// drops the line.
var ErrLineTooLong = errors.New("line too long")

// readLine makes the next line current. A line over the bound is dropped up to its end, its
// beginning is kept as the current line, and a SyntaxError is returned.
func (d *Decoder) readLine() error {
	scanned := 0
	for {
		if i := bytes.IndexByte(d.in[d.rd+scanned:d.wr], '\n'); i >= 0 {
			end := d.rd + scanned + i
			line := d.in[d.rd:end]
			d.rd = end + 1
			d.live = true
			return d.setLine(line)
		}
		scanned = d.wr - d.rd
		if err := d.room(); err == ErrLineTooLong {
			return d.dropLine()
		}
		n, err := d.r.Read(d.in[d.wr:])
		d.wr += n
		if n == 0 && err != nil {
			return &Fatal{Text: "connection ended inside a command", Err: err}
		}
	}
}

func (d *Decoder) setLine(line []byte) error {
	d.pos = 0
	bareLF := len(line) == 0 || line[len(line)-1] != '\r'
	if !bareLF {
		line = line[:len(line)-1]
	}
	d.line = line
	d.spent += int64(len(line)) + 2
	switch {
	case len(line) > d.lim.Line:
		return syntaxf("command line is longer than %d bytes", d.lim.Line)
	case d.spent > d.lim.Command:
		return syntaxf("command is larger than %d bytes", d.lim.Command)
	case bareLF:
		return syntaxf("line ends in a bare LF, CRLF is required")
	case bytes.IndexByte(line, '\r') >= 0:
		return syntaxf("bare CR inside a line")
	case bytes.IndexByte(line, 0) >= 0:
		return syntaxf("NUL inside a line")
	}
	return nil
}

// dropLine reads to the end of a line that is too long and keeps only its first bytes, where the
// tag is. Its last bytes are looked at for a literal that the client sends without waiting.
func (d *Decoder) dropLine() error {
	const keep, tail = 256, 32
	head := append([]byte(nil), d.in[d.rd:min(d.wr, d.rd+keep)]...)
	last := make([]byte, 0, 2*tail)
	dropped := int64(0)
	d.live = false
	for {
		chunk := d.in[d.rd:d.wr]
		end := bytes.IndexByte(chunk, '\n')
		if end >= 0 {
			chunk = chunk[:end]
		}
		last = append(last, chunk[max(0, len(chunk)-tail):]...)
		last = last[max(0, len(last)-tail):]
		dropped += int64(len(chunk))
		if end >= 0 {
			d.rd += end + 1
			break
		}
		if dropped > d.lim.Discard {
			return &Fatal{Text: "line without end"}
		}
		d.rd, d.wr = 0, 0
		n, err := d.r.Read(d.in)
		d.wr = n
		if n == 0 && err != nil {
			return &Fatal{Text: "connection ended inside a command", Err: err}
		}
	}
	d.line = append(append(head, ' '), bytes.TrimSuffix(last, []byte("\r"))...)
	d.pos = 0
	return syntaxf("command line is longer than %d bytes", d.lim.Line)
}

// Begin reads the next command's first line and returns its tag and its name in upper case.
//
//	tag     = 1*<any ASTRING-CHAR except "+">
//	command = tag SP 1*ATOM-CHAR
//
// The tag is returned with a SyntaxError too whenever the line begins with one. An empty line gives
// an empty tag.
func (d *Decoder) Begin() (tag, name string, err error) {
	d.spent, d.depth = 0, 0
	lineErr := d.readLine()
	if _, ok := lineErr.(*Fatal); ok {
		return "", "", lineErr
	}
	start := d.pos
	for d.pos < len(d.line) && isTagChar(d.line[d.pos]) {
		d.pos++
	}
	if d.pos > start && d.pos-start <= maxTag && (d.pos == len(d.line) || d.line[d.pos] == ' ') {
		tag = string(d.line[start:d.pos])
	}
	if lineErr != nil {
		return tag, "", lineErr
	}
	if tag == "" {
		return "", "", syntaxf("command does not begin with a tag")
	}
	if err := d.SP(); err != nil {
		return tag, "", syntaxf("no command after the tag")
	}
	atom, err := d.atomBytes()
	if err != nil {
		return tag, "", syntaxf("no command after the tag")
	}
	if len(atom) > maxName {
		return tag, "", syntaxf("unknown command")
	}
	return tag, upper(atom), nil
}

// A tag of any length is legal; no client needs more, and it is repeated in each answer.
const (
	maxTag  = 128
	maxName = 32
)

// RawLine reads a line that is no command: DONE, or the answer to a SASL challenge. It must be
// followed by Release.
func (d *Decoder) RawLine() ([]byte, error) {
	d.spent, d.depth = 0, 0
	err := d.readLine()
	line := d.line
	d.pos = len(line)
	return line, err
}

// End demands that the command is over.
func (d *Decoder) End() error {
	for d.pos < len(d.line) && d.line[d.pos] == ' ' {
		d.pos++ // blanks at the end of a line are forgiven
	}
	if d.pos != len(d.line) {
		return syntaxf("unexpected text after the arguments: %s", excerpt(d.line[d.pos:]))
	}
	return nil
}

// Discard skips what is left of a command that is refused. A literal that the client was asked to
// wait for is never sent by it; one that it sends without waiting is read and dropped.
func (d *Decoder) Discard() error {
	if d.lit.open {
		if err := d.skip(d.lit.left); err != nil {
			return err
		}
		d.lit = literal{}
		if err := d.nextDropped(); err != nil {
			return err
		}
	}
	for {
		n, sync, _, ok := announced(d.line[min(d.pos, len(d.line)):])
		if !ok || sync {
			d.pos = len(d.line)
			return nil
		}
		if err := d.skip(n); err != nil {
			return err
		}
		if err := d.nextDropped(); err != nil {
			return err
		}
	}
}

// nextDropped makes the next line current and overlooks what is wrong inside it.
func (d *Decoder) nextDropped() error {
	d.live = false
	d.spent = 0
	err := d.readLine()
	if _, ok := err.(*Fatal); ok {
		return err
	}
	return nil
}

func (d *Decoder) skip(n int64) error {
	if n > d.lim.Discard {
		return &Fatal{Text: "refused literal is too large to be skipped"}
	}
	d.live = false
	for n > 0 {
		if d.rd < d.wr {
			k := int(min(n, int64(d.wr-d.rd)))
			d.rd += k
			n -= int64(k)
			continue
		}
		d.rd, d.wr = 0, 0
		if err := d.room(); err != nil {
			return err
		}
		got, err := d.r.Read(d.in)
		d.wr = got
		if got == 0 && err != nil {
			return &Fatal{Text: "connection ended inside a literal", Err: err}
		}
	}
	return nil
}

// excerpt shows a piece of input in an answer, without what a client could take for the announcement
// of a literal.
func excerpt(b []byte) string {
	const most = 40
	if len(b) > most {
		b = b[:most]
	}
	out := make([]byte, 0, len(b))
	for _, c := range b {
		if c < 0x20 || c >= 0x7f || c == '{' || c == '}' {
			c = '?'
		}
		out = append(out, c)
	}
	return string(out)
}

// Holds reports whether a buffer is held.
func (d *Decoder) Holds() bool { return d.in != nil }
