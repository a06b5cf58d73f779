package scram

import (
	"errors"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/unicode/bidi"
	"golang.org/x/text/unicode/norm"
)

// ErrProhibited says that a text has characters which RFC 4013 §2.3 or the rule for mixed directions prohibits.
var ErrProhibited = errors.New("characters that names and passwords must not have (RFC 4013)")

// Prepare is SASLprep (RFC 4013): other spaces become the space, invisible characters vanish, compatibility forms are
// made one (NFKC), and controls, private characters and the like are refused. It is the form for queries: code
// points that Unicode 3.2 did not know are let through (RFC 3454 §7).
func Prepare(s string) (string, error) {
	ascii := true
	for i := 0; i < len(s); i++ {
		if s[i] < 0x20 || s[i] == 0x7f {
			return "", ErrProhibited
		}
		ascii = ascii && s[i] < utf8.RuneSelf
	}
	if ascii {
		return s, nil
	}
	if !utf8.ValidString(s) {
		return "", ErrProhibited
	}
	mapped := make([]rune, 0, len(s))
	for _, r := range s {
		switch {
		case otherSpace(r):
			mapped = append(mapped, ' ')
		case !unicode.Is(nothing, r):
			mapped = append(mapped, r)
		}
	}
	out := norm.NFKC.String(string(mapped))
	return out, checkPrepared(out)
}

// otherSpace is RFC 3454 table C.1.2. U+200B is in table B.1 as well; RFC 4013 §2.1 names this one first.
func otherSpace(r rune) bool {
	return r == 0xa0 || r == 0x1680 || r >= 0x2000 && r <= 0x200b || r == 0x202f || r == 0x205f || r == 0x3000
}

// nothing is RFC 3454 table B.1.
var nothing = &unicode.RangeTable{R16: []unicode.Range16{
	{Lo: 0x00ad, Hi: 0x00ad, Stride: 1}, {Lo: 0x034f, Hi: 0x034f, Stride: 1}, {Lo: 0x1806, Hi: 0x1806, Stride: 1},
	{Lo: 0x180b, Hi: 0x180d, Stride: 1}, {Lo: 0x200b, Hi: 0x200d, Stride: 1}, {Lo: 0x2060, Hi: 0x2060, Stride: 1},
	{Lo: 0xfe00, Hi: 0xfe0f, Stride: 1}, {Lo: 0xfeff, Hi: 0xfeff, Stride: 1},
}}

// prohibited is RFC 3454 tables C.2.2, C.3 to C.9.
var prohibited = &unicode.RangeTable{
	R16: []unicode.Range16{
		{Lo: 0x0080, Hi: 0x009f, Stride: 1}, {Lo: 0x0340, Hi: 0x0341, Stride: 1}, {Lo: 0x06dd, Hi: 0x06dd, Stride: 1},
		{Lo: 0x070f, Hi: 0x070f, Stride: 1}, {Lo: 0x180e, Hi: 0x180e, Stride: 1}, {Lo: 0x200c, Hi: 0x200f, Stride: 1},
		{Lo: 0x2028, Hi: 0x202e, Stride: 1}, {Lo: 0x2060, Hi: 0x2063, Stride: 1}, {Lo: 0x206a, Hi: 0x206f, Stride: 1},
		{Lo: 0x2ff0, Hi: 0x2ffb, Stride: 1}, {Lo: 0xd800, Hi: 0xf8ff, Stride: 1}, {Lo: 0xfdd0, Hi: 0xfdef, Stride: 1},
		{Lo: 0xfeff, Hi: 0xfeff, Stride: 1}, {Lo: 0xfff9, Hi: 0xffff, Stride: 1},
	},
	R32: []unicode.Range32{
		{Lo: 0x1d173, Hi: 0x1d17a, Stride: 1}, {Lo: 0xe0001, Hi: 0xe0001, Stride: 1}, {Lo: 0xe0020, Hi: 0xe007f, Stride: 1},
		{Lo: 0xf0000, Hi: 0x10ffff, Stride: 1},
	},
}

// checkPrepared is RFC 4013 §2.3 and §2.4.
func checkPrepared(s string) error {
	rtl, ltr := false, false
	for _, r := range s {
		if unicode.Is(prohibited, r) || r&0xfffe == 0xfffe {
			return ErrProhibited
		}
		switch class(r) {
		case bidi.R, bidi.AL:
			rtl = true
		case bidi.L:
			ltr = true
		}
	}
	if !rtl {
		return nil
	}
	first, _ := utf8.DecodeRuneInString(s)
	last, _ := utf8.DecodeLastRuneInString(s)
	for _, r := range []rune{first, last} {
		if c := class(r); c != bidi.R && c != bidi.AL {
			return ErrProhibited
		}
	}
	if ltr {
		return ErrProhibited
	}
	return nil
}

func class(r rune) bidi.Class {
	p, _ := bidi.LookupRune(r)
	return p.Class()
}
