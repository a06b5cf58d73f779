package dirschema

import (
	"fmt"
	"strconv"
	"strings"
)

// The form of a schema file and of the descriptions in it (RFC 4512 §4.1, with OpenLDAP's macros):
//
//	file       = *( line LF )              ; a line that begins with white space continues the last one
//	directive  = "attributetype" SP description / "objectclass" SP description
//	           / "objectidentifier" SP name SP oid / "#" comment
//	oid        = numericoid / name / name ":" arcs      ; the last: what name stands for, "." arcs
//	description= "(" oid *( keyword *value ) ")"
//	value      = word / "'" text "'" / "(" *( value / "$" ) ")"

// Bounds of one directive.
const (
	maxDirective = 64 << 10
	maxTokens    = 4096
)

// definition is a description taken apart: the values of each keyword, in order.
type definition struct {
	oid    string
	fields []field
}

type field struct {
	key    string
	values []string
}

func (d *definition) get(key string) []string {
	for _, f := range d.fields {
		if f.key == key {
			return f.values
		}
	}
	return nil
}

func (d *definition) has(key string) bool {
	for _, f := range d.fields {
		if f.key == key {
			return true
		}
	}
	return false
}

func (d *definition) one(key string) string {
	if v := d.get(key); len(v) > 0 {
		return v[0]
	}
	return ""
}

// Add reads a schema file into s. name is for messages. s is not usable after an error.
func (s *Schema) Add(name string, text []byte) error {
	line, start := "", 0
	flush := func() error {
		if line == "" {
			return nil
		}
		if err := s.directive(line); err != nil {
			return fmt.Errorf("schema %s:%d: %w", name, start, err)
		}
		line = ""
		return nil
	}
	for i, l := range strings.Split(string(text), "\n") {
		l = strings.TrimRight(l, " \t\r")
		if l == "" || l[0] == '#' {
			continue
		}
		if l[0] == ' ' || l[0] == '\t' {
			if len(line)+len(l) > maxDirective {
				return fmt.Errorf("schema %s:%d: definition of more than %d bytes", name, start, maxDirective)
			}
			line += " " + strings.TrimLeft(l, " \t")
			continue
		}
		if err := flush(); err != nil {
			return err
		}
		line, start = l, i+1
	}
	return flush()
}

func (s *Schema) directive(line string) error {
	word, rest, _ := strings.Cut(line, " ")
	if w, r, ok := strings.Cut(line, "\t"); ok && len(w) < len(word) {
		word, rest = w, r
	}
	switch strings.ToLower(word) {
	case "attributetype", "attributetypes":
		return s.AddAttributeType(rest)
	case "objectclass", "objectclasses":
		return s.AddObjectClass(rest)
	case "objectidentifier":
		f := strings.Fields(rest)
		if len(f) != 2 {
			return fmt.Errorf("objectidentifier %q: want a name and an OID", rest)
		}
		oid, err := s.oid(f[1])
		if err != nil {
			return err
		}
		s.macros[strings.ToLower(f[0])] = oid
		return nil
	}
	return fmt.Errorf("unknown directive %q", word)
}

// oid expands macros and checks the form of an OID.
func (s *Schema) oid(w string) (string, error) {
	name, arcs, colon := strings.Cut(w, ":")
	if m, ok := s.macros[strings.ToLower(name)]; ok {
		if !colon {
			return m, nil
		}
		w = m + "." + arcs
	}
	if !isOID(w) {
		return "", fmt.Errorf("%q is not an object identifier", w)
	}
	return w, nil
}

func isOID(w string) bool {
	if !strings.Contains(w, ".") {
		return false
	}
	for n := range strings.SplitSeq(w, ".") {
		if n == "" || strings.Trim(n, "0123456789") != "" || len(n) > 1 && n[0] == '0' {
			return false
		}
	}
	return true
}

