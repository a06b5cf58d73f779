package mailstore

import (
	"maps"
	"sort"
	"strings"
)

// acctState is an account's list of mailboxes as of one commit. It never changes.
type acctState struct {
	n           uint64
	account     string
	boxes       map[string]*acctBox // by id
	names       map[string]string   // name -> id
	subscribed  map[string]bool
	attrs       map[string]string // of the account
	deleted     []deletedBox
	maxValidity uint32
	kept        []keptOp
	closed      bool
}

type acctBox struct {
	id, name string
	validity uint32
	attrs    map[string]string
}

// deletedBox is a mailbox that is to go to the trash, or went there.
type deletedBox struct {
	n        uint64
	id, name string
}

// maxDeletedBoxes bounds the memory of deleted mailboxes.
const maxDeletedBoxes = 1000

func (s *acctState) weight() int64 {
	n := 1024 + int64(len(s.boxes))*400 + int64(len(s.subscribed))*80 + attrBytes(s.attrs)
	for _, b := range s.boxes {
		n += attrBytes(b.attrs)
	}
	return n
}

func (b *acctBox) info(s *acctState) MailboxInfo {
	i := MailboxInfo{ID: b.id, Name: b.name, UIDValidity: b.validity, Subscribed: s.subscribed[b.name]}
	for u := range strings.SplitSeq(b.attrs[attrSpecialUse], ",") {
		if u != "" {
			i.SpecialUse = append(i.SpecialUse, u)
		}
	}
	return i
}

func (s *acctState) list() []MailboxInfo {
	out := make([]MailboxInfo, 0, len(s.boxes))
	for _, b := range s.boxes {
		out = append(out, b.info(s))
	}
	sort.Slice(out, func(i, j int) bool { return out[i].Name < out[j].Name })
	return out
}

// acctFold folds the records of an account's log. Accounts change rarely: each change copies the maps.
type acctFold struct {
	s      *acctState
	shared bool
}

// acctEffect tells the one who committed an op what became of it.
type acctEffect struct {
	resolved bool
	done     bool // it had an effect
	closed   bool
}

func newAcctFold() *acctFold {
	return &acctFold{s: &acctState{
		boxes: map[string]*acctBox{}, names: map[string]string{}, subscribed: map[string]bool{}, attrs: map[string]string{},
	}}
}

func (f *acctFold) edit() *acctState {
	if f.shared {
		s := *f.s
		s.boxes, s.names = maps.Clone(s.boxes), maps.Clone(s.names)
		s.subscribed, s.attrs = maps.Clone(s.subscribed), maps.Clone(s.attrs)
		f.s, f.shared = &s, false
	}
	return f.s
}

func (f *acctFold) publish() *acctState {
	f.shared = true
	return f.s
}

func (f *acctFold) apply(n uint64, body string, effects []*acctEffect) error {
	s := f.edit()
	s.n = n
	i := 0
	return eachOp(body, func(text string) error {
		var effect *acctEffect
		if i < len(effects) {
			effect = effects[i]
		}
		i++
		op, skip, err := parseAcctOp(text)
		if err != nil {
			return err
		}
		done := false
		switch {
		case s.closed:
		case skip:
			s.kept = append(s.kept[:len(s.kept):len(s.kept)], keptOp{n, text})
		default:
			done = s.applyOp(&op, n)
		}
		if effect != nil {
			*effect = acctEffect{resolved: true, done: done, closed: s.closed && op.kind != opTerminal}
		}
		return nil
	})
}

func (s *acctState) applyOp(op *acctOp, n uint64) bool {
	switch op.kind {
	case opOptions:
		s.account = op.options.account
		return true
	case opCreate:
		return s.create(op)
	case opRename:
		return s.rename(op)
	case opDelete:
		b := s.boxes[op.id]
		if b == nil || b.name != op.name {
			return false
		}
		delete(s.boxes, b.id)
		delete(s.names, b.name)
		s.deleted = append(s.deleted[:len(s.deleted):len(s.deleted)], deletedBox{n, b.id, b.name})
		if len(s.deleted) > maxDeletedBoxes {
			s.deleted = s.deleted[len(s.deleted)-maxDeletedBoxes:]
		}
		return true
	case opSubscribe:
		was := s.subscribed[op.name]
		s.subscribed[op.name] = true
		return !was
	case opUnsubscribe:
		was := s.subscribed[op.name]
		delete(s.subscribed, op.name)
		return was
	case opAttribute:
		return s.setAttr(op)
	case opTerminal:
		s.closed = true
		return true
	}
	return false
}

func (s *acctState) create(op *acctOp) bool {
	if _, taken := s.names[op.name]; taken || s.boxes[op.id] != nil {
		return false
	}
	if !op.given && op.validity <= s.maxValidity {
		return false
	}
	b := &acctBox{id: op.id, name: op.name, validity: op.validity}
	for _, a := range op.attrs {
		if a.value != "" {
			if b.attrs == nil {
				b.attrs = map[string]string{}
			}
			b.attrs[a.key] = a.value
		}
	}
	s.boxes[b.id] = b
	s.names[b.name] = b.id
	s.maxValidity = max(s.maxValidity, b.validity)
	return true
}

// below tells whether name lies below parent in the hierarchy.
func below(name, parent string) bool {
	return len(name) > len(parent)+1 && name[len(parent)] == Delimiter && name[:len(parent)] == parent
}

func (s *acctState) rename(op *acctOp) bool {
	if op.newName == op.name || below(op.newName, op.name) {
		return false
	}
	id := s.names[op.name]
	if id == "" {
		id = "-"
	}
	if id != op.id {
		return false
	}
	moved := map[string]*acctBox{}
	for name, id := range s.names {
		if name == op.name || below(name, op.name) {
			to := op.newName + name[len(op.name):]
			if _, taken := s.names[to]; taken {
				return false
			}
			b := *s.boxes[id]
			b.name = to
			moved[name] = &b
		}
	}
	for old, b := range moved {
		delete(s.names, old)
		s.names[b.name] = b.id
		s.boxes[b.id] = b
	}
	return len(moved) > 0
}

func (s *acctState) setAttr(op *acctOp) bool {
	set := func(m map[string]string) bool {
		was, had := m[op.key]
		if op.value == "" {
			delete(m, op.key)
			return had
		}
		m[op.key] = op.value
		return was != op.value
	}
	if op.id == "-" {
		return set(s.attrs)
	}
	b := s.boxes[op.id]
	if b == nil {
		return false
	}
	c := *b
	if c.attrs = maps.Clone(b.attrs); c.attrs == nil {
		c.attrs = map[string]string{}
	}
	done := set(c.attrs)
	s.boxes[c.id] = &c
	return done
}
