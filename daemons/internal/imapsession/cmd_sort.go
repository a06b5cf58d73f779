package imapsession

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"errors"
	"slices"

	"shoal/daemons/internal/imapwire"
	"shoal/daemons/internal/mailstore"
	"shoal/daemons/internal/message"
)

// sortMemory bounds the keys of one SORT, in bytes; sortText what counts of a text in it.
const (
	sortMemory = 64 << 20
	sortText   = 1000
)

// errSortMemory says that a result is too large to be sorted.
var errSortMemory = no("LIMIT", "Too many messages to sort at once")

// cmdSort is SORT and UID SORT (RFC 5256 §3), with the keys of RFC 5957 and the results of RFC 5267 §3.
func cmdSort(s *session, c *call) error {
	if err := s.dec.SP(); err != nil {
		return err
	}
	args, err := s.dec.Sort()
	if err == nil {
		err = s.dec.End()
	}
	if err == nil {
		err = s.expandFilters(c.ctx, &args.Search)
	}
	var result *found
	if err == nil {
		s.box.catchUp()
		if args.ModSeq {
			s.enableCondstore()
		}
		if result, err = s.search(c, &args.Search); err == nil {
			err = s.sortFound(c, args.Criteria, result)
		}
	}
	if err != nil {
		s.forgetSort(err, args)
		return err
	}
	if args.Return&imapwire.ReturnSave != 0 {
		s.box.saved = imapwire.Normalize(slices.Clone(result.savedUIDs(&args.Search)))
	}
	switch {
	case args.Return == imapwire.ReturnSave:
	case args.Extended:
		s.writeESearch(c, &args.Search, result)
	default:
		s.writeSearch(c, "SORT", &args.Search, result)
	}
	if result.gone {
		c.ok("EXPUNGEISSUED", "Some of the messages no longer exist")
	}
	return s.enc.Err()
}

// forgetSort empties the saved result when a SORT that should set it is answered NO, as for SEARCH.
func (s *session) forgetSort(err error, args *imapwire.Sort) {
	if args == nil || args.Return&imapwire.ReturnSave == 0 {
		return
	}
	if answer, _ := answerTo(err); !answer.bad {
		s.box.saved = []imapwire.Range{}
	}
}

// sortItem is a message in a SORT. Its key lies in the sorter; prefix is the beginning of it.
type sortItem struct {
	prefix   uint64
	modSeq   uint64
	from, to uint32
	seq, uid uint32
}

// sortFound replaces a result by the same in the order of the criteria; what is equal keeps the mailbox's order.
//
// All criteria of a message make one string of bytes, so that comparing two messages is comparing two strings: numbers and
// dates as 8 bytes, texts with an end that sorts before everything else, and all bits turned round where REVERSE was asked for.
func (s *session) sortFound(c *call, criteria []imapwire.SortCriterion, r *found) error {
	var keys []byte
	items := make([]sortItem, 0, r.count)
	wanted := wantNothing
	for _, k := range criteria {
		switch k.Key {
		case imapwire.SortArrival, imapwire.SortSize:
		case imapwire.SortDate:
			wanted = max(wanted, wantDate)
		default:
			wanted = wantEnvelope
		}
	}
	err := s.envelopes(c, r, wanted, func(seq uint32, m *mailstore.Message, e *message.Envelope) error {
		from := len(keys)
		for _, k := range criteria {
			keys = appendSortKey(keys, k, m, e)
		}
		if len(keys) > sortMemory {
			return errSortMemory
		}
		it := sortItem{from: uint32(from), to: uint32(len(keys)), seq: seq, uid: m.UID, modSeq: m.ModSeq}
		var head [8]byte
		copy(head[:], keys[from:])
		it.prefix = binary.BigEndian.Uint64(head[:])
		items = append(items, it)
		return nil
	})
	if err != nil {
		return err
	}
	slices.SortFunc(items, func(a, b sortItem) int {
		if a.prefix != b.prefix {
			return cmp.Compare(a.prefix, b.prefix)
		}
		if n := bytes.Compare(keys[a.from:a.to], keys[b.from:b.to]); n != 0 {
			return n
		}
		return cmp.Compare(a.seq, b.seq)
	})
	sorted := found{gone: r.gone}
	for i := range items {
		sorted.add(items[i].seq, &mailstore.Message{UID: items[i].uid, ModSeq: items[i].modSeq})
	}
	*r = sorted
	return nil
}

// What envelopes gives of each envelope.
const (
	wantNothing = iota
	wantDate
	wantEnvelope
)

