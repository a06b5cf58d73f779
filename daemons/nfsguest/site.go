package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"

	"shoal/daemons/internal/dirclient"
	"shoal/daemons/internal/pki"
	"shoal/daemons/nfsguest/proto"
)

// site makes, on the rig's side, what a service of boxes needs: `nfsguest certificates <site>` the certificates,
// `nfsguest directory <site>` the content of the directory; <site> is a proto.Site in JSON.
func site(what, text string) error {
	var s proto.Site
	if err := json.Unmarshal([]byte(text), &s); err != nil {
		return fmt.Errorf("site: %w", err)
	}
	switch what {
	case "certificates":
		return certificates(s)
	case "directory":
		return directory(context.Background(), s)
	}
	return fmt.Errorf("unknown command %q", what)
}

func certificates(s proto.Site) error {
	ca, err := pki.NewCA(pki.CAOptions{})
	if err != nil {
		return err
	}
	path := func(name string) string { return filepath.Join(s.Dir, name) }
	if err := ca.Save(path("ca.crt"), path("ca.key")); err != nil {
		return err
	}
	requests := map[string]pki.Request{
		"vault1":   {Role: pki.RoleVault, Name: "vault1", Hosts: []string{s.Vault}},
		"switch1":  {Role: pki.RoleSwitch, Name: "switch1"},
		"operator": {Role: pki.RoleOperator, Name: "tests"},
	}
	var public pki.Request
	for name, addr := range s.Boxes {
		requests[name] = pki.Request{Role: pki.RoleBox, Name: name, Hosts: []string{addr}}
		public.Hosts = append(public.Hosts, addr)
	}
	requests["public"] = public
	for name, r := range requests {
		pair, err := ca.Issue(r)
		if err != nil {
			return err
		}
		if err := pair.Save(path(name+".crt"), path(name+".key")); err != nil {
			return err
		}
	}
	return nil
}

// directory puts the boxes, the volume and an account into the directory.
func directory(ctx context.Context, s proto.Site) error {
	path := func(name string) string { return filepath.Join(s.Dir, name) }
	creds, err := pki.Load(pki.Files{Cert: path("operator.crt"), Key: path("operator.key"), CA: path("ca.crt")})
	if err != nil {
		return err
	}
	secret := func(name string) string {
		b, e := os.ReadFile(path(name))
		if e != nil && err == nil {
			err = e
		}
		return string(b)
	}
	root, box := secret("root"), secret("secret")
	if err != nil {
		return err
	}
	a, err := dirclient.Connect(ctx, dirclient.AdminOptions{
		URIs: []string{"ldaps://" + s.Vault + ":636"}, TLS: creds.ClientTLS(pki.RoleVault), DN: dirclient.AdminDN("o=shoal"), Password: root,
	})
	if err != nil {
		return err
	}
	defer a.Close()
	if err := a.CreateTree(ctx); err != nil {
		return err
	}
	for name, addr := range s.Boxes {
		err := a.SetServer(ctx, dirclient.NewServer{
			Name: name, Role: "box", Password: box, Addresses: map[string][]string{dirclient.ServiceHint: {addr + ":7001"}, dirclient.ServiceControl: {addr + ":7002"}},
		})
		if err != nil {
			return err
		}
	}
	if err := a.AddVolume(ctx, dirclient.NewVolume{Name: volume, ID: proto.VolumeID}); err != nil {
		return err
	}
	if _, err := a.AddDomain(ctx, dirclient.NewDomain{Name: "example.test", DefaultVolume: volume}); err != nil {
		return err
	}
	_, err = a.AddAccount(ctx, dirclient.NewAccount{Address: s.User, Password: s.Password})
	return err
}
