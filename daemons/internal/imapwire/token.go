package imapwire

import (
	"io"
	"math"
	"strings"
	"unicode/utf8"
)

// The lexical grammar (RFC 9051 §9), as far as arguments go:
//
//	atom        = 1*ATOM-CHAR
//	ATOM-CHAR   = any CHAR except "(" ")" "{" SP CTL "%" "*" DQUOTE "\" "]"
//	astring     = 1*(ATOM-CHAR / "]") / string
//	string      = quoted / literal
//	quoted      = DQUOTE *QUOTED-CHAR DQUOTE      ; UTF-8 text, \" and \\ escaped
//	literal     = "{" number64 ["+"] "}" CRLF *CHAR8
//	literal8    = "~{" number64 ["+"] "}" CRLF *OCTET
//	nil         = "NIL"
//	number64    = 1*DIGIT                         ; 63 bits

const (
	classAtom = 1 << iota
	classAString
	classTag
	classList
)

var charClass = func() (t [256]uint8) {
	for c := 0x21; c < 0x7f; c++ {
		switch c {
		case '(', ')', '{', '"', '\\':
		case '%', '*':
			t[c] = classList
		case ']':
			t[c] = classAString | classTag | classList
		case '+':
			t[c] = classAtom | classAString | classList
		default:
			t[c] = classAtom | classAString | classTag | classList
		}
	}
	return t
}()

func isAtomChar(c byte) bool    { return charClass[c]&classAtom != 0 }
func isAStringChar(c byte) bool { return charClass[c]&classAString != 0 }
func isTagChar(c byte) bool     { return charClass[c]&classTag != 0 }
func isListChar(c byte) bool    { return charClass[c]&classList != 0 }

// upper is strings.ToUpper for ASCII bytes.
func upper(b []byte) string {
	var small [32]byte
	out := append(small[:0], b...)
	for i, c := range out {
		if 'a' <= c && c <= 'z' {
			out[i] = c - 'a' + 'A'
		}
	}
	return string(out)
}

// Peek returns the next byte of the line, or 0 at its end.
func (d *Decoder) Peek() byte {
	if d.pos < len(d.line) {
		return d.line[d.pos]
	}
	return 0
}

// AtEnd reports whether nothing but blanks is left of the command.
func (d *Decoder) AtEnd() bool {
	for i := d.pos; i < len(d.line); i++ {
		if d.line[i] != ' ' {
			return false
		}
	}
	return true
}

// Rest returns what is left of the line, for messages about errors.
func (d *Decoder) Rest() string { return excerpt(d.line[min(d.pos, len(d.line)):]) }

// Accept takes the byte c if it is next.
func (d *Decoder) Accept(c byte) bool {
	if d.pos < len(d.line) && d.line[d.pos] == c {
		d.pos++
		return true
	}
	return false
}

// Expect takes the byte c.
func (d *Decoder) Expect(c byte) error {
	if !d.Accept(c) {
		return d.wanted("'" + string(rune(c)) + "'")
	}
	return nil
}

// SP takes the single space between arguments.
func (d *Decoder) SP() error {
	if !d.Accept(' ') {
		return d.wanted("a space and an argument")
	}
	return nil
}

func (d *Decoder) wanted(what string) error {
	if d.pos >= len(d.line) {
		return syntaxf("%s expected at the end of the line", what)
	}
	return syntaxf("%s expected at: %s", what, d.Rest())
}

// AcceptWord takes word, in any case, if it is next and is not part of a longer atom.
func (d *Decoder) AcceptWord(word string) bool {
	end := d.pos + len(word)
	if end > len(d.line) || !strings.EqualFold(string(d.line[d.pos:end]), word) {
		return false
	}
	if end < len(d.line) && isAStringChar(d.line[end]) {
		return false
	}
	d.pos = end
	return true
}

func (d *Decoder) atomBytes() ([]byte, error) {
	start := d.pos
	for d.pos < len(d.line) && isAtomChar(d.line[d.pos]) {
		d.pos++
	}
	if d.pos == start {
		return nil, d.wanted("an atom")
	}
	return d.line[start:d.pos], nil
}

// Atom takes an atom.
func (d *Decoder) Atom() (string, error) {
	b, err := d.atomBytes()
	return string(b), err
}

// Keyword takes an atom and returns it in upper case.
func (d *Decoder) Keyword() (string, error) {
	b, err := d.atomBytes()
	if err != nil {
		return "", err
	}
	return upper(b), nil
}

