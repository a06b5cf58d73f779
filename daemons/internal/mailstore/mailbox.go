package mailstore

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"syscall"
	"time"
)

// Mailbox is a handle on one mailbox. Handles are cheap; all handles on a mailbox share one cached state
// and one committer. A handle stays valid when the mailbox is renamed.
type Mailbox struct {
	a  *Account
	id string
	j  *journal
}

// ID is the mailbox's id: MAILBOXID of RFC 8474.
func (m *Mailbox) ID() string { return m.id }

// Account is the account the mailbox belongs to.
func (m *Mailbox) Account() *Account { return m.a }

// Ref names the mailbox for a hint.
func (m *Mailbox) Ref() Ref { return m.j.ref }

// State returns a state that includes everything acknowledged anywhere before the call: one look at the
// file server for a mailbox without news. ErrMailboxClosed, ErrUnavailable.
func (m *Mailbox) State(ctx context.Context) (*State, error) {
	x, err := m.j.read(ctx)
	if err != nil {
		return nil, m.wrap(err)
	}
	s := x.(*State)
	if s.closed {
		return nil, m.wrap(closedBy(s.kept))
	}
	return s, nil
}

// Cached returns the newest state that this server knows, without any I/O; nil when it knows none.
func (m *Mailbox) Cached() *State {
	if p := m.j.pub.Load(); p != nil {
		return p.state.(*State)
	}
	return nil
}

// Watch registers interest: from now on C is signalled when the mailbox may have changed, whichever
// server changed it. Read State after registering, and after each signal.
func (m *Mailbox) Watch(ctx context.Context) (*Watcher, error) {
	w, err := m.j.addWatcher(ctx, nil)
	if err != nil {
		return nil, m.wrap(err)
	}
	return w, nil
}

// WatchFunc is Watch for callers that have no goroutine to spare: instead of a signal on C there is a
// call of wake, on the goroutine that noticed the change and under a lock. It must not block and not
// call the store; it may be called without need, and once more while Close is under way.
func (m *Mailbox) WatchFunc(ctx context.Context, wake func()) (*Watcher, error) {
	w, err := m.j.addWatcher(ctx, wake)
	if err != nil {
		return nil, m.wrap(err)
	}
	return w, nil
}

func (m *Mailbox) wrap(err error) error { return fmt.Errorf("mailbox %s/%s: %w", m.a.id, m.id, err) }

// hint returns a state to plan by: a cached one if there is one.
func (m *Mailbox) plan(ctx context.Context) (*State, error) {
	if s := m.Cached(); s != nil {
		if s.closed {
			return nil, m.wrap(closedBy(s.kept))
		}
		return s, nil
	}
	return m.State(ctx)
}

// AppendMessage is one message to append.
type AppendMessage struct {
	Message      *Staged
	Flags        Flags
	Keywords     []string
	InternalDate time.Time // zero: now
	// UID asks for this very UID; it is given only if it is not below UIDNEXT (adoption, restore).
	UID uint32
	// SaveDate (RFC 8514); zero: now.
	SaveDate time.Time
	// EmailID (RFC 8474), when the same message has one already; empty: a new one.
	EmailID string
	// ThreadID (RFC 8474); empty: none.
	ThreadID string
}

// Appended tells where a message went. UID is 0 only if it was expunged again before the outcome was known.
type Appended struct {
	UID uint32
	ID  string
}

// AppendResult is the outcome of Append.
type AppendResult struct {
	UIDValidity uint32
	ModSeq      uint64
	Messages    []Appended
	State       *State
	Duplicate   bool // of a message that was there before: nothing was added
}

// recheckAfter: a writer that is further than this past writing a message file looks at it again after
// its commit, because a collector may have taken the file for abandoned.
const recheckAfter = 24 * time.Hour

// Append adds messages, all in one commit. ErrNoSpace, ErrMailboxClosed, ErrUnavailable.
func (m *Mailbox) Append(ctx context.Context, msgs []AppendMessage) (AppendResult, error) {
	return m.append(ctx, msgs, nil)
}

