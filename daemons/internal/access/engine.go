package access

import (
	"bytes"
	"errors"
	"log/slog"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"

	"shoal/daemons/internal/dirschema"
	"shoal/daemons/internal/dirstore"
	"shoal/daemons/internal/ldapwire"
)

// Attribute is the attribute that holds rules; AdministratorAttribute names who administers a domain, WhitePagesAttribute says
// whether its accounts see each other.
const (
	Attribute              = "shoalAccess"
	AdministratorAttribute = "shoalAdministrator"
	WhitePagesAttribute    = "shoalWhitePages"
)

// Watch are the attributes that decisions are made from, beside those of the entry itself: a store must watch them.
var Watch = []string{Attribute, AdministratorAttribute, WhitePagesAttribute, "shoalRole", "member", "uniqueMember"}

// maxRules bounds the rules in the directory; more deny everything.
const maxRules = 2000

// Part says where a rule comes from.
type Part uint8

// Parts, in the order in which they are asked.
const (
	ServicePart Part = iota
	DirectoryPart
	DefaultPart
)

func (p Part) String() string { return [...]string{"service", "directory", "default"}[p] }

// Placed is a rule where it stands.
type Placed struct {
	*Rule
	Part   Part
	Holder string // DN of its entry; "" for those of the program
	Broken error  // it denies everything
	holder []byte
	depth  int
}

// ruleset are the rules as of one state of what is watched.
type ruleset struct {
	watched uint64
	rules   []*Placed
	broken  int

	mu             sync.Mutex
	groups         map[string]map[string]bool // by normal name: members
	shapes         map[string]*shape
	administrators map[string][]string // of a normal name, the domains that it administers
	adminGroups    []string
}

// Engine decides for one directory. Its methods may be called from any goroutine.
type Engine struct {
	store    *dirstore.Store
	log      *slog.Logger
	lang     *Language
	root     []byte
	suffix   []byte
	servers  []byte
	domains  []byte
	service  []*Rule
	defaults []*Rule
	loading  sync.Mutex
	now      atomic.Pointer[ruleset]
	broken   atomic.Int64
}

// New makes an engine. rootDN is whom nothing is denied.
func New(store *dirstore.Store, rootDN string, log *slog.Logger) (*Engine, error) {
	e := &Engine{store: store, log: log, lang: &Language{Schema: store.Schema(), Compile: func(f *ldapwire.Filter) *dirstore.Filter {
		return store.Compile(f, nil)
	}}}
	for _, n := range []struct {
		to *[]byte
		dn string
	}{{&e.root, rootDN}, {&e.suffix, store.Suffix()}, {&e.servers, "ou=servers,ou=config," + store.Suffix()}, {&e.domains, "ou=domains," + store.Suffix()}} {
		norm, err := store.CheckDN([]byte(n.dn))
		if err != nil {
			return nil, err
		}
		*n.to = norm
	}
	e.service = builtin(e.lang, store.Suffix(), serviceRules)
	e.defaults = builtin(e.lang, store.Suffix(), defaultRules)
	return e, nil
}

// Check refuses an entry whose rules cannot be read, or stand twice at the same number. It is for dirstore.Options.Check.
func Check(schema *dirschema.Schema) func(*dirstore.Entry) error {
	lang := &Language{Schema: schema}
	return func(e *dirstore.Entry) error {
		numbers := map[int]bool{}
		for _, v := range e.Get(Attribute) {
			r, err := lang.Parse(string(v))
			if err != nil {
				return ldapwire.Errorf(ldapwire.ConstraintViolation, "%s %.60q: %v", Attribute, v, err)
			}
			if numbers[r.Number] {
				return ldapwire.Errorf(ldapwire.ConstraintViolation, "%s: the entry has two rules with the number %d", Attribute, r.Number)
			}
			numbers[r.Number] = true
			if r.place != nil {
				name, err := schema.ParseDN([]byte(e.DN))
				if err != nil {
					continue
				}
				if norm, err := name.AppendNormal(nil); err == nil && !under(r.place.norm, norm) {
					return ldapwire.Errorf(ldapwire.ConstraintViolation, "%s {%d}: %s is not under the entry of the rule, which is about nothing else", Attribute, r.Number, r.place.norm)
				}
			}
		}
		return nil
	}
}

// Watched is what Views depend on: one made before it moved is outdated.
func (e *Engine) Watched() uint64 { return e.store.Watched() }

// Broken is how many rules in the directory cannot be read here.
func (e *Engine) Broken() int64 { return e.broken.Load() }

