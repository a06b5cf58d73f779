package kit

import (
	"os"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"sync"
	"time"
)

// Garbage says how much of it a daemon's heap may hold: Percent of what is alive, as GOGC; at least Quiet bytes of it; and at least Busy
// bytes as long as one collection follows the other, which is given back seconds after it was needed (docs/performance.md). A small heap
// is collected hundreds of times a second otherwise.
type Garbage struct {
	Percent     int
	Quiet, Busy uint64
}

const (
	busyEvery  = 50 * time.Millisecond
	quietAfter = 5 * time.Second
)

// PaceCollector sets the collector's percentage after each collection, from what that left alive and how long ago the last one was.
// A second call does nothing: there is one collector. Whoever sets GOGC in the environment gets what that says.
func PaceCollector(g Garbage) {
	paceOnce.Do(func() {
		if os.Getenv("GOGC") == "" {
			newPacer(g).arm()
		}
	})
}

var paceOnce sync.Once

func newPacer(g Garbage) *pacer {
	p := &pacer{garbage: g, set: g.Percent}
	debug.SetGCPercent(p.set)
	return p
}

type pacer struct {
	garbage Garbage

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

// rest gives back what a busy daemon was allowed, once it has not been busy for a while.
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
	if want := p.garbage.percent(p.live, p.busy); want < p.set*9/10 || want > p.set*11/10 {
		p.set = want
		debug.SetGCPercent(want)
	}
}

// percent is GOGC for a heap of so many live bytes.
func (g *Garbage) percent(live uint64, busy bool) int {
	least := g.Quiet
	if busy {
		least = g.Busy
	}
	return int(max(uint64(g.Percent), least*100/max(live, 1<<20)))
}
