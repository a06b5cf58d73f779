package mailstore

import (
	"context"
	"io"
	"iter"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"shoal/daemons/internal/clock"
	"shoal/daemons/internal/vfs"
)

// Options of a store. Server, FS, Clock and Log must be set; a zero value elsewhere means the default.
type Options struct {
	// Server is the name of this server: [a-z0-9][a-z0-9-]{0,14}, unique in the service, not "floor".
	Server string
	FS     vfs.FS
	Clock  clock.Clock
	Log    *slog.Logger
	// Metrics is where the counters are registered; nil: nowhere.
	Metrics prometheus.Registerer
	// HintAddress is what this server writes into interest entries: where other servers send hints.
	// Empty: this server registers no interest (tools).
	HintAddress string
	// Notify is called after a commit for each other server that has a live interest in the mailbox.
	// It must not block.
	Notify func(addr string, ref Ref)
	// Retention is R: how long a snapshot must have stood before the log below it may go, and how long
	// expunged messages and deleted mailboxes are kept. Default 24 h; the same on all servers.
	Retention time.Duration
	// ReCheck is how often a watched mailbox is read again without any hint. Default 5 min.
	ReCheck time.Duration
	// CacheBytes bounds the folded mailboxes kept in memory. Default 256 MiB.
	CacheBytes int64
	// StageMemory is the size up to which a message on its way is kept in memory. Default 256 KiB.
	StageMemory int
	// VolumeCalls bounds the file operations in progress per volume. Default 128.
	VolumeCalls int
	// CallTimeout is how long a caller waits for a volume that does not answer. Default 30 s.
	CallTimeout time.Duration
	// Maintain starts the background work: snapshots, compaction, collection, purge.
	Maintain bool
}

// Ref names a mailbox for a hint. An empty Mailbox means the account's list of mailboxes.
type Ref struct{ Volume, Account, Mailbox string }

// New returns a store without volumes.
func New(o Options) (*Store, error) { return newStore(o) }

// Store is the mail store as one server sees it. Its methods may be called from any goroutine.
type Store struct{ store }

// InitVolume makes the directory path a volume with the given id (a UUID). It fails when path holds a
// marker of another volume, and does nothing when it is that volume already.
func InitVolume(fs vfs.FS, path, id string) error { return initVolume(fs, path, id) }

// AddVolume opens the volume at path under the name the directory gives it. It refuses (ErrNotVolume,
// ErrWrongVolume, ErrNewerFormat) a path without the marker file of that id.
func (s *Store) AddVolume(name, path, id string) error { return s.addVolume(name, path, id) }

// Close ends the background work and removes this server's interest entries.
func (s *Store) Close() error { return s.close() }

// Hint reports that somebody committed to the mailbox: it is read again soon if anybody here watches it.
// It never blocks, and a hint for an unknown mailbox costs nothing.
func (s *Store) Hint(ref Ref) { s.hint(ref) }

// Account opens an account, and creates its directory with an INBOX on first use.
func (s *Store) Account(ctx context.Context, volume, accountID string) (*Account, error) {
	return s.account(ctx, volume, accountID)
}

// Stage reads a message of at most max bytes (0: no limit) from r and gets it ready for the volume.
// An error of r is returned as it is; otherwise ErrTooLarge, ErrNoSpace, ErrUnavailable.
func (s *Store) Stage(ctx context.Context, volume string, r io.Reader, max int64) (*Staged, error) {
	return s.stage(ctx, volume, r, max)
}

// Staged is a message that is complete but in no mailbox yet. It may be delivered and appended any
// number of times, from one goroutine at a time, on its volume. Close releases it.
type Staged struct{ staged }

// Size is the length in bytes.
func (s *Staged) Size() int64 { return s.size }

// Close releases memory and temporary files. It may be called twice.
func (s *Staged) Close() error { return s.closeStaged() }

// Target is one recipient of a delivery.
type Target struct {
	Account  *Account
	Mailbox  string // name; empty means INBOX
	Flags    Flags
	Keywords []string
	Date     time.Time // internal date; zero means now
}

// Result is the outcome of a delivery to one target.
type Result struct {
	MailboxID   string
	UIDValidity uint32
	UID         uint32
	ID          string // the message's name in the store, for the log
	Err         error  // ErrNoMailbox, ErrNoSpace, ErrUnavailable ...; nil: stable in the mailbox
}

