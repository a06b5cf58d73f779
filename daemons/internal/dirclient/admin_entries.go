package dirclient

import (
	"context"
	"errors"
	"fmt"

	"github.com/go-ldap/ldap/v3"
)

// CreateTree adds the entries under which everything else lies, as far as they are not there yet.
func (a *Admin) CreateTree(ctx context.Context) error {
	entries, err := tree(a.opt.Suffix)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if err := a.Add(ctx, e); err != nil && !errors.Is(err, ErrExists) {
			return err
		}
	}
	return nil
}

// AddServer creates a server's entry.
func (a *Admin) AddServer(ctx context.Context, n NewServer) error {
	e, err := n.Entry(a.opt.Suffix)
	if err != nil {
		return err
	}
	return a.Add(ctx, e)
}

// SetServer creates a server's entry or makes the one that is there like n; an empty password leaves the old one.
func (a *Admin) SetServer(ctx context.Context, n NewServer) error {
	e, err := n.Entry(a.opt.Suffix)
	if err != nil {
		return err
	}
	if err = a.Add(ctx, e); !errors.Is(err, ErrExists) {
		return err
	}
	changes := []Change{{OpReplace, attrRole, e.Get(attrRole)}, {OpReplace, attrAddress, e.Get(attrAddress)}}
	if n.Password != "" {
		changes = append(changes, Change{OpReplace, attrPassword, e.Get(attrPassword)})
	}
	return a.Modify(ctx, e.DN, changes...)
}

// AddVolume creates a volume's entry.
func (a *Admin) AddVolume(ctx context.Context, n NewVolume) error {
	e, err := n.Entry(a.opt.Suffix)
	if err != nil {
		return err
	}
	return a.Add(ctx, e)
}

// Servers lists the servers of a role, or all for the empty one.
func (a *Admin) Servers(ctx context.Context, role string) ([]Server, error) {
	filter := "(objectClass=" + classServer + ")"
	if role != "" {
		filter = "(&" + filter + "(" + attrRole + "=" + ldap.EscapeFilter(role) + "))"
	}
	var list []Server
	err := a.Search(ctx, serversDN(a.opt.Suffix), ScopeOne, filter, serverAttributes, func(e Entry) error {
		list = append(list, serverOf(ldapEntry(e)))
		return nil
	})
	return list, err
}

// Volumes lists the store volumes.
func (a *Admin) Volumes(ctx context.Context) ([]Volume, error) {
	var list []Volume
	err := a.Search(ctx, volumesDN(a.opt.Suffix), ScopeOne, "(objectClass="+classVolume+")", volumeAttributes, func(e Entry) error {
		list = append(list, volumeOf(ldapEntry(e)))
		return nil
	})
	return list, err
}

// AddDomain creates a domain. ErrExists when it is there.
func (a *Admin) AddDomain(ctx context.Context, n NewDomain) (*Domain, error) {
	e, err := n.Entry(a.opt.Suffix)
	if err != nil {
		return nil, err
	}
	if err := a.Add(ctx, e); err != nil {
		return nil, err
	}
	return domainOf(ldapEntry(e))
}

// Domain reads one domain. ErrNoSuchDomain.
func (a *Admin) Domain(ctx context.Context, name string) (*Domain, error) {
	name, err := DomainName(name)
	if err != nil {
		return nil, err
	}
	var found *Domain
	err = a.Search(ctx, DomainDN(a.opt.Suffix, name), ScopeBase, "(objectClass="+classDomain+")", domainAttributes, func(e Entry) (err error) {
		found, err = domainOf(ldapEntry(e))
		return err
	})
	if errors.Is(err, ErrNoSuchEntry) || err == nil && found == nil {
		return nil, fmt.Errorf("%w: %s", ErrNoSuchDomain, name)
	}
	return found, err
}

