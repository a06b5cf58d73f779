package sieve

import (
	"errors"
	"net/url"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// setTags are the modifiers of set (RFC 5229 §4.1, RFC 5435 §6). One of each group may be given.
var setTags = tagSet{
	"lower":         {group: "case"},
	"upper":         {group: "case"},
	"lowerfirst":    {group: "first letter"},
	"upperfirst":    {group: "first letter"},
	"quotewildcard": {group: "quoting"},
	"encodeurl":     {needs: "enotify", group: "encoding"},
	"length":        {group: "length"},
}

// modifiers in the order in which they are applied.
var modifiers = []struct {
	tag   string
	apply func(string) string
}{
	{"lower", strings.ToLower},
	{"upper", strings.ToUpper},
	{"lowerfirst", func(v string) string { return first(v, unicode.ToLower) }},
	{"upperfirst", func(v string) string { return first(v, unicode.ToUpper) }},
	{"quotewildcard", strings.NewReplacer(`\`, `\\`, "*", `\*`, "?", `\?`).Replace},
	{"encodeurl", func(v string) string { return strings.ReplaceAll(url.QueryEscape(v), "+", "%20") }},
	{"length", func(v string) string { return strconv.Itoa(utf8.RuneCountInString(v)) }},
}

func first(v string, change func(rune) rune) string {
	c, n := utf8.DecodeRuneInString(v)
	if n == 0 || c == utf8.RuneError {
		return v
	}
	return string(change(c)) + v[n:]
}

// modifier joins the modifiers of a command.
func (c *compiler) modifier(b *bound) func(string) string {
	var list []func(string) string
	for _, m := range modifiers {
		if b.tag(m.tag) {
			list = append(list, m.apply)
		}
	}
	return func(v string) string {
		for _, f := range list {
			v = f(v)
		}
		return v
	}
}

// target is the name of a variable to be written.
func (c *compiler) target(a *arg) string {
	name := strings.ToLower(a.strs[0].text)
	if !validName(name) {
		c.fail(a.pos, "%q is no name of a variable", a.strs[0].text)
	} else {
		c.variable(a.pos, name)
		c.written[name] = true
	}
	return name
}

func buildSet(c *compiler, b *bound) stmt {
	name, value, modify := c.target(&b.args[0]), c.text(b.args[1].strs[0]), c.modifier(b)
	return func(r *run) error {
		v, err := r.expand(value)
		if err != nil {
			return err
		}
		return r.set(name, modify(v))
	}
}

// load gives a script to include.
func (r *run) load(name string, global bool) (*Script, error) {
	if r.env.Load == nil {
		return nil, ErrNoScript
	}
	return r.env.Load(r.ctx, name, global)
}

func isNoScript(err error) bool { return errors.Is(err, ErrNoScript) }
