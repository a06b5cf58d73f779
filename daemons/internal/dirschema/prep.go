package dirschema

import (
	"bytes"
	"errors"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/cases"
	"golang.org/x/text/unicode/norm"
)

// String preparation (RFC 4518). The normal form of a string has no space at its ends and single
// spaces inside; RFC 4518 §2.6.1 instead pads to one space at the ends and two inside, which is the
// same relation between values and needs more bytes. A string of nothing but spaces becomes "".

var errSyntax = errors.New("value does not have the syntax of the attribute")

// prepare appends the prepared form of v to dst.
func prepare(dst, v []byte, fold bool) ([]byte, error) {
	start := len(dst)
	space := false
	for _, c := range v {
		switch {
		case c >= utf8.RuneSelf:
			return prepareUnicode(dst[:start], v, fold)
		case c == ' ' || c >= '\t' && c <= '\r':
			space = true
			continue
		case c < ' ' || c == 0x7f: // RFC 4518 §2.2: control characters are mapped to nothing
			continue
		}
		if space && len(dst) > start {
			dst = append(dst, ' ')
		}
		space = false
		if fold && c >= 'A' && c <= 'Z' {
			c += 'a' - 'A'
		}
		dst = append(dst, c)
	}
	return dst, nil
}

func prepareUnicode(dst, v []byte, fold bool) ([]byte, error) {
	if !utf8.Valid(v) {
		return dst, errSyntax
	}
	v = bytes.Map(func(r rune) rune {
		if mappedToNothing(r) && !white(r) {
			return -1
		}
		return r
	}, v)
	for range 4 { // compatibility characters may decompose into capitals: until nothing changes
		was := v
		if fold {
			v = cases.Fold().Bytes(v)
		}
		if v = norm.NFKC.Bytes(v); bytes.Equal(was, v) {
			break
		}
	}
	start, space := len(dst), false
	for len(v) > 0 {
		r, n := utf8.DecodeRune(v)
		c := v[:n]
		v = v[n:]
		switch {
		case white(r):
			space = true
			continue
		case r == 0xfffd || unicode.Is(unicode.Co, r): // RFC 4518 §2.4: prohibited
			return dst, errSyntax
		}
		if space && len(dst) > start {
			dst = append(dst, ' ')
		}
		space = false
		dst = append(dst, c...)
	}
	return dst, nil
}

// white is what RFC 4518 §2.2 maps to a space.
func white(r rune) bool {
	return unicode.Is(unicode.Zs, r) || r >= '\t' && r <= '\r' || r == 0x85 || r == 0x2028 || r == 0x2029
}

// mappedToNothing is the list of RFC 4518 §2.2.
func mappedToNothing(r rune) bool {
	switch {
	case r < 0x20 || r >= 0x7f && r <= 0x9f: // the white space among them is caught before
		return true
	case r == 0xad || r == 0x34f || r == 0x1806 || r == 0x200b || r == 0xfeff || r == 0xfffc:
		return true
	case r >= 0x180b && r <= 0x180e, r >= 0x200c && r <= 0x200f, r >= 0x202a && r <= 0x202e,
		r >= 0x2060 && r <= 0x2063, r >= 0x206a && r <= 0x206f, r >= 0xfe00 && r <= 0xfe0f,
		r >= 0xfff9 && r <= 0xfffb, r >= 0x1d173 && r <= 0x1d17a, r == 0xe0001, r >= 0xe0020 && r <= 0xe007f:
		return true
	}
	return false
}

func foldASCII(dst, v []byte) []byte {
	for _, c := range v {
		if c >= 'A' && c <= 'Z' {
			c += 'a' - 'A'
		}
		dst = append(dst, c)
	}
	return dst
}

func caseIgnore(dst, v []byte) ([]byte, error) { return prepare(dst, v, true) }
func caseExact(dst, v []byte) ([]byte, error)  { return prepare(dst, v, false) }

func ia5(v []byte) bool {
	for _, c := range v {
		if c >= utf8.RuneSelf {
			return false
		}
	}
	return true
}

func caseIgnoreIA5(dst, v []byte) ([]byte, error) {
	if !ia5(v) {
		return dst, errSyntax
	}
	return prepare(dst, v, true)
}

func caseExactIA5(dst, v []byte) ([]byte, error) {
	if !ia5(v) {
		return dst, errSyntax
	}
	return prepare(dst, v, false)
}

// numericString drops all spaces (RFC 4518 §2.6.2).
func numericString(dst, v []byte) ([]byte, error) {
	for _, c := range v {
		if c != ' ' {
			dst = append(dst, c)
		}
	}
	return dst, nil
}

// telephone drops spaces and hyphens (RFC 4518 §2.6.3) and folds case.
func telephone(dst, v []byte) ([]byte, error) {
	for _, c := range v {
		if c != ' ' && c != '-' {
			dst = foldASCII(dst, []byte{c})
		}
	}
	return dst, nil
}

// caseIgnoreList prepares each line of a postal address; the lines stay apart by '$', which RFC 4517
// §3.3.28 writes as \24 inside of a line.
func caseIgnoreList(dst, v []byte) ([]byte, error) {
	for {
		line, rest, more := cutByte(v, '$')
		var err error
		if dst, err = prepare(dst, line, true); err != nil || !more {
			return dst, err
		}
		dst, v = append(dst, '$'), rest
	}
}
