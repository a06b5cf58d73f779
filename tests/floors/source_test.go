package floors

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"sort"
	"strconv"
	"strings"
)

// source is the parsed code of a tree, without its tests.
type source struct {
	fset  *token.FileSet
	files []*ast.File
}

// parseTree parses the Go files below dir/daemons.
func parseTree(dir string) (*source, error) {
	s := &source{fset: token.NewFileSet()}
	err := filepath.WalkDir(filepath.Join(dir, "daemons"), func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && d.Name() == "testdata":
			return filepath.SkipDir
		case d.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go"):
			return nil
		}
		f, err := parser.ParseFile(s.fset, path, nil, parser.ParseComments)
		if err != nil {
			return err
		}
		s.files = append(s.files, f)
		return nil
	})
	return s, err
}

// walk visits every node with the nodes around it, the nearest last.
func (s *source) walk(visit func(f *ast.File, n ast.Node, around []ast.Node)) {
	for _, f := range s.files {
		var around []ast.Node
		ast.Inspect(f, func(n ast.Node) bool {
			if n == nil {
				around = around[:len(around)-1]
				return true
			}
			visit(f, n, around)
			around = append(around, n)
			return true
		})
	}
}

// text is the value of a string literal, or of several that are added; ok is false for anything else.
func text(e ast.Expr) (string, bool) {
	switch e := e.(type) {
	case *ast.BasicLit:
		if e.Kind != token.STRING {
			return "", false
		}
		s, err := strconv.Unquote(e.Value)
		return s, err == nil
	case *ast.BinaryExpr:
		a, ok := text(e.X)
		b, ok2 := text(e.Y)
		return a + b, ok && ok2 && e.Op == token.ADD
	case *ast.ParenExpr:
		return text(e.X)
	}
	return "", false
}

// table is one Markdown table behind a marker comment, as lines of the document.
type table struct {
	marker     string // what the comment says after its kind
	first, end int    // lines of the rows: [first, end)
	rows       [][]string
}

// readTables finds the tables behind comments "<!-- kind: marker -->" in a document.
func readTables(lines []string, kind string) []table {
	var all []table
	for i := 0; i < len(lines); i++ {
		marker, ok := strings.CutPrefix(strings.TrimSpace(lines[i]), "<!-- "+kind+": ")
		if !ok {
			continue
		}
		t := table{marker: strings.TrimSuffix(marker, " -->")}
		for i++; i < len(lines) && strings.TrimSpace(lines[i]) == ""; i++ {
		}
		t.first = min(i+2, len(lines)) // after the heading and its rule
		if i >= len(lines) || !strings.HasPrefix(lines[i], "|") {
			t.first = i
		}
		for i = t.first; i < len(lines) && strings.HasPrefix(lines[i], "|"); i++ {
			t.rows = append(t.rows, cells(lines[i]))
		}
		t.end = i
		i--
		all = append(all, t)
	}
	return all
}

// cells splits "| a | b |". A cell holds no bar.
func cells(line string) []string {
	parts := strings.Split(strings.Trim(strings.TrimSpace(line), "|"), "|")
	for i := range parts {
		parts[i] = strings.TrimSpace(parts[i])
	}
	return parts
}

func row(cells ...string) string { return "| " + strings.Join(cells, " | ") + " |" }

func sortedKeys[V any](m map[string]V) []string {
	all := make([]string, 0, len(m))
	for k := range m {
		all = append(all, k)
	}
	sort.Strings(all)
	return all
}
