// Package ldif reads and writes LDIF (RFC 2849): entries as content records, and change records.
//
//	ldif-file   = [ "version: 1" ] records, separated by empty lines
//	content     = dn-line *attrval-line
//	change      = dn-line *( "control:" .. ) "changetype:" kind lines
//	value       = ":" SPACE* text  |  "::" SPACE* base64  |  ":<" url       -- the last is refused here
//	line        = folded: a line end and one space belong to no value
//	comment     = "#" to the end of the (folded) line
//
// Invariants: a value that was written is read back with the same octets; a line, a record and the number of its values
// are bounded. A change record without changetype is a content record.
//
// Left out on purpose: controls (a record that has one is refused: it could not be obeyed), values by URL (a file could
// name other files of the reader's machine).
package ldif

import (
	"bufio"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"strings"
)

// Bounds of what is read.
const (
	MaxLine   = 16 << 20 // octets of one folded line
	MaxRecord = 64 << 20 // octets of one record
)

// Kind is what a record does.
type Kind uint8

// Kinds of records.
const (
	Content Kind = iota // an entry, without a changetype
	Add
	Delete
	Modify
	ModDN
)

// String is the changetype, "" for Content.
func (k Kind) String() string { return [...]string{"", "add", "delete", "modify", "modrdn"}[k] }

// Attribute is a description with its values.
type Attribute struct {
	Name   string
	Values [][]byte
}

// Op is what one part of a modification does.
type Op uint8

// Operations of a modification, with the numbers of RFC 4511 §4.6 and RFC 4525.
const (
	OpAdd       Op = 0
	OpDelete    Op = 1
	OpReplace   Op = 2
	OpIncrement Op = 3
)

// String is the word of the LDIF line.
func (o Op) String() string { return [...]string{"add", "delete", "replace", "increment"}[o] }

// Change is one part of a modification.
type Change struct {
	Op Op
	Attribute
}

// Record is an entry or a change.
type Record struct {
	Line int // where it begins, from 1
	DN   string
	Kind Kind

	Attributes []Attribute // Content and Add
	Changes    []Change    // Modify

	NewRDN         string // ModDN
	DeleteOld      bool
	NewSuperior    string
	HasNewSuperior bool
}

// Error is what is wrong with a file, and in which line.
type Error struct {
	Line int
	Text string
}

func (e *Error) Error() string { return fmt.Sprintf("line %d: %s", e.Line, e.Text) }

func bad(line int, format string, args ...any) error {
	return &Error{line, fmt.Sprintf(format, args...)}
}

// Reader reads records one by one.
type Reader struct {
	in   *bufio.Reader
	line int // of the next physical line
	err  error
	peek string // a physical line that was read ahead
	has  bool
	any  bool // a record was read: no version line any more
}

// NewReader makes a Reader.
func NewReader(r io.Reader) *Reader { return &Reader{in: bufio.NewReaderSize(r, 64<<10), line: 1} }

// physical reads one line without its end. The error at the end is io.EOF.
func (r *Reader) physical() (string, error) {
	if r.has {
		r.has = false
		r.line++
		return r.peek, nil
	}
	if r.err != nil {
		return "", r.err
	}
	var b []byte
	for {
		part, err := r.in.ReadSlice('\n')
		if len(b)+len(part) > MaxLine {
			return "", bad(r.line, "a line of more than %d octets", MaxLine)
		}
		b = append(b, part...)
		if errors.Is(err, bufio.ErrBufferFull) {
			continue
		}
		if err != nil {
			r.err = err
			if len(b) == 0 || err != io.EOF {
				return "", err
			}
		}
		break
	}
	r.line++
	return strings.TrimSuffix(strings.TrimSuffix(string(b), "\n"), "\r"), nil
}

// logical reads one line with what is folded to it; comments are left out.
func (r *Reader) logical() (text string, at int, err error) {
	for {
		at = r.line
		first, err := r.physical()
		if err != nil {
			return "", at, err
		}
		var b strings.Builder
		b.WriteString(first)
		for {
			next, err := r.physical()
			if err == io.EOF {
				break
			}
			if err != nil {
				return "", at, err
			}
			if !strings.HasPrefix(next, " ") || first == "" {
				r.peek, r.has = next, true
				r.line--
				break
			}
			if b.Len()+len(next) > MaxLine {
				return "", at, bad(at, "a line of more than %d octets", MaxLine)
			}
			b.WriteString(next[1:])
		}
		if strings.HasPrefix(first, "#") {
			continue
		}
		return b.String(), at, nil
	}
}

// pair is one line of a record.
type pair struct {
	name  string
	value []byte
	line  int
	dash  bool // "-"
}

// Next gives the next record; io.EOF after the last.
func (r *Reader) Next() (*Record, error) {
	for {
		lines, err := r.block()
		if err != nil {
			return nil, err
		}
		if !r.any && strings.EqualFold(lines[0].name, "version") {
			if string(lines[0].value) != "1" {
				return nil, bad(lines[0].line, "LDIF of version %q: only 1 is known", lines[0].value)
			}
			if lines = lines[1:]; len(lines) == 0 {
				r.any = true
				continue
			}
		}
		r.any = true
		return parse(lines)
	}
}

