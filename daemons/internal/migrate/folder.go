package migrate

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/emersion/go-imap/v2"
	"github.com/emersion/go-imap/v2/imapclient"

	"shoal/daemons/internal/mailstore"
)

// Bounds of a batch: messages are staged one by one and committed together.
const (
	batchMessages = 100
	batchBytes    = 16 << 20
)

// suspicious is how many messages may vanish from a mailbox between two rounds before that is not believed, if they are more than
// half of it.
const suspicious = 20

// seen is what the old server says of a message.
type seen struct {
	uid   uint32
	size  int64
	date  time.Time
	flags mailstore.Flags
	words []string
}

// folder brings a mailbox to where the old server's is.
func (r *round) folder(ctx context.Context, f *folder) error {
	r.c.conn.allow(allowance)
	condstore := r.c.Caps().Has(imap.CapCondStore) || r.c.Caps().Has(imap.CapQResync)
	sel, err := r.c.Select(f.there, &imap.SelectOptions{ReadOnly: true, CondStore: condstore}).Wait()
	if err != nil {
		return err
	}
	r.p.Of += int64(sel.NumMessages)
	box, k, err := r.open(ctx, f, max(sel.UIDValidity, 1))
	if err != nil || box == nil {
		return err
	}
	if k.Validity != max(sel.UIDValidity, 1) { // it is another mailbox now: everything is looked at again
		*k = mark{Name: k.Name, ID: k.ID, Validity: max(sel.UIDValidity, 1)}
	}
	st, err := box.State(ctx)
	if err != nil {
		return err
	}
	same := st.UIDValidity() == k.Validity
	if k.High > 0 && (!condstore || sel.HighestModSeq == 0 || sel.HighestModSeq != k.ModSeq) {
		if err := r.follow(ctx, box, k, sel.NumMessages); err != nil {
			return err
		}
	}
	if uint32(sel.UIDNext) == 0 || k.High+1 < uint32(sel.UIDNext) {
		if err := r.fresh(ctx, box, k, sel.NumMessages, same); err != nil {
			return err
		}
	}
	if same {
		if err := box.SkipUIDs(ctx, uint32(sel.UIDNext)); err != nil {
			return err
		}
	}
	if condstore {
		k.ModSeq = sel.HighestModSeq
	}
	if err := k.write(ctx, r.handle); err != nil {
		return err
	}
	return r.tell(ctx, false)
}

// list asks for flags, dates and sizes.
func (r *round) list(set imap.UIDSet, n uint32, o *imap.FetchOptions) ([]seen, error) {
	r.c.conn.allow(allowance + int64(n)*perLine)
	o.UID, o.Flags = true, true
	cmd := r.c.Fetch(set, o)
	var out []seen
	for msg := cmd.Next(); msg != nil; msg = cmd.Next() {
		var s seen
		has := false
		for item := msg.Next(); item != nil; item = msg.Next() {
			switch item := item.(type) {
			case imapclient.FetchItemDataUID:
				s.uid = uint32(item.UID)
			case imapclient.FetchItemDataFlags:
				s.flags, s.words = flagsOf(item.Flags)
				has = true
			case imapclient.FetchItemDataInternalDate:
				s.date = item.Time
			case imapclient.FetchItemDataRFC822Size:
				s.size = item.Size
			}
		}
		if s.uid != 0 && has {
			out = append(out, s)
		}
	}
	if err := cmd.Close(); err != nil {
		return nil, err
	}
	slices.SortFunc(out, func(a, b seen) int { return int(int64(a.uid) - int64(b.uid)) })
	return slices.CompactFunc(out, func(a, b seen) bool { return a.uid == b.uid }), nil
}

// flagsOf tells system flags from keywords.
func flagsOf(list []imap.Flag) (f mailstore.Flags, words []string) {
	for _, x := range list {
		switch strings.ToLower(string(x)) {
		case `\seen`:
			f |= mailstore.FlagSeen
		case `\answered`:
			f |= mailstore.FlagAnswered
		case `\flagged`:
			f |= mailstore.FlagFlagged
		case `\deleted`:
			f |= mailstore.FlagDeleted
		case `\draft`:
			f |= mailstore.FlagDraft
		default:
			if x != "" && x[0] != '\\' { // \Recent
				words = append(words, string(x))
			}
		}
	}
	return f, words
}

