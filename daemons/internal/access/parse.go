package access

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/go-ldap/ldap/v3"

	"shoal/daemons/internal/dirschema"
	"shoal/daemons/internal/dirstore"
	"shoal/daemons/internal/ldapwire"
)

// Bounds of a rule.
const (
	MaxRule    = 8192
	maxClauses = 64
	maxList    = 512
	maxNumber  = 1 << 30
	version    = 1
)

// Error says what is wrong with a rule, and where.
type Error struct {
	Line, Column int // from 1
	Number       int // of the rule, -1 if it could not be read
	Message      string
}

func (e *Error) Error() string {
	return fmt.Sprintf("line %d, column %d: %s", e.Line, e.Column, e.Message)
}

// Language is what rules are read with: the schema, and a way to make filters.
type Language struct {
	Schema *dirschema.Schema
	// Compile makes a filter of a store; nil where rules are only checked.
	Compile func(*ldapwire.Filter) *dirstore.Filter
	service bool // the words of the service's own rules are known
}

type token struct {
	text   string // as written
	value  string // without quotes; of key=value the value
	key    string // lower case; "" if there is no "="
	quoted bool
	at     int
}

type parser struct {
	lang   *Language
	text   string
	tokens []token
	number int
}

func (p *parser) fail(at int, format string, args ...any) error {
	line, column := 1, 1
	for _, c := range p.text[:min(at, len(p.text))] {
		if c == '\n' {
			line, column = line+1, 1
		} else {
			column++
		}
	}
	return &Error{Line: line, Column: column, Number: p.number, Message: fmt.Sprintf(format, args...)}
}

// Parse reads a rule. The error is an *Error.
func (l *Language) Parse(text string) (*Rule, error) {
	p := &parser{lang: l, text: text, number: -1}
	if len(text) > MaxRule {
		return nil, p.fail(MaxRule, "a rule has at most %d octets", MaxRule)
	}
	at, err := p.head()
	if err != nil {
		return nil, err
	}
	if err := p.split(at); err != nil {
		return nil, err
	}
	r := &Rule{Number: p.number, Text: text}
	if t := p.next(); t == nil || t.text != "to" {
		return nil, p.fail(p.where(t), `"to" is missing: {10}to what by who rights`)
	}
	if err := p.what(r); err != nil {
		return nil, err
	}
	for len(p.tokens) > 0 {
		if len(r.clauses) == maxClauses {
			return nil, p.fail(p.tokens[0].at, `more than %d times "by"`, maxClauses)
		}
		if err := p.clause(r); err != nil {
			return nil, err
		}
	}
	if len(r.clauses) == 0 {
		return nil, p.fail(len(text), `"by" is missing: who gets what`)
	}
	return r, nil
}

// head reads the number and the version.
func (p *parser) head() (int, error) {
	start := len(p.text) - len(strings.TrimLeft(p.text, " \t\r\n"))
	end := strings.IndexByte(p.text, '}')
	if start == len(p.text) || p.text[start] != '{' || end < start {
		return 0, p.fail(start, "a rule begins with its number in braces, such as {10}")
	}
	number, ver, has := strings.Cut(p.text[start+1:end], ";")
	n, err := strconv.ParseUint(number, 10, 32)
	if err != nil || n > maxNumber {
		return 0, p.fail(start+1, "the number of a rule is 0 to %d, without a sign", maxNumber)
	}
	p.number = int(n)
	if v, err := strconv.ParseUint(ver, 10, 16); has && (err != nil || v != version) {
		return 0, p.fail(start+1+len(number)+1, "version %.20q of the syntax is not known here: this is version %d", ver, version)
	}
	return end + 1, nil
}

