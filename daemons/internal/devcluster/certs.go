package devcluster

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"shoal/daemons/internal/pki"
)

// renewBefore is how much life a certificate must have left at a start, or a new one is made.
const renewBefore = 30 * 24 * time.Hour

const (
	operatorName = "local"
	publicName   = "public"
)

// localHosts are the names under which clients on this machine reach the service. The machine's own is among them
// because libldap looks for that one where it is told "localhost".
func localHosts() []string {
	hosts := []string{"localhost", "127.0.0.1", "mail." + demoDomain}
	if name, err := os.Hostname(); err == nil && name != "" && strings.Trim(strings.ToLower(name), "abcdefghijklmnopqrstuvwxyz0123456789-.") == "" {
		hosts = append(hosts, name)
	}
	return hosts
}

// ensureCerts makes the CA, and a certificate for each server, for the operator and for the face to
// the public, where they are missing or about to expire.
func (l Layout) ensureCerts() error {
	ca, err := l.ensureCA()
	if err != nil {
		return err
	}
	requests := map[string]pki.Request{
		"operator": {Role: pki.RoleOperator, Name: operatorName},
		publicName: {Hosts: localHosts()},
	}
	for _, s := range fleet {
		requests[s.name] = pki.Request{Role: s.role, Name: s.name, Hosts: localHosts()}
	}
	for name, request := range requests {
		if l.fresh(name) {
			continue
		}
		pair, err := ca.Issue(request)
		if err != nil {
			return fmt.Errorf("certificate of %s: %w", name, err)
		}
		if err := pair.Save(l.cert(name), l.key(name)); err != nil {
			return fmt.Errorf("certificate of %s: %w", name, err)
		}
	}
	return nil
}

func (l Layout) ensureCA() (*pki.CA, error) {
	_, err := os.Stat(l.key("ca"))
	if errors.Is(err, os.ErrNotExist) {
		ca, err := pki.NewCA(pki.CAOptions{Name: "Shoal CA of this machine"})
		if err != nil {
			return nil, err
		}
		return ca, ca.Save(l.CAFile(), l.key("ca"))
	}
	if err != nil {
		return nil, fmt.Errorf("CA: %w", err)
	}
	ca, err := pki.LoadCA(l.CAFile(), l.key("ca"))
	if err != nil {
		return nil, fmt.Errorf("CA: %w", err)
	}
	return ca, nil
}

// fresh says whether a certificate is of our CA and has enough life left.
func (l Layout) fresh(name string) bool {
	later := pki.WithClock(func() time.Time { return time.Now().Add(renewBefore) })
	if name == publicName {
		_, err := pki.OpenPublic(l.cert(name), l.key(name), later)
		return err == nil
	}
	_, err := pki.Load(pki.Files{Cert: l.cert(name), Key: l.key(name), CA: l.CAFile()}, later)
	return err == nil
}
