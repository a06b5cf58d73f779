package dirstore

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"math"
	"slices"
	"sort"
	"strings"

	"shoal/daemons/internal/dirschema"
	"shoal/daemons/internal/ldapwire"
)

// DefaultIndexes are the indexes that every store has.
var DefaultIndexes = []string{"objectClass", "entryUUID", "entryCSN", "uid", "cn:sub", "sn:sub", "givenName:sub",
	"mail:sub", "mailLocalAddress", "member", "associatedDomain", "shoalAccountId", "shoalVolumeName",
	"shoalMigrating", "shoalMigrationServer", "shoalScramMissing", "shoalAccess", "shoalAdministrator"}

// Kinds of index keys.
const (
	kindEquality  = 'e'
	kindPresence  = 'p'
	kindSubstring = 's'
)

const (
	maxIndexValue = 128
	hashedPrefix  = maxIndexValue - 16
)

// index is the index of one attribute type: equality and presence, and substrings if sub.
type index struct {
	typ *dirschema.AttributeType
	sub bool
	id  uint16 // of the type's plain description, in keys
}

// indexSet are indexes by their attribute type. A set is not changed once it is in use.
type indexSet map[*dirschema.AttributeType]*index

func (x *index) String() string {
	if x.sub {
		return x.typ.Name() + ":sub"
	}
	return x.typ.Name()
}

func (s *Store) parseIndexes(list []string) ([]*index, error) {
	byType := map[*dirschema.AttributeType]*index{}
	var out []*index
	for _, item := range list {
		name, kind, has := strings.Cut(item, ":")
		t := s.schema.Attribute([]byte(name))
		switch {
		case t == nil:
			return nil, fmt.Errorf("index %q: the schema has no attribute %q", item, name)
		case has && kind != "sub":
			return nil, fmt.Errorf("index %q: write %q or %q", item, name, name+":sub")
		case t.Equality == nil:
			return nil, fmt.Errorf("index %q: attribute %s has no equality rule", item, name)
		case has && t.Substr == nil:
			return nil, fmt.Errorf("index %q: attribute %s has no substrings rule", item, name)
		case classOf(t) == secretAttr || virtualOf[t.Name()] != 0:
			return nil, fmt.Errorf("index %q: attribute %s is not searched", item, name)
		}
		x := byType[t]
		if x == nil {
			x = &index{typ: t}
			byType[t] = x
			out = append(out, x)
		}
		x.sub = x.sub || has
	}
	return out, nil
}

// indexKey makes a key without the part of the chunk.
func indexKey(dst []byte, attr uint16, kind byte, norm []byte) []byte {
	dst = binary.BigEndian.AppendUint16(dst, attr)
	dst = append(dst, kind)
	if len(norm) > maxIndexValue {
		h := sha256.Sum256(norm)
		dst = append(append(dst, norm[:hashedPrefix]...), h[:16]...)
	} else {
		dst = append(dst, norm...)
	}
	return append(dst, 0)
}

const indexTail = 7

func appendChunkNumber(dst []byte, hi uint64) []byte {
	var b [8]byte
	binary.BigEndian.PutUint64(b[:], hi)
	return append(dst, b[1:]...)
}

func chunkNumber(key []byte) uint64 {
	var b [8]byte
	copy(b[1:], key[len(key)-indexTail:])
	return binary.BigEndian.Uint64(b[:])
}

// keysOf gives the index keys of an entry.
func (s *Store) keysOf(attrs []Attribute) map[string]struct{} {
	keys := map[string]struct{}{}
	s.eachKey(attrs, func(key []byte) { keys[string(key)] = struct{}{} })
	return keys
}

// eachKey calls fn for the index keys of an entry; some come more than once. A key is valid during the call.
func (s *Store) eachKey(attrs []Attribute, fn func(key []byte)) {
	s.keysFor(*s.kept.Load(), attrs, fn)
}

