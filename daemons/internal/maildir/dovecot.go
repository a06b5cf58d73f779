package maildir

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

const (
	uidList      = "dovecot-uidlist"
	keywordsFile = "dovecot-keywords"
)

// ErrFormat: a list of the other server does not parse.
var ErrFormat = errors.New("not in the expected format")

// uidEntry is a line of a list of UIDs.
type uidEntry struct {
	uid  uint32
	base string
	uidl string
}

// uidHead is its first line.
type uidHead struct{ validity, next uint32 }

// parseUIDList reads dovecot-uidlist.
//
//	v3    = "3" *(SP field) LF *( uid *(SP field) SP ":" name LF )      header: V<uidvalidity> N<next uid> G<guid>
//	v1    = "1" SP uidvalidity SP next LF *( uid SP name LF )           which is courierimapuiddb, too
//	field = letter value                                                P<POP3 uidl> W<size with CRLF> S<size> O<POP3 order> G<guid> ...
//
// A name may end in letters (":2,S"), which count for nothing. Lines are appended while the server runs, so the last one without
// an LF may be half a line: it is left out in version 3. A UID of 0, or above 4294967294, ends it all with ErrFormat.
func parseUIDList(b []byte) (h uidHead, out []uidEntry, err error) {
	line, rest, _ := bytes.Cut(b, []byte{'\n'})
	fields := strings.Fields(string(line))
	bad := func(n int, what string) (uidHead, []uidEntry, error) {
		return uidHead{}, nil, fmt.Errorf("line %d: %s: %w", n, what, ErrFormat)
	}
	if len(fields) == 0 {
		return bad(1, "empty")
	}
	number := func(s string) (uint32, bool) {
		n, err := strconv.ParseUint(s, 10, 32)
		return uint32(n), err == nil
	}
	var ok1, ok2 bool
	v3 := fields[0] == "3"
	switch {
	case v3:
		for _, f := range fields[1:] {
			switch f[0] {
			case 'V':
				h.validity, ok1 = number(f[1:])
			case 'N':
				h.next, ok2 = number(f[1:])
			}
		}
	case fields[0] == "1" && len(fields) == 3:
		h.validity, ok1 = number(fields[1])
		h.next, ok2 = number(fields[2])
	default:
		return bad(1, fmt.Sprintf("version %.20q", fields[0]))
	}
	if !ok1 || !ok2 || h.validity == 0 {
		return bad(1, "no UIDVALIDITY or next UID")
	}
	for n := 2; len(rest) > 0; n++ {
		var ended bool
		line, rest, ended = bytes.Cut(rest, []byte{'\n'})
		if len(line) == 0 {
			continue
		}
		if v3 && !ended {
			break
		}
		digits, text, _ := strings.Cut(string(line), " ")
		uid, ok := number(digits)
		if !ok || uid == 0 || uid == 1<<32-1 {
			return bad(n, fmt.Sprintf("UID %.20q", digits))
		}
		e := uidEntry{uid: uid}
		if v3 {
			for !strings.HasPrefix(text, ":") {
				field, after, more := strings.Cut(text, " ")
				if !more {
					return bad(n, "no file name")
				}
				if v, ok := strings.CutPrefix(field, "P"); ok {
					e.uidl = v
				}
				text = after
			}
			text = text[1:]
		}
		if e.base, _, _ = strings.Cut(text, ":"); e.base == "" || strings.Contains(e.base, "/") {
			return bad(n, "no file name")
		}
		h.next = max(h.next, uid+1)
		out = append(out, e)
	}
	return h, out, nil
}

// parseKeywords reads dovecot-keywords: *( index SP name LF ), index 0 for the letter a, 25 for z.
func parseKeywords(b []byte) (out [26]string) {
	for line := range strings.SplitSeq(string(b), "\n") {
		digits, name, ok := strings.Cut(line, " ")
		if n, err := strconv.ParseUint(digits, 10, 8); ok && err == nil && n < 26 && validKeyword(name) {
			out[n] = name
		}
	}
	return out
}

// validKeyword: an IMAP atom (RFC 9051 §9), of a sensible length.
func validKeyword(s string) bool {
	if s == "" || len(s) > 255 {
		return false
	}
	for i := 0; i < len(s); i++ {
		if c := s[i]; c <= ' ' || c >= 0x7f || strings.IndexByte(`(){%*"\]`, c) >= 0 {
			return false
		}
	}
	return true
}

