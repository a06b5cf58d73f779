package dirschema

import (
	"bytes"
	"encoding/hex"
	"slices"
	"unicode/utf8"
)

// The string form of a distinguished name (RFC 4514 §3), with spaces allowed around separators as
// older forms had them:
//
//	distinguishedName = [ rdn *( "," rdn ) ]
//	rdn               = ava *( "+" ava )
//	ava               = attributeType "=" ( string / "#" hexstring )
//	string            = characters; special ones escaped by "\" or written "\" HEX HEX
//
// The normal form, which is what the store and the indexes compare, has the type's first name in
// lower case, the value in the normal form of the type's equality rule with ',' '+' '\' and NUL as
// "\" and two hexadecimal digits, the parts of a multi-valued RDN in order, and no spaces around.

// Bounds of a name.
const (
	maxDN   = 8192
	maxRDNs = 128
	maxAVAs = 16
)

// AVA is one attribute and value of a name. Type is nil when the schema does not know Name.
type AVA struct {
	Type  *AttributeType
	Name  []byte
	Value []byte
}

// RDN is a relative distinguished name, DN a distinguished name, the entry's own RDN first.
type (
	RDN []AVA
	DN  []RDN
)

// ParseDN parses a distinguished name. The empty string is the empty name. The error is a *Violation.
func (s *Schema) ParseDN(b []byte) (DN, error) {
	if len(b) > maxDN {
		return nil, violation(InvalidDN, "name of more than %d bytes", maxDN)
	}
	rest := trimLeft(b)
	if len(rest) == 0 {
		return DN{}, nil
	}
	dn := make(DN, 0, 4)
	for {
		rdn, after, err := s.parseRDN(rest)
		if err != nil {
			return nil, violation(InvalidDN, "%q: %v", clip(b), err)
		}
		if dn = append(dn, rdn); len(dn) > maxRDNs {
			return nil, violation(InvalidDN, "name of more than %d parts", maxRDNs)
		}
		if len(after) == 0 {
			return dn, nil
		}
		rest = after[1:]
	}
}

// ParseRDN parses a relative distinguished name, which must fill b.
func (s *Schema) ParseRDN(b []byte) (RDN, error) {
	dn, err := s.ParseDN(b)
	if err != nil {
		return nil, err
	}
	if len(dn) != 1 {
		return nil, violation(InvalidDN, "%q is not a relative name", clip(b))
	}
	return dn[0], nil
}

func trimLeft(b []byte) []byte { return bytes.TrimLeft(b, " ") }

func (s *Schema) parseRDN(b []byte) (rdn RDN, rest []byte, err error) {
	for {
		name, after, found := cutByte(b, '=')
		name = bytes.Trim(name, " ")
		if !found || !validOID(string(name)) {
			return nil, nil, violation(InvalidDN, "attribute type expected at %q", clip(b))
		}
		ava := AVA{Type: s.Attribute(name), Name: name}
		if ava.Value, b, err = parseValue(trimLeft(after)); err != nil {
			return nil, nil, err
		}
		if rdn = append(rdn, ava); len(rdn) > maxAVAs {
			return nil, nil, violation(InvalidDN, "more than %d values in one part", maxAVAs)
		}
		if len(b) == 0 || b[0] == ',' {
			return rdn, b, nil
		}
		b = trimLeft(b[1:])
	}
}

// parseValue reads a value up to an unescaped ',' or '+' or the end; rest begins with the separator.
func parseValue(b []byte) (v, rest []byte, err error) {
	if len(b) > 0 && b[0] == '#' {
		return hexValue(b[1:])
	}
	keep := 0 // length of v that trailing spaces do not count in
	for i := 0; i < len(b); i++ {
		c := b[i]
		switch c {
		case ',', '+':
			return v[:keep], b[i:], nil
		case '"', ';', '<', '>', 0:
			return nil, nil, violation(InvalidDN, "unescaped %q", c)
		case '\\':
			if i+1 >= len(b) {
				return nil, nil, violation(InvalidDN, "escape at the end")
			}
			i++
			if bytes.IndexByte([]byte(" \"#+,;<=>\\"), b[i]) >= 0 {
				v = append(v, b[i])
			} else {
				if i+1 >= len(b) {
					return nil, nil, violation(InvalidDN, "escape at the end")
				}
				var err error
				if v, err = hex.AppendDecode(v, b[i:i+2]); err != nil {
					return nil, nil, violation(InvalidDN, "escape \\%s", clip(b[i:i+2]))
				}
				i++
			}
			keep = len(v)
			continue
		}
		v = append(v, c)
		if c != ' ' {
			keep = len(v)
		}
	}
	return v[:keep], nil, nil
}

