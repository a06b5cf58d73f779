package dirclient

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-ldap/ldap/v3"
)

func TestNamesThatAreRefused(t *testing.T) {
	long := strings.Repeat("x", 70)
	uuid := "0d6f3c6e-6d2c-4c0c-9b0e-2f4f6b1f9a51"
	for name, make := range map[string]func() (Entry, error){
		"server: capital":        func() (Entry, error) { return NewServer{Name: "Box1", Role: "box"}.Entry("o=shoal") },
		"server: long":           func() (Entry, error) { return NewServer{Name: long, Role: "box"}.Entry("o=shoal") },
		"server: dot":            func() (Entry, error) { return NewServer{Name: "box.1", Role: "box"}.Entry("o=shoal") },
		"server: DN":             func() (Entry, error) { return NewServer{Name: "box1,o=x", Role: "box"}.Entry("o=shoal") },
		"server: role":           func() (Entry, error) { return NewServer{Name: "box1", Role: "king"}.Entry("o=shoal") },
		"server: port":           func() (Entry, error) { return server("127.0.0.1:0") },
		"server: no port":        func() (Entry, error) { return server("127.0.0.1") },
		"server: wild":           func() (Entry, error) { return server(":143") },
		"server: two in one":     func() (Entry, error) { return server("a:1 b:2") },
		"volume: slash":          func() (Entry, error) { return NewVolume{Name: "a/b", ID: uuid}.Entry("o=shoal") },
		"volume: id":             func() (Entry, error) { return NewVolume{Name: "v", ID: "1"}.Entry("o=shoal") },
		"volume: state":          func() (Entry, error) { return NewVolume{Name: "v", ID: uuid, State: "full"}.Entry("o=shoal") },
		"domain: empty":          func() (Entry, error) { return NewDomain{}.Entry("o=shoal") },
		"domain: space":          func() (Entry, error) { return NewDomain{Name: "exa mple.test"}.Entry("o=shoal") },
		"domain: label":          func() (Entry, error) { return NewDomain{Name: long + ".test"}.Entry("o=shoal") },
		"domain: literal":        func() (Entry, error) { return NewDomain{Name: "[127.0.0.1]"}.Entry("o=shoal") },
		"domain: status":         func() (Entry, error) { return NewDomain{Name: "a.test", Status: "odd"}.Entry("o=shoal") },
		"domain: catch-all":      func() (Entry, error) { return NewDomain{Name: "a.test", CatchAll: "x"}.Entry("o=shoal") },
		"account: no domain":     func() (Entry, error) { return account(NewAccount{Address: "alice"}) },
		"account: two @":         func() (Entry, error) { return account(NewAccount{Address: "a@b@c.test"}) },
		"account: NUL":           func() (Entry, error) { return account(NewAccount{Address: "a\x00@c.test"}) },
		"account: long":          func() (Entry, error) { return account(NewAccount{Address: long + "@c.test"}) },
		"account: alias":         func() (Entry, error) { return account(NewAccount{Address: "a@c.test", Aliases: []string{"b"}}) },
		"account: id":            func() (Entry, error) { return account(NewAccount{Address: "a@c.test", ID: "../../evil"}) },
		"account: volume":        func() (Entry, error) { return account(NewAccount{Address: "a@c.test", Volume: "/"}) },
		"account: quota":         func() (Entry, error) { return account(NewAccount{Address: "a@c.test", QuotaStorage: -1}) },
		"account: short secret":  func() (Entry, error) { return account(NewAccount{Address: "a@c.test", Password: "1234567"}) },
		"account: secret of NUL": func() (Entry, error) { return account(NewAccount{Address: "a@c.test", Password: "12345678\x00"}) },
		"account: half a scheme": func() (Entry, error) { return account(NewAccount{Address: "a@c.test", Password: "{ARGON2}"}) },
		"tree: suffix":           func() (Entry, error) { _, err := tree("cn=x"); return Entry{}, err },
		"tree: no suffix":        func() (Entry, error) { _, err := tree(""); return Entry{}, err },
	} {
		if e, err := make(); !errors.Is(err, ErrInvalidName) {
			t.Errorf("%s: %v %v", name, e.DN, err)
		}
	}
}

func server(address string) (Entry, error) {
	return NewServer{Name: "box1", Role: "box", Addresses: map[string][]string{ServiceIMAP: {address}}}.Entry("o=shoal")
}

func account(n NewAccount) (Entry, error) {
	def(&n.Volume, "vol01")
	return n.Entry("o=shoal", time.Unix(1, 0))
}

// What goes in comes out again: the DN parses, names are in their stored form, and lookups read the same values.
func TestAccountEntry(t *testing.T) {
	e, err := account(NewAccount{
		Address: `"Grün, Joe\""@EXÄMPLE.test`, Aliases: []string{"JOE@example.test", "joe@Example.test"},
		Password: "{ARGON2}$argon2id$v=19$x$y", QuotaStorage: 5,
	})
	must(t, err)
	dn, err := ldap.ParseDN(e.DN)
	must(t, err)
	if v := dn.RDNs[0].Attributes[0].Value; v != e.First(attrUID) || v != `grün, joe"` {
		t.Errorf("uid %q, in the DN %q", e.First(attrUID), v)
	}
	if v := dn.RDNs[1].Attributes[0].Value; v != "xn--exmple-cua.test" {
		t.Errorf("domain %q", v)
	}
	if got := e.Get(attrMailLocal); !slices.Equal(got, []string{`"grün, joe\""@xn--exmple-cua.test`, "joe@example.test"}) {
		t.Errorf("addresses %q", got)
	}
	if e.First(attrSN) == "" || e.First(attrPassword) != "{ARGON2}$argon2id$v=19$x$y" || e.First(attrCredentialVersion) != "1000" {
		t.Errorf("entry %+v", e)
	}
	a, err := accountOf(ldapEntry(e))
	must(t, err)
	if a.Domain != "xn--exmple-cua.test" || a.Address != e.First(attrMail) || a.QuotaStorage != 5 || len(a.ID) != 26 {
		t.Errorf("read back: %+v", a)
	}
	other, err := account(NewAccount{Address: "b@example.test"})
	must(t, err)
	if other.First(attrAccountID) == a.ID {
		t.Error("two accounts have the same id")
	}
}

func TestTree(t *testing.T) {
	for suffix, want := range map[string]string{
		"o=shoal": "organization", "dc=example,dc=test": "dcObject", "ou=mail,o=big": "organizationalUnit",
	} {
		entries, err := tree(suffix)
		must(t, err)
		if len(entries) != 5 || entries[0].DN != suffix || !slices.Contains(entries[0].Get(attrObjectClass), want) {
			t.Errorf("%s: %+v", suffix, entries)
		}
		for _, e := range entries[1:] {
			if first := strings.SplitN(e.DN, ",", 2)[0]; first != "ou="+e.First(attrOU) {
				t.Errorf("%s: ou %q", e.DN, e.First(attrOU))
			}
		}
	}
}
