package imapsession

import (
	"context"
	"errors"
	"strings"

	"shoal/daemons/internal/dirclient"
	"shoal/daemons/internal/mailstore"
	"shoal/daemons/internal/sharing"
)

// Names of mailboxes, and whose they are:
//
//	<name>                          one's own
//	Other Users/<owner>             the INBOX of somebody else
//	Other Users/<owner>/<name>      another mailbox of his
//	Public Folders/<owner>[/<name>] the same of an account of public mailboxes
//
// <owner> is the address of the account, without the domain where that is one's own. "/", "%", "*" and "=" in it are written as "=2F",
// "=25", "=2A" and "=3D". Both prefixes are settings.

// place is where a name leads.
type place struct {
	acc   *mailstore.Account
	owner *dirclient.Account
	name  string // in the owner's account
	// Of somebody else's account:
	foreign bool
	listing *mailstore.Listing
	who     *sharing.Who
	box     string         // id of the mailbox, empty: there is none of that name
	rights  sharing.Rights // of the user, to the mailbox or, where there is none, to the nearest one above it
}

// errNoRight refuses what the access list does not permit, errNoSuchMailbox what it does not even show.
var (
	errNoRight       = no("NOPERM", "You have no right to do that")
	errNoSuchMailbox = no("NONEXISTENT", "There is no such mailbox")
)

// missing refuses a user who lacks a right to a place (RFC 4314 §6: who may not look up a mailbox does not learn that it exists).
func (p *place) missing() error {
	if p.rights.Has(sharing.Lookup) {
		return errNoRight
	}
	return errNoSuchMailbox
}

// own is the place of a mailbox of the user's own account.
func (s *session) own(name string) *place {
	return &place{acc: s.acc, owner: s.user, name: name, rights: sharing.All}
}

// sharedName takes the prefix of a namespace off a name.
func (s *session) sharedName(name string) (rest string, public, ok bool) {
	lim := s.srv.limits()
	for i, prefix := range []string{lim.OtherUsers, lim.PublicFolders} {
		if prefix == "" {
			continue
		}
		if name == prefix {
			return "", i == 1, true
		}
		if rest, ok := strings.CutPrefix(name, prefix+"/"); ok {
			return rest, i == 1, true
		}
	}
	return "", false, false
}

// place finds out where a name leads. A name of nobody's is errNoSuchMailbox. A place without a mailbox is no error.
func (s *session) place(ctx context.Context, name string) (*place, error) {
	rest, public, ok := s.sharedName(name)
	if !ok {
		return s.own(name), nil
	}
	owner, below, _ := strings.Cut(rest, "/")
	address, ok := s.ownerAddress(owner)
	if !ok || strings.EqualFold(below, mailstore.Inbox) {
		return nil, errNoSuchMailbox
	}
	sh, err := s.srv.sharing.Owner(ctx, address)
	if errors.Is(err, dirclient.ErrNoSuchAccount) || errors.Is(err, dirclient.ErrNoSuchDomain) {
		return nil, errNoSuchMailbox
	}
	if err != nil {
		return nil, err
	}
	if sh.Owner.ID == s.user.ID || sh.Owner.Public != public || s.ownerName(sh.Owner) != owner {
		return nil, errNoSuchMailbox
	}
	if below == "" {
		below = mailstore.Inbox
	}
	who, err := s.srv.sharing.Who(ctx, s.user)
	if err != nil {
		return nil, err
	}
	p := &place{acc: sh.Account, owner: sh.Owner, name: below, foreign: true, listing: sh.Listing, who: who}
	if box, ok := sh.Listing.Mailbox(below); ok {
		p.box = box.ID
		p.rights = sharing.RightsOf(sh.Listing, box.ID, sh.Owner, who)
	} else if above, ok := p.parent(); ok {
		p.rights = sharing.RightsOf(sh.Listing, above, sh.Owner, who)
	}
	return p, nil
}

// parent is the id of the nearest mailbox above the place: of somebody else's account INBOX is above all.
func (p *place) parent() (id string, ok bool) {
	for name := p.name; ; {
		i := strings.LastIndexByte(name, separator)
		if i < 0 {
			break
		}
		name = name[:i]
		if box, ok := p.listing.Mailbox(name); ok {
			return box.ID, true
		}
	}
	if !p.foreign || p.name == mailstore.Inbox {
		return "", false
	}
	box, ok := p.listing.Mailbox(mailstore.Inbox)
	return box.ID, ok
}

