package queue

import (
	"container/heap"
	"errors"
	"fmt"
	"sort"
	"syscall"
	"time"
)

// Info describes an entry for an operator.
type Info struct {
	ID         string      `json:"id"`
	From       string      `json:"from"`
	Recipients []Recipient `json:"recipients"` // those without a final state
	Size       int64       `json:"size"`
	Accepted   time.Time   `json:"accepted"`
	Expires    time.Time   `json:"expires"`
	Due        time.Time   `json:"due"`
	Attempts   int         `json:"attempts"`
	Active     bool        `json:"active"` // an attempt is under way
	Trace      string      `json:"trace,omitempty"`
	Reason     string      `json:"reason,omitempty"` // last answer of a deferred recipient
}

// Len is the number of entries that this run owns.
func (q *Queue) Len() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return len(q.entries)
}

// Oldest is when the oldest entry that this run owns was accepted; zero when there is none.
func (q *Queue) Oldest() time.Time {
	q.mu.Lock()
	defer q.mu.Unlock()
	var oldest int64
	for _, e := range q.entries {
		if oldest == 0 || e.accepted < oldest {
			oldest = e.accepted
		}
	}
	if oldest == 0 {
		return time.Time{}
	}
	return time.Unix(oldest, 0)
}

// List describes up to limit entries that this run owns, the oldest first, beginning after the first skip ones.
func (q *Queue) List(skip, limit int) ([]Info, error) {
	q.mu.Lock()
	all := make([]*entry, 0, len(q.entries))
	for _, e := range q.entries {
		all = append(all, e)
	}
	sort.Slice(all, func(i, j int) bool {
		a, b := all[i], all[j]
		if a.accepted != b.accepted {
			return a.accepted < b.accepted
		}
		return a.key.id() < b.key.id()
	})
	all = all[min(skip, len(all)):]
	all = all[:min(limit, len(all))]
	infos := make([]Info, len(all))
	finals := make([]map[int]bool, len(all))
	for i, e := range all {
		infos[i] = Info{ID: e.key.id(), Size: e.size, Accepted: time.Unix(e.accepted, 0), Expires: time.Unix(e.expires, 0),
			Due: time.Unix(e.due, 0), Attempts: e.attempts, Active: e.leased, Reason: e.reason}
		finals[i] = e.final
	}
	q.mu.Unlock()
	var out []Info
	var last batchKey
	var index []indexEntry
	for i, e := range all {
		if e.key.batchKey != last || index == nil {
			var err error
			last = e.key.batchKey
			if index, err = q.readIndex(last); errors.Is(err, syscall.ENOENT) {
				index = nil
				continue // finished meanwhile
			} else if err != nil {
				return nil, err
			}
		}
		if e.key.index >= len(index) {
			continue
		}
		x := &index[e.key.index]
		infos[i].From, infos[i].Trace = x.From, x.Trace
		for j, r := range x.Recipients {
			if !finals[i][j] {
				infos[i].Recipients = append(infos[i].Recipients, r)
			}
		}
		out = append(out, infos[i])
	}
	return out, nil
}

// Get describes one entry that this run owns. ErrNoEntry.
func (q *Queue) Get(id string) (Info, error) {
	q.mu.Lock()
	e, err := q.find(id)
	if err != nil {
		q.mu.Unlock()
		return Info{}, err
	}
	info := Info{ID: id, Size: e.size, Accepted: time.Unix(e.accepted, 0), Expires: time.Unix(e.expires, 0),
		Due: time.Unix(e.due, 0), Attempts: e.attempts, Active: e.leased, Reason: e.reason}
	final := e.final
	q.mu.Unlock()
	index, err := q.readIndex(e.key.batchKey)
	if errors.Is(err, syscall.ENOENT) || err == nil && e.key.index >= len(index) {
		return Info{}, fmt.Errorf("%s: %w", id, ErrNoEntry) // finished meanwhile
	}
	if err != nil {
		return Info{}, err
	}
	x := &index[e.key.index]
	info.From, info.Trace = x.From, x.Trace
	for j, r := range x.Recipients {
		if !final[j] {
			info.Recipients = append(info.Recipients, r)
		}
	}
	return info, nil
}

func (q *Queue) find(id string) (*entry, error) {
	origin, n, ok := parseID(id)
	if !ok {
		return nil, fmt.Errorf("%q is not the id of a queue entry: %w", id, ErrNoEntry)
	}
	if e := q.entries[entryKey{batchKey{origin, n.seq}, n.index}]; e != nil {
		return e, nil
	}
	return nil, fmt.Errorf("%s: %w", id, ErrNoEntry)
}

// Open returns envelope and content of an entry without an attempt. The caller closes the content.
func (q *Queue) Open(id string) (Envelope, *Content, error) {
	q.mu.Lock()
	e, err := q.find(id)
	q.mu.Unlock()
	if err != nil {
		return Envelope{}, nil, err
	}
	index, err := q.readIndex(e.key.batchKey)
	if err != nil {
		return Envelope{}, nil, err
	}
	if e.key.index >= len(index) {
		return Envelope{}, nil, fmt.Errorf("%s: %w", id, ErrCorrupt)
	}
	l := &Lease{q: q, e: e, x: index[e.key.index]}
	c, err := l.Content()
	return l.x.Envelope, c, err
}

// Retry makes an entry due now. ErrNoEntry. It does nothing to an entry with an attempt under way.
func (q *Queue) Retry(id string) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	e, err := q.find(id)
	if err != nil {
		return err
	}
	if !e.leased {
		e.due = q.o.Clock.Now().Unix()
		q.put(e)
	}
	return nil
}

// RetryAll makes all entries due now and returns how many there are.
func (q *Queue) RetryAll() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	now := q.o.Clock.Now().Unix()
	n := 0
	for _, e := range q.entries {
		if !e.leased {
			e.due = min(e.due, now)
			n++
		}
	}
	heap.Init(&q.due)
	q.signal()
	return n
}

// ErrActive: an attempt is under way.
var ErrActive = errors.New("an attempt is under way")

// Delete ends an entry without delivery and without a bounce. ErrNoEntry, ErrActive.
func (q *Queue) Delete(id string) error {
	q.mu.Lock()
	e, err := q.find(id)
	if err == nil && e.leased {
		err = fmt.Errorf("%s: %w", id, ErrActive)
	}
	if err != nil {
		q.mu.Unlock()
		return err
	}
	e.leased = true
	if e.heap >= 0 {
		heap.Remove(&q.due, e.heap)
	}
	q.mu.Unlock()
	l := q.lease(e)
	if l == nil {
		return fmt.Errorf("%s: %w", id, ErrNoEntry)
	}
	var outcomes []Outcome
	for _, i := range l.Pending {
		outcomes = append(outcomes, Outcome{Index: i, State: Deleted})
	}
	return l.Finish(outcomes, time.Time{}, false)
}
