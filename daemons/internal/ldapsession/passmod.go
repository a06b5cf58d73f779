package ldapsession

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/base32"
	"strings"

	"shoal/daemons/internal/access"
	"shoal/daemons/internal/dirstore"
	"shoal/daemons/internal/ldapwire"
)

// passwordModify: RFC 3062. Who may write changes everybody's password, with or without the old one.
// Everybody else changes his own, and must give the old one. Without a new password one is made and
// told. The answer comes when the change is on the disk.
func (x *session) passwordModify(w *work) error {
	if done, err := x.elsewhere(w); done || err != nil {
		return err
	}
	var p ldapwire.PasswordModify
	dn, made, err := x.newPassword(w, &p)
	if err != nil {
		x.failPolicy(w, err)
		return nil
	}
	attribute := ldapwire.Attribute{Type: []byte("userPassword"), Values: [][]byte{bytes.Clone(p.New)}}
	secret := &newSecret{}
	norm, err := x.s.opt.Store.CheckDN(dn)
	if err == nil {
		err = x.secretAttribute(w, &attribute, secret)
	}
	if err == nil {
		err = x.checkSecret(w, norm, secret, made)
	}
	if err != nil {
		x.failPolicy(w, err)
		return nil
	}
	running, err := x.begin(w, true, false)
	if err != nil {
		return err
	}
	who := x.who
	write := &dirstore.Write{By: who.dn, Op: &dirstore.Modify{DN: dn, Changes: []ldapwire.Change{{Op: ldapwire.ChangeReplace, Attribute: attribute}},
		Adjust: x.adjustModify(norm, secret, nil)}}
	w.closeReader()
	x.s.opt.Store.Submit(write)
	id, client := w.msg.ID, x.attrs()
	own := bytes.Equal(norm, who.norm)
	x.reset = nil
	if own {
		x.reset = write // the restriction of a password that must be changed ends with it
	}
	go func() {
		defer x.finish(id, running)
		r := result(x.s.acknowledge(write.Wait()))
		x.s.metrics.count(ldapwire.OpExtendedRequest, r.Code)
		x.log.Info("directory password changed", client, "entry", string(dn), "result", r.Code.String(), "message", r.Message, "csn", write.CSN())
		var value []byte
		if made && r.Code == ldapwire.Success {
			value = ldapwire.AppendPasswordModified(nil, p.New)
		}
		running.answered.Store(true)
		_ = x.out.send(ldapwire.AppendExtended(nil, id, r, "", value, nil)) // who has gone gets no answer
	}()
	return nil
}

// newPassword checks a request: whose password it is about, and whether it may be changed. made tells
// that p.New was made here.
func (x *session) newPassword(w *work, p *ldapwire.PasswordModify) (dn []byte, made bool, err error) {
	if err := p.Parse(w.ext.Value, w.ext.HasValue); err != nil {
		return nil, false, ldapwire.Errorf(ldapwire.ProtocolError, "password modify: %v", err)
	}
	switch {
	case x.who.dn == "":
		return nil, false, ldapwire.Errorf(ldapwire.InsufficientAccessRights, "bind first")
	case !x.tls && !x.how.AllowPlain:
		return nil, false, ldapwire.Errorf(ldapwire.ConfidentialityRequired, "passwords are taken over TLS only: use StartTLS or ldaps")
	case p.New != nil && len(p.New) == 0:
		return nil, false, ldapwire.Errorf(ldapwire.ConstraintViolation, "the new password is empty")
	case len(p.New) > maxPassword:
		return nil, false, ldapwire.Errorf(ldapwire.ConstraintViolation, "a password of more than %d octets", maxPassword)
	case p.New != nil && IsHashed(p.New) && !x.who.rights.Write:
		return nil, false, ldapwire.Errorf(ldapwire.ConstraintViolation, "the new password looks like a hash")
	}
	dn = []byte(x.who.dn)
	if len(p.Identity) > 0 {
		dn = bytes.TrimPrefix(bytes.Clone(p.Identity), []byte("dn:"))
	}
	norm, err := x.s.opt.Store.CheckDN(dn)
	if err != nil {
		return nil, false, err
	}
	if bytes.Equal(norm, x.s.rootNorm) {
		return nil, false, ldapwire.Errorf(ldapwire.UnwillingToPerform, "the password of the root DN is in a file of the server")
	}
	if err := x.settle(w); err != nil {
		return nil, false, err
	}
	own := bytes.Equal(norm, x.who.norm) && !x.who.rights.KeepPassword
	freely := x.who.rights.Write
	if v := x.view(); v != nil {
		r, err := x.read(w)
		if err != nil {
			return nil, false, err
		}
		own = false
		if f, ok := x.s.entryOf(r, norm); ok {
			own, freely = access.Permit{View: v}.MayChangePassword(r, &f)
		}
	}
	if !own && !freely {
		return nil, false, errDenied
	}
	if p.Old == nil && !freely {
		return nil, false, refusePolicy(ldapwire.UnwillingToPerform, ldapwire.MustSupplyOldPassword, "the old password is missing")
	}
	if p.Old != nil {
		stored, _, err := x.candidate(w, norm)
		if err != nil {
			return nil, false, err
		}
		if err := x.pause(w); err != nil {
			return nil, false, err
		}
		match, err := x.s.opt.Passwords.Verify(context.Background(), stored, p.Old)
		if err != nil {
			return nil, false, err
		}
		if !match {
			return nil, false, ldapwire.Errorf(ldapwire.UnwillingToPerform, "the old password is wrong")
		}
	}
	if p.New == nil {
		p.New, made = makePassword(), true
	}
	return dn, made, nil
}

// makePassword makes one of 100 random bits.
func makePassword() []byte {
	var b [13]byte
	_, _ = rand.Read(b[:]) // never fails: it ends the process instead
	return []byte(strings.ToLower(base32.StdEncoding.EncodeToString(b[:]))[:20])
}