// parseDovecotSubscriptions reads subscriptions.
//
//	v2 = "V" TAB "2" LF LF *( level *(TAB level) LF )
//	v1 = *( name LF )                                    levels separated as in the names of folders
//
// In a level, "\001t" and the like stand for TAB, LF and \001.
func parseDovecotSubscriptions(b []byte) (out [][]string) {
	text := string(b)
	rest, v2 := strings.CutPrefix(text, "V\t2\n")
	if !v2 {
		rest = text
	}
	unescape := strings.NewReplacer("\x011", "\x01", "\x01t", "\t", "\x01r", "\r", "\x01n", "\n", "\x010", "\x00")
	for line := range strings.SplitSeq(rest, "\n") {
		switch {
		case line == "":
		case v2:
			levels := strings.Split(line, "\t")
			for i := range levels {
				levels[i] = unescape.Replace(levels[i])
			}
			out = append(out, levels)
		default:
			out = append(out, []string{strings.ReplaceAll(line, ".", "/")})
		}
	}
	return out
}

// readDovecot reads the lists of a folder.
func (f *Folder) readDovecot(m *Mailbox) ([]uidEntry, func(string, string) []string, error) {
	path := filepath.Join(f.control, uidList)
	b, err := readFile(path, maxList)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, nil, err
	}
	var uids []uidEntry
	if err == nil {
		h, list, err := parseUIDList(b)
		if err != nil {
			return nil, nil, fmt.Errorf("%s: %w", path, err)
		}
		m.UIDValidity, m.UIDNext, uids = h.validity, h.next, list
	}
	path = filepath.Join(f.control, keywordsFile)
	b, err = readFile(path, 1<<20)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, nil, err
	}
	names := parseKeywords(b)
	return uids, func(_, letters string) (out []string) {
		for i := 0; i < len(letters); i++ {
			if c := letters[i]; c >= 'a' && c <= 'z' && names[c-'a'] != "" && !slices.Contains(out, names[c-'a']) {
				out = append(out, names[c-'a'])
			}
		}
		return out
	}, nil
}

// FormatUIDL writes a POP3 unique-id by Dovecot's setting pop3_uidl_format.
//
//	format   = *( text / "%" [ "0" width ] *modifier variable )      modifier: X, x hexadecimal; L, U: case
//	variable = "u" UID / "v" UIDVALIDITY / "f" file name / "%"
//
// ErrFormat for what cannot be known from the files (%m, %g).
func FormatUIDL(format string, validity uint32, m *Message) (string, error) {
	var b strings.Builder
	for i := 0; i < len(format); i++ {
		if format[i] != '%' {
			b.WriteByte(format[i])
			continue
		}
		i++
		start := i
		for i < len(format) && format[i] >= '0' && format[i] <= '9' {
			i++
		}
		width, zero := 0, strings.HasPrefix(format[start:i], "0")
		if i > start {
			var err error
			if width, err = strconv.Atoi(format[start:i]); err != nil || width > 64 {
				return "", fmt.Errorf("unique-id format %q: %w", format, ErrFormat)
			}
		}
		base, lower, capital := 10, false, false
		for ; i < len(format) && strings.IndexByte("XxLU", format[i]) >= 0; i++ {
			switch format[i] {
			case 'X', 'x':
				base = 16
			case 'L':
				lower = true
			case 'U':
				capital = true
			}
		}
		if i == len(format) {
			return "", fmt.Errorf("unique-id format %q: %w", format, ErrFormat)
		}
		var v string
		switch format[i] {
		case 'u':
			v = strconv.FormatUint(uint64(m.UID), base)
		case 'v':
			v = strconv.FormatUint(uint64(validity), base)
		case 'f':
			v = m.Base
		case '%':
			v = "%"
		default:
			return "", fmt.Errorf("unique-id format %q: %%%c: %w", format, format[i], ErrFormat)
		}
		if lower {
			v = strings.ToLower(v)
		}
		if capital {
			v = strings.ToUpper(v)
		}
		for n := len(v); zero && n < width; n++ {
			b.WriteByte('0')
		}
		b.WriteString(v)
	}
	return b.String(), nil
}

// DefaultUIDL is Dovecot's own pop3_uidl_format.
const DefaultUIDL = "%08Xu%08Xv"
