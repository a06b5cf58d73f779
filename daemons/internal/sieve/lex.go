package sieve

import (
	"bytes"
	"fmt"
	"math"
	"strings"
	"unicode/utf8"
)

// pos is a place in a script.
type pos struct{ line, col int }

type tokenKind uint8

const (
	tokEOF        tokenKind = iota
	tokIdentifier           // text: lower case
	tokTag                  // text: lower case, without the colon
	tokNumber
	tokString
	tokPunct // text: one of ; { } ( ) [ ] ,
)

type token struct {
	kind tokenKind
	pos  pos
	text string
	num  uint64
}

func (t token) String() string {
	switch t.kind {
	case tokEOF:
		return "the end of the script"
	case tokTag:
		return ":" + t.text
	case tokNumber:
		return fmt.Sprintf("the number %d", t.num)
	case tokString:
		return "a string"
	}
	return fmt.Sprintf("%q", t.text)
}

// lexer splits a script into tokens (RFC 5228 §8.1).
type lexer struct {
	src  []byte
	at   int
	line int
	bol  int // where the line begins
}

func (l *lexer) pos() pos { return pos{l.line, utf8.RuneCount(l.src[l.bol:l.at]) + 1} }

func fail(p pos, format string, args ...any) *Error {
	return &Error{Line: p.line, Column: p.col, Text: fmt.Sprintf(format, args...)}
}

// newline notes that a line begins behind at-1.
func (l *lexer) newline() {
	l.line++
	l.bol = l.at
}

// blank passes over white space and comments.
func (l *lexer) blank() *Error {
	for l.at < len(l.src) {
		switch c := l.src[l.at]; {
		case c == '\n':
			l.at++
			l.newline()
		case c == ' ' || c == '\t' || c == '\r':
			l.at++
		case c == '#':
			l.toEOL()
		case c == '/' && l.at+1 < len(l.src) && l.src[l.at+1] == '*':
			begin := l.pos()
			end := bytes.Index(l.src[l.at+2:], []byte("*/"))
			if end < 0 {
				return fail(begin, "the comment has no end: write */ behind it")
			}
			for stop := l.at + 2 + end + 2; l.at < stop; {
				l.at++
				if l.src[l.at-1] == '\n' {
					l.newline()
				}
			}
		default:
			return nil
		}
	}
	return nil
}

func (l *lexer) toEOL() {
	if i := bytes.IndexByte(l.src[l.at:], '\n'); i >= 0 {
		l.at += i
	} else {
		l.at = len(l.src)
	}
}

func isAlpha(c byte) bool { return c|0x20 >= 'a' && c|0x20 <= 'z' || c == '_' }
func isDigit(c byte) bool { return c >= '0' && c <= '9' }

func (l *lexer) word() string {
	begin := l.at
	for l.at < len(l.src) && (isAlpha(l.src[l.at]) || isDigit(l.src[l.at])) {
		l.at++
	}
	return strings.ToLower(string(l.src[begin:l.at]))
}

// next reads one token. After an error the lexer stands behind what it could not read.
func (l *lexer) next() (token, *Error) {
	if err := l.blank(); err != nil {
		l.at = len(l.src)
		return token{}, err
	}
	p := l.pos()
	if l.at == len(l.src) {
		return token{pos: p}, nil
	}
	switch c := l.src[l.at]; {
	case strings.IndexByte(";{}()[],", c) >= 0:
		l.at++
		return token{kind: tokPunct, pos: p, text: string(c)}, nil
	case c == '"':
		s, err := l.quoted(p)
		return token{kind: tokString, pos: p, text: s}, err
	case c == ':':
		l.at++
		if l.at == len(l.src) || !isAlpha(l.src[l.at]) {
			return token{}, fail(p, "a tag must have a name behind its colon, as in :is")
		}
		return token{kind: tokTag, pos: p, text: l.word()}, nil
	case isDigit(c):
		return l.number(p)
	case isAlpha(c):
		w := l.word()
		if w == "text" && l.at < len(l.src) && l.src[l.at] == ':' {
			l.at++
			s, err := l.multiline(p)
			return token{kind: tokString, pos: p, text: s}, err
		}
		return token{kind: tokIdentifier, pos: p, text: w}, nil
	default:
		r, n := utf8.DecodeRune(l.src[l.at:])
		l.at += n
		return token{}, fail(p, "%q cannot stand here", r)
	}
}

