package dirclient

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/go-ldap/ldap/v3"

	"shoal/daemons/internal/conf"
)

// An app password is an entry of its own below its account's:
//
//	cn=<id>,uid=<local part>,associatedDomain=<domain>,ou=domains,<suffix>    shoalAppPassword
//
// Its secret is its userPassword, which nobody reads. It is checked by a bind as that entry, which is not the account: whoever knows it
// can read nothing with it in the directory, and change nothing.

const (
	classAppPassword = "shoalAppPassword"
	attrScope        = "shoalScope"
	attrExpires      = "shoalExpires"
	attrLastLogin    = "shoalLastLogin"
	attrSessionEpoch = "shoalSessionEpoch"
	attrTokenKey     = "shoalTokenKey"
	attrDescription  = "description"
	attrCreated      = "createTimestamp"
)

// ErrNoSuchAppPassword: the account has no app password of this id.
var ErrNoSuchAppPassword = errors.New("no such app password")

var appPasswordID = regexp.MustCompile(`^[a-z2-7]{4}$`)

// maxAppPasswords bounds those of one account.
const maxAppPasswords = 100

// AppPassword is a further password of an account, for some services. Read only.
type AppPassword struct {
	DN       string
	ID       string
	Name     string   // what its owner calls it
	Scopes   []string // services: imap, pop, smtp, sieve, webmail
	Created  time.Time
	Expires  time.Time // zero: never
	LastUsed time.Time // zero: never, as far as is known; right to a day or so
}

// Allows says whether it opens a service.
func (p *AppPassword) Allows(service string) bool { return slices.Contains(p.Scopes, service) }

var appPasswordAttributes = []string{attrCN, attrScope, attrExpires, attrLastLogin, attrDescription, attrCreated}

// AppPasswordDN is the name of an app password's entry.
func AppPasswordDN(accountDN, id string) string { return "cn=" + id + "," + accountDN }

// appPasswordName splits the lower-case name of an app password's entry. below is "," and the name of what holds the domains.
func appPasswordName(name, below string) (id, account string, ok bool) {
	rdn, account, cut := strings.Cut(name, ",")
	id, is := strings.CutPrefix(rdn, "cn=")
	return id, account, cut && is && strings.HasPrefix(account, attrUID+"=") && strings.HasSuffix(account, below)
}

// AppPassword finds an app password of an account by its id. ErrNoSuchAppPassword, ErrUnavailable, ErrMalformed.
func (c *Client) AppPassword(ctx context.Context, accountDN, id string) (*AppPassword, error) {
	if !appPasswordID.MatchString(id) {
		return nil, fmt.Errorf("%w: %.20q", ErrNoSuchAppPassword, id)
	}
	dn := AppPasswordDN(accountDN, id)
	return c.apps.get(ctx, lower(dn), c.allDown, func() (*AppPassword, error) {
		entries, err := c.find(c.ctx, ldap.NewSearchRequest(dn, ldap.ScopeBaseObject, ldap.NeverDerefAliases, 1, 0, false,
			"(objectClass="+classAppPassword+")", appPasswordAttributes, nil))
		if errors.Is(err, ErrNoSuchEntry) || err == nil && len(entries) == 0 {
			return nil, fmt.Errorf("%w: %s", ErrNoSuchAppPassword, dn)
		}
		if err != nil {
			return nil, err
		}
		return appPasswordOf(entries[0])
	})
}

func appPasswordOf(e *ldap.Entry) (*AppPassword, error) {
	p := &AppPassword{DN: e.DN, ID: lower(e.GetEqualFoldAttributeValue(attrCN)), Name: e.GetEqualFoldAttributeValue(attrDescription)}
	for _, s := range e.GetEqualFoldAttributeValues(attrScope) {
		p.Scopes = append(p.Scopes, lower(s))
	}
	slices.Sort(p.Scopes)
	return p, times(e, map[string]*time.Time{attrExpires: &p.Expires, attrLastLogin: &p.LastUsed, attrCreated: &p.Created})
}

// times reads attributes of generalized time; one that is not there leaves the zero time.
func times(e *ldap.Entry, into map[string]*time.Time) error {
	for attr, t := range into {
		v := e.GetEqualFoldAttributeValue(attr)
		if v == "" {
			continue
		}
		at, err := time.Parse("20060102150405Z0700", v)
		if err != nil {
			return fmt.Errorf("%w: %s: %s %.40q is no time", ErrMalformed, e.DN, attr, v)
		}
		*t = at
	}
	return nil
}

func generalizedTime(t time.Time) string { return t.UTC().Format("20060102150405Z") }

