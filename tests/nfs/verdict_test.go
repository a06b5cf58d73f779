package nfs

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/anishathalye/porcupine"
)

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
		if x := refuted(ops); x != "" {
			wrong = append(wrong, fmt.Sprintf("mailbox %q: %s its %d operations: %s", part, noOrder, len(ops), x))
			continue
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

// refuted finds what no order can explain without searching for one: of two operations of which one was answered before the other was
// asked for, the later must not show a lower mod-sequence or UIDNEXT; and no UID is given twice. Where much was left without an
// answer, a search that finds nothing takes for ever.
func refuted(ops []porcupine.Operation) string {
	type seen struct {
		value uint64
		by    porcupine.Operation
	}
	begun, ended := slices.Clone(ops), slices.Clone(ops)
	slices.SortFunc(begun, func(a, b porcupine.Operation) int { return cmp.Compare(a.Call, b.Call) })
	slices.SortFunc(ended, func(a, b porcupine.Operation) int { return cmp.Compare(a.Return, b.Return) })
	var modSeq, next seen // the highest that was answered
	given := map[uint32]porcupine.Operation{}
	done := 0
	for _, o := range begun {
		for ; done < len(ended) && ended[done].Return < o.Call; done++ {
			e := ended[done]
			m, low, _ := shows(e)
			if m > modSeq.value {
				modSeq = seen{m, e}
			}
			if low > next.value {
				next = seen{low, e}
			}
		}
		m, _, high := shows(o)
		if m != 0 && m < modSeq.value {
			return fmt.Sprintf("MODSEQ went back:\n    %v -> %.300v\n  came after\n    %v -> %.300v", o.Input, o.Output, modSeq.by.Input, modSeq.by.Output)
		}
		if high != 0 && high < next.value {
			return fmt.Sprintf("UIDNEXT went back:\n    %v -> %.300v\n  came after\n    %v -> %.300v", o.Input, o.Output, next.by.Input, next.by.Output)
		}
		if in, out := o.Input.(*operation), o.Output.(*outcome); in.kind == opAppend && in.sources == nil && !out.unknown {
			for _, u := range out.uids {
				if other, twice := given[u]; twice && u != 0 {
					return fmt.Sprintf("UID %d was given twice:\n    %v -> %v\n    %v -> %v", u, other.Input, other.Output, in, out)
				}
				given[u] = o
			}
		}
	}
	return ""
}

// shows tells what an answer says about the mailbox: its mod-sequence, a bound that UIDNEXT had reached when it was given, and one
// that UIDNEXT had not passed when it was asked for. 0: nothing.
func shows(o porcupine.Operation) (modSeq, low, high uint64) {
	in, out := o.Input.(*operation), o.Output.(*outcome)
	switch {
	case out.unknown || out.closed:
	case out.state != nil:
		return out.state.modSeq, uint64(out.state.next), uint64(out.state.next)
	case in.kind == opAppend && len(out.uids) > 0 && out.uids[0] != 0:
		low = uint64(slices.Max(out.uids)) + 1
		if in.sources == nil {
			high = uint64(out.uids[0])
		}
		return out.modSeq, low, high
	default:
		modSeq = out.modSeq
	}
	return modSeq, 0, 0
}
