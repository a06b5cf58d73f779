package dirschema

import (
	"bytes"
	"encoding/hex"
	"strings"
)

// RuleKind says what a matching rule is for.
type RuleKind uint8

// Kinds of matching rules.
const (
	EqualityRule RuleKind = iota
	OrderingRule
	SubstringRule
)

// MatchingRule is a matching rule (RFC 4517 §4.2).
type MatchingRule struct {
	OID, Name string
	Syntax    string // OID of the assertion syntax
	Kind      RuleKind
	spaced    bool // values are prepared strings with insignificant spaces
	norm      func(dst, v []byte) ([]byte, error)
	assertion func(dst, v []byte) ([]byte, error) // of an assertion, where that is not written as a value
	match     func(assertion, value []byte) bool  // of normal forms; nil: they are equal
}

// Normalize appends the normal form of a value to dst. The error says that v has not the syntax that
// the rule compares: the match is Undefined then (RFC 4511 §4.5.1.7).
func (r *MatchingRule) Normalize(dst, v []byte) ([]byte, error) { return r.norm(dst, v) }

// NormalizeAssertion is Normalize for the value of an assertion.
func (r *MatchingRule) NormalizeAssertion(dst, v []byte) ([]byte, error) {
	if r.assertion != nil {
		return r.assertion(dst, v)
	}
	return r.norm(dst, v)
}

// Match reports whether a value satisfies an assertion of a rule that is not a substrings rule. Both are
// normal forms. By an ordering rule the value is the lesser one (RFC 4517 §4.2.3).
func (r *MatchingRule) Match(assertion, value []byte) bool {
	switch {
	case r.match != nil:
		return r.match(assertion, value)
	case r.Kind == OrderingRule:
		return bytes.Compare(value, assertion) < 0
	}
	return bytes.Equal(assertion, value)
}

