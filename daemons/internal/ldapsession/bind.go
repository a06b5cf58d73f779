package ldapsession

import (
	"bytes"
	"context"
	"errors"

	"shoal/daemons/internal/dirstore"
	"shoal/daemons/internal/ldapwire"
)

// bind: RFC 4511 §4.2, RFC 4513 §5. Whatever fails leaves the connection anonymous.
func (x *session) bind(w *work) error {
	if err := x.quiet(w); err != nil {
		return err
	}
	x.who = anonymous
	x.txn = nil
	var b bound
	err := w.bind.Parse(w.msg.Body)
	if err == nil {
		if w.bind.Simple || x.exchange != nil && string(w.bind.Mechanism) != x.exchange.mechanism {
			x.exchange = nil // RFC 4513 §5.2.1.2: another bind gives up the one under way
		}
		if w.bind.Simple {
			b, err = x.bindSimple(w)
		} else {
			b, err = x.bindSASL(w)
		}
	}
	if err == nil && b.who != nil {
		err = x.become(w, b.who, b.mechanism)
	}
	var refused *errPolicy
	if errors.As(err, &refused) {
		b.told = ldapwire.NoPolicyResponse
		b.told.Error, b.policy = refused.why, true
	}
	var controls []byte
	if w.ctl.policy && b.policy {
		controls = b.told.Append(nil)
	}
	if err != nil {
		x.who = anonymous
		r := result(err)
		switch r.Code {
		case ldapwire.SASLBindInProgress:
		case ldapwire.InvalidCredentials:
			x.log.Info("ldap bind refused", x.attrs(), "name", string(w.bind.Name[:min(len(w.bind.Name), 256)]), "mechanism", b.mechanism, "reason", b.why)
			if refused != nil || b.why != "" {
				r.Message = "" // nobody is told more
			}
			fallthrough
		default:
			x.exchange = nil
		}
		if r.Code == ldapwire.Unavailable && x.s.ready.Load() {
			x.log.Error("ldap operation failed", x.attrs(), "operation", w.msg.Op.String(), "error", err)
		}
		x.s.metrics.bind(b.mechanism, r.Code)
		x.s.metrics.count(w.msg.Op, r.Code)
		w.out = ldapwire.AppendBind(w.out, w.msg.ID, r, b.credentials, controls)
		return nil
	}
	x.exchange = nil
	if x.who.dn != "" {
		x.bound.Store(true)
		x.who.mustChange = b.told.Error == ldapwire.ChangeAfterReset && b.policy
	}
	x.s.metrics.bind(b.mechanism, ldapwire.Success)
	x.s.metrics.count(w.msg.Op, ldapwire.Success)
	w.out = ldapwire.AppendBind(w.out, w.msg.ID, &ldapwire.Result{}, b.credentials, controls)
	return nil
}

// bound is what came of a bind.
type bound struct {
	mechanism   string
	who         *found // nil: anonymous
	credentials []byte // of the server, for the client
	policy      bool   // told has something to say
	told        ldapwire.PolicyResponse
	why         string // of a refusal, for the log
}

var (
	errCredentials = &ldapwire.Error{Code: ldapwire.InvalidCredentials}
	errNeedTLS     = ldapwire.Errorf(ldapwire.ConfidentialityRequired, "passwords are taken over TLS only: use StartTLS or ldaps")
)

func (x *session) bindSimple(w *work) (bound, error) {
	b := &w.bind
	out := bound{mechanism: "simple"}
	switch {
	case b.Version != 3:
		return out, ldapwire.Errorf(ldapwire.ProtocolError, "LDAP version %d is not supported", b.Version)
	case len(b.Name) == 0 && len(b.Password) == 0:
		return out, nil // RFC 4513 §5.1.1: anonymous
	case len(b.Password) == 0:
		// RFC 4513 §5.1.2: a name without a password is a mistake of the client more often than a wish.
		return out, ldapwire.Errorf(ldapwire.UnwillingToPerform, "a name without a password")
	case !x.mayPassword():
		return out, errNeedTLS
	}
	norm, err := x.s.opt.Store.CheckDN(b.Name)
	if err != nil {
		return out, err
	}
	return out, x.checkPassword(w, norm, b.Password, &out)
}

// mayPassword reports whether a password may be sent on this connection.
func (x *session) mayPassword() bool { return x.tls || x.how.AllowPlain }

