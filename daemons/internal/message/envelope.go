package message

// Envelope is what IMAP calls by that name (RFC 9051 §7.5.2), and the References field beside it.
// The values are those of the header, unfolded and trimmed but not decoded: RFC 2047 words stay
// as they are, and bare 8-bit text is passed through. NUL bytes and bare CRs, which IMAP strings
// cannot carry, are replaced.
type Envelope struct {
	Date, Subject         NString
	From, Sender, ReplyTo []Address // Sender and ReplyTo are From where they are missing
	To, Cc, Bcc           []Address // fields that occur more than once are joined (RFC 5322 §4.5.3)
	InReplyTo, MessageID  NString
	References            NString // not part of IMAP's envelope; THREAD needs it
}

// Address is one mailbox of an address list, or the beginning or the end of a group:
//
//	Host == "" and Mailbox != ""   a group of the name Mailbox begins
//	Host == "" and Mailbox == ""   the group ends
//
// Each empty field is NIL on the wire. A mailbox without a domain or without a local part gets
// MissingDomain or MissingMailbox in its place, so that it is not taken for a group.
type Address struct {
	Name    string // display name without its quoting; RFC 2047 words are not decoded
	Route   string // obsolete source route ("@a,@b"), IMAP's addr-adl
	Mailbox string // local part without its quoting
	Host    string // domain, or address literal in brackets
}

// What stands in an Address for something that the header does not say.
const (
	MissingMailbox = "MISSING_MAILBOX"
	MissingDomain  = "MISSING_DOMAIN"
)
