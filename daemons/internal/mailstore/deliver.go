package mailstore

import (
	"context"
	"errors"
	"sync"
	"time"
)

// Target is one recipient of a delivery.
type Target struct {
	Account  *Account
	Mailbox  string // name; empty means INBOX
	Flags    Flags
	Keywords []string
	Date     time.Time // internal date; zero means now
	Once     *Once     // not if it has been delivered before; nil: in any case
}

// Result is the outcome of a delivery to one target.
type Result struct {
	MailboxID   string
	UIDValidity uint32
	UID         uint32
	ID          string // the message's name in the store, for the log
	Duplicate   bool   // Once: it was there before, as UID and ID, and was not added again
	Err         error  // ErrNoMailbox, ErrNoSpace, ErrUnavailable ...; nil: stable in the mailbox
}

// deliverAtOnce bounds the targets of one delivery that are worked on at once.
const deliverAtOnce = 8

// Deliver puts a staged message into the mailbox of each target: one file, and hard links to it for the
// others. A result without error is returned only after message and commit are stable.
func (s *Store) Deliver(ctx context.Context, m *Staged, targets []Target) []Result {
	out := make([]Result, len(targets))
	if len(targets) == 0 {
		return out
	}
	// The first writes the file that the others link to.
	first := 0
	for ; first < len(targets); first++ {
		out[first] = s.deliverOne(ctx, m, &targets[first])
		if out[first].Err == nil {
			break
		}
	}
	var wg sync.WaitGroup
	slots := make(chan struct{}, deliverAtOnce)
	for i := first + 1; i < len(targets); i++ {
		slots <- struct{}{}
		wg.Add(1)
		go func() {
			defer func() { <-slots; wg.Done() }()
			out[i] = s.deliverOne(ctx, m, &targets[i])
		}()
	}
	wg.Wait()
	return out
}

func (s *Store) deliverOne(ctx context.Context, m *Staged, t *Target) Result {
	t.Account.vol.flusher.delivering.Add(1)
	defer t.Account.vol.flusher.delivering.Add(-1)
	var r Result
	for try := 0; ; try++ {
		box, err := t.Account.target(ctx, t.Mailbox, try > 0)
		if err != nil {
			r.Err = err
			return r
		}
		a, err := box.append(ctx, []AppendMessage{{Message: m, Flags: t.Flags, Keywords: t.Keywords, InternalDate: t.Date}}, t.Once)
		if errors.Is(err, ErrMailboxClosed) && !isUnknown(err) && try == 0 {
			continue // what was known about the account is old
		}
		r.MailboxID = box.id
		if r.Err = err; err == nil {
			r.UIDValidity, r.UID, r.ID, r.Duplicate = a.UIDValidity, a.Messages[0].UID, a.Messages[0].ID, a.Duplicate
		}
		return r
	}
}

// target finds the mailbox to deliver to. INBOX keeps its id for ever, so what is known about it does.
func (a *Account) target(ctx context.Context, name string, fresh bool) (*Mailbox, error) {
	if (name == "" || name == Inbox) && !fresh {
		if st := a.known(); st != nil && !st.closed && st.names[Inbox] != "" {
			return a.mailbox(st.names[Inbox]), nil
		}
	}
	if name == "" {
		name = Inbox
	}
	return a.Open(ctx, name)
}
