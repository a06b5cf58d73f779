package devcluster

import (
	"fmt"
	"strings"

	"shoal/daemons/internal/dirclient"
	"shoal/daemons/internal/pki"
)

// writeConfigs writes the configuration of each server, of the balancer and of shoalctl.
func (c *cluster) writeConfigs(volumeID string) error {
	if _, err := c.ensureSecret("root"); err != nil {
		return err
	}
	for _, s := range fleet {
		if _, err := c.ensureSecret(s.name); err != nil {
			return err
		}
		var text string
		switch s.role {
		case roleVault:
			if c.slapd != "" {
				if err := c.writeSlapd(s); err != nil {
					return fmt.Errorf("configuration: %w", err)
				}
			}
			text = c.vaultConfig(s)
		case roleBox:
			text = c.boxConfig(s, volumeID)
		case roleSwitch:
			queueID, err := c.ensureQueue()
			if err != nil {
				return err
			}
			text = c.switchConfig(s, queueID)
		}
		if err := pki.WriteFile(c.conf(s.name), []byte(text), 0o600); err != nil {
			return fmt.Errorf("configuration: %w", err)
		}
	}
	if err := pki.WriteFile(c.haproxyConf(), []byte(c.haproxyConfig()), 0o600); err != nil {
		return fmt.Errorf("configuration: %w", err)
	}
	if err := pki.WriteFile(c.ClientFile(), []byte(c.clientConfig()), 0o600); err != nil {
		return fmt.Errorf("configuration: %w", err)
	}
	return nil
}

// maxConnections of each listener, so that all of them fit into the usual limits of open files.
const maxConnections = 2000

const writtenBy = "# Written by shoalctl up at each start: changes are lost.\n"

// identityBlock names a certificate of the internal CA.
func (l Layout) identityBlock(name string) string {
	return fmt.Sprintf(`
identity {
  cert_file = %s
  key_file  = %s
  ca_file   = %s
}
`, quote(l.cert(name)), quote(l.key(name)), quote(l.CAFile()))
}

// commonBlocks are those that every daemon has.
func (l Layout) commonBlocks(s server) string {
	return writtenBy + fmt.Sprintf(`
server {
  name = %s
}
`, quote(s.name)) + l.identityBlock(s.name) + fmt.Sprintf(`
management {
  address = %s
}

control {
  address = %s
}

log {
  format = "text"
}

drain {
  timeout = "10s"
}
`, quote(l.own(s, portManagement)), quote(l.own(s, portControl)))
}

func (l Layout) publicTLSBlock() string {
	return fmt.Sprintf(`
public_tls {
  cert_file      = %s
  key_file       = %s
  client_ca_file = %s
}
`, quote(l.cert(publicName)), quote(l.key(publicName)), quote(l.CAFile()))
}

// directoryBlock names the balancer, which leads to any vault; before it the servers that are to be asked first.
func (l Layout) directoryBlock(bindDN, secret string, first ...string) string {
	var uris []string
	for _, uri := range append(first, "ldap://"+l.front(portLDAP)) {
		uris = append(uris, quote(uri))
	}
	return fmt.Sprintf(`
directory {
  uris          = [%s]
  bind_dn       = %s
  password_file = %s
}
`, strings.Join(uris, ", "), quote(bindDN), quote(l.secret(secret)))
}

// listenerBlocks gives each service of a role, by the names of the frontends.
func (l Layout) listenerBlocks(s server) string {
	var b strings.Builder
	for _, f := range frontends {
		if f.role != s.role {
			continue
		}
		fmt.Fprintf(&b, "\nlistener %s {\n  address = %s\n  max_connections = %d\n", quote(f.name), quote(l.own(s, f.port)), maxConnections)
		if f.track != "" { // the variant over TLS
			b.WriteString("  tls = true\n")
		}
		if f.proxy {
			fmt.Fprintf(&b, "  proxy_from = [%s]\n", quote(host))
		}
		b.WriteString("}\n")
	}
	return b.String()
}

func (l Layout) vaultConfig(s server) string {
	return l.commonBlocks(s) + fmt.Sprintf(`
suffix = %s

root {
  password_file = %s
}

database {
  path = %s
}
`, quote(suffix), quote(l.secret("root")), quote(l.path(s.name))) + l.shadowBlock(s) + l.listenerBlocks(s)
}

// masterURI is the master of the directory itself, past the balancer.
func (l Layout) masterURI() string { return "ldap://" + l.own(master, portLDAP) }

// vaultURIs are all vaults, the first master first: who takes no updates refers to the one that does.
func (l Layout) vaultURIs() []string {
	var uris []string
	for _, s := range of(roleVault) {
		uris = append(uris, "ldap://"+l.own(s, portLDAP))
	}
	return uris
}

func (l Layout) shadowBlock(s server) string {
	provider := "" // the master has none, and follows whoever is promoted
	if s.shadow() {
		provider = "\n  provider      = [" + quote(l.masterURI()) + "]"
	}
	return fmt.Sprintf(`
shadow {%s
  bind_dn       = %s
  password_file = %s
  retry         = "1s"
}
`, provider, quote(dirclient.ServerDN(suffix, s.name)), quote(l.secret(s.name)))
}

func (l Layout) boxConfig(s server, volumeID string) string {
	return l.commonBlocks(s) + l.publicTLSBlock() +
		l.directoryBlock(dirclient.ServerDN(suffix, s.name), s.name) +
		fmt.Sprintf(`
volume %s {
  path = %s
  id   = %s
}

store {
  volume_folder = %s
}

relay {
  addresses = [%s]
}
`, quote(volumeName), quote(l.volume()), quote(volumeID), quote(l.path("volumes")), quote(l.front(portRelay))) + l.listenerBlocks(s) + fmt.Sprintf(`
listener "hint" {
  address = %s
}
`, quote(l.own(s, portHint)))
}

func (l Layout) switchConfig(s server, queueID string) string {
	return l.commonBlocks(s) + l.publicTLSBlock() +
		l.directoryBlock(dirclient.ServerDN(suffix, s.name), s.name) +
		l.listenerBlocks(s) + fmt.Sprintf(`
lmtp {
  addresses = [%s]
}

listener "hint" {
  address = %s
}
`, quote(l.front(portLMTP)), quote(l.own(s, portHint))) + l.queueBlocks(queueID)
}

// clientConfig is shoalctl's: as the directory's administrator and with the operator's certificate. It asks the master
// first, so that a command sees what the one before it has written.
func (l Layout) clientConfig() string {
	return writtenBy + l.identityBlock("operator") +
		l.directoryBlock(dirclient.AdminDN(suffix), "root", l.vaultURIs()...) + fmt.Sprintf(`
balancer {
  socket = %s
}

imap {
  address = %s
  ca_file = %s
}
`, quote(l.haproxySocket()), quote(l.front(portIMAPS)), quote(l.CAFile()))
}
