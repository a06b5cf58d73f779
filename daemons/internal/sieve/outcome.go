package sieve

import (
	"time"

	"shoal/daemons/internal/mailaddr"
)

// Outcome is what scripts decided about one message. The actions are to be carried out in their order; none of them
// has been.
type Outcome struct {
	Actions []Action
	// Marks are what duplicate tests are to find next time. They count only once the actions are done
	// (RFC 7352 §3).
	Marks []Mark
	// Notes say for the log what was decided and cannot be seen in the actions, such as why no vacation reply is sent.
	Notes []string
}

// Delivered says whether the message is kept in any mailbox.
func (o *Outcome) Delivered() bool {
	for _, a := range o.Actions {
		if _, ok := a.(*FileInto); ok {
			return true
		}
	}
	return false
}

// Action is one of *FileInto, *Redirect, *Reject, *Vacation, *Notify. No action at all discards the message.
type Action interface{ action() }

func (*FileInto) action() {}
func (*Redirect) action() {}
func (*Reject) action()   {}
func (*Vacation) action() {}
func (*Notify) action()   {}

// FileInto stores the message (keep and fileinto).
type FileInto struct {
	Place
	Flags  []string // IMAP flags and keywords; a nil slice: none were asked for
	Edited *Edited  // nil: the message as it came
}

// Place is a mailbox, found by the first of these that there is.
type Place struct {
	MailboxID  string // RFC 9042
	SpecialUse string // RFC 8579: an attribute such as \Junk
	Mailbox    string // name, UTF-8; "": the inbox
	Create     bool   // make it if it does not exist (RFC 5490 §3.2)
}

// Redirect sends the message on to another address (RFC 5228 §4.2), under the sender's envelope.
type Redirect struct {
	To     mailaddr.Address
	Edited *Edited
}

// Reject refuses the message with a reason (RFC 5429): Protocol asks for a refusal in the SMTP session if that can be
// had (ereject), the other form for a notice to the sender.
type Reject struct {
	Reason   string
	Protocol bool
}

// Vacation answers the sender (RFC 5230), unless an answer with this Key went to this address within Interval.
type Vacation struct {
	To         mailaddr.Address
	From       string // header value as the script has it; "": the account's own address
	Subject    string
	Reason     string
	MIME       bool   // Reason is a MIME entity with its header fields
	Key        string // what the answer is recognised by
	Interval   time.Duration
	InReplyTo  string // Message-ID of the message, with brackets; "" where it has none
	References string
	FCC        *FCC
}

// Notify sends a short message about the one that came (RFC 5435, 5436).
type Notify struct {
	Method     string // the URI as the script has it
	To         []mailaddr.Address
	Fields     [][2]string // header fields that the URI asks for, names in lower case
	From       string      // header value; "": the account's own address
	Importance int         // 1 high, 2 normal, 3 low
	Message    string      // "": left to the service
	Body       string      // of the URI
	FCC        *FCC
}

// FCC keeps a copy of what is sent (RFC 8580).
type FCC struct {
	Place
	Flags []string
}

// Edited is a message whose header a script has changed (RFC 5293): this header, blank line included, in front
// of the bytes of the message from BodyOffset on.
type Edited struct {
	Header     []byte
	BodyOffset int64
}

// Mark records that a message of this key was seen; it is to be forgotten after Lifetime.
type Mark struct {
	Key      string
	Lifetime time.Duration
}
