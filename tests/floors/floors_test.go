package floors

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// root is the folder of the repository; update rewrites the documents.
const root = "../.."

var update = flag.Bool("update", false, "rewrite the tables of docs/configuration.md and docs/metrics.md")

// plan is the list of floors: the number of the floor of each package, counted from the ground, by its
// path below the module.
type plan map[string]int

// readPlan parses FLOORS: one floor per line, highest first, its name and then its packages, by their path
// below daemons/internal, or below the module when they begin with "daemons/". # begins a comment.
func readPlan(file string) (plan, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var floors [][]string
	for s := bufio.NewScanner(f); s.Scan(); {
		line, _, _ := strings.Cut(s.Text(), "#")
		if words := strings.Fields(line); len(words) > 0 {
			floors = append(floors, words[1:])
		}
	}
	p := plan{}
	for i, packages := range floors {
		for _, name := range packages {
			if !strings.HasPrefix(name, "daemons/") {
				name = "daemons/internal/" + name
			}
			if _, twice := p[name]; twice {
				return nil, fmt.Errorf("%s: %s stands on two floors", file, name)
			}
			p[name] = len(floors) - i
		}
	}
	return p, nil
}

// listed is what "go list -json" says of a package.
type listed struct {
	ImportPath string
	Module     struct{ Path string }
	Imports    []string // without those of tests
}

// checkFloors returns what is wrong with the packages below dir/daemons.
func checkFloors(dir string) ([]string, error) {
	p, err := readPlan(filepath.Join(dir, "daemons/internal/FLOORS"))
	if err != nil {
		return nil, err
	}
	cmd := exec.Command("go", "list", "-e", "-json=ImportPath,Module,Imports", "./daemons/...")
	cmd.Dir = dir
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("go list: %w: %s", err, stderr.String())
	}
	var wrong []string
	there := map[string]bool{}
	for dec := json.NewDecoder(bytes.NewReader(out)); ; {
		var pkg listed
		if err := dec.Decode(&pkg); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			return nil, fmt.Errorf("go list: %w", err)
		}
		prefix := pkg.Module.Path + "/"
		name := strings.TrimPrefix(pkg.ImportPath, prefix)
		there[name] = true
		floor, ok := p[name]
		if !ok {
			wrong = append(wrong, fmt.Sprintf("%s is not in daemons/internal/FLOORS: give it a floor", name))
			continue
		}
		for _, imported := range pkg.Imports {
			if !strings.HasPrefix(imported, prefix) {
				continue
			}
			imported = strings.TrimPrefix(imported, prefix)
			below, ok := p[imported]
			switch {
			case !ok:
				wrong = append(wrong, fmt.Sprintf("%s imports %s, which is not in daemons/internal/FLOORS", name, imported))
			case below == floor:
				wrong = append(wrong, fmt.Sprintf("%s imports %s sideways: they stand on one floor; let the caller hand it in through an interface", name, imported))
			case below > floor:
				wrong = append(wrong, fmt.Sprintf("%s imports %s upward: turn the dependency round with an interface", name, imported))
			}
		}
	}
	for name := range p {
		if !there[name] {
			wrong = append(wrong, fmt.Sprintf("%s is in daemons/internal/FLOORS, but there is no such package", name))
		}
	}
	slices.Sort(wrong)
	return wrong, nil
}

func TestImportsPointDownward(t *testing.T) {
	wrong, err := checkFloors(root)
	if err != nil {
		t.Fatal(err)
	}
	for _, w := range wrong {
		t.Error(w)
	}
}

func TestBadFloorsAreSeen(t *testing.T) {
	got, err := checkFloors("testdata/badfloors")
	if err != nil {
		t.Fatal(err)
	}
	compare(t, got, []string{
		"daemons/internal/ground imports daemons/internal/service upward: turn the dependency round with an interface",
		"daemons/internal/missing is in daemons/internal/FLOORS, but there is no such package",
		"daemons/internal/service imports daemons/internal/other sideways: they stand on one floor; let the caller hand it in through an interface",
		"daemons/internal/service imports daemons/internal/stranger, which is not in daemons/internal/FLOORS",
		"daemons/internal/stranger is not in daemons/internal/FLOORS: give it a floor",
	})
}

func TestPackageOnTwoFloors(t *testing.T) {
	if _, err := readPlan("testdata/TWICE"); err == nil || !strings.Contains(err.Error(), "a stands on two floors") {
		t.Errorf("%v", err)
	}
}

// compare reports what a check of a bad tree found too much or too little.
func compare(t *testing.T, got, want []string) {
	t.Helper()
	for _, w := range want {
		if !slices.Contains(got, w) {
			t.Errorf("not seen: %s", w)
		}
	}
	for _, g := range got {
		if !slices.Contains(want, g) {
			t.Errorf("not wrong, or not known to the test: %s", g)
		}
	}
}
