package sievesession

import (
	"context"
	"crypto/tls"
	"encoding/base64"
	"errors"

	"shoal/daemons/internal/authn"
	"shoal/daemons/internal/mailstore"
	"shoal/daemons/internal/sasl"
)

// saslConn is what a login has to know of the connection.
func (s *session) saslConn() *sasl.Conn {
	c := &sasl.Conn{Service: authn.ServiceSieve, Remote: s.conn.Remote(), Plain: s.srv.limits().AllowPlain}
	if t, ok := s.stream.(*tls.Conn); ok {
		state := t.ConnectionState()
		c.TLS = &state
	}
	return c
}

func cmdCapability(s *session, _ context.Context, _ []string) error {
	s.capabilities()
	s.answer("OK", "", "")
	return nil
}

// cmdNoop: RFC 5804 §2.13. What the client gave comes back.
func cmdNoop(s *session, _ context.Context, args []string) error {
	code := ""
	if len(args) == 1 {
		code = "TAG " + string(appendString(nil, args[0]))
	}
	s.answer("OK", code, "Done")
	return nil
}

func cmdLogout(s *session, _ context.Context, _ []string) error {
	s.answer("OK", "", "Logged out")
	s.state = stateOver
	return nil
}

// cmdStartTLS: RFC 5804 §2.2. What was sent behind it without protection ends the session.
func cmdStartTLS(s *session, _ context.Context, _ []string) error {
	switch {
	case s.isTLS():
		return no("", "TLS is active already")
	case !s.srv.HasTLS():
		return no("", "TLS is not available")
	case s.r.Buffered() > 0:
		s.answer("BYE", "", "Commands behind STARTTLS were sent without protection")
		return errOver
	}
	s.answer("OK", "", "Begin the TLS handshake")
	if err := s.w.Flush(); err != nil {
		return err
	}
	c, err := s.conn.StartTLS()
	if err != nil {
		return errOver
	}
	s.use(c)
	s.capabilities() // RFC 5804 §2.2: told anew, without being asked
	s.answer("OK", "", "TLS is active")
	return nil
}

// cmdAuthenticate: RFC 5804 §2.1.
func cmdAuthenticate(s *session, ctx context.Context, args []string) error {
	var first []byte
	if len(args) == 2 {
		var err error
		if first, err = decodeSASL(args[1]); err != nil {
			return err
		}
	}
	w := &saslWire{s: s}
	grant, err := s.srv.sasl.Run(ctx, args[0], s.saslConn(), first, w)
	return s.login(ctx, grant, w.final, err)
}

// saslWire carries a SASL exchange; final is the data that goes with the success.
type saslWire struct {
	s     *session
	final []byte
}

// Ask sends a challenge and reads the response.
func (w *saslWire) Ask(challenge []byte) ([]byte, error) {
	s := w.s
	s.line(base64.StdEncoding.EncodeToString(challenge))
	if err := s.await(); err != nil {
		return nil, err
	}
	response, err := readArgument(s.r, s.literal())
	if err == nil {
		err = endOfLine(s)
	}
	if err != nil {
		return nil, err
	}
	if response == "*" {
		return nil, sasl.ErrCancelled
	}
	return decodeSASL(response)
}

// Finish keeps what goes with the success (RFC 5804 §1.3, response code SASL).
func (w *saslWire) Finish(data []byte) { w.final = data }

func decodeSASL(text string) ([]byte, error) {
	out, err := base64.StdEncoding.Strict().DecodeString(text)
	if err != nil {
		return nil, badSyntax("Malformed base64")
	}
	return out, nil
}

func endOfLine(s *session) error {
	b, err := s.r.ReadByte()
	if err == nil && b == '\r' {
		b, err = s.r.ReadByte()
	}
	if err == nil && b != '\n' {
		return discard(s.r, b, "expected the end of the line")
	}
	return err
}

// login opens the account of a login, or answers why there is none. final is what the mechanism says with its success.
func (s *session) login(ctx context.Context, grant *authn.Grant, final []byte, err error) error {
	if err != nil {
		return s.refused(err)
	}
	who := grant.Account
	if !s.conn.AdmitUser(who.ID) {
		s.srv.m.logins.WithLabelValues("limit").Inc()
		return no(codeLater, "Too many connections of this user, try again later")
	}
	account, err := s.srv.opt.Store.Account(ctx, who.Volume, who.ID)
	if err != nil {
		s.conn.DismissUser()
		s.srv.m.logins.WithLabelValues("unavailable").Inc()
		return s.storeFailure("cannot open account "+who.Address, err)
	}
	s.srv.m.logins.WithLabelValues("ok").Inc()
	s.user, s.account, s.state = who, account, stateUser
	s.unwatch = s.srv.sasl.Watch(grant, s.revoke)
	code := ""
	if final != nil {
		code = "SASL " + string(appendString(nil, base64.StdEncoding.EncodeToString(final)))
	}
	s.answer("OK", code, "Logged in")
	return nil
}

// refused is the answer to a login that failed, which it counts.
func (s *session) refused(err error) error {
	result, answer := "refused", no("", "User name or password is wrong")
	switch {
	case errors.Is(err, sasl.ErrMalformed):
		return badSyntax("Malformed response")
	case errors.Is(err, sasl.ErrCancelled):
		return no("", "Authentication given up")
	case errors.Is(err, sasl.ErrMechanism):
		return no("", "That mechanism is not offered")
	case errors.Is(err, sasl.ErrNeedTLS):
		return no(codeEncrypt, "Begin TLS first: a password must not be sent in the clear")
	case errors.Is(err, sasl.ErrAuthorization):
		s.fails++
		return no("", "Acting for another user is not possible")
	case errors.Is(err, authn.ErrBadCredentials):
		s.fails++
	case errors.Is(err, authn.ErrSuspended):
		s.fails++
		result, answer = "suspended", no("", "The account is suspended")
	case errors.Is(err, authn.ErrThrottled):
		s.fails++
		result, answer = "throttled", no(codeLater, "Too many failed logins, try again later")
	case !errors.Is(err, authn.ErrUnavailable):
		return err // of the connection, or of its syntax
	default:
		s.srv.m.logins.WithLabelValues("unavailable").Inc()
		return no(codeLater, "Logins cannot be checked at the moment, try again later")
	}
	s.srv.m.logins.WithLabelValues(result).Inc()
	return answer
}

// cmdUnauthenticate: RFC 5804 §2.14.
func cmdUnauthenticate(s *session, _ context.Context, _ []string) error {
	s.endWatch()
	s.conn.DismissUser()
	s.user, s.account, s.state = nil, (*mailstore.Account)(nil), stateLogin
	s.started, s.commands = s.srv.clock.Boot(), 0
	s.answer("OK", "", "Logged out of the account")
	return nil
}
