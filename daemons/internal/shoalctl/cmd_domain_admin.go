package shoalctl

import (
	"context"
	"strings"

	"github.com/spf13/cobra"

	"shoal/daemons/internal/dirclient"
)

func (t *tool) cmdDomainAdmin() *cobra.Command {
	return group("admin", "Say who administers a domain: its accounts, aliases and groups",
		t.cmdDomainAdminSet("add", "Make an account, or the members of a group, administrators of a domain", true),
		t.cmdDomainAdminSet("remove", "Let somebody administer a domain no longer", false), t.cmdDomainAdminList())
}

// nameOf gives the DN of an account by its address, or of a group that is given by its DN.
func nameOf(ctx context.Context, a *dirclient.Admin, text string) (string, error) {
	if strings.Contains(text, "=") {
		return text, nil
	}
	account, err := a.Account(ctx, text)
	if err != nil {
		return "", err
	}
	return account.DN, nil
}

func (t *tool) cmdDomainAdminSet(use, short string, is bool) *cobra.Command {
	return &cobra.Command{
		Use:   use + " DOMAIN ADDRESS|DN",
		Short: short,
		Long: `An administrator sees and changes the accounts, aliases and groups of the domain with any LDAP tool, logged in as himself: addresses of the domain,
passwords, quotas up to shoalQuotaLimit of the domain. He sees no other domain, and gives nobody rights. docs/directory-access.md tells the bounds. Somebody
else than an account is named by the DN of a group (groupOfNames): its members are meant.`,
		Example: "  shoalctl domain admin " + use + " example.org alice@example.org",
		Args:    exactArgs("the domain", "the account or group"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return t.withChange(cmd.Context(), func(a *dirclient.Admin) error {
				dn, err := nameOf(cmd.Context(), a, args[1])
				if err == nil {
					err = a.SetAdministrator(cmd.Context(), args[0], dn, is)
				}
				if err != nil {
					return err
				}
				return t.show(map[string]any{"domain": args[0], "administrator": dn, "is": is}, func() {
					if is {
						t.say("%s administers %s", printable(dn), args[0])
					} else {
						t.say("%s does not administer %s any more", printable(dn), args[0])
					}
				})
			})
		},
	}
}

func (t *tool) cmdDomainAdminList() *cobra.Command {
	return &cobra.Command{
		Use:     "list DOMAIN",
		Short:   "List who administers a domain",
		Example: "  shoalctl domain admin list example.org",
		Args:    exactArgs("the domain"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return t.withAdmin(cmd.Context(), func(a *dirclient.Admin) error {
				list, err := a.Administrators(cmd.Context(), args[0])
				if err != nil {
					return err
				}
				if list == nil {
					list = []string{}
				}
				return t.show(list, func() {
					for _, dn := range list {
						t.say("%s", printable(dn))
					}
				})
			})
		},
	}
}
