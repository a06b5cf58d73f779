package sieve

import (
	"fmt"
	"strings"

	"shoal/daemons/internal/mailaddr"
)

// commands are the commands of all extensions, by name. if, elsif, else and require are the compiler's own.
var commands map[string]commandDef

func init() { // not a literal: building a command refers to the table
	commands = map[string]commandDef{
		"stop":     {build: func(*compiler, *bound) stmt { return func(*run) error { return errStop } }},
		"keep":     {def{tags: flagTags}, buildKeep},
		"discard":  {build: buildDiscard},
		"redirect": {def{tags: tagSet{"copy": {needs: "copy"}}, args: []argKind{argString}}, buildRedirect},
		"fileinto": {def{needs: "fileinto", tags: with(flagTags, placeTags, tagSet{"copy": {needs: "copy"}}), args: []argKind{argString}}, buildFileInto},
		"reject":   {def{needs: "reject", args: []argKind{argString}}, buildReject},
		"ereject":  {def{needs: "ereject", args: []argKind{argString}}, buildReject},
		"error":    {def{needs: "ihave", args: []argKind{argString}}, buildError},

		"set":        {def{needs: "variables", tags: setTags, args: []argKind{argString, argString}}, buildSet},
		"setflag":    {def{needs: "imap4flags", args: []argKind{argStrings, argStrings}, optional: 1}, buildFlags},
		"addflag":    {def{needs: "imap4flags", args: []argKind{argStrings, argStrings}, optional: 1}, buildFlags},
		"removeflag": {def{needs: "imap4flags", args: []argKind{argStrings, argStrings}, optional: 1}, buildFlags},

		"include": {def{needs: "include", tags: includeTags, args: []argKind{argString}}, buildInclude},
		"return":  {def{needs: "include"}, func(*compiler, *bound) stmt { return func(*run) error { return errReturn } }},
		"global":  {def{needs: "include", args: []argKind{argStrings}}, buildGlobal},

		"addheader":    {def{needs: "editheader", tags: tagSet{"last": {}}, args: []argKind{argString, argString}}, buildAddHeader},
		"deleteheader": {def{needs: "editheader", tags: with(matchTags, tagSet{"index": {takes: argNumber}, "last": {}}), args: []argKind{argString, argStrings}, short: true}, buildDeleteHeader},

		"foreverypart": {def{needs: "foreverypart", tags: tagSet{"name": {takes: argString}}, block: true}, buildForEveryPart},
		"break":        {def{needs: "foreverypart", tags: tagSet{"name": {takes: argString}}}, buildBreak},
		"extracttext":  {def{needs: "extracttext", tags: with(setTags, tagSet{"first": {takes: argNumber}}), args: []argKind{argString}}, buildExtractText},

		"vacation": {def{needs: "vacation", tags: with(vacationTags, fccTags), args: []argKind{argString}}, buildVacation},
		"notify":   {def{needs: "enotify", tags: with(notifyTags, fccTags), args: []argKind{argString}}, buildNotify},
	}
}

func buildKeep(c *compiler, b *bound) stmt {
	flagged := c.flagged(b)
	return func(r *run) error {
		flags, err := flagged(r)
		if err != nil {
			return err
		}
		r.kept = &FileInto{Flags: flags, Edited: r.edited()}
		return nil
	}
}

func buildDiscard(*compiler, *bound) stmt {
	return func(r *run) error {
		r.implicit = false
		return nil
	}
}

// placeTags are the ways to name a mailbox beside its name.
var placeTags = tagSet{
	"create":     {needs: "mailbox"},
	"specialuse": {needs: "special-use", takes: argString, group: "place"},
	"mailboxid":  {needs: "mailboxid", takes: argString, group: "place"},
}

// place finds the mailbox that a name and the placeTags of a command stand for, when it runs: by MAILBOXID, by
// special use, else by name.
func (c *compiler) place(b *bound, name *text) func(*run) (Place, error) {
	use, id, create := c.tagText(b, "specialuse"), c.tagText(b, "mailboxid"), b.tag("create")
	if name.constant() {
		if err := checkMailbox(name.lit); err != nil {
			c.fail(b.pos, "%v", err)
		}
		if _, rest, ok := strings.Cut(name.lit, "&"); ok && strings.Contains(rest, "-") && isASCII(name.lit) {
			c.warn(b.pos, "names of mailboxes are UTF-8 here, not as in IMAP: %q is taken as it stands", name.lit)
		}
	}
	return func(r *run) (p Place, err error) {
		p.Create = create
		if p.Mailbox, err = r.expand(name); err != nil {
			return p, err
		}
		if err := checkMailbox(p.Mailbox); err != nil {
			return p, err
		}
		if p.SpecialUse, err = r.expand(use); err != nil {
			return p, err
		}
		p.MailboxID, err = r.expand(id)
		return p, err
	}
}

// maxMailboxBytes bounds the name of a mailbox.
const maxMailboxBytes = 1000

func checkMailbox(name string) error {
	if name == "" || len(name) > maxMailboxBytes {
		return fmt.Errorf("the name of a mailbox has 1 to %d bytes", maxMailboxBytes)
	}
	for _, c := range name {
		if c < ' ' || c == 0x7f {
			return fmt.Errorf("the name of the mailbox %q holds a control character", name)
		}
	}
	return nil
}

