package sieve

import (
	"strings"

	"shoal/daemons/internal/mailaddr"
	"shoal/daemons/internal/message"
)

// tests are the tests of all extensions, by name.
var tests map[string]testDef

func init() { // not a literal: building a test refers to the table
	tests = map[string]testDef{
		"true":  {build: func(*compiler, *bound) cond { return func(*run) (bool, error) { return true, nil } }},
		"false": {build: func(*compiler, *bound) cond { return func(*run) (bool, error) { return false, nil } }},
		"not":   {def{tests: 1}, buildNot},
		"anyof": {def{tests: -1}, func(c *compiler, b *bound) cond { return buildList(c, b, true) }},
		"allof": {def{tests: -1}, func(c *compiler, b *bound) cond { return buildList(c, b, false) }},

		"address":  {def{tags: with(matchTags, partTags, indexTags, mimeTags), args: []argKind{argStrings, argStrings}}, buildAddress},
		"envelope": {def{needs: "envelope", tags: with(matchTags, partTags), args: []argKind{argStrings, argStrings}}, buildEnvelope},
		"exists":   {def{tags: mimeTags, args: []argKind{argStrings}}, buildExists},
		"header":   {def{tags: with(matchTags, indexTags, mimeTags, mimeOptionTags), args: []argKind{argStrings, argStrings}}, buildHeader},
		"size":     {def{tags: tagSet{"over": {group: "size", takes: argNumber}, "under": {group: "size", takes: argNumber}}}, buildSize},

		"body":        {def{needs: "body", tags: with(matchTags, bodyTags), args: []argKind{argStrings}}, buildBody},
		"string":      {def{needs: "variables", tags: matchTags, args: []argKind{argStrings, argStrings}}, buildString},
		"date":        {def{needs: "date", tags: with(matchTags, indexTags, zoneTags, tagSet{"originalzone": {group: "zone"}}), args: []argKind{argString, argString, argStrings}}, buildDate},
		"currentdate": {def{needs: "date", tags: with(matchTags, zoneTags), args: []argKind{argString, argStrings}}, buildCurrentDate},
		"duplicate":   {def{needs: "duplicate", tags: duplicateTags}, buildDuplicate},
		"environment": {def{needs: "environment", tags: matchTags, args: []argKind{argString, argStrings}}, buildEnvironment},
		"hasflag":     {def{needs: "imap4flags", tags: matchTags, args: []argKind{argStrings, argStrings}, optional: 1}, buildHasFlag},
		"ihave":       {def{needs: "ihave", args: []argKind{argStrings}}, buildIhave},
		"spamtest":    {def{needs: "spamtest|spamtestplus", tags: with(matchTags, tagSet{"percent": {needs: "spamtestplus"}}), args: []argKind{argString}}, buildSpamtest},
		"virustest":   {def{needs: "virustest", tags: matchTags, args: []argKind{argString}}, buildVirustest},

		"mailboxexists":            {def{needs: "mailbox", args: []argKind{argStrings}}, buildMailboxExists},
		"mailboxidexists":          {def{needs: "mailboxid", args: []argKind{argStrings}}, buildMailboxIDExists},
		"specialuse_exists":        {def{needs: "special-use", args: []argKind{argString, argStrings}, optional: 1}, buildSpecialUseExists},
		"valid_notify_method":      {def{needs: "enotify", args: []argKind{argStrings}}, buildValidNotifyMethod},
		"notify_method_capability": {def{needs: "enotify", tags: matchTags, args: []argKind{argString, argString, argStrings}}, buildNotifyMethodCapability},
	}
}

func buildNot(c *compiler, b *bound) cond {
	t := c.test(b.tests[0])
	return func(r *run) (bool, error) {
		yes, err := t(r)
		return !yes, err
	}
}

// buildList compiles anyof (until is true) and allof, which stop at the first test that decides.
func buildList(c *compiler, b *bound, until bool) cond {
	var list []cond
	for _, n := range b.tests {
		list = append(list, c.test(n))
	}
	return func(r *run) (bool, error) {
		for _, t := range list {
			if yes, err := t(r); yes == until || err != nil {
				return yes, err
			}
		}
		return !until, nil
	}
}

func buildSize(c *compiler, b *bound) cond {
	if len(b.tags) != 1 {
		c.fail(b.pos, "size needs :over or :under with a number")
		return nil
	}
	if a := b.tags["over"]; a != nil {
		return func(r *run) (bool, error) { return r.env.Size > int64(a.num), nil }
	}
	a := b.tags["under"]
	return func(r *run) (bool, error) { return r.env.Size < int64(a.num), nil }
}

func buildExists(c *compiler, b *bound) cond {
	names, from := c.texts(&b.args[0]), c.source(b)
	return func(r *run) (bool, error) {
		list, err := r.expandAll(names)
		if err != nil {
			return false, err
		}
		for _, name := range list {
			found, err := r.pick(from, []string{name})
			if err != nil || len(found) == 0 {
				return false, err
			}
		}
		return true, nil
	}
}

