package nfs

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"shoal/daemons/nfsguest/proto"
)

// TestCosts counts the calls to the file server that each operation takes, on XFS, which is what the storage ships with, and
// beside it those of Dovecot with Maildir on the same mount. A count is the same on every machine. The table in docs/store.md
// is compared with them.
func TestCosts(t *testing.T) {
	r := plan{fs: "xfs", clients: 3, size: 4 << 30}.boot(t)
	for i, k := range r.clients { // without background work: it would be counted with whatever it meets
		call[proto.None](k, "Open", proto.OpenArgs{Server: k.name, Init: i == 0, Interest: true})
	}
	m := &meter{t: t, rig: r}
	m.fillBig()
	m.own()
	m.dovecot()
	t.Logf("calls to the file server\n%s", &m.costs)
	docs, err := os.ReadFile("../../docs/store.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, x := range m.costs.compare(string(docs)) {
		t.Errorf("docs/store.md: %s", x)
	}
}

// A meter measures on a rig.
type meter struct {
	t *testing.T
	*rig
	costs costs
}

func (m *meter) op(k *kernel, o proto.OpArgs) proto.OpReply {
	m.t.Helper()
	o.Account = account
	if o.Box == "" {
		o.Box = "INBOX"
	}
	return call[proto.OpReply](k, "Op", o)
}

// fillBig makes a mailbox of 100,000 messages, and one of 10,000 with summaries, in the file server's own kernel: that is
// quick, and no client has seen them.
func (m *meter) fillBig() {
	m.t.Helper()
	m.server.run("mkdir", "-p", proto.Export)
	m.server.run("mount", "--bind", proto.Disk+"/export", proto.Export)
	call[proto.None](m.server, "Open", proto.OpenArgs{Server: "filler"})
	for box, n := range map[string]int{"Huge": 100_000, "Large": 10_000} {
		for range n / 1000 {
			m.op(m.server, proto.OpArgs{Kind: "fill", Box: box, Count: 1000, Size: 2000, Token: proto.Letter})
		}
	}
	m.op(m.server, proto.OpArgs{Kind: "maintain"})
	// A server whose disk is slower than it reads lets some go rather than keep them all in memory: the next look makes those.
	for look, found := 0, 0; found < 10_000; look++ {
		got := call[proto.OpReply](m.server, "Envelopes", proto.OpArgs{Account: account, Box: "Large"})
		m.t.Logf("%d of 10,000 summaries were there, all after %v", got.Len, got.Took)
		if found = got.Len; look == 5 {
			m.t.Fatalf("after %d looks %d of 10,000 summaries are there", look, found)
		}
	}
	call[proto.None](m.server, "CloseStore", proto.None{})
}

