package debs

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"shoal/images/internal/recipe"
)

// control writes DEBIAN/control, conffiles and the maintainer scripts.
func (b *Builder) control(p *recipe.Package, root string) error {
	files, err := recipe.Files(root)
	if err != nil {
		return err
	}
	var conffiles strings.Builder
	var size int64
	for _, f := range files {
		st, err := os.Lstat(root + f)
		if err != nil {
			return err
		}
		size += (st.Size() + 1023) / 1024
		if strings.HasPrefix(f, "/etc/") {
			fmt.Fprintln(&conffiles, f)
		}
	}
	var c strings.Builder
	field := func(name, value string) {
		if value != "" {
			fmt.Fprintf(&c, "%s: %s\n", name, strings.ReplaceAll(value, "$version", b.Source.Version))
		}
	}
	field("Package", p.Name)
	field("Source", "shoal")
	field("Version", b.Source.Version)
	field("Architecture", "amd64")
	field("Maintainer", "The Shoal authors <shoal@localhost.localdomain>")
	field("Installed-Size", fmt.Sprint(size))
	field("Depends", strings.Join(p.Depends, ", "))
	field("Recommends", strings.Join(p.Recommends, ", "))
	field("Suggests", strings.Join(p.Suggests, ", "))
	field("Section", p.Section)
	field("Priority", "optional")
	field("Description", p.Summary)
	for line := range strings.Lines(p.Description) {
		if line = strings.TrimSpace(line); line == "" {
			line = "."
		}
		fmt.Fprintf(&c, " %s\n", line)
	}
	debian := filepath.Join(root, "DEBIAN")
	if err := write(filepath.Join(debian, "control"), c.String()); err != nil {
		return err
	}
	if conffiles.Len() > 0 {
		if err := write(filepath.Join(debian, "conffiles"), conffiles.String()); err != nil {
			return err
		}
	}
	for name, text := range scripts(p) {
		path := filepath.Join(debian, name)
		if err := write(path, text); err != nil {
			return err
		}
		if err := os.Chmod(path, 0o755); err != nil {
			return err
		}
	}
	return nil
}

// scripts are the maintainer scripts by name. Units with sockets are enabled and (re)started; the sockets stay open
// meanwhile. Other units are left to the image or the operator, but an upgrade of a running one reloads systemd.
func scripts(p *recipe.Package) map[string]string {
	if len(p.Units) == 0 && !p.Sysusers {
		return nil
	}
	var post, pre, rm strings.Builder
	post.WriteString("#!/bin/sh\nset -e\n\nif [ \"$1\" = configure ] || [ \"$1\" = abort-upgrade ] || [ \"$1\" = abort-remove ]; then\n")
	if p.Sysusers {
		post.WriteString("\tsystemd-sysusers shoal.conf\n")
	}
	if p.Tmpfiles {
		post.WriteString("\tsystemd-tmpfiles --create shoal.conf || true\n")
	}
	running := ""
	if len(p.Sockets) > 0 {
		service := p.Service()
		var sockets []string
		for _, s := range p.Sockets {
			sockets = append(sockets, socketUnit(p, s))
		}
		running = strings.Join(sockets, " ")
		fmt.Fprintf(&post, "\tfor unit in %s %s; do\n\t\tdeb-systemd-helper unmask \"$unit\" >/dev/null || true\n", running, service)
		post.WriteString("\t\tif deb-systemd-helper --quiet was-enabled \"$unit\"; then\n\t\t\tdeb-systemd-helper enable \"$unit\" >/dev/null || true\n\t\tfi\n")
		post.WriteString("\t\tdeb-systemd-helper update-state \"$unit\" >/dev/null || true\n\tdone\n")
		post.WriteString("\tif [ -d /run/systemd/system ]; then\n\t\tsystemctl --system daemon-reload >/dev/null || true\n")
		fmt.Fprintf(&post, "\t\tdeb-systemd-invoke start %s >/dev/null || true\n", running)
		fmt.Fprintf(&post, "\t\tif [ -n \"$2\" ]; then\n\t\t\tdeb-systemd-invoke try-restart %s >/dev/null || true\n\t\telse\n\t\t\tdeb-systemd-invoke start %s >/dev/null || true\n\t\tfi\n\tfi\n", service, service)
		fmt.Fprintf(&pre, "#!/bin/sh\nset -e\n\nif [ \"$1\" = remove ] && [ -d /run/systemd/system ]; then\n\tdeb-systemd-invoke stop %s %s >/dev/null || true\nfi\n", running, service)
	} else {
		post.WriteString("\tif [ -d /run/systemd/system ]; then\n\t\tsystemctl --system daemon-reload >/dev/null || true\n\tfi\n")
	}
	post.WriteString("fi\n")
	rm.WriteString("#!/bin/sh\nset -e\n\nif [ \"$1\" = remove ] && [ -d /run/systemd/system ]; then\n\tsystemctl --system daemon-reload >/dev/null || true\nfi\n")
	if running != "" {
		fmt.Fprintf(&rm, "if [ \"$1\" = purge ] && command -v deb-systemd-helper >/dev/null; then\n\tdeb-systemd-helper purge %s %s >/dev/null || true\n\tdeb-systemd-helper unmask %s %s >/dev/null || true\nfi\n", running, p.Service(), running, p.Service())
	}
	all := map[string]string{"postinst": post.String(), "postrm": rm.String()}
	if pre.Len() > 0 {
		all["prerm"] = pre.String()
	}
	return all
}
