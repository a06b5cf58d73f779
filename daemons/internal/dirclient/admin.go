package dirclient

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/go-ldap/ldap/v3"

	"shoal/daemons/internal/clock"
)

// searchPage is how many entries Admin asks for at once.
const searchPage = 500

// AdminOptions say where and as whom Connect connects. URIs, TLS, DN and Password are required.
type AdminOptions struct {
	URIs     []string // tried in order; where one refers to another server, that is asked
	TLS      *tls.Config
	Suffix   string
	DN       string // whom to bind as
	Password string
	Timeout  time.Duration // of each exchange; 0: the default of a directory block's request_timeout
	Clock    clock.Clock
}

// Admin is one connection that writes to the directory, for tools. One goroutine at a time may use it. A connection that
// was closed while nothing was under way on it (a server that stops, or becomes the master) is made anew; one that breaks
// in an exchange is not: what to do after ErrUnavailable or ErrOutcomeUnknown is for the caller to say.
type Admin struct {
	opt    AdminOptions
	c      *conn
	broken bool // in an exchange
}

// Connect reaches the first server of the URIs that answers and binds there. ErrInvalidCredentials when the
// directory refuses DN or password, ErrUnavailable when none answers.
func Connect(ctx context.Context, o AdminOptions) (*Admin, error) {
	var d Options
	setDefaults(&d)
	def(&o.Suffix, d.Suffix)
	def(&o.Timeout, d.Timeout)
	if o.Clock == nil {
		o.Clock = d.Clock
	}
	if o.TLS == nil {
		return nil, errors.New("dirclient: no TLS configuration: the directory is spoken to over TLS only")
	}
	if o.Password == "" || o.DN == "" {
		return nil, fmt.Errorf("%w: empty name or password", ErrInvalidCredentials)
	}
	c, err := o.first(ctx)
	if err != nil {
		return nil, err
	}
	return &Admin{opt: o, c: c}, nil
}

// first connects to the first server of the URIs that answers.
func (o *AdminOptions) first(ctx context.Context) (*conn, error) {
	var why joined
	for _, uri := range o.URIs {
		ep, err := parseURI(uri)
		if err != nil {
			return nil, err
		}
		c, err := o.connect(ctx, ep)
		if err == nil {
			return c, nil
		}
		if !tryElsewhere(err) {
			return nil, resultError("bind as "+o.DN, err)
		}
		why = append(why, fmt.Errorf("%s: %w", ep.uri, err))
	}
	if len(why) == 0 {
		return nil, errors.New("dirclient: no directory URI")
	}
	return nil, fmt.Errorf("%w: %w", ErrUnavailable, why)
}

// connect reaches a server and binds there.
func (o *AdminOptions) connect(ctx context.Context, ep *endpoint) (*conn, error) {
	var d Options
	setDefaults(&d)
	dctx, cancel := context.WithTimeout(ctx, d.DialTimeout)
	c, err := dial(dctx, ep, o.TLS)
	cancel()
	if err != nil {
		return nil, err
	}
	bctx, cancel := context.WithTimeout(ctx, o.Timeout)
	defer cancel()
	if err := c.bind(bctx, o.DN, o.Password); err != nil {
		c.close()
		return nil, err
	}
	return c, nil
}

// Close ends the connection.
func (a *Admin) Close() error {
	a.c.close()
	return nil
}

// Suffix is the DN below which everything lies.
func (a *Admin) Suffix() string { return a.opt.Suffix }

// URI is the server that answered.
func (a *Admin) URI() string { return a.c.ep.uri }

// maxReferrals bounds how often one request is sent on to another server.
const maxReferrals = 3

// exchange runs one request. A server that takes no writes refers to the one that does: the request goes
// there, and so does everything after it, so that what was written is read again.
func (a *Admin) exchange(ctx context.Context, what string, write bool, f func(*ldap.Conn) error) error {
	for range maxReferrals {
		err := a.try(ctx, what, write, f)
		uris := referrals(err)
		if len(uris) == 0 {
			return err
		}
		if err := a.follow(ctx, what, uris); err != nil {
			return err
		}
	}
	return fmt.Errorf("%w: %s: the servers refer to each other", ErrReferral, what)
}

// try sends the request once. For a write a broken connection means that nobody knows whether it was done.
func (a *Admin) try(ctx context.Context, what string, write bool, f func(*ldap.Conn) error) error {
	if a.broken {
		return fmt.Errorf("%w: %s: the connection to %s is closed", ErrUnavailable, what, a.c.ep.uri)
	}
	if a.c.dead() { // nothing was sent: to begin again is safe for writes, too
		c, err := a.opt.first(ctx)
		if err != nil {
			return fmt.Errorf("%s: the connection to %s is closed: %w", what, a.c.ep.uri, err)
		}
		a.c.close()
		a.c = c
	}
	ctx, cancel := context.WithTimeout(ctx, a.opt.Timeout)
	defer cancel()
	err := a.c.do(ctx, f)
	if err != nil && broken(err) {
		a.broken = true
		a.c.close()
		if write {
			return fmt.Errorf("%w: %s: %w", ErrOutcomeUnknown, what, err)
		}
	}
	return resultError(what, err)
}

