package mailstore

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
)

func someRecords(n int) []packRecord {
	r := rand.New(rand.NewPCG(1, uint64(n)))
	var out []packRecord
	uid := uint32(0)
	for range n {
		uid += 1 + r.Uint32N(3)
		out = append(out, packRecord{packKey{uid, r.Uint32(), r.Uint64(), r.Uint32(), r.Uint32()}, strings.Repeat(fmt.Sprint(uid, " "), r.IntN(200))})
	}
	return out
}

func TestPack(t *testing.T) {
	for _, n := range []int{1, 2, 80, 3000} {
		want := someRecords(n)
		b, spans := buildPack(want)
		got, err := readPackBytes(b)
		if err != nil || len(got) != n {
			t.Fatal(n, len(got), err)
		}
		for i := range got {
			if got[i] != want[i] {
				t.Fatalf("%d: %+v, want %+v", n, got[i], want[i])
			}
		}
		for i := range spans {
			if spans[i].length > blockTarget+maxRecordLen {
				t.Errorf("block of %d bytes", spans[i].length)
			}
		}
		// Each record is found in its block, and a message that has another msgid is not.
		hint, at := 0, 0
		for _, s := range spans {
			block := string(b[s.place : s.place+s.length])
			for range s.records {
				k := want[at].key
				if data, ok := findRecord(block, int(s.records), &k, &hint); !ok || data != want[at].data {
					t.Fatalf("%d: record %d: %v %q", n, at, ok, data)
				}
				k.crc++
				if _, ok := findRecord(block, int(s.records), &k, &hint); ok {
					t.Fatal("found for another message")
				}
				at++
			}
		}
	}
}

// Each byte counts: one that is changed, missing or too many is noticed.
func TestPackIsExact(t *testing.T) {
	b, _ := buildPack(someRecords(20))
	for i := range b {
		bad := bytes.Clone(b)
		bad[i] ^= 1 << (i % 8)
		if _, err := readPackBytes(bad); !errors.Is(err, errBadPack) {
			t.Fatalf("byte %d changed: %v", i, err)
		}
		if _, err := readPackBytes(b[:i]); !errors.Is(err, errBadPack) {
			t.Fatalf("cut at %d: %v", i, err)
		}
	}
	if _, err := readPackBytes(append(bytes.Clone(b), 0)); !errors.Is(err, errBadPack) {
		t.Fatalf("a byte too many: %v", err)
	}
}

// resealed gives a pack the checksums that its bytes should have, as far as its head allows.
func resealed(b []byte) []byte {
	b = bytes.Clone(b)
	copy(b, packMagic)
	n, err := headLength(b)
	if err != nil || n > len(b) {
		return b
	}
	le := binary.LittleEndian
	for at := packHead; at < n; at += packSpan {
		place, length := uint64(le.Uint32(b[at+8:])), uint64(le.Uint32(b[at+12:]))
		if place+length <= uint64(len(b)) {
			le.PutUint32(b[at+20:], checksum(b[place:place+length]))
		}
	}
	le.PutUint32(b[28:], headChecksum(b, (n-packHead)/packSpan))
	return b
}

// FuzzPack reads packs that somebody made who knows the checksums.
func FuzzPack(f *testing.F) {
	for _, n := range []int{1, 3, 200} {
		b, _ := buildPack(someRecords(n))
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		records, err := readPackBytes(resealed(b))
		if err != nil {
			if !errors.Is(err, errBadPack) {
				t.Fatal(err)
			}
			return
		}
		uid := uint32(0)
		for _, r := range records {
			if r.key.uid <= uid {
				t.Fatalf("UID %d after %d", r.key.uid, uid)
			}
			uid = r.key.uid
		}
		again, _ := buildPack(records)
		got, err := readPackBytes(again)
		if err != nil || len(got) != len(records) {
			t.Fatal(err, len(got), len(records))
		}
	})
}