// list makes sure that the place has its account's list.
func (p *place) list(ctx context.Context) (err error) {
	if p.listing == nil {
		if p.listing, err = p.acc.Listing(ctx); err != nil {
			return err
		}
		box, _ := p.listing.Mailbox(p.name)
		p.box = box.ID
	}
	return nil
}

// open opens a mailbox to which the user has all of the wanted rights.
func (s *session) open(ctx context.Context, name string, want sharing.Rights) (*place, *mailstore.Mailbox, error) {
	p, err := s.place(ctx, name)
	if err != nil {
		return nil, nil, err
	}
	mb, err := p.open(ctx, want)
	return p, mb, err
}

func (p *place) open(ctx context.Context, want sharing.Rights) (*mailstore.Mailbox, error) {
	if !p.foreign {
		return p.acc.Open(ctx, p.name)
	}
	switch {
	case p.box == "" && p.rights.Has(sharing.Create):
		return nil, mailstore.ErrNoMailbox
	case p.box == "":
		return nil, errNoSuchMailbox
	case !p.rights.Has(want):
		return nil, p.missing()
	}
	return p.acc.OpenListed(ctx, p.listing, p.box)
}

// ownerName is how an owner is called in names of mailboxes.
func (s *session) ownerName(owner *dirclient.Account) string {
	name := owner.Address
	if local, ok := strings.CutSuffix(name, "@"+addressDomain(s.user.Address)); ok {
		name = local
	}
	return ownerEscapes.Replace(name)
}

var ownerEscapes = strings.NewReplacer("=", "=3D", "/", "=2F", "%", "=25", "*", "=2A")

var ownerUnescapes = strings.NewReplacer("=3D", "=", "=2F", "/", "=25", "%", "=2A", "*")

// ownerAddress is the address that a name stands for.
func (s *session) ownerAddress(name string) (string, bool) {
	if name == "" {
		return "", false
	}
	name = ownerUnescapes.Replace(name)
	if !strings.Contains(name, "@") {
		name += "@" + addressDomain(s.user.Address)
	}
	return name, true
}

// addressDomain is what stands behind the last "@".
func addressDomain(address string) string { return address[strings.LastIndexByte(address, '@')+1:] }

// shown is the name of a mailbox of somebody else as the user calls it.
func (s *session) shown(owner *dirclient.Account, name string) string {
	prefix := s.srv.limits().OtherUsers
	if owner.Public {
		prefix = s.srv.limits().PublicFolders
	}
	if prefix == "" {
		return ""
	}
	prefix += "/" + s.ownerName(owner)
	if name == mailstore.Inbox {
		return prefix
	}
	return prefix + "/" + name
}

// nowhere, as mayMatch of a list, leaves the mailboxes of others out.
func nowhere(string) bool { return false }

// othersMailboxes lists the mailboxes of others that the user may look up, if mayMatch says that their names may be wanted. Trouble with the
// directory or other volumes leaves some out: one's own are listed all the same.
func (s *session) othersMailboxes(ctx context.Context, mayMatch func(prefix string) bool) []*place {
	lim := s.srv.limits()
	if !(lim.OtherUsers != "" && mayMatch(lim.OtherUsers+"/") || lim.PublicFolders != "" && mayMatch(lim.PublicFolders+"/")) {
		return nil
	}
	who, err := s.srv.sharing.Who(ctx, s.user)
	if err != nil {
		s.log().Warn("shared mailboxes not listed", "error", err)
		return nil
	}
	found, err := s.srv.sharing.With(ctx, who, s.acc)
	if err != nil {
		s.log().Warn("shared mailboxes not listed", "error", err)
		return nil
	}
	var out []*place
	for i := range found {
		sh := &found[i]
		if s.shown(sh.Owner, mailstore.Inbox) == "" {
			continue
		}
		for _, m := range sh.Listing.Mailboxes() {
			if r := sharing.RightsOf(sh.Listing, m.ID, sh.Owner, who); r.Has(sharing.Lookup) {
				out = append(out, &place{acc: sh.Account, owner: sh.Owner, name: m.Name, foreign: true, listing: sh.Listing, who: who, box: m.ID, rights: r})
			}
		}
	}
	return out
}
