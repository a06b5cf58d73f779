package mailstore

import (
	"fmt"
	"sort"
	"strings"
)

// The ops of a mailbox log. Numbers are decimal (UIDs, mod-sequences) or base 36 (dates: Unix seconds,
// may be negative; everything inside a msgid).
//
//	O <major>.<minor> *(SP key "=" value)      first record: options of the mailbox
//	        v=<uidvalidity>  b=<base added to N for mod-sequences>  a=<account id>  x=<mailbox id>
//	D <date> 1*(SP entry)                      deliver: each entry takes the next UID
//	F <sign><flags> SP <uids> [SP "u" modseq]  flags: sign + adds, - removes, = replaces; with u only
//	                                           messages whose mod-sequence is not above modseq
//	E <uids>                                   expunge those that carry \Deleted
//	X <uids>                                   expunge
//	V <uidvalidity>                            renumber all messages from 1, new UIDVALIDITY
//	G <N>                                      the files of all messages that records up to N expunged are gone
//	Z                                          terminal: the mailbox is closed, later records count for nothing
//
//	entry  = msgid *( ";" key "=" value )      a msgid that begins with "." has the origin of the nonce
//	        f=<flags>  t=<own internal date>  s=<own save date>  e=<email id>  h=<thread id>
//	        u=<uid>: this UID if it is not below UIDNEXT
//	        k=<directory below m/, when it is not uid/8192>
//	        l=<size>: the file has LF where the message has CRLF, and the message this size (since 1.1)
//	        p=<POP3 unique-id> (since 1.1)
//	        v=<source>: mailbox id "." uid "." uidvalidity of a moved message: no effect while a live message has the same source
//	flags  = *( "S" / "A" / "F" / "D" / "T" ) *( "," keyword )       Seen Answered Flagged Deleted drafT
//	uids   = range *( "," range )   range = uid / uid ":" ( uid / "*" )   ascending
//
// Unknown keys in lower case are kept with the message; one in upper case refuses the log.
const (
	opOptions  = 'O'
	opDeliver  = 'D'
	opFlags    = 'F'
	opExpunge  = 'E'
	opRemove   = 'X'
	opRenumber = 'V'
	opGone     = 'G'
	opTerminal = 'Z'
)

// maxUIDs bounds the ranges of one op.
const maxUIDRanges = 1 << 20

type mailOp struct {
	kind     byte
	options  mailOptions
	date     int64
	entries  []entry
	sign     byte
	flags    Flags
	keywords []string
	uids     UIDSet
	guard    uint64
	guarded  bool
	validity uint32
	gone     uint64
}

type mailOptions struct {
	major, minor int
	uidValidity  uint32
	base         uint64
	account, id  string
}

type entry struct {
	id       msgID
	flags    Flags
	keywords []string
	date     int64
	hasDate  bool
	save     int64
	hasSave  bool
	email    string
	thread   string
	source   string
	wire     uint32 // size of the message where its file has LF for CRLF; 0: that of the file
	uidl     string
	uid      uint32
	dir      uint32
	hasDir   bool
	extra    string // unknown fields: *( ";" key "=" value )
}

var flagLetters = [...]struct {
	c byte
	f Flags
}{{'S', FlagSeen}, {'A', FlagAnswered}, {'F', FlagFlagged}, {'D', FlagDeleted}, {'T', FlagDraft}}

func appendFlags(b []byte, f Flags, keywords []string) []byte {
	for _, l := range flagLetters {
		if f&l.f != 0 {
			b = append(b, l.c)
		}
	}
	for _, k := range keywords {
		b = append(b, ',')
		b = appendEscaped(b, k)
	}
	return b
}

func parseFlags(s string) (f Flags, keywords []string, ok bool) {
	head, rest, more := strings.Cut(s, ",")
next:
	for i := 0; i < len(head); i++ {
		for _, l := range flagLetters {
			if head[i] == l.c {
				f |= l.f
				continue next
			}
		}
		return 0, nil, false
	}
	for more {
		head, rest, more = strings.Cut(rest, ",")
		k, ok := unescape(head)
		if !ok || k == "" {
			return 0, nil, false
		}
		keywords = append(keywords, k)
	}
	if len(keywords) > 1 {
		keywords = normalKeywords(keywords)
	}
	return f, keywords, true
}

// normalKeywords sorts keywords and drops doubles. Keywords that differ in case only are different here:
// the session decides about their spelling.
func normalKeywords(in []string) []string {
	if len(in) < 2 {
		return in
	}
	if sort.StringsAreSorted(in) {
		dup := false
		for i := 1; i < len(in); i++ {
			dup = dup || in[i] == in[i-1]
		}
		if !dup {
			return in
		}
	}
	out := append([]string(nil), in...)
	sort.Strings(out)
	n := 1
	for _, k := range out[1:] {
		if k != out[n-1] {
			out[n] = k
			n++
		}
	}
	return out[:n]
}