// follow goes on at the server that a referral names. It is verified like the first one before it gets
// the password.
func (a *Admin) follow(ctx context.Context, what string, uris []string) error {
	var why joined
	for _, uri := range uris {
		ep, err := parseReferral(uri)
		if err == nil {
			var c *conn
			if c, err = a.opt.connect(ctx, ep); err == nil {
				a.c.close()
				a.c = c
				return nil
			}
		}
		why = append(why, fmt.Errorf("%s: %w", uri, err))
	}
	return fmt.Errorf("%w: %s: %s takes no writes, and the directory's master cannot be reached: %w", ErrUnavailable, what, a.c.ep.uri, why)
}

// Add adds an entry. ErrExists when it is there.
func (a *Admin) Add(ctx context.Context, e Entry) error {
	req := ldap.NewAddRequest(e.DN, nil)
	for _, at := range e.Attributes {
		req.Attribute(at.Name, at.Values)
	}
	return a.exchange(ctx, "add "+e.DN, true, func(l *ldap.Conn) error { return l.Add(req) })
}

// Op is what a Change does.
type Op int

// Operations of Modify (RFC 4511 §4.6).
const (
	OpAdd     Op = iota // add the values
	OpDelete            // delete the values, or the attribute when there are none
	OpReplace           // replace the attribute; without values: delete it if it is there
)

// Change is one part of a modification.
type Change struct {
	Op     Op
	Name   string
	Values []string
}

// Modify changes an entry: all changes or none. ErrNoSuchEntry when it is not there.
func (a *Admin) Modify(ctx context.Context, dn string, changes ...Change) error {
	req := ldap.NewModifyRequest(dn, nil)
	for _, ch := range changes {
		switch ch.Op {
		case OpAdd:
			req.Add(ch.Name, ch.Values)
		case OpDelete:
			req.Delete(ch.Name, ch.Values)
		case OpReplace:
			req.Replace(ch.Name, ch.Values)
		}
	}
	return a.exchange(ctx, "modify "+dn, true, func(l *ldap.Conn) error { return l.Modify(req) })
}

// Delete deletes one entry, which must have none below it.
func (a *Admin) Delete(ctx context.Context, dn string) error {
	err := a.exchange(ctx, "delete "+dn, true, func(l *ldap.Conn) error {
		err := l.Del(ldap.NewDelRequest(dn, nil))
		if ldap.IsErrorWithCode(err, ldap.LDAPResultNotAllowedOnNonLeaf) {
			return ldap.NewError(ldap.LDAPResultConstraintViolation, errors.New("there are entries below it: delete them first"))
		}
		return err
	})
	return err
}

// Rename gives an entry, and with it what lies below, another name: newRDN under newSuperior, or where it is if that
// is "".
func (a *Admin) Rename(ctx context.Context, dn, newRDN string, deleteOld bool, newSuperior string) error {
	return a.exchange(ctx, "rename "+dn, true, func(l *ldap.Conn) error {
		return l.ModifyDN(ldap.NewModifyDNRequest(dn, newRDN, deleteOld, newSuperior))
	})
}

// Scope of a search (RFC 4511 §4.5.1.2).
type Scope int

// Scopes.
const (
	ScopeBase Scope = iota
	ScopeOne
	ScopeSub
)

// Search calls each for every entry found, page by page, until it returns an error (which Search returns).
// No attributes: all of them. ErrNoSuchEntry when the base is not there.
func (a *Admin) Search(ctx context.Context, base string, scope Scope, filter string, attributes []string, each func(Entry) error) error {
	what := "search below " + base
	if _, err := ldap.CompileFilter(filter); err != nil {
		return fmt.Errorf("%w: filter %q: %w", ErrInvalidName, filter, err)
	}
	paging := ldap.NewControlPaging(searchPage)
	for {
		req := ldap.NewSearchRequest(base, int(scope), ldap.NeverDerefAliases, 0, 0, false, filter, attributes, []ldap.Control{paging})
		var res *ldap.SearchResult
		err := a.exchange(ctx, what, false, func(l *ldap.Conn) (err error) {
			res, err = l.Search(req)
			return err
		})
		if err != nil {
			return err
		}
		for _, e := range res.Entries {
			out := Entry{DN: e.DN}
			for _, at := range e.Attributes {
				out.Attributes = append(out.Attributes, Attribute{Name: at.Name, Values: at.Values})
			}
			if err := each(out); err != nil {
				return err
			}
		}
		next, ok := ldap.FindControl(res.Controls, ldap.ControlTypePaging).(*ldap.ControlPaging)
		if !ok || len(next.Cookie) == 0 {
			return nil
		}
		paging.SetCookie(next.Cookie)
	}
}

// SetPassword gives the entry at dn a new password, in clear (the directory hashes it) or as "{SCHEME}...", and
// moves its credential version if it is an account.
func (a *Admin) SetPassword(ctx context.Context, dn, password string) error {
	if err := CheckPassword(password); err != nil {
		return err
	}
	changes := []Change{{OpReplace, attrPassword, []string{password}}}
	if strings.HasPrefix(strings.ToLower(dn), attrUID+"=") {
		changes = append(changes, Change{OpReplace, attrCredentialVersion, []string{credentialVersion(a.opt.Clock.Now())}})
	}
	return a.Modify(ctx, dn, changes...)
}
