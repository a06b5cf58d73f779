package imapsession

import (
	"context"
	"errors"

	"shoal/daemons/internal/imapwire"
	"shoal/daemons/internal/mailstore"
	"shoal/daemons/internal/sharing"
)

// fetch is a FETCH command in progress.
type fetch struct {
	items    []imapwire.FetchItem
	reading  *reading
	marks    bool // reading sets \Seen
	modSeq   bool // MODSEQ is asked for
	changed  bool // CHANGEDSINCE was given
	since    uint64
	page     *imapwire.Partial // of the messages that are asked for
	vanished bool

	seen mailstore.UIDSet // messages that get \Seen
	err  error            // what becomes of the command although messages were answered
	cte  int              // parts that could not be decoded
}

// cmdFetch is FETCH and UID FETCH (RFC 9051 §6.4.5) with CHANGEDSINCE and VANISHED (RFC 7162 §3.1.4 and
// §3.2.6).
//
//	fetch = "FETCH" SP sequence-set SP items [SP "(" fetch-modifier *(SP fetch-modifier) ")"]
func cmdFetch(s *session, c *call) error {
	set, err := s.setArgument()
	if err != nil {
		return err
	}
	f := new(fetch)
	if f.items, err = s.dec.FetchItems(); err != nil {
		return err
	}
	if !s.dec.AtEnd() {
		if err := s.dec.SP(); err != nil {
			return err
		}
		if err := s.fetchModifiers(c, f); err != nil {
			return err
		}
	}
	if err := s.dec.End(); err != nil {
		return err
	}
	b := s.box
	b.catchUp()
	f.plan(c.uid && !s.uidOnly)
	if f.modSeq || f.changed {
		s.enableCondstore()
	}
	ranges, err := s.resolve(set, c.uid)
	if err != nil {
		return err
	}
	defer f.reading.end()
	if f.vanished {
		if gone := s.vanishedSince(f.since, ranges); len(gone) > 0 {
			s.enc.Raw("* VANISHED (EARLIER) ").Set(gone).CRLF()
		}
	}
	if f.changed && f.since >= b.view.st.ModSeq() {
		ranges = nil
	}
	if f.page != nil {
		ranges = f.onPage(b, ranges)
		if err := s.within(ranges); err != nil {
			return err
		}
	}
	ranges = s.limited(c, ranges)
	f.reading.begin(b, b.view.among(ranges))
	b.view.each(ranges, func(seq uint32, m *mailstore.Message, ghost bool) bool {
		if f.changed && m.ModSeq <= f.since {
			return true
		}
		if err = s.fetchMessage(c.ctx, f, seq, m, ghost); err == nil {
			err = s.enc.Err()
		}
		return err == nil
	})
	if err != nil {
		return err
	}
	if err := s.markSeen(c, f); err != nil {
		return err
	}
	return f.err
}

func (s *session) fetchModifiers(c *call, f *fetch) error {
	err := s.dec.List(func() error {
		word, err := s.dec.Keyword()
		if err != nil {
			return err
		}
		switch word {
		case "CHANGEDSINCE":
			if err := s.dec.SP(); err != nil {
				return err
			}
			f.changed = true
			f.since, err = s.dec.Number()
			return err
		case "VANISHED":
			f.vanished = true
			return nil
		case "PARTIAL":
			if f.page != nil {
				return badf("PARTIAL given twice")
			}
			if err := s.dec.SP(); err != nil {
				return err
			}
			page, err := s.dec.Partial()
			f.page = &page
			return err
		}
		return badf("Unknown modifier of FETCH: %s", word)
	})
	switch {
	case err != nil:
		return err
	case f.vanished && !c.uid:
		return badf("VANISHED is for UID FETCH")
	case f.vanished && !s.qresync:
		return badf("QRESYNC must be enabled first")
	case f.vanished && !f.changed:
		return badf("VANISHED needs CHANGEDSINCE")
	}
	return nil
}

// onPage leaves those of ranges that are on the page: it is a page of the messages that would be answered without it
// (RFC 9394 §3.3).
func (f *fetch) onPage(b *selected, ranges []imapwire.Range) []imapwire.Range {
	var uids []imapwire.Range
	b.view.each(ranges, func(_ uint32, m *mailstore.Message, _ bool) bool {
		if !f.changed || m.ModSeq > f.since {
			uids = imapwire.AddNumber(uids, m.UID)
		}
		return true
	})
	first, end := f.page.Of(imapwire.Count(uids))
	return imapwire.Slice(uids, first, end)
}

