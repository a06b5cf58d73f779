package terraform

import (
	"encoding/json"
	"fmt"
	"maps"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"shoal/tests/appliance"
	"shoal/tests/ports"
)

// The whole service on machines that exist already: from two boxes to three while clients stay connected, and back, with the third
// drained. Nothing else is touched.
func TestGrowthOfTheService(t *testing.T) {
	r := appliance.New(t)
	lb, storage := r.Balancer(), r.Storage()
	at := ports.Take(t, 4)
	port := func(address string) int {
		_, p, err := net.SplitHostPort(address)
		if err != nil {
			t.Fatal(err)
		}
		n, err := strconv.Atoi(p)
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	served := port(at[1]) // by every box, each at an address of its own
	addresses := map[string]string{"lb1": "127.0.0.1", "switch1": "127.0.0.21", "vault1": "127.0.0.1", "storage1": "127.0.0.1"}
	for n := 1; n <= 3; n++ {
		name := fmt.Sprintf("box%d", n)
		addresses[name] = fmt.Sprintf("127.0.0.3%d", n)
		appliance.Echo(t, name, fmt.Sprintf("%s:%d", addresses[name], served))
	}

	dir := t.TempDir()
	for _, what := range []string{"modules", "examples"} {
		if out, err := exec.Command("cp", "-r", "../../terraform/"+what, dir).CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	}
	s := &stack{t: t, dir: filepath.Join(dir, "examples/existing-machines")}
	variables := func(boxes int) {
		t.Helper()
		b, err := json.Marshal(map[string]any{
			"operator": r.Path("alice"), "directory": map[string]any{"uri": "ldap://" + r.LDAP, "password_file": r.Path("root.secret")},
			"box_count": boxes, "addresses": addresses, "agent_ports": map[string]int{"lb1": port(lb), "storage1": port(storage)},
			"pools":            map[string]any{"imap": map[string]any{"port": port(at[0])}, "smtp": map[string]any{"port": port(at[2])}},
			"member_ports":     map[string]any{"box": map[string]int{"imap": served}},
			"public_addresses": map[string]any{"lb1": []string{"127.0.0.1"}}, "deletion_protection": boxes > 0,
		})
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(s.dir, "terraform.tfvars.json"), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	variables(2)
	s.run(0, "init", "-input=false")
	s.run(0, "apply", "-auto-approve", "-input=false")
	s.clean()

	bootable(t, r, s, "box1 box2 lb1 storage1 switch1 vault1")

	clients := map[string]*appliance.Client{}
	r.Wait("both boxes serve", func() error {
		c, err := appliance.TryDial(t, at[0])
		if err != nil {
			return err
		}
		if clients[c.Name] == nil {
			clients[c.Name] = c
		}
		if len(clients) < 2 {
			return fmt.Errorf("only %v serve", clients)
		}
		return nil
	})
	pid := haproxyPID(t, r)

	variables(3)
	out := s.run(0, "apply", "-auto-approve", "-input=false")
	if !strings.Contains(out, "2 added, 0 changed, 0 destroyed") { // its entry and its place in the pool
		t.Errorf("the third box: %s", out)
	}
	s.clean()
	r.Wait("the third box serves", func() error {
		c, err := appliance.TryDial(t, at[0])
		if err != nil {
			return err
		}
		if c.Name != "box3" {
			return fmt.Errorf("%s answered", c.Name)
		}
		clients["box3"] = c
		return nil
	})
	for _, c := range clients {
		c.Works(t)
	}
	if haproxyPID(t, r) != pid {
		t.Error("HAProxy was reloaded")
	}

	clients["box3"].Close()
	variables(2)
	if out := s.run(0, "apply", "-auto-approve", "-input=false"); !strings.Contains(out, "0 added, 0 changed, 2 destroyed") {
		t.Errorf("without the third box: %s", out)
	}
	clients["box1"].Works(t)
	clients["box2"].Works(t)

	var inventory map[string]struct{ Ansible_Host, Role string }
	if err := json.Unmarshal([]byte(s.run(0, "output", "-json", "inventory")), &inventory); err != nil || inventory["box2"].Ansible_Host != "127.0.0.32" || inventory["box2"].Role != "box" {
		t.Errorf("inventory: %v %v", err, inventory)
	}
	if out := s.run(1, "plan", "-destroy"); !strings.Contains(out, "protected") {
		t.Errorf("destroy: %s", out)
	}
	clients["box2"].Close() // its removal would wait for it
	variables(1)
	s.run(0, "apply", "-auto-approve", "-input=false")
	variables(0)
	if out := s.run(1, "plan"); !strings.Contains(out, "the last one cannot be removed") {
		t.Errorf("the last box: %s", out)
	}
}

// bootable: what every server is told at its first boot is what first boot takes, with what it enrols with, or for the master with the
// administrator's password, laid over it; and without that it is refused.
func bootable(t *testing.T, r *appliance.Rig, s *stack, want string) {
	t.Helper()
	var seeds map[string]map[string]any
	if err := json.Unmarshal([]byte(s.run(0, "output", "-json", "seeds")), &seeds); err != nil {
		t.Fatal(err)
	}
	names := slices.Sorted(maps.Keys(seeds))
	if strings.Join(names, " ") != want {
		t.Errorf("there are seeds for %v", names)
	}
	for _, name := range names {
		settings := seeds[name]["shoal"].(map[string]any)
		check := func() (string, error) {
			b, err := json.Marshal(seeds[name])
			if err != nil {
				t.Fatal(err)
			}
			out, err := exec.Command(filepath.Join(r.Bin, "shoal-firstboot"), "check", r.Put(name+".user-data", "#cloud-config\n%s", b)).CombinedOutput()
			return string(out), err
		}
		if name == "vault1" {
			settings["vault"] = map[string]any{"root_password_hash": "{ARGON2}$argon2id$v=19$m=19456,t=2,p=1$MDEyMzQ1Njc4OWFiY2RlZg$5Q1dQ3l1zvLHCZ1m0dZpGm1zQG0t8Yw2d2m3m4m5m6c"}
		}
		if out, err := check(); err == nil || !strings.Contains(out, "has no credentials") {
			t.Errorf("a seed of %s without credentials: %v %s", name, err, out)
		}
		settings["enrol_url"], settings["enrol_token"], settings["ca_sha256"] = "https://192.0.2.1:7443", "shoal1-abc", strings.Repeat("0", 64)
		if out, err := check(); err != nil {
			t.Errorf("the seed of %s: %v %s", name, err, out)
		}
	}
}
