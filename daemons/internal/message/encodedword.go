package message

import (
	"strings"
	"unicode/utf8"
)

// Encoded words in header fields.
//
//	encoded-word = "=?" charset ["*" language] "?" encoding "?" text "?="      RFC 2047 §2, RFC 2231 §5
//
// Blanks between two encoded words are left out (RFC 2047 §6.2). Neighbours of the same charset and
// encoding are decoded together, since many programs cut characters in two. A word may stand anywhere,
// also where the standard forbids it (inside quotes, next to other text): this is what occurs.

const maxWord = 8 << 10 // RFC 2047 §2 allows 75

// DecodeHeader turns the value of a header field into UTF-8: unfolds it, decodes RFC 2047
// words, and takes bare 8-bit text for UTF-8 or else for Windows-1252.
func DecodeHeader(value string) string {
	if strings.ContainsAny(value, "\r\n") {
		value = unfold(value)
	}
	if !strings.Contains(value, "=?") {
		if !utf8.ValidString(value) {
			return decodeCharset("", []byte(value))
		}
		return value
	}
	var out strings.Builder
	var run []byte // bytes of the encoded words just before the present place
	var charset string
	flush := func() {
		if len(run) > 0 {
			out.WriteString(decodeCharset(charset, run))
			run = run[:0]
		}
	}
	after := false
	for value != "" {
		i := strings.Index(value, "=?")
		if i < 0 {
			break
		}
		cs, bytes, n := decodeWord(value[i:], nil)
		if n == 0 {
			flush()
			out.WriteString(decodeCharset("", []byte(value[:i+2])))
			value, after = value[i+2:], false
			continue
		}
		between := value[:i]
		if !after || strings.Trim(between, " \t") != "" {
			flush()
			out.WriteString(decodeCharset("", []byte(between)))
		} else if cs != charset {
			flush()
		}
		charset, run, after = cs, append(run, bytes...), true
		value = value[i+n:]
	}
	flush()
	out.WriteString(decodeCharset("", []byte(value)))
	return out.String()
}

// decodeWord decodes the encoded word at the beginning of s to the bytes of its charset. n is its
// length; 0 where there is none.
func decodeWord(s string, buf []byte) (charset string, text []byte, n int) {
	rest := s[2:]
	charset, rest, ok := strings.Cut(rest, "?")
	if !ok || len(rest) < 2 || rest[1] != '?' || charset == "" || len(charset) > 64 {
		return "", nil, 0
	}
	encoding := rest[0] | 0x20
	rest = rest[2:]
	end := strings.Index(rest[:min(len(rest), maxWord)], "?=")
	if end < 0 || strings.ContainsAny(charset, " \t") {
		return "", nil, 0
	}
	charset, _, _ = strings.Cut(charset, "*")
	n = len(s) - len(rest) + end + 2
	switch encoding {
	case 'q':
		return strings.ToLower(charset), decodeQ(buf, rest[:end]), n
	case 'b':
		var g base64Group
		text = g.flush(g.decode(buf, []byte(rest[:end])))
		return strings.ToLower(charset), text, n
	}
	return "", nil, 0
}

// decodeQ decodes the Q encoding of RFC 2047 §4.2.
func decodeQ(out []byte, s string) []byte {
	for i := 0; i < len(s); i++ {
		switch c := s[i]; c {
		case '_':
			out = append(out, ' ')
		case '=':
			if i+2 < len(s) {
				if hi, lo := unhex(s[i+1]), unhex(s[i+2]); hi >= 0 && lo >= 0 {
					out = append(out, byte(hi<<4|lo))
					i += 2
					continue
				}
			}
			out = append(out, c)
		default:
			out = append(out, c)
		}
	}
	return out
}

// unfold removes the line breaks of a value: RFC 5322 §2.2.3.
func unfold(s string) string {
	return strings.NewReplacer("\r\n", "", "\n", "", "\r", " ").Replace(s)
}
