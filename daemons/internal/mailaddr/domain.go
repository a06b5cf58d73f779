package mailaddr

import (
	"net/netip"
	"strings"

	"golang.org/x/net/idna"
	"golang.org/x/text/unicode/norm"
)

// lookup maps a U-label name to the A-labels under which DNS and the directory know it (RFC 5891 §5,
// with the mapping of UTS 46: case, width and normalization).
var lookup = idna.New(idna.MapForLookup(), idna.Transitional(false), idna.BidiRule(), idna.StrictDomainName(true))

// Key is the form under which an address is looked up and compared: lower case, the local part in
// normalization form C, the domain as A-labels. RFC 5321 §2.4 lets only the domain's owner treat
// the local part as case-insensitive; this service does so for its own domains.
func (a Address) Key() string {
	if a.IsNull() {
		return ""
	}
	local := a.Local
	if isASCII(local) {
		local = strings.ToLower(local)
	} else {
		local = norm.NFC.String(strings.ToLower(norm.NFC.String(local)))
	}
	return Address{local, DomainKey(a.Domain)}.String()
}

// DomainKey is the form under which a domain is looked up and compared: lower case, A-labels. Text
// that is no domain is only lower-cased.
func DomainKey(domain string) string {
	if isASCII(domain) {
		return strings.ToLower(domain)
	}
	ascii, err := lookup.ToASCII(domain)
	if err != nil {
		return strings.ToLower(domain)
	}
	return ascii
}

func checkDomain(domain string) error {
	if strings.HasPrefix(domain, "[") {
		return checkLiteral(domain)
	}
	ascii := domain
	if !isASCII(domain) {
		if err := checkText(domain); err != nil {
			return err
		}
		if len(domain) > 4*MaxDomain {
			return syntax(domain, "the domain is too long")
		}
		var err error
		if ascii, err = lookup.ToASCII(domain); err != nil {
			return syntax(domain, "is not an internationalized domain name")
		}
	}
	if ascii == "" {
		return syntax(domain, "the domain is empty")
	}
	if len(ascii) > MaxDomain {
		return syntax(domain, "the domain is too long")
	}
	for label := range strings.SplitSeq(ascii, ".") {
		if err := checkLabel(label); err != nil {
			return err
		}
	}
	return nil
}

func checkLabel(label string) error {
	switch {
	case label == "":
		return syntax(label, "the domain has an empty label")
	case len(label) > maxLabel:
		return syntax(label, "a label of the domain is too long")
	case label[0] == '-' || label[len(label)-1] == '-':
		return syntax(label, "a label of the domain begins or ends with a hyphen")
	}
	for i := 0; i < len(label); i++ {
		c := label[i]
		if !(c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '-' || c == '_') {
			return syntax(label, "the domain holds a character that no domain has")
		}
	}
	return nil
}

// checkLiteral reads RFC 5321 §4.1.3's address literals. A general one (tag ":" content) is held to
// its syntax only.
func checkLiteral(s string) error {
	body, ok := strings.CutSuffix(s[1:], "]")
	if !ok || len(s) > MaxDomain {
		return syntax(s, "the address literal is malformed")
	}
	tag, content, tagged := strings.Cut(body, ":")
	switch {
	case !tagged:
		if ip, err := netip.ParseAddr(body); err == nil && ip.Is4() {
			return nil
		}
	case strings.EqualFold(tag, "IPv6"):
		if ip, err := netip.ParseAddr(content); err == nil && ip.Is6() && ip.Zone() == "" {
			return nil
		}
	case checkLabel(tag) == nil && content != "":
		for i := 0; i < len(content); i++ {
			if c := content[i]; c < 33 || c > 126 || c >= '[' && c <= ']' || c == '>' {
				return syntax(s, "the address literal is malformed")
			}
		}
		return nil
	}
	return syntax(s, "the address literal is malformed")
}