// fresh copies the messages above the mark.
func (r *round) fresh(ctx context.Context, box *mailstore.Mailbox, k *mark, n uint32, same bool) error {
	list, err := r.list(imap.UIDSet{{Start: imap.UID(k.High + 1), Stop: 0}}, n, &imap.FetchOptions{InternalDate: true, RFC822Size: true})
	if err != nil {
		return err
	}
	list = slices.DeleteFunc(list, func(s seen) bool { return s.uid <= k.High }) // "*" is the last message, whatever its UID
	for first := true; len(list) > 0; first = false {
		take, size := 0, int64(0)
		for take < len(list) && take < batchMessages && (take == 0 || size+list[take].size <= batchBytes) {
			size += list[take].size
			take++
		}
		if err := r.claim.extend(ctx); err != nil {
			return err
		}
		if err := r.batch(ctx, box, k, list[:take], size, same, first); err != nil {
			return err
		}
		list = list[take:]
	}
	return nil
}

// batch copies some messages in one commit and moves the mark.
func (r *round) batch(ctx context.Context, box *mailstore.Mailbox, k *mark, list []seen, size int64, same, first bool) error {
	var set imap.UIDSet
	facts := map[uint32]*seen{}
	for i := range list {
		if s := &list[i]; s.size > int64(r.m.o.Settings.MaxMessage) {
			r.p.Left++
			r.m.o.Log.WarnContext(ctx, "message too large to copy", "event", "migration-left", "account", r.acc.Address, "mailbox", k.Name, "uid", s.uid, "size", s.size)
		} else {
			set.AddNum(imap.UID(s.uid))
			facts[s.uid] = s
		}
	}
	staged := map[uint32]*mailstore.Staged{}
	defer func() {
		for _, s := range staged {
			s.Close()
		}
	}()
	if len(set) > 0 {
		r.c.conn.allow(allowance + 2*size + int64(len(list))*perLine)
		if err := r.stage(ctx, set, staged); err != nil {
			return err
		}
	}
	there, err := r.already(ctx, box, k, first)
	if err != nil {
		return err
	}
	var uids []uint32
	var msgs []mailstore.AppendMessage
	next := *k
	next.Runs = slices.Clone(k.Runs)
	var bytes int64
	for i := range list {
		s := &list[i]
		text := staged[s.uid]
		if text == nil { // expunged since, or left
			continue
		}
		if uid, ok := there[known{text.Content(), s.date.Unix()}]; ok && (!same || uid == s.uid || uid > s.uid) {
			next.add(s.uid, uid)
			continue
		}
		m := mailstore.AppendMessage{Message: text, Flags: s.flags, Keywords: s.words, InternalDate: s.date}
		if same {
			m.UID = s.uid
		}
		msgs, uids = append(msgs, m), append(uids, s.uid)
		bytes += text.Size()
	}
	if len(msgs) > 0 {
		done, err := box.Append(ctx, msgs)
		if err != nil {
			return err
		}
		for i, a := range done.Messages {
			if a.UID != 0 {
				next.add(uids[i], a.UID)
			}
		}
	}
	next.High = list[len(list)-1].uid
	*k = next
	r.p.Copied += int64(len(msgs))
	r.p.Bytes += bytes
	r.m.m.messages.Add(float64(len(msgs)))
	r.m.m.bytes.Add(float64(bytes))
	if err := k.write(ctx, r.handle); err != nil {
		return err
	}
	return r.tell(ctx, false)
}

// stage reads messages into the store.
func (r *round) stage(ctx context.Context, set imap.UIDSet, into map[uint32]*mailstore.Staged) error {
	cmd := r.c.Fetch(set, &imap.FetchOptions{UID: true, BodySection: []*imap.FetchItemBodySection{{Peek: true}}})
	var failed error
	for msg := cmd.Next(); msg != nil; msg = cmd.Next() {
		if failed == nil {
			failed = r.claim.extend(ctx)
		}
		var uid uint32
		var text *mailstore.Staged
		for item := msg.Next(); item != nil; item = msg.Next() {
			switch item := item.(type) {
			case imapclient.FetchItemDataUID:
				uid = uint32(item.UID)
			case imapclient.FetchItemDataBodySection:
				if item.Literal == nil || text != nil || failed != nil {
					continue
				}
				text, failed = r.m.o.Store.Stage(ctx, r.handle.Volume(), item.Literal, int64(r.m.o.Settings.MaxMessage))
			}
		}
		if text != nil && into[uid] == nil && uid != 0 {
			into[uid] = text
		} else if text != nil {
			text.Close()
		}
	}
	err := cmd.Close()
	if failed != nil {
		return failed
	}
	return err
}

