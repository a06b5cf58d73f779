package ldapsession

import (
	"strings"
	"testing"
)

// TestUpdateControlsByOpenLDAP: each step changes the directory or not, as its controls say.
func TestUpdateControlsByOpenLDAP(t *testing.T) {
	f := start(t)
	f.people(t)
	change := func(uid, title string) string {
		return "dn: uid=" + uid + ",ou=people,o=shoal\nchangetype: modify\nreplace: title\ntitle: " + title + "\n\n"
	}
	remove := func(uid string) string { return "dn: uid=" + uid + ",ou=people,o=shoal\nchangetype: delete\n\n" }
	added := "dn: ou=new,o=shoal\nchangetype: add\nobjectClass: organizationalUnit\ndescription: d\n\n"
	for _, c := range []struct {
		what, program, stdin string
		args                 []string
		want, not            []string // in what is printed
		title                string   // of p1 afterwards
	}{
		{"post-read and pre-read", "ldapmodify", change("p1", "Dr"), []string{"-e", "!postread=title,uid,modifiersName", "-e", "!preread=sn,title,entryCSN"},
			[]string{"title: Dr", "modifiersName: cn=admin,o=shoal", "sn: Zoe", "entryCSN: "}, nil, "Dr"},
		{"passwords are not told", "ldapmodify", "dn: uid=p1,ou=people,o=shoal\nchangetype: modify\nreplace: userPassword\nuserPassword: x\n", []string{"-e", "!postread=userPassword,uid"},
			[]string{"uid: p1"}, []string{"userPassword"}, "Dr"},
		{"pre-read of a delete", "ldapmodify", added + "dn: ou=new,o=shoal\nchangetype: delete\n", []string{"-e", "preread=description"}, []string{"description: d"}, nil, "Dr"},
		{"post-read of an add", "ldapmodify", added, []string{"-e", "!postread=+"}, []string{"entryUUID: ", "hasSubordinates: FALSE"}, nil, "Dr"},
		{"post-read of a rename", "ldapmodrdn", "", []string{"-r", "-e", "!postread=ou,entryDN", "ou=new,o=shoal", "ou=newer"}, []string{"ou: newer", "entryDN: ou=newer,o=shoal"}, []string{"ou: new\n"}, "Dr"},
		{"true assertion", "ldapmodify", change("p1", "Prof"), []string{"-e", "!assert=(&(title=dr)(sn=zoe))"}, nil, []string{"failed"}, "Prof"},
		{"false assertion", "ldapmodify", change("p1", "Dr"), []string{"-e", "!assert=(title=dr)"}, []string{"Assertion Failed (122)"}, nil, "Prof"},
		{"undefined assertion", "ldapmodify", change("p1", "Dr"), []string{"-e", "!assert=(noSuch=dr)"}, []string{"Assertion Failed (122)"}, nil, "Prof"},
		{"assertion on what is added", "ldapmodify", strings.Replace(added, "ou=new", "ou=new2", 1), []string{"-e", "!assert=(description=e)"}, []string{"Assertion Failed (122)"}, nil, "Prof"},
		{"assertion of a search", "ldapsearch", "", []string{"-e", "!assert=(title=dr)", "-b", "uid=p1,ou=people,o=shoal"}, []string{"result: 122"}, nil, "Prof"},
		{"assertion of a comparison", "ldapcompare", "", []string{"-e", "!assert=(title=prof)", "uid=p1,ou=people,o=shoal", "sn:ZOE"}, []string{"TRUE"}, nil, "Prof"},
		{"no operation", "ldapmodify", change("p1", "Dr"), []string{"-e", "!noop"}, []string{"16654"}, nil, "Prof"},
		{"no operation that fails", "ldapmodify", "dn: uid=p1,ou=people,o=shoal\nchangetype: modify\ndelete: sn\n", []string{"-e", "!noop"}, []string{"Object class violation (65)"}, nil, "Prof"},
		{"no add", "ldapmodify", strings.Replace(added, "ou=new", "ou=new3", 1), []string{"-e", "!noop"}, []string{"16654"}, nil, "Prof"},
		{"it was not added", "ldapsearch", "", []string{"-b", "ou=new3,o=shoal"}, []string{"result: 32"}, nil, "Prof"},
		{"no delete", "ldapdelete", "", []string{"-e", "!noop", "uid=p1,ou=people,o=shoal"}, []string{"16654"}, nil, "Prof"},
		{"no rename", "ldapmodrdn", "", []string{"-e", "!noop", "uid=p1,ou=people,o=shoal", "uid=q1"}, []string{"16654"}, nil, "Prof"},
		{"transaction that fails", "ldapmodify", change("p1", "Dr") + remove("p9"), []string{"-E", "txn=commit"}, []string{"No such object (32)"}, nil, "Prof"},
		{"transaction given up", "ldapmodify", change("p1", "Dr") + remove("p2"), []string{"-E", "txn=abort"}, nil, []string{"failed"}, "Prof"},
		{"transaction", "ldapmodify", change("p1", "Dr") + remove("p2") + change("p1", "Dr med"), []string{"-E", "txn=commit"}, nil, []string{"failed"}, "Dr med"},
		{"what it removed", "ldapsearch", "", []string{"-b", "uid=p2,ou=people,o=shoal"}, []string{"result: 32"}, nil, "Dr med"},
		{"unknown critical control", "ldapmodify", change("p1", "Dr"), []string{"-e", "!1.2.3.4.5"}, []string{"Critical extension is unavailable (12)"}, nil, "Dr med"},
		{"unknown control", "ldapmodify", change("p1", "Mr"), []string{"-e", "1.2.3.4.5"}, nil, []string{"failed"}, "Mr"},
		{"who am I by proxy", "ldapwhoami", "", []string{"-e", "!authzid=dn:uid=alice,ou=people,o=shoal"}, []string{"dn:uid=alice,ou=people,o=shoal"}, nil, "Mr"},
		{"search by proxy", "ldapsearch", "", []string{"-LLL", "-e", "!authzid=dn:uid=alice,ou=people,o=shoal", "-b", "o=shoal", "1.1"}, []string{"dn: uid=alice"}, []string{"uid=bob", "ou=people,o=shoal\ndn"}, "Mr"},
		{"update by proxy", "ldapmodify", change("p1", "Dr"), []string{"-e", "!authzid=dn:uid=alice,ou=people,o=shoal"}, []string{"Insufficient access (50)"}, nil, "Mr"},
		{"proxy of nobody", "ldapwhoami", "", []string{"-e", "!authzid=dn:uid=nobody,o=shoal"}, []string{"123"}, nil, "Mr"},
		{"proxy of the root", "ldapwhoami", "", []string{"-e", "!authzid=dn:cn=admin,o=shoal"}, []string{"123"}, nil, "Mr"},
		{"anonymous proxy", "ldapwhoami", "", []string{"-e", "!authzid="}, []string{"anonymous"}, nil, "Mr"},
		{"delete of a tree without the control", "ldapdelete", "", []string{"ou=people,o=shoal"}, []string{"Operation not allowed on non-leaf (66)"}, nil, "Mr"},
		{"delete of everything", "ldapdelete", "", []string{"-e", "!1.2.840.113556.1.4.805", "o=shoal"}, []string{"Server is unwilling to perform (53)"}, nil, "Mr"},
		{"tree that would be deleted", "ldapdelete", "", []string{"-e", "!noop", "-e", "!1.2.840.113556.1.4.805", "ou=people,o=shoal"}, []string{"16654"}, nil, "Mr"},
		{"delete of a tree", "ldapdelete", "", []string{"-e", "!1.2.840.113556.1.4.805", "ou=people,o=shoal"}, nil, []string{"Delete Result"}, ""},
	} {
		out := f.openldap(t, c.stdin, c.program, c.args...)
		for _, w := range c.want {
			if !strings.Contains(out, w) {
				t.Errorf("%s: %q is missing in\n%s", c.what, w, out)
			}
		}
		for _, w := range c.not {
			if strings.Contains(out, w) {
				t.Errorf("%s: %q is in\n%s", c.what, w, out)
			}
		}
		got := ""
		for line := range strings.Lines(f.openldap(t, "", "ldapsearch", "-LLL", "-b", "o=shoal", "(uid=p1)", "title")) {
			if v, is := strings.CutPrefix(line, "title: "); is {
				got = strings.TrimSpace(v)
			}
		}
		if got != c.title {
			t.Errorf("%s: the title is %q afterwards, want %q\n%s", c.what, got, c.title, out)
		}
	}
	if n := f.store.Entries(); n != 3 { // the suffix, box1, ou=newer
		t.Errorf("%d entries are left", n)
	}
}

// TestProxyNeedsTheRight: who may read everything may not act for others by that.
func TestProxyNeedsTheRight(t *testing.T) {
	f := start(t)
	out := f.openldapAs(t, "cn=box1,o=shoal", "boxpass", "", "ldapwhoami", "-e", "!authzid=dn:uid=alice,ou=people,o=shoal")
	if !strings.Contains(out, "123") {
		t.Error(out)
	}
	out = f.openldapAs(t, "uid=alice,ou=people,o=shoal", "alicepass", "dn: uid=bob,ou=people,o=shoal\nchangetype: modify\nreplace: title\ntitle: x\n", "ldapmodify", "-e", "!preread=sn")
	if !strings.Contains(out, "Insufficient access (50)") || strings.Contains(out, "sn: ") {
		t.Error(out)
	}
}
