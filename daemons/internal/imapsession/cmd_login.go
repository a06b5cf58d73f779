package imapsession

import (
	"encoding/base64"
	"errors"

	"shoal/daemons/internal/authn"
	"shoal/daemons/internal/sasl"
)

// cmdStartTLS begins TLS (RFC 9051 §6.2.1). Nothing may be sent behind the command before the handshake:
// what is there is no part of the protected session, and a client that sends it is under attack.
func cmdStartTLS(s *session, c *call) error {
	if err := s.dec.End(); err != nil {
		return err
	}
	switch {
	case s.t.isTLS():
		return badf("TLS is active already")
	case s.srv.opt.TLS == nil || !s.t.canStartTLS():
		return badf("TLS is not available")
	case s.dec.Buffered() > 0:
		s.bye("Commands behind STARTTLS were sent without protection")
		return errOver
	}
	c.ok("", "Begin the TLS handshake")
	s.tagged(c)
	if err := s.enc.Flush(); err != nil {
		return err
	}
	if err := s.t.startTLS(s.srv.opt.TLS, nil, s.srv.limits().LoginTimeout); err != nil {
		s.srv.m.refused.WithLabelValues("tls").Inc()
		s.log().Debug("TLS handshake failed", "error", err)
		return errOver
	}
	s.dec.SetReader((*reader)(s))
	return errAnswered
}

// errAnswered is returned by a command that has sent its tagged answer.
var errAnswered = errors.New("answered")

// canStartTLS reports whether a handshake is possible on this connection.
func (t *transport) canStartTLS() bool { return t.raw != nil && !t.isTLS() }

// errNeedTLS refuses a password that would be, or was, sent in the clear.
var errNeedTLS = no("PRIVACYREQUIRED", "Begin TLS first: a password must not be sent in the clear")

// cmdLogin is LOGIN (RFC 9051 §6.2.3).
func cmdLogin(s *session, c *call) error {
	conn := s.saslConn()
	if !conn.Secure() {
		return errNeedTLS
	}
	if err := s.dec.SP(); err != nil {
		return err
	}
	user, err := s.dec.AString()
	if err != nil {
		return err
	}
	if err := s.dec.SP(); err != nil {
		return err
	}
	password, err := s.dec.AString()
	if err != nil {
		return err
	}
	if err := s.dec.End(); err != nil {
		return err
	}
	grant, err := s.srv.sasl.Password(c.ctx, conn.From("LOGIN"), user, password)
	return s.login(c, grant, err)
}

// cmdAuthenticate is AUTHENTICATE (RFC 9051 §6.2.2) with an initial response (SASL-IR, RFC 4959).
//
//	authenticate = "AUTHENTICATE" SP auth-type [SP (base64 / "=")] *(CRLF base64)
func cmdAuthenticate(s *session, c *call) error {
	if err := s.dec.SP(); err != nil {
		return err
	}
	mechanism, err := s.dec.Keyword()
	if err != nil {
		return err
	}
	var first []byte
	if !s.dec.AtEnd() {
		if err := s.dec.SP(); err != nil {
			return err
		}
		text, err := s.dec.AString()
		if err != nil {
			return err
		}
		if first, err = decodeSASL([]byte(text)); err != nil {
			return err
		}
		if first == nil {
			first = []byte{}
		}
	}
	if err := s.dec.End(); err != nil {
		return err
	}
	grant, err := s.srv.sasl.Run(c.ctx, mechanism, s.saslConn(), first, (*saslWire)(s))
	return s.login(c, grant, err)
}

// saslConn is what a login has to know of the connection.
func (s *session) saslConn() *sasl.Conn {
	return &sasl.Conn{Service: authn.ServiceIMAP, Remote: s.remote, TLS: s.t.tlsState(), Plain: s.srv.limits().AllowPlain}
}

// saslWire carries a SASL exchange.
type saslWire session

// Ask sends a challenge and reads the response.
func (w *saslWire) Ask(challenge []byte) ([]byte, error) {
	s := (*session)(w)
	s.enc.Raw("+ ").Raw(base64.StdEncoding.EncodeToString(challenge)).CRLF()
	if err := s.enc.Flush(); err != nil {
		return nil, err
	}
	line, err := s.dec.RawLine()
	if err != nil {
		return nil, err
	}
	if string(line) == "*" {
		return nil, sasl.ErrCancelled
	}
	return decodeSASL(line)
}

func decodeSASL(line []byte) ([]byte, error) {
	if string(line) == "=" {
		return nil, nil
	}
	out, err := base64.StdEncoding.Strict().DecodeString(string(line))
	if err != nil {
		return nil, badf("Malformed base64")
	}
	return out, nil
}

// login opens the account of a login, or answers why there is none. The line in the log is package authn's.
func (s *session) login(c *call, grant *authn.Grant, err error) error {
	switch {
	case err == nil:
	case errors.Is(err, sasl.ErrMalformed):
		return badf("Malformed response")
	case errors.Is(err, sasl.ErrCancelled):
		return badf("Authentication given up")
	case errors.Is(err, sasl.ErrMechanism):
		return no("CANNOT", "That mechanism is not offered")
	case errors.Is(err, sasl.ErrNeedTLS):
		return errNeedTLS
	case errors.Is(err, sasl.ErrAuthorization):
		return s.loginFailed(no("AUTHORIZATIONFAILED", "Acting for another user is not possible"))
	case errors.Is(err, authn.ErrBadCredentials):
		s.srv.m.logins.WithLabelValues("refused").Inc()
		return s.loginFailed(no("AUTHENTICATIONFAILED", "User name or password is wrong"))
	case errors.Is(err, authn.ErrSuspended):
		s.srv.m.logins.WithLabelValues("suspended").Inc()
		return s.loginFailed(no("CONTACTADMIN", "The account is suspended"))
	case errors.Is(err, authn.ErrThrottled):
		s.srv.m.logins.WithLabelValues("throttled").Inc()
		return s.loginFailed(no("UNAVAILABLE", "Too many failed logins, try again later"))
	case !errors.Is(err, authn.ErrUnavailable):
		return err // of the connection
	default:
		s.srv.m.logins.WithLabelValues("unavailable").Inc()
		return no("UNAVAILABLE", "Logins cannot be checked at the moment, try again later")
	}
	account := grant.Account
	if !s.srv.admit(account.ID) {
		s.srv.m.logins.WithLabelValues("limit").Inc()
		return no("LIMIT", "Too many connections to this account")
	}
	s.user = account
	if s.acc, err = s.srv.opt.Store.Account(c.ctx, account.Volume, account.ID); err != nil {
		s.srv.m.logins.WithLabelValues("unavailable").Inc()
		s.srv.dismiss(account.ID)
		s.user = nil
		return err
	}
	s.srv.m.logins.WithLabelValues("ok").Inc()
	s.state = stateAuth
	s.unwatch = s.srv.sasl.Watch(grant, s.revoke)
	s.dec.SetLimits(&s.srv.limits().trusted)
	c.ok("CAPABILITY "+s.capabilities(), "Logged in")
	return nil
}

// loginFailed answers a refusal, and ends the connection when there were too many. The pause that makes
// guessing slow is made by Auth.
func (s *session) loginFailed(refusal error) error {
	if s.fails++; int(s.fails) >= s.srv.limits().LoginFailures {
		s.bye("Too many failed logins")
		return errOver
	}
	return refusal
}
