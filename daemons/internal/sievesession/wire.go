package sievesession

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"unicode/utf8"
)

// Bounds of the wire.
const (
	maxQuoted  = 1024 // RFC 5804 §4
	maxAtom    = 64
	maxArgs    = 8
	maxDiscard = 32 << 20 // of literals that are too large to be taken
)

// badSyntax is a command that cannot be read; the rest of its line has been thrown away.
type badSyntax string

func (b badSyntax) Error() string { return string(b) }

// errOver ends a session without a further answer.
var errOver = errors.New("session over")

// command is a line of a client with its literals.
type command struct {
	name string // upper case
	args []string
}

// readCommand reads one command. literal is the largest literal that is taken. Errors: badSyntax, errOver (there is no
// telling where the next command begins), and those of the connection.
func readCommand(r *bufio.Reader, literal int64) (command, error) {
	var c command
	name, err := readAtom(r)
	if err != nil {
		return c, err
	}
	c.name = strings.ToUpper(name)
	for {
		b, err := r.ReadByte()
		if err != nil {
			return c, err
		}
		switch {
		case b == '\n':
			return c, nil
		case b == '\r':
			if b, err = r.ReadByte(); err != nil {
				return c, err
			}
			if b != '\n' {
				return c, discard(r, b, "a bare CR")
			}
			return c, nil
		case b != ' ':
			return c, discard(r, b, "expected a blank or the end of the line")
		}
		if len(c.args) == maxArgs {
			return c, discard(r, ' ', "too many arguments")
		}
		arg, err := readArgument(r, literal)
		if err != nil {
			return c, err
		}
		c.args = append(c.args, arg)
	}
}

func readAtom(r *bufio.Reader) (string, error) {
	var atom []byte
	for {
		b, err := r.ReadByte()
		if err != nil {
			return "", err
		}
		switch {
		case b == ' ' || b == '\r' || b == '\n':
			if len(atom) == 0 {
				if b == '\n' {
					return "", badSyntax("an empty line")
				}
				if b == '\r' {
					continue
				}
				return "", discard(r, b, "a command begins with its name")
			}
			return string(atom), r.UnreadByte()
		case b <= ' ' || b >= 0x7f || strings.IndexByte(`(){}"\`, b) >= 0:
			return "", discard(r, b, "the name of a command holds a character that it cannot")
		case len(atom) == maxAtom:
			return "", discard(r, b, "the name of a command is too long")
		}
		atom = append(atom, b)
	}
}

// readArgument reads a string or a number.
func readArgument(r *bufio.Reader, literal int64) (string, error) {
	b, err := r.ReadByte()
	if err != nil {
		return "", err
	}
	switch {
	case b == '"':
		return readQuoted(r)
	case b == '{':
		return readLiteral(r, literal)
	case b >= '0' && b <= '9':
		number := []byte{b}
		for {
			if b, err = r.ReadByte(); err != nil {
				return "", err
			}
			if b < '0' || b > '9' {
				return string(number), r.UnreadByte()
			}
			if number = append(number, b); len(number) > 10 {
				return "", discard(r, b, "the number is too large")
			}
		}
	}
	return "", discard(r, b, "expected a string or a number")
}

func readQuoted(r *bufio.Reader) (string, error) {
	var s []byte
	for {
		b, err := r.ReadByte()
		if err != nil {
			return "", err
		}
		switch {
		case b == '"':
			if !utf8.Valid(s) {
				return "", discard(r, ' ', "a string is not valid UTF-8")
			}
			return string(s), nil
		case b == '\\':
			if b, err = r.ReadByte(); err != nil {
				return "", err
			}
			if b != '"' && b != '\\' {
				return "", discard(r, b, "a backslash stands before a quotation mark or a backslash only")
			}
		case b == 0 || b == '\r' || b == '\n':
			return "", discard(r, b, "a quoted string cannot hold line breaks and NULs")
		}
		if len(s) == maxQuoted {
			return "", discard(r, b, "a quoted string is too long: send a literal")
		}
		s = append(s, b)
	}
}

// readLiteral reads what follows "{". A literal that is too large is thrown away with the rest of the command.
func readLiteral(r *bufio.Reader, limit int64) (string, error) {
	head := make([]byte, 0, 16)
	for {
		b, err := r.ReadByte()
		if err != nil {
			return "", err
		}
		if b == '\n' {
			break
		}
		if head = append(head, b); len(head) > 14 {
			return "", errOver
		}
	}
	text, ok := strings.CutSuffix(strings.TrimSuffix(string(head), "\r"), "+}")
	n, err := strconv.ParseInt(text, 10, 64)
	if !ok || err != nil || n < 0 || text[0] < '0' || text[0] > '9' {
		return "", errOver // what follows could be the literal or a command
	}
	if n > limit {
		if n > maxDiscard {
			return "", errOver
		}
		if _, err := io.CopyN(io.Discard, r, n); err != nil {
			return "", err
		}
		return "", discard(r, ' ', fmt.Sprintf("the literal is larger than %d bytes", limit))
	}
	buf := make([]byte, n)
	if _, err := io.ReadFull(r, buf); err != nil {
		return "", err
	}
	return string(buf), nil
}

// discard throws away the rest of a command, b being the last byte that was read of it, literals included.
func discard(r *bufio.Reader, b byte, why string) error {
	var tail [16]byte // the end of the line: a literal may follow it
	n := 0
	for total := 0; b != '\n'; total++ {
		if total > maxDiscard {
			return errOver
		}
		if n == len(tail) {
			n = copy(tail[:], tail[1:])
		}
		tail[n] = b
		n++
		var err error
		if b, err = r.ReadByte(); err != nil {
			return err
		}
	}
	line := strings.TrimSuffix(string(tail[:n]), "\r")
	if i := strings.LastIndexByte(line, '{'); i >= 0 && strings.HasSuffix(line, "+}") {
		size, err := strconv.ParseInt(line[i+1:len(line)-2], 10, 64)
		if err != nil || size < 0 || size > maxDiscard {
			return errOver
		}
		if _, err := io.CopyN(io.Discard, r, size); err != nil {
			return err
		}
		return discard(r, ' ', why)
	}
	return badSyntax(why)
}

// appendString writes a string, as a literal where it cannot be quoted. The server's literals have no plus.
func appendString(b []byte, s string) []byte {
	if len(s) > maxQuoted || strings.ContainsAny(s, "\r\n\x00") || !utf8.ValidString(s) {
		b = append(b, '{')
		b = strconv.AppendInt(b, int64(len(s)), 10)
		b = append(b, "}\r\n"...)
		return append(b, s...)
	}
	b = append(b, '"')
	for i := range len(s) {
		if s[i] == '"' || s[i] == '\\' {
			b = append(b, '\\')
		}
		b = append(b, s[i])
	}
	return append(b, '"')
}
