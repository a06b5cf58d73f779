package accept

import (
	"bufio"
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"shoal/images/internal/recipe"
)

// Container is an image that runs on a copy of its tree, in a network of its own.
type Container struct {
	root string
	cmd  *exec.Cmd
	out  bytes.Buffer
	pid  string // of its systemd, as this machine sees it
	done chan error
}

// patience bounds each wait; on an idle machine a container is ready after some seconds.
const patience = 4 * time.Minute

// Boot copies a tree and starts it with a seed.
func Boot(ctx context.Context, contain, tree, work string, seed map[string]string) (*Container, error) {
	c := &Container{root: filepath.Join(work, "root"), done: make(chan error, 1)}
	if out, err := exec.CommandContext(ctx, "cp", "-a", tree, c.root).CombinedOutput(); err != nil {
		return nil, fmt.Errorf("copy of %s: %w: %s", tree, err, out)
	}
	// It has no network but the loopback: nothing would come of waiting for more.
	online := filepath.Join(c.root, "etc/systemd/system/systemd-networkd-wait-online.service.d/99-check.conf")
	if err := os.WriteFile(online, []byte("[Service]\nExecStart=\nExecStart=/bin/true\n"), 0o644); err != nil {
		return nil, err
	}
	args := []string{c.root, "--boot", "--private-network", "--resolv-conf=off", "--console=pipe", "--machine=shoal-" + filepath.Base(work)}
	for name, text := range seed {
		file := filepath.Join(work, name)
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			return nil, err
		}
		args = append(args, "--load-credential=shoal."+name+":"+file)
	}
	c.cmd = exec.Command(contain, args...)
	c.cmd.Stdout, c.cmd.Stderr = &c.out, &c.out
	c.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if err := c.cmd.Start(); err != nil {
		return nil, err
	}
	go func() { c.done <- c.cmd.Wait() }()
	if err := c.wait(ctx, "its systemd", c.found); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return c, nil
}

// wait asks again and again until what is asked is so.
func (c *Container) wait(ctx context.Context, what string, ask func() bool) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for !ask() {
		select {
		case err := <-c.done:
			c.done <- err
			return fmt.Errorf("the container has ended while it was waited for %s: %v: %s", what, err, c.tail())
		case <-ctx.Done():
			return fmt.Errorf("no sign of %s: %w: %s", what, ctx.Err(), c.tail())
		case <-tick.C:
		}
	}
	return nil
}

func (c *Container) tail() string {
	b := c.out.Bytes()
	return string(b[max(0, len(b)-2000):])
}

// found looks for the container's first process: the child of systemd-nspawn.
func (c *Container) found() bool {
	children, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", c.cmd.Process.Pid, c.cmd.Process.Pid))
	if err != nil {
		return false
	}
	for _, pid := range strings.Fields(string(children)) {
		if comm, err := os.ReadFile("/proc/" + pid + "/comm"); err == nil && strings.TrimSpace(string(comm)) == "systemd" {
			c.pid = pid
		}
	}
	return c.pid != ""
}

// Run runs a program inside.
func (c *Container) Run(ctx context.Context, args ...string) (string, error) {
	out, err := exec.CommandContext(ctx, "nsenter", append([]string{"--target", c.pid, "--all", "--"}, args...)...).CombinedOutput()
	if err != nil {
		err = fmt.Errorf("%s: %w: %.500s", strings.Join(args, " "), err, out)
	}
	return string(out), err
}

// Close ends the container. Nothing of it is wanted any more: its first process is killed, and with that all the others. The
// kernel lets the first one go when the last of them has ended, and only then nobody writes to the tree.
func (c *Container) Close() error {
	ignoreGone := func(err error) error {
		if errors.Is(err, syscall.ESRCH) {
			return nil
		}
		return err
	}
	pid, err := strconv.Atoi(c.pid)
	if err == nil {
		err = ignoreGone(syscall.Kill(pid, syscall.SIGKILL))
	} else {
		err = nil // it never came up
	}
	err = errors.Join(err, ignoreGone(syscall.Kill(-c.cmd.Process.Pid, syscall.SIGKILL)))
	<-c.done
	end := time.NewTimer(patience)
	defer end.Stop()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for pid > 0 && syscall.Kill(pid, 0) == nil {
		select {
		case <-end.C:
			return errors.Join(err, fmt.Errorf("the container's first process %d does not end", pid))
		case <-tick.C:
		}
	}
	return errors.Join(err, os.RemoveAll(c.root))
}

