package mailstore

import (
	"bytes"
	"fmt"
	"io"
	"sort"

	"shoal/daemons/internal/vfs"
)

// Message files that were adopted from a Maildir end their lines with LF, as files on Unix do. They stay as they are, since they
// are other programs' files too; the record has the size that the message has with CRLF (field l), and readers are given that:
// each LF that follows no CR is read as CRLF. Nothing else changes, so that a file may have both.

// crlfCounter counts the LF that have no CR before them, over pieces.
type crlfCounter struct {
	bare int64
	last byte
}

func (c *crlfCounter) count(b []byte) {
	if len(b) == 0 {
		return
	}
	first := c.last
	for off := 0; ; {
		i := bytes.IndexByte(b[off:], '\n')
		if i < 0 {
			break
		}
		before := first
		if off+i > 0 {
			before = b[off+i-1]
		}
		if before != '\r' {
			c.bare++
		}
		off += i + 1
	}
	c.last = b[len(b)-1]
}

// appendCRLF appends src with CRLF for each LF that no CR precedes; last is the byte before src, or 0.
func appendCRLF(dst, src []byte, last byte) []byte {
	for len(src) > 0 {
		i := bytes.IndexByte(src, '\n')
		if i < 0 {
			return append(dst, src...)
		}
		if i > 0 {
			last = src[i-1]
		}
		dst = append(dst, src[:i]...)
		if last != '\r' {
			dst = append(dst, '\r')
		}
		dst, last = append(dst, '\n'), '\n'
		src = src[i+1:]
	}
	return dst
}

// lfBlock is the distance of the known places in a file, in bytes.
const lfBlock = 64 << 10

// lfMap says where the blocks of a file with LF line ends begin in the message.
type lfMap struct {
	file, size int64
	at         []int64 // at[i]: place in the message of byte i*lfBlock of the file
	last       []byte  // last[i]: the byte before it
}

// mapLF reads a file once. ErrCorrupt when it is not of the sizes that the log has.
func mapLF(f vfs.File, file, size int64, path string) (*lfMap, error) {
	m := &lfMap{file: file, size: size}
	var c crlfCounter
	buf := make([]byte, lfBlock)
	for off := int64(0); off < file; off += lfBlock {
		m.at, m.last = append(m.at, off+c.bare), append(m.last, c.last)
		b := buf[:min(lfBlock, file-off)]
		if n, err := f.ReadAt(b, off); n < len(b) {
			if err != nil && err != io.EOF {
				return nil, ioErr("read", path, err)
			}
			return nil, fmt.Errorf("%s: has %d bytes, want %d: %w", path, off+int64(n), file, ErrCorrupt)
		}
		c.count(b)
	}
	if file+c.bare != size {
		return nil, fmt.Errorf("%s: is %d bytes with CRLF line ends, want %d: %w", path, file+c.bare, size, ErrCorrupt)
	}
	return m, nil
}

// readAt reads the message at off.
func (m *lfMap) readAt(f io.ReaderAt, p []byte, off int64) (int, error) {
	done := 0
	raw := make([]byte, lfBlock)
	var text []byte
	for i := sort.Search(len(m.at), func(i int) bool { return m.at[i] > off }) - 1; done < len(p) && i < len(m.at); i++ {
		b := raw[:min(lfBlock, m.file-int64(i)*lfBlock)]
		if n, err := f.ReadAt(b, int64(i)*lfBlock); n < len(b) {
			if err == nil || err == io.EOF {
				err = io.ErrUnexpectedEOF
			}
			return done, err
		}
		text = appendCRLF(text[:0], b, m.last[i])
		from := off + int64(done) - m.at[i]
		if from > int64(len(text)) {
			return done, fmt.Errorf("the file has changed: %w", ErrCorrupt)
		}
		done += copy(p[done:], text[from:])
	}
	if done < len(p) {
		return done, io.EOF
	}
	return done, nil
}

// crlfReader gives what it reads with CRLF line ends.
type crlfReader struct {
	r    io.Reader
	raw  []byte
	text []byte
	left []byte
	last byte
	err  error
}

// CRLFReader gives what r has, with a CR before each LF that has none.
func CRLFReader(r io.Reader) io.Reader { return &crlfReader{r: r, raw: make([]byte, 32<<10)} }

func (c *crlfReader) Read(p []byte) (int, error) {
	for len(c.left) == 0 {
		if c.err != nil {
			return 0, c.err
		}
		var n int
		n, c.err = c.r.Read(c.raw)
		if n > 0 {
			c.text = appendCRLF(c.text[:0], c.raw[:n], c.last)
			c.left, c.last = c.text, c.raw[n-1]
		}
	}
	n := copy(p, c.left)
	c.left = c.left[n:]
	return n, nil
}
