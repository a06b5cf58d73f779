package imapsession

import (
	"context"
	"errors"
	"slices"
	"strings"

	"shoal/daemons/internal/imapwire"
	"shoal/daemons/internal/mailstore"
	"shoal/daemons/internal/sharing"
)

// Annotations of mailboxes and of the server (RFC 5464). How they are kept is package sharing's; the shared ones of the server are settings.

// metadataWant is what GETMETADATA and LIST RETURN (METADATA) ask for.
type metadataWant struct {
	entries []string // as the client writes them
	names   []string // the same in lower case
	depth   int      // levels below each entry; all of them: deep
	maxSize uint64
	sized   bool   // maxSize is given
	longest uint64 // of those left out for maxSize
}

const (
	deep       = 1 << 20
	maxEntries = 100 // of one command
)

// rights that annotations need beside Lookup (RFC 5464 §3.3).
const annotationRights = sharing.Read | sharing.Seen | sharing.Write | sharing.Insert | sharing.Post

// cmdGetMetadata is GETMETADATA (RFC 5464 §4.2).
//
//	getmetadata = "GETMETADATA" [SP options] SP mailbox [SP options] SP entries
//	options     = "(" option *(SP option) ")"
//	option      = "MAXSIZE" SP number / "DEPTH" SP ("0" / "1" / "infinity")
//	entries     = entry / "(" entry *(SP entry) ")"
//
// The grammar has the options before the mailbox, the examples behind it; clients do either.
func cmdGetMetadata(s *session, c *call) error {
	w := new(metadataWant)
	if err := s.dec.SP(); err != nil {
		return err
	}
	if s.dec.Peek() == '(' {
		if err := s.metadataOptions(w); err != nil {
			return err
		}
		if err := s.dec.SP(); err != nil {
			return err
		}
	}
	name, err := s.dec.Mailbox()
	if err != nil {
		return err
	}
	if err := s.dec.SP(); err != nil {
		return err
	}
	if err := s.metadataEntries(w); err != nil {
		return err
	}
	if err := s.dec.End(); err != nil {
		return err
	}
	notes, err := s.notesAt(c.ctx, name)
	if err != nil {
		return err
	}
	s.writeMetadata(name, notes, w)
	w.tell(c)
	return s.enc.Err()
}

// metadataOptions takes options in parentheses.
func (s *session) metadataOptions(w *metadataWant) error {
	return s.dec.List(func() error { return s.metadataOption(w) })
}

func (s *session) metadataOption(w *metadataWant) error {
	word, err := s.dec.Keyword()
	if err != nil {
		return err
	}
	if err := s.dec.SP(); err != nil {
		return err
	}
	switch word {
	case "MAXSIZE":
		w.sized = true
		w.maxSize, err = s.dec.Number()
		return err
	case "DEPTH":
		if word, err = s.dec.Keyword(); err != nil {
			return err
		}
		switch word {
		case "0":
			w.depth = 0
		case "1":
			w.depth = 1
		case "INFINITY":
			w.depth = deep
		default:
			return badf("DEPTH is 0, 1 or infinity")
		}
		return nil
	}
	return badf("Unknown option of GETMETADATA: %s", word)
}

// metadataEntries takes entries, or options and entries.
func (s *session) metadataEntries(w *metadataWant) error {
	take := func() error {
		entry, err := s.dec.AString()
		if err != nil {
			return err
		}
		name, err := sharing.EntryName(entry, false)
		if err != nil {
			return badf("%v", err)
		}
		if len(w.entries) == maxEntries {
			return no("LIMIT", "Too many entries")
		}
		w.entries, w.names = append(w.entries, entry), append(w.names, name)
		return nil
	}
	if s.dec.Peek() != '(' {
		return take()
	}
	options := false
	err := s.dec.List(func() error {
		if c := s.dec.Peek(); len(w.entries) == 0 && c != '/' && c != '"' && c != '{' {
			options = true
		}
		if options {
			return s.metadataOption(w)
		}
		return take()
	})
	if err != nil || !options {
		if err == nil && len(w.entries) == 0 {
			err = badf("No entries are named")
		}
		return err
	}
	if err := s.dec.SP(); err != nil {
		return err
	}
	if s.dec.Peek() != '(' {
		return take()
	}
	if err := s.dec.List(take); err != nil {
		return err
	}
	if len(w.entries) == 0 {
		return badf("No entries are named")
	}
	return nil
}