func tokens(text string) ([]string, error) {
	var out []string
	for text = strings.TrimSpace(text); text != ""; text = strings.TrimLeft(text, " \t\n") {
		if len(out) == maxTokens {
			return nil, fmt.Errorf("more than %d words", maxTokens)
		}
		switch text[0] {
		case '(', ')', '$':
			out, text = append(out, text[:1]), text[1:]
		case '\'':
			end := strings.IndexByte(text[1:], '\'')
			if end < 0 {
				return nil, fmt.Errorf("quote without end: %s", text)
			}
			out, text = append(out, text[:end+1]), text[end+2:]
		default:
			end := strings.IndexAny(text, " \t\n()$'")
			if end < 0 {
				end = len(text)
			}
			out, text = append(out, text[:end]), text[end:]
		}
	}
	return out, nil
}

// flags are the keywords without a value.
var flags = map[string]bool{"OBSOLETE": true, "SINGLE-VALUE": true, "COLLECTIVE": true,
	"NO-USER-MODIFICATION": true, "ABSTRACT": true, "STRUCTURAL": true, "AUXILIARY": true}

func (s *Schema) describe(text string) (d definition, err error) {
	t, err := tokens(text)
	if err != nil {
		return d, err
	}
	if len(t) < 3 || t[0] != "(" || t[len(t)-1] != ")" {
		return d, fmt.Errorf("not in parentheses: %.60s", text)
	}
	if d.oid, err = s.oid(t[1]); err != nil {
		return d, err
	}
	for t = t[2 : len(t)-1]; len(t) > 0; {
		f := field{key: strings.ToUpper(t[0])}
		t = t[1:]
		if d.has(f.key) {
			return d, fmt.Errorf("%s: %s given twice", d.oid, f.key)
		}
		switch {
		case flags[f.key]:
		case len(t) == 0:
			return d, fmt.Errorf("%s: %s without a value", d.oid, f.key)
		case t[0] == "(":
			t = t[1:]
			for len(t) > 0 && t[0] != ")" {
				if t[0] == "(" {
					return d, fmt.Errorf("%s: list within a list", d.oid)
				}
				if t[0] != "$" {
					f.values = append(f.values, strings.TrimPrefix(t[0], "'"))
				}
				t = t[1:]
			}
			if len(t) == 0 {
				return d, fmt.Errorf("%s: list of %s without end", d.oid, f.key)
			}
			t = t[1:]
		default:
			f.values, t = []string{strings.TrimPrefix(t[0], "'")}, t[1:]
		}
		d.fields = append(d.fields, f)
	}
	return d, nil
}

// AddAttributeType adds an AttributeTypeDescription (RFC 4512 §4.1.2). What it refers to must be there.
func (s *Schema) AddAttributeType(text string) error {
	d, err := s.describe(text)
	if err != nil {
		return err
	}
	a := &AttributeType{OID: d.oid, Names: d.get("NAME"), Desc: d.one("DESC"), Single: d.has("SINGLE-VALUE"),
		NoUserMod: d.has("NO-USER-MODIFICATION"), Obsolete: d.has("OBSOLETE"), definition: d}
	if d.has("SUP") {
		if a.Sup = s.Attribute([]byte(d.one("SUP"))); a.Sup == nil {
			return fmt.Errorf("%s: supertype %q is not defined", a.Name(), d.one("SUP"))
		}
		a.Equality, a.Ordering, a.Substr = a.Sup.Equality, a.Sup.Ordering, a.Sup.Substr
		a.Syntax, a.Bound, a.Usage = a.Sup.Syntax, a.Sup.Bound, a.Sup.Usage
	}
	for key, rule := range map[string]**MatchingRule{"EQUALITY": &a.Equality, "ORDERING": &a.Ordering, "SUBSTR": &a.Substr} {
		if d.has(key) {
			if *rule = s.Rule([]byte(d.one(key))); *rule == nil {
				return fmt.Errorf("%s: matching rule %q is not known", a.Name(), d.one(key))
			}
		}
	}
	if x := d.one("SYNTAX"); x != "" {
		oid, bound, has := strings.Cut(x, "{")
		if has {
			if a.Bound, err = strconv.Atoi(strings.TrimSuffix(bound, "}")); err != nil {
				return fmt.Errorf("%s: bound of syntax %q", a.Name(), x)
			}
		}
		if oid, err = s.oid(oid); err != nil {
			return fmt.Errorf("%s: %w", a.Name(), err)
		}
		if a.Syntax = s.syntaxes[oid]; a.Syntax == nil {
			return fmt.Errorf("%s: syntax %s is not known", a.Name(), oid)
		}
	}
	if a.Syntax == nil {
		return fmt.Errorf("%s: neither SYNTAX nor SUP", a.Name())
	}
	if u := d.one("USAGE"); u != "" {
		i := indexFold(usageNames[:], u)
		if i < 0 {
			return fmt.Errorf("%s: usage %q", a.Name(), u)
		}
		a.Usage = Usage(i)
	}
	a.lower = strings.ToLower(a.Name())
	if err := claim(s.attributes, a, a.OID, a.Names); err != nil {
		return err
	}
	a.Serial = len(s.attributeList)
	s.attributeList = append(s.attributeList, a)
	if a.OID == "2.5.4.0" {
		s.objectClass = a
	}
	return nil
}

