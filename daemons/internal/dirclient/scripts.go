package dirclient

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sort"
	"strings"
	"unicode/utf8"
)

// Sieve scripts in the directory: those of a domain in its entry, those of the provider for all domains in the entry above
// all domains.

// provider is the key of the provider's scripts among the domains; no domain has that name.
const provider = "."

const classSieveScripts = "shoalSieveScripts"

var sieveAttributes = []string{"objectClass", attrSieveBefore, attrSieveAfter, attrSieveGlobal}

// Names of scripts with a place of their own. Any other name is that of a script which others may include (RFC 6609, :global).
const (
	ScriptBefore = "before" // runs before the own script of each account
	ScriptAfter  = "after"  // runs after it
)

// ErrNoSuchScript says that there is no script of that name.
var ErrNoSuchScript = errors.New("no such script")

// Script is a Sieve script of a domain or of the provider.
type Script struct{ Name, Text string }

// Scripts gives the scripts of a domain, or (domain "") of the provider, by name.
func (a *Admin) Scripts(ctx context.Context, domain string) ([]Script, error) {
	d, _, err := a.sieve(ctx, domain)
	if err != nil {
		return nil, err
	}
	var list []Script
	for _, s := range []Script{{ScriptBefore, d.SieveBefore}, {ScriptAfter, d.SieveAfter}} {
		if s.Text != "" {
			list = append(list, s)
		}
	}
	for _, v := range d.SieveGlobal {
		if name, text, ok := SplitScript(v); ok {
			list = append(list, Script{name, text})
		}
	}
	sort.SliceStable(list, func(i, j int) bool { return list[i].Name < list[j].Name })
	return list, nil
}

// SplitScript reads a value of shoalSieveGlobal: a name, a line end, a text.
func SplitScript(value string) (name, text string, ok bool) {
	name, text, ok = strings.Cut(value, "\n")
	return strings.TrimSuffix(name, "\r"), text, ok
}

// sieve reads the entry with the scripts; class says whether it may have them already.
func (a *Admin) sieve(ctx context.Context, domain string) (d *Domain, class bool, err error) {
	dn, err := a.sieveDN(domain)
	if err != nil {
		return nil, false, err
	}
	err = a.Search(ctx, dn, ScopeBase, "(objectClass=*)", sieveAttributes, func(e Entry) error {
		d = sieveOf(ldapEntry(e))
		class = domain != "" || slices.ContainsFunc(e.Get("objectClass"), func(v string) bool { return strings.EqualFold(v, classSieveScripts) })
		return nil
	})
	if errors.Is(err, ErrNoSuchEntry) || err == nil && d == nil {
		return nil, false, fmt.Errorf("%w: %s", ErrNoSuchDomain, domain)
	}
	return d, class, err
}

func (a *Admin) sieveDN(domain string) (string, error) {
	if domain == "" {
		return domainsDN(a.opt.Suffix), nil
	}
	name, err := DomainName(domain)
	return DomainDN(a.opt.Suffix, name), err
}

// PutScript stores a script under a name, in place of what was there. It does not look at the text.
func (a *Admin) PutScript(ctx context.Context, domain, name, text string) error {
	if text == "" || !utf8.ValidString(text) || strings.ContainsRune(text, 0) {
		return fmt.Errorf("%w: a script is UTF-8, and not empty", ErrInvalidName)
	}
	if name == "" || len(name) > 200 || !utf8.ValidString(name) || strings.ContainsFunc(name, func(r rune) bool { return r < ' ' || r == 0x7f }) {
		return fmt.Errorf("%w: %.80q as the name of a script", ErrInvalidName, name)
	}
	d, class, err := a.sieve(ctx, domain)
	if err != nil {
		return err
	}
	var changes []Change
	if !class {
		changes = append(changes, Change{OpAdd, "objectClass", []string{classSieveScripts}})
	}
	switch name {
	case ScriptBefore:
		changes = append(changes, Change{OpReplace, attrSieveBefore, []string{text}})
	case ScriptAfter:
		changes = append(changes, Change{OpReplace, attrSieveAfter, []string{text}})
	default:
		for _, v := range d.SieveGlobal { // not all of them: somebody else may be changing another one
			if n, _, _ := SplitScript(v); n == name {
				changes = append(changes, Change{OpDelete, attrSieveGlobal, []string{v}})
			}
		}
		changes = append(changes, Change{OpAdd, attrSieveGlobal, []string{name + "\n" + text}})
	}
	return a.Modify(ctx, d.DN, changes...)
}

// DeleteScript removes a script; ErrNoSuchScript: there is none of that name.
func (a *Admin) DeleteScript(ctx context.Context, domain, name string) error {
	d, _, err := a.sieve(ctx, domain)
	if err != nil {
		return err
	}
	var changes []Change
	switch {
	case name == ScriptBefore && d.SieveBefore != "":
		changes = append(changes, Change{OpReplace, attrSieveBefore, nil})
	case name == ScriptAfter && d.SieveAfter != "":
		changes = append(changes, Change{OpReplace, attrSieveAfter, nil})
	case name != ScriptBefore && name != ScriptAfter:
		for _, v := range d.SieveGlobal {
			if n, _, _ := SplitScript(v); n == name {
				changes = append(changes, Change{OpDelete, attrSieveGlobal, []string{v}})
			}
		}
	}
	if changes == nil {
		return fmt.Errorf("%w: %s", ErrNoSuchScript, name)
	}
	return a.Modify(ctx, d.DN, changes...)
}
