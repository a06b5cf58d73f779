package access

import (
	"errors"
	"strings"
	"testing"

	"shoal/daemons/internal/dirschema"
)

func language(t testing.TB) *Language {
	t.Helper()
	s, err := dirschema.Default()
	if err != nil {
		t.Fatal(err)
	}
	return &Language{Schema: s}
}

func TestRulesAreRead(t *testing.T) {
	l := language(t)
	for _, text := range []string{
		`{0}to * by * none`,
		`{10}to * by users read by anonymous =search,compare by * none`,
		`{10;1}to dn.subtree="ou=domains,o=shoal" attrs=mail,cn,@inetOrgPerson,entry,children by group="cn=a b,o=shoal" write break`,
		"{5}to\n  filter=\"(&(objectClass=person)(cn=a \\\"b\\\"))\"\n  by self write\n  by dn.children=\"ou=x,o=shoal\" role=* manage",
		`{5}to dn=o=shoal by role=box,switch read`,
		`{5}to * by self read break by * break`,
		`{5}to attrs=userPassword by self =password by anonymous =auth`,
	} {
		r, err := l.Parse(text)
		if err != nil {
			t.Errorf("%s: %v", text, err)
		} else if len(r.clauses) == 0 {
			t.Errorf("%s: no clauses", text)
		}
	}
}

func TestBrokenRulesAreRefusedWithTheirPlace(t *testing.T) {
	l := language(t)
	for _, c := range []struct {
		text, why    string
		line, column int
	}{
		{"to * by * read", "braces", 1, 1},
		{"{x}to * by * read", "number", 1, 2},
		{"{-1}to * by * read", "number", 1, 2},
		{"{1;2}to * by * read", "version", 1, 4},
		{"{1}to * by * read by", "missing", 1, 21},
		{"{1}to * by * raed", "raed", 1, 14},
		{"{1}to *\nby nobodyy read", "nobodyy", 2, 4},
		{"{1}to * by * administer", "administer", 1, 14},
		{"{1}to dn.sub=\"o=shoal\" by * read", "scope", 1, 7},
		{"{1}to dn=\"no name\" by * read", "attribute type", 1, 7},
		{"{1}to attrs=nosuch by * read", "nosuch", 1, 7},
		{"{1}to filter=(nosuch=1) by * read", "nosuch", 1, 7},
		{"{1}to filter=(userPassword=1) by * read", "secret", 1, 7},
		{"{1}to filter=((( by * read", "filter", 1, 7},
		{"{1}to dn=\"o=shoal by * read", "not closed", 1, 10},
		{"{1}to * * by * read", "twice", 1, 9},
		{"{1}to by * read", "missing", 1, 7},
		{"{1}to *", "missing", 1, 8},
		{"{1}to * by role=b0x read", "role", 1, 12},
		{"{1}to * by * read brake", "expected", 1, 19},
		{"{1}to * by * read\n" + strings.Repeat("x", MaxRule), "at most", 2, MaxRule - 17},
	} {
		_, err := l.Parse(c.text)
		var e *Error
		if !errors.As(err, &e) {
			t.Errorf("%.60q: %v", c.text, err)
			continue
		}
		if e.Line != c.line || e.Column != c.column || !strings.Contains(e.Message, c.why) {
			t.Errorf("%.60q: %v, not %d:%d %s", c.text, err, c.line, c.column, c.why)
		}
	}
}

func TestTheProgramsOwnRulesAreRead(t *testing.T) {
	for _, text := range []string{serviceRules, defaultRules} {
		if n := len(builtin(language(t), `o=Sho\22al`, text)); n != strings.Count(strings.TrimSpace(text), "\n")+1 {
			t.Errorf("%d rules", n)
		}
	}
	for _, name := range secrets {
		a := language(t).Schema.Attribute([]byte(name))
		if a == nil || !isSecret(a) {
			t.Errorf("%s is no secret", name)
		}
	}
}

func TestSecretsOfAClassAreNotAmongItsAttributes(t *testing.T) {
	l := language(t)
	r, err := l.Parse(`{1}to attrs=@inetOrgPerson,@shoalServer by * read`)
	if err != nil {
		t.Fatal(err)
	}
	if is, _ := r.covers(l.Schema.Attribute([]byte("userPassword"))); is {
		t.Error("userPassword is covered")
	}
	if is, _ := r.covers(l.Schema.Attribute([]byte("telephoneNumber"))); !is {
		t.Error("telephoneNumber is not")
	}
}

func FuzzRule(f *testing.F) {
	l := language(f)
	for _, s := range []string{`{0}to * by * none`, `{10}to dn.subtree="ou=domains,o=shoal" attrs=mail,@person,entry by group="cn=a,o=shoal" =read,add break by * none`,
		`{1}to filter="(&(cn=a)(!(sn=\"b\")))" by self role=box write`, `{1;2}to x`, "{", `{1}to dn="`, `{1}to *by`, `{1}to * by dn.one=o=shoal,dc read`} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		r, err := l.Parse(text)
		if err != nil {
			var e *Error
			if !errors.As(err, &e) || e.Line < 1 || e.Column < 1 || e.Message == "" {
				t.Fatalf("%q: %v", text, err)
			}
			return
		}
		// What was read is read again, in another layout too.
		again, err := l.Parse(strings.ReplaceAll(strings.TrimSpace(text), "\t", " "))
		if err != nil || len(again.clauses) != len(r.clauses) || again.Number != r.Number {
			t.Fatalf("%q: read once only: %v", text, err)
		}
		for _, c := range r.clauses {
			if !strings.HasPrefix(c.text, "by") || len(c.who) == 0 {
				t.Fatalf("%q: clause %q", text, c.text)
			}
		}
	})
}
