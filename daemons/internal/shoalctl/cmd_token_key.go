package shoalctl

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"shoal/daemons/internal/authn"
	"shoal/daemons/internal/dirclient"
	"shoal/daemons/internal/token"
)

// tokenKeyView is a key of session tokens as shown.
type tokenKeyView struct {
	Server  string     `json:"server"`
	ID      string     `json:"id"`
	Expires *time.Time `json:"expires,omitempty"`
	File    string     `json:"file,omitempty"`
}

func (t *tool) cmdTokenKey() *cobra.Command {
	return group("token-key", "Keys of session tokens: those with which webmail servers log their users in",
		t.cmdTokenKeyAdd(), t.cmdTokenKeyList(), t.cmdTokenKeyRemove(), t.cmdTokenKeySign())
}

// withTokenServer finds the entry of a webmail server.
func withTokenServer(cmd *cobra.Command, a *dirclient.Admin, name string, f func(dirclient.Server) error) error {
	servers, err := a.Servers(cmd.Context(), "webmail")
	if err != nil {
		return err
	}
	i := slices.IndexFunc(servers, func(s dirclient.Server) bool { return s.Name == name })
	if i < 0 {
		return fmt.Errorf("%w: the directory has no server %q of role webmail", dirclient.ErrNoSuchEntry, name)
	}
	return f(servers[i])
}

func (t *tool) cmdTokenKeyAdd() *cobra.Command {
	var file, life string
	cmd := &cobra.Command{
		Use:   "add SERVER --file FILE",
		Short: "Make a key for a webmail server: the private half in a file, the public one in its entry",
		Long: `Make a key pair with which a webmail server signs session tokens. The private half is written
to a file, for that server only; the public one goes into the server's entry, where boxes
and switches read it. To rotate: add a key, give it to the server, and remove the old one
an hour later.`,
		Example: "  shoalctl token-key add webmail1 --file webmail1.token-key --expires 180d",
		Args:    exactArgs("the server"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if file == "" {
				return usageError{fmt.Errorf("--file: where is the private half to go?")}
			}
			var until time.Time
			if life != "" {
				age, err := parseAge(life)
				if err != nil {
					return usageError{fmt.Errorf("--expires: %w", err)}
				}
				until = time.Now().Add(age).Truncate(time.Second)
			}
			key, err := token.NewKey()
			if err != nil {
				return err
			}
			return t.withChange(cmd.Context(), func(a *dirclient.Admin) error {
				return withTokenServer(cmd, a, args[0], func(s dirclient.Server) error {
					if err := key.Save(file); err != nil {
						return err
					}
					if err := a.SetTokenKeys(cmd.Context(), s.Name, append(s.TokenKeys, key.Public(until))); err != nil {
						return err
					}
					return t.show(tokenKeyView{Server: s.Name, ID: key.ID, Expires: timeOrNil(until), File: file}, func() {
						t.say("key %s of %s added; its private half is in %s", key.ID, s.Name, printable(file))
					})
				})
			})
		},
	}
	cmd.Flags().StringVar(&file, "file", "", "where the private half is written; must not be there")
	cmd.Flags().StringVar(&life, "expires", "", "how long the key lives: 180d (default: until it is removed)")
	return cmd
}

func (t *tool) cmdTokenKeyList() *cobra.Command {
	return &cobra.Command{
		Use:     "list",
		Short:   "List the keys of all webmail servers",
		Example: "  shoalctl token-key list",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return t.withAdmin(cmd.Context(), func(a *dirclient.Admin) error {
				servers, err := a.Servers(cmd.Context(), "webmail")
				if err != nil {
					return err
				}
				views := []tokenKeyView{}
				for _, s := range servers {
					for _, v := range s.TokenKeys {
						if k, known, err := token.ParsePublicKey(v); known && err == nil {
							views = append(views, tokenKeyView{Server: s.Name, ID: k.ID, Expires: timeOrNil(k.NotAfter)})
						}
					}
				}
				return t.show(views, func() {
					rows := make([][]string, len(views))
					for i, v := range views {
						rows[i] = []string{v.Server, v.ID, dayText(v.Expires)}
					}
					t.table([]string{"SERVER", "KEY", "EXPIRES"}, rows)
				})
			})
		},
	}
}

func (t *tool) cmdTokenKeyRemove() *cobra.Command {
	return &cobra.Command{
		Use:     "remove SERVER KEY",
		Short:   "Remove a key: its tokens open nothing any more",
		Example: "  shoalctl token-key remove webmail1 mfzwizlopfsws3rv",
		Args:    exactArgs("the server", "the key"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return t.withChange(cmd.Context(), func(a *dirclient.Admin) error {
				return withTokenServer(cmd, a, args[0], func(s dirclient.Server) error {
					left := slices.DeleteFunc(slices.Clone(s.TokenKeys), func(v string) bool { return strings.HasPrefix(v, "1 "+args[1]+" ") })
					if len(left) == len(s.TokenKeys) {
						return fmt.Errorf("%w: %s has no key %q", dirclient.ErrNoSuchEntry, s.Name, args[1])
					}
					if err := a.SetTokenKeys(cmd.Context(), s.Name, left); err != nil {
						return err
					}
					return t.show(tokenKeyView{Server: s.Name, ID: args[1]}, func() { t.say("key %s of %s removed", printable(args[1]), s.Name) })
				})
			})
		},
	}
}

func (t *tool) cmdTokenKeySign() *cobra.Command {
	var file string
	var scopes []string
	var life time.Duration
	cmd := &cobra.Command{
		Use:   "sign SERVER ADDRESS --file FILE",
		Short: "Sign a session token, as the webmail server does: for tests and for finding faults",
		Example: `  curl --oauth2-bearer "$(shoalctl token-key sign webmail1 carol@example.test --file webmail1.token-key)" \
      --user carol@example.test imaps://mail.example.test/`,
		Args: exactArgs("the server", "the address"),
		RunE: func(cmd *cobra.Command, args []string) error {
			key, err := token.LoadKey(file)
			if err != nil {
				return usageError{fmt.Errorf("--file: %w", err)}
			}
			return t.withAdmin(cmd.Context(), func(a *dirclient.Admin) error {
				account, err := a.Account(cmd.Context(), args[1])
				if err != nil {
					return err
				}
				now := time.Now()
				raw, err := key.Sign(token.Session{Server: args[0], AccountID: account.ID, Scopes: scopes, Epoch: account.SessionEpoch,
					CredentialVersion: account.CredentialVersion, Issued: now, Expires: now.Add(life)})
				if err != nil {
					return err
				}
				return t.show(map[string]string{"token": raw}, func() { t.say("%s", raw) })
			})
		},
	}
	cmd.Flags().StringVar(&file, "file", "", "the file with the server's private key")
	cmd.Flags().StringSliceVar(&scopes, "scope", []string{authn.ServiceIMAP, authn.ServiceSMTP, authn.ServiceSieve}, "services that it opens")
	cmd.Flags().DurationVar(&life, "life", 5*time.Minute, "how long it lives, an hour at most")
	return cmd
}
