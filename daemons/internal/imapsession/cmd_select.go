package imapsession

import (
	"context"
	"math"
	"strings"

	"shoal/daemons/internal/imapwire"
	"shoal/daemons/internal/mailstore"
	"shoal/daemons/internal/sharing"
)

// cmdSelect is SELECT and EXAMINE (RFC 9051 §6.3.2, RFC 7162 §3.1.8 and §3.2.5).
//
//	select        = ("SELECT" / "EXAMINE") SP mailbox [SP "(" select-param *(SP select-param) ")"]
//	select-param  = "CONDSTORE" / "QRESYNC" SP "(" uidvalidity SP modseq [SP known-uids] [SP seq-match] ")"
//	seq-match     = "(" known-sequence-set SP known-uid-set ")"
func cmdSelect(s *session, c *call) error {
	if err := s.dec.SP(); err != nil {
		return err
	}
	name, err := s.dec.Mailbox()
	if err != nil {
		return err
	}
	var sync *resync
	if !s.dec.AtEnd() {
		if err := s.dec.SP(); err != nil {
			return err
		}
		if sync, err = s.selectParams(); err != nil {
			return err
		}
	}
	if err := s.dec.End(); err != nil {
		return err
	}
	if s.box != nil {
		s.closeMailbox()
		if s.rev2 || s.qresync {
			s.enc.Raw("* OK [CLOSED] Previous mailbox is closed\r\n")
		}
	}
	b, err := s.openMailbox(c.ctx, name, c.name == "EXAMINE")
	if err != nil {
		return err
	}
	s.box, s.state = b, stateSelected
	s.describeMailbox(name)
	if sync != nil && sync.validity == b.view.st.UIDValidity() {
		s.resync(sync)
	}
	if b.readOnly || !b.rights.Any(flagRights) {
		c.ok("READ-ONLY", "")
	} else {
		c.ok("READ-WRITE", "")
	}
	return nil
}

// resync holds the arguments of QRESYNC.
type resync struct {
	validity uint32
	modSeq   uint64
	known    []imapwire.Range // UIDs the client has; nil: all below UIDNEXT
	seqs     []imapwire.Range // and two lists of the same length: sequence numbers
	uids     []imapwire.Range // and the UIDs they had
}

func (s *session) selectParams() (sync *resync, err error) {
	err = s.dec.List(func() error {
		word, err := s.dec.Keyword()
		if err != nil {
			return err
		}
		switch word {
		case "CONDSTORE":
			s.condstor = true
		case "QRESYNC":
			if !s.qresync {
				return badf("QRESYNC must be enabled first")
			}
			if sync != nil {
				return badf("QRESYNC given twice")
			}
			if err := s.dec.SP(); err != nil {
				return err
			}
			sync, err = s.resyncParams()
			return err
		default:
			return badf("Unknown parameter of SELECT: %s", word)
		}
		return nil
	})
	return sync, err
}

func (s *session) resyncParams() (*resync, error) {
	r, field := new(resync), 0
	err := s.dec.List(func() (err error) {
		field++
		switch {
		case field == 1:
			r.validity, err = s.dec.NonZero32()
		case field == 2:
			if r.modSeq, err = s.dec.Number(); err == nil && r.modSeq == 0 {
				err = badf("The mod-sequence of QRESYNC must not be 0")
			}
		case field == 3 && s.dec.Peek() != '(':
			r.known, err = s.plainSet()
		case (field == 3 || field == 4) && s.dec.Peek() == '(' && r.seqs == nil:
			if s.uidOnly {
				return errUIDRequired
			}
			r.seqs, r.uids, err = s.seqMatch()
			field = 4
		default:
			err = badf("Too many arguments of QRESYNC")
		}
		return err
	})
	if err == nil && field < 2 {
		err = badf("QRESYNC needs a UIDVALIDITY and a mod-sequence")
	}
	return r, err
}

// plainSet takes a set without "*" and "$".
func (s *session) plainSet() ([]imapwire.Range, error) {
	set, err := s.dec.Set()
	if err != nil {
		return nil, err
	}
	if set.Saved {
		return nil, badf("$ is not possible here")
	}
	for _, r := range set.Ranges {
		if r.Lo == imapwire.Star || r.Hi == imapwire.Star {
			return nil, badf("* is not possible here")
		}
	}
	return set.Resolve(0), nil
}

