package shoalctl

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"shoal/daemons/internal/dirclient"
)

// aliasView is an alias as shown.
type aliasView struct {
	Addresses []string `json:"addresses"`
	Targets   []string `json:"targets"`
}

func (t *tool) cmdAlias() *cobra.Command {
	return group("alias", "Add, list and delete addresses that stand for others", t.cmdAliasAdd(), t.cmdAliasList(), t.cmdAliasDelete())
}

func (t *tool) cmdAliasAdd() *cobra.Command {
	var also []string
	cmd := &cobra.Command{
		Use:   "add ADDRESS TARGET...",
		Short: "Add an address whose mail goes to others",
		Long: `Add an address whose mail goes to others, of this service or any other. Its domain must be there, and the
address free: no account and no other alias has it. Further names of one account are better given to the account
itself (account add --alias).`,
		Example: `  shoalctl alias add sales@example.test carol@example.test dave@example.test
  shoalctl alias add info@example.test carol@example.test --also contact@example.test`,
		Args: minArgs("the address", "at least one target"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return t.withChange(cmd.Context(), func(a *dirclient.Admin) error {
				alias, err := a.AddAlias(cmd.Context(), dirclient.NewAlias{Addresses: append([]string{args[0]}, also...), Targets: args[1:]})
				if err != nil {
					return err
				}
				return t.show(aliasView{alias.Addresses, alias.Targets}, func() {
					t.say("%s goes to %s", strings.Join(alias.Addresses, ", "), strings.Join(alias.Targets, ", "))
				})
			})
		},
	}
	cmd.Flags().StringArrayVar(&also, "also", nil, "a further address of the same alias")
	return cmd
}

func (t *tool) cmdAliasList() *cobra.Command {
	return &cobra.Command{
		Use:     "list [DOMAIN]",
		Short:   "List the aliases of a domain, or of all",
		Example: "  shoalctl alias list example.test",
		Args:    maxOne("a domain"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return t.withAdmin(cmd.Context(), func(a *dirclient.Admin) error {
				domain := ""
				if len(args) == 1 {
					domain = args[0]
				}
				views := []aliasView{}
				err := a.Aliases(cmd.Context(), domain, func(x *dirclient.Alias) error {
					views = append(views, aliasView{x.Addresses, x.Targets})
					return nil
				})
				if err != nil {
					return err
				}
				return t.show(views, func() {
					rows := make([][]string, len(views))
					for i, v := range views {
						rows[i] = []string{strings.Join(v.Addresses, " "), strings.Join(v.Targets, " ")}
					}
					t.table([]string{"ADDRESSES", "TARGETS"}, rows)
				})
			})
		},
	}
}

func (t *tool) cmdAliasDelete() *cobra.Command {
	return &cobra.Command{
		Use:     "delete ADDRESS",
		Short:   "Delete an alias with all its addresses",
		Example: "  shoalctl alias delete sales@example.test",
		Args:    exactArgs("the address"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return t.withChange(cmd.Context(), func(a *dirclient.Admin) error {
				if err := a.DeleteAlias(cmd.Context(), args[0]); err != nil {
					return err
				}
				return t.show(map[string]string{"deleted": args[0]}, func() { t.say("alias %s deleted", args[0]) })
			})
		},
	}
}

// maxOne allows one argument at most.
func maxOne(name string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) > 1 {
			return usageError{fmt.Errorf("%s takes %s at most: %s", cmd.CommandPath(), name, cmd.UseLine())}
		}
		return nil
	}
}

// forwardView is where the mail of an account is sent on to.
type forwardView struct {
	Address string   `json:"address"`
	To      []string `json:"to"`
	Keep    bool     `json:"keep"`
}

func (t *tool) cmdForward() *cobra.Command {
	return group("forward", "Send the mail of accounts on to other addresses", t.cmdForwardAdd(), t.cmdForwardList(), t.cmdForwardDelete())
}

