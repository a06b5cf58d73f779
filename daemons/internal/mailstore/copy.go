package mailstore

import (
	"context"
	"errors"
	"fmt"
)

// CopyResult is the outcome of CopyTo and MoveTo: message Source[i] is now Dest[i] over there.
type CopyResult struct {
	UIDValidity  uint32 // of the destination
	Source, Dest []uint32
	ModSeq       uint64 // MoveTo: mod-sequence of the expunge in the source
	State        *State // MoveTo: of the source
}

// linkBatch is how many files are linked per turn on the volume: the caller's patience is for one turn.
const linkBatch = 256

// CopyTo copies messages with flags and internal date into dst, in ascending order of UID, all in one
// commit. UIDs without a message are passed over.
func (m *Mailbox) CopyTo(ctx context.Context, uids UIDSet, dst *Mailbox) (CopyResult, error) {
	return m.copyTo(ctx, uids, dst, CopyOptions{})
}

// CopyOptions say what Transfer does. The zero value copies messages with all their flags.
type CopyOptions struct {
	Move         bool  // MoveTo instead of CopyTo
	DropFlags    Flags // flags that the copies do not get
	DropKeywords bool  // keywords neither
}

// Transfer is CopyTo or MoveTo of messages that do not take along all of their flags: into a mailbox where the user may not set them
// (RFC 4314 §4).
func (m *Mailbox) Transfer(ctx context.Context, uids UIDSet, dst *Mailbox, o CopyOptions) (CopyResult, error) {
	if o.Move {
		return m.moveTo(ctx, uids, dst, o)
	}
	return m.copyTo(ctx, uids, dst, o)
}

// MoveTo copies messages into dst and then expunges them here. A crash between the two commits leaves
// them in both; moving them again ends that and makes no second copy.
func (m *Mailbox) MoveTo(ctx context.Context, uids UIDSet, dst *Mailbox) (CopyResult, error) {
	return m.moveTo(ctx, uids, dst, CopyOptions{Move: true})
}

func (m *Mailbox) moveTo(ctx context.Context, uids UIDSet, dst *Mailbox, o CopyOptions) (CopyResult, error) {
	r, err := m.copyTo(ctx, uids, dst, o)
	if err != nil || len(r.Source) == 0 {
		return r, err
	}
	x, err := m.Expunge(ctx, NewUIDSet(r.Source...), false)
	if err != nil {
		return r, err
	}
	r.ModSeq, r.State = x.ModSeq, x.State
	return r, nil
}

func (m *Mailbox) copyTo(ctx context.Context, uids UIDSet, dst *Mailbox, o CopyOptions) (CopyResult, error) {
	move := o.Move
	st, err := m.State(ctx)
	if err != nil {
		return CopyResult{}, err
	}
	to, err := dst.plan(ctx)
	if err != nil {
		return CopyResult{}, err
	}
	r := CopyResult{UIDValidity: to.uidValidity, State: st, ModSeq: st.ModSeq()}
	var msgs []Message
	for _, msg := range st.UIDs(uids.normal()) {
		msgs = append(msgs, msg)
		r.Source = append(r.Source, msg.UID)
	}
	if len(msgs) == 0 {
		return r, nil
	}
	if err := dst.j.vol.room(); err != nil {
		return CopyResult{}, err
	}
	dir := to.uidNext / messageDirLen
	entries := make([]entry, len(msgs))
	for i, msg := range msgs {
		id := msg.msgID()
		id.nonce = m.j.store.nextNonce()
		entries[i] = entry{
			id: id, flags: msg.Flags &^ o.DropFlags, keywords: msg.Keywords, date: msg.InternalDate().Unix(), hasDate: true,
			email: msg.EmailID(), thread: msg.ThreadID(), dir: dir,
		}
		if o.DropKeywords {
			entries[i].keywords = nil
		}
		if msg.rec.ext&extFile != 0 {
			entries[i].wire = uint32(msg.Size)
		}
		if msg.ext != nil {
			entries[i].extra = msg.ext.extra
		}
		if move {
			entries[i].source = fmt.Sprintf("%s.%d.%d", m.id, msg.UID, st.uidValidity)
		}
	}
	for i := 0; i < len(msgs); i += linkBatch {
		end := min(i+linkBatch, len(msgs))
		err := dst.j.vol.do(ctx, func() error { return m.link(dst, msgs[i:end], entries[i:end]) })
		if err != nil {
			dst.drop(entries[:end])
			return CopyResult{}, m.wrap(err)
		}
	}
	written := dst.j.vol.clk.Boot()
	q := &request{stores: true, op: deliverOp(m.j.store.clk.Now().Unix(), entries)}
	q.confirm = func() error {
		if dst.j.vol.clk.Boot()-written < recheckAfter {
			return nil
		}
		if err := m.link(dst, msgs, entries); err != nil {
			return &unknownError{err}
		}
		return nil
	}
	if err := dst.j.submit(ctx, q); err != nil {
		if !isUnknown(err) {
			dst.drop(entries)
		}
		return CopyResult{}, m.wrap(err)
	}
	now := q.state.(*State)
	if !q.mail.resolved {
		q.mail.uids = now.uidsOf(entries)
	}
	if q.mail.exhausted {
		dst.drop(entries)
		if again, err := dst.renumber(ctx, now, entries); err != nil || !again {
			return CopyResult{}, dst.wrap(errors.Join(ErrUIDsExhausted, err))
		}
		return m.copyTo(ctx, uids, dst, o)
	}
	r.UIDValidity, r.Dest = now.uidValidity, q.mail.uids
	m.copyDerived(msgs, dst, entries, r.Dest)
	for i := range entries {
		if !move {
			break
		}
		// A message that was there already from an earlier try keeps its own file.
		if msg, ok := now.ByUID(r.Dest[i]); ok && msg.msgID() != entries[i].id {
			dst.drop(entries[i : i+1])
		}
	}
	return r, nil
}

// link makes hard links to messages, or copies where that can not be done.
func (m *Mailbox) link(dst *Mailbox, msgs []Message, entries []entry) error {
	j := dst.j
	for i := range msgs {
		from := m.j.messagePath(msgs[i].dir(), msgs[i].msgID())
		to := j.messagePath(entries[i].dir, entries[i].id)
		var err error
		if m.j.vol == j.vol {
			err = j.inMessageDir(entries[i].dir, func() error { return linkFile(j.vol.fs, from, to) })
		}
		if m.j.vol != j.vol || linkImpossible(err) {
			err = m.copyAcross(j, from, to, &entries[i])
		}
		if err != nil {
			return ioErr("link", to, err)
		}
	}
	return j.vol.orderDir(string(appendDec([]byte(j.dir+"/"+dirMessages+"/"), uint64(entries[0].dir))))
}

func (m *Mailbox) copyAcross(j *journal, from, to string, e *entry) error {
	b, err := readFile(m.j.vol.fs, from, maxMessage)
	if err != nil {
		return ioErr("read", from, err)
	}
	if checksum(b) != e.id.crc || uint64(len(b)) != e.id.size {
		return fmt.Errorf("%s: checksum: %w", from, ErrCorrupt)
	}
	return j.inMessageDir(e.dir, func() error { return j.vol.writeFile(to, b) })
}
