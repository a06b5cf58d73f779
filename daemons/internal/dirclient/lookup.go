package dirclient

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/go-ldap/ldap/v3"

	"shoal/daemons/internal/mailaddr"
)

// maxListed bounds lists of servers and volumes.
const maxListed = 10000

// Account finds the account that has this address (of its mailLocalAddress or mail values; compared without
// regard to case). ErrNoSuchAccount, ErrUnavailable, ErrMalformed.
func (c *Client) Account(ctx context.Context, address string) (*Account, error) {
	key := addressKey(address)
	if key == "" {
		return nil, fmt.Errorf("%w: empty address", ErrNoSuchAccount)
	}
	return c.accounts.get(ctx, key, c.allDown, func() (*Account, error) {
		v := ldap.EscapeFilter(key)
		return c.findAccount("(&(objectClass="+classAccount+")(|("+attrMailLocal+"="+v+")("+attrMail+"="+v+")))", key)
	})
}

// AccountByID finds the account with this shoalAccountId.
func (c *Client) AccountByID(ctx context.Context, id string) (*Account, error) {
	if id == "" {
		return nil, fmt.Errorf("%w: empty id", ErrNoSuchAccount)
	}
	return c.ids.get(ctx, id, c.allDown, func() (*Account, error) {
		return c.findAccount("(&(objectClass="+classAccount+")("+attrAccountID+"="+ldap.EscapeFilter(id)+"))", id)
	})
}

func (c *Client) findAccount(filter, what string) (*Account, error) {
	entries, err := c.find(c.ctx, ldap.NewSearchRequest(domainsDN(c.opt.Suffix), ldap.ScopeWholeSubtree,
		ldap.NeverDerefAliases, 2, 0, false, filter, accountAttributes, nil))
	if err = missingTree(err); err != nil {
		return nil, err
	}
	switch len(entries) {
	case 0:
		return nil, fmt.Errorf("%w: %s", ErrNoSuchAccount, what)
	case 1:
		return accountOf(entries[0])
	}
	return nil, fmt.Errorf("%w: %s belongs to both %s and %s", ErrMalformed, what, entries[0].DN, entries[1].DN)
}

// Domain finds a domain of ours. ErrNoSuchDomain, ErrUnavailable, ErrMalformed.
func (c *Client) Domain(ctx context.Context, name string) (*Domain, error) {
	key := mailaddr.DomainKey(lower(name))
	if key == "" {
		return nil, fmt.Errorf("%w: empty name", ErrNoSuchDomain)
	}
	return c.domains.get(ctx, key, c.allDown, func() (*Domain, error) {
		entries, err := c.find(c.ctx, ldap.NewSearchRequest(domainsDN(c.opt.Suffix), ldap.ScopeSingleLevel,
			ldap.NeverDerefAliases, 2, 0, false,
			"(&(objectClass="+classDomain+")("+attrAssociatedDomain+"="+ldap.EscapeFilter(key)+"))", domainAttributes, nil))
		if err = missingTree(err); err != nil {
			return nil, err
		}
		switch len(entries) {
		case 0:
			return nil, fmt.Errorf("%w: %s", ErrNoSuchDomain, key)
		case 1:
			return domainOf(entries[0])
		}
		return nil, fmt.Errorf("%w: domain %s is both %s and %s", ErrMalformed, key, entries[0].DN, entries[1].DN)
	})
}

// Provider gives the Sieve scripts that are for all domains, in those fields of a Domain; the others are empty.
func (c *Client) Provider(ctx context.Context) (*Domain, error) {
	dn := domainsDN(c.opt.Suffix)
	return c.domains.get(ctx, provider, c.allDown, func() (*Domain, error) {
		entries, err := c.find(c.ctx, ldap.NewSearchRequest(dn, ldap.ScopeBaseObject, ldap.NeverDerefAliases, 1, 0, false, "(objectClass=*)", sieveAttributes, nil))
		if err = missingTree(err); err != nil {
			return nil, err
		}
		if len(entries) == 0 {
			return &Domain{DN: dn}, nil
		}
		return sieveOf(entries[0]), nil
	})
}

