package ldapsession

import (
	"context"
	"errors"
	"slices"
	"strings"

	"shoal/daemons/internal/dirstore"
	"shoal/daemons/internal/ldapwire"
)

// The provider's side of content synchronization (RFC 4533), for shadows and for whoever wants to hear
// of changes.
//
// A cookie is the CSNs up to which the client has everything (ldapwire.SyncCookie). The refresh stage is
// one of
//
//	delete phase    the log covers the time since the cookie: what changed, and the UUIDs of what went
//	present phase   otherwise: every entry that changed since the cookie whole, of the others the UUID,
//	                and what was not named is gone
//	whole           without a cookie: every entry, as a present phase
//
// and in the persist stage the log is followed. Entries are sent in the state that they have when they
// are sent, an entry above before one below. The log on the disk is the queue of a slow client: here is
// nothing but the set of entries changed since the place it has come to. If that set grows over
// maxBehind, the search ends with e-syncRefreshRequired, and the client begins again at its cookie; if
// it takes nothing for Limits.Write, its connection is cut.
//
// Of each deletion the UUID is sent in a syncIdSet, not as an entry without attributes: nothing knows
// its name any more.
const (
	maxBehind   = 65536 // changes that one client may be behind before it starts anew
	maxSyncs    = 4     // on one connection
	idSetSize   = 256
	maxRestarts = 10 // of a walk, because what was walked moved meanwhile
)

// syncing is one synchronization under way. It belongs to one goroutine.
type syncing struct {
	x       *session
	op      *operation
	id      int32
	request ldapwire.SyncRequest
	cookie  ldapwire.SyncCookie // of the client
	base    uint64
	scope   ldapwire.Scope
	whole   bool // everything is in scope
	filter  *dirstore.Filter
	sel     *dirstore.Selection
	view    dirstore.View
	who     *identity
	seeing  dirstore.Seeing // nil: everything
	part    *part           // nil: the whole directory

	r       *dirstore.Reader // nil between chunks
	out     []byte
	gone    [][16]byte      // deletions, or with present set entries that are there, not sent yet
	goneCSN string          // of the newest of them
	pos     uint64          // up to where the log is done
	end     uint64          // up to where it is in changed
	changed map[uint64]bool // entries of the log from pos to end; true: sent since
	told    []string        // CSNs of the cookies sent, the newest of each server
	sent    int
}

// sync begins a synchronization; w.search is parsed, w.norm its base.
func (x *session) sync(w *work) error {
	q := &w.search
	s := &syncing{x: x, id: w.msg.ID, scope: q.Scope, request: w.ctl.sync, changed: map[uint64]bool{},
		sel: x.s.opt.Store.Select(q.RawAttributes, q.Attributes)}
	err := func() (err error) {
		if v := x.view(); v != nil {
			if may, _ := v.Follows(); !may {
				return ldapwire.Errorf(ldapwire.InsufficientAccessRights, "synchronization needs the right to read everything")
			}
		} else if !x.who.rights.ReadAll {
			return ldapwire.Errorf(ldapwire.InsufficientAccessRights, "synchronization needs the right to read everything")
		}
		if w.ctl.paged {
			return ldapwire.Errorf(ldapwire.ProtocolError, "synchronization in pages is not possible")
		}
		if x.endless() >= maxSyncs {
			return ldapwire.Errorf(ldapwire.Busy, "more than %d synchronizations on one connection", maxSyncs)
		}
		if s.cookie, err = ldapwire.ParseSyncCookie(s.request.Cookie); err != nil {
			return err
		}
		r, err := x.read(w)
		if err != nil {
			return err
		}
		if s.base, err = r.Resolve(w.norm); err != nil {
			return err
		}
		s.part, err = x.part(r, s.sel)
		return err
	}()
	if err != nil {
		x.fail(w, err)
		return nil
	}
	s.request.Cookie = nil // it lies in the read buffer
	s.who = x.who
	s.view = dirstore.View{TypesOnly: q.TypesOnly, Secrets: x.who.rights.Secrets, Stored: true}
	if v := x.view(); v != nil {
		s.seeing = v.See
		if _, s.view.Secrets = v.Follows(); s.view.Secrets {
			s.seeing = nil
		}
	}
	suffix, err := x.s.opt.Store.CheckDN([]byte(x.s.opt.Store.Suffix()))
	s.whole = err == nil && q.Scope == ldapwire.WholeSubtree && string(suffix) == string(w.norm)
	s.filter, w.filter = w.filter, nil
	op, err := x.begin(w, false, true)
	if err != nil {
		return err
	}
	s.op = op
	who := x.attrs()
	x.s.metrics.syncs.Inc()
	go func() {
		defer x.finish(s.id, op)
		defer x.s.metrics.syncs.Dec()
		err := s.run()
		s.close()
		var e *ldapwire.Error
		switch {
		case op.abandoned.Load() || errors.Is(err, context.Canceled):
			x.log.Info("directory synchronization ended", who, "sent", s.sent)
			return
		case err != nil && !errors.As(err, &e):
			x.log.Error("directory synchronization failed", who, "sent", s.sent, "error", err)
		case err != nil:
			x.log.Warn("directory synchronization refused", who, "sent", s.sent, "error", err)
		}
		if err != nil {
			r := result(err)
			x.s.metrics.count(ldapwire.OpSearchRequest, r.Code)
			op.answered.Store(true)
			_ = x.out.send(ldapwire.AppendResponse(nil, s.id, ldapwire.OpSearchResultDone, r)) // who has gone needs no answer
		}
	}()
	return nil
}

