package mailstore

import (
	"context"
	"fmt"
	"testing"
	"time"

	"shoal/daemons/internal/vfs"
)

// fill appends n messages, a thousand per commit.
func fill(tb testing.TB, box *Mailbox, n int) {
	tb.Helper()
	m := stage(tb, box.j.store, "x")
	defer m.Close()
	for done := 0; done < n; done += 1000 {
		msgs := make([]AppendMessage, min(1000, n-done))
		for k := range msgs {
			msgs[k] = AppendMessage{Message: m, Flags: Flags(k) & 3, InternalDate: time.Unix(int64(1_700_000_000+done+k), 0)}
			if k%7 == 0 {
				msgs[k].Keywords = []string{fmt.Sprint("k", k%5)}
			}
		}
		if _, err := box.Append(context.Background(), msgs); err != nil {
			tb.Fatal(err)
		}
	}
	if err := box.j.checkpoint(context.Background(), true); err != nil {
		tb.Fatal(err)
	}
}

// TestColdOpenCosts bounds the file operations of opening a mailbox that this server has never seen, whatever its size, at
// each length of the log since the last snapshot. On NFS each of them is a call or is answered by the listing before it; about 14 come
// in addition for the way to the mailbox.
func TestColdOpenCosts(t *testing.T) {
	ctx := context.Background()
	for _, n := range []int{10, 10_000, 100_000} {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			mem := vfs.NewMem(time.Now)
			mem.SetNetwork(true)
			f := vfs.NewFault(mem)
			s := testStore(t, f, "/", "box1")
			box := testInbox(t, s, "account-1")
			fill(t, box, n)
			most := vfs.Counts{}
			for i := range 150 {
				if i%5 == 4 { // in a file of its own
					var keywords []string
					for k := range 200 {
						keywords = append(keywords, fmt.Sprintf("keyword%d", k))
					}
					if _, err := box.ChangeFlags(ctx, FlagChange{UIDs: UIDSet{{1, 10}}, Op: FlagsReplace, Keywords: keywords}); err != nil {
						t.Fatal(err)
					}
				} else {
					appendOne(t, box, "x", 0)
				}
				if box.j.wantsSnapshot() { // as the background work does
					if err := box.j.checkpoint(ctx, false); err != nil {
						t.Fatal(err)
					}
				}
				f.Reset()
				box.j.evict()
				if _, err := box.State(ctx); err != nil {
					t.Fatal(err)
				}
				if c := f.Counts(); c.Total() > most.Total() {
					most = c
				}
			}
			t.Logf("at most %d: %v", most.Total(), most)
			if most.Total() > 28 {
				t.Errorf("cold open: %d file operations, want at most 28: %v", most.Total(), most)
			}
		})
	}
}

// BenchmarkColdOpen opens a mailbox of 100,000 messages from its snapshot.
func BenchmarkColdOpen(b *testing.B) {
	ctx := context.Background()
	s := testStore(b, journalMem(), "/", "box1")
	box := testInbox(b, s, "account-1")
	fill(b, box, 100_000)
	b.ReportAllocs()
	b.ResetTimer()
	for range b.N {
		box.j.evict()
		st, err := box.State(ctx)
		if err != nil || st.Len() != 100_000 {
			b.Fatal(err)
		}
	}
}
