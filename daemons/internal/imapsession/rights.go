package imapsession

import (
	"context"
	"errors"

	"shoal/daemons/internal/dirclient"
	"shoal/daemons/internal/mailstore"
	"shoal/daemons/internal/sharing"
)

// shared is what a session knows of its selected mailbox when that is somebody else's: it follows the owner's account, so that
// changes of the access list are in force with the next command, on whatever server they were made.
type shared struct {
	p     *place
	watch *mailstore.Watcher // of the owner's account
	told  sharing.Rights     // what PERMANENTFLAGS said
}

// owner is the account that the selected mailbox belongs to.
func (b *selected) owner(s *session) *dirclient.Account {
	if b.shared != nil {
		return b.shared.p.owner
	}
	return s.user
}

// flagRights are the rights that change a mailbox that is selected (RFC 4314 §5.2).
const flagRights = sharing.Insert | sharing.Expunge | sharing.Seen | sharing.Write | sharing.Delete

// follow begins to follow the owner's account of a mailbox that is being selected.
func (b *selected) follow(ctx context.Context, s *session, p *place) (err error) {
	b.rights = p.rights
	if !p.foreign {
		return nil
	}
	sh := &shared{p: p, told: p.rights}
	sh.watch, err = p.acc.WatchFunc(ctx, func() {
		if s.pushing.Load() {
			s.signal(eventPush)
		}
	})
	if err != nil {
		return err
	}
	b.shared = sh
	return nil
}

// errRevoked ends the session of a client whose right to read the selected mailbox has been taken away (RFC 4314 §5.1.1).
var errRevoked = errors.New("the right to read the selected mailbox was taken away")

const unsharedText = "You have no right to read the selected mailbox any more"

// checkRights finds out what the user may do in the selected mailbox now. It asks the volume only with ask, and the directory at most as
// often as its cache does. errRevoked when he may not read it any more.
func (s *session) checkRights(ctx context.Context, ask bool) error {
	b := s.box
	if b == nil || b.shared == nil {
		return nil
	}
	sh := b.shared
	owner, err := s.srv.sharing.Active(ctx, sh.p.owner.ID)
	if errors.Is(err, dirclient.ErrNoSuchAccount) {
		return errRevoked
	}
	if err == nil {
		sh.p.owner = owner
	}
	who, err := s.srv.sharing.Who(ctx, s.user)
	if err != nil {
		who = sh.p.who // the directory does not answer: as before
	}
	var l *mailstore.Listing
	if !ask {
		l = sh.p.acc.KnownListing() // the watch keeps it up to date
	}
	if l == nil {
		if l, err = sh.p.acc.Listing(ctx); err != nil {
			return err
		}
	}
	sh.p.listing, sh.p.who = l, who
	if _, there := l.MailboxByID(sh.p.box); !there {
		return nil // it says itself that it is deleted
	}
	sh.p.rights = sharing.RightsOf(l, sh.p.box, sh.p.owner, who)
	b.rights = sh.p.rights
	if !b.rights.Has(sharing.Read) {
		return errRevoked
	}
	return nil
}

// tellRights says which flags can be changed when that is something else than the client was told (RFC 4314 §5.1.1).
func (s *session) tellRights() {
	if sh := s.box.shared; sh != nil && (sh.told^s.box.rights)&(sharing.Seen|sharing.Write|sharing.Delete) != 0 {
		sh.told = s.box.rights
		s.writeMailboxFlags(s.box.view.st.Keywords())
	}
}

// flagsFor are the system flags that rights allow to change; keywords go with Write.
func flagsFor(r sharing.Rights) (flags mailstore.Flags) {
	if r.Has(sharing.Seen) {
		flags |= mailstore.FlagSeen
	}
	if r.Has(sharing.Delete) {
		flags |= mailstore.FlagDeleted
	}
	if r.Has(sharing.Write) {
		flags |= mailstore.FlagAnswered | mailstore.FlagFlagged | mailstore.FlagDraft
	}
	return flags
}

// allFlags are the system flags.
const allFlags = mailstore.FlagAnswered | mailstore.FlagFlagged | mailstore.FlagDraft | mailstore.FlagSeen | mailstore.FlagDeleted

// copyOptions are what a copy into the place keeps (RFC 4314 §4).
func (p *place) copyOptions(move bool) mailstore.CopyOptions {
	return mailstore.CopyOptions{Move: move, DropFlags: allFlags &^ flagsFor(p.rights), DropKeywords: !p.rights.Has(sharing.Write)}
}

// permit takes the flags off a message to be stored that the user may not set there.
func (p *place) permit(m *mailstore.AppendMessage) {
	m.Flags &= flagsFor(p.rights)
	if !p.rights.Has(sharing.Write) {
		m.Keywords = nil
	}
}

// permitted turns a change of flags into changes that the user may make, one or two. errNoRight if none of the flags may be changed.
func (b *selected) permitted(change mailstore.FlagChange) ([]mailstore.FlagChange, error) {
	may := flagsFor(b.rights)
	words := b.rights.Has(sharing.Write)
	if may == allFlags {
		return []mailstore.FlagChange{change}, nil
	}
	if may == 0 || change.Op != mailstore.FlagsReplace && (change.Flags != 0 || len(change.Keywords) > 0) &&
		change.Flags&may == 0 && (len(change.Keywords) == 0 || !words) {
		return nil, errNoRight
	}
	set := change
	set.Flags &= may
	if !words {
		set.Keywords = nil
	}
	if change.Op != mailstore.FlagsReplace {
		return []mailstore.FlagChange{set}, nil
	}
	// A replacement of some flags: the others stay as they are.
	clear := change
	clear.Op, clear.Flags, clear.Keywords = mailstore.FlagsRemove, may&^change.Flags, nil
	if words {
		for _, k := range b.view.st.Keywords() {
			if !containsFold(change.Keywords, k) {
				clear.Keywords = append(clear.Keywords, k)
			}
		}
	}
	set.Op = mailstore.FlagsAdd
	return []mailstore.FlagChange{clear, set}, nil
}