// Number takes a number of at most 63 bits.
func (d *Decoder) Number() (uint64, error) {
	start := d.pos
	var n uint64
	for d.pos < len(d.line) && '0' <= d.line[d.pos] && d.line[d.pos] <= '9' {
		n = n*10 + uint64(d.line[d.pos]-'0')
		if n > math.MaxInt64 || d.pos-start > 20 {
			return 0, syntaxf("number is too large")
		}
		d.pos++
	}
	if d.pos == start {
		return 0, d.wanted("a number")
	}
	return n, nil
}

// NonZero32 takes a nz-number: 1 to 2^32-1.
func (d *Decoder) NonZero32() (uint32, error) {
	n, err := d.Number()
	if err != nil {
		return 0, err
	}
	if n == 0 || n > math.MaxUint32 {
		return 0, syntaxf("number must be from 1 to 4294967295")
	}
	return uint32(n), nil
}

// quoted takes a quoted string.
func (d *Decoder) quoted() ([]byte, error) {
	if !d.Accept('"') {
		return nil, d.wanted("a quoted string")
	}
	start := d.pos
	for d.pos < len(d.line) && d.line[d.pos] != '"' && d.line[d.pos] != '\\' {
		d.pos++
	}
	text := d.line[start:d.pos]
	if d.pos < len(d.line) && d.line[d.pos] == '\\' {
		text = append([]byte(nil), text...)
		for d.pos < len(d.line) && d.line[d.pos] != '"' {
			c := d.line[d.pos]
			if c == '\\' {
				d.pos++
				if d.pos == len(d.line) || d.line[d.pos] != '"' && d.line[d.pos] != '\\' {
					return nil, syntaxf("only \\\" and \\\\ may be escaped in a quoted string")
				}
				c = d.line[d.pos]
			}
			text = append(text, c)
			d.pos++
		}
	}
	if !d.Accept('"') {
		return nil, syntaxf("quoted string without its end")
	}
	if !utf8.Valid(text) {
		return nil, syntaxf("8-bit text that is not UTF-8 in a quoted string")
	}
	return text, nil
}

// announced takes apart a literal announcement that b ends with.
func announced(b []byte) (n int64, sync, binary, ok bool) {
	if len(b) < 3 || b[len(b)-1] != '}' {
		return 0, false, false, false
	}
	i := len(b) - 2
	sync = true
	if b[i] == '+' {
		sync = false
		i--
	}
	end := i + 1
	for i >= 0 && '0' <= b[i] && b[i] <= '9' {
		i--
	}
	if i < 0 || b[i] != '{' || i+1 == end || end-i-1 > 19 {
		return 0, false, false, false
	}
	for _, c := range b[i+1 : end] {
		n = n*10 + int64(c-'0')
		if n < 0 {
			return 0, false, false, false
		}
	}
	return n, sync, i > 0 && b[i-1] == '~', true
}

// AtLiteral reports whether the next token is a literal.
func (d *Decoder) AtLiteral() bool {
	c := d.Peek()
	return c == '{' || c == '~' && d.pos+1 < len(d.line) && d.line[d.pos+1] == '{'
}

// announcement takes the announcement that the line must now consist of. On an error the
// position does not move, so that Discard sees the literal.
func (d *Decoder) announcement() (n int64, sync, binary bool, err error) {
	rest := d.line[d.pos:]
	n, sync, binary, ok := announced(rest)
	want := byte('{')
	if binary {
		want = '~'
	}
	if !ok || rest[0] != want || countByte(rest, '{') != 1 {
		return 0, false, false, syntaxf("malformed literal: %s", d.Rest())
	}
	return n, sync, binary, nil
}

func countByte(b []byte, c byte) (n int) {
	for _, x := range b {
		if x == c {
			n++
		}
	}
	return n
}

// literalBytes takes a literal into memory.
func (d *Decoder) literalBytes() ([]byte, error) {
	n, sync, binary, err := d.announcement()
	if err != nil {
		return nil, err
	}
	if n > d.lim.Literal {
		return nil, &TooBigError{Size: n, Max: d.lim.Literal}
	}
	if d.spent+n > d.lim.Command {
		return nil, &TooBigError{Size: n, Max: max(0, d.lim.Command-d.spent)}
	}
	d.spent += n
	d.pos = len(d.line)
	if sync {
		if err := d.cont(); err != nil {
			return nil, &Fatal{Text: "cannot ask for a literal", Err: err}
		}
	}
	text := make([]byte, n)
	k := copy(text, d.in[d.rd:d.wr])
	d.rd += k
	if _, err := io.ReadFull(d.r, text[k:]); err != nil {
		return nil, &Fatal{Text: "connection ended inside a literal", Err: err}
	}
	if err := d.readLine(); err != nil {
		return nil, err
	}
	if !binary && countByte(text, 0) > 0 {
		return nil, syntaxf("NUL in a literal")
	}
	return text, nil
}

