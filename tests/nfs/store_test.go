package nfs

import (
	"fmt"
	"syscall"
	"testing"
	"time"

	"shoal/daemons/nfsguest/proto"
)

const account = "nfs-account-1"

// open opens a store on every client; the first makes the volume.
func (r *rig) open(retention time.Duration) {
	r.t.Helper()
	for i, k := range r.clients {
		call[proto.None](k, "Open", r.openArgs(i, retention))
	}
}

func (r *rig) openArgs(i int, retention time.Duration) proto.OpenArgs {
	return proto.OpenArgs{Server: r.clients[i].name, Retention: retention, Init: i == 0, Interest: true, Maintain: true}
}

// TestFresh: what one client was acknowledged, every other sees in its next look, in either direction.
func TestFresh(t *testing.T) {
	r := boot(t, "xfs", 3)
	if stale := r.relay(100); stale != "" {
		t.Fatal(stale)
	}
}

// TestOtherMountOptionsAreCaught: with the mount options that clients have by default the same look finds old states. It
// shows that TestFresh can fail, and why the options are what they are.
func TestOtherMountOptionsAreCaught(t *testing.T) {
	r := plan{fs: "xfs", clients: 3, mount: "vers=4.2,hard,proto=tcp"}.boot(t)
	stale := r.relay(20)
	if stale == "" {
		t.Fatal("20 deliveries were seen by all clients at once: the check finds nothing")
	}
	t.Log("as expected: ", stale)
}

// relay delivers n messages, each by the next client, and after each looks from all clients. It tells who saw an old state.
func (r *rig) relay(n int) (stale string) {
	r.t.Helper()
	r.open(0)
	next := uint32(0)
	for i := range n {
		writer := r.clients[i%len(r.clients)]
		got := call[proto.OpReply](writer, "Op", proto.OpArgs{Account: account, Box: "INBOX", Kind: "deliver", Size: 2000, Token: fmt.Sprint(i)})
		if next != 0 && got.UIDNext != next+1 {
			return fmt.Sprintf("delivery %d by %s: UIDNEXT %d, want %d", i, writer.name, got.UIDNext, next+1)
		}
		next = got.UIDNext
		for _, k := range r.clients {
			if s := call[proto.OpReply](k, "Op", proto.OpArgs{Account: account, Box: "INBOX", Kind: "poll"}); s.UIDNext != next {
				return fmt.Sprintf("delivery %d: %s sees UIDNEXT %d after %s was told %d", i, k.name, s.UIDNext, writer.name, next)
			}
		}
	}
	return ""
}

// TestConcurrent: several writers on each of three clients change the same mailboxes while the file server dies and comes
// back. Retention is seconds, so that snapshots, floors and removal happen all the while.
func TestConcurrent(t *testing.T) {
	for _, fs := range []string{"xfs", "ext4"} {
		t.Run(fs, func(t *testing.T) {
			r := boot(t, fs, 3)
			r.underLoad(40*time.Second, []fault{
				{10 * time.Second, r.server.restart},
				{25 * time.Second, r.server.restart},
			})
		})
	}
}

// TestClients: one client is stopped for longer than the retention and its lease, and goes on where it was; one loses its
// network for a while; one is killed and comes back.
func TestClients(t *testing.T) {
	r := boot(t, "xfs", 3)
	r.underLoad(50*time.Second, []fault{
		{5 * time.Second, func() { r.clients[1].signal(syscall.SIGSTOP) }},
		{9 * time.Second, func() { r.clients[2].link("down") }},
		{14 * time.Second, func() { r.clients[2].link("up") }},
		{22 * time.Second, func() { r.clients[1].signal(syscall.SIGCONT) }},
		{27 * time.Second, func() { r.restartClient(2, 20*time.Second) }},
	})
}

// A fault is what happens to the rig so long after the load began.
type fault struct {
	after time.Duration
	do    func()
}

var boxes = []string{"INBOX", "Archive", "Lists"}

// underLoad has all clients write for some time, with faults, and then holds what they were told against what is there.
func (r *rig) underLoad(d time.Duration, faults []fault) {
	r.t.Helper()
	r.open(4 * time.Second)
	r.ledger = newLedger()
	for i := range r.clients {
		r.startLoad(i, 0, d)
	}
	began := time.Now()
	for _, f := range faults {
		<-time.After(time.Until(began.Add(f.after)))
		f.do()
	}
	for _, over := range r.over {
		select {
		case <-over:
		case <-time.After(time.Until(began.Add(d + time.Minute))):
			r.t.Fatal("the load does not come to an end")
		}
	}
	final := r.agree()
	for _, x := range r.ledger.check(final) {
		r.t.Error(x)
	}
	r.verify()
	r.t.Log(r.ledger)
	if len(r.ledger.told) < 300 {
		r.t.Errorf("%d operations acknowledged: too few to show anything", len(r.ledger.told))
	}
}

func (r *rig) startLoad(i, run int, d time.Duration) {
	r.t.Helper()
	k := r.clients[i]
	r.over = append(r.over, r.ledger.listen(k, run))
	call[proto.None](k, "Start", proto.RunArgs{
		Writers: 3, For: d, Seed: seed + uint64(run), Boxes: boxes, Account: account, Index: i, Clients: len(r.clients), Run: run,
	})
}

const seed = 20260101

func (r *rig) restartClient(i int, load time.Duration) {
	r.t.Helper()
	k := r.clients[i]
	k.restart()
	call[proto.None](k, "Open", r.openArgs(i, 4*time.Second))
	r.startLoad(i, 1, load)
}

// agree returns the states of mailboxes, which must be the same on every client, warm and with nothing cached.
func (r *rig) agree() map[string]proto.State {
	r.t.Helper()
	final := map[string]proto.State{}
	for _, box := range boxes {
		for i, k := range r.clients {
			for _, fresh := range []bool{false, true} {
				s := call[proto.State](k, "State", proto.StateArgs{Account: account, Box: box, Content: i == 0 && !fresh, Fresh: fresh})
				if i == 0 && !fresh {
					final[box] = s
					continue
				}
				if got, want := summary(s), summary(final[box]); got != want {
					r.t.Errorf("%s sees %s (fresh: %v) as\n%.600s\n%s sees\n%.600s", k.name, box, fresh, got, r.clients[0].name, want)
				}
			}
		}
		r.t.Logf("%s: %d messages, UIDNEXT %d, MODSEQ %d", box, len(final[box].Messages), final[box].UIDNext, final[box].ModSeq)
	}
	return final
}

func summary(s proto.State) string {
	out := fmt.Sprintf("UIDVALIDITY %d UIDNEXT %d MODSEQ %d:", s.UIDValidity, s.UIDNext, s.ModSeq)
	for _, m := range s.Messages {
		out += fmt.Sprintf(" %d/%d/%d/%v", m.UID, m.ModSeq, m.Flags, m.Keywords)
	}
	return out
}

// verify lets the store check the volume, from a client that reads everything.
func (r *rig) verify() {
	r.t.Helper()
	v := call[proto.VerifyReply](r.clients[len(r.clients)-1], "Verify", proto.None{})
	r.t.Logf("verified: %d messages, %d records, %d snapshots, %d unreferenced files, %d torn", v.Messages, v.Records, v.Snapshots, v.Unreferenced, v.Torn)
	for _, p := range v.Problems {
		r.t.Error(p)
	}
}
