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
	if strings.Contains(a.Err, "outcome unknown") { // whatever the reason
		a.Closed, a.Missing, a.Exists, a.NoSpace, a.ReadOnly = false, false, false, false, false
	}
	a.no = a.NoSpace || a.ReadOnly
	a.lost = err != nil || a.Err != "" && !a.Closed && !a.Missing && !a.Exists && !a.no
	switch {
	case a.no:
		h.refused[d.Kind+": "+reason(nil, a.Err)]++
	case a.lost:
		h.unknown[d.Kind+": "+reason(err, a.Err)]++
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
