package imapsession

import (
	"context"
	"errors"

	"shoal/daemons/internal/mailstore"
)

// Quotas (RFC 9208): one quota root, named "", holds all mailboxes of an account. Its limits come from
// the account's entry in the directory, as of the login; an account without limits has no quota root.
//
// Usage is the sum over the mailboxes as this server knows them, read from the store only where it
// knows nothing. Limits are therefore soft: two boxes that store at the same moment may together go
// over them by what they store.

// usage is what an account's mailboxes hold.
type usage struct {
	bytes, messages int64
}

// hasQuota reports whether the account has a limit.
func (s *session) hasQuota() bool { return s.user.QuotaStorage > 0 || s.user.QuotaMessages > 0 }

func (s *session) usage(ctx context.Context) (u usage, err error) {
	list, err := s.acc.Mailboxes(ctx)
	if err != nil {
		return u, err
	}
	for i := range list {
		mb, err := s.acc.OpenID(ctx, list[i].ID)
		var st *mailstore.State
		if err == nil {
			if st = mb.Cached(); st == nil {
				st, err = mb.State(ctx)
			}
		}
		if errors.Is(err, mailstore.ErrNoMailbox) || errors.Is(err, mailstore.ErrMailboxClosed) {
			continue // deleted meanwhile
		}
		if err != nil {
			return u, err
		}
		u.bytes += st.Bytes()
		u.messages += int64(st.Len())
	}
	return u, nil
}

// checkQuota refuses to store messages more of bytes in all when that would go over a limit.
func (s *session) checkQuota(ctx context.Context, bytes, messages int64) error {
	if !s.hasQuota() || messages == 0 {
		return nil
	}
	u, err := s.usage(ctx)
	if err != nil {
		return err
	}
	switch {
	case s.user.QuotaStorage > 0 && u.bytes+bytes > s.user.QuotaStorage:
		return no("OVERQUOTA", "The mailboxes are full: "+itoa(uint64(u.bytes/1024))+" of "+itoa(uint64(s.user.QuotaStorage/1024))+" KiB are in use")
	case s.user.QuotaMessages > 0 && u.messages+messages > s.user.QuotaMessages:
		return no("OVERQUOTA", "The mailboxes are full: "+itoa(uint64(u.messages))+" of "+itoa(uint64(s.user.QuotaMessages))+" messages")
	}
	return nil
}

// cmdGetQuota is GETQUOTA (RFC 9208 §4.1.2).
func cmdGetQuota(s *session, c *call) error {
	if err := s.dec.SP(); err != nil {
		return err
	}
	root, err := s.dec.AString()
	if err != nil {
		return err
	}
	if err := s.dec.End(); err != nil {
		return err
	}
	if root != "" || !s.hasQuota() {
		return no("NONEXISTENT", "There is no such quota root")
	}
	return s.writeQuota(c.ctx)
}

// cmdGetQuotaRoot is GETQUOTAROOT (RFC 9208 §4.1.3).
func cmdGetQuotaRoot(s *session, c *call) error {
	name, err := s.oneMailbox()
	if err != nil {
		return err
	}
	if _, err := s.acc.Open(c.ctx, name); err != nil {
		return err
	}
	s.enc.Raw("* QUOTAROOT ").Mailbox(name)
	if !s.hasQuota() {
		s.enc.CRLF()
		return nil
	}
	s.enc.Raw(` ""` + "\r\n")
	return s.writeQuota(c.ctx)
}

// writeQuota writes the QUOTA response. STORAGE counts units of 1024 octets (RFC 9208 §5.1), usage
// rounded up and the limit down.
func (s *session) writeQuota(ctx context.Context) error {
	u, err := s.usage(ctx)
	if err != nil {
		return err
	}
	e := &s.enc
	e.Raw(`* QUOTA "" (`)
	if limit := s.user.QuotaStorage; limit > 0 {
		e.Raw("STORAGE ").Number(uint64((u.bytes + 1023) / 1024)).SP().Number(uint64(limit / 1024))
		if s.user.QuotaMessages > 0 {
			e.SP()
		}
	}
	if limit := s.user.QuotaMessages; limit > 0 {
		e.Raw("MESSAGE ").Number(uint64(u.messages)).SP().Number(uint64(limit))
	}
	e.Raw(")\r\n")
	return e.Err()
}

// deletedBytes is the size of the messages with \Deleted: what an EXPUNGE would free.
func deletedBytes(st *mailstore.State) (n int64) {
	if st.Deleted() == 0 {
		return 0
	}
	for _, m := range st.All() {
		if m.Flags&mailstore.FlagDeleted != 0 {
			n += m.Size
		}
	}
	return n
}
