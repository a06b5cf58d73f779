package mailstore

import (
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"sort"
	"strings"
	"testing"
	"time"
)

// simpleBox does what a mailbox does in the most simple way.
type simpleBox struct {
	n    uint64
	next uint32
	msgs []simpleMsg
	gone map[uint32]uint64
}

type simpleMsg struct {
	uid      uint32
	mod      uint64
	flags    Flags
	keywords []string
	source   string
}

func (b *simpleBox) describe() string {
	var s strings.Builder
	for _, m := range b.msgs {
		fmt.Fprintf(&s, "%d %d %d %q\n", m.uid, m.mod, m.flags, m.keywords)
	}
	return s.String()
}

func describeState(st *State) string {
	var s strings.Builder
	for _, m := range st.All() {
		fmt.Fprintf(&s, "%d %d %d %q\n", m.UID, m.ModSeq, m.Flags, m.Keywords)
	}
	return s.String()
}

func randomSet(r *rand.Rand, next uint32) UIDSet {
	var s UIDSet
	for range 1 + r.IntN(4) {
		a := 1 + r.Uint32N(next+5)
		s.AddRange(a, a+r.Uint32N([]uint32{1, 3, 50, 500}[r.IntN(4)]))
	}
	if r.IntN(20) == 0 {
		s.AddRange(s[0].Start, MaxUID)
	}
	return s
}

// TestFoldAgainstModel folds random records and compares with the simple model: the newest state, older states that
// are still held, changes, and what comes back from a snapshot.
func TestFoldAgainstModel(t *testing.T) {
	for seed := range uint64(6) {
		r := rand.New(rand.NewPCG(seed, 1))
		f := newMailFold()
		b := &simpleBox{n: 1, next: 1, gone: map[uint32]uint64{}}
		if err := f.apply(1, "a.1", "O 1.0 v=5", nil); err != nil {
			t.Fatal(err)
		}
		type held struct {
			st   *State
			want string
		}
		var old []held
		ctr := uint64(0)
		for step := range 250 {
			b.n++
			var ops []string
			for range 1 + r.IntN(3) {
				ops = append(ops, b.random(r, &ctr))
			}
			if err := f.apply(b.n, "a.1", strings.Join(ops, "|"), nil); err != nil {
				t.Fatal(err)
			}
			if r.IntN(3) == 0 {
				st := f.publish()
				if err := st.check(); err != nil {
					t.Fatalf("seed %d step %d: %v", seed, step, err)
				}
				want := b.describe()
				if got := describeState(st); got != want {
					t.Fatalf("seed %d step %d after %.200q: %s", seed, step, ops, firstDifference(got, want))
				}
				old = append(old, held{st, want})
				b.compare(t, r, st)
			}
			if r.IntN(60) == 0 { // go on from a snapshot
				text := string(f.publish().appendSnapshot(nil, marks{}, nil))
				s, err := parseSnapshot(text, kindMailbox, mailLines)
				if err != nil {
					t.Fatal(err)
				}
				before := canonical(f.publish())
				if f, err = loadMailSnapshot(s); err != nil {
					t.Fatal(err)
				}
				if got := canonical(f.publish()); got != before {
					t.Fatalf("seed %d step %d: after reading a snapshot: %s", seed, step, firstDifference(got, before))
				}
			}
		}
		for i, h := range old {
			if got := describeState(h.st); got != h.want {
				t.Fatalf("seed %d: a state held since moment %d has changed: %s", seed, i, firstDifference(got, h.want))
			}
		}
	}
}

