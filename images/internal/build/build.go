// Package build makes images of roles: the tree of the base by mmdebstrap from the host's own apt sources, the tree of a role
// from that by the script images/provision in a container, a disk from the tree by images/disk, and beside the disks a
// manifest, a list of parts, and signatures.
//
// A tree is kept under the hash of all that went into it (recipe, files, packages of ours, scripts, sources of apt, and the
// day: Debian's updates are taken up once a day), so that what did not change is not built again.
//
// Invariants: nothing is mounted and no loop device is used; what is there under a name of the cache is whole; an image
// holds no key, no id of a machine and no secret (package accept).
package build

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"shoal/images/internal/recipe"
)

// Builder makes images.
type Builder struct {
	Repository string // the folder of this repository
	Cache      string
	Debs       []string // packages of this repository
	Signers    string   // file of the public keys that releases are signed with; empty: none
	Epoch      time.Time
	Say        func(format string, args ...any)

	day string // on which the build began: one that goes on past midnight takes up no other updates
}

// today is the day whose updates of Debian are taken up.
func (b *Builder) today() string {
	if b.day == "" {
		b.day = time.Now().UTC().Format(time.DateOnly)
	}
	return b.day
}

// release is that of Debian.
const release = "bookworm"

// run runs a program; its output goes to a file of the cache, and its end into the error.
func (b *Builder) run(ctx context.Context, log string, name string, args ...string) error {
	f, err := os.Create(filepath.Join(b.Cache, log+".log"))
	if err != nil {
		return err
	}
	defer f.Close()
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = b.Repository
	cmd.Env = append(os.Environ(), "LC_ALL=C.UTF-8", fmt.Sprintf("SOURCE_DATE_EPOCH=%d", b.Epoch.Unix()))
	var tail bytes.Buffer
	cmd.Stdout = io.MultiWriter(f, &tail)
	cmd.Stderr = cmd.Stdout
	// The programs below end their own children when they are asked.
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = 30 * time.Second
	if err := cmd.Run(); err != nil {
		lines := strings.Split(strings.TrimSpace(tail.String()), "\n")
		return fmt.Errorf("%s: %w; the end of %s:\n%s", name, err, f.Name(), strings.Join(lines[max(0, len(lines)-15):], "\n"))
	}
	return nil
}

// Sources are the lines of the host's apt sources that are Debian's own.
func Sources(ctx context.Context) ([]string, error) {
	out, err := exec.CommandContext(ctx, "apt-get", "indextargets", "--format", "$(REPO_URI) $(RELEASE) $(COMPONENT)", "Created-By: Packages", "Origin: Debian").Output()
	if err != nil {
		return nil, fmt.Errorf("apt-get indextargets: %w", err)
	}
	var all []string
	for line := range strings.Lines(string(out)) {
		if f := strings.Fields(line); len(f) == 3 && strings.HasPrefix(f[1], release) {
			all = append(all, "deb "+strings.Join(f, " "))
		}
	}
	slices.Sort(all)
	if all = slices.Compact(all); len(all) == 0 {
		return nil, fmt.Errorf("this host has no apt sources of Debian %s: run apt-get update on a Debian 12 machine", release)
	}
	return all, nil
}

// hash is that of texts and of files with their rights.
func hash(texts []string, files ...string) (string, error) {
	h := sha256.New()
	for _, t := range texts {
		fmt.Fprintf(h, "%d %s\n", len(t), t)
	}
	for _, f := range files {
		st, err := os.Stat(f)
		if err != nil {
			return "", err
		}
		content, err := os.ReadFile(f)
		if err != nil {
			return "", err
		}
		fmt.Fprintf(h, "%s %v %x\n", filepath.Base(f), st.Mode()&0o111 != 0, sha256.Sum256(content))
	}
	return fmt.Sprintf("%x", h.Sum(nil))[:16], nil
}

