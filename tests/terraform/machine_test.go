package terraform

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"shoal/tests/appliance"
	"shoal/tests/ports"
)

// fleet is two machines of one rolling group on a real libvirt. Their disks are empty: what serves in their place, and says that it
// is ready, are the real agents of lb1 and storage1, and HAProxy has a pool with a member for each.
type fleet struct {
	t      *testing.T
	r      *appliance.Rig
	h      *appliance.Hypervisor
	s      *stack
	lb     string
	values map[string]string
}

func newFleet(t *testing.T) *fleet {
	r := appliance.New(t)
	f := &fleet{t: t, r: r, h: r.Hypervisor(), lb: r.Balancer()}
	storage := r.Storage()
	at := ports.Take(t, 3)
	appliance.Echo(t, "lb1", at[1])
	appliance.Echo(t, "storage1", at[2])
	f.s = newStack(t, r)
	f.s.head = strings.Replace(f.s.head, "provider \"shoal\" {\n", fmt.Sprintf("provider \"shoal\" {\n  libvirt = { uri = %q }\n", f.h.URI()), 1)
	first := r.Disk("first.qcow2", "64M")
	f.values = map[string]string{
		"LB": f.lb, "STORAGE": storage, "BIND": at[0], "AT_LB1": at[1], "AT_STORAGE1": at[2], "FILE": first, "SUM": sum(t, first),
		"READY_LB1": f.lb, "READY_STORAGE1": storage, "MEMORY": "256", "ROOT": "1", "IMAGE": "shoal_image.role.path", "SECONDS": "60",
		"CREDENTIALS": "user_data_wo = var.secret", "URL": "https://192.0.2.1:7443",
	}
	return f
}

func sum(t *testing.T, file string) string {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	s := sha256.Sum256(b)
	return hex.EncodeToString(s[:])
}

// config is the configuration with some of its values replaced.
func (f *fleet) config(with ...string) string {
	text := `
variable "secret" {
  type      = string
  ephemeral = true
}
resource "shoal_image" "role" {
  name   = "role-${substr("@SUM@", 0, 8)}.qcow2"
  pool   = "default"
  source = "@FILE@"
  sha256 = "@SUM@"
  lifecycle {
    create_before_destroy = true
  }
}
resource "shoal_lb_pool" "imap" {
  agent = "@LB@"
  name  = "imap"
  bind  = ["@BIND@"]
}
resource "shoal_lb_member" "lb1" {
  agent   = shoal_lb_pool.imap.agent
  pool    = shoal_lb_pool.imap.name
  name    = "lb1"
  address = "@AT_LB1@"
}
resource "shoal_lb_member" "storage1" {
  agent   = shoal_lb_pool.imap.agent
  pool    = shoal_lb_pool.imap.name
  name    = "storage1"
  address = "@AT_STORAGE1@"
}
resource "shoal_server" "lb1" {
  name = "lb1"
  role = "lb"
}
resource "shoal_machine" "lb1" {
  name           = "lb1"
  pool           = "default"
  image          = @IMAGE@
  domain_type    = "qemu"
  memory_mib     = @MEMORY@
  vcpu           = 1
  root_gib       = @ROOT@
  data_gib       = 1
  keep_data      = false
  user_data      = jsonencode({ hostname = "lb1.example.test", shoal = { role = "lb", name = "lb1" } })
  network_config = jsonencode({ version = 2 })
  networks       = [{ network = "service", mac = "52:54:00:01:00:01" }]
  enrol          = { server = shoal_server.lb1.id, url = "@URL@", ca_sha256 = "@SUM@", hosts = ["lb1.example.test"] }
  ready          = { address = "@READY_LB1@", seconds = @SECONDS@ }
  rolling_group  = "pair"
  drain          = [{ agent = "@LB@", pool = "imap", member = shoal_lb_member.lb1.name }]
  drain_seconds  = 1
  stop_seconds   = 0
}
resource "shoal_machine" "storage1" {
  name          = "storage1"
  pool          = "default"
  image         = @IMAGE@
  domain_type   = "qemu"
  memory_mib    = 256
  vcpu          = 1
  root_gib      = @ROOT@
  user_data     = jsonencode({ shoal = { role = "storage", name = "storage1" } })
  @CREDENTIALS@
  networks      = [{ network = "service", mac = "52:54:00:05:00:01" }]
  ready         = { address = "@READY_STORAGE1@", seconds = @SECONDS@ }
  rolling_group = "pair"
  drain         = [{ agent = "@LB@", pool = "imap", member = shoal_lb_member.storage1.name }]
  drain_seconds = 1
  stop_seconds  = 0
}
`
	replaced := map[string]string{}
	for i := 0; i < len(with); i += 2 {
		replaced[with[i]] = with[i+1]
	}
	for k, v := range f.values {
		if w, ok := replaced[k]; ok {
			v = w
		}
		text = strings.ReplaceAll(text, "@"+k+"@", v)
	}
	return text
}

