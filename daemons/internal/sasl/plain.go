package sasl

import (
	"bytes"
	"context"
	"strings"
)

// plainMechanisms are those by which the client sends its password.
func plainMechanisms(auth Authenticator) []Mechanism {
	return []Mechanism{
		{Name: "PLAIN", Clear: true, Begin: func(c *Conn) Exchange { return &plain{auth: auth, conn: c} }},
		{Name: "LOGIN", Clear: true, ServerFirst: true, Begin: func(c *Conn) Exchange { return &login{auth: auth, conn: c} }},
	}
}

// plain is RFC 4616:
//
//	message = [authzid] NUL authcid NUL passwd
type plain struct {
	auth Authenticator
	conn *Conn
}

func (p *plain) Next(ctx context.Context, response []byte) (Step, error) {
	parts := bytes.Split(response, []byte{0})
	if len(parts) != 3 || len(parts[1]) == 0 {
		return Step{}, ErrMalformed
	}
	user := string(parts[1])
	if as := string(parts[0]); as != "" && !strings.EqualFold(as, user) {
		return Step{}, refuse(p.auth, p.conn.From("PLAIN"), user)
	}
	g, err := p.auth.Password(ctx, p.conn.From("PLAIN"), user, string(parts[2]))
	return Step{Grant: g}, err
}

// login is the mechanism LOGIN of old clients (draft-murchison-sasl-login): user name and password, each asked for. Some send
// the user name as an initial response.
type login struct {
	auth  Authenticator
	conn  *Conn
	user  string
	asked bool
	named bool
}

func (l *login) Next(ctx context.Context, response []byte) (Step, error) {
	switch {
	case l.named:
		g, err := l.auth.Password(ctx, l.conn.From("LOGIN"), l.user, string(response))
		return Step{Grant: g}, err
	case response == nil && !l.asked:
		l.asked = true
		return Step{Challenge: []byte("Username:")}, nil
	case len(response) == 0:
		return Step{}, ErrMalformed
	}
	l.user, l.named = string(response), true
	return Step{Challenge: []byte("Password:")}, nil
}