// open gives the read transaction of the chunk.
func (s *syncing) open() (err error) {
	if s.r == nil {
		if s.r, err = s.x.s.opt.Store.Read(); err == nil {
			err = s.part.open(s)
		}
	}
	return err
}

func (s *syncing) close() {
	if s.r != nil {
		s.r.Close()
		s.r = nil
	}
}

// flush sends what was made, without a transaction, and ends when the client went or gave it up.
func (s *syncing) flush() error {
	s.close()
	if s.op.abandoned.Load() {
		return context.Canceled
	}
	err := s.x.out.send(s.out)
	s.out = s.out[:0]
	if err != nil {
		return context.Canceled // who cut the connection has told
	}
	return nil
}

// full reports whether the chunk should be sent.
func (s *syncing) full() bool { return len(s.out) >= chunkOctets }

func (s *syncing) run() error {
	if err := s.open(); err != nil {
		return err
	}
	phase, at, err := s.choose()
	if err != nil {
		return err
	}
	s.x.log.Info("directory synchronization begins", "remote", s.x.conn.RemoteAddr().String(), "phase", phase.String(), "cookie", strings.Join(s.cookie.CSNs, ";"), "persist", s.request.Persist)
	deletes := phase == deletePhase
	var cookie []byte
	if deletes {
		s.pos, s.end = at, at
		cookie, err = s.follow(true)
	} else {
		cookie, err = s.walk(phase == presentPhase)
	}
	if err != nil {
		return err
	}
	if err := s.part.check(s); err != nil {
		return err
	}
	if !s.request.Persist {
		s.x.s.metrics.count(ldapwire.OpSearchRequest, ldapwire.Success)
		s.op.answered.Store(true)
		s.out = ldapwire.AppendResponseControls(s.out, s.id, ldapwire.OpSearchResultDone, &ldapwire.Result{}, ldapwire.AppendSyncDone(nil, cookie, deletes))
		return s.flush()
	}
	kind := ldapwire.SyncRefreshPresent
	if deletes {
		kind = ldapwire.SyncRefreshDelete
	}
	s.info(&ldapwire.SyncInfo{Kind: kind, Cookie: cookie, RefreshDone: true})
	if err := s.flush(); err != nil {
		return err
	}
	for {
		changed := s.x.s.opt.Store.Changed()
		if _, err := s.follow(false); err != nil {
			return err
		}
		if err := s.flush(); err != nil {
			return err
		}
		select {
		case <-changed:
		case <-s.op.ctx.Done():
			return context.Canceled
		}
		if err := s.recheck(); err != nil {
			return err
		}
	}
}

