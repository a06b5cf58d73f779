package shoalctl

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"shoal/daemons/internal/dirclient"
	"shoal/daemons/internal/pki"
)

// Bounds of clock differences. The HTTP Date of an answer has a resolution of one second.
const (
	clockWarning = 3 * time.Second
	clockProblem = time.Minute
)

func timeout() (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.Background(), askWithin)
}

// checkDirectory looks whether the directory answers and takes updates.
func (d *doctor) checkDirectory(ctx context.Context) string {
	err := d.write(ctx)
	switch {
	case err == nil:
		return strings.Join(d.config.Directory.URIs, ", ") + " answers and takes updates"
	case errors.Is(err, dirclient.ErrInvalidCredentials):
		d.problem(err.Error(), "shoalctl can change nothing", "correct bind_dn and password_file in shoalctl's configuration")
	case errors.Is(err, dirclient.ErrReferral), errors.Is(err, dirclient.ErrDenied):
		d.warn("the directory answers, but takes no updates: "+err.Error(), "mail flows; accounts and domains cannot be changed there",
			"name the master first in uris of shoalctl's configuration, or start it")
	case errors.Is(err, dirclient.ErrUnavailable):
		d.problem(err.Error(), "servers go on with what they remember, for a bounded time; then mail is deferred and nobody can log in", "start vaultd; its log says why it ended")
	default:
		d.problem(err.Error(), "accounts and domains may not be changeable", "see vaultd's log")
	}
	return ""
}

// checkServers compares the directory's list with who answers.
func (d *doctor) checkServers(ctx context.Context, t *tool) string {
	servers, err := d.servers(ctx)
	if err != nil {
		d.warn("the directory does not tell which servers there are", "servers, versions and clocks are not examined", "mend the directory first")
		return ""
	}
	d.status, err = t.statusOf(ctx, d.config, servers)
	if err != nil {
		d.problem(err.Error(), "servers cannot be asked", "see the certificates above")
		return ""
	}
	ready := map[string]int{}
	for _, s := range d.status.Servers {
		ready[s.Role] += btoi(s.State == "ready")
	}
	for _, role := range []string{pki.RoleVault, pki.RoleSwitch, pki.RoleBox} {
		if ready[role] == 0 {
			d.problem("no server of role "+role+" is ready", map[string]string{
				pki.RoleVault: "accounts cannot be looked up", pki.RoleSwitch: "no mail is accepted", pki.RoleBox: "no mail can be read or delivered"}[role],
				"start one; if none is listed, its entry is missing in the directory")
		}
	}
	for _, s := range d.status.Servers {
		switch s.State {
		case "ready", "draining":
		case "not ready":
			d.problem(fmt.Sprintf("%s runs but is not ready: %s", s.Name, s.Problem), "the balancer sends it nobody", "mend what it says")
		case "unknown":
			d.warn(fmt.Sprintf("%s: %s", s.Name, s.Problem), "it cannot be examined", "add \"control <host:port>\" to shoalAddress of its entry")
		default:
			d.problem(fmt.Sprintf("%s (%s) does not answer: %s", s.Name, s.Control, s.Problem), "it is down, or its control address in the directory is wrong",
				"start it, or delete its entry if it is gone for good")
		}
		if s.Status != nil && s.Status.Certificate != nil {
			if left := s.Status.Certificate.Sub(d.now()); left < expiresSoon {
				d.warn(fmt.Sprintf("%s runs with a certificate that ends in %s", s.Name, ageText(left)), "after that no other server speaks with it",
					"renew its certificate; it takes up the new file by itself")
			}
		}
	}
	for _, c := range d.configs {
		if c.server != "" && len(c.all("listener")) > 0 && !slices.ContainsFunc(servers, func(s dirclient.Server) bool { return s.Name == c.server }) {
			d.problem(fmt.Sprintf("%s is configured in %s, but the directory has no entry for it", c.server, c.file),
				"it cannot log in to the directory, and nobody finds it", "add its entry below ou=servers,ou=config")
		}
	}
	return fmt.Sprintf("%d listed, all ready", len(servers))
}

// checkVersions wants one version everywhere.
func (d *doctor) checkVersions() string {
	if d.status == nil {
		return ""
	}
	by := map[string][]string{}
	for _, s := range d.status.Servers {
		if s.Status != nil {
			by[s.Status.Version] = append(by[s.Status.Version], s.Name)
		}
	}
	var all []string
	for version, names := range by {
		all = append(all, fmt.Sprintf("%s on %s", version, strings.Join(names, ", ")))
	}
	slices.Sort(all)
	if len(all) > 1 {
		d.warn("servers run different versions: "+strings.Join(all, "; "), "that is meant to last only as long as an upgrade does", "finish the upgrade")
	}
	return strings.Join(all, "")
}

