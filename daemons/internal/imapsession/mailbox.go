package imapsession

import (
	"context"
	"slices"

	"shoal/daemons/internal/imapwire"
	"shoal/daemons/internal/mailstore"
	"shoal/daemons/internal/sharing"
)

// selected is the mailbox that a session has selected.
type selected struct {
	mb       *mailstore.Mailbox
	watch    *mailstore.Watcher
	view     view
	told     *mailstore.State // the flags that the client knows are those of this state
	recent   uint32           // messages from this UID on are \Recent here
	readOnly bool             // selected with EXAMINE
	rights   sharing.Rights   // of the user; of his own mailbox all
	shared   *shared          // of somebody else's mailbox
	name     string           // as the client calls it
	saved    []imapwire.Range // UIDs of SEARCH RETURN (SAVE)
	keywords int              // how many keywords FLAGS has told about
}

// refresh brings the newest state that exists anywhere into the view.
func (b *selected) refresh(ctx context.Context) error {
	st, err := b.mb.State(ctx)
	if err != nil {
		return err
	}
	b.view.advance(st)
	return nil
}

// catchUp brings the newest state that this server knows of into the view, without waiting.
func (b *selected) catchUp() {
	if st := b.mb.Cached(); st != nil {
		b.view.advance(st)
	}
}

// silentStore is a STORE.SILENT whose effect the client takes for granted.
type silentStore struct {
	uids  mailstore.UIDSet
	op    mailstore.FlagOp
	flags mailstore.Flags
	words []string
}

// expects reports whether now is what the client makes of old by itself.
func (q *silentStore) expects(old, now *mailstore.Message) bool {
	if q == nil || !q.uids.Contains(now.UID) {
		return false
	}
	flags, words := applyFlags(q.op, old.Flags, old.Keywords, q.flags, q.words)
	return flags == now.Flags && sameWords(words, now.Keywords)
}

// news is the occasion on which tell tells what is new.
type news struct {
	ctx       context.Context
	noExpunge bool             // EXPUNGE and VANISHED must not be sent now
	silent    *silentStore     // a change whose effect the client takes for granted
	said      mailstore.UIDSet // messages whose flags it knows already
	own       mailstore.UIDSet // messages that its command has changed, added or removed
}

// sync tells the client what is new in the selected mailbox, as far as the command allows, and brings
// the view up to what it was told.
func (s *session) sync(c *call) error {
	b := s.box
	b.catchUp()
	return s.tell(&news{c.ctx, c.numbers && !s.immediate(), c.silent, c.said, c.own})
}

// tell tells what has changed between the state that the client knows and the view: expunged messages, new ones, flags; after
// NOTIFY what it asks for, besides what the command itself has done.
func (s *session) tell(w *news) error {
	b := s.box
	v := &b.view
	if len(v.ghosts) > 0 && !w.noExpunge {
		var rest []mailstore.Message
		if !s.heeds(imapwire.NotifyExpunge) {
			rest = v.split(w.own)
		}
		if len(v.ghosts) > 0 {
			s.tellExpunged(rest)
		}
		v.ghosts = rest
	}
	oldNext := v.next
	if s.heeds(imapwire.NotifyNew) && v.announce() {
		s.enc.Raw("* ").Number(uint64(v.count())).Raw(" EXISTS\r\n")
		if !s.rev2 {
			s.enc.Raw("* ").Number(uint64(s.recentCount())).Raw(" RECENT\r\n")
		}
		if err := s.tellNew(w, oldNext); err != nil {
			return err
		}
	}
	s.tellKeywords()
	s.tellRights()
	old, flags := b.told, s.heeds(imapwire.NotifyFlags)
	if old == v.st {
		return s.enc.Err()
	}
	for i, m := range v.st.ChangedSince(old.ModSeq()) {
		if m.UID >= oldNext {
			continue // the client learns its flags when it asks
		}
		if w.said.Contains(m.UID) || !flags && !w.own.Contains(m.UID) {
			continue
		}
		before, ok := old.ByUID(m.UID)
		if ok && before.Flags == m.Flags && sameWords(before.Keywords, m.Keywords) && !s.condstor {
			continue
		}
		quiet := ok && w.silent.expects(&before, &m)
		if quiet && !s.condstor {
			continue
		}
		s.tellFlags(v.seq(i, m.UID), &m, !quiet)
	}
	if flags {
		b.told = v.st
	}
	return s.enc.Err()
}

