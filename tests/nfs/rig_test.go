// Package nfs runs the real message store on the real NFS client and server of Linux: several user-mode kernels, one of
// which exports a disk image while the others mount it.
//
// The test runs itself again in namespaces of its own (network, mounts, processes): bridge, taps, disk images and kernels
// all live there and are gone when it ends, however it ends. Root is needed, and what `scripts/install-deps nfs` installs.
package nfs

import (
	"bytes"
	"fmt"
	"net"
	"net/rpc"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"shoal/daemons/nfsguest/proto"
)

const (
	inside  = "SHOAL_NFS_INSIDE"
	network = "10.97.3."
	options = "vers=4.2,hard,proto=tcp,lookupcache=positive"
	shm     = "/dev/shm" // in our own mount namespace: images, memory of the kernels
	program = "/media"   // likewise: the program that the kernels run (their /dev is not ours)
)

func TestMain(m *testing.M) {
	if os.Getenv(inside) == "" {
		os.Exit(again())
	}
	if err := world(); err != nil {
		fmt.Fprintln(os.Stderr, "tests/nfs:", err)
		os.Exit(1)
	}
	os.Exit(m.Run())
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
		fmt.Fprintln(os.Stderr, "tests/nfs: root is needed (namespaces of network, mounts and processes):", err)
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

// A rig is a file server and its clients.
type rig struct {
	t       *testing.T
	server  *kernel
	clients []*kernel

	ledger *ledger
	over   []<-chan struct{} // loads
}

// A kernel is one user-mode kernel.
type kernel struct {
	t     *testing.T
	name  string
	index int
	args  []string

	cmd     *exec.Cmd
	console *lockedBuffer
	done    chan struct{}
	rpc     *rpc.Client
}

var guest = sync.OnceValues(func() (string, error) {
	path := program + "/nfsguest"
	c := exec.Command("go", "build", "-o", path, "shoal/daemons/nfsguest")
	c.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := c.CombinedOutput(); err != nil {
		return "", fmt.Errorf("go build: %w: %s", err, out)
	}
	return path, nil
})

// boot starts a file server on a new file system of the given type, and n clients.
func boot(t *testing.T, fs string, n int) *rig {
	t.Helper()
	return bootWith(t, fs, n, options)
}

func bootWith(t *testing.T, fs string, n int, options string) *rig {
	t.Helper()
	dir, err := os.MkdirTemp(shm, "rig")
	if err != nil {
		t.Fatal(err)
	}
	image := filepath.Join(dir, "disk")
	if err := os.WriteFile(image, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(image, 2<<30); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("mkfs."+fs, "-q", image).CombinedOutput(); err != nil {
		t.Fatalf("mkfs.%s: %v: %s", fs, err, out)
	}
	r := &rig{t: t}
	r.server = &kernel{t: t, name: "server", index: 0, args: []string{"shoal.role=server", "shoal.fs=" + fs, "ubd0=" + image}}
	t.Cleanup(func() {
		for _, k := range append([]*kernel{r.server}, r.clients...) {
			k.kill()
			if t.Failed() {
				t.Logf("console of %s:\n%s", k.name, k.console.tail(4000))
			}
		}
		os.RemoveAll(dir)
	})
	r.server.start()
	r.server.ready()
	for i := range n {
		k := &kernel{t: t, name: fmt.Sprintf("box%d", i+1), index: i + 1, args: []string{"shoal.role=client", "shoal.server=" + network + "1", "shoal.options=" + options}}
		r.clients = append(r.clients, k)
		k.start()
	}
	for _, k := range r.clients {
		k.ready()
	}
	return r
}

func (k *kernel) addr() string { return fmt.Sprintf("%s%d", network, k.index+1) }

func (k *kernel) endpoint(port int) string { return net.JoinHostPort(k.addr(), strconv.Itoa(port)) }

func (k *kernel) start() {
	k.t.Helper()
	binary, err := guest()
	if err != nil {
		k.t.Fatal(err)
	}
	if k.console == nil {
		k.console = &lockedBuffer{}
	}
	args := append([]string{
		"mem=384M", "root=/dev/root", "rootfstype=hostfs", "rootflags=/", "ro", "init=" + binary, "quiet", "panic=-1",
		fmt.Sprintf("vec0:transport=tap,ifname=t%d,depth=64,gro=1,mac=02:53:68:6f:00:%02x", k.index, k.index+1),
		"con=null", "con0=null,fd:1", "ssl=null", "console=tty0", "uml_dir=" + shm, "umid=" + fmt.Sprintf("%s-%d", k.name, time.Now().UnixNano()),
		"shoal.addr=" + k.addr(), "shoal.name=" + k.name,
	}, k.args...)
	k.cmd = exec.Command("linux.uml", args...)
	k.cmd.Env = append(os.Environ(), "TMPDIR="+shm)
	k.cmd.Stdout, k.cmd.Stderr = k.console, k.console
	k.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	k.cmd.WaitDelay = time.Second
	if err := k.cmd.Start(); err != nil {
		k.t.Fatalf("start a kernel (make install-deps): %v", err)
	}
	cmd, done := k.cmd, make(chan struct{})
	k.done = done
	go func() { _ = cmd.Wait(); close(done) }()
}

// ready waits until the kernel's first process answers.
func (k *kernel) ready() {
	k.t.Helper()
	deadline := time.Now().Add(90 * time.Second)
	for {
		c, err := rpc.Dial("tcp", k.endpoint(proto.Port))
		if err == nil {
			k.rpc = c
			return
		}
		select {
		case <-k.done:
			k.t.Fatalf("%s ended while it booted; its console:\n%s", k.name, k.console.tail(4000))
		case <-time.After(50 * time.Millisecond):
		}
		if time.Now().After(deadline) {
			k.t.Fatalf("%s does not answer (%v); its console:\n%s", k.name, err, k.console.tail(4000))
		}
	}
}

// kill is a crash: nothing is flushed, nobody is told.
func (k *kernel) kill() {
	if k.cmd == nil || k.cmd.Process == nil {
		return
	}
	_ = syscall.Kill(-k.cmd.Process.Pid, syscall.SIGKILL)
	<-k.done
	if k.rpc != nil {
		k.rpc.Close()
	}
}

// call asks the guest; it fails the test on an error.
func call[R any](k *kernel, method string, args any) R {
	k.t.Helper()
	var reply R
	c := k.rpc.Go("Guest."+method, args, &reply, make(chan *rpc.Call, 1))
	select {
	case <-c.Done:
		if c.Error != nil {
			k.t.Fatalf("%s: %s: %v", k.name, method, c.Error)
		}
	case <-k.done:
		k.t.Fatalf("%s: %s: the kernel ended", k.name, method)
	case <-time.After(2 * time.Minute):
		k.t.Fatalf("%s: %s: no answer", k.name, method)
	}
	return reply
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *lockedBuffer) tail(n int) string {
	b.mu.Lock()
	defer b.mu.Unlock()
	s := b.b.String()
	return s[max(0, len(s)-n):]
}
