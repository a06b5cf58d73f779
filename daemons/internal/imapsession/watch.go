package imapsession

import "context"

// startWatch registers the session's interest in its mailbox. wake is called, from any goroutine, when
// the mailbox may have changed.
func (b *selected) startWatch(ctx context.Context, wake func()) error {
	w, err := b.mb.Watch(ctx)
	if err != nil {
		return err
	}
	b.watch, b.unwatched = w, make(chan struct{})
	go func(stop <-chan struct{}) {
		for {
			select {
			case <-w.C:
				wake()
			case <-stop:
				return
			}
		}
	}(b.unwatched)
	return nil
}

// unwatch ends the interest.
func (b *selected) unwatch() {
	close(b.unwatched)
	b.watch.Close()
}
