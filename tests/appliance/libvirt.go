package appliance

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strings"
)

// Hypervisor is a libvirt daemon of the test's own: Debian's libvirtd and QEMU, in a network and a mount namespace, with its
// files in the test's folder. What runs on the machine already is not touched.
type Hypervisor struct {
	r      *Rig
	socket string
	Images string // folder of the storage pool "default"
}

// URI is that of the daemon for the provider.
func (h *Hypervisor) URI() string { return "qemu:///system?socket=" + h.socket }

const networkXML = `<network><name>service</name><bridge name='virbr-shoal' stp='off' delay='0'/><dns enable='no'/></network>`

// Hypervisor starts one, with a storage pool "default" and a network "service". Its machines are emulated.
func (r *Rig) Hypervisor() *Hypervisor {
	r.T.Helper()
	// Sockets have short names: the kernel takes 107 bytes.
	short, err := os.MkdirTemp("/tmp", "shoal-lv-")
	if err != nil {
		r.T.Fatal(err)
	}
	r.T.Cleanup(func() { _ = os.RemoveAll(short) }) // of the daemon, which has ended
	h := &Hypervisor{r: r, socket: short + "/run/libvirt-sock", Images: short + "/images"}
	for _, folder := range []string{"run", "lib", "etc", "cache", "log", "images"} {
		if err := os.MkdirAll(short+"/"+folder, 0o755); err != nil {
			r.T.Fatal(err)
		}
	}
	if err := os.Chmod(short, 0o755); err != nil {
		r.T.Fatal(err)
	}
	for name, text := range map[string]string{
		"qemu.conf":     "security_driver = \"none\"\nuser = \"root\"\ngroup = \"root\"\ncgroup_controllers = []\nnamespaces = []\nstdio_handler = \"file\"\nremember_owner = 0\n",
		"libvirtd.conf": "unix_sock_group = \"root\"\nauth_unix_rw = \"none\"\nauth_unix_ro = \"none\"\n",
	} {
		if err := os.WriteFile(short+"/etc/"+name, []byte(text), 0o600); err != nil {
			r.T.Fatal(err)
		}
	}
	// A process namespace of its own: the machines end with the daemon. Its first process is the shell, which buries what is
	// orphaned: libvirtd would not, and would wait for it.
	r.spawn("libvirtd", "unshare", "--mount", "--net", "--pid", "--fork", "--kill-child", "--mount-proc", "--propagation", "private", "sh", "-ec",
		`ip link set lo up
		for d in run:/run/libvirt lib:/var/lib/libvirt etc:/etc/libvirt cache:/var/cache/libvirt log:/var/log/libvirt; do
			mkdir -p ${d#*:}; mount --bind $0/${d%%:*} ${d#*:}
		done
		libvirtd --config /etc/libvirt/libvirtd.conf --pid-file $0/pid; exit $?`, short)
	r.Wait("libvirtd answers", func() error {
		c, err := net.Dial("unix", h.socket)
		if err == nil {
			c.Close()
			_, err = h.virsh("version")
		}
		return err
	})
	r.Put("network.xml", "%s", networkXML)
	for _, args := range [][]string{
		{"pool-define-as", "default", "dir", "--target", h.Images}, {"pool-start", "default"},
		{"net-define", r.Path("network.xml")}, {"net-start", "service"},
	} {
		h.Virsh(args...)
	}
	return h
}

// Virsh asks the daemon, past the provider.
func (h *Hypervisor) Virsh(args ...string) string {
	h.r.T.Helper()
	out, err := h.virsh(args...)
	if err != nil {
		h.r.T.Fatal(err)
	}
	return out
}

func (h *Hypervisor) virsh(args ...string) (string, error) {
	cmd := exec.Command("virsh", append([]string{"-q", "-c", h.URI()}, args...)...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("virsh %s: %w: %s", strings.Join(args, " "), err, errs.String())
	}
	return strings.TrimSpace(out.String()), nil
}

// Disk makes an image of this size, such as 64M, whose content is the machine's business alone; each has other bytes.
func (r *Rig) Disk(name, size string) string {
	r.T.Helper()
	path := r.Path(name)
	if out, err := exec.Command("qemu-img", "create", "-q", "-f", "qcow2", path, size).CombinedOutput(); err != nil {
		r.T.Fatalf("qemu-img: %v: %s", err, out)
	}
	if out, err := exec.Command("qemu-io", "-f", "qcow2", "-c", "write -P "+fmt.Sprint(len(name)%250+1)+" 0 4096", path).CombinedOutput(); err != nil {
		r.T.Fatalf("qemu-io: %v: %s", err, out)
	}
	return path
}
