package vaultd

import (
	"bytes"

	"shoal/daemons/internal/dirschema"
	"shoal/daemons/internal/dirstore"
	"shoal/daemons/internal/ldapwire"
)

// What servers may write for the migration of a domain (package migrate).

// migrates says whether changes take named values of shoalMigrating away and, if "password" is one of them, set the password
// beside: the update fails as a whole where the account does not have the value, so that each account's password is
// taken from the old server once.
func migrates(schema *dirschema.Schema, changes []ldapwire.Change) bool {
	password, set := false, false
	for i := range changes {
		c := &changes[i]
		switch {
		case c.Op == ldapwire.ChangeDelete && isOneOf(schema, c.Type, "shoalMigrating") && len(c.Values) > 0:
			for _, v := range c.Values {
				password = password || bytes.EqualFold(v, []byte("password"))
			}
		case c.Op == ldapwire.ChangeReplace && isOneOf(schema, c.Type, "userPassword") && len(c.Values) == 1:
			set = true
		default:
			return false
		}
	}
	return len(changes) > 0 && (password || !set)
}

// mayCreate says whether a server may add an entry: an account that has no password yet and still gets it from the old server, directly
// below a domain whose migration makes accounts.
func mayCreate(s *dirstore.Store, norm []byte, list []ldapwire.Attribute) bool {
	account, password := false, false
	for i := range list {
		a := &list[i]
		switch {
		case isOneOf(s.Schema(), a.Type, "userPassword"):
			return false
		case isOneOf(s.Schema(), a.Type, "objectClass"):
			account = has(a.Values, "shoalAccount")
		case isOneOf(s.Schema(), a.Type, "shoalMigrating"):
			password = has(a.Values, "password")
		}
	}
	_, domain, ok := bytes.Cut(norm, []byte(","))
	if !account || !password || !ok || !bytes.HasPrefix(norm, []byte("uid=")) {
		return false
	}
	r, err := s.Read()
	if err != nil {
		return false
	}
	defer r.Close()
	id, err := r.Resolve(domain)
	if err != nil {
		return false
	}
	f, ok, err := r.Get(id)
	return err == nil && ok && r.Value(&f, "shoalMigrationCreate") == "TRUE"
}

func has(values [][]byte, want string) bool {
	for _, v := range values {
		if bytes.EqualFold(v, []byte(want)) {
			return true
		}
	}
	return false
}

func without(values [][]byte, what string) (out [][]byte) {
	for _, v := range values {
		if !bytes.EqualFold(v, []byte(what)) {
			out = append(out, v)
		}
	}
	return out
}
