package floors

import (
	"fmt"
	"go/ast"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"testing"
)

// Tables of settings follow a comment "<!-- settings: package.Type -->", and have these columns:
const settingsHeading = "| Setting | Type | Default | Reload | Meaning |\n|---|---|---|---|---|"

// setting is one row: what the struct field says, and the sentence that people wrote.
type setting struct {
	name, kind, def, reload, meaning string
}

// block is a struct with hcl tags.
type block struct {
	settings []setting
	required bool     // it has an attribute that must be there
	bad      []string // tags that cannot be read
}

// findBlocks collects all structs with hcl tags.
func findBlocks(s *source) map[string]*block {
	blocks := map[string]*block{}
	fields := map[string][]*ast.Field{}
	s.walk(func(f *ast.File, n ast.Node, around []ast.Node) {
		spec, ok := n.(*ast.TypeSpec)
		if !ok {
			return
		}
		st, ok := spec.Type.(*ast.StructType)
		if !ok {
			return
		}
		name := f.Name.Name + "." + spec.Name.Name
		for _, field := range st.Fields.List {
			if _, kind := hclTag(field); kind != "" {
				if blocks[name] == nil {
					blocks[name] = &block{}
				}
				blocks[name].required = blocks[name].required || kind == "attr"
				fields[name] = append(fields[name], field)
			}
		}
	})
	for name, b := range blocks {
		pkg, _, _ := strings.Cut(name, ".")
		for _, field := range fields[name] {
			row := describe(pkg, field, blocks)
			b.settings = append(b.settings, row)
			for _, bad := range badTags(field, row.kind) {
				b.bad = append(b.bad, row.name+": "+bad)
			}
		}
	}
	return blocks
}

func tagOf(f *ast.Field) reflect.StructTag {
	if f.Tag == nil {
		return ""
	}
	return reflect.StructTag(strings.Trim(f.Tag.Value, "`"))
}

func hclTag(f *ast.Field) (name, kind string) {
	tag := tagOf(f).Get("hcl")
	if tag == "" {
		return "", ""
	}
	name, kind, ok := strings.Cut(tag, ",")
	if !ok {
		kind = "attr"
	}
	return name, kind
}

// describe makes the row of a field; its meaning is the comment of the field, as a draft.
func describe(pkg string, f *ast.Field, blocks map[string]*block) setting {
	name, kind := hclTag(f)
	tag := tagOf(f)
	s := setting{name: "`" + name + "`", reload: "no", meaning: strings.Join(strings.Fields(f.Doc.Text()), " ")}
	words := strings.Split(tag.Get("conf"), ",")
	for _, w := range words {
		if w == "live" {
			s.reload = "yes"
		}
	}
	if kind == "block" {
		s.kind, s.def = blockKind(pkg, f.Type, blocks)
		if s.reload == "no" {
			s.reload = "see there"
		}
		return s
	}
	s.kind = attributeKind(f.Type, words[0], tag)
	def, has := tag.Lookup("default")
	switch {
	case kind == "label":
		s.name, s.def = "("+name+")", "required"
	case kind == "attr":
		s.def = "required"
	case has && def != "":
		s.def = "`" + def + "`"
	case !has && isIdent(f.Type, "bool"):
		s.def = "`false`"
	default:
		s.def = "none"
	}
	return s
}

// values says how default, min and max of a type are written; text and lists are free.
var values = []struct {
	kind string // how the type begins in the table
	form *regexp.Regexp
}{
	{"size", regexp.MustCompile(`^[0-9.]+ ?([KMGT]i?)?B$`)},
	{"duration", regexp.MustCompile(`^([0-9.]+(ns|us|ms|s|m|h|d))+$`)},
	{"number", regexp.MustCompile(`^[0-9.]+$`)},
	{"true or false", regexp.MustCompile(`^(true|false)$`)},
}

