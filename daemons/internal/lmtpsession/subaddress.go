package lmtpsession

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"shoal/daemons/internal/dirclient"
	"shoal/daemons/internal/mailstore"
	"shoal/daemons/internal/sharing"
)

// subfolder sets the mailbox of a delivery by the detail of the recipient's address (user+detail, RFC 5233), as the domain's policy says:
//
//	inbox    INBOX
//	folder   the mailbox that is named as the detail, ASCII case aside; INBOX if there is none
//	create   the same, but one is made and subscribed to if there is none
//
// A mailbox that mail may not be sent to (postable) is passed over: INBOX.
//
// A detail counts only behind one of the account's own addresses. Where the account has scripts, they decide.
func (s *session) subfolder(ctx context.Context, target *target, t *mailstore.Target) error {
	if s.s.o.Domains == nil || s.s.o.Separators == "" {
		return nil
	}
	base, detail := target.to.Subaddress(s.s.o.Separators)
	if detail == "" || base.Local == target.to.Local || !slices.Contains(target.account.Addresses, base.Key()) {
		return nil
	}
	d, err := s.s.o.Domains.Domain(ctx, target.account.Domain)
	if err != nil {
		return fmt.Errorf("policy of %s: %w", target.account.Domain, errors.Join(dirclient.ErrUnavailable, err))
	}
	if d.Subaddress != dirclient.SubaddressFolder && d.Subaddress != dirclient.SubaddressCreate || strings.EqualFold(detail, mailstore.Inbox) {
		return nil
	}
	l, err := target.handle.Listing(ctx)
	if err != nil {
		return fmt.Errorf("mailboxes of account %s: %w", target.account.ID, err)
	}
	list := l.Mailboxes()
	for _, m := range list {
		if !postable(target.account, l, m.ID) {
			if strings.EqualFold(m.Name, detail) {
				return nil // it comes into INBOX
			}
			continue
		}
		if m.Name == detail {
			t.Mailbox = detail
			return nil
		}
		if strings.EqualFold(m.Name, detail) {
			t.Mailbox = m.Name
		}
	}
	if target.account.Public {
		return nil // nobody makes public mailboxes by sending mail
	}
	if t.Mailbox != "" || d.Subaddress != dirclient.SubaddressCreate || len(list) >= maxFolders || strings.Contains(detail, "/") {
		return nil
	}
	_, err = target.handle.Create(ctx, detail, mailstore.CreateOptions{})
	switch {
	case errors.Is(err, mailstore.ErrMailboxName):
		return nil
	case errors.Is(err, mailstore.ErrMailboxExists):
	case err != nil:
		return fmt.Errorf("create mailbox %q of account %s: %w", detail, target.account.ID, err)
	default:
		if err := target.handle.Subscribe(ctx, detail, true); err != nil {
			return fmt.Errorf("subscribe to %q: %w", detail, err)
		}
	}
	t.Mailbox = detail
	return nil
}

// postable reports whether mail may be sent to a mailbox (the right p of RFC 4314): to a public one if everybody has the right, to somebody's own
// unless everybody is denied it.
func postable(a *dirclient.Account, l *mailstore.Listing, mailbox string) bool {
	if a.Public {
		return sharing.AnyoneMay(l, mailbox, sharing.Post)
	}
	return !sharing.Denied(l, mailbox, sharing.Post)
}

// mayPost refuses mail for an account of public mailboxes whose INBOX takes none.
func mayPost(ctx context.Context, a *dirclient.Account, handle *mailstore.Account) error {
	if !a.Public {
		return nil
	}
	l, err := handle.Listing(ctx)
	if err != nil {
		return fmt.Errorf("mailboxes of account %s: %w", a.ID, err)
	}
	if box, ok := l.Mailbox(mailstore.Inbox); !ok || !postable(a, l, box.ID) {
		return errNoPost
	}
	return nil
}

// maxFolders bounds the mailboxes that senders can have made in an account.
const maxFolders = 1000
