package imapsession

import (
	"errors"

	"shoal/daemons/internal/imapwire"
	"shoal/daemons/internal/mailstore"
)

// cmdSearch is SEARCH and UID SEARCH (RFC 9051 §6.4.4), extended (RFC 4731), with saved results
// (RFC 5182), mod-sequences (RFC 7162 §3.1.5) and ages (RFC 5032).
func cmdSearch(s *session, c *call) error {
	if err := s.dec.SP(); err != nil {
		return err
	}
	args, err := s.dec.Search()
	if err != nil {
		s.forgetSaved(err, args)
		return err
	}
	if err := s.dec.End(); err != nil {
		return err
	}
	if args.Charset && s.utf8 {
		return badf("CHARSET is not possible after ENABLE UTF8=ACCEPT") // RFC 6855 §3
	}
	if err := s.expandFilters(c.ctx, args); err != nil {
		s.forgetSaved(err, args)
		return err
	}
	b := s.box
	b.catchUp()
	if args.ModSeq {
		s.enableCondstore()
	}
	c.goal = uint64(b.view.count())
	result, err := s.search(c, args)
	if err != nil {
		s.forgetSaved(err, args)
		return err
	}
	if args.Return&imapwire.ReturnSave != 0 {
		b.saved = result.savedUIDs(args)
	}
	switch {
	case args.Return == imapwire.ReturnSave:
		// The client wants nothing but the saved result.
	case args.Extended || s.rev2:
		s.writeESearch(c, args, result)
	default:
		s.writeSearch(c, "SEARCH", args, result)
	}
	if result.gone {
		c.ok("EXPUNGEISSUED", "Some of the messages no longer exist")
	}
	return s.enc.Err()
}

// forgetSaved empties the saved result when a SEARCH that should set it is answered NO
// (RFC 5182 §2.1); after BAD it stays.
func (s *session) forgetSaved(err error, args *imapwire.Search) {
	var charset *imapwire.CharsetError
	if errors.As(err, &charset) {
		s.box.saved = []imapwire.Range{}
		return
	}
	if args == nil || args.Return&imapwire.ReturnSave == 0 {
		return
	}
	if answer, _ := answerTo(err); !answer.bad {
		s.box.saved = []imapwire.Range{}
	}
}

// found is the result of a search, in the order of the mailbox or in that of SORT.
type found struct {
	seqs, uids    []imapwire.Range
	count         uint64
	first, last   mailstore.Message
	firstN, lastN uint32
	highest       uint64 // mod-sequence
	gone          bool   // the content of a message could not be looked at because it is expunged
}

func (r *found) add(seq uint32, m *mailstore.Message) {
	if r.count == 0 {
		r.firstN, r.first = seq, *m
	}
	r.lastN, r.last = seq, *m
	r.count++
	r.seqs = imapwire.AddNumber(r.seqs, seq)
	r.uids = imapwire.AddNumber(r.uids, m.UID)
	r.highest = max(r.highest, m.ModSeq)
}

// savedUIDs is what "$" stands for from now on: with PARTIAL the page, and with MIN and MAX alone only these (RFC 5182 §2.1,
// RFC 9394 §3.2).
func (r *found) savedUIDs(args *imapwire.Search) []imapwire.Range {
	options := args.Return
	if options&(imapwire.ReturnMin|imapwire.ReturnMax|imapwire.ReturnPartial) == 0 || r.count == 0 ||
		options&imapwire.ReturnPartial == 0 && options&(imapwire.ReturnAll|imapwire.ReturnCount) != 0 {
		return r.uids
	}
	return r.named(args)
}

// named are the UIDs of the messages that the options MIN, MAX and PARTIAL name, in ascending order.
func (r *found) named(args *imapwire.Search) []imapwire.Range {
	var out []imapwire.Range
	if r.count == 0 {
		return nil
	}
	if args.Return&imapwire.ReturnPartial != 0 {
		_, out = r.page(args.Partial)
	}
	if args.Return&imapwire.ReturnMin != 0 {
		out = append(out, imapwire.Range{Lo: r.first.UID, Hi: r.first.UID})
	}
	if args.Return&imapwire.ReturnMax != 0 {
		out = append(out, imapwire.Range{Lo: r.last.UID, Hi: r.last.UID})
	}
	return imapwire.Normalize(out)
}

// page returns a page of the result, in its order.
func (r *found) page(p imapwire.Partial) (seqs, uids []imapwire.Range) {
	first, end := p.Of(r.count)
	return imapwire.Slice(r.seqs, first, end), imapwire.Slice(r.uids, first, end)
}

// writeSearch writes the SEARCH response of IMAP4rev1, or the SORT response.
func (s *session) writeSearch(c *call, name string, args *imapwire.Search, r *found) {
	e := &s.enc
	e.Raw("* ").Raw(name)
	ranges := r.seqs
	if c.uid {
		ranges = r.uids
	}
	for _, span := range ranges {
		for n := uint64(span.Lo); n <= uint64(span.Hi); n++ {
			e.SP().Number(n)
		}
	}
	if args.ModSeq && r.count > 0 {
		e.Raw(" (MODSEQ ").Number(r.highest).Byte(')')
	}
	e.CRLF()
}

// writeESearch writes the ESEARCH response (RFC 9051 §7.3.4). Without RETURN, or with SAVE beside
// nothing, IMAP4rev2 wants ALL.
func (s *session) writeESearch(c *call, args *imapwire.Search, r *found) {
	e := &s.enc
	options := args.Return
	if !args.Extended {
		options = imapwire.ReturnAll
	}
	e.Raw("* ESEARCH (TAG ").String(c.tag).Byte(')')
	ranges, first, last := r.seqs, uint64(r.firstN), uint64(r.lastN)
	if c.uid {
		e.Raw(" UID")
		ranges, first, last = r.uids, uint64(r.first.UID), uint64(r.last.UID)
	}
	if r.count > 0 {
		if options&imapwire.ReturnMin != 0 {
			e.Raw(" MIN ").Number(first)
		}
		if options&imapwire.ReturnMax != 0 {
			e.Raw(" MAX ").Number(last)
		}
		if options&imapwire.ReturnAll != 0 {
			e.Raw(" ALL ").Set(ranges)
		}
	}
	if options&imapwire.ReturnCount != 0 {
		e.Raw(" COUNT ").Number(r.count)
	}
	if options&imapwire.ReturnPartial != 0 {
		seqs, uids := r.page(args.Partial)
		if c.uid {
			seqs = uids
		}
		e.Raw(" PARTIAL (").Raw(string(args.Partial.Append(nil))).SP()
		if len(seqs) == 0 {
			e.Raw("NIL)")
		} else {
			e.Set(seqs).Byte(')')
		}
	}
	if args.ModSeq && r.count > 0 {
		e.Raw(" MODSEQ ").Number(s.modSeq(args, r))
	}
	e.CRLF()
}

// modSeq is the mod-sequence of an extended result: of the messages that it names, if it names MIN, MAX or a page
// only, else of all (RFC 7162 §3.1.10).
func (s *session) modSeq(args *imapwire.Search, r *found) uint64 {
	const naming = imapwire.ReturnMin | imapwire.ReturnMax | imapwire.ReturnPartial
	if args.Return&(imapwire.ReturnAll|imapwire.ReturnCount) != 0 || args.Return&naming == 0 {
		return r.highest
	}
	highest := uint64(0)
	s.box.view.each(r.named(args), func(_ uint32, m *mailstore.Message, _ bool) bool {
		highest = max(highest, m.ModSeq)
		return true
	})
	if highest == 0 {
		return r.highest // the page is empty
	}
	return highest
}