func (l *lexer) number(p pos) (token, *Error) {
	var n uint64
	for ; l.at < len(l.src) && isDigit(l.src[l.at]); l.at++ {
		if n = n*10 + uint64(l.src[l.at]-'0'); n > math.MaxInt64 {
			return token{}, fail(p, "the number is too large")
		}
	}
	if l.at < len(l.src) {
		shift := 0
		switch l.src[l.at] | 0x20 {
		case 'k':
			shift = 10
		case 'm':
			shift = 20
		case 'g':
			shift = 30
		}
		if shift > 0 {
			l.at++
			if n > math.MaxInt64>>shift {
				return token{}, fail(p, "the number is too large")
			}
			n <<= shift
		}
		if l.at < len(l.src) && (isAlpha(l.src[l.at]) || isDigit(l.src[l.at])) {
			l.word()
			return token{}, fail(p, "a number may be followed by K, M or G only")
		}
	}
	return token{kind: tokNumber, pos: p, num: n}, nil
}

// quoted reads a quoted string. Line breaks in it become CRLF.
func (l *lexer) quoted(p pos) (string, *Error) {
	var b strings.Builder
	for l.at++; l.at < len(l.src); l.at++ {
		switch c := l.src[l.at]; c {
		case '"':
			l.at++
			return l.checked(p, b.String())
		case '\\':
			if l.at+1 < len(l.src) && l.src[l.at+1] != '\n' && l.src[l.at+1] != '\r' {
				l.at++
				b.WriteByte(l.src[l.at])
			}
		case '\r':
			if l.at+1 == len(l.src) || l.src[l.at+1] != '\n' {
				b.WriteByte(' ') // a bare CR has no place in mail
			}
		case '\n':
			b.WriteString("\r\n")
			l.line++
			l.bol = l.at + 1
		default:
			b.WriteByte(c)
		}
	}
	return "", fail(p, "the string has no end: write a closing quotation mark")
}

// multiline reads what follows "text:" (RFC 5228 §2.4.2).
func (l *lexer) multiline(p pos) (string, *Error) {
	for l.at < len(l.src) && (l.src[l.at] == ' ' || l.src[l.at] == '\t') {
		l.at++
	}
	if l.at < len(l.src) && l.src[l.at] == '#' {
		l.toEOL()
	} else if l.at < len(l.src) && l.src[l.at] == '\r' {
		l.at++
	}
	if l.at == len(l.src) || l.src[l.at] != '\n' {
		return "", fail(p, "the text must begin on the line after \"text:\"")
	}
	l.at++
	l.newline()
	var b strings.Builder
	for l.at < len(l.src) {
		line := l.src[l.at:]
		if i := bytes.IndexByte(line, '\n'); i >= 0 {
			line = line[:i]
			l.at += i + 1
			l.newline()
		} else {
			l.at = len(l.src)
		}
		line = bytes.TrimSuffix(line, []byte("\r"))
		if string(line) == "." {
			return l.checked(p, b.String())
		}
		if bytes.HasPrefix(line, []byte("..")) {
			line = line[1:]
		}
		b.Write(line)
		b.WriteString("\r\n")
	}
	return "", fail(p, "the text has no end: write a line with a single dot behind it")
}

// checked refuses strings that cannot be passed on: Sieve is UTF-8 without NUL (RFC 5228 §2.4.2, §8.1).
func (l *lexer) checked(p pos, s string) (string, *Error) {
	if !utf8.ValidString(s) {
		return "", fail(p, "the string is not valid UTF-8")
	}
	if strings.IndexByte(s, 0) >= 0 {
		return "", fail(p, "a string cannot hold a NUL")
	}
	return s, nil
}
