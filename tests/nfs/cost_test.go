package nfs

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"shoal/daemons/nfsguest/proto"
)

// TestCosts counts the calls to the file server that each operation takes, on XFS, which is what the storage ships with.
func TestCosts(t *testing.T) {
	r := boot(t, "xfs", 2)
	r.open(0)
	a, b := r.clients[0], r.clients[1]
	op := func(k *kernel, o proto.OpArgs) proto.OpReply {
		t.Helper()
		o.Account = account
		if o.Box == "" {
			o.Box = "INBOX"
		}
		return call[proto.OpReply](k, "Op", o)
	}
	var table strings.Builder
	row := func(what string, got proto.OpReply, want string) {
		t.Helper()
		n := 0
		var kinds []string
		for _, k := range slices.Sorted(maps.Keys(got.Calls)) {
			n += got.Calls[k]
			kinds = append(kinds, fmt.Sprintf("%s:%d", k, got.Calls[k]))
		}
		calls := strings.Join(kinds, " ")
		fmt.Fprintf(&table, "%-44s %6d  %9s  %s\n", what, n, got.Took.Round(100_000), calls)
		if want != "" && calls != want {
			t.Errorf("%s: %s, want %s", what, calls, want)
		}
	}
	// A mailbox of 1,000 small messages in one record, and one of ten.
	op(a, proto.OpArgs{Kind: "deliver", Size: 4096, Token: "first"})
	op(a, proto.OpArgs{Kind: "fill", Count: 999, Size: 300, Token: "bulk"})
	for range 10 {
		op(a, proto.OpArgs{Kind: "deliver", Box: "Ten", Size: 300, Token: "ten"})
	}
	op(a, proto.OpArgs{Kind: "deliver", Size: 4096, Token: "warm"})

	row("deliver 4 KB", op(a, proto.OpArgs{Kind: "deliver", Size: 4096, Token: "x"}), "")
	row("deliver 100 KB", op(a, proto.OpArgs{Kind: "deliver", Size: 100 << 10, Token: "x"}), "")
	row("flag change of 1", op(a, proto.OpArgs{Kind: "flag", From: 5, Count: 1, Keyword: "k1"}), "")
	row("flag change of 1,000", op(a, proto.OpArgs{Kind: "flag", From: 1, Count: 1000, Keyword: "k2"}), "")
	row("poll, nothing new", op(a, proto.OpArgs{Kind: "poll"}), "")
	row("expunge of 1", op(a, proto.OpArgs{Kind: "expunge", From: 3, Count: 1}), "")
	row("read a message written here", op(a, proto.OpArgs{Kind: "read", From: 7}), "")
	op(b, proto.OpArgs{Kind: "poll"})
	row("read a message written elsewhere", op(b, proto.OpArgs{Kind: "read", From: 8}), "")
	row("begin to watch", op(a, proto.OpArgs{Kind: "watch"}), "")
	row("first commit after that", op(a, proto.OpArgs{Kind: "flag", From: 5, Count: 1, Keyword: "k3"}), "")
	row("commit that only this server watches", op(a, proto.OpArgs{Kind: "flag", From: 5, Count: 1, Keyword: "k4"}), "")
	row("deliver 4 KB that only this server watches", op(a, proto.OpArgs{Kind: "deliver", Size: 4096, Token: "x"}), "")
	op(b, proto.OpArgs{Kind: "flag", From: 6, Count: 1, Keyword: "k3"})
	row("poll, one record of another server", op(a, proto.OpArgs{Kind: "poll"}), "")
	row("deliver 4 KB after that", op(a, proto.OpArgs{Kind: "deliver", Size: 4096, Token: "x"}), "")
	row("deliver 4 KB by the other, which is behind", op(b, proto.OpArgs{Kind: "deliver", Size: 4096, Token: "x"}), "")
	op(a, proto.OpArgs{Kind: "unwatch"})
	op(a, proto.OpArgs{Kind: "poll", Box: "Big"})
	for i := range 10 {
		got := op(a, proto.OpArgs{Kind: "copy", From: 4, Count: 1000, To: "Big"})
		if i == 9 {
			row("COPY of 1,000", got, "")
		}
	}
	op(a, proto.OpArgs{Kind: "maintain"})
	cold := func(what, box string) {
		t.Helper()
		op(b, proto.OpArgs{Kind: "drop"})
		row(what, call[proto.OpReply](b, "Cold", proto.OpArgs{Account: account, Box: box}), "")
	}
	cold("cold open of 10", "Ten")
	cold("cold open of 1,000", "INBOX")
	cold("cold open of 10,000", "Big")
	t.Logf("calls to the file server\n%s", table.String())
}
