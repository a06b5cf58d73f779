package dirclient_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"shoal/daemons/internal/clock"
	"shoal/daemons/internal/conf"
	"shoal/daemons/internal/dirclient"
	"shoal/daemons/internal/kit"
	"shoal/daemons/internal/pki"
	"shoal/daemons/internal/vaultd"
	"shoal/tests/ports"
)

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// vault is a directory server of ours in this process, with its administrator and a box that reads.
type vault struct {
	dir   string
	uris  []string // ldaps and ldap with StartTLS
	creds *pki.Credentials
}

const volumeID = "0d6f3c6e-6d2c-4c0c-9b0e-2f4f6b1f9a51"

func startVault(t *testing.T) *vault {
	t.Helper()
	v := &vault{dir: t.TempDir()}
	path := func(name string) string { return filepath.Join(v.dir, name) }
	ca, err := pki.NewCA(pki.CAOptions{})
	must(t, err)
	must(t, ca.Save(path("ca.crt"), path("ca.key")))
	load := func(role, name string) *pki.Credentials {
		pair, err := ca.Issue(pki.Request{Role: role, Name: name, Hosts: []string{"127.0.0.1"}})
		must(t, err)
		must(t, pair.Save(path(name+".crt"), path(name+".key")))
		c, err := pki.Load(pki.Files{Cert: path(name + ".crt"), Key: path(name + ".key"), CA: path("ca.crt")})
		must(t, err)
		return c
	}
	vaultCreds := load(pki.RoleVault, "vault1")
	v.creds = load(pki.RoleBox, "box1")
	must(t, pki.WriteFile(path("root"), []byte("root secret"), 0o600))
	must(t, pki.WriteFile(path("box1"), []byte("box secret"), 0o600))
	at := ports.Take(t, 2)
	text := fmt.Sprintf(`server { name = "vault1" }
identity {
  cert_file = "vault1.crt"
  key_file  = "vault1.key"
  ca_file   = "ca.crt"
}
root { password_file = "root" }
database { path = "db" }
listener "ldaps" {
  address = "%s"
  tls     = true
}
listener "ldap" { address = "%s" }
`, at[0], at[1])
	v.uris = []string{"ldaps://" + at[0], "ldap://" + at[1]}
	must(t, os.WriteFile(path("vaultd.hcl"), []byte(text), 0o600))
	spec := vaultd.Spec()
	config := spec.NewConfig()
	must(t, conf.Load(path("vaultd.hcl"), config))
	env := &kit.Env{
		Log: slog.New(slog.DiscardHandler), Metrics: prometheus.NewRegistry(), Clock: clock.System(), Server: "vault1", Boot: "1", Creds: vaultCreds,
	}
	ctx, cancel := context.WithCancel(context.Background())
	service, err := spec.Build(ctx, env, config)
	must(t, err)
	done := make(chan error, 1)
	go func() { done <- service.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		must(t, <-done)
		must(t, service.Close())
	})
	return v
}

func (v *vault) admin(t *testing.T, uri string) *dirclient.Admin {
	t.Helper()
	a, err := dirclient.Connect(t.Context(), dirclient.AdminOptions{
		URIs: []string{uri}, TLS: v.creds.ClientTLS(pki.RoleVault), DN: dirclient.AdminDN("o=shoal"), Password: "root secret",
	})
	must(t, err)
	t.Cleanup(func() { must(t, a.Close()) })
	return a
}

func (v *vault) client(t *testing.T, uris ...string) *dirclient.Client {
	t.Helper()
	var d conf.Directory
	conf.SetDefaults(&d)
	d.URIs, d.BindDN, d.PasswordFile = uris, dirclient.ServerDN("o=shoal", "box1"), filepath.Join(v.dir, "box1")
	o, err := dirclient.OptionsOf(d, v.creds)
	must(t, err)
	c, err := dirclient.New(o)
	must(t, err)
	t.Cleanup(func() { must(t, c.Close()) })
	return c
}

func expect(t *testing.T, what string, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("%s: %v, wanted %v", what, err, want)
	}
}

