package imapsession

import (
	"context"
	"errors"
	"slices"
	"strings"

	"shoal/daemons/internal/imapwire"
	"shoal/daemons/internal/mailstore"
	"shoal/daemons/internal/sharing"
)

// listing holds the arguments of LIST (RFC 9051 §6.3.9, RFC 5258, RFC 5819, RFC 6154).
//
//	list        = "LIST" [SP "(" [select-opt *(SP select-opt)] ")"] SP mailbox SP mbox-or-pat [SP "RETURN" SP "(" [return-opt *(SP return-opt)] ")"]
//	select-opt  = "SUBSCRIBED" / "REMOTE" / "RECURSIVEMATCH" / "SPECIAL-USE"
//	mbox-or-pat = list-mailbox / "(" list-mailbox *(SP list-mailbox) ")"
//	return-opt  = "SUBSCRIBED" / "CHILDREN" / "SPECIAL-USE" / "STATUS" SP "(" items ")"
type listing struct {
	extended   bool
	subscribed bool // only these
	specialUse bool // only these
	recursive  bool // and names above such ones
	patterns   []string

	returnSubscribed bool
	status           statusItems
	myRights         bool          // RFC 8440
	metadata         *metadataWant // RFC 9590
}

func cmdList(s *session, c *call) error {
	l, err := s.takeListing()
	if err != nil {
		return err
	}
	if !l.extended && len(l.patterns) == 1 && l.patterns[0] == "" {
		s.enc.Raw(`* LIST (\Noselect) "/" ""` + "\r\n")
		return nil
	}
	nodes, err := s.mailboxTree(c.ctx, l.subscribed || l.returnSubscribed, l.mayMatch)
	if err != nil {
		return err
	}
	for i, n := range nodes {
		if err := s.listNode(c.ctx, l, n, nodes[i+1:]); err != nil {
			return err
		}
	}
	l.longEntries(c)
	return nil
}

// mayMatch reports whether a pattern may match a name that begins with prefix, or a level of it.
func (l *listing) mayMatch(prefix string) bool {
	for _, p := range l.patterns {
		if i := strings.IndexAny(p, "*%"); i >= 0 {
			p = p[:i]
		}
		if strings.HasPrefix(prefix, p) || strings.HasPrefix(p, prefix) {
			return true
		}
	}
	return false
}

func (s *session) takeListing() (*listing, error) {
	l := new(listing)
	if err := s.dec.SP(); err != nil {
		return nil, err
	}
	if s.dec.Peek() == '(' {
		l.extended = true
		if err := s.dec.List(func() error { return s.listSelection(l) }); err != nil {
			return nil, err
		}
		if l.recursive && !l.subscribed && !l.specialUse {
			return nil, badf("RECURSIVEMATCH needs another selection beside it")
		}
		if err := s.dec.SP(); err != nil {
			return nil, err
		}
	}
	reference, err := s.dec.Mailbox()
	if err != nil {
		return nil, err
	}
	if err := s.dec.SP(); err != nil {
		return nil, err
	}
	pattern := func() error {
		p, err := s.dec.ListPattern()
		if err != nil {
			return err
		}
		if p != "" || l.extended {
			p = imapwire.CanonicalInbox(reference + p)
		}
		if len(l.patterns) == 100 || len(p) > 2*s.srv.limits().MailboxNameLimit {
			return no("LIMIT", "Too many or too long patterns")
		}
		l.patterns = append(l.patterns, p)
		return nil
	}
	if s.dec.Peek() == '(' {
		l.extended = true
		err = s.dec.List(pattern)
	} else {
		err = pattern()
	}
	if err != nil {
		return nil, err
	}
	if !s.dec.AtEnd() {
		if err := s.dec.SP(); err != nil {
			return nil, err
		}
		if !s.dec.AcceptWord("RETURN") {
			return nil, badf("RETURN expected at: %s", s.dec.Rest())
		}
		if err := s.dec.SP(); err != nil {
			return nil, err
		}
		l.extended = true
		if err := s.dec.List(func() error { return s.listReturn(l) }); err != nil {
			return nil, err
		}
	}
	return l, s.dec.End()
}

