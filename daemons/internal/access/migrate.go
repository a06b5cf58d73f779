package access

import (
	"bytes"

	"shoal/daemons/internal/dirschema"
	"shoal/daemons/internal/dirstore"
	"shoal/daemons/internal/ldapwire"
)

// What the right "migrate" is: servers take accounts over from an old server (package migrate).

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
func (v *View) mayCreate(r *dirstore.Reader, g *grant, f *dirstore.Found, list []ldapwire.Attribute) bool {
	if g.entry&Migrate == 0 {
		return false
	}
	schema := v.engine.store.Schema()
	account, password := false, false
	for i := range list {
		a := &list[i]
		switch {
		case isOneOf(schema, a.Type, "userPassword", "authPassword", Attribute, AdministratorAttribute):
			return false
		case isOneOf(schema, a.Type, "objectClass"):
			account = has(a.Values, "shoalAccount")
		case isOneOf(schema, a.Type, "shoalMigrating"):
			password = has(a.Values, "password")
		}
	}
	s, err := v.subject(r, f)
	if err != nil || s.name() != nil || !account || !password || !bytes.HasPrefix(s.norm, []byte("uid=")) {
		return false
	}
	id, err := r.Resolve(s.parent)
	if err != nil {
		return false
	}
	d, ok, err := r.Get(id)
	return err == nil && ok && r.Value(&d, "shoalMigrationCreate") == "TRUE"
}

func has(values [][]byte, want string) bool {
	for _, v := range values {
		if bytes.EqualFold(v, []byte(want)) {
			return true
		}
	}
	return false
}
