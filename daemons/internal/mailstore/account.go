package mailstore

import (
	"context"
	"errors"
	"fmt"
	"sort"
	"strings"
	"syscall"
	"unicode/utf8"
)

// Account is one account on one volume. Handles are cheap and may be used from any goroutine.
type Account struct {
	s   *Store
	vol *volume
	id  string
	dir string
	j   *journal
}

// Delimiter separates the levels of mailbox names.
const Delimiter = '/'

// Inbox is the name of the mailbox that every account has.
const Inbox = "INBOX"

// maxName bounds a mailbox name, in bytes.
const maxName = 1024

// MailboxInfo describes a mailbox in an account's list.
type MailboxInfo struct {
	ID          string
	Name        string // UTF-8, levels separated by Delimiter; INBOX in capitals
	UIDValidity uint32
	Subscribed  bool
	SpecialUse  []string // without backslash: "Sent", "Drafts" ... (RFC 6154)
}

// Account opens an account, and creates its directory with an INBOX on first use. ErrNoAccount when it
// was deleted.
func (s *Store) Account(ctx context.Context, volume, accountID string) (*Account, error) {
	v, err := s.volume(volume)
	if err != nil {
		return nil, err
	}
	if !validAccountID(accountID) {
		return nil, fmt.Errorf("account id %q: want 8 to 40 of a-z, 0-9 and -: %w", accountID, ErrNoAccount)
	}
	dir := accountPath(v.root, accountID)
	a := &Account{s: s, vol: v, id: accountID, dir: dir}
	a.j = s.journal(v, accountKind, dir, Ref{Volume: volume, Account: accountID})
	st := a.known()
	for try := 0; st == nil; try++ {
		x, err := a.j.read(ctx)
		switch {
		case err == nil:
			st = x.(*acctState)
		case errors.Is(err, errGone) && try == 0:
			if err := v.do(ctx, func() error { return a.make(InboxOptions{}) }); err != nil {
				return nil, fmt.Errorf("account %s: %w", accountID, err)
			}
		default:
			return nil, fmt.Errorf("account %s: %w", accountID, err)
		}
	}
	if st.closed {
		// It may have been moved away and back again since.
		if st, err = a.reopen(ctx); err != nil {
			return nil, err
		}
		if st.closed {
			return nil, a.closedError(st)
		}
	}
	return a, nil
}

// ID is the account's id.
func (a *Account) ID() string { return a.id }

// Volume is the name of the account's volume.
func (a *Account) Volume() string { return a.vol.name }

// Ref names the account's list of mailboxes.
func (a *Account) Ref() Ref { return a.j.ref }

// known returns the list as this server knows it, or nil.
func (a *Account) known() *acctState {
	if p := a.j.pub.Load(); p != nil {
		return p.state.(*acctState)
	}
	return nil
}

// fresh returns the list as of now.
func (a *Account) fresh(ctx context.Context) (*acctState, error) {
	x, err := a.j.read(ctx)
	if err != nil {
		if errors.Is(err, errGone) {
			return nil, fmt.Errorf("account %s: %w", a.id, ErrNoAccount)
		}
		return nil, fmt.Errorf("account %s: %w", a.id, err)
	}
	st := x.(*acctState)
	if st.closed {
		return nil, a.closedError(st)
	}
	return st, nil
}

