package debs

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/md5"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"shoal/images/internal/recipe"
)

// stage writes the tree of a package: what is installed, and DEBIAN/.
func (b *Builder) stage(ctx context.Context, p *recipe.Package, root string) error {
	if err := os.Mkdir(root, 0o755); err != nil {
		return err
	}
	files, err := recipe.Files(filepath.Join(p.Dir, "files"))
	if err != nil {
		return err
	}
	for _, f := range files {
		if err := copyFile(filepath.Join(p.Dir, "files", f), root+f); err != nil {
			return err
		}
	}
	for _, prog := range p.Programs {
		if err := copyFile(b.built[prog.Name], root+prog.Target()); err != nil {
			return err
		}
	}
	for _, s := range p.Sockets {
		if err := write(filepath.Join(root, "lib/systemd/system", socketUnit(p, s)), socketText(p, s)); err != nil {
			return err
		}
	}
	if text := firewall(p); text != "" {
		if err := write(filepath.Join(root, "etc/shoal/firewall.d", p.Name+".nft"), text); err != nil {
			return err
		}
	}
	if err := b.manual(p, root); err != nil {
		return err
	}
	if p.Completion {
		if err := b.completion(ctx, p, root); err != nil {
			return err
		}
	}
	if err := b.documents(p, root); err != nil {
		return err
	}
	if err := b.control(p, root); err != nil {
		return err
	}
	return b.settle(root)
}

// socketUnit is the name of the unit of a listener: boxd-imaps.socket.
func socketUnit(p *recipe.Package, s recipe.Socket) string {
	return strings.TrimSuffix(p.Service(), ".service") + "-" + s.Name + ".socket"
}

// socketText is the unit of a listener. The port is open before the daemon is, also while it is replaced: clients wait
// instead of being refused, and the daemon needs no capability for a port below 1024.
func socketText(p *recipe.Package, s recipe.Socket) string {
	daemon := strings.TrimSuffix(p.Service(), ".service")
	return fmt.Sprintf(`[Unit]
Description=Shoal %[1]s: port %[3]d (%[2]s)
Documentation=man:%[1]s(8)
ConditionPathExists=/etc/shoal/%[1]s.hcl
After=shoal-firstboot.service

[Socket]
ListenStream=%[3]d
FileDescriptorName=%[2]s
Service=%[4]s
Backlog=4096
NoDelay=yes
KeepAlive=yes
FreeBind=yes

[Install]
WantedBy=sockets.target
RequiredBy=%[4]s
`, daemon, s.Name, s.Port, p.Service())
}

// firewall opens the ports of a package, see /etc/shoal/firewall.nft.
func firewall(p *recipe.Package) string {
	var b strings.Builder
	for _, set := range []struct {
		name  string
		ports []int
	}{{"tcp_open", p.OpenPorts}, {"tcp_peers", p.PeerPorts}} {
		if len(set.ports) > 0 {
			fmt.Fprintf(&b, "add element inet shoal %s { %s }\n", set.name, strings.Trim(strings.ReplaceAll(fmt.Sprint(set.ports), " ", ", "), "[]"))
		}
	}
	if b.Len() == 0 {
		return ""
	}
	return "# Ports of " + p.Name + ".\n" + b.String()
}

// manual compresses the manual pages that the recipe names.
func (b *Builder) manual(p *recipe.Package, root string) error {
	for _, pattern := range p.Man {
		var found []string
		for _, dir := range []string{filepath.Join(b.Source.Root, "docs/man"), filepath.Join(b.Source.Root, "images/man"), filepath.Join(b.work, "man")} {
			pages, err := filepath.Glob(filepath.Join(dir, pattern))
			if err != nil {
				return fmt.Errorf("man %q: %w", pattern, err)
			}
			found = append(found, pages...)
		}
		if len(found) == 0 {
			return fmt.Errorf("man %q: there is no such page", pattern)
		}
		for _, page := range found {
			text, err := os.ReadFile(page)
			if err != nil {
				return err
			}
			if err := compress(filepath.Join(root, "usr/share/man/man8", filepath.Base(page)+".gz"), text); err != nil {
				return err
			}
		}
	}
	return nil
}

