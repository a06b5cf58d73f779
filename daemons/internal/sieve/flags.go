package sieve

import (
	"fmt"
	"strings"
)

// Flags (RFC 5232). A list of flags is one string with the flags joined by blanks, or several strings; each flag once,
// in the spelling that came first. What cannot be a flag in IMAP is left out (RFC 5232 §2).

// maxFlags bounds how many flags a list keeps.
const maxFlags = 64

// systemFlags are those that a script may set, in lower case.
var systemFlags = map[string]string{
	`\seen`: `\Seen`, `\answered`: `\Answered`, `\flagged`: `\Flagged`, `\deleted`: `\Deleted`, `\draft`: `\Draft`,
}

// validFlag gives the usual spelling of a flag.
func validFlag(v string) (string, bool) {
	if strings.HasPrefix(v, `\`) {
		flag, ok := systemFlags[strings.ToLower(v)]
		return flag, ok
	}
	if v == "" || len(v) > 100 {
		return "", false
	}
	for i := range len(v) {
		if v[i] <= ' ' || v[i] >= 0x7f || strings.IndexByte(`(){%*"\]`, v[i]) >= 0 {
			return "", false
		}
	}
	return v, true
}

func addFlag(list []string, flag string) []string {
	for _, f := range list {
		if strings.EqualFold(f, flag) {
			return list
		}
	}
	if len(list) >= maxFlags {
		return list
	}
	return append(list[:len(list):len(list)], flag)
}

// parseFlags reads lists of flags.
func parseFlags(values []string) []string {
	list := []string{}
	for _, v := range values {
		for word := range strings.FieldsSeq(v) {
			if flag, ok := validFlag(word); ok {
				list = addFlag(list, flag)
			}
		}
	}
	return list
}

// flagList reads the flags of a string list argument.
func (r *run) flagList(list []*text) ([]string, error) {
	values, err := r.expandAll(list)
	return parseFlags(values), err
}

// flagVariables checks the names of the variables that flag commands and tests may take as their first argument.
func (c *compiler) flagVariables(b *bound) []string {
	if len(b.args) < 2 {
		return nil
	}
	a := b.args[0]
	if !c.has("variables") {
		c.fail(a.pos, "%s on a variable needs: require %q", b.name, "variables")
	}
	var names []string
	for _, s := range a.strs {
		if !validName(s.text) {
			c.fail(s.pos, "%q is no name of a variable", s.text)
		}
		name := strings.ToLower(s.text)
		c.variable(s.pos, name)
		c.written[name] = true
		names = append(names, name)
	}
	return names
}

// buildFlags compiles setflag, addflag and removeflag.
func buildFlags(c *compiler, b *bound) stmt {
	variables, list := c.flagVariables(b), c.texts(&b.args[len(b.args)-1])
	var change func(old, flags []string) []string
	switch b.name {
	case "setflag":
		change = func(_, flags []string) []string { return flags }
	case "addflag":
		change = func(old, flags []string) []string {
			for _, f := range flags {
				old = addFlag(old, f)
			}
			return old
		}
	default:
		change = func(old, flags []string) []string {
			left := []string{}
			for _, f := range old {
				if !contains(flags, f) {
					left = append(left, f)
				}
			}
			return left
		}
	}
	return func(r *run) error {
		flags, err := r.flagList(list)
		if err != nil {
			return err
		}
		if variables == nil {
			r.flags = change(r.flags, flags)
			return nil
		}
		for _, name := range variables {
			if err := r.set(name, strings.Join(change(parseFlags([]string{r.get(name)}), flags), " ")); err != nil {
				return err
			}
		}
		return nil
	}
}

func contains(list []string, flag string) bool {
	for _, f := range list {
		if strings.EqualFold(f, flag) {
			return true
		}
	}
	return false
}

// buildHasFlag: RFC 5232 §4. Each key is compared as a list of flags.
func buildHasFlag(c *compiler, b *bound) cond {
	variables, m := c.flagVariables(b), c.matcher(b, &b.args[len(b.args)-1])
	return func(r *run) (bool, error) {
		values := r.flags
		if variables != nil {
			values = nil
			for _, name := range variables {
				values = append(values, parseFlags([]string{r.get(name)})...)
			}
		}
		if m.kind != matchIs && m.kind != matchContains {
			return r.any(m, values)
		}
		keys, err := r.expandAll(m.keys)
		if err != nil {
			return false, err
		}
		for _, k := range keys {
			for word := range strings.FieldsSeq(k) {
				for _, v := range values {
					if yes, err := r.match(m, v, word); yes || err != nil {
						return yes, err
					}
				}
			}
		}
		return false, nil
	}
}

// flagTags is the :flags of keep, fileinto and :fcc.
var flagTags = tagSet{"flags": {needs: "imap4flags", takes: argStrings}}

// flagged gives the flags of an action: those of :flags, or else those of the internal variable.
func (c *compiler) flagged(b *bound) func(*run) ([]string, error) {
	a := b.tags["flags"]
	if a == nil {
		return func(r *run) ([]string, error) { return r.flags, nil }
	}
	list := c.texts(a)
	return func(r *run) ([]string, error) {
		flags, err := r.flagList(list)
		if err != nil {
			return nil, fmt.Errorf("flags: %w", err)
		}
		return flags, nil
	}
}
