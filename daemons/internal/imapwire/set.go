package imapwire

import (
	"math"
	"slices"
	"strconv"
)

// Star stands for "*" in a set: the largest number in use.
const Star = 0

// Range is a run of message numbers or UIDs, both ends included, in the order the client wrote
// them. Star may stand for either end.
type Range struct{ Lo, Hi uint32 }

// Set is a sequence set or a UID set.
//
//	sequence-set = (seq-number / seq-range) *("," (seq-number / seq-range)) / "$"
//	seq-range    = seq-number ":" seq-number
//	seq-number   = nz-number / "*"
type Set struct {
	Ranges []Range
	Saved  bool // "$": the saved result of the last SEARCH (RFC 5182)
}

// Set takes a sequence set.
func (d *Decoder) Set() (Set, error) {
	if d.Accept('$') {
		return Set{Saved: true}, nil
	}
	var s Set
	for {
		lo, err := d.setNumber()
		if err != nil {
			return Set{}, err
		}
		hi := lo
		if d.Accept(':') {
			if hi, err = d.setNumber(); err != nil {
				return Set{}, err
			}
		}
		if len(s.Ranges) == d.lim.SetRanges {
			return Set{}, syntaxf("more than %d ranges in a set", d.lim.SetRanges)
		}
		s.Ranges = append(s.Ranges, Range{lo, hi})
		if !d.Accept(',') {
			return s, nil
		}
	}
}

func (d *Decoder) setNumber() (uint32, error) {
	if d.Accept('*') {
		return Star, nil
	}
	n, err := d.NonZero32()
	if err != nil {
		return 0, syntaxf("malformed message set at: %s", d.Rest())
	}
	return n, nil
}

// AtSet reports whether the next token can only be a sequence set.
func (d *Decoder) AtSet() bool {
	c := d.Peek()
	return '1' <= c && c <= '9' || c == '*' || c == '$'
}

// Resolve returns the ranges in ascending order, without overlaps, with Star replaced by largest.
// RFC 9051 §9: "*:4" and "4:*" mean the same, and always include the largest number. With largest 0
// (an empty mailbox) Star matches nothing but what a range names besides it.
func (s Set) Resolve(largest uint32) []Range {
	out := make([]Range, 0, len(s.Ranges))
	for _, r := range s.Ranges {
		if r.Lo == Star {
			r.Lo = largest
		}
		if r.Hi == Star {
			r.Hi = largest
		}
		if r.Lo > r.Hi {
			r.Lo, r.Hi = r.Hi, r.Lo
		}
		if r.Hi == 0 {
			continue
		}
		r.Lo = max(r.Lo, 1)
		out = append(out, r)
	}
	return Normalize(out)
}

// Normalize sorts ranges in place and joins those that overlap or touch.
func Normalize(ranges []Range) []Range {
	sorted := true
	for i := 1; i < len(ranges); i++ {
		if ranges[i].Lo <= ranges[i-1].Hi || ranges[i].Lo == ranges[i-1].Hi+1 {
			sorted = false
			break
		}
	}
	if sorted {
		return ranges
	}
	slices.SortFunc(ranges, func(a, b Range) int {
		switch {
		case a.Lo < b.Lo:
			return -1
		case a.Lo > b.Lo:
			return 1
		}
		return 0
	})
	out := ranges[:1]
	for _, r := range ranges[1:] {
		last := &out[len(out)-1]
		if last.Hi == math.MaxUint32 || r.Lo <= last.Hi+1 {
			last.Hi = max(last.Hi, r.Hi)
			continue
		}
		out = append(out, r)
	}
	return out
}

// Contains reports whether n lies in the ranges, which must be sorted.
func Contains(ranges []Range, n uint32) bool {
	lo, hi := 0, len(ranges)
	for lo < hi {
		mid := (lo + hi) / 2
		switch r := ranges[mid]; {
		case n < r.Lo:
			hi = mid
		case n > r.Hi:
			lo = mid + 1
		default:
			return true
		}
	}
	return false
}

// AddNumber appends n to ascending ranges, joining it with the last one where they touch.
func AddNumber(ranges []Range, n uint32) []Range {
	if k := len(ranges); k > 0 && ranges[k-1].Hi+1 == n {
		ranges[k-1].Hi = n
		return ranges
	}
	return append(ranges, Range{n, n})
}

// Count returns how many numbers the ranges hold.
func Count(ranges []Range) (n uint64) {
	for _, r := range ranges {
		n += uint64(r.Hi-r.Lo) + 1
	}
	return n
}

// Slice returns the numbers with the indexes from first up to but not including end, counting from 0 in the order of the
// ranges.
func Slice(ranges []Range, first, end uint64) []Range {
	var out []Range
	at := uint64(0) // index of the first number of r
	for _, r := range ranges {
		n := uint64(r.Hi-r.Lo) + 1
		if lo, hi := max(at, first), min(at+n, end); lo < hi {
			out = append(out, Range{r.Lo + uint32(lo-at), r.Lo + uint32(hi-1-at)})
		}
		if at += n; at >= end {
			break
		}
	}
	return out
}

// AppendSet appends the text of a set without stars.
func AppendSet(b []byte, ranges []Range) []byte {
	for i, r := range ranges {
		if i > 0 {
			b = append(b, ',')
		}
		b = strconv.AppendUint(b, uint64(r.Lo), 10)
		if r.Hi != r.Lo {
			b = append(b, ':')
			b = strconv.AppendUint(b, uint64(r.Hi), 10)
		}
	}
	return b
}
