package debs

import (
	"fmt"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// Source is the state of the repository that is built.
type Source struct {
	Root    string    // its folder
	Version string    // as Debian writes it: 1.2.3, 1.2.3+14.g0123abc, 0.0~20260102030405.g0123abc; +dirty with changes that are not committed
	Commit  string    // whole
	Time    time.Time // of the commit: what every file of a package is dated with
	Author  string    // "Name <address>" of the commit
}

var described = regexp.MustCompile(`^v([0-9][0-9A-Za-z.~]*)-([0-9]+)-g([0-9a-f]+)$`)

// Open asks git for the state of a repository.
func Open(root string) (*Source, error) {
	git := func(args ...string) (string, error) {
		out, err := exec.Command("git", append([]string{"-C", root}, args...)...).Output()
		if err != nil {
			return "", fmt.Errorf("git %s: %w", strings.Join(args, " "), err)
		}
		return strings.TrimSpace(string(out)), nil
	}
	line, err := git("log", "-1", "--format=%ct %H %an <%ae>")
	if err != nil {
		return nil, err
	}
	fields := strings.SplitN(line, " ", 3)
	if len(fields) != 3 {
		return nil, fmt.Errorf("git log: %q", line)
	}
	seconds, err := strconv.ParseInt(fields[0], 10, 64)
	if err != nil {
		return nil, fmt.Errorf("git log: %w", err)
	}
	s := &Source{Root: root, Commit: fields[1], Time: time.Unix(seconds, 0).UTC(), Author: fields[2]}
	// Without a tag the command fails, and that is fine.
	tag, _ := git("describe", "--tags", "--long", "--match", "v[0-9]*")
	s.Version = version(tag, s.Commit, s.Time)
	changes, err := git("status", "--porcelain", "--untracked-files=no")
	if err != nil {
		return nil, err
	}
	if changes != "" {
		s.Version += "+dirty"
	}
	return s, nil
}

// version is Debian's for what git describes, such that a later commit is a newer version.
func version(tag, commit string, at time.Time) string {
	m := described.FindStringSubmatch(tag)
	switch {
	case m == nil:
		return fmt.Sprintf("0.0~%s.g%.7s", at.Format("20060102150405"), commit)
	case m[2] == "0":
		return m[1]
	}
	return fmt.Sprintf("%s+%s.g%.7s", m[1], m[2], commit)
}
