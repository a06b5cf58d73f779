package message

import (
	"cmp"
	"context"
	"hash/maphash"
	"slices"
)

// Threader puts messages into threads (RFC 5256 §3): by their base subjects, or by their references. What it keeps
// of a message is a fixed number of bytes, and one node for each message identifier: identifiers and subjects are
// kept as hashes of 128 bits whose keys nobody outside knows, so that no sender can make two of them meet.
//
// Add comes first, for each message in the order of its number; then one of the algorithms, once; then Walk.
//
// Work and memory are bounded whatever senders write: identifiers that are too many, and links for which a search for
// loops would take too long, are passed over as if they were not there. No mail that people write comes near that.
type Threader struct {
	most  int // nodes for identifiers
	steps int // that may still be taken in search of loops
	seeds [2]maphash.Seed
	msgs  []threadMessage
	nodes []threadNode
	ids   map[threadHash]int32
	first int32 // of the roots
}

type threadHash [2]uint64

type threadMessage struct {
	date    int64
	subject threadHash // zero: the base subject is empty
	number  uint32
	reply   bool
}

// threadNode is a message, or something that is referred to and is not there. Links are indexes into nodes. While
// messages are added, child only says whether there was one ever.
type threadNode struct {
	parent, child, next int32
	msg                 int32 // index into msgs, or none
}

const none = -1

// loopSteps bounds the search for loops, over all messages.
const loopSteps = 1 << 26

// NewThreader makes a Threader that keeps at most so many identifiers.
func NewThreader(most int) *Threader {
	return &Threader{most: most, steps: loopSteps, seeds: [2]maphash.Seed{maphash.MakeSeed(), maphash.MakeSeed()}, ids: map[threadHash]int32{}, first: none}
}

func (t *Threader) hash(s string) threadHash {
	return threadHash{maphash.String(t.seeds[0], s), maphash.String(t.seeds[1], s) | 1} // never zero
}

// Add adds a message with its sent date in Unix seconds. e may be nil: nothing is known of it. With references its
// identifiers are noted too: step 1 of REFERENCES.
func (t *Threader) Add(number uint32, date int64, e *Envelope, references bool) {
	m := threadMessage{number: number, date: date}
	if e != nil {
		var base string
		if base, m.reply = BaseSubject(e.Subject.Value); base != "" {
			m.subject = t.hash(Casemap(base))
		}
	}
	at := int32(len(t.msgs))
	t.msgs = append(t.msgs, m)
	if !references {
		return
	}
	var own, refs []string
	if e != nil {
		own = MessageIDs(e.MessageID.Value)
		if refs = MessageIDs(e.References.Value); len(refs) == 0 {
			refs = MessageIDs(e.InReplyTo.Value)
			refs = refs[:min(len(refs), 1)]
		}
	}
	n := int32(none)
	if len(own) > 0 {
		if n = t.node(own[0]); n != none && t.nodes[n].msg != none {
			n = none // this identifier was another message's first
		}
	}
	if n == none {
		n = t.add()
	}
	t.nodes[n].msg = at
	// (A) what it refers to is a chain, as far as that is not known otherwise.
	last := int32(none)
	for _, id := range refs {
		ref := t.node(id)
		if ref == none {
			continue
		}
		if last != none && t.nodes[ref].parent == none && !t.below(last, ref) {
			t.nodes[ref].parent, t.nodes[last].child = last, ref
		}
		last = ref
	}
	// (B) its own parent is the last of them: what others said about that counts less.
	t.nodes[n].parent = none
	if last != none && !t.below(last, n) {
		t.nodes[n].parent, t.nodes[last].child = last, n
	}
}

func (t *Threader) add() int32 {
	t.nodes = append(t.nodes, threadNode{none, none, none, none})
	return int32(len(t.nodes) - 1)
}

// node is the node of an identifier, or none when there are too many.
func (t *Threader) node(id string) int32 {
	h := t.hash(id)
	n, ok := t.ids[h]
	if !ok {
		if len(t.ids) == t.most {
			return none
		}
		n = t.add()
		t.ids[h] = n
	}
	return n
}

