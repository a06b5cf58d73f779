package relay

import (
	"context"
	"math/rand/v2"
	"time"
)

// localKey is the destination of all boxes together.
const localKey = ""

// destination is what is known of one place that mail goes to. It is forgotten when nothing is under way and nothing is wrong.
type destination struct {
	key     string
	window  int // how many may be tried at once now
	most    int
	active  int
	waiting []chan struct{} // closed when it is their turn, or there is none

	failures int // in a row
	until    time.Time
	why      failure // the last one
	slot     time.Time
	took     time.Duration // an attempt, on average
	put      int           // entries put off since it was last reached
}

// failure is why a destination or recipient could not be served.
type failure struct {
	status string // enhanced code
	text   string // answer of the other side, with its code; empty: our own words
	reason string // our own words
	host   string
}

// postponed says that an attempt was not made, and when to come back.
type postponed struct {
	until  time.Time
	reason string  // "away" or "busy"
	why    failure // away: what happened to others
}

// enter waits for a place at a destination. The second result says that there is none to be had soon.
func (r *Runner) enter(ctx context.Context, key string) (*destination, *postponed) {
	for {
		r.mu.Lock()
		d := r.dests[key]
		now := r.o.Clock.Now()
		if d == nil {
			r.sweep(now)
			d = &destination{key: key, most: r.s.PerDestination, took: time.Second}
			if key == localKey {
				d.most = r.s.LocalConcurrency
			}
			d.window = min(r.s.FirstConcurrency, d.most)
			r.dests[key] = d
		}
		if now.Before(d.until) {
			d.put++
			p := &postponed{until: d.until.Add(d.spread()), reason: "away", why: d.why}
			r.mu.Unlock()
			return nil, p
		}
		if d.active < d.window {
			d.active++
			r.mu.Unlock()
			return d, nil
		}
		if len(d.waiting) >= 2*d.window {
			// Come back one after the other, at the pace at which the destination takes them.
			d.slot = maxTime(d.slot, now.Add(time.Second)).Add(d.took / time.Duration(d.window))
			p := &postponed{until: minTime(d.slot, now.Add(10*time.Minute)), reason: "busy"}
			r.mu.Unlock()
			return nil, p
		}
		turn := make(chan struct{})
		d.waiting = append(d.waiting, turn)
		r.mu.Unlock()
		select {
		case <-turn:
		case <-ctx.Done():
			return nil, &postponed{until: now, reason: "busy"}
		}
	}
}

// spread is how long after its end of absence an entry comes back to a destination: not all at once.
func (d *destination) spread() time.Duration {
	most := 20 * time.Second
	if d.key == localKey {
		most = time.Second
	}
	return rand.N(most) + min(time.Duration(d.put)*2*time.Millisecond, time.Hour)
}

// leave gives a place back. away: the destination could not be reached. took is how long the attempt was.
func (r *Runner) leave(d *destination, away bool, why failure, took time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := r.o.Clock.Now()
	d.active--
	d.took += (took - d.took) / 8
	d.took = max(d.took, time.Millisecond)
	switch {
	case !away:
		if d.failures > 0 {
			r.m.held.Dec()
		}
		d.failures, d.put, d.until = 0, 0, time.Time{}
		d.window = min(d.window+1, d.most)
	case !now.Before(d.until): // those that failed at the same time count once
		if d.failures == 0 {
			r.m.held.Inc()
		}
		d.failures++
		d.window = 1
		first, longest := time.Minute, 30*time.Minute
		if d.key == localKey {
			first, longest = 5*time.Second, time.Minute
		}
		wait := min(first<<min(d.failures-1, 10), longest)
		d.until, d.why = now.Add(jitter(wait)), why
		r.o.Log.Warn("destination cannot be reached, its mail waits", "event", "destination_away", "destination", d.name(), "until", d.until,
			"times", d.failures, "reason", why.reason, "answer", why.text)
	}
	// Those who wait look again: for a place, or at what has become of the destination.
	n := d.window - d.active
	if now.Before(d.until) {
		n = len(d.waiting)
	}
	for ; n > 0 && len(d.waiting) > 0; n-- {
		close(d.waiting[0])
		d.waiting = d.waiting[1:]
	}
	if d.active == 0 && len(d.waiting) == 0 && d.failures == 0 && !now.Before(d.slot) && r.dests[d.key] == d {
		delete(r.dests, d.key)
	}
}

func (d *destination) name() string {
	if d.key == localKey {
		return "boxes"
	}
	return d.key
}

// sweep forgets destinations that nothing was heard of for long. The caller holds r.mu.
func (r *Runner) sweep(now time.Time) {
	if now.Sub(r.swept) < 10*time.Minute {
		return
	}
	r.swept = now
	for key, d := range r.dests {
		if d.active == 0 && len(d.waiting) == 0 && now.Sub(maxTime(d.until, d.slot)) > time.Hour {
			if d.failures > 0 {
				r.m.held.Dec()
			}
			delete(r.dests, key)
		}
	}
}

func maxTime(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

func minTime(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}
