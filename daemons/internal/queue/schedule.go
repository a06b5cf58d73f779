package queue

import "container/heap"

// schedule is a heap of entries by the time they are due.
type schedule []*entry

func (s schedule) Len() int           { return len(s) }
func (s schedule) Less(i, j int) bool { return s[i].due < s[j].due }
func (s schedule) Swap(i, j int) {
	s[i], s[j] = s[j], s[i]
	s[i].heap, s[j].heap = i, j
}

// Push implements heap.Interface.
func (s *schedule) Push(x any) {
	e := x.(*entry)
	e.heap = len(*s)
	*s = append(*s, e)
}

// Pop implements heap.Interface.
func (s *schedule) Pop() any {
	old := *s
	e := old[len(old)-1]
	old[len(old)-1] = nil
	*s = old[:len(old)-1]
	e.heap = -1
	return e
}

// put schedules e, or moves it to its new time. The caller holds q.mu.
func (q *Queue) put(e *entry) {
	if e.heap >= 0 {
		heap.Fix(&q.due, e.heap)
	} else {
		heap.Push(&q.due, e)
	}
	select {
	case q.wake <- struct{}{}:
	default:
	}
}

// add makes an entry of ours known. The caller holds q.mu.
func (q *Queue) add(e *entry, all int) {
	if _, ok := q.entries[e.key]; ok {
		return
	}
	e.heap = -1
	q.entries[e.key] = e
	b := q.batches[e.key.batchKey]
	if b == nil {
		b = &batch{key: e.key.batchKey, all: all}
		q.batches[e.key.batchKey] = b
	}
	b.live++
	q.metrics.entries.Set(float64(len(q.entries)))
	q.put(e)
}

// drop forgets an entry; final tells that nothing more is to be done with it. It returns true when that was the
// last entry of its batch that anybody had to do with. The caller holds q.mu.
func (q *Queue) drop(e *entry, final bool) (batchDone bool) {
	if e.heap >= 0 {
		heap.Remove(&q.due, e.heap)
	}
	if _, ok := q.entries[e.key]; !ok {
		return false
	}
	delete(q.entries, e.key)
	q.metrics.entries.Set(float64(len(q.entries)))
	b := q.batches[e.key.batchKey]
	if b == nil {
		return false
	}
	b.live--
	if final {
		b.gone++
	}
	if b.live == 0 {
		delete(q.batches, b.key)
	}
	return b.gone == b.all
}
