package shoalctl

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"shoal/daemons/internal/devcluster"
	"shoal/daemons/internal/dirclient"
)

// run runs a command line without any service, far from the folder var of the tree.
func run(t *testing.T, stdin string, args ...string) (code int, out, errOut string) {
	t.Helper()
	t.Setenv("SHOAL_DATA", filepath.Join(t.TempDir(), "none"))
	var stdout, stderr bytes.Buffer
	code = Main(args, "1.2.3", strings.NewReader(stdin), &stdout, &stderr)
	return code, stdout.String(), stderr.String()
}

func TestMistakesInTheCommandLine(t *testing.T) {
	for _, c := range []struct {
		args string
		code int
		says string
	}{
		{"frobnicate", exitUsage, `"frobnicate" is no command`},
		{"account", exitUsage, "needs a command"},
		{"account frobnicate", exitUsage, "frobnicate"},
		{"account add", exitUsage, "needs one argument, the address"},
		{"account add a@b --generate --password-stdin", exitUsage, "password-stdin"},
		{"account add a@b --quota lots --generate", exitUsage, "--quota"},
		{"account add a@b", exitUsage, "--password-stdin"},
		{"account list a b", exitUsage, "one domain at most"},
		{"domain list --frob", exitUsage, "--frob"},
		{"import a@b", exitUsage, "needs 2 arguments, the account's address and an mbox file or Maildir"},
		{"up --port-base 70000", exitUsage, "SHOAL_PORT_BASE"},
		{"status", exitUnreachable, "make up"},
		{"domain list", exitUnreachable, "--data"},
		{"account add a@b --generate", exitUnreachable, "make up"},
		{"status --config /nonexistent", exitUnreachable, "/nonexistent"},
	} {
		t.Run(c.args, func(t *testing.T) {
			code, out, errOut := run(t, "", strings.Fields(c.args)...)
			if code != c.code || !strings.Contains(errOut, c.says) {
				t.Errorf("got exit code %d and %q, want %d and %q", code, errOut, c.code, c.says)
			}
			if out != "" {
				t.Errorf("standard output: %q", out)
			}
		})
	}
}

func TestDownWithoutServiceIsNoError(t *testing.T) {
	code, out, errOut := run(t, "", "down", "--json")
	var answer map[string]bool
	if err := json.Unmarshal([]byte(out), &answer); err != nil || code != 0 || answer["stopped"] {
		t.Errorf("got %d, %q, %q", code, out, errOut)
	}
}

func TestEveryCommandHasHelpWithoutService(t *testing.T) {
	var visit func(path []string)
	seen := 0
	visit = func(path []string) {
		root := (&tool{}).root()
		cmd, _, err := root.Find(path)
		if err != nil {
			t.Fatal(err)
		}
		code, out, errOut := run(t, "", append(path, "--help")...)
		if code != 0 || !strings.Contains(out, cmd.Short) && !strings.Contains(out, cmd.Long) {
			t.Errorf("%v --help: exit code %d, %q, %q", path, code, out, errOut)
		}
		if !cmd.HasSubCommands() && !cmd.Hidden && cmd.Example == "" {
			t.Errorf("%v has no example", path)
		}
		seen++
		for _, child := range cmd.Commands() {
			if child.Name() != "completion" && child.Name() != "help" && child.Runnable() {
				visit(append(path[:len(path):len(path)], child.Name()))
			}
		}
	}
	visit(nil)
	if seen < 90 {
		t.Errorf("only %d commands were found", seen)
	}
}

func TestExitCodes(t *testing.T) {
	for _, c := range []struct {
		err  error
		code int
	}{
		{errors.New("x"), exitFailed},
		{fmt.Errorf("a: %w", usageError{errors.New("x")}), exitUsage},
		{fmt.Errorf("a: %w", dirclient.ErrExists), exitName},
		{fmt.Errorf("a: %w", dirclient.ErrNoSuchAccount), exitName},
		{fmt.Errorf("a: %w", dirclient.ErrUnavailable), exitUnreachable},
		{fmt.Errorf("a: %w", devcluster.ErrRunning), exitFailed},
	} {
		if got := exitCode(c.err); got != c.code {
			t.Errorf("%v: got %d, want %d", c.err, got, c.code)
		}
	}
}

func TestPasswordSources(t *testing.T) {
	good := filepath.Join(t.TempDir(), "good")
	if err := os.WriteFile(good, []byte("from a file\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	open := filepath.Join(t.TempDir(), "open")
	if err := os.WriteFile(open, []byte("seen by all\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name     string
		flags    passwordFlags
		stdin    string
		password string
		fails    string
	}{
		{"file", passwordFlags{file: good}, "", "from a file", ""},
		{"open file", passwordFlags{file: open}, "", "", "chmod 600"},
		{"stdin", passwordFlags{stdin: true}, "from a pipe\r\nrest", "from a pipe", ""},
		{"empty stdin", passwordFlags{stdin: true}, "\n", "", "empty"},
		{"nothing", passwordFlags{}, "x\n", "", "--password-file"},
	} {
		t.Run(c.name, func(t *testing.T) {
			tl := &tool{in: strings.NewReader(c.stdin), err: &bytes.Buffer{}}
			password, made, err := c.flags.read(tl, "? ", true)
			if password != c.password || made || (err == nil) != (c.fails == "") {
				t.Errorf("got %q, %v, %v", password, made, err)
			}
			if err != nil && !strings.Contains(err.Error(), c.fails) {
				t.Errorf("got %v, want %q in it", err, c.fails)
			}
		})
	}
	first, made, err := (&passwordFlags{generate: true}).read(&tool{}, "", true)
	second := generatePassword()
	if err != nil || !made || first == second || len(first) != 23 {
		t.Errorf("generated: %q, %q, %v", first, second, err)
	}
}

func TestBarFitsTheTerminal(t *testing.T) {
	p := &progress{what: "import", total: 28 << 20}
	for width := 20; width <= 200; width++ {
		p.width = width
		for _, share := range []int64{0, 10, 100} {
			bar := p.bar(p.total*share/100, 1234, 510, 12)
			if len(bar) > width-1 && width > 60 {
				t.Errorf("width %d: the bar has %d columns: %s", width, len(bar), bar)
			}
			if strings.ContainsAny(bar, "\n\r") {
				t.Errorf("width %d: %q", width, bar)
			}
		}
	}
	p.width = 100
	if bar := p.bar(14<<20, 1234, 510, 75); !strings.Contains(bar, "#.") || !strings.Contains(bar, " 50% 14.0 MiB/28.0 MiB 1234 msg 510/s 1:15") {
		t.Errorf("got %q", bar)
	}
}

func TestProgressLinesWithoutTerminal(t *testing.T) {
	var out bytes.Buffer
	p := (&tool{err: &out}).newProgress("import", 1000)
	p.set(500, 7)
	p.began = time.Now().Add(-10 * time.Second)
	p.print()
	p.finish()
	if got := out.String(); !strings.HasPrefix(got, "import: 500 B of 1000 B, 7 messages, 1 messages/s, 0:") || !strings.HasSuffix(got, " left\n") {
		t.Errorf("got %q", got)
	}
}

func TestTableHidesControlCharacters(t *testing.T) {
	var out bytes.Buffer
	(&tool{out: &out}).table([]string{"NAME", "TEXT"}, [][]string{{"a\x1b[2J", ""}, {"b", "x"}})
	if got := out.String(); strings.Contains(got, "\x1b") || !strings.Contains(got, "a.[2J  -\n") {
		t.Errorf("got %q", got)
	}
}
