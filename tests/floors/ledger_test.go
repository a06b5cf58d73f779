package floors

import (
	"bufio"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// A row of the ledger is "| RFC | section | status | test |". Its status begins with one of these words.
// The first kind claims support, of which the last column must name a test: in backquotes the name of a
// test or fuzz function, a package and such a name ("imapsession.TestIdle"), or a file of the repository
// by its path or by the end of it ("testdata/idle.txt").
var (
	claims = []string{"yes", "full", "supported", "partial", "done"}
	denies = []string{"no", "not", "none", "planned", "later", "out", "refused"}
)

var (
	quoted    = regexp.MustCompile("`([^`]+)`")
	function  = regexp.MustCompile(`^(?:([a-z][a-z0-9]*)\.)?((?:Test|Fuzz)[A-Za-z0-9_]*)(?:/.*)?$`)
	firstWord = regexp.MustCompile(`^[a-z]+`)
)

// evidence is what a row may name.
type evidence struct {
	functions map[string]bool // "TestIdle" and "imapsession.TestIdle"
	files     []string        // from the root, with slashes
}

// findEvidence collects the test functions and the files of a tree.
func findEvidence(dir string) (*evidence, error) {
	e := &evidence{functions: map[string]bool{}}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		name = filepath.ToSlash(name)
		switch {
		case d.IsDir() && (name == ".git" || name == "bin" || name == "var" || name == "dist" || name == "tests/floors/testdata"):
			return filepath.SkipDir
		case d.IsDir():
			return nil
		}
		e.files = append(e.files, name)
		if !strings.HasSuffix(name, "_test.go") {
			return nil
		}
		f, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		for _, decl := range f.Decls {
			if fn, ok := decl.(*ast.FuncDecl); ok && fn.Recv == nil && function.MatchString(fn.Name.Name) {
				e.functions[fn.Name.Name] = true
				e.functions[strings.TrimSuffix(f.Name.Name, "_test")+"."+fn.Name.Name] = true
			}
		}
		return nil
	})
	return e, err
}

// has tells whether a name in backquotes is a test or a file that exists.
func (e *evidence) has(name string) bool {
	if m := function.FindStringSubmatch(name); m != nil {
		full := m[2]
		if m[1] != "" {
			full = m[1] + "." + m[2]
		}
		return e.functions[full]
	}
	return slices.ContainsFunc(e.files, func(f string) bool { return f == name || strings.HasSuffix(f, "/"+name) })
}

// checkLedger returns what is wrong with dir/docs/rfc.md.
func checkLedger(dir string) ([]string, error) {
	f, err := os.Open(filepath.Join(dir, "docs/rfc.md"))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	e, err := findEvidence(dir)
	if err != nil {
		return nil, err
	}
	var wrong []string
	rows, line := 0, 0
	for s := bufio.NewScanner(f); s.Scan(); {
		line++
		if !strings.HasPrefix(s.Text(), "|") {
			continue
		}
		c := cells(s.Text())
		if len(c) < 4 || strings.EqualFold(c[0], "rfc") || strings.Trim(c[0], "-: ") == "" {
			continue
		}
		rows++
		say := func(format string, args ...any) {
			wrong = append(wrong, fmt.Sprintf("line %d (%s): ", line, c[0])+fmt.Sprintf(format, args...))
		}
		status := firstWord.FindString(strings.ToLower(c[2]))
		switch {
		case slices.Contains(denies, status):
			continue
		case !slices.Contains(claims, status):
			say("status %q: begin it with one of %s, %s", c[2], strings.Join(claims, ", "), strings.Join(denies, ", "))
			continue
		}
		names := quoted.FindAllStringSubmatch(c[3], -1)
		if len(names) == 0 {
			say("claims support, but names no test")
		}
		for _, n := range names {
			if !e.has(n[1]) {
				say("names %s, which is neither a test nor a file", n[1])
			}
		}
	}
	if rows == 0 {
		wrong = append(wrong, "no rows: the ledger says nothing")
	}
	return wrong, nil
}

func TestLedger(t *testing.T) {
	wrong, err := checkLedger(root)
	if err != nil {
		t.Fatal(err)
	}
	for _, w := range wrong {
		t.Error("docs/rfc.md: " + w)
	}
}

func TestBadLedgerIsSeen(t *testing.T) {
	got, err := checkLedger("testdata/badledger")
	if err != nil {
		t.Fatal(err)
	}
	compare(t, got, []string{
		"line 7 (9051): claims support, but names no test",
		"line 8 (2177): names TestNothing, which is neither a test nor a file",
		"line 9 (6851): names other.TestIdle, which is neither a test nor a file",
		"line 10 (7162): names testdata/none.txt, which is neither a test nor a file",
		`line 11 (5256): status "perhaps": begin it with one of yes, full, supported, partial, done, no, not, none, planned, later, out, refused`,
	})
	if got, err := checkLedger("testdata/emptyledger"); err != nil || len(got) != 1 {
		t.Errorf("an empty ledger: %q, %v", got, err)
	}
}
