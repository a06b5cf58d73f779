package mailstore

import (
	"fmt"
	"strings"
)

// A record is the target of a symlink in a log.
//
//	record = nonce SP ( ops / "@" size "." crc )
//	ops    = op *( "|" op )
//	op     = letter [ arguments ]     arguments never hold "|", NUL or LF
//
// The second form says that the ops, size bytes with CRC32C crc (both base 36), lie in the file
// s<N>.<nonce> of the same segment, where N is the record's number: a spilled record.
//
// A reader passes over an op whose letter is in lower case and unknown to it, but keeps its text in
// the snapshots it writes; an unknown letter in upper case means that the log was written by a newer major
// version, and the whole log is refused. All ops of a record take effect at once, in order.
type record struct {
	nonce nonce
	body  string // ops, or empty when spilled
	spill bool
	size  uint64
	crc   uint32
}

func parseRecord(s string) (record, error) {
	var r record
	head, body, ok := strings.Cut(s, " ")
	if !ok {
		return r, fmt.Errorf("record %.60q: no ops: %w", s, ErrCorrupt)
	}
	if r.nonce, ok = parseNonce(head); !ok {
		return r, fmt.Errorf("record %.60q: bad nonce: %w", s, ErrCorrupt)
	}
	if !strings.HasPrefix(body, "@") {
		if body == "" {
			return r, fmt.Errorf("record %.60q: no ops: %w", s, ErrCorrupt)
		}
		r.body = body
		return r, nil
	}
	size, crc, _ := strings.Cut(body[1:], ".")
	n, ok1 := parse36(size)
	c, ok2 := parse36(crc)
	if !ok1 || !ok2 || n == 0 || n > maxSpill || c > 1<<32-1 {
		return r, fmt.Errorf("record %.60q: bad reference to a file: %w", s, ErrCorrupt)
	}
	r.spill, r.size, r.crc = true, n, uint32(c)
	return r, nil
}

// eachOp calls f for the ops of a body in order.
func eachOp(body string, f func(op string) error) error {
	for {
		op, rest, more := strings.Cut(body, "|")
		if op == "" {
			return fmt.Errorf("empty op: %w", ErrCorrupt)
		}
		if err := f(op); err != nil {
			return err
		}
		if !more {
			return nil
		}
		body = rest
	}
}

// unknownOp decides about an op that this version does not know: pass over it, or refuse the log.
func unknownOp(op string) (skip bool, err error) {
	switch c := op[0]; {
	case c >= 'a' && c <= 'z':
		return true, nil
	case c >= 'A' && c <= 'Z':
		return false, fmt.Errorf("op %.20q: %w", op, ErrNewerFormat)
	}
	return false, fmt.Errorf("op %.20q: %w", op, ErrCorrupt)
}

// Text in records and snapshots (names, keywords, foreign ids) is escaped: a byte that is a control, a
// space, DEL or one of  % | ; , = @  is written as "%" and two upper-case hex digits. All else, UTF-8
// included, stands for itself.
func mustEscape(c byte) bool {
	switch c {
	case ' ', '%', '|', ';', ',', '=', '@', 0x7f:
		return true
	}
	return c < ' '
}

const upperHex = "0123456789ABCDEF"

func appendEscaped(b []byte, s string) []byte {
	for i := 0; i < len(s); i++ {
		if c := s[i]; mustEscape(c) {
			b = append(b, '%', upperHex[c>>4], upperHex[c&15])
		} else {
			b = append(b, c)
		}
	}
	return b
}

// unescape accepts exactly what appendEscaped writes.
func unescape(s string) (string, bool) {
	plain := true
	for i := 0; i < len(s); i++ {
		if mustEscape(s[i]) {
			if s[i] != '%' {
				return "", false
			}
			plain = false
		}
	}
	if plain {
		return s, true
	}
	b := make([]byte, 0, len(s))
	for i := 0; i < len(s); i++ {
		c := s[i]
		if c == '%' {
			if i+2 >= len(s) {
				return "", false
			}
			h, l := strings.IndexByte(upperHex, s[i+1]), strings.IndexByte(upperHex, s[i+2])
			if h < 0 || l < 0 || !mustEscape(byte(h<<4|l)) {
				return "", false
			}
			c = byte(h<<4 | l)
			i += 2
		}
		b = append(b, c)
	}
	return string(b), true
}
