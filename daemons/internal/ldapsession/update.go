package ldapsession

import (
	"bytes"
	"context"
	"strings"

	"shoal/daemons/internal/dirstore"
	"shoal/daemons/internal/ldapwire"
)

// update: add, modify, delete, modifyDN (RFC 4511 §4.6 to §4.9). The answer comes when the change is
// on the disk; meanwhile the next request is read.
func (x *session) update(w *work, frame []byte) error {
	if done, err := x.elsewhere(w); done || err != nil {
		return err
	}
	if v := x.view(); v != nil && v.Anonymous || v == nil && !x.who.rights.Write && x.who.rights.Modify == nil && x.who.rights.Add == nil {
		x.fail(w, &ldapwire.Error{Code: ldapwire.InsufficientAccessRights})
		return nil
	}
	// The request outlives the read buffer.
	var m ldapwire.Message
	if err := m.Parse(bytes.Clone(frame), x.s.wireLimits()); err != nil {
		return err // it was parsed before
	}
	op, dn, err := x.parseUpdate(w, &m)
	if err != nil {
		x.failPolicy(w, err)
		return nil
	}
	write := &dirstore.Write{By: x.who.dn, Op: op, Conditions: x.conditions(w)}
	if x.view() == nil && (write.Assert != nil || write.Before != nil || write.After != nil) {
		if norm, err := x.s.opt.Store.CheckDN(dn); err != nil || !x.maySee(norm) {
			x.fail(w, &ldapwire.Error{Code: ldapwire.InsufficientAccessRights})
			return nil
		}
	}
	if w.ctl.inTxn {
		x.queueUpdate(w, write, len(frame))
		return nil
	}
	running, err := x.begin(w, true, false)
	if err != nil {
		return err
	}
	w.closeReader()
	x.s.opt.Store.Submit(write)
	who, view := x.attrs(), x.view()
	go func() {
		defer x.finish(m.ID, running)
		err := x.s.hide(view, x.s.acknowledge(write.Wait()))
		r := result(err)
		x.s.metrics.count(m.Op, r.Code)
		x.log.Info("directory update", who, "operation", m.Op.String(), "entry", string(dn), "result", r.Code.String(), "message", r.Message, "csn", write.CSN())
		running.answered.Store(true)
		_ = x.out.send(ldapwire.AppendResponseControls(nil, m.ID, m.Op.Response(), r, readControls(write))) // who has gone gets no answer
	}()
	return nil
}

// elsewhere answers an update that this server does not take: with a referral to those that do (RFC 4511 §4.1.10), or
// with what the gate says.
func (x *session) elsewhere(w *work) (done bool, err error) {
	if uris := x.s.refer(); len(uris) > 0 {
		x.answer(w, referTo(uris))
		return true, nil
	}
	if x.s.opt.Gate == nil {
		return false, nil
	}
	w.closeReader() // the gate may wait
	if err := x.s.opt.Gate(context.Background(), false); err != nil {
		x.answer(w, result(err))
		return true, nil
	}
	return false, nil
}

// referTo is the answer that names them.
func referTo(uris []string) *ldapwire.Result {
	return &ldapwire.Result{Code: ldapwire.Referral, Message: "this server is a shadow: updates go to " + strings.Join(uris, ", "), Referrals: uris}
}

// refer names the servers that take updates; none: this one does.
func (s *Server) refer() []string {
	if s.opt.Refer == nil {
		return nil
	}
	return s.opt.Refer()
}

// acknowledge asks the gate once more about an update that was made.
func (s *Server) acknowledge(err error) error {
	if err != nil || s.opt.Gate == nil {
		return err
	}
	return s.opt.Gate(context.Background(), true)
}

