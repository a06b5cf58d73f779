// Package pki is the trust between the servers of one installation: an internal certificate authority
// (CA) and the mutual TLS that rests on it.
//
// Network position is never trust. Every server has a key that never leaves it and a certificate of the
// internal CA, whose one URI name says what it is and who: shoal://<role>/<name>. Peers check the chain
// to the CA and the role; the host name in the certificate is for foreign software (LDAP clients, curl)
// and is not looked at between our own servers, whose addresses come from the directory.
//
// On disk: PEM. A certificate file may hold the chain above it (leaf first); a key file holds one PKCS #8
// or SEC 1 key and is refused when everybody can read it; both are replaced by rename, so a reader sees
// the old or the new file, never a half. Keys are ECDSA P-256, written with mode 0600.
//
// Invariants: roles are checked in VerifyConnection, which TLS calls for resumed sessions too, against
// the CA of this moment; certificates that were replaced on disk are taken up by the next handshakes
// without a restart, and a broken replacement never displaces a good certificate; time comes from the
// caller's clock.
//
// Left out on purpose: revocation lists (certificates are short-lived and a CA may be replaced), public
// certificates from ACME (somebody else puts those files there).
package pki

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"strings"
	"time"
)

// The roles that a certificate can carry.
const (
	RoleSwitch    = "switch"
	RoleBox       = "box"
	RoleVault     = "vault"
	RoleBalancer  = "lb"
	RoleWebmail   = "webmail"
	RoleProvision = "provision"
	RoleStorage   = "storage"
	RoleFilter    = "filter"
	RoleEnrol     = "enrol" // gives certificates to new servers: package enrol
	RoleOperator  = "operator"
)

// Errors to test for with errors.Is. The text of the error that wraps them names the file or the peer,
// the date, and what to do.
var (
	ErrExpired     = errors.New("certificate expired")
	ErrNotYetValid = errors.New("certificate not yet valid")
	ErrMismatch    = errors.New("key does not belong to certificate")
	ErrWrongCA     = errors.New("certificate is not of this CA")
	ErrNoIdentity  = errors.New("certificate has no shoal identity")
	ErrWrongRole   = errors.New("role not accepted")
)

// fault is an error whose text needs no repetition of its kind.
type fault struct {
	text string
	kind error
}

func (f *fault) Error() string { return f.text }
func (f *fault) Unwrap() error { return f.kind }

func faultf(kind error, format string, args ...any) error {
	return &fault{text: fmt.Sprintf(format, args...), kind: kind}
}

// Files names the three files of a server's identity.
type Files struct {
	Cert, Key, CA string
}

// Option changes how files are loaded.
type Option func(*settings)

type settings struct {
	now func() time.Time
	log *slog.Logger
}

// WithClock sets the clock for validity checks; without it the system's clock counts.
func WithClock(now func() time.Time) Option { return func(s *settings) { s.now = now } }

// WithLog sets where replaced certificates, and replacements that were refused, are reported.
func WithLog(log *slog.Logger) Option { return func(s *settings) { s.log = log } }

func newSettings(opts []Option) settings {
	s := settings{now: time.Now, log: slog.New(slog.DiscardHandler)}
	for _, o := range opts {
		o(&s)
	}
	return s
}

// identityURI is the URI name of a certificate.
func identityURI(role, name string) *url.URL {
	return &url.URL{Scheme: "shoal", Host: role, Path: "/" + name}
}

// checkIdentity accepts a known role, and a name of 1 to 64 of a-z 0-9 . -
func checkIdentity(role, name string) error {
	switch role {
	case RoleSwitch, RoleBox, RoleVault, RoleBalancer, RoleWebmail, RoleProvision, RoleStorage, RoleFilter, RoleEnrol, RoleOperator:
	default:
		return fmt.Errorf("%w: unknown role %q", ErrNoIdentity, role)
	}
	if name == "" || len(name) > 64 || strings.Trim(name, "abcdefghijklmnopqrstuvwxyz0123456789.-") != "" {
		return fmt.Errorf("%w: bad name %q: write 1 to 64 of a-z, 0-9, dot and hyphen", ErrNoIdentity, name)
	}
	return nil
}

// identity reads role and name from a certificate. There must be exactly one shoal URI in it.
func identity(cert *x509.Certificate) (role, name string, err error) {
	found := 0
	for _, u := range cert.URIs {
		if u.Scheme == "shoal" {
			found++
			role, name = u.Host, strings.TrimPrefix(u.Path, "/")
		}
	}
	if found != 1 {
		return "", "", fmt.Errorf("%w: %d URI names shoal://role/name, wanted one", ErrNoIdentity, found)
	}
	if err := checkIdentity(role, name); err != nil {
		return "", "", err
	}
	return role, name, nil
}

// PeerIdentity tells who is at the other end of a connection that was made with ServerTLS or ClientTLS
// (which verified it): its role and its name.
func PeerIdentity(cs tls.ConnectionState) (role, name string, err error) {
	if len(cs.PeerCertificates) == 0 {
		return "", "", fmt.Errorf("%w: the peer showed none", ErrNoIdentity)
	}
	return identity(cs.PeerCertificates[0])
}
