package access

import (
	"bytes"
	"sync"

	"shoal/daemons/internal/dirschema"
	"shoal/daemons/internal/dirstore"
)

// View is what one identity may do, as of one state of what is watched.
type View struct {
	Anonymous   bool
	Roles       []string // of a server
	Administers []string // normal names of domains
	White       bool     // its domain has white pages

	engine *Engine
	rules  *ruleset
	shape  *shape
	entry  uint64
	norm   []byte
	domain []byte
}

// shape is what the rules come to for all identities for which the same conditions hold.
type shape struct {
	rules   []reduced
	nothing bool // sees no entry whatever
	own     bool // sees no entry but its own
	all     bool // sees every entry
	follows bool // and gets everything in a synchronization

	mu     sync.RWMutex
	grants map[string]*grant
}

// reduced is a rule with what of its clauses may apply.
type reduced struct {
	*Placed
	clauses []remaining
}

type remaining struct {
	*clause
	left []conditionKind
}

// grant is what an identity may do to an entry of some kind.
type grant struct {
	by       []Rights // by serial number of the type
	entry    Rights
	children Rights
	sight    *dirstore.Sight
}

// summarize finds out what can be said without an entry.
func (s *shape) summarize() {
	s.nothing, s.own = true, true
	for _, p := range s.rules {
		for _, c := range p.clauses {
			if c.rights&Read == 0 || !p.coversEntry() {
				continue
			}
			s.nothing = false
			mine := false
			for _, k := range c.left {
				mine = mine || k == self
			}
			s.own = s.own && mine
			if p.Part == ServicePart && len(c.left) == 0 && p.place == nil && p.filter == nil {
				s.all = true
			}
		}
		for _, c := range p.clauses {
			if p.Part == ServicePart && c.rights&Replicate != 0 && len(c.left) == 0 && p.place == nil {
				s.follows = true
			}
		}
	}
	if s.all {
		return
	}
	// A rule in the directory may show everything to somebody too, if nothing that is asked before it is about entries.
	for _, p := range s.rules {
		if p.Part == ServicePart || !p.coversEntry() {
			continue
		}
		whole := p.Broken == nil && p.place == nil && p.filter == nil && p.depth == 0
		s.all = whole && len(p.clauses) > 0 && len(p.clauses[0].left) == 0 && p.clauses[0].rights&Read != 0 && p.Part == DirectoryPart
		return
	}
}

// subject is an entry that is asked about. Names are made when they are needed.
type subject struct {
	r      *dirstore.Reader
	f      *dirstore.Found
	v      *View
	parent []byte // normal name of the entry above
	norm   []byte // nil: not made yet
}

func (v *View) subject(r *dirstore.Reader, f *dirstore.Found) (s subject, err error) {
	s = subject{r: r, f: f, v: v}
	s.parent, err = r.ParentName(f)
	if err == nil && s.parent == nil { // the suffix, or an entry that is not there yet
		if err = s.name(); err == nil && !bytes.Equal(s.norm, v.engine.suffix) {
			if i := bytes.IndexByte(s.norm, ','); i >= 0 {
				s.parent = s.norm[i+1:]
			}
		}
	}
	return s, err
}

// name makes the normal name of the entry.
func (s *subject) name() error {
	if s.norm != nil {
		return nil
	}
	dn, err := s.r.DN(nil, s.f)
	if err == nil {
		s.norm, err = s.v.engine.store.CheckDN(dn)
	}
	return err
}

// in reports whether the entry is in a place.
func (s *subject) in(p *place) bool {
	switch p.scope {
	case scopeOne:
		return bytes.Equal(s.parent, p.norm)
	case scopeChildren:
		return s.parent != nil && under(s.parent, p.norm)
	case scopeSubtree:
		if s.parent != nil && under(s.parent, p.norm) {
			return true
		}
	}
	if !bytes.Equal(s.parent, p.parent) || s.parent == nil && !bytes.Equal(p.norm, s.v.engine.suffix) {
		return false
	}
	return s.name() == nil && bytes.Equal(s.norm, p.norm)
}

