// Command tool builds packages and images from the recipes below images/. `make deb` and `make images` call it;
// docs/images.md describes what comes out.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"shoal/images/internal/debs"
	"shoal/images/internal/recipe"
)

const usage = `usage: go run ./images/tool COMMAND [flags]

  deb      build the Debian packages
  tree     build the trees of roles, and print their folders
  check    build the trees of roles and run the acceptance checks on them, in containers
  images   build images, with a signed manifest and lists of parts
  seed     write a seed for trying an image of a role
  sign     put packages and their signed manifest into a folder
  look     run the checks of a tree that does not run
  recipes  read the recipes below a folder
  plan     write the plan of a role into a folder, for images/provision
`

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "images:", err)
		os.Exit(1)
	}
}

var commands = map[string]func(ctx context.Context, args []string) error{
	"deb":     cmdDeb,
	"sign":    cmdSign,
	"seed":    cmdSeed,
	"look":    cmdLook,
	"recipes": cmdRecipes,
	"tree":    cmdTree,
	"images":  cmdImages,
	"check":   cmdCheck,
	"plan":    cmdPlan,
}

func run(ctx context.Context, args []string) error {
	if len(args) == 0 || commands[args[0]] == nil {
		fmt.Fprint(os.Stderr, usage)
		os.Exit(2)
	}
	return commands[args[0]](ctx, args[1:])
}

// say prints progress with the time since the start.
var say = func() func(format string, args ...any) {
	start := time.Now()
	return func(format string, args ...any) {
		fmt.Printf("%6.1fs  %s\n", time.Since(start).Seconds(), fmt.Sprintf(format, args...))
	}
}()

func cmdDeb(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("deb", flag.ExitOnError)
	out := flags.String("out", "dist/deb", "put the packages into this `folder`; older ones are removed")
	key := flags.String("key", "var/keys/release", "sign their manifest with this key of OpenSSH (ed25519); made if it is missing")
	if err := flags.Parse(args); err != nil {
		return err
	}
	files, err := buildDebs(ctx, *out)
	if err != nil {
		return err
	}
	if err := signDebs(ctx, *out, *key, files); err != nil {
		return err
	}
	say("%d packages in %s", len(files), *out)
	return nil
}

// buildDebs builds all packages; what was in the folder before is gone.
func buildDebs(ctx context.Context, out string) ([]string, error) {
	root, err := os.Getwd()
	if err != nil {
		return nil, err
	}
	source, err := debs.Open(root)
	if err != nil {
		return nil, err
	}
	packages, err := recipe.Packages("images/packages")
	if err != nil {
		return nil, err
	}
	old, err := filepath.Glob(filepath.Join(out, "*.deb"))
	if err != nil {
		return nil, err
	}
	for _, f := range old {
		if err := os.Remove(f); err != nil {
			return nil, err
		}
	}
	b := &debs.Builder{Source: source, Out: out, Say: say}
	return b.Build(ctx, packages)
}