// below says whether n is top or lies below it, so that top cannot become a child of n; or that this is too long to
// find out.
func (t *Threader) below(n, top int32) bool {
	if n != top && t.nodes[top].child == none {
		return false
	}
	for ; n != none; n = t.nodes[n].parent {
		if t.steps--; n == top || t.steps < 0 {
			return true
		}
	}
	return false
}

// link makes n the first child of parent, which it is not yet.
func (t *Threader) link(parent, n int32) {
	t.nodes[n].parent = parent
	t.nodes[n].next, t.nodes[parent].child = t.nodes[parent].child, n
}

// earlier orders messages by sent date, then number.
func (t *Threader) earlier(a, b int32) int {
	x, y := &t.msgs[a], &t.msgs[b]
	if x.date != y.date {
		return cmp.Compare(x.date, y.date)
	}
	return cmp.Compare(x.number, y.number)
}

// OrderedSubject makes threads of messages with the same base subject: the first by date is the parent of the others.
func (t *Threader) OrderedSubject() {
	order := make([]int32, len(t.msgs))
	for i := range order {
		order[i] = int32(i)
	}
	slices.SortFunc(order, t.earlier)
	t.nodes, t.ids = nil, nil
	bySubject := map[threadHash]int32{}
	var roots []int32
	last := map[int32]int32{} // child of a root
	for _, i := range order {
		n := t.add()
		t.nodes[n].msg = i
		root, ok := bySubject[t.msgs[i].subject]
		if !ok {
			bySubject[t.msgs[i].subject] = n
			roots = append(roots, n)
			continue
		}
		t.nodes[n].parent = root
		if before, ok := last[root]; ok {
			t.nodes[before].next = n
		} else {
			t.nodes[root].child = n
		}
		last[root] = n
	}
	t.first = t.chain(roots)
}

// chain makes siblings a list in this order, and gives the first of it.
func (t *Threader) chain(list []int32) int32 {
	first := int32(none)
	for i := len(list) - 1; i >= 0; i-- {
		t.nodes[list[i]].next, first = first, list[i]
	}
	return first
}

// References makes threads as REFERENCES does, of messages that were added with their references; the numbers are
// the steps of the standard. The error is the context's.
func (t *Threader) References(ctx context.Context) error {
	t.ids = nil
	roots := t.prune() // (2), (3)
	if err := ctx.Err(); err != nil {
		return err
	}
	t.sortSiblings(roots) // (4)
	roots = t.gather(roots)
	if err := ctx.Err(); err != nil {
		return err
	}
	for n := range t.nodes { // (6)
		if t.nodes[n].msg != none && t.nodes[n].child != none {
			t.sortChildren(int32(n))
		}
	}
	t.sortSiblings(roots)
	t.first = t.chain(roots)
	return nil
}

// prune is step 3: nodes without message go, their children rise, but not to the top unless there is just one.
func (t *Threader) prune() (roots []int32) {
	// The parent that is left for a node: its nearest ancestor that is a message, else the uppermost one.
	for n := range t.nodes {
		if t.nodes[n].msg == none {
			continue
		}
		p := t.nodes[n].parent
		for p != none && t.nodes[p].msg == none && t.nodes[p].parent != none {
			up := t.nodes[p].parent
			if t.nodes[up].msg == none && t.nodes[up].parent != none {
				t.nodes[p].parent = t.nodes[up].parent // shorter for the next one that comes this way
			}
			p = up
		}
		t.nodes[n].parent = p
	}
	for n := range t.nodes {
		t.nodes[n].child, t.nodes[n].next = none, none
	}
	for n := range t.nodes {
		if p := t.nodes[n].parent; t.nodes[n].msg != none && p != none {
			t.link(p, int32(n))
		}
	}
	for n := range t.nodes {
		at := &t.nodes[n]
		if at.msg == none && at.child != none && t.nodes[at.child].next == none {
			t.nodes[at.child].parent, at.child = none, none
		}
	}
	for n := range t.nodes {
		at := &t.nodes[n]
		if at.parent != none || at.msg == none && at.child == none {
			continue
		}
		if at.msg == none {
			t.sortChildren(int32(n))
		}
		roots = append(roots, int32(n))
	}
	return roots
}

