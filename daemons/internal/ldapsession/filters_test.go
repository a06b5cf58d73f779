package ldapsession

import (
	"bytes"
	"testing"

	"shoal/daemons/internal/ldapwire"
)

// TestFiltersByOpenLDAP: approximate and extensible matching, languages, transfer options, and the filters that
// address books send.
func TestFiltersByOpenLDAP(t *testing.T) {
	f := start(t)
	f.add(t, "uid=jo,ou=people,o=shoal", "objectClass", "inetOrgPerson", "objectClass", "posixAccount", "cn", "John W. Smith", "cn;lang-de", "Johann Schmidt",
		"sn", "Smith", "givenName", "John", "mail", "jo@a.test", "uidNumber", "14", "gidNumber", "7", "homeDirectory", "/h", "manager", "uid=bob,ou=people,o=shoal",
		"telephoneNumber", "+49 30 12-34", "displayName", "Smith, John", "o", "Shoal")
	for _, c := range []struct{ filter, want string }{
		{"(cn~=jon smyth)", "uid=jo"}, {"(cn~=j smith)", "uid=jo"}, {"(cn~=smith john)", ""}, {"(uidNumber~=14)", "uid=jo"}, {"(!(cn~=jon))", "cn=box1 o=shoal ou=people uid=alice uid=bob"},
		{"(cn:caseExactMatch:=John W. Smith)", "uid=jo"}, {"(cn:caseExactMatch:=john w. smith)", ""}, {"(cn:2.5.13.2:=john w.  smith)", "uid=jo"},
		{"(:caseIgnoreMatch:=smith)", "uid=jo"}, {"(:distinguishedNameMatch:=UID=bob, ou=people, o=shoal)", "uid=jo"},
		{"(ou:dn:=people)", "ou=people uid=alice uid=bob uid=jo"}, {"(o:dn:caseIgnoreMatch:=SHOAL)", "cn=box1 o=shoal ou=people uid=alice uid=bob uid=jo"},
		{"(uidNumber:1.2.840.113556.1.4.803:=6)", "uid=jo"}, {"(uidNumber:1.2.840.113556.1.4.803:=7)", ""}, {"(uidNumber:1.2.840.113556.1.4.804:=7)", "uid=jo"},
		{"(uidNumber:integerOrderingMatch:=15)", "uid=jo"}, {"(uidNumber:integerOrderingMatch:=14)", ""}, {"(gidNumber<=7)", "uid=jo"},
		{"(cn:caseIgnoreSubstringsMatch:=j\\2aw.\\2aSMITH)", "uid=jo"}, {"(cn:wordMatch:=smith)", "uid=jo"}, {"(cn:wordMatch:=mith)", ""},
		{"(manager:dnSubtreeMatch:=ou=people,o=shoal)", "uid=jo"}, {"(telephoneNumber=+4930 1234)", "uid=jo"}, {"(telephoneNumber=*301*)", "uid=jo"},
		{"(cn;lang-de=johann schmidt)", "uid=jo"}, {"(cn=johann schmidt)", "uid=jo"}, {"(cn;lang-=*)", "uid=jo"}, {"(cn;lang-en-=*)", ""}, {"(name=smith)", "uid=jo"},
		{"(createTimestamp>=20200101000000Z)", "cn=box1 o=shoal ou=people uid=alice uid=bob uid=jo"}, {"(createTimestamp<=20200101000000Z)", ""},
		{"(&)", "cn=box1 o=shoal ou=people uid=alice uid=bob uid=jo"}, {"(|)", ""}, {"(noSuch=1)", ""}, {"(!(noSuch=1))", ""}, {"(cn:noSuchMatch:=x)", ""},
		// Thunderbird: completion of an address, and its search box.
		{"(|(mail=*jo*)(|(cn=*jo*)(|(sn=*jo*)(givenName=*jo*))))", "uid=jo"},
		{"(&(objectclass=*)(|(mail=*smi*)(cn=*smi*)(givenName=*smi*)(sn=*smi*)(displayName=*smi*)(mozillaNickname=*smi*)(xmozillanickname=*smi*)))", "uid=jo"},
		// Evolution: completion, contacts with an address, one by its name.
		{"(&(mail=*)(|(mail=smi*)(|(cn=smi*)(sn=smi*)(displayName=smi*))(fileAs=smi*)))", "uid=jo"},
		{"(&(|(objectClass=person)(objectClass=groupOfNames)(objectClass=evolutionPerson))(|(&(cn=*)(cn=*john*))(calFBURL=*john*)))", "uid=jo"},
		// Outlook.
		{"(&(mail=*)(|(mail=jo*)(cn=jo*)(sn=jo*)(givenName=jo*)(displayName=jo*)))", "uid=jo"},
	} {
		if out := f.openldap(t, "", "ldapsearch", "-LLL", "-b", "o=shoal", c.filter, "1.1"); shown(out) != c.want {
			t.Errorf("%s: %s, want %s", c.filter, out, c.want)
		}
	}
}

