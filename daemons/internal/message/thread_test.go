package message

import (
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"testing"
)

// threaded is the notation of the threads.
func threaded(t *Threader) string {
	var b strings.Builder
	t.Walk(func(step ThreadStep, number uint32) bool {
		switch step {
		case ThreadOpen:
			b.WriteByte('(')
		case ThreadNumber:
			if s := b.String(); s[len(s)-1] != '(' {
				b.WriteByte(' ')
			}
			b.WriteString(strconv.Itoa(int(number)))
		case ThreadClose:
			b.WriteByte(')')
		}
		return true
	})
	return b.String()
}

// letter is a message for a Threader: identifier, references and subject, one after the other with "|" between them.
func letter(s string) *Envelope {
	part := strings.Split(s+"|||", "|")
	value := func(s string) NString { return NString{s, s != ""} }
	return &Envelope{MessageID: value(part[0]), References: value(part[1]), Subject: value(part[2]), InReplyTo: value(part[3])}
}

func TestReferences(t *testing.T) {
	for _, c := range []struct {
		name, want string
		letters    []string
	}{
		{"nothing", "", nil},
		{"a chain", "(1 2 3)", []string{"<a@x>", "<b@x>|<a@x>", "<c@x>|<a@x> <b@x>"}},
		{"the last reference counts", "(1(2)(3))", []string{"<a@x>", "<b@x>|<a@x>", "<c@x>|<b@x> <a@x>"}},
		{"children in the order of dates", "(1(2 4)(3))", []string{"<a@x>", "<b@x>|<a@x>", "<c@x>|<a@x>", "<d@x>|<b@x>"}},
		{"replies before their parent", "(3 2 1)", []string{"<c@x>|<a@x> <b@x>", "<b@x>|<a@x>", "<a@x>"}},
		{"the parent is missing", "((1)(2))", []string{"<b@x>|<a@x>", "<c@x>|<a@x>"}},
		{"only one child of what is missing", "(1)", []string{"<b@x>|<a@x>"}},
		{"children rise past what is missing", "(1(2)(3))", []string{"<a@x>", "<c@x>|<a@x> <b@x>", "<d@x>|<a@x> <b@x>"}},
		{"two that are missing above each other", "((1)(2))", []string{"<c@x>|<a@x> <b@x>", "<d@x>|<a@x> <b@x>"}},
		{"In-Reply-To, its first", "(1 2)(3)", []string{"<a@x>", "<b@x>|||Your letter of today <a@x> <c@x>", "<c@x>"}},
		{"In-Reply-To counts only without references", "(1)(2 3)", []string{"<a@x>", "<b@x>", "<c@x>|<b@x>||<a@x>"}},
		{"an identifier twice", "(1 3)(2)", []string{"<a@x>", "<a@x>", "<b@x>|<a@x>"}},
		{"no identifiers", "(1)(2)", []string{"", ""}},
		{"it refers to itself", "(1)", []string{"<a@x>|<a@x>"}},
		{"each refers to the other", "(2 1)", []string{"<a@x>|<b@x>", "<b@x>|<a@x>"}},
		{"a loop of three", "(3 1 2)", []string{"<a@x>|<c@x>", "<b@x>|<a@x>", "<c@x>|<b@x>"}},
		{"quoting means nothing", "(1 2)", []string{`<"a"@x>`, "<b@x>|<a@x>"}},

		{"the same subject", "((1)(2))", []string{"<a@x>||hello", "<b@x>||Hello"}},
		{"a reply without references", "(1 2)", []string{"<a@x>||hello", "<b@x>||Re: hello"}},
		{"a reply that came first", "(2 1)", []string{"<a@x>||Re: hello", "<b@x>||hello"}},
		{"two replies", "((1)(2))", []string{"<a@x>||Re: hello", "<b@x>||Fwd: hello"}},
		{"no subject", "(1)(2)", []string{"<a@x>||", "<b@x>||Re:"}},
		{"three with one subject", "((1)(2)(3))", []string{"<a@x>||s", "<b@x>||s", "<c@x>||s"}},
		{"under one that is missing", "((1)(2)(3))", []string{"<b@x>|<a@x>|s", "<c@x>|<a@x>|s", "<d@x>||s"}},
		{"both are missing", "((1)(2)(3)(4))", []string{"<b@x>|<a@x>|s", "<c@x>|<a@x>|s", "<e@x>|<d@x>|s", "<f@x>|<d@x>|s"}},
		{"the missing one's first child counts", "((1)(2)(4))(3)", []string{"<b@x>|<a@x>|s", "<c@x>|<a@x>|t", "<d@x>||t", "<e@x>||s"}},
		{"a reply, its letter later, another letter", "((2 1)(3))", []string{"<a@x>||Re: s", "<b@x>||s", "<c@x>||s"}},
	} {
		th := NewThreader(1000)
		for i, l := range c.letters {
			th.Add(uint32(i+1), int64(1000+i), letter(l), true)
		}
		if err := th.References(t.Context()); err != nil {
			t.Fatal(err)
		}
		if got := threaded(th); got != c.want {
			t.Errorf("%s: %s, want %s", c.name, got, c.want)
		}
	}
}

