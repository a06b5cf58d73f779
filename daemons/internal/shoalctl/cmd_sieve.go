package shoalctl

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"shoal/daemons/internal/dirclient"
	"shoal/daemons/internal/sieve"
)

// scriptView is a script as shown.
type scriptView struct {
	Domain string `json:"domain,omitempty"` // empty: of the provider
	Name   string `json:"name"`
	Size   int    `json:"size"`
	Text   string `json:"text,omitempty"`
}

const sieveLong = `The script "before" runs before the own script of each account, "after" behind it; scripts of any other name are there to be
included: include :global "NAME". With --domain they are of one domain, without it of all: the provider's. In the order in which they run: the
provider's before, the domain's before, the account's own, the domain's after, the provider's after.`

func (t *tool) cmdSieve() *cobra.Command {
	c := group("sieve", "Store, show and check the Sieve scripts that run for all accounts",
		t.cmdSievePut(), t.cmdSieveGet(), t.cmdSieveList(), t.cmdSieveCheck(), t.cmdSieveDelete())
	c.Long = sieveLong
	return c
}

func domainFlag(cmd *cobra.Command, domain *string) *cobra.Command {
	cmd.Flags().StringVar(domain, "domain", "", "domain whose scripts are meant (default: the provider's, for all domains)")
	return cmd
}

// readScript reads a script from a file, "-" for the standard input, and checks it.
func (t *tool) readScript(name string) (string, error) {
	in := t.in
	if name != "-" {
		f, err := os.Open(name)
		if err != nil {
			return "", err
		}
		defer f.Close()
		in = f
	}
	text, err := io.ReadAll(io.LimitReader(in, sieve.DefaultMaxBytes+1))
	if err != nil {
		return "", fmt.Errorf("read %s: %w", name, err)
	}
	if _, err = sieve.Compile(text, sieve.Options{Name: name}); err == nil {
		return string(text), nil
	}
	var list sieve.Errors
	if !errors.As(err, &list) {
		return "", err
	}
	all := make([]error, len(list))
	for i, e := range list {
		all[i] = e
	}
	return "", errors.Join(all...)
}

func (t *tool) cmdSievePut() *cobra.Command {
	var domain string
	return domainFlag(&cobra.Command{
		Use:     "put NAME FILE",
		Short:   "Check a script and store it; it runs within a minute",
		Long:    sieveLong,
		Example: "  shoalctl sieve put before spam.sieve\n  shoalctl sieve put footer footer.sieve --domain example.org",
		Args:    exactArgs("the name of the script", `the file ("-" for the standard input)`),
		RunE: func(cmd *cobra.Command, args []string) error {
			text, err := t.readScript(args[1])
			if err != nil {
				return err
			}
			return t.withChange(cmd.Context(), func(a *dirclient.Admin) error {
				if err := a.PutScript(cmd.Context(), domain, args[0], text); err != nil {
					return err
				}
				return t.show(scriptView{Domain: domain, Name: args[0], Size: len(text)}, func() { t.say("script %s stored", printable(args[0])) })
			})
		},
	}, &domain)
}

func (t *tool) scripts(ctx context.Context, domain string, each func([]dirclient.Script) error) error {
	return t.withAdmin(ctx, func(a *dirclient.Admin) error {
		list, err := a.Scripts(ctx, domain)
		if err != nil {
			return err
		}
		return each(list)
	})
}

func (t *tool) cmdSieveGet() *cobra.Command {
	var domain string
	return domainFlag(&cobra.Command{
		Use:     "get NAME",
		Short:   "Print a script",
		Example: "  shoalctl sieve get before > spam.sieve",
		Args:    exactArgs("the name of the script"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return t.scripts(cmd.Context(), domain, func(list []dirclient.Script) error {
				for _, s := range list {
					if s.Name == args[0] {
						return t.show(scriptView{domain, s.Name, len(s.Text), s.Text}, func() { _, _ = io.WriteString(t.out, s.Text) })
					}
				}
				return fmt.Errorf("%w: %s", dirclient.ErrNoSuchScript, args[0])
			})
		},
	}, &domain)
}

func (t *tool) cmdSieveList() *cobra.Command {
	var domain string
	return domainFlag(&cobra.Command{
		Use:     "list",
		Short:   "List the scripts of a domain or of the provider",
		Example: "  shoalctl sieve list --domain example.org",
		Args:    noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return t.scripts(cmd.Context(), domain, func(list []dirclient.Script) error {
				views, rows := []scriptView{}, [][]string{}
				for _, s := range list {
					views = append(views, scriptView{Domain: domain, Name: s.Name, Size: len(s.Text)})
					rows = append(rows, []string{printable(s.Name), fmt.Sprint(len(s.Text))})
				}
				return t.show(views, func() { t.table([]string{"SCRIPT", "BYTES"}, rows) })
			})
		},
	}, &domain)
}

func (t *tool) cmdSieveCheck() *cobra.Command {
	return &cobra.Command{
		Use:     "check FILE",
		Short:   "Say what is wrong with a script, with line and column",
		Example: "  shoalctl sieve check spam.sieve",
		Args:    exactArgs(`the file ("-" for the standard input)`),
		RunE: func(_ *cobra.Command, args []string) error {
			text, err := t.readScript(args[0])
			if err != nil {
				return err
			}
			return t.show(scriptView{Name: args[0], Size: len(text)}, func() { t.say("%s is right", printable(args[0])) })
		},
	}
}

func (t *tool) cmdSieveDelete() *cobra.Command {
	var domain string
	return domainFlag(&cobra.Command{
		Use:     "delete NAME",
		Short:   "Delete a script",
		Example: "  shoalctl sieve delete after --domain example.org",
		Args:    exactArgs("the name of the script"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return t.withChange(cmd.Context(), func(a *dirclient.Admin) error {
				if err := a.DeleteScript(cmd.Context(), domain, args[0]); err != nil {
					return err
				}
				return t.show(scriptView{Domain: domain, Name: args[0]}, func() { t.say("script %s deleted", printable(args[0])) })
			})
		},
	}, &domain)
}
