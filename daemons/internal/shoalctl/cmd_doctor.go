package shoalctl

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"shoal/daemons/internal/dirclient"
	"shoal/daemons/internal/vfs"
)

// States of a finding, from good to bad.
const (
	stateOK      = "ok"
	stateWarning = "warning"
	stateProblem = "problem"
)

// finding is what one check found.
type finding struct {
	Check  string `json:"check"`
	State  string `json:"state"`
	What   string `json:"what"`             // what was looked at, or what is wrong
	Means  string `json:"means,omitempty"`  // what follows from it
	Action string `json:"action,omitempty"` // what to do
}

// doctorView is the answer of doctor.
type doctorView struct {
	Problems int       `json:"problems"`
	Warnings int       `json:"warnings"`
	Findings []finding `json:"findings"`
}

// doctorError carries doctor's own exit code.
type doctorError struct{ problems, warnings int }

func (e doctorError) Error() string {
	return fmt.Sprintf("%d problems, %d warnings", e.problems, e.warnings)
}

func (e doctorError) code() int {
	if e.problems > 0 {
		return 2
	}
	return 1
}

// doctor is what the checks work with. Tests replace the functions.
type doctor struct {
	config  *Config
	configs []*daemonConfig
	data    string // data folder of a service on this machine; empty: none
	now     func() time.Time
	statfs  func(path string) (vfs.StatFS, error)
	proc    string // /proc
	pause   func() // between two looks

	servers func(context.Context) ([]dirclient.Server, error)
	write   func(context.Context) error // tries whether the directory takes updates, changing nothing
	volumes func(context.Context) ([]dirclient.Volume, error)

	status   *statusView // of all servers, when the directory answers
	findings []finding
	check    string // the present one
	quiet    bool   // it has said something
}

func (d *doctor) add(state, what, means, action string) {
	d.findings = append(d.findings, finding{d.check, state, what, means, action})
	d.quiet = false
}

func (d *doctor) problem(what, means, action string) { d.add(stateProblem, what, means, action) }
func (d *doctor) warn(what, means, action string)    { d.add(stateWarning, what, means, action) }

// run runs one check. If it finds nothing it is well, and good says what was looked at; "" if there was nothing to
// look at.
func (d *doctor) run(name string, check func() (good string)) {
	d.check, d.quiet = name, true
	if good := check(); d.quiet && good != "" {
		d.add(stateOK, good, "", "")
	}
}

func (t *tool) cmdDoctor() *cobra.Command {
	var configs []string
	cmd := &cobra.Command{
		Use:   "doctor",
		Short: "Look for what goes wrong, say what it means and how to mend it",
		Long: `Look for what goes wrong: certificates and secrets, the directory, the servers that it lists, volumes
and the queue's folder, the balancer, clocks, ports, limits. Everything is only looked at, nothing is changed.

The daemons' configurations on this machine tell what is looked at here: those of the data folder, or
/etc/shoal/{switchd,boxd,vaultd}.hcl, or those named with --daemon-config. What can be asked over the network
is asked of all servers.

Exit codes, different from those of the other commands:
  0  everything is well
  1  there are warnings
  2  there are problems (or the command line is wrong)`,
		Example: `  shoalctl doctor
  shoalctl doctor --json | jq '.findings[] | select(.state != "ok")'
  shoalctl doctor --daemon-config /etc/shoal/boxd.hcl`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			d, err := t.newDoctor(configs)
			if err != nil {
				return err
			}
			v := d.examine(cmd.Context(), t)
			if err := t.show(v, func() { t.printDoctor(v) }); err != nil {
				return err
			}
			if v.Problems+v.Warnings > 0 {
				return doctorError{v.Problems, v.Warnings}
			}
			return nil
		},
	}
	cmd.Flags().StringArrayVar(&configs, "daemon-config", nil, "configuration of a daemon on this machine (may be repeated)")
	return cmd
}

