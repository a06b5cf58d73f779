package imapsession

import (
	"context"
	"errors"
	"strings"
	"time"

	"shoal/daemons/internal/imapwire"
	"shoal/daemons/internal/mailstore"
	"shoal/daemons/internal/message"
)

// A search looks at each message of the view at most twice: first with what the state knows of it
// (flags, dates, size, numbers), and only when that does not decide, with its content. All strings that
// are searched for are looked for in one pass over the content.
//
// Dates are compared in UTC (internal and save date) or as they are written (date of the header).

// verdict is a truth value that may need the content to be known.
type verdict uint8

const (
	isFalse verdict = iota
	isTrue
	isOpen
)

func truth(b bool) verdict {
	if b {
		return isTrue
	}
	return isFalse
}

// matcher is a node of a search that is ready to be asked.
type matcher struct {
	key    *imapwire.SearchKey
	kids   []matcher
	ranges []imapwire.Range // of UIDs: of a set key
	flag   mailstore.Flags  // of a flag key, 0 for a keyword
	limit  time.Time        // of an age key
	answer int              // of a string key: its index in what message.Search says
}

type searcher struct {
	s       *session
	root    matcher
	strings message.Search
	reading *reading
	content bool // string keys occur
	header  bool // a date of the header is asked for

	answers []bool // of the message that is looked at
	sent    time.Time
	sentOK  bool
}

func (s *session) search(c *call, args *imapwire.Search) (*found, error) {
	q := &searcher{s: s}
	if err := q.build(&args.Key, &q.root); err != nil {
		return nil, err
	}
	r := new(found)
	var failed error
	v := &s.box.view
	q.reading = newReading()
	defer q.reading.end()
	q.planReading()
	q.reading.begin(s.box, v.count())
	looked := 0
	ranges := narrowed(&q.root)
	if c.name == "SEARCH" || c.name == "UID SEARCH" {
		ranges = s.limited(c, ranges)
	} else if err := s.within(ranges); err != nil {
		return nil, err
	}
	v.each(ranges, func(seq uint32, m *mailstore.Message, ghost bool) bool {
		is := q.ask(&q.root, m, false)
		if is == isOpen {
			if looked++; looked%64 == 0 && c.ctx.Err() != nil {
				failed = c.ctx.Err()
				return false
			}
			err := q.look(c.ctx, m)
			if failed = s.step(c); failed != nil {
				return false
			}
			switch {
			case errors.Is(err, mailstore.ErrNoMessage):
				r.gone = true
				return true
			case err != nil && (c.ctx.Err() != nil || errors.Is(err, mailstore.ErrUnavailable)):
				failed = err
				return false
			case err != nil:
				s.log().Error("message cannot be searched", "mailbox", s.box.mb.Ref().Mailbox, "uid", m.UID, "message", m.ID(), "error", err)
				return true
			}
			is = q.ask(&q.root, m, true)
		}
		if is == isTrue {
			r.add(seq, m)
		}
		return true
	})
	return r, failed
}

// everything are all UIDs.
var everything = []imapwire.Range{{Lo: 1, Hi: mailstore.MaxUID}}