// plan completes the items and finds out what they need.
func (f *fetch) plan(uid bool) {
	f.reading = newReading()
	hasUID := false
	for i := range f.items {
		item := &f.items[i]
		switch item.Kind {
		case imapwire.FetchUID:
			hasUID = true
		case imapwire.FetchModSeq:
			f.modSeq = true
		}
		f.reading.plan(item)
		f.marks = f.marks || itemMarks(item)
	}
	if f.changed && !f.modSeq { // RFC 7162 §3.1.4.1
		f.items = append(f.items, imapwire.FetchItem{Kind: imapwire.FetchModSeq})
	}
	if uid && !hasUID {
		f.items = append([]imapwire.FetchItem{{Kind: imapwire.FetchUID}}, f.items...)
	}
}

// itemMarks reports whether reading the item sets \Seen.
func itemMarks(item *imapwire.FetchItem) bool {
	switch item.Kind {
	case imapwire.FetchSection, imapwire.FetchBinary:
		return !item.Peek
	case imapwire.FetchRFC822, imapwire.FetchRFC822Text:
		return true
	}
	return false
}

// fetchMessage writes the FETCH response of one message. A message whose content is gone or damaged is
// passed over, and f.err says so in the end.
func (s *session) fetchMessage(ctx context.Context, f *fetch, seq uint32, m *mailstore.Message, ghost bool) error {
	var content *content
	if f.reading.need > needNothing {
		var err error
		if content, err = s.openContent(ctx, m, f.reading); err != nil {
			if ctx.Err() != nil || errors.Is(err, mailstore.ErrUnavailable) {
				return err
			}
			if !errors.Is(err, mailstore.ErrNoMessage) {
				s.log().Error("message cannot be read", "mailbox", s.box.mb.Ref().Mailbox, "uid", m.UID, "message", m.ID(), "error", err)
			}
			f.err = err
			return nil
		}
		defer content.close()
	}
	e, undecoded := &s.enc, f.cte
	s.fetchHead(seq, m)
	for i := range f.items {
		if i > 0 {
			e.SP()
		}
		if err := s.fetchItem(f, &f.items[i], m, content); err != nil {
			return err
		}
	}
	e.Raw(")\r\n")
	if f.marks && f.cte == undecoded && !ghost && !s.box.readOnly && s.box.rights.Has(sharing.Seen) && m.Flags&mailstore.FlagSeen == 0 {
		f.seen.Add(m.UID)
	}
	return e.Err()
}

// markSeen sets \Seen on what was read, in one commit. The flags are told by the sync that follows.
func (s *session) markSeen(c *call, f *fetch) error {
	if len(f.seen) == 0 {
		return nil
	}
	res, err := s.box.mb.ChangeFlags(c.ctx, mailstore.FlagChange{UIDs: f.seen, Op: mailstore.FlagsAdd, Flags: mailstore.FlagSeen})
	if err != nil {
		return err
	}
	s.box.view.advance(res.State)
	c.own = f.seen
	return nil
}

// fetchItem writes one item of a message.
func (s *session) fetchItem(f *fetch, item *imapwire.FetchItem, m *mailstore.Message, content *content) error {
	e := &s.enc
	switch item.Kind {
	case imapwire.FetchFlags:
		e.Raw("FLAGS ")
		s.writeFlags(m)
	case imapwire.FetchUID:
		e.Raw("UID ").Number(uint64(m.UID))
	case imapwire.FetchInternalDate:
		e.Raw("INTERNALDATE ").DateTime(m.InternalDate().UTC())
	case imapwire.FetchSize:
		e.Raw("RFC822.SIZE ").Number(uint64(m.Size))
	case imapwire.FetchModSeq:
		e.Raw("MODSEQ (").Number(m.ModSeq).Byte(')')
	case imapwire.FetchSaveDate:
		e.Raw("SAVEDATE ")
		if d := m.SaveDate(); d.IsZero() {
			e.Raw("NIL")
		} else {
			e.DateTime(d.UTC())
		}
	case imapwire.FetchEmailID:
		e.Raw("EMAILID (").Raw(objectID(m.EmailID())).Byte(')')
	case imapwire.FetchThreadID:
		e.Raw("THREADID ")
		if id := m.ThreadID(); id == "" {
			e.Raw("NIL")
		} else {
			e.Byte('(').Raw(objectID(id)).Byte(')')
		}
	default:
		return s.fetchContent(f, item, content)
	}
	return nil
}
