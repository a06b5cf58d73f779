package ldapsession

import (
	"fmt"

	"shoal/daemons/internal/ldapwire"
)

// supportedExtensions are published in the root DSE; StartTLS only where there is a certificate.
var supportedExtensions = []string{ldapwire.OIDWhoAmI, ldapwire.OIDPasswordModify, ldapwire.OIDCancel,
	ldapwire.OIDTransactionStart, ldapwire.OIDTransactionEnd}

// extended: RFC 4511 §4.12.
func (x *session) extended(w *work) error {
	if err := w.ext.Parse(w.msg.Body); err != nil {
		x.fail(w, err)
		return nil
	}
	switch string(w.ext.Name) {
	case ldapwire.OIDStartTLS:
		return x.upgrade(w)
	case ldapwire.OIDWhoAmI: // RFC 4532
		id := ""
		if x.who.dn != "" {
			id = "dn:" + x.who.dn
		}
		x.s.metrics.count(w.msg.Op, ldapwire.Success)
		w.out = ldapwire.AppendExtended(w.out, w.msg.ID, &ldapwire.Result{}, "", []byte(id), nil)
		return nil
	case ldapwire.OIDPasswordModify:
		return x.passwordModify(w)
	case ldapwire.OIDCancel:
		return x.cancel(w)
	case ldapwire.OIDTransactionStart:
		x.startTransaction(w)
		return nil
	case ldapwire.OIDTransactionEnd:
		return x.endTransaction(w)
	}
	if do := x.s.opt.Extensions[string(w.ext.Name)]; do != nil {
		value, err := do(x.who.norm, &x.who.rights, w.ext.Value)
		if err != nil {
			x.fail(w, err)
			return nil
		}
		x.s.metrics.count(w.msg.Op, ldapwire.Success)
		w.out = ldapwire.AppendExtended(w.out, w.msg.ID, &ldapwire.Result{}, "", value, nil)
		return nil
	}
	x.fail(w, ldapwire.Errorf(ldapwire.ProtocolError, "extended operation %.64q is not supported", w.ext.Name))
	return nil
}

// upgrade: StartTLS, RFC 4511 §4.14. Octets that came with the request, before TLS, would be taken for
// ones that came in it: they end the connection.
func (x *session) upgrade(w *work) error {
	var refuse error
	x.mu.Lock()
	busy := len(x.pending) > 0
	x.mu.Unlock()
	switch {
	case x.tls:
		refuse = ldapwire.Errorf(ldapwire.OperationsError, "TLS is established already")
	case x.s.opt.TLS == nil:
		refuse = ldapwire.Errorf(ldapwire.ProtocolError, "TLS is not configured")
	case busy:
		refuse = ldapwire.Errorf(ldapwire.OperationsError, "operations are under way")
	}
	if refuse == nil && x.in.held() {
		return fmt.Errorf("%w: octets after StartTLS, before TLS", errProtocol)
	}
	if refuse != nil {
		r := result(refuse)
		x.s.metrics.count(w.msg.Op, r.Code)
		w.out = ldapwire.AppendExtended(w.out, w.msg.ID, r, ldapwire.OIDStartTLS, nil, nil)
		return nil
	}
	x.s.metrics.count(w.msg.Op, ldapwire.Success)
	w.out = ldapwire.AppendExtended(w.out, w.msg.ID, &ldapwire.Result{}, ldapwire.OIDStartTLS, nil, nil)
	if err := x.pause(w); err != nil {
		return err
	}
	if err := x.startTLS(); err != nil {
		return fmt.Errorf("TLS handshake: %w", err)
	}
	return nil
}

// abandon: RFC 4511 §4.11. An update is in its group's transaction already and goes on.
func (x *session) abandon(w *work) error {
	id, err := ldapwire.ParseAbandon(w.msg.Body)
	if err != nil {
		return err
	}
	x.s.metrics.count(w.msg.Op, ldapwire.Success)
	x.mu.Lock()
	op := x.pending[id]
	x.mu.Unlock()
	if op != nil && !op.update {
		op.abandoned.Store(true)
		op.cancel(errAbandoned)
	}
	return nil
}

// cancel: RFC 3909. The operation answers "canceled", then this one succeeds.
func (x *session) cancel(w *work) error {
	id, err := ldapwire.ParseCancel(w.ext.Value)
	if err != nil {
		x.fail(w, ldapwire.Errorf(ldapwire.ProtocolError, "cancel: %v", err))
		return nil
	}
	x.mu.Lock()
	op := x.pending[id]
	x.mu.Unlock()
	switch {
	case op == nil:
		x.fail(w, &ldapwire.Error{Code: ldapwire.NoSuchOperation})
	case op.update:
		x.fail(w, &ldapwire.Error{Code: ldapwire.TooLate})
	case op.abandoned.Swap(true):
		x.fail(w, &ldapwire.Error{Code: ldapwire.NoSuchOperation})
	default:
		op.cancel(errAbandoned)
		w.out = ldapwire.AppendResponse(w.out, id, ldapwire.OpSearchResultDone, &ldapwire.Result{Code: ldapwire.Canceled})
		x.answer(w, &ldapwire.Result{})
	}
	return nil
}
