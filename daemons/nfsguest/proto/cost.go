package proto

import "time"

// BurstArgs asks for as many commits as fit into some time.
type BurstArgs struct {
	Kind     string // store: flag changes; lock: lock a file, append a record, sync, unlock; lock and read: read the others' records before
	Account  string
	Box      string // store: the mailbox; lock: the file, in the mount
	Writers  int    // at once
	For      time.Duration
	FirstUID uint32 // store: each writer has a message of its own, from this one on
}

// BurstReply tells how many there were.
type BurstReply struct {
	Done  int
	Took  time.Duration
	Calls map[string]int
}

// Letter is a token of messages that have the header of a usual letter.
const Letter = "letter"

// Dovecot lies in the guests' root, which is the machine's own. Its mail lies on the mount.
const (
	DovecotHome = Export + "/dovecot"
	DovecotUser = 65534
)

// DovecotArgs is something that Dovecot does.
type DovecotArgs struct {
	Kind     string   // deliver (by its delivery agent), session (begin one over IMAP), imap (say something in it), end
	Message  []byte   // deliver
	Commands []string // imap: commands without tag
}
