package ldapsession

import (
	"bytes"
	"cmp"
	"net/url"
	"slices"

	"shoal/daemons/internal/dirstore"
	"shoal/daemons/internal/ldapwire"
)

// A shadow may have an agreement (dirstore.Agreement) by which it gets a part of the directory only. The provider keeps
// to it whatever the shadow asks for:
//
//   - Its replication search gives the content of the agreement. An entry that enters it is sent, of one that leaves
//     it the UUID, as of a deletion; what is under such an entry goes with it.
//   - Other searches of that identity are refused, but those of its own entry and of the suffix entry.
//   - When the agreement changes, the search ends with e-syncRefreshRequired.
//
// What a shadow lacks it refers to those who have it: names that are not there, by a referral; searches from further up,
// by a continuation reference; logins where there is no password, by a referral.

// part is the content of one synchronization.
type part struct {
	content *dirstore.Content
	config  *dirstore.Selection // for entries of ou=config
	others  *dirstore.Selection
	entry   uint64 // of the identity: where its agreement stands
	text    string

	members  *dirstore.Members // of the reader in use
	last     dirstore.Membership
	entering map[uint64]bool // changed, and not looked at; true: moved
	leaving  map[uint64]bool // not in the content any more, and not told of
}

// maxUnder bounds the entries under one that enters or leaves the content which are told of at once; with more the
// shadow begins a refresh.
const maxUnder = 1000

// partial reports whether the identity gets a part only.
func (r *Rights) partial() bool { return r.Content != nil || r.ContentError != nil }

// part prepares it; nil for an identity without an agreement.
func (x *session) part(r *dirstore.Reader, sel *dirstore.Selection) (*part, error) {
	rights := &x.who.rights
	if rights.ContentError != nil {
		return nil, rights.ContentError
	}
	if x.who.entry == 0 || !rights.Secrets {
		return nil, nil // no shadow
	}
	p := &part{content: rights.Content, entry: x.who.entry, entering: map[uint64]bool{}, leaving: map[uint64]bool{}}
	if p.content != nil {
		p.text = p.content.Agreement.String()
		p.config, p.others = p.content.Narrow(sel)
	}
	return p, p.unchanged(r)
}

// unchanged refuses when the agreement is another one than it was at the bind.
func (p *part) unchanged(r *dirstore.Reader) error {
	f, ok, err := r.Get(p.entry)
	if err != nil {
		return err
	}
	if !ok || r.Agreement(&f).String() != p.text {
		return ldapwire.Errorf(ldapwire.SyncRefreshRequired, "the agreement about what this shadow gets has changed")
	}
	return nil
}

// open begins to use the reader of s.
func (p *part) open(s *syncing) (err error) {
	if p == nil || p.content == nil {
		return nil
	}
	p.members, err = p.content.Members(s.r, s.since)
	return err
}

// check is unchanged at the end of a refresh, with what was agreed while it went on.
func (p *part) check(s *syncing) error {
	if p == nil {
		return nil
	}
	if err := s.open(); err != nil {
		return err
	}
	return p.unchanged(s.r)
}

// all: the content is the whole directory.
func (p *part) all() bool { return p == nil || p.content == nil }

func (p *part) contains(f *dirstore.Found) (bool, error) {
	if p.content == nil {
		return true, nil
	}
	var err error
	p.last, err = p.members.Of(f)
	return p.last.In(), err
}

// fresh: the entry that contains was asked about last may be new in the content although it did not change.
func (p *part) fresh() bool { return p != nil && p.content != nil && p.last.Fresh() }

// selection is what is sent of that entry.
func (p *part) selection(sel *dirstore.Selection) *dirstore.Selection {
	switch {
	case p == nil || p.content == nil:
		return sel
	case p.last.Config():
		return p.config
	}
	return p.others
}