func buildHeader(c *compiler, b *bound) cond {
	names, from, m := c.texts(&b.args[0]), c.source(b), c.matcher(b, &b.args[1])
	view := c.mimeOption(b)
	return func(r *run) (bool, error) {
		list, err := r.expandAll(names)
		if err != nil {
			return false, err
		}
		found, err := r.pick(from, list)
		if err != nil {
			return false, err
		}
		values, err := view(r, found)
		if err != nil {
			return false, err
		}
		return r.any(m, values)
	}
}

// partTags are the parts of an address (RFC 5228 §2.7.4, RFC 5233).
var partTags = tagSet{
	"all":       {group: "address part"},
	"localpart": {group: "address part"},
	"domain":    {group: "address part"},
	"user":      {group: "address part", needs: "subaddress"},
	"detail":    {group: "address part", needs: "subaddress"},
}

// addressPart gives the part of an address that the tags of a test ask for; ok is false where the address has none.
type addressPart func(r *run, a mailaddr.Address) (v string, ok bool)

func (c *compiler) addressPart(b *bound) addressPart {
	switch {
	case b.tag("localpart"):
		return func(_ *run, a mailaddr.Address) (string, bool) { return a.Local, true }
	case b.tag("domain"):
		return func(_ *run, a mailaddr.Address) (string, bool) { return a.Domain, true }
	case b.tag("user"):
		return func(r *run, a mailaddr.Address) (string, bool) {
			base, _ := a.Subaddress(r.env.Separators)
			return base.Local, true
		}
	case b.tag("detail"):
		return func(r *run, a mailaddr.Address) (string, bool) {
			base, detail := a.Subaddress(r.env.Separators)
			return detail, base.Local != a.Local
		}
	}
	return func(_ *run, a mailaddr.Address) (string, bool) {
		if a.Domain == "" {
			return a.Local, true
		}
		return a.Local + "@" + a.Domain, true
	}
}

func buildAddress(c *compiler, b *bound) cond {
	names, from, m, part := c.texts(&b.args[0]), c.source(b), c.matcher(b, &b.args[1]), c.addressPart(b)
	return func(r *run) (bool, error) {
		list, err := r.expandAll(names)
		if err != nil {
			return false, err
		}
		found, err := r.pick(from, list)
		if err != nil {
			return false, err
		}
		var values []string
		for _, f := range found {
			for _, a := range f.addresses() {
				if v, ok := part(r, a); ok {
					values = append(values, v)
				}
			}
		}
		return r.any(m, values)
	}
}

// addresses are the mailboxes in an address list. Groups and what is no address are left out.
func addresses(value string) (list []mailaddr.Address) {
	for _, a := range message.ParseAddresses(value) {
		if a.Host != "" && a.Host != message.MissingDomain && a.Mailbox != message.MissingMailbox {
			list = append(list, mailaddr.Address{Local: message.DecodeHeader(a.Mailbox), Domain: a.Host})
		}
	}
	return list
}

func buildEnvelope(c *compiler, b *bound) cond {
	names, m, part := c.texts(&b.args[0]), c.matcher(b, &b.args[1]), c.addressPart(b)
	for i, n := range names {
		if !n.constant() {
			continue
		}
		if v := strings.ToLower(n.lit); v != "from" && v != "to" {
			c.fail(b.args[0].strs[i].pos, "the envelope has a \"from\" and a \"to\", but no %q", n.lit)
		}
	}
	return func(r *run) (bool, error) {
		list, err := r.expandAll(names)
		if err != nil {
			return false, err
		}
		var values []string
		for _, name := range list {
			switch strings.ToLower(name) {
			case "from":
				if r.env.From.IsNull() { // RFC 5228 §5.4: the null path is the empty string, whatever the part
					values = append(values, "")
				} else if v, ok := part(r, r.env.From); ok {
					values = append(values, v)
				}
			case "to":
				if v, ok := part(r, r.env.To); ok {
					values = append(values, v)
				}
			}
		}
		return r.any(m, values)
	}
}

func buildString(c *compiler, b *bound) cond {
	sources, m := c.texts(&b.args[0]), c.matcher(b, &b.args[1])
	return func(r *run) (bool, error) {
		values, err := r.expandAll(sources)
		if err != nil {
			return false, err
		}
		if m.kind == matchCount { // RFC 5229 §5: empty strings do not count
			n := 0
			for _, v := range values {
				if v != "" {
					values[n] = v
					n++
				}
			}
			values = values[:n]
		}
		return r.any(m, values)
	}
}

func buildIhave(c *compiler, b *bound) cond {
	names := c.texts(&b.args[0])
	all := true
	for _, n := range names {
		if !n.constant() {
			c.fail(b.args[0].pos, "ihave takes no variables: what it answers is known before the script runs")
			return nil
		}
		all = all && c.offered[n.lit]
	}
	if all {
		for _, n := range names {
			c.enable(n.lit)
		}
	}
	return func(*run) (bool, error) { return all, nil }
}
