// Package ledger keeps docs/rfc.md honest: the table of the RFCs that the service follows.
//
//	| RFC | section or title | status | test |
//
// status is yes, partly or no. A row that claims yes or partly names what shows it: the folder of a Go test,
// a colon and the test's name (tests/cluster:TestDirectoryDown), or the path of a script; several are
// separated by spaces. Rows are sorted by number, then as they stand in the RFC.
package ledger

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

const (
	root   = "../.."
	ledger = root + "/docs/rfc.md"
)

type row struct {
	line                      int
	number                    int
	section, status, evidence string
}

// rows reads the table: lines that begin with "| " and a number.
func rows(text string) (all []row, problems []string) {
	for i, line := range strings.Split(text, "\n") {
		if !strings.HasPrefix(line, "|") {
			continue
		}
		cells := strings.Split(strings.Trim(strings.TrimSpace(line), "|"), "|")
		for j := range cells {
			cells[j] = strings.TrimSpace(cells[j])
		}
		if cells[0] == "RFC" || strings.Trim(cells[0], "-") == "" {
			continue
		}
		number, err := strconv.Atoi(cells[0])
		if err != nil || len(cells) != 4 || cells[1] == "" {
			problems = append(problems, fmt.Sprintf("line %d: a row is | number | section or title | status | test |", i+1))
			continue
		}
		all = append(all, row{i + 1, number, cells[1], cells[2], cells[3]})
	}
	return all, problems
}

// check returns what is wrong with the rows.
func check(all []row) (problems []string) {
	complain := func(r row, format string, args ...any) {
		problems = append(problems, fmt.Sprintf("line %d (RFC %d, %s): ", r.line, r.number, r.section)+fmt.Sprintf(format, args...))
	}
	seen := map[string]bool{}
	for i, r := range all {
		if i > 0 && r.number < all[i-1].number {
			complain(r, "it stands behind RFC %d", all[i-1].number)
		}
		key := fmt.Sprint(r.number, r.section)
		if seen[key] {
			complain(r, "it is there twice")
		}
		seen[key] = true
		switch r.status {
		case "yes", "partly":
			if r.evidence == "" {
				complain(r, "it claims support and names no test")
			}
		case "no":
		default:
			complain(r, "status %q is not yes, partly or no", r.status)
		}
		for _, name := range strings.Fields(r.evidence) {
			if err := exists(strings.Trim(name, "`")); err != nil {
				complain(r, "%v", err)
			}
		}
	}
	return problems
}

// exists looks for a test or a file.
func exists(name string) error {
	folder, test, isTest := strings.Cut(name, ":")
	if !isTest {
		if _, err := os.Stat(filepath.Join(root, name)); err != nil {
			return fmt.Errorf("there is no file %s", name)
		}
		return nil
	}
	files, err := filepath.Glob(filepath.Join(root, folder, "*_test.go"))
	if err != nil || len(files) == 0 {
		return fmt.Errorf("there are no tests in %s", folder)
	}
	declared := regexp.MustCompile(`(?m)^func ` + regexp.QuoteMeta(test) + `\(`)
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		if declared.Match(text) {
			return nil
		}
	}
	return fmt.Errorf("%s has no %s", folder, test)
}

func TestEveryClaimHasItsTest(t *testing.T) {
	text, err := os.ReadFile(ledger)
	if err != nil {
		t.Fatal(err)
	}
	all, problems := rows(string(text))
	if len(all) == 0 {
		t.Error("docs/rfc.md has no rows")
	}
	for _, problem := range append(problems, check(all)...) {
		t.Error("docs/rfc.md, " + problem)
	}
}

// The check must be able to fail.
func TestFalseClaimsAreFound(t *testing.T) {
	for text, want := range map[string]string{
		"| 9051 | all | yes | |":                                      "names no test",
		"| 9051 | all | perhaps | |":                                  "is not yes, partly or no",
		"| 9051 | all | yes | tests/ledger:TestNothing |":             "has no TestNothing",
		"| 9051 | all | yes | nowhere/nothing:TestNothing |":          "no tests in",
		"| 9051 | all | partly | docs/nothing.txt |":                  "no file",
		"| 9051 | all | no | |\n| 3501 | all | no | |":                "stands behind",
		"| 9051 | all | no | |\n| 9051 | all | no | |":                "twice",
		"| IMAP | all | no | |":                                       "a row is",
		"| 9051 | all | no |":                                         "a row is",
		"| 9051 | all | yes | tests/ledger:TestFalseClaimsAreFound |": "",
	} {
		all, problems := rows(text)
		problems = append(problems, check(all)...)
		got := strings.Join(problems, "; ")
		if want == "" && got != "" || !strings.Contains(got, want) {
			t.Errorf("%s\ngot %q, want %q", text, got, want)
		}
	}
}