// random makes an op and does it to the model.
func (b *simpleBox) random(r *rand.Rand, ctr *uint64) string {
	switch x := r.IntN(10); {
	case x < 5:
		op := mailOp{kind: opDeliver, date: 1000}
		for range 1 + r.IntN([]int{1, 5, 40}[r.IntN(3)]) {
			*ctr++
			e := entry{id: msgID{nonce{"a.1", *ctr}, 10, 1}, flags: Flags(r.IntN(32))}
			if r.IntN(3) == 0 {
				e.keywords = []string{fmt.Sprintf("k%d", r.IntN(4))}
			}
			if r.IntN(10) == 0 {
				e.email, e.date, e.hasDate = "mail", -7, true
			}
			if r.IntN(10) == 0 {
				e.source = fmt.Sprintf("box.%d.1", r.IntN(50))
			}
			if r.IntN(40) == 0 {
				e.uid = b.next + uint32(r.IntN(20)) - 5
				if int32(e.uid) < 1 {
					e.uid = 0
				}
			}
			op.entries = append(op.entries, e)
			if e.source != "" && slices.ContainsFunc(b.msgs, func(m simpleMsg) bool { return m.source == e.source }) {
				continue
			}
			b.next = max(b.next, e.uid)
			b.msgs = append(b.msgs, simpleMsg{b.next, b.n, e.flags, e.keywords, e.source})
			b.next++
		}
		return string(op.append(nil, "a.1"))
	case x < 8:
		op := mailOp{kind: opFlags, sign: "+-="[r.IntN(3)], flags: Flags(r.IntN(32)), uids: randomSet(r, b.next)}
		for range r.IntN(3) {
			op.keywords = append(op.keywords, fmt.Sprintf("k%d", r.IntN(4)))
		}
		op.keywords = normalKeywords(op.keywords)
		if r.IntN(3) == 0 {
			op.guarded, op.guard = true, b.n-uint64(r.IntN(int(min(b.n, 20))))
		}
		for i := range b.msgs {
			m := &b.msgs[i]
			if !op.uids.Contains(m.uid) || op.guarded && m.mod > op.guard {
				continue
			}
			flags, kw := m.flags, map[string]bool{}
			for _, k := range m.keywords {
				kw[k] = true
			}
			switch op.sign {
			case '+':
				flags |= op.flags
			case '-':
				flags &^= op.flags
			case '=':
				flags = op.flags
				clear(kw)
			}
			for _, k := range op.keywords {
				kw[k] = op.sign != '-'
			}
			var list []string
			for k, on := range kw {
				if on {
					list = append(list, k)
				}
			}
			sort.Strings(list)
			if flags != m.flags || !slices.Equal(list, m.keywords) {
				m.flags, m.keywords, m.mod = flags, list, b.n
			}
		}
		return string(op.append(nil, "a.1"))
	}
	op := mailOp{kind: opExpunge, uids: randomSet(r, b.next)}
	if r.IntN(3) == 0 {
		op.kind = opRemove
	}
	b.msgs = slices.DeleteFunc(b.msgs, func(m simpleMsg) bool {
		out := op.uids.Contains(m.uid) && (op.kind == opRemove || m.flags&FlagDeleted != 0)
		if out {
			b.gone[m.uid] = b.n
		}
		return out
	})
	return string(op.append(nil, "a.1"))
}

// compare asks a state in all the other ways.
func (b *simpleBox) compare(t *testing.T, r *rand.Rand, st *State) {
	t.Helper()
	since := b.n - uint64(r.IntN(int(b.n)))
	var want, got []uint32
	for _, m := range b.msgs {
		if m.mod > since {
			want = append(want, m.uid)
		}
	}
	for i, m := range st.ChangedSince(since) {
		got = append(got, m.UID)
		if st.At(i).UID != m.UID {
			t.Fatalf("index %d of UID %d", i, m.UID)
		}
	}
	if !slices.Equal(got, want) {
		t.Fatalf("changed since %d: %v, want %v", since, got, want)
	}
	var vanished UIDSet
	for uid, n := range b.gone {
		if n > since {
			vanished.Add(uid)
		}
	}
	if v, ok := st.VanishedSince(since); ok && v.String() != vanished.String() {
		t.Fatalf("vanished since %d: %v, want %v", since, v, vanished)
	} else if !ok {
		for _, m := range b.msgs {
			if v.Contains(m.uid) {
				t.Fatalf("UID %d is there and has vanished", m.uid)
			}
		}
		for uid := range vanished.All() {
			if !v.Contains(uid) {
				t.Fatalf("UID %d has vanished and is not reported", uid)
			}
		}
	}
	set := randomSet(r, b.next)
	want, got = nil, nil
	for _, m := range b.msgs {
		if set.Contains(m.uid) {
			want = append(want, m.uid)
		}
	}
	for i, m := range st.UIDs(set) {
		got = append(got, m.UID)
		if k, ok := st.Find(m.UID); !ok || k != i {
			t.Fatalf("UID %d is found at %d %v, want %d", m.UID, k, ok, i)
		}
	}
	if !slices.Equal(got, want) {
		t.Fatalf("set %v: %v, want %v", set, got, want)
	}
	if st.UIDNext() != b.next || st.ModSeq() != b.n {
		t.Fatalf("UIDNEXT %d, want %d; mod-sequence %d, want %d", st.UIDNext(), b.next, st.ModSeq(), b.n)
	}
}