// TestBombsOnTheWire: requests that claim much or nest deep are answered, or end the connection with a notice, and
// the server goes on.
func TestBombsOnTheWire(t *testing.T) {
	f := start(t)
	deep := func(n int) []byte {
		b := present("cn")
		for range n {
			b = element(0xa2, b)
		}
		return b
	}
	wide := func(n int) []byte { return element(0xa0, bytes.Repeat(present("cn"), n)) }
	for _, c := range []struct {
		what string
		send []byte
		want ldapwire.Code
	}{
		{"a filter of 10,000 terms", searchRequest(2, "o=shoal", 2, wide(10_000)), ldapwire.AdminLimitExceeded},
		{"a filter nested 10,000 deep", searchRequest(2, "o=shoal", 2, deep(10_000)), ldapwire.AdminLimitExceeded},
		{"an assertion of 10,000 terms", request2(searchBody("o=shoal", present("cn")), ldapwire.OIDAssertion, wide(10_000)), ldapwire.AdminLimitExceeded},
		{"a filter of values with 10,000 terms", request2(searchBody("o=shoal", present("cn")), ldapwire.OIDMatchedValues, element(0x30, bytes.Repeat(present("cn"), 10_000))), ldapwire.AdminLimitExceeded},
		{"1,000 sort keys", request2(searchBody("o=shoal", present("cn")), ldapwire.OIDSortRequest, element(0x30, bytes.Repeat(element(0x30, text("cn")), 1000))), ldapwire.AdminLimitExceeded},
		{"a control within 2 GiB", request2(searchBody("o=shoal", present("cn")), ldapwire.OIDSortRequest, []byte{0x30, 0x84, 0x7f, 0xff, 0xff, 0xff}), ldapwire.ProtocolError},
		{"a list view of minus one", request2(searchBody("o=shoal", present("cn")), ldapwire.OIDListViewRequest, element(0x30, []byte{2, 1, 0xff, 2, 1, 0}, element(0x81, nil))), ldapwire.ProtocolError},
	} {
		r := newRaw(t, f.address)
		r.bind("cn=admin,o=shoal", "secret")
		r.send(c.send)
		if got := r.expect(2, ldapwire.OpSearchResultDone); got != c.want {
			t.Errorf("%s: %s, want %s", c.what, got, c.want)
		}
		r.whoAmI(3)
		if got := r.expect(3, ldapwire.OpExtendedResponse); got != ldapwire.Success {
			t.Errorf("after %s: %s", c.what, got)
		}
	}
	r := newRaw(t, f.address)
	r.bind("cn=admin,o=shoal", "secret")
	r.send([]byte{0x30, 0x84, 0x7f, 0xff, 0xff, 0xff})
	r.expectNotice(ldapwire.ProtocolError)
	r.expectEnd()
	f.root(t)
}

func searchBody(base string, filter []byte) []byte {
	return element(0x63, text(base), number(0x0a, 2), number(0x0a, 0), number(2, 0), number(2, 0), []byte{1, 1, 0}, filter, element(0x30))
}

// request2 is request 2 with a critical control.
func request2(op []byte, oid string, value []byte) []byte {
	return element(0x30, number(2, 2), op, element(0xa0, element(0x30, text(oid), []byte{1, 1, 0xff}, element(4, value))))
}