// make builds the account in a directory of its own and then gives it its name: it is never seen half
// made, and of two servers that do the same one wins.
func (a *Account) make(o InboxOptions) error {
	v := a.vol
	// An empty mount point looks like a volume without the account.
	if err := v.present(); err != nil {
		return err
	}
	tmp := v.root + "/tmp/" + a.s.nextNonce().String()
	box := a.s.nextNonce()
	validity := o.UIDValidity
	if validity == 0 {
		validity = a.s.newValidity(0)
	}
	t := tree{v: v}
	t.mkdir(tmp)
	t.mkdir(tmp + "/" + dirBoxes)
	t.mailbox(tmp+"/"+dirBoxes+"/"+box.String(), a.s, a.id, box.String(), validity, o.ModSeqBase)
	ops := []acctOp{
		{kind: opOptions, options: mailOptions{major: formatMajor, minor: formatMinor, account: a.id}},
		{kind: opCreate, id: box.String(), validity: validity, name: Inbox},
		{kind: opSubscribe, name: Inbox},
	}
	b := append(a.s.nextNonce().append(nil), ' ')
	for i := range ops {
		if i > 0 {
			b = append(b, '|')
		}
		b = ops[i].append(b)
	}
	t.log(tmp, string(b))
	t.sync(tmp + "/" + dirBoxes)
	t.sync(tmp)
	if t.err != nil {
		_ = v.removeAll(tmp)
		return t.err
	}
	parent := a.dir[:strings.LastIndexByte(a.dir, '/')]
	err := v.fs.Rename(tmp, a.dir)
	if errors.Is(err, syscall.ENOENT) {
		// The parent is missing, or an earlier try went through and its reply was lost.
		if e := v.fs.Mkdir(parent); e == nil {
			if e := v.orderDir(v.root + "/a"); e != nil {
				return e
			}
		}
		err = v.fs.Rename(tmp, a.dir)
	}
	if err != nil {
		if _, e := v.fs.Lstat(a.dir); e == nil {
			err = nil // somebody else's, or ours after all
		}
		_ = v.removeAll(tmp)
	}
	if err != nil {
		return ioErr("rename", tmp, err)
	}
	return ioErr("sync", parent, v.syncDir(parent))
}

// newValidity returns a UIDVALIDITY above all that the account has given out.
func (s *Store) newValidity(highest uint32) uint32 {
	now := uint32(max(s.clk.Now().Unix(), 1))
	return max(now, highest+1)
}

// tree makes directories, remembering the first error.
type tree struct {
	v   *volume
	err error
}

func (t *tree) mkdir(path string) {
	if t.err == nil {
		t.err = ioErr("mkdir", path, t.v.fs.Mkdir(path))
	}
}

func (t *tree) sync(path string) {
	if t.err == nil {
		t.err = t.v.orderDir(path)
	}
}

// log makes the directories of a log in dir, with a first record.
func (t *tree) log(dir, record string) {
	t.mkdir(dir + "/" + dirSnap)
	t.mkdir(dir + "/" + dirInterest)
	t.mkdir(dir + "/" + dirTmp)
	t.mkdir(dir + "/" + dirLog)
	t.mkdir(dir + "/" + dirLog + "/0")
	if t.err == nil {
		path := dir + "/" + dirLog + "/0/1"
		t.err = ioErr("symlink", path, t.v.fs.Symlink(record, path))
	}
	t.sync(dir + "/" + dirLog + "/0")
	t.sync(dir + "/" + dirLog)
}

// mailbox makes a whole mailbox in dir.
func (t *tree) mailbox(dir string, s *Store, account, id string, validity uint32, base uint64) {
	t.mkdir(dir)
	t.mkdir(dir + "/" + dirMessages)
	t.mkdir(dir + "/" + dirMessages + "/0")
	op := mailOp{kind: opOptions, options: mailOptions{
		major: formatMajor, minor: formatMinor, uidValidity: validity, base: base, account: account, id: id}}
	nc := s.nextNonce()
	t.log(dir, string(op.append(append(nc.append(nil), ' '), nc.origin)))
	t.sync(dir + "/" + dirMessages)
	t.sync(dir)
}

// mailboxName checks a name and puts INBOX into capitals.
func mailboxName(name string) (string, error) {
	bad := func(why string) (string, error) {
		return "", fmt.Errorf("%.60q: %w: %s", name, ErrMailboxName, why)
	}
	switch {
	case name == "":
		return bad("it is empty")
	case len(name) > maxName:
		return bad(fmt.Sprintf("longer than %d bytes", maxName))
	case !utf8.ValidString(name):
		return bad("not UTF-8")
	}
	for level := range strings.SplitSeq(name, string(Delimiter)) {
		if level == "" {
			return bad("an empty level")
		}
	}
	for _, r := range name {
		if r < ' ' || r >= 0x7f && r < 0xa0 || r == 0x2028 || r == 0x2029 {
			return bad("a control character")
		}
	}
	if first, rest, more := strings.Cut(name, string(Delimiter)); strings.EqualFold(first, Inbox) {
		if !more {
			return Inbox, nil
		}
		return Inbox + string(Delimiter) + rest, nil
	}
	return name, nil
}

