package shoalctl

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"shoal/daemons/internal/dirclient"
	"shoal/daemons/internal/ldif"
)

// plan is what a file of LDIF would change, compared with the directory as it is.
type plan struct {
	Steps []*step
}

// step is the change of one entry.
type step struct {
	DN     string   `json:"dn"`
	Kind   string   `json:"change"` // add, modify, delete, rename
	Lines  []string `json:"lines"`  // "- name: value", "+ name: value"
	Result string   `json:"result,omitempty"`

	do func(context.Context, *dirclient.Admin) error
}

// managed are attributes that the server keeps: they may stand in a file, and are not written.
var managed = map[string]bool{"entryuuid": true, "entrycsn": true, "creatorsname": true, "createtimestamp": true, "modifiersname": true,
	"modifytimestamp": true, "structuralobjectclass": true, "hassubordinates": true, "subschemasubentry": true, "entrydn": true, "contextcsn": true, "memberof": true}

// readPlan reads LDIF and compares it with the directory. A content record makes an entry like itself as far as it
// names attributes; with exact set, attributes that it does not name are removed.
func readPlan(ctx context.Context, a *dirclient.Admin, in io.Reader, exact bool) (*plan, error) {
	p := &plan{}
	made := map[string]bool{} // entries that the file adds
	for r := ldif.NewReader(in); ; {
		rec, err := r.Next()
		if err == io.EOF {
			return p, nil
		}
		if err != nil {
			return nil, err
		}
		s := &step{DN: rec.DN}
		switch rec.Kind {
		case ldif.Content, ldif.Add:
			var have *dirclient.Entry
			if rec.Kind == ldif.Content && !made[strings.ToLower(rec.DN)] {
				if have, err = entryAt(ctx, a, rec.DN); err != nil {
					return nil, err
				}
			}
			made[strings.ToLower(rec.DN)] = true
			if have == nil {
				s.add(rec)
			} else {
				s.difference(rec, have, exact)
			}
		case ldif.Delete:
			s.Kind, s.do = "delete", func(ctx context.Context, a *dirclient.Admin) error { return a.Delete(ctx, rec.DN) }
		case ldif.Modify:
			if err := s.modify(rec); err != nil {
				return nil, err
			}
		case ldif.ModDN:
			s.Kind, s.Lines = "rename", []string{"+ " + rec.NewRDN}
			if rec.HasNewSuperior {
				s.Lines[0] += "," + rec.NewSuperior
			}
			s.do = func(ctx context.Context, a *dirclient.Admin) error {
				return a.Rename(ctx, rec.DN, rec.NewRDN, rec.DeleteOld, rec.NewSuperior)
			}
		}
		if s.do != nil {
			p.Steps = append(p.Steps, s)
		}
	}
}

// entryAt reads an entry; nil if there is none.
func entryAt(ctx context.Context, a *dirclient.Admin, dn string) (found *dirclient.Entry, err error) {
	err = a.Search(ctx, dn, dirclient.ScopeBase, "(objectClass=*)", []string{"*"}, func(e dirclient.Entry) error {
		found = &e
		return nil
	})
	if errors.Is(err, dirclient.ErrNoSuchEntry) {
		return nil, nil
	}
	return found, err
}

// valueText shows a value in a preview, secrets not at all.
func valueText(name string, v []byte) string {
	if base, _, _ := strings.Cut(strings.ToLower(name), ";"); base == "userpassword" {
		return "(a password)"
	}
	if !isPlain(v) {
		return fmt.Sprintf("(%d octets)", len(v))
	}
	return cut(string(v), 200)
}

func isPlain(v []byte) bool {
	return !slices.ContainsFunc([]rune(string(v)), func(r rune) bool { return r < ' ' || r == 0x7f || r == 0xfffd })
}

func (s *step) line(sign, name string, v []byte) {
	s.Lines = append(s.Lines, sign+" "+name+": "+valueText(name, v))
}

func (s *step) add(rec *ldif.Record) {
	s.Kind = "add"
	e := dirclient.Entry{DN: rec.DN}
	for _, at := range rec.Attributes {
		if managed[strings.ToLower(at.Name)] {
			continue
		}
		out := dirclient.Attribute{Name: at.Name}
		for _, v := range at.Values {
			out.Values = append(out.Values, string(v))
			s.line("+", at.Name, v)
		}
		e.Attributes = append(e.Attributes, out)
	}
	s.do = func(ctx context.Context, a *dirclient.Admin) error { return a.Add(ctx, e) }
}

