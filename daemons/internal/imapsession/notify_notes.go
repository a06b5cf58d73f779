package imapsession

import (
	"context"
	"slices"
	"strings"

	"shoal/daemons/internal/imapwire"
	"shoal/daemons/internal/mailstore"
	"shoal/daemons/internal/sharing"
)

// notesTold is up to where a client of NOTIFY has been told about annotations (RFC 5465 §5.6 and §5.7).
type notesTold struct {
	own    *mailstore.Listing   // of the user's account
	server []sharing.Annotation // shared ones of the server
	made   map[string]bool      // changes of the session itself: mailbox id, NUL, entry
}

const notifyNotes = imapwire.NotifyMetadata | imapwire.NotifyServerMetadata

func (s *session) beginNotes(ctx context.Context, n *notify) (err error) {
	if n.events&notifyNotes == 0 {
		return nil
	}
	n.notes.server, n.notes.made = s.srv.limits().serverEntries(), map[string]bool{}
	n.notes.own, err = s.acc.Listing(ctx)
	return err
}

// mine notes changes that the session has made. It may be called on nil.
func (n *notify) mine(at *sharing.Notes, notes []sharing.Annotation) {
	if n == nil || n.notes.made == nil {
		return
	}
	for _, a := range notes {
		n.notes.made[at.Mailbox()+"\x00"+a.Entry] = true
	}
}

// tellNotified tells which annotations others have changed.
func (s *session) tellNotified(ctx context.Context, n *notify) error {
	if n.events&notifyNotes == 0 {
		return nil
	}
	changed := map[string][]string{} // by id of the mailbox, "": the server
	now, err := s.acc.Listing(ctx)
	if err != nil {
		return err
	}
	for id, entries := range sharing.ChangedNotes(n.notes.own, now) {
		changed[id] = entries
	}
	n.notes.own = now
	for _, o := range n.owners {
		now, err := o.acc.Listing(ctx)
		if err != nil {
			return err
		}
		for id, entries := range sharing.ChangedNotes(o.listing, now) {
			if b := n.names[id]; b != nil && b.place != nil {
				changed[id] = append(changed[id], slices.DeleteFunc(entries, sharing.Private)...) // the owner's private ones are his
			}
		}
		o.listing = now
	}
	if entries := s.srv.limits().serverEntries(); !slices.Equal(entries, n.notes.server) {
		for _, a := range append(slices.Clone(n.notes.server), entries...) {
			if !slices.Contains(entries, a) || !slices.Contains(n.notes.server, a) {
				changed[""] = append(changed[""], a.Entry)
			}
		}
		n.notes.server = entries
	}
	type line struct{ name, id string }
	var lines []line
	for id := range changed {
		b := n.names[id]
		switch {
		case id == "" && n.events&imapwire.NotifyServerMetadata != 0:
			lines = append(lines, line{})
		case id != "" && b != nil && b.events&imapwire.NotifyMetadata != 0:
			lines = append(lines, line{b.name, id})
		}
	}
	slices.SortFunc(lines, func(a, b line) int { return strings.Compare(a.name, b.name) })
	for _, l := range lines {
		s.writeNotified(n, l.name, l.id, changed[l.id])
	}
	clear(n.notes.made)
	return s.enc.Err()
}

// writeNotified writes a METADATA response without values.
func (s *session) writeNotified(n *notify, name, id string, entries []string) {
	slices.Sort(entries)
	entries = slices.DeleteFunc(slices.Compact(entries), func(entry string) bool { return n.notes.made[id+"\x00"+entry] })
	if len(entries) == 0 {
		return
	}
	s.srv.m.pushes.Inc()
	s.enc.Raw("* METADATA ")
	if name == "" {
		s.enc.Raw(`""`)
	} else {
		s.enc.Mailbox(name)
	}
	for _, entry := range entries {
		s.enc.SP().AString(entry)
	}
	s.enc.CRLF()
}
