package dirstore

import (
	"bytes"
	"encoding/binary"
	"math/big"

	"shoal/daemons/internal/dirschema"
	"shoal/daemons/internal/ldapwire"
)

// Modify changes the attributes of an entry, all of it or nothing (RFC 4511 §4.6, RFC 4525).
type Modify struct {
	DN      []byte
	Changes []ldapwire.Change
	// Adjust, if set, changes the entry further, with attributes that only the server sets too; old is the entry as
	// it was. It may run more than once. Its error refuses the update.
	Adjust func(old, entry *Entry) error
}

func (op *Modify) apply(w *writing) error {
	name, id, err := w.find(op.DN)
	if err != nil {
		return err
	}
	f, _, err := w.Get(id)
	if err != nil {
		return err
	}
	old, err := w.Entry(&f)
	if err != nil {
		return err
	}
	e := old.clone()
	for _, c := range op.Changes {
		if err := w.store.change(e, c); err != nil {
			return err
		}
	}
	if op.Adjust != nil {
		if err := op.Adjust(old, e); err != nil {
			return err
		}
	}
	if p := w.permit(); p != nil {
		if err := p.Modify(w.Reader, &f, op.Changes, e); err != nil {
			return err
		}
	}
	return w.store.finishModify(w, &f, name, old, e, Modified)
}

// finishModify checks the changed entry and writes it.
func (s *Store) finishModify(w *writing, f *Found, name dirschema.DN, old, e *Entry, kind ChangeKind) error {
	top := f.rec.parent == 0
	for _, ava := range name[0] {
		a := e.Find(dirschema.Description{Type: ava.Type})
		if a == nil || indexOf(ava.Type, a.Values, ava.Value) < 0 {
			return ldapwire.Errorf(ldapwire.NotAllowedOnRDN, "%s=%s names the entry and must stay", ava.Type.Name(), ava.Value)
		}
	}
	if s.opt.Maintain != nil {
		s.opt.Maintain(old, e)
	}
	cs, err := s.checkEntry(e)
	if err != nil {
		return err
	}
	if was := old.one("structuralObjectClass"); was != "" && s.schema.Class([]byte(was)) != cs.Structural {
		return ldapwire.Errorf(ldapwire.ObjectClassModsProhibited, "the structural object class of an entry cannot change from %s to %s", was, cs.Structural.Name())
	}
	if err := w.dry(); err != nil {
		return err
	}
	w.touch(e)
	rdn := bytes.Clone(f.rec.rdn)
	parent := f.rec.parent
	if kind == Renamed && !top {
		rdn = name[0].Append(nil)
	}
	if err := w.put(f.ID, parent, rdn, old.Attributes, e.Attributes); err != nil {
		return err
	}
	return w.log(kind, f.ID, e.uuid(s), w.csn)
}

// change makes one change of a modify.
func (s *Store) change(e *Entry, c ldapwire.Change) error {
	d, err := s.schema.Describe(c.Type)
	if err != nil {
		return refuse(err)
	}
	if err := s.checkWritable(d); err != nil {
		return err
	}
	values := make([][]byte, 0, len(c.Values))
	for _, v := range c.Values {
		if c.Op != ldapwire.ChangeDelete {
			if err := s.schema.Check(d.Type, v); err != nil {
				return refuse(err)
			}
		}
		values = append(values, bytes.Clone(v))
	}
	if i := duplicate(d.Type, values); i >= 0 {
		return ldapwire.Errorf(ldapwire.AttributeOrValueExists, "%s: value #%d is given twice", d, i)
	}
	a := e.Find(d)
	switch c.Op {
	case ldapwire.ChangeAdd:
		return addValues(e, a, d, values)
	case ldapwire.ChangeDelete:
		return deleteValues(e, a, d, values)
	case ldapwire.ChangeReplace:
		e.Set(d, values...)
		return nil
	}
	return increment(a, d, values)
}

func addValues(e *Entry, a *Attribute, d dirschema.Description, values [][]byte) error {
	if len(values) == 0 {
		return ldapwire.Errorf(ldapwire.ProtocolError, "%s: nothing to add", d)
	}
	if a == nil {
		e.Set(d, values...)
		return nil
	}
	if duplicate(d.Type, append(a.Values[:len(a.Values):len(a.Values)], values...)) >= 0 {
		return ldapwire.Errorf(ldapwire.AttributeOrValueExists, "%s: the entry has a value that is to be added", d)
	}
	a.Values = append(a.Values, values...)
	return nil
}

func deleteValues(e *Entry, a *Attribute, d dirschema.Description, values [][]byte) error {
	if a == nil {
		return ldapwire.Errorf(ldapwire.NoSuchAttribute, "%s: the entry has no such attribute", d)
	}
	if len(values) == 0 {
		e.Set(d)
		return nil
	}
	gone := make(map[string]bool, len(values))
	for _, v := range values {
		gone[string(normalForm(d.Type, v))] = false
	}
	var keep [][]byte
	for _, v := range a.Values {
		n := string(normalForm(d.Type, v))
		if _, goes := gone[n]; goes {
			gone[n] = true
		} else {
			keep = append(keep, v)
		}
	}
	for _, found := range gone {
		if !found {
			return ldapwire.Errorf(ldapwire.NoSuchAttribute, "%s: the entry has not the value that is to be deleted", d)
		}
	}
	e.Set(d, keep...)
	return nil
}

