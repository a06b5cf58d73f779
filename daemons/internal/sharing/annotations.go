package sharing

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"

	"shoal/daemons/internal/mailstore"
)

// Annotations (RFC 5464) are attributes:
//
//	note:<entry>              of a mailbox: all shared ones, and the private ones of its owner
//	note:<mailbox>:<entry>    of an account: private ones for a mailbox of somebody else, by its id
//	note::<entry>             of an account: private ones of the server
//
// <entry> is the name of the entry in lower case: names are compared without regard to case. A value is "t" and the text, or "b" and the
// bytes in base64 if they are no UTF-8. Shared annotations of the server are settings.
//
// Private annotations for a mailbox of somebody else lie with the user: they need no right to write to the owner's account and
// count against the user's bounds. When that mailbox is deleted they are left over.
const notesPrefix = "note:"

// Annotation is an entry with its value.
type Annotation struct {
	Entry string // "/private/..." or "/shared/..."; in lower case as it is stored
	Value string
	Unset bool // there is none, or it is to be removed
}

// Private reports whether an entry is the user's own.
func Private(entry string) bool { return strings.HasPrefix(entry, "/private") }

// ErrEntry: not the name of an entry.
var ErrEntry = errors.New("not the name of an annotation")

const maxEntry = 1000

// EntryName checks the name of an entry (RFC 5464 §3.2) and gives it in lower case. To be set it needs two components, four below
// vendor.
func EntryName(name string, set bool) (string, error) {
	bad := func(why string) (string, error) { return "", fmt.Errorf("%.60q: %w: %s", name, ErrEntry, why) }
	if len(name) > maxEntry {
		return bad("too long")
	}
	for i := range len(name) {
		if c := name[i]; c < 0x20 || c >= 0x7f || c == '*' || c == '%' {
			return bad("a character that cannot be")
		}
	}
	lower := strings.ToLower(name)
	levels := strings.Split(lower, "/")
	switch {
	case len(levels) < 2 || levels[0] != "" || levels[1] != "private" && levels[1] != "shared":
		return bad("it begins with /private or /shared")
	case strings.Contains(lower, "//") || strings.HasSuffix(lower, "/"):
		return bad("an empty level")
	case set && len(levels) < 3:
		return bad("it needs another level")
	case set && levels[2] == "vendor" && len(levels) < 5:
		return bad("it needs the name of a vendor and another level")
	}
	return lower, nil
}

// Notes are annotations of one mailbox, or of the server, as a user sees them.
type Notes struct {
	mailbox string // id; empty: the server
	foreign bool   // the mailbox is somebody else's
	own     *mailstore.Listing
	theirs  *mailstore.Listing // of the account of the mailbox; the same as own where it is the user's
}

// NotesOf gives the annotations of a mailbox in an account's list; own is the user's own list.
func NotesOf(theirs *mailstore.Listing, mailbox string, own *mailstore.Listing, foreign bool) *Notes {
	return &Notes{mailbox, foreign, own, theirs}
}

// ServerNotes gives the private annotations of the server.
func ServerNotes(own *mailstore.Listing) *Notes { return &Notes{own: own, theirs: own} }

// Mailbox is the id of the mailbox, empty for the server.
func (n *Notes) Mailbox() string { return n.mailbox }

// where tells in which list, at which mailbox and under which prefix an entry lies.
func (n *Notes) where(entry string) (l *mailstore.Listing, mailbox, prefix string) {
	if n.mailbox == "" || n.foreign && Private(entry) {
		return n.own, "", notesPrefix + n.mailbox + ":"
	}
	return n.theirs, n.mailbox, notesPrefix
}

// Get reads an annotation.
func (n *Notes) Get(entry string) (Annotation, bool) {
	l, mailbox, prefix := n.where(entry)
	value := l.Attr(mailbox, prefix+entry)
	return Annotation{Entry: entry, Value: noteValue(value)}, value != ""
}

// All reads all annotations.
func (n *Notes) All() []Annotation {
	var out []Annotation
	take := func(l *mailstore.Listing, mailbox, prefix string, want func(string) bool) {
		for entry, value := range l.Attrs(mailbox, prefix) {
			if strings.HasPrefix(entry, "/") && want(entry) {
				out = append(out, Annotation{Entry: entry, Value: noteValue(value)})
			}
		}
	}
	switch {
	case n.mailbox == "":
		take(n.own, "", notesPrefix+":", Private)
	case n.foreign:
		take(n.theirs, n.mailbox, notesPrefix, func(e string) bool { return !Private(e) })
		take(n.own, "", notesPrefix+n.mailbox+":", Private)
	default:
		take(n.theirs, n.mailbox, notesPrefix, func(string) bool { return true })
	}
	return out
}

