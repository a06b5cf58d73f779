package sieve

import (
	"errors"
	"fmt"
	"strings"

	"shoal/daemons/internal/mailaddr"
)

var notifyTags = tagSet{
	"from":       {takes: argString},
	"importance": {takes: argString},
	"options":    {takes: argStrings},
	"message":    {takes: argString},
}

// buildNotify: RFC 5435 with the method mailto (RFC 5436).
func buildNotify(c *compiler, b *bound) stmt {
	method, from, text := c.text(b.args[0].strs[0]), c.tagText(b, "from"), c.tagText(b, "message")
	if method.constant() {
		if _, err := parseMailto(method.lit); err != nil {
			c.fail(b.args[0].pos, "%v", err)
		}
	}
	if from != nil && from.constant() && len(addresses(from.lit)) != 1 {
		c.fail(b.tags["from"].pos, "%q is not one mail address", from.lit)
	}
	importance := c.tagText(b, "importance")
	if importance != nil && importance.constant() && !isImportance(importance.lit) {
		c.fail(b.tags["importance"].pos, "the importance is \"1\" (high), \"2\" or \"3\" (low), not %q", importance.lit)
	}
	fcc := c.fcc(b)
	return func(r *run) error {
		uri, err := r.expand(method)
		if err != nil {
			return err
		}
		n, err := parseMailto(uri)
		if err != nil {
			return fmt.Errorf("notify: %w", err)
		}
		if n.From, err = r.expand(from); err != nil {
			return err
		}
		if n.From != "" && len(addresses(n.From)) != 1 {
			return fmt.Errorf("notify: %q is not one mail address", n.From)
		}
		if n.Message, err = r.expand(text); err != nil {
			return err
		}
		if len(n.Message) > maxReasonBytes {
			return fmt.Errorf("the message is longer than %s", size(maxReasonBytes))
		}
		level, err := r.expand(importance)
		if err != nil {
			return err
		}
		n.Importance = 2
		if isImportance(level) {
			n.Importance = int(level[0] - '0')
		}
		if n.FCC, err = fcc(r); err != nil {
			return err
		}
		if why, err := r.noNotice(); why != "" || err != nil {
			r.note("notify: nothing sent: %s", why)
			return err
		}
		if r.counts.notifications++; r.counts.notifications > r.lim.Notifications {
			return fmt.Errorf("more than %d notifications", r.lim.Notifications)
		}
		return r.act(n)
	}
}

func isImportance(v string) bool { return v == "1" || v == "2" || v == "3" }

// noNotice: RFC 5436 §2.7.1, a notice about a notice could go round for ever.
func (r *run) noNotice() (string, error) {
	v, err := r.one("Auto-Submitted")
	if err != nil {
		return "", err
	}
	if v, _, _ := strings.Cut(v, ";"); strings.EqualFold(strings.TrimSpace(v), "auto-notified") {
		return "the message is a notification itself", nil
	}
	return "", nil
}

// parseMailto reads a mailto URI (RFC 6068):
//
//	mailtoURI = "mailto:" [ to ] [ "?" hfield *( "&" hfield ) ]     to = addr *( "," addr )
//	hfield    = name "=" value                                     name: to, cc (as to), body, or a header field
func parseMailto(uri string) (*Notify, error) {
	bad := func(why string) (*Notify, error) {
		return nil, fmt.Errorf("%q cannot be notified: %s", uri, why)
	}
	if len(uri) > 2000 {
		return nil, errors.New("the URI to notify is too long")
	}
	scheme, rest, _ := strings.Cut(uri, ":")
	if !strings.EqualFold(scheme, "mailto") {
		return bad("only mailto: is supported")
	}
	to, query, _ := strings.Cut(rest, "?")
	n := &Notify{Method: uri}
	add := func(list string) error {
		for v := range strings.SplitSeq(list, ",") {
			if v == "" {
				continue
			}
			plain, err := unescape(v)
			if err != nil {
				return err
			}
			a, err := mailaddr.Parse(strings.TrimSpace(plain))
			if err != nil {
				return err
			}
			n.To = append(n.To, a)
		}
		return nil
	}
	if err := add(to); err != nil {
		return bad(err.Error())
	}
	for part := range strings.SplitSeq(query, "&") {
		if part == "" {
			continue
		}
		name, value, ok := strings.Cut(part, "=")
		plain, err := unescape(value)
		name, nameErr := unescape(name)
		if name = strings.ToLower(name); !ok || err != nil || nameErr != nil || !fieldName(name) {
			return bad("its header fields are malformed")
		}
		switch {
		case name == "to" || name == "cc" || name == "bcc":
			if err := add(value); err != nil {
				return bad(err.Error())
			}
		case name == "body":
			n.Body = plain
		case strings.ContainsAny(plain, "\r\n\x00"):
			return bad("a header field has a line break")
		default:
			n.Fields = append(n.Fields, [2]string{name, plain})
		}
	}
	if len(n.To) == 0 {
		return bad("it names no address")
	}
	if len(n.To) > 10 {
		return bad("it names more than 10 addresses")
	}
	return n, nil
}

// unescape undoes percent-encoding; + stands for itself.
func unescape(v string) (string, error) {
	var b strings.Builder
	for i := 0; i < len(v); i++ {
		if v[i] != '%' {
			b.WriteByte(v[i])
			continue
		}
		if i+2 >= len(v) {
			return "", errors.New("a percent sign must be followed by two hex digits")
		}
		hi, lo := unhex(v[i+1]), unhex(v[i+2])
		if hi < 0 || lo < 0 {
			return "", errors.New("a percent sign must be followed by two hex digits")
		}
		b.WriteByte(byte(hi<<4 | lo))
		i += 2
	}
	return b.String(), nil
}

// unhex is the value of a hex digit; -1: it is none.
func unhex(c byte) int {
	switch {
	case isDigit(c):
		return int(c - '0')
	case c|0x20 >= 'a' && c|0x20 <= 'f':
		return int(c|0x20-'a') + 10
	}
	return -1
}