// append is Append; with once it is one message, which is added unless it was before.
func (m *Mailbox) append(ctx context.Context, msgs []AppendMessage, once *Once) (AppendResult, error) {
	if len(msgs) == 0 {
		return AppendResult{}, errors.New("append: no messages")
	}
	if err := m.j.vol.room(); err != nil {
		return AppendResult{}, err
	}
	st, err := m.plan(ctx)
	if err != nil {
		return AppendResult{}, err
	}
	dir := st.uidNext / messageDirLen
	entries := make([]entry, len(msgs))
	for i := range msgs {
		a := &msgs[i]
		if a.UID == MaxUID {
			return AppendResult{}, m.wrap(ErrUIDsExhausted)
		}
		entries[i] = entry{
			id: a.Message.newID(m.j.store), flags: a.Flags, keywords: normalKeywords(a.Keywords),
			uid: a.UID, email: a.EmailID, thread: a.ThreadID, dir: dir,
		}
		if !a.InternalDate.IsZero() {
			entries[i].date, entries[i].hasDate = a.InternalDate.Unix(), true
		}
		if !a.SaveDate.IsZero() {
			entries[i].save, entries[i].hasSave = a.SaveDate.Unix(), true
		}
	}
	last := len(msgs) - 1
	for i := range msgs[:last] {
		if err = m.a.vol.do(ctx, m.placing(msgs[i].Message, &entries[i])); err != nil {
			m.drop(entries[:i])
			return AppendResult{}, m.wrap(err)
		}
	}
	var written time.Duration
	q := &request{stores: true, op: deliverOp(m.j.store.clk.Now().Unix(), entries)}
	var before *earlier
	if once != nil {
		q.op = once.guard(msgs[0].Message.contentID(), q.op, &before)
	}
	q.confirm = func() error {
		if m.j.vol.clk.Boot()-written < recheckAfter {
			return nil
		}
		return m.restoreFiles(msgs, entries)
	}
	var placed atomic.Bool
	place := m.placing(msgs[last].Message, &entries[last])
	err = m.j.submitAfter(ctx, q, func() error {
		if err := place(); err != nil {
			return err
		}
		written = m.j.vol.clk.Boot()
		placed.Store(true)
		return nil
	})
	if err != nil {
		switch {
		case isUnknown(err):
		case placed.Load():
			m.drop(entries)
		default:
			m.drop(entries[:last])
		}
		return AppendResult{}, m.wrap(err)
	}
	s := q.state.(*State)
	if before != nil {
		m.drop(entries)
		return AppendResult{UIDValidity: s.uidValidity, ModSeq: s.base + q.n, State: s, Duplicate: true, Messages: []Appended{{before.uid, before.id}}}, nil
	}
	if !q.mail.resolved {
		q.mail.uids = s.uidsOf(entries)
	}
	if q.mail.exhausted {
		m.drop(entries)
		if again, err := m.renumber(ctx, s, entries); err != nil || !again {
			return AppendResult{}, m.wrap(errors.Join(ErrUIDsExhausted, err))
		}
		return m.append(ctx, msgs, once)
	}
	r := AppendResult{UIDValidity: s.uidValidity, ModSeq: s.base + q.n, State: s, Messages: make([]Appended, len(entries))}
	for i := range entries {
		r.Messages[i] = Appended{UID: q.mail.uids[i], ID: entries[i].id.String()}
	}
	return r, nil
}

// placing is the file operation that puts a message into its place. It holds on to the message until it is done.
func (m *Mailbox) placing(s *Staged, e *entry) func() error {
	s.retain()
	return func() error {
		defer s.releaseIn(func(f func()) { f() })
		return m.j.placeMessage(s, e)
	}
}

