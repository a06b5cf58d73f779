package imapsession

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"strings"
	"sync/atomic"

	"shoal/daemons/internal/imapwire"
	"shoal/daemons/internal/mailstore"
	"shoal/daemons/internal/sharing"
)

// notify is what a client has asked for with NOTIFY (RFC 5465). A session has none until the command is used, and costs nothing
// for it then.
//
// The account's log is watched for names and subscriptions, the log of each mailbox that has events of messages for these. A
// watch sets a mark and signals the session, which looks at what is marked and compares it with what it knew. What was
// committed anywhere is seen in that way: by a hint, or, when the hint is lost, by the slow re-check of the store.
type notify struct {
	groups  []imapwire.NotifyGroup // about others than the selected mailbox
	sel     imapwire.NotifyEvents  // of the selected mailbox
	delayed bool                   // SELECTED-DELAYED
	fetch   []imapwire.FetchItem   // what is told of new messages in the selected mailbox

	events imapwire.NotifyEvents  // of all groups
	wide   bool                   // mailboxes of others may be meant
	shared func(name string) bool // a name is of somebody else's mailbox

	list   *mailstore.Watcher // of the account's log; nil: there are no groups
	listed atomic.Bool        // the list may have changed
	names  map[string]*noted  // all mailboxes, by id
	subs   map[string]bool    // subscribed names
	owners map[string]*owner  // accounts of others that are watched, by id
	notes  notesTold          // annotations
}

// owner is somebody else's account that is watched for names and rights.
type owner struct {
	acc     *mailstore.Account
	watch   *mailstore.Watcher
	listing *mailstore.Listing // annotations are told up to here; nil: not yet
}

// noted is a mailbox as the client of NOTIFY knows it.
type noted struct {
	name   string
	place  *place // of somebody else's mailbox
	events imapwire.NotifyEvents
	mb     *mailstore.Mailbox
	watch  *mailstore.Watcher // nil: no events of messages
	dirty  atomic.Bool        // there may be news
	last   mark
}

// mark is how far a mailbox has been told.
type mark struct {
	modSeq         uint64
	messages       int
	unseen         int
	next, validity uint32
}

func markOf(st *mailstore.State) mark {
	return mark{modSeq: st.ModSeq(), messages: st.Len(), unseen: st.Unseen(), next: st.UIDNext(), validity: st.UIDValidity()}
}

// errNotifications refuses more mailboxes than are watched for one connection.
var errNotifications = no("NOTIFICATIONOVERFLOW", "Too many mailboxes to be watched for one connection")

// close ends all watches. It may be called on nil.
func (n *notify) close() {
	if n == nil {
		return
	}
	if n.list != nil {
		n.list.Close()
	}
	for _, b := range n.names {
		b.unwatch()
	}
	for _, o := range n.owners {
		o.watch.Close()
	}
}

// readable reports whether the user may read the mailbox, which all events of messages need (RFC 5465 §5).
func (b *noted) readable() bool { return b.place == nil || b.place.rights.Has(sharing.Read) }

// mayCover reports whether mailboxes of others may be meant, for mailboxTree.
func (n *notify) mayCover(string) bool { return n.wide }

// newNotify takes the groups.
func (s *session) newNotify(groups []imapwire.NotifyGroup) *notify {
	n := &notify{shared: func(name string) bool { _, _, ok := s.sharedName(name); return ok }}
	for _, g := range groups {
		if g.Scope <= imapwire.NotifyDelayed {
			n.sel, n.delayed, n.fetch = g.Events, g.Scope == imapwire.NotifyDelayed, g.Fetch
			continue
		}
		if g.Events == 0 {
			continue
		}
		n.groups = append(n.groups, g)
		n.events |= g.Events
		n.wide = n.wide || g.Scope == imapwire.NotifySubscribed || slices.ContainsFunc(g.Mailboxes, n.shared)
	}
	return n
}

func (b *noted) unwatch() {
	if b.watch != nil {
		b.watch.Close()
		b.watch = nil
	}
}

// wanted are the events that the groups ask for of a mailbox.
func (n *notify) wanted(name string, subscribed bool) (events imapwire.NotifyEvents) {
	for i := range n.groups {
		if n.groups[i].Events&^events != 0 && n.covers(&n.groups[i], name, subscribed) {
			events |= n.groups[i].Events
		}
	}
	return events
}

func (n *notify) covers(g *imapwire.NotifyGroup, name string, subscribed bool) bool {
	switch g.Scope {
	case imapwire.NotifyInboxes, imapwire.NotifyPersonal: // scripts may deliver to any (RFC 5465 §6.3)
		return !n.shared(name)
	case imapwire.NotifySubscribed:
		return subscribed
	case imapwire.NotifyMailboxes:
		return slices.Contains(g.Mailboxes, name)
	}
	return slices.ContainsFunc(g.Mailboxes, func(top string) bool {
		return name == top || strings.HasPrefix(name, top) && name[len(top)] == separator
	})
}

