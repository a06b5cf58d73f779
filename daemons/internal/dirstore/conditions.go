package dirstore

import (
	"shoal/daemons/internal/dirschema"
	"shoal/daemons/internal/ldapwire"
)

// Conditions are what controls add to a write. They are looked at in the write's transaction: nothing
// comes between what they see and what the write does.
type Conditions struct {
	// Assert, if set, must match the entry as it is before the operation; of an add, as it would be
	// (RFC 4528).
	Assert *Filter
	// Before and After, if set, select what Seen tells of the entry (RFC 4527).
	Before, After *Selection
	// Dry makes every check and no change: the write is then refused with NoOperation.
	Dry bool
	// Permit, if set, decides whether the write is allowed.
	Permit Permit
	// Manage takes referral objects for ordinary entries (RFC 3296).
	Manage bool
}

// Seen gives the entry before and after the operation as Conditions selected it: the content of a
// SearchResultEntry, nil where nothing was selected or there is no entry. Call it after Wait.
func (w *Write) Seen() (before, after []byte) { return w.before, w.after }

// target is the name of the entry that an operation is about; nil for those of replicas.
func target(op Operation) []byte {
	switch op := op.(type) {
	case *Add:
		return op.DN
	case *Modify:
		return op.DN
	case *Delete:
		return op.DN
	case *Rename:
		return op.DN
	}
	return nil
}

// carryOut does one write within the transaction, with its conditions.
func (w *writing) carryOut(x *Write) error {
	x.err, x.csn, x.before, x.after = nil, "", nil, nil
	w.by, w.csn, w.write, w.last = x.By, "", x, 0
	w.fresh()
	if err := w.fence(x.Op); err != nil {
		return err
	}
	if err := w.precede(x); err != nil {
		return err
	}
	if err := x.Op.apply(w); err != nil {
		return err
	}
	x.csn = w.csn
	if x.After == nil || w.last == 0 {
		return nil
	}
	w.fresh()
	f, ok, err := w.Get(w.last)
	if err == nil && ok && (x.Permit == nil || w.See(&f, x.Permit.See)) {
		x.after, err = w.content(&f, x.After)
	}
	return err
}

// fresh makes the Reader see what was changed in the transaction: cursors do not survive changes, and
// new attributes may have got ids.
func (w *writing) fresh() {
	w.entry, w.tree, w.index = nil, nil, nil
	w.table = w.store.attrs.table.Load()
}

// precede looks at the entry before the operation.
func (w *writing) precede(x *Write) error {
	dn := target(x.Op)
	if dn == nil {
		return nil
	}
	if !x.Manage && w.store.Special()&HasReferrals != 0 {
		if _, norm, err := w.store.parseName(dn); err == nil {
			if err := w.referral(norm, dn, ldapwire.BaseObject, false); err != nil {
				return err
			}
		}
	}
	if _, add := x.Op.(*Add); add || x.Assert == nil && x.Before == nil {
		return nil
	}
	_, id, err := w.find(dn)
	if err != nil {
		return err
	}
	f, _, err := w.Get(id)
	if err != nil {
		return err
	}
	if x.Permit != nil && !w.See(&f, x.Permit.See) {
		return errNotPermitted
	}
	if x.Assert != nil && !x.Assert.matches(w.Reader, &f) {
		return errAssertion
	}
	if x.Before != nil {
		x.before, err = w.content(&f, x.Before)
	}
	return err
}

// errNotPermitted is the answer about what somebody may not see or do.
var errNotPermitted = &ldapwire.Error{Code: ldapwire.InsufficientAccessRights}

var (
	errAssertion   = &ldapwire.Error{Code: ldapwire.AssertionFailed}
	errNoOperation = ldapwire.Errorf(ldapwire.NoOperation, "the operation would succeed")
)

// assertNew is what Conditions ask of an entry that is to be added.
func (w *writing) assertNew(e *Entry) error {
	if x := w.write; x != nil && x.Assert != nil {
		f, err := w.detached(e, e.DN)
		if err != nil {
			return err
		}
		if x.Permit != nil && !w.See(&f, x.Permit.See) {
			return errNotPermitted
		}
		if !x.Assert.matches(w.Reader, &f) {
			return errAssertion
		}
	}
	return w.dry()
}

// dry stops a write that is to change nothing, where all is checked.
func (w *writing) dry() error {
	if w.write != nil && w.write.Dry {
		return errNoOperation
	}
	return nil
}

// content gives the selected part of an entry as the content of a SearchResultEntry.
func (r *Reader) content(f *Found, sel *Selection) ([]byte, error) {
	b, err := r.AppendEntry(nil, 1, f, sel, View{}, nil)
	if err != nil {
		return nil, err
	}
	var m ldapwire.Message
	if err := m.Parse(b, ldapwire.Limits{}); err != nil {
		return nil, err
	}
	return m.Body, nil
}

// Batch makes several writes in their order, all or none (RFC 5805). When one is refused, so is the
// batch, with its error; Failed then tells which. Operations of replicas do not belong into one.
type Batch struct {
	Writes []*Write
	Failed int
}

func (op *Batch) apply(w *writing) error {
	outer := w.write
	for i, x := range op.Writes {
		if err := w.carryOut(x); err != nil {
			op.Failed = i
			return err
		}
	}
	w.write, w.last = outer, 0
	return nil
}

// alone reports whether a write takes no part in a group.
func alone(w *Write) bool {
	_, batch := w.Op.(*Batch)
	return batch || replaces(w)
}

// maxTree bounds how many entries one tree delete removes: they share a transaction.
const maxTree = 100_000

// removeTree removes an entry with everything under it, from below.
func (w *writing) removeTree(id uint64) error {
	var ids []uint64
	for walk := w.Walk(id); ; {
		next, ok := walk.next(w.Reader)
		if !ok {
			break
		}
		if ids = append(ids, next); len(ids) > maxTree {
			return ldapwire.Errorf(ldapwire.AdminLimitExceeded, "the tree has more than %d entries: delete parts of it first", maxTree)
		}
	}
	f, _, err := w.Get(id)
	if err != nil {
		return err
	}
	if f.rec.parent == 0 {
		return ldapwire.Errorf(ldapwire.UnwillingToPerform, "the whole directory is not deleted at once")
	}
	if p := w.permit(); p != nil {
		for _, id := range ids {
			f, _, err := w.Get(id)
			if err == nil {
				err = p.Delete(w.Reader, &f)
			}
			if err != nil {
				return err
			}
		}
	}
	if err := w.dry(); err != nil {
		return err
	}
	for i := len(ids) - 1; i >= 0; i-- {
		w.fresh()
		f, _, err := w.Get(ids[i])
		if err != nil {
			return err
		}
		rdn, err := w.store.schema.ParseRDN(f.rec.rdn)
		if err != nil {
			return err
		}
		key, err := w.treeKey(f.rec.parent, dirschema.DN{rdn})
		if err != nil {
			return err
		}
		w.stamp()
		if err := w.remove(&f, key); err != nil {
			return err
		}
	}
	return nil
}
