package ldapsession

import (
	"testing"

	"github.com/go-ldap/ldap/v3"
)

// RFC 3062.
func TestPasswordModify(t *testing.T) {
	f := start(t)
	alice, bob := "uid=alice,ou=people,o=shoal", "uid=bob,ou=people,o=shoal"
	modify := func(c *ldap.Conn, who, old, fresh string) (string, int) {
		t.Helper()
		res, err := c.PasswordModify(ldap.NewPasswordModifyRequest(who, old, fresh))
		if err != nil {
			return "", codeOf(err)
		}
		return res.GeneratedPassword, 0
	}
	root, own := f.root(t), f.bound(t, alice, "alicepass")
	for _, c := range []struct {
		name          string
		c             *ldap.Conn
		who, old, new string
		code          int
	}{
		{"somebody else's", own, bob, "bobpass", "x", ldap.LDAPResultInsufficientAccessRights},
		{"one's own without the old one", own, "", "", "x", ldap.LDAPResultUnwillingToPerform},
		{"one's own with a wrong old one", own, "", "bobpass", "x", ldap.LDAPResultUnwillingToPerform},
		{"anonymous", f.dial(t), alice, "alicepass", "x", ldap.LDAPResultInsufficientAccessRights},
		{"the root DN's", root, "", "secret", "x", ldap.LDAPResultUnwillingToPerform},
		{"nobody's", root, "uid=none,ou=people,o=shoal", "", "x", ldap.LDAPResultNoSuchObject},
		{"one's own", own, "", "alicepass", "alice2", 0},
		{"somebody's by the root DN", root, "dn:" + bob, "", "bob2", 0},
		{"a wrong old one by the root DN", root, bob, "bobpass", "x", ldap.LDAPResultUnwillingToPerform},
	} {
		if _, code := modify(c.c, c.who, c.old, c.new); code != c.code {
			t.Errorf("%s: result %d, want %d", c.name, code, c.code)
		}
	}
	f.bound(t, alice, "alice2")
	f.bound(t, bob, "bob2")
	if err := f.dial(t).Bind(alice, "alicepass"); codeOf(err) != ldap.LDAPResultInvalidCredentials {
		t.Errorf("the old password: %v", err)
	}
	made, code := modify(root, alice, "", "")
	if code != 0 || len(made) < 16 {
		t.Fatalf("a password made by the server: %q, result %d", made, code)
	}
	f.bound(t, alice, made)

	shadow := start(t, func(o *Options, _ *Listening) { o.Refer = func() []string { return []string{"ldap://master.test"} } })
	if _, code := modify(shadow.root(t), alice, "", "x"); code != ldap.LDAPResultReferral {
		t.Errorf("at a shadow: result %d", code)
	}
	plain := start(t, func(_ *Options, l *Listening) { l.AllowPlain = false })
	if _, code := modify(plain.dial(t), alice, "alicepass", "x"); code == 0 {
		t.Error("without TLS")
	}
}

func passwordRequest(old, fresh string) *ldap.PasswordModifyRequest {
	return ldap.NewPasswordModifyRequest("", old, fresh)
}
