package mailstore

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Bringing back what was deleted, or lies in a copy of the volume (a snapshot of the file server, a backup).
//
// What comes back is new mail: it gets new UIDs by normal commits, in the mailbox where it was or in a new one with a
// new UIDVALIDITY. Putting the old logs back in place would give out used UIDs a second time.
//
// A source is a mailbox that is only read: messages that the log shows as expunged, a deleted mailbox in b/ or trash/, or a
// mailbox below another root. Files are linked, or copied where that is not possible. A new mailbox is filled before the
// account lists it: it is there whole or not at all.

// source is a mailbox to read from.
type source struct {
	j     *journal
	state *State
}

// readSource folds the log in dir. The volume may be a copy that cannot be written.
func (s *Store) readSource(v *volume, dir string) (*source, error) {
	j := newJournal(s, v, mailboxKind, dir, Ref{})
	if err := j.advance(); err != nil {
		return nil, err
	}
	return &source{j, j.fold.state().(*State)}, nil
}

// restored is a message of a source.
type restored struct {
	rec  *msgRec
	ext  *msgExt
	msg  Message
	path string
}

func (x *source) live() []restored {
	var out []restored
	for _, m := range x.state.All() {
		out = append(out, restored{m.rec, m.ext, m, x.j.messagePath(m.dir(), m.msgID())})
	}
	return out
}

func (x *source) dead() []restored {
	var out []restored
	for i := range x.state.dead {
		d := &x.state.dead[i]
		m := Message{UID: d.rec.uid, ModSeq: d.n, Flags: d.rec.flags, Keywords: x.state.keywords[d.rec.keywords],
			Size: int64(d.rec.size), rec: &d.rec, ext: d.ext, origin: x.state.origins[d.rec.origin]}
		out = append(out, restored{&d.rec, d.ext, m, x.j.messagePath(recDir(&d.rec, d.ext), m.msgID())})
	}
	return out
}

// Expunged is an expunged message whose file may still be there.
type Expunged struct {
	UID          uint32    `json:"uid"`
	Size         int64     `json:"size"`
	InternalDate time.Time `json:"internal_date"`
	At           time.Time `json:"expunged"` // by the file server's clock; zero: the record is compacted
	Back         bool      `json:"back"`     // a message of the same EMAILID is in the mailbox
}

// Expunged lists what can be undeleted in the mailbox, the oldest first.
func (m *Mailbox) Expunged(ctx context.Context) ([]Expunged, error) {
	src, err := m.source(ctx)
	if err != nil {
		return nil, err
	}
	here := src.emails()
	out := []Expunged{}
	for _, x := range src.dead() {
		e := Expunged{UID: x.msg.UID, Size: x.msg.Size, InternalDate: x.msg.InternalDate(), Back: here[x.msg.EmailID()]}
		if i, err := m.j.vol.fs.Lstat(m.j.recordPath(x.msg.ModSeq)); err == nil {
			e.At = i.ModTime
		}
		if _, err := m.j.vol.fs.Lstat(x.path); err == nil {
			out = append(out, e)
		}
	}
	return out, nil
}

func (m *Mailbox) source(ctx context.Context) (*source, error) {
	st, err := m.State(ctx)
	if err != nil {
		return nil, err
	}
	return &source{m.j, st}, nil
}

func (x *source) emails() map[string]bool {
	out := map[string]bool{}
	for _, m := range x.state.All() {
		out[m.EmailID()] = true
	}
	return out
}

// Restored is the outcome of a restoration.
type Restored struct {
	Mailbox     string   `json:"mailbox"`
	UIDValidity uint32   `json:"uidvalidity"`
	UIDs        []uint32 `json:"uids"`
	// Missing are messages whose file is gone or damaged: they could not be brought back.
	Missing int `json:"missing"`
	// Back are messages that were there again already.
	Back int `json:"back"`
}

// Undelete brings expunged messages back: all, or those in uids; with since only those expunged at or after it. They get
// new UIDs and lose \Deleted. Messages that are back already are left alone, so it can be repeated.
func (m *Mailbox) Undelete(ctx context.Context, uids UIDSet, since time.Time) (*Restored, error) {
	src, err := m.source(ctx)
	if err != nil {
		return nil, err
	}
	here := src.emails()
	r := &Restored{UIDs: []uint32{}}
	var take []restored
	for _, x := range src.dead() {
		if len(uids) > 0 && !uids.Contains(x.msg.UID) {
			continue
		}
		if !since.IsZero() {
			if i, err := m.j.vol.fs.Lstat(m.j.recordPath(x.msg.ModSeq)); err != nil || i.ModTime.Before(since) {
				continue
			}
		}
		if here[x.msg.EmailID()] {
			r.Back++
			continue
		}
		here[x.msg.EmailID()] = true
		take = append(take, x)
	}
	return r, m.bringBack(ctx, src, take, r, nil)
}

