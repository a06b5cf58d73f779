package message

import (
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"
)

// Casemap is the comparison form of i;unicode-casemap (RFC 5051 §2) of a UTF-8 string: every
// character in title case, then decomposed. SEARCH, SORT and THREAD compare this form
// (I18NLEVEL=1, RFC 5255 §4.2). Octets that are no UTF-8 become U+FFFD.
func Casemap(s string) string {
	for i := 0; i < len(s); i++ {
		if c := s[i]; c >= utf8.RuneSelf || 'a' <= c && c <= 'z' {
			return string(appendCasemap(make([]byte, 0, len(s)+8), []byte(s)))
		}
	}
	return s
}

// appendCasemap appends the comparison form of src, which ends with a whole character.
func appendCasemap(dst, src []byte) []byte {
	for len(src) > 0 {
		i := 0
		for i < len(src) && src[i] < utf8.RuneSelf {
			i++
		}
		at := len(dst)
		dst = append(dst, src[:i]...)
		upperASCII(dst[at:])
		if src = src[i:]; len(src) == 0 {
			break
		}
		r, size := utf8.DecodeRune(src)
		src = src[size:]
		dst = appendRune(dst, r)
	}
	return dst
}

func appendRune(dst []byte, r rune) []byte {
	r = unicode.ToTitle(r)
	var b [utf8.UTFMax]byte
	n := utf8.EncodeRune(b[:], r)
	if props := norm.NFKD.Properties(b[:n]); props.Decomposition() == nil && !isHangul(r) {
		return append(dst, b[:n]...)
	}
	return norm.NFKD.Append(dst, b[:n]...)
}

// isHangul says whether r is a syllable that is decomposed by rule and not by table.
func isHangul(r rune) bool { return 0xAC00 <= r && r <= 0xD7A3 }

func upperASCII(b []byte) {
	for i, c := range b {
		if 'a' <= c && c <= 'z' {
			b[i] = c - ('a' - 'A')
		}
	}
}
