package dirschema

import (
	"bytes"
	"strings"
	"time"
	"unicode/utf8"
)

// Syntax is an LDAP syntax (RFC 4517 §3.3).
type Syntax struct {
	OID  string
	Desc string
	// Binary says that values are no text: tools show them in base64.
	Binary bool
	// Transfer says that values are moved as ";binary" only (RFC 4522 §3, RFC 4523 §2).
	Transfer bool
	valid    func(*Schema, []byte) bool
}

const arc = "1.3.6.1.4.1.1466.115.121.1."

var syntaxes = []*Syntax{
	{OID: arc + "3", Desc: "Attribute Type Description", valid: validText},
	{OID: arc + "4", Desc: "Audio", Binary: true, valid: validAny},
	{OID: arc + "5", Desc: "Binary", Binary: true, valid: validAny},
	{OID: arc + "6", Desc: "Bit String", valid: func(_ *Schema, v []byte) bool { return validBits(v) }},
	{OID: arc + "7", Desc: "Boolean", valid: func(_ *Schema, v []byte) bool { return string(v) == "TRUE" || string(v) == "FALSE" }},
	{OID: arc + "8", Transfer: true, Desc: "Certificate", Binary: true, valid: validDER},
	{OID: arc + "9", Transfer: true, Desc: "Certificate List", Binary: true, valid: validDER},
	{OID: arc + "10", Transfer: true, Desc: "Certificate Pair", Binary: true, valid: validDER},
	{OID: arc + "11", Desc: "Country String", valid: func(_ *Schema, v []byte) bool { return len(v) == 2 && validPrintable(nil, v) }},
	{OID: arc + "12", Desc: "DN", valid: func(s *Schema, v []byte) bool { _, err := s.ParseDN(v); return err == nil }},
	{OID: arc + "13", Desc: "Data Quality", valid: validText},
	{OID: arc + "14", Desc: "Delivery Method", valid: validPrintable},
	{OID: arc + "15", Desc: "Directory String", valid: validText},
	{OID: arc + "19", Desc: "DSA Quality", valid: validText},
	{OID: arc + "21", Desc: "Enhanced Guide", valid: validText},
	{OID: arc + "22", Desc: "Facsimile Telephone Number", valid: func(_ *Schema, v []byte) bool {
		number, _, _ := cutByte(v, '$')
		return validPrintable(nil, number)
	}},
	{OID: arc + "23", Desc: "Fax", Binary: true, valid: validAny},
	{OID: arc + "24", Desc: "Generalized Time", valid: func(_ *Schema, v []byte) bool { _, _, ok := parseTime(v); return ok }},
	{OID: arc + "25", Desc: "Guide", valid: validText},
	{OID: arc + "26", Desc: "IA5 String", valid: func(_ *Schema, v []byte) bool { return ia5(v) }},
	{OID: arc + "27", Desc: "INTEGER", valid: func(_ *Schema, v []byte) bool { return validInteger(v) }},
	{OID: arc + "28", Desc: "JPEG", Binary: true, valid: validAny},
	{OID: arc + "30", Desc: "Matching Rule Description", valid: validText},
	{OID: arc + "31", Desc: "Matching Rule Use Description", valid: validText},
	{OID: arc + "34", Desc: "Name And Optional UID", valid: func(s *Schema, v []byte) bool {
		_, err := s.nameAndUID(nil, v)
		return err == nil
	}},
	{OID: arc + "36", Desc: "Numeric String", valid: func(_ *Schema, v []byte) bool {
		return len(v) > 0 && len(bytes.Trim(v, "0123456789 ")) == 0
	}},
	{OID: arc + "37", Desc: "Object Class Description", valid: validText},
	{OID: arc + "38", Desc: "OID", valid: func(_ *Schema, v []byte) bool { return validOID(string(v)) }},
	{OID: arc + "39", Desc: "Other Mailbox", valid: validText},
	{OID: arc + "40", Desc: "Octet String", valid: validAny},
	{OID: arc + "41", Desc: "Postal Address", valid: validText},
	{OID: arc + "42", Desc: "Protocol Information", valid: validText},
	{OID: arc + "43", Desc: "Presentation Address", valid: validText},
	{OID: arc + "44", Desc: "Printable String", valid: validPrintable},
	{OID: arc + "45", Desc: "Subtree Specification", valid: validText},
	{OID: arc + "49", Desc: "Supported Algorithm", Transfer: true, Binary: true, valid: validDER},
	{OID: arc + "50", Desc: "Telephone Number", valid: validPrintable},
	{OID: arc + "51", Desc: "Teletex Terminal Identifier", valid: validAny},
	{OID: arc + "52", Desc: "Telex Number", valid: validPrintable},
	{OID: arc + "54", Desc: "LDAP Syntax Description", valid: validText},
	{OID: arc + "58", Desc: "Substring Assertion", valid: validText},
	{OID: "1.3.6.1.1.1.0.0", Desc: "RFC2307 NIS Netgroup Triple", valid: validText},
	{OID: "1.3.6.1.1.1.0.1", Desc: "RFC2307 Boot Parameter", valid: validText},
	{OID: "1.3.6.1.1.15.1", Desc: "X.509 Certificate Exact Assertion", valid: validText},
	{OID: "1.3.6.1.1.16.1", Desc: "UUID", valid: func(_ *Schema, v []byte) bool { _, err := uuid(nil, v); return err == nil }},
	{OID: "1.3.6.1.4.1.4203.666.11.2.1", Desc: "CSN", valid: func(_ *Schema, v []byte) bool { _, err := csn(nil, v); return err == nil }},
}

