package shoalctl

import (
	"github.com/spf13/cobra"

	"shoal/daemons/internal/dirclient"
)

// cmdAccountStatus makes one of the commands that change an account's status.
func (t *tool) cmdAccountStatus(word, status, short, long, done string) *cobra.Command {
	return &cobra.Command{
		Use:     word + " ADDRESS",
		Short:   short,
		Long:    long,
		Example: "  shoalctl account " + word + " carol@example.test",
		Args:    exactArgs("the address"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return t.withChange(cmd.Context(), func(a *dirclient.Admin) error {
				if err := a.SetAccountStatus(cmd.Context(), args[0], status); err != nil {
					return err
				}
				account, err := a.Account(cmd.Context(), args[0])
				if err != nil {
					return err
				}
				return t.show(viewAccount(account), func() { t.say("account %s %s", account.Address, done) })
			})
		},
	}
}

func (t *tool) cmdAccountSuspend() *cobra.Command {
	return t.cmdAccountStatus("suspend", dirclient.StatusSuspended, "Suspend an account: mail arrives, nobody logs in", `Suspend an account. Its mail goes on arriving; nobody logs in, by whatever credential, and
the sessions that are open end within seconds. "account resume" undoes it.`, "suspended")
}

func (t *tool) cmdAccountResume() *cobra.Command {
	return t.cmdAccountStatus("resume", dirclient.StatusActive, "Make a suspended or closed account active again", "", "active")
}

func (t *tool) cmdAccountClose() *cobra.Command {
	return t.cmdAccountStatus("close", dirclient.StatusClosed, "Close an account: mail is refused, nobody logs in", `Close an account. Mail for it is refused for good (550), nobody logs in, and the sessions that
are open end within seconds. Its mail stays where it is. "account resume" undoes it.`, "closed")
}

func (t *tool) cmdAccountLogout() *cobra.Command {
	return &cobra.Command{
		Use:   "logout ADDRESS",
		Short: "End all sessions and session tokens of an account",
		Long: `End all sessions of an account on all servers, within seconds, and make its session tokens
(those of the webmail) worthless. Passwords stay as they are: programs that have one come
back at once. Change the password, or remove the app password, to keep them out.`,
		Example: "  shoalctl account logout carol@example.test",
		Args:    exactArgs("the address"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return t.changeAccount(cmd.Context(), args[0], func(a *dirclient.Admin, account *dirclient.Account) error {
				if err := a.EndSessions(cmd.Context(), account); err != nil {
					return err
				}
				return t.show(map[string]string{"address": account.Address}, func() { t.say("all sessions of %s end", account.Address) })
			})
		},
	}
}
