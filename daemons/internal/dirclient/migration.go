package dirclient

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"

	"github.com/go-ldap/ldap/v3"
)

// Attributes of a migration: all but the last are the domain's, the last is the account's.
const (
	attrMigrationServer = "shoalMigrationServer"
	attrMigrationTLS    = "shoalMigrationTLS"
	attrMigrationUser   = "shoalMigrationUser"
	attrMigrationSecret = "shoalMigrationSecret" // told to boxes only, and the root DN
	attrMigrationLogin  = "shoalMigrationLogin"
	attrMigrationState  = "shoalMigrationState"
	attrMigrationCreate = "shoalMigrationCreate"
	attrMigrating       = "shoalMigrating"
)

// What an account still gets from the old server (shoalMigrating).
const (
	MigratePassword = "password" // the first login is checked there
	MigrateMail     = "mail"     // mail is copied from there
)

// States of a domain's migration (shoalMigrationState), its TLS modes, and how the old server knows its users.
const (
	MigrationActive    = "active"
	MigrationPaused    = "paused"    // nothing is copied; logins are still checked
	MigrationFinishing = "finishing" // each account gets a last round

	MigrationTLSImplicit = "implicit"
	MigrationStartTLS    = "starttls"

	MigrationLoginAddress = "address"
	MigrationLoginLocal   = "local"
)

// Where mail for user+detail goes (shoalSubaddress).
const (
	SubaddressInbox  = "inbox"  // also what no value means
	SubaddressFolder = "folder" // the mailbox named as the detail, if there is one
	SubaddressCreate = "create" // the same, which is made if there is none
)

// Migration says where a domain comes from.
type Migration struct {
	Server string // host:port of its IMAP service
	TLS    string // MigrationTLSImplicit or MigrationStartTLS
	User   string // who may open every mailbox there; empty: each with the owner's password
	Secret string // that user's password; only boxes and the root DN are told
	Login  string // MigrationLoginAddress or MigrationLoginLocal
	State  string
	Create bool // whom the old server knows gets an account
}

// Check says what is wrong with a migration.
func (m *Migration) Check() error {
	if host, port, err := net.SplitHostPort(m.Server); err != nil || host == "" || port == "" {
		return fmt.Errorf("%w: server %q of the migration: it is host:port", ErrInvalidName, m.Server)
	}
	for _, v := range []struct {
		what, value string
		of          []string
	}{
		{"TLS", m.TLS, []string{MigrationTLSImplicit, MigrationStartTLS}},
		{"login", m.Login, []string{MigrationLoginAddress, MigrationLoginLocal}},
		{"state", m.State, []string{MigrationActive, MigrationPaused, MigrationFinishing}},
	} {
		if !slices.Contains(v.of, v.value) {
			return fmt.Errorf("%w: %s of the migration is %q: it is %s", ErrInvalidName, v.what, v.value, strings.Join(v.of, " or "))
		}
	}
	if m.User == "" && m.Secret != "" {
		return fmt.Errorf("%w: the migration has the password of a master user, and no name", ErrInvalidName)
	}
	return nil
}

// migrationOf reads the migration of a domain; nil when it has none.
func migrationOf(e *ldap.Entry) *Migration {
	m := &Migration{
		Server: lower(e.GetEqualFoldAttributeValue(attrMigrationServer)),
		TLS:    lower(e.GetEqualFoldAttributeValue(attrMigrationTLS)),
		User:   e.GetEqualFoldAttributeValue(attrMigrationUser),
		Secret: e.GetEqualFoldAttributeValue(attrMigrationSecret),
		Login:  lower(e.GetEqualFoldAttributeValue(attrMigrationLogin)),
		State:  lower(e.GetEqualFoldAttributeValue(attrMigrationState)),
		Create: strings.EqualFold(e.GetEqualFoldAttributeValue(attrMigrationCreate), "TRUE"),
	}
	if m.Server == "" {
		return nil
	}
	def(&m.TLS, MigrationTLSImplicit)
	def(&m.Login, MigrationLoginAddress)
	def(&m.State, MigrationActive)
	return m
}

// Migrates says whether something is still to come from the old server.
func (a *Account) Migrates(what string) bool { return slices.Contains(a.Migrating, what) }

