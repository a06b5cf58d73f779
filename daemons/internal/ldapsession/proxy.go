package ldapsession

import (
	"bytes"

	"shoal/daemons/internal/dirstore"
	"shoal/daemons/internal/ldapwire"
)

var errMayNotAct = &ldapwire.Error{Code: ldapwire.AuthorizationDenied}

// actFor makes x.who another identity for the current request (RFC 4370). The value of the control is an
// authorization identity: empty for anonymous, or "dn:" and a name; user names are not mapped. The root
// DN's identity is lent to nobody.
func (x *session) actFor(w *work) error {
	if !x.who.rights.Proxy {
		return errMayNotAct
	}
	if len(w.ctl.proxy) == 0 {
		return x.actForNobody(w)
	}
	dn, is := bytes.CutPrefix(w.ctl.proxy, []byte("dn:"))
	if !is {
		return errMayNotAct
	}
	if len(dn) == 0 {
		return x.actForNobody(w)
	}
	norm, err := x.s.opt.Store.CheckDN(dn)
	if err != nil || bytes.Equal(norm, x.s.rootNorm) {
		return errMayNotAct
	}
	if err := x.settle(w); err != nil {
		return err
	}
	w.closeReader()
	r, err := x.read(w)
	if err != nil {
		return err
	}
	who, err := x.s.identify(r, norm)
	if err != nil {
		return errMayNotAct
	}
	x.who = who
	return nil
}

func (x *session) actForNobody(w *work) (err error) {
	x.who, err = x.identity(w, nil)
	return err
}

// identify makes the identity of an entry, by its name in normal form.
func (s *Server) identify(r *dirstore.Reader, norm []byte) (*identity, error) {
	id, err := r.Resolve(norm)
	if err != nil {
		return nil, err
	}
	f, ok, err := r.Get(id)
	if err != nil {
		return nil, err
	}
	if !ok {
		return nil, errMayNotAct
	}
	dn, err := r.DN(nil, &f)
	if err != nil {
		return nil, err
	}
	return &identity{dn: string(dn), norm: norm, entry: id, watched: r.Watched(), rights: s.opt.Rights(r, &f, norm)}, nil
}
