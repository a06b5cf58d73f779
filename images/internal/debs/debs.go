// Package debs builds the Debian packages of recipes with dpkg-deb.
//
// Invariants: the same commit gives the same bytes (programs without paths and build ids, every file dated with the commit,
// owned by root, in order); what lies below /etc is a conffile; a package does not start what has no configuration yet
// (its units carry the condition).
//
// Left out on purpose: source packages and debhelper. The maintainer scripts call the same tools that debhelper's do.
package debs

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"shoal/images/internal/recipe"
)

// Builder builds packages of one source into one folder.
type Builder struct {
	Source *Source
	Out    string                           // where the packages are put
	Say    func(format string, args ...any) // progress
	work   string
	built  map[string]string // programs by name
}

// Build builds packages and returns their files, in order.
func (b *Builder) Build(ctx context.Context, packages []*recipe.Package) (files []string, err error) {
	if b.work, err = os.MkdirTemp("", "shoal-deb-"); err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(b.work)) }()
	// Folders of the packages are for everybody to read, as on the target.
	if err := os.Chmod(b.work, 0o755); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(b.Out, 0o755); err != nil {
		return nil, err
	}
	if err := b.programs(ctx, packages); err != nil {
		return nil, err
	}
	if err := b.pages(ctx); err != nil {
		return nil, err
	}
	for i, p := range packages {
		b.Say("[%d/%d] %s %s", i+1, len(packages), p.Name, b.Source.Version)
		root := filepath.Join(b.work, p.Name)
		if err := b.stage(ctx, p, root); err != nil {
			return nil, fmt.Errorf("package %s: %w", p.Name, err)
		}
		file := filepath.Join(b.Out, fmt.Sprintf("%s_%s_amd64.deb", p.Name, b.Source.Version))
		if err := b.run(ctx, "dpkg-deb", "--root-owner-group", "--uniform-compression", "--threads-max=1", "-Zxz", "-z0", "--build", root, file); err != nil {
			return nil, err
		}
		files = append(files, file)
	}
	return files, nil
}

// run runs a command with the time of the source; its output is part of the error.
func (b *Builder) run(ctx context.Context, name string, args ...string) error {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = b.Source.Root
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "LC_ALL=C.UTF-8",
		"SOURCE_DATE_EPOCH="+strconv.FormatInt(b.Source.Time.Unix(), 10))
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("%s: %w: %s", name, err, strings.TrimSpace(out.String()))
	}
	return nil
}

// programs builds every program once, shoalctl among them: it writes the manual pages.
func (b *Builder) programs(ctx context.Context, packages []*recipe.Package) error {
	names := []string{"shoalctl"}
	for _, p := range packages {
		for _, prog := range p.Programs {
			if !slices.Contains(names, prog.Name) {
				names = append(names, prog.Name)
			}
		}
	}
	bin := filepath.Join(b.work, "bin")
	if err := os.Mkdir(bin, 0o755); err != nil {
		return err
	}
	args := []string{"build", "-trimpath", "-buildvcs=true", "-ldflags", "-s -w -buildid= -X shoal/daemons/internal/kit.Version=" + b.Source.Version, "-o", bin + "/"}
	b.built = map[string]string{}
	for _, name := range names {
		args = append(args, "./daemons/"+name)
		b.built[name] = filepath.Join(bin, name)
	}
	b.Say("programs: %s", strings.Join(names, " "))
	return b.run(ctx, "go", args...)
}

// pages writes the manual pages of shoalctl.
func (b *Builder) pages(ctx context.Context) error {
	return b.run(ctx, b.built["shoalctl"], "man", filepath.Join(b.work, "man"))
}
