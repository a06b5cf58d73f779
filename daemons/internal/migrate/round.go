package migrate

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/emersion/go-imap/v2"

	"shoal/daemons/internal/dirclient"
	"shoal/daemons/internal/mailstore"
)

// round is one round of an account.
type round struct {
	m      *Migrator
	from   *dirclient.Migration
	acc    *dirclient.Account
	handle *mailstore.Account
	claim  *claim
	c      *old
	p      Progress
	told   time.Duration // when progress was written last
}

// Bounds of what one command may bring, beside what messages announce of their size.
const (
	allowance = 16 << 20
	perLine   = 1 << 10 // for a message's flags and date
)

// folder is a mailbox of the old server.
type folder struct {
	there, here string
	uses        []string
	subscribed  bool
}

// run copies what is new. password is empty where the master user's is used.
func (r *round) run(ctx context.Context, password string) error {
	if r.from.User != "" {
		password = ""
	} else if password == "" {
		return errors.New("nobody has logged in here, and there is no master user")
	}
	c, err := r.m.dial(ctx, r.from)
	if err != nil {
		return err
	}
	defer c.end()
	r.c = c
	if err := c.login(r.from, oldName(r.from, r.acc.Address), password); err != nil {
		return err
	}
	r.p.Phase, r.p.Error, r.p.Of, r.p.Left = PhaseCopying, "", 0, 0
	if err := r.tell(ctx, true); err != nil {
		return err
	}
	folders, err := r.folders()
	if err != nil {
		return fmt.Errorf("list mailboxes of the old server: %w", err)
	}
	for i := range folders {
		if err := r.folder(ctx, &folders[i]); err != nil {
			return fmt.Errorf("mailbox %q: %w", printable(folders[i].there), err)
		}
	}
	_ = c.Logout().Wait()
	return nil
}

// tell writes progress, unless it was written just now.
func (r *round) tell(ctx context.Context, now bool) error {
	if at := r.m.o.Clock.Boot(); now || at >= r.told+2*time.Second {
		r.told = at
		r.p.At, r.p.By = r.m.o.Clock.Now().UTC().Truncate(time.Second), r.m.o.Server
		return r.p.write(ctx, r.handle)
	}
	return nil
}

// specialUses are the attributes of LIST (RFC 6154) that are taken over. Mailboxes with \All and \Flagged only show messages of others.
var specialUses = map[string]string{`\archive`: "Archive", `\drafts`: "Drafts", `\junk`: "Junk", `\sent`: "Sent", `\trash`: "Trash"}

// folders lists what is to be copied, INBOX first.
func (r *round) folders() ([]folder, error) {
	r.c.conn.allow(allowance)
	caps := r.c.Caps()
	prefix, delim := "", rune(0)
	var foreign []string
	if caps.Has(imap.CapNamespace) {
		ns, err := r.c.Namespace().Wait()
		if err != nil {
			return nil, err
		}
		if len(ns.Personal) > 0 {
			prefix, delim = ns.Personal[0].Prefix, ns.Personal[0].Delim
		}
		for _, n := range slices.Concat(ns.Other, ns.Shared) {
			if n.Prefix != "" {
				foreign = append(foreign, n.Prefix)
			}
		}
	}
	options := &imap.ListOptions{}
	if caps.Has(imap.CapListExtended) {
		options.ReturnSubscribed = true
	}
	if caps.Has(imap.CapSpecialUse) {
		options.ReturnSpecialUse = caps.Has(imap.CapListExtended)
	}
	if *options == (imap.ListOptions{}) {
		options = nil
	}
	list, err := r.c.List("", "*", options).Collect()
	if err != nil {
		return nil, err
	}
	subscribed := map[string]bool{}
	if !caps.Has(imap.CapListExtended) {
		all, err := r.c.List("", "*", &imap.ListOptions{SelectSubscribed: true}).Collect() // the library writes LSUB where it must
		var refused *imap.Error
		if err != nil && !errors.As(err, &refused) {
			return nil, err
		}
		for _, b := range all {
			subscribed[b.Mailbox] = true
		}
	}
	var out []folder
	taken := map[string]bool{}
	for _, b := range list {
		f := folder{there: b.Mailbox, subscribed: subscribed[b.Mailbox]}
		skip := slices.ContainsFunc(foreign, func(p string) bool { return strings.HasPrefix(b.Mailbox, p) })
		for _, a := range b.Attrs {
			switch l := strings.ToLower(string(a)); l {
			case `\noselect`, `\nonexistent`, `\all`, `\flagged`, `\important`:
				skip = true
			case `\subscribed`:
				f.subscribed = true
			default:
				if u := specialUses[l]; u != "" {
					f.uses = append(f.uses, u)
				}
			}
		}
		if b.Delim != 0 {
			delim = b.Delim
		}
		f.here = nameHere(b.Mailbox, prefix, delim)
		if skip || f.here == "" || taken[f.here] {
			continue
		}
		taken[f.here] = true
		out = append(out, f)
	}
	slices.SortStableFunc(out, func(a, b folder) int {
		switch {
		case a.here == mailstore.Inbox && b.here != mailstore.Inbox:
			return -1
		case b.here == mailstore.Inbox && a.here != mailstore.Inbox:
			return 1
		}
		return strings.Compare(a.here, b.here)
	})
	return out, nil
}