// backing is the image that a machine lies over.
func (f *fleet) backing(machine string) string {
	f.t.Helper()
	_, after, found := strings.Cut(f.h.Virsh("vol-dumpxml", "--pool", "default", machine+".qcow2"), "<backingStore>")
	path, _, closed := strings.Cut(after, "</path>")
	if !found || !closed {
		f.t.Fatalf("machine %s has no image", machine)
	}
	return filepath.Base(path)
}

// watch notes, until it is stopped, which of the members HAProxy had out of service at the same time.
func (f *fleet) watch() (stop func() (seen map[string]bool, both bool)) {
	seen, both, end := map[string]bool{}, false, make(chan struct{})
	var all sync.WaitGroup
	all.Go(func() {
		for {
			out := 0
			for _, l := range strings.Split(f.r.HAProxy("show servers state be_imap"), "\n") {
				if c := strings.Fields(l); len(c) > 6 && (c[3] == "lb1" || c[3] == "storage1") && c[6] != "0" {
					seen[c[3]] = true
					out++
				}
			}
			both = both || out > 1
			select {
			case <-time.After(10 * time.Millisecond):
			case <-end:
				return
			}
		}
	})
	return func() (map[string]bool, bool) {
		close(end)
		all.Wait()
		return seen, both
	}
}