// split cuts the rule into words.
func (p *parser) split(at int) error {
	text := p.text
	for {
		for at < len(text) && strings.IndexByte(" \t\r\n", text[at]) >= 0 {
			at++
		}
		if at == len(text) {
			return nil
		}
		t := token{at: at}
		var value strings.Builder
		start := at
		for at < len(text) && strings.IndexByte(" \t\r\n", text[at]) < 0 {
			c := text[at]
			switch {
			case c == '"' && (at == start || text[at-1] == '='):
				t.quoted = true
				open := at
				for at++; at < len(text) && text[at] != '"'; at++ {
					if text[at] == '\\' && at+1 < len(text) && (text[at+1] == '"' || text[at+1] == '\\') {
						at++
					}
					value.WriteByte(text[at])
				}
				if at == len(text) {
					return p.fail(open, "the quotation mark is not closed")
				}
				at++
				if at < len(text) && strings.IndexByte(" \t\r\n", text[at]) < 0 {
					return p.fail(at, "a space is missing after the quotation mark")
				}
			case c == '"':
				return p.fail(at, "a quotation mark within a word")
			case c == '=' && t.key == "" && value.Len() > 0:
				t.key = strings.ToLower(value.String())
				value.Reset()
				at++
			default:
				value.WriteByte(c)
				at++
			}
		}
		t.text, t.value = text[start:at], value.String()
		if p.tokens = append(p.tokens, t); len(p.tokens) > 4*maxList {
			return p.fail(start, "too many words")
		}
	}
}

func (p *parser) next() *token {
	if len(p.tokens) == 0 {
		return nil
	}
	t := &p.tokens[0]
	p.tokens = p.tokens[1:]
	return t
}

func (p *parser) peek() *token {
	if len(p.tokens) == 0 {
		return nil
	}
	return &p.tokens[0]
}

func (p *parser) where(t *token) int {
	if t == nil {
		return len(p.text)
	}
	return t.at
}

func (p *parser) what(r *Rule) error {
	seen := map[string]bool{}
	for {
		t := p.peek()
		if t == nil || t.text == "by" {
			if len(seen) == 0 {
				return p.fail(p.where(t), `what the rule is about is missing: *, dn=, filter= or attrs=`)
			}
			return nil
		}
		p.next()
		kind, _, _ := strings.Cut(t.key, ".")
		if t.text == "*" {
			kind = "*"
		}
		if seen[kind] || seen["*"] && kind == "*" {
			return p.fail(t.at, "%s is given twice", kind)
		}
		seen[kind] = true
		var err error
		switch {
		case kind == "*":
		case kind == "dn":
			r.place, err = p.place(t)
		case t.key == "filter":
			r.filter, err = p.filter(t)
		case t.key == "attrs" || t.key == "attr":
			err = p.attributes(r, t)
		default:
			return p.fail(t.at, "%.40q is not known here: *, dn=, filter= or attrs=", t.text)
		}
		if err != nil {
			return err
		}
	}
}

func (p *parser) place(t *token) (*place, error) {
	_, word, dotted := strings.Cut(t.key, ".")
	s, ok := scopeWords[word]
	if !ok || dotted && word == "" {
		return nil, p.fail(t.at, "the scope %.20q is not known: base, one, subtree or children", word)
	}
	norm, err := p.name(t)
	if err != nil {
		return nil, err
	}
	return newPlace(s, norm), nil
}

func (p *parser) name(t *token) ([]byte, error) {
	name, err := p.lang.Schema.ParseDN([]byte(t.value))
	if err == nil && len(name) == 0 {
		return nil, p.fail(t.at, "the name is empty")
	}
	var norm []byte
	if err == nil {
		norm, err = name.AppendNormal(nil)
	}
	if err != nil {
		return nil, p.fail(t.at, "%v", err)
	}
	return norm, nil
}

// filterLimits bound a filter in a rule: it is matched with every entry that somebody looks for.
var filterLimits = ldapwire.Limits{FilterTerms: 32, FilterDepth: 8}

func (p *parser) filter(t *token) (*dirstore.Filter, error) {
	packet, err := ldap.CompileFilter(t.value)
	if err != nil {
		return nil, p.fail(t.at, "the filter %.60q cannot be read: %v", t.value, err)
	}
	var f ldapwire.Filter
	if err := f.Parse(packet.Bytes(), filterLimits); err != nil {
		return nil, p.fail(t.at, "the filter %.60q: %v", t.value, err)
	}
	for i := range f.Nodes {
		n := &f.Nodes[i]
		if n.Attr == nil {
			continue
		}
		d, err := p.lang.Schema.Describe(n.Attr)
		switch {
		case err != nil:
			return nil, p.fail(t.at, "the filter %.60q: %v", t.value, err)
		case isSecret(d.Type):
			return nil, p.fail(t.at, "the filter %.60q: %s is a secret", t.value, d)
		case d.Type.Name() == "memberOf":
			return nil, p.fail(t.at, `the filter %.60q: memberOf is computed for each entry: use "by group="`, t.value)
		}
	}
	if p.lang.Compile == nil {
		return nil, nil
	}
	return p.lang.Compile(&f), nil
}

