package access

import (
	"bytes"
	"math/big"
	"slices"
	"strings"

	"shoal/daemons/internal/dirstore"
	"shoal/daemons/internal/ldapwire"
)

// The bounds of an administrator of a domain, beside the attributes that the rules give him:
//
//   - what he makes is an account, an alias, a group of names or an app password, and nothing else by any auxiliary class
//   - addresses lie in the domain that the entry lies under
//   - an account keeps its shoalAccountId; a new one has an id that no other account has, a random UUID, so that nobody gets at
//     the mail of another account or of one that is gone
//   - a new account lies on the default volume of the domain, if that has one
//   - quotas are at most shoalQuotaLimit of the domain, if that is set
//   - whoever has rights of his own that the administrator has not (administrator of another domain, somebody whom a rule in the
//     directory names, by name or group) is not changed, removed or made: by his password one would have his rights

// administeredClasses are those that entries may have.
var administeredClasses = []string{"top", "person", "organizationalPerson", "inetOrgPerson", "inetLocalMailRecipient", "shoalAccount", "shoalAlias",
	"groupOfNames", "shoalAppPassword"}

func beyond(format string, args ...any) error {
	return ldapwire.Errorf(ldapwire.InsufficientAccessRights, "an administrator of the domain: "+format, args...)
}

// bounds asks about an entry as it will be, under this normal name; old is nil for a new one.
func (p Permit) bounds(r *dirstore.Reader, norm []byte, old, e *dirstore.Entry) error {
	domain := p.engine.domainOf(norm)
	if domain == nil || !slices.Contains(p.Administers, string(domain)) {
		return errDenied
	}
	if bytes.Equal(norm, domain) { // the domain itself: the rules say which attributes
		return nil
	}
	if err := p.privileged(r, norm); err != nil {
		return err
	}
	schema := p.engine.store.Schema()
	account := false
	for _, v := range e.Get("objectClass") {
		c := schema.Class(v)
		if c == nil || !slices.Contains(administeredClasses, c.Name()) {
			return beyond("an entry of class %.40q", v)
		}
		account = account || c.Name() == "shoalAccount"
	}
	d, err := p.domainEntry(r, domain)
	if err != nil {
		return err
	}
	var names []string
	r.Values(d, "associatedDomain", func(v []byte) bool {
		names = append(names, strings.ToLower(string(v)))
		return true
	})
	for _, attribute := range []string{"mail", "mailLocalAddress"} {
		for _, v := range e.Get(attribute) {
			if was := old; was != nil && slices.ContainsFunc(was.Get(attribute), func(o []byte) bool { return bytes.Equal(o, v) }) && under([]byte(norm), domain) && p.sameDomain(old, domain) {
				continue // an operator gave it
			}
			_, of, at := strings.Cut(strings.ToLower(string(v)), "@")
			if !at || !slices.Contains(names, of) {
				return beyond("the address %.100q is not in the domain", v)
			}
		}
	}
	if err := p.quotas(r, d, old, e, account && old == nil); err != nil {
		return err
	}
	if account && old == nil {
		return p.newAccount(r, d, e)
	}
	return nil
}

// sameDomain reports whether an entry lies under a domain already.
func (p Permit) sameDomain(e *dirstore.Entry, domain []byte) bool {
	norm, err := p.engine.store.CheckDN([]byte(e.DN))
	return err == nil && under(norm, domain)
}

func (p Permit) domainEntry(r *dirstore.Reader, domain []byte) (*dirstore.Found, error) {
	id, err := r.Resolve(domain)
	if err != nil {
		return nil, errDenied
	}
	f, ok, err := r.Get(id)
	if err != nil || !ok {
		return nil, errDenied
	}
	return &f, nil
}

