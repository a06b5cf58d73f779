package smtpguard

import (
	"io"

	"github.com/emersion/go-sasl"
	"github.com/emersion/go-smtp"
)

// backend stands between go-smtp and the Backend, so that a session reads a message of DATA from the
// guard and not from go-smtp.
type backend struct{ Backend }

func (b backend) NewSession(sc *smtp.Conn) (smtp.Session, error) {
	c := sc.Conn().(*Conn)
	inner, err := b.Backend.NewSession(c)
	if err != nil {
		return nil, err
	}
	s := &session{inner, c}
	if l, ok := inner.(smtp.LMTPSession); ok && c.g.o.LMTP {
		return &lmtpSession{s, l}, nil
	}
	return s, nil
}

type session struct {
	smtp.Session
	c *Conn
}

// Data gives the inner session the message. With BDAT the reader is go-smtp's pipe: the guard knows the
// length of each chunk, and a chunk that is cut off is an error there.
func (s *session) Data(r io.Reader) error {
	if _, chunked := r.(*io.PipeReader); chunked {
		return s.Session.Data(r)
	}
	b := s.c.openBody()
	err := s.Session.Data(b)
	if broken := b.finish(); broken != nil {
		return broken
	}
	return err
}

func (s *session) AuthMechanisms() []string {
	a, ok := s.Session.(smtp.AuthSession)
	if !ok || !s.c.g.o.Auth || s.c.tls == nil {
		return nil
	}
	return a.AuthMechanisms()
}

func (s *session) Auth(mech string) (sasl.Server, error) {
	a, ok := s.Session.(smtp.AuthSession)
	if !ok {
		return nil, smtp.ErrAuthUnsupported
	}
	return a.Auth(mech)
}

type lmtpSession struct {
	*session
	inner smtp.LMTPSession
}

func (s *lmtpSession) LMTPData(r io.Reader, status smtp.StatusCollector) error {
	if _, chunked := r.(*io.PipeReader); chunked {
		return s.inner.LMTPData(r, status)
	}
	b := s.c.openBody()
	err := s.inner.LMTPData(b, &wholeFirst{b, status})
	if broken := b.finish(); broken != nil {
		return broken
	}
	return err
}

// wholeFirst lets no reply out before the message was read to its end: go-smtp writes it from another
// goroutine at once.
type wholeFirst struct {
	b      *body
	status smtp.StatusCollector
}

func (w *wholeFirst) SetStatus(rcpt string, err error) {
	if broken := w.b.finish(); broken != nil {
		err = broken
	}
	w.status.SetStatus(rcpt, err)
}
