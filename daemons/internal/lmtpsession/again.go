package lmtpsession

import (
	"bytes"
	"context"
	"fmt"
	"hash/crc32"
	"io"
	"log/slog"
	"strings"
	"time"

	"shoal/daemons/internal/deliver"
	"shoal/daemons/internal/mailstore"
)

// The second attempt at a message whose first got no answer.
//
// A switch names each message by its trace, in ENVID, and writes it into the message (Received). When it knows that there was an
// attempt before, it puts deliver.AgainMark behind the trace. Such a message is looked for in the mailbox before it is
// delivered, and the quota is not asked unless it has to be delivered. What is compared is size and checksum of the whole
// message as it would have been stored, in each form that an earlier attempt may have had: Delivered-To stands in it only
// if the transaction had one account. A message that does not hold its trace near its top might be the same as another, and is
// delivered.

// arrival is how far back an attempt without the mark looks: it may have been held up, and the second have overtaken it.
const arrival = 10 * time.Minute

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// forms computes, while the message is read, what it would be under other prefixes.
type forms struct {
	prefixes []string
	sums     []uint32
	n        int64
}

func (f *forms) add(prefix string) {
	f.prefixes = append(f.prefixes, prefix)
	f.sums = append(f.sums, crc32.Checksum([]byte(prefix), castagnoli))
}

// Write implements io.Writer, for the message without a prefix.
func (f *forms) Write(p []byte) (int, error) {
	for i := range f.sums {
		f.sums[i] = crc32.Update(f.sums[i], castagnoli, p)
	}
	f.n += int64(len(p))
	return len(p), nil
}

// also gives the forms that a message for a target may have been stored in.
func (f *forms) also(prefixes ...string) (out []mailstore.ContentID) {
	for _, p := range prefixes {
		for i, have := range f.prefixes {
			if have == p {
				out = append(out, mailstore.ContentID{Size: f.n + int64(len(p)), CRC: f.sums[i]})
			}
		}
	}
	return out
}

// top is where a message has to hold its trace: Received is its first field, behind a Delivered-To perhaps.
const top = 2 << 10

// marked looks for a mark near the top of what is read through it.
type marked struct {
	r     io.Reader
	mark  []byte
	head  []byte // what was read so far, while that is not the whole top
	found bool
	done  bool
}

func (m *marked) Read(p []byte) (int, error) {
	n, err := m.r.Read(p)
	if m.done {
		return n, err
	}
	part := p[:min(n, top-len(m.head))]
	if len(m.head) > 0 {
		m.head = append(m.head, part...)
		part = m.head
	}
	m.found = bytes.Contains(part, m.mark)
	if m.done = m.found || len(part) == top; !m.done && len(m.head) == 0 {
		m.head = append(make([]byte, 0, top), part...)
	}
	return n, err
}

// takeTrace reads ENVID.
func (tx *transaction) takeTrace(envID string) {
	tx.trace, tx.again = strings.CutSuffix(envID, deliver.AgainMark)
}

// prefixes are those that an earlier attempt for target i may have had.
func (tx *transaction) prefixes(i int) []string {
	out := []string{tx.returnPath()}
	for _, r := range tx.rcpts {
		if r.target == i {
			out = append(out, tx.returnPath()+deliveredTo(r.address))
		}
	}
	return out
}

// identity is what is learnt of a message while it is read; nil: nothing is looked for.
type identity struct {
	*marked
	*forms // nil: an attempt without the mark, for a single account, has but one form
}

// watch learns the identity of the message behind r.
func (s *session) watch(tx *transaction, r io.Reader) (io.Reader, *identity) {
	if tx.trace == "" || s.s.o.DuplicateWindow < 0 {
		return r, nil
	}
	id := &identity{marked: &marked{r: r, mark: []byte(" id " + tx.trace)}}
	if !tx.again && len(tx.targets) == 1 {
		return id.marked, id
	}
	id.forms = &forms{}
	seen := map[string]bool{}
	for i := range tx.targets {
		for _, p := range tx.prefixes(i) {
			if !seen[p] {
				seen[p] = true
				id.add(p)
			}
		}
	}
	return io.TeeReader(id.marked, id.forms), id
}

// once says what target i may have got before; nil: nothing is looked for.
func (s *session) once(tx *transaction, i int, id *identity) *mailstore.Once {
	if id == nil || !id.found {
		return nil
	}
	back := arrival
	if tx.again {
		back = s.s.o.DuplicateWindow
	}
	o := &mailstore.Once{Since: s.s.o.Clock.Now().Add(-back), Again: tx.again}
	if id.forms != nil {
		o.Also = id.also(tx.prefixes(i)...)
	}
	return o
}

// before looks whether the target of a second attempt has the message, and whether it has room for it if not. It tells whether
// the result is settled by that.
func (s *session) before(ctx context.Context, tx *transaction, i int, m *mailstore.Staged, t *mailstore.Target) bool {
	if t.Once == nil || !t.Once.Again {
		if tx.again { // nothing is looked for, and the quota was not asked yet
			tx.targets[i].result.Err = s.room(ctx, tx.targets[i].account, tx.targets[i].handle, m.Size())
		}
		return tx.targets[i].result.Err != nil
	}
	r, found, err := s.s.o.Store.Delivered(ctx, m, t)
	switch {
	case err != nil:
		err = fmt.Errorf("look for an earlier delivery: %w", err)
	case !found:
		err = s.room(ctx, tx.targets[i].account, tx.targets[i].handle, m.Size())
	}
	if r.Err = err; found || err != nil {
		tx.targets[i].result = r
		return true
	}
	return false
}

// suppressed counts and logs a second delivery that was none.
func (s *session) suppressed(ctx context.Context, tx *transaction, t *target) {
	s.s.m.duplicates.Inc()
	s.s.o.Log.LogAttrs(ctx, slog.LevelInfo, "the mailbox has the message already", slog.String("event", "duplicate"), slog.String("trace", tx.trace),
		slog.String("account", t.account.ID), slog.String("mailbox", t.result.MailboxID), slog.Uint64("uid", uint64(t.result.UID)), slog.String("id", t.result.ID))
}
