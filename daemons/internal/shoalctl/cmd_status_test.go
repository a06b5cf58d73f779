package shoalctl

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"time"

	"shoal/daemons/internal/kit"
	"shoal/daemons/internal/pki"
	"shoal/daemons/internal/queue"
)

func TestStatusTellsQueueReplicationAndVolumes(t *testing.T) {
	s := newSite(t)
	add := func(role, name string, service map[string]any, q http.Handler) {
		mux := http.NewServeMux()
		mux.HandleFunc("GET /v1/status", func(w http.ResponseWriter, _ *http.Request) {
			kit.WriteJSON(w, 200, kit.Status{Server: name, Version: "1.0-17-gabcdef012345-dirty", Ready: true,
				Started: time.Now().Add(-26 * time.Hour), Service: service})
		})
		if q != nil {
			mux.Handle("/v1/queue", q)
		}
		s.server(role, name, mux)
	}
	csn := func(time string) []string { return []string{"20261123" + time + ".000000Z#000000#000#000000"} }
	add(pki.RoleVault, "vault1", map[string]any{"mode": "master", "context_csn": csn("150110")}, nil)
	add(pki.RoleVault, "vault2", map[string]any{"mode": "shadow", "context_csn": csn("150110")}, nil)
	add(pki.RoleVault, "vault3", map[string]any{"mode": "shadow", "context_csn": csn("150000")}, nil)
	add(pki.RoleVault, "vault4", map[string]any{"mode": "shadow", "context_csn": []string{}}, nil)
	add(pki.RoleSwitch, "switch1", nil, &fakeQueue{server: "switch1", entries: []queue.Info{
		entry("a", "x@y", "z@z", 3*time.Hour), entry("b", "x@y", "z@z", time.Minute)}})
	add(pki.RoleSwitch, "switch2", nil, &fakeQueue{server: "switch2"})
	add(pki.RoleSwitch, "switch3", nil, nil) // of an older version
	add(pki.RoleBox, "box1", map[string]any{"volume_use": map[string]any{
		"vol02": map[string]any{"bytes": 1 << 40, "bytes_free": 1 << 39}, "vol01": map[string]any{"bytes": 1000, "bytes_free": 250}}}, nil)
	s.list(pki.RoleBox, "box2", nobody(t))

	code, out, errOut := s.run("", "status")
	if code != exitFailed || !strings.Contains(errOut, "not everything is well") {
		t.Errorf("exit code %d, %s", code, errOut)
	}
	rows := map[string]string{}
	for line := range strings.Lines(out) {
		name, rest, _ := strings.Cut(strings.TrimSpace(line), " ")
		rows[name] += strings.Join(strings.Fields(rest), " ")
		if n := len([]rune(strings.TrimRight(line, "\n"))); n > 100 {
			t.Errorf("%d columns: %s", n, line)
		}
	}
	for name, want := range map[string]string{
		"vault1":  "vault ready 1.0-17-gabcdef01234… 1d02h master",
		"vault2":  "shadow, in step",
		"vault3":  "shadow, 1m behind",
		"vault4":  "shadow, behind",
		"switch1": "queue 2, oldest 3h00m",
		"switch2": "queue empty",
		"switch3": "1d02h -",
		"box1":    "vol01 75% of 1000 B, vol02 50% of 1.0 T",
		"box2":    "box unreachable - - -",
		"box2:":   "refused",
	} {
		if !strings.Contains(rows[name], want) {
			t.Errorf("%s: %q is not in %q", name, want, rows[name])
		}
	}
	_, out, _ = s.run("", "status", "--json")
	var v statusView
	if err := json.Unmarshal([]byte(out), &v); err != nil {
		t.Fatal(err)
	}
	for _, server := range v.Servers {
		switch server.Name {
		case "vault3":
			if r := server.Replication; r == nil || r.InStep || r.Lag != 70 {
				t.Errorf("vault3: %+v", r)
			}
		case "switch1":
			if server.Queue == nil || server.Queue.Entries != 2 || time.Since(*server.Queue.Oldest) < 2*time.Hour {
				t.Errorf("switch1: %+v", server.Queue)
			}
		case "switch3":
			if server.Queue != nil {
				t.Errorf("switch3 tells nothing of its queue, and yet: %+v", server.Queue)
			}
		}
	}
}
