package imapsession

import (
	"context"
	"strings"

	"shoal/daemons/internal/clock"
)

// Progress of long commands (RFC 9585): untagged OK with the code INPROGRESS, no more often than the setting says. A command that
// looks at messages one by one says how many it has looked at, and of how many where that is known; one that waits for a single
// commit says that it is alive.

// manyMessages is from how many messages on a commit may take long.
const manyMessages = 1000

// step notes that the command has looked at another message, and tells so when the time has come.
func (s *session) step(c *call) error {
	if c.steps++; c.steps%8 != 1 { // looking at the clock costs as much as looking at a message
		return nil
	}
	now := s.srv.clock.Boot()
	switch interval := s.srv.limits().ProgressInterval; {
	case c.report == 0:
		c.report = now + interval
		fallthrough
	case now < c.report:
		return nil
	default:
		c.report = now + interval
	}
	s.writeProgress(c)
	return s.enc.Flush()
}

// writeProgress writes the response.
//
//	resp-text-code   =/ "INPROGRESS" [SP "(" inprogress-tag SP inprogress-state ")"]
//	inprogress-tag   = quoted / nil
//	inprogress-state = nil SP nil / number SP nil / number SP nz-number                  RFC 9585 §5
func (s *session) writeProgress(c *call) {
	e := &s.enc
	e.Raw("* OK [INPROGRESS (")
	if strings.IndexByte(c.tag, ']') >= 0 { // some clients take it for the end of the code
		e.Raw("NIL ")
	} else {
		e.Byte('"').Raw(c.tag).Raw(`" `)
	}
	if c.steps == 0 {
		e.Raw("NIL NIL")
	} else if e.Number(c.steps).SP(); c.goal == 0 {
		e.Raw("NIL")
	} else {
		e.Number(max(c.goal, c.steps))
	}
	e.Raw(")] Still at work\r\n")
}

// keepTelling tells from time to time that a command about n messages is at work, while its goroutine waits for the store. It must
// not write before it has called stop, which may be called twice.
func (s *session) keepTelling(c *call, n int) (stop func()) {
	if n < manyMessages {
		return func() {}
	}
	ctx, cancel := context.WithCancel(c.ctx)
	done := make(chan struct{})
	interval := s.srv.limits().ProgressInterval
	go func() {
		defer close(done)
		for clock.Sleep(ctx, s.srv.clock, interval) == nil {
			s.writeProgress(c)
			if s.enc.Flush() != nil {
				return
			}
		}
	}()
	return func() {
		cancel()
		<-done
	}
}
