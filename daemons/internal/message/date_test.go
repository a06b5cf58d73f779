package message

import (
	"fmt"
	"math/rand/v2"
	"testing"
)

// The short way to read a date gives what the long one does, also where a number is out of its bounds.
func TestUsualDate(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 5))
	usual := 0
	for range 20000 {
		s := fmt.Sprintf("%s%d %s %04d %02d:%02d:%02d %c%02d%02d", []string{"", "Mon, ", "Sun, "}[r.IntN(3)], r.IntN(33), []string{"Jan", "feb", "DEC", "Sep", "Foo"}[r.IntN(5)],
			[]int{2026, 1999, r.IntN(3000), r.IntN(10000)}[r.IntN(4)], r.IntN(26), r.IntN(61), r.IntN(62), "+-"[r.IntN(2)], r.IntN(25), r.IntN(61))
		if d, ok := usualDate(s); ok {
			usual++
			a, okA := d.time()
			if b, okB := anyDate(s); okA != okB || okA && a.String() != b.String() {
				t.Fatalf("%s: %v %v, %v %v", s, a, okA, b, okB)
			}
		}
	}
	if usual < 10000 {
		t.Errorf("only %d dates were read the short way", usual)
	}
}
