package queue

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"syscall"
	"time"
)

// perRound bounds the entries taken over in one go, so that the switches that are alive share what a dead one left.
const perRound = 2000

// keepAlive gives signs of life and looks after what other runs left, until ctx ends.
func (q *Queue) keepAlive(ctx context.Context) {
	for {
		wait := q.o.Beat
		now, err := q.beat()
		switch {
		case errors.Is(err, syscall.ENOENT):
			q.rebirth()
			wait = time.Millisecond
		case err != nil:
			q.o.Log.Error("queue: no sign of life could be given; others may take over what is queued here", "error", err)
		default:
			took, err := q.Adopt(now)
			if err != nil {
				q.o.Log.Error("queue: looking after what other switches left", "error", err)
			} else if took >= perRound {
				wait = time.Millisecond // there may be more
			}
		}
		t := q.o.Clock.NewTimer(wait)
		select {
		case <-t.C():
		case <-ctx.Done():
			t.Stop()
			return
		}
	}
}

// beat touches alive and returns the file server's time.
func (q *Queue) beat() (time.Time, error) {
	path := q.dir(q.Origin()) + "/alive"
	at := q.o.Clock.Boot()
	f, err := q.o.FS.Create(path)
	if err != nil {
		return time.Time{}, q.ioErr("create", path, err)
	}
	_, err = f.Write([]byte("."))
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return time.Time{}, q.ioErr("write", path, err)
	}
	info, err := q.o.FS.Lstat(path)
	if err != nil {
		return time.Time{}, q.ioErr("stat", path, err)
	}
	q.mu.Lock()
	q.beatAt = at
	q.mu.Unlock()
	return info.ModTime, nil
}

// rebirth begins a new run after the directory of this one was taken away: this process was out for so long that
// the others thought it dead, delivered all it had and cleared up.
func (q *Queue) rebirth() {
	q.o.Log.Warn("queue: this switch was taken for dead and its entries were adopted; it goes on as a new run", "run", q.Origin())
	q.mu.Lock()
	for _, e := range q.entries {
		if e.key.origin == q.Origin() {
			q.drop(e, false)
		}
	}
	q.lastSeq = 0
	q.mu.Unlock()
	if err := q.begin(); err != nil {
		q.o.Log.Error("queue: a new run could not begin", "error", err)
	}
}

// round is one look at the runs there are.
type round struct {
	q    *Queue
	now  time.Time // by the file server
	gone map[string]bool
}

// isGone tells whether a run will not look after its entries any more.
func (r *round) isGone(origin string) (bool, error) {
	if gone, ok := r.gone[origin]; ok {
		return gone, nil
	}
	gone, err := r.look(origin)
	if err == nil {
		r.gone[origin] = gone
	}
	return gone, err
}

func (r *round) look(origin string) (bool, error) {
	q := r.q
	switch {
	case origin == q.Origin():
		return false, nil
	case serverOf(origin) == q.o.Server:
		return true, nil // an earlier run of this server
	}
	dir := q.dir(origin)
	if _, err := q.o.FS.Lstat(dir + "/closed"); err == nil {
		return true, nil
	} else if !errors.Is(err, syscall.ENOENT) {
		return false, q.ioErr("stat", dir+"/closed", err)
	}
	info, err := q.o.FS.Lstat(dir + "/alive")
	if errors.Is(err, syscall.ENOENT) {
		// Just begun, or just cleared up: the directory's own age decides.
		if info, err = q.o.FS.Lstat(dir); errors.Is(err, syscall.ENOENT) {
			return true, nil
		}
	}
	if err != nil {
		return false, q.ioErr("stat", dir, err)
	}
	return r.now.Sub(info.ModTime) > q.o.DeadAfter, nil
}

