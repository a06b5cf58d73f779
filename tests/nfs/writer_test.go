package nfs

import (
	"fmt"
	"math/rand/v2"
	"slices"

	"shoal/daemons/nfsguest/proto"
)

// A writer asks one guest for one thing after the other.
type writer struct {
	*history
	k    *kernel
	name string
	id   int
	rng  *rand.Rand
	seen map[string]*boxState // what it last saw of mailboxes
	n    int
}

func (w *writer) step() {
	box := w.pick()
	s := w.seen[box]
	switch n := w.rng.IntN(100); {
	case n < 2:
		w.ask(w.k, w.name, w.id, proto.Do{Kind: "maintain"})
	case n < 10:
		w.listOp()
	case n < 35 || s == nil:
		w.read(box)
	case n < 60 && len(s.msgs) < 40:
		w.append(box)
	case n < 72:
		w.flags(box, s)
	case n < 78:
		w.copy(box, s, false)
	case n < 86:
		w.copy(box, s, true)
	case n < 90:
		w.content(box, s)
	default:
		w.remove(box, s)
	}
}

// pick chooses a mailbox: mostly one that stays, sometimes one that may go at any moment, or has gone.
func (w *writer) pick() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	switch n := w.rng.IntN(20); {
	case n < 4 && len(w.churn) > 0:
		i := w.rng.IntN(len(w.churn))
		for _, id := range w.churn {
			if i--; i < 0 {
				return id
			}
		}
	case n == 4 && len(w.gone) > 0:
		return w.gone[len(w.gone)-1-w.rng.IntN(min(3, len(w.gone)))]
	}
	return w.fixed[w.rng.IntN(len(w.fixed))]
}

// some picks up to n messages that the writer has seen, and sometimes one that it has not.
func (w *writer) some(s *boxState, n int) []uint32 {
	set := map[uint32]bool{}
	for range 1 + w.rng.IntN(n) {
		if len(s.msgs) > 0 {
			set[s.msgs[w.rng.IntN(len(s.msgs))].uid] = true
		}
	}
	if w.rng.IntN(10) == 0 {
		set[s.next] = true
	}
	var out []uint32
	for u := range set {
		out = append(out, u)
	}
	slices.Sort(out)
	return out
}

func (w *writer) mask() uint32 {
	one, other := w.rng.IntN(21), w.rng.IntN(21)
	return 1<<one | 1<<other
}

func (w *writer) read(box string) {
	a := w.ask(w.k, w.name, w.id, proto.Do{Kind: "read", Box: box})
	w.saw(box, a)
}

// saw notes a state that was read.
func (w *writer) saw(box string, a *asked) {
	switch {
	case a.lost || a.no || a.Missing:
		return
	case a.Closed:
		a.note(box, operation{kind: opRead}, outcome{closed: true})
		return
	}
	s := stateOf(a.Done)
	w.seen[box] = s
	w.mu.Lock()
	if old, ok := w.valid[box]; ok && old != a.UIDValidity {
		w.wrong = append(w.wrong, fmt.Sprintf("%s: UIDVALIDITY of %s is %d, was %d", w.name, box, a.UIDValidity, old))
	}
	w.valid[box] = a.UIDValidity
	w.mu.Unlock()
	a.note(box, operation{kind: opRead}, outcome{state: s})
}

func stateOf(d proto.Done) *boxState {
	s := &boxState{next: d.UIDNext, modSeq: d.ModSeq}
	for _, m := range d.Messages {
		s.msgs = append(s.msgs, message{uid: m.UID, modSeq: m.ModSeq, on: m.Flags})
	}
	return s
}

func (w *writer) append(box string) {
	w.n++
	token, mask := fmt.Sprintf("%s.%d.%d", w.name, w.total, w.n), uint32(0)
	if w.rng.IntN(2) == 0 {
		mask = w.mask()
	}
	size := 100 + w.rng.IntN(6000)
	if w.rng.IntN(100) == 0 {
		size = large
	}
	w.put(box, token, mask, size)
}

// large is the size of a message that is staged in a file, and linked.
const large = 400 << 10

