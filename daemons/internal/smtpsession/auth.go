package smtpsession

import (
	"context"
	"errors"
	"time"

	gosasl "github.com/emersion/go-sasl"
	"github.com/emersion/go-smtp"

	"shoal/daemons/internal/authn"
	"shoal/daemons/internal/sasl"
)

// loginTimeout bounds a step of a login; the waits that a guesser meets lie within it.
const loginTimeout = 60 * time.Second

// saslConn is what a login has to know of the connection.
func (s *session) saslConn() *sasl.Conn {
	return &sasl.Conn{Service: authn.ServiceSMTP, Remote: s.remote(), TLS: s.c.TLS(), Unbound: !s.s.o.Limits.ChannelBinding}
}

func (s *session) AuthMechanisms() []string {
	if !s.s.o.Submission {
		return nil
	}
	return s.s.sasl.Names(s.saslConn())
}

// Auth begins a SASL exchange (RFC 4954). The guard lets it come to this inside TLS only.
func (s *session) Auth(mech string) (gosasl.Server, error) {
	m, x, err := s.s.sasl.Begin(mech, s.saslConn())
	if err != nil {
		return nil, smtp.ErrAuthUnknownMechanism
	}
	return &exchange{s: s, x: x, asked: m.ServerFirst}, nil
}

// exchange is a login under way, as the library steps it.
type exchange struct {
	s     *session
	x     sasl.Exchange
	asked bool         // the client has been asked for its first message, or is not to be
	grant *authn.Grant // the login has succeeded; the client has yet to take the data that goes with it
	steps int
}

// Next gives the library the next challenge, or the end. Additional data of a success are a challenge here, which the
// client answers with nothing (RFC 4954 §4).
func (e *exchange) Next(response []byte) (challenge []byte, done bool, err error) {
	if e.grant != nil {
		if len(response) > 0 {
			return nil, false, e.s.loginFailed(sasl.ErrMalformed)
		}
		return nil, true, e.s.login(e.grant)
	}
	if response == nil && !e.asked {
		e.asked = true
		return nil, false, nil
	}
	if response == nil && e.steps > 0 {
		response = []byte{}
	}
	if e.steps++; e.steps > sasl.MaxSteps || len(response) > sasl.MaxResponse {
		return nil, false, e.s.loginFailed(sasl.ErrMalformed)
	}
	ctx, cancel := context.WithTimeout(e.s.ctx, loginTimeout)
	defer cancel()
	step, err := e.x.Next(ctx, response)
	switch {
	case err != nil:
		return nil, false, e.s.loginFailed(err)
	case step.Grant != nil && step.Challenge == nil:
		err := e.s.login(step.Grant)
		return nil, err == nil, err
	}
	e.grant = step.Grant
	return step.Challenge, false, nil
}

// login takes a login up. The line in the log is package authn's.
func (s *session) login(g *authn.Grant) error {
	s.account = g.Account
	s.unwatch = s.s.sasl.Watch(g, s.revoke)
	s.s.m.logins.WithLabelValues(s.s.o.Listener, "ok").Inc()
	return nil
}

// loginFailed is the answer to a login that failed, which it counts.
func (s *session) loginFailed(err error) error {
	result, answer := "unavailable", reply(454, 4, 7, 0, "Login is not possible now, try again later")
	switch {
	case errors.Is(err, sasl.ErrMalformed):
		result, answer = "malformed", reply(501, 5, 5, 2, "The response is malformed")
	case errors.Is(err, sasl.ErrAuthorization):
		result, answer = "bad", reply(535, 5, 7, 8, "You may not act for somebody else")
	case errors.Is(err, authn.ErrBadCredentials):
		result, answer = "bad", reply(535, 5, 7, 8, "Wrong user name or password")
	case errors.Is(err, authn.ErrSuspended):
		result, answer = "suspended", reply(525, 5, 7, 13, "This account is disabled")
	}
	s.s.m.logins.WithLabelValues(s.s.o.Listener, result).Inc()
	return answer
}

// revoke ends the session when its transaction is over, at once if there is none. It may be called from any goroutine.
func (s *session) revoke(string) {
	s.c.End("421 4.7.0 The account or its password has changed, log in again")
}
