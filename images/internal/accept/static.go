// Package accept looks at the tree of an image, and at the image as it runs in a container with a systemd of its own: what the
// recipe says must be true, and what must not be in any image is not there.
//
// Findings are sentences; none means accepted. Left out on purpose: what needs a kernel of the machine's own (the NFS
// server, the boot itself); tests/images/boot shows that in virtual machines.
package accept

import (
	"bytes"
	"context"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"shoal/images/internal/recipe"
)

// maxExposure is the bound for daemons of ours, as systemd-analyze security counts, in tenths.
const maxExposure = 20

// ids are the numeric users of the service, the same on every image.
var ids = map[string]string{
	"shoal-switch": "641", "shoal-box": "642", "shoal-vault": "643", "shoal-webmail": "644", "shoal-provision": "645", "shoal-agent": "646",
}

// setuid are the only programs that may change the user.
var setuid = []string{
	"/usr/bin/chage", "/usr/bin/chfn", "/usr/bin/chsh", "/usr/bin/expiry", "/usr/bin/gpasswd", "/usr/bin/mount", "/usr/bin/newgrp", "/usr/bin/passwd",
	"/usr/bin/ssh-agent", "/usr/bin/su", "/usr/bin/umount", "/usr/lib/dbus-1.0/dbus-daemon-launch-helper", "/usr/lib/openssh/ssh-keysign",
	"/usr/sbin/unix_chkpwd", "/usr/sbin/mount.nfs",
}

// secret is a private key in PEM, or a password hash in shadow's form.
var secret = regexp.MustCompile(`-----BEGIN [A-Z ]*PRIVATE KEY-----|\$(argon2i?d|6|5|y|2[aby])\$[A-Za-z0-9./,=$]{20,}`)

// Static looks at a tree that does not run.
func Static(ctx context.Context, r *recipe.Role, root string) ([]string, error) {
	var wrong []string
	bad := func(format string, args ...any) { wrong = append(wrong, fmt.Sprintf(format, args...)) }
	read := func(name string) string {
		b, err := os.ReadFile(filepath.Join(root, name))
		if err != nil {
			bad("%v", err)
		}
		return string(b)
	}
	if id := read("/etc/machine-id"); strings.TrimSpace(id) != "" {
		bad("/etc/machine-id holds an id: every machine would have it")
	}
	if role := strings.TrimSpace(read("/usr/share/shoal/role")); role != r.Name {
		bad("/usr/share/shoal/role says %q", role)
	}
	for _, pattern := range []string{"etc/ssh/ssh_host_*", "root/.ssh/*", "root/.bash_history", "home/*", "var/lib/shoal/*", "etc/shoal/*.hcl", "etc/shoal/*.secret",
		"var/lib/apt/lists/*_*", "var/cache/apt/archives/*.deb", "var/lib/systemd/random-seed", "var/lib/dbus/machine-id", "usr/sbin/policy-rc.d",
		"etc/ssl/private/*.key", "var/log/*.log", "var/log/journal/*"} {
		found, err := filepath.Glob(filepath.Join(root, pattern))
		if err != nil {
			return nil, err
		}
		for _, f := range found {
			bad("%s must not be in an image", strings.TrimPrefix(f, root))
		}
	}
	users := map[string]string{}
	for line := range strings.Lines(read("/etc/passwd")) {
		if f := strings.Split(line, ":"); len(f) > 3 {
			users[f[0]] = f[2]
		}
	}
	for name, id := range ids {
		if users[name] != id {
			bad("user %s has id %q, it must be %s on every image", name, users[name], id)
		}
	}
	for line := range strings.Lines(read("/etc/shadow")) {
		if f := strings.Split(line, ":"); len(f) > 1 && !strings.HasPrefix(f[1], "!") && !strings.HasPrefix(f[1], "*") {
			bad("user %s has a password", f[0])
		}
	}
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name := strings.TrimPrefix(path, root)
		info, err := d.Info()
		if err != nil {
			return err
		}
		mode := info.Mode()
		if mode.IsRegular() && mode&(fs.ModeSetuid|fs.ModeSetgid) != 0 && !slices.Contains(setuid, name) {
			bad("%s is %v: nothing else may change the user", name, mode)
		}
		if mode.IsRegular() && mode&0o002 != 0 || mode.IsDir() && mode&0o002 != 0 && mode&fs.ModeSticky == 0 {
			bad("%s may be written by everybody (%v)", name, mode)
		}
		if !mode.IsRegular() || info.Size() > 4<<20 || !scanned(name) {
			return nil
		}
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		if secret.Match(b) && !bytes.Contains(b[:min(len(b), 200)], []byte("\x00")) {
			bad("%s holds a private key or the hash of a password", name)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	if len(wrongModes(root, bad)) > 0 {
		return wrong, nil
	}
	for _, unit := range r.Daemons {
		exposure, err := exposure(ctx, root, unit)
		switch {
		case err != nil:
			bad("%s: %v", unit, err)
		case exposure > maxExposure:
			bad("%s: its exposure is %d.%d, it must be at most %d.%d", unit, exposure/10, exposure%10, maxExposure/10, maxExposure%10)
		}
	}
	return wrong, nil
}

// scanned says where secrets are looked for: where machines and people write, and what we install.
func scanned(name string) bool {
	for _, dir := range []string{"/etc/", "/root/", "/home/", "/var/", "/srv/", "/opt/", "/boot/grub", "/usr/share/shoal/", "/usr/lib/shoal/"} {
		if strings.HasPrefix(name, dir) && !strings.HasPrefix(name, "/var/lib/dpkg/") {
			return true
		}
	}
	return false
}

// wrongModes looks at the files whose rights matter most.
func wrongModes(root string, bad func(string, ...any)) []string {
	for name, want := range map[string]fs.FileMode{
		"/etc/shadow": 0o640, "/etc/passwd": 0o644, "/root": 0o700, "/etc/shoal": 0o755, "/usr/lib/shoal/firstboot": 0o755, "/usr/sbin/shoal-upgrade": 0o755,
	} {
		st, err := os.Stat(filepath.Join(root, name))
		switch {
		case err != nil:
			bad("%v", err)
		case st.Mode().Perm() != want:
			bad("%s has mode %04o, it must be %04o", name, st.Mode().Perm(), want)
		}
	}
	return nil
}

var exposureLine = regexp.MustCompile(`Overall exposure level for .*: ([0-9]+)\.([0-9])`)

// exposure is what systemd-analyze security counts for a unit of a tree, in tenths.
func exposure(ctx context.Context, root, unit string) (int, error) {
	out, err := exec.CommandContext(ctx, "systemd-analyze", "security", "--no-pager", "--offline=true", "--root="+root, unit).CombinedOutput()
	m := exposureLine.FindSubmatch(out)
	if m == nil {
		return 0, fmt.Errorf("systemd-analyze security: %v: %.200s", err, out)
	}
	return strconv.Atoi(string(m[1]) + string(m[2]))
}
