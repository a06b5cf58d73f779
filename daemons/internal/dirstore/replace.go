package dirstore

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"shoal/daemons/internal/ldapwire"
)

// replacement is the end of a load, in its place among the writes.
type replacement struct {
	load    *Load
	context *Context
}

// apply is not used: the writer knows replacements (replaces).
func (op *replacement) apply(*writing) error {
	return ldapwire.Errorf(ldapwire.Other, "a load does not share a transaction")
}

func replaces(w *Write) bool {
	_, ok := w.Op.(*replacement)
	return ok
}

// Replace puts the built content into the place of the old one, with how far it has come. After an
// error the old content is in use still, unless the folder could not be flushed after the switch: then
// the new one is.
func (l *Load) Replace(c *Context) error {
	fail := func(err error) error {
		if abort := l.Abort(); abort != nil {
			l.s.opt.Log.Warn("directory: what is left of a bulk load is removed at the next start", "error", abort)
		}
		return fmt.Errorf("bulk load: %w", err)
	}
	last := *c
	if have := l.s.ContextCSN(); len(have) > 0 {
		last.replaced = max(slices.Max(have), l.s.replacedUpTo())
	}
	if err := l.inner.Do("", &last); err != nil {
		return fail(err)
	}
	l.inner.stopBuild()
	l.inner.stopWriter()
	if err := l.s.fault("sync"); err != nil {
		return fail(err)
	}
	if !l.s.opt.Unsynced {
		if err := l.inner.bolt().Sync(); err != nil {
			return fail(err)
		}
	}
	w := &Write{Op: &replacement{load: l, context: c}}
	l.s.Submit(w)
	if err := w.Wait(); err != nil {
		return fail(err)
	}
	l.ended = true
	l.s.loading.Store(false)
	if err := os.RemoveAll(l.folder); err != nil {
		l.s.opt.Log.Warn("directory: what is left of a bulk load is removed at the next start", "error", err)
	}
	return nil
}

// replacedUpTo is what keyReplaced says.
func (s *Store) replacedUpTo() csn {
	r, err := s.Read()
	if err != nil {
		return "" // and nothing can be written either
	}
	defer r.Close()
	return r.Replaced()
}

// replace is the part of Replace that the writer does.
func (s *Store) replace(w *Write) {
	l := w.Op.(*replacement).load
	err := l.exchange()
	if err != nil {
		s.opt.Log.Error("directory: the database is not replaced", "error", err)
		err = &ldapwire.Error{Code: ldapwire.Unavailable, Message: "the directory cannot write: see the server's log"}
	}
	s.metrics.wrote(w)
	w.finish(err)
}

func (l *Load) exchange() error {
	s, n := l.s, l.inner
	if s.logSequence.Load() != l.sequence {
		return fmt.Errorf("the directory was changed during a bulk load")
	}
	have, is := s.attrs.table.Load(), n.attrs.table.Load()
	for i := range min(len(have.list), len(is.list)) {
		if have.list[i].name != is.list[i].name {
			return fmt.Errorf("attribute id %d is %s and %s", i, have.list[i].name, is.list[i].name)
		}
	}
	if err := s.fault("rename"); err != nil {
		return err
	}
	if err := s.endLog(); err != nil { // the old database must be whole without it, and the new one has none yet
		if s.redo == nil {
			s.restartLog()
		}
		return err
	}
	if err := os.Rename(filepath.Join(l.folder, fileName), filepath.Join(s.opt.Path, fileName)); err != nil {
		s.restartLog()
		return err
	}
	// From here on there is no way back: the name stands for the new content.
	flushed := s.fault("renamed")
	if flushed == nil && !s.opt.Unsynced {
		flushed = syncFolder(s.opt.Path)
	}
	if flushed != nil {
		s.opt.Log.Error("directory: the folder of the replaced database is not flushed: a crash may bring the old one back", "error", flushed)
	}
	db := n.base.bolt
	db.NoSync, db.NoGrowSync = s.opt.Unsynced, s.opt.Unsynced
	if len(is.list) > len(have.list) {
		s.attrs.table.Store(is)
	}
	s.attrs.saved = len(is.list)
	s.clock.seen(n.clock.String())
	s.clock.seen(l.newest)
	s.logFloor = n.logFloor
	if err := s.lookForSpecial(db); err != nil {
		s.opt.Log.Error("directory: the replaced content is not looked through for referrals and aliases", "error", err)
		s.special.Or(uint32(HasAliases | HasReferrals | HasSubentries))
	}
	defer s.watched.Add(1)
	s.swap.Lock()
	old := s.base
	s.base = n.base
	s.usable.Store(s.kept.Load()) // a load makes all that are wanted
	s.swap.Unlock()
	s.restartLog()
	s.cookie.Store(n.cookie.Load())
	s.entries.Store(n.entries.Load())
	s.logSequence.Store(n.logSequence.Load())
	s.context.Store(n.context.Load())
	s.announce()
	s.retired.Go(func() { // waits for its readers
		if err := old.bolt.Close(); err != nil {
			s.opt.Log.Error("directory: the replaced database is not closed", "error", err)
		}
	})
	return nil
}

// restartLog begins a redo log for the database in use. Without one commits flush the database.
func (s *Store) restartLog() {
	if err := s.startLog(); err != nil {
		s.base.bolt.NoSync, s.base.bolt.NoGrowSync = s.opt.Unsynced, s.opt.Unsynced
		s.opt.Log.Error("directory: there is no redo log: each commit flushes the database, which takes longer", "error", err)
	}
}

func syncFolder(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}
