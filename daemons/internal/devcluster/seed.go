package devcluster

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"shoal/daemons/internal/dirclient"
	"shoal/daemons/internal/pki"
)

// seed writes into the directory what the other servers read there: the servers with their addresses (at each
// start: the ports may have changed) and, once, the volume and the demo domain with its accounts.
func (c *cluster) seed(ctx context.Context) error {
	root, err := c.ensureSecret("root")
	if err != nil {
		return err
	}
	creds, err := pki.Load(pki.Files{Cert: c.cert("operator"), Key: c.key("operator"), CA: c.CAFile()})
	if err != nil {
		return err
	}
	admin, err := dirclient.Connect(ctx, dirclient.AdminOptions{
		URIs:     c.vaultURIs(),
		TLS:      creds.ClientTLS(pki.RoleVault),
		Suffix:   suffix,
		DN:       dirclient.AdminDN(suffix),
		Password: root,
	})
	if err != nil {
		return err
	}
	defer admin.Close()
	if err := admin.CreateTree(ctx); err != nil {
		return err
	}
	for _, s := range fleet {
		password, err := c.ensureSecret(s.name)
		if err != nil {
			return err
		}
		if err := admin.SetServer(ctx, dirclient.NewServer{
			Name: s.name, Role: s.role, Addresses: c.served(s), Password: password,
		}); err != nil {
			return err
		}
	}
	return c.seedOnce(ctx, admin)
}

// served are the addresses of a server under the directory in use: slapd has no management and control of ours.
func (c *cluster) served(s server) map[string][]string {
	all := c.addresses(s)
	if s.role == roleVault && c.slapd != "" {
		delete(all, dirclient.ServiceManagement)
		delete(all, dirclient.ServiceControl)
	}
	return all
}

// addresses of a server by service, as others reach it: hints and control at the server itself, the rest where
// a connection needs no PROXY header.
func (l Layout) addresses(s server) map[string][]string {
	all := map[string][]string{
		dirclient.ServiceManagement: {l.own(s, portManagement)},
		dirclient.ServiceControl:    {l.own(s, portControl)},
	}
	for _, f := range frontends {
		if f.role != s.role {
			continue
		}
		if f.proxy {
			all[f.name] = []string{l.alone(s, f.port)}
		} else {
			all[f.name] = []string{l.own(s, f.port)}
		}
	}
	if s.role == roleBox || s.role == roleSwitch {
		all[dirclient.ServiceHint] = []string{l.own(s, portHint)}
	}
	return all
}

// seedOnce makes the demo content. A note says that it is complete, so that what is deleted later stays deleted.
func (c *cluster) seedOnce(ctx context.Context, admin *dirclient.Admin) error {
	if c.seeded() {
		return nil
	}
	text, err := os.ReadFile(c.path("volumes", volumeName+".id"))
	if err != nil {
		return err
	}
	err = admin.AddVolume(ctx, dirclient.NewVolume{Name: volumeName, ID: strings.TrimSpace(string(text))})
	if err != nil && !errors.Is(err, dirclient.ErrExists) {
		return err
	}
	_, err = admin.AddDomain(ctx, dirclient.NewDomain{Name: demoDomain, DefaultVolume: volumeName})
	if err != nil && !errors.Is(err, dirclient.ErrExists) {
		return err
	}
	users, err := c.ensureUsers()
	if err != nil {
		return err
	}
	for _, u := range users {
		_, err := admin.AddAccount(ctx, dirclient.NewAccount{Address: u.Address, Password: u.Password})
		if err != nil && !errors.Is(err, dirclient.ErrExists) {
			return fmt.Errorf("account %s: %w", u.Address, err)
		}
	}
	return pki.WriteFile(c.seedNote(), nil, 0o600)
}

// seedNote is there once the demo content is complete.
func (c *cluster) seedNote() string { return filepath.Join(c.directoryFolder(master), "seeded") }

func (c *cluster) seeded() bool {
	_, err := os.Stat(c.seedNote())
	return err == nil
}
