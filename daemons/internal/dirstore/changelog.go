package dirstore

import (
	"bytes"
	"encoding/binary"
	"fmt"
)

// The log has one value for each change, under ascending sequence numbers without gaps at the front
// end. Replicas that were away find in it what they missed; what is older than Options.ChangeLog is
// cut off, and logFloor says up to which CSN.
//
//	offset  0  1  kind: 1 add, 2 modify, 3 delete, 4 rename
//	        1  8  id of the entry
//	        9 16  entryUUID
//	       25     CSN of the change
const (
	logEntryHeader = 25
	maxTrim        = 1024 // changes cut off by one commit
)

// ChangeKind says what a change did to its entry.
type ChangeKind uint8

// Kinds of changes.
const (
	Added    ChangeKind = 1
	Modified ChangeKind = 2
	Deleted  ChangeKind = 3
	Renamed  ChangeKind = 4
)

// LoggedChange is one change of the log.
type LoggedChange struct {
	Sequence uint64
	Kind     ChangeKind
	ID       uint64
	UUID     [16]byte
	CSN      string
}

func (c *LoggedChange) encode() []byte {
	b := make([]byte, 0, logEntryHeader+len(c.CSN))
	b = append(b, byte(c.Kind))
	b = binary.BigEndian.AppendUint64(b, c.ID)
	b = append(b, c.UUID[:]...)
	return append(b, c.CSN...)
}

func (c *LoggedChange) decode(k, v []byte) error {
	if len(k) != 8 || len(v) < logEntryHeader {
		return fmt.Errorf("change log: %w", errRecord)
	}
	c.Sequence = binary.BigEndian.Uint64(k)
	c.Kind, c.ID = ChangeKind(v[0]), binary.BigEndian.Uint64(v[1:])
	copy(c.UUID[:], v[9:25])
	c.CSN = string(v[25:])
	return nil
}

// LogEnd is the sequence number of the newest change as this Reader sees the directory.
func (r *Reader) LogEnd() uint64 {
	k, _ := r.tx.Bucket(bucketLog).Cursor().Last()
	if k == nil {
		return 0
	}
	return binary.BigEndian.Uint64(k)
}

// LogAfter calls fn for each change after a sequence number, in order, until it returns false.
func (r *Reader) LogAfter(sequence uint64, fn func(LoggedChange) bool) error {
	c := r.tx.Bucket(bucketLog).Cursor()
	for k, v := c.Seek(idKey(nil, sequence+1)); k != nil; k, v = c.Next() {
		var ch LoggedChange
		if err := ch.decode(k, v); err != nil {
			return err
		}
		if !fn(ch) {
			return nil
		}
	}
	return nil
}

// LogCovers reports whether every change with a CSN above since is in the log. If so, position is the
// sequence number from which LogAfter gives them all, and maybe older ones.
func (r *Reader) LogCovers(since string) (position uint64, ok bool, err error) {
	if since < string(r.tx.Bucket(bucketMeta).Get(keyLogFloor)) {
		return 0, false, nil
	}
	c := r.tx.Bucket(bucketLog).Cursor()
	for k, v := c.Last(); k != nil; k, v = c.Prev() {
		var ch LoggedChange
		if err := ch.decode(k, v); err != nil {
			return 0, false, err
		}
		if ch.CSN <= since {
			return ch.Sequence, true, nil
		}
		position = ch.Sequence - 1
	}
	return position, true, nil
}

// LogOrdered reports whether the log is in the order of its CSNs: always, but for a replica that is
// being refreshed.
func (r *Reader) LogOrdered() bool {
	return string(r.tx.Bucket(bucketMeta).Get(keyLogFloor)) != unordered
}

// trimLog cuts off changes that are older than the limit, but for the newest one: it keeps the sequence.
func trimLog(tx *writeTx, floor csn, limit csn) (csn, error) {
	b := tx.Bucket(bucketLog)
	c := b.Cursor()
	last, _ := c.Last()
	last = bytes.Clone(last)
	for n := 0; n < maxTrim; n++ {
		k, v := c.First()
		var ch LoggedChange
		if k == nil || bytes.Equal(k, last) || ch.decode(k, v) != nil || ch.CSN >= limit {
			break
		}
		floor = max(floor, ch.CSN)
		if err := b.Delete(bytes.Clone(k)); err != nil {
			return floor, err
		}
	}
	return floor, tx.Bucket(bucketMeta).Put(keyLogFloor, []byte(floor))
}