// Deliver puts a staged message into the mailbox of each target: one file per volume, hard links for the
// others. A result without error is returned only after message and commit are stable.
func (s *Store) Deliver(ctx context.Context, m *Staged, targets []Target) []Result {
	return s.deliver(ctx, m, targets)
}

// Account is one account on one volume. Handles are cheap and shared.
type Account struct{ account }

// Ref names the account's list of mailboxes.
func (a *Account) Ref() Ref { return a.ref() }

// Delimiter separates the levels of mailbox names.
const Delimiter = '/'

// MailboxInfo describes a mailbox in an account's list.
type MailboxInfo struct {
	ID          string
	Name        string // UTF-8, levels separated by Delimiter; "INBOX" in capitals
	UIDValidity uint32
	Subscribed  bool
	SpecialUse  []string // without backslash: "Sent", "Drafts" ... (RFC 6154)
}

// Mailboxes lists the mailboxes, sorted by name.
func (a *Account) Mailboxes(ctx context.Context) ([]MailboxInfo, error) { return a.mailboxes(ctx) }

// Subscriptions lists the subscribed names, sorted; a name may belong to no mailbox.
func (a *Account) Subscriptions(ctx context.Context) ([]string, error) { return a.subscriptions(ctx) }

// CreateOptions for Create.
type CreateOptions struct {
	SpecialUse []string
	// UIDValidity given by the caller (adoption, restore); 0: a new one.
	UIDValidity uint32
	// ModSeqBase is added to all mod-sequences of the mailbox (adoption of a store that had higher ones).
	ModSeqBase uint64
}

// Create makes a mailbox. ErrMailboxExists, ErrMailboxName.
func (a *Account) Create(ctx context.Context, name string, o CreateOptions) (MailboxInfo, error) {
	return a.create(ctx, name, o)
}

// Rename renames a mailbox and all below it in one commit. Renaming INBOX moves its messages to a new
// mailbox and leaves INBOX empty (RFC 9051 §6.3.6). ErrNoMailbox, ErrMailboxExists, ErrMailboxName.
func (a *Account) Rename(ctx context.Context, from, to string) error { return a.rename(ctx, from, to) }

// Delete deletes a mailbox with its messages (kept in the trash for the retention). Mailboxes below it
// stay. ErrNoMailbox, ErrInbox.
func (a *Account) Delete(ctx context.Context, name string) error { return a.delete(ctx, name) }

// Subscribe adds name to, or removes it from, the subscriptions. The name need not exist.
func (a *Account) Subscribe(ctx context.Context, name string, on bool) error {
	return a.subscribe(ctx, name, on)
}

// SetSpecialUse replaces the special uses of a mailbox.
func (a *Account) SetSpecialUse(ctx context.Context, name string, uses []string) error {
	return a.setSpecialUse(ctx, name, uses)
}

// Open opens a mailbox by name. ErrNoMailbox.
func (a *Account) Open(ctx context.Context, name string) (*Mailbox, error) { return a.open(ctx, name) }

// OpenID opens a mailbox by its id.
func (a *Account) OpenID(ctx context.Context, id string) (*Mailbox, error) { return a.openID(ctx, id) }

// Watch wakes the caller when the list of mailboxes may have changed.
func (a *Account) Watch(ctx context.Context) (*Watcher, error) { return a.watch(ctx) }

// Mailbox is a handle on one mailbox. Handles are cheap; all handles on a mailbox share one cached state
// and one committer. A handle stays valid when the mailbox is renamed.
type Mailbox struct{ mailbox }

// Ref names the mailbox.
func (m *Mailbox) Ref() Ref { return m.ref() }

// State returns a state that includes everything acknowledged anywhere before the call: one lstat on a
// warm mailbox without news. ErrMailboxClosed, ErrUnavailable.
func (m *Mailbox) State(ctx context.Context) (*State, error) { return m.state(ctx) }

// Cached returns the newest state this server knows, without any I/O; nil when it knows none.
func (m *Mailbox) Cached() *State { return m.cached() }