// hexValue reads "#" followed by the BER of the value: the content of a primitive element is taken.
func hexValue(b []byte) (v, rest []byte, err error) {
	end := bytes.IndexAny(b, ",+")
	if end < 0 {
		end = len(b)
	}
	raw, err := hex.AppendDecode(nil, bytes.TrimRight(b[:end], " "))
	if err != nil || len(raw) < 2 {
		return nil, nil, violation(InvalidDN, "hexadecimal value")
	}
	n, h := int(raw[1]), 2
	switch {
	case raw[1] == 0x81 && len(raw) > 2:
		n, h = int(raw[2]), 3
	case raw[1] == 0x82 && len(raw) > 3:
		n, h = int(raw[2])<<8|int(raw[3]), 4
	case raw[1] >= 0x80:
		n = -1
	}
	if raw[0]&0x20 != 0 || n != len(raw)-h {
		return nil, nil, violation(InvalidDN, "hexadecimal value is not the BER of a string")
	}
	return raw[h:], b[end:], nil
}

// AppendNormal appends the normal form of the RDN.
func (r RDN) AppendNormal(dst []byte) ([]byte, error) {
	if len(r) == 1 {
		return r[0].appendNormal(dst)
	}
	parts := make([][]byte, len(r))
	for i := range r {
		var err error
		if parts[i], err = r[i].appendNormal(nil); err != nil {
			return dst, err
		}
	}
	slices.SortFunc(parts, bytes.Compare)
	return append(dst, bytes.Join(parts, []byte("+"))...), nil
}

func (a *AVA) appendNormal(dst []byte) ([]byte, error) {
	norm := caseIgnore
	if a.Type == nil {
		dst = foldASCII(dst, a.Name)
	} else {
		dst = append(dst, a.Type.lower...)
		norm = func(dst, v []byte) ([]byte, error) { return append(dst, v...), nil }
		if a.Type.Equality != nil {
			norm = a.Type.Equality.norm
		}
	}
	dst = append(dst, '=')
	v, err := norm(make([]byte, 0, 64), a.Value)
	if err != nil {
		return dst, violation(InvalidDN, "%s: value has not the syntax of the attribute", a.Name)
	}
	for _, c := range v {
		if c == ',' || c == '+' || c == '\\' || c == 0 {
			dst = append(dst, '\\', "0123456789abcdef"[c>>4], "0123456789abcdef"[c&15])
		} else {
			dst = append(dst, c)
		}
	}
	return dst, nil
}

// AppendNormal appends the normal form of the name.
func (d DN) AppendNormal(dst []byte) ([]byte, error) {
	var err error
	for i, r := range d {
		if i > 0 {
			dst = append(dst, ',')
		}
		if dst, err = r.AppendNormal(dst); err != nil {
			return dst, err
		}
	}
	return dst, nil
}

// NormalizeDN appends the normal form of a name in its string form to dst.
func (s *Schema) NormalizeDN(dst, v []byte) ([]byte, error) {
	dn, err := s.ParseDN(v)
	if err != nil {
		return dst, err
	}
	return dn.AppendNormal(dst)
}

// Append appends the string form that the store keeps and returns: first names of the types, values
// as given, escapes of RFC 4514 §2.4 where they are needed.
func (r RDN) Append(dst []byte) []byte {
	for i := range r {
		if i > 0 {
			dst = append(dst, '+')
		}
		if r[i].Type != nil {
			dst = append(dst, r[i].Type.Name()...)
		} else {
			dst = append(dst, r[i].Name...)
		}
		dst = append(dst, '=')
		dst = appendEscaped(dst, r[i].Value)
	}
	return dst
}

// String is the name in the form of Append.
func (r RDN) String() string { return string(r.Append(nil)) }

// String is the name in the form of RDN.Append.
func (d DN) String() string {
	var b []byte
	for i, r := range d {
		if i > 0 {
			b = append(b, ',')
		}
		b = r.Append(b)
	}
	return string(b)
}

func appendEscaped(dst, v []byte) []byte {
	text := utf8.Valid(v)
	for i, c := range v {
		switch {
		case c == 0 || c < ' ' || c == 0x7f || !text && c >= 0x80:
			dst = append(dst, '\\', "0123456789ABCDEF"[c>>4], "0123456789ABCDEF"[c&15])
			continue
		case bytes.IndexByte([]byte("\"+,;<>\\"), c) >= 0, c == '#' && i == 0, c == ' ' && (i == 0 || i == len(v)-1):
			dst = append(dst, '\\')
		}
		dst = append(dst, c)
	}
	return dst
}