// watchList begins to watch the account and all mailboxes that are asked for.
func (s *session) watchList(ctx context.Context, n *notify) (err error) {
	n.list, err = s.acc.WatchFunc(ctx, func() {
		n.listed.Store(true)
		s.signal(eventNotify)
	})
	if err != nil {
		return err
	}
	nodes, err := s.mailboxTree(ctx, true, n.mayCover)
	if err != nil {
		return err
	}
	n.names, n.subs, n.owners = map[string]*noted{}, map[string]bool{}, map[string]*owner{}
	if err := s.beginNotes(ctx, n); err != nil {
		return err
	}
	for _, d := range nodes {
		if d.id != "" {
			n.names[d.id] = &noted{name: d.name, place: d.others()}
		}
		if d.subscribed {
			n.subs[d.name] = true
		}
	}
	if err := s.watchOwners(ctx, n); err != nil {
		return err
	}
	return s.watchBoxes(ctx, n, nil)
}

// others is where the mailbox of a name lies, if it is somebody else's.
func (n *node) others() *place {
	if n.place != nil && n.place.foreign {
		return n.place
	}
	return nil
}

// watchOwners watches the accounts of others whose mailboxes are asked for, also of those that the user may not look up now.
func (s *session) watchOwners(ctx context.Context, n *notify) error {
	if !n.wide {
		return nil
	}
	accounts := map[string]*mailstore.Account{}
	add := func(name string) {
		if !n.shared(name) {
			return
		}
		if p, err := s.place(ctx, name); err == nil {
			accounts[p.acc.ID()] = p.acc
		}
	}
	for _, b := range n.names {
		if b.place != nil && n.wanted(b.name, n.subs[b.name]) != 0 {
			accounts[b.place.acc.ID()] = b.place.acc
		}
	}
	for _, g := range n.groups {
		for _, name := range g.Mailboxes {
			add(name)
		}
		if g.Scope == imapwire.NotifySubscribed {
			for name := range n.subs {
				add(name)
			}
		}
	}
	if len(accounts) > s.srv.limits().NotifyMailboxes {
		return errNotifications
	}
	for id, acc := range accounts {
		if n.owners[id] != nil {
			continue
		}
		watch, err := acc.WatchFunc(ctx, func() {
			n.listed.Store(true)
			s.signal(eventNotify)
		})
		if err != nil {
			return err
		}
		n.owners[id] = &owner{acc: acc, watch: watch}
		if n.owners[id].listing, err = acc.Listing(ctx); err != nil {
			return err
		}
	}
	return nil
}

// watchBoxes watches the mailboxes that are asked for, and no others. created are those that were not there before: what is in
// them is news.
func (s *session) watchBoxes(ctx context.Context, n *notify, created map[string]bool) error {
	count := 0
	for _, b := range n.names {
		if b.events = n.wanted(b.name, n.subs[b.name]); !b.readable() {
			b.events &^= imapwire.NotifyMessages
		}
		if b.events&imapwire.NotifyMessages != 0 {
			count++
		}
	}
	if count > s.srv.limits().NotifyMailboxes {
		return errNotifications
	}
	for id, b := range n.names {
		if b.events&imapwire.NotifyMessages == 0 {
			b.unwatch()
			continue
		}
		if b.watch != nil {
			continue
		}
		if err := s.watchBox(ctx, b, id, created[id]); err != nil && !isGone(err) {
			return err
		}
	}
	return nil
}

func (s *session) watchBox(ctx context.Context, b *noted, id string, fresh bool) (err error) {
	switch {
	case b.mb != nil:
	case b.place != nil:
		b.mb, err = b.place.acc.OpenListed(ctx, b.place.listing, id)
	default:
		b.mb, err = s.acc.OpenID(ctx, id)
	}
	if err != nil {
		return err
	}
	b.watch, err = b.mb.WatchFunc(ctx, func() {
		b.dirty.Store(true)
		s.signal(eventNotify)
	})
	if err != nil {
		return err
	}
	st, err := b.mb.State(ctx)
	if err != nil {
		b.unwatch()
		return err
	}
	if b.last = markOf(st); fresh {
		b.last = mark{next: 1, validity: b.last.validity}
		b.dirty.Store(true)
	}
	return nil
}

// isGone reports whether a mailbox was deleted meanwhile, which the account's log tells too.
func isGone(err error) bool {
	return !errors.Is(err, mailstore.ErrMoved) && (errors.Is(err, mailstore.ErrNoMailbox) || errors.Is(err, mailstore.ErrMailboxClosed))
}

