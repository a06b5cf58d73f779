package smtpguard

import (
	"errors"
	"io"

	"github.com/emersion/go-sasl"
	"github.com/emersion/go-smtp"
)

// backend stands between go-smtp and the Backend, so that a session reads a message from the guard and
// not from go-smtp.
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

// messageBody is a message on its way in. After finish the connection reads commands again; it returns nil when the
// message was whole.
type messageBody interface {
	io.Reader
	finish() error
}

func (c *Conn) openMessage() messageBody {
	if c.mode == modeChunks {
		return c.openChunks()
	}
	return c.openBody()
}

// Data gives the inner session the message. What go-smtp would give it is an empty one.
func (s *session) Data(io.Reader) error {
	b := s.c.openMessage()
	err := s.Session.Data(b)
	return verdict(err, b.finish())
}

// verdict is the reply to a message: a fault of the message itself outweighs what the session says, and nothing
// passes as a success that was not whole.
func verdict(err, broken error) error {
	var fault *smtp.SMTPError
	if broken != nil && (err == nil || errors.As(broken, &fault)) {
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

func (s *lmtpSession) LMTPData(_ io.Reader, status smtp.StatusCollector) error {
	b := s.c.openMessage()
	err := s.inner.LMTPData(b, &wholeFirst{b, status})
	return verdict(err, b.finish())
}

// wholeFirst lets no reply out before the message was read to its end: go-smtp writes it from another
// goroutine at once.
type wholeFirst struct {
	b      messageBody
	status smtp.StatusCollector
}

func (w *wholeFirst) SetStatus(rcpt string, err error) {
	w.status.SetStatus(rcpt, verdict(err, w.b.finish()))
}
