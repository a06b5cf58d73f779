package shoalctl

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"shoal/daemons/internal/kit"
	"shoal/daemons/internal/pki"
	"shoal/daemons/internal/queue"
)

// fakeQueue is a switch's part of the control API.
type fakeQueue struct {
	mu      sync.Mutex
	server  string
	entries []queue.Info
	retried []string
}

func (f *fakeQueue) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	defer f.mu.Unlock()
	mux := http.NewServeMux()
	index := func(r *http.Request) int {
		return slices.IndexFunc(f.entries, func(i queue.Info) bool { return i.ID == r.PathValue("id") })
	}
	mux.HandleFunc("GET /v1/queue", func(w http.ResponseWriter, r *http.Request) {
		skip, _ := strconv.Atoi(r.FormValue("skip"))
		limit, _ := strconv.Atoi(r.FormValue("limit"))
		page := f.entries[min(skip, len(f.entries)):]
		kit.WriteJSON(w, 200, map[string]any{"server": f.server, "total": len(f.entries), "entries": page[:min(limit, len(page))]})
	})
	mux.HandleFunc("POST /v1/queue/retry", func(w http.ResponseWriter, r *http.Request) {
		f.retried = append(f.retried, "all")
		kit.WriteJSON(w, 200, map[string]any{"retried": len(f.entries)})
	})
	one := func(w http.ResponseWriter, r *http.Request) {
		i := index(r)
		if i < 0 {
			kit.WriteError(w, 404, queue.ErrNoEntry)
			return
		}
		switch r.Method {
		case "GET":
			kit.WriteJSON(w, 200, struct {
				queue.Info
				Headers string `json:"headers"`
			}{f.entries[i], "Subject: hello\r\n\x1b[2J: x\r\n"})
			return
		case "POST":
			f.retried = append(f.retried, f.entries[i].ID)
		case "DELETE":
			if f.entries[i].Active {
				kit.WriteError(w, 409, queue.ErrActive)
				return
			}
			f.entries = slices.Delete(f.entries, i, i+1)
		}
		kit.WriteJSON(w, 200, map[string]any{})
	}
	mux.HandleFunc("GET /v1/queue/{id}", one)
	mux.HandleFunc("POST /v1/queue/{id}/retry", one)
	mux.HandleFunc("DELETE /v1/queue/{id}", one)
	mux.ServeHTTP(w, r)
}

func entry(id, from, to string, age time.Duration) queue.Info {
	return queue.Info{ID: id, From: from, Recipients: []queue.Recipient{{Address: to}}, Size: 1234,
		Accepted: time.Now().Add(-age).Truncate(time.Second), Attempts: 2, Reason: "450 later", Due: time.Now().Add(90 * time.Second)}
}

// queueSite has two switches with entries.
func queueSite(t *testing.T) (*site, *fakeQueue, *fakeQueue) {
	s := newSite(t)
	one := &fakeQueue{server: "switch1", entries: []queue.Info{
		entry("switch1.b.1.0", "alice@example.test", "x@far.test", 2*time.Hour),
		entry("switch2.a.9.0", "", "bob@example.test", 72*time.Hour), // adopted from switch2
	}}
	two := &fakeQueue{server: "switch2", entries: []queue.Info{entry("switch2.c.1.0", "carol@example.test", "Y@Far.Test", time.Minute)}}
	s.server(pki.RoleSwitch, "switch1", one)
	s.server(pki.RoleSwitch, "switch2", two)
	s.server(pki.RoleBox, "box1", http.NotFoundHandler()) // must not be asked
	return s, one, two
}

func ids(t *testing.T, out string) []string {
	t.Helper()
	var v queueView
	if err := json.Unmarshal([]byte(out), &v); err != nil {
		t.Fatalf("%v in %q", err, out)
	}
	all := []string{}
	for _, e := range v.Entries {
		all = append(all, e.Server+"/"+e.ID)
	}
	return all
}

func TestQueueListJoinsAndFilters(t *testing.T) {
	s, one, _ := queueSite(t)
	for _, c := range []struct {
		args string
		want []string
	}{
		{"", []string{"switch1/switch2.a.9.0", "switch1/switch1.b.1.0", "switch2/switch2.c.1.0"}},
		{"--to @far.test", []string{"switch1/switch1.b.1.0", "switch2/switch2.c.1.0"}},
		{"--to y@far.test", []string{"switch2/switch2.c.1.0"}},
		{"--from <>", []string{"switch1/switch2.a.9.0"}},
		{"--older 1h", []string{"switch1/switch2.a.9.0", "switch1/switch1.b.1.0"}},
		{"--older 2d", []string{"switch1/switch2.a.9.0"}},
		{"--from @example.test --older 1h", []string{"switch1/switch1.b.1.0"}},
		{"--from nobody@example.test", []string{}},
	} {
		code, out, errOut := s.run("", append([]string{"queue", "list", "--json"}, strings.Fields(c.args)...)...)
		if got := ids(t, out); code != 0 || !slices.Equal(got, c.want) {
			t.Errorf("%s: got %d, %q (%s), want %q", c.args, code, got, errOut, c.want)
		}
	}
	code, out, _ := s.run("", "queue", "list", "--to", "@far.test")
	if code != 0 || !strings.Contains(out, "450 later") || !strings.Contains(out, "2 of 3 entries") {
		t.Errorf("exit code %d, table:\n%s", code, out)
	}
	// more than a page
	for i := range 2*queuePage + 7 {
		one.entries = append(one.entries, entry(fmt.Sprintf("switch1.d.%d.0", i), "a@b", "c@d", time.Second))
	}
	if _, out, _ := s.run("", "queue", "list", "--json"); len(ids(t, out)) != 2*queuePage+10 {
		t.Errorf("%d entries were listed, not all of them", len(ids(t, out)))
	}
}

