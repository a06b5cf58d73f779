package message

import (
	"strconv"
	"strings"
)

// The structured MIME fields, read tolerantly from an unfolded value.
//
//	media-type  = type "/" subtype params                       RFC 2045 §5.1
//	disposition = token params                                  RFC 2183 §2
//	params      = *(";" name "=" (token / quoted-string))
//	name        = attribute ["*" section] ["*"]                 RFC 2231 §7
//
// Comments may stand between any two tokens. What occurs and is not allowed: blanks in an
// unquoted value (read up to the semicolon), a missing semicolon after the type, a quoted string
// without its end.
const maxParams = 200 // of one field; more are left out

// parseMediaType returns empty strings where the value has no type and subtype: RFC 2045 §5.2 has
// the default stand in for it.
func parseMediaType(v string) (typ, subtype string, params []Param) {
	v = skipCFWS(v)
	typ, v = cutToken(v)
	v = skipCFWS(v)
	if typ == "" || v == "" || v[0] != '/' {
		return "", "", nil
	}
	v = skipCFWS(v[1:])
	subtype, v = cutToken(v)
	if subtype == "" {
		return "", "", nil
	}
	return lower(typ), lower(subtype), parseParams(v)
}

func parseEncoding(v string) string {
	token, _ := cutToken(skipCFWS(v))
	if token == "" {
		return "7bit"
	}
	return lower(token)
}

func parseDisposition(v string) *Disposition {
	token, rest := cutToken(skipCFWS(v))
	if token == "" {
		if token, rest = "attachment", v; !strings.Contains(v, "=") {
			return nil
		}
	}
	return &Disposition{Value: lower(token), Params: parseParams(rest)}
}

// parseLanguages reads a list of language tags: RFC 3282.
func parseLanguages(v string) (tags []string) {
	for v = skipCFWS(v); v != "" && len(tags) < maxParams; v = skipCFWS(v) {
		var tag string
		if tag, v = cutToken(v); tag != "" {
			tags = append(tags, tag)
			continue
		}
		v = v[1:]
	}
	return tags
}

// cutToken cuts a token off the beginning of s. Bytes with the high bit set count as part of it.
func cutToken(s string) (token, rest string) {
	i := 0
	for i < len(s) && isTokenByte(s[i]) {
		i++
	}
	return s[:i], s[i:]
}

func isTokenByte(c byte) bool {
	if c <= ' ' || c == 0x7f {
		return false
	}
	switch c {
	case '(', ')', '<', '>', '@', ',', ';', ':', '\\', '"', '/', '[', ']', '?', '=':
		return false
	}
	return true
}

// skipCFWS leaves out blanks and comments, nested ones too (RFC 5322 §3.2.2).
func skipCFWS(s string) string {
	for s != "" {
		switch s[0] {
		case ' ', '\t', '\r', '\n':
			s = s[1:]
		case '(':
			_, s = cutComment(s)
		default:
			return s
		}
	}
	return s
}

// cutComment cuts off a comment, which s begins with. text is what is inside the parentheses.
func cutComment(s string) (text, rest string) {
	depth := 0
	for i := 0; i < len(s); i++ {
		switch s[i] {
		case '\\':
			i++
		case '(':
			depth++
		case ')':
			if depth--; depth == 0 {
				return s[1:i], s[i+1:]
			}
		}
	}
	return s[1:], ""
}

// cutQuoted cuts off a quoted string, which s begins with, and removes its quoting.
func cutQuoted(s string) (text, rest string) {
	for i := 1; i < len(s); i++ {
		switch s[i] {
		case '"':
			return s[1:i], s[i+1:]
		case '\\':
			return cutEscaped(s, i)
		}
	}
	return s[1:], ""
}

// cutEscaped is cutQuoted for a string whose first backslash is at i.
func cutEscaped(s string, i int) (text, rest string) {
	b := append(make([]byte, 0, len(s)), s[1:i]...)
	for ; i < len(s); i++ {
		switch c := s[i]; c {
		case '"':
			return string(b), s[i+1:]
		case '\\':
			if i++; i < len(s) {
				b = append(b, s[i])
			}
		default:
			b = append(b, c)
		}
	}
	return string(b), ""
}