func (m *meter) own() {
	t := m.t
	a, b, c := m.clients[0], m.clients[1], m.clients[2]
	flag := func(k *kernel, first, n uint32, word string) proto.OpReply {
		t.Helper()
		return m.op(k, proto.OpArgs{Kind: "flag", From: first, Count: n, Keyword: word})
	}
	deliver := proto.OpArgs{Kind: "deliver", Size: 4096, Token: "x"}
	const commit = "GETATTR 1, SYMLINK 1"
	const delivery = "CLOSE 1, GETATTR 1, OPEN 1, SYMLINK 1, WRITE 1"

	m.op(a, deliver)
	m.op(a, proto.OpArgs{Kind: "fill", Count: 999, Size: 300, Token: "bulk"})
	for range 10 {
		m.op(a, proto.OpArgs{Kind: "deliver", Box: "Ten", Size: 300, Token: "ten"})
	}
	m.op(a, deliver)

	m.costs.pin(t, "deliver 4 KB", m.op(a, deliver), delivery)
	m.costs.pin(t, "change flags of 1", flag(a, 5, 1, "k1"), commit)
	m.costs.pin(t, "change flags of 1,000", flag(a, 1, 1000, "k2"), commit)
	m.costs.pin(t, "expunge", m.op(a, proto.OpArgs{Kind: "expunge", From: 3, Count: 1}), commit)
	m.costs.pin(t, "poll, nothing new", m.op(a, proto.OpArgs{Kind: "poll"}), "LOOKUP 1")
	m.op(b, proto.OpArgs{Kind: "poll"})
	m.op(b, proto.OpArgs{Kind: "read", From: 7})
	m.costs.add("read a small message of another server", m.op(b, proto.OpArgs{Kind: "read", From: 1002}))

	m.costs.add("begin to watch", m.op(a, proto.OpArgs{Kind: "watch"}))
	for range 3 {
		m.op(a, deliver) // the listing of w/ that has changed, and what follows from it
	}
	m.costs.pin(t, "deliver 4 KB, only this server watches", m.op(a, deliver), delivery)
	flag(b, 6, 1, "other")
	m.costs.add("poll, one record of another server", m.op(a, proto.OpArgs{Kind: "poll"}))
	m.op(a, deliver)
	m.costs.add("deliver 4 KB, one record behind", m.op(b, deliver))
	m.op(a, proto.OpArgs{Kind: "unwatch"})

	for _, protected := range []string{"1", "0"} {
		m.op(a, proto.OpArgs{Kind: "links", Token: protected})
		m.op(a, proto.OpArgs{Kind: "copy", From: 4, Count: 10, To: "Copies"})
		got := m.op(a, proto.OpArgs{Kind: "copy", From: 4, Count: 1000, To: "Copies"})
		if links := got.Calls["LINK"]; links != 1000 {
			t.Errorf("copy of 1,000: %d LINK", links)
		}
		if protected == "0" {
			m.costs.bound(t, "copy 1,000 messages", got, 1010)
		} else {
			m.costs.add("the same with fs.protected_hardlinks=1", got)
		}
	}

	m.op(a, proto.OpArgs{Kind: "maintain"}) // the snapshots that the background work would have written
	for _, x := range []struct{ what, box string }{
		{"cold open of 10 messages", "Ten"}, {"cold open of 10,000", "Large"}, {"cold open of 100,000", "Huge"},
	} {
		m.op(c, proto.OpArgs{Kind: "drop", Box: "Ten"})
		got := call[proto.OpReply](c, "Cold", proto.OpArgs{Account: account, Box: x.box})
		m.costs.bound(t, x.what, got, 40)
		t.Logf("%s: %v, %v on the processor of a user-mode kernel", x.what, got.Took, got.CPU)
	}
	m.op(c, proto.OpArgs{Kind: "drop", Box: "Ten"})
	m.costs.add("cold open of 100,000 in an account that is not known either", call[proto.OpReply](c, "Opened", proto.OpArgs{Account: account, Box: "Huge", Kind: "cold"}))
	call[proto.OpReply](b, "Opened", proto.OpArgs{Account: account, Box: "Huge"})
	m.costs.bound(t, "warm open of 100,000", call[proto.OpReply](b, "Opened", proto.OpArgs{Account: account, Box: "Huge"}), 2)

	m.op(c, proto.OpArgs{Kind: "drop", Box: "Ten"})
	m.op(c, proto.OpArgs{Kind: "poll", Box: "Large"})
	got := call[proto.OpReply](c, "Envelopes", proto.OpArgs{Account: account, Box: "Large"})
	if got.Len != 10_000 {
		t.Errorf("of 10,000 summaries %d were found", got.Len)
	}
	m.costs.bound(t, "envelopes of 10,000, never seen by this server", got, 40)
	t.Logf("envelopes of 10,000: %v, %v on the processor of a user-mode kernel", got.Took, got.CPU)
}

