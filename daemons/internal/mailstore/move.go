package mailstore

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"syscall"
	"time"

	"shoal/daemons/internal/vfs"
)

// Moving an account to another volume while it is in use.
//
// An account is its logs and its message files, and nothing in them names the volume. So the copy is made of the same
// records under the same numbers and of the same files under the same names, and what comes out is the same account:
// ids, UIDs, UIDVALIDITY, mod-sequences, tombstones, what can be undeleted. Every log has one history; the place where
// it goes on changes once:
//
//  1. Copy into move/<account> on the other volume: for each log a snapshot of the fold as it is now, with the records
//     of its last segment; for each mailbox the message files before that. Then follow: copy what has come since.
//  2. Fence. "m <volume>|Z" is committed to the account's log and then to every mailbox: from each terminal record on
//     nothing is acknowledged at the old place, by the rule of commits, whoever has it open and however stale. The
//     list of mailboxes is final before the first mailbox is closed.
//  3. Copy what came before the terminal records; those themselves are not copied. Compare the folds.
//  4. Rename move/<account> to its place. The directory is changed next, by the caller, and clients are let in.
//  5. Stamp the old mailboxes as deleted: the background work takes them to the trash after the retention. The closed
//     log of the account stays: it keeps a server that still has the old place in mind from making the account anew.
//
// Until the first terminal record the move can be given up by removing move/<account>; after it, it only goes
// forward. Every step can be repeated, also by several at once: what is copied has the same content under the same name
// whoever copies it, and of two moves to different volumes the one wins whose terminal record stands in the
// account's log.
//
// A server that was stopped during all this wakes with a fold that is a beginning of the same history: whether it looks
// at the old place (closed) or, after another move back, at a continuation, it reads on by the usual rule, floors
// included, which the copy has as well.

const dirMove = "move"

// MovePhase is how far a move is.
type MovePhase int

// The phases of a move, in order.
const (
	MoveNone      MovePhase = iota // nothing has been done
	MoveCopying                    // there is a copy in the making; the old place is in use
	MoveFenced                     // the fence has begun: the account's log is closed, perhaps not all mailboxes
	MovePublished                  // the new place is there; only the directory remains to be changed
)

// MoveProgress is what a move tells while it works.
type MoveProgress struct {
	Phase            string // "copy", "fence", "finish"
	Mailbox          string // its name
	Mailboxes, Of    int
	Messages, Copied int64 // message files looked at and copied
	Bytes            int64
	Records          int64
}

// Move is a move of one account. Its methods are called one at a time, in order.
type Move struct {
	// Progress, if set, is told of the progress, often.
	Progress func(MoveProgress)
	// Damage lists message files that could not be copied as they should be: missing, or of other content than their
	// name says. The mailbox has the same damage after the move.
	Damage []Problem

	s        *Store
	id       string
	from, to *volume
	old, new string // the account's directory, before and after
	stage    string
	account  *moveLog
	boxes    map[string]*moveLog
	told     MoveProgress
	mu       sync.Mutex
}

// NewMove prepares the move of an account between volumes. It changes nothing.
func (s *Store) NewMove(account, from, to string) (*Move, error) {
	m := &Move{s: s, id: account, boxes: map[string]*moveLog{}}
	var err error
	if m.from, err = s.volume(from); err != nil {
		return nil, err
	}
	if m.to, err = s.volume(to); err != nil {
		return nil, err
	}
	switch {
	case !validAccountID(account):
		return nil, fmt.Errorf("account id %q: want 8 to 40 of a-z, 0-9 and -: %w", account, ErrNoAccount)
	case m.from == m.to, m.from.id == m.to.id:
		return nil, fmt.Errorf("account %s lies on %s already", account, to)
	}
	m.old, m.new = accountPath(m.from.root, account), accountPath(m.to.root, account)
	m.stage = m.to.root + "/" + dirMove + "/" + account
	m.account = m.newLog(accountKind, m.old, m.stage)
	return m, nil
}