// checkReplication looks twice at shadows that lack changes: a moment is natural, standing still is not.
func (d *doctor) checkReplication(ctx context.Context, t *tool) string {
	if d.status == nil {
		return ""
	}
	behind := func(v *statusView) map[string]string {
		all := map[string]string{}
		for _, s := range v.Servers {
			if s.Replication != nil && !s.Replication.InStep {
				all[s.Name] = strings.TrimSpace(s.Replication.text() + " " + s.Replication.Error)
			}
		}
		return all
	}
	vaults := 0
	for _, s := range d.status.Servers {
		vaults += btoi(s.Replication != nil)
		if s.Replication != nil && s.Replication.Error != "" && s.Replication.InStep {
			d.warn(fmt.Sprintf("%s: %s", s.Name, s.Replication.Error), "it may fall behind", "see its log and whether it reaches its master")
		}
	}
	if vaults < 2 {
		return ""
	}
	if first := behind(d.status); len(first) > 0 {
		d.pause()
		if servers, err := d.servers(ctx); err == nil {
			if again, err := t.statusOf(ctx, d.config, servers); err == nil {
				second := behind(again)
				for _, name := range slices.Sorted(maps.Keys(first)) {
					if text, still := second[name]; still {
						d.problem(fmt.Sprintf("%s does not catch up: %s", name, text), "new accounts, passwords and settings are not known to those who read there",
							"see its log and whether it reaches its master; as a last resort empty its database: it copies everything anew")
					}
				}
			}
		}
	}
	return fmt.Sprintf("%d directory servers in step", vaults)
}

// checkClocks compares the clocks of the servers with this machine's.
func (d *doctor) checkClocks(ctx context.Context) string {
	if d.status == nil {
		return ""
	}
	k, err := d.config.control()
	if err != nil {
		return ""
	}
	defer k.close()
	n := 0
	for _, s := range d.status.Servers {
		if s.Status == nil {
			continue
		}
		off, err := k.clockOf(ctx, s.Control, d.now)
		if err != nil {
			continue
		}
		n++
		ahead := "ahead of"
		if off < 0 {
			ahead = "behind"
		}
		text := fmt.Sprintf("the clock of %s is %s %s this machine's", s.Name, off.Abs().Round(time.Second), ahead)
		switch {
		case off.Abs() >= clockProblem:
			d.problem(text, "certificates are refused, dates of mail are wrong, a living switch may be taken for dead", "let chrony or systemd-timesyncd set the clocks")
		case off.Abs() >= clockWarning:
			d.warn(text, "dates of mail and logs are wrong", "let chrony or systemd-timesyncd set the clocks")
		}
	}
	if n == 0 {
		return ""
	}
	return fmt.Sprintf("%d servers, differing by less than %s", n, clockWarning)
}

// clockOf is how far a server's clock is ahead of ours; what the resolution leaves open counts as no difference.
func (k *control) clockOf(ctx context.Context, address string, now func() time.Time) (time.Duration, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+address+"/v1/status", nil)
	if err != nil {
		return 0, err
	}
	before := now()
	response, err := k.client.Do(request)
	if err != nil {
		return 0, err
	}
	response.Body.Close()
	after := now()
	date, err := http.ParseTime(response.Header.Get("Date"))
	if err != nil {
		return 0, err
	}
	switch {
	case date.After(after):
		return date.Sub(after), nil
	case date.Add(time.Second).Before(before):
		return date.Add(time.Second).Sub(before), nil
	}
	return 0, nil
}

