// Package model has spin search the models of the store's protocol: every interleaving of a few servers, with crashes, lost
// replies and caches that are arbitrarily old. The models are commit.pml, interest.pml, trash.pml and collect.pml; their
// comments name the function in daemons/internal/mailstore for each step. Whoever changes one of those changes the model.
//
// A model that is right must be searched to its end without an error: a search that ran out of memory, depth or time
// shows nothing and fails the test. Each mutant, a protocol without one of its rules, must be caught: else the model would not
// notice if the rule were missing.
//
// SHOAL_MODEL=large searches larger parameters (`make model-large`).
package model

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"
)

// A search is one model with its parameters.
type search struct {
	model   string
	defines string // parameters and mutants, by name
	finds   string // an assertion that must fail, as spin prints it, or several with | between; empty: none may
	reverse bool   // search in the other order: it comes sooner to what this mutant does wrong
	large   bool   // only in the large run
}

var searches = []search{
	{model: "commit", defines: "WRITERS=2 COMMITS=1"},
	{model: "commit", defines: "WRITERS=1 COMMITS=2 READERS=1"},
	{model: "commit", defines: "WRITERS=1 COMMITS=3 SEG=2"},
	{model: "commit", defines: "WRITERS=2 COMMITS=1 SEG=2 COMPACTORS=2 LOST=0", large: true},
	{model: "commit", defines: "WRITERS=1 COMMITS=1 READERS=1 TIMED TICKS=5"},
	{model: "commit", defines: "WRITERS=2 COMMITS=1 NO_FENCE", finds: "truth[n]==rec|placed[rec]"},
	{model: "commit", defines: "WRITERS=2 COMMITS=1 LIST_FIRST", finds: "truth[n]==rec"},
	{model: "commit", defines: "WRITERS=2 COMMITS=1 LATE_FLOOR", finds: "truth[n]==rec"},
	{model: "commit", defines: "WRITERS=2 COMMITS=1 CHECK_PREVIOUS", finds: "truth[n]==rec"},
	{model: "commit", defines: "WRITERS=2 COMMITS=1 TAKEN_NO_LOOK", finds: "placed[rec]"},
	{model: "commit", defines: "WRITERS=2 COMMITS=1 MISSING_NO_LOOK", finds: "placed[rec]"},
	{model: "commit", defines: "WRITERS=2 COMMITS=1 COMPACTORS=2 UNVERIFIED", finds: "garbage", reverse: true},
	{model: "commit", defines: "WRITERS=2 COMMITS=1 SHORT_MEMORY", finds: "placed[rec]"},
	{model: "commit", defines: "WRITERS=1 COMMITS=1 READERS=1 TIMED LONG_SHORTCUT TICKS=7", finds: "known>=owed"},
	{model: "commit", defines: "WRITERS=1 COMMITS=1 READERS=1 TIMED EARLY_AGE TICKS=7", finds: "known>=owed"},
	{model: "commit", defines: "WRITERS=2 COMMITS=1 SEG=2 READERS=1", large: true},
	{model: "commit", defines: "WRITERS=2 COMMITS=2", large: true},
	{model: "commit", defines: "WRITERS=2 COMMITS=1 COMPACTORS=2", large: true},
	{model: "commit", defines: "WRITERS=2 COMMITS=1 READERS=1", large: true},

	{model: "interest", defines: "COMMITTERS=2 COMMITS=1"},
	{model: "interest", defines: "COMMITTERS=1 COMMITS=3"},
	{model: "interest", defines: "REGISTER_LATE", finds: "known[w]<tail"},
	{model: "interest", defines: "NO_RULE", finds: "known[w]<tail"},
	{model: "interest", defines: "SAME_NAME", finds: "known[w]<tail"},
	{model: "interest", defines: "LIST_FIRST", finds: "known[w]<tail"},
	{model: "interest", defines: "JANITOR_BY_AGE", finds: "known[w]<tail"},
	{model: "interest", defines: "RENEW_LATE", finds: "known[w]<tail"},
	{model: "interest", defines: "COMMITTERS=2 COMMITS=2", large: true},
	{model: "interest", defines: "WATCHERS=2 COMMITTERS=1", large: true},
	{model: "interest", defines: "WATCHERS=2 COMMITTERS=2", large: true},

	{model: "trash", defines: "WRITERS=1"},
	{model: "trash", defines: "WRITERS=2 LOST=0"},
	{model: "trash", defines: "NO_TERMINAL", finds: "trashed[n]"},
	{model: "trash", defines: "PLAIN_PURGE", finds: "truth[n]==rec"},
	{model: "trash", defines: "FREE_W", finds: "truth[n]==rec"},
	{model: "trash", defines: "TAKEN_NO_LOOK", finds: "closedAt"},
	{model: "trash", defines: "WRITERS=2", large: true},

	{model: "collect", defines: "ROUNDS=3"},
	{model: "collect", defines: "NO_CLAIM", finds: "file"},
	{model: "collect", defines: "NO_SECOND_READ", finds: "file"},
	{model: "collect", defines: "NO_RECHECK", finds: "file"},
}

// Bounds of a search. What it needs is far below them in the usual run: about 50 s of CPU for all, and 250 MB for the largest.
const (
	usualMegabytes = 1500
	largeMegabytes = 9000
	usualTime      = 10 * time.Minute
	largeTime      = time.Hour
)