// restoreBatch is how many messages come back with one commit.
const restoreBatch = 2000

// bringBack links or copies files and commits the messages, in batches.
func (m *Mailbox) bringBack(ctx context.Context, src *source, take []restored, r *Restored, progress func(done, of int)) error {
	st, err := m.plan(ctx)
	if err != nil {
		return err
	}
	r.UIDValidity = st.uidValidity
	for done := 0; done < len(take); done += restoreBatch {
		batch := take[done:min(done+restoreBatch, len(take))]
		if st, err = m.plan(ctx); err != nil {
			return err
		}
		dir := st.uidNext / messageDirLen
		var entries []entry
		for _, x := range batch {
			if err := ctx.Err(); err != nil {
				return err
			}
			id := x.msg.msgID()
			id.nonce = m.j.store.nextNonce()
			e := entry{id: id, flags: x.msg.Flags &^ FlagDeleted, keywords: x.msg.Keywords, date: x.msg.InternalDate().Unix(), hasDate: true,
				email: x.msg.EmailID(), thread: x.msg.ThreadID(), dir: dir}
			if x.rec.ext&extFile != 0 {
				e.wire = uint32(x.msg.Size)
			}
			if x.ext != nil {
				e.extra = x.ext.extra
			}
			err := m.takeFile(src.j.vol, x.path, &e)
			if isNotExist(err) || errors.Is(err, ErrCorrupt) {
				r.Missing++
				continue
			}
			if err != nil {
				m.drop(entries)
				return err
			}
			entries = append(entries, e)
		}
		if len(entries) == 0 {
			continue
		}
		if err := m.j.vol.syncDir(string(appendDec([]byte(m.j.dir+"/"+dirMessages+"/"), uint64(dir)))); err != nil {
			return err
		}
		q := &request{op: deliverOp(m.j.store.clk.Now().Unix(), entries)}
		if err := m.j.submit(ctx, q); err != nil {
			if !isUnknown(err) {
				m.drop(entries)
			}
			return m.wrap(err)
		}
		if q.mail.exhausted {
			m.drop(entries)
			return m.wrap(ErrUIDsExhausted)
		}
		uids := q.mail.uids
		if !q.mail.resolved {
			uids = q.state.(*State).uidsOf(entries)
		}
		r.UIDs = append(r.UIDs, uids...)
		if progress != nil {
			progress(done+len(batch), len(take))
		}
	}
	return nil
}

// takeFile makes path the file of e: a link to it, or a copy.
func (m *Mailbox) takeFile(from *volume, path string, e *entry) error {
	j := m.j
	to := j.messagePath(e.dir, e.id)
	if from.root == j.vol.root {
		err := j.inMessageDir(e.dir, func() error { return linkFile(j.vol.fs, path, to) })
		if err == nil {
			return nil
		}
		if !linkImpossible(err) {
			return ioErr("link", path, err)
		}
	}
	b, err := readFile(from.fs, path, maxMessage)
	if isNotExist(err) {
		return err
	}
	if err != nil {
		return ioErr("read", path, err)
	}
	if checksum(b) != e.id.crc || uint64(len(b)) != e.id.size {
		return fmt.Errorf("%s: checksum: %w", path, ErrCorrupt)
	}
	return ioErr("write", to, j.inMessageDir(e.dir, func() error { return writeFile(j.vol.fs, to, b) }))
}

// DeletedMailbox is a mailbox that can be brought back.
type DeletedMailbox struct {
	ID       string    `json:"id"`
	Name     string    `json:"name"`
	At       time.Time `json:"deleted"`
	Messages int       `json:"messages"`
	dir      string
}