// checkVolumes looks at the volumes that daemons on this machine mount, and compares them with the directory.
func (d *doctor) checkVolumes(ctx context.Context) string {
	listed := map[string]dirclient.Volume{}
	all, err := d.volumes(ctx)
	for _, v := range all {
		listed[v.Name] = v
	}
	known := err == nil // otherwise the directory's check has said so
	seen := map[string]bool{}
	for _, c := range d.configs {
		for _, b := range c.all("volume") {
			path, id := c.path(b.attributes["path"]), b.attributes["id"]
			if v, ok := listed[b.label]; known && !ok {
				d.problem(fmt.Sprintf("volume %s of %s is not in the directory", b.label, c.server), "no account can lie on it", "add it below ou=volumes,ou=config, or correct the label")
			} else if ok && !strings.EqualFold(v.ID, id) {
				d.problem(fmt.Sprintf("volume %s of %s has id %s, the directory says %s", b.label, c.server, id, v.ID), "the daemon refuses it", "correct the wrong one; the marker on the volume tells")
			}
			if seen[path+" "+id] {
				continue
			}
			seen[path+" "+id] = true
			what := "volume " + b.label
			d.marked(what, path, "shoal-volume", id)
			d.space(path, what)
			d.mountOptions(what, path)
		}
	}
	if len(seen) == 0 {
		return ""
	}
	return fmt.Sprintf("%d on this machine", len(seen))
}

// checkPorts looks for listeners of daemons that run and do not listen, and for others on the ports of those that
// do not.
func (d *doctor) checkPorts() string {
	listening, err := d.listening()
	if err != nil || d.status == nil {
		return ""
	}
	n := 0
	for _, c := range d.configs {
		i := slices.IndexFunc(d.status.Servers, func(s serverView) bool { return s.Name == c.server })
		runs := i >= 0 && d.status.Servers[i].Status != nil
		if runs {
			if host, err := os.Hostname(); err != nil || d.status.Servers[i].Status.Host != host {
				continue
			}
		}
		for _, kind := range []string{"listener", "control", "management"} {
			for _, b := range c.all(kind) {
				address := b.attributes["address"]
				taken, ok := isListening(listening, address)
				if !ok {
					continue
				}
				n++
				name := strings.TrimSpace(kind + " " + b.label)
				switch {
				case runs && !taken:
					d.problem(fmt.Sprintf("%s runs, but nobody listens at %s (%s)", c.server, address, name), "clients of this service are refused", "see its log; was the configuration changed without a restart?")
				case !runs && taken:
					d.problem(fmt.Sprintf("%s does not run, but somebody listens at %s (%s)", c.server, address, name),
						"it cannot start while another program holds its port", "ss -ltnp | grep "+address[strings.LastIndexByte(address, ':'):]+" names the program")
				}
			}
		}
	}
	if n == 0 {
		return ""
	}
	return fmt.Sprintf("%d addresses of daemons on this machine", n)
}

// listening reads the TCP addresses that somebody listens at (proc(5), net/tcp).
func (d *doctor) listening() ([]netip.AddrPort, error) {
	var all []netip.AddrPort
	for _, file := range []string{"tcp", "tcp6"} {
		text, err := os.ReadFile(filepath.Join(d.proc, "net", file))
		if errors.Is(err, os.ErrNotExist) && file == "tcp6" {
			continue
		}
		if err != nil {
			return nil, err
		}
		for line := range strings.Lines(string(text)) {
			fields := strings.Fields(line)
			if len(fields) < 4 || fields[3] != "0A" { // TCP_LISTEN
				continue
			}
			if address, ok := procAddress(fields[1]); ok {
				all = append(all, address)
			}
		}
	}
	return all, nil
}

// procAddress reads "0100007F:1F90": words of four bytes, each the wrong way round on machines of today.
func procAddress(s string) (netip.AddrPort, bool) {
	host, port, ok := strings.Cut(s, ":")
	n, err := strconv.ParseUint(port, 16, 16)
	if !ok || err != nil || len(host) != 8 && len(host) != 32 {
		return netip.AddrPort{}, false
	}
	raw := make([]byte, len(host)/2)
	for i := range raw {
		b, err := strconv.ParseUint(host[2*i:2*i+2], 16, 8)
		if err != nil {
			return netip.AddrPort{}, false
		}
		raw[i/4*4+3-i%4] = byte(b)
	}
	address, ok := netip.AddrFromSlice(raw)
	return netip.AddrPortFrom(address.Unmap(), uint16(n)), ok
}

// isListening says whether somebody listens at an address of a configuration; ok is false where that is no plain
// address with a port.
func isListening(all []netip.AddrPort, address string) (taken, ok bool) {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return false, false
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil || n == 0 {
		return false, false
	}
	var want netip.Addr
	if host != "" {
		if want, err = netip.ParseAddr(host); err != nil {
			return false, false
		}
	}
	for _, a := range all {
		if uint64(a.Port()) != n {
			continue
		}
		if !want.IsValid() || want.IsUnspecified() || a.Addr().IsUnspecified() || a.Addr() == want.Unmap() {
			return true, true
		}
	}
	return false, true
}
