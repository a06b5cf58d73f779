package authn

import (
	"context"
	"errors"
	"fmt"

	"shoal/daemons/internal/dirclient"
)

// Services that a login can be for. They are the words of the scopes of app passwords and tokens, too.
const (
	ServiceIMAP    = "imap"
	ServicePOP     = "pop"
	ServiceSMTP    = "smtp" // submission
	ServiceSieve   = "sieve"
	ServiceWebmail = "webmail"
)

// Services lists them.
func Services() []string {
	return []string{ServiceIMAP, ServicePOP, ServiceSMTP, ServiceSieve, ServiceWebmail}
}

// From says where a login comes from and how it is made.
type From struct {
	Service   string // ServiceIMAP and so on
	Remote    string // the client's address, with or without a port
	Mechanism string // name of the SASL mechanism, or of the command (LOGIN, USER)
	TLS       bool   // the connection is protected by TLS
}

// Grant is a login that succeeded.
type Grant struct {
	From
	Account    *dirclient.Account
	Credential string // what opened the account: CredentialPassword and so on
	Name       string // of the app password, or of whoever issued the token; empty: none

	app *dirclient.AppPassword // the app password
	der []byte                 // the client's certificate
}

// Kinds of credentials.
const (
	CredentialPassword    = "password"
	CredentialAppPassword = "app-password"
	CredentialToken       = "token"    // of a webmail server of ours
	CredentialProvider    = "provider" // a token of an identity provider
)

// Password checks a user's name and password for a service. It may take seconds (see the package) and is given up when ctx
// ends. Errors: ErrBadCredentials, ErrSuspended, ErrThrottled, ErrUnavailable.
func (a *Authenticator) Password(ctx context.Context, from From, user, password string) (*Grant, error) {
	g, cached, err := a.password(ctx, from, user, password)
	return a.done(from, user, g, cached, err)
}

// Prove checks what a mechanism proves in another way than by showing a password (SCRAM): prove says nil, ErrBadCredentials with a
// reason, or another error for what is nobody's fault. It is given a copy of the account, which it may correct, nil when there is none: it
// has to take as long then, and what it says is taken for wrong. The limits on guesses are those of passwords. Errors as of Password.
func (a *Authenticator) Prove(ctx context.Context, from From, user string, prove func(ctx context.Context, account *dirclient.Account) error) (*Grant, error) {
	g := &Grant{From: from, Credential: CredentialPassword}
	acc, who, _, err := a.account(ctx, user[:min(len(user), maxUser)])
	if err == nil {
		if acc != nil {
			own := *acc
			acc = &own
		}
		g.Account = acc
		var why error // what was wrong
		// Each proof is of its own making: nothing is remembered of it, and no two of them are the same.
		err = a.verify(ctx, attempt{user: who, address: from.Remote, real: acc != nil, secret: fmt.Sprint("proof ", a.proofs.Add(1)),
			try: func(ctx context.Context) error {
				err := prove(ctx, acc)
				if errors.Is(err, ErrBadCredentials) {
					why, err = err, dirclient.ErrInvalidCredentials
				}
				return err
			}})
		switch {
		case !errors.Is(err, ErrBadCredentials):
		case acc == nil:
			err = errNobody
		case why != nil:
			err = why
		}
	}
	if err == nil {
		err = a.status(ctx, acc)
	}
	return a.done(from, user, g, false, err)
}

// done ends a login: it counts it, writes the audit trail, and gives the grant out if there is one.
func (a *Authenticator) done(from From, user string, g *Grant, cached bool, err error) (*Grant, error) {
	a.metrics.count(cached, err)
	a.audit(from, user, g, err)
	if err != nil {
		return nil, err
	}
	a.note(g)
	return g, nil
}

// ErrScope: the app password or token is right, but not for this service. It is an ErrBadCredentials, too: the client is told no more.
var ErrScope = fmt.Errorf("%w: not for this service", ErrBadCredentials)

// errNobody is for the audit trail; the client is told no more than ErrBadCredentials.
var errNobody = fmt.Errorf("%w: there is no such account", ErrBadCredentials)

var errExpired = fmt.Errorf("%w: it has expired", ErrBadCredentials)

// resultOf is the word for an outcome in the audit trail and in metrics.
func resultOf(err error) string {
	switch {
	case err == nil:
		return "ok"
	case errors.Is(err, ErrScope):
		return "scope"
	case errors.Is(err, ErrBadCredentials):
		return "bad"
	case errors.Is(err, ErrSuspended):
		return "suspended"
	case errors.Is(err, ErrThrottled):
		return "throttled"
	}
	return "unavailable"
}
