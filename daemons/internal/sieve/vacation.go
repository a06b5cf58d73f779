package sieve

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

var vacationTags = tagSet{
	"days":      {group: "interval", takes: argNumber},
	"seconds":   {group: "interval", needs: "vacation-seconds", takes: argNumber},
	"subject":   {takes: argString},
	"from":      {takes: argString},
	"addresses": {takes: argStrings},
	"mime":      {},
	"handle":    {takes: argString},
}

// fccTags are those of RFC 8580, with what they take from other extensions. With vacation and notify they belong to
// :fcc only.
var fccTags = tagSet{
	"fcc":        {needs: "fcc", takes: argString},
	"flags":      {needs: "imap4flags", takes: argStrings},
	"create":     {needs: "mailbox"},
	"specialuse": {needs: "special-use", takes: argString, group: "place"},
	"mailboxid":  {needs: "mailboxid", takes: argString, group: "place"},
}

// fcc reads :fcc; the function gives nil where there is none.
func (c *compiler) fcc(b *bound) func(*run) (*FCC, error) {
	a := b.tags["fcc"]
	if a == nil {
		for _, tag := range []string{"flags", "create", "specialuse", "mailboxid"} {
			if b.tag(tag) {
				c.fail(b.pos, ":%s needs :fcc here", tag)
			}
		}
		return func(*run) (*FCC, error) { return nil, nil }
	}
	place := c.place(b, c.text(a.strs[0]))
	var list []*text
	if f := b.tags["flags"]; f != nil {
		list = c.texts(f)
	}
	return func(r *run) (*FCC, error) {
		p, err := place(r)
		if err != nil {
			return nil, err
		}
		flags, err := r.flagList(list)
		return &FCC{p, flags}, err
	}
}

const (
	defaultVacation = 7 * 24 * time.Hour
	day             = 24 * time.Hour
)

// buildVacation: RFC 5230, RFC 6131.
func buildVacation(c *compiler, b *bound) stmt {
	reason, subject, from, handle := c.text(b.args[0].strs[0]), c.tagText(b, "subject"), c.tagText(b, "from"), c.tagText(b, "handle")
	interval := defaultVacation
	if a := b.tags["days"]; a != nil {
		interval = time.Duration(min(max(a.num, 1), 10000)) * day
	}
	zero := false
	if a := b.tags["seconds"]; a != nil {
		interval, zero = seconds(a.num), a.num == 0
	}
	var own []*text
	if a := b.tags["addresses"]; a != nil {
		own = c.texts(a)
	}
	if from != nil && from.constant() && len(addresses(from.lit)) != 1 {
		c.fail(b.tags["from"].pos, "%q is not one mail address", from.lit)
	}
	mime, fcc := b.tag("mime"), c.fcc(b)
	return func(r *run) error {
		if r.vacation {
			return errors.New("vacation is used twice")
		}
		r.vacation = true
		if slices.ContainsFunc(r.out.Actions, func(a Action) bool { _, ok := a.(*Vacation); return ok }) {
			r.note("vacation: no reply: a script before has answered")
			return nil
		}
		v := &Vacation{To: r.env.From, MIME: mime}
		var err error
		if v.Reason, err = r.expand(reason); err != nil {
			return err
		}
		if len(v.Reason) > maxReasonBytes {
			return fmt.Errorf("the reason is longer than %s", size(maxReasonBytes))
		}
		if v.Subject, err = r.expand(subject); err != nil {
			return err
		}
		if v.From, err = r.expand(from); err != nil {
			return err
		}
		if v.From != "" && len(addresses(v.From)) != 1 {
			return fmt.Errorf("vacation: %q is not one mail address", v.From)
		}
		mine, err := r.expandAll(own)
		if err != nil {
			return err
		}
		why, err := r.noReply(mine)
		if err != nil {
			return err
		}
		if why != "" {
			r.note("vacation: no reply: %s", why)
			return nil
		}
		h, err := r.expand(handle)
		if err != nil {
			return err
		}
		if h != "" {
			v.Key = hash("vacation", "handle", h)
		} else {
			v.Key = hash("vacation", v.Reason, v.Subject, v.From, fmt.Sprint(mime))
		}
		v.Interval = min(max(interval, r.lim.MinVacation), r.lim.MaxVacation)
		if zero { // RFC 6131 §2: answer every message, where the site allows it; MinVacation bounds it here
			v.Interval = r.lim.MinVacation
		}
		if err := r.thread(v); err != nil {
			return err
		}
		if v.FCC, err = fcc(r); err != nil {
			return err
		}
		return r.act(v)
	}
}

