package nfs

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/anishathalye/porcupine"

	"shoal/daemons/nfsguest/proto"
)

// A history is what clients asked of one account and what they were answered, with times of one clock, this program's. Writers
// in this program ask the guests, several at each; each waits for its answer before it asks for more.
type history struct {
	r       *rig
	account string
	began   time.Time

	mu    sync.Mutex
	parts map[string][]porcupine.Operation // by mailbox id; the account's list under ""
	start entries
	done  int // operations begun
	told  int // operations answered
	moved *sync.Cond
	total int

	fixed   []string            // ids of mailboxes that stay
	churn   map[string]string   // name of mailboxes that come and go: id. No name is ever used again
	gone    []string            // ids of mailboxes that somebody has deleted, or tried to
	names   int                 // to make names
	tokens  map[string]string   // what a message says: by id of its mailbox and UID
	check   map[string][]string // what messages were found to say
	valid   map[string]uint32   // UIDVALIDITY by mailbox id
	wrong   []string
	unknown map[string]int // operations without an answer, by the reason
	refused map[string]int // operations that were refused, by kind and reason
}

// listed is the partition of the account's list.
const listed = ""

func newHistory(r *rig, account string, boxes int) *history {
	r.t.Helper()
	h := &history{
		r: r, account: account, began: time.Now(), parts: map[string][]porcupine.Operation{}, churn: map[string]string{},
		tokens: map[string]string{}, check: map[string][]string{}, valid: map[string]uint32{}, unknown: map[string]int{}, refused: map[string]int{},
	}
	h.moved = sync.NewCond(&h.mu)
	k := r.clients[0]
	for i := range boxes {
		d := call[proto.Done](k, "Do", proto.Do{Kind: "create", Account: account, Box: fmt.Sprintf("Fixed%d", i)})
		if d.Err != "" {
			r.t.Fatal(d.Err)
		}
	}
	for _, b := range call[proto.Done](k, "Do", proto.Do{Kind: "list", Account: account}).Boxes {
		h.start = append(h.start, entry{b.Name, b.ID})
		h.fixed = append(h.fixed, b.ID)
		h.valid[b.ID] = b.UIDValidity
	}
	h.start.sort()
	return h
}

func (h *history) say(format string, args ...any) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.wrong) < 20 {
		h.wrong = append(h.wrong, fmt.Sprintf(format, args...))
	}
}

// asked is one question to a guest under way.
type asked struct {
	h    *history
	who  string
	id   int
	call int64
	back int64
	proto.Done
	lost bool // no answer, or an answer that says nothing
	no   bool // refused: nothing has happened
}

// ask asks a guest and waits.
func (h *history) ask(k *kernel, who string, id int, d proto.Do) *asked {
	d.Account = h.account
	a := &asked{h: h, who: who, id: id, call: int64(time.Since(h.began))}
	var err error
	a.Done, err = try[proto.Done](k, "Do", d)
	a.back = int64(time.Since(h.began))
	h.mu.Lock()
	defer h.mu.Unlock()
	if err != nil && !errors.Is(err, errDied) && len(h.wrong) < 20 {
		h.r.t.Logf("%s: %s: %v", who, d.Kind, err)
		h.wrong = append(h.wrong, fmt.Sprintf("%s: %s: %.200v", who, d.Kind, err))
	}
	if a.Corrupt && len(h.wrong) < 20 {
		h.wrong = append(h.wrong, fmt.Sprintf("%s: %s: %s", who, d.Kind, a.Err))
	}
	a.no = (a.NoSpace || a.ReadOnly) && !strings.Contains(a.Err, "outcome unknown")
	a.lost = err != nil || a.Err != "" && !a.Closed && !a.Missing && !a.Exists && !a.no
	switch {
	case a.no:
		h.refused[d.Kind+": "+reason(nil, a.Err)]++
	case a.lost:
		h.unknown[reason(err, a.Err)]++
	default:
		h.told++
	}
	h.moved.Broadcast()
	return a
}

