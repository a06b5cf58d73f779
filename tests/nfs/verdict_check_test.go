package nfs

import (
	"math"
	"strings"
	"testing"

	"github.com/anishathalye/porcupine"
)

// TestVerdictFindsMistakes: the check that the other tests rest on notices each kind of mistake, and takes what is right for right.
func TestVerdictFindsMistakes(t *testing.T) {
	type do struct {
		call, back int64
		in         operation
		out        outcome
	}
	add := func(call, back int64, modSeq uint64, uids ...uint32) do {
		return do{call, back, operation{kind: opAppend}, outcome{uids: uids, modSeq: modSeq}}
	}
	look := func(call, back int64, next uint32, modSeq uint64, msgs ...message) do {
		return do{call, back, operation{kind: opRead}, outcome{state: &boxState{next: next, modSeq: modSeq, msgs: msgs}}}
	}
	remove := func(call, back int64, modSeq uint64, uids ...uint32) do {
		return do{call, back, operation{kind: opRemove, uids: uids}, outcome{uids: uids, modSeq: modSeq}}
	}
	flag := func(call, back int64, modSeq uint64, mask uint32, uids, changed []uint32) do {
		return do{call, back, operation{kind: opFlags, sign: "+", mask: mask, uids: uids}, outcome{uids: changed, modSeq: modSeq}}
	}
	unknown := func(d do) do {
		d.back, d.out = math.MaxInt64, outcome{unknown: true}
		return d
	}
	m := func(uid uint32, modSeq uint64, flags uint32) message {
		return message{uid: uid, modSeq: modSeq, on: flags}
	}
	for _, c := range []struct {
		what  string
		right bool
		ops   []do
	}{
		{"one after the other", true, []do{add(1, 2, 2, 1), look(3, 4, 2, 2, m(1, 2, 0)), remove(5, 6, 3, 1), look(7, 8, 2, 3)}},
		{"at the same time", true, []do{add(1, 9, 3, 2), add(2, 8, 2, 1), look(3, 7, 2, 2, m(1, 2, 0))}},
		{"no answer, has happened", true, []do{unknown(add(1, 2, 0, 1)), look(3, 4, 1, 1), look(5, 6, 2, 2, m(1, 2, 0))}},
		{"no answer, has not happened", true, []do{unknown(add(1, 2, 0, 1)), look(3, 4, 1, 1), add(5, 6, 2, 1), look(7, 8, 2, 2, m(1, 2, 0))}},
		{"no answer to a removal", true, []do{add(1, 2, 2, 1), unknown(remove(3, 4, 0, 1)), look(5, 6, 2, 2, m(1, 2, 0)), look(7, 8, 2, 3)}},
		{"two flags", true, []do{add(1, 2, 2, 1), flag(3, 6, 3, 1, []uint32{1}, []uint32{1}), flag(4, 5, 4, 2, []uint32{1}, []uint32{1}), look(7, 8, 2, 4, m(1, 4, 3))}},
		{"lost message", false, []do{add(1, 2, 2, 1), look(3, 4, 2, 2)}},
		{"stale look", false, []do{add(1, 2, 2, 1), look(3, 4, 1, 1)}},
		{"resurrected", false, []do{add(1, 2, 2, 1), remove(3, 4, 3, 1), look(5, 6, 2, 4, m(1, 2, 0))}},
		{"UID twice", false, []do{add(1, 2, 2, 1), add(3, 4, 3, 1)}},
		{"UID left out", false, []do{add(1, 2, 2, 1), add(3, 4, 3, 3)}},
		{"UIDs against the order of time", false, []do{add(1, 2, 2, 2), add(3, 4, 3, 1)}},
		{"mod-sequence goes back", false, []do{add(1, 2, 3, 1), add(3, 4, 2, 2)}},
		{"mod-sequence of a message changes by itself", false, []do{add(1, 2, 2, 1), look(3, 4, 2, 3, m(1, 3, 0))}},
		{"lost update", false, []do{add(1, 2, 2, 1), flag(3, 4, 3, 1, []uint32{1}, []uint32{1}), flag(5, 6, 4, 2, []uint32{1}, []uint32{1}), look(7, 8, 2, 4, m(1, 4, 2))}},
		{"removed twice", false, []do{add(1, 2, 2, 1), remove(3, 4, 3, 1), remove(5, 6, 4, 1)}},
		{"seen, then unseen again", false, []do{unknown(add(1, 2, 0, 1)), look(3, 4, 2, 2, m(1, 2, 0)), look(5, 6, 1, 2)}},
		{"deleted mailbox takes mail", false, []do{{1, 2, operation{kind: opClose}, outcome{}}, add(3, 4, 2, 1)}},
	} {
		h := &history{r: &rig{t: t}, parts: map[string][]porcupine.Operation{}}
		for i, d := range c.ops {
			h.parts["box"] = append(h.parts["box"], porcupine.Operation{ClientId: i, Input: &d.in, Output: &d.out, Call: d.call, Return: d.back})
		}
		wrong := strings.Join(h.verdict(), "; ")
		if c.right != (wrong == "") {
			t.Errorf("%s: right: %v; found: %s", c.what, c.right, wrong)
		}
	}
}
