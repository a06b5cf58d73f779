package mailstore

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"syscall"
)

// Repair of what Verify finds. It loses nothing: what cannot be put where it was goes to the mailbox Recovered, and
// what is replaced goes to the trash like something deleted, for the retention.
//
//   - A message whose file is missing is expunged by a normal commit, and named.
//   - A message whose file is damaged is delivered anew to its mailbox, as what is left of it, and the damaged one is
//     expunged.
//   - Message files that no record names, with a good checksum and older than the collector's age, go to Recovered, unless
//     a message of the account has the same content.
//   - A mailbox whose log cannot be read to its end: the log is closed behind its end, so that a server that still
//     has it in memory commits nothing more; a new mailbox with a new UIDVALIDITY gets the messages up to the damage with their flags,
//     and those delivered behind it as far as records can be read; files that no readable record names go to
//     Recovered. Then, in one record, the account's list changes from the old mailbox to the new one. Changes of flags and
//     expunges behind the damage are not repeated: their UIDs may mean other messages.
//   - The log of an account with missing records: the holes are filled with records that say nothing, made exclusively. With
//     records that cannot be read: a snapshot of what all the others say is put at the end. Mailboxes that are in no list
//     then, and were not deleted, are listed as Recovered/<id>.
//
// Everything is looked at again before it is changed, and each step leaves a state that Verify judges anew: repeating a repair,
// or ending it anywhere, does no harm.

// opNothing fills a hole in a log: in lower case, so that everybody passes over it.
const opNothing = 'r'

// RecoveredName is the mailbox for what has no other place.
const RecoveredName = "Recovered"

// RepairAction is one thing that a repair does, or would do.
type RepairAction struct {
	Account string `json:"account"`
	Mailbox string `json:"mailbox,omitempty"` // its name
	Path    string `json:"path"`
	Action  string `json:"action"` // "expunge", "refile", "recover", "rebuild", "fill", "checkpoint", "list", "none"
	What    string `json:"what"`
	Count   int    `json:"count,omitempty"` // messages
	Error   string `json:"error,omitempty"`
}

// repairer repairs one account.
type repairer struct {
	s       *Store
	v       *volume
	a       *Account
	apply   bool
	actions []RepairAction
	content map[[2]uint64]bool // size and checksum of all live messages of the account; nil: not read yet
}

// Repair does what can be done about an account, or with apply false says what it would do. The report is Verify's of
// the same account.
func (s *Store) Repair(ctx context.Context, volume string, account string, report *Report, apply bool) ([]RepairAction, error) {
	v, err := s.volume(volume)
	if err != nil {
		return nil, err
	}
	a, err := s.existing(v, account)
	if err != nil {
		return nil, err
	}
	r := &repairer{s: s, v: v, a: a, apply: apply, actions: []RepairAction{}}
	of := func(box string, kinds ...ProblemKind) (out []Problem) {
		for _, p := range report.Problems {
			if p.Account == account && p.Mailbox == box && slices.Contains(kinds, p.Kind) {
				out = append(out, p)
			}
		}
		return out
	}
	if bad := of("", KindLog, KindHole); len(bad) > 0 {
		if err := r.accountLog(ctx, bad[0]); err != nil || !apply {
			return r.actions, err
		}
	}
	st, err := a.fresh(ctx)
	if err != nil {
		return r.actions, err
	}
	for _, id := range sortedIDs(st.boxes) {
		if err := ctx.Err(); err != nil {
			return r.actions, err
		}
		b := st.boxes[id]
		switch bad := of(id, KindLog, KindHole, KindState); {
		case len(bad) > 0:
			err = r.rebuild(ctx, b, bad[0])
		default:
			err = r.files(ctx, b, of(id, KindFile, KindContent))
			var orphans []string
			for _, o := range report.Orphans {
				if o.Account == account && o.Mailbox == id && o.Valid {
					orphans = append(orphans, o.Path)
				}
			}
			if err == nil {
				err = r.orphans(ctx, b.name, orphans)
			}
		}
		if err != nil {
			return r.actions, fmt.Errorf("mailbox %q: %w", b.name, err)
		}
	}
	for _, p := range report.Problems {
		if p.Account == account && (p.Kind == KindRecord || p.Kind == KindSnapshot) {
			r.note(RepairAction{Path: p.Path, Action: "none", What: p.What + ": the mailbox can be read all the same; compaction removes it"})
		}
	}
	return r.actions, nil
}

func (r *repairer) note(x RepairAction) {
	x.Account = r.a.id
	r.actions = append(r.actions, x)
}

