package imapsession

import (
	"context"
	"slices"
	"strings"

	"shoal/daemons/internal/imapwire"
	"shoal/daemons/internal/sharing"
)

// affected is a name that a LIST response is to be sent for.
type affected struct {
	name, old string
}

// noteList compares the list of mailboxes with what the client knows, and tells what it has asked for (RFC 5465 §5.4 and §5.5).
func (s *session) noteList(ctx context.Context, n *notify) error {
	nodes, err := s.mailboxTree(ctx, true, n.mayCover)
	if err != nil {
		return err
	}
	var told []affected
	tell := func(name, old string) {
		for i := range told {
			if told[i].name == name {
				if old != "" {
					told[i].old = old
				}
				return
			}
		}
		told = append(told, affected{name, old})
	}
	wanted := func(event imapwire.NotifyEvents, name string, subscribed bool) bool {
		return n.wanted(name, subscribed)&event != 0
	}
	appeared := func(name string, subscribed bool) { // or vanished
		if wanted(imapwire.NotifyName, name, subscribed) {
			tell(name, "")
		}
		if i := strings.LastIndexByte(name, separator); i > 0 && wanted(imapwire.NotifyName, name[:i], n.subs[name[:i]]) {
			tell(name[:i], "")
		}
	}

	subs, there, created := map[string]bool{}, map[string]bool{}, map[string]bool{}
	moved := map[string]string{} // names that were changed, old to new
	for _, d := range nodes {
		if d.subscribed {
			subs[d.name] = true
		}
		if b := n.names[d.id]; b != nil && b.name != d.name {
			moved[b.name] = d.name
		}
	}
	for _, d := range nodes {
		if d.id == "" {
			continue
		}
		there[d.id] = true
		b := n.names[d.id]
		if b == nil {
			created[d.id] = true
			n.names[d.id] = &noted{name: d.name, place: d.others()}
			appeared(d.name, d.subscribed)
			continue
		}
		could := b.readable()
		if b.place = d.others(); could != b.readable() && n.wanted(d.name, d.subscribed) != 0 {
			tell(d.name, "")
		}
		if b.name != d.name {
			if !movedWithParent(moved, b.name, d.name) &&
				(wanted(imapwire.NotifyName, d.name, d.subscribed) || wanted(imapwire.NotifyName, b.name, n.subs[b.name])) {
				tell(d.name, b.name)
			}
			b.name = d.name
		}
	}
	for id, b := range n.names {
		if !there[id] {
			appeared(b.name, n.subs[b.name])
			b.unwatch()
			delete(n.names, id)
		}
	}
	for _, list := range []map[string]bool{subs, n.subs} {
		for name := range list {
			if subs[name] != n.subs[name] && wanted(imapwire.NotifySubscription, name, true) {
				tell(name, "")
			}
		}
	}
	n.subs = subs
	slices.SortFunc(told, func(a, b affected) int { return strings.Compare(a.name, b.name) })
	for _, a := range told {
		s.srv.m.pushes.Inc()
		s.listAffected(nodes, a)
	}
	if err := s.watchOwners(ctx, n); err != nil {
		return err
	}
	if err := s.watchBoxes(ctx, n, created); err != nil {
		return err
	}
	return s.tellNotified(ctx, n)
}

// movedWithParent reports whether a level above was renamed, which says all.
func movedWithParent(moved map[string]string, from, to string) bool {
	for i := strings.LastIndexByte(from, separator); i > 0; i = strings.LastIndexByte(from[:i], separator) {
		if top, ok := moved[from[:i]]; ok && to == top+from[i:] {
			return true
		}
	}
	return false
}

// listAffected writes the LIST response of a name, with what it was called before.
func (s *session) listAffected(nodes []*node, a affected) {
	e := &s.enc
	at := slices.IndexFunc(nodes, func(d *node) bool { return d.name == a.name })
	n := &node{name: a.name}
	if at >= 0 {
		n = nodes[at]
	}
	e.Raw("* LIST (")
	switch p := n.others(); {
	case n.id == "":
		e.Raw(`\NonExistent `)
	case p != nil && !p.rights.Has(sharing.Read):
		e.Raw(`\NoAccess `)
	}
	if n.kids {
		e.Raw(`\HasChildren`)
	} else {
		e.Raw(`\HasNoChildren`)
	}
	if n.subscribed {
		e.Raw(` \Subscribed`)
	}
	for _, u := range n.uses {
		e.Raw(` \`).Raw(u)
	}
	e.Raw(`) "/" `).Mailbox(a.name)
	if a.old != "" {
		e.Raw(` ("OLDNAME" (`).Mailbox(a.old).Raw("))")
	}
	e.CRLF()
}

// What this session itself does to the list is taken as known (RFC 5465 §5): the client has its answer.

func (s *session) noteCreated(id, name string) {
	if n := s.note; n != nil && n.list != nil && n.names[id] == nil {
		n.names[id] = &noted{name: name}
		n.listed.Store(true) // it may have to be watched
		s.signal(eventNotify)
	}
}

func (s *session) noteDeleted(name string) {
	if n := s.note; n != nil {
		for id, b := range n.names {
			if b.name == name && name != "INBOX" {
				b.unwatch()
				delete(n.names, id)
			}
		}
	}
}

func (s *session) noteRenamed(from, to string) {
	if n := s.note; n != nil && from != "INBOX" {
		for _, b := range n.names {
			if b.name == from || strings.HasPrefix(b.name, from+"/") {
				b.name = to + b.name[len(from):]
			}
		}
	}
}

func (s *session) noteSubscribed(name string, on bool) {
	if n := s.note; n != nil && n.list != nil {
		delete(n.subs, name)
		if on {
			n.subs[name] = true
		}
	}
}
