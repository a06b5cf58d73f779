package vaultd

import (
	"bytes"

	"shoal/daemons/internal/dirschema"
	"shoal/daemons/internal/ldapwire"
)

// What servers may write because of logins (package authn): when an account or an app password was last used, and nothing else of them.

// notesLogin says whether a change is a new value of shoalLastLogin.
func notesLogin(schema *dirschema.Schema) func(*ldapwire.Change) bool {
	return func(c *ldapwire.Change) bool {
		return c.Op == ldapwire.ChangeReplace && isOneOf(schema, c.Type, "shoalLastLogin") && len(c.Values) == 1
	}
}

// isAppPassword says whether a normal name may be that of an app password: directly below an account. Such an identity has no rights: what
// is bound as it only wanted to know whether the password is right.
func isAppPassword(norm []byte) bool {
	rdn, account, ok := bytes.Cut(norm, []byte(","))
	return ok && bytes.HasPrefix(rdn, []byte("cn=")) && bytes.HasPrefix(account, []byte("uid="))
}