// takeListMetadata takes what LIST RETURN (METADATA ...) asks for (RFC 9590 §3).
func (s *session) takeListMetadata() (*metadataWant, error) {
	w := new(metadataWant)
	return w, s.metadataEntries(w)
}

// tell sets the response code that names the size of the longest value that MAXSIZE left out.
func (w *metadataWant) tell(c *call) {
	if w.longest > 0 {
		c.ok("METADATA LONGENTRIES "+itoa(w.longest), "")
	}
}

func (l *listing) longEntries(c *call) {
	if l.metadata != nil {
		l.metadata.tell(c)
	}
}

// annotated are annotations of a mailbox or of the server.
type annotated interface {
	Get(entry string) (sharing.Annotation, bool)
	All() []sharing.Annotation
}

// notesAt finds the annotations of a mailbox, or of the server for the empty name.
func (s *session) notesAt(ctx context.Context, name string) (annotated, error) {
	if name == "" {
		own, err := s.acc.Listing(ctx)
		if err != nil {
			return nil, err
		}
		return s.serverNotes(own), nil
	}
	p, err := s.annotatedPlace(ctx, name)
	if err != nil {
		return nil, err
	}
	return s.notesOf(ctx, p)
}

// annotatedPlace is the place of a mailbox whose annotations the user may read.
func (s *session) annotatedPlace(ctx context.Context, name string) (*place, error) {
	p, err := s.place(ctx, name)
	if err != nil {
		return nil, err
	}
	if err := p.list(ctx); err != nil {
		return nil, err
	}
	switch {
	case p.box == "" || !p.rights.Has(sharing.Lookup):
		return nil, errNoSuchMailbox
	case !p.rights.Any(annotationRights):
		return nil, errNoRight
	}
	return p, nil
}

func (s *session) notesOf(ctx context.Context, p *place) (*sharing.Notes, error) {
	own := p.listing
	if p.foreign {
		var err error
		if own, err = s.acc.Listing(ctx); err != nil {
			return nil, err
		}
	}
	return sharing.NotesOf(p.listing, p.box, own, p.foreign), nil
}

// serverNotes are the annotations of the server: private ones of the user, and what the configuration says.
type serverNotes struct {
	*sharing.Notes
	shared []sharing.Annotation
}

func (s *session) serverNotes(own *mailstore.Listing) *serverNotes {
	return &serverNotes{sharing.ServerNotes(own), s.srv.limits().serverEntries()}
}

// serverEntries are the shared annotations of the server (RFC 5464 §3.2.1.1).
func (l *Limits) serverEntries() (out []sharing.Annotation) {
	if l.ServerComment != "" {
		out = append(out, sharing.Annotation{Entry: "/shared/comment", Value: l.ServerComment})
	}
	if l.AdminContact != "" {
		out = append(out, sharing.Annotation{Entry: "/shared/admin", Value: l.AdminContact})
	}
	return out
}

func (n *serverNotes) Get(entry string) (sharing.Annotation, bool) {
	for _, a := range n.shared {
		if a.Entry == entry {
			return a, true
		}
	}
	if !sharing.Private(entry) {
		return sharing.Annotation{}, false
	}
	return n.Notes.Get(entry)
}

func (n *serverNotes) All() []sharing.Annotation { return append(n.Notes.All(), n.shared...) }

// writeMetadata writes the METADATA response with values. An entry that is asked for and not there is given as NIL, unless what lies below it
// is asked for as well.
func (s *session) writeMetadata(name string, notes annotated, w *metadataWant) {
	var all []sharing.Annotation
	if w.depth > 0 {
		all = notes.All()
		slices.SortFunc(all, func(a, b sharing.Annotation) int { return strings.Compare(a.Entry, b.Entry) })
	}
	e, n := &s.enc, 0
	given := map[string]bool{}
	give := func(entry string, a sharing.Annotation, there bool) {
		lower := strings.ToLower(entry)
		if given[lower] {
			return
		}
		given[lower] = true
		if there && w.sized && uint64(len(a.Value)) > w.maxSize {
			w.longest = max(w.longest, uint64(len(a.Value)))
			return
		}
		if n++; n == 1 {
			e.Raw("* METADATA ").Mailbox(name).Raw(" (")
		} else {
			e.SP()
		}
		e.AString(entry).SP()
		writeNote(e, a.Value, there)
	}
	for i, entry := range w.entries {
		if a, ok := notes.Get(w.names[i]); ok || w.depth == 0 {
			give(entry, a, ok)
		}
		for _, a := range all {
			below, ok := strings.CutPrefix(a.Entry, w.names[i]+"/")
			if ok && strings.Count(below, "/") < w.depth {
				give(a.Entry, a, true)
			}
		}
	}
	if n > 0 {
		e.Raw(")\r\n")
	}
}

