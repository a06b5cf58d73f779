package message

import (
	"bytes"
	"fmt"
	"io"
	"sync"
)

// The one buffer that a message goes through. A boundary delimiter must fit in it whole.
const (
	bufferSize  = 32 << 10
	maxBoundary = 1000 // longer ones are taken for missing; RFC 2046 §5.1.1 allows 70
)

// delimiter is a boundary line that was found: the level of the multipart that it belongs to,
// counted from the outermost; noLevel at the end of the data.
type delimiter struct {
	level   int
	closing bool
}

const noLevel = -1

// scanner walks over the lines of the file. It knows the boundaries of all open multiparts, because
// a boundary of an outer one ends every inner one, closed or not.
type scanner struct {
	r    io.ReaderAt
	size int64
	err  error

	buf        []byte
	start, end int   // what is read and not yet consumed
	off        int64 // offset of buf[start] in the file

	lines int64 // LF bytes before off
	bol   bool  // off is at the beginning of a line
	brk   int   // length of the line break before off: 0, 1 (LF) or 2 (CRLF)
	cr    bool  // the byte before off is a CR

	bounds   []string // open boundaries, the outermost first
	maxBound int      // length of the longest of bounds
	full     bool     // no more parts may begin: only closing delimiters count
	ignored  bool     // a delimiter was passed over for that reason
}

var scanBuffers = sync.Pool{New: func() any { b := make([]byte, bufferSize); return &b }}

func (s *scanner) window() []byte { return s.buf[s.start:s.end] }

// fill reads more into the buffer, moving what is in it to the front. It reports whether
// something was added: not so at the end of the data, on an error, and when the buffer is full.
func (s *scanner) fill() bool {
	at := s.off + int64(s.end-s.start)
	if s.err != nil || at >= s.size {
		return false
	}
	if s.start > 0 {
		s.end = copy(s.buf, s.buf[s.start:s.end])
		s.start = 0
	}
	room := s.buf[s.end:]
	if left := s.size - at; int64(len(room)) > left {
		room = room[:left]
	}
	if len(room) == 0 {
		return false
	}
	n, err := s.r.ReadAt(room, at)
	if n < len(room) {
		if err == nil || err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		s.err = fmt.Errorf("read message at %d: %w", at+int64(n), err)
	}
	s.end += n
	return n > 0
}

// line returns the next line with its line break without consuming it. Where the line is longer than
// the buffer it is only the part that fits.
func (s *scanner) line() []byte {
	from := 0
	for {
		w := s.window()
		if i := bytes.IndexByte(w[from:], '\n'); i >= 0 {
			return w[:from+i+1]
		}
		from = len(w)
		if !s.fill() {
			return s.window()
		}
	}
}

// consume goes past a line, or part of one, that line returned.
func (s *scanner) consume(line []byte) {
	n := len(line)
	if n == 0 {
		return
	}
	s.start += n
	s.off += int64(n)
	s.bol, s.brk = false, 0
	if line[n-1] == '\n' {
		s.lines++
		s.bol, s.brk = true, 1
		if n > 1 && line[n-2] == '\r' || n == 1 && s.cr {
			s.brk = 2
		}
	}
	s.cr = line[n-1] == '\r'
}

func (s *scanner) push(boundary string) {
	s.bounds = append(s.bounds, boundary)
	s.maxBound = max(s.maxBound, len(boundary))
}

func (s *scanner) pop() {
	s.bounds = s.bounds[:len(s.bounds)-1]
	s.maxBound = 0
	for _, b := range s.bounds {
		s.maxBound = max(s.maxBound, len(b))
	}
}

// atDelimiter says whether the line at off is a delimiter of an open multipart. The beginning of the
// line is what counts (RFC 2046 §5.1.1: an exact match of the entire line is not required). Where
// several boundaries fit, because one begins with another, the longest is meant.
func (s *scanner) atDelimiter() (delimiter, bool) {
	if len(s.bounds) == 0 || !s.bol {
		return delimiter{}, false
	}
	for s.end-s.start < s.maxBound+4 && s.fill() {
	}
	w := s.window()
	if len(w) < 2 || w[0] != '-' || w[1] != '-' {
		return delimiter{}, false
	}
	w = w[2:]
	best := noLevel
	for i := len(s.bounds) - 1; i >= 0; i-- {
		b := s.bounds[i]
		if len(w) >= len(b) && string(w[:len(b)]) == b && (best == noLevel || len(b) > len(s.bounds[best])) {
			best = i
		}
	}
	if best == noLevel {
		return delimiter{}, false
	}
	w = w[len(s.bounds[best]):]
	d := delimiter{level: best, closing: len(w) >= 2 && w[0] == '-' && w[1] == '-'}
	if s.full && !d.closing {
		s.ignored = true
		return delimiter{}, false
	}
	return d, true
}

// skipBody goes on to the next delimiter, or to the end of the data.
func (s *scanner) skipBody() delimiter {
	if len(s.bounds) == 0 {
		for {
			w := s.window()
			s.lines += int64(bytes.Count(w, []byte{'\n'}))
			s.start = s.end
			s.off += int64(len(w))
			if !s.fill() {
				return delimiter{level: noLevel}
			}
		}
	}
	for {
		if d, ok := s.atDelimiter(); ok {
			return d
		}
		w := s.window()
		if len(w) == 0 && !s.fill() {
			return delimiter{level: noLevel}
		}
		s.skipLines(s.window())
	}
}

// skipLines consumes from the window w until a line begins that may be a delimiter, at least to the
// end of the present line or of the window.
func (s *scanner) skipLines(w []byte) {
	i := 0
	for {
		j := bytes.IndexByte(w[i:], '\n')
		if j < 0 {
			s.consume(w[i:])
			return
		}
		end := i + j + 1
		if end+1 >= len(w) || w[end] == '-' && w[end+1] == '-' {
			s.consume(w[i:end])
			return
		}
		s.lines++
		s.cr = false
		s.start += j + 1
		s.off += int64(j + 1)
		i = end
	}
}

// skipLine consumes the rest of the present line.
func (s *scanner) skipLine() {
	for {
		l := s.line()
		s.consume(l)
		if len(l) == 0 || s.bol {
			return
		}
	}
}