// Adopt takes over entries of runs that are gone, at most perRound or as many as memory may hold, and clears up
// what is finished. It returns how many it took. now is the file server's time.
func (q *Queue) Adopt(now time.Time) (int, error) {
	origins, err := q.origins()
	if err != nil {
		return 0, err
	}
	r := &round{q: q, now: now, gone: map[string]bool{}}
	rand.Shuffle(len(origins), func(i, j int) { origins[i], origins[j] = origins[j], origins[i] })
	took := 0
	for _, origin := range origins {
		gone, err := r.isGone(origin)
		if err != nil {
			return took, err
		}
		if !gone {
			continue
		}
		n, err := q.adoptFrom(r, origin, perRound-took)
		took += n
		if err != nil {
			return took, fmt.Errorf("adopting from %s: %w", origin, err)
		}
		if took >= perRound {
			break
		}
	}
	if took > 0 {
		q.o.Log.Info("queue entries adopted", "count", took)
	}
	return took, nil
}

// origins lists the runs that have a directory.
func (q *Queue) origins() ([]string, error) {
	names, err := q.o.FS.ReadDir(q.o.Path+"/r", nil)
	if err != nil {
		return nil, q.ioErr("list", q.o.Path+"/r", err)
	}
	var out []string
	for _, n := range names {
		if validOrigin(n) {
			out = append(out, n)
		}
	}
	return out, nil
}

// adoptFrom claims up to limit entries of a run that is gone.
func (q *Queue) adoptFrom(r *round, origin string, limit int) (int, error) {
	dir := q.dir(origin)
	names, err := q.o.FS.ReadDir(dir+"/b", nil)
	if errors.Is(err, syscall.ENOENT) {
		_, err := q.sweep(dir, origin)
		return 0, err
	}
	if err != nil {
		return 0, q.ioErr("list", dir+"/b", err)
	}
	if len(names) == 0 {
		_, err := q.sweep(dir, origin)
		return 0, err
	}
	claims, err := q.claims(origin)
	if err != nil {
		return 0, err
	}
	states, err := q.readLogs(origin)
	if err != nil {
		return 0, err
	}
	rand.Shuffle(len(names), func(i, j int) { names[i], names[j] = names[j], names[i] })
	var mine []*entry
	sizes := map[batchKey]int{}
	done := map[batchKey]int{}
	for _, s := range names {
		seq, ok := parseNumber(s)
		if !ok || len(mine) >= limit {
			continue
		}
		key := batchKey{origin, seq}
		index, err := q.readIndex(key)
		if errors.Is(err, syscall.ENOENT) {
			continue
		}
		if errors.Is(err, ErrCorrupt) {
			if err := q.dropTorn(r, key, err); err != nil {
				return 0, err
			}
			continue
		}
		if err != nil {
			return 0, err
		}
		sizes[key] = len(index)
		for i := range index {
			n := name{seq, i}
			if states[n].final(len(index[i].Recipients)) {
				done[key]++
				continue
			}
			e, err := q.claim(r, key, i, claims[n], &index[i])
			if err != nil {
				return 0, err
			}
			if e != nil {
				mine = append(mine, e)
			}
		}
		if done[key] == len(index) {
			if err := q.removeBatch(key); err != nil {
				return 0, err
			}
			delete(sizes, key)
		}
	}
	if len(mine) == 0 {
		return 0, nil
	}
	// The owner before us may have finished some of them after we read the logs and before we had the claims.
	if states, err = q.readLogs(origin); err != nil {
		return 0, err
	}
	return q.take(mine, states, sizes, done), nil
}

// take makes claimed entries known with the states that the logs give them.
func (q *Queue) take(mine []*entry, states map[name]*state, sizes, done map[batchKey]int) int {
	q.mu.Lock()
	defer q.mu.Unlock()
	took := 0
	now := q.o.Clock.Now().Unix()
	for _, e := range mine {
		st := states[name{e.key.seq, e.key.index}]
		if st != nil {
			e.attempts, e.warned, e.due = st.attempts, st.warned, max(st.due, now)
			if len(st.finals) > 0 {
				e.final = st.finals
			}
		} else {
			e.due = now
		}
		if _, ok := q.entries[e.key]; ok {
			continue
		}
		q.add(e, sizes[e.key.batchKey])
		q.batches[e.key.batchKey].gone = done[e.key.batchKey]
		took++
	}
	q.metrics.adopted.Add(float64(took))
	return took
}