// Images and machines of a real libvirt: made, changed in place, found again after somebody else's change, imported, rebuilt one at a
// time and drained, left alone after one that did not come back, destroyed with nothing left.
func TestMachines(t *testing.T) {
	f := newFleet(t)
	t.Setenv("TF_VAR_secret", `{"shoal": {"credentials": {"directory_password": "planted-in-the-seed"}}}`)
	logged := filepath.Join(f.s.dir, "trace.log")
	t.Setenv("TF_LOG", "TRACE")
	t.Setenv("TF_LOG_PATH", logged)
	f.s.apply(f.config())
	t.Setenv("TF_LOG", "")
	log, err := os.ReadFile(logged)
	if err != nil {
		t.Fatal(err)
	}
	for _, secret := range []string{"planted-in-the-seed", "shoal1-"} {
		if strings.Contains(f.s.state(), secret) || strings.Contains(string(log), secret) {
			t.Errorf("%s is in the state or in the log", secret)
		}
	}
	if out := f.h.Virsh("list", "--name"); !strings.Contains(out, "lb1") || !strings.Contains(out, "storage1") {
		t.Fatalf("machines that run: %s", out)
	}
	for machine, want := range map[string]string{"lb1": "shoal1-", "storage1": "planted-in-the-seed"} {
		seed, err := os.ReadFile(filepath.Join(f.h.Images, machine+"-seed.iso"))
		if err != nil || !strings.Contains(string(seed), want) {
			t.Errorf("the seed of %s has no credentials: %v", machine, err)
		}
		if xml := f.h.Virsh("dumpxml", machine); strings.Contains(xml, want) {
			t.Errorf("a secret of %s is in its description", machine)
		}
	}

	// Imported, both machines need no change at all; an image only learns where its file is.
	for address, id := range map[string]string{"shoal_machine.lb1": "default/lb1", "shoal_machine.storage1": "default/storage1"} {
		f.s.run(0, "state", "rm", address)
		f.s.run(0, "import", "-input=false", address, id)
	}
	f.s.clean()
	f.s.imported(map[string]string{"shoal_image.role": "default/" + f.backing("lb1")}, "shoal_image.role")

	// Drift: somebody gives a machine more memory, switches it off, and takes the other away.
	f.h.Virsh("setmaxmem", "lb1", "300M", "--config")
	f.h.Virsh("destroy", "lb1")
	if out := f.s.run(2, "plan", "-detailed-exitcode", "-input=false"); !strings.Contains(out, "memory_mib = 300 -> 256") || !strings.Contains(out, "running = false -> true") ||
		!strings.Contains(out, "machine lb1 is restarted") {
		t.Errorf("drift: %s", out)
	}
	f.h.Virsh("destroy", "storage1")
	f.h.Virsh("undefine", "storage1")
	if out := f.s.apply(f.config()); !strings.Contains(out, "1 added, 1 changed, 0 destroyed") {
		t.Errorf("mended: %s", out)
	}
	// In place: more memory, with its disks as they were.
	disks := inodes(t, f.h.Images, "lb1.qcow2", "lb1-data.qcow2")
	if out := f.s.apply(f.config("MEMORY", "260")); !strings.Contains(out, "0 added, 1 changed, 0 destroyed") {
		t.Errorf("more memory: %s", out)
	}
	if now := inodes(t, f.h.Images, "lb1.qcow2", "lb1-data.qcow2"); now != disks || !strings.Contains(f.h.Virsh("dominfo", "lb1"), "266240 KiB") {
		t.Errorf("disks %s, before %s; %s", now, disks, f.h.Virsh("dominfo", "lb1"))
	}

	// Another image: one machine after the other, each drained.
	second := f.r.Disk("second-image.qcow2", "64M")
	f.values["FILE"], f.values["SUM"], f.values["MEMORY"] = second, sum(t, second), "260"
	stop := f.watch()
	if out := f.s.apply(f.config()); !strings.Contains(out, "machine lb1 is rebuilt") {
		t.Errorf("another image: %s", out)
	}
	if seen, both := stop(); !seen["lb1"] || !seen["storage1"] || both {
		t.Errorf("drained: %v; both at once: %v", seen, both)
	}
	want := "role-" + f.values["SUM"][:8] + ".qcow2"
	if f.backing("lb1") != want || f.backing("storage1") != want {
		t.Errorf("over %s and %s, wanted %s", f.backing("lb1"), f.backing("storage1"), want)
	}
	if now := inodes(t, f.h.Images, "lb1-data.qcow2"); !strings.HasSuffix(disks, now) {
		t.Errorf("the data disk was made anew: %s, before %s", now, disks)
	}

	// An image with which nothing becomes ready: the second machine is left as it is, and applying again mends it.
	third := f.r.Disk("third-image-of-all.qcow2", "64M")
	f.values["FILE"], f.values["SUM"] = third, sum(t, third)
	closed := ports.Take(t, 1)[0]
	f.s.write(f.config("READY_LB1", closed, "READY_STORAGE1", closed, "SECONDS", "1"))
	out := f.s.run(1, "apply", "-auto-approve", "-input=false")
	if !strings.Contains(out, "is not ready after 1 s") || !strings.Contains(out, "so lb1 was left as it is") && !strings.Contains(out, "so storage1 was left as it is") {
		t.Errorf("an image that does not come up: %s", out)
	}
	if one, other := f.backing("lb1"), f.backing("storage1"); (one == want) == (other == want) {
		t.Errorf("over %s and %s: one was to be left over %s", one, other, want)
	}
	// It serves nobody while nobody knows whether it can.
	if out := f.s.run(2, "plan", "-detailed-exitcode", "-input=false"); !strings.Contains(out, "unfinished") {
		t.Errorf("the plan after that: %s", out)
	}
	f.s.apply(f.config())
	want = "role-" + f.values["SUM"][:8] + ".qcow2"
	if f.backing("lb1") != want || f.backing("storage1") != want {
		t.Errorf("mended, over %s and %s, wanted %s", f.backing("lb1"), f.backing("storage1"), want)
	}

	f.s.run(0, "destroy", "-auto-approve")
	if left := strings.TrimSpace(f.h.Virsh("list", "--all", "--name") + f.h.Virsh("vol-list", "default")); left != "" {
		t.Errorf("destroyed, and left: %s", left)
	}
}

