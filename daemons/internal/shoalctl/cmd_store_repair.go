package shoalctl

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"shoal/daemons/internal/dirclient"
	"shoal/daemons/internal/mailstore"
)

// repairView is the answer of store repair, for one account.
type repairView struct {
	Volume  string                   `json:"volume"`
	Account string                   `json:"account"`
	Applied bool                     `json:"applied"`
	Actions []mailstore.RepairAction `json:"actions"`
	Problem string                   `json:"problem,omitempty"`
}

// storeTarget is what the commands of a whole volume or of one account are given.
type storeTarget struct {
	all     bool
	volumes []string
	id      string
}

func (x *storeTarget) flags(cmd *cobra.Command, f *storeFlags) {
	cmd.Flags().BoolVar(&x.all, "all", false, "all volumes of this machine")
	cmd.Flags().StringArrayVar(&x.volumes, "volume", nil, "this volume")
	boxConfigFlag(cmd, f)
}

func (x *storeTarget) args(cmd *cobra.Command, args []string) error {
	if len(args) > 1 || (len(args) == 1) == (x.all || len(x.volumes) > 0) {
		return usageError{fmt.Errorf("%s needs either an account, --volume or --all", cmd.CommandPath())}
	}
	return nil
}

// find looks the account up, if there is one.
func (x *storeTarget) find(cmd *cobra.Command, t *tool, args []string) error {
	if len(args) == 0 {
		return nil
	}
	return t.withAdmin(cmd.Context(), func(a *dirclient.Admin) error {
		account, err := a.Account(cmd.Context(), args[0])
		if err == nil {
			x.id, x.volumes = account.ID, []string{account.Volume}
		}
		return err
	})
}

func (t *tool) cmdStoreRepair() *cobra.Command {
	var f storeFlags
	var x storeTarget
	var apply bool
	cmd := &cobra.Command{
		Use:   "repair [ACCOUNT]",
		Short: "Repair what store verify finds; loses nothing",
		Long: `Repair what store verify finds, beside the running service. Without --apply it says what it would do.

Nothing is lost. A message whose file is missing is expunged, and named. What is left of a damaged file
gets a new UID. Message files that no record names for a week go to the mailbox Recovered. A mailbox
whose log cannot be read is replaced by a new one of the same name, with a new UIDVALIDITY, that gets
all that can be read; the old one goes to the trash, where mailbox restore finds it for the retention.
It can be repeated, and interrupted, at will.`,
		Example: `  shoalctl store repair carol@example.test
  shoalctl store repair carol@example.test --apply
  shoalctl store repair --volume vol01 --json`,
		Args: x.args,
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx := cmd.Context()
			if err := x.find(cmd, t, args); err != nil {
				return err
			}
			return t.withStore(ctx, f, x.volumes, func(_ *dirclient.Admin, s *localStore) error {
				views := []repairView{}
				failed := 0
				for _, m := range s.mounts {
					report, err := t.verifyVolume(cmd, s, m, mailstore.VerifyOptions{Content: true, Account: x.id}, "")
					if err != nil {
						return interrupted(fmt.Errorf("volume %s: %w", m.name, err))
					}
					for _, id := range report.Affected() {
						v := repairView{Volume: m.name, Account: id, Applied: apply}
						v.Actions, err = s.Repair(ctx, m.name, id, report, apply)
						if err != nil {
							v.Problem = err.Error()
							failed++
						}
						if len(v.Actions) > 0 || err != nil {
							views = append(views, v)
						}
					}
				}
				if err := t.show(views, func() {
					for _, v := range views {
						t.say("%s, account %s:", v.Volume, v.Account)
						for _, a := range v.Actions {
							t.say("  %-10s %s: %s", a.Action, orDash(a.Mailbox), printable(a.What))
						}
						if v.Problem != "" {
							t.say("  failed: %s", printable(v.Problem))
						}
					}
					switch {
					case len(views) == 0:
						t.say("nothing to repair")
					case !apply:
						t.say("nothing was changed: --apply does it")
					}
				}); err != nil {
					return err
				}
				if failed > 0 {
					return foundError{fmt.Errorf("%d accounts could not be repaired", failed)}
				}
				return nil
			})
		},
	}
	cmd.Flags().BoolVar(&apply, "apply", false, "do it")
	x.flags(cmd, &f)
	return cmd
}

// renumberView is a mailbox with its new UIDVALIDITY.
type renumberView struct {
	Account     string `json:"account"`
	Mailbox     string `json:"mailbox"`
	UIDValidity uint32 `json:"uidvalidity"`
}

func (t *tool) cmdStoreRenumber() *cobra.Command {
	var f storeFlags
	var x storeTarget
	var yes bool
	cmd := &cobra.Command{
		Use:   "renumber [ACCOUNT]",
		Short: "Give mailboxes a new UIDVALIDITY, after a volume was put back from a backup",
		Long: `Give mailboxes a new UIDVALIDITY and their messages new UIDs. It belongs to putting a volume back from a backup
or a snapshot: what came after the copy was made used UIDs that would be given out a second time, for other
messages. Clients download the mailboxes again.`,
		Example: `  shoalctl store renumber --volume vol01 --yes`,
		Args:    x.args,
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx := cmd.Context()
			if !yes {
				return usageError{errors.New("every client of these accounts will download its mail again: confirm with --yes")}
			}
			if err := x.find(cmd, t, args); err != nil {
				return err
			}
			return t.withStore(ctx, f, x.volumes, func(a *dirclient.Admin, s *localStore) error {
				accounts, err := accountsByVolume(ctx, a)
				if err != nil {
					return err
				}
				views := []renumberView{}
				for _, m := range s.mounts {
					for _, account := range accounts[m.name] {
						if x.id != "" && account.ID != x.id {
							continue
						}
						handle, err := s.Account(ctx, m.name, account.ID)
						if err != nil {
							return fmt.Errorf("%s: %w", account.Address, err)
						}
						list, err := handle.Mailboxes(ctx)
						if err != nil {
							return fmt.Errorf("%s: %w", account.Address, err)
						}
						for _, i := range list {
							box, err := handle.OpenID(ctx, i.ID)
							if err != nil {
								return fmt.Errorf("%s, %s: %w", account.Address, i.Name, err)
							}
							validity, err := box.Renumber(ctx)
							if err != nil {
								return fmt.Errorf("%s, %s: %w", account.Address, i.Name, err)
							}
							views = append(views, renumberView{account.Address, i.Name, validity})
						}
					}
				}
				return t.show(views, func() { t.say("%d mailboxes have a new UIDVALIDITY", len(views)) })
			})
		},
	}
	cmd.Flags().BoolVar(&yes, "yes", false, "yes, clients shall download everything again")
	x.flags(cmd, &f)
	return cmd
}
