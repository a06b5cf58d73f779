package mailstore

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"sort"
	"strings"
)

// A pack is a file of what was derived from many messages of a mailbox, c/s1.<nonce>: immutable, made in tmp/ and
// renamed into place. All numbers are little-endian; lengths and places are in bytes.
//
//	pack   = head *span *block
//	head   = "shoal-cache 1.0" LF  records:4 spans:4 size:4 crc:4      size: of the file; crc: of the 28 bytes before
//	                                                                  it and of the spans
//	span   = first:4 last:4 place:4 length:4 records:4 crc:4          one for each block: the UIDs in it, ascending, where
//	                                                                  it lies in the file, and its CRC32C
//	block  = *entry *octet
//	entry  = uid:4 place:4 length:4 ctr:8 origin:4 size:4 crc:4       where in the block the record lies, and the msgid:
//	                                                                  origin is the FNV-1a hash of its origin
//
// The records are summaries of package message, version 1 ("s1"); to this package they are bytes. The msgid tells
// whether a record is about the message that has the UID now.
const (
	packMagic  = "shoal-cache 1.0\n"
	packPrefix = "s1."

	packHead  = 32
	packSpan  = 24
	packEntry = 32

	// blockTarget is the length at which a block is closed, maxBlock what a reader accepts.
	blockTarget = 64 << 10
	maxBlock    = 256 << 10
	// maxPack is the longest pack that is written and read, maxRecordLen the longest record.
	maxPack      = 16 << 20
	maxRecordLen = 64 << 10
	maxSpans     = maxPack / packEntry / 8
)

// errBadPack says that a pack is not as it was written.
var errBadPack = errors.New("not a pack, or damaged")

// packKey is a message as an entry of a pack names it.
type packKey struct {
	uid, origin uint32
	ctr         uint64
	size, crc   uint32
}

func keyOf(m *Message) packKey {
	return packKey{m.UID, hashOrigin(m.origin), m.rec.ctr, m.rec.size, m.rec.crc}
}

func hashOrigin(s string) uint32 {
	h := uint32(2166136261)
	for i := 0; i < len(s); i++ {
		h = (h ^ uint32(s[i])) * 16777619
	}
	return h
}

// span describes a block.
type span struct{ first, last, place, length, records, crc uint32 }

// packRecord is a record and the message it is about.
type packRecord struct {
	key  packKey
	data string
}

// buildPack returns a pack of records, which are in ascending order of UID, and its spans.
func buildPack(records []packRecord) ([]byte, []span) {
	var spans []span
	var starts []int // of the first record of each block
	length := 0
	for i := range records {
		n := packEntry + len(records[i].data)
		if i == 0 || length+n > blockTarget {
			starts = append(starts, i)
			length = 0
		}
		length += n
	}
	size := packHead + packSpan*len(starts)
	for i := range records {
		size += packEntry + len(records[i].data)
	}
	b := make([]byte, packHead+packSpan*len(starts), size)
	le := binary.LittleEndian
	for i, from := range starts {
		to := len(records)
		if i+1 < len(starts) {
			to = starts[i+1]
		}
		block, place := records[from:to], len(b)
		at := packEntry * len(block)
		for k := range block {
			r := &block[k]
			for _, n := range [...]uint32{r.key.uid, uint32(at), uint32(len(r.data))} {
				b = le.AppendUint32(b, n)
			}
			b = le.AppendUint64(b, r.key.ctr)
			for _, n := range [...]uint32{r.key.origin, r.key.size, r.key.crc} {
				b = le.AppendUint32(b, n)
			}
			at += len(r.data)
		}
		for k := range block {
			b = append(b, block[k].data...)
		}
		spans = append(spans, span{
			first: block[0].key.uid, last: block[len(block)-1].key.uid, place: uint32(place),
			length: uint32(len(b) - place), records: uint32(len(block)), crc: checksum(b[place:]),
		})
	}
	copy(b, packMagic)
	le.PutUint32(b[16:], uint32(len(records)))
	le.PutUint32(b[20:], uint32(len(spans)))
	le.PutUint32(b[24:], uint32(len(b)))
	for i, s := range spans {
		at := b[packHead+packSpan*i:]
		for k, n := range [...]uint32{s.first, s.last, s.place, s.length, s.records, s.crc} {
			le.PutUint32(at[4*k:], n)
		}
	}
	le.PutUint32(b[28:], headChecksum(b, len(spans)))
	return b, spans
}

func headChecksum(b []byte, spans int) uint32 {
	return updateChecksum(checksum(b[:28]), b[packHead:packHead+packSpan*spans])
}

// headLength is the length of head and spans, of which b has the first bytes, at least packHead.
func headLength(b []byte) (int, error) {
	if len(b) < packHead || string(b[:16]) != packMagic {
		return 0, fmt.Errorf("%w: first bytes", errBadPack)
	}
	n := binary.LittleEndian.Uint32(b[20:])
	if n == 0 || n > maxSpans {
		return 0, fmt.Errorf("%w: %d spans", errBadPack, n)
	}
	return packHead + packSpan*int(n), nil
}

