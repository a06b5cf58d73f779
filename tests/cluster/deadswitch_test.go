package cluster

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// While both boxes are away, mail is taken by either switch and queued. Then one switch dies for good. When
// the boxes are back, the other switch delivers all of it, each message once, and no operator has to do anything.
func TestLocalMailOfADeadSwitch(t *testing.T) {
	s := own(t)
	from, to := s.Users[0], s.Users[1]
	var boxes []func()
	for _, box := range []string{"box1", "box2"} {
		boxes = append(boxes, s.downed(t, box, kill9))
	}
	for _, box := range []string{"box1", "box2"} {
		s.becomes(t, box, "DOWN")
	}
	const each = 5
	want := map[string]int{}
	for i := range each {
		for _, server := range []string{"switch1", "switch2"} {
			id := fmt.Sprintf("%s-submitted-%d", server, i)
			s.submit(t, from, server, to.Address, message(id, 2000))
			want[id]++
			id = fmt.Sprintf("%s-received-%d", server, i)
			c, err := dialSMTP(s.address("smtp", server))
			if err != nil {
				t.Fatal(err)
			}
			if err := c.begin("sender@example.org", to.Address); err != nil {
				t.Fatal(err)
			}
			var state sent
			if err := c.finish(message(id, 2000), &state); err != nil || !state.queued {
				t.Fatalf("%s: %v, %+v: it cannot be anywhere but in the queue", id, err, state)
			}
			c.Close()
			want[id]++
		}
	}
	if n, out := s.queued(t); n != len(want) {
		t.Errorf("%d entries are queued, want %d:\n%s", n, len(want), out)
	}
	s.downed(t, "switch1", kill9)
	died := time.Now()
	s.becomes(t, "switch1", "DOWN")
	for _, back := range boxes {
		back()
	}
	for _, box := range []string{"box1", "box2"} {
		s.becomes(t, box, "UP")
	}
	reader := s.imap(t, to, "", nil)
	got := map[string]int{}
	wait(t, 3*time.Minute, func() bool {
		clear(got)
		for _, m := range fetchAll(t, reader, "INBOX") {
			got[header(m, "Subject")]++
		}
		return len(got) >= len(want)
	}, func() string {
		out, _ := s.tryShoalctl(t, "queue", "list")
		return fmt.Sprintf("%d messages, there are %d: %v\n%s", len(want), len(got), got, out)
	})
	t.Logf("everything was delivered %v after the death of switch1", time.Since(died).Round(time.Second))
	for id, n := range got {
		if n != 1 || want[id] != 1 {
			t.Errorf("%s came %d times", id, n)
		}
	}
	wait(t, 30*time.Second, func() bool { n, _ := s.queued(t); return n == 0 }, func() string {
		out, _ := s.tryShoalctl(t, "queue", "list")
		return "an empty queue:\n" + out
	})
	if out, err := s.tryShoalctl(t, "status"); err == nil || !strings.Contains(out, "switch1") {
		t.Errorf("status: %v, want that switch1 is not well:\n%s", err, out)
	}
}
