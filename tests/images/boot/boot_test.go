// Package boot starts the images of roles in QEMU, as they are: BIOS, kernel, first boot from a seed on a CD, a blank data
// disk. It prints the time to ready and the memory in use, and shows that the state outlives the image.
package boot

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"shoal/tests/ports"
)

const root = "../../.."

// memoryLimit is what an idle machine may use, in MB.
const memoryLimit = 150

// patience bounds the start of a machine under emulation on a busy host.
const patience = 15 * time.Minute

func command(t *testing.T, name string, args ...string) string {
	t.Helper()
	cmd := exec.Command(name, args...)
	cmd.Dir = root
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

// machine is a virtual machine.
type machine struct {
	t         *testing.T
	cmd       *exec.Cmd
	address   string
	key, work string
	started   time.Time
	console   string
}

// start boots an image over a fresh overlay: what it writes to its system disk is gone with it.
func start(t *testing.T, image, seed, data, key string) *machine {
	t.Helper()
	m := &machine{t: t, work: t.TempDir(), key: key, address: ports.Take(t, 1)[0]}
	m.console = filepath.Join(m.work, "console")
	overlay := filepath.Join(m.work, "overlay.qcow2")
	command(t, "qemu-img", "create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", image, overlay)
	m.cmd = exec.Command("qemu-system-x86_64", "-machine", "q35", "-accel", "tcg,thread=multi", "-cpu", "max", "-smp", "2", "-m", "768", "-display", "none",
		"-no-reboot", "-serial", "file:"+m.console, "-monitor", "none",
		"-drive", "file="+overlay+",if=none,id=system,cache=unsafe", "-device", "virtio-blk-pci,drive=system,bootindex=1",
		"-drive", "file="+data+",if=none,id=data,format=raw,cache=writeback", "-device", "virtio-blk-pci,drive=data,serial=shoal-data",
		"-drive", "file="+seed+",if=virtio,format=raw,readonly=on",
		"-device", "virtio-rng-pci",
		"-netdev", fmt.Sprintf("user,id=n,hostfwd=tcp:%s-:22", m.address), "-device", "virtio-net-pci,netdev=n")
	var out bytes.Buffer
	m.cmd.Stdout, m.cmd.Stderr = &out, &out
	m.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	m.started = time.Now()
	if err := m.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = m.cmd.Process.Kill() // it may have ended
		_ = m.cmd.Wait()
		if t.Failed() {
			b, _ := os.ReadFile(m.console)
			t.Logf("console:\n%s\nqemu: %s", b[max(0, len(b)-4000):], out.String())
		}
	})
	// sshd's greeting: the machine is up.
	end := time.NewTimer(patience)
	defer end.Stop()
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for {
		if c, err := net.DialTimeout("tcp", m.address, time.Second); err == nil {
			if err := c.SetReadDeadline(time.Now().Add(5 * time.Second)); err != nil {
				t.Fatal(err)
			}
			b := make([]byte, 8)
			n, _ := c.Read(b)
			c.Close()
			if n > 3 && string(b[:4]) == "SSH-" {
				return m
			}
		}
		select {
		case <-end.C:
			t.Fatal("the machine does not answer")
		case <-tick.C:
		}
	}
}

// run runs a command on the machine.
func (m *machine) run(text string) string {
	m.t.Helper()
	out, err := m.try(text)
	if err != nil {
		m.t.Fatalf("%s: %v: %s", text, err, out)
	}
	return out
}

func (m *machine) try(text string) (string, error) {
	out, err := exec.Command("ssh", "-q", "-i", m.key, "-p", m.address[strings.LastIndex(m.address, ":")+1:], "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null",
		"-o", "ConnectTimeout=60", "root@127.0.0.1", text).CombinedOutput()
	return string(out), err
}

func (m *machine) stop() {
	m.t.Helper()
	_, _ = m.try("systemctl poweroff") // the connection ends with the machine
	ended := make(chan error, 1)
	go func() { ended <- m.cmd.Wait() }()
	select {
	case <-ended:
	case <-time.After(patience):
		m.t.Fatal("the machine does not end")
	}
}

