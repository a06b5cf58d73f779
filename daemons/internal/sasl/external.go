package sasl

import (
	"bytes"
	"context"
	"crypto/tls"
	"unicode/utf8"

	"shoal/daemons/internal/authn"
)

// certificateAuthenticator is an Authenticator that knows client certificates (*authn.Authenticator does).
type certificateAuthenticator interface {
	CertificateOffered(cs *tls.ConnectionState) bool
	Certificate(ctx context.Context, from authn.From, cs *tls.ConnectionState, user string) (*authn.Grant, error)
}

// externalMechanism is EXTERNAL (RFC 4422 appendix A): the client has shown a certificate in TLS. It is offered to those that have, and
// whose certificate could open an account, before all others.
func externalMechanism(auth Authenticator) []Mechanism {
	a, ok := auth.(certificateAuthenticator)
	if !ok {
		return nil
	}
	return []Mechanism{{
		Name:    "EXTERNAL",
		Offered: func(c *Conn) bool { return a.CertificateOffered(c.TLS) },
		Begin:   func(c *Conn) Exchange { return &external{a, c} },
	}}
}

// external reads the client's one message:
//
//	extern-resp = *( UTF8-char-no-nul )    the authorization identity, empty for the one of the certificate
//
// The identity is an address of the account: "acting for somebody else" is not possible, but a certificate with several addresses may
// need one of them named.
type external struct {
	auth certificateAuthenticator
	conn *Conn
}

func (x *external) Next(ctx context.Context, response []byte) (Step, error) {
	if !utf8.Valid(response) || bytes.IndexByte(response, 0) >= 0 {
		return Step{}, ErrMalformed
	}
	g, err := x.auth.Certificate(ctx, x.conn.From("EXTERNAL"), x.conn.TLS, string(response))
	return Step{Grant: g}, err
}
