// Package ldapwire encodes and decodes LDAPv3 messages (RFC 4511) in the restricted BER that its
// section 5.1 allows: definite lengths only, primitive strings only, low tag numbers only.
//
// Reading is without copies: every []byte in a parsed request points into the caller's frame and
// lives as long as the frame does. Parsed requests are meant to be reused: their slices grow to the
// largest request seen (within Limits) and are then filled again without allocation.
//
// Writing appends to a caller's buffer. A search result is not built from values: the attributes of
// an entry are kept in their encoded form (AppendAttribute) and copied between a header made by
// AppendEntryStart and the controls, if there are any.
//
//	LDAPMessage ::= SEQUENCE {
//	    messageID   INTEGER (0 .. 2^31-1),
//	    protocolOp  CHOICE { ... },             -- an application tag, see Op
//	    controls    [0] SEQUENCE OF Control OPTIONAL }
//
// Invariants: no input makes a parser allocate more than a constant factor of the frame's own size,
// recurse deeper than Limits.FilterDepth, or read outside of the frame. The size of a frame is
// known, and compared with its bound, before the frame is read (Frame).
//
// Left out on purpose: indefinite lengths and constructed strings (forbidden by RFC 4511 §5.1), tag
// numbers above 30 (LDAP has none), and everything that needs schema: this package does not know
// what a value means.
package ldapwire
