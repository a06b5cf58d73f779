package imapwire

import "strings"

// NotifyEvents is a set of events of NOTIFY (RFC 5465 §5).
type NotifyEvents uint8

// The events.
const (
	NotifyNew            NotifyEvents = 1 << iota // MessageNew
	NotifyExpunge                                 // MessageExpunge
	NotifyFlags                                   // FlagChange
	NotifyName                                    // MailboxName
	NotifySubscription                            // SubscriptionChange
	NotifyMetadata                                // MailboxMetadataChange
	NotifyServerMetadata                          // ServerMetadataChange

	NotifyMessages = NotifyNew | NotifyExpunge | NotifyFlags
)

var notifyEvents = map[string]NotifyEvents{
	"MESSAGENEW": NotifyNew, "MESSAGEEXPUNGE": NotifyExpunge, "FLAGCHANGE": NotifyFlags, "MAILBOXNAME": NotifyName,
	"SUBSCRIPTIONCHANGE": NotifySubscription, "MAILBOXMETADATACHANGE": NotifyMetadata, "SERVERMETADATACHANGE": NotifyServerMetadata,
}

// NotifyScope says which mailboxes a group of events is about (RFC 5465 §6).
type NotifyScope uint8

// The scopes.
const (
	NotifySelected NotifyScope = iota + 1
	NotifyDelayed              // SELECTED-DELAYED
	NotifyInboxes
	NotifyPersonal
	NotifySubscribed
	NotifySubtree   // of Mailboxes, with these
	NotifyMailboxes // Mailboxes
)

var notifyScopes = map[string]NotifyScope{
	"SELECTED": NotifySelected, "SELECTED-DELAYED": NotifyDelayed, "INBOXES": NotifyInboxes, "PERSONAL": NotifyPersonal,
	"SUBSCRIBED": NotifySubscribed, "SUBTREE": NotifySubtree, "MAILBOXES": NotifyMailboxes,
}

// NotifyGroup is a group of events.
type NotifyGroup struct {
	Scope     NotifyScope
	Mailboxes []string
	Events    NotifyEvents
	Fetch     []FetchItem // what is told of new messages in the selected mailbox
}

// Notify holds the arguments of NOTIFY.
type Notify struct {
	Set     bool // else NONE
	Status  bool
	Groups  []NotifyGroup
	Unknown string // an event that is not known, if there is one
}

// Notify takes the arguments of NOTIFY behind the space.
//
//	notify       = "NOTIFY" SP ("SET" [SP "STATUS"] 1*(SP group) / "NONE")
//	group        = "(" scope SP ("(" event *(SP event) ")" / "NONE") ")"
//	scope        = "selected" / "selected-delayed" / "inboxes" / "personal" / "subscribed" /
//	               ("subtree" / "mailboxes") SP (mailbox / "(" mailbox *(SP mailbox) ")")
//	event        = "MessageNew" [SP "(" fetch-att *(SP fetch-att) ")"] / atom                 RFC 5465 §8
func (d *Decoder) Notify() (*Notify, error) {
	n := new(Notify)
	word, err := d.Keyword()
	switch {
	case err != nil:
		return nil, err
	case word == "NONE":
		return n, nil
	case word != "SET":
		return nil, syntaxf("SET or NONE expected instead of %s", word)
	}
	n.Set = true
	if err := d.SP(); err != nil {
		return nil, err
	}
	if d.AcceptWord("STATUS") {
		n.Status = true
		if err := d.SP(); err != nil {
			return nil, err
		}
	}
	for chosen := false; ; {
		if len(n.Groups) == d.lim.FetchItems {
			return nil, syntaxf("more than %d groups of events", d.lim.FetchItems)
		}
		g, err := d.notifyGroup(n)
		if err != nil {
			return nil, err
		}
		if g.Scope <= NotifyDelayed {
			if chosen {
				return nil, syntaxf("only one group can be about the selected mailbox")
			}
			chosen = true
		}
		n.Groups = append(n.Groups, g)
		if d.AtEnd() {
			return n, nil
		}
		if err := d.SP(); err != nil {
			return nil, err
		}
	}
}

func (d *Decoder) notifyGroup(n *Notify) (g NotifyGroup, err error) {
	if err := d.Expect('('); err != nil {
		return g, err
	}
	word, err := d.Keyword()
	if err != nil {
		return g, err
	}
	if g.Scope = notifyScopes[word]; g.Scope == 0 {
		return g, syntaxf("unknown choice of mailboxes: %s", word)
	}
	if err := d.SP(); err != nil {
		return g, err
	}
	if g.Scope >= NotifySubtree {
		if err := d.notifyMailboxes(&g); err != nil {
			return g, err
		}
		if err := d.SP(); err != nil {
			return g, err
		}
	}
	if !d.AcceptWord("NONE") {
		if d.Peek() != '(' {
			return g, syntaxf("'(' or NONE expected at: %s", d.Rest())
		}
		if err := d.List(func() error { return d.notifyEvent(n, &g) }); err != nil {
			return g, err
		}
		if g.Events == 0 && n.Unknown == "" {
			return g, syntaxf("empty list of events")
		}
	}
	pair := g.Events & (NotifyNew | NotifyExpunge)
	switch {
	case n.Unknown != "": // is answered with NO
	case pair != 0 && pair != NotifyNew|NotifyExpunge:
		return g, syntaxf("MessageNew and MessageExpunge belong together")
	case g.Events&NotifyFlags != 0 && pair == 0:
		return g, syntaxf("FlagChange needs MessageNew and MessageExpunge")
	case g.Scope <= NotifyDelayed && g.Events&^NotifyMessages != 0:
		return g, syntaxf("the selected mailbox has events of messages only")
	case g.Scope > NotifyDelayed && g.Fetch != nil:
		return g, syntaxf("items to fetch are for the selected mailbox only")
	}
	return g, d.Expect(')')
}

// notifyMailboxes takes a mailbox or a list of them.
func (d *Decoder) notifyMailboxes(g *NotifyGroup) error {
	one := func() error {
		name, err := d.Mailbox()
		g.Mailboxes = append(g.Mailboxes, name)
		return err
	}
	if d.Peek() != '(' {
		return one()
	}
	if err := d.List(one); err != nil {
		return err
	}
	if len(g.Mailboxes) == 0 {
		return syntaxf("empty list of mailboxes")
	}
	return nil
}

func (d *Decoder) notifyEvent(n *Notify, g *NotifyGroup) error {
	word, err := d.Atom()
	if err != nil {
		return err
	}
	event := notifyEvents[strings.ToUpper(word)]
	if event == 0 {
		n.Unknown = word
		return nil
	}
	g.Events |= event
	if event != NotifyNew || d.pos+1 >= len(d.line) || d.line[d.pos] != ' ' || d.line[d.pos+1] != '(' {
		return nil
	}
	d.pos++
	g.Fetch, err = d.FetchItems()
	return err
}