func TestModels(t *testing.T) {
	for _, tool := range []string{"spin", "gcc"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Fatalf("%v: run make install-deps", err)
		}
	}
	large := os.Getenv("SHOAL_MODEL") == "large"
	slots := make(chan struct{}, runtime.NumCPU())
	if large {
		slots = make(chan struct{}, 1) // memory
	}
	for _, s := range searches {
		if s.large && !large {
			continue
		}
		t.Run(s.model+"/"+strings.ReplaceAll(s.defines, " ", ","), func(t *testing.T) {
			t.Parallel()
			slots <- struct{}{}
			defer func() { <-slots }()
			out, err := s.run(t)
			if err != nil {
				t.Fatal(err)
			}
			if err := s.judge(out); err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			t.Log(summary(out))
		})
	}
}

// run searches the model and returns what the search printed, with the way to an error if it found one.
func (s *search) run(t *testing.T) (string, error) {
	source, err := filepath.Abs(s.model + ".pml")
	if err != nil {
		return "", err
	}
	dir := t.TempDir()
	var defines []string
	for _, d := range strings.Fields(s.defines) {
		defines = append(defines, "-D"+d)
	}
	megabytes, limit := usualMegabytes, usualTime
	if s.large {
		megabytes, limit = largeMegabytes, largeTime
	}
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	command := func(name string, args ...string) ([]byte, error) {
		c := exec.CommandContext(ctx, name, args...)
		c.Dir = dir
		out, err := c.CombinedOutput()
		if err != nil {
			return out, fmt.Errorf("%s %s: %w\n%s", name, strings.Join(args, " "), err, out)
		}
		return out, nil
	}
	if _, err := command("spin", append(defines, "-a", source)...); err != nil {
		return "", err
	}
	optimize := "-O2"
	if s.finds != "" {
		optimize = "-O0" // found before a better program is compiled
	}
	cc := []string{optimize, "-w", "-DSAFETY", "-DCOLLAPSE", "-DVECTORSZ=2048", fmt.Sprintf("-DMEMLIM=%d", megabytes), "-o", "pan", "pan.c"}
	if s.reverse {
		cc = append(cc, "-DREVERSE")
	}
	if _, err := command("gcc", cc...); err != nil {
		return "", err
	}
	// -E: a process that waits for ever is no error here
	out, err := command("./pan", "-m1000000", "-E", "-w22")
	if err != nil {
		return "", err
	}
	if bytes.Contains(out, []byte("assertion violated")) && s.finds == "" {
		trail, _ := command("spin", append(defines, "-t", source)...)
		out = append(out, trail...)
	}
	return string(out), nil
}

var (
	errorCount = regexp.MustCompile(`errors: (\d+)`)
	stored     = regexp.MustCompile(`(\d+) states, stored`)
	memory     = regexp.MustCompile(`([\d.]+)\s+total actual memory usage`)
	incomplete = regexp.MustCompile(`Search not completed|out of memory|max search depth too small|memory limit|VECTORSZ`)
	violated   = regexp.MustCompile(`assertion violated (.*)`)
)

// judge holds the output of a search against what is expected.
func (s *search) judge(out string) error {
	n := errorCount.FindStringSubmatch(out)
	if n == nil {
		return fmt.Errorf("the search did not come to an end")
	}
	if s.finds == "" {
		if n[1] != "0" {
			return fmt.Errorf("the model has an error")
		}
		if x := incomplete.FindString(out); x != "" {
			return fmt.Errorf("the search is not complete: %s", x)
		}
		return nil
	}
	v := violated.FindStringSubmatch(out)
	if n[1] == "0" || v == nil {
		return fmt.Errorf("the mutant was not caught")
	}
	if !slices.ContainsFunc(strings.Split(s.finds, "|"), func(x string) bool { return strings.Contains(v[1], x) }) {
		return fmt.Errorf("the mutant was caught by another assertion than %q: %s", s.finds, v[1])
	}
	return nil
}

func summary(out string) string {
	s := ""
	if m := stored.FindStringSubmatch(out); m != nil {
		s = m[1] + " states"
	}
	if m := memory.FindStringSubmatch(out); m != nil {
		s += ", " + m[1] + " MB"
	}
	if m := violated.FindStringSubmatch(out); m != nil {
		s += "; caught: " + m[1]
	}
	return s
}

// TestJudge: what spin prints about searches that went wrong is taken for that.
func TestJudge(t *testing.T) {
	right, mutant := &search{}, &search{finds: "truth[n]==rec"}
	for _, c := range []struct {
		s    *search
		out  string
		fine bool
	}{
		{right, "State-vector 84 byte, depth reached 2172, errors: 0\n  1969257 states, stored", true},
		{right, "", false},
		{right, "pan: reached -DMEMLIM bound\nWarning: Search not completed\nState-vector 84 byte, depth reached 10, errors: 0", false},
		{right, "error: max search depth too small\nState-vector 84 byte, depth reached 999999, errors: 0", false},
		{right, "pan:1: assertion violated (truth[n]==rec) (at depth 3)\nerrors: 1", false},
		{mutant, "pan:1: assertion violated (truth[n]==rec) (at depth 3)\nWarning: Search not completed\nerrors: 1", true},
		{mutant, "pan:1: assertion violated  !(garbage) (at depth 3)\nWarning: Search not completed\nerrors: 1", false},
		{mutant, "errors: 0", false},
		{mutant, "pan:1: invalid end state (at depth 3)\nerrors: 1", false},
	} {
		if err := c.s.judge(c.out); (err == nil) != c.fine {
			t.Errorf("finds %q, output %q: %v", c.s.finds, c.out, err)
		}
	}
}
