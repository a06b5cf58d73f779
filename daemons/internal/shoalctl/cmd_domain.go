package shoalctl

import (
	"fmt"

	"github.com/spf13/cobra"

	"shoal/daemons/internal/conf"
	"shoal/daemons/internal/dirclient"
)

// domainView is a domain as shown.
type domainView struct {
	Name     string `json:"name"`
	Status   string `json:"status"`
	Volume   string `json:"default_volume,omitempty"`
	CatchAll string `json:"catch_all,omitempty"`
	Accounts *int   `json:"accounts,omitempty"`
}

func viewDomain(d *dirclient.Domain) domainView {
	return domainView{Name: d.Name, Status: d.Status, Volume: d.DefaultVolume, CatchAll: d.CatchAll}
}

func (t *tool) cmdDomain() *cobra.Command {
	return group("domain", "Add, list, show, change and delete mail domains",
		t.cmdDomainAdd(), t.cmdDomainList(), t.cmdDomainShow(), t.cmdDomainSet(), t.cmdDomainDelete(), t.cmdDomainAdmin())
}

func (t *tool) cmdDomainAdd() *cobra.Command {
	var n dirclient.NewDomain
	var quota string
	cmd := &cobra.Command{
		Use:     "add DOMAIN",
		Short:   "Add a domain: mail for it is taken from now on",
		Example: "  shoalctl domain add example.org --volume vol01",
		Args:    exactArgs("the domain"),
		RunE: func(cmd *cobra.Command, args []string) error {
			n.Name = args[0]
			if quota != "" {
				size, err := conf.ParseSize(quota)
				if err != nil {
					return usageError{fmt.Errorf("--quota: %w", err)}
				}
				n.QuotaStorage = int64(size)
			}
			return t.withChange(cmd.Context(), func(a *dirclient.Admin) error {
				d, err := a.AddDomain(cmd.Context(), n)
				if err != nil {
					return err
				}
				return t.show(viewDomain(d), func() { t.say("domain %s added", d.Name) })
			})
		},
	}
	cmd.Flags().StringVar(&n.DefaultVolume, "volume", "", "volume for the mail of new accounts (default: the active one with the most free space)")
	cmd.Flags().StringVar(&quota, "quota", "", `storage limit of new accounts, such as "10 GiB" (default: 2 GiB)`)
	cmd.Flags().StringVar(&n.CatchAll, "catch-all", "", "address of the account that takes mail for unknown addresses")
	return cmd
}

func (t *tool) cmdDomainList() *cobra.Command {
	return &cobra.Command{
		Use:     "list",
		Short:   "List the domains",
		Example: "  shoalctl domain list",
		Args:    noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return t.withAdmin(cmd.Context(), func(a *dirclient.Admin) error {
				views := []domainView{}
				err := a.Domains(cmd.Context(), func(d *dirclient.Domain) error {
					views = append(views, viewDomain(d))
					return nil
				})
				if err != nil {
					return err
				}
				return t.show(views, func() {
					rows := make([][]string, len(views))
					for i, v := range views {
						rows[i] = []string{v.Name, v.Status, v.Volume, v.CatchAll}
					}
					t.table([]string{"DOMAIN", "STATUS", "VOLUME", "CATCH-ALL"}, rows)
				})
			})
		},
	}
}

func (t *tool) cmdDomainShow() *cobra.Command {
	return &cobra.Command{
		Use:     "show DOMAIN",
		Short:   "Show a domain",
		Example: "  shoalctl domain show example.org",
		Args:    exactArgs("the domain"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return t.withAdmin(cmd.Context(), func(a *dirclient.Admin) error {
				d, err := a.Domain(cmd.Context(), args[0])
				if err != nil {
					return err
				}
				count := 0
				err = a.Accounts(cmd.Context(), d.Name, func(*dirclient.Account) error {
					count++
					return nil
				})
				if err != nil {
					return err
				}
				v := viewDomain(d)
				v.Accounts = &count
				return t.show(v, func() {
					t.say("domain     %s", printable(v.Name))
					t.say("status     %s", printable(v.Status))
					t.say("volume     %s", orDash(v.Volume))
					t.say("catch-all  %s", orDash(v.CatchAll))
					t.say("accounts   %d", count)
				})
			})
		},
	}
}

func (t *tool) cmdDomainSet() *cobra.Command {
	var subaddress string
	cmd := &cobra.Command{
		Use:   "set DOMAIN",
		Short: "Change a domain's policies",
		Long: `Says where mail for user+detail goes, where the user has no script that decides: inbox; folder (the mailbox named as the detail, if there is
one); create (the same, which is made if there is none).`,
		Example: "  shoalctl domain set example.org --subaddress folder",
		Args:    exactArgs("the domain"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if subaddress == "" {
				return usageError{fmt.Errorf("name what to change: --subaddress")}
			}
			return t.withChange(cmd.Context(), func(a *dirclient.Admin) error {
				if err := a.SetSubaddress(cmd.Context(), args[0], subaddress); err != nil {
					return err
				}
				return t.show(map[string]string{"domain": args[0], "subaddress": subaddress}, func() { t.say("%s: subaddress %s", args[0], subaddress) })
			})
		},
	}
	cmd.Flags().StringVar(&subaddress, "subaddress", "", "inbox, folder or create")
	return cmd
}

func (t *tool) cmdDomainDelete() *cobra.Command {
	return &cobra.Command{
		Use:     "delete DOMAIN",
		Short:   "Delete a domain that has no accounts any more",
		Example: "  shoalctl domain delete example.org",
		Args:    exactArgs("the domain"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return t.withChange(cmd.Context(), func(a *dirclient.Admin) error {
				if err := a.DeleteDomain(cmd.Context(), args[0]); err != nil {
					return err
				}
				return t.show(map[string]string{"deleted": args[0]}, func() { t.say("domain %s deleted", args[0]) })
			})
		},
	}
}

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return printable(s)
}
