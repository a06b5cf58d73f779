package vaultd

import (
	"encoding/json"
	"os/exec"
	"strings"
	"testing"

	ber "github.com/go-asn1-ber/asn1-ber"
	"github.com/go-ldap/ldap/v3"

	"shoal/daemons/internal/access"
)

// as runs one of Debian's LDAP tools as somebody.
func (d *daemon) as(dn, password, stdin, name string, args ...string) (string, int) {
	d.t.Helper()
	who := []string{"-x", "-ZZ", "-H", "ldap://" + d.ldap}
	if dn != "" {
		who = append(who, "-D", dn, "-w", password)
	}
	if name == "ldapsearch" {
		who = append(who, "-LLL", "-o", "ldif-wrap=no")
	}
	return d.run(exec.Command(name, append(who, args...)...), stdin)
}

const tenants = `dn: associatedDomain=one.test,ou=domains,o=shoal
objectClass: shoalDomain
objectClass: domainRelatedObject
shoalAdministrator: uid=boss,associatedDomain=one.test,ou=domains,o=shoal
shoalMigrationSecret: oldsecret
shoalQuotaLimit: 1000
shoalDefaultVolume: vol01

dn: uid=boss,associatedDomain=one.test,ou=domains,o=shoal
objectClass: inetOrgPerson
objectClass: inetLocalMailRecipient
objectClass: shoalAccount
cn: Boss
sn: Boss
mail: boss@one.test
mailLocalAddress: boss@one.test
shoalAccountId: boss000001
userPassword: bossbossboss

dn: uid=both,associatedDomain=one.test,ou=domains,o=shoal
objectClass: inetOrgPerson
objectClass: shoalAccount
cn: Both
sn: Both
shoalAccountId: both000001
userPassword: bothbothboth

dn: uid=user,associatedDomain=one.test,ou=domains,o=shoal
objectClass: inetOrgPerson
objectClass: inetLocalMailRecipient
objectClass: shoalAccount
cn: User
sn: User
mail: user@one.test
mailLocalAddress: user@one.test
telephoneNumber: 12345
description: quiet
shoalAccountId: user000001
userPassword: useruseruser

dn: associatedDomain=two.test,ou=domains,o=shoal
objectClass: shoalDomain
objectClass: domainRelatedObject
shoalAdministrator: uid=both,associatedDomain=one.test,ou=domains,o=shoal

dn: uid=other,associatedDomain=two.test,ou=domains,o=shoal
objectClass: inetOrgPerson
objectClass: inetLocalMailRecipient
objectClass: shoalAccount
cn: Other
sn: Other
mail: other@two.test
mailLocalAddress: other@two.test
shoalAccountId: other00001
userPassword: otherotherother

dn: cn=box1,ou=servers,ou=config,o=shoal
objectClass: shoalServer
cn: box1
shoalRole: box
userPassword: box1box1

dn: cn=sw1,ou=servers,ou=config,o=shoal
objectClass: shoalServer
cn: sw1
shoalRole: switch
userPassword: sw1sw1sw1

dn: cn=lb1,ou=servers,ou=config,o=shoal
objectClass: shoalServer
cn: lb1
shoalRole: lb
userPassword: lb1lb1lb1

`

const (
	boss     = "uid=boss,associatedDomain=one.test,ou=domains,o=shoal"
	person   = "uid=user,associatedDomain=one.test,ou=domains,o=shoal"
	other    = "uid=other,associatedDomain=two.test,ou=domains,o=shoal"
	denied   = 50
	newborn  = "uid=new,associatedDomain=one.test,ou=domains,o=shoal"
	newEntry = `dn: uid=new,associatedDomain=one.test,ou=domains,o=shoal
objectClass: inetOrgPerson
objectClass: inetLocalMailRecipient
objectClass: shoalAccount
cn: New
sn: New
mail: new@one.test
mailLocalAddress: new@one.test
shoalVolumeName: vol01
shoalQuotaStorage: 900
userPassword: newnewnew1
shoalAccountId: `
	fresh = "3f0a2c1e-7b1d-4c55-9e7a-0123456789ab"
)

func tenantsDaemon(t *testing.T) *daemon {
	t.Helper()
	d := newDaemon(t, "")
	d.start()
	if out, code := d.tool(tenants, "ldapadd"); code != 0 {
		t.Fatal(out)
	}
	return d
}

