package nfs

import (
	"fmt"
	"slices"
	"strings"

	"github.com/anishathalye/porcupine"
)

// The sequential models that histories are held against: a mailbox, and an account's list of mailboxes. Each mailbox is a
// partition of its own, and so is the list: linearizability is local, and the store promises no more across mailboxes. A copy is
// an addition to one mailbox that was somewhere between its call and its answer, and a look at another; a move removes there besides.
//
// An operation whose answer never came (its client was killed, or the store said that the outcome is unknown) is one that may
// happen at any later time, or not at all. The search for an order is kept short by allowing it only where it changes something,
// and once all that was answered has its place: there nobody looks any more.

// operation is what somebody asked of a mailbox or a list.
type operation struct {
	kind    string
	uids    []uint32
	sources []string // append: of moves, what is moved, message by message
	mask    uint32   // append, flags: flags and keywords, a bit each
	copied  bool     // append: flags and keywords come from elsewhere
	sign    string   // flags: + - =
	since   uint64   // flags: leave alone what has a higher mod-sequence
	guarded bool     // flags: since is meant
	loose   bool     // remove: what was there is not told
	name    string   // of a mailbox in the list
	to      string
	who     string
	told    int // how many operations of the history were answered
}

// outcome is what was answered.
type outcome struct {
	unknown bool
	closed  bool // the mailbox was deleted
	missing bool // no mailbox of that name
	exists  bool // the name is taken
	uids    []uint32
	failed  []uint32
	modSeq  uint64 // 0: not told
	id      string
	state   *boxState
	list    entries
}

const (
	opAppend = "append"
	opFlags  = "flags"
	opRemove = "remove"
	opHas    = "has"
	opRead   = "read"
	opClose  = "close"

	opCreate = "create"
	opRename = "rename"
	opDelete = "delete"
	opList   = "list"
)

// allFlags are the bits of a mask: five system flags and the keywords.
const allFlags = 1<<21 - 1

// A message of the model. What is not known of it (of a copy, or of what got no answer) is left open until somebody sees it.
type message struct {
	uid     uint32
	modSeq  uint64 // 0: not known
	on, off uint32 // flags known to be set, and known to be clear
	source  string
}

type boxState struct {
	next   uint32
	modSeq uint64
	closed bool
	msgs   []message
	placed int // operations with an answer so far
}

func (s *boxState) clone() *boxState {
	n := *s
	n.msgs = slices.Clone(s.msgs)
	return &n
}

func (s *boxState) find(uid uint32) (int, bool) {
	return slices.BinarySearchFunc(s.msgs, uid, func(m message, uid uint32) int { return int(int64(m.uid) - int64(uid)) })
}

// live are those of uids that the mailbox has.
func (s *boxState) live(uids []uint32) []uint32 {
	var out []uint32
	for _, u := range uids {
		if _, ok := s.find(u); ok {
			out = append(out, u)
		}
	}
	return out
}

// step says whether the answer fits an operation on s, and what s becomes.
func (s *boxState) step(in *operation, out *outcome) (bool, *boxState) {
	if out.unknown {
		if s.placed == in.told {
			return true, s // too late to matter
		}
		if s.closed {
			return false, nil
		}
		n := s.clone()
		ok := n.change(in, out)
		return ok && !s.equal(n), n
	}
	if out.modSeq != 0 && out.modSeq < s.modSeq || out.closed != s.closed {
		return false, nil
	}
	n := s.clone()
	n.placed++
	if out.closed {
		return true, n
	}
	n.modSeq = max(n.modSeq, out.modSeq)
	return n.change(in, out), n
}

