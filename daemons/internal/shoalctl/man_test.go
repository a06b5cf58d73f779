package shoalctl

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/cobra"

	"shoal/daemons/internal/pki"
)

var manMacros = []string{".TH", ".SH", ".B", ".BR", ".BI", ".I", ".IR", ".RB", ".TP", ".PP", ".nf", ".fi", `.\"`}

// checkPage looks at what a page must have: known macros only, balanced blocks, and these sections in this order.
func checkPage(t *testing.T, name, page string, sections ...string) {
	t.Helper()
	if !strings.Contains(page, "\n.SH NAME\n"+strings.TrimSuffix(name, ".8")+" \\- ") &&
		!strings.Contains(page, "\n.SH NAME\n"+strings.ReplaceAll(strings.TrimSuffix(name, ".8"), "-", `\-`)+" \\- ") {
		t.Errorf("%s: the section NAME is not as man -k wants it", name)
	}
	verbatim := false
	var found []string
	for i, line := range strings.Split(strings.TrimSuffix(page, "\n"), "\n") {
		if line == "" {
			t.Errorf("%s, line %d is empty", name, i+1)
		}
		if strings.TrimRight(line, " ") != line {
			t.Errorf("%s, line %d ends in a blank", name, i+1)
		}
		if strings.HasPrefix(line, "'") {
			t.Errorf("%s, line %d would be a request: %s", name, i+1, line)
		}
		if !strings.HasPrefix(line, ".") {
			continue
		}
		macro, rest, _ := strings.Cut(line, " ")
		if !slices.Contains(manMacros, macro) {
			t.Errorf("%s, line %d: %s is no macro that is used here", name, i+1, macro)
		}
		switch macro {
		case ".SH":
			found = append(found, strings.Trim(rest, `"`))
		case ".nf", ".fi":
			if verbatim == (macro == ".nf") {
				t.Errorf("%s, line %d: %s where it was so already", name, i+1, macro)
			}
			verbatim = macro == ".nf"
		}
	}
	if verbatim {
		t.Errorf("%s: .nf without .fi", name)
	}
	next := 0
	for _, section := range found {
		if next < len(sections) && section == sections[next] {
			next++
		}
	}
	if next < len(sections) {
		t.Errorf("%s: sections %q; %s is missing or in the wrong place", name, found, sections[next])
	}
}

func TestManualPagesOfCommands(t *testing.T) {
	folder := filepath.Join(t.TempDir(), "man")
	t.Setenv("SOURCE_DATE_EPOCH", "1795435200")
	code, _, errOut := run(t, "", "man", folder)
	if code != 0 {
		t.Fatal(errOut)
	}
	var want []string
	if err := eachCommand((&tool{}).root(), func(c *cobra.Command) error {
		want = append(want, manName(c)+".8")
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	for _, name := range want {
		text, err := os.ReadFile(filepath.Join(folder, name))
		if err != nil {
			t.Error(err)
			continue
		}
		page := string(text)
		checkPage(t, name, page, "NAME", "SYNOPSIS", "DESCRIPTION", "SEE ALSO")
		if !strings.HasPrefix(page, ".TH SHOALCTL") || !strings.Contains(page, " 8 2026-11-23 \"Shoal 1.2.3\" \"Shoal\"\n") {
			t.Errorf("%s begins %.80q", name, page)
		}
		// whatever it refers to is there
		for _, ref := range regexp.MustCompile(`\.BR (shoalctl\S*) \(8\)`).FindAllStringSubmatch(page, -1) {
			if other := strings.ReplaceAll(ref[1], `\-`, "-") + ".8"; !slices.Contains(want, other) && !strings.Contains(other, "completion") {
				t.Errorf("%s refers to %s, which is not there", name, other)
			}
		}
	}
	root, err := os.ReadFile(filepath.Join(folder, "shoalctl.8"))
	if err != nil {
		t.Fatal(err)
	}
	checkPage(t, "shoalctl.8", string(root), "NAME", "SYNOPSIS", "DESCRIPTION", "COMMANDS", "OPTIONS", "EXAMPLES", "ENVIRONMENT", "FILES", "EXIT STATUS", "SEE ALSO")
	if len(want) < 20 {
		t.Errorf("only %d commands", len(want))
	}
}

func TestManualPagesOfDaemons(t *testing.T) {
	for _, daemon := range []string{"switchd", "boxd", "vaultd"} {
		text, err := os.ReadFile("../../../docs/man/" + daemon + ".8")
		if err != nil {
			t.Fatal(err)
		}
		checkPage(t, daemon+".8", string(text), "NAME", "SYNOPSIS", "DESCRIPTION", "OPTIONS", "FILES", "SIGNALS", "EXIT STATUS", "SEE ALSO")
		for _, word := range []string{`\-config`, `\-check`, `\-version`, "SIGHUP", "SIGTERM", "/etc/shoal/" + daemon + ".hcl"} {
			if !strings.Contains(string(text), word) {
				t.Errorf("%s.8 does not mention %s", daemon, word)
			}
		}
	}
}

func TestRoff(t *testing.T) {
	for in, want := range map[string]string{".x": `\&.x`, `a\b`: `a\eb`, "--x": `\-\-x`, "'y'": `\(aqy\(aq`, "~/m": `\(ti/m`} {
		if got := roff(in); got != want {
			t.Errorf("%q: got %q, want %q", in, got, want)
		}
	}
}

func TestCompletion(t *testing.T) {
	s, _, _ := queueSite(t)
	s.list(pki.RoleSwitch, "switch3", nobody(t)) // does not hinder
	for _, c := range []struct{ args, want string }{
		{"queue show|switch2.", "switch2.a.9.0\tfrom <>\nswitch2.c.1.0\tfrom <carol@example.test>\n:4\n"},
		{"queue show|switch2.a.9.0|", ":4\n"},
		{"queue retry|switch2.a.9.0|switch1", "switch1.b.1.0\tfrom <alice@example.test>\n:4\n"},
		{"export|--format|m", "maildir\nmbox\n:4\n"},
		{"import|a@b|", ":0\n"},     // files
		{"account show|al", ":4\n"}, // the directory does not answer
		{"queue sh", "show\tShow an entry of the queue and the header of its message\n:4\n"},
	} {
		words := strings.Fields(strings.Split(c.args, "|")[0])
		words = append(words, strings.Split(c.args, "|")[1:]...)
		code, out, _ := s.run("", append([]string{"__complete"}, words...)...)
		if code != 0 || out != c.want {
			t.Errorf("%s: exit code %d, got %q, want %q", c.args, code, out, c.want)
		}
	}
	for _, shell := range []string{"bash", "zsh", "fish"} {
		if code, out, errOut := run(t, "", "completion", shell); code != 0 || !strings.Contains(out, "shoalctl") {
			t.Errorf("%s: exit code %d, %s", shell, code, errOut)
		}
	}
	if got := escapeFilter(`a*(b)\`); got != `a\2a\28b\29\5c` {
		t.Errorf("filter %q", got)
	}
}
