package imapsession

import (
	"context"
	"errors"
	"strings"

	"shoal/daemons/internal/sharing"
)

// Access lists (RFC 4314). What they mean and how they are kept is package sharing's.

// aclPlace is the place of a mailbox whose access list is read or changed.
func (s *session) aclPlace(ctx context.Context, name string) (*place, error) {
	p, err := s.place(ctx, name)
	if err != nil {
		return nil, err
	}
	if err := p.list(ctx); err != nil {
		return nil, err
	}
	switch {
	case p.box == "":
		return nil, errNoSuchMailbox
	case !p.rights.Has(sharing.Administer):
		return nil, p.missing()
	}
	return p, nil
}

// identifier turns what the client calls somebody into what the list says. known: somebody is called so.
func (s *session) identifier(ctx context.Context, p *place, text string, known bool) (sharing.Entry, error) {
	id, negative, err := s.srv.sharing.Identify(ctx, text, p.owner.Domain, known)
	switch {
	case errors.Is(err, sharing.ErrIdentifier):
		return sharing.Entry{}, badf("That is no identifier of an access list")
	case errors.Is(err, sharing.ErrUnknown):
		return sharing.Entry{}, no("CANNOT", "Nobody is called so")
	case err != nil:
		return sharing.Entry{}, err
	}
	return sharing.Entry{Identifier: id, Negative: negative}, nil
}

// isOwner reports whether an entry is about the owner of the mailbox.
func (p *place) isOwner(e sharing.Entry) bool {
	return e.Identifier == sharing.UserIdentifier(p.owner.ID)
}

var errOwner = no("CANNOT", "The owner of a mailbox has all rights, always")

// aclArguments takes SP mailbox SP identifier.
func (s *session) aclArguments() (mailbox, identifier string, err error) {
	if err = s.dec.SP(); err != nil {
		return "", "", err
	}
	if mailbox, err = s.dec.Mailbox(); err != nil {
		return "", "", err
	}
	if err = s.dec.SP(); err != nil {
		return "", "", err
	}
	identifier, err = s.dec.AString()
	return mailbox, identifier, err
}

// cmdSetACL is SETACL (RFC 4314 §3.1).
//
//	setacl     = "SETACL" SP mailbox SP identifier SP mod-rights
//	mod-rights = astring                                "+" or "-" may stand before the rights
func cmdSetACL(s *session, c *call) error {
	name, identifier, err := s.aclArguments()
	if err != nil {
		return err
	}
	if err := s.dec.SP(); err != nil {
		return err
	}
	text, err := s.dec.AString()
	if err != nil {
		return err
	}
	if err := s.dec.End(); err != nil {
		return err
	}
	how := sharing.Replace
	if rest, ok := strings.CutPrefix(text, "+"); ok {
		how, text = sharing.Add, rest
	} else if rest, ok := strings.CutPrefix(text, "-"); ok {
		how, text = sharing.Take, rest
	}
	rights, err := sharing.ParseRights(text)
	if err != nil {
		return badf("%v", err)
	}
	p, err := s.aclPlace(c.ctx, name)
	if err != nil {
		return err
	}
	e, err := s.identifier(c.ctx, p, identifier, how != sharing.Take)
	if err != nil {
		return err
	}
	if p.isOwner(e) {
		if !e.Negative && (how == sharing.Add || rights == sharing.All && how == sharing.Replace) {
			return nil
		}
		return errOwner
	}
	e.Rights = rights
	err = s.srv.sharing.Set(c.ctx, p.owner, p.acc, p.box, e, how, s.srv.limits().ACLEntries)
	if errors.Is(err, sharing.ErrTooMany) {
		return no("LIMIT", "The access list has as many entries as it may have")
	}
	if err != nil {
		return err
	}
	s.logACL(p, e, string(how)+rights.String())
	return s.ownRightsChanged(c.ctx, p)
}