// Mailboxes lists the mailboxes, sorted by name.
func (a *Account) Mailboxes(ctx context.Context) ([]MailboxInfo, error) {
	st, err := a.fresh(ctx)
	if err != nil {
		return nil, err
	}
	return st.list(), nil
}

// Subscriptions lists the subscribed names, sorted; a name may belong to no mailbox.
func (a *Account) Subscriptions(ctx context.Context) ([]string, error) {
	st, err := a.fresh(ctx)
	if err != nil {
		return nil, err
	}
	out := make([]string, 0, len(st.subscribed))
	for n := range st.subscribed {
		out = append(out, n)
	}
	sort.Strings(out)
	return out, nil
}

// commitOp commits one op to the account's log and tells whether it had an effect.
func (a *Account) commitOp(ctx context.Context, op acctOp) (done bool, st *acctState, err error) {
	q := &request{op: func(b []byte, _ *opContext) []byte { return op.append(b) }}
	if err := a.j.submit(ctx, q); err != nil {
		if errors.Is(err, ErrMailboxClosed) {
			return false, nil, fmt.Errorf("account %s: %w: %w", a.id, ErrNoAccount, err)
		}
		return false, nil, fmt.Errorf("account %s: %w", a.id, err)
	}
	st = q.state.(*acctState)
	if q.acct.resolved {
		return q.acct.done, st, nil
	}
	// The record is in the history, but only a snapshot has it still: judge by the outcome.
	switch op.kind {
	case opCreate:
		done = st.boxes[op.id] != nil
	case opRename:
		b := st.boxes[op.id]
		done = b != nil && b.name == op.newName
	case opDelete:
		done = st.boxes[op.id] == nil
	default:
		done = true
	}
	return done, st, nil
}

// CreateOptions for Create.
type CreateOptions struct {
	SpecialUse []string
	Attrs      map[string]string // attributes, set with the mailbox in one commit
	// UIDValidity given by the caller (adoption, restore); 0: a new one.
	UIDValidity uint32
	// ModSeqBase is added to all mod-sequences of the mailbox (adoption of a store that had higher ones).
	ModSeqBase uint64
}

// Create makes a mailbox. ErrMailboxExists, ErrMailboxName.
func (a *Account) Create(ctx context.Context, name string, o CreateOptions) (MailboxInfo, error) {
	name, err := mailboxName(name)
	if err != nil {
		return MailboxInfo{}, err
	}
	for range 100 {
		st, err := a.fresh(ctx)
		if err != nil {
			return MailboxInfo{}, err
		}
		if st.names[name] != "" {
			return MailboxInfo{}, fmt.Errorf("%q: %w", name, ErrMailboxExists)
		}
		op := acctOp{kind: opCreate, id: a.s.nextNonce().String(), validity: o.UIDValidity, given: o.UIDValidity != 0, name: name}
		if !op.given {
			op.validity = a.s.newValidity(st.maxValidity)
		}
		if op.attrs, err = createAttrs(&o); err != nil {
			return MailboxInfo{}, err
		}
		dir := a.dir + "/" + dirBoxes + "/" + op.id
		began := a.vol.clk.Boot()
		err = a.vol.do(ctx, func() error {
			t := tree{v: a.vol}
			t.mailbox(dir, a.s, a.id, op.id, op.validity, o.ModSeqBase)
			t.sync(a.dir + "/" + dirBoxes)
			return t.err
		})
		var done bool
		if err == nil {
			done, st, err = a.commitOp(ctx, op)
		}
		if err == nil && done && a.vol.clk.Boot()-began > recheckAfter {
			// So slow that the mailbox may have been taken for abandoned, and closed.
			if _, err := a.mailbox(op.id).State(ctx); err != nil {
				_, _, _ = a.commitOp(ctx, acctOp{kind: opDelete, id: op.id, name: name})
				return MailboxInfo{}, err
			}
		}
		if err == nil && done {
			return st.boxes[op.id].info(st), nil
		}
		if err == nil || !isUnknown(err) {
			_ = a.vol.do(ctx, func() error { return a.vol.removeAll(dir) })
		}
		if err != nil {
			return MailboxInfo{}, err
		}
		// Somebody took the name, or another mailbox got a higher UIDVALIDITY: look again.
	}
	return MailboxInfo{}, fmt.Errorf("create %q: %w: too many at once", name, ErrUnavailable)
}

