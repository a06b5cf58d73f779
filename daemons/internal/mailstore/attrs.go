package mailstore

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"strings"
	"unicode/utf8"
)

// Attributes of mailboxes and accounts (op A): texts by key, which the store keeps and does not understand. Packages above keep access
// lists and annotations in them. They belong to version 1.0, so every server keeps those that it does not know, in snapshots,
// renames and moves of the account.
//
// A key begins with a letter in lower case. Those of this package itself: attrSpecialUse of mailboxes, attrScript and attrScriptActive of
// the account.

// Bounds of attributes. What uses them has lower bounds of its own.
const (
	MaxAttrKey   = 2 << 10 // bytes of a key
	MaxAttrValue = 1 << 20 // bytes of a value
)

// ErrAttribute: no key or value that an attribute can have.
var ErrAttribute = errors.New("not a possible attribute")

// Attr is an attribute to set. An empty value removes it.
type Attr struct {
	Mailbox    string // id; empty: of the account
	Key, Value string
}

func (x *Attr) check() error {
	bad := func(why string) error { return fmt.Errorf("attribute %.60q: %w: %s", x.Key, ErrAttribute, why) }
	switch {
	case x.Key == "" || x.Key[0] < 'a' || x.Key[0] > 'z':
		return bad("a key begins with a letter in lower case")
	case len(x.Key) > MaxAttrKey || len(x.Value) > MaxAttrValue:
		return bad("too long")
	case !utf8.ValidString(x.Key) || !utf8.ValidString(x.Value):
		return bad("not UTF-8")
	case x.Mailbox != "" && !validMailboxID(x.Mailbox):
		return bad("no id of a mailbox")
	}
	return nil
}

// Listing is an account's list of mailboxes with all attributes, as of one commit. It never changes.
type Listing struct{ st *acctState }

// Listing reads the list as of now.
func (a *Account) Listing(ctx context.Context) (*Listing, error) {
	st, err := a.fresh(ctx)
	if err != nil {
		return nil, err
	}
	return &Listing{st}, nil
}

// KnownListing is the list as this server knows it, without asking the volume; nil when it knows nothing of it.
func (a *Account) KnownListing() *Listing {
	st := a.known()
	if st == nil || st.closed {
		return nil
	}
	return &Listing{st}
}

// ExistingAccount opens an account that is not made if it is not there: ErrNoAccount.
func (s *Store) ExistingAccount(ctx context.Context, volume, accountID string) (*Account, error) {
	v, err := s.volume(volume)
	if err != nil {
		return nil, err
	}
	if !validAccountID(accountID) {
		return nil, fmt.Errorf("account id %q: %w", accountID, ErrNoAccount)
	}
	a, err := s.existing(v, accountID)
	if err != nil {
		return nil, err
	}
	if a.known() == nil { // one look spares the four that it takes to be sure of what is not there
		err := v.do(ctx, func() error {
			_, err := v.fs.Lstat(a.dir)
			return err
		})
		if isNotExist(err) {
			return nil, fmt.Errorf("account %s: %w", accountID, ErrNoAccount)
		}
		if err != nil {
			return nil, ioErr("lstat", a.dir, err)
		}
	}
	if _, err := a.fresh(ctx); err != nil {
		return nil, err
	}
	return a, nil
}

// VolumeNames lists the volumes that the store has, in no order.
func (s *Store) VolumeNames() []string {
	var out []string
	for _, v := range s.allVolumes() {
		out = append(out, v.name)
	}
	return out
}

// Commit is the number of the record that the list is as of. It grows with each change.
func (l *Listing) Commit() uint64 { return l.st.n }

// Mailboxes lists the mailboxes, sorted by name.
func (l *Listing) Mailboxes() []MailboxInfo { return l.st.list() }

// Mailbox finds a mailbox by name.
func (l *Listing) Mailbox(name string) (MailboxInfo, bool) {
	return l.MailboxByID(l.st.names[canonicalName(name)])
}

// MailboxByID finds a mailbox by id.
func (l *Listing) MailboxByID(id string) (MailboxInfo, bool) {
	b := l.st.boxes[id]
	if b == nil {
		return MailboxInfo{}, false
	}
	return b.info(l.st), true
}

