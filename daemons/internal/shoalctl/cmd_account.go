package shoalctl

import (
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"shoal/daemons/internal/conf"
	"shoal/daemons/internal/dirclient"
)

// accountView is an account as shown.
type accountView struct {
	Address       string     `json:"address"`
	Name          string     `json:"name"`
	Status        string     `json:"status"`
	Aliases       []string   `json:"aliases,omitempty"`
	ID            string     `json:"id"`
	Volume        string     `json:"volume"`
	QuotaStorage  int64      `json:"quota_storage,omitempty"`
	QuotaMessages int64      `json:"quota_messages,omitempty"`
	LastLogin     *time.Time `json:"last_login,omitempty"` // right to a day or so
	Password      string     `json:"password,omitempty"`   // only one that was generated just now
}

func viewAccount(a *dirclient.Account) accountView {
	v := accountView{
		Address: a.Address, Name: a.DisplayName, Status: a.Status, ID: a.ID, Volume: a.Volume,
		QuotaStorage: a.QuotaStorage, QuotaMessages: a.QuotaMessages, LastLogin: timeOrNil(a.LastLogin),
	}
	for _, address := range a.Addresses {
		if address != a.Address {
			v.Aliases = append(v.Aliases, address)
		}
	}
	return v
}

func (t *tool) cmdAccount() *cobra.Command {
	return group("account", "Add, list, show, move, suspend and delete accounts, set passwords",
		t.cmdAccountAdd(), t.cmdAccountPassword(), t.cmdAccountList(), t.cmdAccountShow(), t.cmdAccountMove(), t.cmdAccountSuspend(), t.cmdAccountResume(), t.cmdAccountClose(), t.cmdAccountLogout(), t.cmdAccountDelete())
}

func (t *tool) cmdAccountAdd() *cobra.Command {
	var n dirclient.NewAccount
	var password passwordFlags
	var quota string
	cmd := &cobra.Command{
		Use:   "add ADDRESS",
		Short: "Add an account",
		Long: `Add an account. Its domain must be there. The password is asked for on the terminal,
or read from a file or standard input, or generated; never from the command line, where
every user of this machine could see it.`,
		Example: `  shoalctl account add carol@example.test --name "Carol Example"
  shoalctl account add carol@example.test --generate --alias sales@example.test --quota "10 GiB"
  pwgen 20 1 | shoalctl account add carol@example.test --password-stdin`,
		Args: exactArgs("the address"),
		RunE: func(cmd *cobra.Command, args []string) error {
			n.Address = args[0]
			n.Place = t.roomiestVolume
			switch quota {
			case "":
			case "none":
				n.QuotaStorage = dirclient.NoQuota
			default:
				size, err := conf.ParseSize(quota)
				if err != nil {
					return usageError{fmt.Errorf("--quota: %w", err)}
				}
				n.QuotaStorage = int64(size)
			}
			var made bool
			var err error
			if n.Password, made, err = password.read(t, "Password of "+n.Address+": ", true); err != nil {
				return err
			}
			return t.withChange(cmd.Context(), func(a *dirclient.Admin) error {
				account, err := a.AddAccount(cmd.Context(), n)
				if err != nil {
					return err
				}
				v := viewAccount(account)
				if made {
					v.Password = n.Password
				}
				return t.show(v, func() {
					t.say("account %s added", account.Address)
					if made {
						t.say("password %s", n.Password)
					}
				})
			})
		},
	}
	cmd.Flags().StringVar(&n.DisplayName, "name", "", "the person's name (default: the address before the @)")
	cmd.Flags().StringSliceVar(&n.Aliases, "alias", nil, "a further address; may be given several times")
	cmd.Flags().StringVar(&n.Volume, "volume", "", "volume for the mail (default: the domain's, or the active one with the most free space)")
	cmd.Flags().StringVar(&quota, "quota", "", `storage limit, such as "10 GiB", or none (default: the domain's, or 2 GiB)`)
	cmd.Flags().Int64Var(&n.QuotaMessages, "quota-messages", 0, "limit of the number of messages (default: the domain's, or none)")
	password.register(cmd, true)
	return cmd
}

