package ldapsession

import (
	"bytes"
	"context"
	"errors"

	"shoal/daemons/internal/ldapwire"
)

// bind: RFC 4511 §4.2, RFC 4513 §5.1. Whatever fails leaves the connection anonymous.
func (x *session) bind(w *work) error {
	if err := x.quiet(w); err != nil {
		return err
	}
	x.who = anonymous
	x.txn = nil
	err := w.bind.Parse(w.msg.Body)
	if err == nil {
		err = x.authenticate(w)
	}
	if err != nil {
		x.who = anonymous
		var e *ldapwire.Error
		if errors.As(err, &e) && e.Code == ldapwire.InvalidCredentials {
			x.log.Info("ldap bind refused", x.attrs(), "name", string(w.bind.Name[:min(len(w.bind.Name), 256)]))
		}
		x.fail(w, err)
		return nil
	}
	if x.who != anonymous {
		x.bound.Store(true)
	}
	x.answer(w, &ldapwire.Result{})
	return nil
}

var errCredentials = &ldapwire.Error{Code: ldapwire.InvalidCredentials}

func (x *session) authenticate(w *work) error {
	b := &w.bind
	switch {
	case b.Version != 3:
		return ldapwire.Errorf(ldapwire.ProtocolError, "LDAP version %d is not supported", b.Version)
	case !b.Simple:
		return ldapwire.Errorf(ldapwire.AuthMethodNotSupported, "SASL mechanism %.32q is not supported", b.Mechanism)
	case len(b.Name) == 0 && len(b.Password) == 0:
		return nil // RFC 4513 §5.1.1: anonymous
	case len(b.Password) == 0:
		// RFC 4513 §5.1.2: a name without a password is a mistake of the client more often than a wish.
		return ldapwire.Errorf(ldapwire.UnwillingToPerform, "a name without a password")
	case !x.tls && !x.how.AllowPlain:
		return ldapwire.Errorf(ldapwire.ConfidentialityRequired, "passwords are taken over TLS only: use StartTLS or ldaps")
	}
	norm, err := x.s.opt.Store.CheckDN(b.Name)
	if err != nil {
		return err
	}
	stored, id, err := x.candidate(w, norm)
	if err != nil {
		return err
	}
	w.closeReader()
	match, err := x.s.opt.Passwords.Verify(context.Background(), stored, b.Password)
	if err != nil {
		return err
	}
	if !match {
		return errCredentials
	}
	return x.become(w, id)
}

// found is who a password was checked for.
type found struct {
	id   identity
	root bool
}

// candidate gives the stored passwords of a name: none for a name that does not exist.
func (x *session) candidate(w *work, norm []byte) ([][]byte, *found, error) {
	if len(norm) > 0 && bytes.Equal(norm, x.s.rootNorm) {
		p := *x.s.password.Load()
		if p == "" {
			return nil, nil, nil
		}
		who := &found{id: identity{dn: x.s.opt.RootDN, norm: x.s.rootNorm, root: true}, root: true}
		if IsHashed([]byte(p)) {
			return [][]byte{[]byte(p)}, who, nil
		}
		return [][]byte{[]byte(clearScheme + p)}, who, nil
	}
	r, err := x.read(w)
	if err != nil {
		return nil, nil, err
	}
	id, err := r.Resolve(norm)
	var e *ldapwire.Error
	if errors.As(err, &e) && e.Code == ldapwire.NoSuchObject {
		return nil, nil, nil
	}
	if err != nil {
		return nil, nil, err
	}
	f, ok, err := r.Get(id)
	if !ok || err != nil {
		return nil, nil, err
	}
	dn, err := r.DN(nil, &f)
	if err != nil {
		return nil, nil, err
	}
	var stored [][]byte
	r.Values(&f, "userPassword", func(v []byte) bool {
		if IsHashed(v) {
			stored = append(stored, bytes.Clone(v))
		}
		return len(stored) < maxPasswords
	})
	return stored, &found{id: identity{dn: string(dn), norm: norm, entry: id}}, nil
}

// maxPasswords bounds how many values of userPassword a bind compares.
const maxPasswords = 4

// become makes the connection the identity that was verified, unless its entry went away meanwhile.
func (x *session) become(w *work, f *found) error {
	r, err := x.read(w)
	if err != nil {
		return err
	}
	who := f.id
	if f.root {
		who.rights = x.s.opt.Rights(r, nil, who.norm)
	} else {
		e, ok, err := r.Get(who.entry)
		if err != nil {
			return err
		}
		if !ok {
			return errCredentials
		}
		who.rights = x.s.opt.Rights(r, &e, who.norm)
	}
	x.who = &who
	return nil
}
