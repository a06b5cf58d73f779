package libvirt

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

// One apply makes the service: storage, the directory's master and one shadow, a balancer, a switch, two boxes. Mail goes in and
// comes out through the balancer; a third box is added while a client stays connected and mail flows; a second apply changes
// nothing, drift is seen, machines and images can be imported, servers with a new image keep what is on their data disks; destroy
// leaves nothing.
func TestServiceOnLibvirt(t *testing.T) {
	h := startHypervisor(t)
	s := newStack(t)
	t.Cleanup(func() {
		if t.Failed() {
			s.look(h)
		}
	})
	s.apply("apply: storage, master, shadow, balancer, switch, two boxes")
	want := []string{"box1", "box2", "lb1", "storage1", "switch1", "vault1", "vault2"}
	if got := h.names("list", "--name"); !slices.Equal(slices.Sorted(slices.Values(got)), want) {
		t.Errorf("machines %q, wanted %q", got, want)
	}
	s.clean("after the first apply")

	s.ctl("volume", "list")
	s.account()
	begin := time.Now()
	until(t, "a mail is taken", 10*time.Minute, func() error { return send("first-end") })
	until(t, "it is read through the balancer", 10*time.Minute, func() error { return found(s.ca(), balancer, "first-end") })
	t.Logf("first mail sent and read after %.0f s", time.Since(begin).Seconds())
	for _, box := range []string{"10.20.3.1", "10.20.3.2"} {
		if out, err := s.ssh(box, "findmnt -no FSTYPE,OPTIONS /srv/shoal/vol01; free -m | awk '/^Mem:/ {print $3 \" MB used\"}'; systemd-analyze | head -n 1"); err != nil || !strings.Contains(out, "nfs4") || !strings.Contains(out, "vers=4.2") {
			t.Errorf("%s: %v %s", box, err, out)
		} else {
			t.Logf("%s: %s", box, strings.Join(strings.Fields(out), " "))
		}
	}

	s.grow(h)
	s.imported()
	s.drift(h)
	s.renewed()

	s.ctl("account", "delete", user) // a domain with accounts is not destroyed
	before := time.Now()
	s.run("destroy", "-auto-approve", "-input=false")
	t.Logf("destroy: %.0f s", time.Since(before).Seconds())
	if left := h.names("list", "--all", "--name"); len(left) > 0 {
		t.Errorf("machines are left: %q", left)
	}
	if left := h.names("vol-list", "default"); len(left) > 0 {
		t.Errorf("volumes are left: %q", left)
	}
}

// account adds the account whose mail is sent and read.
func (s *stack) account() {
	s.t.Helper()
	put(s.t, s.operator+"/password", password+"\n")
	s.ctl("account", "add", user, "--name", "Alice", "--volume", "vol01", "--password-file", "password")
}

// grow adds the third box while a client idles and mail flows.
func (s *stack) grow(h *hypervisor) {
	s.t.Helper()
	client := idle(s.t)
	defer client.close()
	started := s.startTimes()
	end := flow()
	s.variables["box_count"] = 3
	s.write()
	out := s.apply("apply: the third box")
	sent, wrong := end()
	for _, err := range wrong {
		s.t.Errorf("while the third box came: %v", err)
	}
	if strings.Contains(out, " to change,") && !strings.Contains(out, " 0 to change,") || !strings.Contains(out, " 0 destroyed") {
		s.t.Errorf("more than an addition: %s", tail([]byte(out), 300))
	}
	s.clean("after the third box")
	// Boxes take connections of the balancers only: the balancer is asked until it has sent one to the third box.
	until(s.t, "the third box serves mail", 10*time.Minute, func() error {
		if err := found(s.ca(), balancer, "first-end"); err != nil {
			return err
		}
		out, err := s.ssh(box3, "journalctl -u boxd -o cat | grep -c 'login ok'")
		if err != nil {
			return fmt.Errorf("no login at the third box: %w %s", err, out)
		}
		return nil
	})
	for _, subject := range sent {
		until(s.t, subject, 5*time.Minute, func() error { return found(s.ca(), balancer, subject) })
	}
	until(s.t, "the client that idles is told of all mail", 5*time.Minute, func() error {
		n, err := client.state()
		if err == nil && n < len(sent)+1 {
			err = fmt.Errorf("it knows of %d messages, %d were sent", n, len(sent)+1)
		}
		return err
	})
	if again := s.startTimes(); again != started {
		s.t.Errorf("servers were started again: %s, before %s", again, started)
	}
	s.t.Logf("%d mails were sent and read meanwhile, none was refused; the client stayed connected", len(sent))
}

