package mailstore

import (
	"errors"
	"fmt"
	"slices"
)

// link is a snapshot in a chain.
type link struct {
	n, base uint64
	records int
}

// base is the newest snapshot that the fold rests on, 0 if there is none.
func (j *journal) base() uint64 {
	if len(j.chain) == 0 {
		return 0
	}
	return j.chain[len(j.chain)-1].n
}

// complete is the newest complete snapshot that the fold rests on, 0 if there is none.
func (j *journal) complete() uint64 {
	if len(j.chain) == 0 {
		return 0
	}
	return j.chain[0].n
}

// errChain: a snapshot continues another that is not there.
var errChain = errors.New("the snapshot it continues is missing")

// reload starts again from the newest snapshot that can be read. Snapshots that continue others may lose
// them to another server's tidying; then an older one does, and more of the log is read: compaction
// rests on complete snapshots only.
func (j *journal) reload() error {
	j.forget()
	for _, q := range j.pendReqs {
		q.mail.resolved, q.acct.resolved = false, false
	}
	path := j.dir + "/" + dirSnap
	var broken error
	for try := range 20 {
		names, err := j.vol.fs.ReadDir(path, nil)
		if isNotExist(err) {
			return j.gone(path)
		}
		if err != nil {
			return ioErr("list", path, err)
		}
		snaps := numbers(names)
		again := false
		for i := len(snaps) - 1; i >= 0 && !again; i-- {
			l, err := j.loadSnapshot(snaps[i])
			switch {
			case err == nil:
				j.start(l)
				return nil
			case isNotExist(err):
				again = true // deleted since the listing: there is a newer one
			case errors.Is(err, errChain):
				again = try == 0
			case errors.Is(err, ErrNewerFormat), !errors.Is(err, ErrCorrupt):
				return err
			default:
				j.log.Warn("snapshot is corrupt", "path", j.snapPath(snaps[i]), "err", err)
				broken = err
			}
		}
		if again {
			continue
		}
		if broken != nil && j.floor >= 0 {
			return broken
		}
		// From the very first record; if that has been compacted, a floor says so.
		j.start(&loaded{fold: j.kind.fresh(), marks: marks{}})
		return nil
	}
	return fmt.Errorf("%s: snapshots vanish faster than they can be read: %w", path, ErrUnavailable)
}

// numbers returns the decimal names in ascending order.
func numbers(names []string) []uint64 {
	var out []uint64
	for _, s := range names {
		if n, ok := parseDec(s); ok && n > 0 {
			out = append(out, n)
		}
	}
	slices.Sort(out)
	return out
}

// loaded is a fold made from snapshots.
type loaded struct {
	fold  logFold
	marks marks
	other []string
	n     uint64
	chain []link
}

func (j *journal) start(l *loaded) {
	j.fold, j.marks, j.other, j.known, j.chain = l.fold, l.marks, l.other, l.n, l.chain
	j.tail, j.tailBytes, j.tailCost, j.tailLost = nil, 0, 0, false
	j.loaded, j.looked, j.fresh = true, false, true
}

// maxChain bounds the snapshots that continue one another.
const maxChain = 64

// maxSnapshot bounds a snapshot file.
const maxSnapshot = 1 << 30

func (j *journal) readSnapshot(n uint64) (*snapshot, error) {
	path := j.snapPath(n)
	b, err := readFile(j.vol.fs, path, maxSnapshot)
	if isNotExist(err) {
		return nil, err
	}
	if err != nil {
		return nil, ioErr("read", path, err)
	}
	s, err := parseSnapshot(string(b), j.kind.name, j.kind.lines)
	if err == nil && s.n != n {
		err = fmt.Errorf("it is number %d: %w", s.n, ErrCorrupt)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return s, nil
}

// loadSnapshot reads snap/<n> and what it rests on.
func (j *journal) loadSnapshot(n uint64) (*loaded, error) {
	var snaps []*snapshot // newest first
	for at := n; ; {
		s, err := j.readSnapshot(at)
		if isNotExist(err) && at != n {
			err = fmt.Errorf("%s: %w", j.snapPath(n), errChain)
		}
		if err != nil {
			return nil, err
		}
		snaps = append(snaps, s)
		if s.base == 0 {
			break
		}
		if len(snaps) > maxChain {
			return nil, fmt.Errorf("%s: chain of snapshots too long: %w", j.snapPath(n), ErrCorrupt)
		}
		at = s.base
	}
	full := snaps[len(snaps)-1]
	fold, err := j.kind.load(full)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", j.snapPath(full.n), err)
	}
	l := &loaded{fold: fold, marks: full.marks, other: full.other, n: n, chain: []link{{n: full.n}}}
	for i := len(snaps) - 2; i >= 0; i-- {
		for k := range snaps[i].tail {
			r := &snaps[i].tail[k]
			if err := fold.applyRecord(r, j.requestsOf(r.nonce)); err != nil {
				return nil, fmt.Errorf("%s: record %d: %w", j.snapPath(snaps[i].n), r.n, err)
			}
			l.marks.add(r.nonce, r.n)
		}
		l.chain = append(l.chain, link{snaps[i].n, snaps[i].base, len(snaps[i].tail)})
	}
	return l, nil
}