// phase is the kind of a refresh.
type phase uint8

const (
	wholePhase phase = iota
	presentPhase
	deletePhase
)

func (p phase) String() string { return [...]string{"whole", "present", "delete"}[p] }

// choose decides how to refresh; at is the place in the log from where a delete phase begins.
func (s *syncing) choose() (p phase, at uint64, err error) {
	if len(s.cookie.CSNs) == 0 {
		return wholePhase, 0, nil
	}
	context := s.r.ContextCSN()
	strange := ""
	for _, c := range s.cookie.CSNs {
		if c > csnOf(context, dirstore.CSNServer(c)) {
			// The client has seen what never was, as far as this directory goes: an older state of it was
			// restored, or it is another one.
			strange = "the cookie is from the future of this directory"
		}
	}
	if strange == "" && slices.Max(s.cookie.CSNs) <= s.r.Replaced() {
		strange = "the content of this directory was replaced since the time of the cookie"
	}
	switch {
	case strange == "":
	case s.request.ReloadHint:
		return wholePhase, 0, nil
	default:
		return 0, 0, ldapwire.Errorf(ldapwire.SyncRefreshRequired, "%s", strange)
	}
	if !s.whole {
		return wholePhase, 0, nil // what moved into the scope with what lies above it has an old CSN
	}
	if since, ok := lastOf(s.cookie.CSNs, context); ok {
		at, covered, err := s.r.LogCovers(since)
		if err != nil {
			return 0, 0, err
		}
		if covered && s.r.LogEnd()-at <= maxBehind {
			return deletePhase, at, nil
		}
	}
	return presentPhase, 0, nil
}

// lastOf is the one CSN up to which a client with these CSNs has everything, if there is one: a directory gets the CSNs
// of one master after the other (each begins above all that it knew), so that a client has those of all but the last
// whole.
func lastOf(have, context []string) (since string, ok bool) {
	since = slices.Max(have)
	for _, c := range context {
		mine := csnOf(have, dirstore.CSNServer(c))
		if mine != c && mine != since && (mine != "" || c <= since) {
			return "", false
		}
	}
	return since, true
}

// csnOf finds the CSN of a server in a list; "" if there is none.
func csnOf(list []string, server string) string {
	for _, c := range list {
		if dirstore.CSNServer(c) == server {
			return c
		}
	}
	return ""
}

// walk sends every entry: whole, or with present set its UUID if the client's cookie covers it.
func (s *syncing) walk(present bool) (cookie []byte, err error) {
	for range maxRestarts {
		moved, cookie, err := s.walkOnce(present)
		if err != nil || !moved {
			return cookie, err
		}
	}
	return nil, ldapwire.Errorf(ldapwire.Busy, "the tree changes too fast")
}

// walkOnce gives up with moved when a part of the tree was moved meanwhile: it may have gone from where
// the walk has not been to where it has.
func (s *syncing) walkOnce(present bool) (moved bool, cookie []byte, err error) {
	if err := s.open(); err != nil {
		return false, nil, err
	}
	context := s.r.ContextCSN()
	s.pos = s.r.LogEnd()
	s.end = s.pos
	seen := s.pos
	w := s.r.Walk(s.base)
	for {
		f, ok, err := s.r.NextOf(w)
		if err != nil {
			return false, nil, err
		}
		if !ok {
			break
		}
		in, err := s.contains(&f)
		if err != nil {
			return false, nil, err
		}
		if !in {
			continue
		}
		csn := s.r.Value(&f, "entryCSN")
		if present && csn != "" && !s.since(csn) && !s.part.fresh() {
			s.gone = append(s.gone, s.r.UUID(&f))
			if len(s.gone) == idSetSize {
				s.ids(false)
			}
		} else if err := s.entry(&f, ldapwire.SyncAdd, nil); err != nil {
			return false, nil, err
		}
		if !s.full() {
			continue
		}
		if err := s.flush(); err != nil {
			return false, nil, err
		}
		if err := s.open(); err != nil {
			return false, nil, err
		}
		if moved, err := s.movedSince(&seen); moved || err != nil {
			s.gone = s.gone[:0]
			return moved, nil, err
		}
	}
	s.ids(false)
	return false, s.cookieOf(context), nil
}