// What the tools write, the daemons read, on a real directory.
func TestWithVault(t *testing.T) {
	v := startVault(t)
	ctx := t.Context()
	a := v.admin(t, v.uris[1])
	must(t, a.CreateTree(ctx))
	must(t, a.AddServer(ctx, dirclient.NewServer{
		Name: "box1", Role: "box", Password: "box secret", Addresses: map[string][]string{dirclient.ServiceHint: {"127.0.0.1:7001"}},
	}))
	c := v.client(t, v.uris...)
	must(t, c.Ping(ctx))

	_, err := a.AddDomain(ctx, dirclient.NewDomain{Name: "Example.TEST"})
	must(t, err)
	_, err = a.AddAccount(ctx, dirclient.NewAccount{Address: "alice@example.test", Password: "wonderland"})
	expect(t, "account without a volume", err, dirclient.ErrInvalidName)
	must(t, a.AddVolume(ctx, dirclient.NewVolume{Name: "vol01", ID: volumeID}))
	made, err := a.AddAccount(ctx, dirclient.NewAccount{
		Address: "Alice@example.test", Aliases: []string{"a.smith@example.test"}, DisplayName: "Alice Smith", Password: "wonderland", QuotaStorage: 1 << 30,
	})
	must(t, err)

	for _, address := range []string{"alice@example.test", "A.Smith@example.test"} {
		got, err := c.Account(ctx, address)
		must(t, err)
		if got.DN != made.DN || got.ID != made.ID || got.Volume != "vol01" || got.DisplayName != "Alice Smith" || got.QuotaStorage != 1<<30 || !got.Active() ||
			got.CredentialVersion != made.CredentialVersion || !slices.Equal(got.Addresses, []string{"alice@example.test", "a.smith@example.test"}) {
			t.Errorf("%s: %+v, made as %+v", address, got, made)
		}
	}
	_, err = c.Account(ctx, "bob@example.test")
	expect(t, "unknown account", err, dirclient.ErrNoSuchAccount)
	d, err := c.Domain(ctx, "example.test")
	must(t, err)
	if d.Status != dirclient.StatusActive {
		t.Errorf("domain %+v", d)
	}
	_, err = c.Domain(ctx, "example.org")
	expect(t, "unknown domain", err, dirclient.ErrNoSuchDomain)
	boxes, err := c.Servers(ctx, "box")
	must(t, err)
	if len(boxes) != 1 || boxes[0].Name != "box1" || !slices.Equal(boxes[0].Addresses[dirclient.ServiceHint], []string{"127.0.0.1:7001"}) {
		t.Errorf("boxes %+v", boxes)
	}
	vols, err := c.Volumes(ctx)
	must(t, err)
	if len(vols) != 1 || vols[0].ID != volumeID || vols[0].State != dirclient.VolumeActive {
		t.Errorf("volumes %+v", vols)
	}

	must(t, c.Bind(ctx, made.DN, "wonderland"))
	expect(t, "wrong password", c.Bind(ctx, made.DN, "wrong password"), dirclient.ErrInvalidCredentials)
	expect(t, "unknown user", c.Bind(ctx, dirclient.AccountDN("o=shoal", "nobody", "example.test"), "wonderland"), dirclient.ErrInvalidCredentials)
	expect(t, "user of no domain", c.Bind(ctx, dirclient.AccountDN("o=shoal", "nobody", "invalid"), "wonderland"), dirclient.ErrInvalidCredentials)

	// A new password moves the credential version.
	must(t, a.SetAccountPassword(ctx, "a.smith@example.test", "looking glass"))
	expect(t, "old password", c.Bind(ctx, made.DN, "wonderland"), dirclient.ErrInvalidCredentials)
	must(t, c.Bind(ctx, made.DN, "looking glass"))
	c.Flush()
	got, err := c.Account(ctx, "alice@example.test")
	must(t, err)
	if got.CredentialVersion <= made.CredentialVersion {
		t.Errorf("credential version %d after %d", got.CredentialVersion, made.CredentialVersion)
	}
	must(t, a.SetAccountStatus(ctx, "alice@example.test", dirclient.StatusSuspended))
	c.Flush()
	if got, err = c.Account(ctx, "alice@example.test"); err != nil || got.Active() {
		t.Errorf("suspended: %+v %v", got, err)
	}

	// SetServer changes what is there, and only that.
	must(t, a.SetServer(ctx, dirclient.NewServer{Name: "box1", Role: "box", Addresses: map[string][]string{dirclient.ServiceHint: {"127.0.0.1:7002"}}}))
	c.Flush()
	boxes, err = c.Servers(ctx, "")
	must(t, err)
	if len(boxes) != 1 || boxes[0].Addresses[dirclient.ServiceHint][0] != "127.0.0.1:7002" {
		t.Errorf("boxes %+v", boxes)
	}
}