// following reports whether changes of the selected mailbox are told as they happen.
func (s *session) following() bool { return s.idling || s.note != nil && s.note.sel != 0 }

// heeds are the events of the selected mailbox that are told; without NOTIFY all.
func (s *session) heeds(e imapwire.NotifyEvents) bool { return s.note == nil || s.note.sel&e != 0 }

// immediate reports whether expunges may be told at any time.
func (s *session) immediate() bool {
	return s.note != nil && !s.note.delayed && s.heeds(imapwire.NotifyExpunge)
}

// pushNotes tells what has happened to the account and to mailboxes that are not selected.
func (s *session) pushNotes() error {
	n := s.note
	if n == nil || n.list == nil {
		return nil
	}
	ctx, cancel := s.context()
	defer cancel()
	if n.listed.Swap(false) {
		if err := s.noteList(ctx, n); err != nil {
			if errors.Is(err, errNotifications) {
				return s.overflow()
			}
			n.listed.Store(true)
			return s.lostMailbox(err)
		}
	}
	var marked []*noted
	for _, b := range n.names {
		if b.watch != nil && b.dirty.Swap(false) {
			marked = append(marked, b)
		}
	}
	slices.SortFunc(marked, func(a, b *noted) int { return cmp.Compare(a.name, b.name) })
	for _, b := range marked {
		if err := s.noteBox(ctx, b); err != nil && !isGone(err) {
			b.dirty.Store(true)
			return s.lostMailbox(err)
		}
	}
	return s.enc.Err()
}

// overflow ends all notifications (RFC 5465 §5.8).
func (s *session) overflow() error {
	s.setNotify(new(notify))
	s.enc.Raw("* OK [NOTIFICATIONOVERFLOW] Too many mailboxes to be watched for one connection\r\n")
	return s.enc.Err()
}

// setNotify replaces what is notified.
func (s *session) setNotify(n *notify) {
	s.note.close()
	s.note = n
	s.pushing.Store(s.following())
}

// noteBox tells the news of a mailbox that is not selected by STATUS.
func (s *session) noteBox(ctx context.Context, b *noted) error {
	if b.place != nil {
		if may, err := s.mayStillRead(ctx, b.place); err != nil || !may {
			return err
		}
	}
	st, err := b.mb.State(ctx)
	if err != nil {
		return err
	}
	was, now := b.last, markOf(st)
	b.last = now
	if s.box != nil && s.box.mb.ID() == b.mb.ID() || now == was {
		return nil
	}
	flags := b.events&imapwire.NotifyFlags != 0
	var items statusItems
	switch {
	case now.messages != was.messages || now.next != was.next || now.validity != was.validity:
		if items = append(items, "MESSAGES", "UIDNEXT", "UIDVALIDITY"); flags {
			items = append(items, "UNSEEN")
		}
	case flags && (s.condstor || now.unseen != was.unseen): // RFC 5465 §5.1
		items = append(items, "UIDVALIDITY", "UNSEEN")
	default:
		return nil
	}
	if s.condstor {
		items = append(items, "HIGHESTMODSEQ")
	}
	s.srv.m.pushes.Inc()
	return s.writeStatusOf(b.name, b.mb, st, items)
}

// mayStillRead looks at the rights to somebody else's mailbox as they are now. When they are gone the list of mailboxes is looked at.
func (s *session) mayStillRead(ctx context.Context, p *place) (bool, error) {
	listing, err := p.acc.Listing(ctx)
	if err != nil {
		return false, err
	}
	who, err := s.srv.sharing.Who(ctx, s.user)
	if err != nil {
		return false, err
	}
	if sharing.RightsOf(listing, p.box, p.owner, who).Has(sharing.Lookup | sharing.Read) {
		return true, nil
	}
	s.note.listed.Store(true)
	s.signal(eventNotify)
	return false, nil
}

// noteOwn notes that this session has just added messages to a mailbox: it is not told of them, unless there is other news.
func (s *session) noteOwn(mb *mailstore.Mailbox, added int) {
	if s.note == nil || s.note.names[mb.ID()] == nil {
		return
	}
	b, st := s.note.names[mb.ID()], mb.Cached()
	if st == nil || b.watch == nil {
		return
	}
	now := markOf(st)
	if now.modSeq <= b.last.modSeq+1 && now.messages == b.last.messages+added && now.next == b.last.next+uint32(added) && now.validity == b.last.validity {
		b.last = now
	}
}

// noteLeft notes that a mailbox is not selected any more: what its client has not been told is told by STATUS from now on.
func (s *session) noteLeft(b *selected) {
	if s.note == nil {
		return
	}
	if m := s.note.names[b.mb.ID()]; m != nil && m.watch != nil {
		m.last = markOf(b.view.st)
		m.dirty.Store(true)
		s.signal(eventNotify)
	}
}