// keysFor is eachKey for some indexes only.
func (s *Store) keysFor(indexes indexSet, attrs []Attribute, fn func(key []byte)) {
	var buf, key []byte
	for i := range attrs {
		a := &attrs[i]
		x := indexes[a.Desc.Type]
		if x == nil {
			continue
		}
		key = indexKey(key[:0], x.id, kindPresence, nil)
		fn(key)
		values := a.Values
		if a.Desc.Type == s.objectClass {
			values = s.withSuperclasses(values)
		}
		for _, v := range values {
			var err error
			if buf, err = x.typ.Equality.Normalize(buf[:0], v); err != nil {
				continue
			}
			key = indexKey(key[:0], x.id, kindEquality, buf)
			fn(key)
			if !x.sub {
				continue
			}
			buf = slices.Insert(buf, 0, 2)
			buf = append(buf, 3)
			for j := 0; j+3 <= len(buf); j++ {
				key = indexKey(key[:0], x.id, kindSubstring, buf[j:j+3])
				fn(key)
			}
		}
	}
}

// withSuperclasses adds what an entry from another server may leave implied.
func (s *Store) withSuperclasses(values [][]byte) [][]byte {
	out := slices.Clone(values)
	for _, v := range values {
		if c := s.schema.Class(v); c != nil {
			for _, up := range c.Superclasses() {
				out = append(out, []byte(up.OID))
			}
		}
	}
	return out
}

// changedTypes leaves out the attributes of types of which nothing changed: their keys stay as they are. Attributes
// that differ in options only share keys.
func changedTypes(was, is []Attribute) (_, _ []Attribute) {
	if len(was) == 0 || len(is) == 0 {
		return was, is
	}
	changed := map[*dirschema.AttributeType]bool{}
	differs := func(a *Attribute, in []Attribute) bool {
		for i := range in {
			if b := &in[i]; b.Desc.Type == a.Desc.Type && b.Desc.String() == a.Desc.String() {
				return !slices.EqualFunc(a.Values, b.Values, bytes.Equal)
			}
		}
		return true
	}
	for _, side := range [][2][]Attribute{{is, was}, {was, is}} {
		for i := range side[0] {
			if a := &side[0][i]; !changed[a.Desc.Type] && differs(a, side[1]) {
				changed[a.Desc.Type] = true
			}
		}
	}
	only := func(list []Attribute) (out []Attribute) {
		for _, a := range list {
			if changed[a.Desc.Type] {
				out = append(out, a)
			}
		}
		return out
	}
	return only(was), only(is)
}

// updateIndex moves an entry from one set of keys to another.
func updateIndex(b *bucket, id uint64, was, is map[string]struct{}) error {
	gone := make([]string, 0, len(was))
	for k := range was {
		if _, stays := is[k]; !stays {
			gone = append(gone, k)
		}
	}
	added := make([]string, 0, len(is))
	for k := range is {
		if _, had := was[k]; !had {
			added = append(added, k)
		}
	}
	sort.Strings(gone)
	sort.Strings(added)
	for _, k := range gone {
		if err := changeChunk(b, k, id, false); err != nil {
			return err
		}
	}
	for _, k := range added {
		if err := changeChunk(b, k, id, true); err != nil {
			return err
		}
	}
	return nil
}

func changeChunk(b *bucket, k string, id uint64, set bool) error {
	key := appendChunkNumber([]byte(k), id>>8)
	var c chunk
	c.decode(b.Get(key))
	if set {
		c.set(byte(id))
	} else {
		c.clear(byte(id))
	}
	if c.count() == 0 {
		return b.Delete(key)
	}
	return b.Put(key, c.append(nil))
}

// postings reads the ids of one key. complete is false if there are more than limit chunks.
func (r *Reader) postings(key []byte, limit int) (set idset, complete bool) {
	c := r.indexCursor()
	for k, v := c.Seek(key); bytes.HasPrefix(k, key); k, v = c.Next() {
		if len(k) != len(key)+indexTail {
			continue // another value that begins with this one and a NUL
		}
		if len(set) == limit {
			return set, false
		}
		ch := chunk{hi: chunkNumber(k)}
		ch.decode(v)
		set = append(set, ch)
	}
	return set, true
}

// maxRange bounds how many index keys a range of values may take before it is not worth it.
const maxRange = 65536

