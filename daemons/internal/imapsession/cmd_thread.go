package imapsession

import (
	"shoal/daemons/internal/imapwire"
	"shoal/daemons/internal/mailstore"
	"shoal/daemons/internal/message"
)

// threadNodes bounds the message identifiers that one THREAD keeps. Each takes about 100 bytes.
const threadNodes = 1 << 20

// cmdThread is THREAD and UID THREAD (RFC 5256 §3).
func cmdThread(s *session, c *call) error {
	if err := s.dec.SP(); err != nil {
		return err
	}
	args, err := s.dec.Thread()
	if err != nil {
		return err
	}
	if err := s.dec.End(); err != nil {
		return err
	}
	if err := s.expandFilters(c.ctx, &args.Search); err != nil {
		return err
	}
	s.box.catchUp()
	if args.ModSeq {
		s.enableCondstore()
	}
	result, err := s.search(c, &args.Search)
	if err != nil {
		return err
	}
	t := message.NewThreader(threadNodes)
	references := args.Algorithm == imapwire.ThreadReferences
	err = s.envelopes(c, result, wantEnvelope, func(seq uint32, m *mailstore.Message, e *message.Envelope) error {
		if c.uid {
			seq = m.UID
		}
		t.Add(seq, sentDate(m, e), e, references)
		return nil
	})
	if err != nil {
		return err
	}
	if !references {
		t.OrderedSubject()
	} else if err := t.References(c.ctx); err != nil {
		return err
	}
	s.writeThreads(t)
	if result.gone {
		c.ok("EXPUNGEISSUED", "Some of the messages no longer exist")
	}
	return s.enc.Err()
}

// writeThreads writes the THREAD response (RFC 5256 §4).
//
//	thread-data    = "THREAD" [SP 1*thread-list]
//	thread-list    = "(" (thread-members / thread-nested) ")"
//	thread-members = nz-number *(SP nz-number) [SP thread-nested]
//	thread-nested  = 2*thread-list
func (s *session) writeThreads(t *message.Threader) {
	e := &s.enc
	e.Raw("* THREAD")
	before := byte(' ') // what the next number or list stands behind; '0': a number
	t.Walk(func(step message.ThreadStep, number uint32) bool {
		switch step {
		case message.ThreadOpen:
			if before == ' ' || before == '0' {
				e.SP()
			}
			e.Byte('(')
			before = '('
		case message.ThreadNumber:
			if before == '0' {
				e.SP()
			}
			e.Number(uint64(number))
			before = '0'
		case message.ThreadClose:
			e.Byte(')')
			before = ')'
		}
		return e.Err() == nil
	})
	e.CRLF()
}