func (t *tool) cmdAccountPassword() *cobra.Command {
	var password passwordFlags
	cmd := &cobra.Command{
		Use:   "password ADDRESS",
		Short: "Set the password of an account",
		Example: `  shoalctl account password carol@example.test
  shoalctl account password carol@example.test --generate --json`,
		Args: exactArgs("the address"),
		RunE: func(cmd *cobra.Command, args []string) error {
			secret, made, err := password.read(t, "New password of "+args[0]+": ", true)
			if err != nil {
				return err
			}
			return t.withChange(cmd.Context(), func(a *dirclient.Admin) error {
				if err := a.SetAccountPassword(cmd.Context(), args[0], secret); err != nil {
					return err
				}
				v := map[string]string{"address": args[0]}
				if made {
					v["password"] = secret
				}
				return t.show(v, func() {
					t.say("password of %s set", args[0])
					if made {
						t.say("password %s", secret)
					}
				})
			})
		},
	}
	password.register(cmd, true)
	return cmd
}

func (t *tool) cmdAccountList() *cobra.Command {
	return &cobra.Command{
		Use:     "list [DOMAIN]",
		Short:   "List the accounts of a domain, or of all domains",
		Example: "  shoalctl account list example.test\n  shoalctl account list --json | jq -r '.[].address'",
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) > 1 {
				return usageError{fmt.Errorf("%s takes one domain at most: %s", cmd.CommandPath(), cmd.UseLine())}
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			return t.withAdmin(cmd.Context(), func(a *dirclient.Admin) error {
				var domains []string
				if len(args) == 1 {
					d, err := a.Domain(cmd.Context(), args[0])
					if err != nil {
						return err
					}
					domains = append(domains, d.Name)
				} else if err := a.Domains(cmd.Context(), func(d *dirclient.Domain) error {
					domains = append(domains, d.Name)
					return nil
				}); err != nil {
					return err
				}
				views := []accountView{}
				for _, domain := range domains {
					if err := a.Accounts(cmd.Context(), domain, func(account *dirclient.Account) error {
						views = append(views, viewAccount(account))
						return nil
					}); err != nil {
						return err
					}
				}
				return t.show(views, func() {
					rows := make([][]string, len(views))
					for i, v := range views {
						rows[i] = []string{v.Address, v.Name, v.Status, v.Volume, strings.Join(v.Aliases, " ")}
					}
					t.table([]string{"ADDRESS", "NAME", "STATUS", "VOLUME", "ALIASES"}, rows)
				})
			})
		},
	}
}

func (t *tool) cmdAccountShow() *cobra.Command {
	return &cobra.Command{
		Use:     "show ADDRESS",
		Short:   "Show an account",
		Example: "  shoalctl account show carol@example.test",
		Args:    exactArgs("the address"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return t.readAccount(cmd.Context(), args[0], func(a *dirclient.Admin, account *dirclient.Account) error {
				v := viewAccount(account)
				return t.show(v, func() {
					t.say("address   %s", printable(v.Address))
					t.say("name      %s", orDash(v.Name))
					t.say("status    %s", printable(v.Status))
					t.say("aliases   %s", orDash(strings.Join(v.Aliases, " ")))
					t.say("id        %s", printable(v.ID))
					t.say("volume    %s", printable(v.Volume))
					t.say("quota     %s", quotaText(v))
					t.say("login     %s", dayText(v.LastLogin))
				})
			})
		},
	}
}

func quotaText(v accountView) string {
	var parts []string
	if v.QuotaStorage > 0 {
		parts = append(parts, bytesText(v.QuotaStorage))
	}
	if v.QuotaMessages > 0 {
		parts = append(parts, fmt.Sprintf("%d messages", v.QuotaMessages))
	}
	if len(parts) == 0 {
		return "none"
	}
	return strings.Join(parts, ", ")
}

func (t *tool) cmdAccountDelete() *cobra.Command {
	return &cobra.Command{
		Use:   "delete ADDRESS",
		Short: "Delete an account; its mail stays on the volume",
		Long: `Delete an account: it can no longer log in, and mail for it is refused. Its mail stays on
the volume, under the account's id, until somebody removes it there.`,
		Example: "  shoalctl account delete carol@example.test",
		Args:    exactArgs("the address"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return t.withChange(cmd.Context(), func(a *dirclient.Admin) error {
				account, err := a.DeleteAccount(cmd.Context(), args[0])
				if err != nil {
					return err
				}
				return t.show(viewAccount(account), func() {
					t.say("account %s deleted; its mail stays on %s under id %s", account.Address, account.Volume, account.ID)
				})
			})
		},
	}
}
