package nfs

import (
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"

	"shoal/daemons/nfsguest/proto"
)

// TestCosts counts the calls to the file server that each operation takes, on XFS, which is what the storage ships with.
// A count is the same on every machine. Those that do not depend on what caches happen to hold are pinned, and are the
// table in docs/store.md.
func TestCosts(t *testing.T) {
	docs, err := os.ReadFile("../../docs/store.md")
	if err != nil {
		t.Fatal(err)
	}
	r := boot(t, "xfs", 3)
	for i, k := range r.clients { // without background work: it would be counted with whatever it meets
		call[proto.None](k, "Open", proto.OpenArgs{Server: k.name, Init: i == 0, Interest: true})
	}
	a, b, c := r.clients[0], r.clients[1], r.clients[2]
	op := func(k *kernel, o proto.OpArgs) proto.OpReply {
		t.Helper()
		o.Account = account
		if o.Box == "" {
			o.Box = "INBOX"
		}
		return call[proto.OpReply](k, "Op", o)
	}
	var table strings.Builder
	row := func(what string, got proto.OpReply) (calls string) {
		n := 0
		var kinds []string
		for _, k := range slices.Sorted(maps.Keys(got.Calls)) {
			n += got.Calls[k]
			kinds = append(kinds, fmt.Sprintf("%s %d", k, got.Calls[k]))
		}
		calls = strings.Join(kinds, ", ")
		fmt.Fprintf(&table, "| %s | %d | %s |   %v\n", what, n, calls, got.Took.Round(100_000))
		return calls
	}
	pinned := func(what string, got proto.OpReply, want string) {
		t.Helper()
		n := 0
		for _, k := range got.Calls {
			n += k
		}
		if calls := row(what, got); calls != want {
			t.Errorf("%s: %s, want %s", what, calls, want)
		}
		if line := fmt.Sprintf("| %s | %d | %s |", what, n, want); !strings.Contains(string(docs), line) {
			t.Errorf("docs/store.md has no line\n%s", line)
		}
	}
	flag := func(k *kernel, first, n uint32, word string) proto.OpReply {
		t.Helper()
		return op(k, proto.OpArgs{Kind: "flag", From: first, Count: n, Keyword: word})
	}
	deliver := proto.OpArgs{Kind: "deliver", Size: 4096, Token: "x"}
	const commit = "GETATTR 1, SYMLINK 1"
	const delivery = "CLOSE 1, GETATTR 1, OPEN 1, SYMLINK 1, WRITE 1"

	op(a, deliver)
	op(a, proto.OpArgs{Kind: "fill", Count: 999, Size: 300, Token: "bulk"})
	for range 10 {
		op(a, proto.OpArgs{Kind: "deliver", Box: "Ten", Size: 300, Token: "ten"})
	}
	op(a, deliver)

	pinned("deliver 4 KB", op(a, deliver), delivery)
	pinned("change flags of 1", flag(a, 5, 1, "k1"), commit)
	pinned("change flags of 1,000", flag(a, 1, 1000, "k2"), commit)
	pinned("expunge", op(a, proto.OpArgs{Kind: "expunge", From: 3, Count: 1}), commit)
	pinned("poll, nothing new", op(a, proto.OpArgs{Kind: "poll"}), "LOOKUP 1")
	op(b, proto.OpArgs{Kind: "poll"})
	op(b, proto.OpArgs{Kind: "read", From: 7})
	row("read a message of another server", op(b, proto.OpArgs{Kind: "read", From: 1002}))

	row("begin to watch", op(a, proto.OpArgs{Kind: "watch"}))
	for i := range 3 {
		row("commit after that", flag(a, 5, 1, fmt.Sprint("w", i)))
	}
	pinned("deliver 4 KB, only this server watches", op(a, deliver), delivery)
	flag(b, 6, 1, "other")
	row("poll, one record of another server", op(a, proto.OpArgs{Kind: "poll"}))
	row("deliver 4 KB after that", op(a, deliver))
	row("deliver 4 KB, one record behind", op(b, deliver))
	op(a, proto.OpArgs{Kind: "unwatch"})

	for i, protected := range []string{"1", "0"} {
		op(a, proto.OpArgs{Kind: "links", Token: protected})
		op(a, proto.OpArgs{Kind: "copy", From: 4, Count: 10, To: "Big"})
		got := op(a, proto.OpArgs{Kind: "copy", From: 4, Count: 1000, To: "Big"})
		row("copy 1,000, fs.protected_hardlinks="+protected, got)
		if links := got.Calls["LINK"]; links != 1000 {
			t.Errorf("copy of 1,000: %d LINK", links)
		}
		if asked := got.Calls["ACCESS"]; i == 1 && asked > 10 {
			t.Errorf("copy of 1,000, fs.protected_hardlinks=0: %d ACCESS", asked)
		}
	}
	for range 8 {
		op(a, proto.OpArgs{Kind: "copy", From: 4, Count: 1000, To: "Big"})
	}
	cold := func(what, box string) {
		t.Helper()
		op(c, proto.OpArgs{Kind: "drop", Box: "Ten"})
		row(what, call[proto.OpReply](c, "Cold", proto.OpArgs{Account: account, Box: box}))
	}
	op(a, proto.OpArgs{Kind: "maintain"}) // the snapshots that the background work would have written
	cold("cold open of 10", "Ten")
	cold("cold open of 1,000", "INBOX")
	cold("cold open of 10,000", "Big")
	for i := range 128 {
		op(a, proto.OpArgs{Kind: "flag", Box: "Big", From: uint32(i + 1), Count: 1, Keyword: "k"})
	}
	op(a, proto.OpArgs{Kind: "maintain"})
	cold("cold open of 10,000 with a snapshot", "Big")

	// What other servers have derived from 10,000 messages.
	op(a, proto.OpArgs{Kind: "summarize", Box: "Big"})
	op(c, proto.OpArgs{Kind: "poll", Box: "Big"})
	op(c, proto.OpArgs{Kind: "drop", Box: "Ten"})
	op(c, proto.OpArgs{Kind: "poll", Box: "Big"})
	got := op(c, proto.OpArgs{Kind: "summaries", Box: "Big"})
	row("envelopes of 10,000, never seen", got)
	total := 0
	for _, n := range got.Calls {
		total += n
	}
	if opens := got.Calls["OPEN"] + got.Calls["OPEN_NOATTR"]; opens > 8 || got.Calls["READ"] > 30 || total > 60 {
		t.Errorf("summaries of 10,000 messages: %v", got.Calls)
	}
	t.Logf("calls to the file server\n%s", table.String())
}
