package dirclient

import (
	"context"
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