// thread fills in what makes the reply one to this message (RFC 5230 §5.2, §5.8).
func (r *run) thread(v *Vacation) error {
	id, err := r.one("Message-ID")
	if err != nil {
		return err
	}
	refs, err := r.one("References")
	if err != nil {
		return err
	}
	if refs == "" {
		if refs, err = r.one("In-Reply-To"); err != nil {
			return err
		}
	}
	v.InReplyTo = id
	v.References = strings.TrimSpace(refs + " " + id)
	if len(v.References) > 2000 {
		v.References = id
	}
	if v.Subject == "" {
		list, err := r.fields()
		if err != nil {
			return err
		}
		v.Subject = "Automated reply"
		if f := named(list, "Subject"); len(f) > 0 && f[0].decoded() != "" {
			v.Subject = "Auto: " + f[0].decoded()
		}
	}
	return nil
}

// robots are senders that are not answered (RFC 5230 §4.6), by local part in lower case.
var robots = []string{"mailer-daemon", "listserv", "majordomo", "noreply", "no-reply", "postmaster"}

// noReply says why the sender is not answered; "" if it is. RFC 5230 §4.5, §4.6; RFC 3834 §2.
func (r *run) noReply(own []string) (string, error) {
	if r.env.From.IsNull() {
		return "the sender is the null address", nil
	}
	local := strings.ToLower(r.env.From.Local)
	for _, robot := range robots {
		if local == robot {
			return "the sender is " + robot, nil
		}
	}
	if strings.HasPrefix(local, "owner-") || strings.HasSuffix(local, "-request") || strings.HasSuffix(local, "-owner") || strings.HasPrefix(local, "bounce") {
		return "the sender is the address of a list", nil
	}
	mine := map[string]bool{}
	for _, a := range append(r.env.Addresses, r.env.Owner, r.env.To) {
		base, _ := a.Subaddress(r.env.Separators)
		mine[a.Key()], mine[base.Key()] = true, true
	}
	for _, v := range own {
		for _, a := range addresses(v) {
			mine[a.Key()] = true
		}
	}
	if mine[r.env.From.Key()] {
		return "the sender is the account itself", nil
	}
	list, err := r.fields()
	if err != nil {
		return "", err
	}
	for i := range list {
		f := &list[i]
		switch name := strings.ToLower(f.name); {
		case name == "auto-submitted":
			if v, _, _ := strings.Cut(f.value(), ";"); !strings.EqualFold(strings.TrimSpace(v), "no") {
				return "the message was sent by a program", nil
			}
		case strings.HasPrefix(name, "list-"):
			return "the message came through a list", nil
		case name == "precedence":
			if v := strings.ToLower(f.value()); v == "bulk" || v == "junk" || v == "list" {
				return "the message is " + v + " mail", nil
			}
		case name == "x-auto-response-suppress":
			if v := strings.ToLower(f.value()); strings.Contains(v, "all") || strings.Contains(v, "oof") {
				return "the sender wants no automatic replies", nil
			}
		}
	}
	for _, name := range []string{"To", "Cc", "Bcc", "Resent-To", "Resent-Cc", "Resent-Bcc"} {
		for _, f := range named(list, name) {
			for _, a := range f.addresses() {
				base, _ := a.Subaddress(r.env.Separators)
				if mine[a.Key()] || mine[base.Key()] {
					return "", nil
				}
			}
		}
	}
	return "the message is not addressed to the account", nil
}
