package sharing

import (
	"context"
	"crypto/sha256"
	"encoding/base32"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"shoal/daemons/internal/dirclient"
	"shoal/daemons/internal/mailstore"
)

const (
	notePrefix = "shared:"
	// noteLife is how old a note must be before it is removed for having no rights behind it: a grant may be under way.
	noteLife = 24 * time.Hour
	// maxOwners bounds the accounts that are looked at for one user.
	maxOwners = 1000
)

// DomainIndex is the id of the account that keeps the notes of a domain, on each volume its own.
func DomainIndex(domain string) string {
	sum := sha256.Sum256([]byte(strings.ToLower(domain)))
	return "shared-" + strings.ToLower(base32.StdEncoding.WithPadding(base32.NoPadding).EncodeToString(sum[:20]))
}

// notebook opens the account that keeps the notes for an identifier, and tells the key of the note about an owner.
func (s *Service) notebook(ctx context.Context, owner *dirclient.Account, id Identifier) (*mailstore.Account, string, error) {
	if user, ok := strings.CutPrefix(string(id), prefixUser); ok {
		a, err := s.dir.AccountByID(ctx, user)
		if err != nil {
			return nil, "", unknown(err)
		}
		acc, err := s.store.Account(ctx, a.Volume, a.ID)
		return acc, notePrefix + owner.ID, err
	}
	acc, err := s.store.Account(ctx, owner.Volume, DomainIndex(owner.Domain))
	return acc, notePrefix + string(id) + ":" + owner.ID, err
}

// leaveNote leaves the note that an owner shares something with an identifier: a new one with fresh, otherwise only if there is none.
func (s *Service) leaveNote(ctx context.Context, owner *dirclient.Account, id Identifier, fresh bool) error {
	acc, key, err := s.notebook(ctx, owner, id)
	if err != nil {
		return fmt.Errorf("note for %s: %w", id, err)
	}
	if !fresh {
		l, err := acc.Listing(ctx)
		if err != nil || l.Attr("", key) != "" {
			return err
		}
	}
	return acc.SetAttrs(ctx, mailstore.Attr{Key: key, Value: strconv.FormatInt(s.clock.Now().Unix(), 36)})
}

// Renew leaves the notes that all grants of an account's access lists ask for, as far as they are not there: after the account has come to another
// volume, whose notes are its own. Who is not known any more is passed over.
func (s *Service) Renew(ctx context.Context, owner *dirclient.Account, acc *mailstore.Account) error {
	l, err := acc.Listing(ctx)
	if err != nil {
		return err
	}
	done := map[Identifier]bool{}
	var errs []error
	for _, m := range l.Mailboxes() {
		for _, e := range List(l, m.ID) {
			if e.Negative || done[e.Identifier] {
				continue
			}
			done[e.Identifier] = true
			if err := s.leaveNote(ctx, owner, e.Identifier, false); err != nil && !errors.Is(err, ErrUnknown) {
				errs = append(errs, err)
			}
		}
	}
	return errors.Join(errs...)
}

// Shared is an account that shares something with a user.
type Shared struct {
	Owner   *dirclient.Account
	Account *mailstore.Account
	Listing *mailstore.Listing
	visible bool
}

// note is one that was found.
type note struct {
	owner string
	id    Identifier // who is granted something
	in    *mailstore.Account
	key   string
	at    time.Time
}

// With lists the accounts that share mailboxes with a user, sorted by address; own is the user's. Those that cannot be reached now, or are not
// active, are left out.
func (s *Service) With(ctx context.Context, w *Who, own *mailstore.Account) ([]Shared, error) {
	l, err := own.Listing(ctx)
	if err != nil {
		return nil, err
	}
	var notes []note
	take := func(in *mailstore.Account, l *mailstore.Listing, id Identifier, prefix string) {
		for owner, value := range l.Attrs("", prefix) {
			if accountID(owner) && len(notes) < 4*maxOwners {
				at, _ := strconv.ParseInt(value, 36, 64)
				notes = append(notes, note{owner, id, in, prefix + owner, time.Unix(at, 0)})
			}
		}
	}
	take(own, l, w.ids[0], notePrefix)
	volumes := s.store.VolumeNames()
	slices.Sort(volumes)
	for _, v := range volumes {
		acc, err := s.store.ExistingAccount(ctx, v, DomainIndex(w.Account.Domain))
		if err != nil {
			if !errors.Is(err, mailstore.ErrNoAccount) {
				s.log.Warn("shared mailboxes of a volume cannot be listed", "volume", v, "error", err)
			}
			continue
		}
		l := acc.KnownListing()
		if l == nil {
			continue
		}
		for _, id := range w.ids[1:] {
			take(acc, l, id, notePrefix+string(id)+":")
		}
	}
	found := map[string]*Shared{}
	for _, n := range notes {
		if n.owner == w.Account.ID || len(found) >= maxOwners {
			continue
		}
		sh, looked := found[n.owner]
		if !looked {
			sh = s.look(ctx, n.owner, w)
			found[n.owner] = sh
		}
		if sh != nil && !sh.grants(n.id) && s.clock.Now().Sub(n.at) > noteLife {
			s.dropNote(ctx, n, w)
		}
	}
	var out []Shared
	for _, sh := range found {
		if sh != nil && sh.visible {
			out = append(out, *sh)
		}
	}
	slices.SortFunc(out, func(a, b Shared) int { return strings.Compare(a.Owner.Address, b.Owner.Address) })
	return out, nil
}

