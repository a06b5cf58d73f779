// Package libvirt applies the whole service to a real libvirt: Terraform with the project's provider makes the machines, of the
// images that `make images` builds, under emulation where the processor cannot do better. `make test-appliance` runs it.
//
// The test runs itself once more in namespaces of its own (network, mounts, processes): there it starts libvirtd with folders of
// its own, and everything in there ends with it, however it ends.
//
// SHOAL_IMAGES=1 takes the images of dist/images as they are; SHOAL_KEEP=1 keeps the folder of a run that failed.
package libvirt

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"
)

// inside is the variable by which the test knows that it runs in its namespaces; it names the folder of its files.
const inside = "SHOAL_LIBVIRT_DIR"

// root is the folder of the repository.
var root = func() string {
	dir, err := filepath.Abs("../..")
	if err != nil {
		panic(err)
	}
	return dir
}()

// What the outer part prepares and the inner part uses.
var (
	dir    = os.Getenv(inside)
	images = filepath.Join(root, "dist/images")
	bin    = filepath.Join(root, "bin")
	cli    = filepath.Join(root, "dist/terraform/cli.tfrc")
	tool   = os.Getenv("SHOAL_TERRAFORM")
)

func TestMain(m *testing.M) {
	if dir != "" {
		os.Exit(m.Run())
	}
	code, err := outside()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

// outside builds what is needed, with the network of this machine, and runs the tests in namespaces.
func outside() (code int, err error) {
	if os.Getuid() != 0 {
		return 1, fmt.Errorf("machines of libvirt need root")
	}
	out := func(name string, args ...string) (string, error) {
		cmd := exec.Command(name, args...)
		cmd.Dir = root
		var o, e bytes.Buffer
		cmd.Stdout, cmd.Stderr = &o, &e
		if err := cmd.Run(); err != nil {
			return "", fmt.Errorf("%s %s: %w\n%s%s", name, strings.Join(args, " "), err, o.String(), e.String())
		}
		return strings.TrimSpace(o.String()), nil
	}
	if tool, err = out("scripts/terraform", "tool"); err != nil {
		return 1, err
	}
	if _, err = out("scripts/terraform", "mirror"); err != nil {
		return 1, err
	}
	begin := time.Now()
	if os.Getenv("SHOAL_IMAGES") == "" {
		if _, err = out("go", "run", "./images/tool", "images", "-check=false", "-formats", "qcow2", "-out", images, "vault", "storage", "lb", "switch", "box"); err != nil {
			return 1, err
		}
	}
	fmt.Printf("images: %.0f s\n", time.Since(begin).Seconds())
	work, err := os.MkdirTemp(filepath.Join(root, "var"), "libvirt-")
	if err != nil {
		return 1, err
	}
	defer func() {
		if code == 0 || os.Getenv("SHOAL_KEEP") == "" {
			_ = os.RemoveAll(work)
		}
	}()
	runtime.LockOSThread() // the death of the parent is that of its thread
	// The namespace's first process is a shell, which buries what is orphaned: libvirtd waits for programs that others should bury.
	cmd := exec.Command("unshare", append([]string{"--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "--propagation", "private", "--",
		"sh", "-c", `"$0" "$@"; exit $?`, os.Args[0]}, os.Args[1:]...)...)
	cmd.Env = append(os.Environ(), inside+"="+work, "SHOAL_TERRAFORM="+tool)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Run(); err != nil && cmd.ProcessState == nil {
		return 1, err
	}
	return cmd.ProcessState.ExitCode(), nil
}

// hypervisor is a libvirtd with folders of its own.
type hypervisor struct {
	t   *testing.T
	log string
}

// qemuConf: the machine has no tree of cgroups to share, no AppArmor to load profiles into, and no virtlogd.
const qemuConf = `security_driver = "none"
user = "root"
group = "root"
dynamic_ownership = 0
remember_owner = 0
cgroup_controllers = []
namespaces = []
stdio_handler = "file"
`

const networkXML = `<network><name>service</name><forward mode='open'/><bridge name='virbr-service' stp='off' delay='0'/><dns enable='no'/>
<ip address='10.20.0.1' prefix='20'/><ip family='ipv6' address='fd00:20::1' prefix='64'/></network>`

// startHypervisor starts libvirtd with a network and a storage pool.
func startHypervisor(t *testing.T) *hypervisor {
	t.Helper()
	h := &hypervisor{t: t, log: filepath.Join(dir, "libvirtd.log")}
	run(t, "ip", "link", "set", "lo", "up")
	for name, at := range map[string]string{"run": "/run/libvirt", "lib": "/var/lib/libvirt", "etc": "/etc/libvirt", "cache": "/var/cache/libvirt", "log": "/var/log/libvirt"} {
		for _, d := range []string{filepath.Join(dir, name), at} {
			if err := os.MkdirAll(d, 0o755); err != nil {
				t.Fatal(err)
			}
		}
		if err := syscall.Mount(filepath.Join(dir, name), at, "", syscall.MS_BIND, ""); err != nil {
			t.Fatalf("bind mount %s: %v", at, err)
		}
	}
	for _, d := range []string{"/var/lib/libvirt/dnsmasq", "/var/lib/libvirt/qemu", "/var/log/libvirt/qemu"} { // as the package has them
		if err := os.MkdirAll(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	put(t, "/etc/libvirt/qemu.conf", qemuConf)
	put(t, "/etc/libvirt/libvirtd.conf", "auth_unix_rw = \"none\"\nauth_unix_ro = \"none\"\n")
	log, err := os.Create(h.log)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("libvirtd", "--pid-file", filepath.Join(dir, "libvirtd.pid"))
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	t.Cleanup(func() {
		_ = cmd.Process.Kill() // everything ends with the namespace
		<-ended
		log.Close()
		if t.Failed() {
			b, _ := os.ReadFile(h.log)
			t.Logf("libvirtd: %s", tail(b, 3000))
		}
	})
	until(t, "libvirtd", time.Minute, func() error {
		out, err := exec.Command("virsh", "-q", "-c", "qemu:///system", "version").CombinedOutput()
		if err != nil {
			return fmt.Errorf("%w: %s", err, out)
		}
		return nil
	})
	if err := os.MkdirAll(filepath.Join(dir, "pool"), 0o755); err != nil {
		t.Fatal(err)
	}
	h.virsh("pool-create-as", "default", "dir", "--target", filepath.Join(dir, "pool"))
	file := filepath.Join(dir, "network.xml")
	put(t, file, networkXML)
	h.virsh("net-create", file)
	return h
}

// virsh runs a command of libvirt's own client.
func (h *hypervisor) virsh(args ...string) string {
	h.t.Helper()
	return run(h.t, "virsh", append([]string{"-q", "-c", "qemu:///system"}, args...)...)
}

// names are the things that a list of virsh names.
func (h *hypervisor) names(args ...string) []string {
	h.t.Helper()
	return strings.Fields(h.virsh(args...))
}

// run runs a program; its failure is the test's.
func run(t *testing.T, name string, args ...string) string {
	t.Helper()
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

func put(t *testing.T, name, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func tail(b []byte, n int) string { return string(b[max(0, len(b)-n):]) }

// until asks again and again until there is no error.
func until(t *testing.T, what string, patience time.Duration, ask func() error) {
	t.Helper()
	end := time.NewTimer(patience)
	defer end.Stop()
	tick := time.NewTicker(300 * time.Millisecond)
	defer tick.Stop()
	for {
		err := ask()
		if err == nil {
			return
		}
		select {
		case <-end.C:
			t.Fatalf("%s: %v", what, err)
		case <-tick.C:
		}
	}
}
