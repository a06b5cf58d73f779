package mailstore

import (
	"iter"
	"sort"
	"time"
)

// State is a mailbox as of one commit. It never changes; later states share with it what is the same,
// so that holding on to one costs only what has changed since.
//
// Messages lie in chunks of up to chunkLen in order of UID. A change copies the chunks it touches and
// the list of chunks. Adding messages writes behind the end that older states see, into the same
// array: only the newest state of a history does that (fold.go).
type State struct {
	n           uint64 // the last record folded in
	base        uint64 // mod-sequence = base + N
	id, account string
	uidValidity uint32
	uidNext     uint32
	chunks      []*chunk
	starts      []int32 // starts[i]: index of the first message of chunks[i]
	count       int
	unseen      int
	deleted     int
	bytes       int64

	origins  []string   // of message ids, by msgRec.origin
	keywords [][]string // sets of keywords, by msgRec.keywords; the first is empty

	tombs     []tomb // in ascending order of modSeq
	tombFloor uint64 // what was expunged at or below this mod-sequence may be missing in tombs
	dead      []deadMsg
	kept      []keptOp // unknown ops, for a later version
	closed    bool
}

const chunkLen = 256

// chunk is a run of messages, immutable up to the length its owner sees.
type chunk struct {
	recs   []msgRec
	ext    []msgExt // in order of UID
	maxMod uint64
}

// msgRec is the common part of a message: no pointers, 48 bytes.
type msgRec struct {
	modSeq   uint64
	ctr      uint64
	uid      uint32
	size     uint32 // of the message, which may not be that of its file
	crc      uint32
	date     uint32 // Unix seconds, unless extDate
	save     uint32
	origin   uint32
	keywords uint32
	flags    Flags
	ext      extBits
}

type extBits uint8

const (
	hasExt    extBits = 1 << iota // the chunk's ext has more about it
	extDate                       // date and save are there
	extDir                        // dir is there
	extSource                     // source is there
	extFile                       // file is there
)

// msgExt is the uncommon part of a message.
type msgExt struct {
	uid           uint32
	dir           uint32
	date, save    int64
	email, thread string
	source        string
	file          uint32 // bytes of the file, where the message has CRLF for each LF of it
	uidl          string
	extra         string
}

type tomb struct {
	modSeq uint64
	uids   UIDSet
}

// deadMsg is an expunged message whose file may still exist: kept for undelete and for the collector.
type deadMsg struct {
	n   uint64 // the record that expunged it
	rec msgRec
	ext *msgExt
}

type keptOp struct {
	n  uint64
	op string
}

// Message is a message as a state shows it. It is a value: it stays what it is when the mailbox moves on.
type Message struct {
	UID      uint32
	ModSeq   uint64
	Flags    Flags
	Keywords []string // sorted; shared: must not be changed
	Size     int64
	rec      *msgRec
	ext      *msgExt
	origin   string
}

// InternalDate is the date of arrival, or what APPEND gave (RFC 9051 §2.3.3).
func (m Message) InternalDate() time.Time {
	if m.rec.ext&extDate != 0 {
		return time.Unix(m.ext.date, 0)
	}
	return time.Unix(int64(m.rec.date), 0)
}

// SaveDate is when the message came into this mailbox (RFC 8514).
func (m Message) SaveDate() time.Time {
	if m.rec.ext&extDate != 0 {
		return time.Unix(m.ext.save, 0)
	}
	return time.Unix(int64(m.rec.save), 0)
}

// EmailID identifies the content across copies (EMAILID, RFC 8474).
func (m Message) EmailID() string {
	if m.ext != nil && m.ext.email != "" {
		return m.ext.email
	}
	return nonce{m.origin, m.rec.ctr}.String()
}

// ThreadID is THREADID of RFC 8474; empty when none was given.
func (m Message) ThreadID() string {
	if m.ext != nil {
		return m.ext.thread
	}
	return ""
}

// ID is the message's unique name in the store.
func (m Message) ID() string { return m.msgID().String() }

func (m Message) msgID() msgID {
	return msgID{nonce{m.origin, m.rec.ctr}, recFile(m.rec, m.ext), m.rec.crc}
}

// FileSize is the length of the message's file: less than Size for one that was adopted with LF as line ends.
func (m Message) FileSize() int64 { return int64(recFile(m.rec, m.ext)) }

// UIDL is the POP3 unique-id that another server gave the message (adoption); empty: none.
func (m Message) UIDL() string {
	if m.ext != nil {
		return m.ext.uidl
	}
	return ""
}

// Server is the server that stored the message's file.
func (m Message) Server() string { return originServer(m.origin) }

// recFile is the length of a message's file.
func recFile(r *msgRec, x *msgExt) uint64 {
	if r.ext&extFile != 0 {
		return uint64(x.file)
	}
	return uint64(r.size)
}

// dir is the number of the message's directory below m/.
func (m Message) dir() uint32 { return recDir(m.rec, m.ext) }

func recDir(r *msgRec, x *msgExt) uint32 {
	if r.ext&extDir != 0 {
		return x.dir
	}
	return r.uid / messageDirLen
}

// UIDValidity is the value of RFC 9051 §2.3.1.1.
func (s *State) UIDValidity() uint32 { return s.uidValidity }

// UIDNext is the least UID the next message can get.
func (s *State) UIDNext() uint32 { return s.uidNext }

// ModSeq is the mod-sequence of the state: HIGHESTMODSEQ of RFC 7162. At least 1.
func (s *State) ModSeq() uint64 { return s.base + s.n }

// Len is the number of messages.
func (s *State) Len() int { return s.count }

// Bytes is the sum of the messages' sizes.
func (s *State) Bytes() int64 { return s.bytes }

