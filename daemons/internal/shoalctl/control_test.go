package shoalctl

import (
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"

	"shoal/daemons/internal/dirclient"
	"shoal/daemons/internal/pki"
	"shoal/tests/ports"
)

// site is an installation as far as shoalctl sees it: a CA, an operator's configuration, and servers that answer
// their control API over mutual TLS.
type site struct {
	t       *testing.T
	dir     string
	ca      *pki.CA
	config  string
	servers []dirclient.Server
}

func newSite(t *testing.T) *site {
	t.Helper()
	s := &site{t: t, dir: t.TempDir()}
	var err error
	if s.ca, err = pki.NewCA(pki.CAOptions{}); err != nil {
		t.Fatal(err)
	}
	writeFile(t, s.path("ca.crt"), string(s.ca.CertPEM()))
	s.issue("operator", pki.Request{Role: pki.RoleOperator, Name: "op"})
	writeFile(t, s.path("secret"), "secret\n")
	s.config = s.path("shoalctl.hcl")
	s.configure("")
	return s
}

// configure writes the configuration, with more blocks than the two that must be there.
func (s *site) configure(more string) {
	writeFile(s.t, s.config, fmt.Sprintf(`
identity {
  cert_file = %q
  key_file  = %q
  ca_file   = %q
}
directory {
  uris          = ["ldaps://127.0.0.1:1"]
  bind_dn       = "cn=admin,o=shoal"
  password_file = %q
}
`, s.path("operator.crt"), s.path("operator.key"), s.path("ca.crt"), s.path("secret"))+more)
}

func (s *site) path(name string) string { return filepath.Join(s.dir, name) }

func (s *site) issue(file string, r pki.Request) pki.Files {
	s.t.Helper()
	pair, err := s.ca.Issue(r)
	if err != nil {
		s.t.Fatal(err)
	}
	if err := pair.Save(s.path(file+".crt"), s.path(file+".key")); err != nil {
		s.t.Fatal(err)
	}
	return pki.Files{Cert: s.path(file + ".crt"), Key: s.path(file + ".key"), CA: s.path("ca.crt")}
}

// server starts a control API that lets operators in only, as kit's does.
func (s *site) server(role, name string, handler http.Handler) {
	s.t.Helper()
	creds, err := pki.Load(s.issue(name, pki.Request{Role: role, Name: name, Hosts: []string{"127.0.0.1"}}))
	if err != nil {
		s.t.Fatal(err)
	}
	api := httptest.NewUnstartedServer(handler)
	api.Listener = tls.NewListener(api.Listener, creds.ServerTLS(pki.RoleOperator))
	api.Config.ErrorLog = log.New(io.Discard, "", 0)
	api.Start()
	s.t.Cleanup(api.Close)
	s.list(role, name, api.Listener.Addr().String())
}

// list has the directory name a server.
func (s *site) list(role, name, address string) {
	s.servers = append(s.servers, dirclient.Server{Name: name, Role: role,
		Addresses: map[string][]string{dirclient.ServiceControl: {address}}})
}

// nobody is an address at which nobody answers.
func nobody(t *testing.T) string {
	t.Helper()
	return ports.One(t)
}

// run runs a command line at this site.
func (s *site) run(stdin string, args ...string) (code int, out, errOut string) {
	s.t.Helper()
	var stdout, stderr bytes.Buffer
	tl := &tool{in: strings.NewReader(stdin), out: &stdout, err: &stderr, version: "1.2.3",
		servers: func(context.Context, *Config) ([]dirclient.Server, error) { return s.servers, nil }}
	code = tl.main(append([]string{"--config", s.config}, args...))
	return code, stdout.String(), stderr.String()
}

func TestOnlyOperatorsAreAnswered(t *testing.T) {
	s := newSite(t)
	s.server(pki.RoleSwitch, "switch1", http.NotFoundHandler())
	// the certificate of a box instead of the operator's
	s.issue("operator", pki.Request{Role: pki.RoleBox, Name: "box1"})
	code, _, errOut := s.run("", "queue", "list")
	if code != exitUnreachable || !strings.Contains(errOut, "switch1") {
		t.Errorf("a box was let in, or it is not said: exit code %d, %s", code, errOut)
	}
	// a server of another CA
	s = newSite(t)
	other := newSite(t)
	other.server(pki.RoleSwitch, "switch1", http.NotFoundHandler())
	s.servers = other.servers
	if code, _, errOut := s.run("", "queue", "list"); code != exitUnreachable || !strings.Contains(errOut, "switch1") {
		t.Errorf("a server of another CA was believed: exit code %d, %s", code, errOut)
	}
}