// difference names the values that come and go, so that somebody else's change in between is noticed: the value to
// remove is not there any more, or the one to add is.
func (s *step) difference(rec *ldif.Record, have *dirclient.Entry, exact bool) {
	var changes []dirclient.Change
	named := map[string]bool{}
	for _, at := range rec.Attributes {
		named[strings.ToLower(at.Name)] = true
		if managed[strings.ToLower(at.Name)] {
			continue
		}
		var old [][]byte
		for _, o := range have.Attributes {
			if strings.EqualFold(o.Name, at.Name) {
				for _, v := range o.Values {
					old = append(old, []byte(v))
				}
			}
		}
		gone, come := without(old, at.Values), without(at.Values, old)
		if base, _, _ := strings.Cut(strings.ToLower(at.Name), ";"); base == "userpassword" {
			// What is there cannot be read: what is given takes its place.
			s.line("+", at.Name, nil)
			changes = append(changes, dirclient.Change{Op: dirclient.OpReplace, Name: at.Name, Values: texts(at.Values)})
			continue
		}
		if strings.EqualFold(at.Name, "objectClass") && !exact {
			gone = nil // superclasses, which the directory adds by itself
		}
		for _, v := range gone {
			s.line("-", at.Name, v)
		}
		for _, v := range come {
			s.line("+", at.Name, v)
		}
		if len(gone) > 0 {
			changes = append(changes, dirclient.Change{Op: dirclient.OpDelete, Name: at.Name, Values: texts(gone)})
		}
		if len(come) > 0 {
			changes = append(changes, dirclient.Change{Op: dirclient.OpAdd, Name: at.Name, Values: texts(come)})
		}
	}
	for _, o := range have.Attributes {
		if !exact || named[strings.ToLower(o.Name)] || managed[strings.ToLower(o.Name)] {
			continue
		}
		for _, v := range o.Values {
			s.line("-", o.Name, []byte(v))
		}
		changes = append(changes, dirclient.Change{Op: dirclient.OpDelete, Name: o.Name, Values: o.Values})
	}
	if len(changes) == 0 {
		return
	}
	s.Kind = "modify"
	s.do = func(ctx context.Context, a *dirclient.Admin) error { return a.Modify(ctx, s.DN, changes...) }
}

// without gives the values of list that are not in other.
func without(list, other [][]byte) (rest [][]byte) {
	for _, v := range list {
		if !slices.ContainsFunc(other, func(o []byte) bool { return bytes.Equal(o, v) }) {
			rest = append(rest, v)
		}
	}
	return rest
}

func texts(values [][]byte) []string {
	list := make([]string, len(values))
	for i, v := range values {
		list[i] = string(v)
	}
	return list
}

func (s *step) modify(rec *ldif.Record) error {
	var changes []dirclient.Change
	for _, c := range rec.Changes {
		out := dirclient.Change{Name: c.Name, Values: texts(c.Values)}
		switch c.Op {
		case ldif.OpAdd:
			out.Op = dirclient.OpAdd
		case ldif.OpDelete:
			out.Op = dirclient.OpDelete
		case ldif.OpReplace:
			out.Op = dirclient.OpReplace
		default:
			return fmt.Errorf("line %d: %s: %s is not done here: use ldapmodify", rec.Line, rec.DN, c.Op)
		}
		if len(c.Values) == 0 {
			s.Lines = append(s.Lines, "- "+c.Name)
		}
		for _, v := range c.Values {
			sign := "+"
			if c.Op == ldif.OpDelete {
				sign = "-"
			}
			if c.Op == ldif.OpReplace {
				sign = "="
			}
			s.line(sign, c.Name, v)
		}
		changes = append(changes, out)
	}
	s.Kind = "modify"
	s.do = func(ctx context.Context, a *dirclient.Admin) error { return a.Modify(ctx, rec.DN, changes...) }
	return nil
}

// preview prints the steps.
func (p *plan) preview(w io.Writer) {
	for _, s := range p.Steps {
		fmt.Fprintf(w, "%s %s\n", s.Kind, printable(s.DN))
		for _, l := range s.Lines {
			fmt.Fprintf(w, "  %s\n", printable(l))
		}
	}
}

// carryOut makes the changes, and ends at the first that fails: those before it stay made.
func (p *plan) carryOut(ctx context.Context, a *dirclient.Admin) (done int, err error) {
	for _, s := range p.Steps {
		if err := s.do(ctx, a); err != nil {
			s.Result = err.Error()
			return done, fmt.Errorf("%s %s: %w", s.Kind, s.DN, err)
		}
		s.Result = "done"
		done++
	}
	return done, nil
}

// apply previews a plan, asks, and carries it out.
func (t *tool) apply(ctx context.Context, a *dirclient.Admin, p *plan, dry, yes bool) error {
	if !t.json {
		p.preview(t.out)
	}
	if len(p.Steps) == 0 {
		return t.show([]*step{}, func() { t.say("nothing to change") })
	}
	if dry {
		return t.show(p.Steps, func() { t.say("%d changes; nothing was changed (--dry-run)", len(p.Steps)) })
	}
	if !yes {
		if err := t.confirm(fmt.Sprintf("Make %d changes? [y/N] ", len(p.Steps))); err != nil {
			return err
		}
	}
	done, err := p.carryOut(ctx, a)
	if shown := t.show(p.Steps, func() { t.say("%d of %d changes made", done, len(p.Steps)) }); err == nil {
		err = shown
	}
	return err
}