// increment: RFC 4525 §3.
func increment(a *Attribute, d dirschema.Description, values [][]byte) error {
	if d.Type.Ordering == nil && d.Type.Equality == nil || d.Type.Syntax.Desc != "INTEGER" {
		return ldapwire.Errorf(ldapwire.ConstraintViolation, "%s is not an integer", d)
	}
	if a == nil {
		return ldapwire.Errorf(ldapwire.NoSuchAttribute, "%s: the entry has no such attribute", d)
	}
	if len(values) != 1 {
		return ldapwire.Errorf(ldapwire.ProtocolError, "%s: increment takes one value", d)
	}
	by, ok := new(big.Int).SetString(string(values[0]), 10)
	if !ok {
		return ldapwire.Errorf(ldapwire.InvalidAttributeSyntax, "%s: not an integer", d)
	}
	for i, v := range a.Values {
		n, ok := new(big.Int).SetString(string(v), 10)
		if !ok {
			return ldapwire.Errorf(ldapwire.ConstraintViolation, "%s: not an integer", d)
		}
		a.Values[i] = []byte(n.Add(n, by).String())
	}
	return nil
}

// Rename gives an entry another RDN, another superior, or both (RFC 4511 §4.9). What lies under the
// entry moves with it.
type Rename struct {
	DN             []byte
	NewRDN         []byte
	DeleteOldRDN   bool
	HasNewSuperior bool
	NewSuperior    []byte
}

func (op *Rename) apply(w *writing) error {
	s := w.store
	name, id, err := w.find(op.DN)
	if err != nil {
		return err
	}
	f, _, err := w.Get(id)
	if err != nil {
		return err
	}
	if f.rec.parent == 0 {
		return ldapwire.Errorf(ldapwire.UnwillingToPerform, "the suffix entry keeps its name")
	}
	rdn, err := s.schema.ParseRDN(op.NewRDN)
	if err != nil {
		return refuse(err)
	}
	for _, ava := range rdn {
		if ava.Type == nil {
			return ldapwire.Errorf(ldapwire.UndefinedAttributeType, "attribute type %q is not in the schema", ava.Name)
		}
		if err := s.checkWritable(dirschema.Description{Type: ava.Type}); err != nil {
			return err
		}
		if err := s.schema.Check(ava.Type, ava.Value); err != nil {
			return refuse(err)
		}
	}
	oldKey, err := w.treeKey(f.rec.parent, name)
	if err != nil {
		return err
	}
	if op.HasNewSuperior {
		if _, f.rec.parent, err = w.find(op.NewSuperior); err != nil {
			return err
		}
		if under, err := w.isUnder(f.rec.parent, id); err != nil {
			return err
		} else if under {
			return ldapwire.Errorf(ldapwire.UnwillingToPerform, "the new superior lies under the entry")
		}
	}
	newName := append(dirschema.DN{rdn}, name[1:]...)
	newKey, err := w.treeKey(f.rec.parent, newName)
	if err != nil {
		return refuse(err)
	}
	if other := w.child(f.rec.parent, newKey[8:]); other != 0 && other != id {
		if p := w.permit(); p != nil {
			if f, _, err := w.Get(other); err != nil || !w.See(&f, p.See) {
				return errNotPermitted
			}
		}
		return &ldapwire.Error{Code: ldapwire.EntryAlreadyExists}
	}
	old, err := w.Entry(&f)
	if err != nil {
		return err
	}
	e := old.clone()
	if op.DeleteOldRDN {
		for _, ava := range name[0] {
			d := dirschema.Description{Type: ava.Type}
			if a := e.Find(d); a != nil {
				if i := indexOf(ava.Type, a.Values, ava.Value); i >= 0 {
					e.Set(d, append(append([][]byte(nil), a.Values[:i]...), a.Values[i+1:]...)...)
				}
			}
		}
	}
	for _, ava := range rdn {
		e.include(ava)
	}
	e.DN = newName.String()
	if op.HasNewSuperior {
		if dn, err := s.schema.ParseDN(op.NewSuperior); err == nil {
			e.DN = append(dirschema.DN{rdn}, dn...).String()
		}
	}
	if p := w.permit(); p != nil {
		renamed, err := w.detached(e, e.DN)
		if err == nil {
			was, _, _ := w.Get(id)
			err = p.Rename(w.Reader, &was, &renamed, op)
		}
		if err != nil {
			return err
		}
	}
	if err := s.finishModify(w, &f, newName, old, e, Renamed); err != nil {
		return err
	}
	if err := w.treeB.Delete(oldKey); err != nil {
		return err
	}
	w.nodes = w.nodes || w.hasSubordinates(id)
	w.forget(id)
	return w.treeB.Put(newKey, binary.BigEndian.AppendUint64(nil, id))
}

// isUnder reports whether id is top or lies under it.
func (w *writing) isUnder(id, top uint64) (bool, error) {
	for id != 0 {
		if id == top {
			return true, nil
		}
		rec, ok, err := w.record(id)
		if err != nil || !ok {
			return false, err
		}
		id = rec.parent
	}
	return false, nil
}
