// Package proto is what the rig (tests/nfs) and the program inside its kernels (daemons/nfsguest) say to
// each other: net/rpc over TCP port Port, one service called "Guest".
package proto

import (
	"fmt"
	"time"
)

// Port is where a guest listens.
const Port = 700

// VolumeID is the id of the volume that the tests make.
const VolumeID = "6f1d7c52-5a0e-4c0b-9a0c-0d8a4f2b7e11"

// Where things lie in the guests.
const (
	Disk   = "/mnt/disk"   // server: the mounted image
	Export = "/mnt/export" // client: the mount
)

// Dies is what a guest says on its console before it ends itself.
const Dies = "dies before"

// OpenArgs opens a store on the mounted volume.
type OpenArgs struct {
	Server    string
	Retention time.Duration
	Init      bool // make the volume first
	Maintain  bool
	Interest  bool // register interest in mailboxes that are watched
	Tiny      bool // short segments and frequent snapshots: what is rare in a year happens all the time
	NoFence   bool // break the store: no floors
	Mortal    bool // the store's file operations are counted, see Guest.Die

	CallTimeout time.Duration
}

// Message is a message as a client sees it.
type Message struct {
	UID    uint32
	ModSeq uint64
	Flags  uint32 // a mask as in Do
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
	CPU     time.Duration // where it was measured
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

// Do is one operation of a history.
type Do struct {
	Kind    string // append flags expunge copy move read content create rename delete list maintain; hold: open a message; rest: read it to its end
	Account string
	Box, To string // ids of mailboxes; create, rename, delete: names
	UIDs    []uint32
	Token   string
	Size    int
	Mask    uint32 // flags, and from bit 5 on keywords
	Sign    string
	Since   uint64
	Guarded bool
	Fresh   bool // read: in a new store, with nothing cached
}

// Done is its outcome. An Err says that the outcome is unknown.
type Done struct {
	Err                                                              string
	Closed, Missing, Exists, NoSpace, ReadOnly, Unavailable, Corrupt bool
	ID                                                               string
	UIDs, Dest, Failed                                               []uint32
	UIDValidity, UIDNext                                             uint32
	ModSeq                                                           uint64
	Messages                                                         []Message // Flags is a mask as in Do
	Boxes                                                            []Box
	Token                                                            string
}

// Box is a mailbox in an account's list.
type Box struct {
	Name, ID    string
	UIDValidity uint32
}

// Keywords are what the bits of a mask from bit 5 on stand for.
func Keywords(mask uint32) []string {
	var out []string
	for i := range 16 {
		if mask>>(5+i)&1 != 0 {
			out = append(out, fmt.Sprintf("k%d", i))
		}
	}
	return out
}

// Mask is the reverse of Keywords, flags included.
func Mask(flags uint8, keywords []string) uint32 {
	mask := uint32(flags)
	for _, k := range keywords {
		var i int
		if n, _ := fmt.Sscanf(k, "k%d", &i); n == 1 && i >= 0 && i < 16 {
			mask |= 1 << (5 + i)
		}
	}
	return mask
}

// Limit says for how many files and KiB more there is to be room; -1: no limit.
type Limit struct {
	Project    bool // of a project, otherwise of a user
	ID         uint32
	Files, KiB int
}