// Deleted lists the deleted mailboxes of the account that are still on its volume, the last deleted first.
func (a *Account) Deleted(ctx context.Context) ([]DeletedMailbox, error) {
	st, err := a.fresh(ctx)
	if err != nil {
		return nil, err
	}
	dirs := map[string]string{}
	names, err := a.vol.fs.ReadDir(a.vol.root+"/trash", nil)
	if err != nil && !isNotExist(err) {
		return nil, ioErr("list", a.vol.root+"/trash", err)
	}
	for _, n := range names {
		if id, ok := strings.CutPrefix(n, a.id+"."); ok && validMailboxID(id) {
			dirs[id] = a.vol.root + "/trash/" + n
		}
	}
	if names, err = a.vol.fs.ReadDir(a.dir+"/"+dirBoxes, nil); err != nil {
		return nil, ioErr("list", a.dir+"/"+dirBoxes, err)
	}
	for _, id := range names {
		if st.boxes[id] == nil {
			dirs[id] = a.dir + "/" + dirBoxes + "/" + id
		}
	}
	out := []DeletedMailbox{}
	for id, dir := range dirs {
		stamp, err := a.vol.fs.Lstat(dir + "/" + deletedStamp)
		if err != nil {
			continue // never finished, or being purged
		}
		d := DeletedMailbox{ID: id, At: stamp.ModTime, dir: dir}
		for _, x := range st.deleted {
			if x.id == id {
				d.Name = x.name
			}
		}
		if text, err := readFile(a.vol.fs, dir+"/"+deletedStamp, 8192); d.Name == "" && err == nil {
			if name, ok := strings.CutPrefix(strings.TrimSuffix(string(text), "\n"), "name "); ok {
				d.Name, _ = unescape(name)
			}
		}
		src, err := a.s.readSource(a.vol, dir)
		if err != nil || src.state.account != "" && src.state.account != a.id {
			continue
		}
		d.Messages = src.state.count
		out = append(out, d)
	}
	slices.SortFunc(out, func(a, b DeletedMailbox) int { return b.At.Compare(a.At) })
	return out, nil
}

// RestoreDeleted brings a deleted mailbox back, by name (the last deleted of that name) or id, as a new mailbox called as.
// ErrNoMailbox, ErrMailboxExists.
func (a *Account) RestoreDeleted(ctx context.Context, nameOrID, as string, progress func(done, of int)) (*Restored, error) {
	all, err := a.Deleted(ctx)
	if err != nil {
		return nil, err
	}
	i := slices.IndexFunc(all, func(d DeletedMailbox) bool { return d.ID == nameOrID })
	if i < 0 {
		i = slices.IndexFunc(all, func(d DeletedMailbox) bool { return d.Name == nameOrID })
	}
	if i < 0 {
		return nil, fmt.Errorf("deleted mailbox %q: %w", nameOrID, ErrNoMailbox)
	}
	src, err := a.s.readSource(a.vol, all[i].dir)
	if err != nil {
		return nil, err
	}
	if as == "" {
		as = all[i].Name
	}
	return a.restoreAs(ctx, src, src.live(), as, progress)
}

// restoreAs fills a new mailbox and then lists it under a name.
func (a *Account) restoreAs(ctx context.Context, src *source, take []restored, as string, progress func(done, of int)) (*Restored, error) {
	as, err := mailboxName(as)
	if err != nil {
		return nil, err
	}
	st, err := a.fresh(ctx)
	if err != nil {
		return nil, err
	}
	if st.names[as] != "" {
		return nil, fmt.Errorf("%q: %w", as, ErrMailboxExists)
	}
	m, validity, err := a.unlisted(ctx, max(st.maxValidity, src.state.uidValidity))
	if err != nil {
		return nil, err
	}
	r := &Restored{Mailbox: as, UIDValidity: validity, UIDs: []uint32{}}
	if err := m.bringBack(ctx, src, take, r, progress); err != nil {
		return nil, err
	}
	done, _, err := a.commitOp(ctx, acctOp{kind: opCreate, id: m.id, validity: validity, given: true, name: as})
	if err == nil && !done {
		err = fmt.Errorf("%q: %w", as, ErrMailboxExists)
	}
	if err != nil {
		return nil, err
	}
	return r, nil
}

// unlisted makes a mailbox that no list has yet; what is never listed is collected after a week.
func (a *Account) unlisted(ctx context.Context, above uint32) (*Mailbox, uint32, error) {
	id := a.s.nextNonce().String()
	validity := a.s.newValidity(above)
	err := a.vol.do(ctx, func() error {
		t := tree{v: a.vol}
		t.mailbox(a.dir+"/"+dirBoxes+"/"+id, a.s, a.id, id, validity, 0)
		t.sync(a.dir + "/" + dirBoxes)
		return t.err
	})
	return a.mailbox(id), validity, err
}

// Archive is a copy of a volume that is only read: a snapshot of the file server, or a backup.
type Archive struct {
	s *Store
	v *volume
}

