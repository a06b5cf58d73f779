package message

import (
	"bytes"
	"io"
)

// Transfer encodings, decoded as streams and without ever failing on the content: what is no
// base64 is left out, what is no quoted-printable stands for itself. RFC 2045 §6.7 and §6.8 ask
// for as much.

// decoding is a transfer encoding as far as decoding it goes.
type decoding int

const (
	identity decoding = iota
	base64Encoding
	quotedPrintable
	unknownEncoding
)

func decodingOf(encoding string) decoding {
	switch encoding {
	case "7bit", "8bit", "binary":
		return identity
	case "base64":
		return base64Encoding
	case "quoted-printable":
		return quotedPrintable
	}
	return unknownEncoding
}

// decoded is the stream r without its transfer encoding; r itself where that is identity or unknown.
func decoded(r io.Reader, d decoding) io.Reader {
	switch d {
	case base64Encoding:
		return &base64Reader{src: r}
	case quotedPrintable:
		return &quotedReader{src: r}
	}
	return r
}

const chunkSize = 8 << 10

// base64 values of the bytes; 64 and up are none.
const (
	notBase64 = 64
	padding   = 65
)

var base64Values = func() (t [256]byte) {
	const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
	for i := range t {
		t[i] = notBase64
	}
	for i := range len(alphabet) {
		t[alphabet[i]] = byte(i)
	}
	t['='] = padding
	return t
}()

// base64Reader decodes base64. Bytes outside the alphabet are left out. Padding ends a group, and
// decoding goes on behind it: some programs encode a part in pieces.
type base64Reader struct {
	base64Group
	src  io.Reader
	out  []byte // decoded, not yet read; inside room
	err  error
	in   [chunkSize]byte
	room [chunkSize/4*3 + 3]byte
}

// base64Group is the state between two characters: those of the group that is not full yet.
type base64Group struct {
	acc uint32
	n   int
}

func (r *base64Reader) reset(src io.Reader) {
	r.src, r.out, r.err, r.base64Group = src, nil, nil, base64Group{}
}

func (r *base64Reader) Read(b []byte) (int, error) {
	for len(r.out) == 0 {
		if r.err != nil {
			return 0, r.err
		}
		n, err := r.src.Read(r.in[:])
		r.err = err
		r.out = r.decode(r.room[:0], r.in[:n])
		if err == io.EOF {
			r.out = r.flush(r.out)
		}
	}
	n := copy(b, r.out)
	r.out = r.out[n:]
	return n, nil
}

// decode appends what in decodes to.
func (r *base64Group) decode(out, in []byte) []byte {
	for i := 0; i < len(in); i++ {
		if r.n == 0 {
			for i+4 <= len(in) {
				a, b, c, d := base64Values[in[i]], base64Values[in[i+1]], base64Values[in[i+2]], base64Values[in[i+3]]
				if (a|b|c|d)&^63 != 0 {
					break
				}
				v := uint32(a)<<18 | uint32(b)<<12 | uint32(c)<<6 | uint32(d)
				out = append(out, byte(v>>16), byte(v>>8), byte(v))
				i += 4
			}
			if i >= len(in) {
				break
			}
		}
		switch v := base64Values[in[i]]; v {
		case notBase64:
		case padding:
			out = r.flush(out)
		default:
			r.acc = r.acc<<6 | uint32(v)
			if r.n++; r.n == 4 {
				out = append(out, byte(r.acc>>16), byte(r.acc>>8), byte(r.acc))
				r.acc, r.n = 0, 0
			}
		}
	}
	return out
}

// flush ends a group that is not full: 2 characters are one byte, 3 are two.
func (r *base64Group) flush(out []byte) []byte {
	switch r.n {
	case 2:
		out = append(out, byte(r.acc>>4))
	case 3:
		out = append(out, byte(r.acc>>10), byte(r.acc>>2))
	}
	r.acc, r.n = 0, 0
	return out
}

// quotedReader decodes quoted-printable:
//
//	"=" 2HEXDIG      the byte                 (lower-case digits too)
//	"=" *WSP EOL     a soft line break: nothing
//	*WSP EOL         the line break, without the blanks before it
//
// An "=" before anything else stands for itself.
type quotedReader struct {
	src  io.Reader
	buf  [chunkSize]byte
	n    int // bytes in buf not yet decoded
	out  []byte
	err  error
	eof  bool
	room [chunkSize]byte
}

func (r *quotedReader) reset(src io.Reader) {
	r.src, r.out, r.n, r.err, r.eof = src, nil, 0, nil, false
}

func (r *quotedReader) Read(b []byte) (int, error) {
	for len(r.out) == 0 {
		if r.eof && r.n == 0 {
			return 0, r.err
		}
		if !r.eof {
			n, err := r.src.Read(r.buf[r.n:])
			r.n += n
			if err != nil {
				r.eof, r.err = true, err
			}
		}
		var used int
		r.out, used = decodeQuoted(r.room[:0], r.buf[:r.n], r.eof)
		if used == 0 && r.n == len(r.buf) { // nothing but blanks, more than any line has
			r.out, used = decodeQuoted(r.room[:0], r.buf[:r.n], true)
		}
		r.n = copy(r.buf[:], r.buf[used:r.n])
	}
	n := copy(b, r.out)
	r.out = r.out[n:]
	return n, nil
}

// decodeQuoted decodes in, as much of it as can be decided without what follows; all of it when last is
// set. used is the number of bytes that it took.
func decodeQuoted(out, in []byte, last bool) (_ []byte, used int) {
	i := 0
	for i < len(in) {
		switch c := in[i]; c {
		case '=':
			if i+2 < len(in) {
				if hi, lo := unhex(in[i+1]), unhex(in[i+2]); hi >= 0 && lo >= 0 {
					out = append(out, byte(hi<<4|lo))
					i += 3
					continue
				}
			}
			end, decided := blankLine(in[i+1:])
			switch {
			case !decided && !last || i+2 >= len(in) && !last:
				return out, i
			case end > 0:
				i += 1 + end
			case !decided: // blanks up to the end of the data
				i = len(in)
			default:
				out = append(out, '=')
				i++
			}
		case ' ', '\t':
			end, decided := blankLine(in[i:])
			switch {
			case !decided && !last:
				return out, i
			case end > 0: // blanks before a line break
				j := i + bytes.IndexByte(in[i:i+end], '\n')
				if in[j-1] == '\r' {
					j--
				}
				i = j
			default:
				for i < len(in) && (in[i] == ' ' || in[i] == '\t') {
					out = append(out, in[i])
					i++
				}
			}
		default:
			j := i
			for j < len(in) && in[j] != '=' && in[j] != ' ' && in[j] != '\t' {
				j++
			}
			out = append(out, in[i:j]...)
			i = j
		}
	}
	return out, i
}

// blankLine is the length of the blanks and the line break that b begins with; 0 where something else
// comes. It is not decided where b ends first.
func blankLine(b []byte) (end int, decided bool) {
	for i, c := range b {
		switch c {
		case ' ', '\t':
		case '\r':
			if i+1 == len(b) {
				return 0, false
			}
			if b[i+1] != '\n' {
				return 0, true
			}
		case '\n':
			return i + 1, true
		default:
			return 0, true
		}
	}
	return 0, false
}
