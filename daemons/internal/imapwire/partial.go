package imapwire

// Partial is a page of results (RFC 9394 §3): the results From to To, which count from 1 at the first result, or from 1
// at the last one backwards if FromEnd. From may be larger than To: the page is the same.
type Partial struct {
	From, To uint32
	FromEnd  bool
}

// Partial takes a page.
//
//	partial-range = nz-number ":" nz-number / "-" nz-number ":" "-" nz-number        RFC 9394 §4
func (d *Decoder) Partial() (p Partial, err error) {
	p.FromEnd = d.Accept('-')
	if p.From, err = d.NonZero32(); err != nil {
		return p, err
	}
	if err = d.Expect(':'); err != nil {
		return p, err
	}
	if p.FromEnd {
		if err = d.Expect('-'); err != nil {
			return p, err
		}
	}
	p.To, err = d.NonZero32()
	return p, err
}

// Append appends the page as the client wrote it.
func (p Partial) Append(b []byte) []byte {
	sign := ""
	if p.FromEnd {
		sign = "-"
	}
	b = append(b, sign...)
	b = appendUint(b, uint64(p.From))
	b = append(append(b, ':'), sign...)
	return appendUint(b, uint64(p.To))
}

// Of says which of count results are on the page: from first, counting from 0, up to but not including end.
func (p Partial) Of(count uint64) (first, end uint64) {
	lo, hi := uint64(min(p.From, p.To)), uint64(max(p.From, p.To))
	if lo > count {
		return count, count
	}
	hi = min(hi, count)
	if p.FromEnd {
		return count - hi, count - lo + 1
	}
	return lo - 1, hi
}
