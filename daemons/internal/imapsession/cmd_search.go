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
	b := s.box
	b.catchUp()
	if args.ModSeq {
		s.enableCondstore()
	}
	result, err := s.search(c, args)
	if err != nil {
		s.forgetSaved(err, args)
		return err
	}
	if args.Return&imapwire.ReturnSave != 0 {
		b.saved = result.savedUIDs(args.Return)
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

// savedUIDs is what "$" stands for from now on: with MIN and MAX alone only these (RFC 5182 §2.1).
func (r *found) savedUIDs(options imapwire.SearchReturn) []imapwire.Range {
	if options&(imapwire.ReturnAll|imapwire.ReturnCount) != 0 ||
		options&(imapwire.ReturnMin|imapwire.ReturnMax) == 0 || r.count == 0 {
		return r.uids
	}
	var out []imapwire.Range
	if options&imapwire.ReturnMin != 0 {
		out = imapwire.AddNumber(out, r.first.UID)
	}
	if options&imapwire.ReturnMax != 0 && (len(out) == 0 || r.last.UID != r.first.UID) {
		out = imapwire.AddNumber(out, r.last.UID)
	}
	return out
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
	if args.ModSeq && r.count > 0 {
		e.Raw(" MODSEQ ").Number(r.modSeq(options))
	}
	e.CRLF()
}

// modSeq is the mod-sequence of an extended result: of the messages that it names, if it names MIN or
// MAX only, else of all (RFC 7162 §3.1.10).
func (r *found) modSeq(options imapwire.SearchReturn) uint64 {
	if options&(imapwire.ReturnAll|imapwire.ReturnCount) != 0 {
		return r.highest
	}
	switch options & (imapwire.ReturnMin | imapwire.ReturnMax) {
	case imapwire.ReturnMin:
		return r.first.ModSeq
	case imapwire.ReturnMax:
		return r.last.ModSeq
	case imapwire.ReturnMin | imapwire.ReturnMax:
		return max(r.first.ModSeq, r.last.ModSeq)
	}
	return r.highest
}