// The changes of a stretch of the log are sent in the state that the entries have now, and what was moved, or matches the
// filter since, has an effect on what is under it. Therefore, of a content that is a part,
//
//  1. what came into it goes first, from the top down, with all that is under it (enter);
//  2. then the rest, in the order of the log;
//  3. what is not in it any more goes last (leave): nothing is under it at the shadow by then, but what goes with it;
//
// and a cookie is sent at the end only.

// note takes up a change that may have moved entries into the content, when it is read from the log.
func (p *part) note(c *dirstore.LoggedChange) {
	if p == nil || c.Kind != dirstore.Renamed && c.Kind != dirstore.Modified || p.content == nil && c.ID != p.entry {
		return
	}
	p.entering[c.ID] = p.entering[c.ID] || c.Kind == dirstore.Renamed
}

// enter is the first step. again: much was sent, and the log is to be looked at once more.
func (p *part) enter(s *syncing) (again bool, err error) {
	if p == nil || len(p.entering) == 0 {
		return false, nil
	}
	type candidate struct {
		f     dirstore.Found
		depth int
	}
	var list []candidate
	for id, moved := range p.entering {
		if id == p.entry {
			if err := p.unchanged(s.r); err != nil {
				return false, err
			}
		}
		if p.content == nil {
			delete(p.entering, id)
			continue
		}
		f, ok, err := s.r.Get(id)
		if err != nil {
			return false, err
		}
		if !ok || !moved && (!p.members.Filtered() || !s.r.HasSubordinates(&f) || p.members.IsContainer(&f)) {
			delete(p.entering, id)
			continue
		}
		is, err := p.members.Of(&f)
		if err != nil {
			return false, err
		}
		if !is.In() {
			delete(p.entering, id)
			continue
		}
		c := candidate{f: f}
		for up := f.Parent(); up != 0; c.depth++ {
			a, ok, err := s.r.Get(up)
			if err != nil || !ok {
				return false, err
			}
			up = a.Parent()
		}
		list = append(list, c)
	}
	slices.SortFunc(list, func(a, b candidate) int { return cmp.Compare(a.depth, b.depth) })
	for i := range list {
		f := &list[i].f
		delete(p.entering, f.ID)
		if s.changed[f.ID] {
			continue // with one above it
		}
		if err := s.above(f.Parent()); err != nil {
			return false, err
		}
		if _, err := p.under(s, f, func(e *dirstore.Found, in bool) error {
			if !in {
				return nil
			}
			return s.one(e, ldapwire.SyncAdd, "")
		}); err != nil {
			return false, err
		}
		if s.full() {
			return true, s.flush()
		}
	}
	return false, nil
}

// under calls each for an entry and all under it.
func (p *part) under(s *syncing, f *dirstore.Found, each func(e *dirstore.Found, in bool) error) (n int, err error) {
	for w := s.r.Walk(f.ID); ; n++ {
		e, ok, err := s.r.NextOf(w)
		if err != nil || !ok {
			return n, err
		}
		if n == maxUnder {
			return n, ldapwire.Errorf(ldapwire.SyncRefreshRequired, "a subtree entered the content of this shadow or left it")
		}
		in, err := s.contains(&e)
		if err == nil {
			err = each(&e, in)
		}
		if err != nil {
			return n, err
		}
	}
}

// out is the second step for an entry that is not in the content. done: there is nothing more to be done about it now.
func (p *part) out(c *dirstore.LoggedChange, f *dirstore.Found) (done bool, err error) {
	if p == nil || p.content == nil {
		return false, nil
	}
	is, err := p.members.Of(f)
	if err != nil || is.In() {
		return err != nil, err
	}
	// An entry that was in the content and left it was moved, or changed so that the filter does not match: so says its own
	// record, or that of an entry above it.
	if c.Kind == dirstore.Renamed || c.Kind == dirstore.Modified && !is.Never() {
		p.leaving[f.ID] = true
	}
	return true, nil
}

