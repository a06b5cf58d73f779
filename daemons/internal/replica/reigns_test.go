package replica_test

import (
	"testing"

	"shoal/daemons/internal/dirstore"
	"shoal/tests/ports"
)

// A directory that had several masters has CSNs of each. A shadow that was away gets what changed since its cookie, from
// whichever of them, and nothing is fetched anew.
func TestMissedChangesOfSeveralMasters(t *testing.T) {
	m := newMaster(t)
	m.person("a", "ou=people,o=shoal")
	m.person("gone", "ou=people,o=shoal")
	s := newShadow(t, m)
	s.same()
	s.stop()

	m.set("uid=a,ou=people,o=shoal", "description", "by the first master, missed")
	m.store.SetSID(1)
	m.person("b", "ou=people,o=shoal")
	m.remove("uid=gone,ou=people,o=shoal")
	s.start()
	s.same()
	if n := s.refreshes("delete"); n != 1 {
		t.Errorf("%d refreshes from the log instead of one", n)
	}
	m.rename("uid=b,ou=people,o=shoal", "uid=c", "") // while it is followed
	s.same()
	s.stop()

	m.set("uid=a,ou=people,o=shoal", "description", "by the second, missed")
	m.store.SetSID(2)
	m.store.SetSID(3) // a master that wrote nothing has no CSN
	m.remove("uid=c,ou=people,o=shoal")
	s.start()
	s.same()
	if n := s.refreshes("delete"); n != 1 {
		t.Errorf("%d refreshes from the log instead of one", n)
	}
	if n := len(s.store.ContextCSN()); n != 3 {
		t.Errorf("%d CSNs instead of three: %v", n, s.store.ContextCSN())
	}
}

// A shadow of a shadow has what the master has: adds, changes, renamed subtrees and removals, while it follows and
// after it was away.
func TestCascade(t *testing.T) {
	m := newMaster(t)
	m.person("a", "ou=people,o=shoal")
	first := newShadow(t, m)
	first.same()
	middle := &master{t: t, auth: m.auth, store: first.store, address: ports.One(t)}
	middle.start()
	t.Cleanup(middle.stop)
	second := newShadow(t, middle)
	second.same()

	m.person("b", "ou=people,o=shoal")
	m.add("ou=more,o=shoal", "objectClass", "organizationalUnit")
	m.person("c", "ou=more,o=shoal")
	m.rename("ou=more,o=shoal", "ou=other", "ou=people,o=shoal")
	first.same()
	second.same()
	second.stop()

	m.remove("uid=a,ou=people,o=shoal")
	m.set("uid=b,ou=people,o=shoal", "description", "changed while the second was away")
	m.do(&dirstore.Delete{DN: []byte("uid=c,ou=other,ou=people,o=shoal")})
	first.same()
	second.start()
	second.same()
	if second.refreshes("delete") != 1 {
		t.Error("the second shadow did not catch up from the log of the first")
	}
}
