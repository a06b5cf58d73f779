package nfs

import (
	"strings"
	"syscall"
	"testing"
	"time"

	"shoal/daemons/nfsguest/proto"
)

// TestBrokenIsCaught: the check of the histories finds a store without the fence, clients with the mount options that they have by
// default, and a file server that acknowledges what is not on its disk. It shows that TestHistories can fail, and why the rules
// and options are what they are.
func TestBrokenIsCaught(t *testing.T) {
	for _, c := range []struct {
		name    string
		plan    plan
		noFence bool
		ops     int
		faults  func(r *rig, h *history) []fault
	}{
		{name: "no fence", noFence: true, ops: 1600, faults: func(r *rig, h *history) (list []fault) {
			for _, at := range []float64{0.1, 0.3, 0.5, 0.7} {
				list = append(list, fault{at, "client stopped for longer than the retention, the other one compacts", func() {
					r.clients[1].signal(syscall.SIGSTOP)
					<-time.After(2 * retention)
					for range 3 {
						h.ask(r.clients[0], r.clients[0].name+".compactor", 50, proto.Do{Kind: "maintain"})
					}
					r.clients[1].signal(syscall.SIGCONT)
				}})
			}
			return list
		}},
		{name: "default mount options", ops: 700, plan: plan{mount: "vers=4.2,hard,proto=tcp"}},
		{name: "async export", plan: plan{export: strings.Replace(export, "sync", "async", 1)}, ops: 700, faults: func(r *rig, _ *history) []fault {
			return []fault{
				{0.2, "what there is by now reaches the disk", func() { r.server.run("sync") }},
				{0.6, "file server killed", r.server.restart},
			}
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.plan.fs, c.plan.clients = "xfs", 2
			r := c.plan.boot(t)
			r.tiny(c.noFence)
			for round := range 6 {
				h := newHistory(r, "broken-"+string('a'+rune(round)), 2)
				var faults []fault
				if c.faults != nil {
					faults = c.faults(r, h)
				}
				h.writers(c.ops, 4, seed+uint64(round), faults...)
				h.settle()
				for _, x := range h.verdict() {
					if strings.Contains(x, noOrder) {
						t.Logf("as expected: %s", x)
						return
					}
				}
			}
			t.Error("every history had an order that explains it: the check finds nothing")
		})
	}
}