// movedSince looks in the log from *seen on for the renaming of an entry with subordinates.
func (s *syncing) movedSince(seen *uint64) (moved bool, err error) {
	err = s.r.LogAfter(*seen, func(c dirstore.LoggedChange) bool {
		*seen = c.Sequence
		if c.Kind == dirstore.Renamed {
			f, ok, err := s.r.Get(c.ID)
			moved = moved || err != nil || ok && s.r.HasSubordinates(&f)
		}
		return true
	})
	return moved, err
}

// scan takes up what the log has got. If the log was cut off beyond the place where we are, nobody knows what the client misses.
func (s *syncing) scan() error {
	cut := false
	if err := s.r.LogAfter(s.pos, func(c dirstore.LoggedChange) bool {
		cut = c.Sequence != s.pos+1
		return false
	}); err != nil {
		return err
	}
	if cut {
		return ldapwire.Errorf(ldapwire.SyncRefreshRequired, "the change log is too short for how far behind this is")
	}
	err := s.r.LogAfter(s.end, func(c dirstore.LoggedChange) bool {
		s.end = c.Sequence
		if c.Kind != dirstore.Deleted {
			s.changed[c.ID] = false
		}
		s.part.note(&c)
		return len(s.changed) <= maxBehind
	})
	if err == nil && len(s.changed) > maxBehind {
		err = ldapwire.Errorf(ldapwire.SyncRefreshRequired, "more than %d changes behind", maxBehind)
	}
	return err
}

// since reports whether a change is newer than what the client has.
func (s *syncing) since(csn string) bool { return csn > csnOf(s.cookie.CSNs, dirstore.CSNServer(csn)) }

func (s *syncing) entry(f *dirstore.Found, state ldapwire.SyncState, cookie []byte) (err error) {
	control := ldapwire.AppendSyncState(nil, state, s.r.UUID(f), cookie)
	s.out, err = s.r.AppendEntry(s.out, s.id, f, s.part.selection(s.sel), s.view, control)
	s.sent++
	s.x.s.metrics.synced.Inc()
	return err
}

// ids sends the UUIDs that were collected: of deletions, or of what is present.
func (s *syncing) ids(deleted bool) {
	if len(s.gone) == 0 {
		return
	}
	i := ldapwire.SyncInfo{Kind: ldapwire.SyncIDSet, RefreshDeletes: deleted, UUIDs: s.gone}
	cookie := s.goneCSN != "" && s.news(s.goneCSN)
	if cookie {
		i.Cookie = s.cookieOf([]string{s.goneCSN})
	}
	s.info(&i)
	if cookie { // OpenLDAP does not keep that of a syncIdSet in the persist stage
		s.info(&ldapwire.SyncInfo{Kind: ldapwire.SyncNewCookie, Cookie: i.Cookie})
	}
	s.gone, s.goneCSN = s.gone[:0], ""
}

func (s *syncing) info(i *ldapwire.SyncInfo) {
	s.out = ldapwire.AppendIntermediate(s.out, s.id, ldapwire.OIDSyncInfo, i.Append(nil))
}

// news reports whether a CSN is in no cookie that the client has.
func (s *syncing) news(csn string) bool { return csn > csnOf(s.told, dirstore.CSNServer(csn)) }

// cookieOf makes a cookie, and remembers that the client has it. The CSNs of other servers that it was told stand in it
// too: OpenLDAP passes over the deletions that come with a part of them.
func (s *syncing) cookieOf(csns []string) []byte {
	for _, c := range csns {
		i := slices.IndexFunc(s.told, func(o string) bool { return dirstore.CSNServer(o) == dirstore.CSNServer(c) })
		if i < 0 {
			s.told = append(s.told, c)
		} else {
			s.told[i] = max(s.told[i], c)
		}
	}
	return (&ldapwire.SyncCookie{RID: s.cookie.RID, CSNs: s.told}).Append(nil)
}