// Booted looks at a container that has a good seed.
func Booted(ctx context.Context, c *Container, base, r *recipe.Role) ([]string, error) {
	var wrong []string
	bad := func(format string, args ...any) { wrong = append(wrong, fmt.Sprintf(format, args...)) }
	if err := c.wait(ctx, "the end of the start", func() bool {
		out, _ := c.Run(ctx, "systemctl", "list-jobs", "--no-legend", "--plain")
		state, _ := c.Run(ctx, "systemctl", "is-system-running")
		// What waits for the network or its volumes waits for ever here.
		return !strings.HasPrefix(state, "initializing") && !strings.Contains(out, " running") && !strings.HasPrefix(out, "Failed")
	}); err != nil {
		return nil, err
	}
	for _, unit := range append([]string{"shoal-firstboot.service", "shoal-firewall.service", "ssh.service", "prometheus-node-exporter.service"}, r.Active...) {
		unit := unit
		if err := c.wait(ctx, unit, func() bool {
			out, _ := c.Run(ctx, "systemctl", "is-active", unit)
			return strings.TrimSpace(out) == "active"
		}); err != nil {
			out, _ := c.Run(ctx, "systemctl", "status", "--no-pager", "--lines=15", unit)
			bad("%s is not active: %s", unit, out)
		}
	}
	failed, err := c.failed(ctx)
	if err != nil {
		return nil, err
	}
	for _, unit := range failed {
		if slices.Contains(r.VMUnits, unit) || isVolume(unit) || slices.Contains(inContainers, unit) || slices.Contains(r.Daemons, unit) && !slices.Contains(r.Active, unit) {
			continue
		}
		out, _ := c.Run(ctx, "journalctl", "--no-pager", "--lines=10", "--unit", unit)
		bad("%s has failed: %s", unit, out)
	}
	want := append(append([]int{}, base.Ports...), r.Ports...)
	slices.Sort(want)
	var have []int
	if err := c.wait(ctx, "its ports", func() bool {
		have, err = c.ports()
		return err != nil || slices.Equal(have, want)
	}); err != nil {
		bad("ports %v listen, wanted %v", have, want)
	}
	if err != nil {
		return nil, err
	}
	rules, err := c.Run(ctx, "nft", "list", "table", "inet", "shoal")
	if err != nil || !strings.Contains(rules, "policy drop") {
		bad("the packet filter is not there: %v", err)
	}
	if id, err := os.ReadFile(filepath.Join(c.root, "etc/machine-id")); err != nil || len(strings.TrimSpace(string(id))) != 32 {
		bad("the machine made no id for itself: %q %v", id, err)
	}
	if _, err := os.Stat(filepath.Join(c.root, "var/lib/shoal/ssh/ssh_host_ed25519_key")); err != nil {
		bad("the machine made no SSH key for itself: %v", err)
	}
	return wrong, nil
}

// Units that cannot work in a container: they set the clock or the kernel of the host.
var inContainers = []string{"chrony.service", "systemd-sysctl.service", "systemd-modules-load.service", "systemd-networkd-wait-online.service",
	"chrony-wait.service", "systemd-udevd.service", "systemd-remount-fs.service", "clamav-freshclam.service",
	"run-rpc_pipefs.mount", "proc-fs-nfsd.mount"}

// isVolume tells the mounts of a seed's volumes: they are NFS, which a container does not have.
func isVolume(unit string) bool {
	return strings.HasPrefix(unit, "srv-shoal-") && strings.HasSuffix(unit, ".mount")
}

func (c *Container) failed(ctx context.Context) ([]string, error) {
	out, err := c.Run(ctx, "systemctl", "list-units", "--state=failed", "--no-legend", "--plain", "--output=json")
	if err != nil {
		return nil, err
	}
	var units []struct {
		Unit string `json:"unit"`
	}
	if err := json.Unmarshal([]byte(out), &units); err != nil {
		return nil, fmt.Errorf("systemctl list-units: %w", err)
	}
	var names []string
	for _, u := range units {
		names = append(names, u.Unit)
	}
	return names, nil
}

// ports are the TCP ports that listen in the network of the container, as /proc/net/tcp has them.
func (c *Container) ports() ([]int, error) {
	var all []int
	for _, table := range []string{"tcp", "tcp6"} {
		f, err := os.Open(filepath.Join("/proc", c.pid, "net", table))
		if err != nil {
			return nil, err
		}
		defer f.Close()
		for s := bufio.NewScanner(f); s.Scan(); {
			fields := strings.Fields(s.Text())
			if len(fields) < 4 || fields[3] != "0A" {
				continue
			}
			_, port, _ := strings.Cut(fields[1], ":")
			if b, err := hex.DecodeString(port); err == nil && len(b) == 2 {
				all = append(all, int(b[0])<<8|int(b[1]))
			}
		}
	}
	slices.Sort(all)
	return slices.Compact(all), nil
}
