package nfs

import (
	"bytes"
	"fmt"
	"net"
	"net/rpc"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"shoal/daemons/nfsguest/proto"
)

// A rig is a file server and its clients.
type rig struct {
	t       *testing.T
	server  *kernel
	clients []*kernel
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
	away    atomic.Bool // it is being booted again: not to be asked
}

// plan says what to boot. A zero value elsewhere than in fs and clients means what the storage ships with.
type plan struct {
	fs       string // of the exported disk: xfs, ext4
	clients  int
	mount    string // options of the clients
	export   string // options of the export
	disk     string // options of the server's own mount of the disk
	size     int64  // of the disk, in bytes
	clockOff []int  // hours by which the clock of each client is wrong
}

// account is where tests of single operations keep mail.
const account = "nfs-account-1"

const export = "rw,sync,no_root_squash,fsid=0,no_subtree_check,insecure"

// bounds that are never reached but by what hangs: the machine may be slow.
const (
	bootTime = 4 * time.Minute
	callTime = 3 * time.Minute
)

var guest = sync.OnceValues(func() (string, error) {
	path := program + "/nfsguest"
	return path, buildProgram(path, "nfsguest", "-tags", "shoalknobs")
})

// buildProgram builds a command of this module so that it runs in the guests.
func buildProgram(path, name string, flags ...string) error {
	c := exec.Command("go", append(append([]string{"build"}, flags...), "-o", path, "shoal/daemons/"+name)...)
	c.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := c.CombinedOutput(); err != nil {
		return fmt.Errorf("go build %s: %w: %s", name, err, out)
	}
	return nil
}

// boot starts a file server on a new file system of the given type, and n clients.
func boot(t *testing.T, fs string, n int) *rig {
	t.Helper()
	return plan{fs: fs, clients: n}.boot(t)
}

func (p plan) boot(t *testing.T) *rig {
	t.Helper()
	def := func(s *string, v string) {
		if *s == "" {
			*s = v
		}
	}
	def(&p.mount, options)
	def(&p.export, export)
	if p.size == 0 {
		p.size = 2 << 30
	}
	dir, err := os.MkdirTemp(shm, "rig")
	if err != nil {
		t.Fatal(err)
	}
	disk, state := filepath.Join(dir, "disk"), filepath.Join(dir, "state")
	format(t, disk, p.fs, p.size)
	format(t, state, "ext4", 64<<20)
	r := &rig{t: t}
	r.server = &kernel{t: t, name: "server", index: 0, args: []string{
		"shoal.role=server", "shoal.fs=" + p.fs, "shoal.disk=" + p.disk, "shoal.export=" + p.export, "ubd0=" + disk, "ubd1=" + state,
	}}
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
	for i := range p.clients {
		k := &kernel{t: t, name: fmt.Sprintf("box%d", i+1), index: i + 1, args: []string{"shoal.role=client", "shoal.server=" + network + "1", "shoal.options=" + p.mount}}
		if i < len(p.clockOff) {
			k.args = append(k.args, fmt.Sprintf("shoal.clock=%d", p.clockOff[i]))
		}
		r.clients = append(r.clients, k)
		k.start()
	}
	for _, k := range r.clients {
		k.ready()
	}
	return r
}

// format makes a disk image. It is sparse.
func format(t *testing.T, path, fs string, size int64) {
	t.Helper()
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(path, size); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("mkfs."+fs, "-q", path).CombinedOutput(); err != nil {
		t.Fatalf("mkfs.%s: %v: %s", fs, err, out)
	}
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
	deadline := time.Now().Add(bootTime)
	for {
		c, err := net.DialTimeout("tcp", k.endpoint(proto.Port), time.Second)
		if err == nil {
			k.rpc = rpc.NewClient(c)
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

// restart kills a kernel and boots it again, on the same disks.
func (k *kernel) restart() {
	k.t.Helper()
	began := time.Now()
	k.kill()
	k.start()
	k.ready()
	k.t.Logf("%s killed, and back after %v", k.name, time.Since(began).Round(time.Millisecond))
}

// signal goes to the kernel alone: its processes are stopped by it whenever they do not run.
func (k *kernel) signal(s syscall.Signal) {
	k.t.Helper()
	if err := syscall.Kill(k.cmd.Process.Pid, s); err != nil {
		k.t.Fatal(err)
	}
	k.t.Logf("%s: %v", k.name, s)
}

// plug puts a kernel's cable into the switch, or takes it out. The tap itself stays up: the driver in the guest does not
// survive writes that fail.
func (k *kernel) plug(in bool) {
	k.t.Helper()
	args := []string{"link", "set", fmt.Sprintf("t%d", k.index), "nomaster"}
	if in {
		args = append(args[:3], "master", "br0")
	}
	if out, err := exec.Command("ip", args...).CombinedOutput(); err != nil {
		k.t.Fatalf("%v: %s", err, out)
	}
	k.t.Logf("%s has its cable in: %v", k.name, in)
}

// try asks the guest. errDied: the kernel ended, or its connection did, and what was asked for may have happened or not.
func try[R any](k *kernel, method string, args any) (R, error) {
	var reply R
	c := k.rpc.Go("Guest."+method, args, &reply, make(chan *rpc.Call, 1))
	select {
	case <-c.Done:
		if c.Error == nil {
			return reply, nil
		}
		if _, said := c.Error.(rpc.ServerError); said {
			return reply, c.Error
		}
		return reply, fmt.Errorf("%w: %w", errDied, c.Error)
	case <-k.done:
		return reply, errDied
	case <-time.After(callTime):
		return reply, fmt.Errorf("no answer in %v; %s does:\n%s", callTime, k.name, k.stacks())
	}
}

// stacks says what the guest's program is doing.
func (k *kernel) stacks() string {
	var out []byte
	c := k.rpc.Go("Guest.Stacks", proto.None{}, &out, make(chan *rpc.Call, 1))
	select {
	case <-c.Done:
		return string(out)
	case <-time.After(10 * time.Second):
		return "nothing: it does not answer at all"
	}
}

var errDied = fmt.Errorf("the kernel ended")

// call asks the guest; it fails the test on an error.
func call[R any](k *kernel, method string, args any) R {
	k.t.Helper()
	r, err := try[R](k, method, args)
	if err != nil {
		k.t.Fatalf("%s: %s: %v", k.name, method, err)
	}
	return r
}

// run runs a command in the guest, and fails the test if the command does.
func (k *kernel) run(args ...string) string {
	k.t.Helper()
	return string(call[[]byte](k, "Run", args))
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