// An administrator of a domain sees and changes what lies in it, within his bounds, and nothing else: shown with Debian's tools.
func TestAdministratorOfADomain(t *testing.T) {
	d := tenantsDaemon(t)
	modify := func(dn, change string) string { return "dn: " + dn + "\nchangetype: modify\n" + change + "\n" }
	for _, c := range []struct {
		what, ldif string
		code       int
		args       []string
	}{
		{"an account", newEntry + fresh + "\n", 0, []string{"-a"}},
		{"the id of another account", strings.ReplaceAll(newEntry, "new", "new2") + fresh + "\n", denied, []string{"-a"}},
		{"an id that is not random", strings.ReplaceAll(newEntry, "new", "new2") + "other00001\n", denied, []string{"-a"}},
		{"a quota above the limit", strings.Replace(strings.ReplaceAll(newEntry, "new", "new2"), "900", "1001", 1) + "4f0a2c1e-7b1d-4c55-9e7a-0123456789ab\n", denied, []string{"-a"}},
		{"no quota", strings.Replace(strings.ReplaceAll(newEntry, "new", "new2"), "shoalQuotaStorage: 900\n", "", 1) + "4f0a2c1e-7b1d-4c55-9e7a-0123456789ab\n", denied, []string{"-a"}},
		{"another volume", strings.Replace(strings.ReplaceAll(newEntry, "new", "new2"), "vol01", "vol02", 1) + "4f0a2c1e-7b1d-4c55-9e7a-0123456789ab\n", denied, []string{"-a"}},
		{"an address of another domain", strings.Replace(strings.ReplaceAll(newEntry, "new", "new2"), "mail: new2@one.test", "mail: x@two.test", 1) + "4f0a2c1e-7b1d-4c55-9e7a-0123456789ab\n", denied, []string{"-a"}},
		{"an account in another domain", strings.ReplaceAll(newEntry, "one.test", "two.test") + "4f0a2c1e-7b1d-4c55-9e7a-0123456789ab\n", denied, []string{"-a"}},
		{"an alias", "dn: cn=info,associatedDomain=one.test,ou=domains,o=shoal\nobjectClass: shoalAlias\ncn: info\nmailLocalAddress: info@one.test\nshoalMailTarget: x@elsewhere.test\n", 0, []string{"-a"}},
		{"an alias of another domain's address", "dn: cn=inf,associatedDomain=one.test,ou=domains,o=shoal\nobjectClass: shoalAlias\ncn: inf\nmailLocalAddress: info@two.test\nshoalMailTarget: x@elsewhere.test\n", denied, []string{"-a"}},
		{"a group", "dn: cn=g,associatedDomain=one.test,ou=domains,o=shoal\nobjectClass: groupOfNames\ncn: g\nmember: " + person + "\n", 0, []string{"-a"}},
		{"a server", "dn: cn=x,associatedDomain=one.test,ou=domains,o=shoal\nobjectClass: shoalServer\ncn: x\nshoalRole: box\n", denied, []string{"-a"}},
		{"a domain", "dn: associatedDomain=three.test,ou=domains,o=shoal\nobjectClass: shoalDomain\nassociatedDomain: three.test\n", denied, []string{"-a"}},
		{"rules with the account", strings.ReplaceAll(newEntry, "new", "new2") + "4f0a2c1e-7b1d-4c55-9e7a-0123456789ab\nobjectClass: shoalAccessRules\nshoalAccess: {1}to * by * manage\n", denied, []string{"-a"}},
		{"a telephone number", modify(person, "replace: telephoneNumber\ntelephoneNumber: 999"), 0, nil},
		{"a password", modify(person, "replace: userPassword\nuserPassword: anotherone1"), 0, nil},
		{"an address", modify(person, "add: mailLocalAddress\nmailLocalAddress: usr@one.test"), 0, nil},
		{"an address of another domain", modify(person, "add: mailLocalAddress\nmailLocalAddress: usr@two.test"), denied, nil},
		{"a quota", modify(person, "replace: shoalQuotaStorage\nshoalQuotaStorage: 1000"), 0, nil},
		{"a quota above the limit", modify(person, "replace: shoalQuotaStorage\nshoalQuotaStorage: 1001"), denied, nil},
		{"an increment above the limit", modify(person, "increment: shoalQuotaStorage\nshoalQuotaStorage: 1"), denied, nil},
		{"no quota", modify(person, "delete: shoalQuotaStorage"), denied, nil},
		{"the id of an account", modify(person, "replace: shoalAccountId\nshoalAccountId: "+fresh), denied, nil},
		{"the volume", modify(person, "replace: shoalVolumeName\nshoalVolumeName: vol02"), denied, nil},
		{"another class", modify(person, "add: objectClass\nobjectClass: shoalAccessRules"), denied, nil},
		{"verifiers", modify(person, "add: authPassword\nauthPassword: x"), denied, nil},
		{"somebody of another domain", modify(other, "replace: telephoneNumber\ntelephoneNumber: 1"), denied, nil},
		{"somebody who is not there, of another domain", modify(strings.Replace(other, "other", "nobody", 1), "replace: telephoneNumber\ntelephoneNumber: 1"), denied, nil},
		{"an administrator of another domain", modify("uid=both,associatedDomain=one.test,ou=domains,o=shoal", "replace: userPassword\nuserPassword: minenow123"), denied, nil},
		{"the catch-all", modify("associatedDomain=one.test,ou=domains,o=shoal", "replace: shoalCatchAll\nshoalCatchAll: user@one.test"), 0, nil},
		{"the limit", modify("associatedDomain=one.test,ou=domains,o=shoal", "replace: shoalQuotaLimit\nshoalQuotaLimit: 9999"), denied, nil},
		{"who administers", modify("associatedDomain=one.test,ou=domains,o=shoal", "add: shoalAdministrator\nshoalAdministrator: "+person), denied, nil},
		{"rules", modify("associatedDomain=one.test,ou=domains,o=shoal", "add: shoalAccess\nshoalAccess: {1}to * by users manage"), denied, nil},
		{"another name", "dn: " + newborn + "\nchangetype: modrdn\nnewrdn: uid=newer\ndeleteoldrdn: 1\n", 0, nil},
		{"another domain", "dn: " + person + "\nchangetype: modrdn\nnewrdn: uid=user\ndeleteoldrdn: 1\nnewsuperior: associatedDomain=two.test,ou=domains,o=shoal\n", denied, nil},
		{"from another domain", "dn: " + other + "\nchangetype: modrdn\nnewrdn: uid=other\ndeleteoldrdn: 1\nnewsuperior: associatedDomain=one.test,ou=domains,o=shoal\n", denied, nil},
		{"the name of another domain's administrator", "dn: uid=both,associatedDomain=one.test,ou=domains,o=shoal\nchangetype: delete\n", denied, nil},
		{"an account, away", "dn: uid=newer,associatedDomain=one.test,ou=domains,o=shoal\nchangetype: delete\n", 0, nil},
	} {
		if out, code := d.as(boss, "bossbossboss", c.ldif, "ldapmodify", c.args...); code != c.code {
			t.Errorf("%s: %d, not %d\n%s", c.what, code, c.code, out)
		}
	}
	out, _ := d.as(boss, "bossbossboss", "", "ldapsearch", "-b", "o=shoal", "(objectClass=shoalAccount)", "*", "+", "userPassword", "authPassword")
	if !strings.Contains(out, "dn: "+person) || strings.Contains(out, "two.test,") || strings.Contains(out, "ARGON2") || strings.Contains(out, "SCRAM") {
		t.Errorf("what an administrator sees:\n%s", out)
	}
	for _, filter := range []string{"(shoalMigrationSecret=*)", "(!(shoalMigrationSecret=x))", "(shoalMigrationSecret>=a)", "(userPassword=*)"} {
		if out, code := d.as(boss, "bossbossboss", "", "ldapsearch", "-b", "ou=domains,o=shoal", filter, "1.1"); code != 32 && strings.Contains(out, "dn:") {
			t.Errorf("%s matches: %s", filter, out)
		}
	}
	if out, code := d.as(boss, "bossbossboss", "", "ldappasswd", "-s", "changedagain1", person); code != 0 {
		t.Errorf("ldappasswd of an own account: %d %s", code, out)
	}
	for _, dn := range []string{other, "uid=both,associatedDomain=one.test,ou=domains,o=shoal", "cn=box1,ou=servers,ou=config,o=shoal"} {
		if out, code := d.as(boss, "bossbossboss", "", "ldappasswd", "-s", "changedagain1", dn); code == 0 || !strings.Contains(out, "(50)") {
			t.Errorf("ldappasswd of %s: %d %s", dn, code, out)
		}
	}
	c := d.connect(boss, "bossbossboss")
	for _, dn := range []string{"associatedDomain=one.test,ou=domains,o=shoal", "associatedDomain=two.test,ou=domains,o=shoal", "ou=domains,o=shoal"} {
		if err := c.Del(ldap.NewDelRequest(dn, []ldap.Control{ldap.NewControlSubtreeDelete()})); !ldap.IsErrorWithCode(err, denied) {
			t.Errorf("%s deleted whole: %v", dn, err)
		}
	}
	// Taken back, it is gone on a connection that is open already.
	if out, code := d.tool(modify("associatedDomain=one.test,ou=domains,o=shoal", "delete: shoalAdministrator"), "ldapmodify"); code != 0 {
		t.Fatal(out)
	}
	m := ldap.NewModifyRequest(person, nil)
	m.Replace("telephoneNumber", []string{"1"})
	if err := c.Modify(m); !ldap.IsErrorWithCode(err, denied) {
		t.Errorf("after it was taken back: %v", err)
	}
}

