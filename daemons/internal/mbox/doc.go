// Package mbox reads and writes the two folder formats that mail is carried around in: mbox files
// (RFC 4155 and its relatives) and Maildir trees (Maildir++), both as streams.
//
// # mbox
//
//	mbox     = *( from-line message [blank line] )
//	from-line = "From " sender SP date EOL
//
// A from-line begins a message where it stands at the beginning of the file or behind a blank
// line (the blank-line rule; Options.Lenient does without). The blank line before the next
// from-line separates and belongs to no message. Lines of a message that begin with "From " are
// quoted by the writer, in one of two ways that the reader must be told or must guess:
//
//	mboxo    "From " is written ">From ". It cannot be undone: such lines are given back as they are
//	mboxrd   one ">" is put before every line ">*From ". It is undone exactly
//	git      `git format-patch --stdout`: the from-line is "From <commit> Mon Sep 17 00:00:00 2001",
//	         nothing is quoted, and only such a line begins a message
//
// Content-Length fields are ignored unless asked for: whoever edits such a file makes them lie.
//
// Offsets count bytes of the file. Message.Offset of a message, given to a reader that begins there,
// reads that message first: this is how an import is resumed.
//
// The bytes of a message are given exactly as the file has them (quoting undone). The conversion of
// bare LF to CRLF, which mail needs and mbox files do not have, is a step of its own: CRLFReader.
package mbox
