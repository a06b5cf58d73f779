package shoalctl

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"

	"shoal/daemons/internal/dirstore"
	"shoal/daemons/internal/pki"
	"shoal/daemons/internal/queue"
)

// queueDepth is how much waits in the queue of one switch.
type queueDepth struct {
	Entries int        `json:"entries"`
	Oldest  *time.Time `json:"oldest,omitempty"` // when it was accepted
}

// queueDepth asks a switch for its oldest entry, with which it tells how many there are. nil if it does not say.
func (k *control) queueDepth(ctx context.Context, s *serverView) *queueDepth {
	if s.Role != pki.RoleSwitch || s.Status == nil {
		return nil
	}
	var page struct {
		Total   int          `json:"total"`
		Entries []queue.Info `json:"entries"`
	}
	if err := k.call(ctx, http.MethodGet, s.Control, "/v1/queue?skip=0&limit=1", &page); err != nil {
		return nil
	}
	depth := &queueDepth{Entries: page.Total}
	if len(page.Entries) > 0 {
		depth.Oldest = &page.Entries[0].Accepted
	}
	return depth
}

// vaultService is what a vault tells of itself, as far as it is used here.
type vaultService struct {
	Mode        string   `json:"mode"` // "master", "shadow" or "candidate"
	Epoch       uint64   `json:"epoch"`
	Master      string   `json:"master"` // of that epoch
	Lag         float64  `json:"lag_seconds"`
	Entries     int64    `json:"entries"`
	LastContact string   `json:"last_contact"`
	Provider    string   `json:"provider"`
	Voters      []string `json:"voters"`       // of a master
	KnownVoters []string `json:"known_voters"` // of a shadow
	Lease       *struct {
		Held         bool    `json:"held"`
		Seconds      float64 `json:"seconds"`
		GrantsNeeded int     `json:"grants_needed"`
	} `json:"lease"`
	ContextCSN       []string `json:"context_csn"`
	Replication      string   `json:"replication"`
	ReplicationError string   `json:"replication_error"`

	Content *dirstore.Agreement `json:"content"` // by which it has a part of the directory only
}

// replication is how a vault stands among the others.
type replication struct {
	Mode   string  `json:"mode"`
	InStep bool    `json:"in_step"`               // it has every change that any other has
	Lag    float64 `json:"lag_seconds,omitempty"` // from its last change to the newest that it lacks
	State  string  `json:"state,omitempty"`
	Error  string  `json:"error,omitempty"`
}

// compareVaults compares the newest changes of the vaults (contextCSN, RFC 4533 §2.1.3 in the form that LDAP servers
// use: time#count#server#modification), one for each server that writes.
func compareVaults(servers []serverView) {
	views := map[int]vaultService{}
	newest := map[string]string{}
	for i := range servers {
		s := &servers[i]
		if s.Role != pki.RoleVault || s.Status == nil {
			continue
		}
		var v vaultService
		if !decodeService(s.Status.Service, &v) {
			continue
		}
		views[i] = v
		for _, csn := range v.ContextCSN {
			newest[csnServer(csn)] = max(newest[csnServer(csn)], csn)
		}
	}
	for i, v := range views {
		r := &replication{Mode: v.Mode, InStep: true, State: v.Replication, Error: v.ReplicationError}
		own := map[string]string{}
		for _, csn := range v.ContextCSN {
			own[csnServer(csn)] = csn
		}
		for server, csn := range newest {
			if own[server] == csn {
				continue
			}
			r.InStep = false
			if lag := csnTime(csn).Sub(csnTime(own[server])); own[server] != "" && lag > 0 {
				r.Lag = max(r.Lag, lag.Seconds())
			}
		}
		servers[i].Replication = r
	}
}

// decodeService reads the role's own part of a status. What is of another type, as a newer server may have it, is left
// out.
func decodeService(service map[string]any, into any) bool {
	text, err := json.Marshal(service)
	return err == nil && json.Unmarshal(text, into) == nil
}

func csnServer(csn string) string {
	if parts := strings.Split(csn, "#"); len(parts) == 4 {
		return parts[2]
	}
	return ""
}

func csnTime(csn string) time.Time {
	stamp, _, _ := strings.Cut(csn, "#")
	at, err := time.Parse("20060102150405.000000Z", stamp)
	if err != nil {
		return time.Time{}
	}
	return at
}

// volumeUse is how full a volume is.
type volumeUse struct {
	Bytes      uint64 `json:"bytes"`
	BytesFree  uint64 `json:"bytes_free"`
	Inodes     uint64 `json:"inodes"`
	InodesFree uint64 `json:"inodes_free"`
}

// detail says in a few words what matters of a server of this role.
func (s *serverView) detail(now time.Time) string {
	switch {
	case s.Queue != nil && s.Queue.Entries == 0:
		return "queue empty"
	case s.Queue != nil && s.Queue.Oldest != nil:
		return fmt.Sprintf("queue %d, oldest %s", s.Queue.Entries, ageText(now.Sub(*s.Queue.Oldest)))
	case s.Queue != nil:
		return fmt.Sprintf("queue %d", s.Queue.Entries)
	case s.Replication != nil:
		return s.Replication.text()
	case s.Role == pki.RoleBox && s.Status != nil:
		var box struct {
			Use map[string]volumeUse `json:"volume_use"`
		}
		if !decodeService(s.Status.Service, &box) {
			return ""
		}
		var all []string
		for _, name := range slices.Sorted(maps.Keys(box.Use)) {
			if u := box.Use[name]; u.Bytes > 0 {
				all = append(all, fmt.Sprintf("%s %d%% of %s", name, (u.Bytes-u.BytesFree)*100/u.Bytes, bytesText(int64(u.Bytes))))
			}
		}
		return cut(strings.Join(all, ", "), 40)
	}
	return ""
}

func (r *replication) text() string {
	switch {
	case r.Mode == "master" && r.InStep:
		return "master"
	case r.InStep:
		return r.Mode + ", in step"
	case r.Lag > 0:
		return fmt.Sprintf("%s, %s behind", r.Mode, ageText(time.Duration(r.Lag*float64(time.Second))))
	}
	return r.Mode + ", behind"
}
