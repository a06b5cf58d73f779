package authn

import (
	"math"
	"math/rand/v2"
	"net/netip"
	"strings"
	"time"
)

// counter counts failures for one key (a client address or a user name). It leaks: one failure per FailureLife.
type counter struct {
	level float64
	at    time.Duration // when level was right
	next  time.Duration // addresses: when the next attempt may begin
	hold  time.Duration // nothing that is held back begins before: another server has just had a failure
}

// level now.
func (c counter) now(now, life time.Duration) float64 {
	return max(0, c.level-float64(now-c.at)/float64(life))
}

// delay is the wait that a number of failures costs.
func delay(level float64, free int, first, most time.Duration) time.Duration {
	over := int(math.Ceil(level)) - free
	if over <= 0 || first <= 0 {
		return 0
	}
	if over > 30 {
		return most
	}
	return min(first<<(over-1), most)
}

// table holds counters, and how many attempts there are at the moment. The Authenticator's mutex guards it.
type table struct {
	free, atOnce int
	first, most  time.Duration
	life         time.Duration
	spaced       bool // attempts are spaced by the delay, not only delayed by it
	counters     *lru[string, counter]
	attempts     map[string]int
}

// enter counts an attempt at time now and returns how long it has to wait, or false when it must be refused.
// An attempt that was let in must leave. An exempt one is always let in at once.
func (t *table) enter(key string, now time.Duration, exempt bool) (time.Duration, bool) {
	if t.attempts[key] >= t.atOnce && !exempt {
		return 0, false
	}
	var wait time.Duration
	if c, ok := t.counters.get(key); ok && !exempt {
		if d := delay(c.now(now, t.life), t.free, t.first, t.most); d > 0 {
			if t.spaced {
				begin := max(now, c.next)
				if wait = begin - now; wait > t.most {
					return 0, false
				}
				c.next = begin + d
				t.counters.put(key, c)
			} else {
				wait = d
			}
		}
	}
	t.attempts[key]++
	return wait, true
}

// leave ends an attempt.
func (t *table) leave(key string) {
	if t.attempts[key]--; t.attempts[key] <= 0 {
		delete(t.attempts, key)
	}
}

// fail counts a failure.
func (t *table) fail(key string, now time.Duration) {
	c, _ := t.counters.get(key)
	c.level, c.at = c.now(now, t.life)+1, now
	if t.spaced {
		c.next = max(c.next, now+delay(c.level, t.free, t.first, t.most))
	}
	t.counters.put(key, c)
}

// heard counts failures that another server had, and holds back what waits here: for the delay, and up to as much again by chance, so that of
// several servers that wait for the same moment one comes first and the others hear of it.
func (t *table) heard(key string, n int, now time.Duration) {
	c, _ := t.counters.get(key)
	c.level, c.at = c.now(now, t.life)+float64(n), now
	if d := delay(c.level, t.free, t.first, t.most); d > 0 {
		d += rand.N(d)
		c.hold = max(c.hold, now+d)
		if t.spaced {
			c.next = max(c.next, now+d)
		}
	}
	t.counters.put(key, c)
}

// held is how long an attempt has to wait that is about to be made.
func (t *table) held(key string, now time.Duration) time.Duration {
	c, _ := t.counters.get(key)
	return max(0, c.hold-now)
}

// pace is held for an attempt from where others have failed: these come one after the other, with the delay between them.
func (t *table) pace(key string, now time.Duration) {
	c, ok := t.counters.get(key)
	if !ok {
		return
	}
	if d := delay(c.now(now, t.life), t.free, t.first, t.most); d > 0 {
		c.hold = max(c.hold, now+d)
		t.counters.put(key, c)
	}
}

// level is what is counted now.
func (t *table) level(key string, now time.Duration) float64 {
	c, _ := t.counters.get(key)
	return c.now(now, t.life)
}

// addressKey is what failures of a client are counted under: its IPv4 address, or the /64 of its IPv6 address,
// because a host has at least so many of those. counted is false for trusted hosts.
func addressKey(remote string, trusted []netip.Prefix) (key string, counted bool) {
	ip, err := netip.ParseAddr(remote)
	if err != nil {
		ap, perr := netip.ParseAddrPort(remote)
		if perr != nil {
			// Not an IP address (a socket of the local machine, a test): its name will do.
			return strings.ToLower(remote[:min(len(remote), 64)]), true
		}
		ip = ap.Addr()
	}
	ip = ip.Unmap().WithZone("")
	for _, p := range trusted {
		if p.Contains(ip) {
			return ip.String(), false
		}
	}
	if ip.Is6() {
		p, err := ip.Prefix(64)
		if err == nil {
			return p.String(), true
		}
	}
	return ip.String(), true
}
