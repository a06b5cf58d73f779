package shoalctl

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"shoal/daemons/internal/authn"
	"shoal/daemons/internal/dirclient"
)

// appPasswordView is an app password as shown.
type appPasswordView struct {
	ID       string     `json:"id"`
	Name     string     `json:"name,omitempty"`
	Scopes   []string   `json:"scopes"`
	Created  time.Time  `json:"created"`
	Expires  *time.Time `json:"expires,omitempty"`
	LastUsed *time.Time `json:"last_used,omitempty"` // right to a day or so
	Password string     `json:"password,omitempty"`  // only one that was made just now
}

func timeOrNil(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	return &t
}

func viewAppPassword(p *dirclient.AppPassword) appPasswordView {
	return appPasswordView{ID: p.ID, Name: p.Name, Scopes: p.Scopes, Created: p.Created, Expires: timeOrNil(p.Expires), LastUsed: timeOrNil(p.LastUsed)}
}

func (t *tool) cmdAppPassword() *cobra.Command {
	return group("app-password", "Add, list and remove app passwords: further passwords of an account, for some services",
		t.cmdAppPasswordAdd(), t.cmdAppPasswordList(), t.cmdAppPasswordRemove())
}

func (t *tool) cmdAppPasswordAdd() *cobra.Command {
	var name, expires string
	var scopes []string
	cmd := &cobra.Command{
		Use:   "add ADDRESS",
		Short: "Make an app password and show it, once",
		Long: `Make an app password for an account: a further password, for one device or program, that
opens some services only and can be taken away alone. It is shown once and kept as a
hash. It cannot change the account's password.`,
		Example: `  shoalctl app-password add carol@example.test --scope imap,smtp --name "old phone"
  shoalctl app-password add carol@example.test --scope smtp --name printer --expires 90d --json`,
		Args: exactArgs("the address"),
		RunE: func(cmd *cobra.Command, args []string) error {
			for i, s := range scopes {
				if scopes[i] = strings.ToLower(s); !slices.Contains(authn.Services(), scopes[i]) {
					return usageError{fmt.Errorf("--scope %s: it is one of %s", s, strings.Join(authn.Services(), ", "))}
				}
			}
			slices.Sort(scopes)
			n := dirclient.NewAppPassword{Name: name, Scopes: slices.Compact(scopes)}
			if expires != "" {
				life, err := parseAge(expires)
				if err != nil {
					return usageError{fmt.Errorf("--expires: %w", err)}
				}
				n.Expires = time.Now().Add(life).Truncate(time.Second)
			}
			var shown string
			n.ID, n.Secret, shown = authn.NewAppPassword()
			return t.changeAccount(cmd.Context(), args[0], func(a *dirclient.Admin, account *dirclient.Account) error {
				if err := a.AddAppPassword(cmd.Context(), account, n); err != nil {
					return err
				}
				v := appPasswordView{ID: n.ID, Name: n.Name, Scopes: n.Scopes, Created: time.Now().UTC().Truncate(time.Second), Expires: timeOrNil(n.Expires), Password: shown}
				return t.show(v, func() {
					t.say("app password %s of %s added, for %s", v.ID, account.Address, strings.Join(v.Scopes, ", "))
					t.say("password %s", shown)
				})
			})
		},
	}
	cmd.Flags().StringSliceVar(&scopes, "scope", []string{authn.ServiceIMAP, authn.ServicePOP, authn.ServiceSMTP}, "services that it opens: "+strings.Join(authn.Services(), ", "))
	cmd.Flags().StringVar(&name, "name", "", "what it is for, such as the name of a device")
	cmd.Flags().StringVar(&expires, "expires", "", "how long it lives: 12h, 90d (default: until it is removed)")
	return cmd
}

func (t *tool) cmdAppPasswordList() *cobra.Command {
	return &cobra.Command{
		Use:     "list ADDRESS",
		Short:   "List the app passwords of an account, with their last use to a day or so",
		Example: "  shoalctl app-password list carol@example.test",
		Args:    exactArgs("the address"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return t.readAccount(cmd.Context(), args[0], func(a *dirclient.Admin, account *dirclient.Account) error {
				list, err := a.AppPasswords(cmd.Context(), account)
				if err != nil {
					return err
				}
				views := []appPasswordView{}
				for _, p := range list {
					views = append(views, viewAppPassword(p))
				}
				return t.show(views, func() {
					rows := make([][]string, len(views))
					for i, v := range views {
						rows[i] = []string{v.ID, v.Name, strings.Join(v.Scopes, " "), dayText(&v.Created), dayText(v.Expires), dayText(v.LastUsed)}
					}
					t.table([]string{"ID", "NAME", "SCOPES", "CREATED", "EXPIRES", "LAST USED"}, rows)
				})
			})
		},
	}
}

func dayText(at *time.Time) string {
	if at == nil || at.IsZero() {
		return "-"
	}
	return at.UTC().Format("2006-01-02")
}

func (t *tool) cmdAppPasswordRemove() *cobra.Command {
	return &cobra.Command{
		Use:     "remove ADDRESS ID",
		Short:   "Remove an app password; the sessions that it opened end",
		Example: "  shoalctl app-password remove carol@example.test k3fa",
		Args:    exactArgs("the address", "the id"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return t.changeAccount(cmd.Context(), args[0], func(a *dirclient.Admin, account *dirclient.Account) error {
				if err := a.RemoveAppPassword(cmd.Context(), account, strings.ToLower(args[1])); err != nil {
					return err
				}
				return t.show(map[string]string{"address": account.Address, "id": args[1]}, func() {
					t.say("app password %s of %s removed", printable(args[1]), account.Address)
				})
			})
		},
	}
}