func writeNote(e *imapwire.Encoder, value string, there bool) {
	if strings.IndexByte(value, 0) >= 0 {
		e.LiteralHeader(int64(len(value)), true).Raw(value)
		return
	}
	e.NString(value, there)
}

// listMetadata writes the annotations of a mailbox that LIST found (RFC 9590 §3). What the user may not read is left out.
func (s *session) listMetadata(ctx context.Context, w *metadataWant, n *node) error {
	if !n.place.rights.Any(annotationRights) {
		return nil
	}
	notes, err := s.notesOf(ctx, n.place)
	if err != nil {
		return err
	}
	s.writeMetadata(n.name, notes, w)
	return s.enc.Err()
}

// cmdSetMetadata is SETMETADATA (RFC 5464 §4.3).
//
//	setmetadata = "SETMETADATA" SP mailbox SP "(" entry SP value *(SP entry SP value) ")"
//	value       = nstring / literal8
func cmdSetMetadata(s *session, c *call) error {
	if err := s.dec.SP(); err != nil {
		return err
	}
	name, err := s.dec.Mailbox()
	if err != nil {
		return err
	}
	if err := s.dec.SP(); err != nil {
		return err
	}
	notes, err := s.takeNotes()
	if err != nil {
		return err
	}
	if err := s.dec.End(); err != nil {
		return err
	}
	lim := s.srv.limits()
	for _, a := range notes {
		if len(a.Value) > int(lim.AnnotationSize) {
			return s.noteTooBig()
		}
	}
	return s.setNotes(c.ctx, name, notes)
}

func (s *session) noteTooBig() error {
	return no("METADATA MAXSIZE "+itoa(uint64(s.srv.limits().AnnotationSize)), "The value is too large")
}

// takeNotes takes entries with values.
func (s *session) takeNotes() ([]sharing.Annotation, error) {
	var notes []sharing.Annotation
	entry := ""
	err := s.dec.List(func() (err error) {
		if entry == "" {
			text, err := s.dec.AString()
			if err != nil {
				return err
			}
			if entry, err = sharing.EntryName(text, true); err != nil {
				return badf("%v", err)
			}
			return nil
		}
		if len(notes) == maxEntries {
			return no("METADATA TOOMANY", "Too many entries")
		}
		value, there, err := s.dec.NString()
		var big *imapwire.TooBigError
		if errors.As(err, &big) {
			return s.noteTooBig()
		}
		if err != nil {
			return err
		}
		a := sharing.Annotation{Entry: entry, Value: value, Unset: !there}
		if i := slices.IndexFunc(notes, func(x sharing.Annotation) bool { return x.Entry == entry }); i >= 0 {
			notes[i] = a
		} else {
			notes = append(notes, a)
		}
		entry = ""
		return nil
	})
	switch {
	case err != nil:
		return nil, err
	case entry != "" || len(notes) == 0:
		return nil, badf("SETMETADATA needs pairs of entry and value")
	}
	return notes, nil
}

func (s *session) setNotes(ctx context.Context, name string, notes []sharing.Annotation) error {
	lim := sharing.NoteLimits{PerMailbox: s.srv.limits().Annotations, Total: int64(s.srv.limits().AnnotationStorage)}
	var n *sharing.Notes
	theirs := s.acc
	if name == "" {
		for _, a := range notes {
			if !sharing.Private(a.Entry) {
				return no("NOPERM", "Shared annotations of the server are set by its operator")
			}
			if err := s.checkFilter(&a); err != nil {
				return err
			}
		}
		own, err := s.acc.Listing(ctx)
		if err != nil {
			return err
		}
		n = sharing.ServerNotes(own)
	} else {
		p, err := s.annotatedPlace(ctx, name)
		if err != nil {
			return err
		}
		for _, a := range notes {
			if !sharing.Private(a.Entry) && !p.rights.Has(sharing.Write) {
				return errNoRight
			}
		}
		if n, err = s.notesOf(ctx, p); err != nil {
			return err
		}
		theirs = p.acc
	}
	err := n.SetNotes(ctx, s.acc, theirs, lim, notes)
	if errors.Is(err, sharing.ErrTooMany) {
		return no("METADATA TOOMANY", "There are too many annotations")
	}
	if err == nil {
		s.news.mine(n, notes)
		s.note.mine(n, notes)
	}
	return err
}
