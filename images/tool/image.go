package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"shoal/images/internal/build"
	"shoal/images/internal/debs"
)

// cmdImages builds the images of roles, checks their trees and signs what came out.
func cmdImages(ctx context.Context, args []string) error {
	var s settings
	flags := flag.NewFlagSet("images", flag.ExitOnError)
	s.flags(flags)
	out := flags.String("out", "dist/images", "put the images into this `folder`")
	formats := flags.String("formats", "qcow2,raw,ova", "`list` of formats")
	accepted := flags.Bool("check", true, "run the acceptance checks on each tree first")
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
	source, err := debs.Open(b.Repository)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(*out, 0o755); err != nil {
		return err
	}
	m := build.Manifest{Version: source.Version, Commit: source.Commit, Packages: map[string][]string{}}
	for i, r := range some {
		say("[%d/%d] %s: %s", i+1, len(some), r.Name, r.Summary)
		if *accepted {
			wrong, err := check(ctx, b, base, r)
			if err == nil && len(wrong) > 0 {
				err = fmt.Errorf("not accepted: %s", strings.Join(wrong, "; "))
			}
			if err != nil {
				return fmt.Errorf("role %s: %w", r.Name, err)
			}
		}
		files, packages, err := b.Image(ctx, base, r, source.Version, *out, strings.Split(*formats, ","))
		if err != nil {
			return err
		}
		m.Artifacts = append(m.Artifacts, files...)
		m.Packages[r.Name] = packages
		for _, f := range files {
			say("%s: %s, %.1f MB", r.Name, f.File, float64(f.Size)/1e6)
		}
	}
	if err := m.Write(ctx, *out, s.key); err != nil {
		return err
	}
	say("%s is signed; verify: ssh-keygen -Y verify -f %s -I release@shoal -n shoal-manifest -s MANIFEST.json.sig < MANIFEST.json",
		filepath.Join(*out, "MANIFEST.json"), s.signers)
	return nil
}

// signDebs writes the signed manifest of a folder of packages.
func signDebs(ctx context.Context, dir, key string, files []string) error {
	source, err := debs.Open(".")
	if err != nil {
		return err
	}
	if _, err := build.Signers(ctx, key); err != nil {
		return err
	}
	m := build.Manifest{Version: source.Version, Commit: source.Commit}
	for _, f := range files {
		a, err := build.Package(f)
		if err != nil {
			return err
		}
		m.Artifacts = append(m.Artifacts, a)
	}
	return m.Write(ctx, dir, key)
}

// cmdSign puts packages and their signed manifest into a folder.
func cmdSign(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("sign", flag.ExitOnError)
	from := flags.String("debs", "dist/deb", "take the packages from this `folder`")
	key := flags.String("key", "var/keys/release", "sign with this key of OpenSSH (ed25519); made if it is missing")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if flags.NArg() != 1 {
		return errors.New("sign: name the folder of the release")
	}
	found, err := filepath.Glob(filepath.Join(*from, "*.deb"))
	if err != nil {
		return err
	}
	var files []string
	for _, f := range found {
		content, err := os.ReadFile(f)
		if err != nil {
			return err
		}
		to := filepath.Join(flags.Arg(0), filepath.Base(f))
		if err := os.WriteFile(to, content, 0o644); err != nil {
			return err
		}
		files = append(files, to)
	}
	return signDebs(ctx, flags.Arg(0), *key, files)
}
