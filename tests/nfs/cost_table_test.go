package nfs

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"shoal/daemons/nfsguest/proto"
)

// costs is the table of calls in docs/store.md as it was measured now.
type costs struct {
	rows []cost
}

type cost struct {
	what   string
	calls  int
	kinds  string
	pinned bool // does not depend on what caches happen to hold
	peer   int  // calls of Dovecot for the same; 0: not measured
	most   int  // at most so many; 0: no such bound
}

func sum(calls map[string]int) (n int) {
	for _, k := range calls {
		n += k
	}
	return n
}

func kinds(calls map[string]int) string {
	var all []string
	for _, k := range slices.Sorted(maps.Keys(calls)) {
		all = append(all, fmt.Sprintf("%s %d", k, calls[k]))
	}
	return strings.Join(all, ", ")
}

func (c *costs) add(what string, got proto.OpReply) *cost {
	c.rows = append(c.rows, cost{what: what, calls: sum(got.Calls), kinds: kinds(got.Calls)})
	return &c.rows[len(c.rows)-1]
}

// pin adds what must be exactly so.
func (c *costs) pin(t *testing.T, what string, got proto.OpReply, want string) {
	t.Helper()
	if r := c.add(what, got); r.kinds != want {
		t.Errorf("%s: %s, want %s", what, r.kinds, want)
	} else {
		r.pinned = true
	}
}

// bound adds what must not cost more.
func (c *costs) bound(t *testing.T, what string, got proto.OpReply, most int) {
	t.Helper()
	r := c.add(what, got)
	if r.most = most; r.calls > most {
		t.Errorf("%s: %d calls, want at most %d: %s", what, r.calls, most, r.kinds)
	}
}

// beside notes what Dovecot needs.
func (c *costs) beside(t *testing.T, what string, calls int) {
	t.Helper()
	for i := range c.rows {
		if c.rows[i].what == what {
			c.rows[i].peer = calls
			return
		}
	}
	t.Errorf("no row %q", what)
}

func (c *cost) String() string {
	peer := "-"
	if c.peer > 0 {
		peer = thousands(c.peer)
	}
	return fmt.Sprintf("| %s | %s | %s | %s |", c.what, thousands(c.calls), c.kinds, peer)
}

func thousands(n int) string {
	s := strconv.Itoa(n)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

var costLine = regexp.MustCompile(`(?m)^\| ([^|]+) \| ([\d,]+) \| ([^|]+) \| ([\d,]+|-) \|$`)

// compare holds the table against the document and tells what differs: pinned rows exactly, the others within a fifth and a few
// calls, because caches are not always the same. The document may leave out no row.
func (c *costs) compare(document string) (wrong []string) {
	said := map[string][]string{}
	for _, m := range costLine.FindAllStringSubmatch(document, -1) {
		said[m[1]] = m
	}
	near := func(a, b int) bool { return max(a-b, b-a) <= 6+b/5 }
	number := func(s string) int { n, _ := strconv.Atoi(strings.ReplaceAll(s, ",", "")); return n }
	own := func(line string) string { return line[:strings.LastIndex(line, "| ")] } // without Dovecot's column
	for i := range c.rows {
		r := &c.rows[i]
		switch m := said[r.what]; {
		case m == nil:
			wrong = append(wrong, fmt.Sprintf("there is no row for %q", r.what))
		case r.pinned && own(m[0]) != own(r.String()), !near(number(m[2]), r.calls), !near(number(m[4]), r.peer):
			wrong = append(wrong, fmt.Sprintf("it says\n%s\nbut it is\n%s", m[0], r))
		}
	}
	return wrong
}

func (c *costs) String() string {
	var table strings.Builder
	for i := range c.rows {
		fmt.Fprintln(&table, &c.rows[i])
	}
	return table.String()
}

func TestCostComparison(t *testing.T) {
	c := &costs{}
	c.pin(t, "pinned", proto.OpReply{Calls: map[string]int{"OPEN": 1, "CLOSE": 1}}, "CLOSE 1, OPEN 1")
	c.add("near", proto.OpReply{Calls: map[string]int{"LOOKUP": 2000}})
	c.beside(t, "near", 30)
	right := c.String()
	if wrong := c.compare(right); len(wrong) > 0 {
		t.Errorf("compared with itself: %q", wrong)
	}
	for _, change := range [][2]string{{"OPEN 1", "OPEN 2"}, {"| 2 |", "| 3 |"}, {"2,000", "2,600"}, {"| 30 |", "| 60 |"}, {"| near", "| far"}} {
		if wrong := c.compare(strings.Replace(right, change[0], change[1], 1)); len(wrong) != 1 {
			t.Errorf("%q: %q", change, wrong)
		}
	}
	if wrong := c.compare(strings.Replace(right, "2,000", "2,100", 1)); len(wrong) > 0 {
		t.Errorf("a twentieth more: %q", wrong)
	}
}