// peek folds an account's log without keeping anything; nil if there is no such account.
func (m *Move) peek(v *volume, dir string) (*acctState, error) {
	if err := v.present(); err != nil {
		return nil, err
	}
	if err := v.askAnew(dir); err != nil {
		return nil, err
	}
	if _, err := v.fs.Lstat(dir); err != nil {
		if isNotExist(err) {
			return nil, nil
		}
		return nil, ioErr("lstat", dir, err)
	}
	j := newJournal(m.s, v, accountKind, dir, Ref{})
	if err := j.advance(); err != nil {
		return nil, err
	}
	return j.fold.state().(*acctState), nil
}

// Phase finds out how far the move is. An error when it cannot be made: the account does not exist, was moved
// elsewhere (ErrMoved), or the other volume holds an account of that id already (ErrMailboxExists).
func (m *Move) Phase() (MovePhase, error) {
	old, err := m.peek(m.from, m.old)
	if err != nil {
		return 0, err
	}
	now, err := m.peek(m.to, m.new)
	if err != nil {
		return 0, err
	}
	there := now != nil && !now.closed
	switch {
	case old == nil:
		return 0, fmt.Errorf("account %s has no mail on %s: %w", m.id, m.from.name, ErrNoAccount)
	case !old.closed && there:
		return 0, fmt.Errorf("account %s: %s holds an open account of that id as well: %w: move that one away first (shoalctl store verify shows it)", m.id, m.to.name, ErrMailboxExists)
	case !old.closed:
		if _, err := m.to.fs.Lstat(m.stage); err == nil {
			return MoveCopying, nil
		} else if !isNotExist(err) {
			return 0, ioErr("lstat", m.stage, err)
		}
		return MoveNone, nil
	case movedTo(old.kept) == "":
		return 0, fmt.Errorf("account %s: deleted: %w", m.id, ErrNoAccount)
	case movedTo(old.kept) != m.to.name:
		return 0, fmt.Errorf("account %s: %w: %s", m.id, ErrMoved, movedTo(old.kept))
	case there:
		return MovePublished, nil
	}
	return MoveFenced, nil
}

// Abort removes the copy. It is refused once the old place is closed: then only the other way is left.
func (m *Move) Abort() error {
	switch phase, err := m.Phase(); {
	case err != nil:
		return err
	case phase >= MoveFenced:
		return fmt.Errorf("account %s: its place on %s is closed already: let the move come to its end, then move it back", m.id, m.from.name)
	}
	return m.to.removeAll(m.stage)
}

// closeEnough is the number of new records in all logs together at which following ends and the fence is set.
const closeEnough = 50

// maxFollow bounds the rounds of following an account that changes all the time.
const maxFollow = 20

// Copy makes the copy and follows the account until little is missing. It may be repeated.
func (m *Move) Copy(ctx context.Context) error {
	m.told.Phase = "copy"
	for range maxFollow {
		before := m.told.Records
		first := m.account.last == 0
		if err := m.round(ctx); err != nil {
			return err
		}
		if !first && m.told.Records-before < closeEnough {
			return nil
		}
	}
	return nil
}

// round copies what there is at the time.
func (m *Move) round(ctx context.Context) error {
	for _, dir := range []string{m.to.root + "/" + dirMove, m.stage, m.stage + "/" + dirBoxes} {
		if err := m.to.fs.Mkdir(dir); err != nil && !errors.Is(err, syscall.EEXIST) {
			return ioErr("mkdir", dir, err)
		}
	}
	if err := m.account.sync(ctx); err != nil {
		return err
	}
	st := m.account.state.(*acctState)
	m.told.Of = len(st.boxes)
	for i, id := range sortedIDs(st.boxes) {
		if err := ctx.Err(); err != nil {
			return err
		}
		b := m.boxes[id]
		if b == nil {
			b = m.newLog(mailboxKind, m.old+"/"+dirBoxes+"/"+id, m.stage+"/"+dirBoxes+"/"+id)
			m.boxes[id] = b
		}
		m.tell(func(p *MoveProgress) { p.Mailbox, p.Mailboxes = st.boxes[id].name, i+1 })
		err := b.sync(ctx)
		if errors.Is(err, ErrMailboxClosed) && !errors.Is(err, ErrMoved) {
			continue // deleted since the account's log was read
		}
		if err != nil {
			return fmt.Errorf("mailbox %q: %w", st.boxes[id].name, err)
		}
	}
	return nil
}

