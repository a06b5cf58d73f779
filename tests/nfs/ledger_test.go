package nfs

import (
	"encoding/gob"
	"fmt"
	"io"
	"maps"
	"net"
	"slices"
	"sync"
	"time"

	"shoal/daemons/nfsguest/proto"
)

// at is a place in a mailbox: there is at most one message at it, ever.
type at struct {
	box string
	uid uint32
}

// A ledger holds what clients were told, and what they were told nothing about, and compares it with what is there.
type ledger struct {
	mu    sync.Mutex
	told  []proto.Event
	open  map[string]proto.Event // client and id of operations that were begun
	wrong []string
	reads int
}

func newLedger() *ledger { return &ledger{open: map[string]proto.Event{}} }

// listen adds what a client sends until its load is over, or the client is. The channel is closed then.
func (l *ledger) listen(k *kernel, run int) <-chan struct{} {
	k.t.Helper()
	c, err := net.Dial("tcp", k.endpoint(proto.Port+1))
	if err != nil {
		k.t.Fatal(err)
	}
	if _, err := io.ReadFull(c, make([]byte, 1)); err != nil {
		k.t.Fatal(err)
	}
	over, died := make(chan struct{}), k.done
	go func() {
		defer close(over)
		defer c.Close()
		go func() {
			select {
			case <-died: // a kernel that was killed sends no end of its connections
				_ = c.SetReadDeadline(time.Now().Add(time.Second))
			case <-over:
			}
		}()
		d := gob.NewDecoder(c)
		for {
			var e proto.Event
			if d.Decode(&e) != nil || !l.add(fmt.Sprint(k.name, " ", run, " ", e.ID), e) {
				return
			}
		}
	}()
	return over
}

func (l *ledger) add(key string, e proto.Event) (more bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case e.Kind == proto.End:
		l.reads += e.ID
		return false
	case e.Kind == proto.Wrong:
		l.wrong = append(l.wrong, e.Err)
	case !e.Done || e.Err != "":
		l.open[key] = e
	default:
		delete(l.open, key)
		l.told = append(l.told, e)
	}
	return true
}

// check compares the ledger with the final states of the mailboxes, contents included.
func (l *ledger) check(final map[string]proto.State) []string {
	wrong := slices.Clone(l.wrong)
	say := func(format string, args ...any) { wrong = append(wrong, fmt.Sprintf(format, args...)) }

	where := map[string]at{} // by box.uid, which message: token
	token := map[at]string{}
	gone, perhaps := map[at]proto.Event{}, map[at]bool{}
	type hop struct{ from, to at }
	var hops []hop
	place := func(p at, e proto.Event) bool {
		key := fmt.Sprint(p.box, " ", p.uid)
		if _, taken := where[key]; taken {
			say("%s UID %d was given twice, the second time by %s of %s", p.box, p.uid, e.Kind, e.Writer)
			return false
		}
		where[key] = p
		return true
	}
	remove := func(p at, e proto.Event) {
		if old, there := gone[p]; there && old.Kind == proto.Expunge && e.Kind == proto.Expunge {
			say("%s UID %d was expunged twice, by %s and %s", p.box, p.uid, old.Writer, e.Writer)
		}
		gone[p] = e
	}
	for _, e := range l.told {
		switch e.Kind {
		case proto.Append:
			if p := (at{e.Box, e.Dest[0]}); p.uid != 0 && place(p, e) {
				token[p] = e.Token
			}
		case proto.Copy, proto.Move:
			if len(e.UIDs) != len(e.Dest) {
				say("%s of %s: %d sources, %d destinations", e.Kind, e.Writer, len(e.UIDs), len(e.Dest))
				continue
			}
			for i, u := range e.UIDs {
				if e.Dest[i] != 0 && place(at{e.To, e.Dest[i]}, e) {
					hops = append(hops, hop{at{e.Box, u}, at{e.To, e.Dest[i]}})
				}
				if e.Kind == proto.Move {
					remove(at{e.Box, u}, e)
				}
			}
		case proto.Expunge:
			for _, u := range e.UIDs {
				remove(at{e.Box, u}, e)
			}
		}
	}
	// What was begun and not answered may have happened.
	loose := map[string]bool{} // tokens of messages that may be in further places
	looseFrom := []at{}
	for _, e := range l.open {
		if e.Kind == proto.Append {
			loose[e.Token] = true
		}
		for _, u := range e.UIDs {
			p := at{e.Box, u}
			switch e.Kind {
			case proto.Expunge, proto.Move:
				perhaps[p] = true
			}
			if e.Kind == proto.Copy || e.Kind == proto.Move {
				looseFrom = append(looseFrom, p)
			}
		}
	}
	there := map[at]proto.Message{}
	for box, s := range final {
		for _, m := range s.Messages {
			there[at{box, m.UID}] = m
			if _, known := token[at{box, m.UID}]; !known && m.Token != "" {
				if _, known := where[fmt.Sprint(box, " ", m.UID)]; !known {
					token[at{box, m.UID}] = m.Token // to follow copies of what was never acknowledged
				}
			}
		}
	}
	for again := true; again; { // copies of copies
		again = false
		for _, h := range hops {
			if t, ok := token[h.from]; ok && token[h.to] == "" {
				token[h.to], again = t, true
			}
		}
	}
	for _, p := range looseFrom {
		if t, ok := token[p]; ok {
			loose[t] = true
		}
	}

	for _, p := range where {
		_, removed := gone[p]
		m, present := there[p]
		switch {
		case present && removed:
			say("%s UID %d is there, but was removed", p.box, p.uid)
		case !present && !removed && !perhaps[p]:
			say("%s UID %d (%s) is lost", p.box, p.uid, token[p])
		case present && token[p] != "" && token[p] != m.Token:
			say("%s UID %d is %q, should be %q", p.box, p.uid, m.Token, token[p])
		}
	}
	for p, m := range there {
		if _, known := where[fmt.Sprint(p.box, " ", p.uid)]; !known && !loose[m.Token] {
			say("%s UID %d (%s) is there, but nobody put it there", p.box, p.uid, m.Token)
		}
	}
	l.flags(there, say)
	slices.Sort(wrong)
	return wrong
}

// flags compares each writer's own keyword with what it was last told about it.
func (l *ledger) flags(there map[at]proto.Message, say func(string, ...any)) {
	type key struct {
		at
		keyword string
	}
	last, unsure := map[key]bool{}, map[key]bool{}
	for _, e := range l.told {
		if e.Kind == proto.Flag {
			for _, u := range e.UIDs {
				last[key{at{e.Box, u}, e.Keyword}] = e.On
			}
		}
	}
	for _, e := range l.open {
		if e.Kind == proto.Flag {
			for _, u := range e.UIDs {
				unsure[key{at{e.Box, u}, e.Keyword}] = true
			}
		}
	}
	for k, on := range last {
		if m, ok := there[k.at]; ok && !unsure[k] && slices.Contains(m.Keywords, k.keyword) != on {
			say("%s UID %d: keyword %s is %v, should be %v", k.box, k.uid, k.keyword, !on, on)
		}
	}
}

func (l *ledger) String() string {
	n := map[string]int{}
	for _, e := range l.told {
		n[e.Kind]++
	}
	s := fmt.Sprintf("%d operations acknowledged (", len(l.told))
	for _, k := range slices.Sorted(maps.Keys(n)) {
		s += fmt.Sprintf("%s %d, ", k, n[k])
	}
	return s + fmt.Sprintf("unknown %d), %d states read", len(l.open), l.reads)
}