// reason is an error without what differs from one to the next.
func reason(err error, said string) string {
	if err != nil {
		return "the client was killed"
	}
	if i := strings.LastIndex(said, ": "); i >= 0 {
		said = said[i+2:]
	}
	return said
}

// note adds an operation to a partition. What was refused has not happened, and is not part of the history: if it has happened
// all the same, what comes later cannot be explained.
func (a *asked) note(part string, in operation, out outcome) {
	if a.no && !out.unknown && len(out.uids) == 0 {
		return
	}
	in.who = a.who
	o := porcupine.Operation{ClientId: a.id, Input: &in, Output: &out, Call: a.call, Return: a.back}
	if out.unknown {
		o.Return = math.MaxInt64
	}
	a.h.mu.Lock()
	defer a.h.mu.Unlock()
	a.h.parts[part] = append(a.h.parts[part], o)
}

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

// writers runs n operations by several writers at each client; at says what happens to the rig meanwhile.
func (h *history) writers(n, each int, seed uint64, faults ...fault) {
	h.r.t.Helper()
	h.mu.Lock()
	h.total = h.done + n
	first := h.told
	h.mu.Unlock()
	var all sync.WaitGroup
	for i := range h.r.clients {
		for j := range each {
			all.Go(h.writer(i, i*each+j, seed).run)
		}
	}
	over := make(chan struct{})
	go func() { all.Wait(); h.moved.Broadcast(); close(over) }()
	for _, f := range faults {
		if !h.reached(first+int(f.at*float64(n)), over) {
			break
		}
		h.mu.Lock()
		before := h.told
		h.mu.Unlock()
		f.do()
		h.mu.Lock()
		h.r.t.Logf("%s: %d operations acknowledged before, %d when it was over", f.what, before-first, h.told-first)
		h.mu.Unlock()
	}
	<-over
}

// A fault is what happens to the rig once a share of the operations has been answered.
type fault struct {
	at   float64
	what string
	do   func()
}

// reached waits until so many operations have been answered, and says whether they were.
func (h *history) reached(n int, over <-chan struct{}) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	for h.told < n {
		select {
		case <-over:
			return false
		default:
		}
		h.moved.Wait()
	}
	return true
}

// writer makes a writer that asks client i.
func (h *history) writer(i, id int, seed uint64) *writer {
	k := h.r.clients[i]
	return &writer{
		history: h, k: k, name: fmt.Sprintf("%s.%d", k.name, id), id: id, rng: rand.New(rand.NewPCG(seed, uint64(id))), seen: map[string]*boxState{},
	}
}

