package mailstore

import (
	"context"
	"errors"
	"time"
)

// Usage is what the mailboxes of an account hold: a sum over their folds, kept nowhere.
type Usage struct {
	Bytes, Messages int64
}

// Usage sums up the mailboxes of the account. What this server has read within maxAge is taken as it is, and the rest
// is read: one look at the file server for a mailbox without news. Two servers that store at the same moment do not see
// each other's, so a limit held against it is soft by what is stored at once. ErrNoAccount, ErrUnavailable.
func (a *Account) Usage(ctx context.Context, maxAge time.Duration) (Usage, error) {
	var u Usage
	list := a.known()
	if list == nil || list.closed || a.j.age() > maxAge {
		var err error
		if list, err = a.fresh(ctx); err != nil {
			return u, err
		}
	}
	for id := range list.boxes {
		m := a.mailbox(id)
		st, err := m.Cached(), error(nil)
		if st == nil || st.closed || m.j.age() > maxAge {
			st, err = m.State(ctx)
		}
		if errors.Is(err, ErrNoMailbox) || errors.Is(err, ErrMailboxClosed) {
			continue // deleted meanwhile
		}
		if err != nil {
			return u, err
		}
		u.Bytes += st.Bytes()
		u.Messages += int64(st.Len())
	}
	return u, nil
}

// plenty is how old what is known may be while it is far from a limit.
const plenty = time.Hour

// Over sums up the mailboxes of the account, and tells whether more would go over the limits (0: none). As long as what this
// server knows is far below the limits, it may be an hour old; otherwise maxAge.
func (a *Account) Over(ctx context.Context, limits, more Usage, maxAge time.Duration) (Usage, bool, error) {
	over := func(u Usage, tenths int64) bool {
		return limits.Bytes > 0 && u.Bytes+more.Bytes > limits.Bytes/10*tenths || limits.Messages > 0 && u.Messages+more.Messages > limits.Messages/10*tenths
	}
	u, err := a.Usage(ctx, max(plenty, maxAge))
	if err != nil || !over(u, 9) {
		return u, false, err
	}
	u, err = a.Usage(ctx, maxAge)
	return u, limits.Bytes > 0 && u.Bytes+more.Bytes > limits.Bytes || limits.Messages > 0 && u.Messages+more.Messages > limits.Messages, err
}

// age is how long ago the published state was known to be the newest there is.
func (j *journal) age() time.Duration {
	return j.vol.clk.Boot() - time.Duration(j.current.Load())
}
