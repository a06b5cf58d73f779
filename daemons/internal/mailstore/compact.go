package mailstore

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"syscall"
	"time"
)

// Snapshots and compaction.
//
// Two kinds of snapshots are written. A complete one holds the whole fold; it is written when the log has
// grown by a fair part of what the fold weighs. In between, small ones that continue another spare a cold
// reader the single records. Small ones that add up are merged, so a chain stays short.
//
// Only complete snapshots carry weight: a floor is drawn only under a complete snapshot that has stood for
// the retention and was just read back, and a snapshot is removed only when a newer complete one is there. So
// there is always a complete snapshot above every floor, however long a server that is tidying up was
// stopped between its listing and its unlink.

const (
	// deltaEvery is the number of records, those in files of their own counted as several (spillCost), after which a snapshot that
	// continues another is written: it bounds the calls of a cold reader.
	deltaEvery = 12
	// deltaMergeBelow: snapshots of so few records are always merged into what continues them, and others if they have no more than
	// deltaMergeFactor times as many: a small file costs a reader as much as a tiny one.
	deltaMergeBelow  = 400
	deltaMergeFactor = 4
	// completeEvery is the least number of records between complete snapshots.
	completeEvery = 128
	// keepComplete is the number of complete snapshots that are always kept.
	keepComplete = 3
)

// snapshotter is a state that can be written.
type snapshotter interface {
	appendSnapshot(b []byte, m marks, other []string) []byte
}

// wantsComplete and wantsSnapshot tell whether the log has grown enough. The caller holds drive.
func (j *journal) wantsComplete() bool {
	return j.known-j.complete() >= max(j.store.knobs.completeEvery, uint64(j.fold.messages())/8)
}

func (j *journal) wantsSnapshot() bool {
	return j.loaded && !j.fold.isClosed() && (j.tailCost >= j.store.knobs.deltaEvery || j.wantsComplete())
}

// checkpoint writes a snapshot of the log as it is now, verified by the Read rule: a complete one if it
// is due or force is set, else one that continues the last. It does not hold drive while it writes.
func (j *journal) checkpoint(ctx context.Context, force bool) error {
	var text func() ([]byte, error)
	var n uint64
	err := j.drives(ctx, func() error {
		if err := j.advance(); err != nil {
			return err
		}
		if err := j.settle(); err != nil {
			return err
		}
		if j.fold.isClosed() || j.known == j.base() && (!force || j.complete() == j.known) || !force && !j.wantsSnapshot() {
			return nil
		}
		n = j.known
		if force || j.wantsComplete() || j.complete() == 0 || j.tailLost {
			state, m := j.publish().(snapshotter), slices.Clone(j.marks)
			m.trim()
			other := j.other
			text = func() ([]byte, error) { return state.appendSnapshot(nil, m, other), nil }
			return nil
		}
		tail, chain := j.tail, j.chain
		text = func() ([]byte, error) { return j.delta(tail, chain) }
		return nil
	})
	if err != nil || text == nil {
		return err
	}
	err = j.vol.do(ctx, func() error {
		b, err := text()
		if err != nil {
			return err
		}
		return j.linkSnapshot(n, b)
	})
	if err != nil {
		return err
	}
	j.store.metrics.snapshots.Inc()
	return j.drives(ctx, func() error { return j.rebase(n) })
}

// delta writes the records of tail, and of the snapshots at the end of chain that are short or not much longer than what
// continues them.
func (j *journal) delta(tail []tailRecord, chain []link) ([]byte, error) {
	base := chain[len(chain)-1]
	for base.base != 0 && (base.records <= deltaMergeBelow || base.records <= deltaMergeFactor*len(tail)) {
		s, err := j.readSnapshot(base.n)
		if err != nil {
			break // fine without: it stays in the chain
		}
		tail = append(s.tail, tail...)
		chain = chain[:len(chain)-1]
		base = chain[len(chain)-1]
	}
	return appendDelta(nil, j.kind.name, base.n, tail), nil
}

// linkSnapshot puts a snapshot into its place, unless somebody else's is there. It is not made durable: a power
// cut may leave a torn one, which is passed over, and the log is still there. What a floor is to rest on is synced
// then (makeDurable).
func (j *journal) linkSnapshot(n uint64, b []byte) error {
	tmp := j.dir + "/" + dirTmp + "/" + j.store.nextNonce().String()
	err := j.vol.essential(func() error { return ioErr("write", tmp, createFile(j.vol.fs, tmp, b, syncNothing)) })
	if err != nil {
		if isNotExist(err) {
			return j.gone(tmp)
		}
		return err
	}
	err = j.vol.essential(func() error { return ioErr("link", j.snapPath(n), j.vol.fs.Link(tmp, j.snapPath(n))) })
	_ = j.vol.fs.Unlink(tmp) // what stays is collected
	if err != nil && !errors.Is(err, syscall.EEXIST) {
		return err
	}
	return nil
}