// ownRightsChanged looks at the selected mailbox after its access list was changed by the session itself.
func (s *session) ownRightsChanged(ctx context.Context, p *place) error {
	if s.box == nil || s.box.shared == nil || s.box.shared.p.box != p.box {
		return nil
	}
	if err := s.checkRights(ctx, true); !errors.Is(err, errRevoked) {
		return err
	}
	s.bye(unsharedText)
	return errOver
}

func (s *session) logACL(p *place, e sharing.Entry, change string) {
	id := string(e.Identifier)
	if e.Negative {
		id = "-" + id
	}
	s.log().Info("access list changed", "event", "imap-acl", "account", p.owner.ID, "mailbox", p.box, "identifier", id, "rights", change)
}

// cmdDeleteACL is DELETEACL (RFC 4314 §3.2).
func cmdDeleteACL(s *session, c *call) error {
	name, identifier, err := s.aclArguments()
	if err != nil {
		return err
	}
	if err := s.dec.End(); err != nil {
		return err
	}
	p, err := s.aclPlace(c.ctx, name)
	if err != nil {
		return err
	}
	e, err := s.identifier(c.ctx, p, identifier, false)
	if err != nil {
		return err
	}
	if p.isOwner(e) {
		return errOwner
	}
	if err := sharing.Forget(c.ctx, p.acc, p.box, e.Identifier, e.Negative); err != nil {
		return err
	}
	s.logACL(p, e, "deleted")
	return s.ownRightsChanged(c.ctx, p)
}

// cmdGetACL is GETACL (RFC 4314 §3.3).
func cmdGetACL(s *session, c *call) error {
	name, err := s.oneMailbox()
	if err != nil {
		return err
	}
	p, err := s.aclPlace(c.ctx, name)
	if err != nil {
		return err
	}
	e := &s.enc
	e.Raw("* ACL ").Mailbox(name)
	if !p.owner.Public {
		e.SP().AString(p.owner.Address).SP().Raw(sharing.All.String())
	}
	for _, x := range sharing.List(p.listing, p.box) {
		id := s.srv.sharing.Show(c.ctx, x.Identifier)
		if x.Negative {
			id = "-" + id
		}
		e.SP().AString(id).SP().AString(x.Rights.String())
	}
	e.CRLF()
	return e.Err()
}

// cmdListRights is LISTRIGHTS (RFC 4314 §3.4): any right may be granted without any other; the owner has them all.
func cmdListRights(s *session, c *call) error {
	name, identifier, err := s.aclArguments()
	if err != nil {
		return err
	}
	if err := s.dec.End(); err != nil {
		return err
	}
	p, err := s.aclPlace(c.ctx, name)
	if err != nil {
		return err
	}
	x, err := s.identifier(c.ctx, p, identifier, true)
	if err != nil {
		return err
	}
	e := &s.enc
	e.Raw("* LISTRIGHTS ").Mailbox(name).SP().AString(identifier)
	if p.isOwner(x) {
		e.SP().Raw(sharing.All.String()).CRLF()
		return e.Err()
	}
	e.Raw(` ""`)
	for _, r := range sharing.Letters + "cd" {
		e.SP().Byte(byte(r))
	}
	e.CRLF()
	return e.Err()
}

// cmdMyRights is MYRIGHTS (RFC 4314 §3.5).
func cmdMyRights(s *session, c *call) error {
	name, err := s.oneMailbox()
	if err != nil {
		return err
	}
	p, err := s.place(c.ctx, name)
	if err != nil {
		return err
	}
	if err := p.list(c.ctx); err != nil {
		return err
	}
	const any = sharing.Lookup | sharing.Read | sharing.Insert | sharing.Create | sharing.Remove | sharing.Administer
	if p.box == "" || !p.rights.Any(any) {
		return errNoSuchMailbox
	}
	s.writeMyRights(name, p.rights)
	return s.enc.Err()
}

func (s *session) writeMyRights(name string, r sharing.Rights) {
	s.enc.Raw("* MYRIGHTS ").Mailbox(name).SP().Raw(r.String()).CRLF()
}
