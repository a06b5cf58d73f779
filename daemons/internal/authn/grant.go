package authn

import (
	"context"

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
}

// Kinds of credentials.
const (
	CredentialPassword    = "password"
	CredentialAppPassword = "app-password"
	CredentialToken       = "token"
)

// Password checks a user's name and password for a service. It may take seconds (see the package) and is given up when ctx
// ends. Errors: ErrBadCredentials, ErrSuspended, ErrThrottled, ErrUnavailable.
func (a *Authenticator) Password(ctx context.Context, from From, user, password string) (*Grant, error) {
	acc, err := a.login(ctx, user, password, from.Remote)
	if err != nil {
		return nil, err
	}
	return &Grant{From: from, Account: acc, Credential: CredentialPassword}, nil
}

// Bearer checks a token for a service (RFC 7628, RFC 6750). user is the address that the client claims, or empty. Errors as of
// Password.
func (a *Authenticator) Bearer(_ context.Context, _ From, _, _ string) (*Grant, error) {
	return nil, ErrBadCredentials
}

// Watch calls end, once and on a goroutine of its own, when the session that g opened must end: its account was suspended, closed or
// deleted, or what it logged in with is worth nothing any more. The session calls stop when it ends by itself.
func (a *Authenticator) Watch(_ *Grant, _ func(reason string)) (stop func()) { return func() {} }
