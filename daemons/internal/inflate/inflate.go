// Package inflate decodes DEFLATE streams (RFC 1951) that come in pieces, for connections that rest between the pieces:
// for minutes, by the thousand. The standard library's decoder holds about 40 KiB as long as it lives and fails for good
// when its input has a pause. This one gives back what there is, and at rest holds only the output that the stream may
// still refer to: as much as the peer has sent so far, 32 KiB at most.
//
//	stream  = *block                       until one is marked as the last
//	block   = final:1 type:2 (stored / codes)
//	stored  = pad to byte, LEN:16 NLEN:16 *LEN octet              type 0
//	codes   = [code lengths] *(literal / length distance) end     type 1: fixed, 2: with code lengths
//
// Invariants: a call of Decode gives no more than was asked for, so that a small input cannot become a large output in
// memory; a Reader that has failed stays failed.
//
// Left out on purpose: dictionaries and the zlib and gzip framing.
package inflate

import (
	"encoding/binary"
	"errors"
	"io"
)

// ErrMore says that Decode needs more input. ErrCorrupt says that the input is no DEFLATE stream.
var (
	ErrMore    = errors.New("more compressed input is needed")
	ErrCorrupt = errors.New("corrupt compressed input")
)

const (
	window   = 32 << 10 // how far back a stream may refer
	maxBits  = 15       // of a code
	fastBits = 9        // of a code that one look decides
	endBlock = 256
)

// What comes next.
const (
	atBlock = iota
	inStored
	inCodes
	inCopy
	atEnd
)

// Reader decodes a stream. Its zero value is ready. It is used by one goroutine at a time.
type Reader struct {
	in    []byte // from pos on: not looked at
	pos   int
	bits  uint64 // the next nbits of the stream, lowest first
	nbits uint

	state  uint8
	final  bool // this block is the last
	stored int  // bytes left in a stored block
	length int  // and distance: of the copy under way
	dist   int
	codes  *codes
	hist   []byte // output, of which the last window bytes count
	err    error
}

// codes are the two alphabets of a block.
type codes struct{ literal, distance huffman }

// huffman is a canonical code: how many codes there are of each length, and their symbols in order.
type huffman struct {
	count  [maxBits + 1]uint16
	symbol [288]uint16
	fast   [1 << fastBits]uint16 // symbol<<4 | length; 0: longer, or no code
}

var fixed = func() *codes {
	var lengths [288 + 32]uint8 // the last two of each alphabet are never used
	for i := range lengths {
		switch {
		case i >= 288:
			lengths[i] = 5
		case i < 144 || i >= 280:
			lengths[i] = 8
		case i < 256:
			lengths[i] = 9
		default:
			lengths[i] = 7
		}
	}
	c := new(codes)
	c.literal.build(lengths[:288])
	c.distance.build(lengths[288:])
	return c
}()

// build makes the code of these lengths. It reports whether they fit: no code more than there is room for, and no room
// left over unless there is one code at most.
func (h *huffman) build(lengths []uint8) bool {
	*h = huffman{}
	used := 0
	for _, n := range lengths {
		h.count[n]++
		if n > 0 {
			used++
		}
	}
	h.count[0] = 0
	left := 1
	var offset, first [maxBits + 2]int
	for n := 1; n <= maxBits; n++ {
		if left = left<<1 - int(h.count[n]); left < 0 {
			return false
		}
		offset[n+1] = offset[n] + int(h.count[n])
		first[n+1] = (first[n] + int(h.count[n])) << 1
	}
	if left > 0 && (used > 1 || used == 1 && h.count[1] != 1) {
		return false
	}
	next := first
	for s, n := range lengths {
		if n == 0 {
			continue
		}
		h.symbol[offset[n]] = uint16(s)
		offset[n]++
		code := next[n]
		next[n]++
		if n > fastBits {
			continue
		}
		at := 0
		for i := range int(n) { // codes begin with their highest bit
			at |= (code >> i & 1) << (int(n) - 1 - i)
		}
		for ; at < 1<<fastBits; at += 1 << n {
			h.fast[at] = uint16(s)<<4 | uint16(n)
		}
	}
	return true
}

// Feed adds compressed input, which is copied.
func (z *Reader) Feed(p []byte) {
	z.in = append(z.in[:copy(z.in, z.in[z.pos:])], p...)
	z.pos = 0
}

// Rest gives back memory that is not needed until there is more input.
func (z *Reader) Rest() {
	z.in, z.pos = append([]byte(nil), z.in[z.pos:]...), 0
	if n := len(z.hist); cap(z.hist) > min(n, window)+64 {
		z.hist = append(make([]byte, 0, min(n, window)), z.hist[max(0, n-window):]...)
	}
}

