package lmtpsession

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"shoal/daemons/internal/dirclient"
	"shoal/daemons/internal/mailstore"
)

// subfolder sets the mailbox of a delivery by the detail of the recipient's address (user+detail, RFC 5233), as the domain's policy says:
//
//	inbox    INBOX
//	folder   the mailbox that is named as the detail, ASCII case aside; INBOX if there is none
//	create   the same, but one is made and subscribed to if there is none
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
	list, err := target.handle.Mailboxes(ctx)
	if err != nil {
		return fmt.Errorf("mailboxes of account %s: %w", target.account.ID, err)
	}
	for _, m := range list {
		if m.Name == detail {
			t.Mailbox = detail
			return nil
		}
		if strings.EqualFold(m.Name, detail) {
			t.Mailbox = m.Name
		}
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

// maxFolders bounds the mailboxes that senders can have made in an account.
const maxFolders = 1000
