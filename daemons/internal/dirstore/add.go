package dirstore

import (
	"bytes"
	"encoding/binary"
	"time"

	"github.com/google/uuid"

	"shoal/daemons/internal/dirschema"
	"shoal/daemons/internal/ldapwire"
)

// Add makes an entry (RFC 4511 §4.7).
type Add struct {
	DN         []byte
	Attributes []ldapwire.Attribute
	// Adjust, if set, changes the entry further, with attributes that only the server sets too.
	Adjust func(entry *Entry)
}

func (op *Add) apply(w *writing) error {
	s := w.store
	name, norm, err := s.parseName(op.DN)
	if err != nil {
		return err
	}
	if len(name) == 0 || !s.Holds(norm) {
		return ldapwire.Errorf(ldapwire.NoSuchObject, "%q is not under %s", op.DN, s.suffixText)
	}
	top := bytes.Equal(norm, s.suffix)
	var parent uint64
	rdnNorm, up := splitNorm(norm)
	if top {
		rdnNorm = norm
	} else if parent, err = w.Resolve(up); err != nil {
		return err
	}
	if other := w.child(parent, rdnNorm); other != 0 {
		if p := w.permit(); p != nil {
			if f, _, err := w.Get(other); err != nil || !w.See(&f, p.See) {
				return errNotPermitted
			}
		}
		return &ldapwire.Error{Code: ldapwire.EntryAlreadyExists}
	}
	attrs, err := s.attributesOf(op.Attributes, true)
	if err != nil {
		return err
	}
	e := &Entry{DN: name.String(), Attributes: attrs}
	for _, ava := range name[0] {
		if ava.Type == nil {
			return ldapwire.Errorf(ldapwire.UndefinedAttributeType, "attribute type %q is not in the schema", ava.Name)
		}
		e.include(ava)
	}
	if op.Adjust != nil {
		op.Adjust(e)
	}
	if s.opt.Maintain != nil {
		s.opt.Maintain(nil, e)
	}
	cs, err := s.checkEntry(e)
	if err != nil {
		return err
	}
	if p := w.permit(); p != nil {
		f, err := w.detached(e, e.DN)
		if err == nil {
			err = p.Add(w.Reader, &f, op.Attributes, e)
		}
		if err != nil {
			return err
		}
	}
	if err := w.assertNew(e); err != nil {
		return err
	}
	w.stamp()
	when := []byte(w.now.Format(timeFormat))
	e.set(s, "structuralObjectClass", []byte(cs.Structural.Name()))
	e.set(s, "entryUUID", []byte(uuid.NewString()))
	e.set(s, "creatorsName", []byte(w.by))
	e.set(s, "createTimestamp", when)
	e.set(s, "entryCSN", []byte(w.csn))
	e.set(s, "modifiersName", []byte(w.by))
	e.set(s, "modifyTimestamp", when)
	id, err := w.entryB.NextSequence()
	if err != nil {
		return err
	}
	rdn := name[0].Append(nil)
	if top {
		rdn = []byte(name.String())
	}
	if err := w.put(id, parent, rdn, nil, e.Attributes); err != nil {
		return err
	}
	if err := w.treeB.Put(append(idKey(nil, parent), rdnNorm...), binary.BigEndian.AppendUint64(nil, id)); err != nil {
		return err
	}
	w.entries++
	return w.log(Added, id, e.uuid(s), w.csn)
}

// timeFormat is how operational attributes write a time.
const timeFormat = "20060102150405Z"

// attributesOf resolves and checks the attributes of a request.
func (s *Store) attributesOf(list []ldapwire.Attribute, byUser bool) ([]Attribute, error) {
	var out []Attribute
	for _, a := range list {
		d, err := s.schema.Describe(a.Type)
		if err != nil {
			return nil, refuse(err)
		}
		if byUser {
			if err := s.checkWritable(d); err != nil {
				return nil, err
			}
		}
		if virtualOf[d.Type.Name()] != 0 {
			continue
		}
		values := make([][]byte, 0, len(a.Values))
		for _, v := range a.Values {
			if byUser {
				if err := s.schema.Check(d.Type, v); err != nil {
					return nil, refuse(err)
				}
			}
			values = append(values, bytes.Clone(v))
		}
		if byUser {
			if i := duplicate(d.Type, values); i >= 0 {
				return nil, ldapwire.Errorf(ldapwire.AttributeOrValueExists, "%s: value #%d is given twice", d, i)
			}
		}
		for _, have := range out {
			if have.Desc == d {
				return nil, ldapwire.Errorf(ldapwire.AttributeOrValueExists, "%s is given twice", d)
			}
		}
		out = append(out, Attribute{d, values})
	}
	return out, nil
}

// checkWritable refuses what only the server sets.
func (s *Store) checkWritable(d dirschema.Description) error {
	if d.Type.NoUserMod {
		return ldapwire.Errorf(ldapwire.ConstraintViolation, "%s: no user modification allowed", d)
	}
	if d.Range() {
		return ldapwire.Errorf(ldapwire.UndefinedAttributeType, "%s: a range of languages is no attribute", d)
	}
	return nil
}

// duplicate finds a value that equals an earlier one; -1 if there is none.
func duplicate(t *dirschema.AttributeType, values [][]byte) int {
	if len(values) < 2 {
		return -1
	}
	seen := make(map[string]struct{}, len(values))
	for i, v := range values {
		n := string(normalForm(t, v))
		if _, twice := seen[n]; twice {
			return i
		}
		seen[n] = struct{}{}
	}
	return -1
}

