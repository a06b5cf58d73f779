package mbox

import (
	"io"
	"time"
)

// Format says how lines that begin with "From " are quoted in a file.
type Format int

// The formats. Detect looks at the beginning of the file.
const (
	Detect Format = iota
	MboxO
	MboxRD
	Git
)

// Options of a Reader. The zero value detects the format.
type Options struct {
	Format        Format
	ContentLength bool  // trust Content-Length fields that lead exactly to a from-line or the end
	Lenient       bool  // a from-line begins a message without a blank line before it, too
	Offset        int64 // what the first byte of the input is counted as
}

// Reader reads an mbox file message by message.
type Reader struct{}

// NewReader makes a reader of r, which must stand at the start of the file or at a Message.Offset.
func NewReader(r io.Reader, o Options) *Reader { return &Reader{} }

// Format is the format that is read, after detection.
func (r *Reader) Format() Format { return MboxO }

// Next goes on to the next message, leaving out what is unread of the present one. io.EOF at the
// end; ErrNotMbox where the input does not begin with a from-line.
func (r *Reader) Next() (*Message, error) { return nil, io.EOF }

// Message is one message of an mbox file. It is valid until the next call of Next.
type Message struct {
	Offset int64     // where its from-line begins
	Sender string    // from the from-line; a commit's name for git
	Date   time.Time // from the from-line, in UTC where it names no zone; zero where it cannot be read
}

// Read reads the content.
func (m *Message) Read(b []byte) (int, error) { return 0, io.EOF }

// Writer writes mboxrd.
type Writer struct{}

// NewWriter makes a writer to w.
func NewWriter(w io.Writer) *Writer { return &Writer{} }

// Write writes one message. CRLF becomes LF.
func (w *Writer) Write(sender string, date time.Time, r io.Reader) error { return nil }

// CRLFReader converts each LF that has no CR before it to CRLF and changes nothing else.
func CRLFReader(r io.Reader) io.Reader { return r }

// Maildir is a Maildir++ tree.
type Maildir struct{}

// OpenMaildir opens the tree at path. ErrNotMaildir where it has no cur and new folders.
func OpenMaildir(path string) (*Maildir, error) { return &Maildir{}, nil }

// Folder is one folder of a Maildir++ tree.
type Folder struct {
	Name       string // UTF-8, levels separated by "/"; "INBOX" for the tree itself
	Path       string // its directory
	Subscribed bool
}

// Folders lists the folders, INBOX first and the others by name.
func (m *Maildir) Folders() ([]Folder, error) { return nil, nil }

// MaildirMessage is one message file.
type MaildirMessage struct {
	Path     string
	Base     string    // file name without its info; the same as long as the message is kept
	Flags    []string  // IMAP's names: \Seen \Answered \Flagged \Deleted \Draft $Forwarded
	Keywords []string  // of dovecot-keywords
	Date     time.Time // modification time of the file: the internal date
	Size     int64
}

// Messages calls f for each message of a folder, in no particular order, without ever having the whole directory in memory.
func (m *Maildir) Messages(f Folder, fn func(MaildirMessage) error) error { return nil }