// renumber gives the messages new UIDs when the old ones have run out, and tells whether that helped.
func (m *Mailbox) renumber(ctx context.Context, s *State, entries []entry) (bool, error) {
	for i := range entries {
		if entries[i].uid > uint32(s.count) {
			return false, nil // a UID that the caller asked for is what is too high
		}
	}
	if s.uidNext <= uint32(s.count)+uint32(len(entries)) {
		return false, nil
	}
	op := mailOp{kind: opRenumber, validity: m.j.store.newValidity(s.uidValidity)}
	q := &request{op: func(b []byte, x *opContext) []byte { return op.append(b, x.origin) }}
	return true, m.j.submit(ctx, q)
}

// restoreFiles looks at message files that were written long before their commit.
func (m *Mailbox) restoreFiles(msgs []AppendMessage, entries []entry) error {
	for i := range entries {
		path := m.j.messagePath(entries[i].dir, entries[i].id)
		if _, err := m.j.vol.fs.Lstat(path); err == nil {
			continue
		} else if !isNotExist(err) {
			return &unknownError{ioErr("lstat", path, err)}
		}
		if err := m.j.placeMessage(msgs[i].Message, &entries[i]); err != nil {
			return &unknownError{err}
		}
	}
	return nil
}

// deliverOp returns the op that delivers entries.
func deliverOp(date int64, entries []entry) func(b []byte, c *opContext) []byte {
	return func(b []byte, c *opContext) []byte {
		b = append(b, opDeliver, ' ')
		b = append36signed(b, date)
		for i := range entries {
			e := entries[i]
			c.uidHigh++
			if e.uid != 0 {
				c.uidHigh = max(c.uidHigh, uint64(e.uid)+1)
			}
			e.hasDir = uint64(e.dir) != c.uidLow/messageDirLen || uint64(e.dir) != c.uidHigh/messageDirLen
			if e.hasDate && e.date == date {
				e.hasDate = false
			}
			if e.hasSave && e.save == date {
				e.hasSave = false
			}
			b = append(b, ' ')
			b = e.append(b, c.origin)
		}
		return b
	}
}

// uidsOf looks for delivered messages by their names: the way back when a snapshot has swallowed the record.
func (s *State) uidsOf(entries []entry) []uint32 {
	want := map[nonce]int{}
	for i := range entries {
		want[entries[i].id.nonce] = i
	}
	out := make([]uint32, len(entries))
	for _, msg := range s.All() {
		if i, ok := want[msg.msgID().nonce]; ok {
			out[i] = msg.UID
		}
	}
	return out
}

// drop removes message files that no record names.
func (m *Mailbox) drop(entries []entry) {
	if len(entries) == 0 {
		return
	}
	m.j.vol.tidyUp(func() {
		for i := range entries {
			_ = m.j.vol.fs.Unlink(m.j.messagePath(entries[i].dir, entries[i].id))
		}
	})
}

// FlagOp is what a flag change does.
type FlagOp uint8

// The kinds of flag changes.
const (
	FlagsAdd FlagOp = iota + 1
	FlagsRemove
	FlagsReplace
)

// Flags are the system flags of a message (RFC 9051 §2.3.2).
type Flags uint8

// The system flags.
const (
	FlagSeen Flags = 1 << iota
	FlagAnswered
	FlagFlagged
	FlagDeleted
	FlagDraft
)

// FlagChange is a change of flags of many messages in one commit.
type FlagChange struct {
	UIDs     UIDSet
	Op       FlagOp
	Flags    Flags
	Keywords []string
	// UnchangedSince leaves messages alone whose mod-sequence is higher; decided when the change is
	// committed (RFC 7162 §3.1.3). Conditional says that it is meant.
	UnchangedSince uint64
	Conditional    bool
}

// FlagResult is the outcome of ChangeFlags.
type FlagResult struct {
	ModSeq  uint64 // of the changed messages
	Changed UIDSet // messages that differ now
	Failed  UIDSet // messages left alone because of UnchangedSince
	State   *State
}