func parseParams(v string) (params []Param) {
	sections := false
	for len(params) < maxParams {
		for v = skipCFWS(v); v != "" && v[0] == ';'; v = skipCFWS(v) {
			v = v[1:]
		}
		if v == "" {
			break
		}
		name, rest := cutToken(v)
		rest = skipCFWS(rest)
		if name == "" || rest == "" || rest[0] != '=' {
			if _, v, _ = strings.Cut(v, ";"); v == "" {
				break
			}
			continue
		}
		var value string
		rest = skipCFWS(rest[1:])
		if rest != "" && rest[0] == '"' {
			value, v = cutQuoted(rest)
		} else {
			value, v = cutUnquoted(rest)
		}
		if params == nil {
			params = make([]Param, 0, 2)
		}
		params = append(params, Param{lower(name), value})
		sections = sections || strings.IndexByte(name, '*') > 0
	}
	if sections {
		params = joinSections(params)
	}
	return params
}

// cutUnquoted cuts off a value up to the semicolon, without a comment that follows it.
func cutUnquoted(s string) (value, rest string) {
	end := strings.IndexByte(s, ';')
	if end < 0 {
		end = len(s)
	}
	value, rest = s[:end], s[end:]
	for i := 1; i < len(value); i++ {
		if value[i] == '(' && (value[i-1] == ' ' || value[i-1] == '\t') {
			value = value[:i]
			break
		}
	}
	return strings.TrimRight(value, " \t"), rest
}

// joinSections puts together the continuations of RFC 2231 §3. IMAP servers are asked to do so
// (§6), and to leave character sets alone. Where one section is in the extended form the
// whole is: bytes of the others that would be read as encoding are encoded.
func joinSections(params []Param) []Param {
	type section struct {
		value    string
		extended bool
	}
	sections := map[string]map[int]section{}
	for _, p := range params {
		if name, n, extended, ok := splitSection(p.Name); ok {
			if sections[name] == nil {
				sections[name] = map[int]section{}
			}
			if _, twice := sections[name][n]; !twice {
				sections[name][n] = section{p.Value, extended}
			}
		}
	}
	out := params[:0]
	for _, p := range params {
		name, _, _, ok := splitSection(p.Name)
		if !ok {
			out = append(out, p)
			continue
		}
		list := sections[name]
		if list == nil {
			continue // joined already
		}
		sections[name] = nil
		var b strings.Builder
		extended := false
		for n := 0; n < len(list); n++ {
			extended = extended || list[n].extended
		}
		if extended && !list[0].extended {
			b.WriteString("''")
		}
		for n := 0; ; n++ {
			s, ok := list[n]
			if !ok {
				break
			}
			if extended && !s.extended {
				writePercent(&b, s.value)
			} else {
				b.WriteString(s.value)
			}
		}
		if extended {
			name += "*"
		}
		if b.Len() > 0 {
			out = append(out, Param{name, b.String()})
		}
	}
	return out
}

// splitSection takes name*n and name*n* apart; ok is false for other names, name* among them.
func splitSection(s string) (name string, n int, extended, ok bool) {
	name, num, found := strings.Cut(s, "*")
	if !found || name == "" || num == "" {
		return "", 0, false, false
	}
	if num[len(num)-1] == '*' {
		num, extended = num[:len(num)-1], true
	}
	n, err := strconv.Atoi(num)
	return name, n, extended, err == nil && n >= 0
}

func writePercent(b *strings.Builder, s string) {
	const hex = "0123456789ABCDEF"
	for i := 0; i < len(s); i++ {
		if c := s[i]; c == '%' || c == '\'' || c == '*' || c >= 0x80 || !isTokenByte(c) {
			b.WriteByte('%')
			b.WriteByte(hex[c>>4])
			b.WriteByte(hex[c&15])
		} else {
			b.WriteByte(c)
		}
	}
}

// decodeExtended decodes a value in the form charset'language'percent-encoded of RFC 2231 §4.
func decodeExtended(v string) string {
	charset, rest, ok := strings.Cut(v, "'")
	if !ok {
		return decodeCharset("", unpercent(v))
	}
	if _, text, ok := strings.Cut(rest, "'"); ok {
		rest = text
	}
	return decodeCharset(charset, unpercent(rest))
}

func unpercent(s string) []byte {
	b := make([]byte, 0, len(s))
	for i := 0; i < len(s); i++ {
		if s[i] == '%' && i+2 < len(s) {
			if hi, lo := unhex(s[i+1]), unhex(s[i+2]); hi >= 0 && lo >= 0 {
				b = append(b, byte(hi<<4|lo))
				i += 2
				continue
			}
		}
		b = append(b, s[i])
	}
	return b
}

func unhex(c byte) int {
	switch {
	case '0' <= c && c <= '9':
		return int(c - '0')
	case 'A' <= c && c <= 'F':
		return int(c-'A') + 10
	case 'a' <= c && c <= 'f':
		return int(c-'a') + 10
	}
	return -1
}