// TokenKeys gives shoalTokenKey of every webmail server, by the server's name.
func (c *Client) TokenKeys(ctx context.Context) (map[string][]string, error) {
	servers, err := c.Servers(ctx, "webmail")
	if err != nil {
		return nil, err
	}
	keys := map[string][]string{}
	for _, s := range servers {
		keys[s.Name] = s.TokenKeys
	}
	return keys, nil
}

// NewAppPassword is an app password to add.
type NewAppPassword struct {
	ID      string // four of a-z and 2-7, the beginning of Secret
	Secret  string
	Name    string
	Scopes  []string
	Expires time.Time // zero: never
}

// AddAppPassword adds an app password to an account. ErrExists when it has one of this id.
func (a *Admin) AddAppPassword(ctx context.Context, account *Account, n NewAppPassword) error {
	if !appPasswordID.MatchString(n.ID) || len(n.Scopes) == 0 {
		return fmt.Errorf("%w: app password %.20q for %v", ErrInvalidName, n.ID, n.Scopes)
	}
	list, err := a.AppPasswords(ctx, account)
	if err != nil {
		return err
	}
	if len(list) >= maxAppPasswords {
		return fmt.Errorf("%w: %s has %d app passwords: remove those that are not used", ErrInvalidName, account.Address, len(list))
	}
	e := Entry{DN: AppPasswordDN(account.DN, n.ID), Attributes: []Attribute{
		{Name: "objectClass", Values: []string{classAppPassword}}, {Name: attrCN, Values: []string{n.ID}},
		{Name: attrScope, Values: n.Scopes}, {Name: attrPassword, Values: []string{n.Secret}},
	}}
	if n.Name != "" {
		e.Attributes = append(e.Attributes, Attribute{Name: attrDescription, Values: []string{n.Name}})
	}
	if !n.Expires.IsZero() {
		e.Attributes = append(e.Attributes, Attribute{Name: attrExpires, Values: []string{generalizedTime(n.Expires)}})
	}
	return a.Add(ctx, e)
}

// AppPasswords lists the app passwords of an account, the oldest first.
func (a *Admin) AppPasswords(ctx context.Context, account *Account) ([]*AppPassword, error) {
	var list []*AppPassword
	err := a.Search(ctx, account.DN, ScopeOne, "(objectClass="+classAppPassword+")", appPasswordAttributes, func(e Entry) error {
		p, err := appPasswordOf(ldapEntry(e))
		list = append(list, p)
		return err
	})
	slices.SortFunc(list, func(x, y *AppPassword) int { return x.Created.Compare(y.Created) })
	return list, err
}

// RemoveAppPassword removes an app password. ErrNoSuchAppPassword.
func (a *Admin) RemoveAppPassword(ctx context.Context, account *Account, id string) error {
	if !appPasswordID.MatchString(id) {
		return fmt.Errorf("%w: %.20q", ErrNoSuchAppPassword, id)
	}
	err := a.Delete(ctx, AppPasswordDN(account.DN, id))
	if errors.Is(err, ErrNoSuchEntry) {
		return fmt.Errorf("%w: %s", ErrNoSuchAppPassword, id)
	}
	return err
}

// EndSessions moves the session epoch of an account: all its sessions and session tokens end, on every server.
func (a *Admin) EndSessions(ctx context.Context, account *Account) error {
	return a.Modify(ctx, account.DN, Change{OpReplace, attrSessionEpoch, []string{strconv.FormatInt(max(account.SessionEpoch+1, a.opt.Clock.Now().Unix()), 10)}})
}

// SetTokenKeys replaces the token keys of a server.
func (a *Admin) SetTokenKeys(ctx context.Context, server string, keys []string) error {
	return a.Modify(ctx, ServerDN(a.opt.Suffix, server), Change{OpReplace, attrTokenKey, keys})
}

// SetLastLogins writes when entries (accounts, app passwords) were last used. It goes to the master as this server. Entries that are not there any
// more are passed over. It returns how many were written.
func (c *Client) SetLastLogins(ctx context.Context, logins map[string]time.Time) (int, error) {
	password, err := conf.ReadSecret(c.opt.PasswordFile)
	if err != nil {
		return 0, err
	}
	a, err := Connect(ctx, AdminOptions{URIs: c.opt.URIs, TLS: c.opt.TLS, Suffix: c.opt.Suffix, DN: c.opt.BindDN, Password: string(password),
		Timeout: c.opt.Timeout, Clock: c.opt.Clock})
	if err != nil {
		return 0, err
	}
	defer a.Close()
	n := 0
	for dn, at := range logins {
		switch err := a.Modify(ctx, dn, Change{OpReplace, attrLastLogin, []string{generalizedTime(at)}}); {
		case err == nil:
			n++
		case errors.Is(err, ErrNoSuchEntry):
		default:
			return n, err
		}
	}
	return n, nil
}