// checkPassword checks the password of the entry of this name, and what the policy says. norm is nil for nobody.
func (x *session) checkPassword(w *work, norm, password []byte, out *bound) error {
	stored, who, err := x.candidate(w, norm)
	if err != nil {
		return err
	}
	w.closeReader()
	if len(stored) == 0 && len(norm) > 0 {
		if err := x.s.elsewhere(); err != nil {
			return err // whoever has the whole directory knows
		}
	}
	if err := x.checkLock(who, out); err != nil {
		return err
	}
	i, err := x.s.opt.Passwords.Find(context.Background(), stored, password)
	if err != nil {
		return err
	}
	if i < 0 {
		return x.wrong(who, out)
	}
	who.matched = stored[i]
	if !who.root && !x.s.opt.Passwords.current(who.matched, who.verifiers, who.place) {
		x.modernize(who, password)
	}
	return x.right(who, out)
}

// checkLock refuses a locked account before its password is looked at.
func (x *session) checkLock(who *found, out *bound) error {
	if who == nil || who.standing == nil || !x.s.failures.locked(who.standing, x.s.opt.Clock.Now()) {
		return nil
	}
	out.why = "locked"
	x.s.metrics.policy.WithLabelValues("locked").Inc()
	return &errPolicy{errCredentials, ldapwire.AccountLocked}
}

// wrong counts a wrong password.
func (x *session) wrong(who *found, out *bound) error {
	out.why = "password"
	if who == nil {
		out.why = "name"
	} else if who.standing != nil && x.s.failures.fail(who.standing, x.s.opt.Clock.Now()) {
		x.log.Warn("account locked: too many wrong passwords", x.attrs(), "entry", who.id.dn)
		x.s.metrics.policy.WithLabelValues("lock").Inc()
	}
	return errCredentials
}

// right is what follows a right password.
func (x *session) right(who *found, out *bound) error {
	if who.standing != nil {
		now := x.s.opt.Clock.Now()
		told, spent, err := who.standing.checkExpiry(now, x.s.failures.graceUsed(who.standing))
		if err != nil {
			out.why = "expired"
			x.s.metrics.policy.WithLabelValues("expired").Inc()
			return err
		}
		if spent {
			x.s.failures.spend(who.standing, now)
			x.s.metrics.policy.WithLabelValues("grace").Inc()
		}
		x.s.failures.succeed(who.standing, now)
		out.policy, out.told = true, told
	}
	out.who = who
	return nil
}

// found is who a password was checked for.
type found struct {
	id        identity
	root      bool
	matched   []byte   // the stored password that it was
	verifiers [][]byte // authPassword
	place     bool     // the entry may have them
	standing  *standing
}

// candidate gives the stored passwords of a name: none for a name that does not exist.
func (x *session) candidate(w *work, norm []byte) ([][]byte, *found, error) {
	if len(norm) == 0 {
		return nil, nil, nil
	}
	if bytes.Equal(norm, x.s.rootNorm) {
		p := x.s.password.Load()
		if p.stored == "" {
			return nil, nil, nil
		}
		who := &found{id: identity{dn: x.s.opt.RootDN, norm: x.s.rootNorm, root: true}, root: true, verifiers: p.verifiers}
		if IsHashed([]byte(p.stored)) {
			return [][]byte{[]byte(p.stored)}, who, nil
		}
		return [][]byte{[]byte(clearScheme + p.stored)}, who, nil
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
	who := &found{id: identity{dn: string(dn), norm: bytes.Clone(norm), entry: id}}
	who.standing = x.s.standing(r, &f, who.id.dn, norm)
	stored := passwordValues(r, &f, "userPassword", IsHashed)
	who.verifiers = passwordValues(r, &f, "authPassword", func([]byte) bool { return true })
	var classes [][]byte
	r.Values(&f, "objectClass", func(v []byte) bool {
		classes = append(classes, v)
		return true
	})
	who.place = x.s.takesVerifiers(classes)
	return stored, who, nil
}

func passwordValues(r *dirstore.Reader, f *dirstore.Found, attr string, is func([]byte) bool) (out [][]byte) {
	r.Values(f, attr, func(v []byte) bool {
		if is(v) {
			out = append(out, bytes.Clone(v))
		}
		return len(out) < maxPasswords
	})
	return out
}

// maxPasswords bounds how many values of userPassword a bind compares.
const maxPasswords = 4

// become makes the connection the identity that was verified, unless its entry went away meanwhile.
func (x *session) become(w *work, f *found, mechanism string) error {
	w.closeReader()
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
		if nobody, err := x.s.identity(r, nil); err != nil {
			return err
		} else if v := nobody.rights.View; v != nil && mechanism != "EXTERNAL" && !v.MayBind(r, &e) {
			return errCredentials
		}
		who.rights, who.watched = x.s.opt.Rights(r, &e, who.norm), r.Watched()
	}
	x.who = &who
	return nil
}
