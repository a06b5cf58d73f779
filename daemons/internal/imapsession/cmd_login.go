package imapsession

import (
	"bytes"
	"encoding/base64"
	"errors"
	"strings"

	"shoal/daemons/internal/authn"
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
	if !s.mayLogin() {
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
	return s.login(c, user, password)
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
	if mechanism != "PLAIN" && mechanism != "LOGIN" {
		return no("CANNOT", "That mechanism is not offered")
	}
	if !s.mayLogin() {
		return errNeedTLS
	}
	if mechanism == "PLAIN" {
		return s.saslPlain(c, first)
	}
	return s.saslLogin(c, first)
}

// saslPlain is RFC 4616: [authzid] NUL authcid NUL passwd.
func (s *session) saslPlain(c *call, first []byte) error {
	response, err := s.challenge(first, "")
	if err != nil {
		return err
	}
	parts := bytes.Split(response, []byte{0})
	if len(parts) != 3 || len(parts[1]) == 0 {
		return badf("Malformed PLAIN response")
	}
	user := string(parts[1])
	if authz := string(parts[0]); authz != "" && !strings.EqualFold(authz, user) {
		return no("AUTHORIZATIONFAILED", "Acting for another user is not possible")
	}
	return s.login(c, user, string(parts[2]))
}

// saslLogin is the mechanism LOGIN of old clients: user name and password, each asked for.
func (s *session) saslLogin(c *call, first []byte) error {
	user, err := s.challenge(first, "Username:")
	if err != nil {
		return err
	}
	password, err := s.challenge(nil, "Password:")
	if err != nil {
		return err
	}
	return s.login(c, string(user), string(password))
}

// challenge returns the client's response: the initial one if there is one, else what it answers to
// the challenge.
func (s *session) challenge(initial []byte, text string) ([]byte, error) {
	if initial != nil {
		return initial, nil
	}
	s.enc.Raw("+ ").Raw(base64.StdEncoding.EncodeToString([]byte(text))).CRLF()
	if err := s.enc.Flush(); err != nil {
		return nil, err
	}
	line, err := s.dec.RawLine()
	if err != nil {
		return nil, err
	}
	if string(line) == "*" {
		return nil, badf("Authentication given up")
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

// login checks the password and opens the account.
func (s *session) login(c *call, user, password string) error {
	account, err := s.srv.opt.Auth.Login(c.ctx, user, password, s.remote)
	switch {
	case err == nil:
	case errors.Is(err, authn.ErrBadCredentials):
		s.srv.m.logins.WithLabelValues("refused").Inc()
		s.log().Info("login refused", "event", "imap-login-refused", "name", printable(user, 100))
		return s.loginFailed(no("AUTHENTICATIONFAILED", "User name or password is wrong"))
	case errors.Is(err, authn.ErrSuspended):
		s.srv.m.logins.WithLabelValues("suspended").Inc()
		s.log().Info("login to a suspended account", "event", "imap-login-refused", "name", printable(user, 100))
		return s.loginFailed(no("CONTACTADMIN", "The account is suspended"))
	case errors.Is(err, authn.ErrThrottled):
		s.srv.m.logins.WithLabelValues("throttled").Inc()
		s.log().Info("login throttled", "event", "imap-login-refused", "name", printable(user, 100))
		return s.loginFailed(no("UNAVAILABLE", "Too many failed logins, try again later"))
	default:
		s.srv.m.logins.WithLabelValues("unavailable").Inc()
		s.log().Warn("login could not be checked", "name", printable(user, 100), "error", err)
		return no("UNAVAILABLE", "Logins cannot be checked at the moment, try again later")
	}
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
	s.dec.SetLimits(&s.srv.limits().trusted)
	s.log().Info("login", "event", "imap-login", "tls", s.t.isTLS())
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
