package ldif

import (
	"bytes"
	"errors"
	"io"
	"reflect"
	"strings"
	"testing"
)

func readAll(text string) (all []*Record, err error) {
	r := NewReader(strings.NewReader(text))
	for {
		rec, err := r.Next()
		if err == io.EOF {
			return all, nil
		}
		if err != nil {
			return nil, err
		}
		all = append(all, rec)
	}
}

func TestRecords(t *testing.T) {
	all, err := readAll("version: 1\n# a comment that is\n  folded\ndn: cn=a,o=x\r\nobjectClass: person\ncn: a\ncn:: w6Q=\ndescription: one\n  two\nempty:\n\n\n" +
		"dn: cn=b,o=x\nchangetype: modify\nadd: mail\nmail: b@x\nmail: c@x\n-\ndelete: sn\n-\nreplace: cn\ncn: b\n-\n\n" +
		"dn: cn=b,o=x\nchangetype: modrdn\nnewrdn: cn=c\ndeleteoldrdn: 1\nnewsuperior: o=y\n\n" +
		"dn: cn=c,o=x\nchangetype: delete\n\ndn: cn=d\nchangetype: add\ncn: d")
	if err != nil {
		t.Fatal(err)
	}
	b := func(s ...string) (out [][]byte) {
		for _, v := range s {
			out = append(out, []byte(v))
		}
		return out
	}
	want := []*Record{
		{Line: 4, DN: "cn=a,o=x", Attributes: []Attribute{{"objectClass", b("person")}, {"cn", b("a", "ä")}, {"description", b("one two")}, {"empty", b("")}}},
		{Line: 13, DN: "cn=b,o=x", Kind: Modify, Changes: []Change{{OpAdd, Attribute{"mail", b("b@x", "c@x")}}, {OpDelete, Attribute{"sn", nil}}, {OpReplace, Attribute{"cn", b("b")}}}},
		{Line: 25, DN: "cn=b,o=x", Kind: ModDN, NewRDN: "cn=c", DeleteOld: true, NewSuperior: "o=y", HasNewSuperior: true},
		{Line: 31, DN: "cn=c,o=x", Kind: Delete},
		{Line: 34, DN: "cn=d", Kind: Add, Attributes: []Attribute{{"cn", b("d")}}},
	}
	if len(all) != len(want) {
		t.Fatalf("%d records instead of %d", len(all), len(want))
	}
	for i := range want {
		if len(want[i].Attributes) > 3 {
			want[i].Attributes[3].Values = [][]byte{{}}
		}
		if !reflect.DeepEqual(all[i], want[i]) {
			t.Errorf("record %d: got %+v, want %+v", i, all[i], want[i])
		}
	}
}

func TestWhatIsRefused(t *testing.T) {
	for _, c := range []struct {
		text string
		line int
	}{
		{"cn: a\n", 1},
		{"\n\ndn: a\n", 3},
		{"dn: a\ncn:< file:///etc/passwd\n", 2},
		{"dn: a\ncn:: *\n", 2},
		{"dn: a\nnonsense\n", 2},
		{"dn: a\ncontrol: 1.2.3\nchangetype: delete\n", 2},
		{"dn: a\nchangetype: move\n", 2},
		{"dn: a\nchangetype: delete\ncn: x\n", 3},
		{"dn: a\nchangetype: modify\nadd: cn\nsn: x\n", 4},
		{"dn: a\nchangetype: modify\nadd: cn\n-\n", 3},
		{"dn: a\nchangetype: modify\nchange: cn\n", 3},
		{"dn: a\nchangetype: modrdn\nnewrdn: cn=b\n", 1},
		{"dn: a\ncn: b\n-\n", 3},
		{"version: 2\ndn: a\ncn: b\n", 1},
	} {
		var e *Error
		if _, err := readAll(c.text); !errors.As(err, &e) || e.Line != c.line {
			t.Errorf("%q: got %v, want an error in line %d", c.text, err, c.line)
		}
	}
}

// What was written is read back with the same octets.
func FuzzReader(f *testing.F) {
	f.Add("dn: cn=a,o=x\ncn: a\ncn:: w6Q=\n\ndn: b\nchangetype: delete\n")
	f.Add("version: 1\ndn: a\nchangetype: modify\nadd: x\nx: y\n-\n")
	f.Add("dn: a\nchangetype: modrdn\nnewrdn: b\ndeleteoldrdn: 0\n")
	f.Add("# c\n d\ndn:\nx: \n y\n\n\n")
	f.Fuzz(func(t *testing.T, text string) {
		all, err := readAll(text)
		if err != nil {
			return
		}
		var b []byte
		for _, rec := range all {
			b = rec.Append(b)
		}
		again, err := readAll(string(b))
		if err != nil || len(again) != len(all) {
			t.Fatalf("%d records, then %d: %v\n%s", len(all), len(again), err, b)
		}
		var c []byte
		for _, rec := range again {
			c = rec.Append(c)
		}
		if !bytes.Equal(b, c) {
			t.Fatalf("not stable:\n%s\n%s", b, c)
		}
	})
}