// Domains calls each for every domain.
func (a *Admin) Domains(ctx context.Context, each func(*Domain) error) error {
	return a.Search(ctx, domainsDN(a.opt.Suffix), ScopeOne, "(objectClass="+classDomain+")", domainAttributes, func(e Entry) error {
		d, err := domainOf(ldapEntry(e))
		if err != nil {
			return err
		}
		return each(d)
	})
}

// DeleteDomain deletes a domain, which must have no accounts.
func (a *Admin) DeleteDomain(ctx context.Context, name string) error {
	name, err := DomainName(name)
	if err != nil {
		return err
	}
	err = a.Delete(ctx, DomainDN(a.opt.Suffix, name))
	if errors.Is(err, ErrNoSuchEntry) {
		return fmt.Errorf("%w: %s", ErrNoSuchDomain, name)
	}
	return err
}

// AddAccount creates an account. Without a volume it goes to the domain's default volume if that is active, or to the only active
// one, or where n.Place says. Without a quota it gets that of the domain, or DefaultQuotaStorage. ErrNoSuchDomain when the domain is not ours; ErrExists, naming who has it, when one of the addresses is
// taken (looked up before adding: two tools at the same moment can still give an alias to two accounts, and
// lookups of it then answer ErrMalformed until one of them is mended).
func (a *Admin) AddAccount(ctx context.Context, n NewAccount) (*Account, error) {
	_, _, domain, err := AccountAddress(n.Address)
	if err != nil {
		return nil, err
	}
	d, err := a.Domain(ctx, domain)
	if err != nil {
		return nil, err
	}
	if n.Volume, err = a.volumeFor(ctx, d, &n); err != nil {
		return nil, err
	}
	n.defaultQuota(d)
	e, err := n.Entry(a.opt.Suffix, a.opt.Clock.Now())
	if err != nil {
		return nil, err
	}
	for _, address := range e.Get(attrMailLocal) {
		switch other, err := a.Account(ctx, address); {
		case err == nil:
			return nil, fmt.Errorf("%w: %s is an address of %s", ErrExists, address, other.DN)
		case !errors.Is(err, ErrNoSuchAccount):
			return nil, err
		}
		switch other, err := a.Alias(ctx, address); {
		case err == nil:
			return nil, fmt.Errorf("%w: %s is an address of the alias %s", ErrExists, address, other.DN)
		case !errors.Is(err, ErrNoSuchAlias):
			return nil, err
		}
	}
	if err := a.Add(ctx, e); err != nil {
		return nil, err
	}
	return accountOf(ldapEntry(e))
}

// Account finds an account by any of its addresses. ErrNoSuchAccount.
func (a *Admin) Account(ctx context.Context, address string) (*Account, error) {
	v := ldap.EscapeFilter(addressKey(address))
	var found []*Account
	err := a.Search(ctx, domainsDN(a.opt.Suffix), ScopeSub,
		"(&(objectClass="+classAccount+")(|("+attrMailLocal+"="+v+")("+attrMail+"="+v+")))", accountAttributes, func(e Entry) error {
			acc, err := accountOf(ldapEntry(e))
			found = append(found, acc)
			return err
		})
	switch {
	case err != nil:
		return nil, err
	case len(found) == 0:
		return nil, fmt.Errorf("%w: %s", ErrNoSuchAccount, address)
	case len(found) > 1:
		return nil, fmt.Errorf("%w: %s belongs to both %s and %s", ErrMalformed, address, found[0].DN, found[1].DN)
	}
	return found[0], nil
}

// Accounts calls each for every account of a domain, or of all domains for the empty name.
func (a *Admin) Accounts(ctx context.Context, domain string, each func(*Account) error) error {
	base := domainsDN(a.opt.Suffix)
	if domain != "" {
		name, err := DomainName(domain)
		if err != nil {
			return err
		}
		base = DomainDN(a.opt.Suffix, name)
	}
	err := a.Search(ctx, base, ScopeSub, "(objectClass="+classAccount+")", accountAttributes, func(e Entry) error {
		acc, err := accountOf(ldapEntry(e))
		if err != nil {
			return err
		}
		return each(acc)
	})
	if errors.Is(err, ErrNoSuchEntry) && domain != "" {
		return fmt.Errorf("%w: %s", ErrNoSuchDomain, domain)
	}
	return err
}

