package nfs

import (
	"fmt"
	"testing"
	"time"

	"shoal/daemons/nfsguest/proto"
)

const account = "nfs-account-1"

// open opens a store on every client; the first makes the volume.
func (r *rig) open(retention time.Duration) {
	r.t.Helper()
	for i, k := range r.clients {
		call[proto.None](k, "Open", proto.OpenArgs{Server: k.name, Retention: retention, Init: i == 0, Interest: true, Maintain: true})
	}
}

// TestFresh: what one client was acknowledged, every other sees in its next look, in either direction.
func TestFresh(t *testing.T) {
	r := boot(t, "xfs", 3)
	r.open(0)
	next := uint32(0)
	for i := range 100 {
		writer := r.clients[i%len(r.clients)]
		got := call[proto.OpReply](writer, "Op", proto.OpArgs{Account: account, Box: "INBOX", Kind: "deliver", Size: 2000, Token: fmt.Sprint(i)})
		if next != 0 && got.UIDNext != next+1 {
			t.Fatalf("delivery %d: UIDNEXT %d, want %d", i, got.UIDNext, next+1)
		}
		next = got.UIDNext
		for _, k := range r.clients {
			if s := call[proto.OpReply](k, "Op", proto.OpArgs{Account: account, Box: "INBOX", Kind: "poll"}); s.UIDNext != next {
				t.Fatalf("%s sees UIDNEXT %d after %s was told %d", k.name, s.UIDNext, writer.name, next)
			}
		}
	}
}

// TestConcurrent: several writers on each of three clients change the same mailboxes while the file server dies and comes
// back. Retention is seconds, so that snapshots, floors and removal happen all the while.
func TestConcurrent(t *testing.T) {
	for _, fs := range []string{"xfs", "ext4"} {
		t.Run(fs, func(t *testing.T) {
			r := boot(t, fs, 3)
			r.open(4 * time.Second)
			boxes := []string{"INBOX", "Archive", "Lists"}
			for i, k := range r.clients {
				call[proto.None](k, "Start", proto.RunArgs{
					Writers: 3, For: loadTime, Seed: seed, Boxes: boxes, Account: account, Index: i, Clients: len(r.clients),
				})
			}
			kills := []time.Time{time.Now().Add(loadTime / 4), time.Now().Add(loadTime * 3 / 5)}
			l := newLedger()
			for running := true; running; {
				<-time.After(200 * time.Millisecond)
				if len(kills) > 0 && time.Now().After(kills[0]) {
					kills = kills[1:]
					began := time.Now()
					r.server.kill()
					r.server.start()
					r.server.ready()
					t.Logf("file server killed, and back after %v", time.Since(began).Round(time.Millisecond))
				}
				running = false
				for _, k := range r.clients {
					p := call[proto.Progress](k, "Progress", proto.None{})
					l.add(k.name, p)
					running = running || p.Running
				}
			}
			final := r.agree(boxes)
			for _, x := range l.check(final) {
				t.Error(x)
			}
			r.verify()
			t.Log(l)
			if len(l.told) < 300 {
				t.Errorf("%d operations acknowledged: too few to show anything", len(l.told))
			}
		})
	}
}

const (
	loadTime = 40 * time.Second
	seed     = 20260101
)

// agree returns the states of mailboxes, which must be the same on every client, warm and with nothing cached.
func (r *rig) agree(boxes []string) map[string]proto.State {
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
