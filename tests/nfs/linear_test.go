package nfs

import (
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
		Server: r.clients[i].name, Retention: retention, Init: i == 0, Interest: true, Maintain: true, Tiny: true, NoFence: noFence, CallTimeout: 3 * time.Minute,
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
// are killed, a client is stopped for longer than the retention, replies get lost, and the clocks differ by hours. What they were
// told must be what some sequence of the same operations would have told them.
func TestHistories(t *testing.T) {
	t.Run("xfs", func(t *testing.T) {
		r := plan{fs: "xfs", clients: 3, clockOff: []int{0, 7, -5}}.boot(t)
		r.tiny(false)
		h := newHistory(r, "history-xfs", 5)
		h.writers(10_500, 4, seed, r.faults(0)...)
		h.finish()
	})
	t.Run("ext4", func(t *testing.T) {
		r := plan{fs: "ext4", clients: 3}.boot(t)
		r.tiny(false)
		h := newHistory(r, "history-ext4", 3)
		h.writers(2_000, 4, seed+1, fault{0.4, "file server killed", r.server.restart})
		h.finish()
	})
}

// faults are what happens in the course of a history. The first of them hits client i.
func (r *rig) faults(i int) []fault {
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
		{0.55, "client killed", func() {
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
