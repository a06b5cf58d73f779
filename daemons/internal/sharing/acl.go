package sharing

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"shoal/daemons/internal/dirclient"
	"shoal/daemons/internal/mailstore"
)

// AttrPrefix is how the keys of a mailbox's access list begin.
const AttrPrefix = "acl:"

// Entry is an entry of an access list.
type Entry struct {
	Identifier Identifier
	Negative   bool // the rights are taken away
	Rights     Rights
}

// List is the access list of a mailbox, without its owner, sorted.
func List(l *mailstore.Listing, mailbox string) []Entry {
	var out []Entry
	for key, value := range l.Attrs(mailbox, AttrPrefix) {
		id, negative := strings.CutPrefix(key, "-")
		out = append(out, Entry{Identifier(id), negative, storedRights(value)})
	}
	slices.SortFunc(out, func(a, b Entry) int {
		switch {
		case a.Identifier == b.Identifier && a.Negative != b.Negative && b.Negative:
			return -1
		case a.Identifier == b.Identifier:
			return 1
		}
		return strings.Compare(string(a.Identifier), string(b.Identifier))
	})
	return out
}

// Inherited are the attributes that a new mailbox takes over from the one above it (RFC 4314 §4): its access list.
func Inherited(l *mailstore.Listing, above string) map[string]string {
	out := map[string]string{}
	for key, value := range l.Attrs(above, AttrPrefix) {
		out[AttrPrefix+key] = value
	}
	return out
}

func (e Entry) key() string {
	if e.Negative {
		return AttrPrefix + "-" + string(e.Identifier)
	}
	return AttrPrefix + string(e.Identifier)
}

// RightsOf are the rights of a user to a mailbox of an owner.
func RightsOf(l *mailstore.Listing, mailbox string, owner *dirclient.Account, w *Who) Rights {
	if owner.ID == w.Account.ID {
		return All
	}
	var granted, denied Rights
	for _, id := range w.called(owner) {
		granted |= storedRights(l.Attr(mailbox, AttrPrefix+string(id)))
		denied |= storedRights(l.Attr(mailbox, AttrPrefix+"-"+string(id)))
	}
	return granted &^ denied & All
}

// AnyoneMay reports whether everybody has a right, whoever he is: senders of mail, for Post.
func AnyoneMay(l *mailstore.Listing, mailbox string, want Rights) bool {
	granted := storedRights(l.Attr(mailbox, AttrPrefix+string(Anyone)))
	return (granted &^ storedRights(l.Attr(mailbox, AttrPrefix+"-"+string(Anyone)))).Has(want)
}

// Denied reports whether everybody is denied a right.
func Denied(l *mailstore.Listing, mailbox string, right Rights) bool {
	return storedRights(l.Attr(mailbox, AttrPrefix+"-"+string(Anyone))).Any(right)
}

// Change is how SETACL changes an entry.
type Change byte

// The changes.
const (
	Replace Change = '='
	Add     Change = '+'
	Take    Change = '-'
)

// ErrTooMany: the list has as many entries as it may.
var ErrTooMany = errors.New("the access list is full")

// Set changes an entry of the access list of a mailbox, which may have at most most of them. An entry without rights is removed. Two servers that
// change the same entry at the same moment may overwrite each other's change; other entries are not touched. It returns the list that was
// changed. ErrTooMany, mailstore.ErrNoMailbox.
func (s *Service) Set(ctx context.Context, owner *dirclient.Account, acc *mailstore.Account, mailbox string, e Entry, how Change, most int) error {
	l, err := acc.Listing(ctx)
	if err != nil {
		return err
	}
	if _, ok := l.MailboxByID(mailbox); !ok {
		return fmt.Errorf("mailbox %q: %w", mailbox, mailstore.ErrNoMailbox)
	}
	was := storedRights(l.Attr(mailbox, e.key()))
	now := e.Rights
	switch how {
	case Add:
		now |= was
	case Take:
		now = was &^ now
	default:
		now |= was &^ All // rights of later versions
	}
	if was == 0 && now != 0 && len(l.Attrs(mailbox, AttrPrefix)) >= most {
		return fmt.Errorf("%d entries: %w", most, ErrTooMany)
	}
	note := now != 0 && !e.Negative
	if note {
		if err := s.leaveNote(ctx, owner, e.Identifier, true); err != nil {
			return err
		}
	}
	if err := acc.SetAttrs(ctx, mailstore.Attr{Mailbox: mailbox, Key: e.key(), Value: now.stored()}); err != nil {
		return err
	}
	if note {
		return s.leaveNote(ctx, owner, e.Identifier, false)
	}
	return nil
}

// Forget removes an entry (DELETEACL).
func Forget(ctx context.Context, acc *mailstore.Account, mailbox string, id Identifier, negative bool) error {
	return acc.SetAttrs(ctx, mailstore.Attr{Mailbox: mailbox, Key: Entry{Identifier: id, Negative: negative}.key()})
}