func (d *daemon) connect(dn, password string) *ldap.Conn {
	d.t.Helper()
	c, err := d.dial()
	if err != nil {
		d.t.Fatal(err)
	}
	d.t.Cleanup(func() { c.Close() })
	if dn == "" {
		err = c.UnauthenticatedBind("")
	} else {
		err = c.Bind(dn, password)
	}
	if err != nil {
		d.t.Fatal(err)
	}
	return c
}

// What rules hide is hidden in every operation and from every control; servers see what their role needs.
func TestRulesOfAccess(t *testing.T) {
	d := tenantsDaemon(t)
	rules := func(dn string, list ...string) {
		t.Helper()
		ldif := "dn: " + dn + "\nchangetype: modify\nreplace: shoalAccess\n"
		for _, r := range list {
			ldif += "shoalAccess: " + r + "\n"
		}
		if out, code := d.tool(ldif+"\n", "ldapmodify"); code != 0 {
			t.Fatalf("%d %s", code, out)
		}
	}
	if out, code := d.tool("dn: o=shoal\nchangetype: modify\nadd: objectClass\nobjectClass: shoalAccessRules\n\n", "ldapmodify"); code != 0 {
		t.Fatal(out)
	}
	if out, code := d.tool("dn: o=shoal\nchangetype: modify\nadd: shoalAccess\nshoalAccess: {1}to * by evrybody read\n\n", "ldapmodify"); code != 19 || !strings.Contains(out, "line 1, column 12") {
		t.Errorf("a broken rule: %d %s", code, out)
	}
	seen := func(dn, password string, args ...string) string {
		t.Helper()
		out, _ := d.as(dn, password, "", "ldapsearch", append([]string{"-b", "ou=domains,o=shoal"}, args...)...)
		return out
	}
	// Roles: the secrets of a domain are the box's; balancers see the configuration only.
	for _, c := range []struct {
		name, password string
		secret, people bool
	}{{"box1", "box1box1", true, true}, {"sw1", "sw1sw1sw1", false, true}, {"lb1", "lb1lb1lb1", false, false}} {
		dn := "cn=" + c.name + ",ou=servers,ou=config,o=shoal"
		out := seen(dn, c.password, "(objectClass=*)", "shoalMigrationSecret", "cn")
		if strings.Contains(out, "oldsecret") != c.secret || strings.Contains(out, "cn: User") != c.people {
			t.Errorf("%s sees\n%s", c.name, out)
		}
		if out := seen(dn, c.password, "(shoalMigrationSecret=oldsecret)", "1.1"); strings.Contains(out, "dn:") && !c.secret {
			t.Errorf("%s finds by a secret", c.name)
		}
	}
	// An account sees itself; with white pages, a part of its colleagues.
	if out := seen(person, "useruseruser", "-b", "o=shoal", "(objectClass=*)"); strings.Count(out, "dn:") != 1 || !strings.Contains(out, "description: quiet") {
		t.Errorf("an account sees\n%s", out)
	}
	if out, code := d.tool("dn: associatedDomain=one.test,ou=domains,o=shoal\nchangetype: modify\nreplace: shoalWhitePages\nshoalWhitePages: TRUE\n\n", "ldapmodify"); code != 0 {
		t.Fatal(out)
	}
	out := seen("uid=both,associatedDomain=one.test,ou=domains,o=shoal", "bothbothboth", "-b", "associatedDomain=one.test,ou=domains,o=shoal", "(mail=user@one.test)")
	if !strings.Contains(out, "telephoneNumber: 12345") || strings.Contains(out, "quiet") || strings.Contains(out, "shoalAccountId") {
		t.Errorf("white pages:\n%s", out)
	}
	if out := seen(person, "useruseruser", "-b", "o=shoal", "(objectClass=*)", "1.1"); strings.Contains(out, "two.test") || strings.Count(out, "dn:") != 3 {
		t.Errorf("white pages show:\n%s", out)
	}
	mate := d.connect(person, "useruseruser")
	for filter, want := range map[string]int{"(telephoneNumber=*)": 1, "(description=quiet)": 1, "(&(uid=boss)(shoalAccountId=*))": 0, "(&(uid=boss)(!(shoalAccountId=x)))": 0,
		"(&(uid=boss)(cn=Boss))": 1, "(shoalAccountId:caseExactMatch:=boss000001)": 0, "(:caseExactIA5Match:=boss000001)": 0} {
		res, err := mate.Search(ldap.NewSearchRequest("o=shoal", ldap.ScopeWholeSubtree, 0, 0, 0, false, filter, nil, nil))
		if err != nil || len(res.Entries) != want {
			t.Errorf("%s: %v, %d entries, not %d", filter, err, len(res.Entries), want)
		}
	}
	if _, err := mate.Compare(boss, "cn", "Boss"); err != nil {
		t.Errorf("compare of what is seen: %v", err)
	}
	for _, c := range [][3]string{{boss, "shoalAccountId", "boss000001"}, {other, "cn", "Other"}, {strings.Replace(other, "other", "nobody", 1), "cn", "x"}} {
		if _, err := mate.Compare(c[0], c[1], c[2]); !ldap.IsErrorWithCode(err, denied) {
			t.Errorf("compare of %s of %s: %v", c[1], c[0], err)
		}
	}
	// The value of what is hidden does not decide how a sorted list stands.
	for _, reverse := range []bool{false, true} {
		sort := ldap.NewControlServerSideSortingWithSortKeys([]*ldap.SortKey{{AttributeType: "shoalAccountId", Reverse: reverse}})
		res, err := mate.Search(ldap.NewSearchRequest("associatedDomain=one.test,ou=domains,o=shoal", ldap.ScopeSingleLevel, 0, 0, 0, false, "(!(uid=user))", []string{"uid"}, []ldap.Control{sort}))
		if err != nil || len(res.Entries) != 2 || res.Entries[0].GetAttributeValue("uid") != "boss" {
			t.Errorf("sorted by what is hidden: %v %v", err, res)
		}
	}
	// An auditor reads everything but secrets and writes nothing; the assertion and post-read controls tell no more.
	rules("o=shoal", `{10}to * by dn="`+other+`" read by * break`)
	out, _ = d.as(other, "otherotherother", "", "ldapsearch", "-b", "o=shoal", "(objectClass=*)", "*", "userPassword", "shoalMigrationSecret")
	if !strings.Contains(out, "cn: box1") || strings.Contains(out, "oldsecret") || strings.Contains(out, "userPassword") {
		t.Errorf("the auditor sees\n%s", out)
	}
	if out, code := d.as(other, "otherotherother", "dn: "+person+"\nchangetype: modify\nreplace: cn\ncn: X\n\n", "ldapmodify", "-e", "!postread=userPassword"); code != denied {
		t.Errorf("the auditor writes: %d %s", code, out)
	}
	// The nearest entry's rules go before; a rule without the one who asks gives nothing; root is not locked out.
	rules("associatedDomain=one.test,ou=domains,o=shoal", `{1}to attrs=telephoneNumber by * none`, `{2}to * by dn="`+other+`" write by * break`)
	if out, code := d.as(other, "otherotherother", "dn: "+person+"\nchangetype: modify\nreplace: cn\ncn: X\n\n", "ldapmodify", "-e", "!postread=*"); code != 0 || strings.Contains(out, "12345") {
		t.Errorf("post-read shows what is hidden, or the write fails: %d %s", code, out)
	}
	if _, code := d.as(other, "otherotherother", "dn: "+person+"\nchangetype: modify\nreplace: cn\ncn: Y\n\n", "ldapmodify", "-e", "!assert=(telephoneNumber=12345)"); code != 122 {
		t.Errorf("an assertion on what is hidden: %d", code)
	}
	rules("o=shoal", `{1}to * by * none`)
	if out := seen("cn=box1,ou=servers,ou=config,o=shoal", "box1box1", "(uid=user)"); !strings.Contains(out, "mail: user@one.test") {
		t.Errorf("a rule takes from a box what it needs:\n%s", out)
	}
	if _, code := d.whoami(person, "useruseruser"); code != 49 {
		t.Errorf("nobody may log in, but: %d", code)
	}
	if out, code := d.tool("", "ldapsearch", "-b", "o=shoal", "-s", "base"); code != 0 || !strings.Contains(out, "o: shoal") {
		t.Errorf("root is locked out: %s", out)
	}
	// Anonymous address book, on and off.
	rules("o=shoal", `{1}to dn.children="ou=domains,o=shoal" filter="(objectClass=shoalAccount)" attrs=entry,objectClass,cn,mail by * read`)
	if out := seen("", "", "(cn=Boss)"); !strings.Contains(out, "mail: boss@one.test") || strings.Contains(out, "sn:") {
		t.Errorf("the address book:\n%s", out)
	}
	rules("o=shoal")
	if out := seen("", "", "(cn=Boss)"); strings.Contains(out, "dn:") {
		t.Errorf("the address book is still open:\n%s", out)
	}
}

