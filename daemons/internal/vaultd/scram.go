package vaultd

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"

	"shoal/daemons/internal/dirschema"
	"shoal/daemons/internal/dirstore"
	"shoal/daemons/internal/ldapwire"
	"shoal/daemons/internal/scram"
)

// How servers know whether SCRAM can be offered: an account whose password has no verifiers carries its domain in
// shoalScramMissing, which the master keeps true with each write, and which is indexed; so one search that returns
// nothing says that a domain, or the whole service, is complete. Accounts from before that, in a database of an older
// version, are looked through once; the entry cn=scram, which holds the key of the salts of names that do not exist, is
// made when that is done: without it nothing is offered.

func scramDN(suffix string) string { return "cn=scram,ou=config," + suffix }

// markScram keeps shoalScramMissing of an account true.
func markScram(schema *dirschema.Schema) func(e *dirstore.Entry) {
	missing := dirschema.Description{Type: schema.Attribute([]byte("shoalScramMissing"))}
	return func(e *dirstore.Entry) {
		if len(e.Get("userPassword")) == 0 {
			e.Set(missing)
			return
		}
		if c, err := schema.CheckClasses(e.Get("objectClass")); err != nil || !c.Allows(missing.Type) {
			e.Set(missing) // not an account
			return
		}
		if _, ok := scram.Find(scram.SHA256, e.Get("authPassword")); ok {
			e.Set(missing)
			return
		}
		e.Set(missing, []byte(domainOf(schema, e.DN)))
	}
}

// domainOf is the domain that an account's name lies under, "." for none.
func domainOf(schema *dirschema.Schema, dn string) string {
	name, err := schema.ParseDN([]byte(dn))
	if err != nil {
		return "."
	}
	for _, rdn := range name {
		for _, ava := range rdn {
			if ava.Type != nil && ava.Type.Name() == "associatedDomain" {
				return string(bytes.ToLower(ava.Value))
			}
		}
	}
	return "."
}

// prepareScram makes cn=scram, after it has looked through the accounts that an older version left. It runs beside
// the service, on the master only.
func (v *vault) prepareScram(ctx context.Context, c *Config) {
	if err := v.makeScram(ctx, c); err != nil && ctx.Err() == nil {
		v.env.Log.Error("SCRAM is not offered: accounts could not be looked through", "error", err)
	}
}

func (v *vault) makeScram(ctx context.Context, c *Config) error {
	if err := v.gate(ctx, false); err != nil {
		return err
	}
	key := make([]byte, 32)
	_, _ = rand.Read(key) // never fails: it ends the process instead
	text := []byte(scram.FakeKey(key, c.Password.ScramIterations))
	dn := []byte(scramDN(c.Suffix))
	norm, err := v.store.CheckDN(dn)
	if err != nil {
		return err
	}
	old, exists, err := v.storedScramKey(norm)
	if err != nil {
		return err
	}
	if exists {
		if k, n, err := scram.ParseFakeKey(old); err == nil {
			if n == c.Password.ScramIterations {
				return nil
			}
			text = []byte(scram.FakeKey(k, c.Password.ScramIterations))
		}
		return v.store.Do(c.RootDN(), &dirstore.Modify{DN: dn, Changes: []ldapwire.Change{
			{Op: ldapwire.ChangeReplace, Attribute: ldapwire.Attribute{Type: []byte("shoalScramKey"), Values: [][]byte{text}}}}})
	}
	if err := v.markAccounts(ctx, c); err != nil {
		return err
	}
	value := func(name string, values ...string) ldapwire.Attribute {
		a := ldapwire.Attribute{Type: []byte(name)}
		for _, s := range values {
			a.Values = append(a.Values, []byte(s))
		}
		return a
	}
	return v.store.Do(c.RootDN(), &dirstore.Add{DN: dn, Attributes: []ldapwire.Attribute{value("objectClass", "shoalScram"),
		value("cn", "scram"), value("description", "Accounts are marked that have no SCRAM verifiers yet"), value("shoalScramKey", string(text))}})
}

func (v *vault) storedScramKey(norm []byte) (text string, exists bool, err error) {
	r, err := v.store.Read()
	if err != nil {
		return "", false, err
	}
	defer r.Close()
	id, err := r.Resolve(norm)
	var e *ldapwire.Error
	if errors.As(err, &e) && e.Code == ldapwire.NoSuchObject {
		return "", false, nil
	}
	if err != nil {
		return "", false, err
	}
	f, ok, err := r.Get(id)
	if !ok || err != nil {
		return "", false, err
	}
	return r.Value(&f, "shoalScramKey"), true, nil
}

// markAccounts writes shoalScramMissing where it is missing.
func (v *vault) markAccounts(ctx context.Context, c *Config) error {
	base, err := v.store.CheckDN([]byte(c.Suffix))
	if err != nil {
		return err
	}
	filter := ldapwire.Filter{Nodes: []ldapwire.Node{{Op: ldapwire.Equality, End: 1, Attr: []byte("objectClass"), Value: []byte("shoalAccount")}}}
	compiled := v.store.Compile(&filter, nil)
	var plan dirstore.Search
	started, marked := false, 0
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		var names []string
		more, err := func() (bool, error) {
			r, err := v.store.Read()
			if err != nil {
				return false, err
			}
			defer r.Close()
			if !started {
				if err := r.Start(&plan, base, ldapwire.WholeSubtree, compiled); err != nil {
					return false, err
				}
				started = true
			}
			for range 1000 {
				f, ok, more, err := r.Next(&plan, 1000)
				if err != nil || !ok {
					return more, err
				}
				if r.Value(&f, "userPassword") == "" || r.Value(&f, "shoalScramMissing") != "" || r.Value(&f, "authPassword") != "" {
					continue
				}
				dn, err := r.DN(nil, &f)
				if err != nil {
					return false, err
				}
				names = append(names, string(dn))
			}
			return true, nil
		}()
		if err != nil {
			return err
		}
		var writes []*dirstore.Write
		for _, dn := range names {
			w := &dirstore.Write{By: c.RootDN(), Op: &dirstore.Modify{DN: []byte(dn)}} // maintain does it
			v.store.Submit(w)
			writes = append(writes, w)
		}
		for i, w := range writes {
			var e *ldapwire.Error
			if err := w.Wait(); err != nil && !(errors.As(err, &e) && e.Code == ldapwire.NoSuchObject) {
				return fmt.Errorf("mark %s: %w", names[i], err)
			}
		}
		marked += len(names)
		if !more {
			if marked > 0 {
				v.env.Log.Info("accounts marked that have no SCRAM verifiers yet: they get them at their next login", "accounts", marked)
			}
			return nil
		}
	}
}
