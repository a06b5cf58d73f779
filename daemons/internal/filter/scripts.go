package filter

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"strings"

	"shoal/daemons/internal/dirclient"
	"shoal/daemons/internal/mailstore"
	"shoal/daemons/internal/sieve"
)

// compiled is a script that was compiled once, or could not be.
type compiled struct {
	script *sieve.Script
	err    error
}

// maxCompiled bounds the scripts kept in memory; beyond it all are forgotten.
const maxCompiled = 4096

// compile gives the script for a key, which changes with its text.
func (f *Filter) compile(key, name string, text func() ([]byte, error)) (*sieve.Script, error) {
	f.mu.Lock()
	c := f.scripts[key]
	f.mu.Unlock()
	if c != nil {
		return c.script, c.err
	}
	src, err := text()
	if err != nil {
		return nil, &readError{err}
	}
	c = &compiled{}
	c.script, c.err = sieve.Compile(src, sieve.Options{Name: name})
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.scripts) >= maxCompiled {
		f.scripts = map[string]*compiled{}
	}
	f.scripts[key] = c
	return c.script, c.err
}

// readError is a script that cannot be read now: temporary, and not its author's fault.
type readError struct{ err error }

func (e *readError) Error() string { return e.err.Error() }
func (e *readError) Unwrap() error { return e.err }

// load gives the scripts for a delivery, in their order. broken says why the account's own one, or its domain's, does not
// compile; err is temporary.
func (f *Filter) load(ctx context.Context, d *Delivery) (list []*sieve.Script, broken, err error) {
	add := func(s *sieve.Script, err error) error {
		var later *readError
		switch {
		case errors.As(err, &later):
			return err
		case err != nil:
			if broken == nil {
				broken = err
			}
		default:
			list = append(list, s)
		}
		return nil
	}
	provider, domain, err := f.above(ctx, d.Account.Domain)
	if err != nil {
		return nil, nil, fmt.Errorf("look up the scripts of domain %s: %w", d.Account.Domain, err)
	}
	for _, text := range []string{provider.SieveBefore, domain.SieveBefore} {
		if text == "" {
			continue
		}
		if err := add(f.ofDomain("before", text)); err != nil {
			return nil, nil, err
		}
	}
	own, ok, err := d.Handle.ActiveScript(ctx, f.o.Settings.Age)
	if err != nil {
		return nil, nil, fmt.Errorf("look for the active script: %w", err)
	}
	if ok {
		s, err := f.compile(d.Account.ID+" "+own.File, own.Name, func() ([]byte, error) {
			text, _, err := d.Handle.Script(ctx, own.Name)
			return text, err
		})
		var later *readError
		switch {
		case errors.As(err, &later) && errors.Is(err, mailstore.ErrNoScript): // deleted a moment ago
		case errors.As(err, &later) && errors.Is(err, mailstore.ErrCorrupt):
			broken = err
		default:
			if err := add(s, err); err != nil {
				return nil, nil, err
			}
		}
	}
	for _, text := range []string{domain.SieveAfter, provider.SieveAfter} {
		if text == "" {
			continue
		}
		if err := add(f.ofDomain("after", text)); err != nil {
			return nil, nil, err
		}
	}
	return list, broken, nil
}

// above gives what has the scripts of the provider and of a domain.
func (f *Filter) above(ctx context.Context, name string) (provider, domain *dirclient.Domain, err error) {
	if provider, err = f.o.Domains.Provider(ctx); err != nil {
		return nil, nil, err
	}
	domain, err = f.o.Domains.Domain(ctx, name)
	if errors.Is(err, dirclient.ErrNoSuchDomain) {
		return provider, &dirclient.Domain{}, nil
	}
	return provider, domain, err
}

// operators begins the names of scripts that are not the account's own, in errors.
const operators = "provider's script "

// ofOperator says whether a script of a domain or of the provider failed: its mistake is nothing that the account's owner could mend.
func ofOperator(broken error) bool {
	var faults sieve.Errors
	var run *sieve.RuntimeError
	switch {
	case errors.As(broken, &faults):
		return len(faults) > 0 && strings.HasPrefix(faults[0].Script, operators)
	case errors.As(broken, &run):
		return strings.HasPrefix(run.Script, operators)
	}
	return false
}

func (f *Filter) ofDomain(name, text string) (*sieve.Script, error) {
	sum := sha256.Sum256([]byte(text))
	return f.compile("domain "+name+" "+string(sum[:]), operators+name, func() ([]byte, error) { return []byte(text), nil })
}

// include gives a script that another one includes: the account's own, or (RFC 6609 §3.2, :global) one of its domain's or the provider's.
func (x *execution) include(ctx context.Context, name string, global bool) (*sieve.Script, error) {
	if global {
		return x.global(ctx, name)
	}
	text, info, err := x.d.Handle.Script(ctx, name)
	if errors.Is(err, mailstore.ErrNoScript) {
		return nil, sieve.ErrNoScript
	}
	if err != nil {
		return nil, x.host(err)
	}
	return x.f.compile(x.d.Account.ID+" "+info.File, name, func() ([]byte, error) { return text, nil })
}

// global gives a script of the domain by its name, or else one of the provider.
func (x *execution) global(ctx context.Context, name string) (*sieve.Script, error) {
	provider, domain, err := x.f.above(ctx, x.d.Account.Domain)
	if err != nil {
		return nil, x.host(err)
	}
	for _, v := range append(slices.Clip(domain.SieveGlobal), provider.SieveGlobal...) {
		if n, text, ok := dirclient.SplitScript(v); ok && n == name {
			return x.f.ofDomain(name, text)
		}
	}
	return nil, sieve.ErrNoScript
}
