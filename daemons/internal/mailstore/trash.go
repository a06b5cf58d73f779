package mailstore

import (
	"context"
	"errors"
	"fmt"
	"syscall"
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
		if err := writeFile(a.vol.fs, path, stamp); err != nil && !isNotExist(err) {
			return ioErr("write", path, err)
		}
		return nil
	})
}
