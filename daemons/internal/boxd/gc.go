package boxd

import (
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"sync"
	"time"
)

// A box holds many quiet connections: garbage on top of what they keep is dearer than collecting it, so a third of
// the heap may be garbage and no more. A third of the small heap of a box that only takes mail in is collected
// hundreds of times a second, though; so it may be quietGarbage in any case, and busyGarbage as long as much comes and goes: that is
// given back seconds after it was needed (docs/performance.md).
const (
	garbagePercent = 33
	quietGarbage   = 3 << 20  // bytes
	busyGarbage    = 24 << 20 // bytes
	busyEvery      = 50 * time.Millisecond
	quietAfter     = 5 * time.Second
)

// paceCollector sets the collector's percentage after each collection, from what that left alive and how long ago the last one was.
var paceCollector = sync.OnceFunc(func() {
	p := &pacer{set: garbagePercent}
	debug.SetGCPercent(p.set)
	p.arm()
})

type pacer struct {
	mu   sync.Mutex
	set  int // the percentage in force
	live uint64
	last time.Time // of the last collection
	busy bool
}

// arm has collected called at the next collection. The pointer keeps the object out of the shared blocks of tiny ones.
func (p *pacer) arm() {
	runtime.SetFinalizer(&struct{ p *pacer }{p}, func(s *struct{ p *pacer }) {
		live := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
		metrics.Read(live)
		s.p.collected(live[0].Value.Uint64(), time.Now())
		s.p.arm()
	})
}

// collected takes note of a collection.
func (p *pacer) collected(live uint64, now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.busy && now.Sub(p.last) < busyEvery {
		p.busy = true
		time.AfterFunc(quietAfter, p.rest)
	}
	p.last, p.live = now, live
	p.pace()
}

// rest gives back what a busy box was allowed, once it has not been busy for a while.
func (p *pacer) rest() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if idle := time.Since(p.last); idle < quietAfter {
		time.AfterFunc(quietAfter-idle, p.rest)
		return
	}
	p.busy = false
	p.pace()
	go runtime.GC()
}

func (p *pacer) pace() {
	if want := gcPercent(p.live, p.busy); want < p.set*9/10 || want > p.set*11/10 {
		p.set = want
		debug.SetGCPercent(want)
	}
}

// gcPercent is GOGC for a heap of so many live bytes.
func gcPercent(live uint64, busy bool) int {
	least := uint64(quietGarbage)
	if busy {
		least = busyGarbage
	}
	return int(max(garbagePercent, least*100/max(live, 1<<20)))
}