// look opens the account of an owner and finds out whether the user has any right there. nil: nothing can be said.
func (s *Service) look(ctx context.Context, owner string, w *Who) *Shared {
	a, err := s.dir.AccountByID(ctx, owner)
	if errors.Is(err, dirclient.ErrNoSuchAccount) {
		return &Shared{}
	}
	if err != nil || !a.Active() {
		return nil
	}
	sh := &Shared{Owner: a}
	if sh.Account, sh.Listing, err = s.open(ctx, a); err != nil {
		s.log.Warn("shared account cannot be looked at", "account", owner, "error", err)
		return nil
	}
	for _, m := range sh.Listing.Mailboxes() {
		if RightsOf(sh.Listing, m.ID, a, w) != 0 {
			sh.visible = true
			break
		}
	}
	return sh
}

func (s *Service) open(ctx context.Context, a *dirclient.Account) (*mailstore.Account, *mailstore.Listing, error) {
	acc, err := s.store.ExistingAccount(ctx, a.Volume, a.ID)
	if err != nil {
		return nil, nil, err
	}
	l := acc.KnownListing() // ExistingAccount has just read it
	if l == nil {
		l, err = acc.Listing(ctx)
	}
	return acc, l, err
}

// grants reports whether the account's lists grant an identifier anything, for themselves: an account that is no more grants nothing.
func (sh *Shared) grants(id Identifier) bool {
	if sh.Owner == nil {
		return false
	}
	for _, m := range sh.Listing.Mailboxes() {
		if storedRights(sh.Listing.Attr(m.ID, AttrPrefix+string(id))) != 0 {
			return true
		}
	}
	return false
}

// dropNote removes a note that has nothing behind it, and puts it back if that has changed meanwhile.
func (s *Service) dropNote(ctx context.Context, n note, w *Who) {
	if err := n.in.SetAttrs(ctx, mailstore.Attr{Key: n.key}); err != nil {
		s.log.Warn("old note of shared mailboxes not removed", "key", n.key, "error", err)
		return
	}
	if again := s.look(ctx, n.owner, w); again != nil && again.grants(n.id) {
		err := n.in.SetAttrs(ctx, mailstore.Attr{Key: n.key, Value: strconv.FormatInt(s.clock.Now().Unix(), 36)})
		if err != nil {
			s.log.Warn("note of shared mailboxes not put back", "key", n.key, "error", err)
		}
	}
}

// Owner finds the account with an address that may share mailboxes, and its list as of now. dirclient.ErrNoSuchAccount if there is none,
// or if it is not active: what its owner cannot use, nobody can.
func (s *Service) Owner(ctx context.Context, address string) (*Shared, error) {
	a, err := s.dir.Account(ctx, address)
	if err != nil {
		return nil, err
	}
	if !a.Active() {
		return nil, fmt.Errorf("%s is %s: %w", a.Address, a.Status, dirclient.ErrNoSuchAccount)
	}
	acc, l, err := s.open(ctx, a)
	if errors.Is(err, mailstore.ErrNoAccount) {
		return nil, fmt.Errorf("%w: %w", dirclient.ErrNoSuchAccount, err)
	}
	if err != nil {
		return nil, err
	}
	return &Shared{Owner: a, Account: acc, Listing: l}, nil
}

// Active finds an account by its id that is active: dirclient.ErrNoSuchAccount otherwise.
func (s *Service) Active(ctx context.Context, id string) (*dirclient.Account, error) {
	a, err := s.dir.AccountByID(ctx, id)
	if err == nil && !a.Active() {
		return nil, fmt.Errorf("%s is %s: %w", a.Address, a.Status, dirclient.ErrNoSuchAccount)
	}
	return a, err
}