// change applies an operation, and says whether its answer fits.
func (s *boxState) change(in *operation, out *outcome) bool {
	switch in.kind {
	case opAppend:
		return s.append(in, out)
	case opFlags:
		return s.flags(in, out)
	case opRemove:
		gone := s.live(in.uids)
		s.msgs = slices.DeleteFunc(s.msgs, func(m message) bool { return slices.Contains(gone, m.uid) })
		return out.unknown || in.loose || slices.Equal(gone, out.uids)
	case opHas:
		return slices.Equal(s.live(in.uids), out.uids)
	case opRead:
		return s.read(out.state)
	case opClose:
		s.closed = true
		return true
	}
	return false
}

func (s *boxState) equal(o *boxState) bool {
	return s.next == o.next && s.modSeq == o.modSeq && s.closed == o.closed && slices.Equal(s.msgs, o.msgs)
}

func (s *boxState) append(in *operation, out *outcome) bool {
	count := len(out.uids)
	if out.unknown {
		count = 1
	}
	for i := range count {
		m := message{uid: s.next, modSeq: out.modSeq, on: in.mask, off: allFlags &^ in.mask}
		if in.copied {
			m.on, m.off = 0, 0
		}
		if in.sources != nil {
			m.source = in.sources[i]
			if at := slices.IndexFunc(s.msgs, func(x message) bool { return x.source == m.source }); at >= 0 {
				// It is here already: moving it again makes no second one.
				if !out.unknown && out.uids[i] != s.msgs[at].uid {
					return false
				}
				continue
			}
		}
		if !out.unknown && out.uids[i] != 0 && out.uids[i] != m.uid {
			return false
		}
		s.msgs = append(s.msgs, m)
		s.next++
	}
	return true
}

func (s *boxState) flags(in *operation, out *outcome) bool {
	for _, u := range in.uids {
		at, ok := s.find(u)
		changed, failed := slices.Contains(out.uids, u), slices.Contains(out.failed, u)
		if !ok {
			if changed || failed {
				return false
			}
			continue
		}
		m := &s.msgs[at]
		on, off := m.on, m.off
		switch in.sign {
		case "+":
			on, off = on|in.mask, off&^in.mask
		case "-":
			on, off = on&^in.mask, off|in.mask
		case "=":
			on, off = in.mask, allFlags&^in.mask
		}
		if out.unknown {
			if in.guarded {
				// Changed or not: nothing is known of these bits any more.
				m.on, m.off, m.modSeq = m.on&on, m.off&off, 0
			} else if on != m.on || off != m.off {
				m.on, m.off, m.modSeq = on, off, 0
			}
			continue
		}
		if in.guarded && m.modSeq != 0 && failed != (m.modSeq > in.since) {
			return false
		}
		if failed {
			if changed || !in.guarded {
				return false
			}
			continue
		}
		// It differs for certain if a bit that was known has turned over, and is the same if all were known and none has.
		differs := m.on&off != 0 || m.off&on != 0
		if differs && !changed || changed && on == m.on && off == m.off {
			return false
		}
		m.on, m.off = on, off
		if changed {
			m.modSeq = out.modSeq
		}
	}
	return true
}

// read holds the mailbox against what somebody saw, and takes over what was not known.
func (s *boxState) read(seen *boxState) bool {
	if seen.next != s.next || seen.modSeq < s.modSeq || len(seen.msgs) != len(s.msgs) {
		return false
	}
	s.modSeq = seen.modSeq
	for i := range s.msgs {
		m, x := &s.msgs[i], seen.msgs[i]
		if x.uid != m.uid || m.modSeq != 0 && x.modSeq != m.modSeq || x.modSeq > seen.modSeq || m.on&^x.on != 0 || m.off&x.on != 0 {
			return false
		}
		m.modSeq, m.on, m.off = x.modSeq, x.on, allFlags&^x.on
	}
	return true
}

func (s *boxState) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "UIDNEXT %d MODSEQ %d", s.next, s.modSeq)
	if s.closed {
		b.WriteString(" deleted")
	}
	for _, m := range s.msgs {
		fmt.Fprintf(&b, " %d/%d/%x", m.uid, m.modSeq, m.on)
	}
	return b.String()
}