// SetMigration writes where a domain is migrated from; nil ends it. A master user without a password keeps the one that is there, which
// who changes it need not be able to read.
func (a *Admin) SetMigration(ctx context.Context, domain string, m *Migration) error {
	name, err := DomainName(domain)
	if err != nil {
		return err
	}
	values := map[string]string{}
	if m != nil {
		if err := m.Check(); err != nil {
			return err
		}
		values = map[string]string{attrMigrationServer: m.Server, attrMigrationTLS: m.TLS, attrMigrationUser: m.User,
			attrMigrationSecret: m.Secret, attrMigrationLogin: m.Login, attrMigrationState: m.State}
		if m.Create {
			values[attrMigrationCreate] = "TRUE"
		}
	}
	var changes []Change
	for _, name := range []string{attrMigrationServer, attrMigrationTLS, attrMigrationUser, attrMigrationSecret, attrMigrationLogin,
		attrMigrationState, attrMigrationCreate} {
		if name == attrMigrationSecret && m != nil && m.User != "" && m.Secret == "" {
			continue
		}
		ch := Change{Op: OpReplace, Name: name}
		if v := values[name]; v != "" {
			ch.Values = []string{v}
		}
		changes = append(changes, ch)
	}
	err = a.Modify(ctx, DomainDN(a.opt.Suffix, name), changes...)
	if errors.Is(err, ErrNoSuchEntry) {
		return fmt.Errorf("%w: %s", ErrNoSuchDomain, name)
	}
	return err
}

// SetSubaddress says where mail for addresses with a detail goes in a domain.
func (a *Admin) SetSubaddress(ctx context.Context, domain, policy string) error {
	name, err := DomainName(domain)
	if err != nil {
		return err
	}
	if policy != SubaddressInbox && policy != SubaddressFolder && policy != SubaddressCreate {
		return fmt.Errorf("%w: %q: it is %s, %s or %s", ErrInvalidName, policy, SubaddressInbox, SubaddressFolder, SubaddressCreate)
	}
	return a.Modify(ctx, DomainDN(a.opt.Suffix, name), Change{OpReplace, attrSubaddress, []string{policy}})
}

// SetMigrating says what an account still gets from the old server.
func (a *Admin) SetMigrating(ctx context.Context, dn string, what ...string) error {
	return a.Modify(ctx, dn, Change{OpReplace, attrMigrating, what})
}

// TakePassword gives an account the password that the old server knows, if it is still to come from there. ErrExists: it has come
// already. A server may do that with no other right over passwords: the value that is taken away is its proof.
func (a *Admin) TakePassword(ctx context.Context, dn, password string) error {
	if password == "" || password[0] == '{' { // it would be taken for a hash
		return fmt.Errorf("%w: a password that begins with {", ErrInvalidName)
	}
	return a.take(ctx, dn, MigratePassword, Change{OpReplace, attrPassword, []string{password}})
}

// MailCopied notes that all mail of an account has come.
func (a *Admin) MailCopied(ctx context.Context, dn string) error {
	if err := a.take(ctx, dn, MigrateMail); !errors.Is(err, ErrExists) {
		return err
	}
	return nil
}

func (a *Admin) take(ctx context.Context, dn, what string, more ...Change) error {
	changes := append([]Change{{OpDelete, attrMigrating, []string{what}}}, more...)
	return a.exchange(ctx, "modify "+dn, true, func(l *ldap.Conn) error {
		req := ldap.NewModifyRequest(dn, nil)
		for _, ch := range changes {
			if ch.Op == OpDelete {
				req.Delete(ch.Name, ch.Values)
			} else {
				req.Replace(ch.Name, ch.Values)
			}
		}
		err := l.Modify(req)
		if ldap.IsErrorWithCode(err, ldap.LDAPResultNoSuchAttribute) {
			return ldap.NewError(ldap.LDAPResultEntryAlreadyExists, errors.New("it is there"))
		}
		return err
	})
}

// MigratingAccounts calls each for every account of a domain that something is still to come for.
func (a *Admin) MigratingAccounts(ctx context.Context, domain, what string, each func(*Account) error) error {
	name, err := DomainName(domain)
	if err != nil {
		return err
	}
	return a.Search(ctx, DomainDN(a.opt.Suffix, name), ScopeSub,
		"(&(objectClass="+classAccount+")("+attrMigrating+"="+ldap.EscapeFilter(what)+"))", accountAttributes, func(e Entry) error {
			acc, err := accountOf(ldapEntry(e))
			if err != nil {
				return err
			}
			return each(acc)
		})
}

// Migrations lists the domains that are being migrated.
func (c *Client) Migrations(ctx context.Context) ([]*Domain, error) {
	entries, err := c.find(ctx, ldap.NewSearchRequest(domainsDN(c.opt.Suffix), ldap.ScopeSingleLevel,
		ldap.NeverDerefAliases, maxListed, 0, false, "("+attrMigrationServer+"=*)", domainAttributes, nil))
	if err = missingTree(err); err != nil {
		return nil, err
	}
	var list []*Domain
	for _, e := range entries {
		d, err := domainOf(e)
		if err != nil {
			return nil, err
		}
		list = append(list, d)
	}
	return list, nil
}
