package nfs

import (
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestBrokenIsCaught: the check of the histories finds a store without the fence, clients with the mount options that they have by
// default, and a file server that acknowledges what is not on its disk. It shows that TestHistories can fail, and why the rules
// and options are what they are.
func TestBrokenIsCaught(t *testing.T) {
	for _, c := range []struct {
		name    string
		plan    plan
		noFence bool
		faults  func(r *rig) []fault
	}{
		{name: "no fence", noFence: true, faults: func(r *rig) []fault {
			stop := fault{0.3, "client stopped for longer than the retention", func() {
				r.clients[1].signal(syscall.SIGSTOP)
				<-time.After(3 * retention)
				r.clients[1].signal(syscall.SIGCONT)
			}}
			again := stop
			again.at = 0.8
			return []fault{stop, again}
		}},
		{name: "default mount options", plan: plan{mount: "vers=4.2,hard,proto=tcp"}},
		{name: "async export", plan: plan{export: strings.Replace(export, "sync", "async", 1)}, faults: func(r *rig) []fault {
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
			for round := range 3 {
				h := newHistory(r, "broken-"+string('a'+rune(round)), 2)
				var faults []fault
				if c.faults != nil {
					faults = c.faults(r)
				}
				h.writers(700, 4, seed+uint64(round), faults...)
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
