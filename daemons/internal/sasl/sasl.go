// Package sasl is the server's side of SASL (RFC 4422), shared by IMAP, POP3, ManageSieve and submission: which mechanisms there
// are, which of them a connection is offered, and the exchange itself. What a secret is worth is not decided here but by an
// Authenticator (package authn).
//
// A protocol brings a Conn, which says what its connection is like, and a Wire, which carries challenges and responses; Run does
// the rest. For a library that wants to be stepped, Exchange can be used without Run.
//
// A mechanism is a Mechanism; its state in one login is an Exchange. New mechanisms are added to the list in New.
//
// Limits: a response longer than MaxResponse is malformed, and so is an exchange of more than MaxSteps.
//
// Left out on purpose: security layers (TLS is there for that), and acting for somebody else: an authorization identity must be empty or
// the name that authenticates.
package sasl

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"slices"
	"strings"

	"shoal/daemons/internal/authn"
	"shoal/daemons/internal/scram"
)

// Bounds of an exchange. Tokens may be long: RFC 5034 §4 asks for lines of 12,288 bytes.
const (
	MaxResponse = 12 << 10
	MaxSteps    = 8
)

// Errors of an exchange, beside those of package authn.
var (
	// ErrMalformed: the response is not what the mechanism's grammar asks for.
	ErrMalformed = errors.New("malformed response")
	// ErrCancelled: the client gave up ("*").
	ErrCancelled = errors.New("authentication given up")
	// ErrMechanism: there is no such mechanism, or it is not offered on this connection.
	ErrMechanism = errors.New("that mechanism is not offered")
	// ErrNeedTLS: the mechanism sends a secret in the clear, and the connection is not protected.
	ErrNeedTLS = errors.New("begin TLS first: a password must not be sent in the clear")
	// ErrAuthorization: the client wants to act for somebody else.
	ErrAuthorization = errors.New("acting for another user is not possible")
)

// Authenticator says what credentials are worth (*authn.Authenticator does).
type Authenticator interface {
	Password(ctx context.Context, from authn.From, user, password string) (*authn.Grant, error)
	Bearer(ctx context.Context, from authn.From, user, token string) (*authn.Grant, error)
	Watch(g *authn.Grant, end func(reason string)) (stop func())
}

// Conn is what an exchange knows of its connection.
type Conn struct {
	Service string               // authn.ServiceIMAP and so on
	Remote  string               // the client's address
	TLS     *tls.ConnectionState // nil: no TLS. Channel bindings (RFC 5929, RFC 9266) come from it
	Plain   bool                 // secrets may be sent without TLS: a setting, for networks that nobody listens to
	// Unbound: mechanisms with channel binding are not announced. Who knows of them may begin one all the same.
	Unbound bool

	binding scram.Binding // of TLS; nil: not worked out yet
}

// Secure says whether a secret may be sent on the connection.
func (c *Conn) Secure() bool { return c.TLS != nil || c.Plain }

// From says the same to package authn.
func (c *Conn) From(mechanism string) authn.From {
	return authn.From{Service: c.Service, Remote: c.Remote, Mechanism: mechanism, TLS: c.TLS != nil}
}

// Mechanism is one way to log in.
type Mechanism struct {
	Name        string // upper case
	ServerFirst bool   // the server speaks first (LOGIN); others may have an initial response
	Clear       bool   // sends a secret that must be protected by the connection
	Bound       bool   // is bound to the TLS connection
	// Offered says whether a connection is offered the mechanism, beyond Clear; nil: it is.
	Offered func(*Conn) bool
	// Begin begins an exchange.
	Begin func(*Conn) Exchange
}

// Step is what follows a response.
type Step struct {
	// Challenge is to be sent to the client. With a Grant it is the additional data of the success (RFC 4422 §3.6), nil when
	// there is none.
	Challenge []byte
	Grant     *authn.Grant // the login; nil: not yet
}

