package dirstore

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"runtime/debug"
	"slices"
	"strings"

	"shoal/daemons/internal/dirschema"
	"shoal/daemons/internal/ldapwire"
)

// Verify reads everything and compares what must agree:
//
//	entries   records are whole, their attributes known, superiors there and not subordinates of themselves, entryUUID
//	          and entryCSN there, no entryUUID twice, no CSN above contextCSN, ids not above the last one given out
//	names     one for each entry, the one that its record says
//	indexes   each entry under each key that its values make, and under no other
//	log       sequence and CSNs ascend, no CSN above contextCSN
//	counters  the number of entries
//	pages     of the file, each used once (VerifyOptions.Pages)
//
// Memory: 24 octets an entry.

// VerifyOptions of Verify.
type VerifyOptions struct {
	// Pages checks the pages of the file too. Writes wait meanwhile.
	Pages bool
	// Progress, if set, is told now and then how many entries were read.
	Progress func(done, total int64)
	// Stop, if set, ends the check with its error.
	Stop func() error
}

// Finding is a piece of damage.
type Finding struct {
	Kind string `json:"kind"`            // entry, name, index, log, counter, page
	ID   uint64 `json:"id,omitempty"`    // of the entry
	DN   string `json:"entry,omitempty"` // its name, as far as it can be read
	Text string `json:"text"`
}

func (f Finding) String() string {
	switch {
	case f.DN != "":
		return fmt.Sprintf("%s: entry %d (%s): %s", f.Kind, f.ID, f.DN, f.Text)
	case f.ID != 0:
		return fmt.Sprintf("%s: entry %d: %s", f.Kind, f.ID, f.Text)
	}
	return f.Kind + ": " + f.Text
}

// maxFindings are listed; the rest is counted.
const maxFindings = 100

// Verdict is what a check found.
type Verdict struct {
	Entries  int64     `json:"entries"`
	Keys     int64     `json:"index_keys"` // entries in indexes, counted once for each key
	Changes  int64     `json:"changes"`    // in the log
	Damage   int64     `json:"damage"`     // number of findings
	Findings []Finding `json:"findings"`   // the first of them
}

// Err is nil if nothing was found.
func (v *Verdict) Err() error {
	if v.Damage == 0 {
		return nil
	}
	return fmt.Errorf("the database is damaged in %d places, the first: %s", v.Damage, v.Findings[0])
}

func (v *Verdict) found(f Finding) {
	v.Damage++
	if len(v.Findings) < maxFindings {
		v.Findings = append(v.Findings, f)
	}
}

// Verify checks the database as one read transaction sees it, while it is in use. An error means that the check
// could not be made; damage is in the verdict.
func (s *Store) Verify(o VerifyOptions) (v *Verdict, err error) {
	v = &Verdict{Findings: []Finding{}}
	// Of a damaged file a page may be missing, or be another one than the library takes it for.
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if p := recover(); p != nil {
			v.found(Finding{Kind: "page", Text: fmt.Sprintf("the file cannot be read: %v", p)})
			err = nil
		}
	}()
	if o.Pages {
		if err := s.verifyPages(v); err != nil {
			return v, err
		}
	}
	r, err := s.Read()
	if err != nil {
		return v, err
	}
	defer r.Close()
	c := checking{Verdict: v, s: s, r: r, o: o, counts: map[string]int64{}, parents: map[uint64]uint64{}, uuids: map[[16]byte]uint64{}}
	for _, csn := range splitCSNs(string(r.tx.Bucket(bucketMeta).Get(keyContextCSN))) {
		c.context = max(c.context, csn)
	}
	c.replica = len(r.tx.Bucket(bucketMeta).Get(keyCookie)) > 0 || !r.LogOrdered()
	for _, step := range []func() error{c.entries, c.names, c.log, c.strays} {
		if err := step(); err != nil {
			return v, err
		}
	}
	return v, nil
}