// String takes a quoted string or a literal.
func (d *Decoder) String() (string, error) {
	b, err := d.stringBytes()
	return string(b), err
}

func (d *Decoder) stringBytes() ([]byte, error) {
	switch {
	case d.Peek() == '"':
		return d.quoted()
	case d.AtLiteral():
		return d.literalBytes()
	}
	return nil, d.wanted("a string")
}

func (d *Decoder) astringBytes() ([]byte, error) {
	if c := d.Peek(); c == '"' || c == '{' || c == '~' && d.AtLiteral() {
		return d.stringBytes()
	}
	start := d.pos
	for d.pos < len(d.line) && isAStringChar(d.line[d.pos]) {
		d.pos++
	}
	if d.pos == start {
		return nil, d.wanted("an atom or a string")
	}
	return d.line[start:d.pos], nil
}

// AString takes an atom or a string.
func (d *Decoder) AString() (string, error) {
	b, err := d.astringBytes()
	return string(b), err
}

// NString takes a string or NIL; ok is false for NIL.
func (d *Decoder) NString() (s string, ok bool, err error) {
	if d.AcceptWord("NIL") {
		return "", false, nil
	}
	s, err = d.String()
	return s, true, err
}

// List takes "(" [item *(SP item)] ")". item is called at the first byte of each item.
func (d *Decoder) List(item func() error) error {
	if err := d.Expect('('); err != nil {
		return err
	}
	if d.depth++; d.depth > d.lim.Nesting {
		return syntaxf("parentheses are nested more than %d deep", d.lim.Nesting)
	}
	if !d.Accept(')') {
		for {
			if err := item(); err != nil {
				return err
			}
			if d.Accept(')') {
				break
			}
			if err := d.SP(); err != nil {
				return d.wanted("a space or ')'")
			}
		}
	}
	d.depth--
	return nil
}

// SkipValue takes one argument of any form: an atom, a string or a parenthesized list of such.
func (d *Decoder) SkipValue() error {
	switch c := d.Peek(); {
	case c == '(':
		return d.List(d.SkipValue)
	case c == '"' || d.AtLiteral():
		_, err := d.stringBytes()
		return err
	}
	start := d.pos
	for d.pos < len(d.line) && d.line[d.pos] > ' ' && d.line[d.pos] != '(' && d.line[d.pos] != ')' && d.line[d.pos] != '"' {
		d.pos++
	}
	if d.pos == start {
		return d.wanted("a value")
	}
	return nil
}

// OpenLiteral begins a literal that is read through [Decoder.LiteralReader]. It is for APPEND: up to
// most bytes are taken, none of them into memory. accept is called before the client is asked for
// the literal and can refuse it.
func (d *Decoder) OpenLiteral(most int64, accept func(size int64) error) (size int64, binary bool, err error) {
	n, sync, binary, err := d.announcement()
	if err != nil {
		return 0, false, err
	}
	if n > most {
		return 0, false, &TooBigError{Size: n, Max: most}
	}
	if accept != nil {
		if err := accept(n); err != nil {
			return 0, false, err
		}
	}
	d.pos = len(d.line)
	if sync {
		if err := d.cont(); err != nil {
			return 0, false, &Fatal{Text: "cannot ask for a literal", Err: err}
		}
	}
	d.lit = literal{open: true, left: n}
	return n, binary, nil
}

// LiteralReader reads the open literal.
func (d *Decoder) LiteralReader() io.Reader { return (*literalReader)(d) }

type literalReader Decoder

func (l *literalReader) Read(p []byte) (int, error) {
	d := (*Decoder)(l)
	if d.lit.left == 0 {
		return 0, io.EOF
	}
	p = p[:min(int64(len(p)), d.lit.left)]
	if d.rd < d.wr {
		n := copy(p, d.in[d.rd:d.wr])
		d.rd += n
		d.lit.left -= int64(n)
		return n, nil
	}
	n, err := d.r.Read(p)
	d.lit.left -= int64(n)
	if n > 0 {
		return n, nil
	}
	if err != nil {
		return 0, &Fatal{Text: "connection ended inside a literal", Err: err}
	}
	return 0, nil
}

// CloseLiteral drops what was not read of the open literal and makes the line behind it current.
func (d *Decoder) CloseLiteral() error {
	left := d.lit.left
	d.lit = literal{}
	if left > 0 {
		if err := d.skip(left); err != nil {
			return err
		}
	}
	return d.readLine()
}