// Exchange is one login under way. Next takes the client's response, nil when there is none yet, and says how it goes on. An error ends
// it: one of this package or of package authn. Of a mechanism that is not ServerFirst, Next is never given nil.
type Exchange interface {
	Next(ctx context.Context, response []byte) (Step, error)
}

// Server knows the mechanisms. Its methods may run at once.
type Server struct {
	Authenticator
	mechanisms []Mechanism // in the order in which they are offered
}

// New makes a server that asks auth. What auth can do decides which mechanisms there are: with certificates EXTERNAL, with verifiers
// SCRAM.
func New(auth Authenticator) *Server {
	s := &Server{Authenticator: auth}
	s.Add(externalMechanism(auth)...)
	s.Add(scramMechanisms(auth)...)
	s.Add(plainMechanisms(auth)...)
	s.Add(bearerMechanisms(auth)...)
	return s
}

// Add adds mechanisms behind the ones that are there. It is for construction only.
func (s *Server) Add(m ...Mechanism) { s.mechanisms = append(s.mechanisms, m...) }

// Names lists what the connection is offered.
func (s *Server) Names(c *Conn) []string {
	var names []string
	for i := range s.mechanisms {
		if m := &s.mechanisms[i]; m.offered(c) && !(m.Bound && c.Unbound) {
			names = append(names, m.Name)
		}
	}
	return names
}

func (m *Mechanism) offered(c *Conn) bool {
	return (!m.Clear || c.Secure()) && (m.Offered == nil || m.Offered(c))
}

// Begin begins an exchange by a mechanism's name, in any case. ErrMechanism, ErrNeedTLS.
func (s *Server) Begin(name string, c *Conn) (*Mechanism, Exchange, error) {
	i := slices.IndexFunc(s.mechanisms, func(m Mechanism) bool { return strings.EqualFold(m.Name, name) })
	if i < 0 {
		return nil, nil, ErrMechanism
	}
	m := &s.mechanisms[i]
	switch {
	case m.Clear && !c.Secure():
		return nil, nil, ErrNeedTLS
	case !m.offered(c):
		return nil, nil, ErrMechanism
	}
	return m, m.Begin(c), nil
}

// Wire carries an exchange over a protocol.
type Wire interface {
	// Ask sends a challenge, decoded, and returns the client's response, decoded; ErrCancelled, or an error of the connection.
	Ask(challenge []byte) (response []byte, err error)
}

// Finisher is a Wire whose protocol can carry additional data with its success (ManageSieve). Over others it is a challenge
// that the client answers with nothing (RFC 4422 §3.6).
type Finisher interface {
	Finish(data []byte)
}

// Run makes an exchange to its end. initial is the initial response, nil when none was given. Errors: those of this package, of
// package authn, and of the wire as they are.
func (s *Server) Run(ctx context.Context, name string, c *Conn, initial []byte, w Wire) (*authn.Grant, error) {
	m, x, err := s.Begin(name, c)
	if err != nil {
		return nil, err
	}
	response := initial
	if response == nil && !m.ServerFirst {
		if response, err = ask(w, nil); err != nil {
			return nil, err
		}
	}
	for range MaxSteps {
		if len(response) > MaxResponse {
			return nil, ErrMalformed
		}
		step, err := x.Next(ctx, response)
		if err != nil {
			return nil, err
		}
		if step.Grant != nil {
			return step.Grant, finish(w, step.Challenge)
		}
		if response, err = ask(w, step.Challenge); err != nil {
			return nil, err
		}
	}
	return nil, fmt.Errorf("%w: too many steps", ErrMalformed)
}

// ask never returns a nil response without an error.
func ask(w Wire, challenge []byte) ([]byte, error) {
	response, err := w.Ask(challenge)
	if response == nil {
		response = []byte{}
	}
	return response, err
}

func finish(w Wire, data []byte) error {
	if data == nil {
		return nil
	}
	if f, ok := w.(Finisher); ok {
		f.Finish(data)
		return nil
	}
	response, err := ask(w, data)
	if err == nil && len(response) > 0 {
		err = ErrMalformed
	}
	return err
}
