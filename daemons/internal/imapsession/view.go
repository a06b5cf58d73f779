package imapsession

import (
	"slices"

	"shoal/daemons/internal/mailstore"
)

// view is a mailbox as its client knows it. It maps between message sequence numbers and messages.
//
// The client's messages are: those of state st below UID next, and the ghosts, which st no longer
// has. In ascending order of UID they have the sequence numbers 1, 2, 3 ... What st has from next on is
// not announced yet.
//
// A view that is up to date is a pointer and a number: nothing is kept per message.
type view struct {
	st     *mailstore.State
	next   uint32
	ghosts []mailstore.Message // ascending UIDs, all below next
	known  int                 // messages of st below next
}

// newView is the view of a client that has just been told about st.
func newView(st *mailstore.State) view {
	return view{st: st, next: st.UIDNext(), known: st.Len()}
}

// count is the number of messages the client knows of.
func (v *view) count() int { return v.known + len(v.ghosts) }

// ghostsBelow is the number of ghosts whose UID is less than uid.
func (v *view) ghostsBelow(uid uint32) int { return below(v.ghosts, uid) }

// below is the number of msgs, ascending, whose UID is less than uid.
func below(msgs []mailstore.Message, uid uint32) int {
	n, _ := slices.BinarySearchFunc(msgs, uid, func(m mailstore.Message, uid uint32) int {
		switch {
		case m.UID < uid:
			return -1
		case m.UID > uid:
			return 1
		}
		return 0
	})
	return n
}

// seq is the sequence number of message i of st.
func (v *view) seq(i int, uid uint32) uint32 { return uint32(i + 1 + v.ghostsBelow(uid)) }

// at returns the message with sequence number seq, from 1 to count. ghost says that it is expunged.
func (v *view) at(seq int) (m mailstore.Message, ghost bool) {
	if len(v.ghosts) == 0 {
		return v.st.At(seq - 1), false
	}
	// g: how many ghosts lie before the message. The ghost with index k has the sequence number
	// k + 1 + (messages of st below it), which ascends with k.
	lo, hi := 0, len(v.ghosts)
	for lo < hi {
		mid := (lo + hi) / 2
		i, _ := v.st.Find(v.ghosts[mid].UID)
		if i+mid+1 < seq {
			lo = mid + 1
		} else {
			hi = mid
		}
	}
	if lo < len(v.ghosts) {
		if i, _ := v.st.Find(v.ghosts[lo].UID); i+lo+1 == seq {
			return v.ghosts[lo], true
		}
	}
	return v.st.At(seq - 1 - lo), false
}

// find returns the first sequence number whose message has a UID of at least uid (count+1 if none
// has), and whether it is that UID.
func (v *view) find(uid uint32) (seq int, found bool) {
	if uid >= v.next {
		return v.count() + 1, false
	}
	i, found := v.st.Find(uid)
	i = min(i, v.known)
	g := v.ghostsBelow(uid)
	if !found && g < len(v.ghosts) {
		found = v.ghosts[g].UID == uid
	}
	return i + g + 1, found
}

// lastUID is the UID of the last message, 0 when there is none.
func (v *view) lastUID() uint32 {
	if v.count() == 0 {
		return 0
	}
	m, _ := v.at(v.count())
	return m.UID
}

// advance makes st the state behind the view. What vanished becomes ghosts; what is new stays
// unannounced.
func (v *view) advance(st *mailstore.State) {
	if st == v.st || st.ModSeq() <= v.st.ModSeq() {
		return
	}
	vanished, _ := st.VanishedSince(v.st.ModSeq())
	gone := v.ghosts[:len(v.ghosts):len(v.ghosts)]
	for _, m := range v.st.UIDs(vanished) {
		if m.UID >= v.next {
			break
		}
		gone = append(gone, m)
	}
	if len(gone) > len(v.ghosts) {
		if len(v.ghosts) > 0 {
			slices.SortFunc(gone, func(a, b mailstore.Message) int {
				switch {
				case a.UID < b.UID:
					return -1
				case a.UID > b.UID:
					return 1
				}
				return 0
			})
		}
		v.known -= len(gone) - len(v.ghosts)
		v.ghosts = gone
	}
	v.st = st
}

// split leaves the ghosts that are in uids, and returns the others.
func (v *view) split(uids mailstore.UIDSet) (rest []mailstore.Message) {
	var keep []mailstore.Message
	for _, m := range v.ghosts {
		if uids.Contains(m.UID) {
			keep = append(keep, m)
		} else {
			rest = append(rest, m)
		}
	}
	v.ghosts = keep
	return rest
}

// announce takes in what is new and reports whether there was something.
func (v *view) announce() bool {
	if v.next == v.st.UIDNext() {
		return false
	}
	v.next = v.st.UIDNext()
	fresh := v.st.Len() > v.known
	v.known = v.st.Len()
	return fresh
}