func (t *tool) newDoctor(named []string) (*doctor, error) {
	c, err := t.load()
	if err != nil {
		return nil, err
	}
	d := &doctor{config: c, now: time.Now, statfs: vfs.OS().Statfs, proc: "/proc", pause: func() { time.Sleep(3 * time.Second) }}
	d.servers = func(ctx context.Context) ([]dirclient.Server, error) { return t.servers(ctx, c) }
	d.volumes = func(ctx context.Context) (all []dirclient.Volume, err error) {
		err = c.withDirectory(ctx, func(a *dirclient.Admin) error { all, err = a.Volumes(ctx); return err })
		return all, err
	}
	d.write = func(ctx context.Context) error {
		return c.withDirectory(ctx, func(a *dirclient.Admin) error { return tryWrite(ctx, a) })
	}
	files, err := t.daemonConfigs(named)
	if err != nil {
		return nil, err
	}
	d.check = "configuration"
	for _, file := range files {
		dc, err := readDaemonConfig(file)
		if err != nil {
			d.problem(err.Error(), "what this daemon uses on this machine is not examined", "correct the file; the daemon's own -check says more")
			continue
		}
		d.configs = append(d.configs, dc)
	}
	for _, data := range t.dataFolders() {
		if isDataFolder(data) {
			d.data = data
			break
		}
	}
	return d, nil
}

func (c *Config) withDirectory(ctx context.Context, f func(*dirclient.Admin) error) error {
	a, err := c.admin(ctx)
	if err != nil {
		return err
	}
	defer a.Close()
	return f(a)
}

// tryWrite asks for the deletion of an entry that is not there: a server that takes updates says so, one that does
// not refuses or names another.
func tryWrite(ctx context.Context, a *dirclient.Admin) error {
	err := a.Delete(ctx, dirclient.ServerDN(a.Suffix(), "shoalctl-doctor"))
	if errors.Is(err, dirclient.ErrNoSuchEntry) {
		return nil
	}
	if err == nil {
		return errors.New("an entry named shoalctl-doctor was there, and is deleted now")
	}
	return err
}

// examine runs all checks.
func (d *doctor) examine(ctx context.Context, t *tool) *doctorView {
	d.run("data folder", d.checkDataFolder)
	d.run("certificates", d.checkCertificates)
	d.run("secrets", d.checkSecrets)
	d.run("directory", func() string { return d.checkDirectory(ctx) })
	d.run("servers", func() string { return d.checkServers(ctx, t) })
	d.run("versions", d.checkVersions)
	d.run("replication", func() string { return d.checkReplication(ctx, t) })
	d.run("clocks", func() string { return d.checkClocks(ctx) })
	d.run("volumes", func() string { return d.checkVolumes(ctx) })
	d.run("queue", d.checkQueue)
	d.run("balancer", d.checkBalancer)
	d.run("ports", d.checkPorts)
	d.run("limits", d.checkLimits)
	v := &doctorView{Findings: d.findings}
	for _, f := range d.findings {
		v.Problems += btoi(f.State == stateProblem)
		v.Warnings += btoi(f.State == stateWarning)
	}
	return v
}

func (t *tool) printDoctor(v *doctorView) {
	for _, f := range v.Findings {
		label := map[string]string{stateOK: "ok", stateWarning: "WARNING", stateProblem: "PROBLEM"}[f.State]
		indent := "\n" + strings.Repeat(" ", 23)
		t.say("%-8s %-13s %s", label, f.Check, wrap(printable(f.What), 77, indent))
		if f.Means != "" {
			t.say("%23s%s", "", wrap(printable(f.Means), 77, indent))
		}
		if f.Action != "" {
			t.say("%20s-> %s", "", wrap(printable(f.Action), 77, indent))
		}
	}
	t.say("%d problems, %d warnings", v.Problems, v.Warnings)
}

// wrap breaks a text at blanks into lines of at most width, as far as its words allow.
func wrap(text string, width int, newline string) string {
	var out strings.Builder
	column := 0
	for i, word := range strings.Fields(text) {
		n := len([]rune(word))
		switch {
		case i == 0:
		case column+1+n > width:
			out.WriteString(newline)
			column = 0
		default:
			out.WriteByte(' ')
			column++
		}
		out.WriteString(word)
		column += n
	}
	return out.String()
}
