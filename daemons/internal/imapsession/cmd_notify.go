package imapsession

import (
	"slices"
	"strings"

	"shoal/daemons/internal/imapwire"
)

// notifyEventNames are the events that NOTIFY knows.
const notifyEventNames = "MessageNew MessageExpunge FlagChange MailboxName SubscriptionChange"

const notifyEventsKnown = imapwire.NotifyMessages | imapwire.NotifyName | imapwire.NotifySubscription

// cmdNotify is NOTIFY (RFC 5465): from now on the client is told what it asks for, whether a command is in progress or not.
func cmdNotify(s *session, c *call) error {
	if err := s.dec.SP(); err != nil {
		return err
	}
	args, err := s.dec.Notify()
	if err != nil {
		return err
	}
	if err := s.dec.End(); err != nil {
		return err
	}
	n, names := new(notify), 0
	for _, g := range args.Groups {
		if args.Unknown != "" || g.Events&^notifyEventsKnown != 0 {
			return no("BADEVENT ("+notifyEventNames+")", "That event is not known here")
		}
		if g.Scope <= imapwire.NotifyDelayed {
			n.sel, n.delayed, n.fetch = g.Events, g.Scope == imapwire.NotifyDelayed, g.Fetch
			continue
		}
		if names += len(g.Mailboxes); names > s.srv.limits().NotifyMailboxes {
			return errNotifications
		}
		if g.Events != 0 {
			n.groups = append(n.groups, g)
		}
	}
	if len(n.groups) > 0 {
		if err := s.watchList(c.ctx, n); err != nil {
			n.close()
			return err
		}
	}
	s.setNotify(n)
	if args.Status {
		if err := s.notifyStatus(c, n); err != nil {
			return err
		}
	}
	if s.box == nil {
		return nil
	}
	return s.box.refresh(c.ctx) // RFC 5465 §3.1: an implicit NOOP
}

// notifyStatus writes the STATUS of all mailboxes that are watched and not selected.
func (s *session) notifyStatus(c *call, n *notify) error {
	var boxes []*noted
	for _, b := range n.names {
		if b.watch != nil && (s.box == nil || s.box.mb.ID() != b.mb.ID()) {
			boxes = append(boxes, b)
		}
	}
	slices.SortFunc(boxes, func(a, b *noted) int { return strings.Compare(a.name, b.name) })
	for _, b := range boxes {
		items := statusItems{"MESSAGES", "UIDNEXT", "UIDVALIDITY"}
		if b.events&imapwire.NotifyFlags != 0 {
			items = append(items, "UNSEEN", "HIGHESTMODSEQ")
		}
		st, err := b.mb.State(c.ctx)
		if isGone(err) {
			continue
		}
		if err != nil {
			return err
		}
		b.last = markOf(st)
		if err := s.writeStatusOf(b.name, b.mb, st, items); err != nil {
			return err
		}
	}
	return nil
}
