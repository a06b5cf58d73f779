package shoalctl

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"shoal/daemons/internal/conf"
	"shoal/daemons/internal/dirclient"
	"shoal/daemons/internal/enrol"
	"shoal/daemons/internal/pki"
)

// enrolFolder is where a server's credentials lie when nothing else is said.
const enrolFolder = "/var/lib/shoal/identity"

// maxTokenFile bounds a file with a token, in bytes.
const maxTokenFile = 4096

func (t *tool) cmdEnrol() *cobra.Command {
	var r enrol.Request
	var folder, tokenFile string
	cmd := &cobra.Command{
		Use:   "enrol",
		Short: "Make this machine a server of the service, with a one-time token",
		Long: `Make this machine a server of the service: a key is made here, and the authority gives a certificate for it and the
password of the server's directory entry, for a one-time token (shoalctl token create, or Terraform).

Written are, in the folder: ca.crt, server.crt, server.key, directory.secret and enrolment.json. A server that is enrolled already, under
the same name, is left as it is: the command may be run at every start.`,
		Example: "  shoalctl enrol --url https://vault1.example.net:7443 --ca-sha256 4f1c... --name box3 --role box --token-file /run/shoal/token\n" +
			"  shoalctl enrol renew\n  shoalctl enrol announce --address imap=192.0.2.13:143",
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			f := enrol.Folder(folder)
			if err := dirclient.CheckServerName(r.Name); err != nil {
				return usageError{fmt.Errorf("--name: %w", err)}
			}
			if err := enrol.CheckRole(r.Role); err != nil {
				return usageError{fmt.Errorf("--role: %w", err)}
			}
			done, err := f.State()
			switch {
			case err == nil && done.Name == r.Name && done.Role == r.Role:
				return t.showEnrolment(f, done, "is enrolled already")
			case err == nil:
				return fmt.Errorf("this machine is enrolled as %s of role %s: use another folder, or remove %s/enrolment.json if it is to become another server",
					done.Name, done.Role, folder)
			case !errors.Is(err, os.ErrNotExist):
				return err
			}
			if r.Token, err = t.readToken(tokenFile); err != nil {
				return err
			}
			s, err := enrol.Enrol(cmd.Context(), f, r)
			if err != nil {
				return err
			}
			return t.showEnrolment(f, s, "is enrolled")
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&r.URL, "url", "", "the authority: https://host:port")
	flags.StringVar(&r.Name, "name", "", "name of this server")
	flags.StringVar(&r.Role, "role", "", "role of this server")
	flags.StringVar(&tokenFile, "token-file", "-", "file that holds the token; - is standard input")
	flags.StringVar(&r.Fingerprint, "ca-sha256", "", "fingerprint of the CA's certificate (shoalctl ca fingerprint)")
	flags.StringVar(&r.Owner, "owner", "", "uid:gid that key and password belong to")
	cmd.PersistentFlags().StringVar(&folder, "out", enrolFolder, "folder of the credentials")
	cmd.AddCommand(t.cmdEnrolRenew(&folder), t.cmdEnrolAnnounce(&folder), t.cmdEnrolAuthority(&folder))
	return cmd
}

// readToken reads the token from a file: arguments can be seen by everybody on the machine.
func (t *tool) readToken(file string) (string, error) {
	in := t.in
	if file != "-" {
		f, err := os.Open(file)
		if err != nil {
			return "", fmt.Errorf("token: %w", err)
		}
		defer f.Close()
		in = f
	}
	b, err := io.ReadAll(io.LimitReader(in, maxTokenFile))
	if err != nil {
		return "", fmt.Errorf("token: %w", err)
	}
	return strings.TrimSpace(string(b)), nil
}

func (t *tool) showEnrolment(f enrol.Folder, s *enrol.State, what string) error {
	files := f.Files()
	if t.json {
		return t.printJSON(map[string]any{"name": s.Name, "role": s.Role, "certificate": files.Cert, "key": files.Key, "ca": files.CA,
			"password_file": f.Secret(), "bind_dn": s.BindDN, "suffix": s.Suffix, "directory": s.Directory})
	}
	fmt.Fprintf(t.out, "%s %s; its credentials are in %s\n", s.Name, what, string(f))
	return nil
}

