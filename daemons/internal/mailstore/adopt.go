package mailstore

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"shoal/daemons/internal/vfs"
)

// Adoption: mail that another server keeps on the same file system becomes this store's without being copied. Each message file
// gets a second name in the mailbox; UIDVALIDITY, UIDs, flags and dates are those that the other server gave.
//
// Whoever adopts is a store of its own with a server name of its own, so that Message.Server tells what was adopted from
// what was delivered here.

// InboxOptions are what the INBOX of a new account begins with; zero values mean new ones.
type InboxOptions struct {
	UIDValidity uint32
	// ModSeqBase is added to all mod-sequences: they must be above those that clients know from the other server.
	ModSeqBase uint64
}

// AdoptAccount opens an account. If it does not exist it is made with an INBOX of the given UIDVALIDITY; an INBOX that
// never had a message takes it on. ErrUIDValidity when it has had messages under another one.
func (s *Store) AdoptAccount(ctx context.Context, volume, accountID string, o InboxOptions) (*Account, error) {
	v, err := s.volume(volume)
	if err != nil {
		return nil, err
	}
	if validAccountID(accountID) {
		dir := accountPath(v.root, accountID)
		err := v.do(ctx, func() error {
			_, err := v.fs.Lstat(dir)
			if isNotExist(err) {
				return (&Account{s: s, vol: v, id: accountID, dir: dir}).make(o)
			}
			return ioErr("lstat", dir, err)
		})
		if err != nil {
			return nil, fmt.Errorf("account %s: %w", accountID, err)
		}
	}
	a, err := s.Account(ctx, volume, accountID)
	if err != nil || o.UIDValidity == 0 {
		return a, err
	}
	m, err := a.Open(ctx, Inbox)
	if err != nil {
		return nil, err
	}
	st, err := m.State(ctx)
	if err != nil {
		return nil, err
	}
	if st.uidValidity == o.UIDValidity {
		return a, nil
	}
	if st.uidNext > 1 {
		return nil, m.wrap(fmt.Errorf("%w: it is %d, and there has been mail under it", ErrUIDValidity, st.uidValidity))
	}
	op := mailOp{kind: opRenumber, validity: o.UIDValidity}
	if err := m.j.submit(ctx, &request{op: func(b []byte, x *opContext) []byte { return op.append(b, x.origin) }}); err != nil {
		return nil, m.wrap(err)
	}
	return a, nil
}

// ErrUIDValidity: the mailbox has another UIDVALIDITY and cannot change it.
var ErrUIDValidity = errors.New("another UIDVALIDITY")

// Attribute is an attribute of the account; empty when it has none of that name.
func (a *Account) Attribute(ctx context.Context, key string) (string, error) {
	st, err := a.fresh(ctx)
	if err != nil {
		return "", err
	}
	return st.attrs[key], nil
}

// SetAttribute sets an attribute of the account, or removes it when the value is empty. The key is of a-z.
func (a *Account) SetAttribute(ctx context.Context, key, value string) error {
	_, _, err := a.commitOp(ctx, acctOp{kind: opAttribute, id: "-", key: key, value: value})
	return err
}

// AdoptMessage is a message in a file of somebody else.
type AdoptMessage struct {
	Path string
	// What the file holds, as Measure found it.
	Content FileContent
	// Copied is what is stored instead, where the file holds something else than the message (it is compressed).
	Copied *Staged

	UID          uint32
	Flags        Flags
	Keywords     []string
	InternalDate time.Time
	UIDL         string // POP3 unique-id, where it is not the one that this store would give
}

// FileContent is what Measure tells of a message.
type FileContent struct {
	ContentID
	Bare int64 // LF that no CR precedes
}

// Measure reads a message to its end.
func Measure(r io.Reader) (FileContent, error) {
	var c FileContent
	var ends crlfCounter
	buf := make([]byte, 256<<10)
	for {
		n, err := r.Read(buf)
		c.Size += int64(n)
		c.CRC = updateChecksum(c.CRC, buf[:n])
		ends.count(buf[:n])
		if err == io.EOF {
			c.Bare = ends.bare
			return c, nil
		}
		if err != nil {
			return c, err
		}
	}
}

