package dirclient

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/go-ldap/ldap/v3"
)

// Groups of a domain are entries of class groupOfNames below the domain's entry, called by their cn; a member may be a group again.

const (
	classGroup  = "groupOfNames"
	attrMember  = "member"
	maxGroups   = 1000 // that one account is in
	groupLevels = 5    // of groups in groups
)

// Groups lists the names (cn, lower case) of the groups of the account's own domain that it is in, also by way of other groups.
// A directory without groups, or without the domain's entry, has none.
func (c *Client) Groups(ctx context.Context, a *Account) ([]string, error) {
	dn := lower(a.DN)
	return c.groups.get(ctx, dn, c.allDown, func() ([]string, error) {
		var names []string
		seen := map[string]bool{dn: true}
		ask := []string{a.DN}
		for level := 0; level < groupLevels && len(ask) > 0; level++ {
			entries, err := c.groupsOf(a.Domain, ask)
			if err != nil {
				return nil, err
			}
			ask = nil
			for _, e := range entries {
				if seen[lower(e.DN)] || len(seen) > maxGroups {
					continue
				}
				seen[lower(e.DN)] = true
				ask = append(ask, e.DN)
				for _, cn := range e.GetEqualFoldAttributeValues(attrCN) {
					names = append(names, strings.ToLower(cn))
				}
			}
		}
		slices.Sort(names)
		return slices.Compact(names), nil
	})
}

// groupsOf finds the groups that have one of the entries as a member.
func (c *Client) groupsOf(domain string, members []string) ([]*ldap.Entry, error) {
	var filter strings.Builder
	filter.WriteString("(&(objectClass=" + classGroup + ")(|")
	for _, dn := range members {
		filter.WriteString("(" + attrMember + "=" + ldap.EscapeFilter(dn) + ")")
	}
	filter.WriteString("))")
	return c.findGroups(domain, filter.String(), maxGroups)
}

func (c *Client) findGroups(domain, filter string, most int) ([]*ldap.Entry, error) {
	entries, err := c.find(c.ctx, ldap.NewSearchRequest(DomainDN(c.opt.Suffix, domain), ldap.ScopeWholeSubtree,
		ldap.NeverDerefAliases, most, 0, false, filter, []string{attrCN}, nil))
	return entries, missingTree(err)
}

// HasGroup tells whether a domain has a group of that name.
func (c *Client) HasGroup(ctx context.Context, domain, name string) (bool, error) {
	found, err := c.groups.get(ctx, "?"+domain+"?"+strings.ToLower(name), c.allDown, func() ([]string, error) {
		entries, err := c.findGroups(domain, "(&(objectClass="+classGroup+")("+attrCN+"="+ldap.EscapeFilter(name)+"))", 2)
		if err != nil || len(entries) == 0 {
			return nil, err
		}
		return []string{name}, nil
	})
	return len(found) > 0, err
}

// AccountByID finds an account by its shoalAccountId. ErrNoSuchAccount.
func (a *Admin) AccountByID(ctx context.Context, id string) (found *Account, err error) {
	err = a.Search(ctx, domainsDN(a.opt.Suffix), ScopeSub, "(&(objectClass="+classAccount+")("+attrAccountID+"="+ldap.EscapeFilter(id)+"))",
		accountAttributes, func(e Entry) (err error) {
			found, err = accountOf(ldapEntry(e))
			return err
		})
	if err == nil && found == nil {
		err = fmt.Errorf("%w: %s", ErrNoSuchAccount, id)
	}
	return found, err
}

// HasGroup tells whether a domain has a group of that name.
func (a *Admin) HasGroup(ctx context.Context, domain, name string) (has bool, err error) {
	err = a.Search(ctx, DomainDN(a.opt.Suffix, domain), ScopeSub, "(&(objectClass="+classGroup+")("+attrCN+"="+ldap.EscapeFilter(name)+"))",
		[]string{attrCN}, func(Entry) error {
			has = true
			return nil
		})
	return has, err
}

// PublicAccounts calls each for every account of public mailboxes of a domain, or of all domains for the empty name.
func (a *Admin) PublicAccounts(ctx context.Context, domain string, each func(*Account) error) error {
	base := domainsDN(a.opt.Suffix)
	if domain != "" {
		base = DomainDN(a.opt.Suffix, domain)
	}
	return a.Search(ctx, base, ScopeSub, "(&(objectClass="+classAccount+")("+attrPublic+"=TRUE))", accountAttributes, func(e Entry) error {
		acc, err := accountOf(ldapEntry(e))
		if err != nil {
			return err
		}
		return each(acc)
	})
}