// rules gives the rules as a Reader sees them.
func (e *Engine) rules(r *dirstore.Reader) (*ruleset, error) {
	watched := r.Watched()
	if s := e.now.Load(); s != nil && s.watched >= watched {
		return s, nil
	}
	e.loading.Lock()
	defer e.loading.Unlock()
	if s := e.now.Load(); s != nil && s.watched >= watched {
		return s, nil
	}
	s := &ruleset{watched: watched, groups: map[string]map[string]bool{}, shapes: map[string]*shape{}, administrators: map[string][]string{}}
	for _, rule := range e.service {
		s.rules = append(s.rules, &Placed{Rule: rule, Part: ServicePart})
	}
	var list []*Placed
	err := e.each(r, Attribute, func(f *dirstore.Found, dn string, norm []byte) {
		r.Values(f, Attribute, func(v []byte) bool {
			p := &Placed{Part: DirectoryPart, Holder: dn, holder: norm, depth: bytes.Count(norm, []byte(","))}
			rule, err := e.lang.Parse(string(v))
			if len(list) >= maxRules {
				err = errors.New("there are too many rules")
			}
			if err != nil {
				s.broken++
				p.Broken = err
				rule = &Rule{Text: string(v)}
				var where *Error
				if errors.As(err, &where) {
					rule.Number = where.Number
				}
			}
			p.Rule = rule
			list = append(list, p)
			return true
		})
	})
	if err != nil {
		return nil, err
	}
	slices.SortStableFunc(list, func(a, b *Placed) int {
		switch {
		case a.depth != b.depth:
			return b.depth - a.depth
		case a.Holder != b.Holder:
			return strings.Compare(a.Holder, b.Holder)
		}
		return a.Number - b.Number
	})
	s.rules = append(s.rules, list...)
	for _, rule := range e.defaults {
		s.rules = append(s.rules, &Placed{Rule: rule, Part: DefaultPart})
	}
	if err := e.loadAdministrators(r, s); err != nil {
		return nil, err
	}
	if s.broken > 0 && e.broken.Load() != int64(s.broken) {
		for _, p := range list {
			if p.Broken != nil {
				e.log.Error("directory: a rule of access cannot be read here: it denies everything below its entry", "entry", p.Holder, "rule", p.Text, "error", p.Broken)
			}
		}
	}
	e.broken.Store(int64(s.broken))
	e.now.Store(s)
	return s, nil
}

// each calls fn with every entry that has an attribute.
func (e *Engine) each(r *dirstore.Reader, attribute string, fn func(f *dirstore.Found, dn string, norm []byte)) error {
	f := ldapwire.Filter{Nodes: []ldapwire.Node{{Op: ldapwire.Present, End: 1, Attr: []byte(attribute)}}}
	var plan dirstore.Search
	err := r.Start(&plan, e.suffix, ldapwire.WholeSubtree, e.store.Compile(&f, nil))
	var none *ldapwire.Error
	if errors.As(err, &none) && none.Code == ldapwire.NoSuchObject {
		return nil // an empty directory
	}
	if err != nil {
		return err
	}
	for {
		found, ok, more, err := r.Next(&plan, 1000)
		if err != nil {
			return err
		}
		if !ok {
			if more {
				continue
			}
			return nil
		}
		dn, err := r.DN(nil, &found)
		if err != nil {
			return err
		}
		norm, err := e.store.CheckDN(dn)
		if err != nil {
			return err
		}
		fn(&found, string(dn), norm)
	}
}

func (e *Engine) loadAdministrators(r *dirstore.Reader, s *ruleset) error {
	err := e.each(r, AdministratorAttribute, func(f *dirstore.Found, _ string, norm []byte) {
		if i := bytes.IndexByte(norm, ','); i < 0 || !bytes.Equal(norm[i+1:], e.domains) {
			return // only that of a domain counts
		}
		r.Values(f, AdministratorAttribute, func(v []byte) bool {
			if who, err := e.store.CheckDN(v); err == nil {
				s.administrators[string(who)] = append(s.administrators[string(who)], string(norm))
			}
			return true
		})
	})
	for who := range s.administrators {
		if e.members(r, s, who) != nil {
			s.adminGroups = append(s.adminGroups, who)
		}
	}
	return err
}

// members are those of a group; nil if it is none.
func (e *Engine) members(r *dirstore.Reader, s *ruleset, group string) map[string]bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if m, known := s.groups[group]; known {
		return m
	}
	var m map[string]bool
	if id, err := r.Resolve([]byte(group)); err == nil {
		if f, ok, err := r.Get(id); ok && err == nil {
			for _, attribute := range []string{"member", "uniqueMember"} {
				r.Values(&f, attribute, func(v []byte) bool {
					if m == nil {
						m = map[string]bool{}
					}
					if norm, err := e.store.CheckDN(v); err == nil {
						m[string(norm)] = true
					}
					return true
				})
			}
		}
	}
	s.groups[group] = m
	return m
}