// startTimes are when the daemons of the machines that were there first have started.
func (s *stack) startTimes() string {
	s.t.Helper()
	var all []string
	for _, m := range []struct{ address, unit string }{{balancer, "haproxy"}, {"10.20.2.1", "switchd"}, {"10.20.3.1", "boxd"}, {"10.20.3.2", "boxd"}, {master, "vaultd"}, {"10.20.4.2", "vaultd"}} {
		out, err := s.ssh(m.address, "systemctl show -P ActiveEnterTimestamp "+m.unit)
		if err != nil {
			s.t.Errorf("%s: %v %s", m.address, err, out)
		}
		all = append(all, m.address+" "+strings.TrimSpace(out))
	}
	return strings.Join(all, ", ")
}

// imported: Terraform forgets a machine and its image, takes them up again by their names, and finds nothing to change.
func (s *stack) imported() {
	s.t.Helper()
	machine := `module.service.module.rest["box1"].shoal_machine.this[0]`
	for _, what := range []struct{ address, id string }{{machine, "default/box1"}, {`shoal_image.role["box"]`, "default/" + s.value(`shoal_image.role["box"]`, "name")}} {
		s.run("state", "rm", what.address)
		s.run("import", "-input=false", what.address, what.id)
	}
	code, out := s.try("plan", "-detailed-exitcode", "-input=false")
	if code == 1 || strings.Contains(out, "must be replaced") || strings.Contains(out, "is rebuilt") || strings.Contains(out, "is restarted") {
		s.t.Errorf("after an import the machine would be made anew: %s", tail([]byte(out), 4000))
	}
	if code == 2 {
		s.apply("apply after the import")
		s.clean("after the import")
	}
}

// value is an attribute of a resource in the state.
func (s *stack) value(address, name string) string {
	s.t.Helper()
	for line := range strings.Lines(s.run("state", "show", address)) {
		if key, value, ok := strings.Cut(line, "="); ok && strings.TrimSpace(key) == name {
			return strings.Trim(strings.TrimSpace(value), `"`)
		}
	}
	s.t.Fatalf("%s has no %s", address, name)
	return ""
}

// drift: memory that somebody has changed behind Terraform's back is seen.
func (s *stack) drift(h *hypervisor) {
	s.t.Helper()
	h.virsh("setmem", "box3", "700M", "--config")
	h.virsh("setmaxmem", "box3", "700M", "--config")
	code, out := s.try("plan", "-detailed-exitcode", "-input=false")
	if code != 2 || !strings.Contains(out, "box3") || !strings.Contains(out, "memory_mib") {
		s.t.Errorf("other memory is not seen: exit code %d\n%s", code, tail([]byte(out), 4000))
	}
	h.virsh("setmaxmem", "box3", "1024M", "--config")
	h.virsh("setmem", "box3", "1024M", "--config")
	s.clean("after the drift was undone")
}

// look tells what the machines say, after a failure.
func (s *stack) look(h *hypervisor) {
	for _, m := range h.names("list", "--name") {
		var network string
		switch {
		case strings.HasPrefix(m, "lb"):
			network = "10.20.1."
		case strings.HasPrefix(m, "switch"):
			network = "10.20.2."
		case strings.HasPrefix(m, "box"):
			network = "10.20.3."
		case strings.HasPrefix(m, "vault"):
			network = "10.20.4."
		case strings.HasPrefix(m, "storage"):
			network = "10.20.5."
		}
		out, err := s.ssh(network+m[len(m)-1:], "systemctl list-units --state=failed --no-legend --plain; journalctl --no-pager -p 5 -n 40 -o cat")
		s.t.Logf("== %s: %v\n%s", m, err, out)
	}
}
