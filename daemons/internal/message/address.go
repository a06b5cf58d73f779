package message

import "strings"

// Address lists, with what is obsolete and what merely occurs.
//
//	address-list = address *("," address)                       RFC 5322 §3.4
//	address      = mailbox / group
//	mailbox      = [phrase] "<" [route] addr-spec ">" / addr-spec
//	group        = phrase ":" [mailbox-list] ";"
//	route        = "@" domain *("," "@" domain) ":"             RFC 5322 §4.4
//
// Read besides: empty elements, semicolons as separators, a comment as the name of a bare address,
// a missing ">", a phrase or a word with no address at all, and dots and 8-bit text in phrases.
const maxAddresses = 10000 // of one list; more are left out

// ParseAddresses reads an address list. It never fails: what cannot be an address is named so by
// MissingMailbox and MissingDomain. nil for an empty list.
func ParseAddresses(value string) []Address {
	if value == "" {
		return nil
	}
	var room [8]word
	p := addressParser{rest: value, words: room[:0]}
	p.skip()
	for p.rest != "" && len(p.list) < maxAddresses {
		p.address()
	}
	if p.group {
		p.list = append(p.list, Address{})
	}
	return p.list
}

type addressParser struct {
	rest    string
	list    []Address
	group   bool
	comment string // text of the last comment that was skipped
	words   []word // what stands before the present separator
}

// word is an atom or a quoted string without its quoting.
type word struct {
	text  string
	blank bool // something that may be left out stands before it
}

// skip leaves out blanks and comments; the last comment may turn out to be a name.
func (p *addressParser) skip() {
	for p.rest != "" {
		switch p.rest[0] {
		case ' ', '\t', '\r', '\n':
			p.rest = p.rest[1:]
		case '(':
			p.comment, p.rest = cutComment(p.rest)
		default:
			return
		}
	}
}

// address reads one element of the list; the separator behind it makes an empty element.
func (p *addressParser) address() {
	p.comment = ""
	p.skip()
	phrase := p.readWords()
	c := byte(0)
	if p.rest != "" {
		c, p.rest = p.rest[0], p.rest[1:]
	}
	switch c {
	case '<':
		p.angle(phrase)
	case '@':
		lead, local := p.localPart()
		host := p.domain()
		p.skip()
		if lead == "" {
			lead = unescape(p.comment)
		}
		p.add(Address{Name: lead, Mailbox: local, Host: host})
		p.resync()
	case ':':
		if !p.group {
			p.group = true
			if phrase == "" {
				phrase = MissingMailbox
			}
			p.list = append(p.list, Address{Mailbox: phrase})
		}
	case ';':
		p.bare(phrase)
		if p.group {
			p.group = false
			p.list = append(p.list, Address{})
		}
	default: // a comma, the end, or a byte that has no business here
		p.bare(phrase)
	}
	p.skip()
}

// bare adds what has no domain: a word, or a phrase.
func (p *addressParser) bare(phrase string) {
	switch len(p.words) {
	case 0:
	case 1:
		p.add(Address{Name: unescape(p.comment), Mailbox: phrase, Host: MissingDomain})
	default:
		p.add(Address{Name: phrase, Mailbox: MissingMailbox, Host: MissingDomain})
	}
}

// angle reads an address behind its "<".
func (p *addressParser) angle(name string) {
	p.skip()
	a := Address{Name: name}
	if p.rest != "" && (p.rest[0] == '@' || p.rest[0] == ',') {
		if end := strings.IndexAny(p.rest, ":>"); end >= 0 && p.rest[end] == ':' {
			a.Route = compact(p.rest[:end])
			p.rest = p.rest[end+1:]
			p.skip()
		}
	}
	p.readWords()
	var lead string
	if lead, a.Mailbox = p.localPart(); lead != "" {
		a.Mailbox = lead + " " + a.Mailbox
	}
	if p.rest != "" && p.rest[0] == '@' {
		p.rest = p.rest[1:]
		a.Host = p.domain()
	}
	if end := strings.IndexByte(p.rest, '>'); end >= 0 {
		p.rest = p.rest[end+1:]
	} else {
		p.rest = ""
	}
	if a.Mailbox == "" && a.Host == "" && a.Name == "" {
		return // the null address "<>"
	}
	p.add(a)
	p.skip()
	p.resync()
}

// resync leaves out what stands between an address and the next separator.
func (p *addressParser) resync() {
	if i := strings.IndexAny(p.rest, ",;<"); i >= 0 {
		p.rest = p.rest[i:]
	} else {
		p.rest = ""
	}
}

