// Command nfsguest is the first process of the kernels that tests/nfs boots. It sets up the machine that it
// finds itself on (a file server, or a client that mounts it), and then does what the rig asks for over net/rpc: real
// operations of the message store through the kernel's NFS client.
//
// On the rig's own side it prepares certificates and a directory for the mail service (site.go), because only programs of the
// module may use the packages that do.
//
// What it is told stands on the kernel's command line: shoal.role (server, client), shoal.addr, shoal.name; server:
// shoal.fs (type of the disk to export), shoal.disk (how to mount it), shoal.export (options of the export); client: shoal.server and
// shoal.options (what to mount and how), shoal.clock (hours by which its clock is wrong).
package main

import (
	"fmt"
	"log/slog"
	"net"
	"net/rpc"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"shoal/daemons/nfsguest/proto"
)

func main() {
	if len(os.Args) == 3 && os.Getpid() != 1 {
		if err := site(os.Args[1], os.Args[2]); err != nil {
			fmt.Fprintln(os.Stderr, "nfsguest:", err)
			os.Exit(1)
		}
		return
	}
	if os.Getpid() != 1 {
		fmt.Fprintln(os.Stderr, "nfsguest is the first process of a kernel booted by tests/nfs: run make test-nfs")
		os.Exit(2)
	}
	log := slog.New(slog.NewTextHandler(os.Stdout, nil))
	if err := boot(log); err != nil {
		log.Error("boot", "err", err)
		_ = unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF)
	}
}

func boot(log *slog.Logger) error {
	os.Setenv("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
	if err := unix.Mount("proc", "/proc", "proc", 0, ""); err != nil {
		return fmt.Errorf("mount /proc: %w", err)
	}
	line, err := os.ReadFile("/proc/cmdline")
	if err != nil {
		return err
	}
	arg := map[string]string{}
	for _, f := range strings.Fields(string(line)) {
		if k, v, ok := strings.Cut(f, "="); ok {
			arg[strings.TrimPrefix(k, "shoal.")] = v
		}
	}
	steps := []func() error{
		mount("sys", "/sys", "sysfs"), mount("run", "/run", "tmpfs"), mount("mnt", "/mnt", "tmpfs"), mount("nfs", "/var/lib/nfs", "tmpfs"),
		func() error { return os.WriteFile("/proc/sys/kernel/hostname", []byte(arg["name"]), 0o644) },
		modules,
		run("ip", "link", "set", "lo", "up"),
		run("ip", "address", "add", arg["addr"]+"/24", "dev", "vec0"),
		run("ip", "link", "set", "vec0", "up"),
	}
	if arg["role"] == "server" {
		steps = append(steps, fileServer(arg)...)
	} else {
		steps = append(steps, func() error { return setClock(arg["clock"]) }, modprobe("nfsv4"), dir(proto.Export), func() error { return mountNFS(arg) })
	}
	for _, step := range steps {
		if err := step(); err != nil {
			return err
		}
	}
	l, err := net.Listen("tcp", fmt.Sprintf("%s:%d", arg["addr"], proto.Port))
	if err != nil {
		return err
	}
	g := &Guest{log: log, arg: arg}
	s := rpc.NewServer()
	if err := s.RegisterName("Guest", g); err != nil {
		return err
	}
	log.Info("ready", "name", arg["name"])
	s.Accept(l)
	return nil
}

// fileServer exports the disk image over NFSv4 only. Lease and grace are short, so that a restart costs seconds; the clients
// known to the server are kept on a disk of their own, so that the exported one can be filled up and made read-only.
func fileServer(arg map[string]string) []func() error {
	const state = "/var/lib/nfs"
	return []func() error{
		modprobe("nfsd"),
		dir(proto.Disk), mountWith("/dev/ubda", proto.Disk, arg["fs"], arg["disk"]),
		dir("/mnt/state"), mount("/dev/ubdb", "/mnt/state", "ext4"),
		dir(proto.Disk + "/export"), dir(state + "/rpc_pipefs"), dir("/run/rpc_pipefs"),
		func() error { return os.Chmod(proto.Disk+"/export", 0o777) },
		mount("nfsd", "/proc/fs/nfsd", "nfsd"),
		mount("pipe", state+"/rpc_pipefs", "rpc_pipefs"),
		set("/proc/sys/fs/leases-enable", "0"),
		func() error { return os.WriteFile(state+"/etab", nil, 0o644) },
		func() error { return os.WriteFile(state+"/rmtab", nil, 0o644) },
		run("nfsdcld", "-s", "/mnt/state", "-p", state+"/rpc_pipefs/nfsd"),
		set("/proc/fs/nfsd/max_block_size", "1048576"), // as a server with more memory has by itself
		set("/proc/fs/nfsd/nfsv4leasetime", "10"),
		set("/proc/fs/nfsd/nfsv4gracetime", "10"),
		run("exportfs", "-i", "-o", arg["export"], "*:"+proto.Disk+"/export"),
		run("rpc.nfsd", "-N", "3", "-V", "4", "8"),
		run("rpc.mountd", "-N", "3", "-N", "2"),
	}
}

func mountNFS(arg map[string]string) error {
	options := arg["options"] + ",addr=" + arg["server"] + ",clientaddr=" + arg["addr"]
	if err := unix.Mount(arg["server"]+":/", proto.Export, "nfs4", 0, options); err != nil {
		return fmt.Errorf("mount %s with %s: %w", arg["server"], options, err)
	}
	return nil
}

// setClock makes the clock of this kernel wrong by some hours.
func setClock(hours string) error {
	if hours == "" {
		return nil
	}
	h, err := strconv.Atoi(hours)
	if err != nil {
		return fmt.Errorf("shoal.clock: %w", err)
	}
	t := unix.NsecToTimeval(time.Now().Add(time.Duration(h) * time.Hour).UnixNano())
	if err := unix.Settimeofday(&t); err != nil {
		return fmt.Errorf("set the clock: %w", err)
	}
	return nil
}

// modules makes the modules of this kernel known where modprobe looks for them when told "-d /run/modprobe"; the root
// is the machine's own and is not written to.
func modules() error {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return err
	}
	release := unix.ByteSliceToString(u.Release[:])
	if err := os.MkdirAll("/run/modprobe/lib/modules", 0o755); err != nil {
		return err
	}
	return os.Symlink("/usr/lib/uml/modules/"+release, "/run/modprobe/lib/modules/"+release)
}

func modprobe(name string) func() error { return run("modprobe", "-d", "/run/modprobe", name) }

func mount(what, where, kind string) func() error { return mountWith(what, where, kind, "") }

func mountWith(what, where, kind, options string) func() error {
	return func() error {
		if err := unix.Mount(what, where, kind, 0, options); err != nil {
			return fmt.Errorf("mount %s on %s: %w", kind, where, err)
		}
		return nil
	}
}

func dir(path string) func() error { return func() error { return os.MkdirAll(path, 0o755) } }

func set(path, value string) func() error {
	return func() error { return os.WriteFile(path, []byte(value), 0o644) }
}

func run(name string, args ...string) func() error {
	return func() error {
		c := exec.Command(name, args...)
		c.Stdout, c.Stderr = os.Stdout, os.Stdout
		if err := c.Run(); err != nil {
			return fmt.Errorf("%s %s: %w", name, strings.Join(args, " "), err)
		}
		return nil
	}
}
