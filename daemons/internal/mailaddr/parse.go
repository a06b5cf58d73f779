package mailaddr

import "strings"

// Parse reads a bare Mailbox, without angle brackets, or "postmaster" without a domain. The whole
// text must be consumed. Errors are *SyntaxError.
func Parse(s string) (Address, error) {
	a, rest, err := parseMailbox(s)
	if err != nil {
		return Address{}, err
	}
	if rest != "" {
		return Address{}, syntax(s, "has text after its end")
	}
	return a, nil
}

// ParseReversePath reads the path of MAIL FROM at the start of s and returns what follows it (the
// command's parameters). "<>" gives the null address. Errors are *SyntaxError.
func ParseReversePath(s string) (a Address, rest string, err error) {
	if rest, ok := strings.CutPrefix(s, "<>"); ok {
		if err := checkEnd(s, rest); err != nil {
			return Address{}, "", err
		}
		return Address{}, rest, nil
	}
	return ParseForwardPath(s)
}

// ParseForwardPath reads the path of RCPT TO at the start of s and returns what follows it.
// "<postmaster>" gives an Address without a domain. Errors are *SyntaxError.
func ParseForwardPath(s string) (a Address, rest string, err error) {
	rest, bracket := strings.CutPrefix(s, "<")
	if bracket && strings.HasPrefix(rest, "@") {
		// RFC 5321 appendix C: a source route is accepted and ignored.
		route, after, ok := strings.Cut(rest, ":")
		if !ok || checkRoute(route) != nil {
			return Address{}, "", syntax(s, "the source route is malformed")
		}
		rest = after
	}
	a, rest, err = parseMailbox(rest)
	if err != nil {
		return Address{}, "", err
	}
	if bracket {
		after, ok := strings.CutPrefix(rest, ">")
		if !ok {
			return Address{}, "", syntax(s, "the closing > is missing")
		}
		rest = after
	}
	if err := checkEnd(s, rest); err != nil {
		return Address{}, "", err
	}
	return a, rest, nil
}

func checkEnd(s, rest string) error {
	if rest != "" && rest[0] != ' ' {
		return syntax(s, "has text after its end")
	}
	return nil
}

func checkRoute(route string) error {
	for hop := range strings.SplitSeq(route, ",") {
		domain, ok := strings.CutPrefix(hop, "@")
		if !ok {
			return syntax(route, "is no source route")
		}
		if err := checkDomain(domain); err != nil {
			return err
		}
	}
	return nil
}

// parseMailbox reads Local-part "@" Domain; the domain ends before ">", a space or the end.
func parseMailbox(s string) (Address, string, error) {
	local, rest, err := parseLocal(s)
	if err != nil {
		return Address{}, "", err
	}
	after, ok := strings.CutPrefix(rest, "@")
	if !ok {
		if strings.EqualFold(local, "postmaster") && (rest == "" || rest[0] == '>' || rest[0] == ' ') {
			return Address{Local: local}, rest, nil
		}
		return Address{}, "", syntax(s, "has no @")
	}
	end := strings.IndexAny(after, "> ")
	if end < 0 {
		end = len(after)
	}
	domain := after[:end]
	if domain == "" {
		return Address{}, "", syntax(s, "the part after the @ is empty")
	}
	a, err := New(local, domain)
	return a, after[end:], err
}

func parseLocal(s string) (local, rest string, err error) {
	if strings.HasPrefix(s, `"`) {
		return parseQuoted(s)
	}
	i := 0
	for i < len(s) && (s[i] == '.' || isAtext(s[i])) {
		i++
	}
	if i == 0 {
		return "", "", syntax(s, "the part before the @ is empty or needs quotes")
	}
	return s[:i], s[i:], nil
}

func parseQuoted(s string) (local, rest string, err error) {
	var b strings.Builder
	for i := 1; i < len(s); i++ {
		switch c := s[i]; c {
		case '"':
			return b.String(), s[i+1:], nil
		case '\\':
			i++
			if i == len(s) || s[i] < 32 || s[i] > 126 {
				return "", "", syntax(s, "has a backslash before what cannot be quoted")
			}
			b.WriteByte(s[i])
		default:
			b.WriteByte(c)
		}
	}
	return "", "", syntax(s, "the closing quote is missing")
}
