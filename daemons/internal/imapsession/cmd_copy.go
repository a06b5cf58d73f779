package imapsession

import (
	"shoal/daemons/internal/imapwire"
	"shoal/daemons/internal/mailstore"
	"shoal/daemons/internal/sharing"
)

// cmdCopy is COPY and MOVE, also with UID (RFC 9051 §6.4.7 and §6.4.8, RFC 4315 §3, RFC 6851). Either is
// one commit in the destination; MOVE then expunges here.
func cmdCopy(s *session, c *call) error {
	set, err := s.setArgument()
	if err != nil {
		return err
	}
	name, err := s.dec.Mailbox()
	if err != nil {
		return err
	}
	if err := s.dec.End(); err != nil {
		return err
	}
	move := c.name == "MOVE" || c.name == "UID MOVE"
	b := s.box
	if move && b.readOnly {
		return errReadOnly
	}
	ranges, err := s.resolve(set, c.uid)
	if err != nil {
		return err
	}
	b.catchUp()
	if move {
		ranges = s.limited(c, ranges)
	} else if err := s.within(ranges); err != nil {
		return err
	}
	if !c.uid {
		gone := false
		b.view.each(ranges, func(_ uint32, _ *mailstore.Message, ghost bool) bool {
			gone = gone || ghost
			return !gone
		})
		if gone { // RFC 2180 §4.4.1: all or nothing
			return no("EXPUNGEISSUED", "Some of the messages no longer exist")
		}
	}
	if move && !b.rights.Has(sharing.Expunge|sharing.Delete) { // RFC 6851 §4.1
		return errNoRight
	}
	uids := b.view.uidSet(ranges)
	to, dst, err := s.open(c.ctx, name, sharing.Insert)
	if err != nil {
		return tryCreate(err)
	}
	if len(uids) == 0 {
		return nil
	}
	var res mailstore.CopyResult
	stop := s.keepTelling(c, uids.Len())
	defer stop()
	if move && dst.Ref() == b.mb.Ref() {
		return no("CANNOT", "The messages are there already")
	}
	if !move || to.owner.ID != b.owner(s).ID { // what moves within an account takes no more room there
		if err := s.checkCopyQuota(c, to, uids); err != nil {
			return err
		}
	}
	res, err = b.mb.Transfer(c.ctx, uids, dst, to.copyOptions(move))
	stop()
	if err != nil {
		return tryCreate(err)
	}
	if len(res.Source) == 0 {
		return nil
	}
	code := copyUID(&res)
	s.noteOwn(dst, len(res.Dest))
	if !move {
		if dst.Ref() == b.mb.Ref() {
			c.own = setOf(res.Dest)
		}
		c.ok(code, "")
		return nil
	}
	// RFC 6851 §4.3: the code comes before the messages vanish.
	s.enc.Raw("* OK [").Raw(code).Raw("] Moved\r\n")
	b.view.advance(res.State)
	c.own = setOf(res.Source)
	if s.qresync {
		c.ok("HIGHESTMODSEQ "+itoa(res.State.ModSeq()), "")
	}
	return nil
}

func setOf(uids []uint32) (set mailstore.UIDSet) {
	for _, uid := range uids {
		set.Add(uid)
	}
	return set
}

// checkCopyQuota refuses a copy that goes over the quota.
func (s *session) checkCopyQuota(c *call, to *place, uids mailstore.UIDSet) error {
	if !to.hasQuota() {
		return nil
	}
	var bytes, messages int64
	for _, m := range s.box.view.st.UIDs(uids) {
		bytes += m.Size
		messages++
	}
	return to.checkQuota(c.ctx, bytes, messages)
}

// copyUID is the response code COPYUID (RFC 4315 §3).
func copyUID(res *mailstore.CopyResult) string {
	var from, to []imapwire.Range
	for i := range res.Source {
		from = imapwire.AddNumber(from, res.Source[i])
		to = imapwire.AddNumber(to, res.Dest[i])
	}
	b := append([]byte("COPYUID "), itoa(uint64(res.UIDValidity))...)
	b = imapwire.AppendSet(append(b, ' '), from)
	return string(imapwire.AppendSet(append(b, ' '), to))
}