func (s *Store) verifyPages(v *Verdict) error {
	tx, err := s.bolt().Begin(true)
	if err != nil {
		return fmt.Errorf("verify: %w", err)
	}
	for err := range tx.Check() {
		v.found(Finding{Kind: "page", Text: err.Error()})
	}
	return tx.Rollback()
}

// checking is a check under way.
type checking struct {
	*Verdict
	s       *Store
	r       *Reader
	o       VerifyOptions
	context csn
	replica bool // CSNs come in the order of another server
	counts  map[string]int64
	parents map[uint64]uint64
	uuids   map[[16]byte]uint64
}

func (c *checking) report(kind string, id uint64, format string, args ...any) {
	f := Finding{Kind: kind, ID: id, Text: fmt.Sprintf(format, args...)}
	if id != 0 && c.Damage < maxFindings {
		if found, ok, err := c.r.Get(id); err == nil && ok {
			if dn, err := c.r.DN(nil, &found); err == nil {
				f.DN = string(dn)
			} else {
				f.DN = string(found.rec.rdn)
			}
		}
	}
	c.found(f)
}

// pace tells progress and looks whether to stop.
func (c *checking) pace() error {
	if c.Entries++; c.Entries%progressEvery != 0 {
		return nil
	}
	if c.o.Progress != nil {
		c.o.Progress(c.Entries, c.s.Entries())
	}
	if c.o.Stop != nil {
		return c.o.Stop()
	}
	return nil
}

func (c *checking) entries() error {
	tx := c.r.tx
	last := tx.Bucket(bucketEntry).Sequence()
	err := tx.Bucket(bucketEntry).ForEach(func(k, raw []byte) error {
		if err := c.pace(); err != nil {
			return err
		}
		if len(k) != 8 {
			c.report("entry", 0, "key %x is no id", k)
			return nil
		}
		id := binary.BigEndian.Uint64(k)
		if id > last || id == 0 {
			c.report("entry", id, "its id is above the last that was given out, %d", last)
		}
		rec, err := parseRecord(raw)
		if err != nil {
			c.report("entry", id, "%v", err)
			return nil
		}
		c.parents[id] = rec.parent
		c.entry(id, &rec)
		return nil
	})
	if err != nil {
		return err
	}
	n := int64(-1)
	if v := tx.Bucket(bucketMeta).Get(keyEntries); len(v) == 8 {
		n = int64(binary.BigEndian.Uint64(v))
	}
	if n != c.Entries {
		c.report("counter", 0, "%d entries are counted, %d are there", n, c.Entries)
	}
	for id, parent := range c.parents {
		c.above(id, parent)
	}
	return nil
}

// above looks whether an entry has superiors up to the suffix.
func (c *checking) above(id, parent uint64) {
	for n, at := 0, parent; at != 0; n++ {
		up, ok := c.parents[at]
		if !ok {
			if at == parent {
				c.report("entry", id, "its superior, entry %d, is missing", parent)
			}
			return
		}
		if n > len(c.parents) || at == id {
			c.report("entry", id, "it lies under itself")
			return
		}
		at = up
	}
}