// ChangeFlags changes flags. UIDs without a message are passed over.
func (m *Mailbox) ChangeFlags(ctx context.Context, c FlagChange) (FlagResult, error) {
	op := mailOp{kind: opFlags, flags: c.Flags, keywords: normalKeywords(c.Keywords), uids: c.UIDs.normal(), guard: c.UnchangedSince, guarded: c.Conditional}
	switch c.Op {
	case FlagsAdd:
		op.sign = '+'
	case FlagsRemove:
		op.sign = '-'
	case FlagsReplace:
		op.sign = '='
	default:
		return FlagResult{}, fmt.Errorf("flag change %d: unknown", c.Op)
	}
	if len(op.uids) == 0 {
		s, err := m.State(ctx)
		if err != nil {
			return FlagResult{}, err
		}
		return FlagResult{ModSeq: s.ModSeq(), State: s}, nil
	}
	q := &request{op: func(b []byte, x *opContext) []byte { return op.append(b, x.origin) }}
	if err := m.j.submit(ctx, q); err != nil {
		return FlagResult{}, m.wrap(err)
	}
	if !q.mail.resolved {
		return FlagResult{}, m.wrap(overtaken(q))
	}
	s := q.state.(*State)
	return FlagResult{ModSeq: s.base + q.n, Changed: q.mail.changed, Failed: q.mail.failed, State: s}, nil
}

// overtaken is the answer when a change stands, but only a snapshot has its record still, because this server was stopped for long
// in the middle of it: what the change did, and what it left alone, is not known any more.
func overtaken(q *request) error {
	return &unknownError{fmt.Errorf("record %d has been compacted before it was answered: %w", q.n, ErrUnavailable)}
}

// ExpungeResult is the outcome of Expunge.
type ExpungeResult struct {
	UIDs   UIDSet // messages that this call removed
	ModSeq uint64
	State  *State
}

// Expunge removes messages; with onlyDeleted those among them that carry \Deleted when the expunge is
// committed. A nil set means all messages.
func (m *Mailbox) Expunge(ctx context.Context, uids UIDSet, onlyDeleted bool) (ExpungeResult, error) {
	if len(uids) == 0 {
		uids = UIDSet{{1, MaxUID}}
	}
	op := mailOp{kind: opRemove, uids: uids.normal()}
	if onlyDeleted {
		op.kind = opExpunge
		// Nothing to do is common (CLOSE), and a look is cheaper than a record.
		s, err := m.State(ctx)
		if err != nil {
			return ExpungeResult{}, err
		}
		if s.deleted == 0 {
			return ExpungeResult{ModSeq: s.ModSeq(), State: s}, nil
		}
	}
	q := &request{op: func(b []byte, x *opContext) []byte { return op.append(b, x.origin) }}
	if err := m.j.submit(ctx, q); err != nil {
		return ExpungeResult{}, m.wrap(err)
	}
	if !q.mail.resolved {
		return ExpungeResult{}, m.wrap(overtaken(q))
	}
	s := q.state.(*State)
	return ExpungeResult{UIDs: q.mail.changed, ModSeq: s.base + q.n, State: s}, nil
}

// messagePath is the file of a message.
func (j *journal) messagePath(dir uint32, id msgID) string {
	b := make([]byte, 0, len(j.dir)+80)
	b = append(append(b, j.dir...), "/"+dirMessages+"/"...)
	b = append(appendDec(b, uint64(dir)), '/')
	return string(id.append(b))
}

// inMessageDir does f, which makes an entry in m/<dir>; a missing directory is made first.
func (j *journal) inMessageDir(dir uint32, f func() error) error {
	err := f()
	if !isNotExist(err) {
		return err
	}
	path := j.dir + "/" + dirMessages
	sub := string(appendDec([]byte(path+"/"), uint64(dir)))
	if err := j.vol.fs.Mkdir(sub); err != nil && !errors.Is(err, syscall.EEXIST) {
		if isNotExist(err) {
			return j.gone(path)
		}
		return ioErr("mkdir", sub, err)
	}
	if err := j.vol.orderDir(path); err != nil {
		return err
	}
	return f()
}
