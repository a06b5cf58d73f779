package access

import (
	"bytes"

	"shoal/daemons/internal/dirschema"
	"shoal/daemons/internal/dirstore"
)

// scope says which entries a name stands for.
type scope uint8

const (
	scopeBase scope = iota
	scopeOne
	scopeSubtree
	scopeChildren
)

var scopeWords = map[string]scope{"": scopeBase, "base": scopeBase, "exact": scopeBase, "one": scopeOne, "subtree": scopeSubtree, "children": scopeChildren}

// place is a name with a scope.
type place struct {
	scope         scope
	norm          []byte
	parent, first []byte // of norm
}

func newPlace(s scope, norm []byte) *place {
	p := &place{scope: s, norm: norm, first: norm}
	if i := bytes.IndexByte(norm, ','); i >= 0 {
		p.first, p.parent = norm[:i], norm[i+1:]
	}
	return p
}

// holds reports whether a name in normal form is in the place.
func (p *place) holds(norm []byte) bool {
	switch p.scope {
	case scopeBase:
		return bytes.Equal(norm, p.norm)
	case scopeOne:
		i := bytes.IndexByte(norm, ',')
		return i >= 0 && bytes.Equal(norm[i+1:], p.norm)
	case scopeSubtree:
		return under(norm, p.norm)
	}
	return len(norm) > len(p.norm) && under(norm, p.norm)
}

// under reports whether a name, in normal form, is top or lies under it.
func under(name, top []byte) bool {
	return bytes.HasSuffix(name, top) && (len(name) == len(top) || len(top) == 0 || name[len(name)-len(top)-1] == ',')
}

// conditionKind is a kind of condition of a "by".
type conditionKind uint8

const (
	everybody conditionKind = iota
	anonymous
	users
	named // dn
	member
	role
	// what follows depends on the entry, too
	self
	sameDomain
	colleagues
	administrators
)

var conditionWords = map[string]conditionKind{"*": everybody, "anonymous": anonymous, "users": users, "self": self,
	"domain": sameDomain, "colleagues": colleagues, "administrators": administrators}

type condition struct {
	kind  conditionKind
	place *place // of named
	norm  []byte // of member: the group
	roles []string
}

func (c *condition) dynamic() bool { return c.kind >= self }

// clause is a "by" of a rule.
type clause struct {
	who    []condition
	rights Rights
	goesOn bool // break
	text   string
}

// Rule is a rule that was read.
type Rule struct {
	Number  int
	Text    string
	place   *place                            // nil: everywhere below its holder
	filter  *dirstore.Filter                  // nil: every entry
	types   map[*dirschema.AttributeType]bool // nil: every attribute
	entry   bool                              // with types: entry is among them
	kids    bool                              // with types: children is
	clauses []clause
}

// covers reports whether the rule is about an attribute; explicit, whether it names it.
func (r *Rule) covers(a *dirschema.AttributeType) (covers, explicit bool) {
	if r.types == nil {
		return true, false
	}
	for t := a; t != nil; t = t.Sup {
		if r.types[t] {
			return true, true
		}
	}
	return false, false
}

func (r *Rule) coversEntry() bool    { return r.types == nil || r.entry }
func (r *Rule) coversChildren() bool { return r.types == nil || r.kids }