// claim tries to become the owner of an entry; nil when it is somebody else's, or known here already.
func (q *Queue) claim(r *round, key batchKey, index, generation int, x *indexEntry) (*entry, error) {
	ek := entryKey{key, index}
	q.mu.Lock()
	_, known := q.entries[ek]
	full := len(q.entries) >= q.o.MaxEntries
	q.mu.Unlock()
	if known || full {
		return nil, nil
	}
	if generation > 0 {
		path := q.claimPath(ek, generation)
		var buf [64]byte
		n, err := q.o.FS.Readlink(path, buf[:])
		if errors.Is(err, syscall.ENOENT) {
			return nil, nil
		}
		if err != nil {
			return nil, q.ioErr("readlink", path, err)
		}
		gone, err := r.isGone(string(buf[:n]))
		if err != nil || !gone {
			return nil, err
		}
	}
	path := q.claimPath(ek, generation+1)
	err := q.o.FS.Symlink(q.Origin(), path)
	switch {
	case err == nil:
	case errors.Is(err, syscall.EEXIST):
		// Somebody was faster, or our own reply was lost.
		var buf [64]byte
		n, err := q.o.FS.Readlink(path, buf[:])
		if err != nil || string(buf[:n]) != q.Origin() {
			return nil, nil
		}
	case errors.Is(err, syscall.ENOENT):
		return nil, nil // cleared up meanwhile
	default:
		return nil, q.ioErr("symlink", path, err)
	}
	e := newEntry(ek, x)
	e.generation = generation + 1
	return e, nil
}

// claims lists the highest generation of each entry that has a claim.
func (q *Queue) claims(origin string) (map[name]int, error) {
	dir := q.dir(origin) + "/c"
	names, err := q.o.FS.ReadDir(dir, nil)
	if err != nil && !errors.Is(err, syscall.ENOENT) {
		return nil, q.ioErr("list", dir, err)
	}
	out := map[name]int{}
	for _, s := range names {
		if n, g, ok := parseClaim(s); ok {
			out[n] = max(out[n], g)
		}
	}
	return out, nil
}

// state of an entry, from the logs of all who had it.
type state struct {
	attempts int
	due      int64
	warned   bool
	finals   map[int]bool
}

func (s *state) final(recipients int) bool { return s != nil && len(s.finals) >= recipients }

// readLogs folds the logs in the directory of a run.
func (q *Queue) readLogs(origin string) (map[name]*state, error) {
	dir := q.dir(origin)
	names, err := q.o.FS.ReadDir(dir, nil)
	if errors.Is(err, syscall.ENOENT) {
		return nil, nil
	}
	if err != nil {
		return nil, q.ioErr("list", dir, err)
	}
	out := map[name]*state{}
	for _, s := range names {
		if !strings.HasPrefix(s, "log.") {
			continue
		}
		data, err := readAll(q.o.FS, dir+"/"+s, 1<<40)
		if errors.Is(err, syscall.ENOENT) {
			continue
		}
		if err != nil {
			return nil, err
		}
		parseLog(data, func(p progress) {
			n, ok := parseName(p.Entry)
			if !ok {
				return
			}
			st := out[n]
			if st == nil {
				st = &state{finals: map[int]bool{}}
				out[n] = st
			}
			if p.Attempts >= st.attempts {
				st.attempts, st.due = p.Attempts, p.Due
			}
			st.warned = st.warned || p.Warned
			for _, o := range p.Outcomes {
				if o.State.Final() && o.Index >= 0 {
					st.finals[o.Index] = true
				}
			}
		})
	}
	return out, nil
}