func TestUIDSet(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	for range 2000 {
		var s UIDSet
		want := map[uint32]bool{}
		for range r.IntN(20) {
			a := 1 + r.Uint32N(60)
			b := a + r.Uint32N(4)
			if r.IntN(2) == 0 {
				a, b = b, a
			}
			s.AddRange(a, b)
			for u := min(a, b); u <= max(a, b); u++ {
				want[u] = true
			}
		}
		if s.Len() != len(want) {
			t.Fatalf("%v has %d, want %d", s, s.Len(), len(want))
		}
		for u := range uint32(70) {
			if s.Contains(u) != want[u] {
				t.Fatalf("%v contains %d: %v", s, u, !want[u])
			}
		}
		if len(s) > 0 {
			if p, ok := parseUIDs(s.String()); !ok || p.String() != s.String() {
				t.Fatalf("%v does not parse", s)
			}
		}
	}
	if s := NewUIDSet(MaxUID, MaxUID-1, 1); s.String() != "1,4294967294:*" || !s.Contains(MaxUID) {
		t.Fatal(s)
	}
}

// bigFold is a mailbox of n messages.
func bigFold(tb testing.TB, n int) *mailFold {
	f := newMailFold()
	if err := f.apply(1, "box1.cyp0000", "O 1.0 v=5", nil); err != nil {
		tb.Fatal(err)
	}
	for i := 0; i < n; i += 1000 {
		op := mailOp{kind: opDeliver, date: 1764000000}
		for k := range min(1000, n-i) {
			op.entries = append(op.entries, entry{id: msgID{nonce{"box1.cyp0000", uint64(i + k + 1)}, 4096, 123456789}, flags: Flags(k % 4)})
		}
		if err := f.apply(uint64(2+i/1000), "box1.cyp0000", string(op.append(nil, "box1.cyp0000")), nil); err != nil {
			tb.Fatal(err)
		}
		f.publish()
	}
	return f
}

// TestBigMailbox keeps the cost of a change in a large mailbox small.
func TestBigMailbox(t *testing.T) {
	const n = 100000
	f := bigFold(t, n)
	st := f.publish()
	if w := st.weight() / n; w > 80 {
		t.Errorf("%d bytes per message", w)
	}
	at := f.s.n
	cost := testing.AllocsPerRun(20, func() {
		at++
		if err := f.apply(at, "box1.cyp0000", fmt.Sprintf("F %cF 50000", "+-"[at%2]), nil); err != nil {
			t.Fatal(err)
		}
		f.publish()
	})
	if cost > 40 {
		t.Errorf("%v allocations for one flag", cost)
	}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for range 100 {
		at++
		if err := f.apply(at, "box1.cyp0000", fmt.Sprintf("F %cF 50000", "+-"[at%2]), nil); err != nil {
			t.Fatal(err)
		}
		f.publish()
	}
	runtime.ReadMemStats(&after)
	each := (after.TotalAlloc - before.TotalAlloc) / 100
	if each > 64<<10 {
		t.Errorf("one flag changed in %d messages copies %d bytes", n, each)
	}
	text := string(f.publish().appendSnapshot(nil, marks{}, nil))
	start := time.Now()
	s, err := parseSnapshot(text, kindMailbox, mailLines)
	if err == nil {
		_, err = loadMailSnapshot(s)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("snapshot of %d messages: %d bytes each, read in %v; one flag copies %d bytes", n, len(text)/n, time.Since(start), each)
}