// entries are an account's list of mailboxes, sorted by name.
type entries []entry

type entry struct{ name, id string } // id is empty when not known

type listState struct {
	entries
	placed int
}

func (s entries) index(name string) int {
	return slices.IndexFunc(s, func(e entry) bool { return e.name == name })
}

func (s listState) step(in *operation, out *outcome) (bool, listState) {
	if out.unknown {
		if s.placed == in.told {
			return true, s
		}
		ok, n := s.change(in, out)
		return ok && !slices.Equal(s.entries, n), listState{n, s.placed}
	}
	ok, n := s.change(in, out)
	return ok, listState{n, s.placed + 1}
}

func (s entries) change(in *operation, out *outcome) (bool, entries) {
	at, to := s.index(in.name), s.index(in.to)
	switch {
	case out.exists:
		return in.kind == opCreate && at >= 0 || in.kind == opRename && at >= 0 && to >= 0, s
	case out.missing:
		return at < 0, s
	}
	n := slices.Clone(s)
	switch in.kind {
	case opCreate:
		if at >= 0 {
			return out.unknown, s
		}
		n = append(n, entry{in.name, out.id})
	case opRename:
		if at < 0 || to >= 0 {
			return out.unknown, s
		}
		n[at].name = in.to
	case opDelete:
		if at < 0 {
			return out.unknown, s
		}
		n = slices.Delete(n, at, at+1)
	case opList:
		if len(out.list) != len(s) {
			return false, nil
		}
		for i, e := range out.list {
			if e.name != s[i].name || s[i].id != "" && e.id != s[i].id {
				return false, nil
			}
		}
		return true, out.list
	}
	n.sort()
	return true, n
}

func (s entries) sort() {
	slices.SortFunc(s, func(a, b entry) int { return strings.Compare(a.name, b.name) })
}

// boxModel and listModel are the models as porcupine takes them.
var boxModel = porcupine.Model{
	Init: func() any { return &boxState{next: 1} },
	Step: func(s, in, out any) (bool, any) {
		ok, n := s.(*boxState).step(in.(*operation), out.(*outcome))
		return ok, n
	},
	Equal: func(a, b any) bool {
		return a.(*boxState).equal(b.(*boxState))
	},
	Hash: func(a any) uint64 {
		s := a.(*boxState)
		return (uint64(s.next)<<20 ^ s.modSeq<<40 ^ uint64(len(s.msgs))) * 0x9e3779b97f4a7c15
	},
}

func listModel(start entries) porcupine.Model {
	return porcupine.Model{
		Init: func() any { return listState{entries: start} },
		Step: func(s, in, out any) (bool, any) {
			ok, n := s.(listState).step(in.(*operation), out.(*outcome))
			return ok, n
		},
		Equal: func(a, b any) bool { return slices.Equal(a.(listState).entries, b.(listState).entries) },
	}
}

func (o *operation) String() string {
	switch o.kind {
	case opFlags:
		return fmt.Sprintf("%s: flags %s%x of %v since %d (%v)", o.who, o.sign, o.mask, o.uids, o.since, o.guarded)
	case opCreate, opRename, opDelete, opList:
		return fmt.Sprintf("%s: %s %s %s", o.who, o.kind, o.name, o.to)
	}
	return fmt.Sprintf("%s: %s %v %v", o.who, o.kind, o.uids, o.sources)
}

func (o *outcome) String() string {
	switch {
	case o.unknown:
		return "no answer"
	case o.closed:
		return "mailbox deleted"
	case o.missing:
		return "no such mailbox"
	case o.exists:
		return "exists"
	case o.state != nil:
		return o.state.String()
	case o.list != nil:
		return fmt.Sprint(o.list)
	}
	return fmt.Sprintf("%v failed %v MODSEQ %d %s", o.uids, o.failed, o.modSeq, o.id)
}
