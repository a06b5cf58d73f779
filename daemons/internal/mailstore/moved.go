package mailstore

import (
	"context"
	"errors"
	"fmt"
	"strings"
)

// What a log says of the account having moved (move.go), who says it, and how an account that came back is read again.

// opMoved, in lower case so that older versions pass over it and see the terminal record that follows it in the
// same record: m <name of the volume>.
const opMoved = 'm'

// movedTo is the volume that the terminal record of a log names, or empty.
func movedTo(kept []keptOp) string {
	for i := len(kept) - 1; i >= 0; i-- {
		if to, ok := strings.CutPrefix(kept[i].op, string(opMoved)+" "); ok {
			if name, ok := unescape(to); ok {
				return name
			}
		}
	}
	return ""
}

// closedBy says why a mailbox is closed.
func closedBy(kept []keptOp) error {
	if to := movedTo(kept); to != "" {
		return fmt.Errorf("%w: %w: %s", ErrMailboxClosed, ErrMoved, to)
	}
	return ErrMailboxClosed
}

// closedError says why the log is closed. The caller holds drive.
func (j *journal) closedError() error {
	switch f := j.fold.(type) {
	case *mailFold:
		return closedBy(f.s.kept)
	case *acctFold:
		return closedBy(f.s.kept)
	}
	return ErrMailboxClosed
}

func (a *Account) closedError(st *acctState) error {
	if to := movedTo(st.kept); to != "" {
		return fmt.Errorf("account %s: %w: %w: %s", a.id, ErrNoAccount, ErrMoved, to)
	}
	return fmt.Errorf("account %s: deleted: %w", a.id, ErrNoAccount)
}

// reopen forgets what is known of a closed account and its mailboxes, and reads it anew: it may have come back.
func (a *Account) reopen(ctx context.Context) (*acctState, error) {
	if err := a.vol.do(ctx, func() error { return a.vol.askAnew(a.dir) }); err != nil {
		return nil, fmt.Errorf("account %s: %w", a.id, err)
	}
	if err := a.j.begin(ctx); err != nil {
		return nil, fmt.Errorf("account %s: %w", a.id, err)
	}
	x, err := a.j.read(ctx)
	if err != nil {
		return nil, fmt.Errorf("account %s: %w", a.id, err)
	}
	st := x.(*acctState)
	if st.closed {
		return st, nil
	}
	for _, j := range a.s.cache.journals() {
		if strings.HasPrefix(j.dir, a.dir+"/"+dirBoxes+"/") {
			if err := j.begin(ctx); err != nil {
				return nil, fmt.Errorf("account %s: %w", a.id, err)
			}
		}
	}
	return st, nil
}

// askAnew makes a client of a file server ask again what the name of a directory stands for, when it is looked for next. The
// place of an account may be taken by another directory while the client still knows the old one, for as long as it believes what
// it knows of the directory above: up to a minute, unless that is opened.
func (v *volume) askAnew(path string) error {
	if !v.network {
		return nil
	}
	above := path[:strings.LastIndexByte(path, '/')]
	if err := v.fs.SyncDir(above); err != nil && !isNotExist(err) {
		return ioErr("open", above, err)
	}
	return nil
}

// begin forgets all that is known of a log.
func (j *journal) begin(ctx context.Context) error {
	return j.drives(ctx, func() error {
		j.forget()
		j.floor = -1
		j.pub.Store(nil)
		return nil
	})
}

// listed returns a mailbox that the account's log was just seen to list. What is known of it may be that it was closed by
// a move, and it is back.
func (a *Account) listed(ctx context.Context, id string) (*Mailbox, error) {
	m := a.mailbox(id)
	if s := m.Cached(); s != nil && s.closed && movedTo(s.kept) != "" {
		if err := m.j.begin(ctx); err != nil {
			return nil, m.wrap(err)
		}
	}
	return m, nil
}

// closeAsMoved commits the terminal record. A log that was closed in this way already is fine; ErrMoved if it was to
// another volume.
func (j *journal) closeAsMoved(ctx context.Context, volume string) error {
	moved := &request{done: make(chan struct{}), op: func(b []byte, _ *opContext) []byte {
		return appendEscaped(append(b, opMoved, ' '), volume)
	}}
	end := &request{done: make(chan struct{}), op: func(b []byte, _ *opContext) []byte { return append(b, opTerminal) }}
	err := j.drives(ctx, func() error {
		j.commit([]*request{moved, end})
		return end.err
	})
	if err == nil || errors.Is(err, ErrNoSpace) {
		return err
	}
	// Closed already, or the outcome is unknown: the log knows.
	x, e := j.read(ctx)
	if e != nil {
		return errors.Join(err, e)
	}
	var closed bool
	var kept []keptOp
	switch st := x.(type) {
	case *State:
		closed, kept = st.closed, st.kept
	case *acctState:
		closed, kept = st.closed, st.kept
	}
	if to := movedTo(kept); closed && to == volume {
		return nil
	} else if closed {
		return closedBy(kept)
	}
	return err
}