func TestQueueOfASilentSwitch(t *testing.T) {
	s, _, _ := queueSite(t)
	s.list(pki.RoleSwitch, "switch3", nobody(t))
	code, out, errOut := s.run("", "queue", "list", "--json")
	if code != exitUnreachable || len(ids(t, out)) != 3 || !strings.Contains(errOut, "switch3") || !strings.Contains(out, `"unreachable"`) {
		t.Errorf("exit code %d, %s, %s", code, out, errOut)
	}
	// nobody has it, but one could not be asked: that is no "does not exist"
	if code, _, errOut := s.run("", "queue", "show", "switch3.x.1.0"); code != exitUnreachable || !strings.Contains(errOut, "switch3") {
		t.Errorf("exit code %d, %s", code, errOut)
	}
	if code, _, _ := s.run("", "queue", "show", "switch1.b.1.0"); code != 0 {
		t.Errorf("an entry of a switch that answers: exit code %d", code)
	}
}

func TestQueueShow(t *testing.T) {
	s, _, _ := queueSite(t)
	code, out, errOut := s.run("", "queue", "show", "switch2.a.9.0")
	if code != 0 || !strings.Contains(out, "Subject: hello") || !strings.Contains(out, "<bob@example.test>") || !strings.Contains(out, "switch    switch1") {
		t.Errorf("exit code %d, %s, %s", code, out, errOut)
	}
	if strings.Contains(out, "\x1b") {
		t.Errorf("control characters of a message reach the terminal: %q", out)
	}
	if code, _, errOut := s.run("", "queue", "show", "switch1.zz.1.0"); code != exitName {
		t.Errorf("an entry that is not there: exit code %d, %s", code, errOut)
	}
}

func TestQueueRetry(t *testing.T) {
	s, one, two := queueSite(t)
	if code, _, errOut := s.run("", "queue", "retry", "switch2.a.9.0", "switch2.c.1.0"); code != 0 {
		t.Fatal(errOut)
	}
	if code, _, errOut := s.run("", "queue", "retry", "--to", "x@far.test"); code != 0 {
		t.Fatal(errOut)
	}
	if code, _, errOut := s.run("", "queue", "retry", "--all"); code != 0 {
		t.Fatal(errOut)
	}
	if !slices.Equal(one.retried, []string{"switch2.a.9.0", "switch1.b.1.0", "all"}) || !slices.Equal(two.retried, []string{"switch2.c.1.0", "all"}) {
		t.Errorf("retried: %q, %q", one.retried, two.retried)
	}
	for _, args := range []string{"queue retry", "queue retry --all x.y.1.0", "queue retry --older soon"} {
		if code, _, _ := s.run("", strings.Fields(args)...); code != exitUsage {
			t.Errorf("%s: exit code %d", args, code)
		}
	}
	code, out, _ := s.run("", "queue", "retry", "switch1.zz.1.0", "switch1.b.1.0")
	if code != exitName || !strings.Contains(out, "1 entries retried") {
		t.Errorf("one of two is not there: exit code %d, %s", code, out)
	}
}

func TestQueueDelete(t *testing.T) {
	s, one, two := queueSite(t)
	if code, _, errOut := s.run("y\n", "queue", "delete", "--to", "@far.test"); code != exitUsage || !strings.Contains(errOut, "--yes") {
		t.Errorf("without a terminal: exit code %d, %s", code, errOut)
	}
	if len(one.entries) != 2 || len(two.entries) != 1 {
		t.Fatal("entries are gone without a yes")
	}
	two.entries[0].Active = true
	code, out, errOut := s.run("", "queue", "delete", "--to", "@far.test", "--yes")
	if code != exitFailed || !strings.Contains(out, "1 entries deleted") || !strings.Contains(errOut, "under way") {
		t.Errorf("exit code %d, %s, %s", code, out, errOut)
	}
	if len(one.entries) != 1 || one.entries[0].ID != "switch2.a.9.0" {
		t.Errorf("left: %+v", one.entries)
	}
	if code, _, errOut := s.run("", "queue", "delete", "switch2.a.9.0"); code != 0 || len(one.entries) != 0 {
		t.Errorf("a single entry: exit code %d, %s", code, errOut)
	}
	if code, _, _ := s.run("", "queue", "delete"); code != exitUsage {
		t.Error("delete of nothing in particular is no usage error")
	}
}

func TestAges(t *testing.T) {
	for text, want := range map[string]time.Duration{"30m": 30 * time.Minute, "3d": 72 * time.Hour, "0d": 0} {
		if got, err := parseAge(text); err != nil || got != want {
			t.Errorf("%s: got %v, %v", text, got, err)
		}
	}
	for _, text := range []string{"", "d", "-1d", "-5m", "3 weeks", "99999999999d"} {
		if got, err := parseAge(text); err == nil {
			t.Errorf("%q: got %v", text, got)
		}
	}
	for _, c := range []struct {
		d    time.Duration
		want string
	}{{-time.Second, "0s"}, {59 * time.Second, "59s"}, {61 * time.Second, "1m"}, {90 * time.Minute, "1h30m"}, {50 * time.Hour, "2d02h"}} {
		if got := ageText(c.d); got != c.want {
			t.Errorf("%v: got %s, want %s", c.d, got, c.want)
		}
	}
	if err := silenceError(nil); err != nil {
		t.Error(err)
	}
	if err := silenceError([]silence{{"a", "b"}}); !errors.Is(err, errUnreachable) {
		t.Error(err)
	}
}
