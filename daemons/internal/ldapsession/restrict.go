package ldapsession

import (
	"errors"

	"shoal/daemons/internal/ldapwire"
)

// failPolicy answers the current request with an error, and with the control where the policy refused it and the
// client asked to be told.
func (x *session) failPolicy(w *work, err error) {
	var refused *errPolicy
	if !w.ctl.policy || !errors.As(err, &refused) {
		x.fail(w, err)
		return
	}
	told := ldapwire.NoPolicyResponse
	told.Error = refused.why
	r, controls := result(err), told.Append(nil)
	x.s.metrics.count(w.msg.Op, r.Code)
	if w.msg.Op == ldapwire.OpExtendedRequest {
		w.out = ldapwire.AppendExtended(w.out, w.msg.ID, r, "", nil, controls)
		return
	}
	w.out = ldapwire.AppendResponseControls(w.out, w.msg.ID, w.msg.Op.Response(), r, controls)
}

// restricted refuses what is not allowed before a password that somebody else set has been changed
// (draft-behera-ldap-password-policy-10 §7.2): everything but binds, StartTLS, the change itself, and taking leave. It
// tells whether it answered.
func (x *session) restricted(w *work, op ldapwire.Op) bool {
	switch op {
	case ldapwire.OpBindRequest, ldapwire.OpUnbindRequest, ldapwire.OpAbandonRequest:
		return false
	case ldapwire.OpExtendedRequest:
		if w.ext.Parse(w.msg.Body) == nil {
			switch string(w.ext.Name) {
			case ldapwire.OIDStartTLS, ldapwire.OIDPasswordModify, ldapwire.OIDCancel:
				return false
			}
		}
	}
	if x.reset != nil {
		// The reader waits for a change that is under way: what it allows was sent after it.
		if err := x.pause(w); err == nil && x.reset.Wait() == nil {
			who := *x.who
			who.mustChange = false
			x.who, x.reset = &who, nil
			return false
		}
		x.reset = nil
	}
	x.failPolicy(w, refusePolicy(ldapwire.InsufficientAccessRights, ldapwire.ChangeAfterReset, "change the password first"))
	return true
}
