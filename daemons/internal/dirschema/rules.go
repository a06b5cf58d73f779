package dirschema

import (
	"bytes"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/binary"
	"math/big"
	"strconv"
	"strings"
	"unicode"
)

// Matching rules that are more than the equality of normal forms.

// AppliesTo reports whether a rule is for values of the type: it is one of the type's own, or compares its
// syntax in a way that no attribute names (RFC 4512 §4.1.4).
func (r *MatchingRule) AppliesTo(a *AttributeType) bool {
	if a.Equality == r || a.Ordering == r || a.Substr == r {
		return true
	}
	return r.match != nil && a.Syntax.OID == r.Syntax && a.Equality != nil
}

// hasWord: RFC 4517 §4.2.21 and §4.2.32. What the words of a value are is left to the server; here they are
// runs of letters and digits. A keyword may be any of them.
func hasWord(assertion, value []byte) bool {
	for _, w := range bytes.FieldsFunc(value, notWord) {
		if bytes.Equal(w, assertion) {
			return true
		}
	}
	return false
}

func notWord(c rune) bool { return !unicode.IsLetter(c) && !unicode.IsDigit(c) && !unicode.IsMark(c) }

// bitField is an integer of 64 bits, as AD's bit rules compare them.
func bitField(dst, v []byte) ([]byte, error) {
	n, err := strconv.ParseInt(string(v), 10, 64)
	if err != nil {
		return dst, errSyntax
	}
	return binary.BigEndian.AppendUint64(dst, uint64(n)), nil
}

func allBits(assertion, value []byte) bool {
	a := binary.BigEndian.Uint64(assertion)
	return binary.BigEndian.Uint64(value)&a == a
}

func anyBit(assertion, value []byte) bool {
	return binary.BigEndian.Uint64(value)&binary.BigEndian.Uint64(assertion) != 0
}

// Rules of OpenLDAP about where a name lies.

func dnSubtree(top, name []byte) bool {
	return bytes.HasSuffix(name, top) && (len(top) == 0 || len(name) == len(top) || name[len(name)-len(top)-1] == ',')
}

func dnSubordinate(top, name []byte) bool { return len(name) > len(top) && dnSubtree(top, name) }
func dnSuperior(name, top []byte) bool    { return dnSubtree(top, name) }

func dnOneLevel(top, name []byte) bool {
	if !dnSubordinate(top, name) {
		return false
	}
	if len(top) > 0 {
		name = name[:len(name)-len(top)-1]
	}
	return bytes.IndexByte(name, ',') < 0
}

// Of a certificate the serial number and the issuer count (RFC 4523 §2.1: certificateExactMatch). The normal form is
// the number in decimal, '$', the issuer's normal form.

// certificate gives it of the DER of a certificate.
//
//	Certificate ::= SEQUENCE { tbsCertificate SEQUENCE { version [0] OPTIONAL, serialNumber INTEGER,
//	    signature SEQUENCE, issuer Name, ... }, ... }
func (s *Schema) certificate(dst, v []byte) ([]byte, error) {
	var outer, tbs, field asn1.RawValue
	if _, err := asn1.Unmarshal(v, &outer); err != nil || outer.Tag != asn1.TagSequence {
		return dst, errSyntax
	}
	if _, err := asn1.Unmarshal(outer.Bytes, &tbs); err != nil || tbs.Tag != asn1.TagSequence {
		return dst, errSyntax
	}
	rest, err := asn1.Unmarshal(tbs.Bytes, &field)
	if err != nil {
		return dst, errSyntax
	}
	if field.Class == asn1.ClassContextSpecific && field.Tag == 0 {
		if rest, err = asn1.Unmarshal(rest, &field); err != nil {
			return dst, errSyntax
		}
	}
	serial := new(big.Int)
	if _, err := asn1.Unmarshal(field.FullBytes, &serial); err != nil {
		return dst, errSyntax
	}
	if rest, err = asn1.Unmarshal(rest, &field); err != nil {
		return dst, errSyntax
	}
	var issuer pkix.RDNSequence
	if _, err = asn1.Unmarshal(rest, &issuer); err != nil {
		return dst, errSyntax
	}
	return s.serialAndIssuer(dst, serial.String(), issuer.String())
}

func (s *Schema) serialAndIssuer(dst []byte, serial, issuer string) ([]byte, error) {
	start := len(dst)
	out, err := s.NormalizeDN(append(append(dst, serial...), '$'), []byte(issuer))
	if err != nil {
		return dst[:start], errSyntax
	}
	return out, nil
}

// certificateAssertion reads an assertion: a certificate, or its serial number and issuer in the form of GSER (RFC 4523 §A.1), or the older
// form of RFC 2256's time.
//
//	assertion = "{" sp "serialNumber" sp number "," sp "issuer" sp "rdnSequence:" quoted sp "}"
//	          / number "$" dn
//	quoted    = DQUOTE *( any but DQUOTE / 2DQUOTE ) DQUOTE
func (s *Schema) certificateAssertion(dst, v []byte) ([]byte, error) {
	if len(v) > 0 && v[0] == 0x30 && v[len(v)-1] != '}' {
		return s.certificate(dst, v)
	}
	text := strings.TrimSpace(string(v))
	inner, gser := strings.CutPrefix(text, "{")
	if !gser {
		serial, issuer, ok := strings.Cut(text, "$")
		if serial = strings.TrimSpace(serial); !ok || !validInteger([]byte(serial)) {
			return dst, errSyntax
		}
		return s.serialAndIssuer(dst, serial, issuer)
	}
	var serial, issuer string
	for inner = strings.TrimSpace(inner); inner != "}"; {
		word, rest, ok := strings.Cut(inner, " ")
		rest = strings.TrimLeft(rest, " ")
		switch {
		case !ok:
			return dst, errSyntax
		case word == "serialNumber" && serial == "":
			n := strings.IndexAny(rest, ", }")
			if n <= 0 || !validInteger([]byte(rest[:n])) {
				return dst, errSyntax
			}
			serial, inner = rest[:n], rest[n:]
		case word == "issuer" && issuer == "":
			if rest, ok = strings.CutPrefix(rest, "rdnSequence:"); !ok {
				return dst, errSyntax
			}
			if issuer, inner, ok = quoted(strings.TrimLeft(rest, " ")); !ok {
				return dst, errSyntax
			}
		default:
			return dst, errSyntax
		}
		inner = strings.TrimLeft(inner, " ")
		if after, more := strings.CutPrefix(inner, ","); more {
			inner = strings.TrimLeft(after, " ")
		} else if inner != "}" {
			return dst, errSyntax
		}
	}
	if serial == "" || issuer == "" {
		return dst, errSyntax
	}
	return s.serialAndIssuer(dst, serial, issuer)
}

// quoted reads a GSER string (RFC 3641 §3.2).
func quoted(s string) (v, rest string, ok bool) {
	if s == "" || s[0] != '"' {
		return "", "", false
	}
	var b strings.Builder
	for i := 1; i < len(s); i++ {
		if s[i] != '"' {
			b.WriteByte(s[i])
			continue
		}
		if i+1 < len(s) && s[i+1] == '"' {
			b.WriteByte('"')
			i++
			continue
		}
		return b.String(), s[i+1:], true
	}
	return "", "", false
}