func (c *checking) entry(id uint64, rec *record) {
	s, r := c.s, c.r
	list := r.table.list
	for i := range rec.all {
		a := int(rec.id(i))
		if a >= len(list) {
			c.report("entry", id, "attribute id %d is not known", a)
			return
		}
		typ, vals, rest, err := ldapwire.SplitAttribute(rec.attribute(i))
		if err != nil || len(rest) > 0 {
			c.report("entry", id, "attribute %s cannot be read", list[a].name)
			return
		}
		if string(typ) != list[a].name {
			c.report("entry", id, "attribute %s says that it is %.60q", list[a].name, typ)
			return
		}
		for len(vals) > 0 {
			_, more, ok := ldapwire.NextValue(vals)
			if !ok {
				c.report("entry", id, "a value of %s cannot be read", list[a].name)
				return
			}
			vals = more
		}
		class := [...]attrClass{userAttr, operationalAttr, secretAttr}[btoi(i >= rec.user)+btoi(i >= rec.op)]
		if list[a].class != class {
			c.report("entry", id, "attribute %s stands among those of another class", list[a].name)
		}
	}
	attrs, err := decodeAttributes(r.table, rec)
	if err != nil {
		c.report("entry", id, "%v", err)
		return
	}
	e := &Entry{ID: id, Attributes: attrs}
	c.stamps(id, e)
	rdn, err := s.schema.NormalizeDN(nil, rec.rdn)
	if err != nil {
		c.report("entry", id, "its name %.60q cannot be read", rec.rdn)
	} else if at := r.child(rec.parent, rdn); at != id {
		c.report("name", id, "under its name there is entry %d", at)
	}
	keys := map[string]struct{}{}
	s.keysFor(r.indexes, attrs, func(key []byte) { keys[string(key)] = struct{}{} })
	b := r.tx.Bucket(bucketIndex)
	for key := range keys {
		c.Keys++
		c.counts[key[:3]]++
		var ch chunk
		ch.decode(b.Get(appendChunkNumber([]byte(key), id>>8)))
		if ch.bits[byte(id)>>6]&(1<<(byte(id)&63)) == 0 {
			c.report("index", id, "%s does not lead to it", keyText(r.table, key))
		}
	}
}

func btoi(b bool) int {
	if b {
		return 1
	}
	return 0
}

// stamps checks what the server itself writes into an entry.
func (c *checking) stamps(id uint64, e *Entry) {
	u, ok := [16]byte{}, false
	if raw := e.uuid(c.s); len(raw) == 16 && e.one("entryUUID") != "" {
		copy(u[:], raw)
		ok = true
	}
	if !ok {
		c.report("entry", id, "it has no entryUUID")
	} else if other := c.uuids[u]; other != 0 {
		c.report("entry", id, "it has the entryUUID of entry %d", other)
	} else {
		c.uuids[u] = id
	}
	if at := e.one("entryCSN"); !IsCSN(at) {
		c.report("entry", id, "its entryCSN %q is none", at)
	} else if at > c.context && !c.replica {
		c.report("entry", id, "its entryCSN %s is above contextCSN %s", at, c.context)
	}
	oc := e.Find(dirschema.Description{Type: c.s.objectClass})
	if oc == nil {
		c.report("entry", id, "it has no objectClass")
	}
}

// keyText names an index key for people.
func keyText(t *attrTable, key string) string {
	name := "?"
	if id := int(binary.BigEndian.Uint16([]byte(key))); id < len(t.list) {
		name = t.list[id].name
	}
	kind := map[byte]string{kindEquality: "value", kindPresence: "presence", kindSubstring: "substring"}[key[2]]
	return fmt.Sprintf("the index of %s, %s %.40q,", name, kind, strings.TrimSuffix(key[3:], "\x00"))
}

func (c *checking) names() error {
	return c.r.tx.Bucket(bucketTree).ForEach(func(k, v []byte) error {
		if len(k) <= 8 || len(v) != 8 {
			c.report("name", 0, "key %x cannot be read", k)
			return nil
		}
		id := binary.BigEndian.Uint64(v)
		rec, ok, err := c.r.record(id)
		switch {
		case err != nil: // told already
		case !ok:
			c.report("name", id, "%q leads to an entry that is not there", k[8:])
		default:
			rdn, err := c.s.schema.NormalizeDN(nil, rec.rdn)
			if err == nil && !bytes.Equal(k, append(idKey(nil, rec.parent), rdn...)) {
				c.report("name", id, "%q leads to it, which is not its name", k[8:])
			}
		}
		return nil
	})
}