// readIndex reads the index of a batch: its end, and nothing of the contents.
func (q *Queue) readIndex(key batchKey) ([]indexEntry, error) {
	path := q.batchPath(key)
	info, err := q.o.FS.Lstat(path)
	if err != nil {
		return nil, q.ioErr("stat", path, err)
	}
	if info.Size < trailerLen {
		return nil, fmt.Errorf("%s: %d bytes: %w", path, info.Size, ErrCorrupt)
	}
	f, err := q.o.FS.Open(path)
	if err != nil {
		return nil, q.ioErr("open", path, err)
	}
	defer f.Close()
	tail := make([]byte, min(info.Size, 32<<10))
	if _, err := f.ReadAt(tail, info.Size-int64(len(tail))); err != nil {
		return nil, q.ioErr("read", path, err)
	}
	offset, length, crc, err := parseTrailer(tail[len(tail)-trailerLen:], info.Size)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	var b []byte
	if have := int64(len(tail)) - trailerLen; length <= have {
		b = tail[have-length : have]
	} else {
		b = make([]byte, length)
		if _, err := f.ReadAt(b, offset); err != nil {
			return nil, q.ioErr("read", path, err)
		}
	}
	index, err := parseIndex(b, offset, crc)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return index, nil
}

// dropTorn removes what was being written when its run died: nobody was told that it was accepted. It is kept for a
// day, in case somebody wants to look.
func (q *Queue) dropTorn(r *round, key batchKey, cause error) error {
	path := q.batchPath(key)
	info, err := q.o.FS.Lstat(path)
	if errors.Is(err, syscall.ENOENT) {
		return nil
	}
	if err != nil {
		return q.ioErr("stat", path, err)
	}
	if r.now.Sub(info.ModTime) < 24*time.Hour {
		return nil
	}
	q.o.Log.Warn("queue: removing a batch that was never finished", "file", path, "error", cause)
	if err := q.o.FS.Unlink(path); err != nil && !errors.Is(err, syscall.ENOENT) {
		return q.ioErr("unlink", path, err)
	}
	return nil
}

// sweep removes the directory of a run that is gone and has no batches. Removing b comes first: it fails as long as there
// is one, also one that a thawed process has just written.
func (q *Queue) sweep(dir, origin string) (bool, error) {
	fs := q.o.FS
	if err := fs.Rmdir(dir + "/b"); err != nil && !errors.Is(err, syscall.ENOENT) {
		if errors.Is(err, syscall.ENOTEMPTY) || errors.Is(err, syscall.EEXIST) {
			return false, nil
		}
		return false, q.ioErr("rmdir", dir+"/b", err)
	}
	claims, err := fs.ReadDir(dir+"/c", nil)
	if err != nil && !errors.Is(err, syscall.ENOENT) {
		return false, q.ioErr("list", dir+"/c", err)
	}
	for _, c := range claims {
		if err := fs.Unlink(dir + "/c/" + c); err != nil && !errors.Is(err, syscall.ENOENT) {
			return false, q.ioErr("unlink", dir+"/c/"+c, err)
		}
	}
	if err := fs.Rmdir(dir + "/c"); err != nil && !errors.Is(err, syscall.ENOENT) {
		return false, q.ioErr("rmdir", dir+"/c", err)
	}
	names, err := fs.ReadDir(dir, nil)
	if errors.Is(err, syscall.ENOENT) {
		return true, nil
	}
	if err != nil {
		return false, q.ioErr("list", dir, err)
	}
	for _, n := range names {
		if err := fs.Unlink(dir + "/" + n); err != nil && !errors.Is(err, syscall.ENOENT) {
			return false, q.ioErr("unlink", dir+"/"+n, err)
		}
	}
	if err := fs.Rmdir(dir); err != nil && !errors.Is(err, syscall.ENOENT) {
		return false, q.ioErr("rmdir", dir, err)
	}
	q.mu.Lock()
	if l := q.logs[origin]; l != nil && origin != q.Origin() {
		delete(q.logs, origin)
		q.mu.Unlock()
		l.close()
	} else {
		q.mu.Unlock()
	}
	return true, nil
}