func (s *Schema) builtinRules() []*MatchingRule {
	octets := func(dst, v []byte) ([]byte, error) { return append(dst, v...), nil }
	firstOID := func(dst, v []byte) ([]byte, error) { return s.oidValue(dst, firstComponent(v)) }
	return []*MatchingRule{
		{OID: "2.5.13.0", Name: "objectIdentifierMatch", Syntax: arc + "38", norm: s.oidValue},
		{OID: "2.5.13.1", Name: "distinguishedNameMatch", Syntax: arc + "12", norm: s.NormalizeDN},
		{OID: "2.5.13.2", Name: "caseIgnoreMatch", Syntax: arc + "15", norm: caseIgnore},
		{OID: "2.5.13.3", Name: "caseIgnoreOrderingMatch", Syntax: arc + "15", Kind: OrderingRule, norm: caseIgnore},
		{OID: "2.5.13.4", Name: "caseIgnoreSubstringsMatch", Syntax: arc + "58", Kind: SubstringRule, spaced: true, norm: caseIgnore},
		{OID: "2.5.13.5", Name: "caseExactMatch", Syntax: arc + "15", norm: caseExact},
		{OID: "2.5.13.6", Name: "caseExactOrderingMatch", Syntax: arc + "15", Kind: OrderingRule, norm: caseExact},
		{OID: "2.5.13.7", Name: "caseExactSubstringsMatch", Syntax: arc + "58", Kind: SubstringRule, spaced: true, norm: caseExact},
		{OID: "2.5.13.8", Name: "numericStringMatch", Syntax: arc + "36", norm: numericString},
		{OID: "2.5.13.9", Name: "numericStringOrderingMatch", Syntax: arc + "36", Kind: OrderingRule, norm: numericString},
		{OID: "2.5.13.10", Name: "numericStringSubstringsMatch", Syntax: arc + "58", Kind: SubstringRule, norm: numericString},
		{OID: "2.5.13.11", Name: "caseIgnoreListMatch", Syntax: arc + "41", norm: caseIgnoreList},
		{OID: "2.5.13.12", Name: "caseIgnoreListSubstringsMatch", Syntax: arc + "58", Kind: SubstringRule, spaced: true, norm: caseIgnoreList},
		{OID: "2.5.13.13", Name: "booleanMatch", Syntax: arc + "7", norm: boolean},
		{OID: "2.5.13.14", Name: "integerMatch", Syntax: arc + "27", norm: integer},
		{OID: "2.5.13.15", Name: "integerOrderingMatch", Syntax: arc + "27", Kind: OrderingRule, norm: integer},
		{OID: "2.5.13.16", Name: "bitStringMatch", Syntax: arc + "6", norm: bits},
		{OID: "2.5.13.17", Name: "octetStringMatch", Syntax: arc + "40", norm: octets},
		{OID: "2.5.13.18", Name: "octetStringOrderingMatch", Syntax: arc + "40", Kind: OrderingRule, norm: octets},
		{OID: "2.5.13.20", Name: "telephoneNumberMatch", Syntax: arc + "50", norm: telephone},
		{OID: "2.5.13.21", Name: "telephoneNumberSubstringsMatch", Syntax: arc + "58", Kind: SubstringRule, norm: telephone},
		{OID: "2.5.13.22", Name: "presentationAddressMatch", Syntax: arc + "43", norm: octets},
		{OID: "2.5.13.23", Name: "uniqueMemberMatch", Syntax: arc + "34", norm: s.nameAndUID},
		{OID: "2.5.13.24", Name: "protocolInformationMatch", Syntax: arc + "42", norm: octets},
		{OID: "2.5.13.27", Name: "generalizedTimeMatch", Syntax: arc + "24", norm: generalizedTime},
		{OID: "2.5.13.28", Name: "generalizedTimeOrderingMatch", Syntax: arc + "24", Kind: OrderingRule, norm: generalizedTime},
		{OID: "2.5.13.29", Name: "integerFirstComponentMatch", Syntax: arc + "27", norm: func(dst, v []byte) ([]byte, error) {
			return integer(dst, firstComponent(v))
		}},
		{OID: "2.5.13.30", Name: "objectIdentifierFirstComponentMatch", Syntax: arc + "38", norm: firstOID},
		{OID: "2.5.13.31", Name: "directoryStringFirstComponentMatch", Syntax: arc + "15", norm: func(dst, v []byte) ([]byte, error) {
			return caseIgnore(dst, firstComponent(v))
		}},
		{OID: "2.5.13.32", Name: "wordMatch", Syntax: arc + "15", norm: caseIgnore, match: hasWord},
		{OID: "2.5.13.33", Name: "keywordMatch", Syntax: arc + "15", norm: caseIgnore, match: hasWord},
		{OID: "2.5.13.34", Name: "certificateExactMatch", Syntax: "1.3.6.1.1.15.1", norm: s.certificate, assertion: s.certificateAssertion},
		{OID: "1.2.840.113556.1.4.803", Name: "integerBitAndMatch", Syntax: arc + "27", norm: bitField, match: allBits},
		{OID: "1.2.840.113556.1.4.804", Name: "integerBitOrMatch", Syntax: arc + "27", norm: bitField, match: anyBit},
		{OID: "1.3.6.1.4.1.4203.666.4.9", Name: "dnSubtreeMatch", Syntax: arc + "12", norm: s.NormalizeDN, match: dnSubtree},
		{OID: "1.3.6.1.4.1.4203.666.4.8", Name: "dnOneLevelMatch", Syntax: arc + "12", norm: s.NormalizeDN, match: dnOneLevel},
		{OID: "1.3.6.1.4.1.4203.666.4.10", Name: "dnSubordinateMatch", Syntax: arc + "12", norm: s.NormalizeDN, match: dnSubordinate},
		{OID: "1.3.6.1.4.1.4203.666.4.11", Name: "dnSuperiorMatch", Syntax: arc + "12", norm: s.NormalizeDN, match: dnSuperior},
		{OID: "1.3.6.1.4.1.1466.109.114.1", Name: "caseExactIA5Match", Syntax: arc + "26", norm: caseExactIA5},
		{OID: "1.3.6.1.4.1.1466.109.114.2", Name: "caseIgnoreIA5Match", Syntax: arc + "26", norm: caseIgnoreIA5},
		{OID: "1.3.6.1.4.1.1466.109.114.3", Name: "caseIgnoreIA5SubstringsMatch", Syntax: arc + "58", Kind: SubstringRule, spaced: true, norm: caseIgnoreIA5},
		{OID: "1.3.6.1.4.1.4203.1.2.1", Name: "caseExactIA5SubstringsMatch", Syntax: arc + "58", Kind: SubstringRule, spaced: true, norm: caseExactIA5},
		{OID: "1.3.6.1.1.16.2", Name: "UUIDMatch", Syntax: "1.3.6.1.1.16.1", norm: uuid},
		{OID: "1.3.6.1.1.16.3", Name: "UUIDOrderingMatch", Syntax: "1.3.6.1.1.16.1", Kind: OrderingRule, norm: uuid},
		{OID: "1.3.6.1.4.1.4203.666.11.2.2", Name: "CSNMatch", Syntax: "1.3.6.1.4.1.4203.666.11.2.1", norm: csn},
		{OID: "1.3.6.1.4.1.4203.666.11.2.3", Name: "CSNOrderingMatch", Syntax: "1.3.6.1.4.1.4203.666.11.2.1", Kind: OrderingRule, norm: csn},
	}
}