// administers are the domains that a name administers, itself or by a group.
func (e *Engine) administers(r *dirstore.Reader, s *ruleset, norm string) []string {
	out := slices.Clone(s.administrators[norm])
	for _, group := range s.adminGroups {
		if e.members(r, s, group)[norm] {
			out = append(out, s.administrators[group]...)
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// domainOf is the domain that an entry belongs to, by its normal name; nil if it belongs to none.
func (e *Engine) domainOf(norm []byte) []byte {
	if len(norm) <= len(e.domains) || !under(norm, e.domains) {
		return nil
	}
	rest := norm[:len(norm)-len(e.domains)-1]
	return norm[bytes.LastIndexByte(rest, ',')+1:]
}

// isServer reports whether a name is that of a server.
func (e *Engine) isServer(norm []byte) bool {
	i := bytes.IndexByte(norm, ',')
	return i >= 0 && bytes.Equal(norm[i+1:], e.servers) && bytes.HasPrefix(norm, []byte("cn="))
}

// isAppPassword reports whether a name may be that of an app password: directly below an account. Such an identity is
// nobody: what is bound as it only wanted to know whether the password is right.
func isAppPassword(norm []byte) bool {
	rdn, account, ok := bytes.Cut(norm, []byte(","))
	return ok && bytes.HasPrefix(rdn, []byte("cn=")) && bytes.HasPrefix(account, []byte("uid="))
}

// View makes the view of an identity by its entry and normal name; none of both for anonymous.
func (e *Engine) View(r *dirstore.Reader, f *dirstore.Found, norm []byte) (*View, error) {
	rules, err := e.rules(r)
	if err != nil {
		return nil, err
	}
	v := &View{engine: e, rules: rules}
	if f == nil || isAppPassword(norm) {
		v.Anonymous = true
		v.shape, err = e.shape(r, v)
		return v, err
	}
	v.entry, v.norm = f.ID, bytes.Clone(norm)
	if e.isServer(norm) {
		r.Values(f, "shoalRole", func(role []byte) bool {
			v.Roles = append(v.Roles, strings.ToLower(string(role)))
			return true
		})
		slices.Sort(v.Roles)
	}
	v.Administers = e.administers(r, rules, string(norm))
	if v.domain = e.domainOf(v.norm); v.domain != nil {
		if id, err := r.Resolve(v.domain); err == nil {
			if d, ok, err := r.Get(id); ok && err == nil {
				v.White = strings.EqualFold(r.Value(&d, WhitePagesAttribute), "TRUE") && r.Value(f, "shoalAccountId") != ""
			}
		}
	}
	v.shape, err = e.shape(r, v)
	return v, err
}

// holds decides a condition that does not depend on the entry.
func (e *Engine) holds(r *dirstore.Reader, v *View, c *condition) bool {
	switch c.kind {
	case everybody:
		return true
	case anonymous:
		return v.Anonymous
	case users:
		return !v.Anonymous
	case named:
		return !v.Anonymous && c.place.holds(v.norm)
	case member:
		return !v.Anonymous && e.members(r, v.rules, string(c.norm))[string(v.norm)]
	case role:
		for _, have := range v.Roles {
			if slices.Contains(c.roles, have) || slices.Contains(c.roles, "*") {
				return true
			}
		}
		return false
	case administrators:
		return len(v.Administers) > 0
	case colleagues:
		return v.White
	case sameDomain:
		return v.domain != nil
	}
	return !v.Anonymous
}

// shape finds or makes what all identities share for which the same conditions hold.
func (e *Engine) shape(r *dirstore.Reader, v *View) (*shape, error) {
	var sign []byte
	s := &shape{grants: map[string]*grant{}}
	for i, p := range v.rules.rules {
		n := reduced{Placed: p}
		closed := false
		for j := range p.clauses {
			c := &p.clauses[j]
			var left []conditionKind
			held := true
			for k := range c.who {
				if held = held && e.holds(r, v, &c.who[k]); held && c.who[k].dynamic() {
					left = append(left, c.who[k].kind)
				}
			}
			if !held || closed {
				continue
			}
			sign = strconv.AppendInt(strconv.AppendInt(append(sign, ','), int64(i), 36), int64(j), 36)
			sign = append(sign, ';')
			n.clauses = append(n.clauses, remaining{c, left})
			closed = len(left) == 0
		}
		if p.Part == ServicePart && len(n.clauses) == 0 {
			continue
		}
		s.rules = append(s.rules, n)
	}
	v.rules.mu.Lock()
	defer v.rules.mu.Unlock()
	if have := v.rules.shapes[string(sign)]; have != nil {
		return have, nil
	}
	s.summarize()
	if len(v.rules.shapes) >= maxShapes {
		clear(v.rules.shapes)
	}
	v.rules.shapes[string(sign)] = s
	return s, nil
}

const (
	maxShapes = 1024
	maxGrants = 4096
)
