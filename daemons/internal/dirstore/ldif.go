package dirstore

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/google/uuid"

	"shoal/daemons/internal/ldapwire"
	"shoal/daemons/internal/ldif"
)

// Export and Import: the whole content as LDIF, operational attributes and passwords included, so that an import of
// an export is the same directory: the same entryUUIDs, CSNs and contextCSN. The form is that of slapcat and slapadd.
//
// An import replaces the whole content, by a Load: until its end everybody reads the old one, and any error leaves
// that. Updates are refused while it lasts.

// progressEvery is after how many entries progress is told.
const progressEvery = 1000

// Export writes every entry as LDIF, superiors before subordinates, from one state of the directory. progress, which
// may be nil, is told the number of entries now and then.
func (s *Store) Export(ctx context.Context, to io.Writer, progress func(entries int64)) (entries int64, err error) {
	r, err := s.Read()
	if err != nil {
		return 0, err
	}
	defer r.Close()
	out := bufio.NewWriterSize(to, 64<<10)
	head := ldif.AppendComment([]byte("version: 1\n\n"), fmt.Sprintf("%s, all entries with their operational attributes, as of %s", s.suffixText, s.opt.Clock.Now().UTC().Format(time.RFC3339)))
	if _, err := out.Write(append(head, "\n\n"...)); err != nil {
		return 0, fmt.Errorf("export: %w", err)
	}
	top := r.child(0, s.suffix)
	if top == 0 {
		return 0, out.Flush()
	}
	context := splitCSNs(string(r.tx.Bucket(bucketMeta).Get(keyContextCSN)))
	for w := r.Walk(top); ; {
		f, ok, err := r.NextOf(w)
		if err != nil {
			return entries, fmt.Errorf("export: %w", err)
		}
		if !ok {
			break
		}
		e, err := r.Entry(&f)
		if err != nil {
			return entries, fmt.Errorf("export: %w", err)
		}
		rec := ldif.Record{DN: e.DN}
		for _, a := range e.Attributes {
			rec.Attributes = append(rec.Attributes, ldif.Attribute{Name: a.Desc.String(), Values: a.Values})
		}
		if f.ID == top {
			c := ldif.Attribute{Name: "contextCSN"}
			for _, v := range context {
				c.Values = append(c.Values, []byte(v))
			}
			rec.Attributes = append(rec.Attributes, c)
		}
		if err := rec.Write(out); err != nil {
			return entries, fmt.Errorf("export: %w", err)
		}
		if entries++; entries%progressEvery == 0 {
			if progress != nil {
				progress(entries)
			}
			if err := ctx.Err(); err != nil {
				return entries, fmt.Errorf("export: %w", err)
			}
		}
	}
	if err := out.Flush(); err != nil {
		return entries, fmt.Errorf("export: %w", err)
	}
	return entries, nil
}

// ImportError is what is wrong with a record of an import.
type ImportError struct {
	Line int // where the record begins
	DN   string
	Err  error
}

func (e *ImportError) Error() string { return fmt.Sprintf("line %d: %s: %v", e.Line, e.DN, e.Err) }
func (e *ImportError) Unwrap() error { return e.Err }

// Import makes the content what the LDIF says, whole. Every entry is checked against the schema. Operational attributes
// are taken as they are; those that are missing are made, in the name of by. Passwords must be hashed. The error of
// a record is an *ImportError.
func (s *Store) Import(ctx context.Context, by string, from io.Reader, progress func(entries int64)) (entries int64, err error) {
	l, err := s.Load()
	if err != nil {
		return 0, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, l.Abort())
		}
	}()
	if err := s.freeze(); err != nil {
		return 0, err
	}
	defer s.frozen.Store(false)
	l.sequence = s.logSequence.Load() // no write is under way any more
	in := importing{s: s, l: l, by: by, now: s.opt.Clock.Now(), seen: map[string]csn{}}
	in.clock.sid = s.opt.SID
	for _, c := range s.ContextCSN() {
		in.clock.seen(c)
	}
	r := ldif.NewReader(from)
	for {
		rec, err := r.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return entries, fmt.Errorf("import: %w", err)
		}
		if err := in.add(rec); err != nil {
			return entries, fmt.Errorf("import: %w", &ImportError{rec.Line, rec.DN, err})
		}
		if entries++; entries%progressEvery == 0 {
			if progress != nil {
				progress(entries)
			}
			if err := ctx.Err(); err != nil {
				return entries, fmt.Errorf("import: %w", err)
			}
		}
	}
	return entries, in.finish(entries)
}

// freeze refuses updates from now on and waits for those before. The caller thaws.
func (s *Store) freeze() error {
	s.frozen.Store(true)
	if err := s.Do("", &buildStep{}); err != nil { // stands behind every write that was accepted, and does nothing
		s.frozen.Store(false)
		return err
	}
	return nil
}

