package vaultd

import (
	"bytes"
	"math/big"

	"shoal/daemons/internal/dirschema"
	"shoal/daemons/internal/dirstore"
	"shoal/daemons/internal/ldapsession"
	"shoal/daemons/internal/ldapwire"
)

// The access rule of this version. It is fixed; docs/directory.md tells it.
//
//	anonymous                                     root DSE, subschema
//	root DN                                       reads and writes everything, without limits
//	cn=<server>,ou=servers,ou=config,<suffix>     reads everything
//	                                              and changes shoalVersion and shoalAddress of itself
//	the same, with shoalRole vault                and gets passwords when it replicates
//	                                              and, of every entry, keeps what was seen of failed logins
//	the same, with shoalRole enrol                and, of other servers, sets the password and takes
//	                                              tokens of enrolment away
//	the same, with shoalRole box or switch        and takes values of shoalMigrating away; with the value "password" it sets
//	                                              the account's password; adds accounts without one below a domain whose
//	                                              shoalMigrationCreate is TRUE; gets authPassword where a search names it
//	the same, with shoalRole box, switch or       and changes shoalLastLogin of any entry; webmail: and shoalTokenKey
//	webmail                                       of itself
//	app passwords                                 nothing: they bind, and that is all
//	every other entry that has a password         reads and compares itself
//	everybody                                     never reads, matches or compares userPassword and pwdHistory,
//	                                              and but for boxes and switches authPassword and shoalScramKey

func rights(s *dirstore.Store) func(*dirstore.Reader, *dirstore.Found, []byte) ldapsession.Rights {
	servers, err := s.CheckDN([]byte(serversDN(s.Suffix())))
	if err != nil {
		panic(err) // the suffix was parsed when the store was opened
	}
	servers = append([]byte(","), servers...)
	return func(r *dirstore.Reader, entry *dirstore.Found, norm []byte) ldapsession.Rights {
		if entry == nil {
			return ldapsession.Rights{ReadSelf: true, ReadAll: true, Write: true, NoLimits: true, Secrets: true, Proxy: true}
		}
		rdn, below := bytes.CutSuffix(norm, servers)
		if !below || !bytes.HasPrefix(rdn, []byte("cn=")) || bytes.ContainsRune(rdn, ',') {
			if isAppPassword(norm) {
				return ldapsession.Rights{KeepPassword: true}
			}
			return ldapsession.Rights{ReadSelf: true}
		}
		vault, enrol, serves, webmail := false, false, false, false
		r.Values(entry, "shoalRole", func(v []byte) bool {
			vault = vault || bytes.EqualFold(v, []byte("vault"))
			enrol = enrol || bytes.EqualFold(v, []byte("enrol"))
			serves = serves || bytes.EqualFold(v, []byte("box")) || bytes.EqualFold(v, []byte("switch"))
			webmail = webmail || bytes.EqualFold(v, []byte("webmail"))
			return true
		})
		self := bytes.Clone(norm)
		modify := func(target []byte, changes []ldapwire.Change) bool {
			if bytes.Equal(target, self) {
				return all(changes, func(c *ldapwire.Change) bool {
					return isOneOf(s.Schema(), c.Type, "shoalVersion", "shoalAddress") || webmail && isOneOf(s.Schema(), c.Type, "shoalTokenKey")
				})
			}
			if (serves || webmail) && all(changes, notesLogin(s.Schema())) {
				return true
			}
			if serves && migrates(s.Schema(), changes) {
				return true
			}
			if vault && all(changes, func(c *ldapwire.Change) bool {
				return isOneOf(s.Schema(), c.Type, "pwdFailureTime", "pwdAccountLockedTime", "pwdGraceUseTime")
			}) {
				return true
			}
			rdn, below := bytes.CutSuffix(target, servers)
			return enrol && below && !bytes.ContainsRune(rdn, ',') && all(changes, enrols(s.Schema()))
		}
		rights := ldapsession.Rights{ReadSelf: true, ReadAll: true, Secrets: vault, NoLimits: vault, Modify: modify,
			Verifiers: serves, OwnPasswords: true}
		if serves {
			rights.Add = func(norm []byte, list []ldapwire.Attribute) bool { return mayCreate(s, norm, list) }
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

// enrols says whether a change is one of those that enrolling a server takes: its password is replaced, tokens that
// are named are taken away.
func enrols(schema *dirschema.Schema) func(*ldapwire.Change) bool {
	return func(c *ldapwire.Change) bool {
		switch c.Op {
		case ldapwire.ChangeReplace:
			return isOneOf(schema, c.Type, "userPassword") && len(c.Values) == 1
		case ldapwire.ChangeDelete:
			return isOneOf(schema, c.Type, "shoalEnrolToken") && len(c.Values) > 0
		}
		return false
	}
}

// all says whether every change is allowed, and there is one.
func all(changes []ldapwire.Change, allowed func(*ldapwire.Change) bool) bool {
	for i := range changes {
		if !allowed(&changes[i]) {
			return false
		}
	}
	return len(changes) > 0
}

// isOneOf says whether an attribute description, by any of its names or its number, is one of these types, without
// options.
func isOneOf(schema *dirschema.Schema, description []byte, names ...string) bool {
	t := schema.Attribute(description) // nil for what has options
	for _, name := range names {
		if t != nil && t == schema.Attribute([]byte(name)) {
			return true
		}
	}
	return false
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
