package dirclient_test

import (
	"errors"
	"slices"
	"testing"

	"shoal/daemons/internal/dirclient"
)

// Aliases and forwards, written by the tools and read by the daemons, on a real directory.
func TestAliasesWithVault(t *testing.T) {
	v := startVault(t)
	ctx := t.Context()
	a := v.admin(t, v.uris[0])
	must(t, a.CreateTree(ctx))
	must(t, a.AddServer(ctx, dirclient.NewServer{Name: "box1", Role: "box", Password: "box secret"}))
	must(t, a.AddVolume(ctx, dirclient.NewVolume{Name: "vol01", ID: volumeID}))
	_, err := a.AddDomain(ctx, dirclient.NewDomain{Name: "example.test"})
	must(t, err)
	_, err = a.AddAccount(ctx, dirclient.NewAccount{Address: "alice@example.test"})
	must(t, err)
	c := v.client(t, v.uris...)

	_, err = c.Alias(ctx, "team@example.test")
	expect(t, "unknown alias", err, dirclient.ErrNoSuchAlias)
	_, err = a.AddAlias(ctx, dirclient.NewAlias{
		Addresses: []string{"Team@example.test", "crew@example.test"}, Targets: []string{"alice@example.test", "Bob@Far.test", "bob@far.test"},
	})
	must(t, err)
	c.Flush()
	for _, address := range []string{"team@example.test", "CREW@example.test"} {
		got, err := c.Alias(ctx, address)
		must(t, err)
		if !slices.Equal(got.Targets, []string{"alice@example.test", "bob@far.test"}) {
			t.Errorf("%s: %+v", address, got)
		}
	}
	if _, err := c.Account(ctx, "team@example.test"); !errors.Is(err, dirclient.ErrNoSuchAccount) {
		t.Errorf("an alias is taken for an account: %v", err)
	}
	for name, n := range map[string]dirclient.NewAlias{
		"address of an account": {Addresses: []string{"alice@example.test"}, Targets: []string{"bob@far.test"}},
		"address of an alias":   {Addresses: []string{"x@example.test", "crew@example.test"}, Targets: []string{"bob@far.test"}},
	} {
		_, err := a.AddAlias(ctx, n)
		expect(t, name, err, dirclient.ErrExists)
	}
	_, err = a.AddAlias(ctx, dirclient.NewAlias{Addresses: []string{"x@example.test"}})
	expect(t, "no target", err, dirclient.ErrInvalidName)
	_, err = a.AddAlias(ctx, dirclient.NewAlias{Addresses: []string{"x@elsewhere.test"}, Targets: []string{"bob@far.test"}})
	expect(t, "not our domain", err, dirclient.ErrNoSuchDomain)

	must(t, a.SetForward(ctx, "alice@example.test", true, "alice@far.test"))
	c.Flush()
	got, err := c.Account(ctx, "alice@example.test")
	must(t, err)
	if !slices.Equal(got.Forward, []string{"alice@far.test"}) || !got.ForwardKeep {
		t.Errorf("%+v", got)
	}
	must(t, a.SetForward(ctx, "alice@example.test", true))
	must(t, a.DeleteAlias(ctx, "crew@example.test"))
	c.Flush()
	got, err = c.Account(ctx, "alice@example.test")
	must(t, err)
	if len(got.Forward) != 0 || got.ForwardKeep {
		t.Errorf("%+v", got)
	}
	_, err = c.Alias(ctx, "team@example.test")
	expect(t, "deleted alias", err, dirclient.ErrNoSuchAlias)
}
