package devcluster_test

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"testing"

	"shoal/daemons/internal/boxd"
	"shoal/daemons/internal/conf"
	"shoal/daemons/internal/devcluster"
	"shoal/daemons/internal/shoalctl"
	"shoal/daemons/internal/vaultd"
)

// The configurations that are written are taken by those who read them.
func TestGeneratedConfigurationsAreGood(t *testing.T) {
	l, err := devcluster.NewLayout(filepath.Join(t.TempDir(), `a "strange" ${folder}`), 27000)
	if err != nil {
		t.Fatal(err)
	}
	if err := devcluster.Prepare(l); err != nil {
		t.Fatal(err)
	}
	for name, into := range map[string]any{
		"conf/vault1.hcl": &vaultd.Config{},
		"conf/vault2.hcl": &vaultd.Config{},
		"conf/vault3.hcl": &vaultd.Config{},
		"conf/box1.hcl":   &boxd.Config{},
		"conf/box2.hcl":   &boxd.Config{},
		"shoalctl.hcl":    &shoalctl.Config{},
	} {
		path := filepath.Join(l.Data, name)
		if err := conf.Load(path, into); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: got %v, %v, want mode 0600", name, info, err)
		}
	}
	info, err := l.Info()
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]string{}
	for service, address := range info.Services {
		all[service] = address
	}
	for server, services := range info.Servers {
		for service, address := range services {
			all[server+" "+service] = address
		}
	}
	for what, address := range all {
		if host, port, err := net.SplitHostPort(address); err != nil || host != "127.0.0.1" || port == "" {
			t.Errorf("%s: address %q", what, address)
		}
	}
	if got := fmt.Sprint(all["imap"], " ", all["box2 imap"]); got != "127.0.0.1:27143 127.0.0.1:29143" {
		t.Errorf("IMAP is at %s", got)
	}
}
