package ldapsession

import (
	"encoding/binary"
	"errors"

	"shoal/daemons/internal/dirstore"
	"shoal/daemons/internal/ldapwire"
)

// Transactions of updates (RFC 5805): what was queued under the identifier of a transaction is carried out
// when it is ended, all of it or nothing. A connection has one at a time; a bind forgets it.

// maxQueued bounds the updates of a transaction; their octets are bounded as those of one request are.
const maxQueued = 1000

// transaction is one that was started and not ended. It belongs to the reading goroutine.
type transaction struct {
	id     [8]byte
	writes []*dirstore.Write
	ids    []int32 // of the messages
	octets int
}

func (x *session) startTransaction(w *work) {
	if uris := x.s.refer(); len(uris) > 0 {
		x.answer(w, referTo(uris))
		return
	}
	switch {
	case x.view() == nil && !x.who.rights.Write && x.who.rights.Modify == nil, x.who.dn == "":
		x.fail(w, &ldapwire.Error{Code: ldapwire.InsufficientAccessRights})
		return
	case x.txn != nil:
		x.fail(w, ldapwire.Errorf(ldapwire.Busy, "a transaction is open on this connection"))
		return
	}
	x.txn = &transaction{}
	binary.BigEndian.PutUint64(x.txn.id[:], x.s.transactions.Add(1))
	x.s.metrics.count(w.msg.Op, ldapwire.Success)
	w.out = ldapwire.AppendExtended(w.out, w.msg.ID, &ldapwire.Result{}, "", x.txn.id[:], nil)
}

// queueUpdate puts an update into the transaction that its control names. Success says only that.
func (x *session) queueUpdate(w *work, write *dirstore.Write, octets int) {
	t := x.txn
	switch {
	case t == nil || string(w.ctl.txn) != string(t.id[:]):
		x.fail(w, ldapwire.Errorf(ldapwire.OperationsError, "there is no such transaction"))
	case len(t.writes) == maxQueued || t.octets+octets > x.s.limits.Load().Message:
		x.fail(w, ldapwire.Errorf(ldapwire.AdminLimitExceeded, "the transaction is too large"))
	default:
		t.writes, t.ids, t.octets = append(t.writes, write), append(t.ids, w.msg.ID), t.octets+octets
		x.answer(w, &ldapwire.Result{})
	}
}

// endTransaction carries it out, or forgets it (RFC 5805 §2.5).
func (x *session) endTransaction(w *work) error {
	commit, id, err := ldapwire.ParseTransactionEnd(w.ext.Value)
	t := x.txn
	switch {
	case err != nil:
		x.fail(w, ldapwire.Errorf(ldapwire.ProtocolError, "end of a transaction: %v", err))
		return nil
	case t == nil || string(id) != string(t.id[:]):
		x.fail(w, ldapwire.Errorf(ldapwire.OperationsError, "there is no such transaction"))
		return nil
	}
	x.txn = nil
	if !commit || len(t.writes) == 0 {
		x.answer(w, &ldapwire.Result{})
		return nil
	}
	if done, err := x.elsewhere(w); done || err != nil {
		return err
	}
	running, err := x.begin(w, true, false)
	if err != nil {
		return err
	}
	batch := &dirstore.Batch{Writes: t.writes}
	write := &dirstore.Write{By: x.who.dn, Op: batch}
	w.closeReader()
	x.s.opt.Store.Submit(write)
	msg, who, view := w.msg.ID, x.attrs(), x.view()
	go func() {
		defer x.finish(msg, running)
		err := x.s.hide(view, x.s.acknowledge(write.Wait()))
		r := result(err)
		failed := int32(0)
		var controls []ldapwire.UpdateControls
		var e *ldapwire.Error
		switch {
		case err == nil:
			for i, one := range t.writes {
				controls = append(controls, ldapwire.UpdateControls{ID: t.ids[i], Controls: readControls(one)})
			}
		case errors.As(err, &e) && e.Code != ldapwire.Unavailable:
			failed = t.ids[batch.Failed]
		}
		x.s.metrics.count(ldapwire.OpExtendedRequest, r.Code)
		x.log.Info("directory transaction", who, "updates", len(t.writes), "result", r.Code.String(), "message", r.Message)
		running.answered.Store(true)
		_ = x.out.send(ldapwire.AppendExtended(nil, msg, r, "", ldapwire.AppendTransactionEnd(nil, failed, controls), nil)) // who has gone gets no answer
	}()
	return nil
}