// Unseen is the number of messages without \Seen.
func (s *State) Unseen() int { return s.unseen }

// Deleted is the number of messages with \Deleted.
func (s *State) Deleted() int { return s.deleted }

// chunkOf returns the chunk that holds index i.
func (s *State) chunkOf(i int) int {
	return sort.Search(len(s.starts), func(c int) bool { return int(s.starts[c]) > i }) - 1
}

func (c *chunk) extOf(uid uint32) *msgExt {
	i := sort.Search(len(c.ext), func(i int) bool { return c.ext[i].uid >= uid })
	if i < len(c.ext) && c.ext[i].uid == uid {
		return &c.ext[i]
	}
	return nil
}

func (s *State) message(c *chunk, i int) Message {
	r := &c.recs[i]
	m := Message{
		UID: r.uid, ModSeq: r.modSeq, Flags: r.flags, Keywords: s.keywords[r.keywords],
		Size: int64(r.size), rec: r, origin: s.origins[r.origin],
	}
	if r.ext&hasExt != 0 {
		m.ext = c.extOf(r.uid)
	}
	return m
}

// At returns message i of 0..Len()-1, in order of UID: message sequence number i+1.
func (s *State) At(i int) Message {
	c := s.chunkOf(i)
	return s.message(s.chunks[c], i-int(s.starts[c]))
}

// Find returns the index of the first message whose UID is at least uid (Len() if there is none), and
// whether it is that very UID.
func (s *State) Find(uid uint32) (i int, found bool) {
	c := sort.Search(len(s.chunks), func(c int) bool { return s.chunks[c].recs[0].uid > uid }) - 1
	if c < 0 {
		return 0, false
	}
	recs := s.chunks[c].recs
	k := sort.Search(len(recs), func(k int) bool { return recs[k].uid >= uid })
	return int(s.starts[c]) + k, k < len(recs) && recs[k].uid == uid
}

// ByUID returns the message with that UID.
func (s *State) ByUID(uid uint32) (Message, bool) {
	i, ok := s.Find(uid)
	if !ok {
		return Message{}, false
	}
	return s.At(i), true
}

// All yields all messages with their index.
func (s *State) All() iter.Seq2[int, Message] { return s.Range(0, s.count) }

// Range yields the messages from index from up to, not including, to.
func (s *State) Range(from, to int) iter.Seq2[int, Message] {
	return func(yield func(int, Message) bool) {
		from, to := max(from, 0), min(to, s.count)
		if from >= to {
			return
		}
		for c := s.chunkOf(from); c < len(s.chunks); c++ {
			start := int(s.starts[c])
			for k := max(from-start, 0); k < len(s.chunks[c].recs); k++ {
				if start+k >= to || !yield(start+k, s.message(s.chunks[c], k)) {
					return
				}
			}
		}
	}
}

// UIDs yields the messages of a set that exist, with their index.
func (s *State) UIDs(set UIDSet) iter.Seq2[int, Message] {
	return func(yield func(int, Message) bool) {
		for _, r := range set {
			from, _ := s.Find(r.Start)
			for i, m := range s.Range(from, s.count) {
				if m.UID > r.Stop {
					break
				}
				if !yield(i, m) {
					return
				}
			}
		}
	}
}

// ChangedSince yields the messages whose mod-sequence is higher than modSeq, with their index.
func (s *State) ChangedSince(modSeq uint64) iter.Seq2[int, Message] {
	return func(yield func(int, Message) bool) {
		for c, ch := range s.chunks {
			if ch.maxMod <= modSeq {
				continue
			}
			for k := range ch.recs {
				if ch.recs[k].modSeq > modSeq && !yield(int(s.starts[c])+k, s.message(ch, k)) {
					return
				}
			}
		}
	}
}

// VanishedSince returns the UIDs expunged after modSeq. When that is no longer known for a modSeq so
// old, complete is false and the set is every UID below UIDNext that no message has (RFC 7162 §3.2.5.1
// allows to report more than what was asked for).
func (s *State) VanishedSince(modSeq uint64) (vanished UIDSet, complete bool) {
	if modSeq >= s.tombFloor {
		i := sort.Search(len(s.tombs), func(i int) bool { return s.tombs[i].modSeq > modSeq })
		if len(s.tombs)-i == 1 {
			return append(UIDSet(nil), s.tombs[i].uids...), true
		}
		return mergeSets(s.tombs[i:]), true
	}
	next := uint32(1)
	for _, ch := range s.chunks {
		for k := range ch.recs {
			if u := ch.recs[k].uid; u > next {
				vanished.AddRange(next, u-1)
			}
			next = ch.recs[k].uid + 1
		}
	}
	if next < s.uidNext {
		vanished.AddRange(next, s.uidNext-1)
	}
	return vanished, false
}

// mergeSets returns the union of disjoint sets.
func mergeSets(tombs []tomb) UIDSet {
	var all []UIDRange
	for _, t := range tombs {
		all = append(all, t.uids...)
	}
	sort.Slice(all, func(i, j int) bool { return all[i].Start < all[j].Start })
	var out UIDSet
	for _, r := range all {
		out.AddRange(r.Start, r.Stop)
	}
	return out
}

// Keywords lists the keywords in use in the mailbox, or used not long ago, sorted.
func (s *State) Keywords() []string {
	seen := map[string]bool{}
	var out []string
	for _, set := range s.keywords {
		for _, k := range set {
			if !seen[k] {
				seen[k] = true
				out = append(out, k)
			}
		}
	}
	sort.Strings(out)
	return out
}

// weight is roughly what the state costs in memory, in bytes.
func (s *State) weight() int64 {
	return 512 + int64(s.count)*52 + int64(len(s.dead))*64 + int64(len(s.tombs))*48 + int64(len(s.origins))*40
}
