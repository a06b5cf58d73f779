package migrate

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"sync"
	"time"

	"shoal/daemons/internal/dirclient"
	"shoal/daemons/internal/mailstore"
)

// job is what this server knows of an account's copying.
type job struct {
	account *dirclient.Account
	due     time.Duration // by the clock's Boot
	running bool
	hasty   bool // somebody waits for it
	held    bool // another server had it
	failed  int  // rounds in a row
}

// maxJobs bounds the accounts that are looked at in one scan of a domain.
const maxJobs = 1_000_000

// Run copies until ctx ends.
func (m *Migrator) Run(ctx context.Context) {
	if m.o.Store == nil || m.o.Settings.Copies == 0 {
		<-ctx.Done()
		return
	}
	var all sync.WaitGroup
	slots := make(chan struct{}, m.o.Settings.Copies)
	from := map[string]*dirclient.Migration{}
	scanned := map[string]time.Duration{}
	for ctx.Err() == nil {
		domains, err := m.o.Client.Migrations(ctx)
		if err == nil {
			clear(from)
			for _, d := range domains {
				from[d.Name] = d.Migration
			}
			m.forget(from)
		} else if ctx.Err() == nil {
			m.o.Log.WarnContext(ctx, "migrations cannot be looked up", "event", "migration", "error", err)
		}
		for _, d := range domains {
			if now := m.o.Clock.Boot(); scanned[d.Name] == 0 || now >= scanned[d.Name]+m.o.Settings.Scan {
				scanned[d.Name] = now
				if err := m.scan(ctx, d); err != nil && ctx.Err() == nil {
					m.o.Log.WarnContext(ctx, "accounts of a migration cannot be looked up", "event", "migration", "domain", d.Name, "error", err)
				}
			}
		}
		m.serve(ctx, from, slots, &all)
	}
	all.Wait()
}

// serve works until it is time to look at the domains again, or somebody waits.
func (m *Migrator) serve(ctx context.Context, from map[string]*dirclient.Migration, slots chan struct{}, all *sync.WaitGroup) {
	until := m.o.Clock.Boot() + m.o.Settings.Scan
	for m.o.Clock.Boot() < until {
		j, wait := m.next(from, until)
		if j == nil {
			t := m.o.Clock.NewTimer(wait)
			select {
			case <-t.C():
				continue
			case <-m.wake:
			case <-ctx.Done():
			}
			t.Stop()
			return
		}
		select {
		case slots <- struct{}{}:
		case <-ctx.Done():
			return
		}
		m.mu.Lock()
		j.running, j.hasty = true, false
		m.mu.Unlock()
		acc, source := j.account, from[j.account.Domain]
		all.Go(func() {
			defer func() { <-slots }()
			m.work(ctx, source, acc, j)
		})
	}
}

// scan finds the accounts of a domain that mail is still to come for, and that this server can log in for.
func (m *Migrator) scan(ctx context.Context, d *dirclient.Domain) error {
	if d.Migration.State == dirclient.MigrationPaused {
		return nil
	}
	if d.Migration.User == "" {
		m.mu.Lock()
		defer m.mu.Unlock()
		for _, s := range m.secrets {
			if s.account.Domain == d.Name {
				m.job(s.account)
			}
		}
		return nil
	}
	a, err := m.o.Connect(ctx) // a connection of its own: it may take long
	if err != nil {
		return err
	}
	defer a.Close()
	return a.MigratingAccounts(ctx, d.Name, dirclient.MigrateMail, func(acc *dirclient.Account) error {
		m.mu.Lock()
		defer m.mu.Unlock()
		if len(m.jobs) < maxJobs {
			m.job(acc)
		}
		return nil
	})
}

// job gives the job of an account, with m.mu held. New ones are spread over a moment, so that servers do not begin with the same one.
func (m *Migrator) job(acc *dirclient.Account) *job {
	j := m.jobs[acc.ID]
	if j == nil {
		j = &job{due: m.o.Clock.Boot() + rand.N(time.Second)}
		m.jobs[acc.ID] = j
	}
	j.account = acc
	return j
}

// hasten makes an account due now.
func (m *Migrator) hasten(acc *dirclient.Account) {
	m.mu.Lock()
	j := m.job(acc)
	j.due, j.hasty = min(j.due, m.o.Clock.Boot()), true
	m.mu.Unlock()
	select {
	case m.wake <- struct{}{}:
	default:
	}
}

// next gives the job that is due first, those that somebody waits for before others, or how long to wait for one.
func (m *Migrator) next(from map[string]*dirclient.Migration, until time.Duration) (*job, time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	var best *job
	now := m.o.Clock.Boot()
	wait := until - now
	for _, j := range m.jobs {
		f := from[j.account.Domain]
		if j.running || f == nil || f.State == dirclient.MigrationPaused {
			continue
		}
		if last := f.State == dirclient.MigrationFinishing && j.failed == 0 && !j.held; j.due > now && !last {
			wait = min(wait, j.due-now)
			continue
		}
		if best == nil || j.hasty && !best.hasty || j.hasty == best.hasty && j.due < best.due {
			best = j
		}
	}
	return best, max(wait, time.Millisecond)
}

// forget drops what belongs to no migration any more.
func (m *Migrator) forget(from map[string]*dirclient.Migration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	gone := func(acc *dirclient.Account) bool { return from[acc.Domain] == nil }
	maps.DeleteFunc(m.secrets, func(_ string, s secret) bool { return gone(s.account) })
	maps.DeleteFunc(m.made, func(_ string, a *dirclient.Account) bool { return gone(a) })
	maps.DeleteFunc(m.jobs, func(_ string, j *job) bool { return !j.running && gone(j.account) })
}