// within reports whether the entry is the holder of a rule or lies under it.
func (s *subject) within(holder []byte) bool {
	if bytes.Equal(holder, s.v.engine.suffix) || s.parent != nil && under(s.parent, holder) {
		return true
	}
	i := bytes.IndexByte(holder, ',')
	if i < 0 || !bytes.Equal(s.parent, holder[i+1:]) {
		return false
	}
	return s.name() == nil && bytes.Equal(s.norm, holder)
}

// domain is the domain that the entry belongs to.
func (s *subject) domain() []byte {
	e := s.v.engine
	if s.parent == nil || !under(s.parent, e.domains) {
		return nil
	}
	if len(s.parent) > len(e.domains) {
		return e.domainOf(s.parent)
	}
	if s.name() != nil {
		return nil
	}
	return s.norm
}

// concerns reports whether a rule is about the entry.
func (s *subject) concerns(p *Placed) bool {
	if p.holder != nil && !s.within(p.holder) {
		return false
	}
	if p.Broken != nil {
		return true
	}
	return (p.place == nil || s.in(p.place)) && (p.filter == nil || s.matches(p.filter))
}

func (s *subject) matches(f *dirstore.Filter) bool {
	plain := s.f.Unseen()
	return s.r.Matches(&plain, f)
}

func (s *subject) holds(left []conditionKind) bool {
	for _, k := range left {
		ok := false
		switch k {
		case self:
			ok = s.f.ID != 0 && s.f.ID == s.v.entry
		case sameDomain, colleagues:
			ok = bytes.Equal(s.domain(), s.v.domain)
		case administrators:
			if d := s.domain(); d != nil {
				for _, mine := range s.v.Administers {
					ok = ok || mine == string(d)
				}
			}
		}
		if !ok {
			return false
		}
	}
	return true
}

// What a rule has to say about an entry: nothing, that it gives nothing, or the number of its clause.
const (
	silent  = 0
	denying = 255
)

// answers appends what each rule of the shape says.
func (s *subject) answers(dst []byte) []byte {
	for i := range s.v.shape.rules {
		p := &s.v.shape.rules[i]
		a := byte(silent)
		if s.concerns(p.Placed) {
			a = denying
			for j := range p.clauses {
				if s.holds(p.clauses[j].left) {
					a = byte(j + 1)
					break
				}
			}
		}
		dst = append(dst, a)
	}
	return dst
}

// grant decides about an entry.
func (v *View) grant(r *dirstore.Reader, f *dirstore.Found) (*grant, error) {
	s, err := v.subject(r, f)
	if err != nil {
		return nil, err
	}
	var buf [128]byte
	key := s.answers(buf[:0])
	v.shape.mu.RLock()
	g := v.shape.grants[string(key)]
	v.shape.mu.RUnlock()
	if g != nil {
		return g, nil
	}
	g = v.shape.decide(v.engine.store, key)
	v.shape.mu.Lock()
	if len(v.shape.grants) >= maxGrants {
		clear(v.shape.grants)
	}
	v.shape.grants[string(key)] = g
	v.shape.mu.Unlock()
	return g, nil
}

// decide puts the answers of the rules together, for every attribute.
func (s *shape) decide(store *dirstore.Store, answers []byte) *grant {
	g := &grant{}
	for _, a := range store.Schema().Attributes() {
		for len(g.by) <= a.Serial {
			g.by = append(g.by, 0)
		}
		g.by[a.Serial] = s.about(answers, isSecret(a), func(r *Rule) (bool, bool) { return r.covers(a) }, nil)
	}
	g.entry = s.about(answers, false, func(r *Rule) (bool, bool) { return r.coversEntry(), false }, nil)
	g.children = s.about(answers, false, func(r *Rule) (bool, bool) { return r.coversChildren(), false }, nil)
	may := func(right Rights) func(*dirschema.AttributeType) bool {
		return func(a *dirschema.AttributeType) bool { return g.by[a.Serial]&right != 0 }
	}
	g.sight = store.NewSight(g.entry&Read == 0, may(Search), may(Read), may(Compare))
	return g
}