// known is by what a message is found again that a server copied and did not live to note.
type known struct {
	content mailstore.ContentID
	date    int64
}

// already gives the last messages of the mailbox. Only the first batch of a round can have been copied before.
func (r *round) already(ctx context.Context, box *mailstore.Mailbox, k *mark, first bool) (map[known]uint32, error) {
	if !first {
		return nil, nil
	}
	st, err := box.State(ctx)
	if err != nil {
		return nil, err
	}
	from := max(st.Len()-4*batchMessages, 0)
	if k.High == 0 { // the mark is new: a mailbox that was recreated at the old server may be here as a whole
		from = 0
	}
	out := map[known]uint32{}
	for _, m := range st.Range(from, st.Len()) {
		out[known{m.Content(), m.InternalDate().Unix()}] = m.UID
	}
	return out, nil
}

// follow brings flags and removals of messages that were copied before.
func (r *round) follow(ctx context.Context, box *mailstore.Mailbox, k *mark, n uint32) error {
	if len(k.Runs) == 0 {
		return nil
	}
	set := imap.UIDSet{{Start: 1, Stop: imap.UID(k.High)}}
	if k.ModSeq > 0 {
		changed, err := r.list(set, n, &imap.FetchOptions{ChangedSince: k.ModSeq})
		if err != nil {
			return err
		}
		if err := r.flags(ctx, box, k, changed); err != nil {
			return err
		}
	}
	r.c.conn.allow(allowance + int64(n)*perLine)
	found, err := r.c.UIDSearch(&imap.SearchCriteria{UID: []imap.UIDSet{set}}, nil).Wait()
	if err != nil {
		return err
	}
	have := map[uint32]bool{}
	for _, uid := range found.AllUIDs() {
		if here := k.here(uint32(uid)); here != 0 {
			have[here] = true
		}
	}
	st, err := box.State(ctx)
	if err != nil {
		return err
	}
	var gone mailstore.UIDSet
	all := 0
	for _, x := range k.Runs {
		var copied mailstore.UIDSet
		copied.AddRange(x.here(), x.here()+x.last()-x.first())
		for _, m := range st.UIDs(copied) {
			if all++; !have[m.UID] {
				gone.Add(m.UID)
			}
		}
	}
	switch count := gone.Len(); {
	case count == 0:
		return nil
	case count > suspicious && 2*count > all:
		r.m.o.Log.WarnContext(ctx, "so many messages have gone from the old server that none is removed here", "event", "migration-gone",
			"account", r.acc.Address, "mailbox", k.Name, "gone", count, "of", all)
		return nil
	}
	if err := r.claim.extend(ctx); err != nil {
		return err
	}
	_, err = box.Expunge(ctx, gone, false)
	return err
}

// flags gives messages the flags that they have at the old server.
func (r *round) flags(ctx context.Context, box *mailstore.Mailbox, k *mark, list []seen) error {
	st, err := box.State(ctx)
	if err != nil {
		return err
	}
	type set struct {
		flags mailstore.Flags
		words string
	}
	changes := map[set]*mailstore.FlagChange{}
	for i := range list {
		s := &list[i]
		m, ok := st.ByUID(k.here(s.uid))
		if !ok {
			continue
		}
		slices.Sort(s.words)
		words := slices.Sorted(slices.Values(m.Keywords))
		if m.Flags == s.flags && slices.EqualFunc(words, s.words, strings.EqualFold) {
			continue
		}
		key := set{s.flags, strings.Join(s.words, " ")}
		if changes[key] == nil {
			changes[key] = &mailstore.FlagChange{Op: mailstore.FlagsReplace, Flags: s.flags, Keywords: s.words}
		}
		changes[key].UIDs.Add(m.UID)
	}
	for _, c := range changes {
		if err := r.claim.extend(ctx); err != nil {
			return err
		}
		if _, err := box.ChangeFlags(ctx, *c); err != nil {
			return fmt.Errorf("flags: %w", err)
		}
	}
	return nil
}