func (s *session) listSelection(l *listing) error {
	word, err := s.dec.Keyword()
	if err != nil {
		return err
	}
	switch word {
	case "SUBSCRIBED":
		l.subscribed = true
	case "SPECIAL-USE":
		l.specialUse = true
	case "RECURSIVEMATCH":
		l.recursive = true
	case "REMOTE": // there are no remote mailboxes
	default:
		return badf("Unknown selection option of LIST: %s", word)
	}
	return nil
}

func (s *session) listReturn(l *listing) error {
	word, err := s.dec.Keyword()
	if err != nil {
		return err
	}
	switch word {
	case "SUBSCRIBED":
		l.returnSubscribed = true
	case "CHILDREN", "SPECIAL-USE": // are always told
	case "MYRIGHTS":
		l.myRights = true
	case "METADATA":
		if err := s.dec.SP(); err != nil {
			return err
		}
		if l.metadata, err = s.takeListMetadata(); err != nil {
			return err
		}
	case "STATUS":
		if err := s.dec.SP(); err != nil {
			return err
		}
		if l.status, err = s.takeStatusItems(); err != nil {
			return err
		}
	default:
		return badf("Unknown return option of LIST: %s", word)
	}
	return nil
}

// node is a name in the tree of mailboxes: a mailbox, a name that is subscribed and has no mailbox, or
// a level above such a name.
type node struct {
	name       string
	id         string // empty: no mailbox of that name
	place      *place // of that mailbox
	uses       []string
	subscribed bool
	kids       bool // a mailbox lies below
	kidsSubscr bool // a subscribed name lies below
	kidsUse    bool // a mailbox with a special use lies below
}

// mailboxTree lists all names, sorted, INBOX first.
func (s *session) mailboxTree(ctx context.Context, subscriptions bool, mayMatch func(prefix string) bool) ([]*node, error) {
	all, err := s.acc.Listing(ctx)
	if err != nil {
		return nil, err
	}
	list := all.Mailboxes()
	tree := make(map[string]*node, len(list))
	at := func(name string) *node {
		n := tree[name]
		if n == nil {
			n = &node{name: name}
			tree[name] = n
		}
		return n
	}
	above := func(name string, mark func(*node)) {
		for i := strings.LastIndexByte(name, separator); i > 0; i = strings.LastIndexByte(name[:i], separator) {
			mark(at(name[:i]))
		}
	}
	for i := range list {
		info := &list[i]
		if _, _, hidden := s.sharedName(info.Name); hidden {
			continue // made before the prefix was set
		}
		n := at(info.Name)
		n.id, n.uses = info.ID, info.SpecialUse
		n.place = &place{acc: s.acc, owner: s.user, name: info.Name, listing: all, box: info.ID, rights: sharing.All}
		above(info.Name, func(p *node) {
			p.kids = true
			p.kidsUse = p.kidsUse || len(info.SpecialUse) > 0
		})
	}
	for _, p := range s.othersMailboxes(ctx, mayMatch) {
		name := s.shown(p.owner, p.name)
		n := at(name)
		n.id, n.place = p.box, p
		above(name, func(p *node) { p.kids = true })
	}
	if subscriptions {
		names, err := s.acc.Subscriptions(ctx)
		if err != nil {
			return nil, err
		}
		for _, name := range names {
			at(name).subscribed = true
			above(name, func(p *node) { p.kidsSubscr = true })
		}
	}
	nodes := make([]*node, 0, len(tree))
	for _, n := range tree {
		nodes = append(nodes, n)
	}
	slices.SortFunc(nodes, func(a, b *node) int {
		switch {
		case a.name == "INBOX":
			return -1
		case b.name == "INBOX":
			return 1
		}
		return strings.Compare(a.name, b.name)
	})
	return nodes, nil
}

// hides reports whether a name below n fits the selection but not the patterns, so that the client
// hears of it only through n. rest are the names that sort behind n.
func (l *listing) hides(n *node, rest []*node, fits func(*node) bool) bool {
	for _, below := range rest {
		if strings.HasPrefix(below.name, n.name+"/") && fits(below) && !matchAny(l.patterns, below.name) {
			return true
		}
	}
	return false
}

