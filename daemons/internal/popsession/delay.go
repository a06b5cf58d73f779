package popsession

import (
	"sync"
	"time"
)

// arrivals remembers the last login of each account, as long as a login delay makes that matter.
type arrivals struct {
	mu   sync.Mutex
	last map[string]time.Duration // account id: Clock.Boot
	next int                      // how many there may be before the old ones are looked for
}

// fewest is up to how many logins are remembered without looking for old ones.
const fewest = 1024

// admit notes a login at now, unless one of the account was less than delay before.
func (a *arrivals) admit(account string, now, delay time.Duration) bool {
	if delay <= 0 {
		return true
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if last, ok := a.last[account]; ok && now-last < delay {
		return false
	}
	if a.last == nil {
		a.last, a.next = make(map[string]time.Duration), fewest
	}
	if len(a.last) >= a.next {
		for id, last := range a.last {
			if now-last >= delay {
				delete(a.last, id)
			}
		}
		a.next = max(fewest, 2*len(a.last))
	}
	a.last[account] = now
	return true
}
