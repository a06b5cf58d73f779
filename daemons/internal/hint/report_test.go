package hint

import (
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"shoal/daemons/internal/clock"
)

// heard are the reports that a server took.
type heard struct {
	mu   sync.Mutex
	all  []string
	came chan struct{}
}

func (h *heard) Heard(user, address string, known bool) {
	h.mu.Lock()
	word := "failed"
	if known {
		word = "known"
	}
	h.all = append(h.all, strings.Join([]string{word, user, address}, " "))
	h.mu.Unlock()
	h.came <- struct{}{}
}

// What one server says of logins arrives at every other box and switch that is listed, and not at itself; a switch takes no hints.
func TestReportsReachEverybody(t *testing.T) {
	c := newCreds(t)
	box, sw := &heard{came: make(chan struct{}, 10)}, &heard{came: make(chan struct{}, 10)}
	st := newStore()
	_, boxAddr := serve(t, c.of("box", "box2"), "127.0.0.1:0", st, func(o *ServerOptions) { o.Reports = box })
	_, switchAddr := serve(t, c.of("switch", "switch1"), "127.0.0.1:0", nil, func(o *ServerOptions) { o.Reports = sw })
	dir := &directory{boxes: map[string]string{"box1": "127.0.0.1:1", "box2": boxAddr}, switches: map[string]string{"switch1": switchAddr}}
	s := sender(t, c.of("box", "box1"), dir, clock.NewFake(time.Unix(1e9, 0)), nil)
	s.Tell("0a1b", "2c3d", false)
	s.Tell("0a1b", "-", true)
	for _, h := range []*heard{box, sw} {
		<-h.came
		<-h.came
		h.mu.Lock()
		if !slices.Equal(h.all, []string{"failed 0a1b 2c3d", "known 0a1b -"}) {
			t.Errorf("heard %q", h.all)
		}
		h.mu.Unlock()
	}
	s.Tell("not a token", "x", false)
	until(t, s.o.Metrics, 2, "dropped_total", "invalid")
}

func FuzzParseReport(f *testing.F) {
	for _, line := range []string{"f 0a1b 2c3d", "k 0a1b -", "f", "f a", "k a b c", "m vol a b", "f  a"} {
		f.Add([]byte(line))
	}
	f.Fuzz(func(t *testing.T, line []byte) {
		it, ok, err := parseReport(line)
		if !ok || err != nil {
			return
		}
		out, ok := appendItem(nil, it)
		if !ok || string(out) != string(line)+"\n" {
			t.Errorf("%q is written as %q", line, out)
		}
	})
}
