package dirstore

import (
	"math/bits"
	"slices"
)

// chunk holds the ids of hi*256 ... hi*256+255.
type chunk struct {
	hi   uint64
	bits [4]uint64
}

func (c *chunk) set(lo byte)   { c.bits[lo>>6] |= 1 << (lo & 63) }
func (c *chunk) clear(lo byte) { c.bits[lo>>6] &^= 1 << (lo & 63) }

func (c *chunk) count() int {
	return bits.OnesCount64(c.bits[0]) + bits.OnesCount64(c.bits[1]) + bits.OnesCount64(c.bits[2]) + bits.OnesCount64(c.bits[3])
}

// decode reads the value of an index key. A value of 32 octets is a bitmap, a shorter one a list.
func (c *chunk) decode(v []byte) {
	if len(v) != 32 {
		for _, lo := range v {
			c.set(lo)
		}
		return
	}
	for i, o := range v {
		c.bits[i>>3] |= uint64(o) << (8 * (i & 7))
	}
}

// append appends the value of an index key.
func (c *chunk) append(dst []byte) []byte {
	if c.count() < 32 {
		for w, b := range c.bits {
			for ; b != 0; b &= b - 1 {
				dst = append(dst, byte(w<<6|bits.TrailingZeros64(b)))
			}
		}
		return dst
	}
	for i := range 32 {
		dst = append(dst, byte(c.bits[i>>3]>>(8*(i&7))))
	}
	return dst
}

// idset is a set of entry ids: chunks in ascending order, none empty.
type idset []chunk

func (s idset) count() int {
	n := 0
	for i := range s {
		n += s[i].count()
	}
	return n
}

// add puts an id into the set; ascending order is cheapest.
func (s idset) add(id uint64) idset {
	hi := id >> 8
	i := len(s)
	if i > 0 && s[i-1].hi >= hi {
		var found bool
		i, found = slices.BinarySearchFunc(s, hi, func(c chunk, hi uint64) int {
			switch {
			case c.hi < hi:
				return -1
			case c.hi > hi:
				return 1
			}
			return 0
		})
		if found {
			s[i].set(byte(id))
			return s
		}
	}
	c := chunk{hi: hi}
	c.set(byte(id))
	return slices.Insert(s, i, c)
}

func (s idset) and(t idset) idset {
	var out idset
	for i, j := 0, 0; i < len(s) && j < len(t); {
		switch {
		case s[i].hi < t[j].hi:
			i++
		case s[i].hi > t[j].hi:
			j++
		default:
			c := chunk{hi: s[i].hi}
			any := uint64(0)
			for w := range c.bits {
				c.bits[w] = s[i].bits[w] & t[j].bits[w]
				any |= c.bits[w]
			}
			if any != 0 {
				out = append(out, c)
			}
			i, j = i+1, j+1
		}
	}
	return out
}

// without is what s has and t has not.
func (s idset) without(t idset) idset {
	out := make(idset, 0, len(s))
	j := 0
	for _, c := range s {
		for j < len(t) && t[j].hi < c.hi {
			j++
		}
		any := uint64(0)
		for w := range c.bits {
			if j < len(t) && t[j].hi == c.hi {
				c.bits[w] &^= t[j].bits[w]
			}
			any |= c.bits[w]
		}
		if any != 0 {
			out = append(out, c)
		}
	}
	return out
}

func (s idset) or(t idset) idset {
	if len(s) == 0 {
		return t
	}
	if len(t) == 0 {
		return s
	}
	out := make(idset, 0, len(s)+len(t))
	i, j := 0, 0
	for i < len(s) && j < len(t) {
		switch {
		case s[i].hi < t[j].hi:
			out, i = append(out, s[i]), i+1
		case s[i].hi > t[j].hi:
			out, j = append(out, t[j]), j+1
		default:
			c := s[i]
			for w := range c.bits {
				c.bits[w] |= t[j].bits[w]
			}
			out, i, j = append(out, c), i+1, j+1
		}
	}
	out = append(out, s[i:]...)
	return append(out, t[j:]...)
}

// from gives the smallest id that is at least min.
func (s idset) from(min uint64) (uint64, bool) {
	hi := min >> 8
	i, _ := slices.BinarySearchFunc(s, hi, func(c chunk, hi uint64) int {
		if c.hi < hi {
			return -1
		}
		if c.hi > hi {
			return 1
		}
		return 0
	})
	for ; i < len(s); i++ {
		lo := 0
		if s[i].hi == hi {
			lo = int(min & 255)
		}
		for w := lo >> 6; w < 4; w++ {
			b := s[i].bits[w]
			if w == lo>>6 {
				b &= ^uint64(0) << (lo & 63)
			}
			if b != 0 {
				return s[i].hi<<8 | uint64(w<<6|bits.TrailingZeros64(b)), true
			}
		}
	}
	return 0, false
}
