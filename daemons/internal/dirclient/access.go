package dirclient

import (
	"context"
	"fmt"
	"slices"
	"strings"

	ber "github.com/go-asn1-ber/asn1-ber"
	"github.com/go-ldap/ldap/v3"
)

const (
	attrAccess        = "shoalAccess"
	attrAdministrator = "shoalAdministrator"
	classAccessRules  = "shoalAccessRules"
)

// Extended sends an extended operation (RFC 4511 §4.12) and gives the value of the answer.
func (a *Admin) Extended(ctx context.Context, oid string, value []byte) (answer []byte, err error) {
	err = a.exchange(ctx, "extended operation "+oid, false, func(l *ldap.Conn) error {
		v := ber.NewString(ber.ClassContext, ber.TypePrimitive, 1, string(value), "value")
		res, err := l.Extended(ldap.NewExtendedRequest(oid, v))
		if err == nil && res.Value != nil {
			answer = res.Value.Data.Bytes()
		}
		return err
	})
	return answer, err
}

// SetAccess makes rules the rules of access of an entry. ErrNoSuchEntry when it is not there.
func (a *Admin) SetAccess(ctx context.Context, dn string, rules []string) error {
	rulesNow, classes, err := a.accessOf(ctx, dn)
	if err != nil {
		return err
	}
	var changes []Change
	takes := slices.ContainsFunc(classes, func(c string) bool {
		return strings.EqualFold(c, classAccessRules) || strings.EqualFold(c, classDomain)
	})
	if !takes && len(rules) > 0 {
		changes = append(changes, Change{OpAdd, attrObjectClass, []string{classAccessRules}})
	}
	if len(rules) == 0 && len(rulesNow) == 0 {
		return nil
	}
	return a.Modify(ctx, dn, append(changes, Change{OpReplace, attrAccess, rules})...)
}

// Access gives the rules of access of an entry.
func (a *Admin) Access(ctx context.Context, dn string) ([]string, error) {
	rules, _, err := a.accessOf(ctx, dn)
	return rules, err
}

func (a *Admin) accessOf(ctx context.Context, dn string) (rules, classes []string, err error) {
	err = a.Search(ctx, dn, ScopeBase, "(objectClass=*)", []string{attrObjectClass, attrAccess}, func(e Entry) error {
		rules, classes = e.Get(attrAccess), e.Get(attrObjectClass)
		return nil
	})
	if err == nil && len(classes) == 0 {
		err = fmt.Errorf("%w: %s", ErrNoSuchEntry, dn)
	}
	return rules, classes, err
}

// Administrators are the DNs of who administers a domain.
func (a *Admin) Administrators(ctx context.Context, domain string) (list []string, err error) {
	err = a.Search(ctx, DomainDN(a.opt.Suffix, domain), ScopeBase, "(objectClass="+classDomain+")", []string{attrAdministrator}, func(e Entry) error {
		list = e.Get(attrAdministrator)
		return nil
	})
	return list, err
}

// SetAdministrator makes an entry, an account or a group of accounts, an administrator of a domain, or no longer. ErrExists if it
// is one already.
func (a *Admin) SetAdministrator(ctx context.Context, domain, dn string, is bool) error {
	op := OpDelete
	if is {
		op = OpAdd
	}
	return a.Modify(ctx, DomainDN(a.opt.Suffix, domain), Change{op, attrAdministrator, []string{dn}})
}
