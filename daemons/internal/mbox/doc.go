// Package mbox reads and writes the two folder formats that mail is carried around in: mbox files
// (RFC 4155 and its relatives) and Maildir trees (Maildir++), both as streams.
//
// # mbox
//
//	mbox      = *( from-line message [blank-line] )
//	from-line = "From " sender SP date EOL
//
// A from-line begins a message where it stands at the beginning of the file or behind a blank
// line (Options.Lenient does without the blank line), and where its date can be read: text that happens
// to begin with "From " has none. The blank line before the next from-line, or before the end of the
// file, separates and belongs to no message. Lines of a message that begin with "From " are quoted by
// the writer, in one of these ways:
//
//	mboxrd   one ">" is put before every line ">*From ". It is undone exactly
//	mboxo    "From " is written ">From ". It cannot be undone: such lines are given back as they are
//	git      `git format-patch --stdout`: the from-line is "From <commit> Mon Sep 17 00:00:00 2001",
//	         nothing is quoted, only such a line begins a message, and blank lines separate
//	         messages only, so that the one at the end of the file belongs to the last
//
// Nothing in a file tells mboxo from mboxrd. Detection takes for mboxrd what is not git's: of the
// lines ">From " in either, nearly all were "From " once.
//
// Content-Length fields are ignored unless asked for: whoever edits such a file makes them lie.
//
// Offsets count bytes of the file. A reader that begins at the Message.Offset of a message reads that
// message first: this is how an import is resumed.
//
// The bytes of a message are given exactly as the file has them (quoting undone). The conversion of
// bare LF to CRLF, which mail needs and mbox files do not have, is a step of its own: CRLFReader.
//
// # Maildir
//
//	tree   = folder *( "." name "/" folder )      name: levels joined by ".", in modified UTF-7
//	folder = tmp/ new/ cur/ [dovecot-keywords]
//	file   = base [":2," flags]                   flags: D F P R S T, a to z for keywords
//
// A file's modification time is the internal date of the message. Left out on purpose: UIDs
// (dovecot-uidlist), which the store gives anew, and layouts with nested directories.
package mbox
