package mailstore

import (
	"errors"
	"slices"
	"strings"
	"syscall"
)

// wreck is what can be read of a log that cannot be read to its end.
type wreck struct {
	j      *journal
	good   any          // the state before the damage; nil: nothing can be read
	after  []tailRecord // readable records behind it
	holes  []uint64     // missing records
	broken []uint64     // unreadable ones
	tip    uint64       // the highest record there is
}

// examine reads as much of a log as it can.
func (r *repairer) examine(kind *logKind, dir string) (*wreck, error) {
	j := newJournal(r.s, r.v, kind, dir, Ref{})
	w := &wreck{j: j}
	if err := j.look(); err != nil {
		return nil, err
	}
	names, err := r.v.fs.ReadDir(dir+"/"+dirSnap, nil)
	if err != nil {
		return nil, ioErr("list", dir+"/"+dirSnap, err)
	}
	start := &loaded{fold: kind.fresh(), marks: marks{}}
	snaps := numbers(names)
	for i := len(snaps) - 1; i >= 0; i-- {
		if l, err := j.loadSnapshot(snaps[i]); err == nil {
			start = l
			break
		}
	}
	j.start(start)
	log := dir + "/" + dirLog
	segments, err := r.v.fs.ReadDir(log, nil)
	if err != nil {
		return nil, ioErr("list", log, err)
	}
	there := map[uint64]bool{}
	for _, k := range numbersAndZero(segments) {
		list, err := r.v.fs.ReadDir(j.segmentPath(k), nil)
		if err != nil && !isNotExist(err) {
			return nil, ioErr("list", j.segmentPath(k), err)
		}
		for _, n := range numbers(list) {
			there[n] = true
			w.tip = max(w.tip, n)
		}
	}
	w.tip = max(w.tip, j.known)
	for n := j.known + 1; n <= w.tip; n++ {
		if !there[n] {
			w.holes = append(w.holes, n)
			continue
		}
		// Before the first damage, fold; behind it, only read.
		if len(w.holes)+len(w.broken) == 0 {
			if _, err := j.readNext(); err != nil {
				if !errors.Is(err, ErrCorrupt) {
					return nil, err
				}
				w.broken = append(w.broken, n)
			}
			continue
		}
		l := &moveLog{src: j, old: dir}
		target, body, err := l.read(n)
		if err != nil {
			w.broken = append(w.broken, n)
			continue
		}
		rec, err := parseRecord(target)
		if err == nil && kind.check([]byte(firstOp(body))) == nil {
			w.after = append(w.after, tailRecord{n, rec.nonce, body})
		} else {
			w.broken = append(w.broken, n)
		}
	}
	if j.known > 0 {
		w.good = j.fold.state()
	}
	return w, nil
}

func firstOp(body string) string {
	op, _, _ := strings.Cut(body, "|")
	return op
}

// deliveries folds nothing but the deliveries of records whose UIDs are lost.
func deliveries(records []tailRecord, account string) []restored {
	f := newMailFold()
	f.s.uidValidity = 1
	for _, x := range records {
		_ = eachOp(x.body, func(text string) error { // an op that does not parse ends the record
			op, skip, err := parseMailOp(text, x.nonce.origin)
			if err == nil && !skip && op.kind == opDeliver {
				for i := range op.entries {
					op.entries[i].uid = 0
				}
				f.s.n = x.n
				f.applyOp(&op, x.n)
			}
			return err
		})
	}
	src := &source{j: &journal{dir: account}, state: f.s}
	return src.live()
}

// closeBehind commits the terminal record behind the end of a log that cannot be folded, and in its holes: whoever has
// it in memory still meets one of them.
func (r *repairer) closeBehind(w *wreck) error {
	for _, n := range append(slices.Clone(w.holes), w.tip+1) {
		for end := n; ; end++ {
			segment := w.j.segmentPath(w.j.segment(end))
			if err := r.v.fs.Mkdir(segment); err != nil && !errors.Is(err, syscall.EEXIST) {
				return ioErr("mkdir", segment, err)
			}
			nc := r.s.nextNonce()
			err := r.v.fs.Symlink(string(append(nc.append(nil), ' ', opTerminal)), w.j.recordPath(end))
			if errors.Is(err, syscall.EEXIST) && n > w.tip {
				continue // somebody who has it in memory was faster
			}
			if err != nil && !errors.Is(err, syscall.EEXIST) {
				return ioErr("symlink", w.j.recordPath(end), err)
			}
			if err := errors.Join(r.v.syncDir(segment), r.v.syncDir(w.j.dir+"/"+dirLog)); err != nil {
				return err
			}
			break
		}
	}
	return nil
}
