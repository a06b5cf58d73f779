package imapwire

import (
	"encoding/base64"
	"strings"
	"unicode/utf16"
	"unicode/utf8"
)

// Mailbox names on the wire:
//
//	mailbox = "INBOX" / astring
//
// Without ENABLE the name is modified UTF-7 (RFC 3501 §5.1.3): printable ASCII stands for itself,
// "&-" for "&", and everything else is UTF-16 in a base64 with "," for "/", between "&" and "-".
// After ENABLE IMAP4rev2 or UTF8=ACCEPT it is UTF-8 (RFC 9051 §5.1, RFC 6855 §3).

var modifiedBase64 = base64.NewEncoding("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+,").
	WithPadding(base64.NoPadding).Strict()

// DecodeUTF7 turns modified UTF-7 into UTF-8. It accepts the one encoding that the RFC demands for
// each text: no printable ASCII inside base64, no surplus shifts.
func DecodeUTF7(s string) (string, error) {
	if strings.IndexByte(s, '&') < 0 {
		for i := 0; i < len(s); i++ {
			if s[i] < 0x20 || s[i] >= 0x7f {
				return "", syntaxf("mailbox name has bytes that are not printable ASCII")
			}
		}
		return s, nil
	}
	var out strings.Builder
	afterShift := false
	for i := 0; i < len(s); i++ {
		c := s[i]
		if c < 0x20 || c >= 0x7f {
			return "", syntaxf("mailbox name has bytes that are not printable ASCII")
		}
		if c != '&' {
			out.WriteByte(c)
			afterShift = false
			continue
		}
		end := strings.IndexByte(s[i:], '-')
		if end < 0 {
			return "", syntaxf("mailbox name is not modified UTF-7: '&' without '-'")
		}
		coded := s[i+1 : i+end]
		i += end
		if coded == "" {
			out.WriteByte('&')
			afterShift = false
			continue
		}
		if afterShift {
			return "", syntaxf("mailbox name is not modified UTF-7: two shifts in a row")
		}
		afterShift = true
		raw, err := modifiedBase64.DecodeString(coded)
		if err != nil || len(raw)%2 != 0 || strings.ContainsAny(coded, "\r\n") { // which the decoder would skip
			return "", syntaxf("mailbox name is not modified UTF-7: malformed base64")
		}
		for k := 0; k < len(raw); k += 2 {
			r := rune(raw[k])<<8 | rune(raw[k+1])
			if utf16.IsSurrogate(r) {
				if k+3 >= len(raw) {
					return "", syntaxf("mailbox name is not modified UTF-7: half a surrogate pair")
				}
				r = utf16.DecodeRune(r, rune(raw[k+2])<<8|rune(raw[k+3]))
				k += 2
				if r == utf8.RuneError {
					return "", syntaxf("mailbox name is not modified UTF-7: half a surrogate pair")
				}
			}
			if 0x20 <= r && r < 0x7f {
				return "", syntaxf("mailbox name is not modified UTF-7: ASCII inside base64")
			}
			out.WriteRune(r)
		}
	}
	return out.String(), nil
}

// AppendUTF7 appends the modified UTF-7 of the UTF-8 string s.
func AppendUTF7(b []byte, s string) []byte {
	for i := 0; i < len(s); {
		c := s[i]
		if 0x20 <= c && c < 0x7f {
			b = append(b, c)
			if c == '&' {
				b = append(b, '-')
			}
			i++
			continue
		}
		var raw []byte
		for i < len(s) && (s[i] < 0x20 || s[i] >= 0x7f) {
			r, n := utf8.DecodeRuneInString(s[i:])
			i += n
			if hi, lo := utf16.EncodeRune(r); hi != utf8.RuneError {
				raw = append(raw, byte(hi>>8), byte(hi), byte(lo>>8), byte(lo))
			} else {
				raw = append(raw, byte(r>>8), byte(r))
			}
		}
		b = append(b, '&')
		b = modifiedBase64.AppendEncode(b, raw)
		b = append(b, '-')
	}
	return b
}

// Mailbox takes a mailbox name and returns it in UTF-8, "INBOX" in upper case (also as the first
// level of a deeper name, as servers with a hierarchy below INBOX do).
func (d *Decoder) Mailbox() (string, error) {
	b, err := d.astringBytes()
	if err != nil {
		return "", err
	}
	return d.mailboxName(string(b))
}

func (d *Decoder) mailboxName(raw string) (string, error) {
	name := raw
	if d.utf8 {
		if !utf8.ValidString(raw) {
			return "", syntaxf("mailbox name is not UTF-8")
		}
	} else {
		var err error
		if name, err = DecodeUTF7(raw); err != nil {
			return "", err
		}
	}
	return CanonicalInbox(name), nil
}

// CanonicalInbox spells a first level that is INBOX in any case in upper case.
func CanonicalInbox(name string) string {
	if len(name) >= 5 && strings.EqualFold(name[:5], "INBOX") && (len(name) == 5 || name[5] == '/') {
		return "INBOX" + name[5:]
	}
	return name
}

// ListPattern takes the pattern of LIST and LSUB and returns it in UTF-8.
//
//	list-mailbox = 1*list-char / string
//	list-char    = ATOM-CHAR / "%" / "*" / "]"
func (d *Decoder) ListPattern() (string, error) {
	var raw string
	if c := d.Peek(); c == '"' || d.AtLiteral() {
		s, err := d.String()
		if err != nil {
			return "", err
		}
		raw = s
	} else {
		start := d.pos
		for d.pos < len(d.line) && isListChar(d.line[d.pos]) {
			d.pos++
		}
		if d.pos == start {
			return "", d.wanted("a mailbox pattern")
		}
		raw = string(d.line[start:d.pos])
	}
	return d.mailboxName(raw)
}

// MatchPattern reports whether name matches a LIST pattern: "*" matches anything, "%" anything but
// the hierarchy separator (RFC 9051 §6.3.9). INBOX matches in any case.
//
// It runs in O(len(name) * len(pattern)) whatever the pattern is.
func MatchPattern(pattern, name string, separator byte) bool {
	if len(pattern) >= 5 && strings.EqualFold(pattern[:5], "INBOX") && len(name) >= 5 && strings.EqualFold(name[:5], "INBOX") {
		pattern, name = "INBOX"+pattern[5:], "INBOX"+name[5:]
	}
	// states[i]: pattern[:i] matches what has been read of the name.
	states := make([]bool, len(pattern)+1)
	next := make([]bool, len(pattern)+1)
	states[0] = true
	closure := func(s []bool) {
		for i := 0; i < len(pattern); i++ {
			if s[i] && (pattern[i] == '*' || pattern[i] == '%') {
				s[i+1] = true
			}
		}
	}
	closure(states)
	for k := 0; k < len(name); k++ {
		clear(next)
		for i := 0; i < len(pattern); i++ {
			if !states[i] {
				continue
			}
			switch pattern[i] {
			case '*':
				next[i] = true
			case '%':
				if name[k] != separator {
					next[i] = true
				}
			case name[k]:
				next[i+1] = true
			}
		}
		closure(next)
		states, next = next, states
	}
	return states[len(pattern)]
}
