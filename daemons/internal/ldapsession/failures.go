package ldapsession

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"shoal/daemons/internal/clock"
	"shoal/daemons/internal/dirschema"
	"shoal/daemons/internal/dirstore"
	"shoal/daemons/internal/ldapwire"
)

// Failed logins, grace logins and locks are kept here first, and told to the directory together, every so often: so a
// guesser costs a write every few seconds for each account, not one for each guess, and a shadow asks little of the master.
// A lock counts here at once, and is told at once.

// StateChange is what one server has seen of one entry since it last told. All of it can be applied twice.
type StateChange struct {
	DN       string
	Clear    time.Time   // the last good login: failures up to then are forgotten, and a lock that is over; zero: none
	Failures []time.Time // of failed logins
	Grace    []time.Time // of logins after the password expired
	Locked   time.Time   // when the account was locked; zero: it was not
}

const (
	maxTracked      = 100_000 // entries
	maxRecorded     = 32      // failures of one
	toldLife        = 10 * time.Second
	maxReport       = 500 // entries
	reportTimeout   = 30 * time.Second
	defaultInterval = 5 * time.Second
)

// tracked is what happened to one entry.
type tracked struct {
	dn       string
	failures []time.Time // since cleared, told or not
	locked   time.Time
	cleared  time.Time
	grace    []time.Time // told or not
	pending  StateChange
	dirty    bool
	told     time.Time // when the directory had all of it
}

type tracker struct {
	clock    clock.Clock
	interval time.Duration
	report   func(context.Context, []StateChange) error
	failed   func(error)
	mu       sync.Mutex
	m        map[string]*tracked
	now      chan struct{} // a lock is to be told
	stop     chan struct{}
	done     chan struct{}
}

func newTracker(c clock.Clock, interval time.Duration, report func(context.Context, []StateChange) error, failed func(error)) *tracker {
	if interval <= 0 {
		interval = defaultInterval
	}
	t := &tracker{clock: c, interval: interval, report: report, failed: failed, m: map[string]*tracked{},
		now: make(chan struct{}, 1), stop: make(chan struct{}), done: make(chan struct{})}
	go t.run()
	return t
}

func (t *tracker) close() {
	close(t.stop)
	<-t.done
}

func (t *tracker) get(st *standing) *tracked {
	e := t.m[st.norm]
	if e == nil {
		if len(t.m) >= maxTracked {
			for k, old := range t.m { // any that the directory knows already
				if !old.dirty {
					delete(t.m, k)
					break
				}
			}
			if len(t.m) >= maxTracked {
				return &tracked{dn: st.dn} // forgotten at once
			}
		}
		e = &tracked{dn: st.dn}
		t.m[st.norm] = e
	}
	return e
}

// locked says whether an entry is locked, by what the directory or this server knows.
func (t *tracker) locked(st *standing, now time.Time) bool {
	if st.isLocked(now) {
		return true
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	e := t.m[st.norm]
	if e == nil || e.locked.IsZero() || !st.policy.Lockout {
		return false
	}
	here := *st
	here.locked = e.locked
	return here.isLocked(now)
}

// graceUsed is how many grace logins there were, by what the directory or this server knows.
func (t *tracker) graceUsed(st *standing) int {
	t.mu.Lock()
	defer t.mu.Unlock()
	all := st.grace
	if e := t.m[st.norm]; e != nil {
		all = append(slices.Clone(all), e.grace...)
	}
	seen := map[int64]bool{}
	for _, at := range all {
		seen[at.UnixMicro()] = true
	}
	return len(seen)
}

// fail counts a wrong password, and tells whether it locks the account.
func (t *tracker) fail(st *standing, now time.Time) (locked bool) {
	p := st.policy
	if !p.entry || !p.Lockout || p.MaxFailure == 0 {
		return false
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	e := t.get(st)
	e.failures = append(e.failures, now)
	e.failures = e.failures[max(0, len(e.failures)-maxRecorded):]
	e.pending.Failures = append(e.pending.Failures, now)
	e.pending.Failures = e.pending.Failures[max(0, len(e.pending.Failures)-maxRecorded):]
	e.dirty = true
	seen := map[int64]bool{}
	count := func(list []time.Time, since time.Time) {
		for _, f := range list {
			if (since.IsZero() || f.After(since)) && (p.FailureInterval == 0 || now.Sub(f) < p.FailureInterval) {
				seen[f.UnixMicro()] = true
			}
		}
	}
	count(st.failures, e.cleared)
	count(e.failures, time.Time{}) // they are since then
	if len(seen) < min(p.MaxFailure, maxRecorded) {
		return false
	}
	e.locked, e.pending.Locked = now, now
	t.hurry()
	return true
}

// succeed forgets failures.
func (t *tracker) succeed(st *standing, now time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	e := t.m[st.norm]
	if e == nil && len(st.failures) == 0 {
		return // nothing to forget, and nothing to tell: a lock that is over does no harm
	}
	e = t.get(st)
	if len(e.failures) == 0 && e.locked.IsZero() && (len(st.failures) == 0 || !e.cleared.IsZero()) {
		return // told already, or on its way
	}
	e.failures, e.locked, e.cleared = nil, time.Time{}, now
	e.pending = StateChange{Clear: now, Grace: e.pending.Grace}
	e.dirty = true
}

// spend records a grace login; it is told at once.
func (t *tracker) spend(st *standing, now time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	e := t.get(st)
	e.grace = append(e.grace, now)
	e.pending.Grace = append(e.pending.Grace, now)
	e.dirty = true
	t.hurry()
}

// forget drops what is known here of an entry whose password was changed here.
func (t *tracker) forget(norm []byte) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.m, string(norm))
}

