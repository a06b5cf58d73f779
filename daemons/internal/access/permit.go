package access

import (
	"bytes"

	"shoal/daemons/internal/dirschema"
	"shoal/daemons/internal/dirstore"
	"shoal/daemons/internal/ldapwire"
)

// What updates need, asked in their transaction (dirstore.Permit):
//
//	add      add of entry and of every attribute given, and of children of the entry above
//	modify   of each attribute: add for values that come, delete for values that go, both for a replacement or an increment
//	delete   delete of entry, and of children of the entry above
//	rename   write of entry and of the attributes in the old and the new name; delete of children of the entry above, and add
//	         of children of the one that will be
//
// and whoever may not see an entry may not change it. An administrator of a domain is bound by administer.go beside.

// Permit is the view, as what decides about updates.
type Permit struct{ *View }

var errDenied = &ldapwire.Error{Code: ldapwire.InsufficientAccessRights}

func denied(what string, right string) error {
	return ldapwire.Errorf(ldapwire.InsufficientAccessRights, "%s: no right to %s", what, right)
}

// needs are the rights that one change of an attribute takes.
func needs(a *dirschema.AttributeType, right Rights) Rights {
	if granting[a.Name()] {
		return right | Manage
	}
	return right
}

// Add is told at dirstore.Permit.
func (p Permit) Add(r *dirstore.Reader, f *dirstore.Found, given []ldapwire.Attribute, entry *dirstore.Entry) error {
	g := p.must(r, f)
	if p.mayCreate(r, g, f, given) {
		return nil
	}
	if g.entry&Add == 0 || g.sight.Hidden {
		return errDenied
	}
	schema := p.engine.store.Schema()
	for i := range given {
		d, err := schema.Describe(given[i].Type)
		if err != nil {
			return ldapwire.Errorf(ldapwire.UndefinedAttributeType, "%v", err)
		}
		if need := needs(d.Type, Add); g.by[d.Type.Serial]&need != need {
			return denied(d.String(), "add")
		}
	}
	if err := p.naming(g, entry.DN, Add); err != nil {
		return err
	}
	norm, err := p.normal(r, f)
	if err != nil {
		return err
	}
	if err := p.children(r, norm, Add); err != nil {
		return err
	}
	if g.entry&(Administer|Manage) == Administer {
		return p.bounds(r, norm, nil, entry)
	}
	return nil
}

// naming asks for a right to the attributes that name an entry.
func (p Permit) naming(g *grant, dn string, right Rights) error {
	name, err := p.engine.store.Schema().ParseDN([]byte(dn))
	if err != nil || len(name) == 0 {
		return errDenied
	}
	for _, ava := range name[0] {
		if ava.Type == nil {
			return errDenied
		}
		if need := needs(ava.Type, right); g.by[ava.Type.Serial]&need != need {
			return denied(ava.Type.Name(), right.String())
		}
	}
	return nil
}

// children asks for a right to what lies directly under the entry above.
func (p Permit) children(r *dirstore.Reader, norm []byte, right Rights) error {
	if bytes.Equal(norm, p.engine.suffix) {
		return errDenied // there is nothing above that could be asked
	}
	i := bytes.IndexByte(norm, ',')
	if i < 0 {
		return errDenied
	}
	id, err := r.Resolve(norm[i+1:])
	if err != nil {
		return errDenied
	}
	up, ok, err := r.Get(id)
	if err != nil || !ok {
		return errDenied
	}
	if p.must(r, &up).children&right != right {
		return denied("children of the entry above", right.String())
	}
	return nil
}

func (p Permit) normal(r *dirstore.Reader, f *dirstore.Found) ([]byte, error) {
	s, err := p.subject(r, f)
	if err == nil {
		err = s.name()
	}
	return s.norm, err
}

// Modify is told at dirstore.Permit. entry is nil where only the changes are looked at.
func (p Permit) Modify(r *dirstore.Reader, f *dirstore.Found, changes []ldapwire.Change, entry *dirstore.Entry) error {
	g := p.must(r, f)
	if g.sight.Hidden && g.entry&Migrate == 0 {
		return errDenied
	}
	schema := p.engine.store.Schema()
	var refused error
	for i := range changes {
		c := &changes[i]
		d, err := schema.Describe(c.Type)
		if err != nil {
			return ldapwire.Errorf(ldapwire.UndefinedAttributeType, "%v", err)
		}
		right := Add
		switch c.Op {
		case ldapwire.ChangeDelete:
			right = Delete
		case ldapwire.ChangeReplace, ldapwire.ChangeIncrement:
			right = Write
		}
		if need := needs(d.Type, right); g.by[d.Type.Serial]&need != need {
			refused = denied(d.String(), right.String())
			break
		}
	}
	if refused != nil {
		if g.entry&Migrate != 0 && migrates(schema, changes) {
			return nil
		}
		return refused
	}
	if g.entry&(Administer|Manage) == Administer && entry != nil {
		norm, err := p.normal(r, f)
		if err != nil {
			return err
		}
		old, err := r.Entry(f)
		if err != nil {
			return err
		}
		return p.bounds(r, norm, old, entry)
	}
	return nil
}

// Delete is told at dirstore.Permit.
func (p Permit) Delete(r *dirstore.Reader, f *dirstore.Found) error {
	g := p.must(r, f)
	if g.sight.Hidden || g.entry&Delete == 0 {
		return errDenied
	}
	norm, err := p.normal(r, f)
	if err != nil {
		return err
	}
	if err := p.children(r, norm, Delete); err != nil {
		return err
	}
	if g.entry&(Administer|Manage) == Administer {
		return p.privileged(r, norm)
	}
	return nil
}

// Rename is told at dirstore.Permit.
func (p Permit) Rename(r *dirstore.Reader, f, renamed *dirstore.Found, op *dirstore.Rename) error {
	was, is := p.must(r, f), p.must(r, renamed)
	if was.sight.Hidden || is.sight.Hidden || was.entry&Write != Write || is.entry&Write != Write {
		return errDenied
	}
	old, err := r.Entry(f)
	if err != nil {
		return err
	}
	after, err := r.Entry(renamed)
	if err != nil {
		return err
	}
	if err := p.naming(is, after.DN, Add); err != nil {
		return err
	}
	if op.DeleteOldRDN {
		if err := p.naming(was, old.DN, Delete); err != nil {
			return err
		}
	}
	from, err := p.normal(r, f)
	if err != nil {
		return err
	}
	to, err := p.normal(r, renamed)
	if err != nil {
		return err
	}
	if err := p.children(r, from, Delete); err != nil {
		return err
	}
	if err := p.children(r, to, Add); err != nil {
		return err
	}
	if was.entry&(Administer|Manage) == Administer || is.entry&(Administer|Manage) == Administer {
		if err := p.privileged(r, from); err != nil {
			return err
		}
		return p.bounds(r, to, old, after)
	}
	return nil
}

// MayChangePassword reports whether the password of an entry may be changed by RFC 3062, and whether without the old one.
func (p Permit) MayChangePassword(r *dirstore.Reader, f *dirstore.Found) (may, freely bool) {
	g := p.must(r, f)
	rights := p.engine.rightsOf(g, "userPassword")
	freely = rights&Write == Write && !g.sight.Hidden
	if freely && g.entry&(Administer|Manage) == Administer {
		if norm, err := p.normal(r, f); err != nil || p.privileged(r, norm) != nil {
			freely = false
		}
	}
	own := f.ID == p.entry && rights&Password != 0
	return freely || own, freely && f.ID != p.entry
}
