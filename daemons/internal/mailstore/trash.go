package mailstore

import (
	"context"
	"errors"
	"fmt"
	"syscall"
	"time"
)

// removeAll removes a tree that nobody else uses. What is missing already is fine.
func (v *volume) removeAll(path string) error {
	err := v.fs.Unlink(path)
	if err == nil || isNotExist(err) {
		return nil
	}
	if !errors.Is(err, syscall.EISDIR) && !errors.Is(err, syscall.EPERM) {
		return ioErr("unlink", path, err)
	}
	names, err := v.fs.ReadDir(path, nil)
	if err != nil {
		if isNotExist(err) {
			return nil
		}
		return ioErr("list", path, err)
	}
	for _, n := range names {
		if err := v.removeAll(path + "/" + n); err != nil {
			return err
		}
	}
	if err := v.fs.Rmdir(path); err != nil && !isNotExist(err) {
		return ioErr("rmdir", path, err)
	}
	return nil
}

// deletedStamp is a file that bury puts into a mailbox: its mtime says when the mailbox was deleted.
const deletedStamp = "deleted"

// bury closes a deleted mailbox with the terminal record: a server that still has it open can commit
// nothing behind it, and finds out by the record why. The mailbox stays in its place for the retention, so
// that every reader meets the record; then the background work moves it to the trash.
func (a *Account) bury(ctx context.Context, id, name string) error {
	m := a.mailbox(id)
	q := &request{op: func(b []byte, _ *opContext) []byte { return append(b, opTerminal) }}
	if err := m.j.submit(ctx, q); err != nil && !errors.Is(err, ErrMailboxClosed) {
		return fmt.Errorf("mailbox %s: %w", id, err)
	}
	return a.vol.do(ctx, func() error {
		path := m.j.dir + "/" + deletedStamp
		stamp := append(appendEscaped([]byte("name "), name), '\n')
		err := a.vol.essential(func() error { return ioErr("write", path, writeFile(a.vol.fs, path, stamp)) })
		if isNotExist(err) {
			return nil
		}
		return err
	})
}

// Purge empties the trash of a volume: mailboxes that were deleted more than twice the retention ago, and
// what was left in tmp/.
func (s *Store) Purge(ctx context.Context, volume string) error {
	v, err := s.volume(volume)
	if err != nil {
		return err
	}
	now, err := v.serverNow(ctx)
	if err != nil {
		return err
	}
	var trash, tmp []string
	err = v.do(ctx, func() (err error) {
		if trash, err = v.fs.ReadDir(v.root+"/trash", nil); err != nil {
			return ioErr("list", v.root+"/trash", err)
		}
		tmp, err = v.fs.ReadDir(v.root+"/tmp", nil)
		return ioErr("list", v.root+"/tmp", err)
	})
	if err != nil {
		return err
	}
	var errs []error
	for _, name := range tmp {
		errs = append(errs, v.do(ctx, func() error { return v.removeOld(v.root+"/tmp/"+name, now.Add(-collectAfter)) }))
	}
	for _, name := range trash {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		errs = append(errs, v.do(ctx, func() error { return v.purge(v.root+"/trash/"+name, now.Add(-2*s.o.Retention)) }))
	}
	return errors.Join(errs...)
}

// purge removes one mailbox from the trash. A server that was stopped for long may still hold its
// directories and try to commit: at each moment either the floor tells it that the name it found free
// means nothing, or the missing w/ that the mailbox is gone. Hence the order.
func (v *volume) purge(dir string, before time.Time) error {
	i, err := v.fs.Lstat(dir + "/" + deletedStamp)
	if isNotExist(err) {
		if i, err = v.fs.Lstat(dir); isNotExist(err) {
			return nil
		}
	}
	if err != nil {
		return ioErr("lstat", dir, err)
	}
	if i.ModTime.After(before) {
		return nil
	}
	// A whole account that made way for itself coming back (move.go).
	boxes, err := v.fs.ReadDir(dir+"/"+dirBoxes, nil)
	if err != nil && !isNotExist(err) {
		return ioErr("list", dir+"/"+dirBoxes, err)
	}
	for _, id := range boxes {
		if err := v.purge(dir+"/"+dirBoxes+"/"+id, before); err != nil {
			return err
		}
	}
	floor := dir + "/" + dirInterest + "/" + floorPrefix + floorMax
	if err := v.fs.Symlink("-", floor); err != nil && !errors.Is(err, syscall.EEXIST) && !isNotExist(err) {
		return ioErr("symlink", floor, err)
	}
	if err := v.orderDir(dir + "/" + dirInterest); err != nil && !isNotExist(err) {
		return err
	}
	for _, part := range []string{dirLog, dirMessages, dirTmp, dirSnap, dirInterest} {
		if err := v.removeAll(dir + "/" + part); err != nil {
			return err
		}
		// What is gone must be gone for good before the next part goes.
		if err := v.orderDir(dir); err != nil {
			return err
		}
	}
	return v.removeAll(dir)
}