func buildFileInto(c *compiler, b *bound) stmt {
	place, flagged, cp := c.place(b, c.text(b.args[0].strs[0])), c.flagged(b), b.tag("copy")
	return func(r *run) error {
		p, err := place(r)
		if err != nil {
			return err
		}
		flags, err := flagged(r)
		if err != nil {
			return err
		}
		if len(r.out.Actions) >= r.lim.Actions {
			return fmt.Errorf("more than %d actions", r.lim.Actions)
		}
		r.store(&FileInto{Place: p, Flags: flags, Edited: r.edited()})
		if !cp {
			r.implicit = false
		}
		return nil
	}
}

func buildRedirect(c *compiler, b *bound) stmt {
	to, cp := c.text(b.args[0].strs[0]), b.tag("copy")
	if to.constant() {
		if _, err := redirectTo(to.lit); err != nil {
			c.fail(b.args[0].pos, "%v", err)
		}
	}
	return func(r *run) error {
		v, err := r.expand(to)
		if err != nil {
			return err
		}
		a, err := redirectTo(v)
		if err != nil {
			return err
		}
		if !cp {
			r.implicit = false
		}
		for _, old := range r.out.Actions {
			if old, ok := old.(*Redirect); ok && old.To.Key() == a.Key() {
				return nil
			}
		}
		if r.counts.redirects++; r.counts.redirects > r.lim.Redirects {
			return fmt.Errorf("more than %d redirects", r.lim.Redirects)
		}
		return r.act(&Redirect{a, r.edited()})
	}
}

// redirectTo reads the address of a redirect: RFC 5228 §2.4.2.3 allows a display name as well.
func redirectTo(v string) (mailaddr.Address, error) {
	list := addresses(v)
	if len(list) != 1 {
		return mailaddr.Address{}, fmt.Errorf("%q is not one mail address", v)
	}
	a, err := mailaddr.New(list[0].Local, list[0].Domain)
	if err != nil {
		return a, fmt.Errorf("%q is not a mail address: %w", v, err)
	}
	return a, nil
}

// maxReasonBytes bounds what is said to a sender.
const maxReasonBytes = 8 << 10

func buildReject(c *compiler, b *bound) stmt {
	reason, protocol := c.text(b.args[0].strs[0]), b.name == "ereject"
	return func(r *run) error {
		v, err := r.expand(reason)
		if err != nil {
			return err
		}
		if len(v) > maxReasonBytes {
			return fmt.Errorf("the reason is longer than %s", size(maxReasonBytes))
		}
		if r.reject != nil {
			return fmt.Errorf("a message cannot be rejected twice")
		}
		r.reject = &Reject{v, protocol}
		r.implicit = false
		return r.act(r.reject)
	}
}

func buildError(c *compiler, b *bound) stmt {
	why := c.text(b.args[0].strs[0])
	return func(r *run) error {
		v, err := r.expand(why)
		if err != nil {
			return err
		}
		return fmt.Errorf("the script ends itself: %s", v)
	}
}

var includeTags = tagSet{
	"personal": {group: "location"},
	"global":   {group: "location"},
	"once":     {},
	"optional": {},
}

// buildInclude: RFC 6609 §3.2. The script is looked up when the line runs.
func buildInclude(c *compiler, b *bound) stmt {
	name := c.text(b.args[0].strs[0])
	global, once, optional := b.tag("global"), b.tag("once"), b.tag("optional")
	if !name.constant() {
		c.fail(b.args[0].pos, "the name of a script to include cannot hold variables")
	}
	return func(r *run) error {
		key := "personal " + name.lit
		if global {
			key = "global " + name.lit
		}
		if once && r.once[key] {
			return nil
		}
		for _, k := range r.stack {
			if k == key {
				return fmt.Errorf("the script %q includes itself", name.lit)
			}
		}
		if len(r.stack) >= r.lim.Includes {
			return fmt.Errorf("scripts include each other more than %d deep", r.lim.Includes)
		}
		s, err := r.load(name.lit, global)
		if err != nil {
			if optional && isNoScript(err) {
				return nil
			}
			return fmt.Errorf("include %q: %w", name.lit, err)
		}
		r.once[key] = true
		r.stack = append(r.stack, key)
		defer func() { r.stack = r.stack[:len(r.stack)-1] }()
		return r.included(s)
	}
}

// included runs a script inside another one: with variables of its own, and actions and flags in common.
func (r *run) included(s *Script) error {
	outer := r.scope
	r.scope = newScope(s.name, outer.flags)
	r.implicit, r.kept, r.loop = outer.implicit, outer.kept, outer.loop
	err := r.exec(s.body)
	outer.flags, outer.implicit, outer.kept = r.flags, r.implicit, r.kept
	r.scope = outer
	if err == errReturn {
		err = nil
	}
	if broken, ok := err.(errBreak); ok {
		return fmt.Errorf("break %q leaves the script", broken.name)
	}
	return err
}

func buildGlobal(c *compiler, b *bound) stmt {
	if !c.has("variables") {
		c.fail(b.pos, "global needs: require %q", "variables")
	}
	var names []string
	for _, s := range b.args[0].strs {
		name := strings.ToLower(s.text)
		if !validName(name) || strings.Contains(name, ".") {
			c.fail(s.pos, "%q is no name of a variable", s.text)
		}
		if c.written[name] && !c.global[name] { // RFC 6609 §3.4.1
			c.fail(s.pos, "%q is a variable of this script already: global must stand before it is set", s.text)
		}
		c.global[name] = true
		names = append(names, name)
	}
	return func(r *run) error {
		for _, name := range names {
			r.shared[name] = true
		}
		return nil
	}
}

func isASCII(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool { return r >= 0x80 })
}
