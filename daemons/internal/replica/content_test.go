package replica_test

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-ldap/ldap/v3"

	"shoal/daemons/internal/dirstore"
	"shoal/daemons/internal/ldapsession"
	"shoal/daemons/internal/ldapwire"
	"shoal/daemons/internal/replica"
	"shoal/tests/ports"
)

const vault2 = "cn=vault2,o=shoal"

// agree writes an agreement into a shadow's entry: pairs of attribute and value.
func (m *master) agree(dn string, pairs ...string) {
	m.t.Helper()
	var changes []ldapwire.Change
	for _, name := range dirstore.AgreementAttributes {
		c := ldapwire.Change{Op: ldapwire.ChangeReplace, Attribute: ldapwire.Attribute{Type: []byte(name)}}
		for i := 0; i < len(pairs); i += 2 {
			if pairs[i] == name {
				c.Values = append(c.Values, []byte(pairs[i+1]))
			}
		}
		changes = append(changes, c)
	}
	m.do(&dirstore.Modify{DN: []byte(dn), Changes: changes})
}

// expected is what an agreement says of a dump, by the words of its definition and not by the code: names and lines of text.
type expected struct {
	subtrees []string
	matches  func(entry string) bool
	without  []string
	only     []string
}

func (x expected) of(all map[string]string) map[string]string {
	out := map[string]string{}
	belongs := func(dn string) bool {
		entry := all[dn]
		switch {
		case dn == "o=shoal" || within(dn, "ou=config,o=shoal"):
			return true
		case len(x.subtrees) > 0 && !slices.ContainsFunc(x.subtrees, func(top string) bool { return within(dn, top) || within(top, dn) }):
			return false
		case slices.ContainsFunc(x.subtrees, func(top string) bool { return within(top, dn) }):
			return true
		case strings.Contains(entry, `"organizationalUnit"`) || strings.Contains(entry, `"organization"`):
			return true
		}
		return x.matches == nil || x.matches(entry)
	}
	for dn, entry := range all {
		in := true
		for up := dn; in && up != ""; _, up, _ = strings.Cut(up, ",") {
			in = belongs(up)
		}
		if !in {
			continue
		}
		var lines []string
		for line := range strings.Lines(entry) {
			name, _, _ := strings.Cut(line, ":")
			operational := strings.HasPrefix(name, "creat") || strings.HasPrefix(name, "modif") || strings.HasPrefix(name, "entry") || name == "structuralObjectClass"
			if slices.Contains(x.without, name) || len(x.only) > 0 && !operational && name != "objectClass" && !slices.Contains(x.only, name) && !within(dn, "ou=config,o=shoal") {
				continue
			}
			lines = append(lines, strings.TrimSuffix(line, "\n"))
		}
		out[dn] = strings.Join(lines, "\n")
	}
	return out
}

func within(dn, top string) bool { return dn == top || strings.HasSuffix(dn, ","+top) }

// has waits until the shadow has what is expected of its master.
func (s *shadow) has(what string, x expected) {
	s.t.Helper()
	want, csns := x.of(dump(s.t, s.m.store)), s.m.store.ContextCSN()
	until(s.t, s.store, what+": the master's contextCSN", func() bool {
		return slices.Equal(s.store.ContextCSN(), csns) && s.replica.Status().State == replica.Following
	})
	got := dump(s.t, s.store)
	for _, dn := range slices.Sorted(maps.Keys(want)) {
		if got[dn] != want[dn] {
			s.t.Errorf("%s: %s is\n%s\ninstead of\n%s", what, dn, got[dn], want[dn])
		}
	}
	for dn := range got {
		if _, ok := want[dn]; !ok {
			s.t.Errorf("%s: %s should not be there", what, dn)
		}
	}
}

func titled(entry string) bool { return strings.Contains(entry, "title: [\"shown\"]") }

// domains makes a tree with two domains, a config and people in each.
func domains(t *testing.T, change ...func(*dirstore.Options)) *master {
	t.Helper()
	m := newMaster(t, change...)
	m.add("ou=config,o=shoal", "objectClass", "organizationalUnit")
	m.add("ou=servers,ou=config,o=shoal", "objectClass", "organizationalUnit")
	m.add("cn=box1,ou=servers,ou=config,o=shoal", "objectClass", "shoalServer", "shoalRole", "box", "userPassword", "{SSHA}boxpass")
	m.add("ou=domains,o=shoal", "objectClass", "organizationalUnit")
	for _, d := range []string{"a", "b"} {
		m.add("ou="+d+",ou=domains,o=shoal", "objectClass", "organizationalUnit")
		for i := range 30 {
			m.person(fmt.Sprintf("%s%02d", d, i), "ou="+d+",ou=domains,o=shoal")
		}
	}
	return m
}

