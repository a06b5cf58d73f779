package dialogue

import (
	"encoding/hex"
	"fmt"
	"regexp"
	"strconv"
	"strings"
)

// maxText bounds what one ${text*n} may expand to.
const maxText = 256 << 20

// unescape resolves the escapes of a sent text.
func unescape(s string) string {
	if !strings.Contains(s, `\`) {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] != '\\' || i+1 == len(s) {
			b.WriteByte(s[i])
			continue
		}
		switch s[i+1] {
		case 'r':
			b.WriteByte('\r')
		case 'n':
			b.WriteByte('\n')
		case 't':
			b.WriteByte('\t')
		case '\\':
			b.WriteByte('\\')
		case 'x':
			if i+3 < len(s) {
				if v, err := hex.DecodeString(s[i+2 : i+4]); err == nil {
					b.WriteByte(v[0])
					i += 3
					continue
				}
			}
			b.WriteByte('\\')
			continue
		default:
			b.WriteByte('\\')
			continue
		}
		i++
	}
	return b.String()
}

// expand puts variables into a text; each value goes through quote.
func expand(s string, vars map[string]string, quote func(string) string) (string, error) {
	var b strings.Builder
	for {
		before, rest, found := strings.Cut(s, "${")
		b.WriteString(before)
		if !found {
			return b.String(), nil
		}
		expr, after, closed := strings.Cut(rest, "}")
		if !closed {
			return "", fmt.Errorf("${%s: no closing brace", rest)
		}
		value, err := evaluate(expr, vars)
		if err != nil {
			return "", err
		}
		b.WriteString(quote(value))
		s = after
	}
}

func evaluate(expr string, vars map[string]string) (string, error) {
	if at := strings.LastIndexByte(expr, '*'); at > 0 {
		n, err := strconv.Atoi(expr[at+1:])
		text := unescape(expr[:at])
		if err != nil || n < 0 || n > maxText/len(text) {
			return "", fmt.Errorf("${%s}: write a text, * and how often", expr)
		}
		return strings.Repeat(text, n), nil
	}
	name := strings.TrimPrefix(expr, "#")
	value, ok := vars[name]
	if !ok {
		return "", fmt.Errorf("${%s}: no variable and no capture of this name", expr)
	}
	if name != expr {
		return strconv.Itoa(len(value)), nil
	}
	return value, nil
}

func verbatim(s string) string { return s }

var captureName = regexp.MustCompile(`^([a-z][A-Za-z0-9_]*)=`)

// compile turns a pattern into a regexp over a whole line; captures are its named groups.
func compile(pattern string, vars map[string]string) (*regexp.Regexp, error) {
	var b strings.Builder
	b.WriteString(`(?s)\A`)
	rest := pattern
	for {
		literal, after, found := strings.Cut(rest, "{{")
		text, err := expand(literal, vars, verbatim)
		if err != nil {
			return nil, err
		}
		b.WriteString(regexp.QuoteMeta(text))
		if !found {
			break
		}
		end := strings.Index(after, "}}")
		if end < 0 {
			return nil, fmt.Errorf("{{%s: no closing braces", after)
		}
		for strings.HasPrefix(after[end+1:], "}}") { // {{[0-9]{3}}}: the last two close
			end++
		}
		expr, err := expand(after[:end], vars, regexp.QuoteMeta)
		if err != nil {
			return nil, err
		}
		if m := captureName.FindStringSubmatch(expr); m != nil {
			fmt.Fprintf(&b, "(?P<%s>%s)", m[1], expr[len(m[0]):])
		} else {
			fmt.Fprintf(&b, "(?:%s)", expr)
		}
		rest = after[end+2:]
	}
	b.WriteString(`\z`)
	re, err := regexp.Compile(b.String())
	if err != nil {
		return nil, fmt.Errorf("pattern %q: %w", pattern, err)
	}
	return re, nil
}

// parseHex reads "30 0c ??"; wild marks the bytes that may be anything.
func parseHex(s string, wildcards bool) (data []byte, wild []bool, err error) {
	for _, field := range strings.Fields(s) {
		if len(field)%2 != 0 {
			return nil, nil, fmt.Errorf("%q: write bytes as pairs of hexadecimal digits", field)
		}
		for i := 0; i < len(field); i += 2 {
			pair := field[i : i+2]
			if pair == "??" && wildcards {
				data, wild = append(data, 0), append(wild, true)
				continue
			}
			v, err := hex.DecodeString(pair)
			if err != nil {
				return nil, nil, fmt.Errorf("%q: write bytes as pairs of hexadecimal digits", pair)
			}
			data, wild = append(data, v[0]), append(wild, false)
		}
	}
	return data, wild, nil
}