func parseUIDs(s string) (UIDSet, bool) {
	var set UIDSet
	for {
		r, rest, more := strings.Cut(s, ",")
		a, b, isRange := strings.Cut(r, ":")
		start, ok := parseDec(a)
		stop := start
		if isRange {
			if b == "*" {
				stop = MaxUID
			} else {
				var ok2 bool
				if stop, ok2 = parseDec(b); !ok2 {
					return nil, false
				}
			}
		}
		if !ok || start == 0 || stop < start || stop > MaxUID || len(set) >= maxUIDRanges {
			return nil, false
		}
		if n := len(set); n > 0 && uint64(set[n-1].Stop)+1 >= start {
			return nil, false // not ascending, or two ranges that are one
		}
		set = append(set, UIDRange{uint32(start), uint32(stop)})
		if !more {
			return set, true
		}
		s = rest
	}
}

func (e *entry) append(b []byte, origin string) []byte {
	if e.id.origin == origin {
		b = e.id.appendShort(b)
	} else {
		b = e.id.append(b)
	}
	return e.appendFields(b, true)
}

// appendFields writes the fields of an entry; flags are left out where a line has them elsewhere.
func (e *entry) appendFields(b []byte, flags bool) []byte {
	if flags && (e.flags != 0 || len(e.keywords) > 0) {
		b = append(b, ";f="...)
		b = appendFlags(b, e.flags, e.keywords)
	}
	if e.hasDate {
		b = append(b, ";t="...)
		b = append36signed(b, e.date)
	}
	if e.hasSave {
		b = append(b, ";s="...)
		b = append36signed(b, e.save)
	}
	if e.email != "" {
		b = append(b, ";e="...)
		b = appendEscaped(b, e.email)
	}
	if e.thread != "" {
		b = append(b, ";h="...)
		b = appendEscaped(b, e.thread)
	}
	if e.uid != 0 {
		b = append(b, ";u="...)
		b = appendDec(b, uint64(e.uid))
	}
	if e.hasDir {
		b = append(b, ";k="...)
		b = appendDec(b, uint64(e.dir))
	}
	if e.wire != 0 {
		b = append(b, ";l="...)
		b = append36(b, uint64(e.wire))
	}
	if e.uidl != "" {
		b = append(b, ";p="...)
		b = appendEscaped(b, e.uidl)
	}
	if e.source != "" {
		b = append(b, ";v="...)
		b = appendEscaped(b, e.source)
	}
	return append(b, e.extra...)
}

func parseEntry(s, origin string) (entry, error) {
	var e entry
	id, fields, more := strings.Cut(s, ";")
	var ok bool
	if e.id, ok = parseMsgID(id, origin); !ok {
		return e, fmt.Errorf("bad message id %.60q: %w", id, ErrCorrupt)
	}
	return e, e.parseFields(fields, more)
}

func (e *entry) parseFields(fields string, more bool) error {
	for more {
		var field string
		field, fields, more = strings.Cut(fields, ";")
		key, val, ok := strings.Cut(field, "=")
		if !ok || key == "" {
			return fmt.Errorf("bad field %.40q: %w", field, ErrCorrupt)
		}
		var n uint64
		switch key {
		case "f":
			e.flags, e.keywords, ok = parseFlags(val)
		case "t":
			e.date, ok = parse36signed(val)
			e.hasDate = true
		case "s":
			e.save, ok = parse36signed(val)
			e.hasSave = true
		case "e":
			e.email, ok = unescape(val)
		case "h":
			e.thread, ok = unescape(val)
		case "v":
			e.source, ok = unescape(val)
		case "l":
			n, ok = parse36(val)
			ok = ok && n > e.id.size && n <= 2*e.id.size && n <= maxMessage
			e.wire = uint32(n)
		case "p":
			e.uidl, ok = unescape(val)
		case "u":
			n, ok = parseDec(val)
			ok = ok && n > 0 && n < MaxUID
			e.uid = uint32(n)
		case "k":
			n, ok = parseDec(val)
			ok = ok && n <= MaxUID
			e.dir, e.hasDir = uint32(n), true
		default:
			if key[0] < 'a' || key[0] > 'z' {
				return fmt.Errorf("field %.40q: %w", field, ErrNewerFormat)
			}
			e.extra += ";" + field
		}
		if !ok {
			return fmt.Errorf("bad field %.40q: %w", field, ErrCorrupt)
		}
	}
	return nil
}