func inodes(t *testing.T, folder string, names ...string) string {
	t.Helper()
	var all []string
	for _, name := range names {
		var st syscall.Stat_t
		if err := syscall.Stat(filepath.Join(folder, name), &st); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		all = append(all, fmt.Sprint(st.Ino))
	}
	return strings.Join(all, " ")
}

// What cannot be is refused while it is a plan, and nothing is made.
func TestMachinesThatCannotBe(t *testing.T) {
	f := newFleet(t)
	t.Setenv("TF_VAR_secret", `{"shoal": {}}`)
	outside := filepath.Join(t.TempDir(), "outside.qcow2")
	raw := f.r.Put("raw.img", "%s", strings.Repeat("not an image ", 100))
	large := f.r.Disk("large.qcow2", "3G")
	if out, err := os.ReadFile(large); err != nil || os.WriteFile(filepath.Join(f.h.Images, "large.qcow2"), out, 0o600) != nil {
		t.Fatal(err)
	}
	for what, c := range map[string]struct{ config, want string }{
		"another file":             {f.config("SUM", strings.Repeat("0", 64)), "is not the image that was meant"},
		"no image":                 {f.config("FILE", raw, "SUM", sum(t, raw)), "is not an image in qcow2 format"},
		"no file":                  {f.config("FILE", raw+".none"), "no such file"},
		"an image of no pool":      {f.config("IMAGE", fmt.Sprintf("%q", outside)), "no storage pool of the hypervisor has the image"},
		"a disk below its image":   {f.config("IMAGE", fmt.Sprintf("%q", filepath.Join(f.h.Images, "large.qcow2"))), "is less than the 3.0 GiB of its image"},
		"too little memory":        {f.config("MEMORY", "64"), "memory_mib"},
		"too much memory":          {f.config("MEMORY", "4000000"), "and the hypervisor has"},
		"a seed without secrets":   {f.config("CREDENTIALS", ""), "would boot as a storage that the others do not know"},
		"a seed that is no object": {strings.Replace(f.config(), `jsonencode({ shoal = { role = "storage", name = "storage1" } })`, `"shoal"`, 1), "must be a JSON object"},
	} {
		t.Run(what, func(t *testing.T) {
			s := *f.s
			s.t = t
			s.refused(c.config, c.want)
		})
	}
	head := f.s.head
	f.s.head = strings.Replace(head, f.h.URI(), "qemu:///system?socket=/nonexistent/libvirt-sock", 1)
	f.s.refused(f.config(), "libvirt at qemu:///system?socket=/nonexistent/libvirt-sock cannot be reached")
	f.s.head = head
	if left := strings.TrimSpace(f.h.Virsh("list", "--all", "--name")); left != "" {
		t.Errorf("refused, and made: %s", left)
	}

	// A machine that answers as somebody else is not ready; it is in the state, and the next apply makes it anew.
	f.s.write(f.config("READY_LB1", f.values["READY_STORAGE1"], "SECONDS", "1"))
	if out := f.s.run(1, "apply", "-auto-approve", "-input=false"); !strings.Contains(out, "answers storage1") {
		t.Errorf("the wrong server: %s", out)
	}
	if out := f.s.run(2, "plan", "-detailed-exitcode", "-input=false"); !strings.Contains(out, "shoal_machine.lb1 is tainted") {
		t.Errorf("the plan after that: %s", out)
	}
	f.s.apply(f.config())
	f.s.run(0, "destroy", "-auto-approve")
}