// fill gets as many bits as there are room and input for.
func (z *Reader) fill() {
	for z.nbits <= 56 && z.pos < len(z.in) {
		z.bits |= uint64(z.in[z.pos]) << z.nbits
		z.nbits += 8
		z.pos++
	}
}

// take takes n bits, up to 16; ErrMore.
func (z *Reader) take(n uint) (int, error) {
	if z.nbits < n {
		if z.fill(); z.nbits < n {
			return 0, ErrMore
		}
	}
	v := int(z.bits & (1<<n - 1))
	z.bits >>= n
	z.nbits -= n
	return v, nil
}

// next takes a symbol of h.
func (z *Reader) next(h *huffman) (int, error) {
	if z.nbits < maxBits {
		z.fill()
	}
	if f := h.fast[z.bits&(1<<fastBits-1)]; f != 0 && uint(f&15) <= z.nbits {
		z.bits >>= f & 15
		z.nbits -= uint(f & 15)
		return int(f >> 4), nil
	}
	code, first, index := 0, 0, 0
	for n := uint(1); n <= maxBits; n++ {
		if n > z.nbits {
			return 0, ErrMore
		}
		code |= int(z.bits >> (n - 1) & 1)
		count := int(h.count[n])
		if code-count < first {
			z.bits >>= n
			z.nbits -= n
			return int(h.symbol[index+code-first]), nil
		}
		index += count
		first = (first + count) << 1
		code <<= 1
	}
	return 0, ErrCorrupt
}

// Decode writes output to p, as much as there is of it and fits. It returns ErrMore when there is none without more
// input, io.EOF at the end of the stream, ErrCorrupt.
func (z *Reader) Decode(p []byte) (n int, err error) {
	for n < len(p) && z.err == nil {
		if z.state == atEnd {
			z.err = io.EOF
			break
		}
		k, err := z.step(p[n:])
		if k > 0 {
			z.remember(p[n : n+k])
			n += k
		}
		if err == ErrMore {
			if n == 0 {
				return 0, ErrMore
			}
			return n, nil
		}
		z.err = err
	}
	if n > 0 || len(p) == 0 {
		return n, nil
	}
	return 0, z.err
}

// remember keeps output that the stream may refer to.
func (z *Reader) remember(p []byte) {
	if len(z.hist)+len(p) > 2*window {
		if len(p) >= window {
			z.hist = z.hist[:0]
			p = p[len(p)-window:]
		} else {
			keep := z.hist[max(0, len(z.hist)-window):]
			z.hist = z.hist[:copy(z.hist, keep)]
		}
	}
	z.hist = append(z.hist, p...)
}

func (z *Reader) step(p []byte) (int, error) {
	switch z.state {
	case inStored:
		return z.copyStored(p)
	case inCodes, inCopy:
		return z.decode(p)
	}
	return 0, z.block()
}

// block begins a block. Without enough input for its head it begins anew with the next call.
func (z *Reader) block() (err error) {
	pos, bits, nbits := z.pos, z.bits, z.nbits
	defer func() {
		if err == ErrMore {
			z.pos, z.bits, z.nbits = pos, bits, nbits
		}
	}()
	head, err := z.take(3)
	if err != nil {
		return err
	}
	switch head >> 1 {
	case 0:
		z.take(z.nbits % 8)
		var b [4]byte
		for i := range b {
			v, err := z.take(8)
			if err != nil {
				return err
			}
			b[i] = byte(v)
		}
		n := binary.LittleEndian.Uint16(b[:])
		if n != ^binary.LittleEndian.Uint16(b[2:]) {
			return ErrCorrupt
		}
		z.stored, z.state = int(n), inStored
	case 1:
		z.codes, z.state = fixed, inCodes
	case 2:
		c, err := z.lengths()
		if err != nil {
			return err
		}
		z.codes, z.state = c, inCodes
	default:
		return ErrCorrupt
	}
	z.final = head&1 != 0
	return nil
}

// end ends a block.
func (z *Reader) end() {
	z.codes, z.state = nil, atBlock
	if z.final {
		z.state = atEnd
	}
}

func (z *Reader) copyStored(p []byte) (n int, err error) {
	for n < len(p) && z.stored > 0 {
		switch {
		case z.nbits >= 8:
			p[n] = byte(z.bits)
			z.bits >>= 8
			z.nbits -= 8
			n++
			z.stored--
		case z.pos < len(z.in):
			k := copy(p[n:], z.in[z.pos:min(len(z.in), z.pos+z.stored)])
			n += k
			z.pos += k
			z.stored -= k
		default:
			return n, ErrMore
		}
	}
	if z.stored == 0 {
		z.end()
	}
	return n, nil
}

