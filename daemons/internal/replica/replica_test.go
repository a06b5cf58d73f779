package replica_test

import (
	"crypto/x509"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"shoal/daemons/internal/dirstore"
	"shoal/daemons/internal/ldapwire"
	"shoal/daemons/internal/pki"
	"shoal/daemons/internal/replica"
)

func poolOf(ca *pki.CA) *x509.CertPool {
	p := x509.NewCertPool()
	p.AppendCertsFromPEM(ca.CertPEM())
	return p
}

func TestFollows(t *testing.T) {
	m := newMaster(t)
	for i := range 300 { // more than one set of UUIDs, more than one chunk
		m.person(fmt.Sprintf("u%03d", i), "ou=people,o=shoal")
	}
	s := newShadow(t, m)
	s.same()
	if err := s.replica.Ready(); err != nil {
		t.Error(err)
	}
	if s.refreshes("whole") != 1 {
		t.Errorf("%d whole refreshes", s.refreshes("whole"))
	}

	m.person("new", "ou=people,o=shoal")
	m.set("uid=u001,ou=people,o=shoal", "title", "Dr.", "Prof.")
	m.remove("uid=u002,ou=people,o=shoal")
	m.rename("uid=u003,ou=people,o=shoal", "uid=other", "")
	s.same()

	t.Run("a renamed subtree keeps its UUIDs", func(t *testing.T) {
		before := dump(t, s.store)["uid=u004,ou=people,o=shoal"]
		m.add("ou=staff,o=shoal", "objectClass", "organizationalUnit")
		m.rename("ou=people,o=shoal", "ou=folk", "ou=staff,o=shoal")
		s.same()
		if after := dump(t, s.store)["uid=u004,ou=folk,ou=staff,o=shoal"]; after == "" || after != before {
			t.Errorf("it was\n%s\nand is\n%s", before, after)
		}
	})
	t.Run("an entry larger than any buffer", func(t *testing.T) {
		m.set("uid=u005,ou=folk,ou=staff,o=shoal", "jpegPhoto", strings.Repeat("\xff\xd8", 1<<20))
		s.same()
	})
	t.Run("lag", func(t *testing.T) {
		if lag := s.replica.Lag(); lag != 0 {
			t.Errorf("lag %v while everything is here", lag)
		}
	})
}

func TestMissedChanges(t *testing.T) {
	for _, kind := range []string{"delete", "present"} {
		t.Run(kind, func(t *testing.T) {
			m := newMaster(t, func(o *dirstore.Options) {
				if kind == "present" {
					o.ChangeLog = time.Nanosecond
				}
			})
			m.add("ou=old,o=shoal", "objectClass", "organizationalUnit")
			m.add("ou=deep,ou=old,o=shoal", "objectClass", "organizationalUnit")
			for i := range 600 {
				m.person(fmt.Sprintf("u%03d", i), "ou=people,o=shoal")
			}
			m.person("deep", "ou=deep,ou=old,o=shoal")
			m.person("saved", "ou=deep,ou=old,o=shoal")
			s := newShadow(t, m)
			s.same()
			s.stop()

			// What cannot be done in any order: a subtree goes, of which one entry was moved out; names
			// are exchanged, and taken by other entries.
			m.rename("uid=saved,ou=deep,ou=old,o=shoal", "uid=saved", "ou=people,o=shoal")
			m.remove("uid=deep,ou=deep,ou=old,o=shoal")
			m.remove("ou=deep,ou=old,o=shoal")
			m.remove("ou=old,o=shoal")
			m.remove("uid=u001,ou=people,o=shoal")
			m.person("u001", "ou=people,o=shoal")
			m.rename("uid=u002,ou=people,o=shoal", "uid=aside", "")
			m.rename("uid=u003,ou=people,o=shoal", "uid=u002", "")
			m.rename("uid=aside,ou=people,o=shoal", "uid=u003", "")
			m.add("ou=new,o=shoal", "objectClass", "organizationalUnit")
			m.person("first", "ou=new,o=shoal")
			m.rename("ou=new,o=shoal", "ou=newer", "")
			m.rename("uid=u004,ou=people,o=shoal", "uid=u004", "ou=newer,o=shoal")
			for i := 100; i < 500; i++ {
				m.remove(fmt.Sprintf("uid=u%03d,ou=people,o=shoal", i))
			}
			s.start()
			s.same()
			if s.refreshes(kind) != 1 || s.refreshes("whole") != 0 {
				t.Errorf("refreshes: %d %s, %d whole", s.refreshes(kind), kind, s.refreshes("whole"))
			}
			s.stop()
			s.start() // with nothing missed
			s.same()
			m.person("last", "ou=people,o=shoal")
			s.same()
			if s.refreshes("delete") != 1 || s.refreshes("whole") != 0 {
				t.Errorf("a shadow that missed nothing was refreshed: %d delete, %d whole", s.refreshes("delete"), s.refreshes("whole"))
			}
		})
	}
}