func (m *Move) tell(f func(*MoveProgress)) {
	m.mu.Lock()
	defer m.mu.Unlock()
	f(&m.told)
	if m.Progress != nil {
		m.Progress(m.told)
	}
}

func (m *Move) damage(path, what string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	p := Problem{Kind: KindFile, Path: path, What: what}
	for _, d := range m.Damage {
		if d == p {
			return
		}
	}
	m.Damage = append(m.Damage, p)
}

// Fence closes the old place: first the account's list of mailboxes, then each mailbox. It must come to its end, in as
// many tries as it takes, before Finish.
func (m *Move) Fence(ctx context.Context) error {
	m.told.Phase = "fence"
	a, err := m.s.existing(m.from, m.id)
	if err != nil {
		return err
	}
	if _, err := a.reopen(ctx); err != nil { // it may have gone and come back since this process saw it
		return err
	}
	if err := a.j.closeAsMoved(ctx, m.to.name); err != nil {
		return fmt.Errorf("account %s: %w", m.id, err)
	}
	st, err := m.peek(m.from, m.old)
	if err != nil {
		return err
	}
	for i, id := range sortedIDs(st.boxes) {
		m.tell(func(p *MoveProgress) { p.Mailbox, p.Mailboxes, p.Of = st.boxes[id].name, i+1, len(st.boxes) })
		if err := a.mailbox(id).j.closeAsMoved(ctx, m.to.name); err != nil {
			return fmt.Errorf("mailbox %q: %w", st.boxes[id].name, err)
		}
	}
	return nil
}

// Finish copies the rest, compares, and puts the account into its new place. The old place must be closed.
func (m *Move) Finish(ctx context.Context) error {
	m.told.Phase = "finish"
	if err := m.round(ctx); err != nil {
		return err
	}
	st := m.account.state.(*acctState)
	logs := []*moveLog{m.account}
	for _, id := range sortedIDs(st.boxes) {
		logs = append(logs, m.boxes[id])
	}
	for _, l := range logs {
		if !l.ended {
			return fmt.Errorf("%s is not closed: the fence is not complete", l.old)
		}
		if err := l.compare(); err != nil {
			return err
		}
	}
	if err := m.dropOthers(st); err != nil {
		return err
	}
	if err := m.to.syncTree(m.stage); err != nil {
		return err
	}
	return m.publish()
}

// dropOthers removes copies of mailboxes that were deleted during the move.
func (m *Move) dropOthers(st *acctState) error {
	dir := m.stage + "/" + dirBoxes
	names, err := m.to.fs.ReadDir(dir, nil)
	if err != nil {
		return ioErr("list", dir, err)
	}
	for _, name := range names {
		if st.boxes[name] == nil {
			if err := m.to.removeAll(dir + "/" + name); err != nil {
				return err
			}
		}
	}
	return nil
}

// publish gives the copy its place. What is there from an earlier move is closed and makes way; anything else does not.
func (m *Move) publish() error {
	parent := m.new[:strings.LastIndexByte(m.new, '/')]
	if err := m.to.fs.Mkdir(parent); err != nil && !errors.Is(err, syscall.EEXIST) {
		return ioErr("mkdir", parent, err)
	}
	for range 3 {
		st, err := m.peek(m.to, m.new)
		switch {
		case err != nil:
			return err
		case st != nil && !st.closed:
			return fmt.Errorf("account %s: %s holds an account of that id: %w", m.id, m.to.name, ErrMailboxExists)
		case st != nil:
			// Its age in the trash counts from now.
			if err := writeFile(m.to.fs, m.new+"/"+deletedStamp, nil); err != nil && !isNotExist(err) {
				return ioErr("write", m.new, err)
			}
			trash := m.to.root + "/trash/" + m.id + "." + m.s.nextNonce().String()
			if err := m.to.fs.Rename(m.new, trash); err != nil && !isNotExist(err) {
				return ioErr("rename", m.new, err)
			}
			// Another run of the same move may have come to its end after the look: then this was the account.
			if st, err := m.peek(m.to, trash); err != nil {
				return err
			} else if st != nil && !st.closed {
				return errors.Join(fmt.Errorf("account %s: another run has just moved it: %w", m.id, ErrMailboxExists), ioErr("rename", trash, m.to.fs.Rename(trash, m.new)))
			}
		}
		err = m.to.fs.Rename(m.stage, m.new)
		if err == nil || isNotExist(err) {
			if _, e := m.to.fs.Lstat(m.new); err != nil && e != nil {
				return ioErr("rename", m.stage, err)
			}
			return errors.Join(m.to.syncDir(parent), m.to.syncDir(m.to.root+"/trash"), m.to.syncDir(m.to.root+"/"+dirMove))
		}
		if !errors.Is(err, syscall.ENOTEMPTY) && !errors.Is(err, syscall.EEXIST) {
			return ioErr("rename", m.stage, err)
		}
	}
	return fmt.Errorf("account %s: its place on %s is taken again and again: %w", m.id, m.to.name, ErrUnavailable)
}

