package mbox

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"strings"
	"time"
)

// Writer writes mboxrd. A message that is read back by Reader and CRLFReader is the same, if all its lines
// end in CRLF: mbox files have LF.
type Writer struct {
	w  *bufio.Writer
	in *bufio.Reader
}

// NewWriter makes a writer to w.
func NewWriter(w io.Writer) *Writer {
	return &Writer{w: bufio.NewWriterSize(w, readSize), in: bufio.NewReaderSize(nil, readSize)}
}

// Write writes one message: its from-line, its content with CRLF as LF and quoted, and the blank line. A
// content whose last line has no end gets one. An empty sender is written MAILER-DAEMON, as delivery agents
// do for the null return path.
func (w *Writer) Write(sender string, date time.Time, r io.Reader) error {
	sender = strings.Join(strings.Fields(sender), "-")
	if sender == "" {
		sender = "MAILER-DAEMON"
	}
	if _, err := fmt.Fprintf(w.w, "From %s %s\n", sender, date.UTC().Format(time.ANSIC)); err != nil {
		return fmt.Errorf("write mbox: %w", err)
	}
	w.in.Reset(r)
	bol, cr := true, false
	for {
		line, err := w.in.ReadSlice('\n')
		if err != nil && err != io.EOF && err != bufio.ErrBufferFull {
			return fmt.Errorf("read message: %w", err)
		}
		if len(line) > 0 {
			if bol && (bytes.HasPrefix(line, fromPrefix) || isQuoted(line)) {
				w.byte('>')
			}
			if cr && line[0] != '\n' { // a CR that ended the last piece and begins no line break
				w.byte('\r')
			}
			bol = line[len(line)-1] == '\n'
			if bol {
				line = line[:len(line)-1]
			}
			cr = len(line) > 0 && line[len(line)-1] == '\r'
			if cr {
				line = line[:len(line)-1]
			}
			if _, err := w.w.Write(line); err != nil {
				return fmt.Errorf("write mbox: %w", err)
			}
			if bol {
				w.byte('\n')
				cr = false
			}
		}
		if err == io.EOF {
			break
		}
	}
	if cr {
		w.byte('\r')
	}
	if !bol {
		w.byte('\n')
	}
	w.byte('\n')
	if err := w.w.Flush(); err != nil {
		return fmt.Errorf("write mbox: %w", err)
	}
	return nil
}

// byte writes one byte; an error stays in the bufio.Writer and comes out at Flush.
func (w *Writer) byte(c byte) { _ = w.w.WriteByte(c) }

// CRLFReader converts each LF that has no CR before it to CRLF and changes nothing else: a bare CR stays,
// and so does what is CRLF already.
func CRLFReader(r io.Reader) io.Reader { return &crlfReader{src: r} }

type crlfReader struct {
	src io.Reader
	buf [8 << 10]byte
	in  []byte // read, not yet given; inside buf
	err error
	cr  bool // the last byte given was a CR
}

func (c *crlfReader) Read(b []byte) (n int, err error) {
	if len(b) == 0 {
		return 0, nil
	}
	for len(c.in) == 0 {
		if c.err != nil {
			return 0, c.err
		}
		var got int
		got, c.err = c.src.Read(c.buf[:])
		c.in = c.buf[:got]
	}
	for n < len(b) && len(c.in) > 0 {
		if c.in[0] == '\n' {
			if !c.cr {
				b[n], c.cr = '\r', true
			} else {
				b[n], c.cr = '\n', false
				c.in = c.in[1:]
			}
			n++
			continue
		}
		end := bytes.IndexByte(c.in, '\n')
		if end < 0 {
			end = len(c.in)
		}
		got := copy(b[n:], c.in[:end])
		c.in = c.in[got:]
		n += got
		c.cr = b[n-1] == '\r'
	}
	return n, nil
}