// A shadow of one domain: what is in it, above it, and the configuration, through moves in and out of it, while it
// follows and after it was away, with and without the provider's log.
func TestSubtreeShadow(t *testing.T) {
	for _, kind := range []string{"delete", "present"} {
		t.Run(kind, func(t *testing.T) {
			m := domains(t, func(o *dirstore.Options) {
				if kind == "present" {
					o.ChangeLog = time.Nanosecond
				}
			})
			const a, b = "ou=a,ou=domains,o=shoal", "ou=b,ou=domains,o=shoal"
			m.agree(vault2, "shoalShadowSubtree", a)
			x := expected{subtrees: []string{a}}
			s := newShadow(t, m)
			s.has("the first refresh", x)
			if n := len(dump(t, s.store)); n != 6+30 {
				t.Errorf("%d entries", n)
			}

			changes := func(round string) {
				m.person("in"+round, a)
				m.person("out"+round, b)
				m.rename("uid=a01"+round+","+a, "uid=a01x"+round, "")
				m.rename("uid=a02"+round+","+a, "uid=a02"+round, b)
				m.rename("uid=b02"+round+","+b, "uid=b02"+round, a)
				m.set("uid=b03,"+b, "title", round)
				m.set("uid=a03,"+a, "title", round)
				m.remove("uid=a04" + round + "," + a)
				m.remove("uid=b04" + round + "," + b)
				m.add("ou=team"+round+","+b, "objectClass", "organizationalUnit")
				for i := range 5 {
					m.person(fmt.Sprintf("t%d%s", i, round), "ou=team"+round+","+b)
				}
				m.rename("ou=team"+round+","+b, "ou=team"+round, a) // a subtree enters
				m.add("ou=gone"+round+","+a, "objectClass", "organizationalUnit")
				m.add("ou=deep,ou=gone"+round+","+a, "objectClass", "organizationalUnit")
				m.person("deep", "ou=deep,ou=gone"+round+","+a)
				m.rename("ou=gone"+round+","+a, "ou=gone"+round, b) // and one leaves
			}
			for _, d := range []string{a, b} {
				for _, n := range []string{"01", "02", "04"} {
					for _, round := range []string{"r1", "r2"} {
						m.person(d[3:4]+n+round, d)
					}
				}
			}
			changes("r1")
			s.has("changes as they are made", x)
			s.stop()
			changes("r2")
			s.start()
			s.has("what was missed", x)
			if n := s.refreshes(kind); n < 1 || kind == "delete" && n > 1 || s.refreshes("whole") != 0 {
				t.Errorf("refreshes: %d %s, %d whole", s.refreshes(kind), kind, s.refreshes("whole"))
			}
			m.set("cn=box1,ou=servers,ou=config,o=shoal", "shoalVersion", "9")
			m.set("uid=b03,"+b, "title", "nothing for us")
			s.has("a change elsewhere moves contextCSN", x)
		})
	}
}

