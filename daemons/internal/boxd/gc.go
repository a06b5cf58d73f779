package boxd

import (
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"sync"
)

// A box holds many quiet connections: garbage on top of what they keep is dearer than collecting it, so a third of
// the heap may be garbage and no more. A third of the small heap of a box that only takes mail in is collected
// hundreds of times a second, though; so it may be leastGarbage in any case (docs/performance.md).
const (
	garbagePercent = 33
	leastGarbage   = 3 << 20 // bytes
)

// paceCollector sets the collector's percentage after each collection, from what that left alive.
var paceCollector = sync.OnceFunc(func() {
	set := garbagePercent
	debug.SetGCPercent(set)
	live := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
	var arm func()
	arm = func() {
		// Collected, and so noticed, at each collection. The pointer keeps it out of the shared blocks of tiny objects.
		runtime.SetFinalizer(&struct{ again func() }{arm}, func(s *struct{ again func() }) {
			metrics.Read(live)
			if want := gcPercent(live[0].Value.Uint64()); want < set*9/10 || want > set*11/10 {
				set = want
				debug.SetGCPercent(set)
			}
			s.again()
		})
	}
	arm()
})

// gcPercent is GOGC for a heap of so many live bytes.
func gcPercent(live uint64) int {
	return int(max(garbagePercent, leastGarbage*100/max(live, 1<<20)))
}
