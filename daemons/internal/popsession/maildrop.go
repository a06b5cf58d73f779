package popsession

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"time"

	"shoal/daemons/internal/mailstore"
)

// maildrop is the INBOX as one session sees it: a state of the mailbox, and what the session has marked.
type maildrop struct {
	box   *mailstore.Mailbox
	state *mailstore.State

	deleted mailstore.UIDSet // marked by DELE
	seen    mailstore.UIDSet // sent by RETR
	count   int              // messages not marked
	size    int64            // their octets

	retrieved, removed int
}

// message returns message number n, from 1 on; ok is false where there is none or it is marked as deleted.
func (d *maildrop) message(n int) (m mailstore.Message, ok bool) {
	if n < 1 || n > d.state.Len() {
		return m, false
	}
	m = d.state.At(n - 1)
	return m, !d.deleted.Contains(m.UID)
}

// uidl is the unique id of a message: RFC 1939 §7 asks for 1 to 70 characters from %x21 to %x7E. A message that was
// adopted keeps the one that its former server gave it.
func (d *maildrop) uidl(m mailstore.Message) string {
	if id := m.UIDL(); validUIDL(id) {
		return id
	}
	return fmt.Sprintf("%d.%d", d.state.UIDValidity(), m.UID)
}

func validUIDL(id string) bool {
	for i := range len(id) {
		if id[i] < 0x21 || id[i] > 0x7e {
			return false
		}
	}
	return len(id) >= 1 && len(id) <= 70
}

func (d *maildrop) mark(m mailstore.Message) {
	d.deleted.Add(m.UID)
	d.count--
	d.size -= m.Size
}

func (d *maildrop) reset() {
	d.deleted, d.count, d.size = nil, d.state.Len(), d.state.Bytes()
}

// expire marks what RemoveRetrieved or ExpireDays removes: what this session has retrieved, or what was read at any time and lies here for
// so many days or longer. It returns how many messages that are.
func (d *maildrop) expire(lim *Limits, now time.Time) (n int) {
	if lim.ExpireDays <= 0 && !lim.RemoveRetrieved {
		return 0
	}
	before := now.AddDate(0, 0, -lim.ExpireDays)
	for _, m := range d.state.All() {
		due := d.seen.Contains(m.UID)
		if !lim.RemoveRetrieved {
			due = (due || m.Flags&mailstore.FlagSeen != 0) && !m.SaveDate().After(before)
		}
		if due && !d.deleted.Contains(m.UID) {
			d.mark(m)
			n++
		}
	}
	return n
}

// update commits what the session has marked: the UPDATE state of RFC 1939 §6.
func (d *maildrop) update(ctx context.Context) error {
	if d.deleted.Len() > 0 {
		r, err := d.box.Expunge(ctx, d.deleted, false)
		if err != nil {
			return fmt.Errorf("remove messages: %w", err)
		}
		d.removed = r.UIDs.Len()
	}
	var seen mailstore.UIDSet
	for _, m := range d.state.UIDs(d.seen) {
		if m.Flags&mailstore.FlagSeen == 0 && !d.deleted.Contains(m.UID) {
			seen.Add(m.UID)
		}
	}
	if seen.Len() > 0 {
		if _, err := d.box.ChangeFlags(ctx, mailstore.FlagChange{UIDs: seen, Op: mailstore.FlagsAdd, Flags: mailstore.FlagSeen}); err != nil {
			return fmt.Errorf("mark messages as seen: %w", err)
		}
	}
	return nil
}

// stuffer writes a message as the body of a multi-line answer (RFC 1939 §3): lines end in CRLF, and those
// that begin with a dot get one more. left is how many lines of the body are to follow the header; all where it
// is negative.
type stuffer struct {
	w      *bufio.Writer
	left   int
	length int64 // bytes of the present line
	cr     bool  // the last of them is a CR
	inBody bool
}

// copy writes what it reads up to the end, or up to the last line that is wanted, and the final dot. The
// error is that of the reader; one of the writer stays in it and comes out at Flush.
func (s *stuffer) copy(r io.Reader) error {
	buf := make([]byte, 16<<10)
	for {
		n, err := r.Read(buf)
		if done := s.write(buf[:n]); done || err == io.EOF {
			s.end(done)
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// end writes the final dot. done: what was wanted is out, and ends with a line.
func (s *stuffer) end(done bool) {
	if s.length > 0 && !done {
		s.endLine()
	}
	_, _ = s.w.WriteString(".\r\n")
}

// write writes a piece, and reports whether all that is wanted is out.
func (s *stuffer) write(b []byte) (done bool) {
	for len(b) > 0 {
		if s.length == 0 {
			if s.inBody && s.left == 0 {
				return true
			}
			if b[0] == '.' {
				_ = s.w.WriteByte('.')
			}
		}
		line, rest, ended := bytes.Cut(b, []byte{'\n'})
		_, _ = s.w.Write(line)
		s.length += int64(len(line))
		if len(line) > 0 {
			s.cr = line[len(line)-1] == '\r'
		}
		if !ended {
			return false
		}
		blank := s.length == 0 || s.length == 1 && s.cr
		s.endLine()
		switch {
		case !s.inBody:
			s.inBody = blank
		case s.left > 0:
			s.left--
		}
		b = rest
	}
	return false
}

// endLine writes the line break, the CR of which may be there already.
func (s *stuffer) endLine() {
	if !s.cr {
		_ = s.w.WriteByte('\r')
	}
	_ = s.w.WriteByte('\n')
	s.length, s.cr = 0, false
}
