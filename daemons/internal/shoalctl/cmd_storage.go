package shoalctl

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"shoal/daemons/internal/clock"
	"shoal/daemons/internal/storagecheck"
	"shoal/daemons/internal/vfs"
)

func (t *tool) cmdStorage() *cobra.Command {
	return group("storage", "Find out whether a file system is fit for mail", t.cmdStorageCheck())
}

func (t *tool) cmdStorageCheck() *cobra.Command {
	var host string
	var hosts int
	var join bool
	var wait time.Duration
	var exports []string
	cmd := &cobra.Command{
		Use:   "check FOLDER",
		Short: "Test whether a mounted file system does what the mail store relies on",
		Long: `Test whether a mounted file system does what the mail store relies on, and say what to change if not:
how it is mounted, whether a name can be made by one host only, whether others see at once what one has written,
symlinks of the length that is needed, hard links, renames, room, clocks, and how long it all takes.

It works in a folder of its own in FOLDER and touches nothing else: it may be run on a volume that is in use. What a
killed check has left behind is removed by the next one after ten minutes.

On NFS what counts is what several machines see of each other. Run it on one with --hosts and their number, and on the
others, which have the same file system mounted, with --join: they find each other through the folder. The first
reports for all.

Whether the file server keeps what it has confirmed when it loses power cannot be seen from outside. What can be
seen is a server that answers too fast to have waited for its disk, and the export file: that of this machine is
looked at when it is the file server; another one's can be given with --exports.

Exit codes, different from those of the other commands:
  0  pass
  1  there are warnings
  2  it is not fit, or the check could not be carried out`,
		Example: `  shoalctl storage check /srv/shoal/vol01
  shoalctl storage check /srv/shoal/vol01 --hosts 2            # on the first
  shoalctl storage check /srv/shoal/vol01 --join               # on the second
  shoalctl storage check /srv/shoal/vol01 --json | jq '.findings[] | select(.verdict != "pass")'`,
		Args: exactArgs("the folder"),
		ValidArgsFunction: func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
			return nil, cobra.ShellCompDirectiveFilterDirs
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			if join && hosts > 1 {
				return usageError{errors.New("--join and --hosts exclude each other: the host that leads counts the others")}
			}
			path, err := filepath.Abs(args[0])
			if err != nil {
				return err
			}
			if path, err = filepath.EvalSymlinks(path); err != nil {
				return storageError{err}
			}
			if host == "" {
				name, err := os.Hostname()
				if err != nil {
					return storageError{err}
				}
				name, _, _ = strings.Cut(name, ".")
				host = storagecheck.HostName(name)
			}
			boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
			if err != nil {
				return storageError{err}
			}
			r, err := storagecheck.Run(cmd.Context(), storagecheck.Options{
				Path: path, FS: vfs.OS(), Clock: clock.System(), Host: host, Boot: strings.TrimSpace(string(boot)),
				Hosts: hosts, Join: join, Wait: wait, Exports: exports, Progress: t.storageStep,
			})
			if err != nil {
				return storageError{err}
			}
			if err := t.show(r, func() { t.printStorage(r) }); err != nil {
				return err
			}
			if r.Verdict != storagecheck.Pass {
				v := doctorError{}
				for _, f := range r.Findings {
					v.problems += btoi(f.Verdict == storagecheck.Fail)
					v.warnings += btoi(f.Verdict == storagecheck.Warn)
				}
				return v
			}
			return nil
		},
	}
	cmd.Flags().IntVar(&hosts, "hosts", 1, "how many hosts take part, this one included; the others run it with --join")
	cmd.Flags().BoolVar(&join, "join", false, "take part in the check that another host leads")
	cmd.Flags().DurationVar(&wait, "wait", 2*time.Minute, "how long to wait for the others")
	cmd.Flags().StringVar(&host, "name", "", "what this host is called in the report (default: its name)")
	cmd.Flags().StringArrayVar(&exports, "exports", nil, "export file of the file server, when it is at hand (may be repeated)")
	return cmd
}

// storageError carries the exit code of a check that could not be carried out.
type storageError struct{ error }

func (e storageError) Unwrap() error { return e.error }

// storageStep says what the check does now.
func (t *tool) storageStep(step string) {
	if t.json {
		_ = json.NewEncoder(t.err).Encode(map[string]string{"progress": step})
		return
	}
	fmt.Fprintf(t.err, "storage check: %s\n", step)
}

func (t *tool) printStorage(r *storagecheck.Report) {
	for _, f := range r.Findings {
		label := map[storagecheck.Verdict]string{storagecheck.Pass: "pass", storagecheck.Warn: "WARN", storagecheck.Fail: "FAIL"}[f.Verdict]
		head := fmt.Sprintf("%-5s %-12s ", label, f.Check)
		if len(r.Hosts) > 1 {
			head += fmt.Sprintf("%-10s ", f.Host)
		}
		indent := "\n" + strings.Repeat(" ", len(head))
		t.say("%s%s", head, wrap(printable(f.What), 100-len(head), indent))
		if f.Means != "" {
			t.say("%*s%s", len(head), "", wrap(printable(f.Means), 100-len(head), indent))
		}
		if f.Do != "" {
			t.say("%*s-> %s", len(head)-3, "", wrap(printable(f.Do), 100-len(head), indent))
		}
	}
	var rows [][]string
	for _, l := range r.Latencies {
		ms := func(us int64) string { return fmt.Sprintf("%.2f ms", float64(us)/1000) }
		rows = append(rows, []string{l.Host, l.Operation, ms(l.Median), ms(l.P99), ms(l.Max)})
	}
	if len(rows) > 0 {
		t.say("")
		t.table([]string{"HOST", "OPERATION", "MEDIAN", "99 %", "MAX"}, rows)
	}
	t.say("\n%s: %s", r.Path, map[storagecheck.Verdict]string{
		storagecheck.Pass: "fit for mail", storagecheck.Warn: "fit for mail, with warnings", storagecheck.Fail: "NOT fit for mail",
	}[r.Verdict])
}
