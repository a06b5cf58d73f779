package dsn

import (
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"
)

func isASCII(s string) bool {
	for i := 0; i < len(s); i++ {
		if s[i] >= utf8.RuneSelf {
			return false
		}
	}
	return true
}

// clean makes a text fit for one line: control characters, line separators and what is not UTF-8 become "?".
func clean(s string) string {
	return strings.Map(func(r rune) rune {
		if r < 0x20 || r >= 0x7f && r <= 0x9f || r == 0x2028 || r == 0x2029 {
			return '?'
		}
		return r
	}, strings.ToValidUTF8(s, "?"))
}

// cut shortens s to at most n octets without breaking a character.
func cut(s string, n int) string {
	if len(s) <= n {
		return s
	}
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n]
}

// text is a value from outside: in a report that goes without SMTPUTF8 in ASCII, and bounded.
func (w *writer) text(s string) string {
	s = cut(clean(s), maxText)
	if w.utf8 {
		return s
	}
	return onlyASCII(s)
}

func (w *writer) ascii(s string) string { return onlyASCII(cut(clean(s), 255)) }

func onlyASCII(s string) string {
	return strings.Map(func(r rune) rune {
		if r >= utf8.RuneSelf {
			return '?'
		}
		return r
	}, s)
}

// address writes an address: as it is, or where that would need SMTPUTF8 and may not, in RFC 6533 §3's encoding:
//
//	utf-8-addr-xtext = 1*( ASCII except "+", "=" and "\" / "\x{" HEXPOINT "}" )
func (w *writer) address(s string) string {
	s = cut(clean(s), 1000)
	if w.utf8 || isASCII(s) {
		return s
	}
	var b strings.Builder
	for _, r := range s {
		if r >= utf8.RuneSelf || r == '\\' || r == '+' || r == '=' {
			fmt.Fprintf(&b, "\\x{%X}", r)
		} else {
			b.WriteRune(r)
		}
	}
	return b.String()
}

// unxtext undoes RFC 3461 §4's encoding; what is not of that form stays as it is.
func unxtext(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '+' && i+2 < len(s) {
			if n, err := strconv.ParseUint(s[i+1:i+3], 16, 8); err == nil {
				b.WriteByte(byte(n))
				i += 2
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}
