package imapsession

// cmdUnauthenticate is UNAUTHENTICATE (RFC 8437): the login ends, and what it and ENABLE have set; TLS and compression stay.
// The selected mailbox is left as by UNSELECT.
func cmdUnauthenticate(s *session, c *call) error {
	if err := s.dec.End(); err != nil {
		return err
	}
	s.setNotify(nil)
	s.closeMailbox()
	s.news.close()
	s.news = nil
	if s.unwatch != nil {
		s.unwatch()
		s.unwatch = nil
	}
	s.log().Info("logout", "event", "imap-unauthenticate")
	s.srv.dismiss(s.user.ID)
	s.user, s.acc = nil, nil
	s.state, s.commands, s.fails = stateNew, 0, 0
	s.rev2, s.utf8, s.condstor, s.qresync, s.uidOnly = false, false, false, false, false
	s.dec.SetUTF8(false)
	s.enc.SetUTF8(false)
	s.dec.SetLimits(&s.srv.limits().fresh)
	s.started = s.srv.clock.Boot()
	s.deadline.Store(int64(s.started + s.srv.limits().LoginTimeout))
	c.ok("CAPABILITY "+s.capabilities(), "")
	return nil
}
