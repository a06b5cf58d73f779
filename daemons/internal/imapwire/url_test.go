package imapwire

import (
	"errors"
	"fmt"
	"strings"
	"testing"
)

var urlSeeds = []string{
	"/Drafts;UIDVALIDITY=385759045/;UID=20/;section=HEADER",
	"imap://joe%40example.com@example.com/INBOX/;uid=20/;section=1.2;urlauth=submit+fred:internal:91354a473744909de610943775f92038",
	"imap://joe@example.com:993/a%2Fb/c;uidvalidity=3/;uid=1;section=1.MIME/;partial=5.10;expire=2026-11-24T10:00:00Z;urlauth=anonymous",
	";UID=7", "/;UID=7/;PARTIAL=3", "box/;UID=4/;SECTION=HEADER.FIELDS%20(From%20To)",
}

func TestURL(t *testing.T) {
	for _, c := range []struct{ in, want string }{
		{urlSeeds[0], `"" "" true "Drafts" 385759045 20 [HEADER] "" "" ""`},
		{urlSeeds[1], `"example.com" "joe@example.com" true "INBOX" 0 20 [1.2] "submit+fred" "INTERNAL" "91354a473744909de610943775f92038"`},
		{urlSeeds[2], `"example.com:993" "joe" true "a/b/c" 3 1 [1.MIME] 5+10 expires "anonymous" "" ""`},
		{";UID=7", `"" "" false "" 0 7 [] "" "" ""`},
		{"/;UID=7/;PARTIAL=3", `"" "" true "" 0 7 [] 3+9223372036854775807 "" "" ""`},
		{urlSeeds[5], `"" "" false "box" 0 4 [HEADER.FIELDS (FROM TO)] "" "" ""`},
		{"/inbox/;uid=1", `"" "" true "INBOX" 0 1 [] "" "" ""`},
		{"/gr%C3%BCn/;UID=1;URLAUTH=USER+a%40b", `"" "" true "grün" 0 1 [] "user+a@b" "" ""`},
		{"/x", "names no message"}, {"imap://host", "names no message"}, {"imap:///x/;uid=1", "no host"}, {"//host/x/;uid=1", "without a scheme"},
		{"/x/;UID=0", "not a number"}, {"/x/;UID=1/;SECTION=FOO", "unknown section"}, {"/x/;UID=1/;SECTION=1%5D", "unknown section"},
		{"/x/;UID=1/;SECTION=HEADER.FIELDS%20(%7B5%7D%0D%0A)", "not percent-encoded"}, {"/x/;UID=1/;SECTION=HEADER.FIELDS%20(%7B5%2B%7D)", "unknown section"},
		{"/x/;UID=1/;PARTIAL=1.0", "no range"}, {"/x/;UID=1/;PARTIAL=x", "no range"}, {"/x;UIDVALIDITY=0/;UID=1", "not a number"},
		{"/x y/;UID=1", "must be percent-encoded"}, {"/%FF/;UID=1", "not percent-encoded UTF-8"}, {"/x/;UID=1;URLAUTH=nobody", "unknown access"},
		{"/x/;UID=1;URLAUTH=anonymous:internal", "belong together"}, {"/x/;UID=1;EXPIRE=2026-11-24T10:00:00Z", "EXPIRE without"},
		{"/x/;UID=1;EXPIRE=soon;URLAUTH=anonymous", "no date"}, {"/a;b/;UID=1", "no name"}, {strings.Repeat("x", 9000), "longer than"},
	} {
		u, err := ParseURL(c.in)
		got := ""
		if err != nil {
			var syntax *SyntaxError
			if !errors.As(err, &syntax) || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%s: %v, want %q", c.in, err, c.want)
			}
			continue
		}
		got = fmt.Sprintf("%q %q %v %q %d %d %s", u.Host, u.User, u.Rooted, u.Mailbox, u.Validity, u.UID, strings.TrimPrefix(string(sectionOf(u)), "BODY"))
		if u.Item.Partial {
			got += fmt.Sprintf(" %d+%d", u.Item.Offset, u.Item.Length)
		}
		if !u.Expire.IsZero() {
			got += " expires"
		}
		if got += fmt.Sprintf(" %q %q %q", u.Access, u.Mechanism, u.Token); got != c.want {
			t.Errorf("%s:\n%s, want\n%s", c.in, got, c.want)
		}
	}
}

func sectionOf(u *URL) []byte {
	item := u.Item
	item.Partial = false
	return item.appendTag(nil)
}

// FuzzURL takes whatever apart: what is authorized is always the beginning of the URL, and the message is named.
func FuzzURL(f *testing.F) {
	for _, s := range urlSeeds {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		u, err := ParseURL(s)
		if err != nil {
			return
		}
		if u.UID == 0 || !strings.HasPrefix(s, u.Rump) || (u.Access == "") != (u.Rump == "") || u.Mechanism != "" && u.Token == "" {
			t.Fatalf("%q: %+v", s, u)
		}
	})
}
