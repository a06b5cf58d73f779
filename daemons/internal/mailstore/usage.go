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
	list, err := a.Mailboxes(ctx)
	if err != nil {
		return u, err
	}
	for i := range list {
		m, err := a.OpenID(ctx, list[i].ID)
		var st *State
		if err == nil {
			if st = m.Cached(); st == nil || m.j.age() > maxAge {
				st, err = m.State(ctx)
			}
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

// age is how long ago the published state was known to be the newest there is.
func (j *journal) age() time.Duration {
	return j.vol.clk.Boot() - time.Duration(j.current.Load())
}
