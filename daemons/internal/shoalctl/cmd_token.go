package shoalctl

import (
	"fmt"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"shoal/daemons/internal/dirclient"
	"shoal/daemons/internal/enrol"
)

// tokenView is a token as shown; only create knows it in clear.
type tokenView struct {
	Server string `json:"server"`
	Clear  string `json:"token,omitempty"`
	enrol.Token
}

func (t *tool) cmdToken() *cobra.Command {
	return group("token", "Make, list and revoke the one-time tokens with which servers enrol",
		t.cmdTokenCreate(), t.cmdTokenList(), t.cmdTokenRevoke())
}

func (t *tool) cmdTokenCreate() *cobra.Command {
	var hosts []string
	var life time.Duration
	cmd := &cobra.Command{
		Use:   "create SERVER",
		Short: "Make a token with which one server can enrol, once",
		Long: `Make a token with which one server can enrol, once. The server must have an entry in the directory.

The token is printed on standard output and kept nowhere: the directory has its hash only. It is bound to the
name of the server and to the role that its entry has now.`,
		Example: "  shoalctl token create box3\n  shoalctl token create vault2 --host vault2.example.net --life 10m",
		Args:    exactArgs("the name of the server"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if life < time.Minute || life > enrol.MaxTokenLife {
				return usageError{fmt.Errorf("--life must be from 1m to %s", enrol.MaxTokenLife)}
			}
			var v tokenView
			err := t.withAdmin(cmd.Context(), func(a *dirclient.Admin) error {
				now := time.Now()
				var server *dirclient.Enrolment
				err := a.Enrolments(cmd.Context(), args[0], func(e dirclient.Enrolment) error { server = &e; return nil })
				if err != nil {
					return err
				}
				if server == nil {
					return fmt.Errorf("%w: %s is no server", dirclient.ErrNoSuchEntry, args[0])
				}
				clear, token, err := enrol.Create(cmd.Context(), a, *server, hosts, now, now.Add(life))
				v = tokenView{server.Name, clear, token}
				return err
			})
			if err != nil {
				return err
			}
			if t.json {
				return t.printJSON(v)
			}
			fmt.Fprintf(t.err, "good once, for %s of role %s, until %s\n", v.Server, v.Role, v.Expires.Local().Format(time.DateTime))
			fmt.Fprintln(t.out, v.Clear)
			return nil
		},
	}
	cmd.Flags().StringSliceVar(&hosts, "host", nil, "DNS name or address that may stand in the certificate")
	cmd.Flags().DurationVar(&life, "life", enrol.DefaultTokenLife, "how long the token is good")
	return cmd
}

func (t *tool) cmdTokenList() *cobra.Command {
	return &cobra.Command{
		Use:     "list [SERVER]",
		Short:   "List the tokens that are good, without the tokens themselves",
		Example: "  shoalctl token list\n  shoalctl token list box3",
		Args:    cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			all := []tokenView{}
			err := t.withAdmin(cmd.Context(), func(a *dirclient.Admin) error {
				return a.Enrolments(cmd.Context(), strings.Join(args, ""), func(e dirclient.Enrolment) error {
					for _, s := range e.Tokens {
						if token, err := enrol.ParseToken(s); err == nil && time.Now().Before(token.Expires) {
							all = append(all, tokenView{e.Name, "", token})
						}
					}
					return nil
				})
			})
			if err != nil {
				return err
			}
			if t.json {
				return t.printJSON(all)
			}
			w := tabwriter.NewWriter(t.out, 0, 0, 2, ' ', 0)
			fmt.Fprintln(w, "SERVER\tROLE\tEXPIRES\tID\tHOSTS")
			for _, v := range all {
				fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", v.Server, v.Role, v.Expires.Local().Format(time.DateTime), v.Hash[:16], strings.Join(v.Hosts, ","))
			}
			return w.Flush()
		},
	}
}

func (t *tool) cmdTokenRevoke() *cobra.Command {
	return &cobra.Command{
		Use:     "revoke SERVER [ID]",
		Short:   "Take back the tokens of a server, or one of them by the beginning of its id",
		Example: "  shoalctl token revoke box3",
		Args:    cobra.RangeArgs(1, 2),
		RunE: func(cmd *cobra.Command, args []string) error {
			revoked := 0
			err := t.withAdmin(cmd.Context(), func(a *dirclient.Admin) error {
				var gone []string
				err := a.Enrolments(cmd.Context(), args[0], func(e dirclient.Enrolment) error {
					for _, s := range e.Tokens {
						token, err := enrol.ParseToken(s)
						if len(args) == 1 || err == nil && len(args[1]) >= 8 && strings.HasPrefix(token.Hash, args[1]) {
							gone = append(gone, s)
						}
					}
					return nil
				})
				if err != nil || len(gone) == 0 {
					return err
				}
				revoked = len(gone)
				return a.DropEnrolTokens(cmd.Context(), args[0], gone...)
			})
			if err != nil {
				return err
			}
			if revoked == 0 && len(args) == 2 {
				return fmt.Errorf("%w: %s has none whose id begins with %q (at least 8 digits)", dirclient.ErrNoSuchToken, args[0], args[1])
			}
			if t.json {
				return t.printJSON(map[string]int{"revoked": revoked})
			}
			fmt.Fprintf(t.out, "revoked: %d\n", revoked)
			return nil
		},
	}
}