// OpenListed opens a mailbox of the list without asking whether it is still there: the mailbox itself says so when it is used. ErrNoMailbox.
func (a *Account) OpenListed(ctx context.Context, l *Listing, id string) (*Mailbox, error) {
	if l.st.boxes[id] == nil {
		return nil, fmt.Errorf("mailbox %q: %w", id, ErrNoMailbox)
	}
	return a.listed(ctx, id)
}

// canonicalName is a name as the list has it; one that cannot be is as it is.
func canonicalName(name string) string {
	if n, err := mailboxName(name); err == nil {
		return n
	}
	return name
}

// Subscriptions lists the subscribed names, in no order.
func (l *Listing) Subscriptions() []string {
	out := make([]string, 0, len(l.st.subscribed))
	for n := range l.st.subscribed {
		out = append(out, n)
	}
	return out
}

func (l *Listing) attrs(mailbox string) map[string]string {
	if mailbox == "" {
		return l.st.attrs
	}
	if b := l.st.boxes[mailbox]; b != nil {
		return b.attrs
	}
	return nil
}

// Attr is the value of an attribute of a mailbox, by id, or of the account, for an empty id. Empty: there is none.
func (l *Listing) Attr(mailbox, key string) string { return l.attrs(mailbox)[key] }

// Attrs are the attributes of a mailbox, or of the account for an empty id, whose keys begin with prefix, which is taken off.
func (l *Listing) Attrs(mailbox, prefix string) map[string]string {
	var out map[string]string
	for key, value := range l.attrs(mailbox) {
		if rest, ok := strings.CutPrefix(key, prefix); ok {
			if out == nil {
				out = map[string]string{}
			}
			out[rest] = value
		}
	}
	return out
}

// SetAttrs sets attributes in one commit: all or none. Those of a mailbox that is deleted meanwhile go with it. ErrAttribute,
// ErrNoMailbox.
func (a *Account) SetAttrs(ctx context.Context, attrs ...Attr) error {
	if len(attrs) == 0 {
		return nil
	}
	st, err := a.fresh(ctx)
	if err != nil {
		return err
	}
	l := Listing{st}
	ops := make([]acctOp, 0, len(attrs))
	for i := range attrs {
		x := &attrs[i]
		if err := x.check(); err != nil {
			return err
		}
		if x.Mailbox != "" && st.boxes[x.Mailbox] == nil {
			return fmt.Errorf("mailbox %q: %w", x.Mailbox, ErrNoMailbox)
		}
		if len(attrs) == 1 && l.Attr(x.Mailbox, x.Key) == x.Value {
			return nil
		}
		id := x.Mailbox
		if id == "" {
			id = "-"
		}
		ops = append(ops, acctOp{kind: opAttribute, id: id, key: x.Key, value: x.Value})
	}
	return a.commitOps(ctx, ops)
}

// commitOps commits several ops in one record.
func (a *Account) commitOps(ctx context.Context, ops []acctOp) error {
	q := &request{extra: len(ops) - 1, op: func(b []byte, _ *opContext) []byte {
		for i := range ops {
			if i > 0 {
				b = append(b, '|')
			}
			b = ops[i].append(b)
		}
		return b
	}}
	if err := a.j.submit(ctx, q); err != nil {
		if errors.Is(err, ErrMailboxClosed) {
			return fmt.Errorf("account %s: %w: %w", a.id, ErrNoAccount, err)
		}
		return fmt.Errorf("account %s: %w", a.id, err)
	}
	return nil
}

// createAttrs are the attributes that a mailbox is made with.
func createAttrs(o *CreateOptions) ([]attr, error) {
	uses, err := specialUses(o.SpecialUse)
	if err != nil {
		return nil, err
	}
	var out []attr
	if uses != "" {
		out = append(out, attr{attrSpecialUse, uses})
	}
	for _, key := range sortedKeys(o.Attrs) {
		x := Attr{Key: key, Value: o.Attrs[key]}
		if err := x.check(); err != nil {
			return nil, err
		}
		if key == attrSpecialUse || key == "g" { // "g" is an option of the op, no attribute
			return nil, fmt.Errorf("attribute %q: %w: it has a meaning of its own", key, ErrAttribute)
		}
		out = append(out, attr{key, x.Value})
	}
	return out, nil
}

// attrBytes is what attributes take in memory, roughly.
func attrBytes(m map[string]string) (n int64) {
	for k, v := range maps.All(m) {
		n += int64(len(k)+len(v)) + 48
	}
	return n
}
