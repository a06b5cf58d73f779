package mailstore

import (
	"sync"
	"sync/atomic"
	"time"
)

// What makes a change durable differs with the volume:
//
//   - Network: the file server commits each call before it answers. Nothing to add.
//   - Any local file system: a message file is synced, then the record is made, then the directory of the record is
//     synced: two flushes for a delivery.
//   - ext4 with a journal, and XFS (vfs.StatFS.Journal): the journal keeps the order of changes of metadata, so what comes
//     before the record needs no sync of its own, except that the data of a file must be on the device before the
//     record is made: SyncData. One flush for a delivery, and those that wait at the same time share one.
//
// The single flush rests on how those two work and on crash images of them (tests/powercut), not on POSIX.

// flusher groups those who wait for the journal of a volume. Whoever comes first flushes; those who come
// meanwhile form the next group, of which one flushes for all. A group's flush must touch something that was changed
// after all its members: a directory of the volume whose times are set then.
//
// Whoever would flush alone while other deliveries are on their way waits for one of them, for as long as a quarter of a flush: one
// flush for two is sooner done than two, when flushes are what all wait for.
type flusher struct {
	mu         sync.Mutex
	busy       bool
	next       *flushGroup
	inside     int32         // how many wait here
	took       time.Duration // of late, for a flush
	delivering atomic.Int32  // deliveries under way, wherever they are
}

type flushGroup struct {
	members int
	lead    chan struct{} // a member that gets this flushes for all
	joined  chan struct{} // there is a second member
	done    chan struct{}
	err     error
}

// longestWait bounds what a flush waits for company, however slow the disk is.
const longestWait = 2 * time.Millisecond

// flush makes what the caller changed in dir durable, and all that came before it on the volume.
func (v *volume) flush(dir string) error {
	f := &v.flusher
	f.mu.Lock()
	f.inside++
	g := f.next
	if g == nil {
		g = &flushGroup{lead: make(chan struct{}, 1), joined: make(chan struct{}, 1), done: make(chan struct{})}
		f.next = g
	}
	g.members++
	if g.members == 2 {
		g.joined <- struct{}{}
	}
	if !f.busy {
		f.busy = true
		g.lead <- struct{}{}
	}
	f.mu.Unlock()
	select {
	case <-g.done:
		return g.err
	case <-g.lead:
	}
	f.company(g)
	f.mu.Lock()
	f.next = nil // who comes from here on is not covered
	members := g.members
	f.mu.Unlock()
	v.store.metrics.flushes.Inc()
	began := v.clk.Boot()
	if members == 1 {
		g.err = v.fs.SyncDir(dir)
	} else {
		g.err = v.fs.SyncJournal(v.root + "/" + dirRuns)
	}
	took := v.clk.Boot() - began
	close(g.done)
	f.mu.Lock()
	f.inside -= int32(members)
	f.took += (took - f.took) / 8
	f.pass()
	f.mu.Unlock()
	return g.err
}

// company waits for a second member of the group, if there is one to be expected.
func (f *flusher) company(g *flushGroup) {
	f.mu.Lock()
	wait := min(f.took/4, longestWait)
	alone := g.members == 1 && f.delivering.Load() > f.inside
	f.mu.Unlock()
	if !alone || wait < 20*time.Microsecond { // shorter than a timer is exact
		return
	}
	t := time.NewTimer(wait)
	defer t.Stop()
	select {
	case <-g.joined:
	case <-t.C:
	}
}

// pass lets the next group go, if there is one. The caller holds mu.
func (f *flusher) pass() {
	if f.next == nil {
		f.busy = false
		return
	}
	f.next.lead <- struct{}{}
}

// syncDir makes a directory's entries durable where the file server does not do so by itself. The error is that of the
// file system.
func (v *volume) syncDir(path string) error {
	switch {
	case v.network:
		return nil
	case v.journal:
		return v.flush(path)
	}
	return v.fs.SyncDir(path)
}

// orderDir makes a directory's entries durable before anything that is done after it. Where the journal keeps the order
// by itself there is nothing to do.
func (v *volume) orderDir(path string) error {
	if v.network || v.journal {
		return nil
	}
	return ioErr("sync", path, v.fs.SyncDir(path))
}

// writeFile creates path with the given content, stable before anything that is done after it; a partial file is removed.
func (v *volume) writeFile(path string, content []byte) error {
	how := syncFile
	if v.journal {
		how = syncData
	}
	if v.store.knobs.noData {
		how = syncNothing
	}
	return createFile(v.fs, path, content, how)
}
