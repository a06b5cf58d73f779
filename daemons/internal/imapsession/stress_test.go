package imapsession

import (
	"fmt"
	"math/rand/v2"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
)

// mirror is a client that keeps its own copy of a mailbox, made from nothing but what the server says,
// and finds the server's contradictions.
type mirror struct {
	*client
	uids  []uint32 // by sequence number - 1; 0: not known
	flags []string // "?": not known
	rnd   *rand.Rand
	bad   string
}

var (
	reNumber = regexp.MustCompile(`^\* (\d+) (EXISTS|EXPUNGE|RECENT|FETCH)(?: \((.*)\))?$`)
	reUID    = regexp.MustCompile(`UID (\d+)`)
	reFlags  = regexp.MustCompile(`FLAGS \(([^)]*)\)`)
)

// take applies an untagged line. numbers says that the command forbids EXPUNGE.
func (m *mirror) take(line string, numbers bool) {
	f := reNumber.FindStringSubmatch(line)
	if f == nil {
		return
	}
	n, _ := strconv.Atoi(f[1])
	switch f[2] {
	case "EXISTS":
		if n < len(m.uids) {
			m.bad = fmt.Sprintf("%s with %d messages", line, len(m.uids))
			return
		}
		for len(m.uids) < n {
			m.uids, m.flags = append(m.uids, 0), append(m.flags, "?")
		}
	case "EXPUNGE":
		if numbers || n < 1 || n > len(m.uids) {
			m.bad = fmt.Sprintf("%s with %d messages, during FETCH, STORE or SEARCH: %v", line, len(m.uids), numbers)
			return
		}
		m.uids, m.flags = slices.Delete(m.uids, n-1, n), slices.Delete(m.flags, n-1, n)
	case "FETCH":
		if n < 1 || n > len(m.uids) {
			m.bad = fmt.Sprintf("%s with %d messages", line, len(m.uids))
			return
		}
		if u := reUID.FindStringSubmatch(f[3]); u != nil {
			uid, _ := strconv.ParseUint(u[1], 10, 32)
			if m.uids[n-1] != 0 && m.uids[n-1] != uint32(uid) {
				m.bad = fmt.Sprintf("%s, but the message had UID %d", line, m.uids[n-1])
			}
			m.uids[n-1] = uint32(uid)
		}
		if fl := reFlags.FindStringSubmatch(f[3]); fl != nil {
			words := strings.Fields(fl[1])
			words = slices.DeleteFunc(words, func(w string) bool { return w == `\Recent` })
			slices.Sort(words)
			m.flags[n-1] = strings.Join(words, " ")
		}
	}
}

func (m *mirror) command(text string) {
	first, _, _ := strings.Cut(text, " ")
	numbers := first == "FETCH" || first == "STORE" || first == "SEARCH"
	untagged, tagged := m.do(text)
	for _, line := range untagged {
		m.take(line, numbers)
		if m.bad != "" {
			m.t.Errorf("%s: %s", text, m.bad)
			return
		}
	}
	if strings.HasPrefix(tagged, "BAD") {
		m.bad = tagged
		m.t.Errorf("%s: %s", text, tagged)
	}
}

// set is a random set of sequence numbers, or empty when there are none.
func (m *mirror) set() string {
	n := len(m.uids)
	if n == 0 {
		return ""
	}
	a, b := 1+m.rnd.IntN(n), 1+m.rnd.IntN(n)
	switch m.rnd.IntN(3) {
	case 0:
		return strconv.Itoa(a)
	case 1:
		return fmt.Sprintf("%d:%d", a, b)
	}
	return fmt.Sprintf("%d,%d", a, b)
}

var stressFlags = []string{`\Seen`, `\Flagged`, `\Answered`, `\Draft`, "kw1", "kw2"}