// key is the hash of what goes into a role's tree.
func (b *Builder) key(ctx context.Context, r *recipe.Role, below string) (string, error) {
	sources, err := Sources(ctx)
	if err != nil {
		return "", err
	}
	files := []string{filepath.Join(r.Dir, "role.hcl"), filepath.Join(b.Repository, "images/provision")}
	names, err := recipe.Files(filepath.Join(r.Dir, "files"))
	if err != nil {
		return "", err
	}
	for _, n := range names {
		files = append(files, filepath.Join(r.Dir, "files", n))
	}
	for _, deb := range b.Debs {
		name, _, _ := strings.Cut(filepath.Base(deb), "_")
		if name == "shoal-common" || slices.Contains(r.Packages, name) {
			files = append(files, deb)
		}
	}
	if b.Signers != "" {
		files = append(files, b.Signers)
	}
	return hash(append(sources, below, r.Name, strings.Join(names, "\n"), b.today()), files...)
}

// Tree makes the tree of a role, or finds it, and returns its folder and its key.
func (b *Builder) Tree(ctx context.Context, base, r *recipe.Role) (dir, key string, err error) {
	below := ""
	var from string
	if r.Name != recipe.Base {
		if from, below, err = b.Tree(ctx, base, base); err != nil {
			return "", "", err
		}
	}
	if key, err = b.key(ctx, r, below); err != nil {
		return "", "", err
	}
	dir = filepath.Join(b.Cache, r.Name+"-"+key)
	if _, err := os.Stat(dir); err == nil {
		return dir, key, nil
	}
	b.Say("%s: building its tree", r.Name)
	if err := b.forget(r.Name); err != nil {
		return "", "", err
	}
	tmp := dir + ".new"
	if err := os.RemoveAll(tmp); err != nil {
		return "", "", err
	}
	if r.Name == recipe.Base {
		from, err = b.debian(ctx, r)
	}
	if err == nil {
		err = b.run(ctx, r.Name+"-copy", "cp", "-a", from, tmp)
	}
	if err == nil {
		err = b.provision(ctx, r, tmp)
	}
	if err == nil {
		err = os.Rename(tmp, dir)
	}
	if err != nil {
		return "", "", fmt.Errorf("role %s: %w", r.Name, errors.Join(err, os.RemoveAll(tmp)))
	}
	b.Say("%s: built", r.Name)
	return dir, key, nil
}

// forget removes older trees of a role.
func (b *Builder) forget(role string) error {
	old, err := filepath.Glob(filepath.Join(b.Cache, role+"-????????????????*"))
	for _, dir := range old {
		if st, serr := os.Stat(dir); serr == nil && st.IsDir() {
			err = errors.Join(err, os.RemoveAll(dir))
		}
	}
	return err
}

// debian makes the part of the base that does not change with this repository's packages, or finds it.
func (b *Builder) debian(ctx context.Context, r *recipe.Role) (string, error) {
	sources, err := Sources(ctx)
	if err != nil {
		return "", err
	}
	key, err := hash(append(append(sources, r.Packages...), bootstrapVersion, b.today()))
	if err != nil {
		return "", err
	}
	dir := filepath.Join(b.Cache, "debian-"+key)
	if _, err := os.Stat(dir); err == nil {
		return dir, nil
	}
	b.Say("%s: Debian %s", r.Name, release)
	if err := b.forget("debian"); err != nil {
		return "", err
	}
	if err := b.bootstrap(ctx, r, dir+".new"); err != nil {
		return "", errors.Join(err, os.RemoveAll(dir+".new"))
	}
	return dir, os.Rename(dir+".new", dir)
}

// bootstrapVersion changes with what bootstrap does.
const bootstrapVersion = "1"

// bootstrap makes a Debian system with the packages of the base that are Debian's.
func (b *Builder) bootstrap(ctx context.Context, r *recipe.Role, dir string) error {
	sources, err := Sources(ctx)
	if err != nil {
		return err
	}
	list := filepath.Join(b.Cache, "sources.list")
	if err := os.WriteFile(list, []byte(strings.Join(sources, "\n")+"\n"), 0o644); err != nil {
		return err
	}
	return b.run(ctx, "base-bootstrap", "mmdebstrap", "--mode=root", "--variant=minbase", "--format=directory",
		"--aptopt=APT::Install-Recommends \"false\"",
		"--dpkgopt=path-exclude=/usr/share/man/*", "--dpkgopt=path-exclude=/usr/share/locale/*",
		"--dpkgopt=path-exclude=/usr/share/doc/*", "--dpkgopt=path-include=/usr/share/doc/*/copyright",
		"--dpkgopt=path-exclude=/usr/share/info/*", "--dpkgopt=path-exclude=/usr/share/lintian/*",
		`--essential-hook=mkdir -p "$1/etc/initramfs-tools/conf.d" && printf 'MODULES=list\nCOMPRESS=zstd\n' > "$1/etc/initramfs-tools/conf.d/shoal"`,
		`--customize-hook=printf 'virtio_pci\nvirtio_blk\nvirtio_scsi\nsd_mod\nvmw_pvscsi\nahci\nata_piix\next4\n' >> "$1/etc/initramfs-tools/modules" && chroot "$1" update-initramfs -u -k all`,
		// The lists stay until the roles are built: provision's seal removes them.
		"--skip=cleanup/apt/lists", "--include="+strings.Join(r.Packages, ","), release, dir, list)
}

