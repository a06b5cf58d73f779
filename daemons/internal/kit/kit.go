// Package kit is the process around a role: everything a daemon does that is not mail.
//
// It reads the configuration, binds the listeners (or takes them from systemd by name), gives up root,
// loads the certificates, builds the role, tells systemd, serves the management address and the control
// API, reloads on SIGHUP, and drains on SIGTERM. A main is kit.Main with a Spec; a role is a Build
// function and the Service that it returns.
//
// The order of a start: configuration, log, limits, listeners, user, certificates, management address,
// Build, control API, Run, READY. Whatever fails undoes what came before it, last first. The order of an
// end: not ready, delay, Drain (bounded), Run's context, Close, control API, management address.
//
// Invariants: a reload takes effect whole or not at all; a drain ends within its bound even if the role
// hangs; a second signal ends at once; a listener either demands a PROXY header from every peer or never
// parses one; nothing is accepted before the role is built.
//
// Left out on purpose: daemonizing, pid files, log files (systemd has all three), GOMAXPROCS and
// GOMEMLIMIT (the runtime's own variables).
package kit

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/signal"
	"runtime"
	"runtime/debug"
	"strings"
	"syscall"
	"time"

	"shoal/daemons/internal/clock"
	"shoal/daemons/internal/conf"
)

// Version of the program, set when it is linked: -ldflags "-X shoal/daemons/internal/kit.Version=1.2.3".
var Version = "dev"

// Spec describes a daemon.
type Spec struct {
	Name    string // of the program: "boxd"
	Summary string // one line for -help
	// NewConfig returns a pointer to a new configuration struct with the tags of package conf.
	NewConfig func() Config
	// TimerSlack is how late the kernel may wake the process, to save CPU; 0: as it is for every process.
	TimerSlack time.Duration
	// Build makes the role, ready to run but not serving. What it opens it closes again when it fails,
	// itself or by Env.OnClose. ctx ends when the daemon is told to stop during the start.
	Build func(ctx context.Context, env *Env, c Config) (Service, error)
	// Tasks are what the program does instead of serving, each by a flag of its own.
	Tasks []Task
}

// Task is something that a daemon's program does instead of serving, on what is configured and not in use: -restore file.
type Task struct {
	Flag  string // its name
	Usage string // the argument in backquotes, as in package flag; none: the flag is a switch
	// Run does it. ctx ends when the program is told to stop. Results go to stdout, progress and hints to stderr; the argument
	// "-" stands for stdin or stdout.
	Run func(ctx context.Context, c Config, argument string, stdout, stderr io.Writer) error
}

// Config is the configuration of a role. conf.Load calls Validate; the kit reads the shared blocks.
type Config interface {
	// Common points to the shared blocks in the role's struct.
	Common() Common
	// Validate is called by conf.Load when every block is good by itself; see conf.Invalid.
	Validate() error
}

// Checker is a Config that can check what its settings name (files, folders). It is called by -check,
// before the start, and before a reload; it must change nothing.
type Checker interface {
	Check(ctx context.Context) error
}

// Common are the shared blocks of a configuration. Only Server must be there. A role that holds Log and
// Drain as plain structs (not pointers) has their defaults, and lets a reload add the blocks.
type Common struct {
	Server     *conf.Server
	Identity   *conf.Identity   // needed for Env.Creds and the control API
	Management *conf.Management // nil: no management address
	Control    *conf.Control    // nil: no control API
	Log        *conf.Log        // nil: the defaults
	Drain      *conf.Drain      // nil: the defaults
}

// Service is a role that was built.
type Service interface {
	// Run serves until ctx ends, and then returns nil. Returning before that ends the daemon, as
	// a failure.
	Run(ctx context.Context) error
	// Drain stops accepting, lets sessions finish what they are at, says goodbye to them, and flushes.
	// It returns when all are gone, or with an error when ctx ends first. Run goes on meanwhile.
	Drain(ctx context.Context) error
	// Close ends what is left and frees everything. It is called once, after Run returned.
	Close() error
	// Reload takes up a new configuration, whole or not at all. Only settings tagged live differ. Run goes
	// on meanwhile, and a drain may begin; two reloads never overlap.
	Reload(ctx context.Context, c Config) error
	// Ready returns nil when the role can serve, otherwise what it lacks. Called at any time.
	Ready(ctx context.Context) error
	// Status is shown to operators: small values that JSON can hold. Called at any time.
	Status(ctx context.Context) map[string]any
}

// Liver is a Service that can tell that it still moves. While Alive fails or hangs, systemd's watchdog
// is not fed and the daemon is restarted.
type Liver interface {
	Alive(ctx context.Context) error
}

