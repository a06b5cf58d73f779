package shoal

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/go-ldap/ldap/v3"
)

// Directory writes entries of the directory, as an identity that may. URIs are the master's: a shadow that refers elsewhere is
// an error here. Any number of goroutines may use it.
type Directory struct {
	URIs     []string
	DN       string
	Password string
	Suffix   string
	TLS      *tls.Config

	mu   sync.Mutex
	conn *ldap.Conn
}

// exchange runs f on a connection; a broken one is made anew once.
func (d *Directory) exchange(ctx context.Context, f func(*ldap.Conn) error) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.conn != nil {
		err := f(d.conn)
		if err == nil || !ldap.IsErrorAnyOf(err, ldap.ErrorNetwork, ldap.LDAPResultUnavailable) {
			return told(err)
		}
		d.conn.Close()
		d.conn = nil
	}
	if err := d.connect(ctx); err != nil {
		return err
	}
	return told(f(d.conn))
}

func (d *Directory) connect(ctx context.Context) error {
	var all []error
	for _, uri := range d.URIs {
		c, err := d.dial(ctx, uri)
		if err == nil {
			if err = c.Bind(d.DN, d.Password); err == nil {
				d.conn = c
				return nil
			}
			c.Close()
			if ldap.IsErrorWithCode(err, ldap.LDAPResultInvalidCredentials) {
				return fmt.Errorf("the directory at %s refuses name or password of %s", uri, d.DN)
			}
		}
		all = append(all, fmt.Errorf("%s: %w", uri, err))
	}
	return fmt.Errorf("the directory cannot be reached: %w", errors.Join(all...))
}

func (d *Directory) dial(_ context.Context, uri string) (*ldap.Conn, error) {
	u, err := url.Parse(uri)
	if err != nil || u.Scheme != "ldap" && u.Scheme != "ldaps" || u.Host == "" {
		return nil, errors.New("a directory's URI is ldaps://host:port or ldap://host:port")
	}
	options := []ldap.DialOpt{ldap.DialWithDialer(&net.Dialer{Timeout: connectWithin})}
	if u.Scheme == "ldaps" {
		options = append(options, ldap.DialWithTLSConfig(d.TLS))
	}
	c, err := ldap.DialURL(uri, options...)
	if err != nil {
		return nil, err
	}
	c.SetTimeout(time.Minute) // a password takes a slow processor a while
	if u.Scheme == "ldap" {
		if err := c.StartTLS(d.TLS); err != nil {
			c.Close()
			return nil, err
		}
	}
	return c, nil
}

// told makes the directory's errors readable.
func told(err error) error {
	var e *ldap.Error
	if !errors.As(err, &e) {
		return err
	}
	text := ldap.LDAPResultCodeMap[e.ResultCode]
	if e.Err != nil && e.Err.Error() != "" {
		text += ": " + e.Err.Error()
	}
	switch e.ResultCode {
	case ldap.LDAPResultNoSuchObject:
		return fmt.Errorf("%w: the directory has no such entry", ErrNotFound)
	case ldap.LDAPResultEntryAlreadyExists:
		return errors.New("the directory has this entry already: import it, or choose another name")
	case ldap.LDAPResultNotAllowedOnNonLeaf:
		return errors.New("there are entries below it: delete them first")
	case ldap.LDAPResultReferral:
		return errors.New("this directory server is a shadow, which takes no updates: name the master in the provider's directory.uris")
	}
	return fmt.Errorf("the directory refuses: %s", text)
}

// Entry is one entry: attributes with their values.
type Entry map[string][]string

// First is the first value of an attribute, or "".
func (e Entry) First(name string) string {
	if v := e[name]; len(v) > 0 {
		return v[0]
	}
	return ""
}

// Add adds an entry; attributes without values are left out.
func (d *Directory) Add(ctx context.Context, dn string, e Entry) error {
	req := ldap.NewAddRequest(dn, nil)
	for _, name := range sorted(e) {
		if len(e[name]) > 0 {
			req.Attribute(name, e[name])
		}
	}
	return d.exchange(ctx, func(c *ldap.Conn) error { return c.Add(req) })
}

// Replace replaces attributes; those without values go.
func (d *Directory) Replace(ctx context.Context, dn string, e Entry) error {
	req := ldap.NewModifyRequest(dn, nil)
	for _, name := range sorted(e) {
		req.Replace(name, e[name])
	}
	return d.exchange(ctx, func(c *ldap.Conn) error { return c.Modify(req) })
}

// Change adds a value to an attribute and takes others away.
func (d *Directory) Change(ctx context.Context, dn, name, add string, remove []string) error {
	req := ldap.NewModifyRequest(dn, nil)
	if len(remove) > 0 {
		req.Delete(name, remove)
	}
	if add != "" {
		req.Add(name, []string{add})
	}
	return d.exchange(ctx, func(c *ldap.Conn) error { return c.Modify(req) })
}

// Delete deletes an entry. What is gone already is no error.
func (d *Directory) Delete(ctx context.Context, dn string) error {
	err := d.exchange(ctx, func(c *ldap.Conn) error { return c.Del(ldap.NewDelRequest(dn, nil)) })
	if errors.Is(err, ErrNotFound) {
		return nil
	}
	return err
}

// Read reads an entry. ErrNotFound.
func (d *Directory) Read(ctx context.Context, dn string) (Entry, error) {
	all, err := d.search(ctx, dn, ldap.ScopeBaseObject, "(objectClass=*)")
	if err != nil {
		return nil, err
	}
	if len(all) == 0 {
		return nil, fmt.Errorf("%w: %s", ErrNotFound, dn)
	}
	return all[0], nil
}

// List reads the entries below one.
func (d *Directory) List(ctx context.Context, base, filter string) ([]Entry, error) {
	return d.search(ctx, base, ldap.ScopeSingleLevel, filter)
}

func (d *Directory) search(ctx context.Context, base string, scope int, filter string) ([]Entry, error) {
	var all []Entry
	err := d.exchange(ctx, func(c *ldap.Conn) error {
		req := ldap.NewSearchRequest(base, scope, ldap.NeverDerefAliases, 0, 0, false, filter, []string{"*"}, nil)
		res, err := c.SearchWithPaging(req, 500)
		if err != nil {
			return err
		}
		for _, e := range res.Entries {
			out := Entry{}
			for _, a := range e.Attributes {
				out[a.Name] = slices.Sorted(slices.Values(a.Values))
			}
			all = append(all, out)
		}
		return nil
	})
	return all, err
}

// ServerDN, DomainDN and DkimDN are where entries lie.
func (d *Directory) ServerDN(name string) string {
	return "cn=" + ldap.EscapeDN(name) + "," + d.ServersDN()
}

// ServersDN is above all servers.
func (d *Directory) ServersDN() string { return "ou=servers,ou=config," + d.Suffix }

// DomainDN is where a domain lies.
func (d *Directory) DomainDN(name string) string {
	return "associatedDomain=" + ldap.EscapeDN(strings.ToLower(name)) + ",ou=domains," + d.Suffix
}

// DkimDN is where a key lies, below its domain.
func (d *Directory) DkimDN(domain, selector string) string {
	return "cn=" + ldap.EscapeDN(selector) + "," + d.DomainDN(domain)
}

func sorted(e Entry) []string {
	var all []string
	for k := range e {
		all = append(all, k)
	}
	slices.Sort(all)
	return all
}
