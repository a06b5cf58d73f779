package images

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// roles are those that there are recipes for.
func roles(t *testing.T) []string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(root, "images/*/role.hcl"))
	if err != nil || len(files) < 7 {
		t.Fatalf("%v %v", files, err)
	}
	var names []string
	for _, f := range files {
		if name := filepath.Base(filepath.Dir(f)); name != "base" {
			names = append(names, name)
		}
	}
	return names
}

// check runs the acceptance checks on roles.
func check(t *testing.T, names ...string) (string, error) {
	t.Helper()
	return try(nil, "tool", append([]string{"check", "-debs", filepath.Dir(debs(t)[0])}, names...)...)
}

// Every role is built, looked at, and started in a container with a systemd of its own: its ports and no others listen, its
// units run, its daemons are confined, users have their numbers, and nothing of the machine that built it is in it.
func TestRolesAreAccepted(t *testing.T) {
	if os.Getuid() != 0 {
		t.Fatal("building a Debian system needs root")
	}
	out, err := check(t, roles(t)...)
	t.Log(out)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range roles(t) {
		if !strings.Contains(out, name+": accepted") {
			t.Errorf("%s was not accepted", name)
		}
	}
	// The checks find what they are to find.
	dirs, err := filepath.Glob(filepath.Join(root, "var/images/vault-????????????????"))
	if err != nil || len(dirs) != 1 {
		t.Fatalf("trees of vault: %q %v", dirs, err)
	}
	bad := filepath.Join(t.TempDir(), "root")
	command(t, nil, "cp", "-a", mustAbs(t, dirs[0]), bad)
	for name, text := range map[string]string{
		"etc/machine-id":                      "0123456789abcdef0123456789abcdef\n",
		"etc/ssh/ssh_host_ed25519_key":        "x",
		"root/.ssh/authorized_keys":           "ssh-ed25519 A",
		"var/lib/shoal/identity/server.key":   "x",
		"etc/shoal/forgotten":                 "-----BEGIN EC " + "PRIVATE KEY-----\n",
		"etc/systemd/system/vaultd.service":   "[Service]\nExecStart=/usr/sbin/vaultd\n",
		"usr/share/shoal/role":                "box\n",
		"etc/sudo-by-mistake/everybody-write": "x",
	} {
		file := filepath.Join(bad, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for name, mode := range map[string]os.FileMode{"etc/sudo-by-mistake/everybody-write": 0o666, "usr/sbin/vaultd": 0o755 | os.ModeSetuid, "etc/shadow": 0o644} {
		if err := os.Chmod(filepath.Join(bad, name), mode); err != nil {
			t.Fatal(err)
		}
	}
	shadow := filepath.Join(bad, "etc/shadow")
	if err := os.WriteFile(shadow, []byte("root::1:::::\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	found, err := try(nil, "tool", "look", "vault", bad)
	if err == nil {
		t.Error("a bad tree was accepted")
	}
	for _, want := range []string{"/etc/machine-id holds an id", "/etc/ssh/ssh_host_ed25519_key must not", "/root/.ssh/authorized_keys must not", "/var/lib/shoal/identity must not",
		"/etc/shoal/forgotten holds a private key", "vaultd.service: its exposure is", `role says "box"`, "everybody-write may be written by everybody",
		"/usr/sbin/vaultd is u", "/etc/shadow has mode 0644", "user root has a password"} {
		if !strings.Contains(found, want) {
			t.Errorf("not found: %q in\n%s", want, found)
		}
	}
}

func mustAbs(t *testing.T, path string) string {
	t.Helper()
	abs, err := filepath.Abs(path)
	if err != nil {
		t.Fatal(err)
	}
	return abs
}

// A recipe with a mistake is refused, with the file and what is wrong.
func TestBadRecipes(t *testing.T) {
	for name, c := range map[string]struct{ text, want string }{
		"unknown attribute": {"role \"x\" {\n summary = \"x\"\n packages = []\n port = [1]\n}\n", "port"},
		"other name":        {"role \"y\" {\n summary = \"x\"\n packages = []\n}\n", "that of its folder"},
		"bad port":          {"role \"x\" {\n summary = \"x\"\n packages = []\n ports = [70000]\n}\n", "port 70000"},
		"bad unit":          {"role \"x\" {\n summary = \"x\"\n packages = []\n enable = [\"rm -rf\"]\n}\n", "no name of a unit"},
		"bad package":       {"role \"x\" {\n summary = \"x\"\n packages = [\"a; b\"]\n}\n", "no name of a package"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			if err := os.MkdirAll(filepath.Join(dir, "x"), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(dir, "x/role.hcl"), []byte(c.text), 0o644); err != nil {
				t.Fatal(err)
			}
			out, err := try(nil, "tool", "recipes", dir)
			if err == nil || !strings.Contains(out, c.want) || !strings.Contains(out, "role.hcl") {
				t.Errorf("%v: %s, wanted %q", err, out, c.want)
			}
		})
	}
}

// An upgrade in place installs only what the release's key has signed, byte for byte.
func TestUpgradeVerifies(t *testing.T) {
	release := t.TempDir()
	key := filepath.Join(t.TempDir(), "key")
	command(t, nil, "tool", "sign", "-key", key, "-debs", filepath.Dir(debs(t)[0]), release)
	other := filepath.Join(t.TempDir(), "other")
	command(t, nil, "tool", "sign", "-key", other, "-debs", filepath.Dir(debs(t)[0]), t.TempDir())
	bin := program(t, "dpkg-query", `echo 'install ok installed'`)
	upgrade := func(signers string) (string, error) {
		return try([]string{"SHOAL_SIGNERS=" + signers, "PATH=" + bin + ":" + os.Getenv("PATH")}, "images/packages/shoal-common/files/usr/sbin/shoal-upgrade", "--check", release)
	}
	out, err := upgrade(key + ".signers")
	if err != nil || !strings.Contains(out, "verified: ./shoal-agent_") || strings.Count(out, ".deb") != len(debs(t)) {
		t.Fatalf("%v: %s", err, out)
	}
	refused := func(why, signers, want string) {
		t.Helper()
		if out, err := upgrade(signers); err == nil || !strings.Contains(out, want) || !strings.Contains(out, "nothing was changed") {
			t.Errorf("%s: %v: %s, wanted %q", why, err, out, want)
		}
	}
	refused("another key", other+".signers", "is not by a key of")
	refused("no keys", key+".none", "is missing")
	deb, err := filepath.Glob(filepath.Join(release, "shoal-boxd_*.deb"))
	if err != nil || len(deb) != 1 {
		t.Fatalf("%q %v", deb, err)
	}
	content, err := os.ReadFile(deb[0])
	if err != nil {
		t.Fatal(err)
	}
	content[len(content)/2] ^= 1
	if err := os.WriteFile(deb[0], content, 0o644); err != nil {
		t.Fatal(err)
	}
	refused("a changed package", key+".signers", "a package is not what")
	manifest := filepath.Join(release, "MANIFEST.json")
	text, err := os.ReadFile(manifest)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(manifest, append(text, '\n'), 0o644); err != nil {
		t.Fatal(err)
	}
	refused("a changed manifest", key+".signers", "is not by a key of")
	if err := os.Remove(manifest + ".sig"); err != nil {
		t.Fatal(err)
	}
	refused("no signature", key+".signers", "only signed packages")
}

// Packer takes the templates, for each role and both builders.
func TestPackerValidate(t *testing.T) {
	out := command(t, nil, "packer/validate")
	for _, role := range append(roles(t), "base") {
		if !strings.Contains(out, role+" is valid") {
			t.Errorf("%s: %s", role, out)
		}
	}
}