func TestImagesBoot(t *testing.T) {
	work := t.TempDir()
	key := filepath.Join(work, "key")
	command(t, "ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key)
	names := strings.Fields(os.Getenv("SHOAL_ROLES"))
	if len(names) == 0 {
		names = []string{"vault", "switch", "box", "lb", "storage", "filter"}
	}
	for _, role := range names {
		t.Run(role, func(t *testing.T) {
			out := filepath.Join(work, role)
			t.Log(command(t, "go", "run", "./images/tool", "images", "-check=false", "-formats", "qcow2", "-out", out, role))
			images, err := filepath.Glob(filepath.Join(out, "*.qcow2"))
			if err != nil || len(images) != 1 {
				t.Fatalf("%q %v", images, err)
			}
			seed := filepath.Join(work, role+".iso")
			command(t, "go", "run", "./images/tool", "seed", "-login", key+".pub", "-debs", "var/images/deb", role, seed)
			data := filepath.Join(work, role+".data")
			if err := os.WriteFile(data, nil, 0o600); err != nil {
				t.Fatal(err)
			}
			if err := os.Truncate(data, 512<<20); err != nil {
				t.Fatal(err)
			}
			m := start(t, images[0], seed, data, key)
			ready := time.Since(m.started)
			cpu := m.cpu()
			memory := m.run("free -m | awk '/^Mem:/ {print $3}'")
			t.Logf("%s: SSH answers after %.1f s on this host as busy as it is, %.1f s of processor time; %s MB used", role, ready.Seconds(), cpu, strings.TrimSpace(memory))
			t.Log(m.run("systemd-analyze 2>/dev/null || true; systemctl list-units --state=failed --no-legend --plain"))
			used, err := strconv.Atoi(strings.TrimSpace(memory))
			if err != nil || used > memoryLimit && role != "filter" {
				t.Errorf("%q MB used, the limit is %d: %v", memory, memoryLimit, err)
			}
			if got := m.run("findmnt -no LABEL,TARGET /var/lib/shoal"); !strings.HasPrefix(got, "shoal-data ") {
				t.Errorf("the data disk is not mounted: %s", got)
			}
			identity := m.run("cat /var/lib/shoal/ssh/ssh_host_ed25519_key.pub; sha256sum /var/lib/shoal/identity/* 2>/dev/null || true; echo kept > /var/lib/shoal/kept; sync")
			if role == "storage" {
				m.run("systemctl is-active nfs-server; grep -q '+4.2' /proc/fs/nfsd/versions && grep -q -- '-3' /proc/fs/nfsd/versions; test $(cat /proc/sys/fs/leases-enable) = 0; findmnt -no FSTYPE /var/lib/shoal | grep -q xfs; ss -ltn | grep -q :2049")
			}
			m.stop()
			// The same data disk under a new system disk: the machine is who it was.
			m = start(t, images[0], seed, data, key)
			if again := m.run("cat /var/lib/shoal/ssh/ssh_host_ed25519_key.pub; sha256sum /var/lib/shoal/identity/* 2>/dev/null || true"); again != identity {
				t.Errorf("with a new image the machine is\n%snot\n%s", again, identity)
			}
			if got := m.run("cat /var/lib/shoal/kept"); got != "kept\n" {
				t.Errorf("state is lost: %q", got)
			}
			m.stop()
		})
	}
}

// cpu is the processor time that QEMU has used, in seconds.
func (m *machine) cpu() float64 {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", m.cmd.Process.Pid))
	if err != nil {
		m.t.Fatal(err)
	}
	_, after, _ := strings.Cut(string(b), ") ")
	f := strings.Fields(after)
	user, _ := strconv.ParseFloat(f[11], 64)
	system, _ := strconv.ParseFloat(f[12], 64)
	return (user + system) / 100
}