// AddObjectClass adds an ObjectClassDescription (RFC 4512 §4.1.1). What it refers to must be there.
func (s *Schema) AddObjectClass(text string) error {
	d, err := s.describe(text)
	if err != nil {
		return err
	}
	c := &ObjectClass{OID: d.oid, Names: d.get("NAME"), Desc: d.one("DESC"), Obsolete: d.has("OBSOLETE"), definition: d}
	switch {
	case d.has("ABSTRACT"):
		c.Kind = Abstract
	case d.has("AUXILIARY"):
		c.Kind = Auxiliary
	}
	c.all = []*ObjectClass{c}
	add := func(to *[]*AttributeType, a *AttributeType) {
		for _, b := range *to {
			if a == b {
				return
			}
		}
		*to = append(*to, a)
	}
	for _, n := range d.get("SUP") {
		sup := s.Class([]byte(n))
		if sup == nil {
			return fmt.Errorf("%s: superclass %q is not defined", c.Name(), n)
		}
		if c.Kind != Auxiliary && sup.Kind == Auxiliary || c.Kind == Auxiliary && sup.Kind == Structural {
			return fmt.Errorf("%s: %s cannot be its superclass", c.Name(), n)
		}
		c.Sup = append(c.Sup, sup)
		for _, up := range sup.all {
			if !c.Is(up) {
				c.all = append(c.all, up)
			}
		}
		for _, a := range sup.Must {
			add(&c.Must, a)
		}
		for _, a := range sup.May {
			add(&c.May, a)
		}
	}
	for key, to := range map[string]*[]*AttributeType{"MUST": &c.Must, "MAY": &c.May} {
		for _, n := range d.get(key) {
			a := s.Attribute([]byte(n))
			if a == nil {
				return fmt.Errorf("%s: attribute %q is not defined", c.Name(), n)
			}
			add(to, a)
		}
	}
	if err := claim(s.classes, c, c.OID, c.Names); err != nil {
		return err
	}
	s.classList = append(s.classList, c)
	return nil
}

func indexFold(list []string, w string) int {
	for i, x := range list {
		if strings.EqualFold(x, w) {
			return i
		}
	}
	return -1
}

// claim enters a definition under its OID and names, none of which may be taken.
func claim[T any](m map[string]*T, v *T, oid string, names []string) error {
	all := append([]string{oid}, names...)
	for i, n := range all {
		n = strings.ToLower(n)
		if i > 0 && (n == "" || strings.Trim(n, "abcdefghijklmnopqrstuvwxyz0123456789-") != "" || strings.Contains("0123456789-", n[:1])) {
			return fmt.Errorf("%s: %q is not a name", oid, n)
		}
		if _, taken := m[n]; taken {
			return fmt.Errorf("%s: %q is defined already", oid, n)
		}
	}
	for _, n := range all {
		m[strings.ToLower(n)] = v
	}
	return nil
}
