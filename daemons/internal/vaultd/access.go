package vaultd

import (
	"bytes"
	"log/slog"
	"math/big"
	"slices"

	"shoal/daemons/internal/access"
	"shoal/daemons/internal/dirschema"
	"shoal/daemons/internal/dirstore"
	"shoal/daemons/internal/ldapsession"
)

// rights makes what identities may do: package access decides, but for the root DN, who is asked nothing.
func rights(e *access.Engine, log *slog.Logger) func(*dirstore.Reader, *dirstore.Found, []byte) ldapsession.Rights {
	return func(r *dirstore.Reader, entry *dirstore.Found, norm []byte) ldapsession.Rights {
		if entry == nil && len(norm) > 0 {
			return ldapsession.Rights{ReadSelf: true, ReadAll: true, Write: true, NoLimits: true, Secrets: true, Proxy: true}
		}
		v, err := e.View(r, entry, norm)
		if err != nil {
			log.Error("directory: the rules of access cannot be read: nothing is allowed", "error", err)
			return ldapsession.Rights{KeepPassword: true}
		}
		vault := slices.Contains(v.Roles, "vault")
		rights := ldapsession.Rights{View: v, NoLimits: vault, Secrets: vault, OwnPasswords: len(v.Roles) > 0}
		if vault && entry != nil {
			rights.Content, rights.ContentError = r.Content(entry)
		}
		return rights
	}
}

// unruled says whose passwords no policy rules: servers' and app passwords, which machines keep and nobody types.
func unruled(s *dirstore.Store) func(norm []byte) bool {
	servers, err := s.CheckDN([]byte(serversDN(s.Suffix())))
	if err != nil {
		panic(err) // the suffix was parsed when the store was opened
	}
	servers = append([]byte(","), servers...)
	return func(norm []byte) bool { return bytes.HasSuffix(norm, servers) || isAppPassword(norm) }
}

// maintain moves shoalCredentialVersion with each change of an account's password, so that caches of
// verified passwords notice. Who writes both decides the version himself.
func maintain(schema *dirschema.Schema) func(old, entry *dirstore.Entry) {
	version := dirschema.Description{Type: schema.Attribute([]byte("shoalCredentialVersion"))}
	migrating := dirschema.Description{Type: schema.Attribute([]byte("shoalMigrating"))}
	account := schema.Class([]byte("shoalAccount"))
	mark := markScram(schema)
	return func(old, e *dirstore.Entry) {
		is := false
		for _, v := range e.Get("objectClass") {
			is = is || schema.Class(v) == account
		}
		if !is {
			return
		}
		mark(e)
		have := e.Get(version.String())
		if old == nil {
			if len(have) == 0 {
				e.Set(version, []byte("1"))
			}
			return
		}
		if e.Rehashed || same(old.Get("userPassword"), e.Get("userPassword")) {
			return
		}
		// Whatever password the old server knows, the account has one of its own now.
		e.Set(migrating, without(e.Get(migrating.String()), "password")...)
		if !same(old.Get(version.String()), have) {
			return
		}
		n := new(big.Int)
		if len(have) > 0 {
			n.SetString(string(have[0]), 10)
		}
		e.Set(version, []byte(n.Add(n, big.NewInt(1)).String()))
	}
}

func same(a, b [][]byte) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if !bytes.Equal(a[i], b[i]) {
			return false
		}
	}
	return true
}

func without(values [][]byte, what string) (out [][]byte) {
	for _, v := range values {
		if !bytes.EqualFold(v, []byte(what)) {
			out = append(out, v)
		}
	}
	return out
}

// isAppPassword says whether a normal name may be that of an app password: directly below an account.
func isAppPassword(norm []byte) bool {
	rdn, account, ok := bytes.Cut(norm, []byte(","))
	return ok && bytes.HasPrefix(rdn, []byte("cn=")) && bytes.HasPrefix(account, []byte("uid="))
}