// files deals with messages whose file is missing or damaged.
func (r *repairer) files(ctx context.Context, b *acctBox, problems []Problem) error {
	m := r.a.mailbox(b.id)
	for _, p := range problems {
		st, err := m.State(ctx)
		if err != nil {
			return err
		}
		msg, ok := st.ByUID(p.UID)
		if !ok {
			continue // expunged since
		}
		path := m.j.messagePath(msg.dir(), msg.msgID())
		text, err := readFile(r.v.fs, path, maxMessage)
		switch {
		case isNotExist(err):
			r.note(RepairAction{Mailbox: b.name, Path: path, Action: "expunge", Count: 1,
				What: fmt.Sprintf("UID %d, %d bytes, of %s: its file is missing", msg.UID, msg.Size, msg.InternalDate().UTC().Format("2006-01-02 15:04:05"))})
			if r.apply {
				if _, err := m.Expunge(ctx, NewUIDSet(msg.UID), false); err != nil {
					return err
				}
			}
		case err != nil:
			return ioErr("read", path, err)
		case int64(len(text)) == msg.FileSize() && checksum(text) == msg.rec.crc:
			continue // it was a passing trouble
		default:
			r.note(RepairAction{Mailbox: b.name, Path: path, Action: "refile", Count: 1,
				What: fmt.Sprintf("UID %d: the file is damaged: what is left of it, %d bytes, gets a new UID", msg.UID, len(text))})
			if r.apply {
				if err := r.refile(ctx, m, msg, text); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

func (r *repairer) refile(ctx context.Context, m *Mailbox, msg Message, text []byte) error {
	st, err := r.s.Stage(ctx, r.v.name, strings.NewReader(string(text)), 0)
	if err != nil {
		return err
	}
	defer st.Close()
	if _, err := m.Append(ctx, []AppendMessage{{Message: st, Flags: msg.Flags, Keywords: msg.Keywords, InternalDate: msg.InternalDate(), ThreadID: msg.ThreadID()}}); err != nil {
		return err
	}
	_, err = m.Expunge(ctx, NewUIDSet(msg.UID), false)
	return err
}

// known reads the contents of all messages of the account.
func (r *repairer) known(ctx context.Context) (map[[2]uint64]bool, error) {
	if r.content != nil {
		return r.content, nil
	}
	st, err := r.a.fresh(ctx)
	if err != nil {
		return nil, err
	}
	all := map[[2]uint64]bool{}
	for id := range st.boxes {
		src, err := r.s.readSource(r.v, r.a.dir+"/"+dirBoxes+"/"+id)
		if err != nil {
			continue // unreadable: its turn comes
		}
		for _, m := range src.state.All() {
			all[[2]uint64{uint64(m.FileSize()), uint64(m.rec.crc)}] = true
		}
	}
	r.content = all
	return all, nil
}

// orphans delivers files that no record names to Recovered.
func (r *repairer) orphans(ctx context.Context, from string, paths []string) error {
	if len(paths) == 0 {
		return nil
	}
	known, err := r.known(ctx)
	if err != nil {
		return err
	}
	src := &source{j: r.a.j}
	var take []restored
	for _, path := range paths {
		id, ok := parseMsgID(path[strings.LastIndexByte(path, '/')+1:], "")
		if !ok || known[[2]uint64{id.size, uint64(id.crc)}] {
			continue
		}
		i, err := r.v.fs.Lstat(path)
		if err != nil {
			continue // collected, or named, meanwhile
		}
		known[[2]uint64{id.size, uint64(id.crc)}] = true
		date := i.ModTime.Unix()
		rec := &msgRec{ctr: id.ctr, size: uint32(id.size), crc: id.crc, date: uint32(date), save: uint32(date)}
		take = append(take, restored{rec: rec, msg: Message{Size: int64(id.size), rec: rec, origin: id.origin}, path: path})
		r.note(RepairAction{Mailbox: from, Path: path, Action: "recover", Count: 1, What: fmt.Sprintf("%d bytes that no record names go to %s", id.size, RecoveredName)})
	}
	if !r.apply || len(take) == 0 {
		return nil
	}
	m, err := r.recovered(ctx)
	if err != nil {
		return err
	}
	return m.bringBack(ctx, src, take, &Restored{}, nil)
}

// recovered opens the mailbox Recovered, which it makes if need be.
func (r *repairer) recovered(ctx context.Context) (*Mailbox, error) {
	m, err := r.a.Open(ctx, RecoveredName)
	if !errors.Is(err, ErrNoMailbox) {
		return m, err
	}
	if _, err := r.a.Create(ctx, RecoveredName, CreateOptions{}); err != nil && !errors.Is(err, ErrMailboxExists) {
		return nil, err
	}
	if err := r.a.Subscribe(ctx, RecoveredName, true); err != nil {
		return nil, err
	}
	return r.a.Open(ctx, RecoveredName)
}

// accountLog makes an account's log readable again.
func (r *repairer) accountLog(ctx context.Context, p Problem) error {
	w, err := r.examine(accountKind, r.a.dir)
	if err != nil {
		return err
	}
	for _, n := range w.holes {
		r.note(RepairAction{Path: w.j.recordPath(n), Action: "fill", What: "a record of the list of mailboxes is missing: a record that says nothing takes its place"})
		if !r.apply {
			continue
		}
		nc := r.s.nextNonce()
		err := r.v.fs.Symlink(string(append(nc.append(nil), ' ', opNothing)), w.j.recordPath(n))
		if err != nil && !errors.Is(err, syscall.EEXIST) {
			return ioErr("symlink", w.j.recordPath(n), err)
		}
		if err := r.v.syncDir(w.j.segmentPath(w.j.segment(n))); err != nil {
			return err
		}
	}
	if len(w.broken) > 0 {
		r.note(RepairAction{Path: w.j.recordPath(w.broken[0]), Action: "checkpoint", Count: len(w.broken),
			What: fmt.Sprintf("%s: a snapshot of what the other records say stands for them from now on", p.What)})
		if r.apply {
			if err := r.checkpoint(w); err != nil {
				return err
			}
		}
	}
	if !r.apply {
		return nil
	}
	if err := r.a.j.begin(ctx); err != nil {
		return err
	}
	return r.unlisted(ctx)
}

// checkpoint writes a snapshot of all that can be read of an account's log.
func (r *repairer) checkpoint(w *wreck) error {
	fold, ok := w.j.fold.(*acctFold)
	if w.good == nil || !ok {
		fold = newAcctFold()
	}
	m := slices.Clone(w.j.marks)
	for i := range w.after {
		x := &w.after[i]
		if err := fold.apply(x.n, x.body, nil); err != nil && !errors.Is(err, ErrCorrupt) {
			return err
		}
		m.add(x.nonce, x.n)
	}
	st := fold.edit()
	st.n = w.tip
	if st.account == "" {
		st.account = r.a.id
	}
	m.trim()
	path := w.j.snapPath(w.tip)
	if _, err := w.j.loadSnapshot(w.tip); err != nil {
		if err := r.v.fs.Unlink(path); err != nil && !isNotExist(err) { // a torn one
			return ioErr("unlink", path, err)
		}
	}
	if err := w.j.linkSnapshot(w.tip, fold.publish().appendSnapshot(nil, m, w.j.other)); err != nil {
		return err
	}
	return w.j.makeDurable(w.tip)
}

// unlisted lists mailboxes that are in no list and were not deleted.
func (r *repairer) unlisted(ctx context.Context) error {
	st, err := r.a.fresh(ctx)
	if err != nil {
		return err
	}
	dir := r.a.dir + "/" + dirBoxes
	ids, err := r.v.fs.ReadDir(dir, nil)
	if err != nil {
		return ioErr("list", dir, err)
	}
	deleted := map[string]bool{}
	for _, d := range st.deleted {
		deleted[d.id] = true
	}
	for _, id := range ids {
		src, err := r.s.readSource(r.v, dir+"/"+id)
		if st.boxes[id] != nil || deleted[id] || err != nil || src.state.closed {
			continue
		}
		name := RecoveredName + "/" + strings.ReplaceAll(id, ".", "-")
		if st.names[Inbox] == "" && src.state.count == 0 {
			name = Inbox
		}
		r.note(RepairAction{Mailbox: name, Path: dir + "/" + id, Action: "list", Count: src.state.count, What: "a mailbox whose name is lost"})
		op := acctOp{kind: opCreate, id: id, validity: src.state.uidValidity, given: true, name: name}
		if _, _, err := r.a.commitOp(ctx, op); err != nil {
			return err
		}
	}
	if st, err = r.a.fresh(ctx); err == nil && st.names[Inbox] == "" {
		_, err = r.a.Create(ctx, Inbox, CreateOptions{})
	}
	return err
}

// rebuild makes a new mailbox of what can be read of one.
func (r *repairer) rebuild(ctx context.Context, b *acctBox, p Problem) error {
	dir := r.a.dir + "/" + dirBoxes + "/" + b.id
	w, err := r.examine(mailboxKind, dir)
	if err != nil {
		return err
	}
	paths, err := r.messageFiles(dir)
	if err != nil {
		return err
	}
	src := &source{j: w.j, state: newMailFold().s}
	if st, ok := w.good.(*State); ok {
		src.state = st
	}
	named := map[string]bool{}
	var take []restored
	missing := 0
	add := func(all []restored) {
		for _, x := range all {
			id := x.msg.msgID().String()
			if named[id] {
				continue
			}
			named[id] = true
			if x.path = paths[id]; x.path == "" {
				missing++
				continue
			}
			take = append(take, x)
		}
	}
	add(src.live())
	for _, x := range src.dead() {
		named[x.msg.msgID().String()] = true
	}
	add(deliveries(w.after, r.a.id))
	var rest []string
	for _, id := range slices.Sorted(maps.Keys(paths)) {
		if m, ok := parseMsgID(id, ""); ok && !named[id] && r.sound(paths[id], m) {
			rest = append(rest, paths[id])
		}
	}
	r.note(RepairAction{Mailbox: b.name, Path: dir, Action: "rebuild", Count: len(take),
		What: fmt.Sprintf("%s: a new mailbox with a new UIDVALIDITY gets %d messages; %d have no file any more; %d files that no readable record names go to %s; the old one goes to the trash",
			p.What, len(take), missing, len(rest), RecoveredName)})
	if !r.apply {
		return nil
	}
	if err := r.closeBehind(w); err != nil {
		return err
	}
	validity := src.state.uidValidity
	m, validity, err := r.a.unlisted(ctx, max(validity, b.validity))
	if err != nil {
		return err
	}
	if err := m.bringBack(ctx, src, take, &Restored{}, nil); err != nil {
		return err
	}
	if err := r.replace(ctx, b, m.id, validity); err != nil {
		return err
	}
	stamp := append(appendEscaped([]byte("name "), b.name), '\n')
	if err := writeFile(r.v.fs, dir+"/"+deletedStamp, stamp); err != nil {
		return ioErr("write", dir, err)
	}
	r.content = nil
	return r.orphans(ctx, b.name, rest)
}

// messageFiles lists the message files of a mailbox by name.
func (r *repairer) messageFiles(dir string) (map[string]string, error) {
	out := map[string]string{}
	m := dir + "/" + dirMessages
	parts, err := r.v.fs.ReadDir(m, nil)
	if err != nil && !isNotExist(err) {
		return nil, ioErr("list", m, err)
	}
	for _, k := range parts {
		names, err := r.v.fs.ReadDir(m+"/"+k, nil)
		if err != nil {
			return nil, ioErr("list", m+"/"+k, err)
		}
		for _, n := range names {
			out[n] = m + "/" + k + "/" + n
		}
	}
	return out, nil
}

func (r *repairer) sound(path string, id msgID) bool {
	b, err := readFile(r.v.fs, path, maxMessage)
	return err == nil && uint64(len(b)) == id.size && checksum(b) == id.crc
}

// replace changes the account's list from one mailbox to another of the same name, in one record.
func (r *repairer) replace(ctx context.Context, b *acctBox, id string, validity uint32) error {
	gone := acctOp{kind: opDelete, id: b.id, name: b.name}
	made := acctOp{kind: opCreate, id: id, validity: validity, given: true, name: b.name}
	for _, k := range sortedKeys(b.attrs) {
		made.attrs = append(made.attrs, attr{k, b.attrs[k]})
	}
	q1 := &request{done: make(chan struct{}), op: func(x []byte, _ *opContext) []byte { return gone.append(x) }}
	q2 := &request{done: make(chan struct{}), op: func(x []byte, _ *opContext) []byte { return made.append(x) }}
	err := r.a.j.drives(ctx, func() error {
		r.a.j.commit([]*request{q1, q2})
		return errors.Join(q1.err, q2.err)
	})
	if err != nil {
		return err
	}
	st, err := r.a.fresh(ctx)
	if err == nil && st.boxes[id] == nil {
		err = fmt.Errorf("%q was changed at the same time: %w: repair again", b.name, ErrUnavailable)
	}
	return err
}

// Renumber gives the mailbox a new UIDVALIDITY, and its messages UIDs from 1: after a volume was put back from a copy, so
// that no UID that clients know means another message. It returns the UIDVALIDITY.
func (m *Mailbox) Renumber(ctx context.Context) (uint32, error) {
	st, err := m.State(ctx)
	if err != nil {
		return 0, err
	}
	op := mailOp{kind: opRenumber, validity: m.j.store.newValidity(st.uidValidity)}
	if err := m.j.submit(ctx, &request{op: func(b []byte, x *opContext) []byte { return op.append(b, x.origin) }}); err != nil {
		return 0, m.wrap(err)
	}
	return op.validity, nil
}