func (w *writer) put(box, token string, mask uint32, size int) *asked {
	a := w.ask(w.k, w.name, w.id, proto.Do{Kind: "append", Box: box, Token: token, Size: size, Mask: mask})
	if a.Missing {
		return a
	}
	a.note(box, operation{kind: opAppend, mask: mask}, a.outcome())
	if len(a.UIDs) > 0 {
		w.says(box, a.UIDs[0], token)
	}
	return a
}

// says notes what a message says, and that it can say nothing else.
func (h *history) says(box string, uid uint32, token string) {
	if uid == 0 || token == "" {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	key := fmt.Sprint(box, " ", uid)
	if old := h.tokens[key]; old != "" && old != token {
		h.wrong = append(h.wrong, fmt.Sprintf("%s was given to %s and to %s", key, old, token))
	}
	h.tokens[key] = token
}

func (h *history) token(box string, uid uint32) string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.tokens[fmt.Sprint(box, " ", uid)]
}

// outcome of a question about one mailbox.
func (a *asked) outcome() outcome {
	switch {
	case a.lost:
		return outcome{unknown: true}
	case a.Closed:
		return outcome{closed: true}
	}
	return outcome{uids: a.UIDs, failed: a.Failed, modSeq: a.ModSeq}
}

func (w *writer) flags(box string, s *boxState) {
	uids := w.some(s, 4)
	if len(uids) == 0 {
		return
	}
	in := operation{kind: opFlags, uids: uids, mask: w.mask(), sign: string("+-="[w.rng.IntN(3)])}
	if w.rng.IntN(4) == 0 {
		in.guarded, in.since = true, s.modSeq
	}
	a := w.ask(w.k, w.name, w.id, proto.Do{Kind: "flags", Box: box, UIDs: uids, Mask: in.mask, Sign: in.sign, Since: in.since, Guarded: in.guarded})
	if !a.Missing {
		a.note(box, in, a.outcome())
	}
}

func (w *writer) remove(box string, s *boxState) {
	uids := w.some(s, 4)
	if len(uids) == 0 {
		return
	}
	a := w.ask(w.k, w.name, w.id, proto.Do{Kind: "expunge", Box: box, UIDs: uids})
	if !a.Missing {
		a.note(box, operation{kind: opRemove, uids: uids}, a.outcome())
	}
}

func (w *writer) copy(box string, s *boxState, move bool) {
	if to := w.pick(); to != box {
		w.copyTo(box, to, s, move)
	}
}

func (w *writer) copyTo(box, to string, s *boxState, move bool) {
	uids := w.some(s, 3)
	if len(uids) == 0 {
		return
	}
	kind := "copy"
	if move {
		kind = "move"
	}
	a := w.ask(w.k, w.name, w.id, proto.Do{Kind: kind, Box: box, To: to, UIDs: uids})
	if a.Missing || (a.Closed || a.no) && len(a.Dest) == 0 {
		return // nothing has happened: one of the two is gone (which, is not said), or there is no room
	}
	if a.lost && len(a.Dest) == 0 {
		for _, u := range uids { // any of them may have come over
			in := operation{kind: opAppend, copied: true}
			if move {
				in.sources = []string{fmt.Sprint(box, " ", u)}
			}
			a.note(to, in, outcome{unknown: true})
		}
		if move {
			a.note(box, operation{kind: opRemove, uids: uids}, outcome{unknown: true})
		}
		return
	}
	a.note(box, operation{kind: opHas, uids: uids}, outcome{uids: a.UIDs})
	if len(a.UIDs) == 0 || len(a.Dest) == 0 {
		return
	}
	in := operation{kind: opAppend, copied: true}
	for i, u := range a.UIDs {
		if move {
			in.sources = append(in.sources, fmt.Sprint(box, " ", u))
		}
		w.says(to, a.Dest[i], w.token(box, u))
	}
	a.note(to, in, outcome{uids: a.Dest})
	if move { // they came over; whether they have gone here too, an error leaves open
		out := a.outcome()
		out.uids = nil
		a.note(box, operation{kind: opRemove, uids: a.UIDs, loose: true}, out)
	}
}

