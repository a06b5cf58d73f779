// Package popsession serves POP3 (RFC 1939) from a mailstore: one goroutine and one snapshot of the
// INBOX for each connection.
//
//	command    = keyword *(SP argument) CRLF           RFC 2449 §4; a bare LF ends a line, too
//	single     = ("+OK" / "-ERR" SP "[" code "]") SP text CRLF
//	multi-line = single *(line CRLF) "." CRLF          lines that begin with "." get one more
//
//	AUTHORIZATION   CAPA STLS USER PASS AUTH QUIT
//	TRANSACTION     CAPA STAT LIST UIDL RETR TOP DELE RSET NOOP QUIT
//
// What a session promises:
//
//   - The mailbox is as it was at the login (RFC 1939 §3: message numbers stay the same), whatever
//     others do to it meanwhile; a message that somebody else has expunged is still readable as long as the
//     store retains it. There is no lock, so that another client is never refused with IN-USE.
//   - Messages are removed at QUIT, in one commit, and +OK comes after the commit. A connection that ends in
//     any other way, a time-out or a shutdown included, removes nothing (RFC 1939 §3 and §6).
//   - Messages that were retrieved whole get \Seen at QUIT, in one commit.
//   - The unique id of a message is its UIDVALIDITY and UID: the same through IMAP and on every server.
//   - A password is taken under TLS only, unless Limits.AllowPlain is set.
//   - Sizes are those of the stored bytes. Where a message has bare LFs they go out as CRLF, since the
//     protocol has no other line end, and its size is smaller than what is sent.
//
// Left out on purpose: APOP (needs the password itself), UTF8 and LANG of RFC 6856 (UTF8 is not whole
// without downgrading for the others), and folders other than INBOX.
package popsession
