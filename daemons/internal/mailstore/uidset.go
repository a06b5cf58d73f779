package mailstore

import (
	"iter"
	"strconv"
)

// UIDRange is the UIDs from Start to Stop, both included, Start <= Stop.
type UIDRange struct{ Start, Stop uint32 }

// UIDSet is a set of UIDs: ranges in ascending order that neither overlap nor touch. The zero value is
// the empty set. Sets built with Add and NewUIDSet keep the order by themselves.
type UIDSet []UIDRange

// MaxUID as a Stop means "to the last message there is when the change is committed".
const MaxUID = 1<<32 - 1

// NewUIDSet returns the set of the given UIDs.
func NewUIDSet(uids ...uint32) UIDSet {
	var s UIDSet
	for _, u := range uids {
		s.Add(u)
	}
	return s
}

// Add adds one UID. UIDs added in ascending order cost nothing; others are inserted.
func (s *UIDSet) Add(uid uint32) { s.AddRange(uid, uid) }

// AddRange adds the UIDs from start to stop; a reversed range means the same.
func (s *UIDSet) AddRange(start, stop uint32) {
	if start > stop {
		start, stop = stop, start
	}
	r := *s
	if n := len(r); n == 0 || start > r[n-1].Stop && start-1 > r[n-1].Stop {
		*s = append(r, UIDRange{start, stop})
		return
	}
	// i: the first range that touches or follows the new one; j: the first that lies behind it.
	i := 0
	for i < len(r) && uint64(r[i].Stop)+1 < uint64(start) {
		i++
	}
	j := i
	for j < len(r) && uint64(r[j].Start) <= uint64(stop)+1 {
		start, stop = min(start, r[j].Start), max(stop, r[j].Stop)
		j++
	}
	if i == j {
		r = append(r, UIDRange{})
		copy(r[i+1:], r[i:])
		r[i] = UIDRange{start, stop}
		*s = r
		return
	}
	r[i] = UIDRange{start, stop}
	*s = append(r[:i+1], r[j:]...)
}

// normal returns the set with its ranges in order; that is what it is already, if it was built with Add.
func (s UIDSet) normal() UIDSet {
	last := uint64(0)
	for i, r := range s {
		if r.Start > r.Stop || r.Start == 0 || i > 0 && uint64(r.Start) <= last+1 {
			var out UIDSet
			for _, r := range s {
				if r.Stop > 0 || r.Start > 0 { // there is no UID 0
					out.AddRange(max(r.Start, 1), max(r.Stop, 1))
				}
			}
			return out
		}
		last = uint64(r.Stop)
	}
	return s
}

// Contains tells whether uid is in the set.
func (s UIDSet) Contains(uid uint32) bool {
	lo, hi := 0, len(s)
	for lo < hi {
		m := (lo + hi) / 2
		if s[m].Stop < uid {
			lo = m + 1
		} else {
			hi = m
		}
	}
	return lo < len(s) && s[lo].Start <= uid
}

// Len is the number of UIDs in the set.
func (s UIDSet) Len() int {
	n := 0
	for _, r := range s {
		n += int(r.Stop-r.Start) + 1
	}
	return n
}

// All yields the UIDs in ascending order.
func (s UIDSet) All() iter.Seq[uint32] {
	return func(yield func(uint32) bool) {
		for _, r := range s {
			for u := r.Start; ; u++ {
				if !yield(u) {
					return
				}
				if u == r.Stop {
					break
				}
			}
		}
	}
}

// String writes the set as IMAP and the log do: 1,3:5,9:*
func (s UIDSet) String() string { return string(s.append(nil)) }

func (s UIDSet) append(b []byte) []byte {
	for i, r := range s {
		if i > 0 {
			b = append(b, ',')
		}
		b = strconv.AppendUint(b, uint64(r.Start), 10)
		if r.Stop != r.Start {
			b = append(b, ':')
			if r.Stop == MaxUID {
				b = append(b, '*')
			} else {
				b = strconv.AppendUint(b, uint64(r.Stop), 10)
			}
		}
	}
	return b
}
