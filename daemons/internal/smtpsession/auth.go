package smtpsession

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/emersion/go-sasl"
	"github.com/emersion/go-smtp"

	"shoal/daemons/internal/authn"
	"shoal/daemons/internal/mailaddr"
)

// loginTimeout bounds a login; the waits that a guesser meets lie within it.
const loginTimeout = 60 * time.Second

func (s *session) AuthMechanisms() []string {
	if !s.s.o.Submission {
		return nil
	}
	return []string{"PLAIN", "LOGIN"}
}

// Auth begins a SASL exchange. The guard lets it come to this inside TLS only.
func (s *session) Auth(mech string) (sasl.Server, error) {
	switch mech {
	case "PLAIN":
		return &plain{login: s.login}, nil
	case "LOGIN":
		return &login{login: s.login}, nil
	}
	return nil, smtp.ErrAuthUnknownMechanism
}

func (s *session) login(user, password string) error {
	ctx, cancel := context.WithTimeout(s.ctx, loginTimeout)
	defer cancel()
	account, err := s.s.o.Auth.Login(ctx, user, password, s.remote())
	result, answer := "ok", error(nil)
	switch {
	case err == nil:
		s.account = account
		s.event(slog.LevelInfo, "login", "", mailaddr.Address{})
	case errors.Is(err, authn.ErrBadCredentials):
		result, answer = "bad", reply(535, 5, 7, 8, "Wrong user name or password")
	case errors.Is(err, authn.ErrSuspended):
		result, answer = "suspended", reply(525, 5, 7, 13, "This account is disabled")
	default:
		result, answer = "unavailable", reply(454, 4, 7, 0, "Login is not possible now, try again later")
	}
	if err != nil {
		s.event(slog.LevelInfo, "login_failed", "", mailaddr.Address{}, slog.String("login", clip(user)), slog.Any("error", err))
	}
	s.s.m.logins.WithLabelValues(s.s.o.Listener, result).Inc()
	return answer
}

func clip(s string) string {
	if len(s) > 200 {
		s = s[:200]
	}
	return s
}

var errSASL = reply(501, 5, 5, 2, "The response is malformed")

// plain is RFC 4616's server side: message = [authzid] NUL authcid NUL passwd. Nobody may act for another.
type plain struct {
	login func(user, password string) error
	asked bool
}

func (p *plain) Next(response []byte) (challenge []byte, done bool, err error) {
	if response == nil && !p.asked {
		p.asked = true
		return nil, false, nil
	}
	parts := bytes.Split(response, []byte{0})
	if len(parts) != 3 || len(parts[1]) == 0 || len(parts[2]) == 0 {
		return nil, false, errSASL
	}
	if len(parts[0]) > 0 && !bytes.Equal(parts[0], parts[1]) {
		return nil, false, reply(535, 5, 7, 8, "You may not act for somebody else")
	}
	err = p.login(string(parts[1]), string(parts[2]))
	return nil, err == nil, err
}

// login is the server side of LOGIN (draft-murchison-sasl-login): user name and password, each asked for. Some
// clients send the user name as initial response.
type login struct {
	login func(user, password string) error
	user  string
	step  int
}

func (l *login) Next(response []byte) (challenge []byte, done bool, err error) {
	if l.step == 0 && response == nil {
		l.step = 1
		return []byte("Username:"), false, nil
	}
	if l.step < 2 {
		l.step, l.user = 2, string(response)
		if l.user == "" {
			return nil, false, errSASL
		}
		return []byte("Password:"), false, nil
	}
	err = l.login(l.user, string(response))
	return nil, err == nil, err
}
