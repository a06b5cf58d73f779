package mailstore

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"shoal/daemons/internal/clock"
)

// maintain runs the background work until ctx is done: snapshots soon after they are due, and a slow walk
// over the volumes for all else. Every server walks; stamps in maint/ see to it that no part of a volume
// is walked much more often than once per walkEvery, and nothing goes wrong if one is.
func (s *Store) maintain(ctx context.Context) {
	s.work.wg.Go(func() { s.keepReserves(ctx) })
	s.work.wg.Add(1)
	go func() {
		defer s.work.wg.Done()
		for clock.Sleep(ctx, s.clk, maintainPause+time.Duration(rand.Int64N(int64(maintainPause)))) == nil {
			for _, v := range s.allVolumes() {
				if err := s.walkSlice(ctx, v, rand.IntN(256)); err != nil && ctx.Err() == nil {
					s.log.Warn("background work", "volume", v.name, "err", err)
				}
			}
		}
	}()
	for {
		select {
		case <-ctx.Done():
			return
		case <-s.work.wake:
		}
		for _, j := range s.work.takeDue() {
			if err := j.checkpoint(ctx, false); err != nil && ctx.Err() == nil && !errors.Is(err, ErrMailboxClosed) {
				s.log.Warn("snapshot not written", "mailbox", j.dir, "err", err)
			}
		}
	}
}

const (
	// maintainPause is the least pause between two slices of a walk, a slice being 1/256 of the accounts.
	maintainPause = 2 * time.Minute
	// walkEvery is how often a slice is walked.
	walkEvery = 24 * time.Hour
)

// walkSlice does the background work for the accounts in a/<hh>, unless that was done not long ago.
func (s *Store) walkSlice(ctx context.Context, v *volume, slice int) error {
	now, err := v.serverNow(ctx)
	if err != nil {
		return err
	}
	hh := fmt.Sprintf("%02x", slice)
	stamp := v.root + "/maint/" + hh
	var accounts []string
	err = v.do(ctx, func() error {
		i, err := v.fs.Lstat(stamp)
		if err != nil && !isNotExist(err) {
			return ioErr("lstat", stamp, err)
		}
		if err == nil && now.Sub(i.ModTime) < walkEvery {
			return nil
		}
		// A new stamp replaces the old one: whoever comes later finds it.
		tmp := v.root + "/tmp/" + s.nextNonce().String()
		if err := v.essential(func() error { return ioErr("write", tmp, createFile(v.fs, tmp, nil, syncNothing)) }); err != nil {
			return err
		}
		if err := v.fs.Rename(tmp, stamp); err != nil {
			return ioErr("rename", tmp, err)
		}
		accounts, err = v.fs.ReadDir(v.root+"/a/"+hh, nil)
		if isNotExist(err) {
			return nil
		}
		return ioErr("list", v.root+"/a/"+hh, err)
	})
	if err != nil {
		return err
	}
	var errs []error
	for _, id := range accounts {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		a, err := s.existing(v, id)
		if err == nil {
			err = a.Maintain(ctx)
		}
		if err != nil && !errors.Is(err, ErrNoAccount) {
			errs = append(errs, err)
		}
	}
	if slice == 0 {
		errs = append(errs, s.Purge(ctx, v.name))
	}
	return errors.Join(errs...)
}

// existing returns a handle on an account that is not created if it does not exist.
func (s *Store) existing(v *volume, id string) (*Account, error) {
	if !validAccountID(id) {
		return nil, fmt.Errorf("%s: not an account", id)
	}
	dir := accountPath(v.root, id)
	a := &Account{s: s, vol: v, id: id, dir: dir}
	a.j = s.journal(v, accountKind, dir, Ref{Volume: v.name, Account: id})
	return a, nil
}