func (x *session) parseUpdate(w *work, m *ldapwire.Message) (dirstore.Operation, []byte, error) {
	lim := x.s.wireLimits()
	if x.view() == nil && !x.who.rights.Write && m.Op != ldapwire.OpModifyRequest && m.Op != ldapwire.OpAddRequest {
		return nil, nil, &ldapwire.Error{Code: ldapwire.InsufficientAccessRights}
	}
	switch m.Op {
	case ldapwire.OpAddRequest:
		var r ldapwire.Add
		if err := r.Parse(m.Body, lim); err != nil {
			return nil, nil, err
		}
		if err := x.mayAdd(w, &r); err != nil {
			return nil, nil, err
		}
		n := &newSecret{}
		for i := range r.Attributes {
			if err := x.secretAttribute(w, &r.Attributes[i], n); err != nil {
				return nil, nil, err
			}
		}
		norm, err := x.writable(r.DN)
		if err != nil {
			return nil, nil, err
		}
		return &dirstore.Add{DN: r.DN, Attributes: r.Attributes, Adjust: x.adjustAdd(norm, n)}, r.DN, nil
	case ldapwire.OpModifyRequest:
		var r ldapwire.Modify
		if err := r.Parse(m.Body, lim); err != nil {
			return nil, nil, err
		}
		if err := x.mayModify(w, &r); err != nil {
			return nil, nil, err
		}
		n := &newSecret{}
		for i := range r.Changes {
			a := &r.Changes[i].Attribute
			if r.Changes[i].Op == ldapwire.ChangeDelete {
				a = &ldapwire.Attribute{Type: a.Type}
			}
			if err := x.secretAttribute(w, a, n); err != nil {
				return nil, nil, err
			}
		}
		norm, err := x.writable(r.DN)
		if err == nil {
			err = x.checkSecret(w, norm, n, false)
		}
		if err != nil {
			return nil, nil, err
		}
		return &dirstore.Modify{DN: r.DN, Changes: r.Changes, Adjust: x.adjustModify(norm, n, r.Changes)}, r.DN, nil
	case ldapwire.OpDelRequest:
		_, err := x.writable(m.Body)
		return &dirstore.Delete{DN: m.Body, Tree: w.ctl.tree}, m.Body, err
	}
	var r ldapwire.ModifyDN
	if err := r.Parse(m.Body); err != nil {
		return nil, nil, err
	}
	_, err := x.writable(r.DN)
	return &dirstore.Rename{DN: r.DN, NewRDN: r.NewRDN, DeleteOldRDN: r.DeleteOldRDN,
		HasNewSuperior: r.HasNewSuperior, NewSuperior: r.NewSuperior}, r.DN, err
}

// mayModify asks the rights of an identity that may not write everything, before any work is done for it.
func (x *session) mayModify(w *work, r *ldapwire.Modify) error {
	if x.who.rights.Write {
		return nil
	}
	norm, err := x.s.opt.Store.CheckDN(r.DN)
	if err != nil {
		return err
	}
	if x.view() != nil {
		return x.mayModifySeen(w, norm, r.Changes)
	}
	if x.who.rights.Modify == nil || !x.who.rights.Modify(norm, r.Changes) {
		return &ldapwire.Error{Code: ldapwire.InsufficientAccessRights}
	}
	return nil
}

// mayAdd is the same for an entry to add.
func (x *session) mayAdd(w *work, r *ldapwire.Add) error {
	if x.who.rights.Write {
		return nil
	}
	norm, err := x.s.opt.Store.CheckDN(r.DN)
	if err != nil {
		return err
	}
	if x.view() != nil {
		return x.mayAddSeen(w, norm)
	}
	if x.who.rights.Add == nil || !x.who.rights.Add(norm, r.Attributes) {
		return &ldapwire.Error{Code: ldapwire.InsufficientAccessRights}
	}
	return nil
}

// writable refuses updates of what is no entry of the store, and gives the normal form of the name.
func (x *session) writable(dn []byte) ([]byte, error) {
	norm, err := x.s.opt.Store.CheckDN(dn)
	if err != nil {
		return nil, err
	}
	if len(norm) == 0 || bytes.Equal(norm, []byte(dirstore.SubschemaDN)) {
		return nil, ldapwire.Errorf(ldapwire.UnwillingToPerform, "this entry is the server's own")
	}
	return norm, nil
}