func TestAdminRefusals(t *testing.T) {
	v := startVault(t)
	ctx := t.Context()
	a := v.admin(t, v.uris[0])
	must(t, a.CreateTree(ctx)) // vaultd has made it already: that is no error
	must(t, a.AddVolume(ctx, dirclient.NewVolume{Name: "vol01", ID: volumeID}))
	must(t, a.AddVolume(ctx, dirclient.NewVolume{Name: "vol02", ID: "11111111-2222-3333-4444-555555555555"}))
	expect(t, "volume twice", a.AddVolume(ctx, dirclient.NewVolume{Name: "vol01", ID: volumeID}), dirclient.ErrExists)
	_, err := a.AddDomain(ctx, dirclient.NewDomain{Name: "example.test"})
	must(t, err)
	_, err = a.AddDomain(ctx, dirclient.NewDomain{Name: "EXAMPLE.test"})
	expect(t, "domain twice", err, dirclient.ErrExists)
	_, err = a.AddAccount(ctx, dirclient.NewAccount{Address: "alice@example.test"})
	expect(t, "which volume", err, dirclient.ErrInvalidName)
	if !strings.Contains(err.Error(), "vol01, vol02") {
		t.Errorf("the error does not say which volumes there are: %v", err)
	}
	_, err = a.AddAccount(ctx, dirclient.NewAccount{Address: "alice@example.test", Aliases: []string{"al@example.test"}, Volume: "vol01"})
	must(t, err)
	for _, n := range []dirclient.NewAccount{
		{Address: "alice@example.test"}, {Address: "al@example.test"}, {Address: "bob@example.test", Aliases: []string{"AL@example.test"}},
	} {
		n.Volume = "vol01"
		_, err = a.AddAccount(ctx, n)
		expect(t, "address that is taken", err, dirclient.ErrExists)
		if !strings.Contains(err.Error(), "uid=alice") {
			t.Errorf("the error does not say whose it is: %v", err)
		}
	}
	_, err = a.AddAccount(ctx, dirclient.NewAccount{Address: "x@example.org", Volume: "vol01"})
	expect(t, "foreign domain", err, dirclient.ErrNoSuchDomain)
	err = a.DeleteDomain(ctx, "example.test")
	if err == nil || !strings.Contains(err.Error(), "delete them first") {
		t.Errorf("domain with accounts: %v", err)
	}
	expect(t, "password of nobody", a.SetAccountPassword(ctx, "bob@example.test", "12345678"), dirclient.ErrNoSuchAccount)
	expect(t, "status", a.SetAccountStatus(ctx, "alice@example.test", "odd"), dirclient.ErrInvalidName)
	expect(t, "entry that is not there", a.Modify(ctx, "cn=x,o=shoal", dirclient.Change{Op: dirclient.OpReplace, Name: "description", Values: []string{"x"}}), dirclient.ErrNoSuchEntry)
	expect(t, "filter", a.Search(ctx, "o=shoal", dirclient.ScopeSub, "(unbalanced", nil, func(dirclient.Entry) error { return nil }), dirclient.ErrInvalidName)
	expect(t, "odd entry", a.Add(ctx, dirclient.Entry{DN: "cn=x,o=shoal", Attributes: []dirclient.Attribute{{Name: "objectClass", Values: []string{"noSuchClass"}}}}), dirclient.ErrInvalidName)
	gone, err := a.DeleteAccount(ctx, "al@example.test")
	must(t, err)
	if gone.Address != "alice@example.test" {
		t.Errorf("deleted %+v", gone)
	}
	must(t, a.DeleteDomain(ctx, "example.test"))
	expect(t, "domain that is gone", a.DeleteDomain(ctx, "example.test"), dirclient.ErrNoSuchDomain)
	expect(t, "accounts of a domain that is gone", a.Accounts(ctx, "example.test", nil), dirclient.ErrNoSuchDomain)

	// Somebody who is not the administrator may not write.
	must(t, a.AddServer(ctx, dirclient.NewServer{Name: "box1", Role: "box", Password: "box secret"}))
	box, err := dirclient.Connect(ctx, dirclient.AdminOptions{
		URIs: v.uris, TLS: v.creds.ClientTLS(pki.RoleVault), DN: dirclient.ServerDN("o=shoal", "box1"), Password: "box secret",
	})
	must(t, err)
	defer box.Close()
	_, err = box.AddDomain(ctx, dirclient.NewDomain{Name: "evil.test"})
	expect(t, "a box that writes", err, dirclient.ErrDenied)
	_, err = dirclient.Connect(ctx, dirclient.AdminOptions{
		URIs: v.uris, TLS: v.creds.ClientTLS(pki.RoleVault), DN: dirclient.AdminDN("o=shoal"), Password: "wrong",
	})
	expect(t, "administrator's wrong password", err, dirclient.ErrInvalidCredentials)
}

