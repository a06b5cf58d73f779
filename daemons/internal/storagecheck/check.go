// Package storagecheck finds out whether a directory is fit to hold mail: whether the file system there does what the
// message store (docs/store.md) relies on, as it is mounted here and now.
//
// It looks at how the directory is mounted and exported, tries the operations that the store uses, and measures them. On a
// network file system what counts is what other machines see; so the same check runs on several hosts at once: one leads, the
// others join. They need no connection to each other: they talk through the directory itself, by names which they
// make in a folder and find by listing it (hosts.go).
//
// It works in a folder of its own, .shoal-check.<id>, and touches nothing else: it may be run on a volume that is in use. The
// folder is removed at the end. One that a killed check left behind is removed by the next check, when nothing in it has
// changed for leftAfter.
//
// Left out on purpose: pulling the plug. Whether a server keeps what it has acknowledged can only be seen by switching it off;
// what can be seen from here are times that are too good, and the export file where it is at hand.
package storagecheck

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"shoal/daemons/internal/clock"
	"shoal/daemons/internal/vfs"
)

// Verdict of a finding or of the whole check.
type Verdict string

// The verdicts, from good to bad.
const (
	Pass Verdict = "pass"
	Warn Verdict = "warn"
	Fail Verdict = "fail"
)

func (v Verdict) rank() int { return slices.Index([]Verdict{Pass, Warn, Fail}, v) }

// A Finding is the outcome of one test.
type Finding struct {
	Host    string  `json:"host"`
	Check   string  `json:"check"`
	Verdict Verdict `json:"verdict"`
	What    string  `json:"what"`            // what was seen
	Means   string  `json:"means,omitempty"` // what follows for mail
	Do      string  `json:"do,omitempty"`    // what to change
}

// Latency is how long an operation took, in microseconds.
type Latency struct {
	Host      string `json:"host"`
	Operation string `json:"operation"`
	Count     int    `json:"count"`
	Median    int64  `json:"median_us"`
	P99       int64  `json:"p99_us"`
	Max       int64  `json:"max_us"`
}

// Report is the outcome of a check.
type Report struct {
	Path      string    `json:"path"`
	Hosts     []string  `json:"hosts"`
	Verdict   Verdict   `json:"verdict"`
	Findings  []Finding `json:"findings"`
	Latencies []Latency `json:"latencies"`
}

// Options of a check.
type Options struct {
	Path  string // the directory to check: an absolute path
	FS    vfs.FS
	Clock clock.Clock
	Host  string // what this host is called in the report: [A-Za-z0-9-]{1,32}, different on each
	Boot  string // tells machines apart: the kernel's boot id

	Hosts int           // how many hosts take part, this one included; 0 and 1: this one alone
	Join  bool          // take part in a check that another host leads
	Wait  time.Duration // how long to wait for the others

	Mountinfo  string // default /proc/self/mountinfo
	Mountstats string // default /proc/self/mountstats
	Proc       string // default /proc
	Exports    []string
	// Local tells whether an address is this machine's: then its export files are looked at. Default: by its interfaces.
	Local func(address string) bool

	Progress func(step string)
}

// Rounds and amounts. They keep a check within seconds on a file server with 10 ms a call.
const (
	freshRounds = 12
	raceNames   = 60
	timedRounds = 40
)

// leftAfter is the age after which a folder of a check is taken for abandoned, by the file server's clock.
const leftAfter = 10 * time.Minute

const folderPrefix = ".shoal-check."

// ErrNoPeers: the other hosts did not come, or no check to join was found.
var ErrNoPeers = errors.New("no other host")

type check struct {
	Options
	dir      string // the folder of the run
	own      string // a folder in it for this host alone
	report   Report
	mount    *mount
	stat     vfs.StatFS
	before   mountstats
	sequence int
}

// Run checks. The report is what was found; the error, that the check could not be carried through.
func Run(ctx context.Context, o Options) (*Report, error) {
	c := &check{Options: o, report: Report{Path: o.Path, Verdict: Pass, Findings: []Finding{}, Latencies: []Latency{}}}
	if err := c.defaults(); err != nil {
		return nil, err
	}
	err := c.run(ctx)
	c.report.Hosts = append(c.report.Hosts, c.Host)
	slices.Sort(c.report.Hosts)
	c.report.Hosts = slices.Compact(c.report.Hosts)
	for _, f := range c.report.Findings {
		if f.Verdict.rank() > c.report.Verdict.rank() {
			c.report.Verdict = f.Verdict
		}
	}
	return &c.report, err
}