// scanRange reads the ids of all keys of an attribute from one value to another, both included as far
// as the keys tell: the result may hold more. ok is false if there are too many.
func (r *Reader) scanRange(attr uint16, from, to []byte, prefix bool) (set idset, ok bool) {
	cut := func(v []byte) []byte { return v[:min(len(v), hashedPrefix)] }
	start := binary.BigEndian.AppendUint16(nil, attr)
	start = append(start, kindEquality)
	head := len(start)
	c := r.indexCursor()
	from, to = cut(from), cut(to)
	chunks := map[uint64]*chunk{}
	n := 0
	for k, v := c.Seek(append(slices.Clone(start), from...)); k != nil && bytes.HasPrefix(k, start); k, v = c.Next() {
		value := cut(k[head : len(k)-indexTail-1])
		if prefix && !bytes.HasPrefix(value, from) || !prefix && to != nil && bytes.Compare(value, to) > 0 {
			break
		}
		if n++; n > maxRange {
			return nil, false
		}
		hi := chunkNumber(k)
		ch := chunks[hi]
		if ch == nil {
			ch = &chunk{hi: hi}
			chunks[hi] = ch
		}
		ch.decode(v)
	}
	for _, ch := range chunks {
		set = append(set, *ch)
	}
	slices.SortFunc(set, func(a, b chunk) int {
		if a.hi < b.hi {
			return -1
		}
		return 1
	})
	return set, true
}

// equalitySet reads the candidates of an equality term. all is true if the index does not know.
func (r *Reader) equalitySet(t *term, limit int) (set idset, all, complete bool) {
	complete = true
	for _, typ := range t.ref.resolve(r.table).types {
		x := r.indexes[typ]
		if x == nil || x.typ.Equality != t.rule {
			return nil, true, true
		}
		var buf [maxIndexValue + 16]byte
		kind, value := byte(kindEquality), t.value
		if t.op == ldapwire.Present {
			kind, value = kindPresence, nil
		}
		part, whole := r.postings(indexKey(buf[:0], x.id, kind, value), limit)
		set, complete = set.or(part), complete && whole
	}
	return set, false, complete
}

func (r *Reader) presenceSet(t *term, limit int) (set idset, all, complete bool) {
	complete = true
	for _, typ := range t.ref.resolve(r.table).types {
		x := r.indexes[typ]
		if x == nil {
			return nil, true, true
		}
		part, whole := r.postings(indexKey(nil, x.id, kindPresence, nil), limit)
		set, complete = set.or(part), complete && whole
	}
	return set, false, complete
}

// orderingSet uses that normal forms compare as values do.
func (r *Reader) orderingSet(t *term) (set idset, all, complete bool) {
	for _, typ := range t.ref.resolve(r.table).types {
		x := r.indexes[typ]
		if x == nil {
			return nil, true, true
		}
		var part idset
		var ok bool
		if t.op == ldapwire.GreaterOrEqual {
			part, ok = r.scanRange(x.id, t.value, nil, false)
		} else {
			part, ok = r.scanRange(x.id, nil, t.value, false)
		}
		if !ok {
			return nil, true, true
		}
		set = set.or(part)
	}
	return set, false, true
}

// substringSet intersects the ids of the three-octet keys of all pieces; a single initial piece is a
// range of the equality index, which an attribute without a substring index has, too.
func (r *Reader) substringSet(f *Filter, t *term, limit int) (set idset, all, complete bool) {
	complete = true
	for _, typ := range t.ref.resolve(r.table).types {
		x := r.indexes[typ]
		if x == nil {
			return nil, true, true
		}
		part, ok := idset(nil), false
		if pieces := f.pieces[t.piece:t.pieceEnd]; x.sub {
			part, ok = r.trigramSet(x.id, pieces, limit)
		} else if p := pieces[0]; p.place == ldapwire.Initial && len(p.raw) > 0 {
			part, ok = r.scanRange(x.id, p.raw, nil, true)
		}
		if !ok {
			return nil, true, true
		}
		set = set.or(part)
	}
	return set, false, complete
}

func (r *Reader) trigramSet(attr uint16, pieces []piece, limit int) (set idset, ok bool) {
	if limit < math.MaxInt {
		limit *= 64 // a part of a word is seldom as rare as a whole value
	}
	var buf, key []byte
	for _, p := range pieces {
		buf = buf[:0]
		if p.place == ldapwire.Initial {
			buf = append(buf, 2)
		}
		buf = append(buf, p.raw...)
		if p.place == ldapwire.Final {
			buf = append(buf, 3)
		}
		for i := 0; i+3 <= len(buf); i++ {
			key = indexKey(key[:0], attr, kindSubstring, buf[i:i+3])
			part, complete := r.postings(key, limit)
			if !complete {
				continue
			}
			if !ok {
				set, ok = part, true
			} else {
				set = set.and(part)
			}
			if len(set) == 0 {
				return nil, true
			}
		}
	}
	return set, ok
}
