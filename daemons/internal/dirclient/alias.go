package dirclient

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/go-ldap/ldap/v3"
)

// Alias is a set of addresses that stand for others. It is shared between callers: read only.
type Alias struct {
	DN        string
	Addresses []string // lower case
	Targets   []string // as they are written in the entry, at least one
}

// Alias finds the alias that has this address. ErrNoSuchAlias, ErrUnavailable, ErrMalformed.
func (c *Client) Alias(ctx context.Context, address string) (*Alias, error) {
	key := addressKey(address)
	if key == "" {
		return nil, fmt.Errorf("%w: empty address", ErrNoSuchAlias)
	}
	return c.aliases.get(ctx, key, c.allDown, func() (*Alias, error) {
		entries, err := c.find(c.ctx, ldap.NewSearchRequest(domainsDN(c.opt.Suffix), ldap.ScopeWholeSubtree,
			ldap.NeverDerefAliases, 2, 0, false, aliasFilter(key), aliasAttributes, nil))
		if err = missingTree(err); err != nil {
			return nil, err
		}
		var found []*Alias
		for _, e := range entries {
			a, err := aliasOf(e)
			if err != nil {
				return nil, err
			}
			found = append(found, a)
		}
		return oneAlias(found, key)
	})
}

func aliasFilter(key string) string {
	return "(&(objectClass=" + classAlias + ")(" + attrMailLocal + "=" + ldap.EscapeFilter(key) + "))"
}

func oneAlias(found []*Alias, key string) (*Alias, error) {
	switch len(found) {
	case 0:
		return nil, fmt.Errorf("%w: %s", ErrNoSuchAlias, key)
	case 1:
		return found[0], nil
	}
	return nil, fmt.Errorf("%w: %s belongs to both %s and %s", ErrMalformed, key, found[0].DN, found[1].DN)
}

func aliasOf(e *ldap.Entry) (*Alias, error) {
	a := &Alias{DN: e.DN}
	for _, s := range e.GetEqualFoldAttributeValues(attrMailLocal) {
		a.Addresses = append(a.Addresses, lower(s))
	}
	for _, s := range e.GetEqualFoldAttributeValues(attrMailTarget) {
		if s = strings.TrimSpace(s); s != "" {
			a.Targets = append(a.Targets, s)
		}
	}
	if len(a.Targets) == 0 {
		return nil, fmt.Errorf("%w: %s has no %s", ErrMalformed, e.DN, attrMailTarget)
	}
	return a, nil
}

// NewAlias describes an alias entry to create. It lies under the domain of its first address.
type NewAlias struct {
	Addresses []string
	Targets   []string // whole addresses
}

// Entry checks the description and gives the entry.
func (n NewAlias) Entry(suffix string) (Entry, error) {
	if len(n.Addresses) == 0 {
		return Entry{}, fmt.Errorf("%w: an alias needs an address", ErrInvalidName)
	}
	var addresses []string
	for _, s := range n.Addresses {
		a, _, _, err := AccountAddress(s)
		if err != nil {
			return Entry{}, err
		}
		if !slices.Contains(addresses, a) {
			addresses = append(addresses, a)
		}
	}
	targets, err := targetValues(n.Targets)
	if err != nil {
		return Entry{}, err
	}
	if len(targets) == 0 {
		return Entry{}, fmt.Errorf("%w: alias %s needs a target", ErrInvalidName, addresses[0])
	}
	_, local, domain, err := AccountAddress(addresses[0])
	if err != nil {
		return Entry{}, err
	}
	e := Entry{DN: AliasDN(suffix, local, domain)}
	e.set(attrObjectClass, classAlias)
	e.set(attrCN, local)
	e.set(attrMailLocal, addresses...)
	e.set(attrMailTarget, targets...)
	return e, nil
}

// AliasDN is where the entry of an alias lies, by the two halves of its first address.
func AliasDN(suffix, local, domain string) string {
	return attrCN + "=" + ldap.EscapeDN(local) + "," + DomainDN(suffix, domain)
}

// targetValues checks addresses that mail is sent on to, of any system, and removes repetitions.
func targetValues(list []string) ([]string, error) {
	var out []string
	for _, s := range list {
		a, _, _, err := AccountAddress(s)
		if err != nil {
			return nil, err
		}
		if !slices.Contains(out, a) {
			out = append(out, a)
		}
	}
	return out, nil
}

// AddAlias creates an alias. ErrNoSuchDomain when the domain of its first address is not ours, ErrExists when one of its
// addresses is taken.
func (a *Admin) AddAlias(ctx context.Context, n NewAlias) (*Alias, error) {
	e, err := n.Entry(a.opt.Suffix)
	if err != nil {
		return nil, err
	}
	_, _, domain, err := AccountAddress(n.Addresses[0])
	if err != nil {
		return nil, err
	}
	if _, err := a.Domain(ctx, domain); err != nil {
		return nil, err
	}
	for _, address := range e.Get(attrMailLocal) {
		if other, err := a.Account(ctx, address); err == nil {
			return nil, fmt.Errorf("%w: %s is an address of %s", ErrExists, address, other.DN)
		} else if !errors.Is(err, ErrNoSuchAccount) {
			return nil, err
		}
		if other, err := a.Alias(ctx, address); err == nil {
			return nil, fmt.Errorf("%w: %s is an address of %s", ErrExists, address, other.DN)
		} else if !errors.Is(err, ErrNoSuchAlias) {
			return nil, err
		}
	}
	if err := a.Add(ctx, e); err != nil {
		return nil, err
	}
	return aliasOf(ldapEntry(e))
}

// Alias finds an alias by any of its addresses. ErrNoSuchAlias.
func (a *Admin) Alias(ctx context.Context, address string) (*Alias, error) {
	key := addressKey(address)
	var found []*Alias
	err := a.Search(ctx, domainsDN(a.opt.Suffix), ScopeSub, aliasFilter(key), aliasAttributes, func(e Entry) error {
		alias, err := aliasOf(ldapEntry(e))
		found = append(found, alias)
		return err
	})
	if err != nil {
		return nil, err
	}
	return oneAlias(found, key)
}

// DeleteAlias deletes the alias that has the address. ErrNoSuchAlias.
func (a *Admin) DeleteAlias(ctx context.Context, address string) error {
	alias, err := a.Alias(ctx, address)
	if err != nil {
		return err
	}
	return a.Delete(ctx, alias.DN)
}

// SetForward sends the mail of an account on to other addresses, and keeps it as well with keep. Without addresses it is sent
// on no more. ErrNoSuchAccount.
func (a *Admin) SetForward(ctx context.Context, address string, keep bool, to ...string) error {
	acc, err := a.Account(ctx, address)
	if err != nil {
		return err
	}
	targets, err := targetValues(to)
	if err != nil {
		return err
	}
	var flag []string
	if keep && len(targets) > 0 {
		flag = []string{"TRUE"}
	}
	return a.Modify(ctx, acc.DN, Change{OpReplace, attrForward, targets}, Change{OpReplace, attrForwardKeep, flag})
}