// completion writes what the program says for each shell.
func (b *Builder) completion(ctx context.Context, p *recipe.Package, root string) error {
	name := p.Programs[0].Name
	for shell, target := range map[string]string{
		"bash": "usr/share/bash-completion/completions/" + name,
		"zsh":  "usr/share/zsh/vendor-completions/_" + name,
		"fish": "usr/share/fish/vendor_completions.d/" + name + ".fish",
	} {
		out, err := exec.CommandContext(ctx, b.built[name], "completion", shell).Output()
		if err != nil {
			return fmt.Errorf("%s completion %s: %w", name, shell, err)
		}
		if err := write(filepath.Join(root, target), string(out)); err != nil {
			return err
		}
	}
	return nil
}

// documents are the copyright, the changelog and what lintian need not complain of.
func (b *Builder) documents(p *recipe.Package, root string) error {
	doc := filepath.Join(root, "usr/share/doc", p.Name)
	if err := write(filepath.Join(doc, "copyright"), copyright); err != nil {
		return err
	}
	log := fmt.Sprintf("%s (%s) stable; urgency=medium\n\n  * Built from commit %s.\n\n -- %s  %s\n",
		p.Name, b.Source.Version, b.Source.Commit, b.Source.Author, b.Source.Time.Format("Mon, 02 Jan 2006 15:04:05 -0700"))
	if err := compress(filepath.Join(doc, "changelog.gz"), []byte(log)); err != nil {
		return err
	}
	if len(p.Lintian) == 0 {
		return nil
	}
	var text strings.Builder
	for _, tag := range p.Lintian {
		fmt.Fprintf(&text, "%s: %s\n", p.Name, tag)
	}
	return write(filepath.Join(root, "usr/share/lintian/overrides", p.Name), text.String())
}

const copyright = `Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/
Upstream-Name: Shoal

Files: *
Copyright: 2026 The Shoal authors
License: Apache-2.0
Comment: The programs contain Go modules under the licenses that the software bill of materials
 of the release lists for them (MIT, BSD-2-Clause, BSD-3-Clause, MPL-2.0 and Apache-2.0).

License: Apache-2.0
 On Debian systems the text of the license is in /usr/share/common-licenses/Apache-2.0.
`

// settle makes modes and times of a tree what they are to be, and lists its checksums.
func (b *Builder) settle(root string) error {
	var sums strings.Builder
	files, err := recipe.Files(root)
	if err != nil {
		return err
	}
	for _, f := range files {
		st, err := os.Lstat(root + f)
		if err != nil {
			return err
		}
		if st.Mode()&fs.ModeSymlink != 0 {
			continue
		}
		mode := fs.FileMode(0o644)
		if st.Mode()&0o100 != 0 {
			mode = 0o755
		}
		if err := os.Chmod(root+f, mode); err != nil {
			return err
		}
		content, err := os.ReadFile(root + f)
		if err != nil {
			return err
		}
		if !strings.HasPrefix(f, "/DEBIAN/") && !strings.HasPrefix(f, "/etc/") {
			fmt.Fprintf(&sums, "%x  %s\n", md5.Sum(content), strings.TrimPrefix(f, "/"))
		}
	}
	if err := write(filepath.Join(root, "DEBIAN/md5sums"), sums.String()); err != nil {
		return err
	}
	// Folders last: what is written into them changes their time.
	var all []string
	err = filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.Type()&fs.ModeSymlink == 0 {
			all = append(all, path)
			if d.IsDir() {
				err = os.Chmod(path, 0o755)
			}
		}
		return err
	})
	slices.Reverse(all)
	for _, path := range all {
		err = errors.Join(err, os.Chtimes(path, b.Source.Time, b.Source.Time))
	}
	return err
}

func write(path, text string) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	return os.WriteFile(path, []byte(text), 0o644)
}

// compress writes a gzip file that holds no name and no time.
func compress(path string, text []byte) error {
	var out bytes.Buffer
	z, err := gzip.NewWriterLevel(&out, gzip.BestCompression)
	if err != nil {
		return err
	}
	if _, err := z.Write(text); err != nil {
		return err
	}
	if err := z.Close(); err != nil {
		return err
	}
	return write(path, out.String())
}

// copyFile copies a file or a link, with its right to be executed.
func copyFile(from, to string) error {
	st, err := os.Lstat(from)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		return err
	}
	if st.Mode()&fs.ModeSymlink != 0 {
		target, err := os.Readlink(from)
		if err != nil {
			return err
		}
		return os.Symlink(target, to)
	}
	content, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	return os.WriteFile(to, content, st.Mode().Perm())
}