// White pages: of the people who are shown, the attributes that are shown; what is below somebody goes with him.
func TestFilteredShadow(t *testing.T) {
	for _, kind := range []string{"delete", "present"} {
		t.Run(kind, func(t *testing.T) {
			m := domains(t, func(o *dirstore.Options) {
				if kind == "present" {
					o.ChangeLog = time.Nanosecond
				}
			})
			const a = "ou=a,ou=domains,o=shoal"
			for i := range 10 {
				m.set(fmt.Sprintf("uid=a%02d,%s", i, a), "title", "shown")
			}
			for _, who := range []string{"a01", "a11"} {
				m.person("app", "uid="+who+","+a)
				m.person("below", "uid=app,uid="+who+","+a)
				for _, below := range []string{"uid=app,", "uid=below,uid=app,"} {
					m.set(below+"uid="+who+","+a, "title", "shown")
				}
			}
			m.agree(vault2, "shoalShadowFilter", "(title=shown)", "shoalShadowAttribute", "cn", "shoalShadowAttribute", "title", "shoalShadowAttribute", "uid",
				"shoalShadowAttribute", "sn", "shoalShadowWithout", "userPassword")
			x := expected{matches: titled, only: []string{"cn", "title", "uid", "sn"}, without: []string{"userPassword"}}
			s := newShadow(t, m)
			s.has("the first refresh", x)
			for dn, entry := range dump(t, s.store) {
				if strings.Contains(entry, "userPassword") {
					t.Errorf("%s has a password", dn)
				}
			}
			shown := []string{"shown"}
			for _, away := range []bool{false, true} {
				if away {
					s.stop()
				}
				m.set("uid=a01,"+a, "title") // leaves, with what is under it
				m.set("uid=a02,"+a, "title", "hidden")
				m.set("uid=a11,"+a, "title", shown...) // enters, with what is under it, which did not change
				m.set("uid=a12,"+a, "title", shown...)
				m.set("uid=a03,"+a, "mail", "new@a.test") // an attribute that is not shown
				m.set("uid=a13,"+a, "userPassword", "{SSHA}other")
				m.rename("uid=a04,"+a, "uid=a04x", "")
				if away {
					s.start()
				}
				s.has(fmt.Sprintf("changes, away %v", away), x)
				m.set("uid=a01,"+a, "title", shown...)
				m.set("uid=a02,"+a, "title", shown...)
				m.set("uid=a11,"+a, "title")
				m.set("uid=a12,"+a, "title")
				m.rename("uid=a04x,"+a, "uid=a04", "")
				s.has(fmt.Sprintf("back, away %v", away), x)
			}
			// Where the log is short, a follower may have to begin once more in between.
			if n := s.refreshes(kind); n < 1 || kind == "delete" && n > 1 || s.refreshes("whole") != 0 {
				t.Errorf("refreshes since the restart: %d %s, %d whole", s.refreshes(kind), kind, s.refreshes("whole"))
			}
		})
	}
}

// An agreement that is changed, while the shadow follows or is away, is followed by a whole refresh; one that is not
// understood gives nothing; what the provider is asked for beside the synchronization it refuses.
func TestAgreementChanges(t *testing.T) {
	m := domains(t)
	const a, b = "ou=a,ou=domains,o=shoal", "ou=b,ou=domains,o=shoal"
	s := newShadow(t, m)
	s.has("everything", expected{})
	m.agree(vault2, "shoalShadowSubtree", a)
	s.has("one domain, while it follows", expected{subtrees: []string{a}})
	s.stop()
	m.agree(vault2, "shoalShadowSubtree", b, "shoalShadowWithout", "mail")
	s.start()
	s.has("the other domain, after it was away", expected{subtrees: []string{b}, without: []string{"mail"}})
	if got := s.replica.Content(); got != `{"subtrees":["ou=b,ou=domains,o=shoal"],"without":["mail"]}` {
		t.Errorf("it says of itself that it has %s", got)
	}
	s.stop()
	s.start()
	s.has("nothing new", expected{subtrees: []string{b}, without: []string{"mail"}})
	if s.refreshes("whole") != 0 {
		t.Error("the same agreement is taken for another one")
	}

	c, err := ldap.DialURL("ldap://" + m.address)
	check(t, err)
	defer c.Close()
	verify := m.auth.client.Clone()
	verify.ServerName = "127.0.0.1"
	check(t, c.StartTLS(verify))
	check(t, c.Bind(vault2, "vaultpass"))
	find := func(base string, scope int) error {
		_, err := c.Search(ldap.NewSearchRequest(base, scope, ldap.NeverDerefAliases, 0, 0, false, "(objectClass=*)", nil, nil))
		return err
	}
	for what, err := range map[string]error{"everything": find("o=shoal", ldap.ScopeWholeSubtree), "what it does not get": find("uid=a01,"+a, ldap.ScopeBaseObject)} {
		if !ldap.IsErrorWithCode(err, ldap.LDAPResultInsufficientAccessRights) {
			t.Errorf("it searches %s: %v", what, err)
		}
	}
	if err := find(vault2, ldap.ScopeBaseObject); err != nil {
		t.Errorf("its own entry: %v", err)
	}

	m.agree(vault2, "shoalShadowFilter", "(title=")
	until(t, s.store, "an agreement that is not understood is refused", func() bool {
		return s.replica.Status().State != replica.Following && strings.Contains(s.replica.Status().Error, "agreement: filter")
	})
	if n := len(dump(t, s.store)); n != 36 {
		t.Errorf("%d entries: it has not kept what it had", n)
	}
	m.agree(vault2)
	s.has("everything again", expected{})
	if s.replica.Content() != "" {
		t.Errorf("it says of itself that it has %s", s.replica.Content())
	}
}