func (s *session) seqMatch() (seqs, uids []imapwire.Range, err error) {
	n := 0
	err = s.dec.List(func() (err error) {
		switch n++; n {
		case 1:
			seqs, err = s.plainSet()
		case 2:
			uids, err = s.plainSet()
		default:
			err = badf("Too many arguments of QRESYNC")
		}
		return err
	})
	if err == nil && (n != 2 || imapwire.Count(seqs) != imapwire.Count(uids)) {
		err = badf("QRESYNC needs as many known UIDs as sequence numbers")
	}
	return seqs, uids, err
}

// openMailbox opens a mailbox, registers interest in it, and only then reads its state: whatever is
// committed from then on wakes the session.
func (s *session) openMailbox(ctx context.Context, name string, readOnly bool) (*selected, error) {
	p, mb, err := s.open(ctx, name, sharing.Read)
	if err != nil {
		return nil, err
	}
	b := &selected{mb: mb, readOnly: readOnly, name: name}
	if err := b.follow(ctx, s, p); err != nil {
		return nil, err
	}
	if err := b.startWatch(ctx, func() {
		if s.pushing.Load() {
			s.signal(eventPush)
		}
	}); err != nil {
		b.unfollow()
		return nil, err
	}
	st, err := mb.State(ctx)
	if err != nil {
		b.unwatch()
		return nil, err
	}
	b.view, b.told, b.recent = newView(st), st, st.UIDNext()
	return b, nil
}

// closeMailbox gives up the selected mailbox, if any.
func (s *session) closeMailbox() {
	if s.box == nil {
		return
	}
	s.box.unwatch()
	s.noteLeft(s.box)
	s.box = nil
	if s.state == stateSelected {
		s.state = stateAuth
	}
}

// describeMailbox writes the untagged answers of SELECT.
func (s *session) describeMailbox(name string) {
	b, e := s.box, &s.enc
	st := b.view.st
	s.writeMailboxFlags(st.Keywords())
	e.Raw("* ").Number(uint64(st.Len())).Raw(" EXISTS\r\n")
	if !s.rev2 {
		e.Raw("* 0 RECENT\r\n")
		if seq := firstUnseen(st); seq > 0 && !s.uidOnly {
			e.Raw("* OK [UNSEEN ").Number(uint64(seq)).Raw("] First unseen message\r\n")
		}
	}
	e.Raw("* OK [UIDVALIDITY ").Number(uint64(st.UIDValidity())).Raw("] UIDs are valid\r\n")
	e.Raw("* OK [UIDNEXT ").Number(uint64(st.UIDNext())).Raw("] Predicted next UID\r\n")
	e.Raw("* OK [HIGHESTMODSEQ ").Number(st.ModSeq()).Raw("] Highest mod-sequence\r\n")
	e.Raw("* OK [MAILBOXID (").Raw(objectID(b.mb.Ref().Mailbox)).Raw(")] Id of the mailbox\r\n")
	e.Raw("* OK [URLMECH INTERNAL] Mechanisms of URLAUTH\r\n")
	if s.rev2 {
		e.Raw(`* LIST () "/" `).Mailbox(name).CRLF()
	}
}

// firstUnseen is the sequence number of the first message without \Seen, 0 when all have it.
func firstUnseen(st *mailstore.State) int {
	if st.Unseen() == 0 {
		return 0
	}
	for i, m := range st.All() {
		if m.Flags&mailstore.FlagSeen == 0 {
			return i + 1
		}
	}
	return 0
}

// objectID turns an id of the store into an objectid of RFC 8474 §4: letters, digits, "_" and "-". The
// store's ids are made of lower-case letters, digits, "-" and ".".
func objectID(id string) string { return strings.ReplaceAll(id, ".", "_") }

