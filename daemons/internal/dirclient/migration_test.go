package dirclient_test

import (
	"testing"

	"shoal/daemons/internal/dirclient"
	"shoal/daemons/internal/pki"
)

// What a box may write for a migration, and that it may no more.
func TestMigration(t *testing.T) {
	v := startVault(t)
	ctx := t.Context()
	root := v.admin(t, v.uris[0])
	must(t, root.CreateTree(ctx))
	must(t, root.AddServer(ctx, dirclient.NewServer{Name: "box1", Role: "box", Password: "box secret"}))
	must(t, root.AddServer(ctx, dirclient.NewServer{Name: "web1", Role: "webmail", Password: "web secret"}))
	must(t, root.AddServer(ctx, dirclient.NewServer{Name: "sw1", Role: "switch", Password: "switch secret"}))
	must(t, root.AddVolume(ctx, dirclient.NewVolume{Name: "vol01", ID: volumeID}))
	for _, name := range []string{"old.test", "own.test"} {
		_, err := root.AddDomain(ctx, dirclient.NewDomain{Name: name})
		must(t, err)
	}
	pending := []string{dirclient.MigratePassword, dirclient.MigrateMail}
	_, err := root.AddAccount(ctx, dirclient.NewAccount{Address: "ann@old.test", Migrating: pending})
	must(t, err)
	_, err = root.AddAccount(ctx, dirclient.NewAccount{Address: "bob@old.test", Password: "bobs own password"})
	must(t, err)
	expect(t, "a server without a port", root.SetMigration(ctx, "old.test", &dirclient.Migration{Server: "imap.far.test", TLS: "implicit", Login: "address", State: "active"}), dirclient.ErrInvalidName)
	want := dirclient.Migration{Server: "imap.far.test:993", TLS: "implicit", User: "master", Secret: "s3cret", Login: "local", State: "active"}
	must(t, root.SetMigration(ctx, "old.test", &want))

	c := v.client(t, v.uris[0])
	list, err := c.Migrations(ctx)
	must(t, err)
	if len(list) != 1 || list[0].Name != "old.test" || *list[0].Migration != want {
		t.Fatalf("%+v", list)
	}
	as := func(name, secret string) *dirclient.Admin {
		a, err := dirclient.Connect(ctx, dirclient.AdminOptions{URIs: v.uris[:1], TLS: v.creds.ClientTLS(pki.RoleVault), DN: dirclient.ServerDN("o=shoal", name), Password: secret})
		must(t, err)
		t.Cleanup(func() { must(t, a.Close()) })
		return a
	}
	box, web := as("box1", "box secret"), as("web1", "web secret")
	// The master user's password is told to boxes only, and kept by a change that does not name it.
	told := func(a *dirclient.Admin) (m dirclient.Migration) {
		d, err := a.Domain(ctx, "old.test")
		must(t, err)
		return *d.Migration
	}
	untold := want
	untold.Secret = ""
	for name, a := range map[string]*dirclient.Admin{"webmail": web, "switch": as("sw1", "switch secret")} {
		if got := told(a); got != untold {
			t.Errorf("%s is told %+v", name, got)
		}
		n := 0
		must(t, a.Search(ctx, "o=shoal", dirclient.ScopeSub, "(|(shoalMigrationSecret=*)(shoalMigrationSecret=s3cret))", []string{"*", "+", "shoalMigrationSecret"},
			func(dirclient.Entry) error { n++; return nil }))
		if n != 0 {
			t.Errorf("%s finds the password by a filter", name)
		}
	}
	must(t, root.SetMigration(ctx, "old.test", &untold))
	if got := told(box); got != want {
		t.Errorf("a box is told %+v", got)
	}
	ann, bob := dirclient.AccountDN("o=shoal", "ann", "old.test"), dirclient.AccountDN("o=shoal", "bob", "old.test")
	expect(t, "no password yet", c.Bind(ctx, ann, "old password"), dirclient.ErrInvalidCredentials)
	expect(t, "a webmail server", web.TakePassword(ctx, ann, "old password"), dirclient.ErrDenied)
	expect(t, "an account with a password", box.TakePassword(ctx, bob, "another password"), dirclient.ErrExists)
	expect(t, "only the password", box.SetPassword(ctx, ann, "another password"), dirclient.ErrDenied)
	expect(t, "something else beside", box.Modify(ctx, ann, dirclient.Change{Op: dirclient.OpDelete, Name: "shoalMigrating", Values: []string{"password"}},
		dirclient.Change{Op: dirclient.OpReplace, Name: "shoalAccountStatus", Values: []string{"closed"}}), dirclient.ErrDenied)
	expect(t, "for the other value", box.Modify(ctx, ann, dirclient.Change{Op: dirclient.OpDelete, Name: "shoalMigrating", Values: []string{"mail"}},
		dirclient.Change{Op: dirclient.OpReplace, Name: "userPassword", Values: []string{"another password"}}), dirclient.ErrDenied)
	expect(t, "a hash", box.TakePassword(ctx, ann, "{ARGON2}x"), dirclient.ErrInvalidName)
	must(t, box.TakePassword(ctx, ann, "old password"))
	must(t, c.Bind(ctx, ann, "old password"))
	must(t, c.Bind(ctx, bob, "bobs own password"))
	expect(t, "twice", box.TakePassword(ctx, ann, "another password"), dirclient.ErrExists)

	count := func(what string) (n int) {
		must(t, box.MigratingAccounts(ctx, "old.test", what, func(*dirclient.Account) error { n++; return nil }))
		return n
	}
	if count(dirclient.MigratePassword) != 0 || count(dirclient.MigrateMail) != 1 {
		t.Errorf("%d passwords and %d mailboxes to come", count(dirclient.MigratePassword), count(dirclient.MigrateMail))
	}
	must(t, box.MailCopied(ctx, ann))
	must(t, box.MailCopied(ctx, ann))
	if count(dirclient.MigrateMail) != 0 {
		t.Error("mail is still to come")
	}

	// Accounts are made by boxes where the domain says so.
	carol := dirclient.NewAccount{Address: "carol@old.test", Migrating: pending}
	_, err = box.AddAccount(ctx, carol)
	expect(t, "a domain that makes none", err, dirclient.ErrDenied)
	want.Create = true
	must(t, root.SetMigration(ctx, "old.test", &want))
	_, err = box.AddAccount(ctx, dirclient.NewAccount{Address: "carol@own.test", Migrating: pending})
	expect(t, "another domain", err, dirclient.ErrDenied)
	_, err = box.AddAccount(ctx, dirclient.NewAccount{Address: "carol@old.test", Password: "chosen by the box", Migrating: pending})
	expect(t, "with a password", err, dirclient.ErrDenied)
	_, err = box.AddAccount(ctx, carol)
	must(t, err)

	// A password that the operator sets ends the wait for the old one.
	must(t, root.SetAccountPassword(ctx, "carol@old.test", "by the operator"))
	a, err := root.Account(ctx, "carol@old.test")
	must(t, err)
	if a.Migrates(dirclient.MigratePassword) || !a.Migrates(dirclient.MigrateMail) {
		t.Errorf("%q", a.Migrating)
	}
	must(t, root.SetMigration(ctx, "old.test", nil))
	if d, err := root.Domain(ctx, "old.test"); err != nil || d.Migration != nil {
		t.Errorf("%+v %v", d, err)
	}
}
