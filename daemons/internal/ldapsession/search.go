package ldapsession

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/fnv"
	"math"
	"time"

	"shoal/daemons/internal/dirstore"
	"shoal/daemons/internal/ldapwire"
)

const (
	// inlineCandidates is up to how many candidates a search is done by the reading goroutine.
	inlineCandidates = 64
	// chunkOctets and chunkEntries are how much a longer search makes or reads before it sends, and
	// takes a fresh transaction.
	chunkOctets  = 32 << 10
	chunkEntries = 1000
	// tellExamined is from how many entries read in vain on a search is worth a line in the log.
	tellExamined = 5000
)

// searching is a search under way.
type searching struct {
	id       int32
	plan     *dirstore.Search
	sel      *dirstore.Selection
	view     dirstore.View
	limit    int // entries to return
	paged    bool
	key      uint64 // of the paged search
	last     uint64 // id of the last entry returned
	sent     int
	deadline time.Duration // since boot; 0 for none

	head      []byte // what is sent first: references
	controls  []byte // of the answer, beside that of pages
	lastPlace []byte // of a sorted search: position of the last entry returned
}

// search: RFC 4511 §4.5.
func (x *session) search(w *work) error {
	if err := w.search.Parse(w.msg.Body, x.s.wireLimits()); err != nil {
		x.fail(w, err)
		return nil
	}
	q := &w.search
	if f := x.s.virtualEntry(q); f != nil {
		return x.searchVirtual(w, f)
	}
	if err := x.s.unready(); err != nil {
		x.fail(w, err)
		return nil
	}
	if err := x.settle(w); err != nil {
		return err
	}
	r, err := x.read(w)
	if err != nil {
		x.fail(w, err)
		return nil
	}
	rights := &x.who.rights
	if v := rights.View; v != nil && v.Nothing() || v == nil && !rights.ReadAll && !rights.ReadSelf {
		x.fail(w, ldapwire.Errorf(ldapwire.InsufficientAccessRights, "bind first"))
		return nil
	}
	if w.ctl.original { // RFC 6171
		if uris := x.s.refer(); len(uris) > 0 {
			x.answer(w, referTo(uris))
			return nil
		}
	}
	if err := x.base(w, r); err != nil {
		x.fail(w, err)
		return nil
	}
	if err := x.contained(w); err != nil {
		x.fail(w, err)
		return nil
	}
	w.filter = x.s.opt.Store.Compile(&q.Filter, w.filter)
	if w.ctl.synced {
		return x.sync(w)
	}
	if err := x.plan(w, r); err != nil {
		x.fail(w, x.elsewhereIf(err, q.Base, q.Scope, w.ctl.manage))
		return nil
	}
	s := searching{id: w.msg.ID, sel: x.s.opt.Store.Select(q.RawAttributes, q.Attributes), view: dirstore.View{TypesOnly: q.TypesOnly, Verifiers: x.who.rights.Verifiers}}
	if err := x.special(w, r, &s); err != nil {
		x.fail(w, err)
		return nil
	}
	x.bounds(&s, q)
	if w.ctl.valued {
		s.view.Values = x.s.opt.Store.Compile(&w.ctl.values, nil)
	}
	var sorted *sorting
	if w.ctl.sorted || w.ctl.viewed {
		if sorted = x.sortControls(w, &s); sorted == nil && s.controls == nil {
			return nil
		}
	}
	if w.ctl.paged {
		if done, err := x.page(w, &s, sorted); done || err != nil {
			if err != nil {
				x.fail(w, err)
			}
			return nil
		}
	}
	if sorted != nil {
		return x.searchSorted(w, sorted)
	}
	if w.plan.Small(inlineCandidates) {
		s.plan = &w.plan
		w.out = append(w.out, s.head...)
		out, done, err := x.step(r, &s, w.out, math.MaxInt)
		w.out = out
		if err != nil {
			x.fail(w, err)
			return nil
		}
		w.out = x.searchDone(w.out, &s, done)
		return nil
	}
	return x.searchLong(w, &s)
}

