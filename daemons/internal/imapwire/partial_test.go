package imapwire

import (
	"slices"
	"testing"
)

// A page is the same as a cut of the numbers written out one by one.
func TestPartial(t *testing.T) {
	ranges := []Range{{9, 9}, {2, 4}, {20, 21}, {5, 5}}
	var all []uint32
	for _, r := range ranges {
		for n := r.Lo; n <= r.Hi; n++ {
			all = append(all, n)
		}
	}
	for from := uint32(1); from <= 9; from++ {
		for to := uint32(1); to <= 9; to++ {
			for _, back := range []bool{false, true} {
				p := Partial{From: from, To: to, FromEnd: back}
				var want []uint32
				for i := range all {
					rank := uint32(i + 1)
					if back {
						rank = uint32(len(all) - i)
					}
					if rank >= min(from, to) && rank <= max(from, to) {
						want = append(want, all[i])
					}
				}
				first, end := p.Of(uint64(len(all)))
				var got []uint32
				for _, r := range Slice(ranges, first, end) {
					for n := r.Lo; n <= r.Hi; n++ {
						got = append(got, n)
					}
				}
				if !slices.Equal(got, want) {
					t.Errorf("%s: %v, want %v", p.Append(nil), got, want)
				}
			}
		}
	}
	if first, end := (Partial{From: 1, To: 1<<32 - 1}).Of(0); first != end {
		t.Errorf("a page of nothing: %d to %d", first, end)
	}
}
