package shoalctl

import (
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"shoal/daemons/internal/conf"
	"shoal/daemons/internal/dirclient"
)

// serverEntry is a server's entry in the directory as shown.
type serverEntry struct {
	Name      string              `json:"name"`
	Role      string              `json:"role"`
	Addresses map[string][]string `json:"addresses"`
	Version   string              `json:"version,omitempty"`
}

func viewServerEntry(s dirclient.Server) serverEntry {
	return serverEntry{s.Name, s.Role, s.Addresses, s.Version}
}

func (t *tool) cmdServer() *cobra.Command {
	return group("server", "Add, list, show and delete the directory's entries of servers",
		t.cmdServerAdd(), t.cmdServerList(), t.cmdServerShow(), t.cmdServerDelete())
}

func (t *tool) cmdServerAdd() *cobra.Command {
	var n dirclient.NewServer
	var addresses []string
	var passwordFile string
	cmd := &cobra.Command{
		Use:   "add NAME --role ROLE",
		Short: "Add a server's entry: where others reach it, and whom it is to the directory",
		Long: `Add a server's entry to the directory: its role, the addresses under which other servers reach it, and the
password that it binds with. Certificates are another matter (token, enrol). A server that is enrolled with a token
gets its entry by that.`,
		Example: `  shoalctl server add box3 --role box --address "hint box3.example.net:7001" \
      --address "lmtp box3.example.net:24" --address "control box3.example.net:7443" --password-file box3.secret`,
		Args: exactArgs("the name"),
		RunE: func(cmd *cobra.Command, args []string) error {
			n.Name = args[0]
			n.Addresses = map[string][]string{}
			for _, text := range addresses {
				service, address, ok := strings.Cut(text, " ")
				if !ok {
					return usageError{fmt.Errorf("--address %q: want a service and host:port, for example \"lmtp box3.example.net:24\"", text)}
				}
				n.Addresses[service] = append(n.Addresses[service], strings.TrimSpace(address))
			}
			if passwordFile != "" {
				if _, err := os.Stat(passwordFile); err != nil {
					return err
				}
				secret, err := conf.ReadSecret(passwordFile)
				if err != nil {
					return err
				}
				n.Password = string(secret)
			}
			return t.withChange(cmd.Context(), func(a *dirclient.Admin) error {
				if err := a.AddServer(cmd.Context(), n); err != nil {
					return err
				}
				return t.show(serverEntry{Name: n.Name, Role: n.Role, Addresses: n.Addresses}, func() { t.say("server %s added", n.Name) })
			})
		},
	}
	cmd.Flags().StringVar(&n.Role, "role", "", "switch, box, vault, lb, webmail, provision")
	cmd.Flags().StringArrayVar(&addresses, "address", nil, "a service and where it is reached: \"lmtp box3.example.net:24\"")
	cmd.Flags().StringVar(&passwordFile, "password-file", "", "file with the password that the server binds with")
	return cmd
}

func (t *tool) cmdServerList() *cobra.Command {
	var role string
	cmd := &cobra.Command{
		Use:     "list",
		Short:   "List the servers that the directory knows (status asks how they are)",
		Example: "  shoalctl server list",
		Args:    noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return t.withAdmin(cmd.Context(), func(a *dirclient.Admin) error {
				all, err := a.Servers(cmd.Context(), role)
				if err != nil {
					return err
				}
				slices.SortFunc(all, func(x, y dirclient.Server) int { return strings.Compare(x.Name, y.Name) })
				views := []serverEntry{}
				for _, s := range all {
					views = append(views, viewServerEntry(s))
				}
				return t.show(views, func() {
					rows := make([][]string, len(views))
					for i, v := range views {
						rows[i] = []string{v.Name, v.Role, strings.Join(slices.Sorted(maps.Keys(v.Addresses)), " ")}
					}
					t.table([]string{"SERVER", "ROLE", "SERVICES"}, rows)
				})
			})
		},
	}
	cmd.Flags().StringVar(&role, "role", "", "only those of a role")
	return cmd
}

// findServer finds a server's entry by name.
func findServer(cmd *cobra.Command, a *dirclient.Admin, name string) (dirclient.Server, error) {
	all, err := a.Servers(cmd.Context(), "")
	if err != nil {
		return dirclient.Server{}, err
	}
	for _, s := range all {
		if s.Name == name {
			return s, nil
		}
	}
	return dirclient.Server{}, fmt.Errorf("%w: server %s", errNoSuchEntry, name)
}

func (t *tool) cmdServerShow() *cobra.Command {
	return &cobra.Command{
		Use:     "show NAME",
		Short:   "Show a server's entry",
		Example: "  shoalctl server show box2",
		Args:    exactArgs("the name"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return t.withAdmin(cmd.Context(), func(a *dirclient.Admin) error {
				s, err := findServer(cmd, a, args[0])
				if err != nil {
					return err
				}
				v := viewServerEntry(s)
				return t.show(v, func() {
					t.say("server   %s", printable(v.Name))
					t.say("role     %s", printable(v.Role))
					for _, service := range slices.Sorted(maps.Keys(v.Addresses)) {
						t.say("%-8s %s", printable(service), printable(strings.Join(v.Addresses[service], ", ")))
					}
				})
			})
		},
	}
}

func (t *tool) cmdServerDelete() *cobra.Command {
	return &cobra.Command{
		Use:   "delete NAME",
		Short: "Delete a server's entry: it can log in to the directory no more",
		Long: `Delete a server's entry, after the server has been switched off: from then on it can log in to the directory no
more, and the others do not look for it.`,
		Example: "  shoalctl server delete box3",
		Args:    exactArgs("the name"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return t.withChange(cmd.Context(), func(a *dirclient.Admin) error {
				if _, err := findServer(cmd, a, args[0]); err != nil {
					return err
				}
				if err := a.DeleteServer(cmd.Context(), args[0]); err != nil {
					return err
				}
				return t.show(map[string]string{"deleted": args[0]}, func() { t.say("server %s deleted", args[0]) })
			})
		},
	}
}