// envelopes calls f for each message of a result, with as much of its envelope as is wanted: nil where it cannot be
// read. What is gone is noted in the result.
func (s *session) envelopes(call *call, r *found, wanted int, f func(uint32, *mailstore.Message, *message.Envelope) error) error {
	ctx, rd := call.ctx, newReading()
	defer rd.end()
	if wanted != wantNothing {
		rd.dateOnly = wanted == wantDate
		rd.want(message.SectionEnvelope)
		rd.begin(s.box, int(r.count))
	}
	var failed error
	looked := 0
	s.box.view.each(r.uids, func(seq uint32, m *mailstore.Message, ghost bool) bool {
		if looked++; looked%64 == 0 {
			if failed = ctx.Err(); failed != nil {
				return false
			}
		}
		if wanted == wantNothing {
			failed = f(seq, m, nil)
			return failed == nil
		}
		if failed = s.step(call); failed != nil {
			return false
		}
		c, err := s.openContent(ctx, m, rd)
		switch {
		case errors.Is(err, mailstore.ErrNoMessage):
			r.gone = true
		case err != nil && (ctx.Err() != nil || errors.Is(err, mailstore.ErrUnavailable)):
			failed = err
			return false
		case err != nil:
			s.log().Error("message cannot be sorted by its header", "mailbox", s.box.mb.Ref().Mailbox, "uid", m.UID, "message", m.ID(), "error", err)
		default:
			defer c.close()
			failed = f(seq, m, c.envelope)
			return failed == nil
		}
		failed = f(seq, m, nil)
		return failed == nil
	})
	return failed
}

// sentDate is the sent date of RFC 5256 §2.2 in Unix seconds: the Date field in UTC, or else the internal date.
func sentDate(m *mailstore.Message, e *message.Envelope) int64 {
	if e != nil && e.Date.Valid {
		if t, ok := message.ParseDate(e.Date.Value); ok {
			return t.Unix()
		}
	}
	return m.InternalDate().Unix()
}

func appendSortKey(dst []byte, k imapwire.SortCriterion, m *mailstore.Message, e *message.Envelope) []byte {
	at := len(dst)
	if e == nil {
		e = new(message.Envelope)
	}
	switch k.Key {
	case imapwire.SortArrival:
		dst = appendSortNumber(dst, m.InternalDate().Unix())
	case imapwire.SortDate:
		dst = appendSortNumber(dst, sentDate(m, e))
	case imapwire.SortSize:
		dst = appendSortNumber(dst, m.Size)
	case imapwire.SortSubject:
		base, _ := message.BaseSubject(e.Subject.Value)
		dst = appendSortText(dst, base)
	case imapwire.SortCc:
		dst = appendSortText(dst, firstMailbox(e.Cc))
	case imapwire.SortFrom:
		dst = appendSortText(dst, firstMailbox(e.From))
	case imapwire.SortTo:
		dst = appendSortText(dst, firstMailbox(e.To))
	case imapwire.SortDisplayFrom:
		dst = appendSortText(dst, displayed(e.From))
	case imapwire.SortDisplayTo:
		dst = appendSortText(dst, displayed(e.To))
	}
	if k.Reverse {
		for i := at; i < len(dst); i++ {
			dst[i] = ^dst[i]
		}
	}
	return dst
}

func appendSortNumber(dst []byte, n int64) []byte {
	return binary.BigEndian.AppendUint64(dst, uint64(n)^1<<63)
}

// appendSortText appends a text in comparison form and the end of it, which is two zeros: a zero in the text is followed by a one.
func appendSortText(dst []byte, text string) []byte {
	text = message.Casemap(text)
	text = text[:min(len(text), sortText)]
	for i := range len(text) {
		if dst = append(dst, text[i]); text[i] == 0 {
			dst = append(dst, 1)
		}
	}
	return append(dst, 0, 0)
}

// firstMailbox is what FROM, TO and CC compare: addr-mailbox of the first address.
func firstMailbox(list []message.Address) string {
	if len(list) == 0 {
		return ""
	}
	return list[0].Mailbox
}

// displayed is what DISPLAYFROM and DISPLAYTO compare (RFC 5957 §3).
func displayed(list []message.Address) string {
	if len(list) == 0 {
		return ""
	}
	a := &list[0]
	if name := message.DecodeHeader(a.Name); name != "" {
		return name
	}
	if a.Host != "" {
		return a.Mailbox + "@" + a.Host
	}
	return a.Mailbox
}
