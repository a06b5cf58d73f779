package mbox

import (
	"encoding/base64"
	"strings"
	"unicode/utf16"
	"unicode/utf8"
)

// Modified UTF-7, in which Maildir++ writes folder names (RFC 3501 §5.1.3):
//
//	name   = *(direct / "&-" / "&" base64 "-")     direct: %x20-7e but "&"; base64: UTF-16BE, "," for "/", no padding

var utf7Base64 = base64.NewEncoding("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+,").WithPadding(base64.NoPadding)

// DecodeUTF7 decodes a name. What is no modified UTF-7 is returned as it is, with bytes that are no UTF-8
// replaced: some programs write UTF-8.
func DecodeUTF7(s string) string {
	if strings.IndexByte(s, '&') < 0 {
		return strings.ToValidUTF8(s, "\ufffd")
	}
	var out strings.Builder
	for rest := s; rest != ""; {
		i := strings.IndexByte(rest, '&')
		if i < 0 {
			out.WriteString(rest)
			break
		}
		out.WriteString(rest[:i])
		coded, after, ok := strings.Cut(rest[i+1:], "-")
		if !ok {
			return strings.ToValidUTF8(s, "\ufffd")
		}
		if coded == "" {
			out.WriteByte('&')
		} else {
			b, err := utf7Base64.DecodeString(coded)
			if err != nil || len(b)%2 != 0 {
				return strings.ToValidUTF8(s, "\ufffd")
			}
			units := make([]uint16, len(b)/2)
			for i := range units {
				units[i] = uint16(b[2*i])<<8 | uint16(b[2*i+1])
			}
			out.WriteString(string(utf16.Decode(units)))
		}
		rest = after
	}
	return strings.ToValidUTF8(out.String(), "\ufffd")
}

// EncodeUTF7 encodes a name in UTF-8.
func EncodeUTF7(s string) string {
	var out strings.Builder
	for s != "" {
		i := 0
		for i < len(s) && s[i] >= ' ' && s[i] <= '~' && s[i] != '&' {
			i++
		}
		out.WriteString(s[:i])
		if s = s[i:]; s == "" {
			break
		}
		if s[0] == '&' {
			out.WriteString("&-")
			s = s[1:]
			continue
		}
		var units []uint16
		for s != "" && (s[0] < ' ' || s[0] > '~') {
			r, size := utf8.DecodeRuneInString(s)
			units = utf16.AppendRune(units, r)
			s = s[size:]
		}
		b := make([]byte, 0, 2*len(units))
		for _, u := range units {
			b = append(b, byte(u>>8), byte(u))
		}
		out.WriteByte('&')
		out.WriteString(utf7Base64.EncodeToString(b))
		out.WriteByte('-')
	}
	return out.String()
}
