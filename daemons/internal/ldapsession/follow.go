package ldapsession

import (
	"errors"
	"slices"

	"shoal/daemons/internal/dirstore"
	"shoal/daemons/internal/ldapwire"
)

// The part of a synchronization that reads the log: what changed is sent, and whether it is still in scope is looked at again.

// follow sends what is in the log, up to its end. In the refresh stage cookies are not sent with it:
// the one returned is for its end.
func (s *syncing) follow(refresh bool) (cookie []byte, err error) {
	for {
		if err := s.open(); err != nil {
			return nil, err
		}
		if err := s.scan(); err != nil {
			return nil, err
		}
		context := s.r.ContextCSN()
		ordered := s.r.LogOrdered()
		if !refresh && ordered && len(s.told) > 0 && len(context) > len(s.told) {
			// OpenLDAP passes over deletions of a server that its cookie does not name: it is to come back with its cookie.
			return nil, ldapwire.Errorf(ldapwire.SyncRefreshRequired, "the directory has another master: go on from the cookie")
		}
		if again, err := s.part.enter(s); err != nil {
			return nil, err
		} else if again {
			continue
		}
		var failed error
		err := s.r.LogAfter(s.pos, func(c dirstore.LoggedChange) bool {
			at := ""
			if !refresh && ordered && s.part.all() {
				at = c.CSN
			}
			failed = s.change(&c, at)
			s.pos = c.Sequence
			return failed == nil && !s.full()
		})
		if err = errors.Join(err, failed); err != nil {
			return nil, err
		}
		if s.pos < s.end {
			if err := s.flush(); err != nil {
				return nil, err
			}
			continue
		}
		s.ids(true)
		if err := s.part.leave(s); err != nil {
			return nil, err
		}
		clear(s.changed)
		if !ordered && !refresh {
			return nil, nil // a shadow in its own refresh: its contextCSN does not stand for what it has
		}
		if refresh {
			return s.cookieOf(context), nil
		}
		if slices.ContainsFunc(context, s.news) {
			s.info(&ldapwire.SyncInfo{Kind: ldapwire.SyncNewCookie, Cookie: s.cookieOf(context)})
		}
		return nil, nil
	}
}

// change sends one change of the log; csn is that of its cookie, "" for none.
func (s *syncing) change(c *dirstore.LoggedChange, csn string) error {
	if c.Kind == dirstore.Deleted {
		s.gone = append(s.gone, c.UUID)
		s.goneCSN = csn
		if len(s.gone) == idSetSize {
			s.ids(true)
		}
		return nil
	}
	if s.changed[c.ID] {
		return nil // sent already, as it is now
	}
	f, ok, err := s.r.Get(c.ID)
	if err != nil || !ok {
		return err // its deletion is to come
	}
	s.ids(true)
	if c.Kind == dirstore.Renamed && !s.whole && s.r.HasSubordinates(&f) {
		return ldapwire.Errorf(ldapwire.SyncRefreshRequired, "a subtree was renamed")
	}
	if done, err := s.part.out(c, &f); done || err != nil {
		return err
	}
	if err := s.above(f.Parent()); err != nil {
		return err
	}
	state := ldapwire.SyncModify
	if c.Kind == dirstore.Added {
		state = ldapwire.SyncAdd
	}
	return s.one(&f, state, csn)
}

// above sends the entries above that changed as well, uppermost first: they may be new, or new there.
func (s *syncing) above(id uint64) error {
	if id == 0 {
		return nil
	}
	f, ok, err := s.r.Get(id)
	if err != nil || !ok {
		return err
	}
	if err := s.above(f.Parent()); err != nil {
		return err
	}
	if sent, changed := s.changed[id]; changed && !sent {
		return s.one(&f, ldapwire.SyncAdd, "")
	}
	return nil
}

// one sends an entry, or that it is not in the content.
func (s *syncing) one(f *dirstore.Found, state ldapwire.SyncState, csn string) error {
	s.changed[f.ID] = true
	in, err := s.contains(f)
	if err != nil {
		return err
	}
	if !in {
		s.gone = append(s.gone, s.r.UUID(f))
		s.goneCSN = csn
		s.ids(true)
		return nil
	}
	var cookie []byte
	if csn != "" && s.news(csn) {
		cookie = s.cookieOf([]string{csn})
	}
	return s.entry(f, state, cookie)
}

// contains reports whether an entry belongs to the content.
func (s *syncing) contains(f *dirstore.Found) (in bool, err error) {
	if in = s.whole; !in {
		in, err = s.r.Below(s.base, s.scope, f)
	}
	if in && err == nil && s.part != nil {
		in, err = s.part.contains(f)
	}
	return in && s.r.See(f, s.seeing) && s.r.Matches(f, s.filter), err
}

// recheck looks at the rights again when they may have changed. Who sees something else now begins anew.
func (s *syncing) recheck() error {
	x := s.x
	if s.who.root || s.who.rights.View == nil || s.who.watched == x.s.opt.Watched() {
		return nil
	}
	s.close()
	if err := s.open(); err != nil {
		return err
	}
	who, err := x.s.identity(s.r, s.who.norm)
	if err != nil {
		return err
	}
	was := s.who.rights.View
	if !who.rights.View.Same(was) {
		return ldapwire.Errorf(ldapwire.SyncRefreshRequired, "the rights to the directory have changed: begin anew")
	}
	s.who = who
	if s.seeing != nil {
		s.seeing = who.rights.View.See
	}
	return nil
}