func (c *checking) log() error {
	last, before := csn(""), uint64(0)
	return c.r.tx.Bucket(bucketLog).ForEach(func(k, v []byte) error {
		c.Changes++
		var ch LoggedChange
		if err := ch.decode(k, v); err != nil {
			c.report("log", 0, "change %x: %v", k, err)
			return nil
		}
		if ch.Kind < Added || ch.Kind > Renamed || !IsCSN(ch.CSN) {
			c.report("log", ch.ID, "change %d: kind %d, CSN %q", ch.Sequence, ch.Kind, ch.CSN)
			return nil
		}
		if !c.replica && (ch.CSN < last || ch.CSN > c.context) {
			c.report("log", ch.ID, "change %d: its CSN %s comes after %s, contextCSN is %s", ch.Sequence, ch.CSN, last, c.context)
		}
		if before != 0 && ch.Sequence != before+1 {
			c.report("log", ch.ID, "change %d follows %d", ch.Sequence, before)
		}
		last, before = max(last, ch.CSN), ch.Sequence
		return nil
	})
}

// strays looks for what stands in an index and should not: the numbers tell whether there is any.
func (c *checking) strays() error {
	known, have := map[string]bool{}, map[string]int64{}
	for _, x := range c.r.indexes {
		head := string(binary.BigEndian.AppendUint16(nil, x.id))
		known[head+string(rune(kindEquality))], known[head+string(rune(kindPresence))], known[head+string(rune(kindSubstring))] = true, true, x.sub
	}
	unfinished := c.s.Building().Indexes
	b := c.r.tx.Bucket(bucketIndex)
	err := b.ForEach(func(k, v []byte) error {
		if len(k) < 4+indexTail || k[len(k)-indexTail-1] != 0 {
			c.report("index", 0, "key %x cannot be read", k)
			return nil
		}
		var ch chunk
		ch.decode(v)
		if len(v) > 32 || !bytes.Equal(ch.append(nil), v) {
			c.report("index", 0, "%s holds %d octets that are no set of ids", keyText(c.r.table, string(k[:len(k)-indexTail])), len(v))
		}
		have[string(k[:3])] += int64(ch.count())
		return nil
	})
	if err != nil {
		return err
	}
	leftovers := strings.Fields(string(c.r.tx.Bucket(bucketMeta).Get(keyDropped)))
	for head, n := range have {
		name := ""
		if id := int(binary.BigEndian.Uint16([]byte(head))); id < len(c.r.table.list) {
			name = c.r.table.list[id].name
		}
		if !known[head] {
			pending := func(list []string) bool { return slices.Contains(list, name) || slices.Contains(list, name+":sub") }
			if !pending(unfinished) && !pending(leftovers) {
				c.report("index", 0, "%d entries in an index of attribute id %d (%s) that there is not", n, binary.BigEndian.Uint16([]byte(head)), name)
			}
			continue
		}
		if n > c.counts[head] {
			if err := c.straysOf(head); err != nil {
				return err
			}
		}
	}
	return nil
}

// straysOf finds which ids of an index are too many.
func (c *checking) straysOf(head string) error {
	cur := c.r.tx.Bucket(bucketIndex).Cursor()
	for k, v := cur.Seek([]byte(head)); bytes.HasPrefix(k, []byte(head)); k, v = cur.Next() {
		key := string(k[:len(k)-indexTail])
		var ch chunk
		ch.decode(v)
		hi := chunkNumber(k)
		for lo := range uint64(256) {
			if ch.bits[lo>>6]&(1<<(lo&63)) == 0 {
				continue
			}
			id := hi<<8 | lo
			if !c.has(id, key) {
				c.report("index", id, "%s leads to it by mistake", keyText(c.r.table, key))
			}
			if c.Damage > maxFindings*10 {
				return nil // enough is known
			}
		}
	}
	return nil
}

// has reports whether an entry has an index key.
func (c *checking) has(id uint64, key string) (found bool) {
	rec, ok, err := c.r.record(id)
	if err != nil || !ok {
		return false
	}
	attrs, err := decodeAttributes(c.r.table, &rec)
	if err != nil {
		return true // told already
	}
	c.s.keysFor(c.r.indexes, attrs, func(k []byte) { found = found || string(k) == key })
	return found
}