// makeDurable syncs a snapshot and its name.
func (j *journal) makeDurable(n uint64) error {
	if j.vol.network {
		return nil
	}
	path := j.snapPath(n)
	f, err := j.vol.fs.Open(path)
	if err != nil {
		return ioErr("open", path, err)
	}
	err = f.Sync()
	if e := f.Close(); err == nil {
		err = e
	}
	if err != nil {
		return ioErr("sync", path, err)
	}
	dir := j.dir + "/" + dirSnap
	return ioErr("sync", dir, j.vol.syncDir(dir))
}

// rebase lets the fold rest on snapshot n, which has just been written. The caller holds drive.
func (j *journal) rebase(n uint64) error {
	if !j.loaded || j.known < n || j.base() >= n {
		return nil
	}
	head, err := j.snapshotHead(n)
	if isNotExist(err) {
		return nil // replaced by a newer one already
	}
	if err != nil {
		return err
	}
	if head.base == 0 {
		j.chain = []link{head}
	} else {
		for len(j.chain) > 0 && j.base() > head.base {
			j.chain = j.chain[:len(j.chain)-1]
		}
		if j.base() != head.base {
			j.forget() // another server's, with another chain: begin anew when needed
			return nil
		}
		j.chain = append(j.chain[:len(j.chain):len(j.chain)], head)
	}
	var tail []tailRecord
	size := 0
	j.tailCost = j.known - n
	for _, r := range j.tail {
		if r.n > n {
			tail = append(tail, r)
			size += len(r.body) + 40
			j.tailCost += j.cost(&r) - 1
		}
	}
	j.tailLost = j.tailLost && j.known > n
	j.tail, j.tailBytes = tail, size
	return nil
}

// snapshotHead reads the first lines of a snapshot.
func (j *journal) snapshotHead(n uint64) (link, error) {
	path := j.snapPath(n)
	f, err := j.vol.fs.Open(path)
	if err != nil {
		if isNotExist(err) {
			return link{}, err
		}
		return link{}, ioErr("open", path, err)
	}
	defer f.Close()
	var buf [128]byte
	l, err := f.ReadAt(buf[:], 0)
	if l == 0 && err != nil {
		return link{}, ioErr("read", path, err)
	}
	h := link{n: n}
	lines := strings.SplitN(string(buf[:l]), "\n", 4)
	if len(lines) > 2 && strings.HasPrefix(lines[2], "b ") {
		base, ok := parseDec(lines[2][2:])
		if !ok {
			return link{}, fmt.Errorf("%s: %w", path, ErrCorrupt)
		}
		h.base, h.records = base, int(n-base)
	}
	return h, nil
}

// compact deletes what nobody needs any more: the log below a complete snapshot that has stood for the
// retention, and snapshots that newer ones have replaced. Several servers may do it at once.
func (j *journal) compact(ctx context.Context) error {
	now, err := j.vol.serverNow(ctx)
	if err != nil {
		return err
	}
	var stood uint64
	err = j.vol.do(ctx, func() error {
		path := j.dir + "/" + dirSnap
		names, err := j.vol.fs.ReadDir(path, nil)
		if isNotExist(err) {
			return j.gone(path)
		}
		if err != nil {
			return ioErr("list", path, err)
		}
		snaps, err := j.describeSnapshots(numbers(names))
		if err != nil {
			return err
		}
		old := now.Add(-j.store.o.Retention)
		newest := false
		var good []snapInfo // without complete ones that can not be read
		for i := len(snaps) - 1; i >= 0; i-- {
			s := snaps[i]
			aged := !s.mtime.After(old)
			if s.base == 0 && (!newest || aged && stood == 0) {
				ok, err := j.proof(s.n)
				if err != nil {
					return err
				}
				if !ok {
					continue
				}
				newest = true
				if aged && stood == 0 {
					stood = s.n
				}
			}
			good = append(good, s)
		}
		slices.Reverse(good)
		if stood > 0 {
			if err := j.cut(stood); err != nil {
				return err
			}
		}
		return j.thin(good)
	})
	if err != nil || stood == 0 {
		return err
	}
	return j.removeDead(ctx, stood)
}

// proof reads a complete snapshot back and makes it durable. One that can not be read is removed: a power cut tore it,
// or the disk lost it; either way it is of no use to anybody.
func (j *journal) proof(n uint64) (bool, error) {
	_, err := j.loadSnapshot(n)
	switch {
	case err == nil:
		return true, j.makeDurable(n)
	case isNotExist(err):
		return false, nil
	case errors.Is(err, ErrCorrupt):
		path := j.snapPath(n)
		j.log.Warn("corrupt snapshot removed", "path", path, "err", err)
		if err := j.vol.fs.Unlink(path); err != nil && !isNotExist(err) {
			return false, ioErr("unlink", path, err)
		}
		return false, nil
	}
	return false, err
}

type snapInfo struct {
	link
	mtime time.Time
}