func (o *mailOp) append(b []byte, origin string) []byte {
	b = append(b, o.kind)
	switch o.kind {
	case opOptions:
		b = fmt.Appendf(b, " %d.%d", o.options.major, o.options.minor)
		if o.options.uidValidity != 0 {
			b = fmt.Appendf(b, " v=%d", o.options.uidValidity)
		}
		if o.options.base != 0 {
			b = fmt.Appendf(b, " b=%d", o.options.base)
		}
		if o.options.account != "" {
			b = append(append(b, " a="...), o.options.account...)
		}
		if o.options.id != "" {
			b = append(append(b, " x="...), o.options.id...)
		}
	case opDeliver:
		b = append(b, ' ')
		b = append36signed(b, o.date)
		for i := range o.entries {
			b = append(b, ' ')
			b = o.entries[i].append(b, origin)
		}
	case opFlags:
		b = append(b, ' ', o.sign)
		b = appendFlags(b, o.flags, o.keywords)
		b = append(b, ' ')
		b = o.uids.append(b)
		if o.guarded {
			b = append(b, " u"...)
			b = appendDec(b, o.guard)
		}
	case opExpunge, opRemove:
		b = append(b, ' ')
		b = o.uids.append(b)
	case opRenumber:
		b = append(b, ' ')
		b = appendDec(b, uint64(o.validity))
	case opGone:
		b = append(b, ' ')
		b = appendDec(b, o.gone)
	}
	return b
}

// parseMailOp reads one op. The second result is true for an op to pass over.
func parseMailOp(s, origin string) (op mailOp, skip bool, err error) {
	op.kind = s[0]
	bad := func() (mailOp, bool, error) {
		return op, false, fmt.Errorf("bad op %.60q: %w", s, ErrCorrupt)
	}
	args := ""
	if len(s) > 1 {
		if s[1] != ' ' {
			if c := s[0]; strings.IndexByte("ODFEXVGZ", c) < 0 {
				skip, err = unknownOp(s)
				return op, skip, err
			}
			return bad()
		}
		args = s[2:]
	}
	switch op.kind {
	case opOptions:
		if op.options, err = parseMailOptions(args); err != nil {
			return op, false, err
		}
	case opDeliver:
		date, rest, more := strings.Cut(args, " ")
		var ok bool
		if op.date, ok = parse36signed(date); !ok || !more {
			return bad()
		}
		op.entries = make([]entry, 0, strings.Count(rest, " ")+1)
		for more {
			var s string
			s, rest, more = strings.Cut(rest, " ")
			e, err := parseEntry(s, origin)
			if err != nil {
				return op, false, err
			}
			op.entries = append(op.entries, e)
		}
	case opFlags:
		what, rest, ok := strings.Cut(args, " ")
		if !ok || what == "" {
			return bad()
		}
		uids, guard, guarded := strings.Cut(rest, " ")
		op.sign = what[0]
		if op.sign != '+' && op.sign != '-' && op.sign != '=' {
			return bad()
		}
		var ok2 bool
		op.flags, op.keywords, ok = parseFlags(what[1:])
		op.uids, ok2 = parseUIDs(uids)
		if !ok || !ok2 {
			return bad()
		}
		if guarded {
			if guard == "" || guard[0] != 'u' {
				return bad()
			}
			if op.guard, ok = parseDec(guard[1:]); !ok {
				return bad()
			}
			op.guarded = true
		}
	case opExpunge, opRemove:
		var ok bool
		if op.uids, ok = parseUIDs(args); !ok {
			return bad()
		}
	case opRenumber:
		v, ok := parseDec(args)
		if !ok || v == 0 || v > 1<<32-1 {
			return bad()
		}
		op.validity = uint32(v)
	case opGone:
		var ok bool
		if op.gone, ok = parseDec(args); !ok {
			return bad()
		}
	case opTerminal:
		if args != "" {
			return bad()
		}
	default:
		skip, err = unknownOp(s)
	}
	return op, skip, err
}

func parseMailOptions(s string) (o mailOptions, err error) {
	version, rest, more := strings.Cut(s, " ")
	if o.major, o.minor, err = parseVersion(version); err != nil {
		return o, err
	}
	for more {
		var field string
		field, rest, more = strings.Cut(rest, " ")
		key, val, ok := strings.Cut(field, "=")
		var n uint64
		switch {
		case !ok || key == "":
			ok = false
		case key == "v":
			n, ok = parseDec(val)
			ok = ok && n > 0 && n <= 1<<32-1
			o.uidValidity = uint32(n)
		case key == "b":
			n, ok = parseDec(val)
			ok = ok && n < 1<<62
			o.base = n
		case key == "a":
			o.account, ok = unescape(val)
		case key == "x":
			o.id, ok = unescape(val)
		case key[0] < 'a' || key[0] > 'z':
			return o, fmt.Errorf("option %.40q: %w", field, ErrNewerFormat)
		}
		if !ok {
			return o, fmt.Errorf("bad option %.40q: %w", field, ErrCorrupt)
		}
	}
	return o, nil
}

// parseVersion reads major.minor and refuses a newer major version.
func parseVersion(s string) (major, minor int, err error) {
	a, b, ok := strings.Cut(s, ".")
	x, ok1 := parseDec(a)
	y, ok2 := parseDec(b)
	if !ok || !ok1 || !ok2 || x > 1<<20 || y > 1<<20 {
		return 0, 0, fmt.Errorf("bad version %.20q: %w", s, ErrCorrupt)
	}
	if x > formatMajor {
		return int(x), int(y), fmt.Errorf("version %s: %w", s, ErrNewerFormat)
	}
	return int(x), int(y), nil
}