// tellNew writes what NOTIFY asks for of the messages from UID on, but those that the client has added itself
// (RFC 5465 §5.2). None gets \Seen by it.
func (s *session) tellNew(w *news, uid uint32) (err error) {
	if s.note == nil || s.note.fetch == nil {
		return nil
	}
	f := &fetch{items: s.note.fetch}
	f.plan(!s.uidOnly)
	f.marks = false
	defer f.reading.end()
	fresh := []imapwire.Range{{Lo: uid, Hi: mailstore.MaxUID}}
	f.reading.begin(s.box, s.box.view.among(fresh))
	s.box.view.each(fresh, func(seq uint32, m *mailstore.Message, ghost bool) bool {
		if !ghost && !w.own.Contains(m.UID) {
			err = s.fetchMessage(w.ctx, f, seq, m, ghost)
		}
		return err == nil && s.enc.Err() == nil
	})
	return err
}

// tellExpunged writes EXPUNGE for every ghost, from the last to the first so that the numbers hold, or
// one VANISHED to a client that knows QRESYNC (RFC 7162 §3.2.10) or takes UIDs only (RFC 9586 §3.5).
// rest are other messages that are gone, whose numbers stay.
func (s *session) tellExpunged(rest []mailstore.Message) {
	v := &s.box.view
	if s.qresync || s.uidOnly {
		var uids []imapwire.Range
		for i := range v.ghosts {
			uids = imapwire.AddNumber(uids, v.ghosts[i].UID)
		}
		s.enc.Raw("* VANISHED ").Set(uids).CRLF()
		return
	}
	for k := len(v.ghosts) - 1; k >= 0; k-- {
		i, _ := v.st.Find(v.ghosts[k].UID)
		s.enc.Raw("* ").Number(uint64(min(i, v.known) + k + 1 + below(rest, v.ghosts[k].UID))).Raw(" EXPUNGE\r\n")
	}
}

// tellFlags writes an unsolicited FETCH with the flags of a message.
func (s *session) tellFlags(seq uint32, m *mailstore.Message, flags bool) {
	e := &s.enc
	s.fetchHead(seq, m)
	if s.condstor || s.qresync || s.rev2 || s.note != nil {
		if !s.uidOnly {
			e.Raw("UID ").Number(uint64(m.UID))
			if s.condstor {
				e.SP()
			}
		}
		if s.condstor {
			e.Raw("MODSEQ (").Number(m.ModSeq).Byte(')')
		}
		if flags && (s.condstor || !s.uidOnly) {
			e.SP()
		}
	}
	if flags {
		e.Raw("FLAGS ")
		s.writeFlags(m)
	}
	e.Raw(")\r\n")
}

// fetchHead begins what is told of a message: FETCH, or UIDFETCH after ENABLE UIDONLY (RFC 9586 §3.3).
func (s *session) fetchHead(seq uint32, m *mailstore.Message) {
	if s.uidOnly {
		s.enc.Raw("* ").Number(uint64(m.UID)).Raw(" UIDFETCH (")
		return
	}
	s.enc.Raw("* ").Number(uint64(seq)).Raw(" FETCH (")
}

// writeFlags writes the flags of a message in parentheses.
func (s *session) writeFlags(m *mailstore.Message) {
	e := &s.enc
	e.Byte('(')
	first := true
	word := func(f string) {
		if !first {
			e.SP()
		}
		first = false
		e.Raw(f)
	}
	for _, f := range flagNames {
		if m.Flags&f.flag != 0 {
			word(f.name)
		}
	}
	for _, k := range m.Keywords {
		word(k)
	}
	if !s.rev2 && s.box != nil && m.UID >= s.box.recent {
		word(`\Recent`)
	}
	e.Byte(')')
}

// recentCount is the number of messages of the view that are \Recent in this session.
func (s *session) recentCount() int {
	v := &s.box.view
	seq, _ := v.find(s.box.recent)
	return v.count() + 1 - seq
}

// tellKeywords writes FLAGS and PERMANENTFLAGS again when the mailbox has got new keywords
// (RFC 9051 §7.3.5).
func (s *session) tellKeywords() {
	words := s.box.view.st.Keywords()
	if len(words) == s.box.keywords {
		return
	}
	s.writeMailboxFlags(words)
}

