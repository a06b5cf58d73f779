package vaultd

import (
	"bytes"
	"math/big"

	"shoal/daemons/internal/dirschema"
	"shoal/daemons/internal/dirstore"
	"shoal/daemons/internal/ldapsession"
)

// The access rule of this version. It is fixed; docs/directory.md tells it.
//
//	anonymous                                     root DSE, subschema
//	root DN                                       reads and writes everything, without limits
//	cn=<server>,ou=servers,ou=config,<suffix>     reads everything
//	the same, with shoalRole vault                and gets passwords when it replicates
//	every other entry that has a password         reads and compares itself
//	everybody                                     never reads, matches or compares userPassword

func rights(s *dirstore.Store) func(*dirstore.Reader, *dirstore.Found, []byte) ldapsession.Rights {
	servers, err := s.CheckDN([]byte(serversDN(s.Suffix())))
	if err != nil {
		panic(err) // the suffix was parsed when the store was opened
	}
	servers = append([]byte(","), servers...)
	return func(r *dirstore.Reader, entry *dirstore.Found, norm []byte) ldapsession.Rights {
		if entry == nil {
			return ldapsession.Rights{ReadSelf: true, ReadAll: true, Write: true, NoLimits: true, Secrets: true}
		}
		rdn, below := bytes.CutSuffix(norm, servers)
		if !below || !bytes.HasPrefix(rdn, []byte("cn=")) || bytes.ContainsRune(rdn, ',') {
			return ldapsession.Rights{ReadSelf: true}
		}
		vault := false
		r.Values(entry, "shoalRole", func(v []byte) bool {
			vault = vault || bytes.EqualFold(v, []byte("vault"))
			return true
		})
		return ldapsession.Rights{ReadSelf: true, ReadAll: true, Secrets: vault, NoLimits: vault}
	}
}

// maintain moves shoalCredentialVersion with each change of an account's password, so that caches of
// verified passwords notice. Who writes both decides the version himself.
func maintain(schema *dirschema.Schema) func(old, entry *dirstore.Entry) {
	version := dirschema.Description{Type: schema.Attribute([]byte("shoalCredentialVersion"))}
	account := schema.Class([]byte("shoalAccount"))
	return func(old, e *dirstore.Entry) {
		is := false
		for _, v := range e.Get("objectClass") {
			is = is || schema.Class(v) == account
		}
		if !is {
			return
		}
		have := e.Get(version.String())
		if old == nil {
			if len(have) == 0 {
				e.Set(version, []byte("1"))
			}
			return
		}
		if same(old.Get("userPassword"), e.Get("userPassword")) || !same(old.Get(version.String()), have) {
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
