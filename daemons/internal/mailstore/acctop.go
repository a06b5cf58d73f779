package mailstore

import (
	"fmt"
	"strings"
)

// The ops of an account's log: the list of its mailboxes. Names are escaped UTF-8; ids are mailbox ids.
//
//	O <major>.<minor> *(SP key "=" value)       first record; a=<account id>
//	C <id> <uidvalidity> <name> *(SP key "=" value)   create: no effect if the name is taken, or if uidvalidity is
//	                                            not above every earlier one of the account, unless g=1 (given by adoption)
//	R <id / "-"> <old> <new>                    rename old and all below it: no effect if old is not that mailbox ("-": no
//	                                            mailbox itself, but some below it), if one of the new names is
//	                                            taken, or if new lies below old
//	D <id> <name>                               delete: no effect unless the mailbox has that name
//	S <name>   U <name>                         subscribe, unsubscribe
//	A <id / "-"> <key>=[<value>]                set an attribute of a mailbox, or of the account; an empty value removes it
//	Z                                           terminal: the account is closed
//
// Attributes known to this version: "use", special uses without backslashes, joined by commas (which are
// escaped, %2C). All others are kept
// as they are (ACL, METADATA and the like of later versions).
const (
	opCreate      = 'C'
	opRename      = 'R'
	opDelete      = 'D'
	opSubscribe   = 'S'
	opUnsubscribe = 'U'
	opAttribute   = 'A'
)

const attrSpecialUse = "use"

type acctOp struct {
	kind     byte
	options  mailOptions
	id       string
	validity uint32
	name     string
	newName  string
	given    bool
	key      string
	value    string
	attrs    []attr // of create
}

type attr struct{ key, value string }

func (o *acctOp) append(b []byte) []byte {
	b = append(b, o.kind)
	text := func(s string) { b = appendEscaped(append(b, ' '), s) }
	switch o.kind {
	case opOptions:
		b = fmt.Appendf(b, " %d.%d", o.options.major, o.options.minor)
		if o.options.account != "" {
			b = append(append(b, " a="...), o.options.account...)
		}
	case opCreate:
		text(o.id)
		b = appendDec(append(b, ' '), uint64(o.validity))
		text(o.name)
		if o.given {
			b = append(b, " g=1"...)
		}
		for _, a := range o.attrs {
			text(a.key)
			b = appendEscaped(append(b, '='), a.value)
		}
	case opRename:
		text(o.id)
		text(o.name)
		text(o.newName)
	case opDelete:
		text(o.id)
		text(o.name)
	case opSubscribe, opUnsubscribe:
		text(o.name)
	case opAttribute:
		text(o.id)
		text(o.key)
		b = appendEscaped(append(b, '='), o.value)
	}
	return b
}

func parseAcctOp(s string) (op acctOp, skip bool, err error) {
	op.kind = s[0]
	bad := fmt.Errorf("bad op %.60q: %w", s, ErrCorrupt)
	if strings.IndexByte("OCRDSUAZ", s[0]) < 0 {
		skip, err = unknownOp(s)
		return op, skip, err
	}
	if len(s) > 1 && s[1] != ' ' {
		return op, false, bad
	}
	if op.kind == opOptions {
		if len(s) < 2 {
			return op, false, bad
		}
		op.options, err = parseMailOptions(s[2:])
		return op, false, err
	}
	args := strings.Split(s, " ")[1:]
	want := map[byte]int{opCreate: 3, opRename: 3, opDelete: 2, opSubscribe: 1, opUnsubscribe: 1, opAttribute: 2, opTerminal: 0}[op.kind]
	if len(args) < want || len(args) > want && op.kind != opCreate {
		return op, false, bad
	}
	ok := true
	text := func(s string) string {
		t, good := unescape(s)
		ok = ok && good && t != ""
		return t
	}
	// An id becomes a path, so it must be one.
	id := func(s string) string {
		ok = ok && validMailboxID(s)
		return s
	}
	switch op.kind {
	case opCreate:
		op.id, op.name = id(args[0]), text(args[2])
		v, good := parseDec(args[1])
		ok = ok && good && v > 0 && v <= 1<<32-1
		op.validity = uint32(v)
		for _, a := range args[3:] {
			key, value, good := strings.Cut(a, "=")
			ok = ok && good
			key = text(key)
			if !ok {
				return op, false, bad
			}
			v, good := unescape(value)
			switch ok = good; {
			case key[0] < 'a' || key[0] > 'z':
				return op, false, fmt.Errorf("option %.40q: %w", a, ErrNewerFormat)
			case key == "g":
				op.given = v == "1"
			default:
				op.attrs = append(op.attrs, attr{key, v})
			}
		}
	case opRename:
		if op.id = args[0]; op.id != "-" {
			id(op.id)
		}
		op.name, op.newName = text(args[1]), text(args[2])
	case opDelete:
		op.id, op.name = id(args[0]), text(args[1])
	case opSubscribe, opUnsubscribe:
		op.name = text(args[0])
	case opAttribute:
		key, value, good := strings.Cut(args[1], "=")
		if op.id = args[0]; op.id != "-" {
			id(op.id)
		}
		op.key = text(key)
		var plain bool
		op.value, plain = unescape(value)
		ok = ok && good && plain
	}
	if !ok {
		return op, false, bad
	}
	return op, false, nil
}
