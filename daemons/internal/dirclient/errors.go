package dirclient

import (
	"errors"
	"fmt"
	"strings"

	"github.com/go-ldap/ldap/v3"
)

// Errors, for errors.Is. Everything that is not one of the "no such" errors, ErrInvalidCredentials, ErrExists or
// ErrInvalidName is temporary: the same call may succeed later.
var (
	ErrNoSuchAccount      = errors.New("no such account")
	ErrNoSuchAlias        = errors.New("no such alias")
	ErrNoSuchDomain       = errors.New("no such domain")
	ErrNoSuchEntry        = errors.New("no such entry")               // Admin: the entry to change is not there
	ErrExists             = errors.New("already exists")              // Admin: the entry to add is there
	ErrInvalidCredentials = errors.New("invalid credentials")         // the directory refused name or password
	ErrInvalidName        = errors.New("invalid name")                // Admin: a name or value that cannot be
	ErrDenied             = errors.New("not permitted")               // Admin: bound as somebody who may not do that
	ErrUnavailable        = errors.New("directory is not available")  // nobody answered, or answered sense
	ErrMalformed          = errors.New("directory entry is unusable") // an entry lacks or contradicts what it must have
	ErrOutcomeUnknown     = errors.New("the outcome is not known")    // Admin: the connection broke after a write was sent
	ErrReferral           = errors.New("this server takes no writes") // Admin: and where it sends us, nobody does
)

// resultError turns what go-ldap returned into our errors. what names the operation and its operand.
func resultError(what string, err error) error {
	if err == nil {
		return nil
	}
	if errors.Is(err, ErrUnavailable) {
		return fmt.Errorf("%s: %w", what, err)
	}
	var le *ldap.Error
	if !errors.As(err, &le) {
		return fmt.Errorf("%w: %s: %w", ErrUnavailable, what, err)
	}
	text := resultText(le)
	switch le.ResultCode {
	case ldap.LDAPResultInvalidCredentials, ldap.ErrorEmptyPassword:
		return fmt.Errorf("%w: %s", ErrInvalidCredentials, what)
	case ldap.LDAPResultNoSuchObject:
		return fmt.Errorf("%w: %s", ErrNoSuchEntry, what)
	case ldap.LDAPResultEntryAlreadyExists, ldap.LDAPResultAttributeOrValueExists:
		return fmt.Errorf("%w: %s", ErrExists, what)
	case ldap.LDAPResultInsufficientAccessRights, ldap.LDAPResultStrongAuthRequired,
		ldap.LDAPResultInappropriateAuthentication, ldap.LDAPResultConfidentialityRequired:
		return fmt.Errorf("%w: %s: %s", ErrDenied, what, text)
	case ldap.LDAPResultReferral:
		return &referralError{fmt.Errorf("%w: %s: %s", ErrReferral, what, text), referralsOf(le)}
	case ldap.LDAPResultObjectClassViolation, ldap.LDAPResultInvalidAttributeSyntax,
		ldap.LDAPResultConstraintViolation, ldap.LDAPResultInvalidDNSyntax,
		ldap.LDAPResultUndefinedAttributeType, ldap.LDAPResultNamingViolation:
		return fmt.Errorf("%w: %s: the directory refused it: %s", ErrInvalidName, what, text)
	}
	return fmt.Errorf("%w: %s: %s", ErrUnavailable, what, text)
}

// referralError is ErrReferral with the URIs of the servers to ask instead.
type referralError struct {
	error
	uris []string
}

func (e *referralError) Unwrap() error { return e.error }

// referrals are the URIs of an error that is a referral.
func referrals(err error) []string {
	var e *referralError
	if errors.As(err, &e) {
		return e.uris
	}
	return nil
}

// referralsOf reads the URIs of an LDAPResult: referral [3] SEQUENCE OF URI (RFC 4511 §4.1.10).
func referralsOf(le *ldap.Error) (uris []string) {
	if le.Packet == nil || len(le.Packet.Children) < 2 {
		return nil
	}
	const contextSpecific = 0x80
	for _, part := range le.Packet.Children[1].Children {
		if part.ClassType != contextSpecific || part.Tag != 3 {
			continue
		}
		for _, uri := range part.Children {
			if s, ok := uri.Value.(string); ok {
				uris = append(uris, s)
			}
		}
	}
	return uris
}

// resultText is the server's own words, or the name of the code where it said nothing.
func resultText(le *ldap.Error) string {
	name := ldap.LDAPResultCodeMap[le.ResultCode]
	if name == "" {
		name = fmt.Sprintf("result code %d", le.ResultCode)
	}
	if le.Err == nil || strings.TrimSpace(le.Err.Error()) == "" {
		return name
	}
	return name + ": " + le.Err.Error()
}

// tryElsewhere says whether another server (or a new connection) may answer a read that failed like this:
// the connection broke, or the server said that it cannot at the moment (RFC 4511 appendix A.2).
func tryElsewhere(err error) bool {
	var le *ldap.Error
	if !errors.As(err, &le) {
		return true
	}
	switch le.ResultCode {
	case ldap.ErrorNetwork, ldap.ErrorUnexpectedResponse, ldap.LDAPResultBusy, ldap.LDAPResultUnavailable,
		ldap.LDAPResultReferral: // a shadow of a part of the directory
		return true
	}
	return false
}

// broken says whether a connection that gave this error must not be used again.
func broken(err error) bool {
	var le *ldap.Error
	if !errors.As(err, &le) {
		return true
	}
	return le.ResultCode >= ldap.ErrorNetwork
}
