package imapsession

import (
	"strings"
	"testing"

	"shoal/daemons/internal/dirclient"
)

// While the directory does not answer, one's own mailboxes are there as ever, those of others are for who has one selected, and nobody is
// told that something does not exist.
func TestSharedWithoutDirectory(t *testing.T) {
	r := newRig(t, nil)
	alice, bob := r.connect("alice"), r.connect("bob")
	alice.ok("CREATE Team")
	alice.ok("SETACL Team bob lrsw")
	alice.ok("APPEND Team {6+}\r\na: b\r\n")
	bob.ok(`SELECT "Other Users/alice/Team"`)
	other := r.connect("bob")
	r.people.set(func() { r.people.down = true })
	bob.ok("FETCH 1 FLAGS")
	bob.ok(`STORE 1 +FLAGS (\Seen)`)
	bob.ok("NOOP")
	if list := other.ok(`LIST "" *`); len(list) != 1 {
		t.Error(list)
	}
	for _, c := range []string{`SELECT "Other Users/alice/Team"`, `MYRIGHTS "Other Users/alice/Team"`, `APPEND "Other Users/alice/Team" {6+}` + "\r\na: b\r\n"} {
		if _, tagged := other.do(c); !strings.Contains(tagged, "NO [UNAVAILABLE]") {
			t.Error(c, tagged)
		}
	}
	if _, tagged := alice.do("SETACL Team carol lr"); !strings.Contains(tagged, "NO [UNAVAILABLE]") {
		t.Error(tagged)
	}
	alice.ok("MYRIGHTS Team")
	r.people.set(func() { r.people.down = false })
	other.ok(`SELECT "Other Users/alice/Team"`)
}

// An owner who is suspended shares nothing from then on: not with who comes, and not with who is there.
func TestSuspendedOwner(t *testing.T) {
	r := newRig(t, nil)
	alice, bob := r.connect("alice"), r.connect("bob")
	alice.ok("SETACL INBOX bob lrswite")
	bob.ok(`SELECT "Other Users/alice"`)
	other := r.connect("bob")
	r.people.set(func() { r.people.closed["alice@example.test"] = true })
	if _, tagged := other.do(`SELECT "Other Users/alice"`); !strings.Contains(tagged, "NO [NONEXISTENT]") {
		t.Error(tagged)
	}
	if list := other.ok(`LIST "" *`); len(list) != 1 {
		t.Error(list)
	}
	bob.send("x FETCH 1:* FLAGS\r\n")
	bob.expect("* BYE")
	bob.closed()
}

// The bounds of access lists and annotations are settings.
func TestBoundsOfSharing(t *testing.T) {
	r := newRig(t, func(o *Options) {
		o.Limits.ACLEntries, o.Limits.Annotations, o.Limits.AnnotationSize = 2, 2, 1024
		o.Limits.ServerComment, o.Limits.AdminContact = "a test", "mailto:admin@example.test"
		o.Limits.PublicFolders = ""
	})
	c := r.connect("alice")
	refused := func(command, code string) {
		t.Helper()
		if _, tagged := c.do(command); !strings.Contains(tagged, "NO ["+code+"]") {
			t.Errorf("%s: %s", command, tagged)
		}
	}
	c.ok("SETACL INBOX bob lr")
	c.ok("SETACL INBOX anyone lr")
	refused("SETACL INBOX carol lr", "LIMIT")
	c.ok("SETACL INBOX bob +s")
	c.ok(`SETMETADATA INBOX (/shared/a "1" /private/a "2")`)
	refused(`SETMETADATA INBOX (/shared/b "1")`, "METADATA TOOMANY")
	c.ok(`SETMETADATA INBOX (/shared/a NIL /shared/b "1")`)
	refused(`SETMETADATA INBOX (/shared/b "`+strings.Repeat("x", 1025)+`")`, "METADATA MAXSIZE 1024")
	got := c.ok(`GETMETADATA "" (/shared/comment /shared/admin)`)
	if len(got) != 1 || got[0] != `* METADATA "" (/shared/comment "a test" /shared/admin "mailto:admin@example.test")` {
		t.Error(got)
	}
	if got := c.ok("NAMESPACE"); len(got) != 1 || got[0] != `* NAMESPACE (("" "/")) (("Other Users/" "/")) NIL` {
		t.Error(got)
	}
	// settings change while clients are there
	c.ok("ENABLE METADATA")
	lim := r.srv.limits().Limits
	lim.ServerComment = "another"
	r.srv.SetLimits(lim)
	if got := c.ok("NOOP"); len(got) != 1 || got[0] != `* METADATA "" /shared/comment` {
		t.Error(got)
	}
}

// What is granted and taken away at one box is so at the other, and told to a client that idles there.
func TestRightsAcrossBoxes(t *testing.T) {
	c := newCluster(t, 2)
	alice, bob := c.boxes[0].connect("alice"), c.boxes[1].connect("bob")
	alice.ok("CREATE Team")
	alice.ok("SETACL Team bob lr")
	bob.ok(`SELECT "Other Users/alice/Team"`)
	bob.send("x IDLE\r\n")
	bob.expect("+ ")
	alice.ok("SETACL Team bob lrsw")
	bob.expect("* FLAGS")
	bob.expect(`* OK [PERMANENTFLAGS (\Answered \Flagged \Seen \Draft \*)]`)
	alice.ok("APPEND Team {6+}\r\na: b\r\n")
	bob.expect("* 1 EXISTS")
	bob.expect("* 1 RECENT")
	alice.ok("DELETEACL Team bob")
	bob.expect("* BYE")
	bob.closed()
}

// Two servers on one volume read each other's lists; what somebody may see is decided by ids, so an address that is given to another account gives
// that no rights.
func TestRightsGoByAccount(t *testing.T) {
	r := newRig(t, nil)
	alice := r.connect("alice")
	alice.ok("SETACL INBOX bob lr")
	r.people.set(func() {
		r.people.renamed = map[string]*dirclient.Account{"bob@example.test": account("newbob", "example.test")}
	})
	if got := alice.ok("GETACL INBOX"); len(got) != 1 || !strings.Contains(got[0], "user:account-bob lr") {
		t.Error(got)
	}
	newbob := r.connect("newbob")
	if _, tagged := newbob.do(`SELECT "Other Users/alice"`); !strings.Contains(tagged, "NO [NONEXISTENT]") {
		t.Error(tagged)
	}
	alice.ok("DELETEACL INBOX user:account-bob")
	if got := alice.ok("GETACL INBOX"); len(got) != 1 || strings.Contains(got[0], "bob") {
		t.Error(got)
	}
}