func (p *parser) attributes(r *Rule, t *token) error {
	r.types = map[*dirschema.AttributeType]bool{}
	for n, name := range strings.Split(t.value, ",") {
		class, isClass := strings.CutPrefix(name, "@")
		switch {
		case n >= maxList:
			return p.fail(t.at, "more than %d attributes", maxList)
		case strings.EqualFold(name, "entry"):
			r.entry = true
		case strings.EqualFold(name, "children"):
			r.kids = true
		case isClass:
			c := p.lang.Schema.Class([]byte(class))
			if c == nil {
				return p.fail(t.at, "object class %.60q is not in the schema", class)
			}
			for _, list := range [][]*dirschema.AttributeType{c.Must, c.May} {
				for _, a := range list {
					if !isSecret(a) { // those are named one by one
						r.types[a] = true
					}
				}
			}
		default:
			a := p.lang.Schema.Attribute([]byte(name))
			if a == nil {
				return p.fail(t.at, "attribute %.60q is not in the schema", name)
			}
			r.types[a] = true
		}
	}
	return nil
}

func (p *parser) clause(r *Rule) error {
	by := p.next()
	if by.text != "by" {
		return p.fail(by.at, `"by" is expected, not %.40q`, by.text)
	}
	c := clause{}
	for {
		t := p.peek()
		if t == nil {
			return p.fail(len(p.text), "the rights are missing")
		}
		cond, is, err := p.condition(t)
		if err != nil {
			return err
		}
		if !is {
			break
		}
		p.next()
		c.who = append(c.who, cond)
	}
	t := p.next()
	if len(c.who) == 0 {
		return p.fail(t.at, "%.40q names nobody: *, anonymous, users, self, domain, colleagues, administrators, dn=, group= or role=", t.text)
	}
	end := t.at + len(t.text)
	if t.text == "break" { // gives nothing, and goes on
		c.goesOn = true
	} else {
		var err error
		if c.rights, err = p.rights(t); err != nil {
			return err
		}
	}
	if b := p.peek(); !c.goesOn && b != nil && b.text == "break" {
		c.goesOn, end = true, b.at+len(b.text)
		p.next()
	}
	c.text = p.text[by.at:end]
	r.clauses = append(r.clauses, c)
	return nil
}

func (p *parser) condition(t *token) (c condition, is bool, err error) {
	if kind, ok := conditionWords[t.text]; ok {
		return condition{kind: kind}, true, nil
	}
	key, _, _ := strings.Cut(t.key, ".")
	switch {
	case key == "dn":
		c.kind = named
		c.place, err = p.place(t)
		return c, true, err
	case t.key == "group":
		c.kind = member
		c.norm, err = p.name(t)
		return c, true, err
	case t.key == "role":
		c.kind = role
		for _, name := range strings.Split(strings.ToLower(t.value), ",") {
			if name == "" || len(name) > 32 || strings.Trim(name, "abcdefghijklmnopqrstuvwxyz*") != "" {
				return c, true, p.fail(t.at, "%.40q is no role", name)
			}
			c.roles = append(c.roles, name)
		}
		return c, true, nil
	case t.key != "":
		return c, false, p.fail(t.at, "%.40q is not known here: dn=, group= or role=", t.text)
	}
	return c, false, nil
}

func (p *parser) rights(t *token) (r Rights, err error) {
	list, exact := strings.CutPrefix(t.text, "=")
words:
	for word := range strings.SplitSeq(list, ",") {
		for _, w := range rightWords {
			if w.word == word {
				if exact {
					r |= w.right
				} else {
					r |= w.with
				}
				continue words
			}
		}
		for _, w := range serviceWords {
			if p.lang.service && w.word == word {
				r |= w.right
				continue words
			}
		}
		return 0, p.fail(t.at, "%.40q is neither somebody nor a right: rights are none, %s", t.text, strings.Join(Words(), ", "))
	}
	return r, nil
}
