package boxd

import "testing"

func TestGCPercent(t *testing.T) {
	for _, c := range []struct {
		live uint64
		want int
	}{{0, 300}, {1 << 20, 300}, {3 << 20, 100}, {8 << 20, 37}, {9 << 20, 33}, {1 << 40, 33}} {
		if got := gcPercent(c.live); got != c.want {
			t.Errorf("%d bytes: %d %%, want %d", c.live, got, c.want)
		}
	}
}