// nameHere is the name of a mailbox here: without the prefix of the personal namespace, levels separated by "/".
func nameHere(name, prefix string, delim rune) string {
	if strings.EqualFold(name, mailstore.Inbox) {
		return mailstore.Inbox
	}
	if len(name) > len(prefix) && strings.EqualFold(name[:len(prefix)], prefix) {
		name = name[len(prefix):]
	}
	if delim != 0 && delim != mailstore.Delimiter {
		name = strings.ReplaceAll(name, "/", "_")
		name = strings.ReplaceAll(name, string(delim), "/")
	}
	if top, rest, deep := strings.Cut(name, "/"); strings.EqualFold(top, mailstore.Inbox) {
		if !deep {
			return mailstore.Inbox + "_" // another one than INBOX, on a server that tells them apart
		}
		name = mailstore.Inbox + "/" + rest
	}
	return name
}

// open gives the mailbox here and its mark, and makes both when they are not there. A nil mailbox: its owner has deleted it.
func (r *round) open(ctx context.Context, f *folder, validity uint32) (*mailstore.Mailbox, *mark, error) {
	k, err := readMark(ctx, r.handle, f.there)
	if err != nil {
		return nil, nil, err
	}
	if k == nil {
		k = &mark{Name: f.there, Validity: validity}
		if k.ID, err = r.make(ctx, f, validity); err != nil {
			return nil, nil, err
		}
		if err := k.write(ctx, r.handle); err != nil {
			return nil, nil, err
		}
	}
	box, err := r.handle.OpenID(ctx, k.ID)
	if errors.Is(err, mailstore.ErrNoMailbox) {
		return nil, k, nil
	}
	return box, k, err
}

// make gives the id of the mailbox here that takes a folder's messages.
func (r *round) make(ctx context.Context, f *folder, validity uint32) (string, error) {
	if f.here == mailstore.Inbox {
		_, err := r.m.o.Store.AdoptAccount(ctx, r.acc.Volume, r.acc.ID, mailstore.InboxOptions{UIDValidity: validity})
		if err != nil && !errors.Is(err, mailstore.ErrUIDValidity) { // mail has come already: new UIDs for what comes
			return "", err
		}
	} else {
		_, err := r.handle.Create(ctx, f.here, mailstore.CreateOptions{UIDValidity: validity, SpecialUse: f.uses})
		if err != nil && !errors.Is(err, mailstore.ErrMailboxExists) {
			return "", err
		}
		if f.subscribed {
			if err := r.handle.Subscribe(ctx, f.here, true); err != nil {
				return "", err
			}
		}
	}
	box, err := r.handle.Open(ctx, f.here)
	if err != nil {
		return "", err
	}
	return box.ID(), nil
}
