package boxd

import "testing"

func TestGCPercent(t *testing.T) {
	for _, c := range []struct {
		live uint64
		want int
	}{{0, 600}, {1 << 20, 600}, {6 << 20, 100}, {16 << 20, 37}, {18 << 20, 33}, {1 << 40, 33}} {
		if got := gcPercent(c.live); got != c.want {
			t.Errorf("%d bytes: %d %%, want %d", c.live, got, c.want)
		}
	}
}