// dovecot has Dovecot's programs do the same on the same mount: mail in Maildir with the indexes beside it, and the settings for NFS.
func (m *meter) dovecot() {
	t := m.t
	a, c := m.clients[0], m.clients[2]
	do := func(k *kernel, kind string, commands ...string) int {
		t.Helper()
		got := call[proto.OpReply](k, "Dovecot", proto.DovecotArgs{Kind: kind, Commands: commands})
		t.Logf("dovecot %s %.60q: %d calls, %s", kind, commands, sum(got.Calls), kinds(got.Calls))
		return sum(got.Calls)
	}
	letter := []byte("From: a@example.test\r\nTo: b@example.test\r\nSubject: measured\r\nDate: Mon, 5 Jan 2026 10:00:00 +0000\r\nMessage-ID: <%d@example.test>\r\n\r\n" + strings.Repeat("0123456789abcde\r\n", 233))
	var deliver proto.OpReply
	for range 3 {
		deliver = call[proto.OpReply](a, "Dovecot", proto.DovecotArgs{Kind: "deliver", Message: letter})
	}
	t.Logf("dovecot-lda: %s", kinds(deliver.Calls))
	m.costs.beside(t, "deliver 4 KB", sum(deliver.Calls))

	fill := func(box string, n int) { // as Dovecot finds mail that was put there by others
		m.server.run("sh", "-c", fmt.Sprintf(`d=%s/dovecot/Maildir/%s; mkdir -p $d/cur $d/new $d/tmp; awk -v d=$d 'BEGIN { for (i = 0; i < %d; i++) {
			f = sprintf("%%s/cur/%%d.M%%dP1.filler,S=146:2,", d, 1700000000+i, i)
			printf "From: a@example.test\r\nTo: b@example.test\r\nSubject: number %%06d\r\nDate: Mon, 5 Jan 2026 10:00:00 +0000\r\nMessage-ID: <%%06d@example.test>\r\n\r\nabc\r\n", i, i > f
			close(f) } }' && chmod -R u=rwX,go= $d && chown -R %d:%d $d`, proto.Export, box, n, proto.DovecotUser, proto.DovecotUser))
	}
	fill(".Thousand", 1000)
	fill(".Ten", 10)
	fill(".Large", 10_000)
	do(a, "session")
	do(a, "imap", "CREATE Copies", "SELECT Thousand", "FETCH 1:* (UID FLAGS)", "NOOP")
	m.costs.beside(t, "change flags of 1", do(a, "imap", "STORE 5 +FLAGS (k1)"))
	m.costs.beside(t, "change flags of 1,000", do(a, "imap", "STORE 1:* +FLAGS (k2)"))
	m.costs.beside(t, "poll, nothing new", do(a, "imap", "NOOP")) // the next is answered by the kernel from its cache, however old
	m.costs.beside(t, "copy 1,000 messages", do(a, "imap", "COPY 1:1000 Copies"))
	do(a, "imap", "STORE 3 +FLAGS (\\Deleted)", "NOOP")
	m.costs.beside(t, "expunge", do(a, "imap", "EXPUNGE"))
	do(a, "imap", "SELECT Ten", "SELECT Large", "FETCH 1:* ENVELOPE", "SELECT Large", "FETCH 1:* ENVELOPE") // the first time its index and cache come into being
	do(a, "end")

	for _, x := range []struct{ what, box string }{{"cold open of 10 messages", "Ten"}, {"cold open of 10,000", "Large"}} {
		m.op(c, proto.OpArgs{Kind: "drop", Box: "Ten"})
		n := do(c, "session") + do(c, "imap", "SELECT "+x.box)
		m.costs.beside(t, x.what, n)
		if x.box == "Large" {
			m.costs.beside(t, "envelopes of 10,000, never seen by this server", do(c, "imap", "FETCH 1:* ENVELOPE"))
		}
		do(c, "end")
	}
}

// TestThroughput has three kernels commit to one mailbox as often as they can, and beside it append to one file under a lock, the
// plain way to share a file over NFS: in the same run on the same mount.
func TestThroughput(t *testing.T) {
	r := boot(t, "xfs", 3)
	for i, k := range r.clients {
		call[proto.None](k, "Open", proto.OpenArgs{Server: k.name, Init: i == 0})
	}
	m := &meter{t: t, rig: r}
	m.op(r.clients[0], proto.OpArgs{Kind: "fill", Count: 100, Size: 300, Token: "x"})
	burst := func(kind string, writers int) (rate, calls float64) {
		t.Helper()
		replies := make(chan proto.BurstReply, len(r.clients))
		for i, k := range r.clients {
			go func() {
				replies <- call[proto.BurstReply](k, "Burst", proto.BurstArgs{
					Kind: kind, Account: account, Box: map[bool]string{true: "INBOX", false: "file"}[kind == "store"], Writers: writers, For: 4 * time.Second, FirstUID: uint32(1 + i*writers),
				})
			}()
		}
		done, all := 0, 0
		took := time.Duration(0)
		shares := []int{}
		for range r.clients {
			b := <-replies
			done, all, took, shares = done+b.Done, all+sum(b.Calls), max(took, b.Took), append(shares, b.Done)
		}
		if done == 0 {
			t.Fatalf("%s: nothing was committed in %v", kind, took)
		}
		rate, calls = float64(done)/took.Seconds(), float64(all)/float64(done)
		t.Logf("%s, %d writers on each of 3 kernels: %d commits in %v (%v), %.0f a second, %.2f calls each", kind, writers, done, took.Round(time.Millisecond), shares, rate, calls)
		return rate, calls
	}
	for _, writers := range []int{1, 8} {
		ours, ourCalls := burst("store", writers)
		plain, plainCalls := burst("lock", writers)
		full, _ := burst("lock and read", writers)
		t.Logf("%d writers on each kernel: %.1f times as many commits as under a lock, %.1f times if what others append is read; %.1f times fewer calls each",
			writers, ours/plain, ours/full, plainCalls/ourCalls)
		// The rates are for people: they are those of this machine in this minute. The calls are not.
		if writers > 1 && plainCalls < 3*ourCalls {
			t.Errorf("%d writers on each kernel: %.2f calls for a commit, under a lock %.2f: less than 3 times as many", writers, ourCalls, plainCalls)
		}
	}
}