func (p Permit) newAccount(r *dirstore.Reader, d *dirstore.Found, e *dirstore.Entry) error {
	ids := e.Get("shoalAccountId")
	if len(ids) != 1 || !randomUUID(ids[0]) {
		return beyond("shoalAccountId of a new account is a random UUID (RFC 9562, version 4), in lower case")
	}
	f := ldapwire.Filter{Nodes: []ldapwire.Node{{Op: ldapwire.Equality, End: 1, Attr: []byte("shoalAccountId"), Value: ids[0]}}}
	var plan dirstore.Search
	if err := r.Start(&plan, p.engine.suffix, ldapwire.WholeSubtree, p.engine.store.Compile(&f, nil)); err != nil {
		return err
	}
	for more := true; more; {
		_, ok, next, err := r.Next(&plan, 1000)
		if err != nil {
			return err
		}
		if ok {
			return beyond("shoalAccountId is another account's")
		}
		more = next
	}
	if volume := r.Value(d, "shoalDefaultVolume"); volume != "" {
		if v := e.Get("shoalVolumeName"); len(v) != 1 || !strings.EqualFold(string(v[0]), volume) {
			return beyond("a new account lies on volume %s, the domain's", volume)
		}
	}
	return nil
}

// randomUUID = 8 hex "-" 4 hex "-4" 3 hex "-" ( "8" / "9" / "a" / "b" ) 3 hex "-" 12 hex
func randomUUID(v []byte) bool {
	if len(v) != 36 || v[14] != '4' || !bytes.ContainsRune([]byte("89ab"), rune(v[19])) {
		return false
	}
	for i, c := range v {
		dash := i == 8 || i == 13 || i == 18 || i == 23
		if dash != (c == '-') || !dash && !(c >= '0' && c <= '9' || c >= 'a' && c <= 'f') {
			return false
		}
	}
	return true
}

// quotas: an account has at most what the domain's limit says. One without a quota has no limit, so that it must have one
// where there is a limit of the domain.
func (p Permit) quotas(r *dirstore.Reader, d *dirstore.Found, old, e *dirstore.Entry, fresh bool) error {
	most := r.Value(d, "shoalQuotaLimit")
	if most == "" {
		return nil
	}
	limit, ok := new(big.Int).SetString(most, 10)
	if !ok {
		return beyond("shoalQuotaLimit of the domain is no number")
	}
	have := e.Get("shoalQuotaStorage")
	switch {
	case old != nil && slices.EqualFunc(old.Get("shoalQuotaStorage"), have, bytes.Equal):
		return nil // an operator gave it
	case len(have) == 0 && (fresh || old != nil && len(old.Get("shoalQuotaStorage")) > 0):
		return beyond("the domain has shoalQuotaLimit: its accounts have a quota")
	case len(have) == 0:
		return nil
	}
	n, ok := new(big.Int).SetString(string(have[0]), 10)
	if !ok || n.Cmp(limit) > 0 || n.Sign() < 0 {
		return beyond("a quota of %.30q is above shoalQuotaLimit of the domain, %s", have[0], limit)
	}
	return nil
}

// privileged refuses what would give the administrator somebody else's rights.
func (p Permit) privileged(r *dirstore.Reader, norm []byte) error {
	for _, domain := range p.engine.administers(r, p.rules, string(norm)) {
		if !slices.Contains(p.Administers, domain) {
			return beyond("%s administers another domain", norm)
		}
	}
	if bytes.Equal(norm, p.norm) {
		return nil
	}
	for _, rule := range p.rules.rules {
		if rule.Part != DirectoryPart {
			continue
		}
		for i := range rule.clauses {
			for j := range rule.clauses[i].who {
				c := &rule.clauses[i].who[j]
				if rule.clauses[i].rights == 0 {
					continue
				}
				// A name with a scope that holds many stands for all of them alike.
				if c.kind == named && c.place.scope == scopeBase && bytes.Equal(c.place.norm, norm) ||
					c.kind == member && p.engine.members(r, p.rules, string(c.norm))[string(norm)] {
					return beyond("a rule in the directory gives rights to %s", norm)
				}
			}
		}
	}
	// A group that rules or domains name gives rights to whoever is put into it.
	for _, rule := range p.rules.rules {
		for i := range rule.clauses {
			for j := range rule.clauses[i].who {
				if c := &rule.clauses[i].who[j]; c.kind == member && bytes.Equal(c.norm, norm) {
					return beyond("a rule in the directory gives rights to the members of %s", norm)
				}
			}
		}
	}
	if len(p.rules.administrators[string(norm)]) > 0 && !bytes.HasPrefix(norm, []byte("uid=")) {
		return beyond("the members of %s administer a domain", norm)
	}
	return nil
}