// listNode writes the LIST response of a name, if it is asked for. rest are the names behind it.
func (s *session) listNode(ctx context.Context, l *listing, n *node, rest []*node) error {
	if !matchAny(l.patterns, n.name) {
		return nil
	}
	chosen := n.id != "" || n.kids || n.subscribed
	if !l.subscribed && n.id == "" && !n.kids {
		chosen = false // a subscription without a mailbox is no mailbox
	}
	chosen = chosen && (!l.subscribed || n.subscribed) && (!l.specialUse || len(n.uses) > 0)
	// RFC 9051 §6.3.9.6: a name that is not chosen is given for the sake of names below it that the
	// patterns leave out.
	var childInfo []string
	if l.recursive && l.subscribed && n.kidsSubscr &&
		(chosen || l.hides(n, rest, func(b *node) bool { return b.subscribed })) {
		childInfo = append(childInfo, "SUBSCRIBED")
	}
	if l.recursive && l.specialUse && n.kidsUse &&
		(chosen || l.hides(n, rest, func(b *node) bool { return len(b.uses) > 0 })) {
		childInfo = append(childInfo, "SPECIAL-USE")
	}
	if !chosen && len(childInfo) == 0 {
		return nil
	}
	e := &s.enc
	e.Raw("* LIST (")
	if n.id == "" {
		e.Raw(`\NonExistent \Noselect `)
	}
	if n.kids {
		e.Raw(`\HasChildren`)
	} else {
		e.Raw(`\HasNoChildren`)
	}
	if n.subscribed && (l.subscribed || l.returnSubscribed) {
		e.Raw(` \Subscribed`)
	}
	for _, u := range n.uses {
		e.Raw(` \`).Raw(u)
	}
	e.Raw(`) "/" `).Mailbox(n.name)
	if len(childInfo) > 0 {
		e.Raw(` ("CHILDINFO" (`)
		for i, w := range childInfo {
			if i > 0 {
				e.SP()
			}
			e.Byte('"').Raw(w).Byte('"')
		}
		e.Raw("))")
	}
	e.CRLF()
	if n.id == "" {
		return e.Err()
	}
	if l.myRights {
		s.writeMyRights(n.name, n.place.rights)
	}
	if l.metadata != nil {
		if err := s.listMetadata(ctx, l.metadata, n); err != nil {
			return err
		}
	}
	if len(l.status) == 0 || !n.place.rights.Has(sharing.Read) { // RFC 5819 §2: no STATUS of what cannot be selected
		return e.Err()
	}
	mb, err := n.place.acc.OpenListed(ctx, n.place.listing, n.id)
	if err == nil {
		err = s.writeStatus(ctx, n.name, mb, l.status)
	}
	if errors.Is(err, mailstore.ErrNoMailbox) || errors.Is(err, mailstore.ErrMailboxClosed) {
		return nil // deleted meanwhile
	}
	return err
}

func matchAny(patterns []string, name string) bool {
	for _, p := range patterns {
		if imapwire.MatchPattern(p, name, separator) {
			return true
		}
	}
	return false
}

// cmdLsub is LSUB (RFC 3501 §6.3.9): the subscribed names. A name above a subscribed one that "%" keeps
// from being seen is given as \Noselect.
func cmdLsub(s *session, c *call) error {
	if err := s.dec.SP(); err != nil {
		return err
	}
	reference, err := s.dec.Mailbox()
	if err != nil {
		return err
	}
	if err := s.dec.SP(); err != nil {
		return err
	}
	pattern, err := s.dec.ListPattern()
	if err != nil {
		return err
	}
	if err := s.dec.End(); err != nil {
		return err
	}
	pattern = imapwire.CanonicalInbox(reference + pattern)
	if len(pattern) > 2*s.srv.limits().MailboxNameLimit {
		return no("LIMIT", "Too long a pattern")
	}
	nodes, err := s.mailboxTree(c.ctx, true, nowhere) // names count, whether there is a mailbox or not
	if err != nil {
		return err
	}
	for _, n := range nodes {
		above := n.kidsSubscr && strings.HasSuffix(pattern, "%")
		if !n.subscribed && !above || !imapwire.MatchPattern(pattern, n.name, separator) {
			continue
		}
		if n.subscribed {
			s.enc.Raw(`* LSUB () "/" `)
		} else {
			s.enc.Raw(`* LSUB (\Noselect) "/" `)
		}
		s.enc.Mailbox(n.name).CRLF()
	}
	return s.enc.Err()
}