// OpenArchive opens the copy of a volume at path. It writes nothing there. ErrNotVolume.
func (s *Store) OpenArchive(path string) (*Archive, error) {
	path = strings.TrimRight(path, "/")
	id, err := readMarker(s.fs, path)
	if err != nil {
		return nil, err
	}
	v := &volume{store: s, fs: s.fs, clk: s.clk, name: path, root: path, id: id, network: true,
		slots: make(chan struct{}, s.o.VolumeCalls), timeout: s.o.CallTimeout}
	return &Archive{s, v}, nil
}

// Mailboxes lists the mailboxes that an account has in the archive. ErrNoAccount.
func (x *Archive) Mailboxes(account string) ([]MailboxInfo, error) {
	st, err := x.account(account)
	if err != nil {
		return nil, err
	}
	return st.list(), nil
}

func (x *Archive) account(id string) (*acctState, error) {
	if !validAccountID(id) {
		return nil, fmt.Errorf("account id %q: %w", id, ErrNoAccount)
	}
	dir := accountPath(x.v.root, id)
	if _, err := x.v.fs.Lstat(dir); isNotExist(err) {
		return nil, fmt.Errorf("account %s is not in %s: %w", id, x.v.root, ErrNoAccount)
	}
	j := newJournal(x.s, x.v, accountKind, dir, Ref{})
	if err := j.advance(); err != nil {
		return nil, err
	}
	return j.fold.state().(*acctState), nil
}

// RestoreFrom brings a mailbox of an archive back, as a new mailbox called as. ErrNoMailbox, ErrMailboxExists.
func (a *Account) RestoreFrom(ctx context.Context, x *Archive, name, as string, progress func(done, of int)) (*Restored, error) {
	st, err := x.account(a.id)
	if err != nil {
		return nil, err
	}
	b := st.boxes[st.names[name]]
	if b == nil {
		return nil, fmt.Errorf("%q in %s: %w", name, x.v.root, ErrNoMailbox)
	}
	src, err := a.s.readSource(x.v, accountPath(x.v.root, a.id)+"/"+dirBoxes+"/"+b.id)
	if err != nil {
		return nil, err
	}
	if as == "" {
		as = name
	}
	return a.restoreAs(ctx, src, src.live(), as, progress)
}

// Detail is what an operator wants to know about a mailbox beside its messages.
type Detail struct {
	MailboxInfo
	Messages, Unseen, Deleted int
	Bytes                     int64
	UIDNext                   uint32
	ModSeq                    uint64
	Record                    uint64 // the last one
	Records                   int    // that are not compacted
	Snapshots                 []uint64
	Interest                  []string // who wants to be told
	Expunged                  int      // that can be undeleted
	Files                     int
	Path                      string
}

// Detail looks into a mailbox.
func (a *Account) Detail(ctx context.Context, name string) (*Detail, error) {
	b, err := a.find(ctx, name)
	if err != nil {
		return nil, err
	}
	st, err := a.fresh(ctx)
	if err != nil {
		return nil, err
	}
	m, err := a.listed(ctx, b.id)
	if err != nil {
		return nil, err
	}
	s, err := m.State(ctx)
	if err != nil {
		return nil, err
	}
	d := &Detail{MailboxInfo: b.info(st), Messages: s.count, Unseen: s.unseen, Deleted: s.deleted, Bytes: s.bytes, UIDNext: s.uidNext,
		ModSeq: s.ModSeq(), Record: s.n, Path: m.j.dir, Snapshots: []uint64{}, Interest: []string{}, Expunged: len(s.dead)}
	return d, a.vol.do(ctx, func() error { return m.j.describe(d) })
}

func (j *journal) describe(d *Detail) error {
	list := func(dir string) []string {
		names, _ := j.vol.fs.ReadDir(dir, nil) // what is missing shows as nothing; verify finds why
		return names
	}
	for _, k := range list(j.dir + "/" + dirLog) {
		d.Records += len(numbers(list(j.dir + "/" + dirLog + "/" + k)))
	}
	d.Snapshots = append(d.Snapshots, numbers(list(j.dir+"/"+dirSnap))...)
	for _, w := range list(j.dir + "/" + dirInterest) {
		var buf [256]byte
		if _, ok := parseNonce(w); !ok {
			continue
		}
		if n, err := j.vol.fs.Readlink(j.dir+"/"+dirInterest+"/"+w, buf[:]); err == nil {
			d.Interest = append(d.Interest, originServer(w)+" "+string(buf[:n]))
		}
	}
	slices.Sort(d.Interest)
	for _, k := range list(j.dir + "/" + dirMessages) {
		d.Files += len(list(j.dir + "/" + dirMessages + "/" + k))
	}
	return nil
}
