package shoalctl

import (
	"context"
	"net/http"
	"slices"
	"sync/atomic"
	"testing"

	"shoal/daemons/internal/kit"
	"shoal/daemons/internal/pki"
)

// A change is waited for until the vaults that answer have it, and no longer.
func TestChangesAreWaitedFor(t *testing.T) {
	s := newSite(t)
	before, after := "20261123150000.000000Z#000000#000#000000", "20261123150110.000000Z#000000#000#000000"
	vault := func(name string, catchUp int64) *atomic.Int64 {
		asked := new(atomic.Int64)
		mux := http.NewServeMux()
		mux.HandleFunc("GET /v1/status", func(w http.ResponseWriter, _ *http.Request) {
			csn := before
			if n := asked.Add(1); catchUp > 0 && n >= catchUp {
				csn = after
			}
			kit.WriteJSON(w, 200, kit.Status{Server: name, Ready: true, Service: map[string]any{"mode": "shadow", "context_csn": []string{csn}}})
		})
		s.server(pki.RoleVault, name, mux)
		return asked
	}
	vault("vault1", 1)
	slow := vault("vault2", 4)
	s.list(pki.RoleVault, "vault3", nobody(t))
	c, err := (&tool{config: s.config}).load()
	if err != nil {
		t.Fatal(err)
	}
	if late := c.settle(context.Background(), s.servers); len(late) > 0 {
		t.Errorf("%q are late", late)
	}
	if n := slow.Load(); n != 4 {
		t.Errorf("the shadow was asked %d times, and had the change at the fourth", n)
	}
	vault("vault4", 0)
	if late := c.settle(context.Background(), s.servers); !slices.Equal(late, []string{"vault4"}) {
		t.Errorf("%q are late, want vault4", late)
	}
}
