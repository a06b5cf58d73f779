package ldapsession

import (
	"bytes"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"shoal/daemons/internal/dirstore"
	"shoal/daemons/internal/ldapwire"
)

// The password policy: draft-behera-ldap-password-policy-10. A policy is an entry of class pwdPolicy. It rules the
// entries that name it in pwdPolicySubentry, those right under an entry that does (a domain), or, if it is the one that
// Options names, all others. Where there is no entry, the service's own policy rules, which keeps no state.

// Policy is what a policy demands. Zero durations and numbers demand nothing.
type Policy struct {
	MinAge, MaxAge              time.Duration
	ExpireWarning, GraceExpiry  time.Duration
	LockoutDuration             time.Duration // 0: until an administrator unlocks
	FailureInterval             time.Duration // 0: failures count until the next good login
	InHistory, Quality          int
	MinLength, MaxLength, Grace int
	MaxFailure                  int
	Lockout, MustChange         bool
	NoUserChange, SafeModify    bool
	entry                       bool // an entry: state is kept
}

// Standing is what an entry's state says.
type standing struct {
	policy   *Policy
	norm     string
	dn       string
	changed  time.Time // zero: not known
	locked   time.Time // zero: not locked
	forever  bool
	failures []time.Time
	grace    []time.Time
	reset    bool
}

// lockedForever is what an administrator writes to lock an account until he unlocks it (§5.3.3).
const lockedForever = "000001010000Z"

// policyTime writes times so that two within a second differ.
const policyTime = "20060102150405.000000Z"

func parseTime(v string) time.Time {
	t, err := time.Parse("20060102150405Z", v)
	if err != nil {
		return time.Time{}
	}
	return t
}

// policyOf finds the policy of an entry, nil for none.
func (s *Server) policyOf(r *dirstore.Reader, f *dirstore.Found, norm []byte) *Policy {
	if s.opt.Unruled != nil && s.opt.Unruled(norm) {
		return nil
	}
	name := r.Value(f, "pwdPolicySubentry")
	if name == "" {
		if i := bytes.IndexByte(norm, ','); i >= 0 {
			if up, ok := s.entryOf(r, norm[i+1:]); ok {
				name = r.Value(&up, "pwdPolicySubentry")
			}
		}
	}
	if name == "" {
		name = s.opt.PolicyDN
	}
	if name != "" {
		if n, err := s.opt.Store.CheckDN([]byte(name)); err == nil {
			if e, ok := s.entryOf(r, n); ok && r.Value(&e, "pwdAttribute") != "" {
				return readPolicy(r, &e)
			}
		}
	}
	return s.opt.Policy
}

func (s *Server) entryOf(r *dirstore.Reader, norm []byte) (f dirstore.Found, ok bool) {
	id, err := r.Resolve(norm)
	if err != nil {
		return f, false
	}
	f, ok, err = r.Get(id)
	return f, ok && err == nil
}

func readPolicy(r *dirstore.Reader, e *dirstore.Found) *Policy {
	number := func(name string) int {
		n, err := strconv.ParseInt(r.Value(e, name), 10, 32)
		if err != nil || n < 0 {
			return 0
		}
		return int(n)
	}
	seconds := func(name string) time.Duration { return time.Duration(number(name)) * time.Second }
	is := func(name string) bool { return r.Value(e, name) == "TRUE" }
	return &Policy{
		MinAge: seconds("pwdMinAge"), MaxAge: seconds("pwdMaxAge"), ExpireWarning: seconds("pwdExpireWarning"),
		GraceExpiry: seconds("pwdGraceExpiry"), LockoutDuration: seconds("pwdLockoutDuration"),
		FailureInterval: seconds("pwdFailureCountInterval"), InHistory: number("pwdInHistory"), Quality: number("pwdCheckQuality"),
		MinLength: number("pwdMinLength"), MaxLength: number("pwdMaxLength"), Grace: number("pwdGraceAuthNLimit"),
		MaxFailure: number("pwdMaxFailure"), Lockout: is("pwdLockout"), MustChange: is("pwdMustChange"),
		NoUserChange: r.Value(e, "pwdAllowUserChange") == "FALSE", SafeModify: is("pwdSafeModify"), entry: true,
	}
}

// standing reads the state of an entry.
func (s *Server) standing(r *dirstore.Reader, f *dirstore.Found, dn string, norm []byte) *standing {
	p := s.policyOf(r, f, norm)
	if p == nil {
		p = &Policy{}
	}
	st := &standing{policy: p, norm: string(norm), dn: dn}
	if at := r.Value(f, "pwdAccountLockedTime"); at != "" {
		st.forever = at == lockedForever
		if st.locked = parseTime(at); st.locked.IsZero() {
			st.forever = true
		}
	}
	if !p.entry {
		return st
	}
	st.changed = parseTime(r.Value(f, "pwdChangedTime"))
	st.reset = r.Value(f, "pwdReset") == "TRUE"
	r.Values(f, "pwdFailureTime", func(v []byte) bool {
		st.failures = append(st.failures, parseTime(string(v)))
		return true
	})
	r.Values(f, "pwdGraceUseTime", func(v []byte) bool {
		st.grace = append(st.grace, parseTime(string(v)))
		return true
	})
	return st
}

// isLocked: §7.1. What an administrator locked for good is locked under every policy; a time counts only under one that
// locks.
func (st *standing) isLocked(now time.Time) bool {
	switch {
	case st.forever:
		return true
	case st.locked.IsZero() || !st.policy.Lockout:
		return false
	}
	return st.policy.LockoutDuration == 0 || now.Before(st.locked.Add(st.policy.LockoutDuration))
}

