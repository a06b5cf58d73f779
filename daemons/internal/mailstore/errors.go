package mailstore

import "errors"

// Errors of the store, to be told apart with errors.Is. The errors returned wrap them with the volume,
// account, mailbox or file they are about.
var (
	// ErrNoAccount: the account does not exist on the volume, or was deleted.
	ErrNoAccount = errors.New("no such account")
	// ErrNoMailbox: no mailbox of that name or id in the account.
	ErrNoMailbox = errors.New("no such mailbox")
	// ErrMailboxExists: the name is taken.
	ErrMailboxExists = errors.New("mailbox exists already")
	// ErrMailboxClosed: the mailbox was deleted while it was open. Nothing was acknowledged.
	ErrMailboxClosed = errors.New("mailbox was deleted")
	// ErrMoved: the account lies on another volume now, or is about to. Nothing was acknowledged here; the directory
	// tells where it lies. Errors that wrap it also are ErrNoAccount or ErrMailboxClosed.
	ErrMoved = errors.New("account has moved to another volume")
	// ErrMailboxName: not a name that a mailbox can have.
	ErrMailboxName = errors.New("invalid mailbox name")
	// ErrInbox: the operation is not possible on INBOX (it can not be deleted).
	ErrInbox = errors.New("not possible on INBOX")
	// ErrNoMessage: the mailbox has no message with that UID (any more).
	ErrNoMessage = errors.New("no such message")
	// ErrTooLarge: the message, or the number of messages in one call, is over the limit.
	ErrTooLarge = errors.New("too large")
	// ErrNoSpace: the volume or its quota is full (ENOSPC, EDQUOT). Nothing was changed.
	ErrNoSpace = errors.New("no space left on volume")
	// ErrReadOnly: the volume is mounted read-only.
	ErrReadOnly = errors.New("volume is read-only")
	// ErrUnavailable: the volume does not answer in time, is not mounted or not configured. What was
	// asked for may have happened or not; the caller answers "try again later".
	ErrUnavailable = errors.New("volume unavailable")
	// ErrNotVolume: the directory carries no marker file: most likely the volume is not mounted.
	ErrNotVolume = errors.New("not a shoal volume")
	// ErrWrongVolume: the marker file names another volume than the configuration.
	ErrWrongVolume = errors.New("wrong volume")
	// ErrNewerFormat: written by a version with a newer major format.
	ErrNewerFormat = errors.New("format is newer than this version can read")
	// ErrCorrupt: something stored does not parse, fails its checksum or is missing.
	ErrCorrupt = errors.New("corrupt")
	// ErrUIDsExhausted: the mailbox has used up its 32-bit UIDs.
	ErrUIDsExhausted = errors.New("UIDs exhausted")
	// ErrClosed: the store or the handle has been closed.
	ErrClosed = errors.New("closed")
)