func (t *tracker) hurry() {
	select {
	case t.now <- struct{}{}:
	default:
	}
}

func (t *tracker) run() {
	defer close(t.done)
	timer := t.clock.NewTimer(t.interval)
	defer timer.Stop()
	for {
		select {
		case <-t.stop:
			t.flush()
			return
		case <-t.now:
		case <-timer.C():
			timer.Reset(t.interval)
		}
		t.flush()
	}
}

// flush tells the directory what it does not know. What it did not take is told again, and what it has had for a
// while is forgotten: by then it has come back, on a shadow too.
func (t *tracker) flush() {
	for {
		t.mu.Lock()
		now := t.clock.Now()
		var batch []StateChange
		var keys []string
		more := false
		for k, e := range t.m {
			switch {
			case e.dirty && len(batch) < maxReport:
				c := e.pending
				c.DN = e.dn
				batch, keys = append(batch, c), append(keys, k)
				e.pending, e.dirty = StateChange{}, false
				e.told = now
			case e.dirty:
				more = true
			case now.Sub(e.told) > toldLife:
				delete(t.m, k)
			}
		}
		t.mu.Unlock()
		if len(batch) == 0 {
			return
		}
		ctx, cancel := context.WithTimeout(context.Background(), reportTimeout)
		err := t.report(ctx, batch)
		cancel()
		if err != nil {
			t.failed(err)
			t.mu.Lock()
			for i, k := range keys {
				if e := t.m[k]; e != nil {
					e.again(batch[i])
				}
			}
			t.mu.Unlock()
			return
		}
		if !more {
			return
		}
	}
}

// again puts back what could not be told, before what came since.
func (e *tracked) again(c StateChange) {
	e.dirty = true
	if e.pending.Clear.IsZero() {
		e.pending.Clear = c.Clear
		e.pending.Failures = append(c.Failures, e.pending.Failures...)
		if e.pending.Locked.IsZero() {
			e.pending.Locked = c.Locked
		}
	}
	e.pending.Grace = append(c.Grace, e.pending.Grace...)
}

// Report is how the master takes changes: into its own store.
func Report(store *dirstore.Store, by string) func(context.Context, []StateChange) error {
	return func(_ context.Context, list []StateChange) error {
		var writes []*dirstore.Write
		for _, c := range list {
			w := &dirstore.Write{By: by, Op: &dirstore.Modify{DN: []byte(c.DN), Adjust: c.adjust(store.Schema())}}
			store.Submit(w)
			writes = append(writes, w)
		}
		for _, w := range writes {
			var e *ldapwire.Error
			if err := w.Wait(); err != nil && !(errors.As(err, &e) && e.Code == ldapwire.NoSuchObject) {
				return fmt.Errorf("state of password policy: %w", err)
			}
		}
		return nil
	}
}

func (c StateChange) adjust(schema *dirschema.Schema) func(old, e *dirstore.Entry) error {
	desc := func(name string) dirschema.Description {
		return dirschema.Description{Type: schema.Attribute([]byte(name))}
	}
	return func(_, e *dirstore.Entry) error {
		failures := desc("pwdFailureTime")
		var keep [][]byte
		for _, v := range e.Get("pwdFailureTime") {
			if c.Clear.IsZero() || parseTime(string(v)).After(c.Clear) {
				keep = append(keep, v)
			}
		}
		keep = addTimes(keep, c.Failures)
		e.Set(failures, keep[max(0, len(keep)-maxRecorded):]...)
		if at := e.Get("pwdAccountLockedTime"); !c.Clear.IsZero() && len(at) > 0 && string(at[0]) != lockedForever && parseTime(string(at[0])).Before(c.Clear) {
			e.Set(desc("pwdAccountLockedTime"))
		}
		at := e.Get("pwdAccountLockedTime")
		if !c.Locked.IsZero() && (len(at) == 0 || string(at[0]) != lockedForever && parseTime(string(at[0])).Before(c.Locked)) {
			e.Set(desc("pwdAccountLockedTime"), []byte(c.Locked.UTC().Format(policyTime)))
		}
		e.Set(desc("pwdGraceUseTime"), addTimes(e.Get("pwdGraceUseTime"), c.Grace)...)
		return nil
	}
}

func addTimes(to [][]byte, times []time.Time) [][]byte {
	for _, at := range times {
		v := []byte(at.UTC().Format(policyTime))
		if !slices.ContainsFunc(to, func(w []byte) bool { return string(w) == string(v) }) {
			to = append(to, v)
		}
	}
	return to
}

// StateAttribute is one part of a StateChange as a modification.
type StateAttribute struct {
	Attribute string
	Replace   bool // otherwise the values are added
	Values    []string
}

// Changes are those of an LDAP modification that tells the same. A lock that is over is left as it is: to take it away
// blindly could take another one away that somebody set meanwhile.
func (c StateChange) Changes() (list []StateAttribute) {
	text := func(times []time.Time) (out []string) {
		for _, v := range addTimes(nil, times) {
			out = append(out, string(v))
		}
		return out
	}
	if !c.Clear.IsZero() || len(c.Failures) > 0 {
		list = append(list, StateAttribute{"pwdFailureTime", !c.Clear.IsZero(), text(c.Failures)})
	}
	if !c.Locked.IsZero() {
		list = append(list, StateAttribute{"pwdAccountLockedTime", true, text([]time.Time{c.Locked})})
	}
	if len(c.Grace) > 0 {
		list = append(list, StateAttribute{"pwdGraceUseTime", false, text(c.Grace)})
	}
	return list
}