func (p *addressParser) add(a Address) {
	if a.Mailbox == "" {
		a.Mailbox = MissingMailbox
	}
	if a.Host == "" {
		a.Host = MissingDomain
	}
	if p.list == nil {
		p.list = make([]Address, 0, 1+min(strings.Count(p.rest, ","), 64))
	}
	p.list = append(p.list, a)
}

// readWords reads atoms and quoted strings up to something else, and returns the phrase that they
// make: one space between words, no quoting.
func (p *addressParser) readWords() (phrase string) {
	p.words = p.words[:0]
	from, length := p.rest, 0
	plain, blank := true, false
	for p.rest != "" {
		var w string
		switch c := p.rest[0]; {
		case c == '"':
			w, p.rest = cutQuoted(p.rest)
			plain = false
		case isWordByte(c):
			w, p.rest = cutWord(p.rest)
		default:
			return p.phrase(plain, from[:length])
		}
		length = len(from) - len(p.rest)
		p.words = append(p.words, word{w, blank})
		before := p.rest
		p.skip()
		blank = len(before) != len(p.rest)
		if len(before)-len(p.rest) > 1 || blank && before[0] != ' ' || !blank && p.rest != "" && p.rest[0] == '"' {
			plain = plain && (p.rest == "" || !isWordByte(p.rest[0]) && p.rest[0] != '"')
		}
	}
	return p.phrase(plain, from[:length])
}

func (p *addressParser) phrase(plain bool, text string) string {
	switch {
	case len(p.words) == 1:
		return p.words[0].text
	case plain:
		return text
	}
	return joinWords(p.words, true)
}

// localPart is the local part that the words end with: the last word, and those before it that
// hang together with it by having a dot or nothing in between. lead are the words before that.
func (p *addressParser) localPart() (lead, local string) {
	n := len(p.words)
	if n == 0 {
		return "", ""
	}
	for n--; n > 0; n-- {
		w, prev := p.words[n], p.words[n-1]
		if w.blank && !strings.HasPrefix(w.text, ".") && !strings.HasSuffix(prev.text, ".") {
			break
		}
	}
	return joinWords(p.words[:n], true), joinWords(p.words[n:], false)
}

// joinWords joins words, with a space where there was a blank if blanks is set.
func joinWords(words []word, blanks bool) string {
	switch len(words) {
	case 0:
		return ""
	case 1:
		return words[0].text
	}
	var b strings.Builder
	for i, w := range words {
		if blanks && i > 0 && w.blank {
			b.WriteByte(' ')
		}
		b.WriteString(w.text)
	}
	return b.String()
}

// cutWord cuts off an atom, dots included.
func cutWord(s string) (word, rest string) {
	i := 0
	for i < len(s) && isWordByte(s[i]) {
		i++
	}
	return s[:i], s[i:]
}

func isWordByte(c byte) bool {
	switch c {
	case '(', ')', '<', '>', '@', ',', ';', ':', '"':
		return false
	}
	return c > ' ' && c != 0x7f
}

// domain reads a domain or an address literal, blanks and comments in it left out.
func (p *addressParser) domain() string {
	p.skip()
	p.comment = "" // only one behind the address may be its name
	var host string
	for p.rest != "" {
		var w string
		if p.rest[0] == '[' {
			end := strings.IndexByte(p.rest, ']')
			if end < 0 {
				end = len(p.rest) - 1
			}
			w, p.rest = p.rest[:end+1], p.rest[end+1:]
		} else if w, p.rest = cutWord(p.rest); w == "" {
			break
		}
		if host == "" {
			host = w
		} else {
			host += w
		}
		// "user@example . com" is one domain; "user@example.com John" is not.
		p.skip()
		if !strings.HasSuffix(host, ".") && (p.rest == "" || p.rest[0] != '.') {
			break
		}
	}
	return host
}

// compact leaves the blanks and comments of a route out.
func compact(s string) string {
	var b strings.Builder
	for s = skipCFWS(s); s != ""; s = skipCFWS(s) {
		b.WriteByte(s[0])
		s = s[1:]
	}
	return b.String()
}

// unescape removes the backslashes of quoted pairs and the blanks around a comment's text.
func unescape(s string) string {
	s = strings.Trim(s, " \t")
	if strings.IndexByte(s, '\\') < 0 {
		return s
	}
	b := make([]byte, 0, len(s))
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+1 < len(s) {
			i++
		}
		b = append(b, s[i])
	}
	return string(b)
}
