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
	"syscall"
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

// try runs a command in the repository; "tool" is images/tool. It ends with the test.
func try(env []string, name string, args ...string) (string, error) {
	if name == "tool" {
		var err error
		if name, err = tool(); err != nil {
			return "", err
		}
	}
	cmd := exec.Command(name, args...)
	cmd.Dir = root
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
	cmd.Env = append(os.Environ(), env...)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	err := cmd.Run()
	return out.String(), err
}

// tool is images/tool, built once: a program that is run by `go run` would outlive a test that is killed.
var tool = sync.OnceValues(func() (string, error) {
	file, err := filepath.Abs(filepath.Join(root, "var/images/tool"))
	if err != nil {
		return "", err
	}
	cmd := exec.Command("go", "build", "-o", file, "./images/tool")
	cmd.Dir = root
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("%w: %s", err, out)
	}
	return file, nil
})

// packages are the built packages: their folder, made once.
var packages = sync.OnceValues(func() (string, error) {
	dir, err := filepath.Abs(filepath.Join(root, "var/images/deb"))
	if err != nil {
		return "", err
	}
	if out, err := try(nil, "tool", "deb", "-key", filepath.Join(dir, "test-key"), "-out", dir); err != nil {
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
	program, err := tool()
	if err != nil {
		t.Fatal(err)
	}
	keys := filepath.Join(t.TempDir(), "key")
	command(t, []string{"TMPDIR=" + t.TempDir()}, "sh", "-c", `umask 077; exec "$0" deb -key "$1" -out "$2"`, program, keys, again)
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
