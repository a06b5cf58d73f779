package switchd

import (
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"shoal/daemons/internal/boxd"
	"shoal/daemons/internal/clock"
	"shoal/daemons/internal/conf"
	"shoal/daemons/internal/dirclient"
	"shoal/daemons/internal/kit"
	"shoal/daemons/internal/mailstore"
	"shoal/daemons/internal/pki"
	"shoal/daemons/internal/vaultd"
	"shoal/daemons/internal/vfs"
	"shoal/tests/dialogue"
	"shoal/tests/ports"
)

const volumeID = "0d6f3c6e-6d2c-4c0c-9b0e-2f4f6b1f9a51"

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// site is a whole small service in this process: the real directory, boxes on one volume, a switch.
type site struct {
	t     testing.TB
	dir   string
	ca    *pki.CA
	ports map[string]string // by what listens there
	log   *output
}

// output is a log that tests read.
type output struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.String()
}

func newSite(t testing.TB) *site {
	t.Helper()
	ca, err := pki.NewCA(pki.CAOptions{})
	must(t, err)
	s := &site{t: t, dir: t.TempDir(), ca: ca, ports: map[string]string{}, log: &output{}}
	must(t, ca.Save(s.path("ca.crt"), s.path("ca.key")))
	for _, name := range []string{"ldap", "smtp", "submission", "submissions", "lmtp1", "lmtp2", "hint1", "hint2", "nobody"} {
		s.ports[name] = ports.One(t)
	}
	s.issue("public", pki.Request{Hosts: []string{"localhost", "127.0.0.1"}})
	must(t, pki.WriteFile(s.path("root.secret"), []byte("root secret"), 0o600))
	must(t, pki.WriteFile(s.path("secret"), []byte("service secret"), 0o600))
	must(t, os.Mkdir(s.path("vol01"), 0o700))
	must(t, mailstore.InitVolume(vfs.OS(), s.path("vol01"), volumeID))
	return s
}

func (s *site) path(name string) string { return filepath.Join(s.dir, name) }

func (s *site) issue(file string, r pki.Request) {
	s.t.Helper()
	pair, err := s.ca.Issue(r)
	must(s.t, err)
	must(s.t, pair.Save(s.path(file+".crt"), s.path(file+".key")))
}

func (s *site) credentials(role, name string) *pki.Credentials {
	s.t.Helper()
	s.issue(name, pki.Request{Role: role, Name: name, Hosts: []string{"127.0.0.1"}})
	c, err := pki.Load(pki.Files{Cert: s.path(name + ".crt"), Key: s.path(name + ".key"), CA: s.path("ca.crt")})
	must(s.t, err)
	return c
}

// head is what every configuration begins with.
func (s *site) head(role, name string) string {
	text := fmt.Sprintf("server { name = %q }\nidentity {\n  cert_file = \"%s.crt\"\n  key_file  = \"%s.key\"\n  ca_file   = \"ca.crt\"\n}\n", name, name, name)
	if role != pki.RoleVault {
		text += fmt.Sprintf("public_tls {\n  cert_file = \"public.crt\"\n  key_file  = \"public.key\"\n}\n"+
			"directory {\n  uris          = [\"ldap://%s\"]\n  bind_dn       = \"cn=%s,ou=servers,ou=config,o=shoal\"\n  password_file = \"secret\"\n  cache_life    = \"1ms\"\n  cache_stale_life = \"1ms\"\n}\n",
			s.ports["ldap"], name)
	}
	return text
}

// running is a role that was started.
type running struct {
	kit.Service
	control *http.ServeMux // its commands, for operators
	stop    func()
}

// start builds a role in this process and runs it.
func (s *site) start(spec kit.Spec, role, name, text string) *running {
	s.t.Helper()
	creds := s.credentials(role, name)
	file := s.path(name + ".hcl")
	must(s.t, os.WriteFile(file, []byte(s.head(role, name)+text), 0o600))
	config := spec.NewConfig()
	must(s.t, conf.Load(file, config))
	env := &kit.Env{Log: slog.New(slog.NewTextHandler(s.log, nil)), Metrics: prometheus.NewRegistry(), Clock: clock.System(),
		Server: name, Boot: "1", Creds: creds, Control: http.NewServeMux()}
	ctx, cancel := context.WithCancel(context.Background())
	service, err := spec.Build(ctx, env, config)
	must(s.t, err)
	done := make(chan error, 1)
	go func() { done <- service.Run(ctx) }()
	r := &running{service, env.Control, sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			s.t.Errorf("%s: %v", name, err)
		}
		if err := service.Close(); err != nil {
			s.t.Errorf("close %s: %v", name, err)
		}
	})}
	s.t.Cleanup(r.stop)
	return r
}

func (s *site) startVault() *running {
	s.t.Helper()
	return s.start(vaultd.Spec(), pki.RoleVault, "vault1", fmt.Sprintf("root { password_file = \"root.secret\" }\ndatabase { path = \"db\" }\nlistener \"ldap\" { address = %q }\n", s.ports["ldap"]))
}