// about decides about one attribute; told, if set, hears of every rule that has a part in it.
func (s *shape) about(answers []byte, secret bool, covers func(*Rule) (covers, explicit bool), told func(p *Placed, c *clause)) (out Rights) {
	var ordered Rights
	decided := false
	for i := range s.rules {
		p := &s.rules[i]
		a := answers[i]
		if a == silent || decided && p.Part != ServicePart {
			continue
		}
		is, explicit := covers(p.Rule)
		if !is && p.Broken == nil {
			continue
		}
		if p.Part == ServicePart {
			if a != denying && (!secret || explicit || p.clauses[a-1].rights == Replicate) {
				out |= p.clauses[a-1].rights
				if told != nil {
					told(p.Placed, p.clauses[a-1].clause)
				}
			}
			continue
		}
		if a == denying {
			decided = true
			if told != nil {
				told(p.Placed, nil)
			}
			continue
		}
		c := p.clauses[a-1]
		ordered |= c.rights
		decided = !c.goesOn
		if told != nil {
			told(p.Placed, c.clause)
		}
	}
	if secret {
		ordered &^= seeing
	}
	return out | ordered
}

var blind = &grant{sight: &dirstore.Sight{Hidden: true}}

func (v *View) must(r *dirstore.Reader, f *dirstore.Found) *grant {
	g, err := v.grant(r, f)
	if err != nil {
		v.engine.log.Error("directory: access to an entry cannot be decided, and is denied", "error", err)
		return blind
	}
	return g
}

// See is how the identity sees an entry.
func (v *View) See(r *dirstore.Reader, f *dirstore.Found) *dirstore.Sight { return v.must(r, f).sight }

// All reports whether it sees every entry.
func (v *View) All() bool { return v.shape.all }

// Above reports whether a name stands at or above something that a rule shows to the identity by its place: that there is an
// entry of this name is no news to it.
func (v *View) Above(norm []byte) bool {
	for _, p := range v.shape.rules {
		at := p.holder
		if p.place != nil {
			at = p.place.norm
		}
		if at == nil || !p.coversEntry() || !under(at, norm) {
			continue
		}
		for _, c := range p.clauses {
			if c.rights&Read != 0 {
				return true
			}
		}
	}
	return false
}

// Nothing reports whether it sees no entry at all.
func (v *View) Nothing() bool { return v.shape.nothing }

// OnlySelf reports whether it sees no entry but, perhaps, its own.
func (v *View) OnlySelf() bool { return v.shape.own && !v.Anonymous }

// Follows reports whether it may follow the content of the directory (RFC 4533): it sees every entry, or is a server. secrets
// tells whether it gets everything.
func (v *View) Follows() (may, secrets bool) {
	return v.shape.follows || v.shape.all || len(v.Roles) > 0, v.shape.follows
}

// Same reports whether it sees what another view sees, as far as that can be told.
func (v *View) Same(o *View) bool {
	if v.shape == o.shape {
		return true
	}
	if len(v.Roles) == 0 || len(v.Roles) != len(o.Roles) {
		return false
	}
	for i := range v.Roles {
		if v.Roles[i] != o.Roles[i] {
			return false
		}
	}
	return true // what servers see, the service's own rules give
}

// MayBind reports whether somebody may log in as the entry, by its password.
func (v *View) MayBind(r *dirstore.Reader, f *dirstore.Found) bool {
	return v.Rights(r, f, "userPassword")&Auth != 0
}

// Rights are those to an attribute of an entry, or to "entry" or "children".
func (v *View) Rights(r *dirstore.Reader, f *dirstore.Found, attribute string) Rights {
	return v.engine.rightsOf(v.must(r, f), attribute)
}

func (e *Engine) rightsOf(g *grant, attribute string) Rights {
	switch attribute {
	case "entry":
		return g.entry
	case "children":
		return g.children
	}
	d, err := e.store.Schema().Describe([]byte(attribute))
	if err != nil || d.Type.Serial >= len(g.by) {
		return 0
	}
	return g.by[d.Type.Serial]
}