// face is the message that a node is sorted by: its own, or that of its first child.
func (t *Threader) face(n int32) int32 {
	if t.nodes[n].msg == none {
		n = t.nodes[n].child
	}
	return t.nodes[n].msg
}

func (t *Threader) sortSiblings(list []int32) {
	slices.SortFunc(list, func(a, b int32) int { return t.earlier(t.face(a), t.face(b)) })
}

func (t *Threader) sortChildren(n int32) {
	first := t.nodes[n].child
	if first == none || t.nodes[first].next == none {
		return
	}
	var list []int32
	for c := first; c != none; c = t.nodes[c].next {
		list = append(list, c)
	}
	t.sortSiblings(list)
	t.nodes[n].child = t.chain(list)
}

// gather is step 5: threads with the same base subject are put together. It returns the roots that are left, and
// leaves the children of those without a message sorted. Such children are messages always.
func (t *Threader) gather(roots []int32) []int32 {
	subjects := make([]threadHash, len(roots)) // (A), before anything moves
	table := map[threadHash]int32{}
	for i, n := range roots { // (B)
		subjects[i] = t.msgs[t.face(n)].subject
		if subjects[i] == (threadHash{}) {
			continue
		}
		old, ok := table[subjects[i]]
		if !ok || t.nodes[old].msg != none && (t.nodes[n].msg == none || t.reply(old) && !t.reply(n)) {
			table[subjects[i]] = n
		}
	}
	var left []int32
	for i, n := range roots { // (C)
		to, ok := table[subjects[i]]
		switch {
		case t.nodes[n].parent != none: // merged as what stood in the table
		case !ok || to == n:
			left = append(left, n)
		case t.nodes[to].msg == none && t.nodes[n].msg == none:
			for c := t.nodes[n].child; c != none; {
				next := t.nodes[c].next
				t.link(to, c)
				c = next
			}
			t.nodes[n].child = none
		case t.nodes[to].msg == none || t.reply(n) && !t.reply(to):
			t.link(to, n)
		default:
			d := t.add()
			t.link(d, n)
			t.link(d, to)
			table[subjects[i]] = d
			left = append(left, d)
		}
	}
	left = slices.DeleteFunc(left, func(n int32) bool { return t.nodes[n].parent != none })
	for _, n := range left {
		if t.nodes[n].msg == none {
			t.sortChildren(n)
		}
	}
	return left
}

// reply says whether the subject of a message is that of a reply or a forward.
func (t *Threader) reply(n int32) bool { return t.msgs[t.face(n)].reply }

// ThreadStep is what Walk comes by.
type ThreadStep uint8

// A thread in the notation of IMAP is made of these.
const (
	ThreadOpen   ThreadStep = iota // a list begins
	ThreadNumber                   // a message
	ThreadClose                    // a list ends
)

// Walk calls f for the notation of all threads: a list for each root; a message is followed by its only child, or by
// a list for each of its children (RFC 5256 §4 BASE.7.2.THREAD). It needs no memory for depth. It ends when f returns false.
func (t *Threader) Walk(f func(step ThreadStep, number uint32) bool) {
	n := t.first
	if n == none || !f(ThreadOpen, 0) {
		return
	}
	for {
		at := &t.nodes[n]
		if at.msg != none && !f(ThreadNumber, t.msgs[at.msg].number) {
			return
		}
		if c := at.child; c != none {
			if n = c; t.listed(c) && !f(ThreadOpen, 0) {
				return
			}
			continue
		}
		for { // up, to where there is a sibling
			if t.listed(n) && !f(ThreadClose, 0) {
				return
			}
			if next := t.nodes[n].next; next != none {
				if n = next; !f(ThreadOpen, 0) {
					return
				}
				break
			}
			if n = t.nodes[n].parent; n == none {
				return
			}
		}
	}
}

// listed says whether a node has a list of its own.
func (t *Threader) listed(n int32) bool {
	p := t.nodes[n].parent
	if p == none {
		return true
	}
	first := t.nodes[p].child
	return first != n || t.nodes[n].next != none
}