// base finds what the search is under: it follows aliases in the name if it is asked to, answers a
// name that is elsewhere with a referral, and looks at the assertion (RFC 4528 §3).
func (x *session) base(w *work, r *dirstore.Reader) error {
	q, store := &w.search, x.s.opt.Store
	if w.base == nil || !bytes.Equal(w.base, q.Base) {
		w.base = nil
		norm, err := store.CheckDN(q.Base)
		if err != nil {
			return err
		}
		w.norm, w.base = norm, bytes.Clone(q.Base)
	}
	if store.Special()&dirstore.HasAliases != 0 && q.Deref >= derefFinding {
		norm, err := r.Dereference(w.norm)
		if err != nil {
			return err
		}
		if !bytes.Equal(norm, w.norm) {
			w.norm, w.base = norm, nil // true of this search only
		}
	}
	if !w.ctl.manage {
		if err := r.Referral(w.norm, q.Base, q.Scope); err != nil {
			return err
		}
	}
	if w.ctl.asserted {
		return x.assert(w, r, w.norm)
	}
	return nil
}

// assert looks at the assertion control of a search or compare.
func (x *session) assert(w *work, r *dirstore.Reader, norm []byte) error {
	if x.view() == nil && !x.maySee(norm) {
		return errDenied
	}
	f, ok := x.s.entryOf(r, norm)
	if !ok && x.seesAll() {
		return x.missing(r, norm)
	}
	if !ok || !x.sees(r, &f, norm) {
		return errDenied
	}
	if !r.Matches(&f, x.s.opt.Store.Compile(&w.ctl.assertion, nil)) {
		return &ldapwire.Error{Code: ldapwire.AssertionFailed}
	}
	return nil
}

// maySee reports whether the identity may search and compare the entry of this normal name.
func (x *session) maySee(norm []byte) bool {
	return x.who.rights.ReadAll && !x.who.rights.partial() || x.who.rights.ReadSelf && bytes.Equal(norm, x.who.norm)
}

// Values of derefAliases (RFC 4511 §4.5.1.3): 1 in searching, 2 finding the base, 3 always.
const (
	derefFinding = 2
	derefBoth    = 3
)

// special restrains the search to the entries that are shown, and makes the references of those that are
// elsewhere. An identity that may see only its own entry has been restrained already.
func (x *session) special(w *work, r *dirstore.Reader, s *searching) error {
	if v := x.view(); v != nil && v.OnlySelf() || v == nil && !x.who.rights.ReadAll {
		return nil
	}
	refs, err := r.Restrain(&w.plan, dirstore.Visible{Manage: w.ctl.manage, Subentries: w.ctl.visible,
		Aliases: w.search.Deref == derefBoth || w.search.Deref == derefFinding-1})
	if w.ctl.paged && len(w.ctl.pageCookie) > 0 {
		return err // they came with the first page
	}
	if lacks := x.s.lacking(w); lacks != nil {
		refs = append(refs, lacks)
	}
	for _, ref := range refs {
		s.head = ldapwire.AppendReference(s.head, s.id, ref)
	}
	return err
}

// plan starts the search on the store.
func (x *session) plan(w *work, r *dirstore.Reader) error {
	if x.view() != nil {
		return x.startSeen(w, r)
	}
	if x.who.rights.ReadAll {
		return r.Start(&w.plan, w.norm, w.search.Scope, w.filter)
	}
	// Who may see nothing but its own entry is told about no other.
	if !under(x.who.norm, w.norm) {
		return &ldapwire.Error{Code: ldapwire.NoSuchObject}
	}
	if err := r.Start(&w.plan, w.norm, w.search.Scope, w.filter); err != nil {
		return err
	}
	w.plan.Restrict(x.who.entry)
	return nil
}

// under reports whether a name, in normal form, is top or lies under it.
func under(name, top []byte) bool {
	return bytes.HasSuffix(name, top) && (len(name) == len(top) || name[len(name)-len(top)-1] == ',')
}

func (x *session) bounds(s *searching, q *ldapwire.Search) {
	lim := x.s.limits.Load()
	s.limit = math.MaxInt
	limit := lim.Time
	if x.who.rights.NoLimits {
		limit = 0
	} else {
		s.limit = lim.Entries
	}
	if q.SizeLimit > 0 {
		s.limit = min(s.limit, int(q.SizeLimit))
	}
	if t := time.Duration(q.TimeLimit) * time.Second; t > 0 && (limit == 0 || t < limit) {
		limit = t
	}
	if limit > 0 {
		s.deadline = time.Duration(x.s.now.Load()) + limit + sweepInterval
	}
}