// AppendMessage is one message to append.
type AppendMessage struct {
	Message      *Staged
	Flags        Flags
	Keywords     []string
	InternalDate time.Time // zero: now
	// UID asks for this very UID; it is given only if it is not below UIDNEXT (adoption, restore).
	UID uint32
	// SaveDate (RFC 8514); zero: now.
	SaveDate time.Time
	// EmailID (RFC 8474), when the same message has one already; empty: a new one.
	EmailID string
	// ThreadID (RFC 8474); empty: none.
	ThreadID string
}

// Appended tells where a message went. UID is 0 only if it was expunged again before the outcome was known.
type Appended struct {
	UID uint32
	ID  string
}

// AppendResult is the outcome of Append.
type AppendResult struct {
	UIDValidity uint32
	ModSeq      uint64
	Messages    []Appended
	State       *State
}

// Append adds messages, all in one commit. ErrNoSpace, ErrMailboxClosed, ErrUnavailable.
func (m *Mailbox) Append(ctx context.Context, msgs []AppendMessage) (AppendResult, error) {
	return m.append(ctx, msgs)
}

// FlagOp is what a flag change does.
type FlagOp uint8

// The kinds of flag changes.
const (
	FlagsAdd FlagOp = iota + 1
	FlagsRemove
	FlagsReplace
)

// FlagChange is a change of flags of many messages in one commit.
type FlagChange struct {
	UIDs     UIDSet
	Op       FlagOp
	Flags    Flags
	Keywords []string
	// UnchangedSince leaves messages alone whose mod-sequence is higher; decided when the change is
	// committed (RFC 7162 §3.1.3).
	UnchangedSince uint64
	Conditional    bool // UnchangedSince is meant
}

// FlagResult is the outcome of ChangeFlags.
type FlagResult struct {
	ModSeq  uint64 // of the changed messages
	Changed UIDSet // messages that differ now
	Failed  UIDSet // messages left alone because of UnchangedSince
	State   *State
}

// ChangeFlags changes flags. UIDs without a message are passed over.
func (m *Mailbox) ChangeFlags(ctx context.Context, c FlagChange) (FlagResult, error) {
	return m.changeFlags(ctx, c)
}

// ExpungeResult is the outcome of Expunge.
type ExpungeResult struct {
	UIDs   UIDSet // messages that this call removed
	ModSeq uint64
	State  *State
}

// Expunge removes messages; with onlyDeleted those among them that carry \Deleted when the expunge is
// committed. A nil set means all messages.
func (m *Mailbox) Expunge(ctx context.Context, uids UIDSet, onlyDeleted bool) (ExpungeResult, error) {
	return m.expunge(ctx, uids, onlyDeleted)
}

// CopyResult is the outcome of CopyTo and MoveTo: message Source[i] is now Dest[i] over there.
type CopyResult struct {
	UIDValidity  uint32 // of the destination
	Source, Dest []uint32
	ModSeq       uint64 // MoveTo: mod-sequence of the expunge in the source
	State        *State // MoveTo: of the source
}

// CopyTo copies messages with flags and internal date into dst, in ascending order of UID, all in one
// commit. UIDs without a message are passed over.
func (m *Mailbox) CopyTo(ctx context.Context, uids UIDSet, dst *Mailbox) (CopyResult, error) {
	return m.copyTo(ctx, uids, dst)
}

// MoveTo copies messages into dst and then expunges them here. A crash between the two commits leaves
// them in both; moving them again ends that and makes no second copy.
func (m *Mailbox) MoveTo(ctx context.Context, uids UIDSet, dst *Mailbox) (CopyResult, error) {
	return m.moveTo(ctx, uids, dst)
}

// OpenMessage opens the content of a message. ErrNoMessage.
func (m *Mailbox) OpenMessage(ctx context.Context, uid uint32) (*MessageFile, error) {
	return m.openMessage(ctx, uid)
}

// MessageFile is the content of one message, immutable.
type MessageFile struct{ messageFile }

// Size is the length in bytes.
func (f *MessageFile) Size() int64 { return f.size }

// ReadAt implements io.ReaderAt.
func (f *MessageFile) ReadAt(p []byte, off int64) (int, error) { return f.readAt(p, off) }

// Bytes is the whole content if it is in memory already, else nil. It must not be changed.
func (f *MessageFile) Bytes() []byte { return f.data }