// badTags returns the tags of a field that package conf could not read, which would be a panic at the start.
func badTags(f *ast.Field, kind string) []string {
	var bad []string
	for _, v := range values {
		if !strings.HasPrefix(kind, v.kind) {
			continue
		}
		for _, tag := range []string{"default", "min", "max"} {
			if text, ok := tagOf(f).Lookup(tag); ok && !v.form.MatchString(text) {
				bad = append(bad, fmt.Sprintf("%s:%q is not a %s", tag, text, v.kind))
			}
		}
	}
	if _, hcl := hclTag(f); hcl == "attr" || hcl == "label" {
		if _, ok := tagOf(f).Lookup("default"); ok {
			bad = append(bad, "a default for what is required")
		}
	}
	return bad
}

// blockKind describes a field that holds blocks: which, how many, and what it means when there is none.
func blockKind(pkg string, t ast.Expr, blocks map[string]*block) (kind, def string) {
	many, optional := false, false
	for {
		switch u := t.(type) {
		case *ast.ArrayType:
			many, t = true, u.Elt
			continue
		case *ast.StarExpr:
			optional, t = true, u.X
			continue
		}
		break
	}
	name := typeName(pkg, t)
	switch b := blocks[name]; {
	case many:
		return "blocks " + name, "none"
	case optional:
		return "block " + name, "absent"
	case b != nil && b.required:
		return "block " + name, "required"
	}
	return "block " + name, "its defaults"
}

func typeName(pkg string, t ast.Expr) string {
	switch u := t.(type) {
	case *ast.Ident:
		return pkg + "." + u.Name
	case *ast.SelectorExpr:
		return u.X.(*ast.Ident).Name + "." + u.Sel.Name
	}
	return "?"
}

func isIdent(t ast.Expr, name string) bool {
	id, ok := t.(*ast.Ident)
	return ok && id.Name == name
}

// kinds are the words for the kinds of package conf.
var kinds = map[string]string{
	"path": "file name", "secret": "secret file", "listen": "address to listen on", "dial": "address", "network": "network",
	"ldapuri": "LDAP URI", "name": "server name", "dn": "distinguished name", "account": "system account",
}

func attributeKind(t ast.Expr, kind string, tag reflect.StructTag) string {
	if list, ok := t.(*ast.ArrayType); ok {
		return "list: " + attributeKind(list.Elt, kind, tag)
	}
	if _, ok := t.(*ast.MapType); ok {
		return "map"
	}
	var s string
	switch {
	case tag.Get("oneof") != "":
		return "`" + strings.Join(strings.Fields(tag.Get("oneof")), "`, `") + "`"
	case kinds[kind] != "":
		s = kinds[kind]
	case isIdent(t, "string"):
		s = "text"
	case isIdent(t, "bool"):
		s = "true or false"
	case strings.HasSuffix(typeName("", t), ".Duration"):
		s = "duration"
	case strings.HasSuffix(typeName("", t), ".Size"):
		s = "size"
	default:
		s = "number"
	}
	low, high := tag.Get("min"), tag.Get("max")
	switch {
	case low != "" && high != "":
		s += fmt.Sprintf(", %s to %s", low, high)
	case low != "":
		s += ", at least " + low
	case high != "":
		s += ", at most " + high
	}
	return s
}

