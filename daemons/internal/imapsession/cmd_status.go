package imapsession

import (
	"context"

	"shoal/daemons/internal/mailstore"
	"shoal/daemons/internal/sharing"
)

// statusItems are the data items of STATUS (RFC 9051 §6.3.11, RFC 7162, RFC 7889, RFC 8474, RFC 9208 §4.1.4).
type statusItems []string

// takeStatusItems takes "(" item *(SP item) ")".
func (s *session) takeStatusItems() (statusItems, error) {
	var items statusItems
	err := s.dec.List(func() error {
		word, err := s.dec.Keyword()
		if err != nil {
			return err
		}
		switch word {
		case "MESSAGES", "RECENT", "UIDNEXT", "UIDVALIDITY", "UNSEEN", "DELETED", "SIZE", "MAILBOXID", "APPENDLIMIT", "DELETED-STORAGE":
		case "HIGHESTMODSEQ":
			s.enableCondstore()
		default:
			return badf("Unknown item of STATUS: %s", word)
		}
		for _, have := range items {
			if have == word {
				return nil
			}
		}
		items = append(items, word)
		return nil
	})
	if err == nil && len(items) == 0 {
		err = badf("STATUS needs at least one item")
	}
	return items, err
}

func cmdStatus(s *session, c *call) error {
	if err := s.dec.SP(); err != nil {
		return err
	}
	name, err := s.dec.Mailbox()
	if err != nil {
		return err
	}
	if err := s.dec.SP(); err != nil {
		return err
	}
	items, err := s.takeStatusItems()
	if err != nil {
		return err
	}
	if err := s.dec.End(); err != nil {
		return err
	}
	_, mb, err := s.open(c.ctx, name, sharing.Read)
	if err != nil {
		return err
	}
	return s.writeStatus(c.ctx, name, mb, items)
}

// writeStatus writes the STATUS response of a mailbox.
func (s *session) writeStatus(ctx context.Context, name string, mb *mailstore.Mailbox, items statusItems) error {
	st, err := mb.State(ctx)
	if err != nil {
		return err
	}
	return s.writeStatusOf(name, mb, st, items)
}

// writeStatusOf is writeStatus of a state.
func (s *session) writeStatusOf(name string, mb *mailstore.Mailbox, st *mailstore.State, items statusItems) error {
	e := &s.enc
	e.Raw("* STATUS ").Mailbox(name).Raw(" (")
	for i, item := range items {
		if i > 0 {
			e.SP()
		}
		e.Raw(item).SP()
		switch item {
		case "MESSAGES":
			e.Number(uint64(st.Len()))
		case "RECENT":
			e.Number(0)
		case "UIDNEXT":
			e.Number(uint64(st.UIDNext()))
		case "UIDVALIDITY":
			e.Number(uint64(st.UIDValidity()))
		case "UNSEEN":
			e.Number(uint64(st.Unseen()))
		case "DELETED":
			e.Number(uint64(st.Deleted()))
		case "DELETED-STORAGE":
			e.Number(uint64(deletedBytes(st)))
		case "SIZE":
			e.Number(uint64(st.Bytes()))
		case "HIGHESTMODSEQ":
			e.Number(st.ModSeq())
		case "MAILBOXID":
			e.Byte('(').Raw(objectID(mb.Ref().Mailbox)).Byte(')')
		case "APPENDLIMIT":
			e.Number(uint64(s.srv.limits().AppendLimit))
		}
	}
	e.Raw(")\r\n")
	return e.Err()
}