// Close releases the file.
func (f *MessageFile) Close() error { return f.closeFile() }

// Watch registers interest: from now on C is signalled when the mailbox may have changed, whichever
// server changed it. Read State after registering, and after each signal.
func (m *Mailbox) Watch(ctx context.Context) (*Watcher, error) { return m.watch(ctx) }

// Watcher is a registration made by Watch.
type Watcher struct {
	// C holds at most one signal; signals that come together are one.
	C <-chan struct{}
	watcher
}

// Close ends the registration.
func (w *Watcher) Close() { w.closeWatcher() }

// Flags are the system flags of a message (RFC 9051 §2.3.2).
type Flags uint8

// The system flags.
const (
	FlagSeen Flags = 1 << iota
	FlagAnswered
	FlagFlagged
	FlagDeleted
	FlagDraft
)

// Message is a message as a state shows it. It is a value: it stays what it is when the mailbox moves on.
type Message struct {
	UID      uint32
	ModSeq   uint64
	Flags    Flags
	Keywords []string // sorted; shared: must not be changed
	Size     int64
	messageRef
}

// InternalDate is the date of arrival, or what APPEND gave.
func (m Message) InternalDate() time.Time { return m.internalDate() }

// SaveDate is when the message came into this mailbox (RFC 8514).
func (m Message) SaveDate() time.Time { return m.saveDate() }

// EmailID identifies the content across copies: EMAILID of RFC 8474.
func (m Message) EmailID() string { return m.emailID() }

// ThreadID is THREADID of RFC 8474; empty when none was given.
func (m Message) ThreadID() string { return m.threadID() }

// ID is the message's unique name in the store.
func (m Message) ID() string { return m.id() }

// State is a mailbox as of one commit. It never changes; later states share with it what is the same.
type State struct{ mailboxState }

// UIDValidity: RFC 9051 §2.3.1.1.
func (s *State) UIDValidity() uint32 { return s.uidValidity }

// UIDNext is the least UID the next message can get.
func (s *State) UIDNext() uint32 { return s.uidNext }

// ModSeq is the mod-sequence of the state: HIGHESTMODSEQ of RFC 7162. At least 1.
func (s *State) ModSeq() uint64 { return s.highestModSeq() }

// Len is the number of messages.
func (s *State) Len() int { return s.count }

// Bytes is the sum of the messages' sizes.
func (s *State) Bytes() int64 { return s.bytes }

// Unseen is the number of messages without \Seen.
func (s *State) Unseen() int { return s.unseen }

// Deleted is the number of messages with \Deleted.
func (s *State) Deleted() int { return s.deleted }

// At returns message i of 0..Len()-1, in order of UID: message sequence number i+1.
func (s *State) At(i int) Message { return s.at(i) }

// Find returns the index of the first message whose UID is at least uid (Len() if there is none), and
// whether it is that very UID.
func (s *State) Find(uid uint32) (i int, found bool) { return s.find(uid) }

// ByUID returns the message with that UID.
func (s *State) ByUID(uid uint32) (Message, bool) {
	i, ok := s.find(uid)
	if !ok {
		return Message{}, false
	}
	return s.at(i), true
}

// All yields all messages with their index.
func (s *State) All() iter.Seq2[int, Message] { return s.Range(0, s.count) }

// Range yields the messages from index from up to, not including, to.
func (s *State) Range(from, to int) iter.Seq2[int, Message] { return s.rangeSeq(from, to) }

// UIDs yields the messages of a set that exist, with their index.
func (s *State) UIDs(set UIDSet) iter.Seq2[int, Message] { return s.uidSeq(set) }

// ChangedSince yields the messages whose mod-sequence is higher than modSeq, with their index.
func (s *State) ChangedSince(modSeq uint64) iter.Seq2[int, Message] { return s.changedSince(modSeq) }

// VanishedSince returns the UIDs expunged after modSeq. When that is no longer known for a modSeq so
// old, complete is false and the set is every UID below UIDNext that no message has.
func (s *State) VanishedSince(modSeq uint64) (vanished UIDSet, complete bool) {
	return s.vanishedSince(modSeq)
}

// Keywords lists the keywords in use, or used before, in the mailbox, sorted.
func (s *State) Keywords() []string { return s.keywordList() }
