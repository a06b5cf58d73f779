package imapwire

import (
	"net/url"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// URL is an IMAP URL of a message or a part of one (RFC 5092), perhaps with an authorization (RFC 4467).
//
//	url       = ["imap://" [user [";AUTH=" mechanism] "@"] host] path
//	path      = ["/"] [mailbox [";UIDVALIDITY=" nz-number] "/"] ";UID=" nz-number ["/;SECTION=" section]
//	            ["/;PARTIAL=" number ["." nz-number]] [[";EXPIRE=" date-time] ";URLAUTH=" access [":" mechanism ":" token]]
//	access    = "anonymous" / "authuser" / ("user+" / "submit+") user
//
// Mailbox, section and user are percent-encoded UTF-8. The slash before ";SECTION" and ";PARTIAL" may be missing: examples
// in RFC 4467 leave it out.
type URL struct {
	Host, User string // both empty: a relative URL
	Rooted     bool   // the path begins with a slash
	Mailbox    string // UTF-8; empty: the selected one
	Validity   uint32 // 0: not given
	UID        uint32
	Item       FetchItem // the section and what of it

	Expire    time.Time // zero: never
	Access    string    // decoded, the word before "+" in lower case; empty: no authorization
	Mechanism string    // in upper case; empty: of a URL that is not authorized yet
	Token     string
	Rump      string // what is authorized: the URL without mechanism and token
}

// maxURL bounds the length of a URL.
const maxURL = 8 << 10

func urlf(format string, args ...any) error { return syntaxf("URL: "+format, args...) }

// ParseURL takes a URL apart. Its errors are *SyntaxError.
func ParseURL(s string) (*URL, error) {
	if len(s) > maxURL {
		return nil, urlf("longer than %d bytes", maxURL)
	}
	for i := range len(s) {
		if s[i] <= 0x20 || s[i] >= 0x7f || s[i] == '"' || s[i] == '\\' {
			return nil, urlf("a byte that must be percent-encoded")
		}
	}
	u := &URL{Item: FetchItem{Kind: FetchSection, Peek: true}}
	path := s
	if rest, ok := cutFold(s, "imap://"); ok {
		authority, after, found := strings.Cut(rest, "/")
		if !found {
			return nil, urlf("names no message")
		}
		if err := u.authority(authority); err != nil {
			return nil, err
		}
		path = "/" + after
	} else if strings.HasPrefix(s, "//") {
		return nil, urlf("network path without a scheme")
	}
	path, err := u.authorization(s, path)
	if err != nil {
		return nil, err
	}
	return u, u.message(path)
}

func cutFold(s, prefix string) (rest string, ok bool) {
	if len(s) >= len(prefix) && strings.EqualFold(s[:len(prefix)], prefix) {
		return s[len(prefix):], true
	}
	return s, false
}

// indexFold finds a parameter in the path, or -1. All of it is ASCII.
func indexFold(s, name string) int { return strings.Index(strings.ToUpper(s), name) }

func decodeURL(s string) (string, error) {
	out, err := url.PathUnescape(s)
	if err != nil || !utf8.ValidString(out) || strings.ContainsAny(out, "\x00\r\n") {
		return "", urlf("not percent-encoded UTF-8")
	}
	return out, nil
}

func (u *URL) authority(s string) (err error) {
	if user, host, found := strings.Cut(s, "@"); found {
		s = host
		if i := indexFold(user, ";AUTH="); i >= 0 {
			user = user[:i]
		}
		if u.User, err = decodeURL(user); err != nil {
			return err
		}
	}
	if u.Host = s; s == "" {
		return urlf("no host")
	}
	return nil
}

// authorization takes EXPIRE and URLAUTH off the end of the path.
func (u *URL) authorization(whole, path string) (rest string, err error) {
	at := indexFold(path, ";URLAUTH=")
	if at < 0 {
		if indexFold(path, ";EXPIRE=") >= 0 {
			return "", urlf("EXPIRE without URLAUTH")
		}
		return path, nil
	}
	auth := path[at+len(";URLAUTH="):]
	path = path[:at]
	if i := indexFold(path, ";EXPIRE="); i >= 0 {
		if u.Expire, err = time.Parse(time.RFC3339, strings.ToUpper(path[i+len(";EXPIRE="):])); err != nil {
			return "", urlf("EXPIRE is no date and time")
		}
		path = path[:i]
	}
	u.Rump = whole
	if access, proof, found := strings.Cut(auth, ":"); found {
		u.Rump = whole[:len(whole)-len(proof)-1]
		var token string
		u.Mechanism, token, found = strings.Cut(strings.ToUpper(proof), ":")
		if u.Token = strings.ToLower(token); !found || u.Mechanism == "" || token == "" {
			return "", urlf("mechanism and token belong together")
		}
		auth = access
	}
	word, user, found := strings.Cut(auth, "+")
	word = strings.ToLower(word)
	switch {
	case !found && (word == "anonymous" || word == "authuser"):
		u.Access = word
	case found && (word == "user" || word == "submit") && user != "":
		if user, err = decodeURL(user); err != nil {
			return "", err
		}
		u.Access = word + "+" + user
	default:
		return "", urlf("unknown access in URLAUTH")
	}
	return path, nil
}

// message takes the path apart.
func (u *URL) message(path string) (err error) {
	path, u.Rooted = strings.CutPrefix(path, "/")
	at := indexFold(path, ";UID=")
	if at < 0 || at > 0 && path[at-1] != '/' {
		return urlf("names no message")
	}
	if at > 0 {
		box := path[:at-1]
		if i := indexFold(box, ";UIDVALIDITY="); i >= 0 {
			if u.Validity, err = urlNumber(box[i+len(";UIDVALIDITY="):]); err != nil {
				return err
			}
			box = box[:i]
		}
		if u.Mailbox, err = decodeURL(box); err != nil {
			return err
		}
		if u.Mailbox == "" && (u.Validity != 0 || at > 1) || strings.Contains(box, ";") {
			return urlf("no name of a mailbox")
		}
		u.Mailbox = CanonicalInbox(u.Mailbox)
	}
	rest := path[at+len(";UID="):]
	if i := indexFold(rest, ";PARTIAL="); i >= 0 {
		if err := u.partial(rest[i+len(";PARTIAL="):]); err != nil {
			return err
		}
		rest = strings.TrimSuffix(rest[:i], "/")
	}
	if i := indexFold(rest, ";SECTION="); i >= 0 {
		if err := u.section(rest[i+len(";SECTION="):]); err != nil {
			return err
		}
		rest = strings.TrimSuffix(rest[:i], "/")
	}
	u.UID, err = urlNumber(strings.TrimSuffix(rest, "/"))
	return err
}

func urlNumber(s string) (uint32, error) {
	n, err := strconv.ParseUint(s, 10, 32)
	if err != nil || n == 0 {
		return 0, urlf("not a number: %s", excerpt([]byte(s)))
	}
	return uint32(n), nil
}

func (u *URL) section(s string) error {
	s, err := decodeURL(s)
	if err != nil {
		return err
	}
	if s == "" || strings.ContainsAny(s, "{[]") {
		return urlf("unknown section")
	}
	d := NewDecoder(strings.NewReader(""), Limits{}, func() error { return nil })
	d.line = []byte("[" + s + "]")
	if err := d.section(&u.Item); err != nil {
		return err
	}
	if d.pos != len(d.line) {
		return urlf("unknown section")
	}
	return nil
}

func (u *URL) partial(s string) (err error) {
	offset, length, found := strings.Cut(s, ".")
	u.Item.Partial, u.Item.Length = true, 1<<63-1
	if u.Item.Offset, err = strconv.ParseUint(offset, 10, 63); err != nil {
		return urlf("PARTIAL is no range")
	}
	if found {
		if u.Item.Length, err = strconv.ParseUint(length, 10, 63); err != nil || u.Item.Length == 0 {
			return urlf("PARTIAL is no range")
		}
	}
	return nil
}
