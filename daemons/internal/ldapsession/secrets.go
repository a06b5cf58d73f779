package ldapsession

import (
	"bytes"
	"context"
	"slices"
	"time"

	"shoal/daemons/internal/dirschema"
	"shoal/daemons/internal/dirstore"
	"shoal/daemons/internal/ldapwire"
)

// newSecret is what one update does to the password of an entry.
type newSecret struct {
	touched   bool // userPassword is among what it changes
	given     bool // and so is authPassword: then that is stored as it is
	clear     [][]byte
	verifiers [][]byte
}

// secretAttribute puts the hash in the place of a password given in clear, and collects what goes with it.
func (x *session) secretAttribute(w *work, a *ldapwire.Attribute, n *newSecret) error {
	schema := x.s.opt.Store.Schema()
	d, err := schema.Describe(a.Type)
	if err != nil {
		return nil // the store will say what is wrong with it
	}
	switch d.Type {
	case schema.Attribute([]byte("authPassword")):
		n.given = true
		return nil
	case schema.Attribute([]byte("userPassword")):
	default:
		return nil
	}
	n.touched = true
	for i, v := range a.Values {
		if len(v) == 0 || IsHashed(v) {
			continue
		}
		if len(v) > maxPassword {
			return ldapwire.Errorf(ldapwire.ConstraintViolation, "a password of more than %d octets", maxPassword)
		}
		if err := x.pause(w); err != nil {
			return err
		}
		n.clear = append(n.clear, v)
		if a.Values[i], n.verifiers, err = x.s.opt.Passwords.Hash(context.Background(), v); err != nil {
			return err
		}
	}
	return nil
}

// checkSecret asks the policy about the passwords in clear of an update of the entry named norm. Who writes everything
// is not asked: an administrator may give any password. made says that the password was made here: then it is good.
func (x *session) checkSecret(w *work, norm []byte, n *newSecret, made bool) error {
	if !n.touched || x.who.root || x.who.rights.OwnPasswords {
		return nil
	}
	r, err := x.read(w)
	if err != nil {
		return err
	}
	f, ok := x.s.entryOf(r, norm)
	if !ok {
		return nil // the store will say so
	}
	dn, err := r.DN(nil, &f)
	if err != nil {
		return err
	}
	st := x.s.standing(r, &f, string(dn), norm)
	names, history := namesOf(r, &f), historyOf(r, &f, st.policy)
	if bytes.Equal(norm, x.who.norm) {
		if err := st.checkOwn(x.s.opt.Clock.Now()); err != nil {
			return err
		}
	}
	if made {
		return nil
	}
	for _, v := range n.clear {
		if err := st.policy.checkQuality(v, names); err != nil {
			return err
		}
		if len(history) == 0 {
			continue
		}
		if err := x.pause(w); err != nil {
			return err
		}
		used, err := x.s.opt.Passwords.Verify(context.Background(), history, v)
		if err != nil {
			return err
		}
		if used {
			return refusePolicy(ldapwire.ConstraintViolation, ldapwire.PasswordInHistory, "a password that was used before")
		}
	}
	return nil
}

// adjustAdd completes an entry that is added.
func (x *session) adjustAdd(norm []byte, n *newSecret) func(*dirstore.Entry) {
	s := x.s
	policy := s.policyFor(norm)
	return func(e *dirstore.Entry) {
		if n.touched && !n.given {
			s.setVerifiers(e, n.verifiers)
		}
		if n.touched && policy != nil && policy.entry {
			s.set(e, "pwdChangedTime", []byte(s.opt.Clock.Now().UTC().Format(policyTime)))
			if policy.MustChange {
				s.set(e, "pwdReset", []byte("TRUE"))
			}
		}
	}
}

// policyFor is the policy of an entry that need not be there yet.
func (s *Server) policyFor(norm []byte) *Policy {
	r, err := s.opt.Store.Read()
	if err != nil {
		return nil
	}
	defer r.Close()
	if f, ok := s.entryOf(r, norm); ok {
		return s.policyOf(r, &f, norm)
	}
	return s.policyOf(r, s.rootEntry.Load(), norm)
}

// adjustModify completes an entry whose password changes: the old verifiers go, whatever the new password is, and the
// state of the policy begins anew.
func (x *session) adjustModify(norm []byte, n *newSecret, changes []ldapwire.Change) func(old, e *dirstore.Entry) error {
	if !n.touched {
		return x.s.adjustState(norm, changes)
	}
	s, own := x.s, bytes.Equal(norm, x.who.norm) || x.who.rights.OwnPasswords
	policy := s.policyFor(norm)
	s.failures.forget(norm)
	return func(old, e *dirstore.Entry) error {
		before := old.Get("userPassword")
		if slices.EqualFunc(before, e.Get("userPassword"), bytes.Equal) {
			return nil
		}
		if !n.given {
			s.setVerifiers(e, n.verifiers)
		}
		s.renew(old, e, policy, own)
		return nil
	}
}