// writeMailboxFlags writes FLAGS and PERMANENTFLAGS.
func (s *session) writeMailboxFlags(words []string) {
	s.box.keywords = len(words)
	e := &s.enc
	e.Raw("* FLAGS (").Raw(`\Answered \Flagged \Deleted \Seen \Draft`)
	for _, w := range words {
		e.SP().Raw(w)
	}
	e.Raw(")\r\n")
	may := flagsFor(s.box.rights)
	if s.box.readOnly || may == 0 {
		e.Raw("* OK [PERMANENTFLAGS ()] No flags can be changed\r\n")
		return
	}
	e.Raw("* OK [PERMANENTFLAGS (")
	first := true
	for _, f := range flagNames {
		if may&f.flag == 0 {
			continue
		}
		if !first {
			e.SP()
		}
		first = false
		e.Raw(f.name)
	}
	if s.box.rights.Has(sharing.Write) {
		for _, w := range words {
			e.SP().Raw(w)
		}
		e.Raw(` \*`)
	}
	e.Raw(")] Flags are kept\r\n")
}

// flagNames are the system flags as they are written.
var flagNames = []struct {
	flag mailstore.Flags
	name string
}{
	{mailstore.FlagAnswered, `\Answered`},
	{mailstore.FlagFlagged, `\Flagged`},
	{mailstore.FlagDeleted, `\Deleted`},
	{mailstore.FlagSeen, `\Seen`},
	{mailstore.FlagDraft, `\Draft`},
}

// resolve turns the set of a command into UIDs of messages that the view has. A sequence number that
// does not exist is an error (RFC 9051 §6.4.8: a UID that does not exist is not).
func (s *session) resolve(set imapwire.Set, uids bool) ([]imapwire.Range, error) {
	b := s.box
	v := &b.view
	if set.Saved {
		return b.saved, nil
	}
	if uids {
		return set.Resolve(v.lastUID()), nil
	}
	last := uint32(v.count())
	ranges := set.Resolve(last)
	if last == 0 && slices.ContainsFunc(set.Ranges, func(r imapwire.Range) bool { return r.Lo == imapwire.Star || r.Hi == imapwire.Star }) {
		return nil, nil // "1:*" of an empty mailbox is what many clients say, and is nothing
	}
	if n := len(ranges); n > 0 && ranges[n-1].Hi > last || len(ranges) == 0 {
		return nil, badf("There are only %d messages", last)
	}
	out := make([]imapwire.Range, 0, len(ranges))
	for _, r := range ranges {
		if r.Lo == 1 && r.Hi == last {
			return []imapwire.Range{{Lo: 1, Hi: v.lastUID()}}, nil
		}
		lo, _ := v.at(int(r.Lo))
		hi := lo
		if r.Hi != r.Lo {
			hi, _ = v.at(int(r.Hi))
		}
		out = append(out, imapwire.Range{Lo: lo.UID, Hi: hi.UID})
	}
	return out, nil
}

// uidSet makes the store's set of ascending ranges of UIDs that the client may mean: none that it has
// not been told about.
func (v *view) uidSet(ranges []imapwire.Range) mailstore.UIDSet {
	var set mailstore.UIDSet
	for _, r := range ranges {
		if r.Lo >= v.next {
			break
		}
		set.AddRange(r.Lo, min(r.Hi, v.next-1))
	}
	return set
}

// among counts the messages in ranges of UIDs.
func (v *view) among(ranges []imapwire.Range) (n int) {
	for _, r := range ranges {
		from, _ := v.find(r.Lo)
		to, found := v.find(r.Hi)
		if found {
			to++
		}
		n += to - from
	}
	return n
}

// each calls f for the messages of the view whose UIDs are in ranges, in ascending order, until f
// returns false.
func (v *view) each(ranges []imapwire.Range, f func(seq uint32, m *mailstore.Message, ghost bool) bool) {
	last := v.count()
	m := new(mailstore.Message)
	for _, r := range ranges {
		seq, _ := v.find(r.Lo)
		if len(v.ghosts) == 0 {
			for i, at := range v.st.Range(min(seq-1, v.known), v.known) {
				*m = at
				if m.UID > r.Hi {
					break
				}
				if !f(uint32(i+1), m, false) {
					return
				}
			}
			continue
		}
		for ; seq <= last; seq++ {
			var ghost bool
			*m, ghost = v.at(seq)
			if m.UID > r.Hi {
				break
			}
			if !f(uint32(seq), m, ghost) {
				return
			}
		}
	}
}