func (w *writer) run() {
	for {
		w.mu.Lock()
		more := w.done < w.total && len(w.wrong) < 20
		w.done++
		w.mu.Unlock()
		if !more {
			return
		}
		if w.k.dead() { // until it has been booted again
			<-time.After(50 * time.Millisecond)
			w.mu.Lock()
			w.done--
			w.mu.Unlock()
			continue
		}
		w.step()
	}
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

func (w *writer) put(box, token string, mask uint32, size int) {
	a := w.ask(w.k, w.name, w.id, proto.Do{Kind: "append", Box: box, Token: token, Size: size, Mask: mask})
	if a.Missing {
		return
	}
	a.note(box, operation{kind: opAppend, mask: mask}, a.outcome())
	if len(a.UIDs) > 0 {
		w.says(box, a.UIDs[0], token)
	}
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

// settle reads everything from every client, warm and with nothing cached, as further operations of the history.
func (h *history) settle() {
	h.r.t.Helper()
	h.mu.Lock()
	boxes := slices.Clone(h.fixed)
	for _, id := range h.churn {
		boxes = append(boxes, id)
	}
	h.mu.Unlock()
	for i, k := range h.r.clients {
		w := &writer{history: h, k: k, name: k.name + ".end", id: 100 + i, seen: map[string]*boxState{}}
		w.list()
		for _, box := range boxes {
			for _, fresh := range []bool{false, true} {
				a := w.ask(k, w.name, w.id, proto.Do{Kind: "read", Box: box, Fresh: fresh})
				if a.lost {
					h.say("%s: read of %s in the end: %s", k.name, box, a.Err)
				}
				w.saw(box, a)
			}
			if s := w.seen[box]; i == 0 && s != nil {
				for _, m := range s.msgs {
					a := w.ask(k, w.name, w.id, proto.Do{Kind: "content", Box: box, UIDs: []uint32{m.uid}})
					h.mu.Lock()
					key := fmt.Sprint(box, " ", m.uid)
					h.check[key] = append(h.check[key], cmp.Or(a.Token, "nothing"))
					h.mu.Unlock()
				}
			}
		}
	}
}

// noOrder is what a verdict says of a history that is not linearizable.
const noOrder = "no order explains"

// checkTime bounds the search for an order that explains a history.
const checkTime = 3 * time.Minute

// verdict holds the history against the models. It returns what is wrong.
func (h *history) verdict() []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	wrong := slices.Clone(h.wrong)
	for key, texts := range h.check {
		want := h.tokens[key]
		for _, got := range texts {
			if want == "" {
				want = got // it was never acknowledged; but it must say the same always
			}
			if got != want {
				wrong = append(wrong, fmt.Sprintf("%s says %q, should say %q", key, got, want))
			}
		}
	}
	for part, ops := range h.parts {
		told := 0
		for _, o := range ops {
			if !o.Output.(*outcome).unknown {
				told++
			}
		}
		for _, o := range ops {
			o.Input.(*operation).told = told
		}
		model := boxModel
		if part == listed {
			model = listModel(h.start)
		}
		switch porcupine.CheckOperationsTimeout(model, ops, checkTime) {
		case porcupine.Ok:
		case porcupine.Unknown:
			wrong = append(wrong, fmt.Sprintf("mailbox %q: %d operations could not be checked in %v", part, len(ops), checkTime))
		default:
			wrong = append(wrong, fmt.Sprintf("mailbox %q: %s its %d operations. %s", part, noOrder, len(ops), explain(model, ops)))
		}
	}
	return wrong
}

// explain shows where the longest order that explains some of the operations ends.
func explain(model porcupine.Model, ops []porcupine.Operation) string {
	_, info := porcupine.CheckOperationsVerbose(model, ops, checkTime)
	var longest []porcupine.Operation
	for _, p := range info.PartialLinearizationsOperations() {
		for _, l := range p {
			if len(l) > len(longest) {
				longest = l
			}
		}
	}
	in := map[any]bool{}
	state := model.Init()
	for _, o := range longest {
		in[o.Input] = true
		_, state = model.Step(state, o.Input, o.Output)
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%d of them lead to\n    %.300v\n  and to none of", len(longest), state)
	rest := slices.DeleteFunc(slices.Clone(ops), func(o porcupine.Operation) bool { return in[o.Input] })
	slices.SortFunc(rest, func(a, b porcupine.Operation) int { return cmp.Compare(a.Call, b.Call) })
	for _, o := range rest[:min(4, len(rest))] {
		fmt.Fprintf(&b, "\n    %v -> %.300v", o.Input, o.Output)
	}
	return b.String()
}

func (h *history) String() string {
	h.mu.Lock()
	defer h.mu.Unlock()
	n, kinds := 0, map[string]int{}
	acked, removed := 0, 0
	for _, ops := range h.parts {
		n += len(ops)
		for _, o := range ops {
			in, out := o.Input.(*operation), o.Output.(*outcome)
			kinds[in.kind]++
			if !out.unknown && !out.closed {
				switch in.kind {
				case opAppend:
					acked += len(out.uids)
				case opRemove:
					removed += len(out.uids)
				}
			}
		}
	}
	return fmt.Sprintf("%d operations answered; refused: %v; without an answer: %v; %d entries in %d partitions: %v; %d messages acknowledged, %d removed by expunge alone",
		h.told, h.refused, h.unknown, n, len(h.parts), kinds, acked, removed)
}
