// Package mailaddr holds mail addresses as the SMTP envelope carries them: their grammar, their
// canonical text and the key by which two spellings of one address are the same.
//
// Grammar (RFC 5321 §4.1.2 as widened by RFC 6531 §3.3; octet bounds of RFC 5321 §4.5.3.1):
//
//	Reverse-path   = "<>" / Path
//	Forward-path   = Path / "<postmaster>"          ; any case
//	Path           = "<" [ A-d-l ":" ] Mailbox ">"  ; the source route is read and dropped
//	Mailbox        = Local-part "@" ( Domain / address-literal )
//	Local-part     = Dot-string / Quoted-string     ; at most 64 octets without its quotes
//	Dot-string     = Atom *("." Atom)
//	Atom           = 1*atext                        ; atext includes every non-ASCII character
//	Quoted-string  = DQUOTE *( qtext / "\" %d32-126 ) DQUOTE
//	Domain         = label *("." label)             ; at most 253 octets as A-labels, 63 a label
//	address-literal= "[" ( IPv4 / "IPv6:" IPv6 / tag ":" content ) "]"
//
// Invariants: an Address that this package returned holds no control character, is valid UTF-8, is
// within the bounds, and Parse(a.String()) gives a again.
//
// Read more widely than the grammar, because real senders do it: empty atoms in a dot-string
// ("a..b@example.test", written back quoted), "_" in a domain, and a path without its brackets.
// Left out on purpose: RFC 5322 addresses of header fields (comments, groups, display names), and
// general address literals beyond their syntax.
package mailaddr

import (
	"fmt"
	"strings"
	"unicode/utf8"
)

// Bounds in octets (RFC 5321 §4.5.3.1.1 and .2; a domain name's 253 is RFC 1035's 255 on the wire).
const (
	MaxLocal  = 64
	MaxDomain = 253
	maxLabel  = 63
)

// Address is one mailbox. Local is without quotes and backslashes, Domain as it was written:
// U-labels, A-labels or an address literal with its brackets. The zero Address is the null
// reverse-path "<>"; {Local: "postmaster"} without a domain is the reserved mailbox of
// RFC 5321 §4.1.1.3.
type Address struct {
	Local, Domain string
}

// SyntaxError says why a text is not an address. Text is what was read, cut to a printable length.
type SyntaxError struct {
	Text, Reason string
}

func (e *SyntaxError) Error() string {
	return fmt.Sprintf("address %q: %s", e.Text, e.Reason)
}

func syntax(text, reason string) error {
	if len(text) > 80 {
		text = text[:80]
	}
	return &SyntaxError{Text: strings.ToValidUTF8(text, "?"), Reason: reason}
}

// New makes an address of an unquoted local part and a domain, and checks both. An empty domain is
// accepted with the local part "postmaster" only. Errors are *SyntaxError.
func New(local, domain string) (Address, error) {
	a := Address{local, domain}
	if err := checkLocal(local); err != nil {
		return Address{}, err
	}
	if domain == "" && strings.EqualFold(local, "postmaster") {
		return a, nil
	}
	if err := checkDomain(domain); err != nil {
		return Address{}, err
	}
	return a, nil
}

// IsNull reports whether a is the null reverse-path.
func (a Address) IsNull() bool { return a == Address{} }

// IsPostmaster reports whether a is the reserved mailbox, with or without a domain.
func (a Address) IsPostmaster() bool { return strings.EqualFold(a.Local, "postmaster") }

// String gives the address in its canonical spelling: quoted only where the grammar demands it. The
// null address is "".
func (a Address) String() string {
	if a.IsNull() {
		return ""
	}
	local := a.Local
	if !isDotString(local) {
		local = quote(local)
	}
	if a.Domain == "" {
		return local
	}
	return local + "@" + a.Domain
}

// Path gives "<address>", "<>" for the null address.
func (a Address) Path() string { return "<" + a.String() + ">" }

// IsASCII reports whether the address can go to a server without SMTPUTF8 (RFC 6531 §3.2).
func (a Address) IsASCII() bool { return isASCII(a.Local) && isASCII(a.Domain) }

// Subaddress splits "user+detail" at the first of the separators in seps (RFC 5233 §4 leaves the
// separator to the site). A local part that begins with a separator is not split, nor is anything
// when seps is empty. The base keeps the domain.
func (a Address) Subaddress(seps string) (base Address, detail string) {
	i := strings.IndexAny(a.Local, seps)
	if i <= 0 {
		return a, ""
	}
	return Address{a.Local[:i], a.Domain}, a.Local[i+1:]
}

// isDotString reports whether s can stand unquoted: atoms joined by single dots.
func isDotString(s string) bool {
	if s == "" {
		return false
	}
	last := byte('.')
	for i := 0; i < len(s); i++ {
		c := s[i]
		if c == '.' && last == '.' || c != '.' && !isAtext(c) {
			return false
		}
		last = c
	}
	return last != '.'
}

// isAtext is RFC 5322 §3.2.3's atext with RFC 6531's UTF8-non-ascii.
func isAtext(c byte) bool {
	switch {
	case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', c >= utf8.RuneSelf:
		return true
	}
	return strings.IndexByte("!#$%&'*+-/=?^_`{|}~", c) >= 0
}

func quote(s string) string {
	var b strings.Builder
	b.Grow(len(s) + 2)
	b.WriteByte('"')
	for i := 0; i < len(s); i++ {
		if s[i] == '"' || s[i] == '\\' {
			b.WriteByte('\\')
		}
		b.WriteByte(s[i])
	}
	b.WriteByte('"')
	return b.String()
}

func isASCII(s string) bool {
	for i := 0; i < len(s); i++ {
		if s[i] >= utf8.RuneSelf {
			return false
		}
	}
	return true
}

// checkText refuses invalid UTF-8 and every control character, the C1 set and the line and
// paragraph separators included: an address ends up in header fields, logs and terminals.
func checkText(s string) error {
	for i, r := range s {
		switch {
		case r == utf8.RuneError:
			if _, n := utf8.DecodeRuneInString(s[i:]); n == 1 {
				return syntax(s, "is not valid UTF-8")
			}
		case r < 0x20 || r >= 0x7f && r <= 0x9f || r == 0x2028 || r == 0x2029:
			return syntax(s, "holds a control character")
		}
	}
	return nil
}

func checkLocal(local string) error {
	if local == "" {
		return syntax(local, "the part before the @ is empty")
	}
	if len(local) > MaxLocal {
		return syntax(local, fmt.Sprintf("the part before the @ is longer than %d octets", MaxLocal))
	}
	return checkText(local)
}