// work does a round of an account, if no other server does.
func (m *Migrator) work(ctx context.Context, from *dirclient.Migration, acc *dirclient.Account, j *job) {
	m.mu.Lock()
	s := m.secrets[acc.ID]
	m.mu.Unlock()
	again, over, err := m.turn(ctx, from, acc, s.password)
	held := errors.Is(err, errHeld)
	if held {
		err = nil
	}
	if err != nil && ctx.Err() == nil {
		m.o.Log.WarnContext(ctx, "copying an account failed", "event", "migration-round", "account", acc.Address, "error", err)
		m.m.rounds.WithLabelValues("failed").Inc()
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if j.failed++; err == nil {
		j.failed = 0
	} else {
		again = min(time.Second<<min(j.failed, 20), m.o.Settings.Interval)
	}
	j.running, j.held, j.due = false, held, m.o.Clock.Boot()+again
	if over {
		delete(m.jobs, acc.ID)
		delete(m.secrets, acc.ID)
	}
	if ended := m.rounds[acc.ID]; ended != nil {
		close(ended)
		delete(m.rounds, acc.ID)
	}
}

// errHeld: another server is copying the account.
var errHeld = errors.New("another server is copying the account")

// errLost: another server has the account's claim now.
var errLost = errors.New("another server has taken over")

// claim is the right to copy an account.
type claim struct {
	m       *Migrator
	handle  *mailstore.Account
	turn    int64
	until   time.Duration
	renewed time.Duration
}

func claimKey() string {
	sum := sha256.Sum256([]byte("migration"))
	return hex.EncodeToString(sum[:8])
}

// extend keeps the claim alive. errLost when it has not.
func (c *claim) extend(ctx context.Context) error {
	now := c.m.o.Clock.Boot()
	if now >= c.until {
		return errLost
	}
	if now < c.renewed+c.m.o.Settings.Claim/4 {
		return nil
	}
	next, got, err := c.handle.Extend(ctx, claimKey(), c.turn, c.m.o.Settings.Claim)
	if err != nil {
		return err
	}
	if !got {
		return errLost
	}
	c.turn, c.until, c.renewed = next, now+c.m.o.Settings.Claim, now
	return nil
}

// turn is a round with its claim. again is when the next one is due; over: there is no next one.
func (m *Migrator) turn(ctx context.Context, from *dirclient.Migration, acc *dirclient.Account, password string) (again time.Duration, over bool, err error) {
	handle, err := m.o.Store.Account(ctx, acc.Volume, acc.ID)
	if err != nil {
		return 0, false, err
	}
	finishing := from.State == dirclient.MigrationFinishing
	p, err := readProgress(ctx, handle)
	if err != nil {
		return 0, false, err
	}
	if since := m.o.Clock.Now().Sub(p.At); p.Phase == PhaseWaiting && p.By != m.o.Server && !finishing && since >= 0 && since < m.o.Settings.Interval {
		return m.o.Settings.Interval - since, false, nil
	}
	began := m.o.Clock.Boot()
	n, got, err := handle.Claim(ctx, claimKey(), m.o.Settings.Claim)
	if err != nil {
		return 0, false, err
	}
	if !got {
		return min(m.o.Settings.Claim/2, 2*m.o.Settings.Scan), false, errHeld
	}
	c := &claim{m: m, handle: handle, turn: n, until: began + m.o.Settings.Claim, renewed: began}
	defer func() { // the next one need not wait; if this fails it waits a little
		if m.o.Clock.Boot() < c.until {
			_, _, _ = handle.Extend(context.WithoutCancel(ctx), claimKey(), c.turn, 0)
		}
	}()
	if p, err = readProgress(ctx, handle); err != nil { // as the one before left it
		return 0, false, err
	}
	r := &round{m: m, from: from, acc: acc, handle: handle, claim: c, p: p}
	err = r.run(ctx, password)
	r.p.At, r.p.By = m.o.Clock.Now().UTC().Truncate(time.Second), m.o.Server
	if err != nil {
		r.p.Phase, r.p.Error = PhaseFailed, printable(err.Error())
		if errors.Is(err, errLost) || ctx.Err() != nil {
			return 0, false, err
		}
		return 0, false, errors.Join(err, r.p.write(ctx, handle))
	}
	r.p.Phase, r.p.Error = PhaseWaiting, ""
	r.p.Rounds++
	if finishing {
		r.p.Phase = PhaseDone
	}
	if err := r.p.write(ctx, handle); err != nil {
		return 0, false, err
	}
	m.m.rounds.WithLabelValues("ok").Inc()
	m.o.Log.InfoContext(ctx, "account copied", "event", "migration-round", "account", acc.Address, "round", r.p.Rounds, "copied", r.p.Copied, "of", r.p.Of, "left", r.p.Left)
	if finishing {
		if err := m.write(ctx, func(a *dirclient.Admin) error { return a.MailCopied(ctx, acc.DN) }); err != nil {
			return 0, false, fmt.Errorf("note that all mail has come: %w", err)
		}
		return 0, true, nil
	}
	return m.o.Settings.Interval, false, nil
}

// Progress reads how far an account is.
func (m *Migrator) Progress(ctx context.Context, volume, accountID string) (Progress, error) {
	handle, err := m.o.Store.Account(ctx, volume, accountID)
	if err != nil {
		return Progress{}, err
	}
	return readProgress(ctx, handle)
}
