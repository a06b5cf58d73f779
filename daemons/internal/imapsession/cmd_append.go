package imapsession

import (
	"time"

	"shoal/daemons/internal/imapwire"
	"shoal/daemons/internal/mailstore"
	"shoal/daemons/internal/sharing"
)

// maxAppends bounds the messages of one APPEND.
const maxAppends = 1000

// cmdAppend is APPEND (RFC 9051 §6.3.12) of one or more messages (RFC 3502), with flags and date. The
// messages stream into the store; all of them are committed together, or none.
//
//	append  = "APPEND" SP mailbox 1*(SP [flag-list SP] [date-time SP] data)
//	data    = literal / literal8 / "UTF8" SP "(" literal8 ")" / "CATENATE" SP "(" parts ")"        RFC 6855 §4, RFC 4469
//
// NUL is taken in any literal: what clients upload is what they found elsewhere, and is kept as it is.
func cmdAppend(s *session, c *call) error {
	if err := s.dec.SP(); err != nil {
		return err
	}
	name, err := s.dec.Mailbox()
	if err != nil {
		return err
	}
	opening, cancel := s.context()
	to, mb, err := s.open(opening, name, sharing.Insert)
	cancel()
	if err != nil {
		return tryCreate(err)
	}
	var msgs []mailstore.AppendMessage
	defer func() {
		for _, m := range msgs {
			m.Message.Close()
		}
	}()
	var total int64
	for more := true; more; more = !s.dec.AtEnd() {
		if most := s.srv.limits().MessageLimit; most > 0 && len(msgs) == most {
			return tooMany(most)
		}
		if len(msgs) == maxAppends {
			return no("LIMIT", "Too many messages in one command")
		}
		m, err := s.takeMessage(to, mb, func(size int64) error {
			ctx, cancel := s.context()
			defer cancel()
			return to.checkQuota(ctx, total+size, int64(len(msgs)+1))
		})
		to.permit(&m)
		if m.Message != nil {
			msgs = append(msgs, m)
			total += m.Message.Size()
		}
		if err != nil {
			return err
		}
	}
	if err := s.dec.End(); err != nil {
		return err
	}
	ctx, cancel := s.context()
	defer cancel()
	res, err := mb.Append(ctx, msgs)
	if err != nil {
		return tryCreate(err)
	}
	s.srv.m.appended.Add(float64(len(res.Messages)))
	var uids []imapwire.Range
	for _, m := range res.Messages {
		if m.UID != 0 {
			uids = imapwire.AddNumber(uids, m.UID)
		}
	}
	if len(uids) > 0 {
		code := append([]byte("APPENDUID "), itoa(uint64(res.UIDValidity))...)
		c.ok(string(imapwire.AppendSet(append(code, ' '), uids)), "")
	}
	for i, m := range res.Messages {
		s.log().Info("message appended", "event", "imap-append", "mailbox", mb.Ref().Mailbox, "uid", m.UID,
			"message", m.ID, "size", msgs[i].Message.Size())
	}
	if s.box != nil && s.box.mb.Ref() == mb.Ref() {
		s.box.view.advance(res.State)
		for _, m := range res.Messages {
			c.own.Add(m.UID)
		}
	} else {
		s.noteOwn(mb, len(res.Messages))
	}
	return nil
}

// takeMessage takes one message with its flags and date. fits may refuse it, by its size, before the
// client has sent it. When it returns a staged message, that must be closed, also after an error.
func (s *session) takeMessage(to *place, mb *mailstore.Mailbox, fits func(size int64) error) (m mailstore.AppendMessage, err error) {
	if err := s.dec.SP(); err != nil {
		return m, err
	}
	if s.dec.Peek() == '(' {
		flags, err := s.dec.FlagList()
		if err != nil {
			return m, err
		}
		flags = withoutRecent(flags)
		if m.Flags, m.Keywords, err = s.splitFlags(flags, knownKeywords(mb)); err != nil {
			return m, err
		}
		if err := s.dec.SP(); err != nil {
			return m, err
		}
	}
	if s.dec.Peek() == '"' {
		if m.InternalDate, err = s.dec.DateTime(); err != nil {
			return m, err
		}
		if m.InternalDate.Before(time.Unix(0, 0)) {
			m.InternalDate = time.Unix(0, 0)
		}
		if err := s.dec.SP(); err != nil {
			return m, err
		}
	}
	wrapped := s.dec.AcceptWord("UTF8")
	if wrapped {
		if !s.utf8 && !s.rev2 {
			return m, badf("UTF8=ACCEPT must be enabled first")
		}
		if err := s.dec.SP(); err != nil {
			return m, err
		}
		if err := s.dec.Expect('('); err != nil {
			return m, err
		}
	}
	most := int64(s.srv.limits().AppendLimit)
	if !wrapped && s.dec.AcceptWord("CATENATE") {
		m.Message, err = s.takeCatenation(most, fits)
		return m, err
	}
	size, _, err := s.dec.OpenLiteral(most, func(size int64) error {
		if size == 0 {
			return no("", "An empty message is not kept") // RFC 3502: refusal of the whole command
		}
		return fits(size)
	})
	if err != nil {
		return m, err
	}
	m.Message, err = s.srv.opt.Store.Stage(s.srv.ctx, to.acc.Volume(), s.dec.LiteralReader(), size)
	if err != nil {
		m.Message = nil
		return m, err
	}
	if err := s.dec.CloseLiteral(); err != nil {
		return m, err
	}
	if wrapped {
		return m, s.dec.Expect(')')
	}
	return m, nil
}

func knownKeywords(mb *mailstore.Mailbox) []string {
	if st := mb.Cached(); st != nil {
		return st.Keywords()
	}
	return nil
}

// withoutRecent drops \Recent: clients that copy messages between servers send it along.
func withoutRecent(flags []string) []string {
	out := flags[:0]
	for _, f := range flags {
		if f != `\Recent` {
			out = append(out, f)
		}
	}
	return out
}
