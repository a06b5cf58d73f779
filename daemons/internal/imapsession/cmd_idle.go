package imapsession

import (
	"context"
	"errors"

	"shoal/daemons/internal/mailstore"
)

// cmdIdle begins IDLE (RFC 2177, RFC 9051 §6.3.13): until the client says DONE, changes of the mailbox
// are told as they happen. The session is parked meanwhile; pushChanges runs when the mailbox has
// changed, endIdle when the client has sent a line.
func cmdIdle(s *session, c *call) error {
	if err := s.dec.End(); err != nil {
		return err
	}
	s.pushing.Store(true) // before the mailbox is read, so that nothing is missed
	if s.box != nil {
		if err := s.box.refresh(c.ctx); err != nil {
			s.pushing.Store(s.following())
			return err
		}
	}
	s.idling, s.idleTag = true, c.tag
	s.srv.m.idling.Inc()
	s.enc.Raw("+ idling\r\n")
	if s.box != nil {
		return s.tell(&news{ctx: c.ctx})
	}
	return nil
}

// pushChanges tells a client what has changed that idles, or has asked with NOTIFY to be told.
func (s *session) pushChanges() error {
	ctx, cancel := s.context()
	defer cancel()
	if s.box == nil {
		return s.pushAnnotations(ctx)
	}
	if err := s.checkRights(ctx, false); errors.Is(err, errRevoked) {
		s.bye(unsharedText)
		return errOver
	} else if err != nil {
		return s.lostMailbox(err)
	}
	if err := s.box.refresh(ctx); err != nil {
		return s.lostMailbox(err)
	}
	s.tellRights()
	if err := s.pushAnnotations(ctx); err != nil {
		return err
	}
	if s.box.told == s.box.view.st && len(s.box.view.ghosts) == 0 {
		return nil
	}
	s.srv.m.pushes.Inc()
	return s.tell(&news{ctx: ctx, noExpunge: !s.idling && !s.immediate()})
}

// endIdle takes the line that ends IDLE.
func (s *session) endIdle() error {
	line, err := s.dec.RawLine()
	tag := s.idleTag
	s.stopIdling()
	if err != nil || !isDone(line) {
		if err == nil {
			err = badf("DONE expected to end IDLE")
		}
		return s.refuse(tag, "IDLE", err)
	}
	s.bad = 0
	if s.box != nil {
		s.box.catchUp()
		if err := s.tell(&news{ctx: s.srv.ctx}); err != nil {
			return err
		}
	}
	s.tagged(&call{tag: tag, name: "IDLE"})
	return s.enc.Err()
}

func isDone(line []byte) bool {
	return len(line) == 4 && line[0]|0x20 == 'd' && line[1]|0x20 == 'o' && line[2]|0x20 == 'n' && line[3]|0x20 == 'e'
}

func (s *session) stopIdling() {
	if s.idling {
		s.idling, s.idleTag = false, ""
		s.pushing.Store(s.following())
		s.srv.m.idling.Dec()
	}
}

// lostMailbox ends the session of a client that is told of a trouble with its mailbox between commands,
// where there is no tag to answer to.
func (s *session) lostMailbox(err error) error {
	if errors.Is(err, mailstore.ErrUnavailable) || errors.Is(err, context.DeadlineExceeded) {
		s.log().Warn("mailbox cannot be read at the moment", "error", err)
		return nil // there will be another signal
	}
	answer, report := answerTo(err)
	if report {
		s.log().Error("cannot follow the mailbox", "error", err)
	}
	s.bye(answer.text)
	return errOver
}
