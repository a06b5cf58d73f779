package imapsession

import (
	"context"
	"errors"
	"fmt"

	"shoal/daemons/internal/dirclient"
	"shoal/daemons/internal/imapwire"
	"shoal/daemons/internal/mailstore"
)

// status is the tagged answer of a command that did not succeed, as an error: NO or BAD, a response
// code (RFC 9051 §7.1, RFC 5530) without its brackets, and a text.
type status struct {
	bad  bool
	code string
	text string
}

func (e *status) Error() string { return e.text }

func no(code, text string) error { return &status{code: code, text: text} }

func badf(format string, args ...any) error {
	return &status{bad: true, text: fmt.Sprintf(format, args...)}
}

// movedText is said to the clients of an account that an operator has just moved to another volume.
const movedText = "The mail of this account has been moved, connect again"

// answerTo turns what a command returned into its tagged answer. report says that the error is
// worth a line in the log: it is no doing of the client.
func answerTo(err error) (a *status, report bool) {
	var (
		syntax  *imapwire.SyntaxError
		tooBig  *imapwire.TooBigError
		charset *imapwire.CharsetError
	)
	switch {
	case errors.As(err, &a):
		return a, false
	case errors.As(err, &syntax):
		return &status{bad: true, text: syntax.Text}, false
	case errors.As(err, &tooBig):
		return &status{code: "TOOBIG", text: tooBig.Error()}, false
	case errors.As(err, &charset):
		return &status{code: "BADCHARSET (US-ASCII UTF-8)", text: charset.Error()}, false
	case errors.Is(err, mailstore.ErrMoved):
		return &status{code: "UNAVAILABLE", text: movedText}, false
	case errors.Is(err, mailstore.ErrNoAccount):
		return &status{code: "CONTACTADMIN", text: "The account has no mail store"}, true
	case errors.Is(err, mailstore.ErrNoMailbox):
		return &status{code: "NONEXISTENT", text: "There is no such mailbox"}, false
	case errors.Is(err, mailstore.ErrMailboxExists):
		return &status{code: "ALREADYEXISTS", text: "There is a mailbox of that name already"}, false
	case errors.Is(err, mailstore.ErrMailboxClosed):
		return &status{code: "NONEXISTENT", text: "The mailbox was deleted"}, false
	case errors.Is(err, mailstore.ErrMailboxName):
		return &status{code: "CANNOT", text: "That is not a possible name of a mailbox"}, false
	case errors.Is(err, mailstore.ErrInbox):
		return &status{code: "CANNOT", text: "That is not possible with INBOX"}, false
	case errors.Is(err, mailstore.ErrNoMessage):
		return &status{code: "EXPUNGEISSUED", text: "Some of the messages no longer exist"}, false
	case errors.Is(err, mailstore.ErrTooLarge):
		return &status{code: "LIMIT", text: "Too large for one command"}, false
	case errors.Is(err, mailstore.ErrNoSpace):
		return &status{code: "OVERQUOTA", text: "No space is left"}, true
	case errors.Is(err, mailstore.ErrReadOnly):
		return &status{code: "UNAVAILABLE", text: "The mail store is read-only at the moment"}, true
	case errors.Is(err, dirclient.ErrUnavailable):
		return &status{code: "UNAVAILABLE", text: "The directory does not answer at the moment, try again later"}, true
	case errors.Is(err, mailstore.ErrUnavailable), errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
		return &status{code: "UNAVAILABLE", text: "The mail store does not answer at the moment, try again later"}, true
	case errors.Is(err, mailstore.ErrCorrupt):
		return &status{code: "CORRUPTION", text: "Stored data is damaged, the operator has been told"}, true
	}
	return &status{code: "SERVERBUG", text: "Internal error, the operator has been told"}, true
}

// tryCreate replaces NONEXISTENT by TRYCREATE: APPEND, COPY and MOVE to a mailbox that is not there
// (RFC 9051 §7.1).
func tryCreate(err error) error {
	if errors.Is(err, mailstore.ErrNoMailbox) {
		return no("TRYCREATE", "There is no such mailbox, create it first")
	}
	return err
}
