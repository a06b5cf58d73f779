// Package dsn writes delivery status notifications: failures, delays and, where asked for, successes, as the
// multipart/report messages of RFC 3461, 3462 and 3464, and for internationalized mail of RFC 6533. It sends
// nothing; package relay queues what it writes.
//
// # Form
//
//	multipart/report; report-type=delivery-status
//	    text/plain                          who, what, why, what to do
//	    message/delivery-status             one block for the message, one for each recipient
//	    message/rfc822                      the message, when it failed, RET is not HDRS and it is small enough
//	    or text/rfc822-headers              its header section otherwise
//
// When the message was sent with SMTPUTF8 the report may be of the types message/global-delivery-status, message/global and
// message/global-headers, and then needs SMTPUTF8 itself. Otherwise every address in it is ASCII: others are written as
// utf-8-addr-xtext (RFC 6533 §3).
//
// # Invariants
//
//   - There is no report for the null sender (ErrNoSender): a report about a report would never end.
//   - Nothing that came from outside (answers, addresses, ids, fields of the message) can begin a field, a part or a line
//     that is not meant: control characters become "?", long values are cut.
//   - Every line ends in CRLF and has at most 998 octets; a message that has longer ones is not sent back whole.
//   - The same Report gives the same bytes.
//
// Left out on purpose: disposition notifications (RFC 8098), which are the reader's; other languages than English.
package dsn

import (
	"errors"
	"io"
	"time"
)

// ErrNoSender: the message has the null sender, to which nothing is ever sent back.
var ErrNoSender = errors.New("there is no sender to report to")

// Action of a recipient (RFC 3464 §2.3.3).
type Action string

// The actions.
const (
	Failed    Action = "failed"    // given up
	Delayed   Action = "delayed"   // still being tried
	Delivered Action = "delivered" // in the mailbox
	Relayed   Action = "relayed"   // taken by a system that makes no notifications
	Expanded  Action = "expanded"  // replaced by several other recipients
)

// Recipient is what became of one recipient.
type Recipient struct {
	Address   string // as it was in the envelope
	Original  string // ORCPT as it was given, "type;xtext" (RFC 3461 §4.2); empty: none
	Action    Action
	Status    string    // enhanced status code "x.y.z" (RFC 3463); empty or malformed: made of Action
	Reason    string    // in our own words; empty: Diagnostic stands alone
	Answer    string    // what the other side answered: code and text; empty: nothing
	RemoteMTA string    // host that answered
	Tried     time.Time // last attempt; zero: none
	Until     time.Time // Delayed: when it will be given up
}

// Report is one notification to be written.
type Report struct {
	ID       string    // unique; letters, digits, "." and "-": of Message-ID and boundary
	Host     string    // reporting MTA: this server's public name
	Sender   string    // of the message: who gets the report
	EnvID    string    // ENVID as it was given, in xtext; empty: none
	Trace    string    // id of the message in our logs; empty: none
	Accepted time.Time // when the message came
	Now      time.Time
	UTF8     bool // the message was sent with SMTPUTF8, so a report that needs it may be sent

	Recipients []Recipient

	Original io.ReaderAt // the message
	Size     int64       // its length in bytes
	Return   string      // RET: FULL, HDRS or empty (RFC 3461 §4.3)
	MaxFull  int64       // a larger message is not sent back whole; 0: 100 KiB
}

// Message is a written report.
type Message struct {
	Data     []byte
	UTF8     bool // must be sent with SMTPUTF8
	EightBit bool // holds octets above 127
}

// Bounds in bytes.
const (
	defaultMaxFull = 100 << 10
	maxHeader      = 64 << 10 // of a header section that is sent back
	maxLine        = 998      // RFC 5322 §2.1.1
	maxText        = 600      // of a value that came from outside
)
