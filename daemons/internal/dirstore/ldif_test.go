package dirstore

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"strings"
	"testing"

	"shoal/daemons/internal/ldapwire"
)

func (s *Store) export(t testing.TB) string {
	t.Helper()
	var b bytes.Buffer
	n, err := s.Export(t.Context(), &b, nil)
	if err != nil || n != s.Entries() {
		t.Fatalf("export of %d entries: %d, %v", s.Entries(), n, err)
	}
	_, text, _ := strings.Cut(b.String(), "\n\n") // the head has the time
	_, text, _ = strings.Cut(text, "\n\n")
	return text
}

func (s *Store) imports(t testing.TB, text string) (int64, error) {
	t.Helper()
	return s.Import(t.Context(), "cn=admin,o=shoal", strings.NewReader(text), nil)
}

// An import of an export is the same directory, with every octet, in another database and in place of another content.
func TestExportAndImport(t *testing.T) {
	s := open(t)
	s.mustFill(t)
	s.fillTitles(t, 300)
	s.mustAdd(t, "uid=odd,associatedDomain=a.test,ou=domains,o=shoal", "objectClass", "inetOrgPerson", "cn", " leading blank", "sn", "ü\nnext line",
		"description;lang-de", ": colon", "userPassword", "{SSHA}abcdef==", "description", strings.Repeat("long ", 100))
	if err := s.Do("", &Delete{DN: []byte("uid=t7,associatedDomain=a.test,ou=domains,o=shoal")}); err != nil {
		t.Fatal(err)
	}
	text := s.export(t)
	for _, want := range []string{"\ncontextCSN: " + s.ContextCSN()[0] + "\n", "\nentryUUID: ", "\nuserPassword: {SSHA}abcdef=="} {
		if !strings.Contains(text, want) {
			t.Errorf("the export lacks %q", want)
		}
	}
	for _, prepare := range []func(*Store){func(*Store) {}, func(o *Store) { o.fill(t, 20) }} {
		other := open(t)
		prepare(other)
		if n, err := other.imports(t, text); err != nil || n != s.Entries() {
			t.Fatalf("%d entries, %v", n, err)
		}
		have, want := other.everything(t), s.everything(t)
		for name := range want {
			if have[name] != want[name] {
				t.Errorf("%s\nis  %q\nwas %q", name, have[name], want[name])
				break
			}
		}
		if !maps.Equal(have, want) || other.ContextCSN()[0] != s.ContextCSN()[0] || other.export(t) != text {
			t.Error("the imported content is another one")
		}
		other.same(t)
		other.mustAdd(t, "ou=after,o=shoal", "objectClass", "organizationalUnit")
		if other.ContextCSN()[0] <= s.ContextCSN()[0] {
			t.Error("a CSN was given out again")
		}
		if v, err := other.Verify(VerifyOptions{Pages: true}); err != nil || v.Err() != nil || v.Entries != other.Entries() {
			t.Errorf("verify: %v, %+v", err, v)
		}
	}
}

const small = `version: 1
# written by hand
dn: o=shoal
objectClass: organization
o: shoal

dn: cn=first,ou=people,o=shoal
objectClass: person
cn: first
sn: stands before its superior

dn: ou=people,o=shoal
objectClass: organizationalUnit
`

// What operational attributes an LDIF does not have are made, and the name's values are added.
func TestImportOfEntriesByHand(t *testing.T) {
	s := open(t)
	if n, err := s.imports(t, small); err != nil || n != 3 {
		t.Fatalf("%d, %v", n, err)
	}
	e := s.entry(t, "ou=people,o=shoal")
	if e.one("ou") != "people" || e.one("entryUUID") == "" || !IsCSN(e.one("entryCSN")) || e.one("creatorsName") != "cn=admin,o=shoal" || e.one("structuralObjectClass") != "organizationalUnit" {
		t.Errorf("%+v", e)
	}
	if len(s.find(t, "o=shoal", ldapwire.WholeSubtree, "(objectClass=top)")) != 3 {
		t.Error("superclasses are missing")
	}
}

// Any mistake refuses the whole, names its line, and leaves the old content, which takes writes again.
func TestImportRefusals(t *testing.T) {
	entry := func(lines string) string {
		return small + "\ndn: cn=x,ou=people,o=shoal\nobjectClass: person\ncn: x\nsn: x\n" + lines
	}
	s := open(t)
	s.mustFill(t)
	old := s.everything(t)
	for text, want := range map[string]string{
		"": "o=shoal itself did not come",
		"dn: o=other\nobjectClass: organization\no: other\n": "not under o=shoal",
		entry("oddity: 1\n"):                          "line 15: cn=x,ou=people,o=shoal: attribute oddity is not in the schema",
		entry("userPassword: clear\n"):                "a password in clear",
		entry("telephoneNumber: \x01\n"):              "telephoneNumber",
		entry("sn: X\n"):                              "given twice",
		entry("jpegPhoto: x\n"):                       "jpegPhoto",
		entry("entryUUID: 1-2\n"):                     "entryUUID",
		entry("entryCSN: yesterday\n"):                "is not a CSN",
		entry("\n" + entry("")[len("version: 1\n"):]): "the entry is there twice",
		small + "\ndn: cn=x,ou=nowhere,o=shoal\nobjectClass: person\ncn: x\nsn: x\n": "have no superior, the first is cn=x,ou=nowhere",
		small + "\ndn: cn=x,ou=people,o=shoal\nchangetype: delete\n":                 "an import takes entries only",
		small + "\ndn: cn=x,ou=people,o=shoal\nno colon here\n":                      "line 16",
		entry("entryUUID: 6ba7b810-9dad-11d1-80b4-00c04fd430c8\n") + "\ndn: cn=y,ou=people,o=shoal\nobjectClass: person\ncn: y\nsn: y\nentryUUID: 6ba7b810-9dad-11d1-80b4-00c04fd430c8\n": "have the entryUUID of another one",
	} {
		if _, err := s.imports(t, text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: error %v, want %q", text, err, want)
		}
		if !maps.Equal(s.everything(t), old) {
			t.Fatalf("%q: the old content is not there any more", text)
		}
	}
	s.mustAdd(t, "ou=after,o=shoal", "objectClass", "organizationalUnit")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.Import(ctx, "", strings.NewReader(s.export(t)+manyEntries(progressEvery)), nil); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

func manyEntries(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "dn: ou=m%d,o=shoal\nobjectClass: organizationalUnit\nou: m%d\n\n", i, i)
	}
	return b.String()
}

// While an import goes on the old content is read, updates are refused and said to be tried later, and a second import is refused.
func TestImportBesideClients(t *testing.T) {
	s := open(t)
	s.mustFill(t)
	in, out := io.Pipe()
	done := make(chan error)
	go func() {
		_, err := s.Import(t.Context(), "", in, nil)
		done <- err
	}()
	if _, err := io.WriteString(out, small); err != nil {
		t.Fatal(err)
	}
	if got := s.find(t, "o=shoal", ldapwire.WholeSubtree, "(uid=alice)"); len(got) != 2 {
		t.Errorf("reads beside an import: %v", got)
	}
	if err := s.Do("", &Delete{DN: []byte("ou=a,o=shoal")}); code(err) != ldapwire.Busy {
		t.Errorf("a write beside an import: %v", err)
	}
	if _, err := s.imports(t, small); !errors.Is(err, ErrLoading) {
		t.Errorf("a second import: %v", err)
	}
	out.Close()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	s.mustAdd(t, "ou=after,o=shoal", "objectClass", "organizationalUnit")
	if s.Entries() != 4 {
		t.Errorf("%d entries", s.Entries())
	}
}
