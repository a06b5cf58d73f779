// Package proto is what the rig (tests/nfs) and the program inside its kernels (daemons/nfsguest) say to
// each other: net/rpc over TCP port Port, one service called "Guest".
package proto

import "time"

// Port is where a guest listens. At Port+1 it sends the events of its load, as a stream of gob values of type Event, to
// whom connects there.
const Port = 700

// VolumeID is the id of the volume that the tests make.
const VolumeID = "6f1d7c52-5a0e-4c0b-9a0c-0d8a4f2b7e11"

// Where things lie in the guests.
const (
	Disk   = "/mnt/disk"   // server: the mounted image
	Export = "/mnt/export" // client: the mount
)

// OpenArgs opens a store on the mounted volume.
type OpenArgs struct {
	Server    string
	Retention time.Duration
	Init      bool // make the volume first
	Maintain  bool
	Interest  bool // register interest in mailboxes that are watched
}

// RunArgs starts a load of several writers in the background.
type RunArgs struct {
	Writers int
	For     time.Duration
	Seed    uint64
	Boxes   []string
	Account string
	Index   int // of this client, from 0
	Clients int
	Run     int // of this client: it was killed before
}

// Kinds of events.
const (
	Append  = "append"
	Flag    = "flag"
	Copy    = "copy"
	Move    = "move"
	Expunge = "expunge"

	Wrong = "wrong" // Err: something that must not be
	End   = "end"   // the load is over; ID: how many states were read
)

// Event is one operation on the store. It is sent twice: before it begins, and when it was answered.
type Event struct {
	ID      int // the same for both
	Done    bool
	Err     string // answered with an error: the outcome is unknown
	Writer  string
	Kind    string
	Box     string
	To      string   // copy, move
	Token   string   // append: what the message says
	UIDs    []uint32 // asked for; when done: had effect on
	Dest    []uint32 // copy, move: UIDs over there; append: the UID
	Keyword string   // flag
	On      bool     // flag: set or cleared
	ModSeq  uint64
}

// Message is a message as a client sees it.
type Message struct {
	UID      uint32
	ModSeq   uint64
	Flags    uint8
	Keywords []string
	Token    string // first line of the content, when it was asked for
}

// StateArgs asks for the state of a mailbox.
type StateArgs struct {
	Account, Box string
	Content      bool
	Fresh        bool // in a new store, with nothing cached
}

// State of a mailbox.
type State struct {
	UIDValidity, UIDNext uint32
	ModSeq               uint64
	Messages             []Message
}

// OpArgs is one operation, for tests that look at single ones.
type OpArgs struct {
	Account, Box, To string
	Kind             string // deliver, fill, flag, poll, read, copy, expunge, watch, unwatch, maintain, drop, links
	From, Count      uint32
	Size             int
	Token            string
	Keyword          string
}

// OpReply counts what the operation cost.
type OpReply struct {
	Calls   map[string]int // NFS calls by kind
	Took    time.Duration
	Len     int
	UIDNext uint32
	ModSeq  uint64
}

// VerifyReply is the verdict of the store about itself.
type VerifyReply struct {
	Mailboxes, Messages, Records, Snapshots, Unreferenced, Torn int
	Problems                                                    []string
}

// None is for calls without argument or result.
type None struct{}

// Site is a mail service on the rig: boxes in the guests, the rest on the rig's side.
type Site struct {
	Dir            string            // certificates, configurations, secrets (files root and secret)
	Vault          string            // address of the directory
	Boxes          map[string]string // addresses by name
	User, Password string            // the one account
}