// Maintain does the background work for one account: snapshots and compaction of all its logs, collection
// of files nobody needs, the rest of what deleting a mailbox takes, removal of interest entries of the dead.
func (a *Account) Maintain(ctx context.Context) error {
	st, err := a.fresh(ctx)
	if errors.Is(err, ErrMoved) {
		return a.retireMoved(ctx)
	}
	if err != nil {
		return err
	}
	errs := []error{a.j.tidy(ctx), a.dropSeen(ctx)}
	if now, err := a.vol.serverNow(ctx); err == nil {
		errs = append(errs, a.collectScripts(ctx, st, now))
	}
	var ids []string
	err = a.vol.do(ctx, func() (err error) {
		ids, err = a.vol.fs.ReadDir(a.dir+"/"+dirBoxes, nil)
		return ioErr("list", a.dir+"/"+dirBoxes, err)
	})
	if err != nil {
		return errors.Join(append(errs, err)...)
	}
	for _, id := range ids {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if st.boxes[id] == nil {
			errs = append(errs, a.retire(ctx, st, id))
			continue
		}
		m := a.mailbox(id)
		err := m.j.tidy(ctx)
		if err == nil {
			err = m.j.collect(ctx)
		}
		if err == nil {
			err = m.tidyPacks(ctx)
		}
		if err != nil && !errors.Is(err, ErrMailboxClosed) {
			errs = append(errs, m.wrap(err))
		}
	}
	return errors.Join(errs...)
}

// tidy writes a snapshot if one is due, compacts, and removes interest entries that are too old.
func (j *journal) tidy(ctx context.Context) error {
	if _, err := j.read(ctx); err != nil {
		return err
	}
	if err := j.checkpoint(ctx, j.hasDead()); err != nil {
		return err
	}
	if err := j.compact(ctx); err != nil {
		return err
	}
	now, err := j.vol.serverNow(ctx)
	if err != nil {
		return err
	}
	return j.vol.do(ctx, func() error { return j.dropOldEntries(now) })
}

// hasDead tells whether messages were expunged since the last complete snapshot: it takes a snapshot that
// comes of age to get rid of their files.
func (j *journal) hasDead() bool {
	p := j.pub.Load()
	if p == nil || j.kind != mailboxKind {
		return false
	}
	s := p.state.(*State)
	return len(s.dead) > 0 && s.dead[len(s.dead)-1].n > p.complete
}

// dropOldEntries removes interest entries that no living server would have let grow so old.
func (j *journal) dropOldEntries(now time.Time) error {
	w := j.dir + "/" + dirInterest
	names, err := j.vol.fs.ReadDir(w, nil)
	if isNotExist(err) {
		return j.gone(w)
	}
	if err != nil {
		return ioErr("list", w, err)
	}
	for _, name := range names {
		if _, ok := parseNonce(name); !ok {
			continue
		}
		if err := j.vol.removeOld(w+"/"+name, now.Add(-interestLife)); err != nil {
			return err
		}
	}
	return nil
}

// retire brings a mailbox that is in no list closer to the trash.
func (a *Account) retire(ctx context.Context, st *acctState, id string) error {
	now, err := a.vol.serverNow(ctx)
	if err != nil {
		return err
	}
	dir := a.dir + "/" + dirBoxes + "/" + id
	name := ""
	for _, d := range st.deleted {
		if d.id == id {
			name = d.name
		}
	}
	var stamp, made time.Time
	err = a.vol.do(ctx, func() error {
		if i, err := a.vol.fs.Lstat(dir + "/" + deletedStamp); err == nil {
			stamp = i.ModTime
		} else if !isNotExist(err) {
			return ioErr("lstat", dir, err)
		}
		i, err := a.vol.fs.Lstat(dir)
		made = i.ModTime
		if isNotExist(err) {
			return nil
		}
		return ioErr("lstat", dir, err)
	})
	if err != nil || made.IsZero() {
		return err
	}
	if stamp.IsZero() {
		// Deleted by a server that died over it; or never listed: being made, or left behind half made.
		if name == "" && now.Sub(made) < collectAfter {
			return nil
		}
		err := a.bury(ctx, id, name)
		if errors.Is(err, ErrMailboxClosed) || errors.Is(err, errGone) {
			err = nil
		}
		if err != nil && name == "" {
			// No whole mailbox: nobody can have committed to it.
			return a.vol.do(ctx, func() error { return a.vol.removeAll(dir) })
		}
		return err
	}
	if now.Sub(stamp) < a.s.o.Retention {
		return nil
	}
	return a.vol.do(ctx, func() error {
		to := a.vol.root + "/trash/" + a.id + "." + id
		if err := a.vol.fs.Rename(dir, to); err != nil && !isNotExist(err) {
			return ioErr("rename", dir, err)
		}
		if err := a.vol.orderDir(a.vol.root + "/trash"); err != nil {
			return err
		}
		return a.vol.orderDir(a.dir + "/" + dirBoxes)
	})
}
