package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"

	"golang.org/x/sync/errgroup"

	"shoal/images/internal/accept"
	"shoal/images/internal/build"
	"shoal/images/internal/recipe"
)

// cmdCheck builds trees and runs the acceptance checks on them.
func cmdCheck(ctx context.Context, args []string) error {
	var s settings
	flags := flag.NewFlagSet("check", flag.ExitOnError)
	s.flags(flags)
	if err := flags.Parse(args); err != nil {
		return err
	}
	base, some, err := roles(flags.Args())
	if err != nil {
		return err
	}
	b, err := s.builder(ctx)
	if err != nil {
		return err
	}
	if _, _, err := b.Tree(ctx, base, base); err != nil { // once, for all that follow
		return err
	}
	var bad atomic.Int64
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(max(2, runtime.NumCPU()))
	for _, r := range some {
		group.Go(func() error {
			wrong, err := check(ctx, b, base, r)
			if err != nil {
				return fmt.Errorf("role %s: %w", r.Name, err)
			}
			for _, w := range wrong {
				say("%s: NOT ACCEPTED: %s", r.Name, w)
			}
			if bad.Add(int64(len(wrong))); len(wrong) == 0 {
				say("%s: accepted", r.Name)
			}
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		return err
	}
	if n := bad.Load(); n > 0 {
		return fmt.Errorf("%d findings", n)
	}
	return nil
}

func check(ctx context.Context, b *build.Builder, base, r *recipe.Role) ([]string, error) {
	tree, _, err := b.Tree(ctx, base, r)
	if err != nil {
		return nil, err
	}
	wrong, err := accept.Static(ctx, r, tree)
	if err != nil {
		return nil, err
	}
	if r.Name == recipe.Base {
		return wrong, nil
	}
	work, err := os.MkdirTemp(b.Cache, "check-")
	if err != nil {
		return nil, err
	}
	defer func() { _ = os.RemoveAll(work) }()
	seed, err := exampleSeed(ctx, tree, work, r)
	if err != nil {
		return nil, err
	}
	say("%s: starting it in a container", r.Name)
	c, err := accept.Boot(ctx, filepath.Join(b.Repository, "images/contain"), tree, work, map[string]string{"user-data": seed, "meta-data": "instance-id: check\n"})
	if err != nil {
		return nil, err
	}
	more, err := accept.Booted(ctx, c, base, r)
	return append(wrong, more...), errors.Join(err, c.Close())
}

// exampleSeed is the seed.yaml of a role with credentials made for it, by the image's own shoalctl.
func exampleSeed(ctx context.Context, tree, work string, r *recipe.Role) (string, error) {
	text, err := os.ReadFile(filepath.Join(r.Dir, "seed.yaml"))
	if err != nil {
		return "", err
	}
	seed := "#cloud-config\n" + string(text)
	ctl := filepath.Join(tree, "usr/bin/shoalctl")
	if _, err := os.Stat(ctl); err != nil {
		return seed, nil // a role without certificates
	}
	name := r.Name + "1"
	for _, args := range [][]string{
		{"ca", "create", filepath.Join(work, "ca")},
		{"ca", "issue", r.Name, name, "--ca", filepath.Join(work, "ca"), "--out", filepath.Join(work, "id")},
	} {
		if out, err := exec.CommandContext(ctx, ctl, args...).CombinedOutput(); err != nil {
			return "", fmt.Errorf("shoalctl %s: %w: %s", strings.Join(args, " "), err, out)
		}
	}
	seed += "  credentials:\n    directory_password: check\n"
	for key, file := range map[string]string{"ca": "ca.crt", "cert": name + ".crt", "key": name + ".key"} {
		pem, err := os.ReadFile(filepath.Join(work, "id", file))
		if err != nil {
			return "", err
		}
		seed += fmt.Sprintf("    %s: %q\n", key, pem)
	}
	key, err := os.ReadFile(filepath.Join(work, "ca", "ca.key"))
	if err != nil {
		return "", err
	}
	return strings.ReplaceAll(seed, `"@CA_KEY@"`, fmt.Sprintf("%q", key)), nil
}

// cmdLook runs the checks of a tree that does not run.
func cmdLook(ctx context.Context, args []string) error {
	if len(args) != 2 {
		return errors.New("look: name a role and the folder of a tree")
	}
	_, some, err := roles(args[:1])
	if err != nil {
		return err
	}
	wrong, err := accept.Static(ctx, some[0], args[1])
	if err != nil {
		return err
	}
	for _, w := range wrong {
		fmt.Println(w)
	}
	if len(wrong) > 0 {
		return fmt.Errorf("%d findings", len(wrong))
	}
	return nil
}

// cmdRecipes reads the recipes below a folder.
func cmdRecipes(_ context.Context, args []string) error {
	if len(args) != 1 {
		return errors.New("recipes: name a folder")
	}
	all, err := recipe.Roles(args[0])
	for _, r := range all {
		fmt.Printf("%s\t%s\n", r.Name, r.Summary)
	}
	return err
}

// cmdSeed writes a seed for trying an image: its example settings, credentials made for it, a key for SSH.
func cmdSeed(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("seed", flag.ExitOnError)
	login := flags.String("login", "", "`file` of the public key that may log in")
	var s settings
	s.flags(flags)
	if err := flags.Parse(args); err != nil {
		return err
	}
	if flags.NArg() != 2 {
		return errors.New("seed: name a role and the ISO to write")
	}
	base, some, err := roles(flags.Args()[:1])
	if err != nil {
		return err
	}
	b, err := s.builder(ctx)
	if err != nil {
		return err
	}
	tree, _, err := b.Tree(ctx, base, some[0])
	if err != nil {
		return err
	}
	work, err := os.MkdirTemp("", "shoal-seed-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(work) }()
	seed, err := exampleSeed(ctx, tree, work, some[0])
	if err != nil {
		return err
	}
	public, err := os.ReadFile(*login)
	if err != nil {
		return err
	}
	// Whoever tries an image reaches it through a network of the machine that tries it.
	seed = strings.Replace(seed, "peers: [192.0.2.0/24]", "peers: [10.0.0.0/8]", 1)
	seed += fmt.Sprintf("ssh_authorized_keys: [%q]\n", strings.TrimSpace(string(public)))
	iso := filepath.Join(work, "iso")
	if err := os.Mkdir(iso, 0o700); err != nil {
		return err
	}
	for name, text := range map[string]string{"user-data": seed, "meta-data": "instance-id: try\n", "network-config": "version: 2\nethernets: {eth0: {dhcp4: true}}\n"} {
		if err := os.WriteFile(filepath.Join(iso, name), []byte(text), 0o600); err != nil {
			return err
		}
	}
	if out, err := exec.CommandContext(ctx, "genisoimage", "-quiet", "-o", flags.Arg(1), "-V", "cidata", "-J", "-r", iso).CombinedOutput(); err != nil {
		return fmt.Errorf("genisoimage: %w: %s", err, out)
	}
	return nil
}