// Retire marks what remains at the old place for the background work. To be called when the directory is changed.
func (m *Move) Retire(ctx context.Context) error {
	a, err := m.s.existing(m.from, m.id)
	if err != nil {
		return err
	}
	return a.retireMoved(ctx)
}

// retireMoved brings the mailboxes of an account that has moved away closer to the trash.
func (a *Account) retireMoved(ctx context.Context) error {
	var ids []string
	err := a.vol.do(ctx, func() (err error) {
		ids, err = a.vol.fs.ReadDir(a.dir+"/"+dirBoxes, nil)
		return ioErr("list", a.dir+"/"+dirBoxes, err)
	})
	if err != nil {
		return err
	}
	st, err := a.reopen(ctx)
	if err != nil {
		return err
	}
	if !st.closed || movedTo(st.kept) == "" {
		return nil
	}
	now, err := a.vol.serverNow(ctx)
	if err != nil {
		return err
	}
	var errs []error
	for _, id := range ids {
		name := ""
		if b := st.boxes[id]; b != nil {
			name = b.name
		}
		errs = append(errs, a.vol.do(ctx, func() error { return a.retireBox(id, name, now) }))
	}
	return errors.Join(errs...)
}

// retireBox stamps a mailbox of an account that has moved away, and takes it to the trash after the retention. The
// account may come back at any moment, and with it an open mailbox of that name: one that turns out to be open is put
// back.
func (a *Account) retireBox(id, name string, now time.Time) error {
	fs, dir := a.vol.fs, a.dir+"/"+dirBoxes+"/"+id
	stamp := dir + "/" + deletedStamp
	i, err := fs.Lstat(stamp)
	if isNotExist(err) {
		err := writeFile(fs, stamp, append(appendEscaped([]byte("name "), name), '\n'))
		if isNotExist(err) {
			return nil
		}
		return ioErr("write", stamp, err)
	}
	if err != nil {
		return ioErr("lstat", stamp, err)
	}
	if now.Sub(i.ModTime) < a.s.o.Retention {
		return nil
	}
	to := a.vol.root + "/trash/" + a.id + "." + id
	if err := fs.Rename(dir, to); err != nil {
		if isNotExist(err) {
			return nil
		}
		return ioErr("rename", dir, err)
	}
	j := newJournal(a.s, a.vol, mailboxKind, to, Ref{})
	if err := j.advance(); err == nil && !j.fold.isClosed() {
		return ioErr("rename", to, fs.Rename(to, dir))
	}
	return errors.Join(a.vol.syncDir(a.vol.root+"/trash"), a.vol.syncDir(a.dir+"/"+dirBoxes))
}

// syncTree makes all directories of a tree durable, from below. Files are already.
func (v *volume) syncTree(dir string) error {
	if v.network {
		return nil
	}
	names, err := v.fs.ReadDir(dir, nil)
	if err != nil {
		if errors.Is(err, syscall.ENOTDIR) {
			return nil
		}
		return ioErr("list", dir, err)
	}
	for _, name := range names {
		i, err := v.fs.Lstat(dir + "/" + name)
		if err != nil && !isNotExist(err) {
			return ioErr("lstat", dir+"/"+name, err)
		}
		if i.Kind != vfs.KindDir {
			continue
		}
		if err := v.syncTree(dir + "/" + name); err != nil {
			return err
		}
	}
	return v.syncDir(dir)
}