// leave is the third step.
func (p *part) leave(s *syncing) error {
	if p == nil || len(p.leaving) == 0 {
		return nil
	}
	told := map[uint64]bool{}
	for id := range p.leaving {
		f, ok, err := s.r.Get(id)
		if err != nil {
			return err
		}
		if !ok {
			continue // its deletion was told
		}
		var left [][16]byte
		if _, err := p.under(s, &f, func(e *dirstore.Found, in bool) error {
			if !in && !told[e.ID] {
				told[e.ID] = true
				left = append(left, s.r.UUID(e))
			}
			return nil
		}); err != nil {
			return err
		}
		slices.Reverse(left) // an entry goes after what is under it
		for _, id := range left {
			s.gone = append(s.gone, id)
			if len(s.gone) == idSetSize {
				s.ids(true)
			}
		}
	}
	clear(p.leaving)
	s.ids(true)
	return nil
}

// contained refuses the searches of an identity that gets a part of the directory only, past its agreement.
func (x *session) contained(w *work) error {
	if !x.who.rights.partial() || w.ctl.synced {
		return nil
	}
	suffix, err := x.s.opt.Store.CheckDN([]byte(x.s.opt.Store.Suffix()))
	if err != nil {
		return err
	}
	if w.search.Scope != ldapwire.BaseObject || !bytes.Equal(w.norm, suffix) && !bytes.Equal(w.norm, x.who.norm) {
		return ldapwire.Errorf(ldapwire.InsufficientAccessRights, "a shadow with an agreement gets what it says, by a synchronization only")
	}
	return nil
}

// lacks tells what this server lacks, and who has it.
func (s *Server) lacks() (*dirstore.Agreement, []string) {
	if s.opt.Lacks == nil {
		return nil, nil
	}
	return s.opt.Lacks()
}

// elsewhere is the referral to whoever has everything; nil if that is this server.
func (s *Server) elsewhere() error {
	if a, uris := s.lacks(); a != nil && len(uris) > 0 {
		return &ldapwire.Error{Code: ldapwire.Referral, Message: "this server has a part of the directory only", Referrals: uris}
	}
	return nil
}

// elsewhereIf turns "there is no such entry" into a referral where there may be one.
func (x *session) elsewhereIf(err error, dn []byte, scope ldapwire.Scope, manage bool) error {
	e, ok := err.(*ldapwire.Error)
	if !ok || e.Code != ldapwire.NoSuchObject || manage || x.who.dn == "" {
		return err
	}
	if a, uris := x.s.lacks(); a != nil && a.LacksEntries() && len(uris) > 0 {
		return &ldapwire.Error{Code: ldapwire.Referral, Matched: e.Matched, Message: "this server has a part of the directory only",
			Referrals: inURIs(uris, dn, scope)}
	}
	return err
}

// lacking is the continuation reference of a search that may miss what this server has not; nil if it has all of it.
func (s *Server) lacking(w *work) []string {
	if w.ctl.manage || w.search.Scope == ldapwire.BaseObject {
		return nil
	}
	a, uris := s.lacks()
	if a == nil || !a.LacksEntries() || len(uris) == 0 || s.within(w.norm, "ou=config,"+s.opt.Store.Suffix()) {
		return nil
	}
	if a.Filter == "" && slices.ContainsFunc(a.Subtrees, func(top string) bool { return s.within(w.norm, top) }) {
		return nil
	}
	return inURIs(uris, w.search.Base, w.search.Scope)
}

// within reports whether a normal name is a name or lies under it.
func (s *Server) within(norm []byte, top string) bool {
	t, err := s.opt.Store.CheckDN([]byte(top))
	return err == nil && under(norm, t)
}

// inURIs are the LDAP URLs (RFC 4516) of a search at these servers.
func inURIs(uris []string, dn []byte, scope ldapwire.Scope) (list []string) {
	for _, uri := range uris {
		list = append(list, uri+"/"+url.PathEscape(string(dn))+"??"+[...]string{"base", "one", "sub", "subordinates"}[scope&3])
	}
	return list
}

// follows reports whether the identity may ask for synchronizations.
func (x *session) follows() bool {
	if v := x.view(); v != nil {
		may, _ := v.Follows()
		return may
	}
	return x.who.rights.ReadAll
}
