package imapsession

import (
	"strings"

	"shoal/daemons/internal/imapwire"
	"shoal/daemons/internal/mailstore"
)

var errReadOnly = no("READ-ONLY", "The mailbox was selected with EXAMINE")

// cmdStore is STORE and UID STORE (RFC 9051 §6.4.6) with UNCHANGEDSINCE (RFC 7162 §3.1.3).
//
//	store = "STORE" SP sequence-set [SP "(" "UNCHANGEDSINCE" SP number64 ")"] SP ["+" / "-"] "FLAGS" [".SILENT"] SP flags
func cmdStore(s *session, c *call) error {
	set, err := s.setArgument()
	if err != nil {
		return err
	}
	var change mailstore.FlagChange
	if s.dec.Peek() == '(' {
		if err := s.storeModifiers(&change); err != nil {
			return err
		}
		if err := s.dec.SP(); err != nil {
			return err
		}
	}
	word, err := s.dec.Keyword()
	if err != nil {
		return err
	}
	word, silent := strings.CutSuffix(word, ".SILENT")
	switch word {
	case "FLAGS":
		change.Op = mailstore.FlagsReplace
	case "+FLAGS":
		change.Op = mailstore.FlagsAdd
	case "-FLAGS":
		change.Op = mailstore.FlagsRemove
	default:
		return badf("FLAGS, +FLAGS or -FLAGS expected instead of %s", word)
	}
	if err := s.dec.SP(); err != nil {
		return err
	}
	flags, err := s.dec.StoreFlags()
	if err != nil {
		return err
	}
	if err := s.dec.End(); err != nil {
		return err
	}
	b := s.box
	if b.readOnly {
		return errReadOnly
	}
	if change.Flags, change.Keywords, err = s.splitFlags(withoutRecent(flags), b.view.st.Keywords()); err != nil {
		return err
	}
	if change.Conditional {
		s.enableCondstore()
	}
	ranges, err := s.resolve(set, c.uid)
	if err != nil {
		return err
	}
	ranges = s.limited(c, ranges)
	change.UIDs = b.view.uidSet(ranges)
	if len(change.UIDs) == 0 {
		return nil
	}
	changes, err := b.permitted(change)
	if err != nil {
		return err
	}
	stop := s.keepTelling(c, change.UIDs.Len())
	defer stop()
	var notChanged mailstore.UIDSet
	for i, ch := range changes {
		if i > 0 { // what the first change let through has its mod-sequence from that
			ch.UIDs, ch.Conditional = without(ch.UIDs, notChanged), false
		}
		if len(ch.UIDs) == 0 {
			break
		}
		res, err := b.mb.ChangeFlags(c.ctx, ch)
		if err != nil {
			return err
		}
		b.view.advance(res.State)
		if i == 0 {
			notChanged = res.Failed
		}
	}
	stop()
	failed := s.modifiedCode(c, notChanged)
	if silent && len(changes) == 1 {
		change = changes[0]
		c.silent = &silentStore{uids: change.UIDs, op: change.Op, flags: change.Flags, words: change.Keywords}
		return nil
	}
	return s.tellStored(c, ranges, failed)
}

// without returns the UIDs of a that are not in b.
func without(a, b mailstore.UIDSet) mailstore.UIDSet {
	if len(b) == 0 {
		return a
	}
	var out mailstore.UIDSet
	for uid := range a.All() {
		if !b.Contains(uid) {
			out.Add(uid)
		}
	}
	return out
}

// setArgument takes a space, a set and the space behind it.
func (s *session) setArgument() (imapwire.Set, error) {
	if err := s.dec.SP(); err != nil {
		return imapwire.Set{}, err
	}
	set, err := s.dec.Set()
	if err != nil {
		return imapwire.Set{}, err
	}
	return set, s.dec.SP()
}

func (s *session) storeModifiers(change *mailstore.FlagChange) error {
	return s.dec.List(func() error {
		word, err := s.dec.Keyword()
		if err != nil {
			return err
		}
		if word != "UNCHANGEDSINCE" {
			return badf("Unknown modifier of STORE: %s", word)
		}
		if err := s.dec.SP(); err != nil {
			return err
		}
		change.Conditional = true
		change.UnchangedSince, err = s.dec.Number()
		return err
	})
}

// modifiedCode sets the response code that names the messages which UNCHANGEDSINCE kept from being
// changed, by number or UID as the command does.
func (s *session) modifiedCode(c *call, failed mailstore.UIDSet) bool {
	if len(failed) == 0 {
		return false
	}
	var names []imapwire.Range
	for uid := range failed.All() {
		if c.uid {
			names = imapwire.AddNumber(names, uid)
		} else if seq, ok := s.box.view.find(uid); ok {
			names = imapwire.AddNumber(names, uint32(seq))
		}
	}
	c.ok(string(imapwire.AppendSet([]byte("MODIFIED "), names)), "Some messages were changed meanwhile")
	return true
}

// tellStored writes the new flags of the messages that STORE named.
func (s *session) tellStored(c *call, ranges []imapwire.Range, failed bool) error {
	s.tellKeywords()
	gone := false
	s.box.view.each(ranges, func(seq uint32, m *mailstore.Message, ghost bool) bool {
		if ghost {
			gone = true
			return true
		}
		s.tellFlags(seq, m, true)
		c.said.Add(m.UID)
		return s.enc.Err() == nil
	})
	if gone && !failed && !c.uid { // the changes to the others are made and told (RFC 2180 §4.2.2)
		return no("EXPUNGEISSUED", "Some of the messages no longer exist")
	}
	return s.enc.Err()
}