// oidValue gives the numeric form of a name that the schema knows, and lower case of what it does not.
func (s *Schema) oidValue(dst, v []byte) ([]byte, error) {
	v = bytes.TrimSpace(v)
	if c := s.Class(v); c != nil {
		return append(dst, c.OID...), nil
	}
	if a := s.Attribute(v); a != nil {
		return append(dst, a.OID...), nil
	}
	if r := s.Rule(v); r != nil {
		return append(dst, r.OID...), nil
	}
	if !validOID(string(v)) {
		return dst, errSyntax
	}
	return foldASCII(dst, v), nil
}

// firstComponent is the OID of "( OID ..." or all of v, which an assertion is.
func firstComponent(v []byte) []byte {
	v = bytes.TrimLeft(v, " ")
	if len(v) == 0 || v[0] != '(' {
		return v
	}
	v = bytes.TrimLeft(v[1:], " ")
	if i := bytes.IndexAny(v, " )"); i >= 0 {
		v = v[:i]
	}
	return v
}

func boolean(dst, v []byte) ([]byte, error) {
	if !bytes.EqualFold(v, []byte("TRUE")) && !bytes.EqualFold(v, []byte("FALSE")) {
		return dst, errSyntax
	}
	return append(dst, bytes.ToUpper(v)...), nil
}

// integer makes bytes that compare as the numbers do: sign, number of digits, digits; both of the
// latter complemented below zero.
func integer(dst, v []byte) ([]byte, error) {
	d := bytes.TrimPrefix(v, []byte("-"))
	if len(d) == 0 || len(d) > 256 || len(bytes.Trim(d, "0123456789")) > 0 {
		return dst, errSyntax
	}
	negative := len(d) < len(v)
	if d = bytes.TrimLeft(d, "0"); len(d) == 0 {
		d, negative = []byte("0"), false
	}
	n := len(d)
	if !negative {
		return append(append(dst, 0x80, byte(n>>8), byte(n)), d...), nil
	}
	dst = append(dst, 0x7f, ^byte(n>>8), ^byte(n))
	for _, c := range d {
		dst = append(dst, '0'+'9'-c)
	}
	return dst, nil
}

func bits(dst, v []byte) ([]byte, error) {
	if !validBits(v) {
		return dst, errSyntax
	}
	return append(dst, v...), nil
}

func generalizedTime(dst, v []byte) ([]byte, error) {
	t, fraction, ok := parseTime(v)
	if !ok {
		return dst, errSyntax
	}
	dst = t.AppendFormat(dst, "20060102150405")
	if fraction != "" {
		dst = append(append(dst, '.'), fraction...)
	}
	return dst, nil
}

