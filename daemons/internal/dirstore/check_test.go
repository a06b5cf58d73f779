package dirstore

import (
	"encoding/binary"
	"strings"
	"testing"

	"go.etcd.io/bbolt"

	"shoal/daemons/internal/dirschema"
)

// Each kind of damage that is planted is found and named; nothing is found in a good database.
func TestVerifyFindsDamage(t *testing.T) {
	put := func(b *bbolt.Bucket, k, v []byte) {
		if err := b.Put(k, v); err != nil {
			t.Fatal(err)
		}
	}
	drop := func(b *bbolt.Bucket, k []byte) {
		if err := b.Delete(k); err != nil {
			t.Fatal(err)
		}
	}
	type plant struct {
		want string
		do   func(s *Store, tx *bbolt.Tx, id uint64)
	}
	record := func(tx *bbolt.Tx, id uint64) []byte {
		return append([]byte(nil), tx.Bucket(bucketEntry).Get(idKey(nil, id))...)
	}
	reencode := func(s *Store, tx *bbolt.Tx, id uint64, change func(e *Entry)) {
		rec, err := parseRecord(record(tx, id))
		if err != nil {
			t.Fatal(err)
		}
		attrs, err := decodeAttributes(s.attrs.table.Load(), &rec)
		if err != nil {
			t.Fatal(err)
		}
		e := &Entry{Attributes: attrs}
		change(e)
		raw, err := encodeRecord(&s.attrs, rec.parent, rec.rdn, e.Attributes)
		if err != nil {
			t.Fatal(err)
		}
		put(tx.Bucket(bucketEntry), idKey(nil, id), raw)
	}
	indexed := func(s *Store, name string, kind byte, value string) string {
		x := (*s.kept.Load())[s.schema.Attribute([]byte(name))]
		return string(indexKey(nil, x.id, kind, []byte(value)))
	}
	for _, p := range []plant{
		{"the index of mail, value \"alice@a.test\", does not lead to it", func(s *Store, tx *bbolt.Tx, id uint64) {
			drop(tx.Bucket(bucketIndex), appendChunkNumber([]byte(indexed(s, "mail", kindEquality, "alice@a.test")), id>>8))
		}},
		{"index: entry 9999: the index of mail, value \"alice@a.test\", leads to it by mistake", func(s *Store, tx *bbolt.Tx, id uint64) {
			put(tx.Bucket(bucketIndex), appendChunkNumber([]byte(indexed(s, "mail", kindEquality, "alice@a.test")), 9999>>8), []byte{9999 & 255})
		}},
		{"the index of cn, presence \"\", leads to it by mistake", func(s *Store, tx *bbolt.Tx, id uint64) {
			if err := changeChunk((&writeTx{Tx: tx}).Bucket(bucketIndex), indexed(s, "cn", kindPresence, ""), 1, true); err != nil {
				t.Fatal(err)
			}
		}},
		{"that are no set of ids", func(s *Store, tx *bbolt.Tx, id uint64) {
			put(tx.Bucket(bucketIndex), appendChunkNumber([]byte(indexed(s, "sn", kindSubstring, "zzz")), 0), []byte{5, 4})
		}},
		{"in an index of attribute id 60000", func(s *Store, tx *bbolt.Tx, id uint64) {
			put(tx.Bucket(bucketIndex), append([]byte{60000 >> 8, 60000 & 255, kindEquality}, "x\x00\x00\x00\x00\x00\x00\x00\x00"...), []byte{1})
		}},
		{"damaged record", func(s *Store, tx *bbolt.Tx, id uint64) {
			put(tx.Bucket(bucketEntry), idKey(nil, id), record(tx, id)[:40])
		}},
		{"cannot be read", func(s *Store, tx *bbolt.Tx, id uint64) {
			raw := record(tx, id)
			rec, _ := parseRecord(raw)
			raw[len(raw)-len(rec.blob)] ^= 0xff
			put(tx.Bucket(bucketEntry), idKey(nil, id), raw)
		}},
		{"its superior, entry 77, is missing", func(s *Store, tx *bbolt.Tx, id uint64) {
			raw := record(tx, id)
			binary.BigEndian.PutUint64(raw[2:], 77)
			put(tx.Bucket(bucketEntry), idKey(nil, id), raw)
		}},
		{"it lies under itself", func(s *Store, tx *bbolt.Tx, id uint64) {
			raw := record(tx, id)
			binary.BigEndian.PutUint64(raw[2:], id)
			put(tx.Bucket(bucketEntry), idKey(nil, id), raw)
		}},
		{"leads to an entry that is not there", func(s *Store, tx *bbolt.Tx, id uint64) { drop(tx.Bucket(bucketEntry), idKey(nil, id)) }},
		{"under its name there is entry 0", func(s *Store, tx *bbolt.Tx, id uint64) {
			c := tx.Bucket(bucketTree).Cursor()
			for k, v := c.First(); k != nil; k, v = c.Next() {
				if binary.BigEndian.Uint64(v) == id {
					drop(tx.Bucket(bucketTree), append([]byte(nil), k...))
					return
				}
			}
		}},
		{"which is not its name", func(s *Store, tx *bbolt.Tx, id uint64) {
			put(tx.Bucket(bucketTree), append(idKey(nil, 1), "uid=ghost"...), idKey(nil, id))
		}},
		{"it has the entryUUID of entry", func(s *Store, tx *bbolt.Tx, id uint64) {
			other := ""
			reencode(s, tx, id+1, func(e *Entry) { other = e.one("entryUUID") })
			reencode(s, tx, id, func(e *Entry) { e.set(s, "entryUUID", []byte(other)) })
		}},
		{"it has no entryUUID", func(s *Store, tx *bbolt.Tx, id uint64) {
			reencode(s, tx, id, func(e *Entry) { e.Set(dirschema.Description{Type: s.entryUUID}) })
		}},
		{"is above contextCSN", func(s *Store, tx *bbolt.Tx, id uint64) {
			reencode(s, tx, id, func(e *Entry) { e.set(s, "entryCSN", []byte("20991231000000.000000Z#000000#000#000000")) })
		}},
		{"its entryCSN \"x\" is none", func(s *Store, tx *bbolt.Tx, id uint64) {
			reencode(s, tx, id, func(e *Entry) { e.set(s, "entryCSN", []byte("x")) })
		}},
		{"its id is above the last that was given out", func(s *Store, tx *bbolt.Tx, id uint64) {
			if err := tx.Bucket(bucketEntry).SetSequence(id - 1); err != nil {
				t.Fatal(err)
			}
		}},
		{"entries are counted", func(s *Store, tx *bbolt.Tx, id uint64) { put(tx.Bucket(bucketMeta), keyEntries, idKey(nil, 3)) }},
		{"change 3 follows 1", func(s *Store, tx *bbolt.Tx, id uint64) { drop(tx.Bucket(bucketLog), idKey(nil, 2)) }},
		{"its CSN", func(s *Store, tx *bbolt.Tx, id uint64) {
			ch := LoggedChange{Kind: Added, ID: id, CSN: "19991231000000.000000Z#000000#000#000000"}
			put(tx.Bucket(bucketLog), idKey(nil, 2), ch.encode())
		}},
		{"log: change 0000000000000002: change log: damaged record", func(s *Store, tx *bbolt.Tx, id uint64) {
			put(tx.Bucket(bucketLog), idKey(nil, 2), []byte("short"))
		}},
	} {
		t.Run(p.want, func(t *testing.T) {
			dir := t.TempDir()
			s, err := Open(options(t, dir))
			if err != nil {
				t.Fatal(err)
			}
			s.mustFill(t)
			if v, err := s.Verify(VerifyOptions{Pages: true}); err != nil || v.Err() != nil || v.Keys == 0 || v.Changes == 0 {
				t.Fatalf("of a good database: %v, %+v", err, v)
			}
			r, err := s.Read()
			if err != nil {
				t.Fatal(err)
			}
			id, err := r.Resolve([]byte("uid=alice,associateddomain=a.test,ou=domains,o=shoal"))
			r.Close()
			if err != nil {
				t.Fatal(err)
			}
			if err := s.bolt().Update(func(tx *bbolt.Tx) error { p.do(s, tx, id); return nil }); err != nil {
				t.Fatal(err)
			}
			v, err := s.Verify(VerifyOptions{Pages: true})
			if err != nil {
				t.Fatal(err)
			}
			var all []string
			for _, f := range v.Findings {
				all = append(all, f.String())
			}
			if !strings.Contains(strings.Join(all, "\n"), p.want) || v.Err() == nil {
				t.Errorf("found %q", all)
			}
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
		})
	}
}