// build makes the matcher of a key.
func (q *searcher) build(key *imapwire.SearchKey, m *matcher) error {
	m.key = key
	if len(key.Kids) > 0 {
		m.kids = make([]matcher, len(key.Kids))
		for i := range key.Kids {
			if err := q.build(&key.Kids[i], &m.kids[i]); err != nil {
				return err
			}
		}
	}
	var err error
	switch key.Op {
	case imapwire.SearchSeq, imapwire.SearchUID:
		m.ranges, err = q.s.searchSet(key)
	case imapwire.SearchFlag:
		if strings.HasPrefix(key.Str, `\`) {
			m.flag = systemFlag(key.Str)
		}
	case imapwire.SearchOlder, imapwire.SearchYounger:
		m.limit = q.s.srv.clock.Now().Add(-time.Duration(min(key.Num, 1<<32)) * time.Second)
	case imapwire.SearchHeader:
		m.answer = q.strings.Header(key.Field, key.Str)
		q.content = true
	case imapwire.SearchBody:
		m.answer = q.strings.Body(key.Str)
		q.content = true
	case imapwire.SearchText:
		m.answer = q.strings.Text(key.Str)
		q.content = true
	case imapwire.SearchSentBefore, imapwire.SearchSentOn, imapwire.SearchSentSince:
		q.header = true
	}
	return err
}

// searchSet resolves the set of a key. Unlike elsewhere a number beyond the last message is no error
// there: it matches nothing.
func (s *session) searchSet(key *imapwire.SearchKey) ([]imapwire.Range, error) {
	v := &s.box.view
	if s.uidOnly && key.Op == imapwire.SearchSeq && !key.Set.Saved {
		return nil, errUIDRequired
	}
	if key.Set.Saved || key.Op == imapwire.SearchUID {
		return s.resolve(key.Set, true)
	}
	last := uint32(v.count())
	var out []imapwire.Range
	for _, r := range key.Set.Resolve(last) {
		if r.Lo > last {
			break
		}
		lo, _ := v.at(int(r.Lo))
		hi, _ := v.at(int(min(r.Hi, last)))
		out = append(out, imapwire.Range{Lo: lo.UID, Hi: hi.UID})
	}
	return out, nil
}

// planReading finds out what of a message's content the keys need.
func (q *searcher) planReading() {
	r := q.reading
	if q.header {
		r.want(message.SectionEnvelope)
	}
	switch {
	case !q.content:
	case q.strings.KeptOnly():
		r.want(message.SectionFields)
	case q.strings.HeaderOnly():
		r.open(needHeader)
	default:
		r.want(message.SectionStructure)
		r.open(needBytes)
	}
}

// look reads the content of a message and answers all keys that depend on it.
func (q *searcher) look(ctx context.Context, m *mailstore.Message) error {
	c, err := q.s.openContent(ctx, m, q.reading)
	if err != nil {
		return err
	}
	defer c.close()
	switch {
	case !q.content:
	case c.fields != nil && q.strings.KeptOnly():
		q.answers = q.strings.MatchFields(c.fields.Fields())
	default:
		if q.answers, err = q.strings.Match(c.text, c.root); err != nil {
			return err
		}
	}
	if q.header {
		q.sentOK = false
		if d := c.envelope; d != nil && d.Date.Valid {
			if t, ok := message.ParseDate(d.Date.Value); ok {
				q.sent, q.sentOK = dateOf(t), true
			}
		}
	}
	return nil
}

// dateOf is the date of t as it is written, as midnight in UTC.
func dateOf(t time.Time) time.Time {
	y, m, d := t.Date()
	return time.Date(y, m, d, 0, 0, 0, 0, time.UTC)
}

// ask answers a matcher for a message. Before its content was read, what depends on it is open.
func (q *searcher) ask(n *matcher, m *mailstore.Message, read bool) verdict {
	switch n.key.Op {
	case imapwire.SearchAll:
		return isTrue
	case imapwire.SearchAnd:
		return q.all(n.kids, m, read)
	case imapwire.SearchOr:
		a := q.ask(&n.kids[0], m, read)
		if a == isTrue {
			return isTrue
		}
		if b := q.ask(&n.kids[1], m, read); b == isTrue || a == isFalse {
			return b
		}
		return isOpen
	case imapwire.SearchNot:
		switch q.ask(&n.kids[0], m, read) {
		case isTrue:
			return isFalse
		case isFalse:
			return isTrue
		}
		return isOpen
	case imapwire.SearchHeader, imapwire.SearchBody, imapwire.SearchText:
		if !read {
			return isOpen
		}
		return truth(q.answers[n.answer])
	case imapwire.SearchSentBefore, imapwire.SearchSentOn, imapwire.SearchSentSince:
		if !read {
			return isOpen
		}
		return truth(q.sentOK && compareDate(n.key.Op, q.sent, n.key.Date))
	}
	return truth(q.known(n, m))
}

// all is the conjunction of kids.
func (q *searcher) all(kids []matcher, m *mailstore.Message, read bool) verdict {
	out := isTrue
	for i := range kids {
		switch q.ask(&kids[i], m, read) {
		case isFalse:
			return isFalse
		case isOpen:
			out = isOpen
		}
	}
	return out
}

// known answers a key from what the state knows of the message.
func (q *searcher) known(n *matcher, m *mailstore.Message) bool {
	key := n.key
	switch key.Op {
	case imapwire.SearchSeq, imapwire.SearchUID:
		return imapwire.Contains(n.ranges, m.UID)
	case imapwire.SearchFlag:
		switch {
		case n.flag != 0:
			return m.Flags&n.flag != 0
		case key.Str == `\Recent`:
			return !q.s.rev2 && m.UID >= q.s.box.recent
		}
		return hasKeyword(m, key.Str)
	case imapwire.SearchRecent:
		return !q.s.rev2 && m.UID >= q.s.box.recent
	case imapwire.SearchBefore, imapwire.SearchOn, imapwire.SearchSince:
		return compareDate(key.Op, dateOf(m.InternalDate().UTC()), key.Date)
	case imapwire.SearchSavedBefore, imapwire.SearchSavedOn, imapwire.SearchSavedSince:
		return compareDate(key.Op, dateOf(m.SaveDate().UTC()), key.Date)
	case imapwire.SearchLarger:
		return uint64(m.Size) > key.Num
	case imapwire.SearchSmaller:
		return uint64(m.Size) < key.Num
	case imapwire.SearchModSeq:
		return m.ModSeq >= key.Num
	case imapwire.SearchOlder:
		return !m.InternalDate().After(n.limit)
	case imapwire.SearchYounger:
		return !m.InternalDate().Before(n.limit)
	case imapwire.SearchEmailID:
		return objectID(m.EmailID()) == key.Str
	case imapwire.SearchThreadID:
		return m.ThreadID() != "" && objectID(m.ThreadID()) == key.Str
	case imapwire.SearchSaveDate:
		return true
	}
	return false
}

func compareDate(op imapwire.SearchOp, date, than time.Time) bool {
	switch op {
	case imapwire.SearchBefore, imapwire.SearchSentBefore, imapwire.SearchSavedBefore:
		return date.Before(than)
	case imapwire.SearchOn, imapwire.SearchSentOn, imapwire.SearchSavedOn:
		return date.Equal(than)
	}
	return !date.Before(than)
}