func noteValue(stored string) string {
	if text, ok := strings.CutPrefix(stored, "t"); ok {
		return text
	}
	if text, ok := strings.CutPrefix(stored, "b"); ok {
		if b, err := base64.RawStdEncoding.DecodeString(text); err == nil {
			return string(b)
		}
	}
	return ""
}

func storedNote(a *Annotation) string {
	switch {
	case a.Unset:
		return ""
	case utf8.ValidString(a.Value):
		return "t" + a.Value
	}
	return "b" + base64.RawStdEncoding.EncodeToString([]byte(a.Value))
}

// NoteLimits bound annotations.
type NoteLimits struct {
	PerMailbox int   // entries of a mailbox, or of the server, that one account keeps
	Total      int64 // bytes of all that one account keeps
}

// SetNotes sets annotations, all or none. Those that are private of somebody else's mailbox go into the account own, the others into theirs,
// which has the mailbox. ErrTooMany.
func (n *Notes) SetNotes(ctx context.Context, own, theirs *mailstore.Account, lim NoteLimits, notes []Annotation) error {
	var mine, others []mailstore.Attr
	for i := range notes {
		l, mailbox, prefix := n.where(notes[i].Entry)
		x := mailstore.Attr{Mailbox: mailbox, Key: prefix + notes[i].Entry, Value: storedNote(&notes[i])}
		if l == n.own && (n.foreign || n.mailbox == "") {
			mine = append(mine, x)
		} else {
			others = append(others, x)
		}
	}
	if err := lim.check(n.theirs, others); err != nil {
		return err
	}
	if err := lim.check(n.own, mine); err != nil {
		return err
	}
	if err := theirs.SetAttrs(ctx, others...); err != nil {
		return err
	}
	if err := own.SetAttrs(ctx, mine...); err != nil {
		var back []mailstore.Attr
		for _, x := range others {
			back = append(back, mailstore.Attr{Mailbox: x.Mailbox, Key: x.Key, Value: n.theirs.Attr(x.Mailbox, x.Key)})
		}
		return errors.Join(err, theirs.SetAttrs(ctx, back...))
	}
	return nil
}

// check says whether an account has room for changes.
func (lim NoteLimits) check(l *mailstore.Listing, changes []mailstore.Attr) error {
	if len(changes) == 0 {
		return nil
	}
	prefix := changes[0].Key[:strings.IndexByte(changes[0].Key, '/')]
	after := l.Attrs(changes[0].Mailbox, prefix)
	if after == nil {
		after = map[string]string{}
	}
	grows := int64(0)
	for _, x := range changes {
		key := x.Key[len(prefix):]
		grows += int64(len(x.Value) - len(after[key]))
		if x.Value == "" {
			delete(after, key)
		} else {
			after[key] = x.Value
		}
	}
	if was := len(l.Attrs(changes[0].Mailbox, prefix)); len(after) > lim.PerMailbox && len(after) > was {
		return fmt.Errorf("%d annotations: %w", lim.PerMailbox, ErrTooMany)
	}
	if grows <= 0 {
		return nil
	}
	total := grows + noteBytes(l, "")
	for _, m := range l.Mailboxes() {
		total += noteBytes(l, m.ID)
	}
	if total > lim.Total {
		return fmt.Errorf("%d bytes of annotations: %w", lim.Total, ErrTooMany)
	}
	return nil
}

func noteBytes(l *mailstore.Listing, mailbox string) (n int64) {
	for key, value := range l.Attrs(mailbox, notesPrefix) {
		n += int64(len(key) + len(value))
	}
	return n
}

// ChangedNotes lists, for each mailbox of a list by id ("" for the server), the entries that are not what they were in an older one.
func ChangedNotes(was, now *mailstore.Listing) map[string][]string {
	out := map[string][]string{}
	compare := func(mailbox string) {
		a, b := was.Attrs(mailbox, notesPrefix), now.Attrs(mailbox, notesPrefix)
		add := func(key string) {
			at := mailbox
			if mailbox == "" {
				var ok bool
				if at, key, ok = strings.Cut(key, ":"); !ok {
					return
				}
			}
			out[at] = append(out[at], key)
		}
		for key, value := range b {
			if a[key] != value {
				add(key)
			}
		}
		for key := range a {
			if _, ok := b[key]; !ok {
				add(key)
			}
		}
	}
	compare("")
	for _, m := range now.Mailboxes() {
		compare(m.ID)
	}
	return out
}