func (t *tool) cmdForwardAdd() *cobra.Command {
	var keep, drop bool
	cmd := &cobra.Command{
		Use:   "add ADDRESS TARGET...",
		Short: "Send the mail of an account on to other addresses",
		Long: `Send the mail of an account on to other addresses. With --keep it stays in the mailbox as well, with --no-keep
it does not; without either that stays as it is, and a new forward does not keep.`,
		Example: `  shoalctl forward add carol@example.test carol@home.test --keep`,
		Args:    minArgs("the address", "at least one target"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if keep && drop {
				return usageError{errors.New("--keep and --no-keep exclude each other")}
			}
			return t.changeAccount(cmd.Context(), args[0], func(a *dirclient.Admin, account *dirclient.Account) error {
				v := forwardView{account.Address, slices.Clone(account.Forward), keep || account.ForwardKeep && !drop}
				for _, to := range args[1:] {
					if slices.Contains(account.Addresses, strings.ToLower(to)) {
						return usageError{fmt.Errorf("%s is an address of the account itself: --keep keeps the mail", to)}
					}
					if !slices.Contains(v.To, to) {
						v.To = append(v.To, to)
					}
				}
				return t.setForward(cmd, a, v)
			})
		},
	}
	cmd.Flags().BoolVar(&keep, "keep", false, "keep the mail in the mailbox as well")
	cmd.Flags().BoolVar(&drop, "no-keep", false, "do not keep it")
	return cmd
}

func (t *tool) setForward(cmd *cobra.Command, a *dirclient.Admin, v forwardView) error {
	if err := a.SetForward(cmd.Context(), v.Address, v.Keep, v.To...); err != nil {
		return err
	}
	return t.show(v, func() {
		switch {
		case len(v.To) == 0:
			t.say("mail for %s stays here", v.Address)
		case v.Keep:
			t.say("mail for %s goes to %s, and stays here as well", v.Address, strings.Join(v.To, ", "))
		default:
			t.say("mail for %s goes to %s", v.Address, strings.Join(v.To, ", "))
		}
	})
}

func (t *tool) cmdForwardList() *cobra.Command {
	return &cobra.Command{
		Use:     "list [DOMAIN]",
		Short:   "List the accounts whose mail is sent on",
		Example: "  shoalctl forward list example.test",
		Args:    maxOne("a domain"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return t.withAdmin(cmd.Context(), func(a *dirclient.Admin) error {
				domain := ""
				if len(args) == 1 {
					domain = args[0]
				}
				views := []forwardView{}
				err := a.Accounts(cmd.Context(), domain, func(x *dirclient.Account) error {
					if len(x.Forward) > 0 {
						views = append(views, forwardView{x.Address, x.Forward, x.ForwardKeep})
					}
					return nil
				})
				if err != nil {
					return err
				}
				return t.show(views, func() {
					rows := make([][]string, len(views))
					for i, v := range views {
						kept := "no"
						if v.Keep {
							kept = "yes"
						}
						rows[i] = []string{v.Address, strings.Join(v.To, " "), kept}
					}
					t.table([]string{"ADDRESS", "TO", "KEPT"}, rows)
				})
			})
		},
	}
}

func (t *tool) cmdForwardDelete() *cobra.Command {
	return &cobra.Command{
		Use:     "delete ADDRESS [TARGET...]",
		Short:   "Send the mail of an account on no more, or not to these addresses",
		Example: "  shoalctl forward delete carol@example.test\n  shoalctl forward delete carol@example.test carol@example.org",
		Args:    minArgs("the address"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return t.changeAccount(cmd.Context(), args[0], func(a *dirclient.Admin, account *dirclient.Account) error {
				v := forwardView{Address: account.Address, To: []string{}, Keep: account.ForwardKeep}
				if len(args) > 1 {
					for _, to := range args[1:] {
						if !slices.Contains(account.Forward, to) {
							return fmt.Errorf("%w: %s does not forward to %s", errNoSuchEntry, account.Address, to)
						}
					}
					v.To = slices.DeleteFunc(slices.Clone(account.Forward), func(s string) bool { return slices.Contains(args[1:], s) })
				}
				return t.setForward(cmd, a, v)
			})
		},
	}
}
