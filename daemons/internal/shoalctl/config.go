package shoalctl

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"shoal/daemons/internal/conf"
	"shoal/daemons/internal/devcluster"
	"shoal/daemons/internal/dirclient"
	"shoal/daemons/internal/pki"
)

// Config is the configuration file of shoalctl.
type Config struct {
	// Identity is the operator's certificate, for the control API and the directory.
	Identity conf.Identity `hcl:"identity,block"`
	// Directory is where domains and accounts are written, and as whom.
	Directory conf.Directory `hcl:"directory,block"`
	// Balancer is where HAProxy tells what it finds; only on the balancer's own machine.
	Balancer *Balancer `hcl:"balancer,block"`
	// IMAP is where mail is imported.
	IMAP *IMAP `hcl:"imap,block"`
}

// Balancer names HAProxy's runtime socket.
type Balancer struct {
	// Socket is the path of the socket ("stats socket" in HAProxy's configuration, level operator or admin).
	Socket string `hcl:"socket" conf:"path" example:"/run/haproxy/admin.sock"`
}

// IMAP is the IMAP-over-TLS service as clients reach it.
type IMAP struct {
	// Address is host and port; the host must be a name in its certificate.
	Address string `hcl:"address" conf:"dial" example:"mail.example.com:993"`
	// CAFile verifies its certificate; without it the system's authorities do.
	CAFile string `hcl:"ca_file,optional" conf:"path"`
}

// systemConfig is where the file lies on an operator's own machine.
const systemConfig = "/etc/shoal/shoalctl.hcl"

// dataFolder is the folder of the service on this machine: named, or var where there is one.
func (t *tool) dataFolder() string {
	if t.data != "" {
		return t.data
	}
	if data := os.Getenv("SHOAL_DATA"); data != "" {
		return data
	}
	return "var"
}

// dataFolders is where a running service is looked for, best first.
func (t *tool) dataFolders() []string {
	all := []string{t.dataFolder()}
	if t.data != "" || os.Getenv("SHOAL_DATA") != "" {
		return all
	}
	if program, err := os.Executable(); err == nil {
		all = append(all, filepath.Join(filepath.Dir(filepath.Dir(program)), "var"))
	}
	return all
}

// load finds and reads the configuration.
func (t *tool) load() (*Config, error) {
	var candidates []string
	if t.config != "" {
		candidates = []string{t.config}
	} else {
		for _, data := range t.dataFolders() {
			candidates = append(candidates, devcluster.Layout{Data: data}.ClientFile())
		}
		if t.data == "" && os.Getenv("SHOAL_DATA") == "" {
			candidates = append(candidates, systemConfig)
		}
	}
	for _, path := range candidates {
		if _, err := os.Stat(path); errors.Is(err, os.ErrNotExist) {
			continue
		}
		c := &Config{}
		return c, conf.Load(path, c)
	}
	return nil, fmt.Errorf("%w: no configuration (looked for %s): start a service with make up, or name one with --data <folder> or --config <file>",
		errUnreachable, strings.Join(candidates, ", "))
}

func (c *Config) credentials() (*pki.Credentials, error) {
	return pki.Load(pki.Files{Cert: c.Identity.CertFile, Key: c.Identity.KeyFile, CA: c.Identity.CAFile})
}

// admin connects to the directory.
func (c *Config) admin(ctx context.Context) (*dirclient.Admin, error) {
	creds, err := c.credentials()
	if err != nil {
		return nil, err
	}
	password, err := conf.ReadSecret(c.Directory.PasswordFile)
	if err != nil {
		return nil, err
	}
	return dirclient.Connect(ctx, dirclient.AdminOptions{
		URIs:     c.Directory.URIs,
		TLS:      creds.ClientTLS(pki.RoleVault),
		Suffix:   c.Directory.Suffix,
		DN:       c.Directory.BindDN,
		Password: string(password),
		Timeout:  c.Directory.RequestTimeout,
	})
}

// withAdmin runs f with a connection to the directory.
func (t *tool) withAdmin(ctx context.Context, f func(*dirclient.Admin) error) error {
	c, err := t.load()
	if err != nil {
		return err
	}
	admin, err := c.admin(ctx)
	if err != nil {
		return err
	}
	defer admin.Close()
	return f(admin)
}
