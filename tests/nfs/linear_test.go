package nfs

import (
	"fmt"
	"os"
	"sync"
	"syscall"
	"testing"
	"time"

	"shoal/daemons/nfsguest/proto"
)

// retention of the tests: seconds, so that what takes a day takes place all the while.
const retention = 2 * time.Second

// tiny opens a store on every client, with short segments.
func (r *rig) tiny(noFence bool) {
	r.t.Helper()
	for i := range r.clients {
		r.reopen(i, noFence)
	}
}

func (r *rig) reopen(i int, noFence bool) {
	r.t.Helper()
	call[proto.None](r.clients[i], "Open", proto.OpenArgs{
		Server: r.clients[i].name, Retention: retention, Init: i == 0, Interest: true, Maintain: true, Tiny: true, NoFence: noFence, Mortal: true, CallTimeout: 3 * time.Minute,
	})
}

func (k *kernel) dead() bool {
	select {
	case <-k.done:
		return true
	default:
		return k.away.Load()
	}
}

// TestHistories: several writers in each of three kernels do all that can be done to mailboxes, while the file server and a client
// are killed, a client is stopped for longer than the retention, replies get lost, all compact at once, and the clocks differ by
// hours. What they were told must be what some sequence of the same operations would have told them.
//
// With SHOAL_NFS_SOAK set to a duration (make soak) it goes on with other histories for so long.
func TestHistories(t *testing.T) {
	var soak time.Duration
	if text := os.Getenv("SHOAL_NFS_SOAK"); text != "" {
		var err error
		if soak, err = time.ParseDuration(text); err != nil {
			t.Fatal("SHOAL_NFS_SOAK: ", err)
		}
	}
	t.Run("xfs", func(t *testing.T) {
		r := plan{fs: "xfs", clients: 3, clockOff: []int{0, 7, -5}}.boot(t)
		r.tiny(false)
		h := newHistory(r, "history-xfs", 5)
		h.writers(8_500, 4, seed, h.faults(0)...)
		h.finish()
		r.soak(soak / 2)
	})
	t.Run("ext4", func(t *testing.T) {
		r := plan{fs: "ext4", clients: 3}.boot(t)
		r.tiny(false)
		h := newHistory(r, "history-ext4", 3)
		h.writers(2_200, 4, seed+1, fault{0.4, "file server killed", r.server.restart})
		h.finish()
		r.soak(soak / 2)
	})
}

// soak runs further histories, each with an account of its own and with other clients hit.
func (r *rig) soak(d time.Duration) {
	began := time.Now()
	for n := 1; time.Since(began) < d && !r.t.Failed(); n++ {
		account := fmt.Sprintf("soak-%05d", n)
		h := newHistory(r, account, 4)
		h.writers(10_000, 4, uint64(began.UnixNano()), h.faults(n)...)
		h.finish()
		if !r.t.Failed() {
			r.server.run("sh", "-c", "rm -rf "+proto.Disk+"/export/a/*/"+account)
		}
	}
}

// faults are what happens in the course of a history. The first of them hits client i.
func (h *history) faults(i int) []fault {
	r := h.r
	k := func(n int) *kernel { return r.clients[(i+n)%len(r.clients)] }
	return []fault{
		{0.10, "file server killed", r.server.restart},
		{0.25, "client stopped for longer than the retention", func() {
			k(1).signal(syscall.SIGSTOP)
			<-time.After(3 * retention)
			k(1).signal(syscall.SIGCONT)
		}},
		{0.40, "replies to a client lost", func() {
			r.server.run("ip", "route", "add", "blackhole", k(2).addr()+"/32")
			<-time.After(2 * retention)
			r.server.run("ip", "route", "del", "blackhole", k(2).addr()+"/32")
		}},
		{0.50, "three compactors without pause", func() {
			var all sync.WaitGroup
			for c, k := range r.clients {
				all.Go(func() {
					for range 4 {
						h.ask(k, k.name+".compactor", 50+c, proto.Do{Kind: "maintain"})
					}
				})
			}
			all.Wait()
		}},
		{0.60, "client killed", func() {
			k(2).away.Store(true)
			k(2).restart()
			r.reopen((i+2)%len(r.clients), false)
			k(2).away.Store(false)
		}},
		{0.70, "client cut off for longer than the retention", func() {
			k(0).plug(false)
			<-time.After(3 * retention)
			k(0).plug(true)
		}},
		{0.85, "file server killed", r.server.restart},
	}
}

// finish reads what is there in the end, and holds all against the models.
func (h *history) finish() {
	h.r.t.Helper()
	h.settle()
	began := time.Now()
	for _, x := range h.verdict() {
		h.r.t.Error(x)
	}
	h.r.t.Logf("%v; checked in %v", h, time.Since(began).Round(time.Millisecond))
	h.r.verify()
}

const seed = 20260101

// verify lets the store check the volume, from a client that reads everything.
func (r *rig) verify() {
	r.t.Helper()
	v := call[proto.VerifyReply](r.clients[len(r.clients)-1], "Verify", proto.None{})
	r.t.Logf("verified: %d messages, %d records, %d snapshots, %d unreferenced files, %d torn", v.Messages, v.Records, v.Snapshots, v.Unreferenced, v.Torn)
	for _, p := range v.Problems {
		r.t.Error(p)
	}
}
