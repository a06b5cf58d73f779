package shoalctl

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"shoal/daemons/internal/devcluster"
)

func (t *tool) cmdUp() *cobra.Command {
	var base int
	var quiet, detach bool
	var bin, directory string
	cmd := &cobra.Command{
		Use:   "up",
		Short: "Start the whole service on this machine",
		Long: `Start the whole service on this machine: the directory, two switches, two boxes and
HAProxy in front, on loopback ports and one data folder.

At the first start it makes a certificate authority, certificates, secrets, and a demo
domain with two accounts. It prints how to connect, then follows the logs of all servers.
A server that dies is started again. Ctrl-C drains: open transactions are finished.
Started again, it goes on with the same mail.

Ports are a base plus the well-known port: with the base 20000 SMTP is on 20025, IMAP on
20143, IMAP over TLS on 20993. One server alone is at base + 1000 (the first of its kind)
or base + 2000: IMAP of box1 on 21143, of box2 on 22143.`,
		Example: `  shoalctl up
  SHOAL_PORT_BASE=23000 SHOAL_DATA=/srv/try shoalctl up
  shoalctl up --detach && shoalctl status`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if !cmd.Flags().Changed("port-base") {
				var err error
				if base, err = portBase(); err != nil {
					return err
				}
			}
			layout, err := devcluster.NewLayout(t.dataFolder(), base)
			if err != nil {
				return usageError{err}
			}
			if detach {
				return t.upDetached(cmd.Context(), layout, bin, directory)
			}
			program, err := os.Executable()
			if err != nil {
				return err
			}
			if bin == "" {
				bin = filepath.Dir(program)
			}
			return devcluster.Run(cmd.Context(), devcluster.Options{
				Layout: layout, Bin: bin, Version: t.version, Out: t.out, Quiet: quiet, JSON: t.json, Directory: directory,
				Hurry: secondSignal(),
			})
		},
	}
	cmd.Flags().IntVar(&base, "port-base", devcluster.DefaultPortBase, "added to every well-known port (default: SHOAL_PORT_BASE, or 20000)")
	cmd.Flags().BoolVar(&quiet, "quiet", false, "do not follow the logs")
	cmd.Flags().BoolVar(&detach, "detach", false, "return when the service is ready, and leave it running")
	cmd.Flags().StringVar(&bin, "bin", "", "folder of the daemons' programs (default: that of shoalctl)")
	cmd.Flags().StringVar(&directory, "directory", devcluster.DirectoryVault, "program that holds the directory: vaultd, or slapd (OpenLDAP) in its place")
	return cmd
}

func portBase() (int, error) {
	text := os.Getenv("SHOAL_PORT_BASE")
	if text == "" {
		return devcluster.DefaultPortBase, nil
	}
	base, err := strconv.Atoi(text)
	if err != nil {
		return 0, usageError{fmt.Errorf("SHOAL_PORT_BASE=%s is not a number", text)}
	}
	return base, nil
}

// secondSignal is closed by the second signal to stop; the first one ends the command's context.
func secondSignal() <-chan struct{} {
	hurry := make(chan struct{})
	signals := make(chan os.Signal, 4)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	go func() {
		<-signals
		<-signals
		close(hurry)
	}()
	return hurry
}

// upDetached starts this program again in a session of its own and waits until it is ready.
func (t *tool) upDetached(ctx context.Context, layout devcluster.Layout, bin, directory string) error {
	if pid, err := layout.Running(); err == nil {
		return fmt.Errorf("%w: %s (process %d)", devcluster.ErrRunning, layout.Data, pid)
	}
	program, err := os.Executable()
	if err != nil {
		return err
	}
	out, err := os.CreateTemp("", "shoalctl-up-*.log")
	if err != nil {
		return err
	}
	defer os.Remove(out.Name())
	defer out.Close()
	args := []string{"up", "--quiet", "--data", layout.Data, "--port-base", strconv.Itoa(layout.PortBase), "--directory", directory}
	if bin != "" {
		args = append(args, "--bin", bin)
	}
	if t.json {
		args = append(args, "--json")
	}
	child := exec.Command(program, args...)
	child.Stdout, child.Stderr = out, out
	child.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := child.Start(); err != nil {
		return err
	}
	ended := make(chan error, 1)
	go func() { ended <- child.Wait() }()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case err := <-ended:
			text, _ := os.ReadFile(out.Name())
			return fmt.Errorf("the service did not start: %w\n%s", err, text)
		case <-ctx.Done():
			_ = child.Process.Signal(syscall.SIGTERM)
			<-ended
			return ctx.Err()
		case <-tick.C:
		}
		if layout.Ready() {
			text, err := os.ReadFile(out.Name())
			if err != nil {
				return err
			}
			_, err = t.out.Write(text)
			return err
		}
	}
}

// downWithin is how long down waits: each kind of server may take its whole grace.
const downWithin = 90 * time.Second

func (t *tool) cmdDown() *cobra.Command {
	return &cobra.Command{
		Use:   "down",
		Short: "Stop the service that up started on this machine",
		Long: `Stop the service that up started on this machine: it drains as with Ctrl-C. Mail and
accounts stay. Nothing runs: that is said, and is no error.`,
		Example: "  shoalctl down\n  SHOAL_DATA=/srv/try shoalctl down",
		Args:    noArgs,
		RunE: func(*cobra.Command, []string) error {
			var err error
			for _, data := range t.dataFolders() {
				layout, layoutErr := devcluster.NewLayout(data, devcluster.DefaultPortBase)
				if layoutErr != nil {
					return layoutErr
				}
				if err = layout.Stop(downWithin); !errors.Is(err, devcluster.ErrNotRunning) {
					break
				}
			}
			switch {
			case errors.Is(err, devcluster.ErrNotRunning):
				return t.show(map[string]any{"stopped": false}, func() { t.say("nothing is running on %s", t.dataFolder()) })
			case err != nil:
				return err
			}
			return t.show(map[string]any{"stopped": true}, func() { t.say("stopped") })
		},
	}
}