func (j *journal) describeSnapshots(ns []uint64) ([]snapInfo, error) {
	var out []snapInfo
	for _, n := range ns {
		i, err := j.vol.fs.Lstat(j.snapPath(n))
		if isNotExist(err) {
			continue
		}
		if err != nil {
			return nil, ioErr("lstat", j.snapPath(n), err)
		}
		h, err := j.snapshotHead(n)
		if isNotExist(err) {
			continue
		}
		if err != nil {
			return nil, err
		}
		out = append(out, snapInfo{h, i.ModTime})
	}
	return out, nil
}

// cut deletes the segments that a snapshot covers, under a floor.
func (j *journal) cut(n uint64) error {
	segments := n / j.store.knobs.segmentLen // the first segments are covered
	if segments == 0 {
		return nil
	}
	log := j.dir + "/" + dirLog
	names, err := j.vol.fs.ReadDir(log, nil)
	if err != nil {
		return ioErr("list", log, err)
	}
	var victims []string
	for _, name := range names {
		if k, ok := parseDec(name); ok && k < segments {
			victims = append(victims, name)
		}
	}
	if len(victims) == 0 {
		return nil
	}
	w := j.dir + "/" + dirInterest
	floor := w + "/" + floorPrefix + string(appendDec(nil, segments-1))
	if !j.store.knobs.noFence {
		err := j.vol.essential(func() error { return ioErr("symlink", floor, j.vol.fs.Symlink("-", floor)) })
		if err != nil && !errors.Is(err, syscall.EEXIST) {
			return err
		}
		// The floor must outlast a power cut if the first unlink does.
		if err := j.vol.orderDir(w); err != nil {
			return err
		}
	}
	for _, name := range victims {
		dir := log + "/" + name
		entries, err := j.vol.fs.ReadDir(dir, nil)
		if err != nil && !isNotExist(err) {
			return ioErr("list", dir, err)
		}
		for _, e := range entries {
			if err := j.vol.fs.Unlink(dir + "/" + e); err != nil && !isNotExist(err) {
				return ioErr("unlink", dir+"/"+e, err)
			}
			j.store.metrics.removed.Inc()
		}
		// Not empty: a writer that was far behind put a record there; it finds the floor. Next time.
		if err := j.vol.fs.Rmdir(dir); err != nil && !isNotExist(err) && !errors.Is(err, syscall.ENOTEMPTY) && !errors.Is(err, syscall.EEXIST) {
			return ioErr("rmdir", dir, err)
		}
	}
	return nil
}

// removeDead removes the files of messages that were expunged before a snapshot that has stood for the
// retention, and says so in the log.
func (j *journal) removeDead(ctx context.Context, stood uint64) error {
	p := j.pub.Load()
	if j.kind != mailboxKind || p == nil {
		return nil
	}
	s := p.state.(*State)
	any := false
	err := j.vol.do(ctx, func() error {
		for i := range s.dead {
			d := &s.dead[i]
			if d.n > stood {
				break
			}
			any = true
			path := j.messagePath(recDir(&d.rec, d.ext), s.deadID(d))
			if err := j.vol.fs.Unlink(path); err != nil && !isNotExist(err) {
				return ioErr("unlink", path, err)
			}
			j.store.metrics.removed.Inc()
		}
		return nil
	})
	if err != nil || !any {
		return err
	}
	op := mailOp{kind: opGone, gone: stood}
	return j.submit(ctx, &request{op: func(b []byte, x *opContext) []byte { return op.append(b, x.origin) }})
}

func (s *State) deadID(d *deadMsg) msgID {
	return msgID{nonce{s.origins[d.rec.origin], d.rec.ctr}, recFile(&d.rec, d.ext), d.rec.crc}
}

// thin removes snapshots that are of no more use, newest dependents first. Of the complete ones it keeps
// the newest few, and among those within the retention one per eighth of it, so that one of them comes of
// age soon. Those that continue others go when a newer complete one is there, or when the chain of the
// newest does without them.
func (j *journal) thin(snaps []snapInfo) error {
	keep := map[uint64]bool{}
	byN := map[uint64]snapInfo{}
	for _, s := range snaps {
		byN[s.n] = s
	}
	var last time.Time
	complete := 0
	for i := len(snaps) - 1; i >= 0; i-- {
		s := snaps[i]
		switch {
		case s.base != 0:
			if complete == 0 && i == len(snaps)-1 {
				for at := s; ; at = byN[at.base] {
					keep[at.n] = true
					if at.base == 0 || byN[at.base].n == 0 {
						break
					}
				}
			}
		case complete < keepComplete || s.mtime.Before(last.Add(-j.store.o.Retention/8)) && complete < keepComplete+10:
			keep[s.n] = true
			last = s.mtime
			complete++
		}
	}
	if complete == 0 {
		return nil
	}
	for i := len(snaps) - 1; i >= 0; i-- {
		if keep[snaps[i].n] {
			continue
		}
		path := j.snapPath(snaps[i].n)
		if err := j.vol.fs.Unlink(path); err != nil && !isNotExist(err) {
			return ioErr("unlink", path, err)
		}
		j.store.metrics.removed.Inc()
	}
	return nil
}
