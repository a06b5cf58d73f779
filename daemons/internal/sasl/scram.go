package sasl

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"

	"shoal/daemons/internal/authn"
	"shoal/daemons/internal/scram"
)

// scramAuthenticator is an Authenticator that knows verifiers (*authn.Authenticator does).
type scramAuthenticator interface {
	Authenticator
	ScramOffered(h *scram.Hash, host string) bool
	ScramVerifier(ctx context.Context, from authn.From, user string, h *scram.Hash) (*authn.ScramVerifier, error)
	Scram(ctx context.Context, from authn.From, user string, v *authn.ScramVerifier, prove func() error) (*authn.Grant, error)
	Refuse(from authn.From, user string, why error) error
	ServerCertificate() []byte
}

// scramMechanisms are SCRAM-SHA-256 and SCRAM-SHA-1 (RFC 5802, RFC 7677), bound to the TLS connection first: clients that take the first
// one they know take the best. They are offered inside TLS only, like those that send a password: on a connection that others can read,
// a proof lets them guess at the password.
func scramMechanisms(auth Authenticator) []Mechanism {
	a, ok := auth.(scramAuthenticator)
	if !ok {
		return nil
	}
	s := &scrams{auth: a}
	var list []Mechanism
	for _, name := range scram.Mechanisms(true, scram.SHA256, scram.SHA1) {
		h, plus := scram.ByName(name)
		list = append(list, Mechanism{
			Name: name, Clear: true, Bound: plus,
			Offered: func(c *Conn) bool {
				return a.ScramOffered(h, c.host()) && (!plus || len(s.binding(c)) > 0)
			},
			Begin: func(c *Conn) Exchange { return &scramExchange{s: s, conn: c, name: name, hash: h, plus: plus} },
		})
	}
	return list
}

// host is the name that the client asked for in TLS.
func (c *Conn) host() string {
	if c.TLS == nil {
		return ""
	}
	return c.TLS.ServerName
}

type scrams struct {
	auth scramAuthenticator
	last atomic.Pointer[endPoint]
}

// endPoint remembers the hash of the certificate that is shown: it is the same for all connections.
type endPoint struct{ der, sum []byte }

// binding gives the channel bindings of a connection. It is worked out once for each Conn.
func (s *scrams) binding(c *Conn) scram.Binding {
	if c.binding != nil || c.TLS == nil {
		return c.binding
	}
	c.binding = scram.ServerBinding(c.TLS, nil)
	if der := s.auth.ServerCertificate(); len(der) > 0 && c.TLS.HandshakeComplete {
		e := s.last.Load()
		if e == nil || &e.der[0] != &der[0] || len(e.der) != len(der) {
			e = &endPoint{der, scram.EndPoint(der)}
			s.last.Store(e)
		}
		if e.sum != nil {
			c.binding[scram.TLSServerEndPoint] = e.sum
		}
	}
	return c.binding
}

// scramExchange is one login by SCRAM. The first message names the user, the second proves that he knows the password.
type scramExchange struct {
	s        *scrams
	conn     *Conn
	name     string
	hash     *scram.Hash
	plus     bool
	server   *scram.Server
	verifier *authn.ScramVerifier
}

func (x *scramExchange) Next(ctx context.Context, response []byte) (Step, error) {
	if x.server == nil {
		return x.begin(ctx, response)
	}
	if x.verifier == nil {
		return Step{}, ErrMalformed
	}
	var answer []byte
	var why error
	user := x.server.Name()
	g, err := x.s.auth.Scram(ctx, x.from(), user, x.verifier, func() error {
		answer, _, why = x.server.Next(response)
		return why
	})
	x.verifier = nil
	switch {
	case err == nil:
		return Step{Challenge: answer, Grant: g}, nil
	case errors.Is(err, authn.ErrBadCredentials) && errors.Is(err, scram.ErrMalformed):
		return Step{}, ErrMalformed
	}
	return Step{}, err
}

func (x *scramExchange) from() authn.From { return x.conn.From(x.name) }

func (x *scramExchange) begin(ctx context.Context, response []byte) (Step, error) {
	binding := x.s.binding(x.conn)
	if x.conn.Unbound && !x.plus {
		binding = nil // a client that says "I could have, had you offered it" is right
	}
	server, err := scram.NewServer(x.name, binding, func(name, authzid string) (scram.Verifier, error) {
		if authzid != "" && !strings.EqualFold(authzid, name) {
			return scram.Verifier{}, ErrAuthorization
		}
		v, err := x.s.auth.ScramVerifier(ctx, x.from(), name, x.hash)
		if err != nil {
			return scram.Verifier{}, err
		}
		x.verifier = v
		return v.Verifier, nil
	})
	if err != nil {
		return Step{}, ErrMechanism
	}
	x.server = server
	answer, _, err := server.Next(response)
	switch {
	case err == nil:
		return Step{Challenge: answer}, nil
	case errors.Is(err, scram.ErrMalformed):
		return Step{}, ErrMalformed
	case errors.Is(err, scram.ErrChannelBinding):
		return Step{}, x.s.auth.Refuse(x.from(), server.Name(), err)
	case errors.Is(err, ErrAuthorization):
		return Step{}, refuse(x.s.auth, x.from(), server.Name())
	}
	return Step{}, err
}

// refuse is the answer to who wants to act for somebody else. It is a refused login, which the audit trail has to have.
func refuse(auth any, from authn.From, user string) error {
	if a, ok := auth.(interface {
		Refuse(from authn.From, user string, why error) error
	}); ok {
		_ = a.Refuse(from, user, ErrAuthorization) // says what ErrAuthorization says
	}
	return ErrAuthorization
}