// The order is that of dates, and of numbers where dates are equal.
func TestThreadOrder(t *testing.T) {
	th := NewThreader(1000)
	for i, l := range []struct {
		date int64
		e    string
	}{{50, "<a@x>||one"}, {10, "<b@x>|<a@x>|Re: one"}, {5, "<c@x>|<a@x>|Re: one"}, {5, "<d@x>|<a@x>|Re: one"}, {20, "<e@x>||two"}, {20, "<f@x>||three"}, {60, "<h@x>|<g@x>|four"}, {1, "<i@x>|<g@x>|four"}} {
		th.Add(uint32(i+1), l.date, letter(l.e), true)
	}
	if err := th.References(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got, want := threaded(th), "((8)(7))(5)(6)(1(3)(4)(2))"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
}

func TestOrderedSubject(t *testing.T) {
	th := NewThreader(1000)
	for i, l := range []struct {
		date    int64
		subject string
	}{{5, "b"}, {1, "Re: a"}, {7, "a"}, {3, "Fwd: A"}, {9, ""}, {9, "Re:"}, {2, "c"}, {2, "RE: c"}} {
		th.Add(uint32(i+1), l.date, letter("||"+l.subject), false)
	}
	th.OrderedSubject()
	if got, want := threaded(th), "(2(4)(3))(7 8)(1)(5 6)"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
}

// Whatever messages refer to, each of them is in the result once, and the notation is well formed.
func TestThreadsLoseNothing(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for round := range 500 {
		n := 1 + r.IntN(60)
		th := NewThreader([]int{1000, 10}[round%2])
		if round%5 == 0 {
			th.steps = r.IntN(50)
		}
		for i := range n {
			var refs []string
			for range r.IntN(5) {
				refs = append(refs, fmt.Sprintf("<%d@x>", r.IntN(n+5)))
			}
			subject := strings.Repeat("Re: ", r.IntN(2)) + []string{"", "s", "t", "u", strconv.Itoa(i)}[r.IntN(5)]
			th.Add(uint32(i+1), int64(r.IntN(20)), letter(fmt.Sprintf("<%d@x>|%s|%s", r.IntN(n), strings.Join(refs, " "), subject)), true)
		}
		if err := th.References(t.Context()); err != nil {
			t.Fatal(err)
		}
		checkThreads(t, th, n)
	}
}

func checkThreads(t *testing.T, th *Threader, n int) {
	t.Helper()
	seen := map[uint32]bool{}
	depth := 0
	th.Walk(func(step ThreadStep, number uint32) bool {
		switch step {
		case ThreadOpen:
			depth++
		case ThreadClose:
			depth--
		case ThreadNumber:
			if seen[number] || depth < 1 {
				t.Errorf("%d again, or outside of a list", number)
			}
			seen[number] = true
		}
		return true
	})
	if len(seen) != n || depth != 0 {
		t.Errorf("%d of %d messages, depth %d: %s", len(seen), n, depth, threaded(th))
	}
}

// A chain of many messages, in the order that takes longest to look for loops in, ends, and is one thread.
func TestThreadOfManyMessages(t *testing.T) {
	const n = 50000
	th := NewThreader(2 * n)
	for i := range n {
		th.Add(uint32(i+1), int64(i), letter(fmt.Sprintf("<%d@x>|<%d@x> <0@x>", i, i-1)), true)
	}
	if err := th.References(t.Context()); err != nil {
		t.Fatal(err)
	}
	checkThreads(t, th, n)
}

// FuzzThreads makes threads of messages whose lines are identifier, references and subject. None is lost, and what refers
// to whom never goes round in a circle.
func FuzzThreads(f *testing.F) {
	f.Add("<a@x>||one\n<b@x>|<a@x>|Re: one\n<c@x>|<b@x> <a@x>|two", uint8(0))
	f.Add("<a@x>|<b@x>|s\n<b@x>|<c@x>|s\n<c@x>|<a@x>|Re: s\n<d@x>||s", uint8(7))
	f.Add("|<z@x>|t\n|<z@x>|t\n<y@x>|<w@x> <z@x>|t\n<z@x>||Fwd: t\n||t", uint8(255))
	f.Fuzz(func(t *testing.T, in string, dates uint8) {
		lines := strings.Split(in, "\n")
		lines = lines[:min(len(lines), 200)]
		for _, references := range []bool{true, false} {
			th := NewThreader(100)
			for i, l := range lines {
				th.Add(uint32(i+1), int64(i*int(dates)%7), letter(l), references)
			}
			if !references {
				th.OrderedSubject()
			} else if err := th.References(t.Context()); err != nil {
				t.Fatal(err)
			}
			checkThreads(t, th, len(lines))
		}
	})
}
