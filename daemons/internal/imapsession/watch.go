package imapsession

import "context"

// startWatch registers the session's interest in its mailbox. wake is called, from any goroutine, when
// the mailbox may have changed; it must not wait for anything.
func (b *selected) startWatch(ctx context.Context, wake func()) (err error) {
	b.watch, err = b.mb.WatchFunc(ctx, wake)
	return err
}

// unwatch ends the interest.
func (b *selected) unwatch() {
	b.watch.Close()
	b.unfollow()
}

// unfollow ends the interest in the owner's account.
func (b *selected) unfollow() {
	if b.shared != nil {
		b.shared.watch.Close()
	}
}
