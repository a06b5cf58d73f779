package lmtpsession

import (
	"context"
	"fmt"

	"shoal/daemons/internal/filter"
	"shoal/daemons/internal/mailstore"
)

// filter lets the scripts of target i decide, and tells whether there are any: the result is settled then.
func (s *session) filter(ctx context.Context, tx *transaction, i int, m *mailstore.Staged, t *mailstore.Target) bool {
	if s.s.o.Filter == nil {
		return false
	}
	target := &tx.targets[i]
	r, filtered, err := s.s.o.Filter.Deliver(ctx, &filter.Delivery{
		Account: target.account, Handle: target.handle, From: tx.from, To: target.to, Trace: tx.trace, Message: m, Once: t.Once,
	})
	if err != nil {
		target.result.Err = fmt.Errorf("account's scripts: %w", err)
		return true
	}
	if !filtered {
		return false
	}
	if target.did = r.Did; target.did == nil {
		target.did = []string{"nothing"}
	}
	if len(r.Stored) > 0 {
		target.result = r.Stored[0]
	}
	if r.Rejected != "" {
		target.result.Err = reply(550, 5, 7, 1, r.Rejected)
	}
	return true
}
