package ldapwire

import (
	"fmt"
	"strings"
)

// FilterOp is the kind of a filter term (RFC 4511 §4.5.1.7).
type FilterOp uint8

// Kinds of terms, numbered as their context tags.
const (
	And            FilterOp = 0
	Or             FilterOp = 1
	Not            FilterOp = 2
	Equality       FilterOp = 3
	Substrings     FilterOp = 4
	GreaterOrEqual FilterOp = 5
	LessOrEqual    FilterOp = 6
	Present        FilterOp = 7
	Approx         FilterOp = 8
	Extensible     FilterOp = 9
)

// Places of a substring.
const (
	Initial uint8 = 0
	Any     uint8 = 1
	Final   uint8 = 2
)

// Substring is one piece of a substrings term.
type Substring struct {
	Place uint8
	Value []byte
}

// Node is one term. Nodes stand in prefix order: the terms inside of Nodes[i] are
// Nodes[i+1:Nodes[i].End], the first of them at i+1, the next one at that one's End.
type Node struct {
	Op      FilterOp
	DNAttrs bool // Extensible: dnAttributes
	End     int
	Attr    []byte // empty for And, Or, Not, and for an Extensible term without a type
	Value   []byte // assertion value; nil for Present and Substrings
	Rule    []byte // Extensible: matchingRule, or nil
	Sub     int    // Substrings: the pieces are Filter.Subs[Sub:SubEnd]
	SubEnd  int
}

// Filter is a parsed filter, flat and reusable.
type Filter struct {
	Nodes []Node
	Subs  []Substring
}

func (f *Filter) reset() { f.Nodes, f.Subs = f.Nodes[:0], f.Subs[:0] }

// Parse reads one encoded filter, which must fill b.
func (f *Filter) Parse(b []byte, lim Limits) error {
	lim = lim.orDefault()
	f.reset()
	rest, err := f.parse(b, lim.FilterDepth, lim.FilterTerms)
	if err == nil && len(rest) > 0 {
		err = ErrBER
	}
	return err
}

// Filter ::= CHOICE { and [0] SET OF Filter, or [1] SET OF Filter, not [2] Filter,
//     equalityMatch [3] AVA, substrings [4] SubstringFilter, greaterOrEqual [5] AVA,
//     lessOrEqual [6] AVA, present [7] AttributeDescription, approxMatch [8] AVA,
//     extensibleMatch [9] MatchingRuleAssertion }

func (f *Filter) parse(b []byte, depth, terms int) (rest []byte, err error) {
	tag, c, rest, err := element(b)
	if err != nil {
		return nil, err
	}
	if len(f.Nodes) >= terms {
		return nil, Errorf(AdminLimitExceeded, "filter of more than %d terms", terms)
	}
	i := len(f.Nodes)
	n := Node{Op: FilterOp(tag & 0x1f)}
	f.Nodes = append(f.Nodes, n)
	switch tag {
	case 0xa0, 0xa1, 0xa2:
		if depth <= 1 {
			return nil, Errorf(AdminLimitExceeded, "filter nested too deep")
		}
		for first := true; len(c) > 0 || first && tag == 0xa2; first = false {
			if !first && tag == 0xa2 {
				return nil, fmt.Errorf("%w: not of several filters", ErrBER)
			}
			if c, err = f.parse(c, depth-1, terms); err != nil {
				return nil, err
			}
		}
	case 0xa3, 0xa5, 0xa6, 0xa8:
		if n.Attr, c, err = expect(c, tagOctetString); err != nil {
			return nil, err
		}
		if n.Value, _, err = expect(c, tagOctetString); err != nil {
			return nil, err
		}
	case 0xa4:
		if err = f.substrings(&n, c); err != nil {
			return nil, err
		}
	case 0x87:
		n.Attr = c
	case 0xa9:
		if err = n.extensible(c); err != nil {
			return nil, err
		}
	default:
		return nil, Errorf(ProtocolError, "filter choice 0x%02x", tag)
	}
	n.End = len(f.Nodes)
	f.Nodes[i] = n
	return rest, nil
}