// SetAccountPassword changes the password of the account that has this address.
func (a *Admin) SetAccountPassword(ctx context.Context, address, password string) error {
	acc, err := a.Account(ctx, address)
	if err != nil {
		return err
	}
	return a.SetPassword(ctx, acc.DN, password)
}

// SetAccountStatus changes the status of the account that has this address.
func (a *Admin) SetAccountStatus(ctx context.Context, address, status string) error {
	if !knownStatus(status) {
		return statusError(status)
	}
	acc, err := a.Account(ctx, address)
	if err != nil {
		return err
	}
	return a.Modify(ctx, acc.DN, Change{OpReplace, attrAccountStatus, []string{status}})
}

// DeleteAccount deletes the entry of the account that has this address and returns what it was. Its mail stays on
// its volume.
func (a *Admin) DeleteAccount(ctx context.Context, address string) (*Account, error) {
	acc, err := a.Account(ctx, address)
	if err != nil {
		return nil, err
	}
	var below []string
	err = a.Search(ctx, acc.DN, ScopeOne, "(objectClass="+classAppPassword+")", []string{"1.1"}, func(e Entry) error {
		below = append(below, e.DN)
		return nil
	})
	if err != nil {
		return nil, err
	}
	for _, dn := range below {
		if err := a.Delete(ctx, dn); err != nil && !errors.Is(err, ErrNoSuchEntry) {
			return nil, err
		}
	}
	return acc, a.Delete(ctx, acc.DN)
}

func ldapEntry(e Entry) *ldap.Entry {
	out := &ldap.Entry{DN: e.DN}
	for _, at := range e.Attributes {
		out.Attributes = append(out.Attributes, &ldap.EntryAttribute{Name: at.Name, Values: at.Values})
	}
	return out
}

// SetAccountVolume says where the mail of an account lies from now on. It fails when the directory says something else
// than from already.
func (a *Admin) SetAccountVolume(ctx context.Context, acc *Account, from, to string) error {
	if err := CheckVolumeName(to); err != nil {
		return err
	}
	return a.Modify(ctx, acc.DN, Change{OpDelete, attrVolumeName, []string{from}}, Change{OpAdd, attrVolumeName, []string{to}})
}

// SetVolumeState changes the state of a volume. ErrNoSuchEntry.
func (a *Admin) SetVolumeState(ctx context.Context, name, state string) error {
	switch state {
	case VolumeActive, VolumeDraining, VolumeClosed:
	default:
		return fmt.Errorf("%w: volume state %q: it is active, draining or closed", ErrInvalidName, state)
	}
	return a.Modify(ctx, VolumeDN(a.opt.Suffix, name), Change{OpReplace, attrVolumeState, []string{state}})
}

// DeleteServer deletes a server's entry: from then on it cannot log in to the directory. ErrNoSuchEntry.
func (a *Admin) DeleteServer(ctx context.Context, name string) error {
	return a.Delete(ctx, ServerDN(a.opt.Suffix, name))
}

// Aliases calls each for every alias below a domain, or of all domains for the empty name.
func (a *Admin) Aliases(ctx context.Context, domain string, each func(*Alias) error) error {
	base := domainsDN(a.opt.Suffix)
	if domain != "" {
		name, err := DomainName(domain)
		if err != nil {
			return err
		}
		base = DomainDN(a.opt.Suffix, name)
	}
	err := a.Search(ctx, base, ScopeSub, "(objectClass="+classAlias+")", aliasAttributes, func(e Entry) error {
		alias, err := aliasOf(ldapEntry(e))
		if err != nil {
			return err
		}
		return each(alias)
	})
	if errors.Is(err, ErrNoSuchEntry) && domain != "" {
		return fmt.Errorf("%w: %s", ErrNoSuchDomain, domain)
	}
	return err
}
