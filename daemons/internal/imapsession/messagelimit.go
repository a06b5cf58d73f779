package imapsession

import (
	"shoal/daemons/internal/imapwire"
	"shoal/daemons/internal/mailstore"
)

// MESSAGELIMIT (RFC 9738): where the setting message_limit says so, one command works on so many messages at most. FETCH, STORE,
// SEARCH, MOVE and UID EXPUNGE take the messages with the highest UIDs and say in their answer how far down they went; what is
// all or nothing (COPY, APPEND, SORT, THREAD, pages of FETCH) is refused. EXPUNGE, CLOSE and STATUS have no such limit.

// tooMany refuses a command about more than most messages.
func tooMany(most int) error {
	return no("MESSAGELIMIT "+itoa(uint64(most)), "That are more messages than one command may be about")
}

// limited leaves as many messages of ranges as one command may work on, those with the highest UIDs.
func (s *session) limited(c *call, ranges []imapwire.Range) []imapwire.Range {
	most, v := s.srv.limits().MessageLimit, &s.box.view
	skip := v.among(ranges) - most
	if most == 0 || skip <= 0 {
		return ranges
	}
	for i, r := range ranges {
		n := v.among(ranges[i : i+1])
		if skip >= n {
			skip -= n
			continue
		}
		seq, _ := v.find(r.Lo)
		first, _ := v.at(seq + skip)
		c.lowest = first.UID
		rest := append([]imapwire.Range{{Lo: first.UID, Hi: r.Hi}}, ranges[i+1:]...)
		return rest
	}
	return nil
}

// within refuses a command about more than the limit.
func (s *session) within(ranges []imapwire.Range) error {
	if most := s.srv.limits().MessageLimit; most > 0 && s.box.view.among(ranges) > most {
		return tooMany(most)
	}
	return nil
}

// limitedDeleted leaves of uids as many messages marked \Deleted as one command may work on.
func (s *session) limitedDeleted(c *call, uids mailstore.UIDSet) mailstore.UIDSet {
	most, st := s.srv.limits().MessageLimit, s.box.view.st
	if most == 0 || st.Deleted() <= most {
		return uids
	}
	var marked []uint32
	for _, m := range st.UIDs(uids) {
		if m.Flags&mailstore.FlagDeleted != 0 {
			marked = append(marked, m.UID)
		}
	}
	if len(marked) <= most {
		return uids
	}
	c.lowest = marked[len(marked)-most]
	return setOf(marked[len(marked)-most:])
}

// tellLimit says that the command has worked on some of the messages only: with its tagged OK, or before it if that has a code.
func (s *session) tellLimit(c *call) {
	if c.lowest == 0 {
		return
	}
	code := "MESSAGELIMIT " + itoa(uint64(s.srv.limits().MessageLimit)) + " " + itoa(uint64(c.lowest))
	if c.code == "" {
		c.ok(code, "Done for some of the messages, repeat for those below")
		return
	}
	s.enc.Raw("* NO [").Raw(code).Raw("] Done for some of the messages, repeat for those below\r\n")
}

// narrowed are the messages that a search has to look at: what sets at the top of its keys leave.
func narrowed(m *matcher) []imapwire.Range {
	switch m.key.Op {
	case imapwire.SearchSeq, imapwire.SearchUID:
		return m.ranges
	case imapwire.SearchAnd:
		ranges := everything
		for i := range m.kids {
			ranges = intersect(ranges, narrowed(&m.kids[i]))
		}
		return ranges
	}
	return everything
}