// resync tells a client that comes back what has changed since it left (RFC 7162 §3.2.5).
func (s *session) resync(r *resync) {
	b, e := s.box, &s.enc
	st := b.view.st
	if r.modSeq >= st.ModSeq() {
		return
	}
	vanished := s.vanishedSince(r.modSeq, r.known)
	if from := r.trusted(st); from > 0 {
		// The client's numbers match its UIDs up to from: what vanished below it has been told about.
		vanished = intersect(vanished, []imapwire.Range{{Lo: from, Hi: math.MaxUint32}})
	}
	if len(vanished) > 0 {
		e.Raw("* VANISHED (EARLIER) ").Set(vanished).CRLF()
	}
	for i, m := range st.ChangedSince(r.modSeq) {
		if r.known == nil || imapwire.Contains(r.known, m.UID) {
			s.tellFlags(uint32(i+1), &m, true)
		}
	}
}

// trusted returns the UID up to which the client's view is known to be complete: where a known
// sequence number still has the known UID, nothing below it has vanished unnoticed. 0: nowhere.
func (r *resync) trusted(st *mailstore.State) uint32 {
	if len(r.seqs) == 0 || len(r.uids) == 0 {
		return 0
	}
	best, k, skip := uint32(0), 0, uint32(0)
	for _, sr := range r.seqs {
		for n := uint64(sr.Lo); n <= uint64(sr.Hi); n++ {
			for k < len(r.uids) && r.uids[k].Lo+skip > r.uids[k].Hi {
				k, skip = k+1, 0
			}
			if k == len(r.uids) || n > uint64(st.Len()) {
				return best
			}
			uid := r.uids[k].Lo + skip
			skip++
			if st.At(int(n-1)).UID != uid {
				return best
			}
			best = uid
		}
	}
	return best
}

// vanishedSince lists UIDs, among known if that is not nil, that were expunged after modSeq.
func (s *session) vanishedSince(modSeq uint64, known []imapwire.Range) []imapwire.Range {
	set, _ := s.box.view.st.VanishedSince(modSeq)
	out := make([]imapwire.Range, 0, len(set))
	for _, r := range set {
		out = append(out, imapwire.Range{Lo: r.Start, Hi: r.Stop})
	}
	if known == nil {
		return out
	}
	return intersect(out, known)
}

// intersect returns what two ascending lists of ranges have in common.
func intersect(a, b []imapwire.Range) []imapwire.Range {
	var out []imapwire.Range
	for i, k := 0, 0; i < len(a) && k < len(b); {
		lo, hi := max(a[i].Lo, b[k].Lo), min(a[i].Hi, b[k].Hi)
		if lo <= hi {
			out = append(out, imapwire.Range{Lo: lo, Hi: hi})
		}
		if a[i].Hi < b[k].Hi {
			i++
		} else {
			k++
		}
	}
	return out
}

// cmdClose expunges what is marked \Deleted, says nothing about it, and leaves the mailbox
// (RFC 9051 §6.4.1).
func cmdClose(s *session, c *call) error {
	if err := s.dec.End(); err != nil {
		return err
	}
	if !s.box.readOnly && s.box.rights.Has(sharing.Expunge) {
		if err := s.box.refresh(c.ctx); err != nil {
			return err
		}
		if s.box.view.st.Deleted() > 0 {
			res, err := s.box.mb.Expunge(c.ctx, nil, true)
			if err != nil {
				return err
			}
			if s.qresync {
				c.ok("HIGHESTMODSEQ "+itoa(res.State.ModSeq()), "")
			}
		}
	}
	s.closeMailbox()
	return nil
}

// cmdUnselect leaves the mailbox as it is (RFC 3691, RFC 9051 §6.4.2).
func cmdUnselect(s *session, c *call) error {
	if err := s.dec.End(); err != nil {
		return err
	}
	s.closeMailbox()
	return nil
}

// enableCondstore notes the first command that shows that the client knows mod-sequences, and tells
// HIGHESTMODSEQ if a mailbox is selected already (RFC 7162 §3.1).
func (s *session) enableCondstore() {
	if s.condstor {
		return
	}
	s.condstor = true
	if s.box != nil {
		s.enc.Raw("* OK [HIGHESTMODSEQ ").Number(s.box.told.ModSeq()).Raw("] Mod-sequences are told from now on\r\n")
	}
}
