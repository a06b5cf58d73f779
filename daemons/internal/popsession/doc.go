// Package popsession serves POP3 (RFC 1939) from a mailstore: one goroutine and one snapshot of the
// INBOX for each connection.
//
//	command    = keyword *(SP argument) CRLF           RFC 2449 §4; a bare LF ends a line, too
//	single     = ("+OK" / "-ERR" SP "[" code "]") SP text CRLF
//	multi-line = single *(line CRLF) "." CRLF          lines that begin with "." get one more
//
//	AUTHORIZATION   CAPA STLS USER PASS AUTH UTF8 LANG QUIT
//	TRANSACTION     CAPA LANG STAT LIST UIDL RETR TOP DELE RSET NOOP QUIT
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
//   - What lies in the INBOX for longer than Limits.ExpireDays and was read goes at QUIT, with what the session has deleted: EXPIRE says so.
//   - Between two logins of an account at this server lies Limits.LoginDelay, counted from logins that succeeded and told only to who has
//     the right password: LOGIN-DELAY says so. Other servers do not know of these logins.
//   - What goes out is lines of text without NUL: a message of BODY=BINARYMIME goes out with its binary parts in base64 (message.Textual).
//     To a client that has not said UTF8, headers go out in ASCII (message.Downgraded).
//   - A size in LIST and STAT is that of the stored message, which is what RETR sends but for three kinds of messages, whose size in
//     RETR's own answer is right: binary ones, those with UTF-8 in the header, and those with bare LFs, which go out as CRLF, since the
//     protocol has no other line end. (Adopted mail whose files have bare LFs is counted with CRLF by the store.)
//
// Left out on purpose: APOP (the server would have to keep the password itself, where a hash of it is enough for everything else, and MD5
// protects nothing that TLS does not), the argument USER of UTF8's capability (names are compared as addresses are; passwords as they are
// typed, not after SASLprep), and folders other than INBOX.
package popsession