func validAny(*Schema, []byte) bool { return true }

// validText is a DirectoryString: UTF-8, not empty.
func validText(_ *Schema, v []byte) bool { return len(v) > 0 && utf8.Valid(v) }

// validPrintable is a PrintableString (RFC 4517 §3.2), not empty.
func validPrintable(_ *Schema, v []byte) bool {
	for _, c := range v {
		switch {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9':
		case strings.IndexByte("'()+,-./:? =", c) >= 0:
		default:
			return false
		}
	}
	return len(v) > 0
}

// BitString = "'" *( "0" / "1" ) "'B"
func validBits(v []byte) bool {
	return len(v) >= 3 && v[0] == '\'' && bytes.HasSuffix(v, []byte("'B")) && len(bytes.Trim(v[1:len(v)-2], "01")) == 0
}

// validDER: one definite-length SEQUENCE that fills v.
func validDER(_ *Schema, v []byte) bool {
	if len(v) < 2 || v[0] != 0x30 {
		return false
	}
	n, h := int(v[1]), 2
	if n >= 0x80 {
		c := n & 0x7f
		if c == 0 || c > 4 || len(v) < 2+c {
			return false
		}
		n, h = 0, 2+c
		for _, o := range v[2:h] {
			n = n<<8 | int(o)
		}
	}
	return n == len(v)-h
}

// INTEGER = "0" / ["-"] nonzero *DIGIT
func validInteger(v []byte) bool {
	d := bytes.TrimPrefix(v, []byte("-"))
	if len(d) == 0 || len(d) > 256 || len(bytes.Trim(d, "0123456789")) > 0 {
		return false
	}
	return d[0] != '0' || len(v) == 1
}

func validOID(w string) bool {
	if w == "" || len(w) > 256 {
		return false
	}
	if w[0] >= '0' && w[0] <= '9' {
		return isOID(w)
	}
	return (w[0]|0x20) >= 'a' && (w[0]|0x20) <= 'z' &&
		strings.Trim(strings.ToLower(w), "abcdefghijklmnopqrstuvwxyz0123456789-") == ""
}

// GeneralizedTime = YYYYMMDDHH [ MM [ SS ] ] [ ( "." / "," ) 1*DIGIT ] ( "Z" / ( "+" / "-" ) HH [ MM ] )

// parseTime gives the time in UTC to the second and the fraction's digits without trailing zeros. A
// fraction of an hour or minute is turned into seconds.
func parseTime(v []byte) (t time.Time, fraction string, ok bool) {
	digits := 0
	for digits < len(v) && digits < 14 && v[digits] >= '0' && v[digits] <= '9' {
		digits++
	}
	if digits != 10 && digits != 12 && digits != 14 {
		return t, "", false
	}
	layout := "20060102150405"[:digits]
	t, err := time.Parse(layout, string(v[:digits]))
	if err != nil {
		if digits != 14 || string(v[12:14]) != "60" { // a leap second counts as the one before
			return t, "", false
		}
		if t, err = time.Parse(layout, string(v[:12])+"59"); err != nil {
			return t, "", false
		}
	}
	v = v[digits:]
	if len(v) > 0 && (v[0] == '.' || v[0] == ',') {
		n := 1
		for n < len(v) && v[n] >= '0' && v[n] <= '9' {
			n++
		}
		if n == 1 || n > 20 {
			return t, "", false
		}
		f := string(v[1:n])
		if digits == 14 {
			fraction = strings.TrimRight(f, "0")
		} else {
			unit := time.Minute
			if digits == 10 {
				unit = time.Hour
			}
			part := 0.0
			for i := len(f) - 1; i >= 0; i-- {
				part = (part + float64(f[i]-'0')) / 10
			}
			t = t.Add((time.Duration(part * float64(unit))).Truncate(time.Second))
		}
		v = v[n:]
	}
	if string(v) == "Z" {
		return t, fraction, true
	}
	if len(v) != 3 && len(v) != 5 || v[0] != '+' && v[0] != '-' || len(bytes.Trim(v[1:], "0123456789")) > 0 {
		return t, "", false
	}
	off := time.Duration(int(v[1]-'0')*10+int(v[2]-'0')) * time.Hour
	if len(v) == 5 {
		off += time.Duration(int(v[3]-'0')*10+int(v[4]-'0')) * time.Minute
	}
	if v[0] == '+' {
		off = -off
	}
	return t.Add(off), fraction, true
}

// Check reports whether v is a value of the type: its syntax, as a *Violation.
func (s *Schema) Check(a *AttributeType, v []byte) error {
	if a.Syntax.valid(s, v) {
		return nil
	}
	if a == s.objectClass {
		return violation(ObjectClassViolation, "object class %q", clip(v))
	}
	return violation(InvalidSyntax, "%s: value is not a %s", a.Name(), a.Syntax.Desc)
}
