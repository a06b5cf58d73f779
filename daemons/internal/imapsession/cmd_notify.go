package imapsession

import (
	"slices"
	"strings"

	"shoal/daemons/internal/imapwire"
)

// notifyEventNames are the events that NOTIFY knows.
const notifyEventNames = "MessageNew MessageExpunge FlagChange MailboxName SubscriptionChange MailboxMetadataChange ServerMetadataChange"

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
	if args.Unknown != "" {
		return no("BADEVENT ("+notifyEventNames+")", "That event is not known here")
	}
	n, names := s.newNotify(args.Groups), 0
	for _, g := range args.Groups {
		if names += len(g.Mailboxes); names > s.srv.limits().NotifyMailboxes {
			return errNotifications
		}
	}
	if len(n.groups) > 0 {
		if err := s.watchList(c.ctx, n); err != nil {
			n.close()
			return err
		}
	}
	s.setNotify(n)
	s.notifyNoAccess(n)
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

// notifyNoAccess lists the mailboxes of others that are asked for, and that the user may look up but not read (RFC 5465 §3.1).
func (s *session) notifyNoAccess(n *notify) {
	var nodes []*node
	for id, b := range n.names {
		if !b.readable() && n.wanted(b.name, n.subs[b.name]) != 0 {
			nodes = append(nodes, &node{name: b.name, id: id, place: b.place, subscribed: n.subs[b.name]})
		}
	}
	slices.SortFunc(nodes, func(a, b *node) int { return strings.Compare(a.name, b.name) })
	for _, d := range nodes {
		s.listAffected(nodes, affected{name: d.name})
	}
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
