package authn

import (
	"context"
	"math/rand/v2"
	"strings"
	"time"

	"shoal/daemons/internal/clock"
)

// The directory has one date of the last login in each account's entry, and in each app password's. So that a million phones that log in
// every few minutes do not become writes, a date is written only when the one that is there is older than Settings.LastLogin (a day, give
// or take a tenth, so that a morning's logins are not all written the next morning), and what is to be written is gathered for
// Settings.LastLoginDelay: an account is written once a day by all servers together, give or take those that logged in within the same minutes.
// What cannot be written is dropped: the next login tries again.

const (
	maxNoting  = 100000 // entries that wait
	notesBatch = 500    // entries in one connection to the master
)

// note remembers that a login is to be written, if it is.
func (a *authenticator) note(g *Grant) {
	if a.set.LastLogin == 0 {
		return
	}
	now := a.clock.Now()
	a.noteEntry(strings.ToLower(g.Account.DN), g.Account.LastLogin, now)
	if g.app != nil {
		a.noteEntry(strings.ToLower(g.app.DN), g.app.LastUsed, now)
	}
}

func (a *authenticator) noteEntry(dn string, last, now time.Time) {
	if !last.IsZero() && now.Sub(last) < a.set.LastLogin-rand.N(a.set.LastLogin/10+1) {
		return
	}
	a.noted.Lock()
	defer a.noted.Unlock()
	if _, there := a.noting[dn]; there || len(a.noting) < maxNoting {
		a.noting[dn] = now
	}
}

// writeLogins writes what was noted until ctx ends.
func (a *authenticator) writeLogins(ctx context.Context) {
	for clock.Sleep(ctx, a.clock, a.set.LastLoginDelay/2+rand.N(a.set.LastLoginDelay/2+1)) == nil {
		for a.writeSome(ctx) {
		}
	}
}

// writeSome writes some; it returns false when there is no more, or when it went wrong.
func (a *authenticator) writeSome(ctx context.Context) bool {
	some := map[string]time.Time{}
	a.noted.Lock()
	for dn, at := range a.noting {
		if len(some) == notesBatch {
			break
		}
		some[dn] = at
		delete(a.noting, dn)
	}
	a.noted.Unlock()
	if len(some) == 0 {
		return false
	}
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	n, err := a.dir.SetLastLogins(ctx, some)
	a.metrics.noted.WithLabelValues("written").Add(float64(n))
	if err != nil {
		a.metrics.noted.WithLabelValues("dropped").Add(float64(len(some) - n))
		a.log.Debug("last logins were not written", "dropped", len(some)-n, "error", err)
	}
	return err == nil
}