// adjustState completes an entry whose state of the policy is changed by hand or by a shadow: failures go with a lock that
// is taken away, or the next one would lock again; a lock that is over goes with failures that are replaced, as a shadow does
// after a good login; and not more failures are kept than count.
func (s *Server) adjustState(norm []byte, changes []ldapwire.Change) func(old, e *dirstore.Entry) error {
	schema := s.opt.Store.Schema()
	failures, lock := schema.Attribute([]byte("pwdFailureTime")), schema.Attribute([]byte("pwdAccountLockedTime"))
	told, replaced, locks, unlocks := false, false, false, false
	for _, c := range changes {
		switch schema.Attribute(c.Type) {
		case failures:
			told, replaced = true, replaced || c.Op == ldapwire.ChangeReplace
		case lock:
			locks, unlocks = true, unlocks || len(c.Values) == 0 || c.Op == ldapwire.ChangeDelete
		}
	}
	if !told && !locks {
		return nil
	}
	if unlocks {
		s.failures.forget(norm)
	}
	policy := s.policyFor(norm)
	return func(old, e *dirstore.Entry) error {
		at := e.Get("pwdAccountLockedTime")
		if len(at) == 0 && len(old.Get("pwdAccountLockedTime")) > 0 && !told {
			s.set(e, "pwdFailureTime")
		}
		if replaced && !locks && len(at) > 0 && string(at[0]) != lockedForever && policy != nil {
			st := &standing{policy: policy, locked: parseTime(string(at[0]))}
			if !st.isLocked(s.opt.Clock.Now()) {
				s.set(e, "pwdAccountLockedTime")
			}
		}
		if list := e.Get("pwdFailureTime"); len(list) > maxRecorded {
			list = slices.Clone(list)
			slices.SortFunc(list, bytes.Compare)
			s.set(e, "pwdFailureTime", list[len(list)-maxRecorded:]...)
		}
		return nil
	}
}

// renew is what a change of the password does to the state of the policy (§7.6, §8.2.7).
func (s *Server) renew(old, e *dirstore.Entry, policy *Policy, own bool) {
	for _, name := range []string{"pwdFailureTime", "pwdGraceUseTime", "pwdReset"} {
		s.set(e, name)
	}
	if at := e.Get("pwdAccountLockedTime"); !own || len(at) == 0 || string(at[0]) != lockedForever {
		s.set(e, "pwdAccountLockedTime") // what an administrator locked, he unlocks
	}
	if policy == nil || !policy.entry {
		return
	}
	now := s.opt.Clock.Now()
	s.set(e, "pwdChangedTime", []byte(now.UTC().Format(policyTime)))
	if !own && policy.MustChange {
		s.set(e, "pwdReset", []byte("TRUE"))
	}
	history := slices.Clone(e.Get("pwdHistory"))
	for i, v := range old.Get("userPassword") {
		history = append(history, historyValue(now.Add(time.Duration(i)*time.Microsecond), v))
	}
	slices.SortFunc(history, bytes.Compare)
	s.set(e, "pwdHistory", history[max(0, len(history)-policy.InHistory):]...)
}

func (s *Server) set(e *dirstore.Entry, name string, values ...[]byte) {
	e.Set(dirschema.Description{Type: s.opt.Store.Schema().Attribute([]byte(name))}, values...)
}

// setVerifiers gives an entry its SCRAM verifiers, if its classes have a place for them: accounts' and servers' have.
func (s *Server) setVerifiers(e *dirstore.Entry, verifiers [][]byte) {
	if !s.takesVerifiers(e.Get("objectClass")) {
		verifiers = nil
	}
	s.set(e, "authPassword", verifiers...)
}

func (s *Server) takesVerifiers(classes [][]byte) bool {
	schema := s.opt.Store.Schema()
	c, err := schema.CheckClasses(classes)
	return err == nil && c.Allows(schema.Attribute([]byte("authPassword")))
}

// modernize puts a password that was just found right, but is stored in an older form, in the form of today: argon2id
// and SCRAM verifiers. On a shadow the master is asked to, by logging in there. Nothing waits for it.
func (x *session) modernize(who *found, password []byte) {
	s := x.s
	password = bytes.Clone(password)
	if len(s.refer()) > 0 {
		if s.opt.Forward != nil {
			s.opt.Forward(who.id.dn, password)
		}
		return
	}
	if _, busy := s.modernizing.LoadOrStore(who.id.dn, true); busy {
		return // of many binds at once one does it
	}
	select {
	case s.upgrading <- struct{}{}:
	default:
		s.modernizing.Delete(who.id.dn)
		return // another time
	}
	was := who.matched
	s.background.Go(func() {
		defer func() { <-s.upgrading; s.modernizing.Delete(who.id.dn) }()
		if s.opt.Gate != nil && s.opt.Gate(context.Background(), false) != nil {
			return // no updates now: another time
		}
		stored, verifiers, err := s.opt.Passwords.Hash(context.Background(), password)
		if err != nil {
			return // the pool is busy: another time
		}
		write := &dirstore.Write{By: s.opt.RootDN, Op: &dirstore.Modify{DN: []byte(who.id.dn), Adjust: func(_, e *dirstore.Entry) error {
			values := slices.Clone(e.Get("userPassword"))
			i := slices.IndexFunc(values, func(v []byte) bool { return bytes.Equal(v, was) })
			if i < 0 {
				return ldapwire.Errorf(ldapwire.NoSuchAttribute, "the password was changed meanwhile")
			}
			values[i] = stored
			s.set(e, "userPassword", values...)
			s.setVerifiers(e, verifiers)
			e.Rehashed = true
			return nil
		}}}
		s.opt.Store.Submit(write)
		if err := write.Wait(); err != nil {
			s.opt.Log.Warn("a password could not be stored in the form of today", "entry", who.id.dn, "error", err)
			return
		}
		s.opt.Passwords.known.keep(stored, password)
		s.metrics.upgraded.Inc()
	})
}
