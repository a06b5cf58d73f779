// Package imapwire is the byte level of the server side of IMAP: it takes apart what a client
// sends and puts together what the server answers. It knows the grammar of RFC 3501 and RFC 9051
// with the extensions that the service speaks, and nothing about mailboxes, sessions or state.
//
// # Input
//
//	command = tag SP name *(SP argument) CRLF
//
// A command may span several lines: a line that ends in a literal announcement "{n}" is followed
// by n bytes and another line. [Decoder] always holds one whole line in memory, hands out its
// tokens, and reads the literal and the next line when the parser reaches the announcement. The
// literal of APPEND is not read into memory: [Decoder.OpenLiteral] makes a reader of it.
//
// Literals: "{n}" is announced and waits for our continuation request, "{n+}" (LITERAL+ and
// LITERAL-, RFC 7888) does not wait, "~{n}" (RFC 3516) may hold NUL.
//
// # Output
//
// [Encoder] gathers responses in one buffer, writes when it is full or flushed, and streams
// message text from an io.Reader without holding it.
//
// # Invariants
//
//   - Every quantity that a client chooses has a bound in [Limits]: line, literal, whole command,
//     nesting, ranges of a set, search keys, fetch items.
//   - A syntax error never loses the place in the stream: [Decoder.Discard] finds the end of the
//     command, its non-synchronizing literals included. What cannot be resynchronized is a [Fatal].
//   - Buffers come from a pool and are held only between the first byte of a command and its
//     Release; an idle connection holds none.
//   - A token that was handed out stays valid until the command is over.
//
// Left out on purpose: the client side of the protocol, and 8-bit text outside of quoted strings
// and literals.
package imapwire
