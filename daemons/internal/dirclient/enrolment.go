package dirclient

import (
	"context"
	"errors"
	"fmt"

	"github.com/go-ldap/ldap/v3"
)

const attrEnrolToken = "shoalEnrolToken"

// ErrNoSuchToken: the token of enrolment is not in the server's entry: it was never there, was used, or was revoked.
var ErrNoSuchToken = errors.New("no such token")

// Enrolment is what a server's entry says about how the server may enrol. Read only.
type Enrolment struct {
	Name   string
	Role   string
	Tokens []string // stored form of package enrol: hashes with their bounds
}

// Enrolments calls each for the entry of one server, or of all for the empty name. ErrNoSuchEntry when the named one
// is not there.
func (a *Admin) Enrolments(ctx context.Context, name string, each func(Enrolment) error) error {
	base, scope := serversDN(a.opt.Suffix), ScopeOne
	if name != "" {
		if err := CheckServerName(name); err != nil {
			return err
		}
		base, scope = ServerDN(a.opt.Suffix, name), ScopeBase
	}
	return a.Search(ctx, base, scope, "(objectClass="+classServer+")", []string{attrCN, attrRole, attrEnrolToken}, func(e Entry) error {
		return each(Enrolment{Name: e.First(attrCN), Role: e.First(attrRole), Tokens: e.Get(attrEnrolToken)})
	})
}

// AddEnrolToken puts a token's stored form into a server's entry and takes others away that are not needed any more.
func (a *Admin) AddEnrolToken(ctx context.Context, name, token string, old ...string) error {
	changes := []Change{{OpAdd, attrEnrolToken, []string{token}}}
	if len(old) > 0 {
		changes = append(changes, Change{OpDelete, attrEnrolToken, old})
	}
	return a.Modify(ctx, ServerDN(a.opt.Suffix, name), changes...)
}

// DropEnrolTokens takes tokens away. ErrNoSuchToken when one of them is gone already.
func (a *Admin) DropEnrolTokens(ctx context.Context, name string, tokens ...string) error {
	return a.takeTokens(ctx, name, Change{OpDelete, attrEnrolToken, tokens})
}

// SpendEnrolToken takes a token away and gives the server a password, both or neither. ErrNoSuchToken when somebody
// was faster: of two who show the same token one gets this error.
func (a *Admin) SpendEnrolToken(ctx context.Context, name, token, password string) error {
	if err := CheckPassword(password); err != nil {
		return err
	}
	return a.takeTokens(ctx, name, Change{OpDelete, attrEnrolToken, []string{token}}, Change{OpReplace, attrPassword, []string{password}})
}

// SetServerPassword gives a server another password for its entry.
func (a *Admin) SetServerPassword(ctx context.Context, name, password string) error {
	if err := errors.Join(CheckServerName(name), CheckPassword(password)); err != nil {
		return err
	}
	return a.Modify(ctx, ServerDN(a.opt.Suffix, name), Change{OpReplace, attrPassword, []string{password}})
}

func (a *Admin) takeTokens(ctx context.Context, name string, changes ...Change) error {
	dn := ServerDN(a.opt.Suffix, name)
	req := ldap.NewModifyRequest(dn, nil)
	for _, ch := range changes {
		if ch.Op == OpDelete {
			req.Delete(ch.Name, ch.Values)
		} else {
			req.Replace(ch.Name, ch.Values)
		}
	}
	gone := false
	err := a.exchange(ctx, "modify "+dn, true, func(l *ldap.Conn) error {
		err := l.Modify(req)
		if gone = ldap.IsErrorWithCode(err, ldap.LDAPResultNoSuchAttribute); gone {
			return nil
		}
		return err
	})
	if err == nil && gone {
		return fmt.Errorf("%w: server %s", ErrNoSuchToken, name)
	}
	return err
}

// SetRuntime writes what a server knows best about itself: the version that it runs and, unless addresses is nil,
// where it serves. Servers may do this to their own entry.
func (a *Admin) SetRuntime(ctx context.Context, name, version string, addresses map[string][]string) error {
	if err := CheckServerName(name); err != nil {
		return err
	}
	changes := []Change{{OpReplace, attrVersion, []string{version}}}
	if addresses != nil {
		values, err := addressValues(addresses)
		if err != nil {
			return err
		}
		changes = append(changes, Change{OpReplace, attrAddress, values})
	}
	return a.Modify(ctx, ServerDN(a.opt.Suffix, name), changes...)
}
