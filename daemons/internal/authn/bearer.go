package authn

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"shoal/daemons/internal/dirclient"
	"shoal/daemons/internal/token"
)

// TokensAccepted says whether any token could open an account.
func (a *Authenticator) TokensAccepted() bool { return a.set.SessionTokens || len(a.providers) > 0 }

// Bearer checks a token for a service (RFC 6750, RFC 7628): one of our own webmail servers, or one of an identity provider. user is
// the address that the client claims, or empty: it must be one of the account's. Errors as of Password.
func (a *Authenticator) Bearer(ctx context.Context, from From, user, raw string) (*Grant, error) {
	g := &Grant{From: from, Credential: CredentialProvider}
	err := a.bearer(ctx, g, user, raw)
	if errors.Is(err, ErrBadCredentials) {
		a.failed("", from.Remote) // nobody guesses tokens; it is the work of checking them that is bounded
	}
	return a.done(from, user, g, false, err)
}

func (a *authenticator) bearer(ctx context.Context, g *Grant, user, raw string) error {
	if raw == "" || len(raw) > token.MaxLength || len(user) > maxUser {
		return ErrBadCredentials
	}
	leave, err := a.enterAddress(g.Remote)
	if err != nil {
		return err
	}
	defer leave()
	if token.IsSession(raw) {
		err = a.sessionToken(ctx, g, raw)
	} else {
		err = a.providerToken(ctx, g, raw)
	}
	if err != nil {
		return err
	}
	if user != "" {
		if address, _ := a.name(user); !slices.Contains(g.Account.Addresses, address) && address != g.Account.Address {
			return fmt.Errorf("%w: the token is of another account than %.100q", ErrBadCredentials, user)
		}
	}
	return a.status(ctx, g.Account)
}

// sessionToken checks a token of a webmail server of ours.
func (a *authenticator) sessionToken(ctx context.Context, g *Grant, raw string) error {
	if !a.set.SessionTokens {
		return fmt.Errorf("%w: session tokens are not taken", ErrBadCredentials)
	}
	g.Credential = CredentialToken
	servers, err := a.dir.TokenKeys(ctx)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	s, err := token.VerifySession(raw, a.clock.Now(), func(kid string) (token.PublicKey, string, bool) {
		for server, values := range servers {
			for _, v := range values {
				if k, known, err := token.ParsePublicKey(v); known && err == nil && k.ID == kid {
					return k, server, true
				}
			}
		}
		return token.PublicKey{}, "", false
	})
	if err != nil {
		return tokenError(err)
	}
	g.Name = s.Server
	acc, err := a.dir.AccountByID(ctx, s.AccountID)
	switch {
	case errors.Is(err, dirclient.ErrNoSuchAccount):
		return fmt.Errorf("%w: its account is gone", ErrBadCredentials)
	case err != nil:
		return fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	g.Account = acc
	switch {
	case acc.SessionEpoch != s.Epoch || acc.CredentialVersion != s.CredentialVersion:
		return fmt.Errorf("%w: the sessions of its time were ended", ErrBadCredentials)
	case !slices.Contains(s.Scopes, g.Service):
		return ErrScope
	}
	return nil
}

// providerToken checks a token of an identity provider.
func (a *authenticator) providerToken(ctx context.Context, g *Grant, raw string) error {
	issuer, isJWT := token.Issuer(raw)
	last := fmt.Errorf("%w: no provider for it", ErrBadCredentials)
	for _, p := range a.providers {
		if !p.Takes(issuer, isJWT) {
			continue
		}
		id, err := p.Check(ctx, raw)
		if err != nil {
			if last = tokenError(err); isJWT {
				return last
			}
			continue // an opaque token may be of the next one
		}
		g.Name = p.Name()
		if len(id.Services) > 0 && !slices.Contains(id.Services, g.Service) {
			return ErrScope
		}
		acc, err := a.dir.Account(ctx, strings.ToLower(id.Address))
		switch {
		case errors.Is(err, dirclient.ErrNoSuchAccount):
			return fmt.Errorf("%w: %.100q has no account", ErrBadCredentials, id.Address)
		case err != nil:
			return fmt.Errorf("%w: %w", ErrUnavailable, err)
		}
		g.Account = acc
		return nil
	}
	return last
}

func tokenError(err error) error {
	if errors.Is(err, token.ErrUnavailable) {
		return fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	return fmt.Errorf("%w: %w", ErrBadCredentials, err)
}
