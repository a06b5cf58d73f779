package dirclient

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/go-ldap/ldap/v3"
)

// What SCRAM needs of the directory. Only boxes and switches may read it, and only by name.
const (
	attrVerifiers      = "authPassword"         // RFC 3112, in the form of RFC 5803
	attrScramMissing   = "shoalScramMissing"    // domain of an account whose password has no verifiers
	attrScramKey       = "shoalScramKey"        // of cn=scram: what the salts of names that nobody has are made with
	attrLockedTime     = "pwdAccountLockedTime" // the password policy has locked the account
	attrReset          = "pwdReset"             // the password policy wants a new password first
	attrCertificate    = "userCertificate"
	optionBinary       = ";binary"
	maxCertificates    = 20
	maxVerifiersOfOne  = 20
	maxVerifierLength  = 1024
	maxCertificateSize = 64 << 10
)

// Verifiers are what an account's entry holds of its password for SCRAM.
type Verifiers struct {
	Texts   [][]byte // RFC 5803; empty: the account has none, or does not exist
	Version int64    // shoalCredentialVersion at the same moment
	Locked  bool     // the password policy lets the password open nothing now
}

// Verifiers reads the verifiers of the account at a DN, past the cache. An entry that is not there has none: who asks for a name that
// nobody has spends as much as for one that somebody has. ErrUnavailable, ErrMalformed.
func (c *Client) Verifiers(ctx context.Context, dn string) (*Verifiers, error) {
	entries, err := c.find(ctx, ldap.NewSearchRequest(dn, ldap.ScopeBaseObject, ldap.NeverDerefAliases, 1, 0, false,
		"(objectClass="+classAccount+")", []string{attrVerifiers, attrCredentialVersion, attrLockedTime, attrReset}, nil))
	v := &Verifiers{}
	if errors.Is(err, ErrNoSuchEntry) || errors.Is(err, ErrInvalidName) || err == nil && len(entries) == 0 {
		return v, nil
	}
	if err != nil {
		return nil, err
	}
	e := entries[0]
	for _, text := range e.GetEqualFoldRawAttributeValues(attrVerifiers) {
		if len(text) <= maxVerifierLength && len(v.Texts) < maxVerifiersOfOne {
			v.Texts = append(v.Texts, text)
		}
	}
	v.Locked = e.GetEqualFoldAttributeValue(attrLockedTime) != "" || strings.EqualFold(e.GetEqualFoldAttributeValue(attrReset), "TRUE")
	return v, numbers(e, map[string]*int64{attrCredentialVersion: &v.Version})
}

// ScramKey reads what the salts of names that nobody has are made with (scram.ParseFakeKey); empty: the directory has not yet looked
// through its accounts for those without verifiers, and nothing is known of them.
func (c *Client) ScramKey(ctx context.Context) (string, error) {
	entries, err := c.find(ctx, ldap.NewSearchRequest("cn=scram,ou=config,"+c.opt.Suffix, ldap.ScopeBaseObject, ldap.NeverDerefAliases, 1, 0, false,
		"(objectClass=*)", []string{attrScramKey}, nil))
	if errors.Is(err, ErrNoSuchEntry) || err == nil && len(entries) == 0 {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	return entries[0].GetEqualFoldAttributeValue(attrScramKey), nil
}

// ScramComplete says whether every account of a domain that has a password has SCRAM verifiers, too; for the empty domain, of all
// domains. One that is being migrated is not: its passwords are yet to come, and come with a login that shows them.
func (c *Client) ScramComplete(ctx context.Context, domain string) (bool, error) {
	value := "*"
	if domain != "" {
		d, err := c.Domain(ctx, domain)
		switch {
		case errors.Is(err, ErrNoSuchDomain):
			return false, nil
		case err != nil:
			return false, err
		case d.Migration != nil:
			return false, nil
		}
		value = ldap.EscapeFilter(d.Name)
	}
	some, err := c.some(ctx, ldap.ScopeWholeSubtree, "("+attrScramMissing+"="+value+")")
	if err == nil && !some && domain == "" {
		some, err = c.some(ctx, ldap.ScopeSingleLevel, "("+attrMigrationServer+"=*)")
	}
	return err == nil && !some, err
}

// some says whether anything below the domains matches.
func (c *Client) some(ctx context.Context, scope int, filter string) (bool, error) {
	entries, err := c.find(ctx, ldap.NewSearchRequest(domainsDN(c.opt.Suffix), scope, ldap.NeverDerefAliases, 1, 0, false, filter, []string{"1.1"}, nil))
	if err = missingTree(err); err != nil {
		return false, err
	}
	return len(entries) > 0, nil
}

// Certificates reads the certificates (DER) in the entry of an account (userCertificate, RFC 4523), past the cache.
func (c *Client) Certificates(ctx context.Context, dn string) ([][]byte, error) {
	entries, err := c.find(ctx, ldap.NewSearchRequest(dn, ldap.ScopeBaseObject, ldap.NeverDerefAliases, 1, 0, false,
		"(objectClass="+classAccount+")", []string{attrCertificate + optionBinary}, nil))
	if errors.Is(err, ErrNoSuchEntry) {
		return nil, nil
	}
	if err != nil || len(entries) == 0 {
		return nil, err
	}
	var list [][]byte
	for _, name := range []string{attrCertificate + optionBinary, attrCertificate} {
		for _, der := range entries[0].GetEqualFoldRawAttributeValues(name) {
			if len(list) == maxCertificates {
				return nil, fmt.Errorf("%w: %s has more than %d certificates", ErrMalformed, dn, maxCertificates)
			}
			if len(der) <= maxCertificateSize {
				list = append(list, der)
			}
		}
	}
	return list, nil
}
