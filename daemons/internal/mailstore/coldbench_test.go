package mailstore

import (
	"context"
	"fmt"
	"testing"
	"time"
)

// BenchmarkColdOpen opens a mailbox of 100,000 messages from its snapshot.
func BenchmarkColdOpen(b *testing.B) {
	ctx := context.Background()
	s := testStore(b, journalMem(), "/", "box1")
	box := testInbox(b, s, "account-1")
	m := stage(b, s, "x")
	for i := range 100 {
		msgs := make([]AppendMessage, 1000)
		for k := range msgs {
			msgs[k] = AppendMessage{Message: m, Flags: Flags(k) & 3, InternalDate: time.Unix(int64(1700000000+i*1000+k), 0)}
			if k%7 == 0 {
				msgs[k].Keywords = []string{fmt.Sprint("k", k%5)}
			}
		}
		if _, err := box.Append(ctx, msgs); err != nil {
			b.Fatal(err)
		}
	}
	if err := box.j.checkpoint(ctx, true); err != nil {
		b.Fatal(err)
	}
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