// errPolicy is a refusal by the policy, with what the control tells.
type errPolicy struct {
	err *ldapwire.Error
	why ldapwire.PolicyError
}

func (e *errPolicy) Error() string { return e.err.Error() }
func (e *errPolicy) Unwrap() error { return e.err }

func refusePolicy(code ldapwire.Code, why ldapwire.PolicyError, format string, args ...any) error {
	return &errPolicy{ldapwire.Errorf(code, format, args...), why}
}

// checkExpiry is what follows a good password: expiry, grace, warning, reset (§7.2 to §7.4). It tells what goes into
// the control, and whether a grace login is spent.
func (st *standing) checkExpiry(now time.Time, used int) (told ldapwire.PolicyResponse, spent bool, err error) {
	told = ldapwire.NoPolicyResponse
	p := st.policy
	if st.reset && p.MustChange {
		told.Error = ldapwire.ChangeAfterReset
		return told, false, nil
	}
	if p.MaxAge == 0 || st.changed.IsZero() {
		return told, false, nil
	}
	end := st.changed.Add(p.MaxAge)
	if now.Before(end) {
		if left := end.Sub(now); left <= p.ExpireWarning {
			told.Expires = int32(min(left/time.Second, 1<<31-1))
		}
		return told, false, nil
	}
	if used >= p.Grace || p.GraceExpiry > 0 && now.After(end.Add(p.GraceExpiry)) {
		return told, false, &errPolicy{&ldapwire.Error{Code: ldapwire.InvalidCredentials}, ldapwire.PasswordExpired}
	}
	told.Grace = int32(p.Grace - used - 1)
	return told, true, nil
}

// checkOwn is what the policy says to a user who changes his own password, whatever the new one is (§7.5, §7.6).
func (st *standing) checkOwn(now time.Time) error {
	p := st.policy
	if p.NoUserChange {
		return refusePolicy(ldapwire.InsufficientAccessRights, ldapwire.PasswordModNotAllowed, "users may not change their passwords")
	}
	if p.MinAge > 0 && !st.reset && now.Before(st.changed.Add(p.MinAge)) {
		return refusePolicy(ldapwire.ConstraintViolation, ldapwire.PasswordTooYoung, "the password was changed less than %v ago", p.MinAge)
	}
	return nil
}

// checkQuality is what the policy says to a new password (§5.2.5).
func (p *Policy) checkQuality(password []byte, names []string) error {
	if IsHashed(password) {
		if p.Quality >= 2 {
			return refusePolicy(ldapwire.ConstraintViolation, ldapwire.InsufficientQuality, "a hash cannot be checked")
		}
		return nil
	}
	if p.Quality == 0 {
		return nil
	}
	n := utf8.RuneCount(password)
	switch {
	case n < p.MinLength:
		return refusePolicy(ldapwire.ConstraintViolation, ldapwire.PasswordTooShort, "a password of less than %d characters", p.MinLength)
	case p.MaxLength > 0 && n > p.MaxLength:
		return refusePolicy(ldapwire.ConstraintViolation, ldapwire.PasswordTooLong, "a password of more than %d characters", p.MaxLength)
	case poor(string(password), names):
		return refusePolicy(ldapwire.ConstraintViolation, ldapwire.InsufficientQuality, "a password that is a name of its owner, or one character again and again")
	}
	return nil
}

// poor tells of passwords that are guessed first.
func poor(password string, names []string) bool {
	folded := strings.ToLower(password)
	for _, name := range names {
		if name != "" && folded == strings.ToLower(name) {
			return true
		}
	}
	first, _ := utf8.DecodeRuneInString(folded)
	return strings.Trim(folded, string(first)) == ""
}

// namesOf are what a password must not be.
func namesOf(r *dirstore.Reader, f *dirstore.Found) (names []string) {
	for _, attr := range []string{"uid", "cn", "sn", "givenName", "mail", "mailLocalAddress"} {
		r.Values(f, attr, func(v []byte) bool {
			local, _, _ := strings.Cut(string(v), "@")
			names = append(names, string(v), local)
			return len(names) < 100
		})
	}
	return names
}

// historyOf are the hashes that a new password must not match: those in use and the earlier ones.
func historyOf(r *dirstore.Reader, f *dirstore.Found, p *Policy) (all [][]byte) {
	if p.InHistory == 0 {
		return nil
	}
	take := func(v []byte) bool {
		if IsHashed(v) {
			all = append(all, bytes.Clone(v))
		}
		return len(all) <= p.InHistory+maxPasswords
	}
	r.Values(f, "userPassword", take)
	var old [][]byte
	r.Values(f, "pwdHistory", func(v []byte) bool {
		old = append(old, bytes.Clone(v))
		return true
	})
	slices.SortFunc(old, bytes.Compare) // they begin with their time
	for _, v := range old[max(0, len(old)-p.InHistory):] {
		if part := bytes.SplitN(v, []byte("#"), 4); len(part) == 4 {
			take(part[3])
		}
	}
	return all
}

// historyValue: time "#" syntaxOID "#" length "#" data (§5.3.6).
func historyValue(now time.Time, stored []byte) []byte {
	return fmt.Appendf(nil, "%s#1.3.6.1.4.1.1466.115.121.1.40#%d#%s", now.UTC().Format(policyTime), len(stored), stored)
}