// sieveOf reads the scripts of an entry.
func sieveOf(e *ldap.Entry) *Domain {
	return &Domain{
		DN:          e.DN,
		SieveBefore: e.GetEqualFoldAttributeValue(attrSieveBefore),
		SieveAfter:  e.GetEqualFoldAttributeValue(attrSieveAfter),
		SieveGlobal: e.GetEqualFoldAttributeValues(attrSieveGlobal),
	}
}

// Servers lists the servers of a role, or all of them for the empty role, by name.
func (c *Client) Servers(ctx context.Context, role string) ([]Server, error) {
	return c.servers.get(ctx, role, c.allDown, func() ([]Server, error) {
		filter := "(objectClass=" + classServer + ")"
		if role != "" {
			filter = "(&" + filter + "(" + attrRole + "=" + ldap.EscapeFilter(role) + "))"
		}
		entries, err := c.find(c.ctx, ldap.NewSearchRequest(serversDN(c.opt.Suffix), ldap.ScopeSingleLevel,
			ldap.NeverDerefAliases, maxListed, 0, false, filter, serverAttributes, nil))
		if err = missingTree(err); err != nil {
			return nil, err
		}
		list := make([]Server, 0, len(entries))
		for _, e := range entries {
			list = append(list, serverOf(e))
		}
		slices.SortFunc(list, func(a, b Server) int { return strings.Compare(a.Name, b.Name) })
		return list, nil
	})
}

// Volumes lists the store volumes by name.
func (c *Client) Volumes(ctx context.Context) ([]Volume, error) {
	return c.volumes.get(ctx, "", c.allDown, func() ([]Volume, error) {
		entries, err := c.find(c.ctx, ldap.NewSearchRequest(volumesDN(c.opt.Suffix), ldap.ScopeSingleLevel,
			ldap.NeverDerefAliases, maxListed, 0, false, "(objectClass="+classVolume+")", volumeAttributes, nil))
		if err = missingTree(err); err != nil {
			return nil, err
		}
		list := make([]Volume, 0, len(entries))
		for _, e := range entries {
			list = append(list, volumeOf(e))
		}
		slices.SortFunc(list, func(a, b Volume) int { return strings.Compare(a.Name, b.Name) })
		return list, nil
	})
}

// missingTree turns "the base of the search is not there" into what it means for a lookup: the directory is
// empty, or another one than expected, and nothing can be concluded from it.
func missingTree(err error) error {
	if errors.Is(err, ErrNoSuchEntry) {
		return fmt.Errorf("%w: %w: is this the right directory, and has it been set up?", ErrUnavailable, err)
	}
	return err
}

func accountOf(e *ldap.Entry) (*Account, error) {
	a := &Account{
		DN:          e.DN,
		Address:     lower(e.GetEqualFoldAttributeValue(attrMail)),
		ID:          e.GetEqualFoldAttributeValue(attrAccountID),
		Volume:      e.GetEqualFoldAttributeValue(attrVolumeName),
		Status:      lower(e.GetEqualFoldAttributeValue(attrAccountStatus)),
		DisplayName: e.GetEqualFoldAttributeValue(attrCN),
	}
	for _, s := range e.GetEqualFoldAttributeValues(attrMailLocal) {
		a.Addresses = append(a.Addresses, lower(s))
	}
	if a.Address != "" && !slices.Contains(a.Addresses, a.Address) {
		a.Addresses = append(a.Addresses, a.Address)
	}
	for _, part := range []struct{ attr, value string }{
		{attrMail, a.Address}, {attrAccountID, a.ID}, {attrVolumeName, a.Volume}, {attrAccountStatus, a.Status},
	} {
		if part.value == "" {
			return nil, fmt.Errorf("%w: %s has no %s", ErrMalformed, e.DN, part.attr)
		}
	}
	if !accountIDPattern.MatchString(a.ID) {
		return nil, fmt.Errorf("%w: %s: %s %q: 8 to 40 of a-z, 0-9 and '-' are allowed", ErrMalformed, e.DN, attrAccountID, a.ID)
	}
	if !knownStatus(a.Status) {
		return nil, fmt.Errorf("%w: %s: %s %q is not known", ErrMalformed, e.DN, attrAccountStatus, a.Status)
	}
	if i := strings.LastIndexByte(a.Address, '@'); i >= 0 {
		a.Domain = a.Address[i+1:]
	}
	// The domain that governs the account is the one that its entry lies under.
	if dn, err := ldap.ParseDN(e.DN); err == nil && len(dn.RDNs) > 1 {
		for _, at := range dn.RDNs[1].Attributes {
			if strings.EqualFold(at.Type, attrAssociatedDomain) {
				a.Domain = lower(at.Value)
			}
		}
	}
	err := numbers(e, map[string]*int64{attrQuotaStorage: &a.QuotaStorage, attrQuotaMessages: &a.QuotaMessages, attrCredentialVersion: &a.CredentialVersion, attrSessionEpoch: &a.SessionEpoch})
	if err != nil {
		return nil, err
	}
	if err := times(e, map[string]*time.Time{attrLastLogin: &a.LastLogin}); err != nil {
		return nil, err
	}
	for _, s := range e.GetEqualFoldAttributeValues(attrForward) {
		a.Forward = append(a.Forward, strings.TrimSpace(s))
	}
	a.ForwardKeep = strings.EqualFold(e.GetEqualFoldAttributeValue(attrForwardKeep), "TRUE")
	a.Public = strings.EqualFold(e.GetEqualFoldAttributeValue(attrPublic), "TRUE")
	for _, s := range e.GetEqualFoldAttributeValues(attrMigrating) {
		a.Migrating = append(a.Migrating, lower(s))
	}
	return a, nil
}