// checkEntry checks a whole entry against the schema, and adds superclasses that its object classes
// imply (RFC 4512 §3.3).
func (s *Store) checkEntry(e *Entry) (*dirschema.Classes, error) {
	classes := dirschema.Description{Type: s.objectClass}
	oc := e.Find(classes)
	if oc == nil {
		return nil, ldapwire.Errorf(ldapwire.ObjectClassViolation, "no objectClass")
	}
	cs, err := s.schema.CheckClasses(oc.Values)
	if err != nil {
		return nil, refuse(err)
	}
	for _, c := range cs.Implied {
		oc.Values = append(oc.Values, []byte(c.Name()))
	}
	types := make([]*dirschema.AttributeType, 0, len(e.Attributes))
	for _, a := range e.Attributes {
		types = append(types, a.Desc.Type)
		if a.Desc.Type.Single && len(a.Values) > 1 {
			return nil, ldapwire.Errorf(ldapwire.ConstraintViolation, "%s takes a single value", a.Desc)
		}
	}
	if s.opt.Check != nil {
		if err := s.opt.Check(e); err != nil {
			return nil, err
		}
	}
	err = cs.Check(types, func(t *dirschema.AttributeType) bool {
		for _, x := range types {
			if x == t {
				return true
			}
		}
		return false
	})
	if err != nil {
		return nil, refuse(err)
	}
	return cs, nil
}

// include adds a value of the name to the entry, unless it is there.
func (e *Entry) include(ava dirschema.AVA) {
	d := dirschema.Description{Type: ava.Type}
	if a := e.Find(d); a == nil {
		e.Attributes = append(e.Attributes, Attribute{d, [][]byte{bytes.Clone(ava.Value)}})
	} else if indexOf(ava.Type, a.Values, ava.Value) < 0 {
		a.Values = append(a.Values, bytes.Clone(ava.Value))
	}
}

func (e *Entry) set(s *Store, name string, v []byte) {
	e.Set(dirschema.Description{Type: s.schema.Attribute([]byte(name))}, v)
}

func (e *Entry) one(name string) string {
	if v := e.Get(name); len(v) > 0 {
		return string(v[0])
	}
	return ""
}

// uuid is the entryUUID as 16 octets.
func (e *Entry) uuid(s *Store) []byte {
	n, err := s.schema.Attribute([]byte("entryUUID")).Equality.Normalize(nil, []byte(e.one("entryUUID")))
	if err != nil {
		return make([]byte, 16)
	}
	return n
}

// touch sets the operational attributes of a change.
func (w *writing) touch(e *Entry) {
	w.stamp()
	e.set(w.store, "entryCSN", []byte(w.csn))
	e.set(w.store, "modifiersName", []byte(w.by))
	e.set(w.store, "modifyTimestamp", []byte(w.now.Format(timeFormat)))
}

// Delete removes an entry (RFC 4511 §4.8), which must have no subordinates; with Tree these go with it
// (draft-armijo-ldap-treedelete).
type Delete struct {
	DN   []byte
	Tree bool
}

func (op *Delete) apply(w *writing) error {
	name, id, err := w.find(op.DN)
	if err != nil {
		return err
	}
	f, _, err := w.Get(id)
	if err != nil {
		return err
	}
	key, err := w.treeKey(f.rec.parent, name)
	if err != nil {
		return err
	}
	if w.hasSubordinates(id) {
		if op.Tree {
			return w.removeTree(id)
		}
		return notLeaf
	}
	if p := w.permit(); p != nil {
		if err := p.Delete(w.Reader, &f); err != nil {
			return err
		}
	}
	if err := w.dry(); err != nil {
		return err
	}
	w.stamp()
	return w.remove(&f, key)
}

var notLeaf = ldapwire.Errorf(ldapwire.NotAllowedOnNonLeaf, "the entry has subordinates")

// remove takes an entry out of everything and logs that.
func (w *writing) remove(f *Found, key []byte) error {
	if w.hasSubordinates(f.ID) {
		return notLeaf
	}
	attrs, err := decodeAttributes(w.table, &f.rec)
	if err != nil {
		return err
	}
	if err := w.treeB.Delete(key); err != nil {
		return err
	}
	if err := w.entryB.Delete(idKey(nil, f.ID)); err != nil {
		return err
	}
	if err := updateIndex(w.indexB, f.ID, w.store.keysOf(attrs), nil); err != nil {
		return err
	}
	w.entries--
	w.forget(f.ID)
	w.watch(attrs, nil)
	e := Entry{Attributes: attrs}
	return w.log(Deleted, f.ID, e.uuid(w.store), w.csn)
}

// forget drops the cache of names if the entry is in it.
func (w *writing) forget(id uint64) {
	c := w.store.base.nodes.Load()
	c.mu.RLock()
	_, known := c.byID[id]
	c.mu.RUnlock()
	w.nodes = w.nodes || known
}

// treeKey is the key of an entry with this name below parent.
func (w *writing) treeKey(parent uint64, name dirschema.DN) ([]byte, error) {
	key := idKey(nil, parent)
	if parent == 0 {
		return append(key, w.store.suffix...), nil
	}
	return name[0].AppendNormal(key)
}

// Age is how long ago a CSN was made, by this clock.
func Age(c string, now time.Time) time.Duration {
	t, _, ok := parseCSN(c)
	if !ok {
		return 0
	}
	return now.Sub(t)
}
