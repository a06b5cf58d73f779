package imapsession

import (
	"context"
	"errors"
	"strings"

	"shoal/daemons/internal/mailstore"
	"shoal/daemons/internal/sharing"
)

// separator is the hierarchy separator of mailbox names.
const separator = '/'

// mailboxName takes a name for a mailbox that is to be made and checks what the store does not know
// about: the limits, and what cannot be said in IMAP.
func (s *session) mailboxName(name string) error {
	lim := s.srv.limits()
	switch {
	case name == "":
		return no("CANNOT", "A mailbox needs a name")
	case len(name) > lim.MailboxNameLimit:
		return no("LIMIT", "The name is longer than "+itoa(uint64(lim.MailboxNameLimit))+" bytes")
	case strings.Count(name, "/") >= lim.MailboxLevels:
		return no("LIMIT", "The name has more than "+itoa(uint64(lim.MailboxLevels))+" levels")
	case strings.HasPrefix(name, "/"), strings.HasSuffix(name, "/"), strings.Contains(name, "//"):
		return no("CANNOT", "A level of the name is empty")
	case name == lim.OtherUsers, name == lim.PublicFolders:
		return no("CANNOT", "Mailboxes of others begin so")
	case strings.ContainsAny(name, "%*"):
		return no("CANNOT", "The name has wildcards in it")
	}
	for _, r := range name {
		if r < 0x20 || r == 0x7f || r >= 0x80 && r < 0xa0 || r == 0x2028 || r == 0x2029 {
			return no("CANNOT", "The name has control characters in it") // RFC 9051 §5.1
		}
	}
	return nil
}

// cmdCreate is CREATE (RFC 9051 §6.3.4) with the parameter USE (RFC 6154 §3). A separator at the end
// announces that names will be made below, which needs no announcement here.
func cmdCreate(s *session, c *call) error {
	if err := s.dec.SP(); err != nil {
		return err
	}
	name, err := s.dec.Mailbox()
	if err != nil {
		return err
	}
	var uses []string
	if !s.dec.AtEnd() {
		if err := s.dec.SP(); err != nil {
			return err
		}
		if uses, err = s.createParams(); err != nil {
			return err
		}
	}
	if err := s.dec.End(); err != nil {
		return err
	}
	if len(name) > 1 {
		name = strings.TrimSuffix(name, "/")
	}
	if err := s.mailboxName(name); err != nil {
		return err
	}
	p, err := s.newPlace(c.ctx, name)
	if err != nil {
		return err
	}
	if len(uses) > 0 {
		if p.foreign {
			return no("USEATTR", "Special uses are for mailboxes of one's own")
		}
		if err := s.usesAreFree(c, uses); err != nil {
			return err
		}
	}
	o := mailstore.CreateOptions{SpecialUse: uses}
	if above, ok := p.parent(); ok {
		o.Attrs = sharing.Inherited(p.listing, above)
	}
	info, err := p.acc.Create(c.ctx, p.name, o)
	if err != nil {
		return err
	}
	if !p.foreign {
		s.noteCreated(info.ID, name)
	}
	c.ok("MAILBOXID ("+objectID(info.ID)+")", "")
	return nil
}

// specialUses are the special uses that a mailbox of ours can have (RFC 6154 §2). \All and \Flagged are
// for servers with virtual mailboxes.
var specialUses = []string{"Archive", "Drafts", "Junk", "Sent", "Trash"}