// SubstringFilter ::= SEQUENCE { type AttributeDescription, substrings SEQUENCE SIZE (1..MAX) OF
//     CHOICE { initial [0] AssertionValue,  -- once, first
//              any     [1] AssertionValue,
//              final   [2] AssertionValue } }  -- once, last

func (f *Filter) substrings(n *Node, c []byte) (err error) {
	if n.Attr, c, err = expect(c, tagOctetString); err != nil {
		return err
	}
	list, _, err := expect(c, tagSequence)
	if err != nil {
		return err
	}
	n.Sub = len(f.Subs)
	for len(list) > 0 {
		tag, v, rest, err := element(list)
		if err != nil {
			return err
		}
		place := tag - 0x80
		first := len(f.Subs) == n.Sub
		if tag < 0x80 || place > Final || place == Initial && !first || place == Final && len(rest) > 0 {
			return Errorf(ProtocolError, "substring choice 0x%02x out of place", tag)
		}
		if len(f.Subs)-n.Sub >= 64 {
			return Errorf(AdminLimitExceeded, "more than 64 substrings in one term")
		}
		f.Subs = append(f.Subs, Substring{place, v})
		list = rest
	}
	n.SubEnd = len(f.Subs)
	if n.SubEnd == n.Sub {
		return Errorf(ProtocolError, "substrings filter without a substring")
	}
	return nil
}

// MatchingRuleAssertion ::= SEQUENCE { matchingRule [1] MatchingRuleId OPTIONAL,
//     type [2] AttributeDescription OPTIONAL, matchValue [3] AssertionValue,
//     dnAttributes [4] BOOLEAN DEFAULT FALSE }

func (n *Node) extensible(c []byte) (err error) {
	if len(c) > 0 && c[0] == 0x81 {
		if n.Rule, c, err = expect(c, 0x81); err != nil {
			return err
		}
	}
	if len(c) > 0 && c[0] == 0x82 {
		if n.Attr, c, err = expect(c, 0x82); err != nil {
			return err
		}
	}
	if n.Value, c, err = expect(c, 0x83); err != nil {
		return err
	}
	if len(c) > 0 && c[0] == 0x84 {
		if n.DNAttrs, _, err = takeBoolean(c, 0x84); err != nil {
			return err
		}
	}
	if n.Rule == nil && n.Attr == nil {
		return Errorf(ProtocolError, "extensible match with neither rule nor type")
	}
	return nil
}

// String gives the filter as RFC 4515 writes it, for logs.
func (f *Filter) String() string {
	var b strings.Builder
	if len(f.Nodes) > 0 {
		f.write(&b, 0)
	}
	return b.String()
}

func (f *Filter) write(b *strings.Builder, i int) {
	n := &f.Nodes[i]
	b.WriteByte('(')
	switch n.Op {
	case And, Or, Not:
		b.WriteByte("&|!"[n.Op])
		for j := i + 1; j < n.End; j = f.Nodes[j].End {
			f.write(b, j)
		}
	case Present:
		b.Write(n.Attr)
		b.WriteString("=*")
	case Substrings:
		b.Write(n.Attr)
		b.WriteByte('=')
		for j, s := range f.Subs[n.Sub:n.SubEnd] {
			if s.Place != Initial && (j == 0 || s.Place == Any) || j > 0 {
				b.WriteByte('*')
			}
			escape(b, s.Value)
		}
		if f.Subs[n.SubEnd-1].Place != Final {
			b.WriteByte('*')
		}
	case Extensible:
		b.Write(n.Attr)
		if n.DNAttrs {
			b.WriteString(":dn")
		}
		if n.Rule != nil {
			b.WriteByte(':')
			b.Write(n.Rule)
		}
		b.WriteString(":=")
		escape(b, n.Value)
	default:
		b.Write(n.Attr)
		b.WriteString(map[FilterOp]string{Equality: "=", GreaterOrEqual: ">=", LessOrEqual: "<=", Approx: "~="}[n.Op])
		escape(b, n.Value)
	}
	b.WriteByte(')')
}

func escape(b *strings.Builder, v []byte) {
	for _, c := range v {
		if c < 0x20 || c >= 0x7f || c == '*' || c == '(' || c == ')' || c == '\\' {
			fmt.Fprintf(b, "\\%02x", c)
		} else {
			b.WriteByte(c)
		}
	}
}