// block reads the lines up to an empty one.
func (r *Reader) block() (lines []pair, err error) {
	size := 0
	for {
		text, at, err := r.logical()
		if err == io.EOF && len(lines) > 0 || err == nil && text == "" && len(lines) > 0 {
			return lines, nil
		}
		if err != nil {
			return nil, err
		}
		if text == "" {
			continue
		}
		if size += len(text); size > MaxRecord {
			return nil, bad(at, "a record of more than %d octets", MaxRecord)
		}
		p, err := split(text, at)
		if err != nil {
			return nil, err
		}
		lines = append(lines, p)
	}
}

// split takes a line apart.
func split(text string, at int) (pair, error) {
	if text == "-" {
		return pair{dash: true, line: at}, nil
	}
	name, value, ok := strings.Cut(text, ":")
	if !ok || name == "" || strings.ContainsAny(name, " \t") {
		return pair{}, bad(at, "%.60q is not \"name: value\"", text)
	}
	p := pair{name: name, line: at}
	switch {
	case strings.HasPrefix(value, ":"):
		v, err := base64.StdEncoding.DecodeString(strings.TrimLeft(value[1:], " "))
		if err != nil {
			return pair{}, bad(at, "%s: the value is not base64", name)
		}
		p.value = v
	case strings.HasPrefix(value, "<"):
		return pair{}, bad(at, "%s: values by URL are not taken: put the value itself here, in base64 behind \"::\"", name)
	default:
		p.value = []byte(strings.TrimLeft(value, " "))
	}
	return p, nil
}

// parse makes a record of its lines.
func parse(lines []pair) (*Record, error) {
	first := lines[0]
	if !strings.EqualFold(first.name, "dn") {
		return nil, bad(first.line, "a record begins with \"dn:\", not with %.40q", first.name)
	}
	rec := &Record{Line: first.line, DN: string(first.value)}
	lines = lines[1:]
	if len(lines) > 0 && strings.EqualFold(lines[0].name, "control") {
		return nil, bad(lines[0].line, "controls are not taken")
	}
	if len(lines) > 0 && strings.EqualFold(lines[0].name, "changetype") {
		switch kind := strings.ToLower(string(lines[0].value)); kind {
		case "add":
			rec.Kind = Add
		case "delete":
			rec.Kind = Delete
		case "modify":
			rec.Kind = Modify
		case "modrdn", "moddn":
			rec.Kind = ModDN
		default:
			return nil, bad(lines[0].line, "changetype %.40q is none of add, delete, modify, modrdn", kind)
		}
		lines = lines[1:]
	}
	switch rec.Kind {
	case Delete:
		if len(lines) > 0 {
			return nil, bad(lines[0].line, "a delete has no more lines")
		}
		return rec, nil
	case Modify:
		return rec, rec.modify(lines)
	case ModDN:
		return rec, rec.modDN(lines)
	}
	if rec.Attributes = nil; len(lines) == 0 {
		return nil, bad(rec.Line, "the entry %q has no attributes", rec.DN)
	}
	for _, p := range lines {
		if p.dash {
			return nil, bad(p.line, "\"-\" belongs into a modification: is \"changetype: modify\" missing?")
		}
		rec.Attributes = put(rec.Attributes, p)
	}
	return rec, nil
}

// put adds a value to the attribute of its name.
func put(list []Attribute, p pair) []Attribute {
	for i := range list {
		if strings.EqualFold(list[i].Name, p.name) {
			list[i].Values = append(list[i].Values, p.value)
			return list
		}
	}
	return append(list, Attribute{p.name, [][]byte{p.value}})
}

func (rec *Record) modify(lines []pair) error {
	for len(lines) > 0 {
		head := lines[0]
		if head.dash {
			return bad(head.line, "\"-\" without a change before it")
		}
		c := Change{Attribute: Attribute{Name: string(head.value)}}
		switch strings.ToLower(head.name) {
		case "add":
			c.Op = OpAdd
		case "delete":
			c.Op = OpDelete
		case "replace":
			c.Op = OpReplace
		case "increment":
			c.Op = OpIncrement
		default:
			return bad(head.line, "%.40q: a change begins with add, delete, replace or increment", head.name)
		}
		lines = lines[1:]
		for len(lines) > 0 && !lines[0].dash {
			if !strings.EqualFold(lines[0].name, c.Name) {
				return bad(lines[0].line, "a value of %q among those of %q: is a \"-\" missing?", lines[0].name, c.Name)
			}
			c.Values = append(c.Values, lines[0].value)
			lines = lines[1:]
		}
		if len(lines) > 0 {
			lines = lines[1:]
		}
		if c.Name == "" || len(c.Values) == 0 && (c.Op == OpAdd || c.Op == OpIncrement) {
			return bad(head.line, "%s without a value", head.name)
		}
		rec.Changes = append(rec.Changes, c)
	}
	return nil
}

func (rec *Record) modDN(lines []pair) error {
	rdn, old := false, false
	for _, p := range lines {
		switch strings.ToLower(p.name) {
		case "newrdn":
			rec.NewRDN, rdn = string(p.value), true
		case "deleteoldrdn":
			rec.DeleteOld, old = string(p.value) == "1", true
		case "newsuperior":
			rec.NewSuperior, rec.HasNewSuperior = string(p.value), true
		default:
			return bad(p.line, "%.40q: a renaming has newrdn, deleteoldrdn and newsuperior", p.name)
		}
	}
	if !rdn || !old {
		return bad(rec.Line, "a renaming needs newrdn and deleteoldrdn")
	}
	return nil
}