// Adopt adds messages in one commit, in ascending order of UID, none below UIDNEXT. The files must lie on this volume's
// file system, and get no further name if this is reported with an error. ErrNotLinked when a file cannot be linked.
func (m *Mailbox) Adopt(ctx context.Context, msgs []AdoptMessage) (*State, error) {
	st, err := m.State(ctx)
	if err != nil {
		return nil, err
	}
	next := st.uidNext
	entries := make([]entry, len(msgs))
	for i := range msgs {
		a := &msgs[i]
		if a.UID < next || a.UID >= MaxUID {
			return nil, m.wrap(fmt.Errorf("UID %d of %s: UIDNEXT is %d", a.UID, a.Path, next))
		}
		next = a.UID + 1
		id := msgID{m.j.store.nextNonce(), uint64(a.Content.Size), a.Content.CRC}
		if a.Copied != nil {
			id = a.Copied.newID(m.j.store)
		} else if a.Content.Size+a.Content.Bare > maxMessage {
			return nil, m.wrap(fmt.Errorf("%s: %w", a.Path, ErrTooLarge))
		}
		date := a.InternalDate.Unix()
		e := entry{id: id, flags: a.Flags, keywords: normalKeywords(a.Keywords), uid: a.UID, dir: a.UID / messageDirLen, uidl: a.UIDL,
			date: date, hasDate: true, save: date, hasSave: true}
		if a.Copied == nil && a.Content.Bare > 0 {
			e.wire = uint32(a.Content.Size + a.Content.Bare)
		}
		entries[i] = e
	}
	for i := 0; i < len(msgs); i += linkBatch {
		end := min(i+linkBatch, len(msgs))
		if err := m.a.vol.do(ctx, func() error { return m.adoptFiles(msgs[i:end], entries[i:end]) }); err != nil {
			m.drop(entries[:end])
			return nil, m.wrap(err)
		}
	}
	q := &request{op: deliverOp(m.j.store.clk.Now().Unix(), entries)}
	if err := m.j.submit(ctx, q); err != nil {
		if !isUnknown(err) {
			m.drop(entries)
		}
		return nil, m.wrap(err)
	}
	if q.mail.exhausted {
		m.drop(entries)
		return nil, m.wrap(ErrUIDsExhausted)
	}
	return q.state.(*State), nil
}

// ErrNotLinked: a file of another server cannot get a second name here.
var ErrNotLinked = errors.New("the file cannot be linked")

// adoptFiles makes the messages' names, stable.
func (m *Mailbox) adoptFiles(msgs []AdoptMessage, entries []entry) error {
	j := m.j
	dirs := map[uint32]bool{}
	for i := range msgs {
		e := &entries[i]
		path := j.messagePath(e.dir, e.id)
		dirs[e.dir] = true
		if msgs[i].Copied != nil {
			if err := j.placeMessage(msgs[i].Copied, e); err != nil {
				return err
			}
			continue
		}
		err := j.inMessageDir(e.dir, func() error { return linkFile(j.vol.fs, msgs[i].Path, path) })
		if err != nil {
			return fmt.Errorf("%w: %w", ErrNotLinked, ioErr("link", msgs[i].Path, err))
		}
	}
	for dir := range dirs {
		if err := j.vol.syncDir(string(appendDec([]byte(j.dir+"/"+dirMessages+"/"), uint64(dir)))); err != nil {
			return err
		}
	}
	return nil
}

// SkipUIDs makes UIDNEXT at least next, so that UIDs which the other server gave to messages that are gone are not given
// again. It adds a message and removes it.
func (m *Mailbox) SkipUIDs(ctx context.Context, next uint32) error {
	st, err := m.State(ctx)
	if err != nil || st.uidNext >= next {
		return err
	}
	s, err := m.j.store.Stage(ctx, m.a.vol.name, skipped(), 0)
	if err != nil {
		return m.wrap(err)
	}
	defer s.Close()
	r, err := m.Append(ctx, []AppendMessage{{Message: s, UID: next - 1, Flags: FlagSeen | FlagDeleted}})
	if err != nil {
		return err
	}
	_, err = m.Expunge(ctx, NewUIDSet(r.Messages[0].UID), false)
	return err
}

// Content identifies what the message's file holds.
func (m Message) Content() ContentID { return ContentID{m.FileSize(), m.rec.crc} }

// Content identifies the message.
func (s *Staged) Content() ContentID { return s.contentID() }

// FilePath is where the file of a message lies, for tools that give it another name.
func (m *Mailbox) FilePath(msg Message) string { return m.j.messagePath(msg.dir(), msg.msgID()) }

// Dir is the directory of the account, for tools that see to its ownership.
func (a *Account) Dir() string { return a.dir }

func skipped() io.Reader {
	return strings.NewReader("Subject: not a message\r\n\r\nThe UIDs below this one were used by another server.\r\n")
}

// VolumeID reads the id of the volume at path. ErrNotVolume, ErrNewerFormat.
func VolumeID(fs vfs.FS, path string) (string, error) { return readMarker(fs, path) }