// More accounts than one page.
func TestManyAccounts(t *testing.T) {
	v := startVault(t)
	ctx := t.Context()
	a := v.admin(t, v.uris[0])
	must(t, a.AddVolume(ctx, dirclient.NewVolume{Name: "vol01", ID: volumeID}))
	_, err := a.AddDomain(ctx, dirclient.NewDomain{Name: "example.test", DefaultVolume: "vol01"})
	must(t, err)
	const n = 510
	for i := range n {
		e, err := dirclient.NewAccount{Address: fmt.Sprintf("u%d@example.test", i), Volume: "vol01"}.Entry("o=shoal", time.Unix(1, 0))
		must(t, err)
		must(t, a.Add(ctx, e))
	}
	seen := map[string]bool{}
	must(t, a.Accounts(ctx, "example.test", func(acc *dirclient.Account) error {
		seen[acc.Address] = true
		return nil
	}))
	if len(seen) != n {
		t.Errorf("%d accounts listed", len(seen))
	}
	domains := 0
	must(t, a.Domains(ctx, func(d *dirclient.Domain) error { domains++; return nil }))
	if domains != 1 {
		t.Errorf("%d domains", domains)
	}
	stop := errors.New("enough")
	expect(t, "stopped", a.Accounts(ctx, "", func(*dirclient.Account) error { return stop }), stop)
}

// A change takes effect at once, whatever life the cache gives its answers.
func TestChangesAreHeard(t *testing.T) {
	v := startVault(t)
	a := v.admin(t, v.uris[0])
	must(t, a.CreateTree(t.Context()))
	must(t, a.SetServer(t.Context(), dirclient.NewServer{Name: "box1", Role: "box", Password: "box secret"}))
	must(t, a.AddVolume(t.Context(), dirclient.NewVolume{Name: "vol01", ID: "0b5cf0a4-7d3c-4c61-9a52-4f6f6b0d4c11"}))
	_, err := a.AddDomain(t.Context(), dirclient.NewDomain{Name: "a.test", DefaultVolume: "vol01"})
	must(t, err)
	_, err = a.AddAccount(t.Context(), dirclient.NewAccount{Address: "alice@a.test", Password: "first-password"})
	must(t, err)

	var d conf.Directory
	conf.SetDefaults(&d)
	d.URIs, d.BindDN, d.PasswordFile = v.uris[:1], dirclient.ServerDN("o=shoal", "box1"), filepath.Join(v.dir, "box1")
	d.CacheLife, d.CacheNegativeLife = time.Hour, time.Hour
	o, err := dirclient.OptionsOf(d, v.creds)
	must(t, err)
	c, err := dirclient.New(o)
	must(t, err)
	t.Cleanup(func() { must(t, c.Close()) })
	becomes := func(what string, f func() bool) {
		t.Helper()
		limit, tick := time.After(20*time.Second), time.NewTicker(5*time.Millisecond)
		defer tick.Stop()
		for !f() {
			select {
			case <-tick.C:
			case <-limit:
				t.Fatalf("not heard: %s", what)
			}
		}
	}
	account := func(address string) (*dirclient.Account, error) { return c.Account(t.Context(), address) }

	alice, err := account("alice@a.test")
	must(t, err)
	_, err = account("bob@a.test")
	expect(t, "bob before he is there", err, dirclient.ErrNoSuchAccount)
	_, err = a.AddAccount(t.Context(), dirclient.NewAccount{Address: "bob@a.test", Password: "first-password"})
	must(t, err)
	becomes("an account that was added", func() bool { _, err := account("bob@a.test"); return err == nil })
	must(t, a.Modify(t.Context(), alice.DN, dirclient.Change{Op: dirclient.OpReplace, Name: "shoalAccountStatus", Values: []string{"suspended"}}))
	becomes("an account that was changed", func() bool { got, err := account("alice@a.test"); return err == nil && !got.Active() })
	must(t, a.Delete(t.Context(), alice.DN))
	becomes("an account that was deleted", func() bool { _, err := account("alice@a.test"); return errors.Is(err, dirclient.ErrNoSuchAccount) })
	_, err = c.Domain(t.Context(), "a.test")
	must(t, err)
	must(t, a.Modify(t.Context(), "associatedDomain=a.test,ou=domains,o=shoal", dirclient.Change{Op: dirclient.OpReplace, Name: "shoalDomainStatus", Values: []string{"suspended"}}))
	becomes("a domain that was changed", func() bool { d, err := c.Domain(t.Context(), "a.test"); return err == nil && d.Status == "suspended" })
}
