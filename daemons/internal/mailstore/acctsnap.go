package mailstore

import (
	"fmt"
	"sort"
	"strings"
)

// The lines of an account's snapshot:
//
//	v <highest uidvalidity given out> <account id>
//	c 1                           the account is closed
//	p <id> <uidvalidity> <name> *( SP key "=" value )     a mailbox and its attributes
//	u <name>                      a subscription
//	a <key>=<value>               an attribute of the account
//	d <N> <id> <name>             a mailbox deleted by record N
const acctLines = "vcpuad"

func (s *acctState) appendSnapshot(b []byte, m marks, other []string) []byte {
	b = appendSnapshotHead(b, kindAccount, s.n)
	acct := s.account
	if acct == "" {
		acct = "-"
	}
	b = fmt.Appendf(b, "v %d %s\n", s.maxValidity, acct)
	if s.closed {
		b = append(b, "c 1\n"...)
	}
	b = appendCommon(b, m, s.kept, other)
	ids := make([]string, 0, len(s.boxes))
	for id := range s.boxes {
		ids = append(ids, id)
	}
	sort.Strings(ids)
	for _, id := range ids {
		x := s.boxes[id]
		b = appendEscaped(append(b, "p "...), x.id)
		b = appendDec(append(b, ' '), uint64(x.validity))
		b = appendEscaped(append(b, ' '), x.name)
		b = appendAttrs(b, x.attrs, ' ')
		b = append(b, '\n')
	}
	subs := make([]string, 0, len(s.subscribed))
	for n := range s.subscribed {
		subs = append(subs, n)
	}
	sort.Strings(subs)
	for _, n := range subs {
		b = appendEscaped(append(b, "u "...), n)
		b = append(b, '\n')
	}
	for _, k := range sortedKeys(s.attrs) {
		b = appendEscaped(append(b, "a "...), k)
		b = appendEscaped(append(b, '='), s.attrs[k])
		b = append(b, '\n')
	}
	for _, d := range s.deleted {
		b = appendDec(append(b, "d "...), d.n)
		b = appendEscaped(append(b, ' '), d.id)
		b = appendEscaped(append(b, ' '), d.name)
		b = append(b, '\n')
	}
	return appendSnapshotEnd(b)
}

func sortedKeys(m map[string]string) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	sort.Strings(keys)
	return keys
}

func appendAttrs(b []byte, m map[string]string, before byte) []byte {
	for _, k := range sortedKeys(m) {
		b = appendEscaped(append(b, before), k)
		b = appendEscaped(append(b, '='), m[k])
	}
	return b
}

// loadAcctSnapshot makes a fold of a complete snapshot.
func loadAcctSnapshot(snap *snapshot) (*acctFold, error) {
	f := newAcctFold()
	s := f.s
	s.n, s.kept = snap.n, snap.kept
	seen := false
	for _, line := range snap.lines {
		bad := fmt.Errorf("line %.80q: %w", line, ErrCorrupt)
		p := strings.Split(strings.Clone(line[2:]), " ")
		ok := true
		text := func(s string) string {
			t, good := unescape(s)
			ok = ok && good && t != ""
			return t
		}
		pair := func(s string) (string, string) {
			k, v, good := strings.Cut(s, "=")
			ok = ok && good
			v, good = unescape(v)
			ok = ok && good
			return text(k), v
		}
		switch line[0] {
		case 'v':
			if len(p) < 2 {
				return nil, bad
			}
			n, good := parseDec(p[0])
			ok, seen = good && n <= 1<<32-1, true
			s.maxValidity = uint32(n)
			if p[1] != "-" {
				s.account = text(p[1])
			}
		case 'c':
			s.closed = true
		case 'p':
			if len(p) < 3 {
				return nil, bad
			}
			v, good := parseDec(p[1])
			ok = good && v > 0 && v <= 1<<32-1
			b := &acctBox{id: text(p[0]), validity: uint32(v), name: text(p[2]), attrs: map[string]string{}}
			for _, a := range p[3:] {
				k, v := pair(a)
				b.attrs[k] = v
			}
			if !validMailboxID(b.id) || s.boxes[b.id] != nil || s.names[b.name] != "" {
				return nil, bad
			}
			s.boxes[b.id], s.names[b.name] = b, b.id
		case 'u':
			s.subscribed[text(p[0])] = true
			ok = ok && len(p) == 1
		case 'a':
			k, v := pair(p[0])
			s.attrs[k] = v
			ok = ok && len(p) == 1
		case 'd':
			if len(p) != 3 {
				return nil, bad
			}
			n, good := parseDec(p[0])
			ok = good
			s.deleted = append(s.deleted, deletedBox{n, text(p[1]), text(p[2])})
		}
		if !ok {
			return nil, bad
		}
	}
	if !seen {
		return nil, fmt.Errorf("no v line: %w", ErrCorrupt)
	}
	return f, nil
}