// page prepares a page of a paged search (RFC 2696). The cookie is the id of the last entry returned
// and a key of the search: the server keeps nothing between the pages. done means that it was answered.
func (x *session) page(w *work, s *searching, sorted *sorting) (done bool, err error) {
	h := fnv.New64a()
	h.Write(w.norm)
	h.Write([]byte{byte(w.search.Scope)})
	h.Write([]byte(w.search.Filter.String()))
	for _, k := range w.ctl.sort {
		fmt.Fprintf(h, "%q%q%t", k.Attribute, k.Rule, k.Reverse)
	}
	s.key = h.Sum64()
	if c := w.ctl.pageCookie; len(c) > 0 {
		if len(c) < 16 || (len(c) > 16) != (sorted != nil) || len(c) > maxCookie || binary.BigEndian.Uint64(c[8:]) != s.key {
			return false, ldapwire.Errorf(ldapwire.UnwillingToPerform, "the cookie belongs to another search")
		}
		s.last = binary.BigEndian.Uint64(c)
		if sorted != nil {
			sorted.after = &place{bytes.Clone(c[16:]), s.last}
		} else {
			w.plan.Skip(s.last)
		}
		if w.ctl.pageSize == 0 { // RFC 2696 §3: the client gives the search up
			w.out = x.searchDone(w.out, &searching{id: s.id, paged: true}, ended)
			return true, nil
		}
	}
	s.paged = true
	if w.ctl.pageSize > 0 {
		s.limit = min(s.limit, int(w.ctl.pageSize))
	}
	return false, nil
}

// progress says how far a step of a search came.
type progress uint8

const (
	unfinished progress = iota
	ended               // no entry is left
	limited             // the limit is reached, and an entry is left
	timedOut
)

// step appends entries to out until the search ends, or as much is made or read as a chunk may have.
func (x *session) step(r *dirstore.Reader, s *searching, out []byte, chunk int) ([]byte, progress, error) {
	start := len(out)
	for read := 0; ; read++ {
		if read >= chunk || len(out)-start >= chunkOctets && chunk != math.MaxInt {
			return out, unfinished, nil
		}
		if s.deadline > 0 && time.Duration(x.s.now.Load()) > s.deadline {
			return out, timedOut, nil
		}
		before := s.plan.Examined
		f, ok, more, err := r.Next(s.plan, min(chunk, chunkEntries))
		read += s.plan.Examined - before
		switch {
		case err != nil:
			return out, ended, err
		case !ok && !more:
			return out, ended, nil
		case !ok:
			continue
		}
		if s.sent == s.limit {
			return out, limited, nil
		}
		if out, err = r.AppendEntry(out, s.id, &f, s.sel, s.view, nil); err != nil {
			return out, ended, err
		}
		s.sent++
		s.last = f.ID
	}
}

// searchDone appends the SearchResultDone.
func (x *session) searchDone(out []byte, s *searching, how progress) []byte {
	var r ldapwire.Result
	switch {
	case how == timedOut:
		r.Code = ldapwire.TimeLimitExceeded
	case how == limited && !s.paged:
		r.Code = ldapwire.SizeLimitExceeded
	}
	x.s.metrics.count(ldapwire.OpSearchRequest, r.Code)
	x.s.metrics.entries.Add(float64(s.sent))
	if !s.paged {
		return ldapwire.AppendResponseControls(out, s.id, ldapwire.OpSearchResultDone, &r, s.controls)
	}
	var cookie []byte
	if how == limited {
		cookie = s.cookie()
	}
	return ldapwire.AppendResponseControls(out, s.id, ldapwire.OpSearchResultDone, &r, ldapwire.AppendPaged(s.controls, 0, cookie))
}

// searchLong carries a search on beside the reading goroutine.
func (x *session) searchLong(w *work, s *searching) error {
	op, err := x.begin(w, false, false)
	if err != nil {
		return err
	}
	plan := w.plan
	s.plan = &plan
	w.plan = dirstore.Search{}
	w.filter = nil // the search keeps it
	text := w.search.Filter.String()
	who := x.attrs()
	go func() {
		defer x.finish(s.id, op)
		x.carryOn(s, op)
		if plan.Examined > tellExamined && plan.Examined > 10*(s.sent+1) {
			x.log.Warn("ldap search read many entries for few: an index may be missing", who, "filter", clip(text), "read", plan.Examined, "returned", s.sent)
		}
	}()
	return nil
}

func clip(s string) string { return s[:min(len(s), 200)] }

func (x *session) carryOn(s *searching, op *operation) {
	out := append(make([]byte, 0, chunkOctets+4<<10), s.head...)
	for ; ; out = out[:0] {
		r, err := x.s.opt.Store.Read()
		how := ended
		if err == nil {
			out, how, err = x.step(r, s, out, chunkEntries)
			r.Close()
		}
		if op.abandoned.Load() {
			return
		}
		if err != nil {
			x.log.Error("ldap search failed", "error", err)
			out = ldapwire.AppendResponse(out, s.id, ldapwire.OpSearchResultDone, result(err))
			how = ended
		} else if how != unfinished {
			out = x.searchDone(out, s, how)
		}
		op.answered.Store(how != unfinished)
		if x.out.send(out) != nil || how != unfinished {
			return
		}
	}
}