// parseHead reads head and spans, which b has whole, and checks that they describe a file that can be.
func parseHead(b []byte) (spans []span, size int64, err error) {
	n, err := headLength(b)
	if err != nil {
		return nil, 0, err
	}
	if len(b) < n {
		return nil, 0, fmt.Errorf("%w: cut short", errBadPack)
	}
	le := binary.LittleEndian
	spans = make([]span, (n-packHead)/packSpan)
	if le.Uint32(b[28:]) != headChecksum(b, len(spans)) {
		return nil, 0, fmt.Errorf("%w: checksum of the head", errBadPack)
	}
	at, uid, records := uint64(n), uint64(0), uint64(0)
	for i := range spans {
		p := b[packHead+packSpan*i:]
		s := span{le.Uint32(p), le.Uint32(p[4:]), le.Uint32(p[8:]), le.Uint32(p[12:]), le.Uint32(p[16:]), le.Uint32(p[20:])}
		if uint64(s.first) <= uid || s.last < s.first || uint64(s.place) != at || s.length > maxBlock || s.records == 0 ||
			uint64(s.records)*packEntry > uint64(s.length) {
			return nil, 0, fmt.Errorf("%w: span %d", errBadPack, i)
		}
		at, uid, records = at+uint64(s.length), uint64(s.last), records+uint64(s.records)
		spans[i] = s
	}
	if at != uint64(le.Uint32(b[24:])) || records != uint64(le.Uint32(b[16:])) || at > maxPack {
		return nil, 0, fmt.Errorf("%w: sums", errBadPack)
	}
	return spans, int64(at), nil
}

// checkBlock checks a block against its span. After that its entries may be believed.
func checkBlock(block []byte, s *span) error {
	if len(block) != int(s.length) || checksum(block) != s.crc {
		return fmt.Errorf("%w: checksum of a block", errBadPack)
	}
	le := binary.LittleEndian
	at := uint64(s.records) * packEntry
	for i, uid := 0, uint32(0); i < int(s.records); i++ {
		e := block[packEntry*i:]
		u, place, length := le.Uint32(e), uint64(le.Uint32(e[4:])), uint64(le.Uint32(e[8:]))
		if u <= uid || u < s.first || u > s.last || place != at || length > maxRecordLen || at+length > uint64(len(block)) {
			return fmt.Errorf("%w: entry of UID %d", errBadPack, u)
		}
		uid, at = u, at+length
	}
	if at != uint64(len(block)) {
		return fmt.Errorf("%w: a gap in a block", errBadPack)
	}
	return nil
}

// le32 reads a number out of a block.
func le32(s string, at int) uint32 {
	_ = s[at+3]
	return uint32(s[at]) | uint32(s[at+1])<<8 | uint32(s[at+2])<<16 | uint32(s[at+3])<<24
}

// findRecord looks for a message's record in a checked block of n records. hint is the number of the entry that is
// looked at first, and becomes that of the next one.
func findRecord(block string, n int, k *packKey, hint *int) (string, bool) {
	i := *hint
	if i < 0 || i >= n || le32(block, packEntry*i) != k.uid {
		i = sort.Search(n, func(i int) bool { return le32(block, packEntry*i) >= k.uid })
		if i == n {
			return "", false
		}
	}
	got, data := recordAt(block, i)
	if got != *k {
		return "", false
	}
	*hint = i + 1
	return data, true
}

// recordAt is entry i of a checked block.
func recordAt(block string, i int) (packKey, string) {
	at := packEntry * i
	place, length := le32(block, at+4), le32(block, at+8)
	return packKey{
		uid: le32(block, at), ctr: uint64(le32(block, at+12)) | uint64(le32(block, at+16))<<32,
		origin: le32(block, at+20), size: le32(block, at+24), crc: le32(block, at+28),
	}, block[place : place+length]
}

// readPackBytes checks a whole pack and returns its records.
func readPackBytes(b []byte) ([]packRecord, error) {
	spans, size, err := parseHead(b)
	if err != nil {
		return nil, err
	}
	if size != int64(len(b)) {
		return nil, fmt.Errorf("%w: %d bytes, should be %d", errBadPack, len(b), size)
	}
	var out []packRecord
	for i := range spans {
		s := &spans[i]
		raw := b[s.place : s.place+s.length]
		if err := checkBlock(raw, s); err != nil {
			return nil, err
		}
		block := string(raw)
		for k := range int(s.records) {
			key, data := recordAt(block, k)
			out = append(out, packRecord{key, data})
		}
	}
	return out, nil
}

// mergeRecords puts records in order and keeps one for each message that live has: that of the first list, or else the
// longest, because what is longer says more.
func mergeRecords(live func(*packKey) bool, lists ...[]packRecord) []packRecord {
	type place struct{ list, at int }
	seen := map[uint32]place{}
	var out []packRecord
	for n, list := range lists {
		for i := range list {
			k := &list[i].key
			if !live(k) {
				continue
			}
			have, ok := seen[k.uid]
			switch {
			case !ok:
				seen[k.uid] = place{n, len(out)}
				out = append(out, list[i])
			case have.list > 0 && len(list[i].data) > len(out[have.at].data):
				out[have.at] = list[i]
			}
		}
	}
	slices.SortFunc(out, func(a, b packRecord) int { return int(int64(a.key.uid) - int64(b.key.uid)) })
	return out
}

// packName tells whether a name in c/ is that of a pack that this version reads.
func packName(name string) bool {
	rest, ok := strings.CutPrefix(name, packPrefix)
	if !ok {
		return false
	}
	_, ok = parseNonce(rest)
	return ok
}