// The directory tells whether somebody may do something, and why.
func TestAskedAboutAccess(t *testing.T) {
	d := tenantsDaemon(t)
	ask := func(c *ldap.Conn, q access.Question) (a access.Answer, err error) {
		q.Version = 1
		value, err := json.Marshal(q)
		if err != nil {
			t.Fatal(err)
		}
		res, err := c.Extended(ldap.NewExtendedRequest(access.OID, ber.NewString(ber.ClassContext, ber.TypePrimitive, 1, string(value), "")))
		if err == nil {
			err = json.Unmarshal(res.Value.Data.Bytes(), &a)
		}
		return a, err
	}
	root := d.connect("cn=admin,o=shoal", "rootpass")
	for _, c := range []struct {
		who, to, attribute, right string
		allowed                   bool
		why                       string
	}{
		{"boss@one.test", "user@one.test", "telephoneNumber", "write", true, "administrators"},
		{"boss@one.test", "user@one.test", "userPassword", "read", false, ""},
		{"boss@one.test", "other@two.test", "entry", "read", false, "by * none"},
		{"boss@one.test", "one.test", "shoalAdministrator", "write", false, ""},
		{"user@one.test", "user@one.test", "userPassword", "password", true, "self =password"},
		{"box1", "one.test", "shoalMigrationSecret", "read", true, "role=box"},
		{"sw1", "one.test", "shoalMigrationSecret", "read", false, ""},
		{"anonymous", "user@one.test", "userPassword", "auth", true, "anonymous"},
		{"admin", "one.test", "shoalAccess", "manage", true, ""},
	} {
		a, err := ask(root, access.Question{Who: c.who, To: c.to, Attribute: c.attribute, Right: c.right})
		if err != nil || a.Allowed != c.allowed {
			t.Errorf("%s %s of %s of %s: %v %+v", c.who, c.right, c.attribute, c.to, err, a)
			continue
		}
		said := ""
		for _, s := range a.Why {
			said += s.By + "\n"
		}
		if !strings.Contains(said, c.why) {
			t.Errorf("%s %s of %s of %s: because of %q", c.who, c.right, c.attribute, c.to, said)
		}
	}
	c := d.connect(person, "useruseruser")
	if a, err := ask(c, access.Question{Who: person, To: person, Right: "write"}); err != nil || a.Allowed || len(a.Why) > 0 {
		t.Errorf("about oneself: %v %+v", err, a)
	}
	for _, q := range []access.Question{{Who: boss, To: person}, {Who: person, To: other}, {List: true}, {Who: person, To: "nobody@two.test"}} {
		if _, err := ask(c, q); err == nil {
			t.Errorf("an account asks %+v", q)
		}
	}
}
