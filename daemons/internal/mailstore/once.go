package mailstore

import (
	"context"
	"time"
)

// Suppression of second deliveries.
//
// Whoever hands over a message and gets no answer has to hand it over again, perhaps to another server, while the
// first attempt may have been committed, or may still be on its way to its commit. Such a message is told by size and
// checksum, which stand in its name: nothing is written for it in advance and no file is read. The look is taken
// when the text of the record is made, so it is decided by the log: of two attempts the one whose record
// comes second sees the first.
//
//   - the attempt that is known to be a second one looks at all that came since a given time, expunged messages
//     (as long as their files are kept) included;
//   - every other attempt looks at what has come in just now: it may be the first one, held up on its way.
//
// A message that was moved away in between is among the expunged ones of this mailbox.

// ContentID tells a content apart from others: its length and its CRC32C.
type ContentID struct {
	Size int64
	CRC  uint32
}

// Once makes a delivery have no effect if the mailbox got the same content already.
type Once struct {
	// Since leaves out messages that were saved before.
	Since time.Time
	// Again says that there was an attempt before this one: all messages are looked at. Otherwise
	// it is only the newest ones.
	Again bool
	// Also are other forms in which the first attempt may have been stored.
	Also []ContentID
}

// newest is how many messages an ordinary delivery looks at.
const newest = 256

// earlier is a message that is the outcome of an earlier attempt.
type earlier struct {
	uid uint32
	id  string
}

// find looks for one of the contents in s.
func (o *Once) find(s *State, own ContentID) *earlier {
	since := o.Since.Unix()
	same := func(r *msgRec) bool {
		if int64(r.size) == own.Size && r.crc == own.CRC {
			return true
		}
		for _, a := range o.Also {
			if int64(r.size) == a.Size && r.crc == a.CRC {
				return true
			}
		}
		return false
	}
	saved := func(r *msgRec, x *msgExt) int64 {
		if r.ext&extDate != 0 {
			return x.save
		}
		return int64(r.save)
	}
	looked := 0
	for c := len(s.chunks) - 1; c >= 0; c-- {
		ch := s.chunks[c]
		for k := len(ch.recs) - 1; k >= 0; k-- {
			r := &ch.recs[k]
			var x *msgExt
			if r.ext&extDate != 0 {
				x = ch.extOf(r.uid)
			}
			old := saved(r, x) < since
			if !old && same(r) {
				return &earlier{r.uid, s.message(ch, k).ID()}
			}
			if looked++; !o.Again && (old || looked == newest) {
				return nil
			}
		}
	}
	for i := range s.dead {
		d := &s.dead[i]
		if o.Again && saved(&d.rec, d.ext) >= since && same(&d.rec) {
			return &earlier{d.rec.uid, s.deadID(d).String()}
		}
	}
	return nil
}

// nothing is an op without effect: no message has that UID, and no flag is added. It takes the place of a delivery
// that turns out to be a second one when its record is already being made.
const nothing = "F + 4294967294"

// guard wraps the op of a delivery; where points to what was found when the record was made.
func (o *Once) guard(own ContentID, op func([]byte, *opContext) []byte, where **earlier) func([]byte, *opContext) []byte {
	return func(b []byte, c *opContext) []byte {
		*where = nil
		if f, ok := c.fold.(*mailFold); ok {
			if *where = o.find(f.s, own); *where != nil {
				return append(b, nothing...)
			}
		}
		return op(b, c)
	}
}

// Delivered tells whether a target with Once got m already; the result is then that of the first delivery. It writes nothing.
func (s *Store) Delivered(ctx context.Context, m *Staged, t *Target) (Result, bool, error) {
	if t.Once == nil {
		return Result{}, false, nil
	}
	box, err := t.Account.target(ctx, t.Mailbox, false)
	if err != nil {
		return Result{}, false, err
	}
	st, err := box.State(ctx)
	if err != nil {
		return Result{}, false, err
	}
	e := t.Once.find(st, m.contentID())
	if e == nil {
		return Result{}, false, nil
	}
	return Result{MailboxID: box.id, UIDValidity: st.uidValidity, UID: e.uid, ID: e.id, Duplicate: true}, true, nil
}

func (s *Staged) contentID() ContentID { return ContentID{s.size, s.crc} }