// A shadow of a filtered shadow has no more than that, and knows it; its own agreement holds as well, and a change of
// its provider's reaches it.
func TestCascadeOfFilteredShadows(t *testing.T) {
	m := domains(t)
	const a, b, vault3 = "ou=a,ou=domains,o=shoal", "ou=b,ou=domains,o=shoal", "cn=vault3,ou=servers,ou=config,o=shoal"
	m.add(vault3, "objectClass", "shoalServer", "shoalRole", "vault", "userPassword", ldapsession.HashPassword(cheap, []byte("third")))
	m.agree(vault2, "shoalShadowSubtree", a)
	first := newShadow(t, m)
	first.has("the first shadow", expected{subtrees: []string{a}})
	middle := &master{t: t, auth: m.auth, store: first.store, address: ports.One(t), options: []func(*ldapsession.Options){func(o *ldapsession.Options) {
		o.Lacks = func() (*dirstore.Agreement, []string) {
			agreement, err := dirstore.ParseAgreement(first.replica.Content())
			if err != nil || agreement.Whole() {
				return nil, nil
			}
			return &agreement, []string{"ldap://master.example"}
		}
	}}}
	middle.start()
	t.Cleanup(middle.stop)
	second := newShadowOf(t, middle, vault3, "third")
	second.m = m // which it is compared with
	second.has("the second shadow", expected{subtrees: []string{a}})
	if second.replica.Content() != first.replica.Content() {
		t.Errorf("the second says that it has %s, the first %s", second.replica.Content(), first.replica.Content())
	}
	m.rename("uid=a01,"+a, "uid=a01", b)
	m.rename("uid=b01,"+b, "uid=b01", a)
	second.has("in and out", expected{subtrees: []string{a}})

	m.agree(vault3, "shoalShadowWithout", "userPassword")
	second.has("its own agreement too", expected{subtrees: []string{a}, without: []string{"userPassword"}})
	m.agree(vault2, "shoalShadowSubtree", a, "shoalShadowSubtree", b)
	first.has("the provider has more", expected{subtrees: []string{a, b}})
	second.has("and so has the second", expected{subtrees: []string{a, b}, without: []string{"userPassword"}})
	m.agree(vault2)
	m.agree(vault3)
	first.has("everything", expected{})
	second.has("everything at the second", expected{})
	until(t, second.store, "the second knows that it has everything", func() bool { return second.replica.Content() == "" })
}

// TestFilteredConverges does random things to the master of a filtered shadow that comes and goes.
func TestFilteredConverges(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	rnd := rand.New(rand.NewPCG(seed, 0))
	m := domains(t)
	const a = "ou=a,ou=domains,o=shoal"
	x := expected{subtrees: []string{a}, matches: titled, without: []string{"mail"}}
	m.agree(vault2, "shoalShadowSubtree", a, "shoalShadowFilter", "(title=shown)", "shoalShadowWithout", "mail")
	s := newShadow(t, m)
	for round := range 25 {
		all := slices.Sorted(maps.Keys(dump(t, m.store)))
		pick := func() string { return all[rnd.IntN(len(all))] }
		for range rnd.IntN(80) {
			dn, name := pick(), fmt.Sprintf("uid=n%d", rnd.IntN(25))
			var op dirstore.Operation
			switch rnd.IntN(8) {
			case 0, 1:
				op = &dirstore.Add{DN: []byte(name + "," + dn), Attributes: attributes("objectClass", "inetOrgPerson", "cn", "x", "sn", "y", "title", "shown")}
			case 2:
				op = &dirstore.Delete{DN: []byte(dn)}
			case 3:
				op = &dirstore.Rename{DN: []byte(dn), NewRDN: []byte(name), DeleteOldRDN: true}
			case 4:
				op = &dirstore.Rename{DN: []byte(dn), NewRDN: []byte(name), DeleteOldRDN: true, HasNewSuperior: true, NewSuperior: []byte(pick())}
			case 5:
				op = &dirstore.Modify{DN: []byte(dn), Changes: []ldapwire.Change{{Op: ldapwire.ChangeReplace, Attribute: attributes("mail", name+"@x.test")[0]}}}
			default:
				title := []string{"shown", "hidden"}[rnd.IntN(2)]
				op = &dirstore.Modify{DN: []byte(dn), Changes: []ldapwire.Change{{Op: ldapwire.ChangeReplace, Attribute: attributes("title", title)[0]}}}
			}
			if strings.HasPrefix(dn, "cn=") || dn == a || within(dn, "ou=config,o=shoal") || dn == "ou=domains,o=shoal" {
				continue // what the agreement is about stays
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
				s.has(fmt.Sprintf("round %d", round), x)
			}
		}
		if s.store == nil && round%2 == 0 {
			s.start()
		}
	}
	if s.store == nil {
		s.start()
	}
	s.has("the end", x)
}
