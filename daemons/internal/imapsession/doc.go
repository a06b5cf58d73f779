// Package imapsession serves IMAP: IMAP4rev1 (RFC 3501) and IMAP4rev2 (RFC 9051) with extensions. It
// is everything between an accepted connection and the message store.
//
// # How a connection is served
//
// A connection is a session. A session runs when something happens (input, a change in its mailbox, a
// time-out, the end of the server), does all there is to do, and is parked. While parked it has no
// goroutine and no buffers: its socket waits in one epoll instance that all sessions share. Commands
// of one session are executed one after the other, in the order in which they came; commands that the
// client sent ahead are answered together in one write. RFC 9051 §5.5 (ambiguity) is met by that.
//
// # What a client is told, and when
//
// The selected mailbox is seen through a view (view.go): the newest state that the session has looked
// at, the messages that are gone from it but that the client has not been told about, and the first
// UID that it has not been told about. Message sequence numbers are those of the view. Each command
// ends with a sync that tells what is new, except that
//
//   - EXPUNGE and VANISHED are never sent during FETCH, STORE, SEARCH, SORT and THREAD without UID, nor between
//     commands outside of IDLE (RFC 9051 §7.5.1); the table in commands.go says which commands these are;
//   - what a command itself has changed is told by that command.
//
// \Recent exists for clients that have not enabled IMAP4rev2, in the simplest form that RFC 3501
// allows for: a message is recent in the sessions that were there when it arrived. SELECT and STATUS
// say 0.
//
// # Invariants
//
//   - One goroutine at a time touches a session, the one that has set eventRunning.
//   - No lock is held during a write to the network or a call of the store.
//   - Everything that a client can make grow is bounded by Limits or imapwire.Limits.
//   - A panic ends the session that it happened in, is logged, and nothing else.
//   - A session reaches mail only through the account that its login returned.
//
// # Left out on purpose
//
// THREAD=REFS, and results of SEARCH and SORT that are kept up to date (RFC 5267 §4).
package imapsession