// act does one thing at random.
func (m *mirror) act() {
	set := m.set()
	flag := stressFlags[m.rnd.IntN(len(stressFlags))]
	uid := [2]string{"", "UID "}[m.rnd.IntN(2)]
	if uid != "" && set != "" {
		set = fmt.Sprint(m.uids[m.rnd.IntN(len(m.uids))])
		if set == "0" {
			set = ""
		}
	}
	k := m.rnd.IntN(20)
	if set == "" && k > 4 {
		k %= 5
	}
	switch k {
	case 0, 1, 2:
		m.command("APPEND INBOX (" + flag + ") {6+}\r\na: b\r\n")
	case 3:
		m.command("NOOP")
	case 4:
		m.command("CHECK")
	case 5, 6:
		m.command(uid + "STORE " + set + " +FLAGS (" + flag + ")")
	case 7, 8:
		m.command(uid + "STORE " + set + " FLAGS.SILENT (" + flag + ")")
		m.learn(uid, set)
	case 9:
		m.command(uid + "STORE " + set + ` -FLAGS (` + flag + ")")
	case 10, 11, 12:
		m.command(uid + "STORE " + set + ` +FLAGS (\Deleted)`)
	case 13:
		m.command("EXPUNGE")
	case 14:
		m.command(uid + "COPY " + set + " INBOX")
	case 15:
		m.command(uid + "FETCH " + set + " (UID FLAGS)")
	case 16:
		m.command(uid + "FETCH " + set + " (UID BODY[])")
	case 17:
		m.command(uid + "SEARCH NOT DELETED")
	case 18:
		m.command("FETCH 1:* (UID)")
	case 19:
		m.idle()
	}
}

// learn asks for what a silent STORE did, which the mirror does not work out by itself.
func (m *mirror) learn(uid, set string) {
	if m.bad == "" {
		m.command(uid + "FETCH " + set + " (FLAGS)")
	}
}

func (m *mirror) idle() {
	m.send("i IDLE\r\n")
	for !strings.HasPrefix(m.line1(), "+") {
	}
	m.send("DONE\r\n")
	for !strings.HasPrefix(m.line1(), "i OK") {
	}
}

func (m *mirror) line1() string {
	line := m.line()
	m.take(line, false)
	if m.bad != "" {
		m.t.Errorf("IDLE: %s", m.bad)
	}
	return line
}

// Many clients on two boxes change one mailbox at once. No client is ever told anything that
// contradicts what it was told before, and in the end all have the same mailbox.
func TestStress(t *testing.T) {
	c := newCluster(t, 2)
	const clients, actions = 6, 150
	mirrors := make([]*mirror, clients)
	for i := range mirrors {
		cl := c.boxes[i%2].connect("alice")
		m := &mirror{client: cl, rnd: rand.New(rand.NewPCG(7, uint64(i)))}
		if i >= 4 {
			cl.ok("ENABLE CONDSTORE")
		}
		for _, line := range cl.ok("SELECT INBOX") {
			m.take(line, false)
		}
		mirrors[i] = m
	}
	var wg sync.WaitGroup
	for _, m := range mirrors {
		wg.Add(1)
		go func() {
			defer wg.Done()
			for range actions {
				m.act()
				if m.bad != "" {
					return
				}
			}
		}()
	}
	wg.Wait()
	if t.Failed() {
		return
	}
	for _, m := range mirrors {
		m.command("NOOP")
		// What was never asked for is asked for now; what is known must not be contradicted.
		before := slices.Clone(m.flags)
		m.command("FETCH 1:* (UID FLAGS)")
		for i, f := range before {
			if f != "?" && f != m.flags[i] {
				t.Errorf("message %d (UID %d) has flags %q, the client was told %q", i+1, m.uids[i], m.flags[i], f)
			}
		}
		if !slices.Equal(m.uids, mirrors[0].uids) || !slices.Equal(m.flags, mirrors[0].flags) {
			t.Errorf("clients do not agree: %v %q and %v %q", m.uids, m.flags, mirrors[0].uids, mirrors[0].flags)
		}
	}
	t.Logf("%d messages in the end, the last UID is %d", len(mirrors[0].uids), slices.Max(append(mirrors[0].uids, 0)))
}