func (s *session) createParams() (uses []string, err error) {
	err = s.dec.List(func() error {
		word, err := s.dec.Keyword()
		if err != nil {
			return err
		}
		if word != "USE" {
			return badf("Unknown parameter of CREATE: %s", word)
		}
		if err := s.dec.SP(); err != nil {
			return err
		}
		return s.dec.List(func() error {
			if err := s.dec.Expect('\\'); err != nil {
				return err
			}
			atom, err := s.dec.Atom()
			if err != nil {
				return err
			}
			for _, u := range specialUses {
				if strings.EqualFold(u, atom) {
					uses = append(uses, u)
					return nil
				}
			}
			return no("USEATTR", `\`+atom+" is not a special use here")
		})
	})
	return uses, err
}

// usesAreFree refuses a special use that another mailbox has already: clients expect one of each.
func (s *session) usesAreFree(c *call, uses []string) error {
	list, err := s.acc.Mailboxes(c.ctx)
	if err != nil {
		return err
	}
	for _, info := range list {
		for _, have := range info.SpecialUse {
			for _, want := range uses {
				if have == want {
					return no("USEATTR", `There is a mailbox for \`+want+" already")
				}
			}
		}
	}
	return nil
}

// cmdDelete is DELETE (RFC 9051 §6.3.5). Mailboxes below the name stay.
func cmdDelete(s *session, c *call) error {
	name, err := s.oneMailbox()
	if err != nil {
		return err
	}
	p, mb, err := s.open(c.ctx, name, sharing.Remove)
	if err != nil {
		return err
	}
	if s.box != nil && mb.Ref() == s.box.mb.Ref() && p.name != mailstore.Inbox {
		s.closeMailbox()
		s.enc.Raw("* OK [CLOSED] The selected mailbox is being deleted\r\n")
	}
	if err := p.acc.Delete(c.ctx, p.name); err != nil {
		return err
	}
	s.noteDeleted(name)
	return nil
}

// cmdRename is RENAME (RFC 9051 §6.3.6).
func cmdRename(s *session, c *call) error {
	if err := s.dec.SP(); err != nil {
		return err
	}
	from, err := s.dec.Mailbox()
	if err != nil {
		return err
	}
	to, err := s.oneMailbox()
	if err != nil {
		return err
	}
	if len(to) > 1 {
		to = strings.TrimSuffix(to, "/")
	}
	if err := s.mailboxName(to); err != nil {
		return err
	}
	if strings.HasPrefix(to, from+"/") && from != "INBOX" {
		return no("CANNOT", "A mailbox cannot be moved below itself")
	}
	source, err := s.place(c.ctx, from)
	if err != nil {
		return err
	}
	if source.foreign {
		if _, err := source.open(c.ctx, sharing.Remove); err != nil {
			return err
		}
		if source.name == mailstore.Inbox {
			return mailstore.ErrInbox
		}
	}
	target, err := s.newPlace(c.ctx, to)
	if err != nil {
		return err
	}
	if source.owner.ID != target.owner.ID {
		return no("CANNOT", "A mailbox cannot be given to another account")
	}
	if err := source.acc.Rename(c.ctx, source.name, target.name); err != nil {
		return err
	}
	s.noteRenamed(from, to)
	return nil
}

// cmdSubscribe is SUBSCRIBE and UNSUBSCRIBE (RFC 9051 §6.3.7, §6.3.8). A name without a mailbox may be
// subscribed: it may come back.
func cmdSubscribe(s *session, c *call) error {
	name, err := s.oneMailbox()
	if err != nil {
		return err
	}
	if c.name == "SUBSCRIBE" {
		if err := s.mailboxName(name); err != nil {
			return err
		}
	}
	on := c.name == "SUBSCRIBE"
	if err := s.acc.Subscribe(c.ctx, name, on); err != nil {
		return err
	}
	s.noteSubscribed(name, on)
	return nil
}

// newPlace is the place of a mailbox that is to be made, by CREATE or RENAME: somebody else's needs the right to do so in the nearest mailbox
// above it (RFC 4314 §4).
func (s *session) newPlace(ctx context.Context, name string) (*place, error) {
	p, err := s.place(ctx, name)
	switch {
	case err != nil && errors.Is(err, errNoSuchMailbox):
		return nil, no("CANNOT", "A mailbox cannot be made there")
	case err != nil:
		return nil, err
	case !p.foreign:
		return p, p.list(ctx)
	case p.box != "" && p.rights.Has(sharing.Lookup):
		return nil, mailstore.ErrMailboxExists
	}
	if p.box != "" { // one that the user may not know of: as far as he can see, the right above it counts
		if above, ok := p.parent(); ok {
			p.rights = sharing.RightsOf(p.listing, above, p.owner, p.who)
		}
	}
	if !p.rights.Has(sharing.Create) {
		return nil, errNoRight
	}
	return p, nil
}

// oneMailbox takes a space, a mailbox name and the end of the command.
func (s *session) oneMailbox() (string, error) {
	if err := s.dec.SP(); err != nil {
		return "", err
	}
	name, err := s.dec.Mailbox()
	if err != nil {
		return "", err
	}
	return name, s.dec.End()
}

// cmdNamespace is NAMESPACE (RFC 2342, RFC 9051 §6.3.10): one's own mailboxes, those of other users, and public ones.
func cmdNamespace(s *session, c *call) error {
	if err := s.dec.End(); err != nil {
		return err
	}
	e, lim := &s.enc, s.srv.limits()
	e.Raw(`* NAMESPACE (("" "/"))`)
	for _, prefix := range []string{lim.OtherUsers, lim.PublicFolders} {
		if prefix == "" {
			e.Raw(" NIL")
			continue
		}
		e.Raw(" ((").Mailbox(prefix + "/").Raw(` "/"))`)
	}
	e.CRLF()
	return e.Err()
}
