// Package message reads the structure of stored mail: RFC 5322 headers, MIME bodies
// (RFC 2045, 2046, 2047, 2183, 2231, 6532) and the views of them that IMAP asks for
// (RFC 3501 and RFC 9051 §6.4.5, §7.5.2; RFC 3516; RFC 5256; RFC 8970).
//
// A message is a sequence of bytes behind an io.ReaderAt. Nothing is changed, rewritten or
// normalised on the way in: every offset and size refers to the bytes as they are stored,
// whether their lines end in CRLF or in a bare LF.
//
// Invariants:
//
//   - Parse fails only when the reader fails. Whatever the bytes are, there is a tree, and
//     0 <= HeaderOffset <= BodyOffset <= End <= size holds for each part of it; children lie
//     inside their parent, in order, and do not overlap.
//   - The file is read once, front to back, through one fixed buffer. Memory is proportional
//     to the structure (number of parts and the bytes of the few fields that are kept), never
//     to the size of a body, and is bounded by Limits.
//   - A Part is immutable after Parse returns and may be used by many goroutines at once.
//
// The header of an entity ends at its first blank line (kept as part of the header, as IMAP
// counts it), at a boundary line of an enclosing multipart, or at the end of the data. A line in
// the header that is no field is skipped, not taken for the beginning of the body. Only where
// the first line of a body part is no field does the part have no header at all.
//
// The number of lines of a body is the number of its LF bytes.
//
// Left out on purpose: composing messages (whoever composes knows its own structure), verifying
// signatures, and treating uuencode as a transfer encoding.
package message
