package imapsession

import (
	"context"
	"slices"

	"shoal/daemons/internal/mailstore"
	"shoal/daemons/internal/sharing"
)

// noteNews is what a session that has said ENABLE METADATA is told of: changes of annotations by others (RFC 5464 §4.4) of the user's own
// mailboxes, of the selected mailbox if it is somebody else's, and of the server. It follows the user's account.
type noteNews struct {
	watch  *mailstore.Watcher
	own    *mailstore.Listing   // told up to here
	theirs *mailstore.Listing   // of the account of the selected mailbox
	box    string               // the id of that
	server []sharing.Annotation // shared ones of the server
	made   map[string]bool      // changes of the session itself, which need not be told: mailbox id, NUL, entry
}

// enableMetadata begins to tell.
func (s *session) enableMetadata(ctx context.Context) error {
	if s.news != nil {
		return nil
	}
	n := &noteNews{server: s.srv.limits().serverEntries(), made: map[string]bool{}}
	var err error
	if n.watch, err = s.acc.WatchFunc(ctx, func() {
		if s.pushing.Load() {
			s.signal(eventPush)
		}
	}); err != nil {
		return err
	}
	if n.own, err = s.acc.Listing(ctx); err != nil {
		n.watch.Close()
		return err
	}
	s.news = n
	return nil
}

func (n *noteNews) close() {
	if n != nil {
		n.watch.Close()
	}
}

// mine notes changes that the session has made.
func (n *noteNews) mine(at *sharing.Notes, notes []sharing.Annotation) {
	if n == nil {
		return
	}
	for _, a := range notes {
		n.made[at.Mailbox()+"\x00"+a.Entry] = true
	}
}

// tellNotes tells which annotations others have changed. It asks the volume only with ask.
func (s *session) tellNotes(ctx context.Context, ask bool) error {
	n := s.news
	if n == nil || s.note != nil { // NOTIFY says what is told, and tells it
		return nil
	}
	now := s.acc.KnownListing()
	if now == nil || ask {
		var err error
		if now, err = s.acc.Listing(ctx); err != nil {
			return err
		}
	}
	if now.Commit() > n.own.Commit() {
		for id, entries := range sharing.ChangedNotes(n.own, now) {
			if name, ok := s.noteMailbox(now, id); ok {
				s.writeChangedNotes(name, id, entries)
			}
		}
		n.own = now
	}
	s.tellTheirNotes()
	if entries := s.srv.limits().serverEntries(); !slices.Equal(entries, n.server) {
		var names []string
		for _, a := range append(slices.Clone(n.server), entries...) {
			if !slices.Contains(names, a.Entry) && (!slices.Contains(entries, a) || !slices.Contains(n.server, a)) {
				names = append(names, a.Entry)
			}
		}
		n.server = entries
		s.writeChangedNotes("", "", names)
	}
	clear(n.made)
	return s.enc.Err()
}

// pushAnnotations is tellNotes between commands.
func (s *session) pushAnnotations(ctx context.Context) error {
	if err := s.tellNotes(ctx, false); err != nil {
		return s.lostMailbox(err)
	}
	return nil
}

// noteMailbox is the name of a mailbox that the user's own list has annotations for.
func (s *session) noteMailbox(l *mailstore.Listing, id string) (string, bool) {
	if id == "" {
		return "", true
	}
	if m, ok := l.MailboxByID(id); ok {
		return m.Name, true
	}
	if s.box != nil && s.box.shared != nil && s.box.shared.p.box == id {
		return s.box.name, true
	}
	return "", false
}

// tellTheirNotes tells of the selected mailbox if it is somebody else's.
func (s *session) tellTheirNotes() {
	n := s.news
	if s.box == nil || s.box.shared == nil {
		n.theirs, n.box = nil, ""
		return
	}
	p := s.box.shared.p
	was := n.theirs
	n.theirs = p.listing
	if n.box != p.box || was == nil {
		n.box = p.box
		return
	}
	if p.listing.Commit() <= was.Commit() || !p.rights.Has(sharing.Lookup) {
		return
	}
	var shared []string
	for _, entry := range sharing.ChangedNotes(was, p.listing)[p.box] {
		if !sharing.Private(entry) { // the owner's private ones are his
			shared = append(shared, entry)
		}
	}
	s.writeChangedNotes(s.box.name, p.box, shared)
}

// writeChangedNotes writes a METADATA response without values.
func (s *session) writeChangedNotes(name, id string, entries []string) {
	slices.Sort(entries)
	told := false
	for _, entry := range entries {
		if s.news.made[id+"\x00"+entry] {
			continue
		}
		if !told {
			s.enc.Raw("* METADATA ").Mailbox(name)
			told = true
		}
		s.enc.SP().AString(entry)
	}
	if told {
		s.enc.CRLF()
	}
}
