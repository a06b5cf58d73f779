package vaultd

import (
	"bytes"
	"encoding/json"
	"errors"
	"strings"

	"shoal/daemons/internal/access"
	"shoal/daemons/internal/dirstore"
	"shoal/daemons/internal/ldapsession"
	"shoal/daemons/internal/ldapwire"
)

// maxQuestion bounds the value of access.OID.
const maxQuestion = 16 << 10

// asked answers access.OID. The root DN may ask about everybody and for the rules, everybody else about himself.
func (v *vault) asked(norm []byte, rights *ldapsession.Rights, value []byte) ([]byte, error) {
	var q access.Question
	if len(value) > maxQuestion || json.Unmarshal(value, &q) != nil || q.Version != 1 {
		return nil, ldapwire.Errorf(ldapwire.ProtocolError, "the value is no question of version 1")
	}
	root := rights.Write
	if !root && (len(norm) == 0 || q.List) {
		return nil, &ldapwire.Error{Code: ldapwire.InsufficientAccessRights}
	}
	r, err := v.store.Read()
	if err != nil {
		return nil, err
	}
	defer r.Close()
	if q.List {
		list, err := v.access.List(r)
		if err != nil {
			return nil, err
		}
		return json.Marshal(list)
	}
	who, err := v.meant(r, q.Who)
	if err != nil {
		return nil, err
	}
	if !root && !bytes.Equal(who, norm) {
		return nil, ldapwire.Errorf(ldapwire.InsufficientAccessRights, "you may ask about yourself")
	}
	a, err := v.answer(r, &q, who, root)
	if err != nil {
		return nil, err
	}
	return json.Marshal(a)
}

// meant finds whom or what a text means; nil for anonymous.
func (v *vault) meant(r *dirstore.Reader, text string) ([]byte, error) {
	if text == "anonymous" {
		return nil, nil
	}
	n := &naming{store: v.store, rootDN: v.rootDN, suffix: v.store.Suffix()}
	norm := n.find(r, text)
	if !strings.ContainsAny(text, "=@") && strings.Contains(text, ".") {
		norm, _ = v.store.CheckDN([]byte("associatedDomain=" + text + ",ou=domains," + v.store.Suffix())) // nil is told below
	}
	if norm == nil {
		return nil, ldapwire.Errorf(ldapwire.NoSuchObject, "nobody and nothing is called %.200q", text)
	}
	return norm, nil
}

func (v *vault) answer(r *dirstore.Reader, q *access.Question, who []byte, root bool) (*access.Answer, error) {
	a := &access.Answer{Version: 1, Attribute: q.Attribute, Right: q.Right, Who: "anonymous", Why: []access.Step{}}
	if a.Attribute == "" {
		a.Attribute = "entry"
	}
	if a.Right == "" {
		a.Right = "read"
	}
	right, ok := access.ParseRight(a.Right)
	if !ok {
		return nil, ldapwire.Errorf(ldapwire.ProtocolError, "%.40q is no right: %s", a.Right, strings.Join(access.Words(), ", "))
	}
	right = access.Needs(v.store.Schema(), a.Attribute, right)
	entry := func(norm []byte) (*dirstore.Found, string, error) {
		id, err := r.Resolve(norm)
		if err != nil {
			return nil, "", err
		}
		f, ok, err := r.Get(id)
		if err == nil && !ok {
			err = &ldapwire.Error{Code: ldapwire.NoSuchObject}
		}
		if err != nil {
			return nil, "", err
		}
		dn, err := r.DN(nil, &f)
		return &f, string(dn), err
	}
	rootNorm, err := v.store.CheckDN([]byte(v.rootDN))
	if err != nil {
		return nil, err
	}
	to, err := v.meant(r, q.To)
	if err != nil {
		return nil, err
	}
	target, dn, err := entry(to)
	if err != nil {
		var e *ldapwire.Error
		if !root && errors.As(err, &e) {
			return nil, &ldapwire.Error{Code: ldapwire.InsufficientAccessRights}
		}
		return nil, err
	}
	a.To = dn
	if bytes.Equal(who, rootNorm) {
		a.Who, a.Allowed, a.Rights, a.Note = v.rootDN, true, "everything", "the root DN is asked for nothing; only passwords and what they are checked by are not shown to it either"
		return a, nil
	}
	var whose *dirstore.Found
	if who != nil {
		if whose, a.Who, err = entry(who); err != nil {
			return nil, err
		}
	}
	view, err := v.access.View(r, whose, who)
	if err != nil {
		return nil, err
	}
	if !root && !r.See(target, view.See) {
		return nil, &ldapwire.Error{Code: ldapwire.InsufficientAccessRights}
	}
	have, why, note, err := view.Explain(r, target, a.Attribute)
	if err != nil {
		return nil, ldapwire.Errorf(ldapwire.UndefinedAttributeType, "%v", err)
	}
	a.Allowed, a.Rights, a.Note = have&right == right, have.String(), note
	if why != nil && root { // the rules are not everybody's to read
		a.Why = why
	}
	a.Roles, a.Administers = view.Roles, view.Administers
	if right&^(access.Auth|access.Password|access.Replicate|access.Migrate) != 0 && a.Attribute != "entry" && !r.See(target, view.See) {
		a.Allowed = false
	}
	return a, nil
}