// Main runs a daemon with the process's arguments, files and signals, and returns its exit code: 0 after
// a drain, 1 after a failure, 2 for wrong arguments.
func Main(spec Spec) int {
	coalesceTimers(spec.TimerSlack)
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP)
	defer signal.Stop(signals)
	// A reader of our log that goes away must not take the daemon with it.
	broken := make(chan os.Signal, 1)
	signal.Notify(broken, syscall.SIGPIPE)
	defer signal.Stop(broken)
	return run(spec, os.Args[1:], world{
		stdout: os.Stdout, stderr: os.Stderr, signals: signals, clock: clock.System(),
	})
}

// world is what a daemon sees of its process.
type world struct {
	stdout  io.Writer
	stderr  *os.File
	signals <-chan os.Signal
	clock   clock.Clock
}

// run is Main in a given world.
func run(spec Spec, args []string, w world) int {
	flags := flag.NewFlagSet(spec.Name, flag.ContinueOnError)
	flags.SetOutput(w.stderr)
	path := flags.String("config", "/etc/shoal/"+spec.Name+".hcl", "read the configuration from `file`")
	check := flags.Bool("check", false, "check the configuration and the files it names, then exit")
	version := flags.Bool("version", false, "print the version, then exit")
	tasks := map[string]*string{}
	for _, task := range spec.Tasks {
		if strings.Contains(task.Usage, "`") {
			tasks[task.Flag] = flags.String(task.Flag, "", task.Usage)
			continue
		}
		on := new(string)
		flags.BoolFunc(task.Flag, task.Usage, func(string) error { *on = "yes"; return nil })
		tasks[task.Flag] = on
	}
	flags.Usage = func() { usage(flags, spec) }
	if err := flags.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return 0
		}
		return 2
	}
	if flags.NArg() > 0 {
		fmt.Fprintf(w.stderr, "%s: unexpected argument %q: all settings are in the configuration file; see -help\n", spec.Name, flags.Arg(0))
		return 2
	}
	if *version {
		fmt.Fprintln(w.stdout, versionLine(spec.Name))
		return 0
	}
	config, err := load(context.Background(), spec, *path)
	if err != nil {
		fmt.Fprintf(w.stderr, "%s: %v\n", spec.Name, err)
		return 1
	}
	if *check {
		if err := checkFiles(context.Background(), config, w.clock); err != nil {
			fmt.Fprintf(w.stderr, "%s: %s: %v\n", spec.Name, *path, err)
			return 1
		}
		fmt.Fprintf(w.stdout, "%s: %s is good\n", spec.Name, *path)
		return 0
	}
	for _, task := range spec.Tasks {
		if argument := *tasks[task.Flag]; argument != "" {
			return w.do(spec, task, config, argument)
		}
	}
	p := newProcess(spec, *path, config, w)
	if err := p.run(); err != nil {
		p.log.Error("stopped", "error", err)
		return 1
	}
	return 0
}

// do runs a task until it ends or a signal comes.
func (w world) do(spec Spec, task Task, config Config, argument string) int {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go func() {
		for {
			select {
			case s := <-w.signals:
				if s != syscall.SIGHUP {
					cancel()
				}
			case <-ctx.Done():
				return
			}
		}
	}()
	if err := task.Run(ctx, config, argument, w.stdout, w.stderr); err != nil {
		fmt.Fprintf(w.stderr, "%s: %v\n", spec.Name, err)
		return 1
	}
	return 0
}

// load reads a configuration file.
func load(_ context.Context, spec Spec, path string) (Config, error) {
	config := spec.NewConfig()
	if err := conf.Load(path, config); err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("%w: name the configuration file with -config", err)
		}
		return nil, err
	}
	return config, nil
}

func usage(flags *flag.FlagSet, spec Spec) {
	fmt.Fprintf(flags.Output(), `%s: %s

Usage: %s [-config file] [-check] [-version]

`, spec.Name, spec.Summary, spec.Name)
	flags.PrintDefaults()
	fmt.Fprint(flags.Output(), `
Signals:
  SIGHUP         read the configuration again; if anything is wrong with it, nothing changes
  SIGTERM, INT   drain: accept nothing new, let sessions end, then exit; a second one exits at once
`)
}

// versionLine is "boxd 1.2.3 (commit 0123456789ab, go1.26.8, linux/amd64)".
func versionLine(name string) string {
	return fmt.Sprintf("%s %s (commit %s, %s, %s/%s)", name, Version, revision(), runtime.Version(), runtime.GOOS, runtime.GOARCH)
}

// revision is the commit that the program was built from, as the toolchain recorded it.
func revision() string {
	rev, dirty := "unknown", ""
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, s := range info.Settings {
			switch {
			case s.Key == "vcs.revision" && len(s.Value) >= 12:
				rev = s.Value[:12]
			case s.Key == "vcs.modified" && s.Value == "true":
				dirty = "+"
			}
		}
	}
	return rev + dirty
}
