package mailstore

import (
	"context"
)

// maintain runs the background work until ctx is done.
func (s *Store) maintain(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-s.work.wake:
		}
		s.work.takeDue()
	}
}

func (j *journal) wantsSnapshot() bool { return false }
