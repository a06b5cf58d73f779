package ldapwire

import (
	"errors"
	"fmt"
)

// Universal tags that LDAP uses.
const (
	tagBoolean     = 0x01
	tagInteger     = 0x02
	tagOctetString = 0x04
	tagEnumerated  = 0x0a
	tagSequence    = 0x30
	tagSet         = 0x31
)

// Errors of framing: after any of them the stream is out of step, and only a notice of
// disconnection can follow.
var (
	ErrNotLDAP  = errors.New("not an LDAP message")
	ErrTooLarge = errors.New("message too large")
	ErrBER      = errors.New("malformed BER")
)

// The part of X.690 that is read here:
//
//	element    = identifier length content
//	identifier = one octet; the low five bits are not all ones
//	length     = %x00-7F                         ; short form
//	           / (%x81-88) 1*8OCTET              ; long form, leading zeros allowed, value < 2^31

// element splits the first element off b. content and rest point into b.
func element(b []byte) (tag byte, content, rest []byte, err error) {
	if len(b) < 2 {
		return 0, nil, nil, ErrBER
	}
	tag = b[0]
	if tag&0x1f == 0x1f {
		return 0, nil, nil, ErrBER
	}
	n, h := int(b[1]), 2
	if n >= 0x80 {
		n, h, err = longLength(b)
		if err != nil {
			return 0, nil, nil, err
		}
		if h == 0 {
			return 0, nil, nil, ErrBER
		}
	}
	if n > len(b)-h {
		return 0, nil, nil, ErrBER
	}
	return tag, b[h : h+n : h+n], b[h+n:], nil
}

// longLength reads a long form length at b[1:]. A header size of 0 means that b ends too early.
func longLength(b []byte) (n, header int, err error) {
	c := int(b[1] & 0x7f)
	if c == 0 || c > 8 {
		return 0, 0, ErrBER
	}
	if len(b) < 2+c {
		return 0, 0, nil
	}
	for _, o := range b[2 : 2+c] {
		if n >= 1<<23 {
			return 0, 0, ErrTooLarge
		}
		n = n<<8 | int(o)
	}
	return n, 2 + c, nil
}

// expect is element for a known tag.
func expect(b []byte, want byte) (content, rest []byte, err error) {
	tag, content, rest, err := element(b)
	if err != nil {
		return nil, nil, err
	}
	if tag != want {
		return nil, nil, fmt.Errorf("%w: tag 0x%02x where 0x%02x belongs", ErrBER, tag, want)
	}
	return content, rest, nil
}

// integer reads the content of an INTEGER or ENUMERATED of at most 32 bits.
func integer(content []byte) (int32, error) {
	if len(content) == 0 || len(content) > 8 {
		return 0, ErrBER
	}
	v := int64(int8(content[0]))
	for _, o := range content[1:] {
		v = v<<8 | int64(o)
	}
	if v != int64(int32(v)) {
		return 0, fmt.Errorf("%w: integer out of range", ErrBER)
	}
	return int32(v), nil
}

func takeInteger(b []byte, tag byte) (v int32, rest []byte, err error) {
	c, rest, err := expect(b, tag)
	if err != nil {
		return 0, nil, err
	}
	v, err = integer(c)
	return v, rest, err
}

func takeBoolean(b []byte, tag byte) (v bool, rest []byte, err error) {
	c, rest, err := expect(b, tag)
	if err != nil {
		return false, nil, err
	}
	if len(c) != 1 {
		return false, nil, ErrBER
	}
	return c[0] != 0, rest, nil
}

// Frame tells how many bytes the first message of b takes, header included. 0 and no error mean
// that b does not hold the whole header yet. The answer may exceed len(b), never max: a longer
// claim is ErrTooLarge at once, and so is one that does not begin as an LDAPMessage does.
func Frame(b []byte, max int) (int, error) {
	if len(b) == 0 {
		return 0, nil
	}
	if b[0] != tagSequence {
		return 0, ErrNotLDAP
	}
	if len(b) < 2 {
		return 0, nil
	}
	n, h := int(b[1]), 2
	if n >= 0x80 {
		var err error
		n, h, err = longLength(b)
		if err != nil {
			return 0, err
		}
		if h == 0 {
			return 0, nil
		}
	}
	if n+h > max {
		return 0, fmt.Errorf("%w: %d bytes, at most %d", ErrTooLarge, n+h, max)
	}
	if n < 5 { // 02 01 id, op tag, op length
		return 0, ErrNotLDAP
	}
	return n + h, nil
}

// lengthSize is the number of octets that AppendLength writes for n.
func lengthSize(n int) int {
	switch {
	case n < 0x80:
		return 1
	case n < 0x100:
		return 2
	case n < 0x10000:
		return 3
	case n < 0x1000000:
		return 4
	}
	return 5
}

// elementSize is the size of a whole element with a content of n octets.
func elementSize(n int) int { return 1 + lengthSize(n) + n }

func appendHeader(dst []byte, tag byte, n int) []byte {
	switch {
	case n < 0x80:
		return append(dst, tag, byte(n))
	case n < 0x100:
		return append(dst, tag, 0x81, byte(n))
	case n < 0x10000:
		return append(dst, tag, 0x82, byte(n>>8), byte(n))
	case n < 0x1000000:
		return append(dst, tag, 0x83, byte(n>>16), byte(n>>8), byte(n))
	}
	return append(dst, tag, 0x84, byte(n>>24), byte(n>>16), byte(n>>8), byte(n))
}

func integerSize(v int32) int {
	switch {
	case v >= -0x80 && v < 0x80:
		return 1
	case v >= -0x8000 && v < 0x8000:
		return 2
	case v >= -0x800000 && v < 0x800000:
		return 3
	}
	return 4
}

func appendInteger(dst []byte, tag byte, v int32) []byte {
	n := integerSize(v)
	dst = append(dst, tag, byte(n))
	for n--; n >= 0; n-- {
		dst = append(dst, byte(v>>(8*n)))
	}
	return dst
}

func appendBoolean(dst []byte, tag byte, v bool) []byte {
	if v {
		return append(dst, tag, 1, 0xff)
	}
	return append(dst, tag, 1, 0)
}

func appendString[S ~string | ~[]byte](dst []byte, tag byte, s S) []byte {
	dst = appendHeader(dst, tag, len(s))
	return append(dst, s...)
}

// wrap puts an element header of the given tag before dst[start:], which becomes its content.
func wrap(dst []byte, start int, tag byte) []byte {
	n := len(dst) - start
	h := 1 + lengthSize(n)
	for range h {
		dst = append(dst, 0)
	}
	copy(dst[start+h:], dst[start:start+n])
	appendHeader(dst[:start], tag, n)
	return dst
}