// content reads a message: a UID says the same for ever.
func (w *writer) content(box string, s *boxState) {
	if len(s.msgs) == 0 {
		return
	}
	uid := s.msgs[w.rng.IntN(len(s.msgs))].uid
	a := w.ask(w.k, w.name, w.id, proto.Do{Kind: "content", Box: box, UIDs: []uint32{uid}})
	if a.Token == "" || a.lost || a.no {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	key := fmt.Sprint(box, " ", uid)
	if !slices.Contains(w.check[key], a.Token) {
		w.check[key] = append(w.check[key], a.Token)
	}
}

// listOp changes or reads the list of mailboxes. Names of the pool are fought over; mailboxes that hold mail have names of their own,
// so that it is known which of them was deleted.
func (w *writer) listOp() {
	pool := func() string { return fmt.Sprintf("pool%d", w.rng.IntN(4)) }
	switch n := w.rng.IntN(10); {
	case n < 3:
		w.list()
	case n == 3:
		w.create(pool(), false)
	case n == 4:
		from, to := pool(), pool()
		if from != to {
			a := w.ask(w.k, w.name, w.id, proto.Do{Kind: "rename", Box: from, To: to})
			a.note(listed, operation{kind: opRename, name: from, to: to}, a.inList())
		}
	case n == 5:
		w.delete(pool(), "")
	case n == 6:
		w.mu.Lock()
		w.names++
		name, many := fmt.Sprintf("churn%d", w.names), len(w.churn) >= 4
		w.mu.Unlock()
		if !many {
			w.create(name, true)
		}
	default:
		w.mu.Lock()
		var name, id string
		for name, id = range w.churn {
			break
		}
		w.names++
		to := fmt.Sprintf("churn%d", w.names)
		if n == 7 && name != "" {
			delete(w.churn, name)
			w.gone = append(w.gone, id)
		}
		w.mu.Unlock()
		switch {
		case name == "":
		case n == 7:
			w.delete(name, id)
		default:
			a := w.ask(w.k, w.name, w.id, proto.Do{Kind: "rename", Box: name, To: to})
			a.note(listed, operation{kind: opRename, name: name, to: to}, a.inList())
			w.mu.Lock()
			if _, still := w.churn[name]; still && !a.lost && !a.no && !a.Missing && !a.Exists {
				delete(w.churn, name)
				w.churn[to] = id
			}
			w.mu.Unlock()
		}
	}
}

// inList is the outcome of a question about the list.
func (a *asked) inList() outcome {
	if a.lost {
		return outcome{unknown: true}
	}
	return outcome{missing: a.Missing, exists: a.Exists, id: a.ID}
}

func (w *writer) create(name string, churn bool) {
	a := w.ask(w.k, w.name, w.id, proto.Do{Kind: "create", Box: name})
	a.note(listed, operation{kind: opCreate, name: name}, a.inList())
	if a.lost || a.no || a.Exists {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	for id, v := range w.valid {
		if v == a.UIDValidity {
			w.wrong = append(w.wrong, fmt.Sprintf("%s: %s has the UIDVALIDITY %d of %s", w.name, a.ID, v, id))
		}
	}
	w.valid[a.ID] = a.UIDValidity
	if churn {
		w.churn[name] = a.ID
	}
}

// delete deletes by name; id is that of the mailbox if it is certain.
func (w *writer) delete(name, id string) {
	a := w.ask(w.k, w.name, w.id, proto.Do{Kind: "delete", Box: name})
	a.note(listed, operation{kind: opDelete, name: name}, a.inList())
	if id != "" && !a.Missing && !a.no {
		a.note(id, operation{kind: opClose}, outcome{unknown: a.lost})
	}
}

func (w *writer) list() {
	a := w.ask(w.k, w.name, w.id, proto.Do{Kind: "list"})
	if a.lost || a.no {
		return
	}
	var all entries
	for _, b := range a.Boxes {
		all = append(all, entry{b.Name, b.ID})
	}
	all.sort()
	a.note(listed, operation{kind: opList}, outcome{list: all})
}
