// Package smtpreply reads what servers of SMTP and LMTP answer, for clients of both:
//
//	reply = *( code "-" [text] CRLF ) code [ SP text ] CRLF     ; RFC 5321 §4.2, the same code in each line
//
// A reply is bounded in the length and the number of its lines. What a code means, and what kind of error it becomes, is the
// client's business and left out on purpose.
package smtpreply

import (
	"bufio"
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// MaxLine is the length of a line, in bytes, that a reader for Read must hold.
const MaxLine = 4096

const maxLines = 128

// ErrMalformed is a reply that makes no sense, or has no end.
var ErrMalformed = errors.New("the reply makes no sense")

// Read reads one reply: its code, 200 to 599, and the text of each of its lines. The reader's buffer is of MaxLine bytes.
// Errors: ErrMalformed, or the reader's.
func Read(r *bufio.Reader) (code int, lines []string, err error) {
	for len(lines) < maxLines {
		raw, err := r.ReadSlice('\n')
		if err != nil {
			if errors.Is(err, bufio.ErrBufferFull) {
				err = ErrMalformed
			}
			return 0, nil, err
		}
		line := strings.TrimRight(string(raw), "\r\n")
		if len(line) < 3 || len(line) > 3 && line[3] != ' ' && line[3] != '-' {
			return 0, nil, fmt.Errorf("%w: %q", ErrMalformed, Clean(line, 100))
		}
		n, err := strconv.Atoi(line[:3])
		if err != nil || n < 200 || n > 599 || code != 0 && n != code {
			return 0, nil, fmt.Errorf("%w: %q", ErrMalformed, Clean(line, 100))
		}
		code = n
		text := ""
		if len(line) > 4 {
			text = line[4:]
		}
		lines = append(lines, text)
		if len(line) == 3 || line[3] == ' ' {
			return code, lines, nil
		}
	}
	return 0, nil, ErrMalformed
}

// Clean makes a server's words fit for a reply, a log or a report of ours: valid UTF-8 without control characters, at most
// limit bytes.
func Clean(s string, limit int) string {
	s = strings.Map(func(r rune) rune {
		if r < 0x20 || r >= 0x7f && r <= 0x9f {
			return '?'
		}
		return r
	}, strings.ToValidUTF8(s, "?"))
	if len(s) > limit {
		s = strings.ToValidUTF8(s[:limit], "")
	}
	return strings.TrimSpace(s)
}
