package nfs

import (
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"shoal/daemons/nfsguest/proto"
)

// TestClientDiesAtFileOperation: the power of a client is cut before its n-th file operation, n at random, again and again, in
// the middle of whatever its writers and its maintenance do; the other client goes on. The history of both must be explained.
func TestClientDiesAtFileOperation(t *testing.T) {
	const deaths = 8
	r := plan{fs: "xfs", clients: 2}.boot(t)
	r.tiny(false)
	h := newHistory(r, "dying-account", 3)
	rng := rand.New(rand.NewPCG(seed, 1))
	at := map[string]int{} // kinds of operations that were never carried out
	var faults []fault
	for i := range deaths {
		victim := i % 2
		faults = append(faults, fault{float64(i) * 40 / (1 << 20), "client dies", func() {
			k := r.clients[victim]
			call[proto.None](k, "Die", rng.IntN(300))
			select {
			case <-k.done:
			case <-time.After(callTime):
				t.Fatalf("%s does not die: its writers do nothing", k.name)
			}
			k.away.Store(true)
			_, last, _ := strings.Cut(k.console.tail(400), proto.Dies)
			last = strings.TrimSpace(strings.SplitN(last, "\n", 2)[0])
			t.Logf("%s died before %s", k.name, last)
			if f := strings.Fields(last); len(f) > 3 {
				at[f[3]]++
			}
			k.restart()
			r.reopen(victim, false)
			k.away.Store(false)
			if i == deaths-1 {
				h.mu.Lock()
				h.total = h.done + 100
				h.mu.Unlock()
			}
		}})
	}
	h.writers(1<<20, 2, seed+2, faults...)
	h.finish()
	t.Logf("died before: %v", at)
	if len(at) < 3 {
		t.Errorf("the deaths were all of one kind: %v", at)
	}
}
