package sieve

import (
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"
)

// text is a string of a script. With "variables" it may hold references that are replaced when it is used
// (RFC 5229 §3):
//
//	variable-ref = "${" [namespace] variable-name "}"     namespace = identifier "." *(identifier ".")
//	variable-name = num-variable / identifier
//
// What looks nearly like a reference stays as it is.
type text struct {
	lit  string    // the whole of it when there is no reference
	segs []segment // nil: lit
}

type segment struct {
	lit   string
	name  string // lower case; "" : lit
	match int    // name is "#": the match variable of this number
}

// constant says that the value is known before the script runs.
func (t *text) constant() bool { return t.segs == nil }

func (c *compiler) text(s str) *text {
	v := s.text
	if c.has("encoded-character") {
		var err error
		if v, err = decodeCharacters(v); err != nil {
			c.fail(s.pos, "%v", err)
		}
	}
	if !c.has("variables") || !strings.Contains(v, "${") {
		return &text{lit: v}
	}
	var segs []segment
	lit := 0
	for i := 0; i < len(v); {
		if !strings.HasPrefix(v[i:], "${") {
			i++
			continue
		}
		end := strings.IndexByte(v[i:], '}')
		if end < 0 {
			break
		}
		seg, ok := reference(v[i+2 : i+end])
		if !ok {
			i++
			continue
		}
		if lit < i {
			segs = append(segs, segment{lit: v[lit:i]})
		}
		if seg.name != "" && seg.name != "#" {
			c.variable(s.pos, seg.name)
		}
		segs = append(segs, seg)
		i += end + 1
		lit = i
	}
	if segs == nil {
		return &text{lit: v}
	}
	if lit < len(v) {
		segs = append(segs, segment{lit: v[lit:]})
	}
	return &text{segs: segs}
}

func (c *compiler) texts(a *arg) []*text {
	list := make([]*text, 0, len(a.strs))
	for _, s := range a.strs {
		list = append(list, c.text(s))
	}
	return list
}

// tagText is the string behind a tag; nil where the tag is not given.
func (c *compiler) tagText(b *bound, tag string) *text {
	if a := b.tags[tag]; a != nil {
		return c.text(a.strs[0])
	}
	return nil
}

// reference reads what stands between ${ and }.
func reference(v string) (segment, bool) {
	if v == "" {
		return segment{}, false
	}
	if isDigit(v[0]) {
		n, err := strconv.ParseUint(v, 10, 31)
		return segment{name: "#", match: int(n)}, err == nil
	}
	return segment{name: strings.ToLower(v)}, validName(v)
}

// validName says whether v is an identifier, or several joined by dots.
func validName(v string) bool {
	for part := range strings.SplitSeq(v, ".") {
		if part == "" || !isAlpha(part[0]) {
			return false
		}
		for i := range len(part) {
			if !isAlpha(part[i]) && !isDigit(part[i]) {
				return false
			}
		}
	}
	return true
}

// maxNameBytes bounds the name of a variable.
const maxNameBytes = 64

// variable checks a name that is read or written.
func (c *compiler) variable(p pos, name string) {
	space, _, dotted := strings.Cut(name, ".")
	switch {
	case len(name) > maxNameBytes:
		c.fail(p, "the name of the variable is longer than %d characters", maxNameBytes)
	case dotted && (space != "global" || !c.has("include")):
		c.fail(p, "there is no namespace %q: %s", space, `only "global" with the extension include`)
	}
}

// decodeCharacters replaces ${hex: ...} and ${unicode: ...} (RFC 5228 §2.4.2.4):
//
//	encoded-arb-octets   = "${hex:" hex-pair-seq "}"         1*2HEXDIG, separated by blanks
//	encoded-unicode-char = "${unicode:" unicode-hex-seq "}"  1*HEXDIG, up to 10FFFF without surrogates
//
// What is not exactly of that form stays; a character that does not exist is an error.
func decodeCharacters(v string) (string, error) {
	if !strings.Contains(v, "${") {
		return v, nil
	}
	var b strings.Builder
	for i := 0; i < len(v); {
		if strings.HasPrefix(v[i:], "${") {
			end := strings.IndexByte(v[i:], '}')
			if end > 0 {
				out, ok, err := decodeReference(v[i+2 : i+end])
				if err != nil {
					return "", err
				}
				if ok {
					b.WriteString(out)
					i += end + 1
					continue
				}
			}
		}
		b.WriteByte(v[i])
		i++
	}
	if !utf8.ValidString(b.String()) || strings.IndexByte(b.String(), 0) >= 0 {
		return "", fmt.Errorf("the encoded characters make no valid UTF-8 text")
	}
	return b.String(), nil
}

func decodeReference(v string) (out string, ok bool, err error) {
	kind, list, found := strings.Cut(v, ":")
	words := strings.Fields(list)
	if !found || len(words) == 0 {
		return "", false, nil
	}
	var b strings.Builder
	switch strings.ToLower(kind) {
	case "hex":
		for _, w := range words {
			n, err := strconv.ParseUint(w, 16, 8)
			if err != nil || len(w) > 2 {
				return "", false, nil
			}
			b.WriteByte(byte(n))
		}
	case "unicode":
		for _, w := range words {
			n, err := strconv.ParseUint(w, 16, 64)
			if err != nil {
				if numErr := err.(*strconv.NumError); numErr.Err == strconv.ErrSyntax {
					return "", false, nil
				}
			}
			if err != nil || n > utf8.MaxRune || n >= 0xd800 && n < 0xe000 {
				return "", false, fmt.Errorf("there is no character U+%s", strings.ToUpper(w))
			}
			b.WriteRune(rune(n))
		}
	default:
		return "", false, nil
	}
	return b.String(), true, nil
}

// size writes a number of bytes for people.
func size(n int) string {
	if n >= 1<<20 && n%(1<<20) == 0 {
		return strconv.Itoa(n>>20) + " MiB"
	}
	if n >= 1<<10 && n%(1<<10) == 0 {
		return strconv.Itoa(n>>10) + " KiB"
	}
	return strconv.Itoa(n) + " bytes"
}
