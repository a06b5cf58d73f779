package imapsession

import (
	"context"
	"time"

	"shoal/daemons/internal/mailstore"
)

// Quotas (RFC 9208): one quota root, named "", holds all mailboxes of an account. Its limits come from
// the account's entry in the directory, as of the login; an account without limits has no quota root.
//
// Limits are soft: two boxes that store at the same moment may together go over them by what they store.

// usageAge is how old what this server knows of a mailbox may be when it is summed up.
const usageAge = time.Minute

// hasQuota reports whether the account has a limit.
func (s *session) hasQuota() bool { return s.user.QuotaStorage > 0 || s.user.QuotaMessages > 0 }

// checkQuota refuses to store messages more of bytes in all when that would go over a limit.
func (s *session) checkQuota(ctx context.Context, bytes, messages int64) error {
	if !s.hasQuota() || messages == 0 {
		return nil
	}
	limits := mailstore.Usage{Bytes: max(s.user.QuotaStorage, 0), Messages: max(s.user.QuotaMessages, 0)}
	u, over, err := s.acc.Over(ctx, limits, mailstore.Usage{Bytes: bytes, Messages: messages}, usageAge)
	if err != nil {
		return err
	}
	switch {
	case !over:
		return nil
	case s.user.QuotaStorage > 0 && u.Bytes+bytes > s.user.QuotaStorage:
		return no("OVERQUOTA", "The mailboxes are full: "+itoa(uint64(u.Bytes/1024))+" of "+itoa(uint64(s.user.QuotaStorage/1024))+" KiB are in use")
	case s.user.QuotaMessages > 0 && u.Messages+messages > s.user.QuotaMessages:
		return no("OVERQUOTA", "The mailboxes are full: "+itoa(uint64(u.Messages))+" of "+itoa(uint64(s.user.QuotaMessages))+" messages")
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
	u, err := s.acc.Usage(ctx, usageAge)
	if err != nil {
		return err
	}
	e := &s.enc
	e.Raw(`* QUOTA "" (`)
	if limit := s.user.QuotaStorage; limit > 0 {
		e.Raw("STORAGE ").Number(uint64((u.Bytes + 1023) / 1024)).SP().Number(uint64(limit / 1024))
		if s.user.QuotaMessages > 0 {
			e.SP()
		}
	}
	if limit := s.user.QuotaMessages; limit > 0 {
		e.Raw("MESSAGE ").Number(uint64(u.Messages)).SP().Number(uint64(limit))
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