// checkSettings compares the code below dir with dir/docs/configuration.md.
func checkSettings(dir string) ([]string, error) {
	src, err := parseTree(dir)
	if err != nil {
		return nil, err
	}
	doc, err := os.ReadFile(filepath.Join(dir, "docs/configuration.md"))
	if err != nil {
		return nil, err
	}
	var wrong []string
	say := func(format string, args ...any) { wrong = append(wrong, fmt.Sprintf(format, args...)) }
	blocks := findBlocks(src)
	seen := map[string]bool{}
	for _, t := range readTables(strings.Split(string(doc), "\n"), "settings") {
		b := blocks[t.marker]
		switch {
		case b == nil:
			say("%s: no such configuration block in the code", t.marker)
			continue
		case seen[t.marker]:
			say("%s: documented twice", t.marker)
		}
		seen[t.marker] = true
		documented := map[string][]string{}
		for _, r := range t.rows {
			documented[r[0]] = r
		}
		for _, s := range b.settings {
			r, ok := documented[s.name]
			delete(documented, s.name)
			switch {
			case !ok:
				say("%s %s: not documented", t.marker, s.name)
			case len(r) != 5:
				say("%s %s: %d columns instead of 5", t.marker, s.name, len(r))
			case r[1] != s.kind || r[2] != s.def || r[3] != s.reload:
				say("%s %s: documented as %q, %q, %q, but it is %q, %q, %q", t.marker, s.name, r[1], r[2], r[3], s.kind, s.def, s.reload)
			case r[4] == "":
				say("%s %s: its meaning is not written", t.marker, s.name)
			}
		}
		for _, name := range sortedKeys(documented) {
			say("%s %s: documented, but not in the code", t.marker, name)
		}
	}
	for _, name := range sortedKeys(blocks) {
		for _, bad := range blocks[name].bad {
			say("%s %s", name, bad)
		}
		if !seen[name] {
			say("%s: not documented: write \"<!-- settings: %s -->\" and a table, or run the test with -update", name, name)
		}
	}
	return wrong, nil
}

// updateSettings rewrites the tables of docs/configuration.md; meanings stay.
func updateSettings(dir string) error {
	src, err := parseTree(dir)
	if err != nil {
		return err
	}
	file := filepath.Join(dir, "docs/configuration.md")
	doc, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	blocks := findBlocks(src)
	lines := strings.Split(string(doc), "\n")
	var out []string
	last := 0
	for _, t := range readTables(lines, "settings") {
		b := blocks[t.marker]
		if b == nil {
			continue
		}
		delete(blocks, t.marker)
		meanings := map[string]string{}
		for _, r := range t.rows {
			if len(r) == 5 {
				meanings[r[0]] = r[4]
			}
		}
		out = append(out, lines[last:t.first]...)
		for _, s := range b.settings {
			if m := meanings[s.name]; m != "" {
				s.meaning = m
			}
			out = append(out, row(s.name, s.kind, s.def, s.reload, s.meaning))
		}
		last = t.end
	}
	out = append(out, lines[last:]...)
	for _, name := range sortedKeys(blocks) {
		out = append(out, "### "+name, "", "<!-- settings: "+name+" -->", "", settingsHeading)
		for _, s := range blocks[name].settings {
			out = append(out, row(s.name, s.kind, s.def, s.reload, s.meaning))
		}
		out = append(out, "")
	}
	return os.WriteFile(file, []byte(strings.Join(out, "\n")), 0o644)
}

func TestSettingsAreDocumented(t *testing.T) {
	if *update {
		if err := updateSettings(root); err != nil {
			t.Fatal(err)
		}
	}
	wrong, err := checkSettings(root)
	if err != nil {
		t.Fatal(err)
	}
	for _, w := range wrong {
		t.Error("docs/configuration.md: " + w)
	}
}

func TestBadSettingsAreSeen(t *testing.T) {
	got, err := checkSettings("testdata/baddocs")
	if err != nil {
		t.Fatal(err)
	}
	compare(t, got, []string{
		"boxd.Config `greeting`: not documented",
		"boxd.Config `size`: documented as \"size\", \"`1 MB`\", \"no\", but it is \"size, 1 KB to 1 GB\", \"`2 MB`\", \"yes\"",
		"boxd.Config `wait`: its meaning is not written",
		"boxd.Config `gone`: documented, but not in the code",
		"boxd.Nothing: no such configuration block in the code",
		"boxd.Other: documented twice",
		"boxd.Silent `small`: min:\"255\" is not a size",
		"boxd.Silent `must`: a default for what is required",
		"boxd.Silent: not documented: write \"<!-- settings: boxd.Silent -->\" and a table, or run the test with -update",
	})
}