// searchVirtual answers a search for the root DSE or the subschema subentry.
func (x *session) searchVirtual(w *work, f *dirstore.Found) error {
	r, err := x.read(w)
	if err != nil {
		x.fail(w, err)
		return nil
	}
	if f != x.s.subschema {
		if f, err = x.rootDSE(r); err != nil {
			x.fail(w, err)
			return nil
		}
	}
	w.filter = x.s.opt.Store.Compile(&w.search.Filter, w.filter)
	if r.Matches(f, w.filter) {
		sel := x.s.opt.Store.Select(w.search.RawAttributes, w.search.Attributes)
		view := dirstore.View{TypesOnly: w.search.TypesOnly}
		if w.ctl.valued {
			view.Values = x.s.opt.Store.Compile(&w.ctl.values, nil)
		}
		if w.out, err = r.AppendEntry(w.out, w.msg.ID, f, sel, view, nil); err != nil {
			x.fail(w, err)
			return nil
		}
	}
	x.answer(w, &ldapwire.Result{})
	return nil
}

// compare: RFC 4511 §4.10.
func (x *session) compare(w *work) error {
	err := w.compare.Parse(w.msg.Body)
	if err == nil {
		if err := x.settle(w); err != nil {
			return err
		}
		var match bool
		if match, err = x.compareEntry(w); err == nil {
			code := ldapwire.CompareFalse
			if match {
				code = ldapwire.CompareTrue
			}
			x.answer(w, &ldapwire.Result{Code: code})
			return nil
		}
	}
	x.fail(w, err)
	return nil
}

func (x *session) compareEntry(w *work) (bool, error) {
	c := &w.compare
	norm, err := x.s.opt.Store.CheckDN(c.DN)
	if err != nil {
		return false, err
	}
	if x.view() == nil && !x.maySee(norm) {
		return false, &ldapwire.Error{Code: ldapwire.InsufficientAccessRights}
	}
	if w.ctl.original { // RFC 6171
		if uris := x.s.refer(); len(uris) > 0 {
			return false, &ldapwire.Error{Code: ldapwire.Referral, Referrals: uris}
		}
	}
	r, err := x.read(w)
	if err != nil {
		return false, err
	}
	if !w.ctl.manage {
		if err := r.Referral(norm, c.DN, ldapwire.BaseObject); err != nil {
			return false, err
		}
	}
	if w.ctl.asserted {
		if err := x.assert(w, r, norm); err != nil {
			return false, err
		}
	}
	f, ok := x.s.entryOf(r, norm)
	switch {
	case !ok && x.seesAll():
		return false, x.elsewhereIf(x.missing(r, norm), c.DN, ldapwire.BaseObject, w.ctl.manage)
	case !ok || !x.sees(r, &f, norm):
		return false, errDenied
	}
	store := x.s.opt.Store
	d, err := store.Schema().Describe(c.Attribute)
	if err != nil {
		return false, ldapwire.Errorf(ldapwire.UndefinedAttributeType, "%v", err)
	}
	if dirstore.Secret(d.Type) || !f.Sight().MayCompare(d.Type) {
		return false, ldapwire.Errorf(ldapwire.InsufficientAccessRights, "%s is not compared", d)
	}
	f = f.Comparing()
	present := ldapwire.Filter{Nodes: []ldapwire.Node{{Op: ldapwire.Present, End: 1, Attr: c.Attribute}}}
	if has, _ := r.Evaluate(&f, store.Compile(&present, nil)); !has {
		return false, ldapwire.Errorf(ldapwire.NoSuchAttribute, "the entry has no %s", d)
	}
	equal := ldapwire.Filter{Nodes: []ldapwire.Node{{Op: ldapwire.Equality, End: 1, Attr: c.Attribute, Value: c.Value}}}
	match, defined := r.Evaluate(&f, store.Compile(&equal, nil))
	if !defined {
		if d.Type.Equality == nil {
			return false, ldapwire.Errorf(ldapwire.InappropriateMatching, "%s has no equality rule", d)
		}
		return false, ldapwire.Errorf(ldapwire.InvalidAttributeSyntax, "%s: the value has not its syntax", d)
	}
	return match, nil
}
