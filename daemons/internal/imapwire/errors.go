package imapwire

import "fmt"

// SyntaxError says why a command cannot be understood. The connection is still in step after
// [Decoder.Discard]; the answer is a tagged BAD with this text.
type SyntaxError struct {
	Text string // what is wrong, in words for the client's developer
}

func (e *SyntaxError) Error() string { return e.Text }

// TooBigError says that a literal exceeds its bound. The answer is a tagged NO with the code
// TOOBIG (RFC 4469 §3, RFC 7889 §4); the connection is in step after [Decoder.Discard].
type TooBigError struct {
	Size, Max int64
}

func (e *TooBigError) Error() string {
	return fmt.Sprintf("literal of %d bytes is larger than the allowed %d", e.Size, e.Max)
}

// CharsetError says that a SEARCH names a charset that is not known: NO with the code BADCHARSET.
type CharsetError struct{ Name string }

func (e *CharsetError) Error() string { return fmt.Sprintf("charset %q is not supported", e.Name) }

// Fatal says that the place in the stream is lost (the connection ended inside a command, or more
// than Limits.Discard bytes would have to be dropped). The connection must be closed.
type Fatal struct {
	Text string
	Err  error // the cause, if any
}

func (e *Fatal) Error() string {
	if e.Err != nil {
		return e.Text + ": " + e.Err.Error()
	}
	return e.Text
}

func (e *Fatal) Unwrap() error { return e.Err }

func syntaxf(format string, args ...any) error {
	return &SyntaxError{Text: fmt.Sprintf(format, args...)}
}