var lengthOrder = [19]uint8{16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15}

// lengths reads the code lengths of a block (RFC 1951 §3.2.7).
func (z *Reader) lengths() (*codes, error) {
	v, err := z.take(14)
	if err != nil {
		return nil, err
	}
	nlit, ndist, ncode := v&31+257, v>>5&31+1, v>>10+4
	if nlit > 286 || ndist > 30 {
		return nil, ErrCorrupt
	}
	var lengths [286 + 30]uint8
	for i := range ncode {
		if v, err = z.take(3); err != nil {
			return nil, err
		}
		lengths[lengthOrder[i]] = uint8(v)
	}
	c := new(codes)
	if !c.literal.build(lengths[:19]) {
		return nil, ErrCorrupt
	}
	clear(lengths[:])
	for i := 0; i < nlit+ndist; {
		s, err := z.next(&c.literal)
		if err != nil {
			return nil, err
		}
		if s < 16 {
			lengths[i] = uint8(s)
			i++
			continue
		}
		again, bits, least := uint8(0), uint(2), 3
		switch s {
		case 16:
			if i == 0 {
				return nil, ErrCorrupt
			}
			again = lengths[i-1]
		case 17:
			bits = 3
		default:
			bits, least = 7, 11
		}
		n, err := z.take(bits)
		if err != nil {
			return nil, err
		}
		if n += least; i+n > nlit+ndist {
			return nil, ErrCorrupt
		}
		for ; n > 0; n-- {
			lengths[i] = again
			i++
		}
	}
	if lengths[endBlock] == 0 || !c.literal.build(lengths[:nlit]) || !c.distance.build(lengths[nlit:nlit+ndist]) {
		return nil, ErrCorrupt
	}
	return c, nil
}

var (
	lengthBase = [29]uint16{3, 4, 5, 6, 7, 8, 9, 10, 11, 13, 15, 17, 19, 23, 27, 31, 35, 43, 51, 59, 67, 83, 99, 115, 131, 163, 195, 227, 258}
	lengthBits = [29]uint8{0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3, 4, 4, 4, 4, 5, 5, 5, 5, 0}
	distBase   = [30]uint16{1, 2, 3, 4, 5, 7, 9, 13, 17, 25, 33, 49, 65, 97, 129, 193, 257, 385, 513, 769, 1025, 1537, 2049, 3073, 4097, 6145, 8193, 12289, 16385, 24577}
	distBits   = [30]uint8{0, 0, 0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7, 8, 8, 9, 9, 10, 10, 11, 11, 12, 12, 13, 13}
)

// decode decodes codes into p: until p is full, the block ends, or a code is not whole.
func (z *Reader) decode(p []byte) (n int, err error) {
	for n < len(p) {
		if z.state == inCopy {
			n += z.copyBack(p, n)
			if z.length == 0 {
				z.state = inCodes
			}
			continue
		}
		z.fill() // now the longest code, 48 bits, is whole if it is there
		bits, nbits, pos := z.bits, z.nbits, z.pos
		s, err := z.next(&z.codes.literal)
		switch {
		case err != nil:
		case s < endBlock:
			p[n] = byte(s)
			n++
			continue
		case s == endBlock:
			z.end()
			return n, nil
		default:
			err = z.reference(s - endBlock - 1)
			if err == nil && z.dist > n+min(len(z.hist), window) {
				err = ErrCorrupt
			}
		}
		if err != nil {
			if err == ErrMore {
				z.bits, z.nbits, z.pos = bits, nbits, pos
			}
			return n, err
		}
		z.state = inCopy
	}
	return n, nil
}

// reference takes the rest of a length and a distance.
func (z *Reader) reference(s int) error {
	if s >= len(lengthBase) {
		return ErrCorrupt
	}
	more, err := z.take(uint(lengthBits[s]))
	if err != nil {
		return err
	}
	d, err := z.next(&z.codes.distance)
	if err != nil {
		return err
	}
	if d >= len(distBase) {
		return ErrCorrupt
	}
	far, err := z.take(uint(distBits[d]))
	z.length, z.dist = int(lengthBase[s])+more, int(distBase[d])+far
	return err
}

// copyBack repeats earlier output at p[n:]; what is before p lies in hist.
func (z *Reader) copyBack(p []byte, n int) (k int) {
	for z.length > 0 && n+k < len(p) {
		if at := n + k - z.dist; at >= 0 {
			p[n+k] = p[at]
		} else {
			p[n+k] = z.hist[len(z.hist)+at]
		}
		k++
		z.length--
	}
	return k
}