// startBox starts box1 or box2.
func (s *site) startBox(n string) *running {
	s.t.Helper()
	return s.start(boxd.Spec(), pki.RoleBox, "box"+n, fmt.Sprintf("volume \"vol01\" {\n  path = \"vol01\"\n  id   = %q\n}\nlistener \"lmtp\" { address = %q }\nlistener \"hint\" { address = %q }\n",
		volumeID, s.ports["lmtp"+n], s.ports["hint"+n]))
}

func (s *site) startSwitch(more string) *running {
	s.t.Helper()
	return s.start(Spec(), pki.RoleSwitch, "switch1", fmt.Sprintf("listener \"smtp\" { address = %q }\nlistener \"submission\" { address = %q }\nlistener \"submissions\" {\n  address = %q\n  tls     = true\n}\n",
		s.ports["smtp"], s.ports["submission"], s.ports["submissions"])+more)
}

// fill writes the directory's content.
func (s *site) fill() *dirclient.Admin {
	s.t.Helper()
	ctx := context.Background()
	a, err := dirclient.Connect(ctx, dirclient.AdminOptions{URIs: []string{"ldap://" + s.ports["ldap"]},
		TLS: s.credentials(pki.RoleOperator, "operator").ClientTLS(pki.RoleVault), DN: dirclient.AdminDN("o=shoal"), Password: "root secret"})
	must(s.t, err)
	s.t.Cleanup(func() { _ = a.Close() })
	must(s.t, a.CreateTree(ctx))
	for _, n := range []string{"1", "2"} {
		must(s.t, a.AddServer(ctx, dirclient.NewServer{Name: "box" + n, Role: pki.RoleBox, Password: "service secret",
			Addresses: map[string][]string{dirclient.ServiceLMTP: {s.ports["lmtp"+n]}, dirclient.ServiceHint: {s.ports["hint"+n]}}}))
	}
	must(s.t, a.AddServer(ctx, dirclient.NewServer{Name: "switch1", Role: pki.RoleSwitch, Password: "service secret"}))
	must(s.t, a.AddVolume(ctx, dirclient.NewVolume{Name: "vol01", ID: volumeID}))
	_, err = a.AddDomain(ctx, dirclient.NewDomain{Name: "example.test"})
	must(s.t, err)
	for _, name := range []string{"alice", "bob"} {
		_, err = a.AddAccount(ctx, dirclient.NewAccount{Address: name + "@example.test", Aliases: []string{name + ".alias@example.test"}, Password: "password of " + name})
		must(s.t, err)
	}
	return a
}

// inbox gives the messages that an account has, read past all servers from the volume.
func (s *site) inbox(a *dirclient.Admin, address string) (texts []string) {
	s.t.Helper()
	ctx := context.Background()
	account, err := a.Account(ctx, address)
	must(s.t, err)
	st, err := mailstore.New(mailstore.Options{Server: "reader", FS: vfs.OS(), Clock: clock.System(), Log: slog.New(slog.DiscardHandler)})
	must(s.t, err)
	defer st.Close()
	must(s.t, st.AddVolume("vol01", s.path("vol01"), volumeID))
	acc, err := st.Account(ctx, "vol01", account.ID)
	must(s.t, err)
	m, err := acc.Open(ctx, "INBOX")
	must(s.t, err)
	state, err := m.State(ctx)
	must(s.t, err)
	for _, msg := range state.All() {
		f, err := m.OpenMessage(ctx, msg.UID)
		must(s.t, err)
		b, err := io.ReadAll(io.NewSectionReader(f, 0, f.Size()))
		must(s.t, err)
		must(s.t, f.Close())
		texts = append(texts, string(b))
	}
	return texts
}

func (s *site) play(script string) {
	s.t.Helper()
	if err := s.try(script); err != nil {
		s.t.Fatal(err)
	}
}

// until calls f until it returns nil.
func until(t testing.TB, f func() error) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(30 * time.Second)
	for {
		err := f()
		if err == nil {
			return
		}
		select {
		case <-deadline:
			t.Fatal(err)
		case <-tick.C:
		}
	}
}

// try plays a script and says where it failed.
func (s *site) try(script string) error {
	plain := func(name string) dialogue.Dial {
		return func() (net.Conn, error) { return net.Dial("tcp", s.ports[name]) }
	}
	return dialogue.Play(script, map[string]dialogue.Dial{"smtp": plain("smtp"), "submission": plain("submission"),
		"submissions": func() (net.Conn, error) {
			return tls.Dial("tcp", s.ports["submissions"], &tls.Config{InsecureSkipVerify: true})
		}})
}

func contains(t testing.TB, text string, words ...string) {
	t.Helper()
	for _, w := range words {
		if !strings.Contains(text, w) {
			t.Errorf("%q is not in %q", w, text)
		}
	}
}