// specialUses joins special uses for storing.
func specialUses(uses []string) (string, error) {
	out := append([]string(nil), uses...)
	for i, u := range out {
		u = strings.TrimPrefix(u, `\`)
		if u == "" || len(u) > 64 || !isAtom(u) {
			return "", fmt.Errorf("special use %.60q: %w", uses[i], ErrMailboxName)
		}
		out[i] = u
	}
	sort.Strings(out)
	return strings.Join(out, ","), nil
}

func isAtom(s string) bool {
	for i := 0; i < len(s); i++ {
		c := s[i]
		if !(c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '-' || c == '_') {
			return false
		}
	}
	return true
}

// Rename renames a mailbox and all below it in one commit. Renaming INBOX moves its messages to a new
// mailbox and leaves INBOX empty (RFC 9051 §6.3.6). ErrNoMailbox, ErrMailboxExists, ErrMailboxName.
func (a *Account) Rename(ctx context.Context, from, to string) error {
	from, err := mailboxName(from)
	if err != nil {
		return err
	}
	if to, err = mailboxName(to); err != nil {
		return err
	}
	if from == to {
		return fmt.Errorf("%q: %w", to, ErrMailboxExists)
	}
	if from == Inbox {
		return a.renameInbox(ctx, to)
	}
	if below(to, from) {
		return fmt.Errorf("%q lies below %q: %w", to, from, ErrMailboxName)
	}
	for range 100 {
		st, err := a.fresh(ctx)
		if err != nil {
			return err
		}
		if err := st.canRename(from, to); err != nil {
			return err
		}
		op := acctOp{kind: opRename, id: st.names[from], name: from, newName: to}
		if op.id == "" {
			op.id = "-"
		}
		done, _, err := a.commitOp(ctx, op)
		if err != nil || done {
			return err
		}
	}
	return fmt.Errorf("rename %q: %w: too many at once", from, ErrUnavailable)
}

// canRename says why a rename would have no effect.
func (s *acctState) canRename(from, to string) error {
	found := false
	for name := range s.names {
		if name == from || below(name, from) {
			found = true
			if n := to + name[len(from):]; s.names[n] != "" {
				return fmt.Errorf("%q: %w", n, ErrMailboxExists)
			}
		}
	}
	if !found {
		return fmt.Errorf("%q: %w", from, ErrNoMailbox)
	}
	return nil
}

func (a *Account) renameInbox(ctx context.Context, to string) error {
	l, err := a.Listing(ctx)
	if err != nil {
		return err
	}
	// Access list and annotations stay, and go along (RFC 5464 §4.1).
	attrs := l.Attrs(l.st.names[Inbox], "")
	delete(attrs, attrSpecialUse)
	if _, err := a.Create(ctx, to, CreateOptions{Attrs: attrs}); err != nil {
		return err
	}
	src, err := a.Open(ctx, Inbox)
	if err != nil {
		return err
	}
	dst, err := a.Open(ctx, to)
	if err != nil {
		return err
	}
	_, err = src.MoveTo(ctx, UIDSet{{1, MaxUID}}, dst)
	return err
}

// Delete deletes a mailbox with its messages; they stay in the trash for the retention. Mailboxes below
// it stay where they are. ErrNoMailbox, ErrInbox.
func (a *Account) Delete(ctx context.Context, name string) error {
	name, err := mailboxName(name)
	if err != nil {
		return err
	}
	if name == Inbox {
		return ErrInbox
	}
	st, err := a.fresh(ctx)
	if err != nil {
		return err
	}
	id := st.names[name]
	if id == "" {
		return fmt.Errorf("%q: %w", name, ErrNoMailbox)
	}
	done, _, err := a.commitOp(ctx, acctOp{kind: opDelete, id: id, name: name})
	if err != nil {
		return err
	}
	if !done {
		return fmt.Errorf("%q: %w", name, ErrNoMailbox) // renamed or deleted since
	}
	// From here on the mailbox is deleted; if this server dies now, the background work of any other
	// finishes the rest.
	if err := a.bury(ctx, id, name); err != nil {
		return &unknownError{fmt.Errorf("deleted, but: %w", err)}
	}
	return nil
}

// Subscribe adds name to the subscriptions, or removes it. The name need not exist.
func (a *Account) Subscribe(ctx context.Context, name string, on bool) error {
	name, err := mailboxName(name)
	if err != nil {
		return err
	}
	st, err := a.fresh(ctx)
	if err != nil || st.subscribed[name] == on {
		return err
	}
	kind := byte(opSubscribe)
	if !on {
		kind = opUnsubscribe
	}
	_, _, err = a.commitOp(ctx, acctOp{kind: kind, name: name})
	return err
}

// SetSpecialUse replaces the special uses of a mailbox. ErrNoMailbox.
func (a *Account) SetSpecialUse(ctx context.Context, name string, uses []string) error {
	value, err := specialUses(uses)
	if err != nil {
		return err
	}
	m, err := a.find(ctx, name)
	if err != nil {
		return err
	}
	_, st, err := a.commitOp(ctx, acctOp{kind: opAttribute, id: m.id, key: attrSpecialUse, value: value})
	if err == nil && st.boxes[m.id] == nil {
		err = fmt.Errorf("%q: %w", name, ErrNoMailbox)
	}
	return err
}

func (a *Account) find(ctx context.Context, name string) (*acctBox, error) {
	name, err := mailboxName(name)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrNoMailbox, err)
	}
	st, err := a.fresh(ctx)
	if err != nil {
		return nil, err
	}
	b := st.boxes[st.names[name]]
	if b == nil {
		return nil, fmt.Errorf("%q: %w", name, ErrNoMailbox)
	}
	return b, nil
}

// Open opens a mailbox by name. ErrNoMailbox.
func (a *Account) Open(ctx context.Context, name string) (*Mailbox, error) {
	b, err := a.find(ctx, name)
	if err != nil {
		return nil, err
	}
	return a.listed(ctx, b.id)
}

// OpenID opens a mailbox by its id. ErrNoMailbox.
func (a *Account) OpenID(ctx context.Context, id string) (*Mailbox, error) {
	st, err := a.fresh(ctx)
	if err != nil {
		return nil, err
	}
	if st.boxes[id] == nil {
		return nil, fmt.Errorf("mailbox %q: %w", id, ErrNoMailbox)
	}
	return a.listed(ctx, id)
}

func (a *Account) mailbox(id string) *Mailbox {
	dir := a.dir + "/" + dirBoxes + "/" + id
	ref := Ref{Volume: a.vol.name, Account: a.id, Mailbox: id}
	return &Mailbox{a: a, id: id, j: a.s.journal(a.vol, mailboxKind, dir, ref)}
}

// Watch wakes the caller when the list of mailboxes may have changed.
func (a *Account) Watch(ctx context.Context) (*Watcher, error) { return a.j.addWatcher(ctx, nil) }

// WatchFunc is Watch for callers that have no goroutine to spare: see Mailbox.WatchFunc.
func (a *Account) WatchFunc(ctx context.Context, wake func()) (*Watcher, error) {
	return a.j.addWatcher(ctx, wake)
}
