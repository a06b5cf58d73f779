package imapsession

import "shoal/daemons/internal/sharing"

// cmdExpunge is EXPUNGE and UID EXPUNGE (RFC 9051 §6.4.3, RFC 4315 §2.1).
func cmdExpunge(s *session, c *call) error {
	b := s.box
	v := &b.view
	var all = v.uidSet(everything)
	if c.uid {
		if err := s.dec.SP(); err != nil {
			return err
		}
		set, err := s.dec.Set()
		if err != nil {
			return err
		}
		ranges, err := s.resolve(set, true)
		if err != nil {
			return err
		}
		all = s.limitedDeleted(c, v.uidSet(ranges))
	}
	if err := s.dec.End(); err != nil {
		return err
	}
	if b.readOnly {
		return errReadOnly
	}
	if !b.rights.Has(sharing.Expunge) {
		return errNoRight
	}
	if len(all) > 0 {
		stop := s.keepTelling(c, b.view.st.Deleted())
		defer stop()
		res, err := b.mb.Expunge(c.ctx, all, true)
		stop()
		if err != nil {
			return err
		}
		v.advance(res.State)
		c.own = res.UIDs
		if s.qresync && len(res.UIDs) > 0 {
			c.ok("HIGHESTMODSEQ "+itoa(res.State.ModSeq()), "")
		}
	}
	return nil
}