func (c *check) defaults() error {
	if !strings.HasPrefix(c.Path, "/") {
		return fmt.Errorf("%q: not an absolute path", c.Path)
	}
	if !validHost(c.Host) {
		return fmt.Errorf("%q: not a name of a host ([A-Za-z0-9-], at most 32)", c.Host)
	}
	if c.FS == nil {
		c.FS = vfs.OS()
	}
	if c.Clock == nil {
		c.Clock = clock.System()
	}
	if c.Proc == "" {
		c.Proc = "/proc"
	}
	if c.Mountinfo == "" {
		c.Mountinfo = c.Proc + "/self/mountinfo"
	}
	if c.Mountstats == "" {
		c.Mountstats = c.Proc + "/self/mountstats"
	}
	if c.Local == nil {
		c.Local = localAddress
	}
	if c.Wait == 0 {
		c.Wait = 2 * time.Minute
	}
	if c.Progress == nil {
		c.Progress = func(string) {}
	}
	return nil
}

func validHost(s string) bool {
	ok := func(r rune) bool {
		return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '-'
	}
	return s != "" && len(s) <= 32 && !strings.ContainsFunc(s, func(r rune) bool { return !ok(r) })
}

// HostName makes a name for the report out of a machine's name.
func HostName(s string) string {
	s = strings.Map(func(r rune) rune {
		if validHost(string(r)) {
			return r
		}
		return '-'
	}, s)
	if s == "" {
		return "host"
	}
	return s[:min(len(s), 32)]
}

func (c *check) run(ctx context.Context) (err error) {
	if c.stat, err = c.FS.Statfs(c.Path); err != nil {
		return fmt.Errorf("%s: %w", c.Path, err)
	}
	c.Progress("how it is mounted")
	c.checkMount()
	c.checkSpace()
	if c.stat.ReadOnly {
		c.fail("mount", "mounted read-only", "no mail can be written", "mount it with rw")
		return nil
	}
	var crew *crew
	if c.Join {
		c.Progress("looking for the check of another host in " + c.Path)
		crew, err = c.join(ctx)
	} else {
		crew, err = c.lead(ctx)
	}
	if c.dir != "" && !c.Join {
		defer func() {
			if e := c.removeAll(c.dir); err == nil && e != nil {
				err = fmt.Errorf("remove %s: %w", c.dir, e)
			}
		}()
	}
	if err != nil {
		return err
	}
	c.before, _ = readMountstats(c.Mountstats, c.mountPoint())
	c.own = c.dir + "/" + c.Host
	if err := c.FS.Mkdir(c.own); err != nil {
		return fmt.Errorf("mkdir %s: %w", c.own, err)
	}
	for _, step := range []struct {
		name string
		run  func(context.Context) error
	}{
		{"operations", c.checkOperations},
		{"clocks", c.checkClock},
		{"latency", c.checkLatency},
		{"what the server hands out", c.checkServer},
	} {
		if err := ctx.Err(); err != nil {
			return err
		}
		c.Progress(step.name)
		if err := step.run(ctx); err != nil {
			return err
		}
	}
	return c.together(ctx, crew)
}

func (c *check) add(check string, v Verdict, what, means, do string) {
	c.report.Findings = append(c.report.Findings, Finding{c.Host, check, v, what, means, do})
}

func (c *check) pass(check, what string)            { c.add(check, Pass, what, "", "") }
func (c *check) warn(check, what, means, do string) { c.add(check, Warn, what, means, do) }
func (c *check) fail(check, what, means, do string) { c.add(check, Fail, what, means, do) }

func (c *check) mountPoint() string {
	if c.mount == nil {
		return ""
	}
	return c.mount.point
}

// unique names a thing of this host in the run.
func (c *check) unique() string {
	c.sequence++
	return fmt.Sprintf("%s/%d", c.own, c.sequence)
}

// removeAll removes a tree of the check's own. The names come and go under it while other hosts end.
func (c *check) removeAll(path string) error {
	err := c.FS.Unlink(path)
	if err == nil || errors.Is(err, os.ErrNotExist) {
		return nil
	}
	for range 5 {
		names, err := c.FS.ReadDir(path, nil)
		if errors.Is(err, os.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		for _, n := range names {
			if err := c.removeAll(path + "/" + n); err != nil {
				return err
			}
		}
		if err = c.FS.Rmdir(path); err == nil || errors.Is(err, os.ErrNotExist) {
			return nil
		}
	}
	return c.FS.Rmdir(path)
}
