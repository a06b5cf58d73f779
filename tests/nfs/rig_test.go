// Package nfs runs the real message store on the real NFS client and server of Linux: several user-mode kernels, one of
// which exports a disk image while the others mount it.
//
// The test runs itself again in namespaces of its own (network, mounts, processes): bridge, taps, disk images and kernels
// all live there and are gone when it ends, however it ends. Root is needed, and what `scripts/install-deps nfs` installs.
package nfs

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

const (
	inside  = "SHOAL_NFS_INSIDE"
	network = "10.97.3."
	options = "vers=4.2,hard,proto=tcp,lookupcache=positive"
	shm     = "/dev/shm" // in our own mount namespace: images, memory of the kernels
	program = "/media"   // likewise: programs and files for the kernels (their /dev is not ours, their root is)
)

func TestMain(m *testing.M) {
	if os.Getenv(inside) == "" {
		if err := possible(); err != nil {
			fmt.Fprintln(os.Stderr, "tests/nfs:", err)
			os.Exit(1)
		}
		os.Exit(again())
	}
	if err := world(); err != nil {
		fmt.Fprintln(os.Stderr, "tests/nfs:", err)
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// possible says what this machine lacks.
func possible() error {
	if os.Geteuid() != 0 {
		return errors.New("root is needed: for namespaces, taps and bridges, and because the guests' root is this machine's")
	}
	var missing []string
	for _, name := range []string{"linux.uml", "ip", "modprobe", "mkfs.xfs", "mkfs.ext4", "rpc.nfsd", "rpc.mountd", "exportfs", "nfsdcld", "xfs_quota", "python3", "swaks", "curl"} {
		if _, err := exec.LookPath(name); err != nil {
			missing = append(missing, name)
		}
	}
	if len(missing) > 0 {
		return fmt.Errorf("not installed: %s: run scripts/install-deps nfs", strings.Join(missing, ", "))
	}
	tun, err := os.OpenFile("/dev/net/tun", os.O_RDWR, 0)
	if err != nil {
		return fmt.Errorf("no tap devices for the kernels' network: %w: load the module tun, or give the container /dev/net/tun", err)
	}
	return tun.Close()
}

// again runs this test in namespaces of its own. It is their first process: with it all the others end.
func again() int {
	runtime.LockOSThread() // the signal at the parent's death is tied to this thread
	c := exec.Command(os.Args[0], os.Args[1:]...)
	c.Env = append(os.Environ(), inside+"=1")
	c.Stdin, c.Stdout, c.Stderr = os.Stdin, os.Stdout, os.Stderr
	c.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET | syscall.CLONE_NEWNS | syscall.CLONE_NEWPID, Pdeathsig: syscall.SIGKILL}
	signal.Ignore(os.Interrupt)
	err := c.Run()
	if c.ProcessState == nil {
		fmt.Fprintln(os.Stderr, "tests/nfs: no namespaces of network, mounts and processes (CAP_SYS_ADMIN is needed):", err)
		return 1
	}
	if code := c.ProcessState.ExitCode(); code >= 0 {
		return code
	}
	return 1
}

// world makes the namespaces habitable: a bridge with taps, /proc, and memory for images.
func world() error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return err
	}
	if err := unix.Mount("proc", "/proc", "proc", 0, ""); err != nil {
		return err
	}
	if err := unix.Mount("shm", shm, "tmpfs", 0, "size=6g"); err != nil {
		return err
	}
	if err := unix.Mount("program", program, "tmpfs", 0, "size=256m"); err != nil {
		return err
	}
	commands := []string{"link set lo up", "link add br0 type bridge forward_delay 0", "address add " + network + "254/24 dev br0", "link set br0 up"}
	for i := range 5 {
		commands = append(commands, fmt.Sprintf("tuntap add dev t%d mode tap", i), fmt.Sprintf("link set t%d master br0", i), fmt.Sprintf("link set t%d up", i))
	}
	for _, c := range commands {
		if out, err := exec.Command("ip", strings.Fields(c)...).CombinedOutput(); err != nil {
			return fmt.Errorf("ip %s: %w: %s", c, err, out)
		}
	}
	return nil
}