func (t *tool) cmdEnrolRenew(folder *string) *cobra.Command {
	var force bool
	cmd := &cobra.Command{
		Use:     "renew",
		Short:   "Renew this server's certificate when less than a third of its life is left",
		Long:    "Renew this server's certificate, for a new key, when less than a third of its life is left. The running daemons take it up by themselves.\nRun it daily.",
		Example: "  shoalctl enrol renew",
		Args:    noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			did, s, err := enrol.Renew(cmd.Context(), enrol.Folder(*folder), time.Now(), force)
			if err != nil {
				return err
			}
			if t.json {
				return t.printJSON(map[string]any{"name": s.Name, "renewed": did})
			}
			if did {
				fmt.Fprintf(t.out, "%s has a new certificate\n", s.Name)
			} else {
				fmt.Fprintf(t.out, "the certificate of %s is good for long enough\n", s.Name)
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&force, "force", false, "renew now")
	return cmd
}

func (t *tool) cmdEnrolAnnounce(folder *string) *cobra.Command {
	var addresses []string
	var uris []string
	cmd := &cobra.Command{
		Use:     "announce",
		Short:   "Write this server's version, and where it serves, into its own directory entry",
		Example: "  shoalctl enrol announce --address imap=192.0.2.13:143 --address lmtp=192.0.2.13:24",
		Args:    noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			f := enrol.Folder(*folder)
			s, err := f.State()
			if err != nil {
				return fmt.Errorf("this server is not enrolled: %w", err)
			}
			var known map[string][]string
			for _, a := range addresses {
				service, address, ok := strings.Cut(a, "=")
				if !ok {
					return usageError{fmt.Errorf("--address %q: write service=host:port", a)}
				}
				if known == nil {
					known = map[string][]string{}
				}
				known[service] = append(known[service], address)
			}
			if len(uris) == 0 {
				uris = s.Directory
			}
			err = withServer(cmd.Context(), f, s, uris, func(a *dirclient.Admin) error {
				return a.SetRuntime(cmd.Context(), s.Name, t.version, known)
			})
			if err != nil {
				return err
			}
			if t.json {
				return t.printJSON(map[string]any{"name": s.Name, "version": t.version, "addresses": known})
			}
			fmt.Fprintf(t.out, "%s announced version %s\n", s.Name, t.version)
			return nil
		},
	}
	cmd.Flags().StringArrayVar(&addresses, "address", nil, "service=host:port that this server serves; without any the addresses stay")
	cmd.Flags().StringArrayVar(&uris, "directory", nil, "URI of a directory server (default: those that enrolling told)")
	return cmd
}

// withServer runs f with a connection to the directory as this server.
func withServer(ctx context.Context, f enrol.Folder, s *enrol.State, uris []string, do func(*dirclient.Admin) error) error {
	creds, err := pki.Load(f.Files())
	if err != nil {
		return err
	}
	password, err := f.Password()
	if err != nil {
		return err
	}
	a, err := dirclient.Connect(ctx, dirclient.AdminOptions{
		URIs: uris, TLS: creds.ClientTLS(pki.RoleVault), Suffix: s.Suffix, DN: s.BindDN, Password: password,
	})
	if err != nil {
		return err
	}
	defer a.Close()
	return do(a)
}

func (t *tool) cmdEnrolAuthority(folder *string) *cobra.Command {
	var ca, name, owner string
	var hosts []string
	cmd := &cobra.Command{
		Use:   "authority",
		Short: "Prepare the authority for enrolment on the directory machine",
		Long: `Prepare the authority for enrolment, on the machine that has the CA's key: its certificate of role enrol, its directory entry,
and the password of that. Then start shoal-agent with a block enrolment. Run it with a configuration that may write to the directory.`,
		Example: "  shoalctl --config /etc/shoal/shoalctl.hcl enrol authority --ca /etc/shoal/ca --out /etc/shoal/enrol",
		Args:    noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			f := enrol.Folder(*folder)
			authority, err := pki.LoadCA(filepath.Join(ca, "ca.crt"), filepath.Join(ca, "ca.key"))
			if err != nil {
				return err
			}
			pair, err := authority.Issue(pki.Request{Role: pki.RoleEnrol, Name: name, Hosts: hosts})
			if err != nil {
				return err
			}
			if err := os.MkdirAll(*folder, 0o750); err != nil {
				return err
			}
			files := f.Files()
			if err := pair.Save(files.Cert, files.Key); err != nil {
				return err
			}
			if err := pki.WriteFile(files.CA, authority.CertPEM(), 0o644); err != nil {
				return err
			}
			if _, err := conf.ReadSecret(f.Secret()); err != nil {
				if err := pki.WriteFile(f.Secret(), []byte(rand.Text()+rand.Text()+"\n"), 0o600); err != nil {
					return err
				}
			}
			if owner != "" {
				var uid, gid int
				if _, err := fmt.Sscanf(owner, "%d:%d", &uid, &gid); err != nil {
					return usageError{fmt.Errorf("--owner %q: write uid:gid in numbers", owner)}
				}
				for _, file := range []string{files.Key, f.Secret()} {
					if err := os.Lchown(file, uid, gid); err != nil {
						return err
					}
				}
			}
			password, err := f.Password()
			if err != nil {
				return err
			}
			err = t.withAdmin(cmd.Context(), func(a *dirclient.Admin) error {
				return a.SetServer(cmd.Context(), dirclient.NewServer{Name: name, Role: pki.RoleEnrol, Password: password})
			})
			if err != nil {
				return err
			}
			if t.json {
				return t.printJSON(map[string]string{"name": name, "certificate": files.Cert, "key": files.Key, "password_file": f.Secret()})
			}
			fmt.Fprintf(t.out, "the authority %s has its credentials in %s\n", name, *folder)
			return nil
		},
	}
	cmd.Flags().StringVar(&ca, "ca", "ca", "folder of the CA: ca.crt and ca.key")
	cmd.Flags().StringVar(&name, "name", "enrol", "name of the authority's certificate and entry")
	cmd.Flags().StringSliceVar(&hosts, "host", nil, "DNS name or address of the authority")
	cmd.Flags().StringVar(&owner, "owner", "", "uid:gid that key and password belong to")
	return cmd
}
