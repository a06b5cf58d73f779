package ldapsession

import (
	"errors"

	"shoal/daemons/internal/access"
	"shoal/daemons/internal/dirstore"
	"shoal/daemons/internal/ldapwire"
)

// How what package access decides comes into the operations: an identity has a View, which is asked for anew when something
// that it was made from has changed; entries are seen through it, and updates carry it into their transaction.

// refresh asks for the rights of the connection's identity again if they may have changed.
func (x *session) refresh(w *work) error {
	if x.s.opt.Watched == nil || x.who.root || x.who.dn != "" && x.who.watched == x.s.opt.Watched() {
		return nil
	}
	if x.who.dn == "" {
		if n := x.s.nobody.Load(); n != nil && n.watched == x.s.opt.Watched() {
			x.who = n
			return nil
		}
	}
	who, err := x.identity(w, x.who.norm)
	if err != nil {
		return err
	}
	if who.dn != "" && x.who.mustChange {
		who.mustChange = true
	}
	x.who = who
	return nil
}

// identity makes that of an entry, by its normal name, in a Reader that is not older than what its rights depend on. Of an
// entry that is gone, and of no name, it is anonymous.
func (x *session) identity(w *work, norm []byte) (*identity, error) {
	w.closeReader()
	r, err := x.read(w)
	if err != nil {
		return nil, err
	}
	return x.s.identity(r, norm)
}

func (s *Server) identity(r *dirstore.Reader, norm []byte) (*identity, error) {
	if len(norm) > 0 {
		who, err := s.identify(r, norm)
		var e *ldapwire.Error
		if err == nil || !errors.As(err, &e) || e.Code != ldapwire.NoSuchObject && !errors.Is(err, errMayNotAct) {
			return who, err
		}
	}
	if s.opt.Watched == nil {
		return anonymous, nil
	}
	if n := s.nobody.Load(); n != nil && n.watched == r.Watched() {
		return n, nil
	}
	n := &identity{watched: r.Watched(), rights: s.opt.Rights(r, nil, nil)}
	s.nobody.Store(n)
	return n, nil
}

// view is that of the identity; nil where Rights say everything.
func (x *session) view() *access.View { return x.who.rights.View }

// seeing is how the identity sees entries; nil: as they are, without secrets.
func (x *session) seeing() dirstore.Seeing {
	if v := x.view(); v != nil {
		return v.See
	}
	return nil
}

// seesAll reports whether nothing is hidden from it, so that it may be told that there is no such entry.
func (x *session) seesAll() bool {
	if v := x.view(); v != nil {
		return v.All()
	}
	return x.who.rights.ReadAll
}

// sees reports whether it sees this entry; it is seen so from then on.
func (x *session) sees(r *dirstore.Reader, f *dirstore.Found, norm []byte) bool {
	if x.view() == nil {
		return x.maySee(norm)
	}
	return r.See(f, x.seeing())
}

// startSeen starts a search of somebody who has a View. What is hidden is not there.
func (x *session) startSeen(w *work, r *dirstore.Reader) error {
	v := x.view()
	err := r.Start(&w.plan, w.norm, w.search.Scope, w.filter)
	if v.All() {
		w.plan.Guard(v.See)
		return err
	}
	missing := &ldapwire.Error{Code: ldapwire.NoSuchObject}
	var e *ldapwire.Error
	if errors.As(err, &e) && e.Code == ldapwire.NoSuchObject {
		return missing
	}
	if err != nil {
		return err
	}
	w.plan.Guard(v.See)
	if !under(x.s.suffix, w.norm) && !under(x.who.norm, w.norm) && !v.Above(w.norm) {
		id, err := r.Resolve(w.norm)
		if err != nil {
			return missing
		}
		f, ok, err := r.Get(id)
		if err != nil {
			return err
		}
		if !ok || !r.See(&f, v.See) {
			return missing
		}
	}
	if v.OnlySelf() {
		w.plan.Restrict(x.who.entry)
	}
	return nil
}

// hide makes of an answer one that does not tell whether a hidden entry is there.
func (s *Server) hide(v *access.View, err error) error {
	var e *ldapwire.Error
	if v == nil || v.All() || !errors.As(err, &e) || e.Code != ldapwire.NoSuchObject {
		return err
	}
	r, fail := s.opt.Store.Read()
	if fail != nil {
		return errDenied
	}
	defer r.Close()
	norm, fail := s.opt.Store.CheckDN([]byte(e.Matched))
	if fail != nil {
		return errDenied
	}
	f, ok := s.entryOf(r, norm)
	if !ok || !r.See(&f, v.See) || v.Rights(r, &f, "children")&access.Add == 0 {
		return errDenied
	}
	return err
}

var errDenied = &ldapwire.Error{Code: ldapwire.InsufficientAccessRights}

// early refuses an update before any work is done for it; what decides is asked again in its transaction. If it refuses, what this
// connection sent before may be what is missing: it is asked again when that is done.
func (x *session) early(w *work, allowed func(r *dirstore.Reader, v *access.View) error) error {
	if w.ctl.inTxn {
		return nil // what comes before it in the transaction is not there yet
	}
	r, err := x.read(w)
	if err != nil {
		return err
	}
	if allowed(r, x.view()) == nil {
		return nil
	}
	if err := x.settle(w); err != nil {
		return err
	}
	w.closeReader()
	if r, err = x.read(w); err != nil {
		return err
	}
	return allowed(r, x.view())
}

// mayModifySeen is mayModify for somebody who has a View.
func (x *session) mayModifySeen(w *work, norm []byte, changes []ldapwire.Change) error {
	return x.early(w, func(r *dirstore.Reader, v *access.View) error {
		f, ok := x.s.entryOf(r, norm)
		if !ok {
			if v.All() {
				return nil // the store says what is missing
			}
			return x.s.hide(v, x.missing(r, norm))
		}
		return access.Permit{View: v}.Modify(r, &f, changes, nil)
	})
}

// missing is the answer about a name that is not there.
func (x *session) missing(r *dirstore.Reader, norm []byte) error {
	_, err := r.Resolve(norm)
	return err
}

// mayAddSeen is mayAdd for somebody who has a View.
func (x *session) mayAddSeen(w *work, norm []byte) error {
	return x.early(w, func(r *dirstore.Reader, v *access.View) error {
		for i, c := range norm {
			if c != ',' {
				continue
			}
			f, ok := x.s.entryOf(r, norm[i+1:])
			if !ok {
				if v.All() {
					return nil
				}
				return errDenied
			}
			if v.Rights(r, &f, "children")&access.Add == 0 && v.Rights(r, &f, "entry")&access.Migrate == 0 {
				return errDenied
			}
			return nil
		}
		return errDenied
	})
}
