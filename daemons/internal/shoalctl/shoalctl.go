// Package shoalctl is the operators' command line: it starts the service on one machine, shows how the
// servers are, keeps domains, accounts and the queue, and carries mail in and out.
//
// It reads one HCL file (config.go), which `shoalctl up` writes into its data folder, and finds it by
// itself. Domains and accounts are written to the directory over LDAP; servers are asked through their
// control API with the operator's certificate; mail is imported over IMAP as its owner.
//
// One file per command (cmd_*.go). Every command prints text for people, or with --json one JSON value
// (import and up: one per line) for programs. Exit codes: see exitCode.
//
// Left out on purpose: passwords as arguments (other users of the machine could read them in the list of
// processes), and state of its own, but for what an unfinished import has done (import_state.go).
package shoalctl

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"shoal/daemons/internal/devcluster"
	"shoal/daemons/internal/dirclient"
	"shoal/daemons/internal/enrol"
	"shoal/daemons/internal/mailstore"
)

// Exit codes.
const (
	exitFailed      = 1
	exitUsage       = 2
	exitName        = 3
	exitUnreachable = 4
)

const exitCodesHelp = `Exit codes of shoalctl:
  0  done
  1  failed; the message on standard error says why
  2  the command line is wrong
  3  what is named does not exist, or exists already
  4  the service, the directory or a server cannot be reached: worth another try`

// usageError is a mistake in the command line.
type usageError struct{ error }

// errUnreachable marks errors that may pass.
var errUnreachable = errors.New("the service cannot be reached")

// tool is what the commands share.
type tool struct {
	in      io.Reader
	out     io.Writer
	err     io.Writer
	version string
	json    bool
	data    string // --data
	config  string // --config

	servers func(context.Context, *Config) ([]dirclient.Server, error) // lists the servers; from the directory
}

// Main runs a command line, without the name of the program, and returns the exit code.
func Main(args []string, version string, in io.Reader, out, errOut io.Writer) int {
	t := &tool{in: in, out: out, err: errOut, version: version}
	return t.main(args)
}

func (t *tool) main(args []string) int {
	if t.servers == nil {
		t.servers = func(ctx context.Context, c *Config) ([]dirclient.Server, error) { return c.servers(ctx) }
	}
	root := t.root()
	root.SetArgs(args)
	root.SetIn(t.in)
	root.SetOut(t.out)
	root.SetErr(t.err)
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	err := root.ExecuteContext(ctx)
	if err == nil {
		return 0
	}
	if errors.As(err, new(doctorError)) { // it was said
		return exitCode(err)
	}
	fmt.Fprintf(t.err, "shoalctl: %v\n", err)
	var usage usageError
	if errors.As(err, &usage) {
		fmt.Fprintln(t.err, "shoalctl help shows the commands; each has its own --help with examples.")
	}
	return exitCode(err)
}

func exitCode(err error) int {
	var usage usageError
	var found doctorError
	var storage storageError
	switch {
	case errors.As(err, &found):
		return found.code()
	case errors.As(err, &storage):
		return 2
	case errors.As(err, &usage):
		return exitUsage
	case errors.Is(err, dirclient.ErrExists), errors.Is(err, dirclient.ErrNoSuchAccount),
		errors.Is(err, dirclient.ErrNoSuchDomain), errors.Is(err, dirclient.ErrNoSuchEntry), errors.Is(err, dirclient.ErrNoSuchScript),
		errors.Is(err, errNoSuchEntry), errors.Is(err, mailstore.ErrNoMailbox), errors.Is(err, mailstore.ErrMailboxExists), errors.Is(err, dirclient.ErrNoSuchAlias), errors.Is(err, dirclient.ErrNoSuchToken), errors.Is(err, errNoSuchMailbox), errors.Is(err, errTargetExists):
		return exitName
	case errors.Is(err, dirclient.ErrUnavailable), errors.Is(err, errUnreachable), errors.Is(err, enrol.ErrUnreachable), errors.Is(err, devcluster.ErrNotRunning):
		return exitUnreachable
	}
	return exitFailed
}

func (t *tool) root() *cobra.Command {
	root := &cobra.Command{
		Use:   "shoalctl",
		Short: "Run and look after a Shoal messaging service",
		Long: `shoalctl runs and looks after a Shoal messaging service.

It finds the service by itself: the folder given with --data or in SHOAL_DATA,
else the folder var/ here or beside the program's folder, else /etc/shoal/shoalctl.hcl.
With --json every command answers in JSON.

` + exitCodesHelp,
		Example: `  shoalctl up                                 start the whole service on this machine
  shoalctl status                             how are the servers?
  shoalctl account add carol@example.test     a new account (asks for the password)
  shoalctl import carol@example.test old.mbox bring old mail along`,
		Version:       t.version,
		SilenceUsage:  true,
		SilenceErrors: true,
		Args:          noArgs,
		RunE:          func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	flags := root.PersistentFlags()
	flags.BoolVar(&t.json, "json", false, "answer in JSON")
	flags.StringVar(&t.data, "data", "", "data folder of the service on this machine (default: SHOAL_DATA, or var)")
	flags.StringVar(&t.config, "config", "", "configuration file of shoalctl (default: shoalctl.hcl in the data folder)")
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usageError{err} })
	root.SetVersionTemplate("shoalctl {{.Version}}\n")
	root.AddCommand(t.cmdUp(), t.cmdDown(), t.cmdStatus(), t.cmdDomain(), t.cmdAccount(), t.cmdAppPassword(), t.cmdLogins(), t.cmdTokenKey(), t.cmdImport(), t.cmdExport(), t.cmdAdopt(), t.cmdMigration(), t.cmdSieve(), t.cmdQueue(), t.cmdDoctor(), t.cmdStorage(), t.cmdEnrol(), t.cmdToken(), t.cmdCA(),
		t.cmdVolume(), t.cmdStore(), t.cmdMailbox(), t.cmdAlias(), t.cmdForward(), t.cmdServer(), t.cmdDirectory(), t.cmdMan(),
		&cobra.Command{Use: "exit-codes", Short: "What the exit codes mean", Long: exitCodesHelp})
	t.addCompletion(root)
	return root
}

// noArgs, exactArgs and minArgs are cobra's, as usage errors.
func noArgs(cmd *cobra.Command, args []string) error {
	if len(args) > 0 {
		return usageError{fmt.Errorf("%q is no command of %s", args[0], cmd.CommandPath())}
	}
	return nil
}

func exactArgs(names ...string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) != len(names) {
			return usageError{fmt.Errorf("%s needs %s: %s", cmd.CommandPath(), enumerate(names), cmd.UseLine())}
		}
		return nil
	}
}

func minArgs(names ...string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) < len(names) {
			return usageError{fmt.Errorf("%s needs %s: %s", cmd.CommandPath(), enumerate(names), cmd.UseLine())}
		}
		return nil
	}
}

func enumerate(names []string) string {
	switch len(names) {
	case 0:
		return "no arguments"
	case 1:
		return "one argument, " + names[0]
	}
	text := fmt.Sprintf("%d arguments, ", len(names))
	for i, name := range names {
		switch {
		case i == 0:
		case i == len(names)-1:
			text += " and "
		default:
			text += ", "
		}
		text += name
	}
	return text
}

// group is a command that only holds others.
func group(use, short string, children ...*cobra.Command) *cobra.Command {
	cmd := &cobra.Command{
		Use: use, Short: short, Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return usageError{fmt.Errorf("%s needs a command: see %s --help", cmd.CommandPath(), cmd.CommandPath())}
		},
	}
	cmd.AddCommand(children...)
	return cmd
}
