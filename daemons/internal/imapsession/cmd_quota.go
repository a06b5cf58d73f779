package imapsession

import (
	"context"
	"time"

	"shoal/daemons/internal/mailstore"
	"shoal/daemons/internal/sharing"
)

// Quotas (RFC 9208): one quota root, named "", holds all mailboxes of an account. Its limits come from
// the account's entry in the directory, as of the login; an account without limits has no quota root.
//
// Limits are soft: two boxes that store at the same moment may together go over them by what they store.

// usageAge is how old what this server knows of a mailbox may be when it is summed up.
const usageAge = time.Minute

// hasQuota reports whether the account has a limit.
func (p *place) hasQuota() bool { return p.owner.QuotaStorage > 0 || p.owner.QuotaMessages > 0 }

// checkQuota refuses to store messages more of bytes in all when that would go over a limit of the account.
func (p *place) checkQuota(ctx context.Context, bytes, messages int64) error {
	if !p.hasQuota() || messages == 0 {
		return nil
	}
	o := p.owner
	limits := mailstore.Usage{Bytes: max(o.QuotaStorage, 0), Messages: max(o.QuotaMessages, 0)}
	u, over, err := p.acc.Over(ctx, limits, mailstore.Usage{Bytes: bytes, Messages: messages}, usageAge)
	if err != nil {
		return err
	}
	switch {
	case !over:
		return nil
	case o.QuotaStorage > 0 && u.Bytes+bytes > o.QuotaStorage:
		return no("OVERQUOTA", "The mailboxes are full: "+itoa(uint64(u.Bytes/1024))+" of "+itoa(uint64(o.QuotaStorage/1024))+" KiB are in use")
	case o.QuotaMessages > 0 && u.Messages+messages > o.QuotaMessages:
		return no("OVERQUOTA", "The mailboxes are full: "+itoa(uint64(u.Messages))+" of "+itoa(uint64(o.QuotaMessages))+" messages")
	}
	return nil
}

// quotaRoot is the name of the account's quota root: empty for one's own, otherwise the address.
func (p *place) quotaRoot() string {
	if p.foreign {
		return p.owner.Address
	}
	return ""
}

// cmdGetQuota is GETQUOTA (RFC 9208 §4.1.2). The root of somebody else's account is known to those who may read one of his mailboxes.
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
	none := no("NONEXISTENT", "There is no such quota root")
	if root == "" {
		p := s.own("")
		if !p.hasQuota() {
			return none
		}
		return s.writeQuota(c.ctx, p)
	}
	sh, err := s.srv.sharing.Owner(c.ctx, root)
	if err != nil || sh.Owner.Address != root || sh.Owner.ID == s.user.ID {
		return none
	}
	who, err := s.srv.sharing.Who(c.ctx, s.user)
	if err != nil {
		return err
	}
	p := &place{acc: sh.Account, owner: sh.Owner, foreign: true, listing: sh.Listing, who: who}
	for _, m := range sh.Listing.Mailboxes() {
		if p.hasQuota() && sharing.RightsOf(sh.Listing, m.ID, sh.Owner, who).Has(sharing.Read) {
			return s.writeQuota(c.ctx, p)
		}
	}
	return none
}

// cmdGetQuotaRoot is GETQUOTAROOT (RFC 9208 §4.1.3).
func cmdGetQuotaRoot(s *session, c *call) error {
	name, err := s.oneMailbox()
	if err != nil {
		return err
	}
	p, _, err := s.open(c.ctx, name, sharing.Read)
	if err != nil {
		return err
	}
	s.enc.Raw("* QUOTAROOT ").Mailbox(name)
	if !p.hasQuota() {
		s.enc.CRLF()
		return nil
	}
	s.enc.SP().String(p.quotaRoot()).CRLF()
	return s.writeQuota(c.ctx, p)
}

// writeQuota writes the QUOTA response. STORAGE counts units of 1024 octets (RFC 9208 §5.1), usage
// rounded up and the limit down.
func (s *session) writeQuota(ctx context.Context, p *place) error {
	u, err := p.acc.Usage(ctx, usageAge)
	if err != nil {
		return err
	}
	e := &s.enc
	e.Raw("* QUOTA ").String(p.quotaRoot()).Raw(" (")
	if limit := p.owner.QuotaStorage; limit > 0 {
		e.Raw("STORAGE ").Number(uint64((u.Bytes + 1023) / 1024)).SP().Number(uint64(limit / 1024))
		if p.owner.QuotaMessages > 0 {
			e.SP()
		}
	}
	if limit := p.owner.QuotaMessages; limit > 0 {
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