// goesOn reports whether a write is done in a store whose content is being replaced: what changes no content.
func goesOn(w *Write) bool {
	switch w.Op.(type) {
	case *replacement, *buildStep, *indexList:
		return true
	}
	return false
}

var errFrozen = &ldapwire.Error{Code: ldapwire.Busy, Message: "the content of the directory is being replaced: try again later"}

// importing is an import under way.
type importing struct {
	s     *Store
	l     *Load
	by    string
	now   time.Time
	clock csnClock
	seen  map[string]csn // the newest CSN of each server
}

func (in *importing) note(c csn) {
	in.seen[CSNServer(c)] = max(in.seen[CSNServer(c)], c)
}

var errPlainPassword = errors.New("a password in clear: write its hash, {SCHEME}..., as slappasswd makes it")

func (in *importing) add(rec *ldif.Record) error {
	s := in.s
	if rec.Kind != ldif.Content && rec.Kind != ldif.Add {
		return fmt.Errorf("changetype %s: an import takes entries only", rec.Kind)
	}
	op := &Replicate{DN: []byte(rec.DN)}
	for _, a := range rec.Attributes {
		op.Attributes = append(op.Attributes, ldapwire.Attribute{Type: []byte(a.Name), Values: a.Values})
	}
	name, norm, e, err := op.entry(s)
	if err != nil {
		return err
	}
	if len(op.Skipped) > 0 {
		return fmt.Errorf("attribute %s is not in the schema", op.Skipped[0])
	}
	if _, twice := in.l.names[nameHash(norm)]; twice {
		return errors.New("the entry is there twice")
	}
	for _, a := range e.Attributes {
		for _, v := range a.Values {
			if err := s.schema.Check(a.Desc.Type, v); err != nil {
				return err
			}
			if a.Desc.Type.OID == userPassword && !bytes.HasPrefix(v, []byte("{")) {
				return errPlainPassword
			}
		}
		if i := duplicate(a.Desc.Type, a.Values); i >= 0 {
			return fmt.Errorf("%s: value #%d is given twice", a.Desc, i)
		}
	}
	for _, ava := range name[0] {
		e.include(ava)
	}
	cs, err := s.checkEntry(e)
	if err != nil {
		return err
	}
	when := []byte(in.now.UTC().Format(timeFormat))
	e.set(s, "structuralObjectClass", []byte(cs.Structural.Name()))
	if v := givenUUID(op); v != "" {
		if op.UUID, err = uuid.Parse(v); err != nil {
			return fmt.Errorf("entryUUID %q: %w", v, err)
		}
	} else {
		op.UUID = uuid.New()
	}
	e.set(s, "entryUUID", []byte(uuid.UUID(op.UUID).String()))
	if e.one("entryCSN") == "" {
		e.set(s, "entryCSN", []byte(in.clock.next(in.now)))
	}
	c := e.one("entryCSN")
	if !IsCSN(c) {
		return fmt.Errorf("entryCSN %q is not a CSN", c)
	}
	in.note(c)
	for attr, v := range map[string][]byte{"creatorsName": []byte(in.by), "createTimestamp": when, "modifiersName": []byte(in.by), "modifyTimestamp": when} {
		if e.Get(attr) == nil {
			e.set(s, attr, v)
		}
	}
	for _, a := range op.Attributes {
		if d, err := s.schema.Describe(a.Type); err == nil && virtualOf[d.Type.Name()] == virtualContextCSN {
			for _, v := range a.Values {
				if !IsCSN(string(v)) {
					return fmt.Errorf("contextCSN %q is not a CSN", v)
				}
				in.note(string(v))
			}
		}
	}
	op.Attributes = op.Attributes[:0]
	for _, a := range e.Attributes { // for an entry that is kept for later
		op.Attributes = append(op.Attributes, ldapwire.Attribute{Type: []byte(a.Desc.String()), Values: a.Values})
	}
	return in.l.place(op, name, norm, e)
}

func givenUUID(op *Replicate) string {
	for _, a := range op.Attributes {
		if bytes.EqualFold(a.Type, []byte("entryUUID")) && len(a.Values) == 1 {
			return string(a.Values[0])
		}
	}
	return ""
}

func (in *importing) finish(entries int64) error {
	inner, refused, err := in.l.Build()
	if err != nil {
		return err
	}
	if len(refused) > 0 {
		return fmt.Errorf("import: %d entries have no superior, the first is %s: %w", len(refused), refused[0].DN, refused[0].Err)
	}
	if have := inner.Entries(); have != entries {
		return fmt.Errorf("import: %d of %d entries have the entryUUID of another one", entries-have, entries)
	}
	end := &Context{Refresh: RefreshEnds}
	for _, c := range in.seen {
		end.CSNs = append(end.CSNs, c)
	}
	return in.l.Replace(end)
}
