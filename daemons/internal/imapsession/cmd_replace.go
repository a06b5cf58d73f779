package imapsession

import (
	"context"
	"errors"

	"shoal/daemons/internal/imapwire"
	"shoal/daemons/internal/mailstore"
	"shoal/daemons/internal/sharing"
)

// cmdReplace is REPLACE and UID REPLACE (RFC 8508): a message takes the place of another, which is expunged, in one command.
//
//	replace = "REPLACE" SP seq-number SP mailbox [SP flag-list] [SP date-time] SP data
//
// The new message is committed first and the old one removed then, so that at each moment at least one of them is there.
// Where the old one cannot be removed, the new one is taken back, and the answer is NO.
func cmdReplace(s *session, c *call) error {
	set, err := s.setArgument()
	if err != nil {
		return err
	}
	name, err := s.dec.Mailbox()
	if err != nil {
		return err
	}
	old, err := s.oneMessage(set, c.uid)
	if err != nil {
		return err
	}
	if s.box.readOnly {
		return errReadOnly
	}
	if !s.box.rights.Has(sharing.Delete | sharing.Expunge) {
		return errNoRight
	}
	opening, cancel := s.context()
	to, dst, err := s.open(opening, name, sharing.Insert)
	cancel()
	if err != nil {
		return tryCreate(err)
	}
	m, err := s.takeMessage(to, dst, func(size int64) error {
		ctx, cancel := s.context()
		defer cancel()
		if to.owner.ID != s.box.owner(s).ID {
			return to.checkQuota(ctx, size, 1)
		}
		return to.checkQuota(ctx, max(0, size-old.Size), 0)
	})
	to.permit(&m)
	if m.Message != nil {
		defer m.Message.Close()
	}
	if err != nil {
		return err
	}
	if err := s.dec.End(); err != nil {
		return err
	}
	ctx, cancel := s.context()
	defer cancel()
	return s.replace(ctx, c, old.UID, dst, m)
}

// oneMessage finds the message that a set of one number names.
func (s *session) oneMessage(set imapwire.Set, uid bool) (*mailstore.Message, error) {
	if n := len(set.Ranges); set.Saved || n != 1 || set.Ranges[0].Lo != set.Ranges[0].Hi {
		return nil, badf("REPLACE names one message")
	}
	ranges, err := s.resolve(set, uid)
	if err != nil {
		return nil, err
	}
	var found *mailstore.Message
	s.box.view.each(ranges, func(_ uint32, m *mailstore.Message, ghost bool) bool {
		if !ghost {
			one := *m
			found = &one
		}
		return false
	})
	if found == nil {
		return nil, errReplacedGone
	}
	return found, nil
}

var errReplacedGone = no("EXPUNGEISSUED", "The message to be replaced does not exist any more")

func (s *session) replace(ctx context.Context, c *call, old uint32, dst *mailstore.Mailbox, m mailstore.AppendMessage) error {
	b := s.box
	res, err := dst.Append(ctx, []mailstore.AppendMessage{m})
	if err != nil {
		return tryCreate(err)
	}
	added := res.Messages[0]
	gone, err := b.mb.Expunge(ctx, mailstore.UIDSet{{Start: old, Stop: old}}, false)
	if err == nil && len(gone.UIDs) == 0 {
		err = errReplacedGone
	}
	if err != nil {
		if added.UID != 0 {
			if _, undo := dst.Expunge(ctx, mailstore.UIDSet{{Start: added.UID, Stop: added.UID}}, false); undo != nil {
				err = errors.Join(err, undo)
			}
		}
		return err
	}
	s.srv.m.appended.Inc()
	s.log().Info("message replaced", "event", "imap-replace", "mailbox", dst.Ref().Mailbox, "uid", added.UID,
		"message", added.ID, "size", m.Message.Size(), "old_mailbox", b.mb.Ref().Mailbox, "old_uid", old)
	if added.UID != 0 {
		s.enc.Raw("* OK [APPENDUID ").Number(uint64(res.UIDValidity)).SP().Number(uint64(added.UID)).Raw("] Replacement is stored\r\n")
	}
	b.view.advance(gone.State)
	c.own.Add(old)
	if dst.Ref() == b.mb.Ref() {
		c.own.Add(added.UID)
	} else {
		s.noteOwn(dst, 1)
	}
	if s.qresync {
		c.ok("HIGHESTMODSEQ "+itoa(gone.State.ModSeq()), "")
	}
	return nil
}
