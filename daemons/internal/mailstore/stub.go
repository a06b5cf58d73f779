package mailstore

import (
	"context"
	"errors"
	"io"
	"iter"
	"time"

	"shoal/daemons/internal/vfs"
)

var errSoon = errors.New("mailstore: not there yet")

type store struct{}

func newStore(Options) (*Store, error)                                     { return &Store{}, nil }
func initVolume(vfs.FS, string, string) error                              { return errSoon }
func (s *store) addVolume(name, path, id string) error                     { return errSoon }
func (s *store) close() error                                              { return nil }
func (s *store) hint(Ref)                                                  {}
func (s *store) account(context.Context, string, string) (*Account, error) { return nil, errSoon }
func (s *store) stage(context.Context, string, io.Reader, int64) (*Staged, error) {
	return nil, errSoon
}
func (s *store) deliver(context.Context, *Staged, []Target) []Result { return nil }

type staged struct{ size int64 }

func (s *staged) closeStaged() error { return nil }

type account struct{}

func (a *account) ref() Ref                                         { return Ref{} }
func (a *account) mailboxes(context.Context) ([]MailboxInfo, error) { return nil, errSoon }
func (a *account) subscriptions(context.Context) ([]string, error)  { return nil, errSoon }
func (a *account) create(context.Context, string, CreateOptions) (MailboxInfo, error) {
	return MailboxInfo{}, errSoon
}
func (a *account) rename(context.Context, string, string) error          { return errSoon }
func (a *account) delete(context.Context, string) error                  { return errSoon }
func (a *account) subscribe(context.Context, string, bool) error         { return errSoon }
func (a *account) setSpecialUse(context.Context, string, []string) error { return errSoon }
func (a *account) open(context.Context, string) (*Mailbox, error)        { return nil, errSoon }
func (a *account) openID(context.Context, string) (*Mailbox, error)      { return nil, errSoon }
func (a *account) watch(context.Context) (*Watcher, error)               { return nil, errSoon }

type mailbox struct{}

func (m *mailbox) ref() Ref                              { return Ref{} }
func (m *mailbox) state(context.Context) (*State, error) { return nil, errSoon }
func (m *mailbox) cached() *State                        { return nil }
func (m *mailbox) append(context.Context, []AppendMessage) (AppendResult, error) {
	return AppendResult{}, errSoon
}
func (m *mailbox) changeFlags(context.Context, FlagChange) (FlagResult, error) {
	return FlagResult{}, errSoon
}
func (m *mailbox) expunge(context.Context, UIDSet, bool) (ExpungeResult, error) {
	return ExpungeResult{}, errSoon
}
func (m *mailbox) copyTo(context.Context, UIDSet, *Mailbox) (CopyResult, error) {
	return CopyResult{}, errSoon
}
func (m *mailbox) moveTo(context.Context, UIDSet, *Mailbox) (CopyResult, error) {
	return CopyResult{}, errSoon
}
func (m *mailbox) openMessage(context.Context, uint32) (*MessageFile, error) { return nil, errSoon }
func (m *mailbox) watch(context.Context) (*Watcher, error)                   { return nil, errSoon }

type messageFile struct {
	size int64
	data []byte
}

func (f *messageFile) readAt(p []byte, off int64) (int, error) { return 0, errSoon }
func (f *messageFile) closeFile() error                        { return nil }

type watcher struct{}

func (w *watcher) closeWatcher() {}

type messageRef struct{}

func (m messageRef) internalDate() time.Time { return time.Time{} }
func (m messageRef) saveDate() time.Time     { return time.Time{} }
func (m messageRef) emailID() string         { return "" }
func (m messageRef) threadID() string        { return "" }
func (m messageRef) id() string              { return "" }

type mailboxState struct {
	uidValidity, uidNext   uint32
	count, unseen, deleted int
	bytes                  int64
}

func (s *mailboxState) highestModSeq() uint64   { return 1 }
func (s *mailboxState) at(int) Message          { return Message{} }
func (s *mailboxState) find(uint32) (int, bool) { return 0, false }
func (s *mailboxState) rangeSeq(from, to int) iter.Seq2[int, Message] {
	return func(func(int, Message) bool) {}
}
func (s *mailboxState) uidSeq(UIDSet) iter.Seq2[int, Message] {
	return func(func(int, Message) bool) {}
}
func (s *mailboxState) changedSince(uint64) iter.Seq2[int, Message] {
	return func(func(int, Message) bool) {}
}
func (s *mailboxState) vanishedSince(uint64) (UIDSet, bool) { return nil, true }
func (s *mailboxState) keywordList() []string               { return nil }
