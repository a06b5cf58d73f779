package nfs

import (
	"strings"
	"testing"

	"shoal/daemons/nfsguest/proto"
)

// TestLedgerFindsMistakes: the comparison that the other tests rest on notices each kind of loss.
func TestLedgerFindsMistakes(t *testing.T) {
	ev := func(kind, box, token string, uids, dest []uint32) proto.Event {
		return proto.Event{Done: true, Writer: "w", Kind: kind, Box: box, To: "B", Token: token, UIDs: uids, Dest: dest}
	}
	has := func(uid uint32, token string, keywords ...string) proto.Message {
		return proto.Message{UID: uid, Token: token, Keywords: keywords}
	}
	told := []proto.Event{
		ev(proto.Append, "A", "one", nil, []uint32{1}),
		ev(proto.Append, "A", "two", nil, []uint32{2}),
		ev(proto.Copy, "A", "", []uint32{1}, []uint32{1}),
		ev(proto.Move, "A", "", []uint32{2}, []uint32{2}),
		{Done: true, Writer: "w", Kind: proto.Flag, Box: "A", UIDs: []uint32{1}, Keyword: "k", On: true},
	}
	right := func() map[string][]proto.Message {
		return map[string][]proto.Message{"A": {has(1, "one", "k")}, "B": {has(1, "one"), has(2, "two")}}
	}
	for _, c := range []struct {
		what, want string
		told       []proto.Event
		change     func(map[string][]proto.Message)
	}{
		{what: "nothing", change: func(map[string][]proto.Message) {}},
		{what: "lost copy", want: "B UID 1 (one) is lost", change: func(m map[string][]proto.Message) { m["B"] = m["B"][1:] }},
		{what: "back again", want: "A UID 2 is there, but was removed", change: func(m map[string][]proto.Message) { m["A"] = append(m["A"], has(2, "two")) }},
		{what: "another message", want: `B UID 2 is "one", should be "two"`, change: func(m map[string][]proto.Message) { m["B"][1].Token = "one" }},
		{what: "one too many", want: "B UID 3 (two) is there, but nobody put it there", change: func(m map[string][]proto.Message) { m["B"] = append(m["B"], has(3, "two")) }},
		{what: "flag forgotten", want: "A UID 1: keyword k is false, should be true", change: func(m map[string][]proto.Message) { m["A"][0].Keywords = nil }},
		{what: "UID twice", want: "A UID 1 was given twice", told: []proto.Event{ev(proto.Append, "A", "three", nil, []uint32{1})}, change: func(map[string][]proto.Message) {}},
		{
			what: "expunged twice", want: "A UID 2 was expunged twice", change: func(map[string][]proto.Message) {},
			told: []proto.Event{ev(proto.Expunge, "A", "", []uint32{2}, nil), ev(proto.Expunge, "A", "", []uint32{2}, nil)},
		},
	} {
		l := newLedger()
		for _, e := range append(told[:len(told):len(told)], c.told...) {
			l.add("", e)
		}
		state := right()
		c.change(state)
		final := map[string]proto.State{}
		for box, m := range state {
			final[box] = proto.State{Messages: m}
		}
		got := strings.Join(l.check(final), "; ")
		if c.want == "" && got != "" || !strings.HasPrefix(got, c.want) {
			t.Errorf("%s: found %q, want %q", c.what, got, c.want)
		}
	}
}
