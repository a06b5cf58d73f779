package sievesession

import (
	"context"
	"encoding/base64"
	"errors"
	"strings"

	"shoal/daemons/internal/authn"
	"shoal/daemons/internal/mailstore"
)

// mayLogin says whether a password may be sent on this connection.
func (s *session) mayLogin() bool { return s.isTLS() || s.srv.limits().AllowPlain }

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

// cmdAuthenticate: RFC 5804 §2.1 with PLAIN (RFC 4616) and LOGIN.
func cmdAuthenticate(s *session, ctx context.Context, args []string) error {
	mechanism := strings.ToUpper(args[0])
	if mechanism != "PLAIN" && mechanism != "LOGIN" {
		return no("", "That mechanism is not offered")
	}
	if !s.mayLogin() {
		return no(codeEncrypt, "Begin TLS first: a password must not be sent in the clear")
	}
	var first *string
	if len(args) == 2 {
		first = &args[1]
	}
	if mechanism == "LOGIN" {
		user, err := s.challenge(first, "Username:")
		if err != nil {
			return err
		}
		password, err := s.challenge(nil, "Password:")
		if err != nil {
			return err
		}
		return s.login(ctx, user, password)
	}
	response, err := s.challenge(first, "")
	if err != nil {
		return err
	}
	parts := strings.Split(response, "\x00")
	if len(parts) != 3 || parts[1] == "" {
		return badSyntax("Malformed PLAIN response")
	}
	if as := parts[0]; as != "" && !strings.EqualFold(as, parts[1]) {
		s.fails++
		return no("", "Acting for another user is not possible")
	}
	return s.login(ctx, parts[1], parts[2])
}

// challenge returns the client's response: the initial one if there is one, else what it answers to the challenge.
func (s *session) challenge(initial *string, text string) (string, error) {
	if initial == nil {
		s.line(base64.StdEncoding.EncodeToString([]byte(text)))
		if err := s.await(); err != nil {
			return "", err
		}
		response, err := readArgument(s.r, s.literal())
		if err == nil {
			err = endOfLine(s)
		}
		if err != nil {
			return "", err
		}
		if response == "*" {
			return "", no("", "Authentication given up")
		}
		initial = &response
	}
	out, err := base64.StdEncoding.Strict().DecodeString(*initial)
	if err != nil {
		return "", badSyntax("Malformed base64")
	}
	return string(out), nil
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

// login checks the password and opens the account.
func (s *session) login(ctx context.Context, user, password string) error {
	who, err := s.srv.opt.Auth.Login(ctx, user, password, s.conn.Remote())
	if err != nil {
		return s.refused(user, err)
	}
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
	s.log().Info("login", "event", "managesieve-login", "tls", s.isTLS())
	s.answer("OK", "", "Logged in")
	return nil
}

// refused is the answer to a login that failed, which it logs and counts.
func (s *session) refused(user string, err error) error {
	result, answer := "refused", no("", "User name or password is wrong")
	switch {
	case errors.Is(err, authn.ErrBadCredentials):
		s.fails++
	case errors.Is(err, authn.ErrSuspended):
		s.fails++
		result, answer = "suspended", no("", "The account is suspended")
	case errors.Is(err, authn.ErrThrottled):
		s.fails++
		result, answer = "throttled", no(codeLater, "Too many failed logins, try again later")
	default:
		s.srv.m.logins.WithLabelValues("unavailable").Inc()
		s.log().Warn("login could not be checked", "name", printable(user), "error", err)
		return no(codeLater, "Logins cannot be checked at the moment, try again later")
	}
	s.srv.m.logins.WithLabelValues(result).Inc()
	s.log().Info("login refused", "event", "managesieve-login-refused", "result", result, "name", printable(user))
	return answer
}

// printable is the beginning of a name for a log.
func printable(s string) string {
	if len(s) > 100 {
		s = s[:100]
	}
	return strings.ToValidUTF8(s, "?")
}

// cmdUnauthenticate: RFC 5804 §2.14.
func cmdUnauthenticate(s *session, _ context.Context, _ []string) error {
	s.conn.DismissUser()
	s.user, s.account, s.state = nil, (*mailstore.Account)(nil), stateLogin
	s.started, s.commands = s.srv.clock.Boot(), 0
	s.answer("OK", "", "Logged out of the account")
	return nil
}