// uuid gives the 16 octets of the text form (RFC 4530 §2.1).
func uuid(dst, v []byte) ([]byte, error) {
	if len(v) != 36 || v[8] != '-' || v[13] != '-' || v[18] != '-' || v[23] != '-' {
		return dst, errSyntax
	}
	var text [32]byte
	n := copy(text[:], v[:8])
	n += copy(text[n:], v[9:13])
	n += copy(text[n:], v[14:18])
	n += copy(text[n:], v[19:23])
	copy(text[n:], v[24:])
	out, err := hex.AppendDecode(dst, text[:])
	if err != nil {
		return dst, errSyntax
	}
	return out, nil
}

// csn = YYYYMMDDHHMMSS "." 6DIGIT "Z#" 6HEX "#" 3HEX "#" 6HEX
func csn(dst, v []byte) ([]byte, error) {
	const shape = "00000000000000.000000Z#hhhhhh#hhh#hhhhhh"
	if len(v) != len(shape) {
		return dst, errSyntax
	}
	for i, c := range v {
		switch w := shape[i]; w {
		case '0':
			if c < '0' || c > '9' {
				return dst, errSyntax
			}
		case 'h':
			if strings.IndexByte("0123456789abcdefABCDEF", c) < 0 {
				return dst, errSyntax
			}
		default:
			if c != w {
				return dst, errSyntax
			}
		}
	}
	// The letters of the shape are capitals, those of the numbers small.
	dst = append(dst, v[:22]...)
	return foldASCII(dst, v[22:]), nil
}

// nameAndUID = dn [ "#" bitstring ]
func (s *Schema) nameAndUID(dst, v []byte) ([]byte, error) {
	var uid []byte
	if i := bytes.LastIndexByte(v, '#'); i >= 0 && validBits(v[i+1:]) {
		v, uid = v[:i], v[i:]
	}
	dst, err := s.NormalizeDN(dst, v)
	return append(dst, uid...), err
}

// Places of a substring in NormalizePiece.
const (
	Initial uint8 = 0
	Any     uint8 = 1
	Final   uint8 = 2
)

// NormalizePiece appends the normal form of one piece of a substrings assertion to dst, for
// MatchSubstrings (RFC 4518 §2.6.1: where a piece begins or ends with a space, one space counts).
func (r *MatchingRule) NormalizePiece(dst, v []byte, place uint8) ([]byte, error) {
	if !r.spaced {
		return r.norm(dst, v)
	}
	start := len(dst)
	out, err := r.norm(dst, v)
	if err != nil {
		return dst, err
	}
	bare := bytes.Clone(out[start:])
	dst = dst[:start]
	if place == Initial || len(v) > 0 && v[0] == ' ' {
		dst = append(dst, ' ')
	}
	if len(bare) == 0 {
		if len(dst) == start && len(v) > 0 {
			dst = append(dst, ' ')
		}
		return dst, nil
	}
	dst = appendSpaced(dst, bare)
	if place == Final || v[len(v)-1] == ' ' {
		dst = append(dst, ' ')
	}
	return dst, nil
}

func appendSpaced(dst, v []byte) []byte {
	for _, c := range v {
		if c == ' ' {
			dst = append(dst, ' ')
		}
		dst = append(dst, c)
	}
	return dst
}

// MatchSubstrings matches a normalized value with normalized pieces in their order. The scratch
// buffer is used where the rule needs one.
func (r *MatchingRule) MatchSubstrings(value []byte, n int, piece func(i int) (place uint8, v []byte), scratch []byte) bool {
	if r.spaced {
		scratch = append(scratch[:0], ' ')
		scratch = appendSpaced(scratch, value)
		value = append(scratch, ' ')
	}
	for i := range n {
		place, p := piece(i)
		switch place {
		case Initial:
			if !bytes.HasPrefix(value, p) {
				return false
			}
			value = value[len(p):]
		case Any:
			at := bytes.Index(value, p)
			if at < 0 {
				return false
			}
			value = value[at+len(p):]
		default:
			if !bytes.HasSuffix(value, p) {
				return false
			}
		}
	}
	return true
}
