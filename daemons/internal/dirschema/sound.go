package dirschema

import (
	"bytes"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"
)

// Approximate matching (RFC 4511 §4.5.1.7.6) of text: the words of the assertion are found in the value in their
// order, where words are the same that sound alike, and a single letter stands for any word that begins
// with it. How a word sounds is told by Soundex, of letters without their accents; words of other
// alphabets and numbers sound as they are written. So (cn~=jon smyth) finds "John Smith" and "J. W. Smith".

// Approximates reports whether values of a rule are text, which can sound alike; others approximate what they equal.
func (r *MatchingRule) Approximates() bool {
	return r.spaced || r.Name == "caseIgnoreMatch" || r.Name == "caseExactMatch" || r.Name == "caseIgnoreIA5Match" || r.Name == "caseExactIA5Match"
}

// AppendSound appends how the words of a normal form sound, each followed by a NUL.
func AppendSound(dst, text []byte) []byte {
	for _, w := range bytes.FieldsFunc(text, notWord) {
		dst = append(sound(dst, w), 0)
	}
	return dst
}

// SoundsLike reports whether a value, a normal form, has the words of an assertion that AppendSound made.
func SoundsLike(assertion, value []byte) bool {
	words := bytes.FieldsFunc(value, notWord)
	var buf [64]byte
	for len(assertion) > 0 {
		i := bytes.IndexByte(assertion, 0)
		want := assertion[:i]
		assertion = assertion[i+1:]
		found := false
		for len(words) > 0 && !found {
			have := sound(buf[:0], words[0])
			words = words[1:]
			found = bytes.Equal(want, have) || initial(want, have) || initial(have, want)
		}
		if !found {
			return false
		}
	}
	return true
}

// initial reports whether a is the sound of a single letter that b begins with.
func initial(a, b []byte) bool {
	return len(a) == 4 && bytes.HasSuffix(a, []byte("...")) && len(b) > 0 && a[0] == b[0]
}

// sound appends the Soundex of a word, "a..." for the letter a alone.
func sound(dst, word []byte) []byte {
	start := len(dst)
	last := byte(0)
	for _, c := range plain(word) {
		if c >= 'A' && c <= 'Z' {
			c += 'a' - 'A'
		}
		if c < 'a' || c > 'z' {
			return append(dst[:start], word...)
		}
		k := letterClass(c)
		switch {
		case len(dst) == start:
			dst, last = append(dst, byte(c)), k
		case k == '-':
		case k == '0':
			last = k
		case k != last && len(dst)-start < 4:
			dst, last = append(dst, k), k
		default:
			last = k
		}
	}
	if len(word) == 1 {
		return append(dst, "..."...)
	}
	for len(dst)-start < 4 {
		dst = append(dst, '0')
	}
	return dst
}

// letterClass is '0' of a vowel, and '-' of what neither sounds nor separates.
func letterClass(c rune) byte {
	switch c {
	case 'b', 'f', 'p', 'v':
		return '1'
	case 'c', 'g', 'j', 'k', 'q', 's', 'x', 'z':
		return '2'
	case 'd', 't':
		return '3'
	case 'l':
		return '4'
	case 'm', 'n':
		return '5'
	case 'r':
		return '6'
	case 'h', 'w':
		return '-'
	}
	return '0'
}

// plain takes accents off.
func plain(word []byte) []rune {
	out := make([]rune, 0, len(word))
	if !utf8.Valid(word) {
		return out
	}
	for _, c := range string(norm.NFKD.Bytes(word)) {
		if !unicode.Is(unicode.Mn, c) {
			out = append(out, c)
		}
	}
	return out
}
