// Package images tests what `make deb` and `make images` build: packages, the first boot, and every role in a container
// with its own systemd. What needs a virtual machine is in tests/images/boot.
package images

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// root is the folder of the repository.
const root = "../.."

// command runs a command in the repository and returns what it says; its failure is the test's.
func command(t *testing.T, env []string, name string, args ...string) string {
	t.Helper()
	out, err := try(env, name, args...)
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return out
}

func try(env []string, name string, args ...string) (string, error) {
	cmd := exec.Command(name, args...)
	cmd.Dir = root
	cmd.Env = append(os.Environ(), env...)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	err := cmd.Run()
	return out.String(), err
}

// packages are the built packages: their folder, made once.
var packages = sync.OnceValues(func() (string, error) {
	dir, err := filepath.Abs(filepath.Join(root, "var/images/deb"))
	if err != nil {
		return "", err
	}
	if out, err := try(nil, "go", "run", "./images/tool", "deb", "-out", dir); err != nil {
		return "", fmt.Errorf("%w: %s", err, out)
	}
	return dir, nil
})

// debs are the files of the packages.
func debs(t *testing.T) []string {
	t.Helper()
	dir, err := packages()
	if err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob(filepath.Join(dir, "*.deb"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no packages in %s: %v", dir, err)
	}
	return files
}

func digest(t *testing.T, file string) string {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("%x", sha256.Sum256(b))
}

// The same commit gives the same bytes, in another folder and under another mask of rights.
func TestPackagesAreReproducible(t *testing.T) {
	again := t.TempDir()
	command(t, []string{"TMPDIR=" + t.TempDir()}, "sh", "-c", `umask 077; exec go run ./images/tool deb -out "$0"`, again)
	for _, file := range debs(t) {
		if a, b := digest(t, file), digest(t, filepath.Join(again, filepath.Base(file))); a != b {
			t.Errorf("%s: %s, built again %s", filepath.Base(file), a, b)
		}
	}
}

// Debian's own checker finds nothing but that the project has no mail address yet.
func TestLintian(t *testing.T) {
	args := append([]string{"--fail-on", "error,warning", "--suppress-tags", "bogus-mail-host", "--allow-root"}, debs(t)...)
	command(t, nil, "lintian", args...)
}