// provision runs images/provision in a container of a tree.
func (b *Builder) provision(ctx context.Context, r *recipe.Role, dir string) (err error) {
	stage, err := os.MkdirTemp(b.Cache, "stage-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(stage)) }()
	if err := WritePlan(r, filepath.Join(stage, "plan")); err != nil {
		return err
	}
	if err := os.Mkdir(filepath.Join(stage, "deb"), 0o755); err != nil {
		return err
	}
	for _, deb := range b.Debs {
		if err := copyFile(deb, filepath.Join(stage, "deb", filepath.Base(deb))); err != nil {
			return err
		}
	}
	if b.Signers != "" {
		if err := copyFile(b.Signers, filepath.Join(stage, "release-signers")); err != nil {
			return err
		}
	}
	if err := copyFile(filepath.Join(b.Repository, "images/provision"), filepath.Join(stage, "provision")); err != nil {
		return err
	}
	// apt locks its folder of downloads: each role has one of its own, of links to what was downloaded before.
	common, archives := filepath.Join(b.Cache, "archives"), filepath.Join(stage, "archives")
	for _, dir := range []string{common, filepath.Join(archives, "partial")} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
	}
	if err := linkDebs(common, archives); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, linkDebs(archives, common)) }()
	// The base keeps the lists of packages for the roles; a role seals itself.
	what := "set -e; . /run/shoal-image/do"
	do := "sh /run/shoal-image/provision install\n"
	if r.Name != recipe.Base {
		do += "sh /run/shoal-image/provision seal\n"
	}
	if err := os.WriteFile(filepath.Join(stage, "do"), []byte(do), 0o644); err != nil {
		return err
	}
	return b.run(ctx, r.Name+"-provision", "images/contain", dir, "--pipe", "--as-pid2", "--resolv-conf=bind-host",
		"--bind-ro="+stage+":/run/shoal-image", "--bind="+archives+":/var/cache/apt/archives", "/bin/sh", "-c", what)
}

// linkDebs links the packages of one folder into another, but for those that are there.
func linkDebs(from, to string) error {
	found, err := filepath.Glob(filepath.Join(from, "*.deb"))
	for _, f := range found {
		if lerr := os.Link(f, filepath.Join(to, filepath.Base(f))); lerr != nil && !errors.Is(lerr, fs.ErrExist) {
			err = errors.Join(err, lerr)
		}
	}
	return err
}

// WritePlan writes what images/provision reads.
func WritePlan(r *recipe.Role, dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	for name, lines := range map[string][]string{"role": {r.Name}, "packages": r.Packages, "enable": r.Enable, "mask": r.Mask} {
		text := ""
		for _, l := range lines {
			text += l + "\n"
		}
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			return err
		}
	}
	files := filepath.Join(r.Dir, "files")
	if _, err := os.Stat(files); err != nil {
		return nil // a role may have none
	}
	if err := os.CopyFS(filepath.Join(dir, "files"), os.DirFS(files)); err != nil {
		return err
	}
	// Rights as on the target, whatever the mask of who builds.
	return filepath.WalkDir(filepath.Join(dir, "files"), func(path string, d os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		mode := os.FileMode(0o644)
		if info, err := d.Info(); err != nil {
			return err
		} else if d.IsDir() || info.Mode()&0o100 != 0 {
			mode = 0o755
		}
		return os.Chmod(path, mode)
	})
}

func copyFile(from, to string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.Create(to)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Close())
}
