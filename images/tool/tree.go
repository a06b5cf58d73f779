package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"shoal/images/internal/build"
	"shoal/images/internal/debs"
	"shoal/images/internal/recipe"
)

// settings are the flags that all commands about images share.
type settings struct {
	cache, debs, signers, key string
}

func (s *settings) flags(f *flag.FlagSet) {
	f.StringVar(&s.cache, "cache", "var/images", "keep trees and downloads in this `folder`")
	f.StringVar(&s.debs, "debs", "", "take the packages from this `folder` (default: build them into the cache)")
	f.StringVar(&s.signers, "signers", "", "`file` of the public keys that releases are signed with, put into the images (default: that of -key)")
	f.StringVar(&s.key, "key", "var/keys/release", "the `key` of OpenSSH (ed25519) that releases are signed with; made if it is missing")
}

// builder prepares the building of images.
func (s *settings) builder(ctx context.Context) (*build.Builder, error) {
	root, err := os.Getwd()
	if err != nil {
		return nil, err
	}
	source, err := debs.Open(root)
	if err != nil {
		return nil, err
	}
	if s.cache, err = filepath.Abs(s.cache); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(s.cache, 0o755); err != nil {
		return nil, err
	}
	// A module of its own: `go build ./...` looks for packages in every folder, and a tree has thousands.
	if err := os.WriteFile(filepath.Join(s.cache, "go.mod"), []byte("module trees\n"), 0o644); err != nil {
		return nil, err
	}
	if s.signers == "" {
		if s.signers, err = build.Signers(ctx, s.key); err != nil {
			return nil, err
		}
	}
	var files []string
	if s.debs == "" {
		files, err = buildDebs(ctx, filepath.Join(s.cache, "deb"))
	} else {
		files, err = filepath.Glob(filepath.Join(s.debs, "*.deb"))
	}
	if err != nil {
		return nil, err
	}
	if len(files) == 0 {
		return nil, fmt.Errorf("%s: there are no packages: run make deb", s.debs)
	}
	return &build.Builder{Repository: root, Cache: s.cache, Debs: files, Signers: s.signers, Epoch: source.Time, Say: say}, nil
}

// roles reads the recipes: the base, and those that are named, or all.
func roles(names []string) (base *recipe.Role, some []*recipe.Role, err error) {
	all, err := recipe.Roles("images")
	if err != nil {
		return nil, nil, err
	}
	base = all[0]
	if len(names) == 0 {
		return base, all[1:], nil
	}
	for _, name := range names {
		i := slices.IndexFunc(all, func(r *recipe.Role) bool { return r.Name == name })
		if i < 0 {
			var known []string
			for _, r := range all {
				known = append(known, r.Name)
			}
			return nil, nil, fmt.Errorf("there is no role %q: there are %s", name, strings.Join(known, ", "))
		}
		some = append(some, all[i])
	}
	return base, some, nil
}

func cmdTree(ctx context.Context, args []string) error {
	var s settings
	flags := flag.NewFlagSet("tree", flag.ExitOnError)
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
	for _, r := range some {
		dir, _, err := b.Tree(ctx, base, r)
		if err != nil {
			return err
		}
		fmt.Printf("%s\t%s\n", r.Name, dir)
	}
	return nil
}

func cmdPlan(_ context.Context, args []string) error {
	if len(args) != 2 {
		return errors.New("plan: name a role and a folder")
	}
	_, some, err := roles(args[:1])
	if err != nil {
		return err
	}
	return build.WritePlan(some[0], args[1])
}
