package dirstore

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"go.etcd.io/bbolt"

	"shoal/daemons/internal/ldapwire"
)

// verify checks after every test that tree, entries, indexes and counters tell the same.
func verify(t testing.TB, s *Store) {
	t.Helper()
	s.built()
	err := s.bolt().View(func(tx *bbolt.Tx) error {
		want := map[string]*chunk{}
		names, n := map[uint64]string{}, int64(0)
		if err := tx.Bucket(bucketTree).ForEach(func(k, v []byte) error {
			id := binary.BigEndian.Uint64(v)
			if _, twice := names[id]; twice {
				t.Errorf("entry %d stands twice in the tree", id)
			}
			names[id] = string(k)
			return nil
		}); err != nil {
			return err
		}
		err := tx.Bucket(bucketEntry).ForEach(func(k, v []byte) error {
			n++
			id := binary.BigEndian.Uint64(k)
			rec, err := parseRecord(v)
			if err != nil {
				return err
			}
			rdn, err := s.schema.NormalizeDN(nil, rec.rdn)
			if err != nil {
				return err
			}
			if key := string(append(idKey(nil, rec.parent), rdn...)); names[id] != key {
				t.Errorf("entry %d is %q in the tree, %q in its record", id, names[id], key)
			}
			attrs, err := decodeAttributes(s.attrs.table.Load(), &rec)
			if err != nil {
				return err
			}
			for key := range s.keysOf(attrs) {
				full := string(appendChunkNumber([]byte(key), id>>8))
				if want[full] == nil {
					want[full] = &chunk{hi: id >> 8}
				}
				want[full].set(byte(id))
			}
			return nil
		})
		if err != nil {
			return err
		}
		if n != s.Entries() || int64(len(names)) != n {
			t.Errorf("%d entries, %d names, counted %d", n, len(names), s.Entries())
		}
		err = tx.Bucket(bucketIndex).ForEach(func(k, v []byte) error {
			w := want[string(k)]
			if w == nil {
				return fmt.Errorf("index key %q should not be there", k)
			}
			if !bytes.Equal(w.append(nil), v) {
				return fmt.Errorf("index key %q holds %x, should hold %x", k, v, w.append(nil))
			}
			delete(want, string(k))
			return nil
		})
		if err == nil && len(want) > 0 {
			err = fmt.Errorf("%d index keys are missing", len(want))
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
}

// Random changes and random filters: what the indexes find is what looking at every entry finds.
func TestIndexesAgainstEveryEntry(t *testing.T) {
	s := open(t, func(o *Options) { o.Indexes = []string{"title:sub", "shoalQuotaStorage"} })
	s.mustFill(t)
	rnd := rand.New(rand.NewPCG(1, 2))
	words := []string{"red", "Green", "blue fish", "öl", "x", "one two  three", "a*b", strings.Repeat("long", 50)}
	word := func() string { return words[rnd.IntN(len(words))] }
	var dns []string
	for i := range 600 {
		dn := fmt.Sprintf("uid=u%d,associatedDomain=a.test,ou=domains,o=shoal", i)
		p := []string{"objectClass", "inetOrgPerson", "objectClass", "shoalAccount", "cn", word(), "sn", word(),
			"shoalAccountId", fmt.Sprintf("id%06d", i), "shoalQuotaStorage", fmt.Sprint(rnd.IntN(50) - 10)}
		if rnd.IntN(2) == 0 {
			p = append(p, "title", word(), "cn;lang-x", word())
		}
		if rnd.IntN(3) == 0 {
			p = append(p, "mail", fmt.Sprintf("m%d@x", i/2))
		}
		s.mustAdd(t, dn, p...)
		dns = append(dns, dn)
	}
	for range 300 {
		dn := dns[rnd.IntN(len(dns))]
		switch rnd.IntN(3) {
		case 0:
			_ = s.Do("", &Delete{DN: []byte(dn)})
		case 1:
			_ = s.Do("", &Modify{DN: []byte(dn), Changes: []ldapwire.Change{{Op: ldapwire.ChangeReplace,
				Attribute: ldapwire.Attribute{Type: []byte("title"), Values: [][]byte{[]byte(word())}}}}})
		default:
			_ = s.Do("", &Rename{DN: []byte(dn), NewRDN: fmt.Appendf(nil, "uid=r%d", rnd.IntN(1000)), DeleteOldRDN: true,
				HasNewSuperior: true, NewSuperior: []byte("associatedDomain=b.test,ou=domains,o=shoal")})
		}
	}
	escape := strings.NewReplacer("*", `\2a`)
	var term func(depth int) string
	term = func(depth int) string {
		switch k := rnd.IntN(10); {
		case k == 0 && depth > 0:
			return "(&" + term(depth-1) + term(depth-1) + ")"
		case k == 1 && depth > 0:
			return "(|" + term(depth-1) + term(depth-1) + term(depth-1) + ")"
		case k == 2 && depth > 0:
			return "(!" + term(depth-1) + ")"
		case k == 3:
			return fmt.Sprintf("(shoalQuotaStorage%s%d)", []string{">=", "<=", "="}[rnd.IntN(3)], rnd.IntN(50)-10)
		case k == 4:
			return "(" + []string{"title", "mail", "cn;lang-x", "name", "jpegPhoto"}[rnd.IntN(5)] + "=*)"
		case k == 5:
			w := []rune(word())
			a := rnd.IntN(len(w))
			b := a + 1 + rnd.IntN(len(w)-a)
			return "(" + []string{"title", "cn", "sn", "name"}[rnd.IntN(4)] + "=" + []string{"", "*"}[rnd.IntN(2)] + escape.Replace(string(w[a:b])) + "*)"
		default:
			return "(" + []string{"title", "cn", "sn", "name", "uid", "cn;lang-x", "oddity"}[rnd.IntN(7)] + "=" + escape.Replace(word()) + ")"
		}
	}
	bases := []string{"o=shoal", "associatedDomain=a.test,ou=domains,o=shoal", "associatedDomain=b.test,ou=domains,o=shoal", "ou=domains,o=shoal"}
	for range 600 {
		filter, base, scope := term(3), bases[rnd.IntN(len(bases))], ldapwire.Scope(rnd.IntN(4))
		got := s.find(t, base, scope, filter)
		want := s.slowFind(t, base, scope, filter)
		slices.Sort(got)
		slices.Sort(want)
		if !slices.Equal(got, want) {
			t.Fatalf("%s scope %d %s: index finds %d, every entry gives %d", base, scope, filter, len(got), len(want))
		}
	}
}

// slowFind looks at every entry of the subtree, without an index.
func (s *Store) slowFind(t testing.TB, base string, scope ldapwire.Scope, filter string) []string {
	r, err := s.Read()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	norm, err := s.CheckDN([]byte(base))
	if err != nil {
		t.Fatal(err)
	}
	id, err := r.Resolve(norm)
	if err != nil {
		t.Fatal(err)
	}
	f := s.compile(t, filter)
	var out []string
	for w := r.Walk(id); ; {
		e, ok, err := r.NextOf(w)
		if err != nil {
			t.Fatal(err)
		}
		if !ok {
			return out
		}
		in := map[ldapwire.Scope]bool{ldapwire.BaseObject: e.ID == id, ldapwire.SingleLevel: e.rec.parent == id,
			ldapwire.WholeSubtree: true, ldapwire.Subordinates: e.ID != id}[scope]
		if in && r.Matches(&e, f) {
			dn, err := r.DN(nil, &e)
			if err != nil {
				t.Fatal(err)
			}
			out = append(out, string(dn))
		}
	}
}

func TestIDSet(t *testing.T) {
	rnd := rand.New(rand.NewPCG(3, 4))
	for range 50 {
		var s, u idset
		ms, mu := map[uint64]bool{}, map[uint64]bool{}
		for range rnd.IntN(400) {
			a, b := uint64(rnd.IntN(2000)), uint64(rnd.IntN(2000))
			s, u = s.add(a), u.add(b)
			ms[a], mu[b] = true, true
		}
		check := func(name string, got idset, want func(uint64) bool) {
			n := 0
			for id := uint64(0); id < 2048; id++ {
				if want(id) {
					n++
					if at, ok := got.from(id); !ok || at != id {
						t.Fatalf("%s: %d is missing", name, id)
					}
				} else if at, ok := got.from(id); ok && at == id {
					t.Fatalf("%s: %d is too much", name, id)
				}
			}
			if got.count() != n {
				t.Fatalf("%s: count %d, want %d", name, got.count(), n)
			}
			for _, c := range got {
				var d chunk
				v := c.append(nil)
				d.decode(v)
				if len(v) > 32 || d.bits != c.bits {
					t.Fatalf("%s: chunk does not survive encoding", name)
				}
			}
		}
		check("set", s, func(id uint64) bool { return ms[id] })
		check("and", s.and(u), func(id uint64) bool { return ms[id] && mu[id] })
		check("or", s.or(u), func(id uint64) bool { return ms[id] || mu[id] })
	}
}

// What a search returns parses back as what was stored, for each kind of selection.
func TestAppendEntry(t *testing.T) {
	s := open(t)
	s.mustFill(t)
	r, err := s.Read()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	id, err := r.Resolve([]byte("uid=alice,associateddomain=a.test,ou=domains,o=shoal"))
	if err != nil {
		t.Fatal(err)
	}
	f, _, err := r.Get(id)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		list []string
		view View
		want string
	}{
		{nil, View{}, "cn cn;lang-de mail mailLocalAddress objectClass shoalAccountId shoalQuotaStorage sn uid"},
		{[]string{"1.1"}, View{}, ""},
		{[]string{"MAIL", "oddity", "userPassword"}, View{}, "mail"},
		{[]string{"userPassword", "uid"}, View{Secrets: true}, "uid userPassword"},
		{[]string{"cn"}, View{}, "cn cn;lang-de"},
		{[]string{"cn;lang-de"}, View{}, "cn;lang-de"},
		{[]string{"name"}, View{}, "cn cn;lang-de sn"},
		{[]string{"+"}, View{}, "createTimestamp creatorsName entryCSN entryDN entryUUID hasSubordinates modifiersName modifyTimestamp structuralObjectClass subschemaSubentry"},
		{[]string{"hasSubordinates", "entryUUID"}, View{}, "entryUUID hasSubordinates"},
		{[]string{"@person"}, View{}, "cn cn;lang-de objectClass sn"},
		{[]string{"uid", "entryDN"}, View{TypesOnly: true}, "entryDN uid"},
		{[]string{"*", "entryCSN"}, View{Secrets: true}, "cn cn;lang-de entryCSN mail mailLocalAddress objectClass shoalAccountId shoalQuotaStorage sn uid userPassword"},
	} {
		var list [][]byte
		raw := []byte{}
		for _, n := range c.list {
			list = append(list, []byte(n))
			raw = append(raw, n+"|"...)
		}
		b, err := r.AppendEntry(nil, 7, &f, s.Select(raw, list), c.view, nil)
		if err != nil {
			t.Fatal(err)
		}
		var m ldapwire.Message
		if err := m.Parse(b, ldapwire.Limits{}); err != nil || m.ID != 7 || m.Op != ldapwire.OpSearchResultEntry {
			t.Fatalf("%v: message %+v, %v", c.list, m, err)
		}
		dn, names, values := parseEntry(t, m.Body)
		if dn != "uid=alice,associatedDomain=a.test,ou=domains,o=shoal" {
			t.Errorf("dn %s", dn)
		}
		if c.view.TypesOnly != (values == 0) && len(names) > 0 {
			t.Errorf("%v: %d values, typesOnly %v", c.list, values, c.view.TypesOnly)
		}
		slices.Sort(names)
		if got := strings.Join(names, " "); got != c.want {
			t.Errorf("%v: got %q, want %q", c.list, got, c.want)
		}
	}
}

func parseEntry(t *testing.T, body []byte) (dn string, names []string, values int) {
	t.Helper()
	// A SearchResultEntry is built like an AddRequest, except that values may be absent.
	n := int(body[1])
	dn, body = string(body[2:2+n]), body[2+n:]
	h := 2
	if body[1] >= 0x80 {
		h += int(body[1] & 0x7f)
	}
	for list := body[h:]; len(list) > 0; {
		typ, vals, rest, err := ldapwire.SplitAttribute(list)
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, string(typ))
		for {
			_, more, ok := ldapwire.NextValue(vals)
			if !ok {
				break
			}
			values++
			vals = more
		}
		list = rest
	}
	return dn, names, values
}