func TestProviderKilledAndBack(t *testing.T) {
	m := newMaster(t)
	m.person("a", "ou=people,o=shoal")
	s := newShadow(t, m)
	s.same()
	for i := range 3 {
		m.stop()
		until(t, s.store, "the shadow noticed", func() bool { return s.replica.Status().State != replica.Following })
		if err := s.replica.Ready(); err != nil {
			t.Errorf("a shadow with data must go on: %v", err)
		}
		if s.replica.Lag() == 0 {
			t.Error("no lag while the provider is away")
		}
		m.person(fmt.Sprintf("p%d", i), "ou=people,o=shoal")
		m.start()
		s.same()
	}
	if n := s.refreshes("whole"); n != 1 {
		t.Errorf("%d whole refreshes", n)
	}
}

// A master that was restored from a backup has less than its shadows: they go back to it.
func TestCookieFromTheFuture(t *testing.T) {
	m := newMaster(t)
	m.person("a", "ou=people,o=shoal")
	old := newMaster(t) // the same tree, made later and with other UUIDs
	s := newShadow(t, m)
	s.same()
	s.stop()
	far := "20991231235959.000000Z#000000#000#000000"
	s.store = openStore(t, s.dir)
	check(t, s.store.Do(root, &dirstore.Context{CSNs: []string{far}, Cookie: []byte("rid=001,csn=" + far)}))
	check(t, s.store.Close())
	s.m = old
	s.start()
	s.same()
	if s.refreshes("whole") != 1 {
		t.Errorf("%d whole refreshes", s.refreshes("whole"))
	}
}

func TestNotReadyBeforeTheFirstRefresh(t *testing.T) {
	m := newMaster(t)
	m.stop()
	s := newShadow(t, m)
	until(t, s.store, "a failed attempt", func() bool { return s.replica.Status().Error != "" })
	if err := s.replica.Ready(); err == nil || !strings.Contains(err.Error(), m.address) {
		t.Errorf("ready: %v", err)
	}
	m.start()
	s.same()
	if err := s.replica.Ready(); err != nil {
		t.Error(err)
	}
}

// TestConverges does random things to the master while the shadow comes and goes.
func TestConverges(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	rnd := rand.New(rand.NewPCG(seed, 0))
	m := newMaster(t)
	s := newShadow(t, m)
	any := func() string {
		all := dump(t, m.store)
		n := rnd.IntN(len(all))
		for dn := range all {
			if n--; n < 0 {
				return dn
			}
		}
		return ""
	}
	for round := range 30 {
		for range rnd.IntN(60) {
			dn, name := any(), fmt.Sprintf("ou=n%d", rnd.IntN(25))
			var op dirstore.Operation
			switch rnd.IntN(6) {
			case 0, 1:
				op = &dirstore.Add{DN: []byte(name + "," + dn), Attributes: attributes("objectClass", "organizationalUnit")}
			case 2:
				op = &dirstore.Delete{DN: []byte(dn)}
			case 3:
				op = &dirstore.Rename{DN: []byte(dn), NewRDN: []byte(name), DeleteOldRDN: true}
			case 4:
				op = &dirstore.Rename{DN: []byte(dn), NewRDN: []byte(name), DeleteOldRDN: true, HasNewSuperior: true, NewSuperior: []byte(any())}
			default:
				op = &dirstore.Modify{DN: []byte(dn), Changes: []ldapwire.Change{{Op: ldapwire.ChangeReplace, Attribute: attributes("description", name)[0]}}}
			}
			if strings.HasPrefix(dn, "cn=") {
				continue // the shadow's own login stays
			}
			_ = m.store.Do(root, op) // many are refused: that is part of it
		}
		switch rnd.IntN(4) {
		case 0:
			s.stop()
		case 1:
			m.stop()
			m.start()
		case 2:
			if s.store != nil {
				s.same()
			}
		}
		if s.store == nil && round%2 == 0 {
			s.start()
		}
	}
	if s.store == nil {
		s.start()
	}
	s.same()
	if t.Failed() {
		t.Logf("seed %d", seed)
	}
}

// Where no new database can be made, a total refresh goes into the one in use.
func TestWholeRefreshInPlace(t *testing.T) {
	m := newMaster(t)
	m.person("a", "ou=people,o=shoal")
	m.stop()
	s := newShadow(t, m)
	load, err := s.store.Load() // the only one that there may be
	check(t, err)
	m.start()
	s.same()
	if s.refreshes("whole") != 1 {
		t.Errorf("%d whole refreshes", s.refreshes("whole"))
	}
	check(t, load.Abort())
}

// Changes at the master during a total refresh come in it, or after it.
func TestChangesDuringWholeRefresh(t *testing.T) {
	m := newMaster(t)
	for i := range 3000 {
		m.person(fmt.Sprintf("u%04d", i), "ou=people,o=shoal")
	}
	s := newShadow(t, m)
	for i := range 300 {
		switch u := fmt.Sprintf("uid=u%04d,ou=people,o=shoal", i*7); i % 4 {
		case 0:
			m.remove(u)
		case 1:
			m.set(u, "title", "Dr.")
		case 2:
			m.rename(u, fmt.Sprintf("uid=renamed%d", i), "")
		default:
			m.remove(u)
			m.person(fmt.Sprintf("u%04d", i*7), "ou=people,o=shoal")
		}
	}
	s.same()
	if s.refreshes("whole") != 1 {
		t.Errorf("%d whole refreshes", s.refreshes("whole"))
	}
}
