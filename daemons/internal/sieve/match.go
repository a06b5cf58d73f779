package sieve

import (
	"strconv"
	"strings"
	"unicode/utf8"
)

// comparator compares strings (RFC 4790): by octets, by octets with ASCII letters in one case, or as numbers.
type comparator uint8

const (
	casemap comparator = iota // i;ascii-casemap, the default (RFC 5228 §2.7.3)
	octet
	numeric
)

var comparators = map[string]comparator{"i;ascii-casemap": casemap, "i;octet": octet, "i;ascii-numeric": numeric}

type matchKind uint8

const (
	matchIs matchKind = iota
	matchContains
	matchMatches
	matchCount
	matchValue
)

// matcher is the match type, the comparator and the keys of a test (RFC 5228 §2.7, RFC 5231).
type matcher struct {
	kind     matchKind
	relation string // of :count and :value: gt ge lt le eq ne
	cmp      comparator
	keys     []*text
}

var matchTags = tagSet{
	"is":         {group: "match type"},
	"contains":   {group: "match type"},
	"matches":    {group: "match type"},
	"count":      {group: "match type", needs: "relational", takes: argString},
	"value":      {group: "match type", needs: "relational", takes: argString},
	"comparator": {takes: argString},
}

var relations = map[string]func(order int) bool{
	"gt": func(o int) bool { return o > 0 }, "ge": func(o int) bool { return o >= 0 },
	"lt": func(o int) bool { return o < 0 }, "le": func(o int) bool { return o <= 0 },
	"eq": func(o int) bool { return o == 0 }, "ne": func(o int) bool { return o != 0 },
}

// matcher reads the match tags of a test. keys are its last argument.
func (c *compiler) matcher(b *bound, keys *arg) *matcher {
	m := &matcher{keys: c.texts(keys)}
	if a := b.tags["comparator"]; a != nil {
		name := a.strs[0].text
		cmp, ok := comparators[name]
		switch {
		case !ok:
			c.fail(a.strs[0].pos, "there is no comparator %q", name)
		case cmp == numeric && !c.has("comparator-i;ascii-numeric"):
			c.fail(a.strs[0].pos, "the comparator needs: require %q", "comparator-i;ascii-numeric")
		}
		m.cmp = cmp
	}
	switch {
	case b.tag("contains"):
		m.kind = matchContains
	case b.tag("matches"):
		m.kind = matchMatches
	case b.tag("count"):
		m.kind = matchCount
		m.relation = c.relation(b.tags["count"])
	case b.tag("value"):
		m.kind = matchValue
		m.relation = c.relation(b.tags["value"])
	}
	if m.cmp == numeric && (m.kind == matchContains || m.kind == matchMatches) {
		c.fail(b.pos, "the comparator i;ascii-numeric knows no parts of strings: use :is, :value or :count")
	}
	return m
}

func (c *compiler) relation(a *arg) string {
	name := strings.ToLower(a.strs[0].text)
	if relations[name] == nil {
		c.fail(a.pos, "the relation must be one of gt, ge, lt, le, eq, ne, not %q", name)
	}
	return name
}

// any says whether any of the values matches any of the keys. :count compares how many values there are.
func (r *run) any(m *matcher, values []string) (bool, error) {
	if m.kind == matchCount {
		values = []string{strconv.Itoa(len(values))}
	}
	for _, k := range m.keys {
		key, err := r.expand(k)
		if err != nil {
			return false, err
		}
		for _, v := range values {
			yes, err := r.match(m, v, key)
			if yes || err != nil {
				return yes, err
			}
		}
	}
	return false, nil
}

// match compares one value with one key. A pattern that matches sets the match variables (RFC 5229 §3.2).
func (r *run) match(m *matcher, value, key string) (bool, error) {
	if err := r.spend(1 + len(value)/256); err != nil {
		return false, err
	}
	switch m.kind {
	case matchIs:
		return m.cmp.compare(value, key) == 0, nil
	case matchContains:
		if m.cmp == casemap {
			value, key = lower(value), lower(key)
		}
		return strings.Contains(value, key), nil
	case matchMatches:
		if err := r.spend(len(value) * (1 + strings.Count(key, "?")) / 64); err != nil {
			return false, err
		}
		groups, ok := glob(key, value, m.cmp == casemap)
		if ok {
			r.matches = groups
		}
		return ok, nil
	default:
		return relations[m.relation](m.cmp.compare(value, key)), nil
	}
}

func (c comparator) compare(a, b string) int {
	switch c {
	case octet:
		return strings.Compare(a, b)
	case numeric:
		return compareNumbers(a, b)
	}
	return strings.Compare(lower(a), lower(b))
}

// lower turns ASCII letters into lower case, and nothing else.
func lower(s string) string {
	for i := range len(s) {
		if s[i] >= 'A' && s[i] <= 'Z' {
			b := []byte(s)
			for ; i < len(b); i++ {
				if b[i] >= 'A' && b[i] <= 'Z' {
					b[i] |= 0x20
				}
			}
			return string(b)
		}
	}
	return s
}

// compareNumbers compares the digits at the beginning of the strings. A string without them is infinity
// (RFC 4790 §9.1.1).
func compareNumbers(a, b string) int {
	a, aNumber := digits(a)
	b, bNumber := digits(b)
	switch {
	case !aNumber && !bNumber:
		return 0
	case !aNumber:
		return 1
	case !bNumber:
		return -1
	case len(a) != len(b):
		if len(a) < len(b) {
			return -1
		}
		return 1
	}
	return strings.Compare(a, b)
}

func digits(s string) (string, bool) {
	n := 0
	for n < len(s) && isDigit(s[n]) {
		n++
	}
	return strings.TrimLeft(s[:n], "0"), n > 0
}

// glob matches a value against a pattern: * any characters, ? one character, \ the next one as it is
// (RFC 5228 §2.7.1). It returns what the whole and each wildcard stood for; wildcards take as little as they can.
// The time is bounded by the length of the value times that of the longest piece between two stars.
func glob(pattern, value string, fold bool) ([]string, bool) {
	type mark struct{ p, v, groups int } // where to go on with the last star one character longer
	var (
		last   mark
		star   bool
		groups = []string{value}
		p, v   int
	)
	for {
		if p < len(pattern) {
			c := pattern[p]
			switch {
			case c == '*':
				p++
				groups = append(groups, value[v:v])
				last, star = mark{p, v, len(groups)}, true
				continue
			case c == '?' && v < len(value):
				_, n := utf8.DecodeRuneInString(value[v:])
				groups = append(groups, value[v:v+n])
				p++
				v += n
				continue
			case c != '?' && v < len(value):
				n := 1
				if c == '\\' && p+1 < len(pattern) {
					c, n = pattern[p+1], 2
				}
				if c == value[v] || fold && fold1(c) == fold1(value[v]) {
					p += n
					v++
					continue
				}
			}
		} else if v == len(value) {
			return groups, true
		}
		if !star || last.v == len(value) {
			return nil, false
		}
		// The star takes one character more.
		_, n := utf8.DecodeRuneInString(value[last.v:])
		begin := last.v - len(groups[last.groups-1])
		last.v += n
		groups = groups[:last.groups]
		groups[last.groups-1] = value[begin:last.v]
		p, v = last.p, last.v
	}
}

func fold1(c byte) byte {
	if c >= 'A' && c <= 'Z' {
		return c | 0x20
	}
	return c
}
