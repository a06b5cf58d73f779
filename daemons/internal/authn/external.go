package authn

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"slices"
	"strings"

	"shoal/daemons/internal/dirclient"
)

// A client certificate opens the account whose address is in it (rfc822Name among its subject alternative names, RFC 5280 §4.2.1.6), any
// address of the account's. The CA that signs users' certificates is named in the configuration; whoever has its key opens every account.
// With Settings.ClientCertificates "directory" the very certificate must be in the account's entry as well (userCertificate, RFC 4523):
// then taking it out of there ends its use, and the sessions that it opened.

// Values of Settings.ClientCertificates.
const (
	CertificatesByAddress   = "address"
	CertificatesInDirectory = "directory"
)

// CredentialCertificate is a client certificate.
const CredentialCertificate = "certificate"

// maxCertificateAddresses bounds the addresses of one certificate that are looked up.
const maxCertificateAddresses = 10

// CertificateOffered says whether the client of a connection has shown a certificate that could open an account.
func (a *Authenticator) CertificateOffered(cs *tls.ConnectionState) bool {
	if a.clients == nil || cs == nil || len(cs.PeerCertificates) == 0 {
		return false
	}
	_, err := a.clients(cs)
	return err == nil
}

// Certificate opens an account by the certificate that the client showed in TLS. user is whose account is meant, empty where the
// certificate says it. Errors as of Password.
func (a *Authenticator) Certificate(ctx context.Context, from From, cs *tls.ConnectionState, user string) (*Grant, error) {
	g := &Grant{From: from, Credential: CredentialCertificate}
	name, err := a.byCertificate(ctx, g, cs, user)
	if errors.Is(err, ErrBadCredentials) {
		a.failed("", from.Remote) // nobody guesses keys; it is the work of checking that is bounded
	}
	return a.done(from, name, g, false, err)
}

func (a *authenticator) byCertificate(ctx context.Context, g *Grant, cs *tls.ConnectionState, user string) (name string, err error) {
	name = user
	if a.clients == nil || cs == nil || len(cs.PeerCertificates) == 0 {
		return name, fmt.Errorf("%w: there is no certificate", ErrBadCredentials)
	}
	if len(user) > maxUser {
		return name, ErrBadCredentials
	}
	leave, err := a.enterAddress(g.Remote)
	if err != nil {
		return name, err
	}
	defer leave()
	leaf := cs.PeerCertificates[0]
	g.Name = fmt.Sprintf("%x", leaf.SerialNumber)
	addresses, err := a.clients(cs)
	if err != nil {
		return name, fmt.Errorf("%w: %w", ErrBadCredentials, err)
	}
	if name == "" {
		name = addresses[0]
	}
	var found []*dirclient.Account
	for _, address := range addresses[:min(len(addresses), maxCertificateAddresses)] {
		key, _ := a.name(address)
		if key == "" || !strings.Contains(address, "@") {
			continue
		}
		acc, err := a.dir.Account(ctx, key)
		switch {
		case errors.Is(err, dirclient.ErrNoSuchAccount):
			continue
		case err != nil:
			return name, fmt.Errorf("%w: %w", ErrUnavailable, err)
		}
		if !acc.Provisional && !slices.ContainsFunc(found, func(f *dirclient.Account) bool { return f.ID == acc.ID }) {
			found = append(found, acc)
		}
	}
	if user != "" {
		acc, _, _, err := a.account(ctx, user)
		if err != nil {
			return name, err
		}
		found = slices.DeleteFunc(found, func(f *dirclient.Account) bool { return acc == nil || f.ID != acc.ID })
	}
	switch len(found) {
	case 0:
		return name, fmt.Errorf("%w: the certificate is of another account, or of none", ErrBadCredentials)
	case 1:
	default:
		return name, fmt.Errorf("%w: the certificate is of %d accounts, and the client did not say which", ErrBadCredentials, len(found))
	}
	g.Account, g.der = found[0], leaf.Raw
	if err := a.listed(ctx, g); err != nil {
		return name, err
	}
	return name, a.status(ctx, g.Account)
}

// listed says whether a certificate is in the account's entry, where it has to be.
func (a *authenticator) listed(ctx context.Context, g *Grant) error {
	if a.set.ClientCertificates != CertificatesInDirectory {
		return nil
	}
	list, err := a.dir.Certificates(ctx, g.Account.DN)
	switch {
	case err != nil:
		return fmt.Errorf("%w: %w", ErrUnavailable, err)
	case !holds(list, g.der):
		return fmt.Errorf("%w: the certificate is not in the account's entry", ErrBadCredentials)
	}
	return nil
}

// enterAddress lets one attempt of an address in that is no guess at a password, and gives what ends it. One that would have to wait is refused: its client
// tries again by itself.
func (a *authenticator) enterAddress(remote string) (leave func(), err error) {
	addr, counted := addressKey(remote, a.trusted)
	_, addr = Keys("", addr)
	a.mu.Lock()
	defer a.mu.Unlock()
	wait, ok := a.addresses.enter(addr, a.clock.Boot(), !counted)
	if ok && wait > 0 {
		a.addresses.leave(addr)
	}
	if !ok || wait > 0 {
		return nil, fmt.Errorf("%w from %s", ErrThrottled, remote)
	}
	return func() {
		a.mu.Lock()
		a.addresses.leave(addr)
		a.mu.Unlock()
	}, nil
}