// numbers reads the attributes that are there.
func numbers(e *ldap.Entry, to map[string]*int64) error {
	for attr, n := range to {
		s := e.GetEqualFoldAttributeValue(attr)
		if s == "" {
			continue
		}
		v, err := strconv.ParseInt(s, 10, 64)
		if err != nil {
			return fmt.Errorf("%w: %s: %s %q is not a number", ErrMalformed, e.DN, attr, s)
		}
		*n = v
	}
	return nil
}

func domainOf(e *ldap.Entry) (*Domain, error) {
	d := &Domain{
		DN:            e.DN,
		Name:          lower(e.GetEqualFoldAttributeValue(attrAssociatedDomain)),
		Status:        lower(e.GetEqualFoldAttributeValue(attrDomainStatus)),
		DefaultVolume: e.GetEqualFoldAttributeValue(attrDefaultVolume),
		CatchAll:      lower(e.GetEqualFoldAttributeValue(attrCatchAll)),
		SieveBefore:   e.GetEqualFoldAttributeValue(attrSieveBefore),
		SieveAfter:    e.GetEqualFoldAttributeValue(attrSieveAfter),
		SieveGlobal:   e.GetEqualFoldAttributeValues(attrSieveGlobal),
		Subaddress:    lower(e.GetEqualFoldAttributeValue(attrSubaddress)),
		Migration:     migrationOf(e),
	}
	if !knownStatus(d.Status) {
		return nil, fmt.Errorf("%w: %s: %s %q is not known", ErrMalformed, e.DN, attrDomainStatus, d.Status)
	}
	if err := numbers(e, map[string]*int64{attrQuotaStorage: &d.QuotaStorage, attrQuotaMessages: &d.QuotaMessages}); err != nil {
		return nil, err
	}
	return d, nil
}

func serverOf(e *ldap.Entry) Server {
	s := Server{
		DN:        e.DN,
		Name:      e.GetEqualFoldAttributeValue(attrCN),
		Role:      lower(e.GetEqualFoldAttributeValue(attrRole)),
		Version:   e.GetEqualFoldAttributeValue(attrVersion),
		Addresses: map[string][]string{},
	}
	for _, v := range e.GetEqualFoldAttributeValues(attrAddress) {
		// A value that is not "<service> <host:port>" is skipped: a newer version may write more kinds.
		if f := strings.Fields(v); len(f) == 2 {
			service := lower(f[0])
			s.Addresses[service] = append(s.Addresses[service], f[1])
		}
	}
	s.TokenKeys = e.GetEqualFoldAttributeValues(attrTokenKey)
	return s
}

func volumeOf(e *ldap.Entry) Volume {
	return Volume{
		DN:    e.DN,
		Name:  e.GetEqualFoldAttributeValue(attrCN),
		ID:    lower(e.GetEqualFoldAttributeValue(attrVolumeID)),
		State: lower(e.GetEqualFoldAttributeValue(attrVolumeState)),
	}
}

func knownStatus(s string) bool {
	return s == StatusActive || s == StatusSuspended || s == StatusClosed
}
